/* base/clock.h: where time comes from. The seam that a simulator replaces.
 *
 * A loop or a thread reads the clock once per turn and hands `now` down; nothing below a loop turn
 * calls these. */
#ifndef CHR_BASE_CLOCK_H
#define CHR_BASE_CLOCK_H

#include <stdint.h>

struct chr_clock {
    /* Microseconds since 1970, UTC; may jump. */
    int64_t (*wall_us)(void *ctx);
    /* Microseconds since some start; never runs backwards, goes on while suspended
     * (CLOCK_BOOTTIME). */
    int64_t (*mono_us)(void *ctx);
    void *ctx;
};

/* The machine's clocks. Static. */
const struct chr_clock *chr_clock_system(void);
static inline int64_t chr_clock_wall_us(const struct chr_clock *clock)
{
    return clock->wall_us(clock->ctx);
}
static inline int64_t chr_clock_mono_us(const struct chr_clock *clock)
{
    return clock->mono_us(clock->ctx);
}

#endif
