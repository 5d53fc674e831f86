/* broker/committer.h: from proposals to committed, applied entries.
 *
 *     loop i ── ring i ──┐         ┌─▶ log writer ─┐ (write, fdatasync)
 *     SQL, HTTP, ticks ──┴─▶ core ─┘      ▲        └─▶ SAVED ─▶ core ─▶ apply ─▶ done()
 *                         raft_step       └ group n+1 waits for the sync of group n (L1)
 *
 * Three threads. The log writer takes all waiting proposals as one group through the consensus core
 * (raft/raft.h), writes and syncs it while the next group gathers: group commit without a timer.
 * The committer does what falls due by time and never touches a disk. What is committed is applied
 * in order, by the applier or, when it is little, by the log writer; each proposal's done() is
 * called then ("applier" below means whoever applies). Nothing is answered from anywhere else.
 *
 * Backpressure: while db_hot_full() the committer takes nothing more; while the disk is full the
 * log writer waits for room and new proposals of workers are refused with CHR_ENOSPC. After a
 * failed sync (CHR_EDOUBT, R16) nothing is acknowledged any more and the process ends with an
 * error, so that a restart reopens and replays the log. */
#ifndef CHR_BROKER_COMMITTER_H
#define CHR_BROKER_COMMITTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/hlc.h"
#include "base/list.h"
#include "base/slice.h"
#include "db/db.h"
#include "raft/log.h"

typedef struct broker_committer broker_committer;

/* One entry on its way. Embedded in whatever waits for it (a batch, an SQL write). */
struct broker_proposal {
    chr_slice bytes;           /* owned by the proposer, unchanged until done() */
    enum raft_entry_type type; /* RAFT_ENTRY_DATA, or _TICK */
    uint64_t index;            /* set by the committer */
    chr_hlc hlc;               /* set by the committer */
    /* Called once: by the applier after the entry was applied (err 0; result as db_apply gave it,
     * valid during the call), or by the committer when it can't be (CHR_ECLOSED at shutdown,
     * CHR_EBUSY not leader; result NULL: nothing happened). Must not block. */
    void (*done)(struct broker_proposal *proposal, chr_err err,
                 const struct db_apply_result *result);
    struct chr_list link; /* committer's */
};

struct broker_committer_options {
    raft_log *log;                 /* borrowed; only the committer's threads touch it from now on */
    db *db;                        /* borrowed; db_apply is the applier's from now on */
    const struct chr_clock *clock; /* borrowed */
    uint32_t loops;                /* number of rings */
    uint32_t batches_per_loop;     /* capacity of a ring */
    uint64_t group_bytes_max;      /* 8 MiB */
    enum raft_fsync fsync;
    /* Called on the applier after each group; must not block. May be NULL. */
    void (*applied)(void *ctx);
    void *applied_ctx;
    /* Called on the applier after the done() of an entry that put something into queues of sessions
     * or made wills due (db_apply_result.woken, wills); must not block. May be NULL. */
    void (*woken)(void *ctx, const struct db_apply_result *result);
    void *woken_ctx;
    const struct raft_log_recovery *recovery; /* what raft_log_open found; borrowed until return */
};

/* Replays log entries above db_apply_index() into db, then starts the three threads. */
CHR_MUST_USE chr_err broker_committer_start(const struct broker_committer_options *options,
                                            broker_committer **out, struct chr_errmsg *msg);
/* The node is about to stop: what was accepted is to come through whatever the hot limit says. When
 * the disk has no room for it, that is waited for a few seconds more; then the process ends with
 * an error, having acknowledged nothing of it. Any thread. */
void broker_committer_hurry(broker_committer *committer);
/* Finishes what was proposed (done() is called for all), stops the threads. */
void broker_committer_stop(broker_committer *committer);
void broker_committer_free(broker_committer *committer);

/* Loop i's thread only; a loop proposes at most batches_per_loop at a time, so there is room. Call
 * broker_committer_kick after the last one of a turn. */
void broker_propose_from_loop(broker_committer *committer, uint32_t loop,
                              struct broker_proposal *proposal);
void broker_committer_kick(broker_committer *committer);
/* Any other thread. CHR_ENOSPC: the disk is full; CHR_ECLOSED: stopping (done() is not called). */
CHR_MUST_USE chr_err broker_propose(broker_committer *committer, struct broker_proposal *proposal);

/* A proposal that its caller waits for: blocks until applied; returns the entry's err and fills
 * *result by calling copy(arg, result) on the applier thread. CHR_ETIMEDOUT after timeout_ms (0:
 * for ever): the outcome is unknown (08007). */
CHR_MUST_USE chr_err
broker_propose_wait(broker_committer *committer, chr_slice bytes, uint32_t timeout_ms,
                    void (*copy)(void *arg, const struct db_apply_result *result), void *arg);

/* Any thread: the log may drop entries up to index (after a checkpoint). */
void broker_committer_cut(broker_committer *committer, uint64_t index);
/* Any thread: blocks until the log is durable up to index (D3). CHR_ECLOSED at shutdown. */
chr_err broker_committer_wait_synced(broker_committer *committer, uint64_t index);
/* Any thread: hot rows were sealed: look again. */
void broker_committer_unblock(broker_committer *committer);

struct broker_committer_stats {
    uint64_t groups, entries, entries_applied;
    bool leader, disk_full, hot_full;
    uint64_t term;
    struct raft_log_stats log;
};
void broker_committer_stats(broker_committer *committer, struct broker_committer_stats *out);

#endif
