/* bench/bench_log.c: what the log adds to the disk.
 *
 * Alternates, group by group and so under the same weather, a bare pwrite + fdatasync of a group's
 * bytes into a zero-written file with raft_log_append + raft_log_sync of the same bytes. The log
 * works as in a node: segments prepared by the helper thread, recycled after cut_prefix. Payloads
 * vary (seed below). Prints one JSON object.
 *
 *   bench_log DIR [GROUP_BYTES 65536] [ENTRIES 1] [GROUPS 3000] */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "bench/histogram.h"
#include "bench/net.h"
#include "raft/log.h"

#define BARE_BYTES (64u << 20)
#define RETAIN     (128u << 20) /* bytes of log kept before a cut */

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench_log: %s: %s\n", what, why);
    exit(1);
}

static int open_zeroed(const char *path)
{
    static uint8_t zeros[1 << 20];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(path, strerror(errno));
    for (size_t at = 0; at < BARE_BYTES; at += sizeof zeros)
        if (pwrite(fd, zeros, sizeof zeros, (off_t)at) != (ssize_t)sizeof zeros)
            fail("write", strerror(errno));
    if (fsync(fd) != 0)
        fail("fsync", strerror(errno));
    return fd;
}

static void remove_file(void *arg, const char *name)
{
    const struct raft_io *io = arg;
    (void)io->unlink(io->ctx, name);
}

static void report(const char *name, const struct histogram *h, size_t bytes)
{
    uint64_t p50 = histogram_at(h, 0.5);
    printf("\"%s\":{\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f,"
           "\"mb_per_s_at_p50\":%.0f}",
           name, (double)p50 / 1e3, (double)histogram_at(h, 0.99) / 1e3,
           (double)histogram_at(h, 0.999) / 1e3, (double)h->max_ns / 1e3,
           (double)bytes * 1e3 / (double)(p50 ? p50 : 1));
}

int main(int argc, char **argv)
{
    static struct histogram bare, synced, appended;
    size_t bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 65536;
    size_t entries_count = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
    unsigned long groups = argc > 4 ? strtoul(argv[4], NULL, 10) : 3000;
    char dir[2048], path[2200];
    if (argc < 2 || entries_count == 0 || entries_count > 4096 || bytes > BARE_BYTES / 2 ||
        bytes / entries_count > RAFT_ENTRY_BYTES_MAX ||
        snprintf(dir, sizeof dir, "%s/bench_log.tmp", argv[1]) >= (int)sizeof dir) {
        fprintf(stderr, "bench_log DIR [GROUP_BYTES] [ENTRIES] [GROUPS]\n");
        return 2;
    }
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        fail(dir, strerror(errno));
    snprintf(path, sizeof path, "%s/bench_log_bare.tmp", argv[1]);
    int fd = open_zeroed(path);

    struct raft_io io;
    struct chr_errmsg msg;
    if (raft_io_posix_open(dir, &io, &msg))
        fail("open", msg.text);
    (void)io.list(io.ctx, remove_file, &io);
    struct raft_log_options options = {.recycle_max = 4, .prepare_ahead = true};
    struct raft_log_recovery recovery;
    raft_log *log;
    if (raft_log_open(&io, &options, 1, &log, &recovery, &msg))
        fail("open", msg.text);

    const uint64_t seed = 42;
    struct chr_random random = {.state = seed};
    uint8_t *block = malloc(bytes + 4096);
    struct raft_entry *entries = calloc(entries_count, sizeof *entries);
    if (!block || !entries)
        fail("malloc", "out of memory");
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t r = chr_random_u64(&random);
        memcpy(block + i, &r, 8);
    }
    size_t each = bytes / entries_count, at = 0;
    uint64_t index = 1;
    uint64_t writes_us = 0;
    for (unsigned long g = 0; g < groups; g++) {
        uint64_t r = chr_random_u64(&random);
        memcpy(block, &r, bytes < 8 ? bytes : 8);
        uint64_t t0 = net_now_ns();
        if (pwrite(fd, block, bytes, (off_t)at) != (ssize_t)bytes || fdatasync(fd) != 0)
            fail("write", strerror(errno));
        uint64_t t1 = net_now_ns();
        at = at + 2 * bytes <= BARE_BYTES ? at + bytes : 0;
        for (size_t i = 0; i < entries_count; i++, index++)
            entries[i] = (struct raft_entry){.index = index,
                                             .term = 1,
                                             .hlc = index,
                                             .type = RAFT_ENTRY_DATA,
                                             .bytes = {.ptr = block + i * each, .len = each}};
        uint64_t t2 = net_now_ns();
        if (raft_log_append(log, entries, entries_count))
            fail("append", "refused");
        uint64_t t3 = net_now_ns();
        if (raft_log_sync(log, &msg))
            fail("sync", msg.text);
        uint64_t t4 = net_now_ns();
        histogram_add(&bare, t1 - t0);
        histogram_add(&appended, t3 - t2);
        histogram_add(&synced, t4 - t3);
        writes_us += (t4 - t2) / 1000;
        if (raft_log_bytes(log) > RETAIN &&
            raft_log_cut_prefix(log, raft_log_synced(log) - 1) != CHR_OK)
            fail("cut", "refused");
    }
    struct raft_log_stats stats;
    raft_log_stats(log, &stats);
    printf("{\"group_bytes\":%zu,\"entries\":%zu,\"groups\":%lu,\"seed\":%" PRIu64 ",", bytes,
           entries_count, groups, seed);
    report("bare", &bare, bytes);
    printf(",");
    report("append", &appended, bytes);
    printf(",");
    report("sync", &synced, bytes);
    printf(",\"groups_per_s\":%.0f,\"sync_to_bare_p50\":%.2f,\"sync_to_bare_p99\":%.2f,"
           "\"segments_recycled\":%" PRIu64 ",\"fdatasyncs\":%" PRIu64 "}\n",
           (double)groups * 1e6 / (double)(writes_us ? writes_us : 1),
           (double)histogram_at(&synced, 0.5) / (double)histogram_at(&bare, 0.5),
           (double)histogram_at(&synced, 0.99) / (double)histogram_at(&bare, 0.99),
           stats.segments_recycled, stats.syncs);
    raft_log_close(log);
    (void)io.list(io.ctx, remove_file, &io);
    raft_io_posix_close(&io);
    rmdir(dir);
    close(fd);
    unlink(path);
    free(block);
    free(entries);
    return 0;
}
