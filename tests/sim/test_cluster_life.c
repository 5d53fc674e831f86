/* tests/sim/test_cluster_life.c: histories of whole nodes. CHR_SEED=n replays one, CHR_FIRST=n and
 * CHR_SEEDS=n set which there are, CHR_VERBOSE=1 prints what happens; CHR_MS, CHR_VOTERS,
 * CHR_PROFILE (profiles.c) and CHR_WITHOUT (faults, see cluster_life.h) vary them. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "base/log.h"
#include "tests/sim/cluster_life.h"

#ifdef __SANITIZE_ADDRESS__
#define SEEDS  12
#define SLOWER 8 /* than without: so many fewer */
#else
#define SEEDS  100
#define SLOWER 1
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

static uint32_t left_out(void)
{
    const char *without = getenv("CHR_WITHOUT");
    uint32_t bits = 0;
    char text[400];
    snprintf(text, sizeof text, "%s", without ? without : "");
    for (char *name = strtok(text, ","); name; name = strtok(NULL, ",")) {
        uint32_t kind = 0;
        while (kind < CLUSTER_LIFE_FAULTS && strcmp(cluster_life_fault_names[kind], name) != 0)
            kind++;
        if (kind == CLUSTER_LIFE_FAULTS)
            fail_msg("CHR_WITHOUT=%s: no such fault", name);
        bits |= 1u << kind;
    }
    return bits;
}

/* All counters of a report, for their sums. */
#define COUNTERS(each)                                                                             \
    each(turns) each(us) each(messages) each(lost) each(doubled) each(breaks) each(cuts)           \
        each(starts) each(kills) each(power_cuts) each(stops) each(in_doubt) each(pauses)          \
            each(wipes) each(jumps) each(elections) each(won) each(changes) each(transfers)        \
                each(snapshots) each(checkpoints) each(store_faults) each(full) each(entries)      \
                    each(forwarded) each(forwarded_again) each(repeated) each(gaps) each(unsure)   \
                        each(sure_after_all) each(proposed) each(answered) each(closed)            \
                            each(unanswered) each(refused) each(sessions) each(resent)             \
                                each(expired) each(reads) each(by_lease) each(registers)           \
                                    each(undecided) each(digests) each(looks)

static void test_histories(void **state)
{
    (void)state;
    uint64_t one = setting("CHR_SEED", 0);
    uint64_t first = one ? one : setting("CHR_FIRST", 1);
    uint64_t count = setting("CHR_SEEDS", SEEDS * SLOWER) / SLOWER;
    uint64_t last = one ? one : first + CHR_MAX(count, UINT64_C(1)) - 1;
    struct cluster_life_report sum = {0};
    uint32_t without = left_out();
    for (uint64_t seed = first; seed <= last; seed++) {
        struct cluster_life_options options = {.seed = seed,
                                               .voters = (uint32_t)setting("CHR_VOTERS", 0),
                                               .ms = (uint32_t)setting("CHR_MS", 0),
                                               .without = without,
                                               .profile = getenv("CHR_PROFILE"),
                                               .verbose = setting("CHR_VERBOSE", 0) != 0};
        struct cluster_life_report r;
        seed_now = seed;
        if (!cluster_life_run(&options, &r))
            fail_msg("CHR_SEED=%llu: %s (%s)", (unsigned long long)seed, r.broken, r.profile);
#define ADD(name) sum.name += r.name;
        COUNTERS(ADD)
    }
    print_message("seeds %llu to %llu:", (unsigned long long)first, (unsigned long long)last);
#define PRINT(name) print_message(" " #name "=%llu", (unsigned long long)sum.name);
    COUNTERS(PRINT)
    print_message("\n");
    assert_true(sum.undecided * 50 <= sum.registers + 100);
}

/* One seed is one history. */
static void test_replays(void **state)
{
    (void)state;
    if (setting("CHR_SEED", 0) || setting("CHR_ONLY_HISTORIES", 0))
        return;
    struct cluster_life_report a, b;
    struct cluster_life_options options = {.seed = 12};
    (void)cluster_life_run(&options, &a);
    (void)cluster_life_run(&options, &b);
    assert_memory_equal(&a, &b, sizeof a);
}

int main(void)
{
    if (setting("CHR_VERBOSE", 0))
        chr_log_set_level(CHR_LOG_INFO);
    else
        chr_log_set_levels(0);
    signal(SIGABRT, tell_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histories),
        cmocka_unit_test(test_replays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
