/* base/random.h: numbers for tests, benches and back-off (seeded, repeatable) and for secrets. */
#ifndef CHR_BASE_RANDOM_H
#define CHR_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* splitmix64: same seed, same sequence, everywhere. */
struct chr_random {
    uint64_t state;
};
uint64_t chr_random_u64(struct chr_random *random);
/* Uniform in [0, bound), bound > 0. */
uint64_t chr_random_below(struct chr_random *random, uint64_t bound);
/* Uniform in [0, 1). */
double chr_random_f64(struct chr_random *random);
/* From the kernel (getrandom); for ids and tokens. Aborts when the kernel has none. */
void chr_random_bytes(void *out, size_t len);

#endif
