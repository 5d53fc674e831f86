/* tests/e2e/main_crash_publisher.c: publishes numbered readings and remembers what was
 * acknowledged.
 *
 *     chr_test_crash_publisher --address HOST:PORT,... --qos 1|2 --prefix NAME [--clients 8]
 *                              [--window 64] [--ids 100] [--count N] [--hop N]
 *
 * Client i publishes 0, 1, 2, … to sensors/NAME-i/n.
 *   QoS 1  clean sessions; the first lost connection ends the program. What was in flight is not
 *          sent again, so every reading is in the table at most once.
 *   QoS 2  sessions that outlive the connection; packet identifiers run round 1 .. ids, so they
 *          wrap early and often. A lost connection is made again for up to 30 s, at the next of
 *          the addresses; a session must be present then, and everything in flight is resent as
 *          MQTT 4.4 says. With hop the client also leaves of its own accord, every N messages: in
 *          turn by closing its connection, and by having it taken over.
 *
 * Ends after count messages per client, or on SIGTERM, when nothing is in flight any more. Prints
 * one JSON line: {"clients":[{"device":"NAME-0","sent":n,"acked":m,"hops":h}, …]}. Exit code 2 when
 * the server broke the protocol (an acknowledgement of nothing, a session that is gone). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
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

#include "base/bytes.h"
#include "proto/mqtt/decode.h"
#include "proto/mqtt/encode.h"

#define CLIENTS_MAX 64
#define WINDOW_MAX  1024
#define RECONNECT_S 30
#define SERVERS_MAX 8

enum flight_state { FLIGHT_FREE, FLIGHT_PUBLISHED, FLIGHT_RELEASED };
struct flight {
    enum flight_state state;
    uint16_t id;
    uint64_t value;
};

struct client {
    int fd;         /* -1: not connected */
    int left_fd;    /* the connection before, left to be taken over; -1: none */
    bool connected; /* CONNACK came */
    uint32_t server;
    uint64_t hops, hop_at; /* messages completed when it goes on */
    bool had_session;
    uint64_t sent;  /* next value */
    uint64_t acked; /* QoS 1: acknowledged in order; QoS 2: completed */
    uint16_t next_id;
    struct flight flights[WINDOW_MAX]; /* in order of sending, [first, first+count) modulo window */
    uint32_t first, count;
    uint8_t in[4096];
    size_t in_len;
    char device[64];
};

static struct client clients[CLIENTS_MAX];
static uint32_t clients_count = 8, window = 64, ids = 100;
static int qos = 1;
static uint64_t count_max = UINT64_MAX, hop;
static struct sockaddr_in servers[SERVERS_MAX];
static uint32_t servers_count;
static volatile sig_atomic_t stopping;

static void on_term(int sig)
{
    (void)sig;
    stopping = 1;
}

static void broken(const struct client *c, const char *what, unsigned n)
{
    fprintf(stderr, "%s: %s %u\n", c->device, what, n);
    exit(2);
}

static bool send_all(struct client *c, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static bool send_publish(struct client *c, const struct flight *f, bool dup)
{
    char topic[96], payload[32];
    snprintf(topic, sizeof topic, "sensors/%s/n", c->device);
    snprintf(payload, sizeof payload, "%llu", (unsigned long long)f->value);
    struct mqtt_publish p = {.topic = chr_slice_cstr(topic),
                             .payload = chr_slice_cstr(payload),
                             .packet_id = f->id,
                             .qos = (uint8_t)qos,
                             .dup = dup};
    uint8_t out[256];
    return send_all(c, out, mqtt_encode_publish(out, sizeof out, MQTT_V5, &p));
}

static bool send_pubrel(struct client *c, const struct flight *f)
{
    uint8_t out[8];
    return send_all(c, out, mqtt_encode_pubrel(out, MQTT_V5, f->id, 0));
}

static bool start_connecting(struct client *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in *server = &servers[c->server % servers_count];
    if (connect(c->fd, (struct sockaddr *)server, sizeof *server)) {
        close(c->fd);
        c->fd = -1;
        c->server++;
        return false;
    }
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    uint8_t block[16], out[256];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    if (qos == 2)
        mqtt_put_number(&w, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL, 3600);
    struct mqtt_connect connect_packet = {.version = MQTT_V5,
                                          .clean_start = qos == 1,
                                          .keep_alive_s = 60,
                                          .client_id = chr_slice_cstr(c->device)};
    connect_packet.properties.raw = mqtt_property_block(&w);
    c->in_len = 0;
    c->connected = false;
    return send_all(c, out, mqtt_encode_connect(out, sizeof out, &connect_packet));
}

static struct flight *flight_at(struct client *c, uint32_t i)
{
    return &c->flights[(c->first + i) % window];
}

/* MQTT 4.4: everything unacknowledged again, in its old order, with its old identifiers. */
static bool resend(struct client *c)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct flight *f = flight_at(c, i);
        if (f->state == FLIGHT_PUBLISHED && !send_publish(c, f, true))
            return false;
        if (f->state == FLIGHT_RELEASED && !send_pubrel(c, f))
            return false;
    }
    return true;
}

static bool id_in_use(struct client *c, uint16_t id)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (flight_at(c, i)->state != FLIGHT_FREE && flight_at(c, i)->id == id)
            return true;
    return false;
}

static bool fill_window(struct client *c)
{
    while (c->count < window && c->sent < count_max && !stopping) {
        uint32_t tried = 0;
        do {
            c->next_id = (uint16_t)(c->next_id % (qos == 2 ? ids : 65535u) + 1);
        } while (id_in_use(c, c->next_id) && ++tried < ids);
        if (qos == 2 && id_in_use(c, c->next_id))
            return true;
        struct flight *f = flight_at(c, c->count++);
        *f = (struct flight){.state = FLIGHT_PUBLISHED, .id = c->next_id, .value = c->sent++};
        if (!send_publish(c, f, false))
            return false;
    }
    return true;
}

static struct flight *find_flight(struct client *c, uint16_t id)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (flight_at(c, i)->state != FLIGHT_FREE && flight_at(c, i)->id == id)
            return flight_at(c, i);
    return NULL;
}

static void drop_finished(struct client *c)
{
    while (c->count && flight_at(c, 0)->state == FLIGHT_FREE) {
        c->first = (c->first + 1) % window;
        c->count--;
    }
}

static bool handle_ack(struct client *c, const struct mqtt_frame *frame)
{
    struct mqtt_ack ack;
    struct mqtt_fault fault;
    if (mqtt_decode_ack(frame, MQTT_V5, &ack, &fault))
        broken(c, fault.text, frame->type);
    struct flight *f = find_flight(c, ack.packet_id);
    if (frame->type == MQTT_PUBACK) {
        /* R6: in the order of sending. */
        if (!f || f != flight_at(c, 0))
            broken(c, "PUBACK out of order or of nothing", ack.packet_id);
        if (ack.reason_code >= 0x80)
            broken(c, "PUBACK with reason", ack.reason_code);
        f->state = FLIGHT_FREE;
        c->acked++;
    } else if (frame->type == MQTT_PUBREC) {
        if (!f)
            broken(c, "PUBREC of nothing", ack.packet_id);
        if (ack.reason_code >= 0x80)
            broken(c, "PUBREC with reason", ack.reason_code);
        f->state = FLIGHT_RELEASED;
        return send_pubrel(c, f);
    } else if (frame->type == MQTT_PUBCOMP) {
        if (!f || f->state != FLIGHT_RELEASED)
            broken(c, "PUBCOMP of nothing", ack.packet_id);
        f->state = FLIGHT_FREE;
        c->acked++;
    } else {
        broken(c, "unexpected packet", frame->type);
    }
    drop_finished(c);
    return true;
}

static bool handle(struct client *c, const struct mqtt_frame *frame)
{
    struct mqtt_fault fault;
    if (frame->type == MQTT_DISCONNECT)
        return false; /* shutting down */
    if (frame->type != MQTT_CONNACK)
        return handle_ack(c, frame);
    struct mqtt_connack connack;
    if (mqtt_decode_connack(frame, MQTT_V5, &connack, &fault))
        broken(c, fault.text, frame->type);
    if (connack.reason_code == MQTT_REASON_SERVER_BUSY && servers_count > 1)
        return false;
    if (connack.reason_code)
        broken(c, "CONNACK with reason", connack.reason_code);
    if (c->had_session && !connack.session_present)
        broken(c, "the session is gone", 0);
    c->had_session = qos == 2;
    c->connected = true;
    if (c->left_fd >= 0)
        close(c->left_fd);
    c->left_fd = -1;
    return resend(c);
}

static bool receive(struct client *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    c->in_len += (size_t)n;
    size_t at = 0;
    for (;;) {
        struct mqtt_frame frame;
        int used = mqtt_frame_from_server(chr_slice_of(c->in + at, c->in_len - at), 0, &frame);
        if (used < 0)
            broken(c, "malformed packet", 0);
        if (used == 0)
            break;
        at += (size_t)used;
        if (!handle(c, &frame))
            return false;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    return !c->connected || fill_window(c);
}

static int finish(int code)
{
    printf("{\"clients\":[");
    for (uint32_t i = 0; i < clients_count; i++)
        printf("%s{\"device\":\"%s\",\"sent\":%llu,\"acked\":%llu,\"hops\":%llu}", i ? "," : "",
               clients[i].device, (unsigned long long)clients[i].sent,
               (unsigned long long)clients[i].acked, (unsigned long long)clients[i].hops);
    printf("]}\n");
    return code;
}

static bool all_done(void)
{
    for (uint32_t i = 0; i < clients_count; i++)
        if (clients[i].count || (!stopping && clients[i].sent < count_max))
            return false;
    return true;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* QoS 2: every client without a connection tries again. */
static void reconnect_lost(void)
{
    static int64_t lost_ms;
    bool lost = false;
    for (uint32_t i = 0; i < clients_count; i++)
        if (clients[i].fd < 0 && !start_connecting(&clients[i]))
            lost = true;
    if (!lost) {
        lost_ms = 0;
        return;
    }
    if (lost_ms == 0)
        lost_ms = now_ms();
    if (now_ms() - lost_ms > RECONNECT_S * 1000) {
        fprintf(stderr, "no server for %d s\n", RECONNECT_S);
        exit(2);
    }
    poll(NULL, 0, 10); /* between tries; nothing is concluded from the time */
}

static void lose(struct client *c)
{
    close(c->fd);
    c->fd = -1;
    c->connected = false;
    c->server++;
}

/* To the next server, with whatever is in flight. */
static void go_on(struct client *c)
{
    if (!hop || !c->connected || c->acked < c->hop_at)
        return;
    c->hop_at = c->acked + hop;
    if (c->hops++ % 2) {
        lose(c);
        return;
    }
    if (c->left_fd >= 0)
        close(c->left_fd);
    c->left_fd = c->fd;
    c->fd = -1;
    c->connected = false;
    c->server++;
}

static int run(void)
{
    for (;;) {
        if (qos == 2)
            reconnect_lost();
        struct pollfd fds[CLIENTS_MAX];
        for (uint32_t i = 0; i < clients_count; i++)
            fds[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
        if (poll(fds, clients_count, 50) < 0 && errno != EINTR)
            return 2;
        for (uint32_t i = 0; i < clients_count; i++) {
            struct client *c = &clients[i];
            if (c->fd < 0 || !fds[i].revents)
                continue;
            if (receive(c)) {
                go_on(c);
                continue;
            }
            lose(c);
            if (qos == 1)
                return finish(0);
        }
        if (all_done())
            return finish(0);
    }
}

static void parse_addresses(const char *text)
{
    while (*text) {
        char host[64];
        size_t len = strcspn(text, ",");
        const char *colon = memchr(text, ':', len);
        if (!colon || (size_t)(colon - text) >= sizeof host || servers_count == SERVERS_MAX)
            exit(64);
        memcpy(host, text, (size_t)(colon - text));
        host[colon - text] = 0;
        struct sockaddr_in *server = &servers[servers_count++];
        *server = (struct sockaddr_in){.sin_family = AF_INET,
                                       .sin_port = htons((uint16_t)atoi(colon + 1))};
        if (inet_pton(AF_INET, host, &server->sin_addr) != 1)
            exit(64);
        text += len + (text[len] == ',');
    }
}

int main(int argc, char **argv)
{
    const char *prefix = "crash";
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (!strcmp(argv[i], "--address"))
            parse_addresses(value);
        else if (!strcmp(argv[i], "--qos"))
            qos = atoi(value);
        else if (!strcmp(argv[i], "--prefix"))
            prefix = value;
        else if (!strcmp(argv[i], "--clients"))
            clients_count = (uint32_t)atoi(value);
        else if (!strcmp(argv[i], "--window"))
            window = (uint32_t)atoi(value);
        else if (!strcmp(argv[i], "--ids"))
            ids = (uint32_t)atoi(value);
        else if (!strcmp(argv[i], "--count"))
            count_max = strtoull(value, NULL, 10);
        else if (!strcmp(argv[i], "--hop"))
            hop = strtoull(value, NULL, 10);
        else
            return 64;
    }
    if (!servers_count || clients_count > CLIENTS_MAX || window > WINDOW_MAX)
        return 64;
    signal(SIGTERM, on_term);
    for (uint32_t i = 0; i < clients_count; i++) {
        snprintf(clients[i].device, sizeof clients[i].device, "%s-%u", prefix, i);
        clients[i].fd = clients[i].left_fd = -1;
        clients[i].server = i; /* spread over them */
        clients[i].hop_at = hop * (i + 1) / (clients_count + 1) + 1;
        if (qos == 1 && !start_connecting(&clients[i]))
            return finish(0); /* killed before it began */
    }
    return run();
}
