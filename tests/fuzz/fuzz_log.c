/* tests/fuzz/fuzz_log.c: arbitrary bytes as log segments. Opening them must never crash, never
 * hang, and either refuse (and change nothing) or give a log that reads, takes more and opens
 * again.
 *
 * Byte 0 chooses: even, the rest is the files themselves (each: u16 length, bytes; the file ids
 * count up from 1). Odd, the rest is edits of a real log of three segments, 6 bytes each (file,
 * what, offset, value), among them "make the checks of the record at this offset right again": past
 * the CRCs is where the interesting code is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "raft/log.h"
#include "raft/log_format.h"
#include "tests/sim/fake_clock.h"
#include "tests/sim/fake_disk.h"

#define INCARNATION 0x1111111111111111u
#define SEGMENT     8192u

static struct fake_clock fake_time;
static struct fake_disk original;

static struct raft_log_options options(bool read_only)
{
    return (struct raft_log_options){.segment_bytes = SEGMENT,
                                     .first_segment_bytes = 4096,
                                     .recycle_max = 1,
                                     .incarnation = INCARNATION,
                                     .read_only = read_only,
                                     .clock = &fake_time.clock};
}

static void append(raft_log *log, uint64_t term, chr_hlc *hlc, size_t count)
{
    static const uint8_t bytes[300] = "some bytes";
    for (size_t i = 0; i < count; i++) {
        uint64_t index = raft_log_last(log) + 1;
        struct raft_entry e = {
            .index = index, .term = term, .hlc = ++*hlc, .type = RAFT_ENTRY_DATA};
        e.bytes = chr_slice_of(bytes, index * 37 % sizeof bytes);
        chr_err err = raft_log_append(log, &e, 1);
        CHR_ASSERT(err == CHR_OK);
    }
    chr_err err = raft_log_sync(log, NULL);
    CHR_ASSERT(err == CHR_OK);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    chr_log_set_level(CHR_LOG_ERROR);
    fake_clock_init(&fake_time, 1700000000000000, 1);
    fake_disk_open(&original, 1);
    struct raft_log_options o = options(false);
    struct raft_log_recovery recovery;
    raft_log *log;
    chr_err err = raft_log_open(&original.io, &o, 1, &log, &recovery, NULL);
    CHR_ASSERT(err == CHR_OK);
    chr_hlc hlc = 0;
    for (size_t i = 0; i < 22; i++)
        append(log, 1 + i / 5, &hlc, 1 + i % 4);
    err = raft_log_set_hard_state(log, (struct raft_hard_state){.term = 9, .vote = 1});
    CHR_ASSERT(err == CHR_OK);
    err = raft_log_truncate_suffix(log, raft_log_last(log) - 3);
    CHR_ASSERT(err == CHR_OK);
    append(log, 9, &hlc, 2);
    raft_log_close(log);
    return 0;
}

static void edit(struct fake_disk *disk, const uint8_t *e)
{
    char name[RAFT_IO_NAME_MAX];
    uint64_t id = 1 + e[0] % 4, size, offset = chr_get_u16le(e + 2);
    raft__segment_name(id, name);
    size = fake_disk_size(disk, name);
    if (size == 0)
        return;
    offset %= size;
    uint8_t old[8];
    struct raft__record r;
    uint32_t seed = raft__seed(INCARNATION, id);
    switch (e[1] % 6) {
    case 0: /* one byte */
        fake_disk_poke(disk, name, offset, e + 4, 1);
        break;
    case 1: /* one bit */
        fake_disk_flip_bit(disk, name, offset, e[4]);
        break;
    case 2: /* eight bytes from elsewhere in the file */
        if (size >= 8) {
            fake_disk_peek(disk, name, chr_get_u16le(e + 4) % (size - 7), old, 8);
            fake_disk_poke(disk, name, offset, old, CHR_MIN(8, size - offset));
        }
        break;
    case 3: { /* the record at this multiple of 8 gets right checks; its body stays */
        static uint8_t body[SEGMENT], out[SEGMENT + 8];
        offset &= ~7u;
        if (offset + RAFT__RECORD_BYTES > size)
            return;
        uint8_t head[RAFT__RECORD_BYTES];
        fake_disk_peek(disk, name, offset, head, sizeof head);
        uint32_t length = chr_get_u32le(head + 8);
        if (length < RAFT__RECORD_BYTES || length > size - offset)
            return;
        fake_disk_peek(disk, name, offset + RAFT__RECORD_BYTES, body, length - RAFT__RECORD_BYTES);
        r = (struct raft__record){.prev_crc = chr_get_u32le(head + 4),
                                  .type = head[12],
                                  .index = chr_get_u64le(head + 16),
                                  .term = chr_get_u64le(head + 24),
                                  .group = chr_get_u64le(head + 32),
                                  .hlc = chr_get_u64le(head + 40),
                                  .body = chr_slice_of(body, length - RAFT__RECORD_BYTES)};
        raft__record_encode(seed, (uint32_t)offset, &r, out);
        fake_disk_poke(disk, name, offset, out, length);
        break;
    }
    case 4: { /* the header gets a right CRC */
        uint8_t head[RAFT__HEADER_BYTES];
        if (size < sizeof head)
            return;
        fake_disk_peek(disk, name, 0, head, sizeof head);
        chr_put_u32le(head + 8, chr_crc32c(0, head + 12, sizeof head - 12));
        fake_disk_poke(disk, name, 0, head, sizeof head);
        break;
    }
    case 5:
        if (e[4] % 8 == 0)
            fake_disk_remove(disk, name);
        break;
    }
}

static void read_all(raft_log *log)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 1u << 20);
    uint64_t first = raft_log_first(log), last = raft_log_last(log);
    CHR_ASSERT(first <= last + 1);
    uint64_t next = first;
    while (next <= last) {
        struct raft_entry entries[16];
        size_t count;
        chr_err err = raft_log_read(log, next, 4096, &buf, entries, 16, &count);
        CHR_ASSERT(err == CHR_OK);
        CHR_ASSERT(count > 0);
        for (size_t i = 0; i < count; i++, next++) {
            CHR_ASSERT(entries[i].index == next);
            CHR_ASSERT(raft_log_term_of(log, next) == entries[i].term);
        }
    }
    /* A truncation with forged checks may lie about the HLC before it, so order is not asked for.
     */
    uint64_t index;
    chr_err err = raft_log_seek_hlc(log, first * 3, &index);
    CHR_ASSERT(err == CHR_OK);
    CHR_ASSERT(index >= first && index <= last + 1);
    chr_buf_free(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fake_disk disk;
    if (size == 0)
        return 0;
    if (data[0] & 1) {
        fake_disk_clone(&disk, &original);
        for (size_t at = 1; at + 6 <= size && at < 6 * 64; at += 6)
            edit(&disk, data + at);
    } else {
        fake_disk_open(&disk, 1);
        uint64_t id = 1;
        for (size_t at = 1; at + 2 <= size && id < 20; id++) {
            size_t len = CHR_MIN((size_t)chr_get_u16le(data + at), size - at - 2);
            char name[RAFT_IO_NAME_MAX];
            raft__segment_name(id, name);
            fake_disk_poke(&disk, name, 0, data + at + 2, len);
            at += 2 + len;
        }
    }
    struct raft_log_recovery looked, recovery;
    struct chr_errmsg msg;
    struct raft_log_options o = options(true);
    uint64_t hash = fake_disk_hash(&disk);
    raft_log *log;
    chr_err err = raft_log_open(&disk.io, &o, 1, &log, &looked, &msg);
    if (!err) {
        read_all(log);
        raft_log_close(log);
    }
    CHR_ASSERT(fake_disk_hash(&disk) == hash);
    chr_err looked_err = err;

    o = options(false);
    err = raft_log_open(&disk.io, &o, 1, &log, &recovery, &msg);
    CHR_ASSERT(err == looked_err || looked_err == CHR_ENOTFOUND);
    if (err) {
        CHR_ASSERT(fake_disk_hash(&disk) == hash);
    } else {
        if (looked_err == CHR_OK)
            CHR_ASSERT(recovery.last_index == looked.last_index);
        read_all(log);
        chr_hlc hlc = recovery.last_hlc;
        if (recovery.last_index < UINT64_MAX - 10 && hlc < UINT64_MAX - 10) {
            append(log, recovery.last_term, &hlc, 3);
            read_all(log);
        }
        uint64_t last = raft_log_last(log);
        raft_log_close(log);
        err = raft_log_open(&disk.io, &o, 1, &log, &recovery, &msg);
        CHR_ASSERT(err == CHR_OK);
        CHR_ASSERT(recovery.last_index == last);
        read_all(log);
        raft_log_close(log);
    }
    fake_disk_close(&disk);
    return 0;
}
