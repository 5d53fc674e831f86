/* db/snapshot_format.c: parts of a snapshot as bytes and back. Pure. */
#include "db/snapshot_format.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "db/chunk.h"
#include "db/store.h"
#include "db/value_crc.h"

struct db__snapshot_limits db__snapshot_limits = {
    .part_bytes = DB_SNAPSHOT_PART_BYTES,
    .copy_bytes = 1u << 20,
    .commit_bytes = 8u << 20,
    .place_every = 64,
};

void db__snapshot_part_begin(struct chr_buf *buf)
{
    static const uint8_t head[DB_SNAPSHOT_HEAD_BYTES];
    chr_buf_reset(buf);
    chr_buf_add(buf, head, sizeof head);
}

void db__snapshot_part_end(struct chr_buf *buf, enum db__snapshot_kind kind, uint64_t number,
                           uint64_t id)
{
    if (buf->failed)
        return;
    uint8_t *p = buf->ptr;
    chr_put_u32le(p, DB__SNAPSHOT_MAGIC);
    chr_put_u32le(p + 8, (uint32_t)buf->len);
    chr_put_u32le(p + 12, (uint32_t)kind);
    chr_put_u64le(p + 16, number);
    chr_put_u64le(p + 24, id);
    chr_put_u32le(p + 4, chr_crc32c(0, p + 8, buf->len - 8));
}

uint32_t db_snapshot_part_bytes(const uint8_t head[DB_SNAPSHOT_HEAD_BYTES])
{
    uint32_t length = chr_get_u32le(head + 8);
    bool good = chr_get_u32le(head) == DB__SNAPSHOT_MAGIC && length >= DB_SNAPSHOT_HEAD_BYTES &&
                length <= DB_SNAPSHOT_PART_BYTES_MAX;
    return good ? length : 0;
}

chr_err db__snapshot_part_open(chr_slice bytes, struct db__snapshot_part *part,
                               struct chr_errmsg *msg)
{
    const uint8_t *p = bytes.ptr;
    if (bytes.len < DB_SNAPSHOT_HEAD_BYTES || db_snapshot_part_bytes(p) != bytes.len)
        return chr_fail(msg, CHR_EMALFORMED, "%zu bytes that are no part of a snapshot", bytes.len);
    uint32_t want = chr_get_u32le(p + 4), have = chr_crc32c(0, p + 8, bytes.len - 8);
    uint32_t kind = chr_get_u32le(p + 12);
    uint64_t number = chr_get_u64le(p + 16);
    if (want != have)
        return chr_fail(msg, CHR_ECORRUPT, "part %llu: its checksum is %08x, it says %08x",
                        (unsigned long long)number, have, want);
    *part = (struct db__snapshot_part){
        .kind = (enum db__snapshot_kind)kind,
        .number = number,
        .id = chr_get_u64le(p + 24),
        .body = chr_slice_of(p + DB_SNAPSHOT_HEAD_BYTES, bytes.len - DB_SNAPSHOT_HEAD_BYTES)};
    /* Only the first part may be of a kind unknown here: then it is of a newer format. */
    if (kind < DB__SNAPSHOT_FIRST || kind > DB__SNAPSHOT_LAST ||
        (kind == DB__SNAPSHOT_FIRST) != (number == 0))
        return chr_fail(msg, CHR_EMALFORMED, "part %llu: of kind %u", (unsigned long long)number,
                        kind);
    return CHR_OK;
}

void db__snapshot_first_encode(const struct db_snapshot_info *info, struct chr_buf *buf)
{
    const struct db_snapshot_origin *o = &info->origin;
    db__snapshot_part_begin(buf);
    chr_buf_add_u32le(buf, DB__SNAPSHOT_VERSION);
    chr_buf_add_u32le(buf, (uint32_t)o->members.len);
    const uint64_t numbers[] = {info->index, info->hlc,      o->term,
                                o->cluster,  o->incarnation, o->members_index,
                                info->parts, info->records,  info->bytes};
    for (size_t i = 0; i < CHR_COUNT_OF(numbers); i++)
        chr_buf_add_u64le(buf, numbers[i]);
    chr_buf_add_slice(buf, o->members);
    db__snapshot_part_end(buf, DB__SNAPSHOT_FIRST, 0, info->id);
}

chr_err db__snapshot_first_decode(const struct db__snapshot_part *part,
                                  struct db_snapshot_info *info, struct chr_errmsg *msg)
{
    const uint8_t *p = part->body.ptr;
    if (part->kind != DB__SNAPSHOT_FIRST || part->body.len < 4)
        return chr_fail(msg, CHR_EMALFORMED, "the first part is no first part");
    uint32_t version = chr_get_u32le(p);
    if (version != DB__SNAPSHOT_VERSION)
        return chr_fail(msg, CHR_EVERSION, "snapshot of format version %u, known is %u", version,
                        DB__SNAPSHOT_VERSION);
    if (part->body.len < DB__SNAPSHOT_FIRST_BYTES)
        return chr_fail(msg, CHR_EMALFORMED, "the first part is too short");
    uint32_t members = chr_get_u32le(p + 4);
    *info = (struct db_snapshot_info){
        .id = part->id,
        .index = chr_get_u64le(p + 8),
        .hlc = chr_get_u64le(p + 16),
        .origin = {.term = chr_get_u64le(p + 24),
                   .cluster = chr_get_u64le(p + 32),
                   .incarnation = chr_get_u64le(p + 40),
                   .members_index = chr_get_u64le(p + 48),
                   .members = chr_slice_of(p + DB__SNAPSHOT_FIRST_BYTES, members)},
        .parts = chr_get_u64le(p + 56),
        .records = chr_get_u64le(p + 64),
        .bytes = chr_get_u64le(p + 72),
    };
    if (members > DB_SNAPSHOT_MEMBERS_MAX ||
        part->body.len != DB__SNAPSHOT_FIRST_BYTES + (size_t)members || info->parts < 3 ||
        info->origin.members_index > info->index)
        return chr_fail(msg, CHR_EMALFORMED, "the first part contradicts itself");
    return CHR_OK;
}

chr_err db_snapshot_part_info(chr_slice bytes, struct db_snapshot_info *info,
                              struct chr_errmsg *msg)
{
    struct db__snapshot_part part;
    chr_err err = db__snapshot_part_open(bytes, &part, msg);
    return err ? err : db__snapshot_first_decode(&part, info, msg);
}

/* -- Records ------------------------------------------------------------------------------------*/

void db__snapshot_record_add(struct chr_buf *buf, chr_slice key, chr_slice value)
{
    chr_buf_add_u16le(buf, (uint16_t)key.len);
    chr_buf_add_u32le(buf, (uint32_t)value.len);
    chr_buf_add_slice(buf, key);
    chr_buf_add_slice(buf, value);
}

int db__snapshot_record_next(chr_slice body, size_t *at, chr_slice *key, chr_slice *value)
{
    size_t left = body.len - *at;
    const uint8_t *p = body.ptr + *at;
    if (left == 0)
        return 0;
    if (left < DB__SNAPSHOT_RECORD_HEAD)
        return CHR_EMALFORMED;
    size_t key_len = chr_get_u16le(p), value_len = chr_get_u32le(p + 2);
    if (key_len == 0 || key_len > DB_KV_KEY_MAX || value_len > DB_KV_VALUE_MAX ||
        db__snapshot_record_bytes(key_len, value_len) > left)
        return CHR_EMALFORMED;
    *key = chr_slice_of(p + DB__SNAPSHOT_RECORD_HEAD, key_len);
    *value = chr_slice_of(p + DB__SNAPSHOT_RECORD_HEAD + key_len, value_len);
    *at += db__snapshot_record_bytes(key_len, value_len);
    return 1;
}

static bool key_is_known(chr_slice key)
{
    uint64_t number;
    uint32_t small;
    switch (key.ptr[0]) {
    case DB__RECORD_PART:
        return key.len == 12 && (key.ptr[9] == DB_CHUNK_HEAD || key.ptr[9] == DB_CHUNK_COLUMN ||
                                 key.ptr[9] == DB_CHUNK_RUNS);
    case DB__RECORD_CHUNK:
        return db__store_key_parse_chunk(key, &small, &number);
    case DB__RECORD_QUEUE:
        return db__store_key_parse_queue(key, &number, &number);
    case DB__RECORD_SUBSCRIPTION:
    case DB__RECORD_WILL:
        return db__store_key_parse_of_session(key, (enum db__record)key.ptr[0], &number, &small);
    case DB__RECORD_META:
    case DB__RECORD_TABLE:
    case DB__RECORD_MARKS:
    case DB__RECORD_SESSION:
    case DB__RECORD_REQUEST:
    case DB__RECORD_MESSAGE:
    case DB__RECORD_RETAINED:
        return db__store_key_parse(key, (enum db__record)key.ptr[0], &number);
    default:
        return false;
    }
}

chr_err db__snapshot_record_check(chr_slice key, chr_slice value, struct chr_errmsg *msg)
{
    if (!key_is_known(key))
        return chr_fail(msg, CHR_ECORRUPT, "a record that begins with 0x%02x is of no known kind",
                        key.ptr[0]);
    uint8_t kind = key.ptr[0] == DB__RECORD_PART ? key.ptr[9] : key.ptr[0];
    if (value.len >= DB_VALUE_HEAD_BYTES && value.ptr[5] == kind &&
        chr_get_u32le(value.ptr) == chr_crc32c(0, value.ptr + 4, value.len - 4))
        return CHR_OK;
    unsigned long long number = key.len >= 9 ? (unsigned long long)chr_get_u64be(key.ptr + 1) : 0;
    if (key.ptr[0] == DB__RECORD_PART)
        return chr_fail(msg, CHR_ECORRUPT, "part '%c' of column %u of chunk %llu is damaged", kind,
                        chr_get_u16be(key.ptr + 10), number);
    return chr_fail(msg, CHR_ECORRUPT, "record '%c' %llu is damaged", kind, number);
}
