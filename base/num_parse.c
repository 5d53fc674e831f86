/* base/num_parse.c: reading numbers.
 *
 * A decimal is scanned into an integer of up to 19 digits and a power of ten. What most sensors
 * send (up to 15 digits, small exponent) is then one exact multiplication or division (Clinger
 * 1990). Others are multiplied by a 128-bit power of ten, as Eisel and Lemire do, here with the
 * error kept as an interval: unless the middle between two doubles lies inside it, rounding is
 * certain. What is left goes to strtod, as digits and exponent without a decimal point so that no
 * locale matters. */
#include "base/num.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/power_of_ten.h"

/* 10^19 - 1 fits 64 bits. */
#define DIGITS_MAX 19
/* No double needs more digits to be told from its neighbour's middle (767 plus one). */
#define STRTOD_DIGITS_MAX 800
/* Beyond this the value is 0 or too large whatever the digits: a payload has at most 2^28. */
#define EXPONENT_MAX 1000000000

/* Exact as doubles: 5^22 < 2^53. */
static const double small_power[] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};

CHR_INLINE bool is_digit(uint8_t c)
{
    return (unsigned)(c - '0') <= 9;
}

/* All eight bytes are digits: adding 6 carries '0'..'9' no further than 0x3f, and all else leaves a
 * high nibble other than 3 in one of the two. */
CHR_INLINE bool eight_digits(uint64_t word)
{
    return ((word & 0xf0f0f0f0f0f0f0f0) |
            ((word + 0x0606060606060606) & 0xf0f0f0f0f0f0f0f0) >> 4) == 0x3333333333333333;
}

/* Their value: neighbours are joined into pairs, pairs into fours, fours into eight. */
CHR_INLINE uint32_t eight_digits_value(uint64_t word)
{
    word -= 0x3030303030303030;
    word = word * 10 + (word >> 8);
    return (uint32_t)(((word & 0x000000ff000000ff) * 0x000f424000000064 +
                       (word >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >>
                      32);
}

struct decimal {
    uint64_t digits;  /* the first 19 significant ones */
    int64_t exponent; /* value = digits * 10^exponent, and more if truncated */
    bool negative;
    bool truncated;       /* digits after the 19th were left out */
    const uint8_t *begin; /* of the mantissa's digits */
    const uint8_t *end;   /* of the mantissa */
    int64_t written;      /* the exponent as written */
};

CHR_INLINE const uint8_t *scan_digits(const uint8_t *p, const uint8_t *end, uint64_t *value)
{
    uint64_t v = *value;
    while (end - p >= 8) {
        uint64_t word = chr_get_u64le(p);
        if (!eight_digits(word))
            break;
        v = v * 100000000 + eight_digits_value(word);
        p += 8;
    }
    for (; p < end && is_digit(*p); p++)
        v = v * 10 + (uint64_t)(*p - '0');
    *value = v;
    return p;
}

/* More than 19 digits were written: the sum above ran over. Takes the first 19 significant. */
static CHR_NOINLINE void rescan(struct decimal *d, const uint8_t *point)
{
    uint64_t digits = 0;
    int count = 0;
    int64_t dropped = 0; /* before the point */
    int64_t after = 0;   /* taken after the point, leading zeros included */
    for (const uint8_t *p = d->begin; p < d->end; p++) {
        if (*p == '.')
            continue;
        bool fraction = point && p > point;
        if (count == DIGITS_MAX) {
            d->truncated |= *p != '0';
            dropped += !fraction;
            continue;
        }
        digits = digits * 10 + (uint64_t)(*p - '0');
        count += digits != 0;
        after += fraction;
    }
    d->digits = digits;
    d->exponent = dropped - after + d->written;
}

/* The value of a decimal that the fast path cannot give. Digits go to strtod without leading zeros
 * and, past STRTOD_DIGITS_MAX, with a last 1 that stands for whatever is not zero there. */
static CHR_NOINLINE double slow_value(const struct decimal *d)
{
    char text[STRTOD_DIGITS_MAX + 8 + CHR_NUM_TEXT_MAX];
    size_t len = 0;
    int64_t exponent = d->written;
    bool fraction = false, sticky = false;
    for (const uint8_t *p = d->begin; p < d->end; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        if (len < STRTOD_DIGITS_MAX) {
            if (len || *p != '0')
                text[len++] = (char)*p;
            exponent -= fraction;
        } else {
            sticky |= *p != '0';
            exponent += !fraction;
        }
    }
    if (len == 0)
        return 0;
    if (sticky) {
        text[len++] = '1';
        exponent--;
    }
    text[len++] = 'e';
    if (exponent < -EXPONENT_MAX)
        exponent = -EXPONENT_MAX;
    if (exponent > EXPONENT_MAX)
        exponent = EXPONENT_MAX;
    chr_format_i64(exponent, text + len);
    int saved_errno = errno;
    double v = strtod(text, NULL);
    errno = saved_errno;
    return v;
}

/* digits * 10^q, digits != 0. False when rounding is not certain, and for denormal results, which
 * keep fewer bits than the shift below assumes. */
static bool product_value(uint64_t digits, int q, double *out)
{
    int shift_left = __builtin_clzll(digits);
    uint64_t w = digits << shift_left;
    struct chr__power_of_ten g = chr__power_of_ten(q);
    /* high:middle:low = w * g. The true product is above it less w, so it differs in `low` and one
     * borrow at most. */
    chr_u128 below = (chr_u128)w * g.low;
    chr_u128 above = (chr_u128)w * g.high + (uint64_t)(below >> 64);
    uint64_t low = (uint64_t)below, middle = (uint64_t)above, high = (uint64_t)(above >> 64);

    int top =
        (int)(high >> 63); /* the highest bit is 63 or 62: both factors had theirs at the top */
    int exponent = chr__log2_of_power_of_ten(q) + 63 + top - shift_left;
    if (exponent < -1022)
        return false;
    int shift = 10 + top;
    uint64_t mantissa = high >> shift;
    uint64_t rest = high & ((UINT64_C(1) << shift) - 1), half = UINT64_C(1) << (shift - 1);
    if (rest == half && middle == 0) {
        /* The interval holds the middle between two doubles. */
        if (q < 0 || q > CHR__POWER_EXACT_LAST)
            return false;
        mantissa += low != 0 || (mantissa & 1);
    } else {
        mantissa += rest >= half;
    }
    if (mantissa >> 53) {
        mantissa >>= 1;
        exponent++;
    }
    if (exponent > 1023) {
        *out = __builtin_inf();
        return true;
    }
    uint64_t bits = (uint64_t)(exponent + 1023) << 52 | (mantissa & ((UINT64_C(1) << 52) - 1));
    memcpy(out, &bits, sizeof bits);
    return true;
}

static CHR_NOINLINE double large_value(const struct decimal *d)
{
    double v, next;
    if (d->digits == 0)
        return 0;
    if (d->exponent >= CHR__POWER_FIRST && d->exponent <= 308) {
        int q = (int)d->exponent;
        /* The digits left out make less than one more in the 19th. */
        if (product_value(d->digits, q, &v) &&
            (!d->truncated || (product_value(d->digits + 1, q, &next) && next == v)))
            return v;
    } else if (d->exponent > 308) {
        return __builtin_inf();
    }
    return slow_value(d);
}

static inline double decimal_value(const struct decimal *d)
{
    double v;
    if (CHR_LIKELY(!d->truncated && d->digits <= UINT64_C(1) << 53 && d->exponent >= -22 &&
                   d->exponent <= 22)) {
        /* Both operands are exact doubles, so IEEE 754 rounds once, correctly. */
        v = (double)d->digits;
        v = d->exponent < 0 ? v / small_power[-d->exponent] : v * small_power[d->exponent];
    } else {
        v = large_value(d);
    }
    return d->negative ? -v : v;
}

/* After 'e' or 'E'. Returns where it ends, NULL when there is no exponent. */
static inline const uint8_t *scan_exponent(const uint8_t *p, const uint8_t *end, int64_t *out)
{
    bool negative = false;
    if (p < end && (*p == '+' || *p == '-'))
        negative = *p++ == '-';
    if (p == end || !is_digit(*p))
        return NULL;
    int64_t e = 0;
    for (; p < end && is_digit(*p); p++)
        if (e < EXPONENT_MAX)
            e = e * 10 + (*p - '0');
    *out = negative ? -e : e;
    return p;
}

#define IS_INFINITE(v) ((v) - (v) != 0)

int chr_parse_number(chr_slice text, bool *is_int, int64_t *i64, double *f64)
{
    const uint8_t *p = text.ptr, *end = p + text.len;
    struct decimal d = {0};
    if (p < end && *p == '-') {
        d.negative = true;
        p++;
    }
    d.begin = p;
    p = scan_digits(p, end, &d.digits);
    int64_t count = p - d.begin;
    if (count == 0 || (count > 1 && *d.begin == '0'))
        return CHR_EMALFORMED;
    const uint8_t *point = NULL;
    bool whole = true;
    if (p < end && *p == '.') {
        whole = false;
        point = p++;
        p = scan_digits(p, end, &d.digits);
        int64_t after = p - point - 1;
        if (after == 0)
            return CHR_EMALFORMED;
        d.exponent = -after;
        count += after;
    }
    d.end = p;
    if (p < end && (*p == 'e' || *p == 'E')) {
        whole = false;
        p = scan_exponent(p + 1, end, &d.written);
        if (!p)
            return CHR_EMALFORMED;
        d.exponent += d.written;
    }
    if (CHR_UNLIKELY(count > DIGITS_MAX))
        rescan(&d, point);
    *is_int = false;
    *i64 = 0;
    if (whole && count <= DIGITS_MAX && d.digits <= (uint64_t)INT64_MAX + d.negative) {
        *is_int = true;
        *i64 = (int64_t)(d.negative ? -d.digits : d.digits);
        /* A conversion rounds once, too; -0 keeps its sign in the double alone. */
        double v = (double)d.digits;
        *f64 = d.negative ? -v : v;
    } else {
        double v = decimal_value(&d);
        if (IS_INFINITE(v))
            return CHR_ERANGE;
        *f64 = v;
    }
    return (int)(p - text.ptr);
}

/* Length of the word at p if it is there in any case, else 0. */
static size_t word_at(const uint8_t *p, const uint8_t *end, const char *word)
{
    size_t len = strlen(word);
    if ((size_t)(end - p) < len)
        return 0;
    for (size_t i = 0; i < len; i++)
        if ((p[i] | 0x20) != (uint8_t)word[i])
            return 0;
    return len;
}

static int parse_special(const uint8_t *p, const uint8_t *end, double *out)
{
    size_t len;
    if ((len = word_at(p, end, "nan")))
        *out = __builtin_nan("");
    else if ((len = word_at(p, end, "infinity")) || (len = word_at(p, end, "inf")))
        *out = __builtin_inf();
    else
        return CHR_EMALFORMED;
    return (int)len;
}

int chr_parse_f64(chr_slice text, double *out)
{
    const uint8_t *p = text.ptr, *end = p + text.len;
    struct decimal d = {0};
    if (p < end && (*p == '-' || *p == '+'))
        d.negative = *p++ == '-';
    if (p == end)
        return CHR_EMALFORMED;
    if (CHR_UNLIKELY(!is_digit(*p) && *p != '.')) {
        double v;
        int used = parse_special(p, end, &v);
        if (used < 0)
            return used;
        *out = d.negative ? -v : v;
        return (int)(p - text.ptr) + used;
    }
    d.begin = p;
    p = scan_digits(p, end, &d.digits);
    int64_t count = p - d.begin;
    const uint8_t *point = NULL;
    if (p < end && *p == '.') {
        point = p++;
        p = scan_digits(p, end, &d.digits);
        d.exponent = -(p - point - 1);
        count += p - point - 1;
    }
    if (count == 0)
        return CHR_EMALFORMED;
    d.end = p;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p = scan_exponent(p + 1, end, &d.written);
        if (!p)
            return CHR_EMALFORMED;
        d.exponent += d.written;
    }
    if (CHR_UNLIKELY(count > DIGITS_MAX))
        rescan(&d, point);
    double v = decimal_value(&d);
    if (IS_INFINITE(v))
        return CHR_ERANGE;
    *out = v;
    return (int)(p - text.ptr);
}

int chr_parse_i64(chr_slice text, int64_t *out)
{
    const uint8_t *p = text.ptr, *end = p + text.len;
    bool negative = false;
    if (p < end && (*p == '-' || *p == '+'))
        negative = *p++ == '-';
    const uint8_t *digits = p;
    uint64_t v = 0;
    bool over = false;
    for (; p < end && is_digit(*p); p++)
        over |= __builtin_mul_overflow(v, 10u, &v) ||
                __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
    if (p == digits)
        return CHR_EMALFORMED;
    if (over || v > (uint64_t)INT64_MAX + negative)
        return CHR_ERANGE;
    *out = (int64_t)(negative ? -v : v);
    return (int)(p - text.ptr);
}
