#include "broker/snapshot_pin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/files.h"

/* The log is kept for the last checkpoint at least, so the entry's term is still known. */
static chr_err describe(void *arg, uint64_t index, struct db_snapshot_origin *origin)
{
    const struct snapshot_pin_options *o = arg;
    *origin = (struct db_snapshot_origin){.cluster = o->dir->cluster,
                                          .incarnation = raft_log_incarnation(o->log),
                                          .term = raft_log_term_of(o->log, index)};
    return o->members ? o->members(o->ctx, index, &origin->members_index, &origin->members)
                      : CHR_OK;
}

/* A file without a name goes with its last descriptor, whatever becomes of the process. */
static chr_err open_spool(const char *tmp, int *fd, struct chr_errmsg *msg)
{
    char path[FILES_PATH_MAX];
    *fd = open(tmp, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd >= 0)
        return CHR_OK;
    /* Not every file system has it. */
    chr_err err = files_join(path, tmp, "snapshot-XXXXXX", msg);
    if (err)
        return err;
    *fd = mkostemp(path, O_CLOEXEC);
    if (*fd < 0)
        return chr_fail(msg, chr_err_from_errno(errno), "can't create a file in %s: %s", tmp,
                        strerror(errno));
    (void)unlink(path);
    return CHR_OK;
}

chr_err snapshot_pin(const struct snapshot_pin_options *options, db_snapshot **out,
                     struct chr_errmsg *msg)
{
    int spool_fd;
    *out = NULL;
    chr_err err = open_spool(options->dir->tmp_path, &spool_fd, msg);
    return err ? err
               : db_snapshot_begin(options->db, spool_fd, describe, (void *)(uintptr_t)options, out,
                                   msg);
}
