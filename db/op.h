/* db/op.h: operations, the bytes of a log entry (R12: effects, never SQL text).
 *
 * An entry is a header and a sequence of operations, little-endian, each padded to 8 bytes:
 *
 *   entry header, 16 bytes
 *     0  u16 version (1)
 *     2  u16 flags (DB_ENTRY_ATOMIC)
 *     4  u32 operations count
 *     8  u64 mapping version the rows were decoded under (R9); 0: does not depend on mappings
 *   operation header, 16 bytes
 *     0  u32 length, header and padding included
 *     4  u8  type (enum db_op_type)
 *     5  u8  flags
 *     6  u16 reserved, 0
 *     8  u32 table id; 0 where no table is meant
 *    12  u32 rows (or items) count
 *   body by type, as db/op.c lays out and docs/formats.md shows
 *
 * Readers check every length before use: entries may come from a peer. */
#ifndef CHR_DB_OP_H
#define CHR_DB_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/hlc.h"
#include "db/catalog.h"
#include "db/types.h"

/* The same number as RAFT_ENTRY_BYTES_MAX; broker/ asserts it (db does not know raft). */
#define DB_ENTRY_BYTES_MAX ((size_t)4 << 20)
/* Rows of one operation: what fits an entry at 16 bytes a row, so that a forged count of constant
 * columns cannot cost more. */
#define DB_OP_ROWS_MAX 262144u

/* All operations succeed or none has an effect; without it each operation stands alone. An atomic
 * entry holds rows, deletes, updates, changes of the catalog, one GUARDS and one REQUEST_KEY; when
 * a guard is a duplicate or gone, the operations after it are skipped (CHR_ECANCELLED). */
#define DB_ENTRY_ATOMIC 0x1

/* Stored numbers. */
enum db_op_type {
    DB_OP_ROWS = 1,          /* rows inserted, as columns */
    DB_OP_DELETE = 2,        /* row ids deleted */
    DB_OP_UPDATE = 3,        /* row ids replaced by complete new rows: a delete and an append */
    DB_OP_CREATE_TABLE = 4,  /* protobuf TableDef; flag DB_OP_IF_EXISTENCE: IF NOT EXISTS */
    DB_OP_DROP_TABLE = 5,    /* by table id */
    DB_OP_SESSION_OPEN = 6,  /* CONNECT of a session that outlives its connection (R5) */
    DB_OP_SESSION_CLOSE = 7, /* its connection ended: expiry begins, or it ends now */
    DB_OP_GUARDS = 8,        /* QoS 2 messages of the rows that follow (R5) */
    DB_OP_RELEASE = 9,       /* PUBREL: forget packet ids; committed before PUBCOMP (R5) */
    DB_OP_REJECT = 10,       /* messages that fit no row, kept in chronos_rejects (R3) */
    DB_OP_REQUEST_KEY = 11,  /* dedup key of an SQL write: idempotency-key (R2) */
    DB_OP_ALTER_TABLE = 12,  /* protobuf TableDef with the same id, schema_version + 1 */
    /* What outlives connections (db/durable.h); they cannot be undone and stand in entries that are
     * not atomic. */
    DB_OP_SUBSCRIBE = 13,
    DB_OP_UNSUBSCRIBE = 14,
    DB_OP_MESSAGE = 15,   /* one published message, verbatim, once (R7) */
    DB_OP_QUEUE_ACK = 16, /* a client acknowledged messages of its queue (R8) */
    DB_OP_NODE_DOWN = 17, /* a node is no more: whoever was connected through it is lost */
    DB_OP_GRANT = 32,     /* GRANT or REVOKE on a table, for one grantee */
};
#define DB_OP_IF_EXISTENCE 0x1 /* CREATE … IF NOT EXISTS */
#define DB_OP_GUARDED      0x2 /* ROWS, REJECT, MESSAGE: each names an item of the entry's GUARDS */
#define DB_OP_DURABLE      0x4 /* SESSION_OPEN: with limits of the queue and perhaps a will */

enum db_rows_mode {
    DB_ROWS_MERGE = 1, /* publish: an existing key merges the columns the row names (design 2.3) */
    DB_ROWS_INSERT =
        2, /* SQL INSERT: an existing key is CHR_EDUPKEY (23505), decided at apply, R4 */
    DB_ROWS_IGNORE = 3,  /* ON CONFLICT DO NOTHING */
    DB_ROWS_REPLACE = 4, /* ON CONFLICT DO UPDATE SET all inserted columns = excluded.* */
};

struct db_entry;

/* -- Building rows ------------------------------------------------------------------------------
 *
 * A builder collects rows of one table column by column and is reused batch after batch: no
 * allocation per row once it has grown. Values of a row may be put in any order; a column that was
 * not put is NULL and not named. A message that fails half way is undone with db_rows_rollback. */
struct db_rows_column {
    enum db_type type;
    uint16_t column_id;
    bool has_named;     /* some row names this column with an explicit NULL */
    bool written;       /* some row has a value, so finish writes one for every row */
    uint32_t capacity;  /* rows of room */
    uint64_t *validity; /* zero beyond the current row */
    uint64_t *named;    /* rows that name it with an explicit NULL; zero beyond the current row */
    union {
        int64_t *i64;
        double *f64;
        uint8_t *b8;
        uint32_t *ends; /* STRING, BLOB: end offset in heap of each row; NULL rows repeat */
    };
    uint8_t *heap;
    uint32_t heap_len, heap_capacity;
};

struct db_rows_builder {
    const struct db_table_def *table; /* borrowed; the builder's owner keeps its catalog */
    uint32_t rows;                    /* complete rows */
    uint32_t rows_max;                /* fixed at init; at most DB_OP_ROWS_MAX */
    size_t bytes;                     /* about what finish will write, sparse columns included */
    size_t row_bits;                  /* what each row adds to it, strings apart */
    size_t heap_bytes;                /* strings of all columns */
    uint16_t columns_count;           /* of the table, then _received_at last */
    struct db_rows_column *columns;   /* [columns_count] in table order */
    uint32_t *guards;                 /* guard item of each row, UINT32_MAX: none */
    bool guarded;                     /* write the guards; db_rows_guard sets both */
};

struct db_rows_mark {
    uint32_t rows;
};

CHR_MUST_USE chr_err db_rows_init(struct db_rows_builder *builder, const struct db_table_def *table,
                                  uint32_t rows_max);
void db_rows_free(struct db_rows_builder *builder);
void db_rows_reset(struct db_rows_builder *builder);
/* Puts into the row being built (number builder->rows). column: index into table->columns, or
 * table->columns_count for _received_at. The type must be the column's. put_bytes copies;
 * CHR_EFULL when a row's heap would pass RAFT's entry limit. Twice the same column: the last wins.
 */
void db_rows_put_i64(struct db_rows_builder *builder, uint16_t column, int64_t value);
void db_rows_put_f64(struct db_rows_builder *builder, uint16_t column, double value);
void db_rows_put_bool(struct db_rows_builder *builder, uint16_t column, bool value);
CHR_MUST_USE chr_err db_rows_put_bytes(struct db_rows_builder *builder, uint16_t column,
                                       chr_slice value);
void db_rows_put_null(struct db_rows_builder *builder,
                      uint16_t column); /* named, explicitly NULL */
bool db_rows_has(const struct db_rows_builder *builder, uint16_t column); /* named in this row */
/* The row being built belongs to this item of the entry's GUARDS. */
CHR_INLINE void db_rows_guard(struct db_rows_builder *builder, uint32_t item)
{
    builder->guards[builder->rows] = item;
    builder->guarded = true;
}
/* Completes the row. CHR_ENOTNULL (msg names the column): undone, as if nothing was put.
 * CHR_EFULL at rows_max. */
CHR_MUST_USE chr_err db_rows_end(struct db_rows_builder *builder, int64_t received_at_us,
                                 struct chr_errmsg *msg);
struct db_rows_mark db_rows_mark(const struct db_rows_builder *builder);
void db_rows_rollback(struct db_rows_builder *builder, struct db_rows_mark mark);
/* Appends the DB_OP_ROWS operation to an entry and leaves the builder as it is (reset it). Columns
 * that are NULL in all rows or equal in all rows are written short. A builder without rows adds no
 * operation. */
void db_rows_finish(const struct db_rows_builder *builder, enum db_rows_mode mode,
                    struct db_entry *entry);

/* -- Building an entry --------------------------------------------------------------------------
 */
struct db_entry {
    struct chr_buf bytes; /* max RAFT_ENTRY_BYTES_MAX */
    uint32_t ops_count;
};
void db_entry_init(struct db_entry *entry, size_t max_bytes);
void db_entry_free(struct db_entry *entry);
void db_entry_begin(struct db_entry *entry, uint16_t flags, uint64_t mapping_version);
/* Fixes the counts in the header; the bytes are then ready to be proposed. CHR_EFULL: too large. */
CHR_MUST_USE chr_err db_entry_end(struct db_entry *entry);

void db_entry_add_delete(struct db_entry *entry, uint32_t table_id, const struct db_row_id *ids,
                         uint32_t count);
/* The builder holds complete new rows, one per id, in the same order. */
void db_entry_add_update(struct db_entry *entry, const struct db_rows_builder *rows,
                         const struct db_row_id *ids);
CHR_MUST_USE chr_err db_entry_add_create_table(struct db_entry *entry,
                                               const struct db_table_def *table,
                                               bool if_not_exists);
void db_entry_add_drop_table(struct db_entry *entry, uint32_t table_id);
/* table: the new definition, completed; its schema_version is one more than the one it was made
 * from (else CHR_ECONFLICT at apply). Key, series and time columns and the types of columns stay.
 */
CHR_MUST_USE chr_err db_entry_add_alter_table(struct db_entry *entry,
                                              const struct db_table_def *table);

/* A message the client left to be published when it is lost. */
struct db_will {
    chr_slice topic, properties, payload;
    uint8_t qos;
    bool retain;
    uint32_t delay_s;          /* after the connection was lost */
    uint32_t message_expiry_s; /* from its publication; UINT32_MAX: none */
};
/* Gives or takes privileges on a table (db/grant.h). A REVOKE of what was not granted does nothing.
 * CHR_EFULL at apply: DB_GRANTS_MAX. */
void db_entry_add_grant(struct db_entry *entry, uint32_t table_id, const struct db_grant *grant,
                        bool revoke);

struct db_session_open {
    chr_slice client_id;
    bool clean_start;
    uint32_t expiry_s;           /* 0xffffffff: never; 0: it ends with its connection */
    const struct db_will *will;  /* borrowed; NULL: none */
    uint32_t queue_messages_max; /* 0: no limit, as for the three below */
    uint32_t window;             /* so many more while connected: the client's Receive Maximum */
    uint64_t queue_bytes_max;
    uint64_t queues_bytes_max; /* of all sessions together */
    bool drop_oldest;          /* at a limit: the oldest waiting message goes; else the new one */
    /* Whose it is: a session of this client id that somebody else opened ends, as with clean_start.
     * One whose owner was never said becomes the next one's who says it. */
    bool has_owner;
    chr_slice owner;
    /* The node its connection is on, and that node's start; 0, 0: a node alone. */
    uint64_t node, boot;
};
void db_entry_add_session_open(struct db_entry *entry, const struct db_session_open *open);
enum db_will_action {
    DB_WILL_DROP = 0, /* the client took its leave */
    DB_WILL_KEEP = 1, /* due when its delay has passed or the session ends, whichever is first */
};
struct db_session_close {
    chr_slice client_id;
    uint64_t epoch;
    uint32_t generation; /* of the connection that ended; an older one has no effect */
    uint32_t expiry_s;   /* 0: the session ends now */
    enum db_will_action will;
    uint64_t sent; /* the highest sequence of its queue that may have been sent */
};
void db_entry_add_session_close(struct db_entry *entry, const struct db_session_close *close);
/* Sessions that are connected by this node, in this start of it or an earlier one, are closed as by
 * SESSION_CLOSE: the will is kept, what expires begins to. Their generation moves on, so that what
 * those connections still have on its way is void (R5). result.rows: how many there were. */
void db_entry_add_node_down(struct db_entry *entry, uint64_t node, uint64_t boot);
struct db_guard {
    uint64_t epoch;      /* of the session (R5) */
    uint32_t generation; /* of the connection */
    uint16_t packet_id;  /* 0, in GUARDS: the will of that connection, which must be due: it is
                            taken, or counts as a duplicate when it was before */
};
/* At most one per entry, before the guarded rows; a row's guard is an index into items. */
void db_entry_add_guards(struct db_entry *entry, const struct db_guard *items, uint32_t count);
/* Of an older connection, or of a session that has ended: CHR_ENOTFOUND. Those ids are not
 * forgotten, and nothing may be answered for them. */
void db_entry_add_release(struct db_entry *entry, const struct db_guard *items, uint32_t count);
struct db_reject {
    uint32_t table_id; /* of the mapping that refused it */
    uint32_t guard;    /* index into the entry's guards; UINT32_MAX: none */
    chr_slice topic, payload, reason;
    int64_t received_at_us;
};
void db_entry_add_reject(struct db_entry *entry, const struct db_reject *reject);

/* -- What outlives connections (db/durable.h) ---------------------------------------------------*/

struct db_subscription {
    chr_slice filter; /* of a shared one: what follows the group */
    chr_slice group;  /* empty: not shared */
    uint8_t qos;
    bool no_local, retain_as_published;
    uint8_t retain_handling; /* 0: retained messages at SUBSCRIBE, 1: if it is new, 2: none */
    uint32_t id;             /* 0: none */
};
#define DB_SUBSCRIPTION_ID_MAX 268435455u
#define DB_SUBSCRIPTIONS_MAX   65536u /* of a session */
#define DB_TOPIC_LEVELS_MAX    200u
/* Of the present connection of a session; those with another epoch or generation: CHR_ENOTFOUND.
 * result.rows: how many of them were taken, from the first on. Retained messages that match with
 * QoS above 0 are queued. count 0 adds nothing. */
void db_entry_add_subscribe(struct db_entry *entry, uint64_t epoch, uint32_t generation,
                            const struct db_subscription *items, uint32_t count);
/* Only filter and group are looked at. result.rows: how many there were. */
void db_entry_add_unsubscribe(struct db_entry *entry, uint64_t epoch, uint32_t generation,
                              const struct db_subscription *items, uint32_t count);
struct db_publish {
    chr_slice topic;      /* UTF-8 without wildcards */
    chr_slice properties; /* a block that is passed on, db does not look inside */
    chr_slice payload;
    uint8_t qos;
    bool retain;        /* set the topic's retained message, or with an empty payload remove it */
    uint32_t expiry_s;  /* UINT32_MAX: none */
    uint64_t publisher; /* epoch, for no_local; 0: no session */
    uint32_t guard;     /* index into the entry's guards: skipped when that is a duplicate or gone;
                           UINT32_MAX: none */
};
/* After the entry's GUARDS. result.rows: sessions in whose queues it is. */
void db_entry_add_message(struct db_entry *entry, const struct db_publish *publish);
struct db_sequence_range {
    uint64_t first, last; /* inclusive */
};
/* done: gone from the queue. received: the client has it (QoS 2) and will be asked to release it.
 * Sequences that are not there are ignored. result.rows: messages that changed. */
void db_entry_add_queue_ack(struct db_entry *entry, uint64_t epoch, uint32_t generation,
                            const struct db_sequence_range *done, uint32_t done_count,
                            const struct db_sequence_range *received, uint32_t received_count);

/* The operations of this (atomic) entry are skipped when the key was seen; the result says so. */
void db_entry_add_request_key(struct db_entry *entry, chr_slice user, chr_slice key);

#endif
