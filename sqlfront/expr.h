/* sqlfront/expr.h: bound expressions and how they are evaluated over batches.
 *
 * The binder makes a tree of typed nodes; the executor asks a node for its values at the selected
 * rows of a batch and gets a vector. A node owns the buffers of its vector, so a tree belongs to
 * one statement on one thread.
 *
 * Promises
 *   V1  Values are right at the selected rows; at others they may be anything (but readable),
 * except that validity bitmaps cover all rows. Errors are raised for selected rows only, so that
 *       CASE and AND guard what stands behind them.
 *   V2  A vector from sql__eval lives until the node is evaluated again or the next batch.
 *   V3  An expression over one column that comes with a dictionary is evaluated once per entry and
 *       kept while the dictionary's id stays the same. An entry that no selected row has may be
 * what fails; then rows are evaluated one by one (V1). */
#ifndef CHR_SQLFRONT_EXPR_H
#define CHR_SQLFRONT_EXPR_H

#include "sqlfront/internal.h"

enum sql_expr_kind {
    SQL_EXPR_CONST,
    SQL_EXPR_SLOT,    /* a column of the input */
    SQL_EXPR_ARITH,   /* op over two INT, FLOAT (or one: NEG) */
    SQL_EXPR_COMPARE, /* op EQ .. NOT_DISTINCT over two of one type */
    SQL_EXPR_AND,
    SQL_EXPR_OR,
    SQL_EXPR_NOT,
    SQL_EXPR_IS,   /* op IS_NULL .. IS_NOT_FALSE */
    SQL_EXPR_CASE, /* args: when then when then … else (always has one) */
    SQL_EXPR_COALESCE,
    SQL_EXPR_IN,     /* args[0] in set */
    SQL_EXPR_CALL,   /* row or vector function */
    SQL_EXPR_LET,    /* args: a value that is used several times, and what uses it */
    SQL_EXPR_SHARED, /* that value, within the second argument of its LET  */
    SQL_EXPR_AGG,    /* only between binder and planner: number `slot` of the aggregates */
};

/* Which input columns a node reads. */
#define SQL_READS_NONE (-1)
#define SQL_READS_MANY (-2) /* two or more, or it is volatile */

struct sql_rows {
    const uint16_t *sel; /* rising; NULL: all of 0 .. count-1 */
    uint32_t count;      /* selected */
    uint32_t n;          /* length of the batch */
};
CHR_INLINE uint32_t sql__row(struct sql_rows rows, uint32_t j)
{
    return rows.sel ? rows.sel[j] : j;
}

struct sql_eval;
struct sql_expr;
struct sql_lift;
typedef bool (*sql_vec_fn)(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);

struct sql_expr {
    uint8_t kind; /* enum sql_expr_kind */
    uint8_t op;   /* enum sql_op */
    enum db_type type;
    uint32_t pos;
    bool literal; /* an untyped 'text' or NULL: takes the type it is wanted in */
    bool strict;  /* CALL: NULL in, NULL out */
    bool volatile_;
    int32_t reads; /* the one slot read, or SQL_READS_… */
    uint32_t slot;
    uint32_t args_count;
    struct sql_expr **args;
    struct sql_datum value; /* CONST */
    sql_row_fn row_fn;      /* CALL */
    sql_vec_fn vec_fn;      /* CALL, instead of row_fn */
    const char *name;       /* CALL: for plans */
    struct sql_expr *let;   /* LET: its SHARED */
    void *state;            /* what a function prepared from its constant arguments */

    struct db_vector out; /* data and validity point to the buffers below */
    void *data;           /* DB_VECTOR_ROWS elements; NULL until needed */
    uint64_t *validity;
    uint16_t *codes;
    struct sql_lift *lift;
};

struct sql_eval {
    struct sql_query *q;
    struct db_vector **slots; /* of the current batch; NULL: not asked for yet */
    uint32_t slots_count;
    /* Fills slots[slot]; NULL when all are there from the start. */
    bool (*load)(struct sql_eval *ev, uint32_t slot);
    void *source;
};

/* What a row function sees besides its arguments. */
struct sql_call {
    struct sql_query *q;
    const struct sql_expr *e;
    const bool *nulls; /* of the arguments; looked at by functions that are not strict */
    bool null;         /* out: the result is NULL */
};
bool sql__call_fail(sql_call *c, const char *sqlstate, const char *format, ...) CHR_PRINTF(3, 4);
/* Bytes for a result, alive until the next batch. */
uint8_t *sql__call_bytes(sql_call *c, size_t len);

/* NULL: failed. */
const struct db_vector *sql__eval(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
/* The same, never a DICT. */
const struct db_vector *sql__eval_flat(struct sql_eval *ev, struct sql_expr *e,
                                       struct sql_rows rows);
/* The rows of `in` for which a BOOLEAN is TRUE; out may be in.sel. */
bool sql__filter(struct sql_eval *ev, struct sql_expr *e, struct sql_rows in, uint16_t *out,
                 uint32_t *out_count);
const struct db_vector *sql__slot(struct sql_eval *ev, uint32_t slot);

/* A node's own vector for n rows: FLAT, no NULLs, buffers there. NULL: out of memory. */
struct db_vector *sql__out(struct sql_eval *ev, struct sql_expr *e, uint32_t n);
/* Its bitmap, all ones at first. */
uint64_t *sql__out_validity(struct sql_eval *ev, struct sql_expr *e, uint32_t n);
/* Gives out the bits that all args have; false when the result is NULL for every row (then out is a
 * constant NULL). */
bool sql__out_and_validity(struct sql_eval *ev, struct sql_expr *e, const struct db_vector *a,
                           const struct db_vector *b, uint32_t n);
void sql__const_init(struct sql_expr *e);
/* Value of a constant vector or a row of any; strings are borrowed. */
bool sql__vector_get(const struct db_vector *v, uint32_t row, sql_val *out);

CHR_INLINE bool sql__is_const(const struct sql_expr *e)
{
    return e->kind == SQL_EXPR_CONST;
}
bool sql__is_null_const(const struct sql_expr *e);
/* The same expression? Volatile ones never are. */
bool sql__expr_equal(const struct sql_expr *a, const struct sql_expr *b);

/* exec/arith.c, exec/compare.c, exec/logic.c */
bool sql__eval_arith(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
bool sql__eval_compare(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
bool sql__filter_compare(struct sql_eval *ev, struct sql_expr *e, struct sql_rows in, uint16_t *out,
                         uint32_t *out_count);
bool sql__eval_and_or(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
bool sql__eval_not(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
bool sql__eval_is(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
bool sql__eval_case(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
bool sql__eval_coalesce(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
bool sql__eval_in(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows);
/* The set of an IN list: constants of one type, none NULL. */
struct sql_set;
struct sql_set *sql__set_new(struct sql_query *q, enum db_type type, const sql_val *values,
                             uint32_t count, bool has_null);
uint32_t sql__set_values(const struct sql_set *set, const sql_val **values);

#endif
