#include "broker/admin/admin.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/admin/internal.h"
#include "broker/config.h"
#include "broker/net/acceptor.h"

/* How often connections are looked at, while there are any. */
#define SWEEP_MS 1000

/* ---- Connections ------------------------------------------------------------------------------
 */

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct admin *admin = cls;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct admin_conn *conn = calloc(1, sizeof *conn);
        *context = conn;
        if (!conn)
            return; /* the first request is refused */
        conn->fd = info ? info->connect_fd : -1;
        conn->receiving_since_us = chr_clock_mono_us(admin->node->clock);
        chr_list_push_back(&admin->conns, &conn->link);
        admin->conns_count++;
    } else if (*context) {
        struct admin_conn *conn = *context;
        chr_list_remove(&conn->link);
        admin->conns_count--;
        free(conn);
        *context = NULL;
    }
}

static bool hung_up(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* What libmicrohttpd leaves to us. Whoever sends a byte now and then holds a place among the
 * connections only for so long. Whoever hangs up is not always noticed: when the end came together
 * with the last bytes it waits for an edge that was there already, and while a connection is
 * suspended nobody looks. Then the request is cut off, its work is ended, or, when an answer should
 * have left long ago, the connection is closed. */
static void look_after(struct admin_conn *conn, int64_t now_us)
{
    struct admin_request *request = conn->request;
    bool receiving = conn->receiving_since_us != 0;
    bool gone = hung_up(conn->fd);
    bool late = receiving && now_us - conn->receiving_since_us > ADMIN_ARRIVAL_US;
    bool stuck = gone && conn->was_gone && request && request->status && !request->streaming;
    conn->was_gone = gone;
    if (late || (receiving && gone) || stuck)
        (void)shutdown(conn->fd, SHUT_RDWR); /* an edge: libmicrohttpd closes it */
    else if (gone && request && request->suspended && request->endpoint->ended)
        request->endpoint->ended(request);
}

static void sweep(struct admin *admin)
{
    int64_t now_us = chr_clock_mono_us(admin->node->clock);
    if (now_us < admin->next_sweep_us)
        return;
    admin->next_sweep_us = now_us + SWEEP_MS * 1000;
    CHR_LIST_FOR (link, &admin->conns) {
        look_after(CHR_CONTAINER_OF(link, struct admin_conn, link), now_us);
    }
}

/* ---- The thread -------------------------------------------------------------------------------
 */

static void *admin_main(void *arg)
{
    struct admin *admin = arg;
    pthread_setname_np(pthread_self(), "admin");
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    bool again = false;
    while (!atomic_load(&admin->stopping)) {
        struct pollfd fds[2] = {{.fd = info->epoll_fd, .events = POLLIN},
                                {.fd = admin->wake_fd, .events = POLLIN}};
        MHD_UNSIGNED_LONG_LONG limit_ms = 0;
        int timeout_ms = chr_list_empty(&admin->conns) ? -1 : SWEEP_MS;
        if (MHD_get_timeout(admin->daemon, &limit_ms) == MHD_YES &&
            (timeout_ms < 0 || limit_ms < (MHD_UNSIGNED_LONG_LONG)timeout_ms))
            timeout_ms = (int)limit_ms;
        (void)poll(fds, 2, again ? 0 : timeout_ms);
        /* A resumed connection whose peer has sent its end queues a response in one run and sends
         * it in the next, which no event asks for. */
        again = fds[1].revents != 0;
        if (fds[1].revents) {
            uint64_t count;
            ssize_t n = read(admin->wake_fd, &count, sizeof count);
            (void)n;
            admin__resume_woken(admin);
        }
        MHD_run(admin->daemon);
        sweep(admin);
    }
    return NULL;
}

/* ---- Start and stop ---------------------------------------------------------------------------
 */

/* The loopback address beside the MQTT listener, 1000 ports higher. */
static chr_err default_address(const struct broker_config *config, char *out, size_t size,
                               struct chr_errmsg *msg)
{
    char host[256];
    uint16_t port;
    chr_err err = net_parse_address(config->address, host, sizeof host, &port, msg);
    if (err)
        return err;
    bool loopback = !strncmp(host, "127.", 4) || !strcmp(host, "localhost") || !strcmp(host, "::1");
    if (!loopback)
        snprintf(host, sizeof host, "127.0.0.1");
    snprintf(out, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port ? port + 1000u : 0);
    return CHR_OK;
}

static chr_err listen_on(struct admin *admin, int *fd, struct chr_errmsg *msg)
{
    struct broker_node *node = admin->node;
    char address[300];
    struct chr_errmsg why = {{0}};
    chr_err err = CHR_OK;
    if (node->config->admin_address)
        snprintf(address, sizeof address, "%s", node->config->admin_address);
    else
        err = default_address(node->config, address, sizeof address, &why);
    if (!err)
        err = net_listen(address, fd, node->admin_address, sizeof node->admin_address, &why);
    return err ? chr_fail(msg, err, "admin port: %s", why.text) : CHR_OK;
}

chr_err admin_open(struct broker_node *node, struct admin **out, struct chr_errmsg *msg)
{
    struct admin *admin = calloc(1, sizeof *admin);
    if (!admin)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    admin->node = node;
    admin->listen_fd = -1;
    chr_list_init(&admin->conns);
    pthread_mutex_init(&admin->lock, NULL);
    admin->wake_fd = eventfd(0, EFD_CLOEXEC);
    chr_err err = admin->wake_fd < 0 ? chr_fail(msg, CHR_ENOMEM, "admin port: no descriptor left")
                                     : listen_on(admin, &admin->listen_fd, msg);
    if (err) {
        admin_stop(admin);
        return err;
    }
    *out = admin;
    return CHR_OK;
}

chr_err admin_start(struct admin *admin, struct chr_errmsg *msg)
{
    admin->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, admin__on_request, admin,
        MHD_OPTION_LISTEN_SOCKET, admin->listen_fd, MHD_OPTION_NOTIFY_COMPLETED,
        admin__on_completed, admin, MHD_OPTION_NOTIFY_CONNECTION, on_connection, admin,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)ADMIN_CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)ADMIN_MEMORY_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)ADMIN_IDLE_S, MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
        MHD_OPTION_END);
    if (!admin->daemon)
        return chr_fail(msg, CHR_ENOMEM, "admin port: the HTTP server can't be started");
    admin->listen_fd = -1; /* the daemon's */
    admin->running = pthread_create(&admin->thread, NULL, admin_main, admin) == 0;
    return admin->running ? CHR_OK : chr_fail(msg, CHR_ENOMEM, "admin port: can't start a thread");
}

void admin_stop(struct admin *admin)
{
    if (!admin)
        return;
    atomic_store(&admin->stopping, true);
    if (admin->running) {
        uint64_t one = 1;
        ssize_t n = write(admin->wake_fd, &one, sizeof one);
        (void)n;
        pthread_join(admin->thread, NULL);
    }
    /* From here on this is the admin thread. libmicrohttpd calls admin__on_completed for every
     * request (which cancels its query) and closes the sockets; none may be suspended then. */
    CHR_LIST_FOR (link, &admin->conns) {
        struct admin_conn *conn = CHR_CONTAINER_OF(link, struct admin_conn, link);
        if (conn->request && conn->request->suspended) {
            conn->request->suspended = false;
            MHD_resume_connection(conn->request->connection);
        }
    }
    if (admin->daemon)
        MHD_stop_daemon(admin->daemon);
    admin__snapshots_join(admin); /* nobody takes their parts any more */
    /* Nobody can wake any more: all requests are gone. */
    admin__resume_woken(admin);
    ingest_decoder_free(admin->decoder);
    ingest_mappings_release(admin->mappings);
    if (admin->listen_fd >= 0)
        close(admin->listen_fd);
    if (admin->wake_fd >= 0)
        close(admin->wake_fd);
    pthread_mutex_destroy(&admin->lock);
    free(admin);
}
