/* tests/sim/raft_cluster/clock.c: what is next. */
#include "tests/sim/raft_cluster/world.h"

enum next_type {
    NEXT_PACKET,
    NEXT_TICK,
    NEXT_SAVE,
    NEXT_BOOT,
    NEXT_DOOM,
    NEXT_READ,
    NEXT_SNAPSHOT_LOST,
    NEXT_WORLD
};
struct next {
    int64_t at;
    enum next_type type;
    size_t packet;
    struct node *node;
    uint64_t peer;
};

static void consider(struct next *next, struct next other)
{
    if (other.at < next->at)
        *next = other;
}

static void consider_node(struct node *n, struct next *next)
{
    if (!n->exists)
        return;
    if (!n->up) {
        consider(next, (struct next){.at = n->up_at, .type = NEXT_BOOT, .node = n});
        return;
    }
    int64_t least = n->paused_until;
    int64_t due = raft_next_due_us(&n->raft);
    if (due != INT64_MAX)
        consider(next, (struct next){.at = CHR_MAX(least, cluster__global(n, due)),
                                     .type = NEXT_TICK,
                                     .node = n});
    if (n->saves_count)
        consider(next,
                 (struct next){.at = CHR_MAX(least, n->save_due), .type = NEXT_SAVE, .node = n});
    consider(next, (struct next){.at = n->doomed_at, .type = NEXT_DOOM, .node = n});
    for (uint32_t i = 0; i < n->reads_count; i++)
        if (n->reads[i].kind == READ_LEASE)
            consider(next, (struct next){.at = CHR_MAX(least, n->reads[i].answer_at),
                                         .type = NEXT_READ,
                                         .node = n});
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        if (n->snapshot_due[id])
            consider(next, (struct next){.at = CHR_MAX(least, n->snapshot_due[id]),
                                         .type = NEXT_SNAPSHOT_LOST,
                                         .node = n,
                                         .peer = id});
}

static struct next find_next(struct world *w)
{
    struct next next = {.at = INT64_MAX};
    for (size_t i = 0; i < w->packets_count; i++) {
        int64_t at = CHR_MAX(w->packets[i].at, w->nodes[w->packets[i].to].paused_until);
        consider(&next, (struct next){.at = at, .type = NEXT_PACKET, .packet = i});
    }
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        consider_node(&w->nodes[id], &next);
    int64_t world = CHR_MIN(CHR_MIN(w->next_client, w->next_read), w->next_compact);
    if (!w->healing)
        world = CHR_MIN(world, CHR_MIN(w->next_fault, w->blackout));
    consider(&next, (struct next){.at = world, .type = NEXT_WORLD});
    return next;
}

static bool world_turn(struct world *w)
{
    if (!w->healing && w->now >= w->blackout) {
        cluster__black_out(w);
        return true;
    }
    int64_t pace = w->healing ? 1 : w->profile->pace;
    if (w->now >= w->next_client) {
        w->next_client = w->now + pace * (500 + (int64_t)below(w, chance(w, 5) ? 1500000 : 15000));
        bool often = (w->healing && w->wiped) || (!w->healing && w->profile->changes);
        bool change = w->eager || chance(w, often ? 200 : 30);
        w->eager = false;
        if (!w->healing && w->options->without >> RAFT_CLUSTER_CHANGES & 1)
            change = false;
        return change ? cluster__administer(w) : cluster__propose(w);
    }
    if (w->now >= w->next_read) {
        w->next_read = w->now + pace * (200 + (int64_t)below(w, 5000));
        return cluster__ask(w);
    }
    if (w->now >= w->next_compact) {
        w->next_compact = w->now + 10000 + (int64_t)below(w, 400000);
        return w->options->without >> RAFT_CLUSTER_COMPACTION & 1 ? true : cluster__compact(w);
    }
    w->next_fault = w->now + 10000 + pace * (int64_t)below(w, chance(w, 500) ? 60000 : 500000);
    return cluster__fault(w);
}

bool cluster__turn(struct world *w)
{
    struct next next = find_next(w);
    w->now = CHR_MAX(w->now, next.at);
    w->report->steps++;
    struct node *n = next.node;
    switch (next.type) {
    case NEXT_PACKET: {
        struct packet p = w->packets[next.packet];
        w->packets[next.packet] = w->packets[--w->packets_count];
        bool ok = cluster__deliver(w, &p);
        cluster__items_free(&p.entries);
        n = &w->nodes[p.to]; /* whose loop may look at the time more often than it has to */
        if (ok && n->up && chance(w, 30))
            return cluster__step(w, n, (struct raft_event){.type = RAFT_EVENT_TICK});
        return ok;
    }
    case NEXT_TICK:
        return cluster__step(w, n, (struct raft_event){.type = RAFT_EVENT_TICK});
    case NEXT_SAVE:
        return cluster__write_next(w, n);
    case NEXT_BOOT:
        return cluster__boot(w, n);
    case NEXT_DOOM:
        cluster__meets_its_doom(w, n);
        return true;
    case NEXT_READ:
        return cluster__serve_reads(w, n);
    case NEXT_SNAPSHOT_LOST:
        n->snapshot_due[next.peer] = 0;
        return cluster__step(
            w, n, (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = next.peer});
    case NEXT_WORLD:
        return world_turn(w);
    }
    return false;
}
