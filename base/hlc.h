/* base/hlc.h: hybrid logical clock: 48 bits of Unix milliseconds, 16 bits of counter.
 *
 * Kulkarni et al., "Logical Physical Clocks", 2014. R14: the leader stamps an entry when it appends
 * it, strictly above every stamp before it. Plain functions over a value; no clock is read here. */
#ifndef CHR_BASE_HLC_H
#define CHR_BASE_HLC_H

#include <stdint.h>

#include "base/compiler.h"

typedef uint64_t chr_hlc; /* 0: none; compares as an integer */

CHR_INLINE chr_hlc chr_hlc_make(uint64_t unix_ms, uint16_t counter)
{
    return unix_ms << 16 | counter;
}
CHR_INLINE uint64_t chr_hlc_unix_ms(chr_hlc hlc)
{
    return hlc >> 16;
}
/* Microseconds since 1970, what a TIMESTAMP holds. */
CHR_INLINE int64_t chr_hlc_unix_us(chr_hlc hlc)
{
    return (int64_t)(hlc >> 16) * 1000;
}
/* The next stamp after `last` when the wall clock says unix_ms. A clock that stands or runs
 * backwards only moves the counter, and an overflowing counter borrows from the milliseconds. */
CHR_INLINE chr_hlc chr_hlc_next(chr_hlc last, uint64_t unix_ms)
{
    chr_hlc now = chr_hlc_make(unix_ms, 0);
    return now > last ? now : last + 1;
}

#endif
