/* db/codec/decimal.c: floats as integers.
 *
 *     plain    bits of the doubles as an integer stream
 *     decimal  e 1 | exceptions 2 | their places 2 each | their bits 8 each | integer stream
 *     float32  bits of the floats as an integer stream
 *
 * What sensors send is decimal: 21.5 is 215 / 10. Both 215 (below 2^51) and 10 (10^e is exact up to
 * e = 22) are doubles, and IEEE division rounds correctly, so the quotient is the double nearest to
 * 21.5: the very one that parsing "21.5" gave. That it is so is verified for each value, bit for
 * bit, before it is stored this way; what fails (NaN, -0.0, more digits) is an exception. ALP
 * multiplies instead of dividing and has more exceptions and wider integers for it; a SIMD division
 * takes 0.3 ns a value, which is not what a query waits for. */
#include <math.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

#define EXPONENT_MAX    18
#define EXCEPTION_BYTES 10
#define SAMPLE          32
/* Streams narrower than this many bits a value are good enough not to look further. */
#define CONTENT_BITS 24

static const double powers[EXPONENT_MAX + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,
                                                1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
                                                1e14, 1e15, 1e16, 1e17, 1e18};

/* The smallest exponent at which a value is exact, or -1. The test is the encoder's own. */
static int exponent_of(double v)
{
    const struct db_kernels *k = db__kernels();
    if (!(fabs(v) < 2251799813685248.0))
        return -1;
    for (int e = 0; e <= EXPONENT_MAX; e++) {
        int64_t digits;
        if (fabs(v) * powers[e] > 2251799813685247.0)
            return -1;
        if (k->decimal_encode(&v, 1, powers[e], &digits) == 0)
            return e;
    }
    return -1;
}

/* Exponents of a sample: *common covers nine in ten of those that have one, *highest all of them.
 * False when too few have one. */
static bool sample_exponents(const double *values, uint32_t count, int *common, int *highest)
{
    uint32_t n = CHR_MIN(count, (uint32_t)SAMPLE), good = 0, by_exponent[EXPONENT_MAX + 1] = {0};
    for (uint32_t i = 0; i < n; i++) {
        int e = exponent_of(values[(size_t)i * count / n]);
        if (e >= 0) {
            by_exponent[e]++;
            good++;
        }
        if (i == 7 && good == 0)
            return false;
    }
    if (good * 4 < n * 3)
        return false;
    uint32_t covered = 0;
    *common = -1;
    *highest = 0;
    for (int e = 0; e <= EXPONENT_MAX; e++) {
        covered += by_exponent[e];
        if (*common < 0 && covered * 10 >= good * 9)
            *common = e;
        if (by_exponent[e])
            *highest = e;
    }
    return true;
}

struct decimal {
    int exponent;
    uint32_t exceptions;
    int64_t digits[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    uint16_t places[DB_VECTOR_ROWS];
};

static bool is_exact(double v, int64_t digits, double power)
{
    double back = (double)digits / power;
    return memcmp(&back, &v, 8) == 0;
}

/* Places of the values that are not exact; each takes the digits of its neighbour, so that the
 * integer codec sees no step. */
static void find_exceptions(struct decimal *d, const double *values, uint32_t count)
{
    double power = powers[d->exponent];
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (is_exact(values[i], d->digits[i], power))
            continue;
        d->places[n++] = (uint16_t)i;
        d->digits[i] = i ? d->digits[i - 1] : 0;
    }
    CHR_ASSERT(n == d->exceptions);
    /* Those before the first good value had no neighbour yet. */
    uint32_t lead = 0;
    while (lead < n && d->places[lead] == lead)
        lead++;
    for (uint32_t i = 0; i < lead && lead < count; i++)
        d->digits[i] = d->digits[lead];
}

static bool decimal_try(struct decimal *d, const double *values, uint32_t count)
{
    const struct db_kernels *k = db__kernels();
    int common, highest;
    if (!sample_exponents(values, count, &common, &highest))
        return false;
    d->exponent = common;
    d->exceptions = k->decimal_encode(values, count, powers[common], d->digits);
    if (d->exceptions > count / 64 && highest > common) {
        /* More digits for all, or exceptions for some: a bit more for each of ten values costs less
         * than one exception. */
        uint32_t before = d->exceptions;
        uint32_t after = k->decimal_encode(values, count, powers[highest], d->digits);
        size_t wider = (size_t)((highest - common) * 10 / 3) * count / 8;
        if (wider + (size_t)after * EXCEPTION_BYTES < (size_t)before * EXCEPTION_BYTES) {
            d->exponent = highest;
            d->exceptions = after;
        } else {
            k->decimal_encode(values, count, powers[common], d->digits);
        }
    }
    if (d->exceptions > count / 4)
        return false;
    if (d->exceptions)
        find_exceptions(d, values, count);
    return true;
}

static void decimal_put(const struct decimal *d, const double *values, struct chr_buf *out)
{
    chr_buf_add_u8(out, DB_MAP_DECIMAL);
    chr_buf_add_u8(out, (uint8_t)d->exponent);
    chr_buf_add_u16le(out, (uint16_t)d->exceptions);
    for (uint32_t i = 0; i < d->exceptions; i++)
        chr_buf_add_u16le(out, d->places[i]);
    for (uint32_t i = 0; i < d->exceptions; i++)
        chr_buf_add(out, &values[d->places[i]], 8);
}

void db__floats_encode(struct db_ints *ints, const double *values, uint32_t count,
                       struct chr_buf *out)
{
    struct decimal d;
    size_t decimal_bytes = SIZE_MAX, bytes;
    ints->count = count;
    if (decimal_try(&d, values, count)) {
        ints->values = d.digits;
        enum db_codec codec = db__ints_plan(ints, &bytes);
        decimal_bytes = bytes + 3 + (size_t)d.exceptions * EXCEPTION_BYTES;
        if (decimal_bytes * 8 <= (size_t)count * CONTENT_BITS) {
            decimal_put(&d, values, out);
            db__ints_put(ints, codec, out);
            return;
        }
    }

    /* No narrow decimals: by whatever bits are smallest. */
    int64_t bits[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    size_t float32_bytes = SIZE_MAX;
    if (db__kernels()->float32_encode(values, count, bits) == 0) {
        ints->values = bits;
        enum db_codec codec = db__ints_plan(ints, &float32_bytes);
        if (float32_bytes < decimal_bytes) {
            chr_buf_add_u8(out, DB_MAP_FLOAT32);
            db__ints_put(ints, codec, out);
            return;
        }
    }
    memcpy(bits, values, (size_t)count * 8);
    ints->values = bits;
    enum db_codec codec = db__ints_plan(ints, &bytes);
    if (bytes < decimal_bytes) {
        chr_buf_add_u8(out, DB_MAP_PLAIN);
    } else {
        decimal_put(&d, values, out);
        ints->values = d.digits;
        codec = db__ints_plan(ints, &bytes);
    }
    db__ints_put(ints, codec, out);
}

static chr_err decimal_get(struct db_cursor *in, uint32_t count, double *out, bool *constant,
                           enum db_codec *codec)
{
    unsigned exponent = db__cursor_u8(in);
    uint32_t exceptions = db__cursor_u16(in);
    if (exponent > EXPONENT_MAX)
        return db__cursor_bad(in, "decimal exponent above 18");
    if (exceptions > count)
        return db__cursor_bad(in, "more exceptions than values");
    const uint8_t *places = db__cursor_take(in, (size_t)exceptions * 2);
    const uint8_t *bits = db__cursor_take(in, (size_t)exceptions * 8);
    if (!bits)
        return CHR_ECORRUPT;
    int64_t *digits = (int64_t *)(void *)out;
    chr_err err = db__ints_decode(in, count, digits, constant, codec);
    if (err)
        return err;
    const struct db_kernels *k = db__kernels();
    if (*constant && exceptions) {
        k->fill64((uint64_t *)digits, count, (uint64_t)digits[0]);
        *constant = false;
    }
    k->decimal_decode(out, *constant ? 1 : count, powers[exponent]);
    for (uint32_t i = 0; i < exceptions; i++) {
        uint32_t at = chr_get_u16le(places + (size_t)i * 2);
        if (at >= count)
            return db__cursor_bad(in, "an exception past the last value");
        memcpy(&out[at], bits + (size_t)i * 8, 8);
    }
    return CHR_OK;
}

chr_err db__floats_decode(struct db_cursor *in, enum db_mapping mapping, uint32_t count,
                          double *out, bool *constant, enum db_codec *codec)
{
    if (mapping == DB_MAP_DECIMAL)
        return decimal_get(in, count, out, constant, codec);
    if (mapping != DB_MAP_PLAIN && mapping != DB_MAP_FLOAT32)
        return db__cursor_bad(in, "a mapping that floats do not have");
    int64_t *bits = (int64_t *)(void *)out;
    chr_err err = db__ints_decode(in, count, bits, constant, codec);
    if (!err && mapping == DB_MAP_FLOAT32)
        db__kernels()->float32_decode(out, *constant ? 1 : count);
    return err;
}
