/* sqlfront/exec/group.h: from key values to group numbers.
 *
 * Every key becomes 64-bit words: numbers as they are, strings as numbers of their own table of
 * distinct strings; one more word says which are NULL. So a group is a fixed number of words, and
 * any mix of key types shares one hash table. A column with a dictionary looks each entry up once.
 * The same table serves GROUP BY, DISTINCT and COUNT(DISTINCT x). */
#ifndef CHR_SQLFRONT_GROUP_H
#define CHR_SQLFRONT_GROUP_H

#include "sqlfront/expr.h"

#define SQL_GROUP_KEYS_MAX 64 /* bits of the word of NULLs */

struct sql_groups;

/* NULL: failed. types borrowed until return. */
struct sql_groups *sql__groups_new(struct sql_query *q, const enum db_type *types, uint32_t count,
                                   uint32_t pos);
/* gids[row] of the selected rows; new groups are numbered as they appear. */
bool sql__groups_find(struct sql_groups *g, const struct db_vector *const *keys,
                      struct sql_rows rows, uint32_t *gids);
uint32_t sql__groups_count(const struct sql_groups *g);
/* Values of one key for groups from .. from+n-1 as a vector; data and validity have room for n. */
void sql__groups_key(const struct sql_groups *g, uint32_t key, uint32_t from, uint32_t n,
                     void *data, uint64_t *validity);

#endif
