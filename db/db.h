/* db/db.h: the state machine: applies entries, keeps tables, answers reads, makes checkpoints.
 *
 *     committed entry ─▶ db_apply ─▶ hot rows ─▶ (sealer) chunks ─▶ LMDB
 *                             └─▶ apply index, moved with release semantics
 *     db_read_begin ─▶ pins one apply index: hot watermarks and chunk ids ─▶ db/scan.h
 *
 * Threads: db_apply on the applier alone; db_checkpoint_* on the checkpointer alone; reads on any
 * thread at any time; they never block the applier for longer than a pointer swap.
 *
 * Invariants
 *   D1  Given the same entries, every node has the same rows with the same ids (R12, R13).
 *   D2  What a read sees is exactly the effect of entries 1 .. its apply index.
 *   D3  A checkpoint is never ahead of the fsynced log (the caller says how far that is).
 *   D4  A row is in exactly one place: a hot block, a chunk, or a tail block.
 *   D5  Statistics answer a query only if no mark or expiry falls in what they cover (R11). */
#ifndef CHR_DB_DB_H
#define CHR_DB_DB_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hlc.h"
#include "base/slice.h"
#include "db/catalog.h"
#include "db/kv.h"
#include "db/types.h"

typedef struct db db; /* opaque; from db_open, to db_close */

struct db_options {
    uint64_t hot_limit_bytes;      /* 64 MiB: db_hot_full() beyond it */
    uint64_t checkpoint_log_bytes; /* 256 MiB */
    int64_t checkpoint_age_us;     /* 10 min */
    uint32_t chunk_rows_max;       /* 65,536; tests use less */
};
void db_options_default(struct db_options *options);

/* Loads the last checkpoint (manifest, catalog, sessions, tail blocks); entries after
 * db_durable_index() have then to be applied again from the log. kv is borrowed until close. */
CHR_MUST_USE chr_err db_open(const struct db_kv *kv, const struct db_options *options, db **out,
                             struct chr_errmsg *msg);
void db_close(db *db); /* accepts NULL; reads must have ended */

/* -- Apply (applier thread) ---------------------------------------------------------------------*/

/* What became of one operation. */
struct db_op_result {
    chr_err err;    /* 0, CHR_EDUPKEY, CHR_ECONFLICT (a row id was gone), CHR_EEXIST (table),
                       CHR_ENOTFOUND (table), CHR_ENOTNULL, CHR_ECORRUPT (malformed operation),
                       CHR_ECANCELLED (another operation of an atomic entry failed) */
    uint32_t rows;  /* rows inserted, deleted or updated */
    uint64_t epoch; /* SESSION_OPEN; CREATE_TABLE: the table id */
    uint32_t generation;
    bool session_present;
    chr_slice detail; /* CHR_EDUPKEY: "(device_id, ts)=(a, 2024…)"; valid until the next apply */
};

struct db_due_will; /* db/durable.h */

/* Where a forwarded entry comes from (R18, db/origin.h). */
struct db_origin {
    uint64_t node; /* with its disk: not the node number; not 0 */
    uint64_t boot, sequence;
};
enum db_origin_verdict {
    DB_ORIGIN_NEW,      /* applied */
    DB_ORIGIN_REPEATED, /* it was applied before, or its process has ended: nothing done */
    DB_ORIGIN_GAP,      /* the one before it has not been applied: nothing done, send it again */
};

/* A session whose connection by one node has come to an end by what another one did: its client
 * connected there, or the node was declared down. */
struct db_lost_session {
    uint64_t epoch;      /* as it was */
    uint64_t new_epoch;  /* as it is; 0: it has ended */
    uint32_t generation; /* as it is */
};

struct db_apply_result {
    enum db_origin_verdict origin; /* NEW when it has none */
    chr_err err; /* 0; CHR_ESTALE: decoded under older mappings, nothing done (R9);
                    CHR_EEXIST: the request key was seen before, nothing done (R2) */
    uint32_t ops_count;
    const struct db_op_result *ops; /* [ops_count], in order; valid until the next apply */
    /* GUARDS: bit i set: message i was a duplicate, its rows were skipped (it is answered like the
     * first time); gone[i]: its session or generation is no longer current: do not answer. */
    const uint64_t *duplicates;
    const uint64_t *gone;
    uint32_t guards_count;
    /* Sessions (epochs, each once, rising) in whose queues this entry put something, and wills it
     * made due (db/durable.h), ticks included; valid until the next apply. */
    const uint64_t *woken;
    uint32_t woken_count;
    uint32_t wills_count;
    const struct db_due_will *wills;
    uint32_t lost_count;
    const struct db_lost_session *lost; /* in order; valid until the next apply */
};

/* Applies one committed entry. index must be db_apply_index() + 1. Never fails half way: memory
 * that is needed is taken first or the node stops (an entry applied on one node and not on another
 * would be worse). bytes empty: a tick or no-op, which only moves index and time. */
void db_apply(db *db, uint64_t index, chr_hlc hlc, chr_slice bytes, struct db_apply_result *result);
/* The same for an entry that was forwarded; origin NULL: it was not. */
void db_apply_from(db *db, uint64_t index, chr_hlc hlc, const struct db_origin *origin,
                   chr_slice bytes, struct db_apply_result *result);

uint64_t db_apply_index(const db *db);    /* any thread, acquire */
uint64_t db_durable_index(const db *db);  /* any thread: last index a checkpoint holds */
chr_hlc db_replicated_time(const db *db); /* any thread: HLC of the last applied entry */
/* When (replicated time, us) something next expires: sessions, TTL chunks; INT64_MAX: nothing. An
 * idle leader appends a tick then (R13). */
int64_t db_next_due_us(const db *db);

/* Applier thread (or before there is one): every session the log knows. Slices are borrowed until
 * each() returns. */
void db_sessions_each(const db *db,
                      void (*each)(void *arg, chr_slice client_id, uint64_t epoch,
                                   uint32_t generation, uint32_t expiry_s, bool connected),
                      void *arg);
/* Any thread. The current catalog, retained: db_catalog_release it. */
const db_catalog *db_catalog_acquire(db *db);
/* Any thread, one atomic load. */
uint64_t db_catalog_version_now(const db *db);
uint64_t db_mapping_version_now(const db *db);

/* Any thread. Hot rows have reached the limit: the committer stops taking batches. */
bool db_hot_full(const db *db);

/* -- Checkpoint (checkpointer thread)
 * -------------------------------------------------------------*/

enum db_checkpoint_reason {
    DB_CHECKPOINT_NONE,
    DB_CHECKPOINT_HOT,
    DB_CHECKPOINT_LOG,
    DB_CHECKPOINT_AGE,
    DB_CHECKPOINT_REQUEST
};
/* Is it time? log_bytes: raft_log_bytes(). Hot is asked for at half of the limit, so that rows are
 * sealed while the other half fills. */
enum db_checkpoint_reason db_checkpoint_due(const db *db, uint64_t log_bytes, int64_t mono_us);
/* Seals hot rows, writes chunks in small paced transactions, publishes them, the tail blocks,
 * marks, catalog and sessions with a last one that moves the durable index. Applying and reading go
 * on meanwhile. Before the last transaction it calls wait_synced(arg, index), which returns 0 once
 * the log is durable up to index (D3). CHR_ENOSPC: nothing changed; try again later. */
CHR_MUST_USE chr_err db_checkpoint(db *db, enum db_checkpoint_reason reason,
                                   chr_err (*wait_synced)(void *arg, uint64_t index), void *arg,
                                   int64_t mono_us, struct chr_errmsg *msg);

struct db_stats {
    uint64_t rows_applied, rows_deleted, rows_duplicate, entries_stale;
    uint64_t hot_bytes, hot_rows, chunks, chunk_rows, chunk_bytes, tail_rows;
    uint64_t checkpoints, checkpoint_us_last, seal_rows_total, seal_us_total;
    uint64_t chunks_decoded, chunks_pruned, chunks_from_statistics; /* by scans */
    uint64_t sessions, guards, rejects, kv_file_bytes, kv_used_bytes;
};
void db_stats(db *db, struct db_stats *out); /* any thread */

/* -- Check (chronos check; nothing else runs)
 * -----------------------------------------------------*/
/* Reads every value: checksums, decodes every column, recounts every statistic, row ids unique,
 * keys unique, marks in range. Calls report once per finding. *findings 0: clean. */
CHR_MUST_USE chr_err db_check(db *db, void (*report)(void *arg, const char *finding), void *arg,
                              uint64_t *findings);
/* The same, and calls progress now and then: rows looked at and to be looked at in all, each as
 * often as that is done, and the table it is at. */
CHR_MUST_USE chr_err db_check_watched(db *db, void (*report)(void *arg, const char *finding),
                                      void (*progress)(void *arg, const char *table, uint64_t done,
                                                       uint64_t total),
                                      void *arg, uint64_t *findings);

#endif
