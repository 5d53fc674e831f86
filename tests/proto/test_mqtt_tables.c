/* tests/proto/test_mqtt_tables.c: the tables of the standard, typed a second time and compared with
 * what the decoders do, for every combination. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mqtt_text.h"
#include "proto/mqtt/fault.h"

/* ---- Table 2-4: properties ------------------------------------------------------------------ */

/* A value of each type that is right for every property of it. */
static const struct {
    unsigned id;
    const char *value;   /* as in mqtt_text.h */
    const char *packets; /* names, "Will" for Will properties */
} properties[] = {
    {0x01, "01", "PUBLISH Will"},
    {0x02, "00000001", "PUBLISH Will"},
    {0x03, "s'x'", "PUBLISH Will"},
    {0x08, "s'x'", "PUBLISH Will"},
    {0x09, "s'x'", "PUBLISH Will"},
    {0x0B, "01", "PUBLISH SUBSCRIBE"},
    {0x11, "00000001", "CONNECT CONNACK DISCONNECT"},
    {0x12, "s'x'", "CONNACK"},
    {0x13, "0001", "CONNACK"},
    {0x15, "s'x'", "CONNECT CONNACK AUTH"},
    {0x16, "s'x'", "CONNECT CONNACK AUTH"},
    {0x17, "01", "CONNECT"},
    {0x18, "00000001", "Will"},
    {0x19, "01", "CONNECT"},
    {0x1A, "s'x'", "CONNACK"},
    {0x1C, "s'x'", "CONNACK DISCONNECT"},
    {0x1F, "s'x'", "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH"},
    {0x21, "0001", "CONNECT CONNACK"},
    {0x22, "0001", "CONNECT CONNACK"},
    {0x23, "0001", "PUBLISH"},
    {0x24, "01", "CONNACK"},
    {0x25, "01", "CONNACK"},
    {0x26, "s'k' s'v'",
     "CONNECT CONNACK PUBLISH Will PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE "
     "UNSUBACK DISCONNECT AUTH"},
    {0x27, "00000001", "CONNECT CONNACK"},
    {0x28, "01", "CONNACK"},
    {0x29, "01", "CONNACK"},
    {0x2A, "01", "CONNACK"},
};

/* The least packet around a property block. */
static const struct {
    const char *name;
    unsigned type;
    enum mqtt_sender sender;
    const char *before, *after;
} carriers[] = {
    {"CONNECT", MQTT_CONNECT, MQTT_FROM_CLIENT, "10 <s'MQTT' 05 02 003c <", "> s'c'>"},
    {"Will", MQTT_CONNECT, MQTT_FROM_CLIENT, "10 <s'MQTT' 05 06 003c <> s'c' <", "> s'w' s''>"},
    {"CONNACK", MQTT_CONNACK, MQTT_FROM_SERVER, "20 <00 00 <", ">>"},
    {"PUBLISH", MQTT_PUBLISH, MQTT_FROM_CLIENT, "30 <s'a' <", ">>"},
    {"PUBLISH", MQTT_PUBLISH, MQTT_FROM_SERVER, "30 <s'a' <", ">>"},
    {"PUBACK", MQTT_PUBACK, MQTT_FROM_CLIENT, "40 <0001 00 <", ">>"},
    {"PUBREC", MQTT_PUBREC, MQTT_FROM_SERVER, "50 <0001 00 <", ">>"},
    {"PUBREL", MQTT_PUBREL, MQTT_FROM_CLIENT, "62 <0001 00 <", ">>"},
    {"PUBCOMP", MQTT_PUBCOMP, MQTT_FROM_SERVER, "70 <0001 00 <", ">>"},
    {"SUBSCRIBE", MQTT_SUBSCRIBE, MQTT_FROM_CLIENT, "82 <0001 <", "> s'a' 00>"},
    {"SUBACK", MQTT_SUBACK, MQTT_FROM_SERVER, "90 <0001 <", "> 00>"},
    {"UNSUBSCRIBE", MQTT_UNSUBSCRIBE, MQTT_FROM_CLIENT, "a2 <0001 <", "> s'a'>"},
    {"UNSUBACK", MQTT_UNSUBACK, MQTT_FROM_SERVER, "b0 <0001 <", "> 00>"},
    {"DISCONNECT", MQTT_DISCONNECT, MQTT_FROM_CLIENT, "e0 <00 <", ">>"},
    {"DISCONNECT", MQTT_DISCONNECT, MQTT_FROM_SERVER, "e0 <00 <", ">>"},
    {"AUTH", MQTT_AUTH, MQTT_FROM_CLIENT, "f0 <18 <", ">>"},
};

static bool has_word(const char *words, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += len)
        if ((at == words || at[-1] == ' ') && (at[len] == ' ' || at[len] == 0))
            return true;
    return false;
}

static chr_err decode(const char *text, enum mqtt_version version, enum mqtt_sender sender,
                      struct mqtt_fault *fault)
{
    struct chr_buf bytes;
    chr_buf_init(&bytes, 4096);
    const char *end = text_to_bytes(text, &bytes);
    assert_true(end && !*end);
    struct mqtt_frame frame;
    assert_int_equal(mqtt_frame(chr_buf_slice(&bytes), 0, &frame), bytes.len);
    frame.sender = sender;
    struct any_packet any;
    chr_err err = any_decode(&frame, version, &any, fault);
    chr_buf_free(&bytes);
    return err;
}

static void test_every_property_everywhere(void **state)
{
    (void)state;
    unsigned allowed_count = 0, refused_count = 0;
    for (size_t c = 0; c < CHR_COUNT_OF(carriers); c++) {
        bool will = !strcmp(carriers[c].name, "Will");
        for (unsigned id = 0; id < 128; id++) {
            const char *value = "00000000";
            bool allowed = false;
            for (size_t i = 0; i < CHR_COUNT_OF(properties); i++) {
                if (properties[i].id == id) {
                    value = properties[i].value;
                    allowed = has_word(properties[i].packets, carriers[c].name);
                }
            }
            /* What a packet needs beside: AUTH a method, Authentication Data its method. */
            bool needs_method =
                id != 0x15 && (carriers[c].type == MQTT_AUTH ||
                               (carriers[c].type == MQTT_CONNECT && id == 0x16 && !will));
            bool wrong_side = (id == 0x0B && carriers[c].type == MQTT_PUBLISH &&
                               carriers[c].sender == MQTT_FROM_CLIENT) ||
                              (id == 0x11 && carriers[c].type == MQTT_DISCONNECT &&
                               carriers[c].sender == MQTT_FROM_SERVER) ||
                              (id == 0x1C && carriers[c].type == MQTT_DISCONNECT &&
                               carriers[c].sender == MQTT_FROM_CLIENT);
            char once[512], twice[512];
            struct mqtt_fault fault = {0};
            snprintf(once, sizeof once, "%s%s %02x %s%s", carriers[c].before,
                     needs_method ? "15 s'm'" : "", id, value, carriers[c].after);
            chr_err err = decode(once, MQTT_V5, carriers[c].sender, &fault);
            if (!allowed) {
                assert_int_equal(err, CHR_EMALFORMED);
                assert_string_equal(fault.rule, "2.2.2.2");
                refused_count++;
                continue;
            }
            if (wrong_side) {
                assert_int_equal(err, CHR_EPROTO);
                refused_count++;
                continue;
            }
            if (err)
                fail_msg("%s: %s %s", once, fault.rule, fault.text);
            allowed_count++;

            snprintf(twice, sizeof twice, "%s%s %02x %s %02x %s%s", carriers[c].before,
                     needs_method ? "15 s'm'" : "", id, value, id, value, carriers[c].after);
            err = decode(twice, MQTT_V5, carriers[c].sender, &fault);
            bool repeats = id == 0x26 || (id == 0x0B && carriers[c].type == MQTT_PUBLISH);
            if (repeats) {
                assert_int_equal(err, CHR_OK);
            } else {
                assert_int_equal(err, CHR_EPROTO);
                assert_int_equal(fault.reason_code, MQTT_REASON_PROTOCOL_ERROR);
                /* Cited by the section of its own, which starts with that of its packet. */
                assert_string_not_equal(fault.rule, "2.2.2.2");
                char section[8];
                snprintf(section, sizeof section, "3.%u.", carriers[c].type);
                assert_int_equal(strncmp(fault.rule, section, strlen(section)), 0);
            }
        }
    }
    printf("%u allowed, %u refused\n", allowed_count, refused_count);
    assert_true(allowed_count > 60);
}

/* ---- Table 2-6: reason codes ---------------------------------------------------------------- */

/* Rows of the table; DISCONNECT as c (client), s (server) or both, AUTH likewise. */
static const struct {
    unsigned code;
    const char *packets;
    const char *disconnect, *auth;
} reasons[] = {
    {0x00, "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK", "cs", "s"},
    {0x01, "SUBACK", "", ""},
    {0x02, "SUBACK", "", ""},
    {0x04, "", "c", ""},
    {0x10, "PUBACK PUBREC", "", ""},
    {0x11, "UNSUBACK", "", ""},
    {0x18, "", "", "cs"},
    {0x19, "", "", "c"},
    {0x80, "CONNACK PUBACK PUBREC SUBACK UNSUBACK", "cs", ""},
    {0x81, "CONNACK", "cs", ""},
    {0x82, "CONNACK", "cs", ""},
    {0x83, "CONNACK PUBACK PUBREC SUBACK UNSUBACK", "cs", ""},
    {0x84, "CONNACK", "", ""},
    {0x85, "CONNACK", "", ""},
    {0x86, "CONNACK", "", ""},
    {0x87, "CONNACK PUBACK PUBREC SUBACK UNSUBACK", "s", ""},
    {0x88, "CONNACK", "", ""},
    {0x89, "CONNACK", "s", ""},
    {0x8A, "CONNACK", "", ""},
    {0x8B, "", "s", ""},
    {0x8C, "CONNACK", "s", ""},
    {0x8D, "", "s", ""},
    {0x8E, "", "s", ""},
    {0x8F, "SUBACK UNSUBACK", "s", ""},
    {0x90, "CONNACK PUBACK PUBREC", "cs", ""},
    {0x91, "PUBACK PUBREC SUBACK UNSUBACK", "", ""},
    {0x92, "PUBREL PUBCOMP", "", ""},
    {0x93, "", "cs", ""},
    {0x94, "", "cs", ""},
    {0x95, "CONNACK", "cs", ""},
    {0x96, "", "cs", ""},
    {0x97, "CONNACK PUBACK PUBREC SUBACK", "cs", ""},
    {0x98, "", "cs", ""},
    {0x99, "CONNACK PUBACK PUBREC", "cs", ""},
    {0x9A, "CONNACK", "s", ""},
    {0x9B, "CONNACK", "s", ""},
    {0x9C, "CONNACK", "s", ""},
    {0x9D, "CONNACK", "s", ""},
    {0x9E, "SUBACK", "s", ""},
    {0x9F, "CONNACK", "s", ""},
    {0xA0, "", "s", ""},
    {0xA1, "SUBACK", "s", ""},
    {0xA2, "SUBACK", "s", ""},
};

static void test_every_reason_everywhere(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *format; /* of the code */
        const char *rule;
    } packets[] = {
        {"CONNACK", "20 <00 %02x <>>", "MQTT-3.2.2-8"},
        {"PUBACK", "40 <0001 %02x>", "MQTT-3.4.2-1"},
        {"PUBREC", "50 <0001 %02x>", "MQTT-3.5.2-1"},
        {"PUBREL", "62 <0001 %02x>", "MQTT-3.6.2-1"},
        {"PUBCOMP", "70 <0001 %02x>", "MQTT-3.7.2-1"},
        {"SUBACK", "90 <0001 <> %02x>", "MQTT-3.9.3-2"},
        {"UNSUBACK", "b0 <0001 <> %02x>", "MQTT-3.11.3-2"},
        {"DISCONNECT", "e0 <%02x>", "MQTT-3.14.2-1"},
        {"AUTH", "f0 <%02x <15 s'm'>>", "MQTT-3.15.2-1"},
    };
    for (size_t p = 0; p < CHR_COUNT_OF(packets); p++) {
        for (unsigned code = 0; code < 256; code++) {
            for (unsigned sender = 0; sender < 2; sender++) {
                bool allowed = false;
                for (size_t i = 0; i < CHR_COUNT_OF(reasons); i++) {
                    if (reasons[i].code != code)
                        continue;
                    char side = "cs"[sender];
                    allowed = !strcmp(packets[p].name, "DISCONNECT")
                                  ? strchr(reasons[i].disconnect, side) != NULL
                              : !strcmp(packets[p].name, "AUTH")
                                  ? strchr(reasons[i].auth, side) != NULL
                                  : has_word(reasons[i].packets, packets[p].name);
                }
                char text[128];
                struct mqtt_fault fault = {0};
                snprintf(text, sizeof text, packets[p].format, code);
                chr_err err = decode(text, MQTT_V5, (enum mqtt_sender)sender, &fault);
                if ((err == CHR_OK) != allowed)
                    fail_msg("%s from %s: %s", text, sender ? "server" : "client",
                             err ? fault.text : "accepted");
                if (!allowed)
                    assert_string_equal(fault.rule, packets[p].rule);
            }
        }
    }
    for (size_t i = 0; i < CHR_COUNT_OF(reasons); i++)
        assert_string_not_equal(mqtt_reason_text((uint8_t)reasons[i].code), "Unknown reason code");
    assert_string_equal(mqtt_reason_text(0x8B), "Server shutting down");
    assert_string_equal(mqtt_reason_text(0xA3), "Unknown reason code");
}

/* ---- Table 2-2: flags ----------------------------------------------------------------------- */

static void test_every_flag_everywhere(void **state)
{
    (void)state;
    static const struct {
        unsigned type;
        const char *body5, *body311;
    } packets[] = {
        {MQTT_CONNECT, "<s'MQTT' 05 02 003c <> s'c'>", "<s'MQTT' 04 02 003c s'c'>"},
        {MQTT_CONNACK, "<00 00 <>>", "<00 00>"},
        {MQTT_PUBLISH, "<s'a' 0001 <>>", "<s'a' 0001>"},
        {MQTT_PUBACK, "<0001>", "<0001>"},
        {MQTT_PUBREC, "<0001>", "<0001>"},
        {MQTT_PUBREL, "<0001>", "<0001>"},
        {MQTT_PUBCOMP, "<0001>", "<0001>"},
        {MQTT_SUBSCRIBE, "<0001 <> s'a' 00>", "<0001 s'a' 00>"},
        {MQTT_SUBACK, "<0001 <> 00>", "<0001 00>"},
        {MQTT_UNSUBSCRIBE, "<0001 <> s'a'>", "<0001 s'a'>"},
        {MQTT_UNSUBACK, "<0001 <> 00>", "<0001>"},
        {MQTT_PINGREQ, "<>", "<>"},
        {MQTT_PINGRESP, "<>", "<>"},
        {MQTT_DISCONNECT, "<>", "<>"},
        {MQTT_AUTH, "<18 <15 s'm'>>", NULL},
    };
    for (size_t p = 0; p < CHR_COUNT_OF(packets); p++) {
        for (unsigned flags = 0; flags < 16; flags++) {
            for (unsigned v5 = 0; v5 < 2; v5++) {
                const char *body = v5 ? packets[p].body5 : packets[p].body311;
                if (!body)
                    continue;
                unsigned type = packets[p].type;
                bool needs_2 =
                    type == MQTT_PUBREL || type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE;
                unsigned qos = flags >> 1 & 3;
                bool allowed = type == MQTT_PUBLISH ? qos != 3 && !(qos == 0 && (flags & 8))
                                                    : flags == (needs_2 ? 2u : 0u);
                if (type == MQTT_PUBLISH && qos == 0)
                    body = v5 ? "<s'a' <>>" : "<s'a'>";
                char text[128];
                struct mqtt_fault fault = {0};
                snprintf(text, sizeof text, "%x%x %s", type, flags, body);
                chr_err err = decode(text, v5 ? MQTT_V5 : MQTT_V311, MQTT_FROM_CLIENT, &fault);
                if ((err == CHR_OK) != allowed)
                    fail_msg("%s (%s): %s", text, v5 ? "5.0" : "3.1.1",
                             err ? fault.text : "accepted");
            }
        }
    }
}

/* ---- Variable Byte Integers ----------------------------------------------------------------- */

static void test_varints(void **state)
{
    (void)state;
    static const uint32_t values[] = {0,     1,       127,     128,       16383,
                                      16384, 2097151, 2097152, 268435454, 268435455};
    static const size_t sizes[] = {1, 1, 1, 2, 2, 3, 3, 4, 4, 4};
    for (size_t i = 0; i < CHR_COUNT_OF(values); i++) {
        uint8_t bytes[8] = {MQTT_PUBLISH << 4};
        size_t used = (size_t)(mqtt_varint_put(bytes + 1, values[i]) - bytes - 1);
        assert_int_equal(used, sizes[i]);
        assert_int_equal(mqtt_varint_bytes(values[i]), sizes[i]);
        struct mqtt_frame frame;
        if (values[i])
            assert_int_equal(mqtt_frame(chr_slice_of(bytes, 1 + used), 0, &frame), 0);
        else
            assert_int_equal(mqtt_frame(chr_slice_of(bytes, 1 + used), 0, &frame), 2);
        assert_int_equal(frame.packet_bytes, 1 + used + values[i]);
        /* One byte longer than need be. */
        if (used < 4) {
            bytes[used] |= 0x80;
            bytes[used + 1] = 0;
            assert_int_equal(mqtt_frame(chr_slice_of(bytes, 2 + used), 0, &frame), CHR_EMALFORMED);
        }
    }
}

static void test_return_codes(void **state)
{
    (void)state;
    /* Codes that 3.1.1 has too; all others close without a CONNACK or are "unavailable". */
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_SUCCESS), 0);
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_UNSUPPORTED_PROTOCOL_VERSION), 1);
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_CLIENT_ID_NOT_VALID), 2);
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_SERVER_UNAVAILABLE), 3);
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_BAD_USER_NAME_OR_PASSWORD), 4);
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_NOT_AUTHORIZED), 5);
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_MALFORMED_PACKET), MQTT_NO_RETURN_CODE);
    assert_int_equal(mqtt_connack_return_code(MQTT_REASON_PROTOCOL_ERROR), MQTT_NO_RETURN_CODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_property_everywhere),
        cmocka_unit_test(test_every_reason_everywhere),
        cmocka_unit_test(test_every_flag_everywhere),
        cmocka_unit_test(test_varints),
        cmocka_unit_test(test_return_codes),
    };
    return cmocka_run_group_tests_name("mqtt tables", tests, NULL, NULL);
}
