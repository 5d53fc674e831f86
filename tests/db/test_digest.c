/* tests/db/test_digest.c: a table's checksum sees every value and every id, and not where rows are.
 * That it is the same after any life is for the models to say (test_model.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "db/digest.h"
#include "db/op.h"
#include "tests/sim/fake_kv.h"

struct life {
    fake_kv *store;
    struct db_kv kv;
    db *d;
    struct db_entry entry;
    uint32_t table;
    uint64_t index;
};

static uint32_t apply(struct life *l)
{
    struct db_apply_result r;
    assert_int_equal(db_entry_end(&l->entry), 0);
    l->index++;
    db_apply(l->d, l->index, (UINT64_C(1700000000000) + l->index) << 16,
             chr_buf_slice(&l->entry.bytes), &r);
    assert_int_equal(r.err, 0);
    db_entry_begin(&l->entry, 0, 0);
    return r.ops_count ? (uint32_t)r.ops[0].epoch : 0;
}

static void life_begin(struct life *l)
{
    struct db_options options;
    struct chr_errmsg msg;
    memset(l, 0, sizeof *l);
    db_options_default(&options);
    options.chunk_rows_max = 16;
    l->store = fake_kv_new(1);
    l->kv = fake_kv_seam(l->store);
    assert_int_equal(db_open(&l->kv, &options, &l->d, &msg), 0);
    db_entry_init(&l->entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&l->entry, 0, 0);
    struct db_column_def columns[] = {{.type = DB_INT, .name = "i"},
                                      {.type = DB_FLOAT, .name = "f"},
                                      {.type = DB_STRING, .name = "s"},
                                      {.type = DB_BOOLEAN, .name = "b"}};
    struct db_table_def t = {.name = "t", .columns = columns, .columns_count = 4};
    assert_int_equal(db_table_def_complete(&t, NULL), 0);
    assert_int_equal(db_entry_add_create_table(&l->entry, &t, false), 0);
    l->table = apply(l);
}

static void life_end(struct life *l)
{
    db_close(l->d);
    fake_kv_free(l->store);
    db_entry_free(&l->entry);
}

struct row {
    int64_t i;
    double f;
    const char *s;
    bool b, null;
    int64_t received_at;
};

static void add_row(struct life *l, struct row row)
{
    const db_catalog *catalog = db_catalog_acquire(l->d);
    struct db_rows_builder b;
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, l->table), 1), 0);
    if (!row.null)
        db_rows_put_i64(&b, 0, row.i);
    db_rows_put_f64(&b, 1, row.f);
    assert_int_equal(db_rows_put_bytes(&b, 2, chr_slice_cstr(row.s)), 0);
    db_rows_put_bool(&b, 3, row.b);
    assert_int_equal(db_rows_end(&b, row.received_at, NULL), 0);
    db_rows_finish(&b, DB_ROWS_INSERT, &l->entry);
    db_rows_free(&b);
    db_catalog_release(catalog);
}

static struct db_digest digest(struct life *l)
{
    struct db_digest out;
    struct chr_errmsg msg;
    db_read *read;
    assert_int_equal(db_read_begin(l->d, &read), 0);
    assert_int_equal(
        db_digest_table(read, db_catalog_find_id(db_read_catalog(read), l->table), &out, &msg), 0);
    db_read_end(read);
    return out;
}

static chr_err no_wait(void *arg, uint64_t index)
{
    return CHR_OK;
}

static void test_every_value(void **state)
{
    const struct row rows[] = {
        {1, 0.0, "a", false, false, 5},         {2, 0.0, "a", false, false, 5},
        {1, -0.0, "a", false, false, 5},        {1, 0.0, "b", false, false, 5},
        {1, 0.0, "", false, false, 5},          {1, 0.0, "abcdefgh", false, false, 5},
        {1, 0.0, "abcdefghi", false, false, 5}, {1, 0.0, "a", true, false, 5},
        {1, 0.0, "a", false, true, 5},          {0, 0.0, "a", false, false, 5},
        {1, 0.0, "a", false, false, 6},
    };
    uint64_t sums[CHR_COUNT_OF(rows) + 2];
    size_t count = 0;
    for (size_t i = 0; i < CHR_COUNT_OF(rows); i++) {
        struct life l;
        life_begin(&l);
        struct db_digest none = digest(&l);
        assert_int_equal(none.count, 0);
        assert_int_equal(none.sum, 0);
        add_row(&l, rows[i]);
        apply(&l);
        assert_int_equal(digest(&l).count, 1);
        sums[count++] = digest(&l).sum;
        life_end(&l);
    }
    for (int other = 0; other < 2; other++) { /* the same values under another id */
        struct life l;
        life_begin(&l);
        if (other) {
            db_entry_begin(&l.entry, 0, 0);
            apply(&l); /* the entry after; its HLC is another one, too */
        } else {
            add_row(&l, rows[1]);
        }
        add_row(&l, rows[0]);
        apply(&l);
        sums[count++] = digest(&l).sum - (other ? 0 : sums[1]);
        life_end(&l);
    }
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < i; k++)
            assert_true(sums[i] != sums[k]);
}

static void test_every_place(void **state)
{
    struct life l;
    life_begin(&l);
    for (int i = 0; i < 100; i++) {
        add_row(&l, (struct row){i % 7, i * 0.5, i % 3 ? "x" : "y", i & 1, i % 5 == 0, i});
        if (i % 4 == 0)
            apply(&l);
        if (i % 37 != 36)
            continue;
        apply(&l);
        struct db_digest before = digest(&l);
        struct chr_errmsg msg;
        assert_int_equal(db_checkpoint(l.d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &msg), 0);
        struct db_digest after = digest(&l);
        assert_int_equal(after.count, before.count);
        assert_int_equal(after.sum, before.sum);
    }
    apply(&l);
    struct db_digest all = digest(&l);
    assert_int_equal(all.count, 100);
    struct db_row_id id = {2, 0};
    db_entry_add_delete(&l.entry, l.table, &id, 1);
    apply(&l);
    assert_int_equal(digest(&l).count, all.count - 1);
    assert_int_not_equal(digest(&l).sum, all.sum);
    life_end(&l);
}

/* Written down: nodes of different versions compare them. */
static void test_stays_as_it_is(void **state)
{
    struct life l;
    life_begin(&l);
    add_row(&l, (struct row){1, 1.5, "a name", true, false, 5});
    add_row(&l, (struct row){-1, 2.5, "another, longer", false, true, 6});
    apply(&l);
    assert_int_equal(digest(&l).count, 2);
    assert_int_equal(digest(&l).sum, UINT64_C(0xcb11ff1eeb93a52a));
    life_end(&l);
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value),
        cmocka_unit_test(test_every_place),
        cmocka_unit_test(test_stays_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
