/* bench/bench_fdatasync.c: what one durable write costs on a filesystem.
 *
 * Writes blocks one after the other into a file that was written with zeros and synced before, as
 * a log with zero-written segments does, and calls fdatasync after each. Prints one JSON object.
 *
 *   bench_fdatasync DIR [BYTES 4096] [COUNT 2000] */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/histogram.h"
#include "bench/net.h"

#define FILE_BYTES (64u << 20) /* a log segment */

static void fail(const char *what)
{
    fprintf(stderr, "bench_fdatasync: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_zeroed(const char *path)
{
    static uint8_t zeros[1 << 20];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(path);
    for (size_t at = 0; at < FILE_BYTES; at += sizeof zeros)
        if (pwrite(fd, zeros, sizeof zeros, (off_t)at) != (ssize_t)sizeof zeros)
            fail("write");
    if (fsync(fd) != 0)
        fail("fsync");
    return fd;
}

int main(int argc, char **argv)
{
    static struct histogram h;
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 4096;
    unsigned long count = argc > 3 ? strtoul(argv[3], NULL, 10) : 2000;
    char path[4096];
    if (argc < 2 || bytes == 0 || bytes > FILE_BYTES ||
        snprintf(path, sizeof path, "%s/fdatasync.tmp", argv[1]) >= (int)sizeof path) {
        fprintf(stderr, "bench_fdatasync DIR [BYTES] [COUNT]\n");
        return 2;
    }
    uint8_t *block = malloc(bytes);
    if (!block)
        fail("malloc");
    memset(block, 0xA5, bytes);
    int fd = open_zeroed(path);
    size_t at = 0;
    uint64_t start_ns = net_now_ns();
    for (unsigned long i = 0; i < count; i++) {
        memcpy(block, &i, bytes < sizeof i ? bytes : sizeof i);
        uint64_t before_ns = net_now_ns();
        if (pwrite(fd, block, bytes, (off_t)at) != (ssize_t)bytes || fdatasync(fd) != 0)
            fail("write");
        histogram_add(&h, net_now_ns() - before_ns);
        at = at + 2 * bytes <= FILE_BYTES ? at + bytes : 0;
    }
    double seconds = (double)(net_now_ns() - start_ns) / 1e9;
    close(fd);
    unlink(path);
    free(block);
    printf("{\"bytes\":%zu,\"count\":%lu,\"per_s\":%.0f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"p999_us\":%.1f,\"max_us\":%.1f}\n",
           bytes, count, (double)count / seconds, (double)histogram_at(&h, 0.5) / 1e3,
           (double)histogram_at(&h, 0.99) / 1e3, (double)histogram_at(&h, 0.999) / 1e3,
           (double)h.max_ns / 1e3);
    return 0;
}
