/* sqlfront/plan.h: a bound SELECT and the decisions about how to answer it. */
#ifndef CHR_SQLFRONT_PLAN_H
#define CHR_SQLFRONT_PLAN_H

#include "sqlfront/bind.h"

/* Columns of an answer, with the keys of ORDER BY; and aggregates: each is compared with those
 * before it. */
#define SQL_OUTPUTS_MAX 4096

struct sql_output { /* a column of the answer, or behind those a key of ORDER BY */
    struct sql_expr *expr;
    chr_slice name;
};

struct sql_order {
    uint32_t output; /* index into outputs */
    bool descending, nulls_first;
};

/* A key of GROUP BY that is constant in a chunk when the ends of one of its columns agree. */
enum sql_key_kind { SQL_KEY_ANY, SQL_KEY_COLUMN, SQL_KEY_MONOTONIC };

/* Conditions beyond this many are filtered by without asking statistics first. */
#define SQL_BOUNDED_MAX 32

/* A condition of WHERE that is joined by AND with the others. */
struct sql_conjunct {
    struct sql_expr *expr;
    struct db_bound *bounds;
    uint32_t bounds_count;
    bool is_bounds; /* it says no more than its bounds do: statistics can show that all rows pass */
};

struct sql_plan {
    struct sql_query *q;
    const struct db_table_def *table;        /* NULL: no FROM; one row */
    struct sql_relation_rows *relation_rows; /* of a relation of the host, once it was read */
    struct sql_binder binder;
    struct sql_expr *where; /* NULL: none, or always true */
    bool never;             /* WHERE is constant and not true */
    struct db_bound *bounds;
    uint32_t bounds_count;
    struct sql_conjunct *conjuncts;
    uint32_t conjuncts_count; /* 0: no WHERE */
    int32_t time_slot;        /* slot of the table's time column, -1: not read */

    bool aggregated;
    uint32_t keys_count;
    struct sql_expr **keys; /* over the columns */
    enum sql_key_kind *key_kinds;
    struct sql_expr *having; /* over keys, then aggregates */

    struct sql_output *outputs; /* over the columns, or over keys and aggregates */
    uint32_t outputs_count;     /* with those of ORDER BY */
    uint32_t visible_count;
    bool distinct;
    struct sql_order *order;
    uint32_t order_count;
    bool has_limit;
    uint64_t limit, offset;
};

/* NULL: failed. catalog: borrowed as long as the plan. */
struct sql_plan *sql__plan_select(struct sql_query *q, const db_catalog *catalog,
                                  const struct sql_stmt *stmt);
/* WHERE and its bounds alone, for UPDATE and DELETE. */
bool sql__plan_where(struct sql_plan *plan, const struct sql_ast *where);

struct sql_run_counts {
    struct db_scan_counts scan;
    uint64_t rows_filtered; /* that met WHERE */
    uint64_t groups, rows_out;
};
/* Answers the plan into the sink (begin and rows). */
bool sql__execute_plan(struct sql_plan *plan, db_read *read, const struct sql_sink *sink,
                       struct sql_run_counts *counts);

/* A scan with the plan's columns and bounds; batches that meet WHERE are handed to `visit`. rows:
 * selected. ids: of the batch when asked for. */
struct sql_scan_visit {
    bool (*batch)(void *ctx, struct sql_eval *ev, struct sql_rows rows,
                  const struct db_row_id *ids);
    /* May be NULL. A chunk in which all rows meet WHERE: true in *done when statistics answered. */
    bool (*morsel)(void *ctx, db_reader *reader, const struct db_morsel *morsel, bool *done);
    void *ctx;
    bool want_ids;
    bool stop; /* set by a visitor that has enough */
};
bool sql__scan(struct sql_plan *plan, db_read *read, struct sql_scan_visit *visit,
               struct sql_run_counts *counts);

#endif
