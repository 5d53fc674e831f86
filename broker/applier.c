/* broker/applier.c: the thread that applies committed entries in order, and the replay at start.
 *
 * It is the only place from which answers come: a proposal's done() runs here, after its entry was
 * applied, and hands the result back to the loop or worker that waits.
 *
 * Entries come from the groups that were committed or, when those are gone or never were (a start,
 * a follower that was behind), from the log. */
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/log.h"
#include "broker/committer_internal.h"

/* Up to this much the log writer applies itself: some ten microseconds, less than it takes to wake
 * the applier. Beyond it the next group is better written meanwhile. */
#define APPLY_INLINE_BYTES (16u << 10)
/* Bytes of log read at a time by the replay. */
#define REPLAY_BYTES   (4u << 20)
#define REPLAY_ENTRIES 1024

/* ---- One entry --------------------------------------------------------------------------------
 */

/* What the state machine is told of an entry. */
static chr_slice operations(const struct raft_entry *entry, struct db_origin *origin)
{
    if (entry->type == RAFT_ENTRY_DATA)
        return entry->bytes;
    if (entry->type != RAFT_ENTRY_FORWARDED || entry->bytes.len < RAFT_ORIGIN_BYTES)
        return (chr_slice){0};
    *origin = (struct db_origin){.node = chr_get_u64le(entry->bytes.ptr),
                                 .boot = chr_get_u64le(entry->bytes.ptr + 8),
                                 .sequence = chr_get_u64le(entry->bytes.ptr + 16)};
    return chr_slice_of(entry->bytes.ptr + RAFT_ORIGIN_BYTES, entry->bytes.len - RAFT_ORIGIN_BYTES);
}

static void members_applied(struct broker_committer *c, const struct raft_entry *entry)
{
    struct raft_members members;
    if (entry->type != RAFT_ENTRY_CONFIG || !c->cluster.members_applied ||
        raft_members_decode(entry->bytes, &members))
        return;
    c->cluster.members_applied(c->cluster.ctx, entry->index, entry->term, &members);
}

static void apply_entry(struct broker_committer *c, const struct raft_entry *entry,
                        struct broker_proposal *proposal)
{
    struct db_apply_result result = {0};
    struct db_origin origin = {0};
    chr_slice bytes = operations(entry, &origin);
    if (!c->alone)
        members_applied(c, entry);
    db_apply_from(c->options.db, entry->index, entry->hlc, origin.node ? &origin : NULL, bytes,
                  &result);
    bool ours =
        proposal || (origin.node && origin.node == c->origin && origin.boot == c->cluster.boot);
    if (proposal)
        proposal->done(proposal, CHR_OK, &result);
    else if (!c->alone)
        ours |= committer__forward_applied(c, entry, origin.node ? &origin : NULL, &result);
    if (c->options.entry_applied && bytes.len && result.origin == DB_ORIGIN_NEW)
        c->options.entry_applied(c->options.entry_applied_ctx, entry->index,
                                 ours ? (chr_slice){0} : bytes, ours, &result);
    if (result.woken_count + result.wills_count + result.lost_count && c->options.woken)
        c->options.woken(c->options.woken_ctx, &result);
}

static void applied(struct broker_committer *c, uint64_t entries)
{
    atomic_fetch_add_explicit(&c->entries_applied, entries, memory_order_relaxed);
    if (c->options.applied)
        c->options.applied(c->options.applied_ctx);
    if (atomic_load(&c->applied_waiters)) {
        pthread_mutex_lock(&c->applied_lock);
        pthread_cond_broadcast(&c->applied_cond);
        pthread_mutex_unlock(&c->applied_lock);
    }
}

static void apply_group(struct broker_committer *c, struct committer_group *g)
{
    uint64_t next = db_apply_index(c->options.db) + 1;
    CHR_ASSERT(next == g->first_index);
    for (uint32_t i = 0; i < g->keep; i++)
        apply_entry(c, &g->entries[i], g->proposals[i]);
    applied(c, g->keep);
}

/* ---- From the log -----------------------------------------------------------------------------
 */

struct replay {
    struct chr_buf buf;
    struct raft_entry entries[REPLAY_ENTRIES];
};

static struct replay *replay_new(void)
{
    struct replay *r = calloc(1, sizeof *r);
    if (r)
        chr_buf_init(&r->buf, REPLAY_BYTES + RAFT_ENTRY_BYTES_MAX);
    return r;
}

void committer__replay_free(struct replay *r)
{
    if (r)
        chr_buf_free(&r->buf);
    free(r);
}

/* Some entries from the next one on, up to limit. */
static chr_err apply_from_log(struct broker_committer *c, struct replay *r, uint64_t limit)
{
    size_t count = 0;
    uint64_t next = db_apply_index(c->options.db) + 1;
    chr_buf_reset(&r->buf);
    chr_err err = raft_log_read(c->options.log, next, REPLAY_BYTES, &r->buf, r->entries,
                                REPLAY_ENTRIES, &count);
    if (err || count == 0)
        return err ? err : CHR_ENOTFOUND;
    uint64_t done = 0;
    for (size_t i = 0; i < count && r->entries[i].index <= limit; i++, done++)
        apply_entry(c, &r->entries[i], NULL);
    applied(c, done);
    return CHR_OK;
}

CHR_NORETURN static void log_unreadable(struct broker_committer *c, chr_err err)
{
    chr_log_error("log",
                  "a committed entry can't be read back; stopping. chronos check says what is "
                  "damaged; with its disk wiped the node is given everything by the others",
                  CHR_KV_U("index", db_apply_index(c->options.db) + 1),
                  CHR_KV_C("error", chr_strerror(err)));
    _exit(EXIT_FAILURE);
}

chr_err committer__replay(struct broker_committer *c, uint64_t commit_index, struct chr_errmsg *msg)
{
    struct replay *r = replay_new();
    chr_err err = r ? CHR_OK : CHR_ENOMEM;
    uint64_t from = db_apply_index(c->options.db);
    while (!err && db_apply_index(c->options.db) < commit_index)
        err = apply_from_log(c, r, commit_index);
    committer__replay_free(r);
    uint64_t index = db_apply_index(c->options.db);
    if (err)
        return chr_fail(msg, err, "can't replay log entry %llu: %s", (unsigned long long)index + 1,
                        chr_strerror(err));
    atomic_store(&c->apply_limit, index);
    atomic_store(&c->entries_applied, 0);
    chr_log_info("log", "replayed", CHR_KV_U("entries", index - from), CHR_KV_U("index", index));
    return CHR_OK;
}

/* ---- In order ---------------------------------------------------------------------------------
 */

/* The committer may be asleep until something falls due that is later than what does now. */
static void wake_for_due_time(struct broker_committer *c)
{
    int64_t until_us = atomic_load(&c->sleeps_until_us);
    if (until_us != INT64_MIN && db_next_due_us(c->options.db) < until_us)
        chr_wake_signal(&c->wake);
}

/* The next group, or what comes before it, by whoever holds apply_lock. False: there is nothing. */
static bool apply_next(struct broker_committer *c)
{
    /* The limit first: the groups of what it covers have been passed on by then. */
    uint64_t limit = atomic_load(&c->apply_limit);
    uint64_t next = db_apply_index(c->options.db) + 1;
    if (!c->applying)
        c->applying = chr_ring_pop(&c->to_apply);
    struct committer_group *g = c->applying;
    if (g)
        limit = g->first_index - 1;
    if (next <= limit) {
        chr_err err = CHR_OK;
        if (!c->replay && !(c->replay = replay_new()))
            err = CHR_ENOMEM;
        if (!err)
            err = apply_from_log(c, c->replay, limit);
        if (err)
            log_unreadable(c, err);
        return true;
    }
    if (!g)
        return false;
    uint64_t bytes = g->bytes;
    apply_group(c, g);
    c->applying = NULL;
    committer__group_release(c, g);
    atomic_fetch_sub(&c->to_apply_bytes, bytes);
    return true;
}

bool committer__apply_waits(struct broker_committer *c)
{
    return !chr_ring_empty(&c->to_apply) ||
           atomic_load(&c->apply_limit) > db_apply_index(c->options.db);
}

void committer__apply_or_wake(struct broker_committer *c)
{
    if (!committer__apply_waits(c))
        return;
    /* periodic: a few bytes can mean much work, and what was answered waits for its sync. */
    if (c->options.fsync == RAFT_FSYNC_PERIODIC ||
        atomic_load(&c->to_apply_bytes) > APPLY_INLINE_BYTES || chr_ring_empty(&c->to_apply) ||
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
        bool worked = apply_next(c);
        pthread_mutex_unlock(&c->apply_lock);
        if (worked) {
            chr_wake_signal(&c->writer_wake); /* a group is free again */
            wake_for_due_time(c);
            continue;
        }
        uint32_t ticket = chr_wake_prepare(&c->applier_wake);
        if (committer__apply_waits(c)) {
            chr_wake_cancel(&c->applier_wake);
        } else if (atomic_load(&c->applier_stop)) {
            chr_wake_cancel(&c->applier_wake);
            return NULL;
        } else {
            chr_wake_wait(&c->applier_wake, ticket, -1);
        }
    }
}
