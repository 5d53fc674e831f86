/* sqlfront/exec/agg.h: the state of aggregates, an array element per group. */
#ifndef CHR_SQLFRONT_AGG_H
#define CHR_SQLFRONT_AGG_H

#include "sqlfront/bind.h"

struct sql_agg_state;

struct sql_agg_state *sql__agg_new(struct sql_query *q, const struct sql_agg *def);
/* Room for groups 0 .. groups-1; new ones begin empty. */
bool sql__agg_reserve(struct sql_agg_state *a, uint32_t groups);
/* Which group each selected row belongs to. */
struct sql_row_groups {
    const uint32_t *gids; /* by row; NULL: all belong to `one` */
    uint32_t one;
    const uint16_t *run_ends; /* where runs of one group end, counted in selected rows */
    uint32_t runs_count;      /* 0: too many runs to be worth it */
};
/* Takes in the selected rows. ids: row ids of the batch, for FIRST and LAST; may be NULL. */
bool sql__agg_update(struct sql_agg_state *a, struct sql_eval *ev, struct sql_rows rows,
                     const struct sql_row_groups *groups, const struct db_row_id *ids);
/* FIRST and LAST met two rows of one time without their row ids: the answer is not sure. */
bool sql__agg_tie(const struct sql_agg_state *a);
/* Can statistics of a column (NULL: COUNT(*)) answer it? time_column: the table's. */
bool sql__agg_can_use_stats(const struct sql_agg_state *a, int32_t time_slot);
void sql__agg_use_stats(struct sql_agg_state *a, uint32_t gid, uint32_t rows,
                        const struct db_column_stats *stats);
/* Results of groups from .. from+n-1. */
bool sql__agg_result(struct sql_agg_state *a, uint32_t from, uint32_t n, void *data,
                     uint64_t *validity);

#endif
