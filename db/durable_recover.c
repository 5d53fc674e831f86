/* db/durable_recover.c: what outlives connections comes back from a checkpoint. Bodies of messages
 * stay in the store, but for retained ones. */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "db/durable_save.h"
#include "db/internal.h"
#include "db/value_crc.h"

struct recovery {
    struct db *d;
    db_kv_txn *txn;
    struct chr_errmsg *msg;
    uint64_t index;
    struct db__stored **known; /* hash by id; capacity a power of two */
    size_t known_count, known_capacity;
    struct db__will **due;
    size_t due_count, due_capacity;
};

static chr_err damaged(struct recovery *r, const char *what, uint64_t number)
{
    return chr_fail(r->msg, CHR_ECORRUPT, "store: %s %llu is damaged", what,
                    (unsigned long long)number);
}

static chr_slice slice(ProtobufCBinaryData b)
{
    return chr_slice_of(b.data, b.len);
}

/* -- Subscriptions and wills --------------------------------------------------------------------*/

static chr_err load_subscription(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    uint64_t epoch = 0;
    uint32_t number;
    chr_err err;
    if (!db__store_key_parse_of_session(key, DB__RECORD_SUBSCRIPTION, &epoch, &number))
        return damaged(r, "a subscription's key", 0);
    Chronos__Catalog__Subscription *pb = (Chronos__Catalog__Subscription *)db__value_unpack(
        value, DB__RECORD_SUBSCRIPTION, &chronos__catalog__subscription__descriptor, &err, r->msg);
    if (!pb)
        return err == CHR_ECORRUPT ? damaged(r, "a subscription of session", epoch) : err;
    struct db__session *s = db__session_by_epoch(&r->d->sessions, epoch);
    struct db_subscription item = {.filter = slice(pb->filter),
                                   .group = slice(pb->group),
                                   .qos = (uint8_t)pb->qos,
                                   .no_local = pb->no_local,
                                   .retain_as_published = pb->retain_as_published,
                                   .retain_handling = (uint8_t)pb->retain_handling,
                                   .id = pb->id};
    bool good = s && number && number < s->next_subscription && pb->qos <= 2 &&
                pb->retain_handling <= 2 && pb->id <= DB_SUBSCRIPTION_ID_MAX &&
                db__filter_proper(item.filter) && db__group_proper(item.group) &&
                !db__subscription_find(r->d, s, item.filter, item.group);
    if (good) {
        struct db__subscription *sub = db__subscription_add(r->d, s, &item, number);
        sub->served = pb->served;
        sub->dirty = false;
    }
    protobuf_c_message_free_unpacked(&pb->base, NULL);
    return good ? CHR_OK : damaged(r, "a subscription of session", epoch);
}

static chr_err load_will(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    uint64_t epoch = 0;
    uint32_t generation;
    chr_err err;
    if (!db__store_key_parse_of_session(key, DB__RECORD_WILL, &epoch, &generation))
        return damaged(r, "a will's key", 0);
    Chronos__Catalog__Will *pb = (Chronos__Catalog__Will *)db__value_unpack(
        value, DB__RECORD_WILL, &chronos__catalog__will__descriptor, &err, r->msg);
    if (!pb)
        return err == CHR_ECORRUPT ? damaged(r, "a will of session", epoch) : err;
    struct db__session *s = pb->due ? NULL : db__session_by_epoch(&r->d->sessions, epoch);
    bool good = pb->qos <= 2 && db__topic_proper(slice(pb->topic)) &&
                (pb->due || (s && !s->will && generation <= s->generation));
    if (good) {
        struct db__will *w = db__must_calloc(1, sizeof *w);
        w->epoch = epoch;
        w->generation = generation;
        w->delay_s = pb->delay_s;
        w->message_expiry_s = pb->message_expiry_s;
        w->by_node = pb->node;
        w->by_boot = pb->boot;
        w->session = s;
        w->is_due = pb->due;
        w->due.us = pb->delayed ? pb->due_us : INT64_MAX;
        w->due_order = pb->due_order;
        w->message = db__message_new(slice(pb->topic), slice(pb->properties), slice(pb->payload),
                                     (uint8_t)pb->qos, pb->retain, INT64_MAX, epoch);
        if (!w->message)
            db__out_of_memory();
        if (s)
            s->will = w;
        if (w->is_due) { /* linked later, in their order */
            DB__RESERVE(r->due, r->due_count, r->due_capacity);
            r->due[r->due_count++] = w;
        } else {
            db__will_link(r->d, w);
        }
    }
    protobuf_c_message_free_unpacked(&pb->base, NULL);
    return good ? CHR_OK : damaged(r, "a will of session", epoch);
}

static int due_cmp(const void *a, const void *b)
{
    uint64_t x = (*(struct db__will *const *)a)->due_order;
    uint64_t y = (*(struct db__will *const *)b)->due_order;
    return (x > y) - (x < y);
}

static void link_due(struct recovery *r)
{
    if (r->due_count)
        qsort(r->due, r->due_count, sizeof *r->due, due_cmp);
    for (size_t i = 0; i < r->due_count; i++) {
        db__will_link(r->d, r->due[i]);
        r->d->durable.next_due_order = r->due[i]->due_order + 1;
    }
}

/* -- Messages and queues ------------------------------------------------------------------------*/

static struct db__stored **place_of(struct recovery *r, uint64_t id)
{
    size_t mask = r->known_capacity - 1, i = (size_t)chr_hash_u64(id) & mask;
    while (r->known[i] && r->known[i]->id != id)
        i = (i + 1) & mask;
    return &r->known[i];
}

static struct db__stored *known(struct recovery *r, uint64_t id, uint32_t bytes, int64_t expires_us)
{
    if (r->known_count * 2 >= r->known_capacity) {
        struct db__stored **old = r->known;
        size_t old_capacity = r->known_capacity;
        r->known_capacity = old_capacity ? old_capacity * 2 : 64;
        r->known = db__must_calloc(r->known_capacity, sizeof *r->known);
        for (size_t i = 0; i < old_capacity; i++)
            if (old[i])
                *place_of(r, old[i]->id) = old[i];
        free(old);
    }
    struct db__stored **at = place_of(r, id);
    if (!*at) {
        *at = db__stored_known(r->d, id, bytes, expires_us);
        r->known_count++;
    }
    return *at;
}

static chr_err load_queue(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    uint64_t epoch = 0, block;
    chr_slice body;
    if (!db__store_key_parse_queue(key, &epoch, &block))
        return damaged(r, "a queue's key", 0);
    chr_err err = db_value_open(value, DB__RECORD_QUEUE, DB__RECORD_VERSION, true, &body, r->msg);
    if (err == CHR_EVERSION)
        return err;
    struct db__session *s = db__session_by_epoch(&r->d->sessions, epoch);
    if (err || !s || body.len == 0)
        return damaged(r, "queue of session", epoch);
    struct db__durable *u = &r->d->durable;
    const uint8_t *p = body.ptr, *end = p + body.len;
    uint64_t before = s->queue.end > s->queue.first ? s->queue.items[s->queue.end - 1].sequence : 0;
    while (p < end) {
        if (end - p < DB__QUEUE_ITEM_BYTES)
            return damaged(r, "queue of session", epoch);
        struct db__queue_item item = {.sequence = chr_get_u64le(p),
                                      .qos = p[28],
                                      .flags = p[29],
                                      .ids_count = chr_get_u16le(p + 30)};
        uint64_t id = chr_get_u64le(p + 8);
        int64_t expires_us = (int64_t)chr_get_u64le(p + 16);
        uint32_t bytes = chr_get_u32le(p + 24);
        p += DB__QUEUE_ITEM_BYTES;
        if (item.sequence <= before || item.sequence >= s->next_sequence ||
            (item.sequence - 1) / DB__BLOCK_ITEMS != block || item.qos < 1 || item.qos > 2 ||
            item.flags > (DB__ITEM_RETAIN | DB__ITEM_RECEIVED) ||
            end - p < (ptrdiff_t)item.ids_count * 4 || id >> DB__MESSAGE_ID_SHIFT > r->index)
            return damaged(r, "queue of session", epoch);
        struct db__stored *m = known(r, id, bytes, expires_us);
        if (m->bytes != bytes || m->expires_us != expires_us)
            return damaged(r, "queue of session", epoch);
        if (item.ids_count > 1)
            item.ids = db__must_malloc(item.ids_count * sizeof *item.ids);
        for (uint16_t i = 0; i < item.ids_count; i++, p += 4)
            *(item.ids_count > 1 ? &item.ids[i] : &item.id) = chr_get_u32le(p);
        before = item.sequence;
        item.message = m;
        m->refs++;
        db__queue_load(&s->queue, &item);
        u->stats.queued_count++;
        u->stats.queued_bytes += bytes;
    }
    return CHR_OK;
}

static chr_err load_retained(void *ctx, chr_slice key, chr_slice value)
{
    struct recovery *r = ctx;
    uint64_t id;
    chr_slice body, message;
    if (!db__store_key_parse(key, DB__RECORD_RETAINED, &id))
        return damaged(r, "a retained message's key", 0);
    chr_err err =
        db_value_open(value, DB__RECORD_RETAINED, DB__RECORD_VERSION, true, &body, r->msg);
    if (err == CHR_EVERSION)
        return err;
    struct db__store_key at = db__store_key(DB__RECORD_MESSAGE, id);
    struct db_message *m = NULL;
    if (!err && body.len == 0 && id >> DB__MESSAGE_ID_SHIFT <= r->index)
        err = r->d->kv.get(r->d->kv.ctx, r->txn, db__key_slice(&at), &message);
    else
        err = CHR_ECORRUPT;
    if (!err)
        err = db_value_open(message, DB__RECORD_MESSAGE, DB__RECORD_VERSION, true, &body, r->msg);
    if (!err)
        err = db__message_open(body, &m);
    if (err == CHR_ENOMEM || err == CHR_EVERSION)
        return err;
    if (err)
        return damaged(r, "retained message", id);
    uint32_t bytes = db__message_bytes(m);
    struct db__stored *s = known(r, id, bytes, m->expires_us);
    bool good =
        s->bytes == bytes && s->expires_us == m->expires_us && !db__retained_has(r->d, m->topic);
    if (!good) {
        db_message_unref(m);
        return damaged(r, "retained message", id);
    }
    s->body = m;
    r->d->durable.stats.memory_bytes += bytes;
    db__retained_set(r->d, s, m->topic);
    return CHR_OK;
}

chr_err db__durable_recover(struct db *d, db_kv_txn *txn, uint64_t index, struct chr_errmsg *msg)
{
    struct recovery r = {.d = d, .txn = txn, .msg = msg, .index = index};
    chr_err err = db__store_each(&r.d->kv, r.txn, DB__RECORD_SUBSCRIPTION, load_subscription, &r);
    if (!err)
        err = db__store_each(&r.d->kv, r.txn, DB__RECORD_QUEUE, load_queue, &r);
    if (!err)
        err = db__store_each(&r.d->kv, r.txn, DB__RECORD_RETAINED, load_retained, &r);
    if (!err)
        err = db__store_each(&r.d->kv, r.txn, DB__RECORD_WILL, load_will, &r);
    link_due(&r);
    for (size_t i = 0; i < r.known_capacity; i++)
        if (r.known[i] && r.known[i]->refs == 0) /* an error came between */
            db__stored_free(r.known[i]);
    free(r.known);
    free(r.due);
    return err;
}

chr_err db__durable_sweep(struct db *d, uint64_t index)
{
    const struct db_kv *kv = &d->kv;
    uint8_t kind = DB__RECORD_MESSAGE;
    struct db__store_key from =
        db__store_key(DB__RECORD_MESSAGE, (index + 1) << DB__MESSAGE_ID_SHIFT);
    for (uint32_t count = 256; count == 256;) {
        struct db__store_key keys[256];
        db_kv_txn *txn;
        db_kv_cursor *cursor;
        chr_slice key, value;
        chr_err err = kv->begin(kv->ctx, true, &txn);
        if (err)
            return err;
        count = 0;
        err = kv->cursor_open(kv->ctx, txn, chr_slice_of(&kind, 1), db__key_slice(&from), &cursor);
        if (!err) {
            uint64_t id;
            while (count < 256 && !(err = kv->cursor_next(kv->ctx, cursor, &key, &value)))
                if (db__store_key_parse(key, DB__RECORD_MESSAGE, &id))
                    keys[count++] = db__store_key(DB__RECORD_MESSAGE, id);
            kv->cursor_close(kv->ctx, cursor);
            err = err == CHR_ENOTFOUND ? CHR_OK : err;
        }
        for (uint32_t i = 0; i < count && !err; i++)
            err = kv->del(kv->ctx, txn, db__key_slice(&keys[i]));
        if (err || count == 0)
            kv->abort(kv->ctx, txn);
        else
            err = kv->commit(kv->ctx, txn);
        if (err)
            return err;
    }
    return CHR_OK;
}
