/* db/chunk_bits.c: bitmaps at offsets that are no multiple of a word, and values by row. */
#include <string.h>

#include "base/assert.h"
#include "db/chunk_internal.h"

uint32_t db__bits_extract(const uint64_t *bits, uint32_t from, uint32_t count, uint64_t *out)
{
    CHR_ASSERT_HOT(count <= DB_VECTOR_ROWS);
    const uint64_t *words = bits + (from >> 6);
    unsigned shift = from & 63;
    size_t n = DB_BIT_WORDS(count), have = DB_BIT_WORDS(count + shift);
    unsigned ones = 0;
    for (size_t w = 0; w < n; w++) {
        uint64_t v = words[w] >> shift;
        if (shift && w + 1 < have)
            v |= words[w + 1] << (64 - shift);
        if (w + 1 == n && (count & 63))
            v &= (UINT64_C(1) << (count & 63)) - 1;
        out[w] = v;
        ones += (unsigned)__builtin_popcountll(v);
    }
    for (size_t w = n; w < DB_BIT_WORDS(DB_VECTOR_ROWS); w++)
        out[w] = 0;
    return ones;
}

uint32_t db__bits_first(const uint64_t *bits, uint32_t from, uint32_t to)
{
    while (from < to) {
        uint64_t v = bits[from >> 6] >> (from & 63);
        if (v) {
            uint32_t at = from + (uint32_t)__builtin_ctzll(v);
            return at < to ? at : DB_NO_ROW;
        }
        from = (from | 63) + 1;
    }
    return DB_NO_ROW;
}

uint32_t db__bits_last(const uint64_t *bits, uint32_t from, uint32_t to)
{
    while (to > from) {
        uint32_t last = to - 1;
        uint64_t v = bits[last >> 6] << (63 - (last & 63));
        if (v) {
            uint32_t back = (uint32_t)__builtin_clzll(v);
            return back <= last - from ? last - back : DB_NO_ROW;
        }
        to = last & ~UINT32_C(63);
    }
    return DB_NO_ROW;
}

int64_t db__row_bits(const struct db_chunk_column_in *column, uint32_t row)
{
    int64_t bits;
    switch (column->type) {
    case DB_BOOLEAN:
        return column->b8[row] & 1;
    case DB_FLOAT:
        memcpy(&bits, &column->f64[row], 8);
        return bits;
    default:
        if (column->id == DB_COLUMN_ORDINAL)
            return ((const uint32_t *)column->data)[row];
        return column->i64[row];
    }
}

chr_slice db__row_string(const struct db_chunk_column_in *column, uint32_t row)
{
    return column->dict ? column->dict[column->ids[row]] : column->str[row];
}

struct db_value db__value_of_bits(enum db_type type, int64_t bits)
{
    struct db_value v = {.type = type, .null = false};
    if (type == DB_FLOAT)
        memcpy(&v.f64, &bits, 8);
    else if (type == DB_BOOLEAN)
        v.boolean = bits != 0;
    else
        v.i64 = bits;
    return v;
}
