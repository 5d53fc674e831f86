/* base/assert.h: assertions about ourselves, never about what a client or a disk can choose.
 *
 * CHR_ASSERT stays in release builds: a stopped node is repaired by the others, a wrong one is
 * copied. CHR_ASSERT_HOT is for inner loops and exists in debug and sanitizer builds only. */
#ifndef CHR_BASE_ASSERT_H
#define CHR_BASE_ASSERT_H

#include "base/compiler.h"

/* Logs the failed condition with its place and aborts. */
CHR_NORETURN void chr_assert_failed(const char *condition, const char *file, int line);

#define CHR_ASSERT(cond) (CHR_LIKELY(cond) ? (void)0 : chr_assert_failed(#cond, __FILE__, __LINE__))
#ifdef CHR_DEBUG
#define CHR_ASSERT_HOT(cond) CHR_ASSERT(cond)
#else
#define CHR_ASSERT_HOT(cond) ((void)0)
#endif

#endif
