#include "broker/commands/offline.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "broker/files.h"
#include "broker/install.h"

#define READ_BYTES   (8u << 20)
#define READ_ENTRIES 4096u

/* Calls each for the log's entries from `from` on, until it is false. */
static chr_err each_entry(const struct offline *o, uint64_t from,
                          bool (*each)(void *arg, const struct raft_entry *entry), void *arg,
                          struct chr_errmsg *msg)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 2 * READ_BYTES);
    struct raft_entry *entries = calloc(READ_ENTRIES, sizeof *entries);
    chr_err err = entries ? CHR_OK : CHR_ENOMEM;
    bool more = true;
    for (uint64_t next = from; !err && more && next <= raft_log_last(o->log);) {
        size_t count = 0;
        chr_buf_reset(&buf);
        err = raft_log_read(o->log, next, READ_BYTES, &buf, entries, READ_ENTRIES, &count);
        if (!err && count == 0)
            err = CHR_ECORRUPT;
        for (size_t i = 0; !err && more && i < count; i++, next++)
            more = each(arg, &entries[i]);
        if (err)
            (void)chr_fail(msg, err, "log entry %" PRIu64 ": %s", next, chr_strerror(err));
    }
    free(entries);
    chr_buf_free(&buf);
    return err;
}

struct apply {
    db *db;
    uint64_t until;
};

static bool apply(void *arg, const struct raft_entry *entry)
{
    const struct apply *a = arg;
    struct db_apply_result result;
    if (entry->index > a->until)
        return false;
    struct db_origin origin;
    bool forwarded = entry->type == RAFT_ENTRY_FORWARDED && entry->bytes.len >= RAFT_ORIGIN_BYTES;
    chr_slice bytes = {0};
    if (forwarded) {
        const uint8_t *p = entry->bytes.ptr;
        origin = (struct db_origin){.node = chr_get_u64le(p),
                                    .boot = chr_get_u64le(p + 8),
                                    .sequence = chr_get_u64le(p + 16)};
        bytes = chr_slice_of(p + RAFT_ORIGIN_BYTES, entry->bytes.len - RAFT_ORIGIN_BYTES);
    } else if (entry->type == RAFT_ENTRY_DATA) {
        bytes = entry->bytes;
    }
    db_apply_from(a->db, entry->index, entry->hlc, forwarded ? &origin : NULL, bytes, &result);
    return true;
}

chr_err offline_apply(struct offline *o, uint64_t index, struct chr_errmsg *msg)
{
    struct apply a = {.db = o->db, .until = index};
    chr_err err = each_entry(o, db_apply_index(o->db) + 1, apply, &a, msg);
    o->left_out = raft_log_last(o->log) - db_apply_index(o->db);
    return err;
}

static chr_err open_log(struct offline *o, bool writes, struct chr_errmsg *msg)
{
    const struct raft_log_options options = {.read_only = !writes};
    chr_err err = raft_io_posix_open(o->dir.log_path, &o->io, msg);
    if (err)
        return err;
    o->io_open = true;
    return raft_log_open(&o->io, &options, db_durable_index(o->db) + 1, &o->log, &o->recovery, msg);
}

chr_err offline_open(struct offline *o, const char *data_dir, uint64_t map_bytes, bool writes,
                     struct chr_errmsg *msg)
{
    char meta[FILES_PATH_MAX];
    struct db_options options;
    memset(o, 0, sizeof *o);
    o->dir.lock_fd = -1;
    /* Nothing is made in a directory that is not a node's already, not even a lock file. */
    chr_err err = files_join(meta, data_dir, "node.meta", msg);
    if (!err && access(meta, R_OK))
        return chr_fail(msg, errno == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errno),
                        "%s is not a Chronos data directory that can be read: node.meta: %s",
                        data_dir, strerror(errno));
    if (!err)
        err = data_dir_open(data_dir, false, &o->dir, msg);
    if (!err && install_waits(data_dir))
        err = chr_fail(msg, CHR_EBUSY, "%s: a snapshot waits to be installed; start the node first",
                       data_dir);
    if (!err)
        err = db_kv_lmdb_open(o->dir.db_path, map_bytes, &o->kv, msg);
    o->kv_open = !err;
    db_options_default(&options);
    options.hot_limit_bytes = UINT64_MAX; /* nobody waits for a checkpoint here */
    if (!err)
        err = db_open(&o->kv, &options, &o->db, msg);
    if (!err)
        err = open_log(o, writes, msg);
    /* A single node is number 1, a member of a cluster another one. */
    if (!err && o->dir.node != 1)
        o->left_out = raft_log_last(o->log) - db_apply_index(o->db);
    else if (!err)
        err = offline_apply(o, raft_log_last(o->log), msg);
    return err;
}

/* The log was recovered: all it holds is durable. */
static chr_err is_synced(void *arg, uint64_t index)
{
    const struct offline *o = arg;
    return index <= raft_log_durable(o->log) ? CHR_OK : CHR_EDOUBT;
}

chr_err offline_checkpoint(struct offline *o, struct chr_errmsg *msg)
{
    return db_checkpoint(o->db, DB_CHECKPOINT_REQUEST, is_synced, o, 0, msg);
}

void offline_close(struct offline *o)
{
    raft_log_close(o->log);
    if (o->io_open)
        raft_io_posix_close(&o->io);
    db_close(o->db);
    if (o->kv_open)
        db_kv_lmdb_close(&o->kv);
    data_dir_close(&o->dir);
}
