/* db/digest.h: checksums of what a database holds, whatever way it holds it: equal on all nodes
 * that have applied the same entries (D1), wherever their chunks begin and end.
 *
 * Each row is hashed with its id and all its values, system columns included, and the hashes are
 * summed, so the order does not matter. They are for comparing, not for proving: nobody is kept
 * from making two rows of one hash. The same on every machine and in every version that says so in
 * DB_DIGEST_VERSION. */
#ifndef CHR_DB_DIGEST_H
#define CHR_DB_DIGEST_H

#include "db/scan.h"

#define DB_DIGEST_VERSION 1

struct db_digest {
    uint64_t count; /* rows; sessions; messages */
    uint64_t sum;
};

/* Rows of a table as `read` sees it. Any thread; decodes all of the table. CHR_ECORRUPT (msg says
 * where), CHR_ENOMEM, CHR_EIO. */
CHR_MUST_USE chr_err db_digest_table(db_read *read, const struct db_table_def *table,
                                     struct db_digest *out, struct chr_errmsg *msg);
/* Sessions with their subscriptions and queues as they are now; nothing may be applied meanwhile.
 */
CHR_MUST_USE chr_err db_digest_sessions(db *db, struct db_digest *out, struct chr_errmsg *msg);
/* Retained messages as they are now, but for those of topics that begin with `$`. */
void db_digest_retained(db *db, struct db_digest *out);

#endif
