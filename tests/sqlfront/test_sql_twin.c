/* tests/sqlfront/test_sql_twin.c: random queries against a naive twin.
 *
 * The twin keeps the rows in an array and evaluates an expression for one row at a time, by looking
 * at it: no vectors, no selections, no dictionaries, no statistics. The same expression is printed
 * as SQL and run by the engine, over hot rows and over chunks. Expressions are made so that they
 * cannot fail (small numbers, guarded division); what errors mean is for the text tests.
 *
 * CHR_TEST_SEED=n runs one seed. */
#include "kit.h"

#include <math.h>

#include "base/buf.h"
#include "base/num.h"
#include "base/timestamp.h"
#include "sqlfront/result/format.h"

#define ROWS    7000
#define QUERIES 200

struct val {
    enum db_type type;
    bool null;
    int64_t i; /* INT, TIMESTAMP, BOOLEAN */
    double f;
    char s[160];
};

struct row {
    struct val v[6]; /* id, i, f, s, t, b */
};
static const char *const names[] = {"id", "i", "f", "s", "t", "b"};
static const enum db_type types[] = {DB_INT, DB_INT, DB_FLOAT, DB_STRING, DB_TIMESTAMP, DB_BOOLEAN};
static struct row rows[ROWS];

enum kind {
    COLUMN,
    LITERAL,
    ARITH,   /* + - * */
    GUARDED, /* CASE WHEN b <> 0 THEN a / b ELSE a END */
    NEGATE,
    COMPARE,
    DISTINCT,
    AND,
    OR,
    NOT,
    ISNULL,
    ISTRUE,
    BETWEEN,
    IN,
    LIKE,
    CASE,
    COALESCE,
    NULLIF,
    GREATEST,
    LENGTH,
    UPPER,
    SUBSTR,
    CONCAT,
    BUCKET,
    TO_FLOAT,
};

struct expr {
    enum kind kind;
    enum db_type type;
    int op;
    struct expr *a[4];
    int n;
    struct val v; /* LITERAL */
    int column;
};

static struct chr_random rnd;
static struct expr pool[4096];
static int pool_used;

static uint64_t below(uint64_t n)
{
    return chr_random_below(&rnd, n);
}
static struct expr *new_expr(enum kind kind, enum db_type type)
{
    assert_true(pool_used < 4096);
    struct expr *e = &pool[pool_used++];
    memset(e, 0, sizeof *e);
    e->kind = kind;
    e->type = type;
    return e;
}

/* -- Values
 * --------------------------------------------------------------------------------------*/

static const char *const words[] = {"",     "a",    "esp-001", "esp-002", "Ab",  "pi-1",
                                    "zzz",  "é",    "esp",     "x%y",     "A_b", "esp-001x",
                                    "pi-2", "PI-1", "bcd",     "é-é"};

static struct val random_val(enum db_type type)
{
    struct val v = {.type = type};
    v.null = below(7) == 0;
    switch (type) {
    case DB_INT:
        v.i = (int64_t)below(41) - 20;
        break;
    case DB_FLOAT:
        v.f = ((double)below(161) - 80) / 4;
        if (below(40) == 0)
            v.f = below(2) ? NAN : -0.0;
        break;
    case DB_STRING:
        strcpy(v.s, words[below(sizeof words / sizeof *words)]);
        break;
    case DB_TIMESTAMP:
        v.i = INT64_C(1704067200) * 1000000 + (int64_t)below(7200) * 500000;
        break;
    default:
        v.i = (int64_t)below(2);
    }
    return v;
}

static void print_val(struct chr_buf *out, const struct val *v)
{
    char text[64];
    if (v->null) {
        chr_buf_addf(out, "NULL::%s", db_type_name(v->type));
        return;
    }
    switch (v->type) {
    case DB_INT:
        chr_buf_addf(out, v->i < 0 ? "(%lld)" : "%lld", (long long)v->i);
        break;
    case DB_FLOAT:
        chr_format_f64(v->f, text);
        chr_buf_addf(out, "'%s'::FLOAT", text);
        break;
    case DB_STRING:
        chr_buf_addf(out, "'%s'", v->s);
        break;
    case DB_TIMESTAMP:
        chr_timestamp_format(v->i, text);
        chr_buf_addf(out, "TIMESTAMP '%s'", text);
        break;
    default:
        chr_buf_add_cstr(out, v->i ? "true" : "false");
    }
}

/* -- Making expressions
 * --------------------------------------------------------------------------*/

static struct expr *make(enum db_type type, int depth);

static struct expr *leaf(enum db_type type)
{
    if (below(4) == 0) {
        struct expr *e = new_expr(LITERAL, type);
        e->v = random_val(type);
        return e;
    }
    struct expr *e = new_expr(COLUMN, type);
    switch (type) {
    case DB_INT:
        e->column = below(2) ? 1 : 0;
        if (e->column == 0) { /* ids are large: products of them would not stay small */
            e->kind = LITERAL;
            e->v = random_val(DB_INT);
        }
        break;
    case DB_FLOAT:
        e->column = 2;
        break;
    case DB_STRING:
        e->column = 3;
        break;
    case DB_TIMESTAMP:
        e->column = 4;
        break;
    default:
        e->column = 5;
    }
    return e;
}

static enum db_type any_type(void)
{
    static const enum db_type all[] = {DB_INT, DB_FLOAT, DB_STRING, DB_TIMESTAMP, DB_BOOLEAN};
    return all[below(5)];
}

static struct expr *op(enum kind kind, enum db_type type, int n, struct expr *a, struct expr *b,
                       struct expr *c, struct expr *d)
{
    struct expr *e = new_expr(kind, type);
    struct expr *all[] = {a, b, c, d};
    memcpy(e->a, all, sizeof all);
    e->n = n;
    return e;
}

static struct expr *make_boolean(int d)
{
    enum db_type t = any_type();
    struct expr *e;
    switch (below(11)) {
    case 0:
    case 1:
    case 2:
        e = op(COMPARE, DB_BOOLEAN, 2, make(t, d), below(2) ? leaf(t) : make(t, d), NULL, NULL);
        e->op = (int)below(6);
        return e;
    case 3:
        return op(AND, DB_BOOLEAN, 2, make(DB_BOOLEAN, d), make(DB_BOOLEAN, d), NULL, NULL);
    case 4:
        return op(OR, DB_BOOLEAN, 2, make(DB_BOOLEAN, d), make(DB_BOOLEAN, d), NULL, NULL);
    case 5:
        return op(NOT, DB_BOOLEAN, 1, make(DB_BOOLEAN, d), NULL, NULL, NULL);
    case 6:
        e = op(ISNULL, DB_BOOLEAN, 1, make(t, d), NULL, NULL, NULL);
        e->op = (int)below(2);
        return e;
    case 7:
        e = op(ISTRUE, DB_BOOLEAN, 1, make(DB_BOOLEAN, d), NULL, NULL, NULL);
        e->op = (int)below(4);
        return e;
    case 8:
        return op(BETWEEN, DB_BOOLEAN, 3, make(t, d), leaf(t), leaf(t), NULL);
    case 9: {
        e = op(IN, DB_BOOLEAN, 4, make(t, d), NULL, NULL, NULL);
        for (int i = 1; i < 4; i++) {
            e->a[i] = below(5) ? new_expr(LITERAL, t) : leaf(t);
            if (e->a[i]->kind == LITERAL)
                e->a[i]->v = random_val(t);
        }
        return e;
    }
    default: {
        static const char *const patterns[] = {"esp%", "%1", "%s%", "_",  "a%", "esp-00_",
                                               "%-%",  "%",  "",    "é%", "%é"};
        e = op(LIKE, DB_BOOLEAN, 1, make(DB_STRING, d), NULL, NULL, NULL);
        e->op = (int)below(2);
        e->v.type = DB_STRING;
        strcpy(e->v.s, patterns[below(sizeof patterns / sizeof *patterns)]);
        return e;
    }
    }
}

static struct expr *make(enum db_type type, int depth)
{
    if (depth <= 0 || below(4) == 0)
        return leaf(type);
    int d = depth - 1;
    struct expr *e;
    switch (below(5)) { /* what there is for every type */
    case 0:
        return op(CASE, type, 3, make(DB_BOOLEAN, d), make(type, d), make(type, d), NULL);
    case 1:
        if (below(2))
            return op(COALESCE, type, 2, make(type, d), make(type, d), NULL, NULL);
        break;
    case 2:
        if (below(3) == 0)
            return op(NULLIF, type, 2, make(type, d), leaf(type), NULL, NULL);
        break;
    default:
        break;
    }
    switch (type) {
    case DB_INT:
        if (below(4) == 0)
            return op(LENGTH, DB_INT, 1, make(DB_STRING, d), NULL, NULL, NULL);
        if (below(4) == 0)
            return op(GUARDED, DB_INT, 2, leaf(DB_INT), leaf(DB_INT), NULL, NULL);
        if (below(5) == 0)
            return op(NEGATE, DB_INT, 1, make(DB_INT, d), NULL, NULL, NULL);
        if (below(5) == 0)
            return op(GREATEST, DB_INT, 2, make(DB_INT, d), make(DB_INT, d), NULL, NULL);
        e = op(ARITH, DB_INT, 2, make(DB_INT, d), leaf(DB_INT), NULL, NULL);
        e->op = (int)below(3);
        return e;
    case DB_FLOAT:
        if (below(3) == 0)
            return op(TO_FLOAT, DB_FLOAT, 1, make(DB_INT, d), NULL, NULL, NULL);
        e = op(ARITH, DB_FLOAT, 2, make(DB_FLOAT, d), leaf(DB_FLOAT), NULL, NULL);
        e->op = (int)below(3);
        return e;
    case DB_STRING:
        if (below(3) == 0)
            return op(UPPER, DB_STRING, 1, make(DB_STRING, d), NULL, NULL, NULL);
        if (below(3) == 0)
            return op(CONCAT, DB_STRING, 2, leaf(DB_STRING), leaf(DB_STRING), NULL, NULL);
        e = op(SUBSTR, DB_STRING, 1, make(DB_STRING, d), NULL, NULL, NULL);
        e->op = (int)below(4) + 1;
        return e;
    case DB_TIMESTAMP:
        return op(BUCKET, DB_TIMESTAMP, 1, make(DB_TIMESTAMP, d), NULL, NULL, NULL);
    default:
        return make_boolean(d);
    }
}

/* -- Printing
 * ------------------------------------------------------------------------------------*/

static void print(struct chr_buf *o, const struct expr *e)
{
    static const char *const compare[] = {"=", "<>", "<", "<=", ">", ">="};
    static const char *const arith[] = {"+", "-", "*"};
    static const char *const is_true[] = {"IS TRUE", "IS NOT TRUE", "IS FALSE", "IS NOT FALSE"};
#define P(...) chr_buf_addf(o, __VA_ARGS__)
#define A(k)   print(o, e->a[k])
    switch (e->kind) {
    case COLUMN:
        P("%s", names[e->column]);
        break;
    case LITERAL:
        print_val(o, &e->v);
        break;
    case ARITH:
        P("("), A(0), P(" %s ", arith[e->op]), A(1), P(")");
        break;
    case GUARDED:
        P("CASE WHEN "), A(1), P(" <> 0 THEN "), A(0), P(" / "), A(1), P(" ELSE "), A(0), P(" END");
        break;
    case NEGATE:
        P("(- "), A(0), P(")");
        break;
    case COMPARE:
        P("("), A(0), P(" %s ", compare[e->op]), A(1), P(")");
        break;
    case DISTINCT:
        P("("), A(0), P(" IS DISTINCT FROM "), A(1), P(")");
        break;
    case AND:
    case OR:
        P("("), A(0), P(e->kind == AND ? " AND " : " OR "), A(1), P(")");
        break;
    case NOT:
        P("(NOT "), A(0), P(")");
        break;
    case ISNULL:
        P("("), A(0), P(e->op ? " IS NULL)" : " IS NOT NULL)");
        break;
    case ISTRUE:
        P("("), A(0), P(" %s)", is_true[e->op]);
        break;
    case BETWEEN:
        P("("), A(0), P(" BETWEEN "), A(1), P(" AND "), A(2), P(")");
        break;
    case IN:
        P("("), A(0), P(" IN ("), A(1), P(", "), A(2), P(", "), A(3), P("))");
        break;
    case LIKE:
        P("("), A(0), P(e->op ? " LIKE '%s')" : " NOT LIKE '%s')", e->v.s);
        break;
    case CASE:
        P("CASE WHEN "), A(0), P(" THEN "), A(1), P(" ELSE "), A(2), P(" END");
        break;
    case COALESCE:
    case NULLIF:
    case GREATEST:
        P(e->kind == COALESCE ? "coalesce(" : e->kind == NULLIF ? "nullif(" : "greatest(");
        A(0), P(", "), A(1), P(")");
        break;
    case LENGTH:
        P("length("), A(0), P(")");
        break;
    case UPPER:
        P("upper("), A(0), P(")");
        break;
    case SUBSTR:
        P("substr("), A(0), P(", %d, 3)", e->op);
        break;
    case CONCAT:
        P("("), A(0), P(" || "), A(1), P(")");
        break;
    case BUCKET:
        P("time_bucket('7 minutes', "), A(0), P(")");
        break;
    case TO_FLOAT:
        P("("), A(0), P(")::FLOAT");
        break;
    }
}

/* -- Evaluating one row, by looking at it
 * --------------------------------------------------------*/

static int cmp(const struct val *a, const struct val *b)
{
    if (a->type == DB_STRING) {
        int c = strcmp(a->s, b->s);
        return (c > 0) - (c < 0);
    }
    if (a->type == DB_FLOAT) {
        bool na = isnan(a->f), nb = isnan(b->f);
        return na || nb ? na - nb : (a->f > b->f) - (a->f < b->f);
    }
    return (a->i > b->i) - (a->i < b->i);
}

static bool holds(int o, int c)
{
    return o == 0   ? c == 0
           : o == 1 ? c != 0
           : o == 2 ? c < 0
           : o == 3 ? c <= 0
           : o == 4 ? c > 0
                    : c >= 0;
}

static size_t char_bytes(const char *s)
{
    unsigned char c = (unsigned char)*s;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : 3;
}

static bool like(const char *s, const char *p)
{
    if (!*p)
        return !*s;
    if (*p == '%')
        return like(s, p + 1) || (*s && like(s + char_bytes(s), p));
    if (!*s)
        return false;
    if (*p == '_')
        return like(s + char_bytes(s), p + 1);
    size_t n = char_bytes(p);
    return strncmp(s, p, n) == 0 && like(s + n, p + n);
}

static struct val boolean(bool null, bool value)
{
    return (struct val){.type = DB_BOOLEAN, .null = null, .i = !null && value};
}

static struct val eval(const struct expr *e, const struct row *r)
{
    struct val a = {0}, b = {0}, c;
    if (e->n > 0 && e->kind != CASE && e->kind != GUARDED)
        a = eval(e->a[0], r);
    struct val out = {.type = e->type};
    switch (e->kind) {
    case COLUMN:
        return r->v[e->column];
    case LITERAL:
        return e->v;
    case ARITH:
        b = eval(e->a[1], r);
        out.null = a.null || b.null;
        out.i = e->op == 0 ? a.i + b.i : e->op == 1 ? a.i - b.i : a.i * b.i;
        out.f = e->op == 0 ? a.f + b.f : e->op == 1 ? a.f - b.f : a.f * b.f;
        return out;
    case GUARDED:
        a = eval(e->a[0], r);
        b = eval(e->a[1], r);
        if (b.null || b.i == 0)
            return a;
        out.null = a.null;
        out.i = a.i / b.i;
        return out;
    case NEGATE:
        a.i = -a.i;
        return a;
    case COMPARE:
        b = eval(e->a[1], r);
        return boolean(a.null || b.null, !a.null && !b.null && holds(e->op, cmp(&a, &b)));
    case DISTINCT:
        b = eval(e->a[1], r);
        return boolean(false, a.null != b.null || (!a.null && cmp(&a, &b) != 0));
    case AND:
        b = eval(e->a[1], r);
        if ((!a.null && !a.i) || (!b.null && !b.i))
            return boolean(false, false);
        return boolean(a.null || b.null, true);
    case OR:
        b = eval(e->a[1], r);
        if ((!a.null && a.i) || (!b.null && b.i))
            return boolean(false, true);
        return boolean(a.null || b.null, false);
    case NOT:
        return boolean(a.null, !a.i);
    case ISNULL:
        return boolean(false, a.null == (e->op == 1));
    case ISTRUE: {
        bool is = e->op < 2 ? !a.null && a.i : !a.null && !a.i;
        return boolean(false, is == (e->op % 2 == 0));
    }
    case BETWEEN: {
        struct val low = eval(e->a[1], r), high = eval(e->a[2], r);
        struct val ge = boolean(a.null || low.null, !a.null && !low.null && cmp(&a, &low) >= 0);
        struct val le = boolean(a.null || high.null, !a.null && !high.null && cmp(&a, &high) <= 0);
        if ((!ge.null && !ge.i) || (!le.null && !le.i))
            return boolean(false, false);
        return boolean(ge.null || le.null, true);
    }
    case IN: {
        bool null = a.null;
        for (int k = 1; k < 4; k++) {
            b = eval(e->a[k], r);
            if (!a.null && !b.null && cmp(&a, &b) == 0)
                return boolean(false, true);
            null |= b.null;
        }
        return boolean(null, false);
    }
    case LIKE:
        return boolean(a.null, like(a.s, e->v.s) == (e->op == 1));
    case CASE:
        c = eval(e->a[0], r);
        return eval(e->a[!c.null && c.i ? 1 : 2], r);
    case COALESCE:
        return a.null ? eval(e->a[1], r) : a;
    case NULLIF:
        b = eval(e->a[1], r);
        if (!a.null && !b.null && cmp(&a, &b) == 0)
            a.null = true;
        return a;
    case GREATEST:
        b = eval(e->a[1], r);
        return a.null ? b : b.null ? a : cmp(&a, &b) >= 0 ? a : b;
    case LENGTH:
        out.null = a.null;
        for (const char *s = a.s; *s; s += char_bytes(s))
            out.i++;
        return out;
    case UPPER:
        for (char *s = a.s; *s; s++) {
            if (*s >= 'a' && *s <= 'z')
                *s -= 32;
            else if ((unsigned char)*s == 0xc3 && (unsigned char)s[1] == 0xa9)
                *++s = (char)0x89; /* é */
        }
        return a;
    case SUBSTR: {
        const char *s = a.s;
        for (int k = 1; k < e->op && *s; k++)
            s += char_bytes(s);
        const char *end = s;
        for (int k = 0; k < 3 && *end; k++)
            end += char_bytes(end);
        out.null = a.null;
        memcpy(out.s, s, (size_t)(end - s));
        return out;
    }
    case CONCAT:
        b = eval(e->a[1], r);
        out.null = a.null || b.null;
        strcpy(out.s, a.s);
        strcat(out.s, b.s);
        return out;
    case BUCKET: {
        const int64_t width = INT64_C(420000000), origin = INT64_C(946857600000000);
        int64_t k = (a.i - origin) / width;
        while (k * width + origin > a.i)
            k--;
        out.null = a.null;
        out.i = k * width + origin;
        return out;
    }
    case TO_FLOAT:
        out.null = a.null;
        out.f = (double)a.i;
        return out;
    }
    return out;
}

/* -- Running both
 * --------------------------------------------------------------------------------*/

static struct kit kit;
static struct chr_buf got, want, sql;

static void text_of(struct chr_buf *out, const struct val *v)
{
    char text[64];
    if (v->null)
        chr_buf_add_cstr(out, "NULL");
    else if (v->type == DB_INT)
        chr_buf_add(out, text, chr_format_i64(v->i, text));
    else if (v->type == DB_FLOAT)
        chr_buf_add(out, text, chr_format_f64(v->f == 0 ? 0 : v->f, text));
    else if (v->type == DB_STRING)
        chr_buf_add_cstr(out, v->s);
    else if (v->type == DB_TIMESTAMP)
        chr_buf_add(out, text, chr_timestamp_format(v->i, text));
    else
        chr_buf_add_cstr(out, v->i ? "true" : "false");
}

static chr_err on_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    return CHR_OK;
}
static chr_err on_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns,
                       const uint16_t *sel, uint32_t count)
{
    for (uint32_t j = 0; j < count; j++) {
        uint32_t row = sel ? sel[j] : j;
        for (uint32_t c = 0; c < columns; c++) {
            const struct db_vector *v = vectors[c];
            if (c)
                chr_buf_add_u8(&got, '|');
            if (!db_vector_valid(v, row))
                chr_buf_add_cstr(&got, "NULL");
            else if (v->type == DB_FLOAT && v->f64[db_vector_at(v, row)] == 0)
                chr_buf_add_u8(&got, '0'); /* -0.0 and 0.0 are equal; which one is free */
            else
                sql__value_text(&got, v, row);
        }
        chr_buf_add_u8(&got, '\n');
    }
    return CHR_OK;
}
static chr_err on_end(void *ctx, const struct sql_done *done)
{
    return CHR_OK;
}
static void on_error(void *ctx, const struct sql_error *error)
{
    chr_buf_addf(&got, "ERROR %s %s\n", error->sqlstate, error->message);
}

static void run(void)
{
    struct sql_sink sink = {.begin = on_begin, .rows = on_rows, .end = on_end, .error = on_error};
    chr_buf_reset(&got);
    (void)sql_execute(kit.session, chr_buf_slice(&sql), &sink);
}

static void compare(uint64_t seed, int query)
{
    if (got.len == want.len && memcmp(got.ptr ? got.ptr : (uint8_t *)"",
                                      want.ptr ? want.ptr : (uint8_t *)"", got.len) == 0)
        return;
    size_t at = 0;
    while (at < got.len && at < want.len && got.ptr[at] == want.ptr[at])
        at++;
    size_t from = at;
    while (from > 0 && want.ptr[from - 1] != '\n')
        from--;
    fail_msg("seed %llu query %d\n%.*s\nengine: %.*s\ntwin:   %.*s", (unsigned long long)seed,
             query, (int)sql.len, (char *)sql.ptr,
             (int)CHR_MIN(got.len - CHR_MIN(from, got.len), 200u),
             (char *)got.ptr + CHR_MIN(from, got.len), (int)CHR_MIN(want.len - from, 200u),
             (char *)want.ptr + from);
}

static bool passes(const struct expr *where, const struct row *r)
{
    if (!where)
        return true;
    struct val v = eval(where, r);
    return !v.null && v.i;
}

static void plain_query(uint64_t seed, int query)
{
    pool_used = 0;
    struct expr *where = below(5) ? make(DB_BOOLEAN, 4) : NULL;
    struct expr *e[2] = {make(any_type(), 4), make(any_type(), 3)};
    chr_buf_reset(&sql);
    chr_buf_reset(&want);
    chr_buf_add_cstr(&sql, "SELECT id, ");
    print(&sql, e[0]);
    chr_buf_add_cstr(&sql, ", ");
    print(&sql, e[1]);
    chr_buf_add_cstr(&sql, " FROM t");
    if (where) {
        chr_buf_add_cstr(&sql, " WHERE ");
        print(&sql, where);
    }
    chr_buf_add_cstr(&sql, " ORDER BY id");
    uint64_t limit = below(3) ? UINT64_MAX : below(3000);
    if (limit != UINT64_MAX)
        chr_buf_addf(&sql, " LIMIT %llu", (unsigned long long)limit);
    for (int i = 0; i < ROWS && limit > 0; i++) {
        if (!passes(where, &rows[i]))
            continue;
        limit--;
        chr_buf_addf(&want, "%d", i);
        for (int k = 0; k < 2; k++) {
            struct val v = eval(e[k], &rows[i]);
            chr_buf_add_u8(&want, '|');
            text_of(&want, &v);
        }
        chr_buf_add_u8(&want, '\n');
    }
    run();
    compare(seed, query);
}

struct group {
    struct val key[2];
    int64_t count, count_e, sum;
    double fsum;
    struct val min, max, first, last;
    int64_t first_t, last_t;
    int first_id, last_id;
};
static struct group groups[ROWS];

static int key_cmp(const struct val *a, const struct val *b)
{
    if (a->null || b->null)
        return a->null - b->null; /* NULLs last */
    return cmp(a, b);
}
static int group_cmp(const void *x, const void *y)
{
    const struct group *a = x, *b = y;
    for (int k = 0; k < 2; k++) {
        int c = key_cmp(&a->key[k], &b->key[k]);
        if (c)
            return c;
    }
    return 0;
}

static void group_query(uint64_t seed, int query)
{
    pool_used = 0;
    struct expr *where = below(4) ? make(DB_BOOLEAN, 3) : NULL;
    int keys = (int)below(3);
    struct expr *key[2];
    for (int k = 0; k < keys; k++)
        key[k] = below(2) ? leaf(any_type()) : make(any_type(), 3);
    for (int k = 0; k < keys; k++)
        if (key[k]->kind == LITERAL) { /* GROUP BY 3 would be an ordinal */
            key[k] = new_expr(COLUMN, DB_STRING);
            key[k]->column = 3;
        }
    struct expr *num = make(DB_INT, 2), *flo = leaf(DB_FLOAT), *any = make(any_type(), 2);
    if (any->type == DB_BOOLEAN)
        any = leaf(DB_STRING);
    struct expr *last = leaf(any_type());
    chr_buf_reset(&sql);
    chr_buf_reset(&want);
    chr_buf_add_cstr(&sql, "SELECT ");
    for (int k = 0; k < keys; k++) {
        print(&sql, key[k]);
        chr_buf_add_cstr(&sql, ", ");
    }
    chr_buf_add_cstr(&sql, "count(*), sum(");
    print(&sql, num);
    chr_buf_add_cstr(&sql, "), avg(");
    print(&sql, flo);
    chr_buf_add_cstr(&sql, "), min(");
    print(&sql, any);
    chr_buf_add_cstr(&sql, "), max(");
    print(&sql, any);
    chr_buf_add_cstr(&sql, "), first(");
    print(&sql, last);
    chr_buf_add_cstr(&sql, "), last(");
    print(&sql, last);
    chr_buf_add_cstr(&sql, ") FROM t");
    if (where) {
        chr_buf_add_cstr(&sql, " WHERE ");
        print(&sql, where);
    }
    if (keys)
        chr_buf_add_cstr(&sql,
                         keys == 2 ? " GROUP BY 1, 2 ORDER BY 1, 2" : " GROUP BY 1 ORDER BY 1");
    int n = 0;
    struct group *g;
    if (!keys) {
        memset(&groups[0], 0, sizeof groups[0]);
        n = 1;
    }
    static int64_t avg_count[ROWS], sum_count[ROWS];
    memset(avg_count, 0, sizeof avg_count);
    memset(sum_count, 0, sizeof sum_count);
    for (int i = 0; i < ROWS; i++) {
        if (!passes(where, &rows[i]))
            continue;
        struct val kv[2] = {0};
        for (int k = 0; k < keys; k++)
            kv[k] = eval(key[k], &rows[i]);
        int at = 0;
        for (; keys && at < n; at++) {
            bool same = true;
            for (int k = 0; k < keys; k++)
                same &= key_cmp(&groups[at].key[k], &kv[k]) == 0;
            if (same)
                break;
        }
        if (at == n) {
            memset(&groups[n], 0, sizeof groups[n]);
            memcpy(groups[n].key, kv, sizeof kv);
            n++;
        }
        g = &groups[at];
        g->count++;
        struct val v = eval(num, &rows[i]);
        if (!v.null) {
            g->sum += v.i;
            g->count_e++;
        }
        v = eval(flo, &rows[i]);
        if (!v.null) {
            g->fsum += v.f;
            /* the count rides in the key's spare place, to sort along */
            g->key[1].type = g->key[1].type;
            g->min.i += 0;
            sum_count[at]++;
        }
        v = eval(any, &rows[i]);
        if (!v.null) {
            if (!avg_count[at] || cmp(&v, &g->min) < 0)
                g->min = v;
            if (!avg_count[at] || cmp(&v, &g->max) > 0)
                g->max = v;
            avg_count[at]++;
        }
        v = eval(last, &rows[i]);
        const struct val *t = &rows[i].v[4];
        if (!v.null && !t->null) { /* rows were inserted in the order of their ids */
            if (!g->first_id || t->i < g->first_t) {
                g->first = v;
                g->first_t = t->i;
                g->first_id = 1;
            }
            if (!g->last_id || t->i >= g->last_t) {
                g->last = v;
                g->last_t = t->i;
                g->last_id = 1;
            }
        }
    }
    for (int at = 0; at < n; at++) { /* what sorts along */
        groups[at].min.null = groups[at].max.null = avg_count[at] == 0;
        groups[at].first.null = !groups[at].first_id;
        groups[at].last.null = !groups[at].last_id;
        groups[at].first_t = sum_count[at];
    }
    qsort(groups, (size_t)n, sizeof *groups, group_cmp);
    for (int at = 0; at < n; at++) {
        g = &groups[at];
        for (int k = 0; k < keys; k++) {
            text_of(&want, &g->key[k]);
            chr_buf_add_u8(&want, '|');
        }
        struct val sum = {.type = DB_INT, .null = g->count_e == 0, .i = g->sum};
        struct val avg = {.type = DB_FLOAT,
                          .null = g->first_t == 0,
                          .f = g->first_t ? g->fsum / (double)g->first_t : 0};
        chr_buf_addf(&want, "%lld|", (long long)g->count);
        const struct val *cells[] = {&sum, &avg, &g->min, &g->max, &g->first, &g->last};
        for (int c = 0; c < 6; c++) {
            if (c)
                chr_buf_add_u8(&want, '|');
            text_of(&want, cells[c]);
        }
        chr_buf_add_u8(&want, '\n');
    }
    run();
    compare(seed, query);
}

static void load(void)
{
    struct val v;
    chr_buf_reset(&sql);
    chr_buf_add_cstr(&sql,
                     "CREATE TABLE t (id INT, i INT, f FLOAT, s STRING, t TIMESTAMP, b BOOLEAN) "
                     "WITH TOPIC='x/{s}'");
    run();
    assert_int_equal(got.len, 0);
    for (int i = 0; i < ROWS;) {
        chr_buf_reset(&sql);
        chr_buf_add_cstr(&sql, "INSERT INTO t VALUES ");
        for (int k = 0; k < 500 && i < ROWS; k++, i++) {
            chr_buf_addf(&sql, "%s(%d", k ? "," : "", i);
            rows[i].v[0] = (struct val){.type = DB_INT, .i = i};
            for (int c = 1; c < 6; c++) {
                rows[i].v[c] = v = random_val(types[c]);
                chr_buf_add_u8(&sql, ',');
                print_val(&sql, &v);
            }
            chr_buf_add_u8(&sql, ')');
        }
        run();
        if (got.len)
            fail_msg("%.*s", (int)got.len, (char *)got.ptr);
    }
}

static void twin(uint64_t seed, bool sealed)
{
    rnd = (struct chr_random){seed};
    kit_open(&kit, sealed ? 2048 : 0);
    load();
    if (sealed)
        kit_checkpoint(&kit);
    for (int query = 0; query < QUERIES; query++) {
        if (query % 2)
            group_query(seed, query);
        else
            plain_query(seed, query);
    }
    kit_close(&kit);
}

static void each(bool sealed)
{
    const char *one = getenv("CHR_TEST_SEED");
    chr_buf_init(&got, 64u << 20);
    chr_buf_init(&want, 64u << 20);
    chr_buf_init(&sql, 4u << 20);
    for (uint64_t seed = 1; seed <= 2; seed++)
        twin(one ? strtoull(one, NULL, 0) : seed, sealed);
    chr_buf_free(&got);
    chr_buf_free(&want);
    chr_buf_free(&sql);
}
static void hot(void **state)
{
    each(false);
}
static void sealed(void **state)
{
    each(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(hot), cmocka_unit_test(sealed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
