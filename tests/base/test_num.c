/* num_parse.c, num_format.c and num_units.c: tables of forms, then libc as the twin. */
#include "tests/base/check.h"

#include <locale.h>
#include <math.h>

#include "base/num.h"
#include "tests/base/guard.h"

static uint64_t bits_of(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static double of_bits(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#define assert_same_double(a, b) assert_true(bits_of(a) == bits_of(b))

static void json_numbers(void **state)
{
    static const struct {
        const char *text;
        int used;
        bool is_int;
        int64_t i64;
        double f64;
    } cases[] = {
        {"0", 1, true, 0, 0},
        {"-0", 2, true, 0, -0.0},
        {"-0.0", 4, false, 0, -0.0},
        {"0.5", 3, false, 0, 0.5},
        {"21", 2, true, 21, 21},
        {"21.5}", 4, false, 0, 21.5},
        {"-17,", 3, true, -17, -17},
        {"1e2", 3, false, 0, 100},
        {"1E+2", 4, false, 0, 100},
        {"25e-1", 5, false, 0, 2.5},
        {"9223372036854775807", 19, true, INT64_MAX, 9223372036854775807.0},
        {"-9223372036854775808", 20, true, INT64_MIN, -9223372036854775808.0},
        {"9223372036854775808", 19, false, 0, 9223372036854775808.0},
        {"-9223372036854775809", 20, false, 0, -9223372036854775808.0},
        {"9999999999999999999", 19, false, 0, 1e19},
        {"123456789012345678901234567890", 30, false, 0, 123456789012345678901234567890.0},
        {"12345678", 8, true, 12345678, 12345678},
        {"1234567890123456", 16, true, 1234567890123456, 1234567890123456},
        {"1e-400", 6, false, 0, 0},
        {"0e999999999999999999999", 23, false, 0, 0},
        {"0.00000000000000000000000000000000000000001", 43, false, 0, 1e-41},
        {"1e308", 5, false, 0, 1e308},
        {"1.7976931348623157e308", 22, false, 0, 0x1.fffffffffffffp1023},
        {"1.7976931348623158e308", 22, false, 0, 0x1.fffffffffffffp1023},
        {"1.7976931348623159e308", CHR_ERANGE, false, 0, 0},
        {"1e309", CHR_ERANGE, false, 0, 0},
        {"-1e99999999999", CHR_ERANGE, false, 0, 0},
        {"4.9e-324", 8, false, 0, 0x1p-1074},
        {"2.4703282292062327e-324", 23, false, 0, 0},
        {"2.4703282292062328e-324", 23, false, 0, 0x1p-1074},
        {"9007199254740993", 16, true, 9007199254740993, 9007199254740992},
        {"9007199254740993.0", 18, false, 0, 9007199254740992},
        {"9007199254740993.00000000000000000000000000001", 46, false, 0, 9007199254740994},
        {"", CHR_EMALFORMED, false, 0, 0},
        {"-", CHR_EMALFORMED, false, 0, 0},
        {"+1", CHR_EMALFORMED, false, 0, 0},
        {"01", CHR_EMALFORMED, false, 0, 0},
        {"-01", CHR_EMALFORMED, false, 0, 0},
        {"00000000000000000001", CHR_EMALFORMED, false, 0, 0},
        {".5", CHR_EMALFORMED, false, 0, 0},
        {"5.", CHR_EMALFORMED, false, 0, 0},
        {"5.e1", CHR_EMALFORMED, false, 0, 0},
        {"1e", CHR_EMALFORMED, false, 0, 0},
        {"1e+", CHR_EMALFORMED, false, 0, 0},
        {"nan", CHR_EMALFORMED, false, 0, 0},
        {"Infinity", CHR_EMALFORMED, false, 0, 0},
        {"x", CHR_EMALFORMED, false, 0, 0},
        {" 1", CHR_EMALFORMED, false, 0, 0},
        {"0x10", 1, true, 0, 0}, /* a prefix; the caller sees the x */
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        bool is_int = false;
        int64_t i64 = 0;
        double f64 = 0;
        int used = chr_parse_number(guarded_cstr(cases[i].text), &is_int, &i64, &f64);
        if (used != cases[i].used)
            fail_msg("\"%s\": %d, expected %d", cases[i].text, used, cases[i].used);
        if (used < 0)
            continue;
        assert_int_equal(is_int, cases[i].is_int);
        assert_int_equal(i64, cases[i].i64);
        assert_same_double(f64, cases[i].f64);
    }
}

static void sql_floats(void **state)
{
    static const struct {
        const char *text;
        int used;
        double value;
    } cases[] = {
        {".5", 2, 0.5},
        {"5.", 2, 5},
        {"+5", 2, 5},
        {"-.5e1", 5, -5},
        {"5.e-1", 5, 0.5},
        {"0005", 4, 5},
        {"0000000000000000000000000000000000000005.5", 42, 5.5},
        {"inf", 3, INFINITY},
        {"-Inf", 4, -INFINITY},
        {"INFINITY", 8, INFINITY},
        {"infinit", 3, INFINITY},
        {"+infinity!", 9, INFINITY},
        {"12abc", 2, 12},
        {"1e400", CHR_ERANGE, 0},
        {".", CHR_EMALFORMED, 0},
        {"-", CHR_EMALFORMED, 0},
        {"+-1", CHR_EMALFORMED, 0},
        {".e1", CHR_EMALFORMED, 0},
        {"1e", CHR_EMALFORMED, 0},
        {"e1", CHR_EMALFORMED, 0},
        {"in", CHR_EMALFORMED, 0},
        {"na", CHR_EMALFORMED, 0},
        {"", CHR_EMALFORMED, 0},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        double value = 0;
        int used = chr_parse_f64(guarded_cstr(cases[i].text), &value);
        if (used != cases[i].used)
            fail_msg("\"%s\": %d, expected %d", cases[i].text, used, cases[i].used);
        if (used > 0)
            assert_same_double(value, cases[i].value);
    }
    double value;
    assert_int_equal(chr_parse_f64(CHR_LIT("NaN"), &value), 3);
    assert_true(isnan(value));
    assert_int_equal(chr_parse_f64(CHR_LIT("-nan"), &value), 4);
    assert_true(isnan(value));
}

static void integers(void **state)
{
    static const struct {
        const char *text;
        int used;
        int64_t value;
    } cases[] = {
        {"0", 1, 0},
        {"-5", 2, -5},
        {"+5", 2, 5},
        {"007", 3, 7},
        {"12abc", 2, 12},
        {"9223372036854775807", 19, INT64_MAX},
        {"-9223372036854775808", 20, INT64_MIN},
        {"00000000000000000000000000000042", 32, 42},
        {"9223372036854775808", CHR_ERANGE, 0},
        {"-9223372036854775809", CHR_ERANGE, 0},
        {"99999999999999999999999999", CHR_ERANGE, 0},
        {"18446744073709551616", CHR_ERANGE, 0},
        {"", CHR_EMALFORMED, 0},
        {"-", CHR_EMALFORMED, 0},
        {"--1", CHR_EMALFORMED, 0},
        {"x", CHR_EMALFORMED, 0},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        int64_t value = 0;
        int used = chr_parse_i64(guarded_cstr(cases[i].text), &value);
        assert_int_equal(used, cases[i].used);
        assert_int_equal(value, cases[i].value);
    }
}

/* Both parsers against strtod. */
static void compare_with_strtod(const char *text)
{
    double expected = strtod(text, NULL);
    chr_slice s = guarded_cstr(text);
    bool is_int = false;
    int64_t i64;
    double got = 0, got_sql = 0;
    int used = chr_parse_number(s, &is_int, &i64, &got);
    int used_sql = chr_parse_f64(s, &got_sql);
    if (isinf(expected)) {
        assert_int_equal(used, CHR_ERANGE);
        assert_int_equal(used_sql, CHR_ERANGE);
        return;
    }
    if (used != (int)s.len || used_sql != (int)s.len || bits_of(got) != bits_of(expected) ||
        bits_of(got_sql) != bits_of(expected))
        fail_msg("%s: %.17g and %.17g (used %d, %d), strtod %.17g", text, got, got_sql, used,
                 used_sql, expected);
    if (is_int)
        assert_int_equal(i64, strtoll(text, NULL, 10));
}

/* count random digits, the first not 0 */
static int put_random_digits(struct chr_random *random, char *at, int count)
{
    for (int i = 0; i < count; i++)
        at[i] = (char)('0' + (i ? chr_random_below(random, 10) : 1 + chr_random_below(random, 9)));
    at[count] = '\0';
    return count;
}

static void random_decimals_equal_strtod(void **state)
{
    struct chr_random random = test_random(12);
    for (int i = 0; i < 300000; i++) {
        char text[200], *at = text;
        if (chr_random_u64(&random) & 1)
            *at++ = '-';
        at += put_random_digits(&random, at, 1 + (int)chr_random_below(&random, 25));
        if (chr_random_below(&random, 4)) {
            *at++ = '.';
            for (int zeros = (int)chr_random_below(&random, 10) - 5; zeros > 0; zeros--)
                *at++ = '0';
            at += put_random_digits(&random, at, 1 + (int)chr_random_below(&random, 25));
        }
        if (chr_random_below(&random, 2))
            sprintf(at, "%c%s%d", "eE"[i & 1], i & 2 ? "" : "-",
                    (int)chr_random_below(&random, i & 4 ? 30 : 345));
        compare_with_strtod(text);
    }
}

static void all_bit_patterns_equal_strtod(void **state)
{
    struct chr_random random = test_random(13);
    for (int i = 0; i < 100000; i++) {
        double v = of_bits(chr_random_u64(&random));
        if (!isfinite(v))
            continue;
        char text[64];
        snprintf(text, sizeof text, "%.*e", 14 + (int)chr_random_below(&random, 8), v);
        compare_with_strtod(text);
        /* Denormals and the last normals. */
        v = of_bits(chr_random_u64(&random) >> (11 + chr_random_below(&random, 50)));
        snprintf(text, sizeof text, "%.*e", (int)chr_random_below(&random, 25), v);
        compare_with_strtod(text);
    }
}

/* The middle between two doubles, exactly, a little less, a little more: where rounding is decided
 * by the last of up to 770 digits. */
static void middles_round_to_even(void **state)
{
    struct chr_random random = test_random(14);
    for (int i = 0; i < 3000; i++) {
        uint64_t bits = chr_random_u64(&random) & INT64_MAX;
        if (i % 3 == 0) /* small exponents, so that the middle has few digits */
            bits = (1023 + chr_random_below(&random, 80)) << 52 | (bits & 0xfffffffffffff);
        double low = of_bits(bits), high = of_bits(bits + 1);
        if (!isfinite(high))
            continue;
        /* long double has 11 bits more: the sum is exact for normal numbers. */
        long double middle = ((long double)low + (long double)high) / 2;
        char text[2600];
        int len = snprintf(text, sizeof text, "%.1100Le", middle);
        char *e = strchr(text, 'e');
        char exponent[16];
        strcpy(exponent, e);
        assert_true(len > 0);
        compare_with_strtod(text);
        /* A one far behind lifts it over the middle. */
        sprintf(e, "%s1%s", "000000", exponent);
        compare_with_strtod(text);
        /* Without the zeros at the end, then less by one in the last digit. */
        while (e[-1] == '0')
            e--;
        strcpy(e, exponent);
        compare_with_strtod(text);
        if (e[-1] != '.') {
            e[-1]--;
            compare_with_strtod(text);
        }
    }
}

/* No locale: a comma is no decimal point, whatever the process has set. */
static void locale_does_not_matter(void **state)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "C.UTF-8"};
    for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
        if (setlocale(LC_ALL, names[i]))
            break;
    double v;
    char text[CHR_NUM_TEXT_MAX];
    static const char hard[] = "9007199254740993.00000000000000000000000000001";
    assert_int_equal(chr_parse_f64(guarded_cstr(hard), &v), (int)strlen(hard));
    assert_true(v == 9007199254740994);
    assert_int_equal(chr_parse_f64(CHR_LIT("1,5"), &v), 1);
    chr_format_f64(1.5, text);
    assert_string_equal(text, "1.5");
    setlocale(LC_ALL, "C");
}

static void very_long_numbers_are_bounded(void **state)
{
    enum { LEN = 200000 };
    char *text = malloc(LEN + 20);
    bool is_int;
    int64_t i64;
    double v;
    memset(text, '9', LEN);
    assert_int_equal(chr_parse_number(guarded(text, LEN), &is_int, &i64, &v), CHR_ERANGE);
    int len = LEN + sprintf(text + LEN, "e-%d", LEN);
    assert_int_equal(chr_parse_number(guarded(text, (size_t)len), &is_int, &i64, &v), len);
    assert_same_double(v, 1);
    memset(text, '0', LEN);
    memcpy(text, "0.", 2);
    len = LEN + sprintf(text + LEN, "5e%d", LEN - 2);
    assert_int_equal(chr_parse_number(guarded(text, (size_t)len), &is_int, &i64, &v), len);
    assert_same_double(v, 0.5);
    len = LEN + sprintf(text + LEN, "5");
    assert_int_equal(chr_parse_number(guarded(text, (size_t)len), &is_int, &i64, &v), len);
    assert_same_double(v, 0);
    free(text);
}

static void forms_of_doubles(void **state)
{
    static const struct {
        double v;
        const char *text;
    } cases[] = {
        {0, "0"},
        {-0.0, "-0"},
        {21, "21"},
        {21.5, "21.5"},
        {-21.5, "-21.5"},
        {0.1, "0.1"},
        {0.3, "0.3"},
        {0.1 + 0.2, "0.30000000000000004"},
        {100, "100"},
        {1e15, "1000000000000000"},
        {9007199254740993.0, "9007199254740992"},
        {123456789012345680000.0, "123456789012345680000"},
        {1e20, "100000000000000000000"},
        {1e21, "1e+21"},
        {1.5e21, "1.5e+21"},
        {1e300, "1e+300"},
        {0.000001, "0.000001"},
        {0.00000123, "0.00000123"},
        {1e-7, "1e-7"},
        {1.25e-7, "1.25e-7"},
        {5e-324, "5e-324"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {2.225073858507201e-308, "2.225073858507201e-308"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {9.5e-323, "9.4e-323"}, /* 19 * 2^-1074: two digits, and the nearer two */
        {4.35, "4.35"},
        {1e23, "1e+23"},
        {9007199254740991.0, "9007199254740991"},
        {-1.7976931348623157e308, "-1.7976931348623157e+308"},
        {INFINITY, "Infinity"},
        {-INFINITY, "-Infinity"},
        {NAN, "NaN"},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        char text[CHR_NUM_TEXT_MAX];
        size_t len = chr_format_f64(cases[i].v, text);
        assert_string_equal(text, cases[i].text);
        assert_int_equal(len, strlen(text));
    }
    char text[CHR_NUM_TEXT_MAX];
    chr_format_f64(-NAN, text);
    assert_string_equal(text, "NaN");
}

/* Significant digits without zeros at either end. */
static int significant(const char *text, char digits[40])
{
    int count = 0;
    for (const char *p = text; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9' && (count || *p != '0'))
            digits[count++] = *p;
    while (count && digits[count - 1] == '0')
        count--;
    digits[count] = '\0';
    return count;
}

/* Fewest digits by trying all precisions of printf. At a power of two printf's nearest decimal of
 * n digits may lie on the narrow side, outside, while another one of n digits is inside: then ours
 * has fewer. */
static void check_shortest(double v)
{
    char text[CHR_NUM_TEXT_MAX], twin[64], digits[40], twin_digits[40];
    size_t len = chr_format_f64(v, text);
    assert_int_equal(len, strlen(text));
    assert_true(len < CHR_NUM_TEXT_MAX);
    assert_same_double(strtod(text, NULL), v);
    double back;
    assert_int_equal(chr_parse_f64(guarded(text, len), &back), (int)len);
    assert_same_double(back, v);
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(twin, sizeof twin, "%.*e", precision - 1, v);
        if (strtod(twin, NULL) == v)
            break;
    }
    int ours = significant(text, digits), theirs = significant(twin, twin_digits);
    bool power_of_two = (bits_of(v) & 0xfffffffffffff) == 0;
    if (ours > theirs || (ours < theirs && !power_of_two) ||
        (ours == theirs && strcmp(digits, twin_digits) != 0))
        fail_msg("%s, printf finds %s", text, twin);
}

static void random_doubles_are_shortest(void **state)
{
    struct chr_random random = test_random(15);
    for (int i = 0; i < 40000; i++) {
        uint64_t bits = chr_random_u64(&random);
        double any = of_bits(bits);
        if (isfinite(any) && any != 0)
            check_shortest(any);
        double few_bits = of_bits(bits & ~UINT64_C(0) << chr_random_below(&random, 53));
        if (isfinite(few_bits) && few_bits != 0)
            check_shortest(few_bits);
        double denormal = of_bits(1 + (bits >> (12 + chr_random_below(&random, 50))));
        check_shortest(denormal);
        double measured =
            (double)(1 + chr_random_below(&random, 10000000)) / (double)(i % 4 == 0   ? 10
                                                                         : i % 4 == 1 ? 100
                                                                         : i % 4 == 2 ? 1000
                                                                                      : 64);
        check_shortest(measured);
    }
    for (int exponent = 0; exponent < 2047; exponent++) {
        uint64_t bits = (uint64_t)exponent << 52;
        check_shortest(of_bits(bits + 1));
        if (bits) {
            check_shortest(of_bits(bits));
            check_shortest(of_bits(bits - 1));
        }
    }
}

static void integers_are_written_as_printf_does(void **state)
{
    struct chr_random random = test_random(16);
    for (int i = 0; i < 100000; i++) {
        uint64_t v = chr_random_u64(&random) >> chr_random_below(&random, 64);
        if (i < 200)
            v = (uint64_t)i;
        char text[CHR_NUM_TEXT_MAX], twin[64];
        int len = snprintf(twin, sizeof twin, "%llu", (unsigned long long)v);
        assert_int_equal(chr_format_u64(v, text), len);
        assert_string_equal(text, twin);
        int64_t sign = i & 1 ? (int64_t)v : -(int64_t)(v >> 1);
        len = snprintf(twin, sizeof twin, "%lld", (long long)sign);
        assert_int_equal(chr_format_i64(sign, text), len);
        assert_string_equal(text, twin);
        int64_t back;
        assert_int_equal(chr_parse_i64(guarded(text, (size_t)len), &back), len);
        assert_int_equal(back, sign);
    }
    char text[CHR_NUM_TEXT_MAX];
    chr_format_i64(INT64_MIN, text);
    assert_string_equal(text, "-9223372036854775808");
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        chr_err err;
        uint64_t bytes;
    } cases[] = {
        {"64MiB", CHR_OK, 64 << 20},
        {"64M", CHR_OK, 64 << 20},
        {"64mb", CHR_OK, 64 << 20},
        {"1g", CHR_OK, 1 << 30},
        {"4096", CHR_OK, 4096},
        {"4096b", CHR_OK, 4096},
        {"3KiB", CHR_OK, 3072},
        {"2t", CHR_OK, UINT64_C(2) << 40},
        {"0", CHR_OK, 0},
        {"18446744073709551615", CHR_OK, UINT64_MAX},
        {"18446744073709551616", CHR_ERANGE, 0},
        {"16777216t", CHR_ERANGE, 0},
        {"", CHR_EMALFORMED, 0},
        {"M", CHR_EMALFORMED, 0},
        {"-1", CHR_EMALFORMED, 0},
        {"1.5G", CHR_EMALFORMED, 0},
        {"64 M", CHR_EMALFORMED, 0},
        {"64Mi", CHR_EMALFORMED, 0},
        {"64MiBx", CHR_EMALFORMED, 0},
        {"99999999999999999999x", CHR_EMALFORMED, 0},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        uint64_t bytes = 0;
        assert_int_equal(chr_parse_bytes(guarded_cstr(cases[i].text), &bytes), cases[i].err);
        assert_int_equal(bytes, cases[i].bytes);
    }
}

static void durations(void **state)
{
    static const struct {
        const char *text;
        chr_err err;
        int64_t us;
    } cases[] = {
        {"10s", CHR_OK, 10000000},
        {"5m", CHR_OK, 300000000},
        {"7d", CHR_OK, INT64_C(7) * 86400 * 1000000},
        {"100ms", CHR_OK, 100000},
        {"100MS", CHR_OK, 100000},
        {"250us", CHR_OK, 250},
        {"2h", CHR_OK, INT64_C(7200) * 1000000},
        {"1w", CHR_OK, INT64_C(604800) * 1000000},
        {"0", CHR_OK, 0},
        {"0s", CHR_OK, 0},
        {"10", CHR_EMALFORMED, 0}, /* ten of what? */
        {"s", CHR_EMALFORMED, 0},
        {"-5s", CHR_EMALFORMED, 0},
        {"5 s", CHR_EMALFORMED, 0},
        {"5y", CHR_EMALFORMED, 0},
        {"15250284w", CHR_OK, INT64_C(15250284) * 604800 * 1000000},
        {"15250285w", CHR_ERANGE, 0},
        {"99999999999999999999s", CHR_ERANGE, 0},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        int64_t us = 0;
        assert_int_equal(chr_parse_duration_us(guarded_cstr(cases[i].text), &us), cases[i].err);
        assert_int_equal(us, cases[i].us);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_numbers),
        cmocka_unit_test(sql_floats),
        cmocka_unit_test(integers),
        cmocka_unit_test(random_decimals_equal_strtod),
        cmocka_unit_test(all_bit_patterns_equal_strtod),
        cmocka_unit_test(middles_round_to_even),
        cmocka_unit_test(locale_does_not_matter),
        cmocka_unit_test(very_long_numbers_are_bounded),
        cmocka_unit_test(forms_of_doubles),
        cmocka_unit_test(random_doubles_are_shortest),
        cmocka_unit_test(integers_are_written_as_printf_does),
        cmocka_unit_test(sizes),
        cmocka_unit_test(durations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
