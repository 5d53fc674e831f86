/* raft/log_read.c: reading entries back, by any thread, while the writer goes on.
 *
 * A cursor walks live entries from a place that the sparse index knows. It counts itself in as a
 * reader of the segment it is in, so a cut does not pull the file away; entries at or below the
 * synced index never change, so it needs the lock only between segments (and, where a truncation
 * left dead entries in the files, to ask about each). Every CRC and the chain are verified again:
 * what was right in memory when it was written may have rotted since. */
#include "raft/log_internal.h"

static void leave_segment(struct raft__cursor *cursor)
{
    raft_log *log = cursor->log;
    if (cursor->segment && --cursor->segment->readers == 0 && log->garbage.count) {
        log->garbage_waits = true;
        pthread_cond_broadcast(&log->changed);
    }
    cursor->segment = NULL;
}

static void enter_segment(struct raft__cursor *cursor, struct raft__segment *segment, uint64_t off)
{
    leave_segment(cursor);
    segment->readers++;
    cursor->segment = segment;
    cursor->off = off;
    cursor->end = segment->end;
    raft__reader_file(&cursor->reader, segment->handle, segment->end);
}

chr_err raft__cursor_start(struct raft__cursor *cursor, raft_log *log, struct chr_buf *buf,
                           size_t block, uint64_t index, uint64_t last)
{
    *cursor = (struct raft__cursor){.log = log, .last = last};
    cursor->reader = (struct raft__reader){.io = log->io, .buf = buf, .block = block, .handle = -1};
    chr_err err = CHR_OK;
    pthread_mutex_lock(&log->lock);
    const struct raft__sparse *at = raft__index_seek(log, index);
    if (index < atomic_load(&log->first) || (!at && index <= last))
        err = CHR_ENOTFOUND;
    else if (at)
        enter_segment(cursor, raft__segment_by_id(log, raft__pos_segment(at->pos)),
                      raft__pos_offset(at->pos));
    pthread_mutex_unlock(&log->lock);
    return err;
}

/* To the first record of the segment after this one; false at the end of the log. */
static bool next_segment(struct raft__cursor *cursor)
{
    raft_log *log = cursor->log;
    pthread_mutex_lock(&log->lock);
    struct raft__segment *next = raft__segment_by_id(log, cursor->segment->id + 1);
    if (next)
        enter_segment(cursor, next, RAFT__HEADER_BYTES);
    pthread_mutex_unlock(&log->lock);
    return next != NULL;
}

static bool is_dead(raft_log *log, uint64_t index, raft__pos pos)
{
    pthread_mutex_lock(&log->lock);
    bool dead = raft__is_dead(log, index, pos);
    pthread_mutex_unlock(&log->lock);
    return dead;
}

int raft__cursor_next(struct raft__cursor *cursor, struct raft__record *record)
{
    while (cursor->segment && !cursor->finished) {
        if (cursor->off >= cursor->end) {
            if (!next_segment(cursor))
                return 0;
            continue;
        }
        int r = raft__reader_record(&cursor->reader, cursor->segment->seed, cursor->off, record);
        if (r < 0)
            return r;
        if (r == 0 || (cursor->chained && record->prev_crc != cursor->prev_crc))
            return CHR_ECORRUPT;
        raft__pos pos = raft__pos_of(cursor->segment->id, cursor->off);
        cursor->chained = true;
        cursor->prev_crc = record->crc;
        cursor->off += raft__record_space(record->body.len);
        if (!raft__is_entry(record->type) || is_dead(cursor->log, record->index, pos))
            continue;
        /* Not a step further: the segment may have grown, and gone over to the next, since its end
         * was asked. All up to `last` was there by then. */
        cursor->finished = record->index >= cursor->last;
        return record->index <= cursor->last;
    }
    return 0;
}

void raft__cursor_end(struct raft__cursor *cursor)
{
    pthread_mutex_lock(&cursor->log->lock);
    leave_segment(cursor);
    pthread_mutex_unlock(&cursor->log->lock);
}

#define READ_BLOCK (64u << 10) /* what the sparse index leaves to skip, about */

static chr_err read_once(raft_log *log, uint64_t index, size_t max_bytes, struct chr_buf *buf,
                         struct raft_entry *entries, size_t entries_max, size_t *count)
{
    *count = 0;
    chr_buf_reset(buf);
    uint64_t last = raft_log_synced(log);
    if (index < raft_log_first(log))
        return CHR_ENOTFOUND;
    if (index > last || entries_max == 0)
        return CHR_OK;
    struct raft__cursor cursor;
    size_t block = CHR_MAX((size_t)READ_BLOCK, CHR_MIN(max_bytes, (size_t)(1u << 20)));
    chr_err err = raft__cursor_start(&cursor, log, buf, block, index, last);
    size_t bytes = 0;
    while (!err && *count < entries_max) {
        struct raft__record record;
        int r = raft__cursor_next(&cursor, &record);
        if (r <= 0) {
            err = r;
            break;
        }
        if (record.index < index)
            continue;
        if (record.index != index + *count) { /* keeps L2 */
            err = CHR_ECORRUPT;
            break;
        }
        if (*count && bytes + record.body.len > max_bytes)
            break;
        bytes += record.body.len;
        cursor.reader.pinned = true;
        /* buf may move while it grows: keep the place as an offset until the end. */
        entries[(*count)++] = (struct raft_entry){
            .index = record.index,
            .term = record.term,
            .hlc = record.hlc,
            .type = (enum raft_entry_type)record.type,
            .bytes = {.ptr = (const uint8_t *)(uintptr_t)(record.body.ptr - buf->ptr),
                      .len = record.body.len}};
    }
    raft__cursor_end(&cursor);
    if (err) {
        *count = 0;
        return err;
    }
    for (size_t i = 0; i < *count; i++)
        entries[i].bytes.ptr = buf->ptr + (uintptr_t)entries[i].bytes.ptr;
    return CHR_OK;
}

/* A truncation beside us: what was read may be half of the old entries and half of what came in
 * their place, which would look like damage. */
chr_err raft_log_read(raft_log *log, uint64_t index, size_t max_bytes, struct chr_buf *buf,
                      struct raft_entry *entries, size_t entries_max, size_t *count)
{
    for (;;) {
        uint64_t truncations = atomic_load(&log->truncations);
        chr_err err = read_once(log, index, max_bytes, buf, entries, entries_max, count);
        if (atomic_load(&log->truncations) == truncations)
            return err;
    }
}

chr_err raft_log_seek_hlc(raft_log *log, chr_hlc hlc, uint64_t *index)
{
    uint64_t synced = raft_log_synced(log), from = 0;
    pthread_mutex_lock(&log->lock);
    *index = atomic_load(&log->first);
    size_t low = 0, high = log->sparse.count;
    while (low < high) { /* the last one whose hlc is below */
        size_t mid = low + (high - low) / 2;
        if (log->sparse.items[mid].hlc < hlc)
            low = mid + 1;
        else
            high = mid;
    }
    while (low && log->sparse.items[low - 1].index > synced)
        low--; /* of the group being filled */
    if (low)
        from = log->sparse.items[low - 1].index;
    pthread_mutex_unlock(&log->lock);
    if (from == 0) {
        *index = CHR_MIN(*index, synced + 1);
        return CHR_OK;
    }
    struct chr_buf buf;
    chr_buf_init(&buf, RAFT_ENTRY_BYTES_MAX + 2 * READ_BLOCK);
    struct raft__cursor cursor;
    chr_err err = raft__cursor_start(&cursor, log, &buf, READ_BLOCK, from, synced);
    *index = synced + 1;
    while (!err) {
        struct raft__record record;
        int r = raft__cursor_next(&cursor, &record);
        if (r <= 0) {
            err = r;
            break;
        }
        if (record.hlc >= hlc) {
            *index = record.index;
            break;
        }
    }
    raft__cursor_end(&cursor);
    chr_buf_free(&buf);
    return err;
}

/* The same among records that are not on the disk yet. */
static bool find_pending(const raft_log *log, uint64_t index, struct raft__record *record)
{
    bool found = false;
    for (size_t i = log->parts_done; i < log->parts.count; i++) {
        const struct raft__part *part = &log->parts.items[i];
        uint32_t seed = raft__seed(log->incarnation, part->segment);
        size_t at = part->from + (part->opens ? RAFT__HEADER_BYTES : 0);
        struct raft__record r;
        while (at + RAFT__RECORD_BYTES <= part->to &&
               raft__record_peek(seed, (uint32_t)(part->offset + (at - part->from)), UINT32_MAX,
                                 log->pending.ptr + at, &r)) {
            if (raft__is_entry(r.type) && r.index == index) {
                *record = r; /* a later one of the same index wins */
                found = true;
            }
            at += raft__record_space(r.length - RAFT__RECORD_BYTES);
        }
    }
    return found;
}

chr_err raft__find_entry(raft_log *log, uint64_t index, struct raft__record *record)
{
    if (find_pending(log, index, record))
        return CHR_OK;
    struct chr_buf buf;
    chr_buf_init(&buf, RAFT_ENTRY_BYTES_MAX + 2 * READ_BLOCK);
    struct raft__cursor cursor;
    chr_err err = raft__cursor_start(&cursor, log, &buf, READ_BLOCK, index, index);
    int r;
    while (!err) {
        r = raft__cursor_next(&cursor, record);
        if (r <= 0)
            err = r < 0 ? r : CHR_ENOTFOUND;
        else if (record->index == index)
            break;
    }
    raft__cursor_end(&cursor);
    chr_buf_free(&buf);
    return err;
}
