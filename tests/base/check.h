/* tests/base/check.h: what cmocka wants included before it, and the seed of random tests.
 *
 * CHR_TEST_SEED in the environment replaces the seed; failures print it. */
#ifndef CHR_TESTS_BASE_CHECK_H
#define CHR_TESTS_BASE_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"

static inline struct chr_random test_random(uint64_t seed)
{
    const char *text = getenv("CHR_TEST_SEED");
    if (text)
        seed = strtoull(text, NULL, 0);
    print_message("seed %llu\n", (unsigned long long)seed);
    return (struct chr_random){.state = seed};
}

#endif
