/* tests/sim/cluster_life/run.c: a history from start to end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

/* ---- Start ------------------------------------------------------------------------------------
 */

static void make_node(struct world *w, struct node *n, uint64_t id)
{
    n->id = id;
    n->incarnation = chr_random_u64(&w->random) | 1;
    n->rate = 0.95 + 0.1 * chr_random_f64(&w->random);
    n->offset = (int64_t)below(w, 1000000000);
    n->wall_offset = (int64_t)below(w, 200000) - 100000;
    n->disk_us = 200 + (int64_t)below(w, 3000);
    n->store_us = 200 + (int64_t)below(w, 3000);
    if (w->profile->slow_disks && goes_wrong(w, CLUSTER_LIFE_SLOW_DISKS, 600))
        n->disk_us = 30000 + (int64_t)below(w, 100000);
    n->doomed_at = NEVER;
    n->spool_fd = -1;
    fake_disk_open(&n->disk, chr_random_u64(&w->random));
    n->disk.faults.garbage = chance(w, 500) ? 3000 : 0;
    n->store = fake_kv_new(chr_random_u64(&w->random));
    fake_kv_faults(n->store)->no_poison = chance(w, 900);
    n->exists = id <= w->voters;
    n->votes = n->exists;
    n->up_at = (int64_t)below(w, 50000);
    life__clock_init(n);
    life__disk_init(n);
}

static void start(struct world *w)
{
    static const uint32_t sizes[] = {1, 3, 3, 3, 3, 5};
    static const uint32_t preempts[] = {10, 30, 100};
    chr_random_u64(&w->random);
    w->profile = life__profile(w);
    w->report->profile = w->profile->name;
    w->voters = w->profile->voters ? w->profile->voters : sizes[below(w, CHR_COUNT_OF(sizes))];
    if (w->options->voters)
        w->voters = w->options->voters;
    w->alone = w->voters == 1 && chance(w, 700);
    w->fsync = w->profile->periodic ? RAFT_FSYNC_PERIODIC
               : chance(w, 100)     ? RAFT_FSYNC_EVERY
                                    : RAFT_FSYNC_BATCH;
    w->heal_at = NEVER;
    bool small = w->profile->crowds || w->profile->comebacks;
    w->group_bytes = small || chance(w, 400) ? 1024 : 64u << 10;
    w->preempt_in_1000 = preempts[below(w, CHR_COUNT_OF(preempts))];
    w->end = (w->options->ms ? (int64_t)w->options->ms : 2000 + (int64_t)below(w, 6000)) * 1000;
    if (w->profile->crowds && !w->options->ms)
        w->end = CHR_MIN(w->end, 3000000);
    w->next_fault = 300000 + (int64_t)below(w, 1000000);
    struct raft_members members = {0};
    for (uint64_t id = 1; id <= NODES_MAX; id++) {
        make_node(w, &w->nodes[id], id);
        if (w->nodes[id].exists &&
            raft_members_add(&members, (struct raft_member){id, w->nodes[id].incarnation, true}))
            CHR_ASSERT(false);
    }
    for (uint64_t id = 1; id <= w->voters; id++)
        w->nodes[id].members = members;
}

/* ---- Healed -----------------------------------------------------------------------------------
 */

static void heal(struct world *w)
{
    life__trace(w, NULL, "everything is healed");
    w->healing = true;
    w->healed_at = w->now;
    life__heal_network(w);
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        n->paused_until = w->now;
        if (!n->restarts)
            n->doomed_at = NEVER;
        n->disk_us = n->store_us = 200;
        n->disk.faults = (struct fake_disk_faults){0};
        *fake_kv_faults(n->store) = (struct fake_kv_faults){.no_poison = true};
        if (n->in_doubt && n->up)
            life__kill(w, n, false, 0);
        if (n->exists && !n->up)
            n->up_at = CHR_MIN(n->up_at, w->now);
    }
}

static const char *open_proposal(struct world *w)
{
    static char text[120];
    snprintf(text, sizeof text, "none of them is to be found");
    for (size_t i = 1; i <= w->ops_count; i++) {
        const struct op *op = w->ops[i];
        if (op->state == OP_PROPOSED && op->hash)
            snprintf(text, sizeof text, "%zu of node %llu, loop %u%s, applied at %llu", i,
                     (unsigned long long)op->node->id, op->loop,
                     op->life == op->node->life ? "" : ", which has ended",
                     (unsigned long long)op->index);
    }
    return text;
}

static const char *unfinished(struct world *w)
{
    struct node *leader = life__leader(w);
    if (!leader)
        return "nobody leads";
    if (w->open)
        return open_proposal(w);
    if (!w->alone && raft_members_voters(raft_members_now(&leader->committer->raft)) != w->voters)
        return "not all that are to vote do";
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        const struct node *n = &w->nodes[id];
        const struct raft_member *m =
            w->alone ? NULL : raft_members_find(raft_members_now(&leader->committer->raft), id);
        if (w->alone ? id != 1 : !m)
            continue;
        if (!n->serving || (m && m->incarnation != n->incarnation))
            return "not all are up";
        if (life__applied_index(n) < w->history_count)
            return "not all have everything";
        const struct forward *f = &n->committer->forward;
        if (f->first != f->next || f->unsure_count || !chr_list_empty(&f->again))
            return "something is still to be forwarded";
    }
    return NULL;
}

/* Within a minute there is one leader, all have everything, and everybody is answered. */
static bool converge(struct world *w)
{
    heal(w);
    int64_t close_at = w->now + (w->profile->quiet ? 30000000 : 1000000), end = w->now + 60000000;
    const char *missing = NULL;
    uint64_t goal = w->history_count + 10;
    while (w->now < end) {
        if (!life__turn(w))
            return false;
        w->closing = w->now > close_at && w->history_count >= goal;
        if (w->closing && w->report->turns % 16 == 0 && !(missing = unfinished(w)))
            return true;
    }
    missing = unfinished(w);
    life__trace_fibers();
    struct node *leader = life__leader(w);
    return life__broken(w,
                        "a minute after everything was healed: leader %llu, %zu entries applied, "
                        "%llu proposals open: %s",
                        (unsigned long long)(leader ? leader->id : 0), w->history_count,
                        (unsigned long long)w->open, missing ? missing : "too little is applied");
}

/* ---- The end ----------------------------------------------------------------------------------
 */

static bool is_over; /* all nodes have been looked at */
static void *look_main(void *arg)
{
    struct node *n = arg;
    (void)life__look(n);
    life__leave();
    is_over = true;
    life__enter();
    return NULL;
}

static bool look_at_all(struct world *w)
{
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        if (!w->nodes[id].serving)
            continue;
        is_over = false;
        life__spawn(&w->nodes[id], "look", look_main, &w->nodes[id]);
        while (!is_over && w->nodes[id].serving)
            if (!life__turn(w))
                return false;
    }
    for (size_t i = 1; i <= w->messages_count; i++)
        if (w->messages[i].answered && !w->messages[i].index)
            return life__broken(w, "H5: message %zu was answered, and is not there", i);
    return sound(w);
}

/* Asked to, everybody can stop. */
static bool stop_all(struct world *w)
{
    int64_t end = w->now + 60000000;
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        w->nodes[id].exists = false;
        life__stop(w, &w->nodes[id]);
    }
    for (;;) {
        uint32_t up = 0;
        for (uint32_t id = 1; id <= NODES_MAX; id++)
            up += w->nodes[id].up;
        if (!up)
            return true;
        if (w->now > end)
            return life__broken(w, "%u nodes do not stop", up);
        if (!life__turn(w))
            return false;
    }
}

static void free_all(struct world *w)
{
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        if (n->up)
            life__kill(w, n, false, NEVER);
        n->install = false;
        life__snapshot_forget(n);
        fake_disk_close(&n->disk);
        fake_kv_free(n->store);
    }
    for (size_t i = 0; i < w->packets_count; i++)
        free(w->packets[i].bytes);
    for (size_t i = 1; i <= w->ops_count; i++)
        free(w->ops[i]);
    for (uint32_t i = 0; i < KEYS; i++)
        free(w->registers[i].at);
    free(w->packets);
    free(w->ops);
    free(w->by_hash);
    free(w->messages);
    free(w->history);
    free(w->leaders);
}

bool cluster_life_run(const struct cluster_life_options *options,
                      struct cluster_life_report *report)
{
    (void)chr_hash_seed(); /* drawn once in a process: not by one of many histories */
    struct world *w = calloc(1, sizeof *w);
    CHR_ASSERT(w);
    *report = (struct cluster_life_report){0};
    w->options = options;
    w->report = report;
    w->random.state = options->seed;
    life__world = w;
    start(w);
    while (w->now < w->end && life__turn(w)) {
    }
    if (sound(w) && converge(w) && look_at_all(w) && stop_all(w))
        (void)life__check_clients(w);
    report->us = (uint64_t)w->now;
    free_all(w);
    life__forget_fibers();
    life__world = NULL;
    free(w);
    return report->broken[0] == 0;
}
