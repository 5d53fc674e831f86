/* broker/session/publish.c: from a message to rows of the open batch (R3, R5, R9), and messages
 * that the node itself publishes. */
#include "broker/session/publish.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "broker/ingest/ingest.h"
#include "broker/session/across.h"
#include "db/durable.h"
#include "proto/mqtt/encode.h"

/* ---- Rejects (R3) -----------------------------------------------------------------------------
 */

/* The will of a guard is taken by GUARDS alone, which every will in the log needs, whatever becomes
 * of its message: else it would be due for ever. */
static bool of_will(const struct inbound *in)
{
    return in->guarded && in->guard.packet_id == 0;
}

static enum into_batch take_will(struct batch *batch, struct inbound *in, uint32_t guard)
{
    struct batch_message message = {
        .conn = in->ref, .version = in->version, .raw = in->raw, .guard = guard, .rejected = true};
    if (batch_add_message(batch, in->slab, &message)) {
        batch->guards_count--;
        return INTO_BATCH_NO_MEMORY;
    }
    if (batch_full(batch))
        batch_propose(batch);
    return INTO_BATCH_DONE;
}

/* A message that fits no row. Added to the batch as a reject, or counted when there are too many;
 * either way it is acknowledged, with a reason in 5.0, and nobody else sees it. */
static enum into_batch reject(struct batch *batch, struct inbound *in, uint32_t guard,
                              const struct ingest_reject *why)
{
    struct broker_loop *loop = batch->loop;
    in->rejected = true;
    LOOP_COUNT(loop, publishes_rejected, 1);
    chr_log_debug("ingest", "message rejected", CHR_KV_S("topic", in->topic),
                  CHR_KV_C("reason", why->reason.text));
    bool keep = session__reject_allowed(loop, in->topic.len + in->payload.len);
    /* A failing PUBREC ends the flow in 5.0, and its packet id is free again: no guard may
     * remember it. In 3.1.1 PUBREL follows and releases it. */
    if (guard != UINT32_MAX && !of_will(in) && (in->version == MQTT_V5 || !keep)) {
        batch->guards_count--;
        guard = UINT32_MAX;
    }
    if (in->ack_kind && in->conn) {
        if (!in->ack_taken)
            in->ack_sequence = conn_ack_begin(in->conn, in->ack_kind, in->packet_id);
        in->ack_taken = true;
        if (in->version == MQTT_V5) {
            /* Held already when it was first accepted, under other mappings (R9). */
            if (in->qos == 2 && in->conn->session)
                (void)incoming_release(&in->conn->session->incoming, in->packet_id);
            bool text = in->conn->session && in->conn->session->problem_information;
            conn_ack_set_reason(in->conn, in->ack_sequence,
                                keep ? MQTT_REASON_PAYLOAD_FORMAT_INVALID
                                     : MQTT_REASON_QUOTA_EXCEEDED,
                                text ? chr_slice_cstr(why->reason.text) : CHR_LIT(""));
        }
    }
    if (!keep && of_will(in))
        return take_will(batch, in, guard);
    if (!keep) {
        if (in->moved && in->conn)
            in->conn->batch_inflight--;
        if (in->ack_kind && in->conn)
            conn_ack_done(in->conn, in->ack_sequence, 1, MQTT_REASON_SUCCESS);
        return INTO_BATCH_DONE;
    }
    struct db_reject kept = {
        .table_id = why->table_id,
        .guard = guard,
        .topic = in->topic,
        .payload = in->payload,
        .reason = chr_slice_cstr(why->reason.text),
        .received_at_us = loop->now_wall_us,
    };
    struct batch_message message = {
        .conn = in->ref,
        .version = in->version,
        .raw = in->raw,
        .alias_topic = in->alias_topic,
        .has_ack = in->ack_kind != 0,
        .ack_sequence = in->ack_sequence,
        .guard = guard,
        .rejected = true,
    };
    if (batch_add_message(batch, in->slab, &message) || batch_add_reject(batch, &kept)) {
        if (in->conn)
            conn_close(in->conn);
        return INTO_BATCH_DONE;
    }
    if (in->conn && !in->moved)
        in->conn->batch_inflight++;
    if (batch_full(batch))
        batch_propose(batch);
    return INTO_BATCH_DONE;
}

/* ---- Into the batch ---------------------------------------------------------------------------
 */

/* Is it acknowledged when it is handed over to the log? The class is the one the message asks for,
 * else that of its tables, never below the floor, which is that of its tables unless set. QoS 2 is
 * always quorum, and so is what is decoded again (R9): its acknowledgement waits already. */
static bool is_early(const struct batch *batch, const struct inbound *in, const struct route *route)
{
    unsigned floor = batch->loop->node->config->ack_floor;
    if (CHR_LIKELY(!route->ingest || (route->ack != DB_ACK_MEMORY && !in->ack_asked)))
        return false;
    if (in->qos > 1 || in->moved || !in->conn)
        return false;
    unsigned ack = in->ack_asked ? in->ack_asked - 1u : (unsigned)route->ack;
    return CHR_MIN(ack, floor == ACK_FLOOR_TABLE ? (unsigned)route->ack : floor) == DB_ACK_MEMORY;
}

static enum into_batch add(struct batch *batch, struct inbound *in, const struct route *route,
                           uint32_t guard, bool deliver, bool logged)
{
    if (in->ack_kind && !in->ack_taken) {
        in->ack_sequence = conn_ack_begin(in->conn, in->ack_kind, in->packet_id);
        in->ack_taken = true;
    }
    struct batch_message message = {
        .conn = in->ref,
        .version = in->version,
        .raw = in->raw,
        .alias_topic = in->alias_topic,
        .has_ack = in->ack_kind != 0,
        .ack_sequence = in->ack_sequence,
        .guard = guard,
        .deliver = deliver,
        .logged = logged,
        .across = route->match.peers || route->match.choices_count,
        .early = is_early(batch, in, route),
    };
    if (CHR_UNLIKELY(batch_add_message(batch, in->slab, &message))) {
        /* Its rows are in the batch, but nobody could answer: let the client send it again. */
        if (in->conn)
            conn_close(in->conn);
        return INTO_BATCH_DONE;
    }
    if (in->conn && !in->moved)
        in->conn->batch_inflight++;
    if (CHR_UNLIKELY(batch_full(batch)))
        batch_propose(batch);
    return INTO_BATCH_DONE;
}

/* ---- Verbatim (R6, R7) ------------------------------------------------------------------------
 */

/* Is there room among the retained messages? One that replaces another always fits. The proposer
 * judges: the operation says what is to happen. */
static bool same_topic(void *arg, struct db_message *message)
{
    (void)message;
    *(bool *)arg = true;
    return false;
}

static bool retained_room(struct broker_loop *loop, const struct inbound *in)
{
    const struct broker_config *config = loop->node->config;
    struct db_retained_stats stats;
    if (in->payload.len == 0)
        return true; /* it removes */
    db_retained_stats(loop->node->db, &stats);
    /* Those on their way may all be new topics. */
    if (stats.count + loop->retained_inflight < config->max_retained_messages &&
        stats.bytes + in->topic.len + in->payload.len <= config->max_retained_bytes)
        return true;
    bool there = false;
    if (stats.bytes <= config->max_retained_bytes)
        db_retained_read(loop->node->db, in->topic, loop->now_wall_us, same_topic, &there);
    return there;
}

/* Does the queue of any session take it, wherever its client was last? What is in the database says
 * so, remembered with the route. */
static bool queued(struct broker_loop *loop, struct route *route)
{
    uint64_t version = db_subscriptions_version(loop->node->db) + 1;
    if (CHR_UNLIKELY(route->queued_version != version)) {
        route->queued = db_subscribed(loop->node->db, route_topic(route));
        route->queued_version = version;
    }
    return route->queued;
}

static bool verbatim_in_cluster(struct broker_loop *loop, struct route *route, uint8_t qos)
{
    const struct match *match = route_match(&state_of(loop)->routes, route);
    if (!match)
        return qos > 0;
    if (route->ingest && match->peers)
        return true;
    return qos > 0 && (match->durable || queued(loop, route));
}

bool session__verbatim(struct broker_loop *loop, struct route *route, uint8_t qos, bool retain)
{
    if (retain)
        return true;
    if (CHR_UNLIKELY(across_of(loop->node) != NULL))
        return verbatim_in_cluster(loop, route, qos);
    if (qos == 0)
        return false;
    const struct match *match = route_match(&state_of(loop)->routes, route);
    return !match || match->durable;
}

uint64_t session__publisher(const struct session *s)
{
    if (s->durable)
        return s->epoch;
    /* Like no epoch, and like no session of another node, or of another life of this one. */
    const struct broker_node *node = s->loop->node;
    uint64_t life =
        chr_hash_u64((uint64_t)node->started_wall_us ^ chr_hash_u64(node->dir.node)) & 0x7fffffff;
    return UINT64_C(1) << 63 | life << 32 | (s->number & UINT32_MAX);
}

/* What the log keeps of the message beside its rows. Decoded once more: most messages need none of
 * it. */
static chr_err verbatim_of(struct inbound *in, struct db_publish *out, uint8_t **block)
{
    struct mqtt_frame frame;
    struct mqtt_publish publish;
    struct mqtt_fault fault;
    *block = NULL;
    if (mqtt_frame(in->raw, 0, &frame) <= 0 ||
        mqtt_decode_publish(&frame, in->version, &publish, &fault))
        return CHR_EINVAL; /* not possible: it was decoded when it came */
    const struct session *s = in->conn ? in->conn->session : NULL;
    *out = (struct db_publish){
        .topic = in->topic,
        .payload = in->payload,
        .qos = in->qos,
        .retain = in->retain,
        .expiry_s = mqtt_has(&publish.properties, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL)
                        ? publish.properties.message_expiry_s
                        : UINT32_MAX,
        .publisher = s ? session__publisher(s) : 0,
        .guard = UINT32_MAX,
    };
    return session__forwarded(&publish.properties, block, &out->properties);
}

static void note_too_large(struct broker_loop *loop, const struct inbound *in)
{
    LOOP_COUNT_DROP(loop, DROP_SIZE);
    chr_log_notice("mqtt", "message too large to be retained or queued",
                   CHR_KV_S("topic", in->topic), CHR_KV_U("bytes", in->payload.len));
}

/* Of no table. As above message_size_limit: 3.1.1 can't be told but by the end of its connection.
 */
static enum into_batch too_large(struct batch *batch, struct inbound *in)
{
    note_too_large(batch->loop, in);
    in->rejected = true;
    if (of_will(in)) {
        uint32_t guard = batch_add_guard(batch, &in->guard);
        return guard == UINT32_MAX ? INTO_BATCH_NO_MEMORY : take_will(batch, in, guard);
    }
    struct conn *conn = in->conn;
    if (in->moved && conn)
        conn->batch_inflight--;
    if (!in->ack_kind || !conn)
        return INTO_BATCH_DONE;
    if (in->version != MQTT_V5) {
        session_end_connection(conn, MQTT_REASON_PACKET_TOO_LARGE, NULL);
        return INTO_BATCH_DONE;
    }
    if (!in->ack_taken)
        in->ack_sequence = conn_ack_begin(conn, in->ack_kind, in->packet_id);
    in->ack_taken = true;
    conn_ack_set_reason(conn, in->ack_sequence, MQTT_REASON_QUOTA_EXCEEDED,
                        conn->session && conn->session->problem_information
                            ? CHR_LIT("too large to be retained or queued")
                            : CHR_LIT(""));
    conn_ack_done(conn, in->ack_sequence, 1, MQTT_REASON_SUCCESS);
    return INTO_BATCH_DONE;
}

/* ---- All of it --------------------------------------------------------------------------------
 */

/* What the message is to become; verbatim NULL: rows alone, or nothing but its place. Where the two
 * together do not fit an entry the rows count: they are what is acknowledged, and whoever is there
 * gets the message; it is not retained nor queued, and counted as dropped. */
static enum into_batch into_batch(struct broker_loop *loop, struct inbound *in, struct route *route,
                                  bool plain_too, struct db_publish *verbatim)
{
    struct loop_session_state *state = state_of(loop);
    for (;;) {
        struct batch *batch = loop->batch;
        if (CHR_UNLIKELY(!batch)) {
            uint64_t generation = state->routes_generation;
            batch = session__batch(loop);
            if (!batch)
                return INTO_BATCH_AGAIN;
            if (generation != state->routes_generation)
                route = NULL;
        }
        if (CHR_UNLIKELY(!route)) {
            route = routes_get(&state->routes, in->topic);
            if (!route)
                return INTO_BATCH_NO_MEMORY;
        }
        if (!route->ingest && !plain_too && !verbatim)
            return INTO_BATCH_PLAIN;
        size_t bytes = 0;
        if (CHR_UNLIKELY(verbatim)) {
            bytes = batch_publish_bytes(verbatim->topic, verbatim->properties, verbatim->payload);
            if (bytes > BATCH_PUBLISH_BYTES_MAX ||
                verbatim->properties.len > BATCH_PUBLISH_PROPERTIES_MAX) {
                if (!route->ingest)
                    return too_large(batch, in);
                note_too_large(loop, in);
                verbatim = NULL;
                bytes = 0;
            } else if (!batch_room(batch, bytes)) {
                batch_propose(batch);
                continue;
            }
        }
        uint32_t guard = UINT32_MAX;
        if (in->guarded) {
            guard = batch_add_guard(batch, &in->guard);
            if (guard == UINT32_MAX)
                return INTO_BATCH_NO_MEMORY;
        }
        struct ingest_reject why;
        chr_err err = CHR_OK;
        if (route->ingest) {
            ingest_decoder_room(loop->decoder, batch_rows_room(batch, bytes));
            err = ingest_decode(loop->decoder, route->ingest, in->payload, loop->now_wall_us, guard,
                                &why);
        }
        if (CHR_LIKELY(!err)) {
            const struct match *match = route_match(&state->routes, route);
            if (CHR_UNLIKELY(verbatim || !route->ingest)) /* later ones stay behind it (R6) */
                route->logged = batch->serial;
            if (CHR_UNLIKELY(verbatim)) {
                verbatim->guard = guard;
                if (batch_add_publish(batch, verbatim)) {
                    /* Its rows may be in the batch, but nobody could answer. */
                    if (in->conn)
                        conn_close(in->conn);
                    return INTO_BATCH_DONE;
                }
            }
            return add(batch, in, route, guard, !match || match_any(match), verbatim != NULL);
        }
        if (err != CHR_EFULL && err != CHR_ENOMEM)
            return reject(batch, in, guard, &why);
        if (guard != UINT32_MAX)
            batch->guards_count--;
        if (err == CHR_ENOMEM)
            return INTO_BATCH_NO_MEMORY;
        if (verbatim && batch_empty(batch)) { /* a fresh one has room for the rows alone */
            note_too_large(loop, in);
            verbatim = NULL;
        } else {
            batch_propose(batch);
        }
    }
}

enum into_batch session__into_batch(struct inbound *in, struct route *route, bool plain_too)
{
    struct broker_loop *loop =
        in->slab ? CHR_CONTAINER_OF(in->slab->pool, struct broker_loop, slabs) : in->conn->loop;
    if (CHR_UNLIKELY(!route)) {
        route = routes_get(&state_of(loop)->routes, in->topic);
        if (!route)
            return INTO_BATCH_NO_MEMORY;
    }
    if (CHR_LIKELY(!session__verbatim(loop, route, in->qos, in->retain)))
        return into_batch(loop, in, route, plain_too, NULL);
    if (in->retain && !retained_room(loop, in)) {
        LOOP_COUNT(loop, retained_refused, 1);
        in->retain = false;
        if (!session__verbatim(loop, route, in->qos, false))
            return into_batch(loop, in, route, plain_too, NULL);
    }
    struct db_publish verbatim;
    uint8_t *block;
    chr_err err = verbatim_of(in, &verbatim, &block);
    enum into_batch outcome =
        err ? INTO_BATCH_NO_MEMORY : into_batch(loop, in, route, plain_too, &verbatim);
    free(block);
    return outcome;
}

/* ---- Messages of the node's own ---------------------------------------------------------------
 */

chr_err session__forwarded(const struct mqtt_properties *properties, uint8_t **block,
                           chr_slice *out)
{
    *block = NULL;
    *out = (chr_slice){0};
    if (!(properties->present & MQTT_PROPERTIES_FORWARDED))
        return CHR_OK;
    *block = malloc(properties->raw.len);
    if (!*block)
        return CHR_ENOMEM;
    struct mqtt_property_writer w = mqtt_property_writer(*block, properties->raw.len);
    mqtt_put_copy(&w, properties, MQTT_PROPERTIES_FORWARDED);
    *out = mqtt_property_block(&w);
    return CHR_OK;
}

struct message *session__message_from(const struct broker_loop *loop,
                                      const struct mqtt_publish *publish, chr_slice topic,
                                      uint64_t publisher)
{
    uint8_t *block;
    chr_slice forwarded;
    if (session__forwarded(&publish->properties, &block, &forwarded))
        return NULL;
    struct message *m =
        message_new(topic, forwarded, publish->payload, publish->qos, publish->retain, publisher);
    free(block);
    if (m && mqtt_has(&publish->properties, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL)) {
        m->has_expiry = true;
        m->expires_mono_us =
            loop->now_mono_us + (int64_t)publish->properties.message_expiry_s * 1000000;
    }
    return m;
}

/* A message of the node's own that the log gets takes the road of all others, as a packet in a
 * slab. */
static enum into_batch publish_logged(struct broker_loop *loop, struct message *message,
                                      const struct db_guard *guard, struct route *route)
{
    uint8_t expiry[8];
    struct mqtt_property_writer w = mqtt_property_writer(expiry, sizeof expiry);
    if (message->has_expiry)
        mqtt_put_number(
            &w, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL,
            (uint32_t)((message->expires_mono_us - loop->now_mono_us + 999999) / 1000000));
    struct mqtt_publish publish = {.topic = message->topic,
                                   .payload = message->payload,
                                   .packet_id = message->qos ? 1 : 0,
                                   .qos = message->qos,
                                   .retain = message->retain,
                                   .properties.raw = message->properties};
    size_t packet_bytes = 0;
    size_t head =
        mqtt_encode_publish_head_size(MQTT_V5, &publish, mqtt_property_block(&w), &packet_bytes);
    struct slab *slab = head ? slab_get(&loop->slabs, (uint32_t)packet_bytes) : NULL;
    if (!slab)
        return head ? INTO_BATCH_AGAIN : INTO_BATCH_NO_MEMORY;
    (void)mqtt_encode_publish_head(slab->bytes, head, MQTT_V5, &publish, mqtt_property_block(&w));
    if (message->payload.len)
        memcpy(slab->bytes + head, message->payload.ptr, message->payload.len);
    /* The batch refers to the slab, which it holds; the message may go before it is proposed. */
    chr_slice raw = chr_slice_of(slab->bytes, packet_bytes);
    struct mqtt_frame frame;
    struct mqtt_publish packet;
    struct mqtt_fault fault;
    int whole = mqtt_frame(raw, 0, &frame);
    chr_err err = mqtt_decode_publish(&frame, MQTT_V5, &packet, &fault);
    CHR_ASSERT(whole > 0 && err == CHR_OK); /* encoded just now */
    struct inbound in = {.ref = CONN_REF_NONE,
                         .slab = slab,
                         .raw = raw,
                         .topic = packet.topic,
                         .payload = packet.payload,
                         .version = MQTT_V5,
                         .qos = message->qos,
                         .retain = message->retain};
    if (guard) {
        in.guarded = true;
        in.guard = *guard;
    }
    enum into_batch outcome = session__into_batch(&in, route, guard != NULL);
    slab_unref(slab);
    return outcome;
}

chr_err session__publish(struct broker_loop *loop, struct message *message,
                         const struct db_guard *guard)
{
    if (!session__current(loop))
        return CHR_EFULL;
    struct route *route = routes_get(&state_of(loop)->routes, message->topic);
    if (!route)
        return CHR_ENOMEM;
    if (route->ingest || guard || session__verbatim(loop, route, message->qos, message->retain)) {
        switch (publish_logged(loop, message, guard, route)) {
        case INTO_BATCH_DONE:
            return CHR_OK;
        case INTO_BATCH_AGAIN:
            return CHR_EFULL;
        case INTO_BATCH_NO_MEMORY:
            return CHR_ENOMEM;
        case INTO_BATCH_PLAIN:
            break;
        }
        route = routes_get(&state_of(loop)->routes, message->topic);
        if (!route)
            return CHR_ENOMEM;
    }
    session__deliver(loop, message, route);
    return CHR_OK;
}
