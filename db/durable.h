/* db/durable.h: what outlives connections: sessions, their subscriptions and queues, retained
 * messages and wills; how other threads read it. It changes by operations only (db/op.h), so it
 * survives whatever the log survives, and is the same on every node.
 *
 *     MESSAGE ─▶ retained message of its topic
 *          └───▶ sessions whose subscriptions match (QoS above 0) ─▶ the end of their queues
 *     QUEUE_ACK ─▶ out of the queue
 *
 *   M1  A message is stored once, however many queues hold it, and goes with the last of them.
 *   M2  A queue's sequence numbers rise by one per message that was queued, from 1; they are never
 *       given twice, so what a client acknowledges by number is what it was sent under it.
 *   M3  A message is in the queue of each session that matches at most once, with the highest QoS
 *       of its matching subscriptions and all their identifiers; in addition once for each share
 *       group that chose the session.
 *   M4  A share group gives each message to one member whose subscription has QoS above 0: to one
 *       that has room before one that has not, to a connected one before another, to the one that
 *       waited longest.
 *   M5  A will is due once, by replicated time (R13), and is taken by the entry that publishes it
 *       (a GUARDS item with packet id 0): exactly once, whoever proposes it how often.
 *   M6  What expired by replicated time is not read any more; its room is given back by a sweep at
 *       most DB_SWEEP_US_MAX later.
 *
 * Threads: any, at any time, unless it says otherwise. One read-write lock guards all of it: the
 * applier holds it for writing from the first operation of an entry that changes any of it to the
 * entry's end, never while an entry has rows alone. Callbacks run under the read lock: they take
 * references or copies and do not call db again. Messages are immutable and counted. */
#ifndef CHR_DB_DURABLE_H
#define CHR_DB_DURABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "db/db.h"
#include "db/op.h"

#define DB_SWEEP_US_MAX INT64_C(10000000)

struct db_message {
    _Atomic uint32_t refs;
    uint8_t qos;                          /* as published */
    bool retain;                          /* as published */
    int64_t expires_us;                   /* replicated time; INT64_MAX: never */
    uint64_t publisher;                   /* epoch; 0: no session */
    chr_slice topic, properties, payload; /* into bytes */
    uint8_t bytes[];
};
void db_message_ref(struct db_message *message);
void db_message_unref(struct db_message *message); /* accepts NULL */

struct db_queue_item {
    uint64_t sequence;
    struct db_message *message; /* a reference for the caller; NULL: its bytes are damaged or cannot
                                   be read now, see error */
    chr_err error;              /* CHR_ECORRUPT: for good; CHR_ENOMEM, CHR_EIO */
    uint8_t qos;                /* 1 or 2 */
    bool retain;                /* as the subscriber is to see it */
    bool received;              /* the client has it: only its release is missing */
    uint32_t ids_count;         /* subscription identifiers */
    uint32_t *ids;              /* malloc'd for the caller; NULL: none */
};
/* Waiting messages with sequence >= from, in order; at most max, and no more once bytes_max bytes
 * of messages are reached (one at least). May read the store: cold messages are not in memory.
 * DB_QUEUE_NO_MEMORY: there may be some. */
#define DB_QUEUE_NO_MEMORY SIZE_MAX
size_t db_queue_read(db *db, uint64_t epoch, uint64_t from, struct db_queue_item *out, size_t max,
                     uint64_t bytes_max);

/* Retained messages a filter (not a shared one) matches and that have not expired at now_us;
 * `$` topics only if the filter names the first level. each() returns false to stop. */
void db_retained_read(db *db, chr_slice filter, int64_t now_us,
                      bool (*each)(void *arg, struct db_message *message), void *arg);
struct db_retained_stats {
    uint64_t count, bytes;
};
void db_retained_stats(db *db, struct db_retained_stats *out);

struct db_session_info {
    chr_slice client_id;
    uint64_t epoch;
    uint32_t generation, expiry_s;
    bool connected;
    uint64_t node, boot; /* of its present or last connection; 0: of a node alone */
    int64_t expires_us;  /* replicated time; INT64_MAX: not now */
    uint64_t sent;       /* the highest sequence that may have been sent before it was closed */
    uint64_t next_sequence;
    uint32_t subscriptions_count;
    uint64_t queued_count, queued_bytes;
    uint64_t dropped; /* for a limit, over its life */
    uint64_t expired; /* in the queue */
};
void db_sessions_read(db *db, void (*each)(void *arg, const struct db_session_info *session),
                      void *arg);
/* One session's; false: there is none of this epoch. client_id is empty then and else (no copy). */
bool db_session_read(db *db, uint64_t epoch, struct db_session_info *out);
/* Is there one of this client? */
bool db_session_known(db *db, chr_slice client_id);
/* By which nodes, and which start of them, how many sessions are connected; none with 0. */
void db_node_starts_read(db *db,
                         void (*each)(void *arg, uint64_t node, uint64_t boot, uint64_t connected),
                         void *arg);
void db_subscriptions_read(db *db, uint64_t epoch,
                           void (*each)(void *arg, const struct db_subscription *subscription),
                           void *arg);
/* The messages of an entry (its operations) that took effect when it was applied with this result,
 * in order; repeated ones and those of sessions that are gone are left out. Pure. Slices point into
 * the entry. */
void db_entry_messages(chr_slice operations, const struct db_apply_result *result,
                       void (*each)(void *arg, const struct db_publish *publish), void *arg);
/* Moves with every change of a subscription of any session; for caches. One atomic load. */
uint64_t db_subscriptions_version(const db *db);
/* Would a message of QoS above 0 be queued for anybody now? */
bool db_subscribed(db *db, chr_slice topic);

/* A will whose time has come. */
struct db_due_will {
    uint64_t epoch; /* epoch and generation: of the connection that left it; for its guard */
    uint32_t generation;
    uint32_t message_expiry_s;  /* UINT32_MAX: none */
    struct db_message *message; /* borrowed */
    uint64_t node, boot; /* by which that connection was; 0: of a node alone, or it is down */
};
/* All wills that are due and not taken yet, in order. */
void db_wills_read(db *db, void (*each)(void *arg, const struct db_due_will *will), void *arg);

struct db_durable_stats {
    uint64_t sessions, connected, subscriptions;
    uint64_t lasting;                    /* of sessions: those that outlive their connection */
    uint64_t queued_count, queued_bytes; /* sums over all queues */
    uint64_t messages, message_bytes;    /* stored, each once */
    uint64_t memory_bytes;               /* of these, held in memory */
    uint64_t dropped, expired;           /* since the start of the process */
    uint64_t retained_count, retained_bytes;
    uint64_t wills; /* pending or due */
};
void db_durable_stats(db *db, struct db_durable_stats *out);

#endif
