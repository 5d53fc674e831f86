/* tests/sqlfront/test_sql_relation.c: relations whose rows the host makes: read as tables are,
 * never written, bounded by the statement's memory, and made once per statement. */
#include "base/buf.h"
#include "kit.h"
#include "sqlfront/result/writer.h"

struct host {
    struct kit kit;
    uint32_t rows; /* how many "many" has */
    uint32_t reads;
    chr_err fails;
    bool cancels, late;
    struct chr_buf out;
};

static const struct sql_relation_column device_columns[] = {
    {"device", DB_STRING},   {"address", DB_STRING}, {"messages", DB_INT}, {"load", DB_FLOAT},
    {"since", DB_TIMESTAMP}, {"clean", DB_BOOLEAN},  {"token", DB_BLOB},
};
static const struct sql_relation_column many_columns[] = {{"n", DB_INT}, {"name", DB_STRING}};
static const struct sql_relation relations[] = {
    {"chronos_devices", "devices", device_columns, CHR_COUNT_OF(device_columns)},
    {"chronos_many", "many", many_columns, CHR_COUNT_OF(many_columns)},
};

#define TEXT(s)                                                                                    \
    {                                                                                              \
        .type = DB_STRING, .bytes = {(const uint8_t *)(s), sizeof(s) - 1 }                         \
    }
#define NOTHING                                                                                    \
    {                                                                                              \
        .null = true                                                                               \
    }

static chr_err read_devices(struct sql_relation_rows *rows)
{
    const int64_t t = INT64_C(1733858000000000);
    const struct db_value all[][7] = {
        {TEXT("b"),
         TEXT("10.0.0.2:1"),
         {.type = DB_INT, .i64 = 7},
         {.type = DB_FLOAT, .f64 = 0.5},
         {.type = DB_TIMESTAMP, .i64 = t},
         {.type = DB_BOOLEAN, .boolean = true},
         {.type = DB_BLOB, .bytes = {(const uint8_t *)"\x00\xff", 2}}},
        {TEXT("a"),
         TEXT("10.0.0.1:1"),
         {.type = DB_INT, .i64 = 5},
         NOTHING,
         {.type = DB_TIMESTAMP, .i64 = t + 1000000},
         {.type = DB_BOOLEAN},
         NOTHING},
        {TEXT("c"), NOTHING, NOTHING, {.type = DB_FLOAT, .f64 = 2}, NOTHING, NOTHING, NOTHING},
        {TEXT(""),
         TEXT("10.0.0.1:1"),
         {.type = DB_INT, .i64 = -3},
         NOTHING,
         NOTHING,
         {.type = DB_BOOLEAN, .boolean = true},
         NOTHING},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(all); i++) {
        chr_err err = sql_relation_add(rows, all[i]);
        if (err)
            return err;
    }
    return CHR_OK;
}

static chr_err read_many(struct host *h, struct sql_relation_rows *rows)
{
    for (uint32_t i = 0; i < h->rows; i++) {
        char name[32];
        int len = snprintf(name, sizeof name, "name %u of many", i % 100);
        const struct db_value row[] = {
            {.type = DB_INT, .i64 = i},
            {.type = DB_STRING, .bytes = chr_slice_of(name, (size_t)len), .null = i % 10 == 9}};
        chr_err err = sql_relation_add(rows, row);
        if (err)
            return err;
        memset(name, 'x', sizeof name); /* it was copied */
    }
    return CHR_OK;
}

static chr_err read_relation(void *ctx, const struct sql_relation *relation,
                             struct sql_relation_rows *rows, const struct sql_host_wait *wait,
                             struct chr_errmsg *msg)
{
    struct host *h = CHR_CONTAINER_OF((struct kit *)ctx, struct host, kit);
    h->reads++;
    assert_non_null(wait->cancel);
    assert_true(wait->deadline_us > h->kit.mono_us);
    if (h->cancels) {
        sql_session_cancel(h->kit.session);
        assert_true(atomic_load(wait->cancel));
        return CHR_ECANCELLED;
    }
    if (h->late) {
        h->kit.mono_us = wait->deadline_us + 1;
        return CHR_ETIMEDOUT;
    }
    if (h->fails)
        return chr_fail(msg, h->fails, "the loops are on holiday");
    return relation == &relations[0] ? read_devices(rows) : read_many(h, rows);
}

static chr_err emit(void *ctx, const struct sql_part *part)
{
    struct host *h = ctx;
    chr_buf_add_slice(&h->out, part->bytes);
    return CHR_OK;
}

/* The rows as CSV, or an error as JSON. */
static const char *ask(struct host *h, const char *sql)
{
    struct sql_writer_options options = {
        .format = SQL_FORMAT_CSV, .no_header = true, .part_bytes = 8u << 20};
    sql_writer *writer = sql_writer_new(&options, emit, h);
    assert_non_null(writer);
    chr_buf_reset(&h->out);
    (void)sql_execute(h->kit.session, chr_slice_cstr(sql), sql_writer_sink(writer));
    sql_writer_free(writer);
    chr_buf_add_u8(&h->out, 0);
    assert_false(h->out.failed);
    return (const char *)h->out.ptr;
}

static void answers(struct host *h, const char *sql, const char *expected)
{
    assert_string_equal(ask(h, sql), expected);
}

static void refuses(struct host *h, const char *sql, const char *sqlstate, const char *part)
{
    const char *answer = ask(h, sql);
    char code[32];
    snprintf(code, sizeof code, "\"code\":\"%s\"", sqlstate);
    if (!strstr(answer, code) || !strstr(answer, part))
        fail_msg("%s: %s", sql, answer);
}

static int setup(void **state)
{
    static struct host h;
    memset(&h, 0, sizeof h);
    kit_open(&h.kit, 0);
    chr_buf_init(&h.out, 64u << 20);
    sql_session_free(h.kit.session);
    h.kit.host.relations = relations;
    h.kit.host.relations_count = CHR_COUNT_OF(relations);
    h.kit.host.read_relation = read_relation;
    h.kit.session = sql_session_new(h.kit.db, &h.kit.host, &h.kit.limits);
    *state = &h;
    return 0;
}

static int teardown(void **state)
{
    struct host *h = *state;
    chr_buf_free(&h->out);
    kit_close(&h->kit);
    return 0;
}

static void read_as_a_table(void **state)
{
    struct host *h = *state;
    answers(h, "SELECT * FROM chronos_devices ORDER BY device",
            "\"\",10.0.0.1:1,-3,,,true,\r\n"
            "a,10.0.0.1:1,5,,2024-12-10T19:13:21Z,false,\r\n"
            "b,10.0.0.2:1,7,0.5,2024-12-10T19:13:20Z,true,\\x00ff\r\n"
            "c,,,2,,,\r\n");
    answers(h,
            "SELECT d.device FROM chronos_devices AS d WHERE d.address LIKE '10.0.0.1%' AND clean",
            "\"\"\r\n");
    answers(h,
            "SELECT device FROM chronos_devices WHERE messages > 4 ORDER BY messages DESC LIMIT 1",
            "b\r\n");
    answers(h,
            "SELECT address, count(*), sum(messages) FROM chronos_devices GROUP BY address "
            "HAVING count(*) > 0 ORDER BY 1",
            "10.0.0.1:1,2,2\r\n10.0.0.2:1,1,7\r\n,1,\r\n");
    answers(h, "SELECT count(*), count(load), avg(load) FROM chronos_devices", "4,2,1.25\r\n");
    answers(h, "SELECT DISTINCT clean FROM chronos_devices ORDER BY 1", "false\r\ntrue\r\n\r\n");
    answers(h, "SELECT last(device, since) FROM chronos_devices", "a\r\n");
    answers(h, "SELECT count(*) FROM chronos_devices WHERE device = 'nobody'", "0\r\n");
    answers(h, "SELECT 1 FROM chronos_devices WHERE 1 = 0", "");
    answers(h, "SHOW devices",
            "\"\",10.0.0.1:1,-3,,,true,\r\n"
            "a,10.0.0.1:1,5,,2024-12-10T19:13:21Z,false,\r\n"
            "b,10.0.0.2:1,7,0.5,2024-12-10T19:13:20Z,true,\\x00ff\r\n"
            "c,,,2,,,\r\n");
    answers(h, "DESCRIBE chronos_many", "n,INT,YES,,\r\nname,STRING,YES,,\r\n");
    answers(h, "EXPLAIN SELECT n FROM chronos_many WHERE n > 5",
            "Filter: (n > 5)\r\nScan chronos_many: n\r\n");
    /* Tables are what is stored. */
    assert_null(strstr(ask(h, "SHOW TABLES"), "chronos_many"));
}

static void more_than_a_batch(void **state)
{
    struct host *h = *state;
    h->rows = 10000;
    answers(h, "SELECT count(*), sum(n), count(name) FROM chronos_many", "10000,49995000,9000\r\n");
    answers(h, "SELECT n, name FROM chronos_many WHERE n IN (0, 2047, 2048, 4095, 9999) ORDER BY n",
            "0,name 0 of many\r\n2047,name 47 of many\r\n2048,name 48 of many\r\n"
            "4095,name 95 of many\r\n9999,\r\n");
    /* Rows of one time: a second pass with row ids, over the same rows. */
    h->reads = 0;
    answers(h, "SELECT last(n, n / 5000), first(n, n / 5000) FROM chronos_many", "9999,0\r\n");
    assert_int_equal(h->reads, 1);
    answers(h, "SELECT n FROM chronos_many LIMIT 2", "0\r\n1\r\n");
}

static void into_a_table(void **state)
{
    struct host *h = *state;
    h->rows = 3000;
    (void)ask(h, "CREATE TABLE copy (n INT, name STRING)");
    (void)ask(h, "INSERT INTO copy SELECT * FROM chronos_many");
    answers(h, "SELECT count(*), sum(n), count(name) FROM copy", "3000,4498500,2700\r\n");
}

static void never_written(void **state)
{
    static const char *const writes[] = {
        "INSERT INTO chronos_devices VALUES ('x', 'y', 1, 1, now(), true, NULL)",
        "INSERT INTO chronos_devices (device) VALUES ('x')",
        "INSERT INTO chronos_many SELECT * FROM chronos_many",
        "UPDATE chronos_devices SET device = 'x'",
        "DELETE FROM chronos_devices WHERE device = 'a'",
        "TRUNCATE chronos_devices",
        "DROP TABLE chronos_devices",
        "DROP TABLE IF EXISTS chronos_devices",
        "RETRY REJECTS FOR chronos_devices",
    };
    struct host *h = *state;
    for (size_t i = 0; i < CHR_COUNT_OF(writes); i++)
        refuses(h, writes[i], "42809", "chronos_");
    refuses(h, "CREATE TABLE chronos_devices (n INT)", "42939", "reserved");
    assert_int_equal(h->reads, 0);
    assert_int_equal(h->kit.proposals, 0);
}

static void names(void **state)
{
    struct host *h = *state;
    refuses(h, "SELECT * FROM chronos_device", "42P01", "Did you mean \\\"chronos_devices\\\"?");
    refuses(h, "SELECT adress FROM chronos_devices", "42703", "Did you mean \\\"address\\\"?");
    refuses(h, "SELECT _hlc FROM chronos_devices", "42703", "_hlc");
    refuses(h, "SHOW device", "42704", "Did you mean \\\"devices\\\"?");
    refuses(h, "SELECT last(device) FROM chronos_devices", "42883", "last(x, column)");
    /* Quoted names are taken as they are. */
    refuses(h, "SELECT * FROM \"CHRONOS_DEVICES\"", "42P01", "does not exist");
    answers(h, "SELECT count(*) FROM CHRONOS_Devices", "4\r\n");
}

static void host_fails(void **state)
{
    struct host *h = *state;
    h->fails = CHR_EBUSY;
    refuses(h, "SELECT * FROM chronos_devices", "53300", "the loops are on holiday");
    h->fails = CHR_OK;
    h->cancels = true;
    refuses(h, "SELECT * FROM chronos_devices", "57014", "user request");
    h->cancels = false;
    h->late = true;
    refuses(h, "SELECT * FROM chronos_devices", "57014", "timeout");
    h->late = false;
    answers(h, "SELECT count(*) FROM chronos_devices", "4\r\n");
}

static void memory_is_bounded(void **state)
{
    struct host *h = *state;
    h->rows = 2000000;
    h->kit.limits.memory_bytes = 4u << 20;
    sql_session_free(h->kit.session);
    h->kit.session = sql_session_new(h->kit.db, &h->kit.host, &h->kit.limits);
    refuses(h, "SELECT count(*) FROM chronos_many", "53200", "memory");
    h->rows = 1000;
    answers(h, "SELECT count(*) FROM chronos_many", "1000\r\n");
    /* Whatever the limit, it answers or says so. */
    uint32_t refused = 0, answered = 0;
    for (size_t limit = 1024; limit < (4u << 20); limit += limit / 8) {
        h->kit.limits.memory_bytes = limit;
        sql_session_free(h->kit.session);
        h->kit.session = sql_session_new(h->kit.db, &h->kit.host, &h->kit.limits);
        const char *answer = ask(h, "SELECT count(*), max(name) FROM chronos_many WHERE n >= 0");
        if (strcmp(answer, "1000,name 98 of many\r\n") == 0)
            answered++;
        else if (strstr(answer, "53200"))
            refused++;
        else
            fail_msg("%zu bytes: %s", limit, answer);
    }
    assert_true(refused > 3);
    assert_true(answered > 3);
}

static chr_err kill_client(void *ctx, chr_slice client_id, const struct sql_host_wait *wait)
{
    struct host *h = CHR_CONTAINER_OF((struct kit *)ctx, struct host, kit);
    assert_false(atomic_load(wait->cancel));
    h->reads++;
    return h->fails                                      ? h->fails
           : chr_slice_eq(client_id, CHR_LIT("o'neill")) ? CHR_OK
                                                         : CHR_ENOTFOUND;
}

static void clients_are_killed(void **state)
{
    struct host *h = *state;
    refuses(h, "KILL CLIENT 'a'", "0A000", "not supported");
    sql_session_free(h->kit.session);
    h->kit.host.kill_client = kill_client;
    h->kit.session = sql_session_new(h->kit.db, &h->kit.host, &h->kit.limits);
    assert_null(strstr(ask(h, "kill client 'o''neill'"), "error"));
    assert_int_equal(h->reads, 1);
    refuses(h, "KILL CLIENT 'nobody'", "42704", "no client \\\"nobody\\\" is connected");
    h->fails = CHR_ETIMEDOUT;
    refuses(h, "KILL CLIENT 'nobody'", "08007", "");
    h->fails = CHR_OK;
    refuses(h, "KILL CLIENT nobody", "42601", "nobody");
    refuses(h, "KILL 'nobody'", "42601", "nobody");
    sql_session_set_read_only(h->kit.session, true);
    refuses(h, "KILL CLIENT 'o''neill'", "42501", "only read");
    assert_int_equal(h->reads, 3);
    /* The words are still names. */
    answers(h, "SELECT kill.n AS client FROM chronos_many AS kill", "");
}

static chr_err alter_cluster(void *ctx, enum sql_cluster_action action, chr_slice name,
                             chr_slice address, const struct sql_host_wait *wait,
                             struct chr_errmsg *msg)
{
    struct host *h = CHR_CONTAINER_OF((struct kit *)ctx, struct host, kit);
    assert_false(atomic_load(wait->cancel));
    h->reads++;
    return chr_fail(msg, h->fails, "did %d to %.*s at %.*s", (int)action, CHR_SLICE_ARGS(name),
                    CHR_SLICE_ARGS(address));
}

static void clusters_are_altered(void **state)
{
    struct host *h = *state;
    refuses(h, "ALTER CLUSTER REMOVE 'a'", "0A000", "this is a single node");
    sql_session_free(h->kit.session);
    h->kit.host.alter_cluster = alter_cluster;
    h->kit.session = sql_session_new(h->kit.db, &h->kit.host, &h->kit.limits);
    assert_non_null(strstr(ask(h, "alter cluster add 'n4=h:1'"), "did 0 to n4 at h:1"));
    assert_non_null(strstr(ask(h, "ALTER CLUSTER Promote 'n4'"), "did 1 to n4 at "));
    assert_non_null(strstr(ask(h, "ALTER CLUSTER REMOVE 'n4'"), "did 2 to n4 at "));
    assert_non_null(strstr(ask(h, "ALTER CLUSTER TRANSFER 'n4';"), "did 3 to n4 at "));
    static const struct {
        chr_err err;
        const char *sqlstate;
    } errors[] = {{CHR_ENOTFOUND, "42704"}, {CHR_EEXIST, "42710"},   {CHR_EINVAL, "22023"},
                  {CHR_ESTALE, "55000"},    {CHR_EFOREIGN, "55000"}, {CHR_EBUSY, "55006"},
                  {CHR_ECLOSED, "08006"},   {CHR_ETIMEDOUT, "08007"}};
    for (size_t i = 0; i < CHR_COUNT_OF(errors); i++) {
        h->fails = errors[i].err;
        refuses(h, "ALTER CLUSTER REMOVE 'n4'", errors[i].sqlstate, "did 2 to n4");
    }
    h->fails = CHR_OK;
    uint64_t reads = h->reads;
    refuses(h, "ALTER CLUSTER ADD 'n4'", "22023", "NAME=HOST:PORT");
    refuses(h, "ALTER CLUSTER PROMOT 'n4'", "42601", "Did you mean");
    refuses(h, "ALTER CLUSTER REMOVE n4", "42601", "n4");
    refuses(h, "ALTER TABLE readings", "0A000", "ALTER is not supported yet");
    refuses(h, "ALTER", "0A000", "ALTER is not supported yet");
    sql_session_set_user(h->kit.session, CHR_LIT("eve"), DB_ROLE_READWRITE);
    refuses(h, "ALTER CLUSTER REMOVE 'n4'", "42501", "");
    sql_session_set_user(h->kit.session, CHR_LIT("eve"), DB_ROLE_ADMIN);
    sql_session_set_read_only(h->kit.session, true);
    refuses(h, "ALTER CLUSTER REMOVE 'n4'", "42501", "only read");
    assert_int_equal(h->reads, reads);
    /* The words are still names. */
    answers(h, "SELECT alter.n AS cluster FROM chronos_many AS alter", "");
}

static chr_err no_leader(void *ctx)
{
    struct host *h = CHR_CONTAINER_OF((struct kit *)ctx, struct host, kit);
    h->reads += 1000;
    return CHR_ETIMEDOUT;
}

/* What the host shows is of now and of here. */
static void no_leader_is_needed(void **state)
{
    struct host *h = *state;
    sql_session_free(h->kit.session);
    h->kit.host.read_barrier = no_leader;
    h->kit.session = sql_session_new(h->kit.db, &h->kit.host, &h->kit.limits);
    assert_null(strstr(ask(h, "SELECT * FROM chronos_many"), "error"));
    assert_null(strstr(ask(h, "SHOW MANY"), "error"));
    assert_true(h->reads < 1000);
    refuses(h, "SELECT * FROM readings", "08006", "no leader");
    assert_true(h->reads >= 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(read_as_a_table, setup, teardown),
        cmocka_unit_test_setup_teardown(more_than_a_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(into_a_table, setup, teardown),
        cmocka_unit_test_setup_teardown(never_written, setup, teardown),
        cmocka_unit_test_setup_teardown(names, setup, teardown),
        cmocka_unit_test_setup_teardown(host_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(clients_are_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(clusters_are_altered, setup, teardown),
        cmocka_unit_test_setup_teardown(no_leader_is_needed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
