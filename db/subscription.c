/* db/subscription.c: who wants what: filters in a tree by level, each with its subscribers. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "db/internal.h"

static uint64_t hash_of(const struct db__session *s, chr_slice filter, chr_slice group)
{
    return chr_hash_slice(group, chr_hash_slice(filter, chr_hash_u64(s->epoch) ^ chr_hash_seed()));
}

struct db__subscription *db__subscription_find(const struct db *d, const struct db__session *s,
                                               chr_slice filter, chr_slice group)
{
    uint64_t hash = hash_of(s, filter, group);
    struct db__hash_node *n = db__hash_first(&d->durable.subscriptions, hash);
    for (; n; n = n->next) {
        struct db__subscription *sub = CHR_CONTAINER_OF(n, struct db__subscription, hash);
        if (sub->session == s && chr_slice_eq(sub->d.filter, filter) &&
            chr_slice_eq(sub->d.group, group))
            return sub;
    }
    return NULL;
}

static struct db__filter *filter_of(struct db *d, chr_slice filter)
{
    uint32_t node = chr_filter_tree_add(&d->durable.filters, filter);
    if (!node)
        db__out_of_memory();
    union chr_filter_value *value = chr_filter_tree_value(&d->durable.filters, node);
    if (!value->ptr) {
        struct db__filter *f = db__must_calloc(1, sizeof *f);
        f->node = node;
        chr_list_init(&f->plain);
        chr_list_init(&f->groups);
        value->ptr = f;
    }
    return value->ptr;
}

static struct db__group *group_of(struct db__filter *f, chr_slice name)
{
    CHR_LIST_FOR (link, &f->groups) {
        struct db__group *g = CHR_CONTAINER_OF(link, struct db__group, of_filter);
        if (chr_slice_eq(chr_slice_of(g->name, g->name_len), name))
            return g;
    }
    struct db__group *g = db__must_calloc(1, sizeof *g + name.len);
    g->name_len = (uint32_t)name.len;
    memcpy(g->name, name.ptr, name.len);
    chr_list_init(&g->members);
    chr_list_push_back(&f->groups, &g->of_filter);
    return g;
}

static void set_options(struct db__subscription *sub, const struct db_subscription *item)
{
    chr_slice filter = sub->d.filter, group = sub->d.group;
    sub->d = *item;
    sub->d.filter = filter;
    sub->d.group = group;
    sub->dirty = true;
}

static void changed(struct db *d)
{
    atomic_fetch_add_explicit(&d->durable.subscriptions_version, 1, memory_order_release);
}

struct db__subscription *db__subscription_add(struct db *d, struct db__session *s,
                                              const struct db_subscription *item, uint32_t number)
{
    size_t len = item->filter.len + item->group.len;
    struct db__subscription *sub = db__must_calloc(1, sizeof *sub + len);
    memcpy(sub->bytes, item->filter.ptr, item->filter.len);
    if (item->group.len)
        memcpy(sub->bytes + item->filter.len, item->group.ptr, item->group.len);
    sub->d.filter = chr_slice_of(sub->bytes, item->filter.len);
    sub->d.group = chr_slice_of(sub->bytes + item->filter.len, item->group.len);
    set_options(sub, item);
    sub->number = number;
    sub->session = s;
    sub->hash.hash = hash_of(s, item->filter, item->group);
    db__hash_put(&d->durable.subscriptions, &sub->hash);
    sub->filter = filter_of(d, sub->d.filter);
    sub->group = item->group.len ? group_of(sub->filter, item->group) : NULL;
    chr_list_push_back(sub->group ? &sub->group->members : &sub->filter->plain, &sub->of_filter);
    chr_list_push_back(&s->subscriptions, &sub->of_session);
    s->subscriptions_count++;
    d->durable.stats.subscriptions++;
    changed(d);
    return sub;
}

void db__subscription_remove(struct db *d, struct db__subscription *sub)
{
    struct db__filter *f = sub->filter;
    db__gone(d,
             db__store_key_of_session(DB__RECORD_SUBSCRIPTION, sub->session->epoch, sub->number));
    db__hash_remove(&d->durable.subscriptions, &sub->hash);
    chr_list_remove(&sub->of_session);
    chr_list_remove(&sub->of_filter);
    sub->session->subscriptions_count--;
    d->durable.stats.subscriptions--;
    if (sub->group && chr_list_empty(&sub->group->members)) {
        chr_list_remove(&sub->group->of_filter);
        free(sub->group);
    }
    free(sub);
    if (chr_list_empty(&f->plain) && chr_list_empty(&f->groups)) {
        uint32_t node = f->node;
        chr_filter_tree_value(&d->durable.filters, node)->ptr = NULL;
        free(f);
        chr_filter_tree_prune(&d->durable.filters, node);
    }
    changed(d);
}

/* -- Matching -----------------------------------------------------------------------------------*/

struct match {
    void (*visit)(void *arg, struct db__filter *filter);
    void *arg;
};

static void visit(void *arg, const union chr_filter_value *values, uint32_t count)
{
    const struct match *m = arg;
    for (uint32_t i = 0; i < count; i++)
        m->visit(m->arg, values[i].ptr);
}

void db__filters_match(const struct db *d, chr_slice topic,
                       void (*each)(void *arg, struct db__filter *filter), void *arg)
{
    struct match m = {.visit = each, .arg = arg};
    (void)chr_filter_tree_match(&d->durable.filters, topic, visit, &m);
}

/* -- Operations ---------------------------------------------------------------------------------*/

/* Retained messages a subscription gets. */
struct collected {
    struct db__stored **list;
    size_t count, capacity;
    int64_t now_us;
};

static bool collect(void *arg, struct db__stored *m)
{
    struct collected *c = arg;
    if (m->expires_us > c->now_us && m->body->qos > 0) {
        DB__RESERVE(c->list, c->count, c->capacity);
        c->list[c->count++] = m;
    }
    return true;
}

/* The tree's order is not the same on every node; that of ids is (D1). */
static int stored_cmp(const void *a, const void *b)
{
    uint64_t x = (*(struct db__stored *const *)a)->id, y = (*(struct db__stored *const *)b)->id;
    return (x > y) - (x < y);
}

static void queue_retained(struct db *d, struct db__session *s, const struct db_subscription *item)
{
    struct collected c = {.now_us = d->apply.now_us};
    db__retained_match(d, item->filter, collect, &c);
    if (c.count)
        qsort(c.list, c.count, sizeof *c.list, stored_cmp);
    for (size_t i = 0; i < c.count; i++) {
        struct db__stored *m = c.list[i];
        if (!item->no_local || m->body->publisher != s->epoch)
            db__queue_append(d, s, m, CHR_MIN(item->qos, m->body->qos), true, &item->id,
                             item->id != 0);
    }
    free(c.list);
}

static struct db__session *decode(struct db *d, const struct db__op *op, struct db__filters *f,
                                  struct db_op_result *result)
{
    if (op->flags || op->table_id || db__filters_decode(op, &d->apply.arena, f)) {
        result->err = CHR_ECORRUPT;
        return NULL;
    }
    struct db__session *s = db__session_by_epoch(&d->sessions, f->epoch);
    if (!s || s->generation != f->generation) {
        result->err = CHR_ENOTFOUND;
        return NULL;
    }
    db__durable_write(d);
    return s;
}

void db__apply_subscribe(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__filters f;
    struct db__session *s = decode(d, op, &f, result);
    for (uint32_t i = 0; s && i < op->count; i++) {
        const struct db_subscription *item = &f.items[i];
        struct db__subscription *sub = db__subscription_find(d, s, item->filter, item->group);
        if (!sub && s->subscriptions_count >= DB_SUBSCRIPTIONS_MAX)
            break;
        bool send = item->retain_handling == 0 || (item->retain_handling == 1 && !sub);
        if (sub) {
            set_options(sub, item);
            changed(d);
        } else {
            db__subscription_add(d, s, item, s->next_subscription++);
        }
        s->dirty = true;
        result->rows++;
        if (send && item->qos && !item->group.len)
            queue_retained(d, s, item);
    }
}

void db__apply_unsubscribe(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__filters f;
    struct db__session *s = decode(d, op, &f, result);
    for (uint32_t i = 0; s && i < op->count; i++) {
        struct db__subscription *sub =
            db__subscription_find(d, s, f.items[i].filter, f.items[i].group);
        if (sub) {
            db__subscription_remove(d, sub);
            result->rows++;
        }
    }
}

/* -- Readers ------------------------------------------------------------------------------------*/

void db_subscriptions_read(db *d, uint64_t epoch,
                           void (*each)(void *arg, const struct db_subscription *subscription),
                           void *arg)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    const struct db__session *s = db__session_by_epoch(&d->sessions, epoch);
    if (s)
        CHR_LIST_FOR (link, &s->subscriptions)
            each(arg, &CHR_CONTAINER_OF(link, struct db__subscription, of_session)->d);
    pthread_rwlock_unlock(&d->durable.lock);
}

uint64_t db_subscriptions_version(const db *d)
{
    return atomic_load_explicit(&((db *)d)->durable.subscriptions_version, memory_order_acquire);
}

static void has_qos(void *arg, struct db__filter *f)
{
    bool *any = arg;
    CHR_LIST_FOR (link, &f->plain)
        *any = *any || CHR_CONTAINER_OF(link, struct db__subscription, of_filter)->d.qos;
    CHR_LIST_FOR (link, &f->groups) {
        struct db__group *g = CHR_CONTAINER_OF(link, struct db__group, of_filter);
        CHR_LIST_FOR (member, &g->members)
            *any = *any || CHR_CONTAINER_OF(member, struct db__subscription, of_filter)->d.qos;
    }
}

bool db_subscribed(db *d, chr_slice topic)
{
    bool any = false;
    pthread_rwlock_rdlock(&d->durable.lock);
    db__filters_match(d, topic, has_qos, &any);
    pthread_rwlock_unlock(&d->durable.lock);
    return any;
}
