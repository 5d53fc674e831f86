/* broker/ingest/internal.h: what the files of this folder share.
 *
 * A plan is one topic template of one table, compiled: which topic levels go where, which JSON key
 * goes to which column, in which order CSV fields go. A route is the plans that one topic matches,
 * with the captured levels as values. A message is one run of ingest_decode over a route. */
#ifndef CHR_BROKER_INGEST_INTERNAL_H
#define CHR_BROKER_INGEST_INTERNAL_H

#include <stdatomic.h>

#include "base/arena.h"
#include "broker/ingest/ingest.h"

/* -- Keys: which column a JSON key means (keys.c) */

/* What to do with a key's value: a column's enum db_type, or one of these. */
enum ingest_key_kind {
    INGEST_KEY_CAPTURED =
        DB_TYPES_END,   /* the topic gives this column; the payload may only agree */
    INGEST_KEY_METRICS, /* an object to be unpivoted */
    INGEST_KEY_PREFIX,  /* no column, but columns "key.…" exist */
};

/* A slot of an open-addressing table. first and last: the first and the last 8 bytes of the key, or
 * all of it twice, with zeros above; so keys of up to 16 bytes are compared by two words. */
struct ingest_key {
    uint64_t first, last;
    const uint8_t *name; /* NULL: empty slot. Followed by 8 readable bytes */
    uint16_t column;
    uint8_t len;  /* 1 .. DB_NAME_BYTES_MAX */
    uint8_t kind; /* enum db_type or ingest_key_kind */
    bool prefix;  /* a column, and columns "key.…" exist as well */
};

struct ingest_keys {
    struct ingest_key *slots; /* [mask + 1], a power of two, at most half full */
    uint64_t multiplier;      /* odd; chosen so that few keys share a slot */
    uint32_t mask;
    uint32_t shift; /* 64 - log2(mask + 1) */
};

/* -- Plans: one template of one table (plan.c) */

enum ingest_level_kind {
    INGEST_LEVEL_MANY, /* # */
    INGEST_LEVEL_ONE,  /* + and {name} */
    INGEST_LEVEL_TEXT,
};
struct ingest_level {
    enum ingest_level_kind kind;
    chr_slice text; /* TEXT */
};

struct ingest_plan_capture {
    uint32_t level;
    uint16_t column;
};

struct ingest_plan {
    const struct db_table_def *table; /* of the mappings' catalog */
    uint32_t slot;                    /* of the table's builder in a decoder */
    uint32_t template_index;          /* within the table */
    enum db_payload_format format;
    const struct ingest_level *levels;
    uint32_t levels_count; /* 0: a plan without a topic */
    const struct ingest_plan_capture *captures;
    uint32_t captures_count;
    struct ingest_keys keys;
    int32_t time_column;   /* filled with the arrival time when the payload does not; -1: none */
    int32_t scalar_column; /* of a payload that is a number or text; -1: none */
    bool unpivot;          /* `metrics` becomes rows of these two columns */
    uint16_t metric_column, value_column;
    const uint16_t *fields; /* columns the topic does not capture, in order: CSV */
    uint32_t fields_count;
};

/* template_index UINT32_MAX: a plan without a topic. All memory is from the arena. CHR_ENOMEM. */
CHR_MUST_USE chr_err ingest__plan_compile(struct chr_arena *arena, const struct db_table_def *table,
                                          uint32_t slot, uint32_t template_index,
                                          struct ingest_plan *plan);
/* Order by levels, `#` before `+` before text, the shorter before what it is a prefix of; then by
 * table and template. For qsort. */
int ingest__plan_compare(const void *a, const void *b);

/* captured: bit per column. CHR_ENOMEM. */
CHR_MUST_USE chr_err ingest__keys_compile(struct chr_arena *arena, const struct db_table_def *table,
                                          const uint64_t *captured, bool unpivot,
                                          struct ingest_keys *keys);

/* -- Mappings (mappings.c) */

struct ingest_mappings {
    _Atomic uint32_t references;
    uint64_t version;
    const db_catalog *catalog;          /* retained; NULL in tests that bring their own tables */
    struct chr_arena arena;             /* all below */
    const struct db_table_def **tables; /* user tables in order of name; index = slot */
    uint32_t tables_count;
    struct ingest_plan *plans; /* sorted by ingest__plan_compare */
    uint32_t plans_count;
};

/* For tests and fuzzing: mappings of tables that belong to the caller and outlive them. */
CHR_MUST_USE chr_err ingest__mappings_of_tables(const struct db_table_def *const *tables,
                                                uint32_t tables_count, uint64_t version,
                                                ingest_mappings **out);

/* -- Routes (route.c) */

/* Readable bytes after a captured string, so that short ones are copied 16 bytes at a time. */
#define INGEST_CAPTURE_PAD 16

struct ingest_capture {
    uint16_t column;
    struct db_value value; /* bytes: in the route */
};

/* One table of a route. */
struct ingest_target {
    const struct ingest_plan *plan;
    const struct ingest_capture *captures;
    uint32_t captures_count;
    chr_err refused;           /* a captured level does not fit: every message is rejected … */
    struct chr_errmsg *reason; /* … for this reason; owned, NULL unless refused */
};

struct ingest_route {
    ingest_mappings *mappings;
    struct chr_arena own;           /* a plan without a topic lives here */
    uint32_t targets_count;         /* in order of the tables' names */
    struct ingest_target targets[]; /* then captures, then the topic's bytes */
};

#endif
