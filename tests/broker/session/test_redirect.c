/* Connected clients are sent away once a second while the settings say so. */
#include <string.h>

#include "broker/session/redirect.h"
#include "kit.h"

static void test_connected_clients(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *five = kit_session(&kit, 0, "five"), *four = kit_session(&kit, 0, "four");
    struct conn *conns[] = {kit_connect(five, MQTT_V5), kit_connect(four, MQTT_V311)};
    kit.loops[0]->conns = conns;
    kit.loops[0]->slots_used = 2;

    redirect_second(kit.loops[0]); /* nothing is said */
    assert_int_equal(conns[0]->state, CONN_OPEN);
    assert_int_equal(conns[0]->out.len, 0);

    kit.config.redirect = REDIRECT_USE_ANOTHER_SERVER;
    kit.config.server_reference = "b.example:1883";
    redirect_second(kit.loops[0]);
    struct mqtt_frame frame;
    assert_true(kit_sent(conns[0], &frame));
    assert_int_equal(frame.type, MQTT_DISCONNECT);
    assert_int_equal(frame.body.ptr[0], MQTT_REASON_USE_ANOTHER_SERVER);
    assert_memory_equal(frame.body.ptr + 1,
                        "\x11\x1c\x00\x0e"
                        "b.example:1883",
                        18);
    assert_int_equal(conns[0]->state, CONN_CLOSING);
    assert_false(kit_sent(conns[1], &frame)); /* 3.1.1: closed without a word */
    assert_int_equal(conns[1]->state, CONN_CLOSING);

    redirect_second(kit.loops[0]); /* once is enough */
    assert_false(kit_sent(conns[0], &frame));
    kit.loops[0]->conns = NULL;
    kit.loops[0]->slots_used = 0;
    kit_disconnect(five);
    kit_disconnect(four);
    kit_free(&kit);
}

/* A reference that does not fit what the client takes is left out, the code is not. */
static void test_small_packets(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "c");
    struct conn *conn = kit_connect(s, MQTT_V5);
    conn->client_packet_bytes_max = 10;
    kit.loops[0]->conns = &conn;
    kit.loops[0]->slots_used = 1;
    kit.config.redirect = REDIRECT_SERVER_MOVED;
    kit.config.server_reference = "b.example:1883";
    redirect_second(kit.loops[0]);
    struct mqtt_frame frame;
    assert_true(kit_sent(conn, &frame));
    assert_int_equal(frame.body.len, 1);
    assert_int_equal(frame.body.ptr[0], MQTT_REASON_SERVER_MOVED);
    kit.loops[0]->conns = NULL;
    kit.loops[0]->slots_used = 0;
    kit_disconnect(s);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connected_clients),
        cmocka_unit_test(test_small_packets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
