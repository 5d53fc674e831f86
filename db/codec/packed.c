/* db/codec/packed.c: bit-packing around a base, with the odd outlier kept apart.
 *
 *     offset  size
 *          0     1  width: bits of a packed difference, 0 .. 64
 *          1     2  patches: how many outliers
 *          3     8  base
 *         11     -  differences, db__bits_bytes(count, width)
 *          -   2*p  places of the outliers
 *          -   8*p  their differences
 *
 * One gap in a regular series or one error code of a sensor would otherwise set the width for 2,047
 * others. Whether a border below the maximum pays is guessed from a sample of 32 and then settled
 * with an exact histogram, so that columns without outliers cost nothing more. */
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

#define HEAD_BYTES  11
#define PATCH_BYTES 10
/* From here on values lie in lanes (kernels.h): below, the rounding of each lane to a whole word
 * would cost more than it saves time. */
#define LANES_FROM 1024
#define SAMPLE     32

static unsigned bits_of(uint64_t v)
{
    return v ? 64u - (unsigned)__builtin_clzll(v) : 0;
}

static unsigned positions_of(uint32_t count)
{
    return (count + DB_LANES64 - 1) / DB_LANES64;
}

size_t db__bits_bytes(uint32_t count, unsigned width)
{
    if (count < LANES_FROM)
        return ((size_t)count * width + 7) / 8;
    return ((size_t)positions_of(count) * width + 63) / 64 * (DB_LANES64 * 8);
}

static void put_sequential(const uint64_t *values, uint32_t count, unsigned width, uint8_t *out)
{
    uint64_t word = 0;
    unsigned used = 0;
    for (uint32_t i = 0; i < count; i++) {
        word |= values[i] << used;
        if (used + width < 64) {
            used += width;
            continue;
        }
        chr_put_u64le(out, word);
        out += 8;
        word = used ? values[i] >> (64 - used) : 0;
        used = used + width - 64;
    }
    for (; used; used = used > 8 ? used - 8 : 0, word >>= 8)
        *out++ = (uint8_t)word;
}

/* values: [DB_VECTOR_ROWS], what is past count is set to 0. */
void db__bits_put(uint64_t *values, uint32_t count, unsigned width, struct chr_buf *out)
{
    size_t bytes = db__bits_bytes(count, width);
    if (bytes == 0)
        return;
    if (out->failed || chr_buf_reserve(out, bytes)) {
        out->failed = true;
        return;
    }
    uint8_t *to = out->ptr + out->len;
    if (count < LANES_FROM) {
        put_sequential(values, count, width, to);
    } else {
        unsigned positions = positions_of(count);
        memset(values + count, 0, (positions * DB_LANES64 - count) * sizeof *values);
        db__kernels()->pack64(values, width, positions, to);
    }
    out->len += bytes;
}

/* Value i of a sequential stream whose last byte is before `end`. */
static uint64_t get_one(const uint8_t *from, const uint8_t *end, uint32_t i, unsigned width)
{
    size_t bit = (size_t)i * width;
    uint8_t near[16] = {0};
    const uint8_t *p = from + (bit >> 3);
    size_t n = CHR_MIN((size_t)(end - p), (size_t)9);
    memcpy(near, p, n);
    unsigned shift = bit & 7;
    uint64_t v = chr_get_u64le(near) >> shift;
    if (shift + width > 64)
        v |= (uint64_t)near[8] << (64 - shift);
    return width == 64 ? v : v & ((UINT64_C(1) << width) - 1);
}

chr_err db__bits_get(struct db_cursor *in, uint32_t count, unsigned width, uint64_t base,
                     uint64_t *out)
{
    const struct db_kernels *k = db__kernels();
    if (width == 0) {
        k->fill64(out, count, base);
        return CHR_OK;
    }
    if (width > 64)
        return db__cursor_bad(in, "bit width above 64");
    size_t bytes = db__bits_bytes(count, width);
    const uint8_t *from = db__cursor_take(in, bytes);
    if (!from)
        return CHR_ECORRUPT;
    if (count >= LANES_FROM) {
        k->unpack64(from, width, positions_of(count), base, out);
        return CHR_OK;
    }
    /* Eight bytes at a time as far as they lie inside the value, the last ones with care. */
    size_t readable = (size_t)(in->end - from);
    uint32_t quick = 0;
    if (width <= 56 && readable >= 8) {
        uint64_t most = ((uint64_t)(readable - 8) * 8 + 7) / width + 1;
        quick = most < count ? (uint32_t)most : count;
        k->unpack_seq(from, width, quick, base, out);
    }
    for (uint32_t i = quick; i < count; i++)
        out[i] = get_one(from, from + bytes, i, width) + base;
    return CHR_OK;
}

static void set_plan(struct db_packed_plan *plan, uint32_t count, uint64_t base, unsigned width,
                     uint32_t patches)
{
    plan->base = base;
    plan->width = width;
    plan->patches = patches;
    plan->bytes = HEAD_BYTES + db__bits_bytes(count, width) + (size_t)patches * PATCH_BYTES;
}

void db__packed_plan(const uint64_t *values, uint32_t count, int64_t min, int64_t max,
                     struct db_packed_plan *plan)
{
    unsigned width = bits_of((uint64_t)max - (uint64_t)min);
    set_plan(plan, count, (uint64_t)min, width, 0);
    if (width <= 3 || count < 2 * SAMPLE)
        return; /* nothing to be gained */

    int64_t sample[SAMPLE];
    for (uint32_t i = 0; i < SAMPLE; i++) {
        int64_t v = (int64_t)values[(size_t)i * count / SAMPLE + 1];
        uint32_t j = i;
        for (; j > 0 && sample[j - 1] > v; j--)
            sample[j] = sample[j - 1];
        sample[j] = v;
    }
    /* All but the lowest and the highest: one outlier in 32 is about where patches stop paying. */
    uint64_t low = (uint64_t)sample[1], high = (uint64_t)sample[SAMPLE - 2];
    unsigned typical = bits_of(high - low);
    if (typical + 2 > width)
        return;
    uint64_t base = (uint64_t)min;
    if (bits_of(high - base) > typical + 1) {
        /* Outliers below: the base is the least of what is about where the sample is. */
        uint64_t reach = CHR_MIN(high - low, low - (uint64_t)min);
        base = (uint64_t)db__kernels()->min_from((const int64_t *)values, count,
                                                 (int64_t)(low - reach));
    }
    uint32_t histogram[65] = {0};
    db__kernels()->bit_histogram(values, count, base, histogram);
    uint32_t patches = 0;
    for (unsigned w = 64; w-- > 0;) {
        patches += histogram[w + 1];
        if ((size_t)patches * PATCH_BYTES >= plan->bytes)
            break;
        if (HEAD_BYTES + db__bits_bytes(count, w) + (size_t)patches * PATCH_BYTES < plan->bytes)
            set_plan(plan, count, base, w, patches);
    }
}

void db__packed_put(const uint64_t *values, uint32_t count, const struct db_packed_plan *plan,
                    uint64_t *scratch, struct chr_buf *out)
{
    chr_buf_add_u8(out, (uint8_t)plan->width);
    chr_buf_add_u16le(out, (uint16_t)plan->patches);
    chr_buf_add_u64le(out, plan->base);
    uint16_t places[DB_VECTOR_ROWS];
    uint64_t outliers[DB_VECTOR_ROWS];
    uint32_t patches = 0;
    if (plan->width < 64) {
        uint32_t over = db__kernels()->residuals(values, count, plan->base, plan->width, scratch);
        CHR_ASSERT(over == plan->patches);
        for (uint32_t i = 0; over && i < count; i++) {
            if (scratch[i] >> plan->width) {
                places[patches] = (uint16_t)i;
                outliers[patches++] = scratch[i];
                scratch[i] = 0;
            }
        }
    } else {
        db__kernels()->residuals(values, count, plan->base, 63, scratch);
    }
    db__bits_put(scratch, count, plan->width, out);
    for (uint32_t i = 0; i < patches; i++)
        chr_buf_add_u16le(out, places[i]);
    for (uint32_t i = 0; i < patches; i++)
        chr_buf_add_u64le(out, outliers[i]);
}

chr_err db__packed_get(struct db_cursor *in, uint32_t count, uint64_t *out)
{
    const uint8_t *head = db__cursor_take(in, HEAD_BYTES);
    if (!head)
        return CHR_ECORRUPT;
    unsigned width = head[0];
    uint32_t patches = chr_get_u16le(head + 1);
    uint64_t base = chr_get_u64le(head + 3);
    if (patches > count)
        return db__cursor_bad(in, "more outliers than values");
    chr_err err = db__bits_get(in, count, width, base, out);
    if (err || patches == 0)
        return err;
    const uint8_t *places = db__cursor_take(in, (size_t)patches * 2);
    const uint8_t *outliers = db__cursor_take(in, (size_t)patches * 8);
    if (!outliers)
        return CHR_ECORRUPT;
    for (uint32_t i = 0; i < patches; i++) {
        uint32_t at = chr_get_u16le(places + (size_t)i * 2);
        if (at >= count)
            return db__cursor_bad(in, "an outlier past the last value");
        out[at] = base + chr_get_u64le(outliers + (size_t)i * 8);
    }
    return CHR_OK;
}
