/* db/codec/kernels.h: the inner loops, compiled once for each level of instructions.
 *
 * All are plain loops over arrays that compilers vectorize (kernels_body.h); which compilation runs
 * is decided once per process by what the CPU has. All levels give the same results, bit for bit:
 * what one machine wrote another must read.
 *
 * Bit-packed layout. 64-bit form: value i of a block lies in lane i % 32, at position i / 32 of it;
 * a lane is a stream of bits, lowest first, in 64-bit words; word k of all lanes stands before word
 * k + 1 of any. So 32 neighbouring values are shifted and masked alike, which is what SIMD wants. A
 * full block of width w is w words a lane, w * 256 bytes. The 16-bit form is the same with 128
 * lanes of 16-bit words, for dictionary codes. */
#ifndef CHR_DB_CODEC_KERNELS_H
#define CHR_DB_CODEC_KERNELS_H

#include <stdint.h>

#include "db/types.h"

#define DB_LANES64 32
#define DB_LANES16 128
_Static_assert(DB_LANES64 * 64 == DB_VECTOR_ROWS, "a lane of a full block is `width` whole words");
_Static_assert(DB_LANES16 * 16 == DB_VECTOR_ROWS, "likewise");

struct db_kernels {
    const char *name;
    /* out[i] = base + value i, for positions * 32 values; 1 <= width <= 64. */
    void (*unpack64)(const uint8_t *words, unsigned width, unsigned positions, uint64_t base,
                     uint64_t *out);
    /* in: positions * 32 values, each < 2^width. */
    void (*pack64)(const uint64_t *in, unsigned width, unsigned positions, uint8_t *words);
    void (*unpack16)(const uint8_t *words, unsigned width, unsigned positions, uint16_t *out);
    void (*pack16)(const uint16_t *in, unsigned width, unsigned positions, uint8_t *words);
    /* The same with the bits of all values one after the other; reads up to 8 bytes past the last.
     * width <= 56. */
    void (*unpack_seq)(const uint8_t *bytes, unsigned width, unsigned count, uint64_t base,
                       uint64_t *out);

    void (*fill64)(uint64_t *out, uint32_t count, uint64_t value);
    /* Differences back to values: inout[i] = first + inout[0] + … + inout[i]; and, for sum_up2, of
     * differences of differences: first_delta likewise. */
    void (*sum_up)(uint64_t *inout, uint32_t count, uint64_t first);
    void (*sum_up2)(uint64_t *inout, uint32_t count, uint64_t first, uint64_t first_delta);
    void (*minmax)(const int64_t *in, uint32_t count, int64_t *min, int64_t *max);
    /* The least that is not below `from`; INT64_MAX when there is none. */
    int64_t (*min_from)(const int64_t *in, uint32_t count, int64_t from);
    /* deltas[i] = in[i] - in[i-1] for i >= 1, wrapping; deltas[0] = 0. Returns how many are not 0.
     */
    uint32_t (*deltas)(const uint64_t *in, uint32_t count, uint64_t *deltas);
    /* out[i] = in[i] - base; returns how many are >= 2^width (width < 64). */
    uint32_t (*residuals)(const uint64_t *in, uint32_t count, uint64_t base, unsigned width,
                          uint64_t *out);
    /* out[i] = (in[i] - base) / divisor, where divisor = odd << shift and inverse * odd == 1 (mod
     * 2^64); returns how many are not whole (their out[i] is junk). */
    uint32_t (*divide)(const uint64_t *in, uint32_t count, uint64_t base, uint64_t divisor,
                       uint64_t inverse, unsigned shift, uint64_t *out);
    /* inout[i] = base + inout[i] * scale. */
    void (*scale_up)(uint64_t *inout, uint32_t count, uint64_t base, uint64_t scale);
    /* histogram[b]: how many of in[i] - base take b bits; [65], added to. */
    void (*bit_histogram)(const uint64_t *in, uint32_t count, uint64_t base, uint32_t *histogram);

    uint16_t (*max16)(const uint16_t *in, uint32_t count);
    /* How many differ from the one before. */
    uint32_t (*changes16)(const uint16_t *in, uint32_t count);

    /* out[i] = in[i] * scale rounded to an integer; returns for how many out[i] / scale is not
     * in[i], bit for bit (their out[i] is 0 or junk below 2^52). */
    uint32_t (*decimal_encode)(const double *in, uint32_t count, double scale, int64_t *out);
    /* In place, because that is how it is used and two pointers that may be the same do not
     * vectorize. inout: int64_t before, double after: divided by scale; junk from 2^51 on. */
    void (*decimal_decode)(double *inout, uint32_t count, double scale);
    uint32_t (*float32_encode)(const double *in, uint32_t count, int64_t *out);
    void (*float32_decode)(double *inout, uint32_t count);

    /* Sum, minimum, maximum; count >= 1. */
    void (*stats_i64)(const int64_t *in, uint32_t count, __int128 *sum, int64_t *min, int64_t *max);
    /* *min, *max of those that are numbers: +inf and -inf when none is. Returns how many are NaN.
     */
    uint32_t (*stats_f64)(const double *in, uint32_t count, double *sum, double *min, double *max);
};

/* The best for this CPU. Any thread. */
const struct db_kernels *db__kernels(void);
/* Each level this CPU can run, for tests and benches; NULL past the last. */
const struct db_kernels *db__kernels_at(unsigned i);

#endif
