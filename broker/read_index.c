/* broker/read_index.c: linearizable reads (thesis 6.4, R19).
 *
 *     lease holds ─▶ what is committed now
 *     leader      ─▶ a round of heartbeats ─▶ what was committed when it began
 *     follower    ─▶ asks the leader       ─▶ what the leader says
 *
 * and then until this node has applied that far. The index is taken first and the clock read after
 * it: the process may have been stopped in between. What a query pins later holds at least that
 * much, and nothing that is not committed. */
#include <time.h>

#include "base/assert.h"
#include "broker/committer_internal.h"

/* A question to the leader, or its answer, may be lost. */
#define ASK_AGAIN_US INT64_C(100000)

/* The lease before the index: the step that makes a lease valid, by committing the first entry of
 * its term, publishes that index before it. An index from before that step may lack what the leader
 * before us has acknowledged. A lease that was taken back meanwhile does no harm: it was valid when
 * it was read, which is after the question came. */
static bool by_lease(struct broker_committer *c, uint64_t *index)
{
    int64_t until_us = atomic_load_explicit(&c->lease_until_us, memory_order_acquire);
    *index = atomic_load_explicit(&c->commit_index, memory_order_acquire);
    return chr_clock_mono_us(c->options.clock) < until_us;
}

/* core_lock. What a question came to is in c->effects. False: it could not be asked. */
static bool ask(struct broker_committer *c)
{
    return committer__step(c, (struct raft_event){.type = RAFT_EVENT_READ,
                                                  .read_number = ++c->read_number}) == CHR_OK;
}

/* core_lock. Of the question that was just asked for it. */
static void note_asked(struct broker_committer *c, struct read_waiter *w)
{
    const struct raft_effects *e = &c->effects;
    w->asked_us = chr_clock_mono_us(c->options.clock);
    switch (e->read) {
    case RAFT_READ_NOW:
        w->index = e->read_index;
        w->state = READ_KNOWN;
        break;
    case RAFT_READ_ROUND:
        w->index = e->read_index;
        w->round = e->read_round;
        w->state = e->read_round <= e->read_confirmed ? READ_KNOWN : READ_WAITS_ROUND;
        break;
    case RAFT_READ_ASKED:
        w->state = READ_ASKED;
        break;
    case RAFT_READ_NONE:
    case RAFT_READ_NO_LEADER:
        w->state = READ_NO_LEADER;
        break;
    }
}

static void wake_readers(struct broker_committer *c)
{
    pthread_mutex_lock(&c->applied_lock);
    pthread_cond_broadcast(&c->applied_cond);
    pthread_mutex_unlock(&c->applied_lock);
}

void committer__reads_step(struct broker_committer *c)
{
    const struct raft_effects *e = &c->effects;
    if (chr_list_empty(&c->readers))
        return;
    bool known = false;
    CHR_LIST_FOR (link, &c->readers) {
        struct read_waiter *w = CHR_CONTAINER_OF(link, struct read_waiter, link);
        if (w->state == READ_WAITS_ROUND && e->reads_lost) {
            w->state = READ_NO_LEADER;
        } else if (w->state == READ_WAITS_ROUND && w->round <= e->read_confirmed) {
            w->state = READ_KNOWN;
            known = true;
        } else if (w->state == READ_ASKED && e->read_answered && w->number <= e->read_answered) {
            w->index = e->read_answer;
            w->state = READ_KNOWN;
            known = true;
        }
    }
    if (known)
        wake_readers(c);
}

static bool due(const struct broker_committer *c, const struct read_waiter *w, int64_t now_us)
{
    return w->state != READ_KNOWN &&
           ((w->state == READ_NO_LEADER && c->raft.leader) || now_us - w->asked_us >= ASK_AGAIN_US);
}

/* A leader that is known now, or a question that was lost. One question serves all, and so does a
 * late answer to an earlier one: their numbers stay those of when they came, or whoever is answered
 * more slowly than it asks would never be. */
void committer__reads_again(struct broker_committer *c)
{
    if (chr_list_empty(&c->readers))
        return;
    int64_t now_us = chr_clock_mono_us(c->options.clock);
    bool any = false, known = false;
    CHR_LIST_FOR (link, &c->readers)
        any |= due(c, CHR_CONTAINER_OF(link, struct read_waiter, link), now_us);
    if (!any || !ask(c))
        return;
    CHR_LIST_FOR (link, &c->readers) {
        struct read_waiter *w = CHR_CONTAINER_OF(link, struct read_waiter, link);
        if (!due(c, w, now_us))
            continue; /* or answered by this very step */
        note_asked(c, w);
        known |= w->state == READ_KNOWN;
    }
    if (known)
        wake_readers(c);
}

/* Waits until done() or the deadline. False: the deadline. */
static bool wait_until(struct broker_committer *c, bool (*done)(struct broker_committer *, void *),
                       void *arg, int64_t deadline_us)
{
    bool ok;
    atomic_fetch_add(&c->applied_waiters, 1);
    pthread_mutex_lock(&c->applied_lock);
    while (!(ok = done(c, arg)) && !atomic_load(&c->stopping)) {
        int64_t left_us = deadline_us - chr_clock_mono_us(c->options.clock);
        if (left_us <= 0)
            break;
        left_us = CHR_MIN(left_us, ASK_AGAIN_US / 2); /* and look again: ticks may be far apart */
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(left_us * 1000);
        while (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        (void)pthread_cond_timedwait(&c->applied_cond, &c->applied_lock, &until);
    }
    pthread_mutex_unlock(&c->applied_lock);
    atomic_fetch_sub(&c->applied_waiters, 1);
    return ok;
}

/* applied_lock is held, so the state is looked at without the core's: it only ever becomes KNOWN
 * once, by whoever then takes applied_lock to say so. */
static bool index_known(struct broker_committer *c, void *arg)
{
    (void)c;
    return ((struct read_waiter *)arg)->state == READ_KNOWN;
}

static bool applied_to(struct broker_committer *c, void *arg)
{
    return db_apply_index(c->options.db) >= *(const uint64_t *)arg;
}

static void count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

chr_err broker_committer_read_barrier(broker_committer *c, uint32_t timeout_ms)
{
    if (c->alone)
        return CHR_OK;
    uint64_t index;
    int64_t deadline_us = chr_clock_mono_us(c->options.clock) + (int64_t)timeout_ms * 1000;
    if (by_lease(c, &index)) {
        count(&c->reads_lease);
    } else {
        struct read_waiter w = {.state = READ_NO_LEADER};
        pthread_mutex_lock(&c->core_lock);
        chr_list_push_back(&c->readers, &w.link);
        w.number = c->read_number + 1;
        if (ask(c))
            note_asked(c, &w);
        count(w.state == READ_ASKED ? &c->reads_asked : &c->reads_round);
        bool known = w.state == READ_KNOWN;
        pthread_mutex_unlock(&c->core_lock);
        committer__wake_others(c);
        if (!known)
            known = wait_until(c, index_known, &w, deadline_us);
        pthread_mutex_lock(&c->core_lock);
        chr_list_remove(&w.link);
        known = w.state == READ_KNOWN;
        index = w.index;
        pthread_mutex_unlock(&c->core_lock);
        if (!known)
            return atomic_load(&c->stopping) ? CHR_ECLOSED : CHR_ETIMEDOUT;
    }
    if (db_apply_index(c->options.db) >= index || wait_until(c, applied_to, &index, deadline_us))
        return CHR_OK;
    return atomic_load(&c->stopping) ? CHR_ECLOSED : CHR_ETIMEDOUT;
}
