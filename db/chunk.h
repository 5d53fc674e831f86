/* db/chunk.h: rows of one table as immutable, compressed columns, written once and read by block.
 *
 *     sorted columns ──db_chunk_write──▶ parts (one value each in the store)
 *                                          head      'H'  counts, series runs, statistics per
 * column column    'C'  one per column: encoded blocks run stats 'R'  one per column: statistics
 * per series run parts ──db_chunk_head_open, db_chunk_column_open──▶ db_chunk_column_decode(block)
 * ──▶ vector
 *
 * A column is cut into blocks of DB_VECTOR_ROWS rows, each decodable by itself and each with the
 * codec that is smallest for it (db/codec/codec.h); strings share one dictionary per column.
 * Formats byte by byte: docs/formats.md.
 *
 * Invariants
 *   K1  Decoding gives back every bit that was written: NaN payloads, -0.0, empty strings, NULLs.
 *   K2  No value is larger than DB_CHUNK_VALUE_BYTES_MAX, unless a single row is. The writer takes
 *       fewer rows rather than break this.
 *   K3  Bytes of a value are foreign: whatever they are, reading ends in values or in CHR_ECORRUPT,
 *       inside their bounds.
 *   K4  Statistics are of the rows as written. What marks and expiry make of them is the caller's
 *       to know (R11, D5).
 *
 * Threads: a writer, head or column is used by one thread at a time. All of them are made to be
 * reused from chunk to chunk: after the first few nothing is allocated. */
#ifndef CHR_DB_CHUNK_H
#define CHR_DB_CHUNK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "db/scan.h" /* struct db_column_stats */
#include "db/types.h"

#define DB_CHUNK_ROWS_MAX        65536u
#define DB_CHUNK_VALUE_BYTES_MAX (256u << 10)
#define DB_CHUNK_BLOCKS_MAX      (DB_CHUNK_ROWS_MAX / DB_VECTOR_ROWS)
_Static_assert(DB_CHUNK_ROWS_MAX % DB_VECTOR_ROWS == 0, "blocks fill a chunk");

/* Row ids travel as two more columns, of type INT: log index of the entry, ordinal in it. Beside
 * DB_COLUMN_RECEIVED_AT and DB_COLUMN_HLC of db/catalog.h. */
#define DB_COLUMN_ENTRY   0xfff2
#define DB_COLUMN_ORDINAL 0xfff3

enum db_chunk_part_kind {
    DB_CHUNK_HEAD = 'H',
    DB_CHUNK_COLUMN = 'C',
    DB_CHUNK_RUNS = 'R',
};

/* One value to be stored; (kind, column) is unique in a chunk. */
struct db_chunk_part {
    enum db_chunk_part_kind kind;
    uint16_t column; /* column id; HEAD: 0 */
    chr_slice value; /* borrowed from the writer until its next call */
};

/* -- Writing ------------------------------------------------------------------------------------*/

/* One column, all arrays [in.rows]. Strings come in one of two forms: `str` per row, or, when the
 * caller has a dictionary already, `dict` and `ids` (no row is hashed again then; the dictionary
 * may hold more than the chunk uses). What stands at a NULL row is ignored. */
struct db_chunk_column_in {
    uint16_t id;              /* column id, or DB_COLUMN_RECEIVED_AT, DB_COLUMN_HLC */
    enum db_type type;        /* RECEIVED_AT: TIMESTAMP; HLC: INT */
    const uint64_t *validity; /* 1 = not NULL; NULL: no NULLs */
    union {
        const void *data;
        const int64_t *i64; /* INT, TIMESTAMP */
        const double *f64;
        const uint8_t *b8;    /* BOOLEAN: 0 or 1 */
        const chr_slice *str; /* STRING, BLOB; unused when dict is set */
    };
    const chr_slice *dict; /* [dict_count], all different; NULL: str is per row */
    uint32_t dict_count;
    const uint32_t *ids; /* [in.rows], each < dict_count where not NULL */
};

/* Rows of one table, sorted by (series key, time, row id). Everything borrowed for the call. The
 * arrays may hold many chunks: the caller moves `first` on by what was taken.
 *
 *     for (in.first = 0; in.first < in.rows; in.first += out.rows)
 *         db_chunk_write(writer, &in, &out, &msg) … store out.parts …
 */
struct db_chunk_input {
    uint32_t table_id, schema_version; /* kept in the head for whoever looks at it */
    uint32_t rows;                     /* in the arrays */
    uint32_t first;                    /* the chunk begins here */
    uint32_t rows_max;                 /* of the chunk; 1 .. DB_CHUNK_ROWS_MAX */
    const uint64_t *entry;             /* row ids */
    const uint32_t *ordinal;
    const int64_t *time_us;     /* what the rows of a series are sorted by; not NULL anywhere */
    const uint32_t *run_starts; /* [runs_count] first row of each series, rising, [0] == 0 */
    uint32_t runs_count;        /* 1 when the table has no series key */
    const struct db_chunk_column_in *columns; /* HLC must be among them */
    uint32_t columns_count;
};

struct db_chunk_output {
    uint32_t rows; /* taken: 1 .. rows_max */
    const struct db_chunk_part *parts;
    uint32_t parts_count;
    uint64_t bytes; /* of all values */
    uint64_t entry_min, entry_max, hlc_min, hlc_max;
    int64_t time_min_us, time_max_us;
};

typedef struct db_chunk_writer db_chunk_writer;
CHR_MUST_USE chr_err db_chunk_writer_new(db_chunk_writer **writer);
void db_chunk_writer_free(db_chunk_writer *writer); /* accepts NULL */
/* Takes as many rows as K2 lets. Fails with CHR_ENOMEM only (and CHR_ETOOBIG when a single row
 * holds a string beyond 16 MiB, which no entry can carry). */
CHR_MUST_USE chr_err db_chunk_write(db_chunk_writer *writer, const struct db_chunk_input *in,
                                    struct db_chunk_output *out, struct chr_errmsg *msg);

/* -- Reading the head ---------------------------------------------------------------------------*/

/* Beyond this many bytes the minimum, maximum, first or last of a string column is not kept whole.
 */
#define DB_CHUNK_STATS_BYTES_MAX 64

struct db_chunk_stats {
    struct db_column_stats s; /* first and last: of the values not NULL; null when there are none.
                                 Bytes point into the value of the head or of the run stats */
    bool bounds_exact;        /* else min is a lower and max an upper bound (null: none known), good
                                 for pruning only */
    bool ends_exact;          /* else first and last are not known */
};

typedef struct db_chunk_head db_chunk_head; /* reusable; holds the arrays below */

CHR_MUST_USE chr_err db_chunk_head_new(db_chunk_head **head);
void db_chunk_head_free(db_chunk_head *head); /* accepts NULL */
/* value is borrowed until the next open or free; verify as in db_value_open. */
CHR_MUST_USE chr_err db_chunk_head_open(db_chunk_head *head, chr_slice value, bool verify,
                                        struct chr_errmsg *msg);

struct db_chunk_info {
    uint32_t table_id, schema_version;
    uint32_t rows, blocks;  /* blocks = rows / DB_VECTOR_ROWS, rounded up */
    uint32_t columns_count; /* user and system columns, ENTRY and ORDINAL included */
    uint32_t runs_count;    /* 0: runs are too short to be worth listing; else >= 1 */
    uint64_t entry_min, entry_max, hlc_min, hlc_max;
    int64_t time_min_us, time_max_us;
};
const struct db_chunk_info *db_chunk_head_info(const db_chunk_head *head);

/* Place of a column in this chunk, or -1: it did not exist when the chunk was written (its rows are
 * NULL there). */
int db_chunk_head_find(const db_chunk_head *head, uint16_t column);
uint16_t db_chunk_head_column(const db_chunk_head *head, uint32_t at);
enum db_type db_chunk_head_type(const db_chunk_head *head, uint32_t at);
/* The column under whose key the value of this one lies. Itself, but for `_hlc`, which an entry
 * has one of: its values are a table in the head, found through the value of DB_COLUMN_ENTRY. */
uint16_t db_chunk_head_stored_in(const db_chunk_head *head, uint32_t at);
/* A chunk of one run has none: they are those of the chunk. Nor have system columns, nor chunks
 * whose runs are short (below 16 rows on average). */
bool db_chunk_head_has_run_stats(const db_chunk_head *head, uint32_t at);
CHR_MUST_USE chr_err db_chunk_head_stats(const db_chunk_head *head, uint32_t at,
                                         struct db_chunk_stats *stats, struct chr_errmsg *msg);

struct db_chunk_run {
    uint32_t first, rows;
    int64_t first_time_us, last_time_us;
};
/* [runs_count], one series each, in the order of the rows; decoded at the first call, then kept
 * until the next open. NULL with CHR_ECORRUPT in *err. A series may go on in the next chunk. */
const struct db_chunk_run *db_chunk_head_runs(db_chunk_head *head, chr_err *err,
                                              struct chr_errmsg *msg);

/* -- Reading a column ---------------------------------------------------------------------------*/

typedef struct db_chunk_column
    db_chunk_column; /* one open column and the buffers it decodes into */

CHR_MUST_USE chr_err db_chunk_column_new(db_chunk_column **column);
void db_chunk_column_free(db_chunk_column *column); /* accepts NULL */
/* Opens the column at `at` of a head. head and value are borrowed until the next open or free;
 * value is that of db_chunk_head_stored_in. Messages name the column and the offset. */
CHR_MUST_USE chr_err db_chunk_column_open(db_chunk_column *column, db_chunk_head *head, uint32_t at,
                                          chr_slice value, bool verify, struct chr_errmsg *msg);
/* Rows [block * DB_VECTOR_ROWS, …) as a vector, in any order of blocks. The vector belongs to the
 * column until its next decode, open or free.
 *   CONSTANT  all rows alike (all NULL included)
 *   DICT      strings with a dictionary; entries point into value (or into the column, where the
 *             dictionary was compressed), dict_id is new with each open
 *   FLAT      all others; what stands at a NULL row is a valid value of the type, but no
 *             particular one */
CHR_MUST_USE chr_err db_chunk_column_decode(db_chunk_column *column, uint32_t block,
                                            struct db_vector *vector, struct chr_errmsg *msg);
/* The codec of a block, for EXPLAIN, benches and tests: "decimal/for". Static. */
const char *db_chunk_column_codec(const db_chunk_column *column, uint32_t block);

/* Row ids of a block, from the open columns DB_COLUMN_ENTRY and DB_COLUMN_ORDINAL. out:
 * [DB_VECTOR_ROWS]. */
CHR_MUST_USE chr_err db_chunk_row_ids(db_chunk_column *entry, db_chunk_column *ordinal,
                                      uint32_t block, struct db_row_id *out,
                                      struct chr_errmsg *msg);

/* -- Reading statistics per series run ----------------------------------------------------------*/

typedef struct db_chunk_runs db_chunk_runs;
CHR_MUST_USE chr_err db_chunk_runs_new(db_chunk_runs **runs);
void db_chunk_runs_free(db_chunk_runs *runs); /* accepts NULL */
/* Statistics of the column at `at`, from its part DB_CHUNK_RUNS; borrowed like the above. */
CHR_MUST_USE chr_err db_chunk_runs_open(db_chunk_runs *runs, db_chunk_head *head, uint32_t at,
                                        chr_slice value, bool verify, struct chr_errmsg *msg);
/* run < runs_count of the head. */
void db_chunk_runs_get(const db_chunk_runs *runs, uint32_t run, struct db_chunk_stats *stats);

/* -- Checking -----------------------------------------------------------------------------------*/

/* Decodes a whole chunk and recounts each statistic (chronos check). time_column: what time_us was
 * taken from; INT64_MAX where it is NULL. get: the value of a part, or CHR_ENOTFOUND;
 * must stay valid until the check returns. report is called once per finding. Returns CHR_ENOMEM,
 * what get returned other than CHR_ENOTFOUND, or 0 (findings or not). */
CHR_MUST_USE chr_err db_chunk_check(chr_slice head_value, uint16_t time_column,
                                    chr_err (*get)(void *arg, enum db_chunk_part_kind kind,
                                                   uint16_t column, chr_slice *value),
                                    void (*report)(void *arg, const char *finding), void *arg);

#endif
