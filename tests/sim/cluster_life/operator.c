/* tests/sim/cluster_life/operator.c: members come and go, and lose their disks.
 *
 * A leader looks after its members as broker/cluster_duties.c does: a member whose disk is another
 * one is taken in again as a learner (R20), and promoted when it has caught up, if it is to vote.
 * What a leader there knows by HELLO is known here. Besides, an operator transfers leadership, adds
 * learners, removes members and takes them in again. */
#include "base/assert.h"
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

/* ---- Disks ------------------------------------------------------------------------------------
 */

/* All are up, all that are to vote do, and no change of members is on. (raft/README.md says why it
 * must not be.) */
static bool in_order(struct world *w)
{
    const struct node *leader = life__leader(w);
    if (!leader || raft_members_voters(raft_members_now(&leader->committer->raft)) != w->voters)
        return false;
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        if (!n->exists)
            continue;
        if (!n->serving || n->stopping || n->install)
            return false;
        const struct raft *r = &n->committer->raft;
        if (r->changes[r->changes_count - 1].index > r->commit_index || r->catching_up)
            return false;
    }
    return true;
}

/* A disk is lost, if that leaves a majority that remembers. It comes back under the same number,
 * with another incarnation, and knows no members until a leader tells it. */
void life__wipe(struct world *w, struct node *n)
{
    if (w->voters == 1 || w->wiped || !in_order(w))
        return;
    life__kill(w, n, true, 1000 + (int64_t)below(w, 300000));
    life__trace(w, n, "is wiped");
    fake_disk_close(&n->disk);
    fake_disk_open(&n->disk, chr_random_u64(&w->random));
    fake_kv_free(n->store);
    n->store = fake_kv_new(chr_random_u64(&w->random));
    fake_kv_faults(n->store)->no_poison = true;
    n->members = (struct raft_members){0};
    n->members_index = n->members_term = 0;
    n->incarnation = chr_random_u64(&w->random) | 1;
    n->boot = 0;
    if (goes_wrong(w, CLUSTER_LIFE_CLOCKS, 300)) /* another machine, with another clock */
        n->wall_offset -= INT64_C(3600000000);
    w->wiped = n->id;
    w->report->wipes++;
}

/* ---- What the leader looks after: inside ------------------------------------------------------
 */

static chr_err change(struct node *n, enum raft_change_type type, uint64_t id)
{
    struct world *w = life__world;
    chr_err err = broker_committer_change(
        n->committer, (int)type,
        (struct raft_member){.id = id, .incarnation = w->nodes[id].incarnation});
    if (!err) {
        life__trace(w, n, "change %d of member %llu", (int)type, (unsigned long long)id);
        w->report->changes++;
    }
    return err;
}

/* Those that were removed and are to vote; in the end, all. */
static bool take_in(struct node *n, const struct broker_cluster_status *status)
{
    struct world *w = life__world;
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        bool member = !w->nodes[id].exists || (id > w->voters && !w->healing);
        for (uint32_t i = 0; i < status->peers_count; i++)
            member |= status->peers[i].member.id == id;
        if (!member)
            return change(n, RAFT_CHANGE_ADD_LEARNER, id) == CHR_OK;
    }
    return false;
}

static void look_after_members(struct node *n)
{
    struct world *w = life__world;
    struct broker_cluster_status status;
    broker_committer_status(n->committer, &status);
    if (status.role != RAFT_LEADER || status.change_pending)
        return;
    if (take_in(n, &status))
        return;
    for (uint32_t i = 0; i < status.peers_count; i++) {
        const struct raft_member *m = &status.peers[i].member;
        const struct node *other = &w->nodes[m->id];
        if (!other->serving)
            continue;
        if (other->incarnation != m->incarnation) {
            if (!change(n, RAFT_CHANGE_REPLACE, m->id))
                return;
        } else if (!m->voter && other->votes) {
            if (!change(n, RAFT_CHANGE_PROMOTE, m->id))
                return;
        } else if (w->wiped == m->id && m->voter) {
            w->wiped = 0;
        }
    }
}

/* ---- The operator -----------------------------------------------------------------------------
 */

static void administer(struct node *n)
{
    struct world *w = life__world;
    uint64_t id = 1 + below(w, NODES_MAX);
    struct node *other = &w->nodes[id];
    if (id > w->voters && !other->exists) { /* comes for the first time, or again */
        life__leave();
        other->exists = true;
        other->up_at = w->now;
        life__enter();
        (void)change(n, RAFT_CHANGE_ADD_LEARNER, id);
    } else if (id > w->voters && chance(w, 500)) {
        (void)change(n, RAFT_CHANGE_REMOVE, id); /* its process stays, and hears nothing */
    } else if (id > w->voters) {
        (void)change(n, RAFT_CHANGE_ADD_LEARNER, id);
    } else if (chance(w, 700)) {
        w->report->transfers++;
        (void)!broker_committer_transfer(n->committer, id);
    } else if (!w->wiped && w->voters > 1 && in_order(w)) {
        (void)change(n, RAFT_CHANGE_REMOVE, id); /* and is taken in again */
    }
}

void *life__operator_main(void *arg)
{
    struct node *n = arg;
    struct world *w = life__world;
    while (!n->stopping && !w->alone) {
        life__sleep(20000 + (int64_t)below(w, 80000));
        if (n->stopping || broker_committer_leader(n->committer) != n->id)
            continue;
        look_after_members(n);
        if (goes_wrong(w, CLUSTER_LIFE_CHANGES, w->profile->changes ? 200 : 20))
            administer(n);
    }
    return NULL;
}
