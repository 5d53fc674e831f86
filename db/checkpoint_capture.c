/* db/checkpoint_capture.c: small state as of the cut: sessions and request keys that changed since
 * the cut before, as records ready to be written. They wait here until a checkpoint is saved; later
 * captures of the same record come after and win. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/checkpoint.h"
#include "db/durable_save.h"

void db__pending_add(struct db__checkpoint *cp, struct db__store_key key, chr_slice value)
{
    DB__RESERVE(cp->pending, cp->pending_count, cp->pending_capacity);
    struct db__pending *p = &cp->pending[cp->pending_count];
    *p = (struct db__pending){.key = key, .order = cp->pending_count++};
    if (!value.ptr)
        return;
    p->value = db__must_malloc(value.len);
    memcpy(p->value, value.ptr, value.len);
    p->len = value.len;
}

void db__pending_free(struct db__checkpoint *cp)
{
    for (size_t i = 0; i < cp->pending_count; i++)
        free(cp->pending[i].value);
    cp->pending_count = 0;
}

static int pending_cmp(const void *a, const void *b)
{
    const struct db__pending *x = a, *y = b;
    int c = chr_slice_cmp(db__key_slice(&x->key), db__key_slice(&y->key));
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

/* Of several captures of a record the last one stays: while checkpoints fail, a disk full for
 * hours, what waits must not grow with each attempt. */
static void pending_compact(struct db__checkpoint *cp)
{
    size_t kept = 0;
    qsort(cp->pending, cp->pending_count, sizeof *cp->pending, pending_cmp);
    for (size_t i = 0; i < cp->pending_count; i++) {
        const struct db__pending *p = &cp->pending[i];
        if (i + 1 < cp->pending_count &&
            chr_slice_eq(db__key_slice(&p->key), db__key_slice(&p[1].key))) {
            free(p->value);
            continue;
        }
        cp->pending[kept] = *p;
        cp->pending[kept].order = kept;
        kept++;
    }
    cp->pending_count = kept;
}

static void must_pack(struct db__checkpoint *cp, enum db__record kind,
                      const ProtobufCMessage *message)
{
    if (db__value_pack(&cp->buf, kind, message))
        db__out_of_memory();
}

static void capture_session(struct db__checkpoint *cp, struct db__session *s)
{
    Chronos__Catalog__Session pb = CHRONOS__CATALOG__SESSION__INIT;
    uint8_t *guards = db__must_malloc((size_t)s->guards_count * 2);
    for (uint32_t i = 0; i < s->guards_count; i++)
        chr_put_u16le(guards + (size_t)i * 2, s->guards[i]);
    pb.client_id =
        (ProtobufCBinaryData){.len = s->client_id.len, .data = (uint8_t *)s->client_id.ptr};
    pb.owner = (ProtobufCBinaryData){.len = s->owner.len, .data = (uint8_t *)s->owner.ptr};
    pb.owned = s->has_owner;
    pb.epoch = s->epoch;
    pb.generation = s->generation;
    pb.expiry_s = s->expiry_s;
    pb.connected = s->connected;
    pb.node = s->node;
    pb.boot = s->boot;
    pb.expires_us = s->expires_us;
    pb.queue_messages_max = s->queue_messages_max;
    pb.window = s->window;
    pb.queue_bytes_max = s->queue_bytes_max;
    pb.queues_bytes_max = s->queues_bytes_max;
    pb.drop_oldest = s->drop_oldest;
    pb.next_sequence = s->next_sequence;
    pb.sent = s->sent;
    pb.dropped = s->dropped;
    pb.messages_expired = s->messages_expired;
    pb.next_subscription = s->next_subscription;
    pb.sweeps = s->sweep.at != 0;
    pb.sweep_us = pb.sweeps ? s->sweep.us : 0;
    pb.guards = (ProtobufCBinaryData){.len = (size_t)s->guards_count * 2, .data = guards};
    must_pack(cp, DB__RECORD_SESSION, &pb.base);
    db__pending_add(cp, db__store_key(DB__RECORD_SESSION, s->epoch), chr_buf_slice(&cp->buf));
    free(guards);
    s->dirty = false;
}

static void capture_request(struct db__checkpoint *cp, const struct db__request_key *k,
                            uint64_t sequence)
{
    Chronos__Catalog__RequestKey pb = CHRONOS__CATALOG__REQUEST_KEY__INIT;
    pb.user = (ProtobufCBinaryData){.len = k->user_len, .data = (uint8_t *)k->bytes};
    pb.key = (ProtobufCBinaryData){.len = k->key_len, .data = (uint8_t *)k->bytes + k->user_len};
    pb.time_us = k->time_us;
    must_pack(cp, DB__RECORD_REQUEST, &pb.base);
    db__pending_add(cp, db__store_key(DB__RECORD_REQUEST, sequence), chr_buf_slice(&cp->buf));
}

void db__checkpoint_capture(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct db__sessions *ss = &d->sessions;
    bool again = cp->pending_count > 0;
    db__durable_capture(d);
    for (size_t i = 0; i < ss->ended_count; i++)
        db__pending_add(cp, db__store_key(DB__RECORD_SESSION, ss->ended[i]), (chr_slice){0});
    ss->ended_count = 0;
    for (size_t i = 0; i < ss->capacity; i++)
        if (ss->by_id[i] && ss->by_id[i]->dirty)
            capture_session(cp, ss->by_id[i]);
    /* Sequence numbers of keys that were undone are used again, but never below a cut's next. */
    const struct db__request_keys *ks = &d->requests;
    for (uint64_t s = CHR_MAX(ks->first, cp->request_next); s < ks->next; s++)
        capture_request(cp, db__request_key_at(ks, s), s);
    if (again)
        pending_compact(cp);
    cp->origins = d->origins;
    cp->request_first = ks->first;
    cp->request_next = ks->next;
    cp->next_table_id = d->next_table_id;
    cp->rows_applied = atomic_load_explicit(&d->counts.rows_applied, memory_order_relaxed);
    cp->rows_deleted = atomic_load_explicit(&d->counts.rows_deleted, memory_order_relaxed);
    for (size_t i = 0; i < d->dropped_count; i++) {
        DB__RESERVE(cp->dropped, cp->dropped_count, cp->dropped_capacity);
        cp->dropped[cp->dropped_count++] = d->dropped[i];
    }
    d->dropped_count = 0;
}
