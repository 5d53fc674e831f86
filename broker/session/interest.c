#include "broker/session/interest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

/* Changes kept for peers that are behind; beyond either they are told everything. */
#define CHANGES_MAX       16384u
#define CHANGES_BYTES_MAX ((size_t)4 << 20)

static bool under(chr_slice filter, chr_slice prefix)
{
    return chr_slice_starts(filter, prefix) &&
           (filter.len == prefix.len || filter.ptr[prefix.len] == '/');
}

bool interest_is_told(chr_slice filter)
{
    return filter.len == 0 || filter.ptr[0] != '$' || under(filter, CHR_LIT("$chronos/reject"));
}

uint64_t interest_group(chr_slice group, chr_slice filter)
{
    /* The seeds are part of what nodes say to each other. */
    return chr_hash_slice(group, chr_hash_slice(filter, UINT64_C(0x73686172656421)));
}

/* ---- What we tell -----------------------------------------------------------------------------
 */

/* A filter with its group; text is `group` then `filter`. */
struct told {
    uint8_t *text; /* owned */
    uint16_t group_len, filter_len;
    uint32_t count, durable; /* subscribers; the durable ones above QoS 0 among them */
    uint32_t hash_next;
};

struct change {
    struct change *next;
    uint16_t group_len, filter_len;
    bool present, durable;
    uint8_t text[];
};

struct own_interest {
    pthread_mutex_t lock;
    _Atomic uint64_t version; /* of the newest change */
    struct chr_slots items;   /* struct told */
    struct chr_chains by_text;
    struct change *first, *last; /* oldest first */
    uint64_t kept_from;          /* changes above it are kept */
    size_t changes_count, changes_bytes;
    void (*changed)(void *arg);
    void *arg;
};

static struct told *item_at(const struct own_interest *own, uint32_t number)
{
    return chr_slots_at(&own->items, number);
}

static chr_slice group_of(const struct told *t)
{
    return chr_slice_of(t->text, t->group_len);
}

static chr_slice filter_of(const struct told *t)
{
    return chr_slice_of(t->text + t->group_len, t->filter_len);
}

static uint32_t hash_of(chr_slice group, chr_slice filter)
{
    return (uint32_t)chr_hash_slice(group, chr_hash_slice(filter, chr_hash_seed()));
}

static uint32_t item_hash(const void *owner, uint32_t number)
{
    const struct told *t = chr_slots_at(&((const struct own_interest *)owner)->items, number);
    return hash_of(group_of(t), filter_of(t));
}

static uint32_t *item_next(const void *owner, uint32_t number)
{
    return &item_at(owner, number)->hash_next;
}

static const struct chr_chains_owner chains = {item_hash, item_next};

chr_err own_interest_new(void (*changed)(void *arg), void *arg, struct own_interest **out)
{
    struct own_interest *own = calloc(1, sizeof *own);
    if (!own)
        return CHR_ENOMEM;
    own->changed = changed;
    own->arg = arg;
    pthread_mutex_init(&own->lock, NULL);
    chr_slots_init(&own->items, sizeof(struct told));
    if (chr_chains_init(&own->by_text)) {
        own_interest_free(own);
        return CHR_ENOMEM;
    }
    /* A peer that knows nothing is at version 0. */
    atomic_init(&own->version, 1);
    own->kept_from = 1;
    *out = own;
    return CHR_OK;
}

static void forget_changes(struct own_interest *own)
{
    while (own->first) {
        struct change *next = own->first->next;
        free(own->first);
        own->first = next;
    }
    own->last = NULL;
    own->changes_count = own->changes_bytes = 0;
    own->kept_from = atomic_load_explicit(&own->version, memory_order_relaxed);
}

void own_interest_free(struct own_interest *own)
{
    if (!own)
        return;
    forget_changes(own);
    for (uint32_t n = 1; n < own->items.next; n++)
        if (item_at(own, n)->count) /* else it was given back */
            free(item_at(own, n)->text);
    chr_slots_free(&own->items);
    chr_chains_free(&own->by_text);
    pthread_mutex_destroy(&own->lock);
    free(own);
}

static void forget_first(struct own_interest *own)
{
    struct change *c = own->first;
    own->first = c->next;
    if (!own->first)
        own->last = NULL;
    own->changes_count--;
    own->changes_bytes -= sizeof *c + c->group_len + c->filter_len;
    own->kept_from++;
    free(c);
}

/* What became of t is a version of its own. */
static void note_change(struct own_interest *own, const struct told *t)
{
    size_t text = (size_t)t->group_len + t->filter_len;
    struct change *c = malloc(sizeof *c + text);
    atomic_fetch_add_explicit(&own->version, 1, memory_order_release);
    if (own->changed)
        own->changed(own->arg);
    if (!c) { /* everybody is told everything */
        forget_changes(own);
        return;
    }
    *c = (struct change){.group_len = t->group_len,
                         .filter_len = t->filter_len,
                         .present = t->count > 0,
                         .durable = t->durable > 0};
    memcpy(c->text, t->text, text);
    if (own->last)
        own->last->next = c;
    else
        own->first = c;
    own->last = c;
    own->changes_count++;
    own->changes_bytes += sizeof *c + text;
    while (own->changes_count > CHANGES_MAX || own->changes_bytes > CHANGES_BYTES_MAX)
        forget_first(own);
}

static uint32_t find(const struct own_interest *own, chr_slice group, chr_slice filter)
{
    uint32_t number = *chr_chains_bucket(&own->by_text, hash_of(group, filter));
    while (number) {
        const struct told *t = item_at(own, number);
        if (chr_slice_eq(group_of(t), group) && chr_slice_eq(filter_of(t), filter))
            break;
        number = t->hash_next;
    }
    return number;
}

static uint32_t find_or_make(struct own_interest *own, chr_slice group, chr_slice filter)
{
    uint32_t number = find(own, group, filter);
    if (number)
        return number;
    uint8_t *text = malloc(group.len + filter.len);
    number = text ? chr_slots_new(&own->items) : 0;
    if (!number) {
        free(text);
        return 0;
    }
    if (group.len)
        memcpy(text, group.ptr, group.len);
    memcpy(text + group.len, filter.ptr, filter.len);
    struct told *t = item_at(own, number);
    *t = (struct told){
        .text = text, .group_len = (uint16_t)group.len, .filter_len = (uint16_t)filter.len};
    chr_chains_put(&own->by_text, &chains, own, number);
    return number;
}

chr_err own_interest_add(struct own_interest *own, chr_slice group, chr_slice filter, bool durable)
{
    if (!interest_is_told(filter))
        return CHR_OK;
    pthread_mutex_lock(&own->lock);
    uint32_t number = find_or_make(own, group, filter);
    if (number) {
        struct told *t = item_at(own, number);
        bool news = t->count == 0 || (durable && t->durable == 0);
        t->count++;
        t->durable += durable;
        if (news)
            note_change(own, t);
    }
    pthread_mutex_unlock(&own->lock);
    return number ? CHR_OK : CHR_ENOMEM;
}

void own_interest_remove(struct own_interest *own, chr_slice group, chr_slice filter, bool durable)
{
    if (!interest_is_told(filter))
        return;
    pthread_mutex_lock(&own->lock);
    uint32_t number = find(own, group, filter);
    CHR_ASSERT(number);
    struct told *t = item_at(own, number);
    CHR_ASSERT(t->count > 0 && t->durable >= durable);
    t->count--;
    t->durable -= durable;
    if (t->count == 0 || (durable && t->durable == 0))
        note_change(own, t);
    if (t->count == 0) {
        chr_chains_remove(&own->by_text, &chains, own, number);
        free(t->text);
        *t = (struct told){0};
        chr_slots_give(&own->items, number);
    }
    pthread_mutex_unlock(&own->lock);
}

uint64_t own_interest_version(const struct own_interest *own)
{
    return atomic_load_explicit(&own->version, memory_order_acquire);
}

uint64_t own_interest_count(struct own_interest *own)
{
    pthread_mutex_lock(&own->lock);
    uint64_t count = own->items.count;
    pthread_mutex_unlock(&own->lock);
    return count;
}

chr_err own_interest_changes(struct own_interest *own, uint64_t from, size_t bytes_max,
                             struct chr_buf *out, uint64_t *to)
{
    pthread_mutex_lock(&own->lock);
    uint64_t at = own->kept_from;
    bool kept = from >= at && from <= atomic_load_explicit(&own->version, memory_order_relaxed);
    const struct change *c = kept ? own->first : NULL;
    *to = from;
    for (; c && out->len < bytes_max; c = c->next) {
        if (++at <= from)
            continue;
        deliver_filter_put(out, &(struct deliver_filter){
                                    .group = chr_slice_of(c->text, c->group_len),
                                    .filter = chr_slice_of(c->text + c->group_len, c->filter_len),
                                    .present = c->present,
                                    .durable = c->durable});
        *to = at;
    }
    pthread_mutex_unlock(&own->lock);
    return !kept ? CHR_ENOTFOUND : out->failed ? CHR_EFULL : CHR_OK;
}

chr_err own_interest_walk(struct own_interest *own, uint32_t *cursor, size_t bytes_max,
                          struct chr_buf *out)
{
    pthread_mutex_lock(&own->lock);
    uint32_t n = *cursor ? *cursor : 1;
    for (; n < own->items.next && out->len < bytes_max; n++) {
        const struct told *t = item_at(own, n);
        if (!t->count)
            continue;
        deliver_filter_put(out, &(struct deliver_filter){.group = group_of(t),
                                                         .filter = filter_of(t),
                                                         .present = true,
                                                         .durable = t->durable > 0});
    }
    *cursor = n < own->items.next ? n : 0;
    pthread_mutex_unlock(&own->lock);
    return out->failed ? CHR_EFULL : CHR_OK;
}

/* ---- What a peer told -------------------------------------------------------------------------
 */

/* The value of a node: flags of subscribers that share with nobody; the first of its groups. */
enum { FLAGS, GROUPS };
enum { FLAG_PLAIN = 1, FLAG_DURABLE = 2 };

struct peer_group {
    uint64_t group; /* interest_group */
    uint32_t next;
    uint32_t durable;
};

static struct peer_group *peer_group_at(const struct peer_interest *p, uint32_t number)
{
    return chr_slots_at(&p->groups, number);
}

chr_err peer_interest_new(struct peer_interest **out)
{
    struct peer_interest *p = calloc(1, sizeof *p);
    if (!p)
        return CHR_ENOMEM;
    if (chr_filter_tree_init(&p->tree)) {
        free(p);
        return CHR_ENOMEM;
    }
    chr_slots_init(&p->groups, sizeof(struct peer_group));
    *out = p;
    return CHR_OK;
}

void peer_interest_free(struct peer_interest *p)
{
    if (!p)
        return;
    chr_filter_tree_free(&p->tree);
    chr_slots_free(&p->groups);
    free(p);
}

/* The place in the list that names the group, or its end. */
static uint32_t *group_place(const struct peer_interest *p, union chr_filter_value *value,
                             uint64_t group)
{
    uint32_t *at = &value->numbers[GROUPS];
    while (*at && peer_group_at(p, *at)->group != group)
        at = &peer_group_at(p, *at)->next;
    return at;
}

static chr_err set_group(struct peer_interest *p, uint32_t node, const struct deliver_filter *f,
                         bool *changed)
{
    uint64_t group = interest_group(f->group, f->filter);
    uint32_t *at = group_place(p, chr_filter_tree_value(&p->tree, node), group);
    uint32_t number = *at;
    if (!number && f->present) {
        number = chr_slots_new(&p->groups);
        if (!number)
            return CHR_ENOMEM;
        *peer_group_at(p, number) = (struct peer_group){.group = group, .durable = f->durable};
        *at = number;
        p->count++;
        *changed = true;
    } else if (number && !f->present) {
        *at = peer_group_at(p, number)->next;
        chr_slots_give(&p->groups, number);
        p->count--;
        *changed = true;
    } else if (number && peer_group_at(p, number)->durable != f->durable) {
        peer_group_at(p, number)->durable = f->durable;
        *changed = true;
    }
    return CHR_OK;
}

chr_err peer_interest_set(struct peer_interest *p, const struct deliver_filter *f, bool *changed)
{
    *changed = false;
    uint32_t node = f->present ? chr_filter_tree_add(&p->tree, f->filter)
                               : chr_filter_tree_find(&p->tree, f->filter);
    if (!node)
        return f->present ? CHR_ENOMEM : CHR_OK;
    chr_err err = CHR_OK;
    if (f->group.len) {
        err = set_group(p, node, f, changed);
    } else {
        uint32_t *flags = &chr_filter_tree_value(&p->tree, node)->numbers[FLAGS];
        uint32_t now = f->present ? FLAG_PLAIN | (f->durable ? FLAG_DURABLE : 0) : 0;
        *changed = *flags != now;
        p->count += (now != 0) - (uint64_t)(*flags != 0);
        *flags = now;
    }
    chr_filter_tree_prune(&p->tree, node);
    return err;
}

struct matching {
    const struct peer_interest *interest;
    struct peer_wants *wants;
};

static void take_values(void *arg, const union chr_filter_value *values, uint32_t count)
{
    struct matching *m = arg;
    for (uint32_t i = 0; i < count; i++) {
        m->wants->plain |= (values[i].numbers[FLAGS] & FLAG_PLAIN) != 0;
        m->wants->durable |= (values[i].numbers[FLAGS] & FLAG_DURABLE) != 0;
        for (uint32_t n = values[i].numbers[GROUPS]; n;) {
            const struct peer_group *g = peer_group_at(m->interest, n);
            m->wants->group(m->wants->arg, g->group, g->durable);
            n = g->next;
        }
    }
}

void peer_interest_match(const struct peer_interest *p, chr_slice topic, struct peer_wants *wants)
{
    struct matching m = {p, wants};
    if (chr_filter_tree_nodes(&p->tree))
        (void)chr_filter_tree_match(&p->tree, topic, take_values, &m);
}
