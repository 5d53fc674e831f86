/* db/durable_save.c: what outlives connections goes into a checkpoint.
 *
 * Record 'e', a block of a queue: items in order of sequence, each
 *     0  u64 sequence      8  u64 message      16  i64 expires_us     24  u32 bytes of the message
 *    28  u8  qos          29  u8  flags (1 retain, 2 received)        30  u16 identifiers, `n`
 *    32  u32 identifiers[n] */
#include "db/durable_save.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/internal.h"

static void pack(struct db__checkpoint *cp, enum db__record kind, const ProtobufCMessage *message)
{
    if (db__value_pack(&cp->buf, kind, message))
        db__out_of_memory();
}

static ProtobufCBinaryData binary(chr_slice s)
{
    return (ProtobufCBinaryData){.len = s.len, .data = (uint8_t *)s.ptr};
}

/* -- Queues -------------------------------------------------------------------------------------*/

static int u64_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void capture_block(struct db__checkpoint *cp, const struct db__session *s, uint64_t block)
{
    const struct db__queue *q = &s->queue;
    uint64_t end = (block + 1) * DB__BLOCK_ITEMS + 1;
    struct chr_buf *buf = &cp->buf;
    bool any = false;
    db__value_begin(buf);
    for (size_t i = db__queue_find(q, block * DB__BLOCK_ITEMS + 1);
         i < q->end && q->items[i].sequence < end; i++) {
        const struct db__queue_item *item = &q->items[i];
        if (!item->message)
            continue;
        any = true;
        chr_buf_add_u64le(buf, item->sequence);
        chr_buf_add_u64le(buf, item->message->id);
        chr_buf_add_u64le(buf, (uint64_t)item->message->expires_us);
        chr_buf_add_u32le(buf, item->message->bytes);
        chr_buf_add_u8(buf, item->qos);
        chr_buf_add_u8(buf, item->flags);
        chr_buf_add_u16le(buf, item->ids_count);
        const uint32_t *ids = item->ids_count > 1 ? item->ids : &item->id;
        for (uint16_t k = 0; k < item->ids_count; k++)
            chr_buf_add_u32le(buf, ids[k]);
    }
    if (buf->failed)
        db__out_of_memory();
    db__value_end(buf, DB__RECORD_QUEUE);
    db__pending_add(cp, db__store_key_queue(s->epoch, block),
                    any ? chr_buf_slice(buf) : (chr_slice){0});
}

static void capture_queue(struct db__checkpoint *cp, struct db__session *s)
{
    struct db__queue *q = &s->queue;
    if (q->dirty_count > 1)
        qsort(q->dirty, q->dirty_count, sizeof *q->dirty, u64_cmp);
    for (size_t i = 0; i < q->dirty_count; i++)
        if (i == 0 || q->dirty[i] != q->dirty[i - 1])
            capture_block(cp, s, q->dirty[i]);
    free(q->dirty);
    q->dirty = NULL;
    q->dirty_count = q->dirty_capacity = 0;
}

/* -- Subscriptions and wills --------------------------------------------------------------------*/

static void capture_subscriptions(struct db__checkpoint *cp, struct db__session *s)
{
    CHR_LIST_FOR (link, &s->subscriptions) {
        struct db__subscription *sub = CHR_CONTAINER_OF(link, struct db__subscription, of_session);
        if (!sub->dirty)
            continue;
        Chronos__Catalog__Subscription pb = CHRONOS__CATALOG__SUBSCRIPTION__INIT;
        pb.filter = binary(sub->d.filter);
        pb.group = binary(sub->d.group);
        pb.qos = sub->d.qos;
        pb.no_local = sub->d.no_local;
        pb.retain_as_published = sub->d.retain_as_published;
        pb.retain_handling = sub->d.retain_handling;
        pb.id = sub->d.id;
        pb.served = sub->served;
        pack(cp, DB__RECORD_SUBSCRIPTION, &pb.base);
        db__pending_add(cp,
                        db__store_key_of_session(DB__RECORD_SUBSCRIPTION, s->epoch, sub->number),
                        chr_buf_slice(&cp->buf));
        sub->dirty = false;
    }
}

static void capture_will(struct db__checkpoint *cp, struct db__will *w)
{
    Chronos__Catalog__Will pb = CHRONOS__CATALOG__WILL__INIT;
    pb.topic = binary(w->message->topic);
    pb.properties = binary(w->message->properties);
    pb.payload = binary(w->message->payload);
    pb.qos = w->message->qos;
    pb.retain = w->message->retain;
    pb.delay_s = w->delay_s;
    pb.message_expiry_s = w->message_expiry_s;
    pb.due = w->is_due;
    pb.delayed = w->due.at != 0;
    pb.due_us = w->due.at ? w->due.us : 0;
    pb.due_order = w->due_order;
    pb.node = w->by_node;
    pb.boot = w->by_boot;
    pack(cp, DB__RECORD_WILL, &pb.base);
    db__pending_add(cp, db__store_key_of_session(DB__RECORD_WILL, w->epoch, w->generation),
                    chr_buf_slice(&cp->buf));
    w->dirty = false;
}

/* -- The cut ------------------------------------------------------------------------------------*/

void db__durable_capture(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct db__durable *u = &d->durable;
    for (size_t i = 0; i < u->gone_count; i++)
        db__pending_add(cp, u->gone[i], (chr_slice){0});
    free(u->gone);
    u->gone = NULL;
    u->gone_count = u->gone_capacity = 0;
    for (size_t i = 0; i < d->sessions.capacity; i++) {
        struct db__session *s = d->sessions.by_id[i];
        if (!s)
            continue;
        if (s->dirty)
            capture_subscriptions(cp, s);
        if (s->queue.dirty_count)
            capture_queue(cp, s);
    }
    for (size_t i = 0; u->wills.buckets && i <= u->wills.mask; i++)
        for (struct db__hash_node *n = u->wills.buckets[i]; n; n = n->next) {
            struct db__will *w = CHR_CONTAINER_OF(n, struct db__will, hash);
            if (w->dirty)
                capture_will(cp, w);
        }
    while (!chr_list_empty(&u->unsaved)) {
        struct db__stored *m = CHR_CONTAINER_OF(u->unsaved.next, struct db__stored, node);
        chr_list_remove(&m->node);
        m->state = DB__STORED_SAVING;
        DB__RESERVE(cp->saving, cp->saving_count, cp->saving_capacity);
        cp->saving[cp->saving_count++] = m;
        if (!m->retained)
            continue;
        db__value_begin(&cp->buf);
        db__value_end(&cp->buf, DB__RECORD_RETAINED);
        db__pending_add(cp, db__store_key(DB__RECORD_RETAINED, m->id), chr_buf_slice(&cp->buf));
    }
}

/* -- Bodies -------------------------------------------------------------------------------------*/

/* The applier does not touch id and body of what is being saved, even when it lets go of it. */
chr_err db__durable_write_ahead(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    const struct db_kv *kv = &d->kv;
    db_kv_txn *txn = NULL;
    size_t bytes = 0;
    chr_err err = CHR_OK;
    for (; cp->saving_written < cp->saving_count && !err; cp->saving_written++) {
        const struct db__stored *m = cp->saving[cp->saving_written];
        struct db__store_key key = db__store_key(DB__RECORD_MESSAGE, m->id);
        if (!txn && (err = kv->begin(kv->ctx, true, &txn)))
            break;
        db__value_begin(&cp->buf);
        db__message_encode(m->body, &cp->buf);
        if (cp->buf.failed) {
            err = CHR_ENOMEM;
            break;
        }
        db__value_end(&cp->buf, DB__RECORD_MESSAGE);
        if ((err = kv->put(kv->ctx, txn, db__key_slice(&key), chr_buf_slice(&cp->buf))))
            break;
        bytes += cp->buf.len;
        if (bytes < DB__BATCH_BYTES)
            continue;
        err = kv->commit(kv->ctx, txn);
        txn = NULL;
        bytes = 0;
    }
    if (txn && err)
        kv->abort(kv->ctx, txn);
    else if (txn)
        err = kv->commit(kv->ctx, txn);
    if (err)
        cp->saving_written = 0; /* which commits happened is no matter: all again */
    return err;
}

static void evict(struct db__durable *u)
{
    while (u->cached_bytes > DB__CACHE_BYTES) {
        struct db__stored *m = CHR_CONTAINER_OF(u->cached.next, struct db__stored, node);
        chr_list_remove(&m->node);
        m->cached = false;
        u->cached_bytes -= m->bytes;
        u->stats.memory_bytes -= m->bytes;
        db_message_unref(m->body);
        m->body = NULL;
    }
}

void db__durable_saved(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct db__durable *u = &d->durable;
    pthread_rwlock_wrlock(&u->lock);
    for (size_t i = 0; i < cp->saving_count; i++) {
        struct db__stored *m = cp->saving[i];
        atomic_fetch_sub_explicit(&d->hot_bytes, m->bytes, memory_order_relaxed);
        if (m->refs == 0) {
            u->stats.memory_bytes -= m->bytes;
            db__stored_free(m);
            continue;
        }
        m->state = DB__STORED_SAVED;
        db__stored_cache(d, m);
    }
    evict(u);
    pthread_rwlock_unlock(&u->lock);
    free(cp->saving);
    cp->saving = NULL;
    cp->saving_count = cp->saving_capacity = cp->saving_written = 0;
}

void db__durable_saving_free(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    for (size_t i = 0; cp && i < cp->saving_count; i++) {
        if (cp->saving[i]->refs == 0) {
            db__stored_free(cp->saving[i]);
            continue;
        }
        cp->saving[i]->state = DB__STORED_SAVED; /* whoever holds it frees it */
    }
    if (cp)
        free(cp->saving);
}
