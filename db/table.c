/* db/table.c: the applier's side of tables, and the operations that make and end them. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/internal.h"

static size_t table_place(const struct db *d, uint32_t id)
{
    size_t low = 0, high = d->tables_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (d->tables[mid]->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct db__table *db__table_find(const struct db *d, uint32_t id)
{
    size_t at = table_place(d, id);
    return at < d->tables_count && d->tables[at]->id == id ? d->tables[at] : NULL;
}

struct db__table *db__table_new(const struct db_table_def *def, struct db__chunk_list *chunks)
{
    struct db__table *t = db__must_calloc(1, sizeof *t);
    t->id = def->id;
    t->def = def;
    t->active = db__hot_set_new();
    t->view = db__view_new(t->id, chunks, &t->active, 1);
    db__hot_set_release(t->active); /* the view's now */
    t->sealed_time_max = INT64_MIN;
    for (uint32_t i = 0; chunks && i < chunks->count; i++)
        t->sealed_time_max = CHR_MAX(t->sealed_time_max, chunks->chunks[i]->max_time_us);
    t->time_max = t->sealed_time_max;
    return t;
}

void db__table_free(struct db__table *table)
{
    if (!table)
        return;
    db__view_release(table->view);
    db__key_bounds_free(&table->bounds);
    free(table);
}

void db__table_insert(struct db *d, struct db__table *table)
{
    size_t at = table_place(d, table->id);
    DB__RESERVE(d->tables, d->tables_count, d->tables_capacity);
    memmove(d->tables + at + 1, d->tables + at, (d->tables_count - at) * sizeof *d->tables);
    d->tables[at] = table;
    d->tables_count++;
}

void db__table_remove(struct db *d, struct db__table *table)
{
    size_t at = table_place(d, table->id);
    CHR_ASSERT(at < d->tables_count && d->tables[at] == table);
    d->tables_count--;
    memmove(d->tables + at, d->tables + at + 1, (d->tables_count - at) * sizeof *d->tables);
}

void db__table_set_view(struct db__table *table, struct db__view *view)
{
    db__view_release(table->view);
    table->view = view;
    table->active = view->hot[view->hot_count - 1];
}

void db__hot_forget(struct db *d, const struct db__view *view)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < view->hot_count; i++)
        bytes += atomic_load_explicit(&view->hot[i]->bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&d->hot_bytes, bytes, memory_order_relaxed);
}

/* -- Changes of the catalog ---------------------------------------------------------------------*/

static void take_catalog(struct db *d, db_catalog *next)
{
    if (!next)
        db__out_of_memory();
    db_catalog_release(d->catalog);
    d->catalog = next;
    for (size_t i = 0; i < d->tables_count; i++)
        d->tables[i]->def = db_catalog_find_id(next, d->tables[i]->id);
    d->apply.version_dirty = true;
}

/* item->a: the catalog as it was, whose reference the item holds until the entry ends. */
static void catalog_undo(struct db *d, const struct db__undo *item)
{
    take_catalog(d, item->a);
}

static void catalog_drop(struct db *d, const struct db__undo *item)
{
    (void)d;
    db_catalog_release(item->a);
}

static void catalog_change(struct db *d, db_catalog *next)
{
    struct db__undo *undo = db__undo_push(d, catalog_undo);
    undo->keep = catalog_drop;
    undo->a = d->catalog;
    db_catalog_retain(d->catalog);
    take_catalog(d, next);
}

static void create_undo(struct db *d, const struct db__undo *item)
{
    struct db__table *table = item->a;
    db__hot_forget(d, table->view);
    db__table_remove(d, table);
    d->next_table_id--;
    /* The writer still lists its blocks. */
    struct db__apply *a = &d->apply;
    DB__RESERVE(a->doomed, a->doomed_count, a->doomed_capacity);
    a->doomed[a->doomed_count++] = table;
}

static void drop_undo(struct db *d, const struct db__undo *item)
{
    d->dropped_count--;
    db__table_insert(d, item->a);
}

/* The table is gone for good: nothing of it waits to be sealed. Its chunks stay known until a
 * checkpoint has taken them from the manifest. */
static void drop_keep(struct db *d, const struct db__undo *item)
{
    struct db__table *table = item->a;
    db__hot_forget(d, table->view);
    struct db__hot_set *none = db__hot_set_new();
    db__table_set_view(table, db__view_new(table->id, table->view->chunks, &none, 1));
    db__hot_set_release(none);
}

/* Which changes make batches decoded before them stale (R9): those of topics or columns. */
static uint64_t mapping_after(const struct db *d, bool mapped)
{
    return db_catalog_mapping_version(d->catalog) + (mapped ? 1 : 0);
}

void db__apply_create(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    chr_slice bytes;
    struct db_table_def *def;
    if (op->flags & ~DB_OP_IF_EXISTENCE || op->table_id || op->count != 1 ||
        db__table_decode(op->body, &bytes)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    chr_err err = db_table_def_decode(bytes, &def, NULL);
    if (err == CHR_ENOMEM)
        db__out_of_memory();
    if (err || def->system || def->created_index) {
        if (!err)
            db_table_def_free(def);
        result->err = CHR_ECORRUPT;
        return;
    }
    const struct db_table_def *there = db_catalog_find(d->catalog, chr_slice_cstr(def->name));
    if (there || db_catalog_tables_count(d->catalog) >= DB_TABLES_MAX) {
        result->err = !there ? CHR_EFULL : op->flags & DB_OP_IF_EXISTENCE ? CHR_OK : CHR_EEXIST;
        result->epoch = there ? there->id : 0;
        db_table_def_free(def);
        return;
    }
    def->id = d->next_table_id;
    def->schema_version = 1;
    def->created_index = d->apply.index;
    uint32_t id = def->id;
    catalog_change(d, db__catalog_with(d->catalog, def, db_catalog_version(d->catalog) + 1,
                                       mapping_after(d, def->topics_count > 0)));
    struct db__table *table = db__table_new(db_catalog_find_id(d->catalog, id), NULL);
    db__table_insert(d, table);
    d->next_table_id++;
    db__undo_push(d, create_undo)->a = table;
    result->epoch = id;
}

void db__apply_drop(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__table *table = db__table_find(d, op->table_id);
    if (op->flags || op->body.len) {
        result->err = CHR_ECORRUPT;
    } else if (!table) {
        result->err = CHR_ENOTFOUND;
    } else if (table->def->system) {
        result->err = CHR_EACCES;
    } else {
        bool mapped = table->def->topics_count > 0;
        result->epoch = table->id;
        db__table_remove(d, table);
        DB__RESERVE(d->dropped, d->dropped_count, d->dropped_capacity);
        d->dropped[d->dropped_count++] = table;
        struct db__undo *undo = db__undo_push(d, drop_undo);
        undo->keep = drop_keep;
        undo->a = table;
        catalog_change(d, db__catalog_without(d->catalog, table->id,
                                              db_catalog_version(d->catalog) + 1,
                                              mapping_after(d, mapped)));
    }
}

static bool same_column(const struct db_table_def *a, int at_a, const struct db_table_def *b,
                        int at_b)
{
    if (at_a < 0 || at_b < 0)
        return at_a == at_b;
    return a->columns[at_a].id == b->columns[at_b].id;
}

/* Keys, series and time are what chunks are sorted and looked up by; types are how they are stored:
 * retyping rewrites them and is not an operation of one entry. */
static bool alter_allowed(const struct db_table_def *from, const struct db_table_def *to)
{
    if (from->key_count != to->key_count || from->series_count != to->series_count ||
        !same_column(from, from->time_column, to, to->time_column))
        return false;
    for (uint16_t i = 0; i < from->key_count; i++)
        if (!same_column(from, from->key_columns[i], to, to->key_columns[i]))
            return false;
    for (uint16_t i = 0; i < from->series_count; i++)
        if (!same_column(from, from->series_columns[i], to, to->series_columns[i]))
            return false;
    for (uint16_t i = 0; i < to->columns_count; i++) {
        int at = db_table_column_by_id(from, to->columns[i].id);
        if (at < 0 && to->columns[i].id < from->next_column_id)
            return false; /* an id that was used before */
        if (at < 0 && to->columns[i].not_null)
            return false; /* rows that are there would be NULL */
        if (at >= 0 && (from->columns[at].type != to->columns[i].type ||
                        (to->columns[i].not_null && !from->columns[at].not_null)))
            return false;
    }
    return to->next_column_id >= from->next_column_id;
}

/* def's grants become a copy of from's, with room for so many more. */
static void take_grants(struct db_table_def *def, const struct db_table_def *from, uint32_t more)
{
    struct db_grant *grants =
        db__must_realloc(NULL, (from->grants_count + more + 1) * sizeof *grants);
    if (from->grants_count)
        memcpy(grants, from->grants, from->grants_count * sizeof *grants);
    free(def->grants);
    def->grants = grants;
    def->grants_count = from->grants_count;
}

void db__apply_grant(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db_grant change;
    bool revoke;
    if (op->flags || op->count != 1 || db__grant_decode(op->body, &change, &revoke)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    struct db__table *table = db__table_find(d, op->table_id);
    if (!table) {
        result->err = CHR_ENOTFOUND;
        return;
    }
    struct db_table_def *def = db__table_def_copy(table->def);
    if (!def)
        db__out_of_memory();
    take_grants(def, table->def, 1);
    if (!db_grants_change(def->grants, &def->grants_count, &change, revoke)) {
        db_table_def_free(def);
        result->err = CHR_EFULL;
        return;
    }
    result->epoch = def->id;
    catalog_change(d, db__catalog_with(d->catalog, def, db_catalog_version(d->catalog) + 1,
                                       mapping_after(d, false)));
}

void db__apply_alter(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    chr_slice bytes;
    struct db_table_def *def;
    if (op->flags || op->count != 1 || db__table_decode(op->body, &bytes)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    chr_err err = db_table_def_decode(bytes, &def, NULL);
    if (err == CHR_ENOMEM)
        db__out_of_memory();
    if (err || def->id != op->table_id) {
        if (!err)
            db_table_def_free(def);
        result->err = CHR_ECORRUPT;
        return;
    }
    struct db__table *table = db__table_find(d, op->table_id);
    const struct db_table_def *other = db_catalog_find(d->catalog, chr_slice_cstr(def->name));
    if (!table)
        result->err = CHR_ENOTFOUND;
    else if (table->def->system || def->system)
        result->err = CHR_EACCES;
    else if (def->schema_version != table->def->schema_version + 1)
        result->err = CHR_ECONFLICT;
    else if (other && other->id != def->id)
        result->err = CHR_EEXIST;
    else if (!alter_allowed(table->def, def))
        result->err = CHR_EUNSUPPORTED;
    if (result->err) {
        db_table_def_free(def);
        return;
    }
    def->created_index = table->def->created_index;
    take_grants(def, table->def, 0);
    def->ttl_floored = table->def->ttl_floored || table->def->ttl_us;
    def->ttl_floor_us = db__expiry_limit(table->def, d->apply.now_us);
    result->epoch = def->id;
    catalog_change(d, db__catalog_with(d->catalog, def, db_catalog_version(d->catalog) + 1,
                                       mapping_after(d, true)));
}
