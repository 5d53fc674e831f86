/* tests/sim/node_life.h: the life of a node on a false disk, store and clock, driven by a seed.
 *
 * The shipped objects (log, consensus core, db) in one thread, wired as the committer wires them:
 * propose, save, commit, apply, acknowledge. Between the steps the world fails: writes tear, syncs
 * fail, the disk fills up, commits of the store fail, power is cut anywhere.
 *
 * The model is the list of entries proposed, by index. What must hold:
 *   P1  after a recovery the database is exactly the entries 1 .. X, for one X
 *   P2  X is at or beyond the last acknowledged entry
 *   P3  a reading of a QoS 2 client on a durable session is there at most once, and once when it
 * was acknowledged, over resends, new generations and reused packet ids (R5) P4  no checkpoint is
 * ahead of the durable log (D3) */
#ifndef CHR_TESTS_SIM_NODE_LIFE_H
#define CHR_TESTS_SIM_NODE_LIFE_H

#include <stdbool.h>
#include <stdint.h>

struct node_life_options {
    uint64_t seed;
    uint32_t steps;
    /* Planted bugs: a world with one of these must be found broken by some seed. */
    bool plant_skip_sync;         /* the disk says it synced and did not */
    bool plant_acknowledge_early; /* acknowledged when appended, before the sync */
    bool plant_forget_guard;      /* rows of QoS 2 messages are logged without their guards */
};

struct node_life_report {
    uint64_t entries, readings, crashes, checkpoints, full, sync_failures, resent;
    char broken[512]; /* what did not hold; "" when all did */
};

/* Lives one life. True: everything held. */
bool node_life_run(const struct node_life_options *options, struct node_life_report *report);

#endif
