/* raft/log_format.c: segment headers and records to bytes and back. See log_format.h. */
#include "raft/log_format.h"

#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"

#define H(field) offsetof(struct raft__header_layout, field)
#define R(field) offsetof(struct raft__record_layout, field)

void raft__header_encode(const struct raft__header *header, uint8_t out[RAFT__HEADER_BYTES])
{
    memset(out, 0, RAFT__HEADER_BYTES);
    memcpy(out, RAFT__MAGIC, 8);
    chr_put_u32le(out + H(version), RAFT__FORMAT_VERSION);
    chr_put_u64le(out + H(segment), header->segment);
    chr_put_u64le(out + H(incarnation), header->incarnation);
    chr_put_u64le(out + H(segment_bytes), header->segment_bytes);
    chr_put_u64le(out + H(next_index), header->next_index);
    chr_put_u64le(out + H(prev_end), header->prev_end);
    chr_put_u64le(out + H(group), header->group);
    chr_put_u32le(out + H(prev_crc), header->prev_crc);
    chr_put_u64le(out + H(last_term), header->last_term);
    chr_put_u64le(out + H(last_hlc), header->last_hlc);
    chr_put_u64le(out + H(hard_term), header->hard_state.term);
    chr_put_u64le(out + H(hard_vote), header->hard_state.vote);
    chr_put_u32le(out + H(crc), chr_crc32c(0, out + 12, RAFT__HEADER_BYTES - 12));
}

chr_err raft__header_decode(const uint8_t bytes[RAFT__HEADER_BYTES], struct raft__header *header)
{
    if (memcmp(bytes, RAFT__MAGIC, 8) != 0 ||
        chr_get_u32le(bytes + H(crc)) != chr_crc32c(0, bytes + 12, RAFT__HEADER_BYTES - 12))
        return CHR_ECORRUPT;
    /* The place of magic, crc and version is the same in every version to come. */
    if (chr_get_u32le(bytes + H(version)) != RAFT__FORMAT_VERSION)
        return CHR_EVERSION;
    *header = (struct raft__header){
        .segment = chr_get_u64le(bytes + H(segment)),
        .incarnation = chr_get_u64le(bytes + H(incarnation)),
        .segment_bytes = chr_get_u64le(bytes + H(segment_bytes)),
        .next_index = chr_get_u64le(bytes + H(next_index)),
        .prev_end = chr_get_u64le(bytes + H(prev_end)),
        .group = chr_get_u64le(bytes + H(group)),
        .prev_crc = chr_get_u32le(bytes + H(prev_crc)),
        .last_term = chr_get_u64le(bytes + H(last_term)),
        .last_hlc = chr_get_u64le(bytes + H(last_hlc)),
        .hard_state = {.term = chr_get_u64le(bytes + H(hard_term)),
                       .vote = chr_get_u64le(bytes + H(hard_vote))},
    };
    return CHR_OK;
}

uint32_t raft__seed(uint64_t incarnation, uint64_t segment)
{
    uint8_t bytes[16];
    chr_put_u64le(bytes, incarnation);
    chr_put_u64le(bytes + 8, segment);
    return chr_crc32c(0, bytes, sizeof bytes);
}

static uint32_t seed_at(uint32_t seed, uint32_t offset)
{
    uint8_t bytes[4];
    chr_put_u32le(bytes, offset);
    return chr_crc32c(seed, bytes, sizeof bytes);
}

/* The header alone, `check` itself left out. */
static uint16_t header_check(uint32_t start, const uint8_t *bytes)
{
    uint32_t crc = chr_crc32c(start, bytes + 4, R(check) - 4);
    return (uint16_t)chr_crc32c(crc, bytes + R(index), RAFT__RECORD_BYTES - R(index));
}

void raft__record_encode(uint32_t seed, uint32_t offset, struct raft__record *record, uint8_t *out)
{
    uint32_t start = seed_at(seed, offset);
    record->length = (uint32_t)(RAFT__RECORD_BYTES + record->body.len);
    chr_put_u32le(out + R(prev_crc), record->prev_crc);
    chr_put_u32le(out + R(length), record->length);
    out[R(type)] = record->type;
    out[R(flags)] = 0;
    chr_put_u64le(out + R(index), record->index);
    chr_put_u64le(out + R(term), record->term);
    chr_put_u64le(out + R(group), record->group);
    chr_put_u64le(out + R(hlc), record->hlc);
    chr_put_u16le(out + R(check), header_check(start, out));
    if (record->body.len)
        memcpy(out + RAFT__RECORD_BYTES, record->body.ptr, record->body.len);
    memset(out + record->length, 0, raft__record_space(record->body.len) - record->length);
    record->crc = chr_crc32c(start, out + 4, record->length - 4);
    chr_put_u32le(out + R(crc), record->crc);
}

bool raft__record_peek(uint32_t seed, uint32_t offset, uint64_t limit, const uint8_t *bytes,
                       struct raft__record *record)
{
    /* Cheap questions first: recovery asks this at every multiple of 8 of what it doubts. */
    uint32_t length = chr_get_u32le(bytes + R(length));
    uint8_t type = bytes[R(type)];
    if (length < RAFT__RECORD_BYTES || length > RAFT__RECORD_BYTES + RAFT_ENTRY_BYTES_MAX ||
        type == 0 || bytes[R(flags)] != 0 || (uint64_t)offset + length > limit)
        return false;
    if (chr_get_u16le(bytes + R(check)) != header_check(seed_at(seed, offset), bytes))
        return false;
    *record = (struct raft__record){
        .crc = chr_get_u32le(bytes + R(crc)),
        .prev_crc = chr_get_u32le(bytes + R(prev_crc)),
        .length = length,
        .type = type,
        .index = chr_get_u64le(bytes + R(index)),
        .term = chr_get_u64le(bytes + R(term)),
        .group = chr_get_u64le(bytes + R(group)),
        .hlc = chr_get_u64le(bytes + R(hlc)),
    };
    return true;
}

bool raft__record_verify(uint32_t seed, uint32_t offset, const uint8_t *bytes,
                         struct raft__record *record)
{
    record->body = chr_slice_of(bytes + RAFT__RECORD_BYTES, record->length - RAFT__RECORD_BYTES);
#ifdef CHR_PLANT_ACCEPT_BAD_CRC /* tests/raft/test_log_planted.c must notice */
    return true;
#endif
    return record->crc == chr_crc32c(seed_at(seed, offset), bytes + 4, record->length - 4);
}

void raft__segment_name(uint64_t id, char name[RAFT_IO_NAME_MAX])
{
    snprintf(name, RAFT_IO_NAME_MAX, "%020llu.seg", (unsigned long long)id);
}
