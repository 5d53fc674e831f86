/* db/db.c: opening, closing and looking at a database as a whole. */
#include "db/db.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/checkpoint.h"
#include "db/internal.h"
#include "db/recover.h"

void db_options_default(struct db_options *options)
{
    *options = (struct db_options){.hot_limit_bytes = UINT64_C(64) << 20,
                                   .checkpoint_log_bytes = UINT64_C(256) << 20,
                                   .checkpoint_age_us = INT64_C(600) * 1000000,
                                   .chunk_rows_max = 65536};
}

chr_err db_open(const struct db_kv *kv, const struct db_options *options, db **out,
                struct chr_errmsg *msg)
{
    *out = NULL;
    if (options->chunk_rows_max == 0 || options->chunk_rows_max > 65536)
        return chr_fail(msg, CHR_EINVAL, "chunk_rows_max is not in 1 .. 65536");
    struct db *d = calloc(1, sizeof *d);
    if (!d)
        return CHR_ENOMEM;
    d->kv = *kv;
    d->options = *options;
    pthread_mutex_init(&d->apply_lock, NULL);
    pthread_mutex_init(&d->pin_lock, NULL);
    chr_list_init(&d->reads);
    d->next_table_id = DB__TABLE_ID_FIRST;
    d->ttl_due_us = INT64_MIN; /* looked at by the first entry */
    chr_err err = db__durable_init(d);
    if (!err)
        err = db__apply_init(d);
    if (!err)
        err = db__checkpoint_init(d);
    if (!err)
        err = db__recover(d, msg);
    if (err) {
        db_close(d);
        return err;
    }
    *out = d;
    return CHR_OK;
}

void db_close(db *d)
{
    if (!d)
        return;
    CHR_ASSERT(chr_list_empty(&d->reads));
    db__checkpoint_free(d);
    db__version_release(d->version);
    for (size_t i = 0; i < d->tables_count; i++)
        db__table_free(d->tables[i]);
    for (size_t i = 0; i < d->dropped_count; i++)
        db__table_free(d->dropped[i]);
    free(d->tables);
    free(d->dropped);
    db_catalog_release(d->catalog);
    db__durable_free(d);
    db__sessions_free(&d->sessions);
    db__request_keys_free(&d->requests);
    db__rejects_free(&d->rejects);
    db__apply_free(d);
    pthread_mutex_destroy(&d->apply_lock);
    pthread_mutex_destroy(&d->pin_lock);
    free(d);
}

uint64_t db_apply_index(const db *d)
{
    return atomic_load_explicit(&((struct db *)d)->apply_index, memory_order_acquire);
}

uint64_t db_durable_index(const db *d)
{
    return atomic_load_explicit(&((struct db *)d)->durable_index, memory_order_acquire);
}

chr_hlc db_replicated_time(const db *d)
{
    return atomic_load_explicit(&((struct db *)d)->hlc, memory_order_acquire);
}

uint64_t db_catalog_version_now(const db *d)
{
    return atomic_load_explicit(&((struct db *)d)->catalog_version, memory_order_acquire);
}

uint64_t db_mapping_version_now(const db *d)
{
    return atomic_load_explicit(&((struct db *)d)->mapping_version, memory_order_acquire);
}

bool db_hot_full(const db *d)
{
    return atomic_load_explicit(&((struct db *)d)->hot_bytes, memory_order_relaxed) >=
           d->options.hot_limit_bytes;
}

static uint64_t load(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void db_stats(db *d, struct db_stats *out)
{
    *out = (struct db_stats){
        .rows_applied = load(&d->counts.rows_applied),
        .rows_deleted = load(&d->counts.rows_deleted),
        .rows_duplicate = load(&d->counts.rows_duplicate),
        .entries_stale = load(&d->counts.entries_stale),
        .hot_bytes = load(&d->hot_bytes),
        .checkpoints = load(&d->counts.checkpoints),
        .checkpoint_us_last = load(&d->counts.checkpoint_us_last),
        .seal_rows_total = load(&d->counts.seal_rows_total),
        .seal_us_total = load(&d->counts.seal_us_total),
        .chunks_decoded = load(&d->counts.chunks_decoded),
        .chunks_pruned = load(&d->counts.chunks_pruned),
        .chunks_from_statistics = load(&d->counts.chunks_from_statistics),
        .sessions = load(&d->counts.sessions),
        .guards = load(&d->counts.guards),
        .rejects = load(&d->counts.rejects),
    };
    if (d->kv.usage(d->kv.ctx, &out->kv_file_bytes, &out->kv_used_bytes))
        out->kv_file_bytes = out->kv_used_bytes = 0;
    db_read *read;
    if (db_read_begin(d, &read))
        return;
    for (size_t i = 0; i < read->version->count; i++) {
        const struct db__view *v = read->version->views[i];
        for (uint32_t c = 0; v->chunks && c < v->chunks->count; c++) {
            const struct db__chunk *chunk = v->chunks->chunks[c];
            out->chunks += !chunk->tail;
            out->chunk_rows += chunk->tail ? 0 : chunk->rows;
            out->chunk_bytes += chunk->bytes;
            out->tail_rows += chunk->tail ? chunk->rows : 0;
        }
        for (uint32_t s = 0; s < v->hot_count; s++) {
            struct db__hot_block *b = atomic_load_explicit(&v->hot[s]->first, memory_order_acquire);
            for (; b; b = atomic_load_explicit(&b->next, memory_order_acquire))
                out->hot_rows += atomic_load_explicit(&b->rows, memory_order_relaxed);
        }
    }
    db_read_end(read);
}
