/* tests/db/test_kv_lmdb.c: real LMDB killed in the middle of commits, with writes and syncs that
 * fail, opened twice, by a child, with too little address space, on files that are not its own. */
#include "tests/base/check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "db/kv.h"
#include "db/value_crc.h"
#include "tests/db/tmpdir.h"

static char dir[64];

static int make_dir(void **state)
{
    tmpdir_make(dir, sizeof dir);
    return 0;
}

static int drop_dir(void **state)
{
    tmpdir_remove(dir);
    return 0;
}

static void file_in(char *path, size_t len, const char *name)
{
    snprintf(path, len, "%s/%s", dir, name);
}

/* -- A writer whose every commit can be judged: transaction n writes keys that all carry n
 * ---------*/

#define KEYS_PER_COMMIT 20

static chr_err write_generation(const struct db_kv *kv, uint64_t n)
{
    db_kv_txn *txn;
    uint8_t key[4], value[5000];
    chr_err err = kv->begin(kv->ctx, true, &txn);
    if (err)
        return err;
    memset(value, (int)n, sizeof value);
    for (uint32_t i = 0; !err && i < KEYS_PER_COMMIT; i++) {
        size_t len = 100 + (n * 37 + i * 991) % 4800;
        chr_put_u32be(key, i);
        chr_put_u64le(value + DB_VALUE_HEAD_BYTES, n);
        db_value_seal(value, len, 'T', 1);
        err = kv->put(kv->ctx, txn, chr_slice_of(key, 4), chr_slice_of(value, len));
    }
    if (err) {
        kv->abort(kv->ctx, txn);
        return err;
    }
    return kv->commit(kv->ctx, txn);
}

/* The generation all keys carry; 0 for an empty store. */
static uint64_t read_generation(const struct db_kv *kv)
{
    db_kv_txn *txn;
    uint8_t key[4];
    uint64_t all = 0;
    assert_int_equal(kv->begin(kv->ctx, false, &txn), 0);
    for (uint32_t i = 0; i < KEYS_PER_COMMIT; i++) {
        chr_slice value, body;
        struct chr_errmsg msg;
        chr_put_u32be(key, i);
        chr_err err = kv->get(kv->ctx, txn, chr_slice_of(key, 4), &value);
        uint64_t n = 0;
        if (!err) {
            assert_int_equal(db_value_open(value, 'T', 1, true, &body, &msg), 0);
            n = chr_get_u64le(body.ptr);
        }
        if (i == 0)
            all = n;
        assert_int_equal(n, all); /* a commit has happened for all keys or for none */
    }
    kv->abort(kv->ctx, txn);
    return all;
}

static void open_store(struct db_kv *kv)
{
    struct chr_errmsg msg;
    assert_int_equal(db_kv_lmdb_open(dir, 256 << 20, kv, &msg), 0);
}

/* Commits as fast as it can and says so after each; killed at some moment. */
static void write_until_killed(int out, uint64_t from)
{
    struct db_kv kv;
    struct chr_errmsg msg;
    if (db_kv_lmdb_open(dir, 256 << 20, &kv, &msg))
        _exit(1);
    for (uint64_t n = from;; n++) {
        if (write_generation(&kv, n))
            _exit(2);
        if (write(out, &n, sizeof n) != sizeof n)
            _exit(3);
    }
}

static void kill_dash_nine_loses_no_commit(void **state)
{
    struct chr_random r = test_random(40);
    uint64_t before = 0;
    for (unsigned round = 0; round < 20; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            close(ends[0]);
            write_until_killed(ends[1], before + 1);
        }
        close(ends[1]);
        /* After so many commits, and then somewhere in the next ones. */
        uint64_t acknowledged = before, wait = 1 + chr_random_below(&r, 10), n;
        for (uint64_t i = 0; i < wait; i++) {
            assert_int_equal(read(ends[0], &n, sizeof n), sizeof n);
            acknowledged = n;
        }
        usleep((useconds_t)chr_random_below(&r, 3000));
        assert_int_equal(kill(child, SIGKILL), 0);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(ends[0], &n, sizeof n) == sizeof n)
            acknowledged = n;
        close(ends[0]);

        struct db_kv kv;
        open_store(&kv);
        uint64_t found = read_generation(&kv);
        assert_true(found == acknowledged || found == acknowledged + 1);
        assert_int_equal(write_generation(&kv, found), 0); /* and it goes on */
        db_kv_lmdb_close(&kv);
        before = found;
    }
    assert_true(before > 20);
}

/* -- Writes and syncs that fail: this program again, under the preload library
 * ----------------------*/

/* Child: generations 1.. until an error; prints what it saw. The parent sets FAIL_*. */
static int failing_child(void)
{
    struct db_kv kv;
    struct chr_errmsg msg;
    const char *armed = getenv("FAIL_ARMED");
    chr_log_set_level(CHR_LOG_ERROR);
    snprintf(dir, sizeof dir, "%s", getenv("FAIL_DIR"));
    if (db_kv_lmdb_open(dir, 256 << 20, &kv, &msg))
        return 90;
    if (write_generation(&kv, 1))
        return 91;
    int fd = open(armed, O_CREAT | O_WRONLY, 0600);
    if (fd < 0)
        return 92;
    close(fd);
    uint64_t n = 1;
    chr_err err = 0;
    while (n < 30 && (err = write_generation(&kv, n + 1)) == 0)
        n++;
    unlink(armed);
    /* What follows a failure, the fault being over. */
    chr_err again = write_generation(&kv, n + 1);
    printf("%llu %d %d ", (unsigned long long)n, err, again);
    db_kv_txn *txn;
    chr_slice value;
    uint8_t key[4] = {0};
    chr_err reading = kv.begin(kv.ctx, false, &txn);
    if (!reading) {
        reading = kv.get(kv.ctx, txn, chr_slice_of(key, 4), &value);
        kv.abort(kv.ctx, txn);
    }
    db_kv_lmdb_close(&kv);
    printf("%d\n", reading);
    return 0;
}

struct outcome {
    uint64_t good;  /* commits before the failure */
    int err, again; /* of the failing commit, and of the next */
    int reading;
};

static struct outcome run_failing(const char *call, unsigned at, int number, bool cut_short)
{
    char armed[96], command[1024], self[256] = {0};
    struct outcome o = {0};
    unsigned long long good;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    file_in(armed, sizeof armed, "armed");
    snprintf(command, sizeof command,
             "FAIL_CALL=%s FAIL_AT=%u FAIL_ERRNO=%d FAIL_ARMED=%s FAIL_DIR=%s %s "
             "LD_PRELOAD=%s ASAN_OPTIONS=verify_asan_link_order=0 %s failing-child 2>/dev/null",
             call, at, number, armed, dir, cut_short ? "FAIL_SHORT=1" : "", PRELOAD_FAIL, self);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    int fields = fscanf(p, "%llu %d %d %d", &good, &o.err, &o.again, &o.reading);
    int status = pclose(p);
    if (fields != 4 || status != 0)
        fail_msg("the child ended with %d after %d fields", status, fields);
    o.good = good;
    return o;
}

/* The n-th failing, for n = 1, 2, 3 … until none does. */
static void fail_the_nth(const char *call, int number, bool cut_short, chr_err want)
{
    unsigned failed = 0, in_doubt = 0, went_on = 0;
    for (unsigned at = 1; at < 200; at += at < 12 ? 1 : 17) {
        struct outcome o = run_failing(call, at, number, cut_short);
        struct db_kv kv;
        open_store(&kv);
        uint64_t found = read_generation(&kv);
        if (o.err == 0) {
            assert_int_equal(o.good, 30);
            db_kv_lmdb_close(&kv);
            tmpdir_remove(dir);
            assert_int_equal(mkdir(dir, 0700), 0);
            break;
        }
        failed++;
        assert_true(o.err == want || o.err == CHR_EIO);
        if (o.err == CHR_EIO) {
            assert_int_equal(o.again, CHR_EDOUBT);
            assert_true(o.reading == 0 || o.reading == CHR_EDOUBT);
            in_doubt++;
        } else {
            assert_int_equal(o.reading, 0);
            assert_int_equal(o.again, 0);
            went_on++;
        }
        /* Every commit that was reported is there; the one after the failure only if it was. */
        uint64_t last = o.again == 0 ? o.good + 1 : o.good;
        assert_true(found == last || (o.again != 0 && found == o.good + 1));
        assert_int_equal(write_generation(&kv, found + 1), 0);
        assert_int_equal(read_generation(&kv), found + 1);
        db_kv_lmdb_close(&kv);
        tmpdir_remove(dir);
        assert_int_equal(mkdir(dir, 0700), 0);
    }
    assert_true(failed >= 5); /* the library did what it is for */
    if (want == CHR_ENOSPC)   /* all but the meta pages, which never need more room */
        assert_true(went_on > 0);
    else
        assert_int_equal(in_doubt, failed);
}

static void failing_writes(void **state)
{
    fail_the_nth("write", EIO, false, CHR_EIO);
}

static void full_disk(void **state)
{
    fail_the_nth("write", ENOSPC, false, CHR_ENOSPC);
}

static void writes_cut_short(void **state)
{
    fail_the_nth("write", ENOSPC, true, CHR_EIO);
}

static void failing_syncs(void **state)
{
    fail_the_nth("sync", EIO, false, CHR_EIO);
}

/* -- Full map, and files that are not ours
 * ---------------------------------------------------------*/

static void a_full_map_is_a_full_disk(void **state)
{
    struct db_kv kv;
    struct chr_errmsg msg;
    assert_int_equal(db_kv_lmdb_open(dir, 1 << 20, &kv, &msg), 0);
    db_kv_txn *txn;
    uint8_t *value = calloc(1, 300000), key[4];
    chr_err err = 0;
    uint32_t n = 0;
    for (; !err && n < 100; n++) {
        assert_int_equal(kv.begin(kv.ctx, true, &txn), 0);
        chr_put_u32be(key, n);
        err = kv.put(kv.ctx, txn, chr_slice_of(key, 4), chr_slice_of(value, 300000));
        if (err)
            kv.abort(kv.ctx, txn);
        else
            err = kv.commit(kv.ctx, txn);
    }
    assert_int_equal(err, CHR_ENOSPC);
    assert_in_range(n, 2, 4);
    chr_slice got;
    assert_int_equal(kv.begin(kv.ctx, false, &txn), 0); /* reads go on */
    chr_put_u32be(key, 0);
    assert_int_equal(kv.get(kv.ctx, txn, chr_slice_of(key, 4), &got), 0);
    kv.abort(kv.ctx, txn);
    assert_int_equal(kv.begin(kv.ctx, true, &txn), 0); /* and it recovers when there is room */
    assert_int_equal(kv.del(kv.ctx, txn, chr_slice_of(key, 4)), 0);
    assert_int_equal(kv.commit(kv.ctx, txn), 0);
    assert_int_equal(write_generation(&kv, 3), 0);
    free(value);
    db_kv_lmdb_close(&kv);
}

static void spoil(const char *name, long offset, const void *bytes, size_t len)
{
    char path[96];
    file_in(path, sizeof path, name);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, offset), len);
    close(fd);
}

static void foreign_files_are_named(void **state)
{
    struct db_kv kv;
    struct chr_errmsg msg;
    uint8_t junk[8192];
    memset(junk, 'j', sizeof junk);
    spoil("data.mdb", 0, junk, sizeof junk);
    assert_int_equal(db_kv_lmdb_open(dir, 0, &kv, &msg), CHR_ECORRUPT);
    assert_non_null(strstr(msg.text, "data.mdb is not an LMDB file"));
    assert_null(kv.ctx);
    db_kv_lmdb_close(&kv); /* accepts it */
    tmpdir_remove(dir);

    open_store(&kv); /* makes the directory, too */
    assert_int_equal(write_generation(&kv, 1), 0);
    db_kv_lmdb_close(&kv);
    uint32_t version = 77;
    spoil("data.mdb", 16 + 4, &version, 4); /* page head, magic, version: of both meta pages */
    spoil("data.mdb", 4096 + 16 + 4, &version, 4);
    assert_int_equal(db_kv_lmdb_open(dir, 0, &kv, &msg), CHR_EVERSION);
    assert_non_null(strstr(msg.text, "another version"));

    assert_int_equal(db_kv_lmdb_open("/proc/no/such/place", 0, &kv, &msg), CHR_ENOTFOUND);
    assert_non_null(strstr(msg.text, "/proc/no/such/place"));
}

/* -- One process, one opening
 * ----------------------------------------------------------------------*/

static void opening_twice_is_refused(void **state)
{
    struct db_kv kv, other;
    struct chr_errmsg msg;
    char alias[96];
    open_store(&kv);
    assert_int_equal(db_kv_lmdb_open(dir, 0, &other, &msg), CHR_EBUSY);
    assert_non_null(strstr(msg.text, "already"));
    snprintf(alias, sizeof alias, "%s/.", dir);
    assert_int_equal(db_kv_lmdb_open(alias, 0, &other, &msg), CHR_EBUSY);
    assert_int_equal(write_generation(&kv, 5), 0);
    db_kv_lmdb_close(&kv);
    open_store(&kv);
    assert_int_equal(read_generation(&kv), 5);
    db_kv_lmdb_close(&kv);
}

static void a_forked_copy_is_refused(void **state)
{
    struct db_kv kv;
    open_store(&kv);
    assert_int_equal(write_generation(&kv, 1), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        db_kv_txn *txn;
        uint64_t file, used;
        bool good = kv.begin(kv.ctx, true, &txn) == CHR_EINVAL &&
                    kv.begin(kv.ctx, false, &txn) == CHR_EINVAL &&
                    kv.usage(kv.ctx, &file, &used) == CHR_EINVAL;
        db_kv_lmdb_close(&kv);
        _exit(good ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(write_generation(&kv, 2), 0); /* the child's close took nothing away */
    assert_int_equal(read_generation(&kv), 2);
    db_kv_lmdb_close(&kv);
}

/* Readers of killed processes hold no pages: their slots are cleared at the next opening. */
static void dead_readers_are_cleared(void **state)
{
    struct db_kv kv;
    int ends[2];
    char byte;
    open_store(&kv);
    assert_int_equal(write_generation(&kv, 1), 0);
    db_kv_lmdb_close(&kv);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        db_kv_txn *txn;
        struct chr_errmsg msg;
        if (db_kv_lmdb_open(dir, 256 << 20, &kv, &msg) || kv.begin(kv.ctx, false, &txn))
            _exit(1);
        if (write(ends[1], "x", 1) != 1)
            _exit(2);
        pause();
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(ends[0]);
    close(ends[1]);
    open_store(&kv);
    uint64_t file, used, file_after;
    for (uint64_t n = 2; n < 40; n++)
        assert_int_equal(write_generation(&kv, n), 0);
    assert_int_equal(kv.usage(kv.ctx, &file, &used), 0);
    for (uint64_t n = 40; n < 200; n++)
        assert_int_equal(write_generation(&kv, n), 0);
    assert_int_equal(kv.usage(kv.ctx, &file_after, &used), 0);
    assert_true(file_after <= file + file / 2); /* pages are used again */
    db_kv_lmdb_close(&kv);
}

/* A terabyte where the system gives less: it takes what there is. */
static void little_address_space_is_enough(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* sanitizers need the address space themselves */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    skip();
#endif
#endif
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = UINT64_C(2) << 30, .rlim_max = UINT64_C(2) << 30};
        struct db_kv kv;
        struct chr_errmsg msg;
        chr_log_set_level(CHR_LOG_ERROR);
        if (setrlimit(RLIMIT_AS, &limit) || db_kv_lmdb_open(dir, 0, &kv, &msg))
            _exit(1);
        _exit(write_generation(&kv, 9) ? 2 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    struct db_kv kv;
    open_store(&kv);
    assert_int_equal(read_generation(&kv), 9);
    db_kv_lmdb_close(&kv);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "failing-child") == 0)
        return failing_child();
    chr_log_set_level(CHR_LOG_ERROR);
#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, drop_dir)
    const struct CMUnitTest tests[] = {
        IN_DIR(kill_dash_nine_loses_no_commit),
        IN_DIR(failing_writes),
        IN_DIR(full_disk),
        IN_DIR(writes_cut_short),
        IN_DIR(failing_syncs),
        IN_DIR(a_full_map_is_a_full_disk),
        IN_DIR(foreign_files_are_named),
        IN_DIR(opening_twice_is_refused),
        IN_DIR(a_forked_copy_is_refused),
        IN_DIR(dead_readers_are_cleared),
        IN_DIR(little_address_space_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
