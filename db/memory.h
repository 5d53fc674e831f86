/* db/memory.h: memory the state machine cannot go on without.
 *
 * An entry applied on one node and not on another would be worse than a stopped node (db.h), so
 * what apply needs is either there or the process ends with a line that says so. Reads and
 * checkpoints use malloc and answer CHR_ENOMEM. */
#ifndef CHR_DB_MEMORY_H
#define CHR_DB_MEMORY_H

#include <stddef.h>

#include "base/compiler.h"

/* Says so and ends the process. */
CHR_NORETURN void db__out_of_memory(void);
void *db__must_malloc(size_t bytes);
void *db__must_calloc(size_t count, size_t bytes);
void *db__must_realloc(void *old, size_t bytes);

/* Makes room for one more element in a growing array: capacity doubles from 8. */
#define DB__RESERVE(array, count, capacity)                                                        \
    do {                                                                                           \
        if ((count) == (capacity)) {                                                               \
            (capacity) = (capacity) ? (capacity)*2 : 8;                                            \
            (array) = db__must_realloc((array), (capacity) * sizeof *(array));                     \
        }                                                                                          \
    } while (0)

#endif
