/* db/hot.c: hot blocks: how they are sized, filled, cut back and read.
 *
 * A block is one allocation for its fixed parts and one heap per string column, sized by what the
 * block before it needed. A block ends when its rows or one of its heaps is full; so nothing ever
 * moves, and a reader needs no lock. The first block of a table is small (a thousand slow tables
 * must not eat memory), each next one twice as large. */
#include "db/hot.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/key_index.h"
#include "db/memory.h"

#define RUNS_FIRST     4
#define HEAP_BYTES_MIN 64u

/* -- Sets ---------------------------------------------------------------------------------------*/

struct db__hot_set *db__hot_set_new(void)
{
    struct db__hot_set *set = db__must_calloc(1, sizeof *set);
    set->refs = 1;
    return set;
}

void db__hot_set_retain(struct db__hot_set *set)
{
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
}

static void block_free(struct db__hot_block *b)
{
    for (uint16_t i = 0; i < b->columns_count; i++)
        free(b->columns[i].heap);
    for (uint32_t i = 0; i < b->retired_count; i++)
        free(b->retired[i]);
    free(b->retired);
    free(b->run_array);
    free((void *)b->deleted);
    free(b);
}

void db__hot_set_release(struct db__hot_set *set)
{
    if (!set || atomic_fetch_sub_explicit(&set->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < set->blocks_count; i++)
        block_free(set->blocks[i]);
    free(set->blocks);
    db__key_hash_free(set->keys);
    free(set);
}

static void account(struct db__hot_set *set, struct db__hot_block *b, size_t bytes,
                    _Atomic uint64_t *total)
{
    b->bytes += bytes;
    atomic_fetch_add_explicit(&set->bytes, bytes, memory_order_relaxed);
    if (total)
        atomic_fetch_add_explicit(total, bytes, memory_order_relaxed);
}

/* -- Blocks -------------------------------------------------------------------------------------*/

static uint32_t width_of(enum db_type type)
{
    return type == DB_BOOLEAN ? 1 : db_type_is_bytes(type) ? 4 : 8;
}

static uint32_t block_capacity(const struct db__hot_set *set, const struct db_table_def *def,
                               uint32_t rows_wanted)
{
    uint64_t row_bytes = 8;
    for (uint16_t i = 0; i < def->columns_count; i++)
        row_bytes += width_of(def->columns[i].type);
    uint64_t capacity = DB__HOT_BLOCK_ROWS_MIN;
    if (set->blocks_count)
        capacity = (uint64_t)set->blocks[set->blocks_count - 1]->capacity * 2;
    while (capacity < rows_wanted)
        capacity *= 2;
    while (capacity > DB__HOT_BLOCK_ROWS_MIN && capacity * row_bytes > DB__HOT_BLOCK_BYTES_MAX)
        capacity /= 2;
    return (uint32_t)CHR_MIN(capacity, DB__HOT_BLOCK_ROWS_MAX);
}

/* Room for strings: as many bytes a row as lately, a quarter more, and at least the next row. */
static uint32_t heap_capacity(const struct db__hot_set *set, uint16_t id, uint32_t capacity,
                              uint64_t wanted_bytes, uint32_t wanted_rows, uint32_t next_row)
{
    uint64_t bytes = wanted_bytes, rows = CHR_MAX(wanted_rows, 1);
    if (set->blocks_count) {
        const struct db__hot_block *last = set->blocks[set->blocks_count - 1];
        int at = db__hot_column(last, id);
        if (at >= 0 && last->rows_written > rows) {
            bytes = last->columns[at].heap_len;
            rows = last->rows_written;
        }
    }
    uint64_t per_block = bytes * capacity / rows;
    per_block += per_block / 4;
    per_block = CHR_MIN(per_block, 4 * DB__HOT_BLOCK_BYTES_MAX);
    return (uint32_t)CHR_MAX(CHR_MAX(per_block, HEAP_BYTES_MIN), next_row);
}

/* What the rows to come need, per column in table order, received_at last. */
struct need {
    uint64_t bytes;    /* of all the rows to come */
    uint32_t next_row; /* of the first of them */
};

static struct db__hot_block *block_add(struct db__hot_set *set, const struct db_table_def *def,
                                       struct db__hot_writer *w, uint32_t rows,
                                       const struct need *need)
{
    uint16_t count = (uint16_t)(def->columns_count + 1);
    uint32_t capacity = block_capacity(set, def, rows);
    size_t bitmap = DB_BIT_WORDS(capacity) * 8;
    size_t bytes = chr_round_up(
        sizeof(struct db__hot_block) + count * sizeof(struct db__hot_column), CHR_CACHE_LINE);
    size_t data_at = bytes;
    for (uint16_t i = 0; i < count; i++) {
        enum db_type type = i < def->columns_count ? def->columns[i].type : DB_TIMESTAMP;
        bytes += bitmap + chr_round_up((uint64_t)capacity * width_of(type), CHR_CACHE_LINE);
    }
    struct db__hot_block *b = db__must_calloc(1, bytes);
    uint8_t *p = (uint8_t *)b + data_at;
    b->capacity = capacity;
    b->number = set->blocks_count;
    b->schema_version = def->schema_version;
    b->columns_count = count;
    for (uint16_t i = 0; i < count; i++) {
        struct db__hot_column *c = &b->columns[i];
        c->id = i < def->columns_count ? def->columns[i].id : DB_COLUMN_RECEIVED_AT;
        c->type = i < def->columns_count ? def->columns[i].type : DB_TIMESTAMP;
        c->null_from = UINT32_MAX;
        c->data = p;
        p += chr_round_up((uint64_t)capacity * width_of(c->type), CHR_CACHE_LINE);
        c->validity = (_Atomic uint64_t *)(void *)p;
        p += bitmap;
        if (db_type_is_bytes(c->type)) {
            c->heap_capacity =
                heap_capacity(set, c->id, capacity, need[i].bytes, rows, need[i].next_row);
            c->heap = db__must_malloc(c->heap_capacity);
            bytes += c->heap_capacity;
        }
    }
    b->runs_capacity = RUNS_FIRST;
    b->run_array = db__must_malloc(RUNS_FIRST * sizeof(struct db__hot_run));
    bytes += RUNS_FIRST * sizeof(struct db__hot_run);
    account(set, b, bytes, w->bytes_total);
    DB__RESERVE(set->blocks, set->blocks_count, set->blocks_capacity);
    struct db__hot_block *last = set->blocks_count ? set->blocks[set->blocks_count - 1] : NULL;
    set->blocks[set->blocks_count++] = b;
    /* Readers may see it at once: it has no rows for them yet. */
    atomic_store_explicit(last ? &last->next : &set->first, b, memory_order_release);
    return b;
}

static void block_touch(struct db__hot_block *b, struct db__hot_writer *w)
{
    if (b->dirty)
        return;
    b->dirty = true;
    DB__RESERVE(w->dirty, w->dirty_count, w->dirty_capacity);
    w->dirty[w->dirty_count++] = b;
}

static void run_extend(struct db__hot_set *set, struct db__hot_block *b, struct db__hot_writer *w,
                       uint32_t ordinal)
{
    struct db__hot_run *runs = db__hot_run_array(b);
    /* Only a run of this very entry can go on, so published runs stay as they are (H1). */
    if (b->runs_written) {
        const struct db__hot_run *last = &runs[b->runs_written - 1];
        if (last->entry == w->entry && last->ordinal + (b->rows_written - last->row) == ordinal)
            return;
    }
    if (b->runs_written == b->runs_capacity) {
        uint32_t capacity = b->runs_capacity * 2;
        struct db__hot_run *more = db__must_malloc(capacity * sizeof *more);
        memcpy(more, runs, b->runs_written * sizeof *more);
        /* The old array stays for whoever is reading it: all of them together are no larger. */
        b->retired = db__must_realloc(b->retired, (b->retired_count + 1) * sizeof(void *));
        b->retired[b->retired_count++] = runs;
        atomic_store_explicit(&b->run_array, more, memory_order_release);
        b->runs_capacity = capacity;
        account(set, b, capacity * sizeof *more + sizeof(void *), w->bytes_total);
        runs = more;
    }
    runs[b->runs_written++] = (struct db__hot_run){
        .entry = w->entry, .hlc = w->hlc, .ordinal = ordinal, .row = b->rows_written};
}

/* -- Bits ---------------------------------------------------------------------------------------*/

/* Readers look at words whose upper bits are being written; hence atomic, though one writer. */
static void bits_put(_Atomic uint64_t *bits, uint32_t at, uint64_t value, uint32_t count)
{
    uint64_t mask = count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << count) - 1;
    uint64_t w = atomic_load_explicit(&bits[at >> 6], memory_order_relaxed);
    w = (w & ~(mask << (at & 63))) | (value & mask) << (at & 63);
    atomic_store_explicit(&bits[at >> 6], w, memory_order_relaxed);
}

static void bits_fill(_Atomic uint64_t *bits, uint32_t at, uint32_t count, bool value)
{
    while (count) {
        uint32_t n = CHR_MIN(64 - (at & 63), count);
        bits_put(bits, at, value ? ~UINT64_C(0) : 0, n);
        at += n;
        count -= n;
    }
}

/* Copies bits [from, from + count) of an operation's bitmap, which ends on a whole word. */
static void bits_copy(_Atomic uint64_t *bits, uint32_t at, const uint8_t *src, uint32_t from,
                      uint32_t count)
{
    while (count) {
        uint32_t n = CHR_MIN(CHR_MIN(64 - (at & 63), 64 - (from & 63)), count);
        bits_put(bits, at, chr_get_u64le(src + (size_t)(from >> 6) * 8) >> (from & 63), n);
        at += n;
        from += n;
        count -= n;
    }
}

/* Says of rows [at, at + count) whether they are NULL: src NULL means all are (or none is). */
static void column_nulls(struct db__hot_column *c, uint32_t at, uint32_t count, const uint8_t *src,
                         uint32_t from, bool all_null)
{
    uint32_t null_from = atomic_load_explicit(&c->null_from, memory_order_relaxed);
    if (!src && !all_null) {
        if (null_from != UINT32_MAX)
            bits_fill(c->validity, at, count, true);
        return;
    }
    if (null_from == UINT32_MAX)
        bits_fill(c->validity, 0, at, true);
    if (src)
        bits_copy(c->validity, at, src, from, count);
    else
        bits_fill(c->validity, at, count, false);
    if (at < null_from)
        atomic_store_explicit(&c->null_from, at, memory_order_release); /* keeps H4 */
}

/* -- Appending ----------------------------------------------------------------------------------*/

static uint32_t end_of(const struct db__rows_col *c, uint32_t row)
{
    return chr_get_u32le(c->values + (size_t)row * 4);
}

static uint32_t begin_of(const struct db__rows_col *c, uint32_t row)
{
    return row ? end_of(c, row - 1) : 0;
}

/* Heap bytes of rows [first, first + count). */
static uint64_t heap_bytes(const struct db__rows_col *c, uint32_t first, uint32_t count)
{
    if (c->form == DB__ROWS_NULL || count == 0)
        return 0;
    if (c->form == DB__ROWS_CONSTANT)
        return (uint64_t)c->heap_len * count;
    return end_of(c, first + count - 1) - begin_of(c, first);
}

/* How many of the rows fit the block. */
static uint32_t rows_that_fit(const struct db__hot_block *b, const struct db__rows *rows,
                              const int16_t *map, uint32_t first, uint32_t count)
{
    count = CHR_MIN(count, b->capacity - b->rows_written);
    for (uint16_t i = 0; i < b->columns_count && count; i++) {
        const struct db__hot_column *c = &b->columns[i];
        if (!db_type_is_bytes(c->type) || map[i] < 0)
            continue;
        const struct db__rows_col *in = &rows->columns[map[i]];
        uint64_t room = c->heap_capacity - c->heap_len;
        if (heap_bytes(in, first, count) <= room)
            continue;
        uint32_t low = 0, high = count; /* low rows fit, high do not */
        while (low + 1 < high) {
            uint32_t mid = (low + high) / 2;
            if (heap_bytes(in, first, mid) <= room)
                low = mid;
            else
                high = mid;
        }
        count = low;
    }
    return count;
}

static void append_strings(struct db__hot_column *c, uint32_t at, const struct db__rows_col *in,
                           uint32_t first, uint32_t count)
{
    uint32_t *ends = c->ends + at, base = c->heap_len;
    if (in->form == DB__ROWS_CONSTANT) {
        for (uint32_t r = 0; r < count; r++) {
            if (in->heap_len)
                memcpy(c->heap + base + (size_t)r * in->heap_len, in->heap, in->heap_len);
            ends[r] = base + (r + 1) * in->heap_len;
        }
        c->heap_len += count * in->heap_len;
        return;
    }
    uint32_t begin = begin_of(in, first), bytes = (uint32_t)heap_bytes(in, first, count);
    if (bytes)
        memcpy(c->heap + base, in->heap + begin, bytes);
    uint32_t shift = base - begin; /* modulo 2^32 */
    const uint8_t *src = in->values + (size_t)first * 4;
    for (uint32_t r = 0; r < count; r++)
        ends[r] = chr_get_u32le(src + (size_t)r * 4) + shift;
    c->heap_len += bytes;
}

static void append_nulls(struct db__hot_column *c, uint32_t at, uint32_t count)
{
    if (db_type_is_bytes(c->type))
        for (uint32_t r = 0; r < count; r++)
            c->ends[at + r] = c->heap_len;
    else
        memset((uint8_t *)c->data + (size_t)at * width_of(c->type), 0,
               (size_t)count * width_of(c->type));
}

static void append_column(struct db__hot_column *c, uint32_t at, const struct db__rows_col *in,
                          uint32_t first, uint32_t count)
{
    if (!in || in->form == DB__ROWS_NULL) {
        append_nulls(c, at, count);
        column_nulls(c, at, count, NULL, 0, true);
        return;
    }
    column_nulls(c, at, count, in->validity, first, false);
    if (db_type_is_bytes(c->type)) {
        append_strings(c, at, in, first, count);
    } else if (in->form == DB__ROWS_CONSTANT) {
        if (c->type == DB_BOOLEAN) {
            memset(c->b8 + at, in->values[0], count);
        } else {
            int64_t v = (int64_t)chr_get_u64le(in->values);
            for (uint32_t r = 0; r < count; r++)
                c->i64[at + r] = v;
        }
    } else {
        size_t width = width_of(c->type);
        memcpy((uint8_t *)c->data + at * width, in->values + first * width, count * width);
    }
}

/* The block the next rows go to: the last one when it has the table's present columns. */
static struct db__hot_block *block_for(struct db__hot_set *set, const struct db_table_def *def)
{
    if (!set->blocks_count)
        return NULL;
    struct db__hot_block *b = set->blocks[set->blocks_count - 1];
    return b->schema_version == def->schema_version ? b : NULL;
}

void db__hot_append_rows(struct db__hot_set *set, const struct db_table_def *def,
                         struct db__hot_writer *w, const struct db__rows *rows, const int16_t *map,
                         uint32_t first, uint32_t count, uint32_t ordinal)
{
    while (count) {
        struct db__hot_block *b = block_for(set, def);
        uint32_t n = b ? rows_that_fit(b, rows, map, first, count) : 0;
        if (n == 0) {
            struct need need[DB_COLUMNS_MAX + 1];
            for (uint16_t i = 0; i <= def->columns_count; i++) {
                const struct db__rows_col *in = map[i] < 0 ? NULL : &rows->columns[map[i]];
                bool bytes = in && db_type_is_bytes(in->type);
                need[i].bytes = bytes ? heap_bytes(in, first, count) : 0;
                need[i].next_row = bytes ? (uint32_t)heap_bytes(in, first, 1) : 0;
            }
            b = block_add(set, def, w, count, need);
            n = rows_that_fit(b, rows, map, first, count);
            CHR_ASSERT(n > 0);
        }
        block_touch(b, w);
        run_extend(set, b, w, ordinal);
        for (uint16_t i = 0; i < b->columns_count; i++)
            append_column(&b->columns[i], b->rows_written,
                          map[i] < 0 ? NULL : &rows->columns[map[i]], first, n);
        b->rows_written += n;
        set->rows += n;
        first += n;
        ordinal += n;
        count -= n;
    }
}

static bool value_fits(const struct db__hot_block *b, const struct db_value *values)
{
    if (b->rows_written == b->capacity)
        return false;
    for (uint16_t i = 0; i < b->columns_count; i++) {
        const struct db__hot_column *c = &b->columns[i];
        if (db_type_is_bytes(c->type) && !values[i].null &&
            values[i].bytes.len > c->heap_capacity - c->heap_len)
            return false;
    }
    return true;
}

void db__hot_append_values(struct db__hot_set *set, const struct db_table_def *def,
                           struct db__hot_writer *w, const struct db_value *values,
                           uint32_t ordinal)
{
    struct db__hot_block *b = block_for(set, def);
    if (!b || !value_fits(b, values)) {
        struct need need[DB_COLUMNS_MAX + 1];
        for (uint16_t i = 0; i <= def->columns_count; i++) {
            enum db_type type = i < def->columns_count ? def->columns[i].type : DB_TIMESTAMP;
            bool bytes = db_type_is_bytes(type) && !values[i].null;
            need[i].next_row = bytes ? (uint32_t)values[i].bytes.len : 0;
            need[i].bytes = need[i].next_row;
        }
        b = block_add(set, def, w, 1, need);
    }
    block_touch(b, w);
    run_extend(set, b, w, ordinal);
    uint32_t at = b->rows_written++;
    set->rows++;
    for (uint16_t i = 0; i < b->columns_count; i++) {
        struct db__hot_column *c = &b->columns[i];
        const struct db_value *v = &values[i];
        if (v->null) {
            append_nulls(c, at, 1);
            column_nulls(c, at, 1, NULL, 0, true);
            continue;
        }
        column_nulls(c, at, 1, NULL, 0, false);
        if (db_type_is_bytes(c->type)) {
            if (v->bytes.len)
                memcpy(c->heap + c->heap_len, v->bytes.ptr, v->bytes.len);
            c->heap_len += (uint32_t)v->bytes.len;
            c->ends[at] = c->heap_len;
        } else if (c->type == DB_BOOLEAN) {
            c->b8[at] = v->boolean;
        } else {
            c->i64[at] = v->i64;
        }
    }
}

void db__hot_publish(struct db__hot_writer *w)
{
    for (uint32_t i = 0; i < w->dirty_count; i++) {
        struct db__hot_block *b = w->dirty[i];
        b->dirty = false;
        atomic_store_explicit(&b->runs, b->runs_written, memory_order_release);
        atomic_store_explicit(&b->rows, b->rows_written, memory_order_release);
    }
    w->dirty_count = 0;
}

struct db__hot_place db__hot_place(const struct db__hot_set *set)
{
    struct db__hot_place p = {.blocks_count = set->blocks_count, .rows = set->rows};
    if (set->blocks_count) {
        p.rows_written = set->blocks[set->blocks_count - 1]->rows_written;
        p.runs_written = set->blocks[set->blocks_count - 1]->runs_written;
    }
    return p;
}

static void block_cut(struct db__hot_block *b, uint32_t rows, uint32_t runs)
{
    CHR_ASSERT(rows >= atomic_load_explicit(&b->rows, memory_order_relaxed));
    b->rows_written = rows;
    b->runs_written = runs;
    for (uint16_t i = 0; i < b->columns_count; i++)
        if (db_type_is_bytes(b->columns[i].type))
            b->columns[i].heap_len = rows ? b->columns[i].ends[rows - 1] : 0;
}

/* Blocks added since stay, empty: a reader may be walking over them. */
void db__hot_cut(struct db__hot_set *set, struct db__hot_place to)
{
    for (uint32_t i = to.blocks_count; i < set->blocks_count; i++)
        block_cut(set->blocks[i], 0, 0);
    if (to.blocks_count)
        block_cut(set->blocks[to.blocks_count - 1], to.rows_written, to.runs_written);
    set->rows = to.rows;
}

void db__hot_mark(struct db__hot_set *set, struct db__hot_block *b, uint32_t row, uint64_t index,
                  _Atomic uint64_t *bytes_total)
{
    _Atomic uint64_t *deleted = atomic_load_explicit(&b->deleted, memory_order_relaxed);
    if (!deleted) {
        deleted = db__must_calloc(b->capacity, sizeof *deleted);
        account(set, b, b->capacity * sizeof *deleted, bytes_total);
        atomic_store_explicit(&b->deleted, deleted, memory_order_release);
    }
    atomic_store_explicit(&deleted[row], index, memory_order_relaxed);
}
