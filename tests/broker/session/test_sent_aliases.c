/* Topic aliases that are sent: a client that keeps its own table always knows the topic. */
#include <stdio.h>
#include <string.h>

#include "broker/session/sent_aliases.h"
#include "kit.h"

/* What the client has been told. */
struct twin {
    char topics[65536][24]; /* by alias */
};

/* Sends one message as outbound.c does it. bind: the packet fits with its alias. Returns whether
 * the topic was left out. */
static bool send_one(struct sent_aliases *aliases, struct twin *twin, uint16_t max,
                     const char *topic, bool bind)
{
    struct sent_alias a = sent_aliases_find(aliases, chr_slice_cstr(topic));
    if (strlen(topic) <= SENT_ALIAS_BYTES)
        assert_int_equal(a.alias, 0);
    assert_true(a.alias <= max); /* [MQTT-3.1.2-26] */
    if (a.known) {
        assert_true(a.alias > 0); /* [MQTT-3.3.2-8] */
        assert_string_equal(twin->topics[a.alias], topic);
        return true;
    }
    if (a.alias && bind) {
        assert_true(sent_aliases_bind(aliases, a, chr_slice_cstr(topic)));
        strcpy(twin->topics[a.alias], topic);
    }
    return false;
}

static void test_client_knows_the_topic(void **state)
{
    (void)state;
    struct chr_random random = kit_random();
    static const uint16_t maxima[] = {1, 2, 3, 7, 8, 9, 64, 100, 1000, 65535};
    struct twin *twin = malloc(sizeof *twin);
    for (size_t i = 0; i < CHR_COUNT_OF(maxima); i++) {
        struct sent_aliases *aliases = sent_aliases_new(maxima[i]);
        memset(twin, 0, sizeof *twin);
        unsigned known = 0;
        for (unsigned n = 0; n < 20000; n++) {
            char topic[24];
            uint64_t x = chr_random_u64(&random);
            /* some topics often, many seldom, a few very short */
            unsigned which = (unsigned)(x % 3 == 0 ? (x >> 8) % 3000 : (x >> 8) % 10);
            snprintf(topic, sizeof topic, which % 100 == 50 ? "%u" : "topic/%u", which);
            known += send_one(aliases, twin, maxima[i], topic, (x >> 60) != 0);
        }
        assert_true(known > 0);
        sent_aliases_free(aliases);
    }
    free(twin);
}

static void test_what_is_used_stays(void **state)
{
    (void)state;
    struct twin *twin = calloc(1, sizeof *twin);
    struct sent_aliases *aliases = sent_aliases_new(8);
    unsigned known = 0;
    for (unsigned n = 0; n < 1000; n++) {
        char topic[24];
        /* one topic in every second message, the others all different */
        known += send_one(aliases, twin, 8, "often/used", true);
        snprintf(topic, sizeof topic, "once/%u", n);
        assert_false(send_one(aliases, twin, 8, topic, true));
    }
    assert_int_equal(known, 999);
    sent_aliases_free(aliases);
    free(twin);
}

static void test_no_alias_for(void **state)
{
    (void)state;
    struct sent_aliases *aliases = sent_aliases_new(10);
    char topic[SENT_ALIAS_TOPIC_BYTES_MAX + 2];
    memset(topic, 'a', sizeof topic);
    assert_int_equal(sent_aliases_find(aliases, chr_slice_of(topic, 3)).alias, 0);
    assert_int_equal(sent_aliases_find(aliases, chr_slice_of(topic, 4)).alias, 1);
    assert_int_equal(sent_aliases_find(aliases, chr_slice_of(topic, sizeof topic - 2)).alias, 1);
    assert_int_equal(sent_aliases_find(aliases, chr_slice_of(topic, sizeof topic - 1)).alias, 0);
    sent_aliases_free(aliases);
    sent_aliases_free(NULL);
}

/* A connection of the kit: the wire shows a topic once, and no alias on the next connection. */
static void test_end_with_the_connection(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "c");
    for (int connection = 0; connection < 2; connection++) {
        struct conn *conn = kit_connect(s, MQTT_V5);
        s->sent_aliases_max = connection == 0 ? 5 : 0;
        for (int i = 0; i < 2; i++) {
            struct message *m = kit_message("a/topic", "x", 0);
            session_deliver(s, m, 0, false, CHR_LIT(""));
            message_unref(m);
            struct mqtt_frame frame;
            struct mqtt_publish publish;
            struct mqtt_fault fault;
            assert_true(kit_sent(conn, &frame));
            assert_int_equal(mqtt_decode_publish(&frame, MQTT_V5, &publish, &fault), CHR_OK);
            assert_int_equal(publish.properties.topic_alias, connection == 0);
            assert_int_equal(publish.topic.len, connection == 0 && i == 1 ? 0 : 7);
        }
        kit_disconnect(s);
        assert_null(s->sent_aliases);
        assert_int_equal(s->sent_aliases_max, 0);
    }
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_knows_the_topic),
        cmocka_unit_test(test_what_is_used_stays),
        cmocka_unit_test(test_no_alias_for),
        cmocka_unit_test(test_end_with_the_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
