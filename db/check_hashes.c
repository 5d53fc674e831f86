/* db/check_hashes.c: hashes that must all differ.
 *
 * They are cut by their upper bits into parts that fit a cache, and each part goes through a small
 * hash table. */
#include <stdlib.h>
#include <string.h>

#include "db/check_internal.h"

#define PART_BITS 8

void db__hashes_begin(struct db__hashes *h)
{
    if (h->max == 0)
        h->max = db__check_limits.hashes;
    h->count = 0;
    h->pass = 0;
    h->passes = 1;
    h->overflown = false;
    h->twice = 0;
}

void db__hashes_free(struct db__hashes *h)
{
    free(h->list);
    free(h->sorted);
    free(h->set);
    memset(h, 0, sizeof *h);
}

static bool grow(struct db__hash128 **list, size_t *capacity, size_t count)
{
    if (count <= *capacity)
        return true;
    void *more = realloc(*list, count * sizeof **list);
    if (!more)
        return false;
    *list = more;
    *capacity = count;
    return true;
}

chr_err db__hashes_add(struct db__hashes *h, struct db__hash128 x)
{
    if (h->passes > 1 && x.b % h->passes != h->pass)
        return CHR_OK;
    if (h->count == h->max) {
        h->overflown = true;
        return CHR_OK;
    }
    if (h->count == h->capacity &&
        !grow(&h->list, &h->capacity, CHR_MIN(h->capacity ? h->capacity * 2 : 4096, h->max)))
        return CHR_ENOMEM;
    h->list[h->count++] = x;
    return CHR_OK;
}

/* How many of a part are there already. */
static chr_err part_twice(struct db__hashes *h, const struct db__hash128 *list, size_t count)
{
    size_t slots = 64;
    while (slots < count * 2)
        slots *= 2;
    if (!grow(&h->set, &h->set_capacity, slots))
        return CHR_ENOMEM;
    memset(h->set, 0, slots * sizeof *h->set);
    for (size_t i = 0; i < count; i++) {
        struct db__hash128 x = list[i];
        x.b |= 1; /* all zero is an empty slot */
        size_t at = x.a & (slots - 1);
        while (h->set[at].b && (h->set[at].a != x.a || h->set[at].b != x.b))
            at = (at + 1) & (slots - 1);
        h->twice += h->set[at].b != 0;
        h->set[at] = x;
    }
    return CHR_OK;
}

static chr_err count_twice(struct db__hashes *h)
{
    size_t ends[1 << PART_BITS] = {0}, begin = 0;
    if (!grow(&h->sorted, &h->sorted_capacity, h->count))
        return CHR_ENOMEM;
    for (size_t i = 0; i < h->count; i++)
        ends[h->list[i].a >> (64 - PART_BITS)]++;
    for (size_t p = 0; p < CHR_COUNT_OF(ends); p++) {
        size_t count = ends[p];
        ends[p] = begin;
        begin += count;
    }
    for (size_t i = 0; i < h->count; i++)
        h->sorted[ends[h->list[i].a >> (64 - PART_BITS)]++] = h->list[i];
    begin = 0;
    for (size_t p = 0; p < CHR_COUNT_OF(ends); p++) {
        chr_err err = part_twice(h, h->sorted + begin, ends[p] - begin);
        if (err)
            return err;
        begin = ends[p];
    }
    return CHR_OK;
}

chr_err db__hashes_again(struct db__hashes *h, bool *again)
{
    if (h->overflown) { /* too many for one pass: from the beginning, in smaller parts */
        h->passes *= 2;
        h->pass = 0;
        h->twice = 0;
        h->overflown = false;
        h->count = 0;
        *again = true;
        /* What is the same cannot be parted: beyond any sensible number it is settled. */
        if (h->passes <= UINT64_C(1) << 20)
            return CHR_OK;
        h->twice = h->max;
        *again = false;
        return CHR_OK;
    }
    chr_err err = h->count ? count_twice(h) : CHR_OK;
    h->count = 0;
    *again = !err && ++h->pass < h->passes;
    return err;
}
