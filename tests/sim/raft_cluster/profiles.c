/* tests/sim/raft_cluster/profiles.c: what a seed is nasty with, beyond what every history meets.
 *
 * Some mistakes need several leaders in a row, each of which leaves a little behind and is gone:
 * the figure 8 of the Raft paper, or two changes of members of which neither knows the other.
 * Faults that come at any time hardly ever come in that order; so here leaders reach few with their
 * appends, and are struck when it hurts: when they have just been elected, or first applied
 * something. */
#include "tests/sim/raft_cluster/world.h"

static const struct profile plain = {.name = "plain", .pace = 1};
static const struct profile profiles[] = {
    {.name = "short offices", .voters = 5, .pace = 8, .short_offices = true},
    {.name = "short offices, three", .voters = 3, .pace = 8, .short_offices = true},
    {.name = "short offices, late replies",
     .voters = 5,
     .pace = 8,
     .short_offices = true,
     .late_replies = true},
    {.name = "halves", .voters = 5, .pace = 2, .halves = true},
    {.name = "changes", .voters = 4, .pace = 8, .short_offices = true, .changes = true},
    {.name = "changes, quick", .voters = 4, .pace = 3, .short_offices = true, .changes = true},
    {.name = "changes, two", .voters = 2, .pace = 8, .short_offices = true, .changes = true},
    {.name = "slow disks", .voters = 3, .pace = 4, .short_offices = true, .slow_disks = true},
    {.name = "ties",
     .voters = 3,
     .pace = 8,
     .ties = true,
     .forgetful = true,
     .short_offices = true},
    {.name = "half cuts", .voters = 3, .pace = 2, .ties = true, .half_cuts = true},
    {.name = "late replies",
     .voters = 3,
     .pace = 2,
     .ties = true,
     .mutes = true,
     .late_replies = true},
};

const struct profile *cluster__profile(struct world *w)
{
    return chance(w, 200) ? &plain : &profiles[below(w, CHR_COUNT_OF(profiles))];
}

static void draw_reach(struct world *w, struct node *n)
{
    n->reach = UINT32_MAX;
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        if (chance(w, w->profile->slow_disks ? 300 : 650))
            n->reach &= ~(1u << id);
}

void cluster__elected(struct world *w, struct node *n)
{
    n->reach = UINT32_MAX;
    if (!w->profile->short_offices || !goes_wrong(w, RAFT_CLUSTER_OFFICES, 850))
        return;
    draw_reach(w, n);
    n->doomed_at = w->now + 500 + (int64_t)below(w, chance(w, 500) ? 30000 : 300000);
}

/* The change goes to others than what was before it. */
void cluster__asked_to_change(struct world *w, struct node *leader)
{
    if (w->profile->changes && goes_wrong(w, RAFT_CLUSTER_OFFICES, 400))
        draw_reach(w, leader);
}

/* Whoever got the vote is elected by it, and not heard; the other candidate asks the voter again.
 */
void cluster__has_voted(struct world *w, struct node *n)
{
    if (!w->profile->forgetful || !goes_wrong(w, RAFT_CLUSTER_CRASHES, 200))
        return;
    n->doomed_at = w->now + 2200 + (int64_t)below(w, 3000);
    w->nodes[n->raft.vote].mute_until = w->now + 300000;
}

void cluster__applied_first(struct world *w, struct node *n)
{
    if (!w->profile->short_offices || !goes_wrong(w, RAFT_CLUSTER_OFFICES, 200))
        return;
    n->doomed_at = w->now;
    if (w->profile->slow_disks && goes_wrong(w, RAFT_CLUSTER_BLACKOUTS, 500))
        w->blackout = w->now + (int64_t)below(w, 5000);
}

/* Whoever believes it acknowledges now what its disk does not have. */
void cluster__late_news(struct world *w)
{
    if (w->profile->slow_disks && goes_wrong(w, RAFT_CLUSTER_BLACKOUTS, 700))
        w->blackout = w->now + 2000 + (int64_t)below(w, 20000);
}

void cluster__meets_its_doom(struct world *w, struct node *n)
{
    n->doomed_at = INT64_MAX;
    if (w->profile->half_cuts) { /* starts again while its leader has a lease by its word */
        for (uint32_t id = 1; id <= NODES_MAX; id++)
            w->cut[id][n->id] |= w->nodes[id].up && w->nodes[id].raft.role == RAFT_LEADER;
        cluster__crash(w, n, true, 1000 + (int64_t)below(w, 30000));
        return;
    }
    /* With a slow disk: what it has still to write is contradicted meanwhile. */
    switch (w->profile->slow_disks && chance(w, 500) ? 0 : below(w, 4)) {
    case 0: /* not heard of for some time, and then back with all that it remembers */
        n->isolated_until = w->now + 300000 + (int64_t)below(w, 900000);
        break;
    case 1:
        cluster__crash(w, n, true, 1000 + (int64_t)below(w, 1000000));
        break;
    default: /* what it has just sent goes with it */
        cluster__lose_packets_of(w, n->id);
        cluster__crash(w, n, true, 1000 + (int64_t)below(w, 100000));
    }
}
