/* db/series_key.c: a series as bytes in order. */
#include "db/series_key.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"

static void add_u64be(struct chr_buf *out, uint64_t v)
{
    uint8_t bytes[8];
    chr_put_u64be(bytes, v);
    chr_buf_add(out, bytes, sizeof bytes);
}

static uint64_t f64_ordered(double f)
{
    uint64_t bits;
    if (isnan(f))
        return UINT64_MAX;
    f += 0.0; /* -0.0 becomes 0.0 */
    memcpy(&bits, &f, sizeof bits);
    return bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
}

void db__series_add(struct chr_buf *out, const struct db_value *v)
{
    chr_buf_add_u8(out, v->null ? 2 : 1);
    if (v->null)
        return;
    switch (v->type) {
    case DB_FLOAT:
        add_u64be(out, f64_ordered(v->f64));
        return;
    case DB_BOOLEAN:
        chr_buf_add_u8(out, v->boolean);
        return;
    case DB_STRING:
    case DB_BLOB: {
        const uint8_t *p = v->bytes.ptr, *end = p + v->bytes.len;
        while (p < end) {
            const uint8_t *zero = memchr(p, 0, (size_t)(end - p));
            chr_buf_add(out, p, (size_t)((zero ? zero + 1 : end) - p));
            if (zero)
                chr_buf_add_u8(out, 0xff);
            p = zero ? zero + 1 : end;
        }
        chr_buf_add_u8(out, 0);
        chr_buf_add_u8(out, 0);
        return;
    }
    default:
        add_u64be(out, (uint64_t)v->i64 ^ UINT64_C(1) << 63);
        return;
    }
}

bool db__series_before(chr_slice key, chr_slice first_cut)
{
    return chr_slice_cmp(key, first_cut) < 0;
}

bool db__series_after(chr_slice key, chr_slice last_cut)
{
    if (last_cut.len == DB__SERIES_CUT && chr_slice_starts(key, last_cut))
        return false;
    return chr_slice_cmp(key, last_cut) > 0;
}
