/* sqlfront/exec/arith.c: + - * / % and negation over vectors of INT and FLOAT.
 *
 * Dense when a good part of the rows is selected: the loop over all of them vectorizes, and rows
 * that nobody asked for may overflow unseen (V1); only when something looks wrong the selected rows
 * are checked one by one. */
#include <math.h>

#include "sqlfront/exec/kernels.h"
#include "sqlfront/expr.h"

static bool out_of_range(struct sql_eval *ev, const struct sql_expr *e)
{
    return sql__fail(ev->q, "22003", e->pos, "%s is out of range", sql__type_name(e->type));
}
static bool by_zero(struct sql_eval *ev, const struct sql_expr *e)
{
    return sql__fail(ev->q, "22012", e->pos, "division by zero");
}

static bool is_valid(const struct db_vector *out, uint32_t row)
{
    return !out->validity || db_bit_get(out->validity, row);
}

static bool ints_one_by_one(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows,
                            const int64_t *a, const int64_t *b, size_t step_a, size_t step_b)
{
    int64_t *out = e->data;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        if (!is_valid(&e->out, row))
            continue;
        int64_t x = a[row * step_a], y = b[row * step_b];
        bool bad = false;
        switch (e->op) {
        case SQL_OP_ADD:
            bad = __builtin_add_overflow(x, y, &out[row]);
            break;
        case SQL_OP_SUB:
            bad = __builtin_sub_overflow(x, y, &out[row]);
            break;
        case SQL_OP_MUL:
            bad = __builtin_mul_overflow(x, y, &out[row]);
            break;
        default:
            if (y == 0)
                return by_zero(ev, e);
            if (y == -1) { /* INT64_MIN / -1 does not fit, and its remainder would trap */
                if (e->op == SQL_OP_MOD)
                    out[row] = 0;
                else
                    bad = __builtin_sub_overflow((int64_t)0, x, &out[row]);
            } else {
                out[row] = e->op == SQL_OP_DIV ? x / y : x % y;
            }
        }
        if (bad)
            return out_of_range(ev, e);
    }
    return true;
}

static bool floats_one_by_one(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows,
                              const double *a, const double *b, size_t step_a, size_t step_b)
{
    double *out = e->data;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        if (!is_valid(&e->out, row))
            continue;
        double x = a[row * step_a], y = b[row * step_b], r;
        switch (e->op) {
        case SQL_OP_ADD:
            r = x + y;
            break;
        case SQL_OP_SUB:
            r = x - y;
            break;
        case SQL_OP_MUL:
            r = x * y;
            break;
        case SQL_OP_DIV:
            if (y == 0)
                return by_zero(ev, e);
            r = x / y;
            break;
        default:
            if (y == 0)
                return by_zero(ev, e);
            r = fmod(x, y);
        }
        if (isinf(r) && !isinf(x) && !isinf(y))
            return out_of_range(ev, e);
        out[row] = r;
    }
    return true;
}

static bool eval_neg(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    const struct db_vector *a = sql__eval_flat(ev, e->args[0], rows);
    if (!a || !sql__out(ev, e, rows.n))
        return false;
    if (!sql__out_and_validity(ev, e, a, NULL, rows.n))
        return true;
    size_t step = a->form != DB_VECTOR_CONSTANT;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        if (e->type == DB_FLOAT)
            ((double *)e->data)[row] = -a->f64[row * step];
        else if (__builtin_sub_overflow((int64_t)0, a->i64[row * step],
                                        &((int64_t *)e->data)[row]) &&
                 is_valid(&e->out, row))
            return out_of_range(ev, e);
    }
    return true;
}

bool sql__eval_arith(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    if (e->op == SQL_OP_NEG)
        return eval_neg(ev, e, rows);
    const struct db_vector *a = sql__eval_flat(ev, e->args[0], rows);
    const struct db_vector *b = a ? sql__eval_flat(ev, e->args[1], rows) : NULL;
    if (!b || !sql__out(ev, e, rows.n))
        return false;
    if (!sql__out_and_validity(ev, e, a, b, rows.n))
        return true;
    int step_a = a->form != DB_VECTOR_CONSTANT, step_b = b->form != DB_VECTOR_CONSTANT;
    bool dense = !rows.sel || rows.count >= rows.n / 4;
    bool bad = true;
    if (e->type == DB_INT) {
        if (dense && e->op == SQL_OP_ADD)
            bad = sql__k_add_i64(a->i64, b->i64, step_a, step_b, rows.n, e->data);
        else if (dense && e->op == SQL_OP_SUB)
            bad = sql__k_sub_i64(a->i64, b->i64, step_a, step_b, rows.n, e->data);
        else if (dense && e->op == SQL_OP_MUL)
            bad = sql__k_mul_i64(a->i64, b->i64, step_a, step_b, rows.n, e->data);
        return !bad || ints_one_by_one(ev, e, rows, a->i64, b->i64, (size_t)step_a, (size_t)step_b);
    }
    if (dense && e->op != SQL_OP_MOD)
        bad = sql__k_arith_f64(e->op, a->f64, b->f64, step_a, step_b, rows.n, e->data);
    return !bad || floats_one_by_one(ev, e, rows, a->f64, b->f64, (size_t)step_a, (size_t)step_b);
}
