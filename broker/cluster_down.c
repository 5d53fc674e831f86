/* broker/cluster_down.c: nodes that are no more: whose sessions are closed, and when (C4). */
#include <stdlib.h>

#include "base/log.h"
#include "broker/cluster_internal.h"
#include "broker/session/wakeups.h"
#include "db/durable.h"
#include "db/op.h"

#define WILLS_US INT64_C(1000000) /* wills nobody has published are looked for so often */
/* wills nobody has published are looked for so often */
#define LEAVE_MS 2000 /* a node that stops waits so long for the others */

/* NODE_DOWN on its way. */
struct down {
    struct broker_proposal proposal;
    struct cluster *cluster;
    struct db_entry entry;
};

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
    const struct known *k = cluster__find(c, w->node);
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
void cluster__look_after_sessions(struct cluster *c)
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
    /* Nothing will be answered; who leads hears of our next start. */
    if (atomic_load(&c->node->restart_wanted) || broker_committer_given_up(c->node->committer))
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
