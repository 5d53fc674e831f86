/* proto/mqtt/decode_subscribe.c: SUBSCRIBE, UNSUBSCRIBE and their acknowledgements.
 *
 * All filters are checked before the first is handed out, so that a packet takes effect whole or
 * not at all. */
#include "proto/mqtt/read.h"
#include "proto/mqtt/topic.h"

/* Flags and packet identifier, properties: the same for both requests and both answers. */
static chr_err read_head(struct mqtt__reader *r, const struct mqtt_frame *frame,
                         enum mqtt_version version, enum mqtt__fault_id id_zero,
                         uint16_t *packet_id, struct mqtt_properties *properties,
                         struct mqtt_fault *fault)
{
    if (!mqtt__read_u16(r, packet_id))
        return mqtt__fail(fault, version, MQTT_FAULT_INTEGER_TRUNCATED);
    if (*packet_id == 0)
        return mqtt__fail(fault, version, id_zero);
    if (version == MQTT_V5)
        return mqtt__read_properties(r, frame->type, frame->sender, properties, fault);
    *properties = mqtt_properties_none;
    return CHR_OK;
}

/* One topic filter (4.7, and 4.8.2 in 5.0; to 3.1.1 `$share` means nothing). MQTT__OK or a fault.
 */
static int read_filter(struct mqtt__reader *r, enum mqtt_version version, chr_slice *filter)
{
    int bad = mqtt__read_string(r, filter);
    if (bad != MQTT__OK)
        return bad;
    if (filter->len == 0)
        return MQTT_FAULT_FILTER_EMPTY;
    if (version == MQTT_V5 && (bad = mqtt__share_fault(*filter)) != MQTT__OK)
        return bad;
    return mqtt__wildcard_fault(*filter);
}

/* Subscription options (3.8.3.1). MQTT__OK or a fault. */
static int check_options(uint8_t options, enum mqtt_version version, chr_slice filter)
{
    unsigned qos = options & 3;
    if (version != MQTT_V5)
        return options & 0xfc ? (int)MQTT_FAULT_OPTIONS_RESERVED
               : qos == 3     ? (int)MQTT_FAULT_SUBSCRIBE_QOS_3
                              : MQTT__OK;
    bool no_local = options & 0x04;
    unsigned retain_handling = options >> 4 & 3;
    if (options & 0xc0)
        return MQTT_FAULT_OPTIONS_RESERVED;
    if (qos == 3)
        return MQTT_FAULT_SUBSCRIBE_QOS_3;
    if (retain_handling == 3)
        return MQTT_FAULT_RETAIN_HANDLING_3;
    if (no_local && chr_slice_starts(filter, CHR_LIT("$share/")))
        return MQTT_FAULT_NO_LOCAL_SHARED;
    return MQTT__OK;
}

chr_err mqtt_decode_subscribe(const struct mqtt_frame *frame, enum mqtt_version version,
                              struct mqtt_subscribe *subscribe, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    if (frame->flags != 2)
        return mqtt__fail(fault, version, MQTT_FAULT_SUBSCRIBE_FLAGS);
    chr_err err = read_head(&r, frame, version, MQTT_FAULT_PACKET_ID_ZERO, &subscribe->packet_id,
                            &subscribe->properties, fault);
    if (err)
        return err;
    subscribe->filters = mqtt__rest(&r);
    subscribe->filters_count = 0;
    if (r.at == r.end)
        return mqtt__fail(fault, version, MQTT_FAULT_SUBSCRIBE_EMPTY);
    while (r.at != r.end) {
        chr_slice filter;
        uint8_t options;
        int bad = read_filter(&r, version, &filter);
        if (bad == MQTT__OK)
            bad = mqtt__read_u8(&r, &options) ? check_options(options, version, filter)
                                              : (int)MQTT_FAULT_OPTIONS_MISSING;
        if (bad != MQTT__OK)
            return mqtt__fail(fault, version, (enum mqtt__fault_id)bad);
        subscribe->filters_count++;
    }
    return CHR_OK;
}

chr_err mqtt_decode_unsubscribe(const struct mqtt_frame *frame, enum mqtt_version version,
                                struct mqtt_unsubscribe *unsubscribe, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    if (frame->flags != 2)
        return mqtt__fail(fault, version, MQTT_FAULT_UNSUBSCRIBE_FLAGS);
    chr_err err = read_head(&r, frame, version, MQTT_FAULT_PACKET_ID_ZERO, &unsubscribe->packet_id,
                            &unsubscribe->properties, fault);
    if (err)
        return err;
    unsubscribe->filters = mqtt__rest(&r);
    unsubscribe->filters_count = 0;
    if (r.at == r.end)
        return mqtt__fail(fault, version, MQTT_FAULT_UNSUBSCRIBE_EMPTY);
    while (r.at != r.end) {
        chr_slice filter;
        int bad = read_filter(&r, version, &filter);
        if (bad != MQTT__OK)
            return mqtt__fail(fault, version, (enum mqtt__fault_id)bad);
        unsubscribe->filters_count++;
    }
    return CHR_OK;
}

chr_err mqtt_decode_suback(const struct mqtt_frame *frame, enum mqtt_version version,
                           struct mqtt_suback *suback, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    if (frame->flags)
        return mqtt__fail(fault, version, MQTT_FAULT_FIXED_FLAGS);
    chr_err err = read_head(&r, frame, version, MQTT_FAULT_SUBACK_PACKET_ID_ZERO,
                            &suback->packet_id, &suback->properties, fault);
    if (err)
        return err;
    suback->reason_codes = mqtt__rest(&r);
    if (suback->reason_codes.len == 0)
        return mqtt__fail(fault, version, MQTT_FAULT_SUBACK_EMPTY);
    for (size_t i = 0; i < suback->reason_codes.len; i++) {
        uint8_t code = suback->reason_codes.ptr[i];
        bool allowed = version == MQTT_V5 ? mqtt_reason_allowed(code, MQTT_SUBACK, frame->sender)
                                          : code <= 2 || code == 0x80;
        if (!allowed)
            return mqtt__fail(fault, version, MQTT_FAULT_SUBACK_REASON);
    }
    return CHR_OK;
}

chr_err mqtt_decode_unsuback(const struct mqtt_frame *frame, enum mqtt_version version,
                             struct mqtt_unsuback *unsuback, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    if (frame->flags)
        return mqtt__fail(fault, version, MQTT_FAULT_FIXED_FLAGS);
    chr_err err = read_head(&r, frame, version, MQTT_FAULT_SUBACK_PACKET_ID_ZERO,
                            &unsuback->packet_id, &unsuback->properties, fault);
    if (err)
        return err;
    unsuback->reason_codes = mqtt__rest(&r);
    if (version != MQTT_V5)
        return r.at == r.end ? CHR_OK : mqtt__fail(fault, version, MQTT_FAULT_TRAILING_BYTES);
    if (unsuback->reason_codes.len == 0)
        return mqtt__fail(fault, version, MQTT_FAULT_UNSUBACK_EMPTY);
    for (size_t i = 0; i < unsuback->reason_codes.len; i++)
        if (!mqtt_reason_allowed(unsuback->reason_codes.ptr[i], MQTT_UNSUBACK, frame->sender))
            return mqtt__fail(fault, version, MQTT_FAULT_UNSUBACK_REASON);
    return CHR_OK;
}
