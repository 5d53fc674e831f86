/* proto/mqtt/fault.h: every reason for which a packet is refused, one table.
 *
 * A row names the rule as each version of the standard numbers it; NULL where that version has no
 * such rule. Statements that the standard makes without a number are cited by section. The test
 * test_mqtt_rules checks that every row of every version has a case that shows it.
 *
 * "MQTT-3-8.3-4" is not a slip: it is how 3.1.1 prints that number. */
#ifndef CHR_PROTO_MQTT_FAULT_H
#define CHR_PROTO_MQTT_FAULT_H

#include "proto/mqtt/decode.h"

/* X(name, reason code, rule in 5.0, rule in 3.1.1, text) */
#define MQTT_FAULTS(X)                                                                             \
    /* Fixed header. */                                                                            \
    X(TYPE_RESERVED, MALFORMED_PACKET, "2.1.2", "2.2.1", "packet type is reserved")                \
    X(LENGTH_ENDLESS, MALFORMED_PACKET, "1.5.5", "2.2.3",                                          \
      "Remaining Length is longer than four bytes")                                                \
    X(LENGTH_OVERLONG, MALFORMED_PACKET, "MQTT-1.5.5-1", "2.2.3",                                  \
      "Remaining Length is not in its shortest form")                                              \
    X(TOO_LARGE, PACKET_TOO_LARGE, "MQTT-3.2.2-15", "2.2.3",                                       \
      "packet is larger than the maximum packet size")                                             \
    X(FIXED_FLAGS, MALFORMED_PACKET, "MQTT-2.1.3-1", "MQTT-2.2.2-2", "reserved flag bits are set") \
    X(PUBREL_FLAGS, MALFORMED_PACKET, "MQTT-3.6.1-1", "MQTT-3.6.1-1",                              \
      "flag bits of PUBREL are not 0010")                                                          \
    X(SUBSCRIBE_FLAGS, MALFORMED_PACKET, "MQTT-3.8.1-1", "MQTT-3.8.1-1",                           \
      "flag bits of SUBSCRIBE are not 0010")                                                       \
    X(UNSUBSCRIBE_FLAGS, MALFORMED_PACKET, "MQTT-3.10.1-1", "MQTT-3.10.1-1",                       \
      "flag bits of UNSUBSCRIBE are not 0010")                                                     \
    X(DISCONNECT_FLAGS, MALFORMED_PACKET, "MQTT-3.14.1-1", "MQTT-3.14.1-1",                        \
      "flag bits of DISCONNECT are not 0000")                                                      \
    X(AUTH_FLAGS, MALFORMED_PACKET, "MQTT-3.15.1-1", NULL, "flag bits of AUTH are not 0000")       \
    /* Fields of any packet. */                                                                    \
    X(INTEGER_TRUNCATED, MALFORMED_PACKET, "1.5.2", "1.5.2", "packet ends inside an integer")      \
    X(STRING_TRUNCATED, MALFORMED_PACKET, "1.5.4", "1.5.3", "packet ends inside a string")         \
    X(BINARY_TRUNCATED, MALFORMED_PACKET, "1.5.6", "3.1.3", "packet ends inside binary data")      \
    X(STRING_UTF8, MALFORMED_PACKET, "MQTT-1.5.4-1", "MQTT-1.5.3-1", "string is not UTF-8")        \
    X(STRING_NUL, MALFORMED_PACKET, "MQTT-1.5.4-2", "MQTT-1.5.3-2", "string contains U+0000")      \
    X(VARINT_ENDLESS, MALFORMED_PACKET, "1.5.5", NULL,                                             \
      "Variable Byte Integer is longer than four bytes")                                           \
    X(VARINT_OVERLONG, MALFORMED_PACKET, "MQTT-1.5.5-1", NULL,                                     \
      "Variable Byte Integer is not in its shortest form")                                         \
    X(TRAILING_BYTES, MALFORMED_PACKET, "2.1.4", "2.2.3", "bytes are left after the last field")   \
    X(PACKET_ID_ZERO, PROTOCOL_ERROR, "MQTT-2.2.1-3", "MQTT-2.3.1-1", "packet identifier is 0")    \
    X(SERVER_PACKET_ID_ZERO, PROTOCOL_ERROR, "MQTT-2.2.1-4", "MQTT-2.3.1-4",                       \
      "packet identifier of the server is 0")                                                      \
    X(ACK_PACKET_ID_ZERO, PROTOCOL_ERROR, "MQTT-2.2.1-5", "MQTT-2.3.1-6",                          \
      "packet identifier of an acknowledgement is 0")                                              \
    X(SUBACK_PACKET_ID_ZERO, PROTOCOL_ERROR, "MQTT-2.2.1-6", "MQTT-2.3.1-7",                       \
      "packet identifier of SUBACK or UNSUBACK is 0")                                              \
    /* Properties; duplicates and bad values are cited by the property's own section. */           \
    X(PROPERTY_LENGTH, MALFORMED_PACKET, "2.2.2.1", NULL,                                          \
      "Property Length is missing or runs past the packet")                                        \
    X(PROPERTY_UNKNOWN, MALFORMED_PACKET, "2.2.2.2", NULL, "unknown property identifier")          \
    X(PROPERTY_MISPLACED, MALFORMED_PACKET, "2.2.2.2", NULL,                                       \
      "property does not belong into this packet")                                                 \
    X(PROPERTY_TRUNCATED, MALFORMED_PACKET, "2.2.2.2", NULL, "properties end inside a property")   \
    X(PROPERTY_TWICE, PROTOCOL_ERROR, "2.2.2.2", NULL, "property occurs more than once")           \
    X(PROPERTY_VALUE, PROTOCOL_ERROR, "2.2.2.2", NULL, "property has a value it may not have")     \
    X(TOPIC_ALIAS_ZERO, TOPIC_ALIAS_INVALID, "MQTT-3.3.2-8", NULL, "Topic Alias is 0")             \
    X(SUBSCRIPTION_ID_FROM_CLIENT, PROTOCOL_ERROR, "MQTT-3.3.4-6", NULL,                           \
      "PUBLISH of a client contains a Subscription Identifier")                                    \
    X(RESPONSE_TOPIC_WILDCARD, PROTOCOL_ERROR, "MQTT-3.3.2-14", NULL,                              \
      "Response Topic contains a wildcard")                                                        \
    X(RESPONSE_TOPIC_EMPTY, PROTOCOL_ERROR, "MQTT-4.7.3-1", NULL, "Response Topic is empty")       \
    X(SESSION_EXPIRY_FROM_SERVER, PROTOCOL_ERROR, "MQTT-3.14.2-2", NULL,                           \
      "DISCONNECT of a server contains a Session Expiry Interval")                                 \
    X(SERVER_REFERENCE_FROM_CLIENT, PROTOCOL_ERROR, "3.14.2.2.5", NULL,                            \
      "DISCONNECT of a client contains a Server Reference")                                        \
    X(AUTH_DATA_ALONE, PROTOCOL_ERROR, "3.1.2.11.10", NULL,                                        \
      "Authentication Data without an Authentication Method")                                      \
    X(AUTH_METHOD_MISSING, PROTOCOL_ERROR, "3.15.2.2.2", NULL,                                     \
      "AUTH without an Authentication Method")                                                     \
    /* CONNECT and CONNACK. */                                                                     \
    X(PROTOCOL_NAME, UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-1", "MQTT-3.1.2-1",                 \
      "protocol name is not MQTT")                                                                 \
    X(PROTOCOL_LEVEL, UNSUPPORTED_PROTOCOL_VERSION, "MQTT-3.1.2-2", "MQTT-3.1.2-2",                \
      "protocol level is neither 4 nor 5")                                                         \
    X(CONNECT_RESERVED, MALFORMED_PACKET, "MQTT-3.1.2-3", "MQTT-3.1.2-3",                          \
      "reserved connect flag is set")                                                              \
    X(WILL_QOS_WITHOUT_WILL, MALFORMED_PACKET, "MQTT-3.1.2-11", "MQTT-3.1.2-13",                   \
      "Will QoS is set without a Will")                                                            \
    X(WILL_QOS_3, MALFORMED_PACKET, "MQTT-3.1.2-12", "MQTT-3.1.2-14", "Will QoS is 3")             \
    X(WILL_RETAIN_WITHOUT_WILL, MALFORMED_PACKET, "MQTT-3.1.2-13", "MQTT-3.1.2-15",                \
      "Will Retain is set without a Will")                                                         \
    X(PASSWORD_WITHOUT_USERNAME, MALFORMED_PACKET, NULL, "MQTT-3.1.2-22",                          \
      "Password Flag is set without the User Name Flag")                                           \
    X(CLIENT_ID_MISSING, MALFORMED_PACKET, "MQTT-3.1.3-3", "MQTT-3.1.3-3",                         \
      "client identifier is missing")                                                              \
    X(CLIENT_ID_EMPTY, CLIENT_ID_NOT_VALID, NULL, "MQTT-3.1.3-8",                                  \
      "empty client identifier without clean session")                                             \
    X(WILL_MISSING, MALFORMED_PACKET, "MQTT-3.1.2-9", "MQTT-3.1.2-9", "Will fields are missing")   \
    X(WILL_TOPIC_EMPTY, TOPIC_NAME_INVALID, "MQTT-4.7.3-1", "MQTT-4.7.3-1", "Will Topic is empty") \
    X(WILL_TOPIC_WILDCARD, TOPIC_NAME_INVALID, "MQTT-4.7.0-1", "MQTT-4.7.1-1",                     \
      "Will Topic contains a wildcard")                                                            \
    X(USERNAME_MISSING, MALFORMED_PACKET, "MQTT-3.1.2-17", "MQTT-3.1.2-19",                        \
      "user name is missing")                                                                      \
    X(PASSWORD_MISSING, MALFORMED_PACKET, "MQTT-3.1.2-19", "MQTT-3.1.2-21", "password is missing") \
    X(CONNECT_TRAILING, MALFORMED_PACKET, "MQTT-3.1.4-1", "MQTT-3.1.4-1",                          \
      "CONNECT has bytes after its last field")                                                    \
    X(CONNACK_FLAGS, MALFORMED_PACKET, "MQTT-3.2.2-1", "3.2.2.1",                                  \
      "reserved acknowledge flags are set")                                                        \
    X(SESSION_PRESENT_REFUSED, PROTOCOL_ERROR, "MQTT-3.2.2-6", "MQTT-3.2.2-4",                     \
      "Session Present in a refusal")                                                              \
    X(CONNACK_REASON, PROTOCOL_ERROR, "MQTT-3.2.2-8", "3.2.2.3",                                   \
      "reason code does not belong into CONNACK")                                                  \
    /* PUBLISH and its acknowledgements. */                                                        \
    X(PUBLISH_QOS_3, MALFORMED_PACKET, "MQTT-3.3.1-4", "MQTT-3.3.1-4", "QoS is 3")                 \
    X(PUBLISH_DUP_QOS_0, PROTOCOL_ERROR, "MQTT-3.3.1-2", "MQTT-3.3.1-2",                           \
      "DUP is set in a QoS 0 message")                                                             \
    X(TOPIC_MISSING, MALFORMED_PACKET, "MQTT-3.3.2-1", "MQTT-3.3.2-1", "topic name is missing")    \
    X(TOPIC_WILDCARD, TOPIC_NAME_INVALID, "MQTT-3.3.2-2", "MQTT-3.3.2-2",                          \
      "topic name contains a wildcard")                                                            \
    X(TOPIC_EMPTY, TOPIC_NAME_INVALID, NULL, "MQTT-4.7.3-1", "topic name is empty")                \
    X(TOPIC_EMPTY_NO_ALIAS, PROTOCOL_ERROR, "3.3.2.1", NULL,                                       \
      "topic name is empty and there is no Topic Alias")                                           \
    X(PUBACK_REASON, PROTOCOL_ERROR, "MQTT-3.4.2-1", NULL,                                         \
      "reason code does not belong into PUBACK")                                                   \
    X(PUBREC_REASON, PROTOCOL_ERROR, "MQTT-3.5.2-1", NULL,                                         \
      "reason code does not belong into PUBREC")                                                   \
    X(PUBREL_REASON, PROTOCOL_ERROR, "MQTT-3.6.2-1", NULL,                                         \
      "reason code does not belong into PUBREL")                                                   \
    X(PUBCOMP_REASON, PROTOCOL_ERROR, "MQTT-3.7.2-1", NULL,                                        \
      "reason code does not belong into PUBCOMP")                                                  \
    /* SUBSCRIBE, UNSUBSCRIBE and their acknowledgements. */                                       \
    X(SUBSCRIBE_EMPTY, PROTOCOL_ERROR, "MQTT-3.8.3-2", "MQTT-3.8.3-3",                             \
      "SUBSCRIBE without a topic filter")                                                          \
    X(OPTIONS_MISSING, MALFORMED_PACKET, "3.8.3", "3.8.3", "subscription options are missing")     \
    X(OPTIONS_RESERVED, MALFORMED_PACKET, "MQTT-3.8.3-5", "MQTT-3-8.3-4",                          \
      "reserved bits of the subscription options are set")                                         \
    X(SUBSCRIBE_QOS_3, PROTOCOL_ERROR, "3.8.3.1", "MQTT-3-8.3-4", "requested QoS is 3")            \
    X(RETAIN_HANDLING_3, PROTOCOL_ERROR, "3.8.3.1", NULL, "Retain Handling is 3")                  \
    X(NO_LOCAL_SHARED, PROTOCOL_ERROR, "MQTT-3.8.3-4", NULL, "No Local on a shared subscription")  \
    X(FILTER_EMPTY, TOPIC_FILTER_INVALID, "MQTT-4.7.3-1", "MQTT-4.7.3-1", "topic filter is empty") \
    X(FILTER_HASH, TOPIC_FILTER_INVALID, "MQTT-4.7.1-1", "MQTT-4.7.1-2",                           \
      "# is not the whole last level of the topic filter")                                         \
    X(FILTER_PLUS, TOPIC_FILTER_INVALID, "MQTT-4.7.1-2", "MQTT-4.7.1-3",                           \
      "+ is not a whole level of the topic filter")                                                \
    X(SHARE_NAME_EMPTY, TOPIC_FILTER_INVALID, "MQTT-4.8.2-1", NULL, "share name is empty")         \
    X(SHARE_NAME, TOPIC_FILTER_INVALID, "MQTT-4.8.2-2", NULL,                                      \
      "share name contains a wildcard or is not followed by a topic filter")                       \
    X(SUBACK_EMPTY, MALFORMED_PACKET, "3.9.3", "3.9.3", "SUBACK without a reason code")            \
    X(SUBACK_REASON, PROTOCOL_ERROR, "MQTT-3.9.3-2", "MQTT-3.9.3-2",                               \
      "reason code does not belong into SUBACK")                                                   \
    X(UNSUBSCRIBE_EMPTY, PROTOCOL_ERROR, "MQTT-3.10.3-2", "MQTT-3.10.3-2",                         \
      "UNSUBSCRIBE without a topic filter")                                                        \
    X(UNSUBACK_EMPTY, MALFORMED_PACKET, "3.11.3", NULL, "UNSUBACK without a reason code")          \
    X(UNSUBACK_REASON, PROTOCOL_ERROR, "MQTT-3.11.3-2", NULL,                                      \
      "reason code does not belong into UNSUBACK")                                                 \
    /* The others. */                                                                              \
    X(DISCONNECT_REASON, PROTOCOL_ERROR, "MQTT-3.14.2-1", NULL,                                    \
      "reason code does not belong into this side's DISCONNECT")                                   \
    X(AUTH_REASON, PROTOCOL_ERROR, "MQTT-3.15.2-1", NULL,                                          \
      "reason code does not belong into this side's AUTH")                                         \
    X(SECOND_CONNECT, PROTOCOL_ERROR, "MQTT-3.1.0-2", "MQTT-3.1.0-2", "second CONNECT")            \
    X(UNEXPECTED_AUTH, PROTOCOL_ERROR, "MQTT-4.12.0-7", NULL,                                      \
      "AUTH without enhanced authentication")                                                      \
    X(UNEXPECTED_PACKET, PROTOCOL_ERROR, "2.1.2", "2.2.1", "this side may not send this packet")

enum mqtt__fault_id {
#define X(name, reason, rule5, rule311, text) MQTT_FAULT_##name,
    MQTT_FAULTS(X)
#undef X
        MQTT_FAULTS_COUNT
};

struct mqtt__fault_row {
    uint8_t reason_code;
    const char *rule5;   /* NULL: no such rule in 5.0 */
    const char *rule311; /* NULL: no such rule in 3.1.1 */
    const char *text;
};
extern const struct mqtt__fault_row mqtt__faults[MQTT_FAULTS_COUNT];

/* Fills the fault (NULL is allowed) and returns the error that goes with it. Cold: kept out of the
 * decoders' straight path. */
chr_err mqtt__fail(struct mqtt_fault *fault, enum mqtt_version version, enum mqtt__fault_id id);
/* MQTT_FAULT_PROPERTY_TWICE, _VALUE or _MISPLACED: rule and text name the property; packet is a
 * packet type or MQTT_WILL. */
chr_err mqtt__fail_property(struct mqtt_fault *fault, enum mqtt__fault_id id, unsigned packet,
                            unsigned property);
/* The section of 5.0 that describes a property in a packet, "3.1.2.11.3"; "2.2.2.2" if none. */
const char *mqtt__property_section(unsigned packet, unsigned property);

#endif
