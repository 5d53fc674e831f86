#include "broker/net/transport.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/net/conn.h"
#include "broker/net/listener.h"
#include "broker/net/loop.h"
#include "broker/net/proxy_header.h"
#include "broker/net/tls.h"
#include "broker/net/websocket.h"
#include "broker/node.h"

/* Framed and encrypted at a time: two TLS records. */
#define PIECE_BYTES (32u << 10)
/* A piece, the answers to pings, a close frame. */
#define WIRE_BYTES_MAX (2u * PIECE_BYTES)
/* Reads of one turn whose frames held nothing but control frames. */
#define EMPTY_READS_MAX 4

/* ---- Life -------------------------------------------------------------------------------------
 */

bool transport_needed(const struct listener *listener)
{
    const struct listener_config *config = listener->config;
    return config->proxy_protocol || config->certfile || config->protocol == LISTENER_WEBSOCKETS;
}

static enum transport_phase phase_after(const struct transport *t, enum transport_phase phase)
{
    if (phase < TRANSPORT_TLS && t->ssl)
        return TRANSPORT_TLS;
    if (phase < TRANSPORT_UPGRADE && t->websocket)
        return TRANSPORT_UPGRADE;
    return TRANSPORT_OPEN;
}

struct transport *transport_new(struct listener *listener, int fd)
{
    const struct listener_config *config = listener->config;
    struct transport *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    chr_buf_init(&t->handshake, 1u << 20); /* each use has a limit of its own below */
    chr_buf_init(&t->wire, WIRE_BYTES_MAX);
    bool ok = true;
    if (config->certfile) {
        t->ssl = listener_tls_new(listener);
        ok = t->ssl && SSL_set_fd(t->ssl, fd) == 1;
    }
    if (config->protocol == LISTENER_WEBSOCKETS) {
        t->websocket = calloc(1, sizeof *t->websocket);
        ok = ok && t->websocket;
    }
    if (!ok) {
        transport_free(t);
        return NULL;
    }
    t->phase = config->proxy_protocol ? TRANSPORT_PROXY : phase_after(t, TRANSPORT_PROXY);
    return t;
}

void transport_free(struct transport *t)
{
    if (!t)
        return;
    SSL_free(t->ssl);
    free(t->websocket);
    chr_buf_free(&t->handshake);
    chr_buf_free(&t->wire);
    free(t);
}

void transport_set_fd(struct transport *t, int fd)
{
    if (t->ssl) {
        /* In place: SSL_set_fd would make a new BIO and lose what the old one has buffered. */
        BIO_set_fd(SSL_get_rbio(t->ssl), fd, BIO_NOCLOSE);
        if (SSL_get_wbio(t->ssl) != SSL_get_rbio(t->ssl))
            BIO_set_fd(SSL_get_wbio(t->ssl), fd, BIO_NOCLOSE);
    }
}

/* ---- Receiving --------------------------------------------------------------------------------
 */

static ssize_t again(void)
{
    errno = EAGAIN;
    return -1;
}

static ssize_t refused(void)
{
    errno = EPROTO;
    return -1;
}

/* The connection's bytes without TLS: above 0, 0, or -1 with errno. */
static ssize_t receive_raw(struct conn *conn, uint8_t *bytes, size_t n)
{
    struct transport *t = conn->transport;
    if (!t->ssl || t->phase == TRANSPORT_PROXY)
        return recv(conn->fd, bytes, n, MSG_DONTWAIT);
    size_t got = 0;
    const char *why = NULL;
    enum tls_result result = tls_read(t->ssl, bytes, n, &got, &why);
    t->more = result == TLS_DONE && SSL_has_pending(t->ssl);
    if (got) { /* an end is reported by the next read again */
        t->more |= result == TLS_ENDED || result == TLS_FAILED;
        return (ssize_t)got;
    }
    switch (result) {
    case TLS_WANTS_WRITE:
        t->wants_write = true;
        return again();
    case TLS_DONE:
    case TLS_WANTS_READ:
        return again();
    case TLS_ENDED:
        return 0;
    default:
        chr_log_notice("net", "TLS failed, closing", CHR_KV_C("address", conn->address),
                       CHR_KV_C("listener", conn->listener->bound), CHR_KV_C("reason", why));
        return refused();
    }
}

/* 1: go on. */
static ssize_t read_proxy_header(struct conn *conn)
{
    struct transport *t = conn->transport;
    struct proxy_header header;
    for (;;) {
        int used = proxy_header_parse(chr_buf_slice(&t->handshake), &header);
        if (used < 0) {
            chr_log_notice("net", "not a PROXY header, closing", CHR_KV_C("address", conn->address),
                           CHR_KV_C("listener", conn->listener->bound),
                           CHR_KV_C("reason", header.why));
            return refused();
        }
        if (used > 0)
            break;
        if (chr_buf_reserve(&t->handshake, header.missing)) {
            errno = ENOMEM;
            return -1;
        }
        ssize_t n =
            recv(conn->fd, t->handshake.ptr + t->handshake.len, header.missing, MSG_DONTWAIT);
        if (n <= 0)
            return n;
        t->handshake.len += (size_t)n;
    }
    if (header.known) {
        chr_log_debug("net", "a proxy speaks for a client", CHR_KV_C("proxy", conn->address),
                      CHR_KV_C("address", header.address));
        snprintf(conn->address, sizeof conn->address, "%s", header.address);
    }
    chr_buf_free(&t->handshake);
    t->phase = phase_after(t, TRANSPORT_PROXY);
    return 1;
}

static ssize_t shake_hands(struct conn *conn)
{
    struct transport *t = conn->transport;
    const char *why = NULL;
    switch (tls_accept(t->ssl, &why)) {
    case TLS_DONE:
        conn->certificate_user = tls_user_name(t->ssl, conn->listener->config);
        if (conn->certificate_user)
            chr_log_info("net", "client certificate", CHR_KV_C("address", conn->address),
                         CHR_KV_C("user", conn->certificate_user));
        t->phase = phase_after(t, TRANSPORT_TLS);
        return 1;
    case TLS_WANTS_WRITE:
        t->wants_write = true;
        return again();
    case TLS_WANTS_READ:
        return again();
    case TLS_ENDED:
        return 0;
    default:
        chr_log_notice("net", "TLS handshake failed, closing", CHR_KV_C("address", conn->address),
                       CHR_KV_C("listener", conn->listener->bound), CHR_KV_C("reason", why));
        return refused(); /* OpenSSL has sent the alert */
    }
}

/* What could not be sent at once goes with the next flush. */
static void send_soon(struct conn *conn)
{
    uint64_t sent = 0;
    if (transport_flush(conn, &sent) == CHR_OK)
        conn_update_epoll(conn);
}

/* A browser on this machine or in this network carries any page's connection to us. Where a name
 * and a password are asked for, that is no use to the page; a certificate the browser may show by
 * itself. */
static const char *origin_wanted(const struct conn *conn)
{
    const struct listener_config *config = conn->listener->config;
    if (config->websockets_origin)
        return config->websockets_origin;
    bool asks = !listener_allows_anonymous(conn->listener, conn->loop->node->config) &&
                !config->use_identity_as_username && !config->use_subject_as_username;
    return asks ? "*" : NULL;
}

/* The request gathers until its end; what follows it are the first frames. */
static ssize_t read_upgrade(struct conn *conn, uint8_t *bytes, size_t n)
{
    struct transport *t = conn->transport;
    size_t max = conn->loop->node->config->websockets_headers_size;
    size_t room = max - t->handshake.len; /* > 0: a full buffer has been refused */
    if (chr_buf_reserve(&t->handshake, room)) {
        errno = ENOMEM;
        return -1;
    }
    CHR_ASSERT(room > 0 && n > 0);
    ssize_t got = receive_raw(conn, t->handshake.ptr + t->handshake.len, room < n ? room : n);
    if (got <= 0)
        return got;
    t->handshake.len += (size_t)got;
    struct websocket_upgrade upgrade;
    int used = websocket_upgrade(chr_buf_slice(&t->handshake), max, origin_wanted(conn), &upgrade);
    if (used == 0)
        return again();
    chr_buf_add_cstr(&t->wire, upgrade.response);
    if (used < 0) {
        chr_log_notice("net", "WebSocket upgrade refused", CHR_KV_C("address", conn->address),
                       CHR_KV_C("listener", conn->listener->bound),
                       CHR_KV_C("reason", upgrade.why));
        send_soon(conn);
        return refused();
    }
    size_t rest = t->handshake.len - (size_t)used;
    CHR_ASSERT(rest <= n); /* received at a time */
    memcpy(bytes, t->handshake.ptr + used, rest);
    chr_buf_free(&t->handshake);
    t->phase = TRANSPORT_OPEN;
    send_soon(conn);
    if (rest)
        return (ssize_t)rest;
    return again();
}

/* Frames to MQTT bytes, in place. got > 0. */
static ssize_t take_frames(struct conn *conn, uint8_t *bytes, size_t got)
{
    struct transport *t = conn->transport;
    size_t data = 0, unsent = transport_unsent(t);
    const char *why = NULL;
    chr_err err = websocket_decode(t->websocket, bytes, got, &data, &t->wire, &why);
    if (transport_unsent(t) > unsent)
        send_soon(conn);
    if (err == CHR_EPROTO) {
        chr_log_notice("net", "WebSocket protocol error, closing",
                       CHR_KV_C("address", conn->address),
                       CHR_KV_C("listener", conn->listener->bound), CHR_KV_C("reason", why));
        return refused();
    }
    if (err) {
        errno = ENOMEM;
        return -1;
    }
    if (data) {
        t->more |= t->websocket->close_received; /* the end comes with the next read */
        return (ssize_t)data;
    }
    return t->websocket->close_received ? 0 : again();
}

static ssize_t receive_open(struct conn *conn, uint8_t *bytes, size_t n)
{
    struct transport *t = conn->transport;
    if (!t->websocket)
        return receive_raw(conn, bytes, n);
    if (t->websocket->close_received)
        return 0;
    for (int i = 0; i < EMPTY_READS_MAX; i++) {
        ssize_t got = receive_raw(conn, bytes, n);
        if (got <= 0)
            return got;
        got = take_frames(conn, bytes, (size_t)got);
        if (got >= 0 || errno != EAGAIN)
            return got;
    }
    return again();
}

ssize_t transport_receive(struct conn *conn, uint8_t *bytes, size_t n)
{
    struct transport *t = conn->transport;
    t->wants_write = t->more = false;
    if (t->phase == TRANSPORT_PROXY) {
        ssize_t done = read_proxy_header(conn);
        if (done <= 0)
            return done;
        if (!t->ssl && !t->websocket) {
            transport_free(t);
            conn->transport = NULL;
            return recv(conn->fd, bytes, n, MSG_DONTWAIT);
        }
    }
    if (t->phase == TRANSPORT_TLS) {
        ssize_t done = shake_hands(conn);
        if (done <= 0)
            return done;
    }
    if (t->phase == TRANSPORT_UPGRADE) {
        ssize_t got = read_upgrade(conn, bytes, n);
        return got > 0 ? take_frames(conn, bytes, (size_t)got) : got;
    }
    return receive_open(conn, bytes, n);
}

/* ---- Sending ----------------------------------------------------------------------------------
 */

size_t transport_unsent(const struct transport *t)
{
    return t->wire.len - t->wire_sent;
}

bool transport_wants_write(const struct conn *conn)
{
    const struct transport *t = conn->transport;
    return (t->wants_write && !conn->paused) || transport_unsent(t) > 0 ||
           (t->phase == TRANSPORT_OPEN && conn_out_pending(conn) > 0);
}

/* Above 0: taken. 0: not now. Below: the connection is gone. */
static ssize_t send_raw(struct conn *conn, const uint8_t *bytes, size_t n)
{
    struct transport *t = conn->transport;
    if (!t->ssl || t->phase == TRANSPORT_PROXY) {
        ssize_t sent = send(conn->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
        return sent;
    }
    size_t sent = 0;
    const char *why = NULL;
    switch (tls_write(t->ssl, bytes, n, &sent, &why)) {
    case TLS_DONE:
        return (ssize_t)sent;
    case TLS_WANTS_READ:
    case TLS_WANTS_WRITE:
        return 0;
    default:
        return -1;
    }
}

/* CHR_OK with wire empty, or with what the socket does not take now. */
static chr_err send_wire(struct conn *conn)
{
    struct transport *t = conn->transport;
    while (transport_unsent(t)) {
        ssize_t n = send_raw(conn, t->wire.ptr + t->wire_sent, transport_unsent(t));
        if (n < 0)
            return CHR_ECLOSED;
        if (n == 0)
            return CHR_OK;
        t->wire_sent += (size_t)n;
    }
    if (t->wire.capacity) {
        chr_buf_free(&t->wire);
        t->wire_sent = 0;
    }
    return CHR_OK;
}

/* The next piece of the connection's output, framed. */
static size_t next_piece(struct conn *conn, uint8_t *piece)
{
    struct transport *t = conn->transport;
    if (!t->websocket)
        return conn_out_take(conn, piece, PIECE_BYTES);
    if (t->websocket->close_sent)
        return 0;
    uint64_t pending = conn_out_pending(conn);
    size_t room = PIECE_BYTES - WEBSOCKET_HEADER_BYTES_MAX;
    size_t payload = pending < room ? (size_t)pending : room;
    if (!payload)
        return 0;
    size_t head = websocket_header(piece, payload);
    size_t taken = conn_out_take(conn, piece + head, payload);
    CHR_ASSERT(taken == payload);
    return head + payload;
}

chr_err transport_flush(struct conn *conn, uint64_t *sent)
{
    struct transport *t = conn->transport;
    uint8_t piece[PIECE_BYTES];
    *sent = 0;
    if (t->phase == TRANSPORT_TLS)
        return CHR_OK;
    for (;;) {
        chr_err err = send_wire(conn);
        if (err || transport_unsent(t) || t->phase != TRANSPORT_OPEN)
            return err;
        uint64_t before = conn_out_pending(conn);
        size_t len = next_piece(conn, piece), at = 0;
        if (!len)
            return CHR_OK;
        *sent += before - conn_out_pending(conn);
        while (at < len) {
            ssize_t n = send_raw(conn, piece + at, len - at);
            if (n < 0)
                return CHR_ECLOSED;
            if (n == 0)
                break;
            at += (size_t)n;
        }
        chr_buf_add(&t->wire, piece + at, len - at);
        if (t->wire.failed)
            return CHR_ENOMEM;
    }
}

void transport_goodbye(struct conn *conn)
{
    struct transport *t = conn->transport;
    uint64_t sent;
    if (t->phase == TRANSPORT_OPEN && t->websocket) {
        /* Behind what is still to be sent, or not at all: it must not stand inside of a message. */
        if (transport_flush(conn, &sent) || transport_unsent(t))
            return;
        websocket_close(t->websocket, WEBSOCKET_NORMAL, &t->wire);
    }
    if (transport_flush(conn, &sent) || transport_unsent(t))
        return;
    if (t->ssl && t->phase > TRANSPORT_TLS)
        (void)SSL_shutdown(t->ssl); /* close_notify; its answer is not waited for */
}
