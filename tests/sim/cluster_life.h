/* tests/sim/cluster_life.h: whole nodes of a cluster, in one thread: the shipped committer with its
 * four threads, consensus core, log, forwarding, reads, checkpoints, snapshots and database, on
 * false disks, stores, clocks and a false network.
 *
 * raft_cluster.h lives many short histories of core and log; this one lives fewer, of all that
 * stands between a proposal and its answer. Nothing of the broker is changed for it, not even its
 * threads: they run as coroutines, and what they wait for (wake-ups, locks, syncs, time) is the
 * simulator's, which decides who goes on, and when. So a lost wake-up, or two threads that meet in
 * an unlucky place, is found like a lost message. One seed is one history.
 *
 * What must hold, always:
 *   H1  one leader per term
 *   H2  what one node applied at an index is what all apply there, with the same result
 *   H3  a proposal is applied at most once; one that was answered is applied where its answer says,
 *       with the result its answer had
 *   H4  what one loop proposed is applied in that order (F1 to F3 of broker/forward.c)
 *   H5  a message of a QoS 2 session is stored at most once, whatever node it is sent to again;
 *       once, if it was answered (R5)
 *   H6  tables hold exactly the effect of the entries applied, also after a start: no row twice,
 *       none lost, none before or after its time by the replicated clock (R13)
 *   H7  databases at the same index are the same (db/digest.h)
 *   H8  reads are linearizable, and see what was acknowledged before they were asked (R19)
 *   H9  a checkpoint is not ahead of the durable log (D3)
 * and at the end, when everything is healed: a leader comes, every proposal is answered, all nodes
 * have everything, nothing is left to be forwarded. */
#ifndef CHR_TESTS_SIM_CLUSTER_LIFE_H
#define CHR_TESTS_SIM_CLUSTER_LIFE_H

#include <stdbool.h>
#include <stdint.h>

/* What goes wrong, by kinds, each of which can be left out of a history. */
enum cluster_life_fault {
    CLUSTER_LIFE_LOSS,     /* of small messages … */
    CLUSTER_LIFE_LATENESS, /* … which may also come late, or out of order … */
    CLUSTER_LIFE_DOUBLING, /* … or twice */
    CLUSTER_LIFE_BREAKS,   /* connections end, with all that is on its way */
    CLUSTER_LIFE_CUTS,     /* of links, each way by itself */
    CLUSTER_LIFE_CRASHES,  /* kill -9, or power, of one node */
    CLUSTER_LIFE_BLACKOUTS,
    CLUSTER_LIFE_STOPS,  /* a node is asked to stop, and does */
    CLUSTER_LIFE_PAUSES, /* a process stands still, and time goes on */
    CLUSTER_LIFE_SLOW_DISKS,
    CLUSTER_LIFE_FULL_DISKS,
    CLUSTER_LIFE_BAD_DISKS, /* writes and syncs fail */
    CLUSTER_LIFE_STORES,    /* commits of checkpoints fail, or power does meanwhile */
    CLUSTER_LIFE_CLOCKS,    /* wall clocks jump, some by an hour; clocks run at other rates */
    CLUSTER_LIFE_TRANSFERS,
    CLUSTER_LIFE_CHECKPOINTS, /* and logs that are cut */
    CLUSTER_LIFE_WIPES,
    CLUSTER_LIFE_CHANGES,  /* of members */
    CLUSTER_LIFE_STUMBLES, /* nodes are struck when it hurts (profiles.c) */
    CLUSTER_LIFE_FAULTS
};
extern const char *const cluster_life_fault_names[CLUSTER_LIFE_FAULTS];

struct cluster_life_options {
    uint64_t seed;
    uint32_t voters;     /* 1, 3 or 5; 0: by the seed */
    uint32_t ms;         /* how long until everything is healed; 0: by the seed */
    uint32_t without;    /* bit i: no fault of kind i */
    const char *profile; /* what it is nasty with (profiles.c); NULL: by the seed */
    bool verbose;        /* every event to stdout */
};

struct cluster_life_report {
    uint64_t turns; /* of a coroutine */
    uint64_t us;    /* of the history */
    uint64_t messages, lost, doubled, breaks, cuts;
    uint64_t starts, kills, power_cuts, stops, in_doubt, pauses, wipes, jumps;
    uint64_t elections, won, changes, transfers, snapshots, checkpoints, store_faults, full;
    uint64_t entries, forwarded, forwarded_again, repeated, gaps;
    uint64_t unsure, sure_after_all; /* a leader lost an entry of its own; and it was committed */
    uint64_t proposed, answered, closed, unanswered, refused; /* unanswered: their process died */
    uint64_t sessions, resent, expired;
    uint64_t reads, by_lease, registers, undecided;
    uint64_t digests, looks; /* at databases, at all rows */
    const char *profile;
    char broken[320]; /* what was; "" when nothing was */
};

/* False: something is broken. */
bool cluster_life_run(const struct cluster_life_options *options,
                      struct cluster_life_report *report);

#endif
