/* broker/cluster_view.c: members, roster and peers as operators see them. */
#include <string.h>

#include "broker/cluster_internal.h"

static void fill_from_raft(struct cluster_member *m, const struct broker_cluster_status *status)
{
    m->lag = UINT64_MAX;
    m->state = -1;
    for (uint32_t i = 0; i < status->peers_count; i++) {
        const struct broker_peer_status *p = &status->peers[i];
        if (p->member.id != m->node)
            continue;
        m->member = true;
        m->voter = p->member.voter;
        m->replaced = m->heard && m->incarnation != p->member.incarnation;
        if (status->role != RAFT_LEADER)
            return;
        m->match = p->match;
        m->lag = status->last_index > p->match ? status->last_index - p->match : 0;
        m->state = p->state;
        if (p->heard_us_ago >= 0 && m->heard)
            m->heard_us_ago = CHR_MIN(m->heard_us_ago, p->heard_us_ago);
    }
}

uint32_t cluster_members(struct cluster *c, struct cluster_member out[CLUSTER_MEMBERS_MAX],
                         struct broker_cluster_status *status)
{
    broker_committer_status(c->node->committer, status);
    uint32_t count = 0;
    int64_t now_us = chr_clock_mono_us(c->node->clock);
    pthread_mutex_lock(&c->lock);
    struct cluster_member *m = &out[count++];
    *m = (struct cluster_member){.node = c->self.node,
                                 .self = true,
                                 .up = true,
                                 .heard = true,
                                 .cluster = c->dir->cluster,
                                 .incarnation = c->self.incarnation,
                                 .format = PEER_FORMAT};
    memcpy(m->name, c->self.name, sizeof c->self.name);
    memcpy(m->address, c->self.address, sizeof m->address);
    memcpy(m->version, c->self.version, sizeof m->version);
    for (uint32_t i = 0; i < c->known_count; i++) {
        const struct known *k = &c->known[i];
        m = &out[count++];
        *m =
            (struct cluster_member){.node = k->node,
                                    .up = !k->foreign && peers_up(c->peers, k->node, PEERS_CONTROL),
                                    .heard = k->heard,
                                    .heard_us_ago = now_us - k->heard_us,
                                    .skew_us = k->heard ? k->skew_us : INT64_MIN,
                                    .cluster = k->hello.cluster,
                                    .incarnation = k->hello.incarnation,
                                    .format = k->heard ? k->hello.format : 0};
        memcpy(m->name, k->name, sizeof k->name);
        memcpy(m->address, k->address, sizeof m->address);
        memcpy(m->version, k->hello.version, sizeof m->version);
    }
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < status->peers_count; i++) {
        bool listed = false;
        for (uint32_t j = 0; j < count; j++)
            listed |= out[j].node == status->peers[i].member.id;
        if (listed || count == CLUSTER_MEMBERS_MAX)
            continue;
        m = &out[count++];
        *m = (struct cluster_member){.node = status->peers[i].member.id, .skew_us = INT64_MIN};
        cluster_name(c, m->node, m->name);
    }
    for (uint32_t i = 0; i < count; i++) {
        out[i].leader = out[i].node == status->leader;
        fill_from_raft(&out[i], status);
    }
    return count;
}
