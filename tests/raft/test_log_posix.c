/* tests/raft/test_log_posix.c: the log on a real directory, with its helper thread and readers
 * beside the writer (the thread sanitizer's meal), and the posix io by itself. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/random.h"
#include "raft/log.h"

struct place {
    char dir[128];
    struct raft_io io;
};

static void each_unlink(void *arg, const char *name)
{
    const struct raft_io *io = arg;
    (void)io->unlink(io->ctx, name);
}

static int setup(void **state)
{
    static struct place place;
    chr_log_set_level(CHR_LOG_ERROR);
    const char *tmp = getenv("TMPDIR");
    snprintf(place.dir, sizeof place.dir, "%s/chr_log_XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(place.dir));
    struct chr_errmsg msg;
    assert_int_equal(raft_io_posix_open(place.dir, &place.io, &msg), CHR_OK);
    *state = &place;
    return 0;
}

static int teardown(void **state)
{
    struct place *place = *state;
    (void)place->io.list(place->io.ctx, each_unlink, &place->io);
    raft_io_posix_close(&place->io);
    rmdir(place->dir);
    return 0;
}

static void each_count(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
}

static void test_io(void **state)
{
    struct place *place = *state;
    const struct raft_io *io = &place->io;
    int h, files = 0;
    char buf[16] = {0};
    size_t got;
    uint64_t bytes;
    assert_int_equal(io->open(io->ctx, "a", false, &h), CHR_ENOTFOUND);
    assert_int_equal(io->open(io->ctx, "a", true, &h), CHR_OK);
    assert_true(fcntl(h, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(io->pwrite(io->ctx, h, "hello", 5, 3), CHR_OK);
    assert_int_equal(io->size(io->ctx, h, &bytes), CHR_OK);
    assert_int_equal(bytes, 8);
    assert_int_equal(io->pread(io->ctx, h, buf, sizeof buf, 0, &got), CHR_OK);
    assert_int_equal(got, 8);
    assert_memory_equal(buf, "\0\0\0hello", 8);
    assert_int_equal(io->pread(io->ctx, h, buf, sizeof buf, 8, &got), CHR_OK);
    assert_int_equal(got, 0);
    assert_int_equal(io->sync(io->ctx, h), CHR_OK);
    assert_int_equal(io->rename(io->ctx, "a", "b"), CHR_OK);
    assert_int_equal(io->rename(io->ctx, "a", "c"), CHR_ENOTFOUND);
    assert_int_equal(io->sync_dir(io->ctx), CHR_OK);
    assert_int_equal(io->truncate(io->ctx, h, 2), CHR_OK); /* the handle stays with the file */
    assert_int_equal(io->size(io->ctx, h, &bytes), CHR_OK);
    assert_int_equal(bytes, 2);
    assert_int_equal(io->list(io->ctx, each_count, &files), CHR_OK);
    assert_int_equal(files, 1);
    files = 0;
    assert_int_equal(io->list(io->ctx, each_count, &files), CHR_OK); /* from the start again */
    assert_int_equal(files, 1);
    assert_int_equal(io->free_bytes(io->ctx, &bytes), CHR_OK);
    assert_int_equal(io->unlink(io->ctx, "b"), CHR_OK);
    assert_int_equal(io->unlink(io->ctx, "b"), CHR_ENOTFOUND);
    io->close(io->ctx, h);
    struct raft_io none;
    struct chr_errmsg msg;
    assert_int_equal(raft_io_posix_open("/nowhere/at/all", &none, &msg), CHR_ENOTFOUND);
    assert_non_null(strstr(msg.text, "/nowhere/at/all"));
    assert_int_equal(raft_io_posix_open("/dev/full", &none, &msg), CHR_EIO);
}

/* /dev/full: every write fails with ENOSPC. */
static void test_enospc(void **state)
{
    struct place *place = *state;
    const struct raft_io *io = &place->io;
    char path[256];
    snprintf(path, sizeof path, "%s/full", place->dir);
    assert_int_equal(symlink("/dev/full", path), 0);
    int h;
    assert_int_equal(io->open(io->ctx, "full", false, &h), CHR_OK);
    assert_int_equal(io->pwrite(io->ctx, h, "x", 1, 0), CHR_ENOSPC);
    io->close(io->ctx, h);
}

static const struct raft_log_options options = {.segment_bytes = 256u << 10,
                                                .first_segment_bytes = 64u << 10,
                                                .recycle_max = 2,
                                                .prepare_ahead = true};

static raft_log *open_log(struct place *place, const struct raft_log_options *o, uint64_t start,
                          struct raft_log_recovery *recovery)
{
    struct chr_errmsg msg;
    raft_log *log;
    chr_err err = raft_log_open(&place->io, o, start, &log, recovery, &msg);
    if (err)
        fail_msg("open: %s %s", chr_errname(err), msg.text);
    return log;
}

/* Entry i says i, over and over. */
static size_t fill(uint64_t index, uint64_t *words, size_t words_max)
{
    size_t n = 1 + index * 7 % words_max;
    for (size_t i = 0; i < n; i++)
        words[i] = index * 1000003 + i;
    return n * 8;
}

static chr_err append_one(raft_log *log, uint64_t index)
{
    uint64_t words[64];
    struct raft_entry e = {
        .index = index, .term = 1 + index / 1000, .hlc = index * 10, .type = RAFT_ENTRY_DATA};
    e.bytes = chr_slice_of(words, fill(index, words, CHR_COUNT_OF(words)));
    return raft_log_append(log, &e, 1);
}

static bool right(const struct raft_entry *e)
{
    uint64_t words[64];
    size_t len = fill(e->index, words, CHR_COUNT_OF(words));
    return e->bytes.len == len && memcmp(e->bytes.ptr, words, len) == 0 && e->hlc == e->index * 10;
}

struct reader {
    raft_log *log;
    _Atomic bool stop;
    _Atomic uint64_t entries;
    char failure[200];
    uint64_t seed;
};

static void *read_along(void *arg)
{
    struct reader *r = arg;
    struct chr_random random = {.state = r->seed};
    struct chr_buf buf;
    chr_buf_init(&buf, 8u << 20);
    while (!atomic_load(&r->stop) && !r->failure[0]) {
        struct raft_entry e[64];
        uint64_t first = raft_log_first(r->log), synced = raft_log_synced(r->log), found;
        size_t count = 0;
        if (synced < first)
            continue;
        uint64_t index = first + chr_random_below(&random, synced - first + 1);
        chr_err err = raft_log_read(r->log, index, 16384, &buf, e, CHR_COUNT_OF(e), &count);
        /* The prefix may be cut between the question and the answer. */
        if (err && !(err == CHR_ENOTFOUND && index < raft_log_first(r->log)))
            snprintf(r->failure, sizeof r->failure, "read of %llu: %s", (unsigned long long)index,
                     chr_errname(err));
        for (size_t i = 0; i < count; i++)
            if (e[i].index != index + i || !right(&e[i]))
                snprintf(r->failure, sizeof r->failure, "entry %llu is wrong",
                         (unsigned long long)(index + i));
        atomic_fetch_add(&r->entries, count);
        err = raft_log_seek_hlc(r->log, index * 10 - 3, &found);
        if (err && err != CHR_ENOTFOUND)
            snprintf(r->failure, sizeof r->failure, "seek: %s", chr_errname(err));
        if (!err && found != index && index >= raft_log_first(r->log))
            snprintf(r->failure, sizeof r->failure, "seek of %llu: %llu", (unsigned long long)index,
                     (unsigned long long)found);
        struct raft_log_stats stats;
        raft_log_stats(r->log, &stats);
        (void)raft_log_term_of(r->log, index);
        (void)raft_log_bytes(r->log);
    }
    chr_buf_free(&buf);
    return NULL;
}

static void test_threads(void **state)
{
    struct raft_log_recovery recovery;
    raft_log *log = open_log(*state, &options, 1, &recovery);
    struct reader readers[2] = {{.log = log, .seed = 1}, {.log = log, .seed = 2}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, read_along, &readers[i]), 0);
    struct chr_errmsg msg;
    uint64_t index = 0;
    for (int group = 0; group < 400; group++) {
        for (int i = 0; i < 60; i++)
            assert_int_equal(append_one(log, ++index), CHR_OK);
        assert_int_equal(raft_log_sync(log, &msg), CHR_OK);
        if (group % 20 == 19)
            assert_int_equal(raft_log_cut_prefix(log, index - 1500), CHR_OK);
    }
    for (int i = 0; i < 2; i++) {
        atomic_store(&readers[i].stop, true);
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < 2; i++) {
        if (readers[i].failure[0])
            fail_msg("%s", readers[i].failure);
        assert_true(atomic_load(&readers[i].entries) > 0);
    }
    struct raft_log_stats stats;
    raft_log_stats(log, &stats);
    print_message("%llu entries, %llu segments recycled, %llu fdatasyncs\n",
                  (unsigned long long)index, (unsigned long long)stats.segments_recycled,
                  (unsigned long long)stats.syncs);
    assert_true(stats.segments_recycled > 0);
    uint64_t first = raft_log_first(log);
    raft_log_close(log);
    log = open_log(*state, &options, first, &recovery);
    assert_int_equal(recovery.last_index, index);
    assert_int_equal(recovery.torn_bytes, 0);
    raft_log_close(log);
}

/* kill -9 in the middle of it, several times; the child says by a pipe what was synced. */
static void test_killed(void **state)
{
    struct place *place = *state;
    struct chr_random random = {.state = 1};
    uint64_t promised = 0;
    for (int round = 0; round < 8; round++) {
        int fds[2];
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct raft_log_recovery recovery;
            struct chr_errmsg msg;
            raft_log *log;
            if (raft_log_open(&place->io, &options, 1, &log, &recovery, &msg))
                _exit(1);
            uint64_t index = recovery.last_index;
            for (;;) {
                for (uint64_t i = 0; i <= index % 50; i++)
                    if (append_one(log, ++index))
                        _exit(2);
                if (raft_log_sync(log, &msg))
                    _exit(3);
                if (write(fds[1], &index, sizeof index) != (ssize_t)sizeof index)
                    _exit(4);
            }
        }
        close(fds[1]);
        /* So many groups, then the end: no clock is asked. */
        uint64_t groups = 5 + chr_random_below(&random, 60), said = 0;
        for (uint64_t i = 0; i < groups; i++) {
            assert_int_equal(read(fds[0], &said, sizeof said), sizeof said);
            promised = said;
        }
        kill(child, SIGKILL);
        while (read(fds[0], &said, sizeof said) == (ssize_t)sizeof said)
            promised = said;
        close(fds[0]);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

        struct raft_log_recovery recovery;
        raft_log *log = open_log(place, &options, 1, &recovery);
        assert_true(recovery.last_index >= promised);
        struct chr_buf buf;
        chr_buf_init(&buf, 8u << 20);
        for (uint64_t next = 1; next <= recovery.last_index;) {
            struct raft_entry e[64];
            size_t count;
            assert_int_equal(raft_log_read(log, next, 65536, &buf, e, 64, &count), CHR_OK);
            for (size_t i = 0; i < count; i++, next++)
                assert_true(e[i].index == next && right(&e[i]));
        }
        chr_buf_free(&buf);
        raft_log_close(log);
    }
    print_message("8 kills, %llu entries promised\n", (unsigned long long)promised);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_io, setup, teardown),
        cmocka_unit_test_setup_teardown(test_enospc, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
