/* broker/session/will.h: messages published when a client is lost (3.1.2.5, 3.1.3.2). */
#ifndef CHR_BROKER_SESSION_WILL_H
#define CHR_BROKER_SESSION_WILL_H

#include "base/err.h"
#include "base/list.h"
#include "proto/mqtt/packet.h"

struct broker_loop;
struct message;
struct session;

/* Of a session while it is connected or its delay runs; of the loop's list when due. */
struct will {
    struct chr_list link;    /* loop's list, once the connection was lost */
    struct session *session; /* NULL: due */
    struct message *message;
    uint32_t expiry_s; /* counts from its publication; UINT32_MAX: none */
    uint32_t delay_s;
    int64_t due_mono_us;
};

/* From a CONNECT with a will; replaces the session's. CHR_ENOMEM */
CHR_MUST_USE chr_err will_set(struct session *session, const struct mqtt_connect *connect);
/* DISCONNECT without will, or the client came back in time. */
void will_drop(struct session *session);
/* The connection is lost. session_ends: with it, so no delay. */
void will_connection_lost(struct session *session, bool session_ends, bool taken_over);
/* The session ends: no more delay. */
void will_due_now(struct session *session);
/* Publishes what is due and can be; each turn's end. */
void wills_continue(struct broker_loop *loop);
void wills_free(struct broker_loop *loop);

#endif
