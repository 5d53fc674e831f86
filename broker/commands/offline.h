/* broker/commands/offline.h: the state of a data directory whose node does not run.
 *
 * What a checkpoint holds, and what is committed behind it as far as that can be known. A cluster
 * of one has committed all that its log holds; a member of a larger one cannot tell by itself, so
 * it is taken at its checkpoint, which after a clean stop holds everything that was applied. */
#ifndef CHR_BROKER_COMMANDS_OFFLINE_H
#define CHR_BROKER_COMMANDS_OFFLINE_H

#include "broker/data_dir.h"
#include "db/db.h"
#include "raft/log.h"

struct offline {
    struct data_dir dir;
    struct db_kv kv;
    bool kv_open, io_open;
    db *db;
    struct raft_io io;
    raft_log *log;
    struct raft_log_recovery recovery;
    uint64_t left_out; /* entries in the log that may not be committed, and were not applied */
};

/* Takes the directory's lock: CHR_ELOCKED while a node runs. Entries behind the checkpoint are
 * applied in memory. writes: the log is recovered as a start does it, so that a checkpoint may
 * follow; else nothing is changed on the disk.
 * CHR_EBUSY: a snapshot waits to be installed; CHR_EFOREIGN, CHR_ENOTFOUND: no data directory; else
 * as data_dir_open, db_open and raft_log_open. After an error close it, too. */
CHR_MUST_USE chr_err offline_open(struct offline *offline, const char *data_dir, uint64_t map_bytes,
                                  bool writes, struct chr_errmsg *msg);
/* Applies entries up to `index` that the log holds and offline_open left out: the caller knows that
 * they are committed. */
CHR_MUST_USE chr_err offline_apply(struct offline *offline, uint64_t index, struct chr_errmsg *msg);
/* Makes what was applied durable (opened with `writes`). */
CHR_MUST_USE chr_err offline_checkpoint(struct offline *offline, struct chr_errmsg *msg);
void offline_close(struct offline *offline);

#endif
