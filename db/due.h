/* db/due.h: what falls due by replicated time, in a binary heap; for db/ alone. Applier only.
 *
 * Equal times are told apart by kind and by a number that is the same on every node, so that all
 * nodes do the same things in the same order (D1). */
#ifndef CHR_DB_DUE_H
#define CHR_DB_DUE_H

#include <stddef.h>
#include <stdint.h>

enum db__due_kind {
    DB__DUE_WILL,
    DB__DUE_RETAINED, /* a retained message expires */
    DB__DUE_SWEEP,    /* messages in a session's queue have expired */
};

/* Lies within what is due. */
struct db__due {
    int64_t us;
    uint64_t tie;
    size_t at; /* place in the heap, from 1; 0: not in it */
    enum db__due_kind kind;
};

struct db__dues {
    struct db__due **heap;
    size_t count, capacity;
};

void db__dues_free(struct db__dues *dues);
/* Puts it in, or moves it; INT64_MAX takes it out. */
void db__due_set(struct db__dues *dues, struct db__due *due, int64_t us);
/* The first; NULL: none. */
struct db__due *db__due_first(const struct db__dues *dues);

#endif
