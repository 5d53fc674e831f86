/* sqlfront/explain.c: SELECT, and EXPLAIN [ANALYZE] of one. */
#include "base/buf.h"
#include "sqlfront/plan.h"
#include "sqlfront/relation.h"

bool sql__run_select(struct sql_query *q, const struct sql_stmt *stmt, const struct sql_sink *sink,
                     uint64_t *rows)
{
    db_read *read = NULL;
    *rows = 0;
    if (!sql__begin_read(q, !sql__reads_relation(q, stmt), &read))
        return false;
    struct sql_plan *plan = sql__plan_select(q, db_read_catalog(read), stmt);
    struct sql_run_counts counts = {0};
    bool ok = plan && sql__execute_plan(plan, read, sink, &counts);
    *rows = counts.rows_out;
    db_read_end(read);
    return ok;
}

/* -- EXPLAIN -----------------------------------------------------------------------------------*/

static chr_err ignore_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    (void)ctx;
    (void)columns;
    (void)count;
    return CHR_OK;
}
static chr_err ignore_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns,
                           const uint16_t *sel, uint32_t count)
{
    (void)ctx;
    (void)vectors;
    (void)columns;
    (void)sel;
    (void)count;
    return CHR_OK;
}

struct lines {
    struct sql_query *q;
    struct chr_buf buf;
    const char *cells[64];
    uint32_t count;
};

static void line(struct lines *l)
{
    CHR_ASSERT(l->count < CHR_COUNT_OF(l->cells)); /* a plan has a dozen lines */
    if (l->buf.failed) {                           /* an expression of more than 64 KiB */
        chr_buf_reset(&l->buf);
        chr_buf_add_cstr(&l->buf, "(too long to show)");
    }
    l->cells[l->count++] = chr_arena_cstr(&l->q->arena, chr_buf_slice(&l->buf));
    chr_buf_reset(&l->buf);
}

static void bound_text(const struct sql_plan *p, const struct db_bound *b, struct chr_buf *out)
{
    struct sql_expr constant = {.kind = SQL_EXPR_CONST};
    const struct db_value *values[2] = {b->has_low ? &b->low : NULL, b->has_high ? &b->high : NULL};
    const char *ops[2] = {b->low_inclusive ? ">=" : ">", b->high_inclusive ? "<=" : "<"};
    for (int i = 0, said = 0; i < 2; i++) {
        const struct db_value *v = values[i];
        if (!v)
            continue;
        constant.value = (struct sql_datum){.type = v->type};
        if (v->type == DB_FLOAT)
            constant.value.v.f = v->f64;
        else if (v->type == DB_BOOLEAN)
            constant.value.v.b = v->boolean;
        else if (db_type_is_bytes(v->type))
            constant.value.v.s = v->bytes;
        else
            constant.value.v.i = v->i64;
        chr_buf_addf(out, "%s%s %s ", said++ ? " AND " : "", sql__column_name(p->table, b->column),
                     ops[i]);
        sql__expr_text(&p->binder, &constant, out);
    }
}

static void plan_text(struct lines *l, const struct sql_plan *p)
{
    struct chr_buf *b = &l->buf;
    const struct sql_binder *binder = &p->binder;
    if (p->has_limit || p->offset) {
        if (p->has_limit)
            chr_buf_addf(b, "Limit: %llu", (unsigned long long)p->limit);
        if (p->offset)
            chr_buf_addf(b, "%sOffset: %llu", p->has_limit ? ", " : "",
                         (unsigned long long)p->offset);
        line(l);
    }
    if (p->order_count) {
        chr_buf_addf(b, "%s by ", p->has_limit ? "Top-N" : "Sort");
        for (uint32_t i = 0; i < p->order_count; i++) {
            const struct sql_output *o = &p->outputs[p->order[i].output];
            if (i)
                chr_buf_add_cstr(b, ", ");
            if (o->name.ptr)
                chr_buf_add_slice(b, o->name);
            else
                sql__expr_text(binder, o->expr, b);
            if (p->order[i].descending)
                chr_buf_add_cstr(b, " DESC");
        }
        line(l);
    }
    if (p->distinct) {
        chr_buf_add_cstr(b, "Distinct");
        line(l);
    }
    if (p->having) {
        chr_buf_add_cstr(b, "Having: ");
        sql__expr_text(binder, p->having, b);
        line(l);
    }
    if (p->aggregated) {
        chr_buf_add_cstr(b, p->keys_count ? "Hash aggregate by " : "Aggregate");
        for (uint32_t k = 0; k < p->keys_count; k++) {
            if (k)
                chr_buf_add_cstr(b, ", ");
            sql__expr_text(binder, p->keys[k], b);
        }
        for (uint32_t a = 0; a < binder->aggs_count; a++) {
            struct sql_expr e = {.kind = SQL_EXPR_AGG, .slot = a};
            chr_buf_add_cstr(b, a ? ", " : ": ");
            sql__expr_text(binder, &e, b);
        }
        line(l);
    }
    if (p->where || p->never) {
        chr_buf_add_cstr(b, "Filter: ");
        if (p->never)
            chr_buf_add_cstr(b, "never true");
        else
            sql__expr_text(binder, p->where, b);
        line(l);
    }
    if (!p->table) {
        chr_buf_add_cstr(b, "One row");
        line(l);
        return;
    }
    chr_buf_addf(b, "Scan %s: ", p->table->name);
    for (uint32_t s = 0; s < binder->slots_count; s++)
        chr_buf_addf(b, "%s%s", s ? ", " : "", sql__column_name(p->table, binder->columns[s]));
    if (!binder->slots_count)
        chr_buf_add_cstr(b, "no columns");
    line(l);
    if (p->bounds_count && !sql__is_relation(p->table)) {
        chr_buf_add_cstr(b, "  Prune by: ");
        for (uint32_t i = 0; i < p->bounds_count; i++) {
            if (i)
                chr_buf_add_cstr(b, " AND ");
            bound_text(p, &p->bounds[i], b);
        }
        line(l);
    }
}

bool sql__run_explain(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows)
{
    db_read *read = NULL;
    struct lines l = {.q = q};
    chr_buf_init(&l.buf, 64u << 10);
    bool ok = false;
    if (!sql__begin_read(q, true, &read))
        goto out;
    struct sql_plan *plan = sql__plan_select(q, db_read_catalog(read), stmt->select);
    if (!plan)
        goto out;
    plan_text(&l, plan);
    if (stmt->analyze) {
        struct sql_sink nowhere = {.begin = ignore_begin, .rows = ignore_rows};
        struct sql_run_counts n = {0};
        int64_t begun = chr_clock_mono_us(q->session->host.clock);
        if (!sql__execute_plan(plan, read, &nowhere, &n))
            goto out;
        int64_t us = chr_clock_mono_us(q->session->host.clock) - begun;
        chr_buf_addf(
            &l.buf, "  Chunks: %llu total, %llu pruned, %llu from statistics, %llu decoded",
            (unsigned long long)n.scan.chunks_total, (unsigned long long)n.scan.chunks_pruned,
            (unsigned long long)n.scan.chunks_from_statistics,
            (unsigned long long)n.scan.chunks_decoded);
        line(&l);
        chr_buf_addf(&l.buf, "  Rows: %llu scanned, %llu met the filter",
                     (unsigned long long)n.scan.rows_scanned, (unsigned long long)n.rows_filtered);
        line(&l);
        if (plan->aggregated) {
            chr_buf_addf(&l.buf, "Groups: %llu", (unsigned long long)n.groups);
            line(&l);
        }
        chr_buf_addf(&l.buf, "Rows out: %llu", (unsigned long long)n.rows_out);
        line(&l);
        chr_buf_addf(&l.buf, "Time: %.3f ms", (double)us / 1000);
        line(&l);
        q->rows_sent = q->bytes_sent = 0;
    }
    struct sql_column column = {CHR_LIT("plan"), DB_STRING};
    *rows = l.count;
    ok = sql__send_texts(q, &column, 1, l.cells, l.count);
out:
    chr_buf_free(&l.buf);
    db_read_end(read);
    return ok;
}
