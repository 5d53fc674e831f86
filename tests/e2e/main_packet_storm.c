/* tests/e2e/main_packet_storm.c: random and mutated packets against a running node.
 *
 *     chr_test_packet_storm --address HOST:PORT [--packets N] [--seed S] [--pid PID]
 *                           [--grow-kib K]
 *
 * Thousands of short connections, LANES at a time. Most begin with a good CONNECT, so that what
 * follows reaches the session; then come packets of every type, valid ones and ones with bits
 * flipped, bytes cut, doubled or replaced, lengths changed, or nothing but noise; then the
 * connection is shut down, reset, or left until the node closes it. Every PROBE_PACKETS a fresh
 * client publishes a reading at QoS 1 and must get its PUBACK, and asks `SELECT 1` and must get an
 * answer: the node lives and serves. With --pid its anonymous memory after the storm may be at most
 * K KiB above what it was after the first tenth.
 *
 * Same seed, same packets; only their interleaving is the kernel's. Exit code 0; 1 when the node
 * died, fell silent or grew; each failure says the seed. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/random.h"
#include "proto/mqtt/decode.h"
#include "proto/mqtt/encode.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/proto/random_packet.h"
#pragma GCC diagnostic pop

#define LANES         32
#define PROBE_PACKETS 20000
#define PROBE_MS      20000 /* under a sanitizer, on a busy machine */
#define SETTLE_MS     15000 /* for sessions to expire and memory to come back */
#define IDLE_MS       2000  /* a connection left open is given up after this */
#define OUT_BYTES_MAX (1u << 18)
#define MUTATIONS_MAX 8
#define SOURCES       200 /* 127.0.0.2 …: one address has 28,000 ports */

enum ending { END_SHUTDOWN, END_RESET, END_WAIT, ENDINGS };

struct lane {
    int fd; /* -1: free */
    enum ending ending;
    uint8_t *out;
    size_t out_len, out_at;
    bool half_closed;
    int64_t since_ms;
};

static struct sockaddr_in server;
static struct lane lanes[LANES];
static struct random_packets packets;
static uint64_t seed = 1, packets_max = 200000, sent_packets, connections, probes, closed_by_node;
static long pid, grow_kib = 65536;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "packet storm: %s (seed %llu, after %llu packets on %llu connections)\n", what,
            (unsigned long long)seed, (unsigned long long)sent_packets,
            (unsigned long long)connections);
    exit(1);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int open_socket(uint64_t n, bool block)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (block ? 0 : SOCK_NONBLOCK), 0);
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f000002u + (uint32_t)(n % SOURCES));
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from))
        fail("can't make a socket");
    if (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
        fail("the node does not accept connections");
    return fd;
}

/* -- What is sent
 * --------------------------------------------------------------------------------*/

/* Topics that reach something: mapped, SQL, `$`, shared. */
static chr_slice topic_of_ours(void)
{
    static const char *const topics[] = {"sensors/storm/t", "sensors/storm",   "$chronos/sql",
                                         "$chronos/sql/s",  "$SYS/broker/x",   "plain/a",
                                         "plain/b/c",       "$chronos/peer/x", "$chronos/cancel/s",
                                         "sensors//",       "sensors/storm/#"};
    return chr_slice_cstr(topics[below(&packets, CHR_COUNT_OF(topics))]);
}

static chr_slice payload_of_ours(void)
{
    static const char *const payloads[] = {
        "1.5",      "NaN",
        "1e999",    "{\"device_id\":\"d\",\"metrics\":{\"a\":1,\"b\":null}}",
        "{\"a\":",  "[{\"metrics\":{\"x\":1}},{\"metrics\":{\"x\":\"y\"}}]",
        "SELECT 1", "SELECT count(*) FROM readings",
        "SELECT (", "INSERT INTO readings (device_id, value) VALUES ('s', 1)",
        "",         "\xff\xfe"};
    return chr_slice_cstr(payloads[below(&packets, CHR_COUNT_OF(payloads))]);
}

static size_t good_connect(uint8_t *out, size_t capacity, enum mqtt_version version)
{
    uint8_t block[64];
    char id[24];
    snprintf(id, sizeof id, "storm-%u", (unsigned)below(&packets, 64));
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    if (version == MQTT_V5 && chance(&packets, 30))
        mqtt_put_number(&w, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL, (uint32_t)below(&packets, 3));
    if (version == MQTT_V5 && chance(&packets, 30))
        mqtt_put_number(&w, MQTT_PROPERTY_RECEIVE_MAXIMUM, 1 + (uint32_t)below(&packets, 20));
    struct mqtt_connect c = {.version = version,
                             .clean_start = chance(&packets, 70),
                             .keep_alive_s = 10,
                             .client_id = chr_slice_cstr(id)};
    c.properties.raw = mqtt_property_block(&w);
    return mqtt_encode_connect(out, capacity, &c);
}

static size_t our_publish(uint8_t *out, size_t capacity, enum mqtt_version version)
{
    uint8_t block[256];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    if (version == MQTT_V5 && chance(&packets, 50))
        mqtt_put_bytes(&w, MQTT_PROPERTY_RESPONSE_TOPIC, topic_of_ours());
    if (version == MQTT_V5 && chance(&packets, 20))
        mqtt_put_number(&w, MQTT_PROPERTY_TOPIC_ALIAS, (uint32_t)below(&packets, 4));
    struct mqtt_publish p = {.topic = topic_of_ours(),
                             .payload = payload_of_ours(),
                             .qos = (uint8_t)below(&packets, 3),
                             .retain = chance(&packets, 20),
                             .packet_id = (uint16_t)(1 + below(&packets, 20))};
    if (!p.qos)
        p.packet_id = 0;
    p.properties.raw = mqtt_property_block(&w);
    return mqtt_encode_publish(out, capacity, version, &p);
}

/* In place; capacity leaves room for a doubled packet. */
static size_t mutate(uint8_t *p, size_t len, size_t capacity)
{
    for (uint64_t n = 1 + below(&packets, MUTATIONS_MAX); n && len; n--) {
        size_t at = below(&packets, chance(&packets, 50) && len > 16 ? 16 : len);
        switch (below(&packets, 6)) {
        case 0:
            p[at] = (uint8_t)(p[at] ^ (1u << below(&packets, 8)));
            break;
        case 1:
            p[at] = (uint8_t)below(&packets, 256);
            break;
        case 2: /* cut */
            len = at;
            break;
        case 3: { /* take bytes out */
            size_t gone = 1 + below(&packets, len - at);
            memmove(p + at, p + at + gone, len - at - gone);
            len -= gone;
            break;
        }
        case 4: { /* say a stretch twice */
            size_t again = 1 + below(&packets, len - at);
            if (len + again > capacity)
                break;
            memmove(p + at + again, p + at, len - at);
            len += again;
            break;
        }
        default:
            p[at] = (const uint8_t[]){0, 1, 0x7f, 0x80, 0xff}[below(&packets, 5)];
        }
    }
    return len;
}

static size_t one_packet(uint8_t *out, size_t capacity, enum mqtt_version version)
{
    size_t len;
    if (chance(&packets, 5)) { /* noise */
        len = below(&packets, 200);
        for (size_t i = 0; i < len; i++)
            out[i] = (uint8_t)below(&packets, 256);
        return len;
    }
    if (chance(&packets, 40)) {
        len = our_publish(out, capacity, version);
    } else {
        enum mqtt_version any_version;
        enum mqtt_sender sender;
        chr_slice packet;
        do
            packet = random_packet(&packets, &any_version, &sender);
        while (packet.len * 2 > capacity || (sender == MQTT_FROM_SERVER && chance(&packets, 80)));
        memcpy(out, packet.ptr, packet.len);
        len = packet.len;
    }
    return chance(&packets, 50) ? mutate(out, len, capacity) : len;
}

static void begin(struct lane *lane)
{
    connections++;
    lane->fd = open_socket(connections, false);
    lane->ending = (enum ending)below(&packets, ENDINGS);
    lane->half_closed = false;
    lane->out_len = lane->out_at = 0;
    lane->since_ms = now_ms();
    enum mqtt_version version = chance(&packets, 60) ? MQTT_V5 : MQTT_V311;
    if (chance(&packets, 90))
        lane->out_len = good_connect(lane->out, OUT_BYTES_MAX, version);
    for (uint64_t n = 1 + below(&packets, 80); n && sent_packets < packets_max; n--) {
        if (OUT_BYTES_MAX - lane->out_len < 8192)
            break;
        lane->out_len +=
            one_packet(lane->out + lane->out_len, OUT_BYTES_MAX - lane->out_len, version);
        sent_packets++;
    }
}

/* -- Connections
 * ---------------------------------------------------------------------------------*/

static void end(struct lane *lane)
{
    /* A reset leaves no TIME_WAIT behind and is what a pulled cable looks like. */
    struct linger hard = {.l_onoff = 1};
    setsockopt(lane->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(lane->fd);
    lane->fd = -1;
}

/* What the node says is read and thrown away; false when it closed. */
static bool drain(struct lane *lane)
{
    uint8_t in[16384];
    for (;;) {
        ssize_t n = recv(lane->fd, in, sizeof in, MSG_DONTWAIT);
        if (n > 0)
            continue;
        return n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOTCONN);
    }
}

static void turn(struct lane *lane, short events)
{
    if ((events & (POLLIN | POLLHUP | POLLERR)) && !drain(lane)) {
        closed_by_node++;
        end(lane);
        return;
    }
    while ((events & POLLOUT) && lane->out_at < lane->out_len) {
        size_t left = lane->out_len - lane->out_at;
        /* Now and then a packet arrives in pieces. */
        size_t piece = left > 64 && chance(&packets, 20) ? 1 + below(&packets, 64) : left;
        ssize_t n = send(lane->fd, lane->out + lane->out_at, piece, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                closed_by_node++;
                end(lane);
            }
            return;
        }
        lane->out_at += (size_t)n;
    }
    if (lane->out_at < lane->out_len)
        return;
    if (lane->ending == END_RESET) {
        end(lane);
    } else if (lane->ending == END_SHUTDOWN && !lane->half_closed) {
        shutdown(lane->fd, SHUT_WR);
        lane->half_closed = true;
    }
}

/* -- Does it live?
 * -------------------------------------------------------------------------------*/

static void send_bytes(int fd, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            fail("a good client lost its connection");
        bytes += n;
        len -= (size_t)n;
    }
}

/* Reads packets until one of this type; its packet id or (CONNACK) 0. */
static uint16_t wait_for(int fd, unsigned type, const char *silent)
{
    static uint8_t in[1 << 16];
    static size_t in_len;
    static int in_fd = -1;
    if (in_fd != fd || type == MQTT_CONNACK)
        in_len = 0;
    in_fd = fd;
    int64_t until = now_ms() + PROBE_MS;
    for (;;) {
        struct mqtt_frame frame;
        int used = mqtt_frame_from_server(chr_slice_of(in, in_len), 0, &frame);
        if (used < 0)
            fail("the node sent a malformed packet");
        if (used > 0) {
            bool found = frame.type == type;
            uint16_t id = 0;
            struct mqtt_fault fault;
            if (found && type == MQTT_PUBACK) {
                struct mqtt_ack ack;
                if (mqtt_decode_ack(&frame, MQTT_V5, &ack, &fault))
                    fail("a PUBACK that can't be decoded");
                id = ack.packet_id;
            }
            if (found && type == MQTT_CONNACK) {
                struct mqtt_connack connack;
                if (mqtt_decode_connack(&frame, MQTT_V5, &connack, &fault) || connack.reason_code)
                    fail("a good CONNECT was refused");
            }
            memmove(in, in + used, in_len - (size_t)used);
            in_len -= (size_t)used;
            if (found)
                return id;
            continue;
        }
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = until - now_ms();
        if (left <= 0 || poll(&p, 1, (int)left) == 0)
            fail(silent);
        ssize_t n = recv(fd, in + in_len, sizeof in - in_len, 0);
        if (n <= 0)
            fail("a good client was disconnected");
        in_len += (size_t)n;
    }
}

static void probe(void)
{
    probes++;
    int fd = open_socket(probes, true);
    uint8_t out[512], block[64];
    struct mqtt_connect c = {
        .version = MQTT_V5, .clean_start = true, .keep_alive_s = 60, .client_id = CHR_LIT("probe")};
    send_bytes(fd, out, mqtt_encode_connect(out, sizeof out, &c));
    wait_for(fd, MQTT_CONNACK, "no CONNACK");

    struct mqtt_subscribe s = {.packet_id = 1};
    struct mqtt_subscription sub = {.filter = CHR_LIT("probe/answer"), .qos = 0};
    send_bytes(fd, out, mqtt_encode_subscribe(out, sizeof out, MQTT_V5, &s, &sub, 1));
    wait_for(fd, MQTT_SUBACK, "no SUBACK");

    struct mqtt_publish reading = {
        .topic = CHR_LIT("sensors/probe/n"), .payload = CHR_LIT("1"), .qos = 1, .packet_id = 2};
    send_bytes(fd, out, mqtt_encode_publish(out, sizeof out, MQTT_V5, &reading));
    if (wait_for(fd, MQTT_PUBACK, "no PUBACK for a reading") != 2)
        fail("a PUBACK of something else");

    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    mqtt_put_bytes(&w, MQTT_PROPERTY_RESPONSE_TOPIC, sub.filter);
    struct mqtt_publish query = {.topic = CHR_LIT("$chronos/sql"), .payload = CHR_LIT("SELECT 1")};
    query.properties.raw = mqtt_property_block(&w);
    send_bytes(fd, out, mqtt_encode_publish(out, sizeof out, MQTT_V5, &query));
    wait_for(fd, MQTT_PUBLISH, "no answer to SELECT 1");
    close(fd);
}

/* RssAnon in KiB. */
static long memory_kib(void)
{
    char path[64], line[128];
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        fail("the node is gone");
    long kib = -1;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, "RssAnon:", 8))
            kib = strtol(line + 8, NULL, 10);
    fclose(f);
    return kib;
}

static void storm(void)
{
    uint64_t next_probe = 0;
    long first_kib = 0;
    for (;;) {
        struct pollfd fds[LANES];
        bool busy = false;
        for (unsigned i = 0; i < LANES; i++) {
            struct lane *lane = &lanes[i];
            if (lane->fd < 0 && sent_packets < packets_max)
                begin(lane);
            bool sending = lane->fd >= 0 && lane->out_at < lane->out_len;
            fds[i] = (struct pollfd){.fd = lane->fd,
                                     .events = (short)(POLLIN | (sending ? POLLOUT : 0))};
            busy |= lane->fd >= 0;
        }
        if (!busy)
            break;
        (void)poll(fds, LANES, 20);
        int64_t now = now_ms();
        for (unsigned i = 0; i < LANES; i++) {
            if (lanes[i].fd < 0)
                continue;
            turn(&lanes[i], fds[i].revents);
            if (lanes[i].fd >= 0 && now - lanes[i].since_ms > IDLE_MS)
                end(&lanes[i]);
        }
        if (sent_packets >= next_probe) {
            next_probe += PROBE_PACKETS;
            probe();
        }
        if (pid && !first_kib && sent_packets >= packets_max / 10)
            first_kib = memory_kib();
    }
    probe();
    if (!pid)
        return;
    int64_t until = now_ms() + SETTLE_MS;
    long last_kib = memory_kib();
    while (last_kib > first_kib + grow_kib && now_ms() < until) {
        poll(NULL, 0, 100);
        last_kib = memory_kib();
    }
    printf("memory: %ld KiB after a tenth, %ld KiB at the end\n", first_kib, last_kib);
    if (last_kib > first_kib + grow_kib)
        fail("memory did not come back");
}

static void parse_address(const char *address)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    if (!colon || (size_t)(colon - address) >= sizeof host)
        exit(64);
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = 0;
    server =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    if (inet_pton(AF_INET, host, &server.sin_addr) != 1)
        exit(64);
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (!strcmp(argv[i], "--address"))
            parse_address(value);
        else if (!strcmp(argv[i], "--packets"))
            packets_max = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--seed"))
            seed = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--pid"))
            pid = strtol(value, NULL, 10);
        else if (!strcmp(argv[i], "--grow-kib"))
            grow_kib = strtol(value, NULL, 10);
        else
            return 64;
    }
    if (!server.sin_port)
        return 64;
    signal(SIGPIPE, SIG_IGN);
    packets.random.state = seed;
    /* Small blocks: the sanitizer marks a whole block at each packet. */
    chr_arena_init(&packets.arena, 64u << 10, 1u << 24);
    for (unsigned i = 0; i < LANES; i++) {
        lanes[i].fd = -1;
        lanes[i].out = malloc(OUT_BYTES_MAX);
        if (!lanes[i].out)
            return 1;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    storm();
    printf("%llu packets on %llu connections, %llu of them ended by the node, %llu probes\n",
           (unsigned long long)sent_packets, (unsigned long long)connections,
           (unsigned long long)closed_by_node, (unsigned long long)probes);
    return 0;
}
