/* tests/proto/random_packet.h: any valid packet, from a seed.
 *
 * Bytes live in an arena that the caller resets between packets. */
#ifndef CHR_TESTS_PROTO_RANDOM_PACKET_H
#define CHR_TESTS_PROTO_RANDOM_PACKET_H

#include "base/arena.h"
#include "base/random.h"
#include "mqtt_text.h"

struct random_packets {
    struct chr_random random;
    struct chr_arena arena;
};

static inline uint64_t below(struct random_packets *g, uint64_t bound)
{
    return chr_random_below(&g->random, bound);
}

static inline bool chance(struct random_packets *g, unsigned percent)
{
    return below(g, 100) < percent;
}

static inline size_t random_length(struct random_packets *g)
{
    return chance(g, 90) ? below(g, 20) : chance(g, 90) ? below(g, 300) : below(g, 20000);
}

static inline chr_slice random_binary(struct random_packets *g)
{
    size_t len = random_length(g);
    uint8_t *at = (uint8_t *)chr_arena_alloc(&g->arena, len + 1);
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)below(g, 256);
    return chr_slice_of(at, len);
}

/* Code points from `alphabet`, which is a list of strings. */
static inline chr_slice random_text(struct random_packets *g, const char *const *alphabet,
                                    size_t count, size_t len)
{
    uint8_t *at = (uint8_t *)chr_arena_alloc(&g->arena, len * 4 + 1);
    size_t used = 0;
    while (len--) {
        const char *piece = alphabet[below(g, count)];
        memcpy(at + used, piece, strlen(piece));
        used += strlen(piece);
    }
    return chr_slice_of(at, used);
}

static inline chr_slice random_string(struct random_packets *g)
{
    static const char *const alphabet[] = {"a",
                                           "b",
                                           "Z",
                                           "0",
                                           " ",
                                           "+",
                                           "#",
                                           "/",
                                           "$",
                                           "\x01",
                                           "\x7f",
                                           "\xc3\xa9",
                                           "\xdf\xbf",
                                           "\xe2\x82\xac",
                                           "\xef\xbf\xbd",
                                           "\xf0\x9f\x98\x80",
                                           "\xf4\x8f\xbf\xbf"};
    return random_text(g, alphabet, CHR_COUNT_OF(alphabet), random_length(g));
}

static inline chr_slice random_topic(struct random_packets *g)
{
    static const char *const alphabet[] = {"a", "b", "c", "d", "/", "/", "1", "$", "\xc3\xa9", " "};
    return random_text(g, alphabet, CHR_COUNT_OF(alphabet) - (chance(g, 80) ? 2 : 0),
                       1 + random_length(g));
}

/* Levels joined by slashes; wildcards where they may stand. */
static inline chr_slice random_filter(struct random_packets *g)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 1 << 16);
    if (chance(g, 15))
        chr_buf_addf(&buf, "$share/g%u/", (unsigned)below(g, 3));
    size_t levels = 1 + below(g, 6);
    for (size_t i = 0; i < levels; i++) {
        if (i)
            chr_buf_add_cstr(&buf, "/");
        if (chance(g, 20))
            chr_buf_add_cstr(&buf, "+");
        else if (i + 1 == levels && chance(g, 25))
            chr_buf_add_cstr(&buf, "#");
        else
            chr_buf_addf(&buf, "%c%u", (int)('a' + below(g, 3)), (unsigned)below(g, 3));
    }
    chr_slice filter = chr_arena_dup(&g->arena, chr_buf_slice(&buf));
    chr_buf_free(&buf);
    return filter;
}

/* A random block of what this packet may carry. */
static inline struct mqtt_properties random_properties(struct random_packets *g, unsigned packet,
                                                       enum mqtt_sender sender,
                                                       enum mqtt_version version)
{
    struct mqtt_properties properties = mqtt_properties_none;
    if (version != MQTT_V5 || (chance(g, 40) && packet != MQTT_AUTH))
        return properties;
    static const struct {
        unsigned id;
        unsigned packets;
    } all[] = {
#define X(name, identifier, type, text, packets) {identifier, packets},
        MQTT_PROPERTIES(X)
#undef X
    };
    size_t capacity = 200000;
    uint8_t *block = (uint8_t *)chr_arena_alloc(&g->arena, capacity);
    struct mqtt_property_writer w = mqtt_property_writer(block, capacity);
    bool has_method = packet == MQTT_AUTH || chance(g, 50);
    size_t start = below(g, CHR_COUNT_OF(all));
    for (size_t i = 0; i < CHR_COUNT_OF(all); i++) {
        unsigned id = all[(start + i) % CHR_COUNT_OF(all)].id;
        if (!(all[(start + i) % CHR_COUNT_OF(all)].packets & MQTT_SET(packet)))
            continue;
        if (id == MQTT_PROPERTY_AUTHENTICATION_METHOD || id == MQTT_PROPERTY_AUTHENTICATION_DATA) {
            if (!has_method)
                continue;
        } else if (chance(g, 50)) {
            continue;
        }
        if ((packet == MQTT_PUBLISH && sender == MQTT_FROM_CLIENT &&
             id == MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER) ||
            (packet == MQTT_DISCONNECT &&
             id == (sender == MQTT_FROM_CLIENT ? MQTT_PROPERTY_SERVER_REFERENCE
                                               : MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL)))
            continue;
        switch (mqtt_property_type(id)) {
        case MQTT_TYPE_U8:
            mqtt_put_number(&w, (enum mqtt_property_id)id, (uint32_t)below(g, 2));
            break;
        case MQTT_TYPE_U16:
            mqtt_put_number(&w, (enum mqtt_property_id)id, 1 + (uint32_t)below(g, 65535));
            break;
        case MQTT_TYPE_U32:
            mqtt_put_number(&w, (enum mqtt_property_id)id, 1 + (uint32_t)below(g, UINT32_MAX));
            break;
        case MQTT_TYPE_VARINT:
            do
                mqtt_put_number(&w, (enum mqtt_property_id)id,
                                1 + (uint32_t)below(g, UINT64_C(1) << below(g, 28)));
            while (packet == MQTT_PUBLISH && chance(g, 50));
            break;
        case MQTT_TYPE_STRING:
            mqtt_put_bytes(&w, (enum mqtt_property_id)id,
                           id == MQTT_PROPERTY_RESPONSE_TOPIC ? random_topic(g) : random_string(g));
            break;
        case MQTT_TYPE_BINARY:
            mqtt_put_bytes(&w, (enum mqtt_property_id)id, random_binary(g));
            break;
        default:
            do
                mqtt_put_user(&w, random_string(g), random_string(g));
            while (chance(g, 40));
        }
    }
    if (w.failed)
        abort();
    properties.raw = mqtt_property_block(&w);
    return properties;
}

static inline uint8_t random_reason(struct random_packets *g, enum mqtt_packet_type type,
                                    enum mqtt_sender sender, enum mqtt_version version)
{
    if (version != MQTT_V5)
        return type == MQTT_SUBACK ? (const uint8_t[]){0, 1, 2, 0x80}[below(g, 4)] : 0;
    uint8_t reason;
    do
        reason = chance(g, 30) ? 0 : (uint8_t)below(g, 0xA3);
    while (!mqtt_reason_allowed(reason, type, sender));
    return reason;
}

static inline chr_slice random_reasons(struct random_packets *g, enum mqtt_packet_type type,
                                       enum mqtt_version version)
{
    size_t count = 1 + below(g, 6);
    uint8_t *at = (uint8_t *)chr_arena_alloc(&g->arena, count);
    for (size_t i = 0; i < count; i++)
        at[i] = random_reason(g, type, MQTT_FROM_SERVER, version);
    return chr_slice_of(at, count);
}

/* Encodes a packet of random type, version and content. *sender says whose rules it keeps. */
static inline chr_slice random_packet(struct random_packets *g, enum mqtt_version *version,
                                      enum mqtt_sender *sender)
{
    chr_arena_reset(&g->arena);
    enum mqtt_version v = chance(g, 50) ? MQTT_V5 : MQTT_V311;
    struct any_packet any = {.version = v};
    any.type = 1 + (unsigned)below(g, v == MQTT_V5 ? 15 : 14);
    enum mqtt_packet_type type = (enum mqtt_packet_type)any.type;
    switch (type) { /* who sends it */
    case MQTT_CONNECT:
    case MQTT_SUBSCRIBE:
    case MQTT_UNSUBSCRIBE:
    case MQTT_PINGREQ:
        *sender = MQTT_FROM_CLIENT;
        break;
    case MQTT_CONNACK:
    case MQTT_SUBACK:
    case MQTT_UNSUBACK:
    case MQTT_PINGRESP:
        *sender = MQTT_FROM_SERVER;
        break;
    default:
        *sender = chance(g, 50) ? MQTT_FROM_CLIENT : MQTT_FROM_SERVER;
    }
    *version = v;

    uint16_t packet_id = (uint16_t)(1 + below(g, 65535));
    size_t capacity = 1 << 20, size;
    uint8_t *out = (uint8_t *)chr_arena_alloc(&g->arena, capacity);
    if (type == MQTT_SUBSCRIBE || type == MQTT_UNSUBSCRIBE) {
        struct mqtt_subscription subs[8];
        chr_slice filters[8];
        size_t count = 1 + below(g, 8);
        for (size_t i = 0; i < count; i++) {
            filters[i] = random_filter(g);
            bool shared = chr_slice_starts(filters[i], CHR_LIT("$share/"));
            subs[i] = (struct mqtt_subscription){
                .filter = filters[i],
                .qos = (uint8_t)below(g, 3),
                .no_local = v == MQTT_V5 && !shared && chance(g, 30),
                .retain_as_published = v == MQTT_V5 && chance(g, 30),
                .retain_handling = v == MQTT_V5 ? (uint8_t)below(g, 3) : 0,
            };
        }
        struct mqtt_properties p = random_properties(g, type, *sender, v);
        struct mqtt_subscribe s = {.packet_id = packet_id, .properties = p};
        struct mqtt_unsubscribe u = {.packet_id = packet_id, .properties = p};
        size = type == MQTT_SUBSCRIBE
                   ? mqtt_encode_subscribe(out, capacity, v, &s, subs, count)
                   : mqtt_encode_unsubscribe(out, capacity, v, &u, filters, count);
        return chr_slice_of(out, size);
    }

    struct mqtt_properties p = random_properties(g, type, *sender, v);
    switch (type) {
    case MQTT_CONNECT: {
        struct mqtt_connect *c = &any.u.connect;
        *c = (struct mqtt_connect){.version = v, .properties = p};
        c->clean_start = chance(g, 50);
        c->keep_alive_s = (uint16_t)below(g, 65536);
        c->client_id = random_string(g);
        if (c->client_id.len == 0)
            c->clean_start = true;
        if ((c->has_will = chance(g, 50))) {
            c->will.qos = (uint8_t)below(g, 3);
            c->will.retain = chance(g, 50);
            c->will.topic = random_topic(g);
            c->will.payload = random_binary(g);
            c->will.properties = random_properties(g, MQTT_WILL, *sender, v);
        }
        if ((c->has_username = chance(g, 50)))
            c->username = random_string(g);
        if ((c->has_password = (c->has_username || v == MQTT_V5) && chance(g, 50)))
            c->password = random_binary(g);
        break;
    }
    case MQTT_CONNACK: {
        any.u.connack = (struct mqtt_connack){.properties = p};
        do
            any.u.connack.reason_code = random_reason(g, type, *sender, MQTT_V5);
        while (v != MQTT_V5 &&
               mqtt_connack_return_code(any.u.connack.reason_code) == MQTT_NO_RETURN_CODE);
        any.u.connack.session_present = any.u.connack.reason_code == 0 && chance(g, 50);
        break;
    }
    case MQTT_PUBLISH: {
        struct mqtt_publish *u = &any.u.publish;
        *u = (struct mqtt_publish){.topic = random_topic(g), .properties = p};
        u->payload = random_binary(g);
        u->qos = (uint8_t)below(g, 3);
        u->retain = chance(g, 30);
        u->dup = u->qos && chance(g, 30);
        u->packet_id = u->qos ? packet_id : 0;
        break;
    }
    case MQTT_SUBACK:
        any.u.suback = (struct mqtt_suback){packet_id, random_reasons(g, type, v), p};
        break;
    case MQTT_UNSUBACK:
        any.u.unsuback = (struct mqtt_unsuback){packet_id, random_reasons(g, type, v), p};
        break;
    case MQTT_DISCONNECT:
        any.u.disconnect = (struct mqtt_disconnect){random_reason(g, type, *sender, v), p};
        break;
    case MQTT_AUTH:
        any.u.auth = (struct mqtt_auth){random_reason(g, type, *sender, v), p};
        break;
    case MQTT_PINGREQ:
    case MQTT_PINGRESP:
        break;
    default:
        any.u.ack = (struct mqtt_ack){packet_id, random_reason(g, type, *sender, v), p};
    }
    size = any_encode(out, capacity, &any);
    return chr_slice_of(out, size);
}

#endif
