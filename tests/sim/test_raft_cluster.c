/* tests/sim/test_raft_cluster.c: thousands of histories of a cluster; and some with planted bugs,
 * which must end badly. CHR_SEED=n replays one, CHR_SEEDS=n sets how many there are, CHR_VERBOSE=1
 * prints what happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/sim/raft_cluster.h"

#define STEPS 6000

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void test_histories(void **state)
{
    (void)state;
    uint64_t one = setting("CHR_SEED", 0);
    uint64_t first = one ? one : 1, last = one ? one : setting("CHR_SEEDS", 2000);
    struct raft_cluster_report sum = {0};
    for (uint64_t seed = first; seed <= last; seed++) {
        struct raft_cluster_options options = {
            .seed = seed, .steps = STEPS, .verbose = setting("CHR_VERBOSE", 0) != 0};
        struct raft_cluster_report r;
        if (!raft_cluster_run(&options, &r))
            fail_msg("CHR_SEED=%llu: %s", (unsigned long long)seed, r.broken);
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
    }
    print_message("seeds %llu to %llu: %llu steps, %llu messages, %llu elections, %llu crashes, "
                  "%llu wiped disks, %llu entries, %llu acknowledged, %llu reads (%llu by lease), "
                  "%llu snapshots installed, %llu changes of members, %llu transfers\n",
                  (unsigned long long)first, (unsigned long long)last,
                  (unsigned long long)sum.steps, (unsigned long long)sum.messages,
                  (unsigned long long)sum.elections, (unsigned long long)sum.crashes,
                  (unsigned long long)sum.wipes, (unsigned long long)sum.committed,
                  (unsigned long long)sum.acknowledged, (unsigned long long)sum.reads,
                  (unsigned long long)sum.lease_reads, (unsigned long long)sum.snapshots,
                  (unsigned long long)sum.changes, (unsigned long long)sum.transfers);
}

static void must_be_caught(const char *what, enum raft_cluster_plant plant)
{
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        struct raft_cluster_options options = {.seed = seed, .steps = STEPS, .plant = plant};
        struct raft_cluster_report r;
        if (!raft_cluster_run(&options, &r)) {
            print_message("%s: caught by seed %llu: %s\n", what, (unsigned long long)seed,
                          r.broken);
            return;
        }
    }
    fail_msg("%s: not caught by 2,000 seeds", what);
}

static void test_planted(void **state)
{
    (void)state;
    if (setting("CHR_SEED", 0) || setting("CHR_ONLY_HISTORIES", 0))
        return;
    must_be_caught("syncs that lie", RAFT_CLUSTER_SKIP_SYNC);
    must_be_caught("a forgotten hard state", RAFT_CLUSTER_FORGET_HARD_STATE);
    must_be_caught("acknowledged before it is saved", RAFT_CLUSTER_ACKNOWLEDGE_EARLY);
    must_be_caught("a wiped disk that votes", RAFT_CLUSTER_WIPED_VOTES);
    must_be_caught("reads without a lease", RAFT_CLUSTER_NO_LEASE);
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histories),
        cmocka_unit_test(test_planted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
