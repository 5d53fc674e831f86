/* broker/session/route.h: what a topic means to a loop: its mappings and its subscribers.
 *
 * A bounded table per loop in front of the shared structures: a sensor's topic costs one hash and
 * one comparison per message. A route is dropped when mappings change. When subscriptions change,
 * it is matched again only if a filter that matches its topic may be among them; routes that are
 * not used are not looked at (subscriptions_current).
 *
 * At ROUTES_MAX topics, or when their routes hold more than ROUTES_BYTES_MAX, the clock hand takes
 * one that was not used a second time since it last came by: topics seen once pass through and do
 * not push out those that sensors come back to. */
#ifndef CHR_BROKER_SESSION_ROUTE_H
#define CHR_BROKER_SESSION_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "broker/ingest/ingest.h"
#include "broker/session/subscriptions.h"

#define ROUTES_MAX 65536u
/* Of all routes of a loop: topics (64 KiB each if somebody wants it so) and recipients. One route
 * may have more by itself, as many as there are sessions. */
#define ROUTES_BYTES_MAX (128u << 20)

enum route_kind {
    ROUTE_PLAIN,     /* mapped or not: look at ingest */
    ROUTE_SQL,       /* $chronos/sql */
    ROUTE_SQL_TOKEN, /* $chronos/sql/<token> */
    ROUTE_CANCEL,    /* $chronos/cancel, $chronos/cancel/<token> */
    ROUTE_PEERS,     /* $chronos/peer/…, $chronos/sync/…: of peers and edges only (R17) */
    ROUTE_REFUSED,   /* any other topic under `$` */
};

struct route {
    uint64_t hash;
    enum route_kind kind;
    bool used;             /* again since the hand came by */
    ingest_route *ingest;  /* NULL: mapped to nothing */
    enum db_ack_class ack; /* the strongest of its tables */
    struct match match;    /* look at it through route_match */
    size_t bytes;          /* as counted in routes.bytes; the ingest route aside */
    uint64_t logged; /* serial of the last batch with a message of it that is in no table (R6) */
    uint64_t logged_index; /* in a cluster: of the last entry with a message of it; 0: none */
    uint64_t
        queued_version;   /* in a cluster: 1 + db_subscriptions_version `queued` is of; 0: none */
    bool queued;          /* some session's queue takes what is above QoS 0 */
    uint64_t publish_key; /* acl_key of who may publish here, looked at last; 0: nobody was */
    uint32_t topic_len;
    uint8_t topic[];
};

struct route_slot {
    uint64_t hash;
    struct route *route; /* NULL: free */
};

struct routes {
    struct broker_loop *loop;
    struct route_slot *slots; /* open addressing, at most half full */
    uint32_t mask, count, hand;
    uint64_t bytes;            /* of all routes */
    uint64_t matches;          /* looked up in the trie so far */
    uint64_t mappings_version; /* of the ingest routes held */
};

CHR_MUST_USE chr_err routes_init(struct routes *routes, struct broker_loop *loop);
void routes_free(struct routes *routes);
/* Forgets everything: the mappings have changed. */
void routes_clear(struct routes *routes);
enum route_kind route_kind_of(chr_slice topic);
/* Under $chronos/peer; also for filters. */
bool route_is_peers(chr_slice topic);

/* The route of a topic that has been seen; NULL: not yet, or no longer. */
struct route *routes_peek(struct routes *routes, chr_slice topic);
/* The route of a valid topic name under the loop's mappings; good until the next call of
 * routes_get. NULL: no memory. */
struct route *routes_get(struct routes *routes, chr_slice topic);
/* Its recipients now. NULL: no memory. */
const struct match *route_match(struct routes *routes, struct route *route);

CHR_INLINE chr_slice route_topic(const struct route *route)
{
    return chr_slice_of(route->topic, route->topic_len);
}

#endif
