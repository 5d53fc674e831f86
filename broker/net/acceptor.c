#include "broker/net/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "broker/config.h"
#include "broker/net/listener.h"
#include "broker/net/loop.h"
#include "broker/node.h"

/* A fleet that reconnects at once: the kernel caps it at net.core.somaxconn. */
#define LISTEN_BACKLOG 4096
/* Accepted in one go before looking at the stop flag. */
#define ACCEPT_BURST 64
/* Pause when the process is out of descriptors: accepting could only fail again at once. */
#define EXHAUSTED_PAUSE_MS 100
/* Kept for the log, the database, the admin port's connections, query workers. */
#define DESCRIPTORS_OURS  192u
#define REFUSED_REMIND_US INT64_C(1000000)

struct acceptor {
    struct broker_node *node;
    struct pollfd *polls;        /* [polls_count]: the stop_fd, then all sockets */
    struct listener **listeners; /* of polls[i] */
    nfds_t polls_count;
    int stop_fd; /* eventfd */
    pthread_t thread;
    uint32_t descriptors; /* that clients may have */
    int64_t warned_us, refused_us;
    uint64_t refused; /* since the last line about it */
};

/* Less than all descriptors: a log that can't open its next segment because clients hold them all
 * would take the node down. */
static uint32_t descriptors_for_clients(void)
{
    struct rlimit limit = {.rlim_cur = 1024};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t all = limit.rlim_cur > UINT32_MAX ? UINT32_MAX : limit.rlim_cur;
    return (uint32_t)(all >= 2 * DESCRIPTORS_OURS ? all - DESCRIPTORS_OURS : all / 2);
}

chr_err net_parse_address(const char *address, char *host, size_t host_size, uint16_t *port,
                          struct chr_errmsg *msg)
{
    const char *colon = strrchr(address, ':');
    if (!colon)
        return chr_fail(msg, CHR_EINVAL, "address \"%s\" has no port; write HOST:PORT", address);
    size_t host_len = (size_t)(colon - address);
    const char *start = address;
    if (host_len >= 2 && start[0] == '[' && start[host_len - 1] == ']') {
        start++;
        host_len -= 2;
    }
    if (host_len >= host_size)
        return chr_fail(msg, CHR_EINVAL, "address \"%s\": the host name is too long", address);
    memcpy(host, start, host_len);
    host[host_len] = 0;
    chr_slice digits = chr_slice_cstr(colon + 1);
    int64_t number = -1;
    if (digits.len == 0 || chr_parse_i64(digits, &number) != (int)digits.len || number < 0 ||
        number > 65535)
        return chr_fail(msg, CHR_EINVAL, "address \"%s\": \"%s\" is not a port (0 to 65535)",
                        address, colon + 1);
    *port = (uint16_t)number;
    return CHR_OK;
}

void net_print_address(const struct sockaddr *address, socklen_t len, char *out, size_t size)
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo(address, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(out, size, "unknown");
    else
        snprintf(out, size, address->sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static int try_listen(const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, LISTEN_BACKLOG)) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

chr_err net_listen(const char *address, int *fd, char *bound, size_t bound_size,
                   struct chr_errmsg *msg)
{
    char host[256], service[8];
    uint16_t port;
    chr_err err = net_parse_address(address, host, sizeof host, &port, msg);
    if (err)
        return err;
    snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int resolved = getaddrinfo(host[0] ? host : NULL, service, &hints, &list);
    if (resolved)
        return chr_fail(msg, CHR_EINVAL, "address \"%s\": %s", address, gai_strerror(resolved));
    int listening = -1, saved = 0;
    for (struct addrinfo *info = list; info && listening < 0; info = info->ai_next) {
        listening = try_listen(info);
        saved = errno;
    }
    freeaddrinfo(list);
    if (listening < 0) {
        if (saved == EADDRINUSE)
            return chr_fail(msg, CHR_EBUSY,
                            "can't listen on %s: the port is in use by another process", address);
        return chr_fail(msg, chr_err_from_errno(saved), "can't listen on %s: %s", address,
                        strerror(saved));
    }
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (getsockname(listening, (struct sockaddr *)&name, &len) == 0)
        net_print_address((struct sockaddr *)&name, len, bound, bound_size);
    else
        snprintf(bound, bound_size, "%s", address);
    *fd = listening;
    return CHR_OK;
}

/* ---- Accepting --------------------------------------------------------------------------------
 */

static struct broker_loop *least_loaded(struct broker_node *node)
{
    struct broker_loop *best = node->loops[0];
    for (uint32_t i = 1; i < node->loops_count; i++)
        if (atomic_load(&node->loops[i]->conns_count) < atomic_load(&best->conns_count))
            best = node->loops[i];
    return best;
}

/* Whoever knocks in a loop must not fill the operator's disk with lines. */
static void refuse(struct acceptor *a, struct listener *listener, const char *address, uint32_t max)
{
    a->refused++;
    atomic_fetch_add_explicit(&listener->refused, 1, memory_order_relaxed);
    int64_t now_us = chr_clock_mono_us(a->node->clock);
    if (a->refused_us && now_us - a->refused_us < REFUSED_REMIND_US)
        return;
    chr_log_warning("net", "connections refused: max_connections is reached",
                    CHR_KV_C("address", address), CHR_KV_C("listener", listener->bound),
                    CHR_KV_U("max_connections", max), CHR_KV_U("refused", a->refused));
    a->refused_us = now_us;
    a->refused = 0;
}

static void describe_peer(int fd, const struct sockaddr_storage *peer, socklen_t peer_len,
                          char *out, size_t size)
{
    if (peer->ss_family != AF_UNIX) {
        net_print_address((const struct sockaddr *)peer, peer_len, out, size);
        return;
    }
    struct ucred who;
    socklen_t len = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len))
        snprintf(out, size, "unix");
    else
        snprintf(out, size, "unix:uid=%u,pid=%d", who.uid, who.pid);
}

static void hand_over(struct acceptor *a, struct listener *listener, int fd,
                      const struct sockaddr_storage *peer, socklen_t peer_len)
{
    char address[64];
    describe_peer(fd, peer, peer_len, address, sizeof address);
    int one = 1;
    if (peer->ss_family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    }
    uint64_t now = 0;
    for (uint32_t i = 0; i < a->node->loops_count; i++)
        now += atomic_load(&a->node->loops[i]->conns_count);
    const struct broker_config *config = a->node->config;
    uint32_t max = a->descriptors, own_max = config->listeners[listener->index].max_connections;
    if (config->max_connections)
        max = CHR_MIN(max, config->max_connections);
    if (now >= max) {
        refuse(a, listener, address, max);
        close(fd);
    } else if (own_max && atomic_load(&listener->connections) >= own_max) {
        refuse(a, listener, address, own_max);
        close(fd);
    } else if (loop_adopt(least_loaded(a->node), listener, fd, address) != CHR_OK) {
        close(fd);
    } else {
        atomic_fetch_add_explicit(&listener->accepted, 1, memory_order_relaxed);
    }
}

static void out_of_descriptors(struct acceptor *a)
{
    int64_t now_us = chr_clock_mono_us(a->node->clock);
    if (now_us - a->warned_us > 10000000) {
        a->warned_us = now_us;
        chr_log_error("net", "out of file descriptors; new connections wait (raise ulimit -n)");
    }
    struct pollfd stop = {.fd = a->stop_fd, .events = POLLIN};
    (void)poll(&stop, 1, EXHAUSTED_PAUSE_MS);
}

static void accept_burst(struct acceptor *a, struct listener *listener, int listening)
{
    for (int i = 0; i < ACCEPT_BURST; i++) {
        struct sockaddr_storage peer;
        socklen_t peer_len = sizeof peer;
        int fd =
            accept4(listening, (struct sockaddr *)&peer, &peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            hand_over(a, listener, fd, &peer, peer_len);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            out_of_descriptors(a);
        if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

static void *acceptor_main(void *arg)
{
    struct acceptor *a = arg;
    pthread_setname_np(pthread_self(), "acceptor");
    for (;;) {
        if (poll(a->polls, a->polls_count, -1) < 0) {
            if (errno != EINTR)
                return NULL;
            continue;
        }
        if (a->polls[0].revents)
            return NULL;
        for (nfds_t i = 1; i < a->polls_count; i++)
            if (a->polls[i].revents)
                accept_burst(a, a->listeners[i], a->polls[i].fd);
    }
}

static void acceptor_free(struct acceptor *a)
{
    if (a->stop_fd >= 0)
        close(a->stop_fd);
    free(a->polls);
    free(a->listeners);
    free(a);
}

chr_err acceptor_start(struct broker_node *node, struct acceptor **out)
{
    struct acceptor *a = calloc(1, sizeof *a);
    if (!a)
        return CHR_ENOMEM;
    a->node = node;
    a->stop_fd = eventfd(0, EFD_CLOEXEC);
    nfds_t most = 1 + (nfds_t)node->listeners_count * LISTENER_SOCKETS_MAX;
    a->polls = calloc(most, sizeof *a->polls);
    a->listeners = calloc(most, sizeof *a->listeners);
    if (a->stop_fd < 0 || !a->polls || !a->listeners) {
        acceptor_free(a);
        return CHR_ENOMEM;
    }
    a->polls[a->polls_count++] = (struct pollfd){.fd = a->stop_fd, .events = POLLIN};
    for (uint32_t i = 0; i < node->listeners_count; i++) {
        struct listener *listener = &node->listeners[i];
        for (uint32_t j = 0; j < listener->sockets_count; j++) {
            a->listeners[a->polls_count] = listener;
            a->polls[a->polls_count++] =
                (struct pollfd){.fd = listener->sockets[j], .events = POLLIN};
        }
    }
    a->descriptors = descriptors_for_clients();
    if (pthread_create(&a->thread, NULL, acceptor_main, a)) {
        acceptor_free(a);
        return CHR_ENOMEM;
    }
    *out = a;
    return CHR_OK;
}

void acceptor_stop(struct acceptor *a)
{
    if (!a)
        return;
    uint64_t one = 1;
    ssize_t n = write(a->stop_fd, &one, sizeof one);
    (void)n;
    pthread_join(a->thread, NULL);
    acceptor_free(a);
}
