/* tests/db/preload_fail.c: LD_PRELOAD: makes the n-th write or sync of a process fail.
 *
 *     FAIL_CALL=write|sync   FAIL_AT=n   FAIL_ERRNO=28   FAIL_SHORT=1 (half is written, no error)
 *
 * write: pwrite, pwritev, pwrite64, write to files named *.mdb; sync: fdatasync, fsync, msync. The
 * count begins when FAIL_ARMED is created as a file (its path is the value), so that opening works.
 * FAIL_FROM=1: every call from the n-th on. */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static unsigned long calls;

static unsigned long number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : 0;
}

static bool is_database(int fd)
{
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 4)
        return false;
    path[n] = 0;
    return strcmp(path + n - 4, ".mdb") == 0;
}

/* Is this the call that fails? */
static bool fails(const char *call)
{
    const char *want = getenv("FAIL_CALL"), *armed = getenv("FAIL_ARMED");
    if (!want || strcmp(want, call) != 0 || !armed || access(armed, F_OK) != 0)
        return false;
    calls++;
    unsigned long at = number("FAIL_AT");
    return number("FAIL_FROM") ? calls >= at : calls == at;
}

static void *next(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f)
        abort();
    return f;
}

typedef ssize_t pwrite_fn(int, const void *, size_t, off_t);
typedef ssize_t pwritev_fn(int, const struct iovec *, int, off_t);
typedef ssize_t write_fn(int, const void *, size_t);
typedef int sync_fn(int);

/* What the failing write says, and in *len how much of it happens nevertheless. */
static bool spoil(int fd, size_t *len)
{
    if (!is_database(fd) || !fails("write"))
        return false;
    *len = number("FAIL_SHORT") ? *len / 2 : 0;
    errno = (int)number("FAIL_ERRNO");
    return true;
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    static pwrite_fn *real;
    if (!real)
        *(void **)&real = next("pwrite");
    size_t part = len;
    if (spoil(fd, &part)) {
        int number_of = errno;
        ssize_t n = part ? real(fd, bytes, part, offset) : -1;
        if (!part)
            errno = number_of;
        return n;
    }
    return real(fd, bytes, len, offset);
}

EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset)
{
    return pwrite(fd, bytes, len, offset);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    static pwritev_fn *real;
    if (!real)
        *(void **)&real = next("pwritev");
    size_t part = 2;
    if (spoil(fd, &part)) {
        int number_of = errno;
        if (part)
            return pwrite(fd, parts[0].iov_base, parts[0].iov_len / 2, offset);
        errno = number_of;
        return -1;
    }
    return real(fd, parts, count, offset);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return pwritev(fd, parts, count, offset);
}

EXPORT ssize_t write(int fd, const void *bytes, size_t len)
{
    static write_fn *real;
    if (!real)
        *(void **)&real = next("write");
    size_t part = len;
    if (spoil(fd, &part)) {
        int number_of = errno;
        if (part)
            return real(fd, bytes, part);
        errno = number_of;
        return -1;
    }
    return real(fd, bytes, len);
}

static int sync_or_fail(const char *name, sync_fn **real, int fd)
{
    if (!*real)
        *(void **)real = next(name);
    if (is_database(fd) && fails("sync")) {
        errno = (int)number("FAIL_ERRNO");
        return -1;
    }
    return (*real)(fd);
}

EXPORT int fdatasync(int fd)
{
    static sync_fn *real;
    return sync_or_fail("fdatasync", &real, fd);
}

EXPORT int fsync(int fd)
{
    static sync_fn *real;
    return sync_or_fail("fsync", &real, fd);
}
