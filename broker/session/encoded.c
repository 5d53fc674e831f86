/* broker/session/encoded.c */
#include "broker/session/encoded.h"

#include <string.h>

#include "base/assert.h"
#include "broker/session/message.h"
#include "proto/mqtt/encode.h"

/* More than fixed header, topic length and length of the properties take. */
#define HEAD_BYTES_MAX 16u

void encoded_init(struct encoded *encoded, const struct message *m)
{
    bool plain =
        m && !m->to_user && !m->has_expiry && !m->flow_controlled &&
        m->topic.len + m->properties.len + m->payload.len + HEAD_BYTES_MAX <= ENCODED_BYTES_MAX;
    encoded->message = plain ? m : NULL;
    memset(encoded->len, 0, sizeof encoded->len);
}

static uint16_t encode(uint8_t *out, const struct message *m, enum mqtt_version version,
                       bool retain)
{
    struct mqtt_publish publish = {.topic = m->topic,
                                   .payload = m->payload,
                                   .retain = retain,
                                   .properties.raw = m->properties};
    size_t n = mqtt_encode_publish(out, ENCODED_BYTES_MAX, version, &publish);
    CHR_ASSERT(n > 0); /* encoded_init saw that it fits */
    return (uint16_t)n;
}

chr_slice encoded_packet(struct encoded *encoded, enum mqtt_version version, bool retain)
{
    if (CHR_UNLIKELY(!encoded->message))
        return CHR_LIT("");
    unsigned v5 = version == MQTT_V5, r = retain;
    if (CHR_UNLIKELY(encoded->len[v5][r] == 0))
        encoded->len[v5][r] = encode(encoded->bytes[v5][r], encoded->message, version, retain);
    return chr_slice_of(encoded->bytes[v5][r], encoded->len[v5][r]);
}
