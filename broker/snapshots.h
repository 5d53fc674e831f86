/* broker/snapshots.h: a node that is too far behind for the log gets the state (R17, thesis 5).
 *
 *     leader   wanted ─▶ pinned (db/snapshot.h) ─▶ part, part, … ─▶ told to the core
 *                                                    │   ▲ next part wanted
 *     follower                          D/install.new ◀──┘ ─▶ whole ─▶ the node starts again on it
 *
 * Parts are numbered: a transfer that broke goes on with the one that is wanted, from the same
 * leader as long as it keeps the snapshot; another leader's is another snapshot. At most
 * SNAPSHOTS_AHEAD parts are on their way, and no more than snapshot-rate bytes per second, so that
 * entries on the same lane do not wait for long.
 *
 * A follower whose snapshot is whole stops and starts within its process: the one path by which a
 * state is replaced (broker/install.h). Its clients connect again.
 *
 * One thread does both sides; it alone touches the disk. */
#ifndef CHR_BROKER_SNAPSHOTS_H
#define CHR_BROKER_SNAPSHOTS_H

#include <stdint.h>

#include "base/err.h"

struct broker_node;
struct peers;
struct peers_message;
struct snapshots; /* opaque */

#define SNAPSHOTS_AHEAD 16u

/* node and peers are borrowed until snapshots_free. */
CHR_MUST_USE chr_err snapshots_open(struct broker_node *node, struct peers *peers,
                                    struct snapshots **out);
CHR_MUST_USE chr_err snapshots_start(struct snapshots *snapshots);
void snapshots_stop(struct snapshots *snapshots); /* before the database is closed; accepts NULL */
void snapshots_free(struct snapshots *snapshots); /* accepts NULL */

/* The core's lock is held: that node needs one. Does not block; may be said again and again. */
void snapshots_wanted(struct snapshots *snapshots, uint64_t node);
/* Lane threads: PEERS_SNAPSHOT or PEERS_SNAPSHOT_REPLY; the message is theirs from now on. */
void snapshots_received(struct snapshots *snapshots, struct peers_message *message);

struct snapshots_stats {
    uint64_t sent, sent_bytes, received, received_bytes;
    uint64_t sending_to, sending_part, sending_parts; /* 0: none is being sent */
    uint64_t receiving_part, receiving_parts;
};
void snapshots_stats(struct snapshots *snapshots, struct snapshots_stats *out);

#endif
