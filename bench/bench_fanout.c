/* bench/bench_fanout.c: from publishers to their subscribers, as fast as a broker delivers, or at a
 * rate.
 *
 * Streams of numbered messages: each has one publisher and `fan` subscribers of its own topic. All
 * clients live in this one thread: one clock, and one core for the broker's other one. Without a
 * rate a publisher goes on while fewer than `window` of its messages are undelivered (and
 * unacknowledged), so nothing is lost for being published too fast, and what is counted is what the
 * broker carries through. Every message is checked (stream.h); at the end all must have arrived
 * everywhere.
 *
 * stdout: one JSON object. Exit status 0: nothing was lost, doubled, changed or out of order. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/net.h"
#include "bench/procstat.h"
#include "bench/stream.h"

#define CLIENTS_MAX      19000
#define SECONDS_MAX      3600
#define WARM_UP_NS       500000000u
#define DRAIN_TIMEOUT_NS 60000000000u

struct options {
    const char *address;
    const char *ca_file; /* NULL: plain */
    uint32_t streams, fan;
    uint32_t refill; /* of the window: as many must be free before a publisher goes on */
    double seconds;
    double rate; /* of all publishers together; 0: as fast as possible */
    pid_t pid;   /* of the server; 0: its CPU is not reported */
};

struct stream {
    struct stream_publisher publisher;
    struct stream_subscriber *subscribers; /* [fan] */
    uint64_t delivered;                    /* to all of them */
};

/* What epoll hands back. */
struct end {
    struct stream *stream;
    struct stream_subscriber *subscriber; /* NULL: the publisher */
};

struct bench {
    struct options options;
    struct stream_run run;
    struct stream *streams;
    struct end *ends;
    int epoll;
    uint64_t delivered, published;
    uint64_t start_ns, turn; /* the schedule: message number `turn` is due next */
    double interval_ns;      /* 0: none */
    bool stopped;            /* nothing more is published */
};

struct usage {
    uint64_t ns, delivered, published;
    double generator_s;
    struct procstat server;
};

static const char usage_text[] =
    "bench_fanout --address HOST:PORT [options]\n"
    "  --streams N        1 publishers, each with a topic of its own\n"
    "  --fan N            1 subscribers of each\n"
    "  --qos 0|1|2        0: of publishing and of the subscriptions\n"
    "  --version 311|5    311\n"
    "  --payload BYTES    64\n"
    "  --window N         1000 undelivered messages per publisher\n"
    "  --refill N         window/4: free places before a publisher goes on\n"
    "  --seconds S        5\n"
    "  --rate R           messages published per second in all, timed one by one; 0: no limit\n"
    "  --seed N           1\n"
    "  --ca-file FILE     over TLS, the server's certificate signed by this one\n"
    "  --pid PID          report the server's CPU\n";

static void usage(const char *problem)
{
    fprintf(stderr, "bench_fanout: %s\n%s", problem, usage_text);
    exit(2);
}

static double number(const char *name, double min, double max)
{
    char *end;
    double v = strtod(optarg, &end);
    if (*end || end == optarg || !(v >= min && v <= max)) {
        char problem[128];
        snprintf(problem, sizeof problem, "--%s: a number from %g to %g", name, min, max);
        usage(problem);
    }
    return v;
}

static void parse_options(struct bench *b, int argc, char **argv)
{
    static const struct option names[] = {
        {"address", required_argument, NULL, 'a'}, {"streams", required_argument, NULL, 'n'},
        {"fan", required_argument, NULL, 'f'},     {"qos", required_argument, NULL, 'q'},
        {"version", required_argument, NULL, 'v'}, {"payload", required_argument, NULL, 'l'},
        {"window", required_argument, NULL, 'w'},  {"refill", required_argument, NULL, 'e'},
        {"seconds", required_argument, NULL, 's'}, {"rate", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 'd'},    {"ca-file", required_argument, NULL, 'c'},
        {"pid", required_argument, NULL, 'p'},     {0},
    };
    struct options *o = &b->options;
    int opt, which = 0;
    while ((opt = getopt_long(argc, argv, "", names, &which)) != -1) {
        const char *name = opt == '?' ? "" : names[which].name;
        switch (opt) {
        case 'a':
            o->address = optarg;
            break;
        case 'n':
            o->streams = (uint32_t)number(name, 1, CLIENTS_MAX);
            break;
        case 'f':
            o->fan = (uint32_t)number(name, 1, CLIENTS_MAX);
            break;
        case 'q':
            b->run.qos = (int)number(name, 0, 2);
            break;
        case 'v':
            if (strcmp(optarg, "311") != 0 && strcmp(optarg, "5") != 0)
                usage("--version: 311 or 5");
            b->run.mqtt_version = optarg[0] == '5' ? 5 : 4;
            break;
        case 'l':
            b->run.payload_bytes = (uint32_t)number(name, STREAM_PAYLOAD_MIN, STREAM_PAYLOAD_MAX);
            break;
        case 'w':
            b->run.window = (uint32_t)number(name, 1, STREAM_WINDOW_MAX);
            break;
        case 'e':
            o->refill = (uint32_t)number(name, 1, STREAM_WINDOW_MAX);
            break;
        case 's':
            o->seconds = number(name, 0.01, SECONDS_MAX);
            break;
        case 'r':
            o->rate = number(name, 0, 1e9);
            break;
        case 'd':
            b->run.seed = (uint64_t)number(name, 0, 1e15);
            break;
        case 'c':
            o->ca_file = optarg;
            break;
        case 'p':
            o->pid = (pid_t)number(name, 1, 1e9);
            break;
        default:
            usage("unknown option");
        }
    }
    if (!o->address || optind < argc)
        usage(o->address ? argv[optind] : "--address is missing");
    if ((uint64_t)o->streams * (1 + o->fan) > CLIENTS_MAX)
        usage("too many clients");
    if (o->refill == 0)
        o->refill = b->run.window / 4;
    if (o->refill == 0 || o->refill > b->run.window)
        o->refill = o->refill ? b->run.window : 1;
    b->run.time_each = o->rate > 0;
    b->interval_ns = o->rate > 0 ? 1e9 / o->rate : 0;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- Clients ----------------------------------------------------------------------------------
 */

/* Edge-triggered, so that neither a full socket nor a quiet one costs a system call. */
static void watch(struct bench *b, struct end *end, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = end};
    if (epoll_ctl(b->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void connect_all(struct bench *b)
{
    const struct options *o = &b->options;
    struct end *end = b->ends = calloc((size_t)o->streams * (1 + o->fan), sizeof *b->ends);
    struct ssl_ctx_st *tls = o->ca_file ? link_tls_context(o->ca_file) : NULL;
    b->streams = calloc(o->streams, sizeof *b->streams);
    b->run.inbox = malloc(STREAM_INBOX_BYTES);
    b->run.outbox = malloc(STREAM_INBOX_BYTES);
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!b->ends || !b->streams || !b->run.inbox || !b->run.outbox || b->epoll < 0)
        die("bench_fanout");
    if (o->ca_file && !tls)
        exit(1);
    for (uint32_t i = 0; i < o->streams; i++) {
        struct stream *stream = &b->streams[i];
        char topic[64], id[64];
        struct stream_place place = {.address = o->address, .tls = tls, .client_id = id};
        place.topic = topic;
        snprintf(topic, sizeof topic, "plant/line-%05u/state", i);
        stream->subscribers = calloc(o->fan, sizeof *stream->subscribers);
        if (!stream->subscribers)
            die("bench_fanout");
        for (uint32_t k = 0; k < o->fan; k++, end++) {
            snprintf(id, sizeof id, "bench-%d-%u-%u", (int)getpid(), i, k);
            *end = (struct end){.stream = stream, .subscriber = &stream->subscribers[k]};
            if (stream_subscriber_open(end->subscriber, &b->run, &place) != 0)
                exit(1);
            watch(b, end, end->subscriber->link.fd);
        }
        snprintf(id, sizeof id, "bench-%d-%u", (int)getpid(), i);
        *end = (struct end){.stream = stream};
        if (stream_publisher_open(&stream->publisher, &b->run, &place) != 0)
            exit(1);
        watch(b, end++, stream->publisher.link.fd);
    }
}

static void disconnect_all(struct bench *b)
{
    for (uint32_t i = 0; i < b->options.streams; i++) {
        struct stream *stream = &b->streams[i];
        stream_publisher_close(&stream->publisher);
        for (uint32_t k = 0; k < b->options.fan; k++)
            stream_subscriber_close(&stream->subscribers[k]);
        free(stream->subscribers);
    }
    close(b->epoll);
    free(b->streams);
    free(b->ends);
    free(b->run.inbox);
    free(b->run.outbox);
}

/* ---- The run ----------------------------------------------------------------------------------
 */

static void publish(struct bench *b, struct stream *stream, uint64_t count)
{
    int64_t n = stream_publish(&stream->publisher, count);
    if (n < 0)
        exit(1);
    b->published += (uint64_t)n;
}

/* Without a rate: as many as are neither undelivered nor unacknowledged. */
static void refill(struct bench *b, struct stream *stream)
{
    const struct options *o = &b->options;
    uint64_t open = stream->publisher.queued * o->fan - stream->delivered;
    uint64_t undelivered = (open + o->fan - 1) / o->fan;
    if (undelivered >= b->run.window)
        return;
    uint64_t room = stream_room(&stream->publisher);
    if (room > b->run.window - undelivered)
        room = b->run.window - undelivered;
    if (room >= o->refill)
        publish(b, stream, room);
}

/* With a rate: what is due by now. Returns when the next message is. */
static uint64_t keep_schedule(struct bench *b)
{
    for (;;) {
        uint64_t due = b->start_ns + (uint64_t)((double)b->turn * b->interval_ns);
        if (due > net_now_ns())
            return due;
        publish(b, &b->streams[b->turn % b->options.streams], 1);
        b->turn++;
    }
}

static void take_event(struct bench *b, const struct epoll_event *event)
{
    struct end *end = event->data.ptr;
    struct stream *stream = end->stream;
    if (end->subscriber) {
        if (event->events == EPOLLOUT)
            return; /* it was never full */
        int64_t n = stream_subscriber_drain(end->subscriber);
        if (n < 0)
            exit(1);
        stream->delivered += (uint64_t)n;
        b->delivered += (uint64_t)n;
    } else {
        if (event->events & EPOLLOUT)
            stream->publisher.blocked = false;
        if (event->events & ~(uint32_t)EPOLLOUT && stream_publisher_drain(&stream->publisher) != 0)
            exit(1);
        publish(b, stream, 0); /* what waited for room in the socket */
    }
    if (b->interval_ns == 0 && !b->stopped)
        refill(b, stream);
}

/* Everything that was published was delivered everywhere, and acknowledged. */
static bool all_done(const struct bench *b)
{
    if (b->delivered != b->published * b->options.fan)
        return false;
    for (uint32_t i = 0; b->run.qos && i < b->options.streams; i++)
        if (b->streams[i].publisher.acked != b->streams[i].publisher.queued)
            return false;
    return true;
}

static void run_until(struct bench *b, uint64_t end_ns)
{
    struct epoll_event events[256];
    for (;;) {
        uint64_t wake_ns = end_ns;
        if (b->interval_ns > 0 && !b->stopped) {
            uint64_t due = keep_schedule(b);
            wake_ns = due < wake_ns ? due : wake_ns;
        }
        uint64_t now_ns = net_now_ns();
        if (now_ns >= end_ns || (b->stopped && all_done(b)))
            return;
        uint64_t wait_ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u),
                                .tv_nsec = (long)(wait_ns % 1000000000u)};
        int n = epoll_pwait2(b->epoll, events, 256, &wait, NULL);
        if (n < 0 && errno != EINTR)
            die("epoll_pwait2");
        for (int i = 0; i < n; i++)
            take_event(b, &events[i]);
    }
}

static double seconds_of(struct timeval tv)
{
    return (double)tv.tv_sec + (double)tv.tv_usec / 1e6;
}

static struct usage usage_now(const struct bench *b)
{
    struct usage u = {.ns = net_now_ns(), .delivered = b->delivered, .published = b->published};
    struct rusage self;
    getrusage(RUSAGE_SELF, &self);
    u.generator_s = seconds_of(self.ru_utime) + seconds_of(self.ru_stime);
    if (b->options.pid && procstat_read(b->options.pid, &u.server) != 0)
        usage("--pid: no such process");
    return u;
}

static void report(const struct bench *b, const struct usage *from, const struct usage *to)
{
    const struct options *o = &b->options;
    double s = (double)(to->ns - from->ns) / 1e9;
    printf("{\"streams\":%u,\"fan\":%u,\"qos\":%d,\"mqtt_version\":\"%s\",\"payload\":%u,"
           "\"window\":%u,\"refill\":%u,\"rate\":%.0f,\"tls\":%s,\"seconds\":%.3f,",
           o->streams, o->fan, b->run.qos, b->run.mqtt_version == 5 ? "5" : "3.1.1",
           b->run.payload_bytes, b->run.window, o->refill, o->rate, o->ca_file ? "true" : "false",
           s);
    printf("\"published\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"published_per_s\":%.0f,"
           "\"delivered_per_s\":%.0f,\"generator_s\":%.2f,\"server_user_s\":%.2f,"
           "\"server_system_s\":%.2f",
           b->published, b->delivered, (double)(to->published - from->published) / s,
           (double)(to->delivered - from->delivered) / s, to->generator_s - from->generator_s,
           to->server.user_s - from->server.user_s, to->server.system_s - from->server.system_s);
    const struct histogram *h = &b->run.latency;
    if (b->run.time_each)
        printf(",\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f",
               (double)histogram_at(h, 0.5) / 1e3, (double)histogram_at(h, 0.99) / 1e3,
               (double)histogram_at(h, 0.999) / 1e3, (double)h->max_ns / 1e3);
    printf("}\n");
}

int main(int argc, char **argv)
{
    static struct bench b = {
        .options = {.streams = 1, .fan = 1, .seconds = 5},
        .run = {.mqtt_version = 4, .window = 1000, .payload_bytes = 64, .seed = 1},
    };
    parse_options(&b, argc, argv);
    prctl(PR_SET_TIMERSLACK, 1);
    connect_all(&b);
    b.start_ns = net_now_ns();
    for (uint32_t i = 0; b.interval_ns == 0 && i < b.options.streams; i++)
        refill(&b, &b.streams[i]);
    run_until(&b, b.start_ns + WARM_UP_NS);
    memset(&b.run.latency, 0, sizeof b.run.latency);
    struct usage from = usage_now(&b);
    run_until(&b, from.ns + (uint64_t)(b.options.seconds * 1e9));
    struct usage to = usage_now(&b);
    b.stopped = true;
    run_until(&b, to.ns + DRAIN_TIMEOUT_NS);
    bool whole = all_done(&b);
    report(&b, &from, &to);
    if (!whole)
        fprintf(stderr,
                "bench_fanout: of %" PRIu64 " messages to %u subscribers each, %" PRIu64
                " were delivered\n",
                b.published, b.options.fan, b.delivered);
    disconnect_all(&b);
    return whole ? 0 : 1;
}
