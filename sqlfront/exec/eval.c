/* sqlfront/exec/eval.c: asks a bound expression for its values over a batch.
 *
 * Dispatch by kind, constants once per batch, dictionary columns once per entry (V3), and the frame
 * in which functions of single values run over vectors. */
#include <stdarg.h>
#include <stdio.h>

#include "sqlfront/expr.h"

/* Results per entry of a dictionary; entry `count` stands for NULL. */
struct sql_lift {
    uint64_t dict_id; /* 0: nothing kept */
    uint32_t count;
    uint32_t capacity;
    bool failed; /* an entry's evaluation failed: rows one by one */
    bool all_valid, null_is_null;
    void *data;
    uint64_t *validity;
    struct chr_arena strings;
    struct sql_lift *next; /* of the statement */
};
/* A dictionary of more entries than this is only worth it if this batch alone has as many rows. */
#define LIFT_ENTRIES_MAX 8192
#define LIFT_STRINGS_MAX (64u << 20)

bool sql__call_fail(sql_call *c, const char *sqlstate, const char *format, ...)
{
    char message[sizeof c->q->error->message];
    va_list args;
    va_start(args, format);
    if (vsnprintf(message, sizeof message, format, args) < 0)
        message[0] = '\0';
    va_end(args);
    return sql__fail(c->q, sqlstate, c->e->pos, "%s", message);
}

uint8_t *sql__call_bytes(sql_call *c, size_t len)
{
    return sql__scratch(c->q, len ? len : 1);
}

struct db_vector *sql__out(struct sql_eval *ev, struct sql_expr *e, uint32_t n)
{
    if (!e->data) {
        e->data = sql__zalloc(ev->q, DB_VECTOR_ROWS * sql__type_bytes(e->type));
        if (!e->data)
            return NULL;
    }
    e->out =
        (struct db_vector){.type = e->type, .form = DB_VECTOR_FLAT, .count = n, .data = e->data};
    return &e->out;
}

uint64_t *sql__out_validity(struct sql_eval *ev, struct sql_expr *e, uint32_t n)
{
    if (!e->validity) {
        e->validity = sql__alloc(ev->q, DB_BIT_WORDS(DB_VECTOR_ROWS) * sizeof *e->validity);
        if (!e->validity)
            return NULL;
    }
    memset(e->validity, 0xff, DB_BIT_WORDS(n) * sizeof *e->validity);
    e->out.validity = e->validity;
    return e->validity;
}

static const uint64_t no_bits[1] = {0};

static void out_all_null(struct sql_expr *e, uint32_t n)
{
    e->out = (struct db_vector){.type = e->type,
                                .form = DB_VECTOR_CONSTANT,
                                .count = n,
                                .data = &e->value.v,
                                .validity = (uint64_t *)(uintptr_t)no_bits};
}

bool sql__out_and_validity(struct sql_eval *ev, struct sql_expr *e, const struct db_vector *a,
                           const struct db_vector *b, uint32_t n)
{
    const uint64_t *va = a->validity, *vb = b ? b->validity : NULL;
    if (a->form == DB_VECTOR_CONSTANT && va) {
        if (!(va[0] & 1)) {
            out_all_null(e, n);
            return false;
        }
        va = NULL;
    }
    if (b && b->form == DB_VECTOR_CONSTANT && vb) {
        if (!(vb[0] & 1)) {
            out_all_null(e, n);
            return false;
        }
        vb = NULL;
    }
    if (!va && !vb)
        return true;
    if (!sql__out_validity(ev, e, n))
        return true; /* the error is set; the caller's caller sees q->failed */
    size_t words = DB_BIT_WORDS(n);
    for (size_t w = 0; w < words; w++)
        e->validity[w] = (va ? va[w] : ~UINT64_C(0)) & (vb ? vb[w] : ~UINT64_C(0));
    return true;
}

void sql__const_init(struct sql_expr *e)
{
    e->out = (struct db_vector){.type = e->type,
                                .form = DB_VECTOR_CONSTANT,
                                .count = DB_VECTOR_ROWS,
                                .data = &e->value.v,
                                .validity = e->value.null ? (uint64_t *)(uintptr_t)no_bits : NULL};
}

bool sql__is_null_const(const struct sql_expr *e)
{
    return e->kind == SQL_EXPR_CONST && e->value.null;
}

bool sql__vector_get(const struct db_vector *v, uint32_t row, sql_val *out)
{
    if (!db_vector_valid(v, row))
        return false;
    uint32_t at = db_vector_at(v, row);
    switch ((int)v->type) {
    case DB_INT:
    case DB_TIMESTAMP:
        out->i = v->i64[at];
        return true;
    case DB_FLOAT:
        out->f = v->f64[at];
        return true;
    case DB_BOOLEAN:
        out->b = v->b8[at];
        return true;
    case DB_TYPES_END:
        out->iv = ((const struct sql_interval *)v->data)[at];
        return true;
    default:
        out->s = v->str[at];
        return true;
    }
}

static void vector_put(enum db_type type, void *data, uint32_t at, const sql_val *v)
{
    switch ((int)type) {
    case DB_INT:
    case DB_TIMESTAMP:
        ((int64_t *)data)[at] = v->i;
        break;
    case DB_FLOAT:
        ((double *)data)[at] = v->f;
        break;
    case DB_BOOLEAN:
        ((uint8_t *)data)[at] = v->b;
        break;
    case DB_TYPES_END:
        ((struct sql_interval *)data)[at] = v->iv;
        break;
    default:
        ((chr_slice *)data)[at] = v->s;
    }
}

const struct db_vector *sql__slot(struct sql_eval *ev, uint32_t slot)
{
    if (!ev->slots[slot] && (!ev->load || !ev->load(ev, slot)))
        return NULL;
    return ev->slots[slot];
}

/* -- Functions of single values over vectors ---------------------------------------------------*/

static bool eval_rows(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    const struct db_vector *args[64];
    sql_val values[64];
    bool nulls[64];
    if (e->args_count > CHR_COUNT_OF(args))
        return sql__fail(ev->q, "54023", e->pos, "a function takes at most 64 arguments");
    for (uint32_t i = 0; i < e->args_count; i++)
        if (!(args[i] = sql__eval(ev, e->args[i], rows)))
            return false;
    struct db_vector *out = sql__out(ev, e, rows.n);
    if (!out)
        return false;
    uint64_t *validity = NULL;
    sql_call call = {.q = ev->q, .e = e, .nulls = nulls};
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        bool any_null = false;
        for (uint32_t i = 0; i < e->args_count; i++) {
            nulls[i] = !sql__vector_get(args[i], row, &values[i]);
            any_null |= nulls[i];
        }
        call.null = any_null && e->strict;
        sql_val result = {0};
        if (!call.null && !e->row_fn(&call, values, &result))
            return false;
        if (call.null) {
            if (!validity && !(validity = sql__out_validity(ev, e, rows.n)))
                return false;
            db_bit_clear(validity, row);
        } else {
            vector_put(e->type, e->data, row, &result);
        }
    }
    return true;
}

static bool eval_node(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    switch ((enum sql_expr_kind)e->kind) {
    case SQL_EXPR_ARITH:
        return sql__eval_arith(ev, e, rows);
    case SQL_EXPR_COMPARE:
        return sql__eval_compare(ev, e, rows);
    case SQL_EXPR_AND:
    case SQL_EXPR_OR:
        return sql__eval_and_or(ev, e, rows);
    case SQL_EXPR_NOT:
        return sql__eval_not(ev, e, rows);
    case SQL_EXPR_IS:
        return sql__eval_is(ev, e, rows);
    case SQL_EXPR_CASE:
        return sql__eval_case(ev, e, rows);
    case SQL_EXPR_COALESCE:
        return sql__eval_coalesce(ev, e, rows);
    case SQL_EXPR_IN:
        return sql__eval_in(ev, e, rows);
    case SQL_EXPR_CALL:
        return e->vec_fn ? e->vec_fn(ev, e, rows) : eval_rows(ev, e, rows);
    case SQL_EXPR_LET: {
        /* Nested uses would double the work at each level (x BETWEEN … within x of BETWEEN …). */
        const struct db_vector *v = sql__eval(ev, e->args[0], rows);
        if (!v)
            return false;
        e->let->out = *v;
        v = sql__eval(ev, e->args[1], rows);
        if (v)
            e->out = *v;
        return v != NULL;
    }
    case SQL_EXPR_CONST:
    case SQL_EXPR_SLOT:
    case SQL_EXPR_SHARED:
    case SQL_EXPR_AGG:
        break;
    }
    chr_assert_failed("a node that is not evaluated", __FILE__, __LINE__);
}

/* -- Once per dictionary entry (V3) ------------------------------------------------------------*/

/* Copies results of a node into the lift, entries from `at`. */
static bool lift_store(struct sql_eval *ev, struct sql_expr *e, uint32_t at, uint32_t count)
{
    struct sql_lift *lift = e->lift;
    const struct db_vector *r = &e->out;
    for (uint32_t i = 0; i < count; i++) {
        sql_val v = {0};
        if (!sql__vector_get(r, i, &v)) {
            db_bit_clear(lift->validity, at + i);
            lift->all_valid = false;
            memset(&v, 0, sizeof v);
        } else if (db_type_is_bytes(e->type) && v.s.len) {
            v.s = chr_arena_dup(&lift->strings, v.s);
            if (!v.s.ptr)
                return sql__fail_memory(ev->q);
        }
        vector_put(e->type, lift->data, at + i, &v);
    }
    return true;
}

void sql__lifts_free(struct sql_query *q)
{
    for (struct sql_lift *l = q->lifts; l; l = l->next)
        chr_arena_free(&l->strings);
    q->lifts = NULL;
}

static bool lift_fill(struct sql_eval *ev, struct sql_expr *e, const struct db_vector *dict)
{
    struct sql_lift *lift = e->lift;
    uint32_t needed = dict->dict_count + 1;
    if (needed > lift->capacity) {
        void *data = sql__grow(ev->q, lift->data, needed * sql__type_bytes(e->type));
        if (data)
            lift->data = data;
        void *validity = sql__grow(ev->q, lift->validity, DB_BIT_WORDS(needed) * 8);
        if (validity)
            lift->validity = validity;
        if (!data || !validity)
            return false;
        lift->capacity = needed;
    }
    memset(lift->validity, 0xff, DB_BIT_WORDS(needed) * 8);
    chr_arena_reset(&lift->strings);
    lift->all_valid = true;
    lift->count = dict->dict_count;
    struct db_vector entries = {.type = dict->type, .form = DB_VECTOR_FLAT};
    struct db_vector **slot = &ev->slots[e->reads], *column = *slot;
    size_t width = sql__type_bytes(dict->type);
    bool ok = true;
    *slot = &entries;
    for (uint32_t at = 0; ok && at < dict->dict_count; at += DB_VECTOR_ROWS) {
        uint32_t n = CHR_MIN(dict->dict_count - at, (uint32_t)DB_VECTOR_ROWS);
        entries.count = n;
        entries.data = (uint8_t *)dict->data + at * width;
        ok = eval_node(ev, e, (struct sql_rows){NULL, n, n}) && !ev->q->failed &&
             lift_store(ev, e, at, n);
    }
    if (ok) {
        bool all_valid = lift->all_valid;
        sql_val zero = {0};
        entries = (struct db_vector){.type = dict->type,
                                     .form = DB_VECTOR_CONSTANT,
                                     .count = 1,
                                     .data = &zero,
                                     .validity = (uint64_t *)(uintptr_t)no_bits};
        ok = eval_node(ev, e, (struct sql_rows){NULL, 1, 1}) && !ev->q->failed &&
             lift_store(ev, e, dict->dict_count, 1);
        lift->null_is_null = !db_bit_get(lift->validity, dict->dict_count);
        lift->all_valid = all_valid;
    }
    *slot = column;
    return ok;
}

/* 1: e->out is filled from the dictionary; 0: do it row by row; -1: failed. */
static int lifted(struct sql_eval *ev, struct sql_expr *e, const struct db_vector *dict,
                  struct sql_rows rows)
{
    struct sql_lift *lift = e->lift;
    bool cached = lift && lift->dict_id != 0 && lift->dict_id == dict->dict_id;
    if (cached && lift->failed)
        return 0;
    if (!cached) {
        if (dict->dict_count > rows.count &&
            (dict->dict_id == 0 || dict->dict_count > LIFT_ENTRIES_MAX))
            return 0;
        if (dict->dict_count >= UINT16_MAX) /* no code left for NULL */
            return 0;
        if (!lift) {
            lift = e->lift = SQL_NEW(ev->q, struct sql_lift);
            if (!lift)
                return -1;
            chr_arena_init(&lift->strings, 4096, LIFT_STRINGS_MAX);
            lift->next = ev->q->lifts;
            ev->q->lifts = lift;
        }
        lift->dict_id = dict->dict_id;
        lift->failed = false;
        if (!lift_fill(ev, e, dict)) {
            /* Data errors may be of an entry that no row has; anything else is final. */
            if (strncmp(ev->q->error->sqlstate, "22", 2) != 0)
                return -1;
            ev->q->failed = false;
            lift->failed = true;
            return 0;
        }
    }
    e->out = (struct db_vector){.type = e->type,
                                .form = DB_VECTOR_DICT,
                                .count = rows.n,
                                .dict_count = lift->count + 1,
                                .validity = dict->validity,
                                .data = lift->data,
                                .codes = dict->codes,
                                .dict_id = dict->dict_id};
    if (lift->all_valid && (!dict->validity || lift->null_is_null))
        return 1;
    /* NULLs come or go: per row. */
    if (!e->codes && !(e->codes = sql__alloc(ev->q, DB_VECTOR_ROWS * sizeof *e->codes)))
        return -1;
    uint64_t *validity = sql__out_validity(ev, e, rows.n);
    if (!validity)
        return -1;
    for (uint32_t j = 0; j < rows.count; j++) {
        uint32_t row = sql__row(rows, j);
        uint32_t code = db_vector_valid(dict, row) ? dict->codes[row] : lift->count;
        e->codes[row] = (uint16_t)code;
        if (!db_bit_get(lift->validity, code))
            db_bit_clear(validity, row);
    }
    if (rows.sel) { /* codes of other rows must still be in range */
        const uint16_t *sel = rows.sel;
        uint32_t j = 0;
        for (uint32_t row = 0; row < rows.n; row++)
            if (j < rows.count && sel[j] == row)
                j++;
            else
                e->codes[row] = 0;
    }
    e->out.codes = e->codes;
    return 1;
}

const struct db_vector *sql__eval(struct sql_eval *ev, struct sql_expr *e, struct sql_rows rows)
{
    if (e->kind == SQL_EXPR_CONST || e->kind == SQL_EXPR_SHARED)
        return &e->out;
    if (e->kind == SQL_EXPR_SLOT)
        return sql__slot(ev, e->slot);
    if (rows.count == 0) {
        out_all_null(e, rows.n);
        return &e->out;
    }
    bool once = e->reads == SQL_READS_NONE;
    if (e->reads >= 0) {
        const struct db_vector *v = sql__slot(ev, (uint32_t)e->reads);
        if (!v)
            return NULL;
        if (v->form == DB_VECTOR_DICT) {
            int r = lifted(ev, e, v, rows);
            if (r != 0)
                return r > 0 ? &e->out : NULL;
        }
        once = v->form == DB_VECTOR_CONSTANT;
    }
    if (!once)
        return eval_node(ev, e, rows) && !ev->q->failed ? &e->out : NULL;
    if (!eval_node(ev, e, (struct sql_rows){NULL, 1, 1}) || ev->q->failed)
        return NULL;
    e->out.form = DB_VECTOR_CONSTANT;
    e->out.count = rows.n;
    return &e->out;
}

const struct db_vector *sql__eval_flat(struct sql_eval *ev, struct sql_expr *e,
                                       struct sql_rows rows)
{
    const struct db_vector *v = sql__eval(ev, e, rows);
    if (!v || v->form != DB_VECTOR_DICT)
        return v;
    if (!e->data && !(e->data = sql__zalloc(ev->q, DB_VECTOR_ROWS * sql__type_bytes(v->type))))
        return NULL;
    const uint16_t *codes = v->codes;
#define GATHER(T)                                                                                  \
    do {                                                                                           \
        const T *from = v->data;                                                                   \
        T *to = e->data;                                                                           \
        for (uint32_t j = 0; j < rows.count; j++) {                                                \
            uint32_t row = sql__row(rows, j);                                                      \
            to[row] = from[codes[row]];                                                            \
        }                                                                                          \
    } while (0)
    switch (sql__type_bytes(v->type)) {
    case 1:
        GATHER(uint8_t);
        break;
    case 8:
        GATHER(uint64_t);
        break;
    default:
        GATHER(chr_slice);
    }
#undef GATHER
    struct db_vector flat = {.type = v->type,
                             .form = DB_VECTOR_FLAT,
                             .count = v->count,
                             .validity = v->validity,
                             .data = e->data};
    e->out = flat;
    return &e->out;
}

bool sql__expr_equal(const struct sql_expr *a, const struct sql_expr *b)
{
    if (a == b)
        return true;
    if (a->kind != b->kind || a->op != b->op || a->type != b->type || a->volatile_ ||
        b->volatile_ || a->args_count != b->args_count)
        return false;
    switch ((enum sql_expr_kind)a->kind) {
    case SQL_EXPR_CONST:
        return a->value.null == b->value.null &&
               (a->value.null || sql__val_cmp(a->type, &a->value.v, &b->value.v) == 0);
    case SQL_EXPR_SLOT:
    case SQL_EXPR_AGG:
        return a->slot == b->slot;
    case SQL_EXPR_CALL:
        if (a->row_fn != b->row_fn || a->vec_fn != b->vec_fn)
            return false;
        break;
    case SQL_EXPR_SHARED: /* in the same place of equal LETs: the same value */
        return true;
    case SQL_EXPR_IN: {
        const sql_val *va, *vb;
        uint32_t n = sql__set_values(a->state, &va);
        if (n != sql__set_values(b->state, &vb))
            return false;
        for (uint32_t i = 0; i < n; i++)
            if (sql__val_cmp(a->args[0]->type, &va[i], &vb[i]) != 0)
                return false;
        break;
    }
    default:
        break;
    }
    for (uint32_t i = 0; i < a->args_count; i++)
        if (!sql__expr_equal(a->args[i], b->args[i]))
            return false;
    return true;
}
