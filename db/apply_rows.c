/* db/apply_rows.c: rows come, go and change.
 *
 * Rows of a table without a key, or with keys that are new, are appended in whole ranges: memcpy
 * per column. A row whose key is there ends the range before it and is dealt with alone. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/num.h"
#include "base/timestamp.h"
#include "db/chunk_find.h"
#include "db/internal.h"

#define PREFETCH_ROWS 12 /* ahead: a miss takes about as long as so many rows */

/* -- An operation against its table -------------------------------------------------------------*/

struct target {
    struct db__table *table;
    struct db__rows rows;
    int16_t map[DB_COLUMNS_MAX + 1]; /* table column → column of the operation; -1: not there */
};

static bool all_valid(const struct db__rows_col *c, uint32_t rows)
{
    if (c->form == DB__ROWS_NULL)
        return false;
    if (!c->validity)
        return true;
    for (uint32_t i = 0; i < rows / 64; i++)
        if (chr_get_u64le(c->validity + (size_t)i * 8) != ~UINT64_C(0))
            return false;
    return !(rows & 63) ||
           chr_get_u64le(c->validity + (size_t)(rows / 64) * 8) == (UINT64_C(1) << (rows & 63)) - 1;
}

/* Decodes rows and matches their columns to the table's. `table` may not be written by foreign
 * hands when it is the system's. */
static chr_err target_open(struct db *d, const struct db__op *op, chr_slice body, bool guarded,
                           struct target *t)
{
    if (db__rows_decode(body, op->count, guarded, &d->apply.arena, &t->rows))
        return CHR_ECORRUPT;
    t->table = db__table_find(d, op->table_id);
    if (!t->table)
        return CHR_ENOTFOUND;
    const struct db_table_def *def = t->table->def;
    if (def->system)
        return CHR_EACCES;
    if (t->rows.schema_version != def->schema_version)
        return CHR_ECONFLICT; /* built for columns that have changed since */
    uint16_t matched = 0, at = 0;
    for (uint16_t i = 0; i <= def->columns_count; i++) {
        uint16_t id = i < def->columns_count ? def->columns[i].id : DB_COLUMN_RECEIVED_AT;
        enum db_type type = i < def->columns_count ? def->columns[i].type : DB_TIMESTAMP;
        t->map[i] = -1;
        for (uint16_t n = 0; n < t->rows.columns_count && t->map[i] < 0; n++) {
            /* Ids rise in the operation and nearly always in the table: begin where we were. */
            if (at >= t->rows.columns_count)
                at = 0;
            if (t->rows.columns[at].id == id)
                t->map[i] = (int16_t)at;
            at++;
        }
        const struct db__rows_col *c = t->map[i] < 0 ? NULL : &t->rows.columns[t->map[i]];
        if (c && c->type != type)
            return CHR_ECORRUPT;
        matched = (uint16_t)(matched + (c != NULL));
        bool required = i == def->columns_count || def->columns[i].not_null;
        if (required && (!c || !all_valid(c, t->rows.rows)))
            return i == def->columns_count ? CHR_ECORRUPT : CHR_ENOTNULL;
    }
    return matched == t->rows.columns_count ? CHR_OK : CHR_ECORRUPT;
}

static void append_undo(struct db *d, const struct db__undo *item)
{
    struct db__table *table = item->a;
    (void)d;
    db__key_cut_hot(table->active, table->def, item->place);
    db__hot_cut(table->active, item->place);
}

/* Before the first rows an operation appends to a table. */
static void append_begin(struct db *d, struct db__table *table)
{
    struct db__undo *undo = db__undo_push(d, append_undo);
    undo->a = table;
    undo->place = db__hot_place(table->active);
}

static int64_t value_time(const struct db_table_def *def, const struct db_value *values)
{
    const struct db_value *v = &values[db__time_column(def)];
    return v->null ? INT64_MAX : v->i64;
}

/* The latest time among the rows of an operation, for tables with a TTL. */
static int64_t latest_time(const struct target *t)
{
    int16_t at = t->map[db__time_column(t->table->def)];
    int64_t latest = INT64_MIN;
    const struct db__rows_col *c = at < 0 ? NULL : &t->rows.columns[at];
    for (uint32_t r = 0; c && r < t->rows.rows; r++)
        if (db__rows_valid(c, r))
            latest = CHR_MAX(latest, db__rows_value(c, r).i64);
    return latest;
}

/* -- Which rows of an operation count (R5) ------------------------------------------------------*/

static chr_err guards_check(const struct db *d, const struct db__rows *rows)
{
    const struct db__apply *a = &d->apply;
    for (uint32_t r = 0; rows->guards && r < rows->rows; r++) {
        uint32_t g = chr_get_u32le(rows->guards + (size_t)r * 4);
        if (g != UINT32_MAX && (!a->has_guards || g >= a->guards_count))
            return CHR_ECORRUPT;
    }
    return CHR_OK;
}

static bool row_counts(const struct db__apply *a, const struct db__rows *rows, uint32_t row)
{
    if (!rows->guards)
        return true;
    uint32_t g = chr_get_u32le(rows->guards + (size_t)row * 4);
    return g == UINT32_MAX || !(db_bit_get(a->duplicates, g) || db_bit_get(a->gone, g));
}

/* -- Rows with a key ----------------------------------------------------------------------------*/

/* Values of one row of an operation, in table order; only the key's when key_only. */
static void row_values(const struct target *t, uint32_t row, bool key_only, struct db_value *out)
{
    const struct db_table_def *def = t->table->def;
    for (uint16_t k = 0; key_only && k < def->key_count; k++) {
        uint16_t i = def->key_columns[k];
        out[i] = db__rows_value(&t->rows.columns[t->map[i]], row);
    }
    for (uint16_t i = 0; !key_only && i <= def->columns_count; i++) {
        enum db_type type = i < def->columns_count ? def->columns[i].type : DB_TIMESTAMP;
        out[i] = t->map[i] < 0 ? (struct db_value){.type = type, .null = true}
                               : db__rows_value(&t->rows.columns[t->map[i]], row);
    }
}

static void add_value(struct chr_buf *out, const struct db_value *v)
{
    char text[CHR_NUM_TEXT_MAX + CHR_TIMESTAMP_TEXT_MAX];
    switch (v->type) {
    case DB_INT:
        chr_buf_add(out, text, chr_format_i64(v->i64, text));
        break;
    case DB_FLOAT:
        chr_buf_add(out, text, chr_format_f64(v->f64, text));
        break;
    case DB_BOOLEAN:
        chr_buf_add_cstr(out, v->boolean ? "true" : "false");
        break;
    case DB_TIMESTAMP:
        chr_buf_add(out, text, chr_timestamp_format(v->i64, text));
        break;
    case DB_STRING:
        chr_buf_add_slice(out, v->bytes);
        break;
    case DB_BLOB:
        chr_buf_add_cstr(out, "\\x");
        for (size_t i = 0; i < v->bytes.len; i++)
            chr_buf_addf(out, "%02x", v->bytes.ptr[i]);
        break;
    }
}

/* "(device_id, ts)=(a, 2024-12-10T19:13:20Z)", as PostgreSQL says it, cut at 512 bytes. */
static chr_slice duplicate_detail(struct db *d, const struct db_table_def *def,
                                  const struct db_value *values)
{
    struct chr_buf text;
    chr_buf_init(&text, 512);
    chr_buf_add_cstr(&text, "(");
    for (uint16_t k = 0; k < def->key_count; k++)
        chr_buf_addf(&text, "%s%s", k ? ", " : "", def->columns[def->key_columns[k]].name);
    chr_buf_add_cstr(&text, ")=(");
    for (uint16_t k = 0; k < def->key_count; k++) {
        chr_buf_add_cstr(&text, k ? ", " : "");
        add_value(&text, &values[def->key_columns[k]]);
    }
    chr_buf_add_cstr(&text, ")");
    chr_slice detail = chr_arena_dup(&d->apply.details, chr_buf_slice(&text));
    chr_buf_free(&text);
    return detail;
}

/* The row that is there takes over the columns that the row names, as a new version. */
static void merge_row(struct db *d, const struct target *t, uint32_t row, uint32_t ordinal,
                      const struct db__place *place)
{
    const struct db_table_def *def = t->table->def;
    struct db_value *values =
        CHR_ARENA_ARRAY(&d->apply.arena, struct db_value, def->columns_count + 1);
    if (!values)
        db__out_of_memory();
    db__place_values(d, t->table, place, values);
    for (uint16_t i = 0; i <= def->columns_count; i++) {
        const struct db__rows_col *c = t->map[i] < 0 ? NULL : &t->rows.columns[t->map[i]];
        if (c && db__rows_names(c, row))
            values[i] = db__rows_value(c, row);
    }
    db__mark(d, t->table, place);
    db__hot_append_values(t->table->active, def, &d->apply.writer, values, ordinal);
    if (def->ttl_us)
        db__due_rows(d, t->table, value_time(def, values));
}

/* Do the bounds say that no row has this key? Else somebody has to look. */
static bool is_new(struct db *d, const struct target *t, uint32_t row, uint64_t hash,
                   const struct db__rows_col *time, struct db_value *key)
{
    struct db__table *table = t->table;
    int64_t time_us = db__rows_value(time, row).i64;
    switch (db__key_bounds_pass(&table->bounds, hash, time_us, table->sealed_time_max)) {
    case DB__KEY_NEW:
        return true;
    case DB__KEY_LOOK:
        return false;
    case DB__KEY_STRANGE:
        break;
    }
    row_values(t, row, true, key);
    int64_t latest_us = db__chunk_series_latest(d, table, key, time_us);
    db__key_bounds_set(&table->bounds, hash, CHR_MAX(latest_us, time_us));
    return time_us > latest_us;
}

static chr_err append_keyed(struct db *d, const struct target *t, struct db_op_result *result)
{
    struct db__apply *a = &d->apply;
    struct db__table *table = t->table;
    const struct db_table_def *def = table->def;
    uint32_t rows = t->rows.rows, begin = 0; /* [begin, r): rows to append as they are */
    bool has_time = db__key_has_time(def);
    uint64_t *hashes = chr_arena_alloc(&a->arena, rows * sizeof *hashes);
    struct db_value *key = CHR_ARENA_ARRAY(&a->arena, struct db_value, def->columns_count + 1);
    if (!hashes || !key)
        db__out_of_memory();
    db__key_hash_rows(def, &t->rows, t->map, hashes);
    const struct db__rows_col *time = has_time ? &t->rows.columns[t->map[def->time_column]] : NULL;
    for (uint32_t r = 0; r < rows; r++) {
        bool counts = row_counts(a, &t->rows, r);
        if (has_time && r + PREFETCH_ROWS < rows)
            db__key_bounds_prefetch(&table->bounds, hashes[r + PREFETCH_ROWS]);
        if (counts && has_time && is_new(d, t, r, hashes[r], time, key)) {
            result->rows++;
            continue;
        }
        /* The rows before have to be where they can be found. */
        if (begin < r)
            db__hot_append_rows(table->active, def, &a->writer, &t->rows, t->map, begin, r - begin,
                                a->ordinal + begin);
        begin = r;
        struct db__place place;
        if (!counts) {
            begin = r + 1;
            a->rows_duplicate++;
            continue;
        }
        row_values(t, r, true, key);
        if (!db__locate_key(d, table, key, hashes[r], &place)) {
            result->rows++;
            continue;
        }
        if (t->rows.mode == DB_ROWS_INSERT) {
            result->detail = duplicate_detail(d, def, key);
            return CHR_EDUPKEY; /* R4 */
        }
        begin = r + 1;
        if (t->rows.mode == DB_ROWS_IGNORE)
            continue;
        merge_row(d, t, r, a->ordinal + r, &place);
        result->rows++;
    }
    if (begin < rows)
        db__hot_append_rows(table->active, def, &a->writer, &t->rows, t->map, begin, rows - begin,
                            a->ordinal + begin);
    return CHR_OK;
}

static void append_plain(struct db *d, const struct target *t, struct db_op_result *result)
{
    struct db__apply *a = &d->apply;
    uint32_t rows = t->rows.rows;
    for (uint32_t begin = 0, end; begin < rows; begin = end) {
        while (begin < rows && !row_counts(a, &t->rows, begin)) {
            a->rows_duplicate++;
            begin++;
        }
        for (end = t->rows.guards ? begin : rows; end < rows && row_counts(a, &t->rows, end);)
            end++;
        if (begin < end)
            db__hot_append_rows(t->table->active, t->table->def, &a->writer, &t->rows, t->map,
                                begin, end - begin, a->ordinal + begin);
        result->rows += end - begin;
    }
}

/* -- The operations -----------------------------------------------------------------------------*/

static chr_err append_target(struct db *d, const struct target *t, struct db_op_result *result)
{
    append_begin(d, t->table);
    if (t->table->def->ttl_us)
        db__due_rows(d, t->table, latest_time(t));
    if (t->table->def->key_count)
        return append_keyed(d, t, result);
    append_plain(d, t, result);
    return CHR_OK;
}

void db__apply_rows(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct target t;
    bool guarded = op->flags & DB_OP_GUARDED;
    if (op->flags & ~DB_OP_GUARDED) {
        result->err = CHR_ECORRUPT;
        return;
    }
    result->err = target_open(d, op, op->body, guarded, &t);
    if (!result->err)
        result->err = guards_check(d, &t.rows);
    if (!result->err)
        result->err = append_target(d, &t, result);
    if (!result->err)
        d->apply.rows_applied += result->rows;
}

/* Marks the rows of these ids; all are there or none is marked for good: a missing one undoes the
 * operation. */
static chr_err delete_ids(struct db *d, struct db__table *table, const struct db_row_id *ids,
                          uint32_t count)
{
    struct db__place *places = CHR_ARENA_ARRAY(&d->apply.arena, struct db__place, count);
    if (!places)
        db__out_of_memory();
    db__locate_all(d, table, ids, count, places);
    for (uint32_t i = 0; i < count; i++) {
        if (!db__place_alive(&places[i]))
            return CHR_ECONFLICT; /* R4; also an id that is there twice */
        db__mark(d, table, &places[i]);
        if (table->id == DB__TABLE_ID_REJECTS)
            db__reject_deleted(d, ids[i]);
    }
    return CHR_OK;
}

void db__apply_delete(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    chr_slice body = op->body;
    const struct db_row_id *ids;
    struct db__table *table = db__table_find(d, op->table_id);
    if (op->flags || db__row_ids_decode(&body, op->count, &ids, &d->apply.arena) || body.len) {
        result->err = CHR_ECORRUPT;
        return;
    }
    result->err = table ? delete_ids(d, table, ids, op->count) : CHR_ENOTFOUND;
    result->rows = op->count;
    if (!result->err)
        d->apply.rows_deleted += result->rows;
}

void db__apply_update(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct target t;
    chr_slice body = op->body;
    const struct db_row_id *ids;
    if (op->flags || db__row_ids_decode(&body, op->count, &ids, &d->apply.arena)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    result->err = target_open(d, op, body, false, &t);
    if (!result->err && t.rows.mode != DB_ROWS_INSERT)
        result->err = CHR_ECORRUPT;
    /* All old versions go before the first new one comes: keys may be exchanged between rows. */
    if (!result->err)
        result->err = delete_ids(d, t.table, ids, op->count);
    if (!result->err)
        result->err = append_target(d, &t, result);
}

void db__apply_append(struct db *d, struct db__table *table, const struct db_value *values,
                      uint32_t ordinal)
{
    append_begin(d, table);
    db__hot_append_values(table->active, table->def, &d->apply.writer, values, ordinal);
    if (table->def->ttl_us)
        db__due_rows(d, table, value_time(table->def, values));
}
