/* tests/proto/test_mqtt_topic.c: topic names and filters, from text, and against libmosquitto's
 * idea of the same on random ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <mosquitto.h>

#include "base/utf8.h"
#include "guard.h"
#include "proto/mqtt/topic.h"
#include "random_packet.h"

static struct guard guard;

/* The next 'text' or bare word of a line, and a zero behind it that does not count. */
static const char *take(const char *at, struct chr_buf *out)
{
    while (*at == ' ')
        at++;
    char piece[512];
    size_t n = 0;
    if (*at == '\'') {
        do
            piece[n++] = *at++;
        while (*at != '\'');
        while (*at && *at != ' ' && *at != '\n')
            piece[n++] = *at++;
        piece[n] = 0;
        assert_non_null(text_to_bytes(piece, out));
    } else {
        while (*at && *at != ' ' && *at != '\n')
            chr_buf_add_u8(out, (uint8_t)*at++);
    }
    chr_buf_add_u8(out, 0);
    out->len--;
    return at;
}

static void test_text(void **state)
{
    (void)state;
    FILE *f = fopen(TEST_DIR "/topic/topics.txt", "r");
    assert_non_null(f);
    char *text = NULL;
    size_t capacity = 0;
    unsigned lines = 0, failed = 0;
    for (int line = 1; getline(&text, &capacity, f) > 0; line++) {
        if (text[0] == '#' || text[0] == '\n')
            continue;
        struct chr_buf word[4];
        const char *at = text;
        for (size_t i = 0; i < 4; i++) {
            chr_buf_init(&word[i], 1 << 18);
            at = take(at, &word[i]);
        }
        chr_slice verb = chr_buf_slice(&word[0]), a = chr_buf_slice(&word[1]);
        chr_slice b = chr_buf_slice(&word[2]), c = chr_buf_slice(&word[3]);
        chr_slice tight = guard_copy(&guard, a.ptr, a.len);
        bool ok = false;
        if (chr_slice_eq(verb, CHR_LIT("name"))) {
            ok = mqtt_topic_name_valid(tight) == chr_slice_eq(b, CHR_LIT("valid"));
        } else if (chr_slice_eq(verb, CHR_LIT("filter"))) {
            ok = mqtt_topic_filter_valid(tight) == chr_slice_eq(b, CHR_LIT("valid"));
        } else if (chr_slice_eq(verb, CHR_LIT("match"))) {
            ok = mqtt_topic_matches(tight, b) == chr_slice_eq(c, CHR_LIT("yes"));
            assert_true(mqtt_topic_filter_valid(a) && mqtt_topic_name_valid(b));
        } else if (chr_slice_eq(verb, CHR_LIT("share"))) {
            chr_slice group, rest;
            int shared = mqtt_share_parse(tight, &group, &rest);
            ok = chr_slice_eq(b, CHR_LIT("none")) ? shared == 0 && chr_slice_eq(rest, a)
                 : chr_slice_eq(b, CHR_LIT("malformed"))
                     ? shared == CHR_EMALFORMED
                     : shared == 1 && chr_slice_eq(group, b) && chr_slice_eq(rest, c);
        } else if (chr_slice_eq(verb, CHR_LIT("levels"))) {
            size_t expected = strtoul((const char *)b.ptr, NULL, 10), walked = 0;
            struct mqtt_level_iter it = mqtt_level_iter(tight);
            chr_slice level;
            while (mqtt_level_next(&it, &level))
                walked++;
            ok = mqtt_topic_levels(tight) == expected && walked == expected;
        }
        if (!ok) {
            fprintf(stderr, "topics.txt:%d: %s", line, text);
            failed++;
        }
        lines++;
        for (size_t i = 0; i < 4; i++)
            chr_buf_free(&word[i]);
    }
    free(text);
    fclose(f);
    printf("%u topic cases\n", lines);
    assert_true(lines > 90);
    assert_int_equal(failed, 0);
}

/* A short string over few characters, so that names and filters meet. */
static size_t short_text(struct random_packets *g, char *out, const char *alphabet)
{
    size_t len = 1 + below(g, 9);
    for (size_t i = 0; i < len; i++)
        out[i] = alphabet[below(g, strlen(alphabet))];
    out[len] = 0;
    return len;
}

static void test_against_mosquitto(void **state)
{
    (void)state;
    struct random_packets g = {.random = {77}};
    unsigned matches = 0, valid_filters = 0;
    for (unsigned i = 0; i < 400000; i++) {
        char filter[16], name[16];
        size_t filter_len = short_text(&g, filter, "ab/+#$");
        size_t name_len = short_text(&g, name, chance(&g, 90) ? "ab/$" : "ab/+#");
        chr_slice f = guard_copy(&guard, filter, filter_len);
        bool filter_ok = mqtt_topic_filter_valid(f);
        bool name_ok = mqtt_topic_name_valid(chr_slice_of(name, name_len));
        assert_int_equal(filter_ok, mosquitto_sub_topic_check(filter) == MOSQ_ERR_SUCCESS);
        assert_int_equal(name_ok, mosquitto_pub_topic_check(name) == MOSQ_ERR_SUCCESS);
        if (!filter_ok || !name_ok)
            continue;
        valid_filters++;
        bool theirs = false;
        assert_int_equal(mosquitto_topic_matches_sub(filter, name, &theirs), MOSQ_ERR_SUCCESS);
        bool ours = mqtt_topic_matches(f, chr_slice_of(name, name_len));
        if (ours != theirs)
            fail_msg("'%s' '%s': ours %d, theirs %d", filter, name, ours, theirs);
        matches += ours;
    }
    printf("%u pairs, %u matches\n", valid_filters, matches);
    assert_true(valid_filters > 10000 && matches > 1000);
}

/* The eight-bytes-at-a-time scan says what the slow way says, at every length and offset. */
static void test_scan(void **state)
{
    (void)state;
    struct random_packets g = {.random = {78}};
    for (unsigned i = 0; i < 200000; i++) {
        uint8_t bytes[40];
        size_t len = 1 + below(&g, sizeof bytes);
        for (size_t k = 0; k < len; k++)
            bytes[k] = (uint8_t)(chance(&g, 95) ? 0x20 + below(&g, 3) : 0x2c + below(&g, 0x53));
        if (chance(&g, 50))
            bytes[below(&g, len)] = (const uint8_t[]){'+', '#', 0,   0x80, 0xff, 0x7f,
                                                      1,   '*', '$', '"',  ','}[below(&g, 11)];
        chr_slice name = guard_copy(&guard, bytes, len);
        bool slow =
            chr_utf8_valid_mqtt(name) && !memchr(bytes, '+', len) && !memchr(bytes, '#', len);
        assert_int_equal(mqtt_topic_name_valid(name), slow);
    }
}

int main(void)
{
    guard = guard_open(1 << 18);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_against_mosquitto),
        cmocka_unit_test(test_scan),
    };
    int failed = cmocka_run_group_tests_name("mqtt topics", tests, NULL, NULL);
    guard_close(&guard);
    return failed;
}
