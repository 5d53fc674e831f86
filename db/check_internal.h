/* db/check_internal.h: the parts of `chronos check`, as check*.c share them.
 *
 *     check.c         the order of things; the store's keys
 *     check_rows.c    a chunk against its record: order, ranges, statistics (chunk_check.c)
 *     check_ids.c     no row id twice in a table
 *     check_keys.c    no PRIMARY KEY twice among the rows that are visible
 *     check_hashes.c  hashes that must all differ
 *
 * All of it reads a table a fixed number of times, whatever its size, as long as its chunks cover
 * narrow ranges of log entries or of series; where they do not, a chunk is read once per window.
 * Memory is bounded by the windows' sizes. One thread. */
#ifndef CHR_DB_CHECK_INTERNAL_H
#define CHR_DB_CHECK_INTERNAL_H

#include "base/buf.h"
#include "base/hash.h"
#include "db/checkpoint.h"
#include "db/chunk_open.h"

struct db__check {
    struct db *d;
    const db_read *read;
    void (*report)(void *arg, const char *finding);
    void (*progress)(void *arg, const char *table, uint64_t done, uint64_t total);
    void *arg;
    uint64_t findings;
    uint64_t done, total; /* rows to look at, each as often as that is done */
    const char *where;    /* prefix of what chunk_check says */
};

CHR_PRINTF(2, 3) void db__check_found(struct db__check *c, const char *format, ...);
/* `rows` more have been looked at. */
void db__check_progress(struct db__check *c, const struct db_table_def *def, uint64_t rows);

/* Id of the column that rows are timed by. */
CHR_INLINE uint16_t db__check_time_id(const struct db_table_def *def)
{
    return def->time_column < 0 ? DB_COLUMN_RECEIVED_AT : def->columns[def->time_column].id;
}
CHR_INLINE uint32_t db__view_chunks(const struct db__view *view)
{
    return view->chunks ? view->chunks->count : 0;
}

/* Opens a chunk in a transaction of its own. What cannot be read is not reported: that has been
 * done by db__check_chunk. */
CHR_MUST_USE chr_err db__check_open(struct db__check *c, struct db__chunk *chunk,
                                    struct db__chunk_open *open, db_kv_txn **txn);
void db__check_close(struct db__check *c, struct db__chunk_open *open, db_kv_txn *txn);

/* Each reports what it finds; fails with CHR_ENOMEM or what the store says. */
CHR_MUST_USE chr_err db__check_chunk(struct db__check *c, const struct db_table_def *def,
                                     struct db__chunk *chunk, struct db__chunk_open *open);
CHR_MUST_USE chr_err db__check_ids(struct db__check *c, const struct db_table_def *def,
                                   const struct db__view *view);
CHR_MUST_USE chr_err db__check_keys(struct db__check *c, const struct db_table_def *def,
                                    const struct db__view *view);

/* -- Hashes that must all differ ----------------------------------------------------------------
 *
 *     do db__hashes_begin … db__hashes_add of everything … while (db__hashes_again)
 *
 * At most DB__HASHES_MAX are held: when there are more, all are added again in as many passes as it
 * takes, each of which keeps a part. */
#define DB__HASHES_MAX (3u << 20) /* twice 48 MiB */

struct db__hash128 {
    uint64_t a, b;
};

struct db__hashes {
    struct db__hash128 *list, *sorted;
    size_t count, capacity, sorted_capacity;
    size_t max; /* DB__HASHES_MAX; less in tests */
    struct db__hash128 *set;
    size_t set_capacity;
    uint64_t pass, passes; /* of all hashes, those with b % passes == pass are kept */
    bool overflown;
    uint64_t twice; /* found so far */
};

void db__hashes_begin(struct db__hashes *h);
CHR_MUST_USE chr_err db__hashes_add(struct db__hashes *h, struct db__hash128 x);
/* Ends a pass; *again: all have to be added once more. h->twice is final when it is false. */
CHR_MUST_USE chr_err db__hashes_again(struct db__hashes *h, bool *again);
void db__hashes_free(struct db__hashes *h);

/* Sizes of windows, so that tests reach their borders with few rows. */
struct db__check_limits {
    uint64_t id_bits;     /* of the bitmap of row ids in a window */
    uint32_t id_blocks;   /* parts in which the range of log entries is looked at */
    uint32_t key_rows;    /* of a window of keys, about */
    uint32_t sample_rows; /* a place to cut at is noted each so many rows of a chunk */
    size_t hashes;
};
extern struct db__check_limits db__check_limits;

#endif
