/* bench/bench_ingest.c: publishes readings as fast as a server acknowledges them, or at a rate.
 *
 * One thread, epoll, finished packets: it shares the machine with the server it measures, so its
 * own cycles are part of every result; it prints them. Every acknowledgement is checked: each
 * packet identifier once, in order, with a reason code of success. At the end it prints what the
 * acknowledged rows add up to, so that the caller can ask the database for the same sums.
 *
 * stdout: one JSON object. stderr: progress for a human with --verbose. Exit status 0: all that was
 * published was acknowledged with success. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/fleet.h"
#include "bench/net.h"
#include "bench/procstat.h"
#include "bench/publisher.h"
#include "bench/stalls.h"

#define SECONDS_MAX      3600
#define CONNECTIONS_MAX  19000
#define DRAIN_TIMEOUT_NS 60000000000u

struct options {
    const char *address;
    const char *devices_file; /* per-device sums, as CSV; NULL: none */
    struct fleet_config fleet;
    uint32_t pool; /* distinct messages over all connections */
    uint32_t devices;
    uint32_t window, refill;
    uint32_t first_lap;
    uint64_t messages; /* 0: run for `seconds` */
    double seconds;
    double rate; /* messages per second over all connections; 0: as fast as possible */
    pid_t pid;   /* of the server, for its CPU and memory; 0: none */
    bool verbose;
};

struct result {
    double elapsed_s;       /* start to stop, or to the last acknowledgement with --messages */
    uint64_t acked_in_time; /* until then */
    uint64_t acked, queued; /* all, after draining */
    double drain_s;         /* stop to the last acknowledgement */
    uint64_t seconds_count; /* whole seconds */
    uint64_t series[SECONDS_MAX];
    double generator_user_s, generator_system_s;
    struct procstat server_before, server_after;
    uint64_t server_rss_max;
};

static const char usage_text[] =
    "bench_ingest --address HOST:PORT [options]\n"
    "  --connections N      50\n"
    "  --window N           1000 unacknowledged messages per connection\n"
    "  --refill N           window/4: free slots before a connection sends again\n"
    "  --seconds S          10, or --messages N: exactly so many\n"
    "  --rate R             messages per second in all, timed one by one; 0: no limit\n"
    "  --qos 0|1|2          1\n"
    "  --version 311|5      311\n"
    "  --seed N             1\n"
    "  --topic TEMPLATE     farm/{site}/{device}/env\n"
    "  --payload KIND       json, csv or number\n"
    "  --devices N          1000 devices in all\n"
    "  --pool N             200000 distinct messages in all\n"
    "  --first-lap N        0: later laps have later time stamps\n"
    "  --devices-file FILE  write rows and sums of each device as CSV\n"
    "  --pid PID            report CPU and RssAnon of the server\n"
    "  --verbose\n";

static void usage(const char *problem)
{
    fprintf(stderr, "bench_ingest: %s\n%s", problem, usage_text);
    exit(2);
}

static double number_option(const char *name, const char *text, double min, double max)
{
    char *end;
    double v = strtod(text, &end);
    if (*end || end == text || !(v >= min && v <= max)) {
        char problem[128];
        snprintf(problem, sizeof problem, "--%s: a number from %g to %g", name, min, max);
        usage(problem);
    }
    return v;
}

static uint32_t count_option(const char *name, const char *text, double min, double max)
{
    return (uint32_t)number_option(name, text, min, max);
}

static enum fleet_payload payload_option(const char *text)
{
    static const char *const names[] = {"json", "csv", "number"};
    for (int i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0)
            return (enum fleet_payload)i;
    usage("--payload: json, csv or number");
    return FLEET_JSON;
}

enum {
    OPT_ADDRESS = 1,
    OPT_CONNECTIONS,
    OPT_WINDOW,
    OPT_REFILL,
    OPT_SECONDS,
    OPT_MESSAGES,
    OPT_RATE,
    OPT_QOS,
    OPT_VERSION,
    OPT_SEED,
    OPT_TOPIC,
    OPT_PAYLOAD,
    OPT_DEVICES,
    OPT_POOL,
    OPT_FIRST_LAP,
    OPT_DEVICES_FILE,
    OPT_PID,
    OPT_VERBOSE,
};

static const struct option long_options[] = {
    {"address", required_argument, NULL, OPT_ADDRESS},
    {"connections", required_argument, NULL, OPT_CONNECTIONS},
    {"window", required_argument, NULL, OPT_WINDOW},
    {"refill", required_argument, NULL, OPT_REFILL},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"messages", required_argument, NULL, OPT_MESSAGES},
    {"rate", required_argument, NULL, OPT_RATE},
    {"qos", required_argument, NULL, OPT_QOS},
    {"version", required_argument, NULL, OPT_VERSION},
    {"seed", required_argument, NULL, OPT_SEED},
    {"topic", required_argument, NULL, OPT_TOPIC},
    {"payload", required_argument, NULL, OPT_PAYLOAD},
    {"devices", required_argument, NULL, OPT_DEVICES},
    {"pool", required_argument, NULL, OPT_POOL},
    {"first-lap", required_argument, NULL, OPT_FIRST_LAP},
    {"devices-file", required_argument, NULL, OPT_DEVICES_FILE},
    {"pid", required_argument, NULL, OPT_PID},
    {"verbose", no_argument, NULL, OPT_VERBOSE},
    {0},
};

static void take_option(struct options *o, int opt, const char *name)
{
    switch (opt) {
    case OPT_ADDRESS:
        o->address = optarg;
        break;
    case OPT_CONNECTIONS:
        o->fleet.connections = count_option(name, optarg, 1, CONNECTIONS_MAX);
        break;
    case OPT_WINDOW:
        o->window = count_option(name, optarg, 1, FLEET_SLICE_MAX);
        break;
    case OPT_REFILL:
        o->refill = count_option(name, optarg, 1, FLEET_SLICE_MAX);
        break;
    case OPT_SECONDS:
        o->seconds = number_option(name, optarg, 0.01, SECONDS_MAX - 1);
        break;
    case OPT_MESSAGES:
        o->messages = (uint64_t)number_option(name, optarg, 1, 1e15);
        break;
    case OPT_RATE:
        o->rate = number_option(name, optarg, 0, 1e9);
        break;
    case OPT_QOS:
        o->fleet.qos = (int)count_option(name, optarg, 0, 2);
        break;
    case OPT_VERSION:
        if (strcmp(optarg, "311") != 0 && strcmp(optarg, "5") != 0)
            usage("--version: 311 or 5");
        o->fleet.mqtt_version = optarg[0] == '5' ? 5 : 4;
        break;
    case OPT_SEED:
        o->fleet.seed = strtoull(optarg, NULL, 0);
        break;
    case OPT_TOPIC:
        o->fleet.topic = optarg;
        break;
    case OPT_PAYLOAD:
        o->fleet.payload = payload_option(optarg);
        break;
    case OPT_DEVICES:
        o->devices = count_option(name, optarg, 1, 1e6);
        break;
    case OPT_POOL:
        o->pool = count_option(name, optarg, 1, 1e8);
        break;
    case OPT_FIRST_LAP:
        o->first_lap = count_option(name, optarg, 0, 1e6);
        break;
    case OPT_DEVICES_FILE:
        o->devices_file = optarg;
        break;
    case OPT_PID:
        o->pid = (pid_t)number_option(name, optarg, 1, 1e9);
        break;
    case OPT_VERBOSE:
        o->verbose = true;
        break;
    default:
        usage("unknown option");
    }
}

static struct options parse_options(int argc, char **argv)
{
    struct options o = {
        .fleet = {.seed = 1,
                  .connections = 50,
                  .topic = "farm/{site}/{device}/env",
                  .mqtt_version = 4,
                  .qos = 1},
        .pool = 200000,
        .devices = 1000,
        .window = 1000,
        .seconds = 10,
    };
    int opt, which = 0;
    while ((opt = getopt_long(argc, argv, "", long_options, &which)) != -1)
        take_option(&o, opt, opt == '?' ? "" : long_options[which].name);
    if (!o.address || optind < argc)
        usage(o.address ? argv[optind] : "--address is missing");
    if (o.refill == 0)
        o.refill = o.window / 4 ? o.window / 4 : 1;
    if (o.refill > o.window)
        o.refill = o.window;
    uint32_t rows = o.pool / o.fleet.connections;
    rows = rows > FLEET_SLICE_MAX ? FLEET_SLICE_MAX : rows;
    o.fleet.slice_rows = rows < o.window ? o.window : rows; /* P1 */
    o.fleet.slice_devices = o.devices / o.fleet.connections;
    if (o.fleet.slice_devices == 0)
        o.fleet.slice_devices = 1;
    if (o.fleet.slice_devices > o.fleet.slice_rows)
        o.fleet.slice_devices = o.fleet.slice_rows;
    return o;
}

/* --- the run --- */

struct bench {
    struct options options;
    struct publisher_run run;
    struct publisher *publishers;
    int epoll;
    uint64_t tick_ns; /* next whole second */
    uint64_t turn;    /* paced: next message of the schedule */
    uint64_t acked_at_tick;
    uint32_t open; /* publishers that are not done */
    struct result result;
    struct stalls *stalls; /* paced; NULL: not watched */
};

static void connect_all(struct bench *b, const fleet *f)
{
    uint32_t count = b->options.fleet.connections;
    b->publishers = calloc(count, sizeof *b->publishers);
    b->run.inbox = malloc(PUBLISHER_INBOX);
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!b->publishers || !b->run.inbox || b->epoll < 0) {
        perror("bench_ingest");
        exit(1);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct publisher *p = &b->publishers[i];
        char id[64];
        snprintf(id, sizeof id, "bench-%d-%u", (int)getpid(), i);
        if (publisher_open(p, &b->run, i, fleet_slice_of(f, i), b->options.address, id) != 0)
            exit(1);
        if (b->options.messages)
            p->quota = b->options.messages / count + (i < b->options.messages % count);
        b->open += !publisher_done(p);
        /* Edge-triggered, so that neither a full socket nor a quiet one costs a system call; QoS 0
         * has room in the socket for its only clock. */
        uint32_t edge = b->options.fleet.qos ? EPOLLET : 0;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | edge, .data.ptr = p};
        if (epoll_ctl(b->epoll, EPOLL_CTL_ADD, p->fd, &event) != 0) {
            perror("epoll_ctl");
            exit(1);
        }
    }
}

/* Sends, and keeps count of who is done (at QoS 0 sending is what finishes a message). */
static void pump(struct bench *b, struct publisher *p, uint64_t now_ns)
{
    bool was_done = publisher_done(p);
    if (publisher_pump(p, now_ns) != 0)
        exit(1);
    b->open -= !was_done && publisher_done(p);
}

static void sample(struct bench *b)
{
    struct procstat stat;
    if (b->options.pid && procstat_read(b->options.pid, &stat) == 0) {
        if (stat.rss_anon_bytes > b->result.server_rss_max)
            b->result.server_rss_max = stat.rss_anon_bytes;
        b->result.server_after = stat;
    }
}

static uint64_t acked_now(const struct bench *b)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < b->options.fleet.connections; i++)
        sum += b->publishers[i].acked;
    return sum;
}

static void tick(struct bench *b, uint64_t now_ns)
{
    while (now_ns >= b->tick_ns && b->result.seconds_count < SECONDS_MAX) {
        uint64_t acked = acked_now(b);
        b->result.series[b->result.seconds_count++] = acked - b->acked_at_tick;
        b->acked_at_tick = acked;
        b->tick_ns += 1000000000u;
        sample(b);
        if (b->options.verbose)
            fprintf(stderr, "%4" PRIu64 " s  %9" PRIu64 "/s  server %.1f MiB\n",
                    b->result.seconds_count, b->result.series[b->result.seconds_count - 1],
                    (double)b->result.server_after.rss_anon_bytes / 1048576);
    }
}

/* No more messages: what is queued is what each connection will have published. */
static void stop(struct bench *b)
{
    for (uint32_t i = 0; i < b->options.fleet.connections; i++) {
        struct publisher *p = &b->publishers[i];
        if (publisher_done(p))
            continue;
        p->quota = p->queued;
        b->open -= publisher_done(p);
    }
}

/* Publishes what the schedule wants by now; returns when it wants the next one. */
static uint64_t keep_schedule(struct bench *b)
{
    for (;;) {
        uint64_t due = b->run.start_ns + (uint64_t)((double)b->turn * b->run.interval_ns);
        uint64_t now_ns = net_now_ns();
        if (due > now_ns)
            return due;
        pump(b, &b->publishers[b->turn % b->run.connections], now_ns);
        b->turn++;
    }
}

static void take_event(struct bench *b, const struct epoll_event *event)
{
    struct publisher *p = event->data.ptr;
    bool was_done = publisher_done(p);
    if (event->events & EPOLLOUT)
        p->blocked = false;
    if (event->events & ~(uint32_t)EPOLLOUT && publisher_drain(p) < 0)
        exit(1);
    b->open -= !was_done && publisher_done(p);
    pump(b, p, net_now_ns());
}

static void run_until(struct bench *b, uint64_t end_ns)
{
    struct epoll_event events[256];
    while (b->open > 0) {
        uint64_t now_ns = net_now_ns();
        tick(b, now_ns);
        if (now_ns >= end_ns)
            return;
        uint64_t wake_ns = b->tick_ns < end_ns ? b->tick_ns : end_ns;
        if (b->run.interval_ns > 0) {
            uint64_t due = keep_schedule(b);
            wake_ns = due < wake_ns ? due : wake_ns;
            now_ns = net_now_ns();
        }
        uint64_t wait_ns = wake_ns > now_ns ? wake_ns - now_ns : 0;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u),
                                .tv_nsec = (long)(wait_ns % 1000000000u)};
        int n = epoll_pwait2(b->epoll, events, 256, &wait, NULL);
        if (n < 0 && errno != EINTR) {
            perror("epoll_pwait2");
            exit(1);
        }
        for (int i = 0; i < n; i++)
            take_event(b, &events[i]);
    }
}

static double seconds_of(struct timeval tv)
{
    return (double)tv.tv_sec + (double)tv.tv_usec / 1e6;
}

static void run(struct bench *b)
{
    struct result *r = &b->result;
    const struct options *o = &b->options;
    struct rusage before, after;
    struct procstat stat;
    if (o->pid && procstat_read(o->pid, &stat) != 0) {
        fprintf(stderr, "--pid %d: no such process\n", (int)o->pid);
        exit(1);
    }
    sample(b);
    r->server_before = r->server_after;
    getrusage(RUSAGE_SELF, &before);
    uint64_t start_ns = net_now_ns();
    b->run.start_ns = start_ns;
    b->tick_ns = start_ns + 1000000000u;
    uint64_t stop_ns = o->messages ? start_ns + (uint64_t)SECONDS_MAX * 1000000000u
                                   : start_ns + (uint64_t)(o->seconds * 1e9);
    if (b->run.interval_ns == 0)
        for (uint32_t i = 0; i < o->fleet.connections; i++)
            pump(b, &b->publishers[i], net_now_ns());
    run_until(b, stop_ns);
    uint64_t stopped_ns = net_now_ns();
    r->acked_in_time = acked_now(b);
    r->elapsed_s = (double)(stopped_ns - start_ns) / 1e9;
    getrusage(RUSAGE_SELF, &after);
    r->generator_user_s = seconds_of(after.ru_utime) - seconds_of(before.ru_utime);
    r->generator_system_s = seconds_of(after.ru_stime) - seconds_of(before.ru_stime);
    sample(b);

    stop(b);
    b->run.interval_ns = 0;
    b->run.refill = 1;
    b->tick_ns = UINT64_MAX;
    run_until(b, stopped_ns + DRAIN_TIMEOUT_NS);
    r->drain_s = (double)(net_now_ns() - stopped_ns) / 1e9;
}

/* --- the report --- */

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void write_devices(const char *path, const struct fleet_sums *sums, uint32_t count)
{
    FILE *out = fopen(path, "we");
    if (!out) {
        perror(path);
        exit(1);
    }
    fprintf(out, "device,rows,temp_centi,humidity_quarters,ts_ms_min,ts_ms_max\n");
    for (uint32_t d = 0; d < count; d++) {
        char name[24];
        if (sums[d].rows == 0)
            continue;
        fleet_device_name(d, name);
        fprintf(out, "%s,%" PRIu64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "\n", name,
                sums[d].rows, sums[d].temp_centi, sums[d].humidity_quarters, sums[d].ts_ms_min,
                sums[d].ts_ms_max);
    }
    if (fclose(out) != 0) {
        perror(path);
        exit(1);
    }
}

static void print_histogram(const char *name, const struct histogram *h)
{
    printf("\"%s\":{\"count\":%" PRIu64 ",\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,"
           "\"max_us\":%.1f},",
           name, h->count, (double)histogram_at(h, 0.5) / 1e3, (double)histogram_at(h, 0.99) / 1e3,
           (double)histogram_at(h, 0.999) / 1e3, (double)h->max_ns / 1e3);
}

static void print_series(struct result *r)
{
    printf("\"series\":[");
    for (uint64_t i = 0; i < r->seconds_count; i++)
        printf("%s%" PRIu64, i ? "," : "", r->series[i]);
    qsort(r->series, r->seconds_count, sizeof r->series[0], compare_u64);
    printf("],\"series_min\":%" PRIu64 ",\"series_median\":%" PRIu64 ",",
           r->seconds_count ? r->series[0] : 0,
           r->seconds_count ? r->series[r->seconds_count / 2] : 0);
}

static void print_sums(struct fleet_sums s)
{
    printf("\"expected\":{\"rows\":%" PRIu64 ",\"temp_centi\":%" PRId64
           ",\"humidity_quarters\":%" PRId64 ",\"ts_ms_min\":%" PRId64 ",\"ts_ms_max\":%" PRId64
           "}",
           s.rows, s.temp_centi, s.humidity_quarters, s.rows ? s.ts_ms_min : 0,
           s.rows ? s.ts_ms_max : 0);
}

/* The same without the messages that were under way while the machine stood still. */
static void print_calm(const struct bench *b)
{
    static struct histogram calm;
    for (uint64_t i = 0; i < b->run.samples_count; i++) {
        const struct publisher_sample *s = &b->run.samples[i];
        if (!stalls_between(b->stalls, s->sent_ns, s->acked_ns))
            histogram_add(&calm, s->acked_ns - s->sent_ns);
    }
    print_histogram("calm_sent_to_ack", &calm);
    printf("\"stalls\":%" PRIu64 ",\"stalls_ms\":%.1f,", stalls_count(b->stalls),
           (double)stalls_total_ns(b->stalls) / 1e6);
}

static int report(struct bench *b, const fleet *f)
{
    const struct options *o = &b->options;
    struct result *r = &b->result;
    struct fleet_sums total = fleet_sums_none();
    uint32_t devices = fleet_devices(f);
    struct fleet_sums *by_device = calloc(devices, sizeof *by_device);
    if (!by_device)
        return 1;
    for (uint32_t d = 0; d < devices; d++)
        by_device[d] = fleet_sums_none();
    uint64_t refused = 0;
    uint8_t reason = 0;
    for (uint32_t i = 0; i < o->fleet.connections; i++) {
        const struct publisher *p = &b->publishers[i];
        fleet_add_sums(f, i, o->first_lap, p->acked, &total, by_device);
        r->acked += p->acked;
        r->queued += p->queued;
        refused += p->refused;
        reason = p->refused ? p->refused_reason : reason;
    }
    if (o->devices_file)
        write_devices(o->devices_file, by_device, devices);
    free(by_device);

    const char *kinds[] = {"json", "csv", "number"};
    printf("{\"connections\":%u,\"window\":%u,\"refill\":%u,\"qos\":%d,\"version\":\"%s\","
           "\"payload\":\"%s\",\"topic\":\"%s\",\"seed\":%" PRIu64 ",\"devices\":%u,\"pool\":%u,"
           "\"rate\":%.0f,",
           o->fleet.connections, b->run.window, o->refill, o->fleet.qos,
           o->fleet.mqtt_version == 5 ? "5" : "3.1.1", kinds[o->fleet.payload], o->fleet.topic,
           o->fleet.seed, devices, o->fleet.slice_rows * o->fleet.connections, o->rate);
    printf("\"seconds\":%.3f,\"acked_per_s\":%.0f,\"acked_in_time\":%" PRIu64 ",\"acked\":%" PRIu64
           ",\"published\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"drain_s\":%.3f,",
           r->elapsed_s, (double)r->acked_in_time / r->elapsed_s, r->acked_in_time, r->acked,
           r->queued, refused, r->drain_s);
    printf("\"generator_user_s\":%.2f,\"generator_system_s\":%.2f,", r->generator_user_s,
           r->generator_system_s);
    if (o->pid)
        printf("\"server_user_s\":%.2f,\"server_system_s\":%.2f,\"server_rss_anon_max\":%" PRIu64
               ",\"server_rss_anon_end\":%" PRIu64 ",",
               r->server_after.user_s - r->server_before.user_s,
               r->server_after.system_s - r->server_before.system_s, r->server_rss_max,
               r->server_after.rss_anon_bytes);
    print_series(r);
    print_histogram("sent_to_ack", &b->run.sent);
    if (o->rate > 0)
        print_histogram("due_to_ack", &b->run.due);
    if (b->stalls)
        print_calm(b);
    print_sums(total);
    printf("}\n");
    if (refused)
        fprintf(stderr, "%" PRIu64 " messages refused, the last with reason 0x%02x\n", refused,
                reason);
    if (r->acked != r->queued)
        fprintf(stderr, "%" PRIu64 " messages published and never acknowledged\n",
                r->queued - r->acked);
    return refused == 0 && r->acked == r->queued ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct bench b; /* histograms and series are too large for a stack */
    b.options = parse_options(argc, argv);
    const struct options *o = &b.options;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1); /* a schedule kept to 50 us would show in its latencies */
    fleet *f = fleet_create(&o->fleet);
    if (!f)
        return 1;
    b.run = (struct publisher_run){
        .mqtt_version = o->fleet.mqtt_version,
        .qos = o->fleet.qos,
        .window = o->window,
        .refill = o->refill,
        .first_lap = o->first_lap,
        .time_each = o->rate > 0,
        .interval_ns = o->rate > 0 ? 1e9 / o->rate : 0,
        .connections = o->fleet.connections,
    };
    connect_all(&b, f);
    if (o->rate > 0) {
        b.run.samples_max = (uint64_t)(o->rate * (o->seconds + 1));
        b.run.samples = calloc(b.run.samples_max, sizeof *b.run.samples);
        b.stalls = b.run.samples ? stalls_watch() : NULL;
    }
    run(&b);
    if (b.stalls)
        stalls_stop(b.stalls);
    int status = report(&b, f);
    for (uint32_t i = 0; i < o->fleet.connections; i++)
        publisher_close(&b.publishers[i]);
    close(b.epoll);
    free(b.publishers);
    free(b.run.inbox);
    free(b.run.samples);
    stalls_free(b.stalls);
    fleet_destroy(f);
    return status;
}
