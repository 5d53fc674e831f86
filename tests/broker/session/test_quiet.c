/* What a connection holds while nothing comes or goes. */
#include <string.h>

#include "kit.h"

static void test_quiet_connection_gives_back(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "s");
    struct conn *conn = kit_connect(s, MQTT_V311);
    struct broker_loop *loop = kit.loops[0];
    conn->last_send_us = conn->last_receive_us = loop->now_mono_us;
    for (int round = 0; round < 2; round++) {
        uint32_t sequence = conn_ack_begin(conn, MQTT_PUBACK, 7);
        conn_send(conn, CHR_LIT("unsent"));
        loop->now_mono_us += 3600 * INT64_C(1000000);
        conn_rest(conn); /* neither what is unsent nor what is owed */
        assert_non_null(conn->acks);
        conn_ack_done(conn, sequence, 1, MQTT_REASON_SUCCESS);
        assert_int_equal(conn->out.len, 6 + 4);
        assert_memory_equal(conn->out.ptr, "unsent\x40\x02\0\x07", 10);
        chr_buf_reset(&conn->out);
        conn->last_send_us = loop->now_mono_us;
        loop->now_mono_us += 1000000;
        conn_rest(conn); /* who sends every second */
        assert_non_null(conn->acks);
        assert_true(conn->out.capacity > 0);
        loop->now_mono_us += 1000000;
        conn_rest(conn);
        assert_null(conn->acks);
        assert_int_equal(conn->out.capacity, 0);
    }
    kit_disconnect(s);
    session_free(s);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quiet_connection_gives_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
