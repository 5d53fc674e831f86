/* broker/session/interest.h: which filters have subscribers, here and on other nodes.
 *
 *     own_interest   what this node tells its peers: filters of its sessions, counted
 *     peer_interest  what a peer has told: a tree of filters that topics are matched against
 *
 * A node tells a peer everything once (a walk), and from then on what changes, by version. The
 * changes are kept for a while; a peer that needs older ones is told everything again.
 *
 *   I1  A version is one change. What a walk tells is for each filter at least as new as the
 *       version at its beginning; with all changes since that version, in order, it is exactly what
 *       stands then.
 *   I2  A change says what is so after it (subscribers or none), so hearing it twice, or out of a
 *       walk that had it already, does no harm.
 *
 * A filter is told once per share group and once without; how many sessions have it is nobody
 * else's business, but whether one of them is durable above QoS 0 is: then messages above QoS 0 go
 * through the log (R6). Filters that only match what stays on its node ($SYS, answers) are not
 * told. */
#ifndef CHR_BROKER_SESSION_INTEREST_H
#define CHR_BROKER_SESSION_INTEREST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/filter_tree.h"
#include "base/slice.h"
#include "base/slots.h"
#include "bridge/deliver_codec.h"

/* Does any topic that it matches concern other nodes? */
bool interest_is_told(chr_slice filter);
/* A share group with its filter, the same number on every node. */
uint64_t interest_group(chr_slice group, chr_slice filter);

/* -- What we tell -------------------------------------------------------------------------------
 *
 * Locked by itself, for a moment: any thread. The lock is the innermost. */

struct own_interest; /* opaque */

/* changed: called with the lock held, after each version; must not block. NULL: nobody. */
CHR_MUST_USE chr_err own_interest_new(void (*changed)(void *arg), void *arg,
                                      struct own_interest **out);
void own_interest_free(struct own_interest *own); /* accepts NULL */
/* One subscriber more. group: empty when not shared. Filters that are not told are ignored.
 * CHR_ENOMEM: it is not counted. */
CHR_MUST_USE chr_err own_interest_add(struct own_interest *own, chr_slice group, chr_slice filter,
                                      bool durable);
/* One less; it was added with the same words. */
void own_interest_remove(struct own_interest *own, chr_slice group, chr_slice filter, bool durable);
uint64_t own_interest_version(const struct own_interest *own); /* one atomic load */
/* How many different ones there are. */
uint64_t own_interest_count(struct own_interest *own);

/* Appends changes after version `from` to out (deliver_filter_put), oldest first, until it holds
 * about bytes_max. *to: the version they lead to. CHR_ENOTFOUND: they are not kept any more.
 * CHR_ENOMEM, CHR_EFULL: out failed. */
CHR_MUST_USE chr_err own_interest_changes(struct own_interest *own, uint64_t from, size_t bytes_max,
                                          struct chr_buf *out, uint64_t *to);
/* Appends filters from *cursor on (0 at first) in the same way and moves it; 0 again: that was all.
 * One that is there from the first call to the last is met. */
CHR_MUST_USE chr_err own_interest_walk(struct own_interest *own, uint32_t *cursor, size_t bytes_max,
                                       struct chr_buf *out);

/* -- What a peer told ---------------------------------------------------------------------------
 *
 * Not locked. */

struct peer_interest {
    struct chr_filter_tree tree; /* of filters; values: flags and the first share group */
    struct chr_slots groups;
    uint64_t count; /* filters, each with each of its groups */
};
CHR_MUST_USE chr_err peer_interest_new(struct peer_interest **out);
void peer_interest_free(struct peer_interest *interest); /* accepts NULL */
/* What is so from now on. True in *changed: it was not before. CHR_ENOMEM */
CHR_MUST_USE chr_err peer_interest_set(struct peer_interest *interest,
                                       const struct deliver_filter *filter, bool *changed);

struct peer_wants {
    bool plain, durable; /* subscribers that share with nobody; a durable one above QoS 0 */
    /* Called for each share group. */
    void (*group)(void *arg, uint64_t group, bool durable);
    void *arg;
};
/* Adds to *wants (whose flags the caller has cleared) what matches the topic. */
void peer_interest_match(const struct peer_interest *interest, chr_slice topic,
                         struct peer_wants *wants);

#endif
