/* broker/net/listener.h: where clients come in: the sockets of one listener and what holds for the
 * connections that came through it.
 *
 * Opened and closed by the thread that starts the node; the acceptor reads `sockets`; loops read
 * the rest and keep pointers from their connections, so listeners live until the loops are gone. */
#ifndef CHR_BROKER_NET_LISTENER_H
#define CHR_BROKER_NET_LISTENER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "broker/config.h"

struct broker_node;
struct ssl_st;     /* OpenSSL's SSL */
struct ssl_ctx_st; /* OpenSSL's SSL_CTX */

/* Addresses that one name may stand for ("localhost": two). */
#define LISTENER_SOCKETS_MAX 8

struct listener {
    const struct listener_config *config; /* borrowed from the node's config */
    uint32_t index;                       /* in node->listeners */
    int sockets[LISTENER_SOCKETS_MAX];
    uint32_t sockets_count;
    char bound[128];             /* as bound, "127.0.0.1:1883" or the path */
    uint64_t unix_dev, unix_ino; /* of the socket file we made */

    /* The lock is held for a moment by each new TLS connection, and by a reload. */
    pthread_mutex_t tls_lock;
    struct ssl_ctx_st *tls; /* under tls_lock; NULL: no TLS */

    _Atomic uint32_t connections; /* open now, those on their way to a loop included */
    _Atomic uint64_t accepted, refused;
};

/* Bytes through a listener, per loop: the loop's thread writes (relaxed), metrics read. */
struct listener_counters {
    _Atomic uint64_t bytes_received, bytes_sent;
};

/* The port it is bound to; 0: a Unix socket. */
uint16_t listener_port(const struct listener *listener);
/* "mqtt", "tls", "ws", "wss", "unix": its word of the `ready` line and in metrics. */
const char *listener_kind(const struct listener *listener);

/* Opens all of node->config, registers the part of a reload that reads certificates, keys,
 * authorities and CRLs again (for connections that come from then on), and fills node->listeners,
 * node->mqtt_address (the first that speaks plain MQTT over TCP, else "none"). On failure nothing
 * stays open. The message names the listener, its line, and what is wrong. */
CHR_MUST_USE chr_err listeners_open(struct broker_node *node, struct chr_errmsg *msg);
/* Nobody else comes in; socket files go. Accepts a node without listeners. */
void listeners_close(struct broker_node *node);
/* TLS for a new connection. Loops. NULL: out of memory. */
struct ssl_st *listener_tls_new(struct listener *listener);
/* When no connection is left. */
void listeners_free(struct broker_node *node);

/* What holds for its clients: its own setting or the node's. */
uint32_t listener_max_packet_size(const struct listener *listener,
                                  const struct broker_config *config);
uint16_t listener_topic_alias_maximum(const struct listener *listener,
                                      const struct broker_config *config);
bool listener_allows_anonymous(const struct listener *listener, const struct broker_config *config);

#endif
