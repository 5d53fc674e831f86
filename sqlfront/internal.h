/* sqlfront/internal.h: what the files of sqlfront/ share: a statement's context, values beyond the
 * six types of a column, sessions.
 *
 * Functions here return false (or NULL) after they have set the statement's error; the first error
 * is the one that is told. */
#ifndef CHR_SQLFRONT_INTERNAL_H
#define CHR_SQLFRONT_INTERNAL_H

#include <stdatomic.h>

#include "base/arena.h"
#include "base/assert.h"
#include "base/num.h"
#include "db/scan.h"
#include "sqlfront/ast.h"
#include "sqlfront/sql.h"

/* Types that exist inside an expression only: what has not got a type yet ('text' literals and
 * NULL), and intervals, which leave as text. */
#define SQL_TYPE_UNKNOWN  ((enum db_type)0)
#define SQL_TYPE_INTERVAL ((enum db_type)DB_TYPES_END)
const char *sql__type_name(enum db_type type);

struct sql_interval {
    int32_t months, days;
    int64_t us;
};

/* One value without its type; 16 bytes, the element of no vector but the largest of all. */
typedef union sql_val {
    int64_t i; /* INT, TIMESTAMP */
    double f;
    uint8_t b;
    chr_slice s; /* STRING, BLOB */
    struct sql_interval iv;
} sql_val;

struct sql_datum {
    enum db_type type;
    bool null;
    sql_val v;
};

/* Bytes of an element of a vector. */
CHR_INLINE size_t sql__type_bytes(enum db_type type)
{
    return type == DB_BOOLEAN                                                  ? 1
           : type == DB_STRING || type == DB_BLOB || type == SQL_TYPE_INTERVAL ? 16
                                                                               : 8;
}
CHR_INLINE bool sql__type_is_numeric(enum db_type type)
{
    return type == DB_INT || type == DB_FLOAT;
}
/* INT and TIMESTAMP share an element and most kernels. */
CHR_INLINE bool sql__type_is_i64(enum db_type type)
{
    return type == DB_INT || type == DB_TIMESTAMP;
}

struct sql_settings {
    bool stale;
    int64_t timeout_us; /* 0: the limit's */
    enum sql_format format;
};

struct sql_session {
    db *db;
    struct sql_host host;
    struct sql_limits limits;
    struct sql_settings settings;
    bool read_only;
    enum db_role role;
    char user[DB_GRANTEE_BYTES_MAX + 1]; /* a longer name can't have grants: "" */
    atomic_bool cancel;
    struct chr_arena parse_arena;
};

struct sql_block; /* a tracked allocation */

/* One statement being executed. */
struct sql_query {
    sql_session *session;
    const struct sql_sink *sink;
    struct sql_error *error;
    bool failed;
    chr_err err;              /* what sql_execute returns when it failed */
    struct chr_arena arena;   /* lives as long as the statement */
    struct chr_arena scratch; /* reset with each batch */
    struct sql_block *blocks; /* sql__grow */
    struct sql_lift *lifts;   /* that own memory */
    size_t blocks_bytes;
    chr_slice text;                /* the whole text, for positions */
    uint32_t index;                /* of the statement in the text */
    int64_t begun_us, deadline_us; /* monotonic; deadline 0: none */
    int64_t now_us;                /* what now() says throughout the statement */
    uint64_t random_state;
    uint64_t rows_sent, bytes_sent, apply_index;
    enum sql_format format;
};

/* Sets the error (unless there is one) at a byte offset; UINT32_MAX: no place. Returns false. */
bool sql__fail(struct sql_query *q, const char *sqlstate, uint32_t pos, const char *format, ...)
    CHR_PRINTF(4, 5);
void sql__detail(struct sql_query *q, const char *format, ...) CHR_PRINTF(2, 3);
void sql__hint(struct sql_query *q, const char *format, ...) CHR_PRINTF(2, 3);
#define SQL_NO_POS UINT32_MAX
/* A chr_err from below, with its sentence. */
bool sql__fail_err(struct sql_query *q, chr_err err, const struct chr_errmsg *msg);
bool sql__fail_memory(struct sql_query *q);
/* Cancelled or out of time? Once per batch. */
bool sql__check(struct sql_query *q);

/* Statement-life memory; NULL after setting 53200. */
void *sql__alloc(struct sql_query *q, size_t bytes);
#define SQL_NEW(q, type)          ((type *)sql__zalloc((q), sizeof(type)))
#define SQL_ARRAY(q, type, count) ((type *)sql__zalloc((q), sizeof(type) * (size_t)(count)))
void *sql__zalloc(struct sql_query *q, size_t bytes);
/* Batch-life memory. */
void *sql__scratch(struct sql_query *q, size_t bytes);
/* A growable array: moves ptr (or NULL) to `bytes`; the new part is not zeroed. Counted against the
 * limit, freed with the statement at the latest. */
void *sql__grow(struct sql_query *q, void *ptr, size_t bytes);
void sql__ungrow(struct sql_query *q, void *ptr); /* frees early; accepts NULL */
void sql__query_free(struct sql_query *q);
void sql__lifts_free(struct sql_query *q); /* exec/eval.c */

/* -- Values and text (cast.c, interval.c) ------------------------------------------------------*/
/* Parses '1 day 02:00:00', '5 minutes', '-3 mons', 'P1DT2H' is not taken. false: malformed. */
bool sql__interval_parse(chr_slice text, struct sql_interval *out);
/* As PostgreSQL prints it: "1 day 02:00:00". Returns the length. */
#define SQL_INTERVAL_TEXT_MAX 96
size_t sql__interval_format(struct sql_interval iv, char out[SQL_INTERVAL_TEXT_MAX]);
/* For comparisons: a month is 30 days. */
__int128 sql__interval_us(struct sql_interval iv);
/* false: out of range. */
bool sql__timestamp_add(int64_t ts, struct sql_interval iv, int sign, int64_t *out);

typedef struct sql_call sql_call;
typedef bool (*sql_row_fn)(sql_call *c, const sql_val *args, sql_val *out);
/* The function that casts a value, NULL: no such cast; *implicit: also without being asked. */
sql_row_fn sql__cast_fn(enum db_type from, enum db_type to);
/* Type of a name of SQL ("bigint"); UNKNOWN: no such type. */
enum db_type sql__type_parse(chr_slice name);
/* A value as text, into the statement's arena when it needs bytes; for messages and plans. */
chr_slice sql__datum_text(struct sql_query *q, const struct sql_datum *d);
int sql__val_cmp(enum db_type type, const sql_val *a, const sql_val *b);
CHR_INLINE int sql__f64_cmp(double a, double b)
{
    if (a < b)
        return -1;
    if (a > b)
        return 1;
    if (a == b)
        return 0;
    return (a != a) - (b != b); /* NaN equals itself and is above all others, as in PostgreSQL */
}

/* The nearest of a set of names within two edits, or NULL. */
const char *sql__nearest(chr_slice wanted, const char *const *names, size_t count);
/* Edits between two short names, at most `limit` + 1. */
unsigned sql__edit_distance(chr_slice a, chr_slice b, unsigned limit);

/* Reads a quoted or bare name's table; sets 42P01 with a hint. */
const struct db_table_def *sql__find_table(struct sql_query *q, const db_catalog *catalog,
                                           chr_slice name, uint32_t pos);

/* -- Statements (one file each) ----------------------------------------------------------------*/
bool sql__run_select(struct sql_query *q, const struct sql_stmt *stmt, const struct sql_sink *sink,
                     uint64_t *rows);
bool sql__run_explain(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows);
/* An INSERT of literals, read straight from the text. *handled false: not such a statement (or one
 * with an error in it); nothing was done, the general way decides. */
bool sql__run_insert_fast(struct sql_query *q, chr_slice text, bool *handled,
                          struct sql_done *done);
bool sql__run_insert(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_update(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_delete(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_create_table(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_drop_table(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_truncate(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_show_tables(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows);
bool sql__run_show(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows);
bool sql__run_describe(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows);
bool sql__run_set(struct sql_query *q, const struct sql_stmt *stmt);
bool sql__run_grant(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_show_grants(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows);
bool sql__run_retry_rejects(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows);
bool sql__run_kill_client(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done);
bool sql__run_alter_cluster(struct sql_query *q, const struct sql_stmt *stmt,
                            struct sql_done *done);

/* -- Writes (write.c) --------------------------------------------------------------------------*/
/* Begins an atomic entry with the host's own operations in front. */
bool sql__write_begin(struct sql_query *q, struct db_entry *entry);
/* Ends, proposes and waits. Errors of the entry as a whole are told; *applied has the rest. */
bool sql__write_propose(struct sql_query *q, struct db_entry *entry, struct sql_applied *applied);
/* Tells an operation's failure. */
bool sql__write_check(struct sql_query *q, const struct sql_applied *applied,
                      const struct db_table_def *table);
/* 42501 unless the user has all of these privileges on the table. */
bool sql__may(struct sql_query *q, const struct db_table_def *table, uint8_t privileges,
              uint32_t pos);
/* Tables and grants are made by admins. */
bool sql__may_define(struct sql_query *q, const char *what, uint32_t pos);
bool sql__may_write(struct sql_query *q, const struct db_table_def *table, uint32_t pos);

/* -- Sinks -------------------------------------------------------------------------------------*/
/* Hands a batch on, counting rows and bytes against the limits. */
bool sql__send_begin(struct sql_query *q, const struct sql_sink *sink,
                     const struct sql_column *columns, uint32_t count);
bool sql__send_rows(struct sql_query *q, const struct sql_sink *sink,
                    const struct db_vector *const *vectors, uint32_t columns_count,
                    const uint16_t *sel, uint32_t count);
/* A small table of texts (SHOW, DESCRIBE, EXPLAIN): cells[row * columns + column], NULL: NULL. */
bool sql__send_texts(struct sql_query *q, const struct sql_column *columns, uint32_t columns_count,
                     const char *const *cells, uint32_t rows);
/* barrier: it has to see what was acknowledged before (unless the session reads stale). */
bool sql__begin_read(struct sql_query *q, bool barrier, db_read **read);

#endif
