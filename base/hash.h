/* base/hash.h: 64-bit hashes for tables in memory. Never stored, never compared between machines:
 * the algorithm may change. Seeded per process against chosen collisions where keys are foreign. */
#ifndef CHR_BASE_HASH_H
#define CHR_BASE_HASH_H

#include <stdint.h>

#include "base/slice.h"

uint64_t chr_hash_bytes(const void *bytes, size_t len, uint64_t seed);
CHR_INLINE uint64_t chr_hash_slice(chr_slice s, uint64_t seed)
{
    return chr_hash_bytes(s.ptr, s.len, seed);
}
/* Mixes one integer. */
CHR_INLINE uint64_t chr_hash_u64(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xe9846af9b1a615dULL;
    x ^= x >> 32;
    x *= 0xe9846af9b1a615dULL;
    x ^= x >> 28;
    return x;
}
/* Random at process start. */
uint64_t chr_hash_seed(void);

#endif
