/* tests/db/test_snapshot.c: what db/snapshot.h promises, one by one. That a snapshot is the state
 * at its index, whatever that is, is shown by the models, which move house with snapshots
 * (test_model.c, test_durable_model.c), and beside other threads by test_threads.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "db/checkpoint.h"
#include "db/op.h"
#include "db/scan.h"
#include "tests/db/snapshot_kit.h"
#include "tests/db/tmpdir.h"

struct kit {
    fake_kv *store;
    struct db_kv kv;
    struct db_options options;
    db *d;
    uint64_t index;
    struct db_entry entry;
    uint32_t table;
    db_snapshot *snapshot;
    struct chr_buf part;
    struct chr_errmsg msg;
    struct db__snapshot_limits limits;
};

static void apply(struct kit *k)
{
    struct db_apply_result result;
    assert_int_equal(db_entry_end(&k->entry), 0);
    k->index++;
    db_apply(k->d, k->index, (UINT64_C(1700000000000) + k->index) << 16,
             chr_buf_slice(&k->entry.bytes), &result);
    for (uint32_t i = 0; i < result.ops_count; i++)
        assert_int_equal(result.ops[i].err, 0);
    if (result.ops_count && !k->table)
        k->table = (uint32_t)result.ops[0].epoch;
    db_entry_begin(&k->entry, 0, 0);
}

static chr_err no_wait(void *arg, uint64_t index)
{
    return CHR_OK;
}

static void checkpoint(struct kit *k)
{
    assert_int_equal(db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &k->msg), 0);
}

static void add_rows(struct kit *k, uint32_t rows)
{
    const db_catalog *catalog = db_catalog_acquire(k->d);
    struct db_rows_builder b;
    struct chr_random random = {.state = k->index};
    assert_int_equal(db_rows_init(&b, db_catalog_find_id(catalog, k->table), rows), 0);
    for (uint32_t r = 0; r < rows; r++) {
        char name[16];
        snprintf(name, sizeof name, "d%u", (unsigned)(r % 7));
        assert_int_equal(db_rows_put_bytes(&b, 0, chr_slice_cstr(name)), 0);
        db_rows_put_i64(&b, 1, (int64_t)k->index * 1000 + r);
        db_rows_put_i64(&b, 2, (int64_t)chr_random_u64(&random));
        assert_int_equal(db_rows_end(&b, 1, NULL), 0);
    }
    db_rows_finish(&b, DB_ROWS_INSERT, &k->entry);
    db_rows_free(&b);
    db_catalog_release(catalog);
    apply(k);
}

static int setup(void **state)
{
    struct kit *k = calloc(1, sizeof *k);
    k->limits = db__snapshot_limits;
    k->store = fake_kv_new(1);
    k->kv = fake_kv_seam(k->store);
    db_options_default(&k->options);
    k->options.chunk_rows_max = 500;
    assert_int_equal(db_open(&k->kv, &k->options, &k->d, &k->msg), 0);
    db_entry_init(&k->entry, DB_ENTRY_BYTES_MAX);
    chr_buf_init(&k->part, DB_SNAPSHOT_PART_BYTES_MAX);
    db_entry_begin(&k->entry, 0, 0);
    struct db_column_def columns[] = {{.type = DB_STRING, .name = "s"},
                                      {.type = DB_TIMESTAMP, .name = "ts"},
                                      {.type = DB_INT, .name = "v"}};
    struct db_table_def t = {.name = "t", .columns = columns, .columns_count = 3};
    assert_int_equal(db_table_def_complete(&t, NULL), 0);
    assert_int_equal(db_entry_add_create_table(&k->entry, &t, false), 0);
    apply(k);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct kit *k = *state;
    db_snapshot_end(k->snapshot);
    db_close(k->d);
    fake_kv_free(k->store);
    db_entry_free(&k->entry);
    chr_buf_free(&k->part);
    db__snapshot_limits = k->limits;
    free(k);
    return 0;
}

static chr_err begin(struct kit *k)
{
    k->msg.text[0] = 0;
    return db_snapshot_begin(k->d, kit_spool(), kit_describe, NULL, &k->snapshot, &k->msg);
}

static void end(struct kit *k)
{
    db_snapshot_end(k->snapshot);
    k->snapshot = NULL;
}

static chr_slice part(struct kit *k, uint64_t number)
{
    assert_int_equal(db_snapshot_part(k->snapshot, number, &k->part, &k->msg), 0);
    return chr_buf_slice(&k->part);
}

/* 20 chunks, a tail, marks. */
static void some_state(struct kit *k)
{
    for (int i = 0; i < 10; i++) {
        add_rows(k, 1003);
        struct db_row_id ids[] = {{k->index, 3}, {k->index, 700}};
        if (i % 3 == 0) {
            db_entry_add_delete(&k->entry, k->table, ids, 2);
            apply(k);
        }
        checkpoint(k);
    }
}

static uint64_t parts_in_store(struct kit *k)
{
    uint8_t prefix = DB__RECORD_PART;
    db_kv_txn *txn;
    db_kv_cursor *cursor;
    chr_slice key, value;
    uint64_t count = 0;
    assert_int_equal(k->kv.begin(k->kv.ctx, false, &txn), 0);
    assert_int_equal(k->kv.cursor_open(k->kv.ctx, txn, chr_slice_of(&prefix, 1),
                                       chr_slice_of(&prefix, 1), &cursor),
                     0);
    while (!k->kv.cursor_next(k->kv.ctx, cursor, &key, &value))
        count++;
    k->kv.cursor_close(k->kv.ctx, cursor);
    k->kv.abort(k->kv.ctx, txn);
    return count;
}

/* -- The sender ---------------------------------------------------------------------------------*/

static void test_no_checkpoint(void **state)
{
    struct kit *k = *state;
    assert_int_equal(begin(k), CHR_ENOTFOUND);
    assert_non_null(strstr(k->msg.text, "no checkpoint"));
    assert_null(k->snapshot);
    checkpoint(k);
    assert_int_equal(begin(k), CHR_OK);
    const struct db_snapshot_info *info = db_snapshot_info(k->snapshot);
    assert_int_equal(info->index, k->index);
    assert_int_equal(info->parts, 3);
    assert_int_equal(db_snapshot_part(k->snapshot, 3, &k->part, &k->msg), CHR_EINVAL);
}

static chr_err refuse(void *arg, uint64_t index, struct db_snapshot_origin *origin)
{
    return CHR_ECLOSED;
}

static void test_describe_refuses(void **state)
{
    struct kit *k = *state;
    checkpoint(k);
    assert_int_equal(db_snapshot_begin(k->d, kit_spool(), refuse, NULL, &k->snapshot, &k->msg),
                     CHR_ECLOSED);
}

static void test_first_part(void **state)
{
    struct kit *k = *state;
    some_state(k);
    assert_int_equal(begin(k), CHR_OK);
    struct db_snapshot_info info;
    assert_int_equal(db_snapshot_part_info(part(k, 0), &info, &k->msg), CHR_OK);
    const struct db_snapshot_info *want = db_snapshot_info(k->snapshot);
    assert_int_equal(info.id, want->id);
    assert_int_equal(info.index, k->index);
    assert_int_equal(info.hlc, (UINT64_C(1700000000000) + k->index) << 16);
    assert_int_equal(info.parts, want->parts);
    assert_int_equal(info.records, want->records);
    assert_int_equal(info.bytes, want->bytes);
    assert_int_equal(info.origin.cluster, KIT_CLUSTER);
    assert_int_equal(info.origin.incarnation, KIT_INCARNATION);
    assert_int_equal(info.origin.term, KIT_TERM);
    assert_int_equal(info.origin.members_index, k->index / 2);
    assert_true(chr_slice_eq(info.origin.members, CHR_LIT("members")));
    assert_int_equal(db_snapshot_part_info(part(k, 1), &info, &k->msg), CHR_EMALFORMED);
}

/* S1, S2: any order, any time, whatever the database does meanwhile. */
static void test_parts_stay(void **state)
{
    struct kit *k = *state;
    struct chr_random random = {.state = 1};
    some_state(k);
    db__snapshot_limits.part_bytes = 3000;
    db__snapshot_limits.place_every = 4;
    assert_int_equal(begin(k), CHR_OK);
    uint64_t parts = db_snapshot_info(k->snapshot)->parts;
    uint32_t *crc = calloc(parts, sizeof *crc);
    uint64_t records = 0;
    assert_true(parts > 50);
    for (uint64_t i = 0; i < parts; i++) {
        chr_slice bytes = part(k, i), key, value;
        crc[i] = chr_crc32c(0, bytes.ptr, bytes.len);
        assert_int_equal(db_snapshot_part_bytes(bytes.ptr), bytes.len);
        size_t at = 0, in_part = 0;
        chr_slice body =
            chr_slice_of(bytes.ptr + DB_SNAPSHOT_HEAD_BYTES, bytes.len - DB_SNAPSHOT_HEAD_BYTES);
        while (i && db__snapshot_record_next(body, &at, &key, &value) > 0)
            in_part++;
        assert_true(bytes.len <= 3000 || in_part == 1);
        records += in_part;
    }
    assert_int_equal(records, db_snapshot_info(k->snapshot)->records);
    for (int round = 0; round < 300; round++) {
        uint64_t i = chr_random_below(&random, parts);
        chr_slice bytes = part(k, i);
        assert_int_equal(chr_crc32c(0, bytes.ptr, bytes.len), crc[i]);
        if (round % 50 == 0) { /* everything is rewritten, then the table goes */
            add_rows(k, 600);
            checkpoint(k);
        } else if (round == 160) {
            db_entry_add_drop_table(&k->entry, k->table);
            apply(k);
            k->table = UINT32_MAX;
            checkpoint(k);
            break;
        }
    }
    for (uint64_t i = 0; i < parts; i++) {
        chr_slice bytes = part(k, i);
        assert_int_equal(chr_crc32c(0, bytes.ptr, bytes.len), crc[i]);
    }
    /* What it held goes with the next checkpoint. */
    assert_true(parts_in_store(k) > 0);
    end(k);
    checkpoint(k);
    assert_int_equal(parts_in_store(k), 0);
    free(crc);
}

/* A table is dropped between the checkpoint and the pin: it is in the snapshot. */
static void test_dropped_since(void **state)
{
    struct kit *k = *state;
    struct chr_random random = {.state = 5};
    struct transfer t = {0};
    some_state(k);
    uint64_t index = k->index;
    db_entry_add_drop_table(&k->entry, k->table);
    apply(k);
    assert_int_equal(transfer_begin(&t, k->d, 1), 0);
    checkpoint(k);
    while (!transfer_pump(&t, &random, 100))
        ;
    fake_kv *store = transfer_finish(&t);
    struct db_kv kv = fake_kv_seam(store);
    db *copy;
    uint64_t findings;
    assert_int_equal(db_open(&kv, &k->options, &copy, &k->msg), 0);
    assert_int_equal(db_apply_index(copy), index);
    const db_catalog *catalog = db_catalog_acquire(copy);
    assert_non_null(db_catalog_find(catalog, CHR_LIT("t")));
    db_catalog_release(catalog);
    assert_int_equal(db_check(copy, NULL, NULL, &findings), 0);
    assert_int_equal(findings, 0);
    db_close(copy);
    fake_kv_free(store);
}

/* S3: a damaged value is not sent. */
static void test_damage_is_not_sent(void **state)
{
    struct kit *k = *state;
    int small = 0, chunks = 0;
    some_state(k);
    db_close(k->d);
    k->d = NULL;
    for (uint64_t seed = 0; seed < 60; seed++) {
        fake_kv *copy = fake_kv_copy(k->store, seed);
        struct db_kv kv = fake_kv_seam(copy);
        db *d;
        /* The database is open when the disk goes bad. */
        assert_int_equal(db_open(&kv, &k->options, &d, &k->msg), 0);
        assert_true(fake_kv_flip_bit(copy));
        chr_err err = db_snapshot_begin(d, kit_spool(), kit_describe, NULL, &k->snapshot, &k->msg);
        assert_true(!err || err == CHR_ECORRUPT);
        small += err != CHR_OK;
        for (uint64_t i = 0; !err && i < db_snapshot_info(k->snapshot)->parts; i++)
            err = db_snapshot_part(k->snapshot, i, &k->part, &k->msg);
        assert_int_equal(err, CHR_ECORRUPT);
        assert_non_null(strstr(k->msg.text, "damaged"));
        chunks += k->snapshot != NULL;
        end(k);
        db_close(d);
        fake_kv_free(copy);
    }
    assert_true(small > 0 && chunks > 0);
}

static void test_no_room_to_spool(void **state)
{
    struct kit *k = *state;
    checkpoint(k);
    int fd = open("/dev/full", O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(db_snapshot_begin(k->d, fd, kit_describe, NULL, &k->snapshot, &k->msg),
                     CHR_ENOSPC);
    assert_int_equal(begin(k), CHR_OK);
}

/* -- The receiver -------------------------------------------------------------------------------*/

static db_snapshot_receiver *receiver(struct kit *k, const struct db_kv *kv)
{
    db_snapshot_receiver *r;
    assert_int_equal(db_snapshot_receiver_begin(kv, &r, &k->msg), CHR_OK);
    return r;
}

static chr_err put(struct kit *k, db_snapshot_receiver *r, chr_slice bytes)
{
    return db_snapshot_receiver_put(r, bytes, &k->msg);
}

/* Every bit of every part matters. */
static void test_flipped_bits(void **state)
{
    struct kit *k = *state;
    add_rows(k, 20);
    checkpoint(k);
    assert_int_equal(begin(k), CHR_OK);
    db_snapshot_receiver *r = receiver(k, NULL);
    for (uint64_t i = 0; i < db_snapshot_info(k->snapshot)->parts; i++) {
        (void)part(k, i);
        for (size_t bit = 0; bit < k->part.len * 8; bit++) {
            k->part.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
            chr_err err = put(k, r, chr_buf_slice(&k->part));
            assert_true(err == CHR_EMALFORMED || err == CHR_ECORRUPT);
            k->part.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (size_t len = 0; len < k->part.len; len++)
            assert_int_equal(put(k, r, chr_slice_of(k->part.ptr, len)), CHR_EMALFORMED);
        assert_int_equal(put(k, r, chr_buf_slice(&k->part)), CHR_OK);
    }
    assert_int_equal(db_snapshot_receiver_finish(r, &k->msg), CHR_OK);
    db_snapshot_receiver_end(r);
}

static void test_order(void **state)
{
    struct kit *k = *state;
    some_state(k);
    db__snapshot_limits.part_bytes = 3000;
    assert_int_equal(begin(k), CHR_OK);
    const uint64_t parts = db_snapshot_info(k->snapshot)->parts;
    db_snapshot_receiver *r = receiver(k, NULL);
    assert_null(db_snapshot_receiver_info(r));
    assert_int_equal(put(k, r, part(k, 1)), CHR_ENOTFOUND);
    for (uint64_t i = 0; i < parts; i++) {
        assert_int_equal(db_snapshot_receiver_finish(r, &k->msg), CHR_ENOTFOUND);
        assert_int_equal(db_snapshot_receiver_next(r), i);
        if (i + 1 < parts)
            assert_int_equal(put(k, r, part(k, i + 1)), CHR_ENOTFOUND);
        assert_int_equal(put(k, r, part(k, i)), CHR_OK);
        assert_int_equal(put(k, r, part(k, i)), CHR_EEXIST);
        assert_int_equal(db_snapshot_receiver_info(r)->id, db_snapshot_info(k->snapshot)->id);
    }
    end(k); /* another one of the same checkpoint is another one */
    assert_int_equal(begin(k), CHR_OK);
    assert_int_equal(put(k, r, part(k, 0)), CHR_EFOREIGN);
    assert_int_equal(put(k, r, part(k, parts - 1)), CHR_EFOREIGN);
    assert_int_equal(db_snapshot_receiver_finish(r, &k->msg), CHR_OK);
    db_snapshot_receiver_end(r);
}

/* S4 */
static void test_resumes(void **state)
{
    struct kit *k = *state;
    some_state(k);
    db__snapshot_limits.part_bytes = 3000;
    db__snapshot_limits.commit_bytes = 10000;
    assert_int_equal(begin(k), CHR_OK);
    const uint64_t parts = db_snapshot_info(k->snapshot)->parts;
    fake_kv *store = fake_kv_new(2);
    struct db_kv kv = fake_kv_seam(store);
    uint64_t highest = 0, before = 0;
    for (int life = 0; highest < parts; life++) {
        db_snapshot_receiver *r = receiver(k, &kv);
        uint64_t from = db_snapshot_receiver_next(r);
        assert_true(from <= highest && (life == 0 || from > before));
        before = from;
        for (uint64_t i = from; i < parts && i < from + 13; i++) {
            assert_int_equal(put(k, r, part(k, i)), CHR_OK);
            highest = i + 1;
        }
        if (highest == parts)
            assert_int_equal(db_snapshot_receiver_finish(r, &k->msg), CHR_OK);
        db_snapshot_receiver_end(r);
        db *d; /* before the end: nothing is there that anybody would take for a state */
        if (highest < parts) {
            fake_kv *half = fake_kv_copy(store, 1);
            struct db_kv half_kv = fake_kv_seam(half);
            assert_int_equal(db_open(&half_kv, &k->options, &d, &k->msg), CHR_OK);
            assert_int_equal(db_apply_index(d), 0);
            db_close(d);
            fake_kv_free(half);
        }
    }
    db_snapshot_receiver *r;
    assert_int_equal(db_snapshot_receiver_begin(&kv, &r, &k->msg), CHR_EEXIST);
    db *d;
    assert_int_equal(db_open(&kv, &k->options, &d, &k->msg), CHR_OK);
    assert_int_equal(db_apply_index(d), k->index);
    db_close(d);
    fake_kv_free(store);
}

/* Parts that nobody sends, with checksums that are right. */

static void forge_begin(struct kit *k)
{
    db__snapshot_part_begin(&k->part);
}

static void forge_record(struct kit *k, const char *key, size_t key_len, char kind)
{
    uint8_t value[12] = {[4] = 1, [5] = (uint8_t)kind};
    chr_put_u32le(value, chr_crc32c(0, value + 4, sizeof value - 4));
    db__snapshot_record_add(&k->part, chr_slice_of((const uint8_t *)key, key_len),
                            chr_slice_of(value, sizeof value));
}

static chr_slice forge_end(struct kit *k, enum db__snapshot_kind kind, uint64_t number)
{
    db__snapshot_part_end(&k->part, kind, number, 1);
    return chr_buf_slice(&k->part);
}

static db_snapshot_receiver *forge_receiver(struct kit *k, uint64_t records, uint64_t bytes)
{
    struct db_snapshot_info info = {
        .id = 1, .index = 9, .parts = 4, .records = records, .bytes = bytes};
    db_snapshot_receiver *r = receiver(k, NULL);
    db__snapshot_first_encode(&info, &k->part);
    assert_int_equal(put(k, r, chr_buf_slice(&k->part)), CHR_OK);
    return r;
}

static void test_forged(void **state)
{
    struct kit *k = *state;
    static const struct {
        const char *key;
        size_t len;
        char kind;
        chr_err err;
    } cases[] = {
        {"m", 1, 'm', CHR_OK},
        {"m", 1, 's', CHR_ECORRUPT},              /* a value of another kind */
        {"m12345678", 9, 'm', CHR_ECORRUPT},      /* a key of another length */
        {"s12345678", 9, 's', CHR_OK},            /* */
        {"g12345678", 9, 'g', CHR_ECORRUPT},      /* never sent */
        {"~", 1, '~', CHR_ECORRUPT},              /* the receiver's own */
        {"x", 1, 'x', CHR_ECORRUPT},              /* nobody's */
        {"d12345678Hab", 12, 'H', CHR_OK},        /* a part of a chunk */
        {"d12345678Xab", 12, 'X', CHR_ECORRUPT},  /* of an unknown kind */
        {"d12345678Hab", 12, 'C', CHR_ECORRUPT},  /* of another one */
        {"d12345678Habc", 13, 'H', CHR_ECORRUPT}, /* too long */
        {"e1234567812345678", 17, 'e', CHR_OK},   /* */
        {"t1234", 5, 't', CHR_OK},                /* */
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++) {
        db_snapshot_receiver *r = forge_receiver(k, 100, 10000);
        forge_begin(k);
        forge_record(k, cases[i].key, cases[i].len, cases[i].kind);
        assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 1)), cases[i].err);
        db_snapshot_receiver_end(r);
    }
    /* Twice, or out of order; chunks come last. */
    static const char *const pairs[][2] = {{"m", "m"}, {"t1235", "t1234"}, {"d12345678Hab", "m"}};
    for (size_t i = 0; i < CHR_COUNT_OF(pairs); i++) {
        db_snapshot_receiver *r = forge_receiver(k, 100, 10000);
        forge_begin(k);
        for (int n = 0; n < 2; n++)
            forge_record(k, pairs[i][n], strlen(pairs[i][n]),
                         pairs[i][n][0] == 'd' ? 'H' : pairs[i][n][0]);
        assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 1)), CHR_EMALFORMED);
        db_snapshot_receiver_end(r);
    }
    /* More than announced, in number or in bytes; what is left over; the end too early, or with
     * something in it. */
    db_snapshot_receiver *r = forge_receiver(k, 0, 10000);
    forge_begin(k);
    forge_record(k, "m", 1, 'm');
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 1)), CHR_EMALFORMED);
    db_snapshot_receiver_end(r);
    r = forge_receiver(k, 2, 13);
    forge_begin(k);
    forge_record(k, "m", 1, 'm');
    chr_buf_add_u8(&k->part, 0);
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 1)), CHR_EMALFORMED);
    forge_begin(k);
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_LAST, 1)), CHR_EMALFORMED);
    forge_begin(k);
    forge_record(k, "m", 1, 'm');
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 1)), CHR_OK);
    forge_begin(k);
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 2)), CHR_OK);
    forge_begin(k);
    chr_buf_add_u8(&k->part, 0);
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_LAST, 3)), CHR_EMALFORMED);
    forge_begin(k);
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_LAST, 3)), CHR_EMALFORMED); /* 1 of 2 */
    db_snapshot_receiver_end(r);
    /* Meta that is none. */
    r = forge_receiver(k, 1, 13);
    forge_begin(k);
    forge_record(k, "m", 1, 'm');
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 1)), CHR_OK);
    forge_begin(k);
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_RECORDS, 2)), CHR_OK);
    forge_begin(k);
    assert_int_equal(put(k, r, forge_end(k, DB__SNAPSHOT_LAST, 3)), CHR_OK);
    assert_int_equal(db_snapshot_receiver_finish(r, &k->msg), CHR_EMALFORMED);
    db_snapshot_receiver_end(r);
}

static void test_newer_version(void **state)
{
    struct kit *k = *state;
    struct db_snapshot_info info = {.id = 1, .parts = 3};
    db__snapshot_first_encode(&info, &k->part);
    k->part.ptr[DB_SNAPSHOT_HEAD_BYTES]++;
    db__snapshot_part_end(&k->part, DB__SNAPSHOT_FIRST, 0, 1);
    db_snapshot_receiver *r = receiver(k, NULL);
    assert_int_equal(put(k, r, chr_buf_slice(&k->part)), CHR_EVERSION);
    assert_non_null(strstr(k->msg.text, "version 2"));
    db_snapshot_receiver_end(r);
}

/* -- On LMDB ------------------------------------------------------------------------------------*/

static void test_lmdb(void **state)
{
    struct kit *k = *state;
    char path[64];
    struct db_kv kv;
    tmpdir_make(path, sizeof path);
    some_state(k);
    assert_int_equal(begin(k), CHR_OK);
    assert_int_equal(db_kv_lmdb_open(path, 64u << 20, &kv, &k->msg), CHR_OK);
    db_snapshot_receiver *r = receiver(k, &kv);
    for (uint64_t i = 0; i < db_snapshot_info(k->snapshot)->parts; i++)
        assert_int_equal(put(k, r, part(k, i)), CHR_OK);
    assert_int_equal(db_snapshot_receiver_finish(r, &k->msg), CHR_OK);
    db_snapshot_receiver_end(r);
    end(k);
    db *d;
    uint64_t findings;
    assert_int_equal(db_open(&kv, &k->options, &d, &k->msg), CHR_OK);
    assert_int_equal(db_check(d, NULL, NULL, &findings), CHR_OK);
    assert_int_equal(findings, 0);
    struct db_stats here, there;
    db_stats(k->d, &there);
    db_stats(d, &here);
    assert_int_equal(here.chunk_rows + here.tail_rows, there.chunk_rows + there.tail_rows);
    /* And from LMDB into another one. */
    assert_int_equal(db_snapshot_begin(d, kit_spool(), kit_describe, NULL, &k->snapshot, &k->msg),
                     CHR_OK);
    r = receiver(k, NULL);
    for (uint64_t i = 0; i < db_snapshot_info(k->snapshot)->parts; i++)
        assert_int_equal(put(k, r, part(k, i)), CHR_OK);
    assert_int_equal(db_snapshot_receiver_finish(r, &k->msg), CHR_OK);
    db_snapshot_receiver_end(r);
    end(k);
    db_close(d);
    db_kv_lmdb_close(&kv);
    tmpdir_remove(path);
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(no_checkpoint),
        TEST(describe_refuses),
        TEST(first_part),
        TEST(parts_stay),
        TEST(dropped_since),
        TEST(damage_is_not_sent),
        TEST(no_room_to_spool),
        TEST(flipped_bits),
        TEST(order),
        TEST(resumes),
        TEST(forged),
        TEST(newer_version),
        TEST(lmdb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
