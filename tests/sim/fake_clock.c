/* tests/sim/fake_clock.c */
#include "tests/sim/fake_clock.h"

#include "base/assert.h"

static int64_t wall(void *ctx)
{
    return ((const struct fake_clock *)ctx)->wall_us;
}

static int64_t mono(void *ctx)
{
    return ((const struct fake_clock *)ctx)->mono_us;
}

void fake_clock_init(struct fake_clock *fake, int64_t wall_us, int64_t mono_us)
{
    *fake = (struct fake_clock){.wall_us = wall_us, .mono_us = mono_us};
    fake->clock = (struct chr_clock){.wall_us = wall, .mono_us = mono, .ctx = fake};
}

void fake_clock_advance(struct fake_clock *fake, int64_t us)
{
    CHR_ASSERT(us >= 0);
    fake->wall_us += us;
    fake->mono_us += us;
}
