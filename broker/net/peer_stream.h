/* broker/net/peer_stream.h: the TLS of a connection that turned out to be a peer's, for its lane.
 */
#ifndef CHR_BROKER_NET_PEER_STREAM_H
#define CHR_BROKER_NET_PEER_STREAM_H

#include <stdbool.h>

#include "bridge/peers.h"

struct conn;

/* May a peer come over what lies between the connection and its client? Nothing, or TLS alone. */
bool peer_stream_possible(const struct conn *conn);
/* Takes the TLS out of conn->transport, to go on over fd, a copy of the connection's. ctx NULL:
 * there was none: plain. */
struct peers_stream peer_stream_take(struct conn *conn, int fd);

#endif
