/* db/key_index.c: hashes of keys, bounds per series, and the lazy hash over a hot set. */
#include "db/key_index.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "db/memory.h"

/* -- Values -------------------------------------------------------------------------------------*/

static int f64_cmp(double a, double b)
{
    bool a_nan = isnan(a), b_nan = isnan(b);
    if (a_nan || b_nan)
        return (int)a_nan - (int)b_nan;
    return (a > b) - (a < b);
}

int db__value_cmp(const struct db_value *a, const struct db_value *b)
{
    switch (a->type) {
    case DB_FLOAT:
        return f64_cmp(a->f64, b->f64);
    case DB_BOOLEAN:
        return (int)a->boolean - (int)b->boolean;
    case DB_STRING:
    case DB_BLOB:
        return chr_slice_cmp(a->bytes, b->bytes);
    default:
        return (a->i64 > b->i64) - (a->i64 < b->i64);
    }
}

bool db__value_equal(const struct db_value *a, const struct db_value *b)
{
    if (a->null || b->null)
        return a->null && b->null;
    return db__value_cmp(a, b) == 0;
}

static uint64_t value_hash(const struct db_value *v, uint64_t seed)
{
    if (v->null)
        return seed;
    switch (v->type) {
    case DB_FLOAT: {
        double f = isnan(v->f64) ? (double)NAN : v->f64 + 0.0; /* -0.0 + 0.0 is 0.0 */
        uint64_t bits;
        memcpy(&bits, &f, sizeof bits);
        return chr_hash_u64(bits ^ seed);
    }
    case DB_BOOLEAN:
        return chr_hash_u64((uint64_t)v->boolean ^ seed);
    case DB_STRING:
    case DB_BLOB:
        return chr_hash_slice(v->bytes, seed);
    default:
        return chr_hash_u64((uint64_t)v->i64 ^ seed);
    }
}

static uint64_t combine(uint64_t h, uint64_t value)
{
    return (h ^ value) * UINT64_C(0x9e3779b97f4a7c15) + (h >> 29);
}

bool db__key_has_time(const struct db_table_def *def)
{
    return def->series_count < def->key_count;
}

void db__key_hash_rows(const struct db_table_def *def, const struct db__rows *rows,
                       const int16_t *map, uint64_t *out)
{
    uint64_t seed = chr_hash_seed();
    memset(out, 0, rows->rows * sizeof *out);
    for (uint16_t k = 0; k < def->series_count; k++) {
        /* NOT NULL and therefore there: checked before. */
        const struct db__rows_col *c = &rows->columns[map[def->series_columns[k]]];
        if (c->form == DB__ROWS_PLAIN && db_type_is_bytes(c->type)) {
            uint32_t begin = 0;
            for (uint32_t r = 0; r < rows->rows; r++) {
                uint32_t end = chr_get_u32le(c->values + (size_t)r * 4);
                out[r] = combine(out[r], chr_hash_bytes(c->heap + begin, end - begin, seed));
                begin = end;
            }
            continue;
        }
        struct db_value v = db__rows_value(c, 0);
        uint64_t h = value_hash(&v, seed);
        for (uint32_t r = 0; r < rows->rows; r++) {
            if (c->form == DB__ROWS_PLAIN) {
                v = db__rows_value(c, r);
                h = value_hash(&v, seed);
            }
            out[r] = combine(out[r], h);
        }
    }
}

uint64_t db__key_hash_values(const struct db_table_def *def, const struct db_value *values)
{
    uint64_t seed = chr_hash_seed(), h = 0;
    for (uint16_t k = 0; k < def->series_count; k++)
        h = combine(h, value_hash(&values[def->series_columns[k]], seed));
    return h;
}

/* -- Bounds -------------------------------------------------------------------------------------*/

void db__key_bounds_free(struct db__key_bounds *bounds)
{
    free(bounds->slots);
    memset(bounds, 0, sizeof *bounds);
}

static struct db__key_bound *bound_slot(struct db__key_bounds *b, uint64_t hash)
{
    uint64_t mask = b->capacity - 1, i = chr_hash_u64(hash) & mask;
    while (b->slots[i].hash && b->slots[i].hash != hash)
        i = (i + 1) & mask;
    return &b->slots[i];
}

static void bounds_grow(struct db__key_bounds *b)
{
    struct db__key_bounds next = {.capacity = b->capacity ? b->capacity * 2 : 64,
                                  .count = b->count};
    next.slots = db__must_calloc(next.capacity, sizeof *next.slots);
    for (uint32_t i = 0; i < b->capacity; i++)
        if (b->slots[i].hash)
            *bound_slot(&next, b->slots[i].hash) = b->slots[i];
    free(b->slots);
    *b = next;
}

enum db__key_answer db__key_bounds_pass(struct db__key_bounds *b, uint64_t series_hash,
                                        int64_t time_us, int64_t others_us)
{
    if (!series_hash)
        series_hash = 1;
    struct db__key_bound *slot = b->capacity ? bound_slot(b, series_hash) : NULL;
    if (slot && slot->hash) {
        if (time_us <= slot->time_us)
            return DB__KEY_LOOK;
        slot->time_us = time_us;
        return DB__KEY_NEW;
    }
    if (b->count >= DB__KEY_BOUNDS_MAX)
        return DB__KEY_LOOK;
    if (time_us <= others_us)
        return DB__KEY_STRANGE;
    db__key_bounds_set(b, series_hash, time_us);
    return DB__KEY_NEW;
}

void db__key_bounds_set(struct db__key_bounds *b, uint64_t series_hash, int64_t time_us)
{
    if (!series_hash)
        series_hash = 1;
    if (b->count >= b->capacity / 2)
        bounds_grow(b);
    struct db__key_bound *slot = bound_slot(b, series_hash);
    b->count += slot->hash == 0;
    *slot = (struct db__key_bound){.hash = series_hash, .time_us = time_us};
}

/* -- Hash over a hot set ------------------------------------------------------------------------*/

#define REF_REMOVED (UINT32_MAX - 1)
_Static_assert(DB__HOT_REF_NONE == UINT32_MAX, "an empty slot is all ones");

struct slot {
    uint32_t tag; /* upper half of the hash */
    db__hot_ref ref;
};

struct replaced {
    db__hot_ref by, old; /* old: DB__HOT_REF_NONE when the key was new */
};

struct db__key_hash {
    struct slot *slots;
    uint32_t capacity, used; /* used: removed ones included */
    uint32_t block, row;     /* caught up to here */
    /* What indexing rows of the entry being applied did, for db__key_cut_hot. */
    struct replaced *replaced;
    uint32_t replaced_count, replaced_capacity;
};

void db__key_hash_free(struct db__key_hash *keys)
{
    if (!keys)
        return;
    free(keys->slots);
    free(keys->replaced);
    free(keys);
}

static uint64_t full_hash(const struct db_table_def *def, uint64_t series_hash,
                          const struct db_value *time)
{
    if (!db__key_has_time(def))
        return chr_hash_u64(series_hash);
    return chr_hash_u64(series_hash + (uint64_t)time->i64 * UINT64_C(0xd6e8feb86659fd93));
}

struct key_places {
    int at[DB_KEY_COLUMNS_MAX]; /* column of the block per key column */
};

static struct key_places key_places(const struct db_table_def *def, const struct db__hot_block *b)
{
    struct key_places p;
    for (uint16_t k = 0; k < def->key_count; k++) {
        p.at[k] = db__hot_column(b, def->columns[def->key_columns[k]].id);
        CHR_ASSERT(p.at[k] >= 0); /* key columns stay through ALTER */
    }
    return p;
}

static uint64_t row_hash(const struct db_table_def *def, const struct db__hot_block *b,
                         const struct key_places *p, uint32_t row)
{
    uint64_t seed = chr_hash_seed(), h = 0;
    struct db_value time = {.type = DB_TIMESTAMP};
    bool has_time = db__key_has_time(def);
    for (uint16_t k = 0; k < def->key_count; k++) {
        struct db_value v = db__hot_value(b, (uint32_t)p->at[k], row);
        if (has_time && def->key_columns[k] == def->time_column)
            time = v;
        else
            h = combine(h, value_hash(&v, seed));
    }
    return full_hash(def, h, &time);
}

static bool rows_equal(const struct db_table_def *def, const struct db__hot_set *set, db__hot_ref a,
                       db__hot_ref b)
{
    const struct db__hot_block *ba = db__hot_block_of(set, a), *bb = db__hot_block_of(set, b);
    struct key_places pa = key_places(def, ba), pb = key_places(def, bb);
    for (uint16_t k = 0; k < def->key_count; k++) {
        struct db_value va = db__hot_value(ba, (uint32_t)pa.at[k], db__hot_row_of(a));
        struct db_value vb = db__hot_value(bb, (uint32_t)pb.at[k], db__hot_row_of(b));
        if (!db__value_equal(&va, &vb))
            return false;
    }
    return true;
}

static void account(struct db__hot_set *set, uint64_t added, uint64_t removed,
                    _Atomic uint64_t *total)
{
    atomic_fetch_add_explicit(&set->bytes, added - removed, memory_order_relaxed);
    atomic_fetch_add_explicit(total, added - removed, memory_order_relaxed);
}

static void hash_grow(struct db__hot_set *set, struct db__key_hash *k,
                      const struct db_table_def *def, _Atomic uint64_t *total)
{
    uint32_t live = 0;
    for (uint32_t i = 0; i < k->capacity; i++)
        live += k->slots[i].ref < REF_REMOVED;
    uint32_t capacity = 64;
    while (capacity < live * 4)
        capacity *= 2;
    struct slot *slots = db__must_malloc(capacity * sizeof *slots);
    memset(slots, 0xff, capacity * sizeof *slots);
    for (uint32_t i = 0; i < k->capacity; i++) {
        if (k->slots[i].ref >= REF_REMOVED)
            continue;
        const struct db__hot_block *b = db__hot_block_of(set, k->slots[i].ref);
        struct key_places p = key_places(def, b);
        uint64_t h = row_hash(def, b, &p, db__hot_row_of(k->slots[i].ref));
        uint32_t at = (uint32_t)h & (capacity - 1);
        while (slots[at].ref != DB__HOT_REF_NONE)
            at = (at + 1) & (capacity - 1);
        slots[at] = k->slots[i];
    }
    account(set, capacity * sizeof *slots, k->capacity * sizeof *slots, total);
    free(k->slots);
    k->slots = slots;
    k->capacity = capacity;
    k->used = live;
}

static void hash_insert(struct db__hot_set *set, struct db__key_hash *k,
                        const struct db_table_def *def, uint64_t h, db__hot_ref ref, bool journal)
{
    uint32_t tag = (uint32_t)(h >> 32), at = (uint32_t)h & (k->capacity - 1);
    db__hot_ref old = DB__HOT_REF_NONE;
    for (; k->slots[at].ref != DB__HOT_REF_NONE; at = (at + 1) & (k->capacity - 1)) {
        if (k->slots[at].tag == tag && k->slots[at].ref != REF_REMOVED &&
            rows_equal(def, set, k->slots[at].ref, ref)) {
            old = k->slots[at].ref;
            break;
        }
    }
    if (old == DB__HOT_REF_NONE)
        k->used++;
    k->slots[at] = (struct slot){tag, ref};
    if (journal) {
        DB__RESERVE(k->replaced, k->replaced_count, k->replaced_capacity);
        k->replaced[k->replaced_count++] = (struct replaced){ref, old};
    }
}

static bool published(const struct db__hot_set *set, db__hot_ref ref)
{
    struct db__hot_block *b = db__hot_block_of(set, ref);
    return db__hot_row_of(ref) < atomic_load_explicit(&b->rows, memory_order_relaxed);
}

static void catch_up(struct db__hot_set *set, const struct db_table_def *def,
                     _Atomic uint64_t *total)
{
    struct db__key_hash *k = set->keys;
    if (k->replaced_count && published(set, k->replaced[k->replaced_count - 1].by))
        k->replaced_count = 0; /* of an entry that has ended */
    for (; k->block < set->blocks_count; k->block++, k->row = 0) {
        const struct db__hot_block *b = set->blocks[k->block];
        struct key_places p = key_places(def, b);
        uint32_t known =
            atomic_load_explicit(&((struct db__hot_block *)b)->rows, memory_order_relaxed);
        for (; k->row < b->rows_written; k->row++) {
            if (k->used >= k->capacity / 4 * 3)
                hash_grow(set, k, def, total);
            hash_insert(set, k, def, row_hash(def, b, &p, k->row),
                        db__hot_ref_make(k->block, k->row), k->row >= known);
        }
        if (k->block + 1 == set->blocks_count)
            break; /* being filled */
    }
}

db__hot_ref db__key_find_hot(struct db__hot_set *set, const struct db_table_def *def,
                             const struct db_value *values, uint64_t series_hash,
                             _Atomic uint64_t *bytes_total)
{
    if (!set->keys)
        set->keys = db__must_calloc(1, sizeof *set->keys);
    catch_up(set, def, bytes_total);
    struct db__key_hash *k = set->keys;
    if (!k->capacity)
        return DB__HOT_REF_NONE;
    const struct db_value *time = db__key_has_time(def) ? &values[def->time_column] : NULL;
    uint64_t h = full_hash(def, series_hash, time);
    uint32_t tag = (uint32_t)(h >> 32), at = (uint32_t)h & (k->capacity - 1);
    for (; k->slots[at].ref != DB__HOT_REF_NONE; at = (at + 1) & (k->capacity - 1)) {
        if (k->slots[at].tag != tag || k->slots[at].ref == REF_REMOVED)
            continue;
        const struct db__hot_block *b = db__hot_block_of(set, k->slots[at].ref);
        struct key_places p = key_places(def, b);
        bool equal = true;
        for (uint16_t i = 0; i < def->key_count && equal; i++) {
            struct db_value v =
                db__hot_value(b, (uint32_t)p.at[i], db__hot_row_of(k->slots[at].ref));
            equal = db__value_equal(&v, &values[def->key_columns[i]]);
        }
        if (equal)
            return k->slots[at].ref;
    }
    return DB__HOT_REF_NONE;
}

void db__key_cut_hot(struct db__hot_set *set, const struct db_table_def *def,
                     struct db__hot_place to)
{
    struct db__key_hash *k = set->keys;
    if (!k)
        return;
    db__hot_ref end =
        to.blocks_count ? db__hot_ref_make(to.blocks_count - 1, 0) + to.rows_written : 0;
    while (k->replaced_count && k->replaced[k->replaced_count - 1].by >= end &&
           !published(set, k->replaced[k->replaced_count - 1].by)) {
        struct replaced r = k->replaced[--k->replaced_count];
        const struct db__hot_block *b = db__hot_block_of(set, r.by);
        struct key_places p = key_places(def, b);
        uint32_t at = (uint32_t)row_hash(def, b, &p, db__hot_row_of(r.by)) & (k->capacity - 1);
        while (k->slots[at].ref != r.by) {
            CHR_ASSERT(k->slots[at].ref != DB__HOT_REF_NONE);
            at = (at + 1) & (k->capacity - 1);
        }
        k->slots[at].ref = r.old == DB__HOT_REF_NONE ? REF_REMOVED : r.old;
    }
    uint32_t block = to.blocks_count ? to.blocks_count - 1 : 0;
    uint32_t row = to.blocks_count ? to.rows_written : 0;
    if (k->block > block || (k->block == block && k->row > row)) {
        k->block = block;
        k->row = row;
    }
}
