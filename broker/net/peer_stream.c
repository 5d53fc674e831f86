#include "broker/net/peer_stream.h"

#include <errno.h>

#include "broker/config.h"
#include "broker/net/conn.h"
#include "broker/net/listener.h"
#include "broker/net/tls.h"
#include "broker/net/transport.h"

static ssize_t outcome(enum tls_result result, size_t done)
{
    if (done) /* an end or an error is reported by the next call again */
        return (ssize_t)done;
    if (result == TLS_ENDED)
        return 0;
    errno = result == TLS_FAILED ? EPROTO : EAGAIN;
    return -1;
}

static ssize_t stream_receive(void *ctx, uint8_t *bytes, size_t n)
{
    size_t got = 0;
    const char *why = NULL;
    enum tls_result result = tls_read(ctx, bytes, n, &got, &why);
    return outcome(result, got);
}

static ssize_t stream_send(void *ctx, const uint8_t *bytes, size_t n)
{
    size_t sent = 0;
    const char *why = NULL;
    enum tls_result result = tls_write(ctx, bytes, n, &sent, &why);
    if (result == TLS_ENDED) {
        errno = EPIPE;
        return -1;
    }
    return outcome(result, sent);
}

static void stream_free(void *ctx)
{
    SSL_free(ctx);
}

bool peer_stream_possible(const struct conn *conn)
{
    const struct transport *t = conn->transport;
    /* Behind a proxy nobody knows where it comes from, so whether it may do without a secret. */
    if (conn->listener->config->proxy_protocol)
        return false;
    return !t ||
           (t->ssl && !t->websocket && t->phase == TRANSPORT_OPEN && transport_unsent(t) == 0);
}

struct peers_stream peer_stream_take(struct conn *conn, int fd)
{
    struct peers_stream stream = {0};
    struct transport *t = conn->transport;
    if (!t)
        return stream;
    transport_set_fd(t, fd);
    stream = (struct peers_stream){
        .ctx = t->ssl, .receive = stream_receive, .send = stream_send, .free = stream_free};
    t->ssl = NULL;
    return stream;
}
