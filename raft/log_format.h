/* raft/log_format.h: the bytes of a log segment, and nothing else (R16; docs/formats.md).
 *
 * A segment is a header and records, back to back, each at a multiple of 8. All integers are
 * little-endian.
 *
 *   segment header, 128 bytes                     record, 48 bytes and its body
 *   offset size                                   offset size
 *      0    8  magic "CHRLOG\r\n"                    0    4  crc: seed, offset, then bytes [4,
 * length) 8    4  crc of bytes [12, 128)                4    4  prev_crc: crc of the record before
 * (L3) 12    4  format version                        8    4  length: header and body, without
 * padding 16    8  segment id (also the file's name)    12    1  type 24    8  log incarnation 13
 * 1  flags, 0 32    8  segment bytes (capacity)             14    2  check: of this header alone 40
 * 8  index of the next entry              16    8  index 48    8  position where the log ended 24
 * 8  term 56    8  group that opened the segment        32    8  group 64    4  crc of the last
 * record before        40    8  HLC 68    4  0                                    48    .  body,
 * then zeros up to a multiple of 8 72    8  term of the entry before 80    8  HLC of the entry
 * before 88    8  hard state: term 96    8  hard state: vote 104   24  0
 *
 * Position: segment id << 32 | offset. It only ever rises, so it can name things:
 *
 * Group number: the position at which the log ended when the group was begun, that is when the
 * fdatasync of the group before had returned (L1). So a valid record says by itself how far the log
 * was durable when it was written: everything below its group number. That is the whole rule of
 * recovery: at a bad record at position B, a valid record further on with group > B proves that B
 * had been durable (corruption); one with group <= B belongs to the group that B was part of and
 * proves nothing (torn tail).
 *
 * Seed: CRC-32C of (incarnation, segment id); the record's offset follows. So a record that a
 * recycled segment still holds, or an image of a record inside somebody's payload, is never valid.
 * `check` is the low half of the same CRC over the header alone: it lets recovery look for records
 * at every multiple of 8 without running over megabytes for each length that a payload makes up. */
#ifndef CHR_RAFT_LOG_FORMAT_H
#define CHR_RAFT_LOG_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "raft/log.h"

#define RAFT__FORMAT_VERSION 1u
#define RAFT__HEADER_BYTES   128u
#define RAFT__RECORD_BYTES   48u
#define RAFT__MAGIC          "CHRLOG\r\n"

/* Written whole pages: the kernel then need not read a page before changing a part of it. */
#define RAFT__PAGE_BYTES 4096u
/* A write to a sector leaves its old or its new content when power fails; the header relies on it.
 */
#define RAFT__SECTOR_BYTES 512u
_Static_assert(RAFT__HEADER_BYTES <= RAFT__SECTOR_BYTES, "the header must not tear");
_Static_assert(RAFT__HEADER_BYTES % 8 == 0 && RAFT__RECORD_BYTES % 8 == 0, "records are aligned");

/* 1..127 are enum raft_entry_type: they have an index of their own. */
enum raft__record_type {
    RAFT__ENTRY_TYPE_MAX = 127,
    RAFT__HARD_STATE = 129, /* body: term, vote (8 + 8) */
    RAFT__TRUNCATE = 130,   /* entries above `index` are dropped; term, hlc: those of index */
    RAFT__WITNESS = 131,    /* no body; a group whose existence proves the group before (close) */
    RAFT__RECORD_TYPE_END
};

struct raft__header_layout {
    uint8_t magic[8];
    uint32_t crc, version;
    uint64_t segment, incarnation, segment_bytes, next_index, prev_end, group;
    uint32_t prev_crc, zero;
    uint64_t last_term, last_hlc, hard_term, hard_vote;
    uint8_t zeros[24];
};
_Static_assert(sizeof(struct raft__header_layout) == RAFT__HEADER_BYTES, "layout");
_Static_assert(offsetof(struct raft__header_layout, segment) == 16, "layout");
_Static_assert(offsetof(struct raft__header_layout, next_index) == 40, "layout");
_Static_assert(offsetof(struct raft__header_layout, prev_crc) == 64, "layout");
_Static_assert(offsetof(struct raft__header_layout, hard_vote) == 96, "layout");

struct raft__record_layout {
    uint32_t crc, prev_crc, length;
    uint8_t type, flags;
    uint16_t check;
    uint64_t index, term, group, hlc;
};
_Static_assert(sizeof(struct raft__record_layout) == RAFT__RECORD_BYTES, "layout");
_Static_assert(offsetof(struct raft__record_layout, check) == 14, "layout");
_Static_assert(offsetof(struct raft__record_layout, hlc) == 40, "layout");

typedef uint64_t raft__pos; /* segment id << 32 | offset */

CHR_INLINE raft__pos raft__pos_of(uint64_t segment, uint64_t offset)
{
    return segment << 32 | offset;
}
CHR_INLINE uint64_t raft__pos_segment(raft__pos pos)
{
    return pos >> 32;
}
CHR_INLINE uint64_t raft__pos_offset(raft__pos pos)
{
    return pos & UINT32_MAX;
}

/* What a header says, decoded. */
struct raft__header {
    uint64_t segment, incarnation;
    uint64_t segment_bytes; /* bytes of the file; records stay below it */
    uint64_t next_index;    /* the first entry written here has this index */
    raft__pos prev_end;     /* 0 in the very first segment */
    raft__pos group;
    uint32_t prev_crc;
    uint64_t last_term;
    chr_hlc last_hlc;
    struct raft_hard_state hard_state;
};

/* What a record says, decoded. */
struct raft__record {
    uint32_t crc, prev_crc;
    uint32_t length; /* header and body, without padding */
    uint8_t type;
    uint64_t index, term;
    raft__pos group;
    chr_hlc hlc;
    chr_slice body; /* into the bytes that were decoded */
};

CHR_INLINE bool raft__is_entry(uint8_t type)
{
    return type >= 1 && type <= RAFT__ENTRY_TYPE_MAX;
}
CHR_INLINE uint64_t raft__record_space(uint64_t body_bytes)
{
    return chr_round_up(RAFT__RECORD_BYTES + body_bytes, 8);
}

void raft__header_encode(const struct raft__header *header, uint8_t out[RAFT__HEADER_BYTES]);
/* CHR_ECORRUPT: not a header (zeros, a torn one, something else); CHR_EVERSION: of a newer format.
 * Whether it is this segment's header is for the caller to see. */
chr_err raft__header_decode(const uint8_t bytes[RAFT__HEADER_BYTES], struct raft__header *header);

uint32_t raft__seed(uint64_t incarnation, uint64_t segment);
/* Writes header, body and padding (raft__record_space bytes) to out and sets record->crc. */
void raft__record_encode(uint32_t seed, uint32_t offset, struct raft__record *record, uint8_t *out);

/* Looks at the 48 bytes of a header at `offset` of a segment of `limit` bytes; true when its check
 * is right, then everything but body is decoded and offset + length <= limit. */
bool raft__record_peek(uint32_t seed, uint32_t offset, uint64_t limit, const uint8_t *bytes,
                       struct raft__record *record);
/* Verifies the crc of a peeked record whose `length` bytes are at `bytes`; sets body. */
bool raft__record_verify(uint32_t seed, uint32_t offset, const uint8_t *bytes,
                         struct raft__record *record);

/* "00000000000000000001.seg" */
void raft__segment_name(uint64_t id, char name[RAFT_IO_NAME_MAX]);

#endif
