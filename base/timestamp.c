/* base/timestamp.c: calendar arithmetic and ISO 8601.
 *
 * Years are counted from 1 March, so that the leap day is the last day of its year and months of
 * 31, 30, 31, 30, 31 days repeat: then a month's first day is a linear expression, rounded down.
 * 400 years ("era") have 146097 days whatever their start. */
#include "base/timestamp.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/num.h"

#define DAYS_PER_ERA 146097
/* 1970-01-01 counted from 0000-03-01. */
#define EPOCH_DAY  719468
#define US_PER_DAY CHR_US_PER_DAY
/* 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z */
#define US_MIN INT64_C(-62135596800000000)
#define US_MAX INT64_C(253402300799999999)

/* year 1..9999 */
static inline int64_t days_from_civil(unsigned year, unsigned month, unsigned day)
{
    unsigned y = year - (month <= 2);
    unsigned month_from_march = month > 2 ? month - 3 : month + 9;
    unsigned yearday = (153 * month_from_march + 2) / 5 + day - 1;
    return (int64_t)(365 * y + y / 4 - y / 100 + y / 400 + yearday) - EPOCH_DAY;
}

static inline bool is_leap(unsigned year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static inline unsigned days_in_month(unsigned year, unsigned month)
{
    static const uint8_t days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month] + (unsigned)(month == 2 && is_leap(year));
}

/* Quotient rounded down, remainder not negative. */
static inline int64_t floor_div(int64_t a, int64_t b, int64_t *rest)
{
    int64_t q = a / b, r = a % b;
    if (r < 0) {
        q--;
        r += b;
    }
    *rest = r;
    return q;
}

void chr_civil_from_us(int64_t us, struct chr_civil *out)
{
    int64_t in_day, day_of_era;
    int64_t days = floor_div(us, US_PER_DAY, &in_day);
    int64_t era = floor_div(days + EPOCH_DAY, DAYS_PER_ERA, &day_of_era);
    /* Take the leap days out, and every year has 365: one goes after 1460 days (4 years, less the
     * leap day itself), one comes back after 36524 (a century), one goes at the end of the era. */
    unsigned doe = (unsigned)day_of_era;
    unsigned year_of_era = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned from_march = doe - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned month_from_march = (5 * from_march + 2) / 153;
    unsigned month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    int64_t year = era * 400 + year_of_era + (month <= 2);

    out->year = (int)year;
    out->month = (int)month;
    out->day = (int)(from_march - (153 * month_from_march + 2) / 5 + 1);
    /* March 1 is day 60, or 61 after a leap day; January and February are days 306.. of the year
     * that began in March. */
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    out->yearday = (int)from_march + (month <= 2 ? -305 : 60 + leap);
    /* 1970-01-01 was a Thursday. */
    int64_t weekday;
    floor_div(days + 4, 7, &weekday);
    out->weekday = (int)weekday;
    unsigned second_of_day = (unsigned)(in_day / 1000000);
    out->microsecond = (int)(in_day % 1000000);
    out->hour = (int)(second_of_day / 3600);
    out->minute = (int)(second_of_day / 60 % 60);
    out->second = (int)(second_of_day % 60);
}

chr_err chr_civil_to_us(const struct chr_civil *civil, int64_t *us)
{
    if (civil->year < 1 || civil->year > 9999 || civil->month < 1 || civil->month > 12 ||
        civil->day < 1 ||
        civil->day > (int)days_in_month((unsigned)civil->year, (unsigned)civil->month) ||
        civil->hour < 0 || civil->hour > 23 || civil->minute < 0 || civil->minute > 59 ||
        civil->second < 0 || civil->second > 59 || civil->microsecond < 0 ||
        civil->microsecond > 999999)
        return CHR_ERANGE;
    int64_t days =
        days_from_civil((unsigned)civil->year, (unsigned)civil->month, (unsigned)civil->day);
    int64_t seconds = days * 86400 + civil->hour * 3600 + civil->minute * 60 + civil->second;
    *us = seconds * CHR_US_PER_S + civil->microsecond;
    return CHR_OK;
}

/* Two and four digits, or a value above 99 and 9999 when there is something else. */
static inline unsigned two_digits(const uint8_t *p)
{
    unsigned a = p[0] - (unsigned)'0', b = p[1] - (unsigned)'0';
    return a > 9 || b > 9 ? 100 : a * 10 + b;
}

static inline unsigned four_digits(const uint8_t *p)
{
    unsigned a = two_digits(p), b = two_digits(p + 2);
    return a > 99 || b > 99 ? 10000 : a * 100 + b;
}

/* "Z", "+02:00", "-0330", "+05", or nothing; all of p..end. */
static chr_err parse_zone(const uint8_t *p, const uint8_t *end, int *offset_s)
{
    *offset_s = 0;
    size_t left = (size_t)(end - p);
    if (left == 0 || (left == 1 && (*p == 'Z' || *p == 'z')))
        return CHR_OK;
    if (*p != '+' && *p != '-')
        return CHR_EMALFORMED;
    unsigned minutes = 0;
    if (left != 3 && left != 5 && left != 6)
        return CHR_EMALFORMED;
    unsigned hours = two_digits(p + 1);
    if (left == 5)
        minutes = two_digits(p + 3);
    else if (left == 6)
        minutes = p[3] == ':' ? two_digits(p + 4) : 100;
    if (hours > 99 || minutes > 99)
        return CHR_EMALFORMED;
    if (hours > 23 || minutes > 59)
        return CHR_ERANGE;
    int seconds = (int)(hours * 3600 + minutes * 60);
    *offset_s = *p == '-' ? -seconds : seconds;
    return CHR_OK;
}

/* Digits after the point: the first six count. Returns where they end. */
static inline const uint8_t *parse_fraction(const uint8_t *p, const uint8_t *end, unsigned *us)
{
    static const unsigned scale[7] = {1000000, 100000, 10000, 1000, 100, 10, 1};
    unsigned value = 0, digits = 0;
    for (; p < end && (unsigned)(*p - '0') <= 9; p++) {
        if (digits < 6) {
            value = value * 10 + (*p - (unsigned)'0');
            digits++;
        }
    }
    *us = value * scale[digits];
    return p;
}

chr_err chr_timestamp_parse(chr_slice text, int64_t *us)
{
    const uint8_t *p = text.ptr, *end = p + text.len;
    if (text.len < 8)
        return CHR_EMALFORMED;
    unsigned year = four_digits(p), month, day;
    if (p[4] == '-') {
        if (text.len < 10 || p[7] != '-')
            return CHR_EMALFORMED;
        month = two_digits(p + 5);
        day = two_digits(p + 8);
        p += 10;
    } else {
        month = two_digits(p + 4);
        day = two_digits(p + 6);
        p += 8;
    }
    if (year > 9999 || month > 99 || day > 99)
        return CHR_EMALFORMED;

    unsigned hour = 0, minute = 0, second = 0, fraction_us = 0;
    int offset_s = 0;
    if (p < end) {
        if (*p != 'T' && *p != ' ' && *p != 't')
            return CHR_EMALFORMED;
        p++;
        if (end - p < 4)
            return CHR_EMALFORMED;
        hour = two_digits(p);
        p += 2;
        bool colons = *p == ':';
        p += colons;
        if (end - p < 2)
            return CHR_EMALFORMED;
        minute = two_digits(p);
        p += 2;
        if (p < end && (colons ? *p == ':' : (unsigned)(*p - '0') <= 9)) {
            p += colons;
            if (end - p < 2)
                return CHR_EMALFORMED;
            second = two_digits(p);
            p += 2;
            if (p < end && (*p == '.' || *p == ',')) {
                const uint8_t *digits = ++p;
                p = parse_fraction(p, end, &fraction_us);
                if (p == digits)
                    return CHR_EMALFORMED;
            }
        }
        if (hour > 99 || minute > 99 || second > 99)
            return CHR_EMALFORMED;
        chr_err err = parse_zone(p, end, &offset_s);
        if (err)
            return err;
    }

    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 59)
        return CHR_ERANGE;
    int64_t seconds = days_from_civil(year, month, day) * 86400 +
                      (int64_t)(hour * 3600 + minute * 60 + second) - offset_s;
    int64_t value = seconds * CHR_US_PER_S + fraction_us;
    /* A zone can push the first and the last day over the edge. */
    if (value < US_MIN || value > US_MAX)
        return CHR_ERANGE;
    *us = value;
    return CHR_OK;
}

static inline char *put_digits(char *at, unsigned value, int width)
{
    for (int i = width - 1; i >= 0; i--) {
        at[i] = (char)('0' + value % 10);
        value /= 10;
    }
    return at + width;
}

size_t chr_timestamp_format(int64_t us, char out[CHR_TIMESTAMP_TEXT_MAX])
{
    if (us < US_MIN || us > US_MAX) {
        size_t len = chr_format_i64(us, out);
        memcpy(out + len, "us", 3);
        return len + 2;
    }
    struct chr_civil c;
    chr_civil_from_us(us, &c);
    char *at = put_digits(out, (unsigned)c.year, 4);
    *at++ = '-';
    at = put_digits(at, (unsigned)c.month, 2);
    *at++ = '-';
    at = put_digits(at, (unsigned)c.day, 2);
    *at++ = 'T';
    at = put_digits(at, (unsigned)c.hour, 2);
    *at++ = ':';
    at = put_digits(at, (unsigned)c.minute, 2);
    *at++ = ':';
    at = put_digits(at, (unsigned)c.second, 2);
    if (c.microsecond) {
        *at++ = '.';
        at = put_digits(at, (unsigned)c.microsecond, 6);
        while (at[-1] == '0')
            at--;
    }
    *at++ = 'Z';
    *at = '\0';
    return (size_t)(at - out);
}

static chr_err within_calendar(int64_t value, int64_t *us)
{
    if (value < US_MIN || value > US_MAX)
        return CHR_ERANGE;
    *us = value;
    return CHR_OK;
}

chr_err chr_timestamp_from_i64(int64_t number, int64_t *us)
{
    uint64_t magnitude = number < 0 ? -(uint64_t)number : (uint64_t)number;
    if (magnitude < UINT64_C(100000000000))
        return within_calendar(number * CHR_US_PER_S, us);
    if (magnitude < UINT64_C(100000000000000))
        return within_calendar(number * 1000, us);
    if (magnitude < UINT64_C(100000000000000000))
        return within_calendar(number, us);
    int64_t rest;
    return within_calendar(floor_div(number, 1000, &rest), us);
}

/* number * scale to the nearest integer. Whole part and fraction apart, since their product in one
 * piece would round twice: 1733857900.123457 s has no room for exact microseconds. */
static inline int64_t scaled(double number, int64_t scale)
{
    int64_t whole = (int64_t)number;
    double fraction = (number - (double)whole) * (double)scale;
    return whole * scale + (int64_t)(fraction + (fraction < 0 ? -0.5 : 0.5));
}

chr_err chr_timestamp_from_f64(double number, int64_t *us)
{
    double magnitude = __builtin_fabs(number);
    if (magnitude < 1e11)
        return within_calendar(scaled(number, CHR_US_PER_S), us);
    if (magnitude < 1e14)
        return within_calendar(scaled(number, 1000), us);
    if (magnitude < 1e17)
        return within_calendar(scaled(number, 1), us);
    /* NaN ends here too: every comparison with it is false. */
    if (!(magnitude < 2.6e20))
        return CHR_ERANGE;
    return within_calendar(scaled(number / 1000, 1), us);
}
