/* sqlfront/exec/compare.c: comparisons as BOOLEAN vectors and, faster, as selections. */
#include <math.h>

#include "sqlfront/exec/kernels.h"
#include "sqlfront/expr.h"

static bool holds(int op, int cmp)
{
    switch (op) {
    case SQL_OP_EQ:
    case SQL_OP_NOT_DISTINCT:
        return cmp == 0;
    case SQL_OP_NE:
    case SQL_OP_DISTINCT:
        return cmp != 0;
    case SQL_OP_LT:
        return cmp < 0;
    case SQL_OP_LE:
        return cmp <= 0;
    case SQL_OP_GT:
        return cmp > 0;
    default:
        return cmp >= 0;
    }
}

/* IS [NOT] DISTINCT FROM: NULL is a value like any other. */
static bool eval_distinct(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows,
                          const struct db_vector *a, const struct db_vector *b)
{
    (void)ev;
    uint8_t *out = e->data;
    enum db_type type = e->args[0]->type;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        sql_val x, y;
        bool has_x = sql__vector_get(a, row, &x), has_y = sql__vector_get(b, row, &y);
        bool same = has_x && has_y ? sql__val_cmp(type, &x, &y) == 0 : has_x == has_y;
        out[row] = same == (e->op == SQL_OP_NOT_DISTINCT);
    }
    return true;
}

static void compare_strings(struct sql_expr *e, struct sql_rows rows, const struct db_vector *a,
                            const struct db_vector *b)
{
    uint8_t *out = e->data;
    size_t step_a = a->form != DB_VECTOR_CONSTANT, step_b = b->form != DB_VECTOR_CONSTANT;
    bool equality = e->op == SQL_OP_EQ || e->op == SQL_OP_NE;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        if (e->out.validity && !db_bit_get(e->out.validity, row))
            continue;
        chr_slice x = a->str[row * step_a], y = b->str[row * step_b];
        out[row] = equality ? chr_slice_eq(x, y) == (e->op == SQL_OP_EQ)
                            : holds(e->op, chr_slice_cmp(x, y));
    }
}

bool sql__eval_compare(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    const struct db_vector *a = sql__eval_flat(ev, e->args[0], rows);
    const struct db_vector *b = a ? sql__eval_flat(ev, e->args[1], rows) : NULL;
    if (!b || !sql__out(ev, e, rows.n))
        return false;
    if (e->op == SQL_OP_DISTINCT || e->op == SQL_OP_NOT_DISTINCT)
        return eval_distinct(ev, e, rows, a, b);
    if (!sql__out_and_validity(ev, e, a, b, rows.n))
        return true;
    enum db_type type = e->args[0]->type;
    int step_a = a->form != DB_VECTOR_CONSTANT, step_b = b->form != DB_VECTOR_CONSTANT;
    bool dense = !rows.sel || rows.count >= rows.n / 4;
    if (dense && sql__type_is_i64(type)) {
        sql__k_compare_i64(e->op, a->i64, b->i64, step_a, step_b, rows.n, e->data);
    } else if (dense && type == DB_FLOAT) {
        sql__k_compare_f64(e->op, a->f64, b->f64, step_a, step_b, rows.n, e->data);
    } else if (db_type_is_bytes(type)) {
        compare_strings(e, rows, a, b);
    } else {
        uint8_t *out = e->data;
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j);
            sql_val x, y;
            if (sql__vector_get(a, row, &x) && sql__vector_get(b, row, &y))
                out[row] = holds(e->op, sql__val_cmp(type, &x, &y));
        }
    }
    return true;
}

/* x op c as a closed interval of integers; false: no row can pass. inside false: all but it. */
static bool int_range(int op, int64_t c, int64_t *low, int64_t *high, bool *inside)
{
    *low = INT64_MIN;
    *high = INT64_MAX;
    *inside = true;
    switch (op) {
    case SQL_OP_NE:
        *inside = false;
        *low = *high = c;
        return true;
    case SQL_OP_EQ:
        *low = *high = c;
        return true;
    case SQL_OP_LT:
        *high = c - (c != INT64_MIN);
        return c != INT64_MIN;
    case SQL_OP_LE:
        *high = c;
        return true;
    case SQL_OP_GT:
        *low = c + (c != INT64_MAX);
        return c != INT64_MAX;
    default:
        *low = c;
        return true;
    }
}

static bool select_true(const struct db_vector *v, struct sql_rows in, uint16_t *out,
                        uint32_t *out_count)
{
    if (v->form == DB_VECTOR_CONSTANT) {
        if (!db_vector_valid(v, 0) || !v->b8[0]) {
            *out_count = 0;
            return true;
        }
        for (uint32_t j = 0; j < in.count; j++)
            out[j] = (uint16_t)sql__row(in, j);
        *out_count = in.count;
    } else if (v->form == DB_VECTOR_DICT) {
        *out_count = sql__k_select_codes(v->b8, v->codes, v->validity, in.sel, in.count, out);
    } else {
        *out_count = sql__k_select_b8(v->b8, v->validity, in.sel, in.count, out);
    }
    return true;
}

/* column op constant on plain arrays of numbers; false: not that case. */
static bool select_number(struct sql_eval *ev, struct sql_expr *e, struct sql_rows in,
                          uint16_t *out, uint32_t *out_count, bool *failed)
{
    struct sql_expr *left = e->args[0], *right = e->args[1];
    if (e->op > SQL_OP_GE || !sql__is_const(right) || right->value.null ||
        db_type_is_bytes(left->type))
        return false;
    if (!sql__type_is_i64(left->type) && left->type != DB_FLOAT)
        return false;
    if (left->type == DB_FLOAT && isnan(right->value.v.f))
        return false;
    if (e->reads >= 0) { /* a dictionary is better served entry by entry */
        const struct db_vector *column = sql__slot(ev, (uint32_t)e->reads);
        *failed = !column;
        if (!column || column->form != DB_VECTOR_FLAT)
            return *failed;
    }
    const struct db_vector *v = sql__eval_flat(ev, left, in);
    *failed = !v;
    if (!v)
        return true;
    if (v->form != DB_VECTOR_FLAT)
        return false;
    if (left->type == DB_FLOAT) {
        *out_count =
            sql__k_select_f64(v->f64, v->validity, in.sel, in.count, e->op, right->value.v.f, out);
        return true;
    }
    int64_t low, high;
    bool inside;
    *out_count =
        int_range(e->op, right->value.v.i, &low, &high, &inside)
            ? sql__k_select_i64(v->i64, v->validity, in.sel, in.count, low, high, inside, out)
            : 0;
    return true;
}

bool sql__filter_compare(struct sql_eval *ev, struct sql_expr *e, struct sql_rows in, uint16_t *out,
                         uint32_t *out_count)
{
    bool failed = false;
    if (select_number(ev, e, in, out, out_count, &failed))
        return !failed;
    const struct db_vector *v = sql__eval(ev, e, in);
    return v && select_true(v, in, out, out_count);
}

/* x >= low AND x < high over plain integers: one loop instead of two. */
static bool select_between(struct sql_eval *ev, const struct sql_expr *a, const struct sql_expr *b,
                           struct sql_rows in, uint16_t *out, uint32_t *out_count, bool *failed)
{
    *failed = false;
    if (a->kind != SQL_EXPR_COMPARE || b->kind != SQL_EXPR_COMPARE || a->op < SQL_OP_LT ||
        a->op > SQL_OP_GE || b->op < SQL_OP_LT || b->op > SQL_OP_GE)
        return false;
    const struct sql_expr *x = a->args[0];
    if (x->kind != SQL_EXPR_SLOT || b->args[0]->kind != SQL_EXPR_SLOT ||
        b->args[0]->slot != x->slot || !sql__type_is_i64(x->type) || !sql__is_const(a->args[1]) ||
        !sql__is_const(b->args[1]) || a->args[1]->value.null || b->args[1]->value.null)
        return false;
    const struct db_vector *v = sql__slot(ev, x->slot);
    *failed = !v;
    if (!v)
        return true;
    if (v->form != DB_VECTOR_FLAT)
        return false;
    int64_t low, high, low2, high2;
    bool inside;
    *out_count = 0;
    if (int_range(a->op, a->args[1]->value.v.i, &low, &high, &inside) &&
        int_range(b->op, b->args[1]->value.v.i, &low2, &high2, &inside)) {
        low = CHR_MAX(low, low2);
        high = CHR_MIN(high, high2);
        if (low <= high)
            *out_count =
                sql__k_select_i64(v->i64, v->validity, in.sel, in.count, low, high, true, out);
    }
    return true;
}

static bool filter_and(struct sql_eval *ev, struct sql_expr *e, struct sql_rows in, uint16_t *out,
                       uint32_t *out_count)
{
    struct sql_rows rows = in;
    for (uint32_t i = 0; i < e->args_count; i++) {
        bool failed = false;
        if (i + 1 < e->args_count &&
            select_between(ev, e->args[i], e->args[i + 1], rows, out, out_count, &failed)) {
            if (failed)
                return false;
            i++;
        } else if (!sql__filter(ev, e->args[i], rows, out, out_count)) {
            return false;
        }
        if (*out_count == 0)
            return true;
        rows = (struct sql_rows){out, *out_count, in.n};
    }
    return true;
}

static bool filter_or(struct sql_eval *ev, struct sql_expr *e, struct sql_rows in, uint16_t *out,
                      uint32_t *out_count)
{
    uint64_t *passed = sql__scratch(ev->q, DB_BIT_WORDS(DB_VECTOR_ROWS) * sizeof *passed);
    uint16_t *rest = sql__scratch(ev->q, DB_VECTOR_ROWS * sizeof *rest);
    uint16_t *some = sql__scratch(ev->q, DB_VECTOR_ROWS * sizeof *some);
    if (!passed || !rest || !some)
        return false;
    memset(passed, 0, DB_BIT_WORDS(DB_VECTOR_ROWS) * sizeof *passed);
    struct sql_rows rows = in;
    for (uint32_t i = 0; i < e->args_count && rows.count; i++) {
        uint32_t count;
        if (!sql__filter(ev, e->args[i], rows, some, &count))
            return false;
        for (uint32_t j = 0; j < count; j++)
            db_bit_set(passed, some[j]);
        uint32_t k = 0;
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j);
            rest[k] = (uint16_t)row;
            k += !db_bit_get(passed, row);
        }
        rows = (struct sql_rows){rest, k, in.n};
    }
    uint32_t k = 0;
    for (uint32_t j = 0; j < in.count; j++) {
        uint32_t row = sql__row(in, j);
        out[k] = (uint16_t)row;
        k += db_bit_get(passed, row);
    }
    *out_count = k;
    return true;
}

bool sql__filter(struct sql_eval *ev, struct sql_expr *e, struct sql_rows in, uint16_t *out,
                 uint32_t *out_count)
{
    *out_count = 0;
    if (in.count == 0)
        return true;
    if (e->kind == SQL_EXPR_AND)
        return filter_and(ev, e, in, out, out_count);
    if (e->kind == SQL_EXPR_OR && e->reads == SQL_READS_MANY)
        return filter_or(ev, e, in, out, out_count);
    if (e->kind == SQL_EXPR_COMPARE)
        return sql__filter_compare(ev, e, in, out, out_count);
    if (e->kind == SQL_EXPR_LET && e->reads == SQL_READS_MANY) {
        const struct db_vector *shared = sql__eval(ev, e->args[0], in);
        if (!shared)
            return false;
        e->let->out = *shared;
        return sql__filter(ev, e->args[1], in, out, out_count);
    }
    const struct db_vector *v = sql__eval(ev, e, in);
    return v && select_true(v, in, out, out_count);
}
