/* tests/sim/raft_shrink.h: less of a failing history of the cluster that still fails.
 *
 * Each attempt is a process of its own, since an assertion of the core ends it. A history with
 * fewer steps, or without a kind of fault, is another history: nothing says that it ends like the
 * first, so what is found is small, not smallest. */
#ifndef CHR_TESTS_SIM_RAFT_SHRINK_H
#define CHR_TESTS_SIM_RAFT_SHRINK_H

#include <stddef.h>

#include "tests/sim/raft_cluster.h"

/* True: the history is sound. Else `broken` says what is not, or that it crashed. */
bool raft_shrink_try(const struct raft_cluster_options *options,
                     char broken[sizeof((struct raft_cluster_report){0}).broken]);

/* options fail; changes steps, voters and without. Returns how many histories were tried. */
uint32_t raft_shrink(struct raft_cluster_options *options);

/* "CHR_SEED=… CHR_STEPS=…", what replays them. */
void raft_shrink_command(const struct raft_cluster_options *options, char *out, size_t out_bytes);
/* Of a list as CHR_WITHOUT has it: "loss,cuts". False: there is no such kind. */
bool raft_shrink_without(const char *list, uint32_t *without);

#endif
