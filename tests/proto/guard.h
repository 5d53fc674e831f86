/* tests/proto/guard.h: a place for bytes that ends where memory ends, so that reading one byte too
 * far is a crash instead of luck. */
#ifndef CHR_TESTS_PROTO_GUARD_H
#define CHR_TESTS_PROTO_GUARD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/slice.h"

struct guard {
    uint8_t *base;
    size_t bytes; /* usable; the page behind them is PROT_NONE */
};

static inline struct guard guard_open(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable = (bytes + page - 1) / page * page;
    uint8_t *base = (uint8_t *)mmap(NULL, usable + page, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED || mprotect(base + usable, page, PROT_NONE))
        abort();
    return (struct guard){base, usable};
}

static inline void guard_close(struct guard *guard)
{
    munmap(guard->base, guard->bytes + (size_t)sysconf(_SC_PAGESIZE));
}

/* `len` writable bytes right before the guard page. */
static inline uint8_t *guard_end(const struct guard *guard, size_t len)
{
    if (len > guard->bytes)
        abort();
    return guard->base + guard->bytes - len;
}

/* The same bytes, right before the guard page. Overwrites what was there. */
static inline chr_slice guard_copy(const struct guard *guard, const void *bytes, size_t len)
{
    uint8_t *at = guard_end(guard, len);
    if (len)
        memcpy(at, bytes, len);
    return chr_slice_of(at, len);
}

#endif
