/* sqlfront/insert.c: INSERT … VALUES and INSERT … SELECT. */
#include "sqlfront/bind.h"
#include "sqlfront/plan.h"

struct insert {
    struct sql_query *q;
    const db_catalog *catalog;
    const struct db_table_def *table;
    uint16_t *columns; /* of the table, in the order of the values */
    uint32_t columns_count;
    struct db_rows_builder builder;
    bool builder_open;
    enum db_rows_mode mode;
};

static bool target_columns(struct insert *in, const struct sql_stmt *stmt)
{
    struct sql_query *q = in->q;
    in->columns = SQL_ARRAY(q, uint16_t, in->table->columns_count + stmt->columns.count + 1);
    if (!in->columns)
        return false;
    if (!stmt->columns.count) {
        for (uint16_t c = 0; c < in->table->columns_count; c++)
            in->columns[in->columns_count++] = c;
        return true;
    }
    for (const struct sql_name *n = stmt->columns.first; n; n = n->next) {
        int c = sql__column_index(in->table, n->text);
        if (c < 0)
            return sql__no_column(q, in->table, n->text, n->pos);
        if (c >= in->table->columns_count)
            return sql__fail(q, "42601", n->pos, "column \"%.*s\" is kept by the node itself",
                             CHR_SLICE_ARGS(n->text));
        for (uint32_t i = 0; i < in->columns_count; i++)
            if (in->columns[i] == c)
                return sql__fail(q, "42701", n->pos, "column \"%.*s\" specified more than once",
                                 CHR_SLICE_ARGS(n->text));
        in->columns[in->columns_count++] = (uint16_t)c;
    }
    return true;
}

static bool is_key(const struct db_table_def *table, uint32_t column)
{
    for (uint32_t k = 0; k < table->key_count; k++)
        if (table->key_columns[k] == column)
            return true;
    return false;
}

/* ON CONFLICT: the key is the only thing that can conflict, and an update takes the new row. */
static bool conflict_mode(struct insert *in, const struct sql_stmt *stmt)
{
    struct sql_query *q = in->q;
    const struct db_table_def *t = in->table;
    in->mode = DB_ROWS_INSERT;
    if (stmt->conflict == SQL_CONFLICT_ERROR)
        return true;
    if (stmt->conflict_columns.count || stmt->conflict == SQL_CONFLICT_UPDATE) {
        bool same = stmt->conflict_columns.count == t->key_count && t->key_count > 0;
        for (const struct sql_name *n = stmt->conflict_columns.first; n; n = n->next) {
            int c = db_table_column(t, n->text);
            if (c < 0)
                return sql__no_column(q, t, n->text, n->pos);
            same &= is_key(t, (uint32_t)c);
        }
        if (stmt->conflict == SQL_CONFLICT_UPDATE && !stmt->conflict_columns.count)
            return sql__fail(q, "42601", stmt->conflict_pos,
                             "ON CONFLICT DO UPDATE requires the columns of the primary key");
        if (!same)
            return sql__fail(q, "42P10", stmt->conflict_pos,
                             "there is no primary key matching the ON CONFLICT specification");
    }
    if (stmt->conflict == SQL_CONFLICT_NOTHING) {
        in->mode = t->key_count ? DB_ROWS_IGNORE : DB_ROWS_INSERT;
        return true;
    }
    in->mode = DB_ROWS_REPLACE;
    uint32_t others = 0;
    for (uint32_t i = 0; i < in->columns_count; i++)
        others += !is_key(t, in->columns[i]);
    for (const struct sql_item *i = stmt->conflict_set.first; i; i = i->next) {
        int c = db_table_column(t, i->name);
        if (c < 0)
            return sql__no_column(q, t, i->name, i->pos);
        const struct sql_ast *e = i->expr;
        bool excluded = e->kind == SQL_AST_NAME &&
                        chr_slice_eq(e->qualifier, CHR_LIT("excluded")) &&
                        chr_slice_eq(e->text, i->name);
        bool inserted = false;
        for (uint32_t k = 0; k < in->columns_count; k++)
            inserted |= in->columns[k] == c;
        if (!excluded || !inserted)
            return sql__fail(q, "0A000", i->pos,
                             "ON CONFLICT DO UPDATE supports SET column = excluded.column for the "
                             "inserted columns only, so far");
    }
    if (stmt->conflict_set.count < others)
        return sql__fail(q, "0A000", stmt->conflict_pos,
                         "ON CONFLICT DO UPDATE has to set all inserted columns, so far");
    return true;
}

static bool put_value(struct insert *in, uint16_t column, enum db_type type, const sql_val *v)
{
    struct db_rows_builder *b = &in->builder;
    switch (type) {
    case DB_FLOAT:
        db_rows_put_f64(b, column, v->f);
        return true;
    case DB_BOOLEAN:
        db_rows_put_bool(b, column, v->b);
        return true;
    case DB_STRING:
    case DB_BLOB: {
        chr_err err = db_rows_put_bytes(b, column, v->s);
        if (err == CHR_EFULL)
            err = CHR_ETOOBIG;
        return err ? sql__fail_err(in->q, err, NULL) : true;
    }
    default:
        db_rows_put_i64(b, column, v->i);
        return true;
    }
}

static bool end_row(struct insert *in)
{
    struct chr_errmsg msg = {0};
    chr_err err = db_rows_end(&in->builder, in->q->now_us, &msg);
    if (err == CHR_EFULL) {
        sql__fail(in->q, "54000", SQL_NO_POS, "more than %u rows in one INSERT",
                  (unsigned)in->builder.rows_max);
        return false;
    }
    if (err)
        return sql__fail_err(in->q, err, &msg);
    if (in->builder.bytes > 2 * DB_ENTRY_BYTES_MAX)
        return sql__fail(in->q, "54000", SQL_NO_POS,
                         "the statement changes more than fits one log entry (4 MiB)");
    return true;
}

static bool insert_values(struct insert *in, const struct sql_stmt *stmt)
{
    struct sql_query *q = in->q;
    struct sql_binder binder;
    if (!sql__binder_init(&binder, q, NULL, (chr_slice){0}))
        return false;
    binder.clause = "VALUES";
    for (const struct sql_row_ast *row = stmt->rows; row; row = row->next) {
        if (row->values.count > in->columns_count)
            return sql__fail(q, "42601", row->values.last->pos,
                             "INSERT has more expressions than target columns");
        if (row->values.count < in->columns_count && stmt->columns.count)
            return sql__fail(q, "42601", row->pos,
                             "INSERT has more target columns than expressions");
        uint32_t i = 0;
        for (const struct sql_ast *a = row->values.first; a; a = a->next, i++) {
            uint16_t column = in->columns[i];
            const struct db_column_def *def = &in->table->columns[column];
            if (a->kind == SQL_AST_DEFAULT)
                continue; /* NULL: columns have no other default yet */
            struct sql_expr *e = sql__bind(&binder, a);
            if (e)
                e = sql__assign(q, e, def->type, def->name);
            if (!e)
                return false;
            if (!sql__is_const(e)) {
                struct sql_eval ev = {.q = q};
                const struct db_vector *v = sql__eval(&ev, e, (struct sql_rows){NULL, 1, 1});
                if (!v)
                    return false;
                sql_val value;
                if (sql__vector_get(v, 0, &value)) {
                    if (!put_value(in, column, def->type, &value))
                        return false;
                } else {
                    db_rows_put_null(&in->builder, column);
                }
            } else if (e->value.null) {
                db_rows_put_null(&in->builder, column);
            } else if (!put_value(in, column, def->type, &e->value.v)) {
                return false;
            }
        }
        if (!end_row(in))
            return false;
        chr_arena_reset(&q->scratch);
    }
    return true;
}

/* -- INSERT … SELECT: a sink that builds rows --------------------------------------------------*/

struct copy {
    struct insert *in;
    struct sql_expr **casts; /* per column, over slots; NULL: as it is */
    struct db_vector **slots;
    uint32_t pos;
};

static chr_err copy_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    struct copy *c = ctx;
    struct insert *in = c->in;
    struct sql_query *q = in->q;
    if (count != in->columns_count) {
        sql__fail(q, "42601", c->pos,
                  count > in->columns_count ? "INSERT has more expressions than target columns"
                                            : "INSERT has more target columns than expressions");
        return CHR_EINVAL;
    }
    c->casts = SQL_ARRAY(q, struct sql_expr *, count);
    c->slots = SQL_ARRAY(q, struct db_vector *, count);
    if (!c->casts || !c->slots)
        return CHR_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        const struct db_column_def *def = &in->table->columns[in->columns[i]];
        struct sql_expr *slot = sql__node(q, SQL_EXPR_SLOT, 0, columns[i].type, c->pos, NULL, 0);
        if (!slot)
            return CHR_ENOMEM;
        slot->slot = i;
        slot->reads = (int32_t)i;
        slot->name = def->name;
        if (!(c->casts[i] = sql__assign(q, slot, def->type, def->name)))
            return CHR_ETYPE;
    }
    return CHR_OK;
}

static chr_err copy_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns_count,
                         const uint16_t *sel, uint32_t count)
{
    struct copy *c = ctx;
    struct insert *in = c->in;
    struct sql_rows rows = {sel, count, vectors[0]->count};
    if (!sel)
        rows.n = count;
    else
        rows.n = (uint32_t)sel[count - 1] + 1;
    struct sql_eval ev = {.q = in->q, .slots = c->slots, .slots_count = columns_count};
    const struct db_vector **values = SQL_ARRAY(in->q, const struct db_vector *, columns_count);
    if (!values)
        return CHR_ENOMEM;
    for (uint32_t i = 0; i < columns_count; i++)
        c->slots[i] = (struct db_vector *)(uintptr_t)vectors[i];
    for (uint32_t i = 0; i < columns_count; i++)
        if (!(values[i] = sql__eval(&ev, c->casts[i], rows)))
            return CHR_EINVAL;
    for (uint32_t j = 0; j < count; j++) {
        uint32_t row = sql__row(rows, j);
        for (uint32_t i = 0; i < columns_count; i++) {
            sql_val v;
            uint16_t column = in->columns[i];
            if (!sql__vector_get(values[i], row, &v))
                db_rows_put_null(&in->builder, column);
            else if (!put_value(in, column, in->table->columns[column].type, &v))
                return CHR_EINVAL;
        }
        if (!end_row(in))
            return CHR_EINVAL;
    }
    return CHR_OK;
}

static bool insert_select(struct insert *in, const struct sql_stmt *stmt)
{
    struct copy copy = {.in = in, .pos = stmt->select->pos};
    struct sql_sink sink = {.ctx = &copy, .begin = copy_begin, .rows = copy_rows};
    uint64_t rows;
    if (!sql__run_select(in->q, stmt->select, &sink, &rows))
        return false;
    in->q->rows_sent = in->q->bytes_sent = 0;
    return true;
}

bool sql__run_insert(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    struct insert in = {.q = q, .catalog = db_catalog_acquire(q->session->db)};
    struct db_entry entry = {0};
    struct sql_applied applied;
    bool ok = false;
    in.table = sql__find_table(q, in.catalog, stmt->table, stmt->table_pos);
    uint8_t needed = DB_PRIVILEGE_INSERT;
    if (stmt->conflict == SQL_CONFLICT_UPDATE)
        needed |= DB_PRIVILEGE_UPDATE;
    if (!in.table || !sql__may(q, in.table, needed, stmt->table_pos) ||
        !sql__may_write(q, in.table, stmt->table_pos) || !target_columns(&in, stmt) ||
        !conflict_mode(&in, stmt))
        goto out;
    chr_err err = db_rows_init(&in.builder, in.table, DB_OP_ROWS_MAX);
    if (err) {
        sql__fail_err(q, err, NULL);
        goto out;
    }
    in.builder_open = true;
    if (!(stmt->select ? insert_select(&in, stmt) : insert_values(&in, stmt)))
        goto out;
    if (in.builder.rows == 0) {
        ok = true;
        goto out;
    }
    sql__write_begin(q, &entry);
    db_rows_finish(&in.builder, in.mode, &entry);
    if (!sql__write_propose(q, &entry, &applied) || !sql__write_check(q, &applied, in.table))
        goto out;
    done->row_count = applied.rows;
    done->duplicate = applied.err == CHR_EEXIST;
    done->apply_index = applied.index;
    ok = true;
out:
    db_entry_free(&entry);
    if (in.builder_open)
        db_rows_free(&in.builder);
    db_catalog_release(in.catalog);
    return ok;
}
