/* bench/bench_null_server.c: what no broker can beat: frames packets and acknowledges, nothing
 * else.
 *
 * One thread, epoll. It routes nothing and stores nothing; it is there to show that the load
 * generator is not what limits a result. Prints the line that chronos prints when it serves. */
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

struct client {
    int fd;
    int version;
    bool blocked;
    size_t in_len;
    size_t out_len, out_pos;
    uint8_t in[IN_BYTES];
    uint8_t out[OUT_BYTES];
};

/* 0: fine; -1: close. */
static int take_packet(struct client *c, const uint8_t *header, const uint8_t *body, size_t len)
{
    uint8_t *out = c->out + c->out_len;
    uint8_t qos = header[0] >> 1 & 3;
    if ((header[0] & 0xF0) == 0x30) {
        if (qos == 0)
            return 0;
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
        c->blocked = false;
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
                close(c->fd);
                free(c);
            }
        }
    }
}
