#include "broker/snapshot_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/files.h"

/* -- Writing ------------------------------------------------------------------------------------*/

chr_err snapshot_writer_open(struct snapshot_writer *w, const char *path, struct chr_errmsg *msg)
{
    memset(w, 0, sizeof *w);
    w->fd = -1;
    chr_buf_init(&w->part, DB_SNAPSHOT_PART_BYTES_MAX);
    int n = snprintf(w->path, sizeof w->path, "%s", path);
    int m = snprintf(w->partial, sizeof w->partial, "%s.partial", path);
    if (n < 0 || m < 0 || (size_t)m >= sizeof w->partial)
        return chr_fail(msg, CHR_ETOOBIG, "the path is too long: %s", path);
    if (files_exist(path))
        return chr_fail(msg, CHR_EEXIST, "%s is there already", path);
    w->fd = open(w->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (w->fd < 0)
        return chr_fail(msg, chr_err_from_errno(errno), "can't create %s: %s", w->partial,
                        strerror(errno));
    return db_snapshot_receiver_begin(NULL, &w->receiver, msg);
}

static chr_err write_part(struct snapshot_writer *w, struct chr_errmsg *msg)
{
    struct chr_errmsg why = {{0}};
    chr_err err = db_snapshot_receiver_put(w->receiver, chr_buf_slice(&w->part), &why);
    if (err)
        return chr_fail(msg, err, "what came is no snapshot: %s", why.text);
    for (size_t done = 0; done < w->part.len;) {
        ssize_t n = write(w->fd, w->part.ptr + done, w->part.len - done);
        if (n < 0 && errno != EINTR)
            return chr_fail(msg, chr_err_from_errno(errno), "can't write %s: %s", w->partial,
                            strerror(errno));
        done += n > 0 ? (size_t)n : 0;
    }
    w->bytes += w->part.len;
    chr_buf_reset(&w->part);
    return CHR_OK;
}

chr_err snapshot_writer_add(struct snapshot_writer *w, chr_slice bytes, struct chr_errmsg *msg)
{
    while (bytes.len) {
        bool in_head = w->part.len < DB_SNAPSHOT_HEAD_BYTES;
        size_t want = in_head ? DB_SNAPSHOT_HEAD_BYTES : db_snapshot_part_bytes(w->part.ptr);
        size_t take = CHR_MIN(want - w->part.len, bytes.len);
        chr_buf_add(&w->part, bytes.ptr, take);
        if (w->part.failed)
            return chr_fail(msg, CHR_ENOMEM, "out of memory");
        bytes = chr_slice_of(bytes.ptr + take, bytes.len - take);
        if (w->part.len < DB_SNAPSHOT_HEAD_BYTES)
            continue;
        want = db_snapshot_part_bytes(w->part.ptr);
        if (want == 0)
            return chr_fail(msg, CHR_EMALFORMED, "what came is no snapshot: at byte %" PRIu64,
                            w->bytes);
        chr_err err = w->part.len == want ? write_part(w, msg) : CHR_OK;
        if (err)
            return err;
    }
    return CHR_OK;
}

chr_err snapshot_writer_finish(struct snapshot_writer *w, struct chr_errmsg *msg)
{
    struct chr_errmsg why = {{0}};
    if (w->part.len)
        return chr_fail(msg, CHR_EMALFORMED, "the snapshot broke off after %" PRIu64 " bytes",
                        w->bytes + w->part.len);
    chr_err err = db_snapshot_receiver_finish(w->receiver, &why);
    if (err)
        return chr_fail(msg, err, "the snapshot broke off after %" PRIu64 " bytes: %s", w->bytes,
                        why.text);
    if (fsync(w->fd))
        return chr_fail(msg, chr_err_from_errno(errno), "can't write %s: %s", w->partial,
                        strerror(errno));
    err = files_rename(w->partial, w->path, msg);
    if (err)
        return err;
    w->partial[0] = 0;
    const char *slash = strrchr(w->path, '/');
    char dir[FILES_PATH_MAX];
    snprintf(dir, sizeof dir, "%.*s", slash > w->path ? (int)(slash - w->path) : 1,
             slash ? w->path : ".");
    return files_sync_dir(dir, msg);
}

void snapshot_writer_close(struct snapshot_writer *w)
{
    if (w->fd >= 0) {
        close(w->fd);
        if (w->partial[0])
            (void)unlink(w->partial);
    }
    w->fd = -1;
    db_snapshot_receiver_end(w->receiver);
    w->receiver = NULL;
    chr_buf_free(&w->part);
}

/* -- Reading ------------------------------------------------------------------------------------*/

/* Up to len bytes, fewer only at the end of the file. */
static chr_err read_some(FILE *file, const char *path, uint8_t *out, size_t len, size_t *got,
                         struct chr_errmsg *msg)
{
    *got = fread(out, 1, len, file);
    return ferror(file) ? chr_fail(msg, CHR_EIO, "can't read %s: %s", path, strerror(errno))
                        : CHR_OK;
}

static chr_err read_part(FILE *file, const char *path, uint64_t offset, struct chr_buf *part,
                         struct chr_errmsg *msg)
{
    size_t got = 0, more = 0;
    chr_buf_reset(part);
    chr_err err = chr_buf_reserve(part, DB_SNAPSHOT_HEAD_BYTES);
    if (!err)
        err = read_some(file, path, part->ptr, DB_SNAPSHOT_HEAD_BYTES, &got, msg);
    if (err || got == 0)
        return err;
    size_t len = got == DB_SNAPSHOT_HEAD_BYTES ? db_snapshot_part_bytes(part->ptr) : 1;
    if (len == 0)
        return chr_fail(msg, CHR_EMALFORMED,
                        "%s, byte %" PRIu64 ": here should be a part of a snapshot, but is none",
                        path, offset);
    part->len = got;
    if (got == DB_SNAPSHOT_HEAD_BYTES) {
        err = chr_buf_reserve(part, len - got);
        if (!err)
            err = read_some(file, path, part->ptr + got, len - got, &more, msg);
        part->len += more;
    }
    if (!err && (got < DB_SNAPSHOT_HEAD_BYTES || part->len < len))
        err = chr_fail(msg, CHR_EMALFORMED,
                       "%s is cut short: it ends at byte %" PRIu64
                       ", in the part that begins at byte %" PRIu64,
                       path, offset + part->len, offset);
    return err;
}

chr_err snapshot_file_each(const char *path,
                           chr_err (*each)(void *arg, chr_slice part, struct chr_errmsg *msg),
                           void *arg, struct chr_errmsg *msg)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return chr_fail(msg, errno == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errno),
                        "can't open %s: %s", path, strerror(errno));
    struct chr_buf part;
    chr_buf_init(&part, DB_SNAPSHOT_PART_BYTES_MAX);
    chr_err err = CHR_OK;
    for (uint64_t offset = 0; !err; offset += part.len) {
        struct chr_errmsg why = {{0}};
        err = read_part(file, path, offset, &part, msg);
        if (err || part.len == 0)
            break;
        err = each(arg, chr_buf_slice(&part), &why);
        if (err)
            (void)chr_fail(msg, err, "%s, byte %" PRIu64 ": %.160s", path, offset,
                           why.text[0] ? why.text : chr_strerror(err));
    }
    chr_buf_free(&part);
    fclose(file);
    return err;
}

static chr_err verify_part(void *arg, chr_slice part, struct chr_errmsg *msg)
{
    return db_snapshot_receiver_put(arg, part, msg);
}

chr_err snapshot_file_verify(const char *path, struct db_snapshot_info *info,
                             struct chr_errmsg *msg)
{
    db_snapshot_receiver *receiver;
    struct chr_errmsg why = {{0}};
    chr_err err = db_snapshot_receiver_begin(NULL, &receiver, msg);
    if (err)
        return err;
    err = snapshot_file_each(path, verify_part, receiver, msg);
    if (!err && db_snapshot_receiver_next(receiver) == 0)
        err = chr_fail(msg, CHR_EMALFORMED, "%s is empty", path);
    if (!err && (err = db_snapshot_receiver_finish(receiver, &why)))
        (void)chr_fail(msg, err, "%s is cut short: %s", path, why.text);
    if (!err) {
        *info = *db_snapshot_receiver_info(receiver);
        info->origin.members = (chr_slice){0};
    }
    db_snapshot_receiver_end(receiver);
    return err;
}
