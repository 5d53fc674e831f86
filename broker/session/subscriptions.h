/* broker/session/subscriptions.h: who wants which topics; shared by all loops.
 *
 * A tree of filters (base/filter_tree.h) behind a read-write lock. It is read when a topic is first
 * seen by a loop; after that the loop answers from its route cache (route.h). A change of
 * subscriptions moves the version, one relaxed load per message, and then a route asks
 * subscriptions_current whether a filter that matches its topic is among what changed
 * (filter_changes.h): a few counters, no lock. So a hundred thousand warm topics are not matched
 * again because somebody subscribed to something else.
 *
 * What is told by 32-bit numbers lies in slots (base/slots.h): 48 bytes for a subscription, 24 for
 * a node of the tree, 4 for each in a bucket.
 *
 * A match holds, for the sessions of the asking loop, what to deliver to each: overlapping
 * subscriptions of a session are merged into one delivery at the highest QoS with all Subscription
 * Identifiers (3.3.4). Of other loops it only says that they have recipients: they match for
 * themselves, so no loop ever holds a pointer to another's session.
 *
 * Across nodes: what peers have told of their subscribers (interest.h) stands beside the tree,
 * under the same lock and counted among the same changes, so a match says which peers have some;
 * and each filter that comes or goes here is counted in what is told to them. A node alone has
 * neither.
 *
 * Safety: a match is used only while it is current. A session removes its subscriptions before it
 * is freed, on the same thread that uses its loop's matches; each removal counts a change of its
 * filter, which matched the topic of every match the session is in, so none of those is current any
 * more. The same goes for a group and its filter; groups are used under the lock. */
#ifndef CHR_BROKER_SESSION_SUBSCRIPTIONS_H
#define CHR_BROKER_SESSION_SUBSCRIPTIONS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

struct broker_loop;
struct deliver_filter; /* bridge/deliver_codec.h */
struct own_interest;   /* interest.h */
struct peer_interest;
struct session;
struct share_group;
struct subscriptions;

#define SUBSCRIPTIONS_PEERS_MAX 16u

struct subscription_options {
    uint8_t qos;
    bool no_local;
    bool retain_as_published;
    uint8_t retain_handling; /* as asked for; to be told, it was served at SUBSCRIBE */
    uint32_t id;             /* Subscription Identifier; 0: none */
    bool durable;            /* of a session the log knows: above QoS 0 the log's queue serves it */
};

CHR_MUST_USE chr_err subscriptions_new(struct subscriptions **out);
void subscriptions_free(struct subscriptions *subs); /* accepts NULL; must be empty */
/* Moves with every change: while it stands, every match is current. Any thread. */
uint64_t subscriptions_version(const struct subscriptions *subs);
uint64_t subscriptions_count(const struct subscriptions *subs);
uint64_t subscriptions_shared_count(const struct subscriptions *subs);

/* Adds or replaces. filter: without `$share/<group>/`; group: empty when not shared. *existed: it
 * was there before, with other options perhaps. Session's loop. CHR_ENOMEM */
CHR_MUST_USE chr_err subscriptions_add(struct subscriptions *subs, struct session *session,
                                       chr_slice group, chr_slice filter,
                                       const struct subscription_options *options, bool *existed);
bool subscriptions_has(struct subscriptions *subs, const struct session *session, chr_slice group,
                       chr_slice filter);
/* False: there was none. Session's loop. */
bool subscriptions_remove(struct subscriptions *subs, struct session *session, chr_slice group,
                          chr_slice filter);
void subscriptions_remove_all(struct subscriptions *subs, struct session *session);
/* What the session may read has changed: matches it is in, or was left out of, are void. Session's
 * loop. */
void subscriptions_touch(struct subscriptions *subs, const struct session *session);

/* -- Across nodes */

/* Before the first subscription: filters are told from now on. own: borrowed until free. */
void subscriptions_tell(struct subscriptions *subs, struct own_interest *own);
/* Lane threads. What peer `peer` wants, told anew as a whole; interest is taken. NULL: nothing. */
void subscriptions_peer_replace(struct subscriptions *subs, uint32_t peer,
                                struct peer_interest *interest);
/* What has changed of it, items as in a CHANGES of bridge/deliver_codec.h. CHR_EMALFORMED,
 * CHR_ENOMEM: a part may have been taken; CHR_ENOTFOUND: that peer has told nothing. */
CHR_MUST_USE chr_err subscriptions_peer_changed(struct subscriptions *subs, uint32_t peer,
                                                chr_slice items);
uint64_t subscriptions_peer_count(struct subscriptions *subs, uint32_t peer); /* of its filters */
/* Has any session of this node a subscription that matches? Any thread. */
bool subscriptions_wanted(struct subscriptions *subs, chr_slice topic);

/* -- Matching */

struct recipient {
    struct session *session; /* of the asking loop */
    uint8_t qos;             /* the highest of its matching subscriptions */
    uint8_t qos_local;       /* the same without those that say No Local; 0xff: none is left */
    bool retain_as_published, retain_as_published_local;
    /* Blocks of Subscription Identifiers in match.ids. */
    uint32_t ids_at, ids_len;
    uint32_t local_ids_at, local_ids_len;
};

/* A share group with members on other nodes. */
struct share_choice {
    uint64_t group;  /* interest_group */
    uint32_t peers;  /* bit i: peer i has members */
    uint32_t local;  /* its place in match.groups; UINT32_MAX: no member here */
    bool durable;    /* some member is durable above QoS 0 */
    uint32_t turn;   /* of the nodes that have members; the asking loop's */
    uint32_t chosen; /* deliver.c: the peer whose turn it is */
};
#define SHARE_CHOSEN_NONE UINT32_MAX /* the log serves it */
#define SHARE_CHOSEN_HERE (UINT32_MAX - 1)

struct match {
    struct recipient *own;
    uint32_t own_count, own_max;
    bool durable;   /* some durable session, of whichever loop or (as far as peers have told) node,
                       takes it above QoS 0: a message above QoS 0 goes through the log (R6) */
    uint32_t peers; /* bit i: peer i has subscribers that share with nobody */
    struct share_choice *choices;
    uint32_t choices_count, choices_max;
    uint64_t version;            /* it is current while that stands, */
    uint64_t changes;            /* or the sum of the topic's changes does */
    uint64_t others;             /* bit (number mod 64) of each other loop with recipients */
    struct share_group **groups; /* matching shared subscriptions; pointers are tokens for
                                    subscriptions_pick */
    uint32_t groups_count, groups_max;
    uint8_t *ids;
    uint32_t ids_len, ids_max;
};
CHR_INLINE bool match_any(const struct match *match)
{
    return match->own_count || match->others || match->groups_count || match->peers ||
           match->choices_count;
}
/* The same without what other nodes have from the log by themselves. */
CHR_INLINE bool match_here(const struct match *match)
{
    return match->own_count || match->others || match->groups_count || match->choices_count;
}
void match_free(struct match *match);

/* Fills match (keeping its memory) for a valid topic name.
 * loop: whose sessions are `own`. CHR_ENOMEM: match is current for nothing then. */
CHR_MUST_USE chr_err subscriptions_match(struct subscriptions *subs, chr_slice topic,
                                         const struct broker_loop *loop, struct match *match);
/* Is a match of this topic what subscriptions_match would find now? (False also when it may not
 * be.) The thread of its loop; remembers the version it looked at. */
bool subscriptions_current(const struct subscriptions *subs, chr_slice topic, struct match *match);

/* The member of a group that gets the next message: in turn, connected ones first. */
struct share_pick {
    struct broker_loop *loop;
    uint64_t session_number;
    uint32_t group; /* its number; never 0 */
    bool durable;   /* the group has members that are durable above QoS 0: then the log serves it
                       with messages above QoS 0 */
    struct subscription_options options;
};
/* Picks for all groups of a match; false: it is not current, match again.
 * picks: [groups_count], those of empty groups have loop NULL. */
bool subscriptions_pick(struct subscriptions *subs, chr_slice topic, const struct match *match,
                        struct share_pick *picks);
/* The same for one group, told by its number; loop is NULL when nobody is left in it. */
bool subscriptions_pick_group(struct subscriptions *subs, chr_slice topic,
                              const struct match *match, uint32_t group, struct share_pick *out);

/* The same for one that is told by its interest_group. */
bool subscriptions_pick_told(struct subscriptions *subs, chr_slice topic, const struct match *match,
                             uint64_t group, struct share_pick *out);

/* Calls each(arg, options, filter) for the subscriptions of a session; session's loop. The
 * filter is borrowed until return and bears its `$share/<group>/`. */
void subscriptions_each(struct subscriptions *subs, const struct session *session,
                        void (*each)(void *arg, const struct subscription_options *options,
                                     chr_slice filter),
                        void *arg);
/* All subscriptions of all sessions, a few at a time, for any thread: calls each() for about
 * `count` of them from *cursor on (0 at first) under the lock for reading, and moves *cursor; 0
 * again: those were the last. One that is there from the first call to the last is met exactly
 * once. What each() gets is borrowed until it returns; filter is
 * without share and group. CHR_ENOMEM */
CHR_MUST_USE chr_err
subscriptions_scan(struct subscriptions *subs, uint64_t *cursor, uint32_t count,
                   void (*each)(void *arg, const struct subscription_options *options,
                                chr_slice client_id, chr_slice group, chr_slice filter),
                   void *arg);

#endif
