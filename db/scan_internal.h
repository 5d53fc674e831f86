/* db/scan_internal.h: a scan and its readers, as scan.c, reader.c and reader_chunk.c share them. */
#ifndef CHR_DB_SCAN_INTERNAL_H
#define CHR_DB_SCAN_INTERNAL_H

#include "db/internal.h"

/* What a slot asks for. */
struct db__scan_slot {
    uint16_t column; /* as in db_bound */
    uint16_t id;     /* column id, DB_COLUMN_RECEIVED_AT or DB_COLUMN_HLC */
    enum db_type type;
};

struct db_scan {
    db_read *read;
    const struct db_table_def *def; /* of the read's catalog */
    const struct db__view *view;    /* of the read's version */
    struct db__scan_slot *slots;
    uint32_t slots_count;
    struct db_bound *bounds;
    uint16_t *bound_ids; /* column id of each */
    uint8_t *bound_heap; /* bytes of their values */
    uint32_t bounds_count;
    int64_t expiry_limit_us;       /* times at or below are gone; INT64_MIN: none */
    uint16_t time_id;              /* column id of the rows' time */
    struct db__hot_block **blocks; /* with rows at the read's index */
    uint32_t *block_rows;
    uint32_t chunks_count, blocks_count;
    _Atomic uint32_t next; /* morsel: chunks, then blocks */
    _Atomic uint64_t chunks_pruned, chunks_decoded, chunks_from_statistics, rows_scanned;
};

/* A column of a reader: what it decodes into. */
struct db__reader_slot {
    struct db_vector vector;
    bool ready; /* for the current batch */
    uint64_t validity[DB_VECTOR_ROWS / 64];
    void *buffer; /* [DB_VECTOR_ROWS] of slices or integers; NULL until needed */
};

struct db__reader_chunk; /* reader_chunk.c */

struct db_reader {
    db_scan *scan;
    struct db__reader_slot *slots;
    struct db__reader_slot time; /* for expiry */
    uint16_t *sel;               /* [DB_VECTOR_ROWS] */
    /* The morsel. */
    bool open, exact;
    bool counted;                /* as decoded */
    struct db__hot_block *block; /* NULL: a chunk */
    uint32_t rows;               /* of the morsel */
    uint32_t row;                /* first row of the current batch */
    uint32_t batch_rows;         /* 0: no batch yet */
    struct db__reader_chunk *chunk;
};

/* Leaves in sel the rows of the batch that neither `dead` (bits from `row` on; NULL: none) nor
 * expiry takes away. times: NULL when nothing can expire. Returns how many. */
uint32_t db__reader_select(const db_reader *reader, const struct db_vector *times,
                           const uint64_t *dead);

/* A column that is NULL in every row. False: out of memory. */
bool db__reader_null(struct db__reader_slot *slot, enum db_type type, uint32_t rows);

/* -- reader_chunk.c
 * -------------------------------------------------------------------------------*/

void db__reader_chunk_free(db_reader *reader);
/* 1: opened; 0: pruned; below 0: chr_err. */
int db__reader_chunk_open(db_reader *reader, struct db__chunk *chunk, struct chr_errmsg *msg);
void db__reader_chunk_close(db_reader *reader);
bool db__reader_chunk_stats(db_reader *reader, uint32_t slot, struct db_column_stats *stats);
/* Can the current batch hold rows that meet the bounds? */
bool db__reader_chunk_wants(const db_reader *reader);
/* Visible rows of the batch: all of them, or `count` in sel. */
CHR_MUST_USE chr_err db__reader_chunk_select(db_reader *reader, bool *all, uint32_t *count,
                                             struct chr_errmsg *msg);
CHR_MUST_USE chr_err db__reader_chunk_column(db_reader *reader, uint32_t slot,
                                             struct chr_errmsg *msg);
CHR_MUST_USE chr_err db__reader_chunk_ids(db_reader *reader, struct db_row_id *out,
                                          struct chr_errmsg *msg);

#endif
