/* broker/session/handle_subscribe.c: SUBSCRIBE and UNSUBSCRIBE (3.8 to 3.11). */
#include <stdlib.h>

#include "base/log.h"
#include "broker/session/internal.h"
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

static struct wanted examine(chr_slice text)
{
    struct wanted w = {.code = MQTT_REASON_SUCCESS};
    if (mqtt_share_parse(text, &w.group, &w.filter) < 0)
        w.code = MQTT_REASON_TOPIC_FILTER_INVALID;
    else if (mqtt_topic_levels(w.filter) > MQTT_TOPIC_LEVELS_MAX)
        w.code = MQTT_REASON_TOPIC_FILTER_INVALID;
    else if (!allowed(w.filter))
        w.code = MQTT_REASON_NOT_AUTHORIZED;
    return w;
}

/* ---- SUBSCRIBE --------------------------------------------------------------------------------
 */

struct retained_out {
    struct session *session;
    struct subscription_options options;
    chr_slice ids;
    uint32_t count;
};

static bool send_retained(void *arg, struct message *message)
{
    struct retained_out *out = arg;
    out->count++;
    if (out->options.no_local && message->publisher == out->session->number)
        return true; /* [MQTT-3.8.3-3] */
    /* The flag is set: this message was retained [MQTT-3.3.1-8]. */
    return session_deliver_retained(out->session, message, CHR_MIN(out->options.qos, message->qos),
                                    true, out->ids) == CHR_OK;
}

static void deliver_retained(struct session *s, chr_slice filter,
                             const struct subscription_options *options)
{
    uint8_t block[8];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    if (options->id)
        mqtt_put_number(&w, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, options->id);
    struct retained_out out = {s, *options, mqtt_property_block(&w), 0};
    retained_match(s->loop->node->retained, filter, s->loop->now_mono_us, send_retained, &out);
}

static uint8_t subscribe_one(struct session *s, const struct mqtt_subscription *sub, uint32_t id,
                             bool *existed)
{
    struct wanted w = examine(sub->filter);
    if (w.code >= 0x80)
        return w.code;
    uint32_t most = s->loop->node->config->max_subscriptions_per_client;
    if (most && s->subscriptions_count >= most)
        return MQTT_REASON_QUOTA_EXCEEDED;
    struct subscription_options options = {.qos = sub->qos,
                                           .no_local = sub->no_local,
                                           .retain_as_published = sub->retain_as_published,
                                           .retain_handling = sub->retain_handling,
                                           .id = id};
    if (subscriptions_add(s->loop->node->subscriptions, s, w.group, w.filter, &options, existed))
        return MQTT_REASON_QUOTA_EXCEEDED;
    chr_log_debug("mqtt", "subscribed", CHR_KV_S("client", s->client_id),
                  CHR_KV_S("filter", sub->filter), CHR_KV_U("qos", sub->qos));
    return sub->qos;
}

/* After SUBACK: what is retained, for each filter that was granted (3.8.3.1, retain handling). */
static void send_all_retained(struct session *s, const struct mqtt_subscribe *subscribe,
                              const uint8_t *codes, const bool *existed)
{
    struct mqtt_filter_iter it = {subscribe->filters};
    struct mqtt_subscription sub;
    for (uint32_t i = 0; mqtt_subscribe_next(&it, &sub); i++) {
        chr_slice group, filter;
        if (codes[i] >= 0x80 || mqtt_share_parse(sub.filter, &group, &filter) != 0)
            continue; /* a shared subscription gets none (4.8.2) */
        if (sub.retain_handling == MQTT_RETAIN_DONT_SEND ||
            (sub.retain_handling == MQTT_RETAIN_SEND_IF_NEW && existed[i]))
            continue;
        struct subscription_options options = {.qos = sub.qos,
                                               .no_local = sub.no_local,
                                               .id = subscribe->properties.subscription_identifier};
        deliver_retained(s, filter, &options);
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

static void send_suback(struct conn *conn, uint16_t packet_id, chr_slice codes)
{
    struct mqtt_suback suback = {.packet_id = packet_id, .reason_codes = codes};
    size_t size = mqtt_encode_suback_size(conn->version, &suback);
    uint8_t *at = conn_out_reserve(conn, size);
    if (at)
        conn_out_commit(conn, mqtt_encode_suback(at, size, conn->version, &suback));
}

enum dispatch session__handle_subscribe(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_subscribe subscribe;
    struct mqtt_fault fault;
    struct session *s = conn->session;
    if (mqtt_decode_subscribe(frame, conn->version, &subscribe, &fault))
        return session_fault(conn, &fault);
    struct mqtt_suback answer = {.reason_codes = {NULL, subscribe.filters_count}};
    if (answer_too_large(conn, mqtt_encode_suback_size(conn->version, &answer)))
        return DISPATCH_CLOSE;
    uint8_t *codes = calloc(subscribe.filters_count, 2);
    if (!codes) {
        session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        return DISPATCH_CLOSE;
    }
    bool *existed = (bool *)(codes + subscribe.filters_count);
    struct mqtt_filter_iter it = {subscribe.filters};
    struct mqtt_subscription sub;
    for (uint32_t i = 0; mqtt_subscribe_next(&it, &sub); i++)
        codes[i] =
            subscribe_one(s, &sub, subscribe.properties.subscription_identifier, &existed[i]);
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
    uint8_t *codes = calloc(unsubscribe.filters_count, 1);
    if (!codes) {
        session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        return DISPATCH_CLOSE;
    }
    struct mqtt_filter_iter it = {unsubscribe.filters};
    chr_slice filter;
    for (uint32_t i = 0; mqtt_unsubscribe_next(&it, &filter); i++)
        codes[i] = unsubscribe_one(conn->session, filter);
    struct mqtt_unsuback unsuback = {
        .packet_id = unsubscribe.packet_id,
        .reason_codes =
            conn->version == MQTT_V5 ? chr_slice_of(codes, unsubscribe.filters_count) : CHR_LIT(""),
    };
    size_t size = mqtt_encode_unsuback_size(conn->version, &unsuback);
    uint8_t *at = conn_out_reserve(conn, size);
    if (at)
        conn_out_commit(conn, mqtt_encode_unsuback(at, size, conn->version, &unsuback));
    free(codes);
    return DISPATCH_DONE;
}
