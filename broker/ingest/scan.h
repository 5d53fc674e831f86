/* broker/ingest/scan.h: reading payload bytes 8 and 16 at a time.
 *
 * Payloads lie in network buffers and nothing may be read past their end (I3). So a message is
 * first copied to memory of ours with INGEST_PAD zeros behind it: 48 bytes cost 2 ns, and from then
 * on no load and no loop needs to know where the end is, since a zero byte is neither part of a
 * number nor allowed in a JSON string nor a JSON token: every scan stops there by itself. The copy
 * also finds out whether all bytes are ASCII, which is all that checking UTF-8 then takes. */
#ifndef CHR_BROKER_INGEST_SCAN_H
#define CHR_BROKER_INGEST_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "base/compiler.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define INGEST_PAD 64

/* The len (below 16) bytes at src as two words, zeros above: overlapping loads, no loop. */
CHR_INLINE void ingest_load_short(const uint8_t *src, size_t len, uint64_t *low, uint64_t *high)
{
    *high = 0;
    if (len > 8) {
        *low = chr_get_u64le(src);
        *high = chr_get_u64le(src + len - 8) >> (8 * (16 - len));
    } else if (len >= 4) {
        *low = chr_get_u32le(src) | (uint64_t)chr_get_u32le(src + len - 4) << (8 * (len - 4));
    } else if (len) {
        *low = src[0] | (uint64_t)src[len / 2] << (8 * (len / 2)) |
               (uint64_t)src[len - 1] << (8 * (len - 1));
    } else {
        *low = 0;
    }
}

/* dst has room for len + INGEST_PAD. Returns whether all bytes are below 0x80. A short payload is
 * stored in one piece: a load of 8 bytes that were stored in several would have to wait. */
CHR_INLINE bool ingest_copy_padded(uint8_t *dst, const uint8_t *src, size_t len)
{
    if (len < 16) {
        uint64_t words[2];
        ingest_load_short(src, len, &words[0], &words[1]);
#ifdef __SSE2__
        __m128i v = _mm_set_epi64x((int64_t)words[1], (int64_t)words[0]);
        _mm_storeu_si128((__m128i *)(void *)dst, v);
#else
        memcpy(dst, words, 16);
#endif
        memset(dst + 16, 0, INGEST_PAD - 16);
        memset(dst + len + INGEST_PAD - 16, 0, 16);
        return ((words[0] | words[1]) & 0x8080808080808080) == 0;
    }
#ifdef __SSE2__
    __m128i seen = _mm_setzero_si128();
    for (size_t i = 0; i + 16 <= len; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(src + i));
        _mm_storeu_si128((__m128i *)(void *)(dst + i), v);
        seen = _mm_or_si128(seen, v);
    }
    /* The last 16 bytes once more, overlapping: no loop over the rest. */
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(src + len - 16));
    _mm_storeu_si128((__m128i *)(void *)(dst + len - 16), v);
    bool ascii = _mm_movemask_epi8(_mm_or_si128(seen, v)) == 0;
#else
    uint8_t seen = 0;
    for (size_t i = 0; i < len; i++) {
        dst[i] = src[i];
        seen |= src[i];
    }
    bool ascii = seen < 0x80;
#endif
    memset(dst + len, 0, INGEST_PAD);
    return ascii;
}

/* Bit i: byte i of the 16 at p is `"`, `\` or below 0x20: where a plain run of a string ends. */
CHR_INLINE uint32_t ingest_string_stops(const uint8_t *p)
{
#ifdef __SSE2__
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i quote = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
    __m128i escape = _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'));
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    return (uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, escape), control));
#else
    uint32_t stops = 0;
    for (unsigned i = 0; i < 16; i++)
        stops |= (uint32_t)(p[i] == '"' || p[i] == '\\' || p[i] < 0x20) << i;
    return stops;
#endif
}

/* First stop of a string whose first byte is at p. */
CHR_INLINE const uint8_t *ingest_string_run(const uint8_t *p)
{
    for (;; p += 16) {
        uint32_t stops = ingest_string_stops(p);
        if (stops)
            return p + __builtin_ctz(stops);
    }
}

CHR_INLINE const uint8_t *ingest_space(const uint8_t *p)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
        p++;
    return p;
}

CHR_INLINE bool ingest_is_digit(uint8_t c)
{
    return (unsigned)(c - '0') <= 9;
}

/* How many of the 8 bytes, from the lowest, are digits. A digit has high nibble 3, also after
 * adding 6; a carry out of a byte that is none changes only bytes behind it. */
CHR_INLINE unsigned ingest_digits_count(uint64_t word)
{
    uint64_t nibbles =
        (word & 0xf0f0f0f0f0f0f0f0) | ((word + 0x0606060606060606) & 0xf0f0f0f0f0f0f0f0) >> 4;
    uint64_t other = nibbles ^ 0x3333333333333333;
    return other ? (unsigned)__builtin_ctzll(other) >> 3 : 8;
}

/* Value of the `count` (1 .. 8) digits in the low bytes of word: moved to the high bytes, with
 * zeros as leading digits, neighbours joined to pairs, pairs to fours, fours to eight. */
CHR_INLINE uint64_t ingest_digits_value(uint64_t word, unsigned count)
{
    word = (word - 0x3030303030303030) << (64 - 8 * count);
    word = word * 10 + (word >> 8);
    return (((word & 0x000000ff000000ff) * 0x000f424000000064 +
             (word >> 16 & 0x000000ff000000ff) * 0x0000271000000001) >>
            32) &
           0xffffffff;
}

extern const uint64_t ingest_power_u64[20];
extern const double ingest_power_f64[23];

/* digits / 10^fraction, negated if negative. */
struct ingest_decimal {
    uint64_t digits;   /* below 10^18 */
    unsigned fraction; /* 0 .. 7 */
    bool negative;
};

/* What most numbers look like: at most 15 digits before and 7 after the point, 18 in all, no
 * exponent. Returns where it ends, or NULL: no JSON number, or not such a one (ask
 * chr_parse_number). p is followed by padding. */
CHR_INLINE const uint8_t *ingest_scan_decimal(const uint8_t *p, struct ingest_decimal *out)
{
    bool negative = *p == '-';
    p += negative;
    uint64_t word = chr_get_u64le(p);
    unsigned count = ingest_digits_count(word), whole = count;
    if (CHR_UNLIKELY(count == 0 || (*p == '0' && count > 1)))
        return NULL;
    uint64_t digits = ingest_digits_value(word, count);
    p += count;
    if (count == 8) {
        word = chr_get_u64le(p);
        count = ingest_digits_count(word);
        if (CHR_UNLIKELY(count == 8))
            return NULL;
        if (count) {
            digits = digits * ingest_power_u64[count] + ingest_digits_value(word, count);
            p += count;
            whole += count;
        }
    }
    unsigned fraction = 0;
    if (*p == '.') {
        word = chr_get_u64le(p + 1);
        fraction = ingest_digits_count(word);
        if (CHR_UNLIKELY(fraction == 0 || fraction == 8 || whole + fraction > 18))
            return NULL;
        digits = digits * ingest_power_u64[fraction] + ingest_digits_value(word, fraction);
        p += 1 + fraction;
    }
    if (CHR_UNLIKELY((*p | 0x20) == 'e'))
        return NULL;
    out->digits = digits;
    out->fraction = fraction;
    out->negative = negative;
    return p;
}

/* Exact: both operands are doubles, so IEEE 754 rounds once. False: more than 53 bits of digits. */
CHR_INLINE bool ingest_decimal_f64(const struct ingest_decimal *d, double *out)
{
    if (CHR_UNLIKELY(d->digits > UINT64_C(1) << 53))
        return false;
    double v = (double)(int64_t)d->digits;
    if (d->fraction)
        v /= ingest_power_f64[d->fraction];
    *out = d->negative ? -v : v;
    return true;
}

#endif
