/* bench/link.c */
#include "bench/link.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/net.h"

struct ssl_ctx_st *link_tls_context(const char *ca_file)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || SSL_CTX_load_verify_locations(context, ca_file, NULL) != 1 ||
        SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        ERR_print_errors_fp(stderr);
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    return context;
}

int link_open(struct link *l, const char *address, struct ssl_ctx_st *tls)
{
    *l = (struct link){.fd = net_connect(address)};
    if (l->fd < 0)
        return -1;
    if (!tls)
        return 0;
    l->tls = SSL_new(tls);
    if (l->tls && SSL_set_fd(l->tls, l->fd) == 1 && SSL_connect(l->tls) == 1)
        return 0;
    fprintf(stderr, "%s: no TLS\n", address);
    ERR_print_errors_fp(stderr);
    link_close(l);
    return -1;
}

void link_close(struct link *l)
{
    SSL_free(l->tls);
    if (l->fd >= 0)
        close(l->fd);
    *l = (struct link){.fd = -1};
}

int link_set_nonblocking(struct link *l)
{
    return fcntl(l->fd, F_SETFL, O_NONBLOCK);
}

/* Of a call that did nothing. */
static ssize_t tls_outcome(struct link *l, int n)
{
    switch (SSL_get_error(l->tls, n)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        ERR_print_errors_fp(stderr);
        errno = EPROTO;
        return -1;
    }
}

ssize_t link_send(struct link *l, const void *bytes, size_t len)
{
    if (!l->tls)
        return send(l->fd, bytes, len, MSG_NOSIGNAL);
    ERR_clear_error();
    int n = SSL_write(l->tls, bytes, (int)len);
    return n > 0 ? n : tls_outcome(l, n);
}

ssize_t link_recv(struct link *l, void *bytes, size_t len)
{
    if (!l->tls)
        return recv(l->fd, bytes, len, 0);
    /* A record at a time; all that are there, so that an edge of epoll is used up. */
    size_t got = 0;
    while (got < len) {
        ERR_clear_error();
        int n = SSL_read(l->tls, (char *)bytes + got, (int)(len - got));
        if (n <= 0)
            return got ? (ssize_t)got : tls_outcome(l, n);
        got += (size_t)n;
        if (!(fcntl(l->fd, F_GETFL) & O_NONBLOCK))
            break;
    }
    return (ssize_t)got;
}
