/* tests/raft/test_log_sim.c: thousands of lives of the log on a bad disk (log_life.h).
 *
 *   CHR_SEED=n CHR_SEEDS=1 CHR_VERBOSE=1 test_raft_log_sim      replays one life, step by step
 *   CHR_SEEDS=100000 test_raft_log_sim                          more of them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/raft/log_life.h"

#define STEPS 150

static struct life life; /* too large for a stack */

static void test_lives(void **state)
{
    (void)state;
    uint64_t seed = life_env("CHR_SEED", 1), seeds = life_env("CHR_SEEDS", 4000);
    bool verbose = life_env("CHR_VERBOSE", 0);
    uint64_t opens = 0, crashes = 0, refusals = 0, torn = 0, doubts = 0, full = 0;
    for (uint64_t s = seed; s < seed + seeds; s++) {
        if (!life_run(&life, s, STEPS, (struct life_plants){0}, verbose))
            fail_msg("seed %llu, step %llu: %s\n  replay: CHR_SEED=%llu CHR_SEEDS=1 CHR_VERBOSE=1",
                     U(s), U(life.steps), life.failure, U(s));
        opens += life.opens;
        crashes += life.crashes;
        refusals += life.refusals;
        torn += life.torn;
        doubts += life.doubts;
        full += life.full;
    }
    print_message("seeds %llu..%llu: %llu opens, %llu power failures, %llu torn tails, "
                  "%llu refusals, %llu doubts, %llu full disks\n",
                  U(seed), U(seed + seeds - 1), U(opens), U(crashes), U(torn), U(refusals),
                  U(doubts), U(full));
    if (seeds >= 1000) { /* each kind of trouble did happen */
        assert_true(torn > 100);
        assert_true(refusals > 100);
        assert_true(doubts > 100);
        assert_true(full > 100);
    }
}

/* A bug that is planted must be noticed within a few lives, or the test above proves nothing. */
static void must_be_caught(struct life_plants plants, const char *what)
{
    uint64_t seeds = 100;
    for (uint64_t s = 1; s <= seeds; s++) {
        if (!life_run(&life, s, STEPS, plants, false)) {
            print_message("%s: caught by seed %llu: %s\n", what, U(s), life.failure);
            return;
        }
    }
    fail_msg("%s: not caught by %llu seeds", what, U(seeds));
}

static void test_planted_sync_skipped(void **state)
{
    (void)state;
    must_be_caught((struct life_plants){.sync_lies = true}, "skipped sync");
}

static void test_planted_ack_early(void **state)
{
    (void)state;
    must_be_caught((struct life_plants){.ack_early = true}, "early acknowledgement");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_planted_sync_skipped),
        cmocka_unit_test(test_planted_ack_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
