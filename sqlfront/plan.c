/* sqlfront/plan.c: binds a SELECT and decides how to answer it. */
#include "sqlfront/plan.h"

#include <math.h>

#include "sqlfront/exec/group.h"
#include "sqlfront/functions.h"

/* -- Bounds for pruning ------------------------------------------------------------------------*/

static struct db_value to_db_value(enum db_type type, const sql_val *v)
{
    struct db_value r = {.type = type};
    switch (type) {
    case DB_FLOAT:
        r.f64 = v->f;
        break;
    case DB_BOOLEAN:
        r.boolean = v->b;
        break;
    case DB_STRING:
    case DB_BLOB:
        r.bytes = v->s;
        break;
    default:
        r.i64 = v->i;
    }
    return r;
}

static int db_value_cmp(const struct db_value *a, const struct db_value *b)
{
    sql_val x = {0}, y = {0};
    switch (a->type) {
    case DB_FLOAT:
        return sql__f64_cmp(a->f64, b->f64);
    case DB_BOOLEAN:
        return (int)a->boolean - (int)b->boolean;
    case DB_STRING:
    case DB_BLOB:
        return chr_slice_cmp(a->bytes, b->bytes);
    default:
        x.i = a->i64;
        y.i = b->i64;
        return sql__val_cmp(DB_INT, &x, &y);
    }
}

static struct db_bound *bound_of(struct sql_plan *p, uint16_t column)
{
    for (uint32_t i = 0; i < p->bounds_count; i++)
        if (p->bounds[i].column == column)
            return &p->bounds[i];
    struct db_bound *b = &p->bounds[p->bounds_count++];
    *b = (struct db_bound){.column = column};
    return b;
}

static void add_low(struct sql_plan *p, uint16_t column, struct db_value v, bool inclusive)
{
    struct db_bound *b = bound_of(p, column);
    int c = b->has_low ? db_value_cmp(&v, &b->low) : 1;
    if (c > 0 || (c == 0 && !inclusive)) {
        b->has_low = true;
        b->low = v;
        b->low_inclusive = inclusive;
    }
}

static void add_high(struct sql_plan *p, uint16_t column, struct db_value v, bool inclusive)
{
    struct db_bound *b = bound_of(p, column);
    int c = b->has_high ? db_value_cmp(&v, &b->high) : -1;
    if (c < 0 || (c == 0 && !inclusive)) {
        b->has_high = true;
        b->high = v;
        b->high_inclusive = inclusive;
    }
}

/* An INT column against a FLOAT constant: the integers that can meet it. */
static bool float_bound(struct sql_plan *p, uint16_t column, int op, double c)
{
    if (!(fabs(c) < 9007199254740992.0)) /* beyond 2^53 the comparison itself rounds */
        return false;
    struct db_value low = {.type = DB_INT, .i64 = (int64_t)ceil(c)};
    struct db_value high = {.type = DB_INT, .i64 = (int64_t)floor(c)};
    bool whole = low.i64 == high.i64;
    switch (op) {
    case SQL_OP_EQ:
        add_low(p, column, low, true);
        add_high(p, column, high, true);
        return whole;
    case SQL_OP_LT:
        add_high(p, column, high, !whole);
        return true;
    case SQL_OP_LE:
        add_high(p, column, high, true);
        return true;
    case SQL_OP_GT:
        add_low(p, column, low, !whole);
        return true;
    case SQL_OP_GE:
        add_low(p, column, low, true);
        return true;
    default:
        return false;
    }
}

/* Adds what e says about single columns; true when that is all it says. */
static bool add_bounds(struct sql_plan *p, const struct sql_expr *e)
{
    if (e->kind == SQL_EXPR_AND) {
        bool all = true;
        for (uint32_t i = 0; i < e->args_count; i++)
            all &= add_bounds(p, e->args[i]);
        return all;
    }
    if (e->kind == SQL_EXPR_SLOT && e->type == DB_BOOLEAN) {
        struct db_value yes = {.type = DB_BOOLEAN, .boolean = true};
        add_low(p, p->binder.columns[e->slot], yes, true);
        return true;
    }
    if (e->kind == SQL_EXPR_IN && e->args[0]->kind == SQL_EXPR_SLOT) {
        const sql_val *values;
        uint32_t n = sql__set_values(e->state, &values);
        if (n) {
            uint16_t column = p->binder.columns[e->args[0]->slot];
            enum db_type type = e->args[0]->type;
            add_low(p, column, to_db_value(type, &values[0]), true);
            add_high(p, column, to_db_value(type, &values[n - 1]), true);
        }
        return n == 1;
    }
    if (e->kind == SQL_EXPR_CALL && e->row_fn == sql__like && e->args[0]->kind == SQL_EXPR_SLOT) {
        chr_slice prefix = sql__like_prefix(e);
        if (prefix.len) {
            struct db_value low = {.type = DB_STRING, .bytes = prefix};
            add_low(p, p->binder.columns[e->args[0]->slot], low, true);
            /* Below the first string that is past all with this prefix: its last byte plus one. */
            uint8_t *past = sql__alloc(p->q, prefix.len);
            size_t n = prefix.len;
            while (past && n > 0 && prefix.ptr[n - 1] == 0xff)
                n--;
            if (past && n > 0) {
                memcpy(past, prefix.ptr, n);
                past[n - 1]++;
                struct db_value high = {.type = DB_STRING, .bytes = chr_slice_of(past, n)};
                add_high(p, p->binder.columns[e->args[0]->slot], high, false);
            }
        }
        return false;
    }
    if (e->kind != SQL_EXPR_COMPARE || !sql__is_const(e->args[1]) || e->args[1]->value.null)
        return false;
    const struct sql_expr *left = e->args[0];
    const sql_val *v = &e->args[1]->value.v;
    if (left->kind == SQL_EXPR_CALL && left->args_count == 1 && left->type == DB_FLOAT &&
        left->args[0]->kind == SQL_EXPR_SLOT && left->args[0]->type == DB_INT &&
        strcmp(left->name, "cast") == 0)
        return float_bound(p, p->binder.columns[left->args[0]->slot], e->op, v->f);
    if (left->kind != SQL_EXPR_SLOT || left->type == SQL_TYPE_INTERVAL)
        return false;
    uint16_t column = p->binder.columns[left->slot];
    struct db_value value = to_db_value(left->type, v);
    switch (e->op) {
    case SQL_OP_EQ:
        add_low(p, column, value, true);
        add_high(p, column, value, true);
        return true;
    case SQL_OP_LT:
    case SQL_OP_LE:
        add_high(p, column, value, e->op == SQL_OP_LE);
        return true;
    case SQL_OP_GT:
    case SQL_OP_GE:
        add_low(p, column, value, e->op == SQL_OP_GE);
        return true;
    default:
        return false;
    }
}

/* What each condition says by itself, so that a chunk is filtered only by those it does not meet as
 * a whole: of a range of time and something else, most chunks know the first to be true. */
static bool split_where(struct sql_plan *p)
{
    struct sql_query *q = p->q;
    struct sql_expr *one[1] = {p->where}, **terms = one;
    uint32_t count = 1;
    if (p->where->kind == SQL_EXPR_AND) {
        terms = p->where->args;
        count = p->where->args_count;
    }
    p->conjuncts = SQL_ARRAY(q, struct sql_conjunct, count);
    if (!p->conjuncts)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct sql_conjunct *c = &p->conjuncts[p->conjuncts_count++];
        c->expr = terms[i];
        if (!p->table || i >= SQL_BOUNDED_MAX)
            continue;
        struct sql_plan single = {.q = q, .table = p->table, .binder = p->binder};
        single.bounds = SQL_ARRAY(q, struct db_bound, p->binder.slots_count + 1);
        if (!single.bounds)
            return false;
        c->is_bounds = add_bounds(&single, terms[i]);
        c->bounds = single.bounds;
        c->bounds_count = single.bounds_count;
    }
    return true;
}

bool sql__plan_where(struct sql_plan *p, const struct sql_ast *where)
{
    if (!where)
        return true;
    p->binder.clause = "WHERE";
    struct sql_expr *e = sql__bind_condition(&p->binder, where, "argument of WHERE");
    p->binder.clause = NULL;
    if (!e)
        return false;
    if (sql__is_const(e)) {
        p->never = e->value.null || !e->value.v.b;
        return true;
    }
    p->where = e;
    p->bounds = SQL_ARRAY(p->q, struct db_bound, p->table ? p->table->columns_count + 2 : 1);
    if (!p->bounds)
        return false;
    if (p->table)
        (void)add_bounds(p, e);
    return split_where(p) && !p->q->failed;
}

/* -- Aggregation -------------------------------------------------------------------------------*/

static bool is_monotonic(const struct sql_expr *e)
{
    if (e->kind != SQL_EXPR_CALL || e->reads < 0 || e->args_count < 2 ||
        e->args[1]->kind != SQL_EXPR_SLOT)
        return false;
    if (!sql__is_const(e->args[0]) || (e->args_count > 2 && !sql__is_const(e->args[2])))
        return false;
    return strcmp(e->name, "time_bucket") == 0 || strcmp(e->name, "date_trunc") == 0 ||
           strcmp(e->name, "date_bin") == 0;
}

/* Rewrites an expression over columns into one over keys and aggregates. */
static struct sql_expr *over_groups(struct sql_plan *p, struct sql_expr *e)
{
    struct sql_query *q = p->q;
    for (uint32_t k = 0; k < p->keys_count; k++)
        if (sql__expr_equal(e, p->keys[k])) {
            struct sql_expr *slot = sql__node(q, SQL_EXPR_SLOT, 0, e->type, e->pos, NULL, 0);
            if (slot) {
                slot->slot = k;
                slot->reads = (int32_t)k;
                slot->name = "key";
            }
            return slot;
        }
    if (e->kind == SQL_EXPR_AGG) {
        struct sql_expr *slot = sql__node(q, SQL_EXPR_SLOT, 0, e->type, e->pos, NULL, 0);
        if (slot) {
            slot->slot = p->keys_count + e->slot;
            slot->reads = (int32_t)slot->slot;
            slot->name = p->binder.aggs[e->slot].name;
        }
        return slot;
    }
    if (e->kind == SQL_EXPR_SLOT) {
        sql__fail(q, "42803", e->pos,
                  "column \"%s\" must appear in the GROUP BY clause or be used in an aggregate "
                  "function",
                  e->name);
        return NULL;
    }
    if (e->args_count == 0)
        return e;
    /* A copy: the same node may stand in two places. */
    struct sql_expr *copy = SQL_NEW(q, struct sql_expr);
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, e->args_count);
    if (!copy || !args)
        return NULL;
    *copy = *e;
    copy->args = args;
    copy->data = NULL; /* buffers are the node's own */
    copy->validity = NULL;
    copy->codes = NULL;
    copy->lift = NULL;
    copy->reads = SQL_READS_NONE;
    for (uint32_t i = 0; i < e->args_count; i++) {
        args[i] = over_groups(p, e->args[i]);
        if (!args[i])
            return NULL;
        int32_t reads = args[i]->reads;
        if (copy->reads == SQL_READS_NONE)
            copy->reads = reads;
        else if (reads != SQL_READS_NONE && reads != copy->reads)
            copy->reads = SQL_READS_MANY;
    }
    if (e->volatile_)
        copy->reads = SQL_READS_MANY;
    return copy;
}

/* -- The select list ---------------------------------------------------------------------------*/

static bool add_output(struct sql_plan *p, struct sql_expr *e, chr_slice name)
{
    /* What has no type to leave with leaves as text; so does a literal. */
    if (e->type == SQL_TYPE_INTERVAL || e->literal)
        e = sql__cast(p->q, e, DB_STRING, e->pos);
    if (!e)
        return false;
    p->outputs[p->outputs_count++] = (struct sql_output){e, name};
    return true;
}

static bool bind_items(struct sql_plan *p, const struct sql_stmt *stmt)
{
    struct sql_query *q = p->q;
    size_t count = stmt->items.count + stmt->order.count;
    for (const struct sql_item *i = stmt->items.first; i; i = i->next)
        if (i->expr->kind == SQL_AST_STAR && p->table)
            count += p->table->columns_count;
    if (count > SQL_OUTPUTS_MAX)
        return sql__fail(q, "54011", stmt->pos, "more than %d columns in an answer",
                         SQL_OUTPUTS_MAX);
    p->outputs = SQL_ARRAY(q, struct sql_output, count + 1);
    if (!p->outputs)
        return false;
    for (const struct sql_item *i = stmt->items.first; i; i = i->next) {
        if (i->expr->kind == SQL_AST_STAR) {
            if (!p->table)
                return sql__fail(q, "42601", i->pos,
                                 "SELECT * with no tables specified is not valid");
            if (i->expr->qualifier.ptr && !chr_slice_eq(i->expr->qualifier, p->binder.alias))
                return sql__fail(q, "42P01", i->pos, "missing FROM-clause entry for table \"%.*s\"",
                                 CHR_SLICE_ARGS(i->expr->qualifier));
            for (uint32_t c = 0; c < p->table->columns_count; c++) {
                struct sql_expr *e = sql__bind_column(&p->binder, c, i->pos);
                if (!e || !add_output(p, e, chr_slice_cstr(p->table->columns[c].name)))
                    return false;
            }
            continue;
        }
        struct sql_expr *e = sql__bind(&p->binder, i->expr);
        if (!e || !add_output(p, e, i->name.ptr ? i->name : sql__output_name(i->expr)))
            return false;
    }
    p->visible_count = p->outputs_count;
    return true;
}

/* ORDER BY 2, GROUP BY 2: the ordinal, or 0 when it is none. */
static uint32_t ordinal_of(struct sql_plan *p, const struct sql_ast *ast, const char *clause)
{
    if (ast->kind == SQL_AST_STRING || ast->kind == SQL_AST_FLOAT) {
        sql__fail(p->q, "42601", ast->pos, "non-integer constant in %s", clause);
        return 0;
    }
    if (ast->kind != SQL_AST_INT)
        return 0;
    int64_t n = 0;
    if (chr_parse_i64(ast->text, &n) < 0 || n < 1 || n > (int64_t)p->visible_count) {
        sql__fail(p->q, "42P10", ast->pos, "%s position %.*s is not in select list", clause,
                  (int)CHR_MIN(ast->text.len, (size_t)24), (const char *)ast->text.ptr);
        return 0;
    }
    return (uint32_t)n;
}

/* The item of the select list that bears this name; -1: none, -2: two different ones (error). */
static int named_output(struct sql_plan *p, const struct sql_ast *ast, const char *clause)
{
    if (ast->kind != SQL_AST_NAME || ast->qualifier.ptr)
        return -1;
    int found = -1;
    for (uint32_t i = 0; i < p->visible_count; i++) {
        if (!chr_slice_eq(p->outputs[i].name, ast->text))
            continue;
        if (found >= 0 && !sql__expr_equal(p->outputs[found].expr, p->outputs[i].expr)) {
            sql__fail(p->q, "42702", ast->pos, "%s \"%.*s\" is ambiguous", clause,
                      CHR_SLICE_ARGS(ast->text));
            return -2;
        }
        found = (int)i;
    }
    return found;
}

static bool has_aggregate(const struct sql_expr *e)
{
    if (e->kind == SQL_EXPR_AGG)
        return true;
    for (uint32_t i = 0; i < e->args_count; i++)
        if (has_aggregate(e->args[i]))
            return true;
    return false;
}

static bool bind_group(struct sql_plan *p, const struct sql_stmt *stmt)
{
    struct sql_query *q = p->q;
    p->keys = SQL_ARRAY(q, struct sql_expr *, stmt->group.count + 1);
    p->key_kinds = SQL_ARRAY(q, enum sql_key_kind, stmt->group.count + 1);
    if (!p->keys || !p->key_kinds)
        return false;
    for (const struct sql_item *i = stmt->group.first; i; i = i->next) {
        struct sql_expr *e = NULL;
        uint32_t ordinal = ordinal_of(p, i->expr, "GROUP BY");
        if (q->failed)
            return false;
        bool column = i->expr->kind == SQL_AST_NAME && p->table &&
                      sql__column_index(p->table, i->expr->text) >= 0;
        int named = ordinal ? (int)ordinal - 1 : column ? -1 : named_output(p, i->expr, "GROUP BY");
        if (named == -2)
            return false;
        if (named >= 0) {
            e = p->outputs[named].expr;
        } else {
            p->binder.clause = "GROUP BY";
            e = sql__bind(&p->binder, i->expr);
            p->binder.clause = NULL;
            if (e && e->literal)
                e = sql__coerce(q, e, DB_STRING);
        }
        if (!e)
            return false;
        /* An ordinal or an alias may mean an output with an aggregate somewhere inside. */
        if (has_aggregate(e))
            return sql__fail(q, "42803", i->pos, "aggregate functions are not allowed in GROUP BY");
        bool again = false;
        for (uint32_t k = 0; k < p->keys_count; k++)
            again |= sql__expr_equal(e, p->keys[k]);
        if (again)
            continue;
        p->key_kinds[p->keys_count] = e->kind == SQL_EXPR_SLOT ? SQL_KEY_COLUMN
                                      : is_monotonic(e)        ? SQL_KEY_MONOTONIC
                                                               : SQL_KEY_ANY;
        p->keys[p->keys_count++] = e;
    }
    return true;
}

static bool bind_order(struct sql_plan *p, const struct sql_stmt *stmt)
{
    struct sql_query *q = p->q;
    p->order = SQL_ARRAY(q, struct sql_order, stmt->order.count + 1);
    if (!p->order)
        return false;
    for (const struct sql_item *i = stmt->order.first; i; i = i->next) {
        uint32_t ordinal = ordinal_of(p, i->expr, "ORDER BY");
        if (q->failed)
            return false;
        int output = ordinal ? (int)ordinal - 1 : named_output(p, i->expr, "ORDER BY");
        if (output == -2)
            return false;
        if (output < 0) {
            struct sql_expr *e = sql__bind(&p->binder, i->expr);
            if (e && e->literal)
                e = sql__coerce(q, e, DB_STRING);
            if (!e)
                return false;
            for (uint32_t o = 0; o < p->visible_count && output < 0; o++)
                if (sql__expr_equal(p->outputs[o].expr, e))
                    output = (int)o;
            if (output < 0) {
                if (stmt->distinct)
                    return sql__fail(q, "42P10", i->pos,
                                     "for SELECT DISTINCT, ORDER BY expressions must appear in "
                                     "select list");
                output = (int)p->outputs_count;
                p->outputs[p->outputs_count++] = (struct sql_output){.expr = e};
            }
        }
        p->order[p->order_count++] = (struct sql_order){
            (uint32_t)output, i->descending, i->nulls_given ? i->nulls_first : i->descending};
    }
    return true;
}

static bool bind_count(struct sql_plan *p, const struct sql_ast *ast, const char *clause,
                       const char *sqlstate, bool *has, uint64_t *out)
{
    if (!ast)
        return true;
    struct sql_query *q = p->q;
    struct sql_binder none;
    if (!sql__binder_init(&none, q, NULL, (chr_slice){0}))
        return false;
    none.clause = clause;
    struct sql_expr *e = sql__bind(&none, ast);
    struct sql_expr *n = e ? sql__coerce(q, e, DB_INT) : NULL;
    if (e && !n && !q->failed && e->type == DB_FLOAT)
        n = sql__cast(q, e, DB_INT, e->pos);
    if (!n)
        return !q->failed
                   ? sql__fail(q, "42804", ast->pos, "argument of %s must be type INT", clause)
                   : false;
    if (!sql__is_const(n)) {
        struct sql_eval ev = {.q = q};
        (void)sql__eval(&ev, n, (struct sql_rows){NULL, 1, 1}); /* says what is wrong */
        return q->failed
                   ? false
                   : sql__fail(q, "42804", ast->pos, "argument of %s must be constant", clause);
    }
    if (n->value.null)
        return true;
    if (n->value.v.i < 0)
        return sql__fail(q, sqlstate, ast->pos, "%s must not be negative", clause);
    *has = true;
    *out = (uint64_t)n->value.v.i;
    return true;
}

struct sql_plan *sql__plan_select(struct sql_query *q, const db_catalog *catalog,
                                  const struct sql_stmt *stmt)
{
    struct sql_plan *p = SQL_NEW(q, struct sql_plan);
    if (!p)
        return NULL;
    p->q = q;
    p->distinct = stmt->distinct;
    p->time_slot = -1;
    if (stmt->table.ptr) {
        p->table = sql__find_table(q, catalog, stmt->table, stmt->table_pos);
        if (!p->table || !sql__may(q, p->table, DB_PRIVILEGE_SELECT, stmt->table_pos))
            return NULL;
    }
    bool ignored;
    if (!sql__binder_init(&p->binder, q, p->table, stmt->alias) ||
        !sql__plan_where(p, stmt->where) || !bind_items(p, stmt) || !bind_group(p, stmt) ||
        !bind_order(p, stmt) ||
        !bind_count(p, stmt->limit, "LIMIT", "2201W", &p->has_limit, &p->limit) ||
        !bind_count(p, stmt->offset, "OFFSET", "2201X", &ignored, &p->offset))
        return NULL;
    if (stmt->having &&
        !(p->having = sql__bind_condition(&p->binder, stmt->having, "argument of HAVING")))
        return NULL;
    p->aggregated = p->binder.aggs_count || p->keys_count || stmt->having;
    if (p->aggregated) {
        for (uint32_t i = 0; i < p->outputs_count; i++)
            if (!(p->outputs[i].expr = over_groups(p, p->outputs[i].expr)))
                return NULL;
        if (p->having && !(p->having = over_groups(p, p->having)))
            return NULL;
    }
    if (p->table) {
        uint32_t time =
            p->table->time_column >= 0 ? (uint32_t)p->table->time_column : p->table->columns_count;
        for (uint32_t s = 0; s < p->binder.slots_count; s++)
            if (p->binder.columns[s] == time)
                p->time_slot = (int32_t)s;
    }
    return p;
}
