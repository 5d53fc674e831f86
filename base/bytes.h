/* base/bytes.h: integers in byte streams, at any alignment.
 *
 * Disk formats are little-endian (`le`), MQTT is big-endian (`be`). Compilers turn each of these
 * into one load or store. */
#ifndef CHR_BASE_BYTES_H
#define CHR_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "big-endian hosts need swaps below");

#define CHR_BYTES_DEFINE(bits)                                                                     \
    CHR_INLINE uint##bits##_t chr_get_u##bits##le(const void *p)                                   \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof v);                                                                   \
        return v;                                                                                  \
    }                                                                                              \
    CHR_INLINE void chr_put_u##bits##le(void *p, uint##bits##_t v)                                 \
    {                                                                                              \
        memcpy(p, &v, sizeof v);                                                                   \
    }                                                                                              \
    CHR_INLINE uint##bits##_t chr_get_u##bits##be(const void *p)                                   \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, p, sizeof v);                                                                   \
        return __builtin_bswap##bits(v);                                                           \
    }                                                                                              \
    CHR_INLINE void chr_put_u##bits##be(void *p, uint##bits##_t v)                                 \
    {                                                                                              \
        v = __builtin_bswap##bits(v);                                                              \
        memcpy(p, &v, sizeof v);                                                                   \
    }

CHR_BYTES_DEFINE(16)
CHR_BYTES_DEFINE(32)
CHR_BYTES_DEFINE(64)
#undef CHR_BYTES_DEFINE

/* n rounded up to a multiple of a power of two. */
CHR_INLINE uint64_t chr_round_up(uint64_t n, uint64_t power_of_two)
{
    return (n + power_of_two - 1) & ~(power_of_two - 1);
}

#endif
