/* tests/fuzz/fuzz_mqtt.c: any bytes against every MQTT decoder.
 *
 * Input: one byte (bit 0: version 5.0, bit 1: sent by a server), then a stream of packets. What
 * decodes must hold its promises: fields agree with the property block, topics and filters are
 * valid, and encode(decode(x)) decodes to the same packet again. Seeds come from the rule files:
 *     CHR_CORPUS=dir test_proto_mqtt_rules
 * Build with -DFUZZ_CANARY to see the harness fail: it then takes 0x94 for an impossible fault. */
#include <stdint.h>

#include "base/utf8.h"
#include "proto/mqtt/fault.h"
#include "proto/mqtt/topic.h"
#include "tests/proto/mqtt_text.h"

#define CHECK(cond) ((cond) ? (void)0 : check_failed(#cond, __LINE__))

static void check_failed(const char *cond, int line)
{
    fprintf(stderr, "fuzz_mqtt.c:%d: %s\n", line, cond);
    abort();
}

static void check_topic(chr_slice topic)
{
    CHECK(mqtt_topic_name_valid(topic));
    CHECK(chr_utf8_valid_mqtt(topic) && !mqtt_topic_has_wildcard(topic));
    CHECK(mqtt_topic_matches(topic, topic));
    bool dollar = topic.ptr[0] == '$';
    CHECK(mqtt_topic_matches(CHR_LIT("#"), topic) == !dollar);
}

static void check_filter(chr_slice filter, chr_slice topic)
{
    chr_slice group, rest, level;
    CHECK(mqtt_topic_filter_valid(filter));
    int shared = mqtt_share_parse(filter, &group, &rest);
    CHECK(shared >= 0 || chr_slice_starts(filter, CHR_LIT("$share/")));
    if (shared > 0)
        CHECK(group.len > 0 && mqtt_topic_filter_valid(rest));
    struct mqtt_level_iter it = mqtt_level_iter(filter);
    size_t levels = 0;
    while (mqtt_level_next(&it, &level))
        levels++;
    CHECK(levels == mqtt_topic_levels(filter));
    if (topic.len)
        (void)mqtt_topic_matches(filter, topic);
}

static void check_content(const struct any_packet *any, chr_slice *last_topic)
{
    CHECK(any_properties_agree(any));
    struct mqtt_subscription s;
    chr_slice filter;
    switch (any->type) {
    case MQTT_CONNECT:
        CHECK(chr_utf8_valid_mqtt(any->u.connect.client_id));
        if (any->u.connect.has_will)
            check_topic(any->u.connect.will.topic);
        break;
    case MQTT_PUBLISH:
        CHECK((any->u.publish.qos == 0) == (any->u.publish.packet_id == 0));
        if (any->u.publish.topic.len) {
            check_topic(any->u.publish.topic);
            *last_topic = any->u.publish.topic;
        } else {
            CHECK(any->u.publish.properties.topic_alias);
        }
        break;
    case MQTT_SUBSCRIBE:
        for (struct mqtt_filter_iter it = {any->u.subscribe.filters};
             mqtt_subscribe_next(&it, &s);) {
            CHECK(s.qos <= 2 && s.retain_handling <= 2);
            check_filter(s.filter, *last_topic);
        }
        break;
    case MQTT_UNSUBSCRIBE:
        for (struct mqtt_filter_iter it = {any->u.unsubscribe.filters};
             mqtt_unsubscribe_next(&it, &filter);)
            check_filter(filter, *last_topic);
        break;
    default:
        break;
    }
}

/* encode, decode, encode: the same bytes. */
static void check_round_trip(const struct any_packet *any, enum mqtt_sender sender)
{
    size_t size = any_encode(NULL, 0, any);
    CHECK(size >= 2);
    uint8_t *once = (uint8_t *)malloc(size), *twice = (uint8_t *)malloc(size);
    CHECK(any_encode(once, size, any) == size);
    CHECK(any_encode(twice, size - 1, any) == 0);
    struct mqtt_frame frame;
    struct mqtt_fault fault;
    struct any_packet again;
    CHECK(mqtt_frame(chr_slice_of(once, size), (uint32_t)size, &frame) == (int)size);
    frame.sender = sender;
    CHECK(any_decode(&frame, any->version, &again, &fault) == CHR_OK);
    CHECK(any_encode(twice, size, &again) == size);
    CHECK(memcmp(once, twice, size) == 0);
    free(once);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    enum mqtt_version version = data[0] & 1 ? MQTT_V5 : MQTT_V311;
    enum mqtt_sender sender = data[0] & 2 ? MQTT_FROM_SERVER : MQTT_FROM_CLIENT;
    chr_slice in = chr_slice_of(data + 1, size - 1);
    chr_slice last_topic = {0};
    for (;;) {
        struct mqtt_frame frame;
        struct mqtt_fault fault = {0};
        int used = sender == MQTT_FROM_CLIENT ? mqtt_frame(in, 0, &frame)
                                              : mqtt_frame_from_server(in, 0, &frame);
        if (used == 0)
            return 0;
        if (used < 0) {
            mqtt_frame_fault(in, used, version, &fault);
            CHECK(fault.reason_code == MQTT_REASON_MALFORMED_PACKET && fault.rule && fault.text);
            return 0;
        }
        CHECK((size_t)used <= in.len && frame.body.ptr + frame.body.len == in.ptr + used);
        struct any_packet any;
        chr_err err = any_decode(&frame, version, &any, &fault);
        if (err) {
            CHECK(err < 0 && fault.reason_code >= 0x80 && fault.rule && fault.text);
#ifdef FUZZ_CANARY
            CHECK(fault.reason_code != MQTT_REASON_TOPIC_ALIAS_INVALID);
#endif
            (void)mqtt_unexpected_packet(&frame, version, &fault);
        } else {
            check_content(&any, &last_topic);
            check_round_trip(&any, sender);
        }
        in = chr_slice_of(in.ptr + used, in.len - (size_t)used);
    }
}
