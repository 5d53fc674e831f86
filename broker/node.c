/* broker/node.c: start and stop of a node, in order, with everything undone when a step fails. */
#include "broker/node.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/admin/admin.h"
#include "broker/auth/auth.h"
#include "broker/checkpointer.h"
#include "broker/cluster.h"
#include "broker/data_dir.h"
#include "broker/install.h"
#include "broker/net/acceptor.h"
#include "broker/net/limits.h"
#include "broker/net/listener.h"
#include "broker/net/loop.h"
#include "broker/query_pool.h"
#include "broker/run_file.h"
#include "broker/session/across.h"
#include "broker/session/dispatch.h"
#include "broker/session/wakeups.h"

/* What a member keeps of its log for those that are behind, unless log-retain-bytes says. */
#define MEMBER_LOG_RETAIN_BYTES (UINT64_C(512) << 20)

/* Applier thread, after each group. */
static void after_group(void *ctx)
{
    struct broker_node *node = ctx;
    struct across *across = across_of(node);
    if (across)
        across_applied(across);
    struct checkpointer *cp = atomic_load_explicit(&node->checkpointer, memory_order_acquire);
    if (cp && db_checkpoint_due(node->db, raft_log_bytes(node->log),
                                chr_clock_mono_us(node->clock)) != DB_CHECKPOINT_NONE)
        checkpointer_kick(cp);
}

/* Applier thread. */
static void woken(void *ctx, const struct db_apply_result *result)
{
    struct broker_node *node = ctx;
    struct wakeups *wakeups = atomic_load_explicit(&node->wakeups, memory_order_acquire);
    if (wakeups) /* else session_node_init looks for itself */
        wakeups_applied(wakeups, result);
}

/* Applier thread. */
static void entry_applied(void *ctx, uint64_t index, chr_slice operations, bool ours,
                          const struct db_apply_result *result)
{
    struct broker_node *node = ctx;
    struct across *across = across_of(node);
    (void)index;
    if (across && !ours)
        across_entry_applied(across, operations, result);
}

/* ---- Users and ACLs --------------------------------------------------------------------------
 */

static chr_err prepare_users(void *ctx, const struct broker_config *next, void **prepared,
                             struct chr_errmsg *msg)
{
    (void)ctx;
    struct auth *auth = NULL;
    chr_err err = auth_load(next, &auth, msg);
    *prepared = auth;
    return err;
}

static void commit_users(void *ctx, void *prepared)
{
    struct broker_node *node = ctx;
    auth_swap(node->authority, prepared);
    session_auth_changed(node);
}

static void abort_users(void *ctx, void *prepared)
{
    (void)ctx;
    auth_unref(prepared);
}

static chr_err open_users(struct broker_node *node, struct chr_errmsg *msg)
{
    const struct broker_config *config = node->config;
    struct auth *auth = NULL;
    chr_err err = auth_load(config, &auth, msg);
    if (!err)
        err = authority_new(auth, node->clock, config->login_backoff_s, &node->authority);
    if (!err)
        node_reload_register(node, &(struct reload_part){.name = "users",
                                                         .ctx = node,
                                                         .prepare = prepare_users,
                                                         .commit = commit_users,
                                                         .abort = abort_users});
    return err;
}

static chr_err open_storage(struct broker_node *node, struct raft_log_recovery *recovery,
                            struct chr_errmsg *msg)
{
    const struct broker_config *config = node->config;
    const char *id = config->cluster.id;
    chr_err err = id ? data_dir_open_member(config->data_dir, cluster_node_number(id),
                                            config->cluster.bootstrap, &node->dir, msg)
                     : data_dir_open(config->data_dir, true, &node->dir, msg);
    if (!err && !id && node->dir.node != 1)
        err = chr_fail(msg, CHR_EFOREIGN,
                       "data directory %s is that of a member of a cluster: start it with "
                       "`chronos node`",
                       config->data_dir);
    if (!err)
        err = install_apply(config->data_dir, &node->dir, NULL, msg);
    if (err)
        return err;
    err = db_kv_lmdb_open(node->dir.db_path, config->map_bytes, &node->kv, msg);
    if (err)
        return err;
    node->kv_open = true;
    struct db_options options;
    db_options_default(&options);
    options.hot_limit_bytes = config->hot_limit_bytes;
    options.checkpoint_log_bytes = config->checkpoint_log_bytes;
    options.checkpoint_age_us = (int64_t)config->checkpoint_age_s * 1000000;
    err = db_open(&node->kv, &options, &node->db, msg);
    if (err)
        return err;
    err = raft_io_posix_open(node->dir.log_path, &node->log_io, msg);
    if (err)
        return err;
    node->log_io_open = true;
    struct raft_log_options log_options = {
        .segment_bytes = config->log_segment_bytes,
        .recycle_max = 4,
        .fsync = config->fsync,
        .periodic_ms = config->fsync_periodic_ms,
        .prepare_ahead = true,
    };
    err = raft_log_open(&node->log_io, &log_options, db_durable_index(node->db) + 1, &node->log,
                        recovery, msg);
    if (err)
        return err;
    if (recovery->torn_bytes)
        chr_log_warning("log", "a torn tail was cut, as a crash during a write leaves it",
                        CHR_KV_U("segment", recovery->torn_segment),
                        CHR_KV_U("offset", recovery->torn_offset),
                        CHR_KV_U("bytes", recovery->torn_bytes));
    return CHR_OK;
}

static chr_err start_committer(struct broker_node *node, const struct raft_log_recovery *recovery,
                               struct chr_errmsg *msg)
{
    struct broker_cluster cluster;
    if (node->cluster)
        cluster_for_committer(node->cluster, &cluster);
    struct broker_committer_options options = {
        .cluster = node->cluster ? &cluster : NULL,
        .log_retain_bytes = node->config->log_retain_bytes ? node->config->log_retain_bytes
                                                           : MEMBER_LOG_RETAIN_BYTES,
        .log = node->log,
        .db = node->db,
        .clock = node->clock,
        .loops = node->config->loops,
        .batches_per_loop = node->config->batches_per_loop,
        .fsync = node->config->fsync,
        .applied = after_group,
        .applied_ctx = node,
        .woken = woken,
        .woken_ctx = node,
        .entry_applied = node->cluster ? entry_applied : NULL,
        .entry_applied_ctx = node,
        .recovery = recovery,
    };
    return broker_committer_start(&options, &node->committer, msg);
}

static chr_err start_loops(struct broker_node *node, struct chr_errmsg *msg)
{
    node->loops = calloc(node->config->loops, sizeof *node->loops);
    if (!node->loops)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    for (uint32_t i = 0; i < node->config->loops; i++) {
        chr_err err = loop_start(node, i, &node->loops[i], msg);
        if (err)
            return err;
        node->loops_count++;
    }
    return CHR_OK;
}

static void log_limits(const struct broker_config *c)
{
    uint64_t loops = (uint64_t)c->loops * (c->receive_bytes_per_loop +
                                           (uint64_t)c->batches_per_loop * c->batch_bytes_max);
    uint64_t queries = (uint64_t)c->query_threads * c->query_memory_bytes;
    chr_log_info(
        "node", "memory limits", CHR_KV_U("hot_bytes", c->hot_limit_bytes),
        CHR_KV_U("loops_bytes", loops), CHR_KV_U("queries_bytes", queries),
        CHR_KV_U("retained_bytes", c->max_retained_bytes),
        CHR_KV_U("sum_bytes", c->hot_limit_bytes + loops + queries + c->max_retained_bytes));
}

chr_err node_start(const struct broker_config *config, const struct chr_clock *clock,
                   struct broker_node **out, struct chr_errmsg *msg)
{
    struct broker_node *node = calloc(1, sizeof *node);
    limits_raise_descriptors();
    if (!node)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    node->config = config;
    node->clock = clock;
    node->dir.lock_fd = -1;
    node->started_wall_us = chr_clock_wall_us(clock);
    node->started_mono_us = chr_clock_mono_us(clock);
    struct raft_log_recovery recovery = {0};
    struct checkpointer *cp = NULL;

    chr_err err = open_users(node, msg);
    if (!err)
        err = open_storage(node, &recovery, msg);
    /* The ports are taken before the long part, so that a second node says so at once. */
    if (!err)
        err = listeners_open(node, msg);
    if (!err)
        err = admin_open(node, &node->admin, msg);
    if (!err && config->cluster.id)
        err = cluster_open(node, &node->cluster, msg);
    node->peers = cluster_peers(node->cluster);
    if (!err)
        err = start_committer(node, &recovery, msg);
    if (!err)
        err = checkpointer_start(node, &cp);
    if (!err) {
        atomic_store_explicit(&node->checkpointer, cp, memory_order_release);
        err = session_node_init(node);
    }
    if (!err)
        err = query_pool_start(node, &node->queries);
    if (!err)
        err = start_loops(node, msg);
    if (!err)
        err = admin_start(node->admin, msg);
    if (!err)
        err = acceptor_start(node, &node->acceptor);
    if (!err && node->cluster)
        err = across_start(across_of(node));
    if (!err && node->cluster)
        err = cluster_start(node->cluster);
    if (err) {
        if (!msg->text[0])
            (void)chr_fail(msg, err, "can't start: %s", chr_strerror(err));
        node->failed = true;
        node_stop(node);
        node_free(node);
        return err;
    }
    atomic_store_explicit(&node->serving, true, memory_order_release);
    run_file_write(node);
    log_limits(config);
    *out = node;
    return CHR_OK;
}

/* All that was acknowledged is on the disk, and nothing more will be: the next start has lost
 * nothing, whatever --fsync was (node.meta, `clean`). What an earlier crash may have cost is made
 * good only when the node has caught up; a start that came to nothing leaves things as they were.
 */
static void note_clean_stop(struct broker_node *node)
{
    struct data_dir *dir = &node->dir;
    const struct broker_config *config = node->config;
    struct chr_errmsg msg = {{0}};
    struct broker_cluster_status status = {.catching_up = !dir->was_clean};
    if (!config->cluster.id || dir->lock_fd < 0)
        return;
    if (node->committer)
        broker_committer_status(node->committer, &status);
    dir->clean = !status.catching_up &&
                 (!node->log || raft_log_durable(node->log) >= raft_log_last(node->log));
    if (dir->clean && data_dir_save(dir, &msg))
        chr_log_warning("node", "can't write down that it was a clean stop",
                        CHR_KV_C("detail", msg.text));
}

void node_stop(struct broker_node *node)
{
    atomic_store(&node->stopping, true);
    if (!node->failed)
        run_file_remove(node);
    if (node->committer)
        broker_committer_hurry(node->committer);
    acceptor_stop(node->acceptor);
    node->acceptor = NULL;
    listeners_close(node);
    admin_stop(node->admin);
    node->admin = NULL;
    authority_stop(node->authority); /* done() of its requests posts to loops that still run */
    query_pool_stop(node->queries);
    /* Loops finish what they accepted: their batches are committed and acknowledged. */
    for (uint32_t i = 0; i < node->loops_count; i++)
        loop_stop(node->loops[i]);
    for (uint32_t i = 0; i < node->loops_count; i++)
        loop_join(node->loops[i]);
    across_stop(across_of(node));
    for (uint32_t i = 0; i < node->loops_count; i++)
        loop_take_last_mail(node->loops[i]);
    cluster_stop_snapshots(node->cluster);
    cluster_leave(node->cluster);
    struct checkpointer *cp = atomic_exchange(&node->checkpointer, NULL);
    checkpointer_stop(cp, !node->failed);
    if (node->committer)
        broker_committer_stop(node->committer);
    cluster_stop(node->cluster); /* it carried what the committer said last */
    note_clean_stop(node);
    checkpointer_free(cp); /* only now: the applier may be about to kick it */
    /* Likewise: whoever applied a loop's last batch may be about to wake the loop. */
    for (uint32_t i = 0; i < node->loops_count; i++)
        loop_free(node->loops[i]);
    node->loops_count = 0;
    query_pool_free(node->queries);
    node->queries = NULL;
}

void node_free(struct broker_node *node)
{
    if (!node)
        return;
    broker_committer_free(node->committer);
    cluster_free(node->cluster);
    session_node_free(node);
    authority_free(node->authority);
    listeners_free(node);
    free(node->loops);
    raft_log_close(node->log);
    if (node->log_io_open)
        raft_io_posix_close(&node->log_io);
    db_close(node->db);
    if (node->kv_open)
        db_kv_lmdb_close(&node->kv);
    data_dir_close(&node->dir);
    free(node);
}
