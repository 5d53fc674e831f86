/* broker/net/acceptor.h: the thread that takes connections from all listeners and hands them to
 * loops.
 *
 * One acceptor for all loops: each connection goes to the loop with the fewest (design 3.1; with
 * SO_REUSEPORT the kernel would put four gateways on one loop). */
#ifndef CHR_BROKER_NET_ACCEPTOR_H
#define CHR_BROKER_NET_ACCEPTOR_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"

struct broker_node;
struct acceptor;

/* Takes "HOST:PORT", "[::1]:1883", ":1883" (all addresses) apart. port_out 0 is allowed. */
CHR_MUST_USE chr_err net_parse_address(const char *address, char *host, size_t host_size,
                                       uint16_t *port, struct chr_errmsg *msg);
/* Binds and listens. bound: "127.0.0.1:1883" as the kernel says it. The error names the address
 * and, when the port is taken, says so. */
CHR_MUST_USE chr_err net_listen(const char *address, int *fd, char *bound, size_t bound_size,
                                struct chr_errmsg *msg);
/* "127.0.0.1:1883", "[::1]:1883"; a link-local address has its zone. */
void net_print_address(const struct sockaddr *address, socklen_t len, char *out, size_t size);

/* Starts the thread that accepts on node->listeners. */
CHR_MUST_USE chr_err acceptor_start(struct broker_node *node, struct acceptor **out);
void acceptor_stop(struct acceptor *acceptor); /* accepts NULL */

#endif
