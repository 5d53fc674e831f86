/* tests/sim/test_raft_cluster.c: thousands of histories of a cluster; and some with planted bugs,
 * which must end badly. CHR_SEED=n replays one, CHR_SEEDS=n sets how many there are, CHR_VERBOSE=1
 * prints what happens. CHR_SHRINK=1 looks for less of the first history that fails and prints how
 * to replay it; CHR_STEPS, CHR_VOTERS and CHR_WITHOUT (faults, see raft_cluster.h) are what it
 * varies. */
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

#include "base/log.h"
#include "tests/sim/raft_cluster.h"
#include "tests/sim/raft_shrink.h"

#define STEPS 6000

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* An assertion of the core ends the process; whose history it was must be known then, too. */
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

static struct raft_cluster_options options_of(uint64_t seed)
{
    struct raft_cluster_options options = {.seed = seed,
                                           .steps = (uint32_t)setting("CHR_STEPS", STEPS),
                                           .voters = (uint32_t)setting("CHR_VOTERS", 0),
                                           .verbose = setting("CHR_VERBOSE", 0) != 0};
    const char *without = getenv("CHR_WITHOUT");
    if (without && !raft_shrink_without(without, &options.without))
        fail_msg("CHR_WITHOUT=%s: no such fault", without);
    return options;
}

/* A process of its own for each history: this one lives to look for less of one that crashes. */
static void look_for_less(uint64_t first, uint64_t last)
{
    for (uint64_t seed = first; seed <= last; seed++) {
        struct raft_cluster_options options = options_of(seed);
        char broken[sizeof((struct raft_cluster_report){0}).broken], command[400];
        if (raft_shrink_try(&options, broken))
            continue;
        raft_shrink_command(&options, command, sizeof command);
        print_message("%s: %s\n", command, broken);
        uint32_t tries = raft_shrink(&options);
        (void)raft_shrink_try(&options, broken);
        raft_shrink_command(&options, command, sizeof command);
        fail_msg("after %u tries: %s CHR_VERBOSE=1 test_sim_raft_cluster: %s", tries, command,
                 broken);
    }
}

static void test_histories(void **state)
{
    (void)state;
    uint64_t one = setting("CHR_SEED", 0);
    uint64_t first = one ? one : setting("CHR_FIRST", 1);
    uint64_t last = one ? one : first + setting("CHR_SEEDS", 2000) - 1;
    struct raft_cluster_report sum = {0};
    if (setting("CHR_SHRINK", 0)) {
        look_for_less(first, last);
        return;
    }
    for (uint64_t seed = first; seed <= last; seed++) {
        struct raft_cluster_options options = options_of(seed);
        struct raft_cluster_report r;
        seed_now = seed;
        if (!raft_cluster_run(&options, &r))
            fail_msg("CHR_SEED=%llu: %s (%s)", (unsigned long long)seed, r.broken, r.profile);
        sum.steps += r.steps;
        sum.messages += r.messages;
        sum.elections += r.elections;
        sum.crashes += r.crashes;
        sum.wipes += r.wipes;
        sum.committed += r.committed;
        sum.acknowledged += r.acknowledged;
        sum.reads += r.reads;
        sum.lease_reads += r.lease_reads;
        sum.snapshots += r.snapshots;
        sum.changes += r.changes;
        sum.transfers += r.transfers;
        sum.registers += r.registers;
        sum.undecided += r.undecided;
    }
    print_message(
        "seeds %llu to %llu: %llu steps, %llu messages, %llu elections, %llu crashes, "
        "%llu wiped disks, %llu entries, %llu acknowledged, %llu reads (%llu by lease), "
        "%llu snapshots installed, %llu changes of members, %llu transfers; %llu registers "
        "linearizable, %llu undecided\n",
        (unsigned long long)first, (unsigned long long)last, (unsigned long long)sum.steps,
        (unsigned long long)sum.messages, (unsigned long long)sum.elections,
        (unsigned long long)sum.crashes, (unsigned long long)sum.wipes,
        (unsigned long long)sum.committed, (unsigned long long)sum.acknowledged,
        (unsigned long long)sum.reads, (unsigned long long)sum.lease_reads,
        (unsigned long long)sum.snapshots, (unsigned long long)sum.changes,
        (unsigned long long)sum.transfers, (unsigned long long)sum.registers,
        (unsigned long long)sum.undecided);
    assert_true(sum.undecided * 100 <= sum.registers);
}

static uint64_t must_be_caught(const char *what, enum raft_cluster_plant plant)
{
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct raft_cluster_options options = {.seed = seed, .steps = STEPS, .plant = plant};
        struct raft_cluster_report r;
        if (!raft_cluster_run(&options, &r)) {
            print_message("%s: caught by seed %llu: %s\n", what, (unsigned long long)seed,
                          r.broken);
            return seed;
        }
    }
    fail_msg("%s: not caught by 2,000 seeds", what);
    return 0;
}

static void test_planted(void **state)
{
    (void)state;
    if (setting("CHR_SEED", 0) || setting("CHR_ONLY_HISTORIES", 0))
        return;
    (void)must_be_caught("syncs that lie", RAFT_CLUSTER_SKIP_SYNC);
    (void)must_be_caught("a forgotten hard state", RAFT_CLUSTER_FORGET_HARD_STATE);
    (void)must_be_caught("acknowledged before it is saved", RAFT_CLUSTER_ACKNOWLEDGE_EARLY);
    (void)must_be_caught("a wiped disk that votes", RAFT_CLUSTER_WIPED_VOTES);
    (void)must_be_caught("reads without a lease", RAFT_CLUSTER_NO_LEASE);
}

/* Less of a history that fails fails, too, and what is printed replays it. */
static void test_shrink(void **state)
{
    (void)state;
    if (setting("CHR_SEED", 0) || setting("CHR_ONLY_HISTORIES", 0))
        return;
    struct raft_cluster_options options = {.steps = STEPS, .plant = RAFT_CLUSTER_ACKNOWLEDGE_EARLY};
    options.seed = must_be_caught("acknowledged before it is saved", options.plant);
    struct raft_cluster_options less = options;
    uint32_t tries = raft_shrink(&less);
    assert_true(less.steps < options.steps && less.without != 0);
    char broken[sizeof((struct raft_cluster_report){0}).broken], command[400];
    assert_false(raft_shrink_try(&less, broken));
    raft_shrink_command(&less, command, sizeof command);
    print_message("after %u tries: %s: %s\n", tries, command, broken);
    uint32_t without;
    assert_true(raft_shrink_without(strstr(command, "CHR_WITHOUT=") + 12, &without));
    assert_int_equal(without, less.without);
    assert_false(raft_shrink_without("loss,luck", &without));
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
    signal(SIGABRT, tell_seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histories),
        cmocka_unit_test(test_planted),
        cmocka_unit_test(test_shrink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
