/* db/store.h: names and small records of the store (docs/formats.md, "Store").
 *
 *   key                                         value
 *   'm'                                         Meta: what makes a checkpoint true
 *   't' table u32                               TableDef
 *   'c' table u32, chunk u64                    ChunkRecord: the manifest
 *   'd' chunk u64, kind u8, column u16          a part of a chunk (db/chunk.h)
 *   'b' chunk u64                               bitmap of deleted rows as of the checkpoint
 *   's' epoch u64                               Session
 *   'q' sequence u64                            RequestKey
 *   'p' message u64                             a message (db/message.c)
 *   'e' epoch u64, block u64                    64 places of a queue (db/durable_save.c)
 *   'u' epoch u64, number u32                   Subscription
 *   'r' message u64                             this message is retained (empty)
 *   'w' epoch u64, generation u32               Will
 *   'g' chunk u64                               a chunk whose parts are still to be deleted
 *   '~'                                         how far a snapshot has come that is being received
 *
 * Numbers in keys are big-endian, so that they sort; values begin with db/value_crc.h, bodies are
 * protobuf (proto/catalog.proto) but for 'b' (u64 words, little-endian), 'd', 'p', 'e', 'g' and 'r'
 * (empty). */
#ifndef CHR_DB_STORE_H
#define CHR_DB_STORE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "db/kv.h"
#include "proto/catalog.pb-c.h"

/* Of Meta: of the store as a whole. 2 has the records p, e, u, r and w; 1 is still read. */
#define DB__STORE_VERSION  2
#define DB__RECORD_VERSION 1

enum db__record {
    DB__RECORD_META = 'm',
    DB__RECORD_TABLE = 't',
    DB__RECORD_CHUNK = 'c',
    DB__RECORD_PART = 'd',
    DB__RECORD_MARKS = 'b',
    DB__RECORD_SESSION = 's',
    DB__RECORD_REQUEST = 'q',
    DB__RECORD_GARBAGE = 'g',
    DB__RECORD_MESSAGE = 'p',
    DB__RECORD_QUEUE = 'e',
    DB__RECORD_SUBSCRIPTION = 'u',
    DB__RECORD_RETAINED = 'r',
    DB__RECORD_WILL = 'w',
    DB__RECORD_RECEIVING = '~', /* db/snapshot_receive.c; only in a store without Meta */
};

struct db__store_key {
    uint8_t bytes[20];
    uint8_t len;
};
CHR_INLINE chr_slice db__key_slice(const struct db__store_key *key)
{
    return chr_slice_of(key->bytes, key->len);
}
/* The record kinds with one number; META ignores it, TABLE takes 32 bits. */
struct db__store_key db__store_key(enum db__record kind, uint64_t number);
struct db__store_key db__store_key_chunk(uint32_t table_id, uint64_t chunk_id);
struct db__store_key db__store_key_part(uint64_t chunk_id, uint8_t kind, uint16_t column);
struct db__store_key db__store_key_queue(uint64_t epoch, uint64_t block);
/* SUBSCRIPTION and WILL: an epoch and a number of 32 bits. */
struct db__store_key db__store_key_of_session(enum db__record kind, uint64_t epoch,
                                              uint32_t number);
/* Numbers back out of a key of the store; false: not of this kind and length. */
bool db__store_key_parse(chr_slice key, enum db__record kind, uint64_t *number);
bool db__store_key_parse_queue(chr_slice key, uint64_t *epoch, uint64_t *block);
bool db__store_key_parse_of_session(chr_slice key, enum db__record kind, uint64_t *epoch,
                                    uint32_t *number);
bool db__store_key_parse_chunk(chr_slice key, uint32_t *table_id, uint64_t *chunk_id);

/* Starts a value in buf (reset first) and finishes it: head and checksum. */
void db__value_begin(struct chr_buf *buf);
void db__value_end(struct chr_buf *buf, enum db__record kind);
/* A protobuf message as a value. */
CHR_MUST_USE chr_err db__value_pack(struct chr_buf *buf, enum db__record kind,
                                    const ProtobufCMessage *message);
/* And back; NULL with *err set. Free with protobuf_c_message_free_unpacked. */
ProtobufCMessage *db__value_unpack(chr_slice value, enum db__record kind,
                                   const ProtobufCMessageDescriptor *descriptor, chr_err *err,
                                   struct chr_errmsg *msg);

/* Calls visit for each record of a kind, in the order of keys, until it fails; its error, or that
 * of the store. key and value are borrowed during the call. */
CHR_MUST_USE chr_err db__store_each(const struct db_kv *kv, db_kv_txn *txn, enum db__record kind,
                                    chr_err (*visit)(void *ctx, chr_slice key, chr_slice value),
                                    void *ctx);

/* Reads of parts of a chunk within a transaction; msg names the part. */
CHR_MUST_USE chr_err db__store_part(const struct db_kv *kv, db_kv_txn *txn, uint64_t chunk_id,
                                    uint8_t kind, uint16_t column, chr_slice *value,
                                    struct chr_errmsg *msg);

#endif
