/* broker/install.c: see the header for the steps and why they can be repeated.
 *
 * D/install.new and D/install:  db/        the store that was received
 *                               first      part 0 of the snapshot: of when it is
 *                               plan       text: which kind, and the incarnation of the new log
 *                               node.meta  (restore) becomes D/node.meta
 *                               log/       the new log, when it is whole; log.new until then
 *                               old.*      what was there before */
#include "broker/install.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "broker/files.h"
#include "raft/log.h"
#include "raft/members.h"

#define NEW             "install.new"
#define BOUND           "install"
#define DONE            "install.done"
#define FIRST_BYTES_MAX 16384u

struct install {
    char *data_dir;
    char path[FILES_PATH_MAX]; /* of D/install.new */
    uint64_t map_bytes;
    struct db_kv kv;
    bool kv_open;
    db_snapshot_receiver *receiver;
};

/* -- Staging ------------------------------------------------------------------------------------*/

bool install_waits(const char *data_dir)
{
    char path[FILES_PATH_MAX];
    return files_join(path, data_dir, BOUND, NULL) == CHR_OK && files_exist(path);
}

chr_err install_discard(const char *data_dir, struct chr_errmsg *msg)
{
    char path[FILES_PATH_MAX];
    chr_err err = files_join(path, data_dir, NEW, msg);
    return err ? err : files_remove_tree(path, msg);
}

static chr_err open_store(install *in, struct chr_errmsg *msg)
{
    char path[FILES_PATH_MAX];
    chr_err err = files_join(path, in->path, "db", msg);
    if (!err)
        err = files_make_dir(in->path, msg);
    if (!err)
        err = files_make_dir(path, msg);
    if (!err)
        err = db_kv_lmdb_open(path, in->map_bytes, &in->kv, msg);
    in->kv_open = !err;
    return err;
}

chr_err install_open(const char *data_dir, uint64_t map_bytes, install **out,
                     struct chr_errmsg *msg)
{
    *out = NULL;
    if (install_waits(data_dir))
        return chr_fail(msg, CHR_EBUSY,
                        "%s: a snapshot waits to be installed; start the node first", data_dir);
    install *in = calloc(1, sizeof *in);
    if (!in || !(in->data_dir = strdup(data_dir))) {
        free(in);
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    }
    in->map_bytes = map_bytes;
    chr_err err = files_join(in->path, data_dir, NEW, msg);
    if (!err)
        err = open_store(in, msg);
    if (!err)
        err = db_snapshot_receiver_begin(&in->kv, &in->receiver, msg);
    if (err == CHR_EEXIST) /* complete, but not bound: a crash came between */
        err = CHR_ECORRUPT;
    if (err) {
        install_close(in);
        return err;
    }
    *out = in;
    return CHR_OK;
}

static void close_store(install *in)
{
    db_snapshot_receiver_end(in->receiver);
    in->receiver = NULL;
    if (in->kv_open)
        db_kv_lmdb_close(&in->kv);
    in->kv_open = false;
}

void install_close(install *in)
{
    if (!in)
        return;
    close_store(in);
    free(in->data_dir);
    free(in);
}

uint64_t install_next(const install *in)
{
    return db_snapshot_receiver_next(in->receiver);
}

const struct db_snapshot_info *install_info(const install *in)
{
    return db_snapshot_receiver_info(in->receiver);
}

chr_err install_put(install *in, chr_slice part, struct chr_errmsg *msg)
{
    return db_snapshot_receiver_put(in->receiver, part, msg);
}

/* -- Commit -------------------------------------------------------------------------------------*/

static void note_finding(void *arg, const char *finding)
{
    struct chr_errmsg *first = arg;
    if (!first->text[0])
        snprintf(first->text, sizeof first->text, "%s", finding);
}

/* A node will open it: so do we, now that nothing is lost if it can't be. */
static chr_err try_store(install *in, uint64_t index, bool check, struct chr_errmsg *msg)
{
    struct db_options options;
    struct chr_errmsg finding = {{0}};
    uint64_t findings = 0;
    db *database = NULL;
    db_options_default(&options);
    chr_err err = db_open(&in->kv, &options, &database, msg);
    if (!err && db_durable_index(database) != index)
        err = chr_fail(msg, CHR_ECORRUPT, "the snapshot's state is not of entry %" PRIu64, index);
    if (!err && check)
        err = db_check(database, note_finding, &finding, &findings);
    db_close(database);
    if (findings)
        return chr_fail(msg, CHR_ECORRUPT, "the snapshot is damaged: %s", finding.text);
    return err;
}

static chr_err write_file(const install *in, const char *name, chr_slice bytes,
                          struct chr_errmsg *msg)
{
    char path[FILES_PATH_MAX];
    chr_err err = files_join(path, in->path, name, msg);
    return err ? err : files_replace(path, bytes, msg);
}

static uint64_t random_id(void)
{
    uint64_t id = 0;
    while (id == 0)
        chr_random_bytes(&id, sizeof id);
    return id;
}

static const char *const kinds[] = {
    [INSTALL_FOLLOWER] = "follower", [INSTALL_RESTORE] = "restore", [INSTALL_FORK] = "fork"};

static chr_err write_plan(const install *in, enum install_kind kind, struct chr_errmsg *msg)
{
    char text[128];
    int n = snprintf(text, sizeof text, "kind %s\nlog %016" PRIx64 "\n", kinds[kind], random_id());
    return write_file(in, "plan", chr_slice_of((const uint8_t *)text, (size_t)n), msg);
}

static chr_err write_new_meta(const install *in, const struct db_snapshot_info *info,
                              struct chr_errmsg *msg)
{
    struct data_dir fresh = {.cluster = random_id(),
                             .node = 1,
                             .incarnation = random_id(),
                             .log_parent = info->origin.incarnation,
                             .log_fork = info->index};
    return data_dir_write_meta(in->path, &fresh, msg);
}

chr_err install_commit(install *in, enum install_kind kind, bool check, struct chr_errmsg *msg)
{
    const struct db_snapshot_info *info = install_info(in);
    if (!info || install_next(in) < info->parts)
        return db_snapshot_receiver_finish(in->receiver, msg); /* says what is missing */
    chr_err err = write_file(in, "first", db_snapshot_receiver_first(in->receiver), msg);
    if (!err)
        err = write_plan(in, kind, msg);
    if (!err && kind == INSTALL_RESTORE)
        err = write_new_meta(in, info, msg);
    if (!err)
        err = db_snapshot_receiver_finish(in->receiver, msg);
    if (!err)
        err = try_store(in, info->index, check, msg);
    if (err)
        return err;
    char bound[FILES_PATH_MAX], store[FILES_PATH_MAX];
    err = files_join(bound, in->data_dir, BOUND, msg);
    if (!err)
        err = files_join(store, in->path, "db", msg);
    close_store(in); /* nothing of it is open when its name changes */
    if (!err)
        err = files_sync_dir(store, msg);
    if (!err)
        err = files_sync_dir(in->path, msg);
    if (!err)
        err = files_rename(in->path, bound, msg);
    return err ? err : files_sync_dir(in->data_dir, msg);
}

/* -- Fork ---------------------------------------------------------------------------------------*/

static chr_err begin_log(const char *path, uint64_t incarnation, uint64_t index,
                         const struct raft_log_base *base, struct chr_errmsg *msg)
{
    struct raft_io io;
    struct raft_log_recovery made;
    raft_log *log = NULL;
    const struct raft_log_options options = {.incarnation = incarnation, .base = *base};
    chr_err err = files_make_dir(path, msg);
    if (!err)
        err = raft_io_posix_open(path, &io, msg);
    if (err)
        return err;
    err = raft_log_open(&io, &options, index + 1, &log, &made, msg);
    raft_log_close(log);
    raft_io_posix_close(&io);
    return err;
}

chr_err install_fork(const char *data_dir, const struct data_dir *next, uint64_t index,
                     const struct raft_log_base *base, struct chr_errmsg *msg)
{
    struct install in = {.data_dir = NULL};
    char log[FILES_PATH_MAX], bound[FILES_PATH_MAX];
    chr_err err = install_discard(data_dir, msg);
    if (!err)
        err = files_join(in.path, data_dir, NEW, msg);
    if (!err)
        err = files_join(log, in.path, "log", msg);
    if (!err)
        err = files_join(bound, data_dir, BOUND, msg);
    if (!err)
        err = files_make_dir(in.path, msg);
    if (!err)
        err = begin_log(log, random_id(), index, base, msg);
    if (!err)
        err = write_plan(&in, INSTALL_FORK, msg);
    if (!err)
        err = data_dir_write_meta(in.path, next, msg);
    if (!err)
        err = files_sync_dir(in.path, msg);
    if (!err)
        err = files_rename(in.path, bound, msg);
    return err ? err : files_sync_dir(data_dir, msg);
}

/* -- Apply --------------------------------------------------------------------------------------*/

struct apply {
    const char *data_dir;
    char path[FILES_PATH_MAX]; /* of D/install */
    enum install_kind kind;
    uint64_t incarnation; /* of the new log */
    struct chr_buf first;
    struct db_snapshot_info info;
    struct chr_errmsg *msg;
};

static chr_err read_plan(struct apply *a)
{
    char path[FILES_PATH_MAX], kind[16] = "";
    struct chr_buf text;
    chr_buf_init(&text, 4096);
    chr_err err = files_join(path, a->path, "plan", a->msg);
    if (!err)
        err = files_read(path, &text, a->msg);
    if (!err) {
        chr_buf_add_u8(&text, 0);
        int n = sscanf((const char *)text.ptr, "kind %15s log %" SCNx64, kind, &a->incarnation);
        while (a->kind < INSTALL_FORK && strcmp(kind, kinds[a->kind]))
            a->kind++;
        if (n != 2 || strcmp(kind, kinds[a->kind]))
            err = chr_fail(a->msg, CHR_ECORRUPT, "%s is damaged", path);
    }
    chr_buf_free(&text);
    if (a->kind == INSTALL_FORK)
        return err == CHR_ENOTFOUND ? CHR_ECORRUPT : err;
    if (!err)
        err = files_join(path, a->path, "first", a->msg);
    if (!err)
        err = files_read(path, &a->first, a->msg);
    if (!err)
        err = db_snapshot_part_info(chr_buf_slice(&a->first), &a->info, a->msg);
    return err == CHR_ENOTFOUND ? CHR_ECORRUPT : err;
}

/* What the node has promised (I3), and whether its log holds the snapshot's last entry. */
static chr_err look_at_log(struct apply *a, struct raft_hard_state *promised, bool *goes_on)
{
    char path[FILES_PATH_MAX];
    struct raft_io io;
    struct raft_log_recovery found;
    struct raft_log_options options = {.read_only = true};
    raft_log *log = NULL;
    chr_err err = files_join(path, a->data_dir, "log", a->msg);
    if (!err && !files_exist(path))
        return CHR_OK;
    if (!err)
        err = raft_io_posix_open(path, &io, a->msg);
    if (err)
        return err;
    err = raft_log_open(&io, &options, 0, &log, &found, a->msg);
    if (!err) {
        *promised = found.hard_state;
        *goes_on = (a->info.index <= found.last_index && a->info.origin.term != 0 &&
                    raft_log_term_of(log, a->info.index) == a->info.origin.term) ||
                   /* a checkpoint beyond it was made, and what it covers was cut off */
                   raft_log_first(log) > a->info.index + 1;
        raft_log_close(log);
    }
    raft_io_posix_close(&io);
    return err == CHR_ENOTFOUND ? CHR_OK : err; /* a node that never had one */
}

static chr_err write_log(struct apply *a, const char *path, struct raft_hard_state promised)
{
    const struct raft_log_base base = {
        .term = a->info.origin.term, .hlc = a->info.hlc, .hard_state = promised};
    chr_err err = files_remove_tree(path, a->msg); /* what an earlier attempt left */
    return err ? err : begin_log(path, a->incarnation, a->info.index, &base, a->msg);
}

/* Step 1. *goes_on: it is not needed. */
static chr_err make_log(struct apply *a, bool *goes_on)
{
    char log[FILES_PATH_MAX], fresh[FILES_PATH_MAX], store[FILES_PATH_MAX];
    struct raft_hard_state promised = {0};
    chr_err err = files_join(log, a->path, "log", a->msg);
    if (!err)
        err = files_join(fresh, a->path, "log.new", a->msg);
    if (!err)
        err = files_join(store, a->path, "db", a->msg);
    if (err || files_exist(log) || !files_exist(store)) /* done, and perhaps moved already */
        return err;
    if (a->kind == INSTALL_FOLLOWER)
        err = look_at_log(a, &promised, goes_on);
    if (err || *goes_on)
        return err;
    if (promised.term < a->info.origin.term) /* no vote was cast in a term it has not seen */
        promised = (struct raft_hard_state){.term = a->info.origin.term};
    err = write_log(a, fresh, promised);
    if (!err)
        err = files_rename(fresh, log, a->msg);
    return err ? err : files_sync_dir(a->path, a->msg);
}

static chr_err sync_both(const struct apply *a)
{
    chr_err err = files_sync_dir(a->path, a->msg);
    return err ? err : files_sync_dir(a->data_dir, a->msg);
}

/* Puts the directory that was there before aside, under a name that is free. */
static chr_err put_aside(const struct apply *a, const char *name, const char *path)
{
    char aside[FILES_PATH_MAX], full[FILES_PATH_MAX];
    if (rmdir(path) == 0) /* empty: nothing to keep */
        return files_sync_dir(a->data_dir, a->msg);
    for (unsigned i = 0;; i++) {
        snprintf(aside, sizeof aside, "old.%s.%u", name, i);
        chr_err err = files_join(full, a->path, aside, a->msg);
        if (err)
            return err;
        if (files_exist(full))
            continue;
        err = files_rename(path, full, a->msg);
        return err ? err : sync_both(a);
    }
}

/* Steps 2 to 4, for one name. A file takes the place of another in one step; a directory does not.
 */
static chr_err bring_in(const struct apply *a, const char *name, bool directory)
{
    char from[FILES_PATH_MAX], to[FILES_PATH_MAX];
    chr_err err = files_join(from, a->path, name, a->msg);
    if (!err)
        err = files_join(to, a->data_dir, name, a->msg);
    if (err || !files_exist(from)) /* it is there already */
        return err;
    if (directory && files_exist(to))
        err = put_aside(a, name, to);
    if (!err)
        err = files_rename(from, to, a->msg);
    return err ? err : sync_both(a);
}

/* Entries before the log's first one said who the members are. */
static chr_err note_members(const struct apply *a)
{
    const struct db_snapshot_origin *o = &a->info.origin;
    struct data_dir dir = {0};
    struct raft_members members;
    if (o->members.len == 0)
        return CHR_OK;
    if (raft_members_decode(o->members, &members))
        return chr_fail(a->msg, CHR_ECORRUPT, "the members in the snapshot make no sense");
    chr_err err = data_dir_read_meta(a->data_dir, &dir, a->msg);
    if (err)
        return err;
    dir.members = members;
    dir.members_index = o->members_index;
    dir.members_term = o->term; /* of that entry or a later one */
    return data_dir_write_meta(a->data_dir, &dir, a->msg);
}

/* Step 5. */
static chr_err tidy(const struct apply *a)
{
    char done[FILES_PATH_MAX];
    chr_err err = files_join(done, a->data_dir, DONE, a->msg);
    if (err || (!files_exist(a->path) && !files_exist(done)))
        return err;
    if (!err)
        err = files_remove_tree(done, a->msg); /* of the time before */
    if (!err && files_exist(a->path))
        err = files_rename(a->path, done, a->msg);
    if (!err)
        err = files_sync_dir(a->data_dir, a->msg);
    return err ? err : files_remove_tree(done, a->msg);
}

static chr_err steps(struct apply *a, bool *goes_on)
{
    chr_err err = read_plan(a);
    if (!err)
        err = make_log(a, goes_on);
    if (err || *goes_on)
        return err;
    err = bring_in(a, "db", true);
    if (!err)
        err = bring_in(a, "log", true);
    if (!err && a->kind == INSTALL_FOLLOWER)
        err = note_members(a);
    if (!err)
        err = bring_in(a, "node.meta", false);
    return err;
}

chr_err install_apply(const char *data_dir, struct data_dir *dir, bool *applied,
                      struct chr_errmsg *msg)
{
    struct apply a = {.data_dir = data_dir, .msg = msg};
    bool waits = install_waits(data_dir), goes_on = false;
    chr_buf_init(&a.first, FIRST_BYTES_MAX);
    chr_err err = files_join(a.path, data_dir, BOUND, msg);
    if (!err && waits)
        err = steps(&a, &goes_on);
    if (!err)
        err = tidy(&a);
    if (!err && waits && goes_on)
        chr_log_notice("node", "a snapshot is not needed any more: the log holds its last entry",
                       CHR_KV_U("index", a.info.index));
    else if (!err && waits && a.kind == INSTALL_FORK)
        chr_log_notice("node", "the state goes on as that of a new cluster");
    else if (!err && waits)
        chr_log_notice("node", "a snapshot is installed", CHR_KV_U("index", a.info.index),
                       CHR_KV_U("term", a.info.origin.term));
    chr_buf_free(&a.first);
    if (applied)
        *applied = !err && waits && !goes_on;
    return err || !waits ? err : data_dir_read_meta(data_dir, dir, msg);
}
