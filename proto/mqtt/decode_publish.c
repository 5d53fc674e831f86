/* proto/mqtt/decode_publish.c: PUBLISH and its acknowledgements, the packets that come by the
 * million. The straight line is a PUBLISH with an ASCII topic and no properties. */
#include "proto/mqtt/read.h"
#include "proto/mqtt/topic.h"

enum { PUBLISH_RETAIN = 0x01, PUBLISH_QOS_SHIFT = 1, PUBLISH_DUP = 0x08 };

/* A topic that is not plain: UTF-8 beyond ASCII, or wrong. */
static CHR_NOINLINE int check_topic(chr_slice topic)
{
    if (!chr_utf8_valid_mqtt(topic))
        return (int)mqtt__string_fault(topic);
    return mqtt_topic_has_wildcard(topic) ? (int)MQTT_FAULT_TOPIC_WILDCARD : MQTT__OK;
}

chr_err mqtt_decode_publish(const struct mqtt_frame *frame, enum mqtt_version version,
                            struct mqtt_publish *publish, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    unsigned flags = frame->flags;
    publish->qos = flags >> PUBLISH_QOS_SHIFT & 3;
    publish->retain = flags & PUBLISH_RETAIN;
    publish->dup = flags & PUBLISH_DUP;
    publish->packet_id = 0;
    if (CHR_UNLIKELY(publish->qos == 3))
        return mqtt__fail(fault, version, MQTT_FAULT_PUBLISH_QOS_3);
    if (CHR_UNLIKELY(publish->dup && publish->qos == 0))
        return mqtt__fail(fault, version, MQTT_FAULT_PUBLISH_DUP_QOS_0);

    if (CHR_UNLIKELY(r.at == r.end))
        return mqtt__fail(fault, version, MQTT_FAULT_TOPIC_MISSING);
    if (CHR_UNLIKELY(!mqtt__read_bytes(&r, &publish->topic)))
        return mqtt__fail(fault, version, MQTT_FAULT_STRING_TRUNCATED);
    if (CHR_UNLIKELY(!mqtt__topic_plain(publish->topic.ptr, publish->topic.len))) {
        int bad = check_topic(publish->topic);
        if (bad != MQTT__OK)
            return mqtt__fail(fault, version, (enum mqtt__fault_id)bad);
    }
    if (publish->qos > 0) {
        if (CHR_UNLIKELY(!mqtt__read_u16(&r, &publish->packet_id)))
            return mqtt__fail(fault, version, MQTT_FAULT_INTEGER_TRUNCATED);
        if (CHR_UNLIKELY(publish->packet_id == 0))
            return mqtt__fail(fault, version,
                              frame->sender == MQTT_FROM_SERVER ? MQTT_FAULT_SERVER_PACKET_ID_ZERO
                                                                : MQTT_FAULT_PACKET_ID_ZERO);
    }

    if (version == MQTT_V5 && !(r.at < r.end && *r.at == 0)) {
        struct mqtt__reader block = r; /* so that r itself may stay in registers */
        chr_err err =
            mqtt__read_properties(&block, MQTT_PUBLISH, frame->sender, &publish->properties, fault);
        if (CHR_UNLIKELY(err))
            return err;
        r.at = block.at;
    } else {
        publish->properties = mqtt_properties_none;
        r.at += version == MQTT_V5; /* Property Length 0 */
    }
    if (CHR_UNLIKELY(publish->topic.len == 0)) {
        if (version != MQTT_V5)
            return mqtt__fail(fault, version, MQTT_FAULT_TOPIC_EMPTY);
        if (!publish->properties.topic_alias)
            return mqtt__fail(fault, version, MQTT_FAULT_TOPIC_EMPTY_NO_ALIAS);
    }
    publish->payload = mqtt__rest(&r);
    return CHR_OK;
}

/* PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7) differ in flags and reason codes alone. */
chr_err mqtt_decode_ack(const struct mqtt_frame *frame, enum mqtt_version version,
                        struct mqtt_ack *ack, struct mqtt_fault *fault)
{
    struct mqtt__reader r = mqtt__reader(frame->body);
    unsigned type = frame->type;
    if (CHR_UNLIKELY(frame->flags != (type == MQTT_PUBREL ? 2 : 0)))
        return mqtt__fail(fault, version,
                          type == MQTT_PUBREL ? MQTT_FAULT_PUBREL_FLAGS : MQTT_FAULT_FIXED_FLAGS);
    if (CHR_UNLIKELY(!mqtt__read_u16(&r, &ack->packet_id)))
        return mqtt__fail(fault, version, MQTT_FAULT_INTEGER_TRUNCATED);
    if (CHR_UNLIKELY(ack->packet_id == 0))
        return mqtt__fail(fault, version, MQTT_FAULT_ACK_PACKET_ID_ZERO);
    ack->reason_code = MQTT_REASON_SUCCESS;
    ack->properties = mqtt_properties_none;
    if (version == MQTT_V5 && mqtt__read_u8(&r, &ack->reason_code)) {
        static const enum mqtt__fault_id reason_faults[] = {
            [MQTT_PUBACK] = MQTT_FAULT_PUBACK_REASON,
            [MQTT_PUBREC] = MQTT_FAULT_PUBREC_REASON,
            [MQTT_PUBREL] = MQTT_FAULT_PUBREL_REASON,
            [MQTT_PUBCOMP] = MQTT_FAULT_PUBCOMP_REASON,
        };
        if (!mqtt_reason_allowed(ack->reason_code, (enum mqtt_packet_type)type, frame->sender))
            return mqtt__fail(fault, version, reason_faults[type]);
        /* "If the Remaining Length is less than 4 there is no Property Length" (3.4.2.2.1). */
        if (r.at != r.end) {
            chr_err err = mqtt__read_properties(&r, type, frame->sender, &ack->properties, fault);
            if (err)
                return err;
        }
    }
    if (CHR_UNLIKELY(r.at != r.end))
        return mqtt__fail(fault, version, MQTT_FAULT_TRAILING_BYTES);
    return CHR_OK;
}
