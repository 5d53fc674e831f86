/* tests/sim/cluster_life/process.c: a node's process: started as broker/node.c starts one, asked to
 * stop, or killed. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

#define START_AGAIN_US INT64_C(100000)

chr_err __real_raft_log_set_hard_state(raft_log *log, struct raft_hard_state state);
chr_err __wrap_raft_log_set_hard_state(raft_log *log, struct raft_hard_state state);

chr_err __wrap_raft_log_set_hard_state(raft_log *log, struct raft_hard_state state)
{
    chr_err err = __real_raft_log_set_hard_state(log, state);
    struct node *n = life__node();
    if (n && !err)
        n->hard_state = state;
    return err;
}

/* ---- Start ------------------------------------------------------------------------------------
 */

/* broker/cluster.c writes node.meta; a meta file that is replaced as a whole is not a matter of
 * this simulator. */
static void members_applied(void *ctx, uint64_t index, uint64_t term,
                            const struct raft_members *members)
{
    struct node *n = ctx;
    n->members = *members;
    n->members_index = index;
    n->members_term = term;
}

static void snapshot_wanted(void *ctx, uint64_t node)
{
    struct node *n = ctx;
    n->wants_snapshot |= 1u << node;
    life__wake(&n->wants_snapshot, true);
}

/* What a disk that fails now may come to; anything else is wrong. */
static void cannot_start(struct node *n, const char *what, chr_err err,
                         const struct chr_errmsg *msg)
{
    life__leave();
    if (err != CHR_EIO && err != CHR_EDOUBT && err != CHR_ENOSPC)
        (void)life__broken(life__world, "node %llu: %s: %s: %s", (unsigned long long)n->id, what,
                           chr_strerror(err), msg->text);
    life__process_ends(START_AGAIN_US);
}

static void open_storage(struct node *n, struct raft_log_recovery *recovery)
{
    struct chr_errmsg msg = {{0}};
    struct db_options db_options;
    db_options_default(&db_options);
    db_options.chunk_rows_max = 64;
    db_options.hot_limit_bytes = 256u << 10;
    db_options.checkpoint_log_bytes = 96u << 10;
    db_options.checkpoint_age_us = 20000000;
    chr_err err = db_open(&n->kv, &db_options, &n->db, &msg);
    if (err)
        cannot_start(n, "db_open", err, &msg);
    struct raft_log_options log_options = {.segment_bytes = SEGMENT_BYTES,
                                           .first_segment_bytes = SEGMENT_BYTES,
                                           .recycle_max = 1,
                                           .fsync = life__world->fsync,
                                           .periodic_ms = 100,
                                           .incarnation = n->incarnation,
                                           .clock = &n->clock};
    err = raft_log_open(&n->io, &log_options, db_durable_index(n->db) + 1, &n->log, recovery, &msg);
    if (err)
        cannot_start(n, "raft_log_open", err, &msg);
}

static void start_committer(struct node *n, const struct raft_log_recovery *recovery)
{
    struct world *w = life__world;
    struct chr_errmsg msg = {{0}};
    struct broker_cluster cluster = {
        .self = n->id,
        .incarnation = n->incarnation,
        .boot = n->boot,
        .peers = &n->peers,
        .members = n->members,
        .members_index = n->members_index,
        .ctx = n,
        .members_applied = members_applied,
        .leader_changed = life__leader_changed,
        .snapshot_wanted = snapshot_wanted,
    };
    struct broker_committer_options options = {
        .cluster = w->alone ? NULL : &cluster,
        .log = n->log,
        .db = n->db,
        .clock = &n->clock,
        .loops = LOOPS,
        .batches_per_loop = LOOP_BATCHES,
        .group_bytes_max = w->group_bytes,
        .log_retain_bytes = 64u << 10,
        .fsync = w->fsync,
        .recovery = recovery,
    };
    broker_committer *c = NULL;
    chr_err err = broker_committer_start(&options, &c, &msg);
    if (err)
        cannot_start(n, "broker_committer_start", err, &msg);
    n->committer = c;
    n->broker = calloc(1, sizeof *n->broker);
    CHR_ASSERT(n->broker);
    n->broker->db = n->db;
    n->broker->log = n->log;
    n->broker->clock = &n->clock;
    n->broker->committer = c;
    if (checkpointer_start(n->broker, &n->checkpointer))
        CHR_ASSERT(false);
}

/* Above those of a disk that was wiped, too, as far as clocks can tell (broker/data_dir.c). */
static void count_boot(struct node *n)
{
    uint64_t now_ms = (uint64_t)(life__wall(n) / 1000);
    n->boot = CHR_MAX(n->boot + 1, now_ms);
}

static void stop_all(struct node *n)
{
    n->serving = false;
    checkpointer_stop(n->checkpointer, chance(life__world, 500));
    broker_committer_stop(n->committer);
    for (uint32_t i = 0; i < n->users_count; i++)
        while (!life__ended(n->users[i]))
            life__block(n->users[i], NEVER);
    life__lanes_stop(n);
    broker_committer *c = n->committer;
    n->committer = NULL;
    broker_committer_free(c);
    checkpointer_free(n->checkpointer);
    free(n->broker);
    raft_log_close(n->log);
    db *d = n->db;
    n->db = NULL;
    db_close(d);
}

static void *process_main(void *arg)
{
    struct node *n = arg;
    struct world *w = life__world;
    struct raft_log_recovery recovery;
    count_boot(n);
    open_storage(n, &recovery);
    n->hard_state = recovery.hard_state;
    start_committer(n, &recovery);
    life__lanes_start(n);
    n->serving = true;
    life__trace(w, n, "serves: log from %llu to %llu, checkpoint at %llu",
                (unsigned long long)raft_log_first(n->log),
                (unsigned long long)raft_log_last(n->log),
                (unsigned long long)db_durable_index(n->db));
    if (!life__look(n))
        life__process_ends(NEVER);
    life__clients_start(n);
    while (!n->stopping)
        life__block(&n->stopping, NEVER);
    stop_all(n);
    life__leave();
    if (n->memory.count)
        (void)life__broken(w, "node %llu stopped, and %zu blocks of memory are still there",
                           (unsigned long long)n->id, n->memory.count);
    life__trace(w, n, "has stopped");
    life__process_ends(1000 + (int64_t)below(w, 300000));
}

void life__start(struct world *w, struct node *n)
{
    if (n->install && life__snapshot_install(w, n))
        w->report->snapshots++;
    n->install = n->restarts = false;
    n->up = true;
    n->stopping = n->serving = false;
    n->life++;
    n->doomed_at = NEVER;
    n->applies_late = false;
    n->peers.node = n;
    w->report->starts++;
    n->main = life__spawn(n, "main", process_main, n);
}

/* ---- End --------------------------------------------------------------------------------------
 */

static void count_up(struct world *w, const struct node *n)
{
    struct broker_committer *c = n->committer;
    if (!c)
        return;
    w->report->elections += atomic_load(&c->elections);
    w->report->won += atomic_load(&c->elections_won);
    w->report->forwarded += atomic_load(&c->forwarded);
    w->report->forwarded_again += atomic_load(&c->forwarded_again);
    w->report->by_lease += atomic_load(&c->reads_lease);
}

void life__kill(struct world *w, struct node *n, bool power, int64_t down_us)
{
    /* periodic: nothing is lost with a process alone, so none has to fear for its last entries
     * (lost_tail), for which a majority would be needed that does not. */
    power = power && w->fsync != RAFT_FSYNC_PERIODIC;
    life__trace(w, n, power ? "loses power" : "ends");
    count_up(w, n);
    n->up = n->serving = false;
    life__kill_fibers(n);
    life__disconnect(w, n);
    life__ops_lost(w, n);
    n->committer = NULL;
    n->db = NULL;
    n->log = NULL;
    n->checkpointer = NULL;
    n->broker = NULL;
    n->users_count = 0;
    n->wants_snapshot = 0;
    n->doomed_at = NEVER;
    if (power)
        fake_disk_crash(&n->disk);
    else
        fake_disk_kill(&n->disk);
    life__store_reopen(n);
    life__snapshot_forget(n);
    life__memory_forget(&n->memory);
    n->up_at = down_us == NEVER ? NEVER : w->now + down_us;
}

void life__process_ends(int64_t down_us)
{
    life__kill(life__world, life__self_node(), false, down_us);
    life__die();
}

void life__stop(struct world *w, struct node *n)
{
    if (!n->serving || n->stopping)
        return;
    life__trace(w, n, "is asked to stop");
    w->report->stops++;
    n->stopping = true;
    life__wake(&n->stopping, true);
}
