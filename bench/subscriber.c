/* bench/subscriber.c */
#include "bench/subscriber.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "bench/net.h"

#define IN_BYTES (1u << 20)
/* A QoS 1 PUBLISH has at least 7 bytes and is answered with 4. */
#define OUT_BYTES IN_BYTES

int subscriber_open(struct subscriber *s, const char *address, int mqtt_version,
                    const char *client_id, const char *filter, int qos)
{
    uint8_t packet[256], *p = packet, answer[64];
    struct net_connack connack;
    size_t filter_len = strlen(filter);
    bool v5 = mqtt_version == 5;
    s->mqtt_version = mqtt_version;
    s->in = malloc(IN_BYTES);
    s->out = malloc(OUT_BYTES);
    s->fd = net_connect(address);
    if (!s->in || !s->out || s->fd < 0 || filter_len > 100 ||
        net_mqtt_connect(s->fd, mqtt_version, client_id, &connack) != 0)
        return -1;
    *p++ = 0x82;
    *p++ = (uint8_t)((v5 ? 6u : 5u) + filter_len);
    chr_put_u16be(p, 1);
    p += 2;
    if (v5)
        *p++ = 0; /* no properties */
    chr_put_u16be(p, (uint16_t)filter_len);
    memcpy(p + 2, filter, filter_len);
    p += 2 + filter_len;
    *p++ = (uint8_t)qos;
    ssize_t n = send(s->fd, packet, (size_t)(p - packet), MSG_NOSIGNAL);
    /* Nothing else is under way on this connection: the next packet is the SUBACK. */
    ssize_t want = v5 ? 6 : 5;
    if (n != p - packet || recv(s->fd, answer, (size_t)want, MSG_WAITALL) != want ||
        answer[0] != 0x90 || answer[want - 1] >= 0x80) {
        fprintf(stderr, "%s: not subscribed to %s\n", client_id, filter);
        return -1;
    }
    return fcntl(s->fd, F_SETFL, O_NONBLOCK);
}

/* One PUBLISH. Returns false when its parts do not fit each other. */
static bool take_publish(struct subscriber *s, uint8_t first, const uint8_t *body, size_t len)
{
    int qos = first >> 1 & 3;
    if (len < 2)
        return false;
    size_t at = 2u + chr_get_u16be(body);
    const uint8_t *id = body + at;
    at += qos ? 2 : 0;
    if (s->mqtt_version == 5) { /* properties: their length, at most two bytes here, and them */
        if (at + 2 > len)
            return false;
        at += body[at] < 128 ? 1u + body[at] : 2u + ((body[at] & 127u) | (size_t)body[at + 1] << 7);
    }
    if (at > len || qos == 2)
        return false;
    if (qos == 1) {
        memcpy(s->out + s->out_len, "\x40\x02", 2);
        memcpy(s->out + s->out_len + 2, id, 2);
        s->out_len += 4;
    }
    s->messages++;
    if (s->on_message)
        s->on_message(s->ctx, chr_slice_of(body + at, len - at));
    return true;
}

/* Takes whole packets from the buffer and keeps the rest. */
static bool take_packets(struct subscriber *s)
{
    size_t used = 0;
    while (s->in_len - used >= 2) {
        size_t len = 0, header = 1;
        for (unsigned shift = 0;; shift += 7) {
            if (used + header == s->in_len)
                goto out;
            uint8_t byte = s->in[used + header++];
            len |= (size_t)(byte & 127) << shift;
            if (!(byte & 128))
                break;
            if (shift >= 21)
                return false;
        }
        if (header + len > IN_BYTES)
            return false;
        if (s->in_len - used < header + len)
            break;
        uint8_t first = s->in[used];
        if ((first & 0xF0) == 0x30 && !take_publish(s, first, s->in + used + header, len))
            return false;
        if ((first & 0xF0) == 0xE0)
            return false;
        s->bytes += header + len;
        used += header + len;
    }
out:
    memmove(s->in, s->in + used, s->in_len - used);
    s->in_len -= used;
    return true;
}

int subscriber_drain(struct subscriber *s)
{
    size_t room = IN_BYTES - s->in_len;
    ssize_t n = recv(s->fd, s->in + s->in_len, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        fprintf(stderr, "subscriber: %s\n", n == 0 ? "closed by the server" : strerror(errno));
        return -1;
    }
    s->in_len += (size_t)n;
    if (!take_packets(s)) {
        fprintf(stderr, "subscriber: a packet that it does not expect\n");
        return -1;
    }
    /* Small against any socket buffer; when it is full all the same, wait. */
    for (size_t sent = 0; sent < s->out_len;) {
        ssize_t m = send(s->fd, s->out + sent, s->out_len - sent, MSG_NOSIGNAL);
        struct pollfd ready = {.fd = s->fd, .events = POLLOUT};
        if (m < 0 && errno != EAGAIN)
            return -1;
        if (m < 0)
            poll(&ready, 1, -1);
        sent += m > 0 ? (size_t)m : 0;
    }
    s->out_len = 0;
    return (size_t)n == room;
}

void subscriber_close(struct subscriber *s)
{
    if (s->fd >= 0)
        close(s->fd);
    free(s->in);
    free(s->out);
    s->fd = -1;
}
