/* tests/raft/test_log.c: the log when nothing goes wrong, and what each of its calls promises. */
#include "raft/log_internal.h"
#include "tests/raft/log_kit.h"

#define TEST_BEGIN                                                                                 \
    struct kit kit;                                                                                \
    (void)state;                                                                                   \
    kit_init(&kit)
#define TEST_END kit_free(&kit)

static void test_empty(void **state)
{
    TEST_BEGIN;
    kit.start = 7;
    kit_open(&kit);
    assert_int_equal(kit.recovery.first_index, 0);
    assert_int_equal(kit.recovery.last_index, 6);
    assert_int_equal(raft_log_first(kit.log), 7);
    assert_int_equal(raft_log_last(kit.log), 6);
    assert_int_equal(raft_log_term_of(kit.log, 7), 0);
    uint64_t index;
    assert_int_equal(raft_log_seek_hlc(kit.log, 1, &index), CHR_OK);
    assert_int_equal(index, 7);
    kit_close(&kit);
    kit_open(&kit);
    assert_int_equal(raft_log_first(kit.log), 7);
    kit_group(&kit, 3);
    assert_int_equal(raft_log_last(kit.log), 9);
    kit_verify(&kit);
    TEST_END;
}

/* Raft's previous term of the first entry, and the vote, are known without the entries before. */
static void test_behind_a_snapshot(void **state)
{
    TEST_BEGIN;
    kit.start = 1001;
    kit.options.base =
        (struct raft_log_base){.term = 7, .hlc = 5000, .hard_state = {.term = 9, .vote = 3}};
    for (int life = 0; life < 3; life++) {
        if (life == 1) /* of the log's making, not of its opening */
            kit.options.base = (struct raft_log_base){0};
        kit_open(&kit);
        assert_int_equal(kit.recovery.first_index, 0);
        assert_int_equal(kit.recovery.last_index, 1000);
        assert_int_equal(kit.recovery.last_term, 7);
        assert_int_equal(kit.recovery.last_hlc, 5000);
        assert_int_equal(kit.recovery.hard_state.term, 9);
        assert_int_equal(kit.recovery.hard_state.vote, 3);
        assert_int_equal(raft_log_term_of(kit.log, 1000), 7);
        assert_int_equal(raft_log_term_of(kit.log, 999), 0);
        if (life == 0)
            kit_die(&kit, true); /* it is durable as soon as it is there */
        else
            kit_close(&kit);
    }
    kit_open(&kit);
    kit.term = 9;
    kit_group(&kit, 3);
    assert_int_equal(raft_log_truncate_suffix(kit.log, 1000), CHR_OK);
    assert_int_equal(raft_log_term_of(kit.log, 1000), 7);
    kit_close(&kit);
    kit_open(&kit);
    assert_int_equal(kit.recovery.last_index, 1000);
    assert_int_equal(kit.recovery.last_term, 7);
    kit.hlc = 5000;
    kit_group(&kit, 3);
    kit_verify(&kit);
    kit_close(&kit);
    kit.start = 1000; /* a checkpoint that does not reach it */
    assert_int_equal(kit_try_open(&kit), CHR_ECORRUPT);
    kit.options.read_only = true;
    assert_int_equal(kit_try_open(&kit), CHR_ECORRUPT);
    kit.start = 0; /* none at all: just looking */
    kit_open(&kit);
    assert_int_equal(kit.recovery.first_index, 1001);
    assert_int_equal(kit.recovery.hard_state.vote, 3);
    TEST_END;
}

static void test_impossible_base(void **state)
{
    TEST_BEGIN;
    kit.start = 11;
    kit.options.base = (struct raft_log_base){.term = 7, .hard_state = {.term = 6}};
    assert_int_equal(kit_try_open(&kit), CHR_EINVAL);
    kit.start = 1;
    kit.options.base.hard_state.term = 7;
    assert_int_equal(kit_try_open(&kit), CHR_EINVAL);
    kit.options.base.term = 0; /* a new node that voted before it had an entry */
    kit_open(&kit);
    assert_int_equal(kit.recovery.hard_state.term, 7);
    TEST_END;
}

static void test_reopen(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    for (int i = 0; i < 100; i++)
        kit_group(&kit, 1 + (size_t)i % 5);
    uint64_t last = raft_log_last(kit.log);
    kit_verify(&kit);
    kit_close(&kit);
    kit_open(&kit);
    assert_int_equal(kit.recovery.first_index, 1);
    assert_int_equal(kit.recovery.last_index, last);
    assert_int_equal(kit.recovery.last_hlc, kit.hlc);
    assert_int_equal(kit.recovery.torn_bytes, 0);
    assert_int_equal(kit.recovery.incarnation, KIT_INCARNATION);
    assert_true(kit.recovery.segments > 3);
    kit_verify(&kit);
    kit_group(&kit, 20);
    kit_verify(&kit);
    TEST_END;
}

static void test_unsynced_is_not_written(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    kit_group(&kit, 3);
    kit_append(&kit, 2);
    assert_int_equal(raft_log_last(kit.log), 5);
    assert_int_equal(raft_log_synced(kit.log), 3);
    kit_close(&kit);
    kit_open(&kit);
    assert_int_equal(raft_log_last(kit.log), 3);
    TEST_END;
}

static void test_one_write_one_sync(void **state)
{
    TEST_BEGIN;
    kit.options.segment_bytes = kit.options.first_segment_bytes = 1u << 20;
    kit_open(&kit);
    kit_group(&kit, 1);
    struct fake_disk_counters before = kit.disk.counters;
    kit_append(&kit, 200); /* about 64 KiB */
    kit_sync(&kit);
    assert_int_equal(kit.disk.counters.writes - before.writes, 1);
    assert_int_equal(kit.disk.counters.syncs - before.syncs, 1);
    assert_int_equal(kit.disk.counters.reads - before.reads, 0);
    assert_int_equal(kit.disk.counters.opens - before.opens, 0);
    assert_int_equal(kit.disk.counters.dir_syncs - before.dir_syncs, 0);
    assert_true(kit.disk.counters.write_bytes - before.write_bytes > 60000);
    TEST_END;
}

static void test_hard_state(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    assert_int_equal(kit.recovery.hard_state.term, 0);
    assert_int_equal(raft_log_set_hard_state(kit.log, (struct raft_hard_state){3, 2}), CHR_OK);
    kit_group(&kit, 2);
    kit_die(&kit, true);
    kit_open(&kit);
    assert_int_equal(kit.recovery.hard_state.term, 3);
    assert_int_equal(kit.recovery.hard_state.vote, 2);
    assert_int_equal(raft_log_set_hard_state(kit.log, (struct raft_hard_state){4, 1}), CHR_OK);
    /* It outlives the segment it was written in. */
    for (int i = 0; i < 100; i++)
        kit_group(&kit, 2);
    assert_int_equal(raft_log_cut_prefix(kit.log, raft_log_last(kit.log)), CHR_OK);
    assert_true(raft_log_first(kit.log) > 2);
    kit.start = raft_log_first(kit.log);
    kit_close(&kit);
    kit_open(&kit);
    assert_int_equal(kit.recovery.hard_state.term, 4);
    assert_int_equal(kit.recovery.hard_state.vote, 1);
    TEST_END;
}

static void test_limits(void **state)
{
    TEST_BEGIN;
    kit.options.segment_bytes = 0;
    kit.options.first_segment_bytes = 4096;
    kit_open(&kit);
    uint8_t *bytes = calloc(1, RAFT_ENTRY_BYTES_MAX + 1);
    struct raft_entry e = {.index = 1, .term = 1, .hlc = 10, .type = RAFT_ENTRY_DATA};
    e.bytes = chr_slice_of(bytes, RAFT_ENTRY_BYTES_MAX + 1);
    assert_int_equal(raft_log_append(kit.log, &e, 1), CHR_ETOOBIG);
    kit_close(&kit);
    fake_disk_close(&kit.disk);
    kit_init(&kit);
    kit.options.segment_bytes = 0; /* 64 MiB, growing from 1 MiB */
    kit.options.first_segment_bytes = 0;
    kit_open(&kit);
    e.bytes.len = RAFT_ENTRY_BYTES_MAX;
    int appended = 0;
    chr_err err;
    while ((err = raft_log_append(kit.log, &e, 1)) == CHR_OK) {
        e.index++;
        e.hlc++;
        appended++;
    }
    assert_int_equal(err, CHR_EFULL);
    assert_int_equal(appended, 3); /* of 4 MiB and a header each, in 16 MiB */
    assert_int_equal(raft_log_last(kit.log), 3);
    kit_sync(&kit);
    assert_int_equal(raft_log_append(kit.log, &e, 1), CHR_OK);
    kit_sync(&kit);
    struct chr_buf buf;
    chr_buf_init(&buf, 64u << 20);
    struct raft_entry out[8];
    size_t count;
    assert_int_equal(raft_log_read(kit.log, 2, 9u << 20, &buf, out, 8, &count), CHR_OK);
    assert_int_equal(count, 2);
    assert_int_equal(out[1].bytes.len, RAFT_ENTRY_BYTES_MAX);
    chr_buf_free(&buf);
    free(bytes);
    TEST_END;
}

/* Entries larger than a segment get one of their own size, also where one was prepared. */
static void test_huge_entries(void **state)
{
    TEST_BEGIN;
    kit.options.segment_bytes = kit.options.first_segment_bytes = 8192;
    kit_open(&kit);
    uint8_t *bytes = malloc(RAFT_ENTRY_BYTES_MAX);
    memset(bytes, 'h', RAFT_ENTRY_BYTES_MAX);
    static const size_t sizes[] = {1, 8000, 8100, 9000, 1, RAFT_ENTRY_BYTES_MAX, 5, 70000, 8192};
    uint64_t index = 0;
    for (int round = 0; round < 3; round++) {
        char name[RAFT_IO_NAME_MAX];
        for (size_t i = 0; i < CHR_COUNT_OF(sizes); i++) {
            index++;
            struct raft_entry e = {
                .index = index, .term = 1, .hlc = index, .type = RAFT_ENTRY_DATA};
            e.bytes = chr_slice_of(bytes, sizes[i]);
            assert_int_equal(raft_log_append(kit.log, &e, 1), CHR_OK);
            if (i % 3)
                kit_sync(&kit);
        }
        kit_sync(&kit);
        kit_die(&kit, round == 1);
        /* A next one as a helper would have left it: too small for what comes. */
        for (uint64_t id = 1;; id++) {
            raft__segment_name(id, name);
            if (!fake_disk_exists(&kit.disk, name))
                break;
        }
        static const uint8_t zeros[8192];
        fake_disk_poke(&kit.disk, name, 0, zeros, sizeof zeros);
        kit_open(&kit);
        assert_int_equal(raft_log_last(kit.log), index);
    }
    struct chr_buf buf;
    chr_buf_init(&buf, 64u << 20);
    for (uint64_t i = 1; i <= index; i++) {
        struct raft_entry e;
        size_t count;
        assert_int_equal(raft_log_read(kit.log, i, 1, &buf, &e, 1, &count), CHR_OK);
        assert_int_equal(count, 1);
        assert_int_equal(e.bytes.len, sizes[(i - 1) % CHR_COUNT_OF(sizes)]);
        assert_memory_equal(e.bytes.ptr, bytes, e.bytes.len);
    }
    chr_buf_free(&buf);
    free(bytes);
    TEST_END;
}

static void test_read(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    for (int i = 0; i < 60; i++)
        kit_group(&kit, 4);
    struct chr_buf buf;
    chr_buf_init(&buf, 1u << 20);
    struct raft_entry e[300];
    size_t count;
    assert_int_equal(raft_log_read(kit.log, 0, 100, &buf, e, 300, &count), CHR_ENOTFOUND);
    assert_int_equal(raft_log_read(kit.log, 241, 100, &buf, e, 300, &count), CHR_OK);
    assert_int_equal(count, 0);
    assert_int_equal(raft_log_read(kit.log, 240, 0, &buf, e, 300, &count), CHR_OK);
    assert_int_equal(count, 1); /* at least one */
    assert_int_equal(raft_log_read(kit.log, 1, 1u << 20, &buf, e, 300, &count), CHR_OK);
    assert_int_equal(count, 240); /* over all segments */
    assert_int_equal(raft_log_read(kit.log, 100, 1u << 20, &buf, e, 5, &count), CHR_OK);
    assert_int_equal(count, 5);
    assert_int_equal(e[0].index, 100);
    assert_int_equal(e[4].index, 104);
    /* Appended, not synced: not there yet. */
    kit_append(&kit, 1);
    assert_int_equal(raft_log_read(kit.log, 241, 100, &buf, e, 300, &count), CHR_OK);
    assert_int_equal(count, 0);
    chr_buf_free(&buf);
    TEST_END;
}

/* A cursor was told to go to the last entry of a segment; the log then grew, in this segment and
 * into the next. (Found by the threads of test_log_posix.c.) */
static void test_read_while_it_grows(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    kit_group(&kit, 5);
    struct chr_buf buf;
    chr_buf_init(&buf, 1u << 20);
    struct raft__cursor cursor;
    struct raft__record record;
    assert_int_equal(raft__cursor_start(&cursor, kit.log, &buf, 4096, 1, 5), CHR_OK);
    for (uint64_t i = 1; i <= 4; i++) {
        assert_int_equal(raft__cursor_next(&cursor, &record), 1);
        assert_int_equal(record.index, i);
    }
    for (int i = 0; i < 100; i++)
        kit_group(&kit, 2);
    assert_int_equal(raft__cursor_next(&cursor, &record), 1);
    assert_int_equal(record.index, 5);
    assert_int_equal(raft__cursor_next(&cursor, &record), 0);
    raft__cursor_end(&cursor);
    /* The same with the segment cut away meanwhile: the reader keeps it. */
    assert_int_equal(raft__cursor_start(&cursor, kit.log, &buf, 4096, 10, 20), CHR_OK);
    assert_int_equal(raft_log_cut_prefix(kit.log, 200), CHR_OK);
    for (uint64_t i = 1; i <= 20; i++) {
        assert_int_equal(raft__cursor_next(&cursor, &record), 1);
        assert_int_equal(record.index, i);
    }
    raft__cursor_end(&cursor);
    chr_buf_free(&buf);
    TEST_END;
}

static void test_read_finds_rot(void **state)
{
    TEST_BEGIN;
    kit.options.segment_bytes = kit.options.first_segment_bytes = 1u << 20;
    kit_open(&kit);
    kit_group(&kit, 10);
    char name[RAFT_IO_NAME_MAX];
    raft__segment_name(1, name);
    fake_disk_flip_bit(&kit.disk, name, 200, 3);
    struct chr_buf buf;
    chr_buf_init(&buf, 1u << 20);
    struct raft_entry e[10];
    size_t count;
    assert_int_equal(raft_log_read(kit.log, 1, 1u << 20, &buf, e, 10, &count), CHR_ECORRUPT);
    assert_int_equal(count, 0);
    chr_buf_free(&buf);
    TEST_END;
}

static void test_seek_hlc(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    for (int i = 0; i < 100; i++)
        kit_group(&kit, 3); /* hlc of entry i: 10 i */
    uint64_t index;
    for (uint64_t i = 1; i <= 300; i += 7) {
        assert_int_equal(raft_log_seek_hlc(kit.log, 10 * i, &index), CHR_OK);
        assert_int_equal(index, i);
        assert_int_equal(raft_log_seek_hlc(kit.log, 10 * i - 9, &index), CHR_OK);
        assert_int_equal(index, i);
    }
    assert_int_equal(raft_log_seek_hlc(kit.log, 3001, &index), CHR_OK);
    assert_int_equal(index, 301);
    kit_append(&kit, 1); /* unsynced: not to be found */
    assert_int_equal(raft_log_seek_hlc(kit.log, 3001, &index), CHR_OK);
    assert_int_equal(index, 301);
    TEST_END;
}

static void test_truncate(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    for (int i = 0; i < 50; i++)
        kit_group(&kit, 3);
    chr_hlc hlc_100 = 1000;
    assert_int_equal(raft_log_truncate_suffix(kit.log, 100), CHR_OK);
    assert_int_equal(raft_log_last(kit.log), 100);
    assert_int_equal(raft_log_synced(kit.log), 100);
    kit_verify(&kit);
    kit.hlc = hlc_100; /* the new leader's entries may be older than the dead ones */
    kit.term = 2;
    kit_group(&kit, 30);
    kit_verify(&kit);
    assert_int_equal(raft_log_term_of(kit.log, 100), 1);
    assert_int_equal(raft_log_term_of(kit.log, 101), 2);
    uint64_t index;
    assert_int_equal(raft_log_seek_hlc(kit.log, 1010, &index), CHR_OK);
    assert_int_equal(index, 101);
    for (int again = 0; again < 2; again++) {
        kit_die(&kit, again == 0);
        kit_open(&kit);
        assert_int_equal(raft_log_last(kit.log), 130);
        assert_int_equal(raft_log_term_of(kit.log, 101), 2);
        kit_verify(&kit);
    }
    /* Again and again, within one segment and over several. */
    for (uint64_t to = 128; to > 3; to -= 5) {
        assert_int_equal(raft_log_truncate_suffix(kit.log, to), CHR_OK);
        kit.hlc = to * 10;
        kit.term++;
        kit_group(&kit, 2);
        kit_verify(&kit);
    }
    assert_int_equal(raft_log_truncate_suffix(kit.log, 0), CHR_OK);
    assert_int_equal(raft_log_last(kit.log), 0);
    kit_close(&kit);
    kit_open(&kit);
    assert_int_equal(kit.recovery.first_index, 0);
    assert_int_equal(kit.recovery.last_hlc, 0);
    kit.hlc = 0;
    kit_group(&kit, 5);
    kit_verify(&kit);
    TEST_END;
}

/* A truncation far back leaves segments in which nothing lives; then the log is cut into them. */
static void test_truncate_then_cut(void **state)
{
    (void)state;
    for (uint64_t cut = 40; cut <= 105; cut += 5) {
        struct kit kit;
        kit_init(&kit);
        kit_open(&kit);
        for (int i = 0; i < 80; i++)
            kit_group(&kit, 3);
        assert_int_equal(raft_log_truncate_suffix(kit.log, 60), CHR_OK);
        kit.hlc = 600;
        kit_group(&kit, 50);
        assert_int_equal(raft_log_cut_prefix(kit.log, cut), CHR_OK);
        for (int again = 0; again < 2; again++) {
            uint64_t first = raft_log_first(kit.log), found;
            assert_true(first <= cut + 1);
            assert_int_equal(raft_log_term_of(kit.log, first - 1), first > 1);
            for (uint64_t i = first; i <= 110; i++) {
                assert_int_equal(raft_log_seek_hlc(kit.log, i * 10, &found), CHR_OK);
                assert_int_equal(found, i);
            }
            kit_verify(&kit);
            kit_close(&kit);
            kit.start = first;
            kit_open(&kit);
            assert_int_equal(raft_log_first(kit.log), first);
        }
        kit_free(&kit);
    }
}

static void test_cut_prefix(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    for (int i = 0; i < 100; i++)
        kit_group(&kit, 3);
    uint64_t bytes = raft_log_bytes(kit.log);
    struct raft_log_stats stats;
    raft_log_stats(kit.log, &stats);
    uint64_t segments = stats.segments;
    assert_int_equal(raft_log_cut_prefix(kit.log, 150), CHR_OK);
    uint64_t first = raft_log_first(kit.log);
    assert_in_range(first, 100, 151);
    assert_true(raft_log_bytes(kit.log) < bytes);
    raft_log_stats(kit.log, &stats);
    assert_true(stats.segments < segments);
    kit_verify(&kit);
    assert_int_equal(raft_log_term_of(kit.log, first - 1), 1);
    assert_int_equal(raft_log_term_of(kit.log, first - 2), 0);
    struct raft_entry e;
    struct chr_buf buf;
    chr_buf_init(&buf, 1u << 20);
    size_t count;
    assert_int_equal(raft_log_read(kit.log, first - 1, 1, &buf, &e, 1, &count), CHR_ENOTFOUND);
    chr_buf_free(&buf);
    /* A log that does not reach back to the checkpoint is refused. */
    kit_close(&kit);
    kit.start = first - 1;
    assert_int_equal(kit_try_open(&kit), CHR_ECORRUPT);
    kit.start = first;
    kit_open(&kit);
    assert_int_equal(kit.recovery.first_index, first);
    kit_verify(&kit);
    /* One that ends before the checkpoint's end, too. */
    kit_close(&kit);
    kit.start = 302;
    assert_int_equal(kit_try_open(&kit), CHR_ECORRUPT);
    kit.start = 301;
    kit_open(&kit);
    TEST_END;
}

static void test_recycles(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    uint64_t used = 0;
    for (int i = 0; i < 1000; i++) {
        kit_group(&kit, 3);
        if (i % 20 == 0)
            assert_int_equal(raft_log_cut_prefix(kit.log, raft_log_synced(kit.log)), CHR_OK);
        if (i == 100)
            used = fake_disk_used(&kit.disk);
        if (i > 100)
            assert_true(fake_disk_used(&kit.disk) <= used + 4 * KIT_SEGMENT);
    }
    struct raft_log_stats stats;
    raft_log_stats(kit.log, &stats);
    assert_true(stats.segments_recycled > 20);
    kit.start = raft_log_first(kit.log);
    kit_die(&kit, true); /* stale records of former lives everywhere */
    kit_open(&kit);
    assert_int_equal(raft_log_last(kit.log), 3000);
    kit_verify(&kit);
    TEST_END;
}

static void test_every(void **state)
{
    TEST_BEGIN;
    kit.options.fsync = RAFT_FSYNC_EVERY;
    kit_open(&kit);
    struct fake_disk_counters before = kit.disk.counters;
    kit_append(&kit, 20);
    kit_sync(&kit);
    assert_int_equal(kit.disk.counters.writes - before.writes, 20);
    assert_int_equal(kit.disk.counters.syncs - before.syncs, 20);
    for (int i = 0; i < 40; i++)
        kit_group(&kit, 7);
    kit_die(&kit, true);
    kit_open(&kit);
    assert_int_equal(raft_log_last(kit.log), 300);
    kit_verify(&kit);
    TEST_END;
}

static void test_periodic(void **state)
{
    TEST_BEGIN;
    kit.options.fsync = RAFT_FSYNC_PERIODIC;
    kit.options.periodic_ms = 100;
    kit.options.segment_bytes = kit.options.first_segment_bytes = 1u << 20;
    kit_open(&kit);
    int64_t now = 1000000;
    assert_int_equal(raft_log_sync_periodic(kit.log, now, false), CHR_OK);
    struct fake_disk_counters before = kit.disk.counters;
    kit_group(&kit, 3);
    kit_group(&kit, 3);
    assert_int_equal(kit.disk.counters.syncs, before.syncs);
    assert_int_equal(raft_log_synced(kit.log), 6);
    assert_int_equal(raft_log_durable(kit.log), 0);
    kit_verify(&kit);
    assert_int_equal(raft_log_sync_periodic(kit.log, now + 99999, false), CHR_OK);
    assert_int_equal(kit.disk.counters.syncs, before.syncs);
    assert_int_equal(raft_log_sync_periodic(kit.log, now + 100000, false), CHR_OK);
    assert_int_equal(kit.disk.counters.syncs, before.syncs + 1);
    assert_int_equal(raft_log_durable(kit.log), 6);
    kit_group(&kit, 1);
    assert_int_equal(raft_log_sync_periodic(kit.log, now + 100001, true), CHR_OK);
    assert_int_equal(raft_log_durable(kit.log), 7);
    /* Term and vote do not wait (L5). */
    kit_group(&kit, 1);
    assert_int_equal(raft_log_set_hard_state(kit.log, (struct raft_hard_state){9, 1}), CHR_OK);
    assert_int_equal(raft_log_durable(kit.log), 8);
    /* A clean close owes nothing. */
    kit_group(&kit, 5);
    kit_close(&kit);
    fake_disk_crash(&kit.disk);
    kit_open(&kit);
    assert_int_equal(raft_log_last(kit.log), 13);
    kit_verify(&kit);
    TEST_END;
}

static void test_no_space(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    kit_group(&kit, 10);
    kit.disk.faults.capacity = fake_disk_used(&kit.disk) + 5000; /* no room for a segment */
    chr_err err = CHR_OK;
    int i;
    for (i = 0; i < 100 && !err; i++) {
        kit_append(&kit, 3);
        err = raft_log_sync(kit.log, &kit.msg);
    }
    assert_int_equal(err, CHR_ENOSPC);
    uint64_t synced = raft_log_synced(kit.log), last = raft_log_last(kit.log);
    assert_int_equal(last, synced + 3);
    kit_verify(&kit); /* reads go on */
    assert_int_equal(raft_log_sync(kit.log, &kit.msg), CHR_ENOSPC);
    kit_append(&kit, 5); /* the group only grows */
    assert_int_equal(raft_log_sync(kit.log, &kit.msg), CHR_ENOSPC);
    struct raft_log_stats stats;
    raft_log_stats(kit.log, &stats);
    assert_int_equal(stats.enospc_waits, 3);
    kit.disk.faults.capacity = 0;
    kit_sync(&kit);
    assert_int_equal(raft_log_synced(kit.log), last + 5);
    kit_verify(&kit);
    kit_die(&kit, true);
    kit_open(&kit);
    assert_int_equal(raft_log_last(kit.log), last + 5);
    kit_verify(&kit);
    TEST_END;
}

static void test_failed_sync_is_doubt(void **state)
{
    TEST_BEGIN;
    kit_open(&kit);
    kit_group(&kit, 5);
    kit_append(&kit, 2);
    kit.disk.faults.sync_eio = 10000;
    assert_int_equal(raft_log_sync(kit.log, &kit.msg), CHR_EDOUBT);
    assert_non_null(strstr(kit.msg.text, "fdatasync"));
    kit.disk.faults.sync_eio = 0;
    assert_int_equal(raft_log_synced(kit.log), 5);
    /* Nothing but close from here on, however well the disk feels again (L4). */
    assert_int_equal(raft_log_sync(kit.log, &kit.msg), CHR_EDOUBT);
    assert_int_equal(kit_try_append(&kit, 0), CHR_EDOUBT);
    assert_int_equal(raft_log_set_hard_state(kit.log, (struct raft_hard_state){5, 5}), CHR_EDOUBT);
    assert_int_equal(raft_log_truncate_suffix(kit.log, 1), CHR_EDOUBT);
    kit_close(&kit);
    /* The page cache still shows both entries, clean; the platter may have neither. What open
     * returns must survive a power failure (L6). */
    kit_open(&kit);
    uint64_t last = raft_log_last(kit.log);
    assert_in_range(last, 5, 7);
    kit_die(&kit, true);
    kit_open(&kit);
    assert_int_equal(raft_log_last(kit.log), last);
    kit_verify(&kit);
    TEST_END;
}

static void test_read_only(void **state)
{
    TEST_BEGIN;
    kit.options.read_only = true;
    assert_int_equal(kit_try_open(&kit), CHR_ENOTFOUND);
    kit.options.read_only = false;
    kit_open(&kit);
    for (int i = 0; i < 50; i++)
        kit_group(&kit, 3);
    kit_append(&kit, 3);
    kit.disk.faults.sync_eio = 10000;
    assert_int_equal(raft_log_sync(kit.log, NULL), CHR_EDOUBT);
    kit.disk.faults.sync_eio = 0;
    kit_die(&kit, true);
    uint64_t hash = fake_disk_hash(&kit.disk);
    struct fake_disk_counters before = kit.disk.counters;
    kit.options.read_only = true;
    kit_open(&kit);
    kit_verify(&kit);
    assert_int_equal(kit_try_append(&kit, 0), CHR_EACCES);
    assert_int_equal(raft_log_cut_prefix(kit.log, 100), CHR_EACCES);
    kit_close(&kit);
    assert_int_equal(fake_disk_hash(&kit.disk), hash);
    assert_int_equal(kit.disk.counters.writes, before.writes);
    assert_int_equal(kit.disk.counters.dir_changes, before.dir_changes);
    TEST_END;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_behind_a_snapshot),
        cmocka_unit_test(test_impossible_base),
        cmocka_unit_test(test_reopen),
        cmocka_unit_test(test_unsynced_is_not_written),
        cmocka_unit_test(test_one_write_one_sync),
        cmocka_unit_test(test_hard_state),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_huge_entries),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_while_it_grows),
        cmocka_unit_test(test_read_finds_rot),
        cmocka_unit_test(test_seek_hlc),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_truncate_then_cut),
        cmocka_unit_test(test_cut_prefix),
        cmocka_unit_test(test_recycles),
        cmocka_unit_test(test_every),
        cmocka_unit_test(test_periodic),
        cmocka_unit_test(test_no_space),
        cmocka_unit_test(test_failed_sync_is_doubt),
        cmocka_unit_test(test_read_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
