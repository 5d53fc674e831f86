/* db/reader.c: one thread's way through a scan: morsels, batches, columns when asked for. Hot
 * blocks are read where they lie; chunks by reader_chunk.c. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/scan_internal.h"

chr_err db_reader_open(db_scan *scan, db_reader **out)
{
    *out = NULL;
    db_reader *r = calloc(1, sizeof *r);
    if (!r)
        return CHR_ENOMEM;
    r->scan = scan;
    r->slots = calloc(scan->slots_count + 1, sizeof *r->slots);
    r->sel = malloc(DB_VECTOR_ROWS * sizeof *r->sel);
    if (!r->slots || !r->sel) {
        db_reader_close(r);
        return CHR_ENOMEM;
    }
    *out = r;
    return CHR_OK;
}

void db_reader_close(db_reader *reader)
{
    if (!reader)
        return;
    db__reader_chunk_free(reader);
    for (uint32_t i = 0; reader->slots && i < reader->scan->slots_count; i++)
        free(reader->slots[i].buffer);
    free(reader->time.buffer);
    free(reader->slots);
    free(reader->sel);
    free(reader);
}

/* -- Hot blocks ---------------------------------------------------------------------------------*/

static bool slot_buffer(struct db__reader_slot *s)
{
    if (!s->buffer)
        s->buffer = malloc(DB_VECTOR_ROWS * sizeof(chr_slice));
    return s->buffer != NULL;
}

/* Words of validity from the batch's first row on; NULL when no row of it is NULL (H4). */
static uint64_t *hot_validity(const db_reader *r, struct db__hot_column *c, uint64_t *out)
{
    uint32_t null_from = atomic_load_explicit(&c->null_from, memory_order_acquire);
    if (null_from >= r->row + r->batch_rows)
        return NULL;
    CHR_ASSERT_HOT(r->row % 64 == 0);
    for (uint32_t w = 0; w < DB_BIT_WORDS(r->batch_rows); w++)
        out[w] = atomic_load_explicit(&c->validity[r->row / 64 + w], memory_order_relaxed);
    return out;
}

bool db__reader_null(struct db__reader_slot *s, enum db_type type, uint32_t rows)
{
    if (!slot_buffer(s))
        return false;
    s->validity[0] = 0;
    memset(s->buffer, 0, sizeof(chr_slice));
    s->vector = (struct db_vector){.type = type,
                                   .form = DB_VECTOR_CONSTANT,
                                   .count = rows,
                                   .validity = s->validity,
                                   .data = s->buffer};
    return true;
}

static void hot_hlc(const db_reader *r, int64_t *out)
{
    uint32_t runs, i = 0;
    const struct db__hot_run *run = db__hot_runs(r->block, r->row, r->batch_rows, &runs);
    for (uint32_t k = 0; k < runs; k++) {
        uint32_t end = k + 1 == runs ? r->batch_rows : run[k + 1].row - r->row;
        while (i < end)
            out[i++] = (int64_t)run[k].hlc;
    }
}

static chr_err hot_column(db_reader *r, struct db__reader_slot *s, uint16_t id, enum db_type type)
{
    if (s->ready)
        return CHR_OK;
    s->vector = (struct db_vector){.type = type, .form = DB_VECTOR_FLAT, .count = r->batch_rows};
    int at = id == DB_COLUMN_HLC ? -1 : db__hot_column(r->block, id);
    if ((id == DB_COLUMN_HLC || db_type_is_bytes(type)) && !slot_buffer(s))
        return CHR_ENOMEM;
    if (id == DB_COLUMN_HLC) {
        hot_hlc(r, s->buffer);
        s->vector.data = s->buffer;
    } else if (at < 0) {
        if (!db__reader_null(s, type, r->batch_rows))
            return CHR_ENOMEM;
    } else {
        struct db__hot_column *c = &r->block->columns[at];
        s->vector.validity = hot_validity(r, c, s->validity);
        if (type == DB_BOOLEAN) {
            s->vector.b8 = c->b8 + r->row;
        } else if (!db_type_is_bytes(type)) {
            s->vector.i64 = c->i64 + r->row;
        } else {
            chr_slice *out = s->buffer;
            uint32_t begin = r->row ? c->ends[r->row - 1] : 0;
            for (uint32_t i = 0; i < r->batch_rows; i++) {
                uint32_t end = c->ends[r->row + i];
                out[i] = chr_slice_of(c->heap + begin, end - begin);
                begin = end;
            }
            s->vector.str = out;
        }
    }
    s->ready = true;
    return CHR_OK;
}

/* Bits of rows of the batch deleted as of the read's index; false: none. */
static bool hot_dead(const db_reader *r, uint64_t *dead)
{
    _Atomic uint64_t *deleted = atomic_load_explicit(&r->block->deleted, memory_order_acquire);
    uint64_t any = 0;
    if (!deleted)
        return false;
    for (uint32_t w = 0; w < DB_BIT_WORDS(r->batch_rows); w++) {
        uint32_t n = CHR_MIN(r->batch_rows - w * 64, 64);
        dead[w] = 0;
        for (uint32_t i = 0; i < n; i++) {
            uint64_t at = atomic_load_explicit(&deleted[r->row + w * 64 + i], memory_order_relaxed);
            dead[w] |= (uint64_t)(at != 0 && at <= r->scan->read->index) << i;
        }
        any |= dead[w];
    }
    return any != 0;
}

uint32_t db__reader_select(const db_reader *r, const struct db_vector *times, const uint64_t *dead)
{
    uint32_t n = 0;
    int64_t limit = r->scan->expiry_limit_us;
    for (uint32_t i = 0; i < r->batch_rows; i++) {
        bool visible = !dead || !db_bit_get(dead, i);
        if (visible && times && db_vector_valid(times, i))
            visible = times->i64[db_vector_at(times, i)] > limit;
        r->sel[n] = (uint16_t)i;
        n += visible;
    }
    return n;
}

/* Does anything of the batch expire? */
static bool any_expired(const db_reader *r, const struct db_vector *times)
{
    bool any = false;
    for (uint32_t i = 0; i < r->batch_rows; i++)
        any |= times->i64[db_vector_at(times, i)] <= r->scan->expiry_limit_us &&
               db_vector_valid(times, i);
    return any;
}

static chr_err hot_select(db_reader *r, bool *all, uint32_t *count)
{
    uint64_t dead[DB_VECTOR_ROWS / 64];
    bool some_dead = hot_dead(r, dead);
    bool expires = r->scan->expiry_limit_us != INT64_MIN;
    if (expires) {
        r->time.ready = false;
        chr_err err = hot_column(r, &r->time, r->scan->time_id, DB_TIMESTAMP);
        if (err)
            return err;
        expires = any_expired(r, &r->time.vector);
    }
    *all = !some_dead && !expires;
    if (!*all)
        *count = db__reader_select(r, expires ? &r->time.vector : NULL, some_dead ? dead : NULL);
    return CHR_OK;
}

/* Is every row of the block visible? */
static chr_err hot_exact(db_reader *r, bool *exact)
{
    *exact = true;
    for (r->row = 0; r->row < r->rows && *exact; r->row += DB_VECTOR_ROWS) {
        uint32_t count = 0;
        r->batch_rows = CHR_MIN(r->rows - r->row, DB_VECTOR_ROWS);
        chr_err err = hot_select(r, exact, &count);
        if (err)
            return err;
    }
    r->row = r->batch_rows = 0;
    return CHR_OK;
}

/* -- Morsels and batches ------------------------------------------------------------------------*/

int db_reader_next_morsel(db_reader *r, struct db_morsel *m, struct chr_errmsg *msg)
{
    db_scan *scan = r->scan;
    db__reader_chunk_close(r);
    r->open = r->counted = false;
    for (;;) {
        uint32_t at = atomic_fetch_add_explicit(&scan->next, 1, memory_order_relaxed);
        if (at >= scan->chunks_count + scan->blocks_count)
            return 0;
        r->row = r->batch_rows = 0;
        if (at < scan->chunks_count) {
            struct db__chunk *chunk = scan->view->chunks->chunks[at];
            r->block = NULL;
            int opened = db__reader_chunk_open(r, chunk, msg);
            if (opened < 0)
                return opened;
            if (opened == 0) {
                atomic_fetch_add_explicit(&scan->chunks_pruned, 1, memory_order_relaxed);
                continue;
            }
            *m = (struct db_morsel){.rows = r->rows, .exact = r->exact, .chunk = !chunk->tail};
        } else {
            r->block = scan->blocks[at - scan->chunks_count];
            r->rows = scan->block_rows[at - scan->chunks_count];
            chr_err err = hot_exact(r, &r->exact);
            if (err)
                return err;
            *m = (struct db_morsel){.rows = r->rows, .exact = r->exact};
        }
        r->open = true;
        return 1;
    }
}

bool db_reader_stats(db_reader *r, uint32_t slot, struct db_column_stats *stats)
{
    CHR_ASSERT(r->open && slot < r->scan->slots_count);
    return !r->block && r->exact && db__reader_chunk_stats(r, slot, stats);
}

void db_reader_used_stats(db_reader *r)
{
    if (r->open && !r->block)
        atomic_fetch_add_explicit(&r->scan->chunks_from_statistics, 1, memory_order_relaxed);
}

int db_reader_next_batch(db_reader *r, struct db_batch *batch, struct chr_errmsg *msg)
{
    CHR_ASSERT(r->open);
    for (;;) {
        r->row += r->batch_rows;
        for (uint32_t i = 0; i < r->scan->slots_count; i++)
            r->slots[i].ready = false;
        r->time.ready = false;
        if (r->row >= r->rows) {
            r->batch_rows = 0;
            return 0;
        }
        if (!r->block && !r->counted) {
            r->counted = true;
            atomic_fetch_add_explicit(&r->scan->chunks_decoded, 1, memory_order_relaxed);
        }
        r->batch_rows = CHR_MIN(r->rows - r->row, DB_VECTOR_ROWS);
        if (!r->block && !db__reader_chunk_wants(r))
            continue;
        bool all = r->exact;
        uint32_t count = 0;
        if (!all) {
            chr_err err = r->block ? hot_select(r, &all, &count)
                                   : db__reader_chunk_select(r, &all, &count, msg);
            if (err)
                return err;
        }
        if (!all && count == 0)
            continue;
        *batch = (struct db_batch){.rows = r->batch_rows,
                                   .sel = all ? NULL : r->sel,
                                   .sel_count = all ? r->batch_rows : count};
        atomic_fetch_add_explicit(&r->scan->rows_scanned, r->batch_rows, memory_order_relaxed);
        return 1;
    }
}

struct db_vector *db_reader_column(db_reader *r, uint32_t slot, chr_err *err,
                                   struct chr_errmsg *msg)
{
    CHR_ASSERT(r->open && r->batch_rows && slot < r->scan->slots_count);
    const struct db__scan_slot *want = &r->scan->slots[slot];
    *err = CHR_OK;
    if (!r->slots[slot].ready)
        *err = r->block ? hot_column(r, &r->slots[slot], want->id, want->type)
                        : db__reader_chunk_column(r, slot, msg);
    return *err ? NULL : &r->slots[slot].vector;
}

chr_err db_reader_row_ids(db_reader *r, struct db_row_id *out, struct chr_errmsg *msg)
{
    CHR_ASSERT(r->open && r->batch_rows);
    if (!r->block)
        return db__reader_chunk_ids(r, out, msg);
    uint32_t runs, i = 0;
    const struct db__hot_run *run = db__hot_runs(r->block, r->row, r->batch_rows, &runs);
    for (uint32_t k = 0; k < runs; k++) {
        uint32_t end = k + 1 == runs ? r->batch_rows : run[k + 1].row - r->row;
        for (; i < end; i++)
            out[i] = (struct db_row_id){run[k].entry, run[k].ordinal + (r->row + i - run[k].row)};
    }
    return CHR_OK;
}
