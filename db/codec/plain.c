/* db/codec/plain.c: the two codecs that compute nothing.
 *
 *     raw       count * 8 bytes
 *     constant  8 bytes */
#include <string.h>

#include "base/bytes.h"
#include "db/codec/codec.h"

static size_t raw_size(struct db_ints *ints)
{
    return (size_t)ints->count * 8;
}

static void raw_encode(struct db_ints *ints, struct chr_buf *out)
{
    chr_buf_add(out, ints->values, (size_t)ints->count * 8);
}

static chr_err raw_decode(struct db_cursor *in, uint32_t count, int64_t *out)
{
    const uint8_t *p = db__cursor_take(in, (size_t)count * 8);
    if (!p)
        return CHR_ECORRUPT;
    memcpy(out, p, (size_t)count * 8);
    return CHR_OK;
}

static size_t constant_size(struct db_ints *ints)
{
    return ints->runs == 1 ? 8 : SIZE_MAX;
}

static void constant_encode(struct db_ints *ints, struct chr_buf *out)
{
    chr_buf_add_u64le(out, (uint64_t)ints->values[0]);
}

/* Writes out[0] only; db__ints_decode says so to its caller. */
static chr_err constant_decode(struct db_cursor *in, uint32_t count, int64_t *out)
{
    (void)count;
    const uint8_t *p = db__cursor_take(in, 8);
    if (!p)
        return CHR_ECORRUPT;
    out[0] = (int64_t)chr_get_u64le(p);
    return CHR_OK;
}

const struct db_codec_ops db__codec_raw = {
    .name = "raw", .size = raw_size, .encode = raw_encode, .decode = raw_decode, .handicap = 0};
const struct db_codec_ops db__codec_constant = {.name = "constant",
                                                .size = constant_size,
                                                .encode = constant_encode,
                                                .decode = constant_decode,
                                                .handicap = 0};
