/* tests/sim/raft_cluster/faults.c: what goes wrong. */
#include "tests/sim/raft_cluster/world.h"

const char *const raft_cluster_fault_names[RAFT_CLUSTER_FAULTS] = {
    "loss",       "lateness",    "doubling",  "cuts",  "crashes", "blackouts",  "pauses",
    "slow-disks", "wall-clocks", "transfers", "wipes", "changes", "compaction", "offices",
};

/* The building has no power. */
void cluster__black_out(struct world *w)
{
    w->blackout = INT64_MAX;
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        uint64_t down_us = n->raft.role == RAFT_LEADER && w->profile->slow_disks ? 1500000 : 500000;
        if (n->up)
            cluster__crash(w, n, true, 1000 + (int64_t)below(w, down_us));
    }
}

static bool transfer(struct world *w)
{
    struct node *n = cluster__some_node(w, true);
    if (!n)
        return true;
    w->report->transfers++;
    return cluster__step(
        w, n, (struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = 1 + below(w, NODES_MAX)});
}

/* All are up, and no change of members is on. (raft/README.md says why it must not be.) */
static bool in_order(const struct world *w)
{
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        const struct node *n = &w->nodes[id];
        const struct raft *r = &n->raft;
        if (n->exists && (!n->up || r->changes[r->changes_count - 1].index > r->commit_index))
            return false;
    }
    return true;
}

/* A wiped disk, if that leaves a majority that remembers. */
static void lose_disk(struct world *w, struct node *n)
{
    if (w->voters > 1 && !w->profile->changes && w->wiped == 0 && n->id <= w->voters && in_order(w))
        cluster__wipe(w, n);
}

static void crash_some(struct world *w, struct node *n, uint64_t down_us)
{
    if (n && n->up)
        cluster__crash(w, n, chance(w, 700), 1000 + (int64_t)below(w, down_us));
}

static bool mute_leader(struct world *w)
{
    struct node *n = cluster__some_node(w, true);
    if (n && goes_wrong(w, RAFT_CLUSTER_CUTS, 1000))
        n->mute_until = w->now + 200000 + (int64_t)below(w, 600000);
    return true;
}

bool cluster__fault(struct world *w)
{
    static const enum raft_cluster_fault kinds[] = {
        RAFT_CLUSTER_BLACKOUTS,   RAFT_CLUSTER_CRASHES,   RAFT_CLUSTER_CRASHES,
        RAFT_CLUSTER_PAUSES,      RAFT_CLUSTER_CUTS,      RAFT_CLUSTER_CUTS,
        RAFT_CLUSTER_FAULTS,      RAFT_CLUSTER_FAULTS,    RAFT_CLUSTER_SLOW_DISKS,
        RAFT_CLUSTER_WALL_CLOCKS, RAFT_CLUSTER_TRANSFERS, RAFT_CLUSTER_WIPES};
    struct node *n = &w->nodes[1 + below(w, NODES_MAX)];
    enum raft_cluster_fault kind = kinds[below(w, CHR_COUNT_OF(kinds))];
    if (w->profile->half_cuts || w->profile->halves || w->profile->mutes)
        kind = chance(w, 700) ? RAFT_CLUSTER_CUTS : RAFT_CLUSTER_FAULTS;
    if (w->profile->mutes && kind == RAFT_CLUSTER_CUTS)
        return mute_leader(w);
    if (!n->exists || w->options->without >> kind & 1)
        return true;
    switch (kind) {
    case RAFT_CLUSTER_BLACKOUTS:
        cluster__black_out(w);
        return true;
    case RAFT_CLUSTER_CRASHES:
        crash_some(w, chance(w, 500) ? n : cluster__some_node(w, true),
                   chance(w, 200) ? 4000000 : 400000);
        return true;
    case RAFT_CLUSTER_PAUSES:
        w->report->pauses++;
        n->paused_until = w->now + (int64_t)below(w, 1500000);
        return true;
    case RAFT_CLUSTER_CUTS:
        cluster__cut_network(w);
        return true;
    case RAFT_CLUSTER_SLOW_DISKS:
        n->disk_us = chance(w, 300) ? 400000 : 200 + (int64_t)below(w, 30000);
        return true;
    case RAFT_CLUSTER_WALL_CLOCKS:
        n->wall_offset = (int64_t)below(w, 20000000) - 10000000;
        return true;
    case RAFT_CLUSTER_TRANSFERS:
        return transfer(w);
    case RAFT_CLUSTER_WIPES:
        lose_disk(w, n);
        return true;
    default: /* what was cut comes back */
        cluster__heal_network(w);
        return true;
    }
}
