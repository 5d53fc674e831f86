/* db/marks.h: which rows of a chunk are deleted, as of which apply index.
 *
 * A bitmap of what every read sees as gone, and a list of (row, apply index) of what only later
 * ones do. One writer, the applier; readers take the present state by reference and look at it
 * without a lock.
 *
 *   M1  recent[0, count) never changes; count is published at the end of an entry.
 *   M2  A new state (more room, or recent marks folded into the bitmap) replaces the old one by
 *       pointer; who holds the old one goes on with it.
 *   M3  Only marks at or below every pinned index are folded; a running checkpoint pins its cut. */
#ifndef CHR_DB_MARKS_H
#define CHR_DB_MARKS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

struct db__marks_state;

struct db__marks {
    pthread_mutex_t lock;          /* around the pointer, nothing else */
    struct db__marks_state *state; /* NULL: nothing was ever deleted */
    uint32_t rows;                 /* of the chunk; row numbers are below it */
    /* Applier. */
    uint64_t *now;    /* bitmap of all marks, unpublished ones included; NULL: none */
    uint32_t count;   /* bits in it */
    uint32_t written; /* recent marks, unpublished ones included */
    bool dirty;       /* some are unpublished */
};

void db__marks_init(struct db__marks *marks, uint32_t rows);
void db__marks_free(struct db__marks *marks);

/* Applier. The row must not be marked yet. fold_index: marks at or below it may be folded (M3). */
void db__marks_add(struct db__marks *marks, uint32_t row, uint64_t index, uint64_t fold_index);
/* Undoes the last mark, which must be unpublished. */
void db__marks_undo(struct db__marks *marks);
void db__marks_publish(struct db__marks *marks);
/* Is the row marked, by the entry being applied or one before? */
bool db__marks_has(const struct db__marks *marks, uint32_t row);

/* Any thread. Rows deleted at or before index into bitmap, DB_BIT_WORDS(rows) words, 1 = deleted.
 * Returns how many; when 0 the bitmap was not touched. */
uint32_t db__marks_at(struct db__marks *marks, uint64_t index, uint64_t *bitmap);
/* Any thread: how many, without the bitmap. */
uint32_t db__marks_count_at(struct db__marks *marks, uint64_t index);

/* Applier's state: each mark later than `after`, in order of index. */
void db__marks_each_after(const struct db__marks *marks, uint64_t after,
                          void (*visit)(void *arg, uint32_t row, uint64_t index), void *arg);

/* Recovery: the bitmap of a checkpoint; false when it has bits beyond the rows. */
bool db__marks_load(struct db__marks *marks, const uint8_t *bitmap, size_t bytes);

#endif
