/* db/hot.h: rows applied but not yet in a chunk, as column vectors in memory.
 *
 *     hot set ─▶ block ─▶ block ─▶ block (being filled)
 *                  columns: fixed arrays, string heaps      allocated once, never moved
 *                  runs: (entry, HLC, first ordinal, first row), so that row ids, _hlc and
 *                        the watermark of an apply index cost nothing per row
 *                  deleted: apply index at which each row went, 0: alive; only once one did
 *
 * One writer, the applier; many readers, without locks.
 *
 *   H1  Rows below `rows` and runs below `runs` (release, at the end of an entry) never change,
 *       but for `deleted` and for validity words, which are atomic.
 *   H2  A reader at index X sees rows before the first run with entry > X, less those with
 *       0 < deleted <= X. Whatever the applier does to undo or apply entries after X is beyond.
 *   H3  A block is freed with its set, when no version and no read holds the set.
 *   H4  While null_from of a column is beyond a row, that row and all before it are not NULL and
 *       validity need not be looked at (nor is it written). */
#ifndef CHR_DB_HOT_H
#define CHR_DB_HOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hlc.h"
#include "db/catalog.h"
#include "db/op_decode.h"
#include "db/types.h"

/* Four vectors; a row index fits 13 bits of a db__hot_ref. */
#define DB__HOT_BLOCK_ROWS_MAX 8192u
#define DB__HOT_BLOCK_ROWS_MIN 16u
/* Fixed parts of a block, string heaps apart: wide tables get fewer rows. */
#define DB__HOT_BLOCK_BYTES_MAX (512u << 10)

struct db__hot_run {
    uint64_t entry;
    chr_hlc hlc;
    uint32_t ordinal; /* of its first row */
    uint32_t row;     /* its first row in the block */
};

struct db__hot_column {
    uint16_t id;
    enum db_type type;
    _Atomic uint32_t null_from; /* H4; UINT32_MAX: no NULL in the block */
    _Atomic uint64_t *validity;
    union {
        void *data;
        int64_t *i64;
        double *f64;
        uint8_t *b8;
        uint32_t *ends; /* end in heap of each row; NULL rows repeat */
    };
    uint8_t *heap;
    uint32_t heap_len; /* applier */
    uint32_t heap_capacity;
};

struct db__hot_block {
    _Atomic(struct db__hot_block *) next;
    _Atomic uint32_t rows;                   /* published */
    _Atomic uint32_t runs;                   /* published */
    _Atomic(struct db__hot_run *) run_array; /* [runs]; grows into a new array, old ones stay */
    _Atomic(_Atomic uint64_t *) deleted;     /* [capacity] or NULL */
    uint32_t capacity;                       /* rows */
    uint32_t number;                         /* in its set */
    uint32_t schema_version;                 /* of the table when it began */
    uint16_t columns_count;                  /* of the table at that time, then _received_at */
    /* Applier (after the set was frozen: applier and sealer, neither of whom changes them). */
    bool dirty; /* rows or runs ahead of what is published */
    uint32_t rows_written, runs_written, runs_capacity;
    void **retired; /* old run arrays */
    uint32_t retired_count;
    size_t bytes; /* held */
    struct db__hot_column columns[];
};

CHR_INLINE struct db__hot_run *db__hot_run_array(const struct db__hot_block *block)
{
    return atomic_load_explicit(&((struct db__hot_block *)block)->run_array, memory_order_acquire);
}

/* A row of a set: block number and row in it. */
typedef uint32_t db__hot_ref;
#define DB__HOT_REF_NONE UINT32_MAX
CHR_INLINE db__hot_ref db__hot_ref_make(uint32_t block, uint32_t row)
{
    return block << 13 | row;
}
_Static_assert(DB__HOT_BLOCK_ROWS_MAX == 1u << 13, "row bits of a db__hot_ref");

struct db__key_hash;

struct db__hot_set {
    _Atomic uint32_t refs;
    _Atomic(struct db__hot_block *) first;
    _Atomic uint64_t bytes; /* of its blocks */
    /* Applier. */
    struct db__hot_block **blocks;
    uint32_t blocks_count, blocks_capacity;
    uint64_t rows;             /* written, the deleted ones included */
    struct db__key_hash *keys; /* db/key_index.h; NULL until a key is looked for */
};

struct db__hot_set *db__hot_set_new(void);
void db__hot_set_retain(struct db__hot_set *set);
void db__hot_set_release(struct db__hot_set *set); /* accepts NULL */

CHR_INLINE struct db__hot_block *db__hot_block_of(const struct db__hot_set *set, db__hot_ref ref)
{
    return set->blocks[ref >> 13];
}
CHR_INLINE uint32_t db__hot_row_of(db__hot_ref ref)
{
    return ref & (DB__HOT_BLOCK_ROWS_MAX - 1);
}

/* Where rows go that belong to one entry, and what has to be published at its end. */
struct db__hot_writer {
    uint64_t entry;
    chr_hlc hlc;
    struct db__hot_block **dirty; /* blocks with unpublished rows */
    uint32_t dirty_count, dirty_capacity;
    _Atomic uint64_t *bytes_total; /* what blocks add themselves to */
};

/* Appends rows [first, first + count) of an operation; ordinal is that of row `first`. The columns
 * must have been matched: map[i] is the place in the operation of the table's column i (received_at
 * last), -1: all NULL. */
void db__hot_append_rows(struct db__hot_set *set, const struct db_table_def *def,
                         struct db__hot_writer *w, const struct db__rows *rows, const int16_t *map,
                         uint32_t first, uint32_t count, uint32_t ordinal);
/* Appends one row of single values, [columns_count + 1]. */
void db__hot_append_values(struct db__hot_set *set, const struct db_table_def *def,
                           struct db__hot_writer *w, const struct db_value *values,
                           uint32_t ordinal);
/* Makes what was written visible to reads that begin after the index moved. */
void db__hot_publish(struct db__hot_writer *w);

/* Cuts a set back to what it was; only rows not published since may go. */
struct db__hot_place {
    uint32_t blocks_count;               /* 0: the set was empty */
    uint32_t rows_written, runs_written; /* of the last block */
    uint64_t rows;
};
struct db__hot_place db__hot_place(const struct db__hot_set *set);
void db__hot_cut(struct db__hot_set *set, struct db__hot_place to);

/* -- One row of a set (applier)
 * ------------------------------------------------------------------*/

/* The row with this id, dead or alive; DB__HOT_REF_NONE. */
db__hot_ref db__hot_find(const struct db__hot_set *set, struct db_row_id id);
struct db_row_id db__hot_row_id(const struct db__hot_block *block, uint32_t row);
struct db_value db__hot_value(const struct db__hot_block *block, uint32_t column, uint32_t row);
/* Place of a column in the block; -1: the table did not have it then. */
int db__hot_column(const struct db__hot_block *block, uint16_t id);
/* Apply index at which the row was deleted; 0: alive. */
uint64_t db__hot_deleted(const struct db__hot_block *block, uint32_t row);
/* index 0 brings it back (undo). */
void db__hot_mark(struct db__hot_set *set, struct db__hot_block *block, uint32_t row,
                  uint64_t index, _Atomic uint64_t *bytes_total);

/* -- Readers
 * -------------------------------------------------------------------------------------*/

/* Rows of a block that were applied at or before index (H2). */
uint32_t db__hot_rows_at(const struct db__hot_block *block, uint64_t index);
/* The runs that hold rows [row, row + count), count > 0, of published rows: one array, *runs long.
 * The last one ends where the rows do, or beyond. */
const struct db__hot_run *db__hot_runs(const struct db__hot_block *block, uint32_t row,
                                       uint32_t count, uint32_t *runs);

#endif
