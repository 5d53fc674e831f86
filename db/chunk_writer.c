/* db/chunk_writer.c: as many rows as fit, each column encoded, the head on top.
 *
 * Columns are encoded one after the other. The first one that outgrows its limit lowers the number
 * of rows for itself and those after it; those before it are done again at the end. So that this
 * stays rare, the next chunk of the same table begins with a little more than fitted last time. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/chunk_internal.h"

struct db_chunk_writer {
    struct db_encoder *encoder; /* 64-byte aligned */
    struct db_stats_builder stats;
    struct db_encoded *columns; /* [columns_capacity] by order of id */
    const struct db_chunk_column_in **sorted;
    const struct db_encoded **encoded;
    struct db_chunk_part *parts;
    uint32_t columns_capacity;
    uint32_t *starts;
    size_t starts_capacity;
    int64_t *hlc; /* [DB_CHUNK_ROWS_MAX] by log index from the lowest */
    uint32_t hlc_count;
    struct chr_buf head;
    /* What the last chunk was cut to, and of which table; 0: it was not. */
    uint32_t cut_table_id, cut_rows;
};

chr_err db_chunk_writer_new(db_chunk_writer **writer)
{
    db_chunk_writer *w = calloc(1, sizeof *w);
    if (!w)
        return CHR_ENOMEM;
    chr_buf_init(&w->head, DB_CHUNK_BUFFER_BYTES_MAX);
    w->hlc = malloc(DB_CHUNK_ROWS_MAX * sizeof *w->hlc);
    struct db_encoder *e = w->encoder = aligned_alloc(64, (sizeof *e + 63) / 64 * 64);
    if (e) { /* its large arrays stay untouched, and so unbacked, until there is work */
        memset(&e->dict, 0, sizeof e->dict);
        chr_buf_init(&e->heap, DB_CHUNK_BUFFER_BYTES_MAX);
        chr_buf_init(&e->trial, DB_CHUNK_BUFFER_BYTES_MAX);
        e->array = malloc(DB_CHUNK_ROWS_MAX * sizeof *e->array);
    }
    if (!w->hlc || !e || !e->array) {
        db_chunk_writer_free(w);
        return CHR_ENOMEM;
    }
    *writer = w;
    return CHR_OK;
}

void db_chunk_writer_free(db_chunk_writer *w)
{
    if (!w)
        return;
    for (uint32_t c = 0; c < w->columns_capacity; c++) {
        chr_buf_free(&w->columns[c].column);
        chr_buf_free(&w->columns[c].runs);
    }
    if (w->encoder) {
        db__dict_free(&w->encoder->dict);
        chr_buf_free(&w->encoder->heap);
        chr_buf_free(&w->encoder->trial);
        free(w->encoder->array);
    }
    free(w->encoder);
    free(w->stats.runs);
    free(w->columns);
    free(w->sorted);
    free(w->encoded);
    free(w->parts);
    free(w->starts);
    free(w->hlc);
    chr_buf_free(&w->head);
    free(w);
}

static chr_err reserve_columns(db_chunk_writer *w, uint32_t n)
{
    if (n <= w->columns_capacity)
        return CHR_OK;
    struct db_encoded *columns = realloc(w->columns, n * sizeof *columns);
    if (columns)
        w->columns = columns;
    const struct db_chunk_column_in **sorted = realloc(w->sorted, n * sizeof *sorted);
    if (sorted)
        w->sorted = sorted;
    const struct db_encoded **encoded = realloc(w->encoded, n * sizeof *encoded);
    if (encoded)
        w->encoded = encoded;
    struct db_chunk_part *parts = realloc(w->parts, (2 * n + 1) * sizeof *parts);
    if (parts)
        w->parts = parts;
    if (!columns || !sorted || !encoded || !parts)
        return CHR_ENOMEM;
    for (uint32_t c = w->columns_capacity; c < n; c++) {
        memset(&w->columns[c], 0, sizeof w->columns[c]);
        chr_buf_init(&w->columns[c].column, DB_CHUNK_BUFFER_BYTES_MAX);
        chr_buf_init(&w->columns[c].runs, DB_CHUNK_BUFFER_BYTES_MAX);
    }
    w->columns_capacity = n;
    return CHR_OK;
}

/* -- Which rows ---------------------------------------------------------------------------------*/

static bool before(const struct db_chunk_input *in, uint32_t a, uint32_t b)
{
    if (in->time_us[a] != in->time_us[b])
        return in->time_us[a] < in->time_us[b];
    if (in->entry[a] != in->entry[b])
        return in->entry[a] < in->entry[b];
    return in->ordinal[a] < in->ordinal[b];
}

/* The runs of rows [first, first + count), cut at both ends. */
static chr_err set_rows(db_chunk_writer *w, const struct db_chunk_input *in, uint32_t count,
                        struct db_chunk_rows *rows)
{
    uint32_t low = 0, high = in->runs_count; /* last run that starts at or before first */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (in->run_starts[middle] <= in->first)
            low = middle;
        else
            high = middle;
    }
    uint32_t end = low + 1;
    while (end < in->runs_count && in->run_starts[end] < in->first + count)
        end++;
    uint32_t n = end - low;
    if (w->starts_capacity < (size_t)n + 1) {
        uint32_t *more = realloc(w->starts, ((size_t)n + 1) * sizeof *more);
        if (!more)
            return CHR_ENOMEM;
        w->starts = more;
        w->starts_capacity = (size_t)n + 1;
    }
    w->starts[0] = 0;
    for (uint32_t r = 1; r < n; r++)
        w->starts[r] = in->run_starts[low + r] - in->first;
    w->starts[n] = count;
    *rows = (struct db_chunk_rows){
        .in = in, .first = in->first, .count = count, .starts = w->starts, .runs_count = n};
    rows->run_stats = n > 1 && n <= count / DB_RUN_STATS_ROWS_MIN;
    rows->last_row = w->starts[1] - 1;
    for (uint32_t r = 1; r < n; r++) {
        uint32_t first = w->starts[r], last = w->starts[r + 1] - 1;
        if (before(in, in->first + first, in->first + rows->first_row))
            rows->first_row = first;
        if (before(in, in->first + rows->last_row, in->first + last))
            rows->last_row = last;
    }
    return rows->run_stats ? db__stats_reserve(&w->stats, n) : CHR_OK;
}

/* -- HLC ----------------------------------------------------------------------------------------*/

/* Is the HLC a function of the entry, as it is unless operations were synced from elsewhere? Then a
 * table by log index says it all. */
static void derive_hlc(db_chunk_writer *w, const struct db_chunk_rows *rows,
                       const struct db_chunk_column_in *hlc, const struct db_chunk_output *ranges)
{
    w->hlc_count = 0;
    uint64_t span = ranges->entry_max - ranges->entry_min;
    if (hlc->validity || span >= DB_CHUNK_ROWS_MAX || span > 4 * (uint64_t)rows->count)
        return;
    uint32_t n = (uint32_t)span + 1;
    for (uint32_t i = 0; i < n; i++)
        w->hlc[i] = 0; /* no entry has it: 48 bits of it are the year */
    for (uint32_t i = 0; i < rows->count; i++) {
        uint64_t at = rows->in->entry[rows->first + i] - ranges->entry_min;
        int64_t v = hlc->i64[rows->first + i];
        if (v == 0 || (w->hlc[at] && w->hlc[at] != v))
            return;
        w->hlc[at] = v;
    }
    for (uint32_t i = 1; i < n; i++) {
        if (w->hlc[i] == 0)
            w->hlc[i] = w->hlc[i - 1];
    }
    chr_buf_reset(&w->encoder->trial);
    db__int_array_put(&w->encoder->ints, w->hlc, n, &w->encoder->trial);
    if (!w->encoder->trial.failed && w->encoder->trial.len <= DB_HEAD_HLC_BYTES_MAX)
        w->hlc_count = n;
}

/* Statistics of a column that is not encoded. */
static void stats_only(db_chunk_writer *w, const struct db_chunk_rows *rows,
                       const struct db_chunk_column_in *column, struct db_encoded *out)
{
    struct db_chunk_rows whole = *rows;
    whole.run_stats = false;
    db__stats_begin(&w->stats, &whole, column->type);
    for (uint32_t row = 0; row < rows->count; row += DB_VECTOR_ROWS) {
        uint32_t n = CHR_MIN(rows->count - row, (uint32_t)DB_VECTOR_ROWS);
        db__stats_add(&w->stats, row, n, column->i64 + rows->first + row, NULL, NULL);
    }
    db__stats_end(&w->stats, NULL);
    out->total = w->stats.total;
    out->rows = rows->count;
    chr_buf_reset(&out->column);
    chr_buf_reset(&out->runs);
}

/* -- The chunk ----------------------------------------------------------------------------------*/

static void set_ranges(const struct db_chunk_rows *rows, const struct db_chunk_column_in *hlc,
                       struct db_chunk_output *out)
{
    const struct db_chunk_input *in = rows->in;
    uint32_t first = rows->first;
    out->entry_min = out->entry_max = in->entry[first];
    out->hlc_min = out->hlc_max = (uint64_t)hlc->i64[first];
    for (uint32_t i = first + 1; i < first + rows->count; i++) {
        uint64_t entry = in->entry[i], v = (uint64_t)hlc->i64[i];
        out->entry_min = entry < out->entry_min ? entry : out->entry_min;
        out->entry_max = entry > out->entry_max ? entry : out->entry_max;
        out->hlc_min = v < out->hlc_min ? v : out->hlc_min;
        out->hlc_max = v > out->hlc_max ? v : out->hlc_max;
    }
    out->time_min_us = in->time_us[first + rows->first_row];
    out->time_max_us = in->time_us[first + rows->last_row];
}

static int by_id(const void *a, const void *b)
{
    const struct db_chunk_column_in *const *x = a, *const *y = b;
    return (*x)->id < (*y)->id ? -1 : (*x)->id > (*y)->id;
}

/* Encodes one column of rows->count rows, or of as many as fit: rows is then made fewer. */
static chr_err encode_one(db_chunk_writer *w, struct db_chunk_rows *rows, uint32_t c,
                          struct chr_errmsg *msg)
{
    chr_err err = CHR_OK;
    uint32_t fit;
    do {
        err =
            db__column_encode(w->encoder, &w->stats, rows, w->sorted[c], &w->columns[c], &fit, msg);
        if (!err && fit < rows->count)
            err = set_rows(w, rows->in, fit, rows);
    } while (!err && w->columns[c].rows != rows->count);
    return err;
}

static chr_err encode_columns(db_chunk_writer *w, struct db_chunk_rows *rows, uint32_t columns,
                              struct chr_errmsg *msg, struct db_chunk_output *out)
{
    uint32_t hlc = 0;
    while (hlc < columns && w->sorted[hlc]->id != DB_COLUMN_HLC)
        hlc++;
    CHR_ASSERT(hlc < columns);
    for (uint32_t before = 0; before != rows->count;) {
        before = rows->count; /* until a whole round changed nothing */
        for (uint32_t c = 0; c < columns; c++) {
            if (c == hlc || w->columns[c].rows == rows->count)
                continue;
            chr_err err = encode_one(w, rows, c, msg);
            if (err)
                return err;
        }
        set_ranges(rows, w->sorted[hlc], out);
        derive_hlc(w, rows, w->sorted[hlc], out);
        if (w->hlc_count) {
            stats_only(w, rows, w->sorted[hlc], &w->columns[hlc]);
        } else {
            chr_err err = encode_one(w, rows, hlc, msg);
            if (err)
                return err;
        }
    }
    return CHR_OK;
}

static void add_part(struct db_chunk_output *out, struct db_chunk_part *parts,
                     enum db_chunk_part_kind kind, uint16_t column, const struct chr_buf *value)
{
    if (value->len == 0)
        return;
    parts[out->parts_count++] =
        (struct db_chunk_part){.kind = kind, .column = column, .value = chr_buf_slice(value)};
    out->bytes += value->len;
}

chr_err db_chunk_write(db_chunk_writer *w, const struct db_chunk_input *in,
                       struct db_chunk_output *out, struct chr_errmsg *msg)
{
    CHR_ASSERT(in->first < in->rows && in->rows_max >= 1 && in->rows_max <= DB_CHUNK_ROWS_MAX);
    CHR_ASSERT(in->runs_count >= 1 && in->run_starts[0] == 0);
    uint32_t columns = in->columns_count + 2;
    struct db_chunk_column_in entry = {.id = DB_COLUMN_ENTRY, .type = DB_INT, .data = in->entry};
    struct db_chunk_column_in ordinal = {
        .id = DB_COLUMN_ORDINAL, .type = DB_INT, .data = in->ordinal};
    memset(out, 0, sizeof *out);
    if (reserve_columns(w, columns))
        return chr_fail(msg, CHR_ENOMEM, "no memory to write %u columns", columns);
    for (uint32_t c = 0; c < in->columns_count; c++)
        w->sorted[c] = &in->columns[c];
    w->sorted[columns - 2] = &entry;
    w->sorted[columns - 1] = &ordinal;
    qsort(w->sorted, columns, sizeof *w->sorted, by_id);
    for (uint32_t c = 0; c < columns; c++) {
        CHR_ASSERT(c == 0 || w->sorted[c - 1]->id < w->sorted[c]->id);
        w->columns[c].rows = 0;
        w->encoded[c] = &w->columns[c];
    }

    uint32_t wanted = CHR_MIN(in->rows - in->first, in->rows_max);
    uint32_t count = wanted;
    if (w->cut_rows && w->cut_table_id == in->table_id)
        count = CHR_MIN(count, w->cut_rows + 2 * DB_VECTOR_ROWS);
    struct db_chunk_rows rows;
    chr_err err = set_rows(w, in, count, &rows);
    if (!err)
        err = encode_columns(w, &rows, columns, msg, out);
    if (err == CHR_ENOMEM)
        return chr_fail(msg, err, "no memory to write a chunk of %u rows", count);
    if (err)
        return err;
    w->cut_table_id = in->table_id;
    w->cut_rows = rows.count < wanted ? rows.count : 0;

    db__head_put(w->encoder, &rows, w->sorted, w->encoded, columns, w->hlc, w->hlc_count, out,
                 &w->head);
    if (w->head.failed)
        return chr_fail(msg, CHR_ENOMEM, "no memory to write a chunk head");
    out->rows = rows.count;
    out->parts = w->parts;
    add_part(out, w->parts, DB_CHUNK_HEAD, 0, &w->head);
    for (uint32_t c = 0; c < columns; c++) {
        add_part(out, w->parts, DB_CHUNK_COLUMN, w->sorted[c]->id, &w->columns[c].column);
        add_part(out, w->parts, DB_CHUNK_RUNS, w->sorted[c]->id, &w->columns[c].runs);
    }
    return CHR_OK;
}
