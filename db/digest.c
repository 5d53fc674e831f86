#include "db/digest.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "db/durable.h"

/* A chain of 64-bit words: multiply and fold, as in wyhash, with fixed constants. */
static uint64_t mix(uint64_t h, uint64_t x)
{
    unsigned __int128 product =
        (unsigned __int128)(h ^ UINT64_C(0xa0761d6478bd642f)) * (x ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t mix_bytes(uint64_t h, chr_slice bytes)
{
    h = mix(h, bytes.len);
    for (; bytes.len >= 8; bytes = chr_slice_of(bytes.ptr + 8, bytes.len - 8))
        h = mix(h, chr_get_u64le(bytes.ptr));
    uint8_t rest[8] = {0};
    if (bytes.len)
        memcpy(rest, bytes.ptr, bytes.len);
    return mix(h, chr_get_u64le(rest));
}

static void add(struct db_digest *digest, uint64_t h)
{
    digest->count++;
    digest->sum += mix(h, DB_DIGEST_VERSION);
}

/* -- Rows ---------------------------------------------------------------------------------------*/

static uint64_t mix_value(uint64_t h, const struct db_vector *v, uint32_t row)
{
    uint32_t at = db_vector_at(v, row);
    uint64_t bits;
    if (!db_vector_valid(v, row))
        return mix(h, 1);
    h = mix(h, 2);
    switch (v->type) {
    case DB_INT:
    case DB_TIMESTAMP:
        return mix(h, (uint64_t)v->i64[at]);
    case DB_FLOAT:
        memcpy(&bits, &v->f64[at], sizeof bits); /* -0.0 and each NaN are values of their own */
        return mix(h, bits);
    case DB_BOOLEAN:
        return mix(h, v->b8[at]);
    default:
        return mix_bytes(h, v->str[at]);
    }
}

/* A column is told by its id: renaming it changes nothing, nor does its place. */
static uint64_t column_id(const struct db_table_def *table, uint32_t slot)
{
    return slot < table->columns_count    ? table->columns[slot].id
           : slot == table->columns_count ? DB_COLUMN_RECEIVED_AT
                                          : DB_COLUMN_HLC;
}

struct scanned {
    const struct db_table_def *table;
    db_reader *reader;
    struct db_row_id ids[DB_VECTOR_ROWS];
    uint64_t hashes[DB_VECTOR_ROWS];
    struct db_digest digest;
    struct chr_errmsg *msg;
};

static chr_err add_batch(struct scanned *s, const struct db_batch *batch)
{
    chr_err err = db_reader_row_ids(s->reader, s->ids, s->msg);
    for (uint32_t i = 0; i < batch->sel_count && !err; i++) {
        uint32_t row = batch->sel ? batch->sel[i] : i;
        s->hashes[i] = mix(mix(0, s->ids[row].entry), s->ids[row].ordinal);
    }
    for (uint32_t slot = 0; slot < s->table->columns_count + 2u && !err; slot++) {
        const struct db_vector *v = db_reader_column(s->reader, slot, &err, s->msg);
        for (uint32_t i = 0; v && i < batch->sel_count; i++)
            s->hashes[i] = mix_value(mix(s->hashes[i], column_id(s->table, slot)), v,
                                     batch->sel ? batch->sel[i] : i);
    }
    for (uint32_t i = 0; i < batch->sel_count && !err; i++)
        add(&s->digest, s->hashes[i]);
    return err;
}

chr_err db_digest_table(db_read *read, const struct db_table_def *table, struct db_digest *out,
                        struct chr_errmsg *msg)
{
    db_scan *scan = NULL;
    struct db_morsel morsel;
    struct db_batch batch;
    uint16_t columns[DB_COLUMNS_MAX + 2];
    uint32_t count = table->columns_count + 2u;
    struct scanned *s = calloc(1, sizeof *s);
    if (!s)
        return CHR_ENOMEM;
    s->table = table;
    s->msg = msg;
    for (uint32_t i = 0; i < count; i++)
        columns[i] = (uint16_t)i;
    chr_err err = db_scan_open(read, table, columns, count, NULL, 0, &scan);
    if (!err)
        err = db_reader_open(scan, &s->reader);
    int more = 1;
    while (!err && (more = db_reader_next_morsel(s->reader, &morsel, msg)) > 0) {
        while (!err && (more = db_reader_next_batch(s->reader, &batch, msg)) > 0)
            err = add_batch(s, &batch);
        if (more < 0)
            break;
    }
    if (!err && more < 0)
        err = more;
    *out = s->digest;
    db_reader_close(s->reader);
    db_scan_close(scan);
    free(s);
    return err;
}

/* -- Sessions and retained messages -------------------------------------------------------------*/

static uint64_t mix_message(uint64_t h, const struct db_message *m)
{
    h = mix(mix(mix(h, m->qos), m->retain), (uint64_t)m->expires_us);
    h = mix(h, m->publisher);
    return mix_bytes(mix_bytes(mix_bytes(h, m->topic), m->properties), m->payload);
}

/* All there is, copied: callbacks must not ask for more. */
struct noted {
    struct noted_session {
        uint64_t epoch, hash;
    } * list;
    size_t count, capacity;
    bool failed;
};

static void note_session(void *arg, const struct db_session_info *s)
{
    struct noted *n = arg;
    if (n->count == n->capacity) {
        size_t capacity = n->capacity ? n->capacity * 2 : 64;
        void *list = realloc(n->list, capacity * sizeof *n->list);
        n->failed = n->failed || !list;
        if (!list)
            return;
        n->list = list;
        n->capacity = capacity;
    }
    uint64_t h = mix_bytes(mix(0, s->epoch), s->client_id);
    h = mix(mix(mix(h, s->generation), s->expiry_s), s->connected);
    h = mix(mix(mix(h, (uint64_t)s->expires_us), s->sent), s->next_sequence);
    h = mix(mix(mix(h, s->queued_count), s->dropped), s->expired);
    n->list[n->count++] = (struct noted_session){.epoch = s->epoch, .hash = h};
}

/* In any order: a session's subscriptions differ in filter and group. */
static void add_subscription(void *arg, const struct db_subscription *s)
{
    uint64_t h = mix_bytes(mix_bytes(3, s->filter), s->group);
    h = mix(mix(mix(h, s->qos), s->no_local), s->retain_as_published);
    *(uint64_t *)arg += mix(mix(h, s->retain_handling), s->id);
}

static chr_err add_queue(db *d, uint64_t epoch, uint64_t *h, struct chr_errmsg *msg)
{
    enum { ITEMS = 64 };
    struct db_queue_item items[ITEMS];
    chr_err err = CHR_OK;
    for (uint64_t from = 0; !err;) {
        size_t count = db_queue_read(d, epoch, from, items, ITEMS, 4u << 20);
        if (count == DB_QUEUE_NO_MEMORY)
            return CHR_ENOMEM;
        for (size_t i = 0; i < count; i++) {
            struct db_queue_item *item = &items[i];
            if (!err && !item->message)
                err = chr_fail(msg, item->error, "a message of session %llu: %s",
                               (unsigned long long)epoch, chr_strerror(item->error));
            if (!err) {
                *h = mix(mix(mix(*h, item->sequence), item->qos), item->retain);
                *h = mix(*h, item->received);
                for (uint32_t k = 0; k < item->ids_count; k++)
                    *h = mix(*h, item->ids[k]);
                *h = mix_message(*h, item->message);
            }
            from = item->sequence + 1;
            db_message_unref(item->message);
            free(item->ids);
        }
        if (count == 0)
            break;
    }
    return err;
}

chr_err db_digest_sessions(db *d, struct db_digest *out, struct chr_errmsg *msg)
{
    struct noted noted = {0};
    *out = (struct db_digest){0};
    db_sessions_read(d, note_session, &noted);
    chr_err err = noted.failed ? CHR_ENOMEM : CHR_OK;
    for (size_t i = 0; i < noted.count && !err; i++) {
        uint64_t h = noted.list[i].hash, subscriptions = 0;
        db_subscriptions_read(d, noted.list[i].epoch, add_subscription, &subscriptions);
        h = mix(h, subscriptions);
        err = add_queue(d, noted.list[i].epoch, &h, msg);
        add(out, h);
    }
    free(noted.list);
    return err;
}

static bool add_retained(void *arg, struct db_message *message)
{
    add(arg, mix_message(5, message));
    return true;
}

void db_digest_retained(db *d, struct db_digest *out)
{
    *out = (struct db_digest){0};
    db_retained_read(d, CHR_LIT("#"), chr_hlc_unix_us(db_replicated_time(d)), add_retained, out);
}
