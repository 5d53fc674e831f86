/* base/power_of_ten.h: powers of ten to 128 bits, for num_parse.c and num_format.c alone.
 *
 * 10^q = g * 2^(floor(log2(10^q)) - 127) where g, rounded up, has its bit 127 set: the true factor
 * lies in (g - 1, g]. It is g itself for 0 <= q <= CHR__POWER_EXACT_LAST, since 5^55 < 2^128. */
#ifndef CHR_BASE_POWER_OF_TEN_H
#define CHR_BASE_POWER_OF_TEN_H

#include <stdint.h>

#include "base/compiler.h"

/* A decimal of 19 digits is 0 below the first; the shortest form of the least denormal needs the
 * last. */
#define CHR__POWER_FIRST      (-342)
#define CHR__POWER_LAST       324
#define CHR__POWER_EXACT_LAST 55

struct chr__power_of_ten {
    uint64_t high, low;
};
extern const struct chr__power_of_ten chr__powers_of_ten[CHR__POWER_LAST - CHR__POWER_FIRST + 1];

CHR_INLINE struct chr__power_of_ten chr__power_of_ten(int q)
{
    return chr__powers_of_ten[q - CHR__POWER_FIRST];
}

/* floor(log2(10^q)) for |q| <= 1233: 1741647 / 2^19 is log2(10) to 22 bits. */
CHR_INLINE int chr__log2_of_power_of_ten(int q)
{
    return q * 1741647 >> 19;
}

#endif
