/* proto/mqtt/encode.c: packets to bytes.
 *
 * Each encoder computes its Remaining Length first, in one place shared with its _size function,
 * and then writes without further checks. */
#include "proto/mqtt/encode.h"

/* ---- Sizes ---------------------------------------------------------------------------------- */

/* Larger than any packet; sums of a few of these do not overflow 64 bits. */
#define IMPOSSIBLE (UINT64_C(1) << 40)

static uint64_t string_size(chr_slice s)
{
    return s.len <= MQTT_STRING_BYTES_MAX ? 2 + s.len : IMPOSSIBLE;
}

/* A property block of `len` bytes and its length field; nothing in 3.1.1. */
static uint64_t block_size(enum mqtt_version version, size_t len)
{
    if (version != MQTT_V5)
        return 0;
    return len <= MQTT_VARINT_MAX ? mqtt_varint_bytes((uint32_t)len) + len : IMPOSSIBLE;
}

/* The whole packet around a Remaining Length; 0 if there is no such packet. */
static size_t packet_size(uint64_t remaining)
{
    return remaining <= MQTT_REMAINING_LENGTH_MAX
               ? 1 + mqtt_varint_bytes((uint32_t)remaining) + (size_t)remaining
               : 0;
}

/* ---- Pieces --------------------------------------------------------------------------------- */

/* Writes the fixed header if the packet fits. NULL otherwise. */
static uint8_t *begin(uint8_t *out, size_t capacity, unsigned first_byte, uint64_t remaining)
{
    size_t size = packet_size(remaining);
    if (size == 0 || size > capacity)
        return NULL;
    *out = (uint8_t)first_byte;
    return mqtt_varint_put(out + 1, (uint32_t)remaining);
}

static uint8_t *put_bytes(uint8_t *at, chr_slice s)
{
    if (s.len)
        memcpy(at, s.ptr, s.len);
    return at + s.len;
}

static uint8_t *put_u8(uint8_t *at, unsigned value)
{
    *at = (uint8_t)value;
    return at + 1;
}

static uint8_t *put_u16(uint8_t *at, uint16_t value)
{
    chr_put_u16be(at, value);
    return at + 2;
}

static uint8_t *put_string(uint8_t *at, chr_slice s)
{
    return put_bytes(put_u16(at, (uint16_t)s.len), s);
}

static uint8_t *put_block(uint8_t *at, enum mqtt_version version, chr_slice block)
{
    if (version != MQTT_V5)
        return at;
    return put_bytes(mqtt_varint_put(at, (uint32_t)block.len), block);
}

/* ---- CONNECT -------------------------------------------------------------------------------- */

static uint64_t connect_remaining(const struct mqtt_connect *c)
{
    uint64_t n = 10 + block_size(c->version, c->properties.raw.len) + string_size(c->client_id);
    if (c->has_will)
        n += block_size(c->version, c->will.properties.raw.len) + string_size(c->will.topic) +
             string_size(c->will.payload);
    if (c->has_username)
        n += string_size(c->username);
    if (c->has_password)
        n += string_size(c->password);
    return n;
}

size_t mqtt_encode_connect_size(const struct mqtt_connect *connect)
{
    return packet_size(connect_remaining(connect));
}

size_t mqtt_encode_connect(uint8_t *out, size_t capacity, const struct mqtt_connect *connect)
{
    uint8_t *at = begin(out, capacity, MQTT_CONNECT << 4, connect_remaining(connect));
    if (!at)
        return 0;
    unsigned flags = (connect->clean_start ? 0x02u : 0) | (connect->has_password ? 0x40u : 0) |
                     (connect->has_username ? 0x80u : 0);
    if (connect->has_will)
        flags |= 0x04u | (unsigned)connect->will.qos << 3 | (connect->will.retain ? 0x20u : 0);
    at = put_string(at, CHR_LIT("MQTT"));
    at = put_u8(at, connect->version);
    at = put_u8(at, flags);
    at = put_u16(at, connect->keep_alive_s);
    at = put_block(at, connect->version, connect->properties.raw);
    at = put_string(at, connect->client_id);
    if (connect->has_will) {
        at = put_block(at, connect->version, connect->will.properties.raw);
        at = put_string(at, connect->will.topic);
        at = put_string(at, connect->will.payload);
    }
    if (connect->has_username)
        at = put_string(at, connect->username);
    if (connect->has_password)
        at = put_string(at, connect->password);
    return (size_t)(at - out);
}

/* ---- CONNACK -------------------------------------------------------------------------------- */

static uint64_t connack_remaining(enum mqtt_version version, const struct mqtt_connack *c)
{
    if (version != MQTT_V5 && mqtt_connack_return_code(c->reason_code) == MQTT_NO_RETURN_CODE)
        return IMPOSSIBLE;
    return 2 + block_size(version, c->properties.raw.len);
}

size_t mqtt_encode_connack_size(enum mqtt_version version, const struct mqtt_connack *connack)
{
    return packet_size(connack_remaining(version, connack));
}

size_t mqtt_encode_connack(uint8_t *out, size_t capacity, enum mqtt_version version,
                           const struct mqtt_connack *connack)
{
    uint8_t *at = begin(out, capacity, MQTT_CONNACK << 4, connack_remaining(version, connack));
    if (!at)
        return 0;
    at = put_u8(at, connack->session_present);
    at = put_u8(at, version == MQTT_V5 ? connack->reason_code
                                       : mqtt_connack_return_code(connack->reason_code));
    at = put_block(at, version, connack->properties.raw);
    return (size_t)(at - out);
}

/* ---- PUBLISH -------------------------------------------------------------------------------- */

static uint64_t publish_remaining(enum mqtt_version version, const struct mqtt_publish *p,
                                  size_t more_bytes)
{
    return string_size(p->topic) + (p->qos ? 2 : 0) +
           block_size(version, p->properties.raw.len + more_bytes) + p->payload.len;
}

size_t mqtt_encode_publish_size(enum mqtt_version version, const struct mqtt_publish *publish)
{
    return packet_size(publish_remaining(version, publish, 0));
}

size_t mqtt_encode_publish_head_size(enum mqtt_version version, const struct mqtt_publish *publish,
                                     chr_slice more, size_t *packet_bytes)
{
    *packet_bytes = packet_size(publish_remaining(version, publish, more.len));
    return *packet_bytes ? *packet_bytes - publish->payload.len : 0;
}

size_t mqtt_encode_publish_head(uint8_t *out, size_t capacity, enum mqtt_version version,
                                const struct mqtt_publish *publish, chr_slice more)
{
    unsigned first = MQTT_PUBLISH << 4 | (publish->dup ? 8u : 0) | (unsigned)publish->qos << 1 |
                     (publish->retain ? 1u : 0);
    /* The payload goes elsewhere, so it counts as room. */
    uint8_t *at = begin(out, capacity + publish->payload.len, first,
                        publish_remaining(version, publish, more.len));
    if (!at)
        return 0;
    at = put_string(at, publish->topic);
    if (publish->qos)
        at = put_u16(at, publish->packet_id);
    if (version == MQTT_V5) {
        at = mqtt_varint_put(at, (uint32_t)(publish->properties.raw.len + more.len));
        at = put_bytes(at, publish->properties.raw);
        at = put_bytes(at, more);
    }
    return (size_t)(at - out);
}

size_t mqtt_encode_publish(uint8_t *out, size_t capacity, enum mqtt_version version,
                           const struct mqtt_publish *publish)
{
    if (capacity < publish->payload.len)
        return 0;
    size_t head = mqtt_encode_publish_head(out, capacity - publish->payload.len, version, publish,
                                           (chr_slice){0});
    if (head == 0)
        return 0;
    put_bytes(out + head, publish->payload);
    return head + publish->payload.len;
}

/* ---- PUBACK, PUBREC, PUBREL, PUBCOMP -------------------------------------------------------- */

static uint64_t ack_remaining(enum mqtt_version version, const struct mqtt_ack *ack)
{
    if (version != MQTT_V5)
        return 2;
    if (ack->properties.raw.len == 0)
        return ack->reason_code == MQTT_REASON_SUCCESS ? 2 : 3;
    return 3 + block_size(version, ack->properties.raw.len);
}

size_t mqtt_encode_ack_size(enum mqtt_version version, const struct mqtt_ack *ack)
{
    return packet_size(ack_remaining(version, ack));
}

size_t mqtt_encode_ack(uint8_t *out, size_t capacity, enum mqtt_version version,
                       enum mqtt_packet_type type, const struct mqtt_ack *ack)
{
    uint64_t remaining = ack_remaining(version, ack);
    uint8_t *at =
        begin(out, capacity, (unsigned)type << 4 | (type == MQTT_PUBREL ? 2u : 0u), remaining);
    if (!at)
        return 0;
    at = put_u16(at, ack->packet_id);
    if (remaining > 2)
        at = put_u8(at, ack->reason_code);
    if (remaining > 3)
        at = put_block(at, version, ack->properties.raw);
    return (size_t)(at - out);
}

/* ---- SUBSCRIBE, UNSUBSCRIBE ----------------------------------------------------------------- */

static uint64_t subscribe_remaining(enum mqtt_version version, const struct mqtt_subscribe *s,
                                    const struct mqtt_subscription *subscriptions, size_t count)
{
    uint64_t n = 2 + block_size(version, s->properties.raw.len);
    for (size_t i = 0; i < count && n < IMPOSSIBLE; i++)
        n += string_size(subscriptions[i].filter) + 1;
    return n;
}

size_t mqtt_encode_subscribe_size(enum mqtt_version version, const struct mqtt_subscribe *subscribe,
                                  const struct mqtt_subscription *subscriptions, size_t count)
{
    return packet_size(subscribe_remaining(version, subscribe, subscriptions, count));
}

size_t mqtt_encode_subscribe(uint8_t *out, size_t capacity, enum mqtt_version version,
                             const struct mqtt_subscribe *subscribe,
                             const struct mqtt_subscription *subscriptions, size_t count)
{
    uint8_t *at = begin(out, capacity, MQTT_SUBSCRIBE << 4 | 2,
                        subscribe_remaining(version, subscribe, subscriptions, count));
    if (!at)
        return 0;
    at = put_u16(at, subscribe->packet_id);
    at = put_block(at, version, subscribe->properties.raw);
    for (size_t i = 0; i < count; i++) {
        const struct mqtt_subscription *s = &subscriptions[i];
        unsigned options = s->qos;
        if (version == MQTT_V5)
            options |= (s->no_local ? 4u : 0) | (s->retain_as_published ? 8u : 0) |
                       (unsigned)s->retain_handling << 4;
        at = put_u8(put_string(at, s->filter), options);
    }
    return (size_t)(at - out);
}

static uint64_t unsubscribe_remaining(enum mqtt_version version, const struct mqtt_unsubscribe *u,
                                      const chr_slice *filters, size_t count)
{
    uint64_t n = 2 + block_size(version, u->properties.raw.len);
    for (size_t i = 0; i < count && n < IMPOSSIBLE; i++)
        n += string_size(filters[i]);
    return n;
}

size_t mqtt_encode_unsubscribe_size(enum mqtt_version version,
                                    const struct mqtt_unsubscribe *unsubscribe,
                                    const chr_slice *filters, size_t count)
{
    return packet_size(unsubscribe_remaining(version, unsubscribe, filters, count));
}

size_t mqtt_encode_unsubscribe(uint8_t *out, size_t capacity, enum mqtt_version version,
                               const struct mqtt_unsubscribe *unsubscribe, const chr_slice *filters,
                               size_t count)
{
    uint8_t *at = begin(out, capacity, MQTT_UNSUBSCRIBE << 4 | 2,
                        unsubscribe_remaining(version, unsubscribe, filters, count));
    if (!at)
        return 0;
    at = put_u16(at, unsubscribe->packet_id);
    at = put_block(at, version, unsubscribe->properties.raw);
    for (size_t i = 0; i < count; i++)
        at = put_string(at, filters[i]);
    return (size_t)(at - out);
}

/* ---- SUBACK, UNSUBACK ----------------------------------------------------------------------- */

size_t mqtt_encode_suback_size(enum mqtt_version version, const struct mqtt_suback *suback)
{
    return packet_size(2 + block_size(version, suback->properties.raw.len) +
                       suback->reason_codes.len);
}

size_t mqtt_encode_suback(uint8_t *out, size_t capacity, enum mqtt_version version,
                          const struct mqtt_suback *suback)
{
    uint8_t *at =
        begin(out, capacity, MQTT_SUBACK << 4,
              2 + block_size(version, suback->properties.raw.len) + suback->reason_codes.len);
    if (!at)
        return 0;
    at = put_u16(at, suback->packet_id);
    at = put_block(at, version, suback->properties.raw);
    for (size_t i = 0; i < suback->reason_codes.len; i++) {
        uint8_t code = suback->reason_codes.ptr[i];
        /* 3.1.1 knows one way to fail [MQTT-3.9.3-2]. */
        at = put_u8(at, version != MQTT_V5 && code >= 0x80 ? 0x80u : code);
    }
    return (size_t)(at - out);
}

size_t mqtt_encode_unsuback_size(enum mqtt_version version, const struct mqtt_unsuback *unsuback)
{
    return packet_size(2 + block_size(version, unsuback->properties.raw.len) +
                       (version == MQTT_V5 ? unsuback->reason_codes.len : 0));
}

size_t mqtt_encode_unsuback(uint8_t *out, size_t capacity, enum mqtt_version version,
                            const struct mqtt_unsuback *unsuback)
{
    chr_slice codes = version == MQTT_V5 ? unsuback->reason_codes : (chr_slice){0};
    uint8_t *at = begin(out, capacity, MQTT_UNSUBACK << 4,
                        2 + block_size(version, unsuback->properties.raw.len) + codes.len);
    if (!at)
        return 0;
    at = put_u16(at, unsuback->packet_id);
    at = put_block(at, version, unsuback->properties.raw);
    at = put_bytes(at, codes);
    return (size_t)(at - out);
}

/* ---- DISCONNECT, AUTH ----------------------------------------------------------------------- */

/* A reason code and a property block, both left out when they say nothing. */
static uint64_t reason_remaining(enum mqtt_version version, uint8_t reason_code, size_t raw_len,
                                 bool block_optional)
{
    if (version != MQTT_V5 || (reason_code == MQTT_REASON_SUCCESS && raw_len == 0))
        return 0;
    return block_optional && raw_len == 0 ? 1 : 1 + block_size(version, raw_len);
}

static size_t encode_reason(uint8_t *out, size_t capacity, enum mqtt_version version,
                            enum mqtt_packet_type type, uint8_t reason_code, chr_slice raw,
                            uint64_t remaining)
{
    uint8_t *at = begin(out, capacity, (unsigned)type << 4, remaining);
    if (!at)
        return 0;
    if (remaining > 0)
        at = put_u8(at, reason_code);
    if (remaining > 1)
        at = put_block(at, version, raw);
    return (size_t)(at - out);
}

size_t mqtt_encode_disconnect_size(enum mqtt_version version,
                                   const struct mqtt_disconnect *disconnect)
{
    return packet_size(
        reason_remaining(version, disconnect->reason_code, disconnect->properties.raw.len, true));
}

size_t mqtt_encode_disconnect(uint8_t *out, size_t capacity, enum mqtt_version version,
                              const struct mqtt_disconnect *disconnect)
{
    return encode_reason(
        out, capacity, version, MQTT_DISCONNECT, disconnect->reason_code,
        disconnect->properties.raw,
        reason_remaining(version, disconnect->reason_code, disconnect->properties.raw.len, true));
}

/* AUTH's Property Length may only be left out together with its reason code (3.15.2.1). */
size_t mqtt_encode_auth_size(const struct mqtt_auth *auth)
{
    return packet_size(
        reason_remaining(MQTT_V5, auth->reason_code, auth->properties.raw.len, false));
}

size_t mqtt_encode_auth(uint8_t *out, size_t capacity, const struct mqtt_auth *auth)
{
    return encode_reason(
        out, capacity, MQTT_V5, MQTT_AUTH, auth->reason_code, auth->properties.raw,
        reason_remaining(MQTT_V5, auth->reason_code, auth->properties.raw.len, false));
}
