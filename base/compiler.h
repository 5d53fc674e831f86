/* base/compiler.h: attributes that gcc 12 and clang 14 share. */
#ifndef CHR_BASE_COMPILER_H
#define CHR_BASE_COMPILER_H

#define CHR_MUST_USE          __attribute__((warn_unused_result))
#define CHR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define CHR_NORETURN          __attribute__((noreturn))
#define CHR_INLINE            static inline __attribute__((always_inline))
#define CHR_NOINLINE          __attribute__((noinline))
#define CHR_LIKELY(x)         __builtin_expect(!!(x), 1)
#define CHR_UNLIKELY(x)       __builtin_expect(!!(x), 0)
/* 64 bytes: what x86-64 and most ARMv8 cores move between caches in one piece. */
#define CHR_CACHE_LINE                      64
#define CHR_ALIGNED(n)                      __attribute__((aligned(n)))
#define CHR_COUNT_OF(array)                 (sizeof(array) / sizeof((array)[0]))
#define CHR_MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define CHR_MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define CHR_CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* What two 64-bit factors make. */
__extension__ typedef unsigned __int128 chr_u128;

#endif
