/* db/key_index.h: is there a row with this PRIMARY KEY? (R4: asked at apply, where order is known)
 *
 * A key is split into series (the key less its time column) and time. Three levels, cheapest first:
 *
 *   bounds   per series, a time no row of it is later than. A sensor that sends in order is
 *            answered here: its row is new. Hashes only: two series that collide share the larger
 *            bound, which costs a look-up and is never wrong.
 *   hash     over the rows of a hot set, built when first asked and caught up when asked again:
 *            sensors that send in order never pay for it.
 *   chunks   by time and series of each chunk, then its runs, then its times (db/chunk_find.h).
 *
 * Applier only. Nothing here is stored; hashes are seeded per process. */
#ifndef CHR_DB_KEY_INDEX_H
#define CHR_DB_KEY_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hash.h"
#include "db/catalog.h"
#include "db/hot.h"
#include "db/op_decode.h"

/* Series whose bound is kept, per table (16 MiB); rows of any further series are looked up. */
#define DB__KEY_BOUNDS_MAX (1u << 20)

/* FLOAT keys as PostgreSQL compares them: NaN equals NaN, -0.0 equals 0.0. */
bool db__value_equal(const struct db_value *a, const struct db_value *b);
/* Order of values of one type that are not NULL; NaN above all numbers. */
int db__value_cmp(const struct db_value *a, const struct db_value *b);

/* -- Hashes of keys
 * ------------------------------------------------------------------------------*/

/* Does the key hold the table's time column? */
bool db__key_has_time(const struct db_table_def *def);
/* out[i]: hash of the series part of row i of an operation; columns matched as in hot.h. */
void db__key_hash_rows(const struct db_table_def *def, const struct db__rows *rows,
                       const int16_t *map, uint64_t *out);
/* From values in the table's column order. */
uint64_t db__key_hash_values(const struct db_table_def *def, const struct db_value *values);

/* -- Bounds
 * --------------------------------------------------------------------------------------*/

struct db__key_bounds {
    struct db__key_bound {
        uint64_t hash;   /* 0: empty; a series that hashes to 0 counts as 1 */
        int64_t time_us; /* no row of the series is later */
    } * slots;
    uint32_t count, capacity; /* capacity a power of two */
};
void db__key_bounds_free(struct db__key_bounds *bounds);
enum db__key_answer {
    DB__KEY_NEW,    /* no row of the series is at this time or later; its bound is now this time */
    DB__KEY_LOOK,   /* look it up */
    DB__KEY_STRANGE /* a series not seen yet, though its rows may be in chunks: find their latest
                       time, tell it by db__key_bounds_set, and look it up unless this row is later
                     */
};
/* others_us: no row of a series not seen yet is later than this. */
enum db__key_answer db__key_bounds_pass(struct db__key_bounds *bounds, uint64_t series_hash,
                                        int64_t time_us, int64_t others_us);
/* No row of the series, the one at hand included, is later than this. */
void db__key_bounds_set(struct db__key_bounds *bounds, uint64_t series_hash, int64_t time_us);
/* Says that a look-up is near: slots of many series are seldom in a cache. */
CHR_INLINE void db__key_bounds_prefetch(const struct db__key_bounds *bounds, uint64_t series_hash)
{
    if (bounds->capacity)
        __builtin_prefetch(&bounds->slots[chr_hash_u64(series_hash) & (bounds->capacity - 1)]);
}

/* -- Hash over a hot set
 * -------------------------------------------------------------------------*/

void db__key_hash_free(struct db__key_hash *keys); /* accepts NULL */
/* The newest row of the set with the key in `values` (the table's column order, only key columns
 * are looked at), dead or alive; DB__HOT_REF_NONE. Rows before it with the same key are dead. */
db__hot_ref db__key_find_hot(struct db__hot_set *set, const struct db_table_def *def,
                             const struct db_value *values, uint64_t series_hash,
                             _Atomic uint64_t *bytes_total);
/* Before a set is cut back to `to`: forgets the rows that go. A row that had been replaced by one
 * of them is the newest of its key again. */
void db__key_cut_hot(struct db__hot_set *set, const struct db_table_def *def,
                     struct db__hot_place to);

#endif
