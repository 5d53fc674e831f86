/* tests/broker/ingest/helper.h: tables from one line of text, rows back to text, guarded pages.
 *
 *     env (site STRING, ts TIMESTAMP NOT NULL, "a.b" FLOAT) KEY (site) TIME ts FORMAT csv
 *         TOPIC farm/{site}/env TOPIC other/#
 */
#ifndef CHR_TESTS_INGEST_HELPER_H
#define CHR_TESTS_INGEST_HELPER_H

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/num.h"
#include "base/timestamp.h"
#include "broker/ingest/ingest.h"
#include "broker/ingest/internal.h"
#include "broker/ingest/message.h"

#define HELPER_TABLES_MAX 2048
/* 2024-01-01T00:00:00Z: what payloads without a time get. */
#define HELPER_ARRIVAL INT64_C(1704067200000000)

struct helper {
    struct db_table_def *tables[HELPER_TABLES_MAX];
    uint32_t tables_count;
    ingest_mappings *mappings;
    ingest_decoder *decoder;
};

static inline void helper_die(const char *what, const char *where)
{
    fprintf(stderr, "test input: %s: %s\n", what, where);
    abort();
}

static inline const char *helper_space(const char *p)
{
    while (*p == ' ')
        p++;
    return p;
}

/* A word, or a name in double quotes. */
static inline const char *helper_word(const char *p, char *out, size_t room)
{
    p = helper_space(p);
    size_t len = 0;
    if (*p == '"') {
        for (p++; *p && *p != '"' && len + 1 < room; p++)
            out[len++] = *p;
        p += *p == '"';
    } else {
        while (*p && !strchr(" ,()", *p) && len + 1 < room)
            out[len++] = *p++;
    }
    out[len] = '\0';
    return helper_space(p);
}

static inline enum db_type helper_type(const char *word)
{
    for (int t = 1; t < DB_TYPES_END; t++)
        if (strcmp(db_type_name((enum db_type)t), word) == 0)
            return (enum db_type)t;
    helper_die("unknown type", word);
    return DB_INT;
}

static inline struct db_table_def *helper_table(const char *text, uint32_t id)
{
    static const char *const formats[] = {"auto", "json", "csv", "number", "text"};
    struct db_table_def *t = calloc(1, sizeof *t);
    char word[512], type[64];
    t->id = id;
    t->schema_version = 1;
    t->time_column = -1;
    t->columns = calloc(DB_COLUMNS_MAX, sizeof *t->columns);
    t->topics = calloc(256, sizeof *t->topics);
    const char *p = helper_word(text, t->name, sizeof t->name);
    if (*p++ != '(')
        helper_die("expected (", p);
    for (;;) {
        struct db_column_def *c = &t->columns[t->columns_count++];
        p = helper_word(p, c->name, sizeof c->name);
        p = helper_word(p, type, sizeof type);
        c->type = helper_type(type);
        if (strncmp(p, "NOT NULL", 8) == 0) {
            c->not_null = true;
            p = helper_space(p + 8);
        }
        if (*p++ == ')')
            break;
    }
    for (p = helper_space(p); *p && *p != '\n';) {
        p = helper_word(p, word, sizeof word);
        if (strcmp(word, "TOPIC") == 0) {
            p = helper_word(p, word, sizeof word);
            t->topics[t->topics_count++] = strdup(word);
        } else if (strcmp(word, "FORMAT") == 0) {
            p = helper_word(p, word, sizeof word);
            for (int f = 0; f < 5; f++)
                if (strcmp(word, formats[f]) == 0)
                    t->format = (enum db_payload_format)f;
        } else if (strcmp(word, "TIME") == 0) {
            p = helper_word(p, word, sizeof word);
            t->time_is_option = true;
            t->time_column = db_table_column(t, chr_slice_cstr(word));
        } else if (strcmp(word, "KEY") == 0) {
            do {
                p = helper_word(p + 1, word, sizeof word);
                t->key_columns[t->key_count++] = (uint16_t)db_table_column(t, chr_slice_cstr(word));
            } while (*p == ',');
            p = helper_space(p + 1);
        } else {
            helper_die("unknown word", word);
        }
    }
    struct chr_errmsg msg;
    if (db_table_def_complete(t, &msg))
        helper_die(msg.text, text);
    return t;
}

static inline void helper_free_table(struct db_table_def *t)
{
    for (uint16_t i = 0; i < t->topics_count; i++)
        free(t->topics[i]);
    free(t->topics);
    free(t->columns);
    free(t);
}

static inline int helper_by_name(const void *a, const void *b)
{
    return strcmp((*(struct db_table_def *const *)a)->name,
                  (*(struct db_table_def *const *)b)->name);
}

/* Compiles what helper_add_table added; to be called again after adding more. */
static inline void helper_compile(struct helper *h, size_t bytes_max)
{
    qsort(h->tables, h->tables_count, sizeof h->tables[0], helper_by_name);
    ingest_decoder_free(h->decoder);
    ingest_mappings_release(h->mappings);
    if (ingest__mappings_of_tables((const struct db_table_def *const *)h->tables, h->tables_count,
                                   7, &h->mappings) ||
        ingest_decoder_new(bytes_max, &h->decoder) || ingest_decoder_use(h->decoder, h->mappings))
        helper_die("no memory", "");
}

static inline void helper_add_table(struct helper *h, const char *text)
{
    h->tables[h->tables_count] = helper_table(text, 100 + h->tables_count);
    h->tables_count++;
}

static inline void helper_free(struct helper *h)
{
    ingest_decoder_free(h->decoder);
    ingest_mappings_release(h->mappings);
    for (uint32_t i = 0; i < h->tables_count; i++)
        helper_free_table(h->tables[i]);
    memset(h, 0, sizeof *h);
}

/* -- Rows as text: `env site=a temp=21.5 humidity=null`, columns that are not named left out */

struct helper_text {
    char *ptr;
    size_t len, capacity;
};

static inline void helper_add(struct helper_text *t, const char *bytes, size_t len)
{
    if (t->len + len + 1 > t->capacity) {
        t->capacity = (t->len + len + 1) * 2;
        t->ptr = realloc(t->ptr, t->capacity);
    }
    memcpy(t->ptr + t->len, bytes, len);
    t->len += len;
    t->ptr[t->len] = '\0';
}

static inline void helper_adds(struct helper_text *t, const char *s)
{
    helper_add(t, s, strlen(s));
}

/* Escaped so that a row is one line and a value ends at a blank. */
static inline void helper_add_string(struct helper_text *t, chr_slice s)
{
    char hex[8];
    if (s.len == 0)
        helper_adds(t, "''");
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        if (c == '\\' || c <= ' ' || c == 0x7f) {
            snprintf(hex, sizeof hex, c == ' ' ? "_" : "\\x%02x", c);
            helper_adds(t, hex);
        } else {
            helper_add(t, (const char *)&c, 1);
        }
    }
}

static inline void helper_add_value(struct helper_text *t, const struct db_rows_column *c,
                                    uint32_t row)
{
    char number[CHR_NUM_TEXT_MAX + CHR_TIMESTAMP_TEXT_MAX];
    switch (c->type) {
    case DB_INT:
        chr_format_i64(c->i64[row], number);
        helper_adds(t, number);
        break;
    case DB_FLOAT:
        chr_format_f64(c->f64[row], number);
        helper_adds(t, number);
        break;
    case DB_TIMESTAMP:
        if (c->i64[row] == HELPER_ARRIVAL)
            strcpy(number, "arrival");
        else
            chr_timestamp_format(c->i64[row], number);
        helper_adds(t, number);
        break;
    case DB_BOOLEAN:
        helper_adds(t, c->b8[row] ? "true" : "false");
        break;
    case DB_STRING:
    case DB_BLOB: {
        uint32_t begin = row ? c->ends[row - 1] : 0;
        chr_slice bytes = chr_slice_of(c->heap ? c->heap + begin : NULL, c->ends[row] - begin);
        if (c->type == DB_STRING) {
            helper_add_string(t, bytes);
            break;
        }
        helper_adds(t, "0x");
        for (size_t i = 0; i < bytes.len; i++) {
            snprintf(number, sizeof number, "%02x", bytes.ptr[i]);
            helper_adds(t, number);
        }
        break;
    }
    }
}

static inline void helper_add_row(struct helper_text *t, const struct db_rows_builder *b,
                                  uint32_t row)
{
    helper_adds(t, b->table->name);
    for (uint16_t i = 0; i < b->table->columns_count; i++) {
        const struct db_rows_column *c = &b->columns[i];
        bool valid = db_bit_get(c->validity, row);
        bool named = c->has_named && db_bit_get(c->named, row);
        if (!valid && !named)
            continue;
        helper_adds(t, " ");
        helper_adds(t, b->table->columns[i].name);
        helper_adds(t, "=");
        if (valid)
            helper_add_value(t, c, row);
        else
            helper_adds(t, "null");
    }
    if (b->guarded && b->guards[row] != UINT32_MAX) {
        char guard[32];
        snprintf(guard, sizeof guard, " guard=%u", b->guards[row]);
        helper_adds(t, guard);
    }
    helper_adds(t, "\n");
}

/* All rows that the decoder holds, table by table. */
static inline void helper_add_pending(struct helper_text *t, const struct helper *h)
{
    for (uint32_t i = 0; i < h->mappings->tables_count; i++) {
        const struct db_rows_builder *b = h->decoder->builders[i];
        for (uint32_t r = 0; b && r < b->rows; r++)
            helper_add_row(t, b, r);
    }
}

/* -- Bytes that end where a page that cannot be read begins */

struct helper_guard {
    uint8_t *map;
    size_t bytes; /* readable ones */
};

static inline void helper_guard_init(struct helper_guard *g, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    g->bytes = (bytes + page - 1) / page * page + page;
    g->map =
        mmap(NULL, g->bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->map == MAP_FAILED || mprotect(g->map + g->bytes, page, PROT_NONE))
        helper_die("no memory", "guard");
}

static inline chr_slice helper_guarded(struct helper_guard *g, chr_slice bytes)
{
    uint8_t *at = g->map + g->bytes - bytes.len;
    if (bytes.len > g->bytes)
        helper_die("too long", "guard");
    if (bytes.len)
        memcpy(at, bytes.ptr, bytes.len);
    return chr_slice_of(at, bytes.len);
}

static inline void helper_guard_free(struct helper_guard *g)
{
    munmap(g->map, g->bytes + (size_t)sysconf(_SC_PAGESIZE));
}

#endif
