/* raft/io_posix.c: struct raft_io over a directory of the real disk.
 *
 * Every call loops over EINTR and short transfers, so that above there is either all of it or an
 * error. ENOSPC and EDQUOT become CHR_ENOSPC (wait for room), but not from fdatasync: there the
 * kernel has dropped what it could not place, which is as bad as EIO. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "raft/io.h"

struct posix {
    int dir; /* file names are relative to it */
};

static int dir_of(void *ctx)
{
    return ((struct posix *)ctx)->dir;
}

static chr_err posix_open(void *ctx, const char *name, bool create, int *handle)
{
    int fd;
    do
        fd = openat(dir_of(ctx), name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0640);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return errno == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errno);
    *handle = fd;
    return CHR_OK;
}

static void posix_close(void *ctx, int handle)
{
    (void)ctx;
    close(handle); /* EINTR: Linux has closed it all the same */
}

static chr_err posix_pread(void *ctx, int handle, void *buf, size_t len, uint64_t offset,
                           size_t *got)
{
    (void)ctx;
    *got = 0;
    while (*got < len) {
        ssize_t n = pread(handle, (uint8_t *)buf + *got, len - *got, (off_t)(offset + *got));
        if (n > 0)
            *got += (size_t)n;
        else if (n == 0)
            break;
        else if (errno != EINTR)
            return chr_err_from_errno(errno);
    }
    return CHR_OK;
}

static chr_err posix_pwrite(void *ctx, int handle, const void *buf, size_t len, uint64_t offset)
{
    (void)ctx;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pwrite(handle, (const uint8_t *)buf + done, len - done, (off_t)(offset + done));
        if (n >= 0)
            done += (size_t)n; /* short: the next round says why */
        else if (errno != EINTR)
            return chr_err_from_errno(errno);
    }
    return CHR_OK;
}

static chr_err posix_sync(void *ctx, int handle)
{
    (void)ctx;
    int r;
    /* EINTR (network file systems): nothing was reported lost, so asking again is sound. */
    do
        r = fdatasync(handle);
    while (r != 0 && errno == EINTR);
    return r == 0 ? CHR_OK : CHR_EIO;
}

static chr_err posix_size(void *ctx, int handle, uint64_t *bytes)
{
    (void)ctx;
    struct stat st;
    if (fstat(handle, &st) != 0)
        return chr_err_from_errno(errno);
    *bytes = (uint64_t)st.st_size;
    return CHR_OK;
}

static chr_err posix_truncate(void *ctx, int handle, uint64_t bytes)
{
    (void)ctx;
    int r;
    do
        r = ftruncate(handle, (off_t)bytes);
    while (r != 0 && errno == EINTR);
    return r == 0 ? CHR_OK : chr_err_from_errno(errno);
}

static chr_err posix_rename(void *ctx, const char *from, const char *to)
{
    if (renameat(dir_of(ctx), from, dir_of(ctx), to) == 0)
        return CHR_OK;
    return errno == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errno);
}

static chr_err posix_unlink(void *ctx, const char *name)
{
    if (unlinkat(dir_of(ctx), name, 0) == 0)
        return CHR_OK;
    return errno == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errno);
}

static chr_err posix_sync_dir(void *ctx)
{
    int r;
    do
        r = fsync(dir_of(ctx));
    while (r != 0 && errno == EINTR);
    return r == 0 ? CHR_OK : CHR_EIO;
}

static chr_err posix_list(void *ctx, void (*each)(void *arg, const char *name), void *arg)
{
    /* A description of its own: the offset of dir is shared, and closedir closes. */
    int fd = openat(dir_of(ctx), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        chr_err err = chr_err_from_errno(errno);
        if (fd >= 0)
            close(fd);
        return err;
    }
    struct dirent *entry;
    while ((errno = 0, entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.' && strlen(entry->d_name) < RAFT_IO_NAME_MAX)
            each(arg, entry->d_name);
    }
    chr_err err = errno ? chr_err_from_errno(errno) : CHR_OK;
    closedir(dir);
    return err;
}

static chr_err posix_free_bytes(void *ctx, uint64_t *bytes)
{
    struct statvfs vfs;
    if (fstatvfs(dir_of(ctx), &vfs) != 0)
        return chr_err_from_errno(errno);
    *bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return CHR_OK;
}

chr_err raft_io_posix_open(const char *dir, struct raft_io *io, struct chr_errmsg *msg)
{
    struct posix *posix = malloc(sizeof *posix);
    if (!posix)
        return chr_fail(msg, CHR_ENOMEM, "log directory %s: out of memory", dir);
    do
        posix->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (posix->dir < 0 && errno == EINTR);
    if (posix->dir < 0) {
        int errnum = errno;
        free(posix);
        return chr_fail(msg, errnum == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errnum),
                        "log directory %s: %s", dir, strerror(errnum));
    }
    *io = (struct raft_io){
        .open = posix_open,
        .close = posix_close,
        .pread = posix_pread,
        .pwrite = posix_pwrite,
        .sync = posix_sync,
        .size = posix_size,
        .truncate = posix_truncate,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .sync_dir = posix_sync_dir,
        .list = posix_list,
        .free_bytes = posix_free_bytes,
        .ctx = posix,
    };
    return CHR_OK;
}

void raft_io_posix_close(struct raft_io *io)
{
    if (!io || !io->ctx)
        return;
    close(dir_of(io->ctx));
    free(io->ctx);
    io->ctx = NULL;
}
