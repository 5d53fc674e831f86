/* db/recover.h: what a checkpoint left in the store, back into memory. */
#ifndef CHR_DB_RECOVER_H
#define CHR_DB_RECOVER_H

#include "base/err.h"

struct db;

/* Fills an empty db: from the last checkpoint, or, in an empty store, with the built-in tables.
 * CHR_ECORRUPT names the record. */
CHR_MUST_USE chr_err db__recover(struct db *db, struct chr_errmsg *msg);

#endif
