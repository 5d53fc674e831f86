/* db/check.c: is everything in the store what it should be? (chronos check)
 *
 * db_open has already refused damaged records of the catalog, the manifest, marks, sessions and
 * keys. Here: each chunk is decoded and recounted (db/chunk_check.c), compared with its record, its
 * rows must be in order, no row id may be there twice in a table and no key among rows that are
 * visible, and every part in the store must belong to a chunk of the manifest.
 *
 * Ids and keys are compared by 128-bit hash, in as many passes as it takes to hold at most IDS_MAX
 * of them: memory stays bounded whatever the size of the database. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "db/checkpoint.h"
#include "db/durable_save.h"
#include "db/series_key.h"
#include "db/store.h"

#define IDS_MAX (4u << 20) /* 64 MiB of hashes */

struct check {
    struct db *d;
    void (*report)(void *arg, const char *finding);
    void *arg;
    uint64_t findings;
    const char *where; /* prefix of what chunk_check says */
};

CHR_PRINTF(2, 3) static void found(struct check *c, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->findings++;
    if (c->report)
        c->report(c->arg, text);
}

/* -- Hashes that must all differ ----------------------------------------------------------------*/

struct hash128 {
    uint64_t a, b;
};

struct hashes {
    struct hash128 *list;
    size_t count, capacity;
    uint64_t pass, passes; /* of all hashes, those with a % passes == pass are kept */
};

static chr_err hashes_add(struct hashes *h, struct hash128 x)
{
    if (x.a % h->passes != h->pass)
        return CHR_OK;
    if (h->count == h->capacity) {
        size_t capacity = h->capacity ? h->capacity * 2 : 4096;
        void *list = realloc(h->list, capacity * sizeof *h->list);
        if (!list)
            return CHR_ENOMEM;
        h->list = list;
        h->capacity = capacity;
    }
    h->list[h->count++] = x;
    return CHR_OK;
}

static int hash_cmp(const void *a, const void *b)
{
    const struct hash128 *x = a, *y = b;
    if (x->a != y->a)
        return x->a < y->a ? -1 : 1;
    return (x->b > y->b) - (x->b < y->b);
}

/* How many are there more than once; forgets them. */
static uint64_t hashes_twice(struct hashes *h)
{
    uint64_t twice = 0;
    if (h->count)
        qsort(h->list, h->count, sizeof *h->list, hash_cmp);
    for (size_t i = 1; i < h->count; i++)
        twice += hash_cmp(&h->list[i - 1], &h->list[i]) == 0;
    h->count = 0;
    return twice;
}

/* -- One chunk ----------------------------------------------------------------------------------*/

struct parts {
    struct check *check;
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
    found(p->check, "%s: %s", p->check->where, finding);
}

static uint16_t time_id(const struct db_table_def *def)
{
    return def->time_column < 0 ? DB_COLUMN_RECEIVED_AT : def->columns[def->time_column].id;
}

struct row {
    struct chr_buf series;
    int64_t time_us;
    struct db_row_id id;
};

static chr_err read_row(struct db *d, const struct db_table_def *def, struct db__chunk_open *o,
                        uint32_t at, struct row *row, struct chr_errmsg *msg)
{
    struct db_value v;
    chr_err err = CHR_OK;
    chr_buf_reset(&row->series);
    for (uint16_t k = 0; k < def->series_count && !err; k++) {
        const struct db_column_def *column = &def->columns[def->series_columns[k]];
        err = db__chunk_open_value(d, o, column->id, column->type, at, &v, msg);
        db__series_add(&row->series, &v);
    }
    if (!err)
        err = db__chunk_open_value(d, o, time_id(def), DB_TIMESTAMP, at, &v, msg);
    row->time_us = v.null ? INT64_MAX : v.i64;
    if (!err)
        err = db__chunk_open_value(d, o, DB_COLUMN_ENTRY, DB_INT, at, &v, msg);
    row->id.entry = (uint64_t)v.i64;
    if (!err)
        err = db__chunk_open_value(d, o, DB_COLUMN_ORDINAL, DB_INT, at, &v, msg);
    row->id.ordinal = (uint32_t)v.i64;
    return !err && row->series.failed ? CHR_ENOMEM : err;
}

static int row_cmp(const struct row *a, const struct row *b)
{
    int c = chr_slice_cmp(chr_buf_slice(&a->series), chr_buf_slice(&b->series));
    if (c)
        return c;
    if (a->time_us != b->time_us)
        return a->time_us < b->time_us ? -1 : 1;
    if (a->id.entry != b->id.entry)
        return a->id.entry < b->id.entry ? -1 : 1;
    return (a->id.ordinal > b->id.ordinal) - (a->id.ordinal < b->id.ordinal);
}

/* Rows against the record and against each other. */
static chr_err check_rows(struct check *c, const struct db_table_def *def, struct db__chunk *chunk,
                          struct db__chunk_open *o)
{
    struct chr_errmsg msg = {.text = ""};
    struct row rows[2];
    bool ordered = true, within = true;
    int64_t min = INT64_MAX, max = INT64_MIN;
    chr_err err = CHR_OK;
    chr_buf_init(&rows[0].series, SIZE_MAX);
    chr_buf_init(&rows[1].series, SIZE_MAX);
    for (uint32_t i = 0; i < chunk->rows && !err; i++) {
        struct row *row = &rows[i & 1];
        err = read_row(c->d, def, o, i, row, &msg);
        if (err)
            break;
        ordered = ordered && (i == 0 || row_cmp(&rows[(i - 1) & 1], row) < 0);
        within = within && row->id.entry >= chunk->min_entry && row->id.entry <= chunk->max_entry &&
                 !db__series_before(chr_buf_slice(&row->series), chunk->min_series) &&
                 !db__series_after(chr_buf_slice(&row->series), chunk->max_series);
        if (row->time_us == INT64_MAX) {
            within = within && chunk->null_times;
            continue;
        }
        min = CHR_MIN(min, row->time_us);
        max = CHR_MAX(max, row->time_us);
    }
    if (err == CHR_ECORRUPT)
        found(c, "%s: %s", c->where, msg.text);
    else if (!err && !ordered)
        found(c, "%s: rows are not in order of series, time and id", c->where);
    if (!err && (!within || min != chunk->min_time_us || max != chunk->max_time_us))
        found(c, "%s: its record does not describe its rows", c->where);
    chr_buf_free(&rows[0].series);
    chr_buf_free(&rows[1].series);
    return err == CHR_ECORRUPT ? CHR_OK : err;
}

static chr_err check_chunk(struct check *c, const struct db_table_def *def, struct db__chunk *chunk,
                           struct db__chunk_open *o, db_kv_txn *txn)
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
        found(c, "%s: its head is not there", where);
        return CHR_OK;
    }
    uint64_t before = c->findings;
    if (!err)
        err = db_chunk_check(head, time_id(def), get_part, report_part, &parts);
    if (err || c->findings != before)
        return err;
    err = db__chunk_open(c->d, o, txn, chunk, &msg);
    if (err == CHR_ECORRUPT) {
        found(c, "%s: %s", where, msg.text);
        return CHR_OK;
    }
    return err ? err : check_rows(c, def, chunk, o);
}

/* -- One table ----------------------------------------------------------------------------------*/

static uint64_t view_rows(const struct db__view *view)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; view->chunks && i < view->chunks->count; i++)
        rows += view->chunks->chunks[i]->rows;
    return rows;
}

static chr_err check_chunks(struct check *c, const struct db_table_def *def,
                            const struct db__view *view)
{
    struct db__chunk_open open = {0};
    chr_err err = CHR_OK;
    for (uint32_t i = 0; view->chunks && i < view->chunks->count && !err; i++) {
        db_kv_txn *txn;
        err = c->d->kv.begin(c->d->kv.ctx, false, &txn); /* one per chunk: R10 */
        if (err)
            break;
        err = check_chunk(c, def, view->chunks->chunks[i], &open, txn);
        db__chunk_open_close(&open);
        c->d->kv.abort(c->d->kv.ctx, txn);
    }
    db__chunk_open_free(&open);
    return err;
}

static struct hash128 hash_id(struct db_row_id id)
{
    uint64_t x = chr_hash_u64(id.entry ^ UINT64_C(0x9e3779b97f4a7c15) * id.ordinal);
    return (struct hash128){x, id.entry << 32 ^ id.ordinal};
}

/* Adds the ids of all stored rows, the deleted ones too. */
static chr_err add_chunk_ids(struct check *c, struct db__chunk *chunk, struct db__chunk_open *o,
                             struct hashes *hashes)
{
    struct chr_errmsg msg;
    db_kv_txn *txn;
    chr_err err = c->d->kv.begin(c->d->kv.ctx, false, &txn);
    if (err)
        return err;
    err = db__chunk_open(c->d, o, txn, chunk, &msg);
    for (uint32_t row = 0; row < chunk->rows && !err; row++) {
        struct db_value entry, ordinal;
        err = db__chunk_open_value(c->d, o, DB_COLUMN_ENTRY, DB_INT, row, &entry, &msg);
        if (!err)
            err = db__chunk_open_value(c->d, o, DB_COLUMN_ORDINAL, DB_INT, row, &ordinal, &msg);
        if (!err)
            err = hashes_add(
                hashes, hash_id((struct db_row_id){(uint64_t)entry.i64, (uint32_t)ordinal.i64}));
    }
    db__chunk_open_close(o);
    c->d->kv.abort(c->d->kv.ctx, txn);
    return err == CHR_ECORRUPT ? CHR_OK : err; /* reported already */
}

static chr_err check_ids(struct check *c, const struct db_table_def *def,
                         const struct db__view *view)
{
    struct db__chunk_open open = {0};
    struct hashes hashes = {.passes = view_rows(view) / IDS_MAX + 1};
    chr_err err = CHR_OK;
    for (; hashes.pass < hashes.passes && !err; hashes.pass++) {
        for (uint32_t i = 0; view->chunks && i < view->chunks->count && !err; i++)
            err = add_chunk_ids(c, view->chunks->chunks[i], &open, &hashes);
        uint64_t twice = hashes_twice(&hashes);
        if (twice && !err)
            found(c, "table \"%s\": %llu row ids are there more than once", def->name,
                  (unsigned long long)twice);
    }
    free(hashes.list);
    db__chunk_open_free(&open);
    return err;
}

/* Adds the keys of the rows of the current batch. */
static chr_err add_batch_keys(db_reader *reader, const struct db_batch *batch, uint16_t key_count,
                              struct hashes *hashes, struct chr_buf *buf, struct chr_errmsg *msg)
{
    const struct db_vector *v[DB_KEY_COLUMNS_MAX];
    chr_err err = CHR_OK;
    for (uint16_t k = 0; k < key_count && !err; k++)
        v[k] = db_reader_column(reader, k, &err, msg);
    for (uint32_t i = 0; i < batch->sel_count && !err; i++) {
        chr_buf_reset(buf);
        for (uint16_t k = 0; k < key_count; k++) {
            struct db_value value = db__vector_value(v[k], batch->sel ? batch->sel[i] : i);
            db__series_add(buf, &value);
        }
        if (buf->failed)
            return CHR_ENOMEM;
        err = hashes_add(hashes, (struct hash128){chr_hash_bytes(buf->ptr, buf->len, 1),
                                                  chr_hash_bytes(buf->ptr, buf->len, 2)});
    }
    return err;
}

static chr_err add_keys(struct check *c, db_read *read, const struct db_table_def *def,
                        struct hashes *hashes)
{
    struct chr_errmsg msg = {.text = ""};
    struct chr_buf buf;
    db_scan *scan;
    db_reader *reader = NULL;
    chr_buf_init(&buf, SIZE_MAX);
    chr_err err = db_scan_open(read, def, def->key_columns, def->key_count, NULL, 0, &scan);
    if (!err)
        err = db_reader_open(scan, &reader);
    struct db_morsel morsel;
    struct db_batch batch;
    int more = 0;
    while (!err && (more = db_reader_next_morsel(reader, &morsel, &msg)) > 0)
        while (!err && (more = db_reader_next_batch(reader, &batch, &msg)) > 0)
            err = add_batch_keys(reader, &batch, def->key_count, hashes, &buf, &msg);
    if (!err && more < 0)
        err = more;
    db_reader_close(reader);
    db_scan_close(scan);
    chr_buf_free(&buf);
    (void)c;
    return err == CHR_ECORRUPT ? CHR_OK : err; /* reported already */
}

static chr_err check_keys(struct check *c, db_read *read, const struct db_table_def *def,
                          const struct db__view *view)
{
    struct hashes hashes = {.passes = view_rows(view) / IDS_MAX + 1};
    chr_err err = CHR_OK;
    for (; def->key_count && hashes.pass < hashes.passes && !err; hashes.pass++) {
        err = add_keys(c, read, def, &hashes);
        uint64_t twice = hashes_twice(&hashes);
        if (twice && !err)
            found(c, "table \"%s\": %llu rows have the PRIMARY KEY of another", def->name,
                  (unsigned long long)twice);
    }
    free(hashes.list);
    return err;
}

/* -- The store ----------------------------------------------------------------------------------*/

static int u64_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

struct ids {
    uint64_t *list;
    size_t count, capacity;
    bool failed;
};

static void ids_add(struct ids *ids, uint64_t id)
{
    if (ids->count == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 256;
        void *list = realloc(ids->list, capacity * sizeof *ids->list);
        ids->failed = ids->failed || !list;
        if (!list)
            return;
        ids->list = list;
        ids->capacity = capacity;
    }
    ids->list[ids->count++] = id;
}

static void ids_add_view(struct ids *ids, const struct db__view *view)
{
    for (uint32_t i = 0; view->chunks && i < view->chunks->count; i++)
        ids_add(ids, view->chunks->chunks[i]->id);
}

/* Chunks that are known: of tables, of tables dropped since the last checkpoint, and those that
 * wait to be deleted. */
static chr_err known_chunks(struct db *d, const db_read *read, struct ids *ids)
{
    const struct db__checkpoint *cp = d->checkpoint;
    ids_add(ids, 0); /* no chunk has this id: the list is never empty */
    for (size_t v = 0; v < read->version->count; v++)
        ids_add_view(ids, read->version->views[v]);
    for (size_t t = 0; t < d->dropped_count; t++)
        ids_add_view(ids, d->dropped[t]->view);
    for (size_t t = 0; t < cp->dropped_count; t++)
        ids_add_view(ids, cp->dropped[t]->view);
    for (const struct db__chunk *g = cp->garbage; g; g = g->next_garbage)
        ids_add(ids, g->id);
    if (ids->failed)
        return CHR_ENOMEM;
    qsort(ids->list, ids->count, sizeof *ids->list, u64_cmp);
    return CHR_OK;
}

static void check_key(struct check *c, chr_slice key, const struct ids *ids, uint64_t *last_strange)
{
    uint64_t id = 0;
    uint32_t table_id;
    switch (key.len ? key.ptr[0] : 0) {
    case DB__RECORD_PART:
        if (key.len == 12 && db__store_key_parse(chr_slice_of(key.ptr, 9), DB__RECORD_PART, &id)) {
            if (id != *last_strange && !bsearch(&id, ids->list, ids->count, sizeof id, u64_cmp)) {
                found(c, "store: parts of chunk %llu, which no table has", (unsigned long long)id);
                *last_strange = id;
            }
            return;
        }
        break;
    case DB__RECORD_MARKS:
        if (db__store_key_parse(key, DB__RECORD_MARKS, &id)) {
            if (!bsearch(&id, ids->list, ids->count, sizeof id, u64_cmp))
                found(c, "store: marks of chunk %llu, which no table has", (unsigned long long)id);
            return;
        }
        break;
    case DB__RECORD_CHUNK:
        if (db__store_key_parse_chunk(key, &table_id, &id))
            return;
        break;
    case DB__RECORD_META:
    case DB__RECORD_TABLE:
    case DB__RECORD_SESSION:
    case DB__RECORD_REQUEST:
    case DB__RECORD_GARBAGE:
    case DB__RECORD_MESSAGE:
    case DB__RECORD_RETAINED:
        if (db__store_key_parse(key, (enum db__record)key.ptr[0], &id))
            return;
        break;
    case DB__RECORD_QUEUE:
        if (db__store_key_parse_queue(key, &id, &id))
            return;
        break;
    case DB__RECORD_SUBSCRIPTION:
    case DB__RECORD_WILL:
        if (db__store_key_parse_of_session(key, (enum db__record)key.ptr[0], &id, &table_id))
            return;
        break;
    }
    found(c, "store: a key of %zu bytes that begins with 0x%02x belongs to nothing", key.len,
          key.len ? key.ptr[0] : 0);
}

static chr_err check_store(struct check *c, const db_read *read)
{
    const struct db_kv *kv = &c->d->kv;
    struct ids ids = {0};
    uint64_t last_strange = 0;
    db_kv_txn *txn;
    db_kv_cursor *cursor;
    chr_slice key, value;
    chr_err err = known_chunks(c->d, read, &ids);
    if (!err)
        err = kv->begin(kv->ctx, false, &txn);
    if (err) {
        free(ids.list);
        return err;
    }
    err = kv->cursor_open(kv->ctx, txn, (chr_slice){0}, CHR_LIT("\0"), &cursor);
    if (!err) {
        while (!(err = kv->cursor_next(kv->ctx, cursor, &key, &value)))
            check_key(c, key, &ids, &last_strange);
        kv->cursor_close(kv->ctx, cursor);
    }
    kv->abort(kv->ctx, txn);
    free(ids.list);
    return err == CHR_ENOTFOUND ? CHR_OK : err;
}

static void found_text(void *arg, const char *text)
{
    found(arg, "%s", text);
}

chr_err db_check(db *d, void (*report)(void *arg, const char *finding), void *arg,
                 uint64_t *findings)
{
    struct check c = {.d = d, .report = report, .arg = arg};
    db_read *read;
    *findings = 0;
    chr_err err = db_read_begin(d, &read);
    if (err)
        return err;
    for (size_t i = 0; i < read->version->count && !err; i++) {
        const struct db__view *view = read->version->views[i];
        const struct db_table_def *def = db_catalog_find_id(read->version->catalog, view->table_id);
        CHR_ASSERT(def);
        uint64_t before = c.findings;
        err = check_chunks(&c, def, view);
        if (!err)
            err = check_ids(&c, def, view);
        if (!err && c.findings == before)
            err = check_keys(&c, read, def, view);
    }
    if (!err)
        err = check_store(&c, read);
    if (!err)
        err = db__durable_check(d, found_text, &c);
    db_read_end(read);
    *findings = c.findings;
    return err;
}
