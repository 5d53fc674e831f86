/* Messages towards one client: order, exactly once, limits, packet ids, reconnections. */
#include "proto/mqtt/encode.h"
#include "tests/broker/session/kit.h"

/* ---- A client on the other side ---------------------------------------------------------------
 *
 * It keeps the rules of the standard and answers in any order it likes; it loses its connection now
 * and then, with whatever was on its way. */

#define MESSAGES_MAX 200000

struct peer {
    uint32_t received[MESSAGES_MAX]; /* payloads taken as new, in order */
    uint32_t received_count;
    bool qos2_held[65536];       /* PUBLISH came, PUBREL not yet */
    uint16_t acks[MESSAGES_MAX]; /* owed: ids of PUBACK (1), PUBREC (2), PUBCOMP (3) */
    uint8_t kinds[MESSAGES_MAX];
    uint32_t owed;
    bool counted[65536]; /* in unanswered */
    uint32_t unanswered; /* flows of this connection not ended: must not pass Receive Maximum */
    uint32_t receive_maximum;
};

static void owe(struct peer *p, uint16_t id, uint8_t kind)
{
    assert_true(p->owed < MESSAGES_MAX);
    p->acks[p->owed] = id;
    p->kinds[p->owed++] = kind;
}

static void count(struct peer *p, uint16_t id)
{
    p->unanswered += !p->counted[id];
    p->counted[id] = true;
    assert_true(p->unanswered <= p->receive_maximum);
}

static void end(struct peer *p, uint16_t id)
{
    assert_true(p->counted[id]);
    p->counted[id] = false;
    p->unanswered--;
}

static void take(struct peer *p, uint32_t number)
{
    assert_true(p->received_count < MESSAGES_MAX);
    p->received[p->received_count++] = number;
}

static void read_packets(struct peer *p, struct conn *conn)
{
    struct mqtt_frame frame;
    while (kit_sent(conn, &frame)) {
        struct mqtt_fault fault;
        if (frame.type == MQTT_PUBREL) {
            struct mqtt_ack ack;
            assert_int_equal(mqtt_decode_ack(&frame, conn->version, &ack, &fault), CHR_OK);
            p->qos2_held[ack.packet_id] = false;
            count(p, ack.packet_id);
            owe(p, ack.packet_id, 3);
            continue;
        }
        assert_int_equal(frame.type, MQTT_PUBLISH);
        struct mqtt_publish publish;
        assert_int_equal(mqtt_decode_publish(&frame, conn->version, &publish, &fault), CHR_OK);
        uint32_t number = (uint32_t)strtoul((const char *)publish.payload.ptr, NULL, 10);
        if (publish.qos == 0) {
            take(p, number);
            continue;
        }
        count(p, publish.packet_id);
        if (publish.qos == 1) {
            take(p, number);
            owe(p, publish.packet_id, 1);
        } else {
            assert_true(publish.dup || !p->qos2_held[publish.packet_id]);
            if (!p->qos2_held[publish.packet_id])
                take(p, number);
            p->qos2_held[publish.packet_id] = true;
            owe(p, publish.packet_id, 2);
        }
    }
}

static void answer(struct peer *p, struct session *s, uint32_t which)
{
    uint16_t id = p->acks[which];
    uint8_t kind = p->kinds[which];
    memmove(&p->acks[which], &p->acks[which + 1], (p->owed - which - 1) * sizeof p->acks[0]);
    memmove(&p->kinds[which], &p->kinds[which + 1], p->owed - which - 1);
    p->owed--;
    if (kind == 1) {
        end(p, id);
        assert_true(session_acked(s, id));
    } else if (kind == 2) {
        bool known;
        assert_true(session_received(s, id, 0, &known));
        uint8_t packet[MQTT_ACK_BYTES_MAX];
        size_t n = mqtt_encode_pubrel(packet, s->version, id, 0);
        conn_send(s->conn, chr_slice_of(packet, n));
    } else {
        end(p, id);
        assert_true(session_completed(s, id));
    }
}

/* QoS 2: each exactly once and in order. QoS 1: in order, but for what comes again. */
static void run(uint8_t qos, uint32_t receive_maximum, bool lossy)
{
    struct kit kit;
    kit_init(&kit);
    kit.config.max_queued_messages = 0;
    kit.config.max_queued_bytes = 0;
    struct chr_random random = kit_random();
    struct session *s = kit_session(&kit, 0, "client");
    struct peer *p = calloc(1, sizeof *p);
    p->receive_maximum = receive_maximum;
    s->receive_maximum = receive_maximum;
    struct conn *conn = kit_connect(s, MQTT_V5);
    uint32_t sent = 0;
    while (sent < 1500 || p->owed || outgoing_count(&s->queue) || s->inflight_open) {
        uint64_t what = chr_random_below(&random, 100);
        if (what < 40 && sent < 1500) {
            char number[16];
            sprintf(number, "%u ", sent++);
            struct message *m = kit_message("t", number, qos);
            session_deliver(s, m, qos, false, CHR_LIT(""));
            message_unref(m);
        } else if (what < 70 && p->owed && s->conn) {
            /* QoS 2 must be answered in order to be delivered in order */
            answer(p, s, (uint32_t)chr_random_below(&random, p->owed));
        } else if (what < 98 && s->conn) {
            read_packets(p, s->conn);
        } else if (lossy && s->conn) {
            if (chr_random_below(&random, 2))
                read_packets(p, s->conn);
            kit_disconnect(s);
            p->owed = p->unanswered = 0;
            memset(p->counted, 0, sizeof p->counted);
        } else if (!s->conn) {
            conn = kit_connect(s, MQTT_V5);
            session_redeliver(s);
            session_pump(s);
        }
    }
    (void)conn;
    read_packets(p, s->conn);
    uint32_t next = 0;
    for (uint32_t i = 0; i < p->received_count; i++) {
        if (p->received[i] == next)
            next++;
        else /* came before: only QoS 1 after a lost connection */
            assert_true(qos == 1 && lossy && p->received[i] < next);
    }
    assert_int_equal(next, 1500);
    if (qos == 2 || !lossy)
        assert_int_equal(p->received_count, 1500);
    kit_disconnect(s);
    free(p);
    kit_free(&kit);
}

static void test_qos_1(void **state)
{
    (void)state;
    run(1, 7, false);
    run(1, 65535, false);
}

static void test_qos_1_with_lost_connections(void **state)
{
    (void)state;
    run(1, 5, true);
    run(1, 100, true);
}

static void test_qos_2(void **state)
{
    (void)state;
    run(2, 1, false);
    run(2, 16, false);
}

static void test_qos_2_with_lost_connections(void **state)
{
    (void)state;
    run(2, 1, true);
    run(2, 9, true);
}

/* Packet ids go around after 65,535, and one that is in use is not given again. */
static void test_packet_ids_wrap(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "client");
    struct conn *conn = kit_connect(s, MQTT_V311);
    struct message *m = kit_message("t", "x", 1);
    struct mqtt_frame frame;
    struct mqtt_publish publish;
    struct mqtt_fault fault;
    uint16_t expected = 1;
    for (uint32_t i = 0; i < 70000; i++) {
        session_deliver(s, m, 1, false, CHR_LIT(""));
        assert_true(kit_sent(conn, &frame));
        assert_int_equal(mqtt_decode_publish(&frame, MQTT_V311, &publish, &fault), CHR_OK);
        assert_int_equal(publish.packet_id, expected);
        if (i != 5) /* the sixth is never acknowledged */
            assert_true(session_acked(s, expected));
        expected = expected == 65535 ? 1 : (uint16_t)(expected + 1);
        chr_buf_reset(&conn->out);
        conn->out_sent = 0;
        if (outgoing_count(&s->inflight) == 65535)
            break;
    }
    assert_int_equal(s->inflight_open, 1);
    /* all the other ids were used since: the next would be 6, so it waits */
    session_deliver(s, m, 1, false, CHR_LIT(""));
    assert_false(kit_sent(conn, &frame));
    assert_int_equal(outgoing_count(&s->queue), 1);
    assert_true(session_acked(s, 6));
    assert_true(kit_sent(conn, &frame));
    assert_int_equal(mqtt_decode_publish(&frame, MQTT_V311, &publish, &fault), CHR_OK);
    assert_int_equal(publish.packet_id, 6);
    assert_false(session_acked(s, 7));
    assert_false(session_acked(s, 0));
    message_unref(m);
    kit_disconnect(s);
    kit_free(&kit);
}

static void test_queue_limits(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    kit.config.max_queued_messages = 10;
    struct session *s = kit_session(&kit, 0, "client");
    struct message *m = kit_message("t", "x", 1), *answer_part = kit_message("t", "y", 1);
    answer_part->flow_controlled = true;
    for (int i = 0; i < 20; i++)
        session_deliver(s, m, 1, false, CHR_LIT(""));
    assert_int_equal(outgoing_count(&s->queue), 10);
    assert_int_equal(s->dropped, 10);
    session_deliver(s, m, 0, false, CHR_LIT("")); /* QoS 0 does not wait for who is away */
    assert_int_equal(outgoing_count(&s->queue), 10);
    session_deliver(s, answer_part, 1, false, CHR_LIT(""));
    assert_int_equal(session_deliver_retained(s, m, NULL, 1, true, CHR_LIT("")), CHR_OK);
    assert_int_equal(outgoing_count(&s->queue), 12);
    assert_int_equal(s->queue_limited, 10);
    /* bytes count as well */
    kit.config.max_queued_messages = 0;
    kit.config.max_queued_bytes = s->queue_bytes + message_bytes(m) - 1;
    session_deliver(s, m, 1, false, CHR_LIT(""));
    assert_int_equal(outgoing_count(&s->queue), 12);
    kit.config.max_queued_bytes++;
    session_deliver(s, m, 1, false, CHR_LIT(""));
    assert_int_equal(outgoing_count(&s->queue), 13);
    /* everything leaves when the client is there */
    s->receive_maximum = 100;
    kit.config.max_queued_bytes = 0;
    struct conn *conn = kit_connect(s, MQTT_V5);
    session_pump(s);
    struct mqtt_frame frame;
    int count = 0;
    while (kit_sent(conn, &frame))
        count++;
    assert_int_equal(count, 13);
    assert_int_equal(s->queue_bytes, 0);
    assert_int_equal(s->queue_limited, 0);
    kit_disconnect(s);
    session_clear(s);
    assert_int_equal(atomic_load(&m->refs), 1); /* nobody holds it any more */
    assert_int_equal(atomic_load(&answer_part->refs), 1);
    message_unref(m);
    message_unref(answer_part);
    kit_free(&kit);
}

/* One that would not fit the empty queue costs no other its place; nor does one that the limit of
 * all queues together keeps out. */
static void test_drop_oldest(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "client");
    struct message *m = kit_message("t", "x", 1);
    char text[1001];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    struct message *large = kit_message("t", text, 1);
    kit.config.queue_drop = QUEUE_DROP_OLDEST;
    kit.config.max_queued_messages = 3;
    kit.config.max_queued_bytes = 3 * message_bytes(m);
    for (int i = 0; i < 3; i++)
        session_deliver(s, m, 1, false, CHR_LIT(""));
    assert_int_equal(s->dropped, 0);
    session_deliver(s, large, 1, false, CHR_LIT(""));
    assert_int_equal(outgoing_count(&s->queue), 3);
    assert_int_equal(s->dropped, 1);
    kit.config.max_queued_total = 1;
    session_deliver(s, m, 1, false, CHR_LIT(""));
    assert_int_equal(outgoing_count(&s->queue), 3);
    assert_int_equal(s->dropped, 2);
    kit.config.max_queued_total = 0;
    session_deliver(s, m, 1, false, CHR_LIT("")); /* the oldest goes for this one */
    assert_int_equal(outgoing_count(&s->queue), 3);
    assert_int_equal(s->dropped, 3);
    session_clear(s);
    message_unref(m);
    message_unref(large);
    kit_free(&kit);
}

/* Ids of what is in memory alone keep away from those the client may know from the log's queue,
 * also before anything was read from it again. */
static void test_packet_ids_beside_the_log(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "client");
    struct message *m = kit_message("$SYS/x", "x", 1);
    s->durable = true;
    s->receive_maximum = 10;
    s->stored.sent = STORED_SPAN_MAX + 1; /* and its id may be unanswered */
    struct conn *conn = kit_connect(s, MQTT_V311);
    session_deliver(s, m, 1, false, CHR_LIT(""));
    struct mqtt_frame frame;
    struct mqtt_publish publish;
    struct mqtt_fault fault;
    assert_true(kit_sent(conn, &frame));
    assert_int_equal(mqtt_decode_publish(&frame, MQTT_V311, &publish, &fault), CHR_OK);
    assert_int_equal(publish.packet_id, stored_packet_id(s->stored.sent + 1 + STORED_SPAN_MAX));
    assert_int_not_equal(publish.packet_id, stored_packet_id(s->stored.sent));
    assert_true(session_acked(s, publish.packet_id));
    s->durable = false;
    message_unref(m);
    kit_disconnect(s);
    session_clear(s);
    kit_free(&kit);
}

static void test_expiry(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "client");
    struct message *m = kit_message("t", "x", 1);
    m->has_expiry = true;
    m->expires_mono_us = kit.loops[0]->now_mono_us + 5000000;
    session_deliver(s, m, 1, false, CHR_LIT(""));
    session_deliver(s, m, 1, false, CHR_LIT(""));
    kit.loops[0]->now_mono_us += 2500000;
    s->receive_maximum = 1;
    struct conn *conn = kit_connect(s, MQTT_V5);
    session_pump(s);
    struct mqtt_frame frame;
    struct mqtt_publish publish;
    struct mqtt_fault fault;
    assert_true(kit_sent(conn, &frame));
    assert_int_equal(mqtt_decode_publish(&frame, MQTT_V5, &publish, &fault), CHR_OK);
    assert_int_equal(publish.properties.message_expiry_s, 3); /* 2.5 s are left */
    kit.loops[0]->now_mono_us += 2500000;
    assert_true(session_acked(s, 1)); /* the second has expired in the queue */
    assert_false(kit_sent(conn, &frame));
    assert_int_equal(outgoing_count(&s->queue), 0);
    message_unref(m);
    kit_disconnect(s);
    kit_free(&kit);
}

/* A slow reader: QoS 0 is dropped at the limit, QoS 1 waits, answers of queries always pass. */
static void test_slow_reader(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    kit.config.max_output_bytes = 64 << 10;
    struct session *s = kit_session(&kit, 0, "client");
    struct conn *conn = kit_connect(s, MQTT_V5);
    conn->epoll_out = true; /* the kernel takes no more */
    char payload[1001];
    memset(payload, 'x', 1000);
    payload[1000] = 0;
    struct message *m = kit_message("t", payload, 0);
    for (int i = 0; i < 100; i++)
        session_deliver(s, m, 0, false, CHR_LIT(""));
    assert_true(conn_out_bytes(conn) <= (32 << 10) + 2000);
    assert_true(s->dropped > 60);
    assert_int_equal(conn->state, CONN_OPEN);
    m->flow_controlled = true;
    uint64_t dropped = s->dropped;
    session_deliver(s, m, 0, false, CHR_LIT(""));
    assert_int_equal(s->dropped, dropped);
    message_unref(m);
    kit_disconnect(s);
    kit_free(&kit);
}

static void test_incoming_ids(void **state)
{
    (void)state;
    struct incoming_ids ids = {0};
    assert_false(incoming_held(&ids, 1));
    assert_false(incoming_release(&ids, 1));
    assert_int_equal(incoming_hold(&ids, 1, false), CHR_OK);
    assert_int_equal(incoming_hold(&ids, 65535, true), CHR_OK);
    assert_int_equal(incoming_hold(&ids, 1, false), CHR_OK);
    assert_int_equal(ids.held_count, 2);
    assert_true(incoming_held(&ids, 1));
    assert_false(incoming_settled(&ids, 1));
    assert_true(incoming_settled(&ids, 65535));
    assert_true(incoming_release(&ids, 65535));
    assert_false(incoming_settled(&ids, 65535));
    assert_false(incoming_release(&ids, 65535));
    assert_int_equal(ids.held_count, 1);
    incoming_clear(&ids);
    assert_false(incoming_held(&ids, 1));
}

static void test_aliases(void **state)
{
    (void)state;
    struct topic_aliases aliases = {0};
    assert_int_equal(aliases_get(&aliases, 1).len, 0);
    assert_int_equal(aliases_set(&aliases, 5, CHR_LIT("a/b")), CHR_OK);
    assert_int_equal(aliases_get(&aliases, 4).len, 0);
    assert_int_equal(aliases_get(&aliases, 6).len, 0);
    assert_true(chr_slice_eq(aliases_get(&aliases, 5), CHR_LIT("a/b")));
    assert_int_equal(aliases_set(&aliases, 5, CHR_LIT("c")), CHR_OK);
    assert_true(chr_slice_eq(aliases_get(&aliases, 5), CHR_LIT("c")));
    aliases_clear(&aliases);
    assert_int_equal(aliases_get(&aliases, 5).len, 0);
}

/* The next connection takes fewer at a time: what is sent again keeps to that [MQTT-3.3.4-9]. */
static void test_redelivery_keeps_to_receive_maximum(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "c");
    s->receive_maximum = 5;
    kit_connect(s, MQTT_V5);
    for (int i = 0; i < 5; i++) {
        struct message *m = kit_message("t", "x", i == 1 ? 2 : 1);
        session_deliver(s, m, m->qos, false, CHR_LIT(""));
        message_unref(m);
    }
    kit_disconnect(s);
    struct conn *conn = kit_connect(s, MQTT_V5);
    s->receive_maximum = 2;
    session_redeliver(s);
    session_pump(s);
    /* 1 and 2 come; what is answered lets the next come, in order, each once and marked. */
    static const uint16_t expected[][3] = {{1, 2, 0}, {3, 0, 0}, {0, 0, 0}, {4, 0, 0}, {0, 0, 0}};
    bool known;
    for (int step = 0; step < 5; step++) {
        struct mqtt_frame frame;
        struct mqtt_publish publish;
        struct mqtt_fault fault;
        for (int i = 0; expected[step][i]; i++) {
            assert_true(kit_sent(conn, &frame));
            assert_int_equal(mqtt_decode_publish(&frame, MQTT_V5, &publish, &fault), CHR_OK);
            assert_true(publish.dup);
            assert_int_equal(publish.packet_id, expected[step][i]);
        }
        assert_false(kit_sent(conn, &frame));
        if (step == 0)
            assert_true(session_acked(s, 1));
        else if (step == 1) /* PUBREC alone leaves no room, */
            assert_true(session_received(s, 2, 0, &known));
        else if (step == 2)
            assert_true(session_completed(s, 2));
        else if (step == 3) /* and neither does an answer to what has not come again yet, */
            assert_true(session_acked(s, 5));
    }
    assert_true(session_acked(s, 3));
    assert_true(session_acked(s, 4));
    assert_int_equal(s->inflight_open, 0);
    assert_int_equal(s->unsent, 0);
    kit_disconnect(s);
    kit_free(&kit);
}

/* The log knows it for ever: it is kept, and nothing overflows. */
static void test_an_end_without_expiry(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "c");
    s->durable = true;
    s->ended = true;
    assert_int_equal(s->expires_mono_us, INT64_MAX);
    session_expire(s);
    assert_int_equal(state_of(kit.loops[0])->sessions_count, 1);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_qos_1),
        cmocka_unit_test(test_qos_1_with_lost_connections),
        cmocka_unit_test(test_qos_2),
        cmocka_unit_test(test_qos_2_with_lost_connections),
        cmocka_unit_test(test_packet_ids_wrap),
        cmocka_unit_test(test_queue_limits),
        cmocka_unit_test(test_drop_oldest),
        cmocka_unit_test(test_packet_ids_beside_the_log),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_incoming_ids),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_an_end_without_expiry),
        cmocka_unit_test(test_redelivery_keeps_to_receive_maximum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
