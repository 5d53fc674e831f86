/* db/kv_lmdb.c: db_kv on LMDB.
 *
 * Durability. LMDB's default: a commit writes the new pages, fdatasyncs the file, then writes one
 * of two meta pages through a descriptor opened with O_DSYNC. Until that last write is on disk the
 * old meta page, and the old tree it points to, are untouched; so a commit has happened or it has
 * not. MDB_NOSYNC and MDB_NOMETASYNC would give up the first or the second half of this, and a
 * commit here is a checkpoint after which the log is cut: what it lost would be lost. MDB_WRITEMAP
 * would let a stray pointer of ours write into the database. None is used.
 *
 * Flags that are: MDB_NOTLS ties a read transaction to its handle, not its thread, because a reader
 * opened by one worker may be moved on by another. MDB_NORDAHEAD is not: what is read cold are
 * values of up to 64 neighbouring pages, and without read-ahead each page is its own wait for the
 * disk. MDB_NOMEMINIT is not: it saves little and would put bytes of our heap, keys and passwords
 * among them, into pages on disk.
 *
 * Reader slots: a thread that dies with the process leaves its slot behind in lock.mdb; those of
 * dead processes are cleared at open, or their pages would never be reused (R10). */
#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "db/kv.h"

/* Query workers, checkpointer, check and a snapshot each hold one for a morsel. 510 fill the lock
 * file to 8 pages of 64-byte slots. */
#define READERS_MAX 510
/* Below this nothing useful fits; a failure to map so little is an error. */
#define MAP_BYTES_MIN (UINT64_C(16) << 20)
/* A transaction may need this much beyond what was free when it began. */
#define DISK_FULL_BYTES (UINT64_C(1) << 20)
#define FILE_MODE       0640
#define DIR_MODE        0750

_Static_assert(DB_KV_KEY_MAX == 511, "the default MDB_MAXKEYSIZE of liblmdb");

struct lmdb {
    MDB_env *env;
    MDB_dbi dbi;
    pid_t pid;         /* that opened it */
    atomic_bool doubt; /* a commit failed with EIO */
    dev_t dev;         /* of the directory */
    ino_t ino;
    struct lmdb *next; /* in open_list */
    char *path;
};

struct db_kv_txn {
    MDB_txn *txn;
    bool write;
};

struct db_kv_cursor {
    MDB_cursor *cursor;
    bool started;
    size_t prefix_len;
    size_t from_len;
    uint8_t prefix[DB_KV_KEY_MAX];
    uint8_t from[DB_KV_KEY_MAX];
};

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lmdb *open_list; /* under open_lock */

static chr_err err_of(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return CHR_OK;
    case MDB_NOTFOUND:
        return CHR_ENOTFOUND;
    case MDB_MAP_FULL:
        return CHR_ENOSPC;
    case MDB_VERSION_MISMATCH:
        return CHR_EVERSION;
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INCOMPATIBLE:
        return CHR_ECORRUPT;
    case MDB_PANIC:
        return CHR_EDOUBT;
    case MDB_READERS_FULL:
    case MDB_TXN_FULL:
    case MDB_DBS_FULL:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
        return CHR_EFULL;
    case MDB_BAD_VALSIZE:
    case MDB_BAD_TXN:
    case MDB_BAD_RSLOT:
    case MDB_BAD_DBI:
        return CHR_EINVAL;
    default:
        return rc > 0 ? chr_err_from_errno(rc) : CHR_EIO;
    }
}

static MDB_val val_of(chr_slice s)
{
    return (MDB_val){.mv_size = s.len, .mv_data = (void *)(uintptr_t)s.ptr};
}

static chr_slice slice_of(MDB_val v)
{
    return chr_slice_of(v.mv_data, v.mv_size);
}

/* -- Transactions -------------------------------------------------------------------------------*/

static chr_err kv_begin(void *ctx, bool write, db_kv_txn **txn)
{
    struct lmdb *l = ctx;
    if (l->pid != getpid())
        return CHR_EINVAL; /* a forked copy: its locks and its map are the parent's */
    if (write && atomic_load(&l->doubt))
        return CHR_EDOUBT;
    struct db_kv_txn *t = malloc(sizeof *t);
    if (!t)
        return CHR_ENOMEM;
    t->write = write;
    int rc = mdb_txn_begin(l->env, NULL, write ? 0 : MDB_RDONLY, &t->txn);
    if (rc == 0 && write && atomic_load(&l->doubt)) {
        /* The one we waited for has failed. */
        mdb_txn_abort(t->txn);
        free(t);
        return CHR_EDOUBT;
    }
    if (rc) {
        free(t);
        return err_of(rc);
    }
    *txn = t;
    return CHR_OK;
}

static chr_err kv_get(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice *value)
{
    struct lmdb *l = ctx;
    MDB_val k = val_of(key), v;
    if (key.len == 0 || key.len > DB_KV_KEY_MAX)
        return CHR_ENOTFOUND;
    int rc = mdb_get(txn->txn, l->dbi, &k, &v);
    if (rc == 0)
        *value = slice_of(v);
    return err_of(rc);
}

static chr_err kv_put(void *ctx, db_kv_txn *txn, chr_slice key, chr_slice value)
{
    struct lmdb *l = ctx;
    MDB_val k = val_of(key), v = val_of(value);
    if (key.len == 0 || key.len > DB_KV_KEY_MAX)
        return CHR_EINVAL;
    if (value.len > DB_KV_VALUE_MAX)
        return CHR_ETOOBIG;
    return err_of(mdb_put(txn->txn, l->dbi, &k, &v, 0));
}

static chr_err kv_del(void *ctx, db_kv_txn *txn, chr_slice key)
{
    struct lmdb *l = ctx;
    MDB_val k = val_of(key);
    if (key.len == 0 || key.len > DB_KV_KEY_MAX)
        return CHR_OK;
    int rc = mdb_del(txn->txn, l->dbi, &k, NULL);
    return rc == MDB_NOTFOUND ? CHR_OK : err_of(rc);
}

static void kv_abort(void *ctx, db_kv_txn *txn)
{
    (void)ctx;
    mdb_txn_abort(txn->txn);
    free(txn);
}

/* LMDB says EIO for a write that the file system cut short, which is how a disk fills up as often
 * as by ENOSPC. Calling a real EIO a full disk does no harm: the next transaction writes each of
 * its pages anew before it syncs, and a meta page that could not be written is MDB_PANIC. */
static bool disk_is_full(const struct lmdb *l)
{
    struct statvfs fs;
    return statvfs(l->path, &fs) == 0 &&
           (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize < DISK_FULL_BYTES;
}

/* Could a meta page not be written? LMDB then refuses readers too. */
static bool has_panicked(const struct lmdb *l)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);
    if (rc == 0)
        mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

static chr_err kv_commit(void *ctx, db_kv_txn *txn)
{
    struct lmdb *l = ctx;
    if (!txn->write) {
        kv_abort(ctx, txn);
        return CHR_OK;
    }
    int rc = mdb_txn_commit(txn->txn); /* ends it in any case */
    free(txn);
    chr_err err = err_of(rc);
    if (err == CHR_EIO && disk_is_full(l))
        err = CHR_ENOSPC;
    if (err && has_panicked(l))
        err = CHR_EIO;
    if (err == CHR_EIO)
        atomic_store(&l->doubt, true);
    if (err && err != CHR_ENOSPC) /* of that the checkpointer speaks, not at each try */
        chr_log_error("kv", "commit failed", CHR_KV_C("path", l->path),
                      CHR_KV_C("reason", mdb_strerror(rc)));
    return err;
}

/* -- Cursors ------------------------------------------------------------------------------------*/

static chr_err kv_cursor_open(void *ctx, db_kv_txn *txn, chr_slice prefix, chr_slice from,
                              db_kv_cursor **cursor)
{
    struct lmdb *l = ctx;
    if (prefix.len > DB_KV_KEY_MAX || from.len > DB_KV_KEY_MAX)
        return CHR_EINVAL;
    struct db_kv_cursor *c = malloc(sizeof *c);
    if (!c)
        return CHR_ENOMEM;
    int rc = mdb_cursor_open(txn->txn, l->dbi, &c->cursor);
    if (rc) {
        free(c);
        return err_of(rc);
    }
    /* The place to begin at is the later of the two. */
    chr_slice begin = chr_slice_cmp(from, prefix) > 0 ? from : prefix;
    c->started = false;
    c->prefix_len = prefix.len;
    c->from_len = begin.len;
    if (prefix.len)
        memcpy(c->prefix, prefix.ptr, prefix.len);
    if (begin.len)
        memcpy(c->from, begin.ptr, begin.len);
    *cursor = c;
    return CHR_OK;
}

static chr_err kv_cursor_next(void *ctx, db_kv_cursor *c, chr_slice *key, chr_slice *value)
{
    (void)ctx;
    MDB_val k = {.mv_size = c->from_len, .mv_data = c->from}, v;
    MDB_cursor_op op = c->started ? MDB_NEXT : c->from_len ? MDB_SET_RANGE : MDB_FIRST;
    int rc = mdb_cursor_get(c->cursor, &k, &v, op);
    if (rc)
        return err_of(rc);
    c->started = true;
    if (!chr_slice_starts(slice_of(k), chr_slice_of(c->prefix, c->prefix_len)))
        return CHR_ENOTFOUND;
    *key = slice_of(k);
    *value = slice_of(v);
    return CHR_OK;
}

static void kv_cursor_close(void *ctx, db_kv_cursor *c)
{
    (void)ctx;
    if (!c)
        return;
    mdb_cursor_close(c->cursor);
    free(c);
}

/* -- Usage --------------------------------------------------------------------------------------*/

/* Pages on LMDB's free list: dbi 0, each value is a list that begins with its length. */
static int free_pages(struct lmdb *l, uint64_t *pages)
{
    MDB_txn *txn;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    *pages = 0;
    int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);
    if (rc)
        return rc;
    rc = mdb_cursor_open(txn, 0, &cursor);
    while (!rc && !(rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
        size_t n = 0;
        if (value.mv_size >= sizeof n)
            memcpy(&n, value.mv_data, sizeof n);
        *pages += n;
    }
    if (cursor)
        mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static chr_err kv_usage(void *ctx, uint64_t *file_bytes, uint64_t *used_bytes)
{
    struct lmdb *l = ctx;
    MDB_envinfo info;
    MDB_stat stat_of;
    struct stat st;
    uint64_t pages = 0;
    int fd;
    if (l->pid != getpid())
        return CHR_EINVAL;
    int rc = mdb_env_info(l->env, &info);
    if (!rc)
        rc = mdb_env_stat(l->env, &stat_of);
    if (!rc)
        rc = mdb_env_get_fd(l->env, &fd);
    if (!rc && fstat(fd, &st))
        rc = errno;
    if (!rc)
        rc = free_pages(l, &pages);
    if (rc)
        return err_of(rc);
    uint64_t used = (uint64_t)info.me_last_pgno + 1;
    *file_bytes = (uint64_t)st.st_size;
    *used_bytes = (used - CHR_MIN(pages, used)) * stat_of.ms_psize;
    return CHR_OK;
}

/* -- Open and close -----------------------------------------------------------------------------*/

static chr_err enlist(struct lmdb *l, const char *dir, struct chr_errmsg *msg)
{
    struct stat st;
    if (mkdir(dir, DIR_MODE) && errno != EEXIST)
        return chr_fail(msg, chr_err_from_errno(errno), "cannot create directory %s: %s", dir,
                        strerror(errno));
    if (stat(dir, &st))
        return chr_fail(msg, chr_err_from_errno(errno), "cannot look at directory %s: %s", dir,
                        strerror(errno));
    l->dev = st.st_dev;
    l->ino = st.st_ino;
    l->pid = getpid();
    chr_err err = CHR_OK;
    pthread_mutex_lock(&open_lock);
    for (struct lmdb *other = open_list; other; other = other->next) {
        if (other->dev == l->dev && other->ino == l->ino && other->pid == l->pid)
            err = chr_fail(msg, CHR_EBUSY, "%s is open in this process already", dir);
    }
    if (!err) {
        l->next = open_list;
        open_list = l;
    }
    pthread_mutex_unlock(&open_lock);
    return err;
}

static void delist(struct lmdb *l)
{
    pthread_mutex_lock(&open_lock);
    struct lmdb **at = &open_list;
    while (*at && *at != l)
        at = &(*at)->next;
    if (*at)
        *at = l->next;
    pthread_mutex_unlock(&open_lock);
}

static int open_env(struct lmdb *l, const char *dir, uint64_t map_bytes)
{
    int rc = mdb_env_create(&l->env);
    if (rc)
        return rc;
    rc = mdb_env_set_mapsize(l->env, map_bytes);
    if (!rc)
        rc = mdb_env_set_maxreaders(l->env, READERS_MAX);
    if (!rc)
        rc = mdb_env_open(l->env, dir, MDB_NOTLS, FILE_MODE);
    if (rc) {
        mdb_env_close(l->env);
        l->env = NULL;
    }
    return rc;
}

/* Asks for less address space until the system agrees. */
static int open_mapped(struct lmdb *l, const char *dir, uint64_t map_bytes)
{
    uint64_t bytes = map_bytes;
    int rc = open_env(l, dir, bytes);
    while (rc == ENOMEM && bytes / 2 >= MAP_BYTES_MIN) {
        bytes /= 2;
        rc = open_env(l, dir, bytes);
    }
    if (rc == 0 && bytes != map_bytes)
        chr_log_warning("kv", "less address space than asked for; the database can grow to this",
                        CHR_KV_C("path", dir), CHR_KV_U("asked_bytes", map_bytes),
                        CHR_KV_U("bytes", bytes));
    return rc;
}

static int open_table(struct lmdb *l)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);
    if (rc)
        return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &l->dbi);
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn); /* keeps the handle */
}

static chr_err fail_open(const char *dir, int rc, struct chr_errmsg *msg)
{
    switch (rc) {
    case MDB_VERSION_MISMATCH:
        return chr_fail(msg, CHR_EVERSION, "%s/data.mdb was written by another version of LMDB",
                        dir);
    case MDB_INVALID:
        return chr_fail(msg, CHR_ECORRUPT, "%s/data.mdb is not an LMDB file", dir);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
        return chr_fail(msg, CHR_ECORRUPT, "%s/data.mdb is damaged: %s", dir, mdb_strerror(rc));
    default:
        return chr_fail(msg, err_of(rc), "cannot open %s/data.mdb: %s", dir, mdb_strerror(rc));
    }
}

static void destroy(struct lmdb *l)
{
    if (!l)
        return;
    if (l->env)
        mdb_env_close(l->env);
    delist(l);
    free(l->path);
    free(l);
}

chr_err db_kv_lmdb_open(const char *dir, uint64_t map_bytes, struct db_kv *kv,
                        struct chr_errmsg *msg)
{
    memset(kv, 0, sizeof *kv);
    struct lmdb *l = calloc(1, sizeof *l);
    if (!l || !(l->path = strdup(dir))) {
        free(l);
        return chr_fail(msg, CHR_ENOMEM, "no memory to open %s", dir);
    }
    chr_err err = enlist(l, dir, msg);
    if (err) {
        free(l->path);
        free(l);
        return err;
    }
    int rc = open_mapped(l, dir, map_bytes ? map_bytes : DB_KV_MAP_BYTES_DEFAULT);
    int dead = 0;
    if (!rc)
        rc = mdb_reader_check(l->env, &dead);
    if (!rc)
        rc = open_table(l);
    if (rc) {
        destroy(l);
        return fail_open(dir, rc, msg);
    }
    if (dead)
        chr_log_info("kv", "cleared reader slots of dead processes", CHR_KV_C("path", dir),
                     CHR_KV_I("slots", dead));
    CHR_ASSERT(mdb_env_get_maxkeysize(l->env) >= DB_KV_KEY_MAX);
    *kv = (struct db_kv){
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
        .ctx = l,
    };
    return CHR_OK;
}

void db_kv_lmdb_close(struct db_kv *kv)
{
    struct lmdb *l = kv->ctx;
    if (l && l->pid == getpid())
        destroy(l);
    memset(kv, 0, sizeof *kv);
}
