/* db/rows_builder.c: rows of one table, collected as columns until they become an operation.
 *
 * Arrays have room for one row more than rows_max, so that a put never has to check: the row that
 * does not fit any more is refused by db_rows_end. Bits and string bytes beyond the last complete
 * row are kept clean (B1: validity and named are zero from bit `rows` on, except for the row being
 * built; B2: heap_len is ends[rows - 1] unless the row being built put bytes), so undoing a row is
 * clearing its bits. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/op_format.h"

#define ROWS_FIRST 64 /* room of a new builder; grows by doubling */

static uint32_t width_of(enum db_type type)
{
    return type == DB_BOOLEAN ? 1 : db_type_is_bytes(type) ? 4 : 8;
}

static bool grow_array(void **array, size_t bytes_old, size_t bytes_new)
{
    void *p = realloc(*array, bytes_new);
    if (!p)
        return false;
    memset((uint8_t *)p + bytes_old, 0, bytes_new - bytes_old);
    *array = p;
    return true;
}

/* Room for `capacity` rows and the one being built. A failure half way leaves some arrays larger
 * than `capacity` says, which harms nobody. */
static bool column_grow(struct db_rows_column *c, uint32_t capacity)
{
    size_t old_rows = c->capacity ? (size_t)c->capacity + 1 : 0, rows = (size_t)capacity + 1;
    size_t width = width_of(c->type);
    void *values = c->i64, *validity = c->validity, *named = c->named;
    bool ok = grow_array(&values, old_rows * width, rows * width);
    c->i64 = values;
    ok = ok && grow_array(&validity, DB_BIT_WORDS(old_rows) * 8, DB_BIT_WORDS(rows) * 8);
    c->validity = validity;
    ok = ok && grow_array(&named, DB_BIT_WORDS(old_rows) * 8, DB_BIT_WORDS(rows) * 8);
    c->named = named;
    if (ok)
        c->capacity = capacity;
    return ok;
}

/* The first column grows last: its capacity is the builder's, so that a failure half way is made
 * good by the next try. */
static bool builder_grow(struct db_rows_builder *b, uint32_t capacity)
{
    uint32_t old = b->columns[0].capacity;
    uint32_t *guards = realloc(b->guards, ((size_t)capacity + 1) * sizeof *guards);
    if (!guards)
        return false;
    b->guards = guards;
    for (uint32_t r = old ? old + 1 : 0; r <= capacity; r++)
        guards[r] = UINT32_MAX;
    for (uint16_t i = b->columns_count; i-- > 0;)
        if (!column_grow(&b->columns[i], capacity))
            return false;
    return true;
}

chr_err db_rows_init(struct db_rows_builder *b, const struct db_table_def *table, uint32_t rows_max)
{
    CHR_ASSERT(rows_max > 0 && rows_max <= DB_OP_ROWS_MAX);
    memset(b, 0, sizeof *b);
    b->table = table;
    b->rows_max = rows_max;
    b->columns_count = (uint16_t)(table->columns_count + 1);
    b->columns = calloc(b->columns_count, sizeof *b->columns);
    if (!b->columns) {
        b->columns_count = 0;
        return CHR_ENOMEM;
    }
    for (uint16_t i = 0; i < table->columns_count; i++) {
        b->columns[i].type = table->columns[i].type;
        b->columns[i].column_id = table->columns[i].id;
    }
    b->columns[table->columns_count].type = DB_TIMESTAMP;
    b->columns[table->columns_count].column_id = DB_COLUMN_RECEIVED_AT;
    if (!builder_grow(b, CHR_MIN(rows_max, ROWS_FIRST))) {
        db_rows_free(b);
        return CHR_ENOMEM;
    }
    return CHR_OK;
}

void db_rows_free(struct db_rows_builder *b)
{
    for (uint16_t i = 0; i < b->columns_count; i++) {
        struct db_rows_column *c = &b->columns[i];
        free(c->i64);
        free(c->validity);
        free(c->named);
        free(c->heap);
    }
    free(b->columns);
    free(b->guards);
    memset(b, 0, sizeof *b);
}

/* Clears bits [from, to) */
static void clear_bits(uint64_t *bits, uint32_t from, uint32_t to)
{
    while (from < to && (from & 63))
        db_bit_clear(bits, from++);
    if (from < to)
        memset(bits + from / 64, 0, (DB_BIT_WORDS(to) - from / 64) * 8);
}

/* A column with a value in one row takes room in all of them: a sparse table of a hundred columns
 * writes far more than was put. */
static void count_bytes(struct db_rows_builder *b)
{
    size_t row_bits = b->row_bits + (b->guarded ? 32 : 0);
    /* Heads, and padding of bits and values. */
    size_t fixed = DB__OP_HEAD + DB__ROWS_HEAD + b->columns_count * (DB__ROWS_COLUMN_HEAD + 12u);
    b->bytes = b->rows ? fixed + b->rows * row_bits / 8 + b->heap_bytes : 0;
}

void db_rows_rollback(struct db_rows_builder *b, struct db_rows_mark mark)
{
    CHR_ASSERT(mark.rows <= b->rows);
    uint32_t end = b->rows + 1; /* with the row being built */
    size_t heap_bytes = 0;
    for (uint16_t i = 0; i < b->columns_count; i++) {
        struct db_rows_column *c = &b->columns[i];
        clear_bits(c->validity, mark.rows, end);
        if (c->has_named)
            clear_bits(c->named, mark.rows, end);
        if (mark.rows == 0)
            c->has_named = c->written = false;
        if (db_type_is_bytes(c->type)) {
            c->heap_len = mark.rows ? c->ends[mark.rows - 1] : 0;
            heap_bytes += c->heap_len;
        }
    }
    for (uint32_t r = mark.rows; r < end; r++)
        b->guards[r] = UINT32_MAX;
    b->rows = mark.rows;
    if (mark.rows == 0) {
        b->guarded = false;
        b->row_bits = 0;
    }
    b->heap_bytes = heap_bytes;
    count_bytes(b);
}

void db_rows_reset(struct db_rows_builder *b)
{
    db_rows_rollback(b, (struct db_rows_mark){0});
}

struct db_rows_mark db_rows_mark(const struct db_rows_builder *b)
{
    return (struct db_rows_mark){b->rows};
}

void db_rows_put_i64(struct db_rows_builder *b, uint16_t column, int64_t value)
{
    struct db_rows_column *c = &b->columns[column];
    CHR_ASSERT_HOT(c->type == DB_INT || c->type == DB_TIMESTAMP);
    c->i64[b->rows] = value;
    db_bit_set(c->validity, b->rows);
}

void db_rows_put_f64(struct db_rows_builder *b, uint16_t column, double value)
{
    struct db_rows_column *c = &b->columns[column];
    CHR_ASSERT_HOT(c->type == DB_FLOAT);
    c->f64[b->rows] = value;
    db_bit_set(c->validity, b->rows);
}

void db_rows_put_bool(struct db_rows_builder *b, uint16_t column, bool value)
{
    struct db_rows_column *c = &b->columns[column];
    CHR_ASSERT_HOT(c->type == DB_BOOLEAN);
    c->b8[b->rows] = value;
    db_bit_set(c->validity, b->rows);
}

static uint32_t heap_begin(const struct db_rows_column *c, uint32_t row)
{
    return row ? c->ends[row - 1] : 0;
}

chr_err db_rows_put_bytes(struct db_rows_builder *b, uint16_t column, chr_slice value)
{
    struct db_rows_column *c = &b->columns[column];
    CHR_ASSERT_HOT(db_type_is_bytes(c->type));
    uint32_t begin = heap_begin(c, b->rows);
    if (value.len > DB_ENTRY_BYTES_MAX - begin)
        return CHR_EFULL;
    uint32_t end = begin + (uint32_t)value.len;
    if (end > c->heap_capacity) {
        uint32_t capacity = CHR_MAX(CHR_MAX(end, c->heap_capacity * 2), 256);
        uint8_t *heap = realloc(c->heap, capacity);
        if (!heap)
            return CHR_ENOMEM;
        c->heap = heap;
        c->heap_capacity = capacity;
    }
    if (value.len)
        memcpy(c->heap + begin, value.ptr, value.len);
    c->heap_len = c->ends[b->rows] = end;
    db_bit_set(c->validity, b->rows);
    return CHR_OK;
}

void db_rows_put_null(struct db_rows_builder *b, uint16_t column)
{
    struct db_rows_column *c = &b->columns[column];
    db_bit_clear(c->validity, b->rows);
    db_bit_set(c->named, b->rows);
    c->has_named = true;
    if (db_type_is_bytes(c->type))
        c->heap_len = heap_begin(c, b->rows);
}

bool db_rows_has(const struct db_rows_builder *b, uint16_t column)
{
    const struct db_rows_column *c = &b->columns[column];
    return db_bit_get(c->validity, b->rows) || (c->has_named && db_bit_get(c->named, b->rows));
}

chr_err db_rows_end(struct db_rows_builder *b, int64_t received_at_us, struct chr_errmsg *msg)
{
    uint32_t row = b->rows;
    struct db_rows_mark undo = {row};
    if (row >= b->rows_max) {
        db_rows_rollback(b, undo);
        return chr_fail(msg, CHR_EFULL, "more than %u rows in a batch", b->rows_max);
    }
    uint16_t last = b->table->columns_count;
    if (!db_bit_get(b->columns[last].validity, row))
        db_rows_put_i64(b, last, received_at_us);
    size_t heap_bytes = 0;
    for (uint16_t i = 0; i < b->columns_count; i++) {
        struct db_rows_column *c = &b->columns[i];
        if (db_bit_get(c->validity, row)) {
            if (!c->written) {
                c->written = true;
                b->row_bits += width_of(c->type) * 8 + 2; /* its bits of validity and named */
            }
            if (c->has_named)
                db_bit_clear(c->named, row); /* put after an explicit NULL: the last wins */
            if (db_type_is_bytes(c->type))
                heap_bytes += c->ends[row] - heap_begin(c, row);
            continue;
        }
        if (i < last && b->table->columns[i].not_null) {
            db_rows_rollback(b, undo);
            return chr_fail(msg, CHR_ENOTNULL, "column \"%s\" may not be NULL",
                            b->table->columns[i].name);
        }
        /* NULLs are zeros, so that equal batches are equal bytes. */
        if (c->type == DB_BOOLEAN)
            c->b8[row] = 0;
        else if (db_type_is_bytes(c->type))
            c->ends[row] = heap_begin(c, row);
        else
            c->i64[row] = 0;
    }
    if (row + 1 > b->columns[0].capacity) {
        uint64_t capacity = CHR_MIN((uint64_t)b->columns[0].capacity * 2, b->rows_max);
        if (!builder_grow(b, (uint32_t)capacity)) {
            db_rows_rollback(b, undo);
            return CHR_ENOMEM;
        }
    }
    b->rows = row + 1;
    b->heap_bytes += heap_bytes;
    count_bytes(b);
    return CHR_OK;
}

/* -- Writing the operation ----------------------------------------------------------------------*/

static bool column_constant(const struct db_rows_column *c, uint32_t rows)
{
    if (c->type == DB_BOOLEAN)
        return memcmp(c->b8, c->b8 + 1, rows - 1) == 0;
    if (!db_type_is_bytes(c->type))
        return memcmp(c->i64, c->i64 + 1, (rows - 1) * sizeof(int64_t)) == 0;
    uint32_t len = c->ends[0];
    if ((uint64_t)len * rows != c->ends[rows - 1])
        return false;
    if (len == 0)
        return true; /* and perhaps no heap yet */
    for (uint32_t r = 1; r < rows; r++)
        if (c->ends[r] != (r + 1) * len || memcmp(c->heap, c->heap + c->ends[r - 1], len) != 0)
            return false;
    return true;
}

static bool bits_all(const uint64_t *bits, uint32_t rows, uint64_t word)
{
    for (uint32_t i = 0; i < rows / 64; i++)
        if (bits[i] != word)
            return false;
    uint64_t mask = (UINT64_C(1) << (rows & 63)) - 1;
    return !(rows & 63) || ((bits[rows / 64] ^ word) & mask) == 0;
}

/* Bits of complete rows only: the row being built may have left some in the last word. */
static void add_bits(struct chr_buf *out, const uint64_t *bits, uint32_t rows)
{
    chr_buf_add(out, bits, (size_t)(rows / 64) * 8);
    if (rows & 63)
        chr_buf_add_u64le(out, bits[rows / 64] & ((UINT64_C(1) << (rows & 63)) - 1));
}

static void add_values(struct chr_buf *out, const struct db_rows_column *c, uint32_t rows,
                       bool constant)
{
    uint32_t n = constant ? 1 : rows;
    if (c->type == DB_BOOLEAN) {
        chr_buf_add(out, c->b8, n);
    } else if (db_type_is_bytes(c->type)) {
        if (!constant) {
            chr_buf_add(out, c->ends, (size_t)rows * 4);
            chr_buf_pad(out, 8);
        }
        chr_buf_add(out, c->heap, c->ends[n - 1]);
    } else {
        chr_buf_add(out, c->i64, (size_t)n * 8);
    }
    chr_buf_pad(out, 8);
}

/* The ROWS body; entry.c wraps it. Column ids must rise and a table's columns need not be in order
 * of id after ALTER, so columns are visited by id. */
void db__rows_write_body(const struct db_rows_builder *b, enum db_rows_mode mode,
                         struct chr_buf *out)
{
    uint32_t rows = b->rows;
    size_t head = out->len;
    uint8_t zero[DB__ROWS_HEAD] = {0};
    chr_buf_add(out, zero, sizeof zero);
    uint16_t written = 0;
    uint8_t form[DB_COLUMNS_MAX + 1], flags[DB_COLUMNS_MAX + 1];
    uint16_t order[DB_COLUMNS_MAX + 1];
    for (uint16_t i = 0; i < b->columns_count; i++) {
        const struct db_rows_column *c = &b->columns[i];
        bool none_valid = bits_all(c->validity, rows, 0);
        bool all_valid = !none_valid && bits_all(c->validity, rows, ~UINT64_C(0));
        bool some_named = c->has_named && !bits_all(c->named, rows, 0);
        if (none_valid && !some_named)
            continue;
        flags[i] = 0;
        if (none_valid && bits_all(c->named, rows, ~UINT64_C(0))) {
            form[i] = DB__ROWS_NULL;
        } else if (all_valid && column_constant(c, rows)) {
            form[i] = DB__ROWS_CONSTANT;
        } else {
            form[i] = DB__ROWS_PLAIN;
            flags[i] =
                (uint8_t)((all_valid ? 0 : DB__ROWS_VALIDITY) | (some_named ? DB__ROWS_NAMED : 0));
        }
        uint16_t at = written++;
        while (at > 0 && b->columns[order[at - 1]].column_id > c->column_id) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    size_t directory = out->len;
    for (uint16_t k = 0; k < written; k++)
        chr_buf_add(out, zero, DB__ROWS_COLUMN_HEAD);
    for (uint16_t k = 0; k < written && !out->failed; k++) {
        uint16_t i = order[k];
        const struct db_rows_column *c = &b->columns[i];
        size_t begin = out->len;
        if (flags[i] & DB__ROWS_VALIDITY)
            add_bits(out, c->validity, rows);
        if (flags[i] & DB__ROWS_NAMED)
            add_bits(out, c->named, rows);
        if (form[i] != DB__ROWS_NULL)
            add_values(out, c, rows, form[i] == DB__ROWS_CONSTANT);
        if (out->failed)
            return;
        uint8_t *h = out->ptr + directory + (size_t)k * DB__ROWS_COLUMN_HEAD;
        uint32_t heap = !db_type_is_bytes(c->type) || form[i] == DB__ROWS_NULL ? 0
                        : form[i] == DB__ROWS_CONSTANT                         ? c->ends[0]
                                                                               : c->ends[rows - 1];
        chr_put_u16le(h, c->column_id);
        h[2] = (uint8_t)c->type;
        h[3] = form[i];
        h[4] = flags[i];
        chr_put_u32le(h + 8, (uint32_t)(out->len - begin));
        chr_put_u32le(h + 12, heap);
    }
    if (b->guarded) {
        chr_buf_add(out, b->guards, (size_t)rows * 4);
        chr_buf_pad(out, 8);
    }
    if (out->failed)
        return;
    uint8_t *h = out->ptr + head;
    h[0] = (uint8_t)mode;
    chr_put_u16le(h + 2, written);
    chr_put_u32le(h + 4, b->table->schema_version);
}
