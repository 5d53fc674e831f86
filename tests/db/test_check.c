/* tests/db/test_check.c: what `chronos check` must find though every checksum is right: rows that
 * are there twice. Each case is made in a sound store by moving whole values about, and looked at
 * with windows as they are and with windows so small that it takes many of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "db/check_internal.h"
#include "db/op.h"
#include "db/store.h"
#include "tests/sim/fake_kv.h"

enum { S, TS, V, COLUMNS };

struct kit {
    fake_kv *store;
    struct db_kv kv;
    struct db_options options;
    db *d;
    uint64_t index;
    chr_hlc hlc;
    struct db_entry entry;
    struct db_apply_result result;
    struct db__check_limits limits;
};

static void kit_open(struct kit *k)
{
    struct chr_errmsg msg;
    k->kv = fake_kv_seam(k->store);
    assert_int_equal(db_open(&k->kv, &k->options, &k->d, &msg), 0);
    k->index = db_apply_index(k->d);
}

static int kit_setup(void **state)
{
    struct kit *k = calloc(1, sizeof *k);
    k->limits = db__check_limits;
    k->store = fake_kv_new(1);
    fake_kv_faults(k->store)->no_poison = true;
    db_options_default(&k->options);
    k->options.chunk_rows_max = 500;
    db_entry_init(&k->entry, DB_ENTRY_BYTES_MAX);
    k->hlc = (chr_hlc)UINT64_C(1700000000000) << 16;
    kit_open(k);
    db_entry_begin(&k->entry, 0, 0);
    *state = k;
    return 0;
}

static int kit_teardown(void **state)
{
    struct kit *k = *state;
    db__check_limits = k->limits;
    db_close(k->d);
    fake_kv_free(k->store);
    db_entry_free(&k->entry);
    free(k);
    return 0;
}

static void apply_as(struct kit *k, uint64_t index)
{
    assert_int_equal(db_entry_end(&k->entry), 0);
    db_apply(k->d, index, ++k->hlc, chr_buf_slice(&k->entry.bytes), &k->result);
    assert_int_equal(k->result.err, 0);
    for (uint32_t i = 0; i < k->result.ops_count; i++)
        assert_int_equal(k->result.ops[i].err, 0);
    db_entry_begin(&k->entry, 0, 0);
}

static void apply(struct kit *k)
{
    apply_as(k, ++k->index);
}

static chr_err no_wait(void *arg, uint64_t index)
{
    return CHR_OK;
}

static void checkpoint(struct kit *k)
{
    struct chr_errmsg msg;
    assert_int_equal(db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &msg), 0);
}

/* key: how many of (s, ts) are the PRIMARY KEY, ts alone being -1. */
static uint32_t create(struct kit *k, const char *name, int key)
{
    struct db_column_def columns[COLUMNS] = {{.type = DB_STRING, .name = "s"},
                                             {.type = DB_TIMESTAMP, .name = "ts"},
                                             {.type = DB_INT, .name = "v"}};
    struct db_table_def t = {.columns = columns, .columns_count = COLUMNS};
    t.key_count = (uint16_t)abs(key);
    t.key_columns[0] = key < 0 ? TS : S;
    t.key_columns[1] = TS;
    snprintf(t.name, sizeof t.name, "%s", name);
    assert_int_equal(db_table_def_complete(&t, NULL), 0);
    assert_int_equal(db_entry_add_create_table(&k->entry, &t, false), 0);
    apply(k);
    return (uint32_t)k->result.ops[0].epoch;
}

/* Rows of `series` series, times from ts on. */
static void put_rows(struct kit *k, uint32_t table, uint32_t series, int64_t ts, uint32_t rows)
{
    const db_catalog *catalog = db_catalog_acquire(k->d);
    struct db_rows_builder b;
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, table), rows), 0);
    for (uint32_t r = 0; r < rows; r++) {
        char name[16];
        snprintf(name, sizeof name, "d%u", (unsigned)(r % series));
        assert_int_equal(db_rows_put_bytes(&b, S, chr_slice_cstr(name)), 0);
        db_rows_put_i64(&b, TS, ts + r);
        db_rows_put_i64(&b, V, r);
        assert_int_equal(db_rows_end(&b, 1, NULL), 0);
    }
    db_rows_finish(&b, DB_ROWS_MERGE, &k->entry);
    db_rows_free(&b);
    db_catalog_release(catalog);
}

static void add_rows(struct kit *k, uint32_t table, uint32_t series, int64_t ts, uint32_t rows)
{
    put_rows(k, table, series, ts, rows);
    apply(k);
}

/* -- Checking -----------------------------------------------------------------------------------*/

struct said {
    int count;
    char text[2048];
    uint64_t done, total;
};

static void say(void *arg, const char *finding)
{
    struct said *s = arg;
    size_t len = strlen(s->text);
    s->count++;
    snprintf(s->text + len, sizeof s->text - len, "%s\n", finding);
}

static void progress(void *arg, const char *table, uint64_t done, uint64_t total)
{
    struct said *s = arg;
    assert_true(table[0] && done >= s->done && done <= total);
    s->done = done;
    s->total = total;
}

static const struct db__check_limits limits[] = {
    {.id_bits = UINT64_C(512) << 20,
     .id_blocks = 1u << 20,
     .key_rows = 2u << 20,
     .sample_rows = 8192,
     .hashes = DB__HASHES_MAX},
    {.id_bits = 2000, .id_blocks = 1000, .key_rows = 300, .sample_rows = 50, .hashes = 300},
    {.id_bits = 1, .id_blocks = 1, .key_rows = 1, .sample_rows = 1, .hashes = 7},
};

/* Findings, which every size of window must agree on. */
static struct said check(struct kit *k)
{
    struct said said[CHR_COUNT_OF(limits)] = {{0}};
    for (size_t i = 0; i < CHR_COUNT_OF(limits); i++) {
        uint64_t findings = 0;
        db__check_limits = limits[i];
        assert_int_equal(db_check_watched(k->d, say, progress, &said[i], &findings), 0);
        assert_int_equal(findings, said[i].count);
        if (said[i].count != said[0].count)
            fail_msg("windows %zu: %s\nbut: %s", i, said[i].text, said[0].text);
        if (said[i].count == 0)
            assert_int_equal(said[i].done, said[i].total);
    }
    return said[0];
}

static void assert_says(const struct said *said, const char *text)
{
    if (!strstr(said->text, text))
        fail_msg("\"%s\" is not in: %s", text, said->text);
}

/* -- Moving values about ------------------------------------------------------------------------*/

struct copy {
    uint8_t *key, *value;
    size_t key_len, len;
};

/* Puts each value under `from` also under `to` in its place. */
static void copy_values(struct kit *k, struct db__store_key from, struct db__store_key to)
{
    struct copy copies[64];
    size_t count = 0;
    db_kv_txn *txn;
    db_kv_cursor *cursor;
    chr_slice key, value, prefix = db__key_slice(&from);
    assert_int_equal(from.len, to.len);
    assert_int_equal(k->kv.begin(k->kv.ctx, true, &txn), 0);
    assert_int_equal(k->kv.cursor_open(k->kv.ctx, txn, prefix, prefix, &cursor), 0);
    while (k->kv.cursor_next(k->kv.ctx, cursor, &key, &value) == 0) {
        assert_true(count < CHR_COUNT_OF(copies));
        struct copy *c = &copies[count++];
        *c = (struct copy){malloc(key.len), malloc(value.len + 1), key.len, value.len};
        memcpy(c->key, key.ptr, key.len);
        memcpy(c->key, to.bytes, to.len);
        memcpy(c->value, value.ptr, value.len);
    }
    k->kv.cursor_close(k->kv.ctx, cursor);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        struct copy *c = &copies[i];
        assert_int_equal(k->kv.put(k->kv.ctx, txn, chr_slice_of(c->key, c->key_len),
                                   chr_slice_of(c->value, c->len)),
                         0);
        free(c->key);
        free(c->value);
    }
    assert_int_equal(k->kv.commit(k->kv.ctx, txn), 0);
}

/* The chunk is there once more, under an id that was given away before. */
static void double_chunk(struct kit *k, uint32_t table, uint64_t from, uint64_t to)
{
    struct db__store_key a = db__store_key_part(from, 0, 0), b = db__store_key_part(to, 0, 0);
    a.len = b.len = 9;
    copy_values(k, a, b);
    copy_values(k, db__store_key_chunk(table, from), db__store_key_chunk(table, to));
}

static const struct db__chunk *chunk_at(struct kit *k, uint32_t table, uint32_t at)
{
    const struct db__view *view = db__table_find(k->d, table)->view;
    assert_true(view->chunks && at < view->chunks->count);
    return view->chunks->chunks[at];
}

static void reopen_with(struct kit *k, void (*change)(struct kit *k, uint64_t x, uint64_t y),
                        uint64_t x, uint64_t y)
{
    db_close(k->d);
    k->d = NULL;
    k->kv = fake_kv_seam(k->store);
    change(k, x, y);
    kit_open(k);
}

/* -- Tests --------------------------------------------------------------------------------------*/

/* Rows as they come: in large and small entries, updates, deletes, several tables, hot ones. */
static void test_sound(void **state)
{
    struct kit *k = *state;
    uint32_t plain = create(k, "plain", 0), keyed = create(k, "keyed", 2), last = create(k, "l", 1),
             times = create(k, "times", -1);
    for (int round = 0; round < 6; round++) {
        add_rows(k, plain, 5, round * 100, 700);
        add_rows(k, keyed, 7, round * 400, 700); /* the later ones update earlier ones */
        add_rows(k, last, 300, round, 300);
        add_rows(k, times, 3, round * 150, 200);
        for (int i = 0; i < 40; i++)
            add_rows(k, i % 2 ? plain : keyed, 1, 100000 + round * 40 + i, 1);
        struct db_row_id id = {k->index, 0}; /* of plain */
        db_entry_add_delete(&k->entry, plain, &id, 1);
        apply(k);
        struct said said = check(k);
        if (said.count)
            fail_msg("%s", said.text);
        checkpoint(k);
        said = check(k);
        if (said.count)
            fail_msg("%s", said.text);
    }
    assert_true(db__view_chunks(db__table_find(k->d, keyed)->view) > 3);
}

static uint32_t changed_table;

static void double_it(struct kit *k, uint64_t from, uint64_t to)
{
    double_chunk(k, changed_table, from, to);
}

static void test_ids_in_two_chunks(void **state)
{
    struct kit *k = *state;
    uint32_t table = create(k, "t", 0);
    changed_table = table;
    add_rows(k, table, 5, 0, 100);
    checkpoint(k);
    uint64_t tail = chunk_at(k, table, 0)->id; /* to be replaced: its id is free again */
    for (int i = 0; i < 4; i++)
        add_rows(k, table, 5, 1000 + i, 600);
    checkpoint(k);
    const struct db__chunk *chunk = chunk_at(k, table, 2);
    assert_true(chunk->id != tail);
    char rows[64];
    snprintf(rows, sizeof rows, "table \"t\": %u row ids are there more than once", chunk->rows);
    reopen_with(k, double_it, chunk->id, tail);
    struct said said = check(k);
    assert_int_equal(said.count, 1);
    assert_says(&said, rows);
}

/* A chunk of one table is no twin of a chunk of another that has the same ids by chance. */
static void test_ids_of_two_tables(void **state)
{
    struct kit *k = *state;
    uint32_t a = create(k, "a", 0), b = create(k, "b", 0);
    for (int i = 0; i < 3; i++) {
        put_rows(k, a, 5, i, 400);
        put_rows(k, b, 5, i, 400);
        apply(k);
    }
    checkpoint(k);
    struct said said = check(k);
    assert_int_equal(said.count, 0);
}

static void drop_marks(struct kit *k, uint64_t chunk, uint64_t unused)
{
    db_kv_txn *txn;
    struct db__store_key key = db__store_key(DB__RECORD_MARKS, chunk);
    assert_int_equal(k->kv.begin(k->kv.ctx, true, &txn), 0);
    assert_int_equal(k->kv.del(k->kv.ctx, txn, db__key_slice(&key)), 0);
    assert_int_equal(k->kv.commit(k->kv.ctx, txn), 0);
}

/* An old version of a few rows that is visible again: the ids differ, the keys do not. */
static void keys_twice(struct kit *k, int key, uint32_t series, uint32_t update)
{
    char name[16], text[64];
    snprintf(name, sizeof name, "k%d", key);
    uint32_t table = create(k, name, key);
    add_rows(k, table, series, 0, 1500);
    checkpoint(k);
    add_rows(k, table, series, 0, update); /* their old versions are marked */
    checkpoint(k);
    const struct db__view *view = db__table_find(k->d, table)->view;
    uint64_t chunk = 0;
    uint32_t marks = 0;
    for (uint32_t i = 0; i < view->chunks->count; i++)
        if (view->chunks->chunks[i]->marks.count > marks) {
            chunk = view->chunks->chunks[i]->id;
            marks = view->chunks->chunks[i]->marks.count;
        }
    assert_true(marks > 0);
    reopen_with(k, drop_marks, chunk, 0);
    struct said said = check(k);
    assert_int_equal(said.count, 1);
    snprintf(text, sizeof text, "table \"%s\": %u rows have the PRIMARY KEY of another", name,
             marks);
    assert_says(&said, text);
}

static void test_keys_of_series_and_time(void **state)
{
    keys_twice(*state, 2, 7, 10);
}

static void test_keys_of_series(void **state)
{
    keys_twice(*state, 1, 1500, 10);
}

static void test_keys_of_time(void **state)
{
    keys_twice(*state, -1, 3, 10);
}

/* The checkpoint says an earlier entry than its chunks are of. */
static void turn_back(struct kit *k, uint64_t entries, uint64_t unused)
{
    db_kv_txn *txn;
    chr_slice value;
    struct chr_errmsg msg;
    chr_err err;
    struct chr_buf buf;
    struct db__store_key key = db__store_key(DB__RECORD_META, 0);
    chr_buf_init(&buf, 1 << 20);
    assert_int_equal(k->kv.begin(k->kv.ctx, true, &txn), 0);
    assert_int_equal(k->kv.get(k->kv.ctx, txn, db__key_slice(&key), &value), 0);
    Chronos__Catalog__Meta *meta = (Chronos__Catalog__Meta *)db__value_unpack(
        value, DB__RECORD_META, &chronos__catalog__meta__descriptor, &err, &msg);
    assert_non_null(meta);
    meta->apply_index -= entries;
    assert_int_equal(db__value_pack(&buf, DB__RECORD_META, &meta->base), 0);
    protobuf_c_message_free_unpacked(&meta->base, NULL);
    assert_int_equal(k->kv.put(k->kv.ctx, txn, db__key_slice(&key), chr_buf_slice(&buf)), 0);
    assert_int_equal(k->kv.commit(k->kv.ctx, txn), 0);
    chr_buf_free(&buf);
}

/* Rows that are in a chunk and that the log, too, has still to give: found before the log is
 * replayed, and after it, when they are among the hot rows. */
static void test_ids_in_chunk_and_log(void **state)
{
    struct kit *k = *state;
    uint32_t table = create(k, "t", 0);
    add_rows(k, table, 5, 0, 900);
    add_rows(k, table, 5, 50, 70);
    checkpoint(k);
    reopen_with(k, turn_back, 1, 0);
    struct said said = check(k);
    assert_true(said.count >= 1);
    assert_says(&said, "but its checkpoint is of entry");
    int before = said.count;
    add_rows(k, table, 5, 50, 70);
    said = check(k);
    assert_int_equal(said.count, before + 1);
    assert_says(&said, "table \"t\": 70 row ids are there more than once");
}

/* -- Hashes -------------------------------------------------------------------------------------*/

static void test_hashes(void **state)
{
    struct db__hashes h = {.max = 100};
    for (uint64_t n = 0; n < 1200; n += 37) {
        bool again;
        db__hashes_begin(&h);
        do {
            for (uint64_t i = 0; i < n; i++) {
                uint64_t x = i % 500; /* the others are the same once or twice more */
                struct db__hash128 hash = {chr_hash_u64(x), chr_hash_u64(x + 1000)};
                assert_int_equal(db__hashes_add(&h, hash), 0);
            }
            assert_int_equal(db__hashes_again(&h, &again), 0);
        } while (again);
        assert_int_equal(h.twice, n > 500 ? n - 500 : 0);
    }
    db__hashes_free(&h);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sound),
        TEST(test_ids_in_two_chunks),
        TEST(test_ids_of_two_tables),
        TEST(test_keys_of_series_and_time),
        TEST(test_keys_of_series),
        TEST(test_keys_of_time),
        TEST(test_ids_in_chunk_and_log),
        cmocka_unit_test(test_hashes),
    };
    chr_log_set_level(CHR_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
