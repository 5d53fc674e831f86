/* db/codec/ints.c: which codec a block of integers gets.
 *
 *     codec number 1 | what the codec writes
 *     6 1 | base 8 | scale 8 | codec number 1 | what the codec writes of (value - base) / scale
 *
 * Planning learns minimum, maximum, number of runs and the two arrays of differences; the size of
 * each codec follows from these without carrying it out. */
#include <string.h>

#include "base/assert.h"
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

const struct db_codec_ops *const db__codecs[DB_CODECS_END] = {
    [DB_CODEC_RAW] = &db__codec_raw,       [DB_CODEC_CONSTANT] = &db__codec_constant,
    [DB_CODEC_FOR] = &db__codec_for,       [DB_CODEC_DELTA] = &db__codec_delta,
    [DB_CODEC_DELTA2] = &db__codec_delta2, [DB_CODEC_RLE] = &db__codec_rle,
};

/* Differences, with those at breaks replaced by what the series before did last; what that loses is
 * a jump. */
static void plan_deltas(struct db_ints *ints)
{
    const struct db_kernels *k = db__kernels();
    uint64_t *d = ints->deltas;
    int64_t min, max;
    for (uint32_t i = 0; i < ints->breaks_count; i++) {
        uint32_t row = ints->breaks[i];
        CHR_ASSERT_HOT(row >= 1 && row < ints->count);
        uint64_t like = row >= 2 ? d[row - 1] : row + 1 < ints->count ? d[row + 1] : 0;
        ints->jumps[i] = d[row] - like;
        d[row] = like;
    }
    d[0] = d[1];
    k->minmax((const int64_t *)d, ints->count, &min, &max);
    db__packed_plan(d, ints->count, min, max, &ints->plan[DB_CODEC_DELTA]);

    if (ints->count >= 3) {
        uint64_t *dd = ints->deltas2;
        k->deltas(d, ints->count, dd);
        dd[0] = dd[1] = dd[2];
        k->minmax((const int64_t *)dd, ints->count, &min, &max);
        db__packed_plan(dd, ints->count, min, max, &ints->plan[DB_CODEC_DELTA2]);
    }
    if (ints->breaks_count) {
        k->minmax((const int64_t *)ints->jumps, ints->breaks_count, &min, &max);
        db__packed_plan(ints->jumps, ints->breaks_count, min, max, &ints->jumps_plan);
    }
}

static enum db_codec plan_unscaled(struct db_ints *ints, size_t *bytes)
{
    const struct db_kernels *k = db__kernels();
    const uint64_t *values = (const uint64_t *)ints->values;
    ints->runs = 1 + k->deltas(values, ints->count, ints->deltas);
    if (ints->runs == 1) {
        *bytes = 1 + db__codec_constant.size(ints);
        return DB_CODEC_CONSTANT;
    }
    k->minmax(ints->values, ints->count, &ints->min, &ints->max);
    db__packed_plan(values, ints->count, ints->min, ints->max, &ints->plan[DB_CODEC_FOR]);
    plan_deltas(ints);

    enum db_codec best = DB_CODEC_RAW;
    size_t best_bytes = 0, best_cost = SIZE_MAX;
    for (unsigned i = 0; i < DB_CODECS_END; i++) {
        size_t size = db__codecs[i]->size(ints);
        if (size == SIZE_MAX)
            continue;
        size_t cost = size * (100 + db__codecs[i]->handicap);
        if (cost < best_cost) {
            best = (enum db_codec)i;
            best_cost = cost;
            best_bytes = size;
        }
    }
    *bytes = 1 + best_bytes;
    return best;
}

/* -- Scale --------------------------------------------------------------------------------------*/

#define SCALE_BYTES 17 /* number, base, scale */
/* Halves are not worth a multiplication for each value. */
#define SCALE_MIN    3
#define SCALE_SAMPLE 32

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* What a sample of the differences to the minimum has in common. */
static uint64_t sample_divisor(const struct db_ints *ints)
{
    uint64_t divisor = 0;
    uint32_t n = CHR_MIN(ints->count, (uint32_t)SCALE_SAMPLE);
    for (uint32_t i = 0; i < n && divisor != 1; i++) {
        int64_t v = ints->values[(size_t)i * ints->count / n];
        divisor = common_divisor((uint64_t)v - (uint64_t)ints->min, divisor);
    }
    return divisor;
}

/* Divides all values, when they really have that in common. */
static bool scale_down(struct db_ints *ints, uint64_t divisor)
{
    unsigned shift = (unsigned)__builtin_ctzll(divisor);
    uint64_t odd = divisor >> shift, inverse = odd;
    for (unsigned i = 0; i < 5; i++) /* each step doubles the bits that are right, from three */
        inverse *= 2 - odd * inverse;
    ints->base = (uint64_t)ints->min;
    return db__kernels()->divide((const uint64_t *)ints->values, ints->count, ints->base, divisor,
                                 inverse, shift, (uint64_t *)ints->scaled) == 0;
}

enum db_codec db__ints_plan(struct db_ints *ints, size_t *bytes)
{
    CHR_ASSERT(ints->count >= 1 && ints->count <= DB_VECTOR_ROWS);
    ints->scale = 0;
    enum db_codec codec = plan_unscaled(ints, bytes);
    if (codec == DB_CODEC_CONSTANT || *bytes < 4 * SCALE_BYTES || *bytes * 8 < ints->count)
        return codec; /* there is nothing to be gained */
    uint64_t divisor = sample_divisor(ints);
    if (divisor < SCALE_MIN || !scale_down(ints, divisor))
        return codec;
    const int64_t *values = ints->values;
    size_t scaled_bytes, unscaled_bytes = *bytes;
    ints->values = ints->scaled;
    codec = plan_unscaled(ints, &scaled_bytes);
    if ((scaled_bytes + SCALE_BYTES) * 100 < unscaled_bytes * 97) {
        *bytes = scaled_bytes + SCALE_BYTES;
        ints->scale = divisor;
        return codec;
    }
    ints->values = values;
    return plan_unscaled(ints, bytes);
}

void db__ints_put(struct db_ints *ints, enum db_codec codec, struct chr_buf *out)
{
    if (ints->scale) {
        chr_buf_add_u8(out, DB_CODEC_SCALED);
        chr_buf_add_u64le(out, ints->base);
        chr_buf_add_u64le(out, ints->scale);
    }
    chr_buf_add_u8(out, (uint8_t)codec);
    db__codecs[codec]->encode(ints, out);
}

void db__ints_encode(struct db_ints *ints, const int64_t *values, uint32_t count,
                     struct chr_buf *out)
{
    size_t bytes;
    ints->values = values;
    ints->count = count;
    ints->breaks_count = 0;
    enum db_codec codec = db__ints_plan(ints, &bytes);
    db__ints_put(ints, codec, out);
}

static chr_err decode_unscaled(struct db_cursor *in, unsigned number, uint32_t count, int64_t *out,
                               bool *constant, enum db_codec *codec)
{
    if (number >= DB_CODECS_END)
        return db__cursor_bad(in, "unknown codec");
    if (in->why)
        return CHR_ECORRUPT;
    *codec = (enum db_codec)number;
    *constant = number == DB_CODEC_CONSTANT;
    return db__codecs[number]->decode(in, count, out);
}

chr_err db__ints_decode(struct db_cursor *in, uint32_t count, int64_t *out, bool *constant,
                        enum db_codec *codec)
{
    unsigned number = db__cursor_u8(in);
    if (number != DB_CODEC_SCALED)
        return decode_unscaled(in, number, count, out, constant, codec);
    uint64_t base = db__cursor_u64(in), scale = db__cursor_u64(in);
    chr_err err = decode_unscaled(in, db__cursor_u8(in), count, out, constant, codec);
    if (!err)
        db__kernels()->scale_up((uint64_t *)out, *constant ? 1 : count, base, scale);
    return err;
}

void db__int_array_put(struct db_ints *ints, const int64_t *values, size_t count,
                       struct chr_buf *out)
{
    for (size_t at = 0; at < count; at += DB_VECTOR_ROWS) {
        size_t n = CHR_MIN(count - at, (size_t)DB_VECTOR_ROWS);
        db__ints_encode(ints, values + at, (uint32_t)n, out);
    }
}

chr_err db__int_array_get(struct db_cursor *in, size_t count, int64_t *out)
{
    for (size_t at = 0; at < count; at += DB_VECTOR_ROWS) {
        size_t n = CHR_MIN(count - at, (size_t)DB_VECTOR_ROWS);
        bool constant;
        enum db_codec codec;
        chr_err err = db__ints_decode(in, (uint32_t)n, out + at, &constant, &codec);
        if (err)
            return err;
        if (constant)
            db__kernels()->fill64((uint64_t *)out + at, (uint32_t)n, (uint64_t)out[at]);
    }
    return CHR_OK;
}
