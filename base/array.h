/* base/array.h: arrays that grow.
 *
 *     CHR_ARRAY(struct thing) things = {0};
 *     if (!CHR_ARRAY_RESERVE(&things, 1))
 *         return CHR_ENOMEM;
 *     things.items[things.count++] = thing;
 *     …
 *     free(things.items);
 *
 * Reserving is apart from adding, so that what must not fail half-way reserves first. Growth
 * doubles; whoever needs a maximum checks it before. One owner, no locks. */
#ifndef CHR_BASE_ARRAY_H
#define CHR_BASE_ARRAY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"

#define CHR_ARRAY(type)                                                                            \
    struct {                                                                                       \
        type *items;                                                                               \
        size_t count, capacity;                                                                    \
    }

/* Room for `count` items in all. False: out of memory, and everything as it was. */
CHR_MUST_USE bool chr_array_reserve(void **items, size_t *capacity, size_t count,
                                    size_t item_bytes);

/* Room for `more` items behind those that are there. */
#define CHR_ARRAY_RESERVE(array, more)                                                             \
    chr_array_reserve((void **)&(array)->items, &(array)->capacity, (array)->count + (more),       \
                      sizeof *(array)->items)

#endif
