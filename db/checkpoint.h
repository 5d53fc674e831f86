/* db/checkpoint.h: state that only the checkpointer touches. */
#ifndef CHR_DB_CHECKPOINT_H
#define CHR_DB_CHECKPOINT_H

#include "base/err.h"

struct db;

CHR_MUST_USE chr_err db__checkpoint_init(struct db *db);
void db__checkpoint_free(struct db *db);

#endif
