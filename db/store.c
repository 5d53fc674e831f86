/* db/store.c: names and small records of the store. */
#include "db/store.h"

#include "base/bytes.h"
#include "db/chunk.h"
#include "db/value_crc.h"

struct db__store_key db__store_key(enum db__record kind, uint64_t number)
{
    struct db__store_key k = {.bytes = {(uint8_t)kind}, .len = 1};
    if (kind == DB__RECORD_TABLE) {
        chr_put_u32be(k.bytes + 1, (uint32_t)number);
        k.len = 5;
    } else if (kind != DB__RECORD_META) {
        chr_put_u64be(k.bytes + 1, number);
        k.len = 9;
    }
    return k;
}

struct db__store_key db__store_key_chunk(uint32_t table_id, uint64_t chunk_id)
{
    struct db__store_key k = {.bytes = {DB__RECORD_CHUNK}, .len = 13};
    chr_put_u32be(k.bytes + 1, table_id);
    chr_put_u64be(k.bytes + 5, chunk_id);
    return k;
}

struct db__store_key db__store_key_part(uint64_t chunk_id, uint8_t kind, uint16_t column)
{
    struct db__store_key k = {.bytes = {DB__RECORD_PART}, .len = 12};
    chr_put_u64be(k.bytes + 1, chunk_id);
    k.bytes[9] = kind;
    chr_put_u16be(k.bytes + 10, column);
    return k;
}

struct db__store_key db__store_key_queue(uint64_t epoch, uint64_t block)
{
    struct db__store_key k = {.bytes = {DB__RECORD_QUEUE}, .len = 17};
    chr_put_u64be(k.bytes + 1, epoch);
    chr_put_u64be(k.bytes + 9, block);
    return k;
}

struct db__store_key db__store_key_of_session(enum db__record kind, uint64_t epoch, uint32_t number)
{
    struct db__store_key k = {.bytes = {(uint8_t)kind}, .len = 13};
    chr_put_u64be(k.bytes + 1, epoch);
    chr_put_u32be(k.bytes + 9, number);
    return k;
}

bool db__store_key_parse_queue(chr_slice key, uint64_t *epoch, uint64_t *block)
{
    if (key.len != 17 || key.ptr[0] != DB__RECORD_QUEUE)
        return false;
    *epoch = chr_get_u64be(key.ptr + 1);
    *block = chr_get_u64be(key.ptr + 9);
    return true;
}

bool db__store_key_parse_of_session(chr_slice key, enum db__record kind, uint64_t *epoch,
                                    uint32_t *number)
{
    if (key.len != 13 || key.ptr[0] != (uint8_t)kind)
        return false;
    *epoch = chr_get_u64be(key.ptr + 1);
    *number = chr_get_u32be(key.ptr + 9);
    return true;
}

bool db__store_key_parse(chr_slice key, enum db__record kind, uint64_t *number)
{
    struct db__store_key like = db__store_key(kind, 0);
    if (key.len != like.len || key.ptr[0] != like.bytes[0])
        return false;
    *number = like.len == 5   ? chr_get_u32be(key.ptr + 1)
              : like.len == 9 ? chr_get_u64be(key.ptr + 1)
                              : 0;
    return true;
}

bool db__store_key_parse_chunk(chr_slice key, uint32_t *table_id, uint64_t *chunk_id)
{
    if (key.len != 13 || key.ptr[0] != DB__RECORD_CHUNK)
        return false;
    *table_id = chr_get_u32be(key.ptr + 1);
    *chunk_id = chr_get_u64be(key.ptr + 5);
    return true;
}

void db__value_begin(struct chr_buf *buf)
{
    static const uint8_t head[DB_VALUE_HEAD_BYTES];
    chr_buf_reset(buf);
    chr_buf_add(buf, head, sizeof head);
}

void db__value_end(struct chr_buf *buf, enum db__record kind)
{
    if (!buf->failed)
        db_value_seal(buf->ptr, buf->len, (uint8_t)kind, DB__RECORD_VERSION);
}

chr_err db__value_pack(struct chr_buf *buf, enum db__record kind, const ProtobufCMessage *message)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    db__value_begin(buf);
    if (buf->failed)
        return CHR_ENOMEM;
    chr_err err = chr_buf_reserve(buf, len);
    if (err)
        return err;
    buf->len += protobuf_c_message_pack(message, buf->ptr + buf->len);
    db__value_end(buf, kind);
    return CHR_OK;
}

ProtobufCMessage *db__value_unpack(chr_slice value, enum db__record kind,
                                   const ProtobufCMessageDescriptor *descriptor, chr_err *err,
                                   struct chr_errmsg *msg)
{
    chr_slice body = {0};
    *err = db_value_open(value, (uint8_t)kind, DB__RECORD_VERSION, true, &body, msg);
    if (*err)
        return NULL;
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, NULL, body.len, body.ptr);
    if (!message)
        *err = chr_fail(msg, CHR_ECORRUPT, "record of kind '%c' is not a %s", kind,
                        descriptor->short_name);
    return message;
}

chr_err db__store_part(const struct db_kv *kv, db_kv_txn *txn, uint64_t chunk_id, uint8_t kind,
                       uint16_t column, chr_slice *value, struct chr_errmsg *msg)
{
    struct db__store_key key = db__store_key_part(chunk_id, kind, column);
    chr_err err = kv->get(kv->ctx, txn, db__key_slice(&key), value);
    if (err == CHR_ENOTFOUND)
        return chr_fail(msg, CHR_ECORRUPT, "part '%c' of column %u is missing", kind, column);
    return err;
}

chr_err db__store_each(const struct db_kv *kv, db_kv_txn *txn, enum db__record kind,
                       chr_err (*visit)(void *ctx, chr_slice key, chr_slice value), void *ctx)
{
    struct db__store_key prefix = {.bytes = {(uint8_t)kind}, .len = 1};
    db_kv_cursor *cursor;
    chr_slice key, value;
    chr_err err =
        kv->cursor_open(kv->ctx, txn, db__key_slice(&prefix), db__key_slice(&prefix), &cursor);
    if (err)
        return err;
    while (!(err = kv->cursor_next(kv->ctx, cursor, &key, &value)))
        if ((err = visit(ctx, key, value)))
            break;
    kv->cursor_close(kv->ctx, cursor);
    return err == CHR_ENOTFOUND ? CHR_OK : err;
}
