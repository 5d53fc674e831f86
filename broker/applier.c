/* broker/applier.c: the thread that applies committed entries in order, and the replay at start.
 *
 * It is the only place from which answers come: a proposal's done() runs here, after its entry was
 * applied, and hands the result back to the loop or worker that waits. */
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "broker/committer_internal.h"

/* Up to this much the log writer applies itself: some ten microseconds, less than it takes to wake
 * the applier. Beyond it the next group is better written meanwhile. */
#define APPLY_INLINE_BYTES (16u << 10)
/* Bytes of log read at a time by the replay. */
#define REPLAY_BYTES   (4u << 20)
#define REPLAY_ENTRIES 1024

/* What the state machine is told of an entry. */
static chr_slice operations(const struct raft_entry *entry)
{
    return entry->type == RAFT_ENTRY_DATA ? entry->bytes : (chr_slice){0};
}

static void apply_group(struct broker_committer *c, struct committer_group *g)
{
    for (uint32_t i = 0; i < g->count; i++) {
        const struct raft_entry *entry = &g->entries[i];
        struct broker_proposal *proposal = g->proposals[i];
        struct db_apply_result result = {0};
        db_apply(c->options.db, entry->index, entry->hlc, operations(entry), &result);
        if (proposal)
            proposal->done(proposal, CHR_OK, &result);
        if (result.woken_count + result.wills_count && c->options.woken)
            c->options.woken(c->options.woken_ctx, &result);
    }
    atomic_fetch_add_explicit(&c->entries_applied, g->count, memory_order_relaxed);
    if (c->options.applied)
        c->options.applied(c->options.applied_ctx);
}

/* The committer may be asleep until something falls due that is later than what does now. */
static void wake_for_due_time(struct broker_committer *c)
{
    int64_t until_us = atomic_load(&c->sleeps_until_us);
    if (until_us != INT64_MIN && db_next_due_us(c->options.db) < until_us)
        chr_wake_signal(&c->wake);
}

/* The next group, by whoever holds apply_lock. False: there is none. */
static bool apply_next(struct broker_committer *c)
{
    struct committer_group *g = chr_ring_pop(&c->to_apply);
    if (!g)
        return false;
    uint64_t bytes = g->bytes;
    apply_group(c, g);
    bool pushed = chr_ring_push(&c->free_groups, g);
    CHR_ASSERT(pushed);
    atomic_fetch_sub(&c->to_apply_bytes, bytes);
    return true;
}

void committer__apply_or_wake(struct broker_committer *c)
{
    if (chr_ring_empty(&c->to_apply))
        return;
    /* periodic: a few bytes can mean much work, and what was answered waits for its sync. */
    if (c->options.fsync == RAFT_FSYNC_PERIODIC ||
        atomic_load(&c->to_apply_bytes) > APPLY_INLINE_BYTES ||
        pthread_mutex_trylock(&c->apply_lock)) {
        chr_wake_signal(&c->applier_wake);
        return;
    }
    while (apply_next(c)) {
    }
    pthread_mutex_unlock(&c->apply_lock);
    wake_for_due_time(c);
}

void *committer__applier_main(void *arg)
{
    struct broker_committer *c = arg;
    pthread_setname_np(pthread_self(), "applier");
    for (;;) {
        pthread_mutex_lock(&c->apply_lock);
        bool applied = apply_next(c);
        pthread_mutex_unlock(&c->apply_lock);
        if (applied) {
            chr_wake_signal(&c->writer_wake); /* a group is free again */
            wake_for_due_time(c);
            continue;
        }
        uint32_t ticket = chr_wake_prepare(&c->applier_wake);
        if (!chr_ring_empty(&c->to_apply)) {
            chr_wake_cancel(&c->applier_wake);
        } else if (atomic_load(&c->applier_stop)) {
            chr_wake_cancel(&c->applier_wake);
            return NULL;
        } else {
            chr_wake_wait(&c->applier_wake, ticket, -1);
        }
    }
}

chr_err committer__replay(struct broker_committer *c, uint64_t commit_index, struct chr_errmsg *msg)
{
    raft_log *log = c->options.log;
    db *state = c->options.db;
    uint64_t next = db_apply_index(state) + 1;
    struct chr_buf buf;
    chr_buf_init(&buf, REPLAY_BYTES + RAFT_ENTRY_BYTES_MAX);
    struct raft_entry *entries = calloc(REPLAY_ENTRIES, sizeof *entries);
    chr_err err = entries ? CHR_OK : CHR_ENOMEM;
    uint64_t replayed = 0;
    while (!err && next <= commit_index) {
        size_t count = 0;
        chr_buf_reset(&buf);
        err = raft_log_read(log, next, REPLAY_BYTES, &buf, entries, REPLAY_ENTRIES, &count);
        if (err || count == 0)
            break;
        for (size_t i = 0; i < count && entries[i].index <= commit_index; i++) {
            struct db_apply_result result = {0};
            db_apply(state, entries[i].index, entries[i].hlc, operations(&entries[i]), &result);
            next = entries[i].index + 1;
            replayed++;
        }
    }
    free(entries);
    chr_buf_free(&buf);
    if (err)
        return chr_fail(msg, err, "can't replay log entry %llu: %s", (unsigned long long)next,
                        chr_strerror(err));
    chr_log_info("log", "replayed", CHR_KV_U("entries", replayed),
                 CHR_KV_U("index", db_apply_index(state)));
    return CHR_OK;
}
