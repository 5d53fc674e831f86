/* db/chunk_find.c: single rows of chunks, for apply. */
#include "db/chunk_find.h"

#include "base/assert.h"

bool db__chunk_find_id(struct db *d, struct db__table *table, struct db_row_id id,
                       struct db__place *place)
{
    (void)d, (void)id, (void)place;
    CHR_ASSERT(!table->view->chunks);
    return false;
}

bool db__chunk_find_key(struct db *d, struct db__table *table, const struct db_value *values,
                        struct db__place *place)
{
    (void)d, (void)values, (void)place;
    CHR_ASSERT(!table->view->chunks);
    return false;
}

void db__chunk_values(struct db *d, const struct db__table *table, const struct db__place *place,
                      struct db_value *out)
{
    (void)d, (void)place, (void)out;
    CHR_ASSERT(!table->view->chunks);
}
