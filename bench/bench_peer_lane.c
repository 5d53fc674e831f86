/* bench/bench_peer_lane.c: what a lane between nodes costs beside a bare TCP connection (R17).
 *
 * Both ends are in this process, over loopback: for the lane two nodes, each with its lane threads;
 * for TCP a thread that reads and this one that writes, u32 length and message, one system call
 * each. The two alternate, so that both run under the same weather, and the medians of all rounds
 * count. Five questions, each with both:
 *
 *   batches     64 KiB messages on BULK, random bytes: as many as get through
 *   readings    the same with JSON readings
 *   lz4         the same when they are compressed, as to other machines
 *   control     100-byte messages on CONTROL: as many as get through
 *   there_back  100 bytes there and 100 back, one after the other: microseconds
 *
 * The receiver of the lane owns each message and releases it; that of TCP looks at the bytes in its
 * buffer and forgets them. CPU is that of the whole process, both ends. Prints one JSON object.
 *
 *   bench_peer_lane [ROUNDS 5] [MEBIBYTES 512] */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/random.h"
#include "base/wake.h"
#include "bench/histogram.h"
#include "bench/net.h"
#include "bridge/peers.h"

#define BATCH_BYTES   ((size_t)64 << 10)
#define CONTROL_BYTES ((size_t)100)
#define ROUNDS_MAX    99
#define THERE_BACK    5000u
#define SEED          42u
/* So many different batches: that none is in a cache because it was just sent. */
#define BATCHES 64u

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench_peer_lane: %s: %s\n", what, why);
    exit(1);
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- The lane -----------------------------------------------------------------------------------
 */

struct node {
    struct peers *peers;
    _Atomic bool echo; /* sends each message back */
    int listening;
    pthread_t acceptor;
    struct chr_wake wake; /* whoever waits for any of these */
    _Atomic bool up[PEERS_LANES];
    _Atomic uint64_t messages, bytes, writables;
    uint64_t self;
};

static void received(void *ctx, struct peers_message *message)
{
    struct node *n = ctx;
    if (n->echo) {
        chr_slice part = message->bytes;
        if (peers_send(n->peers, message->from, PEERS_CONTROL, 2, &part, 1))
            fail("echo", "refused");
    }
    atomic_fetch_add(&n->bytes, message->bytes.len);
    atomic_fetch_add(&n->messages, 1);
    peers_release(n->peers, message);
    chr_wake_signal(&n->wake);
}

static void changed(void *ctx, uint64_t node, enum peers_lane lane, bool up)
{
    struct node *n = ctx;
    (void)node;
    n->up[lane] = up;
    chr_wake_signal(&n->wake);
}

static void writable(void *ctx, uint64_t node, enum peers_lane lane)
{
    struct node *n = ctx;
    (void)node, (void)lane;
    atomic_fetch_add(&n->writables, 1);
    chr_wake_signal(&n->wake);
}

#define WAIT_UNTIL(n, condition)                                                                   \
    while (!(condition)) {                                                                         \
        uint32_t ticket_ = chr_wake_prepare(&(n)->wake);                                           \
        if (condition)                                                                             \
            chr_wake_cancel(&(n)->wake);                                                           \
        else                                                                                       \
            chr_wake_wait(&(n)->wake, ticket_, 1000000);                                           \
    }

static void *accept_main(void *arg)
{
    struct node *n = arg;
    for (;;) {
        struct pollfd p = {.fd = n->listening, .events = POLLIN};
        (void)poll(&p, 1, -1);
        int fd = accept4(n->listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR)
                continue;
            return NULL; /* it was shut down */
        }
        int one = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        uint8_t bytes[1024];
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got > 0)
            peers_adopt(n->peers, fd, chr_slice_of(bytes, (size_t)got), NULL);
        else
            close(fd);
    }
}

static void start_nodes(struct node nodes[2], enum peers_compress compress)
{
    uint16_t ports[2];
    for (int i = 0; i < 2; i++) {
        nodes[i].self = (uint64_t)i + 1;
        chr_wake_init(&nodes[i].wake);
        nodes[i].listening = net_listen("127.0.0.1:0", &ports[i]);
        if (nodes[i].listening < 0)
            exit(1);
    }
    for (int i = 0; i < 2; i++) {
        struct chr_errmsg msg;
        struct peers_peer other = {(uint64_t)(2 - i), "127.0.0.1", ports[1 - i]};
        struct peers_options o = {.self = nodes[i].self,
                                  .secret = CHR_LIT("secret"),
                                  .peers = &other,
                                  .peers_count = 1,
                                  .compress = compress,
                                  .ctx = &nodes[i],
                                  .received = received,
                                  .changed = changed,
                                  .writable = writable};
        if (peers_start(&o, &nodes[i].peers, &msg))
            fail("start", msg.text);
        if (pthread_create(&nodes[i].acceptor, NULL, accept_main, &nodes[i]))
            fail("start", "no thread");
    }
    for (int i = 0; i < 2; i++)
        WAIT_UNTIL(&nodes[i], nodes[i].up[PEERS_CONTROL] && nodes[i].up[PEERS_BULK]);
}

static void stop_nodes(struct node nodes[2])
{
    for (int i = 0; i < 2; i++)
        peers_stop(nodes[i].peers);
    for (int i = 0; i < 2; i++) {
        shutdown(nodes[i].listening, SHUT_RDWR);
        pthread_join(nodes[i].acceptor, NULL);
        close(nodes[i].listening);
        peers_free(nodes[i].peers);
    }
}

static void lane_send(struct node *n, enum peers_lane lane, const uint8_t *bytes, size_t len)
{
    chr_slice part = chr_slice_of(bytes, len);
    for (;;) {
        uint64_t before = n->writables;
        chr_err err = peers_send(n->peers, 3 - n->self, lane, 3, &part, 1);
        if (!err)
            return;
        if (err != CHR_EAGAIN)
            fail("send", chr_strerror(err));
        WAIT_UNTIL(n, n->writables != before);
    }
}

static void lane_stream(struct node nodes[2], enum peers_lane lane, const uint8_t *pool, size_t len,
                        uint64_t count)
{
    uint64_t messages = nodes[1].messages + count, bytes = nodes[1].bytes + count * len;
    for (uint64_t i = 0; i < count; i++)
        lane_send(&nodes[0], lane, pool + i % BATCHES * len, len);
    WAIT_UNTIL(&nodes[1], nodes[1].messages >= messages);
    if (nodes[1].messages != messages || nodes[1].bytes != bytes)
        fail("lane", "not what was sent");
}

static void lane_there_back(struct node nodes[2], const uint8_t *pool, struct histogram *h)
{
    nodes[1].echo = true;
    for (uint32_t i = 0; i < THERE_BACK; i++) {
        uint64_t back = nodes[0].messages + 1, t0 = net_now_ns();
        lane_send(&nodes[0], PEERS_CONTROL, pool, CONTROL_BYTES);
        WAIT_UNTIL(&nodes[0], nodes[0].messages >= back);
        histogram_add(h, net_now_ns() - t0);
    }
    nodes[1].echo = false;
}

/* ---- Bare TCP -----------------------------------------------------------------------------------
 */

struct tcp {
    int client, server;
    pthread_t reader;
    struct chr_wake wake;
    _Atomic uint64_t messages, bytes;
    _Atomic bool echo;
};

static void write_all(int fd, const uint8_t *bytes, size_t len)
{
    uint32_t head = (uint32_t)len;
    struct iovec parts[2] = {{&head, 4}, {(void *)(uintptr_t)bytes, len}};
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = 2};
    while (parts[1].iov_len) {
        ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (n < 0)
            fail("tcp", strerror(errno));
        size_t of_head = CHR_MIN((size_t)n, parts[0].iov_len);
        parts[0].iov_base = (uint8_t *)parts[0].iov_base + of_head;
        parts[0].iov_len -= of_head;
        parts[1].iov_base = (uint8_t *)parts[1].iov_base + ((size_t)n - of_head);
        parts[1].iov_len -= (size_t)n - of_head;
    }
}

static void *tcp_reader(void *arg)
{
    struct tcp *t = arg;
    static uint8_t buffer[512 << 10];
    size_t held = 0;
    for (;;) {
        ssize_t n = recv(t->server, buffer + held, sizeof buffer - held, 0);
        if (n <= 0)
            return NULL;
        size_t len = held + (size_t)n, at = 0;
        uint64_t messages = 0, bytes = 0;
        for (;;) {
            uint32_t size;
            if (len - at < 4)
                break;
            memcpy(&size, buffer + at, 4);
            if (len - at < 4 + (size_t)size)
                break;
            if (t->echo)
                write_all(t->server, buffer + at + 4, size);
            messages++;
            bytes += size;
            at += 4 + (size_t)size;
        }
        held = len - at;
        memmove(buffer, buffer + at, held);
        atomic_fetch_add(&t->bytes, bytes);
        atomic_fetch_add(&t->messages, messages);
        if (messages)
            chr_wake_signal(&t->wake);
    }
}

static void tcp_start(struct tcp *t)
{
    uint16_t port;
    char address[32];
    int listening = net_listen("127.0.0.1:0", &port);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    t->client = listening < 0 ? -1 : net_connect(address);
    if (t->client < 0)
        exit(1);
    struct pollfd p = {.fd = listening, .events = POLLIN};
    (void)poll(&p, 1, -1);
    t->server = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    int one = 1;
    if (t->server < 0 || setsockopt(t->server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one))
        fail("tcp", strerror(errno));
    close(listening);
    chr_wake_init(&t->wake);
    if (pthread_create(&t->reader, NULL, tcp_reader, t))
        fail("tcp", "no thread");
}

static void tcp_stream(struct tcp *t, const uint8_t *pool, size_t len, uint64_t count)
{
    uint64_t messages = t->messages + count, bytes = t->bytes + count * len;
    for (uint64_t i = 0; i < count; i++)
        write_all(t->client, pool + i % BATCHES * len, len);
    WAIT_UNTIL(t, t->messages >= messages);
    if (t->messages != messages || t->bytes != bytes)
        fail("tcp", "not what was sent");
}

static void tcp_there_back(struct tcp *t, const uint8_t *pool, struct histogram *h)
{
    t->echo = true;
    for (uint32_t i = 0; i < THERE_BACK; i++) {
        uint8_t back[4 + CONTROL_BYTES];
        uint64_t t0 = net_now_ns();
        write_all(t->client, pool, CONTROL_BYTES);
        if (recv(t->client, back, sizeof back, MSG_WAITALL) != (ssize_t)sizeof back)
            fail("tcp", "nothing comes back");
        histogram_add(h, net_now_ns() - t0);
    }
    t->echo = false;
}

/* ---- Questions ----------------------------------------------------------------------------------
 */

struct rounds {
    double wall_s[ROUNDS_MAX], cpu_s[ROUNDS_MAX];
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int count)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    return count % 2 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

static void stream(const char *name, struct node nodes[2], struct tcp *t, enum peers_lane lane,
                   const uint8_t *pool, size_t len, uint64_t count, int rounds)
{
    static struct rounds lanes, bare;
    struct peers_lane_stats before, after;
    if (peers_lane_stats(nodes[0].peers, 2, lane, &before))
        fail("stats", "none");
    for (int i = 0; i < rounds; i++) {
        double c0 = cpu_s();
        uint64_t t0 = net_now_ns();
        lane_stream(nodes, lane, pool, len, count);
        uint64_t t1 = net_now_ns();
        double c1 = cpu_s();
        tcp_stream(t, pool, len, count);
        lanes.wall_s[i] = (double)(t1 - t0) / 1e9;
        bare.wall_s[i] = (double)(net_now_ns() - t1) / 1e9;
        lanes.cpu_s[i] = c1 - c0;
        bare.cpu_s[i] = cpu_s() - c1;
    }
    (void)!peers_lane_stats(nodes[0].peers, 2, lane, &after);
    double lane_s = median(lanes.wall_s, rounds), bare_s = median(bare.wall_s, rounds);
    double n = (double)count, mb = n * (double)len / 1e6;
    printf("\"%s\":{\"message_bytes\":%zu,\"messages\":%" PRIu64 ",\"lane_per_s\":%.0f,"
           "\"tcp_per_s\":%.0f,\"lane_mb_per_s\":%.0f,\"tcp_mb_per_s\":%.0f,"
           "\"lane_cpu_us_per_message\":%.2f,\"tcp_cpu_us_per_message\":%.2f,"
           "\"wire_share\":%.3f,\"lane_to_tcp\":%.2f},",
           name, len, count, n / lane_s, n / bare_s, mb / lane_s, mb / bare_s,
           median(lanes.cpu_s, rounds) * 1e6 / n, median(bare.cpu_s, rounds) * 1e6 / n,
           (double)(after.wire_bytes_sent - before.wire_bytes_sent) /
               (double)(after.bytes_sent - before.bytes_sent),
           bare_s / lane_s);
}

/* Readings as they are published, one after the other. */
static void fill_readings(uint8_t *pool, size_t len, struct chr_random *r)
{
    char line[128];
    for (size_t at = 0; at < len;) {
        int n =
            snprintf(line, sizeof line,
                     "{\"device_id\":\"esp-%04u\",\"ts\":%" PRIu64 ",\"metrics\":{\"temp\":%.1f,"
                     "\"humidity\":%.1f}}\n",
                     (unsigned)chr_random_below(r, 1000), UINT64_C(1700000000000) + at,
                     15 + chr_random_f64(r) * 20, 30 + chr_random_f64(r) * 60);
        size_t part = CHR_MIN((size_t)n, len - at);
        memcpy(pool + at, line, part);
        at += part;
    }
}

int main(int argc, char **argv)
{
    static struct node nodes[2], packing[2];
    static struct tcp t;
    static struct histogram lane_h[ROUNDS_MAX], tcp_h[ROUNDS_MAX];
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    unsigned long mebibytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 512;
    if (rounds < 1 || rounds > ROUNDS_MAX || mebibytes < 1 || mebibytes > 1 << 20) {
        fprintf(stderr, "bench_peer_lane [ROUNDS] [MEBIBYTES]\n");
        return 2;
    }
    size_t pool_bytes = BATCHES * BATCH_BYTES;
    uint8_t *noise = malloc(pool_bytes), *readings = malloc(pool_bytes);
    if (!noise || !readings)
        fail("malloc", "out of memory");
    struct chr_random random = {.state = SEED};
    for (size_t i = 0; i < pool_bytes; i += 8) {
        uint64_t r = chr_random_u64(&random);
        memcpy(noise + i, &r, 8);
    }
    fill_readings(readings, pool_bytes, &random);
    start_nodes(nodes, PEERS_COMPRESS_REMOTE);
    start_nodes(packing, PEERS_COMPRESS_ALWAYS);
    tcp_start(&t);
    lane_stream(nodes, PEERS_BULK, noise, BATCH_BYTES, 256); /* warm */
    tcp_stream(&t, noise, BATCH_BYTES, 256);

    uint64_t batches = (uint64_t)mebibytes * 16;
    printf("{\"seed\":%u,\"rounds\":%d,", SEED, rounds);
    stream("batches", nodes, &t, PEERS_BULK, noise, BATCH_BYTES, batches, rounds);
    stream("readings", nodes, &t, PEERS_BULK, readings, BATCH_BYTES, batches, rounds);
    stream("lz4", packing, &t, PEERS_BULK, readings, BATCH_BYTES, batches, rounds);
    stream("control", nodes, &t, PEERS_CONTROL, noise, CONTROL_BYTES, batches * 50, rounds);
    double lane_us[4][ROUNDS_MAX];
    for (int i = 0; i < rounds; i++) {
        lane_there_back(nodes, noise, &lane_h[i]);
        tcp_there_back(&t, noise, &tcp_h[i]);
        lane_us[0][i] = (double)histogram_at(&lane_h[i], 0.5) / 1e3;
        lane_us[1][i] = (double)histogram_at(&lane_h[i], 0.99) / 1e3;
        lane_us[2][i] = (double)histogram_at(&tcp_h[i], 0.5) / 1e3;
        lane_us[3][i] = (double)histogram_at(&tcp_h[i], 0.99) / 1e3;
    }
    double m[4];
    for (int i = 0; i < 4; i++)
        m[i] = median(lane_us[i], rounds);
    printf("\"there_back\":{\"lane_p50_us\":%.1f,\"lane_p99_us\":%.1f,\"tcp_p50_us\":%.1f,"
           "\"tcp_p99_us\":%.1f,\"lane_to_tcp_p50\":%.2f}}\n",
           m[0], m[1], m[2], m[3], m[0] / m[2]);

    stop_nodes(nodes);
    stop_nodes(packing);
    shutdown(t.client, SHUT_RDWR);
    pthread_join(t.reader, NULL);
    close(t.client);
    close(t.server);
    free(noise);
    free(readings);
    return 0;
}
