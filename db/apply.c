/* db/apply.c: one committed entry becomes the next state.
 *
 * Every effect that can be taken back leaves an undo item. An operation that fails is undone by
 * itself, an atomic entry as a whole; only then is anything published, so no read ever sees half of
 * either. What an operation needs is checked before its first effect; memory is taken or the
 * process stops (db/memory.h).
 *
 * Order within an entry: time moves to the entry's HLC, sessions and keys that are due end (R13),
 * then operations in order. Nothing here asks a clock or a hash order: D1. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/chunk_find.h"
#include "db/internal.h"

#define ARENA_BLOCK_BYTES (64u << 10)

struct db__undo *db__undo_push(struct db *d, void (*run)(struct db *, const struct db__undo *))
{
    struct db__apply *a = &d->apply;
    DB__RESERVE(a->undo, a->undo_count, a->undo_capacity);
    struct db__undo *item = &a->undo[a->undo_count++];
    *item = (struct db__undo){.run = run};
    return item;
}

void db__undo_to(struct db *d, size_t count)
{
    struct db__apply *a = &d->apply;
    while (a->undo_count > count) {
        struct db__undo item = a->undo[--a->undo_count];
        item.run(d, &item);
    }
}

static void undo_forget(struct db *d)
{
    struct db__apply *a = &d->apply;
    while (a->undo_count) {
        struct db__undo item = a->undo[--a->undo_count];
        if (item.keep)
            item.keep(d, &item);
    }
}

static void apply_op(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    switch (op->type) {
    case DB_OP_ROWS:
        db__apply_rows(d, op, result);
        return;
    case DB_OP_DELETE:
        db__apply_delete(d, op, result);
        return;
    case DB_OP_UPDATE:
        db__apply_update(d, op, result);
        return;
    case DB_OP_CREATE_TABLE:
        db__apply_create(d, op, result);
        return;
    case DB_OP_DROP_TABLE:
        db__apply_drop(d, op, result);
        return;
    case DB_OP_ALTER_TABLE:
        db__apply_alter(d, op, result);
        return;
    case DB_OP_GRANT:
        db__apply_grant(d, op, result);
        return;
    case DB_OP_GUARDS:
        db__apply_guards(d, op, result);
        return;
    case DB_OP_REQUEST_KEY:
        db__apply_request_key(d, op, result);
        return;
    /* These cannot be undone and therefore stand alone. */
    case DB_OP_SESSION_OPEN:
    case DB_OP_SESSION_CLOSE:
    case DB_OP_RELEASE:
    case DB_OP_REJECT:
    case DB_OP_SUBSCRIBE:
    case DB_OP_UNSUBSCRIBE:
    case DB_OP_MESSAGE:
    case DB_OP_QUEUE_ACK:
    case DB_OP_NODE_DOWN:
        if (d->apply.atomic)
            break;
        if (op->type == DB_OP_MESSAGE)
            db__apply_message(d, op, result);
        else if (op->type == DB_OP_QUEUE_ACK)
            db__apply_queue_ack(d, op, result);
        else if (op->type == DB_OP_SUBSCRIBE)
            db__apply_subscribe(d, op, result);
        else if (op->type == DB_OP_UNSUBSCRIBE)
            db__apply_unsubscribe(d, op, result);
        else if (op->type == DB_OP_SESSION_OPEN)
            db__apply_session_open(d, op, result);
        else if (op->type == DB_OP_SESSION_CLOSE)
            db__apply_session_close(d, op, result);
        else if (op->type == DB_OP_NODE_DOWN)
            db__apply_node_down(d, op, result);
        else if (op->type == DB_OP_RELEASE)
            db__apply_release(d, op, result);
        else
            db__apply_reject(d, op, result);
        return;
    }
    result->err = CHR_ECORRUPT;
}

/* Is one of the guards of this atomic entry a duplicate, or its connection history? */
static bool guards_refuse(const struct db__apply *a)
{
    for (size_t i = 0; a->has_guards && i < DB_BIT_WORDS(a->guards_count); i++)
        if (a->duplicates[i] | a->gone[i])
            return true;
    return false;
}

/* Results of an atomic entry whose operation `failed` did not succeed (SIZE_MAX: none failed by
 * itself). */
static void cancel_all(struct db__apply *a, uint32_t ops_count, size_t failed)
{
    a->rows_applied = a->rows_deleted = a->rows_duplicate = 0;
    for (size_t i = 0; i < ops_count; i++) {
        struct db_op_result *r = &a->results[i];
        if (i != failed)
            *r = (struct db_op_result){.err = CHR_ECANCELLED};
        r->rows = 0;
    }
}

static chr_err apply_entry(struct db *d, chr_slice bytes, struct db_apply_result *result)
{
    struct db__apply *a = &d->apply;
    struct db__entry_view entry;
    if (db__entry_decode(bytes, &entry))
        return CHR_ECORRUPT;
    if (entry.mapping_version && entry.mapping_version != db_catalog_mapping_version(d->catalog)) {
        DB__COUNT(d, entries_stale, 1);
        return CHR_ESTALE; /* R9 */
    }
    if (entry.ops_count > a->results_capacity) {
        a->results = db__must_realloc(a->results, entry.ops_count * sizeof *a->results);
        a->results_capacity = entry.ops_count;
    }
    if (entry.ops_count)
        memset(a->results, 0, entry.ops_count * sizeof *a->results);
    a->atomic = entry.flags & DB_ENTRY_ATOMIC;
    result->ops = a->results;
    result->ops_count = entry.ops_count;
    struct db__op op;
    chr_slice rest = entry.ops;
    for (uint32_t i = 0; db__op_next(&rest, &op); i++) {
        size_t savepoint = a->undo_count;
        uint32_t ordinal = a->ordinal;
        apply_op(d, &op, &a->results[i]);
        /* Ordinals count the rows that were sent, whatever became of them. */
        bool has_rows = op.type == DB_OP_ROWS || op.type == DB_OP_UPDATE;
        a->ordinal = ordinal + (has_rows ? op.count : op.type == DB_OP_REJECT);
        if (a->atomic && op.type == DB_OP_REQUEST_KEY && a->results[i].err == CHR_EEXIST) {
            db__undo_to(d, 0);
            cancel_all(a, entry.ops_count, SIZE_MAX);
            return CHR_EEXIST; /* R2 */
        }
        if (a->atomic && op.type == DB_OP_GUARDS && guards_refuse(a)) {
            db__undo_to(d, 0);
            cancel_all(a, entry.ops_count, SIZE_MAX);
            break;
        }
        if (!a->results[i].err)
            continue;
        a->results[i].rows = 0;
        a->results[i].epoch = 0;
        db__undo_to(d, a->atomic ? 0 : savepoint);
        if (a->atomic) {
            cancel_all(a, entry.ops_count, i);
            break;
        }
    }
    if (a->has_guards) {
        result->duplicates = a->duplicates;
        result->gone = a->gone;
        result->guards_count = a->guards_count;
    }
    return CHR_OK;
}

void db_apply(db *d, uint64_t index, chr_hlc hlc, chr_slice bytes, struct db_apply_result *result)
{
    db_apply_from(d, index, hlc, NULL, bytes, result);
}

void db_apply_from(db *d, uint64_t index, chr_hlc hlc, const struct db_origin *origin,
                   chr_slice bytes, struct db_apply_result *result)
{
    struct db__apply *a = &d->apply;
    *result = (struct db_apply_result){0};
    pthread_mutex_lock(&d->apply_lock);
    CHR_ASSERT(index == d->pin_index + 1);
    CHR_ASSERT(hlc > d->pin_hlc);
    a->index = index;
    a->hlc = hlc;
    a->now_us = chr_hlc_unix_us(hlc);
    a->ordinal = 0;
    a->atomic = a->has_guards = a->version_dirty = false;
    a->guards_count = 0;
    a->rows_applied = a->rows_deleted = a->rows_duplicate = 0;
    a->writer.entry = index;
    a->writer.hlc = hlc;
    chr_arena_reset(&a->arena);
    chr_arena_reset(&a->details);
    db__durable_entry_begin(d);
    db__durable_expire(d);
    db__sessions_expire(d, a->now_us);
    db__request_keys_expire(&d->requests, a->now_us);
    if (origin)
        result->origin = db__origin_check(&d->origins, origin, index);
    if (bytes.len && result->origin == DB_ORIGIN_NEW)
        result->err = apply_entry(d, bytes, result);
    undo_forget(d);
    db__finder_end(d);
    db__hot_publish(&a->writer);
    for (size_t i = 0; i < a->marks_count; i++)
        db__marks_publish(a->marks[i]);
    a->marks_count = 0;
    db__durable_entry_end(d, result);
    db__publish(d, index, hlc, a->version_dirty ? db__version_new(d) : NULL);
    DB__COUNT(d, rows_applied, a->rows_applied);
    DB__COUNT(d, rows_deleted, a->rows_deleted);
    DB__COUNT(d, rows_duplicate, a->rows_duplicate);
    while (a->doomed_count)
        db__table_free(a->doomed[--a->doomed_count]);
    atomic_store_explicit(&d->counts.sessions, d->sessions.count, memory_order_relaxed);
    atomic_store_explicit(&d->counts.guards, d->sessions.guards_count, memory_order_relaxed);
    db__due_update(d);
    pthread_mutex_unlock(&d->apply_lock);
}

chr_err db__apply_init(struct db *d)
{
    struct db__apply *a = &d->apply;
    chr_arena_init(&a->arena, ARENA_BLOCK_BYTES, 0);
    chr_arena_init(&a->details, 1024, 0);
    a->writer.bytes_total = &d->hot_bytes;
    a->finder = db__finder_new();
    return a->finder ? CHR_OK : CHR_ENOMEM;
}

void db__apply_free(struct db *d)
{
    struct db__apply *a = &d->apply;
    chr_arena_free(&a->arena);
    chr_arena_free(&a->details);
    free(a->undo);
    free(a->writer.dirty);
    free(a->marks);
    free(a->duplicates);
    free(a->gone);
    free(a->results);
    free(a->doomed);
    db__finder_free(a->finder);
}
