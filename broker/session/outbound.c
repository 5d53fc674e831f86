/* broker/session/outbound.c: messages towards one client: send, wait, repeat, drop. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/net/loop.h"
#include "broker/node.h"
#include "broker/session/encoded.h"
#include "broker/session/internal.h"
#include "broker/session/sent_aliases.h"
#include "broker/session/session.h"
#include "broker/session/stored.h"
#include "db/durable.h"
#include "proto/mqtt/encode.h"

/* From this size on a payload is not copied per recipient: about where a copy costs more than the
 * bookkeeping of a reference. */
#define SHARED_PAYLOAD_BYTES 4096u
/* Waiting messages are sent while less than this is unsent: enough to keep a socket busy. (Of all
 * such bounds: at most a quarter of max_output_bytes.) */
#define PUMP_OUTPUT_BYTES (512u << 10)
/* Fresh messages of QoS 1 and 2, and those whose maker waits, go to the queue rather than have more
 * than this unsent. */
#define LIVE_OUTPUT_BYTES (4u << 20)
/* When all sockets together have more unsent than max_output_total, each may have this at least. */
#define FAIR_OUTPUT_BYTES_MIN UINT64_C(16384)
/* Head of a PUBLISH that is built on the stack. */
#define HEAD_STACK_BYTES 2048u
#define PACKET_IDS       65535u
#define RING_FIRST       8u

/* ---- Rings ------------------------------------------------------------------------------------
 */

bool session__ring_push(struct outgoing_ring *ring, const struct outgoing *o)
{
    uint32_t count = outgoing_count(ring);
    if (!ring->items || count > ring->mask) {
        uint32_t capacity = ring->items ? (ring->mask + 1) * 2 : RING_FIRST;
        struct outgoing *items = malloc(capacity * sizeof *items);
        if (!items)
            return false;
        for (uint32_t i = 0; i < count; i++)
            items[i] = *outgoing_at(ring, i);
        free(ring->items);
        *ring = (struct outgoing_ring){.items = items, .mask = capacity - 1, .tail = count};
    }
    ring->items[ring->tail++ & ring->mask] = *o;
    return true;
}

void session__ring_pop(struct outgoing_ring *ring)
{
    ring->head++;
    if (ring->head == ring->tail) { /* an idle session holds no memory for it */
        free(ring->items);
        *ring = (struct outgoing_ring){0};
    }
}

void session__outgoing_drop(struct outgoing *o)
{
    message_unref(o->message);
    db_message_unref(o->stored);
    free(o->ids);
    o->message = NULL;
    o->stored = NULL;
    o->ids = NULL;
}

void session__ring_free(struct outgoing_ring *ring)
{
    for (uint32_t i = 0; i < outgoing_count(ring); i++) {
        struct outgoing *o = outgoing_at(ring, i);
        if (o->state == OUT_QUEUED)
            message_unqueued(sizeof *o);
        session__outgoing_drop(o);
    }
    free(ring->items);
    *ring = (struct outgoing_ring){0};
}

static chr_slice ids_of(const struct outgoing *o)
{
    if (!o->ids)
        return CHR_LIT("");
    return chr_slice_of(o->ids + 4, chr_get_u32le(o->ids));
}

/* False: no memory. */
bool session__ids_copy(chr_slice ids, uint8_t **out)
{
    *out = NULL;
    if (ids.len == 0)
        return true;
    *out = malloc(4 + ids.len);
    if (!*out)
        return false;
    chr_put_u32le(*out, (uint32_t)ids.len);
    memcpy(*out + 4, ids.ptr, ids.len);
    return true;
}

/* ---- One PUBLISH ------------------------------------------------------------------------------
 */

/* Of a message in memory or of the database. */
struct content {
    chr_slice topic, properties, payload;
    bool has_expiry;
    int64_t left_us; /* until it expires */
};

static struct content content_of(const struct session *s, const struct outgoing *o)
{
    const struct db_message *d = o->stored;
    if (d)
        return (struct content){d->topic, d->properties, d->payload, d->expires_us != INT64_MAX,
                                d->expires_us - s->loop->now_wall_us};
    const struct message *m = o->message;
    return (struct content){m->topic, m->properties, m->payload, m->has_expiry,
                            m->expires_mono_us - s->loop->now_mono_us};
}

static bool late(const struct session *s, const struct outgoing *o)
{
    struct content c = content_of(s, o);
    return c.has_expiry && c.left_us <= 0;
}

/* For limits. */
static size_t bytes_of(const struct outgoing *o)
{
    return o->stored ? sizeof *o->stored + o->stored->topic.len + o->stored->properties.len +
                           o->stored->payload.len
                     : message_bytes(o->message);
}

static uint8_t *put_bytes(uint8_t *at, chr_slice bytes)
{
    if (bytes.len)
        memcpy(at, bytes.ptr, bytes.len);
    return at + bytes.len;
}

struct publish_head {
    chr_slice topic; /* to send: empty when the client knows it by its alias */
    uint16_t alias;  /* 0: none */
    size_t properties_bytes;
    size_t remaining;
    size_t head_bytes; /* all but the payload */
};

static uint8_t *put_head(uint8_t *at, const struct session *s, const struct content *m,
                         const struct outgoing *o, bool dup, chr_slice ids,
                         const struct publish_head *head)
{
    *at++ = (uint8_t)(MQTT_PUBLISH << 4 | (dup ? 8u : 0u) | (unsigned)o->qos << 1 |
                      (o->retain ? 1u : 0u));
    at = mqtt_varint_put(at, (uint32_t)head->remaining);
    chr_put_u16be(at, (uint16_t)head->topic.len);
    at = put_bytes(at + 2, head->topic);
    if (o->qos) {
        chr_put_u16be(at, o->packet_id);
        at += 2;
    }
    if (s->version != MQTT_V5)
        return at;
    at = mqtt_varint_put(at, (uint32_t)head->properties_bytes);
    if (head->alias) {
        *at++ = MQTT_PROPERTY_TOPIC_ALIAS;
        chr_put_u16be(at, head->alias);
        at += 2;
    }
    if (m->has_expiry) {
        /* What is left of it [MQTT-3.3.2-6]; a started second counts as a whole one. Nothing is, of
         * one that is sent again [MQTT-4.3.3-7]. */
        *at++ = MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL;
        chr_put_u32be(at, (uint32_t)((CHR_MAX(m->left_us, 0) + 999999) / 1000000));
        at += 4;
    }
    at = put_bytes(at, m->properties);
    return put_bytes(at, ids);
}

static uint64_t bounded(const struct session *s, uint64_t bytes)
{
    return CHR_MIN(bytes, s->loop->node->config->max_output_bytes / 4);
}

/* False: it is too large. */
static bool measure(struct publish_head *head, const struct session *s, const struct content *m,
                    const struct outgoing *o, chr_slice ids, struct sent_alias alias)
{
    head->topic = alias.known ? CHR_LIT("") : m->topic;
    head->alias = alias.alias;
    size_t variable = 2 + head->topic.len + (o->qos ? 2u : 0u);
    if (s->version == MQTT_V5) {
        head->properties_bytes = m->properties.len + ids.len + (m->has_expiry ? 5u : 0u) +
                                 (alias.alias ? SENT_ALIAS_BYTES : 0u);
        if (head->properties_bytes > MQTT_VARINT_MAX)
            return false;
        variable += mqtt_varint_bytes((uint32_t)head->properties_bytes) + head->properties_bytes;
    }
    head->remaining = variable + m->payload.len;
    if (head->remaining > MQTT_REMAINING_LENGTH_MAX)
        return false;
    head->head_bytes = 1 + mqtt_varint_bytes((uint32_t)head->remaining) + variable;
    return head->head_bytes + m->payload.len <= s->max_packet_bytes; /* [MQTT-3.1.2-24], -25 */
}

/* As measure, for a client that takes topic aliases. */
static bool measure_with_alias(struct publish_head *head, struct session *s,
                               const struct content *m, const struct outgoing *o, chr_slice ids)
{
    if (!s->sent_aliases)
        s->sent_aliases = sent_aliases_new(s->sent_aliases_max);
    struct sent_alias alias = {0};
    if (s->sent_aliases)
        alias = sent_aliases_find(s->sent_aliases, m->topic);
    /* One that is told with this message makes it longer: no reason to drop it. */
    if (measure(head, s, m, o, ids, alias) &&
        (!alias.alias || alias.known || sent_aliases_bind(s->sent_aliases, alias, m->topic)))
        return true;
    return alias.alias && !alias.known && measure(head, s, m, o, ids, (struct sent_alias){0});
}

static enum sent send_publish(struct session *s, const struct outgoing *o, bool dup, chr_slice ids)
{
    const struct content content = content_of(s, o), *m = &content;
    struct publish_head head = {0};
    if (!(s->sent_aliases_max ? measure_with_alias(&head, s, m, o, ids)
                              : measure(&head, s, m, o, ids, (struct sent_alias){0})))
        return SENT_TOO_LARGE;

    struct conn *conn = s->conn;
    if (o->stored || m->payload.len < SHARED_PAYLOAD_BYTES) {
        uint8_t *at = conn_out_reserve(conn, head.head_bytes + m->payload.len);
        if (!at)
            return SENT_CLOSED;
        put_bytes(put_head(at, s, m, o, dup, ids, &head), m->payload);
        conn_out_commit(conn, head.head_bytes + m->payload.len);
    } else {
        uint8_t stack[HEAD_STACK_BYTES];
        uint8_t *bytes = head.head_bytes <= sizeof stack ? stack : malloc(head.head_bytes);
        if (!bytes)
            return SENT_CLOSED;
        put_head(bytes, s, m, o, dup, ids, &head);
        conn_send_shared(conn, chr_slice_of(bytes, head.head_bytes), o->message, m->payload);
        if (bytes != stack)
            free(bytes);
    }
    LOOP_COUNT(s->loop, publishes_sent[o->qos], 1);
    LOOP_COUNT(s->loop, publish_bytes_sent, m->payload.len);
    conn->messages_sent++;
    return conn->state == CONN_CLOSING ? SENT_CLOSED : SENT;
}

enum sent session__send_publish(struct session *s, const struct outgoing *o, bool dup)
{
    return send_publish(s, o, dup, ids_of(o));
}

/* ---- In flight --------------------------------------------------------------------------------
 */

bool session__window_room(const struct session *s)
{
    return s->inflight_open + s->stored.open < s->receive_maximum;
}

/* The id of the next message that is in memory alone. Beside the ids of the log's queue, which
 * follow each other, these begin half a circle away and follow each other as well: away from the
 * highest that the client may know, also while nothing was read from the queue yet. */
static uint16_t next_packet_id(const struct session *s)
{
    if (s->durable && outgoing_count(&s->inflight) == 0)
        return stored_packet_id(CHR_MAX(s->stored.next, s->stored.sent + 1) + STORED_SPAN_MAX);
    return (uint16_t)(s->last_packet_id % PACKET_IDS + 1);
}

static bool inflight_room(const struct session *s)
{
    const struct broker_config *config = s->loop->node->config;
    return session__window_room(s) && outgoing_count(&s->inflight) < PACKET_IDS &&
           (s->inflight_open == 0 || !config->max_queued_bytes ||
            s->inflight_bytes < config->max_queued_bytes) &&
           !(s->durable && session_stored_uses(s, next_packet_id(s)));
}

static struct outgoing *inflight_find(const struct session *s, uint16_t packet_id)
{
    uint32_t count = outgoing_count(&s->inflight);
    if (count == 0 || packet_id == 0)
        return NULL;
    uint32_t first = outgoing_at(&s->inflight, 0)->packet_id;
    uint32_t i = (packet_id + PACKET_IDS - first) % PACKET_IDS; /* S1 */
    if (i >= count)
        return NULL;
    struct outgoing *o = outgoing_at(&s->inflight, i);
    CHR_ASSERT(o->packet_id == packet_id);
    return o;
}

bool session__memory_uses(const struct session *s, uint16_t packet_id)
{
    return inflight_find(s, packet_id) != NULL;
}

static void inflight_drop_message(struct session *s, struct outgoing *o)
{
    if (o->message || o->stored)
        s->inflight_bytes -= bytes_of(o);
    session__outgoing_drop(o);
}

/* The client answers what it was sent before it reconnected: it need not go again. */
static void resend_not(struct session *s, const struct outgoing *o)
{
    uint32_t i = ((uint32_t)(o - s->inflight.items) - s->inflight.head) & s->inflight.mask;
    if (i >= s->resend_at && i < s->resend_end &&
        (o->state == OUT_PUBACK || o->state == OUT_PUBREC))
        s->unsent--;
}

static void inflight_trim(struct session *s)
{
    while (outgoing_count(&s->inflight) && outgoing_at(&s->inflight, 0)->state == OUT_DONE) {
        session__ring_pop(&s->inflight);
        s->resend_at -= s->resend_at > 0;
        s->resend_end -= s->resend_end > 0;
    }
}

static void inflight_done(struct session *s, struct outgoing *o)
{
    resend_not(s, o);
    inflight_drop_message(s, o);
    o->state = OUT_DONE;
    s->inflight_open--;
    inflight_trim(s);
}

/* Sends a message of QoS 1 or 2, which o holds a reference to, and keeps it until it is answered.
 * False: no memory; o is as it was. */
static bool send_inflight(struct session *s, const struct outgoing *message)
{
    struct outgoing o = *message;
    o.packet_id = next_packet_id(s);
    o.state = o.qos == 1 ? OUT_PUBACK : OUT_PUBREC;
    if (!session__ring_push(&s->inflight, &o))
        return false;
    s->last_packet_id = o.packet_id;
    s->inflight_open++;
    s->inflight_bytes += bytes_of(&o);
    if (send_publish(s, &o, false, ids_of(&o)) == SENT_TOO_LARGE) {
        /* As if it had been delivered [MQTT-3.1.2-25]; the packet id was not used. */
        s->last_packet_id = (uint16_t)(o.packet_id == 1 ? PACKET_IDS : o.packet_id - 1u);
        s->inflight.tail--;
        s->inflight_open--;
        s->inflight_bytes -= bytes_of(&o);
        session__outgoing_drop(&o);
        s->dropped++;
        LOOP_COUNT_DROP(s->loop, DROP_TOO_LARGE);
    }
    return true;
}

/* [MQTT-4.4.0-1], within the Receive Maximum of this connection, which may be less than that of the
 * one before [MQTT-3.3.4-9]. A message whose expiry passed after it was first sent goes on: the
 * client may have it already. One that this connection cannot take ends here. */
static void resend_more(struct session *s)
{
    while (s->resend_at < s->resend_end && s->conn && s->conn->state == CONN_OPEN) {
        struct outgoing *o = outgoing_at(&s->inflight, s->resend_at);
        bool publish = o->state == OUT_PUBACK || o->state == OUT_PUBREC;
        if (publish && s->inflight_open - s->unsent + s->stored.open >= s->receive_maximum)
            break; /* an acknowledgement goes on */
        s->resend_at++;
        if (!publish)
            continue;
        s->unsent--;
        if (send_publish(s, o, true, ids_of(o)) == SENT_TOO_LARGE)
            inflight_drop_message(s, o), o->state = OUT_DONE, s->inflight_open--;
    }
    inflight_trim(s);
}

void session_redeliver(struct session *s)
{
    s->resend_at = s->unsent = 0;
    s->resend_end = outgoing_count(&s->inflight);
    for (uint32_t i = 0; i < s->resend_end; i++) {
        const struct outgoing *o = outgoing_at(&s->inflight, i);
        s->unsent += o->state == OUT_PUBACK || o->state == OUT_PUBREC;
        if (o->state == OUT_PUBCOMP) {
            uint8_t packet[MQTT_ACK_BYTES_MAX];
            size_t n = mqtt_encode_pubrel(packet, s->version, o->packet_id, 0);
            conn_send(s->conn, chr_slice_of(packet, n));
        }
    }
    resend_more(s);
}

bool session_acked(struct session *s, uint16_t packet_id)
{
    bool known = false;
    if (s->durable)
        session_stored_acked(s, packet_id, &known);
    if (known)
        return true;
    struct outgoing *o = inflight_find(s, packet_id);
    if (!o || o->state != OUT_PUBACK)
        return false;
    inflight_done(s, o);
    session_pump(s);
    return true;
}

bool session_received(struct session *s, uint16_t packet_id, uint8_t reason, bool *known)
{
    *known = false;
    bool release = s->durable && session_stored_received(s, packet_id, reason, known);
    if (*known)
        return release;
    struct outgoing *o = inflight_find(s, packet_id);
    *known = o && (o->state == OUT_PUBREC || o->state == OUT_PUBCOMP);
    if (!*known)
        return false;
    if (reason >= 0x80) {
        inflight_done(s, o);
        session_pump(s);
        return false;
    }
    resend_not(s, o);
    inflight_drop_message(s, o); /* it is the client's now: never again */
    o->state = OUT_PUBCOMP;
    return true;
}

bool session_completed(struct session *s, uint16_t packet_id)
{
    bool known = false;
    if (s->durable)
        session_stored_completed(s, packet_id, &known);
    if (known)
        return true;
    struct outgoing *o = inflight_find(s, packet_id);
    if (!o || o->state != OUT_PUBCOMP)
        return false;
    inflight_done(s, o);
    session_pump(s);
    return true;
}

/* ---- The queue --------------------------------------------------------------------------------
 */

static const char *const drop_texts[DROPS] = {
    [DROP_QUEUE_FULL] = "its queue is full",
    [DROP_SLOW] = "it reads too slowly",
    [DROP_TOO_LARGE] = "larger than its Maximum Packet Size",
    [DROP_INBOX] = "too much is on its way between loops",
    [DROP_PEER] = "too much waits for another node",
    [DROP_EXPIRED] = "expired",
    [DROP_SIZE] = "larger than message_size_limit",
    [DROP_MEMORY] = "out of memory",
    [DROP_DAMAGED] = "damaged in the database",
};

void session__count_dropped(struct session *s, enum drop cause)
{
    s->dropped++;
    LOOP_COUNT_DROP(s->loop, cause);
    if (s->drop_logged_us && s->loop->now_mono_us - s->drop_logged_us < 60 * INT64_C(1000000))
        return;
    s->drop_logged_us = s->loop->now_mono_us;
    chr_log_notice("mqtt", "messages dropped", CHR_KV_S("client", s->client_id),
                   CHR_KV_C("reason", drop_texts[cause]), CHR_KV_U("dropped", s->dropped));
}

static const char *address_of(const struct session *s)
{
    return s->conn ? s->conn->address : NULL;
}

static void queue_count_out(struct session *s, const struct outgoing *o)
{
    if (o->free)
        return;
    s->queue_limited--;
    s->queue_bytes -= message_bytes(o->message);
}

static bool queue_is_full(const struct session *s, uint64_t bytes)
{
    const struct broker_config *config = s->loop->node->config;
    return (config->max_queued_messages && s->queue_limited >= config->max_queued_messages) ||
           (config->max_queued_bytes && s->queue_bytes + bytes > config->max_queued_bytes);
}

/* Takes the oldest of its queue that counts, until there is room for one of so many bytes. False:
 * there is none left, or never would be. Not while it is pumped, when the queue's first is on its
 * way out. */
static bool queue_drop_oldest(struct session *s, uint64_t bytes)
{
    const struct broker_config *config = s->loop->node->config;
    if (config->max_queued_bytes && bytes > config->max_queued_bytes)
        return false;
    while (queue_is_full(s, bytes)) {
        if (s->pumping || outgoing_count(&s->queue) == 0 || outgoing_at(&s->queue, 0)->free)
            return false;
        struct outgoing *oldest = outgoing_at(&s->queue, 0);
        queue_count_out(s, oldest);
        message_unqueued(sizeof *oldest);
        session__outgoing_drop(oldest);
        session__ring_pop(&s->queue);
        session__count_dropped(s, DROP_QUEUE_FULL);
    }
    return true;
}

static bool queue_push(struct session *s, struct message *message, struct db_message *stored,
                       uint8_t qos, bool retain, chr_slice ids, uint32_t share, bool free_of_limits)
{
    const struct broker_config *config = s->loop->node->config;
    if (!free_of_limits && config->max_queued_total &&
        messages_queued_bytes() > config->max_queued_total) {
        limit_hit(s->loop, LIMIT_QUEUES, s->client_id, address_of(s));
        session__count_dropped(s, DROP_QUEUE_FULL);
        return true;
    }
    if (!free_of_limits && queue_is_full(s, message_bytes(message))) {
        limit_hit(s->loop, LIMIT_QUEUE, s->client_id, address_of(s));
        if (config->queue_drop != QUEUE_DROP_OLDEST ||
            !queue_drop_oldest(s, message_bytes(message))) {
            session__count_dropped(s, DROP_QUEUE_FULL);
            return true;
        }
    }
    struct outgoing o = {.message = message,
                         .stored = stored,
                         .share = share,
                         .state = OUT_QUEUED,
                         .qos = qos,
                         .retain = retain,
                         .free = free_of_limits};
    if (!session__ids_copy(ids, &o.ids))
        return false;
    if (!session__ring_push(&s->queue, &o)) {
        free(o.ids);
        return false;
    }
    if (message)
        message_ref(message);
    else
        db_message_ref(stored);
    message_queued(message, sizeof o);
    if (!free_of_limits) {
        s->queue_limited++;
        s->queue_bytes += message_bytes(message);
    }
    return true;
}

bool session__output_full(struct session *s)
{
    if (conn_out_bytes(s->conn) <= bounded(s, PUMP_OUTPUT_BYTES))
        return false;
    s->conn->drain_wanted = true;
    return true;
}

static void pump_memory(struct session *s)
{
    if (s->pumping) /* a flush in here may call back */
        return;
    s->pumping = true;
    while (s->conn && s->conn->state == CONN_OPEN && outgoing_count(&s->queue)) {
        struct outgoing o = *outgoing_at(&s->queue, 0);
        if (session__output_full(s))
            break;
        bool too_late = late(s, &o);
        if (!too_late && o.qos && !inflight_room(s))
            break; /* an acknowledgement pumps again */
        uint64_t bytes = bytes_of(&o);
        if (too_late) {
            LOOP_COUNT_DROP(s->loop, DROP_EXPIRED);
            session__outgoing_drop(&o);
        } else if (o.qos == 0) {
            (void)send_publish(s, &o, false, ids_of(&o));
            session__outgoing_drop(&o);
        } else if (!send_inflight(s, &o)) {
            break;
        }
        if (!o.free) {
            s->queue_limited--;
            s->queue_bytes -= bytes;
        }
        message_unqueued(sizeof o);
        session__ring_pop(&s->queue);
    }
    s->pumping = false;
}

void session_pump(struct session *s)
{
    if (s->resend_at < s->resend_end)
        resend_more(s);
    pump_memory(s);
    if (s->stored.more)
        session_stored_pump(s);
}

/* ---- Fresh messages ---------------------------------------------------------------------------
 */

/* Is there room for more output? Gives the kernel what it takes first, so that a burst within one
 * turn is not mistaken for a slow client. */
static bool output_room(struct session *s, uint64_t limit)
{
    const struct broker_loop *loop = s->loop;
    if (CHR_UNLIKELY(loop->unsent_bytes_max && loop->unsent_bytes > loop->unsent_bytes_max)) {
        uint64_t conns = atomic_load_explicit(&loop->conns_count, memory_order_relaxed);
        uint64_t share = loop->unsent_bytes_max / CHR_MAX(conns, UINT64_C(1));
        limit = CHR_MIN(limit, CHR_MAX(share, FAIR_OUTPUT_BYTES_MIN));
    }
    if (CHR_LIKELY(conn_out_bytes(s->conn) <= limit))
        return true;
    if (!s->conn->epoll_out)
        conn_flush(s->conn);
    return s->conn && conn_out_bytes(s->conn) <= limit;
}

bool session_deliver_encoded(struct session *s, struct encoded *encoded, bool retain)
{
    struct conn *conn = s->conn;
    if (!conn || outgoing_count(&s->queue) || s->sent_aliases_max)
        return false;
    chr_slice packet = encoded_packet(encoded, s->version, retain);
    if (packet.len == 0 || packet.len > s->max_packet_bytes ||
        conn_out_bytes(conn) > s->loop->node->config->max_output_bytes / 2)
        return false;
    uint8_t *at = conn_out_reserve(conn, packet.len);
    if (!at)
        return true; /* it is being closed */
    memcpy(at, packet.ptr, packet.len);
    conn_out_commit(conn, packet.len);
    LOOP_COUNT(s->loop, publishes_sent[0], 1);
    LOOP_COUNT(s->loop, publish_bytes_sent, encoded->message->payload.len);
    conn->messages_sent++;
    return true;
}

void session_deliver(struct session *s, struct message *message, uint8_t qos, bool retain,
                     chr_slice ids)
{
    session_deliver_shared(s, message, qos, retain, ids, 0);
}

void session_deliver_shared(struct session *s, struct message *message, uint8_t qos, bool retain,
                            chr_slice ids, uint32_t share)
{
    if (message->to_user && message->user != s->user)
        return; /* R1 */
    if (message->has_expiry && message->expires_mono_us <= s->loop->now_mono_us)
        return;
    /* Only messages of the node's own come this way to a durable session above QoS 0; in memory
     * alone they have no exactly once over a restart, and an id the client remembers from before
     * it would swallow a later message. The node, as their publisher, sends them at QoS 1. */
    if (s->durable && qos > 1)
        qos = 1;
    struct conn *conn = s->conn;
    bool limited = !message->flow_controlled;
    if (!conn || outgoing_count(&s->queue)) {
        if ((conn || qos) && !queue_push(s, message, NULL, qos, retain, ids, share, !limited))
            session__count_dropped(s, DROP_MEMORY);
        return;
    }
    if (qos == 0) {
        uint64_t most = s->loop->node->config->max_output_bytes / 2;
        if (limited && !output_room(s, most)) {
            limit_hit(s->loop, LIMIT_OUTPUT, s->client_id, address_of(s));
            session__count_dropped(s, DROP_SLOW);
            return;
        }
        if (!limited && !output_room(s, bounded(s, LIVE_OUTPUT_BYTES)) && s->conn) {
            if (queue_push(s, message, NULL, qos, retain, ids, share, true))
                s->conn->drain_wanted = true;
            else
                session__count_dropped(s, DROP_MEMORY);
            return;
        }
        struct outgoing o = {.message = message, .retain = retain};
        if (s->conn && send_publish(s, &o, false, ids) == SENT_TOO_LARGE)
            session__count_dropped(s, DROP_TOO_LARGE);
        return;
    }
    struct outgoing o = {.message = message, .share = share, .qos = qos, .retain = retain};
    if (!inflight_room(s) || !output_room(s, bounded(s, LIVE_OUTPUT_BYTES)) || !s->conn) {
        if (!queue_push(s, message, NULL, qos, retain, ids, share, !limited))
            session__count_dropped(s, DROP_MEMORY);
        else if (s->conn)
            s->conn->drain_wanted = true;
        return;
    }
    if (!session__ids_copy(ids, &o.ids)) {
        session__count_dropped(s, DROP_MEMORY);
        return;
    }
    message_ref(message);
    if (!send_inflight(s, &o)) {
        session__outgoing_drop(&o);
        session__count_dropped(s, DROP_MEMORY);
    }
}

chr_err session_deliver_retained(struct session *s, struct message *message,
                                 struct db_message *stored, uint8_t qos, bool retain, chr_slice ids)
{
    if (s->durable)
        qos = CHR_MIN(qos, 1);
    return queue_push(s, message, stored, qos, retain, ids, 0, true) ? CHR_OK : CHR_ENOMEM;
}

void session_outgoing_offline(struct session *s)
{
    /* Once around the ring: what stays goes to the end again, in order. */
    uint32_t count = outgoing_count(&s->queue);
    for (uint32_t i = 0; i < count; i++) {
        struct outgoing o = *outgoing_at(&s->queue, 0);
        s->queue.head++;
        if (o.qos == 0) {
            queue_count_out(s, &o);
            message_unqueued(sizeof o);
            session__outgoing_drop(&o);
        } else {
            s->queue.items[s->queue.tail++ & s->queue.mask] = o;
        }
    }
    if (count && outgoing_count(&s->queue) == 0)
        session__ring_free(&s->queue);
}

void session_outgoing_pass_on(struct session *s)
{
    /* First what is older. Of QoS 2 what was sent is nobody else's [MQTT-4.8.2-5]. */
    for (uint32_t i = 0; i < outgoing_count(&s->inflight); i++) {
        const struct outgoing *o = outgoing_at(&s->inflight, i);
        if (o->share && o->state == OUT_PUBACK)
            session__deliver_again(s->loop, o->message, o->share);
    }
    for (uint32_t i = 0; i < outgoing_count(&s->queue); i++) {
        const struct outgoing *o = outgoing_at(&s->queue, i);
        if (o->share && o->qos)
            session__deliver_again(s->loop, o->message, o->share);
    }
}

void session_outgoing_free(struct session *s)
{
    session__ring_free(&s->inflight);
    session__ring_free(&s->queue);
    s->inflight_open = s->resend_at = s->resend_end = s->unsent = 0;
    s->inflight_bytes = s->queue_bytes = 0;
    s->queue_limited = 0;
    s->last_packet_id = 0;
}
