/* tests/db/test_kv.c: the promises of db/kv.h, kept by LMDB and by the store in memory alike: the
 * same script of random steps on both, beside a plain sorted array. Then what only the store in
 * memory can do on request: crash, fill up, fail (R15). */
#include "tests/base/check.h"

#include <pthread.h>
#include <unistd.h>

#include "base/arena.h"
#include "tests/db/tmpdir.h"
#include "tests/sim/fake_kv.h"

/* A store of either kind. */
struct store {
    struct db_kv kv;
    fake_kv *fake;
    char dir[64];
};

static void store_open(struct store *s, bool lmdb)
{
    struct chr_errmsg msg;
    memset(s, 0, sizeof *s);
    if (lmdb) {
        tmpdir_make(s->dir, sizeof s->dir);
        assert_int_equal(db_kv_lmdb_open(s->dir, 64 << 20, &s->kv, &msg), 0);
    } else {
        s->fake = fake_kv_new(1);
        s->kv = fake_kv_seam(s->fake);
    }
}

static void store_reopen(struct store *s)
{
    struct chr_errmsg msg;
    if (s->fake) {
        fake_kv_reopen(s->fake);
        return;
    }
    db_kv_lmdb_close(&s->kv);
    assert_int_equal(db_kv_lmdb_open(s->dir, 64 << 20, &s->kv, &msg), 0);
}

static void store_close(struct store *s)
{
    if (s->fake) {
        fake_kv_free(s->fake);
        return;
    }
    db_kv_lmdb_close(&s->kv);
    tmpdir_remove(s->dir);
}

/* -- The plain twin: few keys, each with a value or none
 * ------------------------------------------*/

#define KEYS 200

struct twin {
    struct {
        bool there;
        size_t len;
        uint8_t bytes[40];
    } of[KEYS];
};

/* Keys in byte order of their number, of different lengths, some a prefix of others. */
static chr_slice key_of(unsigned i, uint8_t *buffer)
{
    buffer[0] = (uint8_t)('a' + i / 50);
    buffer[1] = (uint8_t)(i / 10 % 5);
    memset(buffer + 2, 0xff, i % 10);
    return chr_slice_of(buffer, 2 + i % 10);
}

static void check_get(const struct db_kv *kv, db_kv_txn *txn, const struct twin *t, unsigned i)
{
    uint8_t buffer[64];
    chr_slice value;
    chr_err err = kv->get(kv->ctx, txn, key_of(i, buffer), &value);
    assert_int_equal(err, t->of[i].there ? 0 : CHR_ENOTFOUND);
    if (!err)
        assert_true(chr_slice_eq(value, chr_slice_of(t->of[i].bytes, t->of[i].len)));
}

static void check_scan(const struct db_kv *kv, db_kv_txn *txn, const struct twin *t,
                       struct chr_random *r)
{
    uint8_t prefix_buffer[64], from_buffer[64], buffer[64];
    chr_slice prefix = key_of((unsigned)chr_random_below(r, KEYS), prefix_buffer);
    chr_slice from = key_of((unsigned)chr_random_below(r, KEYS), from_buffer);
    prefix.len = chr_random_below(r, prefix.len + 1);
    if (chr_random_below(r, 3) == 0)
        from.len = 0;
    db_kv_cursor *cursor;
    assert_int_equal(kv->cursor_open(kv->ctx, txn, prefix, from, &cursor), 0);
    chr_slice key, value;
    for (unsigned i = 0; i < KEYS; i++) {
        chr_slice want = key_of(i, buffer);
        if (!t->of[i].there || chr_slice_cmp(want, from) < 0 || !chr_slice_starts(want, prefix))
            continue;
        assert_int_equal(kv->cursor_next(kv->ctx, cursor, &key, &value), 0);
        assert_true(chr_slice_eq(key, want));
        assert_true(chr_slice_eq(value, chr_slice_of(t->of[i].bytes, t->of[i].len)));
    }
    assert_int_equal(kv->cursor_next(kv->ctx, cursor, &key, &value), CHR_ENOTFOUND);
    kv->cursor_close(kv->ctx, cursor);
}

static void change(const struct db_kv *kv, db_kv_txn *txn, struct twin *t, struct chr_random *r)
{
    uint8_t buffer[64];
    unsigned i = (unsigned)chr_random_below(r, KEYS);
    if (chr_random_below(r, 3) == 0) {
        assert_int_equal(kv->del(kv->ctx, txn, key_of(i, buffer)), 0);
        t->of[i].there = false;
        return;
    }
    t->of[i].there = true;
    t->of[i].len = chr_random_below(r, sizeof t->of[i].bytes);
    for (size_t b = 0; b < t->of[i].len; b++)
        t->of[i].bytes[b] = (uint8_t)chr_random_u64(r);
    assert_int_equal(
        kv->put(kv->ctx, txn, key_of(i, buffer), chr_slice_of(t->of[i].bytes, t->of[i].len)), 0);
}

static void script(bool lmdb)
{
    struct chr_random r = test_random(30);
    static struct twin committed, working, pinned;
    struct store s;
    memset(&committed, 0, sizeof committed);
    store_open(&s, lmdb);
    db_kv_txn *old = NULL; /* a reader that stays while writers come and go */
    for (unsigned step = 0; step < 400; step++) {
        db_kv_txn *txn;
        assert_int_equal(s.kv.begin(s.kv.ctx, true, &txn), 0);
        working = committed;
        for (unsigned n = (unsigned)chr_random_below(&r, 12); n > 0; n--)
            change(&s.kv, txn, &working, &r);
        check_get(&s.kv, txn, &working, (unsigned)chr_random_below(&r, KEYS)); /* sees its own */
        check_scan(&s.kv, txn, &working, &r);
        if (chr_random_below(&r, 4) == 0) {
            s.kv.abort(s.kv.ctx, txn);
        } else {
            assert_int_equal(s.kv.commit(s.kv.ctx, txn), 0);
            committed = working;
        }
        if (old && chr_random_below(&r, 5) == 0) {
            for (unsigned i = 0; i < KEYS; i++)
                check_get(&s.kv, old, &pinned, i);
            check_scan(&s.kv, old, &pinned, &r);
            s.kv.abort(s.kv.ctx, old);
            old = NULL;
        } else if (!old) {
            assert_int_equal(s.kv.begin(s.kv.ctx, false, &old), 0);
            pinned = committed;
        }
        assert_int_equal(s.kv.begin(s.kv.ctx, false, &txn), 0);
        for (unsigned n = 0; n < 5; n++)
            check_scan(&s.kv, txn, &committed, &r);
        if (chr_random_below(&r, 2))
            s.kv.abort(s.kv.ctx, txn);
        else
            assert_int_equal(s.kv.commit(s.kv.ctx, txn), 0); /* which is to end it */
        if (chr_random_below(&r, 50) == 0) {
            if (old)
                s.kv.abort(s.kv.ctx, old);
            old = NULL;
            store_reopen(&s);
        }
    }
    if (old)
        s.kv.abort(s.kv.ctx, old);
    store_close(&s);
}

static void lmdb_keeps_the_promises(void **state)
{
    script(true);
}

static void fake_keeps_the_promises(void **state)
{
    script(false);
}

static void limits(bool lmdb)
{
    struct store s;
    store_open(&s, lmdb);
    db_kv_txn *txn;
    static uint8_t key[DB_KV_KEY_MAX + 1];
    uint8_t *large = calloc(1, DB_KV_VALUE_MAX + 1);
    chr_slice value;
    uint64_t file, used, used_before;
    assert_int_equal(s.kv.usage(s.kv.ctx, &file, &used_before), 0);
    assert_int_equal(s.kv.begin(s.kv.ctx, true, &txn), 0);
    assert_int_equal(s.kv.put(s.kv.ctx, txn, chr_slice_of(key, 0), CHR_LIT("x")), CHR_EINVAL);
    assert_int_equal(s.kv.put(s.kv.ctx, txn, chr_slice_of(key, sizeof key), CHR_LIT("x")),
                     CHR_EINVAL);
    assert_int_equal(
        s.kv.put(s.kv.ctx, txn, CHR_LIT("k"), chr_slice_of(large, DB_KV_VALUE_MAX + 1)),
        CHR_ETOOBIG);
    assert_int_equal(s.kv.put(s.kv.ctx, txn, CHR_LIT("k"), chr_slice_of(large, DB_KV_VALUE_MAX)),
                     0);
    assert_int_equal(s.kv.put(s.kv.ctx, txn, chr_slice_of(key, DB_KV_KEY_MAX), CHR_LIT("")), 0);
    assert_int_equal(s.kv.commit(s.kv.ctx, txn), 0);
    assert_int_equal(s.kv.usage(s.kv.ctx, &file, &used), 0);
    assert_true(used >= used_before + DB_KV_VALUE_MAX && file >= used);
    assert_int_equal(s.kv.begin(s.kv.ctx, true, &txn), 0);
    assert_int_equal(s.kv.get(s.kv.ctx, txn, CHR_LIT("k"), &value), 0);
    assert_int_equal(value.len, DB_KV_VALUE_MAX);
    assert_int_equal(s.kv.get(s.kv.ctx, txn, chr_slice_of(key, DB_KV_KEY_MAX), &value), 0);
    assert_int_equal(value.len, 0);
    assert_int_equal(s.kv.del(s.kv.ctx, txn, CHR_LIT("k")), 0);
    assert_int_equal(s.kv.del(s.kv.ctx, txn, CHR_LIT("nothing")), 0);
    assert_int_equal(s.kv.commit(s.kv.ctx, txn), 0);
    assert_int_equal(s.kv.usage(s.kv.ctx, &file, &used), 0);
    assert_true(used < used_before + DB_KV_VALUE_MAX / 2); /* its pages are free again */
    free(large);
    store_close(&s);
}

static void limits_hold(void **state)
{
    limits(true);
    limits(false);
}

/* A second writer waits for the first. */
struct waiter {
    struct db_kv *kv;
    chr_err err;
};

static void *write_one(void *arg)
{
    struct waiter *w = arg;
    db_kv_txn *txn;
    w->err = w->kv->begin(w->kv->ctx, true, &txn);
    if (!w->err)
        w->err = w->kv->put(w->kv->ctx, txn, CHR_LIT("second"), CHR_LIT("2"));
    chr_slice value;
    if (!w->err)
        w->err = w->kv->get(w->kv->ctx, txn, CHR_LIT("first"), &value);
    if (!w->err)
        w->err = w->kv->commit(w->kv->ctx, txn);
    return NULL;
}

static void writers_wait(void **state)
{
    for (int lmdb = 0; lmdb < 2; lmdb++) {
        struct store s;
        pthread_t thread;
        db_kv_txn *txn;
        store_open(&s, lmdb);
        struct waiter w = {.kv = &s.kv, .err = CHR_EIO};
        assert_int_equal(s.kv.begin(s.kv.ctx, true, &txn), 0);
        assert_int_equal(pthread_create(&thread, NULL, write_one, &w), 0);
        assert_int_equal(s.kv.put(s.kv.ctx, txn, CHR_LIT("first"), CHR_LIT("1")), 0);
        assert_int_equal(s.kv.commit(s.kv.ctx, txn), 0);
        pthread_join(thread, NULL);
        assert_int_equal(w.err, 0); /* and it saw what the first had written */
        store_close(&s);
    }
}

/* -- Faults on request
 * ----------------------------------------------------------------------------*/

static chr_err put_commit(const struct db_kv *kv, const char *key, const char *value)
{
    db_kv_txn *txn;
    chr_err err = kv->begin(kv->ctx, true, &txn);
    if (err)
        return err;
    err = kv->put(kv->ctx, txn, chr_slice_cstr(key), chr_slice_cstr(value));
    if (err) {
        kv->abort(kv->ctx, txn);
        return err;
    }
    return kv->commit(kv->ctx, txn);
}

static bool has(const struct db_kv *kv, const char *key)
{
    db_kv_txn *txn;
    chr_slice value;
    assert_int_equal(kv->begin(kv->ctx, false, &txn), 0);
    chr_err err = kv->get(kv->ctx, txn, chr_slice_cstr(key), &value);
    kv->abort(kv->ctx, txn);
    return err == 0;
}

static void a_crash_is_before_or_after(void **state)
{
    unsigned happened = 0, not = 0;
    for (uint64_t seed = 0; seed < 64; seed++) {
        fake_kv *fake = fake_kv_new(seed);
        struct db_kv kv = fake_kv_seam(fake);
        db_kv_txn *reader;
        assert_int_equal(put_commit(&kv, "a", "1"), 0);
        assert_int_equal(kv.begin(kv.ctx, false, &reader), 0);
        fake_kv_faults(fake)->crash_at = 2;
        assert_int_equal(put_commit(&kv, "b", "2"), CHR_EIO);
        assert_true(fake_kv_crashed(fake));
        chr_slice value;
        db_kv_txn *txn;
        assert_int_equal(kv.get(kv.ctx, reader, CHR_LIT("a"), &value), CHR_EIO);
        assert_int_equal(kv.begin(kv.ctx, false, &txn), CHR_EIO);
        kv.abort(kv.ctx, reader);
        fake_kv_reopen(fake);
        assert_true(has(&kv, "a"));
        has(&kv, "b") ? happened++ : not ++;
        assert_int_equal(put_commit(&kv, "c", "3"), 0);
        assert_int_equal(fake_kv_commits(fake), 3);
        fake_kv_free(fake);
    }
    assert_true(happened > 10 && not > 10);
}

static void a_full_disk_changes_nothing(void **state)
{
    fake_kv *fake = fake_kv_new(1);
    struct db_kv kv = fake_kv_seam(fake);
    fake_kv_faults(fake)->enospc_at = 2;
    assert_int_equal(put_commit(&kv, "a", "1"), 0);
    assert_int_equal(put_commit(&kv, "b", "2"), CHR_ENOSPC);
    assert_true(has(&kv, "a") && !has(&kv, "b"));
    assert_int_equal(put_commit(&kv, "b", "2"), 0); /* room again */
    fake_kv_faults(fake)->capacity_bytes = 6;
    assert_int_equal(put_commit(&kv, "c", "3"), 0);
    assert_int_equal(put_commit(&kv, "d", "4"), CHR_ENOSPC);
    assert_int_equal(put_commit(&kv, "c", "5"), 0); /* in the place of another */
    fake_kv_free(fake);
}

static void after_eio_writing_waits_for_reopening(void **state)
{
    fake_kv *fake = fake_kv_new(1);
    struct db_kv kv = fake_kv_seam(fake);
    fake_kv_faults(fake)->eio_at = 2;
    assert_int_equal(put_commit(&kv, "a", "1"), 0);
    assert_int_equal(put_commit(&kv, "b", "2"), CHR_EIO);
    assert_int_equal(put_commit(&kv, "b", "2"), CHR_EDOUBT);
    assert_true(has(&kv, "a") && !has(&kv, "b"));
    fake_kv_reopen(fake);
    assert_int_equal(put_commit(&kv, "b", "2"), 0);
    fake_kv *copy = fake_kv_copy(fake, 9);
    struct db_kv of_copy = fake_kv_seam(copy);
    assert_true(has(&of_copy, "a") && has(&of_copy, "b"));
    assert_true(fake_kv_flip_bit(copy));
    fake_kv_free(copy);
    fake_kv_free(fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lmdb_keeps_the_promises),
        cmocka_unit_test(fake_keeps_the_promises),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(writers_wait),
        cmocka_unit_test(a_crash_is_before_or_after),
        cmocka_unit_test(a_full_disk_changes_nothing),
        cmocka_unit_test(after_eio_writing_waits_for_reopening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
