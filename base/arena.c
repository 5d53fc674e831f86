/* base/arena.c: a chain of blocks and a cursor into one of them. */
#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif

/* Under ASan everything not handed out is poisoned and a gap follows each allocation, so that one
 * that is overrun is reported as if it had come from malloc. */
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define ARENA_GAP            16
#define poison(ptr, bytes)   ASAN_POISON_MEMORY_REGION(ptr, bytes)
#define unpoison(ptr, bytes) ASAN_UNPOISON_MEMORY_REGION(ptr, bytes)
#else
#define ARENA_GAP            0
#define poison(ptr, bytes)   ((void)0)
#define unpoison(ptr, bytes) ((void)0)
#endif

#define ARENA_ALIGN 16

struct chr_arena_block {
    struct chr_arena_block *next;
    size_t bytes; /* header included */
} CHR_ALIGNED(ARENA_ALIGN);

static uint8_t *block_begin(struct chr_arena_block *block)
{
    return (uint8_t *)(block + 1);
}

static uint8_t *block_end(struct chr_arena_block *block)
{
    return (uint8_t *)block + block->bytes;
}

void chr_arena_init(struct chr_arena *arena, size_t block_bytes, size_t limit_bytes)
{
    *arena = (struct chr_arena){.block_bytes = block_bytes, .limit_bytes = limit_bytes};
}

/* Links a block with room for `bytes` behind the current one. */
static struct chr_arena_block *add_block(struct chr_arena *arena, size_t bytes)
{
    size_t need;
    if (__builtin_add_overflow(bytes, sizeof(struct chr_arena_block), &need))
        return NULL;
    size_t size = CHR_MAX(need, arena->block_bytes);
    if (arena->limit_bytes) {
        /* Near the limit the last block is smaller than usual. */
        size_t left =
            arena->used_bytes < arena->limit_bytes ? arena->limit_bytes - arena->used_bytes : 0;
        if (need > left)
            return NULL;
        size = CHR_MIN(size, left);
    }
    struct chr_arena_block *block = malloc(size);
    if (!block)
        return NULL;
    block->bytes = size;
    block->next = NULL;
    poison(block_begin(block), size - sizeof *block);
    arena->used_bytes += size;
    if (arena->current) {
        block->next = arena->current->next;
        arena->current->next = block;
    } else {
        arena->first = block;
    }
    return block;
}

static uint8_t *align_up(uint8_t *ptr, size_t alignment)
{
    return ptr + (-(uintptr_t)ptr & (alignment - 1));
}

static CHR_NOINLINE void *alloc_slow(struct chr_arena *arena, size_t bytes, size_t alignment)
{
    size_t need;
    if (__builtin_add_overflow(bytes, alignment - 1 + ARENA_GAP, &need))
        return NULL;
    struct chr_arena_block *block = add_block(arena, need);
    if (!block)
        return NULL;
    uint8_t *out = align_up(block_begin(block), alignment);
    uint8_t *after = out + bytes + ARENA_GAP;
    /* Go on in whichever block has more left: a large allocation does not waste the rest of a
     * fresh block. */
    if (!arena->current || block_end(block) - after >= arena->end - arena->cursor) {
        arena->current = block;
        arena->cursor = after;
        arena->end = block_end(block);
    }
    unpoison(out, bytes);
    return out;
}

void *chr_arena_alloc_aligned(struct chr_arena *arena, size_t bytes, size_t alignment)
{
    CHR_ASSERT_HOT(alignment && (alignment & (alignment - 1)) == 0);
    if (CHR_LIKELY(arena->cursor != NULL)) {
        size_t skip = -(uintptr_t)arena->cursor & (alignment - 1);
        size_t left = (size_t)(arena->end - arena->cursor);
        if (CHR_LIKELY(skip + ARENA_GAP <= left && bytes <= left - skip - ARENA_GAP)) {
            uint8_t *out = arena->cursor + skip;
            arena->cursor = out + bytes + ARENA_GAP;
            unpoison(out, bytes);
            return out;
        }
    }
    return alloc_slow(arena, bytes, alignment);
}

void *chr_arena_alloc(struct chr_arena *arena, size_t bytes)
{
    return chr_arena_alloc_aligned(arena, bytes, ARENA_ALIGN);
}

void *chr_arena_zalloc(struct chr_arena *arena, size_t bytes)
{
    void *out = chr_arena_alloc(arena, bytes);
    if (out)
        memset(out, 0, bytes);
    return out;
}

void *chr_arena_zalloc_array(struct chr_arena *arena, size_t element_bytes, size_t count)
{
    size_t bytes;
    if (__builtin_mul_overflow(element_bytes, count, &bytes))
        return NULL;
    return chr_arena_zalloc(arena, bytes);
}

chr_slice chr_arena_dup(struct chr_arena *arena, chr_slice bytes)
{
    uint8_t *copy = chr_arena_alloc_aligned(arena, bytes.len, 1);
    if (!copy)
        return (chr_slice){0};
    if (bytes.len)
        memcpy(copy, bytes.ptr, bytes.len);
    return chr_slice_of(copy, bytes.len);
}

char *chr_arena_cstr(struct chr_arena *arena, chr_slice bytes)
{
    if (bytes.len == SIZE_MAX)
        return NULL;
    char *copy = chr_arena_alloc_aligned(arena, bytes.len + 1, 1);
    if (!copy)
        return NULL;
    if (bytes.len)
        memcpy(copy, bytes.ptr, bytes.len);
    copy[bytes.len] = '\0';
    return copy;
}

char *chr_arena_printf(struct chr_arena *arena, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    char *out = len < 0 ? NULL : chr_arena_alloc_aligned(arena, (size_t)len + 1, 1);
    if (out)
        vsnprintf(out, (size_t)len + 1, format, again);
    va_end(again);
    va_end(args);
    return out;
}

static void free_chain(struct chr_arena *arena, struct chr_arena_block *block)
{
    while (block) {
        struct chr_arena_block *next = block->next;
        arena->used_bytes -= block->bytes;
        unpoison(block, block->bytes);
        free(block);
        block = next;
    }
}

void chr_arena_reset(struct chr_arena *arena)
{
    struct chr_arena_block *first = arena->first;
    if (!first)
        return;
    free_chain(arena, first->next);
    first->next = NULL;
    arena->current = first;
    arena->cursor = block_begin(first);
    arena->end = block_end(first);
    poison(arena->cursor, first->bytes - sizeof *first);
}

void chr_arena_free(struct chr_arena *arena)
{
    free_chain(arena, arena->first);
    arena->first = arena->current = NULL;
    arena->cursor = arena->end = NULL;
}
