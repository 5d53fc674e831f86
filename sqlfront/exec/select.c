/* sqlfront/exec/select.c: runs a plan:
 *
 *     scan ─▶ filter ─▶ [groups and aggregates ─▶ HAVING] ─▶ outputs ─▶ [DISTINCT] ─▶ [sort] ─▶
 * sink
 *
 * Batches are pushed from left to right; only groups, the rows seen by DISTINCT and what ORDER BY
 * keeps live longer than a batch. */
#include "sqlfront/exec/agg.h"
#include "sqlfront/exec/group.h"
#include "sqlfront/exec/kernels.h"
#include "sqlfront/exec/sort.h"
#include "sqlfront/plan.h"

/* Runs of fewer rows than this cost more than picking the group row by row. */
#define RUN_ROWS_MIN 8

struct run {
    struct sql_query *q;
    struct sql_plan *plan;
    const struct sql_sink *sink;
    struct sql_run_counts *counts;
    struct sql_scan_visit visit;

    struct sql_groups *groups;
    struct sql_agg_state **aggs;
    const struct db_vector **keys;
    uint32_t *gids;
    uint16_t *run_ends;    /* of rows of one group */
    bool stats_can_answer; /* every aggregate and key, from statistics */

    const struct db_vector **outputs;
    struct sql_groups *distinct;
    uint32_t *distinct_gids;
    uint16_t *sel;
    struct sql_sorter *sorter;
    uint64_t skipped, sent;
};

/* -- Outputs -----------------------------------------------------------------------------------*/

static bool send(struct run *r, struct sql_rows rows)
{
    struct sql_plan *p = r->plan;
    uint64_t skip = CHR_MIN(p->offset - r->skipped, (uint64_t)rows.count);
    uint64_t count = rows.count - skip;
    if (p->has_limit && count >= p->limit - r->sent) {
        count = p->limit - r->sent;
        r->visit.stop = true;
    }
    r->skipped += skip;
    if (count == 0)
        return true;
    const uint16_t *sel = rows.sel ? rows.sel + skip : NULL;
    if (!rows.sel && (skip || count < rows.n)) {
        for (uint32_t j = 0; j < count; j++)
            r->sel[j] = (uint16_t)(skip + j);
        sel = r->sel;
    }
    r->sent += count;
    return sql__send_rows(r->q, r->sink, r->outputs, p->visible_count, sel, (uint32_t)count);
}

static bool emit(struct run *r, struct sql_eval *ev, struct sql_rows rows)
{
    struct sql_plan *p = r->plan;
    for (uint32_t i = 0; i < p->outputs_count; i++)
        if (!(r->outputs[i] = sql__eval(ev, p->outputs[i].expr, rows)))
            return false;
    if (r->distinct) {
        uint32_t known = sql__groups_count(r->distinct), k = 0;
        if (!sql__groups_find(r->distinct, r->outputs, rows, r->distinct_gids))
            return false;
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j);
            if (r->distinct_gids[row] < known)
                continue;
            known = r->distinct_gids[row] + 1;
            r->sel[k++] = (uint16_t)row;
        }
        rows = (struct sql_rows){r->sel, k, rows.n};
        if (k == 0)
            return true;
    }
    return r->sorter ? sql__sorter_add(r->sorter, r->outputs, rows) : send(r, rows);
}

static bool emit_sorted(void *ctx, const struct db_vector *const *vectors, uint32_t count)
{
    struct run *r = ctx;
    r->sent += count;
    return sql__send_rows(r->q, r->sink, vectors, r->plan->visible_count, NULL, count);
}

/* -- Groups ------------------------------------------------------------------------------------*/

static bool reserve_aggs(struct run *r)
{
    for (uint32_t a = 0; a < r->plan->binder.aggs_count; a++)
        if (!sql__agg_reserve(r->aggs[a], sql__groups_count(r->groups)))
            return false;
    return true;
}

static bool aggregate(void *ctx, struct sql_eval *ev, struct sql_rows rows,
                      const struct db_row_id *ids)
{
    struct run *r = ctx;
    struct sql_plan *p = r->plan;
    struct sql_row_groups groups = {0};
    for (uint32_t a = 0; !ids && a < p->binder.aggs_count; a++)
        if (sql__agg_tie(r->aggs[a]))
            r->visit.stop = true; /* it will be done again with row ids */
    if (r->visit.stop)
        return true;
    if (p->keys_count) {
        for (uint32_t k = 0; k < p->keys_count; k++)
            if (!(r->keys[k] = sql__eval(ev, p->keys[k], rows)))
                return false;
        if (!sql__groups_find(r->groups, r->keys, rows, r->gids) || !reserve_aggs(r))
            return false;
        groups.gids = r->gids;
        groups.run_ends = r->run_ends;
        groups.runs_count =
            sql__k_runs(r->gids, rows.sel, rows.count, r->run_ends, rows.count / RUN_ROWS_MIN);
        if (groups.runs_count == 1) { /* as without GROUP BY */
            groups.one = r->gids[sql__row(rows, 0)];
            groups.gids = NULL;
        }
    }
    for (uint32_t a = 0; a < p->binder.aggs_count; a++)
        if (!sql__agg_update(r->aggs[a], ev, rows, &groups, ids))
            return false;
    return true;
}

static void from_db_value(const struct db_value *v, sql_val *out)
{
    switch (v->type) {
    case DB_FLOAT:
        out->f = v->f64;
        break;
    case DB_BOOLEAN:
        out->b = v->boolean;
        break;
    case DB_STRING:
    case DB_BLOB:
        out->s = v->bytes;
        break;
    default:
        out->i = v->i64;
    }
}

/* The value of a key that the whole chunk shares, as a constant vector; false: it has several. */
static bool chunk_key(struct run *r, db_reader *reader, uint32_t k, bool *shared)
{
    struct sql_plan *p = r->plan;
    struct sql_expr *e = p->keys[k];
    *shared = false;
    struct db_column_stats s;
    if (!db_reader_stats(reader, (uint32_t)e->reads, &s))
        return true;
    enum db_type column_type = sql__column_type(p->table, p->binder.columns[e->reads]);
    bool empty = s.count == 0;
    if (!empty && (s.nulls || s.min.null || s.max.null))
        return true;
    sql_val ends[2] = {0}, results[2] = {0};
    struct sql_expr *c[2];
    if (!empty) {
        from_db_value(&s.min, &ends[0]);
        from_db_value(&s.max, &ends[1]);
    }
    for (int i = 0; i < 2; i++)
        if (!(c[i] = sql__const(r->q, column_type, empty ? NULL : &ends[i], e->pos)))
            return false;
    if (p->key_kinds[k] == SQL_KEY_COLUMN) {
        *shared = empty || sql__val_cmp(column_type, &ends[0], &ends[1]) == 0;
        r->keys[k] = &c[0]->out;
        return true;
    }
    if (empty) {
        *shared = true;
        struct sql_expr *null = sql__const(r->q, e->type, NULL, e->pos);
        if (null)
            r->keys[k] = &null->out;
        return null != NULL;
    }
    /* time_bucket and date_trunc keep the order: equal at both ends is equal between. */
    for (int i = 0; i < 2; i++) {
        struct db_vector *slots[1] = {&c[i]->out};
        struct db_vector **table = SQL_ARRAY(r->q, struct db_vector *, p->binder.slots_count + 1);
        if (!table)
            return false;
        table[e->reads] = slots[0];
        struct sql_eval ev = {.q = r->q, .slots = table, .slots_count = p->binder.slots_count};
        const struct db_vector *v = sql__eval(&ev, e, (struct sql_rows){NULL, 1, 1});
        if (!v)
            return false;
        if (!sql__vector_get(v, 0, &results[i]))
            return true;
    }
    *shared = sql__val_cmp(e->type, &results[0], &results[1]) == 0;
    struct sql_expr *key = sql__const(r->q, e->type, &results[0], e->pos);
    if (key)
        r->keys[k] = &key->out;
    return key != NULL;
}

static bool aggregate_chunk(void *ctx, db_reader *reader, const struct db_morsel *morsel,
                            bool *done)
{
    struct run *r = ctx;
    struct sql_plan *p = r->plan;
    *done = false;
    if (!r->stats_can_answer)
        return true;
    uint32_t gid = 0;
    for (uint32_t k = 0; k < p->keys_count; k++) {
        bool shared;
        if (!chunk_key(r, reader, k, &shared))
            return false;
        if (!shared)
            return true;
    }
    struct db_column_stats *stats =
        SQL_ARRAY(r->q, struct db_column_stats, p->binder.aggs_count + 1);
    if (!stats)
        return false;
    for (uint32_t a = 0; a < p->binder.aggs_count; a++) {
        const struct sql_agg *agg = &p->binder.aggs[a];
        if (agg->arg && !db_reader_stats(reader, agg->arg->slot, &stats[a]))
            return true;
        if (agg->arg && (agg->fn == SQL_AGG_SUM || agg->fn == SQL_AGG_AVG) && !stats[a].has_sum &&
            stats[a].count)
            return true;
    }
    if (p->keys_count) {
        if (!sql__groups_find(r->groups, r->keys, (struct sql_rows){NULL, 1, 1}, r->gids) ||
            !reserve_aggs(r))
            return false;
        gid = r->gids[0];
    }
    for (uint32_t a = 0; a < p->binder.aggs_count; a++)
        sql__agg_use_stats(r->aggs[a], gid, morsel->rows, &stats[a]);
    *done = true;
    return true;
}

/* Groups, a batch at a time, as the input of HAVING and the outputs. */
static bool emit_groups(struct run *r)
{
    struct sql_plan *p = r->plan;
    uint32_t slots_count = p->keys_count + p->binder.aggs_count;
    struct db_vector *vectors = SQL_ARRAY(r->q, struct db_vector, slots_count + 1);
    struct sql_eval ev = {.q = r->q, .slots_count = slots_count};
    ev.slots = SQL_ARRAY(r->q, struct db_vector *, slots_count + 1);
    uint16_t *sel = SQL_ARRAY(r->q, uint16_t, DB_VECTOR_ROWS);
    if (!vectors || !ev.slots || !sel)
        return false;
    for (uint32_t s = 0; s < slots_count; s++) {
        enum db_type type =
            s < p->keys_count ? p->keys[s]->type : p->binder.aggs[s - p->keys_count].type;
        vectors[s] = (struct db_vector){.type = type, .form = DB_VECTOR_FLAT};
        vectors[s].data = sql__zalloc(r->q, DB_VECTOR_ROWS * sql__type_bytes(type));
        vectors[s].validity = sql__alloc(r->q, DB_BIT_WORDS(DB_VECTOR_ROWS) * 8);
        if (!vectors[s].data || !vectors[s].validity)
            return false;
        ev.slots[s] = &vectors[s];
    }
    uint32_t total = p->keys_count ? sql__groups_count(r->groups) : 1;
    r->counts->groups = total;
    for (uint32_t from = 0; from < total && !r->visit.stop; from += DB_VECTOR_ROWS) {
        uint32_t n = CHR_MIN(total - from, (uint32_t)DB_VECTOR_ROWS);
        if (!sql__check(r->q))
            return false;
        chr_arena_reset(&r->q->scratch);
        for (uint32_t s = 0; s < slots_count; s++) {
            vectors[s].count = n;
            if (s < p->keys_count)
                sql__groups_key(r->groups, s, from, n, vectors[s].data, vectors[s].validity);
            else if (!sql__agg_result(r->aggs[s - p->keys_count], from, n, vectors[s].data,
                                      vectors[s].validity))
                return false;
        }
        struct sql_rows rows = {NULL, n, n};
        if (p->having) {
            uint32_t count;
            if (!sql__filter(&ev, p->having, rows, sel, &count))
                return false;
            rows = (struct sql_rows){sel, count, n};
        }
        if (rows.count && !emit(r, &ev, rows))
            return false;
    }
    return true;
}

/* -- The whole ---------------------------------------------------------------------------------*/

static bool plain(void *ctx, struct sql_eval *ev, struct sql_rows rows, const struct db_row_id *ids)
{
    (void)ids;
    return emit(ctx, ev, rows);
}

/* Groups and aggregates, empty. */
static bool prepare_groups(struct run *r)
{
    struct sql_plan *p = r->plan;
    struct sql_query *q = r->q;
    enum db_type *types = SQL_ARRAY(q, enum db_type, p->keys_count + 1);
    if (!types)
        return false;
    for (uint32_t k = 0; k < p->keys_count; k++)
        types[k] = p->keys[k]->type;
    r->groups = sql__groups_new(q, types, p->keys_count, SQL_NO_POS);
    r->keys = SQL_ARRAY(q, const struct db_vector *, p->keys_count + 1);
    r->gids = SQL_ARRAY(q, uint32_t, DB_VECTOR_ROWS);
    r->run_ends = SQL_ARRAY(q, uint16_t, DB_VECTOR_ROWS);
    r->aggs = SQL_ARRAY(q, struct sql_agg_state *, p->binder.aggs_count + 1);
    if (!r->groups || !r->keys || !r->gids || !r->run_ends || !r->aggs)
        return false;
    r->stats_can_answer = true;
    for (uint32_t k = 0; k < p->keys_count; k++)
        r->stats_can_answer &= p->key_kinds[k] != SQL_KEY_ANY;
    for (uint32_t a = 0; a < p->binder.aggs_count; a++) {
        r->aggs[a] = sql__agg_new(q, &p->binder.aggs[a]);
        if (!r->aggs[a] || !sql__agg_reserve(r->aggs[a], 1))
            return false;
        r->stats_can_answer &= sql__agg_can_use_stats(r->aggs[a], p->time_slot);
    }
    return true;
}

static bool prepare(struct run *r)
{
    struct sql_plan *p = r->plan;
    struct sql_query *q = r->q;
    r->outputs = SQL_ARRAY(q, const struct db_vector *, p->outputs_count + 1);
    r->sel = SQL_ARRAY(q, uint16_t, DB_VECTOR_ROWS);
    enum db_type *types = SQL_ARRAY(q, enum db_type, p->outputs_count + 1);
    if (!r->outputs || !r->sel || !types)
        return false;
    for (uint32_t i = 0; i < p->outputs_count; i++)
        types[i] = p->outputs[i].expr->type;
    if (p->distinct) {
        r->distinct = sql__groups_new(q, types, p->visible_count, SQL_NO_POS);
        r->distinct_gids = SQL_ARRAY(q, uint32_t, DB_VECTOR_ROWS);
        if (!r->distinct || !r->distinct_gids)
            return false;
    }
    if (p->order_count) {
        uint64_t keep =
            p->has_limit && p->limit < UINT64_MAX - p->offset ? p->limit + p->offset : UINT64_MAX;
        r->sorter = sql__sorter_new(q, types, p->outputs_count, p->order, p->order_count, keep);
        if (!r->sorter)
            return false;
    }
    return !p->aggregated || prepare_groups(r);
}

bool sql__execute_plan(struct sql_plan *p, db_read *read, const struct sql_sink *sink,
                       struct sql_run_counts *counts)
{
    struct sql_query *q = p->q;
    struct run run = {.q = q, .plan = p, .sink = sink, .counts = counts};
    struct sql_column *columns = SQL_ARRAY(q, struct sql_column, p->visible_count + 1);
    if (!columns || !prepare(&run))
        return false;
    for (uint32_t i = 0; i < p->visible_count; i++)
        columns[i] = (struct sql_column){p->outputs[i].name, p->outputs[i].expr->type};
    bool ok = false;
    if (!sql__send_begin(q, sink, columns, p->visible_count))
        goto out;
    run.visit.ctx = &run;
    run.visit.batch = p->aggregated ? aggregate : plain;
    run.visit.morsel = p->aggregated ? aggregate_chunk : NULL;
    bool nothing = p->never || (p->has_limit && p->limit == 0);
    if (!nothing && p->table) {
        if (!sql__scan(p, read, &run.visit, counts))
            goto out;
        /* Which of two rows of one time is the last, only row ids tell, and reading those costs as
         * much as a column: only when it turns out to matter. */
        bool tie = false;
        for (uint32_t a = 0; p->aggregated && a < p->binder.aggs_count; a++)
            tie |= sql__agg_tie(run.aggs[a]);
        if (tie) {
            if (!prepare_groups(&run))
                goto out;
            run.visit.want_ids = true;
            run.visit.stop = false;
            run.stats_can_answer = false;
            *counts = (struct sql_run_counts){0};
            if (!sql__scan(p, read, &run.visit, counts))
                goto out;
        }
    } else if (!nothing) { /* no FROM: one row */
        struct sql_eval ev = {.q = q};
        uint16_t row;
        uint32_t count = 1;
        struct sql_rows rows = {NULL, 1, 1};
        if (p->where && !sql__filter(&ev, p->where, rows, &row, &count))
            goto out;
        if (count && !run.visit.batch(&run, &ev, rows, NULL))
            goto out;
    }
    run.visit.stop = p->has_limit && p->limit == 0;
    if (p->aggregated && !emit_groups(&run))
        goto out;
    if (run.sorter &&
        !sql__sorter_finish(run.sorter, p->offset, p->has_limit ? p->limit : UINT64_MAX,
                            p->visible_count, emit_sorted, &run))
        goto out;
    counts->rows_out = run.sent;
    ok = true;
out:
    sql__sorter_free(run.sorter);
    return ok;
}
