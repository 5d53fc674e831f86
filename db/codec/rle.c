/* db/codec/rle.c: run-length: packed values of the runs, then their last rows, 11 bits each.
 *
 *     runs 2 | packed values | last rows
 */
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

#define ROW_BITS 11
_Static_assert(1 << ROW_BITS == DB_VECTOR_ROWS, "a row of a block fits");
/* Above this share of the values runs cannot win against codecs that take a few bits each. */
#define RUN_ROWS_MIN 3

static void collect(const struct db_ints *ints, uint64_t *values)
{
    uint32_t runs = 0;
    for (uint32_t i = 0; i < ints->count; i++) {
        if (i == 0 || ints->values[i] != ints->values[i - 1])
            values[runs++] = (uint64_t)ints->values[i];
    }
}

static size_t rle_size(struct db_ints *ints)
{
    if (ints->runs > ints->count / RUN_ROWS_MIN)
        return SIZE_MAX;
    collect(ints, ints->scratch);
    db__packed_plan(ints->scratch, ints->runs, ints->min, ints->max, &ints->plan[DB_CODEC_RLE]);
    return 2 + ints->plan[DB_CODEC_RLE].bytes + db__bits_bytes(ints->runs, ROW_BITS);
}

static void rle_encode(struct db_ints *ints, struct chr_buf *out)
{
    chr_buf_add_u16le(out, (uint16_t)ints->runs);
    collect(ints, ints->scratch);
    db__packed_put(ints->scratch, ints->runs, &ints->plan[DB_CODEC_RLE], ints->scratch, out);
    uint32_t runs = 0;
    for (uint32_t i = 1; i <= ints->count; i++) {
        if (i == ints->count || ints->values[i] != ints->values[i - 1])
            ints->scratch[runs++] = i - 1;
    }
    db__bits_put(ints->scratch, runs, ROW_BITS, out);
}

static chr_err rle_decode(struct db_cursor *in, uint32_t count, int64_t *out)
{
    uint64_t values[DB_VECTOR_ROWS] CHR_ALIGNED(64), lasts[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    uint32_t runs = db__cursor_u16(in);
    if (runs == 0 || runs > count)
        return db__cursor_bad(in, "no runs, or more than values");
    chr_err err = db__packed_get(in, runs, values);
    if (!err)
        err = db__bits_get(in, runs, ROW_BITS, 0, lasts);
    if (err)
        return err;
    uint32_t at = 0;
    for (uint32_t r = 0; r < runs; r++) {
        if (lasts[r] < at || lasts[r] >= count)
            return db__cursor_bad(in, "ends of runs do not rise");
        uint32_t end = (uint32_t)lasts[r] + 1;
        for (; at < end; at++)
            out[at] = (int64_t)values[r];
    }
    if (at != count)
        return db__cursor_bad(in, "runs end before the values do");
    return CHR_OK;
}

const struct db_codec_ops db__codec_rle = {
    .name = "rle", .size = rle_size, .encode = rle_encode, .decode = rle_decode, .handicap = 2};
