/* base/clock.c: the machine's own clocks. */
#include "base/clock.h"

#include <stddef.h>
#include <time.h>

#include "base/assert.h"

static int64_t read_us(clockid_t id)
{
    struct timespec now;
    CHR_ASSERT(clock_gettime(id, &now) == 0);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t system_wall_us(void *ctx)
{
    (void)ctx;
    return read_us(CLOCK_REALTIME);
}

static int64_t system_mono_us(void *ctx)
{
    (void)ctx;
    return read_us(CLOCK_BOOTTIME);
}

const struct chr_clock *chr_clock_system(void)
{
    static const struct chr_clock system_clock = {system_wall_us, system_mono_us, NULL};
    return &system_clock;
}
