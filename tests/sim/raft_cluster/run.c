/* tests/sim/raft_cluster/run.c: a history from start to end. */
#include "tests/sim/raft_cluster/world.h"

#include <stdlib.h>

#include "base/assert.h"

static bool converged(struct world *w)
{
    struct node *leader = cluster__some_node(w, true);
    if (!leader || leader->applied < w->history_count)
        return false;
    const struct raft_members *members = raft_members_now(&leader->raft);
    for (uint32_t i = 0; i < members->count; i++)
        if (w->nodes[members->items[i].id].applied < w->history_count ||
            members->items[i].incarnation != w->nodes[members->items[i].id].incarnation)
            return false;
    return true;
}

/* Everything works from now on: within a minute there is one leader and all have everything. */
static bool heal(struct world *w)
{
    w->healing = true;
    cluster__heal_network(w);
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        n->paused_until = n->isolated_until = n->mute_until = w->now;
        n->doomed_at = INT64_MAX;
        n->disk_us = 200;
        if (n->exists && !n->up)
            n->up_at = w->now;
    }
    int64_t end = w->now + 60000000;
    uint64_t goal = w->history_count + 20;
    while (w->now < end) {
        if (!cluster__turn(w) || !sound(w))
            return false;
        if (w->history_count >= goal && w->acknowledged + 10 >= goal && !w->wiped) {
            w->next_client = end; /* nothing new any more */
            if (converged(w))
                return true;
        }
    }
    struct node *leader = cluster__some_node(w, true);
    return cluster__broken(
        w, "a minute after everything was healed: leader %llu, %zu entries applied, %llu asked for",
        (unsigned long long)(leader ? leader->id : 0), w->history_count, (unsigned long long)goal);
}

static void start(struct world *w)
{
    static const uint32_t sizes[] = {1, 3, 3, 3, 5, 5, 5};
    chr_random_u64(&w->random);
    w->profile = cluster__profile(w);
    w->report->profile = w->profile->name;
    w->voters = w->profile->voters ? w->profile->voters : sizes[below(w, CHR_COUNT_OF(sizes))];
    if (w->options->voters)
        w->voters = w->options->voters;
    struct raft_members members = {0};
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        n->id = id;
        n->incarnation = chr_random_u64(&w->random) | 1;
        n->rate = 0.92 + 0.16 * chr_random_f64(&w->random);
        n->offset = (int64_t)below(w, 1000000000);
        n->disk_us = 200 + (int64_t)below(w, 10000);
        if (w->profile->slow_disks && goes_wrong(w, RAFT_CLUSTER_SLOW_DISKS, 600))
            n->disk_us = 50000 + (int64_t)below(w, 150000);
        n->doomed_at = INT64_MAX;
        n->reach = UINT32_MAX;
        fake_disk_open(&n->disk, chr_random_u64(&w->random));
        n->disk.faults.sync_lies = w->options->plant == RAFT_CLUSTER_SKIP_SYNC;
        n->exists = id <= w->voters;
        if (n->exists) {
            chr_err err =
                raft_members_add(&members, (struct raft_member){id, n->incarnation, true});
            CHR_ASSERT(!err);
        }
    }
    if (w->profile->changes) { /* one who can become a voter at once */
        struct node *n = &w->nodes[w->voters + 1];
        chr_err err =
            raft_members_add(&members, (struct raft_member){n->id, n->incarnation, false});
        CHR_ASSERT(!err);
        n->exists = true;
    }
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        if (w->nodes[id].exists)
            w->nodes[id].snapshot.members = members;
}

bool raft_cluster_run(const struct raft_cluster_options *options,
                      struct raft_cluster_report *report)
{
    struct world *w = calloc(1, sizeof *w);
    CHR_ASSERT(w);
    *report = (struct raft_cluster_report){0};
    w->options = options;
    w->report = report;
    w->random.state = options->seed;
    w->blackout = INT64_MAX;
    start(w);
    w->one_by_one = chance(w, w->profile->short_offices ? 700 : 200);
    while (sound(w) && report->steps < options->steps) {
        if (!cluster__turn(w))
            break;
        struct node *n = &w->nodes[1 + report->steps % NODES_MAX];
        if (report->steps % 16 == 0 && n->up &&
            !(cluster__check_logs(w, n) && cluster__check_members(w, n)))
            break;
    }
    if (sound(w) && heal(w))
        (void)cluster__check_clients(w);
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        if (n->up) {
            fake_disk_off(&n->disk);
            cluster__close_node(n);
        }
        free(n->saves);
        fake_disk_close(&n->disk);
    }
    for (size_t i = 0; i < w->packets_count; i++)
        cluster__items_free(&w->packets[i].entries);
    free(w->packets);
    free(w->history);
    free(w->leaders);
    free(w->proposals);
    for (uint32_t i = 0; i < KEYS; i++)
        free(w->ops[i].at);
    bool ok = sound(w);
    free(w);
    return ok;
}
