/* broker/committer.c: proposals in, groups out, the consensus core between; and the thread that
 * looks after what falls due.
 *
 * A turn of the core: take what the log has saved, pass on what is committed, gather the next group
 * when the log writer is free. It touches no file and waits for nobody. */
#include "broker/committer.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"
#include "broker/committer_internal.h"

/* The committer looks around at least this often, for ticks that fall due (R13). */
#define IDLE_WAIT_US_MAX INT64_C(1000000)
/* A full disk at a stop: whoever frees some room does it soon, or not at all. */
#define HURRY_US INT64_C(5000000)

/* ---- Committed groups to the applier ----------------------------------------------------------
 */

static void pass_committed(struct broker_committer *c, uint64_t commit_index)
{
    uint32_t passed = 0;
    while (passed < c->waiting_count && c->waiting[passed]->last_index <= commit_index) {
        atomic_fetch_add(&c->to_apply_bytes, c->waiting[passed]->bytes);
        bool pushed = chr_ring_push(&c->to_apply, c->waiting[passed]);
        CHR_ASSERT(pushed); /* the ring holds as many groups as there are */
        passed++;
    }
    if (passed == 0)
        return;
    c->waiting_count -= passed;
    memmove(c->waiting, c->waiting + passed, c->waiting_count * sizeof c->waiting[0]);
}

/* The effects stay valid until the next step. */
static chr_err core_step(struct broker_committer *c, struct raft_event event)
{
    event.now_us = chr_clock_mono_us(c->options.clock);
    event.wall_ms = (uint64_t)(chr_clock_wall_us(c->options.clock) / 1000);
    event.random = chr_random_u64(&c->random);
    return raft_step(&c->raft, &event, &c->effects);
}

static bool take_saved(struct broker_committer *c)
{
    uint64_t saved = atomic_load_explicit(&c->saved_index, memory_order_acquire);
    if (saved <= c->raft.saved_index)
        return false;
    chr_err err = core_step(c, (struct raft_event){.type = RAFT_EVENT_SAVED,
                                                   .sequence = atomic_load(&c->saved_sequence),
                                                   .saved_index = saved});
    CHR_ASSERT(err == CHR_OK);
    pass_committed(c, c->effects.commit_index);
    return true;
}

/* ---- Gathering a group ------------------------------------------------------------------------
 */

static bool has_room(const struct broker_committer *c, const struct committer_group *g,
                     size_t bytes)
{
    return g->count < COMMITTER_GROUP_ENTRIES &&
           (g->count == 0 || bytes < c->options.group_bytes_max);
}

static void group_add(struct committer_group *g, struct broker_proposal *p, size_t *bytes)
{
    g->proposals[g->count] = p;
    g->entries[g->count] = (struct raft_entry){
        .type = p ? p->type : RAFT_ENTRY_TICK,
        .bytes = p ? p->bytes : (chr_slice){0},
    };
    *bytes += g->entries[g->count].bytes.len;
    g->count++;
}

/* Round robin, so that one loop's backlog does not keep the others waiting; over groups, too: each
 * goes on where the last one stopped, or loops whose batches fill a group would starve the rest. */
static void gather_loops(struct broker_committer *c, struct committer_group *g, size_t *bytes)
{
    uint32_t empty = 0; /* rings found empty one after the other */
    while (empty < c->options.loops && has_room(c, g, *bytes)) {
        struct broker_proposal *p = chr_ring_pop(&c->rings[c->next_loop]);
        c->next_loop = (c->next_loop + 1) % c->options.loops;
        if (p)
            group_add(g, p, bytes);
        empty = p ? 0 : empty + 1;
    }
}

/* entries_max, bytes_max: of the group afterwards, beyond the group's own limits. */
static void gather_submitted(struct broker_committer *c, struct committer_group *g, size_t *bytes,
                             uint32_t entries_max, size_t bytes_max)
{
    pthread_mutex_lock(&c->submit_lock);
    while (!chr_list_empty(&c->submitted) && has_room(c, g, *bytes) && g->count < entries_max &&
           *bytes < bytes_max) {
        struct chr_list *first = c->submitted.next;
        chr_list_remove(first);
        c->submitted_count--;
        group_add(g, CHR_CONTAINER_OF(first, struct broker_proposal, link), bytes);
    }
    pthread_mutex_unlock(&c->submit_lock);
}

/* Something expires and no entry has moved replicated time past it (R13). */
static bool tick_due(struct broker_committer *c)
{
    int64_t due_us = db_next_due_us(c->options.db);
    /* Whole milliseconds, as the entry will be stamped: else ticks would follow each other, all
     * stamped before it, until the next one. */
    int64_t stamp_us = chr_clock_wall_us(c->options.clock) / 1000 * 1000;
    return due_us != INT64_MAX && c->waiting_count == 0 && due_us <= stamp_us &&
           chr_hlc_unix_us(db_replicated_time(c->options.db)) < due_us;
}

static void refuse(struct broker_committer *c, struct committer_group *g, chr_err err)
{
    for (uint32_t i = 0; i < g->count; i++)
        if (g->proposals[i])
            g->proposals[i]->done(g->proposals[i], err, NULL);
    g->count = 0;
    c->gathering = g;
}

/* What is on its way when the node stops is little and bounded: no reason to wait for a checkpoint
 * that may have no room. */
static bool held_by_hot_limit(struct broker_committer *c)
{
    return db_hot_full(c->options.db) && !atomic_load(&c->stopping) &&
           atomic_load(&c->give_up_us) == 0;
}

static bool gather(struct broker_committer *c)
{
    if (atomic_load_explicit(&c->to_write, memory_order_acquire) != NULL)
        return false; /* the next group gathers in the rings meanwhile */
    bool full = held_by_hot_limit(c);
    atomic_store_explicit(&c->hot_full, full, memory_order_relaxed);
    if (full)
        return false;
    if (!c->gathering)
        c->gathering = chr_ring_pop(&c->free_groups);
    struct committer_group *g = c->gathering;
    if (!g)
        return false; /* the applier is behind by all groups */
    g->count = 0;
    size_t bytes = 0;
    /* Half of the group for each of the two, the rest for whoever comes: a backlog of the loops
     * must not starve SQL, nor the other way round. */
    gather_submitted(c, g, &bytes, COMMITTER_GROUP_ENTRIES / 2, c->options.group_bytes_max / 2);
    gather_loops(c, g, &bytes);
    gather_submitted(c, g, &bytes, UINT32_MAX, SIZE_MAX);
    if (g->count == 0 && tick_due(c))
        group_add(g, NULL, &bytes);
    if (g->count == 0)
        return false;

    c->gathering = NULL;
    chr_err err = core_step(c, (struct raft_event){.type = RAFT_EVENT_PROPOSE,
                                                   .entries = g->entries,
                                                   .entries_count = g->count});
    if (err) {
        refuse(c, g, err);
        return true;
    }
    CHR_ASSERT(c->effects.save == g->entries);
    g->save_sequence = c->effects.save_sequence;
    for (uint32_t i = 0; i < g->count; i++) {
        if (!g->proposals[i])
            continue;
        g->proposals[i]->index = g->entries[i].index;
        g->proposals[i]->hlc = g->entries[i].hlc;
    }
    g->last_index = g->entries[g->count - 1].index;
    g->bytes = bytes;
    c->waiting[c->waiting_count++] = g;
    atomic_fetch_add_explicit(&c->groups_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->entries_count, g->count, memory_order_relaxed);
    atomic_store(&c->to_write, g);
    return true;
}

bool committer__core_turn(struct broker_committer *c)
{
    pthread_mutex_lock(&c->core_lock);
    bool worked = take_saved(c);
    worked |= gather(c);
    pthread_mutex_unlock(&c->core_lock);
    return worked;
}

/* ---- The thread -------------------------------------------------------------------------------
 */

static bool submitted_waits(struct broker_committer *c)
{
    pthread_mutex_lock(&c->submit_lock);
    bool waits = !chr_list_empty(&c->submitted);
    pthread_mutex_unlock(&c->submit_lock);
    return waits;
}

static bool proposals_wait(struct broker_committer *c)
{
    for (uint32_t i = 0; i < c->options.loops; i++)
        if (!chr_ring_empty(&c->rings[i]))
            return true;
    return submitted_waits(c);
}

static int64_t idle_wait_us(struct broker_committer *c, int64_t now_us)
{
    int64_t due_us = db_next_due_us(c->options.db);
    /* What replicated time has passed already is not waiting for a tick. */
    if (due_us == INT64_MAX || chr_hlc_unix_us(db_replicated_time(c->options.db)) >= due_us)
        return IDLE_WAIT_US_MAX;
    int64_t left_us = due_us - now_us;
    return left_us < 1000 ? 1000 : CHR_MIN(left_us, IDLE_WAIT_US_MAX);
}

/* Asked between prepare and wait, so that no signal is lost. */
bool committer__core_work_waits(struct broker_committer *c)
{
    pthread_mutex_lock(&c->core_lock);
    bool waits = atomic_load(&c->saved_index) > c->raft.saved_index;
    if (!waits && atomic_load(&c->to_write) == NULL && !held_by_hot_limit(c) &&
        (c->gathering || !chr_ring_empty(&c->free_groups)))
        waits = proposals_wait(c) || tick_due(c);
    pthread_mutex_unlock(&c->core_lock);
    return waits;
}

static bool finished(struct broker_committer *c)
{
    if (!atomic_load(&c->stopping))
        return false;
    pthread_mutex_lock(&c->core_lock);
    bool done = c->waiting_count == 0 && atomic_load(&c->to_write) == NULL && !proposals_wait(c);
    pthread_mutex_unlock(&c->core_lock);
    return done;
}

/* Due times and the end of the node; proposals are the log writer's to notice. */
static void *committer_main(void *arg)
{
    struct broker_committer *c = arg;
    pthread_setname_np(pthread_self(), "committer");
    while (!finished(c)) {
        if (committer__core_turn(c)) {
            chr_wake_signal(&c->writer_wake);
            if (!chr_ring_empty(&c->to_apply))
                chr_wake_signal(&c->applier_wake);
        }
        uint32_t ticket = chr_wake_prepare(&c->wake);
        int64_t now_us = chr_clock_wall_us(c->options.clock);
        int64_t wait_us = idle_wait_us(c, now_us);
        atomic_store(&c->sleeps_until_us, now_us + wait_us);
        /* Whoever moves the next due time looks at sleeps_until_us after that, and all four
         * accesses are sequentially consistent; so either it wakes us, or we see its due time. */
        if (finished(c) || idle_wait_us(c, now_us) < wait_us)
            chr_wake_cancel(&c->wake);
        else
            chr_wake_wait(&c->wake, ticket, wait_us);
        atomic_store(&c->sleeps_until_us, INT64_MIN);
    }
    return NULL;
}

/* ---- Start and stop ---------------------------------------------------------------------------
 */

/* Takes office: a cluster of one elects itself at the first tick, saves term and vote, and commits
 * everything before its term with the first entry of it (thesis 3.6.2). No thread runs yet, so the
 * effects are carried out right here. */
static chr_err take_office(struct broker_committer *c, struct chr_errmsg *msg)
{
    raft_log *log = c->options.log;
    const struct raft_log_recovery *recovery = c->options.recovery;
    const struct raft_config config = {.self = 1, .incarnation = recovery->incarnation};
    size_t runs_count = raft_log_terms(log, NULL, 0);
    struct raft_term_run *runs = calloc(runs_count + 1, sizeof *runs);
    if (!runs)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    (void)raft_log_terms(log, runs, runs_count);
    const struct raft_stored stored = {
        .hard_state = recovery->hard_state,
        .base_index = raft_log_first(log) - 1,
        .base_term = raft_log_term_of(log, raft_log_first(log) - 1),
        .last_index = raft_log_last(log),
        .last_hlc = CHR_MAX(recovery->last_hlc, db_replicated_time(c->options.db)),
        .commit_index = db_apply_index(c->options.db),
        .members = {.items = {{config.self, config.incarnation, true}}, .count = 1},
        .runs = runs,
        .runs_count = runs_count,
    };
    chr_err err = raft_init(&c->raft, &config, &stored);
    free(runs);
    if (stored.commit_index < stored.base_index)
        return chr_fail(msg, CHR_ECORRUPT,
                        "the log begins at entry %llu, but the checkpoint ends at %llu: entries "
                        "between them are missing",
                        (unsigned long long)stored.base_index + 1,
                        (unsigned long long)stored.commit_index);
    if (err)
        return chr_fail(msg, err, "can't start the consensus core: %s", chr_strerror(err));
    err = core_step(c, (struct raft_event){.type = RAFT_EVENT_TICK});
    const struct raft_effects *effects = &c->effects;
    if (!err && effects->hard_state_changed)
        err = raft_log_set_hard_state(log, effects->hard_state);
    if (!err && effects->save_count)
        err = raft_log_append(log, effects->save, effects->save_count);
    if (!err && effects->save_count)
        err = raft_log_sync(log, msg);
    if (err)
        return msg->text[0] ? err
                            : chr_fail(msg, err, "can't write the log: %s", chr_strerror(err));
    err = core_step(c, (struct raft_event){.type = RAFT_EVENT_SAVED,
                                           .sequence = effects->save_sequence,
                                           .saved_index = raft_log_last(log)});
    CHR_ASSERT(err == CHR_OK && c->raft.role == RAFT_LEADER);
    atomic_store(&c->saved_index, raft_log_last(log));
    atomic_store(&c->synced_index, raft_log_last(log));
    return committer__replay(c, effects->commit_index, msg);
}

static chr_err start_thread(pthread_t *thread, bool *running, void *(*main)(void *), void *arg)
{
    if (pthread_create(thread, NULL, main, arg))
        return CHR_ENOMEM;
    *running = true;
    return CHR_OK;
}

chr_err broker_committer_start(const struct broker_committer_options *options,
                               broker_committer **out, struct chr_errmsg *msg)
{
    struct broker_committer *c = aligned_alloc(CHR_CACHE_LINE, chr_round_up(sizeof *c, 64));
    if (!c)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    memset(c, 0, sizeof *c);
    c->options = *options;
    chr_random_bytes(&c->random, sizeof c->random);
    if (c->options.group_bytes_max == 0)
        c->options.group_bytes_max = 8u << 20;
    chr_list_init(&c->submitted);
    pthread_mutex_init(&c->submit_lock, NULL);
    pthread_mutex_init(&c->core_lock, NULL);
    pthread_mutex_init(&c->apply_lock, NULL);
    pthread_mutex_init(&c->synced_lock, NULL);
    atomic_store(&c->sleeps_until_us, INT64_MIN);
    pthread_cond_init(&c->synced_cond, NULL);
    chr_wake_init(&c->wake);
    chr_wake_init(&c->writer_wake);
    chr_wake_init(&c->applier_wake);

    chr_err err = chr_ring_init(&c->free_groups, COMMITTER_GROUPS);
    if (!err)
        err = chr_ring_init(&c->to_apply, COMMITTER_GROUPS);
    c->rings = aligned_alloc(CHR_CACHE_LINE,
                             chr_round_up(sizeof *c->rings * CHR_MAX(options->loops, 1u), 64));
    if (!c->rings)
        err = CHR_ENOMEM;
    else
        memset(c->rings, 0, sizeof *c->rings * CHR_MAX(options->loops, 1u));
    size_t ring_capacity = 2;
    while (ring_capacity < options->batches_per_loop)
        ring_capacity *= 2;
    for (uint32_t i = 0; !err && i < options->loops; i++)
        err = chr_ring_init(&c->rings[i], ring_capacity);
    if (err) {
        broker_committer_free(c);
        return chr_fail(msg, err, "out of memory");
    }
    for (int i = 0; i < COMMITTER_GROUPS; i++) {
        bool pushed = chr_ring_push(&c->free_groups, &c->groups[i]);
        CHR_ASSERT(pushed);
    }
    err = take_office(c, msg);
    if (err) {
        broker_committer_free(c);
        return err;
    }
    err = start_thread(&c->writer_thread, &c->writer_running, committer__writer_main, c);
    if (!err)
        err = start_thread(&c->applier_thread, &c->applier_running, committer__applier_main, c);
    if (!err)
        err = start_thread(&c->committer_thread, &c->committer_running, committer_main, c);
    if (err) {
        broker_committer_stop(c);
        broker_committer_free(c);
        return chr_fail(msg, err, "can't start a thread");
    }
    *out = c;
    return CHR_OK;
}

void broker_committer_hurry(broker_committer *c)
{
    int64_t never = 0;
    (void)atomic_compare_exchange_strong(&c->give_up_us, &never,
                                         chr_clock_mono_us(c->options.clock) + HURRY_US);
    chr_wake_signal(&c->wake);
    chr_wake_signal(&c->writer_wake);
}

void broker_committer_stop(broker_committer *c)
{
    broker_committer_hurry(c);
    pthread_mutex_lock(&c->submit_lock);
    c->closed = true;
    pthread_mutex_unlock(&c->submit_lock);
    atomic_store(&c->stopping, true);
    chr_wake_signal(&c->wake);
    chr_wake_signal(&c->writer_wake);
    if (c->committer_running)
        pthread_join(c->committer_thread, NULL);
    atomic_store(&c->writer_stop, true);
    chr_wake_signal(&c->writer_wake);
    if (c->writer_running)
        pthread_join(c->writer_thread, NULL);
    atomic_store(&c->applier_stop, true);
    chr_wake_signal(&c->applier_wake);
    if (c->applier_running)
        pthread_join(c->applier_thread, NULL);
    c->committer_running = c->writer_running = c->applier_running = false;
    pthread_mutex_lock(&c->synced_lock);
    pthread_cond_broadcast(&c->synced_cond);
    pthread_mutex_unlock(&c->synced_lock);
}

void broker_committer_free(broker_committer *c)
{
    if (!c)
        return;
    CHR_ASSERT(!c->committer_running);
    for (uint32_t i = 0; c->rings && i < c->options.loops; i++)
        chr_ring_free(&c->rings[i]);
    free(c->rings);
    raft_free(&c->raft);
    chr_ring_free(&c->free_groups);
    chr_ring_free(&c->to_apply);
    pthread_mutex_destroy(&c->submit_lock);
    pthread_mutex_destroy(&c->core_lock);
    pthread_mutex_destroy(&c->apply_lock);
    pthread_mutex_destroy(&c->synced_lock);
    pthread_cond_destroy(&c->synced_cond);
    free(c);
}

/* ---- Proposing --------------------------------------------------------------------------------
 */

void broker_propose_from_loop(broker_committer *c, uint32_t loop, struct broker_proposal *proposal)
{
    bool pushed = chr_ring_push(&c->rings[loop], proposal);
    CHR_ASSERT(pushed); /* capacity is the number of batches a loop has */
}

void broker_committer_kick(broker_committer *c)
{
    chr_wake_signal(&c->writer_wake);
}

chr_err broker_propose(broker_committer *c, struct broker_proposal *proposal)
{
    if (atomic_load_explicit(&c->disk_full, memory_order_relaxed))
        return CHR_ENOSPC;
    chr_err err = CHR_OK;
    pthread_mutex_lock(&c->submit_lock);
    if (c->closed) {
        err = CHR_ECLOSED;
    } else if (c->submitted_count >= COMMITTER_SUBMITTED_MAX) {
        err = CHR_EFULL;
    } else {
        chr_list_push_back(&c->submitted, &proposal->link);
        c->submitted_count++;
    }
    pthread_mutex_unlock(&c->submit_lock);
    if (!err)
        chr_wake_signal(&c->writer_wake);
    return err;
}

/* A waited-for proposal outlives its waiter when that gives up: whoever comes second frees it. */
struct waited_proposal {
    struct broker_proposal proposal;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done, abandoned;
    chr_err err;
    void (*copy)(void *arg, const struct db_apply_result *result);
    void *arg;
    uint8_t bytes[];
};

static void waited_free(struct waited_proposal *w)
{
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->cond);
    free(w);
}

static void waited_done(struct broker_proposal *proposal, chr_err err,
                        const struct db_apply_result *result)
{
    struct waited_proposal *w = CHR_CONTAINER_OF(proposal, struct waited_proposal, proposal);
    pthread_mutex_lock(&w->lock);
    bool abandoned = w->abandoned;
    if (!abandoned) {
        w->err = err ? err : result->err;
        if (result && w->copy)
            w->copy(w->arg, result);
        w->done = true;
        pthread_cond_signal(&w->cond);
    }
    pthread_mutex_unlock(&w->lock);
    if (abandoned)
        waited_free(w);
}

chr_err broker_propose_wait(broker_committer *c, chr_slice bytes, uint32_t timeout_ms,
                            void (*copy)(void *arg, const struct db_apply_result *result),
                            void *arg)
{
    /* The bytes are copied because a caller that gives up may free its own while they are still on
     * their way to the disk. */
    struct waited_proposal *w = malloc(sizeof *w + bytes.len);
    if (!w)
        return CHR_ENOMEM;
    memset(w, 0, sizeof *w);
    if (bytes.len)
        memcpy(w->bytes, bytes.ptr, bytes.len);
    w->proposal.bytes = chr_slice_of(w->bytes, bytes.len);
    w->proposal.type = RAFT_ENTRY_DATA;
    w->proposal.done = waited_done;
    w->copy = copy;
    w->arg = arg;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, &attr);
    pthread_condattr_destroy(&attr);

    chr_err err = broker_propose(c, &w->proposal);
    if (err) {
        waited_free(w);
        return err;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&w->lock);
    int waited = 0;
    while (!w->done && waited == 0)
        waited = timeout_ms ? pthread_cond_timedwait(&w->cond, &w->lock, &until)
                            : pthread_cond_wait(&w->cond, &w->lock);
    bool done = w->done;
    err = done ? w->err : CHR_ETIMEDOUT;
    w->abandoned = !done;
    pthread_mutex_unlock(&w->lock);
    if (done)
        waited_free(w);
    return err;
}

/* ---- Others
 * ------------------------------------------------------------------------------------*/

void broker_committer_cut(broker_committer *c, uint64_t index)
{
    atomic_store(&c->cut_index, index);
    chr_wake_signal(&c->writer_wake);
}

chr_err broker_committer_wait_synced(broker_committer *c, uint64_t index)
{
    if (c->options.fsync == RAFT_FSYNC_PERIODIC) {
        atomic_store(&c->force_sync, true);
        chr_wake_signal(&c->writer_wake);
    }
    pthread_mutex_lock(&c->synced_lock);
    while (atomic_load(&c->synced_index) < index && !atomic_load(&c->writer_stop))
        pthread_cond_wait(&c->synced_cond, &c->synced_lock);
    bool synced = atomic_load(&c->synced_index) >= index;
    pthread_mutex_unlock(&c->synced_lock);
    return synced ? CHR_OK : CHR_ECLOSED;
}

void broker_committer_unblock(broker_committer *c)
{
    chr_wake_signal(&c->writer_wake);
}

void broker_committer_stats(broker_committer *c, struct broker_committer_stats *out)
{
    *out = (struct broker_committer_stats){
        .groups = atomic_load_explicit(&c->groups_count, memory_order_relaxed),
        .entries = atomic_load_explicit(&c->entries_count, memory_order_relaxed),
        .entries_applied = atomic_load_explicit(&c->entries_applied, memory_order_relaxed),
        .leader = true, /* a cluster of one took office before its first answer */
        .disk_full = atomic_load_explicit(&c->disk_full, memory_order_relaxed),
        .hot_full = atomic_load_explicit(&c->hot_full, memory_order_relaxed),
        .term = c->raft.term, /* constant while a cluster of one runs */
    };
    raft_log_stats(c->options.log, &out->log);
}
