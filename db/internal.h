/* db/internal.h: how the parts of db/ hang together; for db/ alone.
 *
 *     db ─▶ version ─▶ view (one per table) ─▶ chunks (immutable, their marks apart)
 *       │                                  └▶ hot sets (frozen ones being sealed, then the active)
 *       └▶ table (applier's side: definition, active set, key bounds, …)
 *
 * A version says where all rows are. It is immutable and counted; a read pins one together with an
 * apply index, and finds in it everything up to that index and nothing that moves. A new version is
 * made when a table comes or goes, when hot sets are frozen and when chunks take their place: never
 * per entry.
 *
 *   V1  A version's chunks hold rows of entries <= the cut of the checkpoint that published them,
 *       and no read of that version has a lower index.
 *   V2  Index, HLC and version are published together under pin_lock.
 *
 * Locks, in order: save_lock (db/checkpoint.h), apply_lock (db_apply; the checkpoint's cut and
 * swap), durable.lock (db/durable.h), pin_lock (a few loads and stores), then the locks around
 * pointers of marks. */
#ifndef CHR_DB_INTERNAL_H
#define CHR_DB_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/list.h"
#include "db/catalog_internal.h"
#include "db/db.h"
#include "db/durable_internal.h"
#include "db/hot.h"
#include "db/key_index.h"
#include "db/marks.h"
#include "db/memory.h"
#include "db/op_decode.h"
#include "db/origin.h"
#include "db/reject.h"
#include "db/request_key.h"
#include "db/scan.h"
#include "db/session.h"

/* -- Chunks as memory knows them: less than 300 bytes each, never a row
 * ---------------------------*/

struct db__chunk {
    _Atomic uint32_t refs; /* views that hold it, and the durable manifest */
    uint64_t id;
    uint32_t table_id;
    uint32_t rows;
    bool tail;
    bool null_times;
    uint64_t min_entry, max_entry;
    int64_t min_time_us, max_time_us; /* of the time column, NULLs apart; min > max: none */
    uint64_t bytes;
    chr_slice min_series, max_series; /* owned; db/series_key.h, cut short */
    struct db__marks marks;
    _Atomic uint64_t verified; /* whose checksums were right once; db/reader_chunk.c */
    /* Checkpointer: marks the store has, and will have if the present checkpoint is saved. */
    uint32_t marks_saved, marks_saved_next;
    bool left_alone; /* could not be read when it was to be rewritten; not tried again */
    struct db__chunk *next_garbage;
};

struct db__chunk_list {
    _Atomic uint32_t refs;
    uint32_t count;
    struct db__chunk *chunks[]; /* in order of id; a reference each */
};

/* -- Versions
 * ------------------------------------------------------------------------------------*/

struct db__view {
    _Atomic uint32_t refs;
    uint32_t table_id;
    struct db__chunk_list *chunks; /* a reference; NULL: none */
    uint32_t hot_count;            /* >= 1; the last one is active */
    struct db__hot_set *hot[];     /* oldest first; a reference each */
};

struct db__version {
    _Atomic uint32_t refs;
    const db_catalog *catalog; /* a reference */
    size_t count;
    struct db__view *views[]; /* in order of table id; a reference each */
};

struct db_read {
    struct db *d;
    struct db__version *version;
    uint64_t index;
    chr_hlc hlc;
    struct chr_list node; /* in db->reads, oldest first */
};

/* -- The applier's side of a table
 * ----------------------------------------------------------------*/

struct db__table {
    uint32_t id;
    const struct db_table_def *def; /* of db->catalog */
    struct db__view *view;          /* a reference */
    struct db__hot_set *active;     /* view's last */
    struct db__key_bounds bounds;   /* tables with a key */
    int64_t sealed_time_max;        /* of its chunks, ever; INT64_MIN: none */
    int64_t time_max;               /* of all its rows; only with a TTL */
};

/* What a step of apply has to take back when the operation, or the atomic entry, fails. */
struct db__undo {
    void (*run)(struct db *db, const struct db__undo *item);
    void (*keep)(struct db *db, const struct db__undo *item); /* it stays after all; may be NULL */
    void *a, *b;
    uint64_t x;
    struct db__hot_place place;
};

struct db__apply {
    uint64_t index;
    chr_hlc hlc;
    int64_t now_us; /* replicated time */
    bool atomic;
    uint32_t ordinal;                                    /* of the next row of the entry */
    uint64_t rows_applied, rows_deleted, rows_duplicate; /* counted when the entry stands */
    struct chr_arena arena;                              /* of one entry */
    struct db__undo *undo;
    size_t undo_count, undo_capacity;
    struct db__hot_writer writer;
    struct db__marks **marks; /* with unpublished marks */
    size_t marks_count, marks_capacity;
    bool version_dirty;        /* tables came or went */
    struct db__table **doomed; /* made and undone by this entry */
    size_t doomed_count, doomed_capacity;
    /* GUARDS of the entry */
    bool has_guards;
    uint32_t guards_count;
    uint64_t *duplicates, *gone;
    size_t guards_words_capacity;
    struct db_op_result *results;
    size_t results_capacity;
    struct chr_arena details;  /* of the last result */
    struct db__finder *finder; /* db/chunk_find.h */
};

struct db {
    struct db_kv kv;
    struct db_options options;

    pthread_mutex_t apply_lock;
    struct db__table **tables; /* in order of id */
    size_t tables_count, tables_capacity;
    struct db__table **dropped; /* since the last checkpoint's cut */
    size_t dropped_count, dropped_capacity;
    db_catalog *catalog; /* after the last operation */
    uint32_t next_table_id;
    struct db__apply apply;
    struct db__sessions sessions;
    struct db__durable durable;
    struct db__request_keys requests;
    struct db__origins origins;
    struct db__rejects rejects;

    pthread_mutex_t pin_lock;
    struct db__version *version; /* what reads pin */
    uint64_t pin_index;
    chr_hlc pin_hlc;
    struct chr_list reads;

    _Atomic uint64_t apply_index, durable_index;
    _Atomic chr_hlc hlc;
    _Atomic uint64_t catalog_version, mapping_version;
    _Atomic uint64_t hot_bytes; /* of sets not sealed yet */
    _Atomic int64_t next_due_us;
    int64_t ttl_due_us; /* applier: when rows may expire next */

    struct db__checkpoint *checkpoint; /* db/checkpoint.c */
    struct {
        _Atomic uint64_t rows_applied, rows_deleted, rows_duplicate, entries_stale;
        _Atomic uint64_t checkpoints, checkpoint_us_last, seal_rows_total, seal_us_total;
        _Atomic uint64_t chunks_decoded, chunks_pruned, chunks_from_statistics;
        _Atomic uint64_t sessions, guards, rejects;
    } counts;
};

#define DB__COUNT(d, name, n)                                                                      \
    atomic_fetch_add_explicit(&(d)->counts.name, (uint64_t)(n), memory_order_relaxed)

/* -- version.c
 * ------------------------------------------------------------------------------------*/

struct db__chunk_list *db__chunk_list_new(struct db__chunk *const *chunks, uint32_t count);
void db__chunk_retain(struct db__chunk *chunk);
void db__chunk_release(struct db__chunk *chunk);
void db__chunk_list_retain(struct db__chunk_list *list);
void db__chunk_list_release(struct db__chunk_list *list);
/* Takes no reference of the caller's: all parts are retained. */
struct db__view *db__view_new(uint32_t table_id, struct db__chunk_list *chunks,
                              struct db__hot_set *const *hot, uint32_t hot_count);
void db__view_release(struct db__view *view);
/* Of the tables as they are now. */
struct db__version *db__version_new(const struct db *db);
void db__version_release(struct db__version *version);
const struct db__view *db__version_find(const struct db__version *version, uint32_t table_id);
/* Makes index, hlc and, unless NULL, version (taken) what the next reads see. */
void db__publish(struct db *db, uint64_t index, chr_hlc hlc, struct db__version *version);
/* The lowest index any read has pinned, or the present one. */
uint64_t db__pinned_index(struct db *db);

/* -- table.c
 * --------------------------------------------------------------------------------------*/

struct db__table *db__table_find(const struct db *db, uint32_t id);
struct db__table *db__table_new(const struct db_table_def *def, struct db__chunk_list *chunks);
void db__table_free(struct db__table *table);
void db__table_insert(struct db *db, struct db__table *table);
void db__table_remove(struct db *db, struct db__table *table);
/* Replaces the table's view (taken). */
void db__table_set_view(struct db__table *table, struct db__view *view);
/* The hot sets of this view no longer wait to be sealed: hot_bytes without them. */
void db__hot_forget(struct db *db, const struct db__view *view);
/* CREATE, DROP and ALTER, at apply. */
void db__apply_create(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_drop(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_alter(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_grant(struct db *db, const struct db__op *op, struct db_op_result *result);

/* -- apply.c
 * --------------------------------------------------------------------------------------*/

struct db__undo *db__undo_push(struct db *db, void (*run)(struct db *, const struct db__undo *));
void db__undo_to(struct db *db, size_t count);
CHR_MUST_USE chr_err db__apply_init(struct db *db);
void db__apply_free(struct db *db);

/* -- apply_rows.c
 * ---------------------------------------------------------------------------------*/

void db__apply_rows(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_delete(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_update(struct db *db, const struct db__op *op, struct db_op_result *result);
/* Appends a row made by apply itself; values in table order, received_at last. */
void db__apply_append(struct db *db, struct db__table *table, const struct db_value *values,
                      uint32_t ordinal);

/* -- ttl.c
 * ----------------------------------------------------------------------------------------*/

/* May rows of the table be gone by their time at all? */
CHR_INLINE bool db__can_expire(const struct db_table_def *def)
{
    return def->ttl_us || def->ttl_floored;
}
/* Replicated time has passed the row's time by the table's TTL. time_us INT64_MAX: it has none. */
bool db__expired(const struct db_table_def *def, int64_t time_us, int64_t now_us);
/* Times at or below this are expired; INT64_MIN: none can be. */
int64_t db__expiry_limit(const struct db_table_def *def, int64_t now_us);
/* Applier: rows with times up to time_us came to a table with a TTL. */
void db__due_rows(struct db *db, struct db__table *table, int64_t time_us);
/* Applier: what db_next_due_us answers. */
void db__due_update(struct db *db);

/* -- locate.c
 * -------------------------------------------------------------------------------------*/

/* Where a row is. */
struct db__place {
    struct db__hot_set *set; /* NULL: in chunk, or nowhere */
    struct db__hot_block *block;
    struct db__chunk *chunk; /* NULL and set NULL: nowhere */
    uint32_t row;            /* in block or chunk */
};
/* The rows of these ids that are alive: applied, not marked, not expired; nowhere for the others.
 */
void db__locate_all(struct db *db, struct db__table *table, const struct db_row_id *ids,
                    uint32_t count, struct db__place *places);
/* Is the row still unmarked? (db__locate_all looked before the operation's own marks.) */
bool db__place_alive(const struct db__place *place);
/* The living row with the key in values (table order, only key columns are looked at). */
bool db__locate_key(struct db *db, struct db__table *table, const struct db_value *values,
                    uint64_t series_hash, struct db__place *place);
/* All values of a row, table order, received_at last; bytes live in the arena or in the block. */
void db__place_values(struct db *db, const struct db__table *table, const struct db__place *place,
                      struct db_value *out);
/* Marks the row deleted by the entry being applied. */
void db__mark(struct db *db, struct db__table *table, const struct db__place *place);
/* Place of the column a table's rows are timed by: index into columns, or columns_count for
 * received_at. */
CHR_INLINE uint16_t db__time_column(const struct db_table_def *def)
{
    return def->time_column < 0 ? def->columns_count : (uint16_t)def->time_column;
}

#endif
