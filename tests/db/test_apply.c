/* tests/db/test_apply.c: what apply, sessions, rejects, keys and checkpoints promise one by one;
 * the model test lives through their combinations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/random.h"
#include "db/internal.h"
#include "db/op.h"
#include "db/scan.h"
#include "db/store.h"
#include "tests/sim/fake_kv.h"

#define MS(ms) ((chr_hlc)(UINT64_C(1700000000000) + (ms)) << 16)

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

static void kit_open(struct kit *k)
{
    struct chr_errmsg msg = {.text = ""};
    chr_err err = db_open(&k->kv, &k->options, &k->d, &msg);
    if (err)
        fail_msg("%s: %s", chr_errname(err), msg.text);
}

static int kit_setup(void **state)
{
    struct kit *k = calloc(1, sizeof *k);
    k->store = fake_kv_new(1);
    k->kv = fake_kv_seam(k->store);
    db_options_default(&k->options);
    db_entry_init(&k->entry, DB_ENTRY_BYTES_MAX);
    k->hlc = MS(0);
    kit_open(k);
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

/* Applies the entry that was being built and begins another. */
static chr_err apply_at(struct kit *k, chr_hlc hlc)
{
    assert_int_equal(db_entry_end(&k->entry), 0);
    k->hlc = hlc > k->hlc ? hlc : k->hlc + 1;
    db_apply(k->d, ++k->index, k->hlc, chr_buf_slice(&k->entry.bytes), &k->result);
    db_entry_begin(&k->entry, 0, 0);
    return k->result.err;
}

static void apply(struct kit *k)
{
    assert_int_equal(apply_at(k, 0), 0);
}

static chr_err no_wait(void *arg, uint64_t index)
{
    if (arg)
        *(uint64_t *)arg = index;
    return CHR_OK;
}

static void checkpoint(struct kit *k)
{
    struct chr_errmsg msg = {.text = ""};
    uint64_t index = 0;
    chr_err err = db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, no_wait, &index, 0, &msg);
    if (err)
        fail_msg("%s: %s", chr_errname(err), msg.text);
    assert_int_equal(db_durable_index(k->d), k->index);
}

static void reopen(struct kit *k)
{
    db_close(k->d);
    k->d = NULL;
    fake_kv_reopen(k->store);
    kit_open(k);
    assert_int_equal(db_apply_index(k->d), k->index);
}

/* (s STRING, ts TIMESTAMP, v INT); keyed: PRIMARY KEY (s, ts). */
static uint32_t create(struct kit *k, const char *name, bool keyed, int64_t ttl_us)
{
    struct db_column_def columns[3] = {{.type = DB_STRING, .name = "s"},
                                       {.type = DB_TIMESTAMP, .name = "ts"},
                                       {.type = DB_INT, .name = "v"}};
    struct db_table_def t = {.columns = columns, .columns_count = 3, .ttl_us = ttl_us};
    char *topics[] = {"in/{s}"};
    snprintf(t.name, sizeof t.name, "%s", name);
    if (keyed) {
        t.key_count = 2;
        t.key_columns[1] = 1;
    } else {
        t.topics = topics;
        t.topics_count = 1;
    }
    assert_int_equal(db_table_def_complete(&t, NULL), 0);
    assert_int_equal(t.series_count, 1);
    assert_int_equal(t.time_column, 1);
    assert_int_equal(db_entry_add_create_table(&k->entry, &t, false), 0);
    apply(k);
    assert_int_equal(k->result.ops[0].err, 0);
    return (uint32_t)k->result.ops[0].epoch;
}

static void add_rows(struct kit *k, uint32_t table, enum db_rows_mode mode, const char *s,
                     int64_t ts, int64_t v, uint32_t rows)
{
    const db_catalog *catalog = db_catalog_acquire(k->d);
    struct db_rows_builder b;
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, table), rows), 0);
    for (uint32_t r = 0; r < rows; r++) {
        assert_int_equal(db_rows_put_bytes(&b, 0, chr_slice_cstr(s)), 0);
        db_rows_put_i64(&b, 1, ts + r);
        db_rows_put_i64(&b, 2, v + r);
        assert_int_equal(db_rows_end(&b, 1, NULL), 0);
    }
    db_rows_finish(&b, mode, &k->entry);
    db_rows_free(&b);
    db_catalog_release(catalog);
}

struct seen {
    uint64_t rows;
    int64_t sum;
    struct db_scan_counts counts;
};

static struct seen look(struct kit *k, uint32_t table, const struct db_bound *bounds,
                        uint32_t bounds_count)
{
    struct seen seen = {0};
    struct chr_errmsg msg = {.text = ""};
    db_read *read;
    db_scan *scan;
    db_reader *reader;
    uint16_t column = 2;
    assert_int_equal(db_read_begin(k->d, &read), 0);
    const struct db_table_def *def = db_catalog_find_id(db_read_catalog(read), table);
    assert_int_equal(db_scan_open(read, def, &column, 1, bounds, bounds_count, &scan), 0);
    assert_int_equal(db_reader_open(scan, &reader), 0);
    struct db_morsel m;
    struct db_batch b;
    int more;
    while ((more = db_reader_next_morsel(reader, &m, &msg)) > 0)
        while ((more = db_reader_next_batch(reader, &b, &msg)) > 0) {
            chr_err err;
            struct db_vector *v = db_reader_column(reader, 0, &err, &msg);
            for (uint32_t i = 0; i < b.sel_count; i++) {
                uint32_t r = b.sel ? b.sel[i] : i;
                seen.rows++;
                seen.sum +=
                    db_vector_valid(v, r) && v->type == DB_INT ? v->i64[db_vector_at(v, r)] : 0;
            }
        }
    if (more < 0)
        fail_msg("%s", msg.text);
    db_reader_close(reader);
    db_scan_counts(scan, &seen.counts);
    db_scan_close(scan);
    db_read_end(read);
    return seen;
}

/* -- Tables out of the box, definitions ---------------------------------------------------------*/

static void test_empty(void **state)
{
    struct kit *k = *state;
    const db_catalog *c = db_catalog_acquire(k->d);
    assert_int_equal(db_catalog_tables_count(c), 2);
    const struct db_table_def *r = db_catalog_find(c, CHR_LIT("readings"));
    assert_non_null(r);
    assert_int_equal(r->columns_count, 6);
    assert_int_equal(r->topics_count, 2);
    assert_string_equal(r->topics[0], "sensors/{device_id}/{metric}");
    assert_int_equal(r->time_column, 2);
    assert_int_equal(r->series_count, 2);
    const struct db_table_def *j = db_catalog_find(c, CHR_LIT("chronos_rejects"));
    assert_true(j->system);
    assert_int_equal(db_table_column(j, CHR_LIT("payload")), 2);
    assert_int_equal(db_catalog_mapping_version(c), 1);
    db_catalog_release(c);
    assert_int_equal(db_next_due_us(k->d), INT64_MAX);
}

static void test_definitions(void **state)
{
    static const struct {
        const char *topic;
        bool good;
    } cases[] = {{"farm/{a}/x", true}, {"{a}", true},     {"+/{a}/#", true}, {"a/#/b", false},
                 {"x{a}", false},      {"a/{zz}", false}, {"", false},       {"$SYS/{a}", false},
                 {"{a}/{a}", false},   {"a/b+", false},   {"#", true},       {"//{a}", true}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct db_column_def columns[2] = {{.type = DB_STRING, .name = "a"},
                                           {.type = DB_INT, .name = "b"}};
        char topic[32], *topics[] = {topic};
        struct db_table_def t = {.name = "t",
                                 .columns = columns,
                                 .columns_count = 2,
                                 .topics = topics,
                                 .topics_count = 1};
        struct chr_errmsg msg = {.text = ""};
        strcpy(topic, cases[i].topic);
        chr_err err = db_table_def_complete(&t, &msg);
        if ((err == 0) != cases[i].good)
            fail_msg("\"%s\": %s", topic, msg.text);
        if (err)
            continue;
        struct chr_buf buf;
        struct db_table_def *back;
        chr_buf_init(&buf, 1 << 20);
        assert_int_equal(db_table_def_encode(&t, &buf), 0);
        assert_int_equal(db_table_def_decode(chr_buf_slice(&buf), &back, &msg), 0);
        assert_string_equal(back->topics[0], topic);
        assert_int_equal(back->columns[1].id, 2);
        assert_int_equal(back->next_column_id, 3);
        db_table_def_free(back);
        for (size_t cut = 0; cut < buf.len; cut++)
            if (!db_table_def_decode(chr_slice_of(buf.ptr, cut), &back, &msg))
                db_table_def_free(back);
        chr_buf_free(&buf);
    }
}

/* -- Rows ---------------------------------------------------------------------------------------*/

static void test_builder(void **state)
{
    struct kit *k = *state;
    uint32_t id = create(k, "t", false, 0);
    const db_catalog *catalog = db_catalog_acquire(k->d);
    struct db_rows_builder b;
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, id), 3), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(db_rows_put_bytes(&b, 0, CHR_LIT("first")), 0);
        assert_int_equal(db_rows_put_bytes(&b, 0, CHR_LIT("2nd")), 0); /* the last wins */
        db_rows_put_null(&b, 2);
        db_rows_put_i64(&b, 2, i);
        assert_false(db_rows_has(&b, 1));
        assert_int_equal(db_rows_end(&b, 5, NULL), 0);
    }
    struct chr_errmsg msg;
    db_rows_put_i64(&b, 2, 99);
    assert_int_equal(db_rows_end(&b, 5, &msg), CHR_EFULL);
    assert_int_equal(b.rows, 3);
    db_rows_finish(&b, DB_ROWS_MERGE, &k->entry);
    db_rows_rollback(&b, (struct db_rows_mark){1});
    db_rows_finish(&b, DB_ROWS_MERGE, &k->entry);
    db_rows_reset(&b);
    db_rows_finish(&b, DB_ROWS_MERGE, &k->entry); /* adds nothing */
    apply(k);
    assert_int_equal(k->result.ops_count, 2);
    assert_int_equal(k->result.ops[0].rows, 3);
    assert_int_equal(k->result.ops[1].rows, 1);
    struct seen seen = look(k, id, NULL, 0);
    assert_int_equal(seen.rows, 4);
    assert_int_equal(seen.sum, 0 + 1 + 2 + 0);
    db_rows_free(&b);
    db_catalog_release(catalog);
}

static void test_slow_tables_are_small(void **state)
{
    struct kit *k = *state;
    enum { TABLES = 1000 };
    uint32_t ids[TABLES];
    for (int i = 0; i < TABLES; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        ids[i] = create(k, name, i % 2, 0);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < TABLES; i++)
            add_rows(k, ids[i], DB_ROWS_MERGE, "device-1", 1000 + round, 1, 1);
        apply(k);
    }
    struct db_stats stats;
    db_stats(k->d, &stats);
    assert_int_equal(stats.hot_rows, 3 * TABLES);
    assert_true(stats.hot_bytes < 2048 * TABLES);
    checkpoint(k);
    db_stats(k->d, &stats);
    assert_int_equal(stats.hot_bytes, 0);
    assert_int_equal(stats.tail_rows, 3 * TABLES);
    assert_int_equal(stats.chunks, 0);
    /* The next rows join the tail: still one per table. */
    for (int i = 0; i < TABLES; i++)
        add_rows(k, ids[i], DB_ROWS_MERGE, "device-1", 5000, 1, 1);
    apply(k);
    checkpoint(k);
    db_stats(k->d, &stats);
    assert_int_equal(stats.tail_rows, 4 * TABLES);
    assert_int_equal(look(k, ids[7], NULL, 0).rows, 4);
}

static void test_order_needs_no_lookup(void **state)
{
    struct kit *k = *state;
    uint32_t id = create(k, "t", true, 0);
    for (int i = 0; i < 50; i++) {
        add_rows(k, id, DB_ROWS_MERGE, i % 2 ? "a" : "b", 1000 + 100 * (i / 2), i, 100);
        apply(k);
        assert_int_equal(k->result.ops[0].rows, 100);
        if (i == 20)
            checkpoint(k);
    }
    const struct db__table *table = db__table_find(k->d, id);
    assert_null(table->active->keys); /* nobody had to look */
    add_rows(k, id, DB_ROWS_INSERT, "a", 1005, 1, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_EDUPKEY); /* R4; the row is in a chunk */
    assert_true(k->result.ops[0].detail.len > 0);
    add_rows(k, id, DB_ROWS_INSERT, "a", 3400, 1, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_EDUPKEY); /* a hot row */
    add_rows(k, id, DB_ROWS_INSERT, "c", 1005, 1, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, 0);
    assert_int_equal(look(k, id, NULL, 0).rows, 5001);
}

/* One clock far ahead does not make everybody else's rows be looked for. */
static void test_wrong_clock(void **state)
{
    struct kit *k = *state;
    uint32_t id = create(k, "t", true, 0);
    for (int i = 0; i < 30; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%02d", i);
        add_rows(k, id, DB_ROWS_MERGE, name, 1000, i, 400);
    }
    add_rows(k, id, DB_ROWS_MERGE, "ahead", INT64_C(4000000000000000), 1, 1);
    apply(k);
    checkpoint(k);
    reopen(k);
    for (int i = 0; i < 30; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%02d", i);
        add_rows(k, id, DB_ROWS_MERGE, name, 1400, i, 400);
        apply(k);
        assert_int_equal(k->result.ops[0].rows, 400);
    }
    const struct db__table *table = db__table_find(k->d, id);
    assert_null(table->active->keys);
    assert_int_equal(look(k, id, NULL, 0).rows, 2 * 30 * 400 + 1);
    add_rows(k, id, DB_ROWS_INSERT, "d07", 1399, 0, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_EDUPKEY);
    add_rows(k, id, DB_ROWS_INSERT, "ahead", INT64_C(4000000000000000), 1, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_EDUPKEY);
}

static void test_bounds_prune(void **state)
{
    struct kit *k = *state;
    k->options.chunk_rows_max = 4096;
    reopen(k);
    uint32_t id = create(k, "t", false, 0);
    for (int d = 0; d < 40; d++) {
        char name[16];
        snprintf(name, sizeof name, "dev-%02d", d);
        add_rows(k, id, DB_ROWS_MERGE, name, 1000000, 0, 1024);
    }
    apply(k);
    checkpoint(k);
    struct db_stats stats;
    db_stats(k->d, &stats);
    assert_int_equal(stats.chunks, 10);
    struct db_value dev = {.type = DB_STRING, .bytes = CHR_LIT("dev-17")};
    struct db_bound bound = {.column = 0,
                             .has_low = true,
                             .low_inclusive = true,
                             .has_high = true,
                             .high_inclusive = true,
                             .low = dev,
                             .high = dev};
    struct seen seen = look(k, id, &bound, 1);
    assert_int_equal(seen.counts.chunks_pruned, 9);
    assert_int_equal(seen.rows, 2048); /* the block of its run, not all of the chunk */
    bound = (struct db_bound){
        .column = 1, .has_low = true, .low = {.type = DB_TIMESTAMP, .i64 = 2000000}};
    assert_int_equal(look(k, id, &bound, 1).counts.chunks_pruned, 10);
    /* One long series: blocks are left out by time. */
    k->options.chunk_rows_max = 65536;
    reopen(k);
    uint32_t other = create(k, "u", false, 0);
    add_rows(k, other, DB_ROWS_MERGE, "dev", 0, 0, 65536);
    apply(k);
    checkpoint(k);
    bound = (struct db_bound){.column = 1,
                              .has_low = true,
                              .has_high = true,
                              .low = {.type = DB_TIMESTAMP, .i64 = 30000},
                              .high = {.type = DB_TIMESTAMP, .i64 = 30500}};
    assert_int_equal(look(k, other, &bound, 1).rows, 2048);
}

/* -- Sessions (R5) ------------------------------------------------------------------------------*/

static void open_session(struct kit *k, const char *client, bool clean)
{
    db_entry_add_session_open(
        &k->entry, &(struct db_session_open){
                       .client_id = chr_slice_cstr(client), .clean_start = clean, .expiry_s = 60});
    apply(k);
}

static uint32_t publish_guarded(struct kit *k, uint32_t table, struct db_guard guard)
{
    const db_catalog *catalog = db_catalog_acquire(k->d);
    struct db_rows_builder b;
    db_entry_add_guards(&k->entry, &guard, 1);
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, table), 1), 0);
    db_rows_put_i64(&b, 2, 1);
    db_rows_guard(&b, 0);
    assert_int_equal(db_rows_end(&b, 1, NULL), 0);
    db_rows_finish(&b, DB_ROWS_MERGE, &k->entry);
    db_rows_free(&b);
    db_catalog_release(catalog);
    apply(k);
    assert_int_equal(k->result.guards_count, 1);
    return k->result.ops[1].rows;
}

static void test_exactly_once(void **state)
{
    struct kit *k = *state;
    uint32_t id = create(k, "t", false, 0);
    open_session(k, "sensor", false);
    struct db_guard g = {.epoch = k->result.ops[0].epoch, .generation = 1, .packet_id = 7};
    assert_int_equal(g.epoch, k->index << 16);
    assert_false(k->result.ops[0].session_present);
    assert_int_equal(publish_guarded(k, id, g), 1);
    /* The answer was lost; the client resends on a new connection, after a restart of the node. */
    checkpoint(k);
    reopen(k);
    open_session(k, "sensor", false);
    assert_true(k->result.ops[0].session_present);
    assert_int_equal(k->result.ops[0].epoch, g.epoch);
    assert_int_equal(k->result.ops[0].generation, 2);
    assert_int_equal(publish_guarded(k, id, g), 0); /* a batch of the old connection */
    assert_true(db_bit_get(k->result.gone, 0));
    g.generation = 2;
    assert_int_equal(publish_guarded(k, id, g), 0);
    assert_true(db_bit_get(k->result.duplicates, 0));
    /* A release of the old connection frees nothing, and says so: were it answered with a PUBCOMP,
     * the client would use the id again, for a message that would then count as a duplicate. */
    struct db_guard old = g;
    old.generation = 1;
    db_entry_add_release(&k->entry, &old, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_ENOTFOUND);
    assert_int_equal(publish_guarded(k, id, g), 0);
    db_entry_add_release(&k->entry, &g, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_OK);
    assert_int_equal(publish_guarded(k, id, g), 1); /* the packet id is free again */
    assert_int_equal(look(k, id, NULL, 0).rows, 2);
    /* An atomic entry whose guard is a duplicate does nothing. */
    db_entry_begin(&k->entry, DB_ENTRY_ATOMIC, 0);
    db_entry_add_guards(&k->entry, &g, 1);
    add_rows(k, id, DB_ROWS_INSERT, "x", 1, 1, 1);
    apply(k);
    assert_int_equal(k->result.ops[1].err, CHR_ECANCELLED);
    assert_true(db_bit_get(k->result.duplicates, 0));
    assert_int_equal(look(k, id, NULL, 0).rows, 2);
}

static void test_sessions_end_by_replicated_time(void **state)
{
    struct kit *k = *state;
    open_session(k, "a", false);
    uint64_t epoch = k->result.ops[0].epoch;
    db_entry_add_session_close(
        &k->entry, &(struct db_session_close){
                       .client_id = CHR_LIT("a"), .epoch = epoch, .generation = 1, .expiry_s = 60});
    assert_int_equal(apply_at(k, MS(1000)), 0);
    assert_int_equal(db_next_due_us(k->d), chr_hlc_unix_us(MS(61000)));
    assert_int_equal(apply_at(k, MS(60999)), 0);
    struct db_stats stats;
    db_stats(k->d, &stats);
    assert_int_equal(stats.sessions, 1);
    checkpoint(k);
    reopen(k);
    assert_int_equal(db_next_due_us(k->d), chr_hlc_unix_us(MS(61000)));
    assert_int_equal(apply_at(k, MS(61000)), 0);
    db_stats(k->d, &stats);
    assert_int_equal(stats.sessions, 0);
    assert_int_equal(db_next_due_us(k->d), INT64_MAX);
    open_session(k, "a", false);
    assert_false(k->result.ops[0].session_present);
    assert_true(k->result.ops[0].epoch != epoch);
    checkpoint(k);
    reopen(k);
    /* A close of a connection that was followed by another changes nothing. */
    open_session(k, "a", false);
    db_entry_add_session_close(&k->entry,
                               &(struct db_session_close){.client_id = CHR_LIT("a"),
                                                          .epoch = k->result.ops[0].epoch,
                                                          .generation = 1});
    apply(k);
    db_stats(k->d, &stats);
    assert_int_equal(stats.sessions, 1);
}

static void test_request_keys(void **state)
{
    struct kit *k = *state;
    uint32_t id = create(k, "t", true, 0);
    for (int i = 0; i < 2; i++) {
        db_entry_begin(&k->entry, DB_ENTRY_ATOMIC, 0);
        db_entry_add_request_key(&k->entry, CHR_LIT("u"), CHR_LIT("k"));
        add_rows(k, id, DB_ROWS_INSERT, "a", 1, 1, 1);
        assert_int_equal(apply_at(k, 0), i ? CHR_EEXIST : 0);
    }
    db_entry_begin(&k->entry, DB_ENTRY_ATOMIC, 0);
    db_entry_add_request_key(&k->entry, CHR_LIT("uk"), CHR_LIT("")); /* not the same */
    add_rows(k, id, DB_ROWS_INSERT, "a", 1, 1, 1);
    apply(k);
    assert_int_equal(k->result.ops[1].err, CHR_EDUPKEY);
    assert_int_equal(k->result.ops[0].err, CHR_ECANCELLED); /* and is not remembered */
    checkpoint(k);
    reopen(k);
    db_entry_begin(&k->entry, DB_ENTRY_ATOMIC, 0);
    db_entry_add_request_key(&k->entry, CHR_LIT("u"), CHR_LIT("k"));
    assert_int_equal(apply_at(k, 0), CHR_EEXIST);
    /* Bounded in age … */
    assert_int_equal(apply_at(k, MS(24 * 3600 * 1000 + 10)), 0);
    assert_int_equal(k->d->requests.next - k->d->requests.first, 0);
    /* … and in count. */
    for (uint32_t i = 0; i < DB__REQUEST_KEYS_MAX + 10; i++) {
        char key[16];
        int len = snprintf(key, sizeof key, "%u", i);
        db_entry_begin(&k->entry, DB_ENTRY_ATOMIC, 0);
        db_entry_add_request_key(&k->entry, CHR_LIT("u"), chr_slice_of(key, (size_t)len));
        apply(k);
    }
    assert_int_equal(k->d->requests.next - k->d->requests.first, DB__REQUEST_KEYS_MAX);
    checkpoint(k);
    reopen(k);
    assert_int_equal(k->d->requests.next - k->d->requests.first, DB__REQUEST_KEYS_MAX);
}

/* -- Rejects (R3) -------------------------------------------------------------------------------*/

static void test_reject_ring(void **state)
{
    struct kit *k = *state;
    static uint8_t payload[9000];
    uint64_t rejected = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 700; i++) {
            for (int n = 0; n < 2; n++)
                db_entry_add_reject(
                    &k->entry, &(struct db_reject){.table_id = n ? 1 : 4711,
                                                   .guard = UINT32_MAX,
                                                   .topic = CHR_LIT("sensors/x"),
                                                   .reason = CHR_LIT("no number"),
                                                   .payload = chr_slice_of(payload, n ? 9000 : 10),
                                                   .received_at_us = i});
            apply(k);
            rejected += 2;
        }
        checkpoint(k);
        if (round == 2)
            reopen(k);
    }
    uint64_t kept = DB__REJECT_RING_BYTES_MAX / db__reject_bytes(9, 9000, 9);
    assert_int_equal(look(k, DB__TABLE_ID_REJECTS, NULL, 0).rows, rejected / 2 + kept);
    struct db_stats stats;
    db_stats(k->d, &stats);
    assert_int_equal(stats.chunks + stats.tail_rows > 0, 1);
    assert_true(stats.chunk_rows + stats.tail_rows < rejected); /* the marked ones were rewritten */
    uint64_t findings;
    assert_int_equal(db_check(k->d, NULL, NULL, &findings), 0);
    assert_int_equal(findings, 0);
    /* Nobody else writes there. */
    const db_catalog *catalog = db_catalog_acquire(k->d);
    struct db_rows_builder b;
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, DB__TABLE_ID_REJECTS), 1), 0);
    assert_int_equal(db_rows_end(&b, 1, NULL), 0);
    db_rows_finish(&b, DB_ROWS_MERGE, &k->entry);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_EACCES);
    db_rows_free(&b);
    db_catalog_release(catalog);
}

/* -- Time to live (R13) -------------------------------------------------------------------------*/

static void test_ttl(void **state)
{
    struct kit *k = *state;
    k->options.chunk_rows_max = 1000;
    reopen(k);
    uint32_t id = create(k, "t", true, 10000000);
    int64_t now = chr_hlc_unix_us(MS(1000));
    add_rows(k, id, DB_ROWS_MERGE, "a", now, 1, 1000);
    assert_int_equal(apply_at(k, MS(1000)), 0);
    assert_true(db_next_due_us(k->d) <= now + 10000000 + 1000);
    checkpoint(k);
    assert_int_equal(look(k, id, NULL, 0).rows, 1000);
    assert_int_equal(apply_at(k, chr_hlc_make(1700000011000, 0) + 0), 0); /* now + 10 s */
    assert_int_equal(look(k, id, NULL, 0).rows, 999); /* time + ttl <= replicated time */
    add_rows(k, id, DB_ROWS_INSERT, "a", now, 5, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, 0); /* an expired row holds no key */
    assert_int_equal(apply_at(k, chr_hlc_make(1700000012001, 0)), 0);
    struct seen seen = look(k, id, NULL, 0);
    assert_int_equal(seen.rows, 0);
    assert_int_equal(seen.counts.chunks_pruned, 1);
    checkpoint(k);
    struct db_stats stats;
    db_stats(k->d, &stats);
    assert_int_equal(stats.chunks + stats.tail_rows, 0); /* dropped as a whole */
    assert_int_equal(db_next_due_us(k->d), INT64_MAX);
}

/* -- Checkpoints --------------------------------------------------------------------------------*/

static chr_err never_synced(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_EIO;
}

static void test_checkpoint_fails(void **state)
{
    struct kit *k = *state;
    struct chr_errmsg msg;
    k->options.chunk_rows_max = 256;
    reopen(k);
    uint32_t id = create(k, "t", true, 0);
    checkpoint(k);
    uint64_t durable = db_durable_index(k->d);
    for (int round = 0; round < 6; round++) {
        add_rows(k, id, DB_ROWS_INSERT, "a", 1000 + round * 300, 0, 300);
        apply(k);
        if (round % 3 == 0) {
            assert_int_equal(
                db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, never_synced, NULL, 0, &msg),
                CHR_EIO); /* keeps D3 */
        } else {
            fake_kv_faults(k->store)->enospc_at =
                fake_kv_commits(k->store) + 1 + (uint64_t)(round % 3 - 1);
            assert_int_equal(db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &msg),
                             CHR_ENOSPC);
        }
        assert_int_equal(db_durable_index(k->d), durable);
        assert_int_equal(look(k, id, NULL, 0).rows, (round + 1) * 300);
        add_rows(k, id, DB_ROWS_INSERT, "a", 1000, 0, 1); /* its key is found where it lies */
        apply(k);
        assert_int_equal(k->result.ops[0].err, CHR_EDUPKEY);
    }
    checkpoint(k);
    reopen(k);
    assert_int_equal(look(k, id, NULL, 0).rows, 1800);
    uint64_t findings;
    assert_int_equal(db_check(k->d, NULL, NULL, &findings), 0);
    assert_int_equal(findings, 0);
    struct db_stats stats;
    db_stats(k->d, &stats);
    assert_int_equal(stats.hot_bytes, 0);
}

static void test_due(void **state)
{
    struct kit *k = *state;
    k->options.hot_limit_bytes = 1 << 20;
    reopen(k);
    assert_int_equal(db_checkpoint_due(k->d, UINT64_MAX, 0), DB_CHECKPOINT_NONE);
    uint32_t id = create(k, "t", false, 0);
    assert_int_equal(db_checkpoint_due(k->d, 1, 0), DB_CHECKPOINT_NONE);
    assert_int_equal(db_checkpoint_due(k->d, 256 << 20, 0), DB_CHECKPOINT_LOG);
    assert_int_equal(db_checkpoint_due(k->d, 1, INT64_C(600000000)), DB_CHECKPOINT_AGE);
    while (!db_hot_full(k->d)) {
        add_rows(k, id, DB_ROWS_MERGE, "device", 1, 1, 100);
        apply(k);
        struct db_stats stats;
        db_stats(k->d, &stats);
        assert_int_equal(db_checkpoint_due(k->d, 1, 0) == DB_CHECKPOINT_HOT,
                         stats.hot_bytes >= 512 << 10);
    }
    checkpoint(k);
    assert_false(db_hot_full(k->d));
    assert_int_equal(db_checkpoint_due(k->d, UINT64_MAX, 0), DB_CHECKPOINT_NONE);
}

/* Small chunks of a table are merged, marked ones rewritten. */
static void test_merges(void **state)
{
    struct kit *k = *state;
    struct db_stats stats;
    k->options.chunk_rows_max = 1024;
    reopen(k);
    uint32_t id = create(k, "t", true, 0);
    for (int i = 0; i < 40; i++) {
        add_rows(k, id, DB_ROWS_MERGE, "a", 1000 * i, 0, 200);
        apply(k);
        checkpoint(k);
        db_stats(k->d, &stats);
        assert_true(stats.chunks <= 8 + 8);
    }
    assert_int_equal(look(k, id, NULL, 0).rows, 8000);
    /* The same keys again: each row has a new version, the old ones are marked. */
    for (int i = 0; i < 40; i++)
        add_rows(k, id, DB_ROWS_MERGE, "a", 1000 * i, 1, 200);
    apply(k);
    assert_int_equal(look(k, id, NULL, 0).rows, 8000);
    for (int i = 0; i < 4; i++) {
        add_rows(k, id, DB_ROWS_MERGE, "b", 1000 * i, 0, 1);
        apply(k);
        checkpoint(k);
    }
    db_stats(k->d, &stats);
    assert_true(stats.chunk_rows + stats.tail_rows < 8004 + 500);
    struct seen seen = look(k, id, NULL, 0);
    assert_int_equal(seen.rows, 8004);
    assert_int_equal(seen.sum, 40 * (200 * 201 / 2));
}

/* The same on LMDB, through a close of the environment. */
static void test_on_lmdb(void **state)
{
    struct kit *k = *state;
    char dir[] = "chr_db_XXXXXX", command[64];
    struct chr_errmsg msg = {.text = ""};
    struct db_kv memory = k->kv;
    assert_non_null(mkdtemp(dir));
    db_close(k->d);
    k->d = NULL;
    k->options.chunk_rows_max = 512;
    uint32_t id = 0;
    for (int life = 0; life < 3; life++) {
        assert_int_equal(db_kv_lmdb_open(dir, UINT64_C(1) << 30, &k->kv, &msg), 0);
        kit_open(k);
        assert_int_equal(db_apply_index(k->d), k->index);
        if (!life)
            id = create(k, "t", true, 0);
        for (int i = 0; i < 10; i++)
            add_rows(k, id, DB_ROWS_MERGE, "a", 1000 * (10 * life + i), 0, 200);
        apply(k);
        checkpoint(k);
        for (int i = 0; i < 10; i++) /* half of them again: marked, merged, rewritten */
            add_rows(k, id, DB_ROWS_MERGE, "a", 1000 * (10 * life + i), 0, 100);
        apply(k);
        checkpoint(k);
        assert_int_equal(look(k, id, NULL, 0).rows, 2000 * (life + 1));
        uint64_t findings;
        assert_int_equal(db_check(k->d, NULL, NULL, &findings), 0);
        assert_int_equal(findings, 0);
        db_close(k->d);
        k->d = NULL;
        db_kv_lmdb_close(&k->kv);
    }
    k->kv = memory;
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* -- Foreign bytes ------------------------------------------------------------------------------*/

static void test_mutated_entries(void **state)
{
    struct kit *k = *state;
    struct chr_random random = {42};
    uint32_t id = create(k, "t", true, 0);
    open_session(k, "s", false);
    struct db_guard guard = {k->result.ops[0].epoch, 1, 3};
    struct db_row_id row_id = {1, 0};
    db_entry_add_guards(&k->entry, &guard, 1);
    add_rows(k, id, DB_ROWS_MERGE, "a", 1, 1, 3);
    db_entry_add_delete(&k->entry, id, &row_id, 1);
    db_entry_add_reject(&k->entry, &(struct db_reject){.table_id = id,
                                                       .guard = 0,
                                                       .topic = CHR_LIT("t"),
                                                       .payload = CHR_LIT("p"),
                                                       .reason = CHR_LIT("r")});
    db_entry_add_session_close(&k->entry, &(struct db_session_close){.client_id = CHR_LIT("s"),
                                                                     .epoch = guard.epoch,
                                                                     .generation = 1,
                                                                     .expiry_s = 5});
    db_entry_add_release(&k->entry, &guard, 1);
    assert_int_equal(db_entry_end(&k->entry), 0);
    size_t len = k->entry.bytes.len;
    uint8_t *whole = malloc(len);
    memcpy(whole, k->entry.bytes.ptr, len);
    for (int n = 0; n < 20000; n++) {
        size_t part = n % 3 ? len : chr_random_below(&random, len + 1);
        uint8_t *bytes = malloc(part + 1); /* its own allocation: ASan sees a byte too far */
        memcpy(bytes, whole, part);
        for (uint64_t f = chr_random_below(&random, 3); part && f > 0; f--)
            bytes[chr_random_below(&random, part)] ^= (uint8_t)(1u << chr_random_below(&random, 8));
        struct db_apply_result r;
        db_apply(k->d, ++k->index, ++k->hlc, chr_slice_of(bytes, part), &r);
        free(bytes);
    }
    free(whole);
    checkpoint(k);
    uint64_t findings;
    assert_int_equal(db_check(k->d, NULL, NULL, &findings), 0);
    assert_int_equal(findings, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_empty),
        TEST(test_definitions),
        TEST(test_builder),
        TEST(test_slow_tables_are_small),
        TEST(test_order_needs_no_lookup),
        TEST(test_wrong_clock),
        TEST(test_bounds_prune),
        TEST(test_exactly_once),
        TEST(test_sessions_end_by_replicated_time),
        TEST(test_request_keys),
        TEST(test_reject_ring),
        TEST(test_ttl),
        TEST(test_checkpoint_fails),
        TEST(test_due),
        TEST(test_merges),
        TEST(test_on_lmdb),
        TEST(test_mutated_entries),
    };
    chr_log_set_level(CHR_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
