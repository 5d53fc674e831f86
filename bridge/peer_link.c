/* bridge/peer_link.c: our connection to a peer on one lane: an MQTT client of its port.
 *
 *     IDLE ─due─▶ RESOLVING ─▶ CONNECTING ─CONNACK─▶ PROVING ─accepted─▶ UP
 *      ▲              │             │                   │                 │
 *      └── back-off ──┴─────────────┴───── 5 s, error ──┴── error, cut ───┘
 *
 * libmosquitto is driven by hand: this thread polls its socket and calls loop_read, loop_write and
 * loop_misc. It writes each packet at once and keeps only what the kernel did not take; a link
 * hands it the next packet only when it keeps nothing, so its unbounded queue never holds more than
 * one (T1). Its callbacks only note what happened: tearing down is done outside of them. */
#include <errno.h>
#include <lz4.h>
#include <mosquitto.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "bridge/peer_lookup.h"
#include "bridge/peer_tls.h"
#include "bridge/peers_internal.h"

#define BACKOFF_US_MIN INT64_C(50000)
#define BACKOFF_US_MAX INT64_C(2000000)
/* How often libmosquitto's timers are looked at; they count seconds. */
#define MISC_US INT64_C(1000000)
/* How often a link that waits for a name looks whether it is there. */
#define LOOKUP_US INT64_C(20000)
/* Handed over in one turn: then it is the others' turn. */
#define TURN_BYTES_MAX ((size_t)1 << 20)
/* From here on a message is sent from where it is; smaller ones are packed into one packet of at
 * most PEERS_PACK_BYTES_MAX: a system call for each would cost more than the copy. */
#define ALONE_BYTES ((size_t)16 << 10)
/* Less is not worth the call; more than so many messages are not left untried. */
#define LZ4_BYTES_MIN 512u
#define LZ4_SKIP_MAX  16u

static void down(struct link *l);

/* ---- Failing ------------------------------------------------------------------------------------
 */

static void pause_then_retry(struct link *l)
{
    int64_t pause_us = l->backoff_us ? l->backoff_us : BACKOFF_US_MIN;
    l->backoff_us = CHR_MIN(pause_us * 2, BACKOFF_US_MAX);
    /* Nodes that lost each other at the same moment do not all come back at the same moment. */
    l->due_us = l->lane->now_us + pause_us / 2 +
                (int64_t)chr_random_below(&l->lane->random, (uint64_t)pause_us / 2 + 1);
    l->state = LINK_IDLE;
}

void peers__link_hurry(struct link *l)
{
    if (l->state == LINK_IDLE && l->due_us > l->lane->now_us)
        l->due_us = l->lane->now_us;
}

/* Not in a callback of libmosquitto. */
static void fail(struct link *l, const char *why)
{
    bool was_up = l->state == LINK_UP;
    down(l);
    if (was_up || !l->told || strcmp(l->told, why) != 0) /* once, not at each try */
        chr_log_notice("peers", was_up ? "connection to a peer ended" : "can't reach a peer",
                       CHR_KV_U("node", l->slot->node),
                       CHR_KV_C("lane", peer_lane_name(l->lane->number)), CHR_KV_C("reason", why));
    l->told = why;
    pause_then_retry(l);
}

static void free_list(struct outgoing *o)
{
    while (o) {
        struct outgoing *next = o->next;
        free(o);
        o = next;
    }
}

/* Everything but the back-off: as if it had never been connected. */
static void down(struct link *l)
{
    struct peers *peers = l->lane->peers;
    bool was_up = l->state == LINK_UP;
    if (l->mosq)
        mosquitto_destroy(l->mosq);
    l->mosq = NULL;
    l->failure = NULL;
    pthread_mutex_lock(&peers->lock);
    uint64_t node = l->slot->node;
    struct outgoing *queue = l->first;
    l->first = l->last = NULL;
    l->up = l->starved = false;
    l->starved_cost = 0;
    l->sent = l->released = 0;
    pthread_mutex_unlock(&peers->lock);
    free_list(queue);
    free_list(l->taken);
    l->taken = NULL;
    l->taken_sent = 0;
    l->state = LINK_IDLE;
    if (was_up)
        peers->changed(peers->ctx, node, l->lane->number, false);
}

void peers__link_stop(struct link *l)
{
    /* No callback when everything stops: peers_stop's caller knows. */
    if (atomic_load(&l->lane->stopping) && l->state == LINK_UP)
        l->state = LINK_PROVING;
    down(l);
    peer_lookup_forget(l->lookup);
    l->lookup = NULL;
    l->backoff_us = 0;
    l->due_us = 0;
    l->told = NULL;
}

/* ---- Callbacks of libmosquitto ------------------------------------------------------------------
 */

static void on_connect(struct mosquitto *mosq, void *arg, int code)
{
    struct link *l = arg;
    char filter[PEER_TOPIC_BYTES_MAX];
    if (code) {
        l->failure = "it refuses us";
        return;
    }
    l->state = LINK_PROVING;
    peer_topic(l->lane->peers->self, l->lane->number, "#", filter);
    if (mosquitto_subscribe(mosq, NULL, filter, 0))
        l->failure = "can't subscribe";
}

static void on_disconnect(struct mosquitto *mosq, void *arg, int code)
{
    struct link *l = arg;
    (void)mosq;
    if (!l->failure)
        l->failure = code == MOSQ_ERR_KEEPALIVE ? "it does not answer pings" : "connection closed";
}

static const char *answer_challenge(struct link *l, chr_slice bytes)
{
    struct peers *peers = l->lane->peers;
    struct peer_transcript *t = &l->transcript;
    uint8_t packet[PEER_PROOF_BYTES];
    char topic[PEER_TOPIC_BYTES_MAX];
    if (l->state != LINK_PROVING || peer_challenge_decode(bytes, t->accepting_nonce))
        return "its challenge is malformed";
    struct peer_proof proof = {.from = t->connecting, .to = t->accepting, .lane = l->lane->number};
    memcpy(proof.nonce, t->connecting_nonce, sizeof proof.nonce);
    if (!peer_mac(peers__secret(peers), t, NULL, proof.mac))
        return "can't compute a proof";
    peer_proof_encode(&proof, packet);
    peer_topic(t->accepting, l->lane->number, "proof", topic);
    return mosquitto_publish(l->mosq, NULL, topic, sizeof packet, packet, 0, false)
               ? "can't publish"
               : NULL;
}

static bool wants_lz4(const struct link *l)
{
    const struct peers *peers = l->lane->peers;
    char address[64];
    bool loopback;
    if (l->lane->number != PEERS_BULK || peers->compress == PEERS_COMPRESS_NEVER)
        return false;
    peers__address_of(mosquitto_socket(l->mosq), address, sizeof address, &loopback);
    return peers->compress == PEERS_COMPRESS_ALWAYS || !loopback;
}

/* The other side has proved itself, too: the link is up. */
static const char *take_terms(struct link *l, chr_slice bytes)
{
    struct peers *peers = l->lane->peers;
    struct peer_terms terms;
    uint8_t mac[PEER_MAC_BYTES];
    if (l->state != LINK_PROVING || peer_accepted_decode(bytes, &terms, mac))
        return "its acceptance is malformed";
    if (!peer_mac_right(peers__secret(peers), &l->transcript, &terms, mac))
        return "it does not know the cluster secret";
    l->state = LINK_UP;
    l->backoff_us = 0;
    l->told = NULL;
    l->lz4 = wants_lz4(l);
    atomic_fetch_add_explicit(&l->connects, 1, memory_order_relaxed);
    pthread_mutex_lock(&peers->lock);
    l->window = CHR_MIN(peers->window, terms.window);
    l->sent = terms.received;
    l->released = terms.released;
    l->up = true;
    pthread_mutex_unlock(&peers->lock);
    chr_log_info("peers", "connected to a peer", CHR_KV_U("node", l->transcript.accepting),
                 CHR_KV_C("lane", peer_lane_name(l->lane->number)));
    peers->changed(peers->ctx, l->transcript.accepting, l->lane->number, true);
    return NULL;
}

static const char *take_credit(struct link *l, chr_slice bytes)
{
    struct peers *peers = l->lane->peers;
    uint64_t released;
    if (l->state != LINK_UP || peer_credit_decode(bytes, &released))
        return "its credit is malformed";
    pthread_mutex_lock(&peers->lock);
    bool wrong = released < l->released || released > l->sent;
    bool room = false;
    if (!wrong) {
        l->released = released;
        uint64_t outstanding = l->sent - released;
        room = l->starved && (outstanding == 0 || (outstanding <= l->window &&
                                                   l->window - outstanding >= l->starved_cost));
        if (room) {
            l->starved = false;
            l->starved_cost = 0;
        }
    }
    pthread_mutex_unlock(&peers->lock);
    if (room)
        peers->writable(peers->ctx, l->transcript.accepting, l->lane->number);
    return wrong ? "it gives back what it was not sent" : NULL;
}

static void on_message(struct mosquitto *mosq, void *arg, const struct mosquitto_message *message)
{
    struct link *l = arg;
    (void)mosq;
    if (l->failure)
        return;
    chr_slice bytes = chr_slice_of(message->payload, (size_t)message->payloadlen);
    const char *last = strrchr(message->topic, '/');
    if (last && strcmp(last, "/credit") == 0)
        l->failure = take_credit(l, bytes);
    else if (last && strcmp(last, "/challenge") == 0)
        l->failure = answer_challenge(l, bytes);
    else if (last && strcmp(last, "/accepted") == 0)
        l->failure = take_terms(l, bytes);
    else
        l->failure = "it publishes what was not asked for";
}

/* ---- Connecting ---------------------------------------------------------------------------------
 */

/* NULL: done; else what is wrong. */
static const char *configure_tls(struct link *l, const char *host)
{
    const struct peers *peers = l->lane->peers;
    const char *why;
    if (!peers->cafile)
        return NULL;
    l->tls_fault = NULL;
    SSL_CTX *ctx =
        peer_tls_context(peers->cafile, peers->certfile, peers->keyfile, host, &l->tls_fault, &why);
    if (!ctx)
        return why;
    int code = mosquitto_void_option(l->mosq, MOSQ_OPT_SSL_CTX, ctx); /* takes a reference */
    SSL_CTX_free(ctx);
    if (code == MOSQ_ERR_SUCCESS) /* the context is whole */
        code = mosquitto_int_option(l->mosq, MOSQ_OPT_SSL_CTX_WITH_DEFAULTS, 0);
    return code == MOSQ_ERR_SUCCESS ? NULL : "libmosquitto has no TLS";
}

static const char *configure(struct link *l, const char *host)
{
    if (mosquitto_int_option(l->mosq, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V311) ||
        mosquitto_int_option(l->mosq, MOSQ_OPT_TCP_NODELAY, 1))
        return "out of memory";
    mosquitto_connect_callback_set(l->mosq, on_connect);
    mosquitto_disconnect_callback_set(l->mosq, on_disconnect);
    mosquitto_message_callback_set(l->mosq, on_message);
    return configure_tls(l, host);
}

/* host: what the peer's certificate has to name. */
static void connect_to(struct link *l, uint64_t node, const char *host, const char *address,
                       uint16_t port)
{
    struct peers *peers = l->lane->peers;
    char id[PEER_CLIENT_ID_BYTES_MAX];
    l->transcript = (struct peer_transcript){
        .connecting = peers->self, .accepting = node, .lane = l->lane->number};
    chr_random_bytes(l->transcript.connecting_nonce, PEER_NONCE_BYTES);
    peer_topic(node, l->lane->number, "m", l->topic);
    peer_client_id(l->lane->number, peers->self, id);
    l->mosq = mosquitto_new(id, true, l);
    const char *why = l->mosq ? configure(l, host) : "out of memory";
    if (why) {
        fail(l, why);
        return;
    }
    l->state = LINK_CONNECTING;
    l->due_us = l->lane->now_us + PEERS_PROOF_US;
    l->misc_us = l->lane->now_us;
    int code = mosquitto_connect_async(l->mosq, address, port, PEERS_KEEPALIVE_S);
    if (code != MOSQ_ERR_SUCCESS)
        fail(l, code == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(code));
}

static void begin(struct link *l)
{
    struct peers *peers = l->lane->peers;
    char host[sizeof l->slot->host];
    pthread_mutex_lock(&peers->lock);
    uint64_t node = l->slot->node;
    uint16_t port = l->slot->port;
    memcpy(host, l->slot->host, sizeof host);
    pthread_mutex_unlock(&peers->lock);
    if (peer_address_literal(host)) {
        connect_to(l, node, host, host, port);
        return;
    }
    if (l->lookup && !peer_lookup_pending(l->lookup)) {
        const char *address = peer_lookup_next(l->lookup);
        if (address) {
            connect_to(l, node, host, address, port);
            return;
        }
        peer_lookup_forget(l->lookup); /* all were tried, or there was none */
        l->lookup = NULL;
        if (l->state == LINK_RESOLVING) {
            fail(l, "its host name has no address");
            return;
        }
    }
    if (!l->lookup)
        l->lookup = peer_lookup_begin(host);
    if (l->lookup)
        l->state = LINK_RESOLVING;
    else
        fail(l, "can't look up its host name");
}

/* ---- Sending ------------------------------------------------------------------------------------
 */

/* Into less than nine tenths, or not at all. What did not get smaller is not tried again for some
 * messages: readings that are compressed already come in rows. */
static struct outgoing *compress(struct link *l, struct outgoing *o)
{
    if (!l->lz4 || o->raw < LZ4_BYTES_MIN)
        return o;
    if (l->lz4_pause) {
        l->lz4_pause--;
        return o;
    }
    size_t room = o->raw - o->raw / 10;
    struct outgoing *packed = malloc(sizeof *packed + PEER_FRAME_HEAD_BYTES + room);
    int n = packed ? LZ4_compress_default((const char *)o->bytes + PEER_FRAME_HEAD_BYTES,
                                          (char *)packed->bytes + PEER_FRAME_HEAD_BYTES,
                                          (int)o->raw, (int)room)
                   : 0;
    if (n <= 0) {
        free(packed);
        l->lz4_skip = CHR_MIN(l->lz4_skip ? l->lz4_skip * 2 : 1, LZ4_SKIP_MAX);
        l->lz4_pause = l->lz4_skip;
        return o;
    }
    l->lz4_skip = 0;
    packed->next = o->next;
    packed->raw = o->raw;
    packed->stored = (uint32_t)n;
    packed->kind = o->kind;
    free(o);
    return packed;
}

static struct outgoing *next_outgoing(struct link *l)
{
    if (l->taken)
        return l->taken;
    pthread_mutex_lock(&l->lane->peers->lock);
    l->taken = l->first;
    l->first = l->last = NULL;
    pthread_mutex_unlock(&l->lane->peers->lock);
    if (l->taken)
        l->taken = compress(l, l->taken);
    return l->taken;
}

static void drop_first(struct link *l)
{
    struct outgoing *o = l->taken;
    l->taken = o->next;
    l->taken_sent = 0;
    free(o);
    if (l->taken)
        l->taken = compress(l, l->taken);
}

static bool publish(struct link *l, const uint8_t *payload, size_t len)
{
    int code = mosquitto_publish(l->mosq, NULL, l->topic, (int)len, payload, 0, false);
    if (code && !l->failure)
        l->failure = code == MOSQ_ERR_ERRNO ? strerror(errno) : mosquitto_strerror(code);
    atomic_fetch_add_explicit(&l->wire_bytes_sent, len, memory_order_relaxed);
    return code == 0;
}

/* The next part of the first message. Its frame's head stands before the part, on bytes that were
 * sent already (or on the room before the first). */
static size_t send_part(struct link *l)
{
    struct outgoing *o = l->taken;
    size_t part =
        CHR_MIN(o->stored - l->taken_sent, PEER_PAYLOAD_BYTES_MAX - PEER_FRAME_HEAD_BYTES);
    uint8_t *at = o->bytes + l->taken_sent;
    struct peer_frame frame = {
        .raw = o->raw, .stored = o->stored, .kind = o->kind, .more = l->taken_sent > 0};
    peer_frame_head(&frame, (uint32_t)part, at);
    if (!publish(l, at, PEER_FRAME_HEAD_BYTES + part))
        return 0;
    l->taken_sent += part;
    if (l->taken_sent == o->stored)
        drop_first(l);
    return part;
}

/* Several small messages. */
static size_t send_packed(struct link *l)
{
    uint8_t *at = l->lane->pack;
    size_t len = 0;
    for (struct outgoing *o; (o = next_outgoing(l)) != NULL; drop_first(l)) {
        size_t whole = PEER_FRAME_HEAD_BYTES + o->stored;
        if (o->stored >= ALONE_BYTES || len + whole > PEERS_PACK_BYTES_MAX)
            break;
        struct peer_frame frame = {.raw = o->raw, .stored = o->stored, .kind = o->kind};
        peer_frame_head(&frame, o->stored, o->bytes);
        memcpy(at + len, o->bytes, whole);
        len += whole;
    }
    return publish(l, at, len) ? len : 0;
}

/* True: there is more, and the socket takes it. */
static bool pump(struct link *l)
{
    size_t sent = 0;
    while (sent < TURN_BYTES_MAX && !l->failure) {
        if (mosquitto_want_write(l->mosq))
            return false;
        struct outgoing *o = next_outgoing(l);
        if (!o)
            return false;
        sent += o->stored >= ALONE_BYTES ? send_part(l) : send_packed(l);
    }
    return !l->failure;
}

/* ---- Turns --------------------------------------------------------------------------------------
 */

static void misc(struct link *l)
{
    if (l->lane->now_us - l->misc_us < MISC_US)
        return;
    l->misc_us = l->lane->now_us;
    int code = mosquitto_loop_misc(l->mosq); /* pings */
    if (code && !l->failure)
        l->failure = mosquitto_strerror(code);
}

static bool take_change(struct link *l)
{
    pthread_mutex_lock(&l->lane->peers->lock);
    bool changed = l->changed;
    l->changed = false;
    pthread_mutex_unlock(&l->lane->peers->lock);
    return changed;
}

bool peers__link_turn(struct link *l)
{
    if (take_change(l))
        peers__link_stop(l);
    if (l->failure)
        fail(l, l->failure);
    if (l->state == LINK_IDLE && l->lane->now_us < l->due_us)
        return false;
    if (l->state == LINK_IDLE || l->state == LINK_RESOLVING)
        begin(l);
    if (l->state == LINK_IDLE || l->state == LINK_RESOLVING)
        return false;
    if (l->state != LINK_UP && l->lane->now_us >= l->due_us) {
        fail(l, l->state == LINK_CONNECTING ? "it does not answer" : "it does not prove itself");
        return false;
    }
    misc(l);
    bool more = l->state == LINK_UP && !l->failure && pump(l);
    if (l->failure) {
        fail(l, l->failure);
        return false;
    }
    return more;
}

void peers__link_due(const struct link *l, int64_t *until_us)
{
    int64_t due_us = INT64_MAX;
    switch (l->state) {
    case LINK_IDLE:
        due_us = l->due_us ? l->due_us : INT64_MAX; /* 0: not used, or its turn is now */
        break;
    case LINK_RESOLVING:
        due_us = l->lane->now_us + LOOKUP_US;
        break;
    case LINK_CONNECTING:
    case LINK_PROVING:
        due_us = l->due_us;
        break;
    case LINK_UP:
        due_us = l->misc_us + MISC_US;
        break;
    }
    *until_us = CHR_MIN(*until_us, due_us);
}

bool peers__link_poll(struct link *l, struct pollfd *poll)
{
    int fd = l->mosq ? mosquitto_socket(l->mosq) : -1;
    if (fd < 0)
        return false;
    *poll = (struct pollfd){.fd = fd, .events = POLLIN};
    /* While TLS shakes hands libmosquitto goes on wanting to write what it has written. */
    SSL *ssl = mosquitto_ssl_get(l->mosq);
    bool out =
        ssl && !SSL_is_init_finished(ssl) ? SSL_want_write(ssl) : mosquitto_want_write(l->mosq);
    if (out)
        poll->events |= POLLOUT;
    return true;
}

/* Of which poll knows nothing. */
static bool tls_holds_bytes(const struct link *l)
{
    SSL *ssl = l->mosq ? mosquitto_ssl_get(l->mosq) : NULL;
    return ssl && SSL_pending(ssl) > 0;
}

void peers__link_event(struct link *l, short events)
{
    if (l->state == LINK_CONNECTING && (events & (POLLERR | POLLHUP))) {
        int error = 0;
        socklen_t len = sizeof error;
        (void)getsockopt(mosquitto_socket(l->mosq), SOL_SOCKET, SO_ERROR, &error, &len);
        bool tls = mosquitto_ssl_get(l->mosq) != NULL; /* whose handshake takes no notice of it */
        if (error || tls) {
            fail(l, error ? strerror(error) : "it ended the connection");
            return;
        }
    }
    int code = 0;
    if (events & POLLOUT)
        code = mosquitto_loop_write(l->mosq, 1);
    if (code == 0 && (events & (POLLIN | POLLERR | POLLHUP)))
        do
            code = mosquitto_loop_read(l->mosq, 1);
        while (code == 0 && !l->failure && tls_holds_bytes(l));
    if (code && !l->failure)
        l->failure = l->tls_fault ? l->tls_fault : mosquitto_strerror(code);
    if (l->failure)
        fail(l, l->failure);
}
