/* sqlfront/bind.c: the pieces every bound expression is made of: nodes, constants, conversions,
 * columns. bind_expr.c walks the syntax tree with them. */
#include "sqlfront/bind.h"

#include "base/buf.h"
#include "base/timestamp.h"
#include "sqlfront/exec/kernels.h"
#include "sqlfront/functions.h"
#include "sqlfront/relation.h"

/* -- Columns -----------------------------------------------------------------------------------*/

static const char *const system_names[] = {"_received_at", "_hlc"};

int sql__column_index(const struct db_table_def *table, chr_slice name)
{
    int i = db_table_column(table, name);
    if (i >= 0)
        return i;
    for (int s = 0; s < 2 && !sql__is_relation(table); s++)
        if (chr_slice_eq(name, chr_slice_cstr(system_names[s])))
            return table->columns_count + s;
    return -1;
}

enum db_type sql__column_type(const struct db_table_def *table, uint32_t column)
{
    return column < table->columns_count    ? table->columns[column].type
           : column == table->columns_count ? DB_TIMESTAMP
                                            : DB_INT;
}

const char *sql__column_name(const struct db_table_def *table, uint32_t column)
{
    return column < table->columns_count ? table->columns[column].name
                                         : system_names[column - table->columns_count];
}

bool sql__no_column(struct sql_query *q, const struct db_table_def *table, chr_slice name,
                    uint32_t pos)
{
    sql__fail(q, "42703", pos, "column \"%.*s\" does not exist", CHR_SLICE_ARGS(name));
    const char *best = NULL;
    unsigned best_distance = 3;
    for (uint32_t i = 0; table && i < table->columns_count + (sql__is_relation(table) ? 0u : 2u);
         i++) {
        const char *candidate = sql__column_name(table, i);
        unsigned d = sql__edit_distance(name, chr_slice_cstr(candidate), 2);
        if (d < best_distance && d < CHR_MAX(name.len, strlen(candidate))) {
            best = candidate;
            best_distance = d;
        }
    }
    if (best)
        sql__hint(q, "Did you mean \"%s\"?", best);
    return false;
}

bool sql__binder_init(struct sql_binder *b, struct sql_query *q, const struct db_table_def *table,
                      chr_slice alias)
{
    *b = (struct sql_binder){.q = q, .table = table, .alias = alias};
    if (table) {
        b->columns = SQL_ARRAY(q, uint16_t, table->columns_count + 2);
        if (!alias.ptr)
            b->alias = chr_slice_cstr(table->name);
        return b->columns != NULL;
    }
    return true;
}

struct sql_expr *sql__bind_column(struct sql_binder *b, uint32_t column, uint32_t pos)
{
    struct sql_expr *e = SQL_NEW(b->q, struct sql_expr);
    if (!e)
        return NULL;
    uint32_t slot = 0;
    while (slot < b->slots_count && b->columns[slot] != column)
        slot++;
    if (slot == b->slots_count)
        b->columns[b->slots_count++] = (uint16_t)column;
    e->kind = SQL_EXPR_SLOT;
    e->type = sql__column_type(b->table, column);
    e->pos = pos;
    e->slot = slot;
    e->reads = (int32_t)slot;
    e->name = sql__column_name(b->table, column);
    return e;
}

/* -- Nodes -------------------------------------------------------------------------------------*/

struct sql_expr *sql__const(struct sql_query *q, enum db_type type, const sql_val *v, uint32_t pos)
{
    struct sql_expr *e = SQL_NEW(q, struct sql_expr);
    if (!e)
        return NULL;
    e->kind = SQL_EXPR_CONST;
    e->type = type;
    e->pos = pos;
    e->reads = SQL_READS_NONE;
    e->value.type = type;
    e->value.null = v == NULL;
    if (v)
        e->value.v = *v;
    sql__const_init(e);
    return e;
}

struct sql_expr *sql__fold(struct sql_query *q, struct sql_expr *e)
{
    if (!e || e->reads != SQL_READS_NONE || e->kind == SQL_EXPR_CONST || e->kind == SQL_EXPR_AGG)
        return e;
    struct sql_eval ev = {.q = q};
    const struct db_vector *v = sql__eval(&ev, e, (struct sql_rows){NULL, 1, 1});
    if (!v) {
        /* Errors of data wait until somebody asks for the value; others are final. */
        if (strncmp(q->error->sqlstate, "22", 2) != 0)
            return NULL;
        q->failed = false;
        memset(q->error, 0, sizeof *q->error);
        return e;
    }
    sql_val value = {0};
    bool valid = sql__vector_get(v, 0, &value);
    if (valid && db_type_is_bytes(e->type) && value.s.len) {
        chr_slice copy = chr_arena_dup(&q->arena, value.s);
        if (!copy.ptr) {
            sql__fail_memory(q);
            return NULL;
        }
        value.s = copy;
    }
    chr_arena_reset(&q->scratch);
    return sql__const(q, e->type, valid ? &value : NULL, e->pos);
}

struct sql_expr *sql__node(struct sql_query *q, enum sql_expr_kind kind, int op, enum db_type type,
                           uint32_t pos, struct sql_expr **args, uint32_t count)
{
    struct sql_expr *e = SQL_NEW(q, struct sql_expr);
    if (!e)
        return NULL;
    e->kind = (uint8_t)kind;
    e->op = (uint8_t)op;
    e->type = type;
    e->pos = pos;
    e->args = args;
    e->args_count = count;
    e->reads = SQL_READS_NONE;
    for (uint32_t i = 0; i < count; i++) {
        const struct sql_expr *a = args[i];
        e->volatile_ |= a->volatile_;
        if (a->reads == SQL_READS_NONE)
            continue;
        if (e->reads == SQL_READS_NONE)
            e->reads = a->reads;
        else if (e->reads != a->reads)
            e->reads = SQL_READS_MANY;
    }
    return e;
}

/* -- Conversions -------------------------------------------------------------------------------*/

static bool v_int_to_float(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    const struct db_vector *a = sql__eval_flat(ev, e->args[0], rows);
    if (!a || !sql__out(ev, e, rows.n))
        return false;
    if (!sql__out_and_validity(ev, e, a, NULL, rows.n))
        return true;
    if (a->form == DB_VECTOR_CONSTANT) {
        for (uint32_t i = 0; i < rows.n; i++)
            ((double *)e->data)[i] = (double)a->i64[0];
        return true;
    }
    sql__k_i64_to_f64(a->i64, rows.n, e->data);
    return true;
}

struct sql_expr *sql__cast(struct sql_query *q, struct sql_expr *e, enum db_type type, uint32_t pos)
{
    if (!e || (e->type == type && !e->literal))
        return e;
    if (sql__is_null_const(e))
        return sql__const(q, type, NULL, e->pos);
    if (e->literal && type == DB_STRING)
        return sql__const(q, DB_STRING, &e->value.v, e->pos);
    sql_row_fn fn = sql__cast_fn(e->type, type);
    if (!fn) {
        sql__fail(q, "42846", pos, "cannot cast type %s to %s", sql__type_name(e->type),
                  sql__type_name(type));
        return NULL;
    }
    struct sql_expr **args = SQL_ARRAY(q, struct sql_expr *, 1);
    if (!args)
        return NULL;
    args[0] = e;
    struct sql_expr *c = sql__node(q, SQL_EXPR_CALL, 0, type, pos, args, 1);
    if (!c)
        return NULL;
    c->row_fn = fn;
    c->strict = true;
    c->name = "cast";
    if (e->type == DB_INT && type == DB_FLOAT)
        c->vec_fn = v_int_to_float;
    if (!e->literal)
        return sql__fold(q, c);
    /* A literal that cannot be what it has to be is wrong whether it is asked for or not. */
    c->pos = e->pos;
    struct sql_expr *folded = sql__fold(q, c);
    if (folded && folded->kind != SQL_EXPR_CONST) {
        struct sql_eval ev = {.q = q};
        (void)sql__eval(&ev, c, (struct sql_rows){NULL, 1, 1});
        return NULL;
    }
    return folded;
}

struct sql_expr *sql__coerce(struct sql_query *q, struct sql_expr *e, enum db_type type)
{
    if (e->type == type && !e->literal)
        return e;
    if (e->literal || sql__is_null_const(e) || (e->type == DB_INT && type == DB_FLOAT))
        return sql__cast(q, e, type, e->pos);
    return NULL;
}

struct sql_expr *sql__assign(struct sql_query *q, struct sql_expr *e, enum db_type type,
                             const char *column)
{
    struct sql_expr *r = sql__coerce(q, e, type);
    if (r || q->failed)
        return r;
    if ((e->type == DB_FLOAT && type == DB_INT) || (type == DB_STRING && e->type != DB_BLOB))
        return sql__cast(q, e, type, e->pos);
    sql__fail(q, "42804", e->pos, "column \"%s\" is of type %s but expression is of type %s",
              column, sql__type_name(type), sql__type_name(e->type));
    if (sql__cast_fn(e->type, type))
        sql__hint(q, "You will need to rewrite or cast the expression.");
    return NULL;
}

/* -- Text for plans ----------------------------------------------------------------------------*/

static void datum_text(const struct sql_datum *d, struct chr_buf *out)
{
    char text[SQL_INTERVAL_TEXT_MAX];
    if (d->null) {
        chr_buf_add_cstr(out, "NULL");
        return;
    }
    switch ((int)d->type) {
    case DB_INT:
        chr_buf_add(out, text, chr_format_i64(d->v.i, text));
        break;
    case DB_FLOAT:
        chr_buf_add(out, text, chr_format_f64(d->v.f, text));
        break;
    case DB_BOOLEAN:
        chr_buf_add_cstr(out, d->v.b ? "true" : "false");
        break;
    case DB_TIMESTAMP:
        chr_buf_add_u8(out, '\'');
        chr_buf_add(out, text, chr_timestamp_format(d->v.i, text));
        chr_buf_add_u8(out, '\'');
        break;
    case DB_TYPES_END:
        chr_buf_add_u8(out, '\'');
        chr_buf_add(out, text, sql__interval_format(d->v.iv, text));
        chr_buf_add_u8(out, '\'');
        break;
    case DB_BLOB:
        chr_buf_add_cstr(out, "X'");
        for (size_t i = 0; i < CHR_MIN(d->v.s.len, (size_t)32); i++)
            chr_buf_addf(out, "%02x", d->v.s.ptr[i]);
        chr_buf_add_u8(out, '\'');
        break;
    default:
        chr_buf_addf(out, "'%.*s'", (int)CHR_MIN(d->v.s.len, (size_t)100),
                     d->v.s.len ? (const char *)d->v.s.ptr : "");
    }
}

static const char *const op_texts[] = {
    [SQL_OP_ADD] = "+",
    [SQL_OP_SUB] = "-",
    [SQL_OP_MUL] = "*",
    [SQL_OP_DIV] = "/",
    [SQL_OP_MOD] = "%",
    [SQL_OP_NEG] = "-",
    [SQL_OP_EQ] = "=",
    [SQL_OP_NE] = "<>",
    [SQL_OP_LT] = "<",
    [SQL_OP_LE] = "<=",
    [SQL_OP_GT] = ">",
    [SQL_OP_GE] = ">=",
    [SQL_OP_DISTINCT] = "IS DISTINCT FROM",
    [SQL_OP_NOT_DISTINCT] = "IS NOT DISTINCT FROM",
    [SQL_OP_IS_NULL] = "IS NULL",
    [SQL_OP_IS_NOT_NULL] = "IS NOT NULL",
    [SQL_OP_IS_TRUE] = "IS TRUE",
    [SQL_OP_IS_NOT_TRUE] = "IS NOT TRUE",
    [SQL_OP_IS_FALSE] = "IS FALSE",
    [SQL_OP_IS_NOT_FALSE] = "IS NOT FALSE",
};

static void list_text(const struct sql_binder *b, const struct sql_expr *e, const char *between,
                      struct chr_buf *out)
{
    for (uint32_t i = 0; i < e->args_count; i++) {
        if (i)
            chr_buf_add_cstr(out, between);
        sql__expr_text(b, e->args[i], out);
    }
}

void sql__expr_text(const struct sql_binder *b, const struct sql_expr *e, struct chr_buf *out)
{
    switch ((enum sql_expr_kind)e->kind) {
    case SQL_EXPR_CONST:
        datum_text(&e->value, out);
        break;
    case SQL_EXPR_SLOT:
        chr_buf_add_cstr(out, e->name ? e->name : "?");
        break;
    case SQL_EXPR_ARITH:
    case SQL_EXPR_COMPARE:
        chr_buf_add_u8(out, '(');
        if (e->args_count == 1)
            chr_buf_add_cstr(out, op_texts[e->op]);
        sql__expr_text(b, e->args[0], out);
        if (e->args_count == 2) {
            chr_buf_addf(out, " %s ", op_texts[e->op]);
            sql__expr_text(b, e->args[1], out);
        }
        chr_buf_add_u8(out, ')');
        break;
    case SQL_EXPR_AND:
    case SQL_EXPR_OR:
        chr_buf_add_u8(out, '(');
        list_text(b, e, e->kind == SQL_EXPR_AND ? " AND " : " OR ", out);
        chr_buf_add_u8(out, ')');
        break;
    case SQL_EXPR_NOT:
        chr_buf_add_cstr(out, "(NOT ");
        sql__expr_text(b, e->args[0], out);
        chr_buf_add_u8(out, ')');
        break;
    case SQL_EXPR_IS:
        chr_buf_add_u8(out, '(');
        sql__expr_text(b, e->args[0], out);
        chr_buf_addf(out, " %s)", op_texts[e->op]);
        break;
    case SQL_EXPR_IN: {
        const sql_val *values;
        uint32_t n = sql__set_values(e->state, &values);
        sql__expr_text(b, e->args[0], out);
        chr_buf_add_cstr(out, " IN (");
        for (uint32_t i = 0; i < n && i < 10; i++) {
            if (i)
                chr_buf_add_cstr(out, ", ");
            datum_text(&(struct sql_datum){e->args[0]->type, false, values[i]}, out);
        }
        chr_buf_add_cstr(out, n > 10 ? ", …)" : ")");
        break;
    }
    case SQL_EXPR_CASE:
        chr_buf_add_cstr(out, "CASE(");
        list_text(b, e, ", ", out);
        chr_buf_add_u8(out, ')');
        break;
    case SQL_EXPR_COALESCE:
        chr_buf_add_cstr(out, "coalesce(");
        list_text(b, e, ", ", out);
        chr_buf_add_u8(out, ')');
        break;
    case SQL_EXPR_CALL:
        chr_buf_addf(out, "%s(", e->name);
        list_text(b, e, ", ", out);
        if (strcmp(e->name, "cast") == 0)
            chr_buf_addf(out, " AS %s", sql__type_name(e->type));
        chr_buf_add_u8(out, ')');
        break;
    case SQL_EXPR_LET:
        sql__expr_text(b, e->args[1], out);
        chr_buf_add_cstr(out, " with $ = ");
        sql__expr_text(b, e->args[0], out);
        break;
    case SQL_EXPR_SHARED:
        chr_buf_add_u8(out, '$');
        break;
    case SQL_EXPR_AGG: {
        const struct sql_agg *agg = &b->aggs[e->slot];
        chr_buf_addf(out, "%s(%s", agg->name, agg->distinct ? "DISTINCT " : "");
        if (agg->arg)
            sql__expr_text(b, agg->arg, out);
        else
            chr_buf_add_u8(out, '*');
        chr_buf_add_u8(out, ')');
        break;
    }
    }
}
