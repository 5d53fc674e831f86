/* db/queue.c: what waits for a session (M2). */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/internal.h"

void db__queue_free(struct db__queue *q)
{
    for (size_t i = q->first; i < q->end; i++)
        if (q->items[i].message && q->items[i].ids_count > 1)
            free(q->items[i].ids);
    free(q->items);
    free(q->dirty);
    *q = (struct db__queue){0};
}

size_t db__queue_find(const struct db__queue *q, uint64_t sequence)
{
    size_t low = q->first, high = q->end;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (q->items[mid].sequence < sequence)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

void db__queue_touch(struct db__queue *q, uint64_t sequence)
{
    uint64_t block = (sequence - 1) / DB__BLOCK_ITEMS;
    /* Acknowledged at one end, appended at the other: two blocks take turns. */
    for (size_t i = 1; i <= 2 && i <= q->dirty_count; i++)
        if (q->dirty[q->dirty_count - i] == block)
            return;
    DB__RESERVE(q->dirty, q->dirty_count, q->dirty_capacity);
    q->dirty[q->dirty_count++] = block;
}

static void reserve(struct db__queue *q)
{
    if (q->end < q->capacity)
        return;
    if (q->count <= q->capacity / 2 && q->capacity) { /* close the gaps instead */
        size_t to = 0;
        for (size_t i = q->first; i < q->end; i++)
            if (q->items[i].message)
                q->items[to++] = q->items[i];
        q->first = 0;
        q->end = to;
        return;
    }
    size_t used = q->end - q->first;
    if (q->first >= q->capacity / 2 && q->first) {
        memmove(q->items, q->items + q->first, used * sizeof *q->items);
        q->first = 0;
        q->end = used;
        return;
    }
    q->capacity = q->capacity ? q->capacity * 2 : 4;
    q->items = db__must_realloc(q->items, q->capacity * sizeof *q->items);
}

/* Its place stays as long as there is an older one. */
static void take_out(struct db *d, struct db__session *s, struct db__queue_item *item)
{
    struct db__queue *q = &s->queue;
    q->count--;
    q->bytes -= item->message->bytes;
    d->durable.stats.queued_count--;
    d->durable.stats.queued_bytes -= item->message->bytes;
    db__queue_touch(q, item->sequence);
    if (item->ids_count > 1)
        free(item->ids);
    db__stored_unref(d, item->message);
    item->message = NULL;
    s->dirty = true;
    while (q->first < q->end && !q->items[q->first].message)
        q->first++;
}

void db__queue_drop_all(struct db *d, struct db__session *s)
{
    struct db__queue *q = &s->queue;
    for (size_t i = q->first; i < q->end; i++)
        if (q->items[i].message)
            take_out(d, s, &q->items[i]);
    /* Every block that has a record held items until now or was changed since the last cut. */
    for (size_t i = 0; i < q->dirty_count; i++)
        db__gone(d, db__store_key_queue(s->epoch, q->dirty[i]));
    db__queue_free(q);
    db__due_set(&d->durable.dues, &s->sweep, INT64_MAX);
}

static void sweep_at(struct db *d, struct db__session *s, int64_t expires_us)
{
    if (expires_us > INT64_MAX - DB_SWEEP_US_MAX)
        return;
    int64_t us = (CHR_MAX(expires_us, d->apply.now_us) / DB_SWEEP_US_MAX + 1) * DB_SWEEP_US_MAX;
    if (us < s->sweep.us)
        db__due_set(&d->durable.dues, &s->sweep, us);
}

void db__queue_sweep(struct db *d, struct db__session *s)
{
    struct db__queue *q = &s->queue;
    int64_t next_us = INT64_MAX;
    for (size_t i = q->first; i < q->end; i++) {
        struct db__queue_item *item = &q->items[i];
        /* What was sent before goes on: the client may have it already. */
        if (!item->message || item->flags & DB__ITEM_RECEIVED || item->sequence <= s->sent)
            continue;
        if (item->message->expires_us > d->apply.now_us) {
            next_us = CHR_MIN(next_us, item->message->expires_us);
            continue;
        }
        s->messages_expired++;
        d->durable.stats.expired++;
        take_out(d, s, item);
    }
    db__due_set(&d->durable.dues, &s->sweep, INT64_MAX);
    sweep_at(d, s, next_us);
    s->dirty = true; /* its time is saved, too */
}

bool db__queue_has_room(const struct db *d, const struct db__session *s, uint32_t bytes)
{
    uint64_t count_max = (uint64_t)s->queue_messages_max + (s->connected ? s->window : 0);
    return (!s->queue_messages_max || s->queue.count < count_max) &&
           (!s->queue_bytes_max || s->queue.bytes + bytes <= s->queue_bytes_max) &&
           (!s->queues_bytes_max || d->durable.stats.queued_bytes + bytes <= s->queues_bytes_max);
}

static void drop(struct db *d, struct db__session *s)
{
    s->dropped++;
    s->dirty = true;
    d->durable.stats.dropped++;
}

/* Makes room by the session's policy. Oldest first means the oldest that the client has not got:
 * what is received keeps its place until it is released. */
static bool make_room(struct db *d, struct db__session *s, uint32_t bytes)
{
    struct db__queue *q = &s->queue;
    if (db__queue_has_room(d, s, bytes))
        return true;
    if (s->sweep.us != INT64_MAX)
        db__queue_sweep(d, s);
    bool could = !s->queue_bytes_max || bytes <= s->queue_bytes_max;
    for (size_t i = q->first; s->drop_oldest && could && i < q->end; i++) {
        if (db__queue_has_room(d, s, bytes))
            break;
        struct db__queue_item *item = &q->items[i];
        if (!item->message || item->flags & DB__ITEM_RECEIVED)
            continue;
        take_out(d, s, item);
        drop(d, s);
    }
    return db__queue_has_room(d, s, bytes);
}

void db__queue_append(struct db *d, struct db__session *s, struct db__stored *m, uint8_t qos,
                      bool retain, const uint32_t *ids, uint32_t ids_count)
{
    struct db__durable *u = &d->durable;
    struct db__queue *q = &s->queue;
    if (!make_room(d, s, m->bytes)) {
        drop(d, s);
        return;
    }
    reserve(q);
    struct db__queue_item *item = &q->items[q->end++];
    *item = (struct db__queue_item){.sequence = s->next_sequence++,
                                    .message = m,
                                    .qos = qos,
                                    .flags = retain ? DB__ITEM_RETAIN : 0,
                                    .ids_count = (uint16_t)CHR_MIN(ids_count, UINT16_MAX)};
    if (item->ids_count == 1) {
        item->id = ids[0];
    } else if (item->ids_count) {
        item->ids = db__must_malloc(item->ids_count * sizeof *item->ids);
        memcpy(item->ids, ids, item->ids_count * sizeof *ids);
    }
    m->refs++;
    q->count++;
    q->bytes += m->bytes;
    u->stats.queued_count++;
    u->stats.queued_bytes += m->bytes;
    db__queue_touch(q, item->sequence);
    sweep_at(d, s, m->expires_us);
    s->dirty = true;
    if (s->woken_at != d->apply.index) {
        s->woken_at = d->apply.index;
        DB__RESERVE(u->woken, u->woken_count, u->woken_capacity);
        u->woken[u->woken_count++] = s->epoch;
    }
}

void db__queue_load(struct db__queue *q, const struct db__queue_item *item)
{
    reserve(q);
    q->items[q->end++] = *item;
    q->count++;
    q->bytes += item->message->bytes;
}

void db__apply_queue_ack(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__queue_ack ack;
    if (op->flags || op->table_id || db__queue_ack_decode(op, &ack)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    struct db__session *s = db__session_by_epoch(&d->sessions, ack.epoch);
    if (!s || ack.generation > s->generation) {
        result->err = CHR_ENOTFOUND;
        return;
    }
    db__durable_write(d);
    struct db__queue *q = &s->queue;
    for (uint32_t i = 0; i < op->count; i++) {
        struct db_sequence_range r = db__range_get(&ack, i);
        for (size_t at = db__queue_find(q, r.first); at < q->end; at++) {
            struct db__queue_item *item = &q->items[at];
            if (item->sequence > r.last)
                break;
            if (!item->message)
                continue;
            if (i < ack.done_count) {
                take_out(d, s, item);
                result->rows++;
            } else if (item->qos == 2 && !(item->flags & DB__ITEM_RECEIVED)) {
                item->flags |= DB__ITEM_RECEIVED;
                db__queue_touch(q, item->sequence);
                s->dirty = true;
                result->rows++;
            }
        }
    }
}

/* -- Readers ------------------------------------------------------------------------------------*/

static uint32_t *copy_ids(const struct db__queue_item *item)
{
    uint32_t *ids = malloc(item->ids_count * sizeof *ids);
    if (ids)
        memcpy(ids, item->ids_count == 1 ? &item->id : item->ids, item->ids_count * sizeof *ids);
    return ids;
}

size_t db_queue_read(db *d, uint64_t epoch, uint64_t from, struct db_queue_item *out, size_t max,
                     uint64_t bytes_max)
{
    struct db__durable *u = &d->durable;
    size_t n = 0;
    uint64_t bytes = 0;
    bool no_memory = false;
    /* Ids of messages that are not in memory, until the lock is given back. */
    uint64_t *cold = malloc((max ? max : 1) * sizeof *cold);
    if (!cold)
        return DB_QUEUE_NO_MEMORY;
    int64_t now_us = chr_hlc_unix_us(db_replicated_time(d));
    pthread_rwlock_rdlock(&u->lock);
    const struct db__session *s = db__session_by_epoch(&d->sessions, epoch);
    const struct db__queue *q = s ? &s->queue : NULL;
    for (size_t i = s ? db__queue_find(q, from) : 0; s && i < q->end && n < max; i++) {
        const struct db__queue_item *item = &q->items[i];
        bool received = item->flags & DB__ITEM_RECEIVED;
        if (!item->message ||
            (!received && item->sequence > s->sent && item->message->expires_us <= now_us))
            continue;
        if (n && bytes + item->message->bytes > bytes_max)
            break;
        uint32_t *ids = item->ids_count ? copy_ids(item) : NULL;
        if (item->ids_count && !ids) {
            no_memory = n == 0;
            break;
        }
        bytes += item->message->bytes;
        cold[n] = item->message->id;
        out[n] = (struct db_queue_item){.sequence = item->sequence,
                                        .message = item->message->body,
                                        .qos = item->qos,
                                        .retain = item->flags & DB__ITEM_RETAIN,
                                        .received = received,
                                        .ids_count = item->ids_count,
                                        .ids = ids};
        if (out[n].message)
            db_message_ref(out[n].message);
        n++;
    }
    pthread_rwlock_unlock(&u->lock);
    /* One that is not in memory is in the store, until a checkpoint that follows its
     * acknowledgement: gone from there means acknowledged meanwhile. */
    for (size_t i = 0; i < n; i++)
        if (!out[i].message)
            out[i].error = db__message_load(d, cold[i], &out[i].message);
    free(cold);
    return no_memory ? DB_QUEUE_NO_MEMORY : n;
}
