/* db/chunk_dict.c: one dictionary per column and chunk: in memory while it is built, and as bytes.
 *
 * Strings of a table's series columns come with the caller's dictionary and are only renumbered,
 * one look-up in an array a row. Other strings are hashed. Numbers get a dictionary only when a
 * sample says that few values return again and again and the integer codecs do badly on them. Codes
 * are given in order of appearance. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "db/chunk_internal.h"

#define SLOTS (2u * DB_CHUNK_ROWS_MAX)
/* Strings that do not repeat show it early: after so many, give up if most were new. */
#define EARLY_ROWS 2048
/* Entries that are not in order anyway are sorted up to this many: 512 * 9 comparisons are nothing
 * beside 65,536 rows. */
#define SORT_MAX 512

void db__dict_free(struct db_dict_builder *d)
{
    free(d->codes);
    free(d->entries);
    free(d->values);
    free(d->slots);
    free(d->remap);
    free(d->ids);
    free(d->ranks);
    free(d->by_rank);
    memset(d, 0, sizeof *d);
}

static chr_err need(void *array, size_t bytes)
{
    void **p = array;
    if (!*p)
        *p = malloc(bytes);
    return *p ? CHR_OK : CHR_ENOMEM;
}

static chr_err begin(struct db_dict_builder *d)
{
    d->used = d->ranked = false;
    d->count = 0;
    d->bytes = d->row_bytes = 0;
    return need(&d->codes, DB_CHUNK_ROWS_MAX * sizeof *d->codes);
}

/* Integers and doubles alike. */
static int64_t eight_bytes(const void *values, uint32_t row)
{
    int64_t v;
    memcpy(&v, (const uint8_t *)values + (size_t)row * 8, 8);
    return v;
}

static bool is_null(const uint64_t *validity, uint32_t row)
{
    return validity && !db_bit_get(validity, row);
}

/* Bytes of the column with the dictionary against without: a fifth less, or it is not worth the
 * detour of each reader. */
static void judge_strings(struct db_dict_builder *d, uint32_t rows)
{
    uint32_t width = d->count > 1;
    while (width < 16 && (1u << width) < d->count)
        width++;
    uint64_t with = d->bytes + d->count + (uint64_t)rows * width / 8;
    uint64_t without = d->row_bytes + rows;
    d->used = d->count > 0 && with * 5 <= without * 4;
}

static chr_err renumber(struct db_dict_builder *d, const struct db_chunk_column_in *column,
                        uint32_t first, uint32_t rows)
{
    if (d->remap_capacity < column->dict_count) {
        uint32_t *more = calloc(column->dict_count, sizeof *more);
        if (!more)
            return CHR_ENOMEM;
        free(d->remap);
        d->remap = more;
        d->remap_capacity = column->dict_count;
    }
    if (need(&d->ids, DB_CHUNK_ROWS_MAX * sizeof *d->ids))
        return CHR_ENOMEM;
    uint32_t *remap = d->remap;
    for (uint32_t i = 0; i < rows; i++) {
        if (is_null(column->validity, first + i)) {
            d->codes[i] = 0;
            continue;
        }
        uint32_t id = column->ids[first + i];
        CHR_ASSERT(id < column->dict_count);
        if (CHR_UNLIKELY(remap[id] == 0)) {
            d->ids[d->count] = id;
            d->entries[d->count] = column->dict[id];
            d->bytes += column->dict[id].len;
            remap[id] = ++d->count;
        }
        d->codes[i] = (uint16_t)(remap[id] - 1);
        d->row_bytes += column->dict[id].len;
    }
    for (uint32_t i = 0; i < d->count; i++)
        remap[d->ids[i]] = 0;
    judge_strings(d, rows);
    return CHR_OK;
}

static chr_err hash_strings(struct db_dict_builder *d, const struct db_chunk_column_in *column,
                            uint32_t first, uint32_t rows)
{
    if (need(&d->slots, SLOTS * sizeof *d->slots))
        return CHR_ENOMEM;
    memset(d->slots, 0, SLOTS * sizeof *d->slots);
    uint64_t seed = chr_hash_seed();
    chr_slice before = {0};
    uint16_t before_code = 0;
    for (uint32_t i = 0; i < rows; i++) {
        if (is_null(column->validity, first + i)) {
            d->codes[i] = 0;
            continue;
        }
        chr_slice s = column->str[first + i];
        d->row_bytes += s.len;
        if (d->count && chr_slice_eq(s, before)) {
            d->codes[i] = before_code;
            continue;
        }
        uint32_t at = (uint32_t)chr_hash_slice(s, seed) & (SLOTS - 1);
        while (d->slots[at] && !chr_slice_eq(d->entries[d->slots[at] - 1], s))
            at = (at + 1) & (SLOTS - 1);
        if (d->slots[at] == 0) {
            d->entries[d->count] = s;
            d->bytes += s.len;
            d->slots[at] = ++d->count;
        }
        before = s;
        before_code = d->codes[i] = (uint16_t)(d->slots[at] - 1);
        if (i % EARLY_ROWS == EARLY_ROWS - 1 && d->count > i / 4 * 3)
            return CHR_OK; /* not used */
    }
    judge_strings(d, rows);
    return CHR_OK;
}

chr_err db__dict_strings(struct db_dict_builder *d, const struct db_chunk_column_in *column,
                         uint32_t first, uint32_t rows)
{
    chr_err err = begin(d);
    if (!err)
        err = need(&d->entries, DB_CHUNK_ROWS_MAX * sizeof *d->entries);
    if (err)
        return err;
    return column->dict ? renumber(d, column, first, rows) : hash_strings(d, column, first, rows);
}

#define SAMPLE       512
#define SAMPLE_SLOTS 1024
#define SAMPLE_FEW   128

bool db__dict_numbers_few(const void *values, const uint64_t *validity, uint32_t first,
                          uint32_t rows, uint32_t *distinct)
{
    int64_t keys[SAMPLE_SLOTS];
    bool taken[SAMPLE_SLOTS] = {false};
    if (rows < 2 * SAMPLE)
        return false;
    *distinct = 0;
    for (uint32_t i = 0; i < SAMPLE; i++) {
        /* A stride that is odd against any period of the data. */
        uint32_t row = first + (uint32_t)((uint64_t)i * rows / SAMPLE + i % 7) % rows;
        if (is_null(validity, row))
            continue;
        int64_t v = eight_bytes(values, row);
        uint32_t at = (uint32_t)chr_hash_u64((uint64_t)v) & (SAMPLE_SLOTS - 1);
        while (taken[at] && keys[at] != v)
            at = (at + 1) & (SAMPLE_SLOTS - 1);
        if (taken[at])
            continue;
        if (++*distinct > SAMPLE_FEW)
            return false;
        taken[at] = true;
        keys[at] = v;
    }
    return *distinct > 1;
}

chr_err db__dict_numbers(struct db_dict_builder *d, const void *values, const uint64_t *validity,
                         uint32_t first, uint32_t rows, uint32_t count_max)
{
    chr_err err = begin(d);
    if (!err)
        err = need(&d->values, DB_CHUNK_ROWS_MAX * sizeof *d->values);
    if (!err)
        err = need(&d->slots, SLOTS * sizeof *d->slots);
    if (err)
        return err;
    CHR_ASSERT(count_max <= 4096);
    /* A table sized to the dictionary, so that it stays in the cache. */
    uint32_t mask = 2 * 4096 - 1;
    memset(d->slots, 0, (mask + 1) * sizeof *d->slots);
    for (uint32_t i = 0; i < rows; i++) {
        if (is_null(validity, first + i)) {
            d->codes[i] = 0;
            continue;
        }
        int64_t v = eight_bytes(values, first + i);
        uint32_t at = (uint32_t)chr_hash_u64((uint64_t)v) & mask;
        while (d->slots[at] && d->values[d->slots[at] - 1] != v)
            at = (at + 1) & mask;
        if (d->slots[at] == 0) {
            if (d->count == count_max)
                return CHR_OK; /* not used */
            d->values[d->count] = v;
            d->slots[at] = ++d->count;
        }
        d->codes[i] = (uint16_t)(d->slots[at] - 1);
    }
    d->used = d->count > 0;
    return CHR_OK;
}

static int compare_entries(const void *a, const void *b, void *arg)
{
    const chr_slice *entries = arg;
    return chr_slice_cmp(entries[*(const uint16_t *)a], entries[*(const uint16_t *)b]);
}

void db__dict_rank(struct db_dict_builder *d)
{
    d->ranked = false;
    bool rising = true;
    for (uint32_t i = 1; rising && i < d->count; i++)
        rising = chr_slice_cmp(d->entries[i - 1], d->entries[i]) < 0;
    if (d->count == 0 || (!rising && d->count > SORT_MAX))
        return;
    if (need(&d->ranks, DB_CHUNK_ROWS_MAX * sizeof *d->ranks) ||
        need(&d->by_rank, DB_CHUNK_ROWS_MAX * sizeof *d->by_rank))
        return; /* the statistics will know less */
    for (uint32_t i = 0; i < d->count; i++)
        d->by_rank[i] = (uint16_t)i;
    if (!rising)
        qsort_r(d->by_rank, d->count, sizeof *d->by_rank, compare_entries, d->entries);
    for (uint32_t i = 0; i < d->count; i++)
        d->ranks[d->by_rank[i]] = (uint16_t)i;
    d->ranked = true;
}

void db__dict_put(struct db_dict_builder *d, enum db_type type, struct db_ints *ints,
                  struct chr_buf *scratch, struct chr_buf *out)
{
    chr_buf_add_u32le(out, d->count);
    if (!db_type_is_bytes(type)) {
        db__int_array_put(ints, d->values, d->count, out);
        return;
    }
    chr_buf_reset(scratch);
    for (uint32_t at = 0; at < d->count; at += DB_VECTOR_ROWS) {
        int64_t lengths[DB_VECTOR_ROWS] CHR_ALIGNED(64);
        uint32_t n = CHR_MIN(d->count - at, (uint32_t)DB_VECTOR_ROWS);
        for (uint32_t i = 0; i < n; i++) {
            lengths[i] = (int64_t)d->entries[at + i].len;
            chr_buf_add_slice(scratch, d->entries[at + i]);
        }
        db__ints_encode(ints, lengths, n, out);
    }
    if (scratch->failed)
        out->failed = true;
    bool try_lz4 = true;
    db__bytes_put(chr_buf_slice(scratch), &try_lz4, out);
}
