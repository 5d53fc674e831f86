/* db/snapshot_send.c: a checkpoint, pinned and cut into parts.
 *
 *   part      0    1 … spooled       … parts - 2                          parts - 1
 *             FIRST  small records,    chunks by id, their values by key,  LAST
 *                    from the spool    from the store
 *
 * Where a part of chunks begins follows from the sizes of the values before it, which never change.
 * They are looked at once, at begin, and the beginning of each place_every-th part is kept; to find
 * another one the sizes from there on are looked at again. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/random.h"
#include "db/checkpoint.h"
#include "db/durable_internal.h"
#include "db/snapshot_format.h"

/* The next value of the chunks: of chunks[chunk], the first key at or after (kind, column). */
struct place {
    uint32_t chunk;
    uint16_t column;
    uint8_t kind;
};

struct db_snapshot {
    struct db *d;
    int spool_fd;
    struct db_snapshot_info info;
    uint8_t members[DB_SNAPSHOT_MEMBERS_MAX];
    uint64_t *spooled; /* [spooled_count] where each body begins in the spool */
    size_t spooled_count, spooled_capacity;
    uint64_t spool_bytes;
    struct db__chunk **chunks; /* by id; a reference each */
    uint64_t *chunk_ids;       /* until they are pinned */
    uint32_t chunks_count, pinned_count, chunks_capacity;
    struct place *places; /* of part 1 + spooled_count + place_every × i */
    size_t places_count, places_capacity;
    uint64_t next_part; /* which begins at next; 0: not known */
    struct place next;
};

static chr_err grow(void **items, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count < *capacity)
        return CHR_OK;
    size_t more = *capacity ? *capacity * 2 : 64;
    void *p = realloc(*items, more * item_bytes);
    if (!p)
        return CHR_ENOMEM;
    *items = p;
    *capacity = more;
    return CHR_OK;
}

/* -- Small records ------------------------------------------------------------------------------*/

static chr_err spool_write(const struct db_snapshot *s, const uint8_t *bytes, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(s->spool_fd, bytes + done, len - done, (off_t)(s->spool_bytes + done));
        if (n < 0 && errno != EINTR)
            return chr_err_from_errno(errno);
        done += n > 0 ? (size_t)n : 0;
    }
    return CHR_OK;
}

/* Ends the body at hand, if there is one. */
static chr_err spool_flush(struct db_snapshot *s, struct chr_buf *body)
{
    if (body->len == 0)
        return CHR_OK;
    chr_err err =
        grow((void **)&s->spooled, &s->spooled_capacity, s->spooled_count + 1, sizeof *s->spooled);
    if (!err)
        err = spool_write(s, body->ptr, body->len);
    if (err)
        return err;
    s->spooled[s->spooled_count++] = s->spool_bytes;
    s->spool_bytes += body->len;
    chr_buf_reset(body);
    return CHR_OK;
}

static chr_err note_chunk(struct db_snapshot *s, chr_slice key)
{
    uint32_t table_id;
    uint64_t id = 0;
    size_t capacity = s->chunks_capacity;
    if (!db__store_key_parse_chunk(key, &table_id, &id))
        return CHR_ECORRUPT;
    chr_err err = grow((void **)&s->chunk_ids, &capacity, s->chunks_count, sizeof *s->chunk_ids);
    if (err)
        return err;
    s->chunks_capacity = (uint32_t)capacity;
    s->chunk_ids[s->chunks_count++] = id;
    return CHR_OK;
}

/* Written ahead by a checkpoint that is being made: not of this one. */
static bool is_later(const struct db_snapshot *s, chr_slice key)
{
    uint64_t id;
    return db__store_key_parse(key, DB__RECORD_MESSAGE, &id) &&
           id >> DB__MESSAGE_ID_SHIFT > s->info.index;
}

static chr_err copy_record(struct db_snapshot *s, chr_slice key, chr_slice value,
                           struct chr_buf *body, struct chr_errmsg *msg)
{
    if (is_later(s, key))
        return CHR_OK;
    chr_err err = db__snapshot_record_check(key, value, msg); /* keeps S3 */
    if (!err && key.ptr[0] == DB__RECORD_CHUNK)
        err = note_chunk(s, key);
    if (!err && !db__snapshot_fits(body->len, db__snapshot_record_bytes(key.len, value.len)))
        err = spool_flush(s, body);
    if (err)
        return err;
    db__snapshot_record_add(body, key, value);
    s->info.records++;
    s->info.bytes += key.len + value.len;
    return body->failed ? CHR_ENOMEM : CHR_OK;
}

/* Copies records of a kind behind the key `after` (none: all), which moves on; *more: there are
 * some. */
static chr_err copy_some(struct db_snapshot *s, enum db__record kind, struct db__store_key *after,
                         struct chr_buf *body, bool *more, struct chr_errmsg *msg)
{
    const struct db_kv *kv = &s->d->kv;
    struct db__store_key prefix = {.bytes = {(uint8_t)kind}, .len = 1};
    db_kv_txn *txn;
    db_kv_cursor *cursor;
    chr_slice key, value;
    size_t copied = 0;
    *more = false;
    chr_err err = kv->begin(kv->ctx, false, &txn);
    if (err)
        return err;
    err = kv->cursor_open(kv->ctx, txn, db__key_slice(&prefix), db__key_slice(after), &cursor);
    if (!err) {
        while (!(err = kv->cursor_next(kv->ctx, cursor, &key, &value))) {
            if (chr_slice_eq(key, db__key_slice(after)))
                continue;
            if (copied >= db__snapshot_limits.copy_bytes) {
                *more = true;
                break;
            }
            err = copy_record(s, key, value, body, msg);
            if (err)
                break;
            memcpy(after->bytes, key.ptr, key.len); /* of a known form: it fits */
            after->len = (uint8_t)key.len;
            copied += key.len + value.len;
        }
        kv->cursor_close(kv->ctx, cursor);
    }
    kv->abort(kv->ctx, txn);
    return err == CHR_ENOTFOUND ? CHR_OK : err;
}

static chr_err copy_all(struct db_snapshot *s, struct chr_errmsg *msg)
{
    static const enum db__record kinds[] = {
        DB__RECORD_MARKS,   DB__RECORD_CHUNK,        DB__RECORD_QUEUE,    DB__RECORD_META,
        DB__RECORD_MESSAGE, DB__RECORD_REQUEST,      DB__RECORD_RETAINED, DB__RECORD_SESSION,
        DB__RECORD_TABLE,   DB__RECORD_SUBSCRIPTION, DB__RECORD_WILL};
    struct chr_buf body;
    chr_buf_init(&body, DB_SNAPSHOT_PART_BYTES_MAX);
    chr_err err = CHR_OK;
    for (size_t i = 0; i < CHR_COUNT_OF(kinds) && !err; i++) {
        struct db__store_key after = {.len = 0};
        for (bool more = true; more && !err;)
            err = copy_some(s, kinds[i], &after, &body, &more, msg);
    }
    if (!err)
        err = spool_flush(s, &body);
    chr_buf_free(&body);
    return err;
}

static chr_err load_meta(struct db_snapshot *s, struct chr_errmsg *msg)
{
    const struct db_kv *kv = &s->d->kv;
    struct db__store_key key = db__store_key(DB__RECORD_META, 0);
    db_kv_txn *txn;
    chr_slice value;
    chr_err err = kv->begin(kv->ctx, false, &txn);
    if (err)
        return err;
    err = kv->get(kv->ctx, txn, db__key_slice(&key), &value);
    Chronos__Catalog__Meta *pb = NULL;
    if (err == CHR_ENOTFOUND)
        (void)chr_fail(msg, err, "there is no checkpoint yet");
    if (!err)
        pb = (Chronos__Catalog__Meta *)db__value_unpack(
            value, DB__RECORD_META, &chronos__catalog__meta__descriptor, &err, msg);
    if (pb) {
        s->info.index = pb->apply_index;
        s->info.hlc = pb->hlc;
        protobuf_c_message_free_unpacked(&pb->base, NULL);
    }
    kv->abort(kv->ctx, txn);
    return err;
}

/* -- Chunks -------------------------------------------------------------------------------------*/

static int u64_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void pin_list(struct db_snapshot *s, const struct db__chunk_list *list)
{
    for (uint32_t i = 0; list && i < list->count; i++) {
        struct db__chunk *chunk = list->chunks[i];
        const uint64_t *id =
            bsearch(&chunk->id, s->chunk_ids, s->chunks_count, sizeof *s->chunk_ids, u64_cmp);
        if (!id || s->chunks[id - s->chunk_ids])
            continue;
        db__chunk_retain(chunk);
        s->chunks[id - s->chunk_ids] = chunk;
        s->pinned_count++;
    }
}

/* The chunks that the store's manifest names, wherever memory has them: in tables, or in tables
 * dropped since. save_lock is held. */
static chr_err pin_chunks(struct db_snapshot *s, struct chr_errmsg *msg)
{
    struct db *d = s->d;
    const struct db__checkpoint *cp = d->checkpoint;
    s->chunks = calloc((size_t)s->chunks_count + 1, sizeof(struct db__chunk *));
    if (!s->chunks)
        return CHR_ENOMEM;
    if (s->chunks_count)
        qsort(s->chunk_ids, s->chunks_count, sizeof *s->chunk_ids, u64_cmp);
    pthread_mutex_lock(&d->apply_lock);
    for (size_t t = 0; t < d->tables_count; t++)
        pin_list(s, d->tables[t]->view->chunks);
    for (size_t t = 0; t < d->dropped_count; t++)
        pin_list(s, d->dropped[t]->view->chunks);
    for (size_t t = 0; t < cp->dropped_count; t++)
        pin_list(s, cp->dropped[t]->view->chunks);
    pthread_mutex_unlock(&d->apply_lock);
    free(s->chunk_ids);
    s->chunk_ids = NULL;
    return s->pinned_count == s->chunks_count
               ? CHR_OK
               : chr_fail(msg, CHR_ECORRUPT, "the store names %u chunks that no table has",
                          s->chunks_count - s->pinned_count);
}

/* One part's values from *at on, which moves behind them. out: their records are added; NULL: only
 * counted. */
static chr_err fill_part(struct db_snapshot *s, struct place *at, struct chr_buf *out,
                         struct chr_errmsg *msg)
{
    const struct db_kv *kv = &s->d->kv;
    db_kv_txn *txn;
    size_t used = 0;
    bool full = false;
    chr_err err = kv->begin(kv->ctx, false, &txn);
    if (err)
        return err;
    while (!full && !err && at->chunk < s->chunks_count) {
        uint64_t id = s->chunks[at->chunk]->id;
        struct db__store_key prefix = db__store_key(DB__RECORD_PART, id);
        struct db__store_key from = db__store_key_part(id, at->kind, at->column);
        bool any = at->kind != 0;
        db_kv_cursor *cursor;
        chr_slice key, value;
        err = kv->cursor_open(kv->ctx, txn, db__key_slice(&prefix), db__key_slice(&from), &cursor);
        if (err)
            break;
        while (!full && !(err = kv->cursor_next(kv->ctx, cursor, &key, &value))) {
            size_t bytes = db__snapshot_record_bytes(key.len, value.len);
            any = true;
            full = !db__snapshot_fits(used, bytes);
            if (full) {
                at->kind = key.ptr[9];
                at->column = chr_get_u16be(key.ptr + 10);
                break;
            }
            used += bytes;
            if (out) {
                if ((err = db__snapshot_record_check(key, value, msg))) /* keeps S3 */
                    break;
                db__snapshot_record_add(out, key, value);
            } else if (key.len != from.len) {
                err = chr_fail(msg, CHR_ECORRUPT, "a key of chunk %" PRIu64 " is damaged", id);
                break;
            } else {
                s->info.records++;
                s->info.bytes += key.len + value.len;
            }
        }
        kv->cursor_close(kv->ctx, cursor);
        if (err == CHR_ENOTFOUND) { /* this chunk is through */
            err =
                any ? CHR_OK
                    : chr_fail(msg, CHR_ECORRUPT, "the parts of chunk %" PRIu64 " are missing", id);
            *at = (struct place){.chunk = at->chunk + 1};
        }
    }
    kv->abort(kv->ctx, txn);
    if (!err && out && out->failed)
        err = CHR_ENOMEM;
    return err;
}

static chr_err lay_out_chunks(struct db_snapshot *s, struct chr_errmsg *msg)
{
    uint64_t parts = 0;
    chr_err err = CHR_OK;
    for (struct place at = {0}; at.chunk < s->chunks_count && !err; parts++) {
        if (parts % db__snapshot_limits.place_every == 0) {
            err =
                grow((void **)&s->places, &s->places_capacity, s->places_count, sizeof *s->places);
            if (err)
                break;
            s->places[s->places_count++] = at;
        }
        err = fill_part(s, &at, NULL, msg);
    }
    s->info.parts = 1 + s->spooled_count + parts + 1;
    return err;
}

/* -- Begin and end ------------------------------------------------------------------------------*/

static chr_err set_origin(struct db_snapshot *s, const struct db_snapshot_origin *origin)
{
    if (origin->members.len > sizeof s->members || origin->members_index > s->info.index)
        return CHR_EINVAL;
    s->info.origin = *origin;
    if (origin->members.len)
        memcpy(s->members, origin->members.ptr, origin->members.len);
    s->info.origin.members.ptr = s->members;
    return CHR_OK;
}

chr_err db_snapshot_begin(db *d, int spool_fd,
                          chr_err (*describe)(void *arg, uint64_t index,
                                              struct db_snapshot_origin *origin),
                          void *arg, db_snapshot **out, struct chr_errmsg *msg)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct chr_errmsg why = {{0}};
    *out = NULL;
    struct db_snapshot *s = calloc(1, sizeof *s);
    if (!s) {
        close(spool_fd);
        return chr_fail(msg, CHR_ENOMEM, "snapshot: out of memory");
    }
    s->d = d;
    s->spool_fd = spool_fd;
    chr_random_bytes(&s->info.id, sizeof s->info.id);
    atomic_fetch_add(&cp->snapshots, 1);

    pthread_mutex_lock(&cp->save_lock); /* keeps P3 */
    chr_err err = load_meta(s, &why);
    struct db_snapshot_origin origin = {0};
    if (!err)
        err = describe(arg, s->info.index, &origin);
    if (!err)
        err = set_origin(s, &origin);
    if (!err)
        err = copy_all(s, &why);
    if (!err)
        err = pin_chunks(s, &why);
    pthread_mutex_unlock(&cp->save_lock);

    if (!err)
        err = lay_out_chunks(s, &why);
    if (err) {
        db_snapshot_end(s);
        return chr_fail(msg, err, "snapshot: %s", why.text[0] ? why.text : chr_strerror(err));
    }
    *out = s;
    return CHR_OK;
}

void db_snapshot_end(db_snapshot *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; s->chunks && i < s->chunks_count; i++)
        db__chunk_release(s->chunks[i]);
    atomic_fetch_sub(&s->d->checkpoint->snapshots, 1);
    close(s->spool_fd);
    free(s->chunks);
    free(s->chunk_ids);
    free(s->spooled);
    free(s->places);
    free(s);
}

const struct db_snapshot_info *db_snapshot_info(const db_snapshot *s)
{
    return &s->info;
}

/* -- Parts --------------------------------------------------------------------------------------*/

static chr_err spool_read(const struct db_snapshot *s, size_t i, struct chr_buf *out)
{
    uint64_t from = s->spooled[i];
    uint64_t until = i + 1 < s->spooled_count ? s->spooled[i + 1] : s->spool_bytes;
    size_t len = (size_t)(until - from);
    chr_err err = chr_buf_reserve(out, len);
    for (size_t done = 0; done < len && !err;) {
        ssize_t n = pread(s->spool_fd, out->ptr + out->len, len - done, (off_t)(from + done));
        if (n == 0 || (n < 0 && errno != EINTR))
            err = CHR_EIO;
        else if (n > 0) {
            done += (size_t)n;
            out->len += (size_t)n;
        }
    }
    return err;
}

static chr_err chunk_part(struct db_snapshot *s, uint64_t number, struct chr_buf *out,
                          struct chr_errmsg *msg)
{
    chr_err err = CHR_OK;
    if (number != s->next_part) {
        uint64_t k = number - 1 - s->spooled_count;
        s->next = s->places[k / db__snapshot_limits.place_every];
        struct db_snapshot_info counted = s->info;
        for (uint64_t skip = k % db__snapshot_limits.place_every; skip && !err; skip--)
            err = fill_part(s, &s->next, NULL, msg);
        s->info = counted;
    }
    s->next_part = 0;
    if (!err)
        err = fill_part(s, &s->next, out, msg);
    if (!err)
        s->next_part = number + 1;
    return err;
}

chr_err db_snapshot_part(db_snapshot *s, uint64_t number, struct chr_buf *out,
                         struct chr_errmsg *msg)
{
    struct chr_errmsg why = {{0}};
    enum db__snapshot_kind kind = DB__SNAPSHOT_RECORDS;
    chr_err err = CHR_OK;
    if (number >= s->info.parts)
        return chr_fail(msg, CHR_EINVAL, "snapshot: it has no part %" PRIu64, number);
    if (number == 0) {
        db__snapshot_first_encode(&s->info, out);
        return out->failed ? CHR_ENOMEM : CHR_OK;
    }
    db__snapshot_part_begin(out);
    if (number == s->info.parts - 1)
        kind = DB__SNAPSHOT_LAST;
    else if (number <= s->spooled_count)
        err = spool_read(s, (size_t)number - 1, out);
    else
        err = chunk_part(s, number, out, &why);
    db__snapshot_part_end(out, kind, number, s->info.id);
    if (!err && out->failed)
        err = CHR_ENOMEM;
    return err ? chr_fail(msg, err, "snapshot: part %" PRIu64 ": %s", number,
                          why.text[0] ? why.text : chr_strerror(err))
               : CHR_OK;
}
