/* tests/sim/cluster_life/profiles.c: what a seed is nasty with, beyond what every history meets. */
#include <string.h>

#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

static const struct profile plain = {.name = "plain"};
static const struct profile profiles[] = {
    {.name = "far writers", .voters = 3, .far_writers = true},
    {.name = "far writers, short offices", .voters = 3, .far_writers = true, .short_offices = true},
    {.name = "short offices", .voters = 3, .short_offices = true},
    {.name = "short offices of five", .voters = 5, .short_offices = true},
    {.name = "breaks", .voters = 3, .far_writers = true, .breaks = true},
    {.name = "slow disks", .voters = 3, .slow_disks = true, .short_offices = true},
    {.name = "pauses", .voters = 3, .pauses = true},
    {.name = "restarts", .voters = 3, .restarts = true},
    {.name = "restarts, alone", .voters = 1, .restarts = true},
    {.name = "time", .voters = 3, .tables = true, .short_offices = true},
    {.name = "narrow lanes", .voters = 3, .narrow = true, .breaks = true},
    {.name = "changes", .voters = 3, .changes = true},
    {.name = "eights", .voters = 5, .eights = true},
    {.name = "crowds", .voters = 3, .crowds = true},
    {.name = "crowds, slow disks", .voters = 3, .crowds = true, .slow_disks = true},
    {.name = "periodic", .voters = 3, .periodic = true, .slow_disks = true},
    {.name = "periodic, alone", .voters = 1, .periodic = true, .restarts = true},
    {.name = "comebacks", .voters = 3, .comebacks = true},
    {.name = "stale reads", .voters = 3, .stale = true},
    {.name = "roaming", .voters = 3, .roams = true},
    {.name = "quiet, alone", .voters = 1, .pace = 300, .quiet = true},
    {.name = "forgetful", .voters = 3, .pace = 2, .forgetful = true, .short_offices = true},
};

const struct profile *life__profile(struct world *w)
{
    for (size_t i = 0; w->options->profile && i < CHR_COUNT_OF(profiles); i++)
        if (strcmp(w->options->profile, profiles[i].name) == 0)
            return &profiles[i];
    return chance(w, 150) ? &plain : &profiles[below(w, CHR_COUNT_OF(profiles))];
}

/* Its entries reach few. */
static void hear_it_few(struct world *w, const struct node *n)
{
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        w->cut[n->id][id] |= chance(w, 500);
}

static void cut_all_but(struct world *w, uint64_t from, uint64_t to)
{
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        w->cut[from][id] = id != to;
}

/* Figure 8 of the Raft paper, step by step: what the first leader proposed is in one other log, the
 * second's; the next leader is heard by the first alone, and takes it out there; then the second
 * leads, who alone can, and it is committed after all. */
enum { EIGHT_BEGINS, EIGHT_ONE_HEARS, EIGHT_TWO_SILENT, EIGHT_TAKEN_OUT };

static void eight_elected(struct world *w, struct node *n)
{
    struct eight *e = &w->eight;
    life__heal_network(w);
    if (e->step == EIGHT_TWO_SILENT && n->id != e->first && n->id != e->second) {
        e->step = EIGHT_TAKEN_OUT;
        cut_all_but(w, n->id, e->first);
    } else {
        e->step = EIGHT_BEGINS;
    }
    n->doomed_at = w->now + 100000 + (int64_t)below(w, 200000);
}

static void eight_doom(struct world *w, struct node *n)
{
    struct eight *e = &w->eight;
    life__heal_network(w);
    if (e->step == EIGHT_BEGINS && life__leader(w) == n) {
        *e = (struct eight){EIGHT_ONE_HEARS, n->id, 1 + n->id % w->voters};
        cut_all_but(w, n->id, e->second);
        n->doomed_at = w->now + 20000 + (int64_t)below(w, 80000);
    } else if (e->step == EIGHT_ONE_HEARS && n->id == e->first) {
        e->step = EIGHT_TWO_SILENT;
        cut_all_but(w, e->first, 0);
        cut_all_but(w, e->second, 0);
    } else {
        e->step = EIGHT_BEGINS;
    }
}

/* Who lost them hears again, and is heard, so it may lead next: before it has heard of any entry
 * that was committed since, and so before it knows what became of what it lost. */
void life__lost_its_own(struct world *w, struct node *n)
{
    uint64_t term = n->committer->raft.term;
    uint64_t leader = term < w->leaders_count ? w->leaders[term] : 0;
    bool eight = w->profile->eights && w->eight.step == EIGHT_TAKEN_OUT && w->eight.first == n->id;
    if (!(w->profile->comebacks || eight) || leader == 0 || leader == n->id ||
        w->cut[leader][n->id] || !goes_wrong(w, CLUSTER_LIFE_STUMBLES, 950))
        return;
    life__leave();
    life__mute(w, &w->nodes[leader]);
    w->nodes[leader].doomed_at = NEVER;
    if (eight)
        cut_all_but(w, n->id, 0);
    life__enter();
}

/* Nobody but the leader knows yet that it is committed, and nobody is to hear of it from there. */
void life__acknowledged(struct world *w, struct node *n)
{
    if (!w->profile->stale || life__leader(w) != n || w->heal_at != NEVER ||
        !goes_wrong(w, CLUSTER_LIFE_STUMBLES, 30))
        return;
    life__mute(w, n);
    w->heal_at = w->now + 700000 + (int64_t)below(w, 300000);
}

void life__elected(struct world *w, struct node *n)
{
    life__trace(w, n, "is elected");
    n->applies_late = w->profile->stale && goes_wrong(w, CLUSTER_LIFE_STUMBLES, 900);
    if (w->profile->comebacks && goes_wrong(w, CLUSTER_LIFE_STUMBLES, 950)) {
        n->doomed_at = w->now + 20000 + (int64_t)below(w, 300000);
        return;
    }
    if (w->profile->eights && goes_wrong(w, CLUSTER_LIFE_STUMBLES, 950)) {
        eight_elected(w, n);
        return;
    }
    if (!w->profile->short_offices || !goes_wrong(w, CLUSTER_LIFE_STUMBLES, 700))
        return;
    n->doomed_at = w->now + 500 + (int64_t)below(w, chance(w, 500) ? 30000 : 400000);
    if (goes_wrong(w, CLUSTER_LIFE_CUTS, 500))
        hear_it_few(w, n);
}

void life__applied_first(struct world *w, struct node *n)
{
    if (w->profile->short_offices && goes_wrong(w, CLUSTER_LIFE_STUMBLES, 5))
        n->doomed_at = w->now;
}

void life__meets_its_doom(struct world *w, struct node *n)
{
    n->doomed_at = NEVER;
    if (n->restarts) { /* to start on a snapshot */
        life__kill(w, n, false, 1000 + (int64_t)below(w, 20000));
        return;
    }
    life__trace(w, n, "meets its doom");
    if (w->profile->comebacks) { /* another one is elected, and takes its entries out of its log */
        if (life__leader(w) == n)
            life__mute(w, n);
        return;
    }
    if (w->profile->eights) {
        eight_doom(w, n);
        return;
    }
    if (chance(w, 600)) /* of those before it */
        life__heal_network(w);
    switch (below(w, 4)) {
    case 0: /* not heard of for some time, and then back with all that it remembers */
        for (uint32_t id = 1; id <= NODES_MAX; id++)
            w->cut[n->id][id] = w->cut[id][n->id] = true;
        break;
    case 1: /* hears, and is not heard */
        for (uint32_t id = 1; id <= NODES_MAX; id++)
            w->cut[n->id][id] = true;
        break;
    case 2:
        w->report->pauses++;
        n->paused_until = w->now + 300000 + (int64_t)below(w, 900000);
        break;
    default:
        w->report->power_cuts++;
        life__kill(w, n, true, 1000 + (int64_t)below(w, 300000));
    }
}
