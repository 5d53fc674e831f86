/* db/durable.c: what outlives connections, as a whole: its lock, its end of entries, what is due.
 */
#include <stdlib.h>

#include "db/internal.h"

chr_err db__durable_init(struct db *d)
{
    struct db__durable *u = &d->durable;
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    /* Loops read all the time; the applier must not starve. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&u->lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    chr_list_init(&u->unsaved);
    chr_list_init(&u->cached);
    chr_list_init(&u->due_wills);
    if (chr_filter_tree_init(&u->filters) || chr_topic_tree_init(&u->retained))
        return CHR_ENOMEM;
    return CHR_OK;
}

static void forget_due(struct db__durable *u)
{
    for (size_t i = 0; i < u->due_count; i++)
        db_message_unref(u->due[i].message);
    u->due_count = 0;
}

/* Nothing else runs; the checkpoint has let go. */
void db__durable_free(struct db *d)
{
    struct db__durable *u = &d->durable;
    if (!u->unsaved.next)
        return; /* never begun */
    for (size_t i = 0; i < d->sessions.capacity; i++) {
        struct db__session *s = d->sessions.by_id[i];
        if (!s)
            continue;
        while (!chr_list_empty(&s->subscriptions))
            db__subscription_remove(
                d, CHR_CONTAINER_OF(s->subscriptions.next, struct db__subscription, of_session));
        db__queue_drop_all(d, s);
    }
    for (size_t i = 0; u->wills.buckets && i <= u->wills.mask; i++)
        while (u->wills.buckets[i])
            db__will_drop(d, CHR_CONTAINER_OF(u->wills.buckets[i], struct db__will, hash));
    struct chr_topic_node *n = u->retained.root;
    while (n && n->first_child) {
        while (n->first_child)
            n = n->first_child;
        db__retained_drop(d, n->value); /* a leaf has one */
        n = u->retained.root;
    }
    forget_due(u);
    chr_filter_tree_free(&u->filters);
    if (u->retained.root)
        chr_topic_tree_free(&u->retained);
    db__dues_free(&u->dues);
    free(u->subscriptions.buckets);
    free(u->wills.buckets);
    free(u->gone);
    free(u->recipients);
    free(u->ids);
    free(u->woken);
    free(u->due);
    free(u->lost);
    pthread_rwlock_destroy(&u->lock);
}

void db__gone(struct db *d, struct db__store_key key)
{
    struct db__durable *u = &d->durable;
    DB__RESERVE(u->gone, u->gone_count, u->gone_capacity);
    u->gone[u->gone_count++] = key;
}

void db__durable_write(struct db *d)
{
    if (d->durable.locked)
        return;
    pthread_rwlock_wrlock(&d->durable.lock);
    d->durable.locked = true;
}

void db__durable_entry_begin(struct db *d)
{
    d->durable.woken_count = d->durable.lost_count = 0;
    if (d->durable.due_count)
        forget_due(&d->durable);
}

static int u64_cmp(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void db__durable_entry_end(struct db *d, struct db_apply_result *result)
{
    struct db__durable *u = &d->durable;
    if (u->locked) {
        u->locked = false;
        pthread_rwlock_unlock(&u->lock);
    }
    if (u->woken_count > 1)
        qsort(u->woken, u->woken_count, sizeof *u->woken, u64_cmp);
    result->woken = u->woken;
    result->woken_count = (uint32_t)u->woken_count;
    result->wills = u->due;
    result->wills_count = (uint32_t)u->due_count;
    result->lost = u->lost;
    result->lost_count = (uint32_t)u->lost_count;
}

void db__durable_expire(struct db *d)
{
    struct db__durable *u = &d->durable;
    struct db__due *due;
    while ((due = db__due_first(&u->dues)) && due->us <= d->apply.now_us) {
        db__durable_write(d);
        switch (due->kind) {
        case DB__DUE_WILL:
            db__will_due(d, CHR_CONTAINER_OF(due, struct db__will, due));
            break;
        case DB__DUE_RETAINED:
            db__retained_drop(d, CHR_CONTAINER_OF(due, struct db__stored, due));
            break;
        case DB__DUE_SWEEP:
            db__queue_sweep(d, CHR_CONTAINER_OF(due, struct db__session, sweep));
            break;
        }
    }
}

int64_t db__durable_due(const struct db *d)
{
    const struct db__due *due = db__due_first(&d->durable.dues);
    return due ? due->us : INT64_MAX;
}

/* -- Readers ------------------------------------------------------------------------------------*/

static struct db_session_info info_of(const struct db__session *s)
{
    return (struct db_session_info){
        .client_id = s->client_id,
        .epoch = s->epoch,
        .generation = s->generation,
        .expiry_s = s->expiry_s,
        .connected = s->connected,
        .node = s->node,
        .boot = s->boot,
        .expires_us = s->expires_us,
        .sent = s->sent,
        .next_sequence = s->next_sequence,
        .subscriptions_count = s->subscriptions_count,
        .queued_count = s->queue.count,
        .queued_bytes = s->queue.bytes,
        .dropped = s->dropped,
        .expired = s->messages_expired,
    };
}

void db_sessions_read(db *d, void (*each)(void *arg, const struct db_session_info *session),
                      void *arg)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    for (size_t i = 0; i < d->sessions.capacity; i++) {
        const struct db__session *s = d->sessions.by_id[i];
        if (s) {
            struct db_session_info info = info_of(s);
            each(arg, &info);
        }
    }
    pthread_rwlock_unlock(&d->durable.lock);
}

bool db_session_read(db *d, uint64_t epoch, struct db_session_info *out)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    const struct db__session *s = db__session_by_epoch(&d->sessions, epoch);
    if (s) {
        *out = info_of(s);
        out->client_id = (chr_slice){0};
    }
    pthread_rwlock_unlock(&d->durable.lock);
    return s != NULL;
}

bool db_session_known(db *d, chr_slice client_id)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    bool known = db__session_find(&d->sessions, client_id) != NULL;
    pthread_rwlock_unlock(&d->durable.lock);
    return known;
}

void db_node_starts_read(db *d,
                         void (*each)(void *arg, uint64_t node, uint64_t boot, uint64_t connected),
                         void *arg)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    for (size_t i = 0; i < d->sessions.starts_count; i++) {
        const struct db__node_start *p = &d->sessions.starts[i];
        each(arg, p->node, p->boot, p->connected);
    }
    pthread_rwlock_unlock(&d->durable.lock);
}

void db_durable_stats(db *d, struct db_durable_stats *out)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    *out = d->durable.stats;
    out->sessions = d->sessions.count;
    out->lasting = d->sessions.lasting;
    pthread_rwlock_unlock(&d->durable.lock);
}
