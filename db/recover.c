/* db/recover.c: from the store back into memory: Meta, definitions, manifest, marks, sessions and
 * request keys; rows stay where they are. What is no record of a known kind, or does not fit the
 * others, is damage, and the message names it. */
#include "db/recover.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "db/checkpoint.h"
#include "db/durable_save.h"
#include "db/series_key.h"
#include "db/value_crc.h"

struct recovery {
    struct db *d;
    db_kv_txn *txn;
    struct chr_errmsg *msg;
    struct db__chunk **chunks; /* in order of table, then id */
    uint32_t count, capacity;
};

static chr_err damaged(struct recovery *r, const char *what, uint64_t number)
{
    return chr_fail(r->msg, CHR_ECORRUPT, "store: %s %llu is damaged", what,
                    (unsigned long long)number);
}

/* -- Definitions --------------------------------------------------------------------------------*/

static chr_err load_table(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    struct db *d = r->d;
    uint64_t id;
    chr_slice body;
    struct db_table_def *def;
    if (!db__store_key_parse(key, DB__RECORD_TABLE, &id))
        return damaged(r, "a table's key", 0);
    chr_err err = db_value_open(value, DB__RECORD_TABLE, DB__RECORD_VERSION, true, &body, r->msg);
    if (!err)
        err = db_table_def_decode(body, &def, r->msg);
    if (err == CHR_ENOMEM || err == CHR_EVERSION)
        return err;
    if (err)
        return damaged(r, "table", id);
    if (def->id != id || db_catalog_find(d->catalog, chr_slice_cstr(def->name))) {
        db_table_def_free(def);
        return damaged(r, "table", id);
    }
    db_catalog *next = db__catalog_with(d->catalog, def, db_catalog_version(d->catalog),
                                        db_catalog_mapping_version(d->catalog));
    if (!next)
        return CHR_ENOMEM;
    db_catalog_release(d->catalog);
    d->catalog = next;
    return CHR_OK;
}

/* -- Manifest -----------------------------------------------------------------------------------*/

static bool copy_bytes(ProtobufCBinaryData from, chr_slice *to)
{
    uint8_t *p = from.len <= DB__SERIES_CUT ? malloc(from.len + 1) : NULL;
    if (!p)
        return false;
    if (from.len)
        memcpy(p, from.data, from.len);
    *to = chr_slice_of(p, from.len);
    return true;
}

static struct db__chunk *chunk_of(const Chronos__Catalog__ChunkRecord *pb, uint32_t table_id,
                                  uint64_t id)
{
    struct db__chunk *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->refs = 1;
    c->id = id;
    c->table_id = table_id;
    c->rows = pb->rows;
    c->tail = pb->tail;
    c->null_times = pb->null_times;
    c->min_entry = pb->min_entry;
    c->max_entry = pb->max_entry;
    c->min_time_us = pb->min_time_us;
    c->max_time_us = pb->max_time_us;
    c->bytes = pb->bytes;
    db__marks_init(&c->marks, pb->rows);
    if (!copy_bytes(pb->min_series, &c->min_series) ||
        !copy_bytes(pb->max_series, &c->max_series)) {
        db__chunk_release(c);
        return NULL;
    }
    return c;
}

static chr_err load_marks(struct recovery *r, struct db__chunk *chunk)
{
    const struct db_kv *kv = &r->d->kv;
    struct db__store_key key = db__store_key(DB__RECORD_MARKS, chunk->id);
    chr_slice value, body;
    chr_err err = kv->get(kv->ctx, r->txn, db__key_slice(&key), &value);
    if (err)
        return err == CHR_ENOTFOUND ? CHR_OK : err;
    err = db_value_open(value, DB__RECORD_MARKS, DB__RECORD_VERSION, true, &body, r->msg);
    if (err == CHR_EVERSION)
        return err;
    if (err || !db__marks_load(&chunk->marks, body.ptr, body.len))
        return damaged(r, "marks of chunk", chunk->id);
    chunk->marks_saved = chunk->marks.count;
    return CHR_OK;
}

static chr_err load_chunk(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    uint32_t table_id;
    uint64_t id;
    chr_err err;
    if (!db__store_key_parse_chunk(key, &table_id, &id))
        return damaged(r, "a chunk's key", 0);
    Chronos__Catalog__ChunkRecord *pb = (Chronos__Catalog__ChunkRecord *)db__value_unpack(
        value, DB__RECORD_CHUNK, &chronos__catalog__chunk_record__descriptor, &err, r->msg);
    if (!pb)
        return err == CHR_ECORRUPT ? damaged(r, "record of chunk", id) : err;
    struct db__chunk *chunk = NULL;
    if (pb->rows == 0 || pb->rows > DB_CHUNK_ROWS_MAX || pb->min_entry > pb->max_entry ||
        pb->min_series.len > DB__SERIES_CUT || pb->max_series.len > DB__SERIES_CUT ||
        id >= r->d->checkpoint->next_chunk_id || !db_catalog_find_id(r->d->catalog, table_id))
        err = damaged(r, "record of chunk", id);
    else if (!(chunk = chunk_of(pb, table_id, id)))
        err = CHR_ENOMEM;
    protobuf_c_message_free_unpacked(&pb->base, NULL);
    if (err)
        return err;
    DB__RESERVE(r->chunks, r->count, r->capacity);
    r->chunks[r->count++] = chunk;
    return load_marks(r, chunk);
}

static void open_tables(struct recovery *r)
{
    struct db *d = r->d;
    for (size_t i = 0; i < db_catalog_tables_count(d->catalog); i++) {
        const struct db_table_def *def = db_catalog_table_at(d->catalog, i);
        uint32_t from = 0, to;
        while (from < r->count && r->chunks[from]->table_id != def->id)
            from++;
        for (to = from; to < r->count && r->chunks[to]->table_id == def->id;)
            to++;
        struct db__chunk_list *chunks =
            from < to ? db__chunk_list_new(r->chunks + from, to - from) : NULL;
        struct db__table *table = db__table_new(def, chunks);
        db__table_insert(d, table);
        db__chunk_list_release(chunks);
    }
}

/* -- Sessions and request keys ------------------------------------------------------------------*/

static chr_err load_session(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    uint64_t epoch;
    chr_err err;
    if (!db__store_key_parse(key, DB__RECORD_SESSION, &epoch))
        return damaged(r, "a session's key", 0);
    Chronos__Catalog__Session *pb = (Chronos__Catalog__Session *)db__value_unpack(
        value, DB__RECORD_SESSION, &chronos__catalog__session__descriptor, &err, r->msg);
    if (!pb)
        return err == CHR_ECORRUPT ? damaged(r, "session", epoch) : err;
    struct db__session *s =
        db__session_new(chr_slice_of(pb->client_id.data, pb->client_id.len), pb->epoch);
    if (pb->owned)
        db__session_set_owner(s, chr_slice_of(pb->owner.data, pb->owner.len));
    s->queue_messages_max = pb->queue_messages_max;
    s->window = pb->window;
    s->queue_bytes_max = pb->queue_bytes_max;
    s->queues_bytes_max = pb->queues_bytes_max;
    s->drop_oldest = pb->drop_oldest;
    s->next_sequence = pb->next_sequence ? pb->next_sequence : 1;
    s->sent = pb->sent;
    s->dropped = pb->dropped;
    s->messages_expired = pb->messages_expired;
    s->next_subscription = pb->next_subscription ? pb->next_subscription : 1;
    s->generation = pb->generation;
    s->expiry_s = pb->expiry_s;
    s->connected = pb->connected;
    s->node = pb->node;
    s->boot = pb->boot;
    s->expires_us = pb->expires_us;
    bool good = pb->epoch == epoch && pb->guards.len % 2 == 0 &&
                !db__session_find(&r->d->sessions, s->client_id);
    for (size_t i = 0; i + 2 <= pb->guards.len && good; i += 2)
        good = db__guard_add(s, chr_get_u16le(pb->guards.data + i));
    db__session_load(&r->d->sessions, s); /* owned there even if it is bad */
    r->d->durable.stats.connected += s->connected;
    if (pb->sweeps)
        db__due_set(&r->d->durable.dues, &s->sweep, pb->sweep_us);
    protobuf_c_message_free_unpacked(&pb->base, NULL);
    return good ? CHR_OK : damaged(r, "session", epoch);
}

static chr_err load_request(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    struct db__request_keys *ks = &r->d->requests;
    uint64_t sequence;
    chr_err err;
    if (!db__store_key_parse(key, DB__RECORD_REQUEST, &sequence) || sequence != ks->next)
        return damaged(r, "request key", ks->next);
    Chronos__Catalog__RequestKey *pb = (Chronos__Catalog__RequestKey *)db__value_unpack(
        value, DB__RECORD_REQUEST, &chronos__catalog__request_key__descriptor, &err, r->msg);
    if (!pb)
        return err == CHR_ECORRUPT ? damaged(r, "request key", sequence) : err;
    db__request_key_load(ks, chr_slice_of(pb->user.data, pb->user.len),
                         chr_slice_of(pb->key.data, pb->key.len), pb->time_us);
    protobuf_c_message_free_unpacked(&pb->base, NULL);
    return CHR_OK;
}

/* -- Rejects: counted from their table ----------------------------------------------------------*/

static chr_err load_rejects(struct db *d, struct chr_errmsg *msg)
{
    const struct db_table_def *def = db_catalog_find_id(d->catalog, DB__TABLE_ID_REJECTS);
    static const uint16_t columns[] = {DB__REJECT_TABLE, DB__REJECT_TOPIC, DB__REJECT_PAYLOAD,
                                       DB__REJECT_REASON};
    db_read *read = NULL;
    db_scan *scan = NULL;
    db_reader *reader = NULL;
    struct db_row_id *ids = malloc(DB_VECTOR_ROWS * sizeof *ids);
    chr_err err = ids ? db_read_begin(d, &read) : CHR_ENOMEM;
    if (!err)
        err = db_scan_open(read, def, columns, CHR_COUNT_OF(columns), NULL, 0, &scan);
    if (!err)
        err = db_reader_open(scan, &reader);
    struct db_morsel morsel;
    struct db_batch batch;
    int more = err;
    while (more >= 0 && !err && (more = db_reader_next_morsel(reader, &morsel, msg)) > 0) {
        while (!err && (more = db_reader_next_batch(reader, &batch, msg)) > 0) {
            struct db_vector *v[4];
            for (uint32_t c = 0; c < 4 && !err; c++)
                v[c] = db_reader_column(reader, c, &err, msg);
            if (!err)
                err = db_reader_row_ids(reader, ids, msg);
            for (uint32_t i = 0; i < batch.sel_count && !err; i++) {
                uint32_t row = batch.sel ? batch.sel[i] : i;
                size_t len[4];
                for (uint32_t c = 0; c < 4; c++)
                    len[c] = v[c]->str[db_vector_at(v[c], row)].len;
                db__reject_load(&d->rejects, v[0]->str[db_vector_at(v[0], row)], ids[row],
                                db__reject_bytes(len[1], len[2], len[3]));
            }
        }
        if (more < 0)
            err = more;
    }
    if (more < 0 && !err)
        err = more;
    db_reader_close(reader);
    db_scan_close(scan);
    db_read_end(read);
    free(ids);
    db__rejects_loaded(&d->rejects);
    return err;
}

/* -- All of it ----------------------------------------------------------------------------------*/

static chr_err load_meta(struct recovery *r, uint64_t *index, chr_hlc *hlc)
{
    struct db *d = r->d;
    struct db__checkpoint *cp = d->checkpoint;
    struct db__store_key key = db__store_key(DB__RECORD_META, 0);
    chr_slice value;
    chr_err err = d->kv.get(d->kv.ctx, r->txn, db__key_slice(&key), &value);
    if (err)
        return err;
    Chronos__Catalog__Meta *pb = (Chronos__Catalog__Meta *)db__value_unpack(
        value, DB__RECORD_META, &chronos__catalog__meta__descriptor, &err, r->msg);
    if (!pb)
        return err;
    if (pb->format_version == 0 || pb->format_version > DB__STORE_VERSION)
        err = chr_fail(r->msg, CHR_EVERSION, "store has format version %u, known is %u",
                       pb->format_version, DB__STORE_VERSION);
    else if (pb->request_next < pb->request_first || pb->next_table_id < DB__TABLE_ID_FIRST)
        err = damaged(r, "meta", 0);
    *index = pb->apply_index;
    *hlc = pb->hlc;
    cp->next_chunk_id = pb->next_chunk_id;
    cp->saved = true;
    cp->catalog_version_saved = pb->catalog_version;
    cp->request_first = cp->request_first_saved = pb->request_first;
    cp->request_next = pb->request_next;
    d->requests.first = d->requests.next = pb->request_first;
    if (pb->n_origins > DB__ORIGINS_MAX)
        err = damaged(r, "meta", 0);
    for (size_t i = 0; i < pb->n_origins && !err; i++) {
        const Chronos__Catalog__Origin *o = pb->origins[i];
        d->origins.items[i] = (struct db_origin){o->node, o->boot, o->sequence};
        d->origins.applied[i] = o->applied;
        d->origins.count++;
    }
    d->next_table_id = pb->next_table_id;
    atomic_store_explicit(&d->counts.rows_applied, pb->rows_applied, memory_order_relaxed);
    atomic_store_explicit(&d->counts.rows_deleted, pb->rows_deleted, memory_order_relaxed);
    if (!err && !(d->catalog = db__catalog_new(pb->catalog_version, pb->mapping_version)))
        err = CHR_ENOMEM;
    protobuf_c_message_free_unpacked(&pb->base, NULL);
    return err;
}

static chr_err load_all(struct recovery *r, uint64_t *index, chr_hlc *hlc)
{
    struct db *d = r->d;
    chr_err err = load_meta(r, index, hlc);
    if (err == CHR_ENOTFOUND) { /* an empty store */
        d->catalog = db__catalog_builtin();
        return d->catalog ? CHR_OK : CHR_ENOMEM;
    }
    if (!err)
        err = db__store_each(&r->d->kv, r->txn, DB__RECORD_TABLE, load_table, r);
    if (!err)
        err = db__store_each(&r->d->kv, r->txn, DB__RECORD_CHUNK, load_chunk, r);
    if (!err)
        err = db__store_each(&r->d->kv, r->txn, DB__RECORD_SESSION, load_session, r);
    if (!err)
        err = db__durable_recover(d, r->txn, *index, r->msg);
    if (!err)
        err = db__store_each(&r->d->kv, r->txn, DB__RECORD_REQUEST, load_request, r);
    if (!err && d->requests.next != d->checkpoint->request_next)
        err = damaged(r, "request key", d->requests.next);
    if (!err && !db_catalog_find_id(d->catalog, DB__TABLE_ID_REJECTS))
        err = damaged(r, "table", DB__TABLE_ID_REJECTS);
    return err;
}

chr_err db__recover(struct db *d, struct chr_errmsg *msg)
{
    struct recovery r = {.d = d, .msg = msg};
    uint64_t index = 0;
    chr_hlc hlc = 0;
    chr_err err = d->kv.begin(d->kv.ctx, false, &r.txn);
    if (err)
        return chr_fail(msg, err, "store: %s", chr_strerror(err));
    err = load_all(&r, &index, &hlc);
    d->kv.abort(d->kv.ctx, r.txn);
    if (!err)
        open_tables(&r);
    for (uint32_t i = 0; i < r.count; i++)
        db__chunk_release(r.chunks[i]);
    free(r.chunks);
    if (err)
        return err;
    d->apply.now_us = chr_hlc_unix_us(hlc);
    db__publish(d, index, hlc, db__version_new(d));
    atomic_store_explicit(&d->durable_index, index, memory_order_release);
    db__due_update(d);
    err = load_rejects(d, msg);
    /* Leftovers only waste room: a disk too full to delete them is no reason not to start. */
    if (!err) {
        chr_err swept = db__garbage_sweep(d, d->checkpoint->next_chunk_id);
        if (!swept)
            swept = db__durable_sweep(d, index);
        if (swept && swept != CHR_ENOSPC)
            err = chr_fail(msg, swept, "store: %s", chr_strerror(swept));
    }
    return err;
}
