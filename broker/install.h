/* broker/install.h: a snapshot takes the place of a data directory's state: all of it or nothing,
 * at whatever moment the process is killed or power fails.
 *
 *   stage   install_open, install_put …   parts into D/install.new (db/snapshot.h); goes on
 *           │                             after a restart
 *           install_commit                whole and durable: D/install.new ─▶ D/install, one
 *           ▼                             rename: from here on it will happen
 *   apply   install_apply                 at the node's start, before storage is opened
 *              1  D/install/log     the new log, behind the snapshot's last entry
 *              2  D/db   ─▶ D/install/old.db,   D/install/db  ─▶ D/db
 *              3  D/log  ─▶ D/install/old.log,  D/install/log ─▶ D/log
 *              4  node.meta: of a follower, with the members of the snapshot; of a restored
 *                 one, D/install/node.meta ─▶ D
 *              5  D/install ─▶ D/install.done, which is deleted
 *
 * Three kinds:
 *
 *   follower   the node has fallen behind. It stays who it is: its term and vote go into the
 *              new log (L5), its numbers stay. If its own log turns out to hold the
 *              snapshot's last entry the log goes on from there, and the snapshot is dropped:
 *              a log must not lose entries that it has acknowledged (thesis, chapter 5).
 *   restore    the state of a backup as a new cluster of one: new cluster id, new incarnation
 *              of node and log; node.meta says which log it came from (R22).
 *
 *   fork       the state stays where it is, all of it in the checkpoint; what it goes on with is
 * new: the log behind it, cluster id, incarnations, members (commands/force.h). There is no db/ in
 * D/install, and the log is in it from the beginning: steps 3 to 5 are left.
 *
 *   I1  Each step can be done again after any part of it. What step is next is told by which names
 *       are there; each is durable before the next begins.
 *   I2  The old state goes in step 5, when the new one is in place, durably.
 *   I3  The hard state is read from the old log before that moves, and nothing runs meanwhile that
 *       could change it.
 *
 * Whoever calls any of this has the directory's lock (broker/data_dir.h). */
#ifndef CHR_BROKER_INSTALL_H
#define CHR_BROKER_INSTALL_H

#include <stdbool.h>

#include "broker/data_dir.h"
#include "db/snapshot.h"
#include "raft/log.h"

enum install_kind { INSTALL_FOLLOWER, INSTALL_RESTORE, INSTALL_FORK };

typedef struct install install; /* one being staged; opaque; from open, to close; one thread */

/* Begins, or goes on with what is in D/install.new. map_bytes: as db_kv_lmdb_open.
 * CHR_EBUSY: one waits to be applied. CHR_ECORRUPT: what is there cannot be gone on with:
 * install_discard, and begin anew. */
CHR_MUST_USE chr_err install_open(const char *data_dir, uint64_t map_bytes, install **out,
                                  struct chr_errmsg *msg);
/* As db_snapshot_receiver_next, _info and _put, errors and all. CHR_EFOREIGN, from put: the sender
 * has another snapshot now; close, install_discard, open, and begin with its part 0. */
uint64_t install_next(const install *in);
const struct db_snapshot_info *install_info(const install *in);
CHR_MUST_USE chr_err install_put(install *in, chr_slice part, struct chr_errmsg *msg);
/* All parts came: the store is completed, opened and, with `check`, verified value by value (as
 * `chronos check` does; that takes its time); then it is bound to happen. The install is of no more
 * use but for install_close. CHR_ENOTFOUND: parts are missing. CHR_ECORRUPT, CHR_EMALFORMED: msg
 * says what is wrong; discard it. Others: close it, and open it again to go on. */
CHR_MUST_USE chr_err install_commit(install *in, enum install_kind kind, bool check,
                                    struct chr_errmsg *msg);
/* Keeps what came, but for the last few parts. Accepts NULL. */
void install_close(install *in);
/* Deletes D/install.new, if it is there. Closed before. */
CHR_MUST_USE chr_err install_discard(const char *data_dir, struct chr_errmsg *msg);

/* A fork is bound to happen: the log begins anew behind entry `index`, which is what the checkpoint
 * holds, and node.meta becomes what `next` says. Whatever was staged is discarded. */
CHR_MUST_USE chr_err install_fork(const char *data_dir, const struct data_dir *next, uint64_t index,
                                  const struct raft_log_base *base, struct chr_errmsg *msg);

/* Is there one that install_apply would apply? */
bool install_waits(const char *data_dir);
/* Applies the one that waits, if one does; dir is renewed from node.meta where that changed.
 * Nothing of the directory may be open. After an error the directory is between two states, and the
 * next call goes on. *applied may be NULL; false: none waited, or the log went on without it. */
CHR_MUST_USE chr_err install_apply(const char *data_dir, struct data_dir *dir, bool *applied,
                                   struct chr_errmsg *msg);

#endif
