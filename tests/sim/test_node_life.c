/* tests/sim/test_node_life.c: thousands of lives of a node; and lives with planted bugs, which must
 * end badly. CHR_SEED=n replays one life, CHR_SEEDS=n sets how many are lived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/sim/node_life.h"

#define STEPS 120

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_lives(void **state)
{
    (void)state;
    uint64_t one = setting("CHR_SEED", 0);
    uint64_t first = one ? one : 1, last = one ? one : setting("CHR_SEEDS", 2000);
    struct node_life_report sum = {0};
    for (uint64_t seed = first; seed <= last; seed++) {
        struct node_life_options options = {.seed = seed, .steps = STEPS};
        struct node_life_report r;
        if (!node_life_run(&options, &r))
            fail_msg("CHR_SEED=%llu: %s", (unsigned long long)seed, r.broken);
        sum.entries += r.entries;
        sum.readings += r.readings;
        sum.crashes += r.crashes;
        sum.checkpoints += r.checkpoints;
        sum.full += r.full;
        sum.sync_failures += r.sync_failures;
        sum.resent += r.resent;
    }
    print_message(
        "seeds %llu to %llu: %llu entries, %llu readings, %llu crashes, %llu checkpoints, "
        "%llu full disks, %llu failed syncs, %llu resent\n",
        (unsigned long long)first, (unsigned long long)last, (unsigned long long)sum.entries,
        (unsigned long long)sum.readings, (unsigned long long)sum.crashes,
        (unsigned long long)sum.checkpoints, (unsigned long long)sum.full,
        (unsigned long long)sum.sync_failures, (unsigned long long)sum.resent);
}

static void must_be_caught(const char *what, struct node_life_options options)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct node_life_report r;
        options.seed = seed;
        options.steps = STEPS;
        if (!node_life_run(&options, &r)) {
            print_message("%s: caught by seed %llu: %s\n", what, (unsigned long long)seed,
                          r.broken);
            return;
        }
    }
    fail_msg("%s: not caught by 200 seeds", what);
}

static void test_planted_skip_sync(void **state)
{
    (void)state;
    must_be_caught("a skipped sync", (struct node_life_options){.plant_skip_sync = true});
}

static void test_planted_early_acknowledgement(void **state)
{
    (void)state;
    must_be_caught("an early acknowledgement",
                   (struct node_life_options){.plant_acknowledge_early = true});
}

static void test_planted_forgotten_guard(void **state)
{
    (void)state;
    must_be_caught("a forgotten guard", (struct node_life_options){.plant_forget_guard = true});
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_planted_skip_sync),
        cmocka_unit_test(test_planted_early_acknowledgement),
        cmocka_unit_test(test_planted_forgotten_guard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
