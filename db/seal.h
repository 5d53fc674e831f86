/* db/seal.h: rows of hot sets and of older chunks, sorted into new chunks.
 *
 *     sources ─▶ living rows ─▶ series numbered ─▶ counting sort ─▶ times in order? ─▶ windows of
 *     columns ─▶ db_chunk_write ─▶ emit
 *
 * A job covers rows of one table as of one apply index; what was deleted or had expired by then is
 * left out. `dest` says where each source row went, for marks that come while the job runs.
 *
 * Checkpointer's thread. Sources do not change meanwhile: hot sets are frozen, chunks immutable. */
#ifndef CHR_DB_SEAL_H
#define CHR_DB_SEAL_H

#include "db/chunk.h"
#include "db/chunk_open.h"
#include "db/internal.h"

/* Rows of a source that lie together: a hot block, or as many rows of a chunk. */
struct db__seal_block {
    uint32_t rows;
    uint32_t
        *dest; /* [rows] row of the output, counted over all its chunks; UINT32_MAX: left out */
    struct db__hot_block *hot; /* or */
    struct db__chunk *chunk;
    uint32_t chunk_row; /* first row in the chunk */
};

struct db__seal_job {
    /* In: */
    const struct db_table_def *def; /* as of the cut; borrowed */
    struct db__hot_set **sets;      /* oldest first; owned array, a reference each */
    uint32_t sets_count;
    struct db__chunk **sources; /* owned array, a reference each */
    uint32_t sources_count;
    uint64_t index;   /* the cut */
    int64_t limit_us; /* times at or below are expired then */
    /* Out: */
    struct db__seal_block *blocks; /* of sets, then of sources */
    uint32_t blocks_count, blocks_capacity;
    struct db__chunk **made; /* a reference each */
    uint32_t *made_first;    /* [made_count] first output row of each */
    uint32_t made_count, made_capacity;
    uint32_t rows; /* that were kept */
};

struct db__sealer; /* buffers, reused from job to job */
CHR_MUST_USE chr_err db__sealer_new(struct db__sealer **sealer);
void db__sealer_free(struct db__sealer *sealer); /* accepts NULL */

/* Runs a job. For each chunk: emit(arg, out, chunk) gives it an id, stores its parts and keeps what
 * it needs; a failure ends the job and is returned. rows_max: of a chunk; below tail_rows the one
 * chunk that comes out is marked as a tail. CHR_ENOMEM, CHR_ECORRUPT (a source chunk), or emit's.
 */
CHR_MUST_USE chr_err db__seal(struct db *d, struct db__sealer *sealer, struct db__seal_job *job,
                              uint32_t rows_max, uint32_t tail_rows,
                              chr_err (*emit)(void *arg, const struct db_chunk_output *out,
                                              struct db__chunk *chunk),
                              void *arg, struct chr_errmsg *msg);
/* Frees what a job holds; the struct itself is the caller's. */
void db__seal_job_free(struct db__seal_job *job);

/* -- seal_source.c: source rows as columns
 * --------------------------------------------------------*/

/* One column of one block, wherever it came from. */
struct db__seal_column {
    const void *data;     /* i64, f64 or u8 [rows]; NULL: strings, or the block lacks the column */
    const uint32_t *ends; /* hot strings */
    const uint8_t *heap;
    const chr_slice *str;     /* chunk strings */
    const uint64_t *validity; /* NULL: no NULLs, unless absent */
    bool absent;              /* NULL in every row */
};

struct db__seal_ids {
    const struct db__hot_run *runs; /* hot */
    uint32_t runs_count;
    const uint64_t *entry; /* chunk */
    const uint32_t *ordinal;
    const uint64_t *hlc;
};

struct db__seal_sources {
    uint32_t columns_count;           /* of the table, then received_at */
    struct db__seal_column **columns; /* [columns_count][blocks] */
    struct db__seal_ids *ids;         /* [blocks] */
    uint64_t **dead;                  /* [blocks] bitmap of rows deleted by then; NULL: none */
    struct chr_arena arena;
    struct db__chunk_open open;
};

CHR_MUST_USE chr_err db__seal_open(struct db *d, struct db__seal_sources *s,
                                   struct db__seal_job *job, db_kv_txn *txn,
                                   struct chr_errmsg *msg);
void db__seal_close(struct db__seal_sources *s);

CHR_INLINE bool db__seal_valid(const struct db__seal_column *c, uint32_t row)
{
    return !c->absent && (!c->validity || db_bit_get(c->validity, row));
}
CHR_INLINE chr_slice db__seal_bytes(const struct db__seal_column *c, uint32_t row)
{
    if (c->str)
        return c->str[row];
    uint32_t begin = row ? c->ends[row - 1] : 0;
    return chr_slice_of(c->heap + begin, c->ends[row] - begin);
}

/* -- seal_order.c: which row goes where
 * -----------------------------------------------------------*/

#define DB__SEAL_REF_BITS 13 /* row of a block, as in a db__hot_ref */

/* The values of one series column, each once. */
struct db__seal_dict {
    uint32_t *ids;     /* [rows] by living row; UINT32_MAX: NULL */
    chr_slice *values; /* [count], borrowed from the blocks; INT and kin: their 8 bytes */
    uint32_t count, capacity;
    uint32_t *slots; /* hash, id + 1 */
    uint32_t slots_count;
};

struct db__seal_order {
    uint32_t rows;    /* living */
    uint32_t *refs;   /* [rows] block << 13 | row */
    int64_t *times;   /* [rows] INT64_MAX: none */
    uint32_t *order;  /* [rows] living row per place in the output */
    uint32_t *starts; /* [series] first place of each series */
    chr_slice *keys;  /* [series] db/series_key.h, in order of the output */
    uint32_t series;  /* at least 1 */
    uint32_t dict_count;
    struct db__seal_dict *dicts; /* of each series column */
    struct chr_arena arena;      /* everything above */
};

CHR_MUST_USE chr_err db__seal_sort(struct db__seal_order *o, const struct db__seal_job *job,
                                   const struct db__seal_sources *s);
void db__seal_order_free(struct db__seal_order *o);
struct db_row_id db__seal_row_id(const struct db__seal_sources *s, uint32_t block, uint32_t row,
                                 chr_hlc *hlc);

#endif
