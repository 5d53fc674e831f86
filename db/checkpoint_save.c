/* db/checkpoint_save.c: the transaction that moves the durable index: manifest, marks, catalog,
 * sessions, request keys, and what is garbage from now on. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/checkpoint.h"

struct save {
    struct db *d;
    struct db__checkpoint *cp;
    db_kv_txn *txn;
};

static chr_err put(struct save *s, struct db__store_key key, chr_slice value)
{
    return s->d->kv.put(s->d->kv.ctx, s->txn, db__key_slice(&key), value);
}

static chr_err del(struct save *s, struct db__store_key key)
{
    return s->d->kv.del(s->d->kv.ctx, s->txn, db__key_slice(&key));
}

static chr_err put_message(struct save *s, struct db__store_key key, enum db__record kind,
                           const ProtobufCMessage *message)
{
    chr_err err = db__value_pack(&s->cp->buf, kind, message);
    return err ? err : put(s, key, chr_buf_slice(&s->cp->buf));
}

static chr_err put_garbage(struct save *s, const struct db__chunk *chunk)
{
    db__value_begin(&s->cp->buf);
    db__value_end(&s->cp->buf, DB__RECORD_GARBAGE);
    return put(s, db__store_key(DB__RECORD_GARBAGE, chunk->id), chr_buf_slice(&s->cp->buf));
}

/* The chunk leaves the manifest. */
static chr_err save_removed(struct save *s, const struct db__chunk *chunk)
{
    chr_err err = del(s, db__store_key_chunk(chunk->table_id, chunk->id));
    if (!err)
        err = del(s, db__store_key(DB__RECORD_MARKS, chunk->id));
    return err ? err : put_garbage(s, chunk);
}

static chr_err save_made(struct save *s, const struct db__chunk *chunk)
{
    Chronos__Catalog__ChunkRecord pb = CHRONOS__CATALOG__CHUNK_RECORD__INIT;
    pb.rows = chunk->rows;
    pb.tail = chunk->tail;
    pb.min_entry = chunk->min_entry;
    pb.max_entry = chunk->max_entry;
    pb.min_time_us = chunk->min_time_us;
    pb.max_time_us = chunk->max_time_us;
    pb.bytes = chunk->bytes;
    pb.min_series = (ProtobufCBinaryData){.len = chunk->min_series.len,
                                          .data = (uint8_t *)chunk->min_series.ptr};
    pb.max_series = (ProtobufCBinaryData){.len = chunk->max_series.len,
                                          .data = (uint8_t *)chunk->max_series.ptr};
    pb.null_times = chunk->null_times;
    return put_message(s, db__store_key_chunk(chunk->table_id, chunk->id), DB__RECORD_CHUNK,
                       &pb.base);
}

static bool is_removed(const struct db__checkpoint *cp, const struct db__chunk *chunk)
{
    for (size_t j = 0; j < cp->jobs_count; j++) {
        const struct db__job *job = &cp->jobs[j];
        for (uint32_t i = 0; job->table->id == chunk->table_id && i < job->removed_count; i++)
            if (job->removed[i] == chunk)
                return true;
    }
    return false;
}

/* Marks of a chunk that stays, as of the cut, if there are new ones. */
static chr_err save_marks(struct save *s, struct db__chunk *chunk)
{
    uint32_t count = db__marks_count_at(&chunk->marks, s->cp->read->index);
    if (count == chunk->marks_saved || is_removed(s->cp, chunk))
        return CHR_OK;
    size_t words = DB_BIT_WORDS(chunk->rows);
    uint64_t *bitmap = malloc(words * sizeof *bitmap);
    if (!bitmap)
        return CHR_ENOMEM;
    count = db__marks_at(&chunk->marks, s->cp->read->index, bitmap);
    db__value_begin(&s->cp->buf);
    chr_buf_add(&s->cp->buf, bitmap, words * sizeof *bitmap);
    db__value_end(&s->cp->buf, DB__RECORD_MARKS);
    free(bitmap);
    if (s->cp->buf.failed)
        return CHR_ENOMEM;
    chr_err err = put(s, db__store_key(DB__RECORD_MARKS, chunk->id), chr_buf_slice(&s->cp->buf));
    if (!err)
        chunk->marks_saved_next = count;
    return err;
}

static chr_err save_manifest(struct save *s)
{
    const struct db__checkpoint *cp = s->cp;
    chr_err err = CHR_OK;
    for (size_t j = 0; j < cp->jobs_count && !err; j++) {
        const struct db__job *job = &cp->jobs[j];
        for (uint32_t i = 0; i < job->removed_count && !err; i++)
            err = save_removed(s, job->removed[i]);
        for (uint32_t i = 0; i < job->seal.made_count && !err; i++)
            err = save_made(s, job->seal.made[i]);
    }
    for (size_t v = 0; v < cp->read->version->count && !err; v++) {
        struct db__chunk_list *chunks = cp->read->version->views[v]->chunks;
        for (uint32_t i = 0; chunks && i < chunks->count && !err; i++)
            err = save_marks(s, chunks->chunks[i]);
    }
    for (size_t t = 0; t < cp->dropped_count && !err; t++) {
        struct db__chunk_list *chunks = cp->dropped[t]->view->chunks;
        err = del(s, db__store_key(DB__RECORD_TABLE, cp->dropped[t]->id));
        for (uint32_t i = 0; chunks && i < chunks->count && !err; i++)
            err = save_removed(s, chunks->chunks[i]);
    }
    for (const struct db__chunk *c = cp->garbage; c && !err; c = c->next_garbage)
        err = put_garbage(s, c); /* P1: from failed checkpoints, too */
    return err;
}

static chr_err save_catalog(struct save *s)
{
    const db_catalog *catalog = db_read_catalog(s->cp->read);
    if (s->cp->saved && db_catalog_version(catalog) == s->cp->catalog_version_saved)
        return CHR_OK;
    for (size_t i = 0; i < db_catalog_tables_count(catalog); i++) {
        const struct db_table_def *def = db_catalog_table_at(catalog, i);
        db__value_begin(&s->cp->buf);
        chr_err err = db_table_def_encode(def, &s->cp->buf);
        if (err)
            return err;
        db__value_end(&s->cp->buf, DB__RECORD_TABLE);
        err = put(s, db__store_key(DB__RECORD_TABLE, def->id), chr_buf_slice(&s->cp->buf));
        if (err)
            return err;
    }
    return CHR_OK;
}

static chr_err save_pending(struct save *s)
{
    const struct db__checkpoint *cp = s->cp;
    chr_err err = CHR_OK;
    for (size_t i = 0; i < cp->pending_count && !err; i++) {
        const struct db__pending *p = &cp->pending[i];
        err = p->value ? put(s, p->key, chr_slice_of(p->value, p->len)) : del(s, p->key);
    }
    uint64_t until = CHR_MIN(cp->request_first, cp->request_next);
    for (uint64_t q = cp->request_first_saved; q < until && !err; q++)
        err = del(s, db__store_key(DB__RECORD_REQUEST, q));
    return err;
}

static chr_err save_meta(struct save *s)
{
    const struct db__checkpoint *cp = s->cp;
    const db_catalog *catalog = db_read_catalog(cp->read);
    Chronos__Catalog__Meta pb = CHRONOS__CATALOG__META__INIT;
    pb.format_version = DB__STORE_VERSION;
    pb.apply_index = cp->read->index;
    pb.hlc = cp->read->hlc;
    pb.next_chunk_id = cp->next_chunk_id;
    pb.next_table_id = cp->next_table_id;
    pb.catalog_version = db_catalog_version(catalog);
    pb.mapping_version = db_catalog_mapping_version(catalog);
    pb.request_first = cp->request_first;
    pb.request_next = cp->request_next;
    pb.rows_applied = cp->rows_applied;
    pb.rows_deleted = cp->rows_deleted;
    Chronos__Catalog__Origin origins[DB__ORIGINS_MAX], *list[DB__ORIGINS_MAX];
    for (uint32_t i = 0; i < cp->origins.count; i++) {
        origins[i] = (Chronos__Catalog__Origin)CHRONOS__CATALOG__ORIGIN__INIT;
        origins[i].node = cp->origins.items[i].node;
        origins[i].boot = cp->origins.items[i].boot;
        origins[i].sequence = cp->origins.items[i].sequence;
        origins[i].applied = cp->origins.applied[i];
        list[i] = &origins[i];
    }
    pb.origins = list;
    pb.n_origins = cp->origins.count;
    return put_message(s, db__store_key(DB__RECORD_META, 0), DB__RECORD_META, &pb.base);
}

chr_err db__checkpoint_save(struct db *d, struct chr_errmsg *msg)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct save s = {.d = d, .cp = cp};
    chr_err err = d->kv.begin(d->kv.ctx, true, &s.txn);
    if (err)
        return chr_fail(msg, err, "checkpoint: %s", chr_strerror(err));
    err = save_manifest(&s);
    if (!err)
        err = save_catalog(&s);
    if (!err)
        err = save_pending(&s);
    if (!err)
        err = save_meta(&s);
    if (err)
        d->kv.abort(d->kv.ctx, s.txn);
    else
        err = d->kv.commit(d->kv.ctx, s.txn);
    if (err)
        return chr_fail(msg, err, "checkpoint at index %llu: %s",
                        (unsigned long long)cp->read->index, chr_strerror(err));
    cp->saved = true;
    cp->catalog_version_saved = db_catalog_version(db_read_catalog(cp->read));
    cp->request_first_saved = cp->request_first;
    db__pending_free(cp);
    for (size_t v = 0; v < cp->read->version->count; v++) {
        struct db__chunk_list *chunks = cp->read->version->views[v]->chunks;
        for (uint32_t i = 0; chunks && i < chunks->count; i++)
            chunks->chunks[i]->marks_saved =
                CHR_MAX(chunks->chunks[i]->marks_saved, chunks->chunks[i]->marks_saved_next);
    }
    return CHR_OK;
}
