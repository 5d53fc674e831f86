/* tests/sim/cluster_life/disk.c: the disk and the store of a node, which take their time.
 *
 * A write or a sync has happened at some moment between its beginning and its end: the process may
 * be killed on either side of it. */
#include <stdlib.h>

#include "base/assert.h"
#include "tests/sim/cluster_life/world.h"

/* ---- The disk of the log ----------------------------------------------------------------------
 */

static void takes_time(struct node *n, int64_t us)
{
    (void)n;
    if (us > 0)
        life__sleep((int64_t)below(life__world, (uint64_t)us) + 1);
}

static const struct raft_io *disk_of(void *ctx)
{
    return &((struct node *)ctx)->disk.io;
}

static chr_err disk_open(void *ctx, const char *name, bool create, int *handle)
{
    life__leave();
    chr_err err = disk_of(ctx)->open(disk_of(ctx)->ctx, name, create, handle);
    life__enter();
    return err;
}

static void disk_close(void *ctx, int handle)
{
    life__leave();
    disk_of(ctx)->close(disk_of(ctx)->ctx, handle);
    life__enter();
}

static chr_err disk_pread(void *ctx, int handle, void *buf, size_t len, uint64_t offset,
                          size_t *got)
{
    life__leave();
    chr_err err = disk_of(ctx)->pread(disk_of(ctx)->ctx, handle, buf, len, offset, got);
    life__enter();
    return err;
}

static chr_err disk_pwrite(void *ctx, int handle, const void *buf, size_t len, uint64_t offset)
{
    struct node *n = ctx;
    life__leave();
    takes_time(n, n->disk_us / 10);
    chr_err err = disk_of(ctx)->pwrite(disk_of(ctx)->ctx, handle, buf, len, offset);
    if (err == CHR_ENOSPC)
        life__world->report->full++;
    life__enter();
    return err;
}

static chr_err disk_sync(void *ctx, int handle)
{
    struct node *n = ctx;
    life__leave();
    takes_time(n, n->disk_us);
    chr_err err = disk_of(ctx)->sync(disk_of(ctx)->ctx, handle);
    takes_time(n, n->disk_us);
    life__enter();
    return err;
}

static chr_err disk_size(void *ctx, int handle, uint64_t *bytes)
{
    life__leave();
    chr_err err = disk_of(ctx)->size(disk_of(ctx)->ctx, handle, bytes);
    life__enter();
    return err;
}

static chr_err disk_truncate(void *ctx, int handle, uint64_t bytes)
{
    life__leave();
    chr_err err = disk_of(ctx)->truncate(disk_of(ctx)->ctx, handle, bytes);
    life__enter();
    return err;
}

static chr_err disk_rename(void *ctx, const char *from, const char *to)
{
    life__leave();
    chr_err err = disk_of(ctx)->rename(disk_of(ctx)->ctx, from, to);
    life__enter();
    return err;
}

static chr_err disk_unlink(void *ctx, const char *name)
{
    life__leave();
    chr_err err = disk_of(ctx)->unlink(disk_of(ctx)->ctx, name);
    life__enter();
    return err;
}

static chr_err disk_sync_dir(void *ctx)
{
    struct node *n = ctx;
    life__leave();
    takes_time(n, n->disk_us / 4);
    chr_err err = disk_of(ctx)->sync_dir(disk_of(ctx)->ctx);
    life__enter();
    return err;
}

/* each() is the broker's: inside. */
static chr_err disk_list(void *ctx, void (*each)(void *arg, const char *name), void *arg)
{
    return disk_of(ctx)->list(disk_of(ctx)->ctx, each, arg);
}

static chr_err disk_free_bytes(void *ctx, uint64_t *bytes)
{
    life__leave();
    chr_err err = disk_of(ctx)->free_bytes(disk_of(ctx)->ctx, bytes);
    life__enter();
    return err;
}

/* ---- The store --------------------------------------------------------------------------------
 *
 * A process that is killed leaves transactions and cursors open, which have to be given back. */

struct db_kv_txn {
    struct db_kv_txn *next;
    db_kv_txn *real;
    bool write;
};

struct db_kv_cursor {
    struct db_kv_cursor *next;
    db_kv_cursor *real;
};

static struct db_kv real_store(const struct node *n)
{
    return fake_kv_seam(n->store);
}

static void forget_transaction(struct node *n, struct db_kv_txn *txn)
{
    struct db_kv_txn **at = (struct db_kv_txn **)&n->transactions;
    while (*at != txn)
        at = &(*at)->next;
    *at = txn->next;
    if (txn->write) {
        n->store_written = false;
        life__wake(&n->store_written, true);
    }
    free(txn);
}

static chr_err store_begin(void *ctx, bool write, db_kv_txn **out)
{
    struct node *n = ctx;
    life__leave();
    while (write && n->store_written)
        life__block(&n->store_written, NEVER);
    db_kv_txn *real = NULL;
    chr_err err = real_store(n).begin(real_store(n).ctx, write, &real);
    if (!err) {
        struct db_kv_txn *txn = calloc(1, sizeof *txn);
        CHR_ASSERT(txn);
        *txn = (struct db_kv_txn){.next = n->transactions, .real = real, .write = write};
        n->transactions = txn;
        n->store_written |= write;
        *out = txn;
    }
    life__enter();
    return err;
}

static chr_err store_get(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice *value)
{
    life__leave();
    chr_err err = real_store(ctx).get(real_store(ctx).ctx, txn->real, key, value);
    life__enter();
    return err;
}

static chr_err store_put(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice value)
{
    life__leave();
    chr_err err = real_store(ctx).put(real_store(ctx).ctx, txn->real, key, value);
    life__enter();
    return err;
}

static chr_err store_del(void *ctx, db_kv_txn *txn, chr_slice key)
{
    life__leave();
    chr_err err = real_store(ctx).del(real_store(ctx).ctx, txn->real, key);
    life__enter();
    return err;
}

static chr_err store_cursor_open(void *ctx, db_kv_txn *txn, chr_slice prefix, chr_slice from,
                                 db_kv_cursor **out)
{
    struct node *n = ctx;
    life__leave();
    db_kv_cursor *real = NULL;
    chr_err err = real_store(n).cursor_open(real_store(n).ctx, txn->real, prefix, from, &real);
    if (!err) {
        struct db_kv_cursor *cursor = calloc(1, sizeof *cursor);
        CHR_ASSERT(cursor);
        *cursor = (struct db_kv_cursor){.next = n->cursors, .real = real};
        n->cursors = cursor;
        *out = cursor;
    }
    life__enter();
    return err;
}

static chr_err store_cursor_next(void *ctx, db_kv_cursor *cursor, chr_slice *key, chr_slice *value)
{
    life__leave();
    chr_err err = real_store(ctx).cursor_next(real_store(ctx).ctx, cursor->real, key, value);
    life__enter();
    return err;
}

static void close_cursor(struct node *n, struct db_kv_cursor *cursor)
{
    struct db_kv_cursor **at = (struct db_kv_cursor **)&n->cursors;
    while (*at != cursor)
        at = &(*at)->next;
    *at = cursor->next;
    real_store(n).cursor_close(real_store(n).ctx, cursor->real);
    free(cursor);
}

static void store_cursor_close(void *ctx, db_kv_cursor *cursor)
{
    life__leave();
    if (cursor)
        close_cursor(ctx, cursor);
    life__enter();
}

static chr_err store_commit(void *ctx, db_kv_txn *txn)
{
    struct node *n = ctx;
    life__leave();
    takes_time(n, n->store_us);
    chr_err err = real_store(n).commit(real_store(n).ctx, txn->real);
    forget_transaction(n, txn);
    if (err)
        life__world->report->store_faults++;
    if (fake_kv_crashed(n->store)) { /* power failed; it is not heard whether it came in time */
        life__kill(life__world, n, true, 1000 + (int64_t)below(life__world, 400000));
        life__die();
    }
    n->in_doubt |= err == CHR_EIO || err == CHR_EDOUBT;
    takes_time(n, n->store_us);
    life__enter();
    return err;
}

static void store_abort(void *ctx, db_kv_txn *txn)
{
    struct node *n = ctx;
    life__leave();
    real_store(n).abort(real_store(n).ctx, txn->real);
    forget_transaction(n, txn);
    life__enter();
}

static chr_err store_usage(void *ctx, uint64_t *file_bytes, uint64_t *used_bytes)
{
    life__leave();
    chr_err err = real_store(ctx).usage(real_store(ctx).ctx, file_bytes, used_bytes);
    life__enter();
    return err;
}

void life__store_reopen(struct node *n)
{
    fake_kv_reopen(n->store);
    while (n->cursors)
        close_cursor(n, n->cursors);
    while (n->transactions) {
        struct db_kv_txn *txn = n->transactions;
        real_store(n).abort(real_store(n).ctx, txn->real);
        forget_transaction(n, txn);
    }
    n->store_written = false;
    n->in_doubt = false;
    struct fake_kv_faults *faults = fake_kv_faults(n->store);
    *faults = (struct fake_kv_faults){.no_poison = faults->no_poison};
}

void life__disk_init(struct node *n)
{
    n->io = (struct raft_io){.open = disk_open,
                             .close = disk_close,
                             .pread = disk_pread,
                             .pwrite = disk_pwrite,
                             .sync = disk_sync,
                             .size = disk_size,
                             .truncate = disk_truncate,
                             .rename = disk_rename,
                             .unlink = disk_unlink,
                             .sync_dir = disk_sync_dir,
                             .list = disk_list,
                             .free_bytes = disk_free_bytes,
                             .ctx = n};
    n->kv = (struct db_kv){.begin = store_begin,
                           .get = store_get,
                           .put = store_put,
                           .del = store_del,
                           .cursor_open = store_cursor_open,
                           .cursor_next = store_cursor_next,
                           .cursor_close = store_cursor_close,
                           .commit = store_commit,
                           .abort = store_abort,
                           .usage = store_usage,
                           .ctx = n};
}
