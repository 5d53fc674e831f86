/* tests/sim/test_session_life.c: thousands of histories of MQTT sessions (session_life.h).
 * CHR_SEED=n replays one, CHR_FIRST and CHR_SEEDS say which there are, CHR_STEPS how long they are,
 * CHR_NODES on how many nodes; CHR_VERBOSE=1 prints what happens. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/sim/session_life.h"

#define STEPS 1500

#if defined(__SANITIZE_ADDRESS__)
#define SEEDS 60
#else
#define SEEDS 250
#endif

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* An assertion ends the process; whose history it was must be known then, too. */
static volatile uint64_t seed_now;
static void tell_seed(int signal_number)
{
    char text[64];
    int len =
        snprintf(text, sizeof text, "CHR_SEED=%llu: it crashed\n", (unsigned long long)seed_now);
    if (len > 0)
        (void)!write(STDERR_FILENO, text, (size_t)len);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static bool live(uint64_t seed, struct session_life_report *r)
{
    struct session_life_options options = {.seed = seed,
                                           .steps = (uint32_t)setting("CHR_STEPS", STEPS),
                                           .nodes = (uint32_t)setting("CHR_NODES", 0),
                                           .verbose = setting("CHR_VERBOSE", 0) != 0};
    seed_now = seed;
    return session_life_run(&options, r);
}

static void test_histories(void **state)
{
    (void)state;
    uint64_t one = setting("CHR_SEED", 0);
    uint64_t first = one ? one : setting("CHR_FIRST", 1);
    uint64_t last = one ? one : first + setting("CHR_SEEDS", SEEDS) - 1;
    struct session_life_report sum = {0};
    for (uint64_t seed = first; seed <= last; seed++) {
        struct session_life_report r;
        if (!live(seed, &r))
            fail_msg("CHR_SEED=%llu: %s", (unsigned long long)seed, r.broken);
        sum.steps += r.steps;
        sum.entries += r.entries;
        sum.messages += r.messages;
        sum.resent += r.resent;
        sum.answered += r.answered;
        sum.delivered += r.delivered;
        sum.repeated += r.repeated;
        sum.kills += r.kills;
        sum.blackouts += r.blackouts;
        sum.hops += r.hops;
        sum.connections += r.connections;
        sum.takeovers += r.takeovers;
        sum.wills += r.wills;
        sum.expired += r.expired;
        sum.checkpoints += r.checkpoints;
        sum.digest ^= r.digest;
    }
    print_message("seeds %llu to %llu: %llu steps, %llu entries, %llu messages (%llu sent again), "
                  "%llu answered, %llu deliveries (%llu repeated), %llu wills, %llu connections, "
                  "%llu hops, %llu taken over, %llu kills (%llu of all), %llu checkpoints, "
                  "%llu sessions expired; %016llx\n",
                  (unsigned long long)first, (unsigned long long)last,
                  (unsigned long long)sum.steps, (unsigned long long)sum.entries,
                  (unsigned long long)sum.messages, (unsigned long long)sum.resent,
                  (unsigned long long)sum.answered, (unsigned long long)sum.delivered,
                  (unsigned long long)sum.repeated, (unsigned long long)sum.wills,
                  (unsigned long long)sum.connections, (unsigned long long)sum.hops,
                  (unsigned long long)sum.takeovers, (unsigned long long)sum.kills,
                  (unsigned long long)sum.blackouts, (unsigned long long)sum.checkpoints,
                  (unsigned long long)sum.expired, (unsigned long long)sum.digest);
}

/* One seed is one history. */
static void test_replays(void **state)
{
    (void)state;
    if (setting("CHR_SEED", 0) || setting("CHR_ONLY_HISTORIES", 0))
        return;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct session_life_report a, b;
        assert_true(live(seed, &a));
        assert_true(live(seed, &b));
        assert_true(a.digest == b.digest && a.entries == b.entries && a.messages == b.messages);
    }
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
    signal(SIGABRT, tell_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histories),
        cmocka_unit_test(test_replays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
