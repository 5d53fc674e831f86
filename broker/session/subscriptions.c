/* broker/session/subscriptions.c: the shared tree of filters, and who has subscribed to them. See
 * the header for who may do what. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "broker/net/loop.h"
#include "broker/session/session.h"
#include "broker/session/subscriptions_internal.h"

/* Of a session that ends; then others may look something up. */
#define REMOVED_AT_A_TIME 256u

/* ---- Hashes -----------------------------------------------------------------------------------
 */

static uint32_t hash_record(const struct session *session, uint32_t node, uint32_t group)
{
    uint64_t h = chr_hash_u64((uint64_t)(uintptr_t)session ^ chr_hash_seed());
    return (uint32_t)chr_hash_u64(h ^ ((uint64_t)group << 32 | node));
}

static uint32_t record_hash(const void *owner, uint32_t number)
{
    const struct subscription *s = subscriptions__record(owner, number);
    return hash_record(s->session, s->node, s->group);
}

static uint32_t *record_next(const void *owner, uint32_t number)
{
    return &subscriptions__record(owner, number)->hash_next;
}

static uint32_t hash_name(uint32_t node, chr_slice name)
{
    return (uint32_t)chr_hash_slice(name, chr_hash_u64(chr_hash_seed() ^ node));
}

static uint32_t group_hash(const void *owner, uint32_t number)
{
    const struct share_group *g = subscriptions__group(owner, number);
    return hash_name(g->node, chr_slice_of(g->name, g->name_len));
}

static uint32_t *group_next(const void *owner, uint32_t number)
{
    return &subscriptions__group(owner, number)->hash_next;
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

/* ---- One subscription -------------------------------------------------------------------------
 */

static uint8_t flags_of(const struct subscription_options *o)
{
    return (uint8_t)(o->qos | (o->no_local ? FLAG_NO_LOCAL : 0) |
                     (o->retain_as_published ? FLAG_RETAIN_AS_PUBLISHED : 0) |
                     (o->retain_handling & 3) << FLAG_RETAIN_HANDLING_SHIFT |
                     (o->durable ? FLAG_DURABLE : 0));
}

static uint32_t find(const struct subscriptions *subs, const struct session *session, uint32_t node,
                     uint32_t group)
{
    uint32_t number = *chr_chains_bucket(&subs->by_session, hash_record(session, node, group));
    while (number) {
        const struct subscription *s = subscriptions__record(subs, number);
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
        const struct share_group *g = subscriptions__group(subs, number);
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
    struct share_group *g = subscriptions__group(subs, number);
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
        subscriptions__group(subs, *head)->prev_of_node = number;
    *head = number;
    chr_chains_put(&subs->by_name, &group_chains, subs, number);
    return number;
}

/* Gives back a group that has no members. */
static void group_drop(struct subscriptions *subs, uint32_t number)
{
    struct share_group *g = subscriptions__group(subs, number);
    if (g->prev_of_node)
        subscriptions__group(subs, g->prev_of_node)->next_of_node = g->next_of_node;
    else
        heads_of(subs, g->node)[GROUPS] = g->next_of_node;
    if (g->next_of_node)
        subscriptions__group(subs, g->next_of_node)->prev_of_node = g->prev_of_node;
    chr_chains_remove(&subs->by_name, &group_chains, subs, number);
    free(g->name);
    chr_slots_give(&subs->groups, number);
}

/* Gives back what serves nobody any more. */
static void tidy(struct subscriptions *subs, uint32_t node, uint32_t group)
{
    if (group && !subscriptions__group(subs, group)->members)
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
    if (s->group && subscriptions__stored(s))
        subscriptions__group(subs, s->group)->durable_count += change; /* modulo 2^32 */
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
    const struct share_group *g = s->group ? subscriptions__group(subs, s->group) : NULL;
    own_interest_remove(subs->told, g ? chr_slice_of(g->name, g->name_len) : (chr_slice){0},
                        chr_slice_of(text, len), subscriptions__stored(s));
    if (text != stack)
        free(text);
}

static uint32_t *list_of(const struct subscriptions *subs, const struct subscription *s)
{
    return s->group ? &subscriptions__group(subs, s->group)->members
                    : &heads_of(subs, s->node)[PLAIN];
}

static void link_in(struct subscriptions *subs, uint32_t number)
{
    struct subscription *s = subscriptions__record(subs, number);
    uint32_t *list = list_of(subs, s);
    s->next_of_node = *list;
    if (*list)
        subscriptions__record(subs, *list)->prev_of_node = number;
    *list = number;
    s->next_of_session = s->session->subscriptions;
    if (s->next_of_session)
        subscriptions__record(subs, s->next_of_session)->prev_of_session = number;
    s->session->subscriptions = number;
    s->session->subscriptions_count++;
    chr_chains_put(&subs->by_session, &record_chains, subs, number);
    atomic_fetch_add_explicit(&subs->count, 1, memory_order_relaxed);
    if (s->group)
        atomic_fetch_add_explicit(&subs->shared_count, 1, memory_order_relaxed);
    count_durable(subs, s, 1);
    subscriptions__count_change(subs, s->key);
}

static void unlink_and_free(struct subscriptions *subs, uint32_t number)
{
    struct subscription *s = subscriptions__record(subs, number);
    uint32_t node = s->node, group = s->group;
    untell(subs, s);
    if (group) {
        struct share_group *g = subscriptions__group(subs, group);
        if (atomic_load_explicit(&g->turn, memory_order_relaxed) == number)
            atomic_store_explicit(&g->turn, s->next_of_node, memory_order_relaxed);
    }
    if (s->prev_of_node)
        subscriptions__record(subs, s->prev_of_node)->next_of_node = s->next_of_node;
    else
        *list_of(subs, s) = s->next_of_node;
    if (s->next_of_node)
        subscriptions__record(subs, s->next_of_node)->prev_of_node = s->prev_of_node;
    if (s->prev_of_session)
        subscriptions__record(subs, s->prev_of_session)->next_of_session = s->next_of_session;
    else
        s->session->subscriptions = s->next_of_session;
    if (s->next_of_session)
        subscriptions__record(subs, s->next_of_session)->prev_of_session = s->prev_of_session;
    s->session->subscriptions_count--;
    chr_chains_remove(&subs->by_session, &record_chains, subs, number);
    atomic_fetch_sub_explicit(&subs->count, 1, memory_order_relaxed);
    if (group)
        atomic_fetch_sub_explicit(&subs->shared_count, 1, memory_order_relaxed);
    count_durable(subs, s, UINT32_MAX);
    subscriptions__count_change(subs, s->key);
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
        struct subscription *s = subscriptions__record(subs, number);
        *existed = true;
        /* Clients that come back ask for what they have: no match is void for that. */
        if (s->flags != flags_of(options) || s->id != options->id) {
            bool durable = options->durable && options->qos;
            if (subs->told && durable != subscriptions__stored(s)) {
                if (own_interest_add(subs->told, group_name, text, durable))
                    return CHR_ENOMEM;
                own_interest_remove(subs->told, group_name, text, subscriptions__stored(s));
            }
            count_durable(subs, s, UINT32_MAX);
            s->flags = flags_of(options);
            s->id = options->id;
            count_durable(subs, s, 1);
            subscriptions__count_change(subs, s->key);
            subscriptions__publish_changes(subs);
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
    struct subscription *s = subscriptions__record(subs, number);
    s->session = session;
    s->node = node;
    s->group = group;
    s->key = (uint16_t)filter_changes_key(text);
    s->loop = (uint16_t)session->loop->number;
    s->flags = flags_of(options);
    s->id = options->id;
    link_in(subs, number);
    subscriptions__publish_changes(subs);
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
        subscriptions__publish_changes(subs);
    }
    pthread_rwlock_unlock(&subs->lock);
    return number != 0;
}

void subscriptions_touch(struct subscriptions *subs, const struct session *session)
{
    /* Reading is enough: what is void is matches of this thread alone. */
    pthread_rwlock_rdlock(&subs->lock);
    for (uint32_t n = session->subscriptions; n;
         n = subscriptions__record(subs, n)->next_of_session)
        subscriptions__count_change(subs, subscriptions__record(subs, n)->key);
    pthread_rwlock_unlock(&subs->lock);
    subscriptions__publish_changes(subs);
}

void subscriptions_remove_all(struct subscriptions *subs, struct session *session)
{
    while (session->subscriptions) {
        pthread_rwlock_wrlock(&subs->lock);
        for (uint32_t i = 0; i < REMOVED_AT_A_TIME && session->subscriptions; i++)
            unlink_and_free(subs, session->subscriptions);
        subscriptions__publish_changes(subs);
        pthread_rwlock_unlock(&subs->lock);
    }
}
