/* broker/session/session.h: what a client is to us beyond its connection.
 *
 *                      ┌──────────── CONNECT (resumes) ◀────────────┐
 *     CONNECT ─▶ opening ─(R5: its SESSION_OPEN applied)─▶ connected ─connection lost─▶ parked
 *                                                            │            │ expired
 *                                                            └─expiry 0───┴──▶ ended
 *
 * A session lives on one loop for its whole life, the loop its first CONNECT came to; a later
 * connection of the same client moves to that loop (loop_move_conn). So nothing here is locked, and
 * what is on its way to a session never has to be forwarded. In a cluster that goes for the loops
 * of one node: when its client connects to another one, a session that the log knows is let go here
 * (session__check_lost) and made anew there, of what the log has of it. Other threads read
 * `number`, `loop` and `connected` while they hold the registry's or the subscriptions' lock, which
 * the session is removed from before it goes.
 *
 * Out: QoS 0 is sent at once or dropped when the client is slow. QoS 1 and 2 take a place in
 * `inflight` (bounded by the client's Receive Maximum), else wait in `queue` (bounded by count and
 * bytes; a message for which there is no room is dropped and counted, the newest, as Mosquitto does
 * it). Messages whose maker waits for them (answers of queries) are never dropped for a limit.
 * Retained messages of a new subscription go through the queue as well, so that newer messages of
 * their topics come after them; they are shared with the store and free of limits. Of a durable
 * session, one that the log knows, all this holds only for QoS 0 and the node's own messages; what
 * clients publish above QoS 0 comes from the log's queue (stored.h).
 *
 * In: packet ids of QoS 2 are remembered in memory for messages that are not stored in tables; for
 * those that are, the log remembers (R5).
 *
 * S1  inflight is in the order of sending; its packet ids follow each other (65,535 before 1), so
 * an id is found by subtraction and is in use while its entry is there. S2  while queue is not
 * empty everything goes to its end (order of topics). S3  conn != NULL exactly while `connected`;
 * conn->session == session then. */
#ifndef CHR_BROKER_SESSION_SESSION_H
#define CHR_BROKER_SESSION_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/hlc.h"
#include "base/list.h"
#include "base/slice.h"
#include "broker/net/conn.h"
#include "broker/net/limits.h"
#include "broker/session/message.h"
#include "proto/mqtt/packet.h"

struct broker_loop;
struct db_message;
struct db_sequence_range;
struct encoded;      /* encoded.h */
struct sent_aliases; /* sent_aliases.h */
struct sql_client;   /* sql_request.h */
struct will;         /* will.h */

enum outgoing_state {
    OUT_QUEUED,
    OUT_PUBACK,  /* QoS 1 sent */
    OUT_PUBREC,  /* QoS 2 sent */
    OUT_PUBCOMP, /* PUBREL sent; the message is dropped */
    OUT_NOTING,  /* stored.h: PUBREC came; PUBREL goes out when that is committed (R8) */
    OUT_DONE,    /* answered before its elders; goes when they have gone */
};

/* A message on its way to this client. */
struct outgoing {
    struct message *message;   /* a reference; NULL when only the packet id is left */
    struct db_message *stored; /* or one to a message of the database */
    uint8_t *ids;              /* malloc'd block of Subscription Identifiers after its length (u32);
                                  NULL: none */
    uint32_t share;            /* number of the group it was given to this member of; 0: none */
    uint16_t packet_id;
    uint8_t qos;        /* granted */
    uint8_t state : 4;  /* enum outgoing_state */
    uint8_t retain : 1; /* the flag to send */
    uint8_t free : 1;   /* of the queue's limits */
};
_Static_assert(sizeof(struct outgoing) == 32, "there are many of them");

/* A deque that grows by doubling; index i counts from head. */
struct outgoing_ring {
    struct outgoing *items; /* NULL while empty */
    uint32_t mask, head, tail;
};
CHR_INLINE uint32_t outgoing_count(const struct outgoing_ring *ring)
{
    return ring->tail - ring->head;
}
CHR_INLINE struct outgoing *outgoing_at(const struct outgoing_ring *ring, uint32_t i)
{
    return &ring->items[(ring->head + i) & ring->mask];
}

/* Topics that the client gave a number; of the connection, not of the session. */
struct topic_aliases {
    chr_slice *topics; /* [count], by alias - 1; owned */
    uint32_t count;
};

/* Packet ids of QoS 2 publishes between PUBLISH and PUBCOMP. Most clients have one or two of them:
 * a short list then; two bits for each id there is when they are many; nothing while there is none.
 */
struct incoming_ids {
    uint32_t *few;       /* [few_max], in no order; NULL: none, or bits */
    uint64_t *bits;      /* held, then settled; NULL: few */
    uint32_t held_count; /* counts towards our Receive Maximum */
    uint32_t few_max;
};

/* What goes out of the log's queue of a durable session: stored.h. */
struct stored_out {
    struct outgoing_ring window; /* W1 */
    uint64_t first;              /* sequence of window's entry 0; none while it is empty */
    uint64_t next;               /* to be read from here on */
    uint64_t sent;               /* the highest that may have been sent, ever */
    uint32_t open;               /* entries not done */
    bool more;                   /* there may be some to read */
    bool pumping;
    struct db_sequence_range *acked; /* W3 */
    uint32_t acked_count, acked_max;
    struct chr_list acked_link; /* of the loop's list, while acked_count > 0 */
};

struct session {
    uint64_t number; /* of this process; never 0, never reused */
    struct broker_loop *loop;
    _Atomic bool connected;
    chr_slice client_id; /* owned */
    uint64_t client_hash;
    struct session *registry_next;
    struct session *number_next;
    struct chr_list loop_link; /* all of its loop */

    /* Connection */
    struct conn *conn;
    enum mqtt_version version;   /* of the present or last connection */
    uint32_t user;               /* number of its user; 0: anonymous */
    uint64_t acl_key;            /* of its principal; 0: nothing is forbidden to it */
    struct principal *principal; /* whose it is; a reference; NULL: not known (recovered) */
    bool will_revoked;           /* its user may no longer connect: no will is published */
    uint32_t receive_maximum;    /* QoS 1 and 2 messages the client takes at a time */
    uint32_t max_packet_bytes;   /* the client takes */
    bool problem_information;    /* Reason Strings are wanted [MQTT-3.1.2-29] */
    struct topic_aliases aliases;
    uint16_t sent_aliases_max;         /* topic aliases we may send; 0: none */
    struct sent_aliases *sent_aliases; /* NULL: none so far */
    struct will *will;                 /* NULL: none; also while its delay runs */

    /* Life */
    bool present;   /* it holds state of an accepted connection */
    bool durable;   /* known to the log: epoch, generation */
    bool reserved;  /* registry_reserve, until the log has answered */
    uint64_t epoch; /* R5 */
    uint32_t generation;
    chr_hlc connected_at;     /* elsewhere.h; 0: not in a cluster */
    bool listed;              /* in wakeups.h */
    struct message *log_will; /* its connection left this will with the log; a reference */
    uint32_t expiry_s;        /* after the connection; UINT32_MAX: never */
    int64_t expires_mono_us;  /* parked; INT64_MAX: never */
    bool left;                /* the client has said a normal DISCONNECT */
    bool ended;               /* expired or to be discarded; kept while log_ops > 0 */
    uint32_t log_ops;         /* SESSION_OPEN and _CLOSE on their way */
    bool opening;             /* a SESSION_OPEN is on its way */
    struct conn_ref opener;   /* the connection it is for */
    struct conn_ref next;     /* waits for its turn to open; CONN_REF_NONE: none */

    /* In */
    struct incoming_ids incoming;
    bool plain_in_log; /* messages of no table are in batches (their mapping was dropped): later
                          ones follow them there, to keep the order */

    /* Out */
    struct outgoing_ring inflight, queue;
    uint32_t inflight_open;  /* entries not done */
    uint64_t inflight_bytes; /* of their messages */
    /* After a reconnect: entries [resend_at, resend_end) of inflight go again as the client's
     * Receive Maximum allows; `unsent` of them are messages. */
    uint32_t resend_at, resend_end, unsent;
    uint16_t last_packet_id;
    uint32_t queue_limited; /* entries of queue that count */
    uint64_t queue_bytes;   /* of those */
    bool pumping;
    struct stored_out stored;
    uint64_t dropped;
    int64_t drop_logged_us;

    uint32_t subscriptions; /* the first of its list; 0: none */
    uint32_t subscriptions_count;
    struct sql_client *sql;   /* NULL until its first SQL request */
    int64_t stalled_since_us; /* reading has been paused for want of batches since; 0: not */
};

/* -- Life (lifecycle.c) -------------------------------------------------------------------------*/

/* client_id is copied. Not in the registry yet. NULL: no memory. */
struct session *session_new(struct broker_loop *loop, chr_slice client_id);
/* Forgets subscriptions, queues and packet ids: a session begins anew. */
void session_clear(struct session *session);
/* Out of loop and registry, memory gone. conn must be NULL. */
void session_free(struct session *session);
/* The connection leaves the session (lost, DISCONNECT, or taken over). The will is published,
 * delayed or dropped as the standard says; the session is parked or ended.
 *   taken_over     a newer connection of the same client is there
 *   new_clean      and it begins anew */
void session_detach(struct session *session, bool taken_over, bool new_clean);
/* Parked or ended sessions whose time has come. */
void session_expire(struct session *session);
/* The database may know more of it than we do: its client has connected to another node, or it was
 * closed there. Then it is let go: its client is told and disconnected, nothing is logged, and what
 * is here of it is forgotten (the session may be gone). False: it is ours still. */
bool session__check_lost(struct session *session);
void session__let_go(struct session *session);

/* -- Out (outbound.c) ---------------------------------------------------------------------------*/

/* Sends, queues or drops one message.
 *   qos     of the subscription and the message, the lower
 *   retain  the flag to send
 *   ids     block of Subscription Identifiers; borrowed */
void session_deliver(struct session *session, struct message *message, uint8_t qos, bool retain,
                     chr_slice ids);
/* Sends a message of QoS 0 that is encoded already. False: not to this client now; nothing
 * happened. */
bool session_deliver_encoded(struct session *session, struct encoded *encoded, bool retain);
/* The same for a member of a shared subscription; share: the group's number. */
void session_deliver_shared(struct session *session, struct message *message, uint8_t qos,
                            bool retain, chr_slice ids, uint32_t share);
/* The session ends: what it had as a member of a group and has not begun to be sent at QoS 2 goes
 * to another member (4.8.2). Its subscriptions are gone already. */
void session_outgoing_pass_on(struct session *session);
/* A retained message for a new subscription: never dropped. The caller pumps after the last one.
 * Either message or stored. CHR_ENOMEM */
CHR_MUST_USE chr_err session_deliver_retained(struct session *session, struct message *message,
                                              struct db_message *stored, uint8_t qos, bool retain,
                                              chr_slice ids);
/* After CONNACK of a resumed session: what was in flight goes again, in order, marked DUP. */
void session_redeliver(struct session *session);
/* Sends what may be sent now of backlog and queue. */
void session_pump(struct session *session);
/* PUBACK, PUBREC, PUBCOMP of the client. False: no such packet id in that state. */
bool session_acked(struct session *session, uint16_t packet_id);
/* PUBREC: true: PUBREL is to be sent (also again, for a repeated PUBREC). reason of 0x80 and above:
 * the client does not want it; then and for an unknown id: false, *known says which. */
bool session_received(struct session *session, uint16_t packet_id, uint8_t reason, bool *known);
bool session_completed(struct session *session, uint16_t packet_id);
/* The connection is gone: messages at QoS 0 that waited are dropped. */
void session_outgoing_offline(struct session *session);
void session_outgoing_free(struct session *session);
/* For stored.c: counts and logs a message that is not sent. */
void session__count_dropped(struct session *session, enum drop cause);
enum sent { SENT, SENT_TOO_LARGE, SENT_CLOSED };
enum sent session__send_publish(struct session *session, const struct outgoing *o, bool dup);
bool session__ring_push(struct outgoing_ring *ring, const struct outgoing *o);
void session__ring_pop(struct outgoing_ring *ring);
void session__ring_free(struct outgoing_ring *ring);
void session__outgoing_drop(struct outgoing *o);
/* May another of QoS 1 or 2 be in flight, by the client's Receive Maximum? */
bool session__window_room(const struct session *session);
/* Enough is unsent: wait for session_output_drained. */
bool session__output_full(struct session *session);
/* Is the id used by a message that is in memory alone? */
bool session__memory_uses(const struct session *session, uint16_t packet_id);
/* A block of Subscription Identifiers, as struct outgoing has it. False: no memory. */
bool session__ids_copy(chr_slice ids, uint8_t **out);

/* -- In (inbound.c) -----------------------------------------------------------------------------*/

CHR_MUST_USE chr_err incoming_hold(struct incoming_ids *ids, uint16_t packet_id, bool settled);
bool incoming_held(const struct incoming_ids *ids, uint16_t packet_id);
bool incoming_settled(const struct incoming_ids *ids, uint16_t packet_id);
/* False: it was not held. */
bool incoming_release(struct incoming_ids *ids, uint16_t packet_id);
void incoming_clear(struct incoming_ids *ids);

CHR_MUST_USE chr_err aliases_set(struct topic_aliases *aliases, uint16_t alias, chr_slice topic);
/* Empty: never set. */
chr_slice aliases_get(const struct topic_aliases *aliases, uint16_t alias);
void aliases_clear(struct topic_aliases *aliases);

#endif
