/* base/buf.c: growth by doubling up to the maximum. */
#include "base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

/* The first allocation; most packets fit. */
#define FIRST_CAPACITY 256

void chr_buf_init(struct chr_buf *buf, size_t max_bytes)
{
    *buf = (struct chr_buf){.max_bytes = max_bytes};
}

void chr_buf_free(struct chr_buf *buf)
{
    free(buf->ptr);
    chr_buf_init(buf, buf->max_bytes);
}

void chr_buf_reset(struct chr_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
}

static CHR_NOINLINE chr_err grow(struct chr_buf *buf, size_t need)
{
    size_t capacity = buf->capacity ? buf->capacity : FIRST_CAPACITY;
    while (capacity < need) {
        if (capacity > SIZE_MAX / 2) {
            capacity = need;
            break;
        }
        capacity *= 2;
    }
    capacity = CHR_MIN(capacity, buf->max_bytes);
    uint8_t *ptr = realloc(buf->ptr, capacity);
    if (!ptr)
        return CHR_ENOMEM;
    buf->ptr = ptr;
    buf->capacity = capacity;
    return CHR_OK;
}

chr_err chr_buf_reserve(struct chr_buf *buf, size_t extra)
{
    if (CHR_LIKELY(extra <= buf->capacity - buf->len))
        return CHR_OK;
    if (extra > buf->max_bytes - buf->len)
        return CHR_EFULL;
    return grow(buf, buf->len + extra);
}

/* Where `len` more bytes go, already counted; NULL (and failed) when they do not fit. */
static inline uint8_t *extend(struct chr_buf *buf, size_t len)
{
    if (CHR_UNLIKELY(buf->failed || chr_buf_reserve(buf, len) != CHR_OK)) {
        buf->failed = true;
        return NULL;
    }
    uint8_t *at = buf->ptr + buf->len;
    buf->len += len;
    return at;
}

void chr_buf_add(struct chr_buf *buf, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    uint8_t *at = extend(buf, len);
    if (at)
        memcpy(at, bytes, len);
}

void chr_buf_add_slice(struct chr_buf *buf, chr_slice s)
{
    chr_buf_add(buf, s.ptr, s.len);
}

void chr_buf_add_cstr(struct chr_buf *buf, const char *cstr)
{
    chr_buf_add(buf, cstr, strlen(cstr));
}

void chr_buf_add_u8(struct chr_buf *buf, uint8_t v)
{
    uint8_t *at = extend(buf, sizeof v);
    if (at)
        *at = v;
}

void chr_buf_add_u16le(struct chr_buf *buf, uint16_t v)
{
    uint8_t *at = extend(buf, sizeof v);
    if (at)
        chr_put_u16le(at, v);
}

void chr_buf_add_u32le(struct chr_buf *buf, uint32_t v)
{
    uint8_t *at = extend(buf, sizeof v);
    if (at)
        chr_put_u32le(at, v);
}

void chr_buf_add_u64le(struct chr_buf *buf, uint64_t v)
{
    uint8_t *at = extend(buf, sizeof v);
    if (at)
        chr_put_u64le(at, v);
}

void chr_buf_addf(struct chr_buf *buf, const char *format, ...)
{
    if (buf->failed)
        return;
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    size_t room = buf->capacity - buf->len;
    int len = vsnprintf(room ? (char *)buf->ptr + buf->len : NULL, room, format, args);
    if (len < 0) {
        buf->failed = true;
    } else if ((size_t)len < room) {
        buf->len += (size_t)len;
    } else {
        /* vsnprintf wants a byte for its zero, which the maximum may not have: then the text is
         * made aside. */
        if (chr_buf_reserve(buf, (size_t)len + 1) == CHR_OK) {
            vsnprintf((char *)buf->ptr + buf->len, (size_t)len + 1, format, again);
            buf->len += (size_t)len;
        } else {
            char *text = (size_t)len <= buf->max_bytes - buf->len ? malloc((size_t)len + 1) : NULL;
            if (text) {
                vsnprintf(text, (size_t)len + 1, format, again);
                chr_buf_add(buf, text, (size_t)len);
                free(text);
            } else {
                buf->failed = true;
            }
        }
    }
    va_end(again);
    va_end(args);
}

void chr_buf_pad(struct chr_buf *buf, size_t power_of_two)
{
    CHR_ASSERT(power_of_two && (power_of_two & (power_of_two - 1)) == 0);
    size_t zeros = -buf->len & (power_of_two - 1);
    if (zeros == 0)
        return;
    uint8_t *at = extend(buf, zeros);
    if (at)
        memset(at, 0, zeros);
}

void chr_buf_consume(struct chr_buf *buf, size_t n)
{
    CHR_ASSERT(n <= buf->len);
    buf->len -= n;
    if (buf->len && n)
        memmove(buf->ptr, buf->ptr + n, buf->len);
}
