/* base/slice.h: bytes that somebody else owns, by value. Not zero-terminated: topics and payloads
 * are not. An empty slice may have a NULL ptr. */
#ifndef CHR_BASE_SLICE_H
#define CHR_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"

typedef struct chr_slice {
    const uint8_t *ptr; /* borrowed */
    size_t len;         /* bytes */
} chr_slice;

CHR_INLINE chr_slice chr_slice_of(const void *ptr, size_t len)
{
    return (chr_slice){.ptr = (const uint8_t *)ptr, .len = len};
}

CHR_INLINE chr_slice chr_slice_cstr(const char *cstr)
{
    return (chr_slice){.ptr = (const uint8_t *)cstr, .len = cstr ? strlen(cstr) : 0};
}

CHR_INLINE bool chr_slice_eq(chr_slice a, chr_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* Byte order, a prefix before what it is a prefix of: below 0, 0, above 0. */
CHR_INLINE int chr_slice_cmp(chr_slice a, chr_slice b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.ptr, b.ptr, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

CHR_INLINE bool chr_slice_starts(chr_slice s, chr_slice prefix)
{
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.ptr, prefix.ptr, prefix.len) == 0);
}

/* A malloc'd, zero-terminated copy; NULL when out of memory. Caller frees. */
char *chr_slice_dup_cstr(chr_slice s);

/* printf("%.*s", CHR_SLICE_ARGS(s)) */
#define CHR_SLICE_ARGS(s) (int)(s).len, (const char *)(s).ptr
/* A string literal as a slice; in an initializer of static data write CHR_LIT_INIT. */
#define CHR_LIT(literal) chr_slice_of(literal, sizeof(literal) - 1)
#define CHR_LIT_INIT(literal)                                                                      \
    {                                                                                              \
        .ptr = (const uint8_t *)(literal), .len = sizeof(literal) - 1                              \
    }

#endif
