/* broker/session/subscriptions.c: the shared tree of filters. See the header for who may do what.
 */
#include "broker/session/subscriptions.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/topic_tree.h"
#include "broker/net/loop.h"
#include "broker/session/authorize.h"
#include "broker/session/inspect.h"
#include "broker/session/session.h"
#include "proto/mqtt/encode.h"
#include "proto/mqtt/topic.h"

#define BUCKETS_FIRST 64u

/* The members of one $share/<name>/<filter>. */
struct share_group {
    struct share_group *next; /* of the filter's node */
    struct subscription *members;
    /* Whose turn it is; NULL: the first. Picking needs the lock for reading only, so two loops may
     * pick the same member now and then: fair enough. */
    _Atomic(struct subscription *) turn;
    uint32_t number;        /* never 0; of this group alone, also when it is made anew later */
    uint32_t durable_count; /* members that are durable above QoS 0 */
    uint32_t name_len;
    uint8_t name[];
};

/* What hangs on a node of the tree. */
struct filter {
    struct subscription *plain;
    struct share_group *groups;
};

struct subscriptions {
    pthread_rwlock_t lock;
    _Atomic uint64_t version;
    _Atomic uint64_t count, shared_count;
    uint32_t groups_made;
    struct chr_topic_tree tree;
    struct subscription **buckets; /* by (session, node, group) */
    size_t mask;
};

chr_err subscriptions_new(struct subscriptions **out)
{
    struct subscriptions *subs = calloc(1, sizeof *subs);
    if (!subs)
        return CHR_ENOMEM;
    subs->buckets = calloc(BUCKETS_FIRST, sizeof(struct subscription *));
    subs->mask = BUCKETS_FIRST - 1;
    if (!subs->buckets || chr_topic_tree_init(&subs->tree)) {
        free((void *)subs->buckets);
        free(subs);
        return CHR_ENOMEM;
    }
    pthread_rwlock_init(&subs->lock, NULL);
    atomic_init(&subs->version, 1);
    *out = subs;
    return CHR_OK;
}

void subscriptions_free(struct subscriptions *subs)
{
    if (!subs)
        return;
    CHR_ASSERT(atomic_load(&subs->count) == 0);
    chr_topic_tree_free(&subs->tree);
    pthread_rwlock_destroy(&subs->lock);
    free((void *)subs->buckets);
    free(subs);
}

uint64_t subscriptions_version(const struct subscriptions *subs)
{
    return atomic_load_explicit(&subs->version, memory_order_acquire);
}

void subscriptions_touch(struct subscriptions *subs)
{
    atomic_fetch_add_explicit(&subs->version, 1, memory_order_release);
}

uint64_t subscriptions_count(const struct subscriptions *subs)
{
    return atomic_load_explicit(&subs->count, memory_order_relaxed);
}

uint64_t subscriptions_shared_count(const struct subscriptions *subs)
{
    return atomic_load_explicit(&subs->shared_count, memory_order_relaxed);
}

/* ---- One subscription -------------------------------------------------------------------------
 */

static uint64_t key_hash(const struct session *session, const struct chr_topic_node *node,
                         const struct share_group *group)
{
    uint64_t h = chr_hash_u64(session->number ^ chr_hash_seed());
    h = chr_hash_u64(h ^ (uint64_t)(uintptr_t)node);
    return chr_hash_u64(h ^ (uint64_t)(uintptr_t)group);
}

static struct subscription *find(const struct subscriptions *subs, const struct session *session,
                                 const struct chr_topic_node *node, const struct share_group *group)
{
    uint64_t hash = key_hash(session, node, group);
    struct subscription *s = subs->buckets[hash & subs->mask];
    while (s && (s->hash != hash || s->session != session || s->node != node || s->group != group))
        s = s->hash_next;
    return s;
}

static void grow(struct subscriptions *subs)
{
    size_t count = (subs->mask + 1) * 2;
    struct subscription **buckets = calloc(count, sizeof(struct subscription *));
    if (!buckets)
        return;
    for (size_t i = 0; i <= subs->mask; i++) {
        while (subs->buckets[i]) {
            struct subscription *s = subs->buckets[i];
            subs->buckets[i] = s->hash_next;
            s->hash_next = buckets[s->hash & (count - 1)];
            buckets[s->hash & (count - 1)] = s;
        }
    }
    free((void *)subs->buckets);
    subs->buckets = buckets;
    subs->mask = count - 1;
}

static struct share_group *group_find(const struct filter *filter, chr_slice name)
{
    struct share_group *g = filter->groups;
    while (g && !chr_slice_eq(chr_slice_of(g->name, g->name_len), name))
        g = g->next;
    return g;
}

static struct share_group *group_add(struct subscriptions *subs, struct filter *filter,
                                     chr_slice name)
{
    struct share_group *g = group_find(filter, name);
    if (g)
        return g;
    g = calloc(1, sizeof *g + name.len);
    if (!g)
        return NULL;
    if (++subs->groups_made == 0)
        subs->groups_made = 1;
    g->number = subs->groups_made;
    g->name_len = (uint32_t)name.len;
    memcpy(g->name, name.ptr, name.len);
    g->next = filter->groups;
    filter->groups = g;
    return g;
}

/* Gives back what serves nobody any more. */
static void tidy(struct subscriptions *subs, struct chr_topic_node *node)
{
    struct filter *filter = node->value;
    if (filter) {
        for (struct share_group **at = &filter->groups; *at;) {
            struct share_group *g = *at;
            if (g->members) {
                at = &g->next;
                continue;
            }
            *at = g->next;
            free(g);
        }
        if (filter->plain || filter->groups)
            return;
        node->value = NULL;
        free(filter);
    }
    chr_topic_tree_prune(&subs->tree, node);
}

static bool stored(const struct subscription_options *options)
{
    return options->durable && options->qos > 0;
}

static void count_durable(const struct subscription *s, uint32_t change)
{
    if (s->group && stored(&s->options))
        s->group->durable_count += change; /* modulo 2^32 */
}

static void link_in(struct subscriptions *subs, struct subscription *s)
{
    struct filter *filter = s->node->value;
    struct subscription **list = s->group ? &s->group->members : &filter->plain;
    s->next_of_node = *list;
    if (*list)
        (*list)->prev_of_node = s;
    *list = s;
    s->next_of_session = s->session->subscriptions;
    if (s->next_of_session)
        s->next_of_session->prev_of_session = s;
    s->session->subscriptions = s;
    s->session->subscriptions_count++;
    count_durable(s, 1);
    if (atomic_load(&subs->count) > subs->mask)
        grow(subs);
    s->hash = key_hash(s->session, s->node, s->group);
    s->hash_next = subs->buckets[s->hash & subs->mask];
    subs->buckets[s->hash & subs->mask] = s;
    atomic_fetch_add(&subs->count, 1);
    if (s->group)
        atomic_fetch_add(&subs->shared_count, 1);
}

static void unlink_and_free(struct subscriptions *subs, struct subscription *s)
{
    struct filter *filter = s->node->value;
    struct subscription **list = s->group ? &s->group->members : &filter->plain;
    if (s->group && atomic_load(&s->group->turn) == s)
        atomic_store(&s->group->turn, s->next_of_node);
    if (s->prev_of_node)
        s->prev_of_node->next_of_node = s->next_of_node;
    else
        *list = s->next_of_node;
    if (s->next_of_node)
        s->next_of_node->prev_of_node = s->prev_of_node;
    if (s->prev_of_session)
        s->prev_of_session->next_of_session = s->next_of_session;
    else
        s->session->subscriptions = s->next_of_session;
    if (s->next_of_session)
        s->next_of_session->prev_of_session = s->prev_of_session;
    s->session->subscriptions_count--;
    count_durable(s, UINT32_MAX);
    struct subscription **at = &subs->buckets[s->hash & subs->mask];
    while (*at != s)
        at = &(*at)->hash_next;
    *at = s->hash_next;
    atomic_fetch_sub(&subs->count, 1);
    if (s->group)
        atomic_fetch_sub(&subs->shared_count, 1);
    struct chr_topic_node *node = s->node;
    free(s);
    tidy(subs, node);
}

static chr_err add_locked(struct subscriptions *subs, struct session *session, chr_slice group_name,
                          chr_slice text, const struct subscription_options *options, bool *existed)
{
    struct chr_topic_node *node = chr_topic_tree_add(&subs->tree, text);
    if (!node)
        return CHR_ENOMEM;
    struct filter *filter = node->value;
    if (!filter)
        filter = node->value = calloc(1, sizeof *filter);
    struct share_group *group = NULL;
    bool failed = !filter;
    if (!failed && group_name.len) {
        group = group_add(subs, filter, group_name);
        failed = !group;
    }
    struct subscription *s = failed ? NULL : find(subs, session, node, group);
    *existed = s != NULL;
    if (s) {
        count_durable(s, UINT32_MAX);
        s->options = *options;
        count_durable(s, 1);
        return CHR_OK;
    }
    s = failed ? NULL : calloc(1, sizeof *s);
    if (!s) {
        tidy(subs, node);
        return CHR_ENOMEM;
    }
    s->session = session;
    s->node = node;
    s->group = group;
    s->options = *options;
    link_in(subs, s);
    return CHR_OK;
}

chr_err subscriptions_add(struct subscriptions *subs, struct session *session, chr_slice group,
                          chr_slice filter, const struct subscription_options *options,
                          bool *existed)
{
    pthread_rwlock_wrlock(&subs->lock);
    chr_err err = add_locked(subs, session, group, filter, options, existed);
    atomic_fetch_add_explicit(&subs->version, 1, memory_order_release);
    pthread_rwlock_unlock(&subs->lock);
    return err;
}

static struct subscription *find_text(const struct subscriptions *subs,
                                      const struct session *session, chr_slice group_name,
                                      chr_slice text)
{
    struct chr_topic_node *node = chr_topic_tree_find(&subs->tree, text);
    const struct filter *filter = node ? node->value : NULL;
    struct share_group *group = NULL;
    if (filter && group_name.len) {
        group = group_find(filter, group_name);
        if (!group)
            filter = NULL;
    }
    return filter ? find(subs, session, node, group) : NULL;
}

bool subscriptions_has(struct subscriptions *subs, const struct session *session, chr_slice group,
                       chr_slice filter)
{
    pthread_rwlock_rdlock(&subs->lock);
    bool there = find_text(subs, session, group, filter) != NULL;
    pthread_rwlock_unlock(&subs->lock);
    return there;
}

bool subscriptions_remove(struct subscriptions *subs, struct session *session, chr_slice group_name,
                          chr_slice text)
{
    pthread_rwlock_wrlock(&subs->lock);
    struct subscription *s = find_text(subs, session, group_name, text);
    if (s) {
        unlink_and_free(subs, s);
        atomic_fetch_add_explicit(&subs->version, 1, memory_order_release);
    }
    pthread_rwlock_unlock(&subs->lock);
    return s != NULL;
}

void subscriptions_remove_all(struct subscriptions *subs, struct session *session)
{
    if (!session->subscriptions)
        return;
    pthread_rwlock_wrlock(&subs->lock);
    while (session->subscriptions)
        unlink_and_free(subs, session->subscriptions);
    atomic_fetch_add_explicit(&subs->version, 1, memory_order_release);
    pthread_rwlock_unlock(&subs->lock);
}

/* ---- Matching ---------------------------------------------------------------------------------
 */

/* What a look-up gathers before sessions are merged. */
struct gather {
    const struct broker_loop *loop;
    chr_slice topic;
    struct match *match;
    struct found *found;
    uint32_t count, max;
    bool failed;
};
struct found {
    const struct session *session;
    struct subscription_options options;
};

void match_free(struct match *match)
{
    free(match->own);
    free((void *)match->groups);
    free(match->ids);
    *match = (struct match){0};
}

static bool reserve(void **array, uint32_t *max, uint32_t count, size_t size)
{
    if (count < *max)
        return true;
    uint32_t wanted = *max ? *max * 2 : 4;
    void *bigger = realloc(*array, wanted * size);
    if (!bigger)
        return false;
    *array = bigger;
    *max = wanted;
    return true;
}

static void take_node(struct gather *g, const struct chr_topic_node *node)
{
    const struct filter *filter = node->value;
    if (!filter)
        return;
    for (const struct subscription *s = filter->plain; s; s = s->next_of_node) {
        g->match->durable |= stored(&s->options);
        if (s->session->loop != g->loop) {
            g->match->others |= UINT64_C(1) << (s->session->loop->number & 63);
            continue;
        }
        if (!session__may_read(s->session, g->topic))
            continue;
        void *array = g->found;
        if (!reserve(&array, &g->max, g->count, sizeof *g->found)) {
            g->failed = true;
            return;
        }
        g->found = array;
        g->found[g->count++] = (struct found){s->session, s->options};
    }
    for (struct share_group *group = filter->groups; group; group = group->next) {
        void *array = (void *)g->match->groups;
        if (!reserve(&array, &g->match->groups_max, g->match->groups_count,
                     sizeof(struct share_group *))) {
            g->failed = true;
            return;
        }
        g->match->groups = array;
        g->match->groups[g->match->groups_count++] = group;
        g->match->durable |= group->durable_count > 0;
    }
}

/* Every filter of the tree below node that matches the levels left. Depth is bounded by
 * MQTT_TOPIC_LEVELS_MAX, which both names and filters keep. */
static void walk(struct gather *g, const struct chr_topic_tree *tree,
                 const struct chr_topic_node *node, struct mqtt_level_iter it, bool first)
{
    chr_slice level;
    if (!mqtt_level_next(&it, &level)) {
        take_node(g, node);
        /* `a/#` matches `a` as well (4.7.1.2). */
        const struct chr_topic_node *all = chr_topic_tree_child(tree, node, CHR_LIT("#"));
        if (all)
            take_node(g, all);
        return;
    }
    if (!node->first_child)
        return;
    /* Wildcards at the start don't match names that start with `$` [MQTT-4.7.2-1]. */
    if (!(first && level.len && level.ptr[0] == '$')) {
        const struct chr_topic_node *all = chr_topic_tree_child(tree, node, CHR_LIT("#"));
        if (all)
            take_node(g, all);
        const struct chr_topic_node *one = chr_topic_tree_child(tree, node, CHR_LIT("+"));
        if (one)
            walk(g, tree, one, it, false);
    }
    const struct chr_topic_node *exact = chr_topic_tree_child(tree, node, level);
    if (exact)
        walk(g, tree, exact, it, false);
}

static int by_session(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->session->number < y->session->number   ? -1
           : x->session->number > y->session->number ? 1
                                                     : 0;
}

static bool add_id(struct match *m, uint32_t id)
{
    while (m->ids_len + 8 > m->ids_max) {
        uint32_t wanted = m->ids_max ? m->ids_max * 2 : 32;
        uint8_t *bigger = realloc(m->ids, wanted);
        if (!bigger)
            return false;
        m->ids = bigger;
        m->ids_max = wanted;
    }
    struct mqtt_property_writer w =
        mqtt_property_writer(m->ids + m->ids_len, m->ids_max - m->ids_len);
    mqtt_put_number(&w, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, id);
    m->ids_len += (uint32_t)(w.at - w.start);
    return true;
}

/* One recipient from the subscriptions found[0 .. count) of one session. */
static bool merge(struct match *m, const struct found *found, uint32_t count)
{
    void *array = m->own;
    if (!reserve(&array, &m->own_max, m->own_count, sizeof *m->own))
        return false;
    m->own = array;
    struct recipient *r = &m->own[m->own_count++];
    /* The session belongs to the asking loop, which may change it. */
    *r = (struct recipient){.session = (struct session *)(uintptr_t)found->session,
                            .qos_local = 0xff};
    r->ids_at = m->ids_len;
    for (uint32_t i = 0; i < count; i++) {
        const struct subscription_options *o = &found[i].options;
        r->qos = CHR_MAX(r->qos, o->qos);
        r->retain_as_published |= o->retain_as_published;
        if (o->id && !add_id(m, o->id))
            return false;
    }
    r->ids_len = m->ids_len - r->ids_at;
    r->local_ids_at = m->ids_len;
    for (uint32_t i = 0; i < count; i++) {
        const struct subscription_options *o = &found[i].options;
        if (o->no_local)
            continue;
        r->qos_local = r->qos_local == 0xff ? o->qos : CHR_MAX(r->qos_local, o->qos);
        r->retain_as_published_local |= o->retain_as_published;
        if (o->id && !add_id(m, o->id))
            return false;
    }
    r->local_ids_len = m->ids_len - r->local_ids_at;
    return true;
}

chr_err subscriptions_match(struct subscriptions *subs, chr_slice topic,
                            const struct broker_loop *loop, struct match *match, uint64_t *version)
{
    match->own_count = match->groups_count = match->ids_len = 0;
    match->others = 0;
    match->durable = false;
    struct gather g = {.loop = loop, .topic = topic, .match = match};
    pthread_rwlock_rdlock(&subs->lock);
    *version = subscriptions_version(subs);
    if (subs->tree.nodes)
        walk(&g, &subs->tree, subs->tree.root, mqtt_level_iter(topic), true);
    pthread_rwlock_unlock(&subs->lock);
    /* Sessions of this loop stay while this thread is here. */
    bool ok = !g.failed;
    if (ok && g.count > 1)
        qsort(g.found, g.count, sizeof *g.found, by_session);
    for (uint32_t i = 0; ok && i < g.count;) {
        uint32_t end = i + 1;
        while (end < g.count && g.found[end].session == g.found[i].session)
            end++;
        ok = merge(match, g.found + i, end - i);
        i = end;
    }
    free(g.found);
    return ok ? CHR_OK : CHR_ENOMEM;
}

static struct subscription *pick(struct share_group *group)
{
    struct subscription *start = atomic_load_explicit(&group->turn, memory_order_relaxed);
    if (!start)
        start = group->members;
    struct subscription *s = start;
    do {
        if (atomic_load_explicit(&s->session->connected, memory_order_relaxed))
            break;
        s = s->next_of_node ? s->next_of_node : group->members;
    } while (s != start);
    atomic_store_explicit(&group->turn, s->next_of_node, memory_order_relaxed);
    return s;
}

static struct share_pick pick_of(struct share_group *group)
{
    const struct subscription *s = pick(group);
    return (struct share_pick){
        .loop = s->session->loop,
        .session_number = s->session->number,
        .group = group->number,
        .durable = group->durable_count > 0,
        .options = s->options,
    };
}

bool subscriptions_pick_group(struct subscriptions *subs, const struct match *match,
                              uint64_t version, uint32_t group, struct share_pick *out)
{
    *out = (struct share_pick){0};
    pthread_rwlock_rdlock(&subs->lock);
    bool current = subscriptions_version(subs) == version;
    for (uint32_t i = 0; current && i < match->groups_count; i++)
        if (match->groups[i]->number == group)
            *out = pick_of(match->groups[i]);
    pthread_rwlock_unlock(&subs->lock);
    return current;
}

bool subscriptions_pick(struct subscriptions *subs, const struct match *match, uint64_t version,
                        struct share_pick *picks)
{
    pthread_rwlock_rdlock(&subs->lock);
    bool current = subscriptions_version(subs) == version;
    for (uint32_t i = 0; current && i < match->groups_count; i++)
        picks[i] = pick_of(match->groups[i]);
    pthread_rwlock_unlock(&subs->lock);
    return current;
}

/* ---- Listing ----------------------------------------------------------------------------------
 */

static size_t filter_text(const struct subscription *s, uint8_t *out)
{
    size_t len = 0;
    for (const struct chr_topic_node *n = s->node; n->parent; n = n->parent)
        len += n->level_len + (n->parent->parent ? 1u : 0u);
    size_t prefix = s->group ? 8 + s->group->name_len : 0; /* "$share/" name "/" */
    if (!out)
        return prefix + len;
    if (s->group) {
        memcpy(out, "$share/", 7);
        memcpy(out + 7, s->group->name, s->group->name_len);
        out[prefix - 1] = '/';
    }
    size_t at = prefix + len;
    for (const struct chr_topic_node *n = s->node; n->parent; n = n->parent) {
        at -= n->level_len;
        memcpy(out + at, n->level, n->level_len);
        if (n->parent->parent)
            out[--at] = '/';
    }
    return prefix + len;
}

void subscriptions_each(struct subscriptions *subs, const struct session *session,
                        void (*each)(void *arg, const struct subscription *subscription,
                                     chr_slice filter),
                        void *arg)
{
    pthread_rwlock_rdlock(&subs->lock);
    for (const struct subscription *s = session->subscriptions; s; s = s->next_of_session) {
        size_t len = filter_text(s, NULL);
        uint8_t *text = malloc(len + 1);
        if (!text)
            break;
        (void)filter_text(s, text);
        each(arg, s, chr_slice_of(text, len));
        free(text);
    }
    pthread_rwlock_unlock(&subs->lock);
}

chr_err subscriptions_scan(struct subscriptions *subs, uint64_t *cursor, uint32_t count,
                           void (*each)(void *arg, const struct subscription *subscription,
                                        chr_slice client_id, chr_slice group, chr_slice filter),
                           void *arg)
{
    uint8_t stack[256];
    uint32_t seen = 0;
    chr_err err = CHR_OK;
    pthread_rwlock_rdlock(&subs->lock);
    do {
        for (const struct subscription *s = subs->buckets[*cursor & subs->mask]; s;
             s = s->hash_next, seen++) {
            chr_slice group = {0}, client_id = s->session->client_id;
            if (s->group)
                group = chr_slice_of(s->group->name, s->group->name_len);
            size_t len = filter_text(s, NULL), prefix = group.len ? 8 + group.len : 0;
            uint8_t *text = len <= sizeof stack ? stack : malloc(len);
            if (!text) {
                err = CHR_ENOMEM;
                break;
            }
            (void)filter_text(s, text);
            each(arg, s, client_id, group, chr_slice_of(text + prefix, len - prefix));
            if (text != stack)
                free(text);
        }
        *cursor = inspect_next_bucket(*cursor, subs->mask);
        seen++;
    } while (*cursor && !err && seen < count);
    pthread_rwlock_unlock(&subs->lock);
    return err;
}
