/* tests/db/test_damage.c: a disk that changes what was written, and stores that are large in one
 * dimension.
 *
 * One bit of one stored value is flipped in a copy of a store with all kinds of columns, deletes,
 * sessions and keys. Then db_open refuses, or check finds it and every answer, from rows or from
 * statistics, is either right or CHR_ECORRUPT. CHR_SEEDS=n: how many bits. */
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
#include "base/random.h"
#include "db/checkpoint.h"
#include "db/chunk.h"
#include "db/internal.h"
#include "db/op.h"
#include "db/scan.h"
#include "tests/sim/fake_kv.h"

struct kit {
    fake_kv *store;
    struct db_kv kv;
    struct db_options options;
    db *d;
    uint64_t index;
    chr_hlc hlc;
    struct db_entry entry;
    struct db_apply_result result;
};

static chr_err kit_open(struct kit *k)
{
    struct chr_errmsg msg;
    k->kv = fake_kv_seam(k->store);
    chr_err err = db_open(&k->kv, &k->options, &k->d, &msg);
    if (!err)
        k->index = db_apply_index(k->d);
    return err;
}

static int kit_setup(void **state)
{
    struct kit *k = calloc(1, sizeof *k);
    k->store = fake_kv_new(1);
    db_options_default(&k->options);
    k->options.chunk_rows_max = 3000;
    db_entry_init(&k->entry, DB_ENTRY_BYTES_MAX);
    k->hlc = (chr_hlc)UINT64_C(1700000000000) << 16;
    assert_int_equal(kit_open(k), 0);
    db_entry_begin(&k->entry, 0, 0);
    *state = k;
    return 0;
}

static int kit_teardown(void **state)
{
    struct kit *k = *state;
    db_close(k->d);
    fake_kv_free(k->store);
    db_entry_free(&k->entry);
    free(k);
    return 0;
}

static void apply(struct kit *k)
{
    assert_int_equal(db_entry_end(&k->entry), 0);
    db_apply(k->d, ++k->index, ++k->hlc, chr_buf_slice(&k->entry.bytes), &k->result);
    assert_int_equal(k->result.err, 0);
    for (uint32_t i = 0; i < k->result.ops_count; i++)
        assert_int_equal(k->result.ops[i].err, 0);
    db_entry_begin(&k->entry, 0, 0);
}

static chr_err no_wait(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

static chr_err checkpoint(struct kit *k)
{
    struct chr_errmsg msg;
    return db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &msg);
}

enum { S, TS, I, F, B, X, COLUMNS };

static uint32_t create(struct kit *k, const char *name, bool keyed, int64_t ttl_us)
{
    struct db_column_def columns[COLUMNS] = {
        {.type = DB_STRING, .name = "s"},  {.type = DB_TIMESTAMP, .name = "ts"},
        {.type = DB_INT, .name = "i"},     {.type = DB_FLOAT, .name = "f"},
        {.type = DB_BOOLEAN, .name = "b"}, {.type = DB_BLOB, .name = "x"}};
    struct db_table_def t = {
        .columns = columns, .columns_count = COLUMNS, .ttl_us = ttl_us, .key_count = keyed ? 2 : 0};
    t.key_columns[1] = TS;
    snprintf(t.name, sizeof t.name, "%s", name);
    assert_int_equal(db_table_def_complete(&t, NULL), 0);
    assert_int_equal(db_entry_add_create_table(&k->entry, &t, false), 0);
    apply(k);
    return (uint32_t)k->result.ops[0].epoch;
}

/* Rows of the series d0 … d4, one value wide `x_bytes`. */
static void add_rows(struct kit *k, uint32_t table, int64_t ts, uint32_t rows, size_t x_bytes,
                     struct chr_random *random)
{
    const db_catalog *catalog = db_catalog_acquire(k->d);
    struct db_rows_builder b;
    uint8_t *x = malloc(x_bytes + 1);
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, table), rows), 0);
    for (uint32_t r = 0; r < rows; r++) {
        char name[8];
        snprintf(name, sizeof name, "d%u", (unsigned)(r % 5));
        assert_int_equal(db_rows_put_bytes(&b, S, chr_slice_cstr(name)), 0);
        db_rows_put_i64(&b, TS, ts + r);
        if (chr_random_below(random, 10))
            db_rows_put_i64(&b, I, (int64_t)chr_random_u64(random) >> chr_random_below(random, 60));
        db_rows_put_f64(&b, F, (double)chr_random_below(random, 1000) / 10);
        for (size_t i = 0; i < x_bytes; i++)
            x[i] = (uint8_t)chr_random_u64(random);
        assert_int_equal(db_rows_put_bytes(&b, X, chr_slice_of(x, x_bytes)), 0);
        assert_int_equal(db_rows_end(&b, 1, NULL), 0);
    }
    db_rows_finish(&b, DB_ROWS_MERGE, &k->entry);
    db_rows_free(&b);
    free(x);
    db_catalog_release(catalog);
    apply(k);
}

/* -- What a table answers -----------------------------------------------------------------------*/

struct answer {
    uint64_t rows, digest;
    __int128 sum; /* of i: from statistics where they count */
};

static uint64_t cell(const struct db_vector *v, uint32_t row, uint64_t h)
{
    uint32_t at = db_vector_at(v, row);
    if (!db_vector_valid(v, row))
        return chr_hash_u64(h ^ 0x55);
    if (db_type_is_bytes(v->type))
        return chr_hash_slice(v->str[at], h);
    return chr_hash_u64(h ^ (v->type == DB_BOOLEAN ? v->b8[at] : (uint64_t)v->i64[at]));
}

static int ask_morsel(db_reader *reader, bool statistics, struct answer *a, struct chr_errmsg *msg)
{
    struct db_column_stats stats;
    struct db_batch batch;
    int more;
    if (statistics && db_reader_stats(reader, I, &stats)) {
        a->rows += stats.count + stats.nulls;
        a->sum += stats.sum_i128;
        return 0;
    }
    while ((more = db_reader_next_batch(reader, &batch, msg)) > 0) {
        struct db_vector *v[COLUMNS];
        struct db_row_id ids[DB_VECTOR_ROWS];
        chr_err err = db_reader_row_ids(reader, ids, msg);
        for (uint32_t c = 0; c < COLUMNS && !err; c++)
            v[c] = db_reader_column(reader, c, &err, msg);
        if (err)
            return err;
        for (uint32_t n = 0; n < batch.sel_count; n++) {
            uint32_t row = batch.sel ? batch.sel[n] : n;
            uint64_t h = ids[row].entry << 20 ^ ids[row].ordinal;
            for (uint32_t c = 0; c < COLUMNS; c++)
                h = cell(v[c], row, h + c);
            a->digest += h;
            a->rows++;
            if (db_vector_valid(v[I], row))
                a->sum += v[I]->i64[db_vector_at(v[I], row)];
        }
    }
    return more;
}

static struct chr_errmsg asked; /* what the last failed question was told */

static chr_err ask(struct kit *k, const char *table, bool statistics, struct answer *a)
{
    static const uint16_t columns[COLUMNS] = {S, TS, I, F, B, X};
    struct chr_errmsg msg = {.text = ""};
    struct db_morsel m;
    db_read *read;
    db_scan *scan;
    db_reader *reader;
    int more;
    *a = (struct answer){0};
    assert_int_equal(db_read_begin(k->d, &read), 0);
    const struct db_table_def *def = db_catalog_find(db_read_catalog(read), chr_slice_cstr(table));
    assert_non_null(def);
    assert_int_equal(db_scan_open(read, def, columns, COLUMNS, NULL, 0, &scan), 0);
    assert_int_equal(db_reader_open(scan, &reader), 0);
    while ((more = db_reader_next_morsel(reader, &m, &msg)) > 0)
        if ((more = ask_morsel(reader, statistics, a, &msg)) < 0)
            break;
    db_reader_close(reader);
    db_scan_close(scan);
    db_read_end(read);
    asked = msg;
    return (chr_err)more;
}

/* -- One bit ------------------------------------------------------------------------------------*/

static const char *const tables[] = {"plain", "keyed", "aging"};
enum { TABLES = 3 };

static void fill(struct kit *k)
{
    struct chr_random random = {7};
    int64_t now = chr_hlc_unix_us(k->hlc);
    uint32_t plain = create(k, tables[0], false, 0);
    uint32_t keyed = create(k, tables[1], true, 0);
    uint32_t aging = create(k, tables[2], false, INT64_C(3600000000));
    db_entry_add_session_open(
        &k->entry, &(struct db_session_open){.client_id = CHR_LIT("c"), .expiry_s = UINT32_MAX});
    db_entry_add_reject(&k->entry, &(struct db_reject){.table_id = plain,
                                                       .guard = UINT32_MAX,
                                                       .topic = CHR_LIT("t"),
                                                       .payload = CHR_LIT("p"),
                                                       .reason = CHR_LIT("r")});
    apply(k);
    for (int round = 0; round < 4; round++) {
        add_rows(k, plain, now + round * 1000, 1000, 9, &random);
        struct db_row_id id = {k->index, 17};
        add_rows(k, keyed, now + round * 500, 1000, 0, &random);
        add_rows(k, aging, now - INT64_C(3600000000) + 500, 1000, 3, &random);
        assert_int_equal(checkpoint(k), 0);
        db_entry_add_delete(&k->entry, plain, &id, 1);
        apply(k);
    }
    assert_int_equal(checkpoint(k), 0);
}

static void test_flipped_bits(void **state)
{
    struct kit *k = *state;
    struct answer right[TABLES][2], a;
    const char *text = getenv("CHR_SEEDS");
    uint64_t bits = text ? strtoull(text, NULL, 10) : 400, refused = 0, reported = 0, said = 0,
             columns_named = 0;
    uint64_t findings;
    fill(k);
    for (int t = 0; t < TABLES; t++) {
        for (int s = 0; s < 2; s++)
            assert_int_equal(ask(k, tables[t], s, &right[t][s]), 0);
        assert_true(right[t][0].rows > 500 && right[t][0].rows == right[t][1].rows);
        assert_true(right[t][0].sum == right[t][1].sum);
    }
    assert_int_equal(db_check(k->d, NULL, NULL, &findings), 0);
    assert_int_equal(findings, 0);
    for (uint64_t seed = 1; seed <= bits; seed++) {
        struct kit c = {.store = fake_kv_copy(k->store, seed), .options = k->options};
        fake_kv_faults(c.store)->no_poison = true;
        assert_true(fake_kv_flip_bit(c.store));
        chr_err err = kit_open(&c);
        if (err) {
            if (err != CHR_ECORRUPT && err != CHR_EVERSION)
                fail_msg("seed %llu: db_open: %s", (unsigned long long)seed, chr_errname(err));
            refused++;
            fake_kv_free(c.store);
            continue;
        }
        for (int t = 0; t < TABLES; t++)
            for (int s = 0; s < 2; s++) {
                err = ask(&c, tables[t], s, &a);
                bool same = a.rows == right[t][s].rows && a.digest == right[t][s].digest &&
                            a.sum == right[t][s].sum;
                if (err ? err != CHR_ECORRUPT && err != CHR_EVERSION : !same)
                    fail_msg("seed %llu: table %s answers wrongly (%s)", (unsigned long long)seed,
                             tables[t], chr_errname(err));
                char names[64];
                snprintf(names, sizeof names, "table \"%s\", chunk ", tables[t]);
                if (err && strncmp(asked.text, names, strlen(names)) != 0)
                    fail_msg("seed %llu: not said where: %s", (unsigned long long)seed, asked.text);
                columns_named += err && strstr(asked.text, ", column \"") != NULL;
                said += err != 0;
            }
        err = db_check(c.d, NULL, NULL, &findings);
        if (err ? err != CHR_ECORRUPT && err != CHR_EVERSION : findings == 0)
            fail_msg("seed %llu: check says %s, %llu findings", (unsigned long long)seed,
                     chr_errname(err), (unsigned long long)findings);
        reported++;
        db_close(c.d);
        fake_kv_free(c.store);
    }
    print_message("%llu bits: open refused %llu, check found %llu, %llu answers refused\n",
                  (unsigned long long)bits, (unsigned long long)refused,
                  (unsigned long long)reported, (unsigned long long)said);
    assert_true(refused && reported && said && columns_named);
}

/* A tail that cannot be read must not keep all others from being saved. */
static void test_damaged_tail_is_left_alone(void **state)
{
    struct kit *k = *state;
    struct chr_random random = {7};
    struct answer a;
    uint32_t bad = create(k, "bad", false, 0), good = create(k, "good", false, 0);
    add_rows(k, bad, 0, 50, 9, &random);
    assert_int_equal(checkpoint(k), 0);
    uint64_t chunk = db__table_find(k->d, bad)->view->chunks->chunks[0]->id;
    db_close(k->d);
    k->d = NULL;
    struct db_kv kv = fake_kv_seam(k->store);
    db_kv_txn *txn;
    uint8_t key[] = {'d', 0, 0, 0, 0, 0, 0, 0, (uint8_t)chunk, DB_CHUNK_COLUMN};
    assert_true(chunk < 256);
    assert_int_equal(kv.begin(kv.ctx, true, &txn), 0);
    db_kv_cursor *cursor;
    chr_slice at, value;
    uint32_t broken = 0;
    chr_slice prefix = chr_slice_of(key, 10);
    assert_int_equal(kv.cursor_open(kv.ctx, txn, prefix, prefix, &cursor), 0);
    uint8_t copy[4096], name[16];
    size_t len = 0, name_len = 0;
    while (kv.cursor_next(kv.ctx, cursor, &at, &value) == 0) { /* the last column */
        assert_true(value.len <= sizeof copy && at.len <= sizeof name);
        memcpy(copy, value.ptr, len = value.len);
        memcpy(name, at.ptr, name_len = at.len);
        broken++;
    }
    kv.cursor_close(kv.ctx, cursor);
    assert_true(broken > 0);
    copy[len - 1] ^= 1;
    assert_int_equal(kv.put(kv.ctx, txn, chr_slice_of(name, name_len), chr_slice_of(copy, len)), 0);
    assert_int_equal(kv.commit(kv.ctx, txn), 0);
    assert_int_equal(kit_open(k), 0);
    for (int round = 0; round < 3; round++) {
        add_rows(k, bad, 1000 + round, 10, 9, &random);
        add_rows(k, good, 1000 + round, 10, 9, &random);
        assert_int_equal(checkpoint(k), 0);
        assert_int_equal(db_durable_index(k->d), k->index);
        assert_int_equal(ask(k, "bad", false, &a), CHR_ECORRUPT);
        char where[64]; /* the last column in the store is that of the highest id */
        snprintf(where, sizeof where, "table \"bad\", chunk %llu, column \"_",
                 (unsigned long long)chunk);
        if (strncmp(asked.text, where, strlen(where)) != 0)
            fail_msg("not said where: %s", asked.text);
        assert_int_equal(ask(k, "good", false, &a), 0);
        assert_int_equal(a.rows, 10 * (round + 1));
    }
    db_close(k->d);
    k->d = NULL;
    assert_int_equal(kit_open(k), 0);
    assert_int_equal(ask(k, "bad", false, &a), CHR_ECORRUPT); /* it is said, not passed over */
}

/* -- Large in one dimension ---------------------------------------------------------------------*/

static uint64_t records(struct kit *k, uint8_t kind)
{
    db_kv_txn *txn;
    db_kv_cursor *cursor;
    chr_slice prefix = chr_slice_of(&kind, 1), key, value;
    uint64_t n = 0;
    assert_int_equal(k->kv.begin(k->kv.ctx, false, &txn), 0);
    assert_int_equal(k->kv.cursor_open(k->kv.ctx, txn, prefix, prefix, &cursor), 0);
    while (k->kv.cursor_next(k->kv.ctx, cursor, &key, &value) == 0)
        n++;
    k->kv.cursor_close(k->kv.ctx, cursor);
    k->kv.abort(k->kv.ctx, txn);
    return n;
}

/* Each checkpoint replaces as many tails as there are tables: all of the old ones go. */
static void test_tails_of_many_tables_are_collected(void **state)
{
    enum { MANY = 400 };
    struct kit *k = *state;
    struct chr_random random = {7};
    uint32_t ids[MANY];
    fake_kv_faults(k->store)->no_poison = true;
    for (int t = 0; t < MANY; t++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", t);
        ids[t] = create(k, name, false, 0);
    }
    for (int round = 0; round < 3; round++) {
        for (int t = 0; t < MANY; t++)
            add_rows(k, ids[t], round, 1, 1, &random);
        assert_int_equal(checkpoint(k), 0);
        assert_int_equal(records(k, 'c'), MANY);
        assert_int_equal(records(k, 'g'), 0);
        assert_true(records(k, 'd') < 20 * MANY);
    }
}

/* Chunks of few rows because the rows are wide: rewriting them would make the same again. */
static void test_wide_rows_are_not_rewritten(void **state)
{
    struct kit *k = *state;
    struct chr_random random = {7};
    struct db_stats stats;
    uint32_t id = create(k, "wide", false, 0);
    for (int i = 0; i < 12; i++)
        add_rows(k, id, i * 1000, 600, 1000, &random);
    assert_int_equal(checkpoint(k), 0);
    db_stats(k->d, &stats);
    assert_true(stats.chunks > 16);
    for (int round = 0; round < 3; round++) {
        uint64_t before = stats.seal_rows_total;
        add_rows(k, id, round, 1, 1, &random);
        assert_int_equal(checkpoint(k), 0);
        db_stats(k->d, &stats);
        assert_true(stats.seal_rows_total - before < 600);
    }
}

/* While checkpoints fail, what waits to be saved grows with what there is, not with the attempts.
 */
static void test_waiting_records_do_not_pile_up(void **state)
{
    struct kit *k = *state;
    struct chr_errmsg msg;
    for (int round = 0; round < 100; round++) {
        char name[16];
        for (int i = 0; i < 5; i++) { /* four that come back, one that comes and goes */
            snprintf(name, sizeof name, "c%d", i);
            db_entry_add_session_open(
                &k->entry, &(struct db_session_open){.client_id = chr_slice_cstr(name),
                                                     .expiry_s = UINT32_MAX,
                                                     .clean_start = i == 4 && round % 7 == 0});
        }
        apply(k);
        fake_kv_faults(k->store)->enospc_at = fake_kv_commits(k->store) + 1;
        assert_int_equal(db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &msg),
                         CHR_ENOSPC);
        assert_true(k->d->checkpoint->pending_count <= 4 + 100 / 7 + 2);
    }
    fake_kv_faults(k->store)->enospc_at = 0;
    assert_int_equal(checkpoint(k), 0);
    assert_int_equal(k->d->checkpoint->pending_count, 0);
    db_close(k->d);
    k->d = NULL;
    assert_int_equal(kit_open(k), 0);
    for (int i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", i);
        const struct db__session *s = db__session_find(&k->d->sessions, chr_slice_cstr(name));
        assert_non_null(s);
        assert_int_equal(s->generation, i < 4 ? 100 : 2); /* c4 began anew in round 98 */
    }
    assert_int_equal(k->d->sessions.count, 5);
}

/* The earliest time there is: no expiry without a TTL, and with one as any other. */
static void test_earliest_time(void **state)
{
    struct kit *k = *state;
    struct chr_random random = {7};
    struct answer a;
    uint32_t id = create(k, "stay", false, 0), aging = create(k, "go", false, 1000000);
    add_rows(k, id, INT64_MIN, 1, 1, &random);
    add_rows(k, aging, INT64_MIN, 1, 1, &random);
    for (int round = 0; round < 3; round++) {
        for (int s = 0; s < 2; s++) {
            assert_int_equal(ask(k, "stay", s, &a), 0);
            assert_int_equal(a.rows, 1);
            assert_int_equal(ask(k, "go", s, &a), 0);
            assert_int_equal(a.rows, 0);
        }
        apply(k);
        assert_int_equal(checkpoint(k), 0);
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_flipped_bits),
        TEST(test_damaged_tail_is_left_alone),
        TEST(test_tails_of_many_tables_are_collected),
        TEST(test_wide_rows_are_not_rewritten),
        TEST(test_waiting_records_do_not_pile_up),
        TEST(test_earliest_time),
    };
    chr_log_set_level(CHR_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
