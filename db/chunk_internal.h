/* db/chunk_internal.h: what the files of the chunk share and nobody else sees.
 *
 *     chunk_writer.c    rows that fit, order of columns, derived `_hlc`, parts
 *     chunk_encode.c    one column to its value
 *     chunk_dict.c      its dictionary
 *     chunk_stats.c     its statistics, of the chunk and of each run
 *     chunk_head.c      the head: written and read
 *     chunk_column.c    a column read
 *     chunk_runs.c      run statistics read
 *     chunk_check.c     everything read and recounted */
#ifndef CHR_DB_CHUNK_INTERNAL_H
#define CHR_DB_CHUNK_INTERNAL_H

#include "base/buf.h"
#include "db/catalog.h"
#include "db/chunk.h"
#include "db/codec/codec.h"

#define DB_CHUNK_VERSION 1

/* Buffers of one value while it grows; K2 is checked against DB_CHUNK_VALUE_BYTES_MAX, this is the
 * one row that is larger. */
#define DB_CHUNK_BUFFER_BYTES_MAX (64u << 20)
#define DB_CHUNK_STRING_BYTES_MAX (16u << 20)
/* The heap of a block may be larger than its value: LZ4. */
#define DB_CHUNK_UNPACKED_BYTES_MAX (80u << 20)

/* -- Layout of a column value -------------------------------------------------------------------
 *
 *     offset  size
 *          0     8  head (value_crc.h), kind 'C'
 *          8     4  rows
 *         12     2  column id
 *         14     1  type
 *         15     1  flags: 1: one block stands for all
 *         16     4  offset of the dictionary, 0: none
 *         20   4*b  offset of the end of each block; the first begins behind this table
 *          -     -  blocks: bitmap of rows not NULL | (unless none) mapping 1 | stream
 *          -     -  dictionary: entries 4 | STRING, BLOB: lengths (integers), heap
 *                                         | others: values (integers; floats by their bits) */
#define DB_COLUMN_FIXED_BYTES 20
enum { DB_COLUMN_UNIFORM = 1 };

/* -- Layout of a head ---------------------------------------------------------------------------
 *
 *     offset  size
 *          0     8  head (value_crc.h), kind 'H'
 *          8     4  rows
 *         12     4  table id
 *         16     4  schema version
 *         20     2  columns
 *         22     2  zero
 *         24     8  lowest log index        32  8  highest
 *         40     8  lowest HLC              48  8  highest
 *         56     8  lowest time, us         64  8  highest
 *         72     4  runs; 0: not listed     76  4  offset of the runs
 *         80     4  offset of the HLC table, 0: `_hlc` is a column like any other
 *         84     4  zero
 *         88  16*c  columns by rising id: id 2, type 1, flags 1, rows not NULL 4,
 *                   offset of the statistics 4 (0: all NULL), bytes of the value 4
 *          -     -  statistics: first time 8, last time 8, then
 *                     INT, FLOAT, BOOLEAN, TIMESTAMP: min 8, max 8, first 8, last 8
 *                       (INT: sum 16; FLOAT: sum 8)
 *                     STRING, BLOB: min, max, first, last: length 1 (255: not known), bytes
 *          -     -  runs: first rows, first times, last times less first (integer arrays)
 *          -     -  HLC of each log index from lowest to highest (integer array) */
/* Parts of a head are bounded so that K2 holds for it too: statistics (those of strings are left
 * out beyond it; 1,026 columns of numbers fit), runs (not listed beyond it; 4,096 fit, so runs with
 * statistics are always listed), HLC table (stored as a column beyond it). */
#define DB_HEAD_STATS_BYTES_MAX (128u << 10)
#define DB_HEAD_RUNS_BYTES_MAX  (80u << 10)
#define DB_HEAD_HLC_BYTES_MAX   (32u << 10)
_Static_assert(DB_HEAD_STATS_BYTES_MAX + DB_HEAD_RUNS_BYTES_MAX + DB_HEAD_HLC_BYTES_MAX <
                   DB_CHUNK_VALUE_BYTES_MAX,
               "K2");
#define DB_HEAD_FIXED_BYTES     88
#define DB_HEAD_DIRECTORY_BYTES 16
#define DB_HEAD_STRING_UNKNOWN  255
enum { DB_HEAD_BOUNDS_EXACT = 1, DB_HEAD_ENDS_EXACT = 2, DB_HEAD_RUN_STATS = 4 };

/* -- Layout of run statistics -------------------------------------------------------------------
 *
 *          0     8  head (value_crc.h), kind 'R'
 *          8     4  runs
 *         12     2  column id
 *         14     1  type
 *         15     1  flags
 *         16     -  rows not NULL of each run (integer array; absent when FULL)
 *          -     -  first time less the run's, run's last time less last time (absent when FULL)
 *          -     -  first, and unless SAME last, min, max: integer arrays, floats, or heaps
 *          -     -  INT: sums, lower and upper half; FLOAT: sums
 *          -     -  STRING, BLOB unless EXACT: 1 bounds exact, 2 ends exact, 4 bounds known
 *                   (integer array) */
#define DB_RUNS_FIXED_BYTES 16
enum { DB_RUNS_FULL = 1, DB_RUNS_SAME = 2, DB_RUNS_EXACT = 4 };

/* Runs are listed when they are at least so long on average: below, a scan of the rows is as
 * quick. */
#define DB_RUN_ROWS_MIN 4
/* And have statistics of their own when they are at least so long: they cost some 20 bytes each. */
#define DB_RUN_STATS_ROWS_MIN 16

/* -- Statistics ---------------------------------------------------------------------------------*/

#define DB_NO_ROW UINT32_MAX

/* Of a run, or of a chunk. */
struct db_stats_acc {
    uint32_t count, nans;
    uint32_t first_row, last_row; /* of the rows not NULL, in the chunk; DB_NO_ROW */
    union {
        struct {
            int64_t min_i, max_i;
        };
        struct {
            double min_f, max_f; /* of those that are numbers */
        };
        struct {
            chr_slice min_s, max_s;
        };
    };
    __int128 sum_i;
    double sum_f;
    bool bounds_known; /* strings: min_s and max_s are meant */
};

/* The rows a chunk is being made of, with the borders of its series. */
struct db_chunk_rows {
    const struct db_chunk_input *in;
    uint32_t first, count; /* rows of the input */
    uint32_t *starts;      /* [runs_count + 1]; starts[runs_count] == count */
    uint32_t runs_count;
    bool run_stats;               /* runs are long enough */
    uint32_t first_row, last_row; /* by (time, row id), over all runs */
};

/* Statistics of one column on their way. */
struct db_stats_builder {
    const struct db_chunk_rows *rows;
    enum db_type type;
    uint32_t segment; /* run that the next row belongs to */
    struct db_stats_acc total;
    struct db_stats_acc *runs; /* [runs_count] when rows->run_stats */
    size_t runs_capacity;
};

void db__stats_begin(struct db_stats_builder *b, const struct db_chunk_rows *rows,
                     enum db_type type);
chr_err db__stats_reserve(struct db_stats_builder *b, uint32_t runs);
/* Rows [row, row + count) of the chunk. values: those not NULL, dense (INT, TIMESTAMP: int64_t;
 * FLOAT: double; BOOLEAN: uint8_t; strings: chr_slice); valid: their bitmap, NULL when all are.
 * Strings with a dictionary: codes in values, of uint16_t, and ranks [dict_count]: order of the
 * entries, or NULL when only their first and last rows are to be known. */
struct db_stats_codes {
    const uint16_t *codes;
    const uint16_t *ranks;   /* of each code; NULL: not ordered */
    const uint16_t *by_rank; /* code of each rank; NULL: ranks are codes */
    const chr_slice *entries;
};
void db__stats_add(struct db_stats_builder *b, uint32_t row, uint32_t count, const void *values,
                   const uint64_t *valid, const struct db_stats_codes *codes);
/* First and last; validity: of the input, NULL when no row is NULL. */
void db__stats_end(struct db_stats_builder *b, const uint64_t *validity);

/* -- Dictionaries -------------------------------------------------------------------------------*/

/* One column's dictionary while its chunk is written; all arrays reused. */
struct db_dict_builder {
    bool used;
    uint32_t count;
    uint64_t bytes;     /* of the entries, were they strings */
    uint64_t row_bytes; /* of all rows */
    uint16_t *codes;    /* [DB_CHUNK_ROWS_MAX] by row of the chunk; what stands at NULL rows: 0 */
    chr_slice *entries; /* [DB_CHUNK_ROWS_MAX] strings */
    int64_t *values;    /* [DB_CHUNK_ROWS_MAX] numbers */
    uint32_t *slots;    /* hash table: code + 1 */
    uint32_t *remap;    /* by id of the caller's dictionary: code + 1 */
    uint32_t remap_capacity;
    uint32_t *ids; /* [count] caller's ids, to clear remap by */
    uint16_t *ranks, *by_rank;
    bool ranked; /* ranks and by_rank are filled in */
};
void db__dict_free(struct db_dict_builder *d);
/* Strings: fills in codes and entries, used says whether it is worth it. */
chr_err db__dict_strings(struct db_dict_builder *d, const struct db_chunk_column_in *column,
                         uint32_t first, uint32_t rows);
/* Numbers, any of eight bytes: whether a sample has few different values (*distinct of them)… */
bool db__dict_numbers_few(const void *values, const uint64_t *validity, uint32_t first,
                          uint32_t rows, uint32_t *distinct);
/* … and then the dictionary, unless there are more than count_max. */
chr_err db__dict_numbers(struct db_dict_builder *d, const void *values, const uint64_t *validity,
                         uint32_t first, uint32_t rows, uint32_t count_max);
/* Order of the entries, where it is cheap. */
void db__dict_rank(struct db_dict_builder *d);
void db__dict_put(struct db_dict_builder *d, enum db_type type, struct db_ints *ints,
                  struct chr_buf *scratch, struct chr_buf *out);

/* -- Encoding a column --------------------------------------------------------------------------*/

/* Scratch of one writer. */
struct db_encoder {
    struct db_ints ints;
    int64_t dense[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    chr_slice dense_strings[DB_VECTOR_ROWS];
    uint16_t dense_codes[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    uint16_t breaks[DB_VECTOR_ROWS];
    uint64_t valid[DB_BIT_WORDS(DB_VECTOR_ROWS)];
    struct db_dict_builder dict;
    struct chr_buf heap;
    struct chr_buf trial;
    int64_t *array; /* [DB_CHUNK_ROWS_MAX], of whatever */
};

/* One column's parts and statistics. */
struct db_encoded {
    uint32_t rows; /* that the parts are of; 0: not encoded yet */
    struct chr_buf column;
    struct chr_buf runs;       /* empty: no run statistics */
    struct db_stats_acc total; /* its strings are the input's */
};

/* Encodes the rows of a column: out->column, out->runs, out->total. When they do not fit (K2),
 * *fit < rows->count says how many to try next, else *fit == rows->count. DB_COLUMN_ENTRY and
 * DB_COLUMN_ORDINAL: data is of uint64_t, uint32_t. */
chr_err db__column_encode(struct db_encoder *e, struct db_stats_builder *stats,
                          const struct db_chunk_rows *rows, const struct db_chunk_column_in *column,
                          struct db_encoded *out, uint32_t *fit, struct chr_errmsg *msg);
/* Run statistics (chunk_runs.c). */
void db__runs_put(struct db_encoder *e, const struct db_stats_builder *stats,
                  const struct db_chunk_column_in *column, struct chr_buf *out);

/* The head (chunk_head.c). columns and encoded [columns_count], by rising id; hlc: HLC of each log
 * index from entry_min on, [hlc_count], 0: not derived. out gives the ranges, already filled in. */
void db__head_put(struct db_encoder *e, const struct db_chunk_rows *rows,
                  const struct db_chunk_column_in *const *columns,
                  const struct db_encoded *const *encoded, uint32_t columns_count,
                  const int64_t *hlc, uint32_t hlc_count, const struct db_chunk_output *ranges,
                  struct chr_buf *out);
/* HLC table of an open head; NULL: not derived. */
const int64_t *db__head_hlc(db_chunk_head *head, uint32_t *count, chr_err *err,
                            struct chr_errmsg *msg);

/* -- Bits at any offset -------------------------------------------------------------------------*/

/* Bits [from, from + count) of a bitmap, count <= DB_VECTOR_ROWS, zero beyond; returns how many are
 * set. */
uint32_t db__bits_extract(const uint64_t *bits, uint32_t from, uint32_t count, uint64_t *out);
/* First set bit in [from, to), or DB_NO_ROW. */
uint32_t db__bits_first(const uint64_t *bits, uint32_t from, uint32_t to);
uint32_t db__bits_last(const uint64_t *bits, uint32_t from, uint32_t to);

/* -- Values of statistics -----------------------------------------------------------------------*/

/* The value of a row as eight bytes (numbers) or as a string. */
int64_t db__row_bits(const struct db_chunk_column_in *column, uint32_t row);
chr_slice db__row_string(const struct db_chunk_column_in *column, uint32_t row);
/* min and max of a total as stored: NaN sorts above all numbers. */
int64_t db__stats_min_bits(const struct db_stats_acc *acc, enum db_type type);
int64_t db__stats_max_bits(const struct db_stats_acc *acc, enum db_type type);
/* At most DB_CHUNK_STATS_BYTES_MAX bytes that are not above (not below) s; cut says whether they
 * are fewer than s. upper: buffer of that size for the result; false when there is no such bound.
 */
chr_slice db__bound_lower(chr_slice s, bool *cut);
bool db__bound_upper(chr_slice s, uint8_t *buffer, chr_slice *bound, bool *cut);
/* Numbers of a type (floats by their bits) as an array that db__numbers_get reads. */
void db__numbers_put(struct db_ints *ints, enum db_type type, const int64_t *bits, size_t count,
                     struct chr_buf *out);
/* out: [count rounded up to DB_VECTOR_ROWS], 64-byte aligned. */
chr_err db__numbers_get(struct db_cursor *in, enum db_type type, size_t count, int64_t *out);
/* A number of a type from its eight bytes. */
struct db_value db__value_of_bits(enum db_type type, int64_t bits);

#endif
