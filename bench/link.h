/* bench/link.h: the connection of a bench client: a socket on loopback, over TLS if asked for. */
#ifndef CHR_BENCH_LINK_H
#define CHR_BENCH_LINK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct ssl_ctx_st;
struct ssl_st;

struct link {
    int fd;             /* -1: closed */
    struct ssl_st *tls; /* NULL: plain */
};

/* What TLS clients share: one CA, TLS 1.2 and up, no tickets are kept. NULL with a message on
 * stderr. Lives until the process ends. */
struct ssl_ctx_st *link_tls_context(const char *ca_file);

/* Blocking, with TCP_NODELAY, and after the handshake. tls: borrowed until link_close; NULL: plain.
 * Returns 0, or -1 with a message on stderr; l is closed then. */
int link_open(struct link *l, const char *address, struct ssl_ctx_st *tls);
void link_close(struct link *l);
/* Returns 0 or -1. */
int link_set_nonblocking(struct link *l);
/* As send() and recv(): bytes, 0 at the end of the stream, -1 with errno, which is EAGAIN when it
 * would block. Fewer bytes received than there was room for means: no more are there. */
ssize_t link_send(struct link *l, const void *bytes, size_t len);
ssize_t link_recv(struct link *l, void *bytes, size_t len);

#endif
