/* broker/net/transport.h: what lies between a connection's bytes and its socket.
 *
 *     PROXY header ─▶ TLS handshake ─▶ WebSocket upgrade ─▶ MQTT bytes
 *
 * each where the listener has it. A plain connection has no transport (conn->transport NULL, and
 * again once its PROXY header has been read): recv and send, nothing between. Belongs to its
 * connection; moves with it to another loop.
 *
 * Output: what MQTT wants to send stays in the connection until the socket can take it; then a
 * piece of it is framed and encrypted. What the socket did not take of such a piece waits in
 * `wire`, which is bounded by one piece and the answers to pings, and holds no memory while empty.
 */
#ifndef CHR_BROKER_NET_TRANSPORT_H
#define CHR_BROKER_NET_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

struct conn;
struct listener;
struct ssl_st; /* OpenSSL's SSL */

enum transport_phase {
    TRANSPORT_PROXY,
    TRANSPORT_TLS,
    TRANSPORT_UPGRADE,
    TRANSPORT_OPEN, /* MQTT */
};

struct websocket;

struct transport {
    enum transport_phase phase;
    bool more;                   /* received bytes wait inside, of which epoll does not know */
    bool wants_write;            /* reading goes on when the socket can be written to */
    struct ssl_st *ssl;          /* NULL: no TLS */
    struct websocket *websocket; /* NULL: none */
    struct chr_buf handshake;    /* PROXY header or upgrade request being received */
    struct chr_buf wire;         /* ready for TLS or the socket, not yet taken */
    size_t wire_sent;            /* of wire */
};

/* Does what comes through this listener need one? */
bool transport_needed(const struct listener *listener);
/* For a socket just accepted. NULL: out of memory. */
struct transport *transport_new(struct listener *listener, int fd);
/* Accepts NULL. The socket stays open. */
void transport_free(struct transport *transport);
/* The transport goes on over a copy of its descriptor. */
void transport_set_fd(struct transport *transport, int fd);

/* Like recv(): above 0: bytes of MQTT. 0: the client has ended. -1: errno; EAGAIN: nothing now (a
 * handshake went on perhaps); EPROTO: refused, logged, and what tells the client is on its way.
 * Frees conn->transport when it is not needed any more. n: at least 1 KiB. */
ssize_t transport_receive(struct conn *conn, uint8_t *bytes, size_t n);
/* Sends what the socket takes; what it does not take now is no error. Below 0: the connection is
 * gone. sent: out: bytes of MQTT that left the connection's output. */
CHR_MUST_USE chr_err transport_flush(struct conn *conn, uint64_t *sent);
/* Should epoll say when the socket can be written to? */
bool transport_wants_write(const struct conn *conn);
/* Bytes in `wire`. */
size_t transport_unsent(const struct transport *transport);
/* The connection is about to be closed by us: close frame and close_notify, as far as they go. */
void transport_goodbye(struct conn *conn);

#endif
