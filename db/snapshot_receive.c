/* db/snapshot_receive.c: parts of a snapshot into a store of its own.
 *
 * Records go where they belong at once, but for Meta, which makes a store a checkpoint: it waits,
 * with all else there is to know, in the record '~', which each commit renews (S4). The last commit
 * puts Meta in its place and takes '~' away. Records come in rising order, those of chunks behind
 * all others, so none can come twice.
 *
 * Value of '~': u64 next part, u64 records, u64 bytes, u32 lengths of part 0, of Meta's value and
 * of the last key; part 0, Meta's value, the last key. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/snapshot_format.h"
#include "db/store.h"
#include "db/value_crc.h"

#define FIRST_BYTES    (DB_SNAPSHOT_HEAD_BYTES + DB__SNAPSHOT_FIRST_BYTES + DB_SNAPSHOT_MEMBERS_MAX)
#define META_BYTES     16384u
#define PROGRESS_BYTES (24u + 12u)

/* What is known after some part; what was committed is kept beside it. */
struct progress {
    uint64_t next, records, bytes;
    struct db__store_key last;
    size_t meta_len; /* 0: Meta has not come */
};

struct db_snapshot_receiver {
    struct db_kv kv;
    bool stores; /* else parts go nowhere */
    bool finished;
    bool lost; /* a commit failed: what the store has is not known */
    struct progress now, committed;
    uint8_t first[FIRST_BYTES]; /* part 0 */
    size_t first_len;
    struct db_snapshot_info info; /* points into first */
    uint8_t meta[META_BYTES];     /* value of Meta */
    db_kv_txn *txn;               /* NULL: none */
    size_t txn_bytes;
};

static struct db__store_key progress_key(void)
{
    return (struct db__store_key){.bytes = {DB__RECORD_RECEIVING}, .len = 1};
}

/* -- What a store remembers ---------------------------------------------------------------------*/

static chr_err save_progress(struct db_snapshot_receiver *r)
{
    const struct db__store_key key = progress_key();
    struct chr_buf buf;
    chr_buf_init(&buf, DB_VALUE_HEAD_BYTES + PROGRESS_BYTES + FIRST_BYTES + META_BYTES +
                           sizeof r->now.last.bytes);
    db__value_begin(&buf);
    chr_buf_add_u64le(&buf, r->now.next);
    chr_buf_add_u64le(&buf, r->now.records);
    chr_buf_add_u64le(&buf, r->now.bytes);
    chr_buf_add_u32le(&buf, (uint32_t)r->first_len);
    chr_buf_add_u32le(&buf, (uint32_t)r->now.meta_len);
    chr_buf_add_u32le(&buf, r->now.last.len);
    chr_buf_add(&buf, r->first, r->first_len);
    chr_buf_add(&buf, r->meta, r->now.meta_len);
    chr_buf_add(&buf, r->now.last.bytes, r->now.last.len);
    db__value_end(&buf, DB__RECORD_RECEIVING);
    chr_err err = buf.failed
                      ? CHR_ENOMEM
                      : r->kv.put(r->kv.ctx, r->txn, db__key_slice(&key), chr_buf_slice(&buf));
    chr_buf_free(&buf);
    return err;
}

static chr_err load_progress(struct db_snapshot_receiver *r, chr_slice value,
                             struct chr_errmsg *msg)
{
    chr_slice body;
    chr_err err = db_value_open(value, DB__RECORD_RECEIVING, DB__RECORD_VERSION, true, &body, msg);
    if (err)
        return err;
    const uint8_t *p = body.ptr;
    bool good = body.len >= PROGRESS_BYTES;
    size_t first = good ? chr_get_u32le(p + 24) : 0, meta = good ? chr_get_u32le(p + 28) : 0,
           last = good ? chr_get_u32le(p + 32) : 0;
    if (!good || first > FIRST_BYTES || meta > META_BYTES || last > sizeof r->now.last.bytes ||
        body.len != PROGRESS_BYTES + first + meta + last)
        return chr_fail(msg, CHR_ECORRUPT, "the record of what was received is damaged");
    r->now = (struct progress){.next = chr_get_u64le(p),
                               .records = chr_get_u64le(p + 8),
                               .bytes = chr_get_u64le(p + 16),
                               .meta_len = meta};
    p += PROGRESS_BYTES;
    memcpy(r->first, p, first);
    memcpy(r->meta, p + first, meta);
    memcpy(r->now.last.bytes, p + first + meta, last);
    r->now.last.len = (uint8_t)last;
    r->first_len = first;
    r->committed = r->now;
    return db_snapshot_part_info(chr_slice_of(r->first, first), &r->info, msg);
}

static chr_err look(struct db_snapshot_receiver *r, struct chr_errmsg *msg)
{
    const struct db_kv *kv = &r->kv;
    const struct db__store_key key = progress_key();
    db_kv_txn *txn;
    db_kv_cursor *cursor;
    chr_slice any, value;
    chr_err err = kv->begin(kv->ctx, false, &txn);
    if (err)
        return err;
    err = kv->get(kv->ctx, txn, db__key_slice(&key), &value);
    if (!err) {
        err = load_progress(r, value, msg);
    } else if (err == CHR_ENOTFOUND) {
        err = kv->cursor_open(kv->ctx, txn, (chr_slice){0}, CHR_LIT("\0"), &cursor);
        if (!err) {
            err = kv->cursor_next(kv->ctx, cursor, &any, &value);
            kv->cursor_close(kv->ctx, cursor);
            err = err == CHR_ENOTFOUND ? CHR_OK
                  : err                ? err
                        : chr_fail(msg, CHR_EEXIST, "the store holds something else already");
        }
    }
    kv->abort(kv->ctx, txn);
    return err;
}

chr_err db_snapshot_receiver_begin(const struct db_kv *kv, db_snapshot_receiver **out,
                                   struct chr_errmsg *msg)
{
    *out = NULL;
    struct db_snapshot_receiver *r = calloc(1, sizeof *r);
    if (!r)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    chr_err err = CHR_OK;
    if (kv) {
        r->kv = *kv;
        r->stores = true;
        err = look(r, msg);
    }
    if (err) {
        free(r);
        return err;
    }
    *out = r;
    return CHR_OK;
}

/* Back to the last commit. */
static void roll_back(struct db_snapshot_receiver *r)
{
    if (r->txn)
        r->kv.abort(r->kv.ctx, r->txn);
    r->txn = NULL;
    r->txn_bytes = 0;
    r->now = r->committed;
}

void db_snapshot_receiver_end(db_snapshot_receiver *r)
{
    if (!r)
        return;
    roll_back(r);
    free(r);
}

uint64_t db_snapshot_receiver_next(const db_snapshot_receiver *r)
{
    return r->now.next;
}

const struct db_snapshot_info *db_snapshot_receiver_info(const db_snapshot_receiver *r)
{
    return r->now.next ? &r->info : NULL;
}

chr_slice db_snapshot_receiver_first(const db_snapshot_receiver *r)
{
    return chr_slice_of(r->first, r->now.next ? r->first_len : 0);
}

/* -- Parts --------------------------------------------------------------------------------------*/

static bool comes_after(chr_slice key, const struct db__store_key *last)
{
    bool chunk = key.ptr[0] == DB__RECORD_PART;
    bool last_chunk = last->len && last->bytes[0] == DB__RECORD_PART;
    return chunk != last_chunk ? chunk : chr_slice_cmp(key, db__key_slice(last)) > 0;
}

/* Looks at all of it before anything is written; *to: progress behind it; *meta: where Meta's value
 * is, if it is here. */
static chr_err check_records(chr_slice body, struct progress *to, chr_slice *meta,
                             struct chr_errmsg *msg)
{
    size_t at = 0;
    chr_slice key, value;
    int more;
    while ((more = db__snapshot_record_next(body, &at, &key, &value)) > 0) {
        chr_err err = db__snapshot_record_check(key, value, msg);
        if (err)
            return err;
        if (!comes_after(key, &to->last))
            return chr_fail(msg, CHR_EMALFORMED, "a record out of order");
        if (key.ptr[0] == DB__RECORD_META) {
            if (value.len > META_BYTES)
                return chr_fail(msg, CHR_EMALFORMED, "a record of %zu bytes where Meta should be",
                                value.len);
            *meta = value;
            to->meta_len = value.len;
        }
        memcpy(to->last.bytes, key.ptr, key.len); /* of a known form: it fits */
        to->last.len = (uint8_t)key.len;
        to->records++;
        to->bytes += key.len + value.len;
    }
    return more ? chr_fail(msg, CHR_EMALFORMED, "its records do not fill it") : CHR_OK;
}

static chr_err store_records(struct db_snapshot_receiver *r, chr_slice body)
{
    size_t at = 0;
    chr_slice key, value;
    chr_err err = CHR_OK;
    if (!r->txn)
        err = r->kv.begin(r->kv.ctx, true, &r->txn);
    while (!err && db__snapshot_record_next(body, &at, &key, &value) > 0)
        if (key.ptr[0] != DB__RECORD_META)
            err = r->kv.put(r->kv.ctx, r->txn, key, value);
    r->txn_bytes += body.len;
    return err;
}

static chr_err commit(struct db_snapshot_receiver *r)
{
    chr_err err = save_progress(r);
    if (err)
        return err;
    db_kv_txn *txn = r->txn;
    r->txn = NULL;
    r->txn_bytes = 0;
    err = r->kv.commit(r->kv.ctx, txn);
    r->lost = err == CHR_EIO || err == CHR_EDOUBT;
    if (!err)
        r->committed = r->now;
    return err;
}

static chr_err put_first(struct db_snapshot_receiver *r, chr_slice bytes, struct chr_errmsg *msg)
{
    struct db_snapshot_info info;
    chr_err err = db_snapshot_part_info(bytes, &info, msg);
    if (err)
        return err;
    CHR_ASSERT(bytes.len <= sizeof r->first);
    memcpy(r->first, bytes.ptr, bytes.len);
    r->first_len = bytes.len;
    return db_snapshot_part_info(chr_slice_of(r->first, r->first_len), &r->info, msg);
}

static chr_err put_records(struct db_snapshot_receiver *r, const struct db__snapshot_part *part,
                           struct chr_errmsg *msg)
{
    struct progress to = r->now;
    chr_slice meta = {0};
    chr_err err = check_records(part->body, &to, &meta, msg);
    if (!err && (to.records > r->info.records || to.bytes > r->info.bytes))
        err = chr_fail(msg, CHR_EMALFORMED, "more records than the first part says");
    if (err)
        return err;
    if (r->stores && (err = store_records(r, part->body)))
        return err;
    if (meta.len)
        memcpy(r->meta, meta.ptr, meta.len);
    to.next++;
    r->now = to;
    return r->stores && r->txn_bytes >= db__snapshot_limits.commit_bytes ? commit(r) : CHR_OK;
}

static chr_err take(struct db_snapshot_receiver *r, chr_slice bytes,
                    const struct db__snapshot_part *part, struct chr_errmsg *msg)
{
    bool last = r->now.next && part->number == r->info.parts - 1;
    if (part->number == 0) {
        chr_err err = put_first(r, bytes, msg);
        if (!err)
            r->now.next = 1;
        return err;
    }
    if (last != (part->kind == DB__SNAPSHOT_LAST) || (last && part->body.len))
        return chr_fail(msg, CHR_EMALFORMED, "of kind %u", part->kind);
    if (!last)
        return put_records(r, part, msg);
    if (r->now.records != r->info.records || r->now.bytes != r->info.bytes || !r->now.meta_len)
        return chr_fail(msg, CHR_EMALFORMED,
                        "%" PRIu64 " records of %" PRIu64 " bytes came, not %" PRIu64 " of %" PRIu64
                        " as the first part says",
                        r->now.records, r->now.bytes, r->info.records, r->info.bytes);
    r->now.next++;
    return CHR_OK;
}

chr_err db_snapshot_receiver_put(db_snapshot_receiver *r, chr_slice bytes, struct chr_errmsg *msg)
{
    struct db__snapshot_part part;
    struct chr_errmsg why = {{0}};
    if (r->lost)
        return chr_fail(msg, CHR_EDOUBT, "a part could not be stored; begin anew");
    chr_err err = db__snapshot_part_open(bytes, &part, msg);
    if (err)
        return err;
    if (r->now.next && part.id != r->info.id)
        return chr_fail(msg, CHR_EFOREIGN, "part %" PRIu64 " is of another snapshot", part.number);
    if (part.number < r->now.next)
        return chr_fail(msg, CHR_EEXIST, "part %" PRIu64 " has come before", part.number);
    if (part.number > r->now.next)
        return chr_fail(msg, CHR_ENOTFOUND, "part %" PRIu64 " comes before part %" PRIu64,
                        part.number, r->now.next);
    err = take(r, bytes, &part, &why);
    if (!err)
        return CHR_OK;
    bool foreign = err == CHR_EMALFORMED || err == CHR_ECORRUPT || err == CHR_EVERSION;
    if (!foreign) /* the transaction can only be aborted, and what it held is asked for again */
        roll_back(r);
    return chr_fail(msg, err, "part %" PRIu64 ": %s", part.number,
                    why.text[0] ? why.text : chr_strerror(err));
}

/* -- The end ------------------------------------------------------------------------------------*/

/* Meta says of when it is: it must be what the first part said. */
static chr_err check_meta(const struct db_snapshot_receiver *r, struct chr_errmsg *msg)
{
    chr_err err;
    Chronos__Catalog__Meta *pb = (Chronos__Catalog__Meta *)db__value_unpack(
        chr_slice_of(r->meta, r->now.meta_len), DB__RECORD_META,
        &chronos__catalog__meta__descriptor, &err, msg);
    if (!pb)
        return err == CHR_ECORRUPT ? CHR_EMALFORMED : err;
    if (pb->format_version > DB__STORE_VERSION)
        err = chr_fail(msg, CHR_EVERSION, "its records have format version %u, known is %u",
                       pb->format_version, DB__STORE_VERSION);
    else if (pb->apply_index != r->info.index || pb->hlc != r->info.hlc)
        err = chr_fail(msg, CHR_EMALFORMED,
                       "it ends with entry %" PRIu64 ", but its first part says %" PRIu64,
                       pb->apply_index, r->info.index);
    protobuf_c_message_free_unpacked(&pb->base, NULL);
    return err;
}

chr_err db_snapshot_receiver_finish(db_snapshot_receiver *r, struct chr_errmsg *msg)
{
    if (r->finished)
        return CHR_OK;
    if (r->lost)
        return chr_fail(msg, CHR_EDOUBT, "a part could not be stored; begin anew");
    if (r->now.next == 0 || r->now.next != r->info.parts)
        return chr_fail(msg, CHR_ENOTFOUND, "part %" PRIu64 " is missing", r->now.next);
    chr_err err = check_meta(r, msg);
    if (err)
        return err;
    if (r->stores) {
        const struct db__store_key meta = db__store_key(DB__RECORD_META, 0), key = progress_key();
        if (!r->txn)
            err = r->kv.begin(r->kv.ctx, true, &r->txn);
        if (!err)
            err = r->kv.put(r->kv.ctx, r->txn, db__key_slice(&meta),
                            chr_slice_of(r->meta, r->now.meta_len));
        if (!err)
            err = r->kv.del(r->kv.ctx, r->txn, db__key_slice(&key));
        if (!err) {
            db_kv_txn *txn = r->txn;
            r->txn = NULL;
            err = r->kv.commit(r->kv.ctx, txn);
            r->lost = err == CHR_EIO || err == CHR_EDOUBT;
        }
        if (err) {
            roll_back(r);
            return chr_fail(msg, err, "the last part: %s", chr_strerror(err));
        }
    }
    r->finished = true;
    return CHR_OK;
}
