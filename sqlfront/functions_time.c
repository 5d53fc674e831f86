/* sqlfront/functions_time.c: functions of timestamps and intervals. Everything is UTC. */
#include <math.h>
#include <stdio.h>
#include <strings.h>

#include "base/timestamp.h"
#include "sqlfront/functions.h"

/* 2000-01-03, a Monday, so that buckets of weeks begin on one; 2000-01-01 for buckets of months.
 * Both are what TimescaleDB uses. */
#define BUCKET_ORIGIN_US    INT64_C(946857600000000)
#define BUCKET_ORIGIN_MONTH (2000 * 12)

enum field {
    F_MICROSECONDS,
    F_MILLISECONDS,
    F_SECOND,
    F_MINUTE,
    F_HOUR,
    F_DAY,
    F_WEEK,
    F_MONTH,
    F_QUARTER,
    F_YEAR,
    F_DECADE,
    F_CENTURY,
    F_MILLENNIUM,
    F_EPOCH,
    F_DOW,
    F_ISODOW,
    F_DOY,
    F_ISOYEAR,
    F_NONE,
};

static enum field field_of(chr_slice name)
{
    static const struct {
        const char *name;
        enum field field;
    } names[] = {
        {"microseconds", F_MICROSECONDS},
        {"microsecond", F_MICROSECONDS},
        {"us", F_MICROSECONDS},
        {"milliseconds", F_MILLISECONDS},
        {"millisecond", F_MILLISECONDS},
        {"ms", F_MILLISECONDS},
        {"second", F_SECOND},
        {"seconds", F_SECOND},
        {"minute", F_MINUTE},
        {"minutes", F_MINUTE},
        {"hour", F_HOUR},
        {"hours", F_HOUR},
        {"day", F_DAY},
        {"days", F_DAY},
        {"week", F_WEEK},
        {"month", F_MONTH},
        {"months", F_MONTH},
        {"quarter", F_QUARTER},
        {"year", F_YEAR},
        {"years", F_YEAR},
        {"decade", F_DECADE},
        {"century", F_CENTURY},
        {"millennium", F_MILLENNIUM},
        {"epoch", F_EPOCH},
        {"dow", F_DOW},
        {"isodow", F_ISODOW},
        {"doy", F_DOY},
        {"isoyear", F_ISOYEAR},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
        if (strlen(names[i].name) == name.len &&
            strncasecmp(names[i].name, (const char *)name.ptr, name.len) == 0)
            return names[i].field;
    return F_NONE;
}

static bool no_field(sql_call *c, chr_slice name, const char *of)
{
    return sql__call_fail(c, "22023", "unit \"%.*s\" is not recognized for %s",
                          (int)CHR_MIN(name.len, (size_t)40), (const char *)name.ptr, of);
}

static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}

/* ISO week and the year it belongs to. */
static void iso_week(const struct chr_civil *t, int *week, int *year)
{
    int weekday = t->weekday == 0 ? 7 : t->weekday;
    int w = (t->yearday - weekday + 10) / 7;
    int y = t->year;
    if (w < 1) {
        y--;
        bool leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
        w = (t->yearday + (leap ? 366 : 365) - weekday + 10) / 7;
    } else if (w == 53) {
        bool leap = y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
        if (t->yearday - weekday + 4 > (leap ? 366 : 365)) {
            w = 1;
            y++;
        }
    }
    *week = w;
    *year = y;
}

static bool f_date_part(sql_call *c, const sql_val *a, sql_val *out)
{
    int64_t us = a[1].i;
    enum field field = field_of(a[0].s);
    if (field == F_EPOCH) {
        out->f = (double)us / 1e6;
        return true;
    }
    int64_t within = us - floor_div(us, 60000000) * 60000000; /* of the minute */
    struct chr_civil t;
    chr_civil_from_us(us, &t);
    int week, isoyear;
    switch (field) {
    case F_MICROSECONDS:
        out->f = (double)within;
        return true;
    case F_MILLISECONDS:
        out->f = (double)within / 1e3;
        return true;
    case F_SECOND:
        out->f = (double)within / 1e6;
        return true;
    case F_MINUTE:
        out->f = t.minute;
        return true;
    case F_HOUR:
        out->f = t.hour;
        return true;
    case F_DAY:
        out->f = t.day;
        return true;
    case F_WEEK:
        iso_week(&t, &week, &isoyear);
        out->f = week;
        return true;
    case F_MONTH:
        out->f = t.month;
        return true;
    case F_QUARTER:
        out->f = (t.month - 1) / 3 + 1;
        return true;
    case F_YEAR:
        out->f = t.year;
        return true;
    case F_ISOYEAR:
        iso_week(&t, &week, &isoyear);
        out->f = isoyear;
        return true;
    case F_DECADE:
        out->f = t.year / 10;
        return true;
    case F_CENTURY:
        out->f = (t.year + 99) / 100;
        return true;
    case F_MILLENNIUM:
        out->f = (t.year + 999) / 1000;
        return true;
    case F_DOW:
        out->f = t.weekday;
        return true;
    case F_ISODOW:
        out->f = t.weekday == 0 ? 7 : t.weekday;
        return true;
    case F_DOY:
        out->f = t.yearday;
        return true;
    default:
        return no_field(c, a[0].s, "TIMESTAMP");
    }
}

static bool f_interval_part(sql_call *c, const sql_val *a, sql_val *out)
{
    struct sql_interval iv = a[1].iv;
    switch (field_of(a[0].s)) {
    case F_EPOCH: /* a year counts 365.25 days here, as in PostgreSQL */
        out->f = (double)(iv.months / 12) * 31557600.0 + (double)(iv.months % 12) * 2592000.0 +
                 (double)iv.days * 86400.0 + (double)iv.us / 1e6;
        return true;
    case F_MICROSECONDS:
        out->f = (double)(iv.us % 60000000);
        return true;
    case F_MILLISECONDS:
        out->f = (double)(iv.us % 60000000) / 1e3;
        return true;
    case F_SECOND:
        out->f = (double)(iv.us % 60000000) / 1e6;
        return true;
    case F_MINUTE:
        out->f = (double)(iv.us / 60000000 % 60);
        return true;
    case F_HOUR:
        out->f = (double)(iv.us / INT64_C(3600000000));
        return true;
    case F_DAY:
        out->f = iv.days;
        return true;
    case F_MONTH:
        out->f = iv.months % 12;
        return true;
    case F_QUARTER:
        out->f = iv.months % 12 / 3 + 1;
        return true;
    case F_YEAR:
        out->f = iv.months / 12;
        return true;
    default:
        return no_field(c, a[0].s, "INTERVAL");
    }
}

static bool out_of_range(sql_call *c)
{
    return sql__call_fail(c, "22008", "timestamp out of range");
}

static bool f_date_trunc(sql_call *c, const sql_val *a, sql_val *out)
{
    int64_t us = a[1].i, unit = 0;
    enum field field = field_of(a[0].s);
    switch (field) {
    case F_MICROSECONDS:
        unit = 1;
        break;
    case F_MILLISECONDS:
        unit = 1000;
        break;
    case F_SECOND:
        unit = CHR_US_PER_S;
        break;
    case F_MINUTE:
        unit = 60 * CHR_US_PER_S;
        break;
    case F_HOUR:
        unit = 3600 * CHR_US_PER_S;
        break;
    case F_DAY:
        unit = CHR_US_PER_DAY;
        break;
    case F_WEEK: { /* Monday; 1970-01-01 was a Thursday */
        int64_t day = floor_div(us, CHR_US_PER_DAY);
        out->i = (floor_div(day + 3, 7) * 7 - 3) * CHR_US_PER_DAY;
        return true;
    }
    default:
        break;
    }
    if (unit) {
        if (__builtin_mul_overflow(floor_div(us, unit), unit, &out->i))
            return out_of_range(c);
        return true;
    }
    struct chr_civil t;
    chr_civil_from_us(us, &t);
    struct chr_civil r = {.year = t.year, .month = t.month, .day = 1};
    switch (field) {
    case F_MONTH:
        break;
    case F_QUARTER:
        r.month = (t.month - 1) / 3 * 3 + 1;
        break;
    case F_YEAR:
        r.month = 1;
        break;
    case F_DECADE:
        r.month = 1;
        r.year = CHR_MAX(t.year / 10 * 10, 1);
        break;
    case F_CENTURY:
        r.month = 1;
        r.year = (t.year - 1) / 100 * 100 + 1;
        break;
    case F_MILLENNIUM:
        r.month = 1;
        r.year = (t.year - 1) / 1000 * 1000 + 1;
        break;
    default:
        return no_field(c, a[0].s, "TIMESTAMP");
    }
    return chr_civil_to_us(&r, &out->i) == CHR_OK || out_of_range(c);
}

/* -- time_bucket -------------------------------------------------------------------------------*/

static bool bucket_width(sql_call *c, struct sql_interval width)
{
    if (width.months && (width.days || width.us))
        return sql__call_fail(c, "0A000", "time_bucket: months cannot be mixed with days or hours");
    __int128 us = sql__interval_us(width);
    if (us <= 0)
        return sql__call_fail(c, "22023", "time_bucket: the width must be greater than zero");
    if (us > INT64_MAX)
        return sql__call_fail(c, "22008", "time_bucket: the width is out of range");
    return true;
}

static bool bucket_months(sql_call *c, int32_t months, int64_t ts, int64_t origin_month,
                          int64_t *out)
{
    struct chr_civil t;
    chr_civil_from_us(ts, &t);
    int64_t month = (int64_t)t.year * 12 + t.month - 1 - origin_month;
    month = floor_div(month, months) * months + origin_month;
    if (month < 12 || month >= 120000)
        return out_of_range(c);
    struct chr_civil r = {.year = (int)(month / 12), .month = (int)(month % 12) + 1, .day = 1};
    return chr_civil_to_us(&r, out) == CHR_OK || out_of_range(c);
}

static bool bucket(sql_call *c, struct sql_interval width, int64_t ts, const int64_t *origin,
                   int64_t *out)
{
    if (!bucket_width(c, width))
        return false;
    if (width.months) {
        int64_t origin_month = BUCKET_ORIGIN_MONTH;
        if (origin) {
            struct chr_civil t;
            chr_civil_from_us(*origin, &t);
            origin_month = (int64_t)t.year * 12 + t.month - 1;
        }
        return bucket_months(c, width.months, ts, origin_month, out);
    }
    int64_t us = (int64_t)sql__interval_us(width), base = origin ? *origin : BUCKET_ORIGIN_US;
    base %= us;
    int64_t offset;
    if (__builtin_sub_overflow(ts, base, &offset) ||
        __builtin_mul_overflow(floor_div(offset, us), us, &offset) ||
        __builtin_add_overflow(offset, base, out))
        return out_of_range(c);
    return true;
}

static bool f_time_bucket(sql_call *c, const sql_val *a, sql_val *out)
{
    const int64_t *origin = c->e->args_count > 2 ? &a[2].i : NULL;
    return bucket(c, a[0].iv, a[1].i, origin, &out->i);
}

/* A constant width, as it nearly always is: times come nearly in order, so that the last bucket
 * mostly fits again and the division is rare. */
static bool v_time_bucket(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    sql_call call = {.q = ev->q, .e = e};
    const struct sql_expr *width = e->args[0], *origin = e->args_count > 2 ? e->args[2] : NULL;
    const struct db_vector *ts = sql__eval_flat(ev, e->args[1], rows);
    const struct db_vector *widths = ts ? sql__eval(ev, e->args[0], rows) : NULL;
    const struct db_vector *origins = !widths  ? NULL
                                      : origin ? sql__eval(ev, e->args[2], rows)
                                               : ts;
    if (!origins || !sql__out(ev, e, rows.n))
        return false;
    if (!sql__out_and_validity(ev, e, ts, widths, rows.n))
        return true;
    int64_t *out = e->data;
    bool plain = sql__is_const(width) &&
                 (!origin || (sql__is_const(origin) && !origin->value.null)) &&
                 width->value.v.iv.months == 0;
    size_t step = ts->form != DB_VECTOR_CONSTANT;
    const uint64_t *validity = e->out.validity;
    if (plain && bucket_width(&call, width->value.v.iv)) {
        int64_t us = (int64_t)sql__interval_us(width->value.v.iv);
        int64_t start = 0;
        uint64_t span = 0; /* no bucket yet */
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j);
            int64_t t = ts->i64[row * step];
            if ((uint64_t)t - (uint64_t)start >= span) {
                if (validity && !db_bit_get(validity, row))
                    continue;
                if (!bucket(&call, width->value.v.iv, t, origin ? &origin->value.v.i : NULL,
                            &start))
                    return false;
                span = (uint64_t)us;
            }
            out[row] = start;
        }
        return true;
    }
    if (ev->q->failed)
        return false;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        sql_val w, t, o = {0};
        if (!sql__vector_get(widths, row, &w) || !sql__vector_get(ts, row, &t))
            continue;
        if (origin && !sql__vector_get(origins, row, &o)) {
            if (!e->out.validity && !sql__out_validity(ev, e, rows.n))
                return false;
            db_bit_clear(e->validity, row);
            continue;
        }
        if (!bucket(&call, w.iv, t.i, origin ? &o.i : NULL, &out[row]))
            return false;
    }
    return true;
}

/* -- Arithmetic --------------------------------------------------------------------------------*/

static bool f_ts_add(sql_call *c, const sql_val *a, sql_val *out)
{
    return sql__timestamp_add(a[0].i, a[1].iv, 1, &out->i) || out_of_range(c);
}
static bool f_add_ts(sql_call *c, const sql_val *a, sql_val *out)
{
    return sql__timestamp_add(a[1].i, a[0].iv, 1, &out->i) || out_of_range(c);
}
static bool f_ts_sub(sql_call *c, const sql_val *a, sql_val *out)
{
    return sql__timestamp_add(a[0].i, a[1].iv, -1, &out->i) || out_of_range(c);
}
/* Days and the rest, as PostgreSQL's timestamp subtraction gives. */
static bool f_ts_diff(sql_call *c, const sql_val *a, sql_val *out)
{
    int64_t us;
    if (__builtin_sub_overflow(a[0].i, a[1].i, &us))
        return sql__call_fail(c, "22008", "interval out of range");
    out->iv =
        (struct sql_interval){.days = (int32_t)(us / CHR_US_PER_DAY), .us = us % CHR_US_PER_DAY};
    return true;
}
static bool interval_range(sql_call *c)
{
    return sql__call_fail(c, "22008", "interval out of range");
}
static bool f_iv_add(sql_call *c, const sql_val *a, sql_val *out)
{
    struct sql_interval r;
    if (__builtin_add_overflow(a[0].iv.months, a[1].iv.months, &r.months) ||
        __builtin_add_overflow(a[0].iv.days, a[1].iv.days, &r.days) ||
        __builtin_add_overflow(a[0].iv.us, a[1].iv.us, &r.us))
        return interval_range(c);
    out->iv = r;
    return true;
}
static bool f_iv_neg(sql_call *c, const sql_val *a, sql_val *out)
{
    struct sql_interval r;
    if (__builtin_sub_overflow(0, a[0].iv.months, &r.months) ||
        __builtin_sub_overflow(0, a[0].iv.days, &r.days) ||
        __builtin_sub_overflow((int64_t)0, a[0].iv.us, &r.us))
        return interval_range(c);
    out->iv = r;
    return true;
}
static bool f_iv_sub(sql_call *c, const sql_val *a, sql_val *out)
{
    sql_val b[2] = {a[0], a[0]};
    return f_iv_neg(c, &a[1], &b[1]) && f_iv_add(c, b, out);
}
static bool scale(sql_call *c, struct sql_interval iv, double by, sql_val *out)
{
    double months = iv.months * by, whole_months = trunc(months);
    double days = iv.days * by + (months - whole_months) * 30, whole_days = trunc(days);
    double us = nearbyint((double)iv.us * by + (days - whole_days) * (double)CHR_US_PER_DAY);
    if (!(fabs(whole_months) < 2147483648.0 && fabs(whole_days) < 2147483648.0 &&
          fabs(us) < 9.2e18))
        return interval_range(c);
    out->iv = (struct sql_interval){(int32_t)whole_months, (int32_t)whole_days, (int64_t)us};
    return true;
}
static bool f_iv_mul(sql_call *c, const sql_val *a, sql_val *out)
{
    return scale(c, a[0].iv, a[1].f, out);
}
static bool f_mul_iv(sql_call *c, const sql_val *a, sql_val *out)
{
    return scale(c, a[1].iv, a[0].f, out);
}
static bool f_iv_div(sql_call *c, const sql_val *a, sql_val *out)
{
    if (a[1].f == 0)
        return sql__call_fail(c, "22012", "division by zero");
    return scale(c, a[0].iv, 1 / a[1].f, out);
}

/* -- The rest ----------------------------------------------------------------------------------*/

static bool f_now(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)a;
    out->i = c->q->now_us;
    return true;
}
static bool f_to_timestamp(sql_call *c, const sql_val *a, sql_val *out)
{
    double us = nearbyint(a[0].f * 1e6);
    if (!(fabs(us) < 9.2e18))
        return out_of_range(c);
    out->i = (int64_t)us;
    return true;
}
static bool f_to_timestamp_int(sql_call *c, const sql_val *a, sql_val *out)
{
    return !__builtin_mul_overflow(a[0].i, CHR_US_PER_S, &out->i) || out_of_range(c);
}
static bool f_epoch(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->f = (double)a[0].i / 1e6;
    return true;
}
static bool f_epoch_us(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->i = a[0].i;
    return true;
}
static bool f_epoch_ms(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->i = floor_div(a[0].i, 1000);
    return true;
}

/* age(a, b): years, months, days and the rest. */
static bool f_age(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    int64_t later = a[0].i, earlier = a[1].i;
    int sign = 1;
    if (later < earlier) {
        sign = -1;
        later = a[1].i;
        earlier = a[0].i;
    }
    struct chr_civil x, y;
    chr_civil_from_us(later, &x);
    chr_civil_from_us(earlier, &y);
    int32_t months = (x.year - y.year) * 12 + x.month - y.month;
    int64_t at;
    struct sql_interval step = {.months = months};
    if (!sql__timestamp_add(earlier, step, 1, &at))
        at = later;
    if (at > later) {
        step.months = --months;
        if (!sql__timestamp_add(earlier, step, 1, &at))
            at = later;
    }
    int64_t rest = later - at;
    out->iv = (struct sql_interval){sign * months, (int32_t)(sign * (rest / CHR_US_PER_DAY)),
                                    sign * (rest % CHR_US_PER_DAY)};
    return true;
}

/* strftime(ts, '%Y-%m-%d %H:%M:%S'): the letters of C that do not depend on a locale, and %f. */
static bool f_strftime(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice f = a[1].s;
    if (f.len > 1000)
        return sql__call_fail(c, "22023", "strftime: the format is too long");
    struct chr_civil t;
    chr_civil_from_us(a[0].i, &t);
    size_t size = f.len * 12 + 32, n = 0;
    char *to = (char *)sql__call_bytes(c, size);
    if (!to)
        return false;
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    int week, isoyear;
    iso_week(&t, &week, &isoyear);
#define ADD(...) n += (size_t)snprintf(to + n, size - n, __VA_ARGS__)
    for (size_t i = 0; i < f.len; i++) {
        if (f.ptr[i] != '%' || i + 1 == f.len) {
            to[n++] = (char)f.ptr[i];
            continue;
        }
        switch (f.ptr[++i]) {
        case 'Y':
            ADD("%04d", t.year);
            break;
        case 'm':
            ADD("%02d", t.month);
            break;
        case 'd':
            ADD("%02d", t.day);
            break;
        case 'H':
            ADD("%02d", t.hour);
            break;
        case 'M':
            ADD("%02d", t.minute);
            break;
        case 'S':
            ADD("%02d", t.second);
            break;
        case 'f':
            ADD("%06d", t.microsecond);
            break;
        case 'F':
            ADD("%04d-%02d-%02d", t.year, t.month, t.day);
            break;
        case 'T':
            ADD("%02d:%02d:%02d", t.hour, t.minute, t.second);
            break;
        case 'j':
            ADD("%03d", t.yearday);
            break;
        case 'b':
            ADD("%s", months[t.month - 1]);
            break;
        case 'a':
            ADD("%s", days[t.weekday]);
            break;
        case 'u':
            ADD("%d", t.weekday == 0 ? 7 : t.weekday);
            break;
        case 'w':
            ADD("%d", t.weekday);
            break;
        case 'V':
            ADD("%02d", week);
            break;
        case 'G':
            ADD("%04d", isoyear);
            break;
        case 's':
            ADD("%lld", (long long)floor_div(a[0].i, CHR_US_PER_S));
            break;
        case '%':
            to[n++] = '%';
            break;
        default:
            return sql__call_fail(c, "22023", "strftime: unknown letter %%%c", f.ptr[i]);
        }
    }
#undef ADD
    out->s = chr_slice_of(to, n);
    return true;
}

#define T  DB_TIMESTAMP
#define IV SQL_TYPE_INTERVAL
#define S  DB_STRING
static const struct sql_function functions[] = {
    {"now", T, 0, 0, 0, {0}, f_now, NULL, NULL},
    {"current_timestamp", T, 0, 0, 0, {0}, f_now, NULL, NULL},
    {"transaction_timestamp", T, 0, 0, 0, {0}, f_now, NULL, NULL},
    {"time_bucket", T, 2, 3, 0, {IV, T, T}, f_time_bucket, v_time_bucket, NULL},
    {"date_bin", T, 2, 3, 0, {IV, T, T}, f_time_bucket, v_time_bucket, NULL},
    {"date_trunc", T, 2, 2, 0, {S, T}, f_date_trunc, NULL, NULL},
    {"date_part", DB_FLOAT, 2, 2, 0, {S, T}, f_date_part, NULL, NULL},
    {"date_part", DB_FLOAT, 2, 2, 0, {S, IV}, f_interval_part, NULL, NULL},
    {"to_timestamp", T, 1, 1, 0, {DB_INT}, f_to_timestamp_int, NULL, NULL},
    {"to_timestamp", T, 1, 1, 0, {DB_FLOAT}, f_to_timestamp, NULL, NULL},
    {"epoch", DB_FLOAT, 1, 1, 0, {T}, f_epoch, NULL, NULL},
    {"epoch_us", DB_INT, 1, 1, 0, {T}, f_epoch_us, NULL, NULL},
    {"epoch_ms", DB_INT, 1, 1, 0, {T}, f_epoch_ms, NULL, NULL},
    {"age", IV, 2, 2, 0, {T, T}, f_age, NULL, NULL},
    {"strftime", S, 2, 2, 0, {T, S}, f_strftime, NULL, NULL},
    /* operators */
    {"+", T, 2, 2, 0, {T, IV}, f_ts_add, NULL, NULL},
    {"+", T, 2, 2, 0, {IV, T}, f_add_ts, NULL, NULL},
    {"-", T, 2, 2, 0, {T, IV}, f_ts_sub, NULL, NULL},
    {"-", IV, 2, 2, 0, {T, T}, f_ts_diff, NULL, NULL},
    {"+", IV, 2, 2, 0, {IV, IV}, f_iv_add, NULL, NULL},
    {"-", IV, 2, 2, 0, {IV, IV}, f_iv_sub, NULL, NULL},
    {"*", IV, 2, 2, 0, {IV, DB_FLOAT}, f_iv_mul, NULL, NULL},
    {"*", IV, 2, 2, 0, {DB_FLOAT, IV}, f_mul_iv, NULL, NULL},
    {"/", IV, 2, 2, 0, {IV, DB_FLOAT}, f_iv_div, NULL, NULL},
    {"-", IV, 1, 1, 0, {IV}, f_iv_neg, NULL, NULL},
};
const struct sql_function_list sql__time_functions = {functions, CHR_COUNT_OF(functions)};
