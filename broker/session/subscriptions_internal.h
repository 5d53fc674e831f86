/* broker/session/subscriptions_internal.h: what the files of subscriptions share. For them alone.
 *
 *     subscriptions.c        who has subscribed to what: records, groups, the tree of filters
 *     subscriptions_match.c  who gets a message of a topic
 *     subscriptions_peers.c  what subscribers of other nodes want
 *     subscriptions_list.c   all that one session, or the node, has */
#ifndef CHR_BROKER_SESSION_SUBSCRIPTIONS_INTERNAL_H
#define CHR_BROKER_SESSION_SUBSCRIPTIONS_INTERNAL_H

#include <pthread.h>

#include "base/filter_tree.h"
#include "broker/session/filter_changes.h"
#include "broker/session/interest.h"
#include "broker/session/subscriptions.h"

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

CHR_INLINE struct subscription *subscriptions__record(const struct subscriptions *subs,
                                                      uint32_t number)
{
    return chr_slots_at(&subs->records, number);
}

CHR_INLINE struct share_group *subscriptions__group(const struct subscriptions *subs,
                                                    uint32_t number)
{
    return chr_slots_at(&subs->groups, number);
}
enum {
    FLAG_QOS = 3,
    FLAG_NO_LOCAL = 4,
    FLAG_RETAIN_AS_PUBLISHED = 8,
    FLAG_RETAIN_HANDLING_SHIFT = 4, /* two bits */
    FLAG_DURABLE = 64,
};

CHR_INLINE struct subscription_options subscriptions__options(const struct subscription *s)
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
CHR_INLINE bool subscriptions__stored(const struct subscription *s)
{
    return (s->flags & FLAG_DURABLE) && (s->flags & FLAG_QOS);
}
/* A filter with this key has changed; the version that says so follows (publish_changes). */
CHR_INLINE void subscriptions__count_change(struct subscriptions *subs, uint32_t key)
{
    atomic_fetch_add_explicit(&subs->changes[key], 1, memory_order_release);
}

CHR_INLINE void subscriptions__publish_changes(struct subscriptions *subs)
{
    atomic_fetch_add_explicit(&subs->version, 1, memory_order_release);
}

/* subscriptions_match.c. Room in a growing array for one more. False: no memory. */
bool subscriptions__reserve(void **array, uint32_t *max, uint32_t count, size_t size);

/* subscriptions_peers.c. lock. Which peers have subscribers of the topic, and what share groups
 * have members there: to match, after the tree, whose groups are known then. False: no memory. */
bool subscriptions__match_peers(const struct subscriptions *subs, chr_slice topic,
                                struct match *match);

#endif
