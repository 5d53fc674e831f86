/* db/publish.c: MESSAGE at apply: retained, then into the queues of whom it is for (M3, M4). */
#include <stdlib.h>

#include "db/internal.h"

struct match {
    struct db *d;
    const struct db_publish *publish;
    uint32_t bytes;
    uint64_t id;
};

static struct db__recipient *recipient_add(struct db__durable *u, struct db__session *s)
{
    DB__RESERVE(u->recipients, u->recipients_count, u->recipients_capacity);
    struct db__recipient *r = &u->recipients[u->recipients_count++];
    *r = (struct db__recipient){.session = s};
    return r;
}

static void add_subscription(struct db__durable *u, struct db__recipient *r,
                             const struct db__subscription *sub, const struct db_publish *p)
{
    r->qos = CHR_MAX(r->qos, sub->d.qos);
    r->retain = r->retain || (sub->d.retain_as_published && p->retain);
    if (!sub->d.id)
        return;
    DB__RESERVE(u->ids, u->ids_count, u->ids_capacity);
    u->ids[u->ids_count][0] = sub->d.id;
    u->ids[u->ids_count][1] = r->ids_at;
    r->ids_at = (uint32_t)++u->ids_count;
    r->ids_count++;
}

static bool left_out(const struct db__subscription *sub, const struct db_publish *p)
{
    return sub->d.no_local && p->publisher && sub->session->epoch == p->publisher;
}

/* Is a before b in the order of M4? */
static bool before(const struct match *m, const struct db__subscription *a,
                   const struct db__subscription *b)
{
    bool room_a = db__queue_has_room(m->d, a->session, m->bytes);
    bool room_b = db__queue_has_room(m->d, b->session, m->bytes);
    if (room_a != room_b)
        return room_a;
    if (a->session->connected != b->session->connected)
        return a->session->connected;
    return a->served != b->served ? a->served < b->served : a->session->epoch < b->session->epoch;
}

static void choose(struct match *m, struct db__group *g)
{
    struct db__subscription *best = NULL;
    CHR_LIST_FOR (link, &g->members) {
        struct db__subscription *sub = CHR_CONTAINER_OF(link, struct db__subscription, of_filter);
        if (sub->d.qos && (!best || before(m, sub, best)))
            best = sub;
    }
    if (!best)
        return;
    struct db__recipient *r = recipient_add(&m->d->durable, best->session);
    r->number = best->number;
    r->shared = best;
    add_subscription(&m->d->durable, r, best, m->publish);
}

static void visit(void *arg, struct db__filter *f)
{
    struct match *m = arg;
    struct db__durable *u = &m->d->durable;
    CHR_LIST_FOR (link, &f->plain) {
        struct db__subscription *sub = CHR_CONTAINER_OF(link, struct db__subscription, of_filter);
        struct db__session *s = sub->session;
        if (left_out(sub, m->publish))
            continue;
        if (s->match_stamp != u->stamp) {
            s->match_stamp = u->stamp;
            s->match_at = u->recipients_count;
            recipient_add(u, s);
        }
        add_subscription(u, &u->recipients[s->match_at], sub, m->publish);
    }
    CHR_LIST_FOR (link, &f->groups)
        choose(m, CHR_CONTAINER_OF(link, struct db__group, of_filter));
}

/* Lists of subscribers are not in the same order on every node; limits must see the same (D1). */
static int recipient_cmp(const void *a, const void *b)
{
    const struct db__recipient *x = a, *y = b;
    if (x->session->epoch != y->session->epoch)
        return x->session->epoch < y->session->epoch ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

static int id_cmp(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void queue_for(struct db *d, const struct db__recipient *r, struct db__stored *m,
                      uint8_t qos)
{
    uint32_t *ids = CHR_ARENA_ARRAY(&d->apply.arena, uint32_t, r->ids_count + 1);
    uint32_t n = 0;
    if (!ids)
        db__out_of_memory();
    for (uint32_t at = r->ids_at; at; at = d->durable.ids[at - 1][1])
        ids[n++] = d->durable.ids[at - 1][0];
    if (n > 1)
        qsort(ids, n, sizeof *ids, id_cmp);
    db__queue_append(d, r->session, m, CHR_MIN(qos, r->qos), r->retain, ids, n);
}

static uint32_t queue_all(struct db *d, const struct db_publish *p, struct db__stored *m)
{
    struct db__durable *u = &d->durable;
    struct match match = {.d = d, .publish = p, .bytes = m->bytes, .id = m->id};
    uint32_t queued = 0;
    u->stamp++;
    u->recipients_count = u->ids_count = 0;
    db__filters_match(d, p->topic, visit, &match);
    if (u->recipients_count > 1)
        qsort(u->recipients, u->recipients_count, sizeof *u->recipients, recipient_cmp);
    for (size_t i = 0; i < u->recipients_count; i++) {
        const struct db__recipient *r = &u->recipients[i];
        if (!r->qos)
            continue;
        if (r->shared) {
            r->shared->served = m->id;
            r->shared->dirty = true;
            r->session->dirty = true;
        }
        uint64_t before_sequence = r->session->next_sequence;
        queue_for(d, r, m, p->qos);
        queued += r->session->next_sequence != before_sequence;
    }
    return queued;
}

void db__apply_message(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__apply *a = &d->apply;
    struct db_publish p;
    if (op->flags & ~DB_OP_GUARDED || op->table_id || db__message_decode(op, &p) ||
        (p.guard != UINT32_MAX && (!a->has_guards || p.guard >= a->guards_count))) {
        result->err = CHR_ECORRUPT;
        return;
    }
    if (p.guard != UINT32_MAX &&
        (db_bit_get(a->duplicates, p.guard) || db_bit_get(a->gone, p.guard)))
        return;
    db__durable_write(d);
    uint64_t ordinal = (uint64_t)(result - a->results);
    struct db_message *body = db__message_new(p.topic, p.properties, p.payload, p.qos, p.retain,
                                              db__time_after(a->now_us, p.expiry_s), p.publisher);
    if (!body)
        db__out_of_memory();
    struct db__stored *m = db__stored_new(d, a->index << DB__MESSAGE_ID_SHIFT | ordinal, body);
    /* [MQTT-3.3.1-6, -7]. What expires at once replaces what was retained and is not kept: it would
     * be due at the replicated time that it came with, which no tick can pass. */
    if (p.retain && (p.payload.len == 0 || p.expiry_s == 0))
        db__retained_clear(d, p.topic);
    else if (p.retain)
        db__retained_set(d, m, p.topic);
    if (p.qos)
        result->rows = queue_all(d, &p, m);
    db__stored_unref(d, m);
}

/* -- For others ---------------------------------------------------------------------------------*/

void db_entry_messages(chr_slice operations, const struct db_apply_result *result,
                       void (*each)(void *arg, const struct db_publish *publish), void *arg)
{
    struct db__entry_view entry;
    struct db__op op;
    struct db_publish p;
    if (result->err || db__entry_decode(operations, &entry))
        return;
    chr_slice rest = entry.ops;
    for (uint32_t i = 0; i < result->ops_count && db__op_next(&rest, &op); i++) {
        if (op.type != DB_OP_MESSAGE || result->ops[i].err || db__message_decode(&op, &p))
            continue;
        bool guarded = p.guard < result->guards_count;
        if (guarded &&
            (db_bit_get(result->duplicates, p.guard) || db_bit_get(result->gone, p.guard)))
            continue;
        each(arg, &p);
    }
}
