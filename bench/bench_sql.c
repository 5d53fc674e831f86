/* bench/bench_sql.c: queries over rows in this process: ns per row, beside a plain C loop over
 * arrays of the same values where that makes sense; and INSERT statements of 1,000 rows.
 *
 *   bench_sql [--rows 2000000] [--repeat 5] [--hot] [--no-series] [--only text] [--seed 1]
 *
 * --no-series: the table has no series key, so that chunks keep the order of arrival and devices
 * alternate row by row. Rows are of 1,000 devices reporting every 10 s; --hot leaves them in the
 * hot rows, otherwise they are read from chunks after a checkpoint. Prints the median of the
 * repeats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "db/db.h"
#include "sqlfront/sql.h"

#define DEVICES    1000
#define ENTRY_ROWS 20000

static struct {
    db *db;
    struct db_kv kv;
    char dir[64];
    uint64_t index;
    uint64_t rows, repeat, seed;
    bool hot, no_series;
    const char *only; /* queries that contain it */
    sql_session *session;
    int64_t *seq; /* copies for the C loop */
    double *temp;
    uint16_t *device;
} b;

static int64_t now_us(void)
{
    return chr_clock_mono_us(chr_clock_system());
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static chr_err propose(void *ctx, chr_slice bytes, struct sql_applied *applied)
{
    (void)ctx;
    struct db_apply_result result;
    chr_hlc hlc = chr_hlc_next(db_replicated_time(b.db),
                               (uint64_t)(chr_clock_wall_us(chr_clock_system()) / 1000));
    db_apply(b.db, ++b.index, hlc, bytes, &result);
    sql_applied_from(&result, applied);
    applied->index = b.index;
    return CHR_OK;
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg;
    (void)index;
    return CHR_OK;
}

static void checkpoint(void)
{
    struct chr_errmsg msg = {0};
    if (db_checkpoint(b.db, DB_CHECKPOINT_REQUEST, synced, NULL, now_us(), &msg))
        die("checkpoint", msg.text);
}

static char first_row[512];
static uint64_t rows_out;
static chr_err on_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    (void)ctx;
    (void)columns;
    (void)count;
    rows_out = 0;
    return CHR_OK;
}
static chr_err on_rows(void *ctx, const struct db_vector *const *v, uint32_t columns,
                       const uint16_t *sel, uint32_t count)
{
    (void)ctx;
    if (rows_out == 0) {
        size_t n = 0;
        first_row[0] = '\0';
        uint32_t row = sel ? sel[0] : 0;
        for (uint32_t c = 0; c < columns && n < 400; c++) {
            uint32_t at = db_vector_at(v[c], row);
            if (!db_vector_valid(v[c], row))
                n += (size_t)snprintf(first_row + n, sizeof first_row - n, " NULL");
            else if (v[c]->type == DB_FLOAT)
                n += (size_t)snprintf(first_row + n, sizeof first_row - n, " %.6g", v[c]->f64[at]);
            else if (db_type_is_bytes(v[c]->type))
                n += (size_t)snprintf(first_row + n, sizeof first_row - n, " %.*s",
                                      CHR_SLICE_ARGS(v[c]->str[at]));
            else if (v[c]->type == DB_BOOLEAN)
                n += (size_t)snprintf(first_row + n, sizeof first_row - n, " %d", v[c]->b8[at]);
            else
                n += (size_t)snprintf(first_row + n, sizeof first_row - n, " %lld",
                                      (long long)v[c]->i64[at]);
        }
    }
    rows_out += count;
    return CHR_OK;
}
static chr_err on_end(void *ctx, const struct sql_done *done)
{
    (void)ctx;
    (void)done;
    return CHR_OK;
}
static void on_error(void *ctx, const struct sql_error *error)
{
    die(ctx ? ctx : "query", error->message);
}

static void run(const char *sql)
{
    struct sql_sink sink = {.begin = on_begin, .rows = on_rows, .end = on_end, .error = on_error};
    sink.ctx = (void *)(uintptr_t)sql;
    (void)sql_execute(b.session, chr_slice_cstr(sql), &sink);
}

static void load(void)
{
    run(b.no_series
            ? "CREATE TABLE m (device STRING, ts TIMESTAMP, seq INT, temp FLOAT, humidity FLOAT)"
            : "CREATE TABLE m (device STRING, ts TIMESTAMP, seq INT, temp FLOAT, humidity FLOAT) "
              "WITH TOPIC='bench/{device}'");
    const db_catalog *catalog = db_catalog_acquire(b.db);
    const struct db_table_def *t = db_catalog_find(catalog, CHR_LIT("m"));
    struct db_rows_builder builder;
    struct db_entry entry;
    if (!t || db_rows_init(&builder, t, ENTRY_ROWS))
        die("load", "no memory");
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    struct chr_random random = {b.seed};
    b.seq = malloc(b.rows * sizeof *b.seq);
    b.temp = malloc(b.rows * sizeof *b.temp);
    b.device = malloc(b.rows * sizeof *b.device);
    if (!b.seq || !b.temp || !b.device)
        die("load", "no memory");
    int64_t start = INT64_C(1704067200) * 1000000;
    for (uint64_t i = 0; i < b.rows;) {
        db_rows_reset(&builder);
        for (uint32_t k = 0; k < ENTRY_ROWS && i < b.rows; k++, i++) {
            char name[16];
            uint16_t device = (uint16_t)(i % DEVICES);
            int len = snprintf(name, sizeof name, "esp-%04u", device);
            double temp =
                20 + (double)(chr_random_below(&random, 1000)) / 100 + (double)(device % 7);
            int64_t seq = (int64_t)(i / DEVICES);
            b.seq[i] = seq;
            b.temp[i] = temp;
            b.device[i] = device;
            if (db_rows_put_bytes(&builder, 0, chr_slice_of(name, (size_t)len)))
                die("load", "row");
            db_rows_put_i64(&builder, 1, start + seq * 10000000 + (int64_t)device * 1000);
            db_rows_put_i64(&builder, 2, seq);
            db_rows_put_f64(&builder, 3, temp);
            db_rows_put_f64(&builder, 4, (double)(chr_random_below(&random, 100)));
            if (db_rows_end(&builder, start, NULL))
                die("load", "row");
        }
        db_entry_begin(&entry, 0, 0);
        db_rows_finish(&builder, DB_ROWS_INSERT, &entry);
        if (db_entry_end(&entry))
            die("load", "entry");
        struct sql_applied applied;
        (void)propose(NULL, chr_buf_slice(&entry.bytes), &applied);
        if (applied.op_err)
            die("load", chr_strerror(applied.op_err));
        if (!b.hot && db_hot_full(b.db))
            checkpoint();
    }
    if (!b.hot)
        checkpoint();
    db_entry_free(&entry);
    db_rows_free(&builder);
    db_catalog_release(catalog);
}

static int by_value(const void *x, const void *y)
{
    double p = *(const double *)x, q = *(const double *)y;
    return (p > q) - (p < q);
}

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Median of the wall time; *cpu: least processor time, which a busy machine disturbs less. */
static double median_ns(void (*work)(const char *), const char *arg, double *cpu)
{
    double *times = calloc(b.repeat, sizeof *times);
    if (!times)
        die("bench", "no memory");
    for (uint64_t i = 0; i < b.repeat; i++) {
        int64_t begun = now_us();
        double cpu_begun = cpu_ns();
        work(arg);
        double used = cpu_ns() - cpu_begun;
        *cpu = i == 0 || used < *cpu ? used : *cpu;
        times[i] = (double)(now_us() - begun) * 1000;
    }
    qsort(times, b.repeat, sizeof *times, by_value);
    double median = times[b.repeat / 2];
    free(times);
    return median;
}

static volatile double sink_f;
static void loop_sum(const char *arg)
{
    (void)arg;
    double sum = 0;
    for (uint64_t i = 0; i < b.rows; i++)
        if (b.temp[i] > 25)
            sum += b.temp[i];
    sink_f = sum;
}
static void loop_group(const char *arg)
{
    (void)arg;
    static double sum[DEVICES];
    static uint64_t count[DEVICES];
    memset(sum, 0, sizeof sum);
    memset(count, 0, sizeof count);
    for (uint64_t i = 0; i < b.rows; i++) {
        sum[b.device[i]] += b.temp[i];
        count[b.device[i]]++;
    }
    sink_f = sum[1] + (double)count[1];
}

static void query(const char *sql, void (*loop)(const char *))
{
    if (b.only && !strstr(sql, b.only))
        return;
    double cpu, plain = 0;
    double ns = median_ns(run, sql, &cpu), rows = (double)b.rows;
    printf("%8.3f ns/row cpu %8.3f wall", cpu / rows, ns / rows);
    if (loop) {
        (void)median_ns(loop, NULL, &plain);
        printf("  C loop %6.3f, ratio %5.2f", plain / rows, cpu / plain);
    } else {
        printf("  %26s", "");
    }
    printf("  %s\n            -> %llu rows, first:%s\n", sql, (unsigned long long)rows_out,
           first_row);
}

static void bench_insert(void)
{
    run("CREATE TABLE ins (device STRING, ts TIMESTAMP, seq INT, temp FLOAT, humidity FLOAT)");
    size_t capacity = 200000;
    char *text = malloc(capacity);
    if (!text)
        die("insert", "no memory");
    size_t n = (size_t)snprintf(text, capacity, "INSERT INTO ins VALUES ");
    struct chr_random random = {b.seed};
    for (int i = 0; i < 1000; i++)
        n += (size_t)snprintf(text + n, capacity - n,
                              "%s('esp-%04d', '2024-12-10T%02d:%02d:%02d.5Z', %d, %.2f, %d.5)",
                              i ? ", " : "", i, i / 60 % 24, i % 60, i % 59, i,
                              20 + (double)(chr_random_below(&random, 1000)) / 100, i % 100);
    double begun = cpu_ns();
    int statements = 500;
    for (int i = 0; i < statements; i++) {
        run(text);
        if (db_hot_full(b.db))
            checkpoint();
    }
    double us = (cpu_ns() - begun) / 1000;
    printf("INSERT of 1,000 rows of 5 columns (%zu bytes): %.0f rows/s of processor time (apply "
           "included, log not)\n",
           n, statements * 1000 / us * 1e6);
    free(text);
}

int main(int argc, char **argv)
{
    b.rows = 2000000;
    b.repeat = 5;
    b.seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--hot") == 0)
            b.hot = true;
        else if (strcmp(argv[i], "--no-series") == 0)
            b.no_series = true;
        else if (i + 1 < argc && strcmp(argv[i], "--only") == 0)
            b.only = argv[++i];
        else if (i + 1 < argc && strcmp(argv[i], "--rows") == 0)
            b.rows = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--repeat") == 0)
            b.repeat = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
            b.seed = strtoull(argv[++i], NULL, 10);
        else
            die(argv[i], "unknown option");
    }
    struct chr_errmsg msg = {0};
    struct db_options options;
    db_options_default(&options);
    if (b.hot)
        options.hot_limit_bytes = UINT64_MAX / 2;
    strcpy(b.dir, "/tmp/chr_bench_sql_XXXXXX");
    if (!mkdtemp(b.dir) || db_kv_lmdb_open(b.dir, UINT64_C(64) << 30, &b.kv, &msg) ||
        db_open(&b.kv, &options, &b.db, &msg))
        die("open", msg.text);
    struct sql_host host = {.propose = propose, .clock = chr_clock_system()};
    struct sql_limits limits;
    sql_limits_default(&limits);
    limits.timeout_us = 0;
    b.session = sql_session_new(b.db, &host, &limits);
    if (!b.session)
        die("session", "no memory");
    int64_t begun = now_us();
    load();
    printf("%llu rows, %s, %s, seed %llu, loaded in %.1f s\n", (unsigned long long)b.rows,
           b.hot ? "hot" : "chunks", b.no_series ? "by arrival" : "by series",
           (unsigned long long)b.seed, (double)(now_us() - begun) / 1e6);
    query("SELECT count(*) FROM m", NULL);
    query("SELECT sum(temp), min(temp), max(temp) FROM m", NULL);
    query("SELECT sum(temp) FROM m WHERE temp > 25", loop_sum);
    query("SELECT count(*) FROM m WHERE seq >= 100 AND seq < 1000000 AND temp < 28", NULL);
    query("SELECT sum(temp), sum(humidity) FROM m WHERE humidity > 50", NULL);
    query("SELECT sum(temp * 1.8 + 32) FROM m", NULL);
    query("SELECT device, avg(temp), count(*) FROM m GROUP BY device", loop_group);
    query("SELECT time_bucket('1 hour', ts) h, avg(temp) FROM m GROUP BY h", NULL);
    query("SELECT device, time_bucket('1 day', ts) d, max(temp) FROM m GROUP BY device, d", NULL);
    query("SELECT device, last(temp) FROM m GROUP BY device", NULL);
    query("SELECT count(*) FROM m WHERE device LIKE '%7'", NULL);
    query("SELECT count(DISTINCT seq) FROM m", NULL);
    query("SELECT * FROM m WHERE device = 'esp-0042' ORDER BY ts DESC LIMIT 10", NULL);
    query("SELECT device, ts, temp FROM m ORDER BY temp DESC LIMIT 10", NULL);
    if (!b.only)
        bench_insert();
    sql_session_free(b.session);
    db_close(b.db);
    db_kv_lmdb_close(&b.kv);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", b.dir);
    if (system(command) != 0)
        fprintf(stderr, "%s stays\n", b.dir);
    return 0;
}
