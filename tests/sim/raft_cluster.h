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

struct raft_cluster_options {
    uint64_t seed;
    uint32_t voters; /* 1, 3 or 5; 0: by the seed */
    uint32_t steps;  /* events, faults included, before everything is healed */
    enum raft_cluster_plant plant;
    bool verbose; /* every event to stdout */
};

struct raft_cluster_report {
    uint64_t steps, messages, lost, doubled;
    uint64_t elections, crashes, wipes, pauses, cuts;
    uint64_t committed, acknowledged, reads, lease_reads;
    uint64_t snapshots, changes, transfers;
    char broken[240]; /* what was, "" when nothing was */
};

/* False: something is broken. */
bool raft_cluster_run(const struct raft_cluster_options *options,
                      struct raft_cluster_report *report);

#endif
