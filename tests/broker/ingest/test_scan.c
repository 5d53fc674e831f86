/* The 8- and 16-byte scans beside the plain functions they stand for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/num.h"
#include "base/random.h"
#include "broker/ingest/keys.h"
#include "broker/ingest/scan.h"
#include "tests/broker/ingest/helper.h"

#define SEED 20240612

static void check_number(const char *text)
{
    uint8_t padded[128] = {0};
    size_t len = strlen(text);
    memcpy(padded, text, len);
    struct ingest_decimal d;
    const uint8_t *end = ingest_scan_decimal(padded, &d);
    bool is_int;
    int64_t i64;
    double f64, v;
    int used = chr_parse_number(chr_slice_cstr(text), &is_int, &i64, &f64);
    if (!end)
        return; /* allowed: chr_parse_number is asked then */
    if (used != end - padded)
        helper_die("ends elsewhere", text);
    if (ingest_decimal_f64(&d, &v) && memcmp(&v, &f64, sizeof v) != 0)
        helper_die("another value", text);
    if (d.fraction == 0 &&
        (!is_int || i64 != (d.negative ? -(int64_t)d.digits : (int64_t)d.digits)))
        helper_die("another integer", text);
}

/* What must take the fast road, lest a slow one goes unnoticed. */
static void test_fast_numbers(void **state)
{
    static const char *const fast[] = {"0",
                                       "-0",
                                       "7",
                                       "21.53",
                                       "40.2",
                                       "-12.5",
                                       "0.5",
                                       "1733858000",
                                       "1733858000123",
                                       "123456789012345",
                                       "1733858000.123456",
                                       "99999999.9999999",
                                       "12345678"};
    static const char *const slow[] = {"",
                                       "-",
                                       "01",
                                       "-01",
                                       "00",
                                       "1.",
                                       ".5",
                                       "+1",
                                       "1e5",
                                       "1.5E5",
                                       "1234567890123456",
                                       "1.12345678",
                                       "123456789012.1234567",
                                       "abc",
                                       "1.x"};
    struct ingest_decimal d;
    uint8_t padded[128];
    for (size_t i = 0; i < CHR_COUNT_OF(fast); i++) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, fast[i], strlen(fast[i]));
        assert_true(ingest_scan_decimal(padded, &d) == padded + strlen(fast[i]));
        check_number(fast[i]);
    }
    for (size_t i = 0; i < CHR_COUNT_OF(slow); i++) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, slow[i], strlen(slow[i]));
        assert_null(ingest_scan_decimal(padded, &d));
    }
}

static void test_random_numbers(void **state)
{
    struct chr_random r = {.state = SEED};
    for (int i = 0; i < 400000; i++) {
        char text[64];
        size_t len = 0;
        static const char any[] = "0123456789012345678901234567890123456789.-eE+,} ";
        if (chr_random_below(&r, 4) == 0) {
            for (uint64_t n = chr_random_below(&r, 24); len < n; len++)
                text[len] = any[chr_random_below(&r, sizeof any - 1)];
        } else {
            if (chr_random_below(&r, 3) == 0)
                text[len++] = '-';
            for (uint64_t n = 1 + chr_random_below(&r, 18); n > 0; n--)
                text[len++] = (char)('0' + chr_random_below(&r, 10));
            if (chr_random_below(&r, 3)) {
                text[len++] = '.';
                for (uint64_t n = chr_random_below(&r, 10); n > 0; n--)
                    text[len++] = (char)('0' + chr_random_below(&r, 10));
            }
            text[len++] = ",} e"[chr_random_below(&r, 4)];
        }
        text[len] = '\0';
        check_number(text);
    }
}

static void test_digits(void **state)
{
    struct chr_random r = {.state = SEED};
    for (int i = 0; i < 200000; i++) {
        uint8_t bytes[8];
        for (int k = 0; k < 8; k++)
            bytes[k] = (uint8_t)(chr_random_below(&r, 4) ? '0' + chr_random_below(&r, 10)
                                                         : chr_random_below(&r, 256));
        unsigned count = 0;
        uint64_t value = 0;
        while (count < 8 && bytes[count] >= '0' && bytes[count] <= '9')
            value = value * 10 + (uint64_t)(bytes[count++] - '0');
        assert_int_equal(ingest_digits_count(chr_get_u64le(bytes)), count);
        if (count)
            assert_int_equal(ingest_digits_value(chr_get_u64le(bytes), count), value);
    }
}

static void test_string_stops(void **state)
{
    for (int c = 0; c < 256; c++) {
        for (int at = 0; at < 16; at++) {
            uint8_t bytes[16];
            memset(bytes, 'x', sizeof bytes);
            bytes[at] = (uint8_t)c;
            uint32_t expected = c == '"' || c == '\\' || c < 0x20 ? 1u << at : 0;
            assert_int_equal(ingest_string_stops(bytes), expected);
        }
    }
}

static void test_copy(void **state)
{
    struct helper_guard page;
    helper_guard_init(&page, 4096);
    struct chr_random r = {.state = SEED};
    uint8_t in[300], out[300 + INGEST_PAD + 1];
    for (size_t len = 0; len < sizeof in; len++) {
        for (int round = 0; round < 8; round++) {
            for (size_t i = 0; i < len; i++)
                in[i] = (uint8_t)chr_random_below(&r, 128);
            bool high = len && chr_random_below(&r, 2);
            if (high)
                in[chr_random_below(&r, len)] |= 0x80;
            memset(out, 0xee, sizeof out);
            chr_slice at_edge = helper_guarded(&page, chr_slice_of(in, len));
            assert_int_equal(ingest_copy_padded(out, at_edge.ptr, len), !high);
            assert_memory_equal(out, in, len);
            for (size_t i = 0; i < INGEST_PAD; i++)
                assert_int_equal(out[len + i], 0);
            assert_int_equal(out[len + INGEST_PAD], 0xee);
        }
    }
    helper_guard_free(&page);
}

/* Many columns, names that differ in one byte: every one is found, no other is. */
static void test_keys(void **state)
{
    struct chr_random r = {.state = SEED};
    for (int round = 0; round < 60; round++) {
        struct helper_text def = {0};
        char name[80], names[300][64];
        int count = round < 50 ? 1 + (int)chr_random_below(&r, 40) : 300, made = 0;
        helper_adds(&def, "t (");
        while (made < count) {
            size_t len = 1 + chr_random_below(&r, chr_random_below(&r, 2) ? 20 : 63);
            for (size_t i = 0; i < len; i++)
                name[i] = (char)('a' + chr_random_below(&r, i + 1 == len || i < 2 ? 26 : 2));
            name[len] = '\0';
            bool twice = false;
            for (int i = 0; i < made; i++)
                twice |= strcmp(names[i], name) == 0;
            if (twice)
                continue;
            strcpy(names[made], name);
            helper_adds(&def, made++ ? ", " : "");
            helper_adds(&def, name);
            helper_adds(&def, " FLOAT");
        }
        helper_adds(&def, ") TOPIC t");
        struct helper h = {0};
        helper_add_table(&h, def.ptr);
        helper_compile(&h, 1 << 20);
        const struct ingest_keys *keys = &h.mappings->plans[0].keys;
        for (int i = 0; i < made; i++) {
            uint8_t padded[80] = {0};
            size_t len = strlen(names[i]);
            memcpy(padded, names[i], len);
            memset(padded + len, chr_random_below(&r, 2) ? '"' : 'a', 8);
            const struct ingest_key *k = ingest_key_find(keys, padded, len);
            assert_non_null(k);
            assert_int_equal(k->column, i);
            /* One byte changed, one taken away: the table says the same as a look at all names. */
            padded[chr_random_below(&r, len)] = (uint8_t)('a' + chr_random_below(&r, 26));
            len -= chr_random_below(&r, 2);
            k = ingest_key_find(keys, padded, len);
            int found = -1;
            for (int j = 0; j < made; j++)
                if (strlen(names[j]) == len && memcmp(names[j], padded, len) == 0)
                    found = j;
            assert_int_equal(k ? k->column : -1, found);
        }
        free(def.ptr);
        helper_free(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_numbers), cmocka_unit_test(test_random_numbers),
        cmocka_unit_test(test_digits),       cmocka_unit_test(test_string_stops),
        cmocka_unit_test(test_copy),         cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
