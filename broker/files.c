#include "broker/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static chr_err fail(struct chr_errmsg *msg, const char *what, const char *path)
{
    int number = errno;
    return chr_fail(msg, number == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(number),
                    "can't %s %s: %s", what, path, strerror(number));
}

chr_err files_join(char out[FILES_PATH_MAX], const char *a, const char *b, struct chr_errmsg *msg)
{
    int n = snprintf(out, FILES_PATH_MAX, "%s/%s", a, b);
    return n < 0 || n >= FILES_PATH_MAX ? chr_fail(msg, CHR_ETOOBIG, "the path is too long: %s", a)
                                        : CHR_OK;
}

bool files_exist(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

chr_err files_make_dir(const char *path, struct chr_errmsg *msg)
{
    return mkdir(path, 0700) && errno != EEXIST ? fail(msg, "create directory", path) : CHR_OK;
}

chr_err files_sync_dir(const char *path, struct chr_errmsg *msg)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    chr_err err = ok ? CHR_OK : fail(msg, "sync directory", path);
    if (fd >= 0)
        close(fd);
    return err;
}

chr_err files_rename(const char *from, const char *to, struct chr_errmsg *msg)
{
    int number = rename(from, to) ? errno : 0;
    return number ? chr_fail(msg, number == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(number),
                             "can't rename %s to %s: %s", from, to, strerror(number))
                  : CHR_OK;
}

/* Names inside dir_fd. */
static bool remove_at(int dir_fd, const char *name)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return true;
    if (errno != EISDIR && errno != EPERM)
        return false;
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return errno == ENOENT;
    }
    bool ok = true;
    for (struct dirent *e; ok && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            ok = remove_at(fd, e->d_name);
    int number = errno;
    closedir(d);
    errno = number;
    return ok && (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT);
}

chr_err files_remove_tree(const char *path, struct chr_errmsg *msg)
{
    return remove_at(AT_FDCWD, path) ? CHR_OK : fail(msg, "remove", path);
}

static bool write_all(int fd, chr_slice bytes)
{
    while (bytes.len) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            bytes = chr_slice_of(bytes.ptr + n, bytes.len - (size_t)n);
    }
    return true;
}

chr_err files_replace(const char *path, chr_slice bytes, struct chr_errmsg *msg)
{
    char fresh[FILES_PATH_MAX], dir[FILES_PATH_MAX];
    int n = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof fresh)
        return chr_fail(msg, CHR_ETOOBIG, "the path is too long: %s", path);
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write_all(fd, bytes) && fsync(fd) == 0;
    chr_err err = ok ? CHR_OK : fail(msg, "write", fresh);
    if (fd >= 0)
        close(fd);
    if (!err)
        err = files_rename(fresh, path, msg);
    if (err)
        (void)unlink(fresh);
    return err ? err : files_sync_dir(dir, msg);
}

chr_err files_read(const char *path, struct chr_buf *out, struct chr_errmsg *msg)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail(msg, "read", path);
    char bytes[4096];
    ssize_t n;
    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        chr_buf_add(out, bytes, (size_t)n);
    chr_err err = n < 0 ? fail(msg, "read", path) : CHR_OK;
    close(fd);
    if (!err && out->failed)
        err = chr_fail(msg, CHR_EFULL, "%s is too large", path);
    return err;
}
