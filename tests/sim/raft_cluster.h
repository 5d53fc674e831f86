/* tests/sim/raft_cluster.h: a whole cluster of the shipped consensus core and log, in one thread,
 * on false disks, a false network and false clocks. The state machine is a chain of hashes.
 *
 * One seed is one history. Checked at every step: one leader per term, what one node applied at an
 * index is what all apply there, a new leader has all that was ever applied, logs that agree at an
 * entry agree before it, acknowledged proposals are applied once, reads see what was acknowledged
 * before they were asked. At the end everything is healed, and a leader must come, and all nodes
 * must catch up. */
#ifndef CHR_TESTS_SIM_RAFT_CLUSTER_H
#define CHR_TESTS_SIM_RAFT_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

enum raft_cluster_plant {
    RAFT_CLUSTER_SOUND,
    RAFT_CLUSTER_SKIP_SYNC,         /* disks lie about their syncs */
    RAFT_CLUSTER_FORGET_HARD_STATE, /* term and vote are not saved */
    RAFT_CLUSTER_ACKNOWLEDGE_EARLY, /* saves are reported before they are made */
    RAFT_CLUSTER_WIPED_VOTES,       /* a wiped disk keeps its incarnation (R20) */
    RAFT_CLUSTER_NO_LEASE,          /* whoever thinks it leads answers reads at once (R19) */
};

/* What goes wrong, by kinds, each of which can be left out of a history. */
enum raft_cluster_fault {
    RAFT_CLUSTER_LOSS,      /* messages are lost … */
    RAFT_CLUSTER_LATENESS,  /* … late … */
    RAFT_CLUSTER_DOUBLING,  /* … come twice */
    RAFT_CLUSTER_CUTS,      /* of links */
    RAFT_CLUSTER_CRASHES,   /* of one node */
    RAFT_CLUSTER_BLACKOUTS, /* of all */
    RAFT_CLUSTER_PAUSES,    /* a process stands still */
    RAFT_CLUSTER_SLOW_DISKS,
    RAFT_CLUSTER_WALL_CLOCKS, /* jump */
    RAFT_CLUSTER_TRANSFERS,   /* of leadership */
    RAFT_CLUSTER_WIPES,       /* of disks */
    RAFT_CLUSTER_CHANGES,     /* of members */
    RAFT_CLUSTER_COMPACTION,
    RAFT_CLUSTER_OFFICES, /* a leader's appends reach few, and it does not last */
    RAFT_CLUSTER_FAULTS
};
extern const char *const raft_cluster_fault_names[RAFT_CLUSTER_FAULTS];

struct raft_cluster_options {
    uint64_t seed;
    uint32_t voters;  /* 1 to 5; 0: by the seed */
    uint32_t steps;   /* events, faults included, before everything is healed */
    uint32_t without; /* bit i: no fault of kind i */
    enum raft_cluster_plant plant;
    bool verbose; /* every event to stdout */
};

struct raft_cluster_report {
    uint64_t steps, messages, lost, doubled;
    uint64_t elections, crashes, wipes, pauses, cuts;
    uint64_t committed, acknowledged, reads, lease_reads;
    uint64_t snapshots, changes, transfers;
    uint64_t registers, undecided; /* histories of registers: linearizable, too hard to say */
    const char *profile;           /* what the seed was nasty with */
    char broken[240];              /* what was, "" when nothing was */
};

/* False: something is broken. */
bool raft_cluster_run(const struct raft_cluster_options *options,
                      struct raft_cluster_report *report);

#endif
