/* broker/session/subscriptions_match.c: who gets a message of a topic. */
#include <stdlib.h>
#include <string.h>

#include "broker/net/loop.h"
#include "broker/session/authorize.h"
#include "broker/session/session.h"
#include "broker/session/subscriptions_internal.h"
#include "proto/mqtt/encode.h"

#define FOUND_STACK 64u

struct found {
    const struct session *session;
    struct subscription_options options;
};
/* What a look-up gathers before sessions are merged. */
struct gather {
    const struct subscriptions *subs;
    const struct broker_loop *loop;
    chr_slice topic;
    struct match *match;
    struct found *found; /* stack, or malloc'd */
    uint32_t count, max;
    bool failed;
    struct found stack[FOUND_STACK];
};

void match_free(struct match *match)
{
    free(match->own);
    free((void *)match->groups);
    free(match->choices);
    free(match->ids);
    *match = (struct match){0};
}

bool subscriptions__reserve(void **array, uint32_t *max, uint32_t count, size_t size)
{
    if (count < *max)
        return true;
    uint32_t wanted = *max ? *max * 2 : 2;
    void *bigger = realloc(*array, wanted * size);
    if (!bigger)
        return false;
    *array = bigger;
    *max = wanted;
    return true;
}

static bool found_room(struct gather *g)
{
    if (g->count < g->max)
        return true;
    struct found *more = malloc(2 * (size_t)g->max * sizeof *more);
    if (!more)
        return false;
    memcpy(more, g->found, g->count * sizeof *more);
    if (g->found != g->stack)
        free(g->found);
    g->found = more;
    g->max *= 2;
    return true;
}

/* The subscriptions of a filter that matches. */
static void take_filter(struct gather *g, union chr_filter_value value)
{
    for (uint32_t n = value.numbers[PLAIN]; n;) {
        const struct subscription *s = subscriptions__record(g->subs, n);
        n = s->next_of_node;
        g->match->durable |= subscriptions__stored(s);
        if (s->loop != g->loop->number) {
            g->match->others |= UINT64_C(1) << (s->loop & 63);
            continue;
        }
        if (!session__may_read(s->session, g->topic))
            continue;
        if (!found_room(g)) {
            g->failed = true;
            return;
        }
        g->found[g->count++] = (struct found){s->session, subscriptions__options(s)};
    }
    for (uint32_t n = value.numbers[GROUPS]; n;
         n = subscriptions__group(g->subs, n)->next_of_node) {
        void *array = (void *)g->match->groups;
        if (!subscriptions__reserve(&array, &g->match->groups_max, g->match->groups_count,
                                    sizeof(struct share_group *))) {
            g->failed = true;
            return;
        }
        g->match->groups = array;
        g->match->groups[g->match->groups_count++] = subscriptions__group(g->subs, n);
        g->match->durable |= subscriptions__group(g->subs, n)->durable_count > 0;
    }
}

static void take_filters(void *arg, const union chr_filter_value *values, uint32_t count)
{
    struct gather *g = arg;
    for (uint32_t i = 0; i < count; i++)
        if (values[i].numbers[PLAIN])
            __builtin_prefetch(subscriptions__record(g->subs, values[i].numbers[PLAIN]));
    for (uint32_t i = 0; i < count; i++)
        take_filter(g, values[i]);
}

/* ---- Merging ----------------------------------------------------------------------------------
 */

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
    if (!subscriptions__reserve(&array, &m->own_max, m->own_count, sizeof *m->own))
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
                            const struct broker_loop *loop, struct match *match)
{
    match->own_count = match->groups_count = match->ids_len = 0;
    match->choices_count = match->peers = 0;
    match->others = 0;
    match->durable = false;
    struct gather g;
    g.subs = subs;
    g.loop = loop;
    g.topic = topic;
    g.match = match;
    g.found = g.stack;
    g.count = 0;
    g.max = FOUND_STACK;
    g.failed = false;
    pthread_rwlock_rdlock(&subs->lock);
    match->version = subscriptions_version(subs);
    match->changes = filter_changes_sum(subs->changes, topic);
    if (chr_filter_tree_nodes(&subs->tree))
        (void)chr_filter_tree_match(&subs->tree, topic, take_filters, &g);
    if (subs->peers_count && !subscriptions__match_peers(subs, topic, match))
        g.failed = true;
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
    if (g.found != g.stack)
        free(g.found);
    if (!ok)
        match->version = 0; /* of none */
    return ok ? CHR_OK : CHR_ENOMEM;
}

static void any_value(void *arg, const union chr_filter_value *values, uint32_t count)
{
    (void)values;
    *(bool *)arg |= count > 0;
}

bool subscriptions_wanted(struct subscriptions *subs, chr_slice topic)
{
    bool any = false;
    if (subscriptions_count(subs) == 0)
        return false;
    pthread_rwlock_rdlock(&subs->lock);
    if (chr_filter_tree_nodes(&subs->tree))
        (void)chr_filter_tree_match(&subs->tree, topic, any_value, &any);
    pthread_rwlock_unlock(&subs->lock);
    return any;
}

bool subscriptions_current(const struct subscriptions *subs, chr_slice topic, struct match *match)
{
    uint64_t version = subscriptions_version(subs);
    if (match->version == version)
        return true;
    if (match->version == 0 || match->changes != filter_changes_sum(subs->changes, topic))
        return false;
    match->version = version;
    return true;
}

/* The same under the lock, where nothing changes meanwhile. */
static bool current_locked(const struct subscriptions *subs, chr_slice topic,
                           const struct match *match)
{
    return match->version == subscriptions_version(subs) ||
           (match->version && match->changes == filter_changes_sum(subs->changes, topic));
}

static const struct subscription *pick(const struct subscriptions *subs, struct share_group *group)
{
    uint32_t start = atomic_load_explicit(&group->turn, memory_order_relaxed);
    if (!start)
        start = group->members;
    uint32_t n = start;
    const struct subscription *s;
    for (;;) {
        s = subscriptions__record(subs, n);
        if (atomic_load_explicit(&s->session->connected, memory_order_relaxed))
            break;
        n = s->next_of_node ? s->next_of_node : group->members;
        if (n == start) {
            s = subscriptions__record(subs, n);
            break;
        }
    }
    atomic_store_explicit(&group->turn, s->next_of_node, memory_order_relaxed);
    return s;
}

static struct share_pick pick_of(const struct subscriptions *subs, struct share_group *group)
{
    const struct subscription *s = pick(subs, group);
    return (struct share_pick){
        .loop = s->session->loop,
        .session_number = s->session->number,
        .group = group->number,
        .durable = group->durable_count > 0,
        .options = subscriptions__options(s),
    };
}

bool subscriptions_pick_group(struct subscriptions *subs, chr_slice topic,
                              const struct match *match, uint32_t group, struct share_pick *out)
{
    *out = (struct share_pick){0};
    pthread_rwlock_rdlock(&subs->lock);
    bool current = current_locked(subs, topic, match);
    for (uint32_t i = 0; current && i < match->groups_count; i++)
        if (match->groups[i]->number == group)
            *out = pick_of(subs, match->groups[i]);
    pthread_rwlock_unlock(&subs->lock);
    return current;
}

bool subscriptions_pick_told(struct subscriptions *subs, chr_slice topic, const struct match *match,
                             uint64_t group, struct share_pick *out)
{
    *out = (struct share_pick){0};
    pthread_rwlock_rdlock(&subs->lock);
    bool current = current_locked(subs, topic, match);
    for (uint32_t i = 0; current && i < match->groups_count; i++)
        if (match->groups[i]->told == group)
            *out = pick_of(subs, match->groups[i]);
    pthread_rwlock_unlock(&subs->lock);
    return current;
}

bool subscriptions_pick(struct subscriptions *subs, chr_slice topic, const struct match *match,
                        struct share_pick *picks)
{
    pthread_rwlock_rdlock(&subs->lock);
    bool current = current_locked(subs, topic, match);
    for (uint32_t i = 0; current && i < match->groups_count; i++)
        picks[i] = pick_of(subs, match->groups[i]);
    pthread_rwlock_unlock(&subs->lock);
    return current;
}
