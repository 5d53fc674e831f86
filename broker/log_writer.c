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

/* The disk is full, or the log in doubt: CHR_OK once `what` may be tried again. */
static void wait_for_room(struct broker_committer *c, chr_err err)
{
    if (err != CHR_ENOSPC)
        log_in_doubt(err, &(struct chr_errmsg){{0}});
    if (!atomic_exchange(&c->disk_full, true))
        chr_log_error("log", "the disk is full; writers wait until there is room");
    if (must_give_up(c))
        give_up(&(struct chr_errmsg){{0}});
    uint32_t ticket = chr_wake_prepare(&c->writer_wake);
    chr_wake_wait(&c->writer_wake, ticket, DISK_FULL_RETRY_US);
}

/* Term and vote, before anything that was said after they changed (thesis 3.8). */
static bool write_hard_state(struct broker_committer *c)
{
    uint64_t wanted = atomic_load(&c->hard_wanted_now);
    if (wanted == atomic_load(&c->hard_saved))
        return false;
    pthread_mutex_lock(&c->core_lock);
    struct raft_hard_state state = c->hard_state;
    wanted = c->hard_wanted;
    pthread_mutex_unlock(&c->core_lock);
    chr_err err;
    while ((err = raft_log_set_hard_state(c->options.log, state)) != CHR_OK)
        wait_for_room(c, err);
    atomic_store(&c->disk_full, false);
    atomic_store(&c->hard_saved, wanted);
    chr_wake_signal(&c->replicator_wake);
    return true;
}

static void write_group(struct broker_committer *c, struct committer_group *g)
{
    size_t from = 0;
    chr_err truncated;
    while (g->truncate &&
           (truncated = raft_log_truncate_suffix(c->options.log, g->truncate_to)) != CHR_OK)
        wait_for_room(c, truncated);
    if (g->truncate && atomic_load(&c->synced_index) > g->truncate_to)
        publish_synced(c, g->truncate_to);
    if (g->count == 0)
        return;
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
    CHR_ASSERT(raft_log_last(c->options.log) == g->first_index + g->count - 1);
}

/* What peers still need is kept, within bounds: beyond those they get a snapshot. */
static uint64_t needed_by_peers(struct broker_committer *c, uint64_t cut)
{
    if (c->alone || raft_log_bytes(c->options.log) > c->options.log_retain_bytes)
        return cut;
    pthread_mutex_lock(&c->core_lock);
    if (c->raft.role == RAFT_LEADER)
        for (uint32_t i = 0; i < c->raft.peers_count; i++)
            if (c->raft.peers[i].member.id != c->raft.config.self)
                cut = CHR_MIN(cut, c->raft.peers[i].match);
    pthread_mutex_unlock(&c->core_lock);
    return cut;
}

static void cut_log(struct broker_committer *c)
{
    uint64_t cut = atomic_load(&c->cut_index);
    if (cut <= atomic_load(&c->cut_done))
        return;
    chr_err err = raft_log_cut_prefix(c->options.log, needed_by_peers(c, cut));
    if (err && err != CHR_ENOSPC)
        chr_log_warning("log", "can't drop old segments", CHR_KV_U("index", cut),
                        CHR_KV_C("error", chr_strerror(err)));
    atomic_store(&c->cut_done, cut);
    if (c->alone)
        return;
    pthread_mutex_lock(&c->core_lock);
    err = committer__step(c, (struct raft_event){.type = RAFT_EVENT_COMPACTED,
                                                 .index = raft_log_first(c->options.log) - 1});
    pthread_mutex_unlock(&c->core_lock);
    CHR_ASSERT(err == CHR_OK);
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
        atomic_store(&c->writing_since_us, chr_clock_mono_us(c->options.clock));
        /* In this order: what the core wanted saved before it handed the group over is seen. */
        struct committer_group *g = atomic_load(&c->to_write);
        worked |= write_hard_state(c);
        if (g) {
            write_group(c, g);
            if (!periodic)
                publish_synced(c, raft_log_last(c->options.log));
            /* The core takes note, and may then hand over the next one. */
            atomic_store(&c->to_write, NULL);
        }
        if (atomic_load_explicit(&c->stopping, memory_order_relaxed))
            chr_wake_signal(&c->wake); /* is this the end? */
        cut_log(c);
        bool room = !periodic || sync_periodic(c);
        atomic_store(&c->writing_since_us, 0);
        if (!c->alone && atomic_load(&c->writer_stop) && atomic_load(&c->to_write) == NULL)
            break; /* peers would go on sending for ever */
        if (g || worked)
            continue;
        uint32_t ticket = chr_wake_prepare(&c->writer_wake);
        if (committer__core_work_waits(c) || atomic_load(&c->to_write) != NULL ||
            atomic_load(&c->hard_wanted_now) > atomic_load(&c->hard_saved) ||
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
