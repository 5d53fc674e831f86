/* db/seal.c: a job from sources to chunks: rows in order are gathered window by window, column by
 * column, into arrays that the chunk writer encodes. */
#include "db/seal.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/series_key.h"

#define REF_ROW ((1u << DB__SEAL_REF_BITS) - 1)

/* Arrays of one window, [DB_CHUNK_ROWS_MAX] each; allocated when first used. */
struct window_column {
    void *data; /* i64, f64, u8, or slices */
    uint32_t *ids;
    uint64_t *validity;
};

struct db__sealer {
    db_chunk_writer *writer;
    uint64_t *entry, *hlc;
    uint32_t *ordinal, *starts, *refs;
    int64_t *times;
    struct window_column *columns;
    uint32_t columns_capacity;
    struct db_chunk_column_in *in; /* [columns + received_at + hlc] */
};

chr_err db__sealer_new(struct db__sealer **out)
{
    struct db__sealer *s = calloc(1, sizeof *s);
    *out = s;
    return s ? db_chunk_writer_new(&s->writer) : CHR_ENOMEM;
}

static void give_back(struct db__sealer *s)
{
    for (uint32_t i = 0; i < s->columns_capacity; i++) {
        free(s->columns[i].data);
        free(s->columns[i].ids);
        free(s->columns[i].validity);
    }
    free(s->columns);
    free(s->in);
    free(s->entry);
    free(s->hlc);
    free(s->ordinal);
    free(s->starts);
    free(s->refs);
    free(s->times);
    db_chunk_writer *writer = s->writer;
    memset(s, 0, sizeof *s);
    s->writer = writer;
}

void db__sealer_free(struct db__sealer *s)
{
    if (!s)
        return;
    give_back(s);
    db_chunk_writer_free(s->writer);
    free(s);
}

static bool reserve(struct db__sealer *s, uint32_t columns, uint32_t rows)
{
    give_back(s);
    s->columns = calloc(columns, sizeof *s->columns);
    s->in = calloc(columns + 1, sizeof *s->in);
    s->columns_capacity = s->columns ? columns : 0;
    s->entry = malloc(rows * sizeof *s->entry);
    s->hlc = malloc(rows * sizeof *s->hlc);
    s->ordinal = malloc(rows * sizeof *s->ordinal);
    s->starts = malloc((rows + 1) * sizeof *s->starts);
    s->refs = malloc(rows * sizeof *s->refs);
    s->times = malloc(rows * sizeof *s->times);
    return s->columns && s->in && s->entry && s->hlc && s->ordinal && s->starts && s->refs &&
           s->times;
}

/* -- Gathering ----------------------------------------------------------------------------------*/

struct window {
    const struct db__seal_job *job;
    const struct db__seal_sources *sources;
    const struct db__seal_order *order;
    uint32_t first, rows, rows_max;
    const uint32_t *refs; /* [rows] of the window's rows, in order */
};

static void gather_ids(struct db__sealer *s, const struct window *w)
{
    for (uint32_t j = 0; j < w->rows; j++) {
        uint32_t i = w->order->order[w->first + j], ref = w->order->refs[i];
        uint32_t block = ref >> DB__SEAL_REF_BITS, row = ref & REF_ROW;
        struct db_row_id id = db__seal_row_id(w->sources, block, row, &s->hlc[j]);
        s->refs[j] = ref;
        s->entry[j] = id.entry;
        s->ordinal[j] = id.ordinal;
        s->times[j] = w->order->times[i];
    }
}

/* Where the series of the window begin. */
static uint32_t gather_starts(struct db__sealer *s, const struct window *w, uint32_t first_series)
{
    uint32_t n = 0;
    s->starts[n++] = 0;
    for (uint32_t k = first_series + 1; k < w->order->series; k++) {
        if (w->order->starts[k] >= w->first + w->rows)
            break;
        s->starts[n++] = w->order->starts[k] - w->first;
    }
    return n;
}

/* Bits of rows that are not NULL; false when all are. */
static bool gather_validity(const struct window *w, const struct db__seal_column *blocks,
                            uint64_t *validity)
{
    bool any = false;
    for (uint32_t b = 0; b < w->job->blocks_count && !any; b++)
        any = blocks[b].absent || blocks[b].validity;
    if (!any)
        return false;
    uint64_t nulls = 0;
    for (uint32_t j = 0; j < w->rows; j += 64) {
        uint64_t word = 0;
        uint32_t n = CHR_MIN(w->rows - j, 64);
        for (uint32_t k = 0; k < n; k++) {
            uint32_t ref = w->refs[j + k];
            word |= (uint64_t)db__seal_valid(&blocks[ref >> DB__SEAL_REF_BITS], ref & REF_ROW) << k;
        }
        validity[j / 64] = word;
        nulls |= word ^ (n == 64 ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1);
    }
    return nulls != 0;
}

static void gather_i64(const struct window *w, const struct db__seal_column *blocks, int64_t *out)
{
    for (uint32_t j = 0; j < w->rows; j++) {
        uint32_t ref = w->refs[j];
        const int64_t *data = blocks[ref >> DB__SEAL_REF_BITS].data;
        out[j] = data ? data[ref & REF_ROW] : 0;
    }
}

static void gather_bool(const struct window *w, const struct db__seal_column *blocks, uint8_t *out)
{
    for (uint32_t j = 0; j < w->rows; j++) {
        uint32_t ref = w->refs[j];
        const uint8_t *data = blocks[ref >> DB__SEAL_REF_BITS].data;
        out[j] = data ? data[ref & REF_ROW] : 0;
    }
}

static void gather_bytes(const struct window *w, const struct db__seal_column *blocks,
                         chr_slice *out)
{
    for (uint32_t j = 0; j < w->rows; j++) {
        uint32_t ref = w->refs[j];
        const struct db__seal_column *c = &blocks[ref >> DB__SEAL_REF_BITS];
        out[j] = c->absent ? (chr_slice){0} : db__seal_bytes(c, ref & REF_ROW);
    }
}

/* The dictionary of a column if it is one of the series'. */
static const struct db__seal_dict *dict_of(const struct window *w, uint32_t column)
{
    const struct db_table_def *def = w->job->def;
    for (uint16_t k = 0; k < def->series_count; k++)
        if (def->series_columns[k] == column && w->order->dicts[k].count)
            return &w->order->dicts[k];
    return NULL;
}

static bool gather_column(struct db__sealer *s, const struct window *w, uint32_t column)
{
    const struct db_table_def *def = w->job->def;
    bool last = column == def->columns_count;
    struct db_chunk_column_in *in = &s->in[column];
    struct window_column *out = &s->columns[column];
    const struct db__seal_column *blocks = w->sources->columns[column];
    uint32_t max = w->rows_max;
    *in = (struct db_chunk_column_in){
        .id = last ? DB_COLUMN_RECEIVED_AT : def->columns[column].id,
        .type = last ? DB_TIMESTAMP : def->columns[column].type,
    };
    if (!out->validity && !(out->validity = malloc(DB_BIT_WORDS(max) * sizeof(uint64_t))))
        return false;
    in->validity = gather_validity(w, blocks, out->validity) ? out->validity : NULL;
    const struct db__seal_dict *dict = db_type_is_bytes(in->type) ? dict_of(w, column) : NULL;
    if (dict) {
        if (!out->ids && !(out->ids = malloc(max * sizeof *out->ids)))
            return false;
        for (uint32_t j = 0; j < w->rows; j++) {
            uint32_t id = dict->ids[w->order->order[w->first + j]];
            out->ids[j] = id == UINT32_MAX ? 0 : id;
        }
        in->dict = dict->values;
        in->dict_count = dict->count;
        in->ids = out->ids;
        return true;
    }
    size_t width = in->type == DB_BOOLEAN ? 1 : db_type_is_bytes(in->type) ? sizeof(chr_slice) : 8;
    if (!out->data && !(out->data = malloc(max * width)))
        return false;
    in->data = out->data;
    if (in->type == DB_BOOLEAN)
        gather_bool(w, blocks, out->data);
    else if (db_type_is_bytes(in->type))
        gather_bytes(w, blocks, out->data);
    else
        gather_i64(w, blocks, out->data);
    return true;
}

static bool gather(struct db__sealer *s, const struct window *w)
{
    uint32_t columns = (uint32_t)w->job->def->columns_count + 1;
    gather_ids(s, w); /* and refs */
    for (uint32_t c = 0; c < columns; c++)
        if (!gather_column(s, w, c))
            return false;
    s->in[columns] =
        (struct db_chunk_column_in){.id = DB_COLUMN_HLC, .type = DB_INT, .data = s->hlc};
    return true;
}

/* -- What memory keeps of a chunk ---------------------------------------------------------------*/

static bool keep_key(chr_slice key, chr_slice *out)
{
    size_t len = CHR_MIN(key.len, DB__SERIES_CUT);
    uint8_t *p = malloc(len + 1);
    if (!p)
        return false;
    if (len)
        memcpy(p, key.ptr, len);
    *out = chr_slice_of(p, len);
    return true;
}

static struct db__chunk *chunk_new(const struct db__sealer *s, const struct window *w,
                                   const struct db_chunk_output *out, uint32_t first_series,
                                   uint32_t last_series)
{
    struct db__chunk *chunk = calloc(1, sizeof *chunk);
    if (!chunk)
        return NULL;
    chunk->refs = 1;
    chunk->table_id = w->job->def->id;
    chunk->rows = out->rows;
    chunk->bytes = out->bytes;
    chunk->min_entry = out->entry_min;
    chunk->max_entry = out->entry_max;
    chunk->min_time_us = INT64_MAX;
    chunk->max_time_us = INT64_MIN;
    for (uint32_t j = 0; j < out->rows; j++) {
        if (s->times[j] == INT64_MAX) {
            chunk->null_times = true;
            continue;
        }
        chunk->min_time_us = CHR_MIN(chunk->min_time_us, s->times[j]);
        chunk->max_time_us = CHR_MAX(chunk->max_time_us, s->times[j]);
    }
    db__marks_init(&chunk->marks, out->rows);
    if (!keep_key(w->order->keys[first_series], &chunk->min_series) ||
        !keep_key(w->order->keys[last_series], &chunk->max_series)) {
        db__chunk_release(chunk);
        return NULL;
    }
    return chunk;
}

static bool job_add(struct db__seal_job *job, struct db__chunk *chunk, uint32_t first)
{
    if (job->made_count == job->made_capacity) {
        uint32_t capacity = job->made_capacity ? job->made_capacity * 2 : 8;
        void *made = realloc(job->made, capacity * sizeof *job->made);
        if (made)
            job->made = made;
        void *made_first = realloc(job->made_first, capacity * sizeof *job->made_first);
        if (made_first)
            job->made_first = made_first;
        if (!made || !made_first)
            return false;
        job->made_capacity = capacity;
    }
    job->made[job->made_count] = chunk;
    job->made_first[job->made_count++] = first;
    return true;
}

/* -- The job ------------------------------------------------------------------------------------*/

/* The series a place of the output belongs to, at or after `from`. */
static uint32_t series_at(const struct db__seal_order *o, uint32_t from, uint32_t place)
{
    while (from + 1 < o->series && o->starts[from + 1] <= place)
        from++;
    return from;
}

static chr_err
write_chunks(struct db__sealer *s, struct db__seal_job *job, const struct db__seal_sources *sources,
             const struct db__seal_order *order, uint32_t rows_max, bool tail,
             chr_err (*emit)(void *arg, const struct db_chunk_output *out, struct db__chunk *chunk),
             void *arg, struct chr_errmsg *msg)
{
    uint32_t series = 0, try_rows = rows_max;
    struct window w = {.job = job, .sources = sources, .order = order, .rows_max = rows_max};
    while (w.first < order->rows) {
        w.rows = CHR_MIN(order->rows - w.first, try_rows);
        series = series_at(order, series, w.first);
        w.refs = s->refs;
        if (!gather(s, &w))
            return CHR_ENOMEM;
        struct db_chunk_input in = {.table_id = job->def->id,
                                    .schema_version = job->def->schema_version,
                                    .rows = w.rows,
                                    .rows_max = w.rows,
                                    .entry = s->entry,
                                    .ordinal = s->ordinal,
                                    .time_us = s->times,
                                    .run_starts = s->starts,
                                    .runs_count = gather_starts(s, &w, series),
                                    .columns = s->in,
                                    .columns_count = (uint32_t)job->def->columns_count + 2};
        struct db_chunk_output out;
        chr_err err = db_chunk_write(s->writer, &in, &out, msg);
        if (err)
            return err;
        CHR_ASSERT(out.rows > 0 && out.rows <= w.rows);
        uint32_t last = series_at(order, series, w.first + out.rows - 1);
        struct db__chunk *chunk = chunk_new(s, &w, &out, series, last);
        if (!chunk)
            return CHR_ENOMEM;
        chunk->tail = tail && w.first == 0 && out.rows == order->rows;
        if (!job_add(job, chunk, w.first)) {
            db__chunk_release(chunk);
            return CHR_ENOMEM;
        }
        err = emit(arg, &out, chunk);
        if (err)
            return err;
        w.first += out.rows;
        /* Of wide rows few fit into a chunk: to gather all that is left for each would take longer
         * by the square of it. */
        if (out.rows < w.rows)
            try_rows = CHR_MIN(rows_max, out.rows * 2); /* the arrays are for no more */
        else if (try_rows < rows_max)
            try_rows = CHR_MIN(rows_max, try_rows * 4);
    }
    return CHR_OK;
}

chr_err db__seal(struct db *d, struct db__sealer *s, struct db__seal_job *job, uint32_t rows_max,
                 uint32_t tail_rows,
                 chr_err (*emit)(void *arg, const struct db_chunk_output *out,
                                 struct db__chunk *chunk),
                 void *arg, struct chr_errmsg *msg)
{
    struct db__seal_sources sources;
    struct db__seal_order order;
    db_kv_txn *txn = NULL;
    memset(&order, 0, sizeof order);
    /* Chunks to be rewritten are read within one transaction: they are few, and this is no query.
     */
    chr_err err = job->sources_count ? d->kv.begin(d->kv.ctx, false, &txn) : CHR_OK;
    if (err)
        return err;
    err = db__seal_open(d, &sources, job, txn, msg);
    if (txn) {
        db__chunk_open_close(&sources.open);
        d->kv.abort(d->kv.ctx, txn); /* all was copied */
    }
    if (!err)
        err = db__seal_sort(&order, job, &sources);
    if (err || order.rows == 0)
        goto out;
    /* Equal parts rather than a full chunk and a crumb. */
    uint32_t chunks = (order.rows + rows_max - 1) / rows_max;
    uint32_t rows = (order.rows + chunks - 1) / chunks;
    if (!reserve(s, (uint32_t)job->def->columns_count + 1, rows)) {
        err = CHR_ENOMEM;
        goto out;
    }
    err = write_chunks(s, job, &sources, &order, rows, order.rows < tail_rows, emit, arg, msg);
    job->rows = order.rows;
    for (uint32_t k = 0; k < order.rows && !err; k++) {
        uint32_t ref = order.refs[order.order[k]];
        job->blocks[ref >> DB__SEAL_REF_BITS].dest[ref & REF_ROW] = k;
    }
out:
    db__seal_order_free(&order);
    db__seal_close(&sources);
    return err;
}

void db__seal_job_free(struct db__seal_job *job)
{
    for (uint32_t b = 0; b < job->blocks_count; b++)
        free(job->blocks[b].dest);
    for (uint32_t i = 0; i < job->made_count; i++)
        db__chunk_release(job->made[i]);
    for (uint32_t i = 0; i < job->sets_count; i++)
        db__hot_set_release(job->sets[i]);
    for (uint32_t i = 0; i < job->sources_count; i++)
        db__chunk_release(job->sources[i]);
    free(job->blocks);
    free(job->made);
    free(job->made_first);
    free(job->sets);
    free(job->sources);
    memset(job, 0, sizeof *job);
}
