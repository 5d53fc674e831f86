/* sqlfront/show.c: SHOW, DESCRIBE, SET, RETRY REJECTS. */
#include <strings.h>

#include "base/buf.h"
#include "sqlfront/bind.h"
#include "sqlfront/relation.h"

/* "7d", "12h", "90s": the largest unit that divides it. */
static char *duration_text(struct sql_query *q, int64_t us)
{
    static const struct {
        int64_t us;
        const char *unit;
    } units[] = {{INT64_C(86400000000), "d"},
                 {INT64_C(3600000000), "h"},
                 {60000000, "m"},
                 {1000000, "s"},
                 {1000, "ms"},
                 {1, "us"}};
    for (size_t i = 0; i < CHR_COUNT_OF(units); i++)
        if (us % units[i].us == 0)
            return chr_arena_printf(&q->arena, "%lld%s", (long long)(us / units[i].us),
                                    units[i].unit);
    return NULL;
}

static char *key_text(struct sql_query *q, const struct db_table_def *t)
{
    if (!t->key_count)
        return NULL;
    struct chr_buf buf;
    chr_buf_init(&buf, 64u << 10);
    for (uint32_t k = 0; k < t->key_count; k++)
        chr_buf_addf(&buf, "%s%s", k ? ", " : "", t->columns[t->key_columns[k]].name);
    char *text = chr_arena_cstr(&q->arena, chr_buf_slice(&buf));
    chr_buf_free(&buf);
    return text;
}

static char *topics_text(struct sql_query *q, const struct db_table_def *t)
{
    if (!t->topics_count)
        return NULL;
    struct chr_buf buf;
    chr_buf_init(&buf, 1u << 20);
    for (uint32_t i = 0; i < t->topics_count; i++)
        chr_buf_addf(&buf, "%s%s", i ? ", " : "", t->topics[i]);
    char *text = chr_arena_cstr(&q->arena, chr_buf_slice(&buf));
    chr_buf_free(&buf);
    return text;
}

static struct sql_column text_column(const char *name)
{
    return (struct sql_column){chr_slice_cstr(name), DB_STRING};
}

/* A table is there for who may do anything with it. */
static bool may_see(const struct sql_query *q, const struct db_table_def *t)
{
    const struct sql_session *s = q->session;
    return db_table_privileges(t, chr_slice_cstr(s->user), s->role) != 0;
}

static bool check_see(struct sql_query *q, const struct db_table_def *t, uint32_t pos)
{
    return may_see(q, t) || sql__may(q, t, DB_PRIVILEGE_SELECT, pos);
}

bool sql__run_show_tables(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows)
{
    (void)stmt;
    struct sql_column columns[] = {text_column("table_name"),  {CHR_LIT("columns"), DB_INT},
                                   text_column("primary_key"), text_column("ttl"),
                                   text_column("topics"),      text_column("ack")};
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    size_t count = db_catalog_tables_count(catalog);
    const char **cells = SQL_ARRAY(q, const char *, 6 * count + 1);
    bool ok = false;
    if (!cells)
        goto out;
    size_t all = count;
    count = 0;
    for (size_t n = 0; n < all; n++) {
        const struct db_table_def *t = db_catalog_table_at(catalog, n);
        if (!may_see(q, t))
            continue;
        size_t i = count++;
        cells[6 * i] = t->name;
        cells[6 * i + 1] = chr_arena_printf(&q->arena, "%u", t->columns_count);
        cells[6 * i + 2] = key_text(q, t);
        cells[6 * i + 3] = t->ttl_us ? duration_text(q, t->ttl_us) : NULL;
        cells[6 * i + 4] = topics_text(q, t);
        cells[6 * i + 5] = db_ack_class_name(t->ack);
    }
    *rows = count;
    ok = sql__send_texts(q, columns, 6, cells, (uint32_t)count);
out:
    db_catalog_release(catalog);
    return ok;
}

bool sql__run_describe(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows)
{
    struct sql_column columns[] = {text_column("column_name"), text_column("type"),
                                   text_column("nullable"), text_column("key"),
                                   text_column("role")};
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    const struct db_table_def *t = sql__find_table(q, catalog, stmt->table, stmt->table_pos);
    bool ok = false;
    if (!t || !check_see(q, t, stmt->table_pos))
        goto out;
    const char **cells = SQL_ARRAY(q, const char *, 5 * (size_t)t->columns_count + 1);
    if (!cells)
        goto out;
    for (uint32_t i = 0; i < t->columns_count; i++) {
        const struct db_column_def *c = &t->columns[i];
        bool series = false;
        for (uint32_t s = 0; s < t->series_count; s++)
            series |= t->series_columns[s] == i;
        const char **row = cells + 5 * i;
        row[0] = c->name;
        row[1] = db_type_name(c->type);
        row[2] = c->not_null ? "NO" : "YES";
        for (uint32_t k = 0; k < t->key_count; k++)
            if (t->key_columns[k] == i)
                row[3] = "PRI";
        row[4] = t->time_column == (int32_t)i ? "time" : series ? "series" : NULL;
    }
    *rows = t->columns_count;
    ok = sql__send_texts(q, columns, 5, cells, t->columns_count);
out:
    db_catalog_release(catalog);
    return ok;
}

/* -- Settings ----------------------------------------------------------------------------------*/

static const char *const setting_names[] = {"consistency", "statement_timeout", "format",
                                            "server_version", "version"};

static const char *setting_text(struct sql_query *q, const char *name)
{
    const struct sql_settings *s = &q->session->settings;
    if (strcmp(name, "consistency") == 0)
        return s->stale ? "stale" : "linearizable";
    if (strcmp(name, "statement_timeout") == 0)
        return s->timeout_us ? duration_text(q, s->timeout_us) : "0";
    if (strcmp(name, "format") == 0) {
        static const char *const formats[] = {"default", "json", "csv", "ndjson", "table"};
        return formats[s->format];
    }
    return CHRONOS_VERSION;
}

static bool unknown_setting(struct sql_query *q, chr_slice name, uint32_t pos)
{
    sql__fail(q, "42704", pos, "unrecognized setting \"%.*s\"", CHR_SLICE_ARGS(name));
    const char *near = sql__nearest(name, setting_names, CHR_COUNT_OF(setting_names));
    const struct sql_host *host = &q->session->host;
    for (uint32_t i = 0; !near && i < host->relations_count; i++)
        near = sql__nearest(name, &host->relations[i].show, 1);
    if (near)
        sql__hint(q, "Did you mean \"%s\"?", near);
    else
        sql__hint(q, "Settings are consistency, statement_timeout and format.");
    return false;
}

bool sql__run_show(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows)
{
    if (chr_slice_eq(stmt->name, CHR_LIT("grants")))
        return sql__run_show_grants(q, stmt, rows);
    if (chr_slice_eq(stmt->name, CHR_LIT("all"))) {
        struct sql_column columns[] = {text_column("name"), text_column("setting")};
        const char *cells[2 * CHR_COUNT_OF(setting_names)];
        for (size_t i = 0; i < CHR_COUNT_OF(setting_names); i++) {
            cells[2 * i] = setting_names[i];
            cells[2 * i + 1] = setting_text(q, setting_names[i]);
        }
        *rows = CHR_COUNT_OF(setting_names);
        return sql__send_texts(q, columns, 2, cells, CHR_COUNT_OF(setting_names));
    }
    for (size_t i = 0; i < CHR_COUNT_OF(setting_names); i++)
        if (chr_slice_eq(stmt->name, chr_slice_cstr(setting_names[i]))) {
            struct sql_column column = text_column(setting_names[i]);
            const char *cell = setting_text(q, setting_names[i]);
            *rows = 1;
            return sql__send_texts(q, &column, 1, &cell, 1);
        }
    const struct sql_relation *relation = sql__shown_relation(q, stmt->name);
    if (relation)
        return sql__run_show_relation(q, relation, stmt, rows);
    return unknown_setting(q, stmt->name, stmt->name_pos);
}

static bool is_word(chr_slice v, const char *word)
{
    return strlen(word) == v.len && strncasecmp(word, (const char *)v.ptr, v.len) == 0;
}

bool sql__run_set(struct sql_query *q, const struct sql_stmt *stmt)
{
    struct sql_settings *s = &q->session->settings;
    chr_slice name = stmt->name, v = stmt->value->values.first->text;
    uint32_t pos = stmt->value->value_pos;
    bool reset = stmt->value->kind == SQL_VALUE_WORD && is_word(v, "default");
    if (chr_slice_eq(name, CHR_LIT("consistency"))) {
        bool stale = is_word(v, "stale");
        if (!stale && !reset && !is_word(v, "linearizable") && !is_word(v, "strong"))
            return sql__fail(q, "22023", pos,
                             "consistency is 'linearizable' or 'stale', not '%.*s'",
                             CHR_SLICE_ARGS(v));
        s->stale = stale;
        return true;
    }
    if (chr_slice_eq(name, CHR_LIT("format"))) {
        enum sql_format format = SQL_FORMAT_DEFAULT;
        if (!reset && !sql_format_parse(v, &format))
            return sql__fail(q, "22023", pos, "format is json, csv, ndjson or table, not '%.*s'",
                             CHR_SLICE_ARGS(v));
        s->format = format;
        return true;
    }
    if (chr_slice_eq(name, CHR_LIT("statement_timeout"))) {
        int64_t us = 0, ms = 0;
        struct sql_interval iv;
        int used = chr_parse_i64(v, &ms);
        if (reset)
            us = 0;
        else if (used > 0 && (size_t)used == v.len && ms >= 0 && ms <= INT64_MAX / 1000)
            us = ms * 1000; /* a bare number is milliseconds, as in PostgreSQL */
        else if (chr_parse_duration_us(v, &us) != CHR_OK || us < 0) {
            if (!sql__interval_parse(v, &iv) || sql__interval_us(iv) < 0 ||
                sql__interval_us(iv) > INT64_MAX)
                return sql__fail(q, "22023", pos,
                                 "statement_timeout takes milliseconds or a duration such as "
                                 "'5s', not '%.*s'",
                                 CHR_SLICE_ARGS(v));
            us = (int64_t)sql__interval_us(iv);
        }
        s->timeout_us = us;
        return true;
    }
    for (size_t i = 3; i < CHR_COUNT_OF(setting_names); i++)
        if (chr_slice_eq(name, chr_slice_cstr(setting_names[i])))
            return sql__fail(q, "55P02", stmt->name_pos, "setting \"%s\" cannot be changed",
                             setting_names[i]);
    return unknown_setting(q, name, stmt->name_pos);
}

bool sql__run_retry_rejects(struct sql_query *q, const struct sql_stmt *stmt, uint64_t *rows)
{
    const struct sql_host *host = &q->session->host;
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    const struct db_table_def *t = sql__find_table(q, catalog, stmt->table, stmt->table_pos);
    bool ok = false;
    if (!t || !sql__may(q, t, DB_PRIVILEGE_INSERT, stmt->table_pos) ||
        !sql__may_write(q, t, stmt->table_pos))
        goto out;
    if (!host->retry_rejects) {
        sql__fail(q, "0A000", stmt->pos, "RETRY REJECTS is not supported here");
        goto out;
    }
    uint64_t retried = 0, failed = 0;
    struct chr_errmsg msg = {0};
    chr_err err = host->retry_rejects(host->ctx, t, &q->session->cancel, &retried, &failed, &msg);
    if (err) {
        sql__fail_err(q, err, &msg);
        goto out;
    }
    struct sql_column columns[] = {{CHR_LIT("retried"), DB_INT}, {CHR_LIT("failed"), DB_INT}};
    const char *cells[2] = {
        chr_arena_printf(&q->arena, "%llu", (unsigned long long)retried),
        chr_arena_printf(&q->arena, "%llu", (unsigned long long)failed),
    };
    *rows = 1;
    ok = sql__send_texts(q, columns, 2, cells, 1);
out:
    db_catalog_release(catalog);
    return ok;
}
