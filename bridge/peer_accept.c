/* bridge/peer_accept.c: a peer's connection to us, taken over from a loop of the broker.
 *
 *     CONNECT ─▶ SUBSCRIBE ─▶ PROOF ─right─▶ OPEN: frames in, credits out
 *        └───────────┴──────────┴──── anything else, 5 s: closed and counted (T4)
 *
 * It speaks as little MQTT as a lane needs: CONNECT of 3.1.1, one SUBSCRIBE, PUBLISH of QoS 0 to
 * our own topics, PINGREQ, DISCONNECT. The socket is always read: what may be outstanding is
 * bounded by the window, so what comes in has room (T2), and a peer that sends more than it may is
 * cut off. Bytes are received into the lane's scratch behind what was left over of a packet, and
 * stay there until another connection has something to say; messages are put together in memory of
 * their own, which their receiver owns afterwards. */
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "bridge/peers_internal.h"
#include "proto/mqtt/decode.h"
#include "proto/mqtt/encode.h"

/* CONNACK, SUBACK, the proof, PINGRESPs, one credit: a peer that takes none of it is not well. */
#define OUT_BYTES_MAX ((size_t)4 << 10)
/* Packets before the proof. */
#define UNPROVED_PACKET_BYTES_MAX 1024u
/* Credits of less than an eighth of the window wait for more, this long. */
#define CREDIT_US INT64_C(200000)

enum inbound_state { INBOUND_CONNECT, INBOUND_SUBSCRIBE, INBOUND_PROOF, INBOUND_OPEN };

struct inbound {
    struct chr_list link; /* lane->inbounds; oldest first */
    struct lane *lane;
    int fd;
    struct peers_stream stream;
    enum inbound_state state;
    bool loopback, proved, closing;
    char address[64];
    int64_t heard_us, due_us; /* due: proof */
    uint64_t node;
    struct peer_transcript transcript;
    struct account *account;  /* a reference, from OPEN on */
    struct chr_buf in;        /* the beginning of a packet */
    struct chr_buf out;       /* what the socket did not take */
    struct received *message; /* being put together; counted in the account */
    uint32_t raw, stored, got;
    uint8_t *packed;     /* stored < raw: what it is unpacked from */
    int64_t credited_us; /* when credits were last sent */
    struct pollfd *poll;
};

/* ---- Ends ---------------------------------------------------------------------------------------
 */

static void drop_partial(struct inbound *in)
{
    if (in->message) {
        peers__account_release(in->account, in->message->message.cost);
        peers__account_unref(in->message->account);
        free(in->message);
    }
    free(in->packed);
    in->message = NULL;
    in->packed = NULL;
}

static void inbound_free(struct inbound *in)
{
    drop_partial(in);
    chr_list_remove(&in->link);
    in->lane->unproved -= !in->proved;
    if (in->lane->scratch_owner == in)
        in->lane->scratch_owner = NULL;
    if (in->stream.ctx)
        in->stream.free(in->stream.ctx);
    close(in->fd);
    chr_buf_free(&in->in);
    chr_buf_free(&in->out);
    peers__account_unref(in->account);
    free(in);
}

/* Closed at the end of this turn's event. */
static void refuse(struct inbound *in, const char *reason)
{
    if (in->closing)
        return;
    in->closing = true;
    if (in->proved)
        chr_log_warning("peers", "a peer's connection is closed", CHR_KV_U("node", in->node),
                        CHR_KV_C("lane", peer_lane_name(in->lane->number)),
                        CHR_KV_C("address", in->address), CHR_KV_C("reason", reason));
    else
        peers__stranger(in->lane->peers, in->address, reason);
}

/* ---- Output -------------------------------------------------------------------------------------
 */

static ssize_t send_some(struct inbound *in)
{
    if (in->stream.ctx)
        return in->stream.send(in->stream.ctx, in->out.ptr, in->out.len);
    return send(in->fd, in->out.ptr, in->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void flush(struct inbound *in)
{
    while (in->out.len && !in->closing) {
        ssize_t n = send_some(in);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            in->closing = true;
            return;
        }
        chr_buf_consume(&in->out, (size_t)n);
    }
    if (in->out.len == 0 && in->out.capacity)
        chr_buf_free(&in->out);
}

static void add(struct inbound *in, const uint8_t *bytes, size_t len)
{
    chr_buf_add(&in->out, bytes, len);
    if (in->out.failed)
        refuse(in, "it does not read what it is sent");
}

static void publish(struct inbound *in, const char *last, const uint8_t *payload, size_t len)
{
    char topic[PEER_TOPIC_BYTES_MAX];
    uint8_t packet[256];
    peer_topic(in->node, in->lane->number, last, topic);
    struct mqtt_publish p = {.topic = chr_slice_cstr(topic),
                             .payload = chr_slice_of(payload, len),
                             .properties = mqtt_properties_none};
    size_t n = mqtt_encode_publish(packet, sizeof packet, MQTT_V311, &p);
    CHR_ASSERT(n > 0);
    add(in, packet, n);
}

/* A counter, not a difference: if one is not sent because the last has not left yet, the next says
 * it all. */
static void send_credit(struct inbound *in)
{
    struct account *a = in->account;
    uint64_t released = atomic_load_explicit(&a->released, memory_order_acquire);
    uint8_t bytes[PEER_CREDIT_BYTES];
    if (in->out.len)
        return;
    chr_put_u64le(bytes, released);
    publish(in, "credit", bytes, sizeof bytes);
    atomic_store_explicit(&a->credited, released, memory_order_release);
    in->credited_us = in->lane->now_us;
    flush(in);
}

/* ---- Before the proof ---------------------------------------------------------------------------
 */

static void handle_connect(struct inbound *in, const struct mqtt_frame *frame)
{
    struct peers *peers = in->lane->peers;
    struct mqtt_connect c;
    struct mqtt_fault fault;
    enum peers_lane lane;
    uint64_t node;
    c.properties = mqtt_properties_none;
    if (frame->type != MQTT_CONNECT || mqtt_decode_connect(frame, &c, &fault) ||
        !peer_client_id_parse(c.client_id, &lane, &node)) {
        refuse(in, "it does not begin as a peer does");
        return;
    }
    pthread_mutex_lock(&peers->lock);
    bool known = peers__slot(peers, node) != NULL;
    pthread_mutex_unlock(&peers->lock);
    if (!known || lane != in->lane->number || c.version != MQTT_V311 || c.has_will ||
        c.has_username || c.has_password) {
        refuse(in, known ? "its CONNECT is not a peer's" : "its node number is nobody's here");
        return;
    }
    in->node = node;
    in->state = INBOUND_SUBSCRIBE;
    uint8_t packet[16];
    struct mqtt_connack connack = {.properties = mqtt_properties_none};
    add(in, packet, mqtt_encode_connack(packet, sizeof packet, MQTT_V311, &connack));
}

static void handle_subscribe(struct inbound *in, const struct mqtt_frame *frame)
{
    struct mqtt_subscribe s;
    struct mqtt_subscription one;
    struct mqtt_fault fault;
    char filter[PEER_TOPIC_BYTES_MAX];
    peer_topic(in->node, in->lane->number, "#", filter);
    if (frame->type != MQTT_SUBSCRIBE || mqtt_decode_subscribe(frame, MQTT_V311, &s, &fault) ||
        s.filters_count != 1) {
        refuse(in, "it does not subscribe as a peer does");
        return;
    }
    struct mqtt_filter_iter it = {s.filters};
    if (!mqtt_subscribe_next(&it, &one) || !chr_slice_eq(one.filter, chr_slice_cstr(filter))) {
        refuse(in, "it subscribes to what is not its own");
        return;
    }
    uint8_t packet[16], code = 0, challenge[PEER_CHALLENGE_BYTES];
    struct mqtt_suback suback = {.packet_id = s.packet_id,
                                 .reason_codes = chr_slice_of(&code, 1),
                                 .properties = mqtt_properties_none};
    add(in, packet, mqtt_encode_suback(packet, sizeof packet, MQTT_V311, &suback));
    in->transcript = (struct peer_transcript){
        .connecting = in->node, .accepting = in->lane->peers->self, .lane = in->lane->number};
    chr_random_bytes(in->transcript.accepting_nonce, PEER_NONCE_BYTES);
    peer_challenge_encode(in->transcript.accepting_nonce, challenge);
    publish(in, "challenge", challenge, sizeof challenge);
    in->state = INBOUND_PROOF;
}

/* Of the same peer, from before: what it had begun will not be finished. */
static void close_older(struct inbound *in)
{
    CHR_LIST_FOR_SAFE (at, next, &in->lane->inbounds) {
        struct inbound *other = CHR_CONTAINER_OF(at, struct inbound, link);
        if (other != in && other->state == INBOUND_OPEN && other->node == in->node) {
            drop_partial(other);
            other->closing = true;
        }
    }
}

static bool decode_publish(struct inbound *in, const struct mqtt_frame *frame, const char *last,
                           chr_slice *payload)
{
    struct mqtt_publish p;
    struct mqtt_fault fault;
    char topic[PEER_TOPIC_BYTES_MAX];
    peer_topic(in->lane->peers->self, in->lane->number, last, topic);
    if (mqtt_decode_publish(frame, MQTT_V311, &p, &fault) || p.qos || p.retain ||
        !chr_slice_eq(p.topic, chr_slice_cstr(topic)))
        return false;
    *payload = p.payload;
    return true;
}

static void handle_proof(struct inbound *in, const struct mqtt_frame *frame)
{
    struct peers *peers = in->lane->peers;
    struct peer_proof proof;
    chr_slice payload;
    if (frame->type != MQTT_PUBLISH || !decode_publish(in, frame, "proof", &payload) ||
        peer_proof_decode(payload, &proof)) {
        refuse(in, "its proof is malformed");
        return;
    }
    memcpy(in->transcript.connecting_nonce, proof.nonce, PEER_NONCE_BYTES);
    if (proof.from != in->node || proof.to != peers->self || proof.lane != in->lane->number) {
        refuse(in, "its proof is for another connection");
        return;
    }
    if (!peer_mac_right(peers__secret(peers), &in->transcript, NULL, proof.mac)) {
        refuse(in, "it does not know the cluster secret");
        return;
    }
    pthread_mutex_lock(&peers->lock);
    struct slot *s = peers__slot(peers, in->node);
    struct account *a = s ? s->links[in->lane->number].account : NULL;
    if (a)
        atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&peers->lock);
    if (!a) {
        refuse(in, "its node number is nobody's here");
        return;
    }
    in->account = a;
    in->proved = true;
    in->lane->unproved--;
    in->state = INBOUND_OPEN;
    close_older(in);
    struct peer_terms terms = {.window = a->window,
                               .received = a->received,
                               .released =
                                   atomic_load_explicit(&a->released, memory_order_acquire)};
    atomic_store_explicit(&a->credited, terms.released, memory_order_release);
    in->credited_us = in->lane->now_us;
    uint8_t mac[PEER_MAC_BYTES], accepted[PEER_ACCEPTED_BYTES];
    if (!peer_mac(peers__secret(peers), &in->transcript, &terms, mac)) {
        refuse(in, "can't compute a proof");
        return;
    }
    peer_accepted_encode(&terms, mac, accepted);
    publish(in, "accepted", accepted, sizeof accepted);
    peers__link_hurry(&s->links[in->lane->number]);
}

/* ---- Frames -------------------------------------------------------------------------------------
 */

static const char *begin_message(struct inbound *in, const struct peer_frame *f)
{
    struct account *a = in->account;
    uint64_t cost = peer_cost(f->raw);
    uint64_t outstanding = a->received - atomic_load_explicit(&a->credited, memory_order_relaxed);
    if (cost > a->window || outstanding > a->window - cost) /* keeps L4 */
        return "it sends more than its window allows";
    if (f->stored < f->raw && in->lane->number != PEERS_BULK)
        return "it compresses what it should not";
    struct received *r = malloc(sizeof *r + f->raw);
    in->packed = f->stored < f->raw && r ? malloc(f->stored) : NULL;
    if (!r || (f->stored < f->raw && !in->packed)) {
        free(r);
        return "out of memory";
    }
    r->message = (struct peers_message){.from = in->node,
                                        .lane = in->lane->number,
                                        .kind = f->kind,
                                        .bytes = chr_slice_of(r->bytes, f->raw),
                                        .cost = (size_t)cost};
    r->account = a;
    atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
    a->received += cost;
    in->message = r;
    in->raw = f->raw;
    in->stored = f->stored;
    in->got = 0;
    return NULL;
}

static const char *take_frame(struct inbound *in, const struct peer_frame *f)
{
    if (f->more != (in->message != NULL))
        return f->more ? "a part of a message that did not begin" : "a message does not end";
    const char *fault = NULL;
    if (!f->more)
        fault = begin_message(in, f);
    else if (f->raw != in->raw || f->stored != in->stored || f->kind != in->message->message.kind)
        fault = "a part of another message";
    if (fault)
        return fault;
    if (f->body.len > in->stored - in->got)
        return "a message is longer than it said";
    if (f->body.len)
        memcpy((in->packed ? in->packed : in->message->bytes) + in->got, f->body.ptr, f->body.len);
    in->got += (uint32_t)f->body.len;
    if (in->got < in->stored)
        return NULL;
    struct received *r = in->message;
    if (in->packed && LZ4_decompress_safe((const char *)in->packed, (char *)r->bytes,
                                          (int)in->stored, (int)in->raw) != (int)in->raw)
        return "a message does not unpack";
    free(in->packed);
    in->packed = NULL;
    in->message = NULL;
    struct account *a = in->account;
    atomic_fetch_add_explicit(&a->messages, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&a->bytes, in->raw, memory_order_relaxed);
    in->lane->peers->received(in->lane->peers->ctx, &r->message);
    return NULL;
}

static void handle_frames(struct inbound *in, const struct mqtt_frame *frame)
{
    chr_slice rest;
    struct peer_frame f;
    const char *fault = NULL;
    if (!decode_publish(in, frame, "m", &rest) || rest.len == 0) {
        refuse(in, "it publishes what a peer does not");
        return;
    }
    while (rest.len && !fault) {
        fault = peer_frame_next(&rest, &f) ? "a frame is malformed" : take_frame(in, &f);
        if (!fault && rest.len && in->message)
            fault = "a message is interrupted";
    }
    if (fault)
        refuse(in, fault);
}

static void handle_open(struct inbound *in, const struct mqtt_frame *frame)
{
    uint8_t packet[2];
    if (frame->type == MQTT_PUBLISH)
        handle_frames(in, frame);
    else if (frame->type == MQTT_PINGREQ)
        add(in, packet, mqtt_encode_pingresp(packet));
    else if (frame->type == MQTT_DISCONNECT)
        in->closing = true;
    else
        refuse(in, "it sends what a peer does not");
}

/* ---- Input --------------------------------------------------------------------------------------
 */

static void keep(struct inbound *in, chr_slice rest)
{
    chr_buf_reset(&in->in);
    if (rest.len == 0 && in->in.capacity)
        chr_buf_free(&in->in);
    chr_buf_add_slice(&in->in, rest);
    if (in->in.failed)
        refuse(in, "out of memory");
}

/* The scratch is this connection's now, what was left over of it at its beginning. */
static void take_scratch(struct inbound *in)
{
    struct lane *lane = in->lane;
    struct inbound *other = lane->scratch_owner;
    if (other == in)
        return;
    if (other)
        keep(other, chr_slice_of(lane->scratch + lane->scratch_from,
                                 lane->scratch_to - lane->scratch_from));
    lane->scratch_owner = in;
    lane->scratch_from = 0;
    lane->scratch_to = in->in.len;
    if (in->in.len)
        memcpy(lane->scratch, in->in.ptr, in->in.len);
    chr_buf_free(&in->in);
}

/* Returns how many bytes were whole packets. */
static size_t take_packets(struct inbound *in, chr_slice bytes)
{
    size_t used = 0;
    while (used < bytes.len && !in->closing) {
        struct mqtt_frame frame;
        uint32_t max = in->proved ? (uint32_t)PEER_PACKET_BYTES_MAX : UNPROVED_PACKET_BYTES_MAX;
        int n = mqtt_frame(chr_slice_of(bytes.ptr + used, bytes.len - used), max, &frame);
        if (n == 0)
            break;
        if (n < 0) {
            refuse(in, n == CHR_ETOOBIG ? "a packet is too large" : "not an MQTT packet");
            break;
        }
        used += (size_t)n;
        switch (in->state) {
        case INBOUND_CONNECT:
            handle_connect(in, &frame);
            break;
        case INBOUND_SUBSCRIBE:
            handle_subscribe(in, &frame);
            break;
        case INBOUND_PROOF:
            handle_proof(in, &frame);
            break;
        case INBOUND_OPEN:
            handle_open(in, &frame);
            break;
        }
    }
    return used;
}

static ssize_t receive_some(struct inbound *in, uint8_t *bytes, size_t n)
{
    if (in->stream.ctx)
        return in->stream.receive(in->stream.ctx, bytes, n);
    return recv(in->fd, bytes, n, MSG_DONTWAIT);
}

/* False: there is nothing more now. */
static bool read_once(struct inbound *in)
{
    struct lane *lane = in->lane;
    take_scratch(in);
    size_t held = lane->scratch_to - lane->scratch_from;
    CHR_ASSERT(held <= PEER_PACKET_BYTES_MAX);
    if (LANE_SCRATCH_BYTES - lane->scratch_to < PEER_PACKET_BYTES_MAX) {
        memmove(lane->scratch, lane->scratch + lane->scratch_from, held);
        lane->scratch_from = 0;
        lane->scratch_to = held;
    }
    ssize_t n =
        receive_some(in, lane->scratch + lane->scratch_to, LANE_SCRATCH_BYTES - lane->scratch_to);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return false;
    if (n <= 0) {
        if (in->proved)
            in->closing = true;
        else
            refuse(in, "it left without a proof");
        return false;
    }
    in->heard_us = lane->now_us;
    lane->scratch_to += (size_t)n;
    lane->scratch_from +=
        take_packets(in, chr_slice_of(lane->scratch + lane->scratch_from, held + (size_t)n));
    if (lane->scratch_from == lane->scratch_to)
        lane->scratch_from = lane->scratch_to = 0;
    flush(in);
    return true;
}

/* What a stream holds inside poll does not know of, so it is read to its end. */
static void read_more(struct inbound *in)
{
    while (read_once(in) && in->stream.ctx && !in->closing) {
    }
}

/* ---- For the lane -------------------------------------------------------------------------------
 */

void peers__inbound_open(struct lane *lane, struct letter *letter)
{
    struct inbound *in = calloc(1, sizeof *in);
    if (!in) {
        if (letter->stream.ctx)
            letter->stream.free(letter->stream.ctx);
        close(letter->fd);
        free(letter);
        return;
    }
    in->lane = lane;
    in->fd = letter->fd;
    in->stream = letter->stream;
    in->heard_us = lane->now_us;
    in->due_us = lane->now_us + PEERS_PROOF_US;
    peers__address_of(in->fd, in->address, sizeof in->address, &in->loopback);
    chr_buf_init(&in->in, LANE_SCRATCH_BYTES);
    chr_buf_init(&in->out, OUT_BYTES_MAX);
    /* Whoever proves itself does so at once: those that waited longest do not mean to. */
    if (lane->unproved >= PEERS_UNPROVED_MAX) {
        CHR_LIST_FOR (at, &lane->inbounds) {
            struct inbound *oldest = CHR_CONTAINER_OF(at, struct inbound, link);
            if (!oldest->proved) {
                refuse(oldest, "too many connections that want to be a peer's");
                inbound_free(oldest);
                break;
            }
        }
    }
    lane->unproved++;
    chr_list_push_back(&lane->inbounds, &in->link);
    size_t used = take_packets(in, chr_slice_of(letter->bytes, letter->len));
    if (!in->closing)
        keep(in, chr_slice_of(letter->bytes + used, letter->len - used));
    flush(in);
    free(letter);
    if (in->stream.ctx && !in->closing)
        read_more(in);
}

/* Its peer is one still, and is who it was. */
static bool still_wanted(struct inbound *in)
{
    struct peers *peers = in->lane->peers;
    pthread_mutex_lock(&peers->lock);
    const struct slot *s = peers__slot(peers, in->node);
    bool wanted = s && s->links[in->lane->number].account == in->account;
    pthread_mutex_unlock(&peers->lock);
    return wanted;
}

static uint64_t owed(const struct inbound *in)
{
    return atomic_load_explicit(&in->account->released, memory_order_acquire) -
           atomic_load_explicit(&in->account->credited, memory_order_relaxed);
}

void peers__inbounds_turn(struct lane *lane)
{
    CHR_LIST_FOR_SAFE (at, next, &lane->inbounds) {
        struct inbound *in = CHR_CONTAINER_OF(at, struct inbound, link);
        if (in->state != INBOUND_OPEN && lane->now_us >= in->due_us)
            refuse(in, "it does not prove itself");
        else if (in->state == INBOUND_OPEN && lane->now_us - in->heard_us >= PEERS_SILENCE_US)
            refuse(in, "it is silent");
        else if (in->state == INBOUND_OPEN && !still_wanted(in))
            in->closing = true;
        if (!in->closing && in->state == INBOUND_OPEN) {
            uint64_t bytes = owed(in);
            if (bytes >= in->account->window / 8 ||
                (bytes && lane->now_us - in->credited_us >= CREDIT_US))
                send_credit(in);
        }
        if (in->closing)
            inbound_free(in);
    }
}

void peers__inbounds_due(const struct lane *lane, int64_t *until_us)
{
    CHR_LIST_FOR (at, &lane->inbounds) {
        const struct inbound *in = CHR_CONTAINER_OF(at, struct inbound, link);
        int64_t due_us = in->due_us;
        if (in->state == INBOUND_OPEN) {
            bool outstanding = in->account->received !=
                               atomic_load_explicit(&in->account->credited, memory_order_relaxed);
            due_us = in->heard_us + PEERS_SILENCE_US;
            if (outstanding) /* whoever releases a little of it does not wake us */
                due_us = CHR_MIN(due_us, lane->now_us + CREDIT_US);
        }
        *until_us = CHR_MIN(*until_us, due_us);
    }
}

size_t peers__inbounds_poll(struct lane *lane, struct pollfd *polls)
{
    size_t count = 0;
    CHR_LIST_FOR (at, &lane->inbounds) {
        struct inbound *in = CHR_CONTAINER_OF(at, struct inbound, link);
        in->poll = &polls[count++];
        *in->poll = (struct pollfd){.fd = in->fd, .events = POLLIN};
        if (in->out.len)
            in->poll->events |= POLLOUT;
    }
    return count;
}

void peers__inbounds_events(struct lane *lane)
{
    CHR_LIST_FOR_SAFE (at, next, &lane->inbounds) {
        struct inbound *in = CHR_CONTAINER_OF(at, struct inbound, link);
        short events = in->poll ? in->poll->revents : 0;
        if ((events & POLLOUT) && !in->closing)
            flush(in);
        if ((events & (POLLIN | POLLHUP | POLLERR)) && !in->closing)
            read_more(in);
    }
    CHR_LIST_FOR_SAFE (at, next, &lane->inbounds) {
        struct inbound *in = CHR_CONTAINER_OF(at, struct inbound, link);
        if (in->closing)
            inbound_free(in);
    }
}

void peers__inbounds_stop(struct lane *lane)
{
    while (!chr_list_empty(&lane->inbounds))
        inbound_free(CHR_CONTAINER_OF(lane->inbounds.next, struct inbound, link));
}
