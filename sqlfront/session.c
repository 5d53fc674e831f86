/* sqlfront/session.c: sessions, and a text executed statement by statement. */
#include <stdlib.h>
#include <strings.h>

#include "base/hash.h"
#include "sqlfront/internal.h"

void sql_limits_default(struct sql_limits *limits)
{
    *limits = (struct sql_limits){
        .statement_bytes = 4u << 20,
        .memory_bytes = 256u << 20,
        .timeout_us = 30 * INT64_C(1000000),
        .result_bytes = 256u << 20,
        .expression_depth = 500,
        .list_items = 65536,
    };
}

bool sql_format_parse(chr_slice name, enum sql_format *format)
{
    static const char *const names[] = {"default", "json", "csv", "ndjson", "table"};
    for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
        if (strlen(names[i]) == name.len &&
            strncasecmp(names[i], (const char *)name.ptr, name.len) == 0) {
            *format = (enum sql_format)i;
            return i > 0;
        }
    return false;
}

sql_session *sql_session_new(db *state, const struct sql_host *host,
                             const struct sql_limits *limits)
{
    sql_session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->db = state;
    s->host = *host;
    s->limits = *limits;
    atomic_init(&s->cancel, false);
    chr_arena_init(&s->parse_arena, 64u << 10, 0);
    return s;
}

void sql_session_free(sql_session *session)
{
    if (!session)
        return;
    chr_arena_free(&session->parse_arena);
    free(session);
}

void sql_session_set_user(sql_session *session, chr_slice name, enum db_role role)
{
    session->role = role;
    session->user[0] = 0;
    if (name.len && name.len <= DB_GRANTEE_BYTES_MAX && !memchr(name.ptr, 0, name.len)) {
        memcpy(session->user, name.ptr, name.len);
        session->user[name.len] = 0;
    }
}

void sql_session_set_read_only(sql_session *session, bool read_only)
{
    session->read_only = read_only;
}
void sql_session_set_format(sql_session *session, enum sql_format format)
{
    session->settings.format = format;
}
void sql_session_cancel(sql_session *session)
{
    atomic_store_explicit(&session->cancel, true, memory_order_relaxed);
}

static bool run(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    switch (stmt->kind) {
    case SQL_STMT_SELECT:
        done->command = "SELECT";
        return sql__run_select(q, stmt, q->sink, &done->row_count);
    case SQL_STMT_EXPLAIN:
        done->command = "EXPLAIN";
        return sql__run_explain(q, stmt, &done->row_count);
    case SQL_STMT_INSERT:
        done->command = "INSERT";
        return sql__run_insert(q, stmt, done);
    case SQL_STMT_UPDATE:
        done->command = "UPDATE";
        return sql__run_update(q, stmt, done);
    case SQL_STMT_DELETE:
        done->command = "DELETE";
        return sql__run_delete(q, stmt, done);
    case SQL_STMT_CREATE_TABLE:
        done->command = "CREATE TABLE";
        return sql__run_create_table(q, stmt, done);
    case SQL_STMT_DROP_TABLE:
        done->command = "DROP TABLE";
        return sql__run_drop_table(q, stmt, done);
    case SQL_STMT_TRUNCATE:
        done->command = "TRUNCATE TABLE";
        return sql__run_truncate(q, stmt, done);
    case SQL_STMT_SHOW_TABLES:
        done->command = "SHOW TABLES";
        return sql__run_show_tables(q, stmt, &done->row_count);
    case SQL_STMT_GRANT:
        done->command = stmt->revoke ? "REVOKE" : "GRANT";
        return sql__run_grant(q, stmt, done);
    case SQL_STMT_SHOW:
        done->command = "SHOW";
        return sql__run_show(q, stmt, &done->row_count);
    case SQL_STMT_DESCRIBE:
        done->command = "DESCRIBE";
        return sql__run_describe(q, stmt, &done->row_count);
    case SQL_STMT_SET:
        done->command = "SET";
        return sql__run_set(q, stmt);
    case SQL_STMT_RETRY_REJECTS:
        done->command = "RETRY REJECTS";
        return sql__run_retry_rejects(q, stmt, &done->row_count);
    case SQL_STMT_KILL_CLIENT:
        done->command = "KILL CLIENT";
        return sql__run_kill_client(q, stmt, done);
    case SQL_STMT_ALTER_CLUSTER:
        done->command = "ALTER CLUSTER";
        return sql__run_alter_cluster(q, stmt, done);
    }
    return false;
}

static void query_init(struct sql_query *q, sql_session *s, chr_slice text, uint32_t index,
                       const struct sql_sink *sink, struct sql_error *error)
{
    *q = (struct sql_query){
        .session = s, .sink = sink, .error = error, .text = text, .index = index};
    memset(error, 0, sizeof *error);
    chr_arena_init(&q->arena, 64u << 10, s->limits.memory_bytes);
    chr_arena_init(&q->scratch, 128u << 10, s->limits.memory_bytes);
    q->begun_us = chr_clock_mono_us(s->host.clock);
    q->now_us = chr_clock_wall_us(s->host.clock);
    int64_t timeout = s->limits.timeout_us;
    if (s->settings.timeout_us && (!timeout || s->settings.timeout_us < timeout))
        timeout = s->settings.timeout_us;
    q->deadline_us = timeout ? q->begun_us + timeout : 0;
    q->random_state = chr_hash_seed() ^ chr_hash_u64((uint64_t)q->begun_us + index);
    q->format = s->settings.format;
}

/* What every statement ends with: end or error, once. */
static chr_err finish(struct sql_query *q, bool ok, struct sql_done *done)
{
    sql_session *s = q->session;
    if (ok && !q->failed) {
        done->elapsed_us = chr_clock_mono_us(s->host.clock) - q->begun_us;
        if (!done->apply_index)
            done->apply_index = q->apply_index;
        done->stale_us = -1;
        if (s->settings.stale && q->apply_index) {
            int64_t age =
                chr_clock_wall_us(s->host.clock) - chr_hlc_unix_us(db_replicated_time(s->db));
            done->stale_us = age > 0 ? age : 0;
        }
        chr_err err = q->sink->end(q->sink->ctx, done);
        if (err == CHR_OK)
            return CHR_OK;
        sql__fail_err(q, err, NULL);
    }
    CHR_ASSERT(q->failed);
    q->sink->error(q->sink->ctx, q->error);
    return q->err ? q->err : CHR_EINVAL;
}

static chr_err announce(struct sql_query *q, uint32_t index, uint32_t count, enum sql_format format)
{
    struct sql_statement_info info = {
        .index = index, .count = count, .format = format ? format : q->format};
    return q->sink->statement ? q->sink->statement(q->sink->ctx, &info) : CHR_OK;
}

static chr_err execute_one(sql_session *s, chr_slice text, const struct sql_stmt *stmt,
                           uint32_t index, uint32_t count, const struct sql_sink *sink)
{
    struct sql_query q;
    struct sql_error error;
    query_init(&q, s, text, index, sink, &error);
    struct sql_done done = {.command = ""};
    chr_err err = announce(&q, index, count, stmt->format);
    bool ok = err == CHR_OK ? sql__check(&q) && run(&q, stmt, &done) : sql__fail_err(&q, err, NULL);
    err = finish(&q, ok, &done);
    sql__query_free(&q);
    return err;
}

static chr_err refuse(const struct sql_sink *sink, const struct sql_error *error, chr_err err)
{
    struct sql_statement_info info = {.count = 1};
    if (sink->statement)
        (void)sink->statement(sink->ctx, &info);
    sink->error(sink->ctx, error);
    return err;
}

/* The road of bulk loads: an INSERT of literals is read without a syntax tree. */
static bool insert_fast(sql_session *s, chr_slice text, const struct sql_sink *sink, chr_err *err)
{
    struct sql_query q;
    struct sql_error error;
    query_init(&q, s, text, 0, sink, &error);
    struct sql_done done = {.command = "INSERT"};
    bool handled = false;
    bool ok = sql__run_insert_fast(&q, text, &handled, &done);
    if (handled) {
        *err = announce(&q, 0, 1, SQL_FORMAT_DEFAULT);
        if (*err)
            ok = sql__fail_err(&q, *err, NULL);
        *err = finish(&q, ok, &done);
    }
    sql__query_free(&q);
    return handled;
}

chr_err sql_execute(sql_session *session, chr_slice text, const struct sql_sink *sink)
{
    struct sql_error error;
    atomic_store_explicit(&session->cancel, false, memory_order_relaxed);
    if (text.len > session->limits.statement_bytes) {
        sql_error_set(&error, "54000", 0, "statement is longer than %llu bytes",
                      (unsigned long long)session->limits.statement_bytes);
        return refuse(sink, &error, CHR_ETOOBIG);
    }
    chr_err err = CHR_OK;
    if (insert_fast(session, text, sink, &err))
        return err;
    chr_arena_init(&session->parse_arena, 64u << 10, session->limits.memory_bytes);
    uint8_t *copy = chr_arena_alloc(&session->parse_arena, text.len + 1);
    struct sql_stmt *stmts = NULL;
    uint32_t count = 0;
    if (!copy) {
        sql_error_set(&error, "53200", 0, "out of memory");
        err = refuse(sink, &error, CHR_ENOMEM);
    } else {
        if (text.len)
            memcpy(copy, text.ptr, text.len);
        copy[text.len] = 0;
        chr_slice own = chr_slice_of(copy, text.len);
        err = sql__parse(&session->parse_arena, own, &session->limits, &error, &stmts, &count);
        if (err)
            err = refuse(sink, &error, err);
        uint32_t index = 0;
        for (const struct sql_stmt *stmt = stmts; stmt && !err; stmt = stmt->next)
            err = execute_one(session, own, stmt, index++, count, sink);
    }
    chr_arena_free(&session->parse_arena);
    return err;
}

size_t sql_statement_end(chr_slice text)
{
    size_t i = 0;
    while (i < text.len) {
        uint8_t c = text.ptr[i];
        uint8_t next = i + 1 < text.len ? text.ptr[i + 1] : 0;
        if (c == ';')
            return i + 1;
        if (c == '\'' || c == '"') {
            bool escapes =
                c == '\'' && i > 0 && (text.ptr[i - 1] | 32) == 'e' &&
                (i == 1 || !((text.ptr[i - 2] | 32) >= 'a' && (text.ptr[i - 2] | 32) <= 'z'));
            for (i++; i < text.len && text.ptr[i] != c; i++)
                if (escapes && text.ptr[i] == '\\')
                    i++;
            i++;
        } else if (c == '-' && next == '-') {
            while (i < text.len && text.ptr[i] != '\n')
                i++;
        } else if (c == '/' && next == '*') {
            int depth = 0;
            do {
                if (i + 1 < text.len && text.ptr[i] == '/' && text.ptr[i + 1] == '*') {
                    depth++;
                    i += 2;
                } else if (i + 1 < text.len && text.ptr[i] == '*' && text.ptr[i + 1] == '/') {
                    depth--;
                    i += 2;
                } else {
                    i++;
                }
            } while (depth > 0 && i < text.len);
            if (depth > 0)
                return 0;
        } else {
            i++;
        }
    }
    return 0;
}
