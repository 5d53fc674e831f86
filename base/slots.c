#include "base/slots.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define BUCKETS_FIRST 64u

void chr_slots_init(struct chr_slots *slots, uint32_t size)
{
    *slots = (struct chr_slots){.size = size, .next = 1};
}

void chr_slots_free(struct chr_slots *slots)
{
    for (uint32_t i = 0; i < slots->chunks_count; i++)
        free(slots->chunks[i]);
    free((void *)slots->chunks);
    chr_slots_init(slots, slots->size);
}

void chr_slots_reset(struct chr_slots *slots)
{
    while (slots->chunks_count > 1)
        free(slots->chunks[--slots->chunks_count]);
    slots->next = 1;
    slots->free = slots->count = 0;
}

static bool add_chunk(struct chr_slots *slots)
{
    if (slots->chunks_count == slots->chunks_max) {
        uint32_t max = slots->chunks_max ? slots->chunks_max * 2 : 4;
        uint8_t **chunks = realloc((void *)slots->chunks, max * sizeof *chunks);
        if (!chunks)
            return false;
        slots->chunks = chunks;
        slots->chunks_max = max;
    }
    uint8_t *chunk = malloc((size_t)CHR_SLOTS_CHUNK * slots->size);
    if (chunk)
        slots->chunks[slots->chunks_count++] = chunk;
    return chunk != NULL;
}

uint32_t chr_slots_new(struct chr_slots *slots)
{
    uint32_t number = slots->free;
    if (number) {
        memcpy(&slots->free, chr_slots_at(slots, number), sizeof slots->free);
    } else {
        number = slots->next;
        if (number == CHR_SLOTS_MAX ||
            (number >> CHR_SLOTS_CHUNK_BITS == slots->chunks_count && !add_chunk(slots)))
            return 0;
        slots->next++;
    }
    memset(chr_slots_at(slots, number), 0, slots->size);
    slots->count++;
    return number;
}

void chr_slots_give(struct chr_slots *slots, uint32_t number)
{
    CHR_ASSERT_HOT(number && number < slots->next);
    memcpy(chr_slots_at(slots, number), &slots->free, sizeof slots->free);
    slots->free = number;
    slots->count--;
}

/* ---- Chains -----------------------------------------------------------------------------------
 */

chr_err chr_chains_init(struct chr_chains *chains)
{
    *chains = (struct chr_chains){
        .first = calloc(BUCKETS_FIRST, sizeof *chains->first),
        .capacity = BUCKETS_FIRST,
        .used = BUCKETS_FIRST,
        .mask = BUCKETS_FIRST - 1,
    };
    return chains->first ? CHR_OK : CHR_ENOMEM;
}

void chr_chains_free(struct chr_chains *chains)
{
    free(chains->first);
    *chains = (struct chr_chains){0};
}

void chr_chains_reset(struct chr_chains *chains)
{
    uint32_t *first = realloc(chains->first, BUCKETS_FIRST * sizeof *first);
    if (first) {
        chains->first = first;
        chains->capacity = BUCKETS_FIRST;
    }
    memset(chains->first, 0, BUCKETS_FIRST * sizeof *first);
    chains->used = BUCKETS_FIRST;
    chains->mask = BUCKETS_FIRST - 1;
    chains->count = 0;
}

/* One more bucket: it takes its numbers from the one that had its hashes until now. */
static void split(struct chr_chains *chains, const struct chr_chains_owner *how, const void *owner)
{
    if (chains->used == chains->capacity) {
        uint32_t *first = realloc(chains->first, 2 * (size_t)chains->capacity * sizeof *first);
        if (!first)
            return;
        chains->first = first;
        chains->capacity *= 2;
    }
    if (chains->used > chains->mask)
        chains->mask = chains->mask * 2 + 1;
    uint32_t made = chains->used++, *from = &chains->first[made & chains->mask >> 1],
             *to = &chains->first[made];
    while (*from) {
        uint32_t number = *from, *next = how->next(owner, number);
        if ((how->hash(owner, number) & chains->mask) == made) {
            *from = *next;
            *to = number;
            to = next;
        } else {
            from = next;
        }
    }
    *to = 0;
}

void chr_chains_put(struct chr_chains *chains, const struct chr_chains_owner *how,
                    const void *owner, uint32_t number)
{
    if (chains->count >= chains->used)
        split(chains, how, owner);
    uint32_t *bucket = chr_chains_bucket(chains, how->hash(owner, number));
    *how->next(owner, number) = *bucket;
    *bucket = number;
    chains->count++;
}

void chr_chains_remove(struct chr_chains *chains, const struct chr_chains_owner *how,
                       const void *owner, uint32_t number)
{
    uint32_t *at = chr_chains_bucket(chains, how->hash(owner, number));
    while (*at != number) {
        CHR_ASSERT_HOT(*at);
        at = how->next(owner, *at);
    }
    *at = *how->next(owner, number);
    chains->count--;
}
