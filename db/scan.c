/* db/scan.c: a scan of one table: which chunks and blocks there are to read, shared by readers. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/scan_internal.h"

static chr_err column_of(const struct db_table_def *def, uint16_t column, uint16_t *id,
                         enum db_type *type)
{
    if (column < def->columns_count) {
        *id = def->columns[column].id;
        *type = def->columns[column].type;
    } else if (column == def->columns_count) {
        *id = DB_COLUMN_RECEIVED_AT;
        *type = DB_TIMESTAMP;
    } else if (column == def->columns_count + 1) {
        *id = DB_COLUMN_HLC;
        *type = DB_INT;
    } else {
        return CHR_EINVAL;
    }
    return CHR_OK;
}

static chr_err copy_bounds(db_scan *scan, const struct db_bound *bounds, uint32_t count)
{
    size_t heap = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct db_bound *b = &bounds[i];
        if (b->has_low && db_type_is_bytes(b->low.type))
            heap += b->low.bytes.len;
        if (b->has_high && db_type_is_bytes(b->high.type))
            heap += b->high.bytes.len;
    }
    scan->bounds = calloc(count + 1, sizeof *scan->bounds);
    scan->bound_ids = calloc(count + 1, sizeof *scan->bound_ids);
    scan->bound_heap = malloc(heap + 1);
    if (!scan->bounds || !scan->bound_ids || !scan->bound_heap)
        return CHR_ENOMEM;
    uint8_t *p = scan->bound_heap;
    for (uint32_t i = 0; i < count; i++) {
        struct db_bound *b = &scan->bounds[i];
        enum db_type type;
        *b = bounds[i];
        if (column_of(scan->def, b->column, &scan->bound_ids[i], &type))
            return CHR_EINVAL;
        if ((b->has_low && (b->low.null || b->low.type != type)) ||
            (b->has_high && (b->high.null || b->high.type != type)))
            return CHR_EINVAL;
        struct db_value *values[2] = {b->has_low ? &b->low : NULL, b->has_high ? &b->high : NULL};
        for (int k = 0; k < 2; k++) {
            if (!values[k] || !db_type_is_bytes(type) || values[k]->bytes.len == 0)
                continue;
            memcpy(p, values[k]->bytes.ptr, values[k]->bytes.len);
            values[k]->bytes.ptr = p;
            p += values[k]->bytes.len;
        }
    }
    scan->bounds_count = count;
    return CHR_OK;
}

/* Blocks of all hot sets that hold rows of entries up to the read's index (H2). */
static chr_err list_blocks(db_scan *scan)
{
    size_t capacity = 0;
    for (uint32_t s = 0; s < scan->view->hot_count; s++) {
        struct db__hot_block *b =
            atomic_load_explicit(&scan->view->hot[s]->first, memory_order_acquire);
        for (; b; b = atomic_load_explicit(&b->next, memory_order_acquire)) {
            uint32_t rows = db__hot_rows_at(b, scan->read->index);
            if (rows == 0)
                continue;
            if (scan->blocks_count == capacity) {
                capacity = capacity ? capacity * 2 : 16;
                void *blocks = realloc(scan->blocks, capacity * sizeof *scan->blocks);
                if (blocks)
                    scan->blocks = blocks;
                void *block_rows = realloc(scan->block_rows, capacity * sizeof *scan->block_rows);
                if (block_rows)
                    scan->block_rows = block_rows;
                if (!blocks || !block_rows)
                    return CHR_ENOMEM;
            }
            scan->blocks[scan->blocks_count] = b;
            scan->block_rows[scan->blocks_count++] = rows;
        }
    }
    return CHR_OK;
}

chr_err db_scan_open(db_read *read, const struct db_table_def *table, const uint16_t *columns,
                     uint32_t columns_count, const struct db_bound *bounds, uint32_t bounds_count,
                     db_scan **out)
{
    *out = NULL;
    const struct db__view *view = db__version_find(read->version, table->id);
    const struct db_table_def *def = db_catalog_find_id(read->version->catalog, table->id);
    if (!view || !def)
        return CHR_ENOTFOUND;
    db_scan *scan = calloc(1, sizeof *scan);
    if (!scan)
        return CHR_ENOMEM;
    scan->read = read;
    scan->def = def;
    scan->view = view;
    scan->expiry_limit_us = db__expiry_limit(def, db_read_time_us(read));
    scan->time_id =
        def->time_column < 0 ? DB_COLUMN_RECEIVED_AT : def->columns[def->time_column].id;
    chr_err err = CHR_ENOMEM;
    scan->slots = calloc(columns_count + 1, sizeof *scan->slots);
    if (!scan->slots)
        goto fail;
    scan->slots_count = columns_count;
    for (uint32_t i = 0; i < columns_count; i++) {
        scan->slots[i].column = columns[i];
        err = column_of(def, columns[i], &scan->slots[i].id, &scan->slots[i].type);
        if (err)
            goto fail;
    }
    if ((err = copy_bounds(scan, bounds, bounds_count)) || (err = list_blocks(scan)))
        goto fail;
    scan->chunks_count = view->chunks ? view->chunks->count : 0;
    *out = scan;
    return CHR_OK;
fail:
    db_scan_close(scan);
    return err;
}

void db_scan_close(db_scan *scan)
{
    if (!scan)
        return;
    struct db *d = scan->read->d;
    DB__COUNT(d, chunks_pruned, scan->chunks_pruned);
    DB__COUNT(d, chunks_decoded, scan->chunks_decoded);
    DB__COUNT(d, chunks_from_statistics, scan->chunks_from_statistics);
    free(scan->slots);
    free(scan->bounds);
    free(scan->bound_ids);
    free(scan->bound_heap);
    free(scan->blocks);
    free(scan->block_rows);
    free(scan);
}

void db_scan_counts(const db_scan *scan, struct db_scan_counts *out)
{
    db_scan *s = (db_scan *)scan;
    *out = (struct db_scan_counts){
        .chunks_total = s->chunks_count,
        .chunks_pruned = atomic_load_explicit(&s->chunks_pruned, memory_order_relaxed),
        .chunks_decoded = atomic_load_explicit(&s->chunks_decoded, memory_order_relaxed),
        .chunks_from_statistics =
            atomic_load_explicit(&s->chunks_from_statistics, memory_order_relaxed),
        .rows_scanned = atomic_load_explicit(&s->rows_scanned, memory_order_relaxed),
    };
}
