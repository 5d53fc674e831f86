/* proto/mqtt/topic.c: topic names and filters, straight from sections 4.7 and 4.8. */
#include "proto/mqtt/topic.h"

#include "base/bytes.h"
#include "base/utf8.h"
#include "proto/mqtt/read.h"

/* ---- One pass over a name ------------------------------------------------------------------- */

#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

/* High bits set where a byte is 0 (and, harmlessly, perhaps above one that is). */
CHR_INLINE uint64_t zero_bytes(uint64_t v)
{
    return (v - ONES) & ~v;
}

/* '#' is 0x23 and '+' is 0x2b: with bit 3 set both are '+', and nothing else is. */
_Static_assert(('#' | 8) == '+' && ('+' | 8) == '+', "one comparison finds both wildcards");

/* Not 0 if one of eight bytes is above 0x7f, 0, '+' or '#'. */
CHR_INLINE uint64_t special_bytes(uint64_t v)
{
    return (v | zero_bytes(v) | zero_bytes((v | ONES * 8) ^ ONES * '+')) & HIGHS;
}

CHR_INLINE bool special_byte(uint8_t c)
{
    return c == 0 || c > 0x7f || (c | 8) == '+';
}

bool mqtt__topic_plain(const uint8_t *s, size_t len)
{
    if (len < 8) {
        for (size_t i = 0; i < len; i++)
            if (special_byte(s[i]))
                return false;
        return true;
    }
    /* The last eight bytes overlap the ones before rather than reach past the end. */
    uint64_t found = special_bytes(chr_get_u64le(s + len - 8));
    for (size_t i = 0; i + 8 < len; i += 8)
        found |= special_bytes(chr_get_u64le(s + i));
    return !found;
}

bool mqtt_topic_has_wildcard(chr_slice filter)
{
    return filter.len &&
           (memchr(filter.ptr, '+', filter.len) || memchr(filter.ptr, '#', filter.len));
}

bool mqtt_topic_name_valid(chr_slice name)
{
    if (name.len == 0 || name.len > MQTT_STRING_BYTES_MAX)
        return false;
    return mqtt__topic_plain(name.ptr, name.len) ||
           (chr_utf8_valid_mqtt(name) && !mqtt_topic_has_wildcard(name));
}

/* ---- Filters -------------------------------------------------------------------------------- */

int mqtt__wildcard_fault(chr_slice filter)
{
    for (size_t i = 0; i < filter.len; i++) {
        uint8_t c = filter.ptr[i];
        if (c != '+' && c != '#')
            continue;
        bool starts_level = i == 0 || filter.ptr[i - 1] == '/';
        bool last = i + 1 == filter.len;
        if (c == '#' && !(starts_level && last)) /* [MQTT-4.7.1-1] */
            return MQTT_FAULT_FILTER_HASH;
        if (c == '+' && !(starts_level && (last || filter.ptr[i + 1] == '/'))) /* [MQTT-4.7.1-2] */
            return MQTT_FAULT_FILTER_PLUS;
    }
    return MQTT__OK;
}

bool mqtt_topic_wildcards_valid(chr_slice filter)
{
    return mqtt__wildcard_fault(filter) == MQTT__OK;
}

bool mqtt_topic_filter_valid(chr_slice filter)
{
    return filter.len > 0 && filter.len <= MQTT_STRING_BYTES_MAX && chr_utf8_valid_mqtt(filter) &&
           mqtt_topic_wildcards_valid(filter);
}

int mqtt__share_fault(chr_slice filter)
{
    chr_slice prefix = CHR_LIT("$share/");
    if (!chr_slice_starts(filter, prefix))
        return MQTT__OK;
    const uint8_t *name = filter.ptr + prefix.len;
    const uint8_t *end = filter.ptr + filter.len;
    const uint8_t *at = name;
    while (at < end && *at != '/') {
        if (*at == '+' || *at == '#')
            return MQTT_FAULT_SHARE_NAME;
        at++;
    }
    if (at == name)
        return MQTT_FAULT_SHARE_NAME_EMPTY;
    /* A slash, and behind it a filter of at least one character. */
    return end - at < 2 ? (int)MQTT_FAULT_SHARE_NAME : MQTT__OK;
}

int mqtt_share_parse(chr_slice filter, chr_slice *group, chr_slice *rest)
{
    chr_slice prefix = CHR_LIT("$share/");
    *group = chr_slice_of(filter.ptr, 0);
    *rest = filter;
    if (!chr_slice_starts(filter, prefix))
        return 0;
    if (mqtt__share_fault(filter) != MQTT__OK)
        return CHR_EMALFORMED;
    const uint8_t *name = filter.ptr + prefix.len;
    const uint8_t *slash = (const uint8_t *)memchr(name, '/', filter.len - prefix.len);
    *group = chr_slice_of(name, (size_t)(slash - name));
    *rest = chr_slice_of(slash + 1, (size_t)(filter.ptr + filter.len - slash - 1));
    return 1;
}

/* ---- Levels and matching -------------------------------------------------------------------- */

size_t mqtt_topic_levels(chr_slice topic)
{
    size_t levels = 1;
    for (size_t i = 0; i < topic.len; i++)
        levels += topic.ptr[i] == '/';
    return levels;
}

bool mqtt_topic_matches(chr_slice filter, chr_slice name)
{
    /* [MQTT-4.7.2-1] */
    if (name.len && name.ptr[0] == '$' && filter.len &&
        (filter.ptr[0] == '+' || filter.ptr[0] == '#'))
        return false;

    struct mqtt_level_iter filters = mqtt_level_iter(filter);
    struct mqtt_level_iter names = mqtt_level_iter(name);
    chr_slice f, n;
    while (mqtt_level_next(&filters, &f)) {
        if (chr_slice_eq(f, CHR_LIT("#"))) /* the rest, and the parent itself (4.7.1.2) */
            return true;
        if (!mqtt_level_next(&names, &n))
            return false;
        if (!chr_slice_eq(f, CHR_LIT("+")) && !chr_slice_eq(f, n))
            return false;
    }
    return !mqtt_level_next(&names, &n);
}
