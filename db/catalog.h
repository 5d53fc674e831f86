/* db/catalog.h: what tables there are.
 *
 * A catalog is immutable and reference-counted; each catalog change makes a new one at apply. A
 * loop or a worker keeps the one it began with and compares versions once per turn. Definitions are
 * stored and logged as protobuf (proto/catalog.proto). */
#ifndef CHR_DB_CATALOG_H
#define CHR_DB_CATALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"
#include "db/grant.h"
#include "db/types.h"

#define DB_NAME_BYTES_MAX  63   /* of a table or column, as PostgreSQL */
#define DB_COLUMNS_MAX     1024 /* of a table, system columns apart */
#define DB_TABLES_MAX      10000
#define DB_KEY_COLUMNS_MAX 16

struct db_column_def {
    uint16_t id; /* stable through ALTER; index into nothing */
    enum db_type type;
    bool not_null;
    char name[DB_NAME_BYTES_MAX + 1]; /* folded unless it was quoted */
};

/* System columns every table has, not part of `*`; ids at the top of the range. */
#define DB_COLUMN_RECEIVED_AT 0xfff0 /* TIMESTAMP: arrival time, `_received_at` */
#define DB_COLUMN_HLC         0xfff1 /* INT: HLC of the entry (or the foreign one), `_hlc` */

enum db_payload_format {
    DB_PAYLOAD_AUTO,
    DB_PAYLOAD_JSON,
    DB_PAYLOAD_CSV,
    DB_PAYLOAD_NUMBER,
    DB_PAYLOAD_TEXT,
};

/* When a QoS 1 publish to a table is acknowledged: the durability class (design 2.3). The strongest
 * has the lowest number. Stored: never renumber. */
enum db_ack_class {
    DB_ACK_QUORUM = 0, /* committed: fsynced on a majority; alone, after the fdatasync */
    DB_ACK_LOCAL = 1,  /* fsynced by the node that leads; alone, the same as quorum */
    DB_ACK_MEMORY = 2, /* handed over to the log, not written yet */
};
#define DB_ACK_CLASSES 3
/* "quorum", "local", "memory". Static. */
const char *db_ack_class_name(enum db_ack_class ack);
/* The class of a word of any case; -1: it is none. */
int db_ack_class_parse(chr_slice word);

struct db_table_def {
    uint32_t id;             /* never reused */
    uint32_t schema_version; /* rises with each ALTER of the columns */
    char name[DB_NAME_BYTES_MAX + 1];
    bool system; /* chronos_rejects and kin: read-only to SQL */
    uint16_t columns_count;
    struct db_column_def *columns;            /* in the order of CREATE TABLE */
    uint16_t key_count;                       /* PRIMARY KEY columns; 0: none */
    uint16_t key_columns[DB_KEY_COLUMNS_MAX]; /* indexes into columns */
    uint16_t series_count;                    /* series key, see design 1; 0: none */
    uint16_t series_columns[DB_KEY_COLUMNS_MAX];
    int32_t time_column;  /* index into columns; -1: the arrival time */
    bool time_is_option;  /* TIME= was given */
    int64_t ttl_us;       /* 0: rows do not expire */
    bool ttl_floored;     /* an ALTER changed the TTL: what had expired by then stays gone */
    int64_t ttl_floor_us; /* rows with a time at or below it */
    uint16_t topics_count;
    char **topics; /* topic templates, e.g. "farm/{site}/{device_id}/env" */
    enum db_payload_format format;
    enum db_ack_class ack;
    uint64_t created_index; /* log index of CREATE TABLE; 0 for built-in tables */
    uint32_t grants_count;
    struct db_grant *grants; /* by kind and name */
    uint16_t next_column_id; /* the id a new column gets: ids of dropped columns stay unused */
};

/* Index of a column by (folded) name, or -1. */
int db_table_column(const struct db_table_def *table, chr_slice name);
/* Index of a column by id, or -1. */
int db_table_column_by_id(const struct db_table_def *table, uint16_t id);

/* Serialised as proto/catalog.proto's TableDef. encode appends; decode checks everything (limits,
 * types, names unique, indexes in range) and mallocs one block: free with db_table_def_free. */
CHR_MUST_USE chr_err db_table_def_encode(const struct db_table_def *table, struct chr_buf *out);
CHR_MUST_USE chr_err db_table_def_decode(chr_slice bytes, struct db_table_def **out,
                                         struct chr_errmsg *msg);
void db_table_def_free(struct db_table_def *table);
/* Fills in what follows from the rest: column ids, series key, time column (design 1), and checks
 * the definition as a whole: a topic captures only columns that exist, TIME names a TIMESTAMP… */
CHR_MUST_USE chr_err db_table_def_complete(struct db_table_def *table, struct chr_errmsg *msg);

typedef struct db_catalog db_catalog; /* immutable; db_catalog_acquire / db_catalog_release */

uint64_t db_catalog_version(const db_catalog *catalog); /* any change */
uint64_t
db_catalog_mapping_version(const db_catalog *catalog); /* changes of topics or columns (R9) */
size_t db_catalog_tables_count(const db_catalog *catalog);
/* In order of name. Borrowed from the catalog. */
const struct db_table_def *db_catalog_table_at(const db_catalog *catalog, size_t i);
const struct db_table_def *db_catalog_find(const db_catalog *catalog, chr_slice name);
const struct db_table_def *db_catalog_find_id(const db_catalog *catalog, uint32_t id);
/* Any thread. */
void db_catalog_retain(const db_catalog *catalog);
void db_catalog_release(const db_catalog *catalog);

#endif
