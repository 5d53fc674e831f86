/* db/origin.h: which forwarded entries have been applied (R18).
 *
 * A node that does not lead sends its entries to the leader, and again when it can't know what has
 * become of them. Each bears its origin: the node, which start of its process, and a number that
 * rises by one from 1 on. The last number of each node is part of the state, checked where the
 * order is known: what was applied is not applied twice, what comes before its predecessor is not
 * applied at all and is sent again. Applier only. */
#ifndef CHR_DB_ORIGIN_H
#define CHR_DB_ORIGIN_H

#include <stdint.h>

#include "db/db.h"

/* Nodes remembered; beyond it the one that was heard of the longest ago goes. */
#define DB__ORIGINS_MAX 64u

struct db__origins {
    struct db_origin items[DB__ORIGINS_MAX]; /* the last of each node */
    uint64_t applied[DB__ORIGINS_MAX];       /* entry index of it */
    uint32_t count;
};

enum db_origin_verdict db__origin_check(struct db__origins *origins, const struct db_origin *origin,
                                        uint64_t index);

#endif
