/* bench/bench_deliver.c: from publisher to subscriber on plain topics, at a steady rate.
 *
 * Publishes 64-byte payloads that begin with the time of their sending, over several connections,
 * and receives them on another one, all in this thread: one clock, no skew. Prints one JSON object.
 *
 *   bench_deliver HOST:PORT [RATE 5000] [SECONDS 10] [QOS 0] [PUBLISHERS 10] [VERSION 311] */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "bench/histogram.h"
#include "bench/net.h"
#include "bench/subscriber.h"

#define PUBLISHERS_MAX 1000
#define PAYLOAD_BYTES  64

static void on_message(void *ctx, chr_slice payload)
{
    if (payload.len == PAYLOAD_BYTES)
        histogram_add(ctx, net_now_ns() - chr_get_u64le(payload.ptr));
}

/* One small packet into a socket that is never near full at these rates. */
static void publish(int fd, int version, int qos, unsigned publisher, uint16_t id)
{
    uint8_t packet[128], *p = packet;
    char topic[32];
    size_t topic_len = (size_t)snprintf(topic, sizeof topic, "plant/%u/state", publisher);
    *p++ = (uint8_t)(0x30 | qos << 1);
    *p++ = (uint8_t)(2 + topic_len + (qos ? 2u : 0u) + (version == 5 ? 1u : 0u) + PAYLOAD_BYTES);
    chr_put_u16be(p, (uint16_t)topic_len);
    memcpy(p + 2, topic, topic_len);
    p += 2 + topic_len;
    if (qos) {
        chr_put_u16be(p, id ? id : 1);
        p += 2;
    }
    if (version == 5)
        *p++ = 0;
    memset(p, 'x', PAYLOAD_BYTES);
    chr_put_u64le(p, net_now_ns());
    p += PAYLOAD_BYTES;
    if (send(fd, packet, (size_t)(p - packet), MSG_NOSIGNAL) != p - packet) {
        perror("publish");
        exit(1);
    }
}

/* Until `until_ns`, takes what the subscriber gets. PUBACKs to publishers are read and dropped now
 * and then, when their sockets are used next. */
static void receive_until(struct subscriber *s, uint64_t until_ns)
{
    for (;;) {
        uint64_t now_ns = net_now_ns();
        uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u),
                                .tv_nsec = (long)(wait_ns % 1000000000u)};
        struct pollfd ready = {.fd = s->fd, .events = POLLIN};
        int n = ppoll(&ready, 1, &wait, NULL);
        if (n > 0 && subscriber_drain(s) < 0)
            exit(1);
        if (n == 0 || wait_ns == 0)
            return;
    }
}

int main(int argc, char **argv)
{
    static struct histogram h;
    static int fds[PUBLISHERS_MAX];
    static uint8_t acks[65536];
    if (argc < 2) {
        fprintf(stderr, "bench_deliver HOST:PORT [RATE] [SECONDS] [QOS] [PUBLISHERS] [VERSION]\n");
        return 2;
    }
    double rate = argc > 2 ? atof(argv[2]) : 5000;
    double seconds = argc > 3 ? atof(argv[3]) : 10;
    int qos = argc > 4 ? atoi(argv[4]) : 0;
    unsigned publishers = argc > 5 ? (unsigned)atoi(argv[5]) : 10;
    int version = argc > 6 && strcmp(argv[6], "5") == 0 ? 5 : 4;
    if (publishers == 0 || publishers > PUBLISHERS_MAX || rate <= 0 || qos < 0 || qos > 1)
        return 2;
    prctl(PR_SET_TIMERSLACK, 1);
    struct subscriber s = {.fd = -1, .on_message = on_message, .ctx = &h};
    if (subscriber_open(&s, argv[1], version, "bench-deliver-in", "plant/#", qos) != 0)
        return 1;
    for (unsigned i = 0; i < publishers; i++) {
        char id[32];
        struct net_connack connack;
        snprintf(id, sizeof id, "bench-deliver-%u", i);
        fds[i] = net_connect(argv[1]);
        if (fds[i] < 0 || net_mqtt_connect(fds[i], version, id, &connack) != 0)
            return 1;
    }
    uint64_t start_ns = net_now_ns(), sent = 0;
    uint64_t total = (uint64_t)(rate * seconds);
    while (sent < total) {
        uint64_t due_ns = start_ns + (uint64_t)((double)sent * 1e9 / rate);
        receive_until(&s, due_ns);
        unsigned i = (unsigned)(sent % publishers);
        if (qos && recv(fds[i], acks, sizeof acks, MSG_DONTWAIT) == 0) {
            fprintf(stderr, "a publisher's connection was closed\n");
            return 1;
        }
        publish(fds[i], version, qos, i, (uint16_t)(sent / publishers + 1));
        sent++;
    }
    for (int quiet = 0; quiet < 20 && s.messages < sent; quiet++)
        receive_until(&s, net_now_ns() + 100000000u);
    printf("{\"rate\":%.0f,\"seconds\":%.1f,\"qos\":%d,\"publishers\":%u,\"sent\":%" PRIu64
           ",\"delivered\":%" PRIu64 ",\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f}\n",
           rate, seconds, qos, publishers, sent, s.messages, (double)histogram_at(&h, 0.5) / 1e3,
           (double)histogram_at(&h, 0.99) / 1e3, (double)histogram_at(&h, 0.999) / 1e3,
           (double)h.max_ns / 1e3);
    subscriber_close(&s);
    for (unsigned i = 0; i < publishers; i++)
        close(fds[i]);
    return s.messages == sent ? 0 : 1;
}
