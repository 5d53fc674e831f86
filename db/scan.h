/* db/scan.h: reading tables at one apply index, morsel by morsel, column by column.
 *
 *     db_read_begin ─▶ db_scan_open ─▶ db_reader_open (one per thread)
 *         while (db_reader_next_morsel(r, &m) > 0)          a chunk, tail block or hot block
 *             if (statistics answer it) …                    R11, D5
 *             else while (db_reader_next_batch(r, &b) > 0)   up to DB_VECTOR_ROWS rows
 *                 v = db_reader_column(r, slot)              decoded only when asked for
 *
 * Columns are decoded when first asked for in a batch, so a filter that selects nothing costs
 * nothing else. A reader holds an LMDB read transaction from next_morsel to the next call of it
 * (R10); a morsel is at most one chunk. */
#ifndef CHR_DB_SCAN_H
#define CHR_DB_SCAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "db/db.h"
#include "db/types.h"

typedef struct db_read db_read;     /* one pinned version; any thread may use it */
typedef struct db_scan db_scan;     /* one table of it; shared by its readers */
typedef struct db_reader db_reader; /* one thread's place in a scan */

CHR_MUST_USE chr_err db_read_begin(db *db, db_read **read);
void db_read_end(db_read *read); /* accepts NULL; scans must be closed */
uint64_t db_read_index(const db_read *read);
int64_t db_read_time_us(const db_read *read); /* replicated time: what TTL and now() go by */
const db_catalog *db_read_catalog(const db_read *read); /* borrowed */

/* A bound on a column that every wanted row meets; for pruning by statistics and by series. The
 * scan may still return rows outside it: the filter is the executor's. NULLs never meet a bound. */
struct db_bound {
    uint16_t
        column; /* index into the table's columns, or columns_count + 0/1 for _received_at/_hlc */
    bool has_low, low_inclusive, has_high, high_inclusive;
    struct db_value low, high; /* of the column's type; equality is low == high, both inclusive */
};

/* columns: what the reader will ask for, by slot; indexes as in db_bound. Copied. */
CHR_MUST_USE chr_err db_scan_open(db_read *read, const struct db_table_def *table,
                                  const uint16_t *columns, uint32_t columns_count,
                                  const struct db_bound *bounds, uint32_t bounds_count,
                                  db_scan **scan);
void db_scan_close(db_scan *scan); /* accepts NULL; readers must be closed */

struct db_scan_counts {
    uint64_t chunks_total, chunks_pruned, chunks_decoded, chunks_from_statistics, rows_scanned;
};
void db_scan_counts(const db_scan *scan, struct db_scan_counts *out);

CHR_MUST_USE chr_err db_reader_open(db_scan *scan, db_reader **reader);
void db_reader_close(db_reader *reader);

struct db_column_stats {
    uint64_t count; /* rows not NULL */
    uint64_t nulls;
    struct db_value min, max; /* of the values not NULL; null when there are none. NaN sorts above
                                 all numbers, as in PostgreSQL */
    bool has_sum;             /* INT and FLOAT */
    __int128 sum_i128;        /* INT */
    double sum_f64;           /* FLOAT */
    struct db_value first, last; /* by (time, row id); bytes live as long as the morsel */
    int64_t first_time_us, last_time_us;
};

struct db_morsel {
    uint32_t rows; /* rows stored; some may be deleted or expired */
    bool exact;    /* no mark, no expiry: every row is visible, statistics count (R11) */
    bool chunk;    /* a chunk (else hot or tail) */
};

/* 1: a morsel; 0: the end; below 0: a chr_err (CHR_ECORRUPT names chunk and column in msg). */
int db_reader_next_morsel(db_reader *reader, struct db_morsel *morsel, struct chr_errmsg *msg);
/* Statistics of a slot's column over the whole morsel; false when there are none (hot rows) or they
 * do not count. */
bool db_reader_stats(db_reader *reader, uint32_t slot, struct db_column_stats *stats);
/* The caller answered this morsel from its statistics: counted, not decoded. */
void db_reader_used_stats(db_reader *reader);

struct db_batch {
    uint32_t rows;       /* rows in every vector of this batch, 1 .. DB_VECTOR_ROWS */
    const uint16_t *sel; /* visible rows in rising order; NULL: all rows are */
    uint32_t sel_count;  /* rows when sel is NULL */
};
/* 1, 0 at the end of the morsel, or a chr_err. Vectors of the last batch die. */
int db_reader_next_batch(db_reader *reader, struct db_batch *batch, struct chr_errmsg *msg);
/* The column of a slot for the current batch, borrowed until the next batch. NULL on error (err,
 * msg). */
struct db_vector *db_reader_column(db_reader *reader, uint32_t slot, chr_err *err,
                                   struct chr_errmsg *msg);
/* Row ids of the current batch, for DELETE and UPDATE. [rows] */
CHR_MUST_USE chr_err db_reader_row_ids(db_reader *reader, struct db_row_id *out,
                                       struct chr_errmsg *msg);

#endif
