/* tests/db/test_threads.c: one applier, one checkpointer, several readers, and one that takes
 * snapshots; for TSan, and for the promise that a read, and a snapshot, sees exactly the entries up
 * to its index whatever the others do.
 *
 * Entry i inserts three rows into `window` and deletes those of entry i - WINDOW, and puts the
 * value i under key i % KEYS into `latest`; so what a read at index X must see is arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "db/db.h"
#include "db/op.h"
#include "db/scan.h"
#include "tests/db/snapshot_kit.h"
#include "tests/sim/fake_kv.h"

#define ENTRIES 3000
#define WINDOW  40
#define KEYS    60
#define ROWS    3
#define READERS 3
#define FIRST   2 /* entry 1 creates the tables */

struct shared {
    db *d;
    _Atomic bool done;
    _Atomic uint64_t reads, checkpoints, snapshots;
};

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void apply(db *d, struct db_entry *entry)
{
    struct db_apply_result r;
    uint64_t index = db_apply_index(d) + 1;
    REQUIRE(!db_entry_end(entry));
    db_apply(d, index, (UINT64_C(1700000000000) + index) << 16, chr_buf_slice(&entry->bytes), &r);
    REQUIRE(!r.err);
    for (uint32_t i = 0; i < r.ops_count; i++)
        REQUIRE(!r.ops[i].err);
}

static void create(struct db_entry *entry, const char *name, bool keyed)
{
    struct db_column_def columns[3] = {{.type = DB_INT, .name = "k"},
                                       {.type = DB_INT, .name = "v"},
                                       {.type = DB_STRING, .name = "s"}};
    struct db_table_def t = {.columns = columns, .columns_count = 3, .key_count = keyed};
    struct chr_errmsg msg;
    snprintf(t.name, sizeof t.name, "%s", name);
    REQUIRE(!db_table_def_complete(&t, &msg));
    REQUIRE(!db_entry_add_create_table(entry, &t, false));
}

static void put_row(struct db_rows_builder *b, int64_t k, int64_t v)
{
    char text[32];
    int len = snprintf(text, sizeof text, "value %lld", (long long)v);
    db_rows_put_i64(b, 0, k);
    db_rows_put_i64(b, 1, v);
    REQUIRE(!db_rows_put_bytes(b, 2, chr_slice_of(text, (size_t)len)));
    REQUIRE(!db_rows_end(b, v, NULL));
}

static void *run_applier(void *arg)
{
    struct shared *s = arg;
    struct db_entry entry;
    struct db_rows_builder window, latest;
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    const db_catalog *catalog = db_catalog_acquire(s->d);
    REQUIRE(!db_rows_init(&window, db_catalog_find(catalog, CHR_LIT("window")), 16));
    REQUIRE(!db_rows_init(&latest, db_catalog_find(catalog, CHR_LIT("latest")), 16));
    for (uint64_t i = FIRST; i <= ENTRIES; i++) {
        db_entry_begin(&entry, i % 7 ? 0 : DB_ENTRY_ATOMIC, 0);
        db_rows_reset(&window);
        db_rows_reset(&latest);
        for (int r = 0; r < ROWS; r++)
            put_row(&window, r, (int64_t)i);
        put_row(&latest, (int64_t)(i % KEYS), (int64_t)i);
        db_rows_finish(&window, DB_ROWS_INSERT, &entry);
        db_rows_finish(&latest, DB_ROWS_MERGE, &entry);
        struct db_row_id old[ROWS];
        for (uint32_t r = 0; r < ROWS; r++)
            old[r] = (struct db_row_id){i - WINDOW, r};
        if (i >= FIRST + WINDOW)
            db_entry_add_delete(&entry, window.table->id, old, ROWS);
        if (i % 100 == 0)
            create(&entry, "passing", false);
        if (i % 100 == 50 && i > 100) {
            const db_catalog *now = db_catalog_acquire(s->d);
            db_entry_add_drop_table(&entry, db_catalog_find(now, CHR_LIT("passing"))->id);
            db_catalog_release(now);
        }
        apply(s->d, &entry);
        /* On a busy machine the others may not have begun yet: each has its turn beside this one.
         */
        while (i == ENTRIES / 2 && (!s->reads || !s->checkpoints || !s->snapshots))
            sched_yield();
    }
    db_rows_free(&window);
    db_rows_free(&latest);
    db_entry_free(&entry);
    db_catalog_release(catalog);
    s->done = true;
    return NULL;
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

static void *run_checkpointer(void *arg)
{
    struct shared *s = arg;
    struct chr_errmsg msg;
    while (!s->done) {
        REQUIRE(!db_checkpoint(s->d, DB_CHECKPOINT_REQUEST, synced, NULL, 0, &msg));
        s->checkpoints++;
    }
    return NULL;
}

/* Sums up (k, v) over a table as a read sees it. */
static uint64_t sum_up(db_read *read, const char *name, uint64_t *rows_by_entry, int64_t *by_key)
{
    const struct db_table_def *def = db_catalog_find(db_read_catalog(read), chr_slice_cstr(name));
    uint16_t columns[] = {0, 1, 2, 4}; /* and _hlc */
    struct db_row_id *ids = malloc(DB_VECTOR_ROWS * sizeof *ids);
    struct chr_errmsg msg;
    db_scan *scan;
    db_reader *reader;
    uint64_t rows = 0;
    REQUIRE(def);
    REQUIRE(!db_scan_open(read, def, columns, 4, NULL, 0, &scan));
    REQUIRE(!db_reader_open(scan, &reader));
    struct db_morsel m;
    struct db_batch batch;
    int more;
    while ((more = db_reader_next_morsel(reader, &m, &msg)) > 0)
        while ((more = db_reader_next_batch(reader, &batch, &msg)) > 0) {
            struct db_vector *v[4];
            chr_err err;
            for (uint32_t c = 0; c < 4; c++)
                REQUIRE((v[c] = db_reader_column(reader, c, &err, &msg)));
            REQUIRE(!db_reader_row_ids(reader, ids, &msg));
            for (uint32_t i = 0; i < batch.sel_count; i++) {
                uint32_t r = batch.sel ? batch.sel[i] : i;
                int64_t key = v[0]->i64[db_vector_at(v[0], r)];
                int64_t value = v[1]->i64[db_vector_at(v[1], r)];
                chr_slice s = v[2]->str[db_vector_at(v[2], r)];
                char text[32];
                int len = snprintf(text, sizeof text, "value %lld", (long long)value);
                REQUIRE(chr_slice_eq(s, chr_slice_of(text, (size_t)len)));
                REQUIRE(ids[r].entry == (uint64_t)value);
                REQUIRE((uint64_t)v[3]->i64[db_vector_at(v[3], r)] ==
                        (UINT64_C(1700000000000) + ids[r].entry) << 16);
                if (rows_by_entry)
                    rows_by_entry[ids[r].entry]++;
                if (by_key) {
                    REQUIRE(by_key[key] == 0);
                    by_key[key] = value;
                }
                rows++;
            }
        }
    REQUIRE(more == 0);
    db_reader_close(reader);
    db_scan_close(scan);
    free(ids);
    return rows;
}

static void look(db_read *read)
{
    uint64_t x = db_read_index(read), rows_by_entry[ENTRIES + 1] = {0};
    int64_t by_key[KEYS] = {0};
    sum_up(read, "window", rows_by_entry, NULL);
    for (uint64_t i = FIRST; i <= ENTRIES; i++) {
        /* Entry i + WINDOW deletes the rows of entry i. */
        bool there = i <= x && x < i + WINDOW;
        REQUIRE(rows_by_entry[i] == (there ? ROWS : 0));
    }
    sum_up(read, "latest", NULL, by_key);
    for (uint64_t k = 0; k < KEYS; k++) {
        uint64_t want = 0;
        for (uint64_t i = FIRST; i <= x; i++)
            if (i % KEYS == k)
                want = i;
        REQUIRE(by_key[k] == (int64_t)want);
    }
}

static void *run_reader(void *arg)
{
    struct shared *s = arg;
    db_read *old = NULL;
    for (uint64_t n = 0; !s->done; n++) {
        db_read *read;
        REQUIRE(!db_read_begin(s->d, &read));
        look(read);
        db_read_end(read);
        s->reads++;
        if (n % 8 == 0) {
            if (old)
                look(old);
            db_read_end(old);
            REQUIRE(!db_read_begin(s->d, &old));
        }
        struct db_stats stats;
        db_stats(s->d, &stats);
    }
    if (old)
        look(old);
    db_read_end(old);
    return NULL;
}

/* What the snapshot holds, as a database of its own. */
static void look_into(fake_kv *store, uint64_t index)
{
    struct db_kv kv = fake_kv_seam(store);
    struct db_options options;
    struct chr_errmsg msg;
    db *copy;
    db_read *read;
    uint64_t findings;
    db_options_default(&options);
    REQUIRE(!db_open(&kv, &options, &copy, &msg));
    REQUIRE(db_apply_index(copy) == index);
    REQUIRE(!db_read_begin(copy, &read));
    look(read);
    db_read_end(read);
    REQUIRE(!db_check(copy, NULL, NULL, &findings));
    REQUIRE(findings == 0);
    db_close(copy);
    fake_kv_free(store);
}

static void *run_snapshotter(void *arg)
{
    struct shared *s = arg;
    struct chr_random random = {.state = 1};
    struct transfer t = {0};
    kit_small_limits(&random);
    while (!s->done) {
        if (transfer_begin(&t, s->d, s->snapshots))
            continue; /* no checkpoint yet */
        uint64_t index = db_snapshot_info(t.snapshot)->index;
        while (!transfer_pump(&t, &random, 1000))
            ;
        look_into(transfer_finish(&t), index);
        s->snapshots++;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct shared s = {0};
    struct db_options options;
    struct chr_errmsg msg;
    struct db_entry entry;
    fake_kv *store = fake_kv_new(1);
    struct db_kv kv = fake_kv_seam(store);
    fake_kv_faults(store)->no_poison = true;
    db_options_default(&options);
    options.chunk_rows_max = 64;
    REQUIRE(!db_open(&kv, &options, &s.d, &msg));
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&entry, 0, 0);
    create(&entry, "window", false);
    create(&entry, "latest", true);
    apply(s.d, &entry);
    db_entry_free(&entry);
    pthread_t threads[READERS + 3];
    pthread_create(&threads[0], NULL, run_applier, &s);
    pthread_create(&threads[1], NULL, run_checkpointer, &s);
    for (int i = 0; i < READERS; i++)
        pthread_create(&threads[2 + i], NULL, run_reader, &s);
    pthread_create(&threads[2 + READERS], NULL, run_snapshotter, &s);
    for (int i = 0; i < READERS + 3; i++)
        pthread_join(threads[i], NULL);
    db_read *read;
    REQUIRE(!db_read_begin(s.d, &read));
    look(read);
    db_read_end(read);
    printf("%llu reads, %llu checkpoints, %llu snapshots beside %d entries\n",
           (unsigned long long)s.reads, (unsigned long long)s.checkpoints,
           (unsigned long long)s.snapshots, ENTRIES);
    REQUIRE(s.snapshots > 0);
    uint64_t findings;
    REQUIRE(!db_check(s.d, NULL, NULL, &findings));
    REQUIRE(findings == 0);
    db_close(s.d);
    fake_kv_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};
    chr_log_set_level(CHR_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
