/* sqlfront/exec/scan.c: drives a reader over a table: prunes by bounds, filters, hands batches on.
 */
#include "sqlfront/plan.h"
#include "sqlfront/relation.h"

struct source {
    struct sql_query *q;
    db_reader *reader;
};

static bool load_column(struct sql_eval *ev, uint32_t slot)
{
    struct source *s = ev->source;
    chr_err err = CHR_OK;
    struct chr_errmsg msg = {0};
    ev->slots[slot] = db_reader_column(s->reader, slot, &err, &msg);
    return ev->slots[slot] || sql__fail_err(s->q, err ? err : CHR_ENOMEM, &msg);
}

/* Every row of the morsel meets the condition, as its statistics show. */
static bool covered(const struct sql_plan *p, const struct sql_conjunct *c, db_reader *reader)
{
    if (!c->is_bounds)
        return false;
    for (uint32_t i = 0; i < c->bounds_count; i++) {
        const struct db_bound *b = &c->bounds[i];
        uint32_t slot = 0;
        while (p->binder.columns[slot] != b->column)
            slot++;
        struct db_column_stats s;
        if (!db_reader_stats(reader, slot, &s) || s.nulls || s.min.null || s.max.null)
            return false;
        enum db_type type = sql__column_type(p->table, b->column);
#define CMP(x, y)                                                                                  \
    (type == DB_FLOAT         ? sql__f64_cmp((x).f64, (y).f64)                                     \
     : type == DB_BOOLEAN     ? (int)(x).boolean - (int)(y).boolean                                \
     : db_type_is_bytes(type) ? chr_slice_cmp((x).bytes, (y).bytes)                                \
                              : ((x).i64 > (y).i64) - ((x).i64 < (y).i64))
        if (b->has_low) {
            int order = CMP(s.min, b->low);
            if (order < 0 || (order == 0 && !b->low_inclusive))
                return false;
        }
        if (b->has_high) {
            int order = CMP(s.max, b->high);
            if (order > 0 || (order == 0 && !b->high_inclusive))
                return false;
        }
#undef CMP
    }
    return true;
}

static bool read_morsel(struct sql_plan *p, db_reader *reader, struct sql_eval *ev,
                        struct sql_scan_visit *visit, struct sql_expr *where, uint16_t *sel,
                        struct db_row_id *ids, struct sql_run_counts *counts)
{
    struct sql_query *q = p->q;
    struct chr_errmsg msg = {0};
    struct db_batch batch;
    int r = 0; /* gcc with ASan does not see that visit->stop comes first */
    while (!visit->stop && (r = db_reader_next_batch(reader, &batch, &msg)) > 0) {
        if (!sql__check(q))
            return false;
        chr_arena_reset(&q->scratch);
        memset(ev->slots, 0, p->binder.slots_count * sizeof *ev->slots);
        struct sql_rows rows = {batch.sel, batch.sel_count, batch.rows};
        if (where) {
            uint32_t count;
            if (!sql__filter(ev, where, rows, sel, &count))
                return false;
            if (count < rows.count || rows.sel) /* all of a dense batch: stays dense */
                rows = (struct sql_rows){sel, count, batch.rows};
        }
        counts->rows_filtered += rows.count;
        if (rows.count == 0)
            continue;
        if (visit->want_ids) {
            chr_err err = db_reader_row_ids(reader, ids, &msg);
            if (err)
                return sql__fail_err(q, err, &msg);
        }
        if (!visit->batch(visit->ctx, ev, rows, visit->want_ids ? ids : NULL))
            return false;
    }
    return visit->stop || r == 0 || sql__fail_err(q, r, &msg);
}

/* WHERE less the conditions that all rows of the morsel meet; NULL: nothing is left of it. rest: an
 * AND to fill in. */
static struct sql_expr *open_conditions(const struct sql_plan *p, db_reader *reader,
                                        struct sql_expr *rest)
{
    if (p->conjuncts_count == 1)
        return covered(p, &p->conjuncts[0], reader) ? NULL : p->where;
    rest->args_count = 0;
    for (uint32_t i = 0; i < p->conjuncts_count; i++)
        if (!covered(p, &p->conjuncts[i], reader))
            rest->args[rest->args_count++] = p->conjuncts[i].expr;
    return rest->args_count == 0                    ? NULL
           : rest->args_count == 1                  ? rest->args[0]
           : rest->args_count == p->conjuncts_count ? p->where
                                                    : rest;
}

bool sql__scan(struct sql_plan *p, db_read *read, struct sql_scan_visit *visit,
               struct sql_run_counts *counts)
{
    if (sql__is_relation(p->table))
        return sql__scan_relation(p, visit, counts);
    struct sql_query *q = p->q;
    db_scan *scan = NULL;
    db_reader *reader = NULL;
    struct chr_errmsg msg = {0};
    bool ok = false;
    struct source source = {.q = q};
    struct sql_eval ev = {
        .q = q, .slots_count = p->binder.slots_count, .load = load_column, .source = &source};
    ev.slots = SQL_ARRAY(q, struct db_vector *, p->binder.slots_count + 1);
    uint16_t *sel = SQL_ARRAY(q, uint16_t, DB_VECTOR_ROWS);
    struct sql_expr rest = {.kind = SQL_EXPR_AND, .op = SQL_OP_AND, .type = DB_BOOLEAN};
    rest.reads = SQL_READS_MANY;
    rest.args = SQL_ARRAY(q, struct sql_expr *, p->conjuncts_count + 1);
    struct db_row_id *ids = visit->want_ids ? SQL_ARRAY(q, struct db_row_id, DB_VECTOR_ROWS) : NULL;
    if (!ev.slots || !sel || !rest.args || (visit->want_ids && !ids))
        return false;
    chr_err err = db_scan_open(read, p->table, p->binder.columns, p->binder.slots_count, p->bounds,
                               p->bounds_count, &scan);
    if (!err)
        err = db_reader_open(scan, &reader);
    if (err) {
        sql__fail_err(q, err, NULL);
        goto out;
    }
    source.reader = reader;
    struct db_morsel morsel;
    int r = 0; /* gcc with ASan does not see that visit->stop comes first */
    while (!visit->stop && (r = db_reader_next_morsel(reader, &morsel, &msg)) > 0) {
        if (!sql__check(q))
            goto out;
        struct sql_expr *where = p->where;
        if (where && morsel.chunk && morsel.exact)
            where = open_conditions(p, reader, &rest);
        if (!where && morsel.chunk && morsel.exact && visit->morsel) {
            bool done = false;
            if (!visit->morsel(visit->ctx, reader, &morsel, &done))
                goto out;
            if (done) {
                db_reader_used_stats(reader);
                counts->rows_filtered += morsel.rows;
                continue;
            }
        }
        if (!read_morsel(p, reader, &ev, visit, where, sel, ids, counts))
            goto out;
    }
    ok = visit->stop || r == 0 || sql__fail_err(q, r, &msg);
out:
    if (scan)
        db_scan_counts(scan, &counts->scan);
    if (reader)
        db_reader_close(reader);
    db_scan_close(scan);
    return ok;
}
