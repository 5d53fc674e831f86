/* db/will.c: messages that clients leave behind (M5).
 *
 *     SESSION_OPEN ─▶ pending ─connection lost─▶ delayed ─▶ due ─GUARDS─▶ taken
 *                        └────── DB_WILL_DROP, or back in time ──────▶ dropped
 *
 * What is due no longer belongs to its session, which may end. */
#include <stdlib.h>

#include "base/hash.h"
#include "db/internal.h"

static uint64_t hash_of(uint64_t epoch, uint32_t generation)
{
    return chr_hash_u64(epoch * UINT64_C(0x9e3779b97f4a7c15) + generation);
}

struct db__will *db__will_find(const struct db *d, uint64_t epoch, uint32_t generation)
{
    uint64_t hash = hash_of(epoch, generation);
    for (struct db__hash_node *n = db__hash_first(&d->durable.wills, hash); n; n = n->next) {
        struct db__will *w = CHR_CONTAINER_OF(n, struct db__will, hash);
        if (w->epoch == epoch && w->generation == generation)
            return w;
    }
    return NULL;
}

void db__will_link(struct db *d, struct db__will *w)
{
    int64_t due_us = w->due.us;
    w->hash.hash = hash_of(w->epoch, w->generation);
    db__hash_put(&d->durable.wills, &w->hash);
    /* Two connections of a session never have wills waiting at once: the epoch is unique here. */
    w->due = (struct db__due){.us = INT64_MAX, .tie = w->epoch, .kind = DB__DUE_WILL};
    chr_list_init(&w->node);
    if (w->is_due)
        chr_list_push_back(&d->durable.due_wills, &w->node);
    else
        db__due_set(&d->durable.dues, &w->due, due_us);
    d->durable.stats.wills++;
}

void db__will_set(struct db *d, struct db__session *s, const struct db_will *will)
{
    struct db__will *w = db__must_calloc(1, sizeof *w);
    w->epoch = s->epoch;
    w->generation = s->generation;
    w->delay_s = will->delay_s;
    w->message_expiry_s = will->message_expiry_s;
    w->by_node = s->node;
    w->by_boot = s->boot;
    w->session = s;
    w->dirty = true;
    w->message = db__message_new(will->topic, will->properties, will->payload, will->qos,
                                 will->retain, INT64_MAX, s->epoch);
    if (!w->message)
        db__out_of_memory();
    w->due.us = INT64_MAX;
    db__will_link(d, w);
    s->will = w;
}

void db__will_drop(struct db *d, struct db__will *w)
{
    if (!w)
        return;
    db__hash_remove(&d->durable.wills, &w->hash);
    db__due_set(&d->durable.dues, &w->due, INT64_MAX);
    chr_list_remove(&w->node);
    if (w->session)
        w->session->will = NULL;
    db__gone(d, db__store_key_of_session(DB__RECORD_WILL, w->epoch, w->generation));
    d->durable.stats.wills--;
    db_message_unref(w->message);
    free(w);
}

void db__will_due(struct db *d, struct db__will *w)
{
    struct db__durable *u = &d->durable;
    db__due_set(&u->dues, &w->due, INT64_MAX);
    if (w->session)
        w->session->will = NULL;
    w->session = NULL;
    w->is_due = w->dirty = true;
    w->due_order = u->next_due_order++;
    chr_list_push_back(&u->due_wills, &w->node);
    DB__RESERVE(u->due, u->due_count, u->due_capacity);
    u->due[u->due_count++] = (struct db_due_will){.epoch = w->epoch,
                                                  .generation = w->generation,
                                                  .message_expiry_s = w->message_expiry_s,
                                                  .message = w->message,
                                                  .node = w->by_node,
                                                  .boot = w->by_boot};
    db_message_ref(w->message);
}

bool db__will_take(struct db *d, uint64_t epoch, uint32_t generation)
{
    struct db__will *w = db__will_find(d, epoch, generation);
    if (!w || !w->is_due)
        return false;
    db__durable_write(d);
    db__will_drop(d, w);
    return true;
}

void db_wills_read(db *d, void (*each)(void *arg, const struct db_due_will *will), void *arg)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    CHR_LIST_FOR (link, &d->durable.due_wills) {
        const struct db__will *w = CHR_CONTAINER_OF(link, struct db__will, node);
        each(arg, &(struct db_due_will){.epoch = w->epoch,
                                        .generation = w->generation,
                                        .message_expiry_s = w->message_expiry_s,
                                        .message = w->message,
                                        .node = w->by_node,
                                        .boot = w->by_boot});
    }
    pthread_rwlock_unlock(&d->durable.lock);
}
