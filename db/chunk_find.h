/* db/chunk_find.h: single rows of chunks, for apply: by id (DELETE, UPDATE), by key (R4). */
#ifndef CHR_DB_CHUNK_FIND_H
#define CHR_DB_CHUNK_FIND_H

#include "db/internal.h"

/* The living row of this id in the table's chunks. */
bool db__chunk_find_id(struct db *db, struct db__table *table, struct db_row_id id,
                       struct db__place *place);
/* The living row with this key; values in table order. */
bool db__chunk_find_key(struct db *db, struct db__table *table, const struct db_value *values,
                        struct db__place *place);
/* All values of a row in table order, received_at last; bytes in the arena of the entry. */
void db__chunk_values(struct db *db, const struct db__table *table, const struct db__place *place,
                      struct db_value *out);

#endif
