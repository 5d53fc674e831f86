/* broker/net/slab.h: receive buffers that batches keep until their answer.
 *
 * A loop receives into its current slab and decodes packets in place. A batch holds a reference to
 * each slab its messages lie in, because a stale batch is decoded again (R9) and subscribers get
 * their copy after commit. Slabs of the standard size are recycled, last used first (they are
 * warm); their number is the loop's receive_bytes limit. Loop thread only. */
#ifndef CHR_BROKER_NET_SLAB_H
#define CHR_BROKER_NET_SLAB_H

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"

#define SLAB_BYTES (256u << 10)

struct slab_pool;
struct slab {
    struct slab_pool *pool;
    struct slab *next_free;
    uint32_t refs;
    uint32_t used;     /* bytes received into */
    uint32_t capacity; /* SLAB_BYTES, or the size of one large packet */
    uint8_t *bytes;
};

struct slab_pool {
    struct slab *free;
    uint64_t bytes_held; /* of all slabs alive */
    uint64_t bytes_max;
    uint32_t free_count, free_least; /* in `free`; the fewest since the last trim */
};

void slab_pool_init(struct slab_pool *pool, uint64_t bytes_max);
void slab_pool_free(struct slab_pool *pool);
/* refs 1. NULL at the pool's limit or out of memory. capacity: at least SLAB_BYTES. */
struct slab *slab_get(struct slab_pool *pool, uint32_t capacity);
/* Gives back half of the slabs that nobody has used since the last call, to the operating system:
 * after a burst all of them within seconds, in a steady flow none. */
void slab_pool_trim(struct slab_pool *pool);
void slab_ref(struct slab *slab);
void slab_unref(struct slab *slab); /* accepts NULL */

#endif
