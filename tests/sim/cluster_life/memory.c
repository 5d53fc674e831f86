/* tests/sim/cluster_life/memory.c: what a process has allocated goes with it, however it ends.
 *
 * Addresses are remembered beside the allocator, not in front of what it gives, so that sanitizers
 * see each block as it is. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "tests/sim/cluster_life/world.h"

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *at, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **out, size_t alignment, size_t bytes);
void __real_free(void *at);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *at, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes);
void __wrap_free(void *at);

#define REMOVED ((void *)-1)

static void resize(struct memory *m)
{
    struct memory bigger = {.capacity = CHR_MAX(m->count * 4, 1024u)};
    size_t power = 1024;
    while (power < bigger.capacity)
        power *= 2;
    bigger.capacity = power;
    bigger.at = __real_calloc(bigger.capacity, sizeof *bigger.at);
    CHR_ASSERT(bigger.at);
    for (size_t i = 0; i < m->capacity; i++)
        if (m->at[i] && m->at[i] != REMOVED)
            life__memory_add(&bigger, m->at[i]);
    __real_free(m->at);
    *m = bigger;
}

static size_t place_of(const struct memory *m, const void *at)
{
    return (size_t)(chr_hash_u64((uint64_t)(uintptr_t)at) & (m->capacity - 1));
}

void life__memory_add(struct memory *m, void *at)
{
    if (2 * (m->count + m->removed) >= m->capacity)
        resize(m);
    size_t i = place_of(m, at);
    while (m->at[i])
        i = (i + 1) & (m->capacity - 1);
    m->at[i] = at;
    m->count++;
}

/* Also asked of what is not the process's. */
static void drop(struct memory *m, void *at)
{
    if (!m->capacity)
        return;
    for (size_t i = place_of(m, at); m->at[i]; i = (i + 1) & (m->capacity - 1))
        if (m->at[i] == at) {
            m->at[i] = REMOVED;
            m->count--;
            m->removed++;
            return;
        }
}

void life__memory_forget(struct memory *m)
{
    for (size_t i = 0; i < m->capacity; i++)
        if (m->at[i] && m->at[i] != REMOVED)
            __real_free(m->at[i]);
    __real_free(m->at);
    *m = (struct memory){0};
}

static void *note(void *at)
{
    struct node *n = life__node();
    if (n && at)
        life__memory_add(&n->memory, at);
    return at;
}

void *__wrap_malloc(size_t bytes)
{
    return note(__real_malloc(bytes));
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    return note(__real_calloc(count, bytes));
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return note(__real_aligned_alloc(alignment, bytes));
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t bytes)
{
    int failed = __real_posix_memalign(out, alignment, bytes);
    if (!failed)
        (void)note(*out);
    return failed;
}

void *__wrap_realloc(void *at, size_t bytes)
{
    struct node *n = life__node();
    if (n && at)
        drop(&n->memory, at);
    return note(__real_realloc(at, bytes));
}

void __wrap_free(void *at)
{
    struct node *n = life__node();
    if (n && at)
        drop(&n->memory, at);
    __real_free(at);
}
