/* broker/committer_internal.h: what the threads of the committer share.
 *
 * A group is a run of consecutive entries that is written and synced as one. It passes from hand to
 * hand and has one owner at a time:
 *
 *     free ─▶ gathering ─▶ writing ─log writer synced─▶ waiting ─committed─▶ to be applied ─▶ free
 *             (core)       (log writer)                  (core)               (applier)
 *
 * Only one group is being written (L1); others may wait to be committed and applied. What a leader
 * proposes and what a follower is told to append go the same way.
 *
 * Two duties are not tied to a thread, because each hand-over to a sleeping one costs as much as a
 * good part of an fdatasync:
 *
 *   the core   (core_lock)   raft_step, gathering a group, passing on what is committed. Taken by
 *                            the log writer right before and after it writes, by the committer for
 *                            what falls due by time, and by the lanes' threads for what peers say.
 *                            Never held across a call to the disk, so a slow disk stops no
 *                            heartbeat.
 *   applying   (apply_lock)  db_apply and done(), in order. The applier's; the log writer does it
 *                            for a few small entries when nobody else is at it.
 *
 * Lock order: core_lock before submit_lock, inbox_lock, groups_lock, forward.lock; never core_lock
 * and apply_lock together. The rings between them have one producer and one consumer at a time, who
 * hold the lock of their side.
 *
 *     committer.c        start, stop, what is proposed; the thread for what falls due
 *     committer_core.c   a turn of the core: events in, effects carried out
 *     committer_groups.c groups: gathered, handed over, contradicted, let go
 *     log_writer.c       the thread that writes and syncs
 *     applier.c          the thread that applies; the replay at start
 *     replicator.c       the thread that sends a leader's entries to its peers
 *     forward.c          entries of a node that does not lead (R18); what became of those of a node
 *                        that leads no more
 *     read_index.c       linearizable reads (R19) */
#ifndef CHR_BROKER_COMMITTER_INTERNAL_H
#define CHR_BROKER_COMMITTER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/random.h"
#include "base/ring.h"
#include "base/wake.h"
#include "bridge/peers.h"
#include "broker/committer.h"
#include "raft/raft.h"

/* Groups on their way. One gathers, one is written, the rest wait for a majority or the applier. */
#define COMMITTER_GROUPS 16
/* Entries of a group; a loop's batches are large, so this bounds small SQL writes only. */
#define COMMITTER_GROUP_ENTRIES 1024
/* Of these, kept for entries of the core's own: no-ops, changes of members. */
#define COMMITTER_OWN_ENTRIES 8
/* Proposals of workers that wait to be gathered; beyond it they are refused with CHR_EFULL. */
#define COMMITTER_SUBMITTED_MAX 65536
/* Messages that wait for term and vote to be durable. Beyond it they are lost, which Raft allows.
 */
#define COMMITTER_HELD_MAX 64
/* An append carries about so much, or one entry. */
#define COMMITTER_APPEND_BYTES (1u << 20)

struct committer_owned; /* bytes of an entry that nobody else keeps */

struct committer_group {
    struct broker_proposal *proposals[COMMITTER_GROUP_ENTRIES]; /* NULL: nobody here waits for it */
    struct raft_entry entries[COMMITTER_GROUP_ENTRIES];
    uint32_t count;
    uint32_t keep;                  /* entries that have not been contradicted: the first so many */
    uint64_t bytes;                 /* of the entries */
    uint64_t first_index;           /* of entries[0] */
    uint64_t save_sequence;         /* the core's number of it */
    bool own;                       /* some entry was proposed here … */
    int64_t proposed_us;            /* … the first of them then; the core's clock */
    bool truncate;                  /* before its entries are appended … */
    uint64_t truncate_to;           /* … the log loses those above this one */
    struct peers_message *messages; /* whose bytes entries borrow; by next */
    struct committer_owned *owned;
    struct committer_group *next_free;
};

/* ---- Forwarding (forward.c) --------------------------------------------------------------------
 */

#define FORWARD_SLOTS     4096u /* a power of two */
#define FORWARD_BYTES_MAX (8u << 20)

struct forward_slot {
    struct broker_proposal *proposal; /* NULL: answered */
};

/* An entry of ours at (index, term), proposed when we led, and then taken out of our log. */
struct forward_unsure {
    struct broker_proposal *proposal;
    uint64_t index, term;
    bool lost; /* known not to be committed */
};

/* What a leader has taken from a node in this term. */
struct forward_origin {
    uint64_t node, boot, term, next;
};

struct forward {
    pthread_mutex_t lock; /* all below but origins and taken, which are core_lock's */
    struct forward_slot slots[FORWARD_SLOTS]; /* of sequence s: s & (FORWARD_SLOTS - 1) */
    uint64_t first, sent, next; /* not applied yet; to be sent next; to be given next */
    uint64_t bytes;             /* of [first, next) */
    uint32_t next_source;       /* a loop, or the workers: who is looked at next; core_lock */
    int64_t progress_us;        /* when first or sent last moved */
    uint64_t sent_term;         /* in which [first, sent) were sent */
    bool full;             /* the lane takes nothing now; a hint that is looked at again soon */
    struct chr_list again; /* proposals known not to be committed: to be proposed again */
    struct forward_unsure *unsure;
    uint32_t unsure_count, unsure_capacity;
    struct forward_origin origins[PEERS_MAX];
    uint32_t origins_count;
    struct peers_message *taken, *taken_last; /* leader: entries of others, to be gathered */
};

/* ---- Reads (read_index.c) ----------------------------------------------------------------------
 */

enum read_state { READ_WAITS_ROUND, READ_ASKED, READ_NO_LEADER, READ_KNOWN };

struct read_waiter {
    struct chr_list link;           /* committer.readers; core_lock */
    _Atomic(enum read_state) state; /* its reader looks without core_lock; set after index */
    uint64_t round, number, index;
    int64_t asked_us;
};

/* ---- All of it --------------------------------------------------------------------------------
 */

struct broker_committer {
    struct broker_committer_options options;
    struct broker_cluster cluster; /* options.cluster; zeros: a cluster of one */
    bool alone;
    uint64_t origin;                /* of what this node forwards (R18): the node with this disk */
    struct committer_group *groups; /* [COMMITTER_GROUPS] */

    /* Proposers → core */
    struct chr_ring *rings; /* [options.loops] */
    pthread_mutex_t submit_lock;
    struct chr_list submitted;
    uint32_t submitted_count;
    struct chr_wake wake;            /* the committer sleeps on it, until something falls due */
    _Atomic int64_t sleeps_until_us; /* wall; an earlier due time wakes it. INT64_MIN: awake */
    _Atomic int64_t sleeps_until_mono_us; /* the same for the core's clock */
    _Atomic bool stopping;
    _Atomic int64_t
        give_up_us; /* mono; a full disk is waited out until then. 0: as long as it takes */
    bool closed;    /* submit_lock; no more proposals */

    /* Peers → core */
    pthread_mutex_t inbox_lock;
    struct peers_message *inbox, *inbox_last; /* appends and forwarded entries, in order */

    /* The core: under core_lock, once the threads run */
    pthread_mutex_t core_lock;
    struct raft raft;
    struct raft_effects effects; /* of the last step; large */
    struct chr_random random;
    struct committer_group *gathering;                 /* never NULL */
    struct committer_group *waiting[COMMITTER_GROUPS]; /* handed to the writer, not yet committed */
    uint32_t waiting_count;
    struct committer_group *writing; /* what was handed to the writer last; NULL: taken back */
    uint32_t next_loop;              /* whose ring is looked at next */
    struct raft_hard_state hard_state;
    uint64_t hard_wanted; /* versions of it; hard_saved follows */
    struct raft_message held[COMMITTER_HELD_MAX];
    uint32_t held_count;
    struct raft_entry *inbox_entries; /* [COMMITTER_GROUP_ENTRIES]; a message's, decoded */
    int64_t transfer_until_us;        /* for so long it waits for the other to lead */
    bool transferring;                /* a stop handed leadership over */
    int64_t stuck_since_us; /* committer thread: since when a leader has no room; 0: it has */
    struct chr_list readers;
    uint64_t read_number;
    bool ended;                      /* a member has stopped: no turn does anything any more */
    bool turn_again;                 /* an effect made another turn worth while */
    uint64_t leader_seen, term_seen; /* for the log line */
    bool newer_logged;               /* entries of an unknown format came */

    pthread_mutex_t groups_lock;
    struct committer_group *free_groups;
    _Atomic uint32_t free_count;

    /* Published by the core. Any thread. */
    _Atomic uint64_t term, leader, commit_index, last_index;
    _Atomic int role;
    _Atomic int64_t lease_until_us, raft_due_us;

    /* Core → log writer: one group at a time */
    _Atomic(struct committer_group *) to_write;
    struct chr_wake writer_wake;      /* the log writer sleeps on it; proposers signal it */
    _Atomic uint64_t hard_saved;      /* version */
    _Atomic uint64_t hard_wanted_now; /* hard_wanted, for a look without the lock */
    _Atomic uint64_t cut_index;       /* anyone → log writer */
    _Atomic uint64_t cut_done;
    _Atomic bool force_sync; /* wait_synced in periodic mode */
    _Atomic bool disk_full;
    _Atomic bool no_room;             /* for the last checkpoint */
    _Atomic int64_t writing_since_us; /* mono: the log writer has been at its disk since; 0: not */
    _Atomic bool writer_stop;
    _Atomic uint64_t synced_index; /* durable, what wait_synced waits for */
    pthread_mutex_t synced_lock;
    pthread_cond_t synced_cond;

    /* Core → applying */
    struct chr_ring to_apply;
    _Atomic uint64_t to_apply_bytes; /* of the groups in it */
    _Atomic uint64_t apply_limit;    /* committed, and either in to_apply or only in the log */
    pthread_mutex_t apply_lock;
    struct committer_group *applying; /* apply_lock: taken from to_apply, its turn has not come */
    struct replay *replay;            /* apply_lock; applier.c: reads the log */
    uint64_t applied_term;            /* apply_lock: of the last entry applied; 0: not known */
    struct chr_wake applier_wake;
    _Atomic bool applier_stop;
    pthread_mutex_t applied_lock; /* readers wait for db_apply_index */
    pthread_cond_t applied_cond;
    _Atomic uint32_t applied_waiters;

    struct forward forward;
    struct chr_wake replicator_wake;
    _Atomic bool replicator_stop;
    _Atomic uint64_t blocked;   /* replicator: bit of the peer slot whose lane takes nothing now */
    _Atomic uint64_t lane_news; /* counts broker_committer_lane */
    int64_t log_warned_us;      /* replicator's */

    pthread_t committer_thread, writer_thread, applier_thread, replicator_thread;
    bool committer_running, writer_running, applier_running, replicator_running;

    _Atomic uint64_t groups_count, entries_count, entries_applied;
    _Atomic uint64_t elections, elections_won, forwarded, forwarded_again, reads_lease, reads_round,
        reads_asked;
    _Atomic uint64_t commit_us_total, commit_counts[BROKER_COMMIT_BUCKETS + 1];
    _Atomic bool hot_full;
};

void *committer__writer_main(void *arg);     /* log_writer.c */
void *committer__applier_main(void *arg);    /* applier.c */
void *committer__replicator_main(void *arg); /* replicator.c */

/* ---- committer_core.c --------------------------------------------------------------------------
 */

/* core_lock. A step, and its effects carried out. now, wall and random are filled in here. */
chr_err committer__step(struct broker_committer *c, struct raft_event event);
/* The core's turn: takes what the log has saved and what peers sent, passes on what is committed,
 * gathers the next group when the log writer is free. False: there was nothing to do. */
bool committer__core_turn(struct broker_committer *c);
/* Could a turn do anything now? For the log writer, between prepare and wait. */
bool committer__core_work_waits(struct broker_committer *c);
/* Whoever took a turn, other than the log writer: wakes those whom it left something to do. */
void committer__wake_others(struct broker_committer *c);
/* core_lock. More is on its way than may be: nothing new is taken until rows are sealed. */
bool committer__held_by_hot_limit(struct broker_committer *c);
bool committer__tick_due(struct broker_committer *c);
/* core_lock. Starts with what the disk holds. */
CHR_MUST_USE chr_err committer__core_init(struct broker_committer *c, struct chr_errmsg *msg);

/* ---- committer_groups.c ------------------------------------------------------------------------
 */

CHR_MUST_USE chr_err committer__groups_init(struct broker_committer *c);
void committer__groups_free(struct broker_committer *c);
/* Any thread. Whatever it borrowed goes back. */
void committer__group_release(struct broker_committer *c, struct committer_group *g);
/* core_lock, all of these. */
bool committer__gather(struct broker_committer *c);
/* Room for another proposal, when there are so many bytes? */
bool committer__group_gathers(const struct broker_committer *c, const struct committer_group *g,
                              size_t bytes);
/* p: who waits for it; NULL: nobody here. *bytes: of the group, rises. */
void committer__group_add(struct committer_group *g, struct broker_proposal *p,
                          enum raft_entry_type type, chr_slice entry, size_t *bytes);
bool committer__hand_over(struct broker_committer *c);
bool committer__can_hand_over(const struct broker_committer *c);
bool committer__may_gather(const struct broker_committer *c);
/* Written entries that wait for a majority are let go beyond some MiB of peers' messages. */
void committer__groups_relieve(struct broker_committer *c);
/* Entries that the core wants saved: to the gathering group. message: whose bytes they borrow, kept
 * until they are applied (NULL: they are copied). */
void committer__group_save(struct broker_committer *c, const struct raft_entry *entries,
                           size_t count, uint64_t sequence, struct peers_message *message);
/* Room for so many entries of a message? */
bool committer__group_room(const struct broker_committer *c, size_t count);
void committer__groups_truncate(struct broker_committer *c, uint64_t index);
void committer__pass_committed(struct broker_committer *c, uint64_t commit_index);
/* The entry, when it is in memory. */
const struct raft_entry *committer__entry_at(const struct broker_committer *c, uint64_t index);
/* The group that the log writer has written. */
void committer__group_written(struct broker_committer *c, struct committer_group *g);
bool committer__proposals_wait(struct broker_committer *c);
/* So many bytes that live as long as what is in the group; ptr NULL: no memory. */
chr_slice committer__group_own(struct committer_group *g, size_t bytes);
CHR_INLINE uint64_t committer__last_kept(const struct committer_group *g)
{
    return g->first_index + g->keep - 1;
}

/* ---- applier.c ---------------------------------------------------------------------------------
 */

/* What is committed is applied: by the caller, the log writer, when it is little and nobody else is
 * at it, else by the applier, who is woken. */
void committer__apply_or_wake(struct broker_committer *c);
bool committer__apply_waits(struct broker_committer *c);
/* Applies log entries above db_apply_index() up to commit_index. */
chr_err committer__replay(struct broker_committer *c, uint64_t commit_index,
                          struct chr_errmsg *msg);
void committer__replay_free(struct replay *replay);

/* ---- forward.c ---------------------------------------------------------------------------------
 */

void committer__forward_init(struct broker_committer *c);
void committer__forward_free(struct broker_committer *c);
/* core_lock. Proposals of rings and workers are numbered for forwarding. Not while it is unknown
 * what became of earlier ones. False: there was nothing to take. */
bool committer__forward_take(struct broker_committer *c);
/* core_lock. A leader: what is to be proposed before anything new, in order, goes to the gathering
 * group: entries of ours that another leader was sent. False: all are in. */
bool committer__forward_gather_own(struct broker_committer *c, struct committer_group *g,
                                   size_t *bytes);
/* core_lock. A leader: entries that others forwarded. */
void committer__forward_gather_taken(struct broker_committer *c, struct committer_group *g,
                                     size_t *bytes);
/* core_lock. A message of the inbox; keeps or releases it. */
void committer__forward_received(struct broker_committer *c, struct peers_message *message);
/* core_lock. A leader tells us what it expects. */
void committer__forward_reply(struct broker_committer *c, const struct peers_message *message);
/* core_lock. An entry of ours is not in our log any more, or its group went unsaved. */
void committer__forward_unsure(struct broker_committer *c, struct broker_proposal *proposal,
                               uint64_t index, uint64_t term);
/* apply_lock. An entry was applied: whoever waits for it here is answered; true: somebody was.
 * origin: NULL unless it was forwarded. */
bool committer__forward_applied(struct broker_committer *c, const struct raft_entry *entry,
                                const struct db_origin *origin,
                                const struct db_apply_result *result);
/* Replicator: sends what is due to the leader. False: nothing could be sent. */
bool committer__forward_send(struct broker_committer *c);
/* core_lock. Nothing of ours is unanswered. */
bool committer__forward_idle(struct broker_committer *c);
/* After the threads have ended. */
void committer__forward_abandon(struct broker_committer *c);
bool committer__forward_waits(struct broker_committer *c);
/* core_lock. F3: nothing new may be proposed now. */
bool committer__forward_holds(struct broker_committer *c);
/* core_lock. What was gathered to be proposed was not: it is taken and sent again. */
void committer__forward_refused(struct broker_committer *c);
/* Replicator: could committer__forward_send do anything? */
bool committer__forward_sendable(struct broker_committer *c);
void committer__forward_look_again(struct broker_committer *c);

/* ---- read_index.c ------------------------------------------------------------------------------
 */

/* core_lock. After each step. */
void committer__reads_step(struct broker_committer *c);
/* core_lock. Those that were not answered, or had no leader to ask, are asked again when it is
 * time.
 */
void committer__reads_again(struct broker_committer *c);

#endif
