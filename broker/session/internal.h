/* broker/session/internal.h: what the session layer keeps per loop, and what its files share. */
#ifndef CHR_BROKER_SESSION_INTERNAL_H
#define CHR_BROKER_SESSION_INTERNAL_H

#include <stdatomic.h>

#include "base/list.h"
#include "broker/batch.h"
#include "broker/config.h"
#include "broker/net/conn.h"
#include "broker/net/loop.h"
#include "broker/node.h"
#include "broker/session/dispatch.h"
#include "broker/session/message.h"
#include "broker/session/reason.h"
#include "broker/session/registry.h"
#include "broker/session/retained.h"
#include "broker/session/route.h"
#include "broker/session/session.h"
#include "broker/session/stored.h"
#include "broker/session/subscriptions.h"
#include "broker/session/wakeups.h"
#include "proto/mqtt/decode.h"

/* Messages on their way from one loop to another, in bytes: beyond it they are dropped and counted,
 * as for a client that reads too slowly. */
#define INBOX_BYTES_MAX (64u << 20)

/* Rejects kept per second and loop (R3); beyond that they are counted, and told 0x97. */
#define REJECTS_PER_SECOND      1000
#define REJECT_BYTES_PER_SECOND (2 << 20)

struct stale;  /* stale.c */
struct outbox; /* deliver.c */
struct sys;    /* sys.c */

struct move {
    struct conn_ref conn;
    struct broker_loop *target; /* NULL: to the peers */
};

struct release_again {
    struct conn_ref conn;
    uint32_t sequence; /* of its PUBCOMP in the ack ring */
};

struct loop_session_state {
    struct routes routes;
    uint64_t routes_generation; /* moves when routes are forgotten: pointers to them die */
    struct chr_list sessions;   /* struct session.loop_link */
    struct session **by_number;
    size_t by_number_mask, sessions_count;
    struct outbox **outboxes;     /* [loops]; mail being gathered, NULL: none */
    _Atomic uint64_t inbox_bytes; /* of messages that other loops have sent here */
    struct chr_list log_ops;      /* log_op.c: waiting for a batch */
    struct chr_list log_ops_out;  /* in one, until it is answered */
    uint64_t log_ops_serial, log_ops_version;
    bool log_ops_fenced;    /* some may be out under other mappings than log_ops_version */
    struct chr_list acked;  /* struct stored_out.acked_link: to be reported */
    uint32_t acked_waiting; /* acknowledgements in there */
    struct chr_list wills;  /* will.c: delayed, or due and waiting for a batch */
    struct stale *stale_first, *stale_last; /* R9: contents of batches to be decoded again */
    bool fenced;                            /* batches decoded under older mappings are still out */
    struct move *moves;                     /* connections that go to another loop */
    uint32_t moves_count, moves_max;
    struct release_again *releases; /* R9 */
    uint32_t releases_count, releases_max;
    struct chr_list rate_waiting;        /* publish_rate.c: paused */
    int64_t reject_tokens, reject_bytes; /* left this second */
    uint32_t seconds;                    /* session_loop_second calls */
    struct sys *sys;                     /* loop 0 */
    /* Once a second: sessions without a client; messages sent at QoS 1 and 2 and not answered. */
    _Atomic uint64_t parked_now, inflight_now;
    _Atomic uint64_t connected_now, expired_total, wills_total;
};

CHR_INLINE struct loop_session_state *state_of(const struct broker_loop *loop)
{
    return loop->session_state;
}

/* A PUBLISH of a client was taken. */
CHR_INLINE void session__count_publish(struct conn *conn, uint8_t qos, size_t payload_bytes)
{
    LOOP_COUNT(conn->loop, publishes[qos], 1);
    LOOP_COUNT(conn->loop, publish_bytes_received, payload_bytes);
    conn->messages_received++;
}

/* -- Versions and batches (R9; stale.c) ---------------------------------------------------------*/

/* Routes and mappings are those of now. False: not yet (batches decoded under older mappings are
 * still on their way, or none is free): pause with CONN_PAUSE_BATCH. May invalidate routes. */
bool session__current(struct broker_loop *loop);
/* The open batch, or a new one; NULL: none free. May invalidate routes (routes_generation). */
struct batch *session__batch(struct broker_loop *loop);
/* Goes on with what stale batches left. */
void session__stale_continue(struct broker_loop *loop);
bool session__stale_waits(const struct broker_loop *loop);
void session__stale_free(struct broker_loop *loop);

/* -- Packets ------------------------------------------------------------------------------------*/

enum dispatch session__handle_connect(struct conn *conn, chr_slice raw,
                                      const struct mqtt_frame *frame);
enum dispatch session__handle_publish(struct conn *conn, struct slab *slab, chr_slice raw,
                                      const struct mqtt_frame *frame);
enum dispatch session__handle_puback(struct conn *conn, const struct mqtt_frame *frame);
enum dispatch session__handle_pubrec(struct conn *conn, const struct mqtt_frame *frame);
enum dispatch session__handle_pubrel(struct conn *conn, const struct mqtt_frame *frame);
enum dispatch session__handle_pubcomp(struct conn *conn, const struct mqtt_frame *frame);
enum dispatch session__handle_subscribe(struct conn *conn, const struct mqtt_frame *frame);
enum dispatch session__handle_unsubscribe(struct conn *conn, const struct mqtt_frame *frame);
enum dispatch session__handle_disconnect(struct conn *conn, const struct mqtt_frame *frame);

/* The connection of a CONNECT that waits is gone. */
void session__connect_abandon(struct conn *conn);
/* PUBRELs whose batch came back stale and that found no other one. */
void session__releases_continue(struct broker_loop *loop);

/* A message that a member of group `share` leaves behind, to another one; dropped without any. */
void session__deliver_again(struct broker_loop *loop, struct message *message, uint32_t share);

/* Publishes a message of the node's or of a will, as if a client had sent it: mapped, retained,
 * delivered. guard: of a will in the log, taken by it; NULL: none. CHR_EFULL: try again later. */
CHR_MUST_USE chr_err session__publish(struct broker_loop *loop, struct message *message,
                                      const struct db_guard *guard);
/* Properties of a PUBLISH or Will that are passed on, as a malloc'd block; empty: none.
 * CHR_ENOMEM */
CHR_MUST_USE chr_err session__forwarded(const struct mqtt_properties *properties, uint8_t **block,
                                        chr_slice *out);
/* A message from a decoded PUBLISH. NULL: no memory. */
struct message *session__message_from(const struct broker_loop *loop,
                                      const struct mqtt_publish *publish, chr_slice topic,
                                      uint64_t publisher);

/* -- Lines of the log (connection_log.c) --------------------------------------------------------*/

void session__log_connected(const struct conn *conn, bool session_present);
/* Its connection ends, as conn->end and end_code say. */
void session__log_ended(const struct conn *conn, const struct session *session);

/* -- Delivery (deliver.c) -----------------------------------------------------------------------*/

/* To everyone subscribed on all loops, and into the retained store when message->retain. */
void session__deliver(struct broker_loop *loop, struct message *message, struct route *route);
/* The same for a message that is not retained and whose topic has no route yet. */
void session__deliver_topic(struct broker_loop *loop, struct message *message);
/* One that came from another node, to this node's subscribers: plain ones, and one member of each
 * of the groups (interest_group). */
void session__deliver_arrived(struct broker_loop *loop, struct message *message, bool plain,
                              const uint64_t *groups, uint32_t groups_count);
void session__outboxes_flush(struct broker_loop *loop);
void session__outboxes_free(struct broker_loop *loop);
struct session *session__by_number(const struct broker_loop *loop, uint64_t number);

/* Who the session is as a publisher of stored messages, for No Local. */
uint64_t session__publisher(const struct session *session);

/* Publishes of the connection are on their way through the log: it is paused, and goes on when a
 * batch was answered. What they retain and deliver comes before what SUBSCRIBE, UNSUBSCRIBE,
 * PINGREQ or DISCONNECT do: packets of a connection take effect in order. */
bool session__publishes_wait(struct conn *conn);

/* -- Sessions in the log (log_op.c) -------------------------------------------------------------*/

/* An operation takes no more of an entry (4 MiB) than this, so one of them fits any fresh batch.
 * (CONNECT is bounded by CONNECT_BYTES_MAX, reports of acknowledgements by their number.) */
#define LOG_OP_BYTES_MAX ((size_t)1 << 20)

/* Adds SESSION_OPEN for the connection conn; answered later: session__opened. clean_start: asked
 * for, or the session was another user's. CHR_ENOMEM */
CHR_MUST_USE chr_err session__log_open(struct session *session, struct conn *conn,
                                       const struct mqtt_connect *connect, bool clean_start,
                                       uint32_t expiry_s, uint32_t window);
/* Adds SESSION_CLOSE: its connection ended; keep_will: without taking leave. */
void session__log_close(struct session *session, uint32_t expiry_s, bool keep_will);
/* A SUBSCRIBE or UNSUBSCRIBE on its way through the log. One malloc'd block. */
struct log_subscribe {
    uint16_t packet_id;
    uint32_t codes_count;
    uint8_t *codes; /* of the answer */
    bool *existed;
    uint32_t count; /* of items: those of the packet's filters that were granted */
    struct db_subscription *items;
    uint32_t *places;  /* [count]: their places in codes */
    size_t text_bytes; /* of the items, at most */
};
/* What filters take in an entry; the packet may have at most LOG_OP_BYTES_MAX / 2 of them, which is
 * looked at before anything is subscribed. */
CHR_INLINE size_t log_subscribe_bytes(uint32_t filters, size_t text_bytes)
{
    return 16 * (size_t)filters + text_bytes;
}
/* Takes what, unless it fails: CHR_ENOMEM. Answered by session__subscribed, _unsubscribed. */
CHR_MUST_USE chr_err session__log_subscribe(struct conn *conn, struct log_subscribe *what);
CHR_MUST_USE chr_err session__log_unsubscribe(struct conn *conn, struct log_subscribe *what);
/* conn NULL: it is gone. */
void session__subscribed(struct session *session, struct conn *conn,
                         const struct log_subscribe *what, const struct db_op_result *result);
void session__unsubscribed(struct session *session, struct conn *conn,
                           const struct log_subscribe *what, const struct db_op_result *result);
/* Subscriptions of a session as the log has them, into the tree. CHR_ENOMEM */
CHR_MUST_USE chr_err session__restore_subscriptions(struct session *session);
/* The client has acknowledged these of its queue; ranges is taken. CHR_ENOMEM: it is not. */
CHR_MUST_USE chr_err session__log_acked(struct session *session, struct db_sequence_range *ranges,
                                        uint32_t count);
/* It has this one (PUBREC); then session_stored_release. CHR_ENOMEM */
CHR_MUST_USE chr_err session__log_received(struct session *session, uint64_t sequence);
void session__opened(struct session *session, struct conn *conn,
                     const struct db_op_result *result); /* handle_connect.c */
/* It needs no place among sessions on their way to the log any more (handle_connect.c). */
void session__unreserve(struct session *session);
void session__log_ops_continue(struct broker_loop *loop);
/* Operations wait for a batch: the connection, which would add one, is paused. */
bool session__log_ops_wait(struct conn *conn);
void session__log_ops_free(struct broker_loop *loop);

/* -- Rates (publish_rate.c) ---------------------------------------------------------------------*/

/* Takes a PUBLISH of this size from the client's buckets. DISPATCH_DONE: it may go on. */
enum dispatch session__rate_take(struct conn *conn, size_t bytes);
/* It will be shown again. */
void session__rate_give_back(struct conn *conn, size_t bytes);
/* Once a turn: those whose debt is paid are read again. */
void session__rate_continue(struct broker_loop *loop);
void session__rate_free(struct conn *conn);

/* -- Rejects (reject.c) -------------------------------------------------------------------------*/

/* Is there room for another one this second? Takes it. */
bool session__reject_allowed(struct broker_loop *loop, size_t bytes);

#endif
