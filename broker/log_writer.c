/* broker/log_writer.c: the thread that writes and syncs the log, one group at a time (L1).
 *
 * A full disk is waited out: the group stays appended and nothing was promised. Any other failure
 * puts the log in doubt (R16): the kernel may have dropped the pages, so a retry would prove
 * nothing. The process then ends without another acknowledgement; its restart replays what the disk
 * really holds. */
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/committer_internal.h"

#define DISK_FULL_RETRY_US  INT64_C(200000)
#define DISK_FULL_REMIND_US INT64_C(10000000)
/* periodic: how often it looks whether the sync is due while one is owed */
#define PERIODIC_LOOK_US INT64_C(10000)

CHR_NORETURN static void log_in_doubt(chr_err err, const struct chr_errmsg *msg)
{
    chr_log_error("log",
                  "the log can't be trusted after a failed write or sync; stopping. Start the "
                  "node again once the disk is sound: acknowledged readings are replayed",
                  CHR_KV_C("error", chr_errname(err)), CHR_KV_C("detail", msg->text));
    _exit(EXIT_FAILURE);
}

static void publish_synced(struct broker_committer *c, uint64_t index)
{
    pthread_mutex_lock(&c->synced_lock);
    atomic_store(&c->synced_index, index);
    pthread_cond_broadcast(&c->synced_cond);
    pthread_mutex_unlock(&c->synced_lock);
}

/* The node is to stop and there is no room for what it accepted. */
CHR_NORETURN static void give_up(const struct chr_errmsg *msg)
{
    chr_log_error("log",
                  "the disk is full and the node is to stop: what is not in the log yet is given "
                  "up; none of it was acknowledged",
                  CHR_KV_C("detail", msg->text));
    _exit(EXIT_FAILURE);
}

static bool must_give_up(struct broker_committer *c)
{
    int64_t until_us = atomic_load(&c->give_up_us);
    return until_us && chr_clock_mono_us(c->options.clock) > until_us;
}

/* Syncs what is appended, waiting for room as long as it takes while the node runs. */
static void sync_waiting_for_room(struct broker_committer *c)
{
    struct chr_errmsg msg = {{0}};
    int64_t reminded_us = 0;
    for (;;) {
        chr_err err = raft_log_sync(c->options.log, &msg);
        if (!err)
            break;
        if (err != CHR_ENOSPC)
            log_in_doubt(err, &msg);
        int64_t now_us = chr_clock_mono_us(c->options.clock);
        if (!atomic_exchange(&c->disk_full, true) || now_us - reminded_us > DISK_FULL_REMIND_US) {
            chr_log_error("log", "the disk is full; writers wait until there is room",
                          CHR_KV_C("detail", msg.text));
            reminded_us = now_us;
        }
        if (must_give_up(c))
            give_up(&msg);
        uint32_t ticket = chr_wake_prepare(&c->writer_wake);
        chr_wake_wait(&c->writer_wake, ticket, DISK_FULL_RETRY_US);
    }
    if (atomic_exchange(&c->disk_full, false))
        chr_log_notice("log", "there is room on the disk again; writing goes on");
}

static void write_group(struct broker_committer *c, struct committer_group *g)
{
    size_t from = 0;
    while (from < g->count) {
        /* The log takes all or nothing of one call, so a group too large for its buffer is handed
         * over in halves. */
        size_t count = g->count - from;
        chr_err err = raft_log_append(c->options.log, g->entries + from, count);
        while (err == CHR_EFULL && count > 1) {
            count = (count + 1) / 2;
            err = raft_log_append(c->options.log, g->entries + from, count);
        }
        if (err == CHR_EFULL) {
            sync_waiting_for_room(c);
            continue;
        }
        if (err)
            log_in_doubt(err, &(struct chr_errmsg){{0}});
        from += count;
    }
    sync_waiting_for_room(c);
    CHR_ASSERT(raft_log_last(c->options.log) == g->last_index);
}

static void cut_log(struct broker_committer *c)
{
    uint64_t cut = atomic_load(&c->cut_index);
    if (cut <= atomic_load(&c->cut_done))
        return;
    chr_err err = raft_log_cut_prefix(c->options.log, cut);
    if (err && err != CHR_ENOSPC)
        chr_log_warning("log", "can't drop old segments", CHR_KV_U("index", cut),
                        CHR_KV_C("error", chr_strerror(err)));
    atomic_store(&c->cut_done, cut);
}

/* The fdatasync that periodic mode owes. False: no room for it. */
static bool sync_periodic(struct broker_committer *c)
{
    bool force = atomic_exchange(&c->force_sync, false);
    chr_err err =
        raft_log_sync_periodic(c->options.log, chr_clock_mono_us(c->options.clock), force);
    if (err && err != CHR_ENOSPC)
        log_in_doubt(err, &(struct chr_errmsg){{0}});
    if (err && force)
        atomic_store(&c->force_sync, true); /* owed until there is room */
    if (err && must_give_up(c))
        give_up(&(struct chr_errmsg){{0}});
    uint64_t durable = raft_log_durable(c->options.log);
    if (durable > atomic_load(&c->synced_index))
        publish_synced(c, durable);
    return !err;
}

void *committer__writer_main(void *arg)
{
    struct broker_committer *c = arg;
    pthread_setname_np(pthread_self(), "log-writer");
    bool periodic = c->options.fsync == RAFT_FSYNC_PERIODIC;
    for (;;) {
        bool worked = committer__core_turn(c);
        committer__apply_or_wake(c);
        struct committer_group *g = atomic_load(&c->to_write);
        if (g) {
            uint64_t last = g->last_index, sequence = g->save_sequence;
            write_group(c, g);
            if (!periodic)
                publish_synced(c, last);
            /* In this order: the core may hand over the next group once to_write is empty, and
             * looks at saved_index first. */
            atomic_store(&c->saved_sequence, sequence);
            atomic_store(&c->saved_index, last);
            atomic_store(&c->to_write, NULL);
        }
        if (atomic_load_explicit(&c->stopping, memory_order_relaxed))
            chr_wake_signal(&c->wake); /* is this the end? */
        cut_log(c);
        bool room = !periodic || sync_periodic(c);
        if (g || worked)
            continue;
        uint32_t ticket = chr_wake_prepare(&c->writer_wake);
        if (committer__core_work_waits(c) || atomic_load(&c->to_write) != NULL ||
            atomic_load(&c->cut_index) > atomic_load(&c->cut_done) ||
            (periodic && room && atomic_load(&c->force_sync))) {
            chr_wake_cancel(&c->writer_wake);
        } else if (atomic_load(&c->writer_stop)) {
            chr_wake_cancel(&c->writer_wake);
            break;
        } else {
            /* Nothing owed, nothing to wake up for. */
            bool owed =
                periodic && raft_log_durable(c->options.log) < raft_log_last(c->options.log);
            chr_wake_wait(&c->writer_wake, ticket,
                          !room  ? DISK_FULL_RETRY_US
                          : owed ? PERIODIC_LOOK_US
                                 : -1);
        }
    }
    while (periodic) {
        atomic_store(&c->force_sync, true);
        if (sync_periodic(c))
            break;
        uint32_t ticket = chr_wake_prepare(&c->writer_wake);
        chr_wake_wait(&c->writer_wake, ticket, DISK_FULL_RETRY_US);
    }
    return NULL;
}
