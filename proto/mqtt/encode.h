/* proto/mqtt/encode.h: from packets to bytes, into the caller's buffer.
 *
 * Each mqtt_encode_x() writes one packet at `out` and returns its length, or 0 and nothing useful
 * when it does not fit `capacity` (or cannot be expressed: a string above 65,535 bytes, a packet
 * above 256 MiB). Its mqtt_encode_x_size() is exactly that length, 0 if it cannot be expressed.
 * Encoders copy what they are told: they do not check UTF-8 or the rules of the standard.
 *
 * Of `properties` only `raw` is written, and only in 5.0; make it with the property writer below,
 * or leave it empty. A decoded packet encodes to a packet with the same meaning (the same bytes,
 * but for optional parts that are left out when they say nothing).
 *
 * Two differences between versions are levelled here, so that callers may speak 5.0 throughout:
 * reason codes are translated for 3.1.1's CONNACK (a reason it has no return code for cannot be
 * expressed) and SUBACK, and its UNSUBACK has none. */
#ifndef CHR_PROTO_MQTT_ENCODE_H
#define CHR_PROTO_MQTT_ENCODE_H

#include "base/bytes.h"
#include "proto/mqtt/packet.h"

/* ---- Acknowledgements: the hot ones --------------------------------------------------------- */

/* Room for any acknowledgement without properties, PINGRESP included. */
#define MQTT_ACK_BYTES_MAX 5

/* PUBACK and kin without properties: 4 bytes, or 5 when 5.0 has a reason other than success to
 * tell. `out` has room for MQTT_ACK_BYTES_MAX. */
CHR_INLINE size_t mqtt_encode_ack_short(uint8_t *out, enum mqtt_version version,
                                        enum mqtt_packet_type type, uint16_t packet_id,
                                        uint8_t reason_code)
{
    out[0] = (uint8_t)((unsigned)type << 4 | (type == MQTT_PUBREL ? 2u : 0u));
    chr_put_u16be(out + 2, packet_id);
    if (version != MQTT_V5 || reason_code == MQTT_REASON_SUCCESS) {
        out[1] = 2;
        return 4;
    }
    out[1] = 3;
    out[4] = reason_code;
    return 5;
}
CHR_INLINE size_t mqtt_encode_puback(uint8_t *out, enum mqtt_version version, uint16_t packet_id,
                                     uint8_t reason_code)
{
    return mqtt_encode_ack_short(out, version, MQTT_PUBACK, packet_id, reason_code);
}
CHR_INLINE size_t mqtt_encode_pubrec(uint8_t *out, enum mqtt_version version, uint16_t packet_id,
                                     uint8_t reason_code)
{
    return mqtt_encode_ack_short(out, version, MQTT_PUBREC, packet_id, reason_code);
}
CHR_INLINE size_t mqtt_encode_pubrel(uint8_t *out, enum mqtt_version version, uint16_t packet_id,
                                     uint8_t reason_code)
{
    return mqtt_encode_ack_short(out, version, MQTT_PUBREL, packet_id, reason_code);
}
CHR_INLINE size_t mqtt_encode_pubcomp(uint8_t *out, enum mqtt_version version, uint16_t packet_id,
                                      uint8_t reason_code)
{
    return mqtt_encode_ack_short(out, version, MQTT_PUBCOMP, packet_id, reason_code);
}
/* Two bytes each. */
CHR_INLINE size_t mqtt_encode_pingreq(uint8_t *out)
{
    out[0] = MQTT_PINGREQ << 4;
    out[1] = 0;
    return 2;
}
CHR_INLINE size_t mqtt_encode_pingresp(uint8_t *out)
{
    out[0] = MQTT_PINGRESP << 4;
    out[1] = 0;
    return 2;
}

/* ---- Variable Byte Integers (1.5.5) ---------------------------------------------------------- */

/* value <= MQTT_VARINT_MAX, in both. */
CHR_INLINE size_t mqtt_varint_bytes(uint32_t value)
{
    return 1 + (size_t)(value > 0x7f) + (size_t)(value > 0x3fff) + (size_t)(value > 0x1fffff);
}
/* Returns the end of what it wrote. */
CHR_INLINE uint8_t *mqtt_varint_put(uint8_t *at, uint32_t value)
{
    while (value > 0x7f) {
        *at++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *at++ = (uint8_t)value;
    return at;
}

/* ---- Property blocks ------------------------------------------------------------------------ */

/* Writes a property block into the caller's buffer:
 *     struct mqtt_property_writer w = mqtt_property_writer(scratch, sizeof scratch);
 *     mqtt_put_number(&w, MQTT_PROPERTY_RECEIVE_MAXIMUM, 100);
 *     mqtt_put_user(&w, CHR_LIT("part"), CHR_LIT("1"));
 *     connack.properties.raw = mqtt_property_block(&w);
 * What does not fit sets `failed` and writes nothing; check it once, at the end. */
struct mqtt_property_writer {
    uint8_t *start; /* borrowed from the caller, as long as the block is used */
    uint8_t *at;
    uint8_t *end; /* exclusive */
    bool failed;  /* sticky: something did not fit */
};
CHR_INLINE struct mqtt_property_writer mqtt_property_writer(uint8_t *buffer, size_t capacity)
{
    return (struct mqtt_property_writer){.start = buffer, .at = buffer, .end = buffer + capacity};
}
/* For properties of type U8, U16, U32 and VARINT; the width follows from the identifier. */
void mqtt_put_number(struct mqtt_property_writer *w, enum mqtt_property_id id, uint32_t value);
/* For properties of type STRING and BINARY. */
void mqtt_put_bytes(struct mqtt_property_writer *w, enum mqtt_property_id id, chr_slice value);
void mqtt_put_user(struct mqtt_property_writer *w, chr_slice name, chr_slice value);
/* Adds a block that is already encoded. */
void mqtt_put_raw(struct mqtt_property_writer *w, chr_slice block);
/* Copies those properties whose bit is in `which`, in their order; for forwarding a message. */
void mqtt_put_copy(struct mqtt_property_writer *w, const struct mqtt_properties *from,
                   uint64_t which);
/* The block so far. */
CHR_INLINE chr_slice mqtt_property_block(const struct mqtt_property_writer *w)
{
    return chr_slice_of(w->start, (size_t)(w->at - w->start));
}
/* The properties of a message that a server forwards unaltered (3.3.2.3). The others it drops
 * (Topic Alias, Subscription Identifier) or computes anew (Message Expiry Interval). */
#define MQTT_PROPERTIES_FORWARDED                                                                  \
    (MQTT_PROPERTY_BIT(PAYLOAD_FORMAT_INDICATOR) | MQTT_PROPERTY_BIT(CONTENT_TYPE) |               \
     MQTT_PROPERTY_BIT(RESPONSE_TOPIC) | MQTT_PROPERTY_BIT(CORRELATION_DATA) |                     \
     MQTT_PROPERTY_BIT(USER_PROPERTY))

/* ---- PUBLISH -------------------------------------------------------------------------------- */

size_t mqtt_encode_publish_size(enum mqtt_version version, const struct mqtt_publish *publish);
size_t mqtt_encode_publish(uint8_t *out, size_t capacity, enum mqtt_version version,
                           const struct mqtt_publish *publish);

/* All of a PUBLISH but its payload, whose bytes the caller sends right after (from a buffer that
 * many deliveries share). `more` is a second property block written after publish's own: what
 * differs from subscriber to subscriber (expiry left, alias, subscription identifiers). */
size_t mqtt_encode_publish_head(uint8_t *out, size_t capacity, enum mqtt_version version,
                                const struct mqtt_publish *publish, chr_slice more);
/* Of the whole packet, payload included: what Maximum Packet Size is compared with. */
size_t mqtt_encode_publish_head_size(enum mqtt_version version, const struct mqtt_publish *publish,
                                     chr_slice more, size_t *packet_bytes);

/* ---- The others ----------------------------------------------------------------------------- */

/* connect->version decides. */
size_t mqtt_encode_connect_size(const struct mqtt_connect *connect);
size_t mqtt_encode_connect(uint8_t *out, size_t capacity, const struct mqtt_connect *connect);

size_t mqtt_encode_connack_size(enum mqtt_version version, const struct mqtt_connack *connack);
size_t mqtt_encode_connack(uint8_t *out, size_t capacity, enum mqtt_version version,
                           const struct mqtt_connack *connack);

/* PUBACK, PUBREC, PUBREL, PUBCOMP with properties. */
size_t mqtt_encode_ack_size(enum mqtt_version version, const struct mqtt_ack *ack);
size_t mqtt_encode_ack(uint8_t *out, size_t capacity, enum mqtt_version version,
                       enum mqtt_packet_type type, const struct mqtt_ack *ack);

/* `filters` and `filters_count` of the struct are not read; the array is. */
size_t mqtt_encode_subscribe_size(enum mqtt_version version, const struct mqtt_subscribe *subscribe,
                                  const struct mqtt_subscription *subscriptions, size_t count);
size_t mqtt_encode_subscribe(uint8_t *out, size_t capacity, enum mqtt_version version,
                             const struct mqtt_subscribe *subscribe,
                             const struct mqtt_subscription *subscriptions, size_t count);
size_t mqtt_encode_unsubscribe_size(enum mqtt_version version,
                                    const struct mqtt_unsubscribe *unsubscribe,
                                    const chr_slice *filters, size_t count);
size_t mqtt_encode_unsubscribe(uint8_t *out, size_t capacity, enum mqtt_version version,
                               const struct mqtt_unsubscribe *unsubscribe, const chr_slice *filters,
                               size_t count);

size_t mqtt_encode_suback_size(enum mqtt_version version, const struct mqtt_suback *suback);
size_t mqtt_encode_suback(uint8_t *out, size_t capacity, enum mqtt_version version,
                          const struct mqtt_suback *suback);
size_t mqtt_encode_unsuback_size(enum mqtt_version version, const struct mqtt_unsuback *unsuback);
size_t mqtt_encode_unsuback(uint8_t *out, size_t capacity, enum mqtt_version version,
                            const struct mqtt_unsuback *unsuback);

/* In 3.1.1 only a client sends DISCONNECT, and it says nothing. */
size_t mqtt_encode_disconnect_size(enum mqtt_version version,
                                   const struct mqtt_disconnect *disconnect);
size_t mqtt_encode_disconnect(uint8_t *out, size_t capacity, enum mqtt_version version,
                              const struct mqtt_disconnect *disconnect);
/* 5.0 only. */
size_t mqtt_encode_auth_size(const struct mqtt_auth *auth);
size_t mqtt_encode_auth(uint8_t *out, size_t capacity, const struct mqtt_auth *auth);

#endif
