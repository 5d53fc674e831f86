/* raft/log_reader.c: a window on a segment file.
 *
 * Recovery slides it over whole segments; raft_log_read pins it, so that the records found stay
 * where they are in the caller's buffer and no byte is copied twice. */
#include "raft/log_internal.h"

void raft__reader_file(struct raft__reader *reader, int handle, uint64_t limit)
{
    reader->handle = handle;
    reader->limit = limit;
    reader->win_len = 0;
    reader->win_off = 0;
}

/* Reads [off, off + len) to the end of buf; the window gets what came of it. */
static chr_err fill(struct raft__reader *reader, uint64_t off, size_t len)
{
    struct chr_buf *buf = reader->buf;
    size_t want = (size_t)CHR_MIN((uint64_t)CHR_MAX(len, reader->block), reader->limit - off);
    chr_err err = chr_buf_reserve(buf, want);
    if (err && want > len) {
        want = len;
        err = chr_buf_reserve(buf, want);
    }
    if (err)
        return err;
    size_t got;
    err = reader->io->pread(reader->io->ctx, reader->handle, buf->ptr + buf->len, want, off, &got);
    if (err)
        return err;
    buf->len += got;
    reader->win_len += got;
    return CHR_OK;
}

chr_err raft__reader_fetch(struct raft__reader *reader, uint64_t off, size_t len,
                           const uint8_t **ptr)
{
    *ptr = NULL;
    if (off > reader->limit || len > reader->limit - off)
        return CHR_OK;
    uint64_t win_end = reader->win_off + reader->win_len;
    if (off < reader->win_off || off > win_end || reader->win_len == 0 ||
        (!reader->pinned && off + len > win_end)) {
        if (!reader->pinned)
            chr_buf_reset(reader->buf);
        reader->win_at = reader->buf->len;
        reader->win_off = off;
        reader->win_len = 0;
        win_end = off;
    }
    if (off + len > win_end) {
        chr_err err = fill(reader, win_end, (size_t)(off + len - win_end));
        if (err)
            return err;
        if (off + len > reader->win_off + reader->win_len)
            return CHR_OK; /* the file is shorter than it should be */
    }
    *ptr = reader->buf->ptr + reader->win_at + (off - reader->win_off);
    return CHR_OK;
}

int raft__reader_record(struct raft__reader *reader, uint32_t seed, uint64_t off,
                        struct raft__record *record)
{
    const uint8_t *ptr;
    chr_err err = raft__reader_fetch(reader, off, RAFT__RECORD_BYTES, &ptr);
    if (err)
        return err;
    if (!ptr || !raft__record_peek(seed, (uint32_t)off, reader->limit, ptr, record))
        return 0;
    err = raft__reader_fetch(reader, off, record->length, &ptr);
    if (err)
        return err;
    return ptr && raft__record_verify(seed, (uint32_t)off, ptr, record);
}
