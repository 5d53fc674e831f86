/* db/durable_save.h: what outlives connections, in a checkpoint and back; for db/ alone.
 *
 * At the cut what changed is copied (records of sessions, subscriptions, wills, blocks of queues,
 * numbers of what is gone). Messages are immutable: the cut only notes which are new, and their
 * bodies are written ahead in commits of their own, as chunks are, before the transaction that
 * makes the checkpoint true. Left over by a checkpoint that never was, they bear ids above the
 * durable index and are deleted at the next start.
 *
 *   Q1  A message's body is in memory until a checkpoint that has it is saved.
 *   Q2  A body in the store is deleted in the transaction of a checkpoint in which no queue and no
 *       retained topic refers to it. */
#ifndef CHR_DB_DURABLE_SAVE_H
#define CHR_DB_DURABLE_SAVE_H

#include "db/checkpoint.h"
#include "db/durable_internal.h"

/* Checkpointer, under apply_lock: at the cut. */
void db__durable_capture(struct db *d);
/* Checkpointer: writes the bodies noted ahead. */
CHR_MUST_USE chr_err db__durable_write_ahead(struct db *d);
/* Checkpointer, under apply_lock: the checkpoint is saved. */
void db__durable_saved(struct db *d);
/* db_close */
void db__durable_saving_free(struct db *d);

/* Recovery, after sessions are there: subscriptions, messages, queues, retained and wills.
 * CHR_ECORRUPT names the record. */
CHR_MUST_USE chr_err db__durable_recover(struct db *d, db_kv_txn *txn, uint64_t index,
                                         struct chr_errmsg *msg);
/* Recovery: deletes bodies of entries after index. */
CHR_MUST_USE chr_err db__durable_sweep(struct db *d, uint64_t index);
/* chronos check: reads every message; reports what is damaged, missing, or belongs to nothing. */
CHR_MUST_USE chr_err db__durable_check(struct db *d, void (*found)(void *arg, const char *text),
                                       void *arg);

#endif
