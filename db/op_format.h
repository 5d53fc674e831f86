/* db/op_format.h: the bytes of operations (docs/formats.md, "Log entries"); for db/ alone.
 *
 * Everything is little-endian; every part below is padded with zeros to 8 bytes.
 *
 *   ROWS body
 *     0  u8  mode (enum db_rows_mode)
 *     1  u8  0
 *     2  u16 columns written, `n`
 *     4  u32 schema version of the table
 *     8  u64 0 (a synced row's own HLC will stand here)
 *    16  n column heads of 16 bytes, ids rising
 *         0  u16 column id
 *         2  u8  type
 *         3  u8  form (enum db__rows_form)
 *         4  u8  flags (DB__ROWS_VALIDITY, DB__ROWS_NAMED)
 *         5  u8[3] 0
 *         8  u32 bytes of its part below
 *        12  u32 bytes of its heap (STRING, BLOB)
 *   then per column
 *        [validity]   bitmap, bit i: row i is not NULL         with DB__ROWS_VALIDITY
 *        [named]      bitmap, bit i: row i says NULL explicitly with DB__ROWS_NAMED
 *        values       PLAIN: i64/f64[rows] | u8[rows] | u32 ends[rows], heap
 *                     CONSTANT: one i64/f64/u64(0 or 1) | heap
 *                     NULL: nothing
 *   then u32 guards[rows]                                       with DB_OP_GUARDED
 *
 *   DELETE   row ids[count]: u64 entry, u32 ordinal, u32 0
 *   UPDATE   row ids[count], then a ROWS body (mode INSERT)
 *   CREATE_TABLE, ALTER_TABLE   u32 length, u32 0, protobuf TableDef
 *   DROP_TABLE   nothing
 *   SESSION_OPEN   u32 expiry_s, u8 clean_start, u8[3] 0, u32 length, u32 0, client id
 *                  with DB_OP_DURABLE in front of the client id: u32 queue messages, u32 window,
 *                  u64 queue bytes, u64 bytes of all queues, u8 flags (1 drop oldest, 2 will, 4 the
 *                  will is retained, 8 an owner is said, 16 the node is said), u8 QoS of the will,
 *                  u16 0, u32 will delay_s, u32 will message expiry_s, u32 topic, u32 properties,
 *                  u32 payload length, u32 owner length, u32 0, with 16: u64 node (not 0), u64
 *                  boot; behind the client id the owner, and topic, properties and payload of the
 *                  will
 *   SESSION_CLOSE  u64 epoch, u32 generation, u32 expiry_s, u32 length, u32 flags (1 the will is
 *                  kept, 2 sent follows), with 2: u64 sent; client id
 *   SUBSCRIBE      u64 epoch, u32 generation, u32 0, heads[count] of 16 bytes, then each filter and
 *                  group: u32 filter length, u32 group length, u32 id, u8 qos, u8 flags (1 no
 *                  local, 2 retain as published), u8 retain handling, u8 0
 *   UNSUBSCRIBE    the same; id, qos, flags and handling are 0
 *   MESSAGE        u64 publisher, u32 expiry_s, u32 guard, u8 qos, u8 retain, u16 0, u32 topic, u32
 *                  properties, u32 payload length, the bytes
 *   QUEUE_ACK      u64 epoch, u32 generation, u32 ranges done, ranges[count]: u64 first, u64 last;
 *                  the others are received
 *   NODE_DOWN      u64 node, u64 boot
 *   GUARDS, RELEASE   items[count]: u64 epoch, u32 generation, u16 packet id, u16 0
 *   REJECT   i64 received_at_us, u32 guard, u32 topic, u32 payload, u32 reason length, the bytes
 *   REQUEST_KEY   u32 user length, u32 key length, the bytes
 *   GRANT   u8 kind, u8 privileges, u8 revoke, u8 0, u32 length, name of the grantee */
#ifndef CHR_DB_OP_FORMAT_H
#define CHR_DB_OP_FORMAT_H

#include "db/op.h"

#define DB__ENTRY_VERSION    1
#define DB__ENTRY_HEAD       16
#define DB__OP_HEAD          16
#define DB__ROWS_HEAD        16
#define DB__ROWS_COLUMN_HEAD 16
#define DB__ROW_ID_BYTES     16
#define DB__GUARD_BYTES      16
#define DB__OPEN_DURABLE     56 /* between head and client id */
#define DB__OPEN_NODE        16 /* behind that, with DB__OPEN_PLACE */
#define DB__FILTER_HEAD      16
#define DB__MESSAGE_HEAD     32
#define DB__RANGE_BYTES      16

#define DB__OPEN_DROP_OLDEST 0x1
#define DB__OPEN_WILL        0x2
#define DB__OPEN_WILL_RETAIN 0x4
#define DB__OPEN_OWNER       0x8
#define DB__OPEN_PLACE       0x10
#define DB__CLOSE_WILL_KEEP  0x1
#define DB__CLOSE_SENT       0x2 /* always set by now */

#define DB__ROWS_VALIDITY 0x1
#define DB__ROWS_NAMED    0x2

enum db__rows_form {
    DB__ROWS_PLAIN = 0,
    DB__ROWS_CONSTANT = 1, /* every row is not NULL and has the same value */
    DB__ROWS_NULL = 2,     /* every row says NULL explicitly */
};

/* Limits of what an operation may carry; beyond them it is malformed. */
#define DB__CLIENT_ID_MAX    65535 /* MQTT string */
#define DB__OWNER_MAX        65535u
#define DB__REQUEST_PART_MAX 1024 /* of user or idempotency key */

#endif
