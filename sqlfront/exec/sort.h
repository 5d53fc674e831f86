/* sqlfront/exec/sort.h: rows kept for ORDER BY: all of them, or the first N. */
#ifndef CHR_SQLFRONT_SORT_H
#define CHR_SQLFRONT_SORT_H

#include "sqlfront/plan.h"

struct sql_sorter;

/* keep: how many of the first rows are wanted; UINT64_MAX: all. */
struct sql_sorter *sql__sorter_new(struct sql_query *q, const enum db_type *types, uint32_t columns,
                                   const struct sql_order *order, uint32_t order_count,
                                   uint64_t keep);
/* Copies the selected rows. */
bool sql__sorter_add(struct sql_sorter *s, const struct db_vector *const *vectors,
                     struct sql_rows rows);
/* Sorts; then rows skip .. are handed out in batches (visible: how many columns). */
bool sql__sorter_finish(struct sql_sorter *s, uint64_t skip, uint64_t limit, uint32_t visible,
                        bool (*batch)(void *ctx, const struct db_vector *const *vectors,
                                      uint32_t count),
                        void *ctx);
void sql__sorter_free(struct sql_sorter *s); /* accepts NULL */

#endif
