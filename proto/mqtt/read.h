/* proto/mqtt/read.h: the basic data types of the wire (1.5), read from a bounded slice.
 *
 * For the decoders of this folder. Nothing here looks past `end`, whatever the bytes say. */
#ifndef CHR_PROTO_MQTT_READ_H
#define CHR_PROTO_MQTT_READ_H

#include "base/bytes.h"
#include "base/utf8.h"
#include "proto/mqtt/fault.h"

struct mqtt__reader {
    const uint8_t *at;  /* at <= end */
    const uint8_t *end; /* exclusive */
};

CHR_INLINE struct mqtt__reader mqtt__reader(chr_slice s)
{
    return (struct mqtt__reader){.at = s.ptr, .end = s.ptr + s.len};
}
CHR_INLINE size_t mqtt__left(const struct mqtt__reader *r)
{
    return (size_t)(r->end - r->at);
}
CHR_INLINE chr_slice mqtt__rest(const struct mqtt__reader *r)
{
    return chr_slice_of(r->at, mqtt__left(r));
}

/* These return false, and read nothing, when the slice ends first. */
CHR_INLINE bool mqtt__read_u8(struct mqtt__reader *r, uint8_t *value)
{
    if (r->at == r->end)
        return false;
    *value = *r->at++;
    return true;
}
CHR_INLINE bool mqtt__read_u16(struct mqtt__reader *r, uint16_t *value)
{
    if (mqtt__left(r) < 2)
        return false;
    *value = chr_get_u16be(r->at);
    r->at += 2;
    return true;
}
CHR_INLINE bool mqtt__read_u32(struct mqtt__reader *r, uint32_t *value)
{
    if (mqtt__left(r) < 4)
        return false;
    *value = chr_get_u32be(r->at);
    r->at += 4;
    return true;
}
/* A two-byte length and that many bytes; not looked at. */
CHR_INLINE bool mqtt__read_bytes(struct mqtt__reader *r, chr_slice *bytes)
{
    if (mqtt__left(r) < 2)
        return false;
    size_t len = chr_get_u16be(r->at);
    if (mqtt__left(r) - 2 < len)
        return false;
    *bytes = chr_slice_of(r->at + 2, len);
    r->at += 2 + len;
    return true;
}

/* Variable Byte Integer (1.5.5). Above 0: bytes used. */
enum { MQTT__VARINT_SHORT = 0, MQTT__VARINT_ENDLESS = -1, MQTT__VARINT_OVERLONG = -2 };
CHR_INLINE int mqtt__get_varint(const uint8_t *at, size_t left, uint32_t *value)
{
    if (CHR_LIKELY(left > 0 && at[0] < 0x80)) {
        *value = at[0];
        return 1;
    }
    uint32_t v = 0;
    for (unsigned i = 0; i < 4; i++) {
        if (i == left)
            return MQTT__VARINT_SHORT;
        v |= (at[i] & 0x7fu) << (7 * i);
        if (at[i] < 0x80) {
            /* A last byte of 0 adds nothing: the same value fits fewer bytes [MQTT-1.5.5-1]. */
            if (at[i] == 0 && i > 0)
                return MQTT__VARINT_OVERLONG;
            *value = v;
            return (int)i + 1;
        }
    }
    return MQTT__VARINT_ENDLESS;
}

/* Says why mqtt__string_ok refused: U+0000 or anything else. */
CHR_INLINE enum mqtt__fault_id mqtt__string_fault(chr_slice s)
{
    return memchr(s.ptr, 0, s.len) && chr_utf8_valid(s) ? MQTT_FAULT_STRING_NUL
                                                        : MQTT_FAULT_STRING_UTF8;
}
/* A UTF-8 Encoded String (1.5.4). MQTT__OK or the fault it is. */
#define MQTT__OK (-1)
CHR_INLINE int mqtt__read_string(struct mqtt__reader *r, chr_slice *s)
{
    if (!mqtt__read_bytes(r, s))
        return MQTT_FAULT_STRING_TRUNCATED;
    if (CHR_UNLIKELY(!chr_utf8_valid_mqtt(*s)))
        return (int)mqtt__string_fault(*s);
    return MQTT__OK;
}

/* Reads the property block of a packet (5.0) into *out, defaults first; packet is a packet type or
 * MQTT_WILL. */
CHR_MUST_USE chr_err mqtt__read_properties(struct mqtt__reader *r, unsigned packet,
                                           enum mqtt_sender sender, struct mqtt_properties *out,
                                           struct mqtt_fault *fault);

/* What is wrong with the wildcards of a filter: MQTT__OK, MQTT_FAULT_FILTER_HASH or
 * MQTT_FAULT_FILTER_PLUS. */
int mqtt__wildcard_fault(chr_slice filter);
/* The same for `$share/…`: MQTT__OK (also when not shared), MQTT_FAULT_SHARE_NAME_EMPTY or
 * MQTT_FAULT_SHARE_NAME. */
int mqtt__share_fault(chr_slice filter);
/* No byte is above 0x7f, 0, '+' or '#': the whole answer for nearly every topic name. */
bool mqtt__topic_plain(const uint8_t *s, size_t len);

#endif
