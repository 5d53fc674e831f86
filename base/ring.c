/* base/ring.c: the two ends of the queue. Counters run on for ever; a slot is counter & mask. */
#include "base/ring.h"

#include <stdlib.h>

#include "base/assert.h"

chr_err chr_ring_init(struct chr_ring *ring, size_t capacity_power_of_two)
{
    size_t capacity = capacity_power_of_two;
    if (capacity == 0 || (capacity & (capacity - 1)) != 0)
        return CHR_EINVAL;
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    ring->tail_seen = ring->head_seen = 0;
    ring->mask = capacity - 1;
    ring->slots = calloc(capacity, sizeof *ring->slots);
    return ring->slots ? CHR_OK : CHR_ENOMEM;
}

void chr_ring_free(struct chr_ring *ring)
{
    free(ring->slots);
    ring->slots = NULL;
}

bool chr_ring_push(struct chr_ring *ring, void *item)
{
    CHR_ASSERT(item != NULL);
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head - ring->tail_seen > ring->mask) {
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head - ring->tail_seen > ring->mask)
            return false;
    }
    ring->slots[head & ring->mask] = item;
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

void *chr_ring_pop(struct chr_ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail == ring->head_seen) {
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (tail == ring->head_seen)
            return NULL;
    }
    void *item = ring->slots[tail & ring->mask];
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return item;
}

bool chr_ring_empty(const struct chr_ring *ring)
{
    /* tail first: it only grows towards head, so a ring seen empty was empty when head was read. */
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    return atomic_load_explicit(&ring->head, memory_order_acquire) == tail;
}
