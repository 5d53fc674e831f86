/* bench/bench_tls.c: how many clients per second a broker takes over TLS.
 *
 * `parallel` connections at a time, in this one thread: TCP, TLS handshake, CONNECT, CONNACK,
 * DISCONNECT, and the next one. Full handshakes, or with the last ticket resumed ones. The server's
 * certificate is verified as a client does it, which costs this program about what a handshake with
 * an ECDSA key costs the server, so it prints the CPU of both.
 *
 *   bench_tls --address HOST:PORT --ca-file FILE [--parallel 32] [--seconds 5] [--resume] [--pid
 * PID]
 *
 * stdout: one JSON object. Exit status 0: every connection was accepted. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/histogram.h"
#include "bench/link.h"
#include "bench/net.h"
#include "bench/procstat.h"

#define PARALLEL_MAX 4096
#define WARM_UP_NS   500000000u

/* One connection on its way. */
struct attempt {
    int fd; /* -1: none */
    SSL *ssl;
    uint64_t start_ns;
    bool connect_sent;
};

static struct {
    const char *address, *ca_file;
    uint32_t parallel;
    double seconds;
    bool resume;
    pid_t pid;

    struct sockaddr_in server;
    SSL_CTX *context;
    SSL_SESSION *ticket; /* the last that came; NULL: none yet */
    int epoll;
    struct attempt attempts[PARALLEL_MAX];
    uint64_t started, accepted, resumed;
    char protocol[16], cipher[64];
    struct histogram latency; /* from connect() to CONNACK */
} b = {.parallel = 32, .seconds = 5};

static void die(const char *what)
{
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static void usage(void)
{
    fprintf(stderr, "bench_tls --address HOST:PORT --ca-file FILE [--parallel 32] [--seconds 5] "
                    "[--resume] [--pid PID]\n");
    exit(2);
}

static void parse_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"address", required_argument, NULL, 'a'},
        {"ca-file", required_argument, NULL, 'c'},
        {"parallel", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 's'},
        {"resume", no_argument, NULL, 'r'},
        {"pid", required_argument, NULL, 'p'},
        {0},
    };
    int opt;
    while ((opt = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (opt) {
        case 'a':
            b.address = optarg;
            break;
        case 'c':
            b.ca_file = optarg;
            break;
        case 'n':
            b.parallel = (uint32_t)atoi(optarg);
            break;
        case 's':
            b.seconds = atof(optarg);
            break;
        case 'r':
            b.resume = true;
            break;
        case 'p':
            b.pid = (pid_t)atoi(optarg);
            break;
        default:
            usage();
        }
    }
    if (!b.address || !b.ca_file || optind < argc || b.parallel == 0 || b.parallel > PARALLEL_MAX ||
        !(b.seconds > 0) || net_parse_address(b.address, &b.server) != 0)
        usage();
}

static int keep_ticket(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(b.ticket);
    b.ticket = session;
    return 1; /* ours now */
}

static void start(struct attempt *a)
{
    /* A source address of its own for each of the last 250, or ports would run out: those of closed
     * connections are not free for a minute. */
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7F000102u + (uint32_t)(b.started % 250))};
    int one = 1;
    *a = (struct attempt){.start_ns = net_now_ns()};
    a->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (a->fd < 0 || setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        setsockopt(a->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) != 0 ||
        bind(a->fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        (connect(a->fd, (struct sockaddr *)&b.server, sizeof b.server) != 0 &&
         errno != EINPROGRESS))
        die(b.address);
    a->ssl = SSL_new(b.context);
    if (!a->ssl || SSL_set_fd(a->ssl, a->fd) != 1)
        die("SSL_new");
    SSL_set_connect_state(a->ssl);
    if (b.resume && b.ticket && SSL_set_session(a->ssl, b.ticket) != 1)
        die("SSL_set_session");
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = a};
    if (epoll_ctl(b.epoll, EPOLL_CTL_ADD, a->fd, &event) != 0)
        die("epoll_ctl");
    b.started++;
}

static void finish(struct attempt *a)
{
    histogram_add(&b.latency, net_now_ns() - a->start_ns);
    b.accepted++;
    b.resumed += SSL_session_reused(a->ssl) == 1;
    if (!b.protocol[0]) {
        snprintf(b.protocol, sizeof b.protocol, "%s", SSL_get_version(a->ssl));
        snprintf(b.cipher, sizeof b.cipher, "%s", SSL_get_cipher_name(a->ssl));
    }
    (void)SSL_write(a->ssl, "\xE0\0", 2);
    SSL_set_shutdown(a->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* keeps the ticket good */
    SSL_free(a->ssl);
    close(a->fd);
    a->fd = -1;
}

/* False: it waits for the server. */
static bool waits(const struct attempt *a, int outcome)
{
    int error = SSL_get_error(a->ssl, outcome);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return true;
    die("TLS");
    return false;
}

/* Goes as far as it can; true: CONNACK is there. */
static bool advance(struct attempt *a)
{
    ERR_clear_error();
    if (!a->connect_sent) {
        int outcome = SSL_do_handshake(a->ssl);
        if (outcome != 1)
            return !waits(a, outcome);
        char packet[64] = "\x10\0\0\4MQTT\4\2\0\0\0";
        int id_len = snprintf(packet + 14, sizeof packet - 14, "tls-%" PRIu64, b.started);
        packet[1] = (char)(12 + id_len);
        packet[13] = (char)id_len;
        if (SSL_write(a->ssl, packet, 14 + id_len) != 14 + id_len)
            die("CONNECT");
        a->connect_sent = true;
    }
    unsigned char connack[4];
    int n = SSL_read(a->ssl, connack, sizeof connack);
    if (n <= 0)
        return !waits(a, n);
    if (n != 4 || memcmp(connack, "\x20\2\0\0", 4) != 0) {
        fprintf(stderr, "bench_tls: not a CONNACK\n");
        exit(1);
    }
    return true;
}

/* Until end_ns; then, unless `more`, until nothing is on its way. */
static void run_until(uint64_t end_ns, bool more)
{
    struct epoll_event events[256];
    uint64_t stop_ns = more ? end_ns : end_ns + 10000000000u;
    while (net_now_ns() < stop_ns && (more || b.started > b.accepted)) {
        int n = epoll_wait(b.epoll, events, 256, 100);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct attempt *a = events[i].data.ptr;
            if (a->fd < 0 || !advance(a))
                continue;
            finish(a);
            if (more)
                start(a);
        }
    }
}

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    struct procstat before = {0}, after = {0};
    parse_options(argc, argv);
    b.context = link_tls_context(b.ca_file);
    b.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!b.context || b.epoll < 0)
        return 1;
    SSL_CTX_set_session_cache_mode(b.context,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
    SSL_CTX_sess_set_new_cb(b.context, keep_ticket);
    for (uint32_t i = 0; i < b.parallel; i++)
        start(&b.attempts[i]);
    run_until(net_now_ns() + WARM_UP_NS, true);
    uint64_t start_ns = net_now_ns(), accepted = b.accepted, resumed = b.resumed;
    double generator_s = cpu_s();
    memset(&b.latency, 0, sizeof b.latency);
    if (b.pid && procstat_read(b.pid, &before) != 0)
        usage();
    run_until(start_ns + (uint64_t)(b.seconds * 1e9), true);
    double s = (double)(net_now_ns() - start_ns) / 1e9;
    accepted = b.accepted - accepted;
    resumed = b.resumed - resumed;
    generator_s = cpu_s() - generator_s;
    if (b.pid)
        (void)procstat_read(b.pid, &after);
    printf("{\"parallel\":%u,\"resume\":%s,\"protocol\":\"%s\",\"cipher\":\"%s\",\"seconds\":%.3f,"
           "\"accepted\":%" PRIu64 ",\"resumed\":%" PRIu64 ",\"per_s\":%.1f,\"generator_s\":%.2f,"
           "\"server_user_s\":%.2f,\"server_system_s\":%.2f,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"p999_us\":%.1f}\n",
           b.parallel, b.resume ? "true" : "false", b.protocol, b.cipher, s, accepted, resumed,
           (double)accepted / s, generator_s, after.user_s - before.user_s,
           after.system_s - before.system_s, (double)histogram_at(&b.latency, 0.5) / 1e3,
           (double)histogram_at(&b.latency, 0.99) / 1e3,
           (double)histogram_at(&b.latency, 0.999) / 1e3);
    run_until(net_now_ns(), false);
    return b.started == b.accepted ? 0 : 1;
}
