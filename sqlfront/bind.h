/* sqlfront/bind.h: names become columns, functions and types.
 *
 * A binder knows at most one table. Columns get slots in the order of first use: what is never
 * mentioned is never read. Constant parts are computed here, once; a constant that fails (1/0) is
 * left as it is, because a CASE around it may never ask. */
#ifndef CHR_SQLFRONT_BIND_H
#define CHR_SQLFRONT_BIND_H

#include "sqlfront/expr.h"

#define SQL_AGGS_MAX 4096 /* each is compared with those before it */

enum sql_agg_fn {
    SQL_AGG_COUNT_STAR,
    SQL_AGG_COUNT,
    SQL_AGG_SUM,
    SQL_AGG_AVG,
    SQL_AGG_MIN,
    SQL_AGG_MAX,
    SQL_AGG_FIRST,
    SQL_AGG_LAST,
    SQL_AGG_STDDEV_SAMP,
    SQL_AGG_STDDEV_POP,
    SQL_AGG_VAR_SAMP,
    SQL_AGG_VAR_POP,
    SQL_AGG_BOOL_AND,
    SQL_AGG_BOOL_OR,
};

struct sql_agg {
    enum sql_agg_fn fn;
    bool distinct;
    struct sql_expr *arg;    /* NULL: COUNT(*) */
    struct sql_expr *time;   /* FIRST, LAST */
    struct sql_expr *filter; /* FILTER (WHERE …) */
    enum db_type type;       /* of the result */
    uint32_t pos;
    const char *name;
};

struct sql_binder {
    struct sql_query *q;
    const struct db_table_def *table; /* NULL: no FROM */
    chr_slice alias;                  /* what qualifies a column */
    uint16_t *columns;                /* [slots_count] index as in struct db_bound */
    uint32_t slots_count;

    const char *clause; /* where no aggregate may be, e.g. "WHERE"; NULL: they may */
    bool inside_aggregate;
    struct sql_agg *aggs;
    uint32_t aggs_count, aggs_capacity;
};

bool sql__binder_init(struct sql_binder *b, struct sql_query *q, const struct db_table_def *table,
                      chr_slice alias);
/* NULL: failed. */
struct sql_expr *sql__bind(struct sql_binder *b, const struct sql_ast *ast);
/* The same, as a BOOLEAN. what: "argument of WHERE". */
struct sql_expr *sql__bind_condition(struct sql_binder *b, const struct sql_ast *ast,
                                     const char *what);
/* A column of the table (index as in struct db_bound) as an expression. */
struct sql_expr *sql__bind_column(struct sql_binder *b, uint32_t column, uint32_t pos);
/* Index of a column by name, system columns included, or -1. */
int sql__column_index(const struct db_table_def *table, chr_slice name);
enum db_type sql__column_type(const struct db_table_def *table, uint32_t column);
const char *sql__column_name(const struct db_table_def *table, uint32_t column);
/* Says that there is no such column, with the nearest one. */
bool sql__no_column(struct sql_query *q, const struct db_table_def *table, chr_slice name,
                    uint32_t pos);

struct sql_expr *sql__const(struct sql_query *q, enum db_type type, const sql_val *v, uint32_t pos);
/* e as a value of `type`, converting as an operator would (a literal to anything, INT to FLOAT);
 * NULL without an error when that is not allowed, with one when it fails. */
struct sql_expr *sql__coerce(struct sql_query *q, struct sql_expr *e, enum db_type type);
/* As INSERT and UPDATE convert what is assigned to a column; sets 42804. */
struct sql_expr *sql__assign(struct sql_query *q, struct sql_expr *e, enum db_type type,
                             const char *column);
/* CAST(e AS type). */
struct sql_expr *sql__cast(struct sql_query *q, struct sql_expr *e, enum db_type type,
                           uint32_t pos);
/* A node over args: what it reads, folded when constant. */
struct sql_expr *sql__node(struct sql_query *q, enum sql_expr_kind kind, int op, enum db_type type,
                           uint32_t pos, struct sql_expr **args, uint32_t count);
struct sql_expr *sql__fold(struct sql_query *q, struct sql_expr *e);
/* Text of an expression for plans. */
struct chr_buf;
void sql__expr_text(const struct sql_binder *b, const struct sql_expr *e, struct chr_buf *out);
/* The name PostgreSQL would give an unnamed output column. */
chr_slice sql__output_name(const struct sql_ast *ast);

#endif
