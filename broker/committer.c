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
#include "base/hash.h"
#include "base/log.h"
#include "base/priority.h"
#include "broker/committer_internal.h"

/* The committer looks around at least this often, for ticks that fall due (R13). */
#define IDLE_WAIT_US_MAX INT64_C(1000000)
/* A full disk at a stop: whoever frees some room does it soon, or not at all. */
#define HURRY_US INT64_C(5000000)
/* A leader's disk may be full for a moment, until old segments are gone, or busy with what others
 * write; not for so long. */
#define FULL_DISK_PATIENCE_US    INT64_C(2000000)
#define HANGING_DISK_PATIENCE_US INT64_C(1000000)
/* A node of a cluster that stops looks so often whether others have answered the rest. */
#define STOPPING_LOOK_US INT64_C(20000)

/* ---- The thread -------------------------------------------------------------------------------
 */

static int64_t idle_wait_us(struct broker_committer *c, int64_t now_us)
{
    int64_t due_us = db_next_due_us(c->options.db);
    /* What replicated time has passed already is not waiting for a tick. */
    if (due_us == INT64_MAX || chr_hlc_unix_us(db_replicated_time(c->options.db)) >= due_us)
        return IDLE_WAIT_US_MAX;
    int64_t left_us = due_us - now_us;
    return left_us < 1000 ? 1000 : CHR_MIN(left_us, IDLE_WAIT_US_MAX);
}

/* Entries proposed here that are not applied yet. */
static bool own_entries_out(const struct broker_committer *c)
{
    for (uint32_t i = 0; i < c->waiting_count; i++)
        if (c->alone || c->waiting[i]->own)
            return true;
    return c->gathering->own || (c->alone && c->gathering->count > 0);
}

/* core_lock. A leader that stops waits until another leads, but not for long: by then its vote, and
 * whatever else the other may need of it, has left. */
static bool handing_over(struct broker_committer *c)
{
    if (c->alone)
        return false;
    if (!c->transferring)
        return c->raft.role == RAFT_LEADER;
    return (c->raft.role == RAFT_LEADER || c->raft.leader == 0) &&
           chr_clock_mono_us(c->options.clock) < c->transfer_until_us;
}

/* A cluster may have no leader for a while, or for good: what it does not answer in time is given
 * up, unacknowledged. */
static bool finished(struct broker_committer *c)
{
    if (!atomic_load(&c->stopping))
        return false;
    pthread_mutex_lock(&c->core_lock);
    bool done = !own_entries_out(c) && atomic_load(&c->to_write) == NULL &&
                !committer__proposals_wait(c) && (c->alone || committer__forward_idle(c)) &&
                !handing_over(c);
    int64_t until_us = atomic_load(&c->give_up_us);
    if (!c->alone && until_us && chr_clock_mono_us(c->options.clock) > until_us &&
        atomic_load(&c->to_write) == NULL)
        done = true;
    pthread_mutex_unlock(&c->core_lock);
    return done;
}

/* core_lock. To whoever is furthest, of those that answer: one that is gone may be as far. False:
 * it leads nobody. */
static bool hand_over_to_best(struct broker_committer *c)
{
    const struct raft *raft = &c->raft;
    const struct raft_peer *best = NULL;
    bool best_near = false;
    int64_t near_us = chr_clock_mono_us(c->options.clock) - raft->config.election_min_us;
    for (uint32_t i = 0; raft->role == RAFT_LEADER && i < raft->peers_count; i++) {
        const struct raft_peer *p = &raft->peers[i];
        bool near = p->heard_us > near_us;
        if (p->member.id == raft->config.self || !p->member.voter ||
            (best && (near < best_near || (near == best_near && p->match <= best->match))))
            continue;
        best = p;
        best_near = near;
    }
    if (!best)
        return false;
    uint64_t to = best->member.id;
    if (committer__step(c, (struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = to}) != CHR_OK)
        return false;
    chr_log_notice("raft", "hands leadership over", CHR_KV_U("to", to));
    return true;
}

/* A node that stops: so that nobody waits for an election. */
static void hand_leadership_over(struct broker_committer *c)
{
    if (c->alone || c->transferring || !atomic_load(&c->stopping))
        return;
    pthread_mutex_lock(&c->core_lock);
    if (hand_over_to_best(c)) /* as long as the core itself waits for it, and for a heartbeat */
        c->transfer_until_us = chr_clock_mono_us(c->options.clock) +
                               c->raft.config.election_max_us + c->raft.config.heartbeat_us;
    c->transferring = true;
    pthread_mutex_unlock(&c->core_lock);
}

static bool disk_hangs(const struct broker_committer *c, int64_t now_us)
{
    int64_t since_us = atomic_load(&c->writing_since_us);
    return since_us && now_us - since_us > HANGING_DISK_PATIENCE_US &&
           !atomic_load(&c->disk_full); /* then it waits for room */
}

/* A leader without room for its log, or for the checkpoint that would free its memory, or whose
 * disk does not answer, is alive, so nobody else is elected, and takes nothing, so everybody waits
 * for its operator. Others may have room, or a disk that works. */
static void yield_without_disk(struct broker_committer *c)
{
    int64_t now_us = chr_clock_mono_us(c->options.clock);
    int64_t writing_us = atomic_load(&c->writing_since_us);
    bool hangs = disk_hangs(c, now_us);
    bool stuck = hangs || atomic_load(&c->disk_full) ||
                 (atomic_load(&c->no_room) && db_hot_full(c->options.db));
    if (c->alone || !stuck || atomic_load(&c->role) != RAFT_LEADER) {
        c->stuck_since_us = 0;
        return;
    }
    if (c->stuck_since_us == 0)
        c->stuck_since_us = hangs ? writing_us : now_us;
    if (now_us - c->stuck_since_us < (hangs ? HANGING_DISK_PATIENCE_US : FULL_DISK_PATIENCE_US))
        return;
    c->stuck_since_us = now_us; /* and again, if nothing comes of it */
    pthread_mutex_lock(&c->core_lock);
    (void)hand_over_to_best(c);
    pthread_mutex_unlock(&c->core_lock);
    if (hangs) /* afterwards: the log may be on that disk */
        chr_log_error("log", "the disk does not answer; another node is to lead",
                      CHR_KV_U("waiting_ms", (uint64_t)(now_us - writing_us) / 1000));
}

/* Due times and the end of the node; proposals are the log writer's to notice. */
static void *committer_main(void *arg)
{
    struct broker_committer *c = arg;
    pthread_setname_np(pthread_self(), "committer");
    if (!c->alone)
        chr_priority_set(CHR_PRIORITY_URGENT); /* it sends the heartbeats */
    while (!finished(c)) {
        hand_leadership_over(c);
        yield_without_disk(c);
        if (committer__core_turn(c)) {
            chr_wake_signal(&c->writer_wake);
            committer__wake_others(c);
        }
        uint32_t ticket = chr_wake_prepare(&c->wake);
        int64_t now_us = chr_clock_wall_us(c->options.clock);
        int64_t wait_us = idle_wait_us(c, now_us);
        if (!c->alone) {
            int64_t mono_us = chr_clock_mono_us(c->options.clock);
            int64_t due_us = atomic_load(&c->raft_due_us);
            wait_us = due_us <= mono_us ? 0 : CHR_MIN(wait_us, due_us - mono_us);
            if (atomic_load(&c->stopping))
                wait_us = CHR_MIN(wait_us, STOPPING_LOOK_US);
            atomic_store(&c->sleeps_until_mono_us, mono_us + wait_us);
            if (atomic_load(&c->raft_due_us) < mono_us + wait_us)
                wait_us = 0;
        }
        atomic_store(&c->sleeps_until_us, now_us + wait_us);
        /* Whoever moves the next due time looks at sleeps_until_us after that, and all four
         * accesses are sequentially consistent; so either it wakes us, or we see its due time. */
        if (wait_us == 0 || finished(c) || idle_wait_us(c, now_us) < wait_us)
            chr_wake_cancel(&c->wake);
        else
            chr_wake_wait(&c->wake, ticket, wait_us);
        atomic_store(&c->sleeps_until_us, INT64_MIN);
        atomic_store(&c->sleeps_until_mono_us, INT64_MIN);
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
    struct raft_event event = {.type = RAFT_EVENT_TICK,
                               .now_us = chr_clock_mono_us(c->options.clock),
                               .wall_ms = (uint64_t)(chr_clock_wall_us(c->options.clock) / 1000),
                               .random = chr_random_u64(&c->random)};
    chr_err err = raft_step(&c->raft, &event, &c->effects);
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
    err = committer__step(c, (struct raft_event){.type = RAFT_EVENT_SAVED,
                                                 .sequence = effects->save_sequence,
                                                 .saved_index = raft_log_last(log)});
    CHR_ASSERT(err == CHR_OK && c->raft.role == RAFT_LEADER);
    atomic_store(&c->synced_index, raft_log_last(log));
    return committer__replay(c, effects->commit_index, msg);
}

/* What only the log holds is applied once a leader says that it is committed. */
static chr_err join_in(struct broker_committer *c)
{
    atomic_store(&c->synced_index, raft_log_durable(c->options.log));
    atomic_store(&c->apply_limit, db_apply_index(c->options.db));
    atomic_store(&c->commit_index, c->raft.commit_index);
    atomic_store(&c->term, c->raft.term);
    atomic_store(&c->last_index, c->raft.last_index);
    atomic_store(&c->raft_due_us, INT64_MIN);
    c->read_number = c->cluster.boot << 20; /* an answer to an earlier life is none to this one */
    c->inbox_entries = calloc(COMMITTER_GROUP_ENTRIES, sizeof *c->inbox_entries);
    return c->inbox_entries ? CHR_OK : CHR_ENOMEM;
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

    c->alone = options->cluster == NULL;
    if (options->cluster)
        c->cluster = *options->cluster;
    /* A wiped disk begins to number anew, so it is another origin. */
    c->origin = chr_hash_u64(c->cluster.self ^ chr_hash_u64(c->cluster.incarnation)) | 1;
    chr_list_init(&c->readers);
    pthread_mutex_init(&c->inbox_lock, NULL);
    pthread_mutex_init(&c->groups_lock, NULL);
    pthread_mutex_init(&c->applied_lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->applied_cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    chr_wake_init(&c->replicator_wake);
    atomic_store(&c->sleeps_until_mono_us, INT64_MIN);
    atomic_store(&c->lease_until_us, INT64_MIN);
    atomic_store(&c->raft_due_us, INT64_MAX);
    committer__forward_init(c);

    chr_err err = committer__groups_init(c);
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
    err = committer__core_init(c, msg);
    if (!err)
        err = c->alone ? take_office(c, msg) : join_in(c);
    if (err) {
        broker_committer_free(c);
        return err;
    }
    err = start_thread(&c->writer_thread, &c->writer_running, committer__writer_main, c);
    if (!err)
        err = start_thread(&c->applier_thread, &c->applier_running, committer__applier_main, c);
    if (!err && !c->alone)
        err = start_thread(&c->replicator_thread, &c->replicator_running,
                           committer__replicator_main, c);
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

/* What could not be answered: whoever waits for it is told that it is not known. */
static void abandon(struct broker_committer *c)
{
    if (c->alone)
        return;
    pthread_mutex_lock(&c->core_lock); /* lanes may still call; they find it ended */
    for (uint32_t g = 0; g < c->waiting_count; g++)
        for (uint32_t i = 0; i < c->waiting[g]->keep; i++)
            if (c->waiting[g]->proposals[i])
                c->waiting[g]->proposals[i]->done(c->waiting[g]->proposals[i], CHR_ECLOSED, NULL);
    for (uint32_t i = 0; i < c->gathering->keep; i++)
        if (c->gathering->proposals[i])
            c->gathering->proposals[i]->done(c->gathering->proposals[i], CHR_ECLOSED, NULL);
    c->waiting_count = 0;
    c->gathering->keep = 0;
    committer__forward_abandon(c);
    struct broker_proposal *p;
    for (uint32_t i = 0; i < c->options.loops; i++)
        while ((p = chr_ring_pop(&c->rings[i])) != NULL)
            p->done(p, CHR_ECLOSED, NULL);
    while (!chr_list_empty(&c->submitted)) {
        p = CHR_CONTAINER_OF(c->submitted.next, struct broker_proposal, link);
        chr_list_remove(&p->link);
        p->done(p, CHR_ECLOSED, NULL);
    }
    pthread_mutex_unlock(&c->core_lock);
}

bool broker_committer_given_up(const broker_committer *c)
{
    int64_t until_us = atomic_load(&c->give_up_us);
    return !c->alone && until_us && chr_clock_mono_us(c->options.clock) > until_us;
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
    if (!c->alone) {
        pthread_mutex_lock(&c->core_lock);
        c->ended = true;
        pthread_mutex_unlock(&c->core_lock);
    }
    atomic_store(&c->replicator_stop, true);
    chr_wake_signal(&c->replicator_wake);
    if (c->replicator_running)
        pthread_join(c->replicator_thread, NULL);
    atomic_store(&c->writer_stop, true);
    chr_wake_signal(&c->writer_wake);
    if (c->writer_running)
        pthread_join(c->writer_thread, NULL);
    atomic_store(&c->applier_stop, true);
    chr_wake_signal(&c->applier_wake);
    if (c->applier_running)
        pthread_join(c->applier_thread, NULL);
    c->committer_running = c->writer_running = c->applier_running = c->replicator_running = false;
    abandon(c);
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
    chr_ring_free(&c->to_apply);
    while (c->inbox) {
        struct peers_message *next = c->inbox->next;
        peers_release(c->cluster.peers, c->inbox);
        c->inbox = next;
    }
    committer__groups_free(c);
    committer__forward_free(c);
    committer__replay_free(c->replay);
    free(c->inbox_entries);
    pthread_mutex_destroy(&c->inbox_lock);
    pthread_mutex_destroy(&c->groups_lock);
    pthread_mutex_destroy(&c->applied_lock);
    pthread_cond_destroy(&c->applied_cond);
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
    /* The node's clock says when it is over: a wait may end early. */
    int64_t until_us = chr_clock_mono_us(c->options.clock) + (int64_t)timeout_ms * 1000;
    pthread_mutex_lock(&w->lock);
    while (!w->done && (timeout_ms == 0 || chr_clock_mono_us(c->options.clock) < until_us))
        (void)(timeout_ms ? pthread_cond_timedwait(&w->cond, &w->lock, &until)
                          : pthread_cond_wait(&w->cond, &w->lock));
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

void broker_committer_unblock(broker_committer *c, bool room)
{
    atomic_store(&c->no_room, !room);
    chr_wake_signal(&c->writer_wake);
}

/* ---- In a cluster -----------------------------------------------------------------------------
 */

uint64_t broker_committer_leader(const broker_committer *c)
{
    return c->alone ? 1 : atomic_load(&c->leader);
}

chr_err broker_committer_found(broker_committer *c, const struct raft_members *founders)
{
    pthread_mutex_lock(&c->core_lock);
    chr_err err = CHR_OK;
    if (c->raft.term || c->raft.last_index || raft_members_now(&c->raft)->count) {
        err = CHR_EEXIST;
    } else {
        struct raft_config config = c->raft.config;
        struct raft_stored stored = {.members = *founders,
                                     .last_hlc = db_replicated_time(c->options.db)};
        raft_free(&c->raft);
        err = raft_init(&c->raft, &config, &stored);
        atomic_store(&c->raft_due_us, INT64_MIN);
    }
    pthread_mutex_unlock(&c->core_lock);
    chr_wake_signal(&c->wake);
    return err;
}

static chr_err step_and_wake(broker_committer *c, struct raft_event event)
{
    pthread_mutex_lock(&c->core_lock);
    chr_err err = committer__step(c, event);
    pthread_mutex_unlock(&c->core_lock);
    chr_wake_signal(&c->writer_wake);
    chr_wake_signal(&c->wake);
    return err;
}

chr_err broker_committer_change(broker_committer *c, int change, struct raft_member member)
{
    return step_and_wake(c, (struct raft_event){.type = RAFT_EVENT_CHANGE,
                                                .change = (enum raft_change_type)change,
                                                .member = member});
}

chr_err broker_committer_transfer(broker_committer *c, uint64_t node)
{
    return step_and_wake(c, (struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = node});
}

void broker_committer_snapshot_started(broker_committer *c, uint64_t node, uint64_t index)
{
    pthread_mutex_lock(&c->core_lock);
    for (uint32_t i = 0; c->raft.role == RAFT_LEADER && i < c->raft.peers_count; i++)
        if (c->raft.peers[i].member.id == node && c->raft.peers[i].state == RAFT_PEER_SNAPSHOT &&
            index >= c->raft.base_index)
            raft_snapshot_started(&c->raft, i, index);
    pthread_mutex_unlock(&c->core_lock);
}

void broker_committer_snapshot_sent(broker_committer *c, uint64_t node, bool ok)
{
    (void)!step_and_wake(
        c, (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = node, .ok = ok});
}

void broker_committer_status(broker_committer *c, struct broker_cluster_status *out)
{
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&c->core_lock);
    const struct raft *raft = &c->raft;
    int64_t now_us = chr_clock_mono_us(c->options.clock);
    out->role = (int)raft->role;
    out->term = raft->term;
    out->leader = raft->leader;
    out->commit_index = raft->commit_index;
    out->last_index = raft->last_index;
    out->change_pending = raft->changes[raft->changes_count - 1].index > raft->commit_index;
    out->catching_up = raft->catching_up;
    bool only_voter = raft->role == RAFT_LEADER && raft_members_voters(raft_members_now(raft)) == 1;
    out->quorum = c->alone || only_voter      ? true
                  : raft->role == RAFT_LEADER ? now_us < raft_lease_until_us(raft)
                                              : raft->leader != 0;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        const struct raft_peer *p = &raft->peers[i];
        bool self = p->member.id == raft->config.self;
        out->peers[out->peers_count++] = (struct broker_peer_status){
            .member = p->member,
            .match = self ? raft->saved_index : p->match,
            .next = p->next,
            .state = (int)p->state,
            .heard_us_ago = self ? 0 : now_us - p->heard_us,
        };
    }
    pthread_mutex_unlock(&c->core_lock);
    out->apply_index = db_apply_index(c->options.db);
    out->first_index = raft_log_first(c->options.log);
}

void broker_committer_stats(broker_committer *c, struct broker_committer_stats *out)
{
    *out = (struct broker_committer_stats){
        .groups = atomic_load_explicit(&c->groups_count, memory_order_relaxed),
        .entries = atomic_load_explicit(&c->entries_count, memory_order_relaxed),
        .entries_applied = atomic_load_explicit(&c->entries_applied, memory_order_relaxed),
        .leader = atomic_load(&c->role) == RAFT_LEADER,
        .disk_full = atomic_load_explicit(&c->disk_full, memory_order_relaxed),
        .disk_hangs = disk_hangs(c, chr_clock_mono_us(c->options.clock)),
        .hot_full = atomic_load_explicit(&c->hot_full, memory_order_relaxed),
        .term = atomic_load(&c->term),
        .elections = atomic_load_explicit(&c->elections, memory_order_relaxed),
        .elections_won = atomic_load_explicit(&c->elections_won, memory_order_relaxed),
        .forwarded = atomic_load_explicit(&c->forwarded, memory_order_relaxed),
        .forwarded_again = atomic_load_explicit(&c->forwarded_again, memory_order_relaxed),
        .reads_lease = atomic_load_explicit(&c->reads_lease, memory_order_relaxed),
        .reads_round = atomic_load_explicit(&c->reads_round, memory_order_relaxed),
        .reads_asked = atomic_load_explicit(&c->reads_asked, memory_order_relaxed),
        .commit_us_total = atomic_load_explicit(&c->commit_us_total, memory_order_relaxed),
    };
    for (size_t i = 0; i <= BROKER_COMMIT_BUCKETS; i++)
        out->commit_counts[i] = atomic_load_explicit(&c->commit_counts[i], memory_order_relaxed);
    raft_log_stats(c->options.log, &out->log);
}
