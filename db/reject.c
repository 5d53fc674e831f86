/* db/reject.c: rings of rejected messages. */
#include "db/reject.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/internal.h"

struct item {
    struct db_row_id id;
    uint32_t bytes; /* 0: deleted meanwhile */
};

struct db__ring {
    chr_slice table; /* owned name */
    uint64_t bytes;
    struct item *items; /* [first, count), rising by id */
    size_t first, count, capacity;
};

static void ring_free(struct db__ring *r)
{
    free((void *)r->table.ptr);
    free(r->items);
    free(r);
}

void db__rejects_free(struct db__rejects *rejects)
{
    for (size_t i = 0; i < rejects->count; i++)
        ring_free(rejects->rings[i]);
    free(rejects->rings);
    memset(rejects, 0, sizeof *rejects);
}

uint64_t db__reject_bytes(size_t topic, size_t payload, size_t reason)
{
    return (uint64_t)topic + payload + reason + DB__REJECT_OVERHEAD;
}

static struct db__ring *ring_of(struct db__rejects *rejects, chr_slice table)
{
    for (size_t i = 0; i < rejects->count; i++)
        if (chr_slice_eq(rejects->rings[i]->table, table))
            return rejects->rings[i];
    struct db__ring *r = db__must_calloc(1, sizeof *r);
    uint8_t *name = db__must_malloc(table.len);
    if (table.len)
        memcpy(name, table.ptr, table.len);
    r->table = chr_slice_of(name, table.len);
    DB__RESERVE(rejects->rings, rejects->count, rejects->capacity);
    rejects->rings[rejects->count++] = r;
    return r;
}

static void ring_push(struct db__ring *r, struct db_row_id id, uint64_t bytes)
{
    if (r->count == r->capacity && r->first > r->capacity / 2) {
        memmove(r->items, r->items + r->first, (r->count - r->first) * sizeof *r->items);
        r->count -= r->first;
        r->first = 0;
    }
    DB__RESERVE(r->items, r->count, r->capacity);
    r->items[r->count++] = (struct item){.id = id, .bytes = (uint32_t)bytes};
    r->bytes += bytes;
}

void db__reject_load(struct db__rejects *rejects, chr_slice table, struct db_row_id id,
                     uint64_t bytes)
{
    ring_push(ring_of(rejects, table), id, bytes);
}

static int item_cmp(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->id.entry != y->id.entry)
        return x->id.entry < y->id.entry ? -1 : 1;
    return (x->id.ordinal > y->id.ordinal) - (x->id.ordinal < y->id.ordinal);
}

void db__rejects_loaded(struct db__rejects *rejects)
{
    for (size_t i = 0; i < rejects->count; i++)
        qsort(rejects->rings[i]->items, rejects->rings[i]->count, sizeof(struct item), item_cmp);
}

static void delete_undo(struct db *d, const struct db__undo *undo)
{
    struct db__ring *r = undo->a;
    (void)d;
    r->items[undo->x >> 32].bytes = (uint32_t)undo->x;
    r->bytes += (uint32_t)undo->x;
}

void db__reject_deleted(struct db *d, struct db_row_id id)
{
    struct item key = {.id = id};
    for (size_t i = 0; i < d->rejects.count; i++) {
        struct db__ring *r = d->rejects.rings[i];
        if (r->first == r->count)
            continue;
        struct item *found =
            bsearch(&key, r->items + r->first, r->count - r->first, sizeof key, item_cmp);
        if (!found || !found->bytes)
            continue;
        struct db__undo *undo = db__undo_push(d, delete_undo);
        undo->a = r;
        undo->x = (uint64_t)(found - r->items) << 32 | found->bytes;
        r->bytes -= found->bytes;
        found->bytes = 0;
        return;
    }
}

/* Rejects are never part of an atomic entry, so what goes here stays gone. */
static void make_room(struct db *d, struct db__table *table, struct db__ring *r, uint64_t bytes)
{
    while (r->first < r->count && r->bytes + bytes > DB__REJECT_RING_BYTES_MAX) {
        struct item *oldest = &r->items[r->first++];
        struct db__place place;
        if (!oldest->bytes)
            continue;
        r->bytes -= oldest->bytes;
        db__locate_all(d, table, &oldest->id, 1, &place);
        if (db__place_alive(&place))
            db__mark(d, table, &place);
    }
}

void db__apply_reject(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__apply *a = &d->apply;
    struct db__table *table = db__table_find(d, DB__TABLE_ID_REJECTS);
    struct db_reject reject;
    CHR_ASSERT(table);
    if (op->flags & ~DB_OP_GUARDED || db__reject_decode(op, &reject) ||
        (reject.guard != UINT32_MAX && (!a->has_guards || reject.guard >= a->guards_count))) {
        result->err = CHR_ECORRUPT;
        return;
    }
    uint32_t ordinal = a->ordinal++;
    if (reject.guard != UINT32_MAX &&
        (db_bit_get(a->duplicates, reject.guard) || db_bit_get(a->gone, reject.guard))) {
        a->rows_duplicate++;
        return;
    }
    const struct db_table_def *refused = db_catalog_find_id(d->catalog, reject.table_id);
    char unknown[16];
    int unknown_len = snprintf(unknown, sizeof unknown, "#%u", reject.table_id);
    chr_slice name =
        refused ? chr_slice_cstr(refused->name) : chr_slice_of(unknown, (size_t)unknown_len);
    uint64_t bytes = db__reject_bytes(reject.topic.len, reject.payload.len, reject.reason.len);
    struct db__ring *ring = ring_of(&d->rejects, name);
    make_room(d, table, ring, bytes);
    struct db_value values[DB__REJECT_COLUMNS + 1] = {
        [DB__REJECT_TABLE] = {.type = DB_STRING, .bytes = name},
        [DB__REJECT_TOPIC] = {.type = DB_STRING, .bytes = reject.topic},
        [DB__REJECT_PAYLOAD] = {.type = DB_BLOB, .bytes = reject.payload},
        [DB__REJECT_REASON] = {.type = DB_STRING, .bytes = reject.reason},
        [DB__REJECT_RECEIVED_AT] = {.type = DB_TIMESTAMP, .i64 = reject.received_at_us},
        [DB__REJECT_COLUMNS] = {.type = DB_TIMESTAMP, .i64 = reject.received_at_us},
    };
    db__apply_append(d, table, values, ordinal);
    ring_push(ring, (struct db_row_id){a->index, ordinal}, bytes);
    DB__COUNT(d, rejects, 1);
    result->rows = 1;
}
