/* raft/log_segments.c: segment files that come and go.
 *
 *   prepare.tmp ─(zeros, fdatasync)─▶ <id>.seg ─(records)─▶ … ─(cut_prefix)─▶ spare-<id>.seg ─▶
 * <id'>.seg create()                       next        activated by sync          dispose()
 * create()
 *
 * A file gets the name of the segment that comes next only when it is whole and durable, and the
 * name is durable (sync_dir) before a record goes there. So recovery meets every segment but the
 * last complete, and an empty file after the last one means nothing. Zeros are written, not
 * fallocated: turning an unwritten extent into a written one is a metadata change that each
 * fdatasync would have to journal.
 *
 * Segments are let go in ascending order, each made durable before the next goes: a gap in the
 * middle of the log is then never our doing, and recovery may call it damage.
 *
 * All of it happens on a helper thread (prepare_ahead), where its fdatasyncs delay nobody's group,
 * or inside the call that needs it (simulator). */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "raft/log_internal.h"

#define ZERO_BYTES (256u << 10)
/* Synced this often while zeroing, so that the log writer's fdatasync never queues behind 64 MiB.
 */
#define ZERO_SYNC_BYTES (1u << 20)
/* Between two of these the helper pauses as long as the last one took, at most so long: the disk is
 * the writer's at least half of the time. */
#define ZERO_PAUSE_US_MAX 5000

static uint8_t zeros[ZERO_BYTES]; /* never written: stays the kernel's one zero page */

uint64_t raft__next_capacity(const raft_log *log, uint64_t capacity, uint64_t record_bytes)
{
    uint64_t usual = CHR_MIN(capacity * RAFT__GROWTH, log->options.segment_bytes);
    uint64_t need = chr_round_up(RAFT__HEADER_BYTES + record_bytes, RAFT__PAGE_BYTES);
    return CHR_MAX(usual, need);
}

static void spare_name(uint64_t number, char name[RAFT_IO_NAME_MAX])
{
    snprintf(name, RAFT_IO_NAME_MAX, "spare-%020llu.seg", (unsigned long long)number);
}

void raft__segment_free(raft_log *log, struct raft__segment *segment)
{
    if (!segment)
        return;
    if (segment->handle >= 0)
        log->io->close(log->io->ctx, segment->handle);
    free(segment);
}

/* The helper's pause while zeroing; none when the writer waits for the file. */
static void pause_zeroing(raft_log *log, int64_t us)
{
    pthread_mutex_lock(&log->lock);
    bool ours = log->helper_runs && pthread_equal(pthread_self(), log->helper);
    bool hurry = log->next_awaited || log->stop;
    pthread_mutex_unlock(&log->lock);
    us = CHR_MIN(us, (int64_t)ZERO_PAUSE_US_MAX);
    if (ours && !hurry && us > 0)
        nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* Zeroes a file of `capacity` bytes beginning with head, durably. */
static chr_err write_new(raft_log *log, int handle, uint64_t capacity, const uint8_t *head,
                         size_t head_bytes)
{
    const struct raft_io *io = log->io;
    const struct chr_clock *clock = log->options.clock;
    /* What a failed attempt left must go: its blocks too, when the disk is full. */
    chr_err err = io->truncate(io->ctx, handle, 0);
    uint64_t unsynced = 0;
    int64_t begun = chr_clock_mono_us(clock);
    for (uint64_t off = 0; !err && off < capacity;) {
        size_t len = (size_t)CHR_MIN((uint64_t)ZERO_BYTES, capacity - off);
        err = io->pwrite(io->ctx, handle, zeros, len, off);
        off += len;
        unsynced += len;
        if (!err && (unsynced >= ZERO_SYNC_BYTES || off == capacity)) {
            if (off == capacity && head)
                err = io->pwrite(io->ctx, handle, head, head_bytes, 0);
            if (!err)
                err = io->sync(io->ctx, handle);
            unsynced = 0;
            if (off < capacity)
                pause_zeroing(log, chr_clock_mono_us(clock) - begun);
            begun = chr_clock_mono_us(clock);
        }
    }
    return err;
}

/* Takes a spare under the name of the segment `id`. CHR_ENOTFOUND: none. */
static chr_err take_spare(raft_log *log, const char *name, int *handle)
{
    const struct raft_io *io = log->io;
    for (;;) {
        pthread_mutex_lock(&log->lock);
        bool some = log->spares.count > 0;
        uint64_t number = some ? log->spares.items[--log->spares.count] : 0;
        pthread_mutex_unlock(&log->lock);
        if (!some)
            return CHR_ENOTFOUND;
        char spare[RAFT_IO_NAME_MAX];
        spare_name(number, spare);
        if (io->rename(io->ctx, spare, name) == CHR_OK) /* else it is lost to us; try another */
            return io->open(io->ctx, name, false, handle);
    }
}

chr_err raft__segment_create(raft_log *log, uint64_t id, uint64_t capacity, const uint8_t *head,
                             size_t head_bytes, struct raft__segment **segment,
                             struct chr_errmsg *msg)
{
    const struct raft_io *io = log->io;
    char name[RAFT_IO_NAME_MAX];
    raft__segment_name(id, name);
    struct raft__segment *made = calloc(1, sizeof *made);
    if (!made)
        return chr_fail(msg, CHR_ENOMEM, "log segment %s: out of memory", name);
    *made = (struct raft__segment){
        .id = id, .capacity = capacity, .handle = -1, .end = RAFT__HEADER_BYTES};
    made->seed = raft__seed(log->incarnation, id);

    bool recycled = false, temporary = false;
    chr_err err = CHR_ENOTFOUND;
    if (!head && capacity == log->options.segment_bytes) {
        err = take_spare(log, name, &made->handle);
        recycled = err == CHR_OK;
    }
    if (err == CHR_ENOTFOUND) {
        err = io->open(io->ctx, RAFT__PREPARE_NAME, true, &made->handle);
        temporary = err == CHR_OK;
        if (!err)
            err = write_new(log, made->handle, capacity, head, head_bytes);
        if (!err)
            err = io->rename(io->ctx, RAFT__PREPARE_NAME, name);
        if (!err)
            temporary = false;
    }
    if (!err)
        err = io->sync_dir(io->ctx);
    if (err) {
        uint64_t room = 0;
        bool known = io->free_bytes(io->ctx, &room) == CHR_OK;
        raft__segment_free(log, made);
        if (temporary) /* gives its blocks back */
            (void)io->unlink(io->ctx, RAFT__PREPARE_NAME);
        if (err == CHR_ENOSPC && known)
            return chr_fail(msg, err, "log segment %s of %llu bytes: no space (%llu bytes free)",
                            name, (unsigned long long)capacity, (unsigned long long)room);
        return chr_fail(msg, err, "log segment %s: cannot create: %s", name, chr_strerror(err));
    }
    if (recycled) {
        pthread_mutex_lock(&log->lock);
        log->stats.segments_recycled++;
        pthread_mutex_unlock(&log->lock);
    }
    *segment = made;
    return CHR_OK;
}

chr_err raft__segment_next(raft_log *log, uint64_t capacity, struct raft__segment **segment,
                           struct chr_errmsg *msg)
{
    pthread_mutex_lock(&log->lock);
    while (log->next_state == RAFT__NEXT_WANTED || log->next_state == RAFT__NEXT_WORKING) {
        log->next_awaited = true;
        pthread_cond_wait(&log->changed, &log->lock);
    }
    log->next_awaited = false;
    uint64_t id = log->segments.items[log->segments.count - 1]->id + 1;
    struct raft__segment *next = log->next;
    log->next = NULL;
    log->next_state = RAFT__NEXT_NONE;
    pthread_mutex_unlock(&log->lock);
    CHR_ASSERT(!next || next->id == id);
    if (next && next->capacity == capacity) {
        *segment = next;
        return CHR_OK;
    }
    raft__segment_free(log, next); /* a huge entry wants more; the new file takes over the name */
    return raft__segment_create(log, id, capacity, NULL, 0, segment, msg);
}

void raft__want_next(raft_log *log)
{
    pthread_mutex_lock(&log->lock);
    if (log->helper_runs && log->next_state == RAFT__NEXT_NONE) {
        log->next_state = RAFT__NEXT_WANTED;
        pthread_cond_broadcast(&log->changed);
    }
    pthread_mutex_unlock(&log->lock);
}

/* Helper, lock held on entry and return. */
static void make_next(raft_log *log)
{
    const struct raft__segment *last = log->segments.items[log->segments.count - 1];
    uint64_t id = last->id + 1, capacity = raft__next_capacity(log, last->capacity, 0);
    log->next_state = RAFT__NEXT_WORKING;
    pthread_mutex_unlock(&log->lock);
    struct raft__segment *made = NULL;
    struct chr_errmsg msg;
    chr_err err = raft__segment_create(log, id, capacity, NULL, 0, &made, &msg);
    if (err) /* the writer will try by itself when it gets there, and report that */
        chr_log_warning("raft", "cannot prepare the next log segment",
                        CHR_KV_C("reason", msg.text));
    pthread_mutex_lock(&log->lock);
    log->next = made;
    log->next_state = made ? RAFT__NEXT_READY : RAFT__NEXT_NONE;
    pthread_cond_broadcast(&log->changed);
}

/* Recycles or unlinks one segment that is in nobody's list any more, durably. */
static chr_err dispose(raft_log *log, const struct raft__segment *segment, bool recycle)
{
    const struct raft_io *io = log->io;
    char name[RAFT_IO_NAME_MAX], spare[RAFT_IO_NAME_MAX];
    raft__segment_name(segment->id, name);
    spare_name(segment->id, spare);
    chr_err err = recycle ? io->rename(io->ctx, name, spare) : io->unlink(io->ctx, name);
    if (err == CHR_ENOTFOUND) /* an earlier attempt got that far */
        err = CHR_OK;
    return err ? err : io->sync_dir(io->ctx);
}

/* Disposes of what nobody reads, in order; stops at the first failure and leaves the rest for the
 * next call. Lock held on entry and return. */
static void dispose_garbage(raft_log *log)
{
    while (log->garbage.count && log->garbage.items[0]->readers == 0) {
        struct raft__segment *segment = log->garbage.items[0];
        bool recycle = log->spares.count < log->options.recycle_max &&
                       segment->capacity == log->options.segment_bytes &&
                       CHR_ARRAY_RESERVE(&log->spares, 1);
        pthread_mutex_unlock(&log->lock);
        chr_err err = dispose(log, segment, recycle);
        if (err)
            chr_log_warning("raft", "cannot let a log segment go", CHR_KV_U("segment", segment->id),
                            CHR_KV_C("reason", chr_strerror(err)));
        pthread_mutex_lock(&log->lock);
        if (err)
            break;
        if (recycle)
            log->spares.items[log->spares.count++] = segment->id;
        log->garbage.count--;
        memmove(log->garbage.items, log->garbage.items + 1,
                log->garbage.count * sizeof *log->garbage.items);
        raft__segment_free(log, segment);
    }
}

void raft__garbage_ready(raft_log *log)
{
    pthread_mutex_lock(&log->lock);
    log->garbage_waits = true;
    if (log->helper_runs)
        pthread_cond_broadcast(&log->changed);
    else
        dispose_garbage(log);
    pthread_mutex_unlock(&log->lock);
}

static void *helper(void *arg)
{
    raft_log *log = arg;
    pthread_mutex_lock(&log->lock);
    while (!log->stop) {
        if (log->next_state == RAFT__NEXT_WANTED) { /* first: the writer may be waiting */
            make_next(log);
        } else if (log->garbage_waits) {
            log->garbage_waits = false;
            dispose_garbage(log);
        } else {
            pthread_cond_wait(&log->changed, &log->lock);
        }
    }
    if (log->next_state == RAFT__NEXT_WANTED)
        log->next_state = RAFT__NEXT_NONE;
    pthread_mutex_unlock(&log->lock);
    return NULL;
}

chr_err raft__helper_start(raft_log *log)
{
    /* Signals are the main thread's business. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    log->helper_runs = true;
    int r = pthread_create(&log->helper, NULL, helper, log);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0) {
        log->helper_runs = false;
        return chr_err_from_errno(r);
    }
    return CHR_OK;
}

void raft__helper_stop(raft_log *log)
{
    if (!log->helper_runs)
        return;
    pthread_mutex_lock(&log->lock);
    log->stop = true;
    pthread_cond_broadcast(&log->changed);
    pthread_mutex_unlock(&log->lock);
    pthread_join(log->helper, NULL);
    log->helper_runs = false;
}
