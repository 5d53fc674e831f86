/* raft/io.h: what the log needs of a disk, as a struct of functions.
 *
 * The seam that the simulator replaces (design 9): io_posix.c is the real one,
 * tests/sim/fake_disk.c one that tears writes, loses unsynced bytes at a crash, fills up and flips
 * bits. All paths are names inside one directory, given when the io was made. Every function may
 * block; none retries; each returns 0 or a chr_err (CHR_ENOSPC apart from CHR_EIO: the first
 * promises nothing and may be waited out, the second puts the file in doubt, R16).
 *
 * The real one may be called by several threads at once. A handle stays with its file when the file
 * is renamed, and remains usable after an unlink. */
#ifndef CHR_RAFT_IO_H
#define CHR_RAFT_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define RAFT_IO_NAME_MAX 64 /* bytes of a file name, zero included */

struct raft_io {
    /* Opens for reading and writing; creates an empty file when create is true. The handle is
     * closed with close(). CHR_ENOTFOUND when absent and create is false. */
    chr_err (*open)(void *ctx, const char *name, bool create, int *handle);
    void (*close)(void *ctx, int handle);
    /* Reads up to len bytes; *got < len only at the end of the file. */
    chr_err (*pread)(void *ctx, int handle, void *buf, size_t len, uint64_t offset, size_t *got);
    /* Writes all or fails; after a failure any part may have been written. */
    chr_err (*pwrite)(void *ctx, int handle, const void *buf, size_t len, uint64_t offset);
    /* fdatasync. After a failure the contents since the last success are in doubt (R16). */
    chr_err (*sync)(void *ctx, int handle);
    chr_err (*size)(void *ctx, int handle, uint64_t *bytes);
    chr_err (*truncate)(void *ctx, int handle, uint64_t bytes);
    chr_err (*rename)(void *ctx, const char *from, const char *to);
    chr_err (*unlink)(void *ctx, const char *name);
    /* Makes renames, creations and unlinks durable. */
    chr_err (*sync_dir)(void *ctx);
    /* Calls each(arg, name) for every file. */
    chr_err (*list)(void *ctx, void (*each)(void *arg, const char *name), void *arg);
    /* Bytes a writer may still put on this disk; a hint for messages and for waiting out ENOSPC. */
    chr_err (*free_bytes)(void *ctx, uint64_t *bytes);
    void *ctx;
};

/* The real disk: files under `dir`, which must exist. The io lives until raft_io_posix_close. */
CHR_MUST_USE chr_err raft_io_posix_open(const char *dir, struct raft_io *io,
                                        struct chr_errmsg *msg);
void raft_io_posix_close(struct raft_io *io);

#endif
