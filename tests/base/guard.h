/* tests/base/guard.h: bytes that end where readable memory ends, so that a decoder reading one byte
 * too far crashes instead of passing. */
#ifndef CHR_TESTS_BASE_GUARD_H
#define CHR_TESTS_BASE_GUARD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/slice.h"

/* The one guarded area of a test program: size readable bytes, then a page that is not. */
static inline uint8_t *guard_end(size_t size)
{
    static uint8_t *end;
    static size_t have;
    if (size > have) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        have = (size + page - 1) / page * page;
        uint8_t *base =
            mmap(NULL, have + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED || mprotect(base + have, page, PROT_NONE) != 0)
            abort();
        end = base + have;
    }
    return end;
}

/* A copy of the bytes that ends at the guard; valid until the next call. */
static inline chr_slice guarded(const void *bytes, size_t len)
{
    uint8_t *at = guard_end(len + 1) - len;
    if (len)
        memcpy(at, bytes, len);
    return chr_slice_of(at, len);
}

static inline chr_slice guarded_cstr(const char *cstr)
{
    return guarded(cstr, strlen(cstr));
}

#endif
