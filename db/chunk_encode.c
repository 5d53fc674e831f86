/* db/chunk_encode.c: one column of a chunk, block by block, to the value that is stored.
 *
 * Layout in chunk_internal.h. Each block is looked at once: NULLs are squeezed out, the codec is
 * planned and carried out, statistics are taken while the values are in the cache. When the value
 * outgrows its limit the encoder says how many rows to try instead (K2). */
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/chunk_internal.h"
#include "db/value_crc.h"

/* A break costs some five bytes in a delta codec; when series are shorter than this the codecs that
 * know no neighbours are as good. */
#define BREAK_ROWS_MIN 4

/* -- Dense values of a block --------------------------------------------------------------------*/

struct block {
    uint32_t row, rows;    /* in the chunk */
    uint32_t ones;         /* rows not NULL */
    const uint64_t *valid; /* NULL: all */
    const void *values;    /* [ones]; int64_t, double, uint8_t or chr_slice */
};

/* Squeezes NULLs out; without branches, because NULLs are often as random as can be. */
#define SQUEEZE(type, from, to)                                                                    \
    do {                                                                                           \
        const type *source = (from);                                                               \
        type *target = (to);                                                                       \
        uint32_t n = 0;                                                                            \
        for (uint32_t i = 0; i < b->rows; i++) {                                                   \
            target[n] = source[i];                                                                 \
            n += db_bit_get(b->valid, i);                                                          \
        }                                                                                          \
    } while (0)

static void dense_strings(struct db_encoder *e, const struct db_chunk_column_in *column,
                          uint32_t at, struct block *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->rows; i++) {
        if (!b->valid || db_bit_get(b->valid, i))
            e->dense_strings[n++] = db__row_string(column, at + i);
    }
    b->values = e->dense_strings;
}

static void dense_ordinals(struct db_encoder *e, const uint32_t *ordinals, struct block *b)
{
    for (uint32_t i = 0; i < b->rows; i++)
        e->dense[i] = ordinals[i];
    b->values = e->dense;
}

static void dense_values(struct db_encoder *e, const struct db_chunk_rows *rows,
                         const struct db_chunk_column_in *column, struct block *b)
{
    uint32_t at = rows->first + b->row;
    b->valid = NULL;
    b->ones = b->rows;
    if (column->validity) {
        b->ones = db__bits_extract(column->validity, at, b->rows, e->valid);
        if (b->ones < b->rows)
            b->valid = e->valid;
    }
    if (db_type_is_bytes(column->type)) {
        if (!e->dict.used)
            dense_strings(e, column, at, b);
    } else if (column->id == DB_COLUMN_ORDINAL) {
        dense_ordinals(e, (const uint32_t *)column->data + at, b);
    } else if (column->type == DB_BOOLEAN) {
        b->values = column->b8 + at;
        if (b->valid) {
            SQUEEZE(uint8_t, column->b8 + at, (uint8_t *)(void *)e->dense);
            b->values = e->dense;
        }
    } else if (column->type == DB_FLOAT) {
        b->values = column->f64 + at;
        if (b->valid) {
            SQUEEZE(double, column->f64 + at, (double *)(void *)e->dense);
            b->values = e->dense;
        }
    } else {
        b->values = column->i64 + at;
        if (b->valid) {
            SQUEEZE(int64_t, column->i64 + at, e->dense);
            b->values = e->dense;
        }
    }
    if (e->dict.used) {
        const uint16_t *codes = e->dict.codes + b->row;
        memcpy(e->dense_codes, codes, b->rows * sizeof *codes);
        if (b->valid)
            SQUEEZE(uint16_t, codes, e->dense_codes);
    }
}

/* Rows of the block where a series begins, for the delta codecs. With NULLs left out rows are no
 * places any more, and the outliers of db/codec/packed.c have to do. */
static void find_breaks(struct db_encoder *e, const struct db_chunk_rows *rows,
                        const struct block *b)
{
    e->ints.breaks = e->breaks;
    e->ints.breaks_count = 0;
    if (b->valid || rows->runs_count < 2)
        return;
    uint32_t low = 0, high = rows->runs_count; /* first run that starts behind b->row */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (rows->starts[middle] <= b->row)
            low = middle + 1;
        else
            high = middle;
    }
    uint32_t n = 0;
    for (; low < rows->runs_count && rows->starts[low] < b->row + b->rows; low++) {
        if (n == b->rows / BREAK_ROWS_MIN)
            return; /* too many */
        e->breaks[n++] = (uint16_t)(rows->starts[low] - b->row);
    }
    e->ints.breaks_count = n;
}

/* -- Blocks -------------------------------------------------------------------------------------*/

static void put_booleans(const uint8_t *values, uint32_t count, struct chr_buf *out)
{
    uint64_t bits[DB_BIT_WORDS(DB_VECTOR_ROWS)] = {0};
    for (uint32_t i = 0; i < count; i++)
        bits[i >> 6] |= (uint64_t)(values[i] & 1) << (i & 63);
    db__bitmap_put(bits, count, out);
}

static void put_block(struct db_encoder *e, const struct db_chunk_rows *rows,
                      const struct db_chunk_column_in *column, const struct block *b, bool *try_lz4,
                      struct chr_buf *out)
{
    static const uint64_t none[DB_BIT_WORDS(DB_VECTOR_ROWS)] = {0};
    if (b->ones == 0) {
        db__bitmap_put(none, b->rows, out);
        return;
    }
    if (b->valid)
        db__bitmap_put(b->valid, b->rows, out);
    else
        chr_buf_add_u8(out, DB_BITMAP_ONES);
    if (e->dict.used) {
        chr_buf_add_u8(out, DB_MAP_DICT);
        db__codes_encode(&e->ints, e->dense_codes, b->ones, out);
        return;
    }
    switch (column->type) {
    case DB_BOOLEAN:
        chr_buf_add_u8(out, DB_MAP_BITMAP);
        put_booleans(b->values, b->ones, out);
        break;
    case DB_FLOAT:
        find_breaks(e, rows, b);
        db__floats_encode(&e->ints, b->values, b->ones, out);
        break;
    case DB_STRING:
    case DB_BLOB:
        chr_buf_add_u8(out, DB_MAP_HEAP);
        db__heap_put(&e->ints, b->values, b->ones, try_lz4, &e->heap, out);
        break;
    case DB_INT:
    case DB_TIMESTAMP: {
        size_t bytes;
        chr_buf_add_u8(out, DB_MAP_PLAIN);
        find_breaks(e, rows, b);
        e->ints.values = b->values;
        e->ints.count = b->ones;
        enum db_codec codec = db__ints_plan(&e->ints, &bytes);
        db__ints_put(&e->ints, codec, out);
        break;
    }
    }
}

/* Is a block the same value, or NULL, in all rows? Then its bytes do not depend on how many. */
static bool is_constant(const uint8_t *block, size_t len)
{
    if (block[0] == DB_BITMAP_ZEROS)
        return true;
    if (block[0] != DB_BITMAP_ONES || len < 3)
        return false;
    switch (block[1]) {
    case DB_MAP_PLAIN:
    case DB_MAP_FLOAT32:
    case DB_MAP_DICT:
        return block[2] == DB_CODEC_CONSTANT;
    case DB_MAP_DECIMAL:
        return len > 5 && chr_get_u16le(block + 3) == 0 && block[5] == DB_CODEC_CONSTANT;
    case DB_MAP_BITMAP:
        return block[2] == DB_BITMAP_ZEROS || block[2] == DB_BITMAP_ONES;
    default:
        return false;
    }
}

/* -- The whole column ---------------------------------------------------------------------------*/

/* Bits a value takes without a dictionary, from two blocks of the column. */
static uint32_t bits_without(struct db_encoder *e, const struct db_chunk_rows *rows,
                             const struct db_chunk_column_in *column)
{
    uint32_t blocks = rows->count / DB_VECTOR_ROWS, values = 0;
    bool try_lz4 = false;
    chr_buf_reset(&e->trial);
    for (uint32_t i = 0; i < 2; i++) {
        struct block b = {.row = i * (blocks / 2) * DB_VECTOR_ROWS};
        b.rows = CHR_MIN(rows->count - b.row, (uint32_t)DB_VECTOR_ROWS);
        dense_values(e, rows, column, &b);
        put_block(e, rows, column, &b, &try_lz4, &e->trial);
        values += b.rows;
    }
    return (uint32_t)(e->trial.len * 8 / values);
}

static chr_err choose_dictionary(struct db_encoder *e, const struct db_chunk_rows *rows,
                                 const struct db_chunk_column_in *column)
{
    e->dict.used = false;
    if (db_type_is_bytes(column->type))
        return db__dict_strings(&e->dict, column, rows->first, rows->count);
    uint32_t distinct;
    if (column->type == DB_BOOLEAN || column->id >= DB_COLUMN_RECEIVED_AT ||
        !db__dict_numbers_few(column->data, column->validity, rows->first, rows->count, &distinct))
        return CHR_OK;
    uint32_t width = 1;
    while ((1u << width) < distinct)
        width++;
    /* A dictionary costs its reader a look-up a value: it must save a fifth. */
    uint32_t bits = bits_without(e, rows, column);
    if ((width + distinct * 64 / rows->count) * 5 > bits * 4)
        return CHR_OK;
    return db__dict_numbers(&e->dict, column->data, column->validity, rows->first, rows->count,
                            distinct * 8 + 64);
}

/* What to try after `rows` rows of the chunk came to `bytes`. */
static uint32_t fewer_rows(uint32_t count, uint32_t rows, size_t bytes)
{
    uint64_t fit = (uint64_t)rows * DB_CHUNK_VALUE_BYTES_MAX / bytes * 15 / 16;
    if (fit >= count)
        fit = count - 1;
    if (fit > DB_VECTOR_ROWS)
        fit -= fit % DB_VECTOR_ROWS; /* whole blocks */
    else if (fit > 64)
        fit -= fit % 64; /* whole words of the bitmaps */
    return fit ? (uint32_t)fit : 1;
}

static void add_stats(struct db_encoder *e, struct db_stats_builder *stats, enum db_type type,
                      const struct block *b)
{
    struct db_stats_codes codes = {.codes = e->dense_codes, .entries = e->dict.entries};
    bool by_code = e->dict.used && db_type_is_bytes(type);
    if (by_code && e->dict.ranked) {
        codes.ranks = e->dict.ranks;
        codes.by_rank = e->dict.by_rank;
    }
    db__stats_add(stats, b->row, b->rows, b->values, b->valid, by_code ? &codes : NULL);
}

/* Without ranks the statistics have not seen the entries; for the chunk as a whole the dictionary
 * says as much (every entry is used). */
static void add_unranked(const struct db_encoder *e, struct db_stats_acc *total)
{
    if (total->bounds_known || e->dict.count == 0)
        return;
    total->min_s = total->max_s = e->dict.entries[0];
    total->bounds_known = true;
    for (uint32_t i = 1; i < e->dict.count; i++) {
        if (chr_slice_cmp(e->dict.entries[i], total->min_s) < 0)
            total->min_s = e->dict.entries[i];
        if (chr_slice_cmp(e->dict.entries[i], total->max_s) > 0)
            total->max_s = e->dict.entries[i];
    }
}

static void put_fixed(const struct db_chunk_rows *rows, const struct db_chunk_column_in *column,
                      uint32_t blocks, struct chr_buf *out)
{
    uint8_t fixed[DB_COLUMN_FIXED_BYTES] = {0};
    chr_put_u32le(fixed + 8, rows->count);
    chr_put_u16le(fixed + 12, column->id);
    fixed[14] = (uint8_t)column->type;
    chr_buf_reset(out);
    chr_buf_add(out, fixed, sizeof fixed);
    for (uint32_t b = 0; b < blocks; b++)
        chr_buf_add_u32le(out, 0);
}

/* All blocks alike: keeps one. */
static void fold_uniform(uint32_t blocks, struct chr_buf *out)
{
    uint32_t begin = DB_COLUMN_FIXED_BYTES + 4 * blocks;
    uint32_t len = chr_get_u32le(out->ptr + DB_COLUMN_FIXED_BYTES) - begin;
    if (blocks < 2 || out->len != begin + (size_t)blocks * len ||
        !is_constant(out->ptr + begin, len))
        return;
    for (uint32_t b = 1; b < blocks; b++) {
        if (memcmp(out->ptr + begin, out->ptr + begin + (size_t)b * len, len) != 0)
            return;
    }
    memmove(out->ptr + DB_COLUMN_FIXED_BYTES + 4, out->ptr + begin, len);
    out->len = DB_COLUMN_FIXED_BYTES + 4 + len;
    chr_put_u32le(out->ptr + DB_COLUMN_FIXED_BYTES, (uint32_t)out->len);
    out->ptr[15] |= DB_COLUMN_UNIFORM;
}

static bool too_large(const struct chr_buf *buf, size_t more)
{
    return buf->failed || buf->len + more > DB_CHUNK_VALUE_BYTES_MAX;
}

/* A single row may be larger than the limit, up to what an entry can carry. */
static chr_err check_single_row(const struct db_chunk_column_in *column, const struct chr_buf *buf,
                                struct chr_errmsg *msg)
{
    if (!buf->failed && buf->len <= DB_CHUNK_STRING_BYTES_MAX)
        return CHR_OK;
    if (db_type_is_bytes(column->type))
        return chr_fail(msg, CHR_ETOOBIG, "column %u: a string of more than %u bytes", column->id,
                        DB_CHUNK_STRING_BYTES_MAX);
    return CHR_ENOMEM;
}

chr_err db__column_encode(struct db_encoder *e, struct db_stats_builder *stats,
                          const struct db_chunk_rows *rows, const struct db_chunk_column_in *column,
                          struct db_encoded *out, uint32_t *fit, struct chr_errmsg *msg)
{
    struct chr_buf *buf = &out->column;
    uint32_t blocks = (rows->count + DB_VECTOR_ROWS - 1) / DB_VECTOR_ROWS;
    bool try_lz4 = true;
    out->rows = 0;
    chr_err err = choose_dictionary(e, rows, column);
    if (err)
        return err;
    chr_buf_reset(&e->trial);
    if (e->dict.used) {
        db__dict_put(&e->dict, column->type, &e->ints, &e->heap, &e->trial);
        if (db_type_is_bytes(column->type))
            db__dict_rank(&e->dict);
    }
    size_t dictionary = e->trial.len;
    db__stats_begin(stats, rows, column->type);
    put_fixed(rows, column, blocks, buf);
    for (uint32_t i = 0; i < blocks; i++) {
        struct block b = {.row = i * DB_VECTOR_ROWS};
        b.rows = CHR_MIN(rows->count - b.row, (uint32_t)DB_VECTOR_ROWS);
        dense_values(e, rows, column, &b);
        put_block(e, rows, column, &b, &try_lz4, buf);
        if (too_large(buf, dictionary) && rows->count > 1) {
            size_t bytes = buf->failed ? DB_CHUNK_BUFFER_BYTES_MAX : buf->len + dictionary;
            *fit = fewer_rows(rows->count, b.row + b.rows, bytes);
            return CHR_OK;
        }
        if (rows->count == 1 && (err = check_single_row(column, buf, msg)) != CHR_OK)
            return err;
        if (b.ones)
            add_stats(e, stats, column->type, &b);
        chr_put_u32le(buf->ptr + DB_COLUMN_FIXED_BYTES + 4 * (size_t)i, (uint32_t)buf->len);
    }
    fold_uniform(blocks, buf);
    if (e->dict.used) {
        chr_put_u32le(buf->ptr + 16, (uint32_t)buf->len);
        chr_buf_add_slice(buf, chr_buf_slice(&e->trial));
        buf->failed |= e->trial.failed;
    }
    if (too_large(buf, 0) && rows->count > 1) {
        *fit = fewer_rows(rows->count, rows->count,
                          buf->failed ? DB_CHUNK_BUFFER_BYTES_MAX : buf->len);
        return CHR_OK;
    }
    if (buf->failed)
        return CHR_ENOMEM;
    db_value_seal(buf->ptr, buf->len, DB_CHUNK_COLUMN, DB_CHUNK_VERSION);
    db__stats_end(stats, column->validity);
    if (e->dict.used && db_type_is_bytes(column->type))
        add_unranked(e, &stats->total);
    chr_buf_reset(&out->runs);
    if (rows->run_stats && column->id < DB_COLUMN_RECEIVED_AT)
        db__runs_put(e, stats, column, &out->runs);
    out->total = stats->total;
    out->rows = *fit = rows->count;
    return CHR_OK;
}
