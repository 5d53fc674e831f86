/* utf8.c against a decoder written from RFC 3629 without cleverness. */
#include "tests/base/check.h"

#include "base/utf8.h"
#include "tests/base/guard.h"

/* Decodes by shape alone, then asks whether the shortest encoding of the value has that length. */
static size_t naive_character(const uint8_t *p, size_t left, uint32_t *c)
{
    size_t len;
    if (p[0] < 0x80)
        len = 1, *c = p[0];
    else if (p[0] >> 5 == 6)
        len = 2, *c = p[0] & 31;
    else if (p[0] >> 4 == 14)
        len = 3, *c = p[0] & 15;
    else if (p[0] >> 3 == 30)
        len = 4, *c = p[0] & 7;
    else
        return 0;
    if (len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        *c = *c << 6 | (p[i] & 63);
    }
    size_t shortest = *c < 0x80 ? 1 : *c < 0x800 ? 2 : *c < 0x10000 ? 3 : 4;
    if (len != shortest || *c > 0x10ffff || (*c >= 0xd800 && *c <= 0xdfff))
        return 0;
    return len;
}

static bool naive_valid(chr_slice s, bool zero_allowed, size_t *length)
{
    *length = 0;
    for (size_t i = 0; i < s.len;) {
        uint32_t c = 0;
        size_t n = naive_character(s.ptr + i, s.len - i, &c);
        if (n == 0 || (c == 0 && !zero_allowed))
            return false;
        i += n;
        ++*length;
    }
    return true;
}

static void check(const uint8_t *bytes, size_t len)
{
    chr_slice s = guarded(bytes, len);
    size_t length, unused;
    bool valid = naive_valid(s, true, &length);
    if (chr_utf8_valid(s) != valid || chr_utf8_valid_mqtt(s) != naive_valid(s, false, &unused) ||
        (valid && chr_utf8_length(s) != length)) {
        for (size_t i = 0; i < len; i++)
            print_error("%02x ", bytes[i]);
        fail_msg("differs from the plain decoder");
    }
}

static void all_short_sequences(void **state)
{
    for (uint32_t v = 0; v < 0x10000; v++) {
        uint8_t bytes[2] = {(uint8_t)(v >> 8), (uint8_t)v};
        check(bytes, 1);
        check(bytes, 2);
    }
    /* Third and fourth bytes matter at their borders only. */
    static const uint8_t edges[] = {0x00, 0x20, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                    0xa0, 0xbf, 0xc0, 0xc2, 0xe0, 0xff};
    for (uint32_t v = 0x8000; v < 0x10000; v++)
        for (size_t a = 0; a < sizeof edges; a++) {
            uint8_t bytes[4] = {(uint8_t)(v >> 8), (uint8_t)v, edges[a], 0};
            check(bytes, 3);
            if (bytes[0] >= 0xe0 && bytes[1] >= 0x80 && bytes[1] < 0xc0)
                for (size_t b = 0; b < sizeof edges; b++) {
                    bytes[3] = edges[b];
                    check(bytes, 4);
                }
        }
}

static void one_wrong_byte_in_long_text(void **state)
{
    struct chr_random random = test_random(10);
    static const char *const pieces[] = {"plant/line",       "\xc3\xa9",         "\xe2\x82\xac",
                                         "\xf0\x9f\x8c\xa1", "0123456789abcdef", "/"};
    for (int i = 0; i < 100000; i++) {
        uint8_t text[200];
        size_t len = 0;
        while (len < 60) {
            const char *piece = pieces[chr_random_below(&random, CHR_COUNT_OF(pieces))];
            memcpy(text + len, piece, strlen(piece));
            len += strlen(piece);
        }
        if (i % 2)
            text[chr_random_below(&random, len)] = (uint8_t)chr_random_u64(&random);
        if (i % 5 == 0)
            text[chr_random_below(&random, len)] = 0;
        check(text, chr_random_below(&random, len + 1));
    }
}

static void words_of_the_standard(void **state)
{
    assert_true(chr_utf8_valid((chr_slice){0}));
    assert_true(chr_utf8_valid(CHR_LIT("a\0b")));
    assert_false(chr_utf8_valid_mqtt(CHR_LIT("a\0b")));
    assert_false(chr_utf8_valid(CHR_LIT("\xed\xa0\x80")));      /* U+D800 */
    assert_false(chr_utf8_valid(CHR_LIT("\xc0\x80")));          /* overlong U+0000 */
    assert_false(chr_utf8_valid(CHR_LIT("\xf4\x90\x80\x80")));  /* U+110000 */
    assert_true(chr_utf8_valid_mqtt(CHR_LIT("\xef\xbb\xbfx"))); /* U+FEFF stays [MQTT-1.5.4-3] */
    assert_int_equal(chr_utf8_length(CHR_LIT("20 \xc2\xb0"
                                             "C")),
                     5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_short_sequences),
        cmocka_unit_test(one_wrong_byte_in_long_text),
        cmocka_unit_test(words_of_the_standard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
