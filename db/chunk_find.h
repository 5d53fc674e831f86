/* db/chunk_find.h: single rows of chunks, for apply: by id (DELETE, UPDATE), by key (R4).
 *
 * A chunk that cannot be read here stops the process: what the entry does depends on it, and the
 * other nodes can read theirs. */
#ifndef CHR_DB_CHUNK_FIND_H
#define CHR_DB_CHUNK_FIND_H

#include "db/internal.h"

struct db__finder;

/* What an entry has open; freed with the db. */
struct db__finder *db__finder_new(void);
void db__finder_free(struct db__finder *finder);
/* At the end of an entry: gives up the transaction (R10). */
void db__finder_end(struct db *d);

/* An id that was asked for, and where its row is if it is alive in a chunk. */
struct db__wanted {
    struct db_row_id id;
    uint32_t at; /* the caller's */
    struct db__place place;
};
/* Looks for all of them in one pass over each chunk that may have some. Sorts `wanted` by id. */
void db__chunk_find_ids(struct db *d, struct db__table *table, struct db__wanted *wanted,
                        uint32_t count);
/* The living row with this key; values in table order. */
bool db__chunk_find_key(struct db *d, struct db__table *table, const struct db_value *values,
                        struct db__place *place);
/* Latest time of the series in chunks that have rows at or after from_us, dead rows counted;
 * INT64_MIN: none of them has the series. For tables whose key has a time. */
int64_t db__chunk_series_latest(struct db *d, struct db__table *table,
                                const struct db_value *values, int64_t from_us);
/* All values of a row in table order, received_at last; bytes in the arena of the entry. */
void db__chunk_values(struct db *d, const struct db__table *table, const struct db__place *place,
                      struct db_value *out);

#endif
