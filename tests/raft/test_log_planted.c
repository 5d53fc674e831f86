/* tests/raft/test_log_planted.c: a log that accepts bad CRCs must not get through the simulation.
 *
 * The log's sources are compiled once more, into this program, with the bug planted. (The other two
 * planted bugs, a skipped sync and an early acknowledgement, need no copy: test_log_sim.c.) */
#define CHR_PLANT_ACCEPT_BAD_CRC 1
#include "raft/log.c"
#include "raft/log_append.c"
#include "raft/log_format.c"
#include "raft/log_index.c"
#include "raft/log_read.c"
#include "raft/log_reader.c"
#include "raft/log_recover.c"
#include "raft/log_repair.c"
#include "raft/log_segments.c"
#include "raft/log_write.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/raft/log_life.h"

static struct life life;

static void test_planted_bad_crc(void **state)
{
    (void)state;
    uint64_t seeds = 200;
    for (uint64_t s = 1; s <= seeds; s++) {
        if (!life_run(&life, s, 150, (struct life_plants){0}, false)) {
            print_message("accepted bad CRC: caught by seed %llu: %s\n", U(s), life.failure);
            return;
        }
    }
    fail_msg("accepted bad CRC: not caught by %llu seeds", U(seeds));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_planted_bad_crc)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
