/* db/hot_row.c: looking at hot blocks: one row for apply, published rows for readers. */
#include "base/assert.h"
#include "db/hot.h"

/* -- One row ------------------------------------------------------------------------------------*/

db__hot_ref db__hot_find(const struct db__hot_set *set, struct db_row_id id)
{
    /* Blocks rise by (entry, ordinal): the last one that does not begin after the row. */
    uint32_t low = 0, high = set->blocks_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        const struct db__hot_block *b = set->blocks[mid];
        const struct db__hot_run *first = db__hot_run_array(b);
        /* An empty block (cut back) lies after everything that was written before it; what follows
         * it decides. */
        uint32_t m = mid;
        while (m < high && set->blocks[m]->rows_written == 0)
            m++;
        if (m == high) {
            high = mid;
            continue;
        }
        b = set->blocks[m];
        first = db__hot_run_array(b);
        if (first->entry < id.entry || (first->entry == id.entry && first->ordinal <= id.ordinal))
            low = m + 1;
        else
            high = mid;
    }
    while (low > 0 && set->blocks[low - 1]->rows_written == 0)
        low--;
    if (low == 0)
        return DB__HOT_REF_NONE;
    const struct db__hot_block *b = set->blocks[low - 1];
    const struct db__hot_run *runs = db__hot_run_array(b);
    uint32_t at = 0;
    for (uint32_t lo = 0, hi = b->runs_written; lo < hi;) {
        uint32_t mid = (lo + hi) / 2;
        if (runs[mid].entry < id.entry ||
            (runs[mid].entry == id.entry && runs[mid].ordinal <= id.ordinal)) {
            at = mid;
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    uint32_t end = at + 1 < b->runs_written ? runs[at + 1].row : b->rows_written;
    if (runs[at].entry != id.entry || id.ordinal < runs[at].ordinal ||
        id.ordinal - runs[at].ordinal >= end - runs[at].row)
        return DB__HOT_REF_NONE;
    return db__hot_ref_make(b->number, runs[at].row + (id.ordinal - runs[at].ordinal));
}

static const struct db__hot_run *run_search(const struct db__hot_run *runs, uint32_t count,
                                            uint32_t row)
{
    uint32_t low = 0, high = count; /* runs[low].row <= row */
    while (high - low > 1) {
        uint32_t mid = (low + high) / 2;
        if (runs[mid].row <= row)
            low = mid;
        else
            high = mid;
    }
    return &runs[low];
}

struct db_row_id db__hot_row_id(const struct db__hot_block *b, uint32_t row)
{
    const struct db__hot_run *run = run_search(db__hot_run_array(b), b->runs_written, row);
    return (struct db_row_id){run->entry, run->ordinal + (row - run->row)};
}

int db__hot_column(const struct db__hot_block *b, uint16_t id)
{
    for (uint16_t i = 0; i < b->columns_count; i++)
        if (b->columns[i].id == id)
            return i;
    return -1;
}

struct db_value db__hot_value(const struct db__hot_block *b, uint32_t column, uint32_t row)
{
    const struct db__hot_column *c = &b->columns[column];
    struct db_value v = {.type = c->type};
    uint32_t null_from =
        atomic_load_explicit(&((struct db__hot_column *)c)->null_from, memory_order_acquire);
    if (row >= null_from &&
        !(atomic_load_explicit(&c->validity[row >> 6], memory_order_relaxed) >> (row & 63) & 1)) {
        v.null = true;
    } else if (db_type_is_bytes(c->type)) {
        uint32_t begin = row ? c->ends[row - 1] : 0;
        v.bytes = chr_slice_of(c->heap + begin, c->ends[row] - begin);
    } else if (c->type == DB_BOOLEAN) {
        v.boolean = c->b8[row];
    } else {
        v.i64 = c->i64[row];
    }
    return v;
}

uint64_t db__hot_deleted(const struct db__hot_block *b, uint32_t row)
{
    _Atomic uint64_t *deleted =
        atomic_load_explicit(&((struct db__hot_block *)b)->deleted, memory_order_acquire);
    return deleted ? atomic_load_explicit(&deleted[row], memory_order_relaxed) : 0;
}

/* -- Readers ------------------------------------------------------------------------------------*/

uint32_t db__hot_rows_at(const struct db__hot_block *block, uint64_t index)
{
    struct db__hot_block *b = (struct db__hot_block *)block;
    /* Rows before runs: should an entry be published in between, its run is seen and cut off. */
    uint32_t rows = atomic_load_explicit(&b->rows, memory_order_acquire);
    uint32_t runs = atomic_load_explicit(&b->runs, memory_order_acquire);
    const struct db__hot_run *array = db__hot_run_array(b);
    for (; runs && array[runs - 1].entry > index; runs--)
        rows = CHR_MIN(rows, array[runs - 1].row);
    return rows;
}

const struct db__hot_run *db__hot_runs(const struct db__hot_block *block, uint32_t row,
                                       uint32_t count, uint32_t *runs)
{
    struct db__hot_block *b = (struct db__hot_block *)block;
    uint32_t published = atomic_load_explicit(&b->runs, memory_order_acquire);
    const struct db__hot_run *array =
        db__hot_run_array(b); /* once: it may be replaced by a larger one */
    const struct db__hot_run *first = run_search(array, published, row);
    const struct db__hot_run *last = run_search(array, published, row + count - 1);
    *runs = (uint32_t)(last - first) + 1;
    return first;
}
