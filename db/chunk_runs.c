/* db/chunk_runs.c: statistics of one column per series run, written and read; layout in
 * chunk_internal.h.
 *
 * Columns again: each statistic is an array over the runs and goes through the codecs, so that
 * minima that are decimals cost what decimals cost. What is the same in all four arrays (a column
 * of the series key) or follows from the head (rows and times when nothing is NULL) is left out. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/chunk_internal.h"
#include "db/value_crc.h"

enum { RUN_BOUNDS_EXACT = 1, RUN_ENDS_EXACT = 2, RUN_BOUNDS_KNOWN = 4 };
#define RUN_ALL (RUN_BOUNDS_EXACT | RUN_ENDS_EXACT | RUN_BOUNDS_KNOWN)

/* -- Arrays of numbers --------------------------------------------------------------------------*/

void db__numbers_put(struct db_ints *ints, enum db_type type, const int64_t *bits, size_t count,
                     struct chr_buf *out)
{
    if (type != DB_FLOAT) {
        db__int_array_put(ints, bits, count, out);
        return;
    }
    for (size_t at = 0; at < count; at += DB_VECTOR_ROWS) {
        double values[DB_VECTOR_ROWS] CHR_ALIGNED(64);
        size_t n = CHR_MIN(count - at, (size_t)DB_VECTOR_ROWS);
        memcpy(values, bits + at, n * 8);
        ints->breaks_count = 0;
        db__floats_encode(ints, values, (uint32_t)n, out);
    }
}

chr_err db__numbers_get(struct db_cursor *in, enum db_type type, size_t count, int64_t *out)
{
    if (type != DB_FLOAT)
        return db__int_array_get(in, count, out);
    for (size_t at = 0; at < count; at += DB_VECTOR_ROWS) {
        size_t n = CHR_MIN(count - at, (size_t)DB_VECTOR_ROWS);
        bool constant;
        enum db_codec codec;
        unsigned mapping = db__cursor_u8(in);
        double *values = (double *)(void *)(out + at);
        chr_err err = in->why ? CHR_ECORRUPT
                              : db__floats_decode(in, (enum db_mapping)mapping, (uint32_t)n, values,
                                                  &constant, &codec);
        if (err)
            return err;
        for (size_t i = 1; constant && i < n; i++)
            values[i] = values[0];
    }
    return CHR_OK;
}

/* -- Writing ------------------------------------------------------------------------------------*/

struct runs_writer {
    struct db_encoder *e;
    const struct db_stats_builder *stats;
    const struct db_chunk_column_in *column;
    const struct db_chunk_rows *rows;
    uint32_t n;
    struct chr_buf *out;
};

static bool all_full(const struct runs_writer *w)
{
    for (uint32_t r = 0; r < w->n; r++) {
        if (w->stats->runs[r].count != w->rows->starts[r + 1] - w->rows->starts[r])
            return false;
    }
    return true;
}

static void put_counts(const struct runs_writer *w)
{
    const int64_t *time_us = w->rows->in->time_us + w->rows->first;
    int64_t *array = w->e->array;
    for (uint32_t r = 0; r < w->n; r++)
        array[r] = w->stats->runs[r].count;
    db__int_array_put(&w->e->ints, array, w->n, w->out);
    for (uint32_t r = 0; r < w->n; r++) {
        const struct db_stats_acc *acc = &w->stats->runs[r];
        array[r] = acc->count == 0 ? 0
                                   : (int64_t)((uint64_t)time_us[acc->first_row] -
                                               (uint64_t)time_us[w->rows->starts[r]]);
    }
    db__int_array_put(&w->e->ints, array, w->n, w->out);
    for (uint32_t r = 0; r < w->n; r++) {
        const struct db_stats_acc *acc = &w->stats->runs[r];
        array[r] = acc->count == 0 ? 0
                                   : (int64_t)((uint64_t)time_us[w->rows->starts[r + 1] - 1] -
                                               (uint64_t)time_us[acc->last_row]);
    }
    db__int_array_put(&w->e->ints, array, w->n, w->out);
}

enum which { FIRST, LAST, MIN, MAX };

static int64_t number_of(const struct runs_writer *w, uint32_t r, enum which which)
{
    const struct db_stats_acc *acc = &w->stats->runs[r];
    if (acc->count == 0)
        return 0;
    switch (which) {
    case FIRST:
        return db__row_bits(w->column, w->rows->first + acc->first_row);
    case LAST:
        return db__row_bits(w->column, w->rows->first + acc->last_row);
    case MIN:
        return db__stats_min_bits(acc, w->column->type);
    default:
        return db__stats_max_bits(acc, w->column->type);
    }
}

static bool numbers_same(const struct runs_writer *w)
{
    for (uint32_t r = 0; r < w->n; r++) {
        int64_t first = number_of(w, r, FIRST);
        if (number_of(w, r, LAST) != first || number_of(w, r, MIN) != first ||
            number_of(w, r, MAX) != first)
            return false;
    }
    return true;
}

static uint8_t put_numbers(const struct runs_writer *w)
{
    bool same = numbers_same(w);
    for (int which = FIRST; which <= (same ? FIRST : MAX); which++) {
        for (uint32_t r = 0; r < w->n; r++)
            w->e->array[r] = number_of(w, r, (enum which)which);
        db__numbers_put(&w->e->ints, w->column->type, w->e->array, w->n, w->out);
    }
    if (w->column->type == DB_INT) {
        for (uint32_t r = 0; r < w->n; r++)
            w->e->array[r] = (int64_t)(uint64_t)w->stats->runs[r].sum_i;
        db__int_array_put(&w->e->ints, w->e->array, w->n, w->out);
        for (uint32_t r = 0; r < w->n; r++)
            w->e->array[r] = (int64_t)(w->stats->runs[r].sum_i >> 64);
        db__int_array_put(&w->e->ints, w->e->array, w->n, w->out);
    } else if (w->column->type == DB_FLOAT) {
        for (uint32_t r = 0; r < w->n; r++)
            memcpy(&w->e->array[r], &w->stats->runs[r].sum_f, 8);
        db__numbers_put(&w->e->ints, DB_FLOAT, w->e->array, w->n, w->out);
    }
    return (uint8_t)((same ? DB_RUNS_SAME : 0) | DB_RUNS_EXACT);
}

/* One string of a run, cut to what is kept; *flags loses what the cut takes away. */
static chr_slice string_of(const struct runs_writer *w, uint32_t r, enum which which,
                           uint8_t *buffer, unsigned *flags)
{
    const struct db_stats_acc *acc = &w->stats->runs[r];
    chr_slice s = {0};
    bool cut = false;
    if (acc->count == 0)
        return s;
    if (which == FIRST || which == LAST) {
        s = db__row_string(w->column,
                           w->rows->first + (which == FIRST ? acc->first_row : acc->last_row));
        if (s.len > DB_CHUNK_STATS_BYTES_MAX) {
            s.len = 0;
            *flags &= ~(unsigned)RUN_ENDS_EXACT;
        }
        return s;
    }
    if (!acc->bounds_known)
        *flags &= ~(unsigned)(RUN_BOUNDS_KNOWN | RUN_BOUNDS_EXACT);
    else if (which == MIN)
        s = db__bound_lower(acc->min_s, &cut);
    else if (!db__bound_upper(acc->max_s, buffer, &s, &cut))
        *flags &= ~(unsigned)RUN_BOUNDS_KNOWN, s = (chr_slice){0};
    if (cut)
        *flags &= ~(unsigned)RUN_BOUNDS_EXACT;
    return s;
}

static bool strings_same(const struct runs_writer *w)
{
    for (uint32_t r = 0; r < w->n; r++) {
        const struct db_stats_acc *acc = &w->stats->runs[r];
        if (acc->count == 0)
            continue;
        chr_slice first = db__row_string(w->column, w->rows->first + acc->first_row);
        chr_slice last = db__row_string(w->column, w->rows->first + acc->last_row);
        if (!acc->bounds_known || first.len > DB_CHUNK_STATS_BYTES_MAX ||
            !chr_slice_eq(first, last) || !chr_slice_eq(first, acc->min_s) ||
            !chr_slice_eq(first, acc->max_s))
            return false;
    }
    return true;
}

static uint8_t put_strings(const struct runs_writer *w)
{
    bool same = strings_same(w), exact = true;
    for (uint32_t r = 0; r < w->n; r++)
        w->e->array[r] = RUN_ALL;
    for (int which = FIRST; which <= (same ? FIRST : MAX); which++) {
        for (uint32_t at = 0; at < w->n; at += DB_VECTOR_ROWS) {
            uint32_t n = CHR_MIN(w->n - at, (uint32_t)DB_VECTOR_ROWS);
            int64_t lengths[DB_VECTOR_ROWS] CHR_ALIGNED(64);
            uint8_t buffer[DB_CHUNK_STATS_BYTES_MAX];
            chr_buf_reset(&w->e->heap);
            for (uint32_t i = 0; i < n; i++) {
                unsigned flags = (unsigned)w->e->array[at + i];
                chr_slice s = string_of(w, at + i, (enum which)which, buffer, &flags);
                chr_buf_add_slice(&w->e->heap, s);
                lengths[i] = (int64_t)s.len;
                w->e->array[at + i] = flags;
                exact = exact && flags == RUN_ALL;
            }
            bool try_lz4 = false; /* readers point into the value */
            db__ints_encode(&w->e->ints, lengths, n, w->out);
            db__bytes_put(chr_buf_slice(&w->e->heap), &try_lz4, w->out);
        }
    }
    if (!exact)
        db__int_array_put(&w->e->ints, w->e->array, w->n, w->out);
    return (uint8_t)((same ? DB_RUNS_SAME : 0) | (exact ? DB_RUNS_EXACT : 0));
}

void db__runs_put(struct db_encoder *e, const struct db_stats_builder *stats,
                  const struct db_chunk_column_in *column, struct chr_buf *out)
{
    struct runs_writer w = {.e = e,
                            .stats = stats,
                            .column = column,
                            .rows = stats->rows,
                            .n = stats->rows->runs_count,
                            .out = out};
    uint8_t fixed[DB_RUNS_FIXED_BYTES] = {0};
    chr_put_u32le(fixed + 8, w.n);
    chr_put_u16le(fixed + 12, column->id);
    fixed[14] = (uint8_t)column->type;
    chr_buf_add(out, fixed, sizeof fixed);
    uint8_t flags = all_full(&w) ? DB_RUNS_FULL : 0;
    if (!flags)
        put_counts(&w);
    flags |= db_type_is_bytes(column->type) ? put_strings(&w) : put_numbers(&w);
    if (out->failed || out->len > DB_CHUNK_VALUE_BYTES_MAX) {
        chr_buf_reset(out); /* strings of 64 bytes in 4,096 runs: then without */
        return;
    }
    out->ptr[15] = flags;
    db_value_seal(out->ptr, out->len, DB_CHUNK_RUNS, DB_CHUNK_VERSION);
}

/* -- Reading ------------------------------------------------------------------------------------*/

struct db_chunk_runs {
    enum db_type type;
    uint8_t flags;
    const struct db_chunk_run *runs; /* of the head */
    uint32_t count;
    size_t each;     /* numbers in each of the arrays below */
    int64_t *memory; /* of all of them */
    size_t memory_capacity;
    int64_t *counts, *first_times, *last_times, *sums_low, *sums_high, *flags_each;
    int64_t *numbers[4]; /* by enum which */
    chr_slice *strings[4];
    chr_slice *strings_memory;
    size_t strings_capacity;
};

chr_err db_chunk_runs_new(db_chunk_runs **runs)
{
    *runs = calloc(1, sizeof **runs);
    return *runs ? CHR_OK : CHR_ENOMEM;
}

void db_chunk_runs_free(db_chunk_runs *runs)
{
    if (!runs)
        return;
    free(runs->memory);
    free(runs->strings_memory);
    free(runs);
}

#define ARRAYS 10

static chr_err reserve(db_chunk_runs *runs)
{
    runs->each = chr_round_up(runs->count, DB_VECTOR_ROWS);
    if (runs->memory_capacity < runs->each * ARRAYS) {
        free(runs->memory);
        runs->memory_capacity = 0;
        runs->memory = aligned_alloc(64, runs->each * ARRAYS * sizeof *runs->memory);
        if (!runs->memory)
            return CHR_ENOMEM;
        runs->memory_capacity = runs->each * ARRAYS;
    }
    int64_t **arrays[ARRAYS] = {&runs->counts,     &runs->first_times, &runs->last_times,
                                &runs->sums_low,   &runs->sums_high,   &runs->flags_each,
                                &runs->numbers[0], &runs->numbers[1],  &runs->numbers[2],
                                &runs->numbers[3]};
    for (size_t i = 0; i < ARRAYS; i++)
        *arrays[i] = runs->memory + i * runs->each;
    if (!db_type_is_bytes(runs->type))
        return CHR_OK;
    if (runs->strings_capacity < runs->each * 4) {
        free(runs->strings_memory);
        runs->strings_capacity = 0;
        runs->strings_memory = malloc(runs->each * 4 * sizeof *runs->strings_memory);
        if (!runs->strings_memory)
            return CHR_ENOMEM;
        runs->strings_capacity = runs->each * 4;
    }
    for (size_t i = 0; i < 4; i++)
        runs->strings[i] = runs->strings_memory + i * runs->each;
    return CHR_OK;
}

static chr_err get_counts(db_chunk_runs *runs, struct db_cursor *in)
{
    if (runs->flags & DB_RUNS_FULL)
        return CHR_OK;
    chr_err err = db__int_array_get(in, runs->count, runs->counts);
    if (!err)
        err = db__int_array_get(in, runs->count, runs->first_times);
    if (!err)
        err = db__int_array_get(in, runs->count, runs->last_times);
    for (uint32_t r = 0; !err && r < runs->count; r++) {
        if (runs->counts[r] < 0 || runs->counts[r] > runs->runs[r].rows)
            err = db__cursor_bad(in, "more values than rows in a run");
    }
    return err;
}

static chr_err get_numbers(db_chunk_runs *runs, struct db_cursor *in)
{
    chr_err err = CHR_OK;
    for (int which = FIRST; !err && which <= MAX; which++) {
        if (which != FIRST && runs->flags & DB_RUNS_SAME)
            runs->numbers[which] = runs->numbers[FIRST];
        else
            err = db__numbers_get(in, runs->type, runs->count, runs->numbers[which]);
    }
    if (!err && runs->type == DB_INT) {
        err = db__int_array_get(in, runs->count, runs->sums_low);
        if (!err)
            err = db__int_array_get(in, runs->count, runs->sums_high);
    } else if (!err && runs->type == DB_FLOAT) {
        err = db__numbers_get(in, DB_FLOAT, runs->count, runs->sums_low);
    }
    return err;
}

static chr_err get_strings(db_chunk_runs *runs, struct db_cursor *in)
{
    chr_err err = CHR_OK;
    struct chr_buf unpacked;
    chr_buf_init(&unpacked, 0); /* they are never compressed */
    for (int which = FIRST; which <= MAX; which++) {
        if (which != FIRST && runs->flags & DB_RUNS_SAME) {
            runs->strings[which] = runs->strings[FIRST];
            continue;
        }
        for (uint32_t at = 0; at < runs->count; at += DB_VECTOR_ROWS) {
            uint32_t n = CHR_MIN(runs->count - at, (uint32_t)DB_VECTOR_ROWS);
            err = db__heap_get(in, n, runs->numbers[0], &unpacked, runs->strings[which] + at);
            if (err)
                goto out;
        }
    }
    if (!(runs->flags & DB_RUNS_EXACT))
        err = db__int_array_get(in, runs->count, runs->flags_each);
out:
    chr_buf_free(&unpacked);
    return err;
}

chr_err db_chunk_runs_open(db_chunk_runs *runs, db_chunk_head *head, uint32_t at, chr_slice value,
                           bool verify, struct chr_errmsg *msg)
{
    chr_slice body;
    uint16_t column = db_chunk_head_column(head, at);
    chr_err err = db_value_open(value, DB_CHUNK_RUNS, DB_CHUNK_VERSION, verify, &body, msg);
    if (err)
        return err;
    if (value.len < DB_RUNS_FIXED_BYTES)
        return chr_fail(msg, CHR_ECORRUPT, "run statistics of column %u: %zu bytes", column,
                        value.len);
    runs->type = db_chunk_head_type(head, at);
    runs->count = db_chunk_head_info(head)->runs_count;
    runs->flags = value.ptr[15];
    if (runs->count == 0 || chr_get_u32le(value.ptr + 8) != runs->count ||
        chr_get_u16le(value.ptr + 12) != column || value.ptr[14] != runs->type)
        return chr_fail(msg, CHR_ECORRUPT,
                        "run statistics of column %u are of column %u, type %u, %u runs", column,
                        chr_get_u16le(value.ptr + 12), value.ptr[14], chr_get_u32le(value.ptr + 8));
    runs->runs = db_chunk_head_runs(head, &err, msg);
    if (!runs->runs)
        return err;
    if (reserve(runs))
        return chr_fail(msg, CHR_ENOMEM, "no memory for statistics of %u runs", runs->count);
    struct db_cursor in = db__cursor_of(
        chr_slice_of(value.ptr + DB_RUNS_FIXED_BYTES, value.len - DB_RUNS_FIXED_BYTES));
    err = get_counts(runs, &in);
    if (!err)
        err = db_type_is_bytes(runs->type) ? get_strings(runs, &in) : get_numbers(runs, &in);
    if (err)
        return chr_fail(msg, err, "run statistics of column %u, offset %zu: %s", column,
                        (size_t)(in.at - value.ptr), in.why);
    return CHR_OK;
}

static struct db_value value_of(const db_chunk_runs *runs, uint32_t run, enum which which,
                                bool known)
{
    if (!known)
        return (struct db_value){.type = runs->type, .null = true};
    if (db_type_is_bytes(runs->type))
        return (struct db_value){
            .type = runs->type, .null = false, .bytes = runs->strings[which][run]};
    return db__value_of_bits(runs->type, runs->numbers[which][run]);
}

void db_chunk_runs_get(const db_chunk_runs *runs, uint32_t run, struct db_chunk_stats *stats)
{
    CHR_ASSERT(run < runs->count);
    const struct db_chunk_run *of = &runs->runs[run];
    bool full = runs->flags & DB_RUNS_FULL;
    int64_t flags = !db_type_is_bytes(runs->type) || runs->flags & DB_RUNS_EXACT
                        ? RUN_ALL
                        : runs->flags_each[run];
    struct db_column_stats *s = &stats->s;
    memset(stats, 0, sizeof *stats);
    s->count = full ? of->rows : (uint64_t)runs->counts[run];
    s->nulls = of->rows - s->count;
    s->has_sum = runs->type == DB_INT || runs->type == DB_FLOAT;
    bool any = s->count > 0;
    stats->bounds_exact = !any || flags & RUN_BOUNDS_EXACT;
    stats->ends_exact = !any || flags & RUN_ENDS_EXACT;
    s->min = value_of(runs, run, MIN, any && flags & RUN_BOUNDS_KNOWN);
    s->max = value_of(runs, run, MAX, any && flags & RUN_BOUNDS_KNOWN);
    s->first = value_of(runs, run, FIRST, any && flags & RUN_ENDS_EXACT);
    s->last = value_of(runs, run, LAST, any && flags & RUN_ENDS_EXACT);
    if (!any)
        return;
    s->first_time_us = of->first_time_us;
    s->last_time_us = of->last_time_us;
    if (!full) {
        s->first_time_us = (int64_t)((uint64_t)s->first_time_us + (uint64_t)runs->first_times[run]);
        s->last_time_us = (int64_t)((uint64_t)s->last_time_us - (uint64_t)runs->last_times[run]);
    }
    if (runs->type == DB_INT)
        s->sum_i128 = (__int128)(((unsigned __int128)(uint64_t)runs->sums_high[run] << 64) |
                                 (uint64_t)runs->sums_low[run]);
    else if (runs->type == DB_FLOAT)
        memcpy(&s->sum_f64, &runs->sums_low[run], 8);
}
