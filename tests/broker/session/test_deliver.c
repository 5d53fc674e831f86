/* Whom a message reaches: here, of groups with members that the log serves. */
#include "tests/broker/session/kit.h"

/* What the log has verbatim it gives to a durable member itself; what it has not, because no member
 * was durable yet when it was accepted, or for its size, somebody gets all the same. */
static void test_mixed_group(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct broker_loop *loop = kit.loops[0];
    struct session *durable = kit_session(&kit, 0, "durable"),
                   *other = kit_session(&kit, 0, "other");
    durable->durable = true;
    durable->receive_maximum = other->receive_maximum = 100;
    struct conn *conns[] = {kit_connect(durable, MQTT_V5), kit_connect(other, MQTT_V5)};
    bool existed;
    struct subscription_options options = {.qos = 1};
    assert_int_equal(subscriptions_add(kit.node.subscriptions, other, CHR_LIT("g"), CHR_LIT("a/#"),
                                       &options, &existed),
                     CHR_OK);
    options.durable = true;
    assert_int_equal(subscriptions_add(kit.node.subscriptions, durable, CHR_LIT("g"),
                                       CHR_LIT("a/#"), &options, &existed),
                     CHR_OK);
    struct mqtt_frame frame;
    for (int logged = 0; logged < 2; logged++) {
        uint32_t got = 0;
        for (int i = 0; i < 10; i++) {
            struct message *m = kit_message("a/b", "x", 1);
            m->logged = logged;
            session__deliver_topic(loop, m);
            message_unref(m);
        }
        for (size_t i = 0; i < CHR_COUNT_OF(conns); i++)
            while (kit_sent(conns[i], &frame))
                got++;
        assert_int_equal(got, logged ? 0 : 10);
    }
    durable->durable = false;
    kit_disconnect(durable);
    kit_disconnect(other);
    session_clear(durable);
    session_clear(other);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mixed_group)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
