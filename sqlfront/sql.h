/* sqlfront/sql.h: SQL text in, answers out.
 *
 *     text ─▶ lex ─▶ parse ─▶ bind ─▶ plan ─▶ execute ─▶ sink (columns, batches of rows, end |
 * error) └─ writes: an entry for sql_host.propose
 *
 * A session belongs to one client and is used by one thread at a time (a worker of the broker);
 * sql_session_cancel alone may be called from any thread. sql_execute blocks: while it scans, and
 * while a write waits to be committed and applied; it wants 1 MiB of stack. Nothing here knows
 * MQTT, sockets or files. */
#ifndef CHR_SQLFRONT_SQL_H
#define CHR_SQLFRONT_SQL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/slice.h"
#include "db/db.h"
#include "db/grant.h"
#include "db/op.h"
#include "db/types.h"

/* -- What the broker lends ---------------------------------------------------------------------*/

/* What became of a proposed entry, summed up so that nothing of it borrows from the applier. */
struct sql_applied {
    chr_err err;      /* of the entry: 0; CHR_EEXIST: its request key (or guard) was seen before and
                         nothing was done now (R2); CHR_ESTALE does not happen (no mappings) */
    chr_err op_err;   /* first operation that failed, other than CHR_ECANCELLED; 0: none did */
    uint64_t rows;    /* inserted, deleted or updated by all operations */
    uint64_t index;   /* log index; host fills it in */
    char detail[256]; /* "(device_id, ts)=(a, 2024…)" of a duplicate key, else "" */
};
/* For the host: on the applier, right after db_apply, while the result is still valid. */
void sql_applied_from(const struct db_apply_result *result, struct sql_applied *out);

/* A relation of which the host makes the rows when it is read: what there is now, in any order.
 * Read only. */
struct sql_relation_column {
    const char *name;
    enum db_type type;
};
struct sql_relation {
    const char *name; /* "chronos_clients" */
    const char *show; /* SHOW CLIENTS is short for SELECT * FROM it: "clients" */
    const struct sql_relation_column *columns;
    uint32_t columns_count;
};
/* Where its rows are gathered. */
struct sql_relation_rows;
/* For the host, in read_relation, on its thread. values: [columns_count], of the columns' types or
 * NULL; copied. CHR_ENOMEM: the statement's memory limit is reached; to be returned. */
CHR_MUST_USE chr_err sql_relation_add(struct sql_relation_rows *rows,
                                      const struct db_value *values);
/* How long a host may take. */
struct sql_host_wait {
    const atomic_bool *cancel; /* set: nobody waits any more */
    int64_t deadline_us;       /* monotonic; 0: none */
};

enum sql_cluster_action {
    SQL_CLUSTER_ADD, /* as a learner */
    SQL_CLUSTER_PROMOTE,
    SQL_CLUSTER_REMOVE,
    SQL_CLUSTER_TRANSFER, /* it leads */
};

struct sql_host {
    void *ctx;
    /* Proposes an entry and waits until it is applied here. Blocks. bytes: borrowed until return.
     * 0: *applied is filled. CHR_ETIMEDOUT, CHR_ECLOSED, CHR_EDOUBT: outcome unknown (08007, never
     * retried). CHR_ENOSPC: nothing was written (53100). CHR_EFULL, CHR_EBUSY: overloaded, nothing
     * was proposed (53300). */
    chr_err (*propose)(void *ctx, chr_slice bytes, struct sql_applied *applied);
    /* May be NULL. Called once per write, right after db_entry_begin of an atomic entry: adds the
     * operations that make the write happen once (request key, guards; R2). statement: which one
     * of the text, from 0, because each statement is an entry of its own. */
    void (*entry_begin)(void *ctx, struct db_entry *entry, uint32_t statement);
    /* May be NULL (one node). Before a read: returns when this node may answer it (lease or read
     * index); stale reads do not call it. CHR_ETIMEDOUT, CHR_ECLOSED: no leader (08006). */
    chr_err (*read_barrier)(void *ctx);
    /* Replays the kept rejects of a table through its mappings (broker/ingest decodes), removing
     * those that now fit. Blocks; looks at *cancel now and then. May be NULL: 0A000. */
    chr_err (*retry_rejects)(void *ctx, const struct db_table_def *table, const atomic_bool *cancel,
                             uint64_t *retried, uint64_t *failed, struct chr_errmsg *msg);
    /* Relations of the host, borrowed as long as the session; their names are reserved. */
    const struct sql_relation *relations;
    uint32_t relations_count;
    /* Adds all rows of one of them. May block, and returns soon after wait->cancel is set or
     * wait->deadline_us has passed, with any error. NULL only without relations. */
    chr_err (*read_relation)(void *ctx, const struct sql_relation *relation,
                             struct sql_relation_rows *rows, const struct sql_host_wait *wait,
                             struct chr_errmsg *msg);
    /* KILL CLIENT: ends a client's connection. May block, as read_relation may. CHR_ENOTFOUND: no
     * such client is connected. May be NULL: 0A000. */
    chr_err (*kill_client)(void *ctx, chr_slice client_id, const struct sql_host_wait *wait);
    /* ALTER CLUSTER: changes who belongs to the cluster, or who leads, and waits until that is
     * done. name: a node's; address: of SQL_CLUSTER_ADD. 0: msg says what was done, else what is in
     * the way. May block, as read_relation may. NULL: there is no cluster (0A000). */
    chr_err (*alter_cluster)(void *ctx, enum sql_cluster_action action, chr_slice name,
                             chr_slice address, const struct sql_host_wait *wait,
                             struct chr_errmsg *msg);
    /* Times statements, deadlines and now(). Never NULL. */
    const struct chr_clock *clock;
};

struct sql_limits {
    size_t statement_bytes;    /* 4 MiB; longer text: 54000 */
    size_t memory_bytes;       /* 256 MiB for one statement; beyond: 53200 */
    int64_t timeout_us;        /* 30 s; beyond: 57014. 0: none. SET statement_timeout lowers it */
    uint64_t result_rows;      /* 0: no limit; beyond: 54000, never a silent cut */
    uint64_t result_bytes;     /* 256 MiB of row data handed to the sink; beyond: 54000. 0: none */
    uint32_t expression_depth; /* 500; deeper: 54001 */
    uint32_t list_items;       /* 65,536 items of IN, VALUES columns, select lists; beyond: 54000 */
};
void sql_limits_default(struct sql_limits *limits);

/* -- What an answer is made of -----------------------------------------------------------------*/

enum sql_format {
    SQL_FORMAT_DEFAULT, /* nobody said: the surface chooses (JSON over MQTT, table in the CLI) */
    SQL_FORMAT_JSON,
    SQL_FORMAT_CSV,
    SQL_FORMAT_NDJSON,
    SQL_FORMAT_TABLE,
};
/* "json", "csv", "ndjson", "table" in any case; false for anything else. */
bool sql_format_parse(chr_slice name, enum sql_format *format);

struct sql_column {
    chr_slice name;
    enum db_type type; /* one of the six; what has no type of its own (an interval) is a STRING */
};

struct sql_error {
    char sqlstate[6];
    uint32_t position; /* characters, from 1, within the whole text; 0: no place to point at */
    char message[512];
    char detail[512]; /* "" when there is none */
    char hint[256];
};

/* One statement of a text is about to be answered. */
struct sql_statement_info {
    uint32_t index;         /* from 0 */
    uint32_t count;         /* statements in the text */
    enum sql_format format; /* FORMAT suffix, else SET format, else DEFAULT */
};

struct sql_done {
    const char *command; /* "SELECT", "INSERT", "CREATE TABLE", … */
    uint64_t row_count;  /* returned or changed */
    int64_t elapsed_us;
    bool duplicate;       /* a write whose request key was seen before: nothing done now (R2) */
    uint64_t apply_index; /* what a read saw, or where a write was applied; 0: neither */
    int64_t stale_us;     /* age of a stale read's state, -1 for a linearizable one */
};

/* Where answers go. For each statement, in order:
 *     statement, [begin, rows…], end        or        statement, [begin, rows…], error
 * After an error no further statement of the text is executed. A function that returns non-zero
 * ends the statement; its error is reported through `error` (CHR_ECANCELLED as 57014).
 * Everything handed over is borrowed until the function returns. */
struct sql_sink {
    void *ctx;
    chr_err (*statement)(void *ctx, const struct sql_statement_info *info); /* may be NULL */
    chr_err (*begin)(void *ctx, const struct sql_column *columns, uint32_t columns_count);
    /* vectors[columns_count]; sel: rows in order, NULL: 0 .. count-1. count >= 1. Any vector form.
     */
    chr_err (*rows)(void *ctx, const struct db_vector *const *vectors, uint32_t columns_count,
                    const uint16_t *sel, uint32_t count);
    chr_err (*end)(void *ctx, const struct sql_done *done);
    void (*error)(void *ctx, const struct sql_error *error);
};

/* -- Sessions ----------------------------------------------------------------------------------*/

typedef struct sql_session sql_session; /* opaque; from sql_session_new, to sql_session_free */

/* db and host are borrowed until free; limits are copied. NULL when out of memory. */
sql_session *sql_session_new(db *db, const struct sql_host *host, const struct sql_limits *limits);
void sql_session_free(sql_session *session); /* accepts NULL; not while it executes */
/* On whose behalf statements are executed from now on: what db/grant.h and the role do not allow is
 * refused with 42501. name: copied; empty: anonymous. Without a call it is an admin. Not while it
 * executes. */
void sql_session_set_user(sql_session *session, chr_slice name, enum db_role role);
/* Writes are refused with 42501. */
void sql_session_set_read_only(sql_session *session, bool read_only);
/* Default form of the session, as SET format does. */
void sql_session_set_format(sql_session *session, enum sql_format format);
/* Any thread, any time: the running sql_execute ends with 57014; without one, nothing happens. */
void sql_session_cancel(sql_session *session);

/* Executes one or several statements separated by `;` (the text is parsed as a whole first: a
 * syntax error anywhere executes nothing). text: borrowed until return. Returns 0 or what stopped
 * it; the sink was told in either case. Text without a statement calls nothing. */
chr_err sql_execute(sql_session *session, chr_slice text, const struct sql_sink *sink);

/* How many statements a text holds and whether the last one is closed by `;`: for prompts and
 * scripts that feed statement by statement. Looks at quotes and comments only. Returns the bytes up
 * to and including the first `;` outside of them, 0 when there is none. */
size_t sql_statement_end(chr_slice text);

/* -- sqlfront/sqlstate.c: the door between chr_err and SQLSTATE --------------------------------*/

/* "57014" for CHR_ECANCELLED and so on; "XX000" for what has no closer one. Static. */
const char *sql_sqlstate_of(chr_err err);
/* Fills an error whose message is printf'd; detail and hint empty. */
void sql_error_set(struct sql_error *error, const char *sqlstate, uint32_t position,
                   const char *format, ...) CHR_PRINTF(4, 5);

#endif
