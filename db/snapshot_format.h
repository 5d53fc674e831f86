/* db/snapshot_format.h: the bytes of a part of a snapshot; for db/ alone (docs/formats.md).
 *
 *   part: head, body                              body of part 0 (FIRST)
 *   offset size                                   offset size
 *      0    4  magic "CSNP"                          0    4  format version
 *      4    4  CRC-32C of bytes [8, length)          4    4  bytes of members, m
 *      8    4  length, head included                 8    8  index
 *     12    1  kind                                 16    8  HLC
 *     13    3  0                                    24    8  term
 *     16    8  number                               32    8  cluster
 *     24    8  id of the snapshot                   40    8  incarnation of the log
 *                                                   48    8  index of the members
 *   body of RECORDS: records, back to back          56    8  parts
 *      0    2  length of the key, k                 64    8  records
 *      2    4  length of the value, v               72    8  bytes of keys and values
 *      6    k  key                                  80    m  members
 *    6+k    v  value                              body of LAST: none */
#ifndef CHR_DB_SNAPSHOT_FORMAT_H
#define CHR_DB_SNAPSHOT_FORMAT_H

#include "db/snapshot.h"

#define DB__SNAPSHOT_VERSION     1u
#define DB__SNAPSHOT_MAGIC       0x504e5343u /* "CSNP" */
#define DB__SNAPSHOT_FIRST_BYTES 80u
#define DB__SNAPSHOT_RECORD_HEAD 6u

enum db__snapshot_kind {
    DB__SNAPSHOT_FIRST = 1,
    DB__SNAPSHOT_RECORDS = 2,
    DB__SNAPSHOT_LAST = 3,
};

struct db__snapshot_part {
    enum db__snapshot_kind kind;
    uint64_t number, id;
    chr_slice body;
};

/* Starts a part in buf (reset first); the body is added by the caller, and the head filled in. */
void db__snapshot_part_begin(struct chr_buf *buf);
void db__snapshot_part_end(struct chr_buf *buf, enum db__snapshot_kind kind, uint64_t number,
                           uint64_t id);
/* Checks the head and the checksum. */
CHR_MUST_USE chr_err db__snapshot_part_open(chr_slice bytes, struct db__snapshot_part *part,
                                            struct chr_errmsg *msg);
void db__snapshot_first_encode(const struct db_snapshot_info *info, struct chr_buf *buf);
/* members is borrowed from the part. */
CHR_MUST_USE chr_err db__snapshot_first_decode(const struct db__snapshot_part *part,
                                               struct db_snapshot_info *info,
                                               struct chr_errmsg *msg);

/* Sizes, so that tests reach their borders with few records. */
struct db__snapshot_limits {
    uint32_t part_bytes;   /* DB_SNAPSHOT_PART_BYTES */
    uint32_t copy_bytes;   /* of small records, copied per read transaction */
    uint32_t commit_bytes; /* received per commit */
    uint32_t place_every;  /* parts of chunks per place that is kept: 8 bytes for each 16 MiB */
};
extern struct db__snapshot_limits db__snapshot_limits;

CHR_INLINE size_t db__snapshot_record_bytes(size_t key_len, size_t value_len)
{
    return DB__SNAPSHOT_RECORD_HEAD + key_len + value_len;
}
/* Does a record go into the part at hand, after `used` bytes of body? The first one always does. */
CHR_INLINE bool db__snapshot_fits(size_t used, size_t record_bytes)
{
    return used == 0 ||
           DB_SNAPSHOT_HEAD_BYTES + used + record_bytes <= db__snapshot_limits.part_bytes;
}
void db__snapshot_record_add(struct chr_buf *buf, chr_slice key, chr_slice value);
/* The record at *at of a body, and moves *at behind it: 1; 0 at the end; below 0: CHR_EMALFORMED.
 */
int db__snapshot_record_next(chr_slice body, size_t *at, chr_slice *key, chr_slice *value);

/* Is this a record that a snapshot may hold: a key of a known kind and form, a value with its own
 * checksum, of that kind? CHR_ECORRUPT; msg names the key. */
CHR_MUST_USE chr_err db__snapshot_record_check(chr_slice key, chr_slice value,
                                               struct chr_errmsg *msg);

#endif
