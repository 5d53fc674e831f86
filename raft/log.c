/* raft/log.c: the log's life, and what its writer does besides appending and syncing: hard state,
 * truncation, letting segments go. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "raft/log_internal.h"

/* What an idle log may hold on to. */
#define PENDING_KEPT_BYTES (1u << 20)

/* ---- hard state ---- */

chr_err raft_log_set_hard_state(raft_log *log, struct raft_hard_state state)
{
    if (log->options.read_only)
        return CHR_EACCES;
    if (log->doubt)
        return CHR_EDOUBT;
    if (state.term != log->tail.hard_state.term || state.vote != log->tail.hard_state.vote) {
        uint8_t body[16];
        chr_put_u64le(body, state.term);
        chr_put_u64le(body + 8, state.vote);
        struct raft__record record = {.type = RAFT__HARD_STATE,
                                      .index = log->tail.last_index,
                                      .term = log->tail.last_term,
                                      .hlc = log->tail.last_hlc,
                                      .body = chr_slice_of(body, sizeof body)};
        raft__pos pos;
        chr_err err = raft__put_special(log, &record, &pos);
        if (err)
            return err;
        log->tail.hard_state = state;
    }
    return raft__flush(log, true, NULL); /* keeps L5 */
}

/* ---- letting entries go ---- */

/* Term and HLC of the entry `index`, or of the place before the first one. */
static chr_err describe(raft_log *log, uint64_t index, uint64_t *term, chr_hlc *hlc)
{
    struct raft__record record;
    if (index >= raft_log_first(log)) {
        chr_err err = raft__find_entry(log, index, &record);
        *term = record.term;
        *hlc = record.hlc;
        return err;
    }
    *term = log->segments.items[0]->base_term;
    *hlc = log->segments.items[0]->base_hlc;
    return CHR_OK;
}

/* Segments that this truncation leaves without a live entry, and those not even open yet: the next
 * entry that they, or a segment after them, hold may be record->index + 1. */
static void lower_first(raft_log *log, const struct raft__record *record)
{
    raft__lower_first(log, record);
    for (size_t i = 0; i < log->parts.count; i++) {
        struct raft__header *header = &log->parts.items[i].header;
        if (log->parts.items[i].opens && record->index + 1 < header->next_index) {
            header->next_index = record->index + 1; /* for activate(); the bytes are laid out */
            header->last_term = record->term;
            header->last_hlc = record->hlc;
        }
    }
}

chr_err raft_log_truncate_suffix(raft_log *log, uint64_t index)
{
    if (log->options.read_only)
        return CHR_EACCES;
    if (log->doubt)
        return CHR_EDOUBT;
    if (index + 1 < raft_log_first(log))
        return CHR_EINVAL;
    if (index < log->tail.last_index) {
        struct raft__record record = {.type = RAFT__TRUNCATE, .index = index};
        chr_err err = describe(log, index, &record.term, &record.hlc);
        if (err)
            return err;
        raft__pos pos;
        err = raft__put_special(log, &record, &pos);
        if (err)
            return err;
        pthread_mutex_lock(&log->lock);
        bool indexed = raft__index_truncate(log, &record, pos);
        if (indexed)
            lower_first(log, &record);
        pthread_mutex_unlock(&log->lock);
        if (!indexed) /* the record is pending, memory does not know it: only replay puts it right
                       */
            return raft__in_doubt(log, NULL, "truncation", raft__pos_segment(pos), CHR_ENOMEM);
        atomic_store_explicit(&log->last, index, memory_order_release);
        if (atomic_load(&log->synced) > index)
            atomic_store_explicit(&log->synced, index, memory_order_release);
        if (atomic_load(&log->durable) > index)
            atomic_store_explicit(&log->durable, index, memory_order_release);
        /* Last: who reads on with the new count sees how far the log goes now. */
        atomic_fetch_add(&log->truncations, 1);
    }
    return raft__flush(log, true, NULL);
}

chr_err raft_log_cut_prefix(raft_log *log, uint64_t index)
{
    if (log->options.read_only)
        return CHR_EACCES;
    uint64_t bytes = 0;
    size_t n = 0;
    pthread_mutex_lock(&log->lock);
    while (n + 1 < log->segments.count && log->segments.items[n + 1]->first_index <= index + 1 &&
           log->segments.items[n + 1]->end > RAFT__HEADER_BYTES && !log->segments.items[n]->dirty)
        n++;
    if (n && !CHR_ARRAY_RESERVE(&log->garbage, n)) {
        pthread_mutex_unlock(&log->lock);
        return CHR_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        bytes += log->segments.items[i]->end;
        log->garbage.items[log->garbage.count++] = log->segments.items[i];
    }
    if (n) {
        log->segments.count -= n;
        memmove(log->segments.items, log->segments.items + n,
                log->segments.count * sizeof *log->segments.items);
        raft__index_cut(log);
        atomic_store(&log->first, log->segments.items[0]->first_index);
        atomic_fetch_sub(&log->bytes, bytes);
    }
    bool some = log->garbage.count > 0; /* also what failed to go before */
    pthread_mutex_unlock(&log->lock);
    if (some)
        raft__garbage_ready(log);
    /* A checkpoint was made; the memory of the largest group since the last one goes back. */
    if (log->parts.count == 0 && log->pending.capacity > PENDING_KEPT_BYTES)
        chr_buf_free(&log->pending);
    return CHR_OK;
}

/* ---- open, close ---- */

static chr_err fill_options(struct raft_log_options *options, struct chr_errmsg *msg)
{
    if (options->segment_bytes == 0)
        options->segment_bytes = RAFT__SEGMENT_BYTES;
    if (options->first_segment_bytes == 0)
        options->first_segment_bytes = RAFT__FIRST_BYTES;
    if (options->first_segment_bytes > options->segment_bytes)
        options->first_segment_bytes = options->segment_bytes;
    if (!options->clock)
        options->clock = chr_clock_system();
    if (options->segment_bytes % RAFT__PAGE_BYTES ||
        options->first_segment_bytes % RAFT__PAGE_BYTES ||
        options->segment_bytes > RAFT__SEGMENT_BYTES_MAX)
        return chr_fail(msg, CHR_EINVAL, "log: segments are multiples of %u bytes, up to %u",
                        RAFT__PAGE_BYTES, RAFT__SEGMENT_BYTES_MAX);
    return CHR_OK;
}

/* A group of its own behind the last one: from then on damage to that one is no torn tail. On a
 * full disk the witness stays pending and goes with the next group, which is as good a witness. */
static chr_err leave_witness(raft_log *log, struct chr_errmsg *msg)
{
    if (log->tail.last_type == 0 || log->tail.last_type == RAFT__WITNESS)
        return CHR_OK;
    struct raft__record record = {.type = RAFT__WITNESS,
                                  .index = log->tail.last_index,
                                  .term = log->tail.last_term,
                                  .hlc = log->tail.last_hlc};
    raft__pos pos;
    chr_err err = raft__put_special(log, &record, &pos);
    if (!err)
        err = raft__flush(log, true, msg);
    return err == CHR_ENOSPC ? CHR_OK : err;
}

chr_err raft_log_open(const struct raft_io *io, const struct raft_log_options *options,
                      uint64_t start_index, raft_log **out, struct raft_log_recovery *recovery,
                      struct chr_errmsg *msg)
{
    *out = NULL;
    raft_log *log = calloc(1, sizeof *log);
    if (!log)
        return chr_fail(msg, CHR_ENOMEM, "log: out of memory");
    log->io = io;
    log->options = *options;
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->changed, NULL);
    /* Page padding at borders comes on top of the records; small segments (tests) have many. */
    chr_buf_init(&log->pending, 2 * RAFT__GROUP_BYTES_MAX);
    chr_err err = fill_options(&log->options, msg);
    if (!err)
        err = raft__recover(log, options->read_only ? start_index : CHR_MAX(start_index, 1u),
                            recovery, msg);
    if (!err && !log->options.read_only)
        err = leave_witness(log, msg);
    if (!err && log->options.prepare_ahead && !log->options.read_only) {
        err = raft__helper_start(log);
        if (err)
            err = chr_fail(msg, err, "log: cannot start the helper thread");
    }
    if (err) {
        log->doubt = true; /* close must not write */
        raft_log_close(log);
        return err;
    }
    *out = log;
    return CHR_OK;
}

void raft_log_close(raft_log *log)
{
    if (!log)
        return;
    if (!log->doubt && !log->options.read_only) {
        if (log->parts.count) /* never synced: dropped. What is owed for earlier ones is not */
            (void)raft__sync_dirty(log, NULL);
        else if (raft__flush(log, true, NULL) == CHR_OK)
            (void)leave_witness(log, NULL); /* a courtesy: the log is complete without it */
    }
    raft__helper_stop(log);
    for (size_t i = 0; i < log->segments.count; i++)
        raft__segment_free(log, log->segments.items[i]);
    for (size_t i = 0; i < log->garbage.count; i++)
        raft__segment_free(log, log->garbage.items[i]);
    raft__segment_free(log, log->next);
    free(log->segments.items);
    free(log->garbage.items);
    free(log->spares.items);
    free(log->sparse.items);
    free(log->terms.items);
    free(log->cuts.items);
    free(log->parts.items);
    chr_buf_free(&log->pending);
    pthread_cond_destroy(&log->changed);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* ---- looking ---- */

uint64_t raft_log_first(const raft_log *log)
{
    uint64_t first = atomic_load_explicit(&log->first, memory_order_acquire);
    uint64_t last = atomic_load_explicit(&log->last, memory_order_acquire);
    return CHR_MIN(first, last + 1);
}

uint64_t raft_log_last(const raft_log *log)
{
    return atomic_load_explicit(&log->last, memory_order_acquire);
}

uint64_t raft_log_synced(const raft_log *log)
{
    return atomic_load_explicit(&log->synced, memory_order_acquire);
}

uint64_t raft_log_durable(const raft_log *log)
{
    return atomic_load_explicit(&log->durable, memory_order_acquire);
}

uint64_t raft_log_bytes(const raft_log *log)
{
    return atomic_load_explicit(&log->bytes, memory_order_relaxed);
}

uint64_t raft_log_incarnation(const raft_log *log)
{
    return log->incarnation;
}

uint64_t raft_log_term_of(const raft_log *log, uint64_t index)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&log->lock; /* logically const */
    pthread_mutex_lock(lock);
    uint64_t term = 0;
    if (index >= atomic_load(&log->first) && index <= atomic_load(&log->last))
        term = raft__index_term(log, index);
    else if (index + 1 == log->segments.items[0]->first_index)
        term = log->segments.items[0]->base_term;
    pthread_mutex_unlock(lock);
    return term;
}

size_t raft_log_terms(const raft_log *log, struct raft_term_run *out, size_t max)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&log->lock; /* logically const */
    pthread_mutex_lock(lock);
    uint64_t first = atomic_load(&log->first);
    size_t count = first <= atomic_load(&log->last) ? log->terms.count : 0;
    for (size_t i = 0; i < CHR_MIN(count, max); i++) {
        out[i] = log->terms.items[i];
        out[i].first_index = CHR_MAX(out[i].first_index, first);
    }
    pthread_mutex_unlock(lock);
    return count;
}

void raft_log_stats(const raft_log *log, struct raft_log_stats *out)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&log->lock;
    pthread_mutex_lock(lock);
    *out = log->stats;
    out->segments = log->segments.count;
    pthread_mutex_unlock(lock);
}
