/* tests/sim/fake_clock.h: a struct chr_clock that only moves when told to. */
#ifndef CHR_TESTS_SIM_FAKE_CLOCK_H
#define CHR_TESTS_SIM_FAKE_CLOCK_H

#include "base/clock.h"

struct fake_clock {
    int64_t wall_us;        /* assign freely: wall clocks jump */
    int64_t mono_us;        /* never set it back */
    struct chr_clock clock; /* hand &clock to what is tested; lives as long as the fake_clock */
};

void fake_clock_init(struct fake_clock *fake, int64_t wall_us, int64_t mono_us);
/* Both clocks run on by `us`. */
void fake_clock_advance(struct fake_clock *fake, int64_t us);

#endif
