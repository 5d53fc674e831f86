/* db/durable_check.c: chronos check of what outlives connections: what refers to what in the store,
 * and every message's bytes. db_open has already refused records that do not fit their sessions. */
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "db/durable_save.h"
#include "db/internal.h"
#include "db/value_crc.h"

struct check {
    struct db *d;
    db_kv_txn *txn;
    void (*found)(void *arg, const char *text);
    void *arg;
    uint64_t *ids; /* messages that queues and retained topics refer to */
    size_t count, capacity;
    size_t at; /* of the next that must be there */
};

/* What is found is reported, and the walk goes on: visits do not fail. */
static void report(const struct check *c, const char *format, uint64_t number)
{
    char text[160];
    snprintf(text, sizeof text, format, (unsigned long long)number);
    c->found(c->arg, text);
}

static void refer(struct check *c, uint64_t id)
{
    DB__RESERVE(c->ids, c->count, c->capacity);
    c->ids[c->count++] = id;
}

static chr_err visit_queue(void *ctx, chr_slice key, chr_slice value)
{
    struct check *c = ctx;
    uint64_t epoch = 0, block;
    chr_slice body;
    if (!db__store_key_parse_queue(key, &epoch, &block) ||
        db_value_open(value, DB__RECORD_QUEUE, DB__RECORD_VERSION, true, &body, NULL)) {
        report(c, "queue of session %llu: a record is damaged", epoch);
        return CHR_OK;
    }
    while (body.len) {
        size_t len = body.len < DB__QUEUE_ITEM_BYTES
                         ? SIZE_MAX
                         : DB__QUEUE_ITEM_BYTES + (size_t)chr_get_u16le(body.ptr + 30) * 4;
        if (len > body.len) {
            report(c, "queue of session %llu: a record is damaged", epoch);
            return CHR_OK;
        }
        if ((chr_get_u64le(body.ptr) - 1) / DB__BLOCK_ITEMS != block)
            report(c, "queue of session %llu: a sequence in the wrong record", epoch);
        refer(c, chr_get_u64le(body.ptr + 8));
        body = chr_slice_of(body.ptr + len, body.len - len);
    }
    return CHR_OK;
}

static chr_err visit_retained(void *ctx, chr_slice key, chr_slice value)
{
    struct check *c = ctx;
    uint64_t id = 0;
    chr_slice body;
    if (!db__store_key_parse(key, DB__RECORD_RETAINED, &id) ||
        db_value_open(value, DB__RECORD_RETAINED, DB__RECORD_VERSION, true, &body, NULL))
        report(c, "retained message %llu: its record is damaged", id);
    else
        refer(c, id);
    return CHR_OK;
}

static chr_err visit_message(void *ctx, chr_slice key, chr_slice value)
{
    struct check *c = ctx;
    uint64_t id = 0;
    chr_slice body;
    struct db_message *m = NULL;
    if (!db__store_key_parse(key, DB__RECORD_MESSAGE, &id) ||
        db_value_open(value, DB__RECORD_MESSAGE, DB__RECORD_VERSION, true, &body, NULL) ||
        db__message_open(body, &m))
        report(c, "message %llu is damaged", id);
    db_message_unref(m);
    for (; c->at < c->count && c->ids[c->at] < id; c->at++)
        if (c->at == 0 || c->ids[c->at] != c->ids[c->at - 1])
            report(c, "message %llu is referred to, but is not there", c->ids[c->at]);
    bool referred = c->at < c->count && c->ids[c->at] == id;
    while (c->at < c->count && c->ids[c->at] == id)
        c->at++;
    /* Later ones were written ahead by a checkpoint that was not. */
    if (!referred && id >> DB__MESSAGE_ID_SHIFT <= db_durable_index(c->d))
        report(c, "message %llu belongs to no queue and is not retained", id);
    return CHR_OK;
}

static int u64_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Sums in memory against what they are sums of. Nothing else runs. */
static void check_memory(const struct check *c)
{
    const struct db *d = c->d;
    const struct db_durable_stats *stats = &d->durable.stats;
    uint64_t count = 0, bytes = 0, subscriptions = 0, connected = 0;
    for (size_t i = 0; i < d->sessions.capacity; i++) {
        const struct db__session *s = d->sessions.by_id[i];
        if (!s)
            continue;
        uint64_t own_count = 0, own_bytes = 0, own_subscriptions = 0;
        for (size_t k = s->queue.first; k < s->queue.end; k++) {
            const struct db__stored *m = s->queue.items[k].message;
            own_count += m != NULL;
            own_bytes += m ? m->bytes : 0;
            if (m && m->refs == 0)
                report(c, "message %llu waits in a queue but is not held", m->id);
        }
        CHR_LIST_FOR (link, &s->subscriptions)
            own_subscriptions++;
        if (own_count != s->queue.count || own_bytes != s->queue.bytes)
            report(c, "queue of session %llu: count or bytes are wrong", s->epoch);
        if (own_subscriptions != s->subscriptions_count)
            report(c, "session %llu: its subscriptions are counted wrong", s->epoch);
        count += own_count;
        bytes += own_bytes;
        subscriptions += own_subscriptions;
        connected += s->connected;
    }
    if (count != stats->queued_count || bytes != stats->queued_bytes)
        report(c, "queued messages: %llu are counted wrong", count);
    if (subscriptions != stats->subscriptions || subscriptions != d->durable.subscriptions.count ||
        connected != stats->connected)
        report(c, "subscriptions or connected sessions: %llu are counted wrong", subscriptions);
}

chr_err db__durable_check(struct db *d, void (*found)(void *arg, const char *text), void *arg)
{
    struct check c = {.d = d, .found = found, .arg = arg};
    chr_err err = d->kv.begin(d->kv.ctx, false, &c.txn);
    if (err)
        return err;
    err = db__store_each(&d->kv, c.txn, DB__RECORD_QUEUE, visit_queue, &c);
    if (!err)
        err = db__store_each(&d->kv, c.txn, DB__RECORD_RETAINED, visit_retained, &c);
    if (c.count)
        qsort(c.ids, c.count, sizeof *c.ids, u64_cmp);
    if (!err)
        err = db__store_each(&d->kv, c.txn, DB__RECORD_MESSAGE, visit_message, &c);
    for (; c.at < c.count && !err; c.at++)
        if (c.at == 0 || c.ids[c.at] != c.ids[c.at - 1])
            report(&c, "message %llu is referred to, but is not there", c.ids[c.at]);
    d->kv.abort(d->kv.ctx, c.txn);
    free(c.ids);
    if (!err)
        check_memory(&c);
    return err;
}
