/* db/codec/frame.c: frame of reference: what db/codec/packed.c does, of the values themselves. */
#include "db/codec/codec.h"

static size_t for_size(struct db_ints *ints)
{
    return ints->plan[DB_CODEC_FOR].bytes;
}

static void for_encode(struct db_ints *ints, struct chr_buf *out)
{
    db__packed_put((const uint64_t *)ints->values, ints->count, &ints->plan[DB_CODEC_FOR],
                   ints->scratch, out);
}

static chr_err for_decode(struct db_cursor *in, uint32_t count, int64_t *out)
{
    return db__packed_get(in, count, (uint64_t *)out);
}

const struct db_codec_ops db__codec_for = {
    .name = "for", .size = for_size, .encode = for_encode, .decode = for_decode, .handicap = 0};
