/* broker/session/will.h: messages published when a client is lost (3.1.2.5, 3.1.3.2).
 *
 * The will of a session that the log knows is in the log (SESSION_OPEN); it falls due there, by
 * replicated time, and comes here by wakeups.h to be published, with a guard that takes it: once,
 * also when the node or the client comes back meanwhile. The will of another session lives and dies
 * with this process. */
#ifndef CHR_BROKER_SESSION_WILL_H
#define CHR_BROKER_SESSION_WILL_H

#include <stdatomic.h>

#include "base/err.h"
#include "base/list.h"
#include "db/op.h"
#include "proto/mqtt/packet.h"

struct broker_loop;
struct db_due_will;
struct message;
struct session;

/* Of a session while it is connected or its delay runs; of the loop's list when due. */
struct will {
    struct chr_list link;    /* loop's list, once the connection was lost */
    struct will *next;       /* wakeups.h */
    struct session *session; /* NULL: due */
    struct message *message;
    uint32_t expiry_s; /* counts from its publication; UINT32_MAX: none */
    uint32_t delay_s;
    int64_t due_mono_us;
    struct db_guard guard;     /* of one in the log; epoch 0: not */
    uint64_t owner;            /* of one in the log: number of its session; 0: not known here */
    bool judged, denied;       /* of one in the log: by the rights of when it is due */
    _Atomic uint32_t *counted; /* one less when it is gone; NULL: nobody counts */
};

/* From a CONNECT with a will. NULL: no memory. */
struct will *will_new(struct session *session, const struct mqtt_connect *connect);
/* As the log keeps it; borrows from the will. */
struct db_will will_for_log(const struct will *will);
/* One the log says is due. NULL: no memory. Any thread. */
struct will *will_stored(const struct db_due_will *due);
void will_free_unlisted(struct will *will);
/* From a CONNECT with a will; replaces the session's. CHR_ENOMEM */
CHR_MUST_USE chr_err will_set(struct session *session, const struct mqtt_connect *connect);
/* DISCONNECT without will, or the client came back in time. */
void will_drop(struct session *session);
/* The connection is lost. session_ends: with it, so no delay. */
void will_connection_lost(struct session *session, bool session_ends, bool taken_over);
/* The session ends: no more delay. */
void will_due_now(struct session *session);
/* A list of due ones, by next; taken. */
void wills_take(struct broker_loop *loop, struct will *wills);
/* Publishes what is due and can be; each turn's end. */
void wills_continue(struct broker_loop *loop);
void wills_free(struct broker_loop *loop);

#endif
