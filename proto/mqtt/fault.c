/* proto/mqtt/fault.c: from a row of the fault table to what the caller gets. */
#include "proto/mqtt/fault.h"

const struct mqtt__fault_row mqtt__faults[MQTT_FAULTS_COUNT] = {
#define X(name, reason, rule5, rule311, text)                                                      \
    [MQTT_FAULT_##name] = {MQTT_REASON_##reason, rule5, rule311, text},
    MQTT_FAULTS(X)
#undef X
};

static chr_err err_of(uint8_t reason_code)
{
    return reason_code == MQTT_REASON_MALFORMED_PACKET   ? CHR_EMALFORMED
           : reason_code == MQTT_REASON_PACKET_TOO_LARGE ? CHR_ETOOBIG
                                                         : CHR_EPROTO;
}

CHR_NOINLINE chr_err mqtt__fail(struct mqtt_fault *fault, enum mqtt_version version,
                                enum mqtt__fault_id id)
{
    const struct mqtt__fault_row *row = &mqtt__faults[id];
    if (fault) {
        const char *rule = version == MQTT_V5 ? row->rule5 : row->rule311;
        fault->reason_code = row->reason_code;
        fault->rule = rule ? rule : row->rule5;
        fault->text = row->text;
    }
    return err_of(row->reason_code);
}

/* Where 5.0 describes each property of each packet; the statement "It is a Protocol Error to
 * include … more than once" stands there, without a number of its own. */
static const struct {
    uint8_t packet;
    uint8_t property;
    const char *section;
} sections[] = {
    {MQTT_CONNECT, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL, "3.1.2.11.2"},
    {MQTT_CONNECT, MQTT_PROPERTY_RECEIVE_MAXIMUM, "3.1.2.11.3"},
    {MQTT_CONNECT, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE, "3.1.2.11.4"},
    {MQTT_CONNECT, MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM, "3.1.2.11.5"},
    {MQTT_CONNECT, MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION, "3.1.2.11.6"},
    {MQTT_CONNECT, MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION, "3.1.2.11.7"},
    {MQTT_CONNECT, MQTT_PROPERTY_AUTHENTICATION_METHOD, "3.1.2.11.9"},
    {MQTT_CONNECT, MQTT_PROPERTY_AUTHENTICATION_DATA, "3.1.2.11.10"},
    {MQTT_WILL, MQTT_PROPERTY_WILL_DELAY_INTERVAL, "3.1.3.2.2"},
    {MQTT_WILL, MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR, "3.1.3.2.3"},
    {MQTT_WILL, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL, "3.1.3.2.4"},
    {MQTT_WILL, MQTT_PROPERTY_CONTENT_TYPE, "3.1.3.2.5"},
    {MQTT_WILL, MQTT_PROPERTY_RESPONSE_TOPIC, "3.1.3.2.6"},
    {MQTT_WILL, MQTT_PROPERTY_CORRELATION_DATA, "3.1.3.2.7"},
    {MQTT_CONNACK, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL, "3.2.2.3.2"},
    {MQTT_CONNACK, MQTT_PROPERTY_RECEIVE_MAXIMUM, "3.2.2.3.3"},
    {MQTT_CONNACK, MQTT_PROPERTY_MAXIMUM_QOS, "3.2.2.3.4"},
    {MQTT_CONNACK, MQTT_PROPERTY_RETAIN_AVAILABLE, "3.2.2.3.5"},
    {MQTT_CONNACK, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE, "3.2.2.3.6"},
    {MQTT_CONNACK, MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER, "3.2.2.3.7"},
    {MQTT_CONNACK, MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM, "3.2.2.3.8"},
    {MQTT_CONNACK, MQTT_PROPERTY_REASON_STRING, "3.2.2.3.9"},
    {MQTT_CONNACK, MQTT_PROPERTY_WILDCARD_SUBSCRIPTION_AVAILABLE, "3.2.2.3.11"},
    {MQTT_CONNACK, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE, "3.2.2.3.12"},
    {MQTT_CONNACK, MQTT_PROPERTY_SHARED_SUBSCRIPTION_AVAILABLE, "3.2.2.3.13"},
    {MQTT_CONNACK, MQTT_PROPERTY_SERVER_KEEP_ALIVE, "3.2.2.3.14"},
    {MQTT_CONNACK, MQTT_PROPERTY_RESPONSE_INFORMATION, "3.2.2.3.15"},
    {MQTT_CONNACK, MQTT_PROPERTY_SERVER_REFERENCE, "3.2.2.3.16"},
    {MQTT_CONNACK, MQTT_PROPERTY_AUTHENTICATION_METHOD, "3.2.2.3.17"},
    {MQTT_CONNACK, MQTT_PROPERTY_AUTHENTICATION_DATA, "3.2.2.3.18"},
    {MQTT_PUBLISH, MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR, "3.3.2.3.2"},
    {MQTT_PUBLISH, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL, "3.3.2.3.3"},
    {MQTT_PUBLISH, MQTT_PROPERTY_TOPIC_ALIAS, "3.3.2.3.4"},
    {MQTT_PUBLISH, MQTT_PROPERTY_RESPONSE_TOPIC, "3.3.2.3.5"},
    {MQTT_PUBLISH, MQTT_PROPERTY_CORRELATION_DATA, "3.3.2.3.6"},
    {MQTT_PUBLISH, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, "3.3.2.3.8"},
    {MQTT_PUBLISH, MQTT_PROPERTY_CONTENT_TYPE, "3.3.2.3.9"},
    {MQTT_PUBACK, MQTT_PROPERTY_REASON_STRING, "3.4.2.2.2"},
    {MQTT_PUBREC, MQTT_PROPERTY_REASON_STRING, "3.5.2.2.2"},
    {MQTT_PUBREL, MQTT_PROPERTY_REASON_STRING, "3.6.2.2.2"},
    {MQTT_PUBCOMP, MQTT_PROPERTY_REASON_STRING, "3.7.2.2.2"},
    {MQTT_SUBSCRIBE, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, "3.8.2.1.2"},
    {MQTT_SUBACK, MQTT_PROPERTY_REASON_STRING, "3.9.2.1.2"},
    {MQTT_UNSUBACK, MQTT_PROPERTY_REASON_STRING, "3.11.2.1.2"},
    {MQTT_DISCONNECT, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL, "3.14.2.2.2"},
    {MQTT_DISCONNECT, MQTT_PROPERTY_REASON_STRING, "3.14.2.2.3"},
    {MQTT_DISCONNECT, MQTT_PROPERTY_SERVER_REFERENCE, "3.14.2.2.5"},
    {MQTT_AUTH, MQTT_PROPERTY_AUTHENTICATION_METHOD, "3.15.2.2.2"},
    {MQTT_AUTH, MQTT_PROPERTY_AUTHENTICATION_DATA, "3.15.2.2.3"},
    {MQTT_AUTH, MQTT_PROPERTY_REASON_STRING, "3.15.2.2.4"},
};

const char *mqtt__property_section(unsigned packet, unsigned property)
{
    for (size_t i = 0; i < CHR_COUNT_OF(sections); i++)
        if (sections[i].packet == packet && sections[i].property == property)
            return sections[i].section;
    return "2.2.2.2";
}

/* One sentence for each property, so that a log line says which one without a buffer. */
static const char *const twice_texts[] = {
#define X(name, identifier, type, text, packets) [identifier] = text " occurs more than once",
    MQTT_PROPERTIES(X)
#undef X
};
static const char *const value_texts[] = {
#define X(name, identifier, type, text, packets) [identifier] = text " has a value it may not have",
    MQTT_PROPERTIES(X)
#undef X
};
static const char *const misplaced_texts[] = {
#define X(name, identifier, type, text, packets)                                                   \
    [identifier] = text " does not belong into this packet",
    MQTT_PROPERTIES(X)
#undef X
};

CHR_NOINLINE chr_err mqtt__fail_property(struct mqtt_fault *fault, enum mqtt__fault_id id,
                                         unsigned packet, unsigned property)
{
    chr_err err = mqtt__fail(fault, MQTT_V5, id);
    if (fault) {
        if (id == MQTT_FAULT_PROPERTY_MISPLACED) {
            fault->text = misplaced_texts[property]; /* its rule stays 2.2.2.2, which says so */
        } else {
            fault->rule = mqtt__property_section(packet, property);
            fault->text =
                id == MQTT_FAULT_PROPERTY_TWICE ? twice_texts[property] : value_texts[property];
        }
    }
    return err;
}
