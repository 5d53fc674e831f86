/* bridge/peers.c: start and stop, the table of peers, and what any thread may call. */
#include "bridge/peers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <mosquitto.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "bridge/peers_internal.h"
#include "proto/mqtt/decode.h"

/* Strangers come as often as they like; the log names one of them so often. */
#define STRANGER_REMIND_US INT64_C(1000000)

/* ---- Accounts of what came in -------------------------------------------------------------------
 */

struct account *peers__account_new(struct lane *lane, uint64_t window)
{
    struct account *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->lane = lane;
    a->window = window;
    atomic_init(&a->refs, 1);
    return a;
}

void peers__account_unref(struct account *account)
{
    if (account && atomic_fetch_sub_explicit(&account->refs, 1, memory_order_acq_rel) == 1)
        free(account);
}

void peers__account_release(struct account *account, uint64_t cost)
{
    uint64_t released =
        atomic_fetch_add_explicit(&account->released, cost, memory_order_acq_rel) + cost;
    uint64_t credited = atomic_load_explicit(&account->credited, memory_order_acquire);
    /* Less than that is told by the next turn, at the latest when its timer says so. */
    if (released - credited >= account->window / 8)
        peers__lane_wake(account->lane);
}

void peers_release(struct peers *peers, struct peers_message *message)
{
    (void)peers;
    struct received *r = CHR_CONTAINER_OF(message, struct received, message);
    struct account *account = r->account;
    peers__account_release(account, message->cost);
    free(r);
    peers__account_unref(account);
}

/* ---- The table ----------------------------------------------------------------------------------
 */

struct slot *peers__slot(const struct peers *peers, uint64_t node)
{
    for (uint32_t i = 0; i < PEERS_MAX && node; i++)
        if (peers->slots[i].node == node && peers->slots[i].wanted)
            return (struct slot *)(uintptr_t)&peers->slots[i];
    return NULL;
}

static void wake_lanes(struct peers *peers)
{
    for (unsigned i = 0; i < PEERS_LANES; i++)
        peers__lane_wake(&peers->lanes[i]);
}

/* Also one that is on its way out: its links are taken on as they are. */
static struct slot *slot_for(struct peers *peers, uint64_t node)
{
    struct slot *empty = NULL;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct slot *s = &peers->slots[i];
        if (s->node == node)
            return s;
        if (s->node == 0 && !empty)
            empty = s;
    }
    return empty;
}

chr_err peers_set(struct peers *peers, const struct peers_peer *peer)
{
    if (peer->node == 0 || peer->node == peers->self || peer->port == 0 || !peer->host ||
        !peer->host[0] || strlen(peer->host) >= sizeof peers->slots[0].host)
        return CHR_EINVAL;
    struct account *fresh[PEERS_LANES] = {NULL};
    chr_err err = CHR_OK;
    for (unsigned i = 0; i < PEERS_LANES; i++) {
        fresh[i] = peers__account_new(&peers->lanes[i], peers->window);
        err = fresh[i] ? err : CHR_ENOMEM;
    }
    if (err)
        goto out;
    pthread_mutex_lock(&peers->lock);
    struct slot *s = slot_for(peers, peer->node);
    if (!s) {
        err = CHR_EFULL;
    } else if (!(s->wanted && s->port == peer->port && strcmp(s->host, peer->host) == 0)) {
        bool known = s->node != 0;
        if (!known)
            s->node = peer->node;
        s->wanted = true;
        snprintf(s->host, sizeof s->host, "%s", peer->host);
        s->port = peer->port;
        for (unsigned i = 0; i < PEERS_LANES; i++) {
            struct link *l = &s->links[i];
            l->changed = l->used;
            l->used = true;
            if (!known) {
                l->account = fresh[i];
                fresh[i] = NULL;
            }
        }
    }
    pthread_mutex_unlock(&peers->lock);
    wake_lanes(peers);
out:
    for (unsigned i = 0; i < PEERS_LANES; i++)
        peers__account_unref(fresh[i]);
    return err;
}

void peers_remove(struct peers *peers, uint64_t node)
{
    pthread_mutex_lock(&peers->lock);
    struct slot *s = peers__slot(peers, node);
    if (s)
        s->wanted = false;
    pthread_mutex_unlock(&peers->lock);
    wake_lanes(peers);
}

/* ---- Sending ------------------------------------------------------------------------------------
 */

/* peers->lock held. */
static chr_err may_send(struct peers *peers, uint64_t node, enum peers_lane lane, uint64_t cost,
                        struct link **out)
{
    struct slot *s = peers__slot(peers, node);
    if (!s)
        return CHR_ENOTFOUND;
    struct link *l = *out = &s->links[lane];
    if (!l->up)
        return CHR_ECLOSED;
    if (cost > l->window)
        return CHR_ETOOBIG;
    if (cost > l->window - CHR_MIN(l->sent - l->released, l->window)) {
        l->starved = true;
        l->starved_cost = CHR_MAX(l->starved_cost, cost);
        atomic_fetch_add_explicit(&l->full, 1, memory_order_relaxed);
        return CHR_EAGAIN;
    }
    return CHR_OK;
}

static struct outgoing *outgoing_new(uint8_t kind, const chr_slice *parts, uint32_t parts_count,
                                     size_t bytes)
{
    struct outgoing *o = malloc(sizeof *o + PEER_FRAME_HEAD_BYTES + bytes);
    if (!o)
        return NULL;
    o->next = NULL;
    o->raw = o->stored = (uint32_t)bytes;
    o->kind = kind;
    uint8_t *at = o->bytes + PEER_FRAME_HEAD_BYTES;
    for (uint32_t i = 0; i < parts_count; i++) {
        if (parts[i].len)
            memcpy(at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    return o;
}

chr_err peers_send(struct peers *peers, uint64_t node, enum peers_lane lane, uint8_t kind,
                   const chr_slice *parts, uint32_t parts_count)
{
    CHR_ASSERT(kind != 0 && lane < PEERS_LANES);
    size_t bytes = 0;
    for (uint32_t i = 0; i < parts_count; i++) {
        if (parts[i].len > PEERS_MESSAGE_BYTES_MAX - bytes)
            return CHR_ETOOBIG;
        bytes += parts[i].len;
    }
    uint64_t cost = peer_cost(bytes);
    struct link *l;
    pthread_mutex_lock(&peers->lock);
    chr_err err = may_send(peers, node, lane, cost, &l);
    pthread_mutex_unlock(&peers->lock);
    if (err)
        return err;
    struct outgoing *o = outgoing_new(kind, parts, parts_count, bytes);
    if (!o)
        return CHR_ENOMEM;
    pthread_mutex_lock(&peers->lock);
    err = may_send(peers, node, lane, cost, &l); /* others may have been quicker */
    if (!err) {
        l->sent += cost;
        if (l->last)
            l->last->next = o;
        else
            l->first = o;
        l->last = o;
        atomic_fetch_add_explicit(&l->messages_sent, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&l->bytes_sent, bytes, memory_order_relaxed);
    }
    pthread_mutex_unlock(&peers->lock);
    if (err)
        free(o);
    else
        peers__lane_wake(&peers->lanes[lane]);
    return err;
}

bool peers_up(const struct peers *peers, uint64_t node, enum peers_lane lane)
{
    struct peers *p = (struct peers *)(uintptr_t)peers;
    pthread_mutex_lock(&p->lock);
    const struct slot *s = peers__slot(p, node);
    bool up = s && s->links[lane].up;
    pthread_mutex_unlock(&p->lock);
    return up;
}

chr_err peers_lane_stats(const struct peers *peers, uint64_t node, enum peers_lane lane,
                         struct peers_lane_stats *out)
{
    struct peers *p = (struct peers *)(uintptr_t)peers;
    *out = (struct peers_lane_stats){0};
    pthread_mutex_lock(&p->lock);
    const struct slot *s = peers__slot(p, node);
    if (s) {
        const struct link *l = &s->links[lane];
        out->messages_sent = atomic_load_explicit(&l->messages_sent, memory_order_relaxed);
        out->bytes_sent = atomic_load_explicit(&l->bytes_sent, memory_order_relaxed);
        out->wire_bytes_sent = atomic_load_explicit(&l->wire_bytes_sent, memory_order_relaxed);
        out->connects = atomic_load_explicit(&l->connects, memory_order_relaxed);
        out->full = atomic_load_explicit(&l->full, memory_order_relaxed);
        out->messages_received = atomic_load_explicit(&l->account->messages, memory_order_relaxed);
        out->bytes_received = atomic_load_explicit(&l->account->bytes, memory_order_relaxed);
        out->outstanding_bytes = l->sent - l->released;
        out->cost_sent = l->sent;
        out->cost_taken = l->released;
        out->up = l->up;
    }
    pthread_mutex_unlock(&p->lock);
    return s ? CHR_OK : CHR_ENOTFOUND;
}

/* ---- Accepting ----------------------------------------------------------------------------------
 */

void peers__address_of(int fd, char *out, size_t size, bool *loopback)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    char text[INET6_ADDRSTRLEN] = "unknown";
    *loopback = false;
    snprintf(out, size, "unknown");
    if (getpeername(fd, (struct sockaddr *)&a, &len))
        return;
    if (a.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a;
        *loopback = ntohl(v4->sin_addr.s_addr) >> 24 == 127;
        (void)inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text);
        snprintf(out, size, "%s:%u", text, ntohs(v4->sin_port));
    } else if (a.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a;
        *loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
                    (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof text);
        snprintf(out, size, "[%s]:%u", text, ntohs(v6->sin6_port));
    } else if (a.ss_family == AF_UNIX) {
        *loopback = true;
        snprintf(out, size, "unix");
    }
}

void peers__stranger(struct peers *peers, const char *address, const char *reason)
{
    uint64_t count = atomic_fetch_add_explicit(&peers->strangers, 1, memory_order_relaxed) + 1;
    int64_t now_us = chr_clock_mono_us(peers->clock);
    int64_t told_us = atomic_load_explicit(&peers->stranger_told_us, memory_order_relaxed);
    if (!reason || (told_us && now_us - told_us < STRANGER_REMIND_US) ||
        !atomic_compare_exchange_strong(&peers->stranger_told_us, &told_us, now_us))
        return;
    chr_log_warning("peers", "not a peer, refused", CHR_KV_C("address", address ? address : ""),
                    CHR_KV_C("reason", reason), CHR_KV_U("refused", count));
}

void peers_count_stranger(struct peers *peers)
{
    peers__stranger(peers, NULL, NULL); /* whoever calls has said so in its own words */
}

uint64_t peers_strangers(const struct peers *peers)
{
    return atomic_load_explicit(&peers->strangers, memory_order_relaxed);
}

/* Which lane's thread it is for; whether it may come in is decided there. */
static bool lane_of(chr_slice bytes, enum peers_lane *lane)
{
    struct mqtt_frame frame;
    struct mqtt_connect connect;
    struct mqtt_fault fault;
    uint64_t node;
    connect.properties = mqtt_properties_none;
    int n = mqtt_frame(bytes, 1024, &frame);
    return n > 0 && frame.type == MQTT_CONNECT &&
           mqtt_decode_connect(&frame, &connect, &fault) == CHR_OK &&
           peer_client_id_parse(connect.client_id, lane, &node);
}

static void drop_connection(int fd, const struct peers_stream *stream)
{
    if (stream && stream->ctx)
        stream->free(stream->ctx);
    close(fd);
}

void peers_adopt(struct peers *peers, int fd, chr_slice bytes, const struct peers_stream *stream)
{
    enum peers_lane number = PEERS_CONTROL;
    const char *reason = NULL;
    bool loopback;
    char address[64];
    peers__address_of(fd, address, sizeof address, &loopback);
    if (!lane_of(bytes, &number))
        reason = "its client id is not a peer's";
    else if (bytes.len > PEERS_ADOPT_BYTES_MAX)
        reason = "it sent too much at once";
    else if (peers->secret_bytes == 0 && !loopback)
        reason = "without a cluster secret only loopback addresses may be peers";
    struct letter *letter = reason ? NULL : malloc(sizeof *letter + bytes.len);
    if (!letter) {
        peers__stranger(peers, address, reason ? reason : "out of memory");
        drop_connection(fd, stream);
        return;
    }
    letter->fd = fd;
    letter->stream = stream ? *stream : (struct peers_stream){0};
    letter->len = bytes.len;
    memcpy(letter->bytes, bytes.ptr, bytes.len);
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0)
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    struct lane *lane = &peers->lanes[number];
    pthread_mutex_lock(&peers->lock);
    bool stopping = atomic_load(&lane->stopping);
    bool room = !stopping && lane->letters_count < PEERS_UNPROVED_MAX;
    if (room) {
        letter->next = lane->letters;
        lane->letters = letter;
        lane->letters_count++;
    }
    pthread_mutex_unlock(&peers->lock);
    if (room) {
        peers__lane_wake(lane);
    } else {
        if (!stopping)
            peers__stranger(peers, address, "too many connections that want to be a peer's");
        drop_connection(fd, stream);
        free(letter);
    }
}

/* ---- Life ---------------------------------------------------------------------------------------
 */

static chr_err check(const struct peers_options *o, struct chr_errmsg *msg)
{
    if (o->self == 0)
        return chr_fail(msg, CHR_EINVAL, "a node that has peers needs a number");
    if (o->peers_count > PEERS_MAX)
        return chr_fail(msg, CHR_EINVAL, "%u peers; at most %u", o->peers_count, PEERS_MAX);
    if (o->window_bytes && o->window_bytes < PEERS_WINDOW_BYTES_MIN)
        return chr_fail(msg, CHR_EINVAL, "a window of %llu bytes; at least %llu",
                        (unsigned long long)o->window_bytes,
                        (unsigned long long)PEERS_WINDOW_BYTES_MIN);
    if (o->window_bytes > UINT32_MAX)
        return chr_fail(msg, CHR_EINVAL, "a window of %llu bytes; below 4 GiB",
                        (unsigned long long)o->window_bytes);
    if (o->secret.len > 1024)
        return chr_fail(msg, CHR_EINVAL, "a cluster secret of %zu bytes; at most 1024",
                        o->secret.len);
    return CHR_OK;
}

static char *copy_of(const char *text, chr_err *err)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        *err = CHR_ENOMEM;
    return copy;
}

static void library_init(void)
{
    (void)mosquitto_lib_init(); /* for good: it counts its users without a lock */
}

static chr_err fill(struct peers *p, const struct peers_options *o)
{
    chr_err err = CHR_OK;
    p->self = o->self;
    p->secret = malloc(o->secret.len + 1);
    p->secret_bytes = o->secret.len;
    if (p->secret && o->secret.len)
        memcpy(p->secret, o->secret.ptr, o->secret.len);
    p->cafile = copy_of(o->cafile, &err);
    p->certfile = copy_of(o->certfile, &err);
    p->keyfile = copy_of(o->keyfile, &err);
    p->window = o->window_bytes ? o->window_bytes : PEERS_WINDOW_DEFAULT;
    p->compress = o->compress;
    p->clock = o->clock ? o->clock : chr_clock_system();
    p->ctx = o->ctx;
    p->received = o->received;
    p->changed = o->changed;
    p->writable = o->writable;
    for (uint32_t i = 0; i < PEERS_MAX; i++)
        for (unsigned j = 0; j < PEERS_LANES; j++) {
            p->slots[i].links[j].slot = &p->slots[i];
            p->slots[i].links[j].lane = &p->lanes[j];
        }
    for (unsigned i = 0; i < PEERS_LANES; i++) {
        struct lane *lane = &p->lanes[i];
        lane->peers = p;
        lane->number = (enum peers_lane)i;
        lane->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        lane->scratch = malloc(LANE_SCRATCH_BYTES);
        lane->pack = malloc(PEERS_PACK_BYTES_MAX);
        chr_list_init(&lane->inbounds);
        chr_random_bytes(&lane->random.state, sizeof lane->random.state);
        if (lane->wake_fd < 0 || !lane->scratch || !lane->pack)
            err = CHR_ENOMEM;
    }
    return p->secret ? err : CHR_ENOMEM;
}

chr_err peers_start(const struct peers_options *options, struct peers **out, struct chr_errmsg *msg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    chr_err err = check(options, msg);
    if (err)
        return err;
    pthread_once(&once, library_init);
    struct peers *p = calloc(1, sizeof *p);
    if (!p)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    pthread_mutex_init(&p->lock, NULL);
    for (unsigned i = 0; i < PEERS_LANES; i++)
        p->lanes[i].wake_fd = -1;
    err = fill(p, options);
    if (err)
        chr_fail(msg, err, "out of memory or descriptors");
    for (uint32_t i = 0; i < options->peers_count && !err; i++) {
        const struct peers_peer *peer = &options->peers[i];
        err = peers_set(p, peer);
        if (err)
            chr_fail(msg, err, "peer %u: its number, host or port is not valid", i + 1);
    }
    *out = p; /* before the threads: the first callback may want to send */
    for (unsigned i = 0; i < PEERS_LANES && !err; i++) {
        if (pthread_create(&p->lanes[i].thread, NULL, peers__lane_main, &p->lanes[i]))
            err = chr_fail(msg, CHR_ENOMEM, "can't start a thread");
        else
            p->lanes[i].started = true;
    }
    if (err) {
        peers_stop(p);
        peers_free(p);
        *out = NULL;
        return err;
    }
    return CHR_OK;
}

void peers_stop(struct peers *peers)
{
    for (unsigned i = 0; i < PEERS_LANES; i++) {
        struct lane *lane = &peers->lanes[i];
        pthread_mutex_lock(&peers->lock); /* no letter comes after it */
        atomic_store(&lane->stopping, true);
        pthread_mutex_unlock(&peers->lock);
        peers__lane_wake(lane);
    }
    for (unsigned i = 0; i < PEERS_LANES; i++) {
        if (peers->lanes[i].started)
            pthread_join(peers->lanes[i].thread, NULL);
        peers->lanes[i].started = false;
    }
}

void peers_free(struct peers *peers)
{
    if (!peers)
        return;
    for (unsigned i = 0; i < PEERS_LANES; i++) {
        CHR_ASSERT(!peers->lanes[i].started);
        free(peers->lanes[i].scratch);
        free(peers->lanes[i].pack);
        if (peers->lanes[i].wake_fd >= 0)
            close(peers->lanes[i].wake_fd);
        for (uint32_t j = 0; j < PEERS_MAX; j++)
            peers__account_unref(peers->slots[j].links[i].account);
    }
    if (peers->secret)
        explicit_bzero(peers->secret, peers->secret_bytes);
    free(peers->secret);
    free(peers->cafile);
    free(peers->certfile);
    free(peers->keyfile);
    pthread_mutex_destroy(&peers->lock);
    free(peers);
}
