/* tests/sim/fake_kv.c: sorted arrays of counted references.
 *
 * A committed state is an immutable array of entries, itself counted: a reader holds the one it
 * began with, a writer a private copy of the pointers. A commit swaps the current one. */
#include "tests/sim/fake_kv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/random.h"

struct entry {
    unsigned refs; /* under the lock of the store */
    size_t key_len, value_len;
    uint8_t *bytes; /* key, then value; never NULL */
};

struct state {
    unsigned refs;
    size_t count, capacity;
    struct entry **entries; /* rising by key */
    uint64_t bytes;
};

struct fake_kv {
    pthread_mutex_t lock;
    pthread_cond_t writer_gone;
    struct state *current;
    struct fake_kv_faults faults;
    struct chr_random random;
    uint64_t commits, life; /* life: counts reopenings */
    bool crashed, doubt, writing;
    pthread_t writer;
    unsigned transactions;
};

struct db_kv_txn {
    bool write;
    uint64_t life;
    struct state *state;
    /* Copies handed out, to be spoilt when they die. */
    struct handed {
        struct handed *next;
        size_t len;
        uint8_t bytes[];
    } * handed;
};

struct db_kv_cursor {
    struct db_kv_txn *txn;
    bool after; /* of `at` itself */
    size_t prefix_len, at_len;
    uint8_t prefix[DB_KV_KEY_MAX], at[DB_KV_KEY_MAX];
};

static void *must(void *p)
{
    CHR_ASSERT(p);
    return p;
}

static chr_slice key_of(const struct entry *e)
{
    return chr_slice_of(e->bytes, e->key_len);
}

static void entry_release(struct entry *e)
{
    if (--e->refs)
        return;
    free(e->bytes);
    free(e);
}

static struct entry *entry_new(chr_slice key, chr_slice value)
{
    struct entry *e = must(malloc(sizeof *e));
    *e = (struct entry){.refs = 1, .key_len = key.len, .value_len = value.len};
    e->bytes = must(malloc(key.len + value.len + 1));
    memcpy(e->bytes, key.ptr, key.len);
    if (value.len)
        memcpy(e->bytes + key.len, value.ptr, value.len);
    return e;
}

static struct state *state_copy(const struct state *from)
{
    struct state *s = must(calloc(1, sizeof *s));
    s->refs = 1;
    s->count = s->capacity = from ? from->count : 0;
    s->bytes = from ? from->bytes : 0;
    s->entries = must(malloc((s->capacity + 1) * sizeof(struct entry *)));
    for (size_t i = 0; i < s->count; i++) {
        s->entries[i] = from->entries[i];
        s->entries[i]->refs++;
    }
    return s;
}

static void state_release(struct state *s)
{
    if (--s->refs)
        return;
    for (size_t i = 0; i < s->count; i++)
        entry_release(s->entries[i]);
    free(s->entries);
    free(s);
}

/* First entry that is not before key. */
static size_t state_find(const struct state *s, chr_slice key)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (chr_slice_cmp(key_of(s->entries[middle]), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool state_has(const struct state *s, size_t at, chr_slice key)
{
    return at < s->count && chr_slice_eq(key_of(s->entries[at]), key);
}

static void state_put(struct state *s, chr_slice key, chr_slice value)
{
    size_t at = state_find(s, key);
    struct entry *e = entry_new(key, value);
    s->bytes += key.len + value.len;
    if (state_has(s, at, key)) {
        s->bytes -= s->entries[at]->key_len + s->entries[at]->value_len;
        entry_release(s->entries[at]);
    } else {
        if (s->count == s->capacity) {
            s->capacity = s->capacity * 2 + 16;
            s->entries = must(realloc(s->entries, s->capacity * sizeof(struct entry *)));
        }
        memmove(s->entries + at + 1, s->entries + at, (s->count - at) * sizeof(struct entry *));
        s->count++;
    }
    s->entries[at] = e;
}

static void state_del(struct state *s, chr_slice key)
{
    size_t at = state_find(s, key);
    if (!state_has(s, at, key))
        return;
    s->bytes -= s->entries[at]->key_len + s->entries[at]->value_len;
    entry_release(s->entries[at]);
    s->count--;
    memmove(s->entries + at, s->entries + at + 1, (s->count - at) * sizeof(struct entry *));
}

/* -- Transactions -------------------------------------------------------------------------------*/

static chr_err usable(const fake_kv *kv, const db_kv_txn *txn)
{
    return kv->crashed || txn->life != kv->life ? CHR_EIO : CHR_OK;
}

static void spoil(struct db_kv_txn *txn)
{
    while (txn->handed) {
        struct handed *h = txn->handed;
        txn->handed = h->next;
        memset(h->bytes, 0xdb, h->len);
        free(h);
    }
}

static chr_slice hand_out(const fake_kv *kv, struct db_kv_txn *txn, const uint8_t *bytes,
                          size_t len)
{
    if (kv->faults.no_poison)
        return chr_slice_of(bytes, len);
    struct handed *h = must(malloc(sizeof *h + len + 1));
    h->next = txn->handed;
    h->len = len;
    if (len)
        memcpy(h->bytes, bytes, len);
    txn->handed = h;
    return chr_slice_of(h->bytes, len);
}

static chr_err kv_begin(void *ctx, bool write, db_kv_txn **txn)
{
    fake_kv *kv = ctx;
    pthread_mutex_lock(&kv->lock);
    CHR_ASSERT(!(write && kv->writing && pthread_equal(kv->writer, pthread_self())));
    while (write && kv->writing && !kv->crashed)
        pthread_cond_wait(&kv->writer_gone, &kv->lock);
    chr_err err = kv->crashed ? CHR_EIO : write && kv->doubt ? CHR_EDOUBT : CHR_OK;
    if (!err) {
        struct db_kv_txn *t = must(calloc(1, sizeof *t));
        t->write = write;
        t->life = kv->life;
        if (write) {
            t->state = state_copy(kv->current);
            kv->writing = true;
            kv->writer = pthread_self();
        } else {
            t->state = kv->current;
            t->state->refs++;
        }
        kv->transactions++;
        *txn = t;
    }
    pthread_mutex_unlock(&kv->lock);
    return err;
}

/* Under the lock. */
static void end(fake_kv *kv, struct db_kv_txn *txn)
{
    spoil(txn);
    state_release(txn->state);
    if (txn->write && txn->life == kv->life) {
        kv->writing = false;
        pthread_cond_signal(&kv->writer_gone);
    }
    kv->transactions--;
    free(txn);
}

static void kv_abort(void *ctx, db_kv_txn *txn)
{
    fake_kv *kv = ctx;
    pthread_mutex_lock(&kv->lock);
    end(kv, txn);
    pthread_mutex_unlock(&kv->lock);
}

static void publish(fake_kv *kv, struct db_kv_txn *txn)
{
    state_release(kv->current);
    kv->current = txn->state;
    kv->current->refs++;
}

static chr_err kv_commit(void *ctx, db_kv_txn *txn)
{
    fake_kv *kv = ctx;
    pthread_mutex_lock(&kv->lock);
    chr_err err = usable(kv, txn);
    if (!err && txn->write) {
        const struct fake_kv_faults *f = &kv->faults;
        kv->commits++;
        if (kv->commits == f->crash_at) {
            if (chr_random_u64(&kv->random) & 1)
                publish(kv, txn);
            kv->crashed = true;
            err = CHR_EIO;
        } else if (kv->commits == f->eio_at) {
            kv->doubt = true;
            err = CHR_EIO;
        } else if (kv->commits == f->enospc_at ||
                   (f->capacity_bytes && txn->state->bytes > f->capacity_bytes)) {
            err = CHR_ENOSPC;
        } else {
            publish(kv, txn);
        }
    }
    end(kv, txn);
    if (kv->crashed)
        pthread_cond_broadcast(&kv->writer_gone);
    pthread_mutex_unlock(&kv->lock);
    return err;
}

/* -- Keys ---------------------------------------------------------------------------------------*/

static chr_err kv_get(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice *value)
{
    fake_kv *kv = ctx;
    pthread_mutex_lock(&kv->lock);
    chr_err err = usable(kv, txn);
    size_t at = state_find(txn->state, key);
    if (!err && !state_has(txn->state, at, key))
        err = CHR_ENOTFOUND;
    if (!err) {
        const struct entry *e = txn->state->entries[at];
        *value = hand_out(kv, txn, e->bytes + e->key_len, e->value_len);
    }
    pthread_mutex_unlock(&kv->lock);
    return err;
}

static chr_err kv_put(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice value)
{
    fake_kv *kv = ctx;
    if (!txn->write || key.len == 0 || key.len > DB_KV_KEY_MAX)
        return CHR_EINVAL;
    if (value.len > DB_KV_VALUE_MAX)
        return CHR_ETOOBIG;
    pthread_mutex_lock(&kv->lock);
    chr_err err = usable(kv, txn);
    if (!err) {
        state_put(txn->state, key, value); /* which may come from what is spoilt next */
        spoil(txn);
    }
    pthread_mutex_unlock(&kv->lock);
    return err;
}

static chr_err kv_del(void *ctx, db_kv_txn *txn, chr_slice key)
{
    fake_kv *kv = ctx;
    if (!txn->write)
        return CHR_EINVAL;
    pthread_mutex_lock(&kv->lock);
    chr_err err = usable(kv, txn);
    if (!err) {
        state_del(txn->state, key);
        spoil(txn);
    }
    pthread_mutex_unlock(&kv->lock);
    return err;
}

static chr_err kv_cursor_open(void *ctx, db_kv_txn *txn, chr_slice prefix, chr_slice from,
                              db_kv_cursor **cursor)
{
    fake_kv *kv = ctx;
    if (prefix.len > DB_KV_KEY_MAX || from.len > DB_KV_KEY_MAX)
        return CHR_EINVAL;
    pthread_mutex_lock(&kv->lock);
    chr_err err = usable(kv, txn);
    pthread_mutex_unlock(&kv->lock);
    if (err)
        return err;
    struct db_kv_cursor *c = must(calloc(1, sizeof *c));
    chr_slice begin = chr_slice_cmp(from, prefix) > 0 ? from : prefix;
    c->txn = txn;
    c->prefix_len = prefix.len;
    c->at_len = begin.len;
    if (prefix.len)
        memcpy(c->prefix, prefix.ptr, prefix.len);
    if (begin.len)
        memcpy(c->at, begin.ptr, begin.len);
    *cursor = c;
    return CHR_OK;
}

static chr_err kv_cursor_next(void *ctx, db_kv_cursor *c, chr_slice *key, chr_slice *value)
{
    fake_kv *kv = ctx;
    pthread_mutex_lock(&kv->lock);
    chr_err err = usable(kv, c->txn);
    chr_slice here = chr_slice_of(c->at, c->at_len);
    struct state *s = c->txn->state;
    size_t at = state_find(s, here);
    if (c->after && state_has(s, at, here))
        at++;
    if (!err && (at == s->count ||
                 !chr_slice_starts(key_of(s->entries[at]), chr_slice_of(c->prefix, c->prefix_len))))
        err = CHR_ENOTFOUND;
    if (!err) {
        const struct entry *e = s->entries[at];
        *key = hand_out(kv, c->txn, e->bytes, e->key_len);
        *value = hand_out(kv, c->txn, e->bytes + e->key_len, e->value_len);
        memcpy(c->at, e->bytes, e->key_len);
        c->at_len = e->key_len;
        c->after = true;
    }
    pthread_mutex_unlock(&kv->lock);
    return err;
}

static void kv_cursor_close(void *ctx, db_kv_cursor *c)
{
    (void)ctx;
    free(c);
}

static chr_err kv_usage(void *ctx, uint64_t *file_bytes, uint64_t *used_bytes)
{
    fake_kv *kv = ctx;
    pthread_mutex_lock(&kv->lock);
    *file_bytes = *used_bytes = kv->current->bytes;
    pthread_mutex_unlock(&kv->lock);
    return CHR_OK;
}

/* -- The store ----------------------------------------------------------------------------------*/

fake_kv *fake_kv_new(uint64_t seed)
{
    fake_kv *kv = must(calloc(1, sizeof *kv));
    pthread_mutex_init(&kv->lock, NULL);
    pthread_cond_init(&kv->writer_gone, NULL);
    kv->random.state = seed;
    kv->current = state_copy(NULL);
    return kv;
}

void fake_kv_free(fake_kv *kv)
{
    if (!kv)
        return;
    CHR_ASSERT(kv->transactions == 0);
    state_release(kv->current);
    pthread_cond_destroy(&kv->writer_gone);
    pthread_mutex_destroy(&kv->lock);
    free(kv);
}

struct fake_kv_faults *fake_kv_faults(fake_kv *kv)
{
    return &kv->faults;
}

struct db_kv fake_kv_seam(fake_kv *kv)
{
    return (struct db_kv){
        .begin = kv_begin,
        .get = kv_get,
        .put = kv_put,
        .del = kv_del,
        .cursor_open = kv_cursor_open,
        .cursor_next = kv_cursor_next,
        .cursor_close = kv_cursor_close,
        .commit = kv_commit,
        .abort = kv_abort,
        .usage = kv_usage,
        .ctx = kv,
    };
}

uint64_t fake_kv_commits(const fake_kv *kv)
{
    return kv->commits;
}

bool fake_kv_crashed(const fake_kv *kv)
{
    return kv->crashed;
}

void fake_kv_reopen(fake_kv *kv)
{
    pthread_mutex_lock(&kv->lock);
    kv->life++;
    kv->crashed = kv->doubt = kv->writing = false;
    pthread_mutex_unlock(&kv->lock);
}

bool fake_kv_flip_bit(fake_kv *kv)
{
    pthread_mutex_lock(&kv->lock);
    CHR_ASSERT(kv->transactions == 0);
    struct state *s = kv->current;
    bool any = false;
    for (size_t tries = 0; s->count && !any && tries < 64; tries++) {
        struct entry *e = s->entries[chr_random_below(&kv->random, s->count)];
        if (e->value_len == 0)
            continue;
        uint64_t bit = chr_random_below(&kv->random, e->value_len * 8);
        e->bytes[e->key_len + bit / 8] ^= (uint8_t)(1u << (bit & 7));
        any = true;
    }
    pthread_mutex_unlock(&kv->lock);
    return any;
}

fake_kv *fake_kv_copy(const fake_kv *from, uint64_t seed)
{
    fake_kv *kv = fake_kv_new(seed);
    for (size_t i = 0; i < from->current->count; i++) {
        const struct entry *e = from->current->entries[i];
        state_put(kv->current, key_of(e), chr_slice_of(e->bytes + e->key_len, e->value_len));
    }
    return kv;
}
