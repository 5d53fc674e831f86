#include "broker/net/slab.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"

/* Slabs of the standard size are mapped, so that they can be given back one by one: malloc() keeps
 * what it was given, however small the part that is used later. Sanitizers watch malloc(). */
static uint8_t *bytes_get(uint32_t capacity)
{
#ifndef __SANITIZE_ADDRESS__
    if (capacity == SLAB_BYTES) {
        void *bytes =
            mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return bytes == MAP_FAILED ? NULL : bytes;
    }
#endif
    return malloc(capacity);
}

static void bytes_free(uint8_t *bytes, uint32_t capacity)
{
#ifndef __SANITIZE_ADDRESS__
    if (capacity == SLAB_BYTES) {
        if (bytes)
            (void)munmap(bytes, capacity);
        return;
    }
#endif
    (void)capacity;
    free(bytes);
}

void slab_pool_init(struct slab_pool *pool, uint64_t bytes_max)
{
    *pool = (struct slab_pool){.bytes_max = bytes_max};
}

static void slab_destroy(struct slab *slab)
{
    slab->pool->bytes_held -= slab->capacity;
    bytes_free(slab->bytes, slab->capacity);
    free(slab);
}

static struct slab *pop_free(struct slab_pool *pool)
{
    struct slab *slab = pool->free;
    pool->free = slab->next_free;
    pool->free_count--;
    pool->free_least = CHR_MIN(pool->free_least, pool->free_count);
    return slab;
}

void slab_pool_free(struct slab_pool *pool)
{
    while (pool->free)
        slab_destroy(pop_free(pool));
}

void slab_pool_trim(struct slab_pool *pool)
{
    uint32_t unused = pool->free_least;
    for (uint32_t n = unused - unused / 2; n > 0 && pool->free_count > 1; n--)
        slab_destroy(pop_free(pool));
    pool->free_least = pool->free_count;
}

struct slab *slab_get(struct slab_pool *pool, uint32_t capacity)
{
    capacity = capacity < SLAB_BYTES ? SLAB_BYTES : capacity;
    if (capacity == SLAB_BYTES && pool->free) {
        struct slab *slab = pop_free(pool);
        slab->refs = 1;
        slab->used = 0;
        return slab;
    }
    /* Standard slabs that nobody uses make room for a large packet. */
    while (pool->bytes_held + capacity > pool->bytes_max && pool->free)
        slab_destroy(pop_free(pool));
    if (pool->bytes_held + capacity > pool->bytes_max)
        return NULL;
    struct slab *slab = malloc(sizeof *slab);
    uint8_t *bytes = bytes_get(capacity);
    if (!slab || !bytes) {
        free(slab);
        bytes_free(bytes, capacity);
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
        slab->pool->free_count++;
    } else {
        slab_destroy(slab);
    }
}
