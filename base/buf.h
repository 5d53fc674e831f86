/* base/buf.h: a growable byte buffer that is born with its maximum.
 *
 * Appends past the maximum (or when malloc fails) set `failed` and add nothing, and so does
 * every append after them: what is there is always a prefix of what was meant. A writer of many
 * small pieces checks once at the end. One owner, no locks. */
#ifndef CHR_BASE_BUF_H
#define CHR_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

struct chr_buf {
    uint8_t *ptr; /* NULL until the first append */
    size_t len;
    size_t capacity;
    size_t max_bytes; /* len never passes it */
    bool failed;      /* an append did not fit; sticky until reset */
};

void chr_buf_init(struct chr_buf *buf, size_t max_bytes);
void chr_buf_free(struct chr_buf *buf);
/* Length 0, not failed; keeps the memory. */
void chr_buf_reset(struct chr_buf *buf);
/* Room for `extra` more bytes, so that writing at ptr+len is allowed (len is the caller's to move).
 * CHR_EFULL past the maximum, CHR_ENOMEM; `failed` stays as it was. */
CHR_MUST_USE chr_err chr_buf_reserve(struct chr_buf *buf, size_t extra);
void chr_buf_add(struct chr_buf *buf, const void *bytes, size_t len);
void chr_buf_add_slice(struct chr_buf *buf, chr_slice s);
void chr_buf_add_cstr(struct chr_buf *buf, const char *cstr);
void chr_buf_add_u8(struct chr_buf *buf, uint8_t v);
void chr_buf_add_u16le(struct chr_buf *buf, uint16_t v);
void chr_buf_add_u32le(struct chr_buf *buf, uint32_t v);
void chr_buf_add_u64le(struct chr_buf *buf, uint64_t v);
void chr_buf_addf(struct chr_buf *buf, const char *format, ...) CHR_PRINTF(2, 3);
/* Zero bytes up to the next multiple of a power of two of len. */
void chr_buf_pad(struct chr_buf *buf, size_t power_of_two);
CHR_INLINE chr_slice chr_buf_slice(const struct chr_buf *buf)
{
    return chr_slice_of(buf->ptr, buf->len);
}
/* Drops the first n bytes (moves the rest). */
void chr_buf_consume(struct chr_buf *buf, size_t n);

#endif
