/* Packets that are made once for many: the same bytes that each would get by itself, or none. */
#include <stdio.h>
#include <string.h>

#include "broker/session/encoded.h"
#include "kit.h"

#define PROPERTIES "\x03\0\4text\x26\0\1k\0\1v" /* Content Type, User Property */

static struct message *message_of(size_t topic_len, chr_slice properties, size_t payload_len)
{
    uint8_t *bytes = malloc(topic_len + payload_len + 1);
    memset(bytes, 't', topic_len);
    for (size_t i = 0; i < payload_len; i++)
        bytes[topic_len + i] = (uint8_t)i;
    struct message *m = message_new(chr_slice_of(bytes, topic_len), properties,
                                    chr_slice_of(bytes + topic_len, payload_len), 1, true, 0);
    free(bytes);
    return m;
}

static chr_slice out_of(const struct conn *conn)
{
    return chr_slice_of(conn->out.ptr, conn->out.len);
}

/* The twin is session_deliver, which encodes for one client. */
static void test_same_bytes(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *ours = kit_session(&kit, 0, "ours");
    struct session *twin = kit_session(&kit, 0, "twin");
    static const size_t topics[] = {1, 5, 100, 900}, payloads[] = {0, 1, 50, 127, 128, 800, 990};
    static const enum mqtt_version versions[] = {MQTT_V311, MQTT_V5};
    unsigned made = 0;
    for (unsigned i = 0; i < CHR_COUNT_OF(topics) * CHR_COUNT_OF(payloads) * 2; i++) {
        chr_slice properties = i & 1 ? CHR_LIT(PROPERTIES) : CHR_LIT("");
        struct message *m = message_of(topics[i / 2 % CHR_COUNT_OF(topics)], properties,
                                       payloads[i / 2 / CHR_COUNT_OF(topics)]);
        struct encoded encoded;
        encoded_init(&encoded, m);
        for (unsigned k = 0; k < 8; k++) { /* each twice: made, and made already */
            struct conn *a = kit_connect(ours, versions[k & 1]);
            struct conn *b = kit_connect(twin, versions[k & 1]);
            bool retain = k & 2;
            if (session_deliver_encoded(ours, &encoded, retain)) {
                session_deliver(twin, m, 0, retain, CHR_LIT(""));
                assert_true(chr_slice_eq(out_of(a), out_of(b)));
                assert_true(a->out.len > 0 && a->out.len <= ENCODED_BYTES_MAX);
                assert_int_equal(a->messages_sent, b->messages_sent);
                made++;
            } else {
                assert_int_equal(a->out.len, 0);
                assert_true(m->topic.len + m->payload.len > 900);
            }
            kit_disconnect(ours);
            kit_disconnect(twin);
        }
        message_unref(m);
    }
    assert_true(made > 300);
    session_free(ours);
    session_free(twin);
    kit_free(&kit);
}

static bool delivered(struct session *s, const struct message *m)
{
    struct encoded encoded;
    encoded_init(&encoded, m);
    size_t before = s->conn ? s->conn->out.len : 0;
    bool done = session_deliver_encoded(s, &encoded, false);
    assert_true(done || !s->conn || s->conn->out.len == before); /* nothing happened */
    return done;
}

/* Whoever needs a packet of their own. */
static void test_not_for(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "s");
    struct message *m = message_of(5, CHR_LIT(""), 50);
    assert_false(delivered(s, m)); /* it is away */
    struct conn *conn = kit_connect(s, MQTT_V5);
    assert_true(delivered(s, m));

    m->has_expiry = true, m->expires_mono_us = INT64_MAX;
    assert_false(delivered(s, m));
    m->has_expiry = false, m->to_user = true;
    assert_false(delivered(s, m));
    m->to_user = false, m->flow_controlled = true;
    assert_false(delivered(s, m));
    m->flow_controlled = false;
    assert_false(delivered(s, NULL));

    s->sent_aliases_max = 1;
    assert_false(delivered(s, m));
    s->sent_aliases_max = 0;
    uint32_t most = s->max_packet_bytes;
    s->max_packet_bytes = 2 + 2 + 5 + 1 + 50;
    assert_true(delivered(s, m));
    s->max_packet_bytes--;
    assert_false(delivered(s, m)); /* [MQTT-3.1.2-24] */
    s->max_packet_bytes = most;

    /* S2: behind what waits */
    assert_int_equal(session_deliver_retained(s, m, NULL, 0, false, CHR_LIT("")), CHR_OK);
    assert_false(delivered(s, m));
    session_pump(s);
    assert_true(delivered(s, m));

    /* who reads too slowly */
    static const uint8_t much[65536];
    while (conn->out.len <= kit.config.max_output_bytes / 2)
        conn_send(conn, chr_slice_of(much, sizeof much));
    assert_false(delivered(s, m));
    kit_disconnect(s);
    message_unref(m);
    session_free(s);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_not_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
