/* broker/session/subscriptions.c: the shared tree of filters. See the header for who may do what.
 */
#include "broker/session/subscriptions.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/filter_tree.h"
#include "base/hash.h"
#include "broker/net/loop.h"
#include "broker/session/authorize.h"
#include "broker/session/filter_changes.h"
#include "broker/session/interest.h"
#include "broker/session/session.h"
#include "proto/mqtt/encode.h"
#include "proto/mqtt/topic.h"

#define FOUND_STACK 64u
/* Of a session that ends; then others may look something up. */
#define REMOVED_AT_A_TIME 256u

/* One filter of one session; told by its number. */
struct subscription {
    struct session *session;
    uint32_t node;                       /* of the filter; 0: the record is free */
    uint32_t group;                      /* 0: not shared */
    uint32_t next_of_node, prev_of_node; /* or of the group; 0: none */
    uint32_t next_of_session, prev_of_session;
    uint32_t hash_next;
    uint32_t id;   /* options.id */
    uint16_t key;  /* of the filter (filter_changes.h) */
    uint16_t loop; /* number of the session's: so other loops' sessions are not touched */
    uint8_t flags; /* the other options */
};
_Static_assert(sizeof(struct subscription) == 48, "there may be millions");
_Static_assert(FILTER_CHANGES_KEYS <= UINT16_MAX + 1, "key is 16 bits");

/* The members of one $share/<name>/<filter>. */
struct share_group {
    uint8_t *name; /* owned */
    uint32_t name_len;
    uint32_t node;
    uint32_t next_of_node, prev_of_node;
    uint32_t hash_next;
    uint32_t members;
    /* Whose turn it is; 0: the first. Picking needs the lock for reading only, so two loops may
     * pick the same member now and then: fair enough. */
    _Atomic uint32_t turn;
    uint32_t number;        /* never 0; of this group alone, also when it is made anew later */
    uint32_t durable_count; /* members that are durable above QoS 0 */
    uint64_t told;          /* interest_group; 0 on a node alone */
};

/* What hangs on a node of the tree: two numbers. */
enum { PLAIN, GROUPS };

struct subscriptions {
    pthread_rwlock_t lock;
    _Atomic uint64_t version;
    _Atomic uint64_t count, shared_count;
    uint32_t groups_made;
    struct chr_filter_tree tree;
    struct chr_slots records, groups;
    struct chr_chains by_session; /* records by (session, node, group) */
    struct chr_chains by_name;    /* groups by (node, name) */
    _Atomic uint64_t *changes;    /* [FILTER_CHANGES_KEYS] */
    struct own_interest *told;    /* NULL: a node alone */
    /* [peers_count]; NULL: nothing was told */
    struct peer_interest *peers[SUBSCRIPTIONS_PEERS_MAX];
    uint32_t peers_count;
};

static struct subscription *record_at(const struct subscriptions *subs, uint32_t number)
{
    return chr_slots_at(&subs->records, number);
}

static struct share_group *group_at(const struct subscriptions *subs, uint32_t number)
{
    return chr_slots_at(&subs->groups, number);
}

/* ---- Hashes -----------------------------------------------------------------------------------
 */

static uint32_t hash_record(const struct session *session, uint32_t node, uint32_t group)
{
    uint64_t h = chr_hash_u64((uint64_t)(uintptr_t)session ^ chr_hash_seed());
    return (uint32_t)chr_hash_u64(h ^ ((uint64_t)group << 32 | node));
}

static uint32_t record_hash(const void *owner, uint32_t number)
{
    const struct subscription *s = record_at(owner, number);
    return hash_record(s->session, s->node, s->group);
}

static uint32_t *record_next(const void *owner, uint32_t number)
{
    return &record_at(owner, number)->hash_next;
}

static uint32_t hash_name(uint32_t node, chr_slice name)
{
    return (uint32_t)chr_hash_slice(name, chr_hash_u64(chr_hash_seed() ^ node));
}

static uint32_t group_hash(const void *owner, uint32_t number)
{
    const struct share_group *g = group_at(owner, number);
    return hash_name(g->node, chr_slice_of(g->name, g->name_len));
}

static uint32_t *group_next(const void *owner, uint32_t number)
{
    return &group_at(owner, number)->hash_next;
}

static const struct chr_chains_owner record_chains = {record_hash, record_next};
static const struct chr_chains_owner group_chains = {group_hash, group_next};

/* ---- All of it --------------------------------------------------------------------------------
 */

chr_err subscriptions_new(struct subscriptions **out)
{
    struct subscriptions *subs = calloc(1, sizeof *subs);
    if (!subs)
        return CHR_ENOMEM;
    pthread_rwlock_init(&subs->lock, NULL);
    atomic_init(&subs->version, 1);
    chr_slots_init(&subs->records, sizeof(struct subscription));
    chr_slots_init(&subs->groups, sizeof(struct share_group));
    subs->changes = calloc(FILTER_CHANGES_KEYS, sizeof *subs->changes);
    if (!subs->changes || chr_filter_tree_init(&subs->tree) || chr_chains_init(&subs->by_session) ||
        chr_chains_init(&subs->by_name)) {
        subscriptions_free(subs);
        return CHR_ENOMEM;
    }
    *out = subs;
    return CHR_OK;
}

void subscriptions_free(struct subscriptions *subs)
{
    if (!subs)
        return;
    CHR_ASSERT(atomic_load(&subs->count) == 0);
    for (uint32_t i = 0; i < subs->peers_count; i++)
        peer_interest_free(subs->peers[i]);
    chr_filter_tree_free(&subs->tree);
    chr_chains_free(&subs->by_session);
    chr_chains_free(&subs->by_name);
    chr_slots_free(&subs->records);
    chr_slots_free(&subs->groups);
    pthread_rwlock_destroy(&subs->lock);
    free((void *)subs->changes);
    free(subs);
}

uint64_t subscriptions_version(const struct subscriptions *subs)
{
    return atomic_load_explicit(&subs->version, memory_order_acquire);
}

uint64_t subscriptions_count(const struct subscriptions *subs)
{
    return atomic_load_explicit(&subs->count, memory_order_relaxed);
}

uint64_t subscriptions_shared_count(const struct subscriptions *subs)
{
    return atomic_load_explicit(&subs->shared_count, memory_order_relaxed);
}

/* A filter with this key has changed; the version that says so follows (publish_changes). */
static void count_change(struct subscriptions *subs, uint32_t key)
{
    atomic_fetch_add_explicit(&subs->changes[key], 1, memory_order_release);
}

static void publish_changes(struct subscriptions *subs)
{
    atomic_fetch_add_explicit(&subs->version, 1, memory_order_release);
}

/* ---- One subscription -------------------------------------------------------------------------
 */

enum {
    FLAG_QOS = 3,
    FLAG_NO_LOCAL = 4,
    FLAG_RETAIN_AS_PUBLISHED = 8,
    FLAG_RETAIN_HANDLING_SHIFT = 4, /* two bits */
    FLAG_DURABLE = 64,
};

static uint8_t flags_of(const struct subscription_options *o)
{
    return (uint8_t)(o->qos | (o->no_local ? FLAG_NO_LOCAL : 0) |
                     (o->retain_as_published ? FLAG_RETAIN_AS_PUBLISHED : 0) |
                     (o->retain_handling & 3) << FLAG_RETAIN_HANDLING_SHIFT |
                     (o->durable ? FLAG_DURABLE : 0));
}

static struct subscription_options options_of(const struct subscription *s)
{
    return (struct subscription_options){
        .qos = s->flags & FLAG_QOS,
        .no_local = s->flags & FLAG_NO_LOCAL,
        .retain_as_published = s->flags & FLAG_RETAIN_AS_PUBLISHED,
        .retain_handling = s->flags >> FLAG_RETAIN_HANDLING_SHIFT & 3,
        .id = s->id,
        .durable = s->flags & FLAG_DURABLE,
    };
}

/* The log's queue serves it. */
static bool stored(const struct subscription *s)
{
    return (s->flags & FLAG_DURABLE) && (s->flags & FLAG_QOS);
}

static uint32_t find(const struct subscriptions *subs, const struct session *session, uint32_t node,
                     uint32_t group)
{
    uint32_t number = *chr_chains_bucket(&subs->by_session, hash_record(session, node, group));
    while (number) {
        const struct subscription *s = record_at(subs, number);
        if (s->session == session && s->node == node && s->group == group)
            break;
        number = s->hash_next;
    }
    return number;
}

static uint32_t group_find(const struct subscriptions *subs, uint32_t node, chr_slice name)
{
    uint32_t number = *chr_chains_bucket(&subs->by_name, hash_name(node, name));
    while (number) {
        const struct share_group *g = group_at(subs, number);
        if (g->node == node && chr_slice_eq(chr_slice_of(g->name, g->name_len), name))
            break;
        number = g->hash_next;
    }
    return number;
}

static uint32_t *heads_of(const struct subscriptions *subs, uint32_t node)
{
    return chr_filter_tree_value(&subs->tree, node)->numbers;
}

static uint32_t group_add(struct subscriptions *subs, uint32_t node, chr_slice name,
                          chr_slice filter)
{
    uint32_t number = group_find(subs, node, name);
    if (number)
        return number;
    uint8_t *copy = malloc(name.len);
    number = copy ? chr_slots_new(&subs->groups) : 0;
    if (!number) {
        free(copy);
        return 0;
    }
    struct share_group *g = group_at(subs, number);
    uint32_t *head = &heads_of(subs, node)[GROUPS];
    memcpy(copy, name.ptr, name.len);
    g->name = copy;
    g->name_len = (uint32_t)name.len;
    g->node = node;
    if (++subs->groups_made == 0)
        subs->groups_made = 1;
    g->number = subs->groups_made;
    g->told = subs->told ? interest_group(name, filter) : 0;
    g->next_of_node = *head;
    if (*head)
        group_at(subs, *head)->prev_of_node = number;
    *head = number;
    chr_chains_put(&subs->by_name, &group_chains, subs, number);
    return number;
}

/* Gives back a group that has no members. */
static void group_drop(struct subscriptions *subs, uint32_t number)
{
    struct share_group *g = group_at(subs, number);
    if (g->prev_of_node)
        group_at(subs, g->prev_of_node)->next_of_node = g->next_of_node;
    else
        heads_of(subs, g->node)[GROUPS] = g->next_of_node;
    if (g->next_of_node)
        group_at(subs, g->next_of_node)->prev_of_node = g->prev_of_node;
    chr_chains_remove(&subs->by_name, &group_chains, subs, number);
    free(g->name);
    chr_slots_give(&subs->groups, number);
}

/* Gives back what serves nobody any more. */
static void tidy(struct subscriptions *subs, uint32_t node, uint32_t group)
{
    if (group && !group_at(subs, group)->members)
        group_drop(subs, group);
    chr_filter_tree_prune(&subs->tree, node);
    if (subs->records.count == 0) {
        chr_slots_reset(&subs->records);
        chr_slots_reset(&subs->groups);
        chr_chains_reset(&subs->by_session);
        chr_chains_reset(&subs->by_name);
    }
}

static void count_durable(const struct subscriptions *subs, const struct subscription *s,
                          uint32_t change)
{
    if (s->group && stored(s))
        group_at(subs, s->group)->durable_count += change; /* modulo 2^32 */
}

/* One less is told. */
static void untell(const struct subscriptions *subs, const struct subscription *s)
{
    if (!subs->told)
        return;
    uint8_t stack[256];
    size_t len = chr_filter_tree_text(&subs->tree, s->node, NULL);
    uint8_t *text = len <= sizeof stack ? stack : malloc(len);
    if (!text)
        return; /* told for longer than it should be: nothing worse */
    (void)chr_filter_tree_text(&subs->tree, s->node, text);
    const struct share_group *g = s->group ? group_at(subs, s->group) : NULL;
    own_interest_remove(subs->told, g ? chr_slice_of(g->name, g->name_len) : (chr_slice){0},
                        chr_slice_of(text, len), stored(s));
    if (text != stack)
        free(text);
}

static uint32_t *list_of(const struct subscriptions *subs, const struct subscription *s)
{
    return s->group ? &group_at(subs, s->group)->members : &heads_of(subs, s->node)[PLAIN];
}

static void link_in(struct subscriptions *subs, uint32_t number)
{
    struct subscription *s = record_at(subs, number);
    uint32_t *list = list_of(subs, s);
    s->next_of_node = *list;
    if (*list)
        record_at(subs, *list)->prev_of_node = number;
    *list = number;
    s->next_of_session = s->session->subscriptions;
    if (s->next_of_session)
        record_at(subs, s->next_of_session)->prev_of_session = number;
    s->session->subscriptions = number;
    s->session->subscriptions_count++;
    chr_chains_put(&subs->by_session, &record_chains, subs, number);
    atomic_fetch_add_explicit(&subs->count, 1, memory_order_relaxed);
    if (s->group)
        atomic_fetch_add_explicit(&subs->shared_count, 1, memory_order_relaxed);
    count_durable(subs, s, 1);
    count_change(subs, s->key);
}

static void unlink_and_free(struct subscriptions *subs, uint32_t number)
{
    struct subscription *s = record_at(subs, number);
    uint32_t node = s->node, group = s->group;
    untell(subs, s);
    if (group) {
        struct share_group *g = group_at(subs, group);
        if (atomic_load_explicit(&g->turn, memory_order_relaxed) == number)
            atomic_store_explicit(&g->turn, s->next_of_node, memory_order_relaxed);
    }
    if (s->prev_of_node)
        record_at(subs, s->prev_of_node)->next_of_node = s->next_of_node;
    else
        *list_of(subs, s) = s->next_of_node;
    if (s->next_of_node)
        record_at(subs, s->next_of_node)->prev_of_node = s->prev_of_node;
    if (s->prev_of_session)
        record_at(subs, s->prev_of_session)->next_of_session = s->next_of_session;
    else
        s->session->subscriptions = s->next_of_session;
    if (s->next_of_session)
        record_at(subs, s->next_of_session)->prev_of_session = s->prev_of_session;
    s->session->subscriptions_count--;
    chr_chains_remove(&subs->by_session, &record_chains, subs, number);
    atomic_fetch_sub_explicit(&subs->count, 1, memory_order_relaxed);
    if (group)
        atomic_fetch_sub_explicit(&subs->shared_count, 1, memory_order_relaxed);
    count_durable(subs, s, UINT32_MAX);
    count_change(subs, s->key);
    s->node = 0;
    chr_slots_give(&subs->records, number);
    tidy(subs, node, group);
}

static chr_err add_locked(struct subscriptions *subs, struct session *session, chr_slice group_name,
                          chr_slice text, const struct subscription_options *options, bool *existed)
{
    *existed = false;
    uint32_t node = chr_filter_tree_add(&subs->tree, text);
    if (!node)
        return CHR_ENOMEM;
    uint32_t group = group_name.len ? group_add(subs, node, group_name, text) : 0;
    bool failed = group_name.len && !group;
    uint32_t number = failed ? 0 : find(subs, session, node, group);
    if (number) {
        struct subscription *s = record_at(subs, number);
        *existed = true;
        /* Clients that come back ask for what they have: no match is void for that. */
        if (s->flags != flags_of(options) || s->id != options->id) {
            bool durable = options->durable && options->qos;
            if (subs->told && durable != stored(s)) {
                if (own_interest_add(subs->told, group_name, text, durable))
                    return CHR_ENOMEM;
                own_interest_remove(subs->told, group_name, text, stored(s));
            }
            count_durable(subs, s, UINT32_MAX);
            s->flags = flags_of(options);
            s->id = options->id;
            count_durable(subs, s, 1);
            count_change(subs, s->key);
            publish_changes(subs);
        }
        return CHR_OK;
    }
    if (subs->told && !failed)
        failed = own_interest_add(subs->told, group_name, text, options->durable && options->qos);
    number = failed ? 0 : chr_slots_new(&subs->records);
    if (!number && subs->told && !failed)
        own_interest_remove(subs->told, group_name, text, options->durable && options->qos);
    if (!number) {
        tidy(subs, node, group);
        return CHR_ENOMEM;
    }
    struct subscription *s = record_at(subs, number);
    s->session = session;
    s->node = node;
    s->group = group;
    s->key = (uint16_t)filter_changes_key(text);
    s->loop = (uint16_t)session->loop->number;
    s->flags = flags_of(options);
    s->id = options->id;
    link_in(subs, number);
    publish_changes(subs);
    return CHR_OK;
}

chr_err subscriptions_add(struct subscriptions *subs, struct session *session, chr_slice group,
                          chr_slice filter, const struct subscription_options *options,
                          bool *existed)
{
    pthread_rwlock_wrlock(&subs->lock);
    chr_err err = add_locked(subs, session, group, filter, options, existed);
    pthread_rwlock_unlock(&subs->lock);
    return err;
}

static uint32_t find_text(const struct subscriptions *subs, const struct session *session,
                          chr_slice group_name, chr_slice text)
{
    uint32_t node = chr_filter_tree_find(&subs->tree, text), group = 0;
    if (node && group_name.len) {
        group = group_find(subs, node, group_name);
        if (!group)
            node = 0;
    }
    return node ? find(subs, session, node, group) : 0;
}

bool subscriptions_has(struct subscriptions *subs, const struct session *session, chr_slice group,
                       chr_slice filter)
{
    pthread_rwlock_rdlock(&subs->lock);
    bool there = find_text(subs, session, group, filter) != 0;
    pthread_rwlock_unlock(&subs->lock);
    return there;
}

bool subscriptions_remove(struct subscriptions *subs, struct session *session, chr_slice group_name,
                          chr_slice text)
{
    pthread_rwlock_wrlock(&subs->lock);
    uint32_t number = find_text(subs, session, group_name, text);
    if (number) {
        unlink_and_free(subs, number);
        publish_changes(subs);
    }
    pthread_rwlock_unlock(&subs->lock);
    return number != 0;
}

void subscriptions_touch(struct subscriptions *subs, const struct session *session)
{
    /* Reading is enough: what is void is matches of this thread alone. */
    pthread_rwlock_rdlock(&subs->lock);
    for (uint32_t n = session->subscriptions; n; n = record_at(subs, n)->next_of_session)
        count_change(subs, record_at(subs, n)->key);
    pthread_rwlock_unlock(&subs->lock);
    publish_changes(subs);
}

void subscriptions_remove_all(struct subscriptions *subs, struct session *session)
{
    while (session->subscriptions) {
        pthread_rwlock_wrlock(&subs->lock);
        for (uint32_t i = 0; i < REMOVED_AT_A_TIME && session->subscriptions; i++)
            unlink_and_free(subs, session->subscriptions);
        publish_changes(subs);
        pthread_rwlock_unlock(&subs->lock);
    }
}

/* ---- Matching ---------------------------------------------------------------------------------
 */

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

static bool reserve(void **array, uint32_t *max, uint32_t count, size_t size)
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
        const struct subscription *s = record_at(g->subs, n);
        n = s->next_of_node;
        g->match->durable |= stored(s);
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
        g->found[g->count++] = (struct found){s->session, options_of(s)};
    }
    for (uint32_t n = value.numbers[GROUPS]; n; n = group_at(g->subs, n)->next_of_node) {
        void *array = (void *)g->match->groups;
        if (!reserve(&array, &g->match->groups_max, g->match->groups_count,
                     sizeof(struct share_group *))) {
            g->failed = true;
            return;
        }
        g->match->groups = array;
        g->match->groups[g->match->groups_count++] = group_at(g->subs, n);
        g->match->durable |= group_at(g->subs, n)->durable_count > 0;
    }
}

static void take_filters(void *arg, const union chr_filter_value *values, uint32_t count)
{
    struct gather *g = arg;
    for (uint32_t i = 0; i < count; i++)
        if (values[i].numbers[PLAIN])
            __builtin_prefetch(record_at(g->subs, values[i].numbers[PLAIN]));
    for (uint32_t i = 0; i < count; i++)
        take_filter(g, values[i]);
}

/* ---- Across nodes -----------------------------------------------------------------------------
 */

struct gather_peer {
    struct gather *g;
    uint32_t peer;
};

static void take_peer_group(void *arg, uint64_t group, bool durable)
{
    const struct gather_peer *p = arg;
    struct match *m = p->g->match;
    uint32_t i = 0;
    m->durable |= durable;
    while (i < m->choices_count && m->choices[i].group != group)
        i++;
    if (i == m->choices_count) {
        void *array = m->choices;
        if (!reserve(&array, &m->choices_max, m->choices_count, sizeof *m->choices)) {
            p->g->failed = true;
            return;
        }
        m->choices = array;
        /* Its first turn is anybody's, or a route that is matched again and again would always give
         * it to the same node. */
        struct share_choice choice = {.group = group,
                                      .local = UINT32_MAX,
                                      .turn = (uint32_t)chr_hash_u64(m->version ^ group)};
        for (uint32_t k = 0; k < m->groups_count; k++)
            if (m->groups[k]->told == group) {
                choice.local = k;
                choice.durable = m->groups[k]->durable_count > 0;
            }
        m->choices[m->choices_count++] = choice;
    }
    m->choices[i].peers |= 1u << p->peer;
    m->choices[i].durable |= durable;
}

/* After the tree, whose groups are known then. */
static void take_peers(struct gather *g)
{
    for (uint32_t i = 0; i < g->subs->peers_count; i++) {
        if (!g->subs->peers[i])
            continue;
        struct gather_peer p = {g, i};
        struct peer_wants wants = {.group = take_peer_group, .arg = &p};
        peer_interest_match(g->subs->peers[i], g->topic, &wants);
        g->match->peers |= (wants.plain ? 1u : 0u) << i;
        g->match->durable |= wants.durable;
    }
}

void subscriptions_tell(struct subscriptions *subs, struct own_interest *own)
{
    CHR_ASSERT(subscriptions_count(subs) == 0);
    subs->told = own;
}

void subscriptions_peer_replace(struct subscriptions *subs, uint32_t peer,
                                struct peer_interest *interest)
{
    CHR_ASSERT(peer < SUBSCRIPTIONS_PEERS_MAX);
    pthread_rwlock_wrlock(&subs->lock);
    struct peer_interest *before = subs->peers[peer];
    subs->peers[peer] = interest;
    subs->peers_count = CHR_MAX(subs->peers_count, peer + 1);
    if ((before && before->count) || (interest && interest->count)) {
        count_change(subs, FILTER_CHANGES_ALL); /* every topic's */
        publish_changes(subs);
    }
    pthread_rwlock_unlock(&subs->lock);
    peer_interest_free(before);
}

chr_err subscriptions_peer_changed(struct subscriptions *subs, uint32_t peer, chr_slice items)
{
    struct deliver_filter filter;
    chr_err err = CHR_OK;
    bool news = false;
    pthread_rwlock_wrlock(&subs->lock);
    struct peer_interest *p = peer < subs->peers_count ? subs->peers[peer] : NULL;
    if (!p)
        err = CHR_ENOTFOUND;
    while (!err && items.len) {
        bool changed = false;
        err = deliver_filter_take(&items, &filter);
        if (!err)
            err = peer_interest_set(p, &filter, &changed);
        if (changed)
            count_change(subs, filter_changes_key(filter.filter));
        news |= changed;
    }
    if (news)
        publish_changes(subs);
    pthread_rwlock_unlock(&subs->lock);
    return err;
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
    if (subs->peers_count)
        take_peers(&g);
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
        s = record_at(subs, n);
        if (atomic_load_explicit(&s->session->connected, memory_order_relaxed))
            break;
        n = s->next_of_node ? s->next_of_node : group->members;
        if (n == start) {
            s = record_at(subs, n);
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
        .options = options_of(s),
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

/* ---- Listing ----------------------------------------------------------------------------------
 */

/* The filter of a subscription after `$share/<group>/`, in memory to be freed unless it is stack.
 * NULL: no memory. */
static uint8_t *filter_text(const struct subscriptions *subs, const struct subscription *s,
                            uint8_t *stack, size_t stack_size, size_t *prefix, size_t *len)
{
    const struct share_group *g = s->group ? group_at(subs, s->group) : NULL;
    *prefix = g ? 8 + g->name_len : 0; /* "$share/" name "/" */
    *len = *prefix + chr_filter_tree_text(&subs->tree, s->node, NULL);
    uint8_t *text = *len <= stack_size ? stack : malloc(*len);
    if (!text)
        return NULL;
    if (g) {
        memcpy(text, "$share/", 7);
        memcpy(text + 7, g->name, g->name_len);
        text[*prefix - 1] = '/';
    }
    (void)chr_filter_tree_text(&subs->tree, s->node, text + *prefix);
    return text;
}

void subscriptions_each(struct subscriptions *subs, const struct session *session,
                        void (*each)(void *arg, const struct subscription_options *options,
                                     chr_slice filter),
                        void *arg)
{
    uint8_t stack[256];
    size_t prefix, len;
    pthread_rwlock_rdlock(&subs->lock);
    for (uint32_t n = session->subscriptions; n; n = record_at(subs, n)->next_of_session) {
        const struct subscription *s = record_at(subs, n);
        struct subscription_options options = options_of(s);
        uint8_t *text = filter_text(subs, s, stack, sizeof stack, &prefix, &len);
        if (!text)
            break;
        each(arg, &options, chr_slice_of(text, len));
        if (text != stack)
            free(text);
    }
    pthread_rwlock_unlock(&subs->lock);
}

/* The cursor is the number of a record, which it keeps for its life. */
chr_err subscriptions_scan(struct subscriptions *subs, uint64_t *cursor, uint32_t count,
                           void (*each)(void *arg, const struct subscription_options *options,
                                        chr_slice client_id, chr_slice group, chr_slice filter),
                           void *arg)
{
    uint8_t stack[256];
    size_t prefix, len;
    chr_err err = CHR_OK;
    pthread_rwlock_rdlock(&subs->lock);
    uint64_t n = *cursor ? *cursor : 1, end = CHR_MIN(n + count, subs->records.next);
    for (; n < end && !err; n++) {
        const struct subscription *s = record_at(subs, (uint32_t)n);
        if (!s->node)
            continue;
        struct subscription_options options = options_of(s);
        chr_slice group = {0};
        if (s->group)
            group =
                chr_slice_of(group_at(subs, s->group)->name, group_at(subs, s->group)->name_len);
        uint8_t *text = filter_text(subs, s, stack, sizeof stack, &prefix, &len);
        if (!text) {
            err = CHR_ENOMEM;
            break;
        }
        each(arg, &options, s->session->client_id, group,
             chr_slice_of(text + prefix, len - prefix));
        if (text != stack)
            free(text);
    }
    *cursor = n < subs->records.next ? n : 0;
    pthread_rwlock_unlock(&subs->lock);
    return err;
}
