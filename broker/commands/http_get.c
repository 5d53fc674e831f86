/* HTTP/1.0: the end of the connection is the end of the body, and nothing has to be put together.
 */
#include "broker/commands/http_get.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "broker/net/acceptor.h"

#define HEADERS_MAX 16384u
#define WAIT_S      600

static chr_err connect_to(const char *address, int *fd, struct chr_errmsg *msg)
{
    char host[256], service[8];
    uint16_t port;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    chr_err err = net_parse_address(address, host, sizeof host, &port, msg);
    if (err)
        return err;
    snprintf(service, sizeof service, "%u", port);
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc)
        return chr_fail(msg, CHR_ECLOSED, "%s: %s", address, gai_strerror(rc));
    int number = ECONNREFUSED;
    *fd = -1;
    for (struct addrinfo *a = found; a && *fd < 0; a = a->ai_next) {
        *fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (*fd >= 0 && connect(*fd, a->ai_addr, a->ai_addrlen)) {
            number = errno;
            close(*fd);
            *fd = -1;
        }
    }
    freeaddrinfo(found);
    if (*fd < 0)
        return chr_fail(msg, CHR_ECLOSED, "can't connect to the node's admin port at %s: %s",
                        address, strerror(number));
    const struct timeval wait = {.tv_sec = WAIT_S};
    (void)setsockopt(*fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return CHR_OK;
}

static chr_err ask(int fd, const char *address, const char *path, const char *token,
                   struct chr_errmsg *msg)
{
    char text[2048];
    bool has = token && token[0];
    int n = snprintf(text, sizeof text, "GET %s HTTP/1.0\r\nHost: %s\r\n%s%s%s\r\n", path, address,
                     has ? "Authorization: Bearer " : "", has ? token : "", has ? "\r\n" : "");
    if (n < 0 || (size_t)n >= sizeof text)
        return chr_fail(msg, CHR_ETOOBIG, "the token is too long");
    for (int done = 0; done < n;) {
        ssize_t sent = send(fd, text + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return chr_fail(msg, CHR_ECLOSED, "%s: %s", address, strerror(errno));
        done += sent > 0 ? (int)sent : 0;
    }
    explicit_bzero(text, sizeof text);
    return CHR_OK;
}

/* Bytes, 0 at the end, below 0 a chr_err. */
static ssize_t receive(int fd, const char *address, void *out, size_t max, struct chr_errmsg *msg)
{
    ssize_t n;
    do
        n = recv(fd, out, max, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return chr_fail(msg, errno == EAGAIN ? CHR_ETIMEDOUT : CHR_ECLOSED, "%s: %s", address,
                        errno == EAGAIN ? "nothing came for ten minutes" : strerror(errno));
    return n;
}

/* What the node said, out of {"error":{…"message":"…"…}}, or the beginning of it. */
static chr_err refused(unsigned status, const char *address, char *body, struct chr_errmsg *msg)
{
    char *text = strstr(body, "\"message\":\"");
    text = text ? text + strlen("\"message\":\"") : body;
    text[strcspn(text, text == body ? "\r\n" : "\"")] = 0;
    chr_err err = status == 401 || status == 403 ? CHR_EACCES
                  : status == 404                ? CHR_ENOTFOUND
                                                 : CHR_EPROTO;
    return chr_fail(msg, err, "the node at %s refuses (%u): %.160s", address, status, text);
}

static chr_err take_answer(int fd, const char *address,
                           chr_err (*sink)(void *arg, chr_slice bytes, struct chr_errmsg *msg),
                           void *arg, struct chr_errmsg *msg)
{
    char bytes[HEADERS_MAX + 1];
    size_t len = 0;
    char *end = NULL;
    while (!end && len < HEADERS_MAX) {
        ssize_t n = receive(fd, address, bytes + len, HEADERS_MAX - len, msg);
        if (n < 0)
            return (chr_err)n;
        if (n == 0)
            break;
        len += (size_t)n;
        bytes[len] = 0;
        end = strstr(bytes, "\r\n\r\n");
    }
    unsigned status = 0;
    if (!end || sscanf(bytes, "HTTP/%*u.%*u %u", &status) != 1)
        return chr_fail(msg, CHR_EPROTO, "%s is no admin port of a node", address);
    size_t body = (size_t)(end + 4 - bytes);
    if (status != 200) {
        ssize_t n = 1;
        while (n > 0 && len < HEADERS_MAX) {
            n = receive(fd, address, bytes + len, HEADERS_MAX - len, msg);
            len += n > 0 ? (size_t)n : 0;
        }
        bytes[len] = 0;
        return refused(status, address, bytes + body, msg);
    }
    chr_err err =
        len > body ? sink(arg, chr_slice_of((uint8_t *)bytes + body, len - body), msg) : CHR_OK;
    while (!err) {
        ssize_t n = receive(fd, address, bytes, HEADERS_MAX, msg);
        if (n <= 0)
            return (chr_err)n;
        err = sink(arg, chr_slice_of((uint8_t *)bytes, (size_t)n), msg);
    }
    return err;
}

chr_err http_get(const char *address, const char *path, const char *token,
                 chr_err (*sink)(void *arg, chr_slice bytes, struct chr_errmsg *msg), void *arg,
                 struct chr_errmsg *msg)
{
    int fd = -1;
    chr_err err = connect_to(address, &fd, msg);
    if (!err)
        err = ask(fd, address, path, token, msg);
    if (!err)
        err = take_answer(fd, address, sink, arg, msg);
    if (fd >= 0)
        close(fd);
    return err;
}
