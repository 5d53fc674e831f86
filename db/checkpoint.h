/* db/checkpoint.h: how a checkpoint is made; for db/ alone.
 *
 *     cut ─▶ jobs ─▶ seal, write ahead ─▶ wait for the log ─▶ save ─▶ swap ─▶ collect garbage
 *     │       │        several commits                         one      │
 *     │       └ checkpoint_plan.c                              commit   └ new version, marks
 * carried └ under apply_lock: index A, hot sets frozen, dirty sessions and request keys copied
 *
 * Everything saved is as of A: rows of entries <= A less those deleted by then, the catalog,
 * sessions and keys of that moment. What apply does meanwhile lies in other hot sets and in marks
 * with a higher index. A failure before save leaves the frozen sets where they are; the next
 * checkpoint takes them along.
 *
 *   P1  A chunk's parts are in the store before its record is, and its record is gone before its
 *       parts are: 'g' records name what is in between, chunk ids from Meta.next_chunk_id on are
 *       leftovers of a checkpoint that never was.
 *   P2  Parts are deleted only when no version and no snapshot holds the chunk any more.
 *   P3  Beside the transaction that saves a checkpoint, and all under save_lock, nothing changes
 *       what the last one holds: written ahead are chunks it does not name and messages of later
 *       entries, deleted are chunks that it does not name any more. */
#ifndef CHR_DB_CHECKPOINT_H
#define CHR_DB_CHECKPOINT_H

#include <pthread.h>

#include "db/seal.h"
#include "db/store.h"

/* Below this part of a chunk, rows are kept as the table's tail and sealed anew next time. */
#define DB__TAIL_PART 8
/* Chunks below half their size are merged when a table has so many; marked ones beyond 5 %. */
#define DB__SMALL_CHUNKS_MAX 8
#define DB__MARKS_PART       20
/* Rows rewritten by a checkpoint besides tails, in chunks: it is background work. */
#define DB__REWRITE_CHUNKS_MAX 8
#define DB__REWRITE_BYTES_MAX  ((uint64_t)128 << 20)
/* Encoded bytes of the chunks that one job decodes at once. */
#define DB__JOB_BYTES_MAX ((uint64_t)32 << 20)
/* Written ahead per commit. */
#define DB__BATCH_BYTES (2u << 20)

struct db__job {
    struct db__table *table; /* lives until a later checkpoint has saved its end */
    struct db__seal_job seal;
    struct db__chunk **removed; /* sources and chunks with nothing left; a reference each */
    uint32_t removed_count, removed_capacity;
};

/* A record captured at the cut. */
struct db__pending {
    struct db__store_key key;
    uint8_t *value; /* owned; NULL: delete */
    size_t len;
    size_t order; /* of capture */
};

struct db__checkpoint {
    /* Held from a checkpoint's last transaction until memory follows it, and while a snapshot pins
     * one: what is durable does not move. Before apply_lock. */
    pthread_mutex_t save_lock;
    _Atomic uint32_t snapshots; /* pinned */
    struct db__sealer *sealer;  /* NULL but while jobs run */
    uint64_t next_chunk_id;
    _Atomic int64_t last_mono_us; /* INT64_MIN: not yet; the applier looks, too */
    /* What the store has: */
    bool saved; /* a Meta at all */
    uint64_t catalog_version_saved;
    uint64_t request_first_saved, request_next_saved;
    /* From cuts not saved yet: */
    struct db__pending *pending;
    size_t pending_count, pending_capacity;
    struct db__table **dropped;
    size_t dropped_count, dropped_capacity;
    struct db__stored **saving; /* messages of cuts not saved yet (db/durable_save.h) */
    size_t saving_count, saving_capacity, saving_written;
    uint64_t request_first, request_next;
    struct db__origins origins;
    uint64_t rows_applied, rows_deleted;
    uint32_t next_table_id;
    /* Of this checkpoint: */
    db_read *read; /* pinned at the cut */
    struct db__job *jobs;
    size_t jobs_count, jobs_capacity;
    db_kv_txn *txn; /* writing ahead; NULL: none */
    size_t txn_bytes;
    struct chr_buf buf;
    struct db__chunk *garbage; /* not in the manifest; a reference each; db__chunk.next_garbage */
};

CHR_MUST_USE chr_err db__checkpoint_init(struct db *d);
void db__checkpoint_free(struct db *d);

/* checkpoint_plan.c: under apply_lock. Freezes hot sets and lists jobs. */
CHR_MUST_USE chr_err db__checkpoint_plan(struct db *d);
/* checkpoint_capture.c: under apply_lock. Copies sessions and request keys that changed. */
void db__checkpoint_capture(struct db *d);
/* Copies; a value without pointer: the record is deleted. */
void db__pending_add(struct db__checkpoint *cp, struct db__store_key key, chr_slice value);
void db__pending_free(struct db__checkpoint *cp);
/* checkpoint_save.c: the one transaction that makes it true. */
CHR_MUST_USE chr_err db__checkpoint_save(struct db *d, struct chr_errmsg *msg);
/* checkpoint_swap.c: under apply_lock. Chunks take the place of hot sets and older chunks. */
void db__checkpoint_swap(struct db *d);
/* garbage.c */
void db__garbage_add(struct db__checkpoint *cp, struct db__chunk *chunk); /* takes the reference */
CHR_MUST_USE chr_err db__garbage_collect(struct db *d);
/* Deletes all parts of a chunk within a transaction. */
CHR_MUST_USE chr_err db__parts_delete(const struct db_kv *kv, db_kv_txn *txn, uint64_t chunk_id);
/* Recovery: deletes what 'g' records and unfinished checkpoints left. */
CHR_MUST_USE chr_err db__garbage_sweep(struct db *d, uint64_t next_chunk_id);

#endif
