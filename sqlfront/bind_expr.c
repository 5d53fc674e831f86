/* sqlfront/bind_expr.c: syntax tree in, typed expression out: literals, names, operators,
 * conditions. Calls are bind_call.c's. */
#include <math.h>

#include "sqlfront/bind_internal.h"
#include "sqlfront/functions.h"

static struct sql_expr **array1(struct sql_query *q, struct sql_expr *a)
{
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, 1);
    if (args)
        args[0] = a;
    return args;
}
struct sql_expr **sql__args2(struct sql_query *q, struct sql_expr *a, struct sql_expr *b)
{
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, 2);
    if (args) {
        args[0] = a;
        args[1] = b;
    }
    return args;
}
static struct sql_expr *node1(struct sql_query *q, enum sql_expr_kind kind, int op,
                              enum db_type type, uint32_t pos, struct sql_expr *a)
{
    struct sql_expr **args = array1(q, a);
    return args ? sql__fold(q, sql__node(q, kind, op, type, pos, args, 1)) : NULL;
}
static struct sql_expr *node2(struct sql_query *q, enum sql_expr_kind kind, int op,
                              enum db_type type, uint32_t pos, struct sql_expr *a,
                              struct sql_expr *b)
{
    struct sql_expr **args = sql__args2(q, a, b);
    return args ? sql__fold(q, sql__node(q, kind, op, type, pos, args, 2)) : NULL;
}

/* A value that several nodes read: they get the result of this node, and let_in() closes it. Plain
 * columns and constants are read again instead. */
static struct sql_expr *let_open(struct sql_query *q, struct sql_expr *x)
{
    if (x->kind == SQL_EXPR_SLOT || x->kind == SQL_EXPR_CONST)
        return x;
    struct sql_expr *shared = sql__node(q, SQL_EXPR_SHARED, 0, x->type, x->pos, NULL, 0);
    if (shared)
        shared->reads = SQL_READS_MANY; /* never evaluated by itself */
    return shared;
}
/* others: what the body reads besides x. */
static struct sql_expr *let_in(struct sql_query *q, struct sql_expr *x, struct sql_expr *shared,
                               struct sql_expr *body, int32_t others)
{
    if (shared == x || !body)
        return body;
    struct sql_expr *e = node2(q, SQL_EXPR_LET, 0, body->type, body->pos, x, body);
    if (!e)
        return NULL;
    e->let = shared;
    e->volatile_ = x->volatile_;
    e->reads = x->reads == others || others == SQL_READS_NONE ? x->reads
               : x->reads == SQL_READS_NONE                   ? others
                                                              : SQL_READS_MANY;
    return e;
}
static int32_t merge_reads(int32_t a, int32_t b)
{
    return a == b || b == SQL_READS_NONE ? a : a == SQL_READS_NONE ? b : SQL_READS_MANY;
}

/* -- Literals and names ------------------------------------------------------------------------*/

static struct sql_expr *bind_int(struct sql_query *q, const struct sql_ast *ast)
{
    sql_val v;
    int used = chr_parse_i64(ast->text, &v.i);
    if (used < 0 || (size_t)used != ast->text.len) {
        sql__fail(q, "22003", ast->pos, "integer %.*s is out of range for INT",
                  (int)CHR_MIN(ast->text.len, (size_t)60), (const char *)ast->text.ptr);
        return NULL;
    }
    return sql__const(q, DB_INT, &v, ast->pos);
}

static struct sql_expr *bind_float(struct sql_query *q, const struct sql_ast *ast)
{
    sql_val v;
    int used = chr_parse_f64(ast->text, &v.f);
    if (used < 0 || (size_t)used != ast->text.len || isinf(v.f)) {
        sql__fail(q, "22003", ast->pos, "number %.*s is out of range for FLOAT",
                  (int)CHR_MIN(ast->text.len, (size_t)60), (const char *)ast->text.ptr);
        return NULL;
    }
    return sql__const(q, DB_FLOAT, &v, ast->pos);
}

static struct sql_expr *bind_blob(struct sql_query *q, const struct sql_ast *ast)
{
    size_t len = ast->text.len / 2;
    uint8_t *bytes = sql__alloc(q, len + 1);
    if (!bytes)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        unsigned value = 0;
        for (int k = 0; k < 2; k++) {
            unsigned c = ast->text.ptr[2 * i + (size_t)k];
            value = value << 4 | (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
        }
        bytes[i] = (uint8_t)value;
    }
    sql_val v = {.s = chr_slice_of(bytes, len)};
    return sql__const(q, DB_BLOB, &v, ast->pos);
}

static struct sql_expr *bind_name(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    if (ast->qualifier.ptr) {
        if (!b->table || !chr_slice_eq(ast->qualifier, b->alias)) {
            sql__fail(q, "42P01", ast->pos, "missing FROM-clause entry for table \"%.*s\"",
                      CHR_SLICE_ARGS(ast->qualifier));
            return NULL;
        }
    }
    int column = b->table ? sql__column_index(b->table, ast->text) : -1;
    if (column >= 0)
        return sql__bind_column(b, (uint32_t)column, ast->pos);
    if (!ast->qualifier.ptr && chr_slice_eq(ast->text, CHR_LIT("current_timestamp")))
        return sql__bind_call_named(b, "now", ast->pos, NULL, 0);
    sql__no_column(q, b->table, ast->text, ast->pos);
    return NULL;
}

/* -- Types that have to agree ------------------------------------------------------------------*/

static const char *op_text(int op)
{
    static const char *const texts[] = {"+",  "-", "*",  "/", "%",  "^", "-",
                                        "||", "=", "<>", "<", "<=", ">", ">="};
    return op < (int)CHR_COUNT_OF(texts) ? texts[op] : "IS DISTINCT FROM";
}

struct sql_expr *sql__no_operator(struct sql_query *q, int op, uint32_t pos,
                                  const struct sql_expr *a, const struct sql_expr *b)
{
    sql__fail(q, "42883", pos, "operator does not exist: %s %s %s", sql__type_name(a->type),
              op_text(op), sql__type_name(b->type));
    sql__hint(q, "You might need to add explicit type casts.");
    return NULL;
}

bool sql__unify(struct sql_query *q, struct sql_expr **args, uint32_t count, uint32_t first,
                uint32_t step, enum db_type *type)
{
    *type = SQL_TYPE_UNKNOWN;
    for (uint32_t i = first; i < count; i += step) {
        enum db_type t = args[i]->type;
        if (args[i]->literal || sql__is_null_const(args[i]) || t == *type)
            continue;
        if (*type == SQL_TYPE_UNKNOWN || (*type == DB_INT && t == DB_FLOAT))
            *type = t;
        else if (!(*type == DB_FLOAT && t == DB_INT)) {
            *type = SQL_TYPE_UNKNOWN;
            return false;
        }
    }
    if (*type == SQL_TYPE_UNKNOWN) {
        *type = DB_STRING;
        for (uint32_t i = first; i < count; i += step) /* CAST(NULL AS INT) has a type */
            if (!args[i]->literal)
                *type = args[i]->type;
    }
    for (uint32_t i = first; i < count; i += step) {
        args[i] = sql__coerce(q, args[i], *type);
        if (!args[i])
            return false;
    }
    return true;
}

static struct sql_expr *bind_compare(struct sql_query *q, int op, uint32_t pos, struct sql_expr *a,
                                     struct sql_expr *b)
{
    struct sql_expr *args[2] = {a, b};
    enum db_type type;
    if (!sql__unify(q, args, 2, 0, 1, &type)) {
        if (!q->failed)
            return sql__no_operator(q, op, pos, a, b);
        return NULL;
    }
    if (sql__is_const(args[0]) && !sql__is_const(args[1])) { /* the constant to the right */
        static const uint8_t mirrored[] = {[SQL_OP_EQ] = SQL_OP_EQ,
                                           [SQL_OP_NE] = SQL_OP_NE,
                                           [SQL_OP_LT] = SQL_OP_GT,
                                           [SQL_OP_LE] = SQL_OP_GE,
                                           [SQL_OP_GT] = SQL_OP_LT,
                                           [SQL_OP_GE] = SQL_OP_LE,
                                           [SQL_OP_DISTINCT] = SQL_OP_DISTINCT,
                                           [SQL_OP_NOT_DISTINCT] = SQL_OP_NOT_DISTINCT};
        struct sql_expr *t = args[0];
        args[0] = args[1];
        args[1] = t;
        op = mirrored[op];
    }
    return node2(q, SQL_EXPR_COMPARE, op, DB_BOOLEAN, pos, args[0], args[1]);
}

static struct sql_expr *bind_arith(struct sql_binder *b, int op, uint32_t pos, struct sql_expr *l,
                                   struct sql_expr *r)
{
    struct sql_query *q = b->q;
    if (op == SQL_OP_POW) {
        struct sql_expr *args[2] = {l, r};
        struct sql_expr *e = sql__bind_call_named(b, "power", pos, args, 2);
        return e || q->failed ? e : sql__no_operator(q, op, pos, l, r);
    }
    bool temporal_l = l->type == DB_TIMESTAMP || l->type == SQL_TYPE_INTERVAL;
    bool temporal_r = r->type == DB_TIMESTAMP || r->type == SQL_TYPE_INTERVAL;
    if ((temporal_l && !sql__is_null_const(l)) || (temporal_r && !sql__is_null_const(r))) {
        /* ts - '1 hour', ts - '2024-01-01': the text says which it is */
        struct sql_expr *args[2] = {l, r};
        for (int i = 0; i < 2; i++)
            if (args[i]->literal && !args[i]->value.null) {
                struct sql_interval iv;
                enum db_type as =
                    sql__interval_parse(args[i]->value.v.s, &iv) ? SQL_TYPE_INTERVAL : DB_TIMESTAMP;
                if (op == SQL_OP_MUL || op == SQL_OP_DIV)
                    as = DB_FLOAT;
                if (!(args[i] = sql__cast(q, args[i], as, args[i]->pos)))
                    return NULL;
            }
        struct sql_expr *e = sql__bind_call_named(b, op_text(op), pos, args, 2);
        return e || q->failed ? e : sql__no_operator(q, op, pos, l, r);
    }
    struct sql_expr *args[2] = {l, r};
    enum db_type type;
    if (!sql__unify(q, args, 2, 0, 1, &type))
        return q->failed ? NULL : sql__no_operator(q, op, pos, l, r);
    if (!sql__type_is_numeric(type)) {
        if (!(sql__is_null_const(l) && sql__is_null_const(r)))
            return sql__no_operator(q, op, pos, l, r);
        type = DB_INT;
        for (int i = 0; i < 2; i++)
            if (!(args[i] = sql__const(q, type, NULL, pos)))
                return NULL;
    }
    return node2(q, SQL_EXPR_ARITH, op, type, pos, args[0], args[1]);
}

static struct sql_expr *bind_negative(struct sql_binder *b, uint32_t pos, struct sql_expr *a)
{
    struct sql_query *q = b->q;
    if (a->type == SQL_TYPE_INTERVAL)
        return sql__bind_call_named(b, "-", pos, &a, 1);
    if (a->literal && !(a = sql__coerce(q, a, DB_FLOAT)))
        return NULL;
    if (!sql__type_is_numeric(a->type)) {
        sql__fail(q, "42883", pos, "operator does not exist: - %s", sql__type_name(a->type));
        return NULL;
    }
    return node1(q, SQL_EXPR_ARITH, SQL_OP_NEG, a->type, pos, a);
}

/* -- Conditions --------------------------------------------------------------------------------*/

static struct sql_expr *as_boolean(struct sql_query *q, struct sql_expr *e, const char *what)
{
    if (!e)
        return NULL;
    struct sql_expr *r = sql__coerce(q, e, DB_BOOLEAN);
    if (!r && !q->failed)
        sql__fail(q, "42804", e->pos, "%s must be type BOOLEAN, not type %s", what,
                  sql__type_name(e->type));
    return r;
}

struct sql_expr *sql__bind_condition(struct sql_binder *b, const struct sql_ast *ast,
                                     const char *what)
{
    return as_boolean(b->q, sql__bind(b, ast), what);
}

static struct sql_expr *negate(struct sql_query *q, uint32_t pos, struct sql_expr *e)
{
    if (e->kind == SQL_EXPR_COMPARE) { /* total order, NaN included: the opposite is exact */
        static const uint8_t opposite[] = {[SQL_OP_EQ] = SQL_OP_NE,
                                           [SQL_OP_NE] = SQL_OP_EQ,
                                           [SQL_OP_LT] = SQL_OP_GE,
                                           [SQL_OP_LE] = SQL_OP_GT,
                                           [SQL_OP_GT] = SQL_OP_LE,
                                           [SQL_OP_GE] = SQL_OP_LT,
                                           [SQL_OP_DISTINCT] = SQL_OP_NOT_DISTINCT,
                                           [SQL_OP_NOT_DISTINCT] = SQL_OP_DISTINCT};
        e->op = opposite[e->op];
        return e;
    }
    if (e->kind == SQL_EXPR_IS && (e->op == SQL_OP_IS_NULL || e->op == SQL_OP_IS_NOT_NULL)) {
        e->op = e->op == SQL_OP_IS_NULL ? SQL_OP_IS_NOT_NULL : SQL_OP_IS_NULL;
        return e;
    }
    if (e->kind == SQL_EXPR_NOT)
        return e->args[0];
    return node1(q, SQL_EXPR_NOT, 0, DB_BOOLEAN, pos, e);
}

static struct sql_expr *bind_chain(struct sql_binder *b, const struct sql_ast *ast)
{
    bool and = ast->op == SQL_OP_AND;
    struct sql_expr **args = SQL_ARRAY(b->q, struct sql_expr *, ast->args_count);
    if (!args)
        return NULL;
    uint32_t n = 0;
    for (const struct sql_ast *a = ast->args; a; a = a->next) {
        struct sql_expr *e = sql__bind_condition(b, a, and? "argument of AND" : "argument of OR");
        if (!e)
            return NULL;
        args[n++] = e;
    }
    return sql__fold(b->q, sql__node(b->q, and? SQL_EXPR_AND : SQL_EXPR_OR, ast->op, DB_BOOLEAN,
                                     ast->pos, args, n));
}

static struct sql_expr *bind_between(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    struct sql_expr *x = sql__bind(b, ast->args);
    struct sql_expr *low = x ? sql__bind(b, ast->args->next) : NULL;
    struct sql_expr *high = low ? sql__bind(b, ast->args->next->next) : NULL;
    if (!high)
        return NULL;
    int32_t others = merge_reads(low->reads, high->reads);
    struct sql_expr *shared = let_open(q, x);
    if (!shared)
        return NULL;
    struct sql_expr *ge = bind_compare(q, SQL_OP_GE, ast->pos, shared, low);
    struct sql_expr *le = ge ? bind_compare(q, SQL_OP_LE, ast->pos, shared, high) : NULL;
    struct sql_expr *both =
        le ? node2(q, SQL_EXPR_AND, SQL_OP_AND, DB_BOOLEAN, ast->pos, ge, le) : NULL;
    return let_in(q, x, shared, both, others);
}

static struct sql_expr *bind_in(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    uint32_t count = ast->args_count, n = 0;
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, count);
    if (!args)
        return NULL;
    bool all_const = true;
    for (const struct sql_ast *a = ast->args; a; a = a->next) {
        if (!(args[n] = sql__bind(b, a)))
            return NULL;
        all_const &= n == 0 || sql__is_const(args[n]);
        n++;
    }
    struct sql_expr *left = args[0];
    enum db_type type;
    if (!sql__unify(q, args, count, 0, 1, &type)) {
        if (!q->failed) {
            uint32_t i = 1;
            while (i + 1 < count && args[i] && args[i]->type == left->type)
                i++;
            sql__no_operator(q, SQL_OP_EQ, ast->pos, left, args[i] ? args[i] : left);
        }
        return NULL;
    }
    if (all_const) {
        sql_val *values = SQL_ARRAY(q, sql_val, count);
        if (!values)
            return NULL;
        uint32_t k = 0;
        bool has_null = false;
        for (uint32_t i = 1; i < count; i++) {
            if (args[i]->value.null)
                has_null = true;
            else
                values[k++] = args[i]->value.v;
        }
        struct sql_expr **own = array1(q, args[0]);
        struct sql_expr *e =
            own ? sql__node(q, SQL_EXPR_IN, SQL_OP_IN, DB_BOOLEAN, ast->pos, own, 1) : NULL;
        if (!e || !(e->state = sql__set_new(q, type, values, k, has_null)))
            return NULL;
        return sql__fold(q, e);
    }
    struct sql_expr **terms = SQL_ARRAY(q, struct sql_expr *, count);
    if (!terms)
        return NULL;
    struct sql_expr *shared = let_open(q, args[0]);
    if (!shared)
        return NULL;
    int32_t others = SQL_READS_NONE;
    for (uint32_t i = 1; i < count; i++) {
        others = merge_reads(others, args[i]->reads);
        if (!(terms[i - 1] = bind_compare(q, SQL_OP_EQ, ast->pos, shared, args[i])))
            return NULL;
    }
    struct sql_expr *any = count == 2
                               ? terms[0]
                               : sql__fold(q, sql__node(q, SQL_EXPR_OR, SQL_OP_OR, DB_BOOLEAN,
                                                        ast->pos, terms, count - 1));
    return let_in(q, args[0], shared, any, others);
}

static struct sql_expr *bind_like(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, 3);
    if (!args)
        return NULL;
    uint32_t n = 0;
    for (const struct sql_ast *a = ast->args; a; a = a->next) {
        struct sql_expr *e = sql__bind(b, a);
        if (!e)
            return NULL;
        args[n] = sql__coerce(q, e, DB_STRING);
        if (!args[n]) {
            if (!q->failed)
                sql__fail(q, "42883", ast->pos, "operator does not exist: %s %s …",
                          sql__type_name(e->type), ast->op == SQL_OP_LIKE ? "LIKE" : "ILIKE");
            return NULL;
        }
        n++;
    }
    struct sql_expr *e = sql__node(q, SQL_EXPR_CALL, ast->op, DB_BOOLEAN, ast->pos, args, n);
    if (!e)
        return NULL;
    e->row_fn = sql__like;
    e->strict = true;
    e->name = ast->op == SQL_OP_LIKE ? "like" : "ilike";
    return sql__like_prepare(q, e) ? sql__fold(q, e) : NULL;
}

static struct sql_expr *bind_op(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    switch ((enum sql_op)ast->op) {
    case SQL_OP_AND:
    case SQL_OP_OR:
        return bind_chain(b, ast);
    case SQL_OP_NOT: {
        struct sql_expr *e = sql__bind_condition(b, ast->args, "argument of NOT");
        return e ? negate(q, ast->pos, e) : NULL;
    }
    case SQL_OP_BETWEEN:
        return bind_between(b, ast);
    case SQL_OP_IN:
        return bind_in(b, ast);
    case SQL_OP_LIKE:
    case SQL_OP_ILIKE:
        return bind_like(b, ast);
    case SQL_OP_POSITION:
        sql__fail(q, "42601", ast->args->next->pos, "syntax error: IN takes a list in parentheses");
        return NULL;
    default:
        break;
    }
    struct sql_expr *l = sql__bind(b, ast->args);
    if (!l)
        return NULL;
    switch ((enum sql_op)ast->op) {
    case SQL_OP_NEG:
        return bind_negative(b, ast->pos, l);
    case SQL_OP_IS_NULL:
    case SQL_OP_IS_NOT_NULL:
        if (ast->flag && !(l = as_boolean(q, l, "argument of IS UNKNOWN")))
            return NULL;
        return node1(q, SQL_EXPR_IS, ast->op, DB_BOOLEAN, ast->pos, l);
    case SQL_OP_IS_TRUE:
    case SQL_OP_IS_NOT_TRUE:
    case SQL_OP_IS_FALSE:
    case SQL_OP_IS_NOT_FALSE:
        l = as_boolean(q, l, "argument of IS");
        return l ? node1(q, SQL_EXPR_IS, ast->op, DB_BOOLEAN, ast->pos, l) : NULL;
    default:
        break;
    }
    struct sql_expr *r = sql__bind(b, ast->args->next);
    if (!r)
        return NULL;
    if (ast->op >= SQL_OP_EQ && ast->op <= SQL_OP_NOT_DISTINCT)
        return bind_compare(q, ast->op, ast->pos, l, r);
    if (ast->op == SQL_OP_CONCAT) {
        struct sql_expr *args[2] = {l, r};
        struct sql_expr *e = sql__bind_call_named(b, "||", ast->pos, args, 2);
        return e || q->failed ? e : sql__no_operator(q, SQL_OP_CONCAT, ast->pos, l, r);
    }
    return bind_arith(b, ast->op, ast->pos, l, r);
}

/* -- CASE and its kin --------------------------------------------------------------------------*/

static struct sql_expr *bind_case(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    const struct sql_ast *a = ast->args;
    struct sql_expr *operand = NULL, *shared = NULL;
    int32_t others = SQL_READS_NONE;
    if (ast->flag) {
        operand = sql__bind(b, a);
        if (operand && operand->literal)
            operand = sql__coerce(q, operand, DB_STRING);
        shared = operand ? let_open(q, operand) : NULL;
        if (!shared)
            return NULL;
        a = a->next;
    }
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, ast->args_count + 1);
    if (!args)
        return NULL;
    uint32_t n = 0;
    while (a && a->next) { /* WHEN … THEN … */
        struct sql_expr *when;
        if (operand) {
            struct sql_expr *r = sql__bind(b, a);
            if (r)
                others = merge_reads(others, r->reads);
            when = r ? bind_compare(q, SQL_OP_EQ, a->pos, shared, r) : NULL;
        } else {
            when = sql__bind_condition(b, a, "argument of CASE/WHEN");
        }
        struct sql_expr *then = when ? sql__bind(b, a->next) : NULL;
        if (!then)
            return NULL;
        others = merge_reads(others, then->reads);
        args[n++] = when;
        args[n++] = then;
        a = a->next->next;
    }
    struct sql_expr *otherwise = a ? sql__bind(b, a) : sql__const(q, DB_STRING, NULL, ast->pos);
    if (!otherwise)
        return NULL;
    if (!a)
        otherwise->literal = true;
    /* THENs are the odd ones; ELSE goes behind as one more THEN for the types to agree. */
    struct sql_expr **values = SQL_ARRAY(q, struct sql_expr *, n / 2 + 1);
    if (!values)
        return NULL;
    for (uint32_t i = 0; i < n / 2; i++)
        values[i] = args[2 * i + 1];
    values[n / 2] = otherwise;
    enum db_type type;
    if (!sql__unify(q, values, n / 2 + 1, 0, 1, &type)) {
        if (!q->failed)
            sql__fail(q, "42804", ast->pos, "the branches of CASE have different types");
        return NULL;
    }
    for (uint32_t i = 0; i < n / 2; i++)
        args[2 * i + 1] = values[i];
    args[n] = values[n / 2];
    others = merge_reads(others, args[n]->reads);
    struct sql_expr *e = sql__fold(q, sql__node(q, SQL_EXPR_CASE, 0, type, ast->pos, args, n + 1));
    return operand ? let_in(q, operand, shared, e, others) : e;
}

static struct sql_expr *bind_cast(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    enum db_type type = sql__type_parse(ast->text);
    if (type == SQL_TYPE_UNKNOWN) {
        sql__fail(q, "42704", ast->pos, "type \"%.*s\" does not exist", CHR_SLICE_ARGS(ast->text));
        return NULL;
    }
    struct sql_expr *e = sql__bind(b, ast->args);
    return e ? sql__cast(q, e, type, ast->pos) : NULL;
}

struct sql_expr *sql__bind(struct sql_binder *b, const struct sql_ast *ast)
{
    struct sql_query *q = b->q;
    struct sql_expr *e = NULL;
    switch ((enum sql_ast_kind)ast->kind) {
    case SQL_AST_NULL:
        e = sql__const(q, DB_STRING, NULL, ast->pos);
        if (e)
            e->literal = true;
        return e;
    case SQL_AST_INT:
        return bind_int(q, ast);
    case SQL_AST_FLOAT:
        return bind_float(q, ast);
    case SQL_AST_STRING: {
        sql_val v = {.s = ast->text};
        e = sql__const(q, DB_STRING, &v, ast->pos);
        if (e)
            e->literal = true;
        return e;
    }
    case SQL_AST_BLOB:
        return bind_blob(q, ast);
    case SQL_AST_BOOL: {
        sql_val v = {.b = ast->flag};
        return sql__const(q, DB_BOOLEAN, &v, ast->pos);
    }
    case SQL_AST_NAME:
        return bind_name(b, ast);
    case SQL_AST_STAR:
        sql__fail(q, "42601", ast->pos, "syntax error at or near \"*\"");
        return NULL;
    case SQL_AST_CALL:
        return sql__bind_call(b, ast);
    case SQL_AST_OP:
        return bind_op(b, ast);
    case SQL_AST_CASE:
        return bind_case(b, ast);
    case SQL_AST_CAST:
        return bind_cast(b, ast);
    case SQL_AST_DEFAULT:
        sql__fail(q, "42601", ast->pos, "DEFAULT is not allowed in this context");
        return NULL;
    }
    return NULL;
}

chr_slice sql__output_name(const struct sql_ast *ast)
{
    switch ((enum sql_ast_kind)ast->kind) {
    case SQL_AST_NAME:
    case SQL_AST_CALL:
        return ast->text;
    case SQL_AST_CASE:
        return CHR_LIT("case");
    case SQL_AST_CAST: {
        chr_slice inner = sql__output_name(ast->args);
        return chr_slice_eq(inner, CHR_LIT("?column?")) ? ast->text : inner;
    }
    default:
        return CHR_LIT("?column?");
    }
}
