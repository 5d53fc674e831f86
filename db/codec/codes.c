/* db/codec/codes.c: places in a dictionary, 16 bits each in memory.
 *
 *     codec number 1 | constant: code 2
 *                    | for:      width 1, then 16-bit lanes of kernels.h (few codes: sequential)
 *                    | rle:      runs 2, width 1, codes of the runs, their last rows 11 bits each
 *
 * The same ideas as for integers, but at four times as many values an instruction, and no sums. A
 * column of the series key is sorted, so its codes are few runs. */
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

#define ROW_BITS 11
_Static_assert(1 << ROW_BITS == DB_VECTOR_ROWS, "a row of a block fits");
#define LANES_FROM 1024

static unsigned positions_of(uint32_t count)
{
    return (count + DB_LANES16 - 1) / DB_LANES16;
}

static size_t packed_bytes(uint32_t count, unsigned width)
{
    if (count < LANES_FROM)
        return db__bits_bytes(count, width);
    return ((size_t)positions_of(count) * width + 15) / 16 * (DB_LANES16 * 2);
}

static unsigned width_of(uint32_t max)
{
    return max ? 32u - (unsigned)__builtin_clz(max) : 0;
}

static void put_packed(struct db_ints *ints, const uint16_t *codes, uint32_t count, unsigned width,
                       struct chr_buf *out)
{
    chr_buf_add_u8(out, (uint8_t)width);
    if (count < LANES_FROM) {
        for (uint32_t i = 0; i < count; i++)
            ints->scratch[i] = codes[i];
        db__bits_put(ints->scratch, count, width, out);
        return;
    }
    size_t bytes = packed_bytes(count, width);
    if (out->failed || chr_buf_reserve(out, bytes)) {
        out->failed = true;
        return;
    }
    uint16_t padded[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    memcpy(padded, codes, count * sizeof *codes);
    memset(padded + count, 0, (DB_VECTOR_ROWS - count) * sizeof *codes);
    db__kernels()->pack16(padded, width, positions_of(count), out->ptr + out->len);
    out->len += bytes;
}

static void put_runs(struct db_ints *ints, const uint16_t *codes, uint32_t count, uint32_t runs,
                     unsigned width, struct chr_buf *out)
{
    chr_buf_add_u16le(out, (uint16_t)runs);
    chr_buf_add_u8(out, (uint8_t)width);
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || codes[i] != codes[i - 1])
            ints->scratch[n++] = codes[i];
    }
    CHR_ASSERT(n == runs);
    db__bits_put(ints->scratch, runs, width, out);
    n = 0;
    for (uint32_t i = 1; i <= count; i++) {
        if (i == count || codes[i] != codes[i - 1])
            ints->scratch[n++] = i - 1;
    }
    db__bits_put(ints->scratch, runs, ROW_BITS, out);
}

void db__codes_encode(struct db_ints *ints, const uint16_t *codes, uint32_t count,
                      struct chr_buf *out)
{
    const struct db_kernels *k = db__kernels();
    uint32_t runs = 1 + k->changes16(codes, count);
    if (runs == 1) {
        chr_buf_add_u8(out, DB_CODEC_CONSTANT);
        chr_buf_add_u16le(out, codes[0]);
        return;
    }
    unsigned width = width_of(k->max16(codes, count));
    size_t runs_bytes = 2 + db__bits_bytes(runs, width) + db__bits_bytes(runs, ROW_BITS);
    if (runs_bytes < packed_bytes(count, width)) {
        chr_buf_add_u8(out, DB_CODEC_RLE);
        put_runs(ints, codes, count, runs, width, out);
    } else {
        chr_buf_add_u8(out, DB_CODEC_FOR);
        put_packed(ints, codes, count, width, out);
    }
}

static chr_err get_packed(struct db_cursor *in, uint32_t count, uint16_t *out)
{
    unsigned width = db__cursor_u8(in);
    if (width == 0 || width > 16)
        return db__cursor_bad(in, "code width not in 1 .. 16");
    if (count < LANES_FROM) {
        uint64_t wide[DB_VECTOR_ROWS] CHR_ALIGNED(64);
        chr_err err = db__bits_get(in, count, width, 0, wide);
        for (uint32_t i = 0; !err && i < count; i++)
            out[i] = (uint16_t)wide[i];
        return err;
    }
    const uint8_t *from = db__cursor_take(in, packed_bytes(count, width));
    if (!from)
        return CHR_ECORRUPT;
    db__kernels()->unpack16(from, width, positions_of(count), out);
    return CHR_OK;
}

static chr_err get_runs(struct db_cursor *in, uint32_t count, uint16_t *out)
{
    uint64_t codes[DB_VECTOR_ROWS] CHR_ALIGNED(64), lasts[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    uint32_t runs = db__cursor_u16(in);
    unsigned width = db__cursor_u8(in);
    if (runs == 0 || runs > count)
        return db__cursor_bad(in, "no runs, or more than values");
    if (width > 16)
        return db__cursor_bad(in, "code width above 16");
    chr_err err = db__bits_get(in, runs, width, 0, codes);
    if (!err)
        err = db__bits_get(in, runs, ROW_BITS, 0, lasts);
    if (err)
        return err;
    uint32_t at = 0;
    for (uint32_t r = 0; r < runs; r++) {
        if (lasts[r] < at || lasts[r] >= count)
            return db__cursor_bad(in, "ends of runs do not rise");
        for (; at <= lasts[r]; at++)
            out[at] = (uint16_t)codes[r];
    }
    return at == count ? CHR_OK : db__cursor_bad(in, "runs end before the values do");
}

chr_err db__codes_decode(struct db_cursor *in, uint32_t count, uint32_t dict_count, uint16_t *out,
                         bool *constant, enum db_codec *codec)
{
    unsigned number = db__cursor_u8(in);
    chr_err err = CHR_OK;
    *constant = false;
    *codec = (enum db_codec)number;
    switch (number) {
    case DB_CODEC_CONSTANT:
        out[0] = db__cursor_u16(in);
        *constant = true;
        count = 1;
        break;
    case DB_CODEC_FOR:
        err = get_packed(in, count, out);
        break;
    case DB_CODEC_RLE:
        err = get_runs(in, count, out);
        break;
    default:
        return db__cursor_bad(in, "a codec that dictionary codes do not have");
    }
    if (err || in->why)
        return CHR_ECORRUPT;
    if (db__kernels()->max16(out, count) >= dict_count)
        return db__cursor_bad(in, "a code past the end of the dictionary");
    return CHR_OK;
}
