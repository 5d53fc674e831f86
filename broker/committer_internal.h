/* broker/committer_internal.h: what the three threads of the committer share.
 *
 * A group is a run of consecutive entries that is written and synced as one. It passes from hand to
 * hand and has one owner at a time:
 *
 *     free ─core gathers─▶ writing ─log writer synced─▶ saved ─core─▶ to be applied ─▶ free
 *
 * Only one group is being written (L1); others may wait to be applied.
 *
 * Two duties are not tied to a thread, because each hand-over to a sleeping one costs as much as a
 * good part of an fdatasync:
 *
 *   the core   (core_lock)   raft_step, gathering a group, passing on what is committed. Taken by
 *                            the log writer right before and after it writes, and by the committer
 *                            for what falls due by time. Never held across a call to the disk, so
 *                            a slow disk stops no heartbeat.
 *   applying   (apply_lock)  db_apply and done(), in order. The applier's; the log writer does it
 *                            for a few small entries when nobody else is at it.
 *
 * Lock order: neither is taken while the other is held. The rings between them have one producer
 * and one consumer at a time, who hold the lock of their side. */
#ifndef CHR_BROKER_COMMITTER_INTERNAL_H
#define CHR_BROKER_COMMITTER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/random.h"
#include "base/ring.h"
#include "base/wake.h"
#include "broker/committer.h"
#include "raft/raft.h"

/* Groups on their way. One gathers, one is written, the rest queue before the applier. */
#define COMMITTER_GROUPS 8
/* Entries of a group; a loop's batches are large, so this bounds small SQL writes only. */
#define COMMITTER_GROUP_ENTRIES 1024
/* Proposals of workers that wait to be gathered; beyond it they are refused with CHR_EFULL. */
#define COMMITTER_SUBMITTED_MAX 65536

struct committer_group {
    struct broker_proposal *proposals[COMMITTER_GROUP_ENTRIES]; /* NULL: a tick of our own */
    struct raft_entry entries[COMMITTER_GROUP_ENTRIES];
    uint32_t count;
    uint64_t bytes; /* of the entries */
    uint64_t last_index;
    uint64_t save_sequence; /* the core's number of it */
};

struct broker_committer {
    struct broker_committer_options options;
    struct committer_group groups[COMMITTER_GROUPS];

    /* Proposers → committer */
    struct chr_ring *rings; /* [options.loops] */
    pthread_mutex_t submit_lock;
    struct chr_list submitted;
    uint32_t submitted_count;
    struct chr_wake wake;            /* the committer sleeps on it, until something falls due */
    _Atomic int64_t sleeps_until_us; /* wall; an earlier due time wakes it. INT64_MIN: awake */
    _Atomic bool stopping;
    _Atomic int64_t
        give_up_us; /* mono; a full disk is waited out until then. 0: as long as it takes */
    bool closed;    /* submit_lock; no more proposals */

    /* The core: under core_lock, once the threads run */
    pthread_mutex_t core_lock;
    struct raft raft;
    struct raft_effects effects; /* of the last step; large */
    struct chr_random random;
    struct committer_group *waiting[COMMITTER_GROUPS]; /* handed to the writer, not yet committed */
    uint32_t waiting_count;
    struct chr_ring free_groups;       /* applying → core */
    struct committer_group *gathering; /* taken from free_groups, still empty; NULL: none */
    uint32_t next_loop;                /* whose ring is looked at next */

    /* Core → log writer: one group at a time */
    _Atomic(struct committer_group *) to_write;
    struct chr_wake writer_wake;     /* the log writer sleeps on it; proposers signal it */
    _Atomic uint64_t saved_sequence; /* log writer → core: stored before … */
    _Atomic uint64_t saved_index;    /* … this */
    _Atomic uint64_t cut_index;      /* anyone → log writer */
    _Atomic uint64_t cut_done;
    _Atomic bool force_sync; /* wait_synced in periodic mode */
    _Atomic bool disk_full;
    _Atomic bool writer_stop;
    _Atomic uint64_t synced_index; /* durable, what wait_synced waits for */
    pthread_mutex_t synced_lock;
    pthread_cond_t synced_cond;

    /* Core → applying */
    struct chr_ring to_apply;
    _Atomic uint64_t to_apply_bytes; /* of the groups in it */
    pthread_mutex_t apply_lock;
    struct chr_wake applier_wake;
    _Atomic bool applier_stop;

    pthread_t committer_thread, writer_thread, applier_thread;
    bool committer_running, writer_running, applier_running;

    _Atomic uint64_t groups_count, entries_count, entries_applied;
    _Atomic bool hot_full;
};

void *committer__writer_main(void *arg);  /* log_writer.c */
void *committer__applier_main(void *arg); /* applier.c */

/* The core's turn: takes what the log has saved, passes on what is committed, gathers the next
 * group when the log writer is free. Committer or log writer. False: there was nothing to do. */
bool committer__core_turn(struct broker_committer *committer);
/* Could a turn do anything now? */
bool committer__core_work_waits(struct broker_committer *committer);
/* What is committed is applied: by the caller, the log writer, when it is little and nobody else is
 * at it, else by the applier, who is woken. */
void committer__apply_or_wake(struct broker_committer *committer);
/* Applies log entries above db_apply_index() up to commit_index. applier.c */
chr_err committer__replay(struct broker_committer *committer, uint64_t commit_index,
                          struct chr_errmsg *msg);

#endif
