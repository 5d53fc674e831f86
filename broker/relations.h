/* broker/relations.h: what the node is doing, as relations of SQL: chronos_clients,
 * chronos_subscriptions, chronos_sessions, chronos_nodes (docs/sql.md lists their columns).
 *
 * Clients and sessions are gathered from the loops (session/inspect.h), subscriptions from the
 * shared tree, some at a time; nodes are those of the cluster as its leader sees them; what the log
 * knows of a durable session's queue comes from the database. So a relation is not one moment's
 * picture: rows are each right for the moment at which they were read. */
#ifndef CHR_BROKER_RELATIONS_H
#define CHR_BROKER_RELATIONS_H

#include "sqlfront/sql.h"

struct broker_node;

#define BROKER_RELATIONS 4
extern const struct sql_relation broker_relations[BROKER_RELATIONS];

/* For sql_host.read_relation; relation is one of the above. Query worker. */
CHR_MUST_USE chr_err broker_relation_read(struct broker_node *node,
                                          const struct sql_relation *relation,
                                          struct sql_relation_rows *rows,
                                          const struct sql_host_wait *wait);

#endif
