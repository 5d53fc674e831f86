/* raft/log_repair.c: steps 3 and 4 of recovery (log_recover.c): what lies behind the chain's end
 * says whether the end is torn or damaged; a torn one is cut. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/log_recover.h"

/* ---- 3. what is behind its end ---- */

/* Looks for valid records in [from, limit) of a file. *later: the offset of one with group > end
 * (0: none); *seen: the offset behind the last one that is not. */
static chr_err scan(struct raft__recovery *r, int handle, uint64_t limit, uint32_t seed,
                    uint64_t from, raft__pos end, uint64_t *later, uint64_t *seen)
{
    *later = *seen = 0;
    raft__reader_file(&r->reader, handle, limit);
    uint64_t off = chr_round_up(from, 8);
    while (off + RAFT__RECORD_BYTES <= limit) {
        size_t len = (size_t)CHR_MIN((uint64_t)RAFT__BLOCK_BYTES, limit - off);
        const uint8_t *ptr;
        chr_err err = raft__reader_fetch(&r->reader, off, len, &ptr);
        if (err)
            return err;
        if (!ptr)
            return CHR_OK; /* shrunk since its size was asked */
        uint64_t block_end = off + len;
        while (off + RAFT__RECORD_BYTES <= block_end) {
            struct raft__record record;
            const uint8_t *at = ptr + (len - (block_end - off));
            if (!raft__record_peek(seed, (uint32_t)off, limit, at, &record)) {
                off += 8;
                continue;
            }
            int got = raft__reader_record(&r->reader, seed, off, &record); /* moves the window */
            if (got < 0)
                return got;
            if (got && record.group > end) {
                *later = off;
                return CHR_OK;
            }
            off += got ? raft__record_space(record.body.len) : 8;
            if (got)
                *seen = off;
            break;
        }
    }
    return CHR_OK;
}

static chr_err refuse(struct raft__recovery *r, raft__pos end, uint64_t id, uint64_t offset)
{
    return chr_fail(r->msg, CHR_ECORRUPT,
                    "log segment %020" PRIu64 ".seg offset %" PRIu64
                    ": bad record, but a later group follows (%020" PRIu64 ".seg offset %" PRIu64
                    "); " RAFT__REMEDY,
                    raft__pos_segment(end), raft__pos_offset(end), id, offset);
}

chr_err raft__look_behind(struct raft__recovery *r)
{
    raft_log *log = r->log;
    raft__pos end = log->tail.pos;
    struct raft__segment *segment = log->segments.items[log->segments.count - 1];
    uint64_t limit = CHR_MIN(r->files.items[r->at].bytes, segment->capacity);
    uint64_t later, seen;

    /* The record at the end itself: header whole, body torn. It is not valid, but it is ours. */
    const uint8_t *ptr;
    struct raft__record record;
    raft__reader_file(&r->reader, segment->handle, limit);
    chr_err err = raft__reader_fetch(&r->reader, raft__pos_offset(end), RAFT__RECORD_BYTES, &ptr);
    if (!err && ptr &&
        raft__record_peek(segment->seed, (uint32_t)raft__pos_offset(end), limit, ptr, &record))
        r->evidence_end = raft__pos_offset(end) + record.length;
    if (!err)
        err = scan(r, segment->handle, limit, segment->seed, raft__pos_offset(end), end, &later,
                   &seen);
    if (err)
        return chr_fail(r->msg, err, "log segment %020" PRIu64 ".seg: cannot read: %s", segment->id,
                        chr_strerror(err));
    if (later)
        return refuse(r, end, segment->id, later);
    r->evidence_end = CHR_MAX(r->evidence_end, seen);

    for (size_t i = r->at + 1; i < r->files.count; i++) {
        struct raft__found *file = &r->files.items[i];
        if (file->valid && file->header.group > end)
            return refuse(r, end, file->id, 0);
        if (file->valid)
            r->evidence_bytes_after += RAFT__HEADER_BYTES;
        err = scan(r, file->handle, file->bytes, raft__seed(log->incarnation, file->id),
                   RAFT__HEADER_BYTES, end, &later, &seen);
        if (err)
            return chr_fail(r->msg, err, "log segment %020" PRIu64 ".seg: cannot read: %s",
                            file->id, chr_strerror(err));
        if (later)
            return refuse(r, end, file->id, later);
        r->evidence_bytes_after += seen ? seen - RAFT__HEADER_BYTES : 0;
    }
    return CHR_OK;
}

/* ---- 4. the cut ---- */

/* Writes [from, to) of a segment again, as it is. */
static chr_err rewrite(struct raft__recovery *r, const struct raft__segment *segment, uint64_t from,
                       uint64_t to)
{
    const struct raft_io *io = r->log->io;
    while (from < to) {
        size_t len = (size_t)CHR_MIN(to - from, (uint64_t)RAFT__BLOCK_BYTES), got;
        chr_buf_reset(&r->buf);
        chr_err err = chr_buf_reserve(&r->buf, len);
        if (!err)
            err = io->pread(io->ctx, segment->handle, r->buf.ptr, len, from, &got);
        if (!err) { /* a file cut short in the padding of its last record */
            memset(r->buf.ptr + got, 0, len - got);
            err = io->pwrite(io->ctx, segment->handle, r->buf.ptr, len, from);
        }
        if (err)
            return err;
        from += len;
    }
    return CHR_OK;
}

static chr_err zero(struct raft__recovery *r, const struct raft__segment *segment, uint64_t from,
                    uint64_t to)
{
    const struct raft_io *io = r->log->io;
    chr_buf_reset(&r->buf);
    chr_err err = chr_buf_reserve(&r->buf, RAFT__BLOCK_BYTES);
    if (!err)
        memset(r->buf.ptr, 0, RAFT__BLOCK_BYTES);
    while (!err && from < to) {
        size_t len = (size_t)CHR_MIN(to - from, (uint64_t)RAFT__BLOCK_BYTES);
        err = io->pwrite(io->ctx, segment->handle, r->buf.ptr, len, from);
        from += len;
    }
    return err;
}

/* Files after the last segment: one that is empty and of the right size is the next segment, the
 * others go. */
static chr_err settle_files_after(struct raft__recovery *r)
{
    raft_log *log = r->log;
    const struct raft_io *io = log->io;
    const struct raft__segment *last = log->segments.items[log->segments.count - 1];
    chr_err err = CHR_OK;
    for (size_t i = r->files.count; !err && i-- > r->at + 1;) {
        struct raft__found *file = &r->files.items[i];
        if (file->id == last->id + 1 && r->evidence_bytes_after == 0 &&
            file->bytes == raft__next_capacity(log, last->capacity, 0)) {
            struct raft__segment *next = calloc(1, sizeof *next);
            if (!next)
                return CHR_ENOMEM;
            *next = (struct raft__segment){.id = file->id,
                                           .capacity = file->bytes,
                                           .end = RAFT__HEADER_BYTES,
                                           .handle = file->handle,
                                           .seed = raft__seed(log->incarnation, file->id)};
            file->handle = -1;
            log->next = next;
            log->next_state = RAFT__NEXT_READY;
            continue;
        }
        char name[RAFT_IO_NAME_MAX];
        raft__segment_name(file->id, name);
        err = io->unlink(io->ctx, name);
        if (!err) /* the last one first, durably: never a gap */
            err = io->sync_dir(io->ctx);
    }
    if (!err && r->prepare_left) {
        err = io->unlink(io->ctx, RAFT__PREPARE_NAME);
        if (err == CHR_ENOTFOUND)
            err = CHR_OK;
    }
    return err;
}

chr_err raft__settle_spares(struct raft__recovery *r)
{
    raft_log *log = r->log;
    const struct raft_io *io = log->io;
    size_t kept = 0;
    chr_err err = CHR_OK;
    for (size_t i = 0; !err && i < log->spares.count; i++) {
        char name[RAFT_IO_NAME_MAX];
        snprintf(name, sizeof name, "spare-%020" PRIu64 ".seg", log->spares.items[i]);
        int handle;
        uint64_t bytes = 0;
        err = io->open(io->ctx, name, false, &handle);
        if (!err) {
            err = io->size(io->ctx, handle, &bytes);
            io->close(io->ctx, handle);
        }
        if (!err && bytes == log->options.segment_bytes && kept < log->options.recycle_max)
            log->spares.items[kept++] = log->spares.items[i];
        else if (!err)
            err = io->unlink(io->ctx, name);
    }
    log->spares.count = kept;
    return err;
}

chr_err raft__repair(struct raft__recovery *r)
{
    raft_log *log = r->log;
    const struct raft_io *io = log->io;
    chr_err err = settle_files_after(r);
    if (!err)
        err = raft__settle_spares(r);
    /* A directory entry that a crashed process made may not be durable yet either. */
    if (!err)
        err = io->sync_dir(io->ctx);
    size_t i = log->segments.count;
    while (!err && i-- > 0 && log->segments.items[i]->id >= raft__pos_segment(r->last_group)) {
        struct raft__segment *segment = log->segments.items[i];
        uint64_t from =
            segment->id == raft__pos_segment(r->last_group) ? raft__pos_offset(r->last_group) : 0;
        if (from == RAFT__HEADER_BYTES)
            from = 0; /* the first group of a log: its header has not been proven either */
        err = rewrite(r, segment, from, segment->end);
        if (!err && i + 1 == log->segments.count && r->evidence_end > segment->end)
            err = zero(r, segment, segment->end, CHR_MIN(r->evidence_end, segment->capacity));
        if (!err)
            err = io->sync(io->ctx, segment->handle);
    }
    if (err)
        return chr_fail(r->msg, err, "log: cannot make its end durable: %s", chr_strerror(err));
    return CHR_OK;
}
