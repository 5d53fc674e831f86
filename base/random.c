/* base/random.c: splitmix64 (Steele, Lea, Flood 2014) and the kernel's generator. */
#include "base/random.h"

#include <errno.h>
#include <sys/random.h>

#include "base/assert.h"

uint64_t chr_random_u64(struct chr_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

uint64_t chr_random_below(struct chr_random *random, uint64_t bound)
{
    CHR_ASSERT(bound > 0);
    /* The high half of a 64x64 product is nearly uniform; products whose low half falls below
     * 2^64 mod bound are the surplus (Lemire 2019). */
    chr_u128 product;
    uint64_t surplus = -bound % bound;
    do
        product = (chr_u128)chr_random_u64(random) * bound;
    while ((uint64_t)product < surplus);
    return (uint64_t)(product >> 64);
}

double chr_random_f64(struct chr_random *random)
{
    return (double)(chr_random_u64(random) >> 11) * 0x1p-53;
}

void chr_random_bytes(void *out, size_t len)
{
    uint8_t *at = out;
    while (len) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0) {
            CHR_ASSERT(errno == EINTR);
            continue;
        }
        at += got;
        len -= (size_t)got;
    }
}
