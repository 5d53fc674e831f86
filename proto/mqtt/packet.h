/* proto/mqtt/packet.h: what MQTT 3.1.1 and 5.0 packets are, as structs.
 *
 * One struct per packet serves both directions and both versions. Decoding (decode.h) fills it with
 * slices that point into the input bytes: nothing is copied, nothing is allocated, and the struct
 * is good for as long as those bytes stay where they are. Encoding (encode.h) reads the same
 * struct.
 *
 * Properties exist in 5.0 only; a decoded 3.1.1 packet has none, which reads as "each property has
 * its default". What needs memory of earlier packets (is this alias known, is this packet
 * identifier in use, are the receiver's limits kept) is the session's business, not decided here.
 *
 * Names keep clear of <mqtt_protocol.h> of libmosquitto (MQTT_PROP_, MQTT_RC_), so that one file
 * may include both. */
#ifndef CHR_PROTO_MQTT_PACKET_H
#define CHR_PROTO_MQTT_PACKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* ---- Packet types, versions, senders -------------------------------------------------------- */

/* The high four bits of the first byte (2.1.2). 0 is reserved, and so is 15 in 3.1.1. */
enum mqtt_packet_type {
    MQTT_CONNECT = 1,
    MQTT_CONNACK = 2,
    MQTT_PUBLISH = 3,
    MQTT_PUBACK = 4,
    MQTT_PUBREC = 5,
    MQTT_PUBREL = 6,
    MQTT_PUBCOMP = 7,
    MQTT_SUBSCRIBE = 8,
    MQTT_SUBACK = 9,
    MQTT_UNSUBSCRIBE = 10,
    MQTT_UNSUBACK = 11,
    MQTT_PINGREQ = 12,
    MQTT_PINGRESP = 13,
    MQTT_DISCONNECT = 14,
    MQTT_AUTH = 15, /* 5.0 only */
};

/* The protocol level of CONNECT. MQTT 3.1 ("MQIsdp", level 3) is refused as 3.1.1 asks: CONNACK
 * with return code 0x01. */
enum mqtt_version {
    MQTT_V311 = 4,
    MQTT_V5 = 5,
};

/* Some packets go both ways under different rules: only servers may send a Subscription Identifier
 * in PUBLISH, only clients a Session Expiry Interval in DISCONNECT. */
enum mqtt_sender {
    MQTT_FROM_CLIENT = 0,
    MQTT_FROM_SERVER = 1,
};

/* The largest Remaining Length (four bytes of seven bits), the largest packet, the longest string
 * and the largest Variable Byte Integer. */
#define MQTT_REMAINING_LENGTH_MAX 268435455u
#define MQTT_PACKET_BYTES_MAX     (MQTT_REMAINING_LENGTH_MAX + 5u)
#define MQTT_STRING_BYTES_MAX     65535u
#define MQTT_VARINT_MAX           268435455u

/* A set of packet types, for the tables below. A Will counts as a packet type of its own (0):
 * its properties sit inside CONNECT but follow their own list. */
#define MQTT_SET(type) (1u << (type))
#define MQTT_WILL      0

/* ---- Reason codes (5.0, 2.4) ---------------------------------------------------------------- */

/* X(name, code, text, packets that may carry it). 0x00 is also "Normal disconnection" and "Granted
 * QoS 0". */
#define MQTT_REASONS(X)                                                                            \
    X(SUCCESS, 0x00, "Success",                                                                    \
      MQTT__ACKS | MQTT__CONNACK | MQTT__SUBACK | MQTT__UNSUBACK | MQTT__DISCONNECT | MQTT__AUTH)  \
    X(GRANTED_QOS_1, 0x01, "Granted QoS 1", MQTT__SUBACK)                                          \
    X(GRANTED_QOS_2, 0x02, "Granted QoS 2", MQTT__SUBACK)                                          \
    X(DISCONNECT_WITH_WILL, 0x04, "Disconnect with Will Message", MQTT__DISCONNECT)                \
    X(NO_MATCHING_SUBSCRIBERS, 0x10, "No matching subscribers", MQTT__PUBACK_PUBREC)               \
    X(NO_SUBSCRIPTION_EXISTED, 0x11, "No subscription existed", MQTT__UNSUBACK)                    \
    X(CONTINUE_AUTHENTICATION, 0x18, "Continue authentication", MQTT__AUTH)                        \
    X(RE_AUTHENTICATE, 0x19, "Re-authenticate", MQTT__AUTH)                                        \
    X(UNSPECIFIED_ERROR, 0x80, "Unspecified error",                                                \
      MQTT__CONNACK | MQTT__PUBACK_PUBREC | MQTT__SUBACK | MQTT__UNSUBACK | MQTT__DISCONNECT)      \
    X(MALFORMED_PACKET, 0x81, "Malformed Packet", MQTT__CONNACK | MQTT__DISCONNECT)                \
    X(PROTOCOL_ERROR, 0x82, "Protocol Error", MQTT__CONNACK | MQTT__DISCONNECT)                    \
    X(IMPLEMENTATION_SPECIFIC, 0x83, "Implementation specific error",                              \
      MQTT__CONNACK | MQTT__PUBACK_PUBREC | MQTT__SUBACK | MQTT__UNSUBACK | MQTT__DISCONNECT)      \
    X(UNSUPPORTED_PROTOCOL_VERSION, 0x84, "Unsupported Protocol Version", MQTT__CONNACK)           \
    X(CLIENT_ID_NOT_VALID, 0x85, "Client Identifier not valid", MQTT__CONNACK)                     \
    X(BAD_USER_NAME_OR_PASSWORD, 0x86, "Bad User Name or Password", MQTT__CONNACK)                 \
    X(NOT_AUTHORIZED, 0x87, "Not authorized",                                                      \
      MQTT__CONNACK | MQTT__PUBACK_PUBREC | MQTT__SUBACK | MQTT__UNSUBACK | MQTT__DISCONNECT)      \
    X(SERVER_UNAVAILABLE, 0x88, "Server unavailable", MQTT__CONNACK)                               \
    X(SERVER_BUSY, 0x89, "Server busy", MQTT__CONNACK | MQTT__DISCONNECT)                          \
    X(BANNED, 0x8A, "Banned", MQTT__CONNACK)                                                       \
    X(SERVER_SHUTTING_DOWN, 0x8B, "Server shutting down", MQTT__DISCONNECT)                        \
    X(BAD_AUTHENTICATION_METHOD, 0x8C, "Bad authentication method",                                \
      MQTT__CONNACK | MQTT__DISCONNECT)                                                            \
    X(KEEP_ALIVE_TIMEOUT, 0x8D, "Keep Alive timeout", MQTT__DISCONNECT)                            \
    X(SESSION_TAKEN_OVER, 0x8E, "Session taken over", MQTT__DISCONNECT)                            \
    X(TOPIC_FILTER_INVALID, 0x8F, "Topic Filter invalid",                                          \
      MQTT__SUBACK | MQTT__UNSUBACK | MQTT__DISCONNECT)                                            \
    X(TOPIC_NAME_INVALID, 0x90, "Topic Name invalid",                                              \
      MQTT__CONNACK | MQTT__PUBACK_PUBREC | MQTT__DISCONNECT)                                      \
    X(PACKET_ID_IN_USE, 0x91, "Packet Identifier in use",                                          \
      MQTT__PUBACK_PUBREC | MQTT__SUBACK | MQTT__UNSUBACK)                                         \
    X(PACKET_ID_NOT_FOUND, 0x92, "Packet Identifier not found",                                    \
      MQTT_SET(MQTT_PUBREL) | MQTT_SET(MQTT_PUBCOMP))                                              \
    X(RECEIVE_MAXIMUM_EXCEEDED, 0x93, "Receive Maximum exceeded", MQTT__DISCONNECT)                \
    X(TOPIC_ALIAS_INVALID, 0x94, "Topic Alias invalid", MQTT__DISCONNECT)                          \
    X(PACKET_TOO_LARGE, 0x95, "Packet too large", MQTT__CONNACK | MQTT__DISCONNECT)                \
    X(MESSAGE_RATE_TOO_HIGH, 0x96, "Message rate too high", MQTT__DISCONNECT)                      \
    X(QUOTA_EXCEEDED, 0x97, "Quota exceeded",                                                      \
      MQTT__CONNACK | MQTT__PUBACK_PUBREC | MQTT__SUBACK | MQTT__DISCONNECT)                       \
    X(ADMINISTRATIVE_ACTION, 0x98, "Administrative action", MQTT__DISCONNECT)                      \
    X(PAYLOAD_FORMAT_INVALID, 0x99, "Payload format invalid",                                      \
      MQTT__CONNACK | MQTT__PUBACK_PUBREC | MQTT__DISCONNECT)                                      \
    X(RETAIN_NOT_SUPPORTED, 0x9A, "Retain not supported", MQTT__CONNACK | MQTT__DISCONNECT)        \
    X(QOS_NOT_SUPPORTED, 0x9B, "QoS not supported", MQTT__CONNACK | MQTT__DISCONNECT)              \
    X(USE_ANOTHER_SERVER, 0x9C, "Use another server", MQTT__CONNACK | MQTT__DISCONNECT)            \
    X(SERVER_MOVED, 0x9D, "Server moved", MQTT__CONNACK | MQTT__DISCONNECT)                        \
    X(SHARED_SUBSCRIPTIONS_NOT_SUPPORTED, 0x9E, "Shared Subscriptions not supported",              \
      MQTT__SUBACK | MQTT__DISCONNECT)                                                             \
    X(CONNECTION_RATE_EXCEEDED, 0x9F, "Connection rate exceeded",                                  \
      MQTT__CONNACK | MQTT__DISCONNECT)                                                            \
    X(MAXIMUM_CONNECT_TIME, 0xA0, "Maximum connect time", MQTT__DISCONNECT)                        \
    X(SUBSCRIPTION_IDS_NOT_SUPPORTED, 0xA1, "Subscription Identifiers not supported",              \
      MQTT__SUBACK | MQTT__DISCONNECT)                                                             \
    X(WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED, 0xA2, "Wildcard Subscriptions not supported",          \
      MQTT__SUBACK | MQTT__DISCONNECT)

#define MQTT__CONNACK       MQTT_SET(MQTT_CONNACK)
#define MQTT__SUBACK        MQTT_SET(MQTT_SUBACK)
#define MQTT__UNSUBACK      MQTT_SET(MQTT_UNSUBACK)
#define MQTT__DISCONNECT    MQTT_SET(MQTT_DISCONNECT)
#define MQTT__AUTH          MQTT_SET(MQTT_AUTH)
#define MQTT__PUBACK_PUBREC (MQTT_SET(MQTT_PUBACK) | MQTT_SET(MQTT_PUBREC))
#define MQTT__ACKS          (MQTT__PUBACK_PUBREC | MQTT_SET(MQTT_PUBREL) | MQTT_SET(MQTT_PUBCOMP))

/* MQTT_REASON_SUCCESS, MQTT_REASON_MALFORMED_PACKET, … 0x80 and above are failures. */
enum mqtt_reason {
#define X(name, code, text, packets) MQTT_REASON_##name = (code),
    MQTT_REASONS(X)
#undef X
};

/* "Topic Name invalid"; "Unknown reason code" outside the table. Static, never NULL. */
const char *mqtt_reason_text(uint8_t reason);
/* May this packet carry this code, sent by this side? (Table 2-6; senders: 3.14.2.1, 3.15.2.1) */
bool mqtt_reason_allowed(uint8_t reason, enum mqtt_packet_type type, enum mqtt_sender sender);
/* "PUBLISH"; "RESERVED" for 0 and above 15. Static, never NULL. */
const char *mqtt_packet_name(unsigned type);
/* The CONNACK return code of 3.1.1 (0 to 5) that says the same as a reason code of 5.0.
 * MQTT_NO_RETURN_CODE when none does: then the connection is closed without a CONNACK
 * [MQTT-3.2.2-6 of 3.1.1]. */
#define MQTT_NO_RETURN_CODE 0xFF
uint8_t mqtt_connack_return_code(uint8_t reason);

/* ---- Properties (5.0, 2.2.2) ---------------------------------------------------------------- */

/* X(name, identifier, type, text, packets that may carry it) */
#define MQTT_PROPERTIES(X)                                                                         \
    X(PAYLOAD_FORMAT_INDICATOR, 0x01, MQTT_TYPE_U8, "Payload Format Indicator", MQTT__MESSAGE)     \
    X(MESSAGE_EXPIRY_INTERVAL, 0x02, MQTT_TYPE_U32, "Message Expiry Interval", MQTT__MESSAGE)      \
    X(CONTENT_TYPE, 0x03, MQTT_TYPE_STRING, "Content Type", MQTT__MESSAGE)                         \
    X(RESPONSE_TOPIC, 0x08, MQTT_TYPE_STRING, "Response Topic", MQTT__MESSAGE)                     \
    X(CORRELATION_DATA, 0x09, MQTT_TYPE_BINARY, "Correlation Data", MQTT__MESSAGE)                 \
    X(SUBSCRIPTION_IDENTIFIER, 0x0B, MQTT_TYPE_VARINT, "Subscription Identifier",                  \
      MQTT_SET(MQTT_PUBLISH) | MQTT_SET(MQTT_SUBSCRIBE))                                           \
    X(SESSION_EXPIRY_INTERVAL, 0x11, MQTT_TYPE_U32, "Session Expiry Interval",                     \
      MQTT__CONNECT_CONNACK | MQTT__DISCONNECT)                                                    \
    X(ASSIGNED_CLIENT_IDENTIFIER, 0x12, MQTT_TYPE_STRING, "Assigned Client Identifier",            \
      MQTT__CONNACK)                                                                               \
    X(SERVER_KEEP_ALIVE, 0x13, MQTT_TYPE_U16, "Server Keep Alive", MQTT__CONNACK)                  \
    X(AUTHENTICATION_METHOD, 0x15, MQTT_TYPE_STRING, "Authentication Method",                      \
      MQTT__CONNECT_CONNACK | MQTT__AUTH)                                                          \
    X(AUTHENTICATION_DATA, 0x16, MQTT_TYPE_BINARY, "Authentication Data",                          \
      MQTT__CONNECT_CONNACK | MQTT__AUTH)                                                          \
    X(REQUEST_PROBLEM_INFORMATION, 0x17, MQTT_TYPE_U8, "Request Problem Information",              \
      MQTT_SET(MQTT_CONNECT))                                                                      \
    X(WILL_DELAY_INTERVAL, 0x18, MQTT_TYPE_U32, "Will Delay Interval", MQTT_SET(MQTT_WILL))        \
    X(REQUEST_RESPONSE_INFORMATION, 0x19, MQTT_TYPE_U8, "Request Response Information",            \
      MQTT_SET(MQTT_CONNECT))                                                                      \
    X(RESPONSE_INFORMATION, 0x1A, MQTT_TYPE_STRING, "Response Information", MQTT__CONNACK)         \
    X(SERVER_REFERENCE, 0x1C, MQTT_TYPE_STRING, "Server Reference",                                \
      MQTT__CONNACK | MQTT__DISCONNECT)                                                            \
    X(REASON_STRING, 0x1F, MQTT_TYPE_STRING, "Reason String",                                      \
      MQTT__ACKS | MQTT__CONNACK | MQTT__SUBACK | MQTT__UNSUBACK | MQTT__DISCONNECT | MQTT__AUTH)  \
    X(RECEIVE_MAXIMUM, 0x21, MQTT_TYPE_U16, "Receive Maximum", MQTT__CONNECT_CONNACK)              \
    X(TOPIC_ALIAS_MAXIMUM, 0x22, MQTT_TYPE_U16, "Topic Alias Maximum", MQTT__CONNECT_CONNACK)      \
    X(TOPIC_ALIAS, 0x23, MQTT_TYPE_U16, "Topic Alias", MQTT_SET(MQTT_PUBLISH))                     \
    X(MAXIMUM_QOS, 0x24, MQTT_TYPE_U8, "Maximum QoS", MQTT__CONNACK)                               \
    X(RETAIN_AVAILABLE, 0x25, MQTT_TYPE_U8, "Retain Available", MQTT__CONNACK)                     \
    X(USER_PROPERTY, 0x26, MQTT_TYPE_STRING_PAIR, "User Property",                                 \
      0xffffu & ~(MQTT_SET(MQTT_PINGREQ) | MQTT_SET(MQTT_PINGRESP)))                               \
    X(MAXIMUM_PACKET_SIZE, 0x27, MQTT_TYPE_U32, "Maximum Packet Size", MQTT__CONNECT_CONNACK)      \
    X(WILDCARD_SUBSCRIPTION_AVAILABLE, 0x28, MQTT_TYPE_U8, "Wildcard Subscription Available",      \
      MQTT__CONNACK)                                                                               \
    X(SUBSCRIPTION_IDENTIFIER_AVAILABLE, 0x29, MQTT_TYPE_U8, "Subscription Identifier Available",  \
      MQTT__CONNACK)                                                                               \
    X(SHARED_SUBSCRIPTION_AVAILABLE, 0x2A, MQTT_TYPE_U8, "Shared Subscription Available",          \
      MQTT__CONNACK)

#define MQTT__MESSAGE         (MQTT_SET(MQTT_PUBLISH) | MQTT_SET(MQTT_WILL))
#define MQTT__CONNECT_CONNACK (MQTT_SET(MQTT_CONNECT) | MQTT_SET(MQTT_CONNACK))

/* MQTT_PROPERTY_TOPIC_ALIAS, … Identifiers are below 64, so a set of them is a uint64_t. */
enum mqtt_property_id {
#define X(name, identifier, type, text, packets) MQTT_PROPERTY_##name = (identifier),
    MQTT_PROPERTIES(X)
#undef X
};
#define MQTT_PROPERTY_BIT(name) (UINT64_C(1) << MQTT_PROPERTY_##name)

enum mqtt_property_type {
    MQTT_TYPE_NONE = 0, /* not a property identifier */
    MQTT_TYPE_U8,
    MQTT_TYPE_U16,
    MQTT_TYPE_U32,
    MQTT_TYPE_VARINT,
    MQTT_TYPE_STRING,
    MQTT_TYPE_BINARY,
    MQTT_TYPE_STRING_PAIR,
};
/* MQTT_TYPE_NONE for anything that is not a property identifier of 5.0. */
enum mqtt_property_type mqtt_property_type(unsigned id);
/* "Topic Alias"; "unknown property" outside the table. Static, never NULL. */
const char *mqtt_property_text(unsigned id);

/* The properties of one packet, all checked. A field whose property is absent holds the standard's
 * default (named beside it), so most readers need not look at `present`. */
struct mqtt_properties {
    uint64_t present; /* bit n: the property with identifier n occurs; MQTT_PROPERTY_BIT() */
    chr_slice raw;    /* the property block after its length, verbatim. Encoders write this, and
                       * only this; make one with struct mqtt_property_writer */

    uint32_t session_expiry_s;         /* default 0; UINT32_MAX: never expires */
    uint32_t message_expiry_s;         /* default UINT32_MAX: never expires */
    uint32_t will_delay_s;             /* default 0 */
    uint32_t maximum_packet_size;      /* default MQTT_PACKET_BYTES_MAX; never 0 */
    uint32_t subscription_identifier;  /* the first one; default 0: none. A PUBLISH may have
                                        * several: mqtt_subscription_id_next() */
    uint16_t receive_maximum;          /* default 65535; never 0 */
    uint16_t topic_alias_maximum;      /* default 0: no aliases */
    uint16_t topic_alias;              /* default 0: none */
    uint16_t server_keep_alive_s;      /* default 0; look at `present` */
    uint8_t payload_format_indicator;  /* default 0; 1: the payload is UTF-8 (the session checks) */
    uint8_t maximum_qos;               /* default 2 */
    bool request_problem_information;  /* default true */
    bool request_response_information; /* default false */
    bool retain_available;             /* default true */
    bool wildcard_subscription_available;   /* default true */
    bool subscription_identifier_available; /* default true */
    bool shared_subscription_available;     /* default true */

    /* Default: empty. Present and empty differ only in `present`. */
    chr_slice content_type;
    chr_slice response_topic;
    chr_slice correlation_data;
    chr_slice reason_string;
    chr_slice assigned_client_id;
    chr_slice authentication_method;
    chr_slice authentication_data;
    chr_slice response_information;
    chr_slice server_reference;
};

CHR_INLINE bool mqtt_has(const struct mqtt_properties *properties, enum mqtt_property_id id)
{
    return (properties->present >> id) & 1;
}

/* The state of a packet without properties: all defaults. */
extern const struct mqtt_properties mqtt_properties_none;

/* One property as it stands in a block. */
struct mqtt_property {
    enum mqtt_property_id id;
    uint32_t number; /* U8, U16, U32, VARINT */
    chr_slice value; /* STRING, BINARY, the second of a STRING_PAIR */
    chr_slice name;  /* the first of a STRING_PAIR */
    chr_slice whole; /* identifier and value, verbatim */
};

/* Walks a checked block in wire order:
 *     struct mqtt_property_iter it = mqtt_property_iter(&publish.properties);
 *     while (mqtt_user_property_next(&it, &name, &value)) … */
struct mqtt_property_iter {
    chr_slice rest;
};
CHR_INLINE struct mqtt_property_iter mqtt_property_iter(const struct mqtt_properties *properties)
{
    return (struct mqtt_property_iter){.rest = properties->raw};
}
bool mqtt_property_next(struct mqtt_property_iter *it, struct mqtt_property *property);
bool mqtt_user_property_next(struct mqtt_property_iter *it, chr_slice *name, chr_slice *value);
bool mqtt_subscription_id_next(struct mqtt_property_iter *it, uint32_t *id);
/* The first user property with this name; false when there is none. */
bool mqtt_user_property_find(const struct mqtt_properties *properties, chr_slice name,
                             chr_slice *value);

/* ---- Packets -------------------------------------------------------------------------------- */

/* 3.1. Also filled, as far as `version` and `protocol_level`, when decoding fails, so that the
 * refusal can be written in the client's own version. */
struct mqtt_connect {
    enum mqtt_version version; /* of the answer; of the session once decoding succeeded */
    uint8_t protocol_level;    /* as sent */
    bool clean_start;          /* 3.1.1: clean session */
    bool has_will;
    bool has_username;
    bool has_password;
    uint16_t keep_alive_s; /* 0: none */
    chr_slice client_id;   /* empty: the server assigns one */
    chr_slice username;
    chr_slice password;
    struct mqtt_properties properties;
    struct {
        uint8_t qos;
        bool retain;
        chr_slice topic;
        chr_slice payload;
        struct mqtt_properties properties;
    } will; /* only if has_will */
};

/* 3.2 */
struct mqtt_connack {
    bool session_present;
    uint8_t reason_code; /* enum mqtt_reason, also for 3.1.1, whose return codes are translated */
    struct mqtt_properties properties;
};

/* 3.3 */
struct mqtt_publish {
    chr_slice topic; /* empty only when there is a topic alias */
    chr_slice payload;
    uint16_t packet_id; /* 0 if and only if qos is 0 */
    uint8_t qos;        /* 0, 1, 2 */
    bool retain;
    bool dup;
    struct mqtt_properties properties;
};

/* 3.4 to 3.7: PUBACK, PUBREC, PUBREL, PUBCOMP */
struct mqtt_ack {
    uint16_t packet_id;
    uint8_t reason_code; /* enum mqtt_reason; MQTT_REASON_SUCCESS in 3.1.1 */
    struct mqtt_properties properties;
};

/* 3.8. The filters are checked when the packet is decoded and read by iterating. */
struct mqtt_subscribe {
    uint16_t packet_id;
    uint32_t filters_count; /* at least 1 */
    chr_slice filters;      /* the payload: (length, filter, options) … */
    struct mqtt_properties properties;
};

/* What to do with retained messages at the moment of subscribing (3.8.3.1). */
enum mqtt_retain_handling {
    MQTT_RETAIN_SEND = 0,
    MQTT_RETAIN_SEND_IF_NEW = 1,
    MQTT_RETAIN_DONT_SEND = 2,
};

struct mqtt_subscription {
    chr_slice filter; /* as sent, `$share/…` included: mqtt_share_parse() takes it apart */
    uint8_t qos;      /* 0, 1, 2 */
    bool no_local;
    bool retain_as_published;
    uint8_t retain_handling; /* enum mqtt_retain_handling */
};

/* 3.9 */
struct mqtt_suback {
    uint16_t packet_id;
    chr_slice reason_codes; /* one byte per filter of the SUBSCRIBE, in its order */
    struct mqtt_properties properties;
};

/* 3.10 */
struct mqtt_unsubscribe {
    uint16_t packet_id;
    uint32_t filters_count; /* at least 1 */
    chr_slice filters;      /* the payload: (length, filter) … */
    struct mqtt_properties properties;
};

/* 3.11 */
struct mqtt_unsuback {
    uint16_t packet_id;
    chr_slice reason_codes; /* one byte per filter of the UNSUBSCRIBE; empty in 3.1.1 */
    struct mqtt_properties properties;
};

/* Walks the filters of a decoded SUBSCRIBE or UNSUBSCRIBE:
 *     struct mqtt_filter_iter it = {subscribe.filters};
 *     while (mqtt_subscribe_next(&it, &subscription)) … */
struct mqtt_filter_iter {
    chr_slice rest;
};
bool mqtt_subscribe_next(struct mqtt_filter_iter *it, struct mqtt_subscription *subscription);
bool mqtt_unsubscribe_next(struct mqtt_filter_iter *it, chr_slice *filter);

/* 3.14 */
struct mqtt_disconnect {
    uint8_t reason_code; /* enum mqtt_reason */
    struct mqtt_properties properties;
};

/* 3.15 */
struct mqtt_auth {
    uint8_t reason_code; /* enum mqtt_reason */
    struct mqtt_properties properties;
};

#endif
