#include "broker/net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/net/acceptor.h"
#include "broker/net/tls.h"
#include "broker/node.h"

/* A fleet that reconnects at once: the kernel caps it at net.core.somaxconn. */
#define LISTEN_BACKLOG 4096
/* "Any free port" that one address family has free may be taken in another. */
#define FREE_PORT_TRIES 16

const char *listener_kind(const struct listener *listener)
{
    const struct listener_config *config = listener->config;
    if (config->protocol == LISTENER_WEBSOCKETS)
        return config->certfile ? "wss" : "ws";
    if (config->certfile)
        return "tls";
    return config->unix_path ? "unix" : "mqtt";
}

/* Of config, not of listener->config: a reload may have changed them. */

uint32_t listener_max_packet_size(const struct listener *listener,
                                  const struct broker_config *config)
{
    uint32_t own = config->listeners[listener->index].max_packet_size;
    return own && own < config->max_packet_size ? own : config->max_packet_size;
}

uint16_t listener_topic_alias_maximum(const struct listener *listener,
                                      const struct broker_config *config)
{
    const struct listener_config *own = &config->listeners[listener->index];
    return own->max_topic_alias_set ? own->max_topic_alias : config->topic_alias_maximum;
}

bool listener_allows_anonymous(const struct listener *listener, const struct broker_config *config)
{
    enum listener_anonymous own = config->listeners[listener->index].allow_anonymous;
    return own == LISTENER_ANONYMOUS_AS_NODE ? config->allow_anonymous
                                             : own == LISTENER_ANONYMOUS_YES;
}

/* ---- TCP --------------------------------------------------------------------------------------
 */

static chr_err fail(const struct listener *l, chr_err err, const char *why, struct chr_errmsg *msg)
{
    const struct listener_config *config = l->config;
    const char *name = config->unix_path ? config->unix_path : config->address;
    return chr_fail(msg, err, "%scan't listen on %s: %s", config->place ? config->place : "", name,
                    why);
}

static int listening_socket(const struct listener *l, const struct addrinfo *info)
{
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    int one = 1;
    const char *interface = l->config->bind_interface;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* Each family has its own socket: then an IPv4 client's address reads like one. */
    if (info->ai_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if ((interface && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface,
                                 (socklen_t)strlen(interface) + 1)) ||
        bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, LISTEN_BACKLOG)) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static void close_sockets(struct listener *l)
{
    for (uint32_t i = 0; i < l->sockets_count; i++)
        close(l->sockets[i]);
    l->sockets_count = 0;
}

static void set_port(struct sockaddr *address, uint16_t port)
{
    if (address->sa_family == AF_INET)
        ((struct sockaddr_in *)(void *)address)->sin_port = htons(port);
    else if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)address)->sin6_port = htons(port);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &len))
        return 0;
    return ntohs(name.ss_family == AF_INET ? ((struct sockaddr_in *)&name)->sin_port
                                           : ((struct sockaddr_in6 *)&name)->sin6_port);
}

uint16_t listener_port(const struct listener *listener)
{
    return listener->config->address && listener->sockets_count ? port_of(listener->sockets[0]) : 0;
}

/* All addresses of the list that this machine has. 0, or the errno that matters. */
static int open_addresses(struct listener *l, const struct addrinfo *list, uint16_t port)
{
    int saved = EADDRNOTAVAIL;
    for (const struct addrinfo *info = list; info; info = info->ai_next) {
        if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
            continue;
        if (l->sockets_count == LISTENER_SOCKETS_MAX)
            break;
        set_port(info->ai_addr, port ? port : l->sockets_count ? port_of(l->sockets[0]) : 0);
        int fd = listening_socket(l, info);
        if (fd >= 0) {
            l->sockets[l->sockets_count++] = fd;
            continue;
        }
        saved = errno;
        if (saved != EAFNOSUPPORT && saved != EADDRNOTAVAIL && saved != EPROTONOSUPPORT) {
            close_sockets(l);
            return saved;
        }
    }
    return l->sockets_count ? 0 : saved;
}

static chr_err open_tcp(struct listener *l, struct chr_errmsg *msg)
{
    const struct listener_config *config = l->config;
    char host[256];
    uint16_t port;
    chr_err err = net_parse_address(config->address, host, sizeof host, &port, msg);
    if (err)
        return err;
    if (config->bind_interface && strlen(config->bind_interface) >= IFNAMSIZ)
        return fail(l, CHR_EINVAL, "bind_interface: no such interface", msg);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV,
                             .ai_family = config->domain == LISTENER_IPV4   ? AF_INET
                                          : config->domain == LISTENER_IPV6 ? AF_INET6
                                                                            : AF_UNSPEC};
    struct addrinfo *list = NULL;
    int resolved = getaddrinfo(host[0] ? host : NULL, "0", &hints, &list);
    if (resolved)
        return fail(l, CHR_EINVAL, gai_strerror(resolved), msg);
    int failed = open_addresses(l, list, port ? port : config->port_before);
    for (int i = 0; port == 0 && failed == EADDRINUSE && i < FREE_PORT_TRIES; i++)
        failed = open_addresses(l, list, port);
    freeaddrinfo(list);
    if (failed == EADDRINUSE)
        return fail(l, CHR_EBUSY, "the port is in use by another process", msg);
    if (failed == ENODEV && config->bind_interface)
        return fail(l, CHR_EINVAL, "bind_interface: no such interface", msg);
    if (failed)
        return fail(l, chr_err_from_errno(failed), strerror(failed), msg);
    /* The name to show: an IPv4 one, as most clients are told. */
    for (uint32_t i = 0; i < l->sockets_count; i++) {
        struct sockaddr_storage name;
        socklen_t len = sizeof name;
        if (getsockname(l->sockets[i], (struct sockaddr *)&name, &len))
            continue;
        if (!l->bound[0] || name.ss_family == AF_INET)
            net_print_address((struct sockaddr *)&name, len, l->bound, sizeof l->bound);
        if (name.ss_family == AF_INET)
            break;
    }
    return CHR_OK;
}

/* ---- Unix sockets -----------------------------------------------------------------------------
 */

/* A socket file that nobody listens on is left over from a crash and may go; anything else stays.
 */
static bool remove_stale(const struct sockaddr_un *name)
{
    struct stat st;
    if (lstat(name->sun_path, &st) || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool stale = fd >= 0 && connect(fd, (const struct sockaddr *)name, sizeof *name) &&
                 errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return stale && unlink(name->sun_path) == 0;
}

static chr_err open_unix(struct listener *l, struct chr_errmsg *msg)
{
    const char *path = l->config->unix_path;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof name.sun_path)
        return fail(l, CHR_EINVAL, "the path is too long for a Unix socket", msg);
    memcpy(name.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(l, chr_err_from_errno(errno), strerror(errno), msg);
    int failed = bind(fd, (struct sockaddr *)&name, sizeof name) ? errno : 0;
    if (failed == EADDRINUSE && remove_stale(&name))
        failed = bind(fd, (struct sockaddr *)&name, sizeof name) ? errno : 0;
    if (failed) {
        close(fd);
        if (failed != EADDRINUSE)
            return fail(l, chr_err_from_errno(failed), strerror(failed), msg);
        struct stat st;
        bool socket_file = lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
        return fail(l, CHR_EBUSY,
                    socket_file ? "another process listens on it"
                                : "there is a file of that name, which is not a socket",
                    msg);
    }
    l->sockets[l->sockets_count++] = fd;
    snprintf(l->bound, sizeof l->bound, "%s", path);
    struct stat st;
    if (lstat(path, &st) == 0) {
        l->unix_dev = (uint64_t)st.st_dev;
        l->unix_ino = (uint64_t)st.st_ino;
    }
    /* Before listen(): until then nobody can come in. */
    if (l->config->unix_mode && chmod(path, (mode_t)l->config->unix_mode))
        return fail(l, chr_err_from_errno(errno), strerror(errno), msg);
    if (listen(fd, LISTEN_BACKLOG))
        return fail(l, chr_err_from_errno(errno), strerror(errno), msg);
    return CHR_OK;
}

static void remove_socket_file(const struct listener *l)
{
    struct stat st;
    const char *path = l->config->unix_path;
    if (path && l->unix_ino && lstat(path, &st) == 0 && (uint64_t)st.st_dev == l->unix_dev &&
        (uint64_t)st.st_ino == l->unix_ino)
        (void)unlink(path);
}

/* ---- All of them ------------------------------------------------------------------------------
 */

static chr_err open_one(struct listener *l, struct chr_errmsg *msg)
{
    struct chr_errmsg why = {{0}};
    chr_err err = l->config->certfile ? tls_context_new(l->config, &l->tls, &why) : CHR_OK;
    if (err)
        return fail(l, err, why.text, msg);
    return l->config->unix_path ? open_unix(l, msg) : open_tcp(l, msg);
}

void listeners_close(struct broker_node *node)
{
    for (uint32_t i = 0; i < node->listeners_count; i++) {
        remove_socket_file(&node->listeners[i]);
        close_sockets(&node->listeners[i]);
    }
}

struct ssl_st *listener_tls_new(struct listener *listener)
{
    pthread_mutex_lock(&listener->tls_lock);
    SSL *ssl = SSL_new(listener->tls); /* takes a reference of the context */
    pthread_mutex_unlock(&listener->tls_lock);
    return ssl;
}

/* ---- Reload (reload.h) ------------------------------------------------------------------------
 */

/* What the new settings say of a listener; NULL: nothing, it stays as it is. */
static const struct listener_config *config_in(const struct listener *l,
                                               const struct broker_config *next)
{
    for (uint32_t n = 0; n < next->listeners_count; n++) {
        /* Its own place first: "any free port" may be there more than once. */
        const struct listener_config *c = &next->listeners[(l->index + n) % next->listeners_count];
        const struct listener_config *own = l->config;
        if (own->unix_path ? c->unix_path && !strcmp(c->unix_path, own->unix_path)
                           : c->address && !strcmp(c->address, own->address))
            return c;
    }
    return NULL;
}

static void reload_abort(void *ctx, void *prepared)
{
    const struct broker_node *node = ctx;
    SSL_CTX **fresh = prepared;
    for (uint32_t i = 0; i < node->listeners_count; i++)
        SSL_CTX_free(fresh[i]);
    free(fresh);
}

static chr_err reload_prepare(void *ctx, const struct broker_config *next, void **prepared,
                              struct chr_errmsg *msg)
{
    const struct broker_node *node = ctx;
    SSL_CTX **fresh = calloc(node->listeners_count, sizeof *fresh);
    if (!fresh)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    for (uint32_t i = 0; i < node->listeners_count; i++) {
        const struct listener *l = &node->listeners[i];
        const struct listener_config *c = l->config->certfile ? config_in(l, next) : NULL;
        if (!c || !c->certfile)
            continue;
        struct chr_errmsg why = {{0}};
        chr_err err = tls_context_new(c, &fresh[i], &why);
        if (err) {
            reload_abort(ctx, fresh);
            return chr_fail(msg, err, "%slistener %s: %s", c->place ? c->place : "", l->bound,
                            why.text);
        }
    }
    *prepared = fresh;
    return CHR_OK;
}

/* Connections take a reference of the context they began with under the same lock. */
static void reload_commit(void *ctx, void *prepared)
{
    struct broker_node *node = ctx;
    SSL_CTX **fresh = prepared;
    for (uint32_t i = 0; i < node->listeners_count; i++) {
        struct listener *l = &node->listeners[i];
        if (!fresh[i])
            continue;
        pthread_mutex_lock(&l->tls_lock);
        SSL_CTX *old = l->tls;
        l->tls = fresh[i];
        pthread_mutex_unlock(&l->tls_lock);
        fresh[i] = old;
    }
    reload_abort(ctx, fresh);
}

void listeners_free(struct broker_node *node)
{
    for (uint32_t i = 0; i < node->listeners_count; i++) {
        SSL_CTX_free(node->listeners[i].tls);
        pthread_mutex_destroy(&node->listeners[i].tls_lock);
    }
    free(node->listeners);
    node->listeners = NULL;
    node->listeners_count = 0;
}

chr_err listeners_open(struct broker_node *node, struct chr_errmsg *msg)
{
    const struct broker_config *config = node->config;
    node->listeners = calloc(config->listeners_count, sizeof *node->listeners);
    if (!node->listeners)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    snprintf(node->mqtt_address, sizeof node->mqtt_address, "none");
    for (uint32_t i = 0; i < config->listeners_count; i++) {
        struct listener *l = &node->listeners[i];
        l->config = &config->listeners[i];
        l->index = i;
        pthread_mutex_init(&l->tls_lock, NULL);
        node->listeners_count++;
        chr_err err = open_one(l, msg);
        if (err) {
            listeners_close(node);
            listeners_free(node);
            return err;
        }
        if (!strcmp(node->mqtt_address, "none") && !strcmp(listener_kind(l), "mqtt"))
            snprintf(node->mqtt_address, sizeof node->mqtt_address, "%.79s", l->bound);
    }
    struct reload_part part = {.name = "certificates",
                               .ctx = node,
                               .prepare = reload_prepare,
                               .commit = reload_commit,
                               .abort = reload_abort};
    node_reload_register(node, &part);
    return CHR_OK;
}
