/* sqlfront/interval.c: spans of time: months, days and microseconds apart, as PostgreSQL keeps
 * them, because a month is not a number of days nor (with daylight saving) a day one of hours. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/timestamp.h"
#include "sqlfront/internal.h"

struct unit {
    const char *name; /* singular and plural both match */
    int months, days;
    int64_t us;
};
static const struct unit units[] = {
    {"microsecond", 0, 0, 1},
    {"us", 0, 0, 1},
    {"usec", 0, 0, 1},
    {"millisecond", 0, 0, 1000},
    {"ms", 0, 0, 1000},
    {"msec", 0, 0, 1000},
    {"second", 0, 0, 1000000},
    {"sec", 0, 0, 1000000},
    {"s", 0, 0, 1000000},
    {"minute", 0, 0, 60000000},
    {"min", 0, 0, 60000000},
    {"m", 0, 0, 60000000},
    {"hour", 0, 0, INT64_C(3600000000)},
    {"hr", 0, 0, INT64_C(3600000000)},
    {"h", 0, 0, INT64_C(3600000000)},
    {"day", 0, 1, 0},
    {"d", 0, 1, 0},
    {"week", 0, 7, 0},
    {"w", 0, 7, 0},
    {"month", 1, 0, 0},
    {"mon", 1, 0, 0},
    {"quarter", 3, 0, 0},
    {"year", 12, 0, 0},
    {"y", 12, 0, 0},
    {"yr", 12, 0, 0},
    {"decade", 120, 0, 0},
    {"century", 1200, 0, 0},
};

static const struct unit *unit_of(chr_slice word)
{
    for (size_t i = 0; i < CHR_COUNT_OF(units); i++) {
        size_t n = strlen(units[i].name);
        if (word.len >= n && strncasecmp((const char *)word.ptr, units[i].name, n) == 0 &&
            (word.len == n || (word.len == n + 1 && (word.ptr[n] | 32) == 's')))
            return &units[i];
    }
    if (word.len == 9 && strncasecmp((const char *)word.ptr, "centuries", 9) == 0)
        return &units[CHR_COUNT_OF(units) - 1];
    return NULL;
}

/* Adds number × unit; fractions of months become days of 30, of days microseconds. */
static bool add_units(struct sql_interval *iv, double number, const struct unit *u)
{
    double months = number * u->months, days = number * u->days, us = number * (double)u->us;
    double whole_months = (double)(int64_t)CHR_MIN(CHR_MAX(months, -4e9), 4e9);
    days += (months - whole_months) * 30;
    double whole_days = (double)(int64_t)CHR_MIN(CHR_MAX(days, -4e12), 4e12);
    us += (days - whole_days) * (double)CHR_US_PER_DAY;
    if (!(us > -9.2e18 && us < 9.2e18))
        return false;
    int64_t whole_us = (int64_t)(us < 0 ? us - 0.5 : us + 0.5);
    int64_t m = iv->months + (int64_t)whole_months, d = iv->days + (int64_t)whole_days;
    if (m < INT32_MIN || m > INT32_MAX || d < INT32_MIN || d > INT32_MAX ||
        __builtin_add_overflow(iv->us, whole_us, &iv->us))
        return false;
    iv->months = (int32_t)m;
    iv->days = (int32_t)d;
    return true;
}

/* [-+]HH:MM[:SS[.ffffff]] from p; 0 when it is not one, else the bytes used. */
static size_t clock_time(const uint8_t *p, size_t len, struct sql_interval *iv)
{
    size_t i = 0;
    int sign = 1;
    if (i < len && (p[i] == '-' || p[i] == '+'))
        sign = p[i++] == '-' ? -1 : 1;
    int64_t part[3] = {0, 0, 0}, fraction = 0;
    int parts = 0;
    for (; parts < 3; parts++) {
        size_t digits = 0;
        while (i < len && p[i] >= '0' && p[i] <= '9' && digits < 9) {
            part[parts] = part[parts] * 10 + (p[i++] - '0');
            digits++;
        }
        if (digits == 0)
            return 0;
        if (parts == 2 || i >= len || p[i] != ':')
            break;
        i++;
    }
    if (parts == 0 || part[1] > 59 || part[2] > 59)
        return 0;
    if (parts == 2 && i < len && p[i] == '.') {
        int64_t scale = 100000;
        for (i++; i < len && p[i] >= '0' && p[i] <= '9'; i++) {
            fraction += (p[i] - '0') * scale;
            scale /= 10;
        }
    }
    int64_t us = ((part[0] * 60 + part[1]) * 60 + part[2]) * CHR_US_PER_S + fraction;
    return __builtin_add_overflow(iv->us, sign * us, &iv->us) ? 0 : i;
}

bool sql__interval_parse(chr_slice text, struct sql_interval *out)
{
    *out = (struct sql_interval){0};
    const uint8_t *p = text.ptr;
    size_t i = 0, items = 0;
    while (i < text.len) {
        if (p[i] == ' ' || p[i] == ',' || p[i] == '\t') {
            i++;
            continue;
        }
        size_t used = clock_time(p + i, text.len - i, out);
        if (used) {
            i += used;
            items++;
            continue;
        }
        if (text.len - i == 3 && strncasecmp((const char *)p + i, "ago", 3) == 0 && items) {
            *out = (struct sql_interval){-out->months, -out->days, -out->us};
            return true;
        }
        double number;
        size_t n = i; /* a number is sign, digits and a point: "1e3" would read the e of "1 era" */
        while (n < text.len &&
               ((p[n] >= '0' && p[n] <= '9') || p[n] == '.' || p[n] == '-' || p[n] == '+'))
            n++;
        int len = chr_parse_f64(chr_slice_of(p + i, n - i), &number);
        if (len <= 0 || (size_t)len != n - i)
            return false;
        i = n;
        while (i < text.len && p[i] == ' ')
            i++;
        size_t start = i;
        while (i < text.len && ((p[i] | 32) >= 'a' && (p[i] | 32) <= 'z'))
            i++;
        const struct unit *u =
            start == i ? unit_of(CHR_LIT("s")) : unit_of(chr_slice_of(p + start, i - start));
        if (!u || !add_units(out, number, u))
            return false;
        items++;
    }
    return items > 0;
}

size_t sql__interval_format(struct sql_interval iv, char out[SQL_INTERVAL_TEXT_MAX])
{
    size_t n = 0;
#define ADD(...) n += (size_t)snprintf(out + n, SQL_INTERVAL_TEXT_MAX - n, __VA_ARGS__)
    int years = iv.months / 12, months = iv.months % 12;
    if (years)
        ADD("%d year%s", years, years == 1 ? "" : "s");
    if (months)
        ADD("%s%d mon%s", n ? " " : "", months, months == 1 ? "" : "s");
    if (iv.days)
        ADD("%s%d day%s", n ? " " : "", iv.days, iv.days == 1 ? "" : "s");
    if (iv.us || !n) {
        bool negative = iv.us < 0;
        uint64_t us = negative ? 0 - (uint64_t)iv.us : (uint64_t)iv.us;
        uint64_t s = us / 1000000, fraction = us % 1000000;
        ADD("%s%s%02llu:%02llu:%02llu", n ? " " : "", negative ? "-" : "",
            (unsigned long long)(s / 3600), (unsigned long long)(s / 60 % 60),
            (unsigned long long)(s % 60));
        if (fraction) {
            ADD(".%06llu", (unsigned long long)fraction);
            while (out[n - 1] == '0')
                out[--n] = '\0';
        }
    }
#undef ADD
    return n;
}

__int128 sql__interval_us(struct sql_interval iv)
{
    return ((__int128)iv.months * 30 + iv.days) * CHR_US_PER_DAY + iv.us;
}

bool sql__timestamp_add(int64_t ts, struct sql_interval iv, int sign, int64_t *out)
{
    if (iv.months) {
        struct chr_civil c;
        chr_civil_from_us(ts, &c);
        int64_t month = (int64_t)c.year * 12 + (c.month - 1) + (int64_t)sign * iv.months;
        if (month < 12 || month >= 12 * INT64_C(10000))
            return false;
        c.year = (int)(month / 12);
        c.month = (int)(month % 12) + 1;
        static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
        int last = lengths[c.month - 1];
        if (c.month == 2 && (c.year % 4 == 0 && (c.year % 100 != 0 || c.year % 400 == 0)))
            last = 29;
        if (c.day > last)
            c.day = last;
        if (chr_civil_to_us(&c, &ts) != CHR_OK)
            return false;
    }
    int64_t us;
    __int128 sum = (__int128)ts + sign * ((__int128)iv.days * CHR_US_PER_DAY + iv.us);
    us = (int64_t)sum;
    if (us != sum)
        return false;
    *out = us;
    return true;
}
