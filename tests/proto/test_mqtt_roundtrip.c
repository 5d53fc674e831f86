/* tests/proto/test_mqtt_roundtrip.c: random valid packets survive encode and decode; mutated ones
 * are refused or understood, and never read past their end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "guard.h"
#include "random_packet.h"

static struct guard guard;
static uint64_t seed = 20240117;

static struct random_packets generator(uint64_t salt)
{
    struct random_packets g = {.random = {seed ^ salt}};
    chr_arena_init(&g.arena, 4 << 20, 64 << 20);
    return g;
}

/* Splits what a buffer starts with; the guard page is right behind `in`. */
static chr_err decode_first(chr_slice in, enum mqtt_sender sender, enum mqtt_version version,
                            struct any_packet *any, struct mqtt_fault *fault, int *used)
{
    struct mqtt_frame frame;
    *used = sender == MQTT_FROM_CLIENT ? mqtt_frame(in, 0, &frame)
                                       : mqtt_frame_from_server(in, 0, &frame);
    if (*used <= 0)
        return *used < 0 ? *used : CHR_EFULL;
    return any_decode(&frame, version, any, fault);
}

static void test_valid_packets(void **state)
{
    (void)state;
    struct random_packets g = generator(1);
    unsigned types[16] = {0};
    for (unsigned i = 0; i < 20000; i++) {
        enum mqtt_version version;
        enum mqtt_sender sender;
        chr_slice packet = random_packet(&g, &version, &sender);
        assert_true(packet.len > 0);
        chr_slice in = guard_copy(&guard, packet.ptr, packet.len);
        struct any_packet any;
        struct mqtt_fault fault = {0};
        int used;
        chr_err err = decode_first(in, sender, version, &any, &fault, &used);
        if (err || (size_t)used != packet.len)
            fail_msg("packet %u of seed %llu (%s): %s %s", i, (unsigned long long)seed,
                     mqtt_packet_name(packet.ptr[0] >> 4), fault.rule, fault.text);
        assert_true(any_properties_agree(&any));
        /* Random packets use no optional emptiness, so the bytes are the same again. */
        uint8_t *again = (uint8_t *)malloc(packet.len);
        assert_int_equal(any_encode(NULL, 0, &any), packet.len);
        assert_int_equal(any_encode(again, packet.len, &any), packet.len);
        assert_memory_equal(again, packet.ptr, packet.len);
        assert_int_equal(any_encode(again, packet.len - 1, &any), 0);
        free(again);
        types[any.type]++;
    }
    for (unsigned type = 1; type < 16; type++)
        assert_true(types[type] > 100);
    chr_arena_free(&g.arena);
}

/* Any prefix asks for more; byte by byte, the packet is found exactly when it is whole. */
static void test_byte_by_byte(void **state)
{
    (void)state;
    struct random_packets g = generator(2);
    for (unsigned i = 0; i < 300; i++) {
        enum mqtt_version version;
        enum mqtt_sender sender;
        chr_slice packet = random_packet(&g, &version, &sender);
        struct mqtt_frame frame;
        for (size_t len = 0; len < packet.len; len++) {
            chr_slice part = guard_copy(&guard, packet.ptr, len);
            assert_int_equal(mqtt_frame(part, 0, &frame), 0);
            assert_true(frame.packet_bytes == 0 || frame.packet_bytes == packet.len);
        }
        assert_int_equal(mqtt_frame(packet, 0, &frame), packet.len);
        /* The maximum is known to be passed from the header on. */
        size_t header = packet.len - frame.body.len;
        if (packet.len > header)
            assert_int_equal(
                mqtt_frame(chr_slice_of(packet.ptr, header), (uint32_t)packet.len - 1, &frame),
                CHR_ETOOBIG);
        assert_int_equal(mqtt_frame(packet, (uint32_t)packet.len, &frame), packet.len);
    }
    chr_arena_free(&g.arena);
}

static void test_mutated_packets(void **state)
{
    (void)state;
    struct random_packets g = generator(3);
    unsigned refused = 0, understood = 0;
    for (unsigned i = 0; i < 60000; i++) {
        enum mqtt_version version;
        enum mqtt_sender sender;
        chr_slice packet = random_packet(&g, &version, &sender);
        if (packet.len > guard.bytes)
            continue;
        chr_slice in = guard_copy(&guard, packet.ptr, packet.len);
        uint8_t *bytes = guard_end(&guard, packet.len);
        for (uint64_t n = 1 + below(&g, 3); n > 0; n--) {
            /* Mostly near the front, where the structure is. */
            size_t at = below(&g, chance(&g, 70) && in.len > 40 ? 40 : in.len);
            if (chance(&g, 50))
                bytes[at] ^= (uint8_t)(1u << below(&g, 8));
            else
                bytes[at] = (uint8_t)below(&g, 256);
        }
        struct any_packet any;
        struct mqtt_fault fault = {0};
        int used;
        chr_err err = decode_first(in, sender, version, &any, &fault, &used);
        if (used <= 0)
            continue;
        if (err) {
            assert_non_null(fault.rule);
            assert_non_null(fault.text);
            assert_true(fault.reason_code >= 0x80);
            refused++;
            continue;
        }
        understood++;
        assert_true(any_properties_agree(&any));
        size_t size = any_encode(NULL, 0, &any);
        assert_true(size > 0 && size <= (size_t)used);
        uint8_t *again = (uint8_t *)malloc(size);
        assert_int_equal(any_encode(again, size, &any), size);
        struct any_packet twice;
        assert_int_equal(
            decode_first(chr_slice_of(again, size), sender, any.version, &twice, &fault, &used), 0);
        assert_int_equal(used, size);
        free(again);
    }
    assert_true(refused > 1000 && understood > 1000);
    chr_arena_free(&g.arena);
}

/* What a server does with a message: alias and identifiers go, the rest stays verbatim. */
static void test_forwarding(void **state)
{
    (void)state;
    uint8_t block[256], kept[256], more[16], out[256];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    mqtt_put_user(&w, CHR_LIT("b"), CHR_LIT("2"));
    mqtt_put_number(&w, MQTT_PROPERTY_TOPIC_ALIAS, 7);
    mqtt_put_bytes(&w, MQTT_PROPERTY_CORRELATION_DATA, CHR_LIT("id"));
    mqtt_put_number(&w, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL, 60);
    mqtt_put_user(&w, CHR_LIT("a"), CHR_LIT("1"));
    struct mqtt_publish in = {.topic = CHR_LIT("t"), .payload = CHR_LIT("payload"), .qos = 1};
    in.packet_id = 5;
    in.properties.raw = mqtt_property_block(&w);
    uint8_t packet[256];
    size_t size = mqtt_encode_publish(packet, sizeof packet, MQTT_V5, &in);
    struct mqtt_frame frame;
    struct mqtt_publish got;
    struct mqtt_fault fault;
    assert_int_equal(mqtt_frame(chr_slice_of(packet, size), 0, &frame), size);
    assert_int_equal(mqtt_decode_publish(&frame, MQTT_V5, &got, &fault), CHR_OK);

    struct mqtt_property_writer k = mqtt_property_writer(kept, sizeof kept);
    mqtt_put_copy(&k, &got.properties, MQTT_PROPERTIES_FORWARDED);
    struct mqtt_property_writer m = mqtt_property_writer(more, sizeof more);
    mqtt_put_number(&m, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL, 59);
    mqtt_put_number(&m, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, 300);
    assert_false(k.failed || m.failed);
    got.properties.raw = mqtt_property_block(&k);
    size_t packet_bytes;
    size_t head_size =
        mqtt_encode_publish_head_size(MQTT_V5, &got, mqtt_property_block(&m), &packet_bytes);
    size_t head = mqtt_encode_publish_head(out, sizeof out, MQTT_V5, &got, mqtt_property_block(&m));
    assert_int_equal(head, head_size);
    assert_int_equal(head + got.payload.len, packet_bytes);
    assert_int_equal(
        mqtt_encode_publish_head(out, head - 1, MQTT_V5, &got, mqtt_property_block(&m)), 0);
    memcpy(out + head, got.payload.ptr, got.payload.len);

    struct any_packet any;
    assert_int_equal(mqtt_frame_from_server(chr_slice_of(out, packet_bytes), 0, &frame),
                     packet_bytes);
    assert_int_equal(any_decode(&frame, MQTT_V5, &any, &fault), CHR_OK);
    struct chr_buf text;
    chr_buf_init(&text, 4096);
    dump_packet(&text, &any);
    chr_buf_add_u8(&text, 0);
    assert_string_equal((const char *)text.ptr,
                        "PUBLISH qos=1 id=5 topic=\"t\" payload=\"payload\"\n"
                        "  User Property \"b\" = \"2\"\n"
                        "  Correlation Data \"id\"\n"
                        "  User Property \"a\" = \"1\"\n"
                        "  Message Expiry Interval 59\n"
                        "  Subscription Identifier 300\n");
    chr_buf_free(&text);

    /* A writer that runs out of room says so and stays inside its buffer. */
    struct mqtt_property_writer tiny = mqtt_property_writer(more, 4);
    mqtt_put_number(&tiny, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL, 1);
    assert_true(tiny.failed);
    mqtt_put_number(&tiny, MQTT_PROPERTY_TOPIC_ALIAS, 1);
    assert_true(tiny.failed);
    assert_int_equal(mqtt_property_block(&tiny).len, 0);
}

/* What an encoder cannot say, it does not say. */
static void test_impossible(void **state)
{
    (void)state;
    static uint8_t big[70000], out[80000];
    struct mqtt_publish p = {.topic = chr_slice_of(big, 65536)};
    assert_int_equal(mqtt_encode_publish_size(MQTT_V5, &p), 0);
    assert_int_equal(mqtt_encode_publish(out, sizeof out, MQTT_V5, &p), 0);
    p.topic.len = 65535;
    assert_int_equal(mqtt_encode_publish_size(MQTT_V311, &p), 1 + 3 + 2 + 65535);
    assert_int_equal(mqtt_encode_publish(out, sizeof out, MQTT_V311, &p), 1 + 3 + 2 + 65535);
    p.topic.len = 1; /* the greatest packet: sizes only, nothing is read */
    p.payload = chr_slice_of(big, MQTT_REMAINING_LENGTH_MAX - 3);
    assert_int_equal(mqtt_encode_publish_size(MQTT_V311, &p), MQTT_PACKET_BYTES_MAX);
    p.payload.len++;
    assert_int_equal(mqtt_encode_publish_size(MQTT_V311, &p), 0);
    struct mqtt_connack refused = {.reason_code = MQTT_REASON_MALFORMED_PACKET};
    assert_int_equal(mqtt_encode_connack_size(MQTT_V311, &refused), 0);
    assert_int_equal(mqtt_encode_connack_size(MQTT_V5, &refused), 5);
}

static void test_acknowledgements(void **state)
{
    (void)state;
    uint8_t out[MQTT_ACK_BYTES_MAX];
    assert_int_equal(mqtt_encode_puback(out, MQTT_V5, 0x1234, MQTT_REASON_SUCCESS), 4);
    assert_memory_equal(out, "\x40\x02\x12\x34", 4);
    assert_int_equal(mqtt_encode_puback(out, MQTT_V5, 1, MQTT_REASON_QUOTA_EXCEEDED), 5);
    assert_memory_equal(out, "\x40\x03\x00\x01\x97", 5);
    assert_int_equal(mqtt_encode_puback(out, MQTT_V311, 1, MQTT_REASON_QUOTA_EXCEEDED), 4);
    assert_memory_equal(out, "\x40\x02\x00\x01", 4);
    assert_int_equal(mqtt_encode_pubrec(out, MQTT_V5, 1, 0), 4);
    assert_memory_equal(out, "\x50\x02\x00\x01", 4);
    assert_int_equal(mqtt_encode_pubrel(out, MQTT_V5, 1, 0), 4);
    assert_memory_equal(out, "\x62\x02\x00\x01", 4);
    assert_int_equal(mqtt_encode_pubcomp(out, MQTT_V5, 1, MQTT_REASON_PACKET_ID_NOT_FOUND), 5);
    assert_memory_equal(out, "\x70\x03\x00\x01\x92", 5);
    assert_int_equal(mqtt_encode_pingresp(out), 2);
    assert_memory_equal(out, "\xd0\x00", 2);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seed = strtoull(argv[1], NULL, 0);
    printf("seed %llu\n", (unsigned long long)seed);
    guard = guard_open(1 << 20);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid_packets),   cmocka_unit_test(test_byte_by_byte),
        cmocka_unit_test(test_mutated_packets), cmocka_unit_test(test_forwarding),
        cmocka_unit_test(test_impossible),      cmocka_unit_test(test_acknowledgements),
    };
    int failed = cmocka_run_group_tests_name("mqtt round trip", tests, NULL, NULL);
    guard_close(&guard);
    return failed;
}
