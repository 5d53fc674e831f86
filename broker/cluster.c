/* broker/cluster.c: the peers, what they say of themselves, and what comes of it. */
#include "broker/cluster.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/wake.h"
#include "broker/cluster_calls.h"
#include "broker/commands/settings.h"
#include "broker/net/acceptor.h"
#include "broker/node.h"
#include "broker/session/across.h"
#include "broker/session/elsewhere.h"
#include "broker/session/wakeups.h"
#include "broker/snapshots.h"
#include "db/durable.h"
#include "db/op.h"

/* The leader looks after members so often; everybody says hello again after ten times that. */
#define DUTY_US      INT64_C(200000)
#define HELLO_US     INT64_C(2000000)
#define WILLS_US     INT64_C(1000000) /* wills nobody has published are looked for so often */
#define LEAVE_MS     2000             /* a node that stops waits so long for the others */
#define SKEW_WARN_US INT64_C(500000)  /* R14: clocks of one cluster are that near to each other */

/* --bootstrap looks around for so long first. */
#define BOOTSTRAP_GRACE_US INT64_C(3000000)
/* A node that joins, by the word of the leader, is waited for so long. */
#define JOIN_US INT64_C(30000000)
/* A member that hears nothing of the others for so long says what may have become of it. */
#define SILENCE_US INT64_C(15000000)

struct known {
    uint64_t node;
    char name[64], address[80];
    bool listed; /* in --peers */
    bool heard;
    struct peer_hello hello;
    int64_t heard_us; /* when last */
    int64_t skew_us, skew_logged_us;
    bool foreign; /* C3 */
    bool spoke;   /* since it was last looked after (C4) */
};

/* A start of a node by which somebody is connected (C4). The cluster's thread only. */
struct watched {
    uint64_t node, boot;
    int64_t silent_us; /* of the time that we led and looked */
    bool there;        /* in the database still */
};
#define WATCHED_MAX 64u

/* NODE_DOWN on its way. */
struct down {
    struct broker_proposal proposal;
    struct cluster *cluster;
    struct db_entry entry;
};

struct cluster {
    struct broker_node *node;
    struct data_dir *dir;
    struct peers *peers; /* set under lock, once; a lane may call before peers_start returns */
    _Atomic(broker_committer *) committer;
    pthread_mutex_t lock; /* all below */
    struct peer_hello self;
    struct snapshots *snapshots;
    struct cluster_calls *calls;
    struct roster roster;
    enum roster_place place_logged;
    bool silence_logged;
    int64_t silent_since_us; /* nobody was heard of since */
    _Atomic uint32_t format; /* in use (O4) */
    struct known known[PEERS_MAX];
    uint32_t known_count;
    bool bootstrap;
    struct watched watched[WATCHED_MAX];
    uint32_t watched_count;
    int64_t watched_us, wills_us; /* when it was last done; 0: not since we lead */
    _Atomic bool down_proposed;
    pthread_t thread;
    bool thread_running;
    struct chr_wake wake;
    _Atomic bool stopping, say_hello;
};

uint64_t cluster_node_number(const char *id)
{
    uint64_t number = chr_hash_bytes(id, strlen(id), UINT64_C(0x6368726f6e6f73));
    return number > 1 ? number : 2;
}

static struct known *find(struct cluster *c, uint64_t node)
{
    for (uint32_t i = 0; i < c->known_count; i++)
        if (c->known[i].node == node)
            return &c->known[i];
    return NULL;
}

void cluster_name(struct cluster *c, uint64_t node, char out[80])
{
    pthread_mutex_lock(&c->lock);
    const struct known *k = find(c, node);
    const char *name = node == c->self.node ? c->self.name : k && k->name[0] ? k->name : NULL;
    if (name)
        snprintf(out, 80, "%s", name);
    else
        snprintf(out, 80, "node %016" PRIx64, node);
    pthread_mutex_unlock(&c->lock);
}

/* ---- Hello ------------------------------------------------------------------------------------
 */

/* lock */
static void fill_self(struct cluster *c)
{
    c->self.cluster = c->dir->cluster;
    c->self.founders = c->dir->founders;
    c->self.wall_ms = (uint64_t)(chr_clock_wall_us(c->node->clock) / 1000);
    roster_tell(&c->roster, &c->self);
}

/* lock */
static void say_hello_to(struct cluster *c, uint64_t node)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 16384);
    fill_self(c);
    if (!peer_hello_encode(&c->self, &buf)) {
        chr_slice bytes = chr_buf_slice(&buf);
        (void)!peers_send(c->peers, node, PEERS_CONTROL, PEERS_HELLO, &bytes, 1);
    }
    chr_buf_free(&buf);
}

static void say_hello(struct cluster *c)
{
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->known_count; i++)
        say_hello_to(c, c->known[i].node);
    pthread_mutex_unlock(&c->lock);
}

/* lock. We belong to a cluster from now on; it is written down before anybody is told. */
static void enter(struct cluster *c, uint64_t cluster, const struct raft_members *founders)
{
    struct chr_errmsg msg = {{0}};
    struct data_dir next = *c->dir;
    next.cluster = cluster;
    if (founders) {
        next.founders = *founders;
        (void)roster_members(&c->roster, 0, founders, chr_clock_mono_us(c->node->clock));
        roster_save(&c->roster, &next);
    }
    if (data_dir_save(&next, &msg)) {
        chr_log_error("cluster", "can't write down which cluster this is; trying again",
                      CHR_KV_C("detail", msg.text));
        return;
    }
    *c->dir = next;
    atomic_store(&c->say_hello, true);
    if (!founders)
        return;
    broker_committer *committer = atomic_load(&c->committer);
    chr_err err = broker_committer_found(committer, founders);
    if (err && err != CHR_EEXIST)
        chr_log_error("cluster", "can't begin", CHR_KV_C("error", chr_strerror(err)));
}

static uint64_t cluster_number(const struct raft_members *founders)
{
    uint8_t bytes[RAFT_MEMBERS_BYTES_MAX];
    size_t len = raft_members_encode(founders, bytes);
    uint64_t number = chr_hash_bytes(bytes, len, 0);
    return number ? number : 1;
}

/* lock. --bootstrap does without those that are not there; who is there has had time to say so. */
static bool may_bootstrap(const struct cluster *c)
{
    if (chr_clock_mono_us(c->node->clock) - c->node->started_mono_us < BOOTSTRAP_GRACE_US)
        return false;
    for (uint32_t i = 0; i < c->known_count; i++)
        if (c->known[i].listed && !c->known[i].heard &&
            peers_up(c->peers, c->known[i].node, PEERS_CONTROL))
            return false;
    return true;
}

/* lock. C1 */
static void found_if_possible(struct cluster *c)
{
    struct raft_members founders = {0};
    uint32_t missing = 0;
    if (c->dir->cluster)
        return;
    chr_err err =
        raft_members_add(&founders, (struct raft_member){c->self.node, c->self.incarnation, true});
    for (uint32_t i = 0; i < c->known_count && !err; i++) {
        const struct known *k = &c->known[i];
        if (!k->listed)
            continue;
        if (!k->heard || k->hello.cluster || k->hello.peers_hash != c->self.peers_hash)
            missing++;
        else
            err = raft_members_add(&founders,
                                   (struct raft_member){k->node, k->hello.incarnation, true});
    }
    if (err || (missing && !(c->bootstrap && may_bootstrap(c))))
        return;
    /* One node decides, or two could, about different disks. */
    if (founders.items[0].id != c->self.node)
        return;
    uint64_t number = cluster_number(&founders);
    chr_log_notice("cluster", missing ? "founded by --bootstrap" : "founded",
                   CHR_KV_U("cluster", number), CHR_KV_U("nodes", founders.count),
                   CHR_KV_U("missing", missing));
    c->bootstrap = false;
    enter(c, number, &founders);
}

/* lock. Somebody belongs to a cluster, and we to none. */
static void join(struct cluster *c, const struct peer_hello *hello)
{
    const struct raft_member *us = raft_members_find(&hello->founders, c->self.node);
    bool founder = us && us->incarnation == c->self.incarnation;
    chr_log_notice("cluster", founder ? "founded by another node" : "joins; it is not a member yet",
                   CHR_KV_U("cluster", hello->cluster), CHR_KV_C("of", hello->name));
    enter(c, hello->cluster, founder ? &hello->founders : NULL);
}

static void note_skew(struct cluster *c, struct known *k)
{
    int64_t wall_us = chr_clock_wall_us(c->node->clock);
    k->skew_us = (int64_t)k->hello.wall_ms * 1000 - wall_us;
    int64_t apart_us = k->skew_us < 0 ? -k->skew_us : k->skew_us;
    if (apart_us > SKEW_WARN_US && wall_us - k->skew_logged_us > INT64_C(60000000)) {
        k->skew_logged_us = wall_us;
        chr_log_warning("cluster",
                        "clocks differ: what expires or is stamped by a leader is off by as much",
                        CHR_KV_C("node", k->name), CHR_KV_I("ahead_ms", k->skew_us / 1000));
    }
}

/* lock. Of the same cluster: who belongs to it, and how others are reached. */
static void take_news(struct cluster *c, const struct peer_hello *hello)
{
    int64_t now_us = chr_clock_mono_us(c->node->clock);
    bool leader = broker_committer_leader(atomic_load(&c->committer)) == hello->node;
    bool news = roster_members(&c->roster, hello->members_index, &hello->members, now_us);
    for (uint32_t i = 0; i < hello->peers_count; i++) {
        const struct peer_contact *p = &hello->peers[i];
        news |= roster_learn(&c->roster, cluster_node_number(p->name), p, leader, now_us + JOIN_US);
    }
    struct roster_node *n = roster_find(&c->roster, hello->node);
    if (n)
        n->format = hello->format;
    struct chr_errmsg msg = {{0}};
    if (!news)
        return;
    roster_save(&c->roster, c->dir);
    if (data_dir_save(c->dir, &msg))
        chr_log_error("cluster", "can't write down who the members are",
                      CHR_KV_C("detail", msg.text));
}

/* lock. C3 */
static void judge(struct cluster *c, struct known *k)
{
    const struct peer_hello *hello = &k->hello;
    uint32_t format = atomic_load(&c->format);
    bool other = c->dir->cluster && hello->cluster && hello->cluster != c->dir->cluster;
    bool old = hello->format < format;
    if (other && !k->foreign)
        chr_log_error("cluster", "belongs to another cluster; nothing is taken from it",
                      CHR_KV_C("node", hello->name), CHR_KV_U("cluster", hello->cluster));
    else if (old && !k->foreign)
        chr_log_error("cluster",
                      "is too old for what this cluster writes already; nothing is taken from it "
                      "until it runs a newer version",
                      CHR_KV_C("node", hello->name), CHR_KV_C("version", hello->version),
                      CHR_KV_U("knows_format", hello->format), CHR_KV_U("in_use", format));
    k->foreign = other || old;
}

static void hello_received(struct cluster *c, const struct peers_message *message)
{
    static _Thread_local struct peer_hello hello; /* large */
    if (peer_hello_decode(message->bytes, &hello) || hello.node != message->from ||
        hello.node != cluster_node_number(hello.name))
        return;
    pthread_mutex_lock(&c->lock);
    struct known *k = find(c, message->from);
    if (!k) { /* just forgotten */
        pthread_mutex_unlock(&c->lock);
        return;
    }
    if (k->heard && hello.incarnation == k->hello.incarnation && hello.boot < k->hello.boot) {
        pthread_mutex_unlock(&c->lock); /* of an earlier connection */
        return;
    }
    bool news = !k->heard || memcmp(&k->hello.incarnation, &hello.incarnation, 8) ||
                k->hello.cluster != hello.cluster || k->hello.boot != hello.boot;
    if (!k->heard && k->listed && hello.peers_hash != c->self.peers_hash && !hello.cluster &&
        !c->dir->cluster)
        chr_log_error("cluster", "lists other nodes in --peers than we do",
                      CHR_KV_C("node", hello.name));
    k->heard = k->spoke = true;
    k->hello = hello;
    k->heard_us = chr_clock_mono_us(c->node->clock);
    note_skew(c, k);
    judge(c, k);
    if (!c->dir->cluster && hello.cluster && !k->foreign)
        join(c, &hello);
    else
        found_if_possible(c);
    if (c->dir->cluster && hello.cluster == c->dir->cluster)
        take_news(c, &hello);
    if (news)
        say_hello_to(c, message->from);
    pthread_mutex_unlock(&c->lock);
    chr_wake_signal(&c->wake);
}

/* ---- Lanes ------------------------------------------------------------------------------------
 */

static bool foreign(struct cluster *c, uint64_t node)
{
    pthread_mutex_lock(&c->lock);
    struct known *k = find(c, node);
    bool is = !k || !k->heard || k->foreign || !c->dir->cluster;
    if (!is)
        k->spoke = true;
    pthread_mutex_unlock(&c->lock);
    return is;
}

static void received(void *ctx, struct peers_message *message)
{
    struct cluster *c = ctx;
    broker_committer *committer = atomic_load(&c->committer);
    if (!committer) { /* perhaps even before peers_start has returned */
        pthread_mutex_lock(&c->lock);
        peers_release(c->peers, message);
        pthread_mutex_unlock(&c->lock);
        return;
    }
    switch (message->kind) {
    case PEERS_HELLO:
        hello_received(c, message);
        break;
    case PEERS_RAFT:
    case PEERS_APPEND:
    case PEERS_FORWARD:
    case PEERS_FORWARDED:
        if (foreign(c, message->from))
            break;
        broker_committer_received(committer, message);
        return;
    case PEERS_SNAPSHOT:
    case PEERS_SNAPSHOT_REPLY:
        if (foreign(c, message->from))
            break;
        snapshots_received(c->snapshots, message);
        return;
    case PEERS_DELIVER:
    case PEERS_DELIVERED:
        if (across_of(c->node) && !foreign(c, message->from))
            across_received(across_of(c->node), message);
        break;
    case PEERS_CONNECTED:
        if (!foreign(c, message->from))
            elsewhere_received(c->node, message);
        break;
    case PEERS_CALL:
    case PEERS_CALL_REPLY:
        if (!foreign(c, message->from))
            cluster_calls_received(c->calls, message);
        break;
    default:
        break;
    }
    peers_release(c->peers, message);
}

static void changed(void *ctx, uint64_t node, enum peers_lane lane, bool up)
{
    struct cluster *c = ctx;
    char name[80];
    cluster_name(c, node, name);
    if (lane == PEERS_CONTROL)
        chr_log_info("cluster", up ? "connected" : "connection lost", CHR_KV_C("node", name));
    if (up && lane == PEERS_CONTROL) {
        pthread_mutex_lock(&c->lock);
        say_hello_to(c, node);
        pthread_mutex_unlock(&c->lock);
    }
    broker_committer *committer = atomic_load(&c->committer);
    if (up && committer)
        broker_committer_lane(committer);
    if (across_of(c->node))
        across_lane(across_of(c->node), node, lane, up);
}

static void writable(void *ctx, uint64_t node, enum peers_lane lane)
{
    struct cluster *c = ctx;
    broker_committer *committer = atomic_load(&c->committer);
    if (committer && lane == PEERS_BULK)
        broker_committer_lane(committer);
    if (across_of(c->node))
        across_writable(across_of(c->node), node, lane);
}

/* Under the core's lock. */
static void snapshot_wanted(void *ctx, uint64_t node)
{
    struct cluster *c = ctx;
    snapshots_wanted(c->snapshots, node);
}

/* For the sender of one. Called while the log keeps what is behind index. */
void cluster_describe(struct cluster *c, uint64_t *cluster, uint64_t *members_index,
                      struct raft_members *members)
{
    pthread_mutex_lock(&c->lock);
    *cluster = c->dir->cluster;
    *members_index = c->dir->members.count ? c->dir->members_index : 0;
    *members = c->dir->members.count ? c->dir->members : c->dir->founders;
    pthread_mutex_unlock(&c->lock);
}

/* ---- What the leader looks after --------------------------------------------------------------
 */

/* C2: a member whose disk is another one than the members say, or that was a voter before. */
static void look_after_members(struct cluster *c)
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
        const struct known *k = find(c, p->member.id);
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

/* ---- Nodes that are no more (C4) --------------------------------------------------------------
 */

static void watch(void *arg, uint64_t node, uint64_t boot, uint64_t connected)
{
    struct cluster *c = arg;
    (void)connected;
    for (uint32_t i = 0; i < c->watched_count; i++)
        if (c->watched[i].node == node && c->watched[i].boot == boot) {
            c->watched[i].there = true;
            return;
        }
    if (c->watched_count < WATCHED_MAX)
        c->watched[c->watched_count++] =
            (struct watched){.node = node, .boot = boot, .there = true};
}

/* Is it no more? passed_us: of time that it could have said something. */
static bool is_down(struct cluster *c, struct watched *w, int64_t passed_us)
{
    if (w->node == c->self.node) /* an earlier start of ours, if it is not this one */
        return w->boot != c->self.boot;
    if (w->node == 0) /* it was a node alone that wrote this */
        return true;
    const struct known *k = find(c, w->node);
    if (k && k->heard && k->hello.boot > w->boot)
        return true;
    if (k && k->spoke && k->hello.boot == w->boot)
        w->silent_us = 0;
    else
        w->silent_us += passed_us;
    return w->silent_us > (int64_t)c->node->config->cluster.node_timeout_ms * 1000;
}

static void down_done(struct broker_proposal *proposal, chr_err err,
                      const struct db_apply_result *result)
{
    struct down *down = CHR_CONTAINER_OF(proposal, struct down, proposal);
    (void)err, (void)result;
    atomic_store(&down->cluster->down_proposed, false);
    db_entry_free(&down->entry);
    free(down);
}

static chr_err make_down(struct db_entry *entry, uint64_t node, uint64_t boot)
{
    db_entry_init(entry, 4096);
    db_entry_begin(entry, 0, 0);
    db_entry_add_node_down(entry, node, boot);
    return db_entry_end(entry);
}

static void declare_down(struct cluster *c, const struct watched *w)
{
    struct down *down = calloc(1, sizeof *down);
    char name[80];
    if (!down)
        return;
    cluster_name(c, w->node, name);
    down->cluster = c;
    down->proposal = (struct broker_proposal){.type = RAFT_ENTRY_DATA, .done = down_done};
    chr_err err = make_down(&down->entry, w->node, w->boot);
    down->proposal.bytes = chr_buf_slice(&down->entry.bytes);
    atomic_store(&c->down_proposed, true);
    if (!err)
        err = broker_propose(atomic_load(&c->committer), &down->proposal);
    if (!err) {
        chr_log_notice("cluster", "is down: the sessions of its clients are closed",
                       CHR_KV_C("node", name), CHR_KV_U("boot", w->boot),
                       CHR_KV_I("silent_ms", w->silent_us / 1000));
        return;
    }
    atomic_store(&c->down_proposed, false);
    db_entry_free(&down->entry);
    free(down);
}

/* A pause of ours is not their silence, so no more than a few rounds count at once. */
static void look_after_sessions(struct cluster *c)
{
    broker_committer *committer = atomic_load(&c->committer);
    int64_t now_us = chr_clock_mono_us(c->node->clock);
    if (broker_committer_leader(committer) != c->self.node) {
        c->watched_us = c->wills_us = 0;
        c->watched_count = 0;
        return;
    }
    struct wakeups *wakeups = atomic_load_explicit(&c->node->wakeups, memory_order_acquire);
    if (wakeups && now_us - c->wills_us > WILLS_US) {
        wakeups_wills_look(wakeups, c->node->db, c->wills_us != 0);
        c->wills_us = now_us;
    }
    if (c->watched_us && now_us - c->watched_us < DUTY_US)
        return;
    int64_t passed_us = c->watched_us ? CHR_MIN(now_us - c->watched_us, 4 * DUTY_US) : 0;
    c->watched_us = now_us;
    for (uint32_t i = 0; i < c->watched_count; i++)
        c->watched[i].there = false;
    db_node_starts_read(c->node->db, watch, c);
    const struct watched *down = NULL;
    pthread_mutex_lock(&c->lock);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->watched_count; i++) {
        if (!c->watched[i].there)
            continue;
        struct watched *w = &c->watched[kept++];
        *w = c->watched[i];
        if (is_down(c, w, passed_us))
            down = w;
    }
    c->watched_count = kept;
    for (uint32_t i = 0; i < c->known_count; i++)
        c->known[i].spoke = false;
    pthread_mutex_unlock(&c->lock);
    if (down && !atomic_load(&c->down_proposed)) /* one at a time */
        declare_down(c, down);
}

struct own_start {
    const struct cluster *cluster;
    bool there;
};

static void find_own(void *arg, uint64_t node, uint64_t boot, uint64_t connected)
{
    struct own_start *own = arg;
    (void)connected;
    own->there |= node == own->cluster->self.node && boot == own->cluster->self.boot;
}

void cluster_leave(struct cluster *c)
{
    struct own_start own = {.cluster = c};
    if (!c || !c->dir->cluster || !atomic_load(&c->committer))
        return;
    db_node_starts_read(c->node->db, find_own, &own);
    if (!own.there)
        return;
    struct db_entry entry;
    chr_err err = make_down(&entry, c->self.node, c->self.boot);
    if (!err)
        err = broker_propose_wait(atomic_load(&c->committer), chr_buf_slice(&entry.bytes), LEAVE_MS,
                                  NULL, NULL);
    if (err && err != CHR_ETIMEDOUT)
        chr_log_info("cluster", "the others will find out that this node has stopped",
                     CHR_KV_C("error", chr_strerror(err)));
    db_entry_free(&entry);
}

void cluster_tell(struct cluster *c, enum peers_kind kind, const chr_slice *parts,
                  uint32_t parts_count)
{
    uint64_t nodes[PEERS_MAX];
    uint32_t count = 0;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->known_count; i++)
        nodes[count++] = c->known[i].node;
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < count; i++)
        (void)!peers_send(c->peers, nodes[i], PEERS_CONTROL, (uint8_t)kind, parts, parts_count);
}

/* ---- Who the others are -----------------------------------------------------------------------
 */

/* lock */
static void remember(struct cluster *c, uint64_t node, const struct peer_contact *contact)
{
    struct known *k = find(c, node);
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
    struct known *k = find(c, node);
    peers_remove(c->peers, node);
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
        const struct known *k = find(c, n->node);
        char host[256];
        struct peers_peer peer = {.node = n->node, .host = host};
        if (k && strcmp(k->address, n->contact.address) == 0)
            continue;
        chr_err err = net_parse_address(n->contact.address, host, sizeof host, &peer.port, NULL);
        if (!err)
            err = peers_set(c->peers, &peer);
        if (err)
            continue; /* next time */
        remember(c, n->node, &n->contact);
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

static void look_after_roster(struct cluster *c)
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

static void *cluster_main(void *arg)
{
    struct cluster *c = arg;
    pthread_setname_np(pthread_self(), "cluster");
    int64_t said_us = 0;
    while (!atomic_load(&c->stopping)) {
        int64_t now_us = chr_clock_mono_us(c->node->clock);
        bool say = atomic_exchange(&c->say_hello, false);
        if (say || now_us - said_us > HELLO_US) {
            say_hello(c);
            said_us = now_us;
        }
        pthread_mutex_lock(&c->lock);
        found_if_possible(c);
        pthread_mutex_unlock(&c->lock);
        look_after_roster(c);
        look_after_members(c);
        look_after_sessions(c);
        uint32_t ticket = chr_wake_prepare(&c->wake);
        if (atomic_load(&c->stopping) || atomic_load(&c->say_hello))
            chr_wake_cancel(&c->wake);
        else
            chr_wake_wait(&c->wake, ticket, DUTY_US);
    }
    return NULL;
}

#define MEMBERS_RETRY_US 200000u

/* Applier: what the log will not say any more once it is cut. */
static void members_applied(void *ctx, uint64_t index, uint64_t term,
                            const struct raft_members *members)
{
    struct cluster *c = ctx;
    struct chr_errmsg msg = {{0}};
    chr_err err;
    for (bool said = false;; said = true) {
        pthread_mutex_lock(&c->lock);
        c->dir->members = *members;
        c->dir->members_index = index;
        c->dir->members_term = term;
        (void)roster_members(&c->roster, index, members, chr_clock_mono_us(c->node->clock));
        roster_save(&c->roster, c->dir);
        err = data_dir_save(c->dir, &msg);
        pthread_mutex_unlock(&c->lock);
        if (!err) {
            atomic_store(&c->say_hello, true);
            chr_wake_signal(&c->wake);
            return;
        }
        /* Nothing is applied until it is: a checkpoint beyond it would let the log go that says it,
         * and the next start would count wrong majorities. */
        if (!said)
            chr_log_error("cluster", "can't write down who the members are; waiting",
                          CHR_KV_C("detail", msg.text));
        if (atomic_load(&c->node->stopping))
            _exit(EXIT_FAILURE);
        (void)usleep(MEMBERS_RETRY_US);
    }
}

/* ---- Start and stop ---------------------------------------------------------------------------
 */

static chr_err add_listed(struct cluster *c, const char *text, size_t len, struct chr_errmsg *msg)
{
    const char *equals = memchr(text, '=', len);
    struct peer_contact contact = {.name = ""};
    if (!equals || equals == text || (size_t)(equals - text) >= sizeof contact.name ||
        len - (size_t)(equals - text) > sizeof contact.address)
        return chr_fail(msg, CHR_EINVAL, "peers: `%.*s` is not ID=HOST:PORT", (int)len, text);
    memcpy(contact.name, text, (size_t)(equals - text));
    memcpy(contact.address, equals + 1, len - (size_t)(equals + 1 - text));
    uint64_t node = cluster_node_number(contact.name);
    if (node == c->self.node || find(c, node))
        return chr_fail(msg, CHR_EINVAL, "peers: %s is named twice, or is this node itself",
                        contact.name);
    chr_err err = roster_put(&c->roster, node, &contact);
    if (err == CHR_EFULL)
        return chr_fail(msg, err, "peers: more than %u", PEERS_MAX);
    if (err)
        return chr_fail(msg, err, "peers: `%.*s`: not a name (a-z, A-Z, 0-9, ., _, -) and address",
                        (int)len, text);
    roster_find(&c->roster, node)->listed = true;
    remember(c, node, &contact);
    find(c, node)->listed = true;
    return CHR_OK;
}

static chr_err parse_peers(struct cluster *c, const char *text, struct chr_errmsg *msg)
{
    chr_err err = CHR_OK;
    while (text && *text && !err) {
        size_t len = strcspn(text, ",");
        if (len)
            err = add_listed(c, text, len, msg);
        text += len + (text[len] == ',');
    }
    return err;
}

/* Of the sorted names: every node lists the same. */
static uint64_t peers_hash(const struct cluster *c)
{
    uint64_t sum = c->self.node;
    for (uint32_t i = 0; i < c->known_count; i++)
        sum += c->known[i].node; /* numbers are hashes already */
    return sum;
}

static bool all_loopback(const struct cluster *c, const char *address)
{
    bool all = settings_is_loopback(address);
    for (uint32_t i = 0; i < c->known_count; i++)
        all &= settings_is_loopback(c->known[i].address);
    return all;
}

static chr_err open_peers(struct cluster *c, struct chr_errmsg *msg)
{
    const struct broker_config *config = c->node->config;
    struct peers_peer list[PEERS_MAX];
    char hosts[PEERS_MAX][256];
    for (uint32_t i = 0; i < c->known_count; i++) {
        list[i] = (struct peers_peer){.node = c->known[i].node, .host = hosts[i]};
        chr_err err =
            net_parse_address(c->known[i].address, hosts[i], sizeof hosts[i], &list[i].port, msg);
        if (err)
            return err;
    }
    const char *secret = config->cluster.secret;
    if (!secret && !all_loopback(c, config->address))
        return chr_fail(msg, CHR_EINVAL,
                        "cluster-secret: nodes that are reached over a network need one, the same "
                        "on each");
    struct peers_options options = {
        .self = c->self.node,
        .secret = secret ? chr_slice_cstr(secret) : (chr_slice){0},
        .peers = list,
        .peers_count = c->known_count,
        .clock = c->node->clock,
        .ctx = c,
        .received = received,
        .changed = changed,
        .writable = writable,
    };
    pthread_mutex_lock(&c->lock);
    chr_err err = peers_start(&options, &c->peers, msg);
    pthread_mutex_unlock(&c->lock);
    return err;
}

/* Members that came later, from node.meta. */
static chr_err open_roster(struct cluster *c, struct chr_errmsg *msg)
{
    if (c->dir->cluster_format > PEER_FORMAT)
        return chr_fail(msg, CHR_EVERSION,
                        "the cluster of %s writes format %u already; this program knows %u: run "
                        "the version that the other nodes run",
                        c->dir->path, c->dir->cluster_format, PEER_FORMAT);
    atomic_store(&c->format, c->dir->cluster_format);
    roster_load(&c->roster, c->dir, cluster_node_number);
    for (uint32_t i = 0; i < c->roster.count; i++)
        if (!find(c, c->roster.nodes[i].node))
            remember(c, c->roster.nodes[i].node, &c->roster.nodes[i].contact);
    c->silent_since_us = chr_clock_mono_us(c->node->clock);
    return CHR_OK;
}

chr_err cluster_open(struct broker_node *node, struct cluster **out, struct chr_errmsg *msg)
{
    const struct broker_config *config = node->config;
    struct cluster *c = calloc(1, sizeof *c);
    if (!c)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    c->node = node;
    c->dir = &node->dir;
    pthread_mutex_init(&c->lock, NULL);
    chr_wake_init(&c->wake);
    c->bootstrap = config->cluster.bootstrap;
    c->self = (struct peer_hello){.node = node->dir.node,
                                  .incarnation = node->dir.incarnation,
                                  .boot = node->dir.boot,
                                  .format = PEER_FORMAT};
    snprintf(c->self.version, sizeof c->self.version, "%s", CHRONOS_VERSION);
    snprintf(c->self.name, sizeof c->self.name, "%s", config->cluster.id);
    snprintf(c->self.address, sizeof c->self.address, "%s", config->address);
    c->roster.self = c->self.node;
    c->roster.incarnation = c->self.incarnation;
    chr_err err =
        roster_name_valid(config->cluster.id)
            ? parse_peers(c, config->cluster.peers, msg)
            : chr_fail(msg, CHR_EINVAL,
                       "id: \"%s\" is no name of a node: 1 to 63 of a-z, A-Z, 0-9, ., _, -",
                       config->cluster.id);
    c->self.peers_hash = peers_hash(c);
    if (!err)
        err = open_roster(c, msg);
    if (!err)
        err = open_peers(c, msg);
    if (!err)
        err = snapshots_open(node, c->peers, &c->snapshots);
    if (!err)
        err = cluster_calls_open(node, c, c->peers, &c->calls);
    if (err) {
        cluster_free(c);
        return err;
    }
    *out = c;
    return CHR_OK;
}

void cluster_for_committer(struct cluster *c, struct broker_cluster *out)
{
    const struct broker_config *config = c->node->config;
    const struct data_dir *dir = c->dir;
    *out = (struct broker_cluster){
        .self = dir->node,
        .incarnation = dir->incarnation,
        .boot = dir->boot,
        .peers = c->peers,
        .members = dir->members.count ? dir->members : dir->founders,
        .members_index = dir->members.count ? dir->members_index : 0,
        .lost_tail = config->fsync == RAFT_FSYNC_PERIODIC && !dir->was_clean,
        .election_min_us = (int64_t)config->cluster.election_ms * 1000,
        .heartbeat_us = (int64_t)config->cluster.heartbeat_ms * 1000,
        .ctx = c,
        .members_applied = members_applied,
        .snapshot_wanted = snapshot_wanted,
    };
}

chr_err cluster_start(struct cluster *c)
{
    atomic_store(&c->committer, c->node->committer);
    if (pthread_create(&c->thread, NULL, cluster_main, c))
        return CHR_ENOMEM;
    c->thread_running = true;
    chr_err err = snapshots_start(c->snapshots);
    if (!err)
        err = cluster_calls_start(c->calls);
    if (err)
        return err;
    atomic_store(&c->say_hello, true);
    chr_wake_signal(&c->wake);
    return CHR_OK;
}

void cluster_stop_snapshots(struct cluster *c)
{
    if (c)
        snapshots_stop(c->snapshots);
}

void cluster_stop(struct cluster *c)
{
    if (!c)
        return;
    atomic_store(&c->stopping, true);
    chr_wake_signal(&c->wake);
    if (c->thread_running)
        pthread_join(c->thread, NULL);
    c->thread_running = false;
    cluster_calls_stop(c->calls);
    peers_stop(c->peers);
}

void cluster_free(struct cluster *c)
{
    if (!c)
        return;
    cluster_calls_free(c->calls);
    snapshots_free(c->snapshots);
    peers_free(c->peers);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

struct peers *cluster_peers(struct cluster *c)
{
    return c ? c->peers : NULL;
}

uint64_t cluster_self(const struct cluster *c)
{
    return c ? c->self.node : 0;
}

struct cluster_calls *cluster_calls(struct cluster *c)
{
    return c ? c->calls : NULL;
}

uint32_t cluster_format(const struct cluster *c)
{
    return c ? atomic_load(&c->format) : PEER_FORMAT;
}

enum roster_place cluster_place(struct cluster *c)
{
    pthread_mutex_lock(&c->lock);
    enum roster_place place = c->dir->cluster ? roster_place(&c->roster) : ROSTER_OUTSIDE;
    pthread_mutex_unlock(&c->lock);
    return place;
}

void cluster_snapshots_stats(struct cluster *c, struct snapshots_stats *out)
{
    snapshots_stats(c->snapshots, out);
}

/* ---- As others see it -------------------------------------------------------------------------
 */

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
        *m = (struct cluster_member){.node = k->node,
                                     .up = peers_up(c->peers, k->node, PEERS_CONTROL),
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
