/* broker/net/conn.c: reading a connection: bytes to packets, packets to the session layer.
 *
 * Bytes are received into the loop's slab behind what was left over from the last time, so every
 * whole packet lies in one piece; what is incomplete or held goes to the connection's own buffer.
 * A packet larger than a slab gathers there and then moves to a slab of its own size. */
#include "broker/net/conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/auth/auth.h"
#include "broker/config.h"
#include "broker/net/listener.h"
#include "broker/net/loop.h"
#include "broker/net/transport.h"
#include "broker/node.h"
#include "broker/session/dispatch.h"
#include "proto/mqtt/decode.h"

/* Received at a time: large enough that a system call is cheap, small enough that what was received
 * is still in the L2 cache when it is decoded, and that no connection starves the others. */
#define RECEIVE_BYTES (64u << 10)
/* Less room than this at the end of a slab is not worth a recv. */
#define RECEIVE_BYTES_MIN (8u << 10)
/* Before CONNECT nobody is owed megabytes. */
#define CONNECT_BYTES_MAX (256u << 10)

void conn_output_free(struct conn *conn);
void session__rate_free(struct conn *conn); /* session/publish_rate.c */

static bool transport_has_more(const struct conn *conn)
{
    return conn->transport && conn->transport->more;
}

static void count_received(struct conn *conn, ssize_t n)
{
    struct broker_loop *loop = conn->loop;
    conn->bytes_received += (uint64_t)n;
    conn->last_receive_us = loop->now_mono_us;
    LOOP_COUNT(loop, bytes_received, n);
    LOOP_ADD(&loop->listener_counters[conn->listener->index].bytes_received, n);
}

struct conn *conn_new(struct broker_loop *loop, struct listener *listener, int fd,
                      struct transport *transport, struct conn_ref ref, const char *address)
{
    struct conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return NULL;
    conn->loop = loop;
    conn->listener = listener;
    conn->fd = fd;
    conn->ref = ref;
    conn->version = MQTT_V311;
    conn->last_receive_us = conn->last_send_us = conn->opened_us = loop->now_mono_us;
    const struct broker_config *config = loop->node->config;
    conn->max_packet_size = listener_max_packet_size(listener, config);
    conn->receive_maximum = config->receive_maximum;
    conn->topic_alias_maximum = listener_topic_alias_maximum(listener, config);
    chr_buf_init(&conn->in, (size_t)conn->max_packet_size + 2 * RECEIVE_BYTES);
    chr_buf_init(&conn->out, (size_t)config->max_output_bytes + CONN_OUT_COMPACT_BYTES);
    chr_list_init(&conn->flush_link);
    chr_list_init(&conn->wait_link);
    (void)snprintf(conn->address, sizeof conn->address, "%s", address);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    conn->epoll_in = true;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event)) {
        free(conn);
        return NULL;
    }
    conn->transport = transport;
    return conn;
}

/* Bytes nobody will read any more would make the kernel answer close() with a reset, and the client
 * might lose the DISCONNECT that tells it why. */
static void discard_received(const struct conn *conn)
{
    for (int i = 0; i < 16 && !conn->eof; i++)
        if (recv(conn->fd, NULL, RECEIVE_BYTES, MSG_DONTWAIT | MSG_TRUNC) <= 0)
            return;
}

void conn_free(struct conn *conn)
{
    if (!conn)
        return;
    if (conn->state == CONN_CLOSING) { /* else it moved to another loop, bytes and all */
        if (conn->transport && !conn->eof)
            transport_goodbye(conn);
        discard_received(conn);
    }
    close(conn->fd); /* leaves epoll by itself: no other descriptor refers to the socket */
    chr_list_remove(&conn->flush_link);
    chr_list_remove(&conn->wait_link);
    conn->loop->unsent_bytes -= conn_out_pending(conn); /* what the transport took is off already */
    transport_free(conn->transport);
    conn->transport = NULL;
    free(conn->certificate_user);
    session__rate_free(conn);
    chr_buf_free(&conn->in);
    conn_partial_count(conn);
    conn_output_free(conn);
    session_enhanced_free(conn->enhanced);
    principal_unref(conn->principal);
    free(conn);
}

void conn_update_epoll(struct conn *conn)
{
    bool in = conn->paused == 0 && conn->state != CONN_CLOSING;
    bool out = conn->transport ? transport_wants_write(conn) : conn_out_bytes(conn) > 0;
    if (in == conn->epoll_in && out == conn->epoll_out)
        return;
    conn->epoll_in = in;
    conn->epoll_out = out;
    struct epoll_event event = {.events =
                                    (in ? (uint32_t)EPOLLIN : 0u) | (out ? (uint32_t)EPOLLOUT : 0u),
                                .data.ptr = conn};
    (void)epoll_ctl(conn->loop->epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
}

/* ---- Pausing and closing ----------------------------------------------------------------------
 */

void conn_pause(struct conn *conn, enum conn_pause reason)
{
    if (conn->paused & reason)
        return;
    conn->paused |= (uint16_t)reason;
    if (reason == CONN_PAUSE_BATCH) {
        chr_list_remove(&conn->wait_link);
        chr_list_push_back(&conn->loop->waiting, &conn->wait_link);
        LOOP_COUNT(conn->loop, pauses_batch, 1);
    }
    conn_update_epoll(conn);
}

void conn_resume(struct conn *conn, enum conn_pause reason)
{
    if (!(conn->paused & reason))
        return;
    conn->paused &= (uint16_t)~reason;
    if (reason == CONN_PAUSE_BATCH)
        chr_list_remove(&conn->wait_link);
    if (conn->paused || conn->state == CONN_CLOSING)
        return;
    /* While we did not read, the client could not have shown that it is alive (design 3.1). */
    conn->last_receive_us = conn->loop->now_mono_us;
    conn_update_epoll(conn);
    /* Held packets are taken up by the loop, not here: the caller may be inside a handler. */
    if ((conn->in.len || transport_has_more(conn)) && chr_list_empty(&conn->wait_link))
        chr_list_push_back(&conn->loop->held, &conn->wait_link);
}

void conn_close(struct conn *conn)
{
    if (conn->state == CONN_CLOSING)
        return;
    conn->state = CONN_CLOSING;
    chr_list_remove(&conn->wait_link);
    chr_list_push_back(&conn->loop->closing, &conn->wait_link);
    conn_update_epoll(conn);
}

/* ---- Packets ----------------------------------------------------------------------------------
 */

/* Dispatches whole packets of [at, end), which lies in slab. Returns what is left. */
static chr_slice dispatch_packets(struct conn *conn, struct slab *slab, chr_slice bytes)
{
    uint32_t limit = conn->max_packet_size;
    uint64_t packets = 0;
    while (bytes.len && !conn->paused && conn->state != CONN_CLOSING) {
        struct mqtt_frame frame;
        uint32_t max = conn->state == CONN_NEW ? CHR_MIN(limit, CONNECT_BYTES_MAX) : limit;
        int n = mqtt_frame(bytes, max, &frame);
        if (n == 0)
            break;
        if (n < 0) {
            session_frame_error(conn, n, &frame);
            break;
        }
        enum dispatch outcome =
            session_dispatch(conn, slab, chr_slice_of(bytes.ptr, (size_t)n), &frame);
        if (outcome == DISPATCH_AGAIN) {
            CHR_ASSERT(conn->paused || conn->state == CONN_CLOSING);
            break;
        }
        packets++;
        bytes.ptr += n;
        bytes.len -= (size_t)n;
        if (outcome == DISPATCH_CLOSE)
            conn_close(conn);
    }
    LOOP_COUNT(conn->loop, packets_received, packets);
    if (conn->state == CONN_CLOSING)
        bytes.len = 0;
    return bytes;
}

/* Keeps what was not dispatched. bytes may lie in conn->in's own memory only at its end. */
static void hold(struct conn *conn, chr_slice bytes)
{
    chr_buf_reset(&conn->in);
    if (bytes.len == 0) {
        if (conn->in.capacity)
            chr_buf_free(&conn->in);
        if (conn->held_bytes)
            conn_partial_count(conn);
        return;
    }
    chr_buf_add_slice(&conn->in, bytes);
    conn_partial_count(conn);
    if (conn->in.failed) {
        chr_log_error("net", "out of memory for received bytes; closing",
                      CHR_KV_C("address", conn->address));
        conn_close(conn);
    }
}

static ssize_t receive(struct conn *conn, uint8_t *bytes, size_t n)
{
    ssize_t got = conn->transport ? transport_receive(conn, bytes, n)
                                  : recv(conn->fd, bytes, n, MSG_DONTWAIT);
    if (got > 0) {
        count_received(conn, got);
    } else if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        /* One that was refused is still there, and is to learn why. */
        conn->eof = !(got < 0 && errno == EPROTO);
        conn_close(conn);
    }
    return got;
}

/* A slab with room for what is held and `extra` more bytes; NULL: paused until a batch is free. */
static struct slab *slab_with_room(struct conn *conn, size_t held, size_t extra)
{
    struct broker_loop *loop = conn->loop;
    if (loop->slab && loop->slab->capacity - loop->slab->used >= held + extra)
        return loop->slab;
    if (held + extra > SLAB_BYTES) {
        struct slab *large = slab_get(&loop->slabs, (uint32_t)(held + extra));
        if (!large)
            conn_pause(conn, CONN_PAUSE_BATCH);
        return large;
    }
    slab_unref(loop->slab);
    loop->slab = slab_get(&loop->slabs, SLAB_BYTES);
    if (!loop->slab)
        conn_pause(conn, CONN_PAUSE_BATCH);
    return loop->slab;
}

/* Moves held bytes, and up to `extra` freshly received ones behind them, into a slab and
 * dispatches.
 */
static void receive_and_dispatch(struct conn *conn, size_t extra)
{
    size_t held = conn->in.len;
    struct slab *slab = slab_with_room(conn, held, extra ? RECEIVE_BYTES_MIN : 0);
    if (!slab)
        return;
    bool own = slab != conn->loop->slab;
    uint8_t *start = slab->bytes + slab->used;
    size_t room = slab->capacity - slab->used - held;
    ssize_t n = 0;
    if (extra) {
        n = receive(conn, start + held, room < extra ? room : extra);
        if (n <= 0) {
            if (own)
                slab_unref(slab);
            return;
        }
    }
    if (held)
        memcpy(start, conn->in.ptr, held);
    size_t total = held + (size_t)n;
    slab_ref(slab); /* a handler may make the loop take a new slab */
    chr_slice left = dispatch_packets(conn, slab, chr_slice_of(start, total));
    if (conn->partial_bytes && left.ptr != start)
        conn_partial_release(conn); /* the packet it was for is complete */
    /* What is left was copied out, so its place is free again; a slab nobody kept starts over. */
    hold(conn, left);
    if (slab->refs > 2) /* the loop's (or ours) and the one above: somebody else keeps packets */
        slab->used = (uint32_t)(start - slab->bytes + (ptrdiff_t)(total - left.len));
    slab_unref(slab);
    if (own)
        slab_unref(slab);
}

/* Gathers a packet that is larger than a slab where it can grow. */
static bool gather_large(struct conn *conn)
{
    struct mqtt_frame frame;
    if (conn->in.len == 0)
        return false;
    uint32_t limit = conn->max_packet_size;
    int n = mqtt_frame(chr_buf_slice(&conn->in), limit, &frame);
    if (n != 0 || frame.packet_bytes <= SLAB_BYTES / 2)
        return false;
    size_t missing = frame.packet_bytes - conn->in.len;
    size_t want = missing < RECEIVE_BYTES ? missing : RECEIVE_BYTES;
    if (chr_buf_reserve(&conn->in, want)) {
        conn_close(conn);
        return true;
    }
    ssize_t got = receive(conn, conn->in.ptr + conn->in.len, want);
    if (got <= 0)
        return true;
    conn->in.len += (size_t)got;
    conn_partial_count(conn);
    if ((size_t)got == missing)
        receive_and_dispatch(conn, 0);
    return true;
}

void conn_read(struct conn *conn)
{
    if (conn->paused || conn->state == CONN_CLOSING)
        return;
    /* Paused connections hold what was received; when that is much, they receive less at a time. */
    bool much =
        conn->loop->partial_bytes_max && conn->loop->held_bytes > conn->loop->partial_bytes_max;
    if (!conn_partial_reserve(conn))
        return;
    if (!gather_large(conn))
        receive_and_dispatch(conn, much ? RECEIVE_BYTES_MIN / 2 : RECEIVE_BYTES);
    if (CHR_LIKELY(!conn->transport))
        return;
    if (transport_has_more(conn) && !conn->paused && chr_list_empty(&conn->wait_link))
        chr_list_push_back(&conn->loop->held, &conn->wait_link); /* the others first */
    conn_update_epoll(conn);
}

void conn_process_held(struct conn *conn)
{
    if (conn->in.len && !conn->paused && conn->state != CONN_CLOSING)
        receive_and_dispatch(conn, 0);
    if (transport_has_more(conn))
        conn_read(conn);
}
