/* tests/proto/mqtt_text.h: packets as text, both ways, for tests.
 *
 * In: bytes as hex pairs, 'text', s'text' (a string with its two-byte length) and < … > (what
 * stands inside, preceded by its length as a Variable Byte Integer: a Remaining Length or a
 * Property Length). `*N` behind hex or text repeats it. So a PUBLISH reads 32 <s'a/b' 0001 <23
 * 0007> 'payload'> Out: one line per packet, one more per property, or `fault 0x81 MQTT-3.3.1-4`.
 */
#ifndef CHR_TESTS_PROTO_MQTT_TEXT_H
#define CHR_TESTS_PROTO_MQTT_TEXT_H

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "proto/mqtt/decode.h"
#include "proto/mqtt/encode.h"

/* ---- Text to bytes -------------------------------------------------------------------------- */

static inline int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static inline unsigned long text_repeat(const char **at)
{
    if (**at != '*')
        return 1;
    char *end;
    unsigned long n = strtoul(*at + 1, &end, 10);
    *at = end;
    return n;
}

/* NULL when the text is not understood; else where it stopped ('>' or the end). */
static inline const char *text_to_bytes(const char *at, struct chr_buf *out)
{
    while (*at && *at != '>') {
        if (isspace((unsigned char)*at)) {
            at++;
        } else if (*at == '\'' || (*at == 's' && at[1] == '\'')) {
            bool prefixed = *at == 's';
            at += prefixed ? 2 : 1;
            struct chr_buf text;
            chr_buf_init(&text, 1 << 17);
            while (*at && *at != '\'') {
                if (*at == '\\' && at[1] == 'x') {
                    chr_buf_add_u8(&text, (uint8_t)(hex_digit(at[2]) << 4 | hex_digit(at[3])));
                    at += 4;
                } else {
                    if (*at == '\\')
                        at++;
                    chr_buf_add_u8(&text, (uint8_t)*at++);
                }
            }
            if (*at++ != '\'')
                return NULL;
            unsigned long n = text_repeat(&at);
            if (prefixed) {
                chr_buf_add_u8(out, (uint8_t)(text.len * n >> 8));
                chr_buf_add_u8(out, (uint8_t)(text.len * n));
            }
            while (n--)
                chr_buf_add(out, text.ptr, text.len);
            chr_buf_free(&text);
        } else if (*at == '<') {
            struct chr_buf inner;
            chr_buf_init(&inner, 1 << 22);
            at = text_to_bytes(at + 1, &inner);
            if (!at || *at++ != '>')
                return NULL;
            uint8_t length[4];
            size_t used = (size_t)(mqtt_varint_put(length, (uint32_t)inner.len) - length);
            chr_buf_add(out, length, used);
            chr_buf_add(out, inner.ptr, inner.len);
            chr_buf_free(&inner);
        } else if (hex_digit(*at) >= 0 && hex_digit(at[1]) >= 0) {
            uint8_t byte = (uint8_t)(hex_digit(*at) << 4 | hex_digit(at[1]));
            at += 2;
            for (unsigned long n = text_repeat(&at); n > 0; n--)
                chr_buf_add_u8(out, byte);
        } else {
            return NULL;
        }
    }
    return out->failed ? NULL : at;
}

/* ---- Any packet ----------------------------------------------------------------------------- */

struct any_packet {
    unsigned type;
    enum mqtt_version version; /* CONNECT brings its own */
    union {
        struct mqtt_connect connect;
        struct mqtt_connack connack;
        struct mqtt_publish publish;
        struct mqtt_ack ack;
        struct mqtt_subscribe subscribe;
        struct mqtt_suback suback;
        struct mqtt_unsubscribe unsubscribe;
        struct mqtt_unsuback unsuback;
        struct mqtt_disconnect disconnect;
        struct mqtt_auth auth;
    } u;
};

static inline chr_err any_decode(const struct mqtt_frame *frame, enum mqtt_version version,
                                 struct any_packet *any, struct mqtt_fault *fault)
{
    any->type = frame->type;
    any->version = version;
    switch (frame->type) {
    case MQTT_CONNECT: {
        chr_err err = mqtt_decode_connect(frame, &any->u.connect, fault);
        any->version = any->u.connect.version;
        return err;
    }
    case MQTT_CONNACK:
        return mqtt_decode_connack(frame, version, &any->u.connack, fault);
    case MQTT_PUBLISH:
        return mqtt_decode_publish(frame, version, &any->u.publish, fault);
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return mqtt_decode_ack(frame, version, &any->u.ack, fault);
    case MQTT_SUBSCRIBE:
        return mqtt_decode_subscribe(frame, version, &any->u.subscribe, fault);
    case MQTT_SUBACK:
        return mqtt_decode_suback(frame, version, &any->u.suback, fault);
    case MQTT_UNSUBSCRIBE:
        return mqtt_decode_unsubscribe(frame, version, &any->u.unsubscribe, fault);
    case MQTT_UNSUBACK:
        return mqtt_decode_unsuback(frame, version, &any->u.unsuback, fault);
    case MQTT_DISCONNECT:
        return mqtt_decode_disconnect(frame, version, &any->u.disconnect, fault);
    case MQTT_AUTH:
        return mqtt_decode_auth(frame, version, &any->u.auth, fault);
    default:
        return mqtt_decode_ping(frame, version, fault);
    }
}

/* Encodes what was decoded. out NULL: the size alone, from the _size functions. */
static inline size_t any_encode(uint8_t *out, size_t capacity, const struct any_packet *any)
{
    enum mqtt_version v = any->version;
    switch (any->type) {
    case MQTT_CONNECT:
        return out ? mqtt_encode_connect(out, capacity, &any->u.connect)
                   : mqtt_encode_connect_size(&any->u.connect);
    case MQTT_CONNACK:
        return out ? mqtt_encode_connack(out, capacity, v, &any->u.connack)
                   : mqtt_encode_connack_size(v, &any->u.connack);
    case MQTT_PUBLISH:
        return out ? mqtt_encode_publish(out, capacity, v, &any->u.publish)
                   : mqtt_encode_publish_size(v, &any->u.publish);
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return out ? mqtt_encode_ack(out, capacity, v, (enum mqtt_packet_type)any->type,
                                     &any->u.ack)
                   : mqtt_encode_ack_size(v, &any->u.ack);
    case MQTT_SUBSCRIBE: {
        const struct mqtt_subscribe *s = &any->u.subscribe;
        struct mqtt_subscription *list =
            (struct mqtt_subscription *)malloc((s->filters_count + 1) * sizeof *list);
        struct mqtt_filter_iter it = {s->filters};
        size_t n = 0;
        while (mqtt_subscribe_next(&it, &list[n]))
            n++;
        size_t size = n != s->filters_count ? 0
                      : out                 ? mqtt_encode_subscribe(out, capacity, v, s, list, n)
                                            : mqtt_encode_subscribe_size(v, s, list, n);
        free(list);
        return size;
    }
    case MQTT_UNSUBSCRIBE: {
        const struct mqtt_unsubscribe *u = &any->u.unsubscribe;
        chr_slice *list = (chr_slice *)malloc((u->filters_count + 1) * sizeof *list);
        struct mqtt_filter_iter it = {u->filters};
        size_t n = 0;
        while (mqtt_unsubscribe_next(&it, &list[n]))
            n++;
        size_t size = n != u->filters_count ? 0
                      : out                 ? mqtt_encode_unsubscribe(out, capacity, v, u, list, n)
                                            : mqtt_encode_unsubscribe_size(v, u, list, n);
        free(list);
        return size;
    }
    case MQTT_SUBACK:
        return out ? mqtt_encode_suback(out, capacity, v, &any->u.suback)
                   : mqtt_encode_suback_size(v, &any->u.suback);
    case MQTT_UNSUBACK:
        return out ? mqtt_encode_unsuback(out, capacity, v, &any->u.unsuback)
                   : mqtt_encode_unsuback_size(v, &any->u.unsuback);
    case MQTT_DISCONNECT:
        return out ? mqtt_encode_disconnect(out, capacity, v, &any->u.disconnect)
                   : mqtt_encode_disconnect_size(v, &any->u.disconnect);
    case MQTT_AUTH:
        return out ? mqtt_encode_auth(out, capacity, &any->u.auth)
                   : mqtt_encode_auth_size(&any->u.auth);
    case MQTT_PINGREQ:
        return !out ? 2 : capacity < 2 ? 0 : mqtt_encode_pingreq(out);
    case MQTT_PINGRESP:
        return !out ? 2 : capacity < 2 ? 0 : mqtt_encode_pingresp(out);
    default:
        return 0;
    }
}

/* ---- Properties, the naive way --------------------------------------------------------------- */

/* Do the fields say what a walk over the block says? */
static inline bool properties_agree(const struct mqtt_properties *p)
{
    struct mqtt_properties e = mqtt_properties_none;
    struct mqtt_property_iter it = mqtt_property_iter(p);
    struct mqtt_property q;
    size_t walked = 0;
    while (mqtt_property_next(&it, &q)) {
        walked += q.whole.len;
        bool first = !(e.present >> q.id & 1);
        e.present |= UINT64_C(1) << q.id;
        switch (q.id) {
#define NUMBER(ID, field)                                                                          \
    case MQTT_PROPERTY_##ID:                                                                       \
        if (first)                                                                                 \
            e.field = q.number;                                                                    \
        break;
#define BYTES(ID, field)                                                                           \
    case MQTT_PROPERTY_##ID:                                                                       \
        e.field = q.value;                                                                         \
        break;
            NUMBER(PAYLOAD_FORMAT_INDICATOR, payload_format_indicator)
            NUMBER(MESSAGE_EXPIRY_INTERVAL, message_expiry_s)
            BYTES(CONTENT_TYPE, content_type)
            BYTES(RESPONSE_TOPIC, response_topic)
            BYTES(CORRELATION_DATA, correlation_data)
            NUMBER(SUBSCRIPTION_IDENTIFIER, subscription_identifier)
            NUMBER(SESSION_EXPIRY_INTERVAL, session_expiry_s)
            BYTES(ASSIGNED_CLIENT_IDENTIFIER, assigned_client_id)
            NUMBER(SERVER_KEEP_ALIVE, server_keep_alive_s)
            BYTES(AUTHENTICATION_METHOD, authentication_method)
            BYTES(AUTHENTICATION_DATA, authentication_data)
            NUMBER(REQUEST_PROBLEM_INFORMATION, request_problem_information)
            NUMBER(WILL_DELAY_INTERVAL, will_delay_s)
            NUMBER(REQUEST_RESPONSE_INFORMATION, request_response_information)
            BYTES(RESPONSE_INFORMATION, response_information)
            BYTES(SERVER_REFERENCE, server_reference)
            BYTES(REASON_STRING, reason_string)
            NUMBER(RECEIVE_MAXIMUM, receive_maximum)
            NUMBER(TOPIC_ALIAS_MAXIMUM, topic_alias_maximum)
            NUMBER(TOPIC_ALIAS, topic_alias)
            NUMBER(MAXIMUM_QOS, maximum_qos)
            NUMBER(RETAIN_AVAILABLE, retain_available)
            NUMBER(MAXIMUM_PACKET_SIZE, maximum_packet_size)
            NUMBER(WILDCARD_SUBSCRIPTION_AVAILABLE, wildcard_subscription_available)
            NUMBER(SUBSCRIPTION_IDENTIFIER_AVAILABLE, subscription_identifier_available)
            NUMBER(SHARED_SUBSCRIPTION_AVAILABLE, shared_subscription_available)
#undef NUMBER
#undef BYTES
        case MQTT_PROPERTY_USER_PROPERTY: {
            chr_slice value;
            if (!mqtt_user_property_find(p, q.name, &value) ||
                !mqtt_has(p, MQTT_PROPERTY_USER_PROPERTY))
                return false;
            break;
        }
        }
    }
#define SAME(field)       (p->field == e.field)
#define SAME_BYTES(field) (chr_slice_eq(p->field, e.field))
    return walked == p->raw.len && SAME(present) && SAME(session_expiry_s) &&
           SAME(message_expiry_s) && SAME(will_delay_s) && SAME(maximum_packet_size) &&
           SAME(subscription_identifier) && SAME(receive_maximum) && SAME(topic_alias_maximum) &&
           SAME(topic_alias) && SAME(server_keep_alive_s) && SAME(payload_format_indicator) &&
           SAME(maximum_qos) && SAME(request_problem_information) &&
           SAME(request_response_information) && SAME(retain_available) &&
           SAME(wildcard_subscription_available) && SAME(subscription_identifier_available) &&
           SAME(shared_subscription_available) && SAME_BYTES(content_type) &&
           SAME_BYTES(response_topic) && SAME_BYTES(correlation_data) &&
           SAME_BYTES(reason_string) && SAME_BYTES(assigned_client_id) &&
           SAME_BYTES(authentication_method) && SAME_BYTES(authentication_data) &&
           SAME_BYTES(response_information) && SAME_BYTES(server_reference);
#undef SAME
#undef SAME_BYTES
}

static inline bool any_properties_agree(const struct any_packet *any)
{
    switch (any->type) {
    case MQTT_CONNECT:
        return properties_agree(&any->u.connect.properties) &&
               (!any->u.connect.has_will || properties_agree(&any->u.connect.will.properties));
    case MQTT_CONNACK:
        return properties_agree(&any->u.connack.properties);
    case MQTT_PUBLISH:
        return properties_agree(&any->u.publish.properties);
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        return properties_agree(&any->u.ack.properties);
    case MQTT_SUBSCRIBE:
        return properties_agree(&any->u.subscribe.properties);
    case MQTT_SUBACK:
        return properties_agree(&any->u.suback.properties);
    case MQTT_UNSUBSCRIBE:
        return properties_agree(&any->u.unsubscribe.properties);
    case MQTT_UNSUBACK:
        return properties_agree(&any->u.unsuback.properties);
    case MQTT_DISCONNECT:
        return properties_agree(&any->u.disconnect.properties);
    case MQTT_AUTH:
        return properties_agree(&any->u.auth.properties);
    default:
        return true;
    }
}

/* ---- Packets to text ------------------------------------------------------------------------ */

static inline void dump_string(struct chr_buf *out, chr_slice s)
{
    chr_buf_add_cstr(out, "\"");
    for (size_t i = 0; i < s.len && i < 48; i++) {
        uint8_t c = s.ptr[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
            chr_buf_add_u8(out, c);
        else
            chr_buf_addf(out, "\\x%02x", c);
    }
    chr_buf_add_cstr(out, "\"");
    if (s.len > 48)
        chr_buf_addf(out, "(%zu bytes)", s.len);
}

static inline void dump_properties(struct chr_buf *out, const char *indent,
                                   const struct mqtt_properties *properties)
{
    struct mqtt_property_iter it = mqtt_property_iter(properties);
    struct mqtt_property p;
    while (mqtt_property_next(&it, &p)) {
        chr_buf_addf(out, "%s%s ", indent, mqtt_property_text(p.id));
        switch (mqtt_property_type(p.id)) {
        case MQTT_TYPE_STRING_PAIR:
            dump_string(out, p.name);
            chr_buf_add_cstr(out, " = ");
            dump_string(out, p.value);
            break;
        case MQTT_TYPE_STRING:
        case MQTT_TYPE_BINARY:
            dump_string(out, p.value);
            break;
        default:
            chr_buf_addf(out, "%u", (unsigned)p.number);
        }
        chr_buf_add_cstr(out, "\n");
    }
}

static inline void dump_reasons(struct chr_buf *out, chr_slice codes)
{
    for (size_t i = 0; i < codes.len; i++)
        chr_buf_addf(out, " 0x%02x", codes.ptr[i]);
}

static inline void dump_packet(struct chr_buf *out, const struct any_packet *any)
{
    const char *indent = "  ";
    chr_buf_add_cstr(out, mqtt_packet_name(any->type));
    switch (any->type) {
    case MQTT_CONNECT: {
        const struct mqtt_connect *c = &any->u.connect;
        chr_buf_addf(out, " version=%d clean_start=%d keep_alive=%d client_id=", c->version,
                     c->clean_start, c->keep_alive_s);
        dump_string(out, c->client_id);
        if (c->has_username) {
            chr_buf_add_cstr(out, " username=");
            dump_string(out, c->username);
        }
        if (c->has_password) {
            chr_buf_add_cstr(out, " password=");
            dump_string(out, c->password);
        }
        chr_buf_add_cstr(out, "\n");
        dump_properties(out, indent, &c->properties);
        if (c->has_will) {
            chr_buf_addf(out, "  will qos=%d retain=%d topic=", c->will.qos, c->will.retain);
            dump_string(out, c->will.topic);
            chr_buf_add_cstr(out, " payload=");
            dump_string(out, c->will.payload);
            chr_buf_add_cstr(out, "\n");
            dump_properties(out, "    ", &c->will.properties);
        }
        break;
    }
    case MQTT_CONNACK:
        chr_buf_addf(out, " session_present=%d reason=0x%02x\n", any->u.connack.session_present,
                     any->u.connack.reason_code);
        dump_properties(out, indent, &any->u.connack.properties);
        break;
    case MQTT_PUBLISH: {
        const struct mqtt_publish *p = &any->u.publish;
        chr_buf_addf(out, " qos=%d%s%s", p->qos, p->retain ? " retain" : "", p->dup ? " dup" : "");
        if (p->packet_id)
            chr_buf_addf(out, " id=%d", p->packet_id);
        chr_buf_add_cstr(out, " topic=");
        dump_string(out, p->topic);
        chr_buf_add_cstr(out, " payload=");
        dump_string(out, p->payload);
        chr_buf_add_cstr(out, "\n");
        dump_properties(out, indent, &p->properties);
        break;
    }
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBREL:
    case MQTT_PUBCOMP:
        chr_buf_addf(out, " id=%d reason=0x%02x\n", any->u.ack.packet_id, any->u.ack.reason_code);
        dump_properties(out, indent, &any->u.ack.properties);
        break;
    case MQTT_SUBSCRIBE: {
        chr_buf_addf(out, " id=%d\n", any->u.subscribe.packet_id);
        dump_properties(out, indent, &any->u.subscribe.properties);
        struct mqtt_filter_iter it = {any->u.subscribe.filters};
        struct mqtt_subscription s;
        while (mqtt_subscribe_next(&it, &s)) {
            chr_buf_add_cstr(out, "  filter ");
            dump_string(out, s.filter);
            chr_buf_addf(out, " qos=%d%s%s retain_handling=%d\n", s.qos,
                         s.no_local ? " no_local" : "",
                         s.retain_as_published ? " retain_as_published" : "", s.retain_handling);
        }
        break;
    }
    case MQTT_UNSUBSCRIBE: {
        chr_buf_addf(out, " id=%d\n", any->u.unsubscribe.packet_id);
        dump_properties(out, indent, &any->u.unsubscribe.properties);
        struct mqtt_filter_iter it = {any->u.unsubscribe.filters};
        chr_slice filter;
        while (mqtt_unsubscribe_next(&it, &filter)) {
            chr_buf_add_cstr(out, "  filter ");
            dump_string(out, filter);
            chr_buf_add_cstr(out, "\n");
        }
        break;
    }
    case MQTT_SUBACK:
        chr_buf_addf(out, " id=%d reasons", any->u.suback.packet_id);
        dump_reasons(out, any->u.suback.reason_codes);
        chr_buf_add_cstr(out, "\n");
        dump_properties(out, indent, &any->u.suback.properties);
        break;
    case MQTT_UNSUBACK:
        chr_buf_addf(out, " id=%d reasons", any->u.unsuback.packet_id);
        dump_reasons(out, any->u.unsuback.reason_codes);
        chr_buf_add_cstr(out, "\n");
        dump_properties(out, indent, &any->u.unsuback.properties);
        break;
    case MQTT_DISCONNECT:
        chr_buf_addf(out, " reason=0x%02x\n", any->u.disconnect.reason_code);
        dump_properties(out, indent, &any->u.disconnect.properties);
        break;
    case MQTT_AUTH:
        chr_buf_addf(out, " reason=0x%02x\n", any->u.auth.reason_code);
        dump_properties(out, indent, &any->u.auth.properties);
        break;
    default:
        chr_buf_add_cstr(out, "\n");
    }
}

static inline void dump_fault(struct chr_buf *out, const struct mqtt_fault *fault)
{
    chr_buf_addf(out, "fault 0x%02x %s\n", fault->reason_code, fault->rule);
}

#endif
