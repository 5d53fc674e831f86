/* tests/raft/log_life.h: one life of a log on a bad disk, from one seed, against a model.
 *
 * The model is the list of operations that make records (append, truncate, hard state). A log is
 * right if, after every reopening, it is exactly the state after some prefix of that list, and the
 * prefix is at least as long as
 *     durable    what a returned sync promised, when power failed
 *     written    what a returned sync wrote, when only the process died (RAFT_FSYNC_PERIODIC)
 *     witnessed  what a later group or a clean close proves, when a bit was flipped
 * Otherwise open must refuse with CHR_ECORRUPT (bit flips only) and change nothing. */
#ifndef CHR_TESTS_RAFT_LOG_LIFE_H
#define CHR_TESTS_RAFT_LOG_LIFE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/random.h"
#include "raft/log.h"
#include "tests/sim/fake_clock.h"
#include "tests/sim/fake_disk.h"

struct life_plants {
    bool sync_lies; /* the disk returns from fsync without having done anything */
    bool ack_early; /* whoever uses the log promises at append, not after sync */
};

struct life_entry {
    uint64_t term, hlc;
    uint32_t crc, len;
};

enum life_op_kind { LIFE_APPEND, LIFE_TRUNCATE, LIFE_HARD };
struct life_op {
    enum life_op_kind kind;
    uint64_t index;
    struct life_entry entry;
    struct raft_hard_state hard;
};

#define LIFE_INDEX_MAX 4096
#define LIFE_OPS_MAX   8192
#define LIFE_BYTES_MAX 20000 /* some do not fit the usual segment */

struct life_state {
    uint64_t last;
    struct raft_hard_state hard;
    struct life_entry entries[LIFE_INDEX_MAX]; /* by index */
};

struct life {
    uint64_t seed;
    bool verbose;
    struct life_plants plants;
    struct chr_random random;
    struct fake_disk disk;
    struct fake_clock clock;
    struct raft_log_options options;
    raft_log *log;
    struct raft_log_recovery recovery;

    struct life_op ops[LIFE_OPS_MAX];
    size_t ops_count;
    /* witnessed <= durable <= written <= ops_count */
    size_t witnessed, durable, written;
    struct life_state base; /* after the first base_ops ops */
    size_t base_ops;
    struct life_state now; /* after all of them: what the log says while it is open */
    struct life_state scratch;
    uint64_t checkpoint; /* entries up to here are committed and stored elsewhere */
    uint64_t term, hlc;
    uint64_t steps, opens, crashes, refusals, torn, doubts, full;

    uint8_t bytes[LIFE_BYTES_MAX];
    struct chr_buf buf;
    char failure[400];
};

__attribute__((format(printf, 2, 3))) static inline bool life_fail(struct life *life,
                                                                   const char *format, ...)
{
    if (life->failure[0])
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(life->failure, sizeof life->failure, format, args);
    va_end(args);
    return false;
}

#define LIFE_TRACE(life, ...)                                                                      \
    do {                                                                                           \
        if ((life)->verbose) {                                                                     \
            fprintf(stderr, "  [%llu] ", (unsigned long long)(life)->steps);                       \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, "\n");                                                                 \
        }                                                                                          \
    } while (0)
#define U(x) (unsigned long long)(x)

static inline uint64_t life_below(struct life *life, uint64_t bound)
{
    return chr_random_below(&life->random, bound);
}

static inline void life_apply(struct life_state *state, const struct life_op *op)
{
    switch (op->kind) {
    case LIFE_APPEND:
        state->entries[op->index] = op->entry;
        state->last = op->index;
        break;
    case LIFE_TRUNCATE:
        state->last = op->index;
        break;
    case LIFE_HARD:
        state->hard = op->hard;
        break;
    }
}

static inline void life_op_add(struct life *life, struct life_op op)
{
    life->ops[life->ops_count++] = op;
    life_apply(&life->now, &op);
    if (life->plants.ack_early && op.kind == LIFE_APPEND)
        life->durable = life->written = life->ops_count;
}

/* ---- checks ---- */

/* Does the open log hold exactly `state`, as far back as the checkpoint at least? */
static inline bool life_same(struct life *life, const struct life_state *state, bool say)
{
    uint64_t first = raft_log_first(life->log), last = raft_log_last(life->log);
    struct raft_entry entries[32];
    if (last != state->last)
        return say ? life_fail(life, "last index %llu, expected %llu", U(last), U(state->last))
                   : false;
    if (first > life->checkpoint + 1)
        return life_fail(life, "first index %llu beyond the checkpoint %llu", U(first),
                         U(life->checkpoint));
    if (raft_log_term_of(life->log, first - 1) != state->entries[first - 1].term)
        return life_fail(life, "term_of(%llu), before the first entry, is %llu, expected %llu",
                         U(first - 1), U(raft_log_term_of(life->log, first - 1)),
                         U(state->entries[first - 1].term));
    for (uint64_t next = first; next <= last;) {
        size_t count;
        chr_err err = raft_log_read(life->log, next, 8192, &life->buf, entries, 32, &count);
        if (err || count == 0)
            return life_fail(life, "read of entry %llu in [%llu, %llu]: %s, %zu entries", U(next),
                             U(first), U(last), chr_errname(err), count);
        for (size_t i = 0; i < count; i++, next++) {
            const struct life_entry *e = &state->entries[next];
            if (entries[i].index != next || entries[i].term != e->term ||
                entries[i].hlc != e->hlc || entries[i].bytes.len != e->len ||
                chr_crc32c(0, entries[i].bytes.ptr, e->len) != e->crc)
                return say ? life_fail(life, "entry %llu is not what was appended", U(next))
                           : false;
            if (raft_log_term_of(life->log, next) != e->term)
                return life_fail(life, "term_of(%llu) is %llu, expected %llu", U(next),
                                 U(raft_log_term_of(life->log, next)), U(e->term));
        }
    }
    return true;
}

/* After open: which prefix of the operations is this? At least `least` of them. */
static inline bool life_match(struct life *life, size_t least, const char *after)
{
    struct life_state *s = &life->scratch;
    size_t match = SIZE_MAX, k = life->base_ops;
    *s = life->base;
    for (;; k++) {
        if (k >= least && s->last == life->recovery.last_index &&
            s->hard.term == life->recovery.hard_state.term &&
            s->hard.vote == life->recovery.hard_state.vote && life_same(life, s, false))
            match = k;
        if (life->failure[0] || k == life->ops_count)
            break;
        life_apply(s, &life->ops[k]);
    }
    if (life->failure[0])
        return false;
    if (match == SIZE_MAX)
        return life_fail(life,
                         "after %s the log (last %llu, hard state %llu/%llu) is no state between "
                         "operation %zu and %zu (base %zu, last then %llu, first %llu, torn %llu)",
                         after, U(life->recovery.last_index), U(life->recovery.hard_state.term),
                         U(life->recovery.hard_state.vote), least, life->ops_count, life->base_ops,
                         U(s->last), U(life->recovery.first_index), U(life->recovery.torn_bytes));
    life->ops_count = life->durable = life->written = match; /* L6 */
    /* Open left a witness behind it all, unless there was no room for one. */
    struct raft_log_stats stats;
    raft_log_stats(life->log, &stats);
    if (stats.enospc_waits == 0 || life->witnessed > match)
        life->witnessed = match;
    /* What is proven is folded into the base: the list stays short. */
    for (; life->base_ops < life->witnessed; life->base_ops++)
        life_apply(&life->base, &life->ops[life->base_ops]);
    life->now = life->base;
    for (k = life->base_ops; k < life->ops_count; k++)
        life_apply(&life->now, &life->ops[k]);
    life->hlc = life->recovery.last_hlc;
    if (life->term < life->recovery.last_term)
        life->term = life->recovery.last_term;
    return true;
}

static inline bool life_check_marks(struct life *life)
{
    if (life->plants.ack_early)
        return true;
    uint64_t synced = raft_log_synced(life->log), last = raft_log_last(life->log);
    if (last != life->now.last)
        return life_fail(life, "last is %llu, expected %llu", U(last), U(life->now.last));
    if (raft_log_durable(life->log) > synced || synced > last)
        return life_fail(life, "durable %llu, synced %llu, last %llu",
                         U(raft_log_durable(life->log)), U(synced), U(last));
    if (life->written == life->ops_count ? synced != last : false)
        return life_fail(life, "all is synced, but synced is %llu of %llu", U(synced), U(last));
    return true;
}

/* A third of the logs begin behind a snapshot. */
static inline void life_begin_behind(struct life *life)
{
    uint64_t index = 1 + life_below(life, 1000);
    struct raft_log_base *base = &life->options.base;
    base->term = life_below(life, 4) ? 1 + life_below(life, 5) : 0;
    base->hlc = life_below(life, 1000);
    base->hard_state.term = base->term + life_below(life, 3);
    base->hard_state.vote = life_below(life, 4);
    life->base.last = index;
    life->base.hard = base->hard_state;
    life->base.entries[index] = (struct life_entry){.term = base->term, .hlc = base->hlc};
    life->now = life->base;
    life->checkpoint = index;
    life->term = base->hard_state.term + 1;
    life->hlc = base->hlc;
}

/* ---- opening ---- */

static inline void life_void(struct life *life, bool power)
{
    fake_disk_off(&life->disk);
    raft_log_close(life->log);
    life->log = NULL;
    if (power)
        fake_disk_crash(&life->disk);
    else
        fake_disk_kill(&life->disk);
    life->crashes += power;
}

/* Opens until it succeeds: now and then power fails in the middle of recovery, reads fail, or the
 * disk is full. `flipped`: one bit of what is on the disk was flipped, at (name, offset, bit). */
static inline bool life_open(struct life *life, size_t least, const char *after,
                             const char *flipped, uint64_t offset, unsigned bit)
{
    struct chr_errmsg msg;
    for (int attempt = 0;; attempt++) {
        life->opens++;
        if (attempt < 3 && !flipped && life_below(life, 4) == 0) {
            life->disk.faults.nth = 1 + life_below(&*life, 60);
            life->disk.faults.nth_error = CHR_EIO;
            life->disk.faults.nth_off = life_below(life, 2);
        }
        uint64_t before = fake_disk_hash(&life->disk), failed = life->disk.counters.failed;
        msg.text[0] = 0;
        chr_err err = raft_log_open(&life->disk.io, &life->options, life->checkpoint + 1,
                                    &life->log, &life->recovery, &msg);
        life->disk.faults.nth = 0;
        life->disk.faults.nth_off = false;
        LIFE_TRACE(life, "open: %s %s; first %llu last %llu torn %llu", chr_errname(err), msg.text,
                   U(life->recovery.first_index), U(life->recovery.last_index),
                   U(life->recovery.torn_bytes));
        if (!err && life->disk.off) { /* power failed in something that open could do without */
            life_void(life, true);
            if (least > life->durable)
                least = life->durable;
            continue;
        }
        if (!err)
            break;
        if (err == CHR_ECORRUPT && flipped) {
            life->refusals++;
            if (fake_disk_hash(&life->disk) != before)
                return life_fail(life, "a refused log was changed");
            if (!strstr(msg.text, "segment") || !strstr(msg.text, "restore"))
                return life_fail(life, "no segment or remedy in '%s'", msg.text);
            fake_disk_flip_bit(&life->disk, flipped, offset, bit);
            flipped = NULL;
            continue;
        }
        if (err == CHR_ENOSPC) {
            life->disk.faults.capacity = 0;
            life->disk.faults.write_enospc = 0;
            continue;
        }
        if ((err == CHR_EIO || err == CHR_EDOUBT) && life->disk.counters.failed > failed) {
            bool power = life_below(life, 2);
            if (power)
                fake_disk_crash(&life->disk);
            else
                fake_disk_kill(&life->disk);
            life->crashes += power;
            if (power && least > life->durable)
                least = life->durable;
            life->disk.faults.read_eio = life->disk.faults.dir_eio = 0;
            life->disk.faults.sync_eio = life->disk.faults.write_eio = 0;
            continue;
        }
        return life_fail(life, "after %s: open: %s: %s", after, chr_errname(err), msg.text);
    }
    life->torn += life->recovery.torn_bytes > 0;
    /* With the bit still flipped only what a later group proves must be there. */
    return life_match(life, flipped ? life->witnessed : least, after);
}

static inline void life_set_faults(struct life *life)
{
    struct fake_disk_faults *f = &life->disk.faults;
    f->sync_lies = life->plants.sync_lies;
    f->write_enospc = life_below(life, 8) == 0 ? 500 : 0;
    f->sync_eio = life_below(life, 6) == 0 ? 400 : 0;
    f->write_eio = life_below(life, 12) == 0 ? 200 : 0;
    f->dir_eio = life_below(life, 20) == 0 ? 300 : 0;
    f->garbage = life_below(life, 3) == 0 ? 3000 : 0;
    f->capacity =
        life_below(life, 6) == 0 ? fake_disk_used(&life->disk) + life_below(life, 40000) : 0;
}

/* A random file name of the disk; false when there is none. */
static inline bool life_pick_file(struct life *life, char name[RAFT_IO_NAME_MAX])
{
    if (life->disk.seen.count == 0)
        return false;
    snprintf(name, RAFT_IO_NAME_MAX, "%s",
             life->disk.seen.items[life_below(life, life->disk.seen.count)].name);
    return fake_disk_size(&life->disk, name) > 0;
}

enum life_end { LIFE_CLOSE, LIFE_CLOSE_CRASH, LIFE_KILL, LIFE_POWER };

static inline bool life_reopen(struct life *life, enum life_end end)
{
    static const char *const names[] = {"close", "close and power failure", "kill",
                                        "power failure"};
    bool clean = end == LIFE_CLOSE || end == LIFE_CLOSE_CRASH;
    size_t least = end == LIFE_KILL ? life->written : life->durable;
    if (clean) {
        uint64_t failed = life->disk.counters.failed;
        bool pending = life->ops_count > life->written;
        chr_err doubt = raft_log_append(life->log, NULL, 0);
        raft_log_close(life->log);
        life->log = NULL;
        if (life->disk.counters.failed == failed && doubt == CHR_OK) {
            least = life->durable = life->written; /* what RAFT_FSYNC_PERIODIC owed was synced */
            if (!pending)
                life->witnessed = life->written;
        }
        if (end == LIFE_CLOSE_CRASH)
            fake_disk_crash(&life->disk);
    } else {
        life_void(life, end == LIFE_POWER);
    }
    LIFE_TRACE(life, "%s", names[end]);
    life_set_faults(life);
    char name[RAFT_IO_NAME_MAX];
    if (!life->plants.sync_lies && life_below(life, 5) == 0 && life_pick_file(life, name)) {
        /* Mostly where records are: files are filled from the front. */
        uint64_t size = fake_disk_size(&life->disk, name);
        uint64_t offset = life_below(life, life_below(life, 2) ? size : (size + 3) / 4);
        unsigned bit = (unsigned)life_below(life, 8);
        fake_disk_flip_bit(&life->disk, name, offset, bit);
        LIFE_TRACE(life, "flip bit %u at %s:%llu", bit, name, U(offset));
        return life_open(life, least, "a flipped bit", name, offset, bit);
    }
    return life_open(life, least, names[end], NULL, 0, 0);
}

/* ---- the operations ---- */

static inline bool life_append(struct life *life)
{
    size_t count = 1 + life_below(life, 4);
    struct raft_entry entries[4];
    struct life_op ops[4];
    if (life->now.last + count >= LIFE_INDEX_MAX || life->ops_count + count >= LIFE_OPS_MAX)
        return true;
    if (life_below(life, 20) == 0)
        life->term++;
    size_t used = 0;
    uint64_t hlc = life->hlc;
    for (size_t i = 0; i < count; i++) {
        size_t max = life_below(life, 12) == 0 ? LIFE_BYTES_MAX / 4 : 300;
        if (count == 1 && life_below(life, 10) == 0)
            max = LIFE_BYTES_MAX;
        size_t len = (size_t)life_below(life, max + 1);
        for (size_t b = 0; b < len; b += 8) {
            uint64_t r = life_below(life, 3) ? chr_random_u64(&life->random) : 0;
            memcpy(life->bytes + used + b, &r, len - b < 8 ? len - b : 8);
        }
        hlc += 1 + life_below(life, 5);
        entries[i] = (struct raft_entry){.index = life->now.last + 1 + i,
                                         .term = life->term,
                                         .hlc = hlc,
                                         .type = RAFT_ENTRY_DATA,
                                         .bytes = {.ptr = life->bytes + used, .len = len}};
        ops[i] = (struct life_op){.kind = LIFE_APPEND,
                                  .index = entries[i].index,
                                  .entry = {.term = life->term,
                                            .hlc = hlc,
                                            .len = (uint32_t)len,
                                            .crc = chr_crc32c(0, life->bytes + used, len)}};
        used += len;
    }
    chr_err err = raft_log_append(life->log, entries, count);
    if (err == CHR_EDOUBT)
        return true;
    if (err)
        return life_fail(life, "append: %s", chr_errname(err));
    LIFE_TRACE(life, "append %zu to %llu", count, U(life->now.last + count));
    life->hlc = hlc;
    for (size_t i = 0; i < count; i++)
        life_op_add(life, ops[i]);
    return true;
}

/* What an answer to a sync-like call means for the model. */
static inline bool life_synced(struct life *life, chr_err err, bool durable, const char *what)
{
    LIFE_TRACE(life, "%s: %s", what, chr_errname(err));
    if (err == CHR_OK) {
        bool periodic = life->options.fsync == RAFT_FSYNC_PERIODIC;
        life->written = life->ops_count;
        if (!periodic || durable) {
            /* In RAFT_FSYNC_EVERY each operation is a group of its own. */
            size_t before = life->options.fsync == RAFT_FSYNC_EVERY && life->ops_count
                                ? life->ops_count - 1
                                : life->durable;
            if (life->ops_count > life->durable)
                life->witnessed = before > life->witnessed ? before : life->witnessed;
            life->durable = life->ops_count;
        }
        return true;
    }
    if (err == CHR_ENOSPC) {
        life->full++;
        if (life_below(life, 2)) {
            life->disk.faults.capacity = 0;
            life->disk.faults.write_enospc = 0;
        }
        /* RAFT_FSYNC_EVERY may have got some way; what it says is synced it must keep. */
        uint64_t synced = raft_log_synced(life->log);
        while (life->options.fsync == RAFT_FSYNC_EVERY && life->durable < life->ops_count &&
               life->ops[life->durable].kind == LIFE_APPEND &&
               life->ops[life->durable].index <= synced) {
            life->durable++;
            if (life->written < life->durable)
                life->written = life->durable;
        }
        return true;
    }
    if (err != CHR_EDOUBT)
        return life_fail(life, "%s: %s", what, chr_errname(err));
    life->doubts++;
    if (life->disk.off || life_below(life, 2))
        return life_reopen(life, life->disk.off ? LIFE_POWER : (enum life_end)life_below(life, 4));
    return true; /* go on knocking for a while */
}

static inline bool life_sync(struct life *life)
{
    /* Power fails in the middle, sometimes. */
    if (life_below(life, 12) == 0) {
        life->disk.faults.nth = 1 + life_below(life, 6);
        life->disk.faults.nth_error = CHR_EIO;
        life->disk.faults.nth_off = true;
    }
    struct chr_errmsg msg = {{0}};
    uint64_t synced = raft_log_synced(life->log);
    chr_err err = raft_log_sync(life->log, &msg);
    bool off = life->disk.off;
    life->disk.faults.nth = 0;
    life->disk.faults.nth_off = false;
    if (err && err != CHR_EDOUBT && off)
        return life_reopen(life, LIFE_POWER);
    if (err && life->options.fsync != RAFT_FSYNC_EVERY && raft_log_synced(life->log) > synced)
        return life_fail(life, "a failed sync moved the synced index");
    return life_synced(life, err, false, "sync");
}

static inline bool life_hard(struct life *life)
{
    if (life->ops_count + 1 >= LIFE_OPS_MAX)
        return true;
    life->term += 1;
    struct raft_hard_state state = {.term = life->term, .vote = 1 + life_below(life, 5)};
    chr_err err = raft_log_set_hard_state(life->log, state);
    if (err == CHR_OK || err == CHR_ENOSPC) {
        life_op_add(life, (struct life_op){.kind = LIFE_HARD, .hard = state});
    } else if (err == CHR_EDOUBT) { /* it may have been written, or not come to that */
        life_op_add(life, (struct life_op){.kind = LIFE_HARD, .hard = state});
    }
    return life_synced(life, err, true, "hard state");
}

static inline bool life_truncate(struct life *life)
{
    uint64_t low = life->checkpoint;
    if (life->now.last <= low || life->ops_count + 1 >= LIFE_OPS_MAX)
        return true;
    uint64_t back = 1 + life_below(life, 10);
    uint64_t index = life->now.last - low > back ? life->now.last - back : low;
    chr_err err = raft_log_truncate_suffix(life->log, index);
    LIFE_TRACE(life, "truncate to %llu", U(index));
    if (raft_log_last(life->log) == index && index < life->now.last) {
        life_op_add(life, (struct life_op){.kind = LIFE_TRUNCATE, .index = index});
        life->hlc = index ? life->now.entries[index].hlc : 0;
        life->term++; /* a new leader's doing */
    }
    return life_synced(life, err, true, "truncate");
}

static inline bool life_cut(struct life *life)
{
    uint64_t durable = raft_log_durable(life->log);
    if (life->durable != life->ops_count || durable <= life->checkpoint)
        return true;
    life->checkpoint += life_below(life, durable - life->checkpoint + 1);
    LIFE_TRACE(life, "cut to %llu", U(life->checkpoint));
    chr_err err = raft_log_cut_prefix(life->log, life->checkpoint);
    if (err)
        return life_fail(life, "cut_prefix: %s", chr_errname(err));
    if (raft_log_first(life->log) > life->checkpoint + 1)
        return life_fail(life, "cut_prefix(%llu) left %llu", U(life->checkpoint),
                         U(raft_log_first(life->log)));
    return true;
}

static inline bool life_seek(struct life *life)
{
    uint64_t first = raft_log_first(life->log), synced = raft_log_synced(life->log);
    if (synced < first || life->now.last < synced)
        return true;
    uint64_t want = first + life_below(life, synced - first + 1), got;
    chr_hlc hlc = life->now.entries[want].hlc;
    chr_err err = raft_log_seek_hlc(life->log, hlc, &got);
    if (err || got != want)
        return life_fail(life, "seek_hlc of entry %llu: %s, %llu", U(want), chr_errname(err),
                         U(got));
    return true;
}

static inline bool life_periodic(struct life *life)
{
    bool force = life_below(life, 2);
    uint64_t syncs = life->disk.counters.syncs;
    chr_err err = raft_log_sync_periodic(life->log, life->clock.mono_us, force);
    bool due =
        force || life->disk.counters.syncs != syncs; /* it may also be due, and nothing owed */
    if (err == CHR_OK && (life->options.fsync != RAFT_FSYNC_PERIODIC || !due))
        return true;
    return life_synced(life, err, true, "periodic");
}

static inline bool life_step(struct life *life)
{
    life->steps++;
    fake_clock_advance(&life->clock, (int64_t)life_below(life, 20000));
    uint64_t dice = life_below(life, 100);
    bool in_doubt = raft_log_append(life->log, NULL, 0) == CHR_EDOUBT;
    if (in_doubt && dice < 70)
        return life_reopen(life, (enum life_end)life_below(life, 4));
    if (dice < 40)
        return life_append(life);
    if (dice < 72)
        return life_sync(life);
    if (dice < 76)
        return life_hard(life);
    if (dice < 80)
        return life_truncate(life);
    if (dice < 85)
        return life_cut(life);
    if (dice < 88)
        return in_doubt || life_seek(life);
    if (dice < 90 && life->written == life->ops_count && !in_doubt)
        return life_same(life, &life->now, true);
    if (dice < 92)
        return life_periodic(life);
    if (dice < 95) {
        life_set_faults(life);
        return true;
    }
    return life_reopen(life, (enum life_end)life_below(life, 4));
}

/* Lives `steps` steps of `seed`. True: all was right; else life->failure says what was not. The
 * caller frees life. */
static inline bool life_run(struct life *life, uint64_t seed, uint64_t steps,
                            struct life_plants plants, bool verbose)
{
    memset(life, 0, sizeof *life);
    chr_log_set_level(CHR_LOG_ERROR);
    life->seed = seed;
    life->verbose = verbose;
    life->plants = plants;
    life->random.state = seed;
    life->term = 1;
    fake_disk_open(&life->disk, seed ^ 0x5eed);
    fake_clock_init(&life->clock, 1700000000000000, 1000000);
    chr_buf_init(&life->buf, 1u << 20);
    static const enum raft_fsync modes[] = {RAFT_FSYNC_BATCH, RAFT_FSYNC_BATCH, RAFT_FSYNC_BATCH,
                                            RAFT_FSYNC_EVERY, RAFT_FSYNC_PERIODIC};
    life->options = (struct raft_log_options){
        .segment_bytes = 8192u << life_below(life, 3),
        .first_segment_bytes = life_below(life, 2) ? 4096 : 0,
        .recycle_max = life_below(life, 4),
        .fsync = modes[life_below(life, 5)],
        .periodic_ms = 50,
        .incarnation = chr_random_u64(&life->random) | 1,
        .clock = &life->clock.clock,
    };
    life->disk.faults.sync_lies = plants.sync_lies;
    life->disk.faults.names_unordered = life_below(life, 2);
    if (life_below(life, 3) == 0)
        life_begin_behind(life);
    bool ok = life_open(life, 0, "creation", NULL, 0, 0);
    while (ok && life->steps < steps)
        ok = life_step(life) && life_check_marks(life);
    if (ok)
        ok = life_reopen(life, LIFE_POWER);
    if (life->log) {
        fake_disk_off(&life->disk);
        raft_log_close(life->log);
    }
    chr_buf_free(&life->buf);
    fake_disk_close(&life->disk);
    return ok;
}

static inline uint64_t life_env(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 0) : fallback;
}

#endif
