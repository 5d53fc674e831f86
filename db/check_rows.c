/* db/check_rows.c: one chunk: each statistic counted again (chunk_check.c), then its rows against
 * its record in the manifest and against each other: in order of series, time and id. */
#include <stdio.h>
#include <string.h>

#include "db/check_internal.h"
#include "db/series_key.h"

chr_err db__check_open(struct db__check *c, struct db__chunk *chunk, struct db__chunk_open *open,
                       db_kv_txn **txn)
{
    struct chr_errmsg msg;
    const struct db_kv *kv = &c->d->kv;
    chr_err err = kv->begin(kv->ctx, false, txn);
    if (err)
        return err;
    err = db__chunk_open(c->d, open, *txn, chunk, &msg);
    if (err)
        kv->abort(kv->ctx, *txn);
    return err;
}

void db__check_close(struct db__check *c, struct db__chunk_open *open, db_kv_txn *txn)
{
    db__chunk_open_close(open);
    c->d->kv.abort(c->d->kv.ctx, txn);
}

/* -- Order --------------------------------------------------------------------------------------*/

/* The rows of one block, and the last one before it. */
struct walk {
    struct db__check *check;
    const struct db_table_def *def;
    const struct db__chunk *chunk;
    const struct db_vector *series[DB_KEY_COLUMNS_MAX], *time, *entry, *ordinal;
    struct chr_buf key, last_key; /* series of the present and of the last row */
    bool first;                   /* no row yet */
    int64_t last_time_us;
    struct db_row_id last_id;
    bool ordered, within;
    int64_t min_us, max_us;
};

static chr_err block_vectors(struct walk *w, struct db__chunk_open *o, uint32_t block,
                             struct chr_errmsg *msg)
{
    struct db *d = w->check->d;
    chr_err err = CHR_OK;
    for (uint16_t k = 0; k < w->def->series_count && !err; k++)
        err = db__chunk_open_decode(d, o, w->def->columns[w->def->series_columns[k]].id, block,
                                    &w->series[k], msg);
    if (!err)
        err = db__chunk_open_decode(d, o, db__check_time_id(w->def), block, &w->time, msg);
    if (!err)
        err = db__chunk_open_decode(d, o, DB_COLUMN_ENTRY, block, &w->entry, msg);
    if (!err)
        err = db__chunk_open_decode(d, o, DB_COLUMN_ORDINAL, block, &w->ordinal, msg);
    if (!err && (!w->entry || !w->ordinal))
        err = db__chunk_damaged(chr_fail(msg, CHR_ECORRUPT, "it has no row ids"), w->def, w->chunk,
                                DB__COLUMN_NONE, msg);
    return err;
}

/* Is the row surely of the series of the one before it in the block? */
static bool same_series(const struct walk *w, uint32_t row)
{
    for (uint16_t k = 0; k < w->def->series_count; k++) {
        const struct db_vector *v = w->series[k];
        if (!v || v->form == DB_VECTOR_CONSTANT)
            continue;
        if (v->validity && (!db_bit_get(v->validity, row) || !db_bit_get(v->validity, row - 1)))
            return false;
        if (v->form == DB_VECTOR_DICT   ? v->codes[row] != v->codes[row - 1]
            : db_type_is_bytes(v->type) ? !chr_slice_eq(v->str[row], v->str[row - 1])
            : v->type == DB_BOOLEAN     ? v->b8[row] != v->b8[row - 1]
                                        : v->i64[row] != v->i64[row - 1])
            return false;
    }
    return true;
}

static void make_key(struct walk *w, uint32_t row)
{
    chr_buf_reset(&w->key);
    for (uint16_t k = 0; k < w->def->series_count; k++) {
        struct db_value v = {.type = w->def->columns[w->def->series_columns[k]].type, .null = true};
        if (w->series[k])
            v = db__vector_value(w->series[k], row);
        db__series_add(&w->key, &v);
    }
}

static int id_cmp(struct db_row_id a, struct db_row_id b)
{
    if (a.entry != b.entry)
        return a.entry < b.entry ? -1 : 1;
    return (a.ordinal > b.ordinal) - (a.ordinal < b.ordinal);
}

static chr_err walk_block(struct walk *w)
{
    for (uint32_t i = 0; i < w->entry->count; i++) {
        int c = 0; /* order of the last row's series and this one's */
        if (i == 0 || !same_series(w, i)) {
            make_key(w, i);
            if (w->key.failed)
                return CHR_ENOMEM;
            chr_slice key = chr_buf_slice(&w->key);
            c = w->first ? -1 : chr_slice_cmp(chr_buf_slice(&w->last_key), key);
            w->within = w->within && !db__series_before(key, w->chunk->min_series) &&
                        !db__series_after(key, w->chunk->max_series);
            struct chr_buf last = w->last_key;
            w->last_key = w->key;
            w->key = last;
        }
        int64_t time_us = INT64_MAX; /* NULLs stand last */
        if (w->time && db_vector_valid(w->time, i))
            time_us = w->time->i64[db_vector_at(w->time, i)];
        struct db_row_id id = {(uint64_t)w->entry->i64[db_vector_at(w->entry, i)],
                               (uint32_t)w->ordinal->i64[db_vector_at(w->ordinal, i)]};
        if (c == 0)
            c = w->last_time_us != time_us ? (w->last_time_us < time_us ? -1 : 1)
                                           : id_cmp(w->last_id, id);
        w->ordered = w->ordered && c < 0;
        w->within = w->within && id.entry >= w->chunk->min_entry && id.entry <= w->chunk->max_entry;
        w->first = false;
        w->last_time_us = time_us;
        w->last_id = id;
        if (time_us == INT64_MAX) {
            w->within = w->within && w->chunk->null_times;
            continue;
        }
        w->min_us = CHR_MIN(w->min_us, time_us);
        w->max_us = CHR_MAX(w->max_us, time_us);
    }
    return CHR_OK;
}

static chr_err check_rows(struct db__check *c, const struct db_table_def *def,
                          struct db__chunk *chunk, struct db__chunk_open *o)
{
    struct chr_errmsg msg = {.text = ""};
    struct walk w = {.check = c,
                     .def = def,
                     .chunk = chunk,
                     .first = true,
                     .ordered = true,
                     .within = true,
                     .min_us = INT64_MAX,
                     .max_us = INT64_MIN};
    chr_err err = CHR_OK;
    chr_buf_init(&w.key, SIZE_MAX);
    chr_buf_init(&w.last_key, SIZE_MAX);
    for (uint32_t row = 0; row < chunk->rows && !err; row += DB_VECTOR_ROWS) {
        err = block_vectors(&w, o, row / DB_VECTOR_ROWS, &msg);
        if (!err)
            err = walk_block(&w);
    }
    if (err == CHR_ECORRUPT)
        db__check_found(c, "%s", msg.text);
    else if (!err && !w.ordered)
        db__check_found(c, "%s: rows are not in order of series, time and id", c->where);
    if (!err && (!w.within || w.min_us != chunk->min_time_us || w.max_us != chunk->max_time_us))
        db__check_found(c, "%s: its record does not describe its rows", c->where);
    chr_buf_free(&w.key);
    chr_buf_free(&w.last_key);
    return err == CHR_ECORRUPT ? CHR_OK : err;
}

/* -- All of a chunk -----------------------------------------------------------------------------*/

struct parts {
    struct db__check *check;
    db_kv_txn *txn;
    uint64_t chunk_id;
};

static chr_err get_part(void *arg, enum db_chunk_part_kind kind, uint16_t column, chr_slice *value)
{
    struct parts *p = arg;
    struct db__store_key key = db__store_key_part(p->chunk_id, (uint8_t)kind, column);
    const struct db_kv *kv = &p->check->d->kv;
    return kv->get(kv->ctx, p->txn, db__key_slice(&key), value);
}

static void report_part(void *arg, const char *finding)
{
    struct parts *p = arg;
    db__check_found(p->check, "%s: %s", p->check->where, finding);
}

static chr_err check_in(struct db__check *c, const struct db_table_def *def,
                        struct db__chunk *chunk, struct db__chunk_open *o, db_kv_txn *txn)
{
    struct chr_errmsg msg = {.text = ""};
    struct parts parts = {.check = c, .txn = txn, .chunk_id = chunk->id};
    char where[DB_NAME_BYTES_MAX + 48];
    chr_slice head;
    snprintf(where, sizeof where, "table \"%s\", chunk %llu", def->name,
             (unsigned long long)chunk->id);
    c->where = where;
    chr_err err = get_part(&parts, DB_CHUNK_HEAD, 0, &head);
    if (err == CHR_ENOTFOUND) {
        db__check_found(c, "%s: its head is not there", where);
        return CHR_OK;
    }
    uint64_t before = c->findings;
    if (!err)
        err = db_chunk_check(head, db__check_time_id(def), get_part, report_part, &parts);
    if (err || c->findings != before)
        return err;
    err = db__chunk_open(c->d, o, txn, chunk, &msg);
    if (err == CHR_ECORRUPT) {
        db__check_found(c, "%s", msg.text);
        return CHR_OK;
    }
    return err ? err : check_rows(c, def, chunk, o);
}

chr_err db__check_chunk(struct db__check *c, const struct db_table_def *def,
                        struct db__chunk *chunk, struct db__chunk_open *open)
{
    const struct db_kv *kv = &c->d->kv;
    db_kv_txn *txn;
    chr_err err = kv->begin(kv->ctx, false, &txn); /* one per chunk: R10 */
    if (err)
        return err;
    err = check_in(c, def, chunk, open, txn);
    db__check_close(c, open, txn);
    return err;
}
