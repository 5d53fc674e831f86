/* db/retained.c: the last message of each topic that was published to be kept. Their bodies stay in
 * memory. */
#include <stdlib.h>

#include "db/internal.h"

void db__retained_drop(struct db *d, struct db__stored *m)
{
    struct db__durable *u = &d->durable;
    struct chr_topic_node *node = m->retained;
    db__due_set(&u->dues, &m->due, INT64_MAX);
    u->stats.retained_count--;
    u->stats.retained_bytes -= m->bytes;
    m->retained = NULL;
    node->value = NULL;
    chr_topic_tree_prune(&u->retained, node);
    if (m->state != DB__STORED_NEW)
        db__gone(d, db__store_key(DB__RECORD_RETAINED, m->id));
    if (m->state == DB__STORED_SAVED)
        db__stored_cache(d, m);
    db__stored_unref(d, m);
}

bool db__retained_has(const struct db *d, chr_slice topic)
{
    const struct chr_topic_node *node = chr_topic_tree_find(&d->durable.retained, topic);
    return node && node->value;
}

void db__retained_clear(struct db *d, chr_slice topic)
{
    struct chr_topic_node *node = chr_topic_tree_find(&d->durable.retained, topic);
    if (node && node->value)
        db__retained_drop(d, node->value);
}

void db__retained_set(struct db *d, struct db__stored *m, chr_slice topic)
{
    struct db__durable *u = &d->durable;
    db__retained_clear(d, topic);
    struct chr_topic_node *node = chr_topic_tree_add(&u->retained, topic);
    if (!node)
        db__out_of_memory();
    node->value = m;
    m->retained = node;
    m->refs++;
    u->stats.retained_count++;
    u->stats.retained_bytes += m->bytes;
    db__due_set(&u->dues, &m->due, m->expires_us);
}

/* -- Matching -----------------------------------------------------------------------------------*/

struct visit {
    const struct chr_topic_tree *tree;
    bool (*each)(void *arg, struct db__stored *stored);
    void *arg;
    bool stopped;
};

static void visit_node(struct visit *v, const struct chr_topic_node *node)
{
    if (node->value && !v->stopped)
        v->stopped = !v->each(v->arg, node->value);
}

static bool hidden(const struct visit *v, const struct chr_topic_node *node)
{
    return node->parent == v->tree->root && node->level_len && node->level[0] == '$';
}

/* All below top, itself included; `$` topics only if the first level was named [MQTT-4.7.2-1]. */
static void visit_below(struct visit *v, const struct chr_topic_node *top)
{
    const struct chr_topic_node *n = top;
    while (n && !v->stopped) {
        bool hide = top == v->tree->root && n != top && hidden(v, n);
        if (!hide)
            visit_node(v, n);
        if (n->first_child && !hide) {
            n = n->first_child;
            continue;
        }
        while (n != top && !n->next_sibling)
            n = n->parent;
        n = n == top ? NULL : n->next_sibling;
    }
}

static void walk(struct visit *v, const struct chr_topic_node *node, chr_slice rest, bool end)
{
    if (v->stopped)
        return;
    if (end) {
        visit_node(v, node);
        return;
    }
    const uint8_t *slash = rest.len ? memchr(rest.ptr, '/', rest.len) : NULL;
    chr_slice level = slash ? chr_slice_of(rest.ptr, (size_t)(slash - rest.ptr)) : rest;
    chr_slice next = slash ? chr_slice_of(slash + 1, rest.len - level.len - 1) : (chr_slice){0};
    if (chr_slice_eq(level, CHR_LIT("#"))) {
        visit_below(v, node);
    } else if (chr_slice_eq(level, CHR_LIT("+"))) {
        for (const struct chr_topic_node *c = node->first_child; c; c = c->next_sibling)
            if (!hidden(v, c))
                walk(v, c, next, !slash);
    } else {
        const struct chr_topic_node *c = chr_topic_tree_child(v->tree, node, level);
        if (c)
            walk(v, c, next, !slash);
    }
}

void db__retained_match(const struct db *d, chr_slice filter,
                        bool (*each)(void *arg, struct db__stored *stored), void *arg)
{
    struct visit v = {.tree = &d->durable.retained, .each = each, .arg = arg};
    walk(&v, v.tree->root, filter, false);
}

struct reader {
    bool (*each)(void *arg, struct db_message *message);
    void *arg;
    int64_t now_us;
};

static bool read_one(void *arg, struct db__stored *m)
{
    const struct reader *r = arg;
    return m->expires_us <= r->now_us || r->each(r->arg, m->body);
}

void db_retained_read(db *d, chr_slice filter, int64_t now_us,
                      bool (*each)(void *arg, struct db_message *message), void *arg)
{
    struct reader r = {.each = each, .arg = arg, .now_us = now_us};
    pthread_rwlock_rdlock(&d->durable.lock);
    db__retained_match(d, filter, read_one, &r);
    pthread_rwlock_unlock(&d->durable.lock);
}

void db_retained_stats(db *d, struct db_retained_stats *out)
{
    pthread_rwlock_rdlock(&d->durable.lock);
    *out = (struct db_retained_stats){.count = d->durable.stats.retained_count,
                                      .bytes = d->durable.stats.retained_bytes};
    pthread_rwlock_unlock(&d->durable.lock);
}
