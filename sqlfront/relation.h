/* sqlfront/relation.h: relations whose rows the host makes when they are read (chronos_clients …).
 *
 * To the binder one is a table like any other: its columns dress up as a struct db_table_def, which
 * lives as long as the statement. Only the scan differs: the host's rows are copied into columns
 * once per plan, before the first of them is looked at, so a plan that scans twice sees the same.
 */
#ifndef CHR_SQLFRONT_RELATION_H
#define CHR_SQLFRONT_RELATION_H

#include "sqlfront/plan.h"

/* What no table of a catalog has for an id: those are given from 1 up. */
#define SQL_RELATION_TABLE_ID UINT32_MAX

CHR_INLINE bool sql__is_relation(const struct db_table_def *table)
{
    return table->id == SQL_RELATION_TABLE_ID;
}

/* The relation of this name as a table; NULL: there is none, or out of memory (q->failed). */
const struct db_table_def *sql__find_relation(struct sql_query *q, chr_slice name);
/* Does the statement read one of them, and so nothing of the log? It needs no leader then. */
bool sql__reads_relation(const struct sql_query *q, const struct sql_stmt *stmt);
/* Name i of those that can be read; NULL: no more. */
const char *sql__relation_name(const struct sql_query *q, uint32_t i);
/* SHOW <word>: the relation it stands for, or NULL. */
const struct sql_relation *sql__shown_relation(const struct sql_query *q, chr_slice word);
bool sql__run_show_relation(struct sql_query *q, const struct sql_relation *relation,
                            const struct sql_stmt *stmt, uint64_t *rows);
/* As sql__scan, for a plan whose table is a relation. */
bool sql__scan_relation(struct sql_plan *plan, struct sql_scan_visit *visit,
                        struct sql_run_counts *counts);

#endif
