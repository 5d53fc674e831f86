/* broker/cluster.h: a node among others: who they are, how a cluster comes about and stays one.
 *
 *     empty ─all listed peers are empty, too─▶ founded ─▶ member
 *       └──── a peer belongs to a cluster ───▶ joins (its founder: at once; else as a learner)
 *
 *   C1  (R20) A cluster is founded only when every node listed has said that it is empty, and lists
 *       the same nodes, and only by the one of them with the lowest number; --bootstrap founds one
 *       of those that have said so by now. Who has heard of a cluster never founds another: its
 *       number is derived from its founders and their disks, and is written down before anything is
 *       said in its name.
 *   C2  (R20) A node whose disk was wiped is a stranger to its cluster, whatever its name: the
 *       leader takes it in again as a learner, and makes it a voter once it has caught up, if it
 *       was one. Others are added by an operator (broker/cluster_calls.h).
 *   C3  Nothing is taken from a node of another cluster, nor from one that does not know the format
 *       that the cluster writes.
 *   C4  Sessions that the log has as connected by a node that is no more are closed (NODE_DOWN):
 *       when a later start of that node is heard of, or it was silent for node-timeout while we led
 *       and were awake. The leader sees to it for as long as the database has any such session, so
 *       it does not matter who led when the node died.
 *
 * Who the others are is in the roster (broker/roster.h).
 *
 * Threads: the lanes' (what peers say), one of its own (what is looked after twice a second); the
 * functions below, any. */
#ifndef CHR_BROKER_CLUSTER_H
#define CHR_BROKER_CLUSTER_H

#include "bridge/peer_codec.h"
#include "bridge/peers.h"
#include "broker/committer.h"
#include "broker/roster.h"
#include "broker/snapshots.h"

struct broker_node;
struct cluster_calls; /* cluster_calls.h */
struct cluster;       /* opaque; NULL: a single node */

/* Node number of a name: the same on every node, not 0 or 1. */
uint64_t cluster_node_number(const char *id);

/* Before the committer: makes the lanes, knows what node.meta says. node->dir is open. */
CHR_MUST_USE chr_err cluster_open(struct broker_node *node, struct cluster **out,
                                  struct chr_errmsg *msg);
/* For the committer's options. */
void cluster_for_committer(struct cluster *cluster, struct broker_cluster *out);
/* After everything else: peers are listened to from now on. */
CHR_MUST_USE chr_err cluster_start(struct cluster *cluster);
/* No thread of it runs on. The lanes stay until cluster_free, which comes after the committer's. */
void cluster_stop(struct cluster *cluster);
void cluster_free(struct cluster *cluster); /* accepts NULL */

/* Ends what reads the database for others; before the committer is stopped. Accepts NULL. */
void cluster_stop_snapshots(struct cluster *cluster);
/* Who belongs to it as of what is applied here; for a snapshot. Any thread. */
void cluster_describe(struct cluster *cluster, uint64_t *number, uint64_t *members_index,
                      struct raft_members *members);
/* To all peers, on their control lanes; who can't be reached now does not hear of it. Any thread.
 * parts: as peers_send has them. */
void cluster_tell(struct cluster *cluster, enum peers_kind kind, const chr_slice *parts,
                  uint32_t parts_count);
/* This node stops, its clients are gone: the others need not find out. Waits for a moment. */
void cluster_leave(struct cluster *cluster);

struct peers *cluster_peers(struct cluster *cluster); /* NULL for NULL */
uint64_t cluster_self(const struct cluster *cluster); /* 0 for NULL */

struct cluster_calls *cluster_calls(struct cluster *cluster); /* NULL for NULL */

/* One node as we know it. */
struct cluster_member {
    uint64_t node;
    char name[80], address[80], version[24];
    bool self, voter, member, leader;
    bool up;       /* it can be reached, and what it says is taken (C3) */
    bool replaced; /* it runs on another disk than the member's: it counts for nothing yet (R20) */
    bool heard;    /* it has said who it is, since we started */
    uint64_t match, lag; /* entries behind the leader; leader's view; UINT64_MAX: not known */
    int state;           /* enum raft_peer_state, leader's view; -1 */
    int64_t heard_us_ago;
    int64_t skew_us; /* its clock less ours; INT64_MIN: not known */
    uint64_t cluster, incarnation;
    uint32_t format; /* the newest it knows; 0: not heard of */
};
#define CLUSTER_MEMBERS_MAX (PEERS_MAX + RAFT_MEMBERS_MAX)
/* Returns how many. *status is filled, too. */
uint32_t cluster_members(struct cluster *cluster, struct cluster_member out[CLUSTER_MEMBERS_MAX],
                         struct broker_cluster_status *status);
/* Its name; "node 12ab…" when it is not known. */
void cluster_name(struct cluster *cluster, uint64_t node, char out[80]);

/* Is this node one of them? */
enum roster_place cluster_place(struct cluster *cluster);
void cluster_snapshots_stats(struct cluster *cluster, struct snapshots_stats *out);

/* -- Rolling upgrades ---------------------------------------------------------------------------*/

/* The newest format of entries and messages that all members know, as far as that is certain: 1 at
 * first, rising when every member has said that it knows more, never falling. Who writes what came
 * with PEER_FORMAT F asks for `cluster_format(cluster) >= F` first, at the time of writing. A
 * single node may write all that it knows: PEER_FORMAT for NULL. Any thread; one atomic load. */
uint32_t cluster_format(const struct cluster *cluster);

/* -- For cluster_calls.c ------------------------------------------------------------------------*/

/* A node that an operator adds: it is connected to from now on and every peer is told of it, for
 * timeout_us or until it is a member. CHR_EFULL; CHR_EINVAL: the name or the address. */
CHR_MUST_USE chr_err cluster_invite(struct cluster *cluster, const struct peer_contact *contact,
                                    int64_t timeout_us, struct chr_errmsg *msg);
/* It is not to join after all. A member stays. */
void cluster_uninvite(struct cluster *cluster, uint64_t node);

#endif
