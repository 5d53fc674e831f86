/* db/garbage.c: parts of chunks that no manifest names (P1, P2). */
#include <stdlib.h>

#include "base/log.h"
#include "db/checkpoint.h"

/* Chunks deleted per commit. */
#define CHUNKS_MAX 256u

void db__garbage_add(struct db__checkpoint *cp, struct db__chunk *chunk)
{
    chunk->next_garbage = cp->garbage;
    cp->garbage = chunk;
}

chr_err db__parts_delete(const struct db_kv *kv, db_kv_txn *txn, uint64_t chunk_id)
{
    struct db__store_key prefix = db__store_key(DB__RECORD_PART, chunk_id);
    for (;;) {
        /* Keys are copied first: a delete may move what a cursor points at. */
        struct db__store_key keys[64];
        uint32_t count = 0;
        db_kv_cursor *cursor;
        chr_slice key, value;
        chr_err err =
            kv->cursor_open(kv->ctx, txn, db__key_slice(&prefix), db__key_slice(&prefix), &cursor);
        if (err)
            return err;
        while (count < CHR_COUNT_OF(keys) &&
               !(err = kv->cursor_next(kv->ctx, cursor, &key, &value))) {
            if (key.len > sizeof keys[0].bytes)
                continue;
            memcpy(keys[count].bytes, key.ptr, key.len);
            keys[count++].len = (uint8_t)key.len;
        }
        kv->cursor_close(kv->ctx, cursor);
        if (err && err != CHR_ENOTFOUND)
            return err;
        for (uint32_t i = 0; i < count; i++) {
            chr_err del_err = kv->del(kv->ctx, txn, db__key_slice(&keys[i]));
            if (del_err)
                return del_err;
        }
        if (count < CHR_COUNT_OF(keys))
            return CHR_OK;
    }
}

static chr_err delete_chunk(const struct db_kv *kv, db_kv_txn *txn, uint64_t chunk_id)
{
    struct db__store_key record = db__store_key(DB__RECORD_GARBAGE, chunk_id);
    chr_err err = db__parts_delete(kv, txn, chunk_id);
    return err ? err : kv->del(kv->ctx, txn, db__key_slice(&record));
}

/* One commit's worth. Chunks that somebody still reads go to *held. */
static chr_err collect_some(struct db *d, struct db__chunk **held)
{
    struct db__checkpoint *cp = d->checkpoint;
    const struct db_kv *kv = &d->kv;
    db_kv_txn *txn = NULL;
    struct db__chunk *done = NULL;
    uint32_t deleted = 0;
    chr_err err = CHR_OK;
    while (cp->garbage && deleted < CHUNKS_MAX && !err) {
        struct db__chunk *chunk = cp->garbage;
        cp->garbage = chunk->next_garbage;
        bool free_now = atomic_load_explicit(&chunk->refs, memory_order_acquire) == 1; /* P2 */
        if (free_now) {
            if (!txn)
                err = kv->begin(kv->ctx, true, &txn);
            if (!err)
                err = delete_chunk(kv, txn, chunk->id);
            deleted++;
        }
        struct db__chunk **list = free_now ? &done : held;
        chunk->next_garbage = *list;
        *list = chunk;
    }
    if (txn && err)
        kv->abort(kv->ctx, txn);
    else if (txn)
        err = kv->commit(kv->ctx, txn);
    for (struct db__chunk *next; done; done = next) {
        next = done->next_garbage;
        if (err)
            db__garbage_add(cp, done);
        else
            db__chunk_release(done);
    }
    return err;
}

/* All of it, however much a checkpoint left: a thousand tables leave a thousand tails each time. */
chr_err db__garbage_collect(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct db__chunk *held = NULL;
    chr_err err = CHR_OK;
    while (cp->garbage && !err)
        err = collect_some(d, &held);
    for (struct db__chunk *next; held; held = next) {
        next = held->next_garbage;
        db__garbage_add(cp, held);
    }
    return err;
}

/* The first chunk id from `from` on that has parts or a 'g' record; CHR_ENOTFOUND. */
static chr_err first_id(const struct db_kv *kv, db_kv_txn *txn, enum db__record kind, uint64_t from,
                        uint64_t *id)
{
    struct db__store_key prefix = {.bytes = {(uint8_t)kind}, .len = 1};
    struct db__store_key begin = db__store_key(kind, from);
    db_kv_cursor *cursor;
    chr_slice key, value;
    chr_err err =
        kv->cursor_open(kv->ctx, txn, db__key_slice(&prefix), db__key_slice(&begin), &cursor);
    if (err)
        return err;
    err = kv->cursor_next(kv->ctx, cursor, &key, &value);
    if (!err && (key.len < 9 || !db__store_key_parse(chr_slice_of(key.ptr, 9), kind, id)))
        err = CHR_ECORRUPT;
    kv->cursor_close(kv->ctx, cursor);
    return err;
}

/* Deletes leftovers, many per commit: each is a sync, and a start waits for it. */
static chr_err sweep(const struct db_kv *kv, enum db__record kind, uint64_t from)
{
    uint64_t swept = 0;
    for (bool more = true; more;) {
        db_kv_txn *txn;
        uint64_t id = 0;
        uint32_t count = 0;
        chr_err err = kv->begin(kv->ctx, true, &txn);
        if (err)
            return err;
        while (!err && count < CHUNKS_MAX) {
            err = first_id(kv, txn, kind, from, &id);
            if (!err)
                err = delete_chunk(kv, txn, id);
            count += !err;
        }
        more = !err;
        if (err == CHR_ENOTFOUND)
            err = CHR_OK;
        if (err || count == 0) {
            kv->abort(kv->ctx, txn);
            if (err)
                return err;
            break;
        }
        err = kv->commit(kv->ctx, txn);
        if (err)
            return err;
        swept += count;
    }
    if (swept)
        chr_log_info("db", "leftover chunks deleted", CHR_KV_U("chunks", swept));
    return CHR_OK;
}

chr_err db__garbage_sweep(struct db *d, uint64_t next_chunk_id)
{
    chr_err err = sweep(&d->kv, DB__RECORD_GARBAGE, 0);
    return err ? err : sweep(&d->kv, DB__RECORD_PART, next_chunk_id);
}
