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
#include "raft/log_recover.h"

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
    struct raft__recovery *r = arg;
    uint64_t number;
    if (strcmp(name, RAFT__PREPARE_NAME) == 0) {
        r->prepare_left = true;
    } else if (parse_number(name, ".seg", &number)) {
        if (!CHR_ARRAY_RESERVE(&r->files, 1))
            r->nomem = true;
        else
            r->files.items[r->files.count++] = (struct raft__found){.id = number, .handle = -1};
    } else if (strncmp(name, "spare-", 6) == 0 && parse_number(name + 6, ".seg", &number)) {
        if (!CHR_ARRAY_RESERVE(&r->log->spares, 1))
            r->nomem = true;
        else
            r->log->spares.items[r->log->spares.count++] = number;
    }
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct raft__found *)a)->id, y = ((const struct raft__found *)b)->id;
    return (x > y) - (x < y);
}

static chr_err read_header(struct raft__recovery *r, struct raft__found *file)
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

static chr_err corrupt_file(struct raft__recovery *r, uint64_t id, const char *what)
{
    return chr_fail(r->msg, CHR_ECORRUPT,
                    "log segment %020" PRIu64 ".seg offset 0: %s; " RAFT__REMEDY, id, what);
}

static chr_err find_files(struct raft__recovery *r)
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
        struct raft__found *file = &r->files.items[i];
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

static chr_err corrupt_at(struct raft__recovery *r, uint64_t offset, const char *what)
{
    return chr_fail(r->msg, CHR_ECORRUPT,
                    "log segment %020" PRIu64 ".seg offset %" PRIu64 ": %s; " RAFT__REMEDY,
                    r->files.items[r->at].id, offset, what);
}

/* A new struct raft__segment for files[at]; takes over its handle. */
static chr_err add_segment(struct raft__recovery *r)
{
    raft_log *log = r->log;
    struct raft__found *file = &r->files.items[r->at];
    struct raft__segment *segment = calloc(1, sizeof *segment);
    if (!segment || !CHR_ARRAY_RESERVE(&log->segments, 1)) {
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
static bool header_joins(const struct raft__recovery *r)
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
static chr_err take_record(struct raft__recovery *r, const struct raft__record *record,
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

static chr_err walk(struct raft__recovery *r)
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

/* ---- all of it ---- */

static chr_err create_log(struct raft__recovery *r, uint64_t start_index)
{
    raft_log *log = r->log;
    const struct raft_log_base *base = &log->options.base;
    if (log->options.read_only)
        return chr_fail(r->msg, CHR_ENOTFOUND, "no log here");
    if (base->term > base->hard_state.term || (start_index <= 1 && base->term))
        return chr_fail(r->msg, CHR_EINVAL,
                        "log: nothing of term %" PRIu64 " can come before entry %" PRIu64
                        " where the present term is %" PRIu64,
                        base->term, start_index, base->hard_state.term);
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
        .last_term = base->term,
        .last_hlc = base->hlc,
        .hard_state = base->hard_state,
    };
    uint8_t head[RAFT__HEADER_BYTES];
    raft__header_encode(&header, head);
    if (!CHR_ARRAY_RESERVE(&log->segments, 1))
        return chr_fail(r->msg, CHR_ENOMEM, "log: out of memory");
    struct raft__segment *segment;
    chr_err err = raft__settle_spares(r);
    if (err)
        return chr_fail(r->msg, err, "log: cannot look at spare segments: %s", chr_strerror(err));
    err = raft__segment_create(log, 1, header.segment_bytes, head, sizeof head, &segment, r->msg);
    if (err)
        return err;
    segment->first_index = start_index;
    segment->base_term = base->term;
    segment->base_hlc = base->hlc;
    log->segments.items[log->segments.count++] = segment;
    log->tail = (struct raft__tail){.pos = begin,
                                    .last_index = start_index - 1,
                                    .last_term = base->term,
                                    .last_hlc = base->hlc,
                                    .hard_state = base->hard_state};
    return CHR_OK;
}

static chr_err recover_log(struct raft__recovery *r, uint64_t start_index)
{
    raft_log *log = r->log;
    chr_err err = walk(r);
    if (!err)
        err = raft__look_behind(r);
    if (err)
        return err;
    uint64_t first = log->segments.items[0]->first_index;
    bool anywhere = start_index == 0;
    if (!anywhere && first > start_index)
        return chr_fail(r->msg, CHR_ECORRUPT,
                        "the log begins at entry %" PRIu64 " in segment %020" PRIu64
                        ".seg, but the checkpoint ends before %" PRIu64 "; " RAFT__REMEDY,
                        first, log->segments.items[0]->id, start_index);
    if (log->tail.last_index + 1 < start_index)
        return chr_fail(r->msg, CHR_ECORRUPT,
                        "the log ends at entry %" PRIu64 " (segment %020" PRIu64
                        ".seg offset %" PRIu64 "), but the checkpoint holds %" PRIu64
                        "; " RAFT__REMEDY,
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
    return log->options.read_only ? CHR_OK : raft__repair(r);
}

chr_err raft__recover(raft_log *log, uint64_t start_index, struct raft_log_recovery *recovery,
                      struct chr_errmsg *msg)
{
    *recovery = (struct raft_log_recovery){0};
    struct raft__recovery r = {.log = log, .out = recovery, .msg = msg};
    chr_buf_init(&r.buf, RAFT_ENTRY_BYTES_MAX + 2 * RAFT__BLOCK_BYTES);
    r.reader = (struct raft__reader){
        .io = log->io, .buf = &r.buf, .handle = -1, .block = RAFT__BLOCK_BYTES};
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
