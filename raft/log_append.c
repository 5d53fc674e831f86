/* raft/log_append.c: records into the pending buffer.
 *
 * A record is laid out at its final place (segment, offset), CRC and all, so that writing has
 * nothing left to decide. Pending records are never taken back: they may be on the disk already, in
 * part or whole, when a full disk stopped their writing, and other bytes must never come to stand
 * there. */
#include <string.h>

#include "base/assert.h"
#include "raft/log_internal.h"

/* What `entries_count` entries will need in pending and parts; the writer's cursor runs ahead. */
struct plan {
    size_t bytes, parts, records_bytes;
};

static void plan_record(const raft_log *log, size_t body_bytes, uint64_t *offset,
                        uint64_t *capacity, struct plan *plan)
{
    uint64_t space = raft__record_space(body_bytes);
    if (*offset + space > *capacity) {
        *capacity = raft__next_capacity(log, *capacity, space);
        *offset = RAFT__HEADER_BYTES;
        plan->bytes += RAFT__PAGE_BYTES + RAFT__HEADER_BYTES;
    }
    *offset += space;
    plan->bytes += space;
    plan->parts++; /* at most */
    plan->records_bytes += space;
}

/* Room for everything planned, so that putting it cannot fail half-way. */
static chr_err plan_reserve(raft_log *log, const struct plan *plan)
{
    if (!CHR_ARRAY_RESERVE(&log->parts, plan->parts))
        return CHR_ENOMEM;
    return chr_buf_reserve(&log->pending, plan->bytes + RAFT__PAGE_BYTES);
}

static struct raft__part *last_part(const raft_log *log)
{
    return log->parts.count > log->parts_done ? &log->parts.items[log->parts.count - 1] : NULL;
}

size_t raft__page_padding(const struct raft__part *part, uint64_t capacity)
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

/* Ends the segment the tail is in; a record of `space` bytes opens the one after. */
static void open_segment(raft_log *log, uint64_t space)
{
    struct raft__part *part = last_part(log);
    if (part) {
        size_t padding = raft__page_padding(part, log->tail_capacity);
        memset(log->pending.ptr + log->pending.len, 0, padding);
        log->pending.len += padding;
        part->to += padding;
    }
    uint64_t id = raft__pos_segment(log->tail.pos) + 1;
    struct raft__header header = {
        .segment = id,
        .incarnation = log->incarnation,
        .segment_bytes = raft__next_capacity(log, log->tail_capacity, space),
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
        open_segment(log,
                     space); /* the group number is the position before: log->group, if it is new */
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

chr_err raft__put_special(raft_log *log, struct raft__record *record, raft__pos *pos)
{
    struct plan plan = {0};
    uint64_t offset = raft__pos_offset(log->tail.pos), capacity = log->tail_capacity;
    plan_record(log, record->body.len, &offset, &capacity, &plan);
    chr_err err = plan_reserve(log, &plan);
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
        plan_record(log, entries[i].bytes.len, &offset, &capacity, &plan);
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
