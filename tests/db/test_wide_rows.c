/* tests/db/test_wide_rows.c: rows so wide that few fit into a chunk are sealed about once, however
 * many there are already. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>

#include "base/compiler.h"
#include "base/random.h"
#include "db/db.h"
#include "db/op.h"
#include "tests/sim/fake_kv.h"

struct life {
    fake_kv *store;
    struct db_kv kv;
    db *d;
    uint32_t table;
    uint64_t index;
    struct chr_random random;
};

static void apply(struct life *l, struct db_entry *entry, struct db_apply_result *r)
{
    assert_int_equal(db_entry_end(entry), 0);
    l->index++;
    db_apply(l->d, l->index, (UINT64_C(1700000000000) + l->index) << 16,
             chr_buf_slice(&entry->bytes), r);
    assert_int_equal(r->err, 0);
    db_entry_free(entry);
}

static void begin(struct db_entry *entry)
{
    db_entry_init(entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(entry, 0, 0);
}

static void life_begin(struct life *l)
{
    struct db_options options;
    struct db_entry entry;
    struct db_apply_result r;
    struct chr_errmsg msg;
    *l = (struct life){.store = fake_kv_new(1), .random = {7}};
    fake_kv_faults(l->store)->no_poison = true;
    l->kv = fake_kv_seam(l->store);
    db_options_default(&options);
    assert_int_equal(db_open(&l->kv, &options, &l->d, &msg), 0);
    struct db_column_def column = {.type = DB_STRING, .name = "s"};
    struct db_table_def t = {.name = "t", .columns = &column, .columns_count = 1};
    assert_int_equal(db_table_def_complete(&t, NULL), 0);
    begin(&entry);
    assert_int_equal(db_entry_add_create_table(&entry, &t, false), 0);
    apply(l, &entry, &r);
    l->table = (uint32_t)r.ops[0].epoch;
}

static void add_rows(struct life *l, uint32_t count, uint32_t bytes)
{
    const db_catalog *catalog = db_catalog_acquire(l->d);
    struct db_entry entry;
    struct db_apply_result r;
    struct db_rows_builder rows;
    uint8_t noise[4096];
    begin(&entry);
    assert_int_equal(db_rows_init(&rows, db_catalog_find_id(catalog, l->table), count), 0);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < bytes; k++)
            noise[k] = (uint8_t)('!' + chr_random_below(&l->random, 90));
        assert_int_equal(db_rows_put_bytes(&rows, 0, chr_slice_of(noise, bytes)), 0);
        assert_int_equal(db_rows_end(&rows, 1, NULL), 0);
    }
    db_rows_finish(&rows, DB_ROWS_INSERT, &entry);
    db_rows_free(&rows);
    db_catalog_release(catalog);
    apply(l, &entry, &r);
}

static chr_err no_wait(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

static struct db_stats checkpoint(struct life *l)
{
    struct chr_errmsg msg;
    struct db_stats stats;
    assert_int_equal(db_checkpoint(l->d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 1, &msg), 0);
    db_stats(l->d, &stats);
    return stats;
}

static void end(struct life *l)
{
    db_close(l->d);
    fake_kv_free(l->store);
}

/* Of rows of 2,000 bytes 122 would fit into a value, of which 64, half a value, go into a chunk. */
static void test_sealed_once(void **state)
{
    static const uint32_t sizes[] = {900, 2000, 3600};
    (void)state;
    for (size_t k = 0; k < CHR_COUNT_OF(sizes); k++) {
        uint32_t bytes = sizes[k];
        struct life l;
        struct db_stats stats = {0};
        uint32_t rows = 0;
        life_begin(&l);
        for (uint32_t round = 0; round < 24; round++) {
            add_rows(&l, 700, bytes);
            rows += 700;
            stats = checkpoint(&l);
        }
        assert_int_equal(stats.chunk_rows + stats.tail_rows, rows);
        if (stats.seal_rows_total > 2 * rows)
            fail_msg("%u rows of %u bytes: %llu sealed", rows, bytes,
                     (unsigned long long)stats.seal_rows_total);
        end(&l);
    }
}

/* What fits few rows at first may fit many later. */
static void test_narrow_after_wide(void **state)
{
    (void)state;
    struct life l;
    life_begin(&l);
    add_rows(&l, 300, 3000);
    add_rows(&l, 60000, 8);
    struct db_stats stats = checkpoint(&l);
    assert_int_equal(stats.chunk_rows + stats.tail_rows, 60300);
    assert_true(stats.chunks < 40);
    uint64_t findings;
    assert_int_equal(db_check(l.d, NULL, NULL, &findings), 0);
    assert_int_equal(findings, 0);
    end(&l);
}

/* A value is full before the rows of a chunk are, with more than half of them: the next window must
 * not be larger than what it is gathered into. */
static void test_more_than_half_of_a_window(void **state)
{
    static const uint32_t sizes[] = {4, 5, 6, 7, 8, 10, 12};
    (void)state;
    for (size_t k = 0; k < CHR_COUNT_OF(sizes); k++) {
        struct life l;
        life_begin(&l);
        for (uint32_t round = 0; round < 6; round++)
            add_rows(&l, 40000, sizes[k]);
        struct db_stats stats = checkpoint(&l);
        assert_int_equal(stats.chunk_rows + stats.tail_rows, 240000);
        uint64_t findings;
        assert_int_equal(db_check(l.d, NULL, NULL, &findings), 0);
        assert_int_equal(findings, 0);
        end(&l);
    }
}

/* Widths and numbers of rows as they come. */
static void test_any_widths(void **state)
{
    (void)state;
    const char *seeds = getenv("CHR_SEEDS");
    uint64_t last = seeds ? strtoull(seeds, NULL, 10) : 12;
    for (uint64_t seed = 1; seed <= CHR_MIN(last, 200); seed++) {
        struct life l;
        struct chr_random random = {seed};
        uint64_t rows = 0;
        life_begin(&l);
        for (uint64_t left = 2 + chr_random_below(&random, 12); left > 0; left--) {
            bool wide = chr_random_below(&random, 3) == 0;
            uint32_t bytes = 1 + (uint32_t)chr_random_below(&random, wide ? 4000 : 24);
            uint32_t count = 1 + (uint32_t)chr_random_below(&random, 3000000 / (bytes + 40));
            add_rows(&l, count, bytes);
            rows += count;
            if (chr_random_below(&random, 3) == 0)
                checkpoint(&l);
        }
        struct db_stats stats = checkpoint(&l);
        uint64_t findings;
        assert_int_equal(db_check(l.d, NULL, NULL, &findings), 0);
        if (findings || stats.chunk_rows + stats.tail_rows != rows)
            fail_msg("seed %llu", (unsigned long long)seed);
        end(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sealed_once),
        cmocka_unit_test(test_narrow_after_wide),
        cmocka_unit_test(test_more_than_half_of_a_window),
        cmocka_unit_test(test_any_widths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
