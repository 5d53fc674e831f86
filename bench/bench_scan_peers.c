/* bench/bench_scan_peers.c: the rows of a bench_ingest run in SQLite and in plain C arrays.
 *
 * Makes the rows again from the same seed, loads them into a SQLite table (unless the file is
 * there already), runs the questions that bench/scan asks Chronos, and prints one JSON object per
 * line: engine, question, cold and warm time, and the answer boiled down to groups, rows and a sum,
 * for comparison. Cold: the database file was dropped from the page cache before. Warm: the best of
 * three. The C loops run over arrays in memory and have no cold time.
 *
 *   bench_scan_peers FILE.sqlite MESSAGES SEED CONNECTIONS POOL DEVICES */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/fleet.h"
#include "bench/net.h"

#define HUMID 60.0 /* per cent; about a third of all rows are above */
#define RUNS  3

/* The same rows as arrays. */
struct rows {
    size_t count;
    uint32_t devices;
    uint32_t *device;
    int64_t *ts_ms;
    double *temp;
    double *humidity;
};

/* What all engines must agree on. */
struct answer {
    uint64_t groups;
    uint64_t rows;
    double sum;
};

enum question { Q_TOTAL, Q_FILTERED_SUM, Q_GROUP, Q_FILTERED_GROUP, Q_TIME_RANGE, Q_COUNT };

static const char *const question_names[Q_COUNT] = {"total", "filtered_sum", "group_by_device",
                                                    "filtered_group_by_device", "time_range_sum"};

/* Of Q_TIME_RANGE: the middle tenth of the rows' time span. */
static int64_t range_from, range_to;

static void *array_of(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

/* --- the rows --- */

static struct rows make_rows(const fleet *f, uint32_t connections, uint64_t messages)
{
    struct rows r = {.count = messages, .devices = fleet_devices(f)};
    r.device = array_of(messages, sizeof *r.device);
    r.ts_ms = array_of(messages, sizeof *r.ts_ms);
    r.temp = array_of(messages, sizeof *r.temp);
    r.humidity = array_of(messages, sizeof *r.humidity);
    int64_t min = INT64_MAX, max = INT64_MIN;
    for (uint64_t i = 0; i < messages; i++) {
        struct fleet_slice slice = fleet_slice_of(f, (uint32_t)(i % connections));
        uint64_t number = i / connections;
        const struct fleet_reading *reading = &slice.readings[number % slice.rows];
        r.device[i] = reading->device;
        r.ts_ms[i] = fleet_ts_ms(reading, (uint32_t)(number / slice.rows));
        r.temp[i] = reading->temp_centi / 100.0;
        r.humidity[i] = reading->humidity_quarters / 4.0;
        min = r.ts_ms[i] < min ? r.ts_ms[i] : min;
        max = r.ts_ms[i] > max ? r.ts_ms[i] : max;
    }
    range_from = min + (max - min) / 100 * 45;
    range_to = min + (max - min) / 100 * 55;
    return r;
}

/* --- plain C --- */

static struct answer loop_total(const struct rows *r)
{
    double sum = 0;
    for (size_t i = 0; i < r->count; i++)
        sum += r->temp[i];
    return (struct answer){1, r->count, sum};
}

static struct answer loop_filtered_sum(const struct rows *r)
{
    double sum = 0;
    uint64_t rows = 0;
    for (size_t i = 0; i < r->count; i++) { /* no branch to mispredict */
        bool in = r->humidity[i] > HUMID;
        sum += in ? r->temp[i] : 0;
        rows += in;
    }
    return (struct answer){1, rows, sum};
}

static struct answer loop_time_range(const struct rows *r)
{
    double sum = 0;
    uint64_t rows = 0;
    for (size_t i = 0; i < r->count; i++) {
        bool in = r->ts_ms[i] >= range_from && r->ts_ms[i] < range_to;
        sum += in ? r->temp[i] : 0;
        rows += in;
    }
    return (struct answer){1, rows, sum};
}

struct group {
    uint64_t rows;
    double sum;
    double max;
};

static struct answer loop_group(const struct rows *r, double above)
{
    struct group *groups = array_of(r->devices, sizeof *groups);
    for (size_t i = 0; i < r->count; i++) {
        struct group *g = &groups[r->device[i]];
        if (r->humidity[i] > above) {
            g->rows++;
            g->sum += r->temp[i];
            g->max = r->humidity[i] > g->max ? r->humidity[i] : g->max;
        }
    }
    struct answer a = {0};
    for (uint32_t d = 0; d < r->devices; d++) {
        a.groups += groups[d].rows > 0;
        a.rows += groups[d].rows;
        a.sum += groups[d].sum;
    }
    free(groups);
    return a;
}

static struct answer ask_loop(const struct rows *r, enum question q)
{
    switch (q) {
    case Q_TOTAL:
        return loop_total(r);
    case Q_FILTERED_SUM:
        return loop_filtered_sum(r);
    case Q_GROUP:
        return loop_group(r, -INFINITY);
    case Q_FILTERED_GROUP:
        return loop_group(r, HUMID);
    default:
        return loop_time_range(r);
    }
}

/* --- SQLite --- */

static void must(sqlite3 *db, int status, const char *what)
{
    if (status != SQLITE_OK && status != SQLITE_DONE && status != SQLITE_ROW) {
        fprintf(stderr, "sqlite: %s: %s\n", what, sqlite3_errmsg(db));
        exit(1);
    }
}

static void execute(sqlite3 *db, const char *sql)
{
    must(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql);
}

static void load(const char *path, const struct rows *r)
{
    sqlite3 *db;
    sqlite3_stmt *insert;
    must(NULL, sqlite3_open(path, &db), path);
    execute(db,
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;"
            "CREATE TABLE env (site TEXT, device_id TEXT, ts INTEGER, temp REAL, humidity REAL);"
            "BEGIN");
    must(db, sqlite3_prepare_v2(db, "INSERT INTO env VALUES (?,?,?,?,?)", -1, &insert, NULL),
         "INSERT");
    for (size_t i = 0; i < r->count; i++) {
        char site[24], device[24];
        fleet_site_name(r->device[i], site);
        fleet_device_name(r->device[i], device);
        sqlite3_bind_text(insert, 1, site, -1, SQLITE_STATIC);
        sqlite3_bind_text(insert, 2, device, -1, SQLITE_STATIC);
        sqlite3_bind_int64(insert, 3, r->ts_ms[i]);
        sqlite3_bind_double(insert, 4, r->temp[i]);
        sqlite3_bind_double(insert, 5, r->humidity[i]);
        must(db, sqlite3_step(insert), "INSERT");
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    execute(db, "COMMIT");
    sqlite3_close(db);
}

static void drop_from_cache(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        perror(path);
    if (fd >= 0)
        close(fd);
}

/* Each question as groups of (rows, sum of temp). */
static const char *question_sql(enum question q)
{
    static char text[256];
    switch (q) {
    case Q_TOTAL:
        return "SELECT count(*), sum(temp) FROM env";
    case Q_FILTERED_SUM:
        snprintf(text, sizeof text, "SELECT count(*), sum(temp) FROM env WHERE humidity > %g",
                 HUMID);
        return text;
    case Q_GROUP:
        return "SELECT count(*), sum(temp), max(humidity), device_id FROM env GROUP BY device_id";
    case Q_FILTERED_GROUP:
        snprintf(
            text, sizeof text,
            "SELECT count(*), sum(temp), max(humidity), device_id FROM env WHERE humidity > %g "
            "GROUP BY device_id",
            HUMID);
        return text;
    default:
        snprintf(text, sizeof text,
                 "SELECT count(*), sum(temp) FROM env WHERE ts >= %" PRId64 " AND ts < %" PRId64,
                 range_from, range_to);
        return text;
    }
}

static struct answer ask_sqlite(sqlite3 *db, enum question q)
{
    struct answer a = {0};
    sqlite3_stmt *select;
    const char *sql = question_sql(q);
    int step;
    must(db, sqlite3_prepare_v2(db, sql, -1, &select, NULL), sql);
    while ((step = sqlite3_step(select)) == SQLITE_ROW) {
        a.groups++;
        a.rows += (uint64_t)sqlite3_column_int64(select, 0);
        a.sum += sqlite3_column_double(select, 1);
    }
    must(db, step, sql);
    sqlite3_finalize(select);
    return a;
}

/* --- the report --- */

static void print_result(const char *engine, enum question q, double cold_us, double warm_us,
                         struct answer a)
{
    printf("{\"engine\":\"%s\",\"question\":\"%s\",", engine, question_names[q]);
    if (cold_us > 0)
        printf("\"cold_us\":%.0f,", cold_us);
    printf("\"warm_us\":%.0f,\"groups\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"sum\":%.2f}\n", warm_us,
           a.groups, a.rows, a.sum);
    fflush(stdout);
}

static double us_since(uint64_t start_ns)
{
    return (double)(net_now_ns() - start_ns) / 1e3;
}

static void run_loops(const struct rows *r)
{
    for (int q = 0; q < Q_COUNT; q++) {
        struct answer a = {0};
        double best = INFINITY;
        for (int i = 0; i < RUNS; i++) {
            uint64_t start_ns = net_now_ns();
            a = ask_loop(r, (enum question)q);
            best = fmin(best, us_since(start_ns));
        }
        print_result("c", (enum question)q, 0, best, a);
    }
}

static void run_sqlite(const char *path)
{
    for (int q = 0; q < Q_COUNT; q++) {
        struct answer a = {0};
        double cold = 0, best = INFINITY;
        sqlite3 *db;
        drop_from_cache(path);
        must(NULL, sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), path);
        execute(db, "PRAGMA mmap_size=8589934592; PRAGMA cache_size=-262144");
        for (int i = 0; i <= RUNS; i++) {
            uint64_t start_ns = net_now_ns();
            a = ask_sqlite(db, (enum question)q);
            if (i == 0)
                cold = us_since(start_ns);
            else
                best = fmin(best, us_since(start_ns));
        }
        sqlite3_close(db);
        print_result("sqlite", (enum question)q, cold, best, a);
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "bench_scan_peers FILE.sqlite MESSAGES SEED CONNECTIONS POOL DEVICES\n");
        return 2;
    }
    const char *path = argv[1];
    uint64_t messages = strtoull(argv[2], NULL, 10);
    uint32_t connections = (uint32_t)strtoul(argv[4], NULL, 10);
    struct fleet_config config = {.seed = strtoull(argv[3], NULL, 0),
                                  .connections = connections,
                                  .topic = "x",
                                  .mqtt_version = 4,
                                  .qos = 1};
    if (connections == 0 || messages == 0)
        return 2;
    config.slice_rows = (uint32_t)strtoul(argv[5], NULL, 10) / connections;
    config.slice_devices = (uint32_t)strtoul(argv[6], NULL, 10) / connections;
    fleet *f = fleet_create(&config);
    if (!f)
        return 1;
    struct rows rows = make_rows(f, connections, messages);
    printf("{\"sqlite_version\":\"%s\",\"range_from_ms\":%" PRId64 ",\"range_to_ms\":%" PRId64
           ",\"humid\":%g}\n",
           sqlite3_libversion(), range_from, range_to, HUMID);
    run_loops(&rows);
    if (access(path, R_OK) != 0)
        load(path, &rows);
    run_sqlite(path);
    free(rows.device);
    free(rows.ts_ms);
    free(rows.temp);
    free(rows.humidity);
    fleet_destroy(f);
    return 0;
}
