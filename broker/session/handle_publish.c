/* broker/session/handle_publish.c: PUBLISH (3.3).
 *
 *     known topic, QoS 0 or 1, nothing special ─▶ publish_fast ─────┐
 *     anything else ─▶ decode ─▶ alias, limits, kind of topic ─┬────┴▶ rows in the open batch, or
 *                                                               │      delivered and answered now
 *                                                               ├▶ SQL request, cancel
 *                                                               └▶ refused
 *
 * A packet that needs a batch when none is free is left where it is and the connection is paused:
 * everything before that point in here may be done again. */
#include <stdio.h>

#include "base/bytes.h"
#include "base/log.h"
#include "base/utf8.h"
#include "bridge/peers.h"
#include "broker/net/listener.h"
#include "broker/session/authorize.h"
#include "broker/session/publish.h"
#include "broker/session/sql_request.h"
#include "proto/mqtt/encode.h"
#include "proto/mqtt/topic.h"

static enum dispatch pause_for_batch(struct conn *conn)
{
    conn_pause(conn, CONN_PAUSE_BATCH);
    return DISPATCH_AGAIN;
}

/* A place in the ack ring is needed. */
static bool acks_full(struct conn *conn)
{
    if (CHR_LIKELY(conn_acks_room(conn) > 0))
        return false;
    conn_pause(conn, CONN_PAUSE_INFLIGHT);
    return true;
}

static void acknowledge(struct conn *conn, uint8_t qos, uint16_t packet_id, uint8_t reason)
{
    if (qos == 0)
        return;
    uint32_t sequence = conn_ack_begin(conn, qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, packet_id);
    conn_ack_done(conn, sequence, 1, reason);
}

/* ---- Our Receive Maximum (3.1.2.11.3) ---------------------------------------------------------
 */

/* QoS 1 and 2 publishes of the client that are not answered to the end. */
static uint32_t unanswered(const struct conn *conn, const struct session *s)
{
    uint32_t count = s->incoming.held_count;
    for (uint32_t i = conn->acks_head; i != conn->acks_tail; i++)
        count += conn->acks[i & conn->acks_mask].kind == MQTT_PUBACK;
    return count;
}

static bool receive_maximum_exceeded(const struct conn *conn, const struct session *s,
                                     uint16_t packet_id)
{
    uint32_t maximum = conn->receive_maximum;
    /* Every place of the ring counted is too many: exact only when it matters. */
    if (CHR_LIKELY(conn->acks_tail - conn->acks_head + s->incoming.held_count < maximum))
        return false;
    return !incoming_held(&s->incoming, packet_id) && unanswered(conn, s) >= maximum;
}

/* ---- Mapped topics ----------------------------------------------------------------------------
 */

static enum dispatch out_of_memory(struct conn *conn, uint8_t qos, uint16_t packet_id)
{
    chr_log_error("mqtt", "out of memory for a message",
                  CHR_KV_S("client", session_conn_client(conn)));
    if (conn->version == MQTT_V5 && qos) {
        acknowledge(conn, qos, packet_id, MQTT_REASON_QUOTA_EXCEEDED);
        return DISPATCH_DONE;
    }
    session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
    return DISPATCH_CLOSE;
}

struct packet {
    struct conn *conn;
    struct slab *slab;
    chr_slice raw;
    const struct mqtt_publish *publish;
    chr_slice topic;
    bool by_alias;     /* the packet does not hold its topic */
    uint8_t ack_asked; /* as in struct inbound */
};

static enum dispatch publish_plain(const struct packet *p, struct route *route);

/* Nothing of its topic has to do with tables or the log, now and for what came before. */
static bool is_plain(const struct conn *conn, struct route *route, uint8_t qos)
{
    return route->kind == ROUTE_PLAIN && !route->ingest && !conn->session->plain_in_log &&
           route->logged <= conn->loop->batch_answered &&
           !session__verbatim(conn->loop, route, qos, false);
}

/* The road of a reading, or of a plain message, without anything special: a few comparisons decide
 * that it is one. DISPATCH_CLOSE: not this one; nothing happened. */
static enum dispatch publish_fast(struct conn *conn, struct slab *slab, chr_slice raw,
                                  const struct mqtt_frame *frame)
{
    const uint8_t *at = frame->body.ptr, *end = at + frame->body.len;
    uint8_t qos = (frame->flags >> 1) & 3;
    bool v5 = conn->version == MQTT_V5;
    if ((frame->flags & 1) || qos > 1 || frame->flags == 8 || end - at < 2)
        return DISPATCH_CLOSE;
    size_t topic_len = chr_get_u16be(at);
    at += 2;
    if ((size_t)(end - at) < topic_len + 2u * qos + v5)
        return DISPATCH_CLOSE;
    struct broker_loop *loop = conn->loop;
    struct loop_session_state *state = state_of(loop);
    if (!session__current(loop))
        return pause_for_batch(conn);
    /* A topic that is found was valid when it came the first time. */
    chr_slice topic = chr_slice_of(at, topic_len);
    struct route *route = routes_peek(&state->routes, topic);
    if (!route || (!route->ingest && !is_plain(conn, route, qos)))
        return DISPATCH_CLOSE;
    if (CHR_UNLIKELY(conn->session->acl_key && conn->session->acl_key != route->publish_key))
        return DISPATCH_CLOSE; /* the rules are asked there */
    at += topic_len;
    uint16_t packet_id = 0;
    if (qos) {
        packet_id = chr_get_u16be(at);
        at += 2;
        if (packet_id == 0 || receive_maximum_exceeded(conn, conn->session, packet_id))
            return DISPATCH_CLOSE;
        if (acks_full(conn))
            return DISPATCH_AGAIN;
    }
    if (v5 && *at++ != 0)
        return DISPATCH_CLOSE; /* has properties */
    uint32_t most = loop->node->config->message_size_limit;
    if (CHR_UNLIKELY(most && (size_t)(end - at) > most))
        return DISPATCH_CLOSE;
    if (!route->ingest) {
        struct mqtt_publish publish = {.topic = topic,
                                       .payload = chr_slice_of(at, (size_t)(end - at)),
                                       .packet_id = packet_id,
                                       .qos = qos};
        struct packet p = {.conn = conn, .publish = &publish, .topic = topic};
        return publish_plain(&p, route);
    }
    struct inbound in = {
        .conn = conn,
        .ref = conn->ref,
        .slab = slab,
        .raw = raw,
        .topic = topic,
        .payload = chr_slice_of(at, (size_t)(end - at)),
        .version = conn->version,
        .qos = qos,
        .ack_kind = qos ? MQTT_PUBACK : 0,
        .packet_id = packet_id,
    };
    switch (session__into_batch(&in, route, false)) {
    case INTO_BATCH_DONE:
        session__count_publish(conn, qos, in.payload.len);
        LOOP_COUNT(loop, publishes_mapped, 1);
        return DISPATCH_DONE;
    case INTO_BATCH_AGAIN:
        return pause_for_batch(conn);
    case INTO_BATCH_PLAIN:
        return DISPATCH_CLOSE;
    case INTO_BATCH_NO_MEMORY:
        break;
    }
    (void)out_of_memory(conn, qos, packet_id);
    return DISPATCH_DONE;
}

/* Mapped, retained, or for a durable session. plain_too: see session__into_batch. */
static enum dispatch publish_logged(const struct packet *p, struct route *route, bool plain_too,
                                    enum into_batch *outcome)
{
    struct conn *conn = p->conn;
    struct session *s = conn->session;
    const struct mqtt_publish *publish = p->publish;
    struct inbound in = {
        .conn = conn,
        .ref = conn->ref,
        .slab = p->slab,
        .raw = p->raw,
        .topic = p->topic,
        .alias_topic = p->by_alias ? p->topic : CHR_LIT(""),
        .payload = publish->payload,
        .version = conn->version,
        .qos = publish->qos,
        .retain = publish->retain,
        .ack_asked = p->ack_asked,
        .packet_id = publish->packet_id,
    };
    if (publish->qos)
        in.ack_kind = publish->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC;
    bool mapped = route->ingest;
    if (publish->qos == 2 && s->durable) {
        in.guarded = true;
        in.guard = (struct db_guard){s->epoch, s->generation, publish->packet_id};
    }
    *outcome = session__into_batch(&in, route, plain_too);
    switch (*outcome) {
    case INTO_BATCH_DONE:
        break;
    case INTO_BATCH_AGAIN:
        return pause_for_batch(conn);
    case INTO_BATCH_PLAIN:
        return DISPATCH_DONE;
    case INTO_BATCH_NO_MEMORY:
        return out_of_memory(conn, publish->qos, publish->packet_id);
    }
    session__count_publish(conn, publish->qos, publish->payload.len);
    if (conn->state == CONN_CLOSING) /* too large, and no other way to say so */
        return DISPATCH_CLOSE;
    if (mapped)
        LOOP_COUNT(conn->loop, publishes_mapped, 1);
    /* A PUBREC with a failure ends the flow; else the id is the client's until PUBREL. Who repeats
     * it is answered from memory, but for a durable session the log decides (R5). */
    if (publish->qos == 2 && !(in.rejected && conn->version == MQTT_V5) &&
        incoming_hold(&s->incoming, publish->packet_id, !s->durable))
        conn_close(conn);
    return DISPATCH_DONE;
}

/* The durability class that a message asks for by its user property `ack`; it means something on
 * mapped topics only, and at QoS 0 there is nothing to acknowledge. False: no class, refused. */
static bool asked_class(struct packet *p)
{
    struct conn *conn = p->conn;
    const struct mqtt_publish *publish = p->publish;
    chr_slice word;
    if (publish->qos == 0 || conn->version != MQTT_V5 ||
        !mqtt_user_property_find(&publish->properties, CHR_LIT("ack"), &word))
        return true;
    int ack = db_ack_class_parse(word);
    p->ack_asked = (uint8_t)(ack + 1);
    if (ack >= 0)
        return true;
    char reason[128];
    word.len = CHR_MIN(word.len, 32);
    snprintf(reason, sizeof reason, "user property ack: \"%.*s\" is none of quorum, local, memory",
             CHR_SLICE_ARGS(chr_utf8_valid(word) ? word : CHR_LIT("...")));
    session__count_publish(conn, publish->qos, publish->payload.len);
    uint32_t sequence =
        conn_ack_begin(conn, publish->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, publish->packet_id);
    /* A failing PUBREC ends the flow: the packet id is the client's again. */
    bool text = conn->session->problem_information;
    conn_ack_set_reason(conn, sequence, MQTT_REASON_IMPLEMENTATION_SPECIFIC,
                        text ? chr_slice_cstr(reason) : CHR_LIT(""));
    conn_ack_done(conn, sequence, 1, MQTT_REASON_IMPLEMENTATION_SPECIFIC);
    return false;
}

/* ---- Other topics -----------------------------------------------------------------------------
 */

static enum dispatch publish_plain(const struct packet *p, struct route *route)
{
    struct conn *conn = p->conn;
    struct session *s = conn->session;
    struct broker_loop *loop = conn->loop;
    const struct mqtt_publish *publish = p->publish;
    if (publish->qos == 2 && incoming_hold(&s->incoming, publish->packet_id, true))
        return out_of_memory(conn, 2, publish->packet_id);
    session__count_publish(conn, publish->qos, publish->payload.len);
    const struct match *match = route_match(&state_of(loop)->routes, route);
    if (!match || match_any(match)) {
        struct message *m = session__message_from(loop, publish, p->topic, s->number);
        if (!m) {
            (void)incoming_release(&s->incoming, publish->packet_id);
            return out_of_memory(conn, publish->qos, publish->packet_id);
        }
        session__deliver(loop, m, route);
        message_unref(m);
    }
    acknowledge(conn, publish->qos, publish->packet_id, MQTT_REASON_SUCCESS);
    return DISPATCH_DONE;
}

/* A topic that is not this client's to publish to. 3.1.1 has no way to say so but to close; as
 * with Mosquitto it is acknowledged, and nobody gets it. */
static enum dispatch publish_denied(struct conn *conn, const struct mqtt_publish *publish)
{
    session__count_publish(conn, publish->qos, publish->payload.len);
    if (conn->version == MQTT_V5) {
        acknowledge(conn, publish->qos, publish->packet_id, MQTT_REASON_NOT_AUTHORIZED);
        return DISPATCH_DONE;
    }
    if (publish->qos == 2 && incoming_hold(&conn->session->incoming, publish->packet_id, true))
        return out_of_memory(conn, 2, publish->packet_id);
    acknowledge(conn, publish->qos, publish->packet_id, MQTT_REASON_SUCCESS);
    return DISPATCH_DONE;
}

/* Topics that no client may publish to. */
static enum dispatch publish_refused(struct conn *conn, const struct mqtt_publish *publish,
                                     chr_slice topic, bool peers)
{
    chr_log_notice("mqtt", "publish refused", CHR_KV_S("client", session_conn_client(conn)),
                   CHR_KV_C("address", conn->address), CHR_KV_S("topic", topic));
    if (conn->loop->node->peers && route_is_peers(topic))
        peers_count_stranger(conn->loop->node->peers);
    session__count_publish(conn, publish->qos, publish->payload.len);
    if (conn->version == MQTT_V5 && publish->qos && !peers) {
        acknowledge(conn, publish->qos, publish->packet_id, MQTT_REASON_NOT_AUTHORIZED);
        return DISPATCH_DONE;
    }
    /* At QoS 0 there is nothing to say it with, and 3.1.1 knows no other answer (its 3.3.5). */
    return session_fault_of(conn, MQTT_REASON_NOT_AUTHORIZED, "3.3.5",
                            "clients may not publish to this topic");
}

/* 3.3.2.3.2: it says that it is UTF-8, and is not. */
static enum dispatch payload_invalid(struct conn *conn, const struct mqtt_publish *publish)
{
    static const char text[] =
        "the payload is not UTF-8, which its Payload Format Indicator says it is";
    if (publish->qos == 0) /* there is no other way to say it */
        return session_fault_of(conn, MQTT_REASON_PAYLOAD_FORMAT_INVALID, "3.3.2.3.2", text);
    session__count_publish(conn, publish->qos, publish->payload.len);
    uint32_t sequence =
        conn_ack_begin(conn, publish->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, publish->packet_id);
    conn_ack_set_reason(conn, sequence, MQTT_REASON_PAYLOAD_FORMAT_INVALID,
                        conn->session->problem_information ? chr_slice_cstr(text) : CHR_LIT(""));
    conn_ack_done(conn, sequence, 1, MQTT_REASON_PAYLOAD_FORMAT_INVALID);
    return DISPATCH_DONE;
}

/* Above message_size_limit: neither delivered nor stored. 5.0 hears of it where it has an
 * acknowledgement; 3.1.1 knows no way but to end the connection, as for what it may not publish;
 * at QoS 0 the message is dropped, as it may be. */
static enum dispatch publish_too_large(struct conn *conn, const struct mqtt_publish *publish)
{
    session__count_publish(conn, publish->qos, publish->payload.len);
    LOOP_COUNT_DROP(conn->loop, DROP_SIZE);
    limit_hit(conn->loop, LIMIT_MESSAGE_SIZE, session_conn_client(conn), conn->address);
    if (publish->qos == 0)
        return DISPATCH_DONE;
    if (conn->version == MQTT_V5) {
        uint32_t sequence =
            conn_ack_begin(conn, publish->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, publish->packet_id);
        conn_ack_set_reason(conn, sequence, MQTT_REASON_QUOTA_EXCEEDED,
                            conn->session->problem_information
                                ? CHR_LIT("the payload is larger than message_size_limit")
                                : CHR_LIT(""));
        conn_ack_done(conn, sequence, 1, MQTT_REASON_QUOTA_EXCEEDED);
        return DISPATCH_DONE;
    }
    session_end_connection(conn, MQTT_REASON_PACKET_TOO_LARGE, NULL);
    return DISPATCH_CLOSE;
}

/* ---- All of it --------------------------------------------------------------------------------
 */

/* The topic of a packet that may name it by alias (3.3.2.3.4). False: a fault, closed. */
static bool resolve_alias(struct conn *conn, const struct mqtt_publish *publish, chr_slice *topic)
{
    struct session *s = conn->session;
    *topic = publish->topic;
    if (!mqtt_has(&publish->properties, MQTT_PROPERTY_TOPIC_ALIAS))
        return true;
    uint16_t alias = publish->properties.topic_alias;
    if (alias > conn->topic_alias_maximum) {
        (void)session_fault_of(conn, MQTT_REASON_TOPIC_ALIAS_INVALID, "MQTT-3.3.2-9",
                               "Topic Alias above the Topic Alias Maximum");
        return false;
    }
    if (publish->topic.len) {
        if (aliases_set(&s->aliases, alias, publish->topic) == CHR_OK)
            return true;
        (void)out_of_memory(conn, 0, 0);
        return false;
    }
    *topic = aliases_get(&s->aliases, alias);
    if (topic->len)
        return true;
    (void)session_fault_of(conn, MQTT_REASON_PROTOCOL_ERROR, "3.3.2.3.4",
                           "Topic Alias without a topic and never set");
    return false;
}

enum dispatch session__handle_publish(struct conn *conn, struct slab *slab, chr_slice raw,
                                      const struct mqtt_frame *frame)
{
    /* [MQTT-3.2.2-11]; a QoS of 3 is malformed, which is said below */
    unsigned qos = (frame->flags >> 1) & 3u;
    if (CHR_UNLIKELY(qos > conn->listener->config->max_qos) && qos < 3)
        return session_fault_of(conn, MQTT_REASON_QOS_NOT_SUPPORTED, "MQTT-3.2.2-11",
                                "the QoS is above the Maximum QoS");
    if (CHR_UNLIKELY(frame->flags & 1) && !conn->loop->node->config->retain_available)
        return session_fault_of(conn, MQTT_REASON_RETAIN_NOT_SUPPORTED, "MQTT-3.2.2-14",
                                "retained messages are not taken (retain_available)");
    enum dispatch fast = publish_fast(conn, slab, raw, frame);
    if (CHR_LIKELY(fast != DISPATCH_CLOSE))
        return fast;

    struct mqtt_publish publish;
    struct mqtt_fault fault;
    if (mqtt_decode_publish(frame, conn->version, &publish, &fault))
        return session_fault(conn, &fault);
    struct session *s = conn->session;
    struct broker_loop *loop = conn->loop;
    struct packet p = {.conn = conn, .slab = slab, .raw = raw, .publish = &publish};
    if (!resolve_alias(conn, &publish, &p.topic))
        return DISPATCH_CLOSE;
    p.by_alias = publish.topic.len == 0;
    if (mqtt_topic_levels(p.topic) > loop->node->config->max_topic_levels) {
        limit_hit(loop, LIMIT_TOPIC_LEVELS, s->client_id, conn->address);
        return session_fault_of(conn, MQTT_REASON_TOPIC_NAME_INVALID, "4.7",
                                "the topic has more levels than max_topic_levels");
    }
    if (publish.qos) {
        if (receive_maximum_exceeded(conn, s, publish.packet_id))
            return session_fault_of(conn, MQTT_REASON_RECEIVE_MAXIMUM_EXCEEDED, "MQTT-3.3.4-9",
                                    "more publishes in flight than the Receive Maximum");
        if (acks_full(conn))
            return DISPATCH_AGAIN;
    }
    if (publish.qos == 2 && incoming_settled(&s->incoming, publish.packet_id)) {
        /* Said twice: acknowledged, never passed on again [MQTT-4.3.3-10]. */
        acknowledge(conn, 2, publish.packet_id, MQTT_REASON_SUCCESS);
        return DISPATCH_DONE;
    }
    if (publish.properties.payload_format_indicator == 1 &&
        !incoming_held(&s->incoming, publish.packet_id) && !chr_utf8_valid(publish.payload))
        return payload_invalid(conn, &publish);
    uint32_t most = loop->node->config->message_size_limit;
    if (CHR_UNLIKELY(most && publish.payload.len > most))
        return publish_too_large(conn, &publish);
    if (!session__current(loop))
        return pause_for_batch(conn);
    struct route *route = routes_get(&state_of(loop)->routes, p.topic);
    if (!route)
        return out_of_memory(conn, publish.qos, publish.packet_id);
    switch (route->kind) {
    case ROUTE_SQL:
    case ROUTE_SQL_TOKEN:
        return sql_request_publish(conn, p.topic, &publish);
    case ROUTE_CANCEL:
        sql_request_cancel(conn, p.topic, &publish);
        if (publish.qos == 2 && incoming_hold(&s->incoming, publish.packet_id, true))
            return out_of_memory(conn, 2, publish.packet_id);
        acknowledge(conn, publish.qos, publish.packet_id, MQTT_REASON_SUCCESS);
        return DISPATCH_DONE;
    case ROUTE_PEERS:
    case ROUTE_REFUSED:
        return publish_refused(conn, &publish, p.topic, route->kind == ROUTE_PEERS);
    case ROUTE_PLAIN:
        break;
    }
    if (!session__may_publish(conn, route))
        return publish_denied(conn, &publish);
    if (route->ingest && !asked_class(&p))
        return DISPATCH_DONE;
    if (s->plain_in_log && conn->batch_inflight == 0)
        s->plain_in_log = false;
    /* R6: one of its topic is on its way; or the log may know its packet id (R5). */
    bool behind = s->plain_in_log || route->logged > loop->batch_answered ||
                  (publish.qos == 2 && s->durable &&
                   (publish.dup || incoming_held(&s->incoming, publish.packet_id)));
    if (route->ingest || behind || session__verbatim(loop, route, publish.qos, publish.retain)) {
        enum into_batch outcome;
        enum dispatch result = publish_logged(&p, route, behind, &outcome);
        if (outcome != INTO_BATCH_PLAIN)
            return result;
        route = routes_get(&state_of(loop)->routes, p.topic);
        if (!route)
            return out_of_memory(conn, publish.qos, publish.packet_id);
    }
    return publish_plain(&p, route);
}

/* ---- After commit -----------------------------------------------------------------------------
 */

/* One committed message to its subscribers. i: its number in the run. */
static void deliver_committed(struct broker_loop *loop, const struct batch *batch,
                              const struct batch_run *run, uint32_t i,
                              const struct mqtt_frame *frame, uint64_t publisher)
{
    if (run->guards && batch_guard_duplicate(batch, run->guard_first + i))
        return; /* it was delivered when it was committed the first time */
    struct mqtt_publish publish;
    struct mqtt_fault fault;
    chr_err err = mqtt_decode_publish(frame, run->version, &publish, &fault);
    if (err) /* not possible: it was decoded when it came */
        return;
    chr_slice topic = run->topic.len ? run->topic : publish.topic;
    struct routes *routes = &state_of(loop)->routes;
    struct route *route = routes_get(routes, topic);
    const struct match *match = route ? route_match(routes, route) : NULL;
    if (run->logged && route)
        route->logged_index = batch->proposal.index;
    if (!match || !(run->logged || !run->across ? match_here(match) : match_any(match)))
        return;
    struct message *m = session__message_from(loop, &publish, topic, publisher);
    if (!m) {
        LOOP_COUNT_DROP(loop, DROP_MEMORY);
        return;
    }
    m->logged = run->logged;
    m->local = !run->across && !run->logged;
    session__deliver(loop, m, route);
    message_unref(m);
}

void session_run_answered(struct broker_loop *loop, const struct batch *batch,
                          const struct batch_run *run)
{
    const struct conn *conn = loop_conn(loop, run->conn);
    uint64_t publisher = conn && conn->session ? conn->session->number : 0;
    chr_slice rest = run->raw;
    for (uint32_t i = 0; rest.len; i++) {
        struct mqtt_frame frame;
        int n = mqtt_frame(rest, 0, &frame);
        if (n <= 0)
            return;
        deliver_committed(loop, batch, run, i, &frame, publisher);
        rest.ptr += n;
        rest.len -= (size_t)n;
    }
}
