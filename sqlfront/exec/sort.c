/* sqlfront/exec/sort.c: ORDER BY.
 *
 * Rows are kept as columns. What is compared first is a 64-bit prefix of the first key in sort
 * order, computed once per row; only equal prefixes look at the values. Rows that are equal in all
 * keys keep the order they came in.
 *
 * With a LIMIT only the best N matter: whenever twice as many have gathered, the rest is dropped,
 * and from then on a row must beat the N-th to be copied at all. */
#include <stdlib.h>

#include "sqlfront/exec/kernels.h"
#include "sqlfront/exec/sort.h"

#define KEEP_MAX     200000 /* larger limits sort everything once */
#define SLACK        4096   /* rows gathered beyond N before the rest is dropped */
#define STRING_BLOCK (256u << 10)

struct column {
    enum db_type type;
    uint8_t *data;
    uint8_t *nulls; /* a byte per row */
};

struct entry {
    uint64_t prefix;
    uint64_t row;
};

struct sql_sorter {
    struct sql_query *q;
    uint32_t columns_count, order_count;
    struct column *columns;
    const struct sql_order *order;
    uint64_t keep;
    uint64_t count, capacity;
    struct chr_arena strings;
    struct entry *entries;
    uint64_t entries_capacity;
    bool has_threshold; /* row `keep - 1` of a sorted prefix is the N-th best */
    uint16_t *sel;
};

struct sql_sorter *sql__sorter_new(struct sql_query *q, const enum db_type *types, uint32_t columns,
                                   const struct sql_order *order, uint32_t order_count,
                                   uint64_t keep)
{
    struct sql_sorter *s = SQL_NEW(q, struct sql_sorter);
    if (!s)
        return NULL;
    s->q = q;
    s->columns_count = columns;
    s->order = order;
    s->order_count = order_count;
    s->keep = keep > KEEP_MAX ? UINT64_MAX : keep;
    s->columns = SQL_ARRAY(q, struct column, columns + 1);
    s->sel = SQL_ARRAY(q, uint16_t, DB_VECTOR_ROWS);
    if (!s->columns || !s->sel)
        return NULL;
    for (uint32_t c = 0; c < columns; c++)
        s->columns[c].type = types[c];
    chr_arena_init(&s->strings, STRING_BLOCK, q->session->limits.memory_bytes);
    return s;
}

void sql__sorter_free(struct sql_sorter *s)
{
    if (s)
        chr_arena_free(&s->strings);
}

static void value_at(const struct column *c, uint64_t row, sql_val *v)
{
    size_t width = sql__type_bytes(c->type);
    memcpy(v, c->data + row * width, width);
}

static int compare_rows(const struct sql_sorter *s, uint64_t a, uint64_t b)
{
    for (uint32_t k = 0; k < s->order_count; k++) {
        const struct sql_order *o = &s->order[k];
        const struct column *c = &s->columns[o->output];
        if (c->nulls[a] || c->nulls[b]) {
            if (c->nulls[a] != c->nulls[b])
                return (c->nulls[a] != 0) == o->nulls_first ? -1 : 1;
            continue;
        }
        sql_val x, y;
        value_at(c, a, &x);
        value_at(c, b, &y);
        int r = sql__val_cmp(c->type, &x, &y);
        if (r)
            return o->descending ? -r : r;
    }
    return 0;
}

/* Unsigned order of prefixes is the order of the values, as far as 64 bits tell. */
static uint64_t prefix_of(const struct sql_sorter *s, uint64_t row)
{
    const struct sql_order *o = &s->order[0];
    const struct column *c = &s->columns[o->output];
    if (c->nulls[row])
        return o->nulls_first ? 0 : UINT64_MAX;
    sql_val v;
    value_at(c, row, &v);
    uint64_t p = 0;
    switch ((int)c->type) {
    case DB_INT:
    case DB_TIMESTAMP:
        p = (uint64_t)v.i ^ UINT64_C(1) << 63;
        break;
    case DB_FLOAT: {
        double f = v.f == 0 ? 0 : v.f; /* -0.0 equals 0.0 */
        memcpy(&p, &f, sizeof p);
        if (f != f)
            p = UINT64_MAX; /* NaN is above all */
        else
            p = p >> 63 ? ~p : p ^ UINT64_C(1) << 63;
        break;
    }
    case DB_BOOLEAN:
        p = v.b;
        break;
    case DB_STRING:
    case DB_BLOB:
        for (size_t i = 0; i < 8; i++)
            p = p << 8 | (i < v.s.len ? v.s.ptr[i] : 0);
        break;
    default:
        break; /* intervals: compared by value */
    }
    return o->descending ? ~p : p;
}

static int compare_entries(const void *a, const void *b, void *ctx)
{
    const struct entry *x = a, *y = b;
    if (x->prefix != y->prefix)
        return x->prefix < y->prefix ? -1 : 1;
    int r = compare_rows(ctx, x->row, y->row);
    return r ? r : (x->row > y->row) - (x->row < y->row);
}

static bool make_entries(struct sql_sorter *s)
{
    if (s->count > s->entries_capacity) {
        void *p = sql__grow(s->q, s->entries, s->count * sizeof *s->entries);
        if (!p)
            return false;
        s->entries = p;
        s->entries_capacity = s->count;
    }
    for (uint64_t i = 0; i < s->count; i++)
        s->entries[i] = (struct entry){prefix_of(s, i), i};
    if (s->count)
        qsort_r(s->entries, s->count, sizeof *s->entries, compare_entries, s);
    return true;
}

static bool reserve(struct sql_sorter *s, uint64_t rows)
{
    if (rows <= s->capacity)
        return true;
    uint64_t capacity = s->capacity ? s->capacity : 256;
    while (capacity < rows)
        capacity *= 2;
    for (uint32_t c = 0; c < s->columns_count; c++) {
        struct column *col = &s->columns[c];
        void *data = sql__grow(s->q, col->data, capacity * sql__type_bytes(col->type));
        if (data)
            col->data = data;
        void *nulls = sql__grow(s->q, col->nulls, capacity);
        if (nulls)
            col->nulls = nulls;
        if (!data || !nulls)
            return false;
    }
    s->capacity = capacity;
    return true;
}

/* Keeps the best N, in order, as rows 0 .. N-1. */
static bool drop_the_rest(struct sql_sorter *s)
{
    if (!make_entries(s))
        return false;
    uint64_t n = CHR_MIN(s->count, s->keep);
    struct chr_arena strings;
    chr_arena_init(&strings, STRING_BLOCK, s->q->session->limits.memory_bytes);
    for (uint32_t c = 0; c < s->columns_count; c++) {
        struct column *col = &s->columns[c];
        size_t width = sql__type_bytes(col->type);
        uint8_t *data = sql__grow(s->q, NULL, s->capacity * width);
        uint8_t *nulls = sql__grow(s->q, NULL, s->capacity);
        if (!data || !nulls) {
            chr_arena_free(&strings);
            return false;
        }
        for (uint64_t i = 0; i < n; i++) {
            uint64_t from = s->entries[i].row;
            memcpy(data + i * width, col->data + from * width, width);
            nulls[i] = col->nulls[from];
            if (db_type_is_bytes(col->type) && !nulls[i]) {
                chr_slice *str = (chr_slice *)(void *)data + i;
                if (str->len) {
                    *str = chr_arena_dup(&strings, *str);
                    if (!str->ptr) {
                        chr_arena_free(&strings);
                        return sql__fail_memory(s->q);
                    }
                }
            }
        }
        sql__ungrow(s->q, col->data);
        sql__ungrow(s->q, col->nulls);
        col->data = data;
        col->nulls = nulls;
    }
    chr_arena_free(&s->strings);
    s->strings = strings;
    s->count = n;
    s->has_threshold = n == s->keep;
    return true;
}

/* Does a row of the batch come before the N-th best? Equal ones came later, so they do not. */
static bool beats(const struct sql_sorter *s, const struct db_vector *const *vectors, uint32_t row)
{
    uint64_t nth = s->keep - 1;
    for (uint32_t k = 0; k < s->order_count; k++) {
        const struct sql_order *o = &s->order[k];
        const struct column *c = &s->columns[o->output];
        sql_val x, y;
        bool null_x = !sql__vector_get(vectors[o->output], row, &x), null_y = c->nulls[nth];
        if (null_x || null_y) {
            if (null_x != null_y)
                return null_x == o->nulls_first;
            continue;
        }
        value_at(c, nth, &y);
        int r = sql__val_cmp(c->type, &x, &y);
        if (r)
            return o->descending ? r > 0 : r < 0;
    }
    return false;
}

/* Numbers on plain arrays: a kernel leaves out most rows before they are compared one by one. */
static struct sql_rows prefilter(struct sql_sorter *s, const struct db_vector *const *vectors,
                                 struct sql_rows rows)
{
    const struct sql_order *o = &s->order[0];
    const struct column *c = &s->columns[o->output];
    const struct db_vector *v = vectors[o->output];
    uint64_t nth = s->keep - 1;
    if (v->form != DB_VECTOR_FLAT || c->nulls[nth] || (v->validity && o->nulls_first))
        return rows;
    sql_val x;
    value_at(c, nth, &x);
    uint32_t count;
    if (sql__type_is_i64(c->type))
        count = sql__k_select_i64(v->i64, v->validity, rows.sel, rows.count,
                                  o->descending ? x.i : INT64_MIN, o->descending ? INT64_MAX : x.i,
                                  true, s->sel);
    else if (c->type == DB_FLOAT && x.f == x.f)
        count = sql__k_select_f64(v->f64, v->validity, rows.sel, rows.count,
                                  o->descending ? SQL_OP_GE : SQL_OP_LE, x.f, s->sel);
    else
        return rows;
    return (struct sql_rows){s->sel, count, rows.n};
}

bool sql__sorter_add(struct sql_sorter *s, const struct db_vector *const *vectors,
                     struct sql_rows rows)
{
    if (s->keep == 0)
        return true;
    if (s->has_threshold) {
        rows = prefilter(s, vectors, rows);
        uint32_t k = 0;
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j);
            s->sel[k] = (uint16_t)row;
            k += beats(s, vectors, row);
        }
        rows = (struct sql_rows){s->sel, k, rows.n};
    }
    if (rows.count == 0)
        return true;
    if (!reserve(s, s->count + rows.count))
        return false;
    for (uint32_t c = 0; c < s->columns_count; c++) {
        struct column *col = &s->columns[c];
        const struct db_vector *v = vectors[c];
        size_t width = sql__type_bytes(col->type);
        const uint8_t *from = v->data;
        bool bytes = db_type_is_bytes(col->type);
        for (uint32_t j = 0; j < rows.count; j++) {
            uint32_t row = sql__row(rows, j);
            uint64_t to = s->count + j;
            bool null = !db_vector_valid(v, row);
            col->nulls[to] = null;
            if (null) {
                memset(col->data + to * width, 0, width);
                continue;
            }
            memcpy(col->data + to * width, from + db_vector_at(v, row) * width, width);
            if (bytes) {
                chr_slice *str = (chr_slice *)(void *)col->data + to;
                if (str->len) {
                    *str = chr_arena_dup(&s->strings, *str);
                    if (!str->ptr)
                        return sql__fail_memory(s->q);
                }
            }
        }
    }
    s->count += rows.count;
    if (s->keep != UINT64_MAX && s->count >= 2 * s->keep + SLACK)
        return drop_the_rest(s);
    return true;
}

bool sql__sorter_finish(struct sql_sorter *s, uint64_t skip, uint64_t limit, uint32_t visible,
                        bool (*batch)(void *ctx, const struct db_vector *const *vectors,
                                      uint32_t count),
                        void *ctx)
{
    if (!make_entries(s))
        return false;
    struct db_vector *out = SQL_ARRAY(s->q, struct db_vector, visible + 1);
    const struct db_vector **pointers = SQL_ARRAY(s->q, const struct db_vector *, visible + 1);
    if (!out || !pointers)
        return false;
    for (uint32_t c = 0; c < visible; c++) {
        out[c] = (struct db_vector){.type = s->columns[c].type, .form = DB_VECTOR_FLAT};
        out[c].data = sql__alloc(s->q, DB_VECTOR_ROWS * sql__type_bytes(out[c].type));
        out[c].validity = sql__alloc(s->q, DB_BIT_WORDS(DB_VECTOR_ROWS) * 8);
        if (!out[c].data || !out[c].validity)
            return false;
        pointers[c] = &out[c];
    }
    uint64_t end = limit < UINT64_MAX - skip ? CHR_MIN(s->count, skip + limit) : s->count;
    for (uint64_t at = skip; at < end;) {
        uint32_t n = (uint32_t)CHR_MIN(end - at, (uint64_t)DB_VECTOR_ROWS);
        if (!sql__check(s->q))
            return false;
        for (uint32_t c = 0; c < visible; c++) {
            const struct column *col = &s->columns[c];
            size_t width = sql__type_bytes(col->type);
            memset(out[c].validity, 0xff, DB_BIT_WORDS(n) * 8);
            out[c].count = n;
            for (uint32_t i = 0; i < n; i++) {
                uint64_t row = s->entries[at + i].row;
                memcpy((uint8_t *)out[c].data + i * width, col->data + row * width, width);
                if (col->nulls[row])
                    db_bit_clear(out[c].validity, i);
            }
        }
        if (!batch(ctx, pointers, n))
            return false;
        at += n;
    }
    return true;
}
