#include "base/array.h"

#include <stdint.h>
#include <stdlib.h>

#define ITEMS_FIRST 8u

bool chr_array_reserve(void **items, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count <= *capacity)
        return true;
    size_t grown = CHR_MAX(count, *capacity * 2);
    grown = CHR_MAX(grown, (size_t)ITEMS_FIRST);
    if (grown > SIZE_MAX / item_bytes)
        return false;
    void *moved = realloc(*items, grown * item_bytes);
    if (!moved)
        return false;
    *items = moved;
    *capacity = grown;
    return true;
}
