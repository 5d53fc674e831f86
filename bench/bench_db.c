/* bench/bench_db.c: what a row costs in db/, by stage, in nanoseconds.
 *
 *     bench_db [rows in millions] [devices]
 *
 * Rows of (device_id STRING, ts TIMESTAMP, seq INT, metric STRING, value FLOAT), a thousand to an
 * operation, four operations to an entry; devices take turns. apply: db_apply alone (the entry is
 * built before); checkpoint: sort, encode and write into LMDB in a scratch directory; scans: sum of
 * one column, one thread. CPU time throughout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "db/db.h"
#include "db/op.h"
#include "db/scan.h"

#define OP_ROWS   1000
#define ENTRY_OPS 4

/* CPU time of this thread: what a row costs, however busy the machine is. */
static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void must(chr_err err, const struct chr_errmsg *msg)
{
    if (!err)
        return;
    fprintf(stderr, "%s: %s\n", chr_errname(err), msg ? msg->text : "");
    exit(1);
}

struct bench {
    struct db_kv kv;
    struct db *d;
    uint64_t index;
    chr_hlc hlc;
    struct db_entry entry;
    struct db_rows_builder rows;
    struct chr_random random;
    uint32_t devices;
    uint64_t made;
    int64_t apply_us, build_us, checkpoint_us;
    uint64_t applied, checkpoints;
};

static const char *const metrics[] = {"temp", "humidity", "pressure", "co2"};

static void build_entry(struct bench *b)
{
    struct chr_errmsg msg = {.text = ""};
    db_entry_begin(&b->entry, 0, 0);
    for (int op = 0; op < ENTRY_OPS; op++) {
        db_rows_reset(&b->rows);
        for (int r = 0; r < OP_ROWS; r++) {
            uint32_t device = (uint32_t)(b->made % b->devices);
            uint64_t turn = b->made++ / b->devices;
            char id[24];
            int len = snprintf(id, sizeof id, "device-%05u", device);
            int64_t ts = INT64_C(1700000000000000) + (int64_t)turn * 1000000 + device;
            must(db_rows_put_bytes(&b->rows, 0, chr_slice_of(id, (size_t)len)), NULL);
            db_rows_put_i64(&b->rows, 1, ts);
            db_rows_put_i64(&b->rows, 2, (int64_t)turn);
            const char *metric = metrics[device & 3];
            must(db_rows_put_bytes(&b->rows, 3, chr_slice_cstr(metric)), NULL);
            double value = 20 + (double)chr_random_below(&b->random, 200) / 10;
            db_rows_put_f64(&b->rows, 4, value);
            must(db_rows_end(&b->rows, ts + 1500, &msg), &msg);
        }
        db_rows_finish(&b->rows, DB_ROWS_MERGE, &b->entry);
    }
    must(db_entry_end(&b->entry), NULL);
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

static void checkpoint(struct bench *b)
{
    struct chr_errmsg msg = {.text = ""};
    int64_t began = now_us();
    must(db_checkpoint(b->d, DB_CHECKPOINT_REQUEST, synced, NULL, 0, &msg), &msg);
    b->checkpoint_us += now_us() - began;
    b->checkpoints++;
}

/* keys: columns of the PRIMARY KEY (device_id, ts); 0: none */
static const struct db_table_def *create(struct bench *b, const char *name, uint16_t keys)
{
    struct db_column_def columns[5] = {
        {.type = DB_STRING, .name = "device_id"}, {.type = DB_TIMESTAMP, .name = "ts"},
        {.type = DB_INT, .name = "seq"},          {.type = DB_STRING, .name = "metric"},
        {.type = DB_FLOAT, .name = "value"},
    };
    char *topics[] = {"bench/{device_id}"};
    struct db_table_def def = {.columns_count = 5, .columns = columns};
    struct chr_errmsg msg = {.text = ""};
    snprintf(def.name, sizeof def.name, "%s", name);
    if (keys) {
        def.key_count = keys;
        def.key_columns[1] = 1;
    } else {
        def.topics = topics;
        def.topics_count = 1;
    }
    must(db_table_def_complete(&def, &msg), &msg);
    db_entry_begin(&b->entry, 0, 0);
    must(db_entry_add_create_table(&b->entry, &def, false), NULL);
    must(db_entry_end(&b->entry), NULL);
    struct db_apply_result r;
    b->hlc += 65536;
    db_apply(b->d, ++b->index, b->hlc, chr_buf_slice(&b->entry.bytes), &r);
    must(r.err ? r.err : r.ops[0].err, NULL);
    const db_catalog *catalog = db_catalog_acquire(b->d);
    return db_catalog_find(catalog, chr_slice_cstr(name)); /* kept until exit */
}

static double scan_sum(struct bench *b, const struct db_table_def *table, bool statistics,
                       uint64_t *rows, int64_t *us)
{
    db_read *read;
    db_scan *scan;
    db_reader *reader;
    struct chr_errmsg msg = {.text = ""};
    uint16_t column = 4;
    double sum = 0;
    int64_t began = now_us();
    *rows = 0;
    must(db_read_begin(b->d, &read), NULL);
    must(db_scan_open(read, table, &column, 1, NULL, 0, &scan), NULL);
    must(db_reader_open(scan, &reader), NULL);
    struct db_morsel m;
    int more;
    while ((more = db_reader_next_morsel(reader, &m, &msg)) > 0) {
        struct db_column_stats stats;
        if (statistics && db_reader_stats(reader, 0, &stats)) {
            sum += stats.sum_f64;
            *rows += stats.count;
            db_reader_used_stats(reader);
            continue;
        }
        struct db_batch batch;
        while ((more = db_reader_next_batch(reader, &batch, &msg)) > 0) {
            chr_err err;
            struct db_vector *v = db_reader_column(reader, 0, &err, &msg);
            must(err, &msg);
            for (uint32_t i = 0; i < batch.rows; i++)
                sum += v->f64[db_vector_at(v, i)];
            *rows += batch.rows;
        }
    }
    must(more, &msg);
    db_reader_close(reader);
    db_scan_close(scan);
    db_read_end(read);
    *us = now_us() - began;
    return sum;
}

static void run(struct bench *b, const char *name, uint16_t keys, uint64_t rows)
{
    const struct db_table_def *table = create(b, name, keys);
    struct db_apply_result r;
    uint64_t scanned;
    int64_t us;
    must(db_rows_init(&b->rows, table, OP_ROWS), NULL);
    b->made = b->applied = b->checkpoints = 0;
    b->apply_us = b->build_us = b->checkpoint_us = 0;
    bool hot_scanned = false;
    while (b->applied < rows) {
        int64_t t0 = now_us();
        build_entry(b);
        int64_t t1 = now_us();
        b->hlc += 65536;
        db_apply(b->d, ++b->index, b->hlc, chr_buf_slice(&b->entry.bytes), &r);
        b->apply_us += now_us() - t1;
        b->build_us += t1 - t0;
        must(r.err ? r.err : r.ops[0].err, NULL);
        b->applied += OP_ROWS * ENTRY_OPS;
        if (db_checkpoint_due(b->d, 0, 0) != DB_CHECKPOINT_NONE) {
            if (!hot_scanned) {
                struct db_stats stats;
                db_stats(b->d, &stats);
                double sum = scan_sum(b, table, false, &scanned, &us);
                printf("%-8s scan of hot rows   %7.2f ns/row  (%llu rows, sum %.1f; %.1f bytes "
                       "held/row)\n",
                       name, (double)us * 1000 / (double)scanned, (unsigned long long)scanned, sum,
                       (double)stats.hot_bytes / (double)stats.hot_rows);
                hot_scanned = true;
            }
            checkpoint(b);
        }
    }
    checkpoint(b);
    struct db_stats stats;
    db_stats(b->d, &stats);
    printf("%-8s build              %7.2f ns/row\n", name,
           (double)b->build_us * 1000 / (double)b->applied);
    printf("%-8s apply              %7.2f ns/row\n", name,
           (double)b->apply_us * 1000 / (double)b->applied);
    printf("%-8s checkpoint         %7.2f ns/row  (%llu of them)\n", name,
           (double)b->checkpoint_us * 1000 / (double)b->applied,
           (unsigned long long)b->checkpoints);
    double sum = scan_sum(b, table, false, &scanned, &us);
    printf(
        "%-8s scan of chunks     %7.2f ns/row  (%llu rows, sum %.1f; first time, checksums too)\n",
        name, (double)us * 1000 / (double)scanned, (unsigned long long)scanned, sum);
    sum = scan_sum(b, table, false, &scanned, &us);
    printf("%-8s scan of chunks     %7.2f ns/row\n", name, (double)us * 1000 / (double)scanned);
    sum = scan_sum(b, table, true, &scanned, &us);
    printf("%-8s sum by statistics  %7.2f ns/row  (%lld us)\n", name,
           (double)us * 1000 / (double)scanned, (long long)us);
    printf("%-8s stored             %7.2f bytes/row, %llu chunks\n", name,
           (double)stats.chunk_bytes / (double)(stats.chunk_rows + stats.tail_rows),
           (unsigned long long)stats.chunks);
    db_rows_free(&b->rows);
}

int main(int argc, char **argv)
{
    uint64_t rows = (argc > 1 ? strtoull(argv[1], NULL, 10) : 4) * 1000000;
    struct bench b = {.hlc = UINT64_C(1700000000000) << 16, .random = {1}};
    struct db_options options;
    struct chr_errmsg msg = {.text = ""};
    char dir[] = "/tmp/bench_db_XXXXXX";
    b.devices = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000;
    chr_log_set_level(CHR_LOG_WARNING);
    if (!mkdtemp(dir))
        return 1;
    must(db_kv_lmdb_open(dir, UINT64_C(1) << 36, &b.kv, &msg), &msg);
    db_options_default(&options);
    must(db_open(&b.kv, &options, &b.d, &msg), &msg);
    db_entry_init(&b.entry, DB_ENTRY_BYTES_MAX);
    printf("%llu rows, %u devices, seed 1, hot limit %llu MiB\n", (unsigned long long)rows,
           b.devices, (unsigned long long)(options.hot_limit_bytes >> 20));
    run(&b, "plain", 0, rows);
    run(&b, "keyed", 2, rows);
    run(&b, "latest", 1, rows / 4); /* one row per device, merged again and again */
    db_entry_free(&b.entry);
    db_kv_lmdb_close(&b.kv);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}
