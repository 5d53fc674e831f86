#include "broker/session/filter_changes.h"

#include "base/hash.h"
#include "proto/mqtt/topic.h"

/* What a part is, so that "a" as a text, a beginning and a level are three keys. */
enum part { PART_TEXT = 1, PART_BEGINNING, PART_LEVEL };

static uint32_t key_of(uint64_t hash)
{
    /* 0 is the key of all. */
    return 1 + (uint32_t)((hash >> 32) * (FILTER_CHANGES_KEYS - 1) >> 32);
}

static uint64_t seed_of(enum part part)
{
    return chr_hash_seed() + (uint64_t)part;
}

static uint64_t hash_beginning(uint64_t hash, uint64_t level)
{
    return chr_hash_u64(hash ^ level) + 1;
}

static uint64_t hash_level(uint64_t level, uint32_t position)
{
    return chr_hash_u64(level + position * UINT64_C(0x9e3779b97f4a7c15));
}

/* Names of things are longer than names of kinds and tend to have digits in them. */
static uint32_t rarity(chr_slice level)
{
    uint32_t weight = (uint32_t)level.len;
    for (size_t i = 0; i < level.len; i++)
        weight += level.ptr[i] >= '0' && level.ptr[i] <= '9' ? 4 : 0;
    return weight;
}

uint32_t filter_changes_key(chr_slice filter)
{
    if (!mqtt_topic_has_wildcard(filter))
        return key_of(chr_hash_slice(filter, seed_of(PART_TEXT)));
    uint64_t beginning = seed_of(PART_BEGINNING), best = 0;
    uint32_t weight = 0, best_weight = 0, position = 0;
    bool wild = false, any = false;
    struct mqtt_level_iter it = mqtt_level_iter(filter);
    chr_slice level;
    for (; mqtt_level_next(&it, &level); position++) {
        if (level.len == 1 && (level.ptr[0] == '+' || level.ptr[0] == '#')) {
            wild = true;
            continue;
        }
        if (!wild) {
            beginning = hash_beginning(beginning, chr_hash_slice(level, seed_of(PART_LEVEL)));
            weight += rarity(level) + 1;
            best = beginning;
            best_weight = weight;
            any = true;
        } else if (!any || rarity(level) > best_weight) {
            best = hash_level(chr_hash_slice(level, seed_of(PART_LEVEL)), position);
            best_weight = rarity(level);
            any = true;
        }
    }
    return any ? key_of(best) : FILTER_CHANGES_ALL;
}

static uint64_t count_of(const _Atomic uint64_t *counts, uint32_t key)
{
    return atomic_load_explicit(&counts[key], memory_order_acquire);
}

uint64_t filter_changes_sum(const _Atomic uint64_t *counts, chr_slice topic)
{
    uint64_t sum = count_of(counts, FILTER_CHANGES_ALL) +
                   count_of(counts, key_of(chr_hash_slice(topic, seed_of(PART_TEXT))));
    uint64_t beginning = seed_of(PART_BEGINNING);
    uint32_t position = 0;
    struct mqtt_level_iter it = mqtt_level_iter(topic);
    chr_slice level;
    for (; mqtt_level_next(&it, &level); position++) {
        uint64_t hash = chr_hash_slice(level, seed_of(PART_LEVEL));
        beginning = hash_beginning(beginning, hash);
        sum += count_of(counts, key_of(beginning)) +
               count_of(counts, key_of(hash_level(hash, position)));
    }
    return sum;
}
