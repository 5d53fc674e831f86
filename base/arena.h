/* base/arena.h: memory of a query, a batch or a parse, freed as a whole.
 *
 * Grows by blocks (each at least block_bytes) up to limit_bytes; an allocation past the limit
 * returns NULL and the caller answers CHR_EFULL/53200. chr_arena_reset keeps the first block, so a
 * steady user allocates nothing. Not thread-safe: one owner. */
#ifndef CHR_BASE_ARENA_H
#define CHR_BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct chr_arena_block;
struct chr_arena {
    struct chr_arena_block *first; /* NULL until the first allocation */
    struct chr_arena_block *current;
    uint8_t *cursor; /* next free byte of current */
    uint8_t *end;
    size_t block_bytes;
    size_t limit_bytes; /* 0: unlimited (tools and tests only) */
    size_t used_bytes;  /* sum of the blocks held */
};

/* Does not allocate. */
void chr_arena_init(struct chr_arena *arena, size_t block_bytes, size_t limit_bytes);
/* Zeroed or not; alignment 16 (chr_arena_alloc_aligned for more). NULL past the limit. */
void *chr_arena_alloc(struct chr_arena *arena, size_t bytes);
void *chr_arena_zalloc(struct chr_arena *arena, size_t bytes);
void *chr_arena_alloc_aligned(struct chr_arena *arena, size_t bytes, size_t alignment);
/* Zeroed; NULL also when the product overflows. */
void *chr_arena_zalloc_array(struct chr_arena *arena, size_t element_bytes, size_t count);
/* Copies; the result lives as long as the arena's contents. ptr is NULL when past the limit. */
chr_slice chr_arena_dup(struct chr_arena *arena, chr_slice bytes);
char *chr_arena_cstr(struct chr_arena *arena, chr_slice bytes);
char *chr_arena_printf(struct chr_arena *arena, const char *format, ...) CHR_PRINTF(2, 3);
/* Forgets everything allocated; keeps the first block. */
void chr_arena_reset(struct chr_arena *arena);
/* Gives all blocks back; the arena can be used again. */
void chr_arena_free(struct chr_arena *arena);

#define CHR_ARENA_NEW(arena, type) ((type *)chr_arena_zalloc((arena), sizeof(type)))
#define CHR_ARENA_ARRAY(arena, type, count)                                                        \
    ((type *)chr_arena_zalloc_array((arena), sizeof(type), (size_t)(count)))

#endif
