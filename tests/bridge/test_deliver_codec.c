/* Messages and filters between nodes: there and back, cut short, changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "bridge/deliver_codec.h"

#define S(text) chr_slice_cstr(text)

/* At the end of a block of its own, so that a byte too far is seen by the sanitizers. */
static chr_slice at_the_end(const struct chr_buf *buf, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, buf->ptr, len);
    return chr_slice_of(copy, len);
}

static void messages(void **state)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 1 << 16);
    uint64_t groups[] = {1, UINT64_MAX, 77};
    struct deliver_head head = {.from_boot = 3, .to_boot = 9, .first = 41};
    struct deliver_message list[] = {
        {.qos = 2,
         .retain = true,
         .plain = true,
         .publisher = 5,
         .after = 6,
         .groups_count = 3,
         .topic = S("a/b"),
         .properties = S("pp"),
         .payload = S("hello")},
        {.qos = 0, .expires = true, .expires_ms = 123456789012, .topic = S("x")},
    };
    deliver_head_put(&buf, &head);
    assert_int_equal(buf.len, DELIVER_HEAD_BYTES);
    for (size_t i = 0; i < 2; i++) {
        size_t before = buf.len;
        deliver_message_put(&buf, &list[i], groups);
        assert_int_equal(buf.len - before, deliver_message_bytes(&list[i]));
    }
    for (size_t len = 0; len <= buf.len; len++) {
        chr_slice copy = at_the_end(&buf, len), rest = copy;
        struct deliver_head h;
        struct deliver_message m;
        size_t n = 0;
        chr_err err = deliver_head_take(&rest, &h);
        assert_int_equal(err, len < DELIVER_HEAD_BYTES ? CHR_EMALFORMED : CHR_OK);
        while (!err && rest.len && !(err = deliver_message_take(&rest, &m))) {
            assert_true(m.qos == list[n].qos && m.retain == list[n].retain &&
                        m.plain == list[n].plain && m.expires == list[n].expires &&
                        m.expires_ms == list[n].expires_ms && m.publisher == list[n].publisher &&
                        m.after == list[n].after && m.groups_count == list[n].groups_count);
            assert_true(chr_slice_eq(m.topic, list[n].topic) &&
                        chr_slice_eq(m.properties, list[n].properties) &&
                        chr_slice_eq(m.payload, list[n].payload));
            for (uint32_t g = 0; g < m.groups_count; g++)
                assert_true(deliver_group(&m, g) == groups[g]);
            n++;
        }
        assert_true(len < buf.len || (n == 2 && !err));
        free((void *)(uintptr_t)copy.ptr);
    }
    /* No byte makes it read beyond its end, or deliver to what is no topic. */
    for (size_t at = 0; at < buf.len; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            buf.ptr[at] ^= (uint8_t)(1u << bit);
            chr_slice copy = at_the_end(&buf, buf.len), rest = copy;
            struct deliver_head h;
            struct deliver_message m;
            if (!deliver_head_take(&rest, &h))
                while (rest.len && !deliver_message_take(&rest, &m))
                    assert_true(m.topic.len && !memchr(m.topic.ptr, '#', m.topic.len));
            free((void *)(uintptr_t)copy.ptr);
            buf.ptr[at] ^= (uint8_t)(1u << bit);
        }
    }
    chr_buf_free(&buf);
}

static void filters(void **state)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 1 << 16);
    struct deliver_filters head = {
        .type = DELIVER_FILTERS, .last = true, .boot = 1, .telling = 2, .from = 30, .to = 4};
    struct deliver_filter list[] = {
        {.group = S("g"), .filter = S("a/+"), .present = true, .durable = true},
        {.filter = S("#"), .present = true},
        {.filter = S("b")},
    };
    deliver_filters_put(&buf, &head);
    assert_int_equal(buf.len, DELIVER_FILTERS_BYTES);
    for (size_t i = 0; i < 3; i++) {
        size_t before = buf.len;
        deliver_filter_put(&buf, &list[i]);
        assert_int_equal(buf.len - before, deliver_filter_bytes(&list[i]));
    }
    for (size_t len = 0; len <= buf.len; len++) {
        chr_slice copy = at_the_end(&buf, len), rest = copy;
        struct deliver_filters h;
        struct deliver_filter f;
        size_t n = 0;
        chr_err err = deliver_filters_take(&rest, &h);
        assert_int_equal(err, len < DELIVER_FILTERS_BYTES ? CHR_EMALFORMED : CHR_OK);
        if (!err)
            assert_true(h.type == head.type && h.last && h.boot == 1 && h.telling == 2 &&
                        h.from == 30 && h.to == 4);
        for (; !err && rest.len && !(err = deliver_filter_take(&rest, &f)); n++)
            assert_true(chr_slice_eq(f.group, list[n].group) &&
                        chr_slice_eq(f.filter, list[n].filter) && f.present == list[n].present &&
                        f.durable == list[n].durable);
        assert_true(len < buf.len || (n == 3 && !err));
        free((void *)(uintptr_t)copy.ptr);
    }
    chr_buf_reset(&buf);
    deliver_filter_put(&buf, &(struct deliver_filter){.filter = S("a/#/b"), .present = true});
    chr_slice rest = chr_buf_slice(&buf);
    struct deliver_filter f;
    assert_int_equal(deliver_filter_take(&rest, &f), CHR_EMALFORMED);
    chr_buf_reset(&buf);
    deliver_filters_put(&buf,
                        &(struct deliver_filters){.type = DELIVER_CHANGES, .from = 5, .to = 4});
    rest = chr_buf_slice(&buf);
    struct deliver_filters h;
    assert_int_equal(deliver_filters_take(&rest, &h), CHR_EMALFORMED);
    chr_buf_free(&buf);
}

static void acknowledgements(void **state)
{
    struct delivered list[] = {
        {.type = DELIVER_MESSAGES, .again = true, .boot = 1, .up_to = 3, .receiver_boot = 4},
        {.type = DELIVER_FILTERS, .boot = 1, .telling = 2, .up_to = 3, .receiver_boot = 4},
    };
    for (size_t i = 0; i < 2; i++) {
        uint8_t bytes[DELIVERED_BYTES + 1] = {0};
        struct delivered d;
        delivered_put(&list[i], bytes);
        for (size_t len = 0; len <= sizeof bytes; len++)
            assert_int_equal(delivered_take(chr_slice_of(bytes, len), &d),
                             len == DELIVERED_BYTES ? CHR_OK : CHR_EMALFORMED);
        assert_int_equal(delivered_take(chr_slice_of(bytes, DELIVERED_BYTES), &d), CHR_OK);
        assert_true(d.type == list[i].type && d.again == list[i].again && d.boot == list[i].boot &&
                    d.telling == list[i].telling && d.up_to == list[i].up_to &&
                    d.receiver_boot == list[i].receiver_boot);
        bytes[0] = 9;
        assert_int_equal(delivered_take(chr_slice_of(bytes, DELIVERED_BYTES), &d), CHR_EMALFORMED);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages),
        cmocka_unit_test(filters),
        cmocka_unit_test(acknowledgements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
