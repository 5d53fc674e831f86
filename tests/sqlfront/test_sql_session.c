/* tests/sqlfront/test_sql_session.c: what a text file cannot say: cancelling, deadlines, conflicts
 * at apply, request keys, sinks that fail, reads without a leader, statements cut at semicolons. */
#include "kit.h"

struct seen {
    struct kit *kit;
    char sqlstate[6];
    char message[512];
    uint64_t rows, row_count;
    uint32_t statements, begun, ended, errors;
    bool duplicate;
    int64_t stale_us;
    /* what the sink does at the first rows */
    bool cancel, fail;
    int64_t advance_us;
};

static chr_err on_statement(void *ctx, const struct sql_statement_info *info)
{
    struct seen *s = ctx;
    s->statements++;
    assert_true(info->index < info->count);
    return CHR_OK;
}
static chr_err on_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    ((struct seen *)ctx)->begun++;
    return CHR_OK;
}
static chr_err on_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns,
                       const uint16_t *sel, uint32_t count)
{
    struct seen *s = ctx;
    s->rows += count;
    if (s->cancel)
        sql_session_cancel(s->kit->session);
    s->kit->mono_us += s->advance_us;
    return s->fail ? CHR_ECLOSED : CHR_OK;
}
static chr_err on_end(void *ctx, const struct sql_done *done)
{
    struct seen *s = ctx;
    s->ended++;
    s->row_count = done->row_count;
    s->duplicate = done->duplicate;
    s->stale_us = done->stale_us;
    return CHR_OK;
}
static void on_error(void *ctx, const struct sql_error *error)
{
    struct seen *s = ctx;
    s->errors++;
    strcpy(s->sqlstate, error->sqlstate);
    strcpy(s->message, error->message);
}

static chr_err run(struct kit *k, struct seen *s, const char *sql)
{
    struct seen keep = *s;
    memset(s, 0, sizeof *s);
    s->kit = k;
    s->cancel = keep.cancel;
    s->fail = keep.fail;
    s->advance_us = keep.advance_us;
    struct sql_sink sink = {.ctx = s,
                            .statement = on_statement,
                            .begin = on_begin,
                            .rows = on_rows,
                            .end = on_end,
                            .error = on_error};
    return sql_execute(k->session, chr_slice_cstr(sql), &sink);
}

static void fill(struct kit *k)
{
    struct seen s = {0};
    assert_int_equal(run(k, &s, "CREATE TABLE t (id INT PRIMARY KEY, v INT)"), 0);
    assert_int_equal(run(k, &s, "INSERT INTO t VALUES (0, 0)"), 0);
    for (int n = 1; n < 16384; n *= 2) {
        char sql[128];
        snprintf(sql, sizeof sql, "INSERT INTO t SELECT id + %d, v + 1 FROM t", n);
        assert_int_equal(run(k, &s, sql), 0);
        assert_int_equal(s.row_count, n);
    }
}

static void cancelled_between_batches(void **state)
{
    struct kit k;
    struct seen s = {.cancel = true};
    kit_open(&k, 0);
    fill(&k);
    s.cancel = true;
    assert_int_equal(run(&k, &s, "SELECT * FROM t"), CHR_ECANCELLED);
    assert_string_equal(s.sqlstate, "57014");
    assert_true(s.rows > 0 && s.rows < 16384);
    assert_int_equal(s.errors, 1);
    assert_int_equal(s.ended, 0);
    s.cancel = false; /* the next statement is another one */
    assert_int_equal(run(&k, &s, "SELECT count(*) FROM t"), 0);
    sql_session_cancel(k.session); /* nothing runs: nothing happens */
    assert_int_equal(run(&k, &s, "SELECT count(*) FROM t"), 0);
    kit_close(&k);
}

static void out_of_time(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    fill(&k);
    s.advance_us = k.limits.timeout_us + 1;
    assert_int_equal(run(&k, &s, "SELECT * FROM t"), CHR_ECANCELLED);
    assert_string_equal(s.sqlstate, "57014");
    assert_non_null(strstr(s.message, "timeout"));
    s.advance_us = 0;
    assert_int_equal(run(&k, &s, "SET statement_timeout = '1s'"), 0);
    s.advance_us = 1100000;
    assert_int_equal(run(&k, &s, "SELECT * FROM t"), CHR_ECANCELLED);
    s.advance_us = 0;
    assert_int_equal(run(&k, &s, "SET statement_timeout = '1h'"), 0);
    s.advance_us = k.limits.timeout_us + 1; /* a session only lowers what the node allows */
    assert_int_equal(run(&k, &s, "SELECT * FROM t"), CHR_ECANCELLED);
    kit_close(&k);
}

static void sink_fails(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    fill(&k);
    s.fail = true;
    assert_int_equal(run(&k, &s, "SELECT * FROM t; SELECT 1"), CHR_ECLOSED);
    assert_int_equal(s.errors, 1);
    assert_int_equal(s.statements, 1); /* an error ends the text */
    kit_close(&k);
}

/* -- Conflicts: another client changes a row between the scan and apply
 * ---------------------------*/

static struct kit *rival_kit;
static int rival_times;
static chr_err rival_propose(void *ctx, chr_slice bytes, struct sql_applied *applied)
{
    struct kit *k = rival_kit;
    if (rival_times-- > 0) {
        struct sql_host plain = k->host;
        plain.propose = kit__propose;
        sql_session *other = sql_session_new(k->db, &plain, &k->limits);
        struct seen s = {.kit = k};
        struct sql_sink sink = {
            .ctx = &s, .begin = on_begin, .rows = on_rows, .end = on_end, .error = on_error};
        assert_int_equal(
            sql_execute(other, CHR_LIT("UPDATE t SET v = v + 1000 WHERE id = 5"), &sink), 0);
        sql_session_free(other);
    }
    return kit__propose(k, bytes, applied);
}

static int64_t value_of_5(struct kit *k)
{
    struct seen s = {0};
    for (int64_t v = 0; v < 100000; v++) {
        char sql[96];
        snprintf(sql, sizeof sql, "SELECT 1 FROM t WHERE id = 5 AND v = %lld", (long long)v);
        assert_int_equal(run(k, &s, sql), 0);
        if (s.rows)
            return v;
        if (v == 10)
            v = 989; /* values are small, or small plus thousands */
    }
    return -1;
}

static void conflict_is_tried_again(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    assert_int_equal(run(&k, &s, "CREATE TABLE t (id INT PRIMARY KEY, v INT)"), 0);
    assert_int_equal(run(&k, &s, "INSERT INTO t VALUES (5, 1), (6, 1)"), 0);
    rival_kit = &k;
    struct sql_host host = k.host;
    host.propose = rival_propose;
    sql_session_free(k.session);
    k.session = sql_session_new(k.db, &host, &k.limits);
    rival_times = 1;
    assert_int_equal(run(&k, &s, "UPDATE t SET v = v + 1"), 0);
    assert_int_equal(s.row_count, 2);
    rival_times = 0;
    assert_int_equal(value_of_5(&k), 1002); /* neither change is lost */
    rival_times = 1000;
    assert_int_equal(run(&k, &s, "UPDATE t SET v = v + 1"), CHR_ECONFLICT);
    assert_string_equal(s.sqlstate, "40001");
    rival_times = 0;
    assert_int_equal(run(&k, &s, "DELETE FROM t"), 0);
    assert_int_equal(s.row_count, 2);
    kit_close(&k);
}

/* -- Writes that happen once (R2)
 * -----------------------------------------------------------------*/

static const char *request_key = "first";
static uint32_t entries_begun;
static void add_key(void *ctx, struct db_entry *entry, uint32_t statement)
{
    char key[64];
    int n = snprintf(key, sizeof key, "%s/%u", request_key, statement);
    entries_begun++;
    db_entry_add_request_key(entry, CHR_LIT("user"), chr_slice_of(key, (size_t)n));
}

static void request_keys(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    assert_int_equal(run(&k, &s, "CREATE TABLE t (id INT, v INT)"), 0);
    struct sql_host host = k.host;
    host.entry_begin = add_key;
    sql_session_free(k.session);
    k.session = sql_session_new(k.db, &host, &k.limits);
    const char *text = "INSERT INTO t VALUES (1, 1); INSERT INTO t VALUES (2, 1), (3, 1)";
    assert_int_equal(run(&k, &s, text), 0);
    assert_int_equal(s.row_count, 2);
    assert_false(s.duplicate);
    assert_int_equal(run(&k, &s, text), 0); /* sent again: answered, not done again */
    assert_true(s.duplicate);
    assert_int_equal(run(&k, &s, "SELECT * FROM t"), 0);
    assert_int_equal(s.rows, 3);
    request_key = "second";
    assert_int_equal(run(&k, &s, "UPDATE t SET v = v + 1"), 0);
    assert_int_equal(s.row_count, 3);
    assert_int_equal(run(&k, &s, "UPDATE t SET v = v + 1"), 0);
    assert_true(s.duplicate);
    assert_int_equal(run(&k, &s, "SELECT * FROM t WHERE v = 2"), 0);
    assert_int_equal(s.rows, 3);
    kit_close(&k);
}

/* -- Reads
 * ----------------------------------------------------------------------------------------*/

static chr_err no_leader(void *ctx)
{
    return CHR_ETIMEDOUT;
}

static void reads_without_a_leader(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    fill(&k);
    struct sql_host host = k.host;
    host.read_barrier = no_leader;
    sql_session_free(k.session);
    k.session = sql_session_new(k.db, &host, &k.limits);
    assert_int_not_equal(run(&k, &s, "SELECT count(*) FROM t"), 0);
    assert_string_equal(s.sqlstate, "08006");
    assert_int_equal(run(&k, &s, "SET consistency = 'stale'"), 0);
    k.wall_us += 5000000;
    assert_int_equal(run(&k, &s, "SELECT count(*) FROM t"), 0);
    assert_in_range(s.stale_us, 4900000, 5100000);
    kit_close(&k);
}

static chr_err retry(void *ctx, const struct db_table_def *table, const atomic_bool *cancel,
                     uint64_t *retried, uint64_t *failed, struct chr_errmsg *msg)
{
    assert_string_equal(table->name, "readings");
    assert_false(atomic_load(cancel));
    *retried = 7;
    *failed = 2;
    return CHR_OK;
}

static void retry_rejects(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    struct sql_host host = k.host;
    host.retry_rejects = retry;
    sql_session_free(k.session);
    k.session = sql_session_new(k.db, &host, &k.limits);
    assert_int_equal(run(&k, &s, "RETRY REJECTS FOR readings"), 0);
    assert_int_equal(s.rows, 1);
    kit_close(&k);
}

/* -- Limits
 * ---------------------------------------------------------------------------------------*/

static void nesting(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    static char sql[200000];
    static const char *const wraps[][2] = {{"(", ")"},
                                           {"-", ""},
                                           {"NOT ", ""},
                                           {"abs(", ")"},
                                           {"1 + (", ")"},
                                           {"CASE WHEN true THEN ", " END"},
                                           {"coalesce(NULL, ", ")"}};
    for (size_t w = 0; w < CHR_COUNT_OF(wraps); w++)
        for (int deep = 0; deep < 2; deep++) {
            int levels = deep ? 5000 : 100;
            size_t n = (size_t)snprintf(sql, sizeof sql, "SELECT ");
            for (int i = 0; i < levels; i++)
                n += (size_t)snprintf(sql + n, sizeof sql - n, "%s%s", wraps[w][0],
                                      wraps[w][0][0] == '-' ? " " : "");
            n += (size_t)snprintf(sql + n, sizeof sql - n, wraps[w][0][0] == 'N' ? "true" : "1");
            for (int i = 0; i < levels; i++)
                n += (size_t)snprintf(sql + n, sizeof sql - n, "%s", wraps[w][1]);
            chr_err err = run(&k, &s, sql);
            if (!deep)
                assert_int_equal(err, 0);
            else if (err)
                assert_string_equal(s.sqlstate, "54001");
            else
                assert_int_equal(wraps[w][0][0], '('); /* parentheses alone leave nothing behind */
        }
    size_t n = (size_t)snprintf(sql, sizeof sql, "SELECT 1 WHERE 1 = 1"); /* wide is not deep */
    for (int i = 0; i < 5000; i++)
        n += (size_t)snprintf(sql + n, sizeof sql - n, " OR 2 = %d", i);
    assert_int_equal(run(&k, &s, sql), 0);
    kit_close(&k);
}

static void statement_ends(void **state)
{
    static const struct {
        const char *text;
        size_t end;
    } cases[] = {
        {"SELECT 1;", 9},
        {"SELECT 1", 0},
        {"", 0},
        {";", 1},
        {"SELECT ';';", 11},
        {"SELECT 'it'';';", 15},
        {"SELECT \";\";", 11},
        {"SELECT 1 -- ;\n;", 15},
        {"SELECT 1 -- ;", 0},
        {"/* ; */ SELECT;", 15},
        {"/* /* ; */ ; */;", 16},
        {"/* ;", 0},
        {"SELECT E'\\';';", 14},
        {"SELECT ';", 0},
        {"a;b;", 2},
        {"SELECT e';';", 12},
        {"SELECT 'a\\';b';", 12},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        size_t end = sql_statement_end(chr_slice_cstr(cases[i].text));
        if (end != cases[i].end)
            fail_msg("%s: %zu, not %zu", cases[i].text, end, cases[i].end);
    }
}

/* The fast road and the general one make the same rows and the same entries. */
static void two_roads_of_insert(void **state)
{
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    assert_int_equal(
        run(&k, &s, "CREATE TABLE t (i INT, f FLOAT, s STRING, b BOOLEAN, ts TIMESTAMP)"), 0);
    static const char *const rows[] = {
        "(1, 1.5, 'a', true, '2024-12-10T19:13:20.5Z')",
        "(-9223372036854775808, -1e300, 'it''s', FALSE, '1969-12-31')",
        "(9223372036854775807, 5e-324, '', NULL, NULL)",
        "( 0 ,0,'é;--' , True,'2024-12-10 19:13:20+02:00' )",
        "(NULL, 12345678901234567890.0, 'x', false, '0001-01-01')",
    };
    for (size_t i = 0; i < CHR_COUNT_OF(rows); i++) {
        char sql[256];
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES %s", rows[i]);
        assert_int_equal(run(&k, &s, sql), 0);
        snprintf(sql, sizeof sql, "SELECT 1; INSERT INTO t VALUES %s", rows[i]);
        assert_int_equal(run(&k, &s, sql), 0);
    }
    assert_int_equal(run(&k, &s,
                         "SELECT i, f, s, b, ts FROM t GROUP BY i, f, s, b, ts "
                         "HAVING count(*) = 2"),
                     0);
    assert_int_equal(s.rows, CHR_COUNT_OF(rows));
    kit_close(&k);
}

/* Every place that asks for memory is refused once: the limit rises a little at a time, and each
 * statement either answers or says 53200. Leaks are the sanitizer's to find. */
static void memory_runs_out_everywhere(void **state)
{
    static const char *const queries[] = {
        "SELECT id, v FROM t ORDER BY v DESC, id",
        "SELECT id, v FROM t ORDER BY v DESC, id LIMIT 3000",
        "SELECT id % 1000 k, count(*), sum(v), min(id::STRING), last(v, id) FROM t GROUP BY k",
        "SELECT DISTINCT id::STRING || 'x' FROM t",
        "SELECT count(DISTINCT id) FROM t WHERE id IN (1, 2, 3) OR v BETWEEN 1 AND id",
        "SELECT CASE v WHEN 1 THEN 'a' ELSE upper(id::STRING) END FROM t",
        "UPDATE t SET v = v + 1 WHERE id < 100",
        "INSERT INTO t SELECT id + 1000000, v FROM t WHERE false",
        "INSERT INTO t VALUES (1, 2), (2, 3 + 4)",
        "EXPLAIN ANALYZE SELECT v, count(*) FROM t GROUP BY v",
    };
    struct kit k;
    struct seen s = {0};
    kit_open(&k, 0);
    fill(&k);
    unsigned refused = 0, answered = 0;
    for (size_t bytes = 4096; bytes < (4u << 20); bytes += bytes / 24) {
        sql_session_free(k.session);
        k.limits.memory_bytes = bytes;
        k.session = sql_session_new(k.db, &k.host, &k.limits);
        for (size_t i = 0; i < CHR_COUNT_OF(queries); i++) {
            chr_err err = run(&k, &s, queries[i]);
            if (err && strcmp(s.sqlstate, "23505") != 0) {
                assert_string_equal(s.sqlstate, "53200");
                refused++;
            } else {
                answered++;
            }
        }
    }
    assert_true(refused > 200);
    assert_true(answered > 200);
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_between_batches),
        cmocka_unit_test(out_of_time),
        cmocka_unit_test(sink_fails),
        cmocka_unit_test(conflict_is_tried_again),
        cmocka_unit_test(request_keys),
        cmocka_unit_test(reads_without_a_leader),
        cmocka_unit_test(retry_rejects),
        cmocka_unit_test(nesting),
        cmocka_unit_test(statement_ends),
        cmocka_unit_test(two_roads_of_insert),
        cmocka_unit_test(memory_runs_out_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
