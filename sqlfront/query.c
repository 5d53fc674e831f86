/* sqlfront/query.c: the context of a statement: errors, memory within its limit, time, and handing
 * rows to a sink within the limits of an answer. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "sqlfront/expr.h"
#include "sqlfront/relation.h"

/* -- Errors ------------------------------------------------------------------------------------*/

bool sql__fail(struct sql_query *q, const char *sqlstate, uint32_t pos, const char *format, ...)
{
    if (q->failed)
        return false;
    q->failed = true;
    q->err = CHR_EINVAL;
    char message[sizeof q->error->message];
    va_list args;
    va_start(args, format);
    if (vsnprintf(message, sizeof message, format, args) < 0)
        message[0] = '\0';
    va_end(args);
    uint32_t position = pos == SQL_NO_POS ? 0 : sql__char_position(q->text, pos);
    sql_error_set(q->error, sqlstate, position, "%s", message);
    return false;
}

void sql__detail(struct sql_query *q, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (vsnprintf(q->error->detail, sizeof q->error->detail, format, args) < 0)
        q->error->detail[0] = '\0';
    va_end(args);
}

void sql__hint(struct sql_query *q, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (vsnprintf(q->error->hint, sizeof q->error->hint, format, args) < 0)
        q->error->hint[0] = '\0';
    va_end(args);
}

bool sql__fail_memory(struct sql_query *q)
{
    sql__fail(q, "53200", SQL_NO_POS,
              "out of memory: the statement needs more than its limit of "
              "%llu bytes",
              (unsigned long long)q->session->limits.memory_bytes);
    q->err = CHR_ENOMEM;
    return false;
}

bool sql__check(struct sql_query *q)
{
    if (q->failed)
        return false;
    if (atomic_load_explicit(&q->session->cancel, memory_order_relaxed)) {
        sql__fail(q, "57014", SQL_NO_POS, "canceling statement due to user request");
        q->err = CHR_ECANCELLED;
        return false;
    }
    if (q->deadline_us && chr_clock_mono_us(q->session->host.clock) > q->deadline_us) {
        sql__fail(q, "57014", SQL_NO_POS, "canceling statement due to statement timeout");
        q->err = CHR_ECANCELLED;
        return false;
    }
    return true;
}

/* -- Memory ------------------------------------------------------------------------------------*/

void *sql__alloc(struct sql_query *q, size_t bytes)
{
    void *p = chr_arena_alloc(&q->arena, bytes ? bytes : 1);
    if (!p)
        sql__fail_memory(q);
    return p;
}

void *sql__zalloc(struct sql_query *q, size_t bytes)
{
    void *p = sql__alloc(q, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

void *sql__scratch(struct sql_query *q, size_t bytes)
{
    void *p = chr_arena_alloc(&q->scratch, bytes ? bytes : 1);
    if (!p)
        sql__fail_memory(q);
    return p;
}

/* Blocks know their neighbours, so that one can go early and all go at the end. 48 bytes keep what
 * follows aligned to 16. */
struct sql_block {
    struct sql_block *previous, *next;
    size_t bytes;
    uint64_t unused[3];
};
_Static_assert(sizeof(struct sql_block) % 16 == 0, "blocks stay aligned");

void *sql__grow(struct sql_query *q, void *ptr, size_t bytes)
{
    struct sql_block *old = ptr ? (struct sql_block *)ptr - 1 : NULL;
    size_t old_bytes = old ? old->bytes : 0;
    size_t total = q->blocks_bytes - old_bytes + bytes + q->arena.used_bytes;
    if (bytes > q->session->limits.memory_bytes || total > q->session->limits.memory_bytes) {
        sql__fail_memory(q);
        return NULL;
    }
    struct sql_block *b = realloc(old, sizeof *b + bytes);
    if (!b) {
        sql__fail_memory(q);
        return NULL;
    }
    if (!old) {
        b->previous = NULL;
        b->next = q->blocks;
    }
    if (b->next)
        b->next->previous = b;
    if (b->previous)
        b->previous->next = b;
    else
        q->blocks = b;
    b->bytes = bytes;
    q->blocks_bytes = q->blocks_bytes - old_bytes + bytes;
    return b + 1;
}

void sql__ungrow(struct sql_query *q, void *ptr)
{
    if (!ptr)
        return;
    struct sql_block *b = (struct sql_block *)ptr - 1;
    if (b->next)
        b->next->previous = b->previous;
    if (b->previous)
        b->previous->next = b->next;
    else
        q->blocks = b->next;
    q->blocks_bytes -= b->bytes;
    free(b);
}

void sql__query_free(struct sql_query *q)
{
    sql__lifts_free(q);
    while (q->blocks)
        sql__ungrow(q, q->blocks + 1);
    chr_arena_free(&q->arena);
    chr_arena_free(&q->scratch);
}

/* -- Sinks -------------------------------------------------------------------------------------*/

static bool sink_result(struct sql_query *q, chr_err err)
{
    if (err == CHR_ETOOBIG)
        return sql__fail(q, sql_sqlstate_of(err), SQL_NO_POS,
                         "a row of the answer is larger than one message may be");
    return err == CHR_OK || sql__fail_err(q, err, NULL);
}

bool sql__send_begin(struct sql_query *q, const struct sql_sink *sink,
                     const struct sql_column *columns, uint32_t count)
{
    return sink_result(q, sink->begin(sink->ctx, columns, count));
}

/* About what the rows weigh, so that an answer cannot fill the memory of whoever collects it. */
static uint64_t bytes_of(const struct db_vector *const *vectors, uint32_t columns_count,
                         const uint16_t *sel, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t c = 0; c < columns_count; c++) {
        const struct db_vector *v = vectors[c];
        bytes += 8ull * count;
        if (!db_type_is_bytes(v->type))
            continue;
        for (uint32_t j = 0; j < count; j++) {
            uint32_t row = sel ? sel[j] : j;
            if (db_vector_valid(v, row))
                bytes += v->str[db_vector_at(v, row)].len;
        }
    }
    return bytes;
}

bool sql__send_rows(struct sql_query *q, const struct sql_sink *sink,
                    const struct db_vector *const *vectors, uint32_t columns_count,
                    const uint16_t *sel, uint32_t count)
{
    const struct sql_limits *limits = &q->session->limits;
    q->rows_sent += count;
    if (limits->result_rows && q->rows_sent > limits->result_rows)
        return sql__fail(q, "54000", SQL_NO_POS, "the answer has more than %llu rows",
                         (unsigned long long)limits->result_rows);
    if (limits->result_bytes) {
        q->bytes_sent += bytes_of(vectors, columns_count, sel, count);
        if (q->bytes_sent > limits->result_bytes)
            return sql__fail(q, "54000", SQL_NO_POS, "the answer is larger than %llu bytes",
                             (unsigned long long)limits->result_bytes);
    }
    return sink_result(q, sink->rows(sink->ctx, vectors, columns_count, sel, count));
}

bool sql__send_texts(struct sql_query *q, const struct sql_column *columns, uint32_t columns_count,
                     const char *const *cells, uint32_t rows)
{
    if (!sql__send_begin(q, q->sink, columns, columns_count))
        return false;
    struct db_vector *vectors = SQL_ARRAY(q, struct db_vector, columns_count);
    const struct db_vector **pointers = SQL_ARRAY(q, const struct db_vector *, columns_count);
    if (!vectors || !pointers)
        return false;
    for (uint32_t c = 0; c < columns_count; c++) {
        vectors[c] = (struct db_vector){.type = columns[c].type, .form = DB_VECTOR_FLAT};
        vectors[c].data = sql__alloc(q, DB_VECTOR_ROWS * sizeof(chr_slice));
        vectors[c].validity = sql__alloc(q, DB_BIT_WORDS(DB_VECTOR_ROWS) * 8);
        pointers[c] = &vectors[c];
        if (!vectors[c].data || !vectors[c].validity)
            return false;
    }
    for (uint32_t from = 0; from < rows; from += DB_VECTOR_ROWS) {
        uint32_t n = CHR_MIN(rows - from, (uint32_t)DB_VECTOR_ROWS);
        for (uint32_t c = 0; c < columns_count; c++) {
            vectors[c].count = n;
            memset(vectors[c].validity, 0xff, DB_BIT_WORDS(n) * 8);
            for (uint32_t i = 0; i < n; i++) {
                const char *cell = cells[(size_t)(from + i) * columns_count + c];
                if (!cell)
                    db_bit_clear(vectors[c].validity, i);
                if (vectors[c].type == DB_INT) {
                    int64_t v = 0;
                    if (cell)
                        (void)chr_parse_i64(chr_slice_cstr(cell), &v);
                    vectors[c].i64[i] = v;
                } else {
                    vectors[c].str[i] = chr_slice_cstr(cell);
                }
            }
        }
        if (!sql__send_rows(q, q->sink, pointers, columns_count, NULL, n))
            return false;
    }
    return true;
}

bool sql__begin_read(struct sql_query *q, bool barrier, db_read **read)
{
    sql_session *s = q->session;
    if (barrier && !s->settings.stale && s->host.read_barrier) {
        chr_err err = s->host.read_barrier(s->host.ctx);
        if (err)
            return sql__fail(
                q, "08006", SQL_NO_POS,
                "there is no leader to read from; SET consistency = 'stale' reads what "
                "this node has");
    }
    chr_err err = db_read_begin(s->db, read);
    if (err)
        return sql__fail_err(q, err, NULL);
    q->apply_index = db_read_index(*read);
    /* now() is not before what was read, even if this clock runs behind. */
    int64_t replicated = db_read_time_us(*read);
    if (replicated > q->now_us)
        q->now_us = replicated;
    return true;
}

const struct db_table_def *sql__find_table(struct sql_query *q, const db_catalog *catalog,
                                           chr_slice name, uint32_t pos)
{
    const struct db_table_def *table = sql__find_relation(q, name);
    if (table || q->failed)
        return table;
    table = db_catalog_find(catalog, name);
    if (table)
        return table;
    sql__fail(q, "42P01", pos, "table \"%.*s\" does not exist", CHR_SLICE_ARGS(name));
    const char *best = NULL;
    unsigned best_distance = 3;
    for (size_t i = 0; i < db_catalog_tables_count(catalog); i++) {
        const char *candidate = db_catalog_table_at(catalog, i)->name;
        unsigned d = sql__edit_distance(name, chr_slice_cstr(candidate), 2);
        if (d < best_distance && d < CHR_MAX(name.len, strlen(candidate))) {
            best = candidate;
            best_distance = d;
        }
    }
    const char *relation;
    for (uint32_t i = 0; (relation = sql__relation_name(q, i)); i++) {
        unsigned d = sql__edit_distance(name, chr_slice_cstr(relation), 2);
        if (d < best_distance) {
            best = relation;
            best_distance = d;
        }
    }
    if (best)
        sql__hint(q, "Did you mean \"%s\"?", best);
    return NULL;
}
