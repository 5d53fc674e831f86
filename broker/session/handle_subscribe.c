/* broker/session/handle_subscribe.c: SUBSCRIBE and UNSUBSCRIBE (3.8 to 3.11). */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bridge/peers.h"
#include "broker/session/across.h"
#include "broker/session/authorize.h"
#include "broker/session/internal.h"
#include "db/durable.h"
#include "proto/mqtt/encode.h"
#include "proto/mqtt/topic.h"

/* ---- What may be asked for --------------------------------------------------------------------
 */

static bool under(chr_slice filter, chr_slice prefix)
{
    return chr_slice_starts(filter, prefix) &&
           (filter.len == prefix.len || filter.ptr[prefix.len] == '/');
}

/* Filters under `$` (design 2.2): $SYS, rejects, and a result by its exact name (R1). */
static bool allowed(chr_slice filter)
{
    if (filter.len == 0 || filter.ptr[0] != '$')
        return true;
    if (under(filter, CHR_LIT("$chronos"))) {
        if (under(filter, CHR_LIT("$chronos/reject")))
            return true;
        chr_slice result = CHR_LIT("$chronos/result/");
        return chr_slice_starts(filter, result) && filter.len > result.len &&
               !mqtt_topic_has_wildcard(filter);
    }
    /* Names that a later version gives a meaning to. */
    return !under(filter, CHR_LIT("$delayed")) && !under(filter, CHR_LIT("$replay")) &&
           !under(filter, CHR_LIT("$dlq"));
}

/* A filter taken apart. code: what SUBACK says when it is 0x80 or above. */
struct wanted {
    chr_slice group, filter;
    uint8_t code;
};

static struct wanted examine(chr_slice text, uint32_t levels_max)
{
    struct wanted w = {.code = MQTT_REASON_SUCCESS};
    if (mqtt_share_parse(text, &w.group, &w.filter) < 0)
        w.code = MQTT_REASON_TOPIC_FILTER_INVALID;
    else if (mqtt_topic_levels(w.filter) > levels_max)
        w.code = MQTT_REASON_TOPIC_FILTER_INVALID;
    else if (!allowed(w.filter))
        w.code = MQTT_REASON_NOT_AUTHORIZED;
    return w;
}

static enum dispatch out_of_memory(struct conn *conn)
{
    session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
    return DISPATCH_CLOSE;
}

/* ---- SUBSCRIBE --------------------------------------------------------------------------------
 */

/* Retained messages that a filter matches, with references: they are given to the session after the
 * store's lock was left. */
struct retained_found {
    struct db_message **messages;
    uint32_t count, max;
};

struct retained_out {
    struct session *session;
    uint8_t qos;
    bool no_local;
    chr_slice ids;
};

static bool send_own(void *arg, struct message *message)
{
    struct retained_out *out = arg;
    if (!session__may_read(out->session, message->topic))
        return true;
    if (out->no_local && message->publisher == out->session->number)
        return true; /* [MQTT-3.8.3-3] */
    /* The flag is set: this message was retained [MQTT-3.3.1-8]. */
    return session_deliver_retained(out->session, message, NULL, CHR_MIN(out->qos, message->qos),
                                    true, out->ids) == CHR_OK;
}

static bool find_stored(void *arg, struct db_message *message)
{
    struct retained_found *found = arg;
    if (found->count == found->max) {
        uint32_t max = found->max ? found->max * 2 : 16;
        struct db_message **bigger =
            realloc((void *)found->messages, max * sizeof(struct db_message *));
        if (!bigger)
            return false;
        found->messages = bigger;
        found->max = max;
    }
    db_message_ref(message);
    found->messages[found->count++] = message;
    return true;
}

/* The node's own ($SYS) are in memory, those of clients in the database. A durable session has the
 * latter above QoS 0 in its queue already. */
static void deliver_retained(struct session *s, chr_slice filter,
                             const struct subscription_options *options)
{
    uint8_t block[8];
    struct broker_node *node = s->loop->node;
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    if (options->id)
        mqtt_put_number(&w, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, options->id);
    struct retained_out out = {s, options->qos, options->no_local, mqtt_property_block(&w)};
    retained_match(node->retained, filter, s->loop->now_mono_us, send_own, &out);
    struct retained_found found = {0};
    if (node->db)
        db_retained_read(node->db, filter, s->loop->now_wall_us, find_stored, &found);
    for (uint32_t i = 0; i < found.count; i++) {
        struct db_message *m = found.messages[i];
        uint8_t qos = CHR_MIN(options->qos, m->qos);
        bool own = options->no_local && m->publisher == session__publisher(s); /* [MQTT-3.8.3-3] */
        if (!own && !(s->durable && qos) && session__may_read(s, m->topic) &&
            session_deliver_retained(s, NULL, m, qos, true, out.ids) != CHR_OK)
            session__count_dropped(s, DROP_MEMORY);
        db_message_unref(m);
    }
    free((void *)found.messages);
}

/* In a cluster: the peers are to hear of the filters first (across.h, A2). The packet is shown
 * again when they have. */
static enum dispatch tell_peers(struct conn *conn, const struct mqtt_subscribe *subscribe)
{
    struct session *s = conn->session;
    const struct broker_config *config = s->loop->node->config;
    struct across_subscribe *wait = across_subscribe_begin(conn);
    if (!wait)
        return out_of_memory(conn);
    struct mqtt_filter_iter it = {subscribe->filters};
    struct mqtt_subscription sub;
    while (mqtt_subscribe_next(&it, &sub)) {
        struct wanted w = examine(sub.filter, config->max_topic_levels);
        if (w.code >= 0x80) /* who may not subscribe is told so later: no harm until then */
            continue;
        if (across_subscribe_add(wait, w.group, w.filter, s->durable && sub.qos)) {
            across_subscribe_end(conn);
            return out_of_memory(conn);
        }
    }
    across_subscribe_wait(wait);
    return DISPATCH_AGAIN;
}

static uint8_t subscribe_one(struct session *s, const struct mqtt_subscription *sub, uint32_t id,
                             bool *existed)
{
    const struct broker_config *config = s->loop->node->config;
    struct wanted w = examine(sub->filter, config->max_topic_levels);
    if (w.code == MQTT_REASON_TOPIC_FILTER_INVALID &&
        mqtt_topic_levels(sub->filter) > config->max_topic_levels)
        limit_hit(s->loop, LIMIT_TOPIC_LEVELS, s->client_id, s->conn->address);
    if (w.code >= 0x80)
        return w.code;
    if (!session__may_subscribe(s->conn, w.filter, w.group.len > 0))
        return MQTT_REASON_NOT_AUTHORIZED;
    uint32_t most = config->max_subscriptions_per_client;
    /* One that is there already may be replaced. */
    if (most && s->subscriptions_count >= most &&
        !subscriptions_has(s->loop->node->subscriptions, s, w.group, w.filter)) {
        limit_hit(s->loop, LIMIT_SUBSCRIPTIONS, s->client_id, s->conn->address);
        return MQTT_REASON_QUOTA_EXCEEDED;
    }
    struct subscription_options options = {.qos = sub->qos,
                                           .no_local = sub->no_local,
                                           .retain_as_published = sub->retain_as_published,
                                           .retain_handling = sub->retain_handling,
                                           .id = id,
                                           .durable = s->durable};
    if (subscriptions_add(s->loop->node->subscriptions, s, w.group, w.filter, &options, existed))
        return MQTT_REASON_QUOTA_EXCEEDED;
    chr_log_debug("mqtt", "subscribed", CHR_KV_S("client", s->client_id),
                  CHR_KV_S("filter", sub->filter), CHR_KV_U("qos", sub->qos));
    return sub->qos;
}

/* After SUBACK: what is retained, for a filter that was granted (3.8.3.1, retain handling). */
static void send_retained(struct session *s, uint8_t retain_handling, bool existed, bool shared,
                          chr_slice filter, const struct subscription_options *options)
{
    if (shared)
        return; /* a shared subscription gets none (4.8.2) */
    if (retain_handling == MQTT_RETAIN_DONT_SEND ||
        (retain_handling == MQTT_RETAIN_SEND_IF_NEW && existed))
        return;
    deliver_retained(s, filter, options);
}

static void send_all_retained(struct session *s, const struct mqtt_subscribe *subscribe,
                              const uint8_t *codes, const bool *existed)
{
    struct mqtt_filter_iter it = {subscribe->filters};
    struct mqtt_subscription sub;
    for (uint32_t i = 0; mqtt_subscribe_next(&it, &sub); i++) {
        chr_slice group, filter;
        if (codes[i] >= 0x80)
            continue;
        bool shared = mqtt_share_parse(sub.filter, &group, &filter) != 0;
        send_retained(
            s, sub.retain_handling, existed[i], shared, filter,
            &(struct subscription_options){.qos = sub.qos,
                                           .no_local = sub.no_local,
                                           .id = subscribe->properties.subscription_identifier});
    }
    session_pump(s);
}

/* [MQTT-3.1.2-24]: asked for in one packet, it would have to be answered by one that is too large.
 * True: the connection ends. */
static bool answer_too_large(struct conn *conn, size_t size)
{
    if (!conn->client_packet_bytes_max || size <= conn->client_packet_bytes_max)
        return false;
    session_end_connection(conn, MQTT_REASON_PACKET_TOO_LARGE,
                           "the answer is larger than the client's Maximum Packet Size");
    return true;
}

bool session__publishes_wait(struct conn *conn)
{
    if (conn->batch_inflight == 0)
        return false;
    conn_pause(conn, CONN_PAUSE_BATCH); /* an answered batch goes on */
    return true;
}

static void send_suback(struct conn *conn, uint16_t packet_id, chr_slice codes)
{
    struct mqtt_suback suback = {.packet_id = packet_id, .reason_codes = codes};
    size_t size = mqtt_encode_suback_size(conn->version, &suback);
    uint8_t *at = conn_out_reserve(conn, size);
    if (at) {
        conn_out_commit(conn, mqtt_encode_suback(at, size, conn->version, &suback));
        LOOP_COUNT(conn->loop, others_sent, 1);
    }
}

/* ---- By the log -------------------------------------------------------------------------------
 *
 * A durable session's subscriptions are in the tree at once, so that what is published after them
 * is logged after them; they are answered when the log has them. */

/* Would these filters make an operation that no entry should carry? In the packet a filter costs
 * little beside its text, in an entry 16 bytes. */
static bool too_many_for_log(const struct conn *conn, uint32_t filters, chr_slice bytes)
{
    if (log_subscribe_bytes(filters, bytes.len) <= LOG_OP_BYTES_MAX / 2)
        return false;
    chr_log_notice("mqtt", "too many filters in one packet",
                   CHR_KV_S("client", session_conn_client(conn)), CHR_KV_U("filters", filters),
                   CHR_KV_U("bytes", bytes.len));
    return true;
}

/* A block for `count` filters whose text is in `bytes`, copied. NULL: no memory. */
static struct log_subscribe *log_subscribe_new(uint16_t packet_id, uint32_t count, chr_slice bytes,
                                               const uint8_t **copy)
{
    size_t items = sizeof(struct db_subscription) * count, places = sizeof(uint32_t) * count;
    struct log_subscribe *what =
        calloc(1, sizeof *what + items + places + 2 * (size_t)count + bytes.len);
    if (!what)
        return NULL;
    what->packet_id = packet_id;
    what->codes_count = count;
    what->text_bytes = bytes.len;
    what->items = (struct db_subscription *)(what + 1);
    what->places = (uint32_t *)(what->items + count);
    what->codes = (uint8_t *)(what->places + count);
    what->existed = (bool *)(what->codes + count);
    uint8_t *text = (uint8_t *)(what->existed + count);
    memcpy(text, bytes.ptr, bytes.len);
    *copy = text;
    return what;
}

static enum dispatch subscribe_by_log(struct conn *conn, const struct mqtt_subscribe *subscribe,
                                      const uint8_t *codes, const bool *existed)
{
    const uint8_t *text;
    uint32_t count = subscribe->filters_count;
    struct log_subscribe *what =
        log_subscribe_new(subscribe->packet_id, count, subscribe->filters, &text);
    if (!what)
        return out_of_memory(conn);
    memcpy(what->codes, codes, count);
    memcpy(what->existed, existed, count * sizeof *existed);
    struct mqtt_filter_iter it = {chr_slice_of(text, subscribe->filters.len)};
    struct mqtt_subscription sub;
    for (uint32_t i = 0; mqtt_subscribe_next(&it, &sub); i++) {
        if (codes[i] >= 0x80)
            continue;
        struct db_subscription *item = &what->items[what->count];
        what->places[what->count++] = i;
        *item = (struct db_subscription){.qos = sub.qos,
                                         .no_local = sub.no_local,
                                         .retain_as_published = sub.retain_as_published,
                                         .retain_handling = (uint8_t)sub.retain_handling,
                                         .id = subscribe->properties.subscription_identifier};
        (void)mqtt_share_parse(sub.filter, &item->group, &item->filter);
    }
    if (what->count == 0) {
        send_suback(conn, what->packet_id, chr_slice_of(what->codes, count));
        free(what);
    } else if (session__log_subscribe(conn, what)) {
        free(what);
        return out_of_memory(conn);
    }
    return DISPATCH_DONE;
}

void session__subscribed(struct session *s, struct conn *conn, const struct log_subscribe *what,
                         const struct db_op_result *result)
{
    struct subscriptions *subs = s->loop->node->subscriptions;
    uint32_t taken = result->err ? 0 : result->rows;
    if (result->err && (!conn || conn->session != s))
        return; /* of a connection, and perhaps a session, that is history */
    for (uint32_t i = taken; i < what->count; i++) {
        what->codes[what->places[i]] = MQTT_REASON_QUOTA_EXCEEDED;
        (void)subscriptions_remove(subs, s, what->items[i].group, what->items[i].filter);
    }
    if (!conn || conn->session != s || conn->state != CONN_OPEN)
        return;
    if (result->err == CHR_ENOTFOUND) {
        /* A newer connection of the session came first, or its end: what it could have is not the
         * question, and a client that is told 0x97 might not ask again. */
        session_is_history(conn);
        return;
    }
    send_suback(conn, what->packet_id, chr_slice_of(what->codes, what->codes_count));
    for (uint32_t i = 0; i < taken && s->conn; i++) {
        const struct db_subscription *item = &what->items[i];
        send_retained(s, item->retain_handling, what->existed[what->places[i]],
                      item->group.len != 0, item->filter,
                      &(struct subscription_options){
                          .qos = item->qos, .no_local = item->no_local, .id = item->id});
    }
    if (s->conn)
        session_pump(s);
}

struct restore {
    struct session *session;
    chr_err err;
    struct restored {
        struct restored *next;
        struct subscription_options options;
        size_t group_len, filter_len;
        uint8_t text[];
    } * list;
};

static void copy_subscription(void *arg, const struct db_subscription *sub)
{
    struct restore *r = arg;
    struct restored *copy = r->err ? NULL : malloc(sizeof *copy + sub->group.len + sub->filter.len);
    if (!copy) {
        r->err = CHR_ENOMEM;
        return;
    }
    *copy = (struct restored){.next = r->list,
                              .options = {.qos = sub->qos,
                                          .no_local = sub->no_local,
                                          .retain_as_published = sub->retain_as_published,
                                          .retain_handling = sub->retain_handling,
                                          .id = sub->id,
                                          .durable = true},
                              .group_len = sub->group.len,
                              .filter_len = sub->filter.len};
    if (sub->group.len)
        memcpy(copy->text, sub->group.ptr, sub->group.len);
    memcpy(copy->text + sub->group.len, sub->filter.ptr, sub->filter.len);
    r->list = copy;
}

chr_err session__restore_subscriptions(struct session *s)
{
    struct restore r = {.session = s};
    db_subscriptions_read(s->loop->node->db, s->epoch, copy_subscription, &r);
    while (r.list) {
        struct restored *copy = r.list;
        bool existed;
        if (!r.err)
            r.err = subscriptions_add(s->loop->node->subscriptions, s,
                                      chr_slice_of(copy->text, copy->group_len),
                                      chr_slice_of(copy->text + copy->group_len, copy->filter_len),
                                      &copy->options, &existed);
        r.list = copy->next;
        free(copy);
    }
    return r.err;
}

/* Where there are peers, whoever wants to listen to them is none (T4): the connection ends. A node
 * alone has nothing to hide there and refuses the filter. */
static bool asks_for_peers(const struct mqtt_subscribe *subscribe)
{
    struct mqtt_filter_iter it = {subscribe->filters};
    struct mqtt_subscription sub;
    while (mqtt_subscribe_next(&it, &sub)) {
        chr_slice group, filter;
        if (mqtt_share_parse(sub.filter, &group, &filter) >= 0 && route_is_peers(filter))
            return true;
    }
    return false;
}

enum dispatch session__handle_subscribe(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_subscribe subscribe;
    struct mqtt_fault fault;
    struct session *s = conn->session;
    if (mqtt_decode_subscribe(frame, conn->version, &subscribe, &fault))
        return session_fault(conn, &fault);
    if (CHR_UNLIKELY(s->loop->node->peers != NULL) && asks_for_peers(&subscribe)) {
        peers_count_stranger(s->loop->node->peers);
        return session_fault_of(conn, MQTT_REASON_NOT_AUTHORIZED, "3.8.4",
                                "clients may not subscribe to what peers say");
    }
    struct mqtt_suback answer = {.reason_codes = {NULL, subscribe.filters_count}};
    if (answer_too_large(conn, mqtt_encode_suback_size(conn->version, &answer)))
        return DISPATCH_CLOSE;
    if (session__publishes_wait(conn) || (s->durable && session__log_ops_wait(conn)))
        return DISPATCH_AGAIN;
    bool across = across_of(s->loop->node) != NULL;
    if (CHR_UNLIKELY(across) && !conn->subscribe)
        return tell_peers(conn, &subscribe);
    if (CHR_UNLIKELY(across) && !across_subscribe_ready(conn->subscribe)) {
        conn_pause(conn, CONN_PAUSE_PEERS);
        return DISPATCH_AGAIN;
    }
    uint8_t *codes = calloc(subscribe.filters_count, 2);
    if (!codes)
        return out_of_memory(conn);
    if (s->durable && too_many_for_log(conn, subscribe.filters_count, subscribe.filters)) {
        memset(codes, MQTT_REASON_QUOTA_EXCEEDED, subscribe.filters_count);
        across_subscribe_end(conn);
        send_suback(conn, subscribe.packet_id, chr_slice_of(codes, subscribe.filters_count));
        free(codes);
        return DISPATCH_DONE;
    }
    bool *existed = (bool *)(codes + subscribe.filters_count);
    struct mqtt_filter_iter it = {subscribe.filters};
    struct mqtt_subscription sub;
    for (uint32_t i = 0; mqtt_subscribe_next(&it, &sub); i++)
        codes[i] =
            subscribe_one(s, &sub, subscribe.properties.subscription_identifier, &existed[i]);
    across_subscribe_end(conn);
    if (s->durable) {
        enum dispatch result = subscribe_by_log(conn, &subscribe, codes, existed);
        free(codes);
        return result;
    }
    send_suback(conn, subscribe.packet_id, chr_slice_of(codes, subscribe.filters_count));
    send_all_retained(s, &subscribe, codes, existed);
    free(codes);
    return DISPATCH_DONE;
}

/* ---- UNSUBSCRIBE ------------------------------------------------------------------------------
 */

static uint8_t unsubscribe_one(struct session *s, chr_slice text)
{
    chr_slice group, filter;
    if (mqtt_share_parse(text, &group, &filter) < 0)
        return MQTT_REASON_TOPIC_FILTER_INVALID;
    return subscriptions_remove(s->loop->node->subscriptions, s, group, filter)
               ? MQTT_REASON_SUCCESS
               : MQTT_REASON_NO_SUBSCRIPTION_EXISTED;
}

static void send_unsuback(struct conn *conn, uint16_t packet_id, chr_slice codes)
{
    struct mqtt_unsuback unsuback = {
        .packet_id = packet_id,
        .reason_codes = conn->version == MQTT_V5 ? codes : CHR_LIT(""),
    };
    size_t size = mqtt_encode_unsuback_size(conn->version, &unsuback);
    uint8_t *at = conn_out_reserve(conn, size);
    if (at) {
        conn_out_commit(conn, mqtt_encode_unsuback(at, size, conn->version, &unsuback));
        LOOP_COUNT(conn->loop, others_sent, 1);
    }
}

static enum dispatch unsubscribe_by_log(struct conn *conn,
                                        const struct mqtt_unsubscribe *unsubscribe,
                                        const uint8_t *codes)
{
    const uint8_t *text;
    uint32_t count = unsubscribe->filters_count;
    struct log_subscribe *what =
        log_subscribe_new(unsubscribe->packet_id, count, unsubscribe->filters, &text);
    if (!what)
        return out_of_memory(conn);
    memcpy(what->codes, codes, count);
    struct mqtt_filter_iter it = {chr_slice_of(text, unsubscribe->filters.len)};
    chr_slice filter;
    for (uint32_t i = 0; mqtt_unsubscribe_next(&it, &filter); i++) {
        struct db_subscription *item = &what->items[what->count];
        if (codes[i] == MQTT_REASON_SUCCESS &&
            mqtt_share_parse(filter, &item->group, &item->filter) >= 0)
            what->count++;
    }
    if (what->count == 0) {
        send_unsuback(conn, what->packet_id, chr_slice_of(what->codes, count));
        free(what);
    } else if (session__log_unsubscribe(conn, what)) {
        free(what);
        return out_of_memory(conn);
    }
    return DISPATCH_DONE;
}

void session__unsubscribed(struct session *s, struct conn *conn, const struct log_subscribe *what,
                           const struct db_op_result *result)
{
    if (result->err || !conn || conn->session != s || conn->state != CONN_OPEN)
        return;
    send_unsuback(conn, what->packet_id, chr_slice_of(what->codes, what->codes_count));
}

enum dispatch session__handle_unsubscribe(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_unsubscribe unsubscribe;
    struct mqtt_fault fault;
    if (mqtt_decode_unsubscribe(frame, conn->version, &unsubscribe, &fault))
        return session_fault(conn, &fault);
    struct mqtt_unsuback answer = {.reason_codes = {NULL, unsubscribe.filters_count}};
    if (conn->version == MQTT_V5 &&
        answer_too_large(conn, mqtt_encode_unsuback_size(conn->version, &answer)))
        return DISPATCH_CLOSE;
    bool durable = conn->session->durable;
    if (session__publishes_wait(conn) || (durable && session__log_ops_wait(conn)))
        return DISPATCH_AGAIN;
    uint8_t *codes = calloc(unsubscribe.filters_count, 1);
    if (!codes)
        return out_of_memory(conn);
    if (durable && too_many_for_log(conn, unsubscribe.filters_count, unsubscribe.filters)) {
        /* UNSUBACK of 3.1.1 has no way to say so. */
        memset(codes, MQTT_REASON_IMPLEMENTATION_SPECIFIC, unsubscribe.filters_count);
        if (conn->version == MQTT_V5)
            send_unsuback(conn, unsubscribe.packet_id,
                          chr_slice_of(codes, unsubscribe.filters_count));
        free(codes);
        if (conn->version == MQTT_V5)
            return DISPATCH_DONE;
        session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, NULL);
        return DISPATCH_CLOSE;
    }
    struct mqtt_filter_iter it = {unsubscribe.filters};
    chr_slice filter;
    for (uint32_t i = 0; mqtt_unsubscribe_next(&it, &filter); i++)
        codes[i] = unsubscribe_one(conn->session, filter);
    enum dispatch result = DISPATCH_DONE;
    if (durable)
        result = unsubscribe_by_log(conn, &unsubscribe, codes);
    else
        send_unsuback(conn, unsubscribe.packet_id, chr_slice_of(codes, unsubscribe.filters_count));
    free(codes);
    return result;
}
