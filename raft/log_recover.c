/* raft/log_recover.c: from segment files to a log, or to a refusal (R16).
 *
 * What a crash can leave. By L1 everything below the last group's number is durable, whole and
 * never written again. Of the last group any sectors may be there, in one segment or two; the
 * segment after may exist, empty, or with a part of that group. So:
 *
 *   1. Headers. Segment ids must be consecutive, the oldest segment's header valid.
 *   2. Walk the chain of records (L3) from the first segment. It ends at a position B where no
 *      valid record joins on and no following header does.
 *   3. Look at everything behind B, at each multiple of 8, for valid records and headers. One with
 *      group > B was written after the bytes at B were durable: they were damaged later. Refuse
 *      (CHR_ECORRUPT) and change nothing.
 *   4. Otherwise what is behind B is the rest of the torn group, or nothing. Overwrite with zeros
 *      what could still be taken for a record, unlink segments after, write the last group again,
 *      sync. From then on the next group may go to B.
 *
 * Why write the last group again: after a failed fdatasync or a kill the page cache may show bytes
 * that the disk never got, and their pages may count as clean, so an fdatasync alone would prove
 * nothing (L6). Writing the same bytes to a sector is harmless even if power fails meanwhile.
 *
 * What R16 cannot promise: damage inside the very last group, when nothing was written after it,
 * looks like a torn tail, and is cut and reported as one. raft_log_close leaves a witness group, so
 * after a clean stop no entry is in that place; after a crash the last group is. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/random.h"
#include "raft/log_internal.h"

#define BLOCK_BYTES (1u << 20)
#define REMEDY      "restore this node from a backup or a peer; nothing was changed"

struct found {
    uint64_t id;
    uint64_t bytes;
    int handle;
    bool valid; /* header is decoded and of this id */
    struct raft__header header;
};

struct recovery {
    raft_log *log;
    struct raft_log_recovery *out;
    struct chr_errmsg *msg;
    RAFT__ARRAY(struct found) files; /* by id */
    bool prepare_left;               /* prepare.tmp exists */
    bool nomem;

    struct chr_buf buf;
    struct raft__reader reader;
    size_t at;             /* the file the chain ended in */
    raft__pos last_group;  /* of the last record (or header) of the chain */
    uint64_t evidence_end; /* offset in files[at] behind what could be taken for a record; 0 none */
    uint64_t evidence_bytes_after; /* in later segments */
};

/* ---- 1. files and headers ---- */

static bool parse_number(const char *digits, const char *rest, uint64_t *number)
{
    uint64_t n = 0;
    for (int i = 0; i < 20; i++) {
        if (digits[i] < '0' || digits[i] > '9' || n > UINT32_MAX)
            return false;
        n = n * 10 + (uint64_t)(digits[i] - '0');
    }
    *number = n;
    return n > 0 && n < UINT32_MAX && strcmp(digits + 20, rest) == 0;
}

static void note_file(void *arg, const char *name)
{
    struct recovery *r = arg;
    uint64_t number;
    if (strcmp(name, RAFT__PREPARE_NAME) == 0) {
        r->prepare_left = true;
    } else if (parse_number(name, ".seg", &number)) {
        if (!RAFT__RESERVE(&r->files, 1))
            r->nomem = true;
        else
            r->files.items[r->files.count++] = (struct found){.id = number, .handle = -1};
    } else if (strncmp(name, "spare-", 6) == 0 && parse_number(name + 6, ".seg", &number)) {
        if (!RAFT__RESERVE(&r->log->spares, 1))
            r->nomem = true;
        else
            r->log->spares.items[r->log->spares.count++] = number;
    }
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct found *)a)->id, y = ((const struct found *)b)->id;
    return (x > y) - (x < y);
}

static chr_err read_header(struct recovery *r, struct found *file)
{
    const struct raft_io *io = r->log->io;
    char name[RAFT_IO_NAME_MAX];
    raft__segment_name(file->id, name);
    chr_err err = io->open(io->ctx, name, false, &file->handle);
    if (!err)
        err = io->size(io->ctx, file->handle, &file->bytes);
    uint8_t bytes[RAFT__HEADER_BYTES] = {0};
    size_t got;
    if (!err)
        err = io->pread(io->ctx, file->handle, bytes, sizeof bytes, 0, &got);
    if (err)
        return chr_fail(r->msg, err, "log segment %s: cannot read: %s", name, chr_strerror(err));
    err = raft__header_decode(bytes, &file->header);
    if (err == CHR_EVERSION)
        return chr_fail(r->msg, err,
                        "log segment %s is of a newer format; use the program that wrote it", name);
    /* A recycled file still has the header of its former life: another id. */
    file->valid = err == CHR_OK && file->header.segment == file->id;
    return CHR_OK;
}

static chr_err corrupt_file(struct recovery *r, uint64_t id, const char *what)
{
    return chr_fail(r->msg, CHR_ECORRUPT, "log segment %020" PRIu64 ".seg offset 0: %s; " REMEDY,
                    id, what);
}

static chr_err find_files(struct recovery *r)
{
    const struct raft_io *io = r->log->io;
    chr_err err = io->list(io->ctx, note_file, r);
    if (r->nomem)
        err = CHR_ENOMEM;
    if (err)
        return chr_fail(r->msg, err, "log directory: cannot list: %s", chr_strerror(err));
    if (r->files.count == 0)
        return CHR_OK;
    qsort(r->files.items, r->files.count, sizeof *r->files.items, by_id);
    for (size_t i = 0; !err && i < r->files.count; i++)
        err = read_header(r, &r->files.items[i]);
    if (err)
        return err;

    /* The oldest file was durable, header and all, before it became the oldest. A file is there,
     * under its name, before anything is written to it or to the one after; so a gap is damage.
     * Other bad headers may be torn (a group can cross two borders): step 3 will tell. */
    if (!r->files.items[0].valid)
        return corrupt_file(r, r->files.items[0].id, "bad header of the oldest segment");
    for (size_t i = 0; i < r->files.count; i++) {
        struct found *file = &r->files.items[i];
        if (i && file->id != file[-1].id + 1)
            return corrupt_file(r, file[-1].id + 1, "segment is missing, but later ones exist");
        if (!file->valid)
            continue;
        if (file->header.incarnation != r->files.items[0].header.incarnation)
            return corrupt_file(r, file->id, "segment of another log");
        if (file->header.segment_bytes % 8 || file->header.segment_bytes < RAFT__PAGE_BYTES ||
            file->header.segment_bytes > RAFT__SEGMENT_BYTES_MAX)
            return corrupt_file(r, file->id, "header with an impossible size");
    }
    return CHR_OK;
}

/* ---- 2. the chain ---- */

static chr_err corrupt_at(struct recovery *r, uint64_t offset, const char *what)
{
    return chr_fail(r->msg, CHR_ECORRUPT,
                    "log segment %020" PRIu64 ".seg offset %" PRIu64 ": %s; " REMEDY,
                    r->files.items[r->at].id, offset, what);
}

/* A new struct raft__segment for files[at]; takes over its handle. */
static chr_err add_segment(struct recovery *r)
{
    raft_log *log = r->log;
    struct found *file = &r->files.items[r->at];
    struct raft__segment *segment = calloc(1, sizeof *segment);
    if (!segment || !RAFT__RESERVE(&log->segments, 1)) {
        free(segment);
        return CHR_ENOMEM;
    }
    *segment = (struct raft__segment){
        .id = file->id,
        .capacity = file->header.segment_bytes,
        .end = RAFT__HEADER_BYTES,
        .handle = file->handle,
        .seed = raft__seed(log->incarnation, file->id),
        .first_index = file->header.next_index,
        .base_term = file->header.last_term,
        .base_hlc = file->header.last_hlc,
    };
    file->handle = -1;
    log->segments.items[log->segments.count++] = segment;
    raft__reader_file(&r->reader, segment->handle, CHR_MIN(file->bytes, segment->capacity));
    r->last_group = file->header.group;
    log->tail.pos = raft__pos_of(file->id, RAFT__HEADER_BYTES);
    return CHR_OK;
}

/* Does the header of the file after the chain's end join on to it? */
static bool header_joins(const struct recovery *r)
{
    const struct raft__tail *tail = &r->log->tail;
    if (r->at + 1 >= r->files.count || !r->files.items[r->at + 1].valid)
        return false;
    const struct raft__header *next = &r->files.items[r->at + 1].header;
    return next->prev_end == tail->pos && next->prev_crc == tail->crc &&
           next->next_index == tail->last_index + 1 && next->last_term == tail->last_term &&
           next->last_hlc == tail->last_hlc && next->hard_state.term == tail->hard_state.term &&
           next->hard_state.vote == tail->hard_state.vote && next->group >= r->last_group &&
           next->group <= tail->pos;
}

/* Takes over one record that is valid and joins the chain. What it says must make sense: it was we
 * who wrote it. */
static chr_err take_record(struct recovery *r, const struct raft__record *record,
                           raft__pos group_max)
{
    raft_log *log = r->log;
    struct raft__tail *tail = &log->tail;
    struct raft__segment *segment = log->segments.items[log->segments.count - 1];
    uint64_t offset = raft__pos_offset(tail->pos);
    /* Of the same group, or the first of a group that began where the log ended: behind the record
     * before, or behind the header of a segment whose records were all torn off. */
    if (record->group != r->last_group && record->group != group_max && record->group != tail->pos)
        return corrupt_at(r, offset, "record with an impossible group number");
    bool fits;
    switch (record->type) {
    case RAFT__HARD_STATE:
        fits = record->body.len == 16 && record->index == tail->last_index;
        if (fits)
            tail->hard_state =
                (struct raft_hard_state){.term = chr_get_u64le(record->body.ptr),
                                         .vote = chr_get_u64le(record->body.ptr + 8)};
        break;
    case RAFT__TRUNCATE:
        fits = record->index <= tail->last_index && record->term <= tail->last_term &&
               record->hlc <= tail->last_hlc;
        if (!fits)
            break;
        if (!raft__index_truncate(log, record, tail->pos))
            return CHR_ENOMEM;
        raft__lower_first(log, record);
        break;
    case RAFT__WITNESS:
        fits = record->index == tail->last_index;
        break;
    default:
        if (!raft__is_entry(record->type))
            return chr_fail(r->msg, CHR_EVERSION,
                            "log segment %020" PRIu64 ".seg offset %" PRIu64
                            ": record type %u is of a newer program",
                            segment->id, offset, record->type);
        fits = record->index == tail->last_index + 1 && record->term >= tail->last_term &&
               record->hlc > tail->last_hlc; /* keeps L2 */
        if (fits && !raft__index_add(log, record, tail->pos))
            return CHR_ENOMEM;
    }
    if (!fits)
        return corrupt_at(r, offset, "record out of order");
    uint64_t space = raft__record_space(record->body.len);
    r->last_group = record->group;
    *tail = (struct raft__tail){.pos = tail->pos + space,
                                .crc = record->crc,
                                .last_index = record->index,
                                .last_term = record->term,
                                .last_hlc = record->hlc,
                                .hard_state = tail->hard_state,
                                .last_type = record->type};
    segment->end = offset + space;
    return CHR_OK;
}

static chr_err walk(struct recovery *r)
{
    raft_log *log = r->log;
    const struct raft__header *head = &r->files.items[0].header;
    log->incarnation = head->incarnation;
    log->tail = (struct raft__tail){.crc = head->prev_crc,
                                    .last_index = head->next_index - 1,
                                    .last_term = head->last_term,
                                    .last_hlc = head->last_hlc,
                                    .hard_state = head->hard_state};
    if (head->next_index == 0)
        return corrupt_file(r, r->files.items[0].id, "header with an impossible index");
    chr_err err = add_segment(r);
    raft__pos group_max = log->tail.pos; /* where the log ended: what a new group would be called */
    while (!err) {
        struct raft__segment *segment = log->segments.items[log->segments.count - 1];
        struct raft__record record;
        int got = raft__reader_record(&r->reader, segment->seed, raft__pos_offset(log->tail.pos),
                                      &record);
        if (got < 0)
            return chr_fail(r->msg, got, "log segment %020" PRIu64 ".seg: cannot read: %s",
                            segment->id, chr_strerror(got));
        if (got && record.prev_crc == log->tail.crc) {
            err = take_record(r, &record, group_max);
            group_max = log->tail.pos;
        } else if (header_joins(r)) {
            group_max = log->tail.pos;
            r->at++;
            err = add_segment(r);
        } else {
            break;
        }
    }
    if (err == CHR_ENOMEM)
        return chr_fail(r->msg, err, "log: out of memory");
    return err;
}

/* ---- 3. what is behind its end ---- */

/* Looks for valid records in [from, limit) of a file. *later: the offset of one with group > end
 * (0: none); *seen: the offset behind the last one that is not. */
static chr_err scan(struct recovery *r, int handle, uint64_t limit, uint32_t seed, uint64_t from,
                    raft__pos end, uint64_t *later, uint64_t *seen)
{
    *later = *seen = 0;
    raft__reader_file(&r->reader, handle, limit);
    uint64_t off = chr_round_up(from, 8);
    while (off + RAFT__RECORD_BYTES <= limit) {
        size_t len = (size_t)CHR_MIN((uint64_t)BLOCK_BYTES, limit - off);
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

static chr_err refuse(struct recovery *r, raft__pos end, uint64_t id, uint64_t offset)
{
    return chr_fail(r->msg, CHR_ECORRUPT,
                    "log segment %020" PRIu64 ".seg offset %" PRIu64
                    ": bad record, but a later group follows (%020" PRIu64 ".seg offset %" PRIu64
                    "); " REMEDY,
                    raft__pos_segment(end), raft__pos_offset(end), id, offset);
}

static chr_err look_behind(struct recovery *r)
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
        struct found *file = &r->files.items[i];
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
static chr_err rewrite(struct recovery *r, const struct raft__segment *segment, uint64_t from,
                       uint64_t to)
{
    const struct raft_io *io = r->log->io;
    while (from < to) {
        size_t len = (size_t)CHR_MIN(to - from, (uint64_t)BLOCK_BYTES), got;
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

static chr_err zero(struct recovery *r, const struct raft__segment *segment, uint64_t from,
                    uint64_t to)
{
    const struct raft_io *io = r->log->io;
    chr_buf_reset(&r->buf);
    chr_err err = chr_buf_reserve(&r->buf, BLOCK_BYTES);
    if (!err)
        memset(r->buf.ptr, 0, BLOCK_BYTES);
    while (!err && from < to) {
        size_t len = (size_t)CHR_MIN(to - from, (uint64_t)BLOCK_BYTES);
        err = io->pwrite(io->ctx, segment->handle, r->buf.ptr, len, from);
        from += len;
    }
    return err;
}

/* Files after the last segment: one that is empty and of the right size is the next segment, the
 * others go. */
static chr_err settle_files_after(struct recovery *r)
{
    raft_log *log = r->log;
    const struct raft_io *io = log->io;
    const struct raft__segment *last = log->segments.items[log->segments.count - 1];
    chr_err err = CHR_OK;
    for (size_t i = r->files.count; !err && i-- > r->at + 1;) {
        struct found *file = &r->files.items[i];
        if (file->id == last->id + 1 && r->evidence_bytes_after == 0 &&
            file->bytes == raft__next_capacity(log, last->capacity)) {
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

/* Spares of another size (the option changed) or too many go. */
static chr_err settle_spares(struct recovery *r)
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

static chr_err repair(struct recovery *r)
{
    raft_log *log = r->log;
    const struct raft_io *io = log->io;
    chr_err err = settle_files_after(r);
    if (!err)
        err = settle_spares(r);
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

/* ---- all of it ---- */

static chr_err create_log(struct recovery *r, uint64_t start_index)
{
    raft_log *log = r->log;
    if (log->options.read_only)
        return chr_fail(r->msg, CHR_ENOTFOUND, "no log here");
    log->incarnation = log->options.incarnation;
    while (log->incarnation == 0)
        chr_random_bytes(&log->incarnation, sizeof log->incarnation);
    raft__pos begin = raft__pos_of(1, RAFT__HEADER_BYTES);
    struct raft__header header = {
        .segment = 1,
        .incarnation = log->incarnation,
        .segment_bytes = log->options.first_segment_bytes,
        .next_index = start_index,
        .group = begin,
    };
    uint8_t head[RAFT__HEADER_BYTES];
    raft__header_encode(&header, head);
    if (!RAFT__RESERVE(&log->segments, 1))
        return chr_fail(r->msg, CHR_ENOMEM, "log: out of memory");
    struct raft__segment *segment;
    chr_err err = settle_spares(r);
    if (err)
        return chr_fail(r->msg, err, "log: cannot look at spare segments: %s", chr_strerror(err));
    err = raft__segment_create(log, 1, header.segment_bytes, head, sizeof head, &segment, r->msg);
    if (err)
        return err;
    segment->first_index = start_index;
    log->segments.items[log->segments.count++] = segment;
    log->tail = (struct raft__tail){.pos = begin, .last_index = start_index - 1};
    return CHR_OK;
}

static chr_err recover_log(struct recovery *r, uint64_t start_index)
{
    raft_log *log = r->log;
    chr_err err = walk(r);
    if (!err)
        err = look_behind(r);
    if (err)
        return err;
    uint64_t first = log->segments.items[0]->first_index;
    if (first > start_index)
        return chr_fail(r->msg, CHR_ECORRUPT,
                        "the log begins at entry %" PRIu64 " in segment %020" PRIu64
                        ".seg, but the checkpoint ends before %" PRIu64 "; " REMEDY,
                        first, log->segments.items[0]->id, start_index);
    if (log->tail.last_index + 1 < start_index)
        return chr_fail(r->msg, CHR_ECORRUPT,
                        "the log ends at entry %" PRIu64 " (segment %020" PRIu64
                        ".seg offset %" PRIu64 "), but the checkpoint holds %" PRIu64 "; " REMEDY,
                        log->tail.last_index, raft__pos_segment(log->tail.pos),
                        raft__pos_offset(log->tail.pos), start_index - 1);
    uint64_t cut = raft__pos_offset(log->tail.pos);
    r->out->torn_bytes =
        (r->evidence_end > cut ? r->evidence_end - cut : 0) + r->evidence_bytes_after;
    if (r->out->torn_bytes) {
        r->out->torn_segment = raft__pos_segment(log->tail.pos);
        r->out->torn_offset = cut;
        chr_log_warning("raft", log->options.read_only ? "torn tail" : "torn tail cut",
                        CHR_KV_U("segment", r->out->torn_segment), CHR_KV_U("offset", cut),
                        CHR_KV_U("bytes", r->out->torn_bytes),
                        CHR_KV_U("last_index", log->tail.last_index));
    }
    return log->options.read_only ? CHR_OK : repair(r);
}

chr_err raft__recover(raft_log *log, uint64_t start_index, struct raft_log_recovery *recovery,
                      struct chr_errmsg *msg)
{
    *recovery = (struct raft_log_recovery){0};
    struct recovery r = {.log = log, .out = recovery, .msg = msg};
    chr_buf_init(&r.buf, RAFT_ENTRY_BYTES_MAX + 2 * BLOCK_BYTES);
    r.reader =
        (struct raft__reader){.io = log->io, .buf = &r.buf, .handle = -1, .block = BLOCK_BYTES};
    chr_err err = find_files(&r);
    if (!err)
        err = r.files.count ? recover_log(&r, start_index) : create_log(&r, start_index);
    for (size_t i = 0; i < r.files.count; i++)
        if (r.files.items[i].handle >= 0)
            log->io->close(log->io->ctx, r.files.items[i].handle);
    free(r.files.items);
    chr_buf_free(&r.buf);
    if (err)
        return err;

    const struct raft__segment *last = log->segments.items[log->segments.count - 1];
    uint64_t bytes = 0;
    for (size_t i = 0; i < log->segments.count; i++)
        bytes += log->segments.items[i]->end;
    log->tail_capacity = last->capacity;
    log->tail_seed = last->seed;
    log->group = log->tail.pos;
    atomic_store(&log->first, log->segments.items[0]->first_index);
    atomic_store(&log->last, log->tail.last_index);
    atomic_store(&log->synced, log->tail.last_index);
    atomic_store(&log->durable, log->tail.last_index);
    atomic_store(&log->bytes, bytes);
    recovery->first_index = raft_log_first(log) <= log->tail.last_index ? raft_log_first(log) : 0;
    recovery->last_index = log->tail.last_index;
    recovery->last_term = log->tail.last_term;
    recovery->last_hlc = log->tail.last_hlc;
    recovery->hard_state = log->tail.hard_state;
    recovery->incarnation = log->incarnation;
    recovery->segments = log->segments.count;
    return CHR_OK;
}
