/* broker/net/conn.h: one client connection. Belongs to its loop: only that thread touches it.
 *
 *     accept ─▶ NEW ─CONNECT─▶ CONNECTING ─(session ready: CONNACK)─▶ OPEN ─▶ CLOSING ─▶ gone
 *
 * Reading stops while a connection is paused for any reason of enum conn_pause; unread packets wait
 * in `in`, the rest in the socket (TCP backpressure). While we do not read, its keep-alive does not
 * run (design 3.1).
 *
 * Acknowledgements leave in arrival order (R6, [MQTT-4.6.0-2, -3]): each packet that will be
 * acknowledged takes a place in the ack ring when it arrives; a place is filled when its outcome is
 * known, and the ring is emptied from its head. */
#ifndef CHR_BROKER_NET_CONN_H
#define CHR_BROKER_NET_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "proto/mqtt/packet.h"

struct broker_loop;
struct listener;         /* net/listener.h */
struct session;          /* session/session.h */
struct principal;        /* auth/auth.h */
struct enhanced;         /* session/enhanced.h */
struct across_subscribe; /* session/across.h */
struct slab;
struct transport; /* net/transport.h */
struct message;   /* session/message.h: reference-counted */

enum conn_state { CONN_NEW, CONN_CONNECTING, CONN_OPEN, CONN_CLOSING };

enum conn_pause {
    CONN_PAUSE_BATCH = 1,     /* no batch free: the log or the disk is behind */
    CONN_PAUSE_CONNECT = 2,   /* CONNECT waits for its session (log, or another loop) */
    CONN_PAUSE_OUTPUT = 4,    /* it does not read what we send */
    CONN_PAUSE_INFLIGHT = 8,  /* its ack ring is full */
    CONN_PAUSE_QUERY = 16,    /* too many SQL requests of its own waiting */
    CONN_PAUSE_STOPPING = 32, /* the node shuts down */
    CONN_PAUSE_RATE = 64,     /* it publishes more than it may (session/publish_rate.c) */
    CONN_PAUSE_PARTIAL = 128, /* no room for the rest of its packet (conn_partial.c) */
    CONN_PAUSE_PEERS = 256,   /* its SUBSCRIBE waits for other nodes (session/across.h) */
};

/* Who ended it. */
enum conn_end { CONN_END_LOST, CONN_END_CLIENT, CONN_END_SERVER };

/* One acknowledgement owed. */
struct conn_ack {
    uint16_t packet_id;
    uint8_t kind; /* MQTT_PUBACK, MQTT_PUBREC, MQTT_PUBCOMP; 0: none (the place only keeps order) */
    uint8_t state : 1; /* CONN_ACK_PENDING, CONN_ACK_DONE */
    uint8_t fixed : 1; /* reason was set by conn_ack_set_reason */
    uint8_t reason;    /* MQTT reason code */
};
enum { CONN_ACK_PENDING = 0, CONN_ACK_DONE = 1 };

/* A connection named from elsewhere (a batch, a query): stays safe when the slot is reused. */
struct conn_ref {
    uint32_t slot;
    uint32_t generation;
};
#define CONN_REF_NONE ((struct conn_ref){.slot = UINT32_MAX})

struct conn {
    struct broker_loop *loop;
    struct listener *listener; /* through which it came in */
    int fd;
    struct conn_ref ref;
    struct transport *transport; /* NULL: plain bytes */
    char *certificate_user;      /* user name of its certificate, verified; NULL: none */
    enum conn_state state;
    enum mqtt_version version;
    uint16_t paused;          /* set of enum conn_pause */
    bool epoll_in, epoll_out; /* what epoll watches */
    bool flush_queued;        /* in loop->flush */
    bool close_after_flush;
    bool readable;     /* EPOLLIN came while paused, or bytes wait in `in` */
    bool drain_wanted; /* call session_output_drained() when little is left unsent */
    bool eof;
    uint8_t end;      /* enum conn_end; LOST while it goes on */
    uint8_t end_code; /* reason code of 5.0, of the one who ended it */

    /* Session layer's (session/): */
    struct session *session;            /* NULL until CONNECT succeeded */
    void *connect;                      /* CONNECT being processed; session layer's */
    void *login;                        /* its password is being verified; session layer's */
    struct across_subscribe *subscribe; /* its SUBSCRIBE waits for other nodes; session layer's */
    struct enhanced *enhanced;        /* its CONNECT named a method; session layer's; NULL: none */
    struct principal *principal;      /* who it is; a reference; NULL until it has logged in */
    uint16_t keep_alive_s;            /* 0: none */
    uint32_t client_packet_bytes_max; /* Maximum Packet Size of its CONNECT; 0: not said yet */
    int64_t last_receive_us;          /* mono; of the last bytes */
    int64_t last_send_us;             /* mono; when the socket last took some */
    int64_t opened_us;
    uint32_t batch_inflight; /* messages of it in batches not yet answered */
    struct conn_rate *rate;  /* session/publish_rate.c; NULL: no limit, or nothing published */

    uint32_t partial_bytes;   /* reserved for the packet that begins in `in`; 0: none */
    int64_t partial_since_us; /* since when */
    size_t held_bytes;        /* of `in`, as counted in the loop */
    struct chr_buf in;        /* bytes of incomplete or held packets; no memory while empty */
    struct chr_buf out;
    size_t out_sent;                                /* of out */
    struct conn_shared *shared_first, *shared_last; /* large payloads queued by reference */
    uint64_t shared_bytes;                          /* unsent, of those */

    struct conn_ack *acks; /* ring; NULL while never used */
    uint32_t acks_mask;    /* capacity - 1 */
    uint32_t acks_head;    /* oldest owed */
    uint32_t acks_tail;    /* next place */
    /* Reason Strings of places still owed, in the order of the places */
    struct conn_ack_text *ack_texts, *ack_texts_last;

    struct chr_list flush_link; /* loop->flush */
    struct chr_list wait_link;  /* loop->waiting, while CONN_PAUSE_BATCH */
    uint64_t bytes_received, bytes_sent;
    uint64_t messages_received, messages_sent; /* PUBLISH packets */
    bool clean_start;                          /* as its CONNECT said */
    /* What the client was told when it connected; a reload does not change it (reload.h). */
    uint32_t max_packet_size;
    uint16_t receive_maximum, topic_alias_maximum;
    char address[64]; /* "127.0.0.1:51234", for logs */
};

/* -- Sending. Bytes gather in `out` and leave by one call per turn. ------------------------------
 */

/* Room for n bytes; write there, then conn_out_commit. NULL: the output limit is reached; the
 * connection is then being closed. */
uint8_t *conn_out_reserve(struct conn *conn, size_t n);
void conn_out_commit(struct conn *conn, size_t n);
/* One whole packet. */
void conn_send(struct conn *conn, chr_slice bytes);
/* head is copied, payload sent from the message's own buffer, which is referenced until sent. */
void conn_send_shared(struct conn *conn, chr_slice head, struct message *message,
                      chr_slice payload);

/* Sent bytes that may lie before the unsent ones in `out` before they are moved. */
#define CONN_OUT_COMPACT_BYTES (256u << 10)
/* Bytes that have not left `out` and the shared payloads; copies the next of them, at most max, to
 * `to` and drops them here: for the transport. */
uint64_t conn_out_pending(const struct conn *conn);
size_t conn_out_take(struct conn *conn, uint8_t *to, size_t max);
/* Unsent bytes towards the client, what the transport holds included. */
uint64_t conn_out_bytes(const struct conn *conn);

/* -- Acknowledgements ----------------------------------------------------------------------------
 */

/* Takes the next place; kind MQTT_PUBACK … or 0. Returns its sequence number. CHR_EFULL is not
 * possible: the caller looked at conn_acks_room. */
uint32_t conn_ack_begin(struct conn *conn, uint8_t kind, uint16_t packet_id);
uint32_t conn_acks_room(const struct conn *conn);
/* The outcome of count places from sequence on (skips those already done), then sends what is at
 * the head. */
void conn_ack_done(struct conn *conn, uint32_t sequence, uint32_t count, uint8_t reason);
/* Sets the reason that a later conn_ack_done of this place keeps (a reject that is being logged).
 * reason_string is copied; sent to 5.0 clients when not empty. */
void conn_ack_set_reason(struct conn *conn, uint32_t sequence, uint8_t reason,
                         chr_slice reason_string);

/* -- Life
 * ------------------------------------------------------------------------------------------ */

void conn_pause(struct conn *conn, enum conn_pause reason);
void conn_resume(struct conn *conn, enum conn_pause reason);
/* Sends what is in `out` (a DISCONNECT perhaps), then closes; nothing more is read or acknowledged.
 * session_connection_lost() is called once, from the loop, after the current packet's handler
 * returned. */
void conn_close(struct conn *conn);

/* -- For the loop -------------------------------------------------------------------------------
 */

/* transport: taken when it succeeds. */
struct conn *conn_new(struct broker_loop *loop, struct listener *listener, int fd,
                      struct transport *transport, struct conn_ref ref, const char *address);
void conn_free(struct conn *conn); /* closes fd */
/* Reads once if the socket is readable and dispatches whole packets. */
void conn_read(struct conn *conn);
/* Room for packets that have not arrived whole (conn_partial.c). */
/* Is there room for the rest of the packet that `in` begins with? False: paused. */
bool conn_partial_reserve(struct conn *conn);
void conn_partial_release(struct conn *conn);
/* `in` has changed: counts its bytes in the loop. */
void conn_partial_count(struct conn *conn);
/* Once a second: it holds room that others wait for, and nothing comes. */
bool conn_partial_stuck(const struct conn *conn);
/* Dispatches packets that wait in `in`, and reads what waits in the transport. */
void conn_process_held(struct conn *conn);
/* Writes what can be written now. */
void conn_flush(struct conn *conn);
/* Once a second: a connection that is quiet gives back what it gathered output in. */
void conn_rest(struct conn *conn);
/* Makes epoll watch what the state asks for. */
void conn_update_epoll(struct conn *conn);

#endif
