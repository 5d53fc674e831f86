/* bench/bench_subscriptions.c: many subscriptions in one broker: how long they take, what memory
 * they cost, and how fast messages that match one to three of them go through.
 *
 *   bench_subscriptions HOST:PORT PID [FILTERS 1000000] [CONNECTIONS 100] [SECONDS 5] [SEED 1]
 *
 * The filters (filters.h) are dealt out to the connections one by one and asked for in SUBSCRIBE
 * packets of 100, one outstanding per connection; MQTT 3.1.1, QoS 0. Then one connection publishes,
 * with so many deliveries under way at most, that nobody drops any:
 *
 *   cold   each message to a topic that was not used before
 *   warm   2,000 topics over and over
 *   churn  the same, while another connection makes 1,000 changes a second to filters that match
 *          none of the topics
 *   none   topics that no filter matches, each used once
 *
 * All in this thread. Every delivery is counted and compared with what the filters say. Prints one
 * JSON object; server_us: CPU microseconds of the server per message, all its threads. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "bench/filters.h"
#include "bench/net.h"
#include "bench/procstat.h"

#define BATCH           100u
#define IN_BYTES        65536u
#define OUT_BYTES       65536u
#define PACKET_MAX      128u
#define PAYLOAD_BYTES   16u
#define CONNECTIONS_MAX 900u
#define DELIVERIES_MAX  8192u /* under way */
#define WARM_DEVICES    1000u
#define CHANGES_PER_S   1000u
#define CHANGES_WAITING 64u

struct peer {
    int fd;
    size_t in_len;
    uint8_t *in;
    uint64_t suback, unsuback, pingresp, publish; /* packets received */
};

static struct {
    const char *address;
    pid_t pid;
    uint64_t seed;
    uint32_t filters, connections, devices;
    double seconds;
    struct peer peers[CONNECTIONS_MAX]; /* subscribers */
    struct peer publisher, changer;
    int epoll;
    uint64_t expected;
    size_t out_len, out_sent;
    uint8_t out[OUT_BYTES];
} b;

static void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t delivered(void)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < b.connections; i++)
        sum += b.peers[i].publish;
    return sum;
}

/* ---- Connections ------------------------------------------------------------------------------
 */

static void peer_open(struct peer *p, const char *name, uint32_t number)
{
    struct net_connack connack;
    char id[64];
    snprintf(id, sizeof id, "bench-%s-%u", name, number);
    p->fd = net_connect(b.address);
    p->in = malloc(IN_BYTES);
    if (p->fd < 0 || !p->in || net_mqtt_connect(p->fd, 4, id, &connack) != 0)
        exit(1);
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
    if (epoll_ctl(b.epoll, EPOLL_CTL_ADD, p->fd, &event) != 0)
        fail("epoll: %s", strerror(errno));
}

static void take_packet(struct peer *p, uint8_t type, const uint8_t *body, size_t len)
{
    switch (type & 0xF0) {
    case 0x30:
        p->publish++;
        break;
    case 0x90:
        for (size_t i = 2; i < len; i++)
            if (body[i] >= 0x80)
                fail("a subscription was refused: 0x%02x", body[i]);
        p->suback++;
        break;
    case 0xB0:
        p->unsuback++;
        break;
    case 0xD0:
        p->pingresp++;
        break;
    default:
        fail("a packet that was not expected: 0x%02x", type);
    }
}

static void peer_read(struct peer *p)
{
    ssize_t n = recv(p->fd, p->in + p->in_len, IN_BYTES - p->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        fail("the server closed a connection");
    p->in_len += (size_t)n;
    size_t used = 0;
    while (p->in_len - used >= 2) {
        const uint8_t *at = p->in + used;
        size_t len = at[1], header = 2;
        if (len & 128) { /* at most two bytes: nothing here is larger than 16 KiB */
            if (p->in_len - used < 3)
                break;
            len = (len & 127) | (size_t)at[2] << 7;
            header = 3;
        }
        if (p->in_len - used < header + len)
            break;
        take_packet(p, at[0], at + header, len);
        used += header + len;
    }
    memmove(p->in, p->in + used, p->in_len - used);
    p->in_len -= used;
}

/* Takes what has arrived; waits for something at most wait_ms. */
static void turn(int wait_ms)
{
    struct epoll_event events[256];
    int n = epoll_wait(b.epoll, events, 256, wait_ms);
    for (int i = 0; i < n; i++)
        peer_read(events[i].data.ptr);
}

static void send_whole(struct peer *p, const uint8_t *packet, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(p->fd, packet + sent, len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            fail("send: %s", strerror(errno));
        sent += n > 0 ? (size_t)n : 0;
        if (n <= 0)
            turn(1);
    }
}

static void ping(struct peer *p)
{
    uint64_t before = p->pingresp;
    send_whole(p, (const uint8_t *)"\xC0", 2);
    while (p->pingresp == before)
        turn(1000);
}

/* ---- Subscribing ------------------------------------------------------------------------------
 */

/* The next SUBSCRIBE of a connection: filters first, first + connections, ... Returns how many. */
static uint32_t send_subscribe(uint32_t connection, uint32_t first)
{
    static uint8_t body[BATCH * (FILTERS_TEXT_MAX + 3) + 2], packet[sizeof body + 4];
    size_t len = 2;
    uint32_t count = 0;
    chr_put_u16be(body, 1);
    for (uint64_t i = first; count < BATCH && i < b.filters; i += b.connections, count++) {
        char text[FILTERS_TEXT_MAX];
        size_t text_len = filters_text(b.seed, (uint32_t)i, text);
        chr_put_u16be(body + len, (uint16_t)text_len);
        memcpy(body + len + 2, text, text_len);
        len += 2 + text_len;
        body[len++] = 0; /* QoS */
    }
    if (count == 0)
        return 0;
    size_t header = 1;
    packet[0] = 0x82;
    for (size_t left = len; left || header == 1; left >>= 7)
        packet[header++] = (uint8_t)((left & 127) | (left >> 7 ? 128u : 0u));
    memcpy(packet + header, body, len);
    send_whole(&b.peers[connection], packet, header + len);
    return count;
}

static void subscribe_all(void)
{
    uint32_t next[CONNECTIONS_MAX], waiting = 0;
    uint64_t seen[CONNECTIONS_MAX] = {0};
    for (uint32_t c = 0; c < b.connections; c++) {
        uint32_t count = send_subscribe(c, c);
        next[c] = c + count * b.connections;
        waiting += count > 0;
    }
    while (waiting) {
        turn(1000);
        for (uint32_t c = 0; c < b.connections; c++) {
            if (b.peers[c].suback == seen[c])
                continue;
            seen[c]++;
            uint32_t count = send_subscribe(c, next[c]);
            next[c] += count * b.connections;
            waiting -= count == 0;
        }
    }
}

/* ---- Publishing -------------------------------------------------------------------------------
 */

struct phase {
    const char *name;
    uint32_t topics; /* different ones before they repeat */
    bool repeat, unmatched, changes;
};

static uint64_t add_publish(uint64_t number, const struct phase *phase)
{
    uint64_t topic = number % phase->topics;
    enum filters_topic which = topic & 1 ? FILTERS_STATE : FILTERS_TEMP;
    uint32_t device = (uint32_t)(topic / 2);
    if (!phase->repeat) {
        /* In no order, so that what one look-up brought into the caches does not help the next; a
         * prime that is larger than the modulus meets each number once. Warm topics are others. */
        uint32_t cold = b.devices - WARM_DEVICES;
        device = WARM_DEVICES + (uint32_t)(device % cold * UINT64_C(2654435761) % cold);
    }
    if (phase->unmatched)
        device += b.devices;
    uint8_t *p = b.out + b.out_len;
    char text[FILTERS_TEXT_MAX];
    size_t len = filters_topic(b.seed, device, which, text);
    p[0] = 0x30;
    p[1] = (uint8_t)(2 + len + PAYLOAD_BYTES);
    chr_put_u16be(p + 2, (uint16_t)len);
    memcpy(p + 4, text, len);
    memset(p + 4 + len, 'x', PAYLOAD_BYTES);
    b.out_len += 4 + len + PAYLOAD_BYTES;
    return phase->unmatched ? 0 : filters_matching(device, which);
}

/* One change: filters of their own come and go. */
static void change(uint64_t number)
{
    static const char *const forms[] = {"other/%u/+", "+/%u/other", "other/%u/x"};
    uint8_t packet[PACKET_MAX];
    bool subscribe = number % 2 == 0;
    uint32_t which = (uint32_t)(number / 2);
    char text[64];
    int len = which % 3 == 0   ? snprintf(text, sizeof text, forms[0], which)
              : which % 3 == 1 ? snprintf(text, sizeof text, forms[1], which)
                               : snprintf(text, sizeof text, forms[2], which);
    packet[0] = subscribe ? 0x82 : 0xA2;
    packet[1] = (uint8_t)(4 + len + subscribe);
    chr_put_u16be(packet + 2, 1);
    chr_put_u16be(packet + 4, (uint16_t)len);
    memcpy(packet + 6, text, (size_t)len);
    packet[6 + len] = 0;
    send_whole(&b.changer, packet, (size_t)(6 + len + subscribe));
}

static double cpu_us(void)
{
    struct procstat stat;
    if (procstat_read(b.pid, &stat) != 0)
        fail("the server is gone");
    return (stat.user_s + stat.system_s) * 1e6;
}

static void run(const struct phase *phase)
{
    uint64_t sent = 0, changes = 0, before = delivered();
    uint64_t acks = b.changer.suback + b.changer.unsuback;
    double cpu = cpu_us();
    uint64_t start_ns = net_now_ns(), end_ns = start_ns + (uint64_t)(b.seconds * 1e9);
    b.expected = 0;
    for (;;) {
        uint64_t now_ns = net_now_ns();
        bool more = now_ns < end_ns && (phase->repeat || sent < phase->topics);
        if (b.out_sent == b.out_len) {
            b.out_sent = b.out_len = 0;
            while (more && b.out_len + PACKET_MAX <= OUT_BYTES / 8 &&
                   b.expected - (delivered() - before) < DELIVERIES_MAX &&
                   (phase->repeat || sent < phase->topics))
                b.expected += add_publish(sent++, phase);
        }
        if (phase->changes) {
            uint64_t due = (now_ns - start_ns) * CHANGES_PER_S / 1000000000u;
            while (more && changes < due &&
                   changes - (b.changer.suback + b.changer.unsuback - acks) < CHANGES_WAITING)
                change(changes++);
        }
        if (b.out_sent < b.out_len) {
            ssize_t n =
                send(b.publisher.fd, b.out + b.out_sent, b.out_len - b.out_sent, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN)
                fail("publish: %s", strerror(errno));
            b.out_sent += n > 0 ? (size_t)n : 0;
            turn(n > 0 ? 0 : 1);
        } else if (!more) {
            break;
        } else {
            turn(b.out_len ? 0 : 1);
        }
    }
    ping(&b.publisher);
    while (delivered() - before < b.expected)
        turn(1000);
    double seconds = (double)(net_now_ns() - start_ns) / 1e9;
    if (delivered() - before != b.expected)
        fail("%s: %" PRIu64 " deliveries, expected %" PRIu64, phase->name, delivered() - before,
             b.expected);
    printf(",\"%s\":{\"messages\":%" PRIu64 ",\"deliveries\":%" PRIu64
           ",\"seconds\":%.3f,\"per_s\":%.0f,\"server_us\":%.3f,\"changes\":%" PRIu64 "}",
           phase->name, sent, b.expected, seconds, (double)sent / seconds,
           (cpu_us() - cpu) / (double)sent, changes);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "bench_subscriptions HOST:PORT PID [FILTERS] [CONNECTIONS] [SECONDS] "
                        "[SEED]\n");
        return 2;
    }
    b.address = argv[1];
    b.pid = (pid_t)atoi(argv[2]);
    b.filters = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1000000;
    b.connections = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 100;
    b.seconds = argc > 5 ? atof(argv[5]) : 5;
    b.seed = argc > 6 ? strtoull(argv[6], NULL, 10) : 1;
    /* The filters of a device are on different connections, so each is a delivery. */
    if (b.connections < FILTERS_PER_DEVICE || b.connections > CONNECTIONS_MAX ||
        b.filters < 2 * FILTERS_PER_DEVICE * WARM_DEVICES)
        fail("at least %u connections, at most %u; at least %u filters", FILTERS_PER_DEVICE,
             CONNECTIONS_MAX, 2 * FILTERS_PER_DEVICE * WARM_DEVICES);
    b.filters -= b.filters % FILTERS_PER_DEVICE;
    b.devices = b.filters / FILTERS_PER_DEVICE;
    b.epoll = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < b.connections; i++)
        peer_open(&b.peers[i], "in", i);
    peer_open(&b.publisher, "out", 0);
    peer_open(&b.changer, "change", 0);

    struct procstat before, after;
    if (procstat_read(b.pid, &before) != 0)
        fail("no process %d", (int)b.pid);
    uint64_t start_ns = net_now_ns();
    subscribe_all();
    double seconds = (double)(net_now_ns() - start_ns) / 1e9;
    if (procstat_read(b.pid, &after) != 0)
        fail("no process %d", (int)b.pid);
    uint64_t bytes = after.rss_anon_bytes - before.rss_anon_bytes;
    printf("{\"filters\":%u,\"connections\":%u,\"seed\":%" PRIu64
           ",\"subscribe\":{\"seconds\":%.3f,\"per_s\":%.0f,\"server_us\":%.3f,"
           "\"rss_anon\":%" PRIu64 ",\"bytes_each\":%.1f}",
           b.filters, b.connections, b.seed, seconds, b.filters / seconds,
           (after.user_s + after.system_s - before.user_s - before.system_s) * 1e6 / b.filters,
           bytes, (double)bytes / b.filters);
    fflush(stdout);

    const struct phase phases[] = {
        {.name = "cold", .topics = 2 * (b.devices - WARM_DEVICES)},
        {.name = "warm", .topics = 2 * WARM_DEVICES, .repeat = true},
        {.name = "churn", .topics = 2 * WARM_DEVICES, .repeat = true, .changes = true},
        {.name = "none", .topics = 2 * (b.devices - WARM_DEVICES), .unmatched = true},
    };
    for (size_t i = 0; i < sizeof phases / sizeof phases[0]; i++)
        run(&phases[i]);
    printf("}\n");
    return 0;
}
