#include "broker/net/slab.h"

#include <stdlib.h>

#include "base/assert.h"

void slab_pool_init(struct slab_pool *pool, uint64_t bytes_max)
{
    *pool = (struct slab_pool){.bytes_max = bytes_max};
}

static void slab_destroy(struct slab *slab)
{
    slab->pool->bytes_held -= slab->capacity;
    free(slab->bytes);
    free(slab);
}

void slab_pool_free(struct slab_pool *pool)
{
    while (pool->free) {
        struct slab *slab = pool->free;
        pool->free = slab->next_free;
        slab_destroy(slab);
    }
}

struct slab *slab_get(struct slab_pool *pool, uint32_t capacity)
{
    capacity = capacity < SLAB_BYTES ? SLAB_BYTES : capacity;
    if (capacity == SLAB_BYTES && pool->free) {
        struct slab *slab = pool->free;
        pool->free = slab->next_free;
        slab->refs = 1;
        slab->used = 0;
        return slab;
    }
    /* Standard slabs that nobody uses make room for a large packet. */
    while (pool->bytes_held + capacity > pool->bytes_max && pool->free) {
        struct slab *unused = pool->free;
        pool->free = unused->next_free;
        slab_destroy(unused);
    }
    if (pool->bytes_held + capacity > pool->bytes_max)
        return NULL;
    struct slab *slab = malloc(sizeof *slab);
    uint8_t *bytes = malloc(capacity);
    if (!slab || !bytes) {
        free(slab);
        free(bytes);
        return NULL;
    }
    *slab = (struct slab){.pool = pool, .refs = 1, .capacity = capacity, .bytes = bytes};
    pool->bytes_held += capacity;
    return slab;
}

void slab_ref(struct slab *slab)
{
    slab->refs++;
}

void slab_unref(struct slab *slab)
{
    if (!slab)
        return;
    CHR_ASSERT_HOT(slab->refs > 0);
    if (--slab->refs > 0)
        return;
    if (slab->capacity == SLAB_BYTES) {
        slab->next_free = slab->pool->free;
        slab->pool->free = slab;
    } else {
        slab_destroy(slab);
    }
}
