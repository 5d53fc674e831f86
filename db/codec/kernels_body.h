/* db/codec/kernels_body.h: the loops of db/codec/kernels.h. Included by kernels.c once per level of
 * instructions, with KERNEL(name), KERNEL_NAME, KERNEL_TARGET and KERNEL_VECTOR_BYTES defined; no
 * include guard on purpose.
 *
 * What lies in values of the store is read through types of alignment 1: LMDB aligns to 2 bytes. */

KERNEL_TARGET static void KERNEL(unpack64)(const uint8_t *words, unsigned width, unsigned positions,
                                           uint64_t base, uint64_t *restrict out)
{
    const uint64_t mask = width == 64 ? ~UINT64_C(0) : (UINT64_C(1) << width) - 1;
    for (unsigned p = 0; p < positions; p++) {
        unsigned bit = p * width, shift = bit & 63;
        const unaligned_u64 *restrict a =
            (const unaligned_u64 *)(const void *)words + (bit >> 6) * DB_LANES64;
        uint64_t *restrict o = out + p * DB_LANES64;
        if (shift + width <= 64) {
            for (unsigned j = 0; j < DB_LANES64; j++)
                o[j] = ((a[j] >> shift) & mask) + base;
        } else {
            const unaligned_u64 *restrict b = a + DB_LANES64;
            unsigned back = 64 - shift;
            for (unsigned j = 0; j < DB_LANES64; j++)
                o[j] = (((a[j] >> shift) | (b[j] << back)) & mask) + base;
        }
    }
}

KERNEL_TARGET static void KERNEL(pack64)(const uint64_t *restrict in, unsigned width,
                                         unsigned positions, uint8_t *words)
{
    for (unsigned p = 0; p < positions; p++) {
        unsigned bit = p * width, shift = bit & 63;
        unaligned_u64 *restrict a = (unaligned_u64 *)(void *)words + (bit >> 6) * DB_LANES64;
        const uint64_t *restrict v = in + p * DB_LANES64;
        if (shift == 0) {
            for (unsigned j = 0; j < DB_LANES64; j++)
                a[j] = v[j];
        } else {
            for (unsigned j = 0; j < DB_LANES64; j++)
                a[j] |= v[j] << shift;
        }
        if (shift + width > 64) {
            unaligned_u64 *restrict b = a + DB_LANES64;
            unsigned back = 64 - shift;
            for (unsigned j = 0; j < DB_LANES64; j++)
                b[j] = v[j] >> back;
        }
    }
}

KERNEL_TARGET static void KERNEL(unpack16)(const uint8_t *words, unsigned width, unsigned positions,
                                           uint16_t *restrict out)
{
    const uint16_t mask = (uint16_t)((1u << width) - 1);
    for (unsigned p = 0; p < positions; p++) {
        unsigned bit = p * width, shift = bit & 15;
        const unaligned_u16 *restrict a =
            (const unaligned_u16 *)(const void *)words + (bit >> 4) * DB_LANES16;
        uint16_t *restrict o = out + p * DB_LANES16;
        if (shift + width <= 16) {
            for (unsigned j = 0; j < DB_LANES16; j++)
                o[j] = (uint16_t)(a[j] >> shift) & mask;
        } else {
            const unaligned_u16 *restrict b = a + DB_LANES16;
            unsigned back = 16 - shift;
            for (unsigned j = 0; j < DB_LANES16; j++)
                o[j] = (uint16_t)((uint16_t)(a[j] >> shift) | (uint16_t)(b[j] << back)) & mask;
        }
    }
}

KERNEL_TARGET static void KERNEL(pack16)(const uint16_t *restrict in, unsigned width,
                                         unsigned positions, uint8_t *words)
{
    for (unsigned p = 0; p < positions; p++) {
        unsigned bit = p * width, shift = bit & 15;
        unaligned_u16 *restrict a = (unaligned_u16 *)(void *)words + (bit >> 4) * DB_LANES16;
        const uint16_t *restrict v = in + p * DB_LANES16;
        if (shift == 0) {
            for (unsigned j = 0; j < DB_LANES16; j++)
                a[j] = v[j];
        } else {
            for (unsigned j = 0; j < DB_LANES16; j++)
                a[j] = (uint16_t)(a[j] | (uint16_t)(v[j] << shift));
        }
        if (shift + width > 16) {
            unaligned_u16 *restrict b = a + DB_LANES16;
            unsigned back = 16 - shift;
            for (unsigned j = 0; j < DB_LANES16; j++)
                b[j] = (uint16_t)(v[j] >> back);
        }
    }
}

KERNEL_TARGET static void KERNEL(unpack_seq)(const uint8_t *bytes, unsigned width, unsigned count,
                                             uint64_t base, uint64_t *restrict out)
{
    const uint64_t mask = (UINT64_C(1) << width) - 1;
    for (unsigned i = 0; i < count; i++) {
        size_t bit = (size_t)i * width;
        out[i] = ((chr_get_u64le(bytes + (bit >> 3)) >> (bit & 7)) & mask) + base;
    }
}

KERNEL_TARGET static void KERNEL(fill64)(uint64_t *out, uint32_t count, uint64_t value)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = value;
}

KERNEL_TARGET static void KERNEL(minmax)(const int64_t *restrict in, uint32_t count, int64_t *min,
                                         int64_t *max)
{
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (uint32_t i = 0; i < count; i++) {
        low = in[i] < low ? in[i] : low;
        high = in[i] > high ? in[i] : high;
    }
    *min = low;
    *max = high;
}

KERNEL_TARGET static int64_t KERNEL(min_from)(const int64_t *restrict in, uint32_t count,
                                              int64_t from)
{
    int64_t low = INT64_MAX;
    for (uint32_t i = 0; i < count; i++) {
        int64_t v = in[i] >= from ? in[i] : INT64_MAX;
        low = v < low ? v : low;
    }
    return low;
}

KERNEL_TARGET static uint32_t KERNEL(deltas)(const uint64_t *restrict in, uint32_t count,
                                             uint64_t *restrict deltas)
{
    uint64_t changes = 0; /* as wide as the values, so that lanes need no narrowing */
    deltas[0] = 0;
    for (uint32_t i = 1; i < count; i++) {
        uint64_t d = in[i] - in[i - 1];
        deltas[i] = d;
        changes += d != 0;
    }
    return (uint32_t)changes;
}

KERNEL_TARGET static uint32_t KERNEL(residuals)(const uint64_t *in, uint32_t count, uint64_t base,
                                                unsigned width, uint64_t *out)
{
    uint64_t over = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t r = in[i] - base;
        out[i] = r;
        over += r >> width != 0;
    }
    return (uint32_t)over;
}

/* A multiple of odd << shift, times the inverse of odd, turned right by shift, is the quotient;
 * anything else comes out above the largest quotient there can be (Hacker's Delight, 10-17). */
KERNEL_TARGET static uint32_t KERNEL(divide)(const uint64_t *restrict in, uint32_t count,
                                             uint64_t base, uint64_t divisor, uint64_t inverse,
                                             unsigned shift, uint64_t *restrict out)
{
    const uint64_t most = UINT64_MAX / divisor;
    uint64_t bad = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t q = (in[i] - base) * inverse;
        q = q >> shift | q << ((64 - shift) & 63);
        bad += q > most;
        out[i] = q;
    }
    return (uint32_t)bad;
}

KERNEL_TARGET static void KERNEL(scale_up)(uint64_t *inout, uint32_t count, uint64_t base,
                                           uint64_t scale)
{
    for (uint32_t i = 0; i < count; i++)
        inout[i] = base + inout[i] * scale;
}

KERNEL_TARGET static void KERNEL(bit_histogram)(const uint64_t *restrict in, uint32_t count,
                                                uint64_t base, uint32_t *restrict histogram)
{
    /* Four tables, so that one value need not wait for the counter of the one before. */
    uint16_t four[4][65];
    memset(four, 0, sizeof four);
    uint32_t i = 0;
    for (; i + 4 <= count; i += 4) {
        for (unsigned j = 0; j < 4; j++) {
            uint64_t r = in[i + j] - base;
            four[j][r ? 64 - __builtin_clzll(r) : 0]++;
        }
    }
    for (; i < count; i++) {
        uint64_t r = in[i] - base;
        four[0][r ? 64 - __builtin_clzll(r) : 0]++;
    }
    for (unsigned b = 0; b < 65; b++)
        histogram[b] += (uint32_t)four[0][b] + four[1][b] + four[2][b] + four[3][b];
}

KERNEL_TARGET static uint16_t KERNEL(max16)(const uint16_t *restrict in, uint32_t count)
{
    uint16_t max = 0;
    for (uint32_t i = 0; i < count; i++)
        max = in[i] > max ? in[i] : max;
    return max;
}

KERNEL_TARGET static uint32_t KERNEL(changes16)(const uint16_t *restrict in, uint32_t count)
{
    uint16_t changes = 0; /* a block has fewer than 65,536 values */
    for (uint32_t i = 1; i < count; i++)
        changes = (uint16_t)(changes + (in[i] != in[i - 1]));
    return changes;
}

/* Adding 1.5 * 2^52 leaves a double of magnitude below 2^51 rounded to an integer in its lowest
 * bits: conversion both ways with the instructions that SSE2 and AVX2 have for 64-bit lanes. */
#define MAGIC      6755399441055744.0
#define MAGIC_BITS INT64_C(0x4338000000000000)
#define MAGIC_MAX  2251799813685247.0

KERNEL_TARGET static uint32_t KERNEL(decimal_encode)(const double *restrict in, uint32_t count,
                                                     double scale, int64_t *restrict out)
{
    int64_t bad = 0;
    for (uint32_t i = 0; i < count; i++) {
        double scaled = in[i] * scale;
        double magic = scaled + MAGIC;
        uint64_t digits;
        int64_t back_bits, in_bits;
        memcpy(&digits, &magic, 8);
        digits -= (uint64_t)MAGIC_BITS;
        double back = (magic - MAGIC) / scale;
        memcpy(&back_bits, &back, 8);
        memcpy(&in_bits, &in[i], 8);
        /* Not "scaled within range and equal" by &&: a branch would not vectorize. */
        int64_t good = (int64_t)(back_bits == in_bits) & (int64_t)(scaled <= MAGIC_MAX) &
                       (int64_t)(scaled >= -MAGIC_MAX);
        bad += good ^ 1;
        out[i] = (int64_t)digits & -good;
    }
    return (uint32_t)bad;
}

KERNEL_TARGET static void KERNEL(decimal_decode)(double *inout, uint32_t count, double scale)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t bits;
        double v;
        memcpy(&bits, &inout[i], 8);
        bits += (uint64_t)MAGIC_BITS;
        memcpy(&v, &bits, 8);
        inout[i] = (v - MAGIC) / scale;
    }
}

KERNEL_TARGET static uint32_t KERNEL(float32_encode)(const double *restrict in, uint32_t count,
                                                     int64_t *restrict out)
{
    uint32_t bad = 0;
    for (uint32_t i = 0; i < count; i++) {
        float f = (float)in[i];
        double back = f;
        uint32_t bits;
        uint64_t back_bits, in_bits;
        memcpy(&bits, &f, 4);
        memcpy(&back_bits, &back, 8);
        memcpy(&in_bits, &in[i], 8);
        bad += back_bits != in_bits;
        out[i] = bits;
    }
    return bad;
}

KERNEL_TARGET static void KERNEL(float32_decode)(double *inout, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t wide;
        memcpy(&wide, &inout[i], 8);
        uint32_t bits = (uint32_t)wide;
        float f;
        memcpy(&f, &bits, 4);
        inout[i] = f;
    }
}

KERNEL_TARGET static void KERNEL(stats_i64)(const int64_t *restrict in, uint32_t count,
                                            __int128 *sum, int64_t *min, int64_t *max)
{
    /* The halves of each value apart, the upper one made unsigned by 2^31: neither sum can overflow
     * 64 bits below 2^32 values. */
    uint64_t low_sum = 0, high_sum = 0;
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t v = (uint64_t)in[i];
        low_sum += v & 0xffffffff;
        high_sum += (v ^ UINT64_C(1) << 63) >> 32;
        low = in[i] < low ? in[i] : low;
        high = in[i] > high ? in[i] : high;
    }
    __int128 upper = (__int128)high_sum - ((__int128)count << 31);
    *sum = upper * ((__int128)1 << 32) + low_sum;
    *min = low;
    *max = high;
}

typedef double KERNEL(f64s) __attribute__((vector_size(KERNEL_VECTOR_BYTES)));
typedef int64_t KERNEL(i64s) __attribute__((vector_size(KERNEL_VECTOR_BYTES)));

KERNEL_TARGET static uint32_t KERNEL(stats_f64)(const double *restrict in, uint32_t count,
                                                double *sum, double *min, double *max)
{
    /* Eight of each, added in a fixed order at the end, so that all levels agree on the last bit.
     * In vector types because gcc 12 does not find four reductions in one loop. */
    enum { LANES = sizeof(KERNEL(f64s)) / 8, VECTORS = 8 / LANES };
    KERNEL(f64s) sums[VECTORS], lows[VECTORS], highs[VECTORS];
    KERNEL(i64s) nans[VECTORS]; /* minus how many: a true lane is -1 */
    for (unsigned h = 0; h < VECTORS; h++) {
        sums[h] = (KERNEL(f64s)){0};
        lows[h] = sums[h] + HUGE_VAL;
        highs[h] = sums[h] - HUGE_VAL;
        nans[h] = (KERNEL(i64s)){0};
    }
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (unsigned h = 0; h < VECTORS; h++) {
            KERNEL(f64s) v;
            memcpy(&v, in + i + h * LANES, sizeof v);
            KERNEL(i64s) less = v<lows[h], more = v> highs[h];
            sums[h] += v;
            lows[h] = (KERNEL(f64s))((less & (KERNEL(i64s))v) | (~less & (KERNEL(i64s))lows[h]));
            highs[h] = (KERNEL(f64s))((more & (KERNEL(i64s))v) | (~more & (KERNEL(i64s))highs[h]));
            nans[h] += v != v;
        }
    }
    double s[8], low = HUGE_VAL, high = -HUGE_VAL;
    int64_t nan = 0;
    for (unsigned j = 0; j < 8; j++) {
        double l = lows[j / LANES][j % LANES], m = highs[j / LANES][j % LANES];
        s[j] = sums[j / LANES][j % LANES];
        low = l < low ? l : low;
        high = m > high ? m : high;
        nan -= nans[j / LANES][j % LANES];
    }
    for (unsigned j = 0; i < count; i++, j++) {
        s[j] += in[i];
        low = in[i] < low ? in[i] : low;
        high = in[i] > high ? in[i] : high;
        nan += in[i] != in[i];
    }
    *sum = ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
    *min = low;
    *max = high;
    return (uint32_t)nan;
}

KERNEL_TARGET static void KERNEL(sum_up)(uint64_t *inout, uint32_t count, uint64_t first)
{
    uint64_t v = first;
    for (uint32_t i = 0; i < count; i++) {
        v += inout[i];
        inout[i] = v;
    }
}

KERNEL_TARGET static void KERNEL(sum_up2)(uint64_t *inout, uint32_t count, uint64_t first,
                                          uint64_t first_delta)
{
    uint64_t v = first, d = first_delta;
    for (uint32_t i = 0; i < count; i++) {
        d += inout[i];
        v += d;
        inout[i] = v;
    }
}

#undef MAGIC
#undef MAGIC_BITS
#undef MAGIC_MAX

static const struct db_kernels KERNEL(kernels) = {
    .name = KERNEL_NAME,
    .unpack64 = KERNEL(unpack64),
    .pack64 = KERNEL(pack64),
    .unpack16 = KERNEL(unpack16),
    .pack16 = KERNEL(pack16),
    .unpack_seq = KERNEL(unpack_seq),
    .fill64 = KERNEL(fill64),
    .sum_up = KERNEL(sum_up),
    .sum_up2 = KERNEL(sum_up2),
    .minmax = KERNEL(minmax),
    .min_from = KERNEL(min_from),
    .deltas = KERNEL(deltas),
    .residuals = KERNEL(residuals),
    .divide = KERNEL(divide),
    .scale_up = KERNEL(scale_up),
    .bit_histogram = KERNEL(bit_histogram),
    .max16 = KERNEL(max16),
    .changes16 = KERNEL(changes16),
    .decimal_encode = KERNEL(decimal_encode),
    .decimal_decode = KERNEL(decimal_decode),
    .float32_encode = KERNEL(float32_encode),
    .float32_decode = KERNEL(float32_decode),
    .stats_i64 = KERNEL(stats_i64),
    .stats_f64 = KERNEL(stats_f64),
};
