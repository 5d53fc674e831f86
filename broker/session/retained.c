#include "broker/session/retained.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/topic_tree.h"
#include "proto/mqtt/topic.h"

struct retained {
    pthread_rwlock_t lock;
    struct chr_topic_tree tree; /* value: struct message, one reference */
    uint64_t count_max, bytes_max;
    struct retained_stats stats;
    uint64_t expiring; /* messages with an expiry: nothing to sweep without */
};

chr_err retained_new(uint64_t count_max, uint64_t bytes_max, struct retained **out)
{
    struct retained *r = calloc(1, sizeof *r);
    if (!r || chr_topic_tree_init(&r->tree)) {
        free(r);
        return CHR_ENOMEM;
    }
    pthread_rwlock_init(&r->lock, NULL);
    r->count_max = count_max;
    r->bytes_max = bytes_max;
    *out = r;
    return CHR_OK;
}

/* The node after n in a walk of the whole tree: children first. */
static struct chr_topic_node *next_node(const struct chr_topic_tree *tree, struct chr_topic_node *n)
{
    if (n->first_child)
        return n->first_child;
    while (n != tree->root && !n->next_sibling)
        n = n->parent;
    return n == tree->root ? NULL : n->next_sibling;
}

void retained_free(struct retained *r)
{
    if (!r)
        return;
    for (struct chr_topic_node *n = next_node(&r->tree, r->tree.root); n;
         n = next_node(&r->tree, n))
        message_unref(n->value);
    chr_topic_tree_free(&r->tree);
    pthread_rwlock_destroy(&r->lock);
    free(r);
}

static void count_out(struct retained *r, const struct message *message)
{
    if (!message)
        return;
    r->expiring -= message->has_expiry;
    if (message->own)
        return;
    r->stats.count--;
    r->stats.bytes -= message_bytes(message);
}

static chr_err set_locked(struct retained *r, struct message *message, struct message **old)
{
    if (message->payload.len == 0) {
        /* An empty payload removes what is there and is not kept itself [MQTT-3.3.1-6, -7]. */
        struct chr_topic_node *node = chr_topic_tree_find(&r->tree, message->topic);
        if (node && node->value) {
            *old = node->value;
            count_out(r, *old);
            node->value = NULL;
            chr_topic_tree_prune(&r->tree, node);
        }
        return CHR_OK;
    }
    struct chr_topic_node *node = chr_topic_tree_find(&r->tree, message->topic);
    struct message *present = node ? node->value : NULL;
    uint64_t freed = present && !present->own ? message_bytes(present) : 0;
    if (!message->own && ((!present && r->stats.count >= r->count_max) ||
                          r->stats.bytes - freed + message_bytes(message) > r->bytes_max)) {
        r->stats.refused++;
        return CHR_EFULL;
    }
    if (!node)
        node = chr_topic_tree_add(&r->tree, message->topic);
    if (!node)
        return CHR_ENOMEM;
    *old = present;
    count_out(r, present);
    message_ref(message);
    node->value = message;
    r->expiring += message->has_expiry;
    if (!message->own) {
        r->stats.count++;
        r->stats.bytes += message_bytes(message);
    }
    return CHR_OK;
}

chr_err retained_set(struct retained *r, struct message *message)
{
    struct message *old = NULL;

    pthread_rwlock_wrlock(&r->lock);
    chr_err err = set_locked(r, message, &old);
    pthread_rwlock_unlock(&r->lock);
    message_unref(old);
    return err;
}

struct visit {
    bool (*each)(void *arg, struct message *message);
    void *arg;
    int64_t now_us;
    bool stopped;
};

static void visit_node(struct visit *v, const struct chr_topic_node *node)
{
    struct message *m = node->value;
    if (m && !v->stopped && !(m->has_expiry && m->expires_mono_us <= v->now_us))
        v->stopped = !v->each(v->arg, m);
}

/* All below node, itself included; `$` topics only if the first level was named [MQTT-4.7.2-1]. */
static void visit_below(struct visit *v, const struct chr_topic_tree *tree,
                        struct chr_topic_node *top)
{
    struct chr_topic_node *n = top;
    while (n && !v->stopped) {
        bool hidden =
            n->parent == tree->root && top == tree->root && n->level_len && n->level[0] == '$';
        if (!hidden)
            visit_node(v, n);
        if (n->first_child && !hidden) {
            n = n->first_child;
            continue;
        }
        while (n != top && !n->next_sibling)
            n = n->parent;
        n = n == top ? NULL : n->next_sibling;
    }
}

static void walk(struct visit *v, const struct chr_topic_tree *tree, struct chr_topic_node *node,
                 struct mqtt_level_iter it)
{
    chr_slice level;
    if (v->stopped)
        return;
    if (!mqtt_level_next(&it, &level)) {
        visit_node(v, node);
        return;
    }
    if (chr_slice_eq(level, CHR_LIT("#"))) {
        visit_below(v, tree, node);
    } else if (chr_slice_eq(level, CHR_LIT("+"))) {
        for (struct chr_topic_node *c = node->first_child; c && !v->stopped; c = c->next_sibling)
            if (node != tree->root || c->level_len == 0 || c->level[0] != '$')
                walk(v, tree, c, it);
    } else {
        struct chr_topic_node *c = chr_topic_tree_child(tree, node, level);
        if (c)
            walk(v, tree, c, it);
    }
}

void retained_match(struct retained *r, chr_slice filter, int64_t now_mono_us,
                    bool (*each)(void *arg, struct message *message), void *arg)
{
    struct visit v = {.each = each, .arg = arg, .now_us = now_mono_us};
    pthread_rwlock_rdlock(&r->lock);
    walk(&v, &r->tree, r->tree.root, mqtt_level_iter(filter));
    pthread_rwlock_unlock(&r->lock);
}

void retained_sweep(struct retained *r, int64_t now_mono_us)
{
    pthread_rwlock_wrlock(&r->lock);
    struct chr_topic_node *n = r->expiring ? next_node(&r->tree, r->tree.root) : NULL;
    while (n) {
        struct message *m = n->value;
        struct chr_topic_node *next = next_node(&r->tree, n);
        if (m && m->has_expiry && m->expires_mono_us <= now_mono_us) {
            count_out(r, m);
            n->value = NULL;
            message_unref(m);
            /* A leaf goes, and with it what only led to it. Its successor in the walk is no leaf's
             * ancestor, so it stays. */
            chr_topic_tree_prune(&r->tree, n);
        }
        n = next;
    }
    pthread_rwlock_unlock(&r->lock);
}

void retained_stats(struct retained *r, struct retained_stats *out)
{
    pthread_rwlock_rdlock(&r->lock);
    *out = r->stats;
    pthread_rwlock_unlock(&r->lock);
}
