/* bench/bench_null_server.c: what no broker can beat: frames packets and acknowledges, or copies
 * those of QoS 0 to whoever subscribed to their very topic; nothing else.
 *
 * One thread, epoll. It knows no wildcards, keeps and stores nothing; it is there to show that the
 * load generator is not what limits a result. Prints the line that chronos prints when it serves.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "bench/net.h"

#define IN_BYTES (256 * 1024)
#define OUT_BYTES                                                                                  \
    IN_BYTES /* no answer is longer than its question, CONNACK of 5 bytes included                 \
              */

#define TOPICS_MAX      1024
#define SUBSCRIBERS_MAX 2048

/* A topic that somebody subscribed to. */
struct topic {
    uint16_t len;
    uint8_t name[128];
    uint32_t subscribers_count;
    struct client *subscribers[SUBSCRIBERS_MAX];
};

static struct topic *topics[TOPICS_MAX];
static uint32_t topics_count;

struct client {
    int fd;
    int version;
    bool blocked;
    bool written;              /* in `written` below */
    const struct topic *topic; /* that it published to last; NULL: none, or not subscribed to */
    struct client *next_written;
    size_t in_len;
    size_t out_len, out_pos;
    uint8_t in[IN_BYTES];
    uint8_t out[OUT_BYTES];
};

/* Subscribers with output of this turn. */
static struct client *written_first;

static struct topic *find_topic(const uint8_t *name, size_t len)
{
    for (uint32_t i = 0; i < topics_count; i++)
        if (topics[i]->len == len && memcmp(topics[i]->name, name, len) == 0)
            return topics[i];
    return NULL;
}

/* The first filter of a SUBSCRIBE, as a topic; granted at its QoS. -1: close. */
static int subscribe(struct client *c, const uint8_t *body, size_t len)
{
    size_t at = c->version == 5 ? 3 : 2;
    size_t topic_len = len >= at + 2 ? chr_get_u16be(body + at) : 0;
    if (topic_len == 0 || topic_len > sizeof topics[0]->name || len < at + 2 + topic_len + 1)
        return -1;
    const uint8_t *name = body + at + 2;
    struct topic *topic = find_topic(name, topic_len);
    if (!topic) {
        topic = topics_count < TOPICS_MAX ? calloc(1, sizeof *topic) : NULL;
        if (!topic)
            return -1;
        topic->len = (uint16_t)topic_len;
        memcpy(topic->name, name, topic_len);
        topics[topics_count++] = topic;
    }
    if (topic->subscribers_count == SUBSCRIBERS_MAX)
        return -1;
    topic->subscribers[topic->subscribers_count++] = c;
    uint8_t *out = c->out + c->out_len;
    size_t size = c->version == 5 ? 6 : 5;
    out[0] = 0x90;
    out[1] = (uint8_t)(size - 2);
    memcpy(out + 2, body, 2);
    out[4] = 0;
    out[size - 1] = name[topic_len] & 3;
    c->out_len += size;
    return 0;
}

/* Copies a whole packet to all who subscribed to its topic. -1: one of them reads too slowly. */
static int relay(struct client *c, const uint8_t *packet, const uint8_t *body, size_t len)
{
    size_t topic_len = len >= 2 ? chr_get_u16be(body) : 0;
    if (topic_len == 0 || len < 2 + topic_len)
        return -1;
    const struct topic *topic = c->topic;
    if (!topic || topic->len != topic_len || memcmp(topic->name, body + 2, topic_len) != 0)
        topic = c->topic = find_topic(body + 2, topic_len);
    size_t size = (size_t)(body - packet) + len;
    for (uint32_t i = 0; topic && i < topic->subscribers_count; i++) {
        struct client *s = topic->subscribers[i];
        if (OUT_BYTES - s->out_len < size)
            return -1;
        memcpy(s->out + s->out_len, packet, size);
        s->out_len += size;
        if (s->written)
            continue;
        s->written = true;
        s->next_written = written_first;
        written_first = s;
    }
    return 0;
}

static void forget(const struct client *c)
{
    for (uint32_t i = 0; i < topics_count; i++)
        for (uint32_t k = 0; k < topics[i]->subscribers_count; k++)
            if (topics[i]->subscribers[k] == c)
                topics[i]->subscribers[k--] =
                    topics[i]->subscribers[--topics[i]->subscribers_count];
    for (struct client **at = &written_first; *at; at = &(*at)->next_written)
        if (*at == c) {
            *at = c->next_written;
            return;
        }
}

/* 0: fine; -1: close. */
static int take_packet(struct client *c, const uint8_t *header, const uint8_t *body, size_t len)
{
    uint8_t *out = c->out + c->out_len;
    uint8_t qos = header[0] >> 1 & 3;
    if ((header[0] & 0xF0) == 0x30) {
        if (qos == 0)
            return relay(c, header, body, len);
        size_t topic = len >= 2 ? chr_get_u16be(body) : 0;
        if (len < topic + 4)
            return -1;
        out[0] = qos == 1 ? 0x40 : 0x50;
        out[1] = 2;
        memcpy(out + 2, body + 2 + topic, 2);
        c->out_len += 4;
        return 0;
    }
    switch (header[0] >> 4) {
    case 1: /* CONNECT */
        if (len < 7)
            return -1;
        c->version = body[6];
        memcpy(out, c->version == 5 ? "\x20\x03\0\0\0" : "\x20\x02\0\0", 5);
        c->out_len += c->version == 5 ? 5 : 4;
        return 0;
    case 6: /* PUBREL */
        if (len < 2)
            return -1;
        out[0] = 0x70;
        out[1] = 2;
        memcpy(out + 2, body, 2);
        c->out_len += 4;
        return 0;
    case 8: /* SUBSCRIBE */
        return subscribe(c, body, len);
    case 12: /* PINGREQ */
        memcpy(out, "\xD0\0", 2);
        c->out_len += 2;
        return 0;
    default:
        return -1;
    }
}

static int take_packets(struct client *c)
{
    size_t used = 0;
    while (c->in_len - used >= 2) {
        size_t len = 0, header = 1;
        unsigned shift = 0;
        uint8_t byte;
        do {
            if (used + header == c->in_len)
                goto out;
            if (shift > 21)
                return -1;
            byte = c->in[used + header++];
            len |= (size_t)(byte & 127) << shift;
            shift += 7;
        } while (byte & 128);
        if (header + len > IN_BYTES)
            return -1;
        if (c->in_len - used < header + len)
            break;
        if (take_packet(c, c->in + used, c->in + used + header, len) != 0)
            return -1;
        used += header + len;
    }
out:
    memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
    return 0;
}

static int flush(struct client *c)
{
    if (c->out_len > c->out_pos) {
        ssize_t n =
            send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN)
            return -1;
        c->out_pos += n > 0 ? (size_t)n : 0;
    }
    c->blocked = c->out_pos < c->out_len;
    if (!c->blocked)
        c->out_pos = c->out_len = 0;
    return 0;
}

/* Reads until the socket is empty or the client does not take its answers. */
static int serve(struct client *c)
{
    for (;;) {
        if (flush(c) != 0)
            return -1;
        if (c->blocked)
            return 0;
        size_t room = IN_BYTES - c->in_len;
        ssize_t n = recv(c->fd, c->in + c->in_len, room, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n <= 0)
            return -1;
        c->in_len += (size_t)n;
        if (take_packets(c) != 0 || flush(c) != 0)
            return -1;
        if ((size_t)n < room && !c->blocked)
            return 0;
    }
}

static void accept_all(int listener, int epoll)
{
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *c = malloc(sizeof *c);
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        int one = 1;
        if (!c || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            perror("bench_null_server");
            exit(1);
        }
        c->fd = fd;
        c->blocked = c->written = false;
        c->topic = NULL;
        c->in_len = c->out_len = c->out_pos = 0;
    }
}

int main(int argc, char **argv)
{
    uint16_t port;
    int listener = net_listen(argc > 1 ? argv[1] : "127.0.0.1:0", &port);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (listener < 0 || epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0)
        return 1;
    fprintf(stderr, "ready mqtt=127.0.0.1:%u\n", port);
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener, epoll);
            } else if (serve(c) != 0) {
                forget(c);
                close(c->fd);
                free(c);
            }
        }
        while (written_first) {
            struct client *c = written_first;
            written_first = c->next_written;
            c->written = false;
            (void)flush(c); /* a broken connection is seen when it is read */
        }
    }
}
