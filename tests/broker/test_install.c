/* tests/broker/test_install.c: a snapshot takes the place of a directory's state, whatever call the
 * process dies in.
 *
 * All calls that change a directory, write or make durable are wrapped by the linker (see
 * tests/CMakeLists.txt): a child counts them and dies before the n-th, for every n there is. Then
 * it is tried again, to another death or to the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "broker/files.h"
#include "broker/install.h"
#include "db/op.h"
#include "raft/log.h"

#define MAP_BYTES (UINT64_C(64) << 20)
#define TERM      7u

/* -- Death --------------------------------------------------------------------------------------*/

static uint64_t calls, calls_max = UINT64_MAX;

static void live_on(void)
{
    if (++calls > calls_max)
        _exit(9);
}

#define WRAP(type, name, params, args)                                                             \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        live_on();                                                                                 \
        return __real_##name args;                                                                 \
    }
WRAP(int, rename, (const char *from, const char *to), (from, to))
WRAP(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, unlink, (const char *path), (path))
WRAP(int, unlinkat, (int at, const char *path, int flags), (at, path, flags))
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(int, rmdir, (const char *path), (path))
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fdatasync, (int fd), (fd))
WRAP(int, ftruncate, (int fd, off_t len), (fd, len))
WRAP(ssize_t, write, (int fd, const void *bytes, size_t len), (fd, bytes, len))
WRAP(ssize_t, pwrite, (int fd, const void *bytes, size_t len, off_t off), (fd, bytes, len, off))

/* -- Directories --------------------------------------------------------------------------------*/

struct kit {
    char base[FILES_PATH_MAX], source[FILES_PATH_MAX], target[FILES_PATH_MAX];
    struct chr_buf *parts; /* of the source's snapshot */
    uint64_t parts_count, index;
    chr_hlc hlc;
    struct chr_errmsg msg;
};

static void shell(const char *format, const char *a, const char *b)
{
    char line[3 * FILES_PATH_MAX];
    snprintf(line, sizeof line, format, a, b);
    assert_int_equal(system(line), 0);
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        chr_err ok_err = (call);                                                                   \
        if (ok_err)                                                                                \
            fail_msg("%s: %s: %s", #call, chr_errname(ok_err), k->msg.text);                       \
    } while (0)

static chr_err no_wait(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

/* A node's storage, open. */
struct storage {
    struct data_dir dir;
    struct db_kv kv;
    db *d;
    struct raft_io io;
    raft_log *log;
    struct raft_log_recovery recovery;
};

static void storage_open(struct kit *k, struct storage *s, const char *path)
{
    struct db_options options;
    struct raft_log_options log_options = {0};
    db_options_default(&options);
    options.chunk_rows_max = 500;
    OK(data_dir_open(path, true, &s->dir, &k->msg));
    OK(install_apply(path, &s->dir, NULL, &k->msg));
    OK(db_kv_lmdb_open(s->dir.db_path, MAP_BYTES, &s->kv, &k->msg));
    OK(db_open(&s->kv, &options, &s->d, &k->msg));
    OK(raft_io_posix_open(s->dir.log_path, &s->io, &k->msg));
    OK(raft_log_open(&s->io, &log_options, db_durable_index(s->d) + 1, &s->log, &s->recovery,
                     &k->msg));
}

static void storage_close(struct storage *s)
{
    raft_log_close(s->log);
    raft_io_posix_close(&s->io);
    db_close(s->d);
    db_kv_lmdb_close(&s->kv);
    data_dir_close(&s->dir);
}

/* Entries of some rows, in log and database. */
static void add_entries(struct kit *k, struct storage *s, uint64_t term, int count)
{
    for (int i = 0; i < count; i++) {
        struct db_entry entry;
        struct db_apply_result result;
        struct db_rows_builder b;
        const db_catalog *catalog = db_catalog_acquire(s->d);
        const struct db_table_def *def = db_catalog_find(catalog, CHR_LIT("readings"));
        uint64_t index = raft_log_last(s->log) + 1;
        chr_hlc hlc = (UINT64_C(1700000000000) + index) << 16;
        db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
        db_entry_begin(&entry, 0, 0);
        OK(db_rows_init(&b, def, 100));
        for (int r = 0; r < 100; r++) {
            OK(db_rows_put_bytes(&b, 1, CHR_LIT("device")));
            db_rows_put_i64(&b, 3, r);
            OK(db_rows_end(&b, 1, NULL));
        }
        db_rows_finish(&b, DB_ROWS_INSERT, &entry);
        db_rows_free(&b);
        OK(db_entry_end(&entry));
        struct raft_entry logged = {.index = index,
                                    .term = term,
                                    .hlc = hlc,
                                    .type = RAFT_ENTRY_DATA,
                                    .bytes = chr_buf_slice(&entry.bytes)};
        OK(raft_log_append(s->log, &logged, 1));
        db_apply(s->d, index, hlc, chr_buf_slice(&entry.bytes), &result);
        db_entry_free(&entry);
        db_catalog_release(catalog);
    }
    OK(raft_log_sync(s->log, &k->msg));
}

static const struct raft_members members_then = {
    .items = {{.id = 5, .incarnation = 50, .voter = true}, {.id = 9, .incarnation = 90}},
    .count = 2};
static uint8_t members_bytes[RAFT_MEMBERS_BYTES_MAX];
static size_t members_len;

static chr_err describe(void *arg, uint64_t index, struct db_snapshot_origin *origin)
{
    const struct storage *s = arg;
    members_len = raft_members_encode(&members_then, members_bytes);
    *origin = (struct db_snapshot_origin){.cluster = s->dir.cluster,
                                          .incarnation = raft_log_incarnation(s->log),
                                          .term = raft_log_term_of(s->log, index),
                                          .members_index = 3,
                                          .members = chr_slice_of(members_bytes, members_len)};
    return CHR_OK;
}

/* The leader: 40 entries of term 7, a snapshot of the first 30. */
static void make_source(struct kit *k)
{
    struct storage s;
    db_snapshot *snapshot;
    storage_open(k, &s, k->source);
    OK(raft_log_set_hard_state(s.log, (struct raft_hard_state){.term = TERM, .vote = 1}));
    add_entries(k, &s, TERM, 30);
    OK(db_checkpoint(s.d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &k->msg));
    add_entries(k, &s, TERM, 10);
    int fd = memfd_create("spool", MFD_CLOEXEC);
    OK(db_snapshot_begin(s.d, fd, describe, &s, &snapshot, &k->msg));
    const struct db_snapshot_info *info = db_snapshot_info(snapshot);
    k->index = info->index;
    k->hlc = info->hlc;
    k->parts_count = info->parts;
    k->parts = calloc(info->parts, sizeof *k->parts);
    for (uint64_t i = 0; i < info->parts; i++) {
        chr_buf_init(&k->parts[i], DB_SNAPSHOT_PART_BYTES_MAX);
        OK(db_snapshot_part(snapshot, i, &k->parts[i], &k->msg));
    }
    db_snapshot_end(snapshot);
    storage_close(&s);
}

/* A follower with a life of its own. */
static void make_target(struct kit *k, uint64_t term, uint64_t vote, int entries)
{
    struct storage s;
    storage_open(k, &s, k->target);
    OK(raft_log_set_hard_state(s.log, (struct raft_hard_state){.term = term, .vote = vote}));
    add_entries(k, &s, CHR_MIN(term, TERM), entries);
    OK(db_checkpoint(s.d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &k->msg));
    storage_close(&s);
}

static void stage(struct kit *k, enum install_kind kind)
{
    struct data_dir dir;
    install *in;
    OK(data_dir_open(k->target, true, &dir, &k->msg));
    OK(install_open(k->target, MAP_BYTES, &in, &k->msg));
    for (uint64_t i = 0; i < k->parts_count; i++)
        OK(install_put(in, chr_buf_slice(&k->parts[i]), &k->msg));
    OK(install_commit(in, kind, true, &k->msg));
    install_close(in);
    assert_true(install_waits(k->target));
    assert_int_equal(install_open(k->target, MAP_BYTES, &in, &k->msg), CHR_EBUSY);
    data_dir_close(&dir);
}

static int setup(void **state)
{
    struct kit *k = calloc(1, sizeof *k);
    const char *tmp = getenv("TMPDIR");
    snprintf(k->base, sizeof k->base, "%s/chr-install-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(k->base))
        abort();
    OK(files_join(k->source, k->base, "source", NULL));
    OK(files_join(k->target, k->base, "target", NULL));
    make_source(k);
    *state = k;
    return 0;
}

static int teardown(void **state)
{
    struct kit *k = *state;
    for (uint64_t i = 0; i < k->parts_count; i++)
        chr_buf_free(&k->parts[i]);
    free(k->parts);
    OK(files_remove_tree(k->base, &k->msg));
    free(k);
    return 0;
}

/* -- Dying --------------------------------------------------------------------------------------*/

/* A node's start up to storage, in a child that dies before call `max` + 1. False: it did not get
 * so far. */
static bool start_and_die(struct kit *k, const char *path, uint64_t max)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct data_dir dir;
        calls = 0;
        calls_max = max;
        if (data_dir_open(path, true, &dir, &k->msg) || install_apply(path, &dir, NULL, &k->msg)) {
            fprintf(stderr, "after %llu calls: %s\n", (unsigned long long)calls, k->msg.text);
            _exit(1);
        }
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
    return WEXITSTATUS(status) == 9;
}

static void names_are(const char *path)
{
    static const char *const names[] = {".", "..", "LOCK", "node.meta", "log", "db", "tmp"};
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        bool known = false;
        for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
            known = known || !strcmp(e->d_name, names[i]);
        if (!known)
            fail_msg("%s is left over", e->d_name);
    }
    closedir(d);
}

static void look(struct kit *k, const char *path, enum install_kind kind,
                 struct raft_hard_state want, const struct data_dir *before)
{
    struct storage s;
    uint64_t findings;
    storage_open(k, &s, path);
    names_are(path);
    assert_int_equal(db_durable_index(s.d), k->index);
    OK(db_check(s.d, NULL, NULL, &findings));
    assert_int_equal(findings, 0);
    assert_int_equal(s.recovery.last_index, k->index);
    assert_int_equal(s.recovery.last_term, TERM);
    assert_int_equal(s.recovery.last_hlc, k->hlc);
    assert_int_equal(raft_log_term_of(s.log, k->index), TERM);
    assert_int_equal(s.recovery.hard_state.term, want.term);
    assert_int_equal(s.recovery.hard_state.vote, want.vote);
    if (kind == INSTALL_FOLLOWER) {
        assert_int_equal(s.dir.incarnation, before->incarnation);
        assert_int_equal(s.dir.cluster, before->cluster);
        assert_int_equal(s.dir.log_parent, 0);
        assert_int_equal(s.dir.members_index, 3);
        assert_int_equal(s.dir.members.count, 2);
        assert_int_equal(s.dir.members.items[1].id, 9);
        assert_int_equal(s.dir.members.items[1].incarnation, 90);
    } else {
        struct data_dir source = {0};
        OK(data_dir_read_meta(k->source, &source, &k->msg));
        assert_int_not_equal(s.dir.incarnation, before->incarnation);
        assert_int_not_equal(s.dir.cluster, before->cluster);
        assert_int_not_equal(s.dir.cluster, source.cluster);
        assert_int_not_equal(s.dir.log_parent, 0);
        assert_int_not_equal(s.dir.log_parent, s.recovery.incarnation);
        assert_int_equal(s.dir.log_fork, k->index);
        assert_int_equal(s.dir.node, 1);
        assert_int_equal(s.dir.members.count, 0);
        assert_int_equal(s.dir.founders.count, 0);
    }
    add_entries(k, &s, TERM + 5, 3); /* life goes on */
    storage_close(&s);
}

static void die_everywhere(struct kit *k, enum install_kind kind, struct raft_hard_state want)
{
    char path[FILES_PATH_MAX];
    struct chr_random random = {.state = 1};
    struct data_dir before = {0};
    OK(files_join(path, k->base, "copy", NULL));
    OK(data_dir_read_meta(k->target, &before, &k->msg));
    stage(k, kind);
    uint64_t deaths = 0;
    for (bool died = true; died; deaths++) {
        shell("cp -a %s %s", k->target, path);
        died = start_and_die(k, path, deaths);
        if (chr_random_below(&random, 2))
            (void)start_and_die(k, path, chr_random_below(&random, deaths + 5));
        look(k, path, kind, want, &before);
        OK(files_remove_tree(path, &k->msg));
    }
    print_message("died before each of %llu calls\n", (unsigned long long)deaths - 1);
    assert_true(deaths > 30);
}

static void test_follower(void **state)
{
    struct kit *k = *state;
    make_target(k, 9, 2, 12);
    die_everywhere(k, INSTALL_FOLLOWER, (struct raft_hard_state){.term = 9, .vote = 2});
}

/* It has not voted in the snapshot's term: it has never heard of it. */
static void test_follower_of_an_older_term(void **state)
{
    struct kit *k = *state;
    make_target(k, 4, 2, 12);
    die_everywhere(k, INSTALL_FOLLOWER, (struct raft_hard_state){.term = TERM, .vote = 0});
}

static void test_follower_without_a_log(void **state)
{
    struct kit *k = *state;
    struct data_dir before;
    OK(data_dir_open(k->target, true, &before, &k->msg));
    data_dir_close(&before);
    stage(k, INSTALL_FOLLOWER);
    look(k, k->target, INSTALL_FOLLOWER, (struct raft_hard_state){.term = TERM}, &before);
}

static void test_restore(void **state)
{
    struct kit *k = *state;
    make_target(k, 9, 2, 12);
    die_everywhere(k, INSTALL_RESTORE, (struct raft_hard_state){.term = TERM, .vote = 0});
}

/* Entries that it may have acknowledged are not thrown away. */
static void test_log_goes_on(void **state)
{
    struct kit *k = *state;
    struct storage s;
    bool applied = true;
    make_target(k, TERM, 2, 35);
    stage(k, INSTALL_FOLLOWER);
    struct data_dir dir;
    OK(data_dir_open(k->target, true, &dir, &k->msg));
    OK(install_apply(k->target, &dir, &applied, &k->msg));
    assert_false(applied);
    data_dir_close(&dir);
    storage_open(k, &s, k->target);
    names_are(k->target);
    assert_int_equal(s.recovery.first_index, 1);
    assert_int_equal(s.recovery.last_index, 35);
    assert_int_equal(db_durable_index(s.d), 35);
    storage_close(&s);
}

/* The entry is there, but of another term: it was never committed. */
static void test_log_parts(void **state)
{
    struct kit *k = *state;
    make_target(k, TERM - 1, 2, 35);
    struct data_dir before = {0};
    OK(data_dir_read_meta(k->target, &before, &k->msg));
    stage(k, INSTALL_FOLLOWER);
    look(k, k->target, INSTALL_FOLLOWER, (struct raft_hard_state){.term = TERM}, &before);
}

/* Its log is damaged: what it has promised is not known, so nothing is replaced. */
static void test_log_is_damaged(void **state)
{
    struct kit *k = *state;
    struct data_dir dir;
    make_target(k, 9, 2, 12);
    stage(k, INSTALL_FOLLOWER);
    shell("printf x | dd of=%s/log/00000000000000000001.seg bs=1 seek=200 conv=notrunc status=none"
          "%s",
          k->target, "");
    OK(data_dir_open(k->target, true, &dir, &k->msg));
    for (int i = 0; i < 2; i++)
        assert_int_equal(install_apply(k->target, &dir, NULL, &k->msg), CHR_ECORRUPT);
    assert_true(install_waits(k->target));
    data_dir_close(&dir);
}

/* -- Forks --------------------------------------------------------------------------------------*/

static const struct raft_log_base fork_base = {
    .term = TERM, .hlc = UINT64_C(1700000000012) << 16, .hard_state = {.term = 9, .vote = 2}};

/* As broker/commands/force.c does, in a child that dies before call `max` + 1. False: it lived. */
static bool fork_and_die(struct kit *k, const char *path, uint64_t max)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct data_dir dir;
        calls = 0;
        calls_max = max;
        if (data_dir_open(path, true, &dir, &k->msg))
            _exit(1);
        struct data_dir next = dir;
        next.cluster = 0xc1;
        next.incarnation = 0x1c;
        next.log_parent = 0xbad;
        next.log_fork = 12;
        next.founders.count = 1;
        next.founders.items[0] = (struct raft_member){dir.node, 0x1c, true};
        if (install_fork(path, &next, 12, &fork_base, &k->msg) ||
            install_apply(path, &dir, NULL, &k->msg)) {
            fprintf(stderr, "after %llu calls: %s\n", (unsigned long long)calls, k->msg.text);
            _exit(1);
        }
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0));
    return WEXITSTATUS(status) == 9;
}

/* As before, or a new beginning. True: that. */
static bool look_at_fork(struct kit *k, const char *path, const struct data_dir *before)
{
    struct storage s;
    uint64_t findings;
    storage_open(k, &s, path);
    assert_int_equal(db_durable_index(s.d), 12);
    OK(db_check(s.d, NULL, NULL, &findings));
    assert_int_equal(findings, 0);
    assert_int_equal(s.recovery.last_index, 12);
    assert_int_equal(s.recovery.last_term, TERM);
    assert_int_equal(s.recovery.hard_state.term, 9); /* what it has promised goes with it */
    assert_int_equal(s.recovery.hard_state.vote, 2);
    bool forked = s.dir.cluster != before->cluster;
    if (forked) {
        names_are(path);
        assert_int_equal(s.dir.cluster, 0xc1);
        assert_int_equal(s.dir.incarnation, 0x1c);
        assert_int_equal(s.dir.log_parent, 0xbad);
        assert_int_equal(s.dir.log_fork, 12);
        assert_int_equal(s.dir.founders.count, 1);
        assert_int_equal(s.recovery.first_index, 0);
        assert_int_equal(s.recovery.last_hlc, fork_base.hlc);
    } else {
        assert_int_equal(s.dir.incarnation, before->incarnation);
        assert_int_equal(s.recovery.first_index, 1);
    }
    add_entries(k, &s, TERM + 5, forked ? 3 : 0); /* life goes on */
    storage_close(&s);
    return forked;
}

static void test_fork(void **state)
{
    struct kit *k = *state;
    char path[FILES_PATH_MAX];
    struct data_dir before = {0};
    uint64_t deaths = 0, unchanged = 0;
    make_target(k, 9, 2, 12);
    OK(files_join(path, k->base, "copy", NULL));
    OK(data_dir_read_meta(k->target, &before, &k->msg));
    for (bool died = true; died; deaths++) {
        shell("cp -a %s %s", k->target, path);
        died = fork_and_die(k, path, deaths);
        if (!look_at_fork(k, path, &before)) {
            unchanged++;
            assert_false(fork_and_die(k, path, UINT64_MAX));
            assert_true(look_at_fork(k, path, &before));
        }
        OK(files_remove_tree(path, &k->msg));
    }
    print_message("died before each of %llu calls\n", (unsigned long long)deaths - 1);
    assert_true(unchanged > 10 && deaths > unchanged + 5);
}

/* -- Staging ------------------------------------------------------------------------------------*/

static void test_stage_goes_on(void **state)
{
    struct kit *k = *state;
    install *in;
    struct data_dir dir;
    OK(data_dir_open(k->target, true, &dir, &k->msg));
    OK(install_open(k->target, MAP_BYTES, &in, &k->msg));
    assert_int_equal(install_next(in), 0);
    assert_null(install_info(in));
    assert_int_equal(install_commit(in, INSTALL_RESTORE, true, &k->msg), CHR_ENOTFOUND);
    OK(install_put(in, chr_buf_slice(&k->parts[0]), &k->msg));
    assert_int_equal(install_info(in)->index, k->index);
    assert_int_equal(install_put(in, chr_buf_slice(&k->parts[0]), &k->msg), CHR_EEXIST);
    assert_int_equal(install_commit(in, INSTALL_RESTORE, true, &k->msg), CHR_ENOTFOUND);
    install_close(in);
    assert_false(install_waits(k->target));
    OK(install_open(k->target, MAP_BYTES, &in, &k->msg)); /* goes on from its last commit */
    assert_true(install_next(in) <= 1);
    for (uint64_t i = install_next(in); i < k->parts_count; i++)
        OK(install_put(in, chr_buf_slice(&k->parts[i]), &k->msg));
    install_close(in);
    OK(install_discard(k->target, &k->msg));
    OK(install_discard(k->target, &k->msg));
    data_dir_close(&dir);
    names_are(k->target);
    stage(k, INSTALL_RESTORE);
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(follower),
        TEST(follower_of_an_older_term),
        TEST(follower_without_a_log),
        TEST(restore),
        TEST(log_goes_on),
        TEST(log_parts),
        TEST(log_is_damaged),
        TEST(stage_goes_on),
        TEST(fork),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
