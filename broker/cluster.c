/* broker/cluster.c: the peers: their lanes, the thread that looks after them, start and stop. */
#include "broker/cluster_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "bridge/peer_tls.h"
#include "broker/cluster_calls.h"
#include "broker/commands/settings.h"
#include "broker/net/acceptor.h"
#include "broker/session/across.h"
#include "broker/session/elsewhere.h"
#include "broker/snapshots.h"

#define HELLO_US INT64_C(2000000)

uint64_t cluster_node_number(const char *id)
{
    uint64_t number = chr_hash_bytes(id, strlen(id), UINT64_C(0x6368726f6e6f73));
    return number > 1 ? number : 2;
}

struct known *cluster__find(struct cluster *c, uint64_t node)
{
    for (uint32_t i = 0; i < c->known_count; i++)
        if (c->known[i].node == node)
            return &c->known[i];
    return NULL;
}

void cluster_name(struct cluster *c, uint64_t node, char out[80])
{
    pthread_mutex_lock(&c->lock);
    const struct known *k = cluster__find(c, node);
    const char *name = node == c->self.node ? c->self.name : k && k->name[0] ? k->name : NULL;
    if (name)
        snprintf(out, 80, "%s", name);
    else
        snprintf(out, 80, "node %016" PRIx64, node);
    pthread_mutex_unlock(&c->lock);
}

/* ---- Lanes ------------------------------------------------------------------------------------
 */

static bool foreign(struct cluster *c, uint64_t node)
{
    pthread_mutex_lock(&c->lock);
    struct known *k = cluster__find(c, node);
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
        cluster__hello_received(c, message);
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
        cluster__say_hello_to(c, node);
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

/* ---- The thread -------------------------------------------------------------------------------
 */

static void *cluster_main(void *arg)
{
    struct cluster *c = arg;
    pthread_setname_np(pthread_self(), "cluster");
    int64_t said_us = 0;
    while (!atomic_load(&c->stopping)) {
        int64_t now_us = chr_clock_mono_us(c->node->clock);
        bool say = atomic_exchange(&c->say_hello, false);
        if (say || now_us - said_us > HELLO_US) {
            cluster__say_hello(c);
            said_us = now_us;
        }
        pthread_mutex_lock(&c->lock);
        cluster__found_if_possible(c);
        pthread_mutex_unlock(&c->lock);
        cluster__look_after_roster(c);
        cluster__look_after_members(c);
        cluster__look_after_sessions(c);
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
    if (node == c->self.node || cluster__find(c, node))
        return chr_fail(msg, CHR_EINVAL, "peers: %s is named twice, or is this node itself",
                        contact.name);
    chr_err err = roster_put(&c->roster, node, &contact);
    if (err == CHR_EFULL)
        return chr_fail(msg, err, "peers: more than %u", PEERS_MAX);
    if (err)
        return chr_fail(msg, err, "peers: `%.*s`: not a name (a-z, A-Z, 0-9, ., _, -) and address",
                        (int)len, text);
    roster_find(&c->roster, node)->listed = true;
    cluster__remember(c, node, &contact);
    cluster__find(c, node)->listed = true;
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

/* What would be found wrong with them at the first connection is said at once. */
static chr_err check_files(const struct cluster_config *config, struct chr_errmsg *msg)
{
    const struct {
        const char *setting, *path;
    } files[] = {{"peer-cafile", config->cafile},
                 {"peer-certfile", config->certfile},
                 {"peer-keyfile", config->keyfile}};
    const char *why = NULL;
    for (size_t i = 0; i < CHR_COUNT_OF(files); i++)
        if (files[i].path && access(files[i].path, R_OK))
            return chr_fail(msg, CHR_EINVAL, "%s %s: %s", files[i].setting, files[i].path,
                            strerror(errno));
    if (!config->cafile)
        return CHR_OK;
    SSL_CTX *ctx = peer_tls_context(config->cafile, config->certfile, config->keyfile, "localhost",
                                    NULL, &why);
    SSL_CTX_free(ctx);
    return ctx ? CHR_OK : chr_fail(msg, CHR_EINVAL, "%s", why);
}

static chr_err open_peers(struct cluster *c, struct chr_errmsg *msg)
{
    const struct broker_config *config = c->node->config;
    chr_err err = check_files(&config->cluster, msg);
    if (err)
        return err;
    struct peers_peer list[PEERS_MAX];
    char hosts[PEERS_MAX][256];
    for (uint32_t i = 0; i < c->known_count; i++) {
        list[i] = (struct peers_peer){.node = c->known[i].node, .host = hosts[i]};
        err = net_parse_address(c->known[i].address, hosts[i], sizeof hosts[i], &list[i].port, msg);
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
        .cafile = config->cluster.cafile,
        .certfile = config->cluster.certfile,
        .keyfile = config->cluster.keyfile,
        .peers = list,
        .peers_count = c->known_count,
        .clock = c->node->clock,
        .ctx = c,
        .received = received,
        .changed = changed,
        .writable = writable,
    };
    pthread_mutex_lock(&c->lock);
    err = peers_start(&options, &c->peers, msg);
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
        if (!cluster__find(c, c->roster.nodes[i].node))
            cluster__remember(c, c->roster.nodes[i].node, &c->roster.nodes[i].contact);
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
