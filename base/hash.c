/* base/hash.c: multiply-and-fold hashing after the idea of wyhash (Wang Yi): the 128-bit product of
 * two words, its halves xored, mixes 16 bytes of input per multiplication. */
#include "base/hash.h"

#include <stdatomic.h>

#include "base/bytes.h"
#include "base/random.h"

/* Odd words with as many ones as zeros. */
#define K0 0x8bb84b93962eacc9
#define K1 0x4b33a62ed433d4a3
#define K2 0x4d5a2da51de1aa47
#define K3 0xa0761d6478bd642f

CHR_INLINE uint64_t fold(uint64_t a, uint64_t b)
{
    chr_u128 product = (chr_u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t chr_hash_bytes(const void *bytes, size_t len, uint64_t seed)
{
    const uint8_t *p = bytes;
    uint64_t a, b;
    seed ^= fold(seed ^ K0, K1);
    if (CHR_LIKELY(len <= 16)) {
        if (len >= 8) {
            a = chr_get_u64le(p);
            b = chr_get_u64le(p + len - 8);
        } else if (len >= 4) {
            a = chr_get_u32le(p);
            b = chr_get_u32le(p + len - 4);
        } else if (len > 0) {
            a = (uint64_t)p[0] << 16 | (uint64_t)p[len >> 1] << 8 | p[len - 1];
            b = 0;
        } else {
            a = b = 0;
        }
    } else {
        size_t left = len;
        if (left > 48) {
            uint64_t lane1 = seed, lane2 = seed;
            do {
                seed = fold(chr_get_u64le(p) ^ K1, chr_get_u64le(p + 8) ^ seed);
                lane1 = fold(chr_get_u64le(p + 16) ^ K2, chr_get_u64le(p + 24) ^ lane1);
                lane2 = fold(chr_get_u64le(p + 32) ^ K3, chr_get_u64le(p + 40) ^ lane2);
                p += 48;
                left -= 48;
            } while (left > 48);
            seed ^= lane1 ^ lane2;
        }
        while (left > 16) {
            seed = fold(chr_get_u64le(p) ^ K1, chr_get_u64le(p + 8) ^ seed);
            p += 16;
            left -= 16;
        }
        /* The last 16 bytes, which may overlap what was mixed already. */
        a = chr_get_u64le(p + left - 16);
        b = chr_get_u64le(p + left - 8);
    }
    a ^= K1;
    b ^= seed;
    chr_u128 product = (chr_u128)a * b;
    return fold((uint64_t)product ^ K0 ^ len, (uint64_t)(product >> 64) ^ K1);
}

uint64_t chr_hash_seed(void)
{
    static _Atomic uint64_t process_seed; /* 0: not drawn yet */
    uint64_t seed = atomic_load_explicit(&process_seed, memory_order_relaxed);
    if (CHR_UNLIKELY(seed == 0)) {
        uint64_t drawn;
        chr_random_bytes(&drawn, sizeof drawn);
        drawn |= 1;
        /* Of two first callers one wins and both use its value. */
        seed = atomic_compare_exchange_strong(&process_seed, &seed, drawn) ? drawn : seed;
    }
    return seed;
}
