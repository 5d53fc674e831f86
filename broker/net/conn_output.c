/* broker/net/conn_output.c: what leaves a connection: bytes, shared payloads, acknowledgements.
 *
 * Output is a stream of the bytes in `out` with shared payloads stuck in at given places, so that a
 * large message is sent to a thousand subscribers from one buffer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "broker/config.h"
#include "broker/net/conn.h"
#include "broker/net/listener.h"
#include "broker/net/loop.h"
#include "broker/net/transport.h"
#include "broker/node.h"
#include "broker/session/dispatch.h"
#include "broker/session/message.h"
#include "proto/mqtt/encode.h"

/* Reading pauses while more than this is unsent: a client that only asks must read answers. */
#define OUTPUT_PAUSE_BYTES  (1u << 20)
#define OUTPUT_RESUME_BYTES (64u << 10)
/* Nothing came or went for so long: the next message may be minutes away. */
#define QUIET_US   INT64_C(2000000)
#define IOVECS_MAX 64
/* Places of an ack ring at most: every packet identifier, and as many QoS 2 releases. */
#define ACKS_MAX   131072u
#define ACKS_FIRST 16u
/* Written out before room for more is asked for. */
#define ACKS_AT_A_TIME 1024u

struct conn_shared {
    struct conn_shared *next;
    struct message *message; /* a reference */
    chr_slice payload;       /* in the message */
    size_t out_at;           /* goes out before the byte of `out` with this number */
    size_t sent;
};

struct conn_ack_text {
    struct conn_ack_text *next;
    uint32_t sequence;
    uint32_t len;
    uint8_t bytes[];
};

/* ---- Gathering --------------------------------------------------------------------------------
 */

static void queue_flush(struct conn *conn)
{
    if (conn->flush_queued)
        return;
    conn->flush_queued = true;
    chr_list_push_back(&conn->loop->flush, &conn->flush_link);
}

uint64_t conn_out_pending(const struct conn *conn)
{
    return conn->out.len - conn->out_sent + conn->shared_bytes;
}

uint64_t conn_out_bytes(const struct conn *conn)
{
    return conn_out_pending(conn) + (conn->transport ? transport_unsent(conn->transport) : 0);
}

uint8_t *conn_out_reserve(struct conn *conn, size_t n)
{
    if (conn->state == CONN_CLOSING)
        return NULL;
    if (conn_out_bytes(conn) + n > conn->loop->node->config->max_output_bytes ||
        chr_buf_reserve(&conn->out, n) != CHR_OK) {
        conn_close(conn);
        return NULL;
    }
    return conn->out.ptr + conn->out.len;
}

void conn_out_commit(struct conn *conn, size_t n)
{
    conn->out.len += n;
    conn->loop->unsent_bytes += n;
    queue_flush(conn);
}

void conn_send(struct conn *conn, chr_slice bytes)
{
    uint8_t *at = conn_out_reserve(conn, bytes.len);
    if (!at)
        return;
    memcpy(at, bytes.ptr, bytes.len);
    conn_out_commit(conn, bytes.len);
    LOOP_COUNT(conn->loop, others_sent, 1);
}

void conn_send_shared(struct conn *conn, chr_slice head, struct message *message, chr_slice payload)
{
    struct conn_shared *shared = malloc(sizeof *shared);
    uint8_t *at = conn_out_reserve(conn, head.len + (shared ? 0 : payload.len));
    if (!at) {
        free(shared);
        return;
    }
    memcpy(at, head.ptr, head.len);
    conn_out_commit(conn, head.len);
    if (!shared) { /* no memory for the small thing: send a copy */
        memcpy(conn->out.ptr + conn->out.len, payload.ptr, payload.len);
        conn_out_commit(conn, payload.len);
        return;
    }
    message_ref(message);
    *shared = (struct conn_shared){.message = message, .payload = payload, .out_at = conn->out.len};
    if (conn->shared_last)
        conn->shared_last->next = shared;
    else
        conn->shared_first = shared;
    conn->shared_last = shared;
    conn->shared_bytes += payload.len;
    conn->loop->unsent_bytes += payload.len;
}

static void shared_pop(struct conn *conn)
{
    struct conn_shared *shared = conn->shared_first;
    conn->shared_first = shared->next;
    if (!conn->shared_first)
        conn->shared_last = NULL;
    conn->shared_bytes -= shared->payload.len - shared->sent;
    message_unref(shared->message);
    free(shared);
}

/* ---- Sending ----------------------------------------------------------------------------------
 */

static int build_iovecs(const struct conn *conn, struct iovec *iov)
{
    int count = 0;
    size_t at = conn->out_sent;
    for (const struct conn_shared *s = conn->shared_first; s && count < IOVECS_MAX - 2;
         s = s->next) {
        if (s->out_at > at)
            iov[count++] = (struct iovec){conn->out.ptr + at, s->out_at - at};
        at = s->out_at;
        iov[count++] =
            (struct iovec){(void *)(uintptr_t)(s->payload.ptr + s->sent), s->payload.len - s->sent};
    }
    bool all = count < IOVECS_MAX - 2;
    if (all && conn->out.len > at)
        iov[count++] = (struct iovec){conn->out.ptr + at, conn->out.len - at};
    return count;
}

static void consume_sent(struct conn *conn, size_t n)
{
    conn->loop->unsent_bytes -= n;
    while (n) {
        struct conn_shared *s = conn->shared_first;
        size_t plain = (s ? s->out_at : conn->out.len) - conn->out_sent;
        if (plain) {
            size_t take = plain < n ? plain : n;
            conn->out_sent += take;
            n -= take;
            continue;
        }
        CHR_ASSERT(s);
        size_t left = s->payload.len - s->sent;
        size_t take = left < n ? left : n;
        s->sent += take;
        conn->shared_bytes -= take;
        n -= take;
        if (s->sent == s->payload.len)
            shared_pop(conn);
    }
    while (conn->shared_first && conn->shared_first->payload.len == 0 &&
           conn->shared_first->out_at == conn->out_sent)
        shared_pop(conn);
}

size_t conn_out_take(struct conn *conn, uint8_t *to, size_t max)
{
    size_t taken = 0;
    while (taken < max && conn_out_pending(conn) > 0) {
        struct iovec iov[IOVECS_MAX];
        int count = build_iovecs(conn, iov);
        size_t before = taken;
        for (int i = 0; i < count && taken < max; i++) {
            size_t n = iov[i].iov_len < max - taken ? iov[i].iov_len : max - taken;
            memcpy(to + taken, iov[i].iov_base, n);
            taken += n;
        }
        consume_sent(conn, taken - before);
    }
    return taken;
}

static void compact(struct conn *conn)
{
    if (conn->out_sent == conn->out.len && !conn->shared_first) {
        conn->out_sent = 0;
        if (conn->out.capacity > (64u << 10))
            chr_buf_free(&conn->out); /* an idle connection holds no large buffer */
        else
            chr_buf_reset(&conn->out);
    } else if (conn->out_sent >= CONN_OUT_COMPACT_BYTES) {
        chr_buf_consume(&conn->out, conn->out_sent);
        for (struct conn_shared *s = conn->shared_first; s; s = s->next)
            s->out_at -= conn->out_sent;
        conn->out_sent = 0;
    }
}

static void count_sent(struct conn *conn, uint64_t n)
{
    conn->bytes_sent += n;
    conn->last_send_us = conn->loop->now_mono_us;
    LOOP_COUNT(conn->loop, bytes_sent, n);
    LOOP_ADD(&conn->loop->listener_counters[conn->listener->index].bytes_sent, n);
}

/* False: the connection is gone. */
static bool send_plain(struct conn *conn)
{
    while (conn_out_pending(conn) > 0) {
        ssize_t n;
        if (!conn->shared_first) {
            n = send(conn->fd, conn->out.ptr + conn->out_sent, conn->out.len - conn->out_sent,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
        } else {
            struct iovec iov[IOVECS_MAX];
            struct msghdr header = {.msg_iov = iov};
            header.msg_iovlen = (size_t)build_iovecs(conn, iov);
            n = sendmsg(conn->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return errno == EAGAIN || errno == EWOULDBLOCK;
        }
        count_sent(conn, (uint64_t)n);
        consume_sent(conn, (size_t)n);
    }
    return true;
}

static bool send_through_transport(struct conn *conn)
{
    uint64_t sent = 0;
    chr_err err = transport_flush(conn, &sent);
    if (sent)
        count_sent(conn, sent);
    return err == CHR_OK;
}

void conn_flush(struct conn *conn)
{
    if (!(conn->transport ? send_through_transport(conn) : send_plain(conn))) {
        conn->eof = true;
        conn_close(conn);
        return;
    }
    compact(conn);
    uint64_t unsent = conn_out_bytes(conn);
    if (unsent > OUTPUT_PAUSE_BYTES)
        conn_pause(conn, CONN_PAUSE_OUTPUT);
    else if (unsent < OUTPUT_RESUME_BYTES && (conn->paused & CONN_PAUSE_OUTPUT))
        conn_resume(conn, CONN_PAUSE_OUTPUT);
    if (conn->drain_wanted && unsent < OUTPUT_RESUME_BYTES && conn->state == CONN_OPEN) {
        conn->drain_wanted = false;
        session_output_drained(conn);
    }
    conn_update_epoll(conn);
}

void conn_output_free(struct conn *conn);
void conn_output_free(struct conn *conn)
{
    while (conn->shared_first)
        shared_pop(conn);
    chr_buf_free(&conn->out);
    while (conn->ack_texts) {
        struct conn_ack_text *text = conn->ack_texts;
        conn->ack_texts = text->next;
        free(text);
    }
    free(conn->acks);
}

void conn_rest(struct conn *conn)
{
    if (conn->loop->now_mono_us - CHR_MAX(conn->last_send_us, conn->last_receive_us) < QUIET_US)
        return;
    if (conn->out.capacity && conn->out.len == 0 && !conn->shared_first)
        chr_buf_free(&conn->out);
    if (conn->acks && conn->acks_head == conn->acks_tail) {
        free(conn->acks);
        conn->acks = NULL;
        conn->acks_mask = 0;
    }
}

/* ---- Acknowledgements -------------------------------------------------------------------------
 */

uint32_t conn_acks_room(const struct conn *conn)
{
    return ACKS_MAX - (conn->acks_tail - conn->acks_head);
}

static bool acks_grow(struct conn *conn)
{
    uint32_t capacity = conn->acks ? (conn->acks_mask + 1) * 2 : ACKS_FIRST;
    struct conn_ack *acks = malloc(capacity * sizeof *acks);
    if (!acks)
        return false;
    for (uint32_t i = conn->acks_head; i != conn->acks_tail; i++)
        acks[i & (capacity - 1)] = conn->acks[i & conn->acks_mask];
    free(conn->acks);
    conn->acks = acks;
    conn->acks_mask = capacity - 1;
    return true;
}

uint32_t conn_ack_begin(struct conn *conn, uint8_t kind, uint16_t packet_id)
{
    CHR_ASSERT(conn_acks_room(conn) > 0);
    if (!conn->acks || conn->acks_tail - conn->acks_head > conn->acks_mask) {
        bool grown = acks_grow(conn);
        CHR_ASSERT(grown); /* a few KiB: without them the node can't go on anyway */
    }
    uint32_t sequence = conn->acks_tail++;
    conn->acks[sequence & conn->acks_mask] =
        (struct conn_ack){.packet_id = packet_id, .kind = kind, .state = CONN_ACK_PENDING};
    return sequence;
}

/* The text of the place at the head of the ring; NULL: it has none. */
static struct conn_ack_text *take_text(struct conn *conn)
{
    struct conn_ack_text *text = conn->ack_texts;
    if (!text || text->sequence != conn->acks_head)
        return NULL;
    conn->ack_texts = text->next;
    if (!conn->ack_texts)
        conn->ack_texts_last = NULL;
    return text;
}

static void drop_text(struct conn *conn, uint32_t sequence)
{
    struct conn_ack_text *before = NULL;
    for (struct conn_ack_text *text = conn->ack_texts; text; before = text, text = text->next) {
        if (text->sequence != sequence)
            continue;
        if (before)
            before->next = text->next;
        else
            conn->ack_texts = text->next;
        if (!text->next)
            conn->ack_texts_last = before;
        free(text);
        return;
    }
}

void conn_ack_set_reason(struct conn *conn, uint32_t sequence, uint8_t reason,
                         chr_slice reason_string)
{
    struct conn_ack *ack = &conn->acks[sequence & conn->acks_mask];
    bool again = ack->fixed; /* a stale batch was decoded again (R9): it may have a text */
    ack->reason = reason;
    ack->fixed = 1;
    if (again)
        drop_text(conn, sequence);
    if (reason_string.len == 0 || conn->version != MQTT_V5)
        return;
    struct conn_ack_text *text = malloc(sizeof *text + reason_string.len);
    if (!text)
        return; /* the code says enough */
    text->sequence = sequence;
    text->len = (uint32_t)reason_string.len;
    memcpy(text->bytes, reason_string.ptr, reason_string.len);
    /* Places are decided in order but for those decoded again, so this is the end of the list. */
    struct conn_ack_text **at = &conn->ack_texts;
    if (conn->ack_texts_last &&
        conn->ack_texts_last->sequence - conn->acks_head < sequence - conn->acks_head)
        at = &conn->ack_texts_last->next;
    while (*at && (*at)->sequence - conn->acks_head < sequence - conn->acks_head)
        at = &(*at)->next;
    text->next = *at;
    *at = text;
    if (!text->next)
        conn->ack_texts_last = text;
}

/* At most `most` bytes of a text, whole characters. */
static chr_slice text_start(const struct conn_ack_text *text, uint32_t most)
{
    uint32_t len = CHR_MIN(text->len, most);
    while (len < text->len && len > 0 && (text->bytes[len] & 0xc0) == 0x80)
        len--;
    return chr_slice_of(text->bytes, len);
}

static void send_with_text(struct conn *conn, const struct conn_ack *ack,
                           const struct conn_ack_text *text)
{
    uint8_t block[512];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    mqtt_put_bytes(&w, MQTT_PROPERTY_REASON_STRING, text_start(text, 500));
    struct mqtt_ack packet = {.packet_id = ack->packet_id, .reason_code = ack->reason};
    if (!w.failed)
        packet.properties.raw = mqtt_property_block(&w);
    size_t size = mqtt_encode_ack_size(conn->version, &packet);
    if (conn->client_packet_bytes_max && size > conn->client_packet_bytes_max) {
        packet.properties.raw = CHR_LIT(""); /* [MQTT-3.4.2-2], [MQTT-3.5.2-2] */
        size = mqtt_encode_ack_size(conn->version, &packet);
    }
    uint8_t *at = conn_out_reserve(conn, size);
    if (at)
        conn_out_commit(conn, mqtt_encode_ack(at, size, conn->version,
                                              (enum mqtt_packet_type)ack->kind, &packet));
}

/* Sends what is decided at the head of the ring. */
static void send_decided(struct conn *conn)
{
    uint8_t *start = NULL, *at = NULL, *end = NULL;
    uint32_t sent = 0;
    while (conn->acks_head != conn->acks_tail) {
        const struct conn_ack *ack = &conn->acks[conn->acks_head & conn->acks_mask];
        if (ack->state != CONN_ACK_DONE)
            break;
        struct conn_ack_text *text = CHR_UNLIKELY(conn->ack_texts != NULL) ? take_text(conn) : NULL;
        if (CHR_UNLIKELY(text != NULL)) {
            if (at != start)
                conn_out_commit(conn, (size_t)(at - start));
            start = at = end = NULL;
            send_with_text(conn, ack, text);
            free(text);
            sent++;
            conn->acks_head++;
            continue;
        }
        if (CHR_UNLIKELY((size_t)(end - at) < MQTT_ACK_BYTES_MAX)) {
            /* Room for what may follow, but not for a whole ring: most of it is not decided. */
            if (at != start)
                conn_out_commit(conn, (size_t)(at - start));
            size_t bytes = (size_t)CHR_MIN(conn->acks_tail - conn->acks_head, ACKS_AT_A_TIME) *
                           MQTT_ACK_BYTES_MAX;
            start = at = conn_out_reserve(conn, bytes);
            if (!start)
                return;
            end = start + bytes;
        }
        if (ack->kind) {
            at += mqtt_encode_ack_short(at, conn->version, (enum mqtt_packet_type)ack->kind,
                                        ack->packet_id, ack->reason);
            sent++;
        }
        conn->acks_head++;
    }
    if (at != start)
        conn_out_commit(conn, (size_t)(at - start));
    LOOP_COUNT(conn->loop, acks_sent, sent);
    if (conn->acks_head == conn->acks_tail && conn->acks_mask >= 4096) {
        free(conn->acks); /* a quiet connection holds no large ring */
        conn->acks = NULL;
        conn->acks_mask = 0;
    }
    if ((conn->paused & CONN_PAUSE_INFLIGHT) && conn_acks_room(conn) > 0)
        conn_resume(conn, CONN_PAUSE_INFLIGHT);
}

void conn_ack_done(struct conn *conn, uint32_t sequence, uint32_t count, uint8_t reason)
{
    if (conn->state == CONN_CLOSING || count == 0)
        return;
    for (uint32_t i = 0; i < count; i++) {
        struct conn_ack *ack = &conn->acks[(sequence + i) & conn->acks_mask];
        CHR_ASSERT_HOT(sequence + i - conn->acks_head < conn->acks_tail - conn->acks_head);
        if (ack->state == CONN_ACK_DONE)
            continue;
        ack->state = CONN_ACK_DONE;
        if (!ack->fixed)
            ack->reason = reason;
    }
    if (sequence == conn->acks_head)
        send_decided(conn);
}
