/* base/slots.h: many small records of one size, told by 32-bit numbers, and hash chains of such
 * numbers. What a structure of millions of nodes is made of when pointers and allocator headers
 * would be most of it.
 *
 * Records never move; number 0 is nobody's. Memory of records that were given back is used again,
 * and returned when all are given back (chr_slots_reset). Not locked: their owner does that. */
#ifndef CHR_BASE_SLOTS_H
#define CHR_BASE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* Records of one allocation: so few that a broker with ten subscriptions has small ones, so many
 * that the directory of a million records (2 KiB) stays in the first cache. */
#define CHR_SLOTS_CHUNK_BITS 12
#define CHR_SLOTS_CHUNK      (1u << CHR_SLOTS_CHUNK_BITS)
/* Owners keep flags in the upper two bits. */
#define CHR_SLOTS_MAX (1u << 30)

struct chr_slots {
    uint8_t **chunks;
    uint32_t chunks_count, chunks_max;
    uint32_t size; /* of a record in bytes; at least 4, a multiple of its alignment */
    uint32_t next; /* the first that was never given out */
    uint32_t free; /* list through their first four bytes; 0: end */
    uint32_t count;
};

void chr_slots_init(struct chr_slots *slots, uint32_t size);
void chr_slots_free(struct chr_slots *slots);
/* A zeroed record; 0: no memory, or CHR_SLOTS_MAX are there. */
CHR_MUST_USE uint32_t chr_slots_new(struct chr_slots *slots);
void chr_slots_give(struct chr_slots *slots, uint32_t number);
/* All are given back, though one by one they were not: keeps the first chunk, returns the others.
 */
void chr_slots_reset(struct chr_slots *slots);

CHR_INLINE void *chr_slots_at(const struct chr_slots *slots, uint32_t number)
{
    return slots->chunks[number >> CHR_SLOTS_CHUNK_BITS] +
           (size_t)(number & (CHR_SLOTS_CHUNK - 1)) * slots->size;
}

/* ---- Chains of numbers by hash: linear hashing (Litwin 1980) ----------------------------------
 *
 * With each number put in, one bucket is split when there are more numbers than buckets. So there
 * is never a moment in which all of a million are moved, and a bucket costs four bytes a number. */

struct chr_chains {
    uint32_t *first;   /* of each bucket; 0: empty */
    uint32_t capacity; /* of first; a power of two */
    uint32_t used;     /* buckets in use; 1 <= used <= mask + 1 */
    uint32_t mask;     /* used <= mask + 1 < 2 * used */
    uint32_t count;
};

/* What the owner says of a number: its hash, which does not change, and where its link is. */
struct chr_chains_owner {
    uint32_t (*hash)(const void *owner, uint32_t number);
    uint32_t *(*next)(const void *owner, uint32_t number);
};

CHR_MUST_USE chr_err chr_chains_init(struct chr_chains *chains);
void chr_chains_free(struct chr_chains *chains);
/* Forgets all numbers and most of the memory. */
void chr_chains_reset(struct chr_chains *chains);
CHR_INLINE uint32_t *chr_chains_bucket(const struct chr_chains *chains, uint32_t hash)
{
    uint32_t at = hash & chains->mask;
    return &chains->first[at < chains->used ? at : at & chains->mask >> 1];
}
/* Without memory for another bucket chains are longer, nothing worse. */
void chr_chains_put(struct chr_chains *chains, const struct chr_chains_owner *how,
                    const void *owner, uint32_t number);
/* The number must be there. */
void chr_chains_remove(struct chr_chains *chains, const struct chr_chains_owner *how,
                       const void *owner, uint32_t number);

#endif
