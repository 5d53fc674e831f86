/* tests/broker/test_committer.c: the committer's threads with a real log, a real database and a
 * disk that fills up on demand: each proposal is answered once, in the order of its producer, and
 * not while it is not in the log. */
#include <ftw.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/clock.h"
#include "broker/committer.h"
#include "db/kv.h"
#include "db/op.h"

#define LOOPS   2
#define WORKERS 2
#define BATCHES 8

static const struct chr_clock *clock_used;

/* ---- A node's storage, with a disk that can be full -------------------------------------------
 */

static _Atomic bool disk_full;
static chr_err (*real_pwrite)(void *, int, const void *, size_t, uint64_t);

static chr_err pwrite_or_full(void *ctx, int handle, const void *buf, size_t len, uint64_t offset)
{
    return atomic_load(&disk_full) ? CHR_ENOSPC : real_pwrite(ctx, handle, buf, len, offset);
}

struct storage {
    char dir[64], log_dir[80], db_dir[80];
    struct raft_io io;
    raft_log *log;
    struct raft_log_recovery recovery;
    struct db_kv kv;
    db *db;
};

static void storage_open(struct storage *s)
{
    struct chr_errmsg msg = {{0}};
    assert_int_equal(raft_io_posix_open(s->log_dir, &s->io, &msg), CHR_OK);
    real_pwrite = s->io.pwrite;
    s->io.pwrite = pwrite_or_full;
    assert_int_equal(db_kv_lmdb_open(s->db_dir, 64u << 20, &s->kv, &msg), CHR_OK);
    struct db_options db_options;
    db_options_default(&db_options);
    assert_int_equal(db_open(&s->kv, &db_options, &s->db, &msg), CHR_OK);
    struct raft_log_options log_options = {.segment_bytes = 1u << 20, .fsync = RAFT_FSYNC_BATCH};
    assert_int_equal(raft_log_open(&s->io, &log_options, db_durable_index(s->db) + 1, &s->log,
                                   &s->recovery, &msg),
                     CHR_OK);
}

static void storage_close(struct storage *s)
{
    raft_log_close(s->log);
    raft_io_posix_close(&s->io);
    db_close(s->db);
    db_kv_lmdb_close(&s->kv);
}

static void storage_new(struct storage *s)
{
    *s = (struct storage){0};
    snprintf(s->dir, sizeof s->dir, "/tmp/chronos-committer-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->log_dir, sizeof s->log_dir, "%s/log", s->dir);
    snprintf(s->db_dir, sizeof s->db_dir, "%s/db", s->dir);
    assert_int_equal(mkdir(s->log_dir, 0700), 0);
    assert_int_equal(mkdir(s->db_dir, 0700), 0);
    storage_open(s);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void storage_remove(struct storage *s)
{
    nftw(s->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static broker_committer *start(struct storage *s, uint64_t group_bytes_max)
{
    struct broker_committer_options options = {
        .log = s->log,
        .db = s->db,
        .clock = clock_used,
        .loops = LOOPS,
        .batches_per_loop = BATCHES,
        .group_bytes_max = group_bytes_max,
        .fsync = RAFT_FSYNC_BATCH,
        .recovery = &s->recovery,
    };
    broker_committer *c = NULL;
    struct chr_errmsg msg = {{0}};
    chr_err err = broker_committer_start(&options, &c, &msg);
    if (err)
        fprintf(stderr, "%s\n", msg.text);
    assert_int_equal(err, CHR_OK);
    return c;
}

/* An entry that changes nothing, of about `guards` times 20 bytes. */
static void entry_make(struct db_entry *entry, uint32_t guards)
{
    db_entry_init(entry, RAFT_ENTRY_BYTES_MAX);
    db_entry_begin(entry, 0, 0);
    for (uint32_t i = 0; i < guards; i++)
        db_entry_add_release(entry, &(struct db_guard){UINT64_C(1) << 60, 1, (uint16_t)(i + 1)}, 1);
    assert_int_equal(db_entry_end(entry), CHR_OK);
}

/* ---- Producers --------------------------------------------------------------------------------
 */

struct producer;
struct item {
    struct broker_proposal proposal;
    struct producer *producer;
    uint64_t number;
    _Atomic int done;
};

struct producer {
    pthread_t thread;
    broker_committer *committer;
    uint32_t loop; /* UINT32_MAX: a worker */
    uint32_t entry_guards;
    struct db_entry entry;
    _Atomic bool stop;
    uint64_t proposed, refused; /* own thread; after the join anybody */
    _Atomic uint64_t answered;
    uint64_t last_index; /* applier */
    _Atomic uint64_t disordered, failed, twice;
};

static void item_done(struct broker_proposal *proposal, chr_err err,
                      const struct db_apply_result *result)
{
    struct item *item = CHR_CONTAINER_OF(proposal, struct item, proposal);
    struct producer *p = item->producer;
    if (atomic_fetch_add(&item->done, 1))
        atomic_fetch_add(&p->twice, 1);
    if (err || !result || result->err)
        atomic_fetch_add(&p->failed, 1);
    if (item->number != atomic_load(&p->answered) || proposal->index <= p->last_index)
        atomic_fetch_add(&p->disordered, 1);
    p->last_index = proposal->index;
    atomic_fetch_add(&p->answered, 1); /* last: the item may be used again */
}

static void *produce(void *arg)
{
    struct producer *p = arg;
    struct item *items = calloc(BATCHES, sizeof *items);
    CHR_ASSERT(items);
    bool closed = false;
    while (!atomic_load(&p->stop) && !closed) {
        if (p->proposed - atomic_load(&p->answered) == BATCHES) {
            sched_yield();
            continue;
        }
        struct item *item = &items[p->proposed % BATCHES];
        atomic_store(&item->done, 0);
        item->producer = p;
        item->number = p->proposed;
        item->proposal = (struct broker_proposal){
            .bytes = chr_buf_slice(&p->entry.bytes), .type = RAFT_ENTRY_DATA, .done = item_done};
        if (p->loop != UINT32_MAX) {
            p->proposed++;
            broker_propose_from_loop(p->committer, p->loop, &item->proposal);
            broker_committer_kick(p->committer);
            continue;
        }
        chr_err err = broker_propose(p->committer, &item->proposal);
        if (err == CHR_OK)
            p->proposed++;
        else if (err == CHR_ECLOSED)
            closed = true;
        else
            p->refused++, sched_yield();
    }
    while (atomic_load(&p->answered) < p->proposed)
        sched_yield();
    free(items);
    return NULL;
}

static void producer_start(struct producer *p, broker_committer *c, uint32_t loop, uint32_t guards)
{
    memset(p, 0, sizeof *p);
    p->committer = c;
    p->loop = loop;
    entry_make(&p->entry, guards);
    assert_int_equal(pthread_create(&p->thread, NULL, produce, p), 0);
}

static void producer_check(struct producer *p)
{
    assert_true(p->proposed > 0);
    assert_int_equal(atomic_load(&p->answered), p->proposed);
    assert_int_equal(atomic_load(&p->twice), 0);
    assert_int_equal(atomic_load(&p->failed), 0);
    assert_int_equal(atomic_load(&p->disordered), 0);
    db_entry_free(&p->entry);
}

static uint64_t answered(struct producer *producers, int count)
{
    uint64_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += atomic_load(&producers[i].answered);
    return sum;
}

static void wait_for_more(struct producer *producers, int count, uint64_t more)
{
    for (int i = 0; i < count; i++) {
        uint64_t from = atomic_load(&producers[i].answered);
        while (atomic_load(&producers[i].answered) < from + more)
            sched_yield();
    }
}

/* ---- The tests --------------------------------------------------------------------------------
 */

static void test_many_producers(void **state)
{
    (void)state;
    clock_used = chr_clock_system();
    struct storage s;
    storage_new(&s);
    broker_committer *c = start(&s, 0);
    struct producer p[LOOPS + WORKERS];
    for (uint32_t i = 0; i < LOOPS + WORKERS; i++)
        producer_start(&p[i], c, i < LOOPS ? i : UINT32_MAX, i * 3);
    for (int round = 0; round < 3; round++) {
        wait_for_more(p, LOOPS + WORKERS, 50);
        atomic_store(&disk_full, true);
        struct broker_committer_stats stats = {0};
        while (!stats.disk_full) {
            broker_committer_stats(c, &stats);
            sched_yield();
        }
        /* What was saved before is applied still; then nothing is answered any more. */
        while (broker_committer_stats(c, &stats),
               stats.entries_applied < raft_log_synced(s.log) - s.recovery.last_index - 1)
            sched_yield();
        uint64_t before = answered(p, LOOPS + WORKERS);
        for (int i = 0; i < 2000; i++)
            sched_yield();
        assert_true(answered(p, LOOPS + WORKERS) <= before + 1);
        struct broker_proposal refused = {.type = RAFT_ENTRY_DATA};
        assert_int_equal(broker_propose(c, &refused), CHR_ENOSPC);
        atomic_store(&disk_full, false);
    }
    wait_for_more(p, LOOPS + WORKERS, 50);
    /* Loops end first, as a node's do; workers run into the end. */
    for (int i = 0; i < LOOPS; i++) {
        atomic_store(&p[i].stop, true);
        pthread_join(p[i].thread, NULL);
    }
    broker_committer_stop(c);
    uint64_t proposed = 0, last = 0;
    for (int i = 0; i < LOOPS + WORKERS; i++) {
        if (i >= LOOPS)
            pthread_join(p[i].thread, NULL);
        proposed += p[i].proposed;
        last = p[i].last_index > last ? p[i].last_index : last;
        producer_check(&p[i]);
    }
    struct broker_committer_stats stats;
    broker_committer_stats(c, &stats);
    assert_int_equal(stats.entries_applied, stats.entries);
    assert_true(stats.entries >= proposed); /* ticks of its own may be among them */
    assert_true(raft_log_durable(s.log) >= last);
    assert_true(db_apply_index(s.db) >= last);
    broker_committer_free(c);
    storage_close(&s);

    /* All of it is there again after a restart. */
    storage_open(&s);
    c = start(&s, 0);
    assert_true(db_apply_index(s.db) >= last);
    broker_committer_stop(c);
    broker_committer_free(c);
    storage_close(&s);
    storage_remove(&s);
}

/* A worker's write comes through while the loops have more than a group's worth waiting. */
static void test_workers_are_not_starved(void **state)
{
    (void)state;
    clock_used = chr_clock_system();
    struct storage s;
    storage_new(&s);
    broker_committer *c = start(&s, 4096);
    struct producer p[LOOPS];
    for (uint32_t i = 0; i < LOOPS; i++)
        producer_start(&p[i], c, i, 300); /* more than a group each */
    wait_for_more(p, LOOPS, BATCHES);
    struct db_entry entry;
    entry_make(&entry, 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(broker_propose_wait(c, chr_buf_slice(&entry.bytes), 20000, NULL, NULL),
                         CHR_OK);
    db_entry_free(&entry);
    for (int i = 0; i < LOOPS; i++) {
        atomic_store(&p[i].stop, true);
        pthread_join(p[i].thread, NULL);
        producer_check(&p[i]);
    }
    broker_committer_stop(c);
    broker_committer_free(c);
    storage_close(&s);
    storage_remove(&s);
}

/* One that gives up waiting: the proposal frees itself when it is answered after all. */
static void test_wait_gives_up(void **state)
{
    (void)state;
    clock_used = chr_clock_system();
    struct storage s;
    storage_new(&s);
    broker_committer *c = start(&s, 0);
    struct db_entry entry;
    entry_make(&entry, 1);
    atomic_store(&disk_full, true);
    assert_int_equal(broker_propose_wait(c, chr_buf_slice(&entry.bytes), 20, NULL, NULL),
                     CHR_ETIMEDOUT);
    db_entry_free(&entry); /* the committer has a copy */
    uint64_t last = raft_log_last(s.log);
    atomic_store(&disk_full, false);
    broker_committer_stop(c);
    assert_true(db_apply_index(s.db) >= last);
    broker_committer_free(c);
    storage_close(&s);
    storage_remove(&s);
}

/* A clock that runs a thousand times as fast, for what takes seconds. */
static int64_t fast_mono_us(void *ctx)
{
    (void)ctx;
    return chr_clock_mono_us(chr_clock_system()) * 1000;
}

static int64_t real_wall_us(void *ctx)
{
    (void)ctx;
    return chr_clock_wall_us(chr_clock_system());
}

static void never_done(struct broker_proposal *proposal, chr_err err,
                       const struct db_apply_result *result)
{
    (void)proposal, (void)err, (void)result;
    _exit(99); /* acknowledged without being in the log */
}

/* Told to stop while the disk is full and stays so: the process ends with an error, soon, and
 * nothing was acknowledged. */
static void test_full_disk_at_stop(void **state)
{
    (void)state;
    static const struct chr_clock fast = {.mono_us = fast_mono_us, .wall_us = real_wall_us};
    clock_used = &fast;
    struct storage s;
    storage_new(&s);
    storage_close(&s);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        storage_open(&s);
        broker_committer *c = start(&s, 0);
        struct db_entry entry;
        entry_make(&entry, 1);
        struct broker_proposal proposal = {
            .bytes = chr_buf_slice(&entry.bytes), .type = RAFT_ENTRY_DATA, .done = never_done};
        atomic_store(&disk_full, true);
        broker_propose_from_loop(c, 0, &proposal);
        broker_committer_kick(c);
        broker_committer_stop(c);
        _exit(98); /* it can't have ended in order */
    }
    assert_true(child > 0);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), EXIT_FAILURE);
    /* The log is as it was. */
    storage_open(&s);
    storage_close(&s);
    storage_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk_at_stop), /* forks: before any thread */
        cmocka_unit_test(test_many_producers),
        cmocka_unit_test(test_workers_are_not_starved),
        cmocka_unit_test(test_wait_gives_up),
    };
    return cmocka_run_group_tests_name("broker/committer", tests, NULL, NULL);
}
