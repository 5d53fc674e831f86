/* db/chunk_find.c: single rows of chunks, for apply.
 *
 * Rows of a chunk are sorted by (series, time), so a key is found by binary search: each step
 * decodes the blocks of the series and time columns it falls into, which after the first few steps
 * is the same block. Ids are not sorted: a chunk that may hold some is decoded once for all that
 * are wanted. */
#include "db/chunk_find.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "db/chunk_open.h"
#include "db/series_key.h"

struct db__finder {
    db_kv_txn *txn; /* NULL: none */
    struct db__chunk_open open;
    struct chr_buf series;
};

struct db__finder *db__finder_new(void)
{
    struct db__finder *f = calloc(1, sizeof *f);
    if (f)
        chr_buf_init(&f->series, DB_ENTRY_BYTES_MAX * 4);
    return f;
}

void db__finder_free(struct db__finder *f)
{
    if (!f)
        return;
    db__chunk_open_free(&f->open);
    chr_buf_free(&f->series);
    free(f);
}

void db__finder_end(struct db *d)
{
    struct db__finder *f = d->apply.finder;
    if (!f->txn)
        return;
    db__chunk_open_close(&f->open);
    d->kv.abort(d->kv.ctx, f->txn);
    f->txn = NULL;
}

static void must(chr_err err, const struct chr_errmsg *msg)
{
    if (CHR_LIKELY(!err))
        return;
    chr_log_error("db", "a chunk that an entry depends on cannot be read; stopping",
                  CHR_KV_C("error", chr_strerror(err)), CHR_KV_C("detail", msg->text));
    abort();
}

static struct db__chunk_open *open_chunk(struct db *d, struct db__chunk *chunk)
{
    struct db__finder *f = d->apply.finder;
    struct chr_errmsg msg = {.text = ""};
    if (!f->txn)
        must(d->kv.begin(d->kv.ctx, false, &f->txn), &msg);
    if (f->open.chunk != chunk)
        must(db__chunk_open(d, &f->open, f->txn, chunk, &msg), &msg);
    return &f->open;
}

static struct db_value value_at(struct db *d, struct db__chunk_open *o, uint16_t id,
                                enum db_type type, uint32_t row)
{
    struct chr_errmsg msg = {.text = ""};
    struct db_value v;
    must(db__chunk_open_value(d, o, id, type, row, &v, &msg), &msg);
    return v;
}

static bool alive(struct db *d, const struct db_table_def *def, struct db__chunk_open *o,
                  uint32_t row)
{
    if (db__marks_has(&o->chunk->marks, row))
        return false;
    if (!db__can_expire(def) || o->chunk->min_time_us > db__expiry_limit(def, d->apply.now_us))
        return true;
    uint16_t id = def->time_column < 0 ? DB_COLUMN_RECEIVED_AT : def->columns[def->time_column].id;
    struct db_value time = value_at(d, o, id, DB_TIMESTAMP, row);
    return time.null || !db__expired(def, time.i64, d->apply.now_us);
}

/* -- By id --------------------------------------------------------------------------------------*/

static int id_cmp(const struct db_row_id *a, const struct db_row_id *b)
{
    if (a->entry != b->entry)
        return a->entry < b->entry ? -1 : 1;
    return (a->ordinal > b->ordinal) - (a->ordinal < b->ordinal);
}

static int wanted_cmp(const void *a, const void *b)
{
    const struct db__wanted *x = a, *y = b;
    int c = id_cmp(&x->id, &y->id);
    return c ? c : (x->at > y->at) - (x->at < y->at);
}

/* First wanted id that is not below. */
static uint32_t wanted_place(const struct db__wanted *wanted, uint32_t count, struct db_row_id id)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (id_cmp(&wanted[mid].id, &id) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static void find_in_block(struct db *d, const struct db_table_def *def, struct db__chunk_open *o,
                          uint32_t block, struct db__wanted *wanted, uint32_t count)
{
    struct chr_errmsg msg = {.text = ""};
    const struct db_vector *entry, *ordinal = NULL;
    uint64_t low = wanted[0].id.entry, high = wanted[count - 1].id.entry;
    uint32_t first = block * DB_VECTOR_ROWS;
    uint32_t rows = CHR_MIN(o->chunk->rows - first, DB_VECTOR_ROWS);
    must(db__chunk_open_decode(d, o, DB_COLUMN_ENTRY, block, &entry, &msg), &msg);
    must(entry ? CHR_OK : CHR_ECORRUPT, &msg);
    for (uint32_t i = 0; i < rows; i++) {
        uint64_t e = (uint64_t)entry->i64[db_vector_at(entry, i)];
        if (e < low || e > high)
            continue;
        if (!ordinal) {
            must(db__chunk_open_decode(d, o, DB_COLUMN_ORDINAL, block, &ordinal, &msg), &msg);
            must(ordinal ? CHR_OK : CHR_ECORRUPT, &msg);
        }
        struct db_row_id id = {e, (uint32_t)ordinal->i64[db_vector_at(ordinal, i)]};
        uint32_t at = wanted_place(wanted, count, id);
        if (at == count || id_cmp(&wanted[at].id, &id) != 0 || !alive(d, def, o, first + i))
            continue;
        for (; at < count && id_cmp(&wanted[at].id, &id) == 0; at++)
            wanted[at].place = (struct db__place){.chunk = o->chunk, .row = first + i};
    }
}

void db__chunk_find_ids(struct db *d, struct db__table *table, struct db__wanted *wanted,
                        uint32_t count)
{
    struct db__chunk_list *chunks = table->view->chunks;
    if (!chunks || !count)
        return;
    qsort(wanted, count, sizeof *wanted, wanted_cmp);
    for (uint32_t c = 0; c < chunks->count; c++) {
        struct db__chunk *chunk = chunks->chunks[c];
        uint32_t from = wanted_place(wanted, count, (struct db_row_id){chunk->min_entry, 0});
        uint32_t to = wanted_place(wanted, count, (struct db_row_id){chunk->max_entry, UINT32_MAX});
        if (from == to)
            continue;
        struct db__chunk_open *o = open_chunk(d, chunk);
        for (uint32_t b = 0; b < db_chunk_head_info(o->head)->blocks; b++)
            find_in_block(d, table->def, o, b, wanted + from, to - from);
    }
}

/* -- By key -------------------------------------------------------------------------------------*/

/* Order of a row against the key: series columns with NULLs last, then, unless it is the series
 * alone that matters, time. */
static int row_cmp(struct db *d, const struct db_table_def *def, struct db__chunk_open *o,
                   uint32_t row, const struct db_value *values, bool with_time)
{
    for (uint16_t k = 0; k < def->series_count; k++) {
        const struct db_column_def *column = &def->columns[def->series_columns[k]];
        struct db_value v = value_at(d, o, column->id, column->type, row);
        if (v.null)
            return 1;
        int c = db__value_cmp(&v, &values[def->series_columns[k]]);
        if (c)
            return c;
    }
    if (!with_time)
        return 0;
    struct db_value t = value_at(d, o, def->columns[def->time_column].id, DB_TIMESTAMP, row);
    return t.null ? 1 : db__value_cmp(&t, &values[def->time_column]);
}

/* First row that is not before the key; `after`: that is behind it. */
static uint32_t search(struct db *d, const struct db_table_def *def, struct db__chunk_open *o,
                       const struct db_value *values, bool with_time, bool after)
{
    uint32_t low = 0, high = o->chunk->rows;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (row_cmp(d, def, o, mid, values, with_time) < (after ? 1 : 0))
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static chr_slice series_key(struct db *d, const struct db_table_def *def,
                            const struct db_value *values)
{
    struct chr_buf *series = &d->apply.finder->series;
    chr_buf_reset(series);
    for (uint16_t k = 0; k < def->series_count; k++)
        db__series_add(series, &values[def->series_columns[k]]);
    if (series->failed)
        db__out_of_memory();
    return chr_buf_slice(series);
}

static bool may_have(const struct db__chunk *chunk, chr_slice series)
{
    return !db__series_before(series, chunk->min_series) &&
           !db__series_after(series, chunk->max_series);
}

bool db__chunk_find_key(struct db *d, struct db__table *table, const struct db_value *values,
                        struct db__place *place)
{
    const struct db_table_def *def = table->def;
    struct db__chunk_list *chunks = table->view->chunks;
    bool timed = db__key_has_time(def);
    if (!chunks)
        return false;
    chr_slice series = series_key(d, def, values);
    /* Newest first: what is looked for again is more often young. */
    for (uint32_t c = chunks->count; c-- > 0;) {
        struct db__chunk *chunk = chunks->chunks[c];
        if (timed && (values[def->time_column].i64 < chunk->min_time_us ||
                      values[def->time_column].i64 > chunk->max_time_us))
            continue;
        if (!may_have(chunk, series))
            continue;
        struct db__chunk_open *o = open_chunk(d, chunk);
        uint32_t row = search(d, def, o, values, timed, false);
        for (; row < chunk->rows && row_cmp(d, def, o, row, values, timed) == 0; row++) {
            if (!alive(d, def, o, row))
                continue;
            *place = (struct db__place){.chunk = chunk, .row = row};
            return true;
        }
    }
    return false;
}

int64_t db__chunk_series_latest(struct db *d, struct db__table *table,
                                const struct db_value *values, int64_t from_us)
{
    const struct db_table_def *def = table->def;
    struct db__chunk_list *chunks = table->view->chunks;
    int64_t latest = INT64_MIN;
    if (!chunks)
        return latest;
    chr_slice series = series_key(d, def, values);
    for (uint32_t c = chunks->count; c-- > 0;) {
        struct db__chunk *chunk = chunks->chunks[c];
        if (chunk->max_time_us < from_us || chunk->max_time_us <= latest ||
            !may_have(chunk, series))
            continue;
        struct db__chunk_open *o = open_chunk(d, chunk);
        uint32_t row = search(d, def, o, values, false, true); /* behind the last of the series */
        if (row == 0 || row_cmp(d, def, o, row - 1, values, false) != 0)
            continue;
        struct db_value t =
            value_at(d, o, def->columns[def->time_column].id, DB_TIMESTAMP, row - 1);
        latest = CHR_MAX(latest, t.i64);
    }
    return latest;
}

void db__chunk_values(struct db *d, const struct db__table *table, const struct db__place *place,
                      struct db_value *out)
{
    const struct db_table_def *def = table->def;
    struct db__chunk_open *o = open_chunk(d, place->chunk);
    for (uint16_t i = 0; i <= def->columns_count; i++) {
        uint16_t id = i < def->columns_count ? def->columns[i].id : DB_COLUMN_RECEIVED_AT;
        enum db_type type = i < def->columns_count ? def->columns[i].type : DB_TIMESTAMP;
        out[i] = value_at(d, o, id, type, place->row);
        if (!out[i].null && db_type_is_bytes(type)) {
            out[i].bytes = chr_arena_dup(&d->apply.arena, out[i].bytes);
            if (!out[i].bytes.ptr)
                db__out_of_memory();
        }
    }
}
