/* broker/checkpointer.c: when a checkpoint is due, make it; then let the log go that it covers. */
#include "broker/checkpointer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/wake.h"
#include "broker/committer.h"
#include "broker/config.h"
#include "broker/node.h"

/* How often it looks by itself, for what falls due by age; the applier kicks it when rows or log
 * have grown enough. */
#define LOOK_US       INT64_C(1000000)
#define RETRY_FULL_US INT64_C(500000) /* after CHR_ENOSPC */
#define REMIND_US     INT64_C(10000000)

struct checkpointer {
    struct broker_node *node;
    pthread_t thread;
    struct chr_wake wake;
    _Atomic bool stopping;
    _Atomic bool final;
    _Atomic uint64_t requested, answered; /* requests, counted */
    pthread_mutex_t lock;
    pthread_cond_t done;
    chr_err last_err;
    int64_t warned_us;
    _Atomic uint64_t failed;
    _Atomic bool no_room;
};

static chr_err wait_synced(void *arg, uint64_t index)
{
    struct checkpointer *cp = arg;
    return broker_committer_wait_synced(cp->node->committer, index);
}

static chr_err checkpoint(struct checkpointer *cp, enum db_checkpoint_reason reason)
{
    struct broker_node *node = cp->node;
    struct chr_errmsg msg = {{0}};
    int64_t now_us = chr_clock_mono_us(node->clock);
    chr_err err = db_checkpoint(node->db, reason, wait_synced, cp, now_us, &msg);
    bool waited = atomic_exchange(&cp->no_room, err == CHR_ENOSPC);
    if (err)
        atomic_fetch_add_explicit(&cp->failed, 1, memory_order_relaxed);
    if (err == CHR_ENOSPC) {
        if (!waited || now_us - cp->warned_us > REMIND_US) {
            cp->warned_us = now_us;
            chr_log_error("db", "no room for a checkpoint; it is tried again",
                          CHR_KV_C("path", node->config->data_dir),
                          CHR_KV_C("detail", msg.text[0] ? msg.text : "the disk is full"));
        }
    } else if (err) {
        chr_log_error("db", "checkpoint failed", CHR_KV_C("error", chr_errname(err)),
                      CHR_KV_C("detail", msg.text));
    } else {
        uint64_t durable = db_durable_index(node->db);
        if (waited)
            chr_log_notice("db", "there is room for a checkpoint again",
                           CHR_KV_U("index", durable));
        broker_committer_cut(node->committer, durable);
        chr_log_debug("db", "checkpoint", CHR_KV_U("index", durable),
                      CHR_KV_I("us", chr_clock_mono_us(node->clock) - now_us));
    }
    broker_committer_unblock(node->committer, err != CHR_ENOSPC);
    return err;
}

static void answer_requests(struct checkpointer *cp, uint64_t up_to, chr_err err)
{
    pthread_mutex_lock(&cp->lock);
    cp->last_err = err;
    atomic_store(&cp->answered, up_to);
    pthread_cond_broadcast(&cp->done);
    pthread_mutex_unlock(&cp->lock);
}

static void *checkpointer_main(void *arg)
{
    struct checkpointer *cp = arg;
    struct broker_node *node = cp->node;
    pthread_setname_np(pthread_self(), "checkpointer");
    while (!atomic_load(&cp->stopping)) {
        uint64_t requested = atomic_load(&cp->requested);
        bool asked = requested > atomic_load(&cp->answered);
        enum db_checkpoint_reason reason =
            asked ? DB_CHECKPOINT_REQUEST
                  : db_checkpoint_due(node->db, raft_log_bytes(node->log),
                                      chr_clock_mono_us(node->clock));
        int64_t wait_us = LOOK_US;
        if (reason != DB_CHECKPOINT_NONE) {
            chr_err err = checkpoint(cp, reason);
            if (asked)
                answer_requests(cp, requested, err);
            if (!err)
                continue;
            wait_us = RETRY_FULL_US;
        }
        uint32_t ticket = chr_wake_prepare(&cp->wake);
        if (atomic_load(&cp->stopping))
            chr_wake_cancel(&cp->wake);
        else
            chr_wake_wait(&cp->wake, ticket, wait_us);
    }
    if (atomic_load(&cp->final))
        (void)checkpoint(cp, DB_CHECKPOINT_REQUEST);
    answer_requests(cp, UINT64_MAX, CHR_ECLOSED);
    return NULL;
}

chr_err checkpointer_start(struct broker_node *node, struct checkpointer **out)
{
    struct checkpointer *cp = calloc(1, sizeof *cp);
    if (!cp)
        return CHR_ENOMEM;
    cp->node = node;
    chr_wake_init(&cp->wake);
    pthread_mutex_init(&cp->lock, NULL);
    pthread_cond_init(&cp->done, NULL);
    if (pthread_create(&cp->thread, NULL, checkpointer_main, cp)) {
        free(cp);
        return CHR_ENOMEM;
    }
    *out = cp;
    return CHR_OK;
}

void checkpointer_kick(struct checkpointer *cp)
{
    chr_wake_signal(&cp->wake);
}

chr_err checkpointer_request(struct checkpointer *cp)
{
    uint64_t mine = atomic_fetch_add(&cp->requested, 1) + 1;
    chr_wake_signal(&cp->wake);
    pthread_mutex_lock(&cp->lock);
    while (atomic_load(&cp->answered) < mine)
        pthread_cond_wait(&cp->done, &cp->lock);
    chr_err err = cp->last_err;
    pthread_mutex_unlock(&cp->lock);
    return err;
}

void checkpointer_stats(const struct checkpointer *cp, struct checkpointer_stats *out)
{
    *out = (struct checkpointer_stats){0};
    if (cp)
        *out = (struct checkpointer_stats){.failed = atomic_load(&cp->failed),
                                           .no_room = atomic_load(&cp->no_room)};
}

void checkpointer_stop(struct checkpointer *cp, bool final)
{
    if (!cp)
        return;
    atomic_store(&cp->final, final);
    atomic_store(&cp->stopping, true);
    chr_wake_signal(&cp->wake);
    pthread_join(cp->thread, NULL);
}

void checkpointer_free(struct checkpointer *cp)
{
    if (!cp)
        return;
    pthread_mutex_destroy(&cp->lock);
    pthread_cond_destroy(&cp->done);
    free(cp);
}
