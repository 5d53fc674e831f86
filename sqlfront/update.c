/* sqlfront/update.c: UPDATE and DELETE: a scan finds row ids, an entry changes them.
 *
 * What was found is checked again at apply: when one of the rows is gone by then, nothing of the
 * entry happens and the statement looks again (R4), a few times before it says 40001. */
#include "sqlfront/bind.h"
#include "sqlfront/plan.h"

#define TRIES_MAX 5

struct change {
    struct sql_query *q;
    struct sql_plan *plan;
    struct db_row_id *ids;
    uint64_t count, capacity;
    /* UPDATE */
    struct db_rows_builder builder;
    bool building;
    struct sql_expr **values; /* per column of the table, then _received_at */
};

static bool keep_ids(struct change *ch, struct sql_rows rows, const struct db_row_id *ids)
{
    if (ch->count + rows.count > ch->capacity) {
        uint64_t capacity = ch->capacity ? 2 * ch->capacity : DB_VECTOR_ROWS;
        void *p = sql__grow(ch->q, ch->ids, capacity * sizeof *ch->ids);
        if (!p)
            return false;
        ch->ids = p;
        ch->capacity = capacity;
    }
    for (uint32_t j = 0; j < rows.count; j++)
        ch->ids[ch->count++] = ids[sql__row(rows, j)];
    /* 12 bytes an id at least: more than this cannot fit an entry. */
    if (ch->count > DB_ENTRY_BYTES_MAX / 12) {
        sql__fail(ch->q, "54000", SQL_NO_POS,
                  "the statement changes more than fits one log entry (4 MiB)");
        sql__hint(ch->q, "Narrow its WHERE and repeat it; TRUNCATE removes all rows at once.");
        return false;
    }
    return true;
}

static bool found_delete(void *ctx, struct sql_eval *ev, struct sql_rows rows,
                         const struct db_row_id *ids)
{
    (void)ev;
    return keep_ids(ctx, rows, ids);
}

static bool found_update(void *ctx, struct sql_eval *ev, struct sql_rows rows,
                         const struct db_row_id *ids)
{
    struct change *ch = ctx;
    struct sql_query *q = ch->q;
    const struct db_table_def *t = ch->plan->table;
    uint32_t columns = t->columns_count + 1u;
    const struct db_vector **vectors = sql__scratch(q, columns * sizeof *vectors);
    if (!vectors)
        return false;
    for (uint32_t c = 0; c < columns; c++)
        if (!(vectors[c] = sql__eval(ev, ch->values[c], rows)))
            return false;
    struct db_rows_builder *b = &ch->builder;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        for (uint16_t c = 0; c < t->columns_count; c++) {
            sql_val v;
            if (!sql__vector_get(vectors[c], row, &v)) {
                db_rows_put_null(b, c);
                continue;
            }
            chr_err err = CHR_OK;
            switch (t->columns[c].type) {
            case DB_FLOAT:
                db_rows_put_f64(b, c, v.f);
                break;
            case DB_BOOLEAN:
                db_rows_put_bool(b, c, v.b);
                break;
            case DB_STRING:
            case DB_BLOB:
                err = db_rows_put_bytes(b, c, v.s);
                break;
            default:
                db_rows_put_i64(b, c, v.i);
            }
            if (err)
                return sql__fail_err(q, err == CHR_EFULL ? CHR_ETOOBIG : err, NULL);
        }
        sql_val received = {.i = q->now_us};
        (void)sql__vector_get(vectors[t->columns_count], row, &received);
        struct chr_errmsg msg = {0};
        chr_err err = db_rows_end(b, received.i, &msg);
        if (err == CHR_EFULL || b->bytes > 2 * DB_ENTRY_BYTES_MAX) {
            sql__fail(q, "54000", SQL_NO_POS,
                      "the statement changes more than fits one log entry (4 MiB)");
            sql__hint(q, "Narrow its WHERE and repeat it.");
            return false;
        }
        if (err)
            return sql__fail_err(q, err, &msg);
    }
    return keep_ids(ch, rows, ids);
}

/* Every column is written again: the assigned ones by their expressions, the others as they are. */
static bool bind_sets(struct change *ch, const struct sql_stmt *stmt)
{
    struct sql_query *q = ch->q;
    const struct db_table_def *t = ch->plan->table;
    uint32_t columns = t->columns_count + 1u;
    ch->values = SQL_ARRAY(q, struct sql_expr *, columns);
    if (!ch->values)
        return false;
    ch->plan->binder.clause = "UPDATE";
    for (const struct sql_item *i = stmt->items.first; i; i = i->next) {
        int c = sql__column_index(t, i->name);
        if (c < 0)
            return sql__no_column(q, t, i->name, i->pos);
        if (c >= t->columns_count)
            return sql__fail(q, "42601", i->pos, "column \"%.*s\" is kept by the node itself",
                             CHR_SLICE_ARGS(i->name));
        if (ch->values[c])
            return sql__fail(q, "42601", i->pos, "multiple assignments to same column \"%.*s\"",
                             CHR_SLICE_ARGS(i->name));
        struct sql_expr *e;
        if (i->expr->kind == SQL_AST_DEFAULT)
            e = sql__const(q, t->columns[c].type, NULL, i->pos);
        else
            e = sql__bind(&ch->plan->binder, i->expr);
        if (!e || !(e = sql__assign(q, e, t->columns[c].type, t->columns[c].name)))
            return false;
        ch->values[c] = e;
    }
    for (uint32_t c = 0; c < columns; c++)
        if (!ch->values[c] && !(ch->values[c] = sql__bind_column(&ch->plan->binder, c, SQL_NO_POS)))
            return false;
    return true;
}

static bool change_once(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done,
                        bool *again)
{
    bool update = stmt->kind == SQL_STMT_UPDATE;
    db_read *read = NULL;
    struct db_entry entry = {0};
    struct change ch = {.q = q};
    bool ok = false;
    *again = false;
    if (!sql__begin_read(q, true, &read))
        return false;
    struct sql_plan plan = {.q = q};
    ch.plan = &plan;
    plan.table = sql__find_table(q, db_read_catalog(read), stmt->table, stmt->table_pos);
    /* Whoever says which rows learns something about them, as in PostgreSQL. */
    uint8_t needed = update ? DB_PRIVILEGE_UPDATE : DB_PRIVILEGE_DELETE;
    if (stmt->where || update)
        needed |= DB_PRIVILEGE_SELECT;
    if (!plan.table || !sql__may(q, plan.table, needed, stmt->table_pos) ||
        !sql__may_write(q, plan.table, stmt->table_pos) ||
        !sql__binder_init(&plan.binder, q, plan.table, stmt->alias) ||
        !sql__plan_where(&plan, stmt->where) || (update && !bind_sets(&ch, stmt)))
        goto out;
    if (update) {
        chr_err err = db_rows_init(&ch.builder, plan.table, DB_OP_ROWS_MAX);
        if (err) {
            sql__fail_err(q, err, NULL);
            goto out;
        }
        ch.building = true;
    }
    struct sql_scan_visit visit = {
        .batch = update ? found_update : found_delete, .ctx = &ch, .want_ids = true};
    struct sql_run_counts counts = {0};
    if (!plan.never && !sql__scan(&plan, read, &visit, &counts))
        goto out;
    if (ch.count == 0) {
        ok = true;
        goto out;
    }
    sql__write_begin(q, &entry);
    if (update)
        db_entry_add_update(&entry, &ch.builder, ch.ids);
    else
        for (uint64_t at = 0; at < ch.count; at += DB_OP_ROWS_MAX)
            db_entry_add_delete(&entry, plan.table->id, ch.ids + at,
                                (uint32_t)CHR_MIN(ch.count - at, (uint64_t)DB_OP_ROWS_MAX));
    struct sql_applied applied;
    if (!sql__write_propose(q, &entry, &applied))
        goto out;
    *again = applied.op_err == CHR_ECONFLICT;
    if (*again) {
        ok = true;
        goto out;
    }
    if (!sql__write_check(q, &applied, plan.table))
        goto out;
    done->row_count = applied.rows;
    done->duplicate = applied.err == CHR_EEXIST;
    done->apply_index = applied.index;
    ok = true;
out:
    db_entry_free(&entry);
    if (ch.building)
        db_rows_free(&ch.builder);
    sql__ungrow(q, ch.ids);
    db_read_end(read);
    return ok;
}

static bool change(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    bool again = true;
    for (int tries = 0; tries < TRIES_MAX && again; tries++)
        if (!change_once(q, stmt, done, &again))
            return false;
    return !again || sql__fail_err(q, CHR_ECONFLICT, NULL);
}

bool sql__run_update(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    return change(q, stmt, done);
}

bool sql__run_delete(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    return change(q, stmt, done);
}
