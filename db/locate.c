/* db/locate.c: where a row is, by id or by key: the active hot set, frozen ones, chunks. */
#include <string.h>

#include "base/assert.h"
#include "db/chunk_find.h"
#include "db/internal.h"

static int64_t hot_time(const struct db_table_def *def, const struct db__hot_block *b, uint32_t row)
{
    uint16_t id = def->time_column < 0 ? DB_COLUMN_RECEIVED_AT : def->columns[def->time_column].id;
    int at = db__hot_column(b, id);
    if (at < 0)
        return INT64_MAX;
    struct db_value v = db__hot_value(b, (uint32_t)at, row);
    return v.null ? INT64_MAX : v.i64;
}

static bool hot_alive(const struct db *d, const struct db_table_def *def,
                      const struct db__hot_block *b, uint32_t row)
{
    return db__hot_deleted(b, row) == 0 &&
           !(db__can_expire(def) && db__expired(def, hot_time(def, b, row), d->apply.now_us));
}

static void hot_place(struct db__hot_set *set, db__hot_ref ref, struct db__place *place)
{
    *place = (struct db__place){
        .set = set, .block = db__hot_block_of(set, ref), .row = db__hot_row_of(ref)};
}

void db__locate_all(struct db *d, struct db__table *table, const struct db_row_id *ids,
                    uint32_t count, struct db__place *places)
{
    const struct db__view *view = table->view;
    struct db__wanted *wanted = NULL;
    uint32_t wanted_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        db__hot_ref ref = DB__HOT_REF_NONE;
        memset(&places[i], 0, sizeof places[i]);
        for (uint32_t s = view->hot_count; s-- > 0 && ref == DB__HOT_REF_NONE;) {
            ref = db__hot_find(view->hot[s], ids[i]);
            if (ref == DB__HOT_REF_NONE)
                continue;
            hot_place(view->hot[s], ref, &places[i]);
            if (!hot_alive(d, table->def, places[i].block, places[i].row))
                memset(&places[i], 0, sizeof places[i]);
        }
        if (ref != DB__HOT_REF_NONE || !view->chunks)
            continue;
        if (!wanted)
            wanted = CHR_ARENA_ARRAY(&d->apply.arena, struct db__wanted, count);
        if (!wanted)
            db__out_of_memory();
        wanted[wanted_count].id = ids[i];
        wanted[wanted_count++].at = i;
    }
    db__chunk_find_ids(d, table, wanted, wanted_count);
    for (uint32_t w = 0; w < wanted_count; w++)
        places[wanted[w].at] = wanted[w].place;
}

bool db__place_alive(const struct db__place *place)
{
    if (place->set)
        return db__hot_deleted(place->block, place->row) == 0;
    return place->chunk && !db__marks_has(&place->chunk->marks, place->row);
}

bool db__locate_key(struct db *d, struct db__table *table, const struct db_value *values,
                    uint64_t series_hash, struct db__place *place)
{
    const struct db__view *view = table->view;
    for (uint32_t i = view->hot_count; i-- > 0;) {
        db__hot_ref ref =
            db__key_find_hot(view->hot[i], table->def, values, series_hash, &d->hot_bytes);
        if (ref == DB__HOT_REF_NONE)
            continue;
        hot_place(view->hot[i], ref, place);
        if (hot_alive(d, table->def, place->block, place->row))
            return true;
        /* The newest version is dead or expired, and older ones are dead: but an older one may
         * have lost its key to it by expiring, so there is none anywhere. */
        return false;
    }
    return db__chunk_find_key(d, table, values, place);
}

void db__place_values(struct db *d, const struct db__table *table, const struct db__place *place,
                      struct db_value *out)
{
    const struct db_table_def *def = table->def;
    if (!place->set) {
        db__chunk_values(d, table, place, out);
        return;
    }
    for (uint16_t i = 0; i <= def->columns_count; i++) {
        uint16_t id = i < def->columns_count ? def->columns[i].id : DB_COLUMN_RECEIVED_AT;
        enum db_type type = i < def->columns_count ? def->columns[i].type : DB_TIMESTAMP;
        int at = db__hot_column(place->block, id);
        out[i] = at < 0 ? (struct db_value){.type = type, .null = true}
                        : db__hot_value(place->block, (uint32_t)at, place->row);
    }
}

static void hot_unmark(struct db *d, const struct db__undo *item)
{
    db__hot_mark(item->a, item->b, (uint32_t)item->x, 0, &d->hot_bytes);
}

static void chunk_unmark(struct db *d, const struct db__undo *item)
{
    (void)d;
    db__marks_undo(item->a);
}

void db__mark(struct db *d, struct db__table *table, const struct db__place *place)
{
    struct db__apply *a = &d->apply;
    (void)table;
    if (place->set) {
        db__hot_mark(place->set, place->block, place->row, a->index, &d->hot_bytes);
        struct db__undo *undo = db__undo_push(d, hot_unmark);
        undo->a = place->set;
        undo->b = place->block;
        undo->x = place->row;
        return;
    }
    struct db__marks *marks = &place->chunk->marks;
    if (!marks->dirty) {
        DB__RESERVE(a->marks, a->marks_count, a->marks_capacity);
        a->marks[a->marks_count++] = marks;
    }
    db__marks_add(marks, place->row, a->index, db__pinned_index(d));
    db__undo_push(d, chunk_unmark)->a = marks;
}
