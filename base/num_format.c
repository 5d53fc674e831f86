/* base/num_format.c: writing numbers.
 *
 * The shortest decimal of a double after Giulietti, "The Schubfach way to render doubles" (2020):
 * scale by the power of ten whose step is just finer than the gap between neighbours; then among at
 * most four candidates next to the value one is shortest and inside its rounding interval. */
#include <stdbool.h>
#include <string.h>

#include "base/num.h"
#include "base/power_of_ten.h"

/* At most 20 digits and a zero at out. */
static size_t write_u64(uint64_t v, char *out)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    char text[20], *at = text + sizeof text;
    while (v >= 100) {
        at -= 2;
        memcpy(at, pairs + v % 100 * 2, 2);
        v /= 100;
    }
    if (v >= 10) {
        at -= 2;
        memcpy(at, pairs + v * 2, 2);
    } else {
        *--at = (char)('0' + v);
    }
    size_t len = (size_t)(text + sizeof text - at);
    memcpy(out, at, len);
    out[len] = '\0';
    return len;
}

size_t chr_format_u64(uint64_t v, char out[CHR_NUM_TEXT_MAX])
{
    return write_u64(v, out);
}

size_t chr_format_i64(int64_t v, char out[CHR_NUM_TEXT_MAX])
{
    if (v >= 0)
        return write_u64((uint64_t)v, out);
    out[0] = '-';
    return 1 + write_u64(-(uint64_t)v, out + 1);
}

/* floor(g * cp / 2^127) with the lowest bit set if anything was cut off: enough to compare with
 * integers and to know a tie. */
static inline uint64_t round_to_odd(struct chr__power_of_ten g, uint64_t cp)
{
    chr_u128 below = (chr_u128)g.low * cp;
    chr_u128 above = (chr_u128)g.high * cp + (uint64_t)(below >> 64);
    return (uint64_t)(above >> 64) | ((uint64_t)above > 1);
}

/* v = the result * 10^*exponent read back; v > 0, finite. Zeros may be left at the end. */
static uint64_t shortest(double v, int *exponent)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    int biased = (int)(bits >> 52);
    uint64_t c = biased ? fraction | UINT64_C(1) << 52 : fraction;
    int q = (biased ? biased : 1) - 1075; /* v = c * 2^q */
    if (q <= 0 && q > -53 && (c & ((UINT64_C(1) << -q) - 1)) == 0) {
        *exponent = 0;
        return c >> -q; /* a small integer has no shorter form that is exact */
    }
    /* All in quarters of the last bit, to have integers for the borders of the interval. A power of
     * two has its lower neighbour at half the distance. */
    bool lower_is_closer = fraction == 0 && biased > 1;
    uint64_t left = 4 * c - 2 + lower_is_closer, middle = 4 * c, right = 4 * c + 2;
    /* k = floor(log10(2^q)), of 3/4 of it for a power of two. */
    int k = (q * 1262611 - (lower_is_closer ? 524031 : 0)) >> 22;
    int h = q + chr__log2_of_power_of_ten(-k) + 1;
    struct chr__power_of_ten g = chr__power_of_ten(-k);
    left = round_to_odd(g, left << h);
    middle = round_to_odd(g, middle << h);
    right = round_to_odd(g, right << h);
    /* The borders themselves read back as v only if its mantissa is even. */
    uint64_t odd = c & 1, lower = left + odd, upper = right - odd;

    uint64_t s = middle / 4;
    if (s >= 10) {
        uint64_t tens = s / 10;
        bool below = lower <= 40 * tens, above = 40 * tens + 40 <= upper;
        if (below != above) {
            *exponent = k + 1;
            return tens + above;
        }
    }
    *exponent = k;
    bool below = lower <= 4 * s, above = 4 * s + 4 <= upper;
    if (below != above)
        return s + above;
    /* Both or none are inside: the nearer one, the even one of a tie. */
    uint64_t half = 4 * s + 2;
    return s + (middle > half || (middle == half && (s & 1)));
}

/* The shortest digits (no zeros at either end) with v = 0.d1d2d3... * 10^point. */
static int shortest_digits(double v, char digits[24], int *point)
{
    int exponent;
    uint64_t decimal = shortest(v, &exponent);
    int count = (int)write_u64(decimal, digits);
    *point = count + exponent;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    return count;
}

size_t chr_format_f64(double v, char out[CHR_NUM_TEXT_MAX])
{
    char *at = out;
    if (v != v) {
        memcpy(out, "NaN", 4);
        return 3;
    }
    if (__builtin_signbit(v)) {
        *at++ = '-';
        v = -v;
    }
    if (v > 0x1.fffffffffffffp1023) {
        memcpy(at, "Infinity", 9);
        return (size_t)(at - out) + 8;
    }
    if (v == 0) {
        memcpy(at, "0", 2);
        return (size_t)(at - out) + 1;
    }
    char digits[24];
    int point;
    int count = shortest_digits(v, digits, &point);
    /* The layout of JavaScript's Number::toString. */
    if (point > 21 || point < -5) {
        *at++ = digits[0];
        if (count > 1) {
            *at++ = '.';
            memcpy(at, digits + 1, (size_t)count - 1);
            at += count - 1;
        }
        *at++ = 'e';
        *at++ = point > 0 ? '+' : '-';
        at += write_u64((uint64_t)(point > 0 ? point - 1 : 1 - point), at);
        return (size_t)(at - out);
    }
    if (point <= 0) {
        memcpy(at, "0.00000", (size_t)(2 - point));
        at += 2 - point;
        memcpy(at, digits, (size_t)count);
        at += count;
    } else if (count <= point) {
        memcpy(at, digits, (size_t)count);
        memset(at + count, '0', (size_t)(point - count));
        at += point;
    } else {
        memcpy(at, digits, (size_t)point);
        at[point] = '.';
        memcpy(at + point + 1, digits + point, (size_t)(count - point));
        at += count + 1;
    }
    *at = '\0';
    return (size_t)(at - out);
}
