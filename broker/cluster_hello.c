/* broker/cluster_hello.c: what nodes say of themselves, and what comes of it. */
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "broker/cluster_internal.h"

/* a node that stops waits so long for the others */
#define SKEW_WARN_US INT64_C(500000) /* R14: clocks of one cluster are that near to each other */
/* --bootstrap looks around for so long first. */
#define BOOTSTRAP_GRACE_US INT64_C(3000000)
/* A node that joins, by the word of the leader, is waited for so long. */
#define JOIN_US INT64_C(30000000)

/* lock */
static void fill_self(struct cluster *c)
{
    c->self.cluster = c->dir->cluster;
    c->self.founders = c->dir->founders;
    c->self.wall_ms = (uint64_t)(chr_clock_wall_us(c->node->clock) / 1000);
    roster_tell(&c->roster, &c->self);
}

/* lock */
void cluster__say_hello_to(struct cluster *c, uint64_t node)
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

void cluster__say_hello(struct cluster *c)
{
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->known_count; i++)
        cluster__say_hello_to(c, c->known[i].node);
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
void cluster__found_if_possible(struct cluster *c)
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
void cluster__judge(struct cluster *c, struct known *k)
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

void cluster__hello_received(struct cluster *c, const struct peers_message *message)
{
    static _Thread_local struct peer_hello hello; /* large */
    if (peer_hello_decode(message->bytes, &hello) || hello.node != message->from ||
        hello.node != cluster_node_number(hello.name))
        return;
    pthread_mutex_lock(&c->lock);
    struct known *k = cluster__find(c, message->from);
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
    cluster__judge(c, k);
    if (!c->dir->cluster && hello.cluster && !k->foreign)
        join(c, &hello);
    else
        cluster__found_if_possible(c);
    if (c->dir->cluster && hello.cluster == c->dir->cluster)
        take_news(c, &hello);
    if (news)
        cluster__say_hello_to(c, message->from);
    pthread_mutex_unlock(&c->lock);
    chr_wake_signal(&c->wake);
}
