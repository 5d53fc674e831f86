/* base/ring.h: a bounded queue of pointers, one producer thread and one consumer thread.
 *
 * Safety: `head` is written by the producer alone and published with release after the slot; the
 * consumer reads it with acquire before the slot. `tail` likewise the other way. Each side keeps a
 * private copy of the other's counter and refreshes it only when the ring looks full or empty, so
 * the two cache lines seldom travel. */
#ifndef CHR_BASE_RING_H
#define CHR_BASE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct chr_ring {
    CHR_ALIGNED(CHR_CACHE_LINE) _Atomic uint64_t head; /* next slot to fill; producer */
    uint64_t tail_seen;                                /* producer's copy of tail */
    CHR_ALIGNED(CHR_CACHE_LINE) _Atomic uint64_t tail; /* next slot to empty; consumer */
    uint64_t head_seen;                                /* consumer's copy of head */
    CHR_ALIGNED(CHR_CACHE_LINE) void **slots;
    uint64_t mask; /* capacity - 1, capacity a power of two */
};

CHR_MUST_USE chr_err chr_ring_init(struct chr_ring *ring, size_t capacity_power_of_two);
void chr_ring_free(struct chr_ring *ring);
/* Producer. False when full. */
CHR_MUST_USE bool chr_ring_push(struct chr_ring *ring, void *item);
/* Consumer. NULL when empty. */
void *chr_ring_pop(struct chr_ring *ring);
/* Either side; exact for the consumer when true, a hint otherwise. */
bool chr_ring_empty(const struct chr_ring *ring);

#endif
