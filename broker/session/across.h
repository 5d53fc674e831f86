/* broker/session/across.h: publish and subscribe across the nodes of a cluster.
 *
 *     SUBSCRIBE ─▶ own_interest ─FILTERS, CHANGES─▶ peers' trees ─▶ match.peers, match.choices
 *     PUBLISH ─┬─ in the log verbatim ─▶ each node, when it has applied it ─▶ its own subscribers
 *              └─ else ─▶ numbered_out ═BULK lane═▶ numbered_in ─▶ letter to one loop ─▶
 * subscribers
 *
 *   A1  A message goes to another node on one road: by the log, or directly. Directly it is
 *       delivered at most once, in the order of its publisher, and never passed on again. By the
 *       log, once by each node that applies it while it runs.
 *   A2  SUBACK is sent when every peer that is connected knows the filters, and this node has
 *       applied what was acknowledged anywhere before the SUBSCRIBE; or after
 *       ACROSS_SUBSCRIBE_US_MAX. Until then the subscription is in no tree of ours: nobody is given
 *       what was published long before.
 *   A3  A share group gets a message that is not the log's to deliver at one node: the origin takes
 *       turns among those that have members.
 *   A4  What waits for a peer is at most ACROSS_PEER_BYTES_MAX (half of it at QoS 0); beyond that
 *       messages are dropped and counted (DROP_PEER). No peer waits for another one.
 *   A5  Answers of SQL and $SYS stay where they arose.
 *
 * Nothing here outlives the process: after a crash of the origin, or of the receiver, messages that
 * went directly may be lost; those in the log are not.
 *
 * Locks: `lock` (peers), then the subscriptions', then own_interest's; `lock`, then `post_lock`
 * (letters), then a loop's mail. */
#ifndef CHR_BROKER_SESSION_ACROSS_H
#define CHR_BROKER_SESSION_ACROSS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "bridge/peers.h"
#include "broker/node.h"

struct across; /* opaque; NULL: a node alone */
struct broker_loop;
struct conn;
struct db_apply_result;
struct message;
struct route;

#define ACROSS_SUBSCRIBE_US_MAX INT64_C(1000000)
#define ACROSS_PEER_BYTES_MAX   ((uint64_t)32 << 20)
/* Of one message with its topic and properties, and what it bears: the largest packet that a member
 * of a cluster takes from a client goes to the others, too. Before format 2 it was 4.75 MiB. */
#define ACROSS_MESSAGE_BYTES_MAX   (CLUSTER_PACKET_BYTES_MAX + ((size_t)256 << 10))
#define ACROSS_MESSAGE_BYTES_MAX_1 ((size_t)19 << 18)

CHR_INLINE struct across *across_of(const struct broker_node *node)
{
    return atomic_load_explicit(&node->across, memory_order_acquire);
}

/* Before the loops; node->peers and node->subscriptions are there. CHR_ENOMEM */
CHR_MUST_USE chr_err across_new(struct broker_node *node, struct across **out);
/* After the loops have started. CHR_ENOMEM */
CHR_MUST_USE chr_err across_start(struct across *across);
/* After the loops have ended, before they take their last letters: none is posted from then on.
 * Accepts NULL. */
void across_stop(struct across *across);
/* After the lanes and the applier have ended. Accepts NULL. */
void across_free(struct across *across);

/* -- Lane threads -------------------------------------------------------------------------------*/

/* Kinds DELIVER and DELIVERED; message is borrowed. */
void across_received(struct across *across, const struct peers_message *message);
void across_lane(struct across *across, uint64_t node, enum peers_lane lane, bool up);
/* It is no member any more: nothing waits for it, and nobody there is interested in anything. */
void across_forget(struct across *across, uint64_t node);
void across_writable(struct across *across, uint64_t node, enum peers_lane lane);

/* -- Any thread ---------------------------------------------------------------------------------*/

struct across_stats {
    uint64_t filters;      /* of its subscribers, as far as it has told them */
    uint64_t queued_bytes; /* messages that wait for it, or for its word that it has them */
};
/* CHR_ENOTFOUND: nothing has come from it yet, or it was forgotten. */
chr_err across_stats(struct across *across, uint64_t node, struct across_stats *out);

/* -- Applier ------------------------------------------------------------------------------------*/

/* An entry that another process proposed was applied. */
void across_entry_applied(struct across *across, chr_slice operations,
                          const struct db_apply_result *result);
/* After each group of entries. */
void across_applied(struct across *across);

/* -- Loops --------------------------------------------------------------------------------------*/

/* Peers that can be reached: bit i, as in match.peers. */
uint32_t across_up(const struct across *across);
/* To the subscribers of one peer: those whose subscription is not shared (plain), and one member of
 * each group. Sent by across_flush, or when the window has room. */
void across_send(struct broker_loop *loop, const struct route *route, struct message *message,
                 uint32_t peer, bool plain, const uint64_t *groups, uint32_t groups_count);
/* Once a turn. */
void across_flush(struct across *across);

/* A SUBSCRIBE that waits for A2. */
struct across_subscribe; /* opaque */
/* NULL: no memory. */
struct across_subscribe *across_subscribe_begin(struct conn *conn);
/* A filter of it, told from now on until across_subscribe_end. CHR_ENOMEM */
CHR_MUST_USE chr_err across_subscribe_add(struct across_subscribe *wait, chr_slice group,
                                          chr_slice filter, bool durable);
/* Pauses the connection (CONN_PAUSE_PEERS); conn->subscribe says who waits. It goes on when
 * across_subscribe_ready. */
void across_subscribe_wait(struct across_subscribe *wait);
bool across_subscribe_ready(const struct across_subscribe *wait);
/* Answered, or never to be: what is subscribed is told by the tree itself. Accepts NULL. */
void across_subscribe_end(struct conn *conn);

#endif
