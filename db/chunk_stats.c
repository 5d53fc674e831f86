/* db/chunk_stats.c: count, minimum, maximum and sum of each series run and of the chunk, taken
 * while a block is in the cache anyway, and the first and last row by time.
 *
 * The loops over values are kernels on the dense array of one block; here is only where runs cut
 * it. Runs too short to have statistics of their own are passed over as one segment. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/chunk_internal.h"
#include "db/codec/kernels.h"

static void clear(struct db_stats_acc *acc, enum db_type type)
{
    memset(acc, 0, sizeof *acc);
    acc->first_row = acc->last_row = DB_NO_ROW;
    if (type == DB_FLOAT) {
        acc->min_f = HUGE_VAL;
        acc->max_f = -HUGE_VAL;
    } else if (!db_type_is_bytes(type)) {
        acc->min_i = INT64_MAX;
        acc->max_i = INT64_MIN;
    }
}

chr_err db__stats_reserve(struct db_stats_builder *b, uint32_t runs)
{
    if (runs <= b->runs_capacity)
        return CHR_OK;
    struct db_stats_acc *more = realloc(b->runs, runs * sizeof *more);
    if (!more)
        return CHR_ENOMEM;
    b->runs = more;
    b->runs_capacity = runs;
    return CHR_OK;
}

void db__stats_begin(struct db_stats_builder *b, const struct db_chunk_rows *rows,
                     enum db_type type)
{
    b->rows = rows;
    b->type = type;
    b->segment = 0;
    clear(&b->total, type);
    CHR_ASSERT(!rows->run_stats || rows->runs_count <= b->runs_capacity);
    for (uint32_t r = 0; rows->run_stats && r < rows->runs_count; r++)
        clear(&b->runs[r], type);
}

static void add_string(struct db_stats_acc *acc, chr_slice min, chr_slice max)
{
    if (!acc->bounds_known) {
        acc->min_s = min;
        acc->max_s = max;
        acc->bounds_known = true;
        return;
    }
    if (chr_slice_cmp(min, acc->min_s) < 0)
        acc->min_s = min;
    if (chr_slice_cmp(max, acc->max_s) > 0)
        acc->max_s = max;
}

static void add_codes(struct db_stats_acc *acc, const struct db_stats_codes *c, uint32_t from,
                      uint32_t count)
{
    if (!c->ranks)
        return;
    uint16_t low = UINT16_MAX, high = 0;
    for (uint32_t i = from; i < from + count; i++) {
        uint16_t rank = c->ranks[c->codes[i]];
        low = rank < low ? rank : low;
        high = rank > high ? rank : high;
    }
    add_string(acc, c->entries[c->by_rank[low]], c->entries[c->by_rank[high]]);
}

/* Values [from, from + count) of the dense array into one accumulator; count >= 1. */
static void add_segment(struct db_stats_acc *acc, enum db_type type, const void *values,
                        uint32_t from, uint32_t count, const struct db_stats_codes *codes)
{
    const struct db_kernels *k = db__kernels();
    acc->count += count;
    if (db_type_is_bytes(type)) {
        if (codes) {
            add_codes(acc, codes, from, count);
            return;
        }
        const chr_slice *s = (const chr_slice *)values + from;
        for (uint32_t i = 0; i < count; i++)
            add_string(acc, s[i], s[i]);
    } else if (type == DB_FLOAT) {
        double sum, min, max;
        acc->nans += k->stats_f64((const double *)values + from, count, &sum, &min, &max);
        acc->sum_f += sum;
        acc->min_f = min < acc->min_f ? min : acc->min_f;
        acc->max_f = max > acc->max_f ? max : acc->max_f;
    } else if (type == DB_BOOLEAN) {
        const uint8_t *b = (const uint8_t *)values + from;
        uint32_t ones = 0;
        for (uint32_t i = 0; i < count; i++)
            ones += b[i] & 1;
        acc->min_i = CHR_MIN(acc->min_i, ones == count ? 1 : 0);
        acc->max_i = CHR_MAX(acc->max_i, ones ? 1 : 0);
    } else {
        __int128 sum;
        int64_t min, max;
        k->stats_i64((const int64_t *)values + from, count, &sum, &min, &max);
        acc->sum_i += sum;
        acc->min_i = CHR_MIN(acc->min_i, min);
        acc->max_i = CHR_MAX(acc->max_i, max);
    }
}

static uint32_t ones_between(const uint64_t *bits, uint32_t from, uint32_t to)
{
    unsigned n = 0;
    for (; from < to && (from & 63); from++)
        n += (unsigned)(bits[from >> 6] >> (from & 63)) & 1u;
    for (; from + 64 <= to; from += 64)
        n += (unsigned)__builtin_popcountll(bits[from >> 6]);
    if (from < to)
        n += (unsigned)__builtin_popcountll(bits[from >> 6] & ((UINT64_C(1) << (to - from)) - 1));
    return n;
}

void db__stats_add(struct db_stats_builder *b, uint32_t row, uint32_t count, const void *values,
                   const uint64_t *valid, const struct db_stats_codes *codes)
{
    uint32_t dense = valid ? ones_between(valid, 0, count) : count;
    if (!b->rows->run_stats) {
        if (dense)
            add_segment(&b->total, b->type, values, 0, dense, codes);
        return;
    }
    const uint32_t *starts = b->rows->starts;
    uint32_t at = 0, end = row + count;
    for (uint32_t from = row; from < end;) {
        while (starts[b->segment + 1] <= from)
            b->segment++;
        uint32_t to = CHR_MIN(starts[b->segment + 1], end);
        uint32_t n = valid ? ones_between(valid, from - row, to - row) : to - from;
        if (n)
            add_segment(&b->runs[b->segment], b->type, values, at, n, codes);
        at += n;
        from = to;
    }
    CHR_ASSERT(at == dense);
}

/* Is a row before another by (time, row id)? */
static bool before(const struct db_chunk_input *in, uint32_t a, uint32_t b)
{
    if (in->time_us[a] != in->time_us[b])
        return in->time_us[a] < in->time_us[b];
    if (in->entry[a] != in->entry[b])
        return in->entry[a] < in->entry[b];
    return in->ordinal[a] < in->ordinal[b];
}

static void find_ends(struct db_stats_builder *b, const uint64_t *validity)
{
    const struct db_chunk_rows *rows = b->rows;
    const struct db_chunk_input *in = rows->in;
    uint32_t base = rows->first;
    for (uint32_t r = 0; r < rows->runs_count; r++) {
        uint32_t from = rows->starts[r], to = rows->starts[r + 1];
        uint32_t first = from, last = to - 1;
        if (validity) {
            first = db__bits_first(validity, base + from, base + to);
            if (first == DB_NO_ROW)
                continue;
            first -= base;
            last = db__bits_last(validity, base + from, base + to) - base;
        }
        if (rows->run_stats) {
            b->runs[r].first_row = first;
            b->runs[r].last_row = last;
        }
        if (!validity)
            continue; /* the same for all such columns: known already */
        struct db_stats_acc *t = &b->total;
        if (t->first_row == DB_NO_ROW || before(in, base + first, base + t->first_row))
            t->first_row = first;
        if (t->last_row == DB_NO_ROW || before(in, base + t->last_row, base + last))
            t->last_row = last;
    }
    if (!validity) {
        b->total.first_row = rows->first_row;
        b->total.last_row = rows->last_row;
    }
}

static void merge(struct db_stats_acc *total, const struct db_stats_acc *run, enum db_type type)
{
    if (run->count == 0)
        return;
    total->count += run->count;
    if (type == DB_FLOAT) {
        total->nans += run->nans;
        total->sum_f += run->sum_f;
        total->min_f = run->min_f < total->min_f ? run->min_f : total->min_f;
        total->max_f = run->max_f > total->max_f ? run->max_f : total->max_f;
    } else if (db_type_is_bytes(type)) {
        if (run->bounds_known)
            add_string(total, run->min_s, run->max_s);
    } else {
        total->sum_i += run->sum_i;
        total->min_i = CHR_MIN(total->min_i, run->min_i);
        total->max_i = CHR_MAX(total->max_i, run->max_i);
    }
}

void db__stats_end(struct db_stats_builder *b, const uint64_t *validity)
{
    uint32_t first = b->total.first_row, last = b->total.last_row;
    CHR_ASSERT(first == DB_NO_ROW && last == DB_NO_ROW);
    find_ends(b, validity);
    for (uint32_t r = 0; b->rows->run_stats && r < b->rows->runs_count; r++)
        merge(&b->total, &b->runs[r], b->type);
}

static int64_t bits_of_double(double v)
{
    int64_t bits;
    memcpy(&bits, &v, 8);
    return bits;
}

int64_t db__stats_min_bits(const struct db_stats_acc *acc, enum db_type type)
{
    if (type != DB_FLOAT)
        return acc->min_i;
    return bits_of_double(acc->nans == acc->count ? (double)NAN : acc->min_f);
}

int64_t db__stats_max_bits(const struct db_stats_acc *acc, enum db_type type)
{
    if (type != DB_FLOAT)
        return acc->max_i;
    return bits_of_double(acc->nans ? (double)NAN : acc->max_f);
}
