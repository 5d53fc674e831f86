/* sqlfront/exec/agg.c: COUNT, SUM, AVG, MIN, MAX, FIRST, LAST, variances, over groups.
 *
 * Rows of one group (no GROUP BY, or a run of a series) go through the reducing kernels; mixed ones
 * through loops that pick their group. NULL arguments are dropped first, once for all of them.
 * SUM and AVG of INT are exact: 128 bits, and only the final value has to fit (22003). */
#include "sqlfront/exec/agg.h"

#include <math.h>

#include "sqlfront/exec/group.h"
#include "sqlfront/exec/kernels.h"

struct text { /* an owned copy, reused while it fits */
    uint8_t *ptr;
    uint32_t len, capacity;
};

struct sql_agg_state {
    struct sql_query *q;
    struct sql_agg def;
    enum db_type arg_type;
    uint32_t groups, capacity;
    int64_t *count; /* values taken in */
    __int128 *isum;
    double *fsum; /* SUM, AVG; mean of the variances */
    double *m2;
    int64_t *ival; /* MIN, MAX, FIRST, LAST by type */
    double *fval;
    uint8_t *bval;
    struct text *tval;
    int64_t *time;
    struct db_row_id *ids;
    bool tie;                /* FIRST, LAST: two rows of one time, and row ids were not known */
    struct sql_groups *seen; /* DISTINCT: (group, value) */
    uint32_t *seen_gids;
    uint16_t *sel, *sel2;
};

static bool is_variance(enum sql_agg_fn fn)
{
    return fn >= SQL_AGG_STDDEV_SAMP && fn <= SQL_AGG_VAR_POP;
}
static bool is_timed(enum sql_agg_fn fn)
{
    return fn == SQL_AGG_FIRST || fn == SQL_AGG_LAST;
}
static bool keeps_value(enum sql_agg_fn fn)
{
    return (fn >= SQL_AGG_MIN && fn <= SQL_AGG_LAST) || fn >= SQL_AGG_BOOL_AND;
}

struct sql_agg_state *sql__agg_new(struct sql_query *q, const struct sql_agg *def)
{
    struct sql_agg_state *a = SQL_NEW(q, struct sql_agg_state);
    if (!a)
        return NULL;
    a->q = q;
    a->def = *def;
    a->arg_type = def->arg ? def->arg->type : DB_INT;
    a->sel = SQL_ARRAY(q, uint16_t, DB_VECTOR_ROWS);
    a->sel2 = SQL_ARRAY(q, uint16_t, DB_VECTOR_ROWS);
    if (!a->sel || !a->sel2)
        return NULL;
    if (def->distinct) {
        enum db_type types[2] = {DB_INT, a->arg_type};
        a->seen = sql__groups_new(q, types, 2, def->pos);
        a->seen_gids = SQL_ARRAY(q, uint32_t, DB_VECTOR_ROWS);
        if (!a->seen || !a->seen_gids)
            return NULL;
    }
    return a;
}

#define RESERVE(field)                                                                             \
    do {                                                                                           \
        void *p = sql__grow(a->q, a->field, (size_t)capacity * sizeof *a->field);                  \
        if (!p)                                                                                    \
            return false;                                                                          \
        a->field = p;                                                                              \
        memset(a->field + a->capacity, 0, (size_t)(capacity - a->capacity) * sizeof *a->field);    \
    } while (0)

bool sql__agg_reserve(struct sql_agg_state *a, uint32_t groups)
{
    if (groups <= a->capacity)
        return true;
    uint32_t capacity = a->capacity ? a->capacity : 16;
    while (capacity < groups)
        capacity *= 2;
    enum sql_agg_fn fn = a->def.fn;
    bool sums = fn == SQL_AGG_SUM || fn == SQL_AGG_AVG;
    if (sums && a->arg_type == DB_INT)
        RESERVE(isum);
    if ((sums && a->arg_type == DB_FLOAT) || is_variance(fn))
        RESERVE(fsum);
    if (is_variance(fn))
        RESERVE(m2);
    if (keeps_value(fn)) {
        if (sql__type_is_i64(a->arg_type))
            RESERVE(ival);
        else if (a->arg_type == DB_FLOAT)
            RESERVE(fval);
        else if (a->arg_type == DB_BOOLEAN)
            RESERVE(bval);
        else
            RESERVE(tval);
    }
    if (is_timed(fn)) {
        RESERVE(time);
        RESERVE(ids);
    }
    RESERVE(count);
    a->capacity = capacity;
    return true;
}

static bool keep_text(struct sql_agg_state *a, struct text *t, chr_slice s)
{
    if (s.len > t->capacity || !t->ptr) {
        size_t capacity = s.len < 16 ? 16 : 2 * s.len;
        if (capacity > UINT32_MAX)
            return sql__fail_memory(a->q);
        void *p =
            sql__alloc(a->q, capacity); /* doubling: all copies together at most twice the last */
        if (!p)
            return false;
        t->ptr = p;
        t->capacity = (uint32_t)capacity;
    }
    if (s.len)
        memcpy(t->ptr, s.ptr, s.len);
    t->len = (uint32_t)s.len;
    return true;
}

/* -- Rows of one group -------------------------------------------------------------------------*/

static bool update_one(struct sql_agg_state *a, const struct db_vector *v, struct sql_rows rows,
                       uint32_t g, bool *handled)
{
    *handled = true;
    enum sql_agg_fn fn = a->def.fn;
    if (fn <= SQL_AGG_COUNT) {
        a->count[g] += rows.count;
        return true;
    }
    if (v->form != DB_VECTOR_FLAT) {
        *handled = false;
        return true;
    }
    if (fn == SQL_AGG_SUM || fn == SQL_AGG_AVG) {
        if (a->arg_type == DB_FLOAT) {
            a->fsum[g] += sql__k_sum_f64(v->f64, rows.sel, rows.count);
        } else {
            int64_t high;
            uint64_t low;
            sql__k_sum_i64(v->i64, rows.sel, rows.count, &high, &low);
            a->isum[g] += (__int128)high * ((__int128)1 << 32) + (__int128)low;
        }
        a->count[g] += rows.count;
        return true;
    }
    if ((fn == SQL_AGG_MIN || fn == SQL_AGG_MAX) && sql__type_is_i64(a->arg_type)) {
        int64_t min, max;
        sql__k_min_max_i64(v->i64, rows.sel, rows.count, &min, &max);
        int64_t x = fn == SQL_AGG_MIN ? min : max;
        if (!a->count[g] || (fn == SQL_AGG_MIN ? x < a->ival[g] : x > a->ival[g]))
            a->ival[g] = x;
        a->count[g] += rows.count;
        return true;
    }
    if ((fn == SQL_AGG_MIN || fn == SQL_AGG_MAX) && a->arg_type == DB_FLOAT) {
        double min, max;
        if (sql__k_min_max_f64(v->f64, rows.sel, rows.count, &min, &max)) {
            double x = fn == SQL_AGG_MIN ? min : max;
            int c = sql__f64_cmp(x, a->fval[g]);
            if (!a->count[g] || (fn == SQL_AGG_MIN ? c < 0 : c > 0))
                a->fval[g] = x;
            a->count[g] += rows.count;
            return true;
        }
    }
    *handled = false;
    return true;
}

/* -- Rows of many groups -----------------------------------------------------------------------*/

#define EACH_ROW                                                                                   \
    for (uint32_t j = 0, row, g, at;                                                               \
         j < rows.count &&                                                                         \
         (row = sql__row(rows, j), g = gids ? gids[row] : one, at = db_vector_at(v, row), true);   \
         j++)

static void update_sum(struct sql_agg_state *a, const struct db_vector *v, struct sql_rows rows,
                       const uint32_t *gids, uint32_t one)
{
    if (gids && v->form == DB_VECTOR_FLAT) {
        if (a->arg_type == DB_FLOAT)
            sql__k_group_sum_f64(v->f64, gids, rows.sel, rows.count, a->fsum, a->count);
        else
            sql__k_group_sum_i64(v->i64, gids, rows.sel, rows.count, a->isum, a->count);
        return;
    }
    if (a->arg_type == DB_FLOAT) {
        EACH_ROW
        {
            a->fsum[g] += v->f64[at];
            a->count[g]++;
        }
        return;
    }
    EACH_ROW
    {
        a->isum[g] += v->i64[at];
        a->count[g]++;
    }
}

/* Welford: mean and sum of squared distances, without the cancellation of sum(x²) − sum(x)². */
static void update_variance(struct sql_agg_state *a, const struct db_vector *v,
                            struct sql_rows rows, const uint32_t *gids, uint32_t one)
{
    EACH_ROW
    {
        double x = v->f64[at], delta = x - a->fsum[g];
        a->count[g]++;
        a->fsum[g] += delta / (double)a->count[g];
        a->m2[g] += delta * (x - a->fsum[g]);
    }
}

static bool take_value(struct sql_agg_state *a, const struct db_vector *v, uint32_t at, uint32_t g)
{
    if (a->ival)
        a->ival[g] = v->i64[at];
    else if (a->fval)
        a->fval[g] = v->f64[at];
    else if (a->bval)
        a->bval[g] = v->b8[at];
    else
        return keep_text(a, &a->tval[g], v->str[at]);
    return true;
}

static bool update_min_max(struct sql_agg_state *a, const struct db_vector *v, struct sql_rows rows,
                           const uint32_t *gids, uint32_t one)
{
    int want = a->def.fn == SQL_AGG_MIN ? -1 : 1;
    if (gids && v->form == DB_VECTOR_FLAT && (a->ival || a->fval)) {
        if (a->ival)
            sql__k_group_extreme_i64(v->i64, gids, rows.sel, rows.count, want, a->ival, a->count);
        else
            sql__k_group_extreme_f64(v->f64, gids, rows.sel, rows.count, want, a->fval, a->count);
        return true;
    }
    EACH_ROW
    {
        int c = want;
        if (a->count[g]) {
            if (a->ival)
                c = (v->i64[at] > a->ival[g]) - (v->i64[at] < a->ival[g]);
            else if (a->fval)
                c = sql__f64_cmp(v->f64[at], a->fval[g]);
            else
                c = chr_slice_cmp(v->str[at], chr_slice_of(a->tval[g].ptr, a->tval[g].len));
        }
        a->count[g]++;
        if (c * want > 0 && !take_value(a, v, at, g))
            return false;
    }
    return true;
}

static void update_bool(struct sql_agg_state *a, const struct db_vector *v, struct sql_rows rows,
                        const uint32_t *gids, uint32_t one)
{
    bool all = a->def.fn == SQL_AGG_BOOL_AND;
    EACH_ROW
    {
        uint8_t x = v->b8[at];
        a->bval[g] = !a->count[g] ? x : all ? a->bval[g] & x : a->bval[g] | x;
        a->count[g]++;
    }
}

static bool id_less(struct db_row_id x, struct db_row_id y)
{
    return x.entry != y.entry ? x.entry < y.entry : x.ordinal < y.ordinal;
}

/* By (time, row id), so that the answer does not depend on where the rows are stored. */
static bool update_timed(struct sql_agg_state *a, struct sql_eval *ev, const struct db_vector *v,
                         struct sql_rows rows, const uint32_t *gids, uint32_t one,
                         const struct db_row_id *ids)
{
    const struct db_vector *times = sql__eval(ev, a->def.time, rows);
    if (!times)
        return false;
    bool first = a->def.fn == SQL_AGG_FIRST;
    EACH_ROW
    {
        if (!db_vector_valid(times, row)) /* no time, no place in the order */
            continue;
        int64_t t = times->i64[db_vector_at(times, row)];
        bool take = !a->count[g] || (first ? t < a->time[g] : t > a->time[g]);
        if (!take && t == a->time[g]) {
            if (ids)
                take = first ? id_less(ids[row], a->ids[g]) : id_less(a->ids[g], ids[row]);
            else
                a->tie = true;
        }
        if (!take)
            continue;
        a->count[g] = 1;
        a->time[g] = t;
        if (ids)
            a->ids[g] = ids[row];
        if (!take_value(a, v, at, g))
            return false;
    }
    return true;
}

/* A run of one group: only its first or last row by time can be the answer, and finding that
 * touches no state. Without row ids, and times without NULLs. */
static bool update_timed_run(struct sql_agg_state *a, const struct db_vector *v,
                             const struct db_vector *times, struct sql_rows rows, uint32_t from,
                             uint32_t to, uint32_t g)
{
    bool first = a->def.fn == SQL_AGG_FIRST, tie;
    const int64_t *t = times->i64;
    uint32_t best = rows.sel ? sql__k_extreme_row(t, rows.sel + from, to - from, first, &tie)
                             : from + sql__k_extreme_row(t + from, NULL, to - from, first, &tie);
    a->tie |= tie || (a->count[g] && t[best] == a->time[g]);
    if (a->count[g] && (first ? t[best] >= a->time[g] : t[best] <= a->time[g]))
        return true;
    a->count[g] = 1;
    a->time[g] = t[best];
    return take_value(a, v, db_vector_at(v, best), g);
}

/* Keeps the rows whose (group, value) was not there before. */
static bool only_new(struct sql_agg_state *a, const struct db_vector *v, struct sql_rows *rows,
                     const uint32_t *gids, uint32_t one)
{
    int64_t *wide = sql__scratch(a->q, DB_VECTOR_ROWS * sizeof *wide);
    if (!wide)
        return false;
    for (uint32_t j = 0; j < rows->count; j++) {
        uint32_t row = sql__row(*rows, j);
        wide[row] = gids ? gids[row] : one;
    }
    struct db_vector group = {
        .type = DB_INT, .form = DB_VECTOR_FLAT, .count = rows->n, .i64 = wide};
    const struct db_vector *keys[2] = {&group, v};
    uint32_t known = sql__groups_count(a->seen);
    if (!sql__groups_find(a->seen, keys, *rows, a->seen_gids))
        return false;
    uint32_t k = 0;
    for (uint32_t j = 0; j < rows->count; j++) {
        uint32_t row = sql__row(*rows, j);
        if (a->seen_gids[row] >= known) {
            known = a->seen_gids[row] + 1;
            a->sel2[k++] = (uint16_t)row;
        }
    }
    *rows = (struct sql_rows){a->sel2, k, rows->n};
    return true;
}

/* Run by run, each as if it were a query without GROUP BY. *handled false: not for this aggregate.
 */
static bool update_runs(struct sql_agg_state *a, struct sql_eval *ev, const struct db_vector *v,
                        struct sql_rows rows, const struct sql_row_groups *groups,
                        const struct db_row_id *ids, bool *handled)
{
    enum sql_agg_fn fn = a->def.fn;
    bool timed = is_timed(fn);
    const struct db_vector *times = NULL;
    *handled = false;
    if (timed) {
        times = ids ? NULL : sql__eval_flat(ev, a->def.time, rows);
        if (!times || times->validity || times->form != DB_VECTOR_FLAT)
            return !a->q->failed;
    } else if (fn > SQL_AGG_COUNT && v->form != DB_VECTOR_FLAT) {
        return true;
    } else if (fn > SQL_AGG_MAX || (fn >= SQL_AGG_MIN && !a->ival && !a->fval)) {
        return true;
    }
    size_t width = sql__type_bytes(a->arg_type);
    uint32_t from = 0;
    for (uint32_t r = 0; r < groups->runs_count; r++) {
        uint32_t to = groups->run_ends[r], g = groups->gids[sql__row(rows, from)];
        if (timed) {
            if (!update_timed_run(a, v, times, rows, from, to, g))
                return false;
        } else {
            struct db_vector part = *v;
            struct sql_rows some = {rows.sel ? rows.sel + from : NULL, to - from, rows.n};
            if (!rows.sel && fn > SQL_AGG_COUNT)
                part.data = (uint8_t *)v->data + from * width;
            bool one_by_one;
            if (!update_one(a, &part, some, g, &one_by_one))
                return false;
            if (!one_by_one && !update_min_max(a, &part, some, NULL, g)) /* a NaN among them */
                return false;
        }
        from = to;
    }
    *handled = true;
    return true;
}

bool sql__agg_update(struct sql_agg_state *a, struct sql_eval *ev, struct sql_rows rows,
                     const struct sql_row_groups *groups, const struct db_row_id *ids)
{
    const uint32_t *gids = groups->gids;
    uint32_t one = groups->one;
    bool all = !a->def.filter && !a->def.distinct; /* runs are of all rows */
    static const struct db_vector nothing = {.type = DB_INT, .form = DB_VECTOR_CONSTANT};
    if (a->def.filter) {
        uint32_t count;
        if (!sql__filter(ev, a->def.filter, rows, a->sel, &count))
            return false;
        rows = (struct sql_rows){a->sel, count, rows.n};
    }
    if (rows.count == 0)
        return true;
    const struct db_vector *v = &nothing;
    if (a->def.arg) {
        bool flat = !db_type_is_bytes(a->arg_type) && !a->def.distinct && a->def.fn > SQL_AGG_COUNT;
        v = flat ? sql__eval_flat(ev, a->def.arg, rows) : sql__eval(ev, a->def.arg, rows);
        if (!v)
            return false;
        if (v->validity) {
            uint32_t k = 0;
            for (uint32_t j = 0; j < rows.count; j++) {
                uint32_t row = sql__row(rows, j);
                a->sel[k] = (uint16_t)row;
                k += db_vector_valid(v, row);
            }
            all &= k == rows.count;
            if (k < rows.count)
                rows = (struct sql_rows){a->sel, k, rows.n};
            if (k == 0)
                return true;
        }
    }
    if (a->def.distinct && !only_new(a, v, &rows, gids, one))
        return false;
    if (!gids) {
        bool handled;
        if (!update_one(a, v, rows, one, &handled) || handled)
            return !a->q->failed;
    } else if (groups->runs_count && all) {
        bool handled;
        if (!update_runs(a, ev, v, rows, groups, ids, &handled) || handled)
            return !a->q->failed;
    }
    switch (a->def.fn) {
    case SQL_AGG_COUNT_STAR:
    case SQL_AGG_COUNT:
        sql__k_group_count(gids, rows.sel, rows.count, a->count); /* one group: above */
        return true;
    case SQL_AGG_SUM:
    case SQL_AGG_AVG:
        update_sum(a, v, rows, gids, one);
        return true;
    case SQL_AGG_MIN:
    case SQL_AGG_MAX:
        return update_min_max(a, v, rows, gids, one);
    case SQL_AGG_FIRST:
    case SQL_AGG_LAST:
        return update_timed(a, ev, v, rows, gids, one, ids);
    case SQL_AGG_BOOL_AND:
    case SQL_AGG_BOOL_OR:
        update_bool(a, v, rows, gids, one);
        return true;
    default:
        update_variance(a, v, rows, gids, one);
        return true;
    }
}

bool sql__agg_tie(const struct sql_agg_state *a)
{
    return a->tie;
}

/* -- Statistics --------------------------------------------------------------------------------*/

bool sql__agg_can_use_stats(const struct sql_agg_state *a, int32_t time_slot)
{
    const struct sql_agg *d = &a->def;
    if (d->distinct || d->filter || is_variance(d->fn) || d->fn >= SQL_AGG_BOOL_AND)
        return false;
    if (d->fn == SQL_AGG_COUNT_STAR)
        return true;
    if (!d->arg || d->arg->kind != SQL_EXPR_SLOT)
        return false;
    return !is_timed(d->fn) ||
           (d->time->kind == SQL_EXPR_SLOT && (int32_t)d->time->slot == time_slot);
}

void sql__agg_use_stats(struct sql_agg_state *a, uint32_t g, uint32_t rows,
                        const struct db_column_stats *s)
{
    if (a->def.fn == SQL_AGG_COUNT_STAR) {
        a->count[g] += rows;
        return;
    }
    if (s->count == 0)
        return;
    const struct db_value *value = NULL;
    switch (a->def.fn) {
    case SQL_AGG_SUM:
    case SQL_AGG_AVG:
        if (a->arg_type == DB_FLOAT)
            a->fsum[g] += s->sum_f64;
        else
            a->isum[g] += s->sum_i128;
        break;
    case SQL_AGG_MIN:
    case SQL_AGG_MAX: {
        bool min = a->def.fn == SQL_AGG_MIN;
        const struct db_value *x = min ? &s->min : &s->max;
        int c = min ? -1 : 1;
        if (a->count[g])
            c = a->ival   ? (x->i64 > a->ival[g]) - (x->i64 < a->ival[g])
                : a->fval ? sql__f64_cmp(x->f64, a->fval[g])
                          : chr_slice_cmp(x->bytes, chr_slice_of(a->tval[g].ptr, a->tval[g].len));
        if (min ? c < 0 : c > 0)
            value = x;
        break;
    }
    case SQL_AGG_FIRST:
        a->tie |= a->count[g] && s->first_time_us == a->time[g];
        if (!a->count[g] || s->first_time_us < a->time[g]) {
            value = &s->first;
            a->time[g] = s->first_time_us;
        }
        break;
    case SQL_AGG_LAST:
        a->tie |= a->count[g] && s->last_time_us == a->time[g];
        if (!a->count[g] || s->last_time_us > a->time[g]) {
            value = &s->last;
            a->time[g] = s->last_time_us;
        }
        break;
    default:
        break;
    }
    a->count[g] += (int64_t)s->count;
    if (!value)
        return;
    if (a->ival)
        a->ival[g] = value->i64;
    else if (a->fval)
        a->fval[g] = value->f64;
    else if (a->bval)
        a->bval[g] = value->boolean;
    else
        (void)keep_text(a, &a->tval[g], value->bytes);
}

/* -- Results -----------------------------------------------------------------------------------*/

static double variance(const struct sql_agg_state *a, uint32_t g, bool *null)
{
    enum sql_agg_fn fn = a->def.fn;
    bool sample = fn == SQL_AGG_STDDEV_SAMP || fn == SQL_AGG_VAR_SAMP;
    double n = (double)a->count[g] - sample;
    *null = n <= 0;
    if (*null)
        return 0;
    double var = a->m2[g] / n;
    if (a->count[g] == 1)
        var = 0;
    return fn == SQL_AGG_STDDEV_SAMP || fn == SQL_AGG_STDDEV_POP ? sqrt(var) : var;
}

bool sql__agg_result(struct sql_agg_state *a, uint32_t from, uint32_t n, void *data,
                     uint64_t *validity)
{
    enum sql_agg_fn fn = a->def.fn;
    memset(validity, 0xff, DB_BIT_WORDS(n) * sizeof *validity);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t g = from + i;
        if (fn <= SQL_AGG_COUNT) {
            ((int64_t *)data)[i] = a->count[g];
            continue;
        }
        bool null = a->count[g] == 0;
        if (fn == SQL_AGG_AVG) {
            ((double *)data)[i] = null                    ? 0
                                  : a->arg_type == DB_INT ? (double)a->isum[g] / (double)a->count[g]
                                                          : a->fsum[g] / (double)a->count[g];
        } else if (is_variance(fn)) {
            ((double *)data)[i] = variance(a, g, &null);
        } else if (fn == SQL_AGG_SUM && a->arg_type == DB_INT) {
            int64_t sum = (int64_t)a->isum[g];
            if (sum != a->isum[g])
                return sql__fail(a->q, "22003", a->def.pos, "sum is out of range for INT");
            ((int64_t *)data)[i] = sum;
        } else if (fn == SQL_AGG_SUM) {
            ((double *)data)[i] = a->fsum[g];
        } else if (a->ival) {
            ((int64_t *)data)[i] = a->ival[g];
        } else if (a->fval) {
            ((double *)data)[i] = a->fval[g];
        } else if (a->bval) {
            ((uint8_t *)data)[i] = a->bval[g];
        } else {
            ((chr_slice *)data)[i] = chr_slice_of(a->tval[g].ptr, a->tval[g].len);
        }
        if (null)
            db_bit_clear(validity, i);
    }
    return true;
}
