#include "broker/data_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "base/random.h"

/* Numbers, twice the members in hex, a line for each other member. */
#define META_BYTES_MAX (2048u + 4u * RAFT_MEMBERS_BYTES_MAX + RAFT_MEMBERS_MAX * 160u)

static chr_err make_dir(const char *path, struct chr_errmsg *msg)
{
    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return CHR_OK;
    return chr_fail(msg, errno == EACCES ? CHR_EACCES : chr_err_from_errno(errno),
                    "can't create directory %s: %s", path, strerror(errno));
}

static chr_err join(char *out, size_t size, const char *path, const char *name,
                    struct chr_errmsg *msg)
{
    int n = snprintf(out, size, "%s/%s", path, name);
    if (n < 0 || (size_t)n >= size)
        return chr_fail(msg, CHR_ETOOBIG, "data directory: the path is too long");
    return CHR_OK;
}

bool data_dir_holds_files(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return false;
    bool found = false;
    for (struct dirent *e; !found && (e = readdir(d));)
        found = strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "LOCK") &&
                strcmp(e->d_name, "lost+found") && strcmp(e->d_name, "node.meta.new");
    closedir(d);
    return found;
}

static chr_err take_lock(const char *path, struct data_dir *dir, struct chr_errmsg *msg)
{
    char lock[4096];
    chr_err err = join(lock, sizeof lock, path, "LOCK", msg);
    if (err)
        return err;
    dir->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (dir->lock_fd < 0)
        return chr_fail(msg,
                        errno == EACCES || errno == EROFS ? CHR_EACCES : chr_err_from_errno(errno),
                        "data directory %s is not writable: %s", path, strerror(errno));
    if (flock(dir->lock_fd, LOCK_EX | LOCK_NB)) {
        char pid[32] = {0};
        ssize_t n = read(dir->lock_fd, pid, sizeof pid - 1);
        if (n > 0)
            pid[strcspn(pid, "\n")] = 0;
        return chr_fail(msg, CHR_ELOCKED, "data directory %s is in use by another process%s%s",
                        path, pid[0] ? ", pid " : "", pid);
    }
    char pid[32];
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(dir->lock_fd, 0) || pwrite(dir->lock_fd, pid, (size_t)n, 0) != n) {
        /* Only a convenience for the message above. */
    }
    return CHR_OK;
}

/* In hex, with a newline. */
static int put_members(char *out, const struct raft_members *members)
{
    uint8_t bytes[RAFT_MEMBERS_BYTES_MAX];
    size_t len = raft_members_encode(members, bytes);
    for (size_t i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    out[2 * len] = '\n';
    out[2 * len + 1] = 0;
    return (int)(2 * len + 1);
}

static bool get_members(const char *hex, struct raft_members *out)
{
    uint8_t bytes[RAFT_MEMBERS_BYTES_MAX];
    size_t len = 0;
    unsigned byte;
    while (len < sizeof bytes && sscanf(hex + 2 * len, "%2x", &byte) == 1)
        bytes[len++] = (uint8_t)byte;
    return raft_members_decode(chr_slice_of(bytes, len), out) == CHR_OK;
}

chr_err data_dir_write_meta(const char *path, const struct data_dir *dir, struct chr_errmsg *msg)
{
    char fresh[4096], meta[4096], text[META_BYTES_MAX];
    chr_err err = join(fresh, sizeof fresh, path, "node.meta.new", msg);
    if (!err)
        err = join(meta, sizeof meta, path, "node.meta", msg);
    if (err)
        return err;
    int len = snprintf(text, sizeof text,
                       "format %d\ncluster %016" PRIx64 "\nnode %" PRIu64
                       "\nincarnation %016" PRIx64 "\n",
                       DATA_DIR_FORMAT, dir->cluster, dir->node, dir->incarnation);
    if (dir->log_parent)
        len += snprintf(text + len, sizeof text - (size_t)len,
                        "log_parent %016" PRIx64 "\nlog_fork %" PRIu64 "\n", dir->log_parent,
                        dir->log_fork);
    if (dir->boot)
        len += snprintf(text + len, sizeof text - (size_t)len, "boot %" PRIu64 "\n", dir->boot);
    if (dir->founders.count) {
        len += snprintf(text + len, sizeof text - (size_t)len, "founders ");
        len += put_members(text + len, &dir->founders);
    }
    if (dir->members.count) {
        len += snprintf(text + len, sizeof text - (size_t)len, "members %" PRIu64 " %" PRIu64 " ",
                        dir->members_index, dir->members_term);
        len += put_members(text + len, &dir->members);
    }
    for (uint32_t i = 0; i < dir->peers_count; i++)
        len += snprintf(text + len, sizeof text - (size_t)len, "peer %s %s %s\n",
                        dir->peers[i].contact.name, dir->peers[i].contact.address,
                        dir->peers[i].votes ? "votes" : "learns");
    if (dir->cluster_format > 1)
        len += snprintf(text + len, sizeof text - (size_t)len, "cluster_format %" PRIu32 "\n",
                        dir->cluster_format);
    if (dir->clean)
        len += snprintf(text + len, sizeof text - (size_t)len, "clean\n");
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, text, (size_t)len) == len && fsync(fd) == 0;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    ok = ok && rename(fresh, meta) == 0;
    int dir_fd = ok ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    ok = dir_fd >= 0 && fsync(dir_fd) == 0;
    if (dir_fd >= 0)
        close(dir_fd);
    if (!ok)
        return chr_fail(msg, chr_err_from_errno(saved ? saved : errno), "can't write %s: %s", meta,
                        strerror(saved ? saved : errno));
    return CHR_OK;
}

/* "NAME HOST:PORT votes" */
static bool get_peer(const char *text, struct data_dir *dir)
{
    struct data_dir_peer p = {.votes = false};
    char word[8];
    if (dir->peers_count == RAFT_MEMBERS_MAX ||
        sscanf(text, "%63s %79s %7s", p.contact.name, p.contact.address, word) != 3)
        return false;
    p.votes = strcmp(word, "votes") == 0;
    dir->peers[dir->peers_count++] = p;
    return true;
}

static chr_err parse_meta(char *text, const char *path, struct data_dir *dir,
                          struct chr_errmsg *msg)
{
    unsigned seen = 0;
    char *rest = NULL;
    int at = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        uint64_t format;
        if (sscanf(line, "format %" SCNu64, &format) == 1) {
            if (format > DATA_DIR_FORMAT)
                return chr_fail(msg, CHR_EVERSION,
                                "data directory %s has format %" PRIu64
                                ", newer than this program knows (%d)",
                                path, format, DATA_DIR_FORMAT);
            seen |= 1;
        } else if (sscanf(line, "cluster %" SCNx64, &dir->cluster) == 1) {
            seen |= 2;
        } else if (sscanf(line, "node %" SCNu64, &dir->node) == 1) {
            seen |= 4;
        } else if (sscanf(line, "incarnation %" SCNx64, &dir->incarnation) == 1) {
            seen |= 8;
        } else if (sscanf(line, "log_parent %" SCNx64, &dir->log_parent) == 1 ||
                   sscanf(line, "log_fork %" SCNu64, &dir->log_fork) == 1) {
            continue;
        } else if (sscanf(line, "boot %" SCNu64, &dir->boot) == 1) {
        } else if (!strncmp(line, "founders ", 9)) {
            if (!get_members(line + 9, &dir->founders))
                seen |= 16;
        } else if (sscanf(line, "members %" SCNu64 " %" SCNu64 " %n", &dir->members_index,
                          &dir->members_term, &at) == 2) {
            if (!get_members(line + at, &dir->members))
                seen |= 16;
        } else if (!strncmp(line, "peer ", 5)) {
            if (!get_peer(line + 5, dir))
                seen |= 16;
        } else if (sscanf(line, "cluster_format %" SCNu32, &dir->cluster_format) == 1) {
        } else if (!strcmp(line, "clean")) {
            dir->clean = true;
        }
    }
    if (seen != 15)
        return chr_fail(msg, CHR_ECORRUPT, "%s/node.meta is damaged: a line is %s", path,
                        seen & 16 ? "wrong" : "missing");
    return CHR_OK;
}

chr_err data_dir_read_meta(const char *path, struct data_dir *dir, struct chr_errmsg *msg)
{
    char meta[4096], text[META_BYTES_MAX];
    chr_err err = join(meta, sizeof meta, path, "node.meta", msg);
    if (err)
        return err;
    int fd = open(meta, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return chr_fail(msg, errno == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errno),
                        "can't read %s: %s", meta, strerror(errno));
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n < 0)
        return chr_fail(msg, CHR_EIO, "can't read %s", meta);
    text[n] = 0;
    dir->log_parent = dir->log_fork = dir->boot = 0;
    dir->founders.count = dir->members.count = dir->peers_count = 0;
    dir->cluster_format = 1;
    dir->clean = false;
    return parse_meta(text, path, dir, msg);
}

static chr_err read_or_make_meta(const char *path, bool create, uint64_t node, struct data_dir *dir,
                                 struct chr_errmsg *msg)
{
    struct chr_errmsg why = {{0}};
    chr_err err = data_dir_read_meta(path, dir, &why);
    if (err == CHR_ENOTFOUND) {
        if (data_dir_holds_files(path) || !create)
            return chr_fail(msg, CHR_EFOREIGN,
                            "%s is not a Chronos data directory (it has no node.meta) and is not "
                            "empty; choose another --data-dir",
                            path);
        if (!node)
            chr_random_bytes(&dir->cluster, sizeof dir->cluster);
        chr_random_bytes(&dir->incarnation, sizeof dir->incarnation);
        dir->node = node ? node : 1;
        dir->cluster_format = 1;
        dir->clean = true; /* there was nothing to lose */
        return data_dir_write_meta(path, dir, msg);
    }
    return err ? chr_fail(msg, err, "%s", why.text) : CHR_OK;
}

/* What an interrupted transfer left is of no use to anyone. */
static void empty_tmp(const char *tmp)
{
    DIR *d = opendir(tmp);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        int n = snprintf(path, sizeof path, "%s/%s", tmp, e->d_name);
        if (e->d_name[0] != '.' && n > 0 && (size_t)n < sizeof path)
            (void)unlink(path);
    }
    closedir(d);
}

chr_err data_dir_save(const struct data_dir *dir, struct chr_errmsg *msg)
{
    return data_dir_write_meta(dir->path, dir, msg);
}

/* node 0: a single node's, or whoever's it is. */
static chr_err open_dir(const char *path, bool create, uint64_t node, struct data_dir *dir,
                        struct chr_errmsg *msg)
{
    memset(dir, 0, sizeof *dir);
    dir->lock_fd = -1;
    if ((size_t)snprintf(dir->path, sizeof dir->path, "%s", path) >= sizeof dir->path)
        return chr_fail(msg, CHR_ETOOBIG, "data directory: the path is too long");
    struct stat st;
    if (stat(path, &st)) {
        if (errno != ENOENT || !create)
            return chr_fail(msg, errno == ENOENT ? CHR_ENOTFOUND : chr_err_from_errno(errno),
                            "can't open data directory %s: %s", path, strerror(errno));
        chr_err err = make_dir(path, msg);
        if (err)
            return err;
    } else if (!S_ISDIR(st.st_mode)) {
        return chr_fail(msg, CHR_EFOREIGN, "%s is not a directory", path);
    }
    /* Look before the lock file makes it ours. */
    char meta[4096];
    chr_err err = join(meta, sizeof meta, path, "node.meta", msg);
    if (!err && access(meta, F_OK) && data_dir_holds_files(path))
        err = chr_fail(msg, CHR_EFOREIGN,
                       "%s is not a Chronos data directory (it has no node.meta) and is not empty; "
                       "choose another --data-dir",
                       path);
    if (!err)
        err = take_lock(path, dir, msg);
    if (!err)
        err = read_or_make_meta(path, create, node, dir, msg);
    if (!err)
        err = join(dir->log_path, sizeof dir->log_path, path, "log", msg);
    if (!err)
        err = join(dir->db_path, sizeof dir->db_path, path, "db", msg);
    if (!err)
        err = join(dir->tmp_path, sizeof dir->tmp_path, path, "tmp", msg);
    if (!err)
        err = make_dir(dir->log_path, msg);
    if (!err)
        err = make_dir(dir->db_path, msg);
    if (!err)
        err = make_dir(dir->tmp_path, msg);
    if (err) {
        data_dir_close(dir);
        return err;
    }
    empty_tmp(dir->tmp_path);
    return CHR_OK;
}

chr_err data_dir_open(const char *path, bool create, struct data_dir *dir, struct chr_errmsg *msg)
{
    return open_dir(path, create, 0, dir, msg);
}

/* A single node's state becomes that of a cluster of one, under the node's name. */
static void adopt_single(struct data_dir *dir, uint64_t node)
{
    dir->node = node;
    dir->founders.count = 1;
    dir->founders.items[0] = (struct raft_member){node, dir->incarnation, true};
}

chr_err data_dir_open_member(const char *path, uint64_t node, bool adopt, struct data_dir *dir,
                             struct chr_errmsg *msg)
{
    chr_err err = open_dir(path, true, node, dir, msg);
    if (err)
        return err;
    if (dir->node == 1 && adopt)
        adopt_single(dir, node);
    if (dir->node == 1)
        err = chr_fail(msg, CHR_EFOREIGN,
                       "data directory %s is a single node's, or a restored one; --bootstrap makes "
                       "a cluster of one of it, to which others are added",
                       path);
    else if (dir->node != node)
        err = chr_fail(msg, CHR_EFOREIGN, "data directory %s belongs to a node with another --id",
                       path);
    if (!err) {
        dir->was_clean = dir->clean;
        dir->clean = false;
        /* Above those of a disk that was wiped, too, as far as clocks can tell. */
        uint64_t now_ms = (uint64_t)(chr_clock_wall_us(chr_clock_system()) / 1000);
        dir->boot = CHR_MAX(dir->boot + 1, now_ms);
        err = data_dir_save(dir, msg);
    }
    if (err)
        data_dir_close(dir);
    return err;
}

void data_dir_close(struct data_dir *dir)
{
    if (dir->lock_fd >= 0)
        close(dir->lock_fd); /* releases the lock */
    dir->lock_fd = -1;
}
