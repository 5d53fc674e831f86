/* tests/e2e/shim_disk.c: LD_PRELOAD: makes the disk of a running node slow, sick or full.
 *
 * Looks at the file $SHIM_CONTROL at each call; it holds any of these words:
 *     hold-sync       fdatasync and fsync of log segments wait until the word is gone
 *     fail-sync       they fail with EIO
 *     slow-sync=MS    they take so many milliseconds more
 *     full            writes to files of the data directory (log segments, data.mdb) fail with
 *                     ENOSPC, as on a full disk
 *     no-install      so do those to a snapshot that is being received
 * Files are told by name: ".seg" is the log, "data.mdb" the database. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static bool read_control(char text[256])
{
    const char *path = getenv("SHIM_CONTROL");
    if (!path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, 255);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    return true;
}

static bool told(const char *word)
{
    char text[256];
    return read_control(text) && strstr(text, word) != NULL;
}

/* WORD=n: n; else 0. */
static long told_number(const char *word)
{
    char text[256];
    const char *at = read_control(text) ? strstr(text, word) : NULL;
    return at ? strtol(at + strlen(word) + 1, NULL, 10) : 0;
}

static bool names(int fd, const char *part)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return false;
    path[n] = 0;
    return strstr(path, part) != NULL;
}

static bool is_log(int fd)
{
    return names(fd, ".seg");
}

static bool is_data(int fd)
{
    return is_log(fd) || names(fd, "data.mdb");
}

static int sync_call(int fd, const char *name)
{
    if (is_log(fd)) {
        while (told("hold-sync"))
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        long ms = told_number("slow-sync");
        if (ms > 0)
            nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000},
                      NULL);
        if (told("fail-sync")) {
            errno = EIO;
            return -1;
        }
    }
    int (*real)(int);
    *(void **)&real = dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fdatasync(int fd)
{
    return sync_call(fd, "fdatasync");
}

int fsync(int fd)
{
    return sync_call(fd, "fsync");
}

static bool full(int fd)
{
    if (!(is_data(fd) && told("full")) && !(names(fd, "install.new") && told("no-install")))
        return false;
    errno = ENOSPC;
    return true;
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    if (full(fd))
        return -1;
    ssize_t (*real)(int, const void *, size_t, off_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pwrite64");
    return real(fd, buf, len, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t offset)
{
    return pwrite(fd, buf, len, (off_t)offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    if (full(fd))
        return -1;
    ssize_t (*real)(int, const struct iovec *, int, off_t);
    *(void **)&real = dlsym(RTLD_NEXT, "pwritev64");
    return real(fd, iov, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t offset)
{
    return pwritev(fd, iov, count, (off_t)offset);
}

ssize_t write(int fd, const void *buf, size_t len)
{
    if (full(fd))
        return -1;
    ssize_t (*real)(int, const void *, size_t);
    *(void **)&real = dlsym(RTLD_NEXT, "write");
    return real(fd, buf, len);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    if (full(fd))
        return -1;
    ssize_t (*real)(int, const struct iovec *, int);
    *(void **)&real = dlsym(RTLD_NEXT, "writev");
    return real(fd, iov, count);
}
