/* db/checkpoint.c: when a checkpoint is due and how one runs, from cut to swap. */
#include "db/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "db/durable_save.h"

chr_err db__checkpoint_init(struct db *d)
{
    struct db__checkpoint *cp = calloc(1, sizeof *cp);
    d->checkpoint = cp;
    if (!cp)
        return CHR_ENOMEM;
    pthread_mutex_init(&cp->save_lock, NULL);
    chr_buf_init(&cp->buf, DB_KV_VALUE_MAX);
    cp->next_chunk_id = 1;
    cp->last_mono_us = INT64_MIN;
    return CHR_OK;
}

void db__checkpoint_free(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    if (!cp)
        return;
    for (size_t i = 0; i < cp->dropped_count; i++)
        db__table_free(cp->dropped[i]);
    while (cp->garbage) {
        struct db__chunk *next = cp->garbage->next_garbage;
        db__chunk_release(cp->garbage);
        cp->garbage = next;
    }
    db__durable_saving_free(d);
    db__pending_free(cp);
    db__sealer_free(cp->sealer);
    CHR_ASSERT(cp->snapshots == 0);
    pthread_mutex_destroy(&cp->save_lock);
    chr_buf_free(&cp->buf);
    free(cp->pending);
    free(cp->dropped);
    free(cp->jobs);
    free(cp);
}

enum db_checkpoint_reason db_checkpoint_due(const db *d, uint64_t log_bytes, int64_t mono_us)
{
    struct db__checkpoint *cp = d->checkpoint;
    uint64_t hot = atomic_load_explicit(&((struct db *)d)->hot_bytes, memory_order_relaxed);
    int64_t last_us = INT64_MIN; /* never looked at yet */
    if (atomic_compare_exchange_strong(&cp->last_mono_us, &last_us, mono_us))
        last_us = mono_us;
    if (db_apply_index(d) == db_durable_index(d))
        return DB_CHECKPOINT_NONE;
    if (hot >= d->options.hot_limit_bytes / 2)
        return DB_CHECKPOINT_HOT;
    if (log_bytes >= d->options.checkpoint_log_bytes)
        return DB_CHECKPOINT_LOG;
    if (mono_us - last_us >= d->options.checkpoint_age_us)
        return DB_CHECKPOINT_AGE;
    return DB_CHECKPOINT_NONE;
}

/* -- Writing ahead ------------------------------------------------------------------------------*/

static chr_err batch_commit(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    db_kv_txn *txn = cp->txn;
    cp->txn = NULL;
    cp->txn_bytes = 0;
    return txn ? d->kv.commit(d->kv.ctx, txn) : CHR_OK;
}

static void batch_abort(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    if (cp->txn)
        d->kv.abort(d->kv.ctx, cp->txn);
    cp->txn = NULL;
    cp->txn_bytes = 0;
}

static chr_err emit_chunk(void *arg, const struct db_chunk_output *out, struct db__chunk *chunk)
{
    struct db *d = arg;
    struct db__checkpoint *cp = d->checkpoint;
    chr_err err = CHR_OK;
    chunk->id = cp->next_chunk_id++;
    if (!cp->txn)
        err = d->kv.begin(d->kv.ctx, true, &cp->txn);
    for (uint32_t i = 0; i < out->parts_count && !err; i++) {
        const struct db_chunk_part *p = &out->parts[i];
        struct db__store_key key = db__store_key_part(chunk->id, (uint8_t)p->kind, p->column);
        err = d->kv.put(d->kv.ctx, cp->txn, db__key_slice(&key), p->value);
    }
    if (err) {
        batch_abort(d);
        return err;
    }
    cp->txn_bytes += out->bytes;
    return cp->txn_bytes >= DB__BATCH_BYTES ? batch_commit(d) : CHR_OK;
}

/* Chunks that should have been rewritten cannot be read: they stay where they are, for reads to say
 * so, and the job goes on with hot rows alone. A damaged chunk must not keep the node from ever
 * making a checkpoint again. */
static void leave_sources(struct db__job *job, const struct chr_errmsg *msg)
{
    struct db__seal_job *s = &job->seal;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < job->removed_count; i++) {
        struct db__chunk *chunk = job->removed[i];
        bool source = false;
        for (uint32_t k = 0; k < s->sources_count; k++)
            source = source || s->sources[k] == chunk;
        if (source)
            db__chunk_release(chunk);
        else
            job->removed[kept++] = chunk;
    }
    job->removed_count = kept;
    for (uint32_t i = 0; i < s->sources_count; i++) {
        chr_log_error("db", "chunk cannot be rewritten, it is left as it is",
                      CHR_KV_U("chunk", s->sources[i]->id), CHR_KV_C("detail", msg->text));
        s->sources[i]->left_alone = true;
        db__chunk_release(s->sources[i]);
    }
    s->sources_count = 0;
    for (uint32_t b = 0; b < s->blocks_count; b++)
        free(s->blocks[b].dest);
    s->blocks_count = 0;
}

static chr_err seal_job(struct db *d, struct db__job *job, struct chr_errmsg *msg)
{
    struct db__seal_job *s = &job->seal;
    uint32_t rows_max = d->options.chunk_rows_max, tail_rows = rows_max / DB__TAIL_PART;
    struct chr_errmsg why = {{0}};
    if (s->sources_count) {
        /* Sources are read in a transaction of their own, after what was written is committed. */
        chr_err err = batch_commit(d);
        if (!err)
            err = db__seal(d, d->checkpoint->sealer, s, rows_max, tail_rows, emit_chunk, d, &why);
        if (err != CHR_ECORRUPT || s->made_count) {
            if (err && msg)
                *msg = why;
            return err;
        }
        leave_sources(job, &why);
    }
    if (!s->sets_count)
        return CHR_OK;
    return db__seal(d, d->checkpoint->sealer, s, rows_max, tail_rows, emit_chunk, d, msg);
}

static chr_err seal_jobs(struct db *d, struct chr_errmsg *msg)
{
    struct db__checkpoint *cp = d->checkpoint;
    chr_err err = db__sealer_new(&cp->sealer);
    for (size_t j = 0; j < cp->jobs_count && !err; j++) {
        err = seal_job(d, &cp->jobs[j], msg);
        DB__COUNT(d, seal_rows_total, cp->jobs[j].seal.rows);
    }
    if (!err)
        err = batch_commit(d);
    batch_abort(d);
    /* Some megabytes, which nobody needs until the next checkpoint. */
    db__sealer_free(cp->sealer);
    cp->sealer = NULL;
    return err;
}

/* -- The run ------------------------------------------------------------------------------------*/

static chr_err cut(struct db *d)
{
    pthread_mutex_lock(&d->apply_lock);
    chr_err err = db__checkpoint_plan(d);
    if (!err)
        db__checkpoint_capture(d);
    pthread_mutex_unlock(&d->apply_lock);
    return err;
}

/* Tables whose end is saved: their chunks are garbage now. */
static void forget_dropped(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    for (size_t t = 0; t < cp->dropped_count; t++) {
        struct db__chunk_list *chunks = cp->dropped[t]->view->chunks;
        for (uint32_t i = 0; chunks && i < chunks->count; i++) {
            db__chunk_retain(chunks->chunks[i]);
            db__garbage_add(cp, chunks->chunks[i]);
        }
        db__table_free(cp->dropped[t]);
    }
    cp->dropped_count = 0;
}

static void jobs_free(struct db *d, bool saved)
{
    struct db__checkpoint *cp = d->checkpoint;
    for (size_t j = 0; j < cp->jobs_count; j++) {
        struct db__job *job = &cp->jobs[j];
        struct db__seal_job *s = &job->seal;
        for (uint32_t i = 0; i < job->removed_count; i++) {
            if (saved)
                db__garbage_add(cp, job->removed[i]);
            else
                db__chunk_release(job->removed[i]);
        }
        for (uint32_t i = 0; i < s->made_count && !saved; i++) {
            db__chunk_retain(s->made[i]);
            if (s->made[i]->id)
                db__garbage_add(cp, s->made[i]); /* some of its parts may be there */
            else
                db__chunk_release(s->made[i]);
        }
        db__seal_job_free(s);
        free(job->removed);
    }
    cp->jobs_count = 0;
}

chr_err db_checkpoint(db *d, enum db_checkpoint_reason reason,
                      chr_err (*wait_synced)(void *arg, uint64_t index), void *arg, int64_t mono_us,
                      struct chr_errmsg *msg)
{
    struct db__checkpoint *cp = d->checkpoint;
    const struct chr_clock *clock = chr_clock_system();
    int64_t began_us = chr_clock_mono_us(clock);
    if (cp->saved && db_apply_index(d) == db_durable_index(d))
        return db__garbage_collect(d);
    chr_err err = cut(d);
    if (err)
        return err;
    err = seal_jobs(d, msg);
    int64_t sealed_us = chr_clock_mono_us(clock);
    DB__COUNT(d, seal_us_total, sealed_us - began_us);
    if (!err)
        err = db__durable_write_ahead(d);
    if (!err)
        err = wait_synced(arg, cp->read->index); /* keeps D3 */
    pthread_mutex_lock(&cp->save_lock);          /* keeps P3 */
    if (!err)
        err = db__checkpoint_save(d, msg);
    bool saved = !err;
    if (saved) {
        pthread_mutex_lock(&d->apply_lock);
        db__checkpoint_swap(d);
        db__durable_saved(d);
        pthread_mutex_unlock(&d->apply_lock);
        forget_dropped(d);
        cp->last_mono_us = mono_us;
        DB__COUNT(d, checkpoints, 1);
    }
    pthread_mutex_unlock(&cp->save_lock);
    uint64_t index = cp->read->index;
    db_read_end(cp->read);
    cp->read = NULL;
    jobs_free(d, saved);
    if (!saved)
        return err;
    int64_t took_us = chr_clock_mono_us(clock) - began_us;
    atomic_store_explicit(&d->counts.checkpoint_us_last, (uint64_t)took_us, memory_order_relaxed);
    chr_log_debug("db", "checkpoint", CHR_KV_U("index", index), CHR_KV_I("reason", reason),
                  CHR_KV_I("us", took_us));
    /* It is true already; garbage that could not be deleted waits for the next one. */
    chr_err garbage_err = db__garbage_collect(d);
    if (garbage_err)
        chr_log_warning("db", "old chunks not deleted yet",
                        CHR_KV_C("error", chr_strerror(garbage_err)));
    return CHR_OK;
}
