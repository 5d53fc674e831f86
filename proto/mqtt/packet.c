/* proto/mqtt/packet.c: the tables of the standard as functions, and walking filters. */
#include "proto/mqtt/packet.h"

#include "base/bytes.h"

/* ---- Reason codes --------------------------------------------------------------------------- */

static const struct {
    const char *text; /* NULL: not in the table */
    uint16_t packets; /* set of packet types */
} reasons[256] = {
#define X(name, code, text, packets) [code] = {text, packets},
    MQTT_REASONS(X)
#undef X
};

const char *mqtt_reason_text(uint8_t reason)
{
    return reasons[reason].text ? reasons[reason].text : "Unknown reason code";
}

/* The codes of DISCONNECT that a client may send (table of 3.14.2.1); servers may send all but
 * 0x04. */
static bool client_disconnects_with(uint8_t reason)
{
    switch (reason) {
    case MQTT_REASON_SUCCESS:
    case MQTT_REASON_DISCONNECT_WITH_WILL:
    case MQTT_REASON_UNSPECIFIED_ERROR:
    case MQTT_REASON_MALFORMED_PACKET:
    case MQTT_REASON_PROTOCOL_ERROR:
    case MQTT_REASON_IMPLEMENTATION_SPECIFIC:
    case MQTT_REASON_TOPIC_NAME_INVALID:
    case MQTT_REASON_RECEIVE_MAXIMUM_EXCEEDED:
    case MQTT_REASON_TOPIC_ALIAS_INVALID:
    case MQTT_REASON_PACKET_TOO_LARGE:
    case MQTT_REASON_MESSAGE_RATE_TOO_HIGH:
    case MQTT_REASON_QUOTA_EXCEEDED:
    case MQTT_REASON_ADMINISTRATIVE_ACTION:
    case MQTT_REASON_PAYLOAD_FORMAT_INVALID:
        return true;
    default:
        return false;
    }
}

bool mqtt_reason_allowed(uint8_t reason, enum mqtt_packet_type type, enum mqtt_sender sender)
{
    if (!(reasons[reason].packets & MQTT_SET(type)))
        return false;
    if (type == MQTT_DISCONNECT)
        return sender == MQTT_FROM_CLIENT ? client_disconnects_with(reason)
                                          : reason != MQTT_REASON_DISCONNECT_WITH_WILL;
    if (type == MQTT_AUTH) /* table of 3.15.2.1 */
        return reason == MQTT_REASON_CONTINUE_AUTHENTICATION ||
               reason ==
                   (sender == MQTT_FROM_CLIENT ? MQTT_REASON_RE_AUTHENTICATE : MQTT_REASON_SUCCESS);
    return true;
}

uint8_t mqtt_connack_return_code(uint8_t reason)
{
    switch (reason) {
    case MQTT_REASON_SUCCESS:
        return 0;
    case MQTT_REASON_UNSUPPORTED_PROTOCOL_VERSION:
        return 1;
    case MQTT_REASON_CLIENT_ID_NOT_VALID:
        return 2;
    case MQTT_REASON_SERVER_UNAVAILABLE:
    case MQTT_REASON_SERVER_BUSY:
    case MQTT_REASON_QUOTA_EXCEEDED:
    case MQTT_REASON_USE_ANOTHER_SERVER:
    case MQTT_REASON_SERVER_MOVED:
    case MQTT_REASON_CONNECTION_RATE_EXCEEDED:
        return 3;
    case MQTT_REASON_BAD_USER_NAME_OR_PASSWORD:
    case MQTT_REASON_BAD_AUTHENTICATION_METHOD:
        return 4;
    case MQTT_REASON_NOT_AUTHORIZED:
    case MQTT_REASON_BANNED:
        return 5;
    default:
        return MQTT_NO_RETURN_CODE;
    }
}

const char *mqtt_packet_name(unsigned type)
{
    static const char *const names[16] = {
        "RESERVED", "CONNECT",  "CONNACK",    "PUBLISH", "PUBACK",      "PUBREC",
        "PUBREL",   "PUBCOMP",  "SUBSCRIBE",  "SUBACK",  "UNSUBSCRIBE", "UNSUBACK",
        "PINGREQ",  "PINGRESP", "DISCONNECT", "AUTH",
    };
    return names[type < 16 ? type : 0];
}

/* ---- Filters -------------------------------------------------------------------------------- */

/* The payload was checked by the decoder: lengths are known to fit. */
static chr_slice take_string(chr_slice *rest)
{
    size_t len = chr_get_u16be(rest->ptr);
    chr_slice s = chr_slice_of(rest->ptr + 2, len);
    *rest = chr_slice_of(s.ptr + len, rest->len - 2 - len);
    return s;
}

bool mqtt_subscribe_next(struct mqtt_filter_iter *it, struct mqtt_subscription *subscription)
{
    if (it->rest.len == 0)
        return false;
    subscription->filter = take_string(&it->rest);
    uint8_t options = it->rest.ptr[0];
    it->rest = chr_slice_of(it->rest.ptr + 1, it->rest.len - 1);
    subscription->qos = options & 3;
    subscription->no_local = options >> 2 & 1;
    subscription->retain_as_published = options >> 3 & 1;
    subscription->retain_handling = options >> 4 & 3;
    return true;
}

bool mqtt_unsubscribe_next(struct mqtt_filter_iter *it, chr_slice *filter)
{
    if (it->rest.len == 0)
        return false;
    *filter = take_string(&it->rest);
    return true;
}
