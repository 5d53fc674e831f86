/* db/reject.h: messages that a mapping refused (R3), kept in chronos_rejects: a ring of 16 MiB per
 * table that refused them, the oldest deleted first.
 *
 * The rings are what the table holds, counted: rebuilt from it at recovery, kept in step by every
 * delete. A ring belongs to a table's name, as chronos_rejects does: it outlives the table. Applier
 * only. */
#ifndef CHR_DB_REJECT_H
#define CHR_DB_REJECT_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "db/op_decode.h"

#define DB__REJECT_RING_BYTES_MAX (16u << 20)
/* What a reject counts beside its strings, so that empty ones are bounded too: 131,072 of a ring.
 */
#define DB__REJECT_OVERHEAD 128u

/* Columns of chronos_rejects. */
enum {
    DB__REJECT_TABLE,
    DB__REJECT_TOPIC,
    DB__REJECT_PAYLOAD,
    DB__REJECT_REASON,
    DB__REJECT_RECEIVED_AT,
    DB__REJECT_COLUMNS
};

struct db;
struct db_op_result;
struct db__ring;

struct db__rejects {
    struct db__ring **rings;
    size_t count, capacity;
};

void db__rejects_free(struct db__rejects *rejects);
void db__apply_reject(struct db *db, const struct db__op *op, struct db_op_result *result);
/* A row of chronos_rejects was deleted by an operation; undone with it. */
void db__reject_deleted(struct db *db, struct db_row_id id);
/* Recovery: a row of chronos_rejects, in any order; then once db__rejects_loaded. */
void db__reject_load(struct db__rejects *rejects, chr_slice table, struct db_row_id id,
                     uint64_t bytes);
void db__rejects_loaded(struct db__rejects *rejects);
/* What a row counts. */
uint64_t db__reject_bytes(size_t topic, size_t payload, size_t reason);

#endif
