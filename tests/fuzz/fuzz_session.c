/* tests/fuzz/fuzz_session.c: sequences of packets, on several connections, with lost connections,
 * late commits, slow readers and time that passes in between.
 *
 * The input is a program of small commands (enum below): most build a packet from a few choices,
 * so that sessions meet each other, some send bytes as they are. Both ends of each connection are
 * here: what comes out is decoded and held against what a client may rely on (C1 to C6).
 *
 * C1  The first packet is CONNACK, and the only one. C2  Every packet decodes in the version of the
 * CONNECT, and is not larger than the client takes. C3  A packet id is not used for a second
 * message while the first is unanswered, and no more messages than Receive Maximum are. C4  Topic
 * aliases are within the maximum, and known when the topic is left out. C5  Nothing comes after
 * DISCONNECT. C6  What was asked for once is acknowledged at most once.
 * C3 is given up for a connection once the client has answered what it was not asked. */
#include "session_node.h"

#include "proto/mqtt/decode.h"

#define SIDES 6

enum command {
    OPEN,      /* a connection */
    CONNECT,   /* version, client id, flags, properties */
    SUBSCRIBE, /* filter, options */
    UNSUBSCRIBE,
    PUBLISH, /* topic, QoS, flags, packet id, properties */
    ANSWER,  /* the right answer to what is unanswered */
    ACK,     /* some acknowledgement */
    BYTES,   /* as they are */
    PING,
    DISCONNECT, /* reason, expiry */
    DROP,       /* the connection is lost */
    READ,       /* what came; until then the reader is slow */
    TURN,
    APPLY, /* the oldest proposal, or all */
    TIME,  /* passes */
    QUERY, /* is answered */
    COMMANDS
};

/* RELEASED: PUBREL alone came, of a message of an earlier connection: 4.9 counts PUBLISH. */
enum unanswered { NONE, PUBACK_OWED, PUBREC_OWED, PUBREL_AWAITED, PUBCOMP_OWED, RELEASED };

static bool counts(uint8_t what)
{
    return what != NONE && what != RELEASED;
}

struct side {
    int fd;            /* -1: closed */
    bool said_connect; /* its first packet was a CONNECT of ours: the version is known */
    bool said_else;    /* something else came first */
    bool odd;          /* answered what it was not asked */
    bool connack, disconnect;
    enum mqtt_version version;
    uint32_t receive_maximum, packet_max, alias_max, unanswered_count;
    bool aliases[256];
    uint8_t unanswered[65536];
    uint8_t in[1 << 16];
    size_t in_len;
    uint32_t asked[16]; /* by packet type: requests sent less answers received */
};

static struct side *sides;

struct input {
    const uint8_t *at, *end;
};

static uint8_t take(struct input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

/* ---- Out of the node --------------------------------------------------------------------------
 */

static void set_unanswered(struct side *s, uint16_t id, enum unanswered what)
{
    s->unanswered_count += counts((uint8_t)what) - counts(s->unanswered[id]);
    s->unanswered[id] = (uint8_t)what;
    REQUIRE(s->odd || s->unanswered_count <= s->receive_maximum); /* C3 */
}

static void came_publish(struct side *s, const struct mqtt_frame *frame)
{
    struct mqtt_publish p;
    struct mqtt_fault fault;
    REQUIRE(!mqtt_decode_publish(frame, s->version, &p, &fault)); /* C2 */
    uint16_t alias = p.properties.topic_alias;
    REQUIRE(alias <= s->alias_max); /* C4 */
    REQUIRE(p.topic.len || s->aliases[alias]);
    if (alias)
        s->aliases[alias] = true;
    if (p.qos == 0)
        return;
    REQUIRE(s->odd || p.dup || s->unanswered[p.packet_id] == NONE); /* C3 */
    set_unanswered(s, p.packet_id, p.qos == 1 ? PUBACK_OWED : PUBREC_OWED);
}

static void came(struct side *s, const struct mqtt_frame *frame)
{
    REQUIRE(!s->disconnect); /* C5 */
    if (!s->said_connect)
        return;
    REQUIRE(frame->packet_bytes <= s->packet_max);        /* C2 */
    REQUIRE((frame->type == MQTT_CONNACK) != s->connack); /* C1 */
    struct mqtt_fault fault;
    struct mqtt_connack connack;
    struct mqtt_ack ack;
    struct mqtt_suback suback;
    struct mqtt_unsuback unsuback;
    struct mqtt_disconnect disconnect;
    switch (frame->type) {
    case MQTT_CONNACK:
        REQUIRE(!mqtt_decode_connack(frame, s->version, &connack, &fault));
        s->connack = true;
        return;
    case MQTT_PUBLISH:
        came_publish(s, frame);
        return;
    case MQTT_PUBACK:
    case MQTT_PUBREC:
    case MQTT_PUBCOMP:
    case MQTT_PUBREL:
        REQUIRE(!mqtt_decode_ack(frame, s->version, &ack, &fault));
        if (frame->type == MQTT_PUBREL)
            set_unanswered(s, ack.packet_id,
                           counts(s->unanswered[ack.packet_id]) ? PUBCOMP_OWED : RELEASED);
        else
            REQUIRE(s->odd || s->asked[frame->type]-- > 0); /* C6 */
        return;
    case MQTT_SUBACK:
        REQUIRE(!mqtt_decode_suback(frame, s->version, &suback, &fault));
        REQUIRE(s->odd || s->asked[MQTT_SUBACK]-- > 0);
        return;
    case MQTT_UNSUBACK:
        REQUIRE(!mqtt_decode_unsuback(frame, s->version, &unsuback, &fault));
        REQUIRE(s->odd || s->asked[MQTT_UNSUBACK]-- > 0);
        return;
    case MQTT_PINGRESP:
        REQUIRE(s->odd || s->asked[MQTT_PINGRESP]-- > 0);
        return;
    case MQTT_DISCONNECT:
        REQUIRE(s->version == MQTT_V5);
        REQUIRE(!mqtt_decode_disconnect(frame, s->version, &disconnect, &fault));
        s->disconnect = true;
        return;
    default:
        REQUIRE(!"a packet that servers do not send");
    }
}

static void close_side(struct side *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void read_side(struct side *s)
{
    while (s->fd >= 0) {
        ssize_t got = recv(s->fd, s->in + s->in_len, sizeof s->in - s->in_len, MSG_DONTWAIT);
        if (got <= 0) {
            if (got == 0)
                close_side(s);
            return;
        }
        s->in_len += (size_t)got;
        size_t used = 0;
        for (;;) {
            struct mqtt_frame frame;
            int len =
                mqtt_frame_from_server(chr_slice_of(s->in + used, s->in_len - used), 0, &frame);
            REQUIRE(len >= 0);
            if (len == 0)
                break;
            came(s, &frame);
            used += (size_t)len;
        }
        memmove(s->in, s->in + used, s->in_len - used);
        s->in_len -= used;
    }
}

/* ---- Into the node ----------------------------------------------------------------------------
 */

struct packet {
    uint8_t bytes[4096];
    size_t len;
};

static void put(struct packet *p, const void *bytes, size_t len)
{
    REQUIRE(p->len + len <= sizeof p->bytes);
    memcpy(p->bytes + p->len, bytes, len);
    p->len += len;
}

static void put_u8(struct packet *p, unsigned v)
{
    put(p, &(uint8_t){(uint8_t)v}, 1);
}

static void put_u16(struct packet *p, unsigned v)
{
    put_u8(p, v >> 8);
    put_u8(p, v);
}

static void put_u32(struct packet *p, uint32_t v)
{
    put_u16(p, v >> 16);
    put_u16(p, v & 0xffff);
}

static void put_text(struct packet *p, const char *text)
{
    put_u16(p, (unsigned)strlen(text));
    put(p, text, strlen(text));
}

/* Length before what is in body: properties, all below 128 bytes. */
static void put_block(struct packet *p, const struct packet *body)
{
    REQUIRE(body->len < 128);
    put_u8(p, (unsigned)body->len);
    put(p, body->bytes, body->len);
}

static void send_bytes(struct side *s, const uint8_t *bytes, size_t len)
{
    if (s->fd < 0)
        return;
    ssize_t sent = send(s->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent != (ssize_t)len) /* it is gone, or does not read: half a packet and no more */
        close_side(s);
}

static void send_packet(struct side *s, unsigned first, const struct packet *body)
{
    struct packet p = {.len = 0};
    put_u8(&p, first);
    size_t rest = body->len;
    do {
        put_u8(&p, (rest & 127) | (rest > 127 ? 128 : 0));
        rest >>= 7;
    } while (rest);
    if (!s->said_connect)
        s->said_else = true;
    send_bytes(s, p.bytes, p.len);
    send_bytes(s, body->bytes, body->len);
}

static const char *const topics[] = {
    "a",
    "a/b",
    "a/b/c",
    "sensors/d1/temp",
    "sensors/d1",
    "$SYS/x",
    "$chronos/sql",
    "$chronos/sql/t",
    "$chronos/result/t",
    "$chronos/cancel",
    "$chronos/cancel/t",
    "$chronos/peer/x",
    "a/+",
    "",
    "long/topic/with/many/levels",
    "$chronos/reject/readings",
};
static const char *const filters[] = {
    "a",
    "a/b",
    "#",
    "+/b",
    "a/#",
    "sensors/#",
    "sensors/+/temp",
    "$SYS/#",
    "$share/g/a",
    "$share/g/#",
    "$share/h/sensors/#",
    "$chronos/result/t",
    "$chronos/#",
    "$chronos/reject/#",
    "a/#/b",
    "$share/g",
    "+",
    "long/+/with/#",
};
static const char *const ids[] = {"", "c1", "c2", "c3"};

static void do_connect(struct side *s, struct input *in)
{
    unsigned how = take(in), with = take(in);
    bool v5 = how & 1, clean = how & 2, will = how & 4;
    struct packet p = {.len = 0}, properties = {.len = 0};
    if (!s->said_else && !s->said_connect) {
        s->said_connect = true;
        s->version = v5 ? MQTT_V5 : MQTT_V311;
        s->receive_maximum = 65535;
        s->packet_max = MQTT_PACKET_BYTES_MAX;
        s->alias_max = 0;
    } else {
        s->odd = true; /* a second one: the connection ends, at any time from now on */
    }
    put_text(&p, "MQTT");
    put_u8(&p, v5 ? 5 : 4);
    put_u8(&p, (clean ? 2u : 0u) | (will ? 4u | (how >> 3 & 3 ? (how >> 3 & 3) << 3 : 0) : 0) |
                   (will && how & 32 ? 32u : 0u));
    put_u16(&p, how & 64 ? 2 : 0);
    if (v5) {
        if (with & 1) {
            put_u8(&properties, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL);
            put_u32(&properties, with & 128 ? UINT32_MAX : 30);
        }
        if (with & 2) {
            uint32_t most = 1 + take(in) % 4;
            put_u8(&properties, MQTT_PROPERTY_RECEIVE_MAXIMUM);
            put_u16(&properties, most);
            s->receive_maximum = s->odd ? s->receive_maximum : most;
        }
        if (with & 4) {
            uint32_t most = take(in) % 6;
            put_u8(&properties, MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM);
            put_u16(&properties, most);
            s->alias_max = s->odd ? s->alias_max : most;
        }
        if (with & 8) {
            uint32_t most = 20 + take(in);
            put_u8(&properties, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE);
            put_u32(&properties, most);
            s->packet_max = s->odd ? s->packet_max : most;
        }
        if (with & 16) {
            put_u8(&properties, MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION);
            put_u8(&properties, 0);
        }
        if (with & 32) {
            put_u8(&properties, MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION);
            put_u8(&properties, 1);
        }
        put_block(&p, &properties);
    }
    if (will && (how >> 3 & 3) == 3)
        s->packet_max = MQTT_PACKET_BYTES_MAX; /* malformed before it comes to the properties */
    put_text(&p, ids[with >> 5 & 3]);
    if (will) {
        struct packet of_will = {.len = 0};
        if (v5 && how & 128) {
            put_u8(&of_will, MQTT_PROPERTY_WILL_DELAY_INTERVAL);
            put_u32(&of_will, take(in));
        }
        if (v5)
            put_block(&p, &of_will);
        put_text(&p, topics[take(in) % CHR_COUNT_OF(topics)]);
        put_text(&p, "{\"temp\":1}");
    }
    send_packet(s, 0x10, &p);
}

static void do_subscribe(struct side *s, struct input *in)
{
    struct packet p = {.len = 0}, properties = {.len = 0};
    unsigned how = take(in);
    put_u16(&p, 1 + (how & 3));
    if (s->version == MQTT_V5) {
        if (how & 4) {
            put_u8(&properties, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER);
            put_u8(&properties, 1 + (how >> 5));
        }
        put_block(&p, &properties);
    }
    for (unsigned i = 0; i <= (how >> 3 & 3); i++) {
        put_text(&p, filters[take(in) % CHR_COUNT_OF(filters)]);
        put_u8(&p, take(in) & (s->version == MQTT_V5 ? 0x2f : 3));
    }
    s->asked[MQTT_SUBACK]++;
    send_packet(s, 0x82, &p);
}

static void do_unsubscribe(struct side *s, struct input *in)
{
    struct packet p = {.len = 0};
    unsigned how = take(in);
    put_u16(&p, 1 + (how & 3));
    if (s->version == MQTT_V5)
        put_u8(&p, 0);
    for (unsigned i = 0; i <= (how >> 3 & 3); i++)
        put_text(&p, filters[take(in) % CHR_COUNT_OF(filters)]);
    s->asked[MQTT_UNSUBACK]++;
    send_packet(s, 0xa2, &p);
}

static void do_publish(struct side *s, struct input *in)
{
    struct packet p = {.len = 0}, properties = {.len = 0};
    unsigned how = take(in), with = take(in), qos = how & 3;
    const char *topic = topics[with & 15];
    put_text(&p, s->version == MQTT_V5 && (how & 16) && (how & 32) ? "" : topic);
    if (qos)
        put_u16(&p, 1 + (with >> 4 & 7));
    if (s->version == MQTT_V5) {
        if (how & 16) {
            put_u8(&properties, MQTT_PROPERTY_TOPIC_ALIAS);
            put_u16(&properties, with >> 6);
        }
        if (how & 64) {
            put_u8(&properties, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL);
            put_u32(&properties, take(in));
        }
        if (how & 128) {
            put_u8(&properties, MQTT_PROPERTY_RESPONSE_TOPIC);
            put_text(&properties, topics[take(in) % 8]);
            put_u8(&properties, MQTT_PROPERTY_CORRELATION_DATA);
            put_text(&properties, "c");
        }
        put_block(&p, &properties);
    }
    uint8_t payload = take(in);
    if (payload & 128) {
        static const char row[] = "{\"device_id\":\"d\",\"metrics\":{\"temp\":1.5}}";
        put(&p, row, sizeof row - 1);
    } else if (payload & 64) {
        put(&p, "21.5", 4);
    } else if (payload & 32) {
        for (unsigned i = 0; i < 100u * (payload & 31); i++)
            put_u8(&p, 'x');
    }
    if (qos == 1)
        s->asked[MQTT_PUBACK]++;
    else if (qos == 2)
        s->asked[MQTT_PUBREC]++;
    send_packet(s, 0x30 | qos << 1 | (how & 4 ? 1u : 0u) | (qos && how & 8 ? 8u : 0u), &p);
}

static void send_ack(struct side *s, unsigned type, uint16_t id, unsigned reason)
{
    struct packet p = {.len = 0};
    put_u16(&p, id);
    if (reason && s->version == MQTT_V5)
        put_u8(&p, reason);
    if (type == MQTT_PUBREL)
        s->asked[MQTT_PUBCOMP]++;
    send_packet(s, type << 4 | (type == MQTT_PUBREL ? 2u : 0u), &p);
}

/* The which-th of those that something is owed for. */
static void do_answer(struct side *s, struct input *in)
{
    read_side(s);
    unsigned how = take(in);
    unsigned owed = 0;
    for (uint32_t id = 1; id < 65536; id++)
        owed += s->unanswered[id] != NONE;
    unsigned skip = owed ? (how & 63) % owed : 0;
    for (uint32_t id = 1; id < 65536 && owed; id++) {
        if (s->unanswered[id] == NONE || skip-- > 0)
            continue;
        uint8_t what = s->unanswered[id];
        bool refuse = how & 128;
        if (what == PUBACK_OWED) {
            send_ack(s, MQTT_PUBACK, (uint16_t)id, refuse ? 0x80 : 0);
            set_unanswered(s, (uint16_t)id, NONE);
        } else if (what == PUBREC_OWED) {
            refuse = refuse && s->version == MQTT_V5;
            send_ack(s, MQTT_PUBREC, (uint16_t)id, refuse ? 0x80 : 0);
            set_unanswered(s, (uint16_t)id, refuse ? NONE : PUBREL_AWAITED);
        } else if (what == PUBCOMP_OWED || what == RELEASED) {
            send_ack(s, MQTT_PUBCOMP, (uint16_t)id, 0);
            set_unanswered(s, (uint16_t)id, NONE);
        }
        return;
    }
}

static void do_disconnect(struct side *s, struct input *in)
{
    struct packet p = {.len = 0};
    unsigned how = take(in);
    if (s->version == MQTT_V5 && how & 1) {
        put_u8(&p, how & 2 ? 4 : 0);
        if (how & 4) {
            put_u8(&p, 5);
            put_u8(&p, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL);
            put_u32(&p, how >> 3);
        }
    }
    send_packet(s, 0xe0, &p);
}

static void do_open(struct side *s, unsigned number)
{
    if (s->fd >= 0)
        return;
    int pair[2];
    REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
    memset(s, 0, sizeof *s);
    s->fd = pair[0];
    session_node_adopt(&n, number, pair[1]);
    node_turn();
}

static void run(struct side *s, unsigned number, unsigned command, struct input *in)
{
    static const int64_t steps_us[] = {1000, 100000, 1100000, 2000000, 31000000, 3600000000};
    unsigned how;
    switch (command) {
    case OPEN:
        do_open(s, number);
        break;
    case CONNECT:
        do_open(s, number);
        do_connect(s, in);
        break;
    case SUBSCRIBE:
        do_subscribe(s, in);
        break;
    case UNSUBSCRIBE:
        do_unsubscribe(s, in);
        break;
    case PUBLISH:
        do_publish(s, in);
        break;
    case ANSWER:
        do_answer(s, in);
        break;
    case ACK:
        s->odd = true;
        how = take(in);
        send_ack(s, MQTT_PUBACK + (how & 3), (uint16_t)(take(in) & 15), how & 4 ? 0x80 : 0);
        break;
    case BYTES:
        how = take(in);
        how = (unsigned)CHR_MIN((ptrdiff_t)how, in->end - in->at);
        s->odd = s->odd || how;
        s->said_else = s->said_else || (how && !s->said_connect);
        send_bytes(s, in->at, how);
        in->at += how;
        break;
    case PING:
        s->asked[MQTT_PINGRESP]++;
        send_packet(s, 0xc0, &(struct packet){.len = 0});
        break;
    case DISCONNECT:
        do_disconnect(s, in);
        break;
    case DROP:
        close_side(s);
        break;
    case READ:
        read_side(s);
        break;
    case TURN:
        break;
    case APPLY:
        if (take(in) & 1)
            node_apply_one();
        else
            node_apply_all();
        break;
    case TIME:
        fake_clock_advance(&n.clock, steps_us[take(in) % CHR_COUNT_OF(steps_us)]);
        node_tick();
        break;
    case QUERY:
        session_node_answer_query(&n, take(in) & 3);
        break;
    }
}

/* A node is made anew for each input: memory goes back and forth in large pieces. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=16:allocator_release_to_os_interval_ms=-1:max_malloc_fill_size=0";
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    chr_log_set_level(CHR_LOG_ERROR);
    sides = calloc(SIDES, sizeof *sides);
    REQUIRE(sides);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4096)
        return 0;
    struct input in = {data, data + size};
    node_begin();
    for (unsigned i = 0; i < SIDES; i++)
        sides[i].fd = -1;
    while (in.at < in.end) {
        /* 16 commands and 6 sides; bit 7: the node has its turn, and commits, first */
        unsigned byte = take(&in), side = byte >> 4 & 7;
        if (byte & 128) {
            node_turn();
            node_apply_all();
            node_turn();
        }
        run(&sides[side % SIDES], side % SIDES, byte & 15, &in);
        if ((byte & 15) == TURN)
            node_turn();
    }
    /* Everything comes to rest: what is under way is answered. */
    for (unsigned round = 0; round < 3; round++) {
        node_turn();
        node_apply_all();
        node_turn();
        for (unsigned i = 0; i < SIDES; i++)
            read_side(&sides[i]);
    }
    for (unsigned i = 0; i < SIDES; i++)
        close_side(&sides[i]);
    node_turn();
    node_end();
    return 0;
}
