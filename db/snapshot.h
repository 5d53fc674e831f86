/* db/snapshot.h: all of the state as of a checkpoint, as numbered parts: what a backup is made of,
 * and what a node gets that is too far behind for the log.
 *
 *     sender      begin ─▶ part 0, 1, … parts - 1 (any of them again) ─▶ end
 *                             │      a file, an HTTP answer, a lane between nodes
 *     receiver    begin ─▶ put 0, put 1, … ─▶ finish ─▶ a store that db_open opens
 *
 * A snapshot is what the last checkpoint has made durable: a snapshot is never of something that a
 * crash could still undo. It pins that checkpoint while applying, checkpoints and merges go on:
 *
 *   small records   (catalog, manifest, marks, sessions, queues, messages …) are copied to a file
 *                   of the sender's at begin, in several short read transactions (R10); the last
 *                   step of a checkpoint waits for the end of this copying
 *   chunks          never change; theirs stay in the store as long as the snapshot holds them
 *
 *   S1  A part of a pinned snapshot is the same bytes whenever it is asked for: a transfer that
 *       broke goes on with the part that is missing, from the same db_snapshot.
 *   S2  A part is at most DB_SNAPSHOT_PART_BYTES, unless a single value of the store is larger; it
 *       bears its number, its snapshot's id and a checksum, and no other one passes for it.
 *   S3  Each value's own checksum is looked at when it is sent and when it comes: damage neither
 *       spreads to another node nor hides in a backup.
 *   S4  What was put stays put: a receiver opened again on its store says which part is next. The
 *       store becomes a checkpoint in one commit, the last one; before it is an empty store with
 *       leftovers for whoever opens it.
 *   S5  Parts are foreign: whatever they are, they end in records of known kinds or in an error.
 *
 * Parts are laid out in docs/formats.md, "Snapshot". A file of them, one after the other, is a
 * backup. */
#ifndef CHR_DB_SNAPSHOT_H
#define CHR_DB_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "db/db.h"

#define DB_SNAPSHOT_PART_BYTES  (256u << 10)
#define DB_SNAPSHOT_HEAD_BYTES  32u /* what each part begins with */
#define DB_SNAPSHOT_MEMBERS_MAX 4096u
/* With a value of the largest size the store takes. No entry makes one that large: what a node
 * sends is at most one entry (DB_ENTRY_BYTES_MAX) and some hundred bytes. */
#define DB_SNAPSHOT_PART_BYTES_MAX (DB_KV_VALUE_MAX + 4096u)

/* What the state machine does not know about itself. */
struct db_snapshot_origin {
    uint64_t cluster;     /* id */
    uint64_t incarnation; /* of the log that the entries came from (R22) */
    uint64_t term;        /* of the snapshot's last entry */
    uint64_t members_index;
    chr_slice members; /* of the group as of the last entry; opaque; <= DB_SNAPSHOT_MEMBERS_MAX */
};

/* Part 0, decoded. */
struct db_snapshot_info {
    struct db_snapshot_origin origin;
    uint64_t id;             /* random, drawn at begin: parts of two snapshots are never mixed */
    uint64_t index;          /* of the last entry in it */
    chr_hlc hlc;             /* of that entry */
    uint64_t parts;          /* all of them, first and last one included */
    uint64_t records, bytes; /* keys and values of the store */
};

/* -- Sending ------------------------------------------------------------------------------------*/

typedef struct db_snapshot db_snapshot; /* opaque; from db_snapshot_begin, to db_snapshot_end */

/* Pins the last checkpoint. Any thread but the applier and the checkpointer; may take as long as it
 * takes to copy the small records. Several may be pinned at a time.
 *   spool_fd  an empty file, open for reading and writing, for this snapshot alone; taken, closed
 *             by db_snapshot_end and on failure. As large as the small records are.
 *   describe  fills in *origin for the snapshot whose last entry is `index`; called once, before
 *             begin returns, while no checkpoint can be completed: what the log is kept for stays.
 *             Its members need to live only until it is called again. Fails with what it returns.
 * CHR_ENOTFOUND: there is no checkpoint yet. CHR_ENOSPC. CHR_ECORRUPT: msg says what is damaged. */
CHR_MUST_USE chr_err db_snapshot_begin(db *db, int spool_fd,
                                       chr_err (*describe)(void *arg, uint64_t index,
                                                           struct db_snapshot_origin *origin),
                                       void *arg, db_snapshot **out, struct chr_errmsg *msg);
/* Lets go; before db_close. Accepts NULL. Any thread. */
void db_snapshot_end(db_snapshot *snapshot);
/* Borrowed from the snapshot. */
const struct db_snapshot_info *db_snapshot_info(const db_snapshot *snapshot);
/* Writes part `number` (< info->parts) to *out, which is reset first and needs a maximum of
 * DB_SNAPSHOT_PART_BYTES_MAX. Any thread, one at a time for one snapshot; quickest in order.
 * CHR_ECORRUPT (a value is damaged; msg says which), CHR_EIO, CHR_ENOMEM, CHR_EINVAL (number). */
CHR_MUST_USE chr_err db_snapshot_part(db_snapshot *snapshot, uint64_t number, struct chr_buf *out,
                                      struct chr_errmsg *msg);

/* -- Parts --------------------------------------------------------------------------------------*/

/* How long the part is that begins with these DB_SNAPSHOT_HEAD_BYTES bytes; 0: it is not one. For
 * cutting a file or a stream into parts. */
uint32_t db_snapshot_part_bytes(const uint8_t head[DB_SNAPSHOT_HEAD_BYTES]);
/* Decodes part 0 and checks it. info->origin.members is borrowed from part.
 * CHR_EMALFORMED, CHR_ECORRUPT (checksum), CHR_EVERSION. */
CHR_MUST_USE chr_err db_snapshot_part_info(chr_slice part, struct db_snapshot_info *info,
                                           struct chr_errmsg *msg);

/* -- Receiving ----------------------------------------------------------------------------------*/

typedef struct db_snapshot_receiver db_snapshot_receiver; /* opaque; begin to end; one thread */

/* kv: an empty store, or one in which a receiver was at work before; borrowed until end. NULL: the
 * parts are checked, and go nowhere.
 * CHR_EEXIST: the store holds something else. CHR_ECORRUPT: what it holds is damaged. */
CHR_MUST_USE chr_err db_snapshot_receiver_begin(const struct db_kv *kv, db_snapshot_receiver **out,
                                                struct chr_errmsg *msg);
/* Number of the part that is wanted next; 0: the first one has not come; info->parts: all came. */
uint64_t db_snapshot_receiver_next(const db_snapshot_receiver *receiver);
/* NULL until part 0 has come. */
const struct db_snapshot_info *db_snapshot_receiver_info(const db_snapshot_receiver *receiver);
/* Part 0 as it came, for db_snapshot_part_info; borrowed from the receiver. Empty until then. */
chr_slice db_snapshot_receiver_first(const db_snapshot_receiver *receiver);
/* Takes the next part. After an error nothing of it was taken.
 *   CHR_EEXIST      had it already: no harm
 *   CHR_ENOTFOUND   parts before it are missing
 *   CHR_EFOREIGN    of another snapshot
 *   CHR_EMALFORMED, CHR_ECORRUPT, CHR_EVERSION   msg says what is wrong with it
 *   CHR_ENOSPC, CHR_ENOMEM   go on, when there is room, with part db_snapshot_receiver_next, which
 *                   may be an earlier one: the transaction could only be aborted
 *   CHR_EIO, CHR_EDOUBT      the receiver, and its store, have to be opened anew */
CHR_MUST_USE chr_err db_snapshot_receiver_put(db_snapshot_receiver *receiver, chr_slice part,
                                              struct chr_errmsg *msg);
/* All parts came and add up: makes the store a checkpoint, durably. CHR_ENOTFOUND: parts are
 * missing; CHR_EMALFORMED: they do not add up; else what the store says. */
CHR_MUST_USE chr_err db_snapshot_receiver_finish(db_snapshot_receiver *receiver,
                                                 struct chr_errmsg *msg);
/* What is not committed yet is lost, and asked for again by the next receiver. Accepts NULL. */
void db_snapshot_receiver_end(db_snapshot_receiver *receiver);

#endif
