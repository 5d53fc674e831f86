/* db/message.c: messages, each stored once (M1), and what finds things by hash.
 *
 * Record 'p' (and what it is in the store): u64 publisher, i64 expires_us, u8 qos, u8 retain, u16
 * 0, u32 topic length, u32 properties length, u32 payload length, the bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/utf8.h"
#include "db/internal.h"
#include "db/value_crc.h"

#define MESSAGE_HEAD 32

int64_t db__time_after(int64_t now_us, uint32_t seconds)
{
    return seconds == UINT32_MAX ? INT64_MAX : now_us + (int64_t)seconds * 1000000;
}

static chr_slice append(uint8_t **at, chr_slice s)
{
    chr_slice copy = chr_slice_of(*at, s.len);
    if (s.len)
        memcpy(*at, s.ptr, s.len);
    *at += s.len;
    return copy;
}

struct db_message *db__message_new(chr_slice topic, chr_slice properties, chr_slice payload,
                                   uint8_t qos, bool retain, int64_t expires_us, uint64_t publisher)
{
    struct db_message *m = malloc(sizeof *m + topic.len + properties.len + payload.len);
    if (!m)
        return NULL;
    *m = (struct db_message){
        .refs = 1, .qos = qos, .retain = retain, .expires_us = expires_us, .publisher = publisher};
    uint8_t *at = m->bytes;
    m->topic = append(&at, topic);
    m->properties = append(&at, properties);
    m->payload = append(&at, payload);
    return m;
}

void db_message_ref(struct db_message *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
}

void db_message_unref(struct db_message *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
        free(m);
}

void db__message_encode(const struct db_message *m, struct chr_buf *out)
{
    chr_buf_add_u64le(out, m->publisher);
    chr_buf_add_u64le(out, (uint64_t)m->expires_us);
    chr_buf_add_u8(out, m->qos);
    chr_buf_add_u8(out, m->retain);
    chr_buf_add_u16le(out, 0);
    chr_buf_add_u32le(out, (uint32_t)m->topic.len);
    chr_buf_add_u32le(out, (uint32_t)m->properties.len);
    chr_buf_add_u32le(out, (uint32_t)m->payload.len);
    chr_buf_add_slice(out, m->topic);
    chr_buf_add_slice(out, m->properties);
    chr_buf_add_slice(out, m->payload);
}

chr_err db__message_open(chr_slice body, struct db_message **out)
{
    if (body.len < MESSAGE_HEAD)
        return CHR_ECORRUPT;
    const uint8_t *p = body.ptr, *bytes = p + MESSAGE_HEAD;
    uint64_t topic = chr_get_u32le(p + 20), properties = chr_get_u32le(p + 24);
    uint64_t payload = chr_get_u32le(p + 28);
    if (p[16] > 2 || p[17] > 1 || chr_get_u16le(p + 18) ||
        topic + properties + payload != body.len - MESSAGE_HEAD ||
        !chr_utf8_valid_mqtt(chr_slice_of(bytes, topic)))
        return CHR_ECORRUPT;
    *out = db__message_new(chr_slice_of(bytes, topic), chr_slice_of(bytes + topic, properties),
                           chr_slice_of(bytes + topic + properties, payload), p[16], p[17],
                           (int64_t)chr_get_u64le(p + 8), chr_get_u64le(p));
    return *out ? CHR_OK : CHR_ENOMEM;
}

chr_err db__message_load(struct db *d, uint64_t id, struct db_message **out)
{
    struct db__store_key key = db__store_key(DB__RECORD_MESSAGE, id);
    db_kv_txn *txn;
    chr_slice value, body;
    chr_err err = d->kv.begin(d->kv.ctx, false, &txn);
    if (err)
        return err;
    err = d->kv.get(d->kv.ctx, txn, db__key_slice(&key), &value);
    if (!err)
        err = db_value_open(value, DB__RECORD_MESSAGE, DB__RECORD_VERSION, true, &body, NULL);
    if (!err)
        err = db__message_open(body, out);
    d->kv.abort(d->kv.ctx, txn);
    return err;
}

uint32_t db__message_bytes(const struct db_message *m)
{
    return (uint32_t)(m->topic.len + m->properties.len + m->payload.len) + DB__MESSAGE_OVERHEAD;
}

/* -- Stored -------------------------------------------------------------------------------------*/

struct db__stored *db__stored_new(struct db *d, uint64_t id, struct db_message *body)
{
    struct db__stored *s = db__must_calloc(1, sizeof *s);
    s->id = id;
    s->expires_us = body->expires_us;
    s->bytes = db__message_bytes(body);
    s->refs = 1;
    s->body = body;
    s->due = (struct db__due){.us = INT64_MAX, .tie = id, .kind = DB__DUE_RETAINED};
    chr_list_push_back(&d->durable.unsaved, &s->node);
    d->durable.stats.messages++;
    d->durable.stats.message_bytes += s->bytes;
    d->durable.stats.memory_bytes += s->bytes;
    atomic_fetch_add_explicit(&d->hot_bytes, s->bytes, memory_order_relaxed);
    return s;
}

void db__stored_free(struct db__stored *s)
{
    db_message_unref(s->body);
    free(s);
}

void db__stored_unref(struct db *d, struct db__stored *s)
{
    CHR_ASSERT(s->refs > 0);
    if (--s->refs)
        return;
    struct db__durable *u = &d->durable;
    u->stats.messages--;
    u->stats.message_bytes -= s->bytes;
    if (s->state != DB__STORED_NEW)
        db__gone(d, db__store_key(DB__RECORD_MESSAGE, s->id));
    if (s->state == DB__STORED_SAVING)
        return; /* the checkpoint has it; it frees it */
    if (s->body) {
        u->stats.memory_bytes -= s->bytes;
        chr_list_remove(&s->node);
        if (s->state == DB__STORED_NEW)
            atomic_fetch_sub_explicit(&d->hot_bytes, s->bytes, memory_order_relaxed);
        else if (s->cached)
            u->cached_bytes -= s->bytes;
    }
    db__stored_free(s);
}

struct db__stored *db__stored_known(struct db *d, uint64_t id, uint32_t bytes, int64_t expires_us)
{
    struct db__stored *s = db__must_calloc(1, sizeof *s);
    s->id = id;
    s->bytes = bytes;
    s->expires_us = expires_us;
    s->state = DB__STORED_SAVED;
    s->due = (struct db__due){.us = INT64_MAX, .tie = id, .kind = DB__DUE_RETAINED};
    chr_list_init(&s->node);
    d->durable.stats.messages++;
    d->durable.stats.message_bytes += bytes;
    return s;
}

void db__stored_cache(struct db *d, struct db__stored *s)
{
    if (s->retained || !s->body || s->cached)
        return;
    s->cached = true;
    chr_list_push_back(&d->durable.cached, &s->node);
    d->durable.cached_bytes += s->bytes;
}

/* -- Hash ---------------------------------------------------------------------------------------*/

void db__hash_put(struct db__hash *h, struct db__hash_node *node)
{
    if (!h->buckets || h->count > h->mask) {
        size_t count = h->buckets ? (h->mask + 1) * 2 : 64;
        struct db__hash_node **buckets = db__must_calloc(count, sizeof *buckets);
        for (size_t i = 0; h->buckets && i <= h->mask; i++)
            for (struct db__hash_node *n = h->buckets[i], *next; n; n = next) {
                next = n->next;
                n->next = buckets[n->hash & (count - 1)];
                buckets[n->hash & (count - 1)] = n;
            }
        free(h->buckets);
        h->buckets = buckets;
        h->mask = count - 1;
    }
    node->next = h->buckets[node->hash & h->mask];
    h->buckets[node->hash & h->mask] = node;
    h->count++;
}

void db__hash_remove(struct db__hash *h, struct db__hash_node *node)
{
    struct db__hash_node **at = &h->buckets[node->hash & h->mask];
    while (*at != node)
        at = &(*at)->next;
    *at = node->next;
    h->count--;
}

struct db__hash_node *db__hash_first(const struct db__hash *h, uint64_t key)
{
    return h->buckets ? h->buckets[key & h->mask] : NULL;
}
