/* bench/bench_ask.c: one statement, asked again and again by several clients, each of which waits
 * for its answer: questions per second, and how long an answer takes.
 *
 * Over MQTT 3.1.1 as mosquitto_rr does it: the statement to $chronos/sql/<id>, the answer from
 * $chronos/result/<id>. A thread for each client; prints one line of JSON. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/histogram.h"
#include "bench/net.h"

#define CLIENTS_MAX 64
#define BYTES_MAX   (64u << 10)

static struct {
    const char *address, *first, *statement;
    double seconds;
    int clients;
} options = {.address = "127.0.0.1:1883", .statement = "SELECT 1", .seconds = 5, .clients = 4};

struct client {
    pthread_t thread;
    int number, fd;
    struct histogram times;
    uint64_t ended_ns;
    bool failed;
    size_t len;
    uint8_t in[BYTES_MAX];
};

static _Atomic bool over;

static size_t put_string(uint8_t *out, const char *text)
{
    size_t len = strlen(text);
    out[0] = (uint8_t)(len >> 8);
    out[1] = (uint8_t)len;
    memcpy(out + 2, text, len);
    return len + 2;
}

static bool send_packet(const struct client *c, uint8_t kind, const uint8_t *body, size_t len)
{
    uint8_t packet[4096 + 8];
    size_t at = 0, rest = len;
    packet[at++] = kind;
    do {
        packet[at++] = (uint8_t)((rest & 127) | (rest > 127 ? 128 : 0));
        rest >>= 7;
    } while (rest);
    memcpy(packet + at, body, len);
    return send(c->fd, packet, at + len, MSG_NOSIGNAL) == (ssize_t)(at + len);
}

/* The bytes of the packet at the beginning of c->in, 0: not all of it has come. */
static size_t packet_bytes(const struct client *c, size_t *head)
{
    size_t len = 0;
    for (size_t i = 1; i < c->len && i < 5; i++) {
        len |= (size_t)(c->in[i] & 127) << (7 * (i - 1));
        if (c->in[i] & 128)
            continue;
        *head = i + 1;
        return c->len >= i + 1 + len ? i + 1 + len : 0;
    }
    return 0;
}

/* Waits for a packet of this kind; others are passed over. What it holds is in text. */
static bool expect(struct client *c, uint8_t kind, char *text, size_t room)
{
    for (;;) {
        size_t head = 0, len = packet_bytes(c, &head);
        if (len) {
            bool is_it = (c->in[0] & 0xf0) == kind;
            size_t n = len - head < room - 1 ? len - head : room - 1;
            if (is_it && text) {
                memcpy(text, c->in + head, n);
                text[n] = 0;
            }
            memmove(c->in, c->in + len, c->len - len);
            c->len -= len;
            if (is_it)
                return true;
            continue;
        }
        ssize_t got = recv(c->fd, c->in + c->len, BYTES_MAX - c->len, 0);
        if (got <= 0)
            return false;
        c->len += (size_t)got;
    }
}

static bool subscribe(struct client *c)
{
    uint8_t body[128] = {0, 1};
    char topic[64];
    snprintf(topic, sizeof topic, "$chronos/result/ask-%d-%d", (int)getpid(), c->number);
    size_t len = 2 + put_string(body + 2, topic);
    body[len++] = 0; /* QoS */
    return send_packet(c, 0x82, body, len) && expect(c, 0x90, NULL, 1);
}

static bool ask(struct client *c, const char *statement)
{
    uint8_t body[4096];
    char topic[64], answer[256];
    size_t bytes = strlen(statement);
    snprintf(topic, sizeof topic, "$chronos/sql/ask-%d-%d", (int)getpid(), c->number);
    size_t len = put_string(body, topic);
    if (len + bytes > sizeof body)
        return false;
    memcpy(body + len, statement, bytes);
    if (!send_packet(c, 0x30, body, len + bytes) || !expect(c, 0x30, answer, sizeof answer))
        return false;
    /* The topic is before the answer, with two bytes of its length. */
    const char *json = memchr(answer + 2, '{', sizeof answer - 2);
    if (json && strstr(json, "\"error\"")) {
        fprintf(stderr, "bench_ask: %s\n", json);
        return false;
    }
    return true;
}

static void *client_main(void *arg)
{
    struct client *c = arg;
    while (!c->failed && !atomic_load_explicit(&over, memory_order_relaxed)) {
        uint64_t began_ns = net_now_ns();
        c->failed = !ask(c, options.statement);
        c->ended_ns = net_now_ns();
        if (!c->failed)
            histogram_add(&c->times, c->ended_ns - began_ns);
    }
    return NULL;
}

static bool begin(struct client *c, int number)
{
    char id[64];
    c->number = number;
    snprintf(id, sizeof id, "ask-%d-%d", (int)getpid(), number);
    c->fd = net_connect(options.address);
    return c->fd >= 0 && net_mqtt_connect(c->fd, 4, id, &(struct net_connack){0}) == 0 &&
           subscribe(c) && (!options.first || ask(c, options.first));
}

static void report(const struct client *clients, uint64_t began_ns)
{
    static struct histogram all;
    uint64_t ended_ns = began_ns + 1;
    for (int i = 0; i < options.clients; i++) {
        const struct histogram *h = &clients[i].times;
        for (unsigned s = 0; s < HISTOGRAM_SLOTS; s++)
            all.slots[s] += h->slots[s];
        all.count += h->count;
        all.max_ns = h->max_ns > all.max_ns ? h->max_ns : all.max_ns;
        ended_ns = clients[i].ended_ns > ended_ns ? clients[i].ended_ns : ended_ns;
    }
    printf("{\"answers\":%llu,\"per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
           (unsigned long long)all.count, (double)all.count * 1e9 / (double)(ended_ns - began_ns),
           (double)histogram_at(&all, 0.5) / 1e3, (double)histogram_at(&all, 0.99) / 1e3,
           (double)all.max_ns / 1e3);
}

static int usage(void)
{
    fprintf(stderr,
            "bench_ask [--address HOST:PORT] [--clients N] [--seconds S] [--first STATEMENT] "
            "--statement STATEMENT\n");
    return 2;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {{"address", 1, NULL, 'a'},   {"clients", 1, NULL, 'c'},
                                          {"seconds", 1, NULL, 's'},   {"first", 1, NULL, 'f'},
                                          {"statement", 1, NULL, 'q'}, {0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (o == 'a')
            options.address = optarg;
        else if (o == 'c')
            options.clients = atoi(optarg);
        else if (o == 's')
            options.seconds = atof(optarg);
        else if (o == 'f')
            options.first = optarg;
        else if (o == 'q')
            options.statement = optarg;
        else
            return usage();
    }
    if (optind != argc || options.clients < 1 || options.clients > CLIENTS_MAX ||
        options.seconds <= 0)
        return usage();
    struct client *clients = calloc((size_t)options.clients, sizeof *clients);
    bool failed = !clients;
    for (int i = 0; !failed && i < options.clients; i++)
        failed = !begin(&clients[i], i);
    if (failed) {
        fprintf(stderr, "bench_ask: can't begin\n");
        return 1;
    }
    uint64_t began_ns = net_now_ns();
    for (int i = 0; i < options.clients; i++)
        if (pthread_create(&clients[i].thread, NULL, client_main, &clients[i]))
            return 1;
    usleep((useconds_t)(options.seconds * 1e6));
    atomic_store(&over, true);
    for (int i = 0; i < options.clients; i++) {
        pthread_join(clients[i].thread, NULL);
        failed |= clients[i].failed;
        close(clients[i].fd);
    }
    report(clients, began_ns);
    free(clients);
    return failed;
}
