/* db/codec/heap.c: strings that have no dictionary.
 *
 *     lengths: integer stream | method 1 | bytes 4 | bytes stored 4 | stored bytes
 *
 * method 0: as they are; 1: LZ4 block format. Compressed only where a quarter is saved: otherwise a
 * reader points straight into the value. */
#include <lz4.h>
#include <string.h>

#include "base/bytes.h"
#include "db/codec/codec.h"
#include "db/codec/kernels.h"

#define METHOD_PLAIN 0
#define METHOD_LZ4   1
/* LZ4 cannot say more than 255 bytes with one; what claims to is a forgery that wants memory. */
#define LZ4_RATIO_MAX 255
/* LZ4 on fewer bytes finds nothing. */
#define LZ4_BYTES_MIN 256
/* 2: somewhat quicker than the default and nearly as small on text that repeats. */
#define LZ4_ACCELERATION 2

static bool put_lz4(chr_slice plain, struct chr_buf *out)
{
    if (plain.len < LZ4_BYTES_MIN || plain.len > LZ4_MAX_INPUT_SIZE)
        return false;
    int room = (int)(plain.len - plain.len / 4);
    if (out->failed || chr_buf_reserve(out, 9 + (size_t)room))
        return false; /* storing it plain will fail and say so */
    uint8_t *to = out->ptr + out->len;
    int stored = LZ4_compress_fast((const char *)plain.ptr, (char *)to + 9, (int)plain.len, room,
                                   LZ4_ACCELERATION);
    if (stored <= 0)
        return false;
    to[0] = METHOD_LZ4;
    chr_put_u32le(to + 1, (uint32_t)plain.len);
    chr_put_u32le(to + 5, (uint32_t)stored);
    out->len += 9 + (size_t)stored;
    return true;
}

void db__bytes_put(chr_slice plain, bool *try_lz4, struct chr_buf *out)
{
    if (*try_lz4) {
        if (put_lz4(plain, out))
            return;
        *try_lz4 = plain.len < LZ4_BYTES_MIN;
    }
    chr_buf_add_u8(out, METHOD_PLAIN);
    chr_buf_add_u32le(out, (uint32_t)plain.len);
    chr_buf_add_u32le(out, (uint32_t)plain.len);
    chr_buf_add_slice(out, plain);
}

void db__heap_put(struct db_ints *ints, const chr_slice *strings, uint32_t count, bool *try_lz4,
                  struct chr_buf *scratch, struct chr_buf *out)
{
    int64_t lengths[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    chr_buf_reset(scratch);
    for (uint32_t i = 0; i < count; i++) {
        lengths[i] = (int64_t)strings[i].len;
        chr_buf_add_slice(scratch, strings[i]);
    }
    if (scratch->failed) {
        out->failed = true;
        return;
    }
    db__ints_encode(ints, lengths, count, out);
    db__bytes_put(chr_buf_slice(scratch), try_lz4, out);
}

chr_err db__bytes_get(struct db_cursor *in, struct chr_buf *unpacked, chr_slice *bytes)
{
    unsigned method = db__cursor_u8(in);
    uint32_t plain = db__cursor_u32(in), stored = db__cursor_u32(in);
    const uint8_t *p = db__cursor_take(in, stored);
    if (!p)
        return CHR_ECORRUPT;
    if (method == METHOD_PLAIN) {
        *bytes = chr_slice_of(p, stored);
        return plain == stored ? CHR_OK : db__cursor_bad(in, "plain heap of two lengths");
    }
    if (method != METHOD_LZ4)
        return db__cursor_bad(in, "unknown compression");
    if (plain > (uint64_t)stored * LZ4_RATIO_MAX || plain > unpacked->max_bytes)
        return db__cursor_bad(in, "heap larger than it can be");
    chr_buf_reset(unpacked);
    if (chr_buf_reserve(unpacked, plain)) {
        db__cursor_bad(in, "no memory to decompress into");
        return CHR_ENOMEM;
    }
    if (LZ4_decompress_safe((const char *)p, (char *)unpacked->ptr, (int)stored, (int)plain) !=
        (int)plain)
        return db__cursor_bad(in, "heap does not decompress");
    unpacked->len = plain;
    *bytes = chr_buf_slice(unpacked);
    return CHR_OK;
}

chr_err db__heap_get(struct db_cursor *in, uint32_t count, int64_t *lengths,
                     struct chr_buf *unpacked, chr_slice *out)
{
    bool constant;
    enum db_codec codec;
    chr_slice bytes;
    chr_err err = db__ints_decode(in, count, lengths, &constant, &codec);
    if (!err)
        err = db__bytes_get(in, unpacked, &bytes);
    if (err)
        return err;
    if (constant)
        db__kernels()->fill64((uint64_t *)lengths, count, (uint64_t)lengths[0]);
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t len = (uint64_t)lengths[i];
        if (len > bytes.len - at)
            return db__cursor_bad(in, "strings longer than their heap");
        out[i] = chr_slice_of(bytes.ptr + at, (size_t)len);
        at += (size_t)len;
    }
    return at == bytes.len ? CHR_OK : db__cursor_bad(in, "strings shorter than their heap");
}
