/* broker/snapshot_pin.h: a node's last checkpoint, pinned as a snapshot: what the state machine
 * does not know about itself comes from log and data directory. For GET /snapshot, `chronos
 * snapshot create` and, in a leader, for a follower that is too far behind. */
#ifndef CHR_BROKER_SNAPSHOT_PIN_H
#define CHR_BROKER_SNAPSHOT_PIN_H

#include "broker/data_dir.h"
#include "db/snapshot.h"
#include "raft/log.h"

struct snapshot_pin_options {
    db *db; /* all borrowed until the call returns */
    const raft_log *log;
    const struct data_dir *dir;
    /* The members of the group as of entry `index`, and the entry they are from; *bytes lives until
     * the next call. NULL: a cluster of one, which needs none. */
    chr_err (*members)(void *ctx, uint64_t index, uint64_t *members_index, chr_slice *bytes);
    void *ctx;
};
/* As db_snapshot_begin; the spool is a nameless file in the directory's tmp/. Any thread but the
 * applier and the checkpointer; may take as long as the small records of the state take to copy.
 * To db_snapshot_end, before db_close. */
CHR_MUST_USE chr_err snapshot_pin(const struct snapshot_pin_options *options, db_snapshot **out,
                                  struct chr_errmsg *msg);

#endif
