/* sqlfront/bind_call.c: what stands before a pair of parentheses: functions found by name and types
 * of arguments, the few that are more than a function, and aggregates. */
#include <stdio.h>

#include "sqlfront/bind_internal.h"
#include "sqlfront/functions.h"
#include "sqlfront/relation.h"

/* -- Functions and operators from the table ----------------------------------------------------*/

struct resolve {
    struct sql_expr **args;
    uint32_t count;
    const struct sql_function *best;
    unsigned best_cost;
    bool name_known;
};

static enum db_type wanted_type(const struct sql_function *f, uint32_t i)
{
    uint32_t last = f->args_count ? f->args_count - 1u : 0;
    return f->args[i < f->args_count ? i : last];
}

static bool resolve_visit(void *ctx, const struct sql_function *f)
{
    struct resolve *r = ctx;
    r->name_known = true;
    if (r->count < f->args_min || (r->count > f->args_count && !(f->flags & SQL_FN_VARIADIC)))
        return true;
    unsigned cost = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct sql_expr *a = r->args[i];
        enum db_type want = wanted_type(f, i);
        if (a->literal || sql__is_null_const(a))
            cost += want == DB_STRING ? 1 : 2;
        else if (a->type == want)
            cost += 0;
        else if (a->type == DB_INT && want == DB_FLOAT)
            cost += 3;
        else if ((f->flags & SQL_FN_ANY) && want == DB_STRING && sql__cast_fn(a->type, DB_STRING))
            cost += 4;
        else
            return true;
    }
    if (!r->best || cost < r->best_cost) {
        r->best = f;
        r->best_cost = cost;
    }
    return true;
}

static struct sql_expr *call_function(struct sql_query *q, const struct sql_function *f,
                                      uint32_t pos, struct sql_expr **args, uint32_t count)
{
    struct sql_expr **own = SQL_ARRAY(q, struct sql_expr *, count + 1);
    if (!own)
        return NULL;
    for (uint32_t i = 0; i < count; i++)
        if (!(own[i] = sql__cast(q, args[i], wanted_type(f, i), pos)))
            return NULL;
    struct sql_expr *e = sql__node(q, SQL_EXPR_CALL, 0, f->ret, pos, own, count);
    if (!e)
        return NULL;
    e->row_fn = f->row_fn;
    e->vec_fn = f->vec_fn;
    e->strict = !(f->flags & SQL_FN_NULLS);
    e->name = f->name;
    if (f->flags & SQL_FN_VOLATILE) {
        e->volatile_ = true;
        e->reads = SQL_READS_MANY;
    }
    if (f->prepare && !f->prepare(q, e))
        return NULL;
    return sql__fold(q, e);
}

struct sql_expr *sql__bind_call_named(struct sql_binder *b, const char *name, uint32_t pos,
                                      struct sql_expr **args, uint32_t count)
{
    struct resolve r = {.args = args, .count = count};
    sql__functions_named(chr_slice_cstr(name), resolve_visit, &r);
    return r.best ? call_function(b->q, r.best, pos, args, count) : NULL;
}

/* greatest and least skip NULLs: CASE would need each argument twice; a row function does not. */
static bool f_extreme(sql_call *c, const sql_val *a, sql_val *out)
{
    int sign = c->e->op == SQL_OP_GT ? 1 : -1;
    bool any = false;
    for (uint32_t i = 0; i < c->e->args_count; i++) {
        if (c->nulls[i])
            continue;
        if (!any || sign * sql__val_cmp(c->e->type, &a[i], out) > 0)
            *out = a[i];
        any = true;
    }
    c->null = !any;
    return true;
}

static bool f_nullif(sql_call *c, const sql_val *a, sql_val *out)
{
    if (!c->nulls[0] && !c->nulls[1]) {
        enum db_type ta = c->e->args[0]->type, tb = c->e->args[1]->type;
        int cmp = ta == tb ? sql__val_cmp(ta, &a[0], &a[1])
                           : sql__f64_cmp(ta == DB_INT ? (double)a[0].i : a[0].f,
                                          tb == DB_INT ? (double)a[1].i : a[1].f);
        c->null = cmp == 0;
    } else {
        c->null = c->nulls[0];
    }
    *out = a[0];
    return true;
}

static struct sql_expr *bind_special(struct sql_binder *b, const struct sql_ast *ast,
                                     struct sql_expr **args, uint32_t n, bool *special)
{
    struct sql_query *q = b->q;
    bool coalesce =
        chr_slice_eq(ast->text, CHR_LIT("coalesce")) || chr_slice_eq(ast->text, CHR_LIT("ifnull"));
    bool greatest = chr_slice_eq(ast->text, CHR_LIT("greatest"));
    bool least = chr_slice_eq(ast->text, CHR_LIT("least"));
    bool nullif = chr_slice_eq(ast->text, CHR_LIT("nullif"));
    bool version = chr_slice_eq(ast->text, CHR_LIT("version")) && n == 0;
    *special = coalesce || greatest || least || nullif || version;
    if (!*special)
        return NULL;
    if (version) {
        sql_val v = {.s = CHR_LIT("Chronos " CHRONOS_VERSION)};
        return sql__const(q, DB_STRING, &v, ast->pos);
    }
    if (n == 0 || (nullif && n != 2)) {
        sql__fail(q, "42883", ast->pos, "%.*s takes %s", CHR_SLICE_ARGS(ast->text),
                  nullif ? "two arguments" : "at least one argument");
        return NULL;
    }
    enum db_type type;
    if (nullif) {
        /* The result is the first argument as it is, whatever type the comparison needs. */
        struct sql_expr *pair[2] = {args[0], args[1]};
        if (!sql__unify(q, pair, 2, 0, 1, &type))
            return q->failed ? NULL : sql__no_operator(q, SQL_OP_EQ, ast->pos, args[0], args[1]);
        struct sql_expr **two = sql__args2(q, args[0]->literal ? pair[0] : args[0], pair[1]);
        struct sql_expr *e =
            two ? sql__node(q, SQL_EXPR_CALL, 0, two[0]->type, ast->pos, two, 2) : NULL;
        if (!e)
            return NULL;
        e->row_fn = f_nullif;
        e->name = "nullif";
        return sql__fold(q, e);
    }
    struct sql_expr **own = SQL_ARRAY(q, struct sql_expr *, n);
    if (!own)
        return NULL;
    memcpy(own, args, n * sizeof *own);
    if (!sql__unify(q, own, n, 0, 1, &type)) {
        if (!q->failed)
            sql__fail(q, "42804", ast->pos, "arguments of %.*s have different types",
                      CHR_SLICE_ARGS(ast->text));
        return NULL;
    }
    struct sql_expr *e = sql__node(q, coalesce ? SQL_EXPR_COALESCE : SQL_EXPR_CALL,
                                   greatest ? SQL_OP_GT : SQL_OP_LT, type, ast->pos, own, n);
    if (!e)
        return NULL;
    if (!coalesce) {
        e->row_fn = f_extreme;
        e->name = greatest ? "greatest" : "least";
    }
    return sql__fold(q, e);
}

/* -- Aggregates --------------------------------------------------------------------------------*/

static const struct {
    const char *name;
    enum sql_agg_fn fn;
} agg_names[] = {
    {"count", SQL_AGG_COUNT},
    {"sum", SQL_AGG_SUM},
    {"avg", SQL_AGG_AVG},
    {"min", SQL_AGG_MIN},
    {"max", SQL_AGG_MAX},
    {"first", SQL_AGG_FIRST},
    {"last", SQL_AGG_LAST},
    {"stddev", SQL_AGG_STDDEV_SAMP},
    {"stddev_samp", SQL_AGG_STDDEV_SAMP},
    {"stddev_pop", SQL_AGG_STDDEV_POP},
    {"variance", SQL_AGG_VAR_SAMP},
    {"var_samp", SQL_AGG_VAR_SAMP},
    {"var_pop", SQL_AGG_VAR_POP},
    {"bool_and", SQL_AGG_BOOL_AND},
    {"every", SQL_AGG_BOOL_AND},
    {"bool_or", SQL_AGG_BOOL_OR},
};

static int agg_of(chr_slice name)
{
    for (size_t i = 0; i < CHR_COUNT_OF(agg_names); i++)
        if (chr_slice_eq(name, chr_slice_cstr(agg_names[i].name)))
            return (int)i;
    return -1;
}

static struct sql_expr *no_function(struct sql_query *q, const struct sql_ast *ast,
                                    struct sql_expr **args, uint32_t n, bool known)
{
    char types[200];
    size_t len = 0;
    types[0] = '\0';
    for (uint32_t i = 0; i < n && len < sizeof types - 24; i++)
        len +=
            (size_t)snprintf(types + len, sizeof types - len, "%s%s", i ? ", " : "",
                             sql__type_name(args[i]->literal ? SQL_TYPE_UNKNOWN : args[i]->type));
    sql__fail(q, "42883", ast->pos, "function %.*s(%s) does not exist", CHR_SLICE_ARGS(ast->text),
              types);
    const char *near = known ? NULL : sql__function_nearest(ast->text);
    if (known)
        sql__hint(q, "No function matches the given name and argument types. You might need to add "
                     "explicit type casts.");
    else if (near)
        sql__hint(q, "Did you mean \"%s\"?", near);
    return NULL;
}

static struct sql_expr *bind_agg(struct sql_binder *b, const struct sql_ast *ast, int index)
{
    struct sql_query *q = b->q;
    enum sql_agg_fn fn = agg_names[index].fn;
    const char *name = agg_names[index].name;
    if (b->inside_aggregate) {
        sql__fail(q, "42803", ast->pos, "aggregate function calls cannot be nested");
        return NULL;
    }
    if (b->clause) {
        sql__fail(q, "42803", ast->pos, "aggregate functions are not allowed in %s", b->clause);
        return NULL;
    }
    struct sql_agg agg = {.fn = fn, .distinct = ast->flag, .pos = ast->pos, .name = name};
    struct sql_expr *args[2] = {NULL, NULL};
    uint32_t max = fn == SQL_AGG_FIRST || fn == SQL_AGG_LAST ? 2 : 1, n = 0;
    b->inside_aggregate = true;
    for (const struct sql_ast *a = ast->args; a; a = a->next) {
        if (n == max) {
            sql__fail(q, "42883", ast->pos, "%s takes %u argument%s", name, max,
                      max == 1 ? "" : "s");
            return NULL;
        }
        struct sql_expr *e = sql__bind(b, a);
        if (!e)
            return NULL;
        args[n++] = e;
    }
    if (ast->filter && !(agg.filter = sql__bind_condition(b, ast->filter, "argument of FILTER")))
        return NULL;
    b->inside_aggregate = false;
    if (ast->star && fn != SQL_AGG_COUNT) {
        sql__fail(q, "42883", ast->pos, "%s(*) does not exist: only count takes *", name);
        return NULL;
    }
    if (n == 0 && !ast->star) {
        sql__fail(q, "42883", ast->pos, "function %s() does not exist", name);
        if (fn == SQL_AGG_COUNT)
            sql__hint(q, "count(*) counts rows.");
        return NULL;
    }
    struct sql_expr *arg = args[0];
    if (arg && arg->literal && !(arg = sql__coerce(q, arg, DB_STRING)))
        return NULL;
    agg.arg = arg;
    bool fits = true;
    switch (fn) {
    case SQL_AGG_COUNT_STAR:
    case SQL_AGG_COUNT:
        agg.type = DB_INT;
        if (!arg)
            agg.fn = SQL_AGG_COUNT_STAR;
        break;
    case SQL_AGG_SUM:
        if (sql__is_null_const(arg) && !(agg.arg = arg = sql__const(q, DB_INT, NULL, arg->pos)))
            return NULL;
        fits = sql__type_is_numeric(arg->type);
        agg.type = arg->type;
        break;
    case SQL_AGG_AVG:
    case SQL_AGG_STDDEV_SAMP:
    case SQL_AGG_STDDEV_POP:
    case SQL_AGG_VAR_SAMP:
    case SQL_AGG_VAR_POP:
        if (sql__is_null_const(arg) && !(agg.arg = arg = sql__const(q, DB_FLOAT, NULL, arg->pos)))
            return NULL;
        fits = sql__type_is_numeric(arg->type);
        agg.type = DB_FLOAT;
        if (fits && fn != SQL_AGG_AVG && !(agg.arg = sql__coerce(q, arg, DB_FLOAT)))
            return NULL;
        break;
    case SQL_AGG_MIN:
    case SQL_AGG_MAX:
        fits = arg->type != SQL_TYPE_INTERVAL && arg->type != DB_BOOLEAN;
        agg.type = arg->type;
        break;
    case SQL_AGG_BOOL_AND:
    case SQL_AGG_BOOL_OR:
        fits = arg->type == DB_BOOLEAN;
        agg.type = DB_BOOLEAN;
        break;
    case SQL_AGG_FIRST:
    case SQL_AGG_LAST: {
        fits = arg->type != SQL_TYPE_INTERVAL;
        agg.type = arg->type;
        struct sql_expr *time = args[1];
        if (!time && b->table && sql__is_relation(b->table)) {
            sql__fail(q, "42883", ast->pos, "%s(x) of \"%s\" has no time to go by", name,
                      b->table->name);
            sql__hint(q, "Say which: %s(x, column).", name);
            return NULL;
        }
        if (!time && b->table) {
            uint32_t column = b->table->time_column >= 0 ? (uint32_t)b->table->time_column
                                                         : b->table->columns_count;
            time = sql__bind_column(b, column, ast->pos);
        } else if (!time) {
            sql_val zero = {.i = 0};
            time = sql__const(q, DB_TIMESTAMP, &zero, ast->pos);
        }
        if (!time)
            return NULL;
        struct sql_expr *as_time =
            sql__coerce(q, time, time->type == DB_INT ? DB_INT : DB_TIMESTAMP);
        if (!as_time) {
            if (!q->failed)
                sql__fail(q, "42804", time->pos, "%s orders by a TIMESTAMP or INT, not by %s", name,
                          sql__type_name(time->type));
            return NULL;
        }
        agg.time = as_time;
        break;
    }
    }
    if (!fits)
        return no_function(q, ast, args, n, true);
    if (agg.distinct && (agg.fn == SQL_AGG_MIN || agg.fn == SQL_AGG_MAX))
        agg.distinct = false; /* makes no difference */
    uint32_t i = 0;
    for (; i < b->aggs_count; i++) { /* sum(x) said twice is computed once */
        const struct sql_agg *o = &b->aggs[i];
        if (o->fn == agg.fn && o->distinct == agg.distinct && !o->arg == !agg.arg &&
            !o->filter == !agg.filter && (!agg.arg || sql__expr_equal(o->arg, agg.arg)) &&
            (!agg.filter || sql__expr_equal(o->filter, agg.filter)) &&
            (!agg.time || sql__expr_equal(o->time, agg.time)))
            break;
    }
    if (i == b->aggs_count) {
        if (i == SQL_AGGS_MAX) {
            sql__fail(q, "54011", ast->pos, "more than %d different aggregates", SQL_AGGS_MAX);
            return NULL;
        }
        if (b->aggs_count == b->aggs_capacity) {
            uint32_t capacity = b->aggs_capacity ? 2 * b->aggs_capacity : 8;
            struct sql_agg *aggs = SQL_ARRAY(q, struct sql_agg, capacity);
            if (!aggs)
                return NULL;
            if (b->aggs_count)
                memcpy(aggs, b->aggs, b->aggs_count * sizeof *aggs);
            b->aggs = aggs;
            b->aggs_capacity = capacity;
        }
        b->aggs[b->aggs_count++] = agg;
    }
    struct sql_expr *e = sql__node(q, SQL_EXPR_AGG, 0, agg.type, ast->pos, NULL, 0);
    if (e) {
        e->slot = i;
        e->reads = SQL_READS_MANY; /* never folded away */
    }
    return e;
}

struct sql_expr *sql__bind_call(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    int agg = agg_of(ast->text);
    if (agg >= 0)
        return bind_agg(b, ast, agg);
    if (ast->star || ast->flag || ast->filter) {
        sql__fail(q, "42809", ast->pos, "%s is only for aggregates, and %.*s is none",
                  ast->star   ? "*"
                  : ast->flag ? "DISTINCT"
                              : "FILTER",
                  CHR_SLICE_ARGS(ast->text));
        return NULL;
    }
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, ast->args_count + 1);
    if (!args)
        return NULL;
    uint32_t n = 0;
    for (const struct sql_ast *a = ast->args; a; a = a->next)
        if (!(args[n++] = sql__bind(b, a)))
            return NULL;
    if (n > 64) {
        sql__fail(q, "54023", ast->pos, "a function takes at most 64 arguments");
        return NULL;
    }
    bool special;
    struct sql_expr *e = bind_special(b, ast, args, n, &special);
    if (special)
        return e;
    struct resolve r = {.args = args, .count = n};
    if (ast->text.len)
        sql__functions_named(ast->text, resolve_visit, &r);
    if (!r.best)
        return no_function(q, ast, args, n, r.name_known);
    return call_function(q, r.best, ast->pos, args, n);
}
