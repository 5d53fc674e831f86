/* proto/mqtt/decode_connect.c: CONNECT, CONNACK, and the small packets around a connection
 * (PING, DISCONNECT, AUTH). */
#include "proto/mqtt/read.h"
#include "proto/mqtt/topic.h"

/* ---- CONNECT (3.1) -------------------------------------------------------------------------- */

enum {
    CONNECT_RESERVED = 0x01,
    CONNECT_CLEAN_START = 0x02,
    CONNECT_WILL = 0x04,
    CONNECT_WILL_QOS = 0x18,
    CONNECT_WILL_RETAIN = 0x20,
    CONNECT_PASSWORD = 0x40,
    CONNECT_USERNAME = 0x80,
};

/* Protocol name and level (3.1.2.1, 3.1.2.2). Sets connect->version and protocol_level in any case,
 * so that a refusal can be written. */
static int read_protocol(struct mqtt__reader *r, struct mqtt_connect *connect)
{
    connect->version = MQTT_V311;
    connect->protocol_level = 0;
    chr_slice name;
    if (!mqtt__read_bytes(r, &name))
        return MQTT_FAULT_STRING_TRUNCATED;
    bool levelled = mqtt__read_u8(r, &connect->protocol_level);
    /* The top bit is how Mosquitto's bridges introduce themselves; refused, they leave it out. */
    connect->version = (connect->protocol_level & 0x7f) >= MQTT_V5 ? MQTT_V5 : MQTT_V311;
    bool named = chr_slice_eq(name, CHR_LIT("MQTT"));
    if (!named && !chr_slice_eq(name, CHR_LIT("MQIsdp"))) /* MQIsdp: MQTT 3.1 */
        return MQTT_FAULT_PROTOCOL_NAME;
    if (!levelled)
        return MQTT_FAULT_INTEGER_TRUNCATED;
    return named && (connect->protocol_level == MQTT_V311 || connect->protocol_level == MQTT_V5)
               ? MQTT__OK
               : MQTT_FAULT_PROTOCOL_LEVEL;
}

static int check_connect_flags(uint8_t flags, enum mqtt_version version)
{
    if (flags & CONNECT_RESERVED)
        return MQTT_FAULT_CONNECT_RESERVED;
    if (flags & CONNECT_WILL) {
        if ((flags & CONNECT_WILL_QOS) == CONNECT_WILL_QOS)
            return MQTT_FAULT_WILL_QOS_3;
    } else {
        if (flags & CONNECT_WILL_QOS)
            return MQTT_FAULT_WILL_QOS_WITHOUT_WILL;
        if (flags & CONNECT_WILL_RETAIN)
            return MQTT_FAULT_WILL_RETAIN_WITHOUT_WILL;
    }
    /* 5.0 allows a password alone (3.1.2.9). */
    if (version == MQTT_V311 && (flags & CONNECT_PASSWORD) && !(flags & CONNECT_USERNAME))
        return MQTT_FAULT_PASSWORD_WITHOUT_USERNAME;
    return MQTT__OK;
}

static chr_err read_will(struct mqtt__reader *r, uint8_t flags, struct mqtt_connect *connect,
                         struct mqtt_fault *fault)
{
    enum mqtt_version version = connect->version;
    if (r->at == r->end)
        return mqtt__fail(fault, version, MQTT_FAULT_WILL_MISSING);
    connect->will.qos = (uint8_t)((flags & CONNECT_WILL_QOS) >> 3);
    connect->will.retain = flags & CONNECT_WILL_RETAIN;
    connect->will.properties = mqtt_properties_none;
    if (version == MQTT_V5) {
        chr_err err =
            mqtt__read_properties(r, MQTT_WILL, MQTT_FROM_CLIENT, &connect->will.properties, fault);
        if (err)
            return err;
    }
    if (r->at == r->end)
        return mqtt__fail(fault, version, MQTT_FAULT_WILL_MISSING);
    int bad = mqtt__read_string(r, &connect->will.topic);
    if (bad != MQTT__OK)
        return mqtt__fail(fault, version, (enum mqtt__fault_id)bad);
    if (connect->will.topic.len == 0)
        return mqtt__fail(fault, version, MQTT_FAULT_WILL_TOPIC_EMPTY);
    if (mqtt_topic_has_wildcard(connect->will.topic))
        return mqtt__fail(fault, version, MQTT_FAULT_WILL_TOPIC_WILDCARD);
    if (r->at == r->end)
        return mqtt__fail(fault, version, MQTT_FAULT_WILL_MISSING);
    if (!mqtt__read_bytes(r, &connect->will.payload))
        return mqtt__fail(fault, version, MQTT_FAULT_BINARY_TRUNCATED);
    return CHR_OK;
}

chr_err mqtt_decode_connect(const struct mqtt_frame *frame, struct mqtt_connect *connect,
                            struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    int bad = read_protocol(&r, connect);
    enum mqtt_version version = connect->version;
    if (frame->flags)
        bad = MQTT_FAULT_FIXED_FLAGS;
    uint8_t flags = 0;
    if (bad == MQTT__OK && !mqtt__read_u8(&r, &flags))
        bad = MQTT_FAULT_INTEGER_TRUNCATED;
    if (bad == MQTT__OK)
        bad = check_connect_flags(flags, version);
    if (bad == MQTT__OK && !mqtt__read_u16(&r, &connect->keep_alive_s))
        bad = MQTT_FAULT_INTEGER_TRUNCATED;
    if (bad != MQTT__OK)
        return mqtt__fail(fault, version, (enum mqtt__fault_id)bad);

    connect->clean_start = flags & CONNECT_CLEAN_START;
    connect->has_will = flags & CONNECT_WILL;
    connect->has_username = flags & CONNECT_USERNAME;
    connect->has_password = flags & CONNECT_PASSWORD;
    connect->username = connect->password = (chr_slice){0};
    connect->properties = mqtt_properties_none;
    if (version == MQTT_V5) {
        chr_err err =
            mqtt__read_properties(&r, MQTT_CONNECT, MQTT_FROM_CLIENT, &connect->properties, fault);
        if (err)
            return err;
        if (mqtt_has(&connect->properties, MQTT_PROPERTY_AUTHENTICATION_DATA) &&
            !mqtt_has(&connect->properties, MQTT_PROPERTY_AUTHENTICATION_METHOD))
            return mqtt__fail(fault, version, MQTT_FAULT_AUTH_DATA_ALONE);
    }

    /* Payload, in the order of 3.1.3 [MQTT-3.1.3-1]. */
    if (r.at == r.end)
        return mqtt__fail(fault, version, MQTT_FAULT_CLIENT_ID_MISSING);
    bad = mqtt__read_string(&r, &connect->client_id);
    if (bad != MQTT__OK)
        return mqtt__fail(fault, version, (enum mqtt__fault_id)bad);
    if (version == MQTT_V311 && connect->client_id.len == 0 && !connect->clean_start)
        return mqtt__fail(fault, version, MQTT_FAULT_CLIENT_ID_EMPTY);
    if (connect->has_will) {
        chr_err err = read_will(&r, flags, connect, fault);
        if (err)
            return err;
    }
    if (connect->has_username) {
        if (r.at == r.end)
            return mqtt__fail(fault, version, MQTT_FAULT_USERNAME_MISSING);
        bad = mqtt__read_string(&r, &connect->username);
        if (bad != MQTT__OK)
            return mqtt__fail(fault, version, (enum mqtt__fault_id)bad);
    }
    if (connect->has_password) {
        if (r.at == r.end)
            return mqtt__fail(fault, version, MQTT_FAULT_PASSWORD_MISSING);
        if (!mqtt__read_bytes(&r, &connect->password))
            return mqtt__fail(fault, version, MQTT_FAULT_BINARY_TRUNCATED);
    }
    if (r.at != r.end)
        return mqtt__fail(fault, version, MQTT_FAULT_CONNECT_TRAILING);
    return CHR_OK;
}

/* ---- CONNACK (3.2) -------------------------------------------------------------------------- */

chr_err mqtt_decode_connack(const struct mqtt_frame *frame, enum mqtt_version version,
                            struct mqtt_connack *connack, struct mqtt_fault *fault)
{
    static const uint8_t reason_of_return_code[] = {
        MQTT_REASON_SUCCESS,
        MQTT_REASON_UNSUPPORTED_PROTOCOL_VERSION,
        MQTT_REASON_CLIENT_ID_NOT_VALID,
        MQTT_REASON_SERVER_UNAVAILABLE,
        MQTT_REASON_BAD_USER_NAME_OR_PASSWORD,
        MQTT_REASON_NOT_AUTHORIZED,
    };
    struct mqtt__reader r = mqtt__reader(frame->body);
    uint8_t flags = 0;
    if (frame->flags)
        return mqtt__fail(fault, version, MQTT_FAULT_FIXED_FLAGS);
    if (!mqtt__read_u8(&r, &flags) || !mqtt__read_u8(&r, &connack->reason_code))
        return mqtt__fail(fault, version, MQTT_FAULT_INTEGER_TRUNCATED);
    if (flags & ~1u)
        return mqtt__fail(fault, version, MQTT_FAULT_CONNACK_FLAGS);
    connack->session_present = flags & 1;
    connack->properties = mqtt_properties_none;
    if (version == MQTT_V5) {
        if (!mqtt_reason_allowed(connack->reason_code, MQTT_CONNACK, frame->sender))
            return mqtt__fail(fault, version, MQTT_FAULT_CONNACK_REASON);
        chr_err err =
            mqtt__read_properties(&r, MQTT_CONNACK, frame->sender, &connack->properties, fault);
        if (err)
            return err;
    } else {
        if (connack->reason_code >= CHR_COUNT_OF(reason_of_return_code))
            return mqtt__fail(fault, version, MQTT_FAULT_CONNACK_REASON);
        connack->reason_code = reason_of_return_code[connack->reason_code];
    }
    if (connack->session_present && connack->reason_code != MQTT_REASON_SUCCESS)
        return mqtt__fail(fault, version, MQTT_FAULT_SESSION_PRESENT_REFUSED);
    if (r.at != r.end)
        return mqtt__fail(fault, version, MQTT_FAULT_TRAILING_BYTES);
    return CHR_OK;
}

/* ---- PINGREQ, PINGRESP (3.12, 3.13) --------------------------------------------------------- */

chr_err mqtt_decode_ping(const struct mqtt_frame *frame, enum mqtt_version version,
                         struct mqtt_fault *fault)
{
    if (frame->flags)
        return mqtt__fail(fault, version, MQTT_FAULT_FIXED_FLAGS);
    if (frame->body.len)
        return mqtt__fail(fault, version, MQTT_FAULT_TRAILING_BYTES);
    return CHR_OK;
}

/* ---- DISCONNECT (3.14) ---------------------------------------------------------------------- */

chr_err mqtt_decode_disconnect(const struct mqtt_frame *frame, enum mqtt_version version,
                               struct mqtt_disconnect *disconnect, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    disconnect->reason_code = MQTT_REASON_SUCCESS;
    disconnect->properties = mqtt_properties_none;
    if (frame->flags)
        return mqtt__fail(fault, version, MQTT_FAULT_DISCONNECT_FLAGS);
    if (version == MQTT_V5 && mqtt__read_u8(&r, &disconnect->reason_code)) {
        if (!mqtt_reason_allowed(disconnect->reason_code, MQTT_DISCONNECT, frame->sender))
            return mqtt__fail(fault, version, MQTT_FAULT_DISCONNECT_REASON);
        /* "If the Remaining Length is less than 2, a value of 0 is used" (3.14.2.2.1). */
        if (r.at != r.end) {
            chr_err err = mqtt__read_properties(&r, MQTT_DISCONNECT, frame->sender,
                                                &disconnect->properties, fault);
            if (err)
                return err;
        }
    }
    if (r.at != r.end)
        return mqtt__fail(fault, version, MQTT_FAULT_TRAILING_BYTES);
    return CHR_OK;
}

/* ---- AUTH (3.15) ---------------------------------------------------------------------------- */

chr_err mqtt_decode_auth(const struct mqtt_frame *frame, enum mqtt_version version,
                         struct mqtt_auth *auth, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    auth->reason_code = MQTT_REASON_SUCCESS;
    auth->properties = mqtt_properties_none;
    if (version != MQTT_V5)
        return mqtt__fail(fault, version, MQTT_FAULT_TYPE_RESERVED);
    if (frame->flags)
        return mqtt__fail(fault, version, MQTT_FAULT_AUTH_FLAGS);
    /* An empty AUTH is Success without properties (3.15.2.1), which only a server may say. */
    bool empty = !mqtt__read_u8(&r, &auth->reason_code);
    if (!mqtt_reason_allowed(auth->reason_code, MQTT_AUTH, frame->sender))
        return mqtt__fail(fault, version, MQTT_FAULT_AUTH_REASON);
    if (empty)
        return CHR_OK;
    chr_err err = mqtt__read_properties(&r, MQTT_AUTH, frame->sender, &auth->properties, fault);
    if (err)
        return err;
    if (!mqtt_has(&auth->properties, MQTT_PROPERTY_AUTHENTICATION_METHOD))
        return mqtt__fail(fault, version, MQTT_FAULT_AUTH_METHOD_MISSING);
    if (r.at != r.end)
        return mqtt__fail(fault, version, MQTT_FAULT_TRAILING_BYTES);
    return CHR_OK;
}

chr_err mqtt_unexpected_packet(const struct mqtt_frame *frame, enum mqtt_version version,
                               struct mqtt_fault *fault)
{
    switch (frame->type) {
    case MQTT_CONNECT:
        return mqtt__fail(fault, version, MQTT_FAULT_SECOND_CONNECT);
    case MQTT_AUTH:
        if (version != MQTT_V5)
            return mqtt__fail(fault, version, MQTT_FAULT_TYPE_RESERVED);
        return mqtt__fail(fault, version,
                          frame->flags ? MQTT_FAULT_AUTH_FLAGS : MQTT_FAULT_UNEXPECTED_AUTH);
    default:
        return mqtt__fail(fault, version, MQTT_FAULT_UNEXPECTED_PACKET);
    }
}
