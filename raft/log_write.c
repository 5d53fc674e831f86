/* raft/log_write.c: pending bytes to the disk.
 *
 * One pwrite per segment touched (one, or two at a border) and one fdatasync each; nothing else.
 * The write goes on with zeros to the end of its last page: the kernel then never has to read a
 * page of a recycled segment in order to change a part of it.
 *
 * A full disk (CHR_ENOSPC) leaves everything as it was in memory; the next attempt begins again
 * with the same bytes at the same places. Any other failure puts the log in doubt (L4). */
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "raft/log_internal.h"

chr_err raft__in_doubt(raft_log *log, struct chr_errmsg *msg, const char *what, uint64_t segment,
                       chr_err why)
{
    struct chr_errmsg text;
    log->doubt = true;
    (void)chr_fail(&text, why,
                   "%s of log segment %llu failed (%s): nothing is acknowledged until "
                   "the log was reopened",
                   what, (unsigned long long)segment, chr_strerror(why));
    memcpy(log->doubt_text, text.text, sizeof log->doubt_text - 1);
    return chr_fail(msg, CHR_EDOUBT, "%s", log->doubt_text);
}

/* The segment a part goes to, made and put into the list when this part opens it. */
static chr_err activate(raft_log *log, const struct raft__part *part,
                        struct raft__segment **segment, struct chr_errmsg *msg)
{
    *segment = raft__segment_by_id(log, part->segment);
    if (*segment) /* there already: an earlier attempt opened it */
        return CHR_OK;
    CHR_ASSERT(part->opens);
    pthread_mutex_lock(&log->lock);
    bool room = CHR_ARRAY_RESERVE(&log->segments, 1);
    pthread_mutex_unlock(&log->lock);
    if (!room)
        return chr_fail(msg, CHR_ENOMEM, "log: out of memory");
    struct raft__segment *next;
    chr_err err = raft__segment_next(log, part->header.segment_bytes, &next, msg);
    if (err == CHR_ENOSPC || err == CHR_ENOMEM)
        return err;
    if (err)
        return raft__in_doubt(log, msg, "creation", part->segment, err);
    next->first_index = part->header.next_index;
    next->base_term = part->header.last_term;
    next->base_hlc = part->header.last_hlc;
    next->dirty = true; /* so that the dirty ones are the last of the list, without gaps */
    pthread_mutex_lock(&log->lock);
    log->segments.items[log->segments.count++] = next;
    pthread_mutex_unlock(&log->lock);
    *segment = next;
    return CHR_OK;
}

static chr_err write_part(raft_log *log, size_t i, struct chr_errmsg *msg)
{
    struct raft__part *part = &log->parts.items[i];
    struct raft__segment *segment;
    chr_err err = activate(log, part, &segment, msg);
    if (err)
        return err;
    size_t len = part->to - part->from;
    if (i + 1 == log->parts.count) {
        size_t padding = raft__page_padding(part, segment->capacity); /* reserved by plan_reserve */
        memset(log->pending.ptr + part->to, 0, padding);
        len += padding;
    }
    segment->dirty = true;
    err = log->io->pwrite(log->io->ctx, segment->handle, log->pending.ptr + part->from, len,
                          part->offset);
    if (err == CHR_ENOSPC)
        return chr_fail(msg, err, "log segment %llu: no space left",
                        (unsigned long long)segment->id);
    if (err)
        return raft__in_doubt(log, msg, "write", segment->id, err);
    log->unsynced_bytes += len;
    return CHR_OK;
}

chr_err raft__sync_dirty(raft_log *log, struct chr_errmsg *msg)
{
    const struct chr_clock *clock = log->options.clock;
    for (size_t i = log->segments.count; i-- > 0 && log->segments.items[i]->dirty;) {
        struct raft__segment *segment = log->segments.items[i];
        int64_t begun = chr_clock_mono_us(clock);
        chr_err err = log->io->sync(log->io->ctx, segment->handle);
        if (err)
            return raft__in_doubt(log, msg, "fdatasync", segment->id, err);
        segment->dirty = false;
        uint64_t us = (uint64_t)(chr_clock_mono_us(clock) - begun);
        pthread_mutex_lock(&log->lock);
        log->stats.syncs++;
        log->stats.sync_us_total += us;
        log->stats.sync_us_max = CHR_MAX(log->stats.sync_us_max, us);
        pthread_mutex_unlock(&log->lock);
    }
    log->unsynced_bytes = 0;
    return CHR_OK;
}

/* The parts [from, to) are where they should be: readers may go there. */
static void show_parts(raft_log *log, size_t from, size_t to)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&log->lock);
    for (size_t i = from; i < to; i++) {
        const struct raft__part *part = &log->parts.items[i];
        struct raft__segment *segment = raft__segment_by_id(log, part->segment);
        uint64_t end = i + 1 < log->parts.count && log->parts.items[i + 1].opens
                           ? raft__pos_offset(log->parts.items[i + 1].header.prev_end)
                           : part->offset + (part->to - part->from);
        bytes += end - part->offset;
        segment->end = end;
    }
    log->stats.groups++;
    log->stats.bytes_written += bytes;
    pthread_mutex_unlock(&log->lock);
    atomic_fetch_add_explicit(&log->bytes, bytes, memory_order_relaxed);
    /* Behind a pending truncation an earlier part's last entry may be dead already. */
    atomic_store_explicit(&log->synced,
                          CHR_MIN(log->parts.items[to - 1].last_index, log->tail.last_index),
                          memory_order_release);
}

static void parts_clear(raft_log *log)
{
    log->parts.count = log->parts_done = 0;
    log->group_bytes = 0;
    chr_buf_reset(&log->pending);
    /* The next segment is prepared while this one fills. But for the first, small one: there it
     * waits until half of it is used, for an idle node needs no more. */
    if (log->tail_capacity > log->options.first_segment_bytes ||
        raft__pos_offset(log->tail.pos) > log->tail_capacity / 2)
        raft__want_next(log);
}

chr_err raft__flush(raft_log *log, bool durable, struct chr_errmsg *msg)
{
    if (log->options.read_only)
        return chr_fail(msg, CHR_EACCES, "the log is open for reading only");
    if (log->doubt)
        return chr_fail(msg, CHR_EDOUBT, "%s", log->doubt_text);
    durable |= log->options.fsync != RAFT_FSYNC_PERIODIC;
    chr_err err = CHR_OK;
    for (size_t i = log->parts_done; !err && i < log->parts.count; i++) {
        err = write_part(log, i, msg);
        bool group_ends =
            i + 1 == log->parts.count || log->parts.items[i + 1].group != log->parts.items[i].group;
        if (err || !group_ends)
            continue;
        bool sync = durable || log->unsynced_bytes > RAFT__GROUP_BYTES_MAX;
        if (sync)
            err = raft__sync_dirty(log, msg);
        if (err)
            continue;
        show_parts(log, log->parts_done, i + 1);
        log->parts_done = i + 1;
        if (sync) {
            atomic_store_explicit(&log->durable, raft_log_synced(log), memory_order_release);
            if (i + 1 == log->parts.count)
                log->group = log->tail.pos; /* keeps L1: everything below it is durable */
        }
    }
    if (err == CHR_ENOSPC) {
        pthread_mutex_lock(&log->lock);
        log->stats.enospc_waits++;
        pthread_mutex_unlock(&log->lock);
    }
    if (err)
        return err;
    if (log->parts.count) {
        parts_clear(log);
    } else if (durable && log->unsynced_bytes) { /* RAFT_FSYNC_PERIODIC: the sync that is owed */
        err = raft__sync_dirty(log, msg);
        if (err)
            return err;
        log->group = log->tail.pos;
        atomic_store_explicit(&log->durable, log->tail.last_index, memory_order_release);
    }
    return CHR_OK;
}

chr_err raft_log_sync(raft_log *log, struct chr_errmsg *msg)
{
    return raft__flush(log, false, msg);
}

chr_err raft_log_sync_periodic(raft_log *log, int64_t mono_us, bool force)
{
    if (log->options.fsync != RAFT_FSYNC_PERIODIC)
        return CHR_OK;
    if (log->periodic_us == 0)
        log->periodic_us = mono_us;
    if (!force && mono_us - log->periodic_us < (int64_t)log->options.periodic_ms * 1000)
        return CHR_OK;
    log->periodic_us = mono_us;
    return raft__flush(log, true, NULL);
}
