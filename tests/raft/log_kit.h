/* tests/raft/log_kit.h: what the tests of the log share: a log on a fake disk, entries whose bytes
 * follow from their index, and a check of everything that a log says. */
#ifndef CHR_TESTS_RAFT_LOG_KIT_H
#define CHR_TESTS_RAFT_LOG_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "raft/log.h"
#include "raft/log_format.h"
#include "tests/sim/fake_clock.h"
#include "tests/sim/fake_disk.h"

#define KIT_SEGMENT     16384u
#define KIT_INCARNATION 0x1234567890abcdefu

struct kit {
    struct fake_disk disk;
    struct fake_clock clock;
    struct raft_log_options options;
    raft_log *log;
    struct raft_log_recovery recovery;
    struct chr_errmsg msg;
    uint64_t start; /* start_index for open */
    uint64_t term;
    chr_hlc hlc; /* of the last entry appended */
};

static inline void kit_init(struct kit *kit)
{
    memset(kit, 0, sizeof *kit);
    chr_log_set_level(CHR_LOG_ERROR); /* torn tails are this test's daily bread */
    fake_disk_open(&kit->disk, 1);
    fake_clock_init(&kit->clock, 1700000000000000, 1000000);
    kit->options = (struct raft_log_options){.segment_bytes = KIT_SEGMENT,
                                             .first_segment_bytes = KIT_SEGMENT,
                                             .recycle_max = 2,
                                             .incarnation = KIT_INCARNATION,
                                             .clock = &kit->clock.clock};
    kit->start = 1;
    kit->term = 1;
}

static inline void kit_free(struct kit *kit)
{
    raft_log_close(kit->log);
    fake_disk_close(&kit->disk);
}

static inline chr_err kit_try_open(struct kit *kit)
{
    kit->msg.text[0] = 0;
    return raft_log_open(&kit->disk.io, &kit->options, kit->start, &kit->log, &kit->recovery,
                         &kit->msg);
}

static inline void kit_open(struct kit *kit)
{
    chr_err err = kit_try_open(kit);
    if (err)
        fail_msg("open: %s: %s", chr_errname(err), kit->msg.text);
    kit->hlc = kit->recovery.last_hlc;
    if (kit->recovery.last_term > kit->term)
        kit->term = kit->recovery.last_term;
}

static inline void kit_close(struct kit *kit)
{
    raft_log_close(kit->log);
    kit->log = NULL;
}

/* The process dies (power: and the machine): what was not written is gone. */
static inline void kit_die(struct kit *kit, bool power)
{
    fake_disk_off(&kit->disk);
    raft_log_close(kit->log);
    kit->log = NULL;
    if (power)
        fake_disk_crash(&kit->disk);
    else
        fake_disk_kill(&kit->disk);
}

/* The bytes of entry `index`: length and content follow from index and salt. */
static inline size_t kit_entry_bytes(uint64_t index, uint64_t salt, size_t bytes_max, uint8_t *out)
{
    struct chr_random random = {.state = index * 1000003 + salt};
    size_t len = (size_t)chr_random_below(&random, bytes_max + 1);
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)chr_random_u64(&random);
    return len;
}

#define KIT_BYTES_MAX 600u

static inline chr_err kit_try_append(struct kit *kit, uint64_t salt)
{
    uint8_t bytes[KIT_BYTES_MAX];
    uint64_t index = raft_log_last(kit->log) + 1;
    struct raft_entry entry = {.index = index,
                               .term = kit->term,
                               .hlc = kit->hlc + 10,
                               .type = RAFT_ENTRY_DATA,
                               .bytes = {.ptr = bytes}};
    entry.bytes.len = kit_entry_bytes(index, salt, KIT_BYTES_MAX, bytes);
    chr_err err = raft_log_append(kit->log, &entry, 1);
    if (!err)
        kit->hlc = entry.hlc;
    return err;
}

static inline void kit_append(struct kit *kit, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_int_equal(kit_try_append(kit, 0), CHR_OK);
}

static inline void kit_sync(struct kit *kit)
{
    chr_err err = raft_log_sync(kit->log, &kit->msg);
    if (err)
        fail_msg("sync: %s: %s", chr_errname(err), kit->msg.text);
    assert_int_equal(raft_log_synced(kit->log), raft_log_last(kit->log));
}

/* One group of `count` entries, durable. */
static inline void kit_group(struct kit *kit, size_t count)
{
    kit_append(kit, count);
    kit_sync(kit);
}

/* Everything held reads back: indexes without gaps, bytes as kit_append made them. */
static inline void kit_verify(struct kit *kit)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 8u << 20);
    uint64_t next = raft_log_first(kit->log);
    chr_hlc hlc = 0;
    while (next <= raft_log_synced(kit->log)) {
        struct raft_entry entries[16];
        size_t count;
        assert_int_equal(raft_log_read(kit->log, next, 4096, &buf, entries, 16, &count), CHR_OK);
        assert_true(count > 0);
        for (size_t i = 0; i < count; i++, next++) {
            uint8_t bytes[KIT_BYTES_MAX];
            size_t len = kit_entry_bytes(next, 0, KIT_BYTES_MAX, bytes);
            assert_int_equal(entries[i].index, next);
            assert_int_equal(entries[i].bytes.len, len);
            assert_memory_equal(entries[i].bytes.ptr, bytes, len);
            assert_true(entries[i].hlc > hlc);
            assert_int_equal(entries[i].term, raft_log_term_of(kit->log, next));
            hlc = entries[i].hlc;
        }
    }
    chr_buf_free(&buf);
}

#endif
