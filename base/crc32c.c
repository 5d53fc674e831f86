/* base/crc32c.c: CRC-32C by instruction or by table.
 *
 * The instruction takes three cycles but a new one can start each cycle, so long inputs are cut
 * into three neighbouring blocks whose remainders are computed at the same time. Joining them means
 * multiplying the first two by x^(bits that follow) modulo the polynomial: a carry-less
 * multiplication by a constant, folded back to 32 bits by the CRC instruction itself. */
#include "base/crc32c.h"

#include <pthread.h>

#include "base/bytes.h"

/* 0x1edc6f41 with its bits reversed: bit 31 of a remainder is the coefficient of x^0. */
#define POLYNOMIAL 0x82f63b78u

/* table[k][b]: the remainder of byte b followed by k zero bytes. */
static uint32_t table[8][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t c = byte;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? POLYNOMIAL : 0);
        table[0][byte] = c;
    }
    for (int zeros = 1; zeros < 8; zeros++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t c = table[zeros - 1][byte];
            table[zeros][byte] = c >> 8 ^ table[0][c & 0xff];
        }
    }
}

uint32_t chr_crc32c_table(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&table_once, fill_table);
    const uint8_t *p = bytes;
    uint32_t c = ~crc;
    while (len >= 8) {
        uint64_t word = chr_get_u64le(p) ^ c;
        c = table[7][word & 0xff] ^ table[6][word >> 8 & 0xff] ^ table[5][word >> 16 & 0xff] ^
            table[4][word >> 24 & 0xff] ^ table[3][word >> 32 & 0xff] ^
            table[2][word >> 40 & 0xff] ^ table[1][word >> 48 & 0xff] ^ table[0][word >> 56];
        p += 8;
        len -= 8;
    }
    while (len--)
        c = c >> 8 ^ table[0][(c ^ *p++) & 0xff];
    return ~c;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define CRC_TARGET __attribute__((target("sse4.2,pclmul")))

/* x^(8n-33) mod P. The product of two reversed 32-bit remainders is one x too high, and the
 * instruction adds x^32: together 33. */
#define X_LONG      0x170076fau
#define X_LONG_TWO  0xa51b6135u
#define X_SHORT     0x0d3b6092u
#define X_SHORT_TWO 0xb9e02b86u
#define LONG_BLOCK  1024
#define SHORT_BLOCK 128

CRC_TARGET static inline uint64_t multiply(uint64_t crc, uint32_t by)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)crc), _mm_cvtsi64_si128((int64_t)by), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

CRC_TARGET static inline uint64_t three_blocks(uint64_t crc, const uint8_t *p, size_t block,
                                               uint32_t x_one, uint32_t x_two)
{
    uint64_t second = 0, third = 0;
    for (size_t i = 0; i < block; i += 8) {
        crc = _mm_crc32_u64(crc, chr_get_u64le(p + i));
        second = _mm_crc32_u64(second, chr_get_u64le(p + block + i));
        third = _mm_crc32_u64(third, chr_get_u64le(p + 2 * block + i));
    }
    return _mm_crc32_u64(0, multiply(crc, x_two) ^ multiply(second, x_one)) ^ third;
}

CRC_TARGET static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t c = ~crc;
    for (; len >= 3 * LONG_BLOCK; p += 3 * LONG_BLOCK, len -= 3 * LONG_BLOCK)
        c = three_blocks(c, p, LONG_BLOCK, X_LONG, X_LONG_TWO);
    for (; len >= 3 * SHORT_BLOCK; p += 3 * SHORT_BLOCK, len -= 3 * SHORT_BLOCK)
        c = three_blocks(c, p, SHORT_BLOCK, X_SHORT, X_SHORT_TWO);
    for (; len >= 8; p += 8, len -= 8)
        c = _mm_crc32_u64(c, chr_get_u64le(p));
    uint32_t rest = (uint32_t)c;
    if (len & 4) {
        rest = _mm_crc32_u32(rest, chr_get_u32le(p));
        p += 4;
    }
    if (len & 2) {
        rest = _mm_crc32_u16(rest, chr_get_u16le(p));
        p += 2;
    }
    if (len & 1)
        rest = _mm_crc32_u8(rest, *p);
    return ~rest;
}

uint32_t chr_crc32c(uint32_t crc, const void *bytes, size_t len)
{
    if (CHR_LIKELY(__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")))
        return crc32c_sse42(crc, bytes, len);
    return chr_crc32c_table(crc, bytes, len);
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

uint32_t chr_crc32c(uint32_t crc, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    uint32_t c = ~crc;
    for (; len >= 8; p += 8, len -= 8)
        c = __crc32cd(c, chr_get_u64le(p));
    while (len--)
        c = __crc32cb(c, *p++);
    return ~c;
}

#else

uint32_t chr_crc32c(uint32_t crc, const void *bytes, size_t len)
{
    return chr_crc32c_table(crc, bytes, len);
}

#endif
