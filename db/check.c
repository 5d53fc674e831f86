/* db/check.c: is everything in the store what it should be? (chronos check)
 *
 * db_open has already refused damaged records of the catalog, the manifest, marks, sessions and
 * keys. Here: each chunk is decoded and recounted (db/chunk_check.c), compared with its record, its
 * rows must be in order, no row id may be there twice in a table and no key among rows that are
 * visible, and every part in the store must belong to a chunk of the manifest. How each of these is
 * done within bounded memory: db/check_internal.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "db/check_internal.h"
#include "db/durable_save.h"
#include "db/store.h"

struct db__check_limits db__check_limits = {
    .id_bits = UINT64_C(512) << 20, /* 64 MiB */
    .id_blocks = 1u << 20,          /* 12 MiB */
    .key_rows = 2u << 20,
    .sample_rows = 4 * DB_VECTOR_ROWS,
    .hashes = DB__HASHES_MAX,
};

void db__check_found(struct db__check *c, const char *format, ...)
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

void db__check_progress(struct db__check *c, const struct db_table_def *def, uint64_t rows)
{
    c->done = CHR_MIN(c->done + rows, c->total);
    if (c->progress)
        c->progress(c->arg, def->name, c->done, c->total);
}

/* -- One table ----------------------------------------------------------------------------------*/

static uint64_t view_rows(const struct db__view *view)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < db__view_chunks(view); i++)
        rows += view->chunks->chunks[i]->rows;
    return rows;
}

static chr_err check_table(struct db__check *c, const struct db_table_def *def,
                           const struct db__view *view)
{
    struct db__chunk_open open = {0};
    uint64_t before = c->findings;
    chr_err err = CHR_OK;
    for (uint32_t i = 0; i < db__view_chunks(view) && !err; i++) {
        err = db__check_chunk(c, def, view->chunks->chunks[i], &open);
        db__check_progress(c, def, view->chunks->chunks[i]->rows);
    }
    db__chunk_open_free(&open);
    if (!err)
        err = db__check_ids(c, def, view);
    if (!err && c->findings == before) /* binary searches rely on the order */
        err = db__check_keys(c, def, view);
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

static void check_key(struct db__check *c, chr_slice key, const struct ids *ids,
                      uint64_t *last_strange)
{
    uint64_t id = 0;
    uint32_t table_id;
    switch (key.len ? key.ptr[0] : 0) {
    case DB__RECORD_PART:
        if (key.len == 12 && db__store_key_parse(chr_slice_of(key.ptr, 9), DB__RECORD_PART, &id)) {
            if (id != *last_strange && !bsearch(&id, ids->list, ids->count, sizeof id, u64_cmp)) {
                db__check_found(c, "store: parts of chunk %llu, which no table has",
                                (unsigned long long)id);
                *last_strange = id;
            }
            return;
        }
        break;
    case DB__RECORD_MARKS:
        if (db__store_key_parse(key, DB__RECORD_MARKS, &id)) {
            if (!bsearch(&id, ids->list, ids->count, sizeof id, u64_cmp))
                db__check_found(c, "store: marks of chunk %llu, which no table has",
                                (unsigned long long)id);
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
    db__check_found(c, "store: a key of %zu bytes that begins with 0x%02x belongs to nothing",
                    key.len, key.len ? key.ptr[0] : 0);
}

static chr_err check_store(struct db__check *c, const db_read *read)
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
    db__check_found(arg, "%s", text);
}

chr_err db_check_watched(db *d, void (*report)(void *arg, const char *finding),
                         void (*progress)(void *arg, const char *table, uint64_t done,
                                          uint64_t total),
                         void *arg, uint64_t *findings)
{
    struct db__check c = {.d = d, .report = report, .progress = progress, .arg = arg};
    db_read *read;
    *findings = 0;
    chr_err err = db_read_begin(d, &read);
    if (err)
        return err;
    c.read = read;
    for (size_t i = 0; i < read->version->count; i++) {
        const struct db__view *view = read->version->views[i];
        const struct db_table_def *def = db_catalog_find_id(read->version->catalog, view->table_id);
        CHR_ASSERT(def);
        c.total += view_rows(view) * (def->key_count ? 4 : 3); /* rows, ids twice, keys */
    }
    for (size_t i = 0; i < read->version->count && !err; i++) {
        const struct db__view *view = read->version->views[i];
        err = check_table(&c, db_catalog_find_id(read->version->catalog, view->table_id), view);
    }
    if (!err)
        err = check_store(&c, read);
    if (!err)
        err = db__durable_check(d, found_text, &c);
    db_read_end(read);
    *findings = c.findings;
    return err;
}

chr_err db_check(db *d, void (*report)(void *arg, const char *finding), void *arg,
                 uint64_t *findings)
{
    return db_check_watched(d, report, NULL, arg, findings);
}
