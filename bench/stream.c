/* bench/stream.c */
#include "bench/stream.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "bench/net.h"

/* Given to the socket at a time: what is sent is still in the cache when it is taken. */
#define SEND_BYTES (64u << 10)

/* ---- Packets ----------------------------------------------------------------------------------
 */

static uint32_t put_varint(uint8_t *at, uint32_t value)
{
    uint32_t n = 0;
    do {
        uint8_t byte = value & 127;
        value >>= 7;
        at[n++] = byte | (value ? 128 : 0);
    } while (value);
    return n;
}

/* Noise of the run's seed: the same in every packet, so that a subscriber can compare it. */
static void put_noise(uint8_t *at, uint32_t len, uint64_t seed)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    for (uint32_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        at[i] = (uint8_t)(x >> 32);
    }
}

/* slots copies, one behind the other. Returns 0, or -1: no memory. */
static int make_packets(struct stream_packet *out, const struct stream_run *run, const char *topic,
                        uint32_t slots)
{
    uint8_t head[256];
    uint32_t topic_len = (uint32_t)strlen(topic), at = 0;
    bool v5 = run->mqtt_version == 5;
    if (topic_len > 200)
        return -1;
    uint32_t remaining = 2 + topic_len + (run->qos ? 2u : 0u) + (v5 ? 1u : 0u) + run->payload_bytes;
    head[at++] = (uint8_t)(0x30 | run->qos << 1);
    at += put_varint(head + at, remaining);
    chr_put_u16be(head + at, (uint16_t)topic_len);
    memcpy(head + at + 2, topic, topic_len);
    at += 2 + topic_len;
    out->id_at = run->qos ? at : 0;
    at += run->qos ? 2 : 0;
    if (v5)
        head[at++] = 0; /* no properties */
    out->payload_at = at;
    out->bytes_len = at + run->payload_bytes;
    out->bytes = malloc((size_t)out->bytes_len * slots);
    if (!out->bytes)
        return -1;
    for (uint32_t i = 0; i < slots; i++) {
        uint8_t *packet = out->bytes + (size_t)i * out->bytes_len;
        memcpy(packet, head, at);
        if (out->id_at)
            chr_put_u16be(packet + out->id_at, (uint16_t)(1 + i));
        put_noise(packet + at, run->payload_bytes, run->seed);
    }
    return 0;
}

/* ---- Publisher --------------------------------------------------------------------------------
 */

static int connect_to(struct link *l, const struct stream_run *run,
                      const struct stream_place *place)
{
    struct net_connack connack;
    if (link_open(l, place->address, place->tls) != 0)
        return -1;
    return net_mqtt_connect_link(l, run->mqtt_version, place->client_id, &connack);
}

int stream_publisher_open(struct stream_publisher *p, struct stream_run *run,
                          const struct stream_place *place)
{
    *p = (struct stream_publisher){.run = run, .link.fd = -1};
    p->slots = run->window;
    p->control = malloc((size_t)run->window * 4);
    if (!p->control || make_packets(&p->packet, run, place->topic, p->slots) != 0)
        return -1;
    if (connect_to(&p->link, run, place) != 0)
        return -1;
    return link_set_nonblocking(&p->link);
}

void stream_publisher_close(struct stream_publisher *p)
{
    link_close(&p->link);
    free(p->packet.bytes);
    free(p->control);
}

/* 1: all sent, 0: the socket is full, -1: broken. */
static int send_bytes(struct link *l, const uint8_t *bytes, size_t len, size_t *sent)
{
    *sent = 0;
    while (*sent < len) {
        size_t most = len - *sent < SEND_BYTES ? len - *sent : SEND_BYTES;
        ssize_t n = link_send(l, bytes + *sent, most);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0) {
            perror("publisher");
            return -1;
        }
        *sent += (size_t)n;
    }
    return 1;
}

/* PUBLISH packets first, so that a PUBREL never lands inside of one. */
static int send_waiting(struct stream_publisher *p)
{
    size_t ring = (size_t)p->slots * p->packet.bytes_len, sent;
    while (p->bytes_sent < p->bytes_queued) {
        size_t at = (size_t)(p->bytes_sent % ring);
        size_t len = (size_t)(p->bytes_queued - p->bytes_sent);
        if (len > ring - at)
            len = ring - at;
        int done = send_bytes(&p->link, p->packet.bytes + at, len, &sent);
        p->bytes_sent += sent;
        if (done <= 0) {
            p->blocked = done == 0;
            return done;
        }
    }
    if (p->control_pos < p->control_len) {
        int done = send_bytes(&p->link, p->control + p->control_pos,
                              p->control_len - p->control_pos, &sent);
        p->control_pos += (uint32_t)sent;
        if (done <= 0) {
            p->blocked = done == 0;
            return done;
        }
        p->control_pos = p->control_len = 0;
    }
    return 0;
}

int64_t stream_publish(struct stream_publisher *p, uint64_t count)
{
    uint64_t room = stream_room(p);
    if (count > room)
        count = room;
    uint64_t now_ns = count && p->run->time_each ? net_now_ns() : 0;
    for (uint64_t i = 0; i < count; i++, p->queued++) {
        uint8_t *packet = p->packet.bytes + p->queued % p->slots * p->packet.bytes_len;
        chr_put_u64le(packet + p->packet.payload_at, p->queued);
        chr_put_u64le(packet + p->packet.payload_at + 8, now_ns);
    }
    p->bytes_queued += count * p->packet.bytes_len;
    if (!p->blocked && send_waiting(p) < 0)
        return -1;
    return (int64_t)count;
}

/* One acknowledgement of four bytes; false: not the one that is due. */
static bool take_ack(struct stream_publisher *p, const uint8_t *ack)
{
    uint16_t id = chr_get_u16be(ack + 2);
    if (ack[1] != 2)
        return false;
    switch (ack[0]) {
    case 0x40:
        if (p->run->qos != 1 || p->acked == p->queued || id != 1 + p->acked % p->slots)
            return false;
        p->acked++;
        return true;
    case 0x50:
        if (p->run->qos != 2 || p->received == p->queued || id != 1 + p->received % p->slots)
            return false;
        memcpy(p->control + p->control_len, "\x62\x02", 2);
        memcpy(p->control + p->control_len + 2, ack + 2, 2);
        p->control_len += 4;
        p->received++;
        return true;
    case 0x70:
        if (p->acked == p->received || id != 1 + p->acked % p->slots)
            return false;
        p->acked++;
        return true;
    default:
        return false;
    }
}

int stream_publisher_drain(struct stream_publisher *p)
{
    uint8_t *in = p->run->inbox;
    for (;;) {
        memcpy(in, p->rest, p->rest_len);
        size_t room = STREAM_INBOX_BYTES - p->rest_len;
        /* Room for a PUBREL each must be in `control`. */
        if (p->run->qos == 2 && p->control_pos) {
            memmove(p->control, p->control + p->control_pos, p->control_len - p->control_pos);
            p->control_len -= p->control_pos;
            p->control_pos = 0;
        }
        ssize_t n = link_recv(&p->link, in + p->rest_len, room);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n <= 0) {
            fprintf(stderr, "publisher: %s\n", n == 0 ? "closed by the server" : strerror(errno));
            return -1;
        }
        size_t len = p->rest_len + (size_t)n, at = 0;
        for (; len - at >= 4; at += 4) {
            if (!take_ack(p, in + at)) {
                fprintf(stderr,
                        "publisher: an acknowledgement that is not due: %02x %02x %02x %02x\n",
                        in[at], in[at + 1], in[at + 2], in[at + 3]);
                return -1;
            }
        }
        p->rest_len = (uint32_t)(len - at);
        memcpy(p->rest, in + at, p->rest_len);
        if (!p->blocked && send_waiting(p) < 0)
            return -1;
        if ((size_t)n < room)
            return 0;
    }
}

/* ---- Subscriber -------------------------------------------------------------------------------
 */

int stream_subscriber_open(struct stream_subscriber *s, struct stream_run *run,
                           const struct stream_place *place)
{
    uint8_t packet[256], *p = packet, answer[8];
    size_t topic_len = strlen(place->topic);
    bool v5 = run->mqtt_version == 5;
    *s = (struct stream_subscriber){.run = run, .link.fd = -1};
    if (topic_len > 100 || make_packets(&s->packet, run, place->topic, 1) != 0)
        return -1;
    s->rest_max = s->packet.bytes_len + 4;
    s->rest = malloc(s->rest_max);
    if (!s->rest || connect_to(&s->link, run, place) != 0)
        return -1;
    *p++ = 0x82;
    *p++ = (uint8_t)((v5 ? 6u : 5u) + topic_len);
    chr_put_u16be(p, 1);
    p += 2;
    if (v5)
        *p++ = 0;
    chr_put_u16be(p, (uint16_t)topic_len);
    memcpy(p + 2, place->topic, topic_len);
    p += 2 + topic_len;
    *p++ = (uint8_t)run->qos;
    if (link_send(&s->link, packet, (size_t)(p - packet)) != p - packet)
        return -1;
    /* Nothing else is under way on this connection: the next packet is the SUBACK. */
    size_t want = v5 ? 6 : 5, got = 0;
    while (got < want) {
        ssize_t n = link_recv(&s->link, answer + got, want - got);
        if (n <= 0)
            return -1;
        got += (size_t)n;
    }
    if (answer[0] != 0x90 || answer[want - 1] != run->qos) {
        fprintf(stderr, "%s: not subscribed to %s\n", place->client_id, place->topic);
        return -1;
    }
    return link_set_nonblocking(&s->link);
}

void stream_subscriber_close(struct stream_subscriber *s)
{
    link_close(&s->link);
    free(s->packet.bytes);
    free(s->rest);
}

/* The message that is due? All bytes but the packet identifier, the number and the time are those
 * of every message. */
static bool is_due(const struct stream_subscriber *s, const uint8_t *packet)
{
    const struct stream_packet *due = &s->packet;
    uint32_t head = due->id_at ? due->id_at : due->payload_at;
    uint32_t after = due->payload_at + STREAM_PAYLOAD_MIN;
    return memcmp(packet, due->bytes, head) == 0 &&
           (!due->id_at || memcmp(packet + due->id_at + 2, due->bytes + due->id_at + 2,
                                  due->payload_at - due->id_at - 2) == 0) &&
           chr_get_u64le(packet + due->payload_at) == s->delivered &&
           memcmp(packet + after, due->bytes + after, due->bytes_len - after) == 0;
}

struct answers {
    uint8_t *at;
};

static void answer(struct answers *out, uint8_t kind, const uint8_t *id)
{
    out->at[0] = kind;
    out->at[1] = 2;
    memcpy(out->at + 2, id, 2);
    out->at += 4;
}

/* Takes whole packets of [in, in + len); bytes used, or -1. */
static int64_t take_packets(struct stream_subscriber *s, const uint8_t *in, size_t len,
                            struct answers *out)
{
    const struct stream_packet *due = &s->packet;
    uint64_t now_ns = s->run->time_each ? net_now_ns() : 0;
    size_t at = 0;
    while (len - at >= 4) {
        const uint8_t *packet = in + at;
        if (packet[0] == 0x62 && s->run->qos == 2 && packet[1] == 2) { /* PUBREL */
            answer(out, 0x70, packet + 2);
            at += 4;
            continue;
        }
        if (len - at < due->bytes_len)
            break;
        if (!is_due(s, packet))
            return -1;
        if (s->run->time_each)
            histogram_add(&s->run->latency, now_ns - chr_get_u64le(packet + due->payload_at + 8));
        if (due->id_at)
            answer(out, s->run->qos == 1 ? 0x40 : 0x50, packet + due->id_at);
        s->delivered++;
        at += due->bytes_len;
    }
    return (int64_t)at;
}

/* Few bytes against any socket buffer; when it is full all the same, wait. */
static int send_answers(struct stream_subscriber *s, const uint8_t *bytes, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = link_send(&s->link, bytes + sent, len - sent);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        struct pollfd ready = {.fd = s->link.fd, .events = POLLOUT};
        if (n < 0 && errno == EAGAIN && poll(&ready, 1, 10000) == 0) {
            fprintf(stderr, "subscriber: its acknowledgements are not read\n");
            return -1;
        }
        sent += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int64_t stream_subscriber_drain(struct stream_subscriber *s)
{
    uint8_t *in = s->run->inbox;
    uint64_t before = s->delivered;
    for (;;) {
        memcpy(in, s->rest, s->rest_len);
        size_t room = STREAM_INBOX_BYTES - s->rest_len;
        ssize_t n = link_recv(&s->link, in + s->rest_len, room);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return (int64_t)(s->delivered - before);
        if (n <= 0) {
            fprintf(stderr, "subscriber: %s\n", n == 0 ? "closed by the server" : strerror(errno));
            return -1;
        }
        size_t len = s->rest_len + (size_t)n;
        struct answers out = {s->run->outbox};
        int64_t used = take_packets(s, in, len, &out);
        if (used < 0 || len - (size_t)used > s->rest_max) {
            fprintf(stderr, "subscriber: not message %llu, which is due\n",
                    (unsigned long long)s->delivered);
            return -1;
        }
        s->rest_len = (uint32_t)(len - (size_t)used);
        memcpy(s->rest, in + used, s->rest_len);
        if (send_answers(s, s->run->outbox, (size_t)(out.at - s->run->outbox)) != 0)
            return -1;
        if ((size_t)n < room)
            return (int64_t)(s->delivered - before);
    }
}
