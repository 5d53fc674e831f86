/* broker/session/sent_aliases.c: a small hash table of topics by alias, with a clock hand. */
#include "broker/session/sent_aliases.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

#define ENTRIES_FIRST 8u

struct entry {
    uint8_t *topic; /* owned */
    uint64_t hash;
    uint16_t len;
    uint16_t next; /* alias of the next entry of its bucket; 0: none */
    bool used;     /* since the hand last came by */
};

struct sent_aliases {
    struct entry *entries; /* [capacity], by alias - 1; those below count are taken */
    uint16_t *buckets;     /* [mask + 1]; alias of the first, 0: none */
    uint32_t max;
    uint32_t count, capacity, mask;
    uint32_t hand; /* index of the entry that is looked at next when all are taken */
};

struct sent_aliases *sent_aliases_new(uint16_t max)
{
    CHR_ASSERT(max > 0);
    struct sent_aliases *a = calloc(1, sizeof *a);
    if (a)
        a->max = max;
    return a;
}

void sent_aliases_free(struct sent_aliases *a)
{
    if (!a)
        return;
    for (uint32_t i = 0; i < a->count; i++)
        free(a->entries[i].topic);
    free(a->entries);
    free(a->buckets);
    free(a);
}

static void link_entry(struct sent_aliases *a, uint16_t alias)
{
    struct entry *e = &a->entries[alias - 1];
    uint16_t *bucket = &a->buckets[e->hash & a->mask];
    e->next = *bucket;
    *bucket = alias;
}

static void unlink_entry(struct sent_aliases *a, uint16_t alias)
{
    struct entry *e = &a->entries[alias - 1];
    uint16_t *at = &a->buckets[e->hash & a->mask];
    while (*at != alias)
        at = &a->entries[*at - 1].next;
    *at = e->next;
}

static bool grow(struct sent_aliases *a)
{
    uint32_t capacity = CHR_MIN(a->capacity ? a->capacity * 2 : ENTRIES_FIRST, a->max);
    uint32_t buckets_count = ENTRIES_FIRST;
    while (buckets_count < capacity)
        buckets_count *= 2;
    uint16_t *buckets = calloc(buckets_count, sizeof *buckets);
    struct entry *entries = buckets ? realloc(a->entries, capacity * sizeof *entries) : NULL;
    if (!entries) {
        free(buckets);
        return false;
    }
    free(a->buckets);
    a->buckets = buckets;
    a->mask = buckets_count - 1;
    a->entries = entries;
    a->capacity = capacity;
    for (uint32_t i = 0; i < a->count; i++)
        link_entry(a, (uint16_t)(i + 1));
    return true;
}

struct sent_alias sent_aliases_find(struct sent_aliases *a, chr_slice topic)
{
    struct sent_alias found = {0};
    if (topic.len <= SENT_ALIAS_BYTES || topic.len > SENT_ALIAS_TOPIC_BYTES_MAX)
        return found;
    found.hash = chr_hash_slice(topic, chr_hash_seed());
    for (uint16_t alias = a->count ? a->buckets[found.hash & a->mask] : 0; alias;) {
        struct entry *e = &a->entries[alias - 1];
        if (e->hash == found.hash && chr_slice_eq(chr_slice_of(e->topic, e->len), topic)) {
            e->used = true;
            found.alias = alias;
            found.known = true;
            return found;
        }
        alias = e->next;
    }
    if (a->count < a->max) {
        found.alias = (uint16_t)(a->count + 1);
        return found;
    }
    struct entry *candidate = &a->entries[a->hand];
    if (candidate->used) {
        candidate->used = false;
        a->hand = (a->hand + 1) % a->count;
    } else {
        found.alias = (uint16_t)(a->hand + 1);
    }
    return found;
}

bool sent_aliases_bind(struct sent_aliases *a, struct sent_alias alias, chr_slice topic)
{
    CHR_ASSERT(alias.alias > 0 && alias.alias <= a->max);
    CHR_ASSERT(!alias.known);
    bool taken = alias.alias <= a->count;
    CHR_ASSERT(taken || alias.alias == a->count + 1);
    if (!taken && a->count == a->capacity && !grow(a))
        return false;
    uint8_t *copy = malloc(topic.len);
    if (!copy)
        return false;
    memcpy(copy, topic.ptr, topic.len);
    struct entry *e = &a->entries[alias.alias - 1];
    if (taken) {
        unlink_entry(a, alias.alias);
        free(e->topic);
        a->hand = alias.alias % a->count;
    } else {
        a->count++;
    }
    *e =
        (struct entry){.topic = copy, .hash = alias.hash, .len = (uint16_t)topic.len, .used = true};
    link_entry(a, alias.alias);
    return true;
}
