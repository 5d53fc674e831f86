/* broker/cluster_change.h: a leader changes its cluster for an operator: one node more, one less,
 * a voter, another leader. What is safe is raft's business (thesis 4); here is what an operator
 * would regret: too few left that answer, a node that can't be reached or is another one's. */
#ifndef CHR_BROKER_CLUSTER_CHANGE_H
#define CHR_BROKER_CLUSTER_CHANGE_H

#include <stdatomic.h>

#include "bridge/call_codec.h"

struct broker_node;
struct cluster;

/* It takes no longer than that. */
#define CLUSTER_CHANGE_US INT64_C(20000000)

/* Does it, and waits until it is committed. Blocks; the thread of the calls. Fills *reply but for
 * its number. Gives up when *stopping is set. */
void cluster_change(struct broker_node *node, struct cluster *cluster, const struct call *call,
                    const _Atomic bool *stopping, struct call_reply *reply);

#endif
