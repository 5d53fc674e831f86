#include "broker/cluster_change.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "broker/cluster.h"
#include "broker/node.h"
#include "raft/raft.h"

#define LOOK_NS      20000000
#define HELLO_US     INT64_C(10000000) /* a node that is added says hello within that */
#define BEFORE_US    INT64_C(5000000)  /* the change before is waited for */
#define CATCH_UP_US  INT64_C(5000000)  /* so is a learner that has nearly all */
#define TAKE_OVER_US INT64_C(5000000)
#define ANSWERS_US   INT64_C(2000000) /* a member that was heard of since then answers */

struct change {
    struct broker_node *node;
    struct cluster *cluster;
    const struct call *call;
    const _Atomic bool *stopping;
    struct call_reply *reply;
    int64_t until_us;
    uint64_t id; /* of the node that is named */
    struct broker_cluster_status status;
    struct cluster_member members[CLUSTER_MEMBERS_MAX];
    uint32_t count;
};

static int64_t now_us(const struct change *c)
{
    return chr_clock_mono_us(c->node->clock);
}

CHR_PRINTF(3, 4)
static void fail(struct change *c, chr_err err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->reply->text, sizeof c->reply->text, format, args);
    va_end(args);
    c->reply->status = CALL_FAILED;
    c->reply->err = err;
}

CHR_PRINTF(2, 3) static void done(struct change *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->reply->text, sizeof c->reply->text, format, args);
    va_end(args);
    c->reply->status = CALL_DONE;
}

static void elsewhere(struct change *c)
{
    c->reply->status = CALL_ELSEWHERE;
}

static void look(struct change *c)
{
    c->count = cluster_members(c->cluster, c->members, &c->status);
}

static bool leads(const struct change *c)
{
    return c->status.role == RAFT_LEADER;
}

/* Looks again after a moment. False: the time is over, or the node stops. */
static bool later(struct change *c, int64_t until_us)
{
    const struct timespec moment = {.tv_nsec = LOOK_NS};
    if (atomic_load(c->stopping) || now_us(c) > CHR_MIN(until_us, c->until_us))
        return false;
    nanosleep(&moment, NULL);
    look(c);
    return true;
}

static const struct cluster_member *find(const struct change *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->members[i].node == id)
            return &c->members[i];
    return NULL;
}

static bool answers(const struct cluster_member *m)
{
    return m->self || (m->up && m->heard && !m->replaced && m->heard_us_ago < 2 * ANSWERS_US);
}

/* ---- One change of members --------------------------------------------------------------------
 */

/* Begun, or a reply says why not. */
static bool begin(struct change *c, enum raft_change_type type, uint64_t incarnation)
{
    const char *name = c->call->name;
    int64_t before_us = now_us(c) + BEFORE_US, catch_up_us = now_us(c) + CATCH_UP_US;
    for (;;) {
        chr_err err =
            broker_committer_change(c->node->committer, (int)type,
                                    (struct raft_member){.id = c->id, .incarnation = incarnation});
        look(c);
        if (!err)
            return true;
        if (!leads(c)) {
            elsewhere(c);
            return false;
        }
        if (err == CHR_EBUSY && later(c, before_us))
            continue;
        if (err == CHR_ESTALE && later(c, catch_up_us))
            continue;
        const struct cluster_member *m = find(c, c->id);
        if (err == CHR_EBUSY)
            fail(c, err, "the change before is not finished: try again when it is");
        else if (err == CHR_ESTALE && m && m->state == RAFT_PEER_SNAPSHOT)
            fail(c, err, "%s is too far behind to vote: it is being sent a snapshot", name);
        else if (err == CHR_ESTALE)
            fail(c, err, "%s is too far behind to vote: %" PRIu64 " entries", name,
                 m && m->lag != UINT64_MAX ? m->lag : 0);
        else if (err == CHR_EINVAL)
            fail(c, err, "%s is the last voter", name);
        else if (err == CHR_EFULL)
            fail(c, err, "the cluster is full: at most %u nodes, %u of them voters",
                 RAFT_MEMBERS_MAX, RAFT_VOTERS_MAX);
        else
            fail(c, err, "%s: %s", name, chr_strerror(err));
        return false;
    }
}

/* Waits until what was begun is committed. False: a reply says what is known. */
static bool committed(struct change *c, uint64_t term)
{
    for (;;) {
        if (!leads(c) || c->status.term != term) {
            fail(c, CHR_ETIMEDOUT,
                 "leadership was lost before the change was committed: whether it is made is not "
                 "known; chronos_nodes shows it");
            return false;
        }
        if (!c->status.change_pending)
            return true;
        if (!later(c, c->until_us)) {
            fail(c, CHR_ETIMEDOUT,
                 "the change is begun, but too few voters answer to commit it; it is made when "
                 "they do");
            return false;
        }
    }
}

static bool change_members(struct change *c, enum raft_change_type type, uint64_t incarnation)
{
    return begin(c, type, incarnation) && committed(c, c->status.term);
}

/* Would there be a majority of those that answer, without one or with one more? */
static bool enough_left(struct change *c, uint64_t without, uint64_t with)
{
    uint32_t voters = 0, answering = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct cluster_member *m = &c->members[i];
        bool counts = (m->voter && m->node != without) || m->node == with;
        voters += counts;
        answering += counts && answers(m);
    }
    if (answering > voters / 2)
        return true;
    fail(c, CHR_EINVAL,
         "the cluster would stop: of the %u voters there would be then, only %u answer", voters,
         answering);
    return false;
}

/* ---- What is asked ----------------------------------------------------------------------------
 */

/* Its hello as a node of ours. False: it did not come; a reply says what came. */
static bool wait_for_hello(struct change *c)
{
    const char *name = c->call->name, *address = c->call->address;
    uint64_t cluster = c->members[0].cluster;
    const struct cluster_member *m;
    int64_t until_us = now_us(c) + HELLO_US;
    do {
        m = find(c, c->id);
        if (m && m->heard && m->up && m->cluster == cluster)
            break;
    } while (leads(c) && later(c, until_us));
    if (m && m->heard && m->cluster && m->cluster != cluster)
        fail(c, CHR_EFOREIGN,
             "%s belongs to another cluster (%016" PRIx64 "): it has to begin with an empty data "
             "directory",
             name, m->cluster);
    else if (!m || !m->heard || !m->up || m->cluster != cluster)
        fail(c, CHR_ECLOSED,
             "%s can't be reached at %s: it has to run with --id %s and the nodes of this cluster "
             "in --peers",
             name, address, name);
    else if (m->format < cluster_format(c->cluster))
        fail(c, CHR_EVERSION, "%s (version %s) is too old: this cluster writes format %u already",
             name, m->version, cluster_format(c->cluster));
    else
        return true;
    return false;
}

static void add(struct change *c)
{
    const struct call *call = c->call;
    const struct cluster_member *m = find(c, c->id);
    struct chr_errmsg msg = {{0}};
    struct peer_contact contact = {.name = ""};
    if (m && m->member) {
        fail(c, CHR_EEXIST, "%s is a member already: a %s", call->name,
             m->voter ? "voter" : "learner");
        return;
    }
    memcpy(contact.name, call->name, sizeof contact.name);
    memcpy(contact.address, call->address, sizeof contact.address);
    chr_err err = cluster_invite(c->cluster, &contact, 2 * CLUSTER_CHANGE_US, &msg);
    if (err) {
        fail(c, err, "%s", msg.text);
        return;
    }
    look(c);
    bool ok = wait_for_hello(c);
    m = find(c, c->id);
    ok = ok && m && change_members(c, RAFT_CHANGE_ADD_LEARNER, m->incarnation);
    if (ok)
        done(c, "%s at %s is a learner of the cluster; promote it when it has caught up",
             call->name, call->address);
    else if (c->reply->err != CHR_ETIMEDOUT)
        cluster_uninvite(c->cluster, c->id);
}

static void promote(struct change *c)
{
    const struct cluster_member *m = find(c, c->id);
    int64_t until_us = now_us(c) + CATCH_UP_US;
    /* One that has just received a snapshot starts again on it. */
    while (m && !m->voter && !answers(m) && leads(c) && later(c, until_us))
        m = find(c, c->id);
    if (!m || !leads(c))
        elsewhere(c);
    else if (m->voter)
        fail(c, CHR_EEXIST, "%s is a voter already", c->call->name);
    else if (!answers(m))
        fail(c, CHR_ECLOSED, "%s can't be reached", c->call->name);
    else if (enough_left(c, 0, c->id) && change_members(c, RAFT_CHANGE_PROMOTE, 0))
        done(c, "%s is a voter", c->call->name);
}

/* Leadership goes to a node. False: it did not; the time is over, or it went elsewhere. */
static bool hand_over(struct change *c, uint64_t to)
{
    int64_t until_us = now_us(c) + TAKE_OVER_US;
    uint64_t self = cluster_self(c->cluster);
    for (;;) {
        if (broker_committer_transfer(c->node->committer, to) != CHR_OK)
            return false;
        /* A transfer is given up after an election timeout; then it is tried again. */
        int64_t again_us = now_us(c) + INT64_C(1000000);
        do {
            if (c->status.leader == to)
                return true;
            if (c->status.leader && c->status.leader != self)
                return false;
        } while (later(c, CHR_MIN(again_us, until_us)));
        if (now_us(c) > until_us || !leads(c))
            return false;
    }
}

static const struct cluster_member *best_successor(const struct change *c)
{
    const struct cluster_member *best = NULL;
    for (uint32_t i = 0; i < c->count; i++) {
        const struct cluster_member *m = &c->members[i];
        if (!m->self && m->voter && answers(m) && (!best || m->match > best->match))
            best = m;
    }
    return best;
}

static void remove_node(struct change *c)
{
    const struct cluster_member *m = find(c, c->id);
    uint32_t voters = 0;
    for (uint32_t i = 0; i < c->count; i++)
        voters += c->members[i].voter;
    if (m->voter && voters == 1) {
        fail(c, CHR_EINVAL, "%s is the last voter", c->call->name);
        return;
    }
    if (m->voter && !enough_left(c, c->id, 0))
        return;
    if (m->self) {
        const struct cluster_member *next = best_successor(c);
        if (next && hand_over(c, next->node))
            elsewhere(c); /* whoever leads now does it */
        else
            fail(c, CHR_EBUSY, "%s leads, and nobody took over in time", c->call->name);
        return;
    }
    if (change_members(c, RAFT_CHANGE_REMOVE, 0))
        done(c, "%s is no member any more", c->call->name);
}

static void transfer(struct change *c)
{
    const struct cluster_member *m = find(c, c->id);
    if (m->self)
        done(c, "%s leads already", c->call->name);
    else if (!m->voter)
        fail(c, CHR_EINVAL, "%s is a learner: only a voter can lead", c->call->name);
    else if (!answers(m))
        fail(c, CHR_ECLOSED, "%s can't be reached", c->call->name);
    else if (hand_over(c, c->id))
        done(c, "%s leads", c->call->name);
    else
        fail(c, CHR_EBUSY, "%s did not take over in time", c->call->name);
}

void cluster_change(struct broker_node *node, struct cluster *cluster, const struct call *call,
                    const _Atomic bool *stopping, struct call_reply *reply)
{
    struct change c = {.node = node,
                       .cluster = cluster,
                       .call = call,
                       .stopping = stopping,
                       .reply = reply,
                       .id = cluster_node_number(call->name)};
    c.until_us = now_us(&c) + CLUSTER_CHANGE_US;
    look(&c);
    const struct cluster_member *m = find(&c, c.id);
    bool member = m && m->member;
    if (!leads(&c)) {
        elsewhere(&c);
    } else if (call->kind == CALL_ADD) {
        add(&c);
    } else if (call->kind < CALL_ADD || call->kind > CALL_TRANSFER) {
        fail(&c, CHR_EVERSION, "the leader runs an older version, which does not know this");
    } else if (!member) {
        fail(&c, CHR_ENOTFOUND, "the cluster has no node %s", call->name);
    } else if (call->kind == CALL_PROMOTE) {
        promote(&c);
    } else if (call->kind == CALL_REMOVE) {
        remove_node(&c);
    } else {
        transfer(&c);
    }
    if (reply->status != CALL_ELSEWHERE)
        chr_log_notice("cluster", reply->text, CHR_KV_U("change", call->kind),
                       CHR_KV_C("node", call->name));
}
