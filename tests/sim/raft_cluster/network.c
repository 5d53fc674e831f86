/* tests/sim/raft_cluster/network.c: messages that are lost, doubled, late and overtaken; cut links.
 */
#include "tests/sim/raft_cluster/world.h"

#include <string.h>

static void packet_add(struct world *w, struct packet p, int64_t delay_us)
{
    p.at = w->now + delay_us;
    w->packets =
        cluster__grow(w->packets, &w->packets_capacity, w->packets_count + 1, sizeof *w->packets);
    w->packets[w->packets_count++] = p;
}

static void packet_copy(struct packet *to, const struct packet *from)
{
    *to = *from;
    to->entries = (struct items){0};
    for (size_t i = 0; i < from->entries.count; i++) {
        struct raft_entry e = cluster__entry_of(&from->entries.at[i]);
        cluster__items_add(&to->entries, &e);
    }
}

/* From now on nothing reaches it; what is on its way still does. */
void cluster__deafen(struct world *w, uint64_t id)
{
    for (uint64_t from = 1; from <= NODES_MAX; from++)
        w->cut[from][id] = true;
}

void cluster__lose_packets_of(struct world *w, uint64_t from)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->packets_count; i++) {
        if (w->packets[i].from == from)
            cluster__items_free(&w->packets[i].entries);
        else
            w->packets[kept++] = w->packets[i];
    }
    w->packets_count = kept;
}

static bool is_lost(struct world *w, const struct packet *p)
{
    const struct node *from = &w->nodes[p->from], *to = &w->nodes[p->to];
    return w->cut[p->from][p->to] || from->mute_until > w->now ||
           CHR_MAX(from->isolated_until, to->isolated_until) > w->now ||
           goes_wrong(w, RAFT_CLUSTER_LOSS, 20) ||
           (!w->healing && p->m.type == RAFT_MESSAGE_APPEND && !(from->reach >> p->to & 1));
}

static int64_t lateness_us(struct world *w, const struct packet *p)
{
    int64_t us = 0;
    if (goes_wrong(w, RAFT_CLUSTER_LATENESS, 30)) /* overtaken, or from another age */
        us += (int64_t)below(w, chance(w, 200) ? 1500000 : 200000);
    if (p->m.type == RAFT_MESSAGE_TIMEOUT_NOW && goes_wrong(w, RAFT_CLUSTER_LATENESS, 500))
        us += (int64_t)below(w, 1500000); /* arrives long after the transfer was given up */
    if (p->m.type == RAFT_MESSAGE_VOTE && goes_wrong(w, RAFT_CLUSTER_LATENESS, 150))
        us += (int64_t)below(w, 1000000); /* asks again who has forgotten its vote */
    if (p->m.type == RAFT_MESSAGE_VOTE && w->profile->forgetful &&
        goes_wrong(w, RAFT_CLUSTER_LATENESS, 400))
        us += (int64_t)below(w, 300000);
    bool reply =
        p->m.type == RAFT_MESSAGE_HEARTBEAT_REPLY || p->m.type == RAFT_MESSAGE_APPEND_REPLY;
    if (reply && w->profile->late_replies && goes_wrong(w, RAFT_CLUSTER_LATENESS, 300))
        us += (int64_t)below(w, w->profile->short_offices ? 2500000 : 300000);
    return us;
}

void cluster__transmit(struct world *w, struct packet p)
{
    w->report->messages++;
    if (is_lost(w, &p)) {
        w->report->lost++;
        cluster__items_free(&p.entries);
        return;
    }
    int64_t delay = 100 + (int64_t)below(w, 2000) + lateness_us(w, &p);
    if (p.m.type == RAFT_MESSAGE_TIMEOUT_NOW && goes_wrong(w, RAFT_CLUSTER_CUTS, 500))
        cluster__deafen(w, p.from);
    if (goes_wrong(w, RAFT_CLUSTER_DOUBLING, 20)) {
        struct packet twin;
        packet_copy(&twin, &p);
        packet_add(w, twin, delay + (int64_t)below(w, 400000));
        w->report->doubled++;
    }
    packet_add(w, p, delay);
}

void cluster__heal_network(struct world *w)
{
    memset(w->cut, 0, sizeof w->cut);
}

void cluster__cut_network(struct world *w)
{
    w->report->cuts++;
    if (w->profile->half_cuts || w->profile->halves) /* long enough for somebody to be elected */
        w->next_fault = w->now + 500000 + (int64_t)below(w, 600000);
    cluster__heal_network(w);
    switch (w->profile->half_cuts ? 4 : w->profile->halves ? 0 : below(w, 6)) {
    case 4: /* the leader and one other do not hear each other, and the rest hears both … */
    case 5: /* … or has no answer for the leader */
    {
        const struct node *leader = cluster__some_node(w, true);
        uint64_t other = 1 + below(w, w->profile->half_cuts ? w->voters : NODES_MAX);
        if (!leader || leader->id == other)
            break;
        w->cut[leader->id][other] = w->cut[other][leader->id] = true;
        bool answers = chance(w, 500);
        for (uint64_t id = 1; id <= NODES_MAX; id++)
            w->cut[id][leader->id] |= !answers;
        if (w->profile->half_cuts && chance(w, 700)) /* the other stays electable */
            w->next_client = CHR_MAX(w->next_client, w->now + 1000000);
        for (uint64_t id = 1; w->profile->half_cuts && id <= w->voters; id++)
            if (id != leader->id && id != other && goes_wrong(w, RAFT_CLUSTER_CRASHES, 500))
                w->nodes[id].doomed_at = w->now + 350000 + (int64_t)below(w, 500000);
        break;
    }
    case 0: /* two halves */
    {
        uint64_t side = chr_random_u64(&w->random);
        const struct node *leader = cluster__some_node(w, true);
        if (w->profile->halves && leader)
            side = 1u << leader->id | 1u << (1 + below(w, w->voters));
        for (uint32_t a = 1; a <= NODES_MAX; a++)
            for (uint32_t b = 1; b <= NODES_MAX; b++)
                w->cut[a][b] = (side >> a & 1) != (side >> b & 1);
        break;
    }
    case 1: /* one node hears, and is not heard */
    case 2: /* … or the other way round */
    {
        uint32_t id = 1 + (uint32_t)below(w, NODES_MAX);
        bool hears = chance(w, 500);
        for (uint32_t b = 1; b <= NODES_MAX; b++)
            w->cut[hears ? id : b][hears ? b : id] = true;
        break;
    }
    default: /* some links, each way by itself */
        for (uint32_t i = 0; i < NODES_MAX; i++)
            w->cut[1 + below(w, NODES_MAX)][1 + below(w, NODES_MAX)] = true;
    }
}
