/* proto/mqtt/topic.h: topic names and topic filters (4.7, 4.8).
 *
 * Plain functions over whole strings, right by looking at them. The broker's subscription trie is
 * the clever thing; mqtt_topic_matches() is the naive twin it is tested against. */
#ifndef CHR_PROTO_MQTT_TOPIC_H
#define CHR_PROTO_MQTT_TOPIC_H

#include <stdbool.h>

#include "base/err.h"
#include "base/slice.h"

/* Levels the broker accepts in a name or filter; the standard has no limit of its own. As in
 * Mosquitto, so that no fleet that works there fails here. Decoders do not enforce it: see
 * mqtt_topic_levels(). */
#define MQTT_TOPIC_LEVELS_MAX 200

/* Valid UTF-8 without U+0000, at least one byte, at most 65,535, no wildcard
 * [MQTT-3.3.2-2, 4.7.3-1, -2, -3]. */
bool mqtt_topic_name_valid(chr_slice name);
/* Valid UTF-8 without U+0000, 1 to 65,535 bytes, `+` and `#` alone in their level, `#` last
 * [MQTT-4.7.1-1, -2, 4.7.3-1, -2, -3]. Says nothing about `$share`. */
bool mqtt_topic_filter_valid(chr_slice filter);
/* Only where the wildcards stand, for a filter that is known to be proper UTF-8. */
bool mqtt_topic_wildcards_valid(chr_slice filter);
bool mqtt_topic_has_wildcard(chr_slice filter);

/* Number of levels: one more than there are slashes. "/a" has two, the first empty. */
size_t mqtt_topic_levels(chr_slice topic);

/* Level by level; empty levels count:
 *     struct mqtt_level_iter it = mqtt_level_iter(topic);
 *     while (mqtt_level_next(&it, &level)) … */
struct mqtt_level_iter {
    const uint8_t *at;  /* start of the next level */
    const uint8_t *end; /* exclusive */
    bool done;
};
CHR_INLINE struct mqtt_level_iter mqtt_level_iter(chr_slice topic)
{
    return (struct mqtt_level_iter){.at = topic.ptr, .end = topic.ptr + topic.len};
}
CHR_INLINE bool mqtt_level_next(struct mqtt_level_iter *it, chr_slice *level)
{
    if (it->done)
        return false;
    size_t left = (size_t)(it->end - it->at);
    const uint8_t *slash = left ? (const uint8_t *)memchr(it->at, '/', left) : NULL;
    if (slash) {
        *level = chr_slice_of(it->at, (size_t)(slash - it->at));
        it->at = slash + 1;
    } else {
        *level = chr_slice_of(it->at, left);
        it->done = true;
    }
    return true;
}

/* Does a valid filter (without `$share/…/`) match a valid name? Byte by byte, case matters; a
 * filter that starts with a wildcard matches no name that starts with `$` [MQTT-4.7.2-1]. */
bool mqtt_topic_matches(chr_slice filter, chr_slice name);

/* Takes `$share/<group>/<filter>` apart [MQTT-4.8.2-1, -2].
 * 1: shared, group and rest are set (parts of filter). 0: not a shared subscription; rest is
 * filter, group is empty. CHR_EMALFORMED: starts with `$share/` but goes on wrongly. */
int mqtt_share_parse(chr_slice filter, chr_slice *group, chr_slice *rest);

#endif
