/* db/codec/bitmap.c: which rows are NULL, and BOOLEAN columns.
 *
 *     form 1 | zeros, ones: nothing more
 *            | raw:  a bit a row, lowest first, rounded up to bytes
 *            | runs: first bit 1, runs 2, their last rows 11 bits each */
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/codec/codec.h"

#define ROW_BITS 11
_Static_assert(1 << ROW_BITS == DB_VECTOR_ROWS, "a row of a block fits");
#define WORDS DB_BIT_WORDS(DB_VECTOR_ROWS)

static void clear_past(uint64_t *bits, uint32_t count)
{
    for (size_t w = DB_BIT_WORDS(count); w < WORDS; w++)
        bits[w] = 0;
    if (count & 63)
        bits[count >> 6] &= (UINT64_C(1) << (count & 63)) - 1;
}

static uint32_t count_ones(const uint64_t *bits)
{
    unsigned n = 0;
    for (size_t w = 0; w < WORDS; w++)
        n += (unsigned)__builtin_popcountll(bits[w]);
    return n;
}

void db__bitmap_put(const uint64_t *bits, uint32_t count, struct chr_buf *out)
{
    CHR_ASSERT(count >= 1 && count <= DB_VECTOR_ROWS);
    uint64_t own[WORDS], changes[WORDS]; /* changes: bit i: bit i differs from bit i - 1 */
    memcpy(own, bits, DB_BIT_WORDS(count) * 8);
    clear_past(own, count);
    uint32_t ones = count_ones(own);
    if (ones == 0 || ones == count) {
        chr_buf_add_u8(out, ones ? DB_BITMAP_ONES : DB_BITMAP_ZEROS);
        return;
    }
    uint64_t carry = own[0] & 1;
    for (size_t w = 0; w < WORDS; w++) {
        changes[w] = own[w] ^ (own[w] << 1 | carry);
        carry = own[w] >> 63;
    }
    clear_past(changes, count);
    uint32_t runs = 1 + count_ones(changes);
    if (3 + db__bits_bytes(runs, ROW_BITS) >= (count + 7) / 8) {
        chr_buf_add_u8(out, DB_BITMAP_RAW);
        chr_buf_add(out, own, (count + 7) / 8);
        return;
    }
    uint64_t lasts[DB_VECTOR_ROWS];
    uint32_t n = 0;
    for (size_t w = 0; w < WORDS; w++) {
        for (uint64_t left = changes[w]; left; left &= left - 1)
            lasts[n++] = w * 64 + (unsigned)__builtin_ctzll(left) - 1;
    }
    lasts[n++] = count - 1;
    CHR_ASSERT(n == runs);
    chr_buf_add_u8(out, DB_BITMAP_RUNS);
    chr_buf_add_u8(out, (uint8_t)(own[0] & 1));
    chr_buf_add_u16le(out, (uint16_t)runs);
    db__bits_put(lasts, runs, ROW_BITS, out);
}

static void set_range(uint64_t *bits, uint32_t from, uint32_t to)
{
    for (; from < to && (from & 63); from++)
        db_bit_set(bits, from);
    for (; from + 64 <= to; from += 64)
        bits[from >> 6] = ~UINT64_C(0);
    for (; from < to; from++)
        db_bit_set(bits, from);
}

static chr_err get_runs(struct db_cursor *in, uint32_t count, uint64_t *bits)
{
    uint64_t lasts[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    bool one = db__cursor_u8(in) & 1;
    uint32_t runs = db__cursor_u16(in);
    if (runs == 0 || runs > count)
        return db__cursor_bad(in, "no runs, or more than rows");
    chr_err err = db__bits_get(in, runs, ROW_BITS, 0, lasts);
    if (err)
        return err;
    uint32_t at = 0;
    for (uint32_t r = 0; r < runs; r++, one = !one) {
        if (lasts[r] < at || lasts[r] >= count)
            return db__cursor_bad(in, "ends of runs do not rise");
        if (one)
            set_range(bits, at, (uint32_t)lasts[r] + 1);
        at = (uint32_t)lasts[r] + 1;
    }
    return at == count ? CHR_OK : db__cursor_bad(in, "runs end before the rows do");
}

chr_err db__bitmap_get(struct db_cursor *in, uint32_t count, uint64_t *bits, uint32_t *ones)
{
    chr_err err = CHR_OK;
    memset(bits, 0, WORDS * 8);
    unsigned form = db__cursor_u8(in);
    switch (form) {
    case DB_BITMAP_ZEROS:
        break;
    case DB_BITMAP_ONES:
        set_range(bits, 0, count);
        break;
    case DB_BITMAP_RAW: {
        const uint8_t *p = db__cursor_take(in, (count + 7) / 8);
        if (!p)
            return CHR_ECORRUPT;
        memcpy(bits, p, (count + 7) / 8);
        clear_past(bits, count);
        break;
    }
    case DB_BITMAP_RUNS:
        err = get_runs(in, count, bits);
        break;
    default:
        return db__cursor_bad(in, "unknown form of bitmap");
    }
    if (err || in->why)
        return CHR_ECORRUPT;
    *ones = count_ones(bits);
    return CHR_OK;
}
