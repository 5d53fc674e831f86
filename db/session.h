/* db/session.h: MQTT sessions as far as tables need them: exactly once at QoS 2 (R5).
 *
 * A session is known by its epoch, (log index << 16 | ordinal) of the entry that made it. Each
 * CONNECT bumps its generation; what a connection of an older generation had in flight is ignored.
 * Packet ids of QoS 2 publishes are remembered from the entry that holds their rows until PUBREL.
 * Sessions end by replicated time (R13). Applier only. */
#ifndef CHR_DB_SESSION_H
#define CHR_DB_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "db/durable_internal.h"
#include "db/op_decode.h"

struct db;
struct db_op_result;

struct db__session {
    chr_slice client_id; /* owned */
    chr_slice owner;     /* owned; whose it is */
    bool has_owner;      /* false: that was never said */
    uint64_t epoch;
    uint32_t generation; /* of the present or last connection; 1 is the first */
    uint32_t expiry_s;   /* UINT32_MAX: never; 0: it ends with its connection */
    bool connected;
    uint64_t node, boot; /* of the present or last connection; 0: of a node alone */
    int64_t expires_us;  /* replicated time; INT64_MAX: not now */
    uint16_t *guards;    /* packet ids remembered, rising */
    uint32_t guards_count, guards_capacity;
    /* What outlives its connections (db/durable.h); under durable.lock */
    uint32_t queue_messages_max, window; /* 0: no limit */
    uint64_t queue_bytes_max, queues_bytes_max;
    bool drop_oldest;
    uint64_t next_sequence; /* from 1 */
    uint64_t sent, dropped, messages_expired;
    struct db__queue queue;
    struct db__due sweep;
    struct chr_list subscriptions;
    uint32_t subscriptions_count, next_subscription; /* number of the next, from 1 */
    struct db__will *will;                           /* of the present or last connection */
    uint64_t match_stamp, woken_at;                  /* scratch of publish.c */
    size_t match_at;
    bool dirty;     /* changed since the last checkpoint's cut */
    size_t heap_at; /* place in by_expiry, 1-based; 0: not in it */
};

/* How many are connected by one start of a node. */
struct db__node_start {
    uint64_t node, boot, connected;
};

struct db__sessions {
    struct db__session **by_id; /* hash by client id */
    struct db__session **by_epoch;
    size_t count, capacity;         /* capacity a power of two, of both */
    struct db__session **by_expiry; /* binary heap */
    size_t expiry_count, expiry_capacity;
    uint64_t guards_count;
    size_t lasting;                /* those that outlive their connection: expiry_s > 0 */
    struct db__node_start *starts; /* in no order; those with somebody connected */
    size_t starts_count, starts_capacity;
    uint64_t *ended; /* epochs gone since the last checkpoint's cut */
    size_t ended_count, ended_capacity;
};

void db__sessions_free(struct db__sessions *sessions);
struct db__session *db__session_find(const struct db__sessions *sessions, chr_slice client_id);
struct db__session *db__session_by_epoch(const struct db__sessions *sessions, uint64_t epoch);
/* Ends the sessions whose time has come. */
void db__sessions_expire(struct db *db, int64_t now_us);
/* When the next one ends; INT64_MAX: none. */
int64_t db__sessions_due(const struct db__sessions *sessions);

void db__apply_session_open(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_session_close(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_node_down(struct db *d, const struct db__op *op, struct db_op_result *result);
void db__apply_guards(struct db *db, const struct db__op *op, struct db_op_result *result);
void db__apply_release(struct db *db, const struct db__op *op, struct db_op_result *result);

/* A new one without a place in the set, its lists empty. */
struct db__session *db__session_new(chr_slice client_id, uint64_t epoch);
/* Whose it is from now on; copied. */
void db__session_set_owner(struct db__session *session, chr_slice owner);
/* Recovery: takes ownership of the struct and what it owns. */
void db__session_load(struct db__sessions *sessions, struct db__session *session);
bool db__guard_add(struct db__session *session, uint16_t packet_id);

#endif
