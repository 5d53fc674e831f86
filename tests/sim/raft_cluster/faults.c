/* tests/sim/raft_cluster/faults.c: what goes wrong. */
#include "tests/sim/raft_cluster/world.h"

static uint32_t voters_down(const struct world *w)
{
    uint32_t down = 0;
    for (uint32_t id = 1; id <= w->voters; id++)
        down += !w->nodes[id].up;
    return down;
}

/* The building has no power. */
void cluster__black_out(struct world *w)
{
    w->blackout = INT64_MAX;
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        if (w->nodes[id].up)
            cluster__crash(w, &w->nodes[id], true, 1000 + (int64_t)below(w, 500000));
}

bool cluster__fault(struct world *w)
{
    struct node *n = &w->nodes[1 + below(w, NODES_MAX)];
    if (!n->exists)
        return true;
    switch (below(w, 12)) {
    case 0:
        cluster__black_out(w);
        break;
    case 1:
        if (n->up)
            cluster__crash(w, n, chance(w, 700),
                           1000 + (int64_t)below(w, chance(w, 200) ? 4000000 : 300000));
        break;
    case 2: /* the leader */
        n = cluster__some_node(w, true);
        if (n)
            cluster__crash(w, n, chance(w, 700), 1000 + (int64_t)below(w, 800000));
        break;
    case 3:
        w->report->pauses++;
        n->paused_until = w->now + (int64_t)below(w, 1500000);
        break;
    case 4:
    case 5:
        cluster__cut_network(w);
        break;
    case 6:
    case 7:
        cluster__heal_network(w);
        break;
    case 8:
        n->disk_us = chance(w, 300) ? 400000 : 200 + (int64_t)below(w, 30000);
        break;
    case 9:
        n->wall_offset = (int64_t)below(w, 20000000) - 10000000;
        break;
    case 10:
        n = cluster__some_node(w, true);
        if (n) {
            w->report->transfers++;
            return cluster__step(
                w, n,
                (struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = 1 + below(w, NODES_MAX)});
        }
        break;
    default: /* a wiped disk, if that leaves a majority that remembers */
        if (w->voters > 1 && w->wiped == 0 && n->id <= w->voters && voters_down(w) == 0)
            cluster__wipe(w, n);
    }
    return true;
}
