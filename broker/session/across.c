/* broker/session/across.c: the peers, their lanes, and the thread that looks after what is late. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/cluster.h"
#include "broker/session/across_internal.h"
#include "db/db.h"

#define TICK_US   INT64_C(250000)
#define VACANT_US INT64_C(10000000)

chr_err across__send_gathered(struct across *a, struct across_peer *p)
{
    chr_slice bytes = chr_buf_slice(&a->buf);
    chr_err err = a->buf.failed
                      ? CHR_ENOMEM
                      : peers_send(a->peers, p->node, PEERS_BULK, PEERS_DELIVER, &bytes, 1);
    if (a->buf.capacity > 4 * ACROSS_GATHER_BYTES)
        chr_buf_free(&a->buf);
    return err;
}

/* ---- Peers ------------------------------------------------------------------------------------
 */

/* Forgotten ones, too. */
static struct across_peer *slot_of(struct across *a, uint64_t node)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->list[i].node == node)
            return &a->list[i];
    return NULL;
}

static struct across_peer *find(struct across *a, uint64_t node)
{
    struct across_peer *p = slot_of(a, node);
    return p && !p->forgotten ? p : NULL;
}

/* The place of one that was forgotten long enough ago for no match of a loop to mean it any more (a
 * match names peers by their place), and that nothing is held of for the log. post_lock. */
static struct across_peer *vacant(struct across *a)
{
    int64_t now_us = chr_clock_mono_us(a->node->clock);
    for (uint32_t i = 0; i < a->count; i++)
        if (a->list[i].forgotten && now_us - a->list[i].forgotten_us > VACANT_US &&
            !a->list[i].held.first)
            return &a->list[i];
    return NULL;
}

/* A free place; that of a forgotten one only when there is no other: while it is kept, so are the
 * numbers that its process goes on with should it be added again. */
static struct across_peer *new_peer(struct across *a, uint64_t node)
{
    pthread_mutex_lock(&a->post_lock); /* `held` is read under it */
    struct across_peer *p = a->count < SUBSCRIPTIONS_PEERS_MAX ? &a->list[a->count++] : vacant(a);
    if (p) {
        (void)numbered_out_clear(&p->out);
        *p = (struct across_peer){.node = node};
    }
    pthread_mutex_unlock(&a->post_lock);
    if (p)
        numbered_out_init(&p->out, ACROSS_PEER_BYTES_MAX);
    else
        chr_log_warning("cluster",
                        "too many nodes have come and gone: a new one hears of no "
                        "subscribers here until this process starts again",
                        CHR_KV_U("node", node));
    return p;
}

struct across_peer *across__peer(struct across *a, uint64_t node)
{
    struct across_peer *p = slot_of(a, node);
    if (!p)
        return new_peer(a, node);
    p->forgotten = false;
    return p;
}

uint32_t across__index(const struct across *a, const struct across_peer *p)
{
    return (uint32_t)(p - a->list);
}

static void send_all(struct across *a, struct across_peer *p)
{
    across__messages_ack(a, p);
    across__filters_send(a, p);
    across__messages_send(a, p);
}

/* ---- Lanes ------------------------------------------------------------------------------------
 */

static void set_up(struct across *a, struct across_peer *p, enum peers_lane lane, bool up)
{
    p->up[lane] = up;
    if (lane == PEERS_BULK) {
        uint32_t bit = 1u << across__index(a, p);
        if (up)
            atomic_fetch_or(&a->up, bit);
        else
            atomic_fetch_and(&a->up, ~bit);
    }
    if (!up)
        return;
    if (lane == PEERS_BULK) {
        across__filters_lane_up(a, p);
        across__messages_lane_up(a, p);
    }
    send_all(a, p);
}

void across_lane(struct across *a, uint64_t node, enum peers_lane lane, bool up)
{
    pthread_mutex_lock(&a->lock);
    struct across_peer *p = up ? across__peer(a, node) : find(a, node);
    if (p)
        set_up(a, p, lane, up);
    pthread_mutex_unlock(&a->lock);
    chr_wake_signal(&a->wake); /* who waited for one that is gone waits no more */
}

void across_forget(struct across *a, uint64_t node)
{
    pthread_mutex_lock(&a->lock);
    struct across_peer *p = find(a, node);
    if (p) {
        for (int lane = 0; lane < PEERS_LANES; lane++)
            set_up(a, p, (enum peers_lane)lane, false);
        across__filters_forget(a, p);
        p->forgotten = true;
        p->forgotten_us = chr_clock_mono_us(a->node->clock);
    }
    pthread_mutex_unlock(&a->lock);
    chr_wake_signal(&a->wake);
}

void across_writable(struct across *a, uint64_t node, enum peers_lane lane)
{
    (void)lane;
    pthread_mutex_lock(&a->lock);
    struct across_peer *p = find(a, node);
    if (p)
        send_all(a, p);
    pthread_mutex_unlock(&a->lock);
}

static void delivered(struct across *a, struct across_peer *p, chr_slice bytes)
{
    struct delivered d;
    if (delivered_take(bytes, &d) || d.boot != a->boot)
        return;
    if (d.type == DELIVER_MESSAGES)
        across__messages_acknowledged(a, p, &d);
    else
        across__filters_acknowledged(a, p, &d);
}

void across_received(struct across *a, const struct peers_message *message)
{
    pthread_mutex_lock(&a->lock);
    struct across_peer *p = across__peer(a, message->from);
    if (p && message->kind == PEERS_DELIVERED)
        delivered(a, p, message->bytes);
    else if (p && message->bytes.len && message->bytes.ptr[0] == DELIVER_MESSAGES)
        across__messages_received(a, p, message->bytes);
    else if (p)
        across__filters_received(a, p, message->bytes);
    pthread_mutex_unlock(&a->lock);
}

chr_err across_stats(struct across *a, uint64_t node, struct across_stats *out)
{
    pthread_mutex_lock(&a->lock);
    struct across_peer *p = find(a, node);
    if (p)
        *out = (struct across_stats){
            .filters = subscriptions_peer_count(a->node->subscriptions, across__index(a, p)),
            .queued_bytes = p->out.bytes};
    pthread_mutex_unlock(&a->lock);
    return p ? CHR_OK : CHR_ENOTFOUND;
}

uint32_t across_up(const struct across *a)
{
    return atomic_load_explicit(&a->up, memory_order_relaxed);
}

/* ---- The thread -------------------------------------------------------------------------------
 */

static void own_changed(void *arg)
{
    struct across *a = arg;
    chr_wake_signal(&a->wake);
}

static void *across_main(void *arg)
{
    struct across *a = arg;
    pthread_setname_np(pthread_self(), "across");
    int64_t tick_us = 0;
    while (!atomic_load(&a->stopping)) {
        uint32_t ticket = chr_wake_prepare(&a->wake);
        int64_t now_us = chr_clock_mono_us(a->node->clock);
        bool tick = now_us >= tick_us;
        pthread_mutex_lock(&a->lock);
        for (uint32_t i = 0; i < a->count; i++) {
            if (a->list[i].forgotten)
                continue;
            if (tick) {
                across__filters_tick(a, &a->list[i], now_us);
                across__messages_tick(a, &a->list[i], now_us);
            }
            send_all(a, &a->list[i]);
        }
        pthread_mutex_unlock(&a->lock);
        if (tick) {
            across__held_tick(a, now_us);
            tick_us = now_us + TICK_US;
        }
        int64_t until_us = CHR_MIN(across__subscribes_turn(a), tick_us);
        now_us = chr_clock_mono_us(a->node->clock);
        if (until_us > now_us && !atomic_load(&a->stopping))
            chr_wake_wait(&a->wake, ticket, until_us - now_us);
        else
            chr_wake_cancel(&a->wake);
    }
    return NULL;
}

/* ---- Start and stop ---------------------------------------------------------------------------
 */

chr_err across_new(struct broker_node *node, struct across **out)
{
    struct across *a = calloc(1, sizeof *a);
    if (!a)
        return CHR_ENOMEM;
    a->node = node;
    a->peers = node->peers;
    a->self = node->dir.node;
    a->boot = node->dir.boot;
    pthread_mutex_init(&a->lock, NULL);
    pthread_mutex_init(&a->post_lock, NULL);
    pthread_mutex_init(&a->waits_lock, NULL);
    chr_wake_init(&a->wake);
    chr_buf_init(&a->buf, PEERS_MESSAGE_BYTES_MAX);
    atomic_init(&a->applied, db_apply_index(node->db));
    chr_err err = own_interest_new(own_changed, a, &a->own);
    if (err) {
        across_free(a);
        return err;
    }
    subscriptions_tell(node->subscriptions, a->own);
    *out = a;
    return CHR_OK;
}

chr_err across_start(struct across *a)
{
    static struct cluster_member members[CLUSTER_MEMBERS_MAX];
    static struct broker_cluster_status status;
    uint32_t count = cluster_members(a->node->cluster, members, &status);
    pthread_mutex_lock(&a->post_lock);
    a->open = true;
    pthread_mutex_unlock(&a->post_lock);
    /* Lanes may have come up before there was anybody to hear of it. */
    for (uint32_t i = 0; i < count; i++) {
        if (members[i].self)
            continue;
        pthread_mutex_lock(&a->lock);
        struct across_peer *p = across__peer(a, members[i].node);
        for (int lane = 0; p && lane < PEERS_LANES; lane++)
            if (!p->up[lane] && peers_up(a->peers, p->node, (enum peers_lane)lane))
                set_up(a, p, (enum peers_lane)lane, true);
        pthread_mutex_unlock(&a->lock);
    }
    if (pthread_create(&a->thread, NULL, across_main, a))
        return CHR_ENOMEM;
    a->thread_running = true;
    return CHR_OK;
}

void across_stop(struct across *a)
{
    if (!a)
        return;
    atomic_store(&a->stopping, true);
    chr_wake_signal(&a->wake);
    if (a->thread_running)
        pthread_join(a->thread, NULL);
    a->thread_running = false;
    pthread_mutex_lock(&a->post_lock);
    a->open = false;
    pthread_mutex_unlock(&a->post_lock);
}

void across_free(struct across *a)
{
    if (!a)
        return;
    across__subscribes_free(a);
    across__held_free(a);
    for (uint32_t i = 0; i < a->count; i++) {
        (void)numbered_out_clear(&a->list[i].out);
        peer_interest_free(a->list[i].building);
    }
    own_interest_free(a->own);
    chr_buf_free(&a->buf);
    pthread_mutex_destroy(&a->lock);
    pthread_mutex_destroy(&a->post_lock);
    pthread_mutex_destroy(&a->waits_lock);
    free(a);
}
