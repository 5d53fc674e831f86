/* tests/fuzz/fuzz_sql.c: any text as SQL, on a small database with small limits.
 *
 * Parsing, binding, planning and executing are real, over chunks and hot rows; a write goes as far
 * as its entry, which is not applied, so that every input meets the same database. Answers go
 * through the writer with small parts. What is checked besides memory: each statement ends exactly
 * once, an error has a SQLSTATE and a position within the text, JSON parts keep their limit. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "db/db.h"
#include "sqlfront/result/writer.h"
#include "sqlfront/sql.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static db *database;
static struct db_kv kv;
static uint64_t apply_index;
static bool applying = true;
static char dir[] = "/tmp/chr_fuzz_sql_XXXXXX";

static chr_err propose(void *ctx, chr_slice bytes, struct sql_applied *applied)
{
    (void)ctx;
    memset(applied, 0, sizeof *applied);
    if (!applying)
        return CHR_OK;
    struct db_apply_result result;
    db_apply(database, ++apply_index, chr_hlc_next(db_replicated_time(database), 1733858000000),
             bytes, &result);
    sql_applied_from(&result, applied);
    return CHR_OK;
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg;
    (void)index;
    return CHR_OK;
}

static const struct sql_host host = {.propose = propose};
static struct sql_host host_with_clock;
static struct sql_limits limits;

static chr_err ignore(void *ctx, const struct sql_part *part)
{
    (void)ctx;
    CHR_ASSERT(part->part >= 1);
    CHR_ASSERT(part->error || part->bytes.len <= 4096);
    return CHR_OK;
}

static void run(const char *sql)
{
    sql_session *session = sql_session_new(database, &host_with_clock, &limits);
    struct sql_writer_options options = {.part_bytes = 4096};
    sql_writer *writer = sql_writer_new(&options, ignore, NULL);
    CHR_ASSERT(sql_execute(session, chr_slice_cstr(sql), sql_writer_sink(writer)) == CHR_OK);
    sql_writer_free(writer);
    sql_session_free(session);
}

static void insert(int from, int to)
{
    static char text[200000];
    size_t n = (size_t)snprintf(text, sizeof text, "INSERT INTO t VALUES ");
    for (int i = from; i < to; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s(%d, %s, %d.25, %s, %s, %s)",
                              i > from ? "," : "", i, i % 7 ? "'esp-00'" : "NULL", i % 50,
                              i % 5 ? "'2024-12-10T00:00:00Z'" : "NULL", i % 3 ? "true" : "false",
                              i % 4 ? "'\\x00ff'" : "NULL");
    run(text);
}

static void remove_dir(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0)
        fprintf(stderr, "%s stays\n", dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    struct db_options options;
    struct chr_errmsg msg = {0};
    db_options_default(&options);
    host_with_clock = host;
    host_with_clock.clock = chr_clock_system();
    sql_limits_default(&limits);
    CHR_ASSERT(mkdtemp(dir));
    atexit(remove_dir);
    CHR_ASSERT(db_kv_lmdb_open(dir, UINT64_C(1) << 30, &kv, &msg) == CHR_OK);
    CHR_ASSERT(db_open(&kv, &options, &database, &msg) == CHR_OK);
    run("CREATE TABLE t (id INT PRIMARY KEY, s STRING, f FLOAT, ts TIMESTAMP, b BOOLEAN, x BLOB)");
    insert(0, 300);
    CHR_ASSERT(db_checkpoint(database, DB_CHECKPOINT_REQUEST, synced, NULL, 0, &msg) == CHR_OK);
    insert(300, 400);
    run("DELETE FROM t WHERE id % 10 = 3");
    applying = false;
    limits = (struct sql_limits){.statement_bytes = 16384,
                                 .memory_bytes = 16u << 20,
                                 .timeout_us = 2000000,
                                 .result_rows = 5000,
                                 .result_bytes = 1u << 20,
                                 .expression_depth = 100,
                                 .list_items = 500};
    return 0;
}

struct checks {
    const struct sql_sink *writer;
    bool open; /* a statement has begun and not ended */
    bool failed;
    uint32_t characters;
};

static chr_err on_statement(void *ctx, const struct sql_statement_info *info)
{
    struct checks *c = ctx;
    CHR_ASSERT(!c->open);
    CHR_ASSERT(!c->failed);
    CHR_ASSERT(info->index < info->count);
    c->open = true;
    return c->writer->statement(c->writer->ctx, info);
}
static chr_err on_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    struct checks *c = ctx;
    CHR_ASSERT(c->open);
    return c->writer->begin(c->writer->ctx, columns, count);
}
static chr_err on_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns,
                       const uint16_t *sel, uint32_t count)
{
    struct checks *c = ctx;
    CHR_ASSERT(c->open);
    CHR_ASSERT(count > 0);
    CHR_ASSERT(count <= DB_VECTOR_ROWS);
    return c->writer->rows(c->writer->ctx, vectors, columns, sel, count);
}
static chr_err on_end(void *ctx, const struct sql_done *done)
{
    struct checks *c = ctx;
    CHR_ASSERT(c->open);
    c->open = false;
    return c->writer->end(c->writer->ctx, done);
}
static void on_error(void *ctx, const struct sql_error *error)
{
    struct checks *c = ctx;
    CHR_ASSERT(!c->failed);
    CHR_ASSERT(strlen(error->sqlstate) == 5);
    CHR_ASSERT(error->message[0]);
    CHR_ASSERT(error->position <= c->characters + 1);
    CHR_ASSERT(strcmp(error->sqlstate, "XX000") != 0);
    c->open = false;
    c->failed = true;
    c->writer->error(c->writer->ctx, error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    sql_session *session = sql_session_new(database, &host_with_clock, &limits);
    struct sql_writer_options options = {.part_bytes = 4096};
    sql_writer *writer = sql_writer_new(&options, ignore, NULL);
    CHR_ASSERT(session);
    CHR_ASSERT(writer);
    struct checks checks = {.writer = sql_writer_sink(writer)};
    for (size_t i = 0; i < size; i++)
        checks.characters += (data[i] & 0xc0) != 0x80;
    struct sql_sink sink = {.ctx = &checks,
                            .statement = on_statement,
                            .begin = on_begin,
                            .rows = on_rows,
                            .end = on_end,
                            .error = on_error};
    chr_err err = sql_execute(session, chr_slice_of(data, size), &sink);
    CHR_ASSERT((err != CHR_OK) == checks.failed);
    CHR_ASSERT(sql_statement_end(chr_slice_of(data, size)) <= size);
    sql_writer_free(writer);
    sql_session_free(session);
    return 0;
}
