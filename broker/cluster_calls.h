/* broker/cluster_calls.h: what an operator asks of a cluster, whichever node is asked.
 *
 *     ALTER CLUSTER, chronos_nodes ─▶ the node asked ── CALL ──▶ the leader: a job, one at a time
 *       (query worker, blocks)              ◀── CALL_REPLY ──     (thread "calls", blocks)
 *
 * The leader does it, waits until it is committed, and says in a sentence what was done or what is
 * in the way; the node asked tells its client. A leader that is to remove itself hands over first,
 * and the next one does it. When a leader is lost on the way the outcome is not known, and that is
 * what the client is told: nothing is tried twice but what certainly was not begun.
 *
 * Rights are checked by whoever takes the statement (sqlfront/alter_cluster.c). */
#ifndef CHR_BROKER_CLUSTER_CALLS_H
#define CHR_BROKER_CLUSTER_CALLS_H

#include "bridge/call_codec.h"
#include "sqlfront/sql.h"

struct broker_node;
struct cluster;
struct cluster_calls; /* opaque */
struct peers;
struct peers_message;

/* All borrowed until cluster_calls_free. */
CHR_MUST_USE chr_err cluster_calls_open(struct broker_node *node, struct cluster *cluster,
                                        struct peers *peers, struct cluster_calls **out);
CHR_MUST_USE chr_err cluster_calls_start(struct cluster_calls *calls);
void cluster_calls_stop(struct cluster_calls *calls); /* accepts NULL; whoever waits is told */
void cluster_calls_free(struct cluster_calls *calls); /* accepts NULL */

/* Lane threads: CALL or CALL_REPLY; the message stays the caller's. Does not block. */
void cluster_calls_received(struct cluster_calls *calls, const struct peers_message *message);

/* Any thread that may block, for 30 s at most. address: of CALL_ADD.
 * 0: done; out says what. Else msg says what is in the way:
 *   CHR_ENOTFOUND  no such node              CHR_EEXIST   it is so already
 *   CHR_EINVAL     the last voter, or it would leave too few that answer, or no such name, address
 *   CHR_ESTALE     the learner is too far behind
 *   CHR_EBUSY      another change is not finished
 *   CHR_ECLOSED    no leader, or the node can't be reached; nothing was done
 *   CHR_EFOREIGN, CHR_EVERSION  of another cluster; too old
 *   CHR_ETIMEDOUT  the outcome is not known   CHR_ECANCELLED  by wait; it may happen yet */
CHR_MUST_USE chr_err cluster_call(struct cluster_calls *calls, enum call_kind kind, chr_slice name,
                                  chr_slice address, const struct sql_host_wait *wait,
                                  struct chr_errmsg *out);
/* All nodes as the leader sees them; where none answers within a second, as this one does. */
CHR_MUST_USE chr_err cluster_call_nodes(struct cluster_calls *calls,
                                        const struct sql_host_wait *wait,
                                        struct call_node out[CALL_NODES_MAX], uint32_t *count);

#endif
