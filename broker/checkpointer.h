/* broker/checkpointer.h: the thread that makes checkpoints when they fall due (design 3.8). */
#ifndef CHR_BROKER_CHECKPOINTER_H
#define CHR_BROKER_CHECKPOINTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct broker_node;
struct checkpointer;

CHR_MUST_USE chr_err checkpointer_start(struct broker_node *node, struct checkpointer **out);
/* Any thread: look now (a batch met the hot limit). */
void checkpointer_kick(struct checkpointer *checkpointer);
/* Makes a last checkpoint (final true) while the committer still runs, then ends the thread. */
void checkpointer_stop(struct checkpointer *checkpointer, bool final);
/* When nobody can kick it any more. Accepts NULL. */
void checkpointer_free(struct checkpointer *checkpointer);
struct checkpointer_stats {
    uint64_t failed; /* each is tried again */
    bool no_room;    /* the last one found the disk full: the log can't be cut meanwhile */
};
/* Any thread. Accepts NULL: all 0. */
void checkpointer_stats(const struct checkpointer *checkpointer, struct checkpointer_stats *out);
/* Any thread: makes a checkpoint now and waits for it (SIGUSR1, tests). */
chr_err checkpointer_request(struct checkpointer *checkpointer);

#endif
