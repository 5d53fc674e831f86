/* db/value_crc.h: the eight bytes that every value in the store begins with.
 *
 *     offset size
 *          0    4  CRC-32C of all that follows, to the end of the value
 *          4    1  version of the format of this kind
 *          5    1  kind: a letter, so that a value under a wrong key is noticed
 *          6    2  zero
 *
 * LMDB has no page checksums (R15); these are ours. A checksum proves that the disk gave back what
 * was written, not that it was well-formed: whoever parses the body still checks each length. */
#ifndef CHR_DB_VALUE_CRC_H
#define CHR_DB_VALUE_CRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/slice.h"

#define DB_VALUE_HEAD_BYTES 8

/* Fills in the head of value[0, len); len >= DB_VALUE_HEAD_BYTES, the body already in place. */
CHR_INLINE void db_value_seal(uint8_t *value, size_t len, uint8_t kind, uint8_t version)
{
    value[4] = version;
    value[5] = kind;
    value[6] = 0;
    value[7] = 0;
    chr_put_u32le(value, chr_crc32c(0, value + 4, len - 4));
}

/* The body of a value of this kind and version, borrowed from it; empty on failure.
 *   verify  false when the caller has verified these very bytes before (the checksum is most of the
 *           cost of opening a value that is looked at in one place only)
 * Fails with CHR_ECORRUPT (too short, checksum, other kind) or CHR_EVERSION (newer). */
CHR_INLINE CHR_MUST_USE chr_err db_value_open(chr_slice value, uint8_t kind, uint8_t version,
                                              bool verify, chr_slice *body, struct chr_errmsg *msg)
{
    *body = chr_slice_of(NULL, 0);
    if (value.len < DB_VALUE_HEAD_BYTES)
        return chr_fail(msg, CHR_ECORRUPT, "value of %zu bytes is too short for its head",
                        value.len);
    if (verify) {
        uint32_t want = chr_get_u32le(value.ptr);
        uint32_t have = chr_crc32c(0, value.ptr + 4, value.len - 4);
        if (want != have)
            return chr_fail(msg, CHR_ECORRUPT,
                            "checksum of a value of %zu bytes is %08x, stored was %08x", value.len,
                            have, want);
    }
    if (value.ptr[5] != kind)
        return chr_fail(msg, CHR_ECORRUPT, "value is of kind %u, expected %u", value.ptr[5], kind);
    if (value.ptr[4] != version)
        return chr_fail(msg, CHR_EVERSION, "value of kind '%c' has format version %u, known is %u",
                        kind, value.ptr[4], version);
    *body = chr_slice_of(value.ptr + DB_VALUE_HEAD_BYTES, value.len - DB_VALUE_HEAD_BYTES);
    return CHR_OK;
}

#endif
