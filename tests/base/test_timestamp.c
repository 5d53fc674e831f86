/* timestamp.c: forms of ISO 8601, and libc's calendar as the twin. */
#include "tests/base/check.h"

#include <math.h>
#include <time.h>

#include "base/timestamp.h"
#include "tests/base/guard.h"

#define FIRST_US INT64_C(-62135596800000000)
#define LAST_US  INT64_C(253402300799999999)

static void iso_8601(void **state)
{
    /* Written as it is formatted again, or the error. */
    static const struct {
        const char *text, *formatted;
        chr_err err;
    } cases[] = {
        {"2024-12-10", "2024-12-10T00:00:00Z", 0},
        {"20241210", "2024-12-10T00:00:00Z", 0},
        {"2024-12-10T19:13:20.5Z", "2024-12-10T19:13:20.5Z", 0},
        {"2024-12-10T19:13:20.500000Z", "2024-12-10T19:13:20.5Z", 0},
        {"2024-12-10 19:13:20+02:00", "2024-12-10T17:13:20Z", 0},
        {"2024-12-10 19:13:20-0330", "2024-12-10T22:43:20Z", 0},
        {"2024-12-10 19:13:20+05", "2024-12-10T14:13:20Z", 0},
        {"2024-12-10t19:13:20z", "2024-12-10T19:13:20Z", 0},
        {"20241210T191320Z", "2024-12-10T19:13:20Z", 0},
        {"20241210T191320.25+0100", "2024-12-10T18:13:20.25Z", 0},
        {"20241210T1913", "2024-12-10T19:13:00Z", 0},
        {"20241210T1913+01", "2024-12-10T18:13:00Z", 0},
        {"2024-12-10T19:13", "2024-12-10T19:13:00Z", 0},
        {"2024-12-10T19:13Z", "2024-12-10T19:13:00Z", 0},
        {"2024-12-10T19:13+01:00", "2024-12-10T18:13:00Z", 0},
        {"2024-12-10T19:13:20,125Z", "2024-12-10T19:13:20.125Z", 0},
        {"2024-12-10T19:13:20.123456789Z", "2024-12-10T19:13:20.123456Z", 0},
        {"2024-12-10T19:13:20.9999999", "2024-12-10T19:13:20.999999Z", 0},
        {"1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z", 0},
        {"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", 0},
        {"9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z", 0},
        {"2024-02-29", "2024-02-29T00:00:00Z", 0},
        {"2000-02-29", "2000-02-29T00:00:00Z", 0},
        {"2023-02-29", NULL, CHR_ERANGE},
        {"1900-02-29", NULL, CHR_ERANGE},
        {"2024-02-30", NULL, CHR_ERANGE},
        {"2024-04-31", NULL, CHR_ERANGE},
        {"2024-13-01", NULL, CHR_ERANGE},
        {"2024-00-01", NULL, CHR_ERANGE},
        {"2024-01-00", NULL, CHR_ERANGE},
        {"0000-01-01", NULL, CHR_ERANGE},
        {"2024-12-10T24:00:00Z", NULL, CHR_ERANGE},
        {"2024-12-10T23:60:00Z", NULL, CHR_ERANGE},
        {"2024-12-10T23:59:60Z", NULL, CHR_ERANGE},
        {"2024-12-10T23:59:59+24:00", NULL, CHR_ERANGE},
        {"2024-12-10T23:59:59+01:60", NULL, CHR_ERANGE},
        {"0001-01-01T00:00:00+00:01", NULL, CHR_ERANGE},
        {"9999-12-31T23:59:59-00:01", NULL, CHR_ERANGE},
        {"", NULL, CHR_EMALFORMED},
        {"2024", NULL, CHR_EMALFORMED},
        {"2024-12", NULL, CHR_EMALFORMED},
        {"2024-12-1", NULL, CHR_EMALFORMED},
        {"2024-12-10T", NULL, CHR_EMALFORMED},
        {"2024-12-10Z", NULL, CHR_EMALFORMED},
        {"2024-12-10T19", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:1", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:2", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20.", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20.Z", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20ZZ", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20 Z", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20+", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20+1", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20+01:", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20+01:0", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20+01:000", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:13:20+0x:00", NULL, CHR_EMALFORMED},
        {"2024-12-10T19:1320", NULL, CHR_EMALFORMED},
        {"2024-12-10T1913:20", NULL, CHR_EMALFORMED},
        {"2024-12-10_19:13:20", NULL, CHR_EMALFORMED},
        {"2024/12/10", NULL, CHR_EMALFORMED},
        {"2024-1210", NULL, CHR_EMALFORMED},
        {"202412-10", NULL, CHR_EMALFORMED},
        {" 2024-12-10", NULL, CHR_EMALFORMED},
        {"2024-12-10 ", NULL, CHR_EMALFORMED},
        {"-024-12-10", NULL, CHR_EMALFORMED},
        {"x024-12-10", NULL, CHR_EMALFORMED},
        {"2024-1x-10", NULL, CHR_EMALFORMED},
        {"now", NULL, CHR_EMALFORMED},
        {"1733857900", NULL, CHR_EMALFORMED},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        int64_t us = 42;
        chr_err err = chr_timestamp_parse(guarded_cstr(cases[i].text), &us);
        if (err != cases[i].err)
            fail_msg("\"%s\": %s, expected %s", cases[i].text, chr_errname(err),
                     chr_errname(cases[i].err));
        if (err) {
            assert_int_equal(us, 42);
            continue;
        }
        char text[CHR_TIMESTAMP_TEXT_MAX];
        size_t len = chr_timestamp_format(us, text);
        assert_string_equal(text, cases[i].formatted);
        assert_int_equal(len, strlen(text));
    }
    assert_int_equal(chr_timestamp_parse((chr_slice){0}, &(int64_t){0}), CHR_EMALFORMED);
}

/* A timestamp cut anywhere is a shorter form or malformed, and never read past its end. */
static void every_prefix_ends_at_its_end(void **state)
{
    static const char whole[] = "2024-12-10T19:13:20.512345+02:00";
    for (size_t len = 0; len < sizeof whole; len++) {
        int64_t us;
        chr_err err = chr_timestamp_parse(guarded(whole, len), &us);
        bool complete = len == 10 || len == 16 || len == 19 || (len >= 21 && len <= 26) ||
                        len == 29 || len == 32;
        assert_int_equal(err, complete ? CHR_OK : CHR_EMALFORMED);
    }
}

static void check_with_libc(int64_t us)
{
    time_t seconds = (time_t)(us / 1000000 - (us % 1000000 < 0));
    struct tm tm;
    assert_non_null(gmtime_r(&seconds, &tm));
    struct chr_civil c;
    chr_civil_from_us(us, &c);
    assert_int_equal(c.year, tm.tm_year + 1900);
    assert_int_equal(c.month, tm.tm_mon + 1);
    assert_int_equal(c.day, tm.tm_mday);
    assert_int_equal(c.hour, tm.tm_hour);
    assert_int_equal(c.minute, tm.tm_min);
    assert_int_equal(c.second, tm.tm_sec);
    assert_int_equal(c.weekday, tm.tm_wday);
    assert_int_equal(c.yearday, tm.tm_yday + 1);
    assert_int_equal(c.microsecond, (us % 1000000 + 1000000) % 1000000);
}

static void calendar_equals_gmtime(void **state)
{
    struct chr_random random = test_random(17);
    for (int i = 0; i < 200000; i++) {
        int64_t us = FIRST_US + (int64_t)chr_random_below(&random, (uint64_t)(LAST_US - FIRST_US));
        check_with_libc(us);
        int64_t back;
        struct chr_civil c;
        chr_civil_from_us(us, &c);
        assert_int_equal(chr_civil_to_us(&c, &back), CHR_OK);
        assert_int_equal(back, us);
        char text[CHR_TIMESTAMP_TEXT_MAX];
        size_t len = chr_timestamp_format(us, text);
        assert_int_equal(chr_timestamp_parse(guarded(text, len), &back), CHR_OK);
        assert_int_equal(back, us);
    }
    /* Any 64-bit value has a civil time, if not one that can be written. */
    for (int i = 0; i < 100000; i++)
        check_with_libc((int64_t)chr_random_u64(&random));
    check_with_libc(INT64_MIN);
    check_with_libc(INT64_MAX);
}

static void every_day_follows_the_one_before(void **state)
{
    struct chr_civil before, c;
    chr_civil_from_us(FIRST_US, &before);
    assert_int_equal(before.year, 1);
    for (int64_t us = FIRST_US + CHR_US_PER_DAY; us < LAST_US; us += CHR_US_PER_DAY) {
        chr_civil_from_us(us, &c);
        bool next_day = c.year == before.year && c.month == before.month && c.day == before.day + 1;
        bool next_month = c.year == before.year && c.month == before.month + 1 && c.day == 1;
        bool next_year = c.year == before.year + 1 && c.month == 1 && c.day == 1;
        if (!next_day && !next_month && !next_year)
            fail_msg("%d-%d-%d", c.year, c.month, c.day);
        assert_int_equal(c.weekday, (before.weekday + 1) % 7);
        assert_int_equal(c.yearday, next_year ? 1 : before.yearday + 1);
        int64_t back;
        assert_int_equal(chr_civil_to_us(&c, &back), CHR_OK);
        assert_int_equal(back, us);
        before = c;
    }
}

static void civil_times_equal_timegm(void **state)
{
    struct chr_random random = test_random(18);
    int accepted = 0;
    for (int i = 0; i < 200000; i++) {
        struct chr_civil c = {
            .year = (int)chr_random_below(&random, 10001),
            .month = (int)chr_random_below(&random, 14),
            .day = (int)chr_random_below(&random, 33),
            .hour = (int)chr_random_below(&random, 25),
            .minute = (int)chr_random_below(&random, 60),
            .second = (int)chr_random_below(&random, 60),
            .microsecond = (int)chr_random_below(&random, 1000000),
        };
        struct tm tm = {.tm_year = c.year - 1900,
                        .tm_mon = c.month - 1,
                        .tm_mday = c.day,
                        .tm_hour = c.hour,
                        .tm_min = c.minute,
                        .tm_sec = c.second};
        int64_t seconds = timegm(&tm);
        /* timegm carries what does not exist over to what does. */
        bool exists = c.year >= 1 && c.year <= 9999 && tm.tm_mon == c.month - 1 &&
                      tm.tm_mday == c.day && tm.tm_hour == c.hour;
        int64_t us;
        chr_err err = chr_civil_to_us(&c, &us);
        assert_int_equal(err, exists ? CHR_OK : CHR_ERANGE);
        if (exists)
            assert_int_equal(us, seconds * 1000000 + c.microsecond);
        accepted += exists;
    }
    assert_true(accepted > 100000);
    struct chr_civil wrong = {.year = 2024, .month = 1, .day = 1, .microsecond = 1000000};
    int64_t us;
    assert_int_equal(chr_civil_to_us(&wrong, &us), CHR_ERANGE);
    wrong.microsecond = -1;
    assert_int_equal(chr_civil_to_us(&wrong, &us), CHR_ERANGE);
}

static void outside_the_calendar(void **state)
{
    char text[CHR_TIMESTAMP_TEXT_MAX];
    chr_timestamp_format(LAST_US + 1, text);
    assert_string_equal(text, "253402300800000000us");
    chr_timestamp_format(FIRST_US - 1, text);
    assert_string_equal(text, "-62135596800000001us");
    assert_int_equal(chr_timestamp_format(INT64_MIN, text), strlen("-9223372036854775808us"));
    assert_string_equal(text, "-9223372036854775808us");
}

static void numbers_tell_their_unit(void **state)
{
    static const struct {
        int64_t number;
        chr_err err;
        int64_t us;
    } cases[] = {
        {0, 0, 0},
        {1733857900, 0, 1733857900000000},
        {-1, 0, -1000000},
        {99999999999, 0, 99999999999000000},
        {100000000000, 0, 100000000000000}, /* 1e11: milliseconds of 1973 */
        {1733857900512, 0, 1733857900512000},
        {99999999999999, 0, 99999999999999000},
        {100000000000000, 0, 100000000000000}, /* 1e14: microseconds */
        {1733857900512345, 0, 1733857900512345},
        {99999999999999999, 0, 99999999999999999},
        {100000000000000000, 0, 100000000000000}, /* 1e17: nanoseconds */
        {1733857900512345678, 0, 1733857900512345},
        {-1733857900512345678, 0, -1733857900512346}, /* down, like digits of text */
        {INT64_MAX, 0, 9223372036854775},
        {INT64_MIN, 0, -9223372036854776},
        {-62135596800, 0, FIRST_US},
        {-62135596801, CHR_ERANGE, 0},
        {-99999999999, CHR_ERANGE, 0},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        int64_t us = 0;
        assert_int_equal(chr_timestamp_from_i64(cases[i].number, &us), cases[i].err);
        assert_int_equal(us, cases[i].us);
    }
    static const struct {
        double number;
        chr_err err;
        int64_t us;
    } doubles[] = {
        {1733857900.5, 0, 1733857900500000},
        {1733857900.123456, 0, 1733857900123456},
        {-0.25, 0, -250000},
        {-0.0, 0, 0},
        {1e-9, 0, 0},
        {0.0000005, 0, 1},
        {1733857900512.25, 0, 1733857900512250},
        {1733857900512345.5, 0, 1733857900512346},
        {1e18, 0, 1000000000000000},
        {2.5e20, 0, 250000000000000000},
        {2.6e20, CHR_ERANGE, 0},
        {-2.5e20, CHR_ERANGE, 0},
        {1e300, CHR_ERANGE, 0},
        {-1e300, CHR_ERANGE, 0},
        {-9e10, CHR_ERANGE, 0},
        {INFINITY, CHR_ERANGE, 0},
        {-INFINITY, CHR_ERANGE, 0},
        {NAN, CHR_ERANGE, 0},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(doubles); i++) {
        int64_t us = 0;
        assert_int_equal(chr_timestamp_from_f64(doubles[i].number, &us), doubles[i].err);
        assert_int_equal(us, doubles[i].us);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(iso_8601),
        cmocka_unit_test(every_prefix_ends_at_its_end),
        cmocka_unit_test(calendar_equals_gmtime),
        cmocka_unit_test(every_day_follows_the_one_before),
        cmocka_unit_test(civil_times_equal_timegm),
        cmocka_unit_test(outside_the_calendar),
        cmocka_unit_test(numbers_tell_their_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
