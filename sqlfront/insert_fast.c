/* sqlfront/insert_fast.c: INSERT INTO t [(columns)] VALUES (literal, …), …: the road of bulk loads.
 *
 * Reads the text once and writes values straight into columns: no tokens, no nodes. It takes only
 * what it fully understands; anything else, errors included, is left to the general way, which then
 * says what is wrong. So it needs no messages of its own. */
#include <strings.h>

#include "base/timestamp.h"
#include "base/utf8.h"
#include "sqlfront/internal.h"

struct cursor {
    const uint8_t *p, *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || (*c->p >= '\t' && *c->p <= '\r')))
        c->p++;
}

static bool take(struct cursor *c, uint8_t ch)
{
    skip_blanks(c);
    if (c->p < c->end && *c->p == ch) {
        c->p++;
        return true;
    }
    return false;
}

static bool is_word(uint8_t ch)
{
    return (ch >= '0' && ch <= '9') || (uint8_t)((ch | 32) - 'a') < 26 || ch == '_' || ch == '$' ||
           ch >= 0x80;
}

/* An unquoted word; empty when there is none. */
static chr_slice word(struct cursor *c)
{
    skip_blanks(c);
    const uint8_t *start = c->p;
    if (c->p < c->end && *c->p >= '0' && *c->p <= '9')
        return chr_slice_of(start, 0);
    while (c->p < c->end && is_word(*c->p))
        c->p++;
    return chr_slice_of(start, (size_t)(c->p - start));
}

static bool word_is(chr_slice w, const char *lower)
{
    return strlen(lower) == w.len && strncasecmp(lower, (const char *)w.ptr, w.len) == 0;
}

/* Folds into space; false when it is no plain name. */
static bool name(struct cursor *c, char space[DB_NAME_BYTES_MAX + 1], chr_slice *out)
{
    chr_slice w = word(c);
    if (w.len == 0 || w.len > DB_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < w.len; i++)
        space[i] = (char)(w.ptr[i] >= 'A' && w.ptr[i] <= 'Z' ? w.ptr[i] + 32 : w.ptr[i]);
    *out = chr_slice_of(space, w.len);
    return true;
}

static bool column_list(struct cursor *c, const struct db_table_def *table, uint16_t *columns,
                        uint32_t *count)
{
    char space[DB_NAME_BYTES_MAX + 1];
    do {
        chr_slice n;
        if (!name(c, space, &n))
            return false;
        int column = db_table_column(table, n);
        if (column < 0 || *count == table->columns_count)
            return false;
        for (uint32_t i = 0; i < *count; i++)
            if (columns[i] == column)
                return false;
        columns[(*count)++] = (uint16_t)column;
    } while (take(c, ','));
    return take(c, ')');
}

/* 'text' from the opening quote; '' inside is copied to scratch. */
static bool string(struct sql_query *q, struct cursor *c, chr_slice *out)
{
    const uint8_t *start = ++c->p;
    const uint8_t *quote = memchr(start, '\'', (size_t)(c->end - start));
    if (!quote)
        return false;
    if (quote + 1 >= c->end || quote[1] != '\'') {
        *out = chr_slice_of(start, (size_t)(quote - start));
        c->p = quote + 1;
        return true;
    }
    uint8_t *copy = chr_arena_alloc(&q->scratch, (size_t)(c->end - start));
    if (!copy)
        return false;
    size_t n = 0;
    for (const uint8_t *p = start; p < c->end; p++) {
        if (*p == '\'') {
            if (p + 1 >= c->end || p[1] != '\'') {
                *out = chr_slice_of(copy, n);
                c->p = p + 1;
                return true;
            }
            p++;
        }
        copy[n++] = *p;
    }
    return false;
}

static bool number(struct cursor *c, struct db_rows_builder *b, uint16_t column, enum db_type type)
{
    bool is_int;
    int64_t i;
    double f;
    int used = chr_parse_number(chr_slice_of(c->p, (size_t)(c->end - c->p)), &is_int, &i, &f);
    if (used <= 0)
        return false;
    bool digits_only = !is_int; /* an integer past 64 bits is an error, whatever it is for */
    for (int k = 0; digits_only && k < used; k++)
        digits_only = c->p[k] == '-' || (c->p[k] >= '0' && c->p[k] <= '9');
    if (digits_only)
        return false;
    c->p += used;
    if (c->p < c->end && (is_word(*c->p) || *c->p == '.'))
        return false;
    if (type == DB_INT && is_int)
        db_rows_put_i64(b, column, i);
    else if (type == DB_FLOAT)
        db_rows_put_f64(b, column, f);
    else
        return false;
    return true;
}

static bool value(struct sql_query *q, struct cursor *c, struct db_rows_builder *b, uint16_t column)
{
    skip_blanks(c);
    if (c->p == c->end)
        return false;
    enum db_type type = b->table->columns[column].type;
    uint8_t ch = *c->p;
    if (ch == '-' || (ch >= '0' && ch <= '9'))
        return number(c, b, column, type);
    if (ch == '\'') {
        chr_slice s;
        if (!string(q, c, &s))
            return false;
        if (type == DB_STRING)
            return db_rows_put_bytes(b, column, s) == CHR_OK;
        int64_t us;
        if (type != DB_TIMESTAMP || chr_timestamp_parse(s, &us) != CHR_OK)
            return false;
        db_rows_put_i64(b, column, us);
        return true;
    }
    chr_slice w = word(c);
    if (word_is(w, "null"))
        db_rows_put_null(b, column);
    else if (type == DB_BOOLEAN && (word_is(w, "true") || word_is(w, "false")))
        db_rows_put_bool(b, column, w.len == 4);
    else
        return false;
    return true;
}

static bool rows(struct sql_query *q, struct cursor *c, struct db_rows_builder *b,
                 const uint16_t *columns, uint32_t count)
{
    do {
        if (!take(c, '('))
            return false;
        for (uint32_t i = 0; i < count; i++)
            if ((i && !take(c, ',')) || !value(q, c, b, columns[i]))
                return false;
        if (!take(c, ')') || db_rows_end(b, q->now_us, NULL) != CHR_OK)
            return false;
    } while (take(c, ','));
    while (take(c, ';'))
        ;
    skip_blanks(c);
    return c->p == c->end && b->bytes < DB_ENTRY_BYTES_MAX;
}

bool sql__run_insert_fast(struct sql_query *q, chr_slice text, bool *handled, struct sql_done *done)
{
    struct cursor c = {text.ptr, text.ptr + text.len};
    *handled = false;
    if (!word_is(word(&c), "insert") || !word_is(word(&c), "into"))
        return false;
    char space[DB_NAME_BYTES_MAX + 1];
    chr_slice table_name;
    if (!name(&c, space, &table_name))
        return false;
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    const struct db_table_def *table = db_catalog_find(catalog, table_name);
    struct db_rows_builder builder;
    bool open = false, ok = false;
    struct db_entry entry = {0};
    if (!table || table->system || q->session->read_only)
        goto out;
    /* The general way decides who may, and says so. */
    if (q->session->role != DB_ROLE_ADMIN)
        goto out;
    uint16_t *columns = SQL_ARRAY(q, uint16_t, table->columns_count);
    uint32_t count = 0;
    if (!columns)
        goto out;
    if (take(&c, '(')) {
        if (!column_list(&c, table, columns, &count))
            goto out;
    } else {
        for (; count < table->columns_count; count++)
            columns[count] = (uint16_t)count;
    }
    if (!word_is(word(&c), "values") || db_rows_init(&builder, table, DB_OP_ROWS_MAX) != CHR_OK)
        goto out;
    open = true;
    if (!chr_utf8_valid_mqtt(text) || !rows(q, &c, &builder, columns, count))
        goto out;
    *handled = true;
    struct sql_applied applied;
    sql__write_begin(q, &entry);
    db_rows_finish(&builder, DB_ROWS_INSERT, &entry);
    ok = sql__write_propose(q, &entry, &applied) && sql__write_check(q, &applied, table);
    if (ok) {
        done->row_count = applied.rows;
        done->duplicate = applied.err == CHR_EEXIST;
        done->apply_index = applied.index;
    }
out:
    db_entry_free(&entry);
    if (open)
        db_rows_free(&builder);
    db_catalog_release(catalog);
    return ok;
}
