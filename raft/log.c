/* raft/log.c: the writer's side: records into the pending buffer, the buffer to the disk.
 *
 * append lays records out at their final place (segment, offset) in memory, CRC and all, so sync
 * has nothing left to do but one pwrite per segment touched (one, or two at a border) and one
 * fdatasync each. The write goes on with zeros to the end of its last page: the kernel then never
 * has to read a page of a recycled segment in order to change a part of it.
 *
 * A full disk (CHR_ENOSPC) leaves everything as it was in memory; sync begins again with the same
 * bytes at the same places. They may be on the disk already, in part or whole, and a crash may
 * bring them back: entries that nobody was promised, with the right indexes. What must never happen
 * is that other bytes come to stand there, which is why pending records are never taken back. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/random.h"
#include "raft/log_internal.h"

/* What an idle log may hold on to. */
#define PENDING_KEPT_BYTES (1u << 20)

/* ---- laying out ---- */

/* What `entries_count` entries will need in pending and parts; the writer's cursor runs ahead. */
struct plan {
    size_t bytes, parts, records_bytes;
};

static chr_err plan_record(const raft_log *log, size_t body_bytes, uint64_t *offset,
                           uint64_t *capacity, struct plan *plan)
{
    uint64_t space = raft__record_space(body_bytes);
    if (*offset + space > *capacity) {
        *capacity = raft__next_capacity(log, *capacity);
        *offset = RAFT__HEADER_BYTES;
        if (*offset + space > *capacity)
            return CHR_ETOOBIG;
        plan->bytes += RAFT__PAGE_BYTES + RAFT__HEADER_BYTES;
    }
    *offset += space;
    plan->bytes += space;
    plan->parts++; /* at most */
    plan->records_bytes += space;
    return CHR_OK;
}

/* Room for everything planned, so that putting it cannot fail half-way. */
static chr_err plan_reserve(raft_log *log, const struct plan *plan)
{
    if (!RAFT__RESERVE(&log->parts, plan->parts))
        return CHR_ENOMEM;
    return chr_buf_reserve(&log->pending, plan->bytes + RAFT__PAGE_BYTES);
}

static struct raft__part *last_part(const raft_log *log)
{
    return log->parts.count > log->parts_done ? &log->parts.items[log->parts.count - 1] : NULL;
}

/* Zeros from the end of a part to the end of its page; `extra` of them. */
static size_t page_padding(const struct raft__part *part, uint64_t capacity)
{
    uint64_t end = part->offset + (part->to - part->from);
    return (size_t)(CHR_MIN(chr_round_up(end, RAFT__PAGE_BYTES), CHR_MAX(capacity, end)) - end);
}

static void new_part(raft_log *log, bool opens)
{
    log->parts.items[log->parts.count++] =
        (struct raft__part){.segment = raft__pos_segment(log->tail.pos),
                            .offset = raft__pos_offset(log->tail.pos),
                            .from = log->pending.len,
                            .to = log->pending.len,
                            .group = log->group,
                            .opens = opens};
}

/* Ends the segment the tail is in; the next record opens the one after. */
static void open_segment(raft_log *log)
{
    struct raft__part *part = last_part(log);
    if (part) {
        size_t padding = page_padding(part, log->tail_capacity);
        memset(log->pending.ptr + log->pending.len, 0, padding);
        log->pending.len += padding;
        part->to += padding;
    }
    uint64_t id = raft__pos_segment(log->tail.pos) + 1;
    struct raft__header header = {
        .segment = id,
        .incarnation = log->incarnation,
        .segment_bytes = raft__next_capacity(log, log->tail_capacity),
        .next_index = log->tail.last_index + 1,
        .prev_end = log->tail.pos,
        .group = log->group,
        .prev_crc = log->tail.crc,
        .last_term = log->tail.last_term,
        .last_hlc = log->tail.last_hlc,
        .hard_state = log->tail.hard_state,
    };
    log->tail.pos = raft__pos_of(id, 0);
    log->tail_capacity = header.segment_bytes;
    log->tail_seed = raft__seed(log->incarnation, id);
    new_part(log, true);
    part = last_part(log);
    part->header = header;
    raft__header_encode(&header, log->pending.ptr + log->pending.len);
    log->pending.len += RAFT__HEADER_BYTES;
    part->to += RAFT__HEADER_BYTES;
    log->tail.pos += RAFT__HEADER_BYTES;
}

/* Puts one record behind the tail; its room was reserved. Returns where it begins. */
static raft__pos put_record(raft_log *log, struct raft__record *record)
{
    uint64_t space = raft__record_space(record->body.len);
    if (raft__pos_offset(log->tail.pos) + space > log->tail_capacity)
        open_segment(log); /* the group number is the position before: log->group, if it is new */
    struct raft__part *part = last_part(log);
    if (!part || part->group != log->group)
        new_part(log, false);
    part = last_part(log);
    raft__pos pos = log->tail.pos;
    record->prev_crc = log->tail.crc;
    record->group = log->group;
    raft__record_encode(log->tail_seed, (uint32_t)raft__pos_offset(pos), record,
                        log->pending.ptr + log->pending.len);
    log->pending.len += space;
    part->to += space;
    log->group_bytes += space;
    log->tail.pos += space;
    log->tail.crc = record->crc;
    log->tail.last_type = record->type;
    part->last_index = log->tail.last_index = record->index;
    log->tail.last_term = record->term;
    log->tail.last_hlc = record->hlc;
    return pos;
}

/* A record that is not an entry: it repeats index, term and hlc of the tail unless told otherwise.
 */
static chr_err put_special(raft_log *log, struct raft__record *record, raft__pos *pos)
{
    struct plan plan = {0};
    uint64_t offset = raft__pos_offset(log->tail.pos), capacity = log->tail_capacity;
    chr_err err = plan_record(log, record->body.len, &offset, &capacity, &plan);
    if (!err)
        err = plan_reserve(log, &plan);
    if (err)
        return err;
    if (log->options.fsync == RAFT_FSYNC_EVERY)
        log->group = log->tail.pos;
    *pos = put_record(log, record);
    return CHR_OK;
}

chr_err raft_log_append(raft_log *log, const struct raft_entry *entries, size_t entries_count)
{
    if (log->options.read_only)
        return CHR_EACCES;
    if (log->doubt)
        return CHR_EDOUBT;
    struct plan plan = {0};
    uint64_t offset = raft__pos_offset(log->tail.pos), capacity = log->tail_capacity;
    for (size_t i = 0; i < entries_count; i++) {
        if (entries[i].bytes.len > RAFT_ENTRY_BYTES_MAX)
            return CHR_ETOOBIG;
        chr_err err = plan_record(log, entries[i].bytes.len, &offset, &capacity, &plan);
        if (err)
            return err;
    }
    if (log->group_bytes + plan.records_bytes > RAFT__GROUP_BYTES_MAX)
        return CHR_EFULL;
    chr_err err = plan_reserve(log, &plan);
    if (err)
        return err;

    pthread_mutex_lock(&log->lock);
    if (!raft__index_reserve(log, entries_count)) {
        pthread_mutex_unlock(&log->lock);
        return CHR_ENOMEM;
    }
    for (size_t i = 0; i < entries_count; i++) {
        const struct raft_entry *entry = &entries[i];
        CHR_ASSERT(entry->index == log->tail.last_index + 1); /* keeps L2 */
        CHR_ASSERT(entry->term >= log->tail.last_term);
        CHR_ASSERT(entry->hlc > log->tail.last_hlc);
        CHR_ASSERT(raft__is_entry((uint8_t)entry->type));
        if (log->options.fsync == RAFT_FSYNC_EVERY)
            log->group = log->tail.pos;
        struct raft__record record = {.type = (uint8_t)entry->type,
                                      .index = entry->index,
                                      .term = entry->term,
                                      .hlc = entry->hlc,
                                      .body = entry->bytes};
        raft__pos pos = put_record(log, &record);
        bool added = raft__index_add(log, &record, pos);
        CHR_ASSERT(added);
    }
    log->stats.entries += entries_count;
    pthread_mutex_unlock(&log->lock);
    atomic_store_explicit(&log->last, log->tail.last_index, memory_order_release);
    return CHR_OK;
}

/* ---- writing ---- */

static chr_err in_doubt(raft_log *log, struct chr_errmsg *msg, const char *what, uint64_t segment,
                        chr_err why)
{
    struct chr_errmsg text;
    log->doubt = true;
    (void)chr_fail(&text, why,
                   "%s of log segment %llu failed (%s): nothing is acknowledged until "
                   "the log was reopened",
                   what, (unsigned long long)segment, chr_strerror(why));
    memcpy(log->doubt_text, text.text, sizeof log->doubt_text - 1);
    return chr_fail(msg, CHR_EDOUBT, "%s", log->doubt_text);
}

/* The segment a part goes to, made and put into the list when this part opens it. */
static chr_err activate(raft_log *log, const struct raft__part *part,
                        struct raft__segment **segment, struct chr_errmsg *msg)
{
    *segment = raft__segment_by_id(log, part->segment);
    if (*segment) /* there already: an earlier attempt opened it */
        return CHR_OK;
    CHR_ASSERT(part->opens);
    pthread_mutex_lock(&log->lock);
    bool room = RAFT__RESERVE(&log->segments, 1);
    pthread_mutex_unlock(&log->lock);
    if (!room)
        return chr_fail(msg, CHR_ENOMEM, "log: out of memory");
    struct raft__segment *next;
    chr_err err = raft__segment_next(log, part->header.segment_bytes, &next, msg);
    if (err == CHR_ENOSPC || err == CHR_ENOMEM)
        return err;
    if (err)
        return in_doubt(log, msg, "creation", part->segment, err);
    next->first_index = part->header.next_index;
    next->base_term = part->header.last_term;
    next->base_hlc = part->header.last_hlc;
    next->dirty = true; /* so that the dirty ones are the last of the list, without gaps */
    pthread_mutex_lock(&log->lock);
    log->segments.items[log->segments.count++] = next;
    pthread_mutex_unlock(&log->lock);
    *segment = next;
    return CHR_OK;
}

static chr_err write_part(raft_log *log, size_t i, struct chr_errmsg *msg)
{
    struct raft__part *part = &log->parts.items[i];
    struct raft__segment *segment;
    chr_err err = activate(log, part, &segment, msg);
    if (err)
        return err;
    size_t len = part->to - part->from;
    if (i + 1 == log->parts.count) {
        size_t padding = page_padding(part, segment->capacity); /* reserved by plan_reserve */
        memset(log->pending.ptr + part->to, 0, padding);
        len += padding;
    }
    segment->dirty = true;
    err = log->io->pwrite(log->io->ctx, segment->handle, log->pending.ptr + part->from, len,
                          part->offset);
    if (err == CHR_ENOSPC)
        return chr_fail(msg, err, "log segment %llu: no space left",
                        (unsigned long long)segment->id);
    if (err)
        return in_doubt(log, msg, "write", segment->id, err);
    log->unsynced_bytes += len;
    return CHR_OK;
}

/* fdatasync of every segment written since the last one. */
static chr_err sync_dirty(raft_log *log, struct chr_errmsg *msg)
{
    const struct chr_clock *clock = log->options.clock;
    for (size_t i = log->segments.count; i-- > 0 && log->segments.items[i]->dirty;) {
        struct raft__segment *segment = log->segments.items[i];
        int64_t begun = chr_clock_mono_us(clock);
        chr_err err = log->io->sync(log->io->ctx, segment->handle);
        if (err)
            return in_doubt(log, msg, "fdatasync", segment->id, err);
        segment->dirty = false;
        uint64_t us = (uint64_t)(chr_clock_mono_us(clock) - begun);
        pthread_mutex_lock(&log->lock);
        log->stats.syncs++;
        log->stats.sync_us_total += us;
        log->stats.sync_us_max = CHR_MAX(log->stats.sync_us_max, us);
        pthread_mutex_unlock(&log->lock);
    }
    log->unsynced_bytes = 0;
    return CHR_OK;
}

/* The parts [from, to) are where they should be: readers may go there. */
static void show_parts(raft_log *log, size_t from, size_t to)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&log->lock);
    for (size_t i = from; i < to; i++) {
        const struct raft__part *part = &log->parts.items[i];
        struct raft__segment *segment = raft__segment_by_id(log, part->segment);
        uint64_t end = i + 1 < log->parts.count && log->parts.items[i + 1].opens
                           ? raft__pos_offset(log->parts.items[i + 1].header.prev_end)
                           : part->offset + (part->to - part->from);
        bytes += end - part->offset;
        segment->end = end;
    }
    log->stats.groups++;
    log->stats.bytes_written += bytes;
    pthread_mutex_unlock(&log->lock);
    atomic_fetch_add_explicit(&log->bytes, bytes, memory_order_relaxed);
    /* Behind a pending truncation an earlier part's last entry may be dead already. */
    atomic_store_explicit(&log->synced,
                          CHR_MIN(log->parts.items[to - 1].last_index, log->tail.last_index),
                          memory_order_release);
}

static void parts_clear(raft_log *log)
{
    log->parts.count = log->parts_done = 0;
    log->group_bytes = 0;
    chr_buf_reset(&log->pending);
    /* The next segment is prepared while this one fills. But for the first, small one: there it
     * waits until half of it is used, for an idle node needs no more. */
    if (log->tail_capacity > log->options.first_segment_bytes ||
        raft__pos_offset(log->tail.pos) > log->tail_capacity / 2)
        raft__want_next(log);
}

/* Writes what is pending; `durable` asks for the fdatasync whatever the mode. */
static chr_err flush(raft_log *log, bool durable, struct chr_errmsg *msg)
{
    if (log->options.read_only)
        return chr_fail(msg, CHR_EACCES, "the log is open for reading only");
    if (log->doubt)
        return chr_fail(msg, CHR_EDOUBT, "%s", log->doubt_text);
    durable |= log->options.fsync != RAFT_FSYNC_PERIODIC;
    chr_err err = CHR_OK;
    for (size_t i = log->parts_done; !err && i < log->parts.count; i++) {
        err = write_part(log, i, msg);
        bool group_ends =
            i + 1 == log->parts.count || log->parts.items[i + 1].group != log->parts.items[i].group;
        if (err || !group_ends)
            continue;
        bool sync = durable || log->unsynced_bytes > RAFT__GROUP_BYTES_MAX;
        if (sync)
            err = sync_dirty(log, msg);
        if (err)
            continue;
        show_parts(log, log->parts_done, i + 1);
        log->parts_done = i + 1;
        if (sync) {
            atomic_store_explicit(&log->durable, raft_log_synced(log), memory_order_release);
            if (i + 1 == log->parts.count)
                log->group = log->tail.pos; /* keeps L1: everything below it is durable */
        }
    }
    if (err == CHR_ENOSPC) {
        pthread_mutex_lock(&log->lock);
        log->stats.enospc_waits++;
        pthread_mutex_unlock(&log->lock);
    }
    if (err)
        return err;
    if (log->parts.count) {
        parts_clear(log);
    } else if (durable && log->unsynced_bytes) { /* RAFT_FSYNC_PERIODIC: the sync that is owed */
        err = sync_dirty(log, msg);
        if (err)
            return err;
        log->group = log->tail.pos;
        atomic_store_explicit(&log->durable, log->tail.last_index, memory_order_release);
    }
    return CHR_OK;
}

chr_err raft_log_sync(raft_log *log, struct chr_errmsg *msg)
{
    return flush(log, false, msg);
}

chr_err raft_log_sync_periodic(raft_log *log, int64_t mono_us, bool force)
{
    if (log->options.fsync != RAFT_FSYNC_PERIODIC)
        return CHR_OK;
    if (log->periodic_us == 0)
        log->periodic_us = mono_us;
    if (!force && mono_us - log->periodic_us < (int64_t)log->options.periodic_ms * 1000)
        return CHR_OK;
    log->periodic_us = mono_us;
    return flush(log, true, NULL);
}

chr_err raft_log_set_hard_state(raft_log *log, struct raft_hard_state state)
{
    if (log->options.read_only)
        return CHR_EACCES;
    if (log->doubt)
        return CHR_EDOUBT;
    if (state.term != log->tail.hard_state.term || state.vote != log->tail.hard_state.vote) {
        uint8_t body[16];
        chr_put_u64le(body, state.term);
        chr_put_u64le(body + 8, state.vote);
        struct raft__record record = {.type = RAFT__HARD_STATE,
                                      .index = log->tail.last_index,
                                      .term = log->tail.last_term,
                                      .hlc = log->tail.last_hlc,
                                      .body = chr_slice_of(body, sizeof body)};
        raft__pos pos;
        chr_err err = put_special(log, &record, &pos);
        if (err)
            return err;
        log->tail.hard_state = state;
    }
    return flush(log, true, NULL); /* keeps L5 */
}

/* ---- letting entries go ---- */

/* Term and HLC of the entry `index`, or of the place before the first one. */
static chr_err describe(raft_log *log, uint64_t index, uint64_t *term, chr_hlc *hlc)
{
    struct raft__record record;
    if (index >= raft_log_first(log)) {
        chr_err err = raft__find_entry(log, index, &record);
        *term = record.term;
        *hlc = record.hlc;
        return err;
    }
    *term = log->segments.items[0]->base_term;
    *hlc = log->segments.items[0]->base_hlc;
    return CHR_OK;
}

/* Segments that this truncation leaves without a live entry, and those not even open yet: the next
 * entry that they, or a segment after them, hold may be record->index + 1. */
static void lower_first(raft_log *log, const struct raft__record *record)
{
    raft__lower_first(log, record);
    for (size_t i = 0; i < log->parts.count; i++) {
        struct raft__header *header = &log->parts.items[i].header;
        if (log->parts.items[i].opens && record->index + 1 < header->next_index) {
            header->next_index = record->index + 1; /* for activate(); the bytes are laid out */
            header->last_term = record->term;
            header->last_hlc = record->hlc;
        }
    }
}

chr_err raft_log_truncate_suffix(raft_log *log, uint64_t index)
{
    if (log->options.read_only)
        return CHR_EACCES;
    if (log->doubt)
        return CHR_EDOUBT;
    if (index + 1 < raft_log_first(log))
        return CHR_EINVAL;
    if (index < log->tail.last_index) {
        struct raft__record record = {.type = RAFT__TRUNCATE, .index = index};
        chr_err err = describe(log, index, &record.term, &record.hlc);
        if (err)
            return err;
        raft__pos pos;
        err = put_special(log, &record, &pos);
        if (err)
            return err;
        pthread_mutex_lock(&log->lock);
        bool indexed = raft__index_truncate(log, &record, pos);
        if (indexed)
            lower_first(log, &record);
        pthread_mutex_unlock(&log->lock);
        if (!indexed) /* the record is pending, memory does not know it: only replay puts it right
                       */
            return in_doubt(log, NULL, "truncation", raft__pos_segment(pos), CHR_ENOMEM);
        atomic_store_explicit(&log->last, index, memory_order_release);
        if (atomic_load(&log->synced) > index)
            atomic_store_explicit(&log->synced, index, memory_order_release);
        if (atomic_load(&log->durable) > index)
            atomic_store_explicit(&log->durable, index, memory_order_release);
    }
    return flush(log, true, NULL);
}

chr_err raft_log_cut_prefix(raft_log *log, uint64_t index)
{
    if (log->options.read_only)
        return CHR_EACCES;
    uint64_t bytes = 0;
    size_t n = 0;
    pthread_mutex_lock(&log->lock);
    while (n + 1 < log->segments.count && log->segments.items[n + 1]->first_index <= index + 1 &&
           log->segments.items[n + 1]->end > RAFT__HEADER_BYTES && !log->segments.items[n]->dirty)
        n++;
    if (n && !RAFT__RESERVE(&log->garbage, n)) {
        pthread_mutex_unlock(&log->lock);
        return CHR_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        bytes += log->segments.items[i]->end;
        log->garbage.items[log->garbage.count++] = log->segments.items[i];
    }
    if (n) {
        log->segments.count -= n;
        memmove(log->segments.items, log->segments.items + n,
                log->segments.count * sizeof *log->segments.items);
        raft__index_cut(log);
        atomic_store(&log->first, log->segments.items[0]->first_index);
        atomic_fetch_sub(&log->bytes, bytes);
    }
    bool some = log->garbage.count > 0; /* also what failed to go before */
    pthread_mutex_unlock(&log->lock);
    if (some)
        raft__garbage_ready(log);
    /* A checkpoint was made; the memory of the largest group since the last one goes back. */
    if (log->parts.count == 0 && log->pending.capacity > PENDING_KEPT_BYTES)
        chr_buf_free(&log->pending);
    return CHR_OK;
}

/* ---- open, close ---- */

static chr_err fill_options(struct raft_log_options *options, struct chr_errmsg *msg)
{
    if (options->segment_bytes == 0)
        options->segment_bytes = RAFT__SEGMENT_BYTES;
    if (options->first_segment_bytes == 0)
        options->first_segment_bytes = RAFT__FIRST_BYTES;
    if (options->first_segment_bytes > options->segment_bytes)
        options->first_segment_bytes = options->segment_bytes;
    if (!options->clock)
        options->clock = chr_clock_system();
    if (options->segment_bytes % RAFT__PAGE_BYTES ||
        options->first_segment_bytes % RAFT__PAGE_BYTES ||
        options->segment_bytes > RAFT__SEGMENT_BYTES_MAX)
        return chr_fail(msg, CHR_EINVAL, "log: segments are multiples of %u bytes, up to %u",
                        RAFT__PAGE_BYTES, RAFT__SEGMENT_BYTES_MAX);
    return CHR_OK;
}

/* A group of its own behind the last one: from then on damage to that one is no torn tail. On a
 * full disk the witness stays pending and goes with the next group, which is as good a witness. */
static chr_err leave_witness(raft_log *log, struct chr_errmsg *msg)
{
    if (log->tail.last_type == 0 || log->tail.last_type == RAFT__WITNESS)
        return CHR_OK;
    struct raft__record record = {.type = RAFT__WITNESS,
                                  .index = log->tail.last_index,
                                  .term = log->tail.last_term,
                                  .hlc = log->tail.last_hlc};
    raft__pos pos;
    chr_err err = put_special(log, &record, &pos);
    if (!err)
        err = flush(log, true, msg);
    return err == CHR_ENOSPC ? CHR_OK : err;
}

chr_err raft_log_open(const struct raft_io *io, const struct raft_log_options *options,
                      uint64_t start_index, raft_log **out, struct raft_log_recovery *recovery,
                      struct chr_errmsg *msg)
{
    *out = NULL;
    raft_log *log = calloc(1, sizeof *log);
    if (!log)
        return chr_fail(msg, CHR_ENOMEM, "log: out of memory");
    log->io = io;
    log->options = *options;
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->changed, NULL);
    /* Page padding at borders comes on top of the records; small segments (tests) have many. */
    chr_buf_init(&log->pending, 2 * RAFT__GROUP_BYTES_MAX);
    chr_err err = fill_options(&log->options, msg);
    if (!err)
        err = raft__recover(log, CHR_MAX(start_index, (uint64_t)1), recovery, msg);
    if (!err && !log->options.read_only)
        err = leave_witness(log, msg);
    if (!err && log->options.prepare_ahead && !log->options.read_only) {
        err = raft__helper_start(log);
        if (err)
            err = chr_fail(msg, err, "log: cannot start the helper thread");
    }
    if (err) {
        log->doubt = true; /* close must not write */
        raft_log_close(log);
        return err;
    }
    *out = log;
    return CHR_OK;
}

void raft_log_close(raft_log *log)
{
    if (!log)
        return;
    if (!log->doubt && !log->options.read_only) {
        if (log->parts.count) /* never synced: dropped. What is owed for earlier ones is not */
            (void)sync_dirty(log, NULL);
        else if (flush(log, true, NULL) == CHR_OK)
            (void)leave_witness(log, NULL); /* a courtesy: the log is complete without it */
    }
    raft__helper_stop(log);
    for (size_t i = 0; i < log->segments.count; i++)
        raft__segment_free(log, log->segments.items[i]);
    for (size_t i = 0; i < log->garbage.count; i++)
        raft__segment_free(log, log->garbage.items[i]);
    raft__segment_free(log, log->next);
    free(log->segments.items);
    free(log->garbage.items);
    free(log->spares.items);
    free(log->sparse.items);
    free(log->terms.items);
    free(log->cuts.items);
    free(log->parts.items);
    chr_buf_free(&log->pending);
    pthread_cond_destroy(&log->changed);
    pthread_mutex_destroy(&log->lock);
    free(log);
}

/* ---- looking ---- */

uint64_t raft_log_first(const raft_log *log)
{
    uint64_t first = atomic_load_explicit(&log->first, memory_order_acquire);
    uint64_t last = atomic_load_explicit(&log->last, memory_order_acquire);
    return CHR_MIN(first, last + 1);
}

uint64_t raft_log_last(const raft_log *log)
{
    return atomic_load_explicit(&log->last, memory_order_acquire);
}

uint64_t raft_log_synced(const raft_log *log)
{
    return atomic_load_explicit(&log->synced, memory_order_acquire);
}

uint64_t raft_log_durable(const raft_log *log)
{
    return atomic_load_explicit(&log->durable, memory_order_acquire);
}

uint64_t raft_log_bytes(const raft_log *log)
{
    return atomic_load_explicit(&log->bytes, memory_order_relaxed);
}

uint64_t raft_log_incarnation(const raft_log *log)
{
    return log->incarnation;
}

uint64_t raft_log_term_of(const raft_log *log, uint64_t index)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&log->lock; /* logically const */
    pthread_mutex_lock(lock);
    uint64_t term = 0;
    if (index >= atomic_load(&log->first) && index <= atomic_load(&log->last))
        term = raft__index_term(log, index);
    else if (index + 1 == log->segments.items[0]->first_index)
        term = log->segments.items[0]->base_term;
    pthread_mutex_unlock(lock);
    return term;
}

void raft_log_stats(const raft_log *log, struct raft_log_stats *out)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&log->lock;
    pthread_mutex_lock(lock);
    *out = log->stats;
    out->segments = log->segments.count;
    pthread_mutex_unlock(lock);
}
