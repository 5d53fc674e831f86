/* tests/db/test_durable.c: what db/durable.h and its operations promise one by one; the model test
 * (test_durable_model.c) lives through their combinations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/random.h"
#include "db/internal.h"
#include "db/value_crc.h"
#include "tests/sim/fake_kv.h"

#define MS(ms) ((chr_hlc)(UINT64_C(1700000000000) + (ms)) << 16)

struct kit {
    fake_kv *store;
    struct db_kv kv;
    db *d;
    uint64_t index, epoch; /* of the session "c" */
    chr_hlc hlc;
    struct db_entry entry;
    struct db_apply_result result;
};

static void kit_open(struct kit *k)
{
    struct db_options options;
    struct chr_errmsg msg = {.text = ""};
    db_options_default(&options);
    if (db_open(&k->kv, &options, &k->d, &msg))
        fail_msg("%s", msg.text);
}

static void apply(struct kit *k)
{
    assert_int_equal(db_entry_end(&k->entry), 0);
    k->hlc += 1 << 16;
    db_apply(k->d, ++k->index, k->hlc, chr_buf_slice(&k->entry.bytes), &k->result);
    db_entry_begin(&k->entry, 0, 0);
}

static void open_session(struct kit *k, const char *client, const struct db_will *will)
{
    db_entry_add_session_open(
        &k->entry, &(struct db_session_open){
                       .client_id = chr_slice_cstr(client), .expiry_s = 3600, .will = will});
    apply(k);
    assert_int_equal(k->result.ops[0].err, 0);
    k->epoch = k->result.ops[0].epoch;
}

static void subscribe(struct kit *k, const char *filter, uint8_t qos)
{
    db_entry_add_subscribe(
        &k->entry, k->epoch, 1,
        &(struct db_subscription){.filter = chr_slice_cstr(filter), .qos = qos, .id = 7}, 1);
    apply(k);
    assert_int_equal(k->result.ops[0].err, 0);
    assert_int_equal(k->result.ops[0].rows, 1);
}

static void add_message(struct kit *k, const char *topic, chr_slice payload, bool retain)
{
    db_entry_add_message(&k->entry, &(struct db_publish){.topic = chr_slice_cstr(topic),
                                                         .payload = payload,
                                                         .qos = 2,
                                                         .retain = retain,
                                                         .expiry_s = UINT32_MAX,
                                                         .guard = UINT32_MAX});
}

static int setup(void **state)
{
    struct kit *k = calloc(1, sizeof *k);
    k->store = fake_kv_new(1);
    k->kv = fake_kv_seam(k->store);
    k->hlc = MS(0);
    db_entry_init(&k->entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&k->entry, 0, 0);
    kit_open(k);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct kit *k = *state;
    db_close(k->d);
    fake_kv_free(k->store);
    db_entry_free(&k->entry);
    free(k);
    return 0;
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

static void checkpoint(struct kit *k)
{
    assert_int_equal(db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, synced, NULL, 0, NULL), 0);
}

static void restart(struct kit *k)
{
    db_close(k->d);
    kit_open(k);
}

static uint64_t findings(struct kit *k)
{
    uint64_t n;
    assert_int_equal(db_check(k->d, NULL, NULL, &n), 0);
    return n;
}

/* Records of a kind in the store; the key of the last. */
static size_t records(struct kit *k, enum db__record kind, struct db__store_key *last)
{
    uint8_t prefix = (uint8_t)kind;
    db_kv_txn *txn;
    db_kv_cursor *cursor;
    chr_slice key, value;
    size_t n = 0;
    assert_int_equal(k->kv.begin(k->kv.ctx, false, &txn), 0);
    assert_int_equal(k->kv.cursor_open(k->kv.ctx, txn, chr_slice_of(&prefix, 1),
                                       chr_slice_of(&prefix, 1), &cursor),
                     0);
    for (; !k->kv.cursor_next(k->kv.ctx, cursor, &key, &value); n++)
        if (last) {
            memcpy(last->bytes, key.ptr, key.len);
            last->len = (uint8_t)key.len;
        }
    k->kv.cursor_close(k->kv.ctx, cursor);
    k->kv.abort(k->kv.ctx, txn);
    return n;
}

static void put(struct kit *k, const struct db__store_key *key, chr_slice value)
{
    db_kv_txn *txn;
    assert_int_equal(k->kv.begin(k->kv.ctx, true, &txn), 0);
    if (value.ptr)
        assert_int_equal(k->kv.put(k->kv.ctx, txn, db__key_slice(key), value), 0);
    else
        assert_int_equal(k->kv.del(k->kv.ctx, txn, db__key_slice(key)), 0);
    assert_int_equal(k->kv.commit(k->kv.ctx, txn), 0);
}

static void release(struct db_queue_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        db_message_unref(items[i].message);
        free(items[i].ids);
    }
}

/* -- Storing ------------------------------------------------------------------------------------*/

static void test_stored_once(void **state)
{
    struct kit *k = *state;
    for (int i = 0; i < 50; i++) {
        char name[8];
        snprintf(name, sizeof name, "c%d", i);
        open_session(k, name, NULL);
        subscribe(k, i % 2 ? "a/#" : "+/b", 1);
    }
    add_message(k, "a/b", CHR_LIT("payload"), false);
    apply(k);
    assert_int_equal(k->result.ops[0].rows, 50);
    assert_int_equal(k->result.woken_count, 50);
    checkpoint(k);
    assert_int_equal(records(k, DB__RECORD_MESSAGE, NULL), 1);
    assert_int_equal(records(k, DB__RECORD_QUEUE, NULL), 50);
    restart(k);
    struct db_durable_stats stats;
    db_durable_stats(k->d, &stats);
    assert_int_equal(stats.messages, 1);
    assert_int_equal(stats.queued_count, 50);
    /* All but one acknowledge it: still there; the last one: gone. */
    for (int i = 0; i < 50; i++) {
        struct db_sequence_range all = {1, UINT64_MAX};
        uint64_t epoch = (uint64_t)(1 + 2 * i) << 16;
        if (i == 49) {
            checkpoint(k);
            assert_int_equal(records(k, DB__RECORD_MESSAGE, NULL), 1);
        }
        db_entry_add_queue_ack(&k->entry, epoch, 1, &all, 1, NULL, 0);
        apply(k);
        assert_int_equal(k->result.ops[0].rows, 1);
    }
    checkpoint(k);
    assert_int_equal(records(k, DB__RECORD_MESSAGE, NULL), 0);
    assert_int_equal(records(k, DB__RECORD_QUEUE, NULL), 0);
    assert_int_equal(findings(k), 0);
}

static void test_acknowledged_before_a_checkpoint_is_never_written(void **state)
{
    struct kit *k = *state;
    struct db_sequence_range all = {1, UINT64_MAX};
    open_session(k, "c", NULL);
    subscribe(k, "#", 2);
    add_message(k, "a", CHR_LIT("x"), false);
    db_entry_add_queue_ack(&k->entry, k->epoch, 1, &all, 1, NULL, 0);
    apply(k);
    uint64_t commits = fake_kv_commits(k->store);
    checkpoint(k);
    assert_int_equal(fake_kv_commits(k->store), commits + 1); /* nothing ahead */
    assert_int_equal(records(k, DB__RECORD_MESSAGE, NULL), 0);
    /* Its number is not given again, also after a restart (M2). */
    restart(k);
    add_message(k, "a", CHR_LIT("y"), false);
    apply(k);
    struct db_queue_item item;
    assert_int_equal(db_queue_read(k->d, k->epoch, 0, &item, 1, 1), 1);
    assert_int_equal(item.sequence, 2);
    release(&item, 1);
}

static void test_long_waiting_bodies_leave_memory(void **state)
{
    struct kit *k = *state;
    enum { BYTES = 100000, COUNT = 100 };
    uint8_t *payload = malloc(BYTES);
    struct db_durable_stats stats;
    open_session(k, "c", NULL);
    subscribe(k, "#", 1);
    for (int i = 0; i < COUNT; i++) {
        memset(payload, i, BYTES);
        add_message(k, "a", chr_slice_of(payload, BYTES), i == 0);
        apply(k);
    }
    struct db_stats before, after;
    db_stats(k->d, &before);
    assert_true(before.hot_bytes >= (uint64_t)BYTES * COUNT);
    checkpoint(k);
    db_stats(k->d, &after);
    assert_true(after.hot_bytes < BYTES);
    db_durable_stats(k->d, &stats);
    assert_true(stats.memory_bytes <= DB__CACHE_BYTES + 2 * BYTES);
    struct db_queue_item items[COUNT];
    size_t n = db_queue_read(k->d, k->epoch, 0, items, COUNT, UINT64_MAX);
    assert_int_equal(n, COUNT);
    for (size_t i = 0; i < n; i++) {
        memset(payload, (int)i, BYTES);
        assert_non_null(items[i].message);
        assert_true(chr_slice_eq(items[i].message->payload, chr_slice_of(payload, BYTES)));
        assert_int_equal(items[i].ids_count, 1);
        assert_int_equal(items[i].ids[0], 7);
    }
    release(items, n);
    /* Bounded by bytes: one at least. */
    n = db_queue_read(k->d, k->epoch, 0, items, COUNT, 3 * BYTES);
    assert_int_equal(n, 2);
    release(items, n);
    assert_int_equal(findings(k), 0);
    free(payload);
}

static void test_leftovers_of_a_checkpoint_that_was_not(void **state)
{
    struct kit *k = *state;
    open_session(k, "c", NULL);
    subscribe(k, "#", 1);
    add_message(k, "a", CHR_LIT("x"), false);
    apply(k);
    fake_kv_faults(k->store)->enospc_at = fake_kv_commits(k->store) + 2; /* the last one */
    assert_int_equal(db_checkpoint(k->d, DB_CHECKPOINT_REQUEST, synced, NULL, 0, NULL), CHR_ENOSPC);
    assert_int_equal(records(k, DB__RECORD_MESSAGE, NULL), 1);
    restart(k); /* and the log is lost, too */
    assert_int_equal(db_apply_index(k->d), 0);
    assert_int_equal(records(k, DB__RECORD_MESSAGE, NULL), 0);
}

/* -- Damage and old versions --------------------------------------------------------------------*/

static void test_damaged_body(void **state)
{
    struct kit *k = *state;
    struct db__store_key key;
    open_session(k, "c", NULL);
    subscribe(k, "#", 1);
    add_message(k, "a", CHR_LIT("x"), false);
    apply(k);
    checkpoint(k);
    assert_int_equal(records(k, DB__RECORD_MESSAGE, &key), 1);
    put(k, &key, CHR_LIT("this is no message at all"));
    restart(k);
    struct db_queue_item item;
    assert_int_equal(db_queue_read(k->d, k->epoch, 0, &item, 1, 1), 1);
    assert_null(item.message);
    assert_int_equal(item.error, CHR_ECORRUPT);
    assert_int_equal(item.sequence, 1);
    free(item.ids);
    assert_int_equal(findings(k), 1);
    put(k, &key, (chr_slice){0});
    assert_int_equal(findings(k), 1); /* referred to, not there */
}

static void test_damaged_records(void **state)
{
    struct kit *k = *state;
    static const enum db__record kinds[] = {DB__RECORD_QUEUE, DB__RECORD_SUBSCRIPTION,
                                            DB__RECORD_RETAINED, DB__RECORD_WILL};
    struct db_will will = {.topic = CHR_LIT("w"), .message_expiry_s = UINT32_MAX};
    struct db_options options;
    db_options_default(&options);
    open_session(k, "c", &will);
    subscribe(k, "#", 1);
    add_message(k, "a", CHR_LIT("x"), true);
    apply(k);
    checkpoint(k);
    for (size_t i = 0; i < CHR_COUNT_OF(kinds); i++) {
        struct db__store_key key, strange;
        fake_kv *copy = fake_kv_copy(k->store, 1);
        struct kit other = {.store = copy, .kv = fake_kv_seam(copy)};
        struct chr_errmsg msg = {.text = ""};
        db *d;
        assert_int_equal(records(&other, kinds[i], &key), 1);
        /* A good value under another's key, then garbage under its own. */
        uint8_t value[512];
        db_kv_txn *txn;
        chr_slice stored;
        assert_int_equal(other.kv.begin(other.kv.ctx, false, &txn), 0);
        assert_int_equal(other.kv.get(other.kv.ctx, txn, db__key_slice(&key), &stored), 0);
        size_t len = stored.len;
        memcpy(value, stored.ptr, len);
        other.kv.abort(other.kv.ctx, txn);
        strange = key;
        strange.bytes[strange.len - 1] ^= 0x11;
        put(&other, &strange, chr_slice_of(value, len));
        put(&other, &key, (chr_slice){0});
        assert_int_equal(db_open(&other.kv, &options, &d, &msg), CHR_ECORRUPT);
        assert_non_null(strstr(msg.text, "is damaged"));
        put(&other, &strange, (chr_slice){0});
        value[len - 1] ^= 1;
        put(&other, &key, chr_slice_of(value, len));
        assert_int_equal(db_open(&other.kv, &options, &d, &msg), CHR_ECORRUPT);
        fake_kv_free(copy);
    }
}

/* Entries and stores as written before there were queues. */
static void test_earlier_versions(void **state)
{
    struct kit *k = *state;
    static const uint8_t entry[] = {
        1,   0,   0,   0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* one operation */
        40,  0,   0,   0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, /* SESSION_OPEN */
        60,  0,   0,   0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, /* 60 s, 3 bytes */
        'o', 'l', 'd', 0, 0, 0, 0, 0};
    static const uint8_t close[] = {1,  0, 0, 0, 1, 0, 0, 0, 0,   0,   0,   0, 0, 0, 0, 0,
                                    48, 0, 0, 0, 7, 0, 0, 0, 0,   0,   0,   0, 1, 0, 0, 0,
                                    0,  0, 1, 0, 0, 0, 0, 0, 1,   0,   0,   0, 5, 0, 0, 0,
                                    3,  0, 0, 0, 0, 0, 0, 0, 'o', 'l', 'd', 0, 0, 0, 0, 0};
    k->hlc += 1 << 16;
    db_apply(k->d, ++k->index, k->hlc, chr_slice_of(entry, sizeof entry), &k->result);
    assert_int_equal(k->result.ops[0].err, 0);
    assert_int_equal(k->result.ops[0].epoch, 1 << 16);
    k->hlc += 1 << 16;
    db_apply(k->d, ++k->index, k->hlc, chr_slice_of(close, sizeof close), &k->result);
    assert_int_equal(k->result.ops[0].err, 0);
    struct db_session_info info;
    assert_true(db_session_read(k->d, 1 << 16, &info));
    assert_false(info.connected);
    assert_int_equal(info.next_sequence, 1);
    checkpoint(k);
    /* Version 1 of the store had neither the new records nor the new fields. */
    struct db__store_key key = db__store_key(DB__RECORD_META, 0);
    struct chr_buf buf;
    chr_slice stored;
    chr_err err;
    db_kv_txn *txn;
    chr_buf_init(&buf, 4096);
    assert_int_equal(k->kv.begin(k->kv.ctx, false, &txn), 0);
    assert_int_equal(k->kv.get(k->kv.ctx, txn, db__key_slice(&key), &stored), 0);
    Chronos__Catalog__Meta *meta = (Chronos__Catalog__Meta *)db__value_unpack(
        stored, DB__RECORD_META, &chronos__catalog__meta__descriptor, &err, NULL);
    k->kv.abort(k->kv.ctx, txn);
    assert_non_null(meta);
    assert_int_equal(meta->format_version, 2);
    meta->format_version = 1;
    assert_int_equal(db__value_pack(&buf, DB__RECORD_META, &meta->base), 0);
    put(k, &key, chr_buf_slice(&buf));
    restart(k);
    assert_true(db_session_read(k->d, 1 << 16, &info));
    meta->format_version = 3;
    assert_int_equal(db__value_pack(&buf, DB__RECORD_META, &meta->base), 0);
    put(k, &key, chr_buf_slice(&buf));
    db_close(k->d);
    struct db_options options;
    db_options_default(&options);
    assert_int_equal(db_open(&k->kv, &options, &k->d, NULL), CHR_EVERSION);
    protobuf_c_message_free_unpacked(&meta->base, NULL);
    chr_buf_free(&buf);
}

/* -- Operations ---------------------------------------------------------------------------------*/

static void test_not_in_atomic_entries(void **state)
{
    struct kit *k = *state;
    struct db_sequence_range one = {1, 1};
    struct db_guard will = {.epoch = 1, .generation = 1};
    struct db_subscription sub = {.filter = CHR_LIT("a")};
    open_session(k, "c", NULL);
    for (int i = 0; i < 5; i++) {
        db_entry_begin(&k->entry, DB_ENTRY_ATOMIC, 0);
        if (i == 0)
            add_message(k, "a", CHR_LIT("x"), true);
        else if (i == 1)
            db_entry_add_subscribe(&k->entry, k->epoch, 1, &sub, 1);
        else if (i == 2)
            db_entry_add_unsubscribe(&k->entry, k->epoch, 1, &sub, 1);
        else if (i == 3)
            db_entry_add_queue_ack(&k->entry, k->epoch, 1, &one, 1, NULL, 0);
        else
            db_entry_add_guards(&k->entry, &will, 1);
        apply(k);
        assert_int_equal(k->result.ops[0].err, CHR_ECORRUPT);
    }
    struct db_retained_stats retained;
    db_retained_stats(k->d, &retained);
    assert_int_equal(retained.count, 0);
}

/* Where a session is connected, and that its node is no more. */
static void test_nodes(void **state)
{
    struct kit *k = *state;
    struct db_session_open open = {.client_id = CHR_LIT("c"), .expiry_s = 60, .node = 7, .boot = 3};
    db_entry_add_session_open(&k->entry, &open);
    apply(k);
    uint64_t epoch = k->result.ops[0].epoch;
    assert_int_equal(k->result.lost_count, 0);
    db_entry_add_session_open(&k->entry, &open); /* again, by the same node */
    apply(k);
    assert_int_equal(k->result.lost_count, 0);
    open.node = 8;
    db_entry_add_session_open(&k->entry, &open);
    apply(k);
    assert_int_equal(k->result.lost_count, 1);
    assert_int_equal(k->result.lost[0].epoch, epoch);
    assert_int_equal(k->result.lost[0].new_epoch, epoch);
    assert_int_equal(k->result.lost[0].generation, 3);
    open.boot = 4;
    open.clean_start = true;
    db_entry_add_session_open(&k->entry, &open);
    apply(k);
    assert_int_equal(k->result.lost_count, 1);
    assert_int_equal(k->result.lost[0].epoch, epoch);
    epoch = k->result.ops[0].epoch;
    assert_int_equal(k->result.lost[0].new_epoch, epoch);
    /* Another node, and an earlier start of it, are of no concern. */
    db_entry_add_node_down(&k->entry, 7, UINT64_MAX);
    db_entry_add_node_down(&k->entry, 8, 3);
    apply(k);
    assert_int_equal(k->result.lost_count, 0);
    db_entry_add_node_down(&k->entry, 8, 4);
    apply(k);
    assert_int_equal(k->result.ops[0].rows, 1);
    assert_int_equal(k->result.lost_count, 1);
    struct db_session_info info;
    assert_true(db_session_read(k->d, epoch, &info));
    assert_false(info.connected);
    assert_int_equal(info.generation, 2);
    assert_int_equal(info.node, 8);
    /* What its connection had on its way is void. */
    struct db_guard guard = {epoch, 1, 5};
    db_entry_add_guards(&k->entry, &guard, 1);
    db_entry_add_session_close(
        &k->entry,
        &(struct db_session_close){.client_id = CHR_LIT("c"), .epoch = epoch, .generation = 1});
    apply(k);
    assert_true(db_bit_get(k->result.gone, 0));
    assert_true(db_session_read(k->d, epoch, &info));

    /* Malformed: node 0 that is said, more or less than two numbers, an atomic entry. */
    open.node = 9;
    db_entry_add_session_open(&k->entry, &open);
    memset(k->entry.bytes.ptr + 16 + 16 + 16 + 56, 0, 8);
    db_entry_add_node_down(&k->entry, 8, 4);
    k->entry.bytes.ptr[k->entry.bytes.len - 20] = 2;
    db_entry_add_node_down(&k->entry, 8, 4);
    k->entry.bytes.ptr[k->entry.bytes.len - 27] = 1;
    apply(k);
    for (int i = 0; i < 3; i++)
        assert_int_equal(k->result.ops[i].err, CHR_ECORRUPT);
    db_entry_begin(&k->entry, DB_ENTRY_ATOMIC, 0);
    db_entry_add_node_down(&k->entry, 8, 4);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_ECORRUPT);
}

static void test_improper_operations(void **state)
{
    struct kit *k = *state;
    static const char *const bad_topics[] = {"", "a/#", "+", "a\xff", "a/b+"};
    static const char *const bad_filters[] = {"", "a/#/b", "a+", "#a", "a/b#", "\xc0\x80"};
    static const char *const bad_groups[] = {"g/h", "+", "#", "\xff"};
    open_session(k, "c", NULL);
    for (size_t i = 0; i < CHR_COUNT_OF(bad_topics); i++) {
        struct db_will will = {.topic = chr_slice_cstr(bad_topics[i])};
        add_message(k, bad_topics[i], CHR_LIT("x"), true);
        db_entry_add_session_open(
            &k->entry,
            &(struct db_session_open){.client_id = CHR_LIT("d"), .expiry_s = 1, .will = &will});
        apply(k);
        assert_int_equal(k->result.ops[0].err, CHR_ECORRUPT);
        assert_int_equal(k->result.ops[1].err, CHR_ECORRUPT);
    }
    for (size_t i = 0; i < CHR_COUNT_OF(bad_filters) + CHR_COUNT_OF(bad_groups); i++) {
        bool group = i >= CHR_COUNT_OF(bad_filters);
        struct db_subscription sub = {
            .filter = chr_slice_cstr(group ? "a" : bad_filters[i]),
            .group = chr_slice_cstr(group ? bad_groups[i - CHR_COUNT_OF(bad_filters)] : "")};
        db_entry_add_subscribe(&k->entry, k->epoch, 1, &sub, 1);
        db_entry_add_unsubscribe(&k->entry, k->epoch, 1, &sub, 1);
        apply(k);
        assert_int_equal(k->result.ops[0].err, CHR_ECORRUPT);
        assert_int_equal(k->result.ops[1].err, CHR_ECORRUPT);
    }
    /* More levels than a walk by level should have to take. */
    char deep[2 * DB_TOPIC_LEVELS_MAX + 2];
    for (size_t i = 0; i < sizeof deep; i++)
        deep[i] = i % 2 ? '/' : 'a';
    deep[sizeof deep - 1] = 0;
    add_message(k, deep, CHR_LIT("x"), true);
    deep[sizeof deep - 3] = 0;
    add_message(k, deep, CHR_LIT("x"), true);
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_ECORRUPT);
    assert_int_equal(k->result.ops[1].err, 0);
    /* A guard that the entry has not. */
    db_entry_add_message(&k->entry, &(struct db_publish){.topic = CHR_LIT("a"), .guard = 0});
    apply(k);
    assert_int_equal(k->result.ops[0].err, CHR_ECORRUPT);
}

static void test_mutated_entries(void **state)
{
    struct kit *k = *state;
    struct chr_random random = {7};
    struct db_will will = {.topic = CHR_LIT("w"), .payload = CHR_LIT("p"), .qos = 1};
    struct db_sequence_range ranges[2] = {{1, 2}, {3, 3}};
    struct db_subscription subs[2] = {{.filter = CHR_LIT("a/#"), .qos = 1},
                                      {.filter = CHR_LIT("+"), .group = CHR_LIT("g"), .qos = 2}};
    open_session(k, "c", &will);
    struct db_guard guard = {.epoch = k->epoch, .generation = 1};
    db_entry_add_guards(&k->entry, &guard, 1);
    db_entry_add_subscribe(&k->entry, k->epoch, 1, subs, 2);
    add_message(k, "a/b", CHR_LIT("x"), true);
    db_entry_add_queue_ack(&k->entry, k->epoch, 1, ranges, 1, ranges + 1, 1);
    db_entry_add_unsubscribe(&k->entry, k->epoch, 1, subs, 1);
    db_entry_add_session_close(&k->entry, &(struct db_session_close){.client_id = CHR_LIT("c"),
                                                                     .epoch = k->epoch,
                                                                     .generation = 1,
                                                                     .expiry_s = 5,
                                                                     .will = DB_WILL_KEEP});
    db_entry_add_session_open(
        &k->entry, &(struct db_session_open){
                       .client_id = CHR_LIT("c"), .expiry_s = 5, .will = &will, .window = 3});
    assert_int_equal(db_entry_end(&k->entry), 0);
    size_t len = k->entry.bytes.len;
    uint8_t *whole = malloc(len);
    memcpy(whole, k->entry.bytes.ptr, len);
    for (int n = 0; n < 20000; n++) {
        uint8_t *bytes = malloc(len); /* its own allocation: ASan sees a byte too far */
        struct db_apply_result r;
        memcpy(bytes, whole, len);
        for (uint64_t f = chr_random_below(&random, 3); f > 0; f--)
            bytes[chr_random_below(&random, len)] ^= (uint8_t)(1u << chr_random_below(&random, 8));
        db_apply(k->d, ++k->index, ++k->hlc, chr_slice_of(bytes, len), &r);
        free(bytes);
    }
    free(whole);
    checkpoint(k);
    assert_int_equal(findings(k), 0);
    restart(k);
    assert_int_equal(findings(k), 0);
}

static void test_many_subscriptions(void **state)
{
    struct kit *k = *state;
    enum { PART = 4096 };
    struct db_subscription *subs = calloc(PART, sizeof *subs);
    char(*names)[16] = calloc(PART, sizeof *names);
    uint32_t taken = 0;
    open_session(k, "c", NULL);
    for (uint32_t at = 0; at < DB_SUBSCRIPTIONS_MAX + PART; at += PART) {
        for (uint32_t i = 0; i < PART; i++) {
            snprintf(names[i], sizeof names[i], "f/%u/+", at + i);
            subs[i] = (struct db_subscription){.filter = chr_slice_cstr(names[i]), .qos = 1};
        }
        db_entry_add_subscribe(&k->entry, k->epoch, 1, subs, PART);
        apply(k);
        taken += k->result.ops[0].rows;
    }
    assert_int_equal(taken, DB_SUBSCRIPTIONS_MAX);
    assert_true(db_subscribed(k->d, CHR_LIT("f/65535/x")));
    assert_false(db_subscribed(k->d, CHR_LIT("f/65536/x")));
    uint64_t version = db_subscriptions_version(k->d);
    add_message(k, "f/4097/t", CHR_LIT("x"), false);
    apply(k);
    assert_int_equal(k->result.ops[0].rows, 1);
    assert_int_equal(db_subscriptions_version(k->d), version);
    checkpoint(k);
    restart(k);
    struct db_session_info info;
    assert_true(db_session_read(k->d, k->epoch, &info));
    assert_int_equal(info.subscriptions_count, DB_SUBSCRIPTIONS_MAX);
    assert_int_equal(info.queued_count, 1);
    free(subs);
    free(names);
}

/* -- Wills --------------------------------------------------------------------------------------*/

/* A will is published by the entry that takes it, rows and message, exactly once (M5). */
static void test_will_is_taken_once(void **state)
{
    struct kit *k = *state;
    struct db_will will = {
        .topic = CHR_LIT("gone/c"), .payload = CHR_LIT("w"), .qos = 1, .message_expiry_s = 9};
    open_session(k, "watcher", NULL);
    uint64_t watcher = k->epoch;
    subscribe(k, "gone/#", 1);
    open_session(k, "c", &will);
    struct db_guard guard = {.epoch = k->epoch, .generation = 1};
    for (int round = 0; round < 4; round++) {
        db_entry_add_guards(&k->entry, &guard, 1);
        db_entry_add_message(
            &k->entry,
            &(struct db_publish){
                .topic = will.topic, .payload = will.payload, .qos = 1, .expiry_s = 9, .guard = 0});
        apply(k);
        /* Not due; due; taken; taken. */
        assert_int_equal(db_bit_get(k->result.duplicates, 0), round != 1);
        assert_int_equal(k->result.ops[1].rows, round == 1);
        assert_int_equal(k->result.woken_count, round == 1);
        if (round == 1)
            assert_int_equal(k->result.woken[0], watcher);
        if (round == 0) {
            db_entry_add_session_close(&k->entry,
                                       &(struct db_session_close){.client_id = CHR_LIT("c"),
                                                                  .epoch = k->epoch,
                                                                  .generation = 1,
                                                                  .expiry_s = 100,
                                                                  .will = DB_WILL_KEEP});
            apply(k);
            assert_int_equal(k->result.wills_count, 1);
            assert_int_equal(k->result.wills[0].epoch, k->epoch);
            assert_int_equal(k->result.wills[0].message_expiry_s, 9);
        }
        checkpoint(k);
        restart(k);
    }
    assert_int_equal(findings(k), 0);
}

static void count_will(void *arg, const struct db_due_will *will)
{
    (void)will;
    ++*(int *)arg;
}

/* A tick fires what is delayed, and an idle node is told when. */
static bool count_retained(void *arg, struct db_message *message)
{
    (void)message;
    ++*(int *)arg;
    return true;
}

/* A retained message that expires at once is due at the replicated time it came with: kept, it
 * would hide whatever falls due later from the ticks. */
static void test_retained_that_expires_at_once(void **state)
{
    struct kit *k = *state;
    struct db_will will = {.topic = CHR_LIT("w"), .delay_s = 5};
    open_session(k, "c", &will);
    db_entry_add_session_close(&k->entry, &(struct db_session_close){.client_id = CHR_LIT("c"),
                                                                     .epoch = k->epoch,
                                                                     .generation = 1,
                                                                     .expiry_s = 100,
                                                                     .will = DB_WILL_KEEP});
    add_message(k, "t", CHR_LIT("old"), true);
    apply(k);
    int64_t due_us = db_next_due_us(k->d);
    assert_int_equal(due_us, chr_hlc_unix_us(k->hlc) + 5000000);
    db_entry_add_message(&k->entry, &(struct db_publish){.topic = CHR_LIT("t"),
                                                         .payload = CHR_LIT("new"),
                                                         .qos = 1,
                                                         .retain = true,
                                                         .expiry_s = 0,
                                                         .guard = UINT32_MAX});
    apply(k);
    assert_int_equal(db_next_due_us(k->d), due_us);
    int retained = 0;
    db_retained_read(k->d, CHR_LIT("#"), 0, count_retained, &retained);
    assert_int_equal(retained, 0);
}

static void test_will_delay(void **state)
{
    struct kit *k = *state;
    struct db_will will = {.topic = CHR_LIT("w"), .delay_s = 10};
    int due = 0;
    open_session(k, "c", &will);
    db_entry_add_session_close(&k->entry, &(struct db_session_close){.client_id = CHR_LIT("c"),
                                                                     .epoch = k->epoch,
                                                                     .generation = 1,
                                                                     .expiry_s = 100,
                                                                     .will = DB_WILL_KEEP});
    apply(k);
    assert_int_equal(k->result.wills_count, 0);
    assert_int_equal(db_next_due_us(k->d), chr_hlc_unix_us(k->hlc) + 10000000);
    checkpoint(k);
    restart(k);
    assert_int_equal(db_next_due_us(k->d), chr_hlc_unix_us(k->hlc) + 10000000);
    k->hlc += (chr_hlc)9999 << 16;
    db_apply(k->d, ++k->index, k->hlc, (chr_slice){0}, &k->result);
    assert_int_equal(k->result.wills_count, 0);
    k->hlc += 1 << 16;
    db_apply(k->d, ++k->index, k->hlc, (chr_slice){0}, &k->result);
    assert_int_equal(k->result.wills_count, 1);
    checkpoint(k);
    restart(k);
    db_wills_read(k->d, count_will, &due);
    assert_int_equal(due, 1);
}

/* -- Other threads ------------------------------------------------------------------------------*/

struct reading {
    struct kit *kit;
    _Atomic bool stop;
};

static bool take_ref(void *arg, struct db_message *message)
{
    struct db_message **kept = arg;
    db_message_unref(*kept);
    db_message_ref(message);
    *kept = message;
    return true;
}

static void *read_all_the_time(void *arg)
{
    struct reading *r = arg;
    db *d = r->kit->d;
    uint64_t seen = 0, last = 0;
    struct db_message *kept = NULL;
    while (!atomic_load(&r->stop)) {
        struct db_queue_item items[32];
        struct db_durable_stats stats;
        size_t n = db_queue_read(d, r->kit->epoch, 0, items, 32, UINT64_MAX);
        for (size_t i = 0; i < n; i++) {
            /* Acknowledged meanwhile, or what was published under that number. */
            if (items[i].message)
                assert_true(items[i].message->payload.len == 8 &&
                            chr_get_u64le(items[i].message->payload.ptr) == items[i].sequence);
            assert_true(i == 0 || items[i].sequence > items[i - 1].sequence);
            last = items[i].sequence;
        }
        release(items, n);
        seen += n;
        db_retained_read(d, CHR_LIT("#"), 0, take_ref, &kept);
        db_durable_stats(d, &stats);
        db_subscribed(d, CHR_LIT("t/1"));
    }
    db_message_unref(kept);
    assert_true(seen == 0 || last);
    return NULL;
}

static void test_readers_beside_the_applier(void **state)
{
    struct kit *k = *state;
    open_session(k, "c", NULL);
    subscribe(k, "#", 1);
    struct reading r = {.kit = k};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_all_the_time, &r), 0);
    for (uint64_t n = 1; n <= 3000; n++) {
        uint8_t payload[8];
        char topic[16];
        struct db_sequence_range old = {1, n > 20 ? n - 20 : 1};
        chr_put_u64le(payload, n);
        snprintf(topic, sizeof topic, "t/%u", (unsigned)(n % 10));
        add_message(k, topic, chr_slice_of(payload, 8), n % 3 == 0);
        if (n > 20)
            db_entry_add_queue_ack(&k->entry, k->epoch, 1, &old, 1, NULL, 0);
        apply(k);
        if (n % 200 == 0)
            checkpoint(k);
    }
    atomic_store(&r.stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(findings(k), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_stored_once),
        TEST(test_acknowledged_before_a_checkpoint_is_never_written),
        TEST(test_long_waiting_bodies_leave_memory),
        TEST(test_leftovers_of_a_checkpoint_that_was_not),
        TEST(test_damaged_body),
        TEST(test_damaged_records),
        TEST(test_earlier_versions),
        TEST(test_not_in_atomic_entries),
        TEST(test_nodes),
        TEST(test_improper_operations),
        TEST(test_mutated_entries),
        TEST(test_many_subscriptions),
        TEST(test_will_is_taken_once),
        TEST(test_will_delay),
        TEST(test_retained_that_expires_at_once),
        TEST(test_readers_beside_the_applier),
    };
    chr_log_set_level(CHR_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
