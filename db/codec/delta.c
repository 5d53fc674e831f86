/* db/codec/delta.c: differences, and differences of differences.
 *
 *     delta   first value 8 | packed differences, count of them | jumps
 *     delta2  first value 8 | first difference 8 | packed second differences, count of them | jumps
 *     jumps   how many 2 | when any: packed jumps | their rows, 11 bits each
 *
 * The difference at row 0 (delta2: rows 0 and 1) is there to keep places and rows the same;
 * whatever it holds is not used. A jump is added to the value of its row, on top of the difference:
 * rows of one series follow those of another without their border leaving a trace in either. All
 * sums wrap, so that INT64_MIN after INT64_MAX is a difference like any other (C1).
 *
 * Unpacking is SIMD; summing up takes about one cycle a value, which is as fast as the values can
 * be written. Reordering values so that sums vectorize too would spoil differences between
 * neighbours, which is where the small numbers are. */
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

#define ROW_BITS 11
_Static_assert(1 << ROW_BITS == DB_VECTOR_ROWS, "a row of a block fits");

static size_t jumps_bytes(const struct db_ints *ints)
{
    return 2 + (ints->breaks_count
                    ? ints->jumps_plan.bytes + db__bits_bytes(ints->breaks_count, ROW_BITS)
                    : 0);
}

static void jumps_put(struct db_ints *ints, struct chr_buf *out)
{
    uint32_t count = ints->breaks_count;
    chr_buf_add_u16le(out, (uint16_t)count);
    if (count == 0)
        return;
    db__packed_put(ints->jumps, count, &ints->jumps_plan, ints->scratch, out);
    for (uint32_t i = 0; i < count; i++)
        ints->scratch[i] = ints->breaks[i];
    db__bits_put(ints->scratch, count, ROW_BITS, out);
}

struct jumps {
    uint32_t count;
    uint64_t by[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    uint64_t rows[DB_VECTOR_ROWS] CHR_ALIGNED(64); /* rising, 1 <= row < count of values */
};

static chr_err jumps_get(struct db_cursor *in, uint32_t count, struct jumps *jumps)
{
    jumps->count = db__cursor_u16(in);
    if (in->why)
        return CHR_ECORRUPT;
    if (jumps->count == 0)
        return CHR_OK;
    if (jumps->count >= count)
        return db__cursor_bad(in, "more jumps than values");
    chr_err err = db__packed_get(in, jumps->count, jumps->by);
    if (!err)
        err = db__bits_get(in, jumps->count, ROW_BITS, 0, jumps->rows);
    if (err)
        return err;
    uint64_t before = 0;
    for (uint32_t i = 0; i < jumps->count; i++) {
        if (jumps->rows[i] <= before || jumps->rows[i] >= count)
            return db__cursor_bad(in, "rows of jumps do not rise");
        before = jumps->rows[i];
    }
    return CHR_OK;
}

/* -- delta --------------------------------------------------------------------------------------*/

static size_t delta_size(struct db_ints *ints)
{
    if (ints->count < 2)
        return SIZE_MAX;
    return 8 + ints->plan[DB_CODEC_DELTA].bytes + jumps_bytes(ints);
}

static void delta_encode(struct db_ints *ints, struct chr_buf *out)
{
    chr_buf_add_u64le(out, (uint64_t)ints->values[0]);
    db__packed_put(ints->deltas, ints->count, &ints->plan[DB_CODEC_DELTA], ints->scratch, out);
    jumps_put(ints, out);
}

static chr_err delta_decode(struct db_cursor *in, uint32_t count, int64_t *values)
{
    uint64_t *out = (uint64_t *)values;
    struct jumps jumps;
    uint64_t v = db__cursor_u64(in);
    chr_err err = db__packed_get(in, count, out);
    if (!err)
        err = jumps_get(in, count, &jumps);
    if (err)
        return err;
    const struct db_kernels *k = db__kernels();
    out[0] = v;
    uint32_t at = 1;
    for (uint32_t i = 0; i < jumps.count; i++) {
        uint32_t row = (uint32_t)jumps.rows[i];
        k->sum_up(out + at, row - at, v);
        v = out[row - 1] + jumps.by[i];
        at = row;
    }
    k->sum_up(out + at, count - at, v);
    return CHR_OK;
}

/* -- delta2 -------------------------------------------------------------------------------------*/

static size_t delta2_size(struct db_ints *ints)
{
    if (ints->count < 3)
        return SIZE_MAX;
    return 16 + ints->plan[DB_CODEC_DELTA2].bytes + jumps_bytes(ints);
}

static void delta2_encode(struct db_ints *ints, struct chr_buf *out)
{
    chr_buf_add_u64le(out, (uint64_t)ints->values[0]);
    chr_buf_add_u64le(out, ints->deltas[1]);
    db__packed_put(ints->deltas2, ints->count, &ints->plan[DB_CODEC_DELTA2], ints->scratch, out);
    jumps_put(ints, out);
}

static chr_err delta2_decode(struct db_cursor *in, uint32_t count, int64_t *values)
{
    uint64_t *out = (uint64_t *)values;
    struct jumps jumps;
    uint64_t v = db__cursor_u64(in), d = db__cursor_u64(in);
    chr_err err = count < 2 ? db__cursor_bad(in, "second differences of one value")
                            : db__packed_get(in, count, out);
    if (!err)
        err = jumps_get(in, count, &jumps);
    if (err)
        return err;
    const struct db_kernels *k = db__kernels();
    out[0] = v;
    out[1] = 0; /* the first difference is the one stored */
    uint32_t at = 1;
    for (uint32_t i = 0; i < jumps.count; i++) {
        uint32_t row = (uint32_t)jumps.rows[i];
        if (row > at) {
            k->sum_up2(out + at, row - at, v, d);
            d = out[row - 1] - (row - 1 > at ? out[row - 2] : v);
            v = out[row - 1];
        }
        v += jumps.by[i];
        at = row;
    }
    k->sum_up2(out + at, count - at, v, d);
    return CHR_OK;
}

/* Summing up costs more than twice what unpacking does, so a few percent of size decide. */
const struct db_codec_ops db__codec_delta = {.name = "delta",
                                             .size = delta_size,
                                             .encode = delta_encode,
                                             .decode = delta_decode,
                                             .handicap = 4};
const struct db_codec_ops db__codec_delta2 = {.name = "delta2",
                                              .size = delta2_size,
                                              .encode = delta2_encode,
                                              .decode = delta2_decode,
                                              .handicap = 5};
