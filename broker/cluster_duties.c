/* broker/cluster_duties.c: members that come back, and who the others are. */
#include <string.h>

#include "base/log.h"
#include "broker/cluster_internal.h"
#include "broker/commands/settings.h"
#include "broker/net/acceptor.h"
#include "broker/session/across.h"

/* A member that hears nothing of the others for so long says what may have become of it. */
#define SILENCE_US INT64_C(15000000)

/* ---- What the leader looks after --------------------------------------------------------------
 */

/* C2: a member whose disk is another one than the members say, or that was a voter before. */
void cluster__look_after_members(struct cluster *c)
{
    broker_committer *committer = atomic_load(&c->committer);
    static struct broker_cluster_status status;
    if (broker_committer_leader(committer) != c->self.node)
        return;
    broker_committer_status(committer, &status);
    if (status.role != RAFT_LEADER || status.change_pending)
        return;
    for (uint32_t i = 0; i < status.peers_count; i++) {
        struct broker_peer_status *p = &status.peers[i];
        pthread_mutex_lock(&c->lock);
        const struct known *k = cluster__find(c, p->member.id);
        const struct roster_node *n = roster_find(&c->roster, p->member.id);
        bool ours = k && k->heard && !k->foreign && k->hello.cluster == c->dir->cluster;
        bool votes = n && n->votes;
        uint64_t incarnation = ours ? k->hello.incarnation : 0;
        pthread_mutex_unlock(&c->lock);
        if (!ours)
            continue;
        char name[80];
        cluster_name(c, p->member.id, name);
        chr_err err = CHR_EEXIST;
        if (incarnation != p->member.incarnation) {
            err = broker_committer_change(
                committer, RAFT_CHANGE_REPLACE,
                (struct raft_member){.id = p->member.id, .incarnation = incarnation});
            if (!err)
                chr_log_warning("cluster",
                                "comes with an empty disk: it learns everything anew before it "
                                "votes again",
                                CHR_KV_C("node", name));
        } else if (!p->member.voter && votes) {
            err = broker_committer_change(committer, RAFT_CHANGE_PROMOTE,
                                          (struct raft_member){.id = p->member.id});
            if (!err)
                chr_log_notice("cluster", "has caught up and votes again", CHR_KV_C("node", name));
        }
        if (!err)
            return; /* one at a time */
    }
}

/* ---- Who the others are -----------------------------------------------------------------------
 */

/* lock */
void cluster__remember(struct cluster *c, uint64_t node, const struct peer_contact *contact)
{
    struct known *k = cluster__find(c, node);
    if (!k && c->known_count == PEERS_MAX)
        return;
    if (!k) {
        k = &c->known[c->known_count++];
        *k = (struct known){.node = node, .skew_us = INT64_MIN};
    }
    memcpy(k->name, contact->name, sizeof k->name);
    memcpy(k->address, contact->address, sizeof k->address);
}

/* lock */
static void forget(struct cluster *c, uint64_t node)
{
    struct known *k = cluster__find(c, node);
    peers_remove(c->peers, node);
    if (across_of(c->node))
        across_forget(across_of(c->node), node);
    if (!k)
        return;
    chr_log_info("cluster", "forgotten: it is no member any more", CHR_KV_C("node", k->name));
    *k = c->known[--c->known_count];
}

/* lock. O1: those in the roster are connected to, and no others. */
static void connect_roster(struct cluster *c)
{
    uint64_t gone[PEERS_MAX];
    uint32_t count = roster_forget(&c->roster, chr_clock_mono_us(c->node->clock), gone);
    for (uint32_t i = 0; i < count; i++)
        forget(c, gone[i]);
    for (uint32_t i = 0; i < c->roster.count; i++) {
        const struct roster_node *n = &c->roster.nodes[i];
        const struct known *k = cluster__find(c, n->node);
        char host[256];
        struct peers_peer peer = {.node = n->node, .host = host};
        if (k && strcmp(k->address, n->contact.address) == 0)
            continue;
        chr_err err = net_parse_address(n->contact.address, host, sizeof host, &peer.port, NULL);
        if (!err)
            err = peers_set(c->peers, &peer);
        if (err)
            continue; /* next time */
        cluster__remember(c, n->node, &n->contact);
        chr_log_notice("cluster", "another node", CHR_KV_C("node", n->contact.name),
                       CHR_KV_C("address", n->contact.address));
    }
}

/* lock. Are we one of them? */
static void note_place(struct cluster *c)
{
    enum roster_place place = c->dir->cluster ? roster_place(&c->roster) : ROSTER_OUTSIDE;
    if (place == c->place_logged)
        return;
    if (place == ROSTER_REMOVED)
        chr_log_error("cluster",
                      "this node was removed: it is no member of the cluster any more, hears of "
                      "nothing new and answers no writes; stop it, or add it again");
    else if (place == ROSTER_LEARNER)
        chr_log_notice("cluster", "this node is a learner");
    else if (place == ROSTER_VOTER)
        chr_log_notice("cluster", "this node is a voter");
    c->place_logged = place;
}

/* lock. Members refuse those that they have forgotten, without a word. */
static void note_silence(struct cluster *c)
{
    int64_t now_us = chr_clock_mono_us(c->node->clock);
    bool expected = c->roster.count > 0 && c->dir->cluster;
    for (uint32_t i = 0; i < c->known_count; i++)
        if (c->known[i].heard && now_us - c->known[i].heard_us < SILENCE_US)
            expected = false;
    if (!expected) {
        c->silent_since_us = now_us;
        c->silence_logged = false;
    } else if (!c->silence_logged && now_us - c->silent_since_us > SILENCE_US) {
        chr_log_warning("cluster", "none of the other nodes answers: they are down, or can't be "
                                   "reached, or this node was removed while it was away");
        c->silence_logged = true;
    }
}

/* lock. O4 */
static void raise_format(struct cluster *c)
{
    uint32_t in_use = atomic_load(&c->format);
    uint32_t format = roster_format(&c->roster, in_use, PEER_FORMAT);
    struct chr_errmsg msg = {{0}};
    enum roster_place place = roster_place(&c->roster);
    if (!c->dir->cluster || format == in_use || (place != ROSTER_VOTER && place != ROSTER_LEARNER))
        return;
    c->dir->cluster_format = format;
    if (data_dir_save(c->dir, &msg)) {
        c->dir->cluster_format = in_use;
        return;
    }
    atomic_store(&c->format, format);
    chr_log_notice("cluster", "all members know a newer format; it is written from now on",
                   CHR_KV_U("format", format));
}

void cluster__look_after_roster(struct cluster *c)
{
    pthread_mutex_lock(&c->lock);
    connect_roster(c);
    note_place(c);
    note_silence(c);
    raise_format(c);
    pthread_mutex_unlock(&c->lock);
}

chr_err cluster_invite(struct cluster *c, const struct peer_contact *contact, int64_t timeout_us,
                       struct chr_errmsg *msg)
{
    char host[256];
    uint16_t port;
    uint64_t node = cluster_node_number(contact->name);
    chr_err err = net_parse_address(contact->address, host, sizeof host, &port, msg);
    if (err)
        return err;
    if (!host[0] || !port)
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is no address that others can reach",
                        contact->address);
    if (!c->node->config->cluster.secret && !settings_is_loopback(contact->address))
        return chr_fail(msg, CHR_EINVAL,
                        "nodes that are reached over a network need a cluster-secret, and this "
                        "cluster has none");
    pthread_mutex_lock(&c->lock);
    err = roster_put(&c->roster, node, contact);
    if (err == CHR_EEXIST)
        err = CHR_OK;
    struct roster_node *n = err ? NULL : roster_find(&c->roster, node);
    if (n && !roster_is_member(&c->roster, node))
        roster_join(n, chr_clock_mono_us(c->node->clock) + timeout_us);
    if (!err)
        connect_roster(c);
    pthread_mutex_unlock(&c->lock);
    if (err == CHR_EFULL)
        (void)chr_fail(msg, err, "a cluster has at most %u nodes", PEERS_MAX);
    else if (err)
        (void)chr_fail(msg, err, "\"%s\" is no name of a node: 1 to 63 of a-z, A-Z, 0-9, ., _, -",
                       contact->name);
    atomic_store(&c->say_hello, true);
    chr_wake_signal(&c->wake);
    return err;
}

void cluster_uninvite(struct cluster *c, uint64_t node)
{
    pthread_mutex_lock(&c->lock);
    struct roster_node *n = roster_find(&c->roster, node);
    if (n && !roster_is_member(&c->roster, node))
        roster_join(n, 0);
    connect_roster(c);
    pthread_mutex_unlock(&c->lock);
}
