/* broker/net/acceptor.h: the listening socket and the thread that hands connections to loops.
 *
 * One acceptor for all loops: each connection goes to the loop with the fewest (design 3.1; with
 * SO_REUSEPORT the kernel would put four gateways on one loop). */
#ifndef CHR_BROKER_NET_ACCEPTOR_H
#define CHR_BROKER_NET_ACCEPTOR_H

#include <stddef.h>
#include <stdint.h>

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
/* Starts accepting on node->config->address; fills node->mqtt_address. */
CHR_MUST_USE chr_err acceptor_open(struct broker_node *node, struct acceptor **out,
                                   struct chr_errmsg *msg);
CHR_MUST_USE chr_err acceptor_run(struct acceptor *acceptor); /* starts the thread */
void acceptor_close(struct acceptor *acceptor);               /* stops accepting; accepts NULL */

#endif
