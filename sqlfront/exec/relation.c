/* sqlfront/exec/relation.c: rows of the host's relations: gathered into columns, then scanned as
 * chunks are, in batches. */
#include "sqlfront/relation.h"

#include <stdio.h>

/* -- Names -------------------------------------------------------------------------------------*/

static const struct sql_relation *find(const struct sql_query *q, chr_slice name)
{
    const struct sql_host *host = &q->session->host;
    for (uint32_t i = 0; i < host->relations_count; i++)
        if (chr_slice_eq(name, chr_slice_cstr(host->relations[i].name)))
            return &host->relations[i];
    return NULL;
}

bool sql__reads_relation(const struct sql_query *q, const struct sql_stmt *stmt)
{
    return stmt->table.ptr && find(q, stmt->table) != NULL;
}

const char *sql__relation_name(const struct sql_query *q, uint32_t i)
{
    const struct sql_host *host = &q->session->host;
    return i < host->relations_count ? host->relations[i].name : NULL;
}

const struct sql_relation *sql__shown_relation(const struct sql_query *q, chr_slice word)
{
    const struct sql_host *host = &q->session->host;
    for (uint32_t i = 0; i < host->relations_count; i++)
        if (chr_slice_eq(word, chr_slice_cstr(host->relations[i].show)))
            return &host->relations[i];
    return NULL;
}

const struct db_table_def *sql__find_relation(struct sql_query *q, chr_slice name)
{
    const struct sql_relation *r = find(q, name);
    if (!r)
        return NULL;
    struct db_table_def *def = SQL_NEW(q, struct db_table_def);
    struct db_column_def *columns = SQL_ARRAY(q, struct db_column_def, r->columns_count);
    if (!def || !columns)
        return NULL;
    def->id = SQL_RELATION_TABLE_ID;
    def->system = true;
    def->time_column = -1;
    snprintf(def->name, sizeof def->name, "%s", r->name);
    def->columns = columns;
    def->columns_count = (uint16_t)r->columns_count;
    for (uint32_t c = 0; c < r->columns_count; c++) {
        columns[c].id = (uint16_t)c;
        columns[c].type = r->columns[c].type;
        snprintf(columns[c].name, sizeof columns[c].name, "%s", r->columns[c].name);
    }
    return def;
}

/* -- SHOW --------------------------------------------------------------------------------------*/

/* SELECT * FROM relation ORDER BY 1, 2 */
bool sql__run_show_relation(struct sql_query *q, const struct sql_relation *relation,
                            const struct sql_stmt *stmt, uint64_t *rows)
{
    struct sql_ast star = {.kind = SQL_AST_STAR, .pos = stmt->pos};
    struct sql_ast ordinals[2];
    struct sql_item all = {.expr = &star, .pos = stmt->pos}, order[2];
    for (int i = 0; i < 2; i++) {
        ordinals[i] = (struct sql_ast){
            .kind = SQL_AST_INT, .pos = stmt->pos, .text = i ? CHR_LIT("2") : CHR_LIT("1")};
        order[i] = (struct sql_item){.expr = &ordinals[i], .pos = stmt->pos};
    }
    order[0].next = &order[1];
    struct sql_stmt select = {.kind = SQL_STMT_SELECT,
                              .pos = stmt->pos,
                              .table = chr_slice_cstr(relation->name),
                              .table_pos = stmt->name_pos,
                              .items = {&all, &all, 1},
                              .order = {&order[0], &order[1], 2}};
    if (relation->columns_count < 2)
        select.order = (struct sql_item_list){0};
    return sql__run_select(q, &select, q->sink, rows);
}

/* -- Gathering ---------------------------------------------------------------------------------*/

struct column {
    enum db_type type;
    void *data;
    uint64_t *validity;
};

struct sql_relation_rows {
    struct sql_query *q;
    struct column *columns;
    uint32_t columns_count;
    uint32_t count, room;
};

static bool grow(struct sql_relation_rows *rows)
{
    /* Whole batches: what sql__scan_relation hands out ends on a word of the bitmaps. */
    if (rows->room > UINT32_MAX / 2)
        return sql__fail_memory(rows->q);
    uint32_t room = rows->room ? rows->room * 2 : DB_VECTOR_ROWS / 8;
    for (uint32_t c = 0; c < rows->columns_count; c++) {
        struct column *column = &rows->columns[c];
        void *data = sql__grow(rows->q, column->data, room * sql__type_bytes(column->type));
        if (!data)
            return false;
        column->data = data;
        uint64_t *validity = sql__grow(rows->q, column->validity, DB_BIT_WORDS(room) * 8);
        if (!validity)
            return false;
        column->validity = validity;
    }
    rows->room = room;
    return true;
}

static bool put(struct sql_relation_rows *rows, uint32_t c, const struct db_value *v)
{
    struct column *column = &rows->columns[c];
    uint32_t row = rows->count;
    CHR_ASSERT(v->null || v->type == column->type);
    if (v->null)
        db_bit_clear(column->validity, row);
    else
        db_bit_set(column->validity, row);
    switch (column->type) {
    case DB_BOOLEAN:
        ((uint8_t *)column->data)[row] = v->null ? 0 : v->boolean;
        break;
    case DB_FLOAT:
        ((double *)column->data)[row] = v->null ? 0 : v->f64;
        break;
    case DB_STRING:
    case DB_BLOB: {
        chr_slice *at = (chr_slice *)column->data + row;
        *at = (chr_slice){0};
        if (v->null || !v->bytes.len)
            break;
        uint8_t *copy = sql__alloc(rows->q, v->bytes.len);
        if (!copy)
            return false;
        memcpy(copy, v->bytes.ptr, v->bytes.len);
        *at = chr_slice_of(copy, v->bytes.len);
        break;
    }
    default:
        ((int64_t *)column->data)[row] = v->null ? 0 : v->i64;
    }
    return true;
}

chr_err sql_relation_add(struct sql_relation_rows *rows, const struct db_value *values)
{
    if (rows->q->failed || (rows->count == rows->room && !grow(rows)))
        return CHR_ENOMEM;
    for (uint32_t c = 0; c < rows->columns_count; c++)
        if (!put(rows, c, &values[c]))
            return CHR_ENOMEM;
    rows->count++;
    return CHR_OK;
}

static struct sql_relation_rows *gather(struct sql_plan *p)
{
    struct sql_query *q = p->q;
    const struct sql_host *host = &q->session->host;
    const struct sql_relation *r = find(q, chr_slice_cstr(p->table->name));
    struct sql_relation_rows *rows = SQL_NEW(q, struct sql_relation_rows);
    if (!rows)
        return NULL;
    rows->q = q;
    rows->columns_count = r->columns_count;
    rows->columns = SQL_ARRAY(q, struct column, r->columns_count);
    if (!rows->columns)
        return NULL;
    for (uint32_t c = 0; c < r->columns_count; c++)
        rows->columns[c].type = r->columns[c].type;
    struct sql_host_wait wait = {.cancel = &q->session->cancel, .deadline_us = q->deadline_us};
    struct chr_errmsg msg = {0};
    chr_err err = host->read_relation(host->ctx, r, rows, &wait, &msg);
    if (!sql__check(q)) /* also when the host gave up because of it */
        return NULL;
    if (err == CHR_ENOMEM) {
        sql__fail_memory(q);
        return NULL;
    }
    if (err) {
        sql__fail_err(q, err, &msg);
        return NULL;
    }
    return rows;
}

/* -- Scanning ----------------------------------------------------------------------------------*/

bool sql__scan_relation(struct sql_plan *p, struct sql_scan_visit *visit,
                        struct sql_run_counts *counts)
{
    struct sql_query *q = p->q;
    if (!p->relation_rows && !(p->relation_rows = gather(p)))
        return false;
    const struct sql_relation_rows *all = p->relation_rows;
    uint32_t slots_count = p->binder.slots_count;
    struct sql_eval ev = {.q = q, .slots_count = slots_count};
    ev.slots = SQL_ARRAY(q, struct db_vector *, slots_count + 1);
    struct db_vector *vectors = SQL_ARRAY(q, struct db_vector, slots_count + 1);
    uint16_t *sel = SQL_ARRAY(q, uint16_t, DB_VECTOR_ROWS);
    struct db_row_id *ids = visit->want_ids ? SQL_ARRAY(q, struct db_row_id, DB_VECTOR_ROWS) : NULL;
    if (!ev.slots || !vectors || !sel || (visit->want_ids && !ids))
        return false;
    for (uint32_t from = 0; from < all->count && !visit->stop; from += DB_VECTOR_ROWS) {
        uint32_t n = CHR_MIN(all->count - from, (uint32_t)DB_VECTOR_ROWS);
        if (!sql__check(q))
            return false;
        chr_arena_reset(&q->scratch);
        for (uint32_t s = 0; s < slots_count; s++) {
            const struct column *column = &all->columns[p->binder.columns[s]];
            vectors[s] = (struct db_vector){
                .type = column->type, .count = n, .validity = column->validity + from / 64};
            vectors[s].data = (char *)column->data + from * sql__type_bytes(column->type);
            ev.slots[s] = &vectors[s];
        }
        counts->scan.rows_scanned += n;
        struct sql_rows rows = {NULL, n, n};
        if (p->where) {
            uint32_t count;
            if (!sql__filter(&ev, p->where, rows, sel, &count))
                return false;
            if (count < n)
                rows = (struct sql_rows){sel, count, n};
        }
        counts->rows_filtered += rows.count;
        for (uint32_t i = 0; ids && i < n; i++)
            ids[i] = (struct db_row_id){.entry = 0, .ordinal = from + i};
        if (rows.count && !visit->batch(visit->ctx, &ev, rows, ids))
            return false;
    }
    return true;
}
