/* broker/committer.h: from proposals to committed, applied entries.
 *
 *     loop i ── ring i ──┐         ┌─▶ log writer ─┐ (write, fdatasync)
 *     SQL, HTTP, ticks ──┴─▶ core ─┤      ▲        └─▶ SAVED ─▶ core ─▶ apply ─▶ done()
 *     peers ───────────────▶       │      └ group n+1 waits for the sync of group n (L1)
 *                         raft_step└─▶ replicator ─▶ peers
 *
 * The log writer takes all waiting proposals as one group through the consensus core (raft/raft.h),
 * writes and syncs it while the next group gathers: group commit without a timer. The committer
 * does what falls due by time and never touches a disk. What is committed is applied in order, by
 * the applier or, when it is little, by the log writer; each proposal's done() is called then
 * ("applier" below means whoever applies). Nothing is answered from anywhere else.
 *
 * In a cluster of several, a node that does not lead forwards its proposals to the leader and
 * answers them when it has applied them itself. Each is applied once, whatever happens to leaders
 * and messages (R18): forwarded entries bear a number that is checked at apply; entries that we
 * proposed while we led, and that our log lost, are proposed again only when it is known that they
 * were not committed. Proposals of one loop keep their order throughout.
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
#include "raft/members.h"

struct peers; /* bridge/peers.h */
struct peers_message;

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

/* A node's place in a cluster of several. */
struct broker_cluster {
    uint64_t self;        /* node number; not 0 */
    uint64_t incarnation; /* of the data directory (R20) */
    uint64_t boot;        /* of this process; rises with each start (R18) */
    struct peers *peers;  /* borrowed; started already */
    /* Who belonged to it as of entry members_index: the founders (0), or what the last applied
     * change said. count 0: not known yet (broker_committer_found, or a leader's append tells). */
    struct raft_members members;
    uint64_t members_index;
    bool lost_tail; /* entries that were acknowledged may be lost (raft/raft.h) */
    int64_t election_min_us, election_max_us, heartbeat_us; /* 0: the core's defaults */
    void *ctx;
    /* Applier, before an entry that changes the members counts as applied: to be remembered
     * durably. */
    void (*members_applied)(void *ctx, uint64_t index, uint64_t term,
                            const struct raft_members *members);
    /* Under the core's lock, must not block: another term, leader or role. */
    void (*leader_changed)(void *ctx, uint64_t term, uint64_t leader);
    /* Under the core's lock, must not block: a peer needs a snapshot, and none is on its way. */
    void (*snapshot_wanted)(void *ctx, uint64_t node);
};

struct broker_committer_options {
    const struct broker_cluster *cluster; /* copied; NULL: a cluster of one */
    raft_log *log;                 /* borrowed; only the committer's threads touch it from now on */
    db *db;                        /* borrowed; db_apply is the applier's from now on */
    const struct chr_clock *clock; /* borrowed */
    uint32_t loops;                /* number of rings */
    uint32_t batches_per_loop;     /* capacity of a ring */
    uint64_t group_bytes_max;      /* 8 MiB */
    uint64_t log_retain_bytes;     /* kept for peers that are behind; beyond it: a snapshot */
    enum raft_fsync fsync;
    /* Called on the applier after each group; must not block. May be NULL. */
    void (*applied)(void *ctx);
    void *applied_ctx;
    /* Called on the applier after the done() of an entry that put something into queues of sessions
     * or made wills due, or took a session from its node (db_apply_result.woken, wills, lost); must
     * not block. May be NULL. */
    void (*woken)(void *ctx, const struct db_apply_result *result);
    void *woken_ctx;
    /* Called on the applier after each entry was applied, whoever proposed it, with its bytes
     * (operations only); must not block. ours: proposed by this process, which has its done()
     * already; then without the bytes. May be NULL. */
    void (*entry_applied)(void *ctx, uint64_t index, chr_slice operations, bool ours,
                          const struct db_apply_result *result);
    void *entry_applied_ctx;
    const struct raft_log_recovery *recovery; /* what raft_log_open found; borrowed until return */
};

/* Replays log entries above db_apply_index() into db, then starts the three threads. */
CHR_MUST_USE chr_err broker_committer_start(const struct broker_committer_options *options,
                                            broker_committer **out, struct chr_errmsg *msg);
/* The node is about to stop: what was accepted is to come through whatever the hot limit says. When
 * the disk has no room for it, that is waited for a few seconds more; then the process ends with
 * an error, having acknowledged nothing of it. Any thread. */
void broker_committer_hurry(broker_committer *committer);
/* A member that stops has waited long enough for others to answer what it accepted. Any thread. */
bool broker_committer_given_up(const broker_committer *committer);
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

/* How long a statement waits, in a cluster, for a leader to say what it has to see, or for the
 * outcome of a write. */
#define BROKER_ANSWER_TIMEOUT_MS 10000u

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
/* Any thread: a checkpoint has ended: look again whether rows were sealed. room: false: there was
 * none on the disk. */
void broker_committer_unblock(broker_committer *committer, bool room);

/* -- In a cluster -------------------------------------------------------------------------------*/

/* Lane threads: a message of kind RAFT, APPEND, FORWARD or FORWARDED, which is the committer's from
 * now on. */
void broker_committer_received(broker_committer *committer, struct peers_message *message);
/* Lane threads: a lane came up, or has room again. */
void broker_committer_lane(broker_committer *committer);
/* A cluster was formed, or the one found that we belong to (R20): these are its founders. Once, by
 * a node that had none, before it has heard of any entry; else CHR_EEXIST. */
CHR_MUST_USE chr_err broker_committer_found(broker_committer *committer,
                                            const struct raft_members *founders);
/* Blocks until this node has applied all that was acknowledged anywhere before the call (R19): by
 * lease, by read index, or by asking the leader. CHR_ETIMEDOUT: no leader could be asked in
 * time_out_ms. At once in a cluster of one. */
CHR_MUST_USE chr_err broker_committer_read_barrier(broker_committer *committer,
                                                   uint32_t timeout_ms);
/* Leader only: as the raft events of these names (raft/raft.h has the errors). A change is only
 * begun: it is done when broker_committer_status says so. */
CHR_MUST_USE chr_err broker_committer_change(broker_committer *committer, int change,
                                             struct raft_member member);
CHR_MUST_USE chr_err broker_committer_transfer(broker_committer *committer, uint64_t node);
/* The sender of a snapshot tells the core. */
void broker_committer_snapshot_started(broker_committer *committer, uint64_t node, uint64_t index);
void broker_committer_snapshot_sent(broker_committer *committer, uint64_t node, bool ok);

struct broker_peer_status {
    struct raft_member member;
    uint64_t match, next;
    int state;            /* enum raft_peer_state; leader's view */
    int64_t heard_us_ago; /* INT64_MAX: never; leader's view */
};
struct broker_cluster_status {
    int role; /* enum raft_role */
    uint64_t term, leader, commit_index, apply_index, last_index, first_index;
    bool change_pending, quorum; /* quorum: leader: it has a lease; else: it hears a leader */
    bool catching_up;            /* it may have lost entries, and votes for nobody until then */
    struct broker_peer_status peers[RAFT_MEMBERS_MAX];
    uint32_t peers_count;
};
void broker_committer_status(broker_committer *committer, struct broker_cluster_status *out);
/* 0: none known. One atomic load. */
uint64_t broker_committer_leader(const broker_committer *committer);

/* How long a leader's groups took from the proposal of their first entry, which may be one that was
 * forwarded, to their commit: bucket i counts those up to broker_commit_bounds_us[i], the last one
 * all others. */
#define BROKER_COMMIT_BUCKETS 12
extern const uint64_t broker_commit_bounds_us[BROKER_COMMIT_BUCKETS];

struct broker_committer_stats {
    uint64_t groups, entries, entries_applied;
    bool leader, disk_full, hot_full;
    bool disk_hangs; /* the log has waited for an answer of the disk for a second */
    uint64_t term, elections, elections_won, forwarded, forwarded_again;
    uint64_t reads_lease, reads_round, reads_asked;
    uint64_t commit_us_total, commit_counts[BROKER_COMMIT_BUCKETS + 1];
    struct raft_log_stats log;
};
void broker_committer_stats(broker_committer *committer, struct broker_committer_stats *out);

#endif
