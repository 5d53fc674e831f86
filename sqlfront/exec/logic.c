/* sqlfront/exec/logic.c: three-valued AND, OR, NOT; IS; CASE, COALESCE and IN over vectors.
 *
 * Each later argument is evaluated only for the rows that the earlier ones left open (V1). */
#include <stdlib.h>

#include "sqlfront/expr.h"

/* AND is decided by the first FALSE, OR by the first TRUE; a NULL before that leaves it open. */
bool sql__eval_and_or(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    uint8_t decides = e->kind == SQL_EXPR_OR;
    if (!sql__out(ev, e, rows.n))
        return false;
    uint8_t *out = e->data;
    uint64_t *validity = sql__out_validity(ev, e, rows.n);
    uint16_t *open = sql__scratch(ev->q, DB_VECTOR_ROWS * sizeof *open);
    if (!validity || !open)
        return false;
    for (uint32_t j = 0; j < rows.count; j++) {
        open[j] = (uint16_t)sql__row(rows, j);
        out[open[j]] = !decides;
    }
    uint32_t count = rows.count;
    for (uint32_t i = 0; i < e->args_count && count; i++) {
        const struct db_vector *v =
            sql__eval(ev, e->args[i], (struct sql_rows){open, count, rows.n});
        if (!v)
            return false;
        uint32_t k = 0;
        for (uint32_t j = 0; j < count; j++) {
            uint32_t row = open[j];
            open[k] = (uint16_t)row;
            if (!db_vector_valid(v, row)) {
                db_bit_clear(validity, row);
                k++;
            } else if (v->b8[db_vector_at(v, row)] == decides) {
                out[row] = decides;
                db_bit_set(validity, row);
            } else {
                k++;
            }
        }
        count = k;
    }
    return true;
}

bool sql__eval_not(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    const struct db_vector *a = sql__eval_flat(ev, e->args[0], rows);
    if (!a || !sql__out(ev, e, rows.n))
        return false;
    if (!sql__out_and_validity(ev, e, a, NULL, rows.n))
        return true;
    uint8_t *out = e->data;
    size_t step = a->form != DB_VECTOR_CONSTANT;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        out[row] = !a->b8[row * step];
    }
    return true;
}

bool sql__eval_is(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    const struct db_vector *a = sql__eval(ev, e->args[0], rows);
    if (!a || !sql__out(ev, e, rows.n))
        return false;
    uint8_t *out = e->data;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        bool valid = db_vector_valid(a, row);
        switch (e->op) {
        case SQL_OP_IS_NULL:
            out[row] = !valid;
            break;
        case SQL_OP_IS_NOT_NULL:
            out[row] = valid;
            break;
        default: {
            bool value = valid && a->b8[db_vector_at(a, row)];
            out[row] = e->op == SQL_OP_IS_TRUE       ? value
                       : e->op == SQL_OP_IS_NOT_TRUE ? !value
                       : e->op == SQL_OP_IS_FALSE    ? valid && !value
                                                     : !valid || value;
        }
        }
    }
    return true;
}

/* Copies the values of v at the given rows into e's own vector. */
static void scatter(struct sql_expr *e, uint64_t *validity, const struct db_vector *v,
                    const uint16_t *sel, uint32_t count)
{
#define COPY(T)                                                                                    \
    for (uint32_t j = 0; j < count; j++)                                                           \
    ((T *)e->data)[sel[j]] = ((const T *)v->data)[db_vector_at(v, sel[j])]
    switch (sql__type_bytes(e->type)) {
    case 1:
        COPY(uint8_t);
        break;
    case 8:
        COPY(uint64_t);
        break;
    default:
        COPY(chr_slice);
    }
#undef COPY
    if (v->validity)
        for (uint32_t j = 0; j < count; j++)
            if (!db_vector_valid(v, sel[j]))
                db_bit_clear(validity, sel[j]);
}

/* The rows of `open` that are not in `taken` (a subsequence of it); in place. */
static uint32_t subtract(uint16_t *open, uint32_t count, const uint16_t *taken,
                         uint32_t taken_count)
{
    uint32_t k = 0, t = 0;
    for (uint32_t j = 0; j < count; j++)
        if (t < taken_count && taken[t] == open[j])
            t++;
        else
            open[k++] = open[j];
    return k;
}

bool sql__eval_case(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    uint16_t *open = sql__scratch(ev->q, DB_VECTOR_ROWS * sizeof *open);
    uint16_t *taken = sql__scratch(ev->q, DB_VECTOR_ROWS * sizeof *taken);
    if (!open || !taken || !sql__out(ev, e, rows.n))
        return false;
    uint64_t *validity = sql__out_validity(ev, e, rows.n);
    if (!validity)
        return false;
    for (uint32_t j = 0; j < rows.count; j++)
        open[j] = (uint16_t)sql__row(rows, j);
    uint32_t count = rows.count;
    for (uint32_t i = 0; i + 1 < e->args_count && count; i += 2) {
        uint32_t taken_count;
        if (!sql__filter(ev, e->args[i], (struct sql_rows){open, count, rows.n}, taken,
                         &taken_count))
            return false;
        if (taken_count == 0)
            continue;
        const struct db_vector *v =
            sql__eval(ev, e->args[i + 1], (struct sql_rows){taken, taken_count, rows.n});
        if (!v)
            return false;
        scatter(e, validity, v, taken, taken_count);
        count = subtract(open, count, taken, taken_count);
    }
    if (count) {
        const struct db_vector *v =
            sql__eval(ev, e->args[e->args_count - 1], (struct sql_rows){open, count, rows.n});
        if (!v)
            return false;
        scatter(e, validity, v, open, count);
    }
    return true;
}

bool sql__eval_coalesce(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    uint16_t *open = sql__scratch(ev->q, DB_VECTOR_ROWS * sizeof *open);
    uint16_t *taken = sql__scratch(ev->q, DB_VECTOR_ROWS * sizeof *taken);
    if (!open || !taken || !sql__out(ev, e, rows.n))
        return false;
    uint64_t *validity = sql__out_validity(ev, e, rows.n);
    if (!validity)
        return false;
    for (uint32_t j = 0; j < rows.count; j++)
        open[j] = (uint16_t)sql__row(rows, j);
    uint32_t count = rows.count;
    for (uint32_t i = 0; i < e->args_count && count; i++) {
        const struct db_vector *v =
            sql__eval(ev, e->args[i], (struct sql_rows){open, count, rows.n});
        if (!v)
            return false;
        uint32_t taken_count = 0;
        for (uint32_t j = 0; j < count; j++) {
            taken[taken_count] = open[j];
            taken_count += db_vector_valid(v, open[j]);
        }
        scatter(e, validity, v, taken, taken_count);
        count = subtract(open, count, taken, taken_count);
    }
    for (uint32_t j = 0; j < count; j++)
        db_bit_clear(validity, open[j]);
    return true;
}

/* -- IN ----------------------------------------------------------------------------------------*/

/* Sorted values: a search costs log2(n), and most lists are short. */
struct sql_set {
    enum db_type type;
    uint32_t count;
    bool has_null; /* x IN (…, NULL) is never FALSE */
    sql_val values[];
};

static int cmp_with_type(const void *a, const void *b, void *type)
{
    return sql__val_cmp(*(enum db_type *)type, a, b);
}

struct sql_set *sql__set_new(struct sql_query *q, enum db_type type, const sql_val *values,
                             uint32_t count, bool has_null)
{
    struct sql_set *set = sql__alloc(q, sizeof *set + count * sizeof *values);
    if (!set)
        return NULL;
    set->type = type;
    set->count = count;
    set->has_null = has_null;
    if (count)
        memcpy(set->values, values, count * sizeof *values);
    qsort_r(set->values, count, sizeof *values, cmp_with_type, &type);
    return set;
}

uint32_t sql__set_values(const struct sql_set *set, const sql_val **values)
{
    *values = set->values;
    return set->count;
}

static bool set_has(const struct sql_set *set, const sql_val *v)
{
    uint32_t low = 0, high = set->count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        int c = sql__val_cmp(set->type, v, &set->values[mid]);
        if (c == 0)
            return true;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return false;
}

bool sql__eval_in(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    const struct sql_set *set = e->state;
    const struct db_vector *a = sql__eval(ev, e->args[0], rows);
    if (!a || !sql__out(ev, e, rows.n))
        return false;
    if (!sql__out_and_validity(ev, e, a, NULL, rows.n))
        return true;
    uint8_t *out = e->data;
    uint64_t *validity = e->out.validity;
    if (set->has_null && !validity && !(validity = sql__out_validity(ev, e, rows.n)))
        return false;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        sql_val v;
        if (!sql__vector_get(a, row, &v))
            continue;
        out[row] = set_has(set, &v);
        if (!out[row] && set->has_null)
            db_bit_clear(validity, row);
    }
    return true;
}
