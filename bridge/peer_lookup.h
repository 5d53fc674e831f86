/* bridge/peer_lookup.h: host names to addresses, without making anybody wait.
 *
 * getaddrinfo has no timeout of its own and takes as long as the resolver likes, so it runs in a
 * thread that nobody joins; whoever asked looks from time to time, and may have forgotten about it
 * when the answer comes. Written addresses need no thread. */
#ifndef CHR_BRIDGE_PEER_LOOKUP_H
#define CHR_BRIDGE_PEER_LOOKUP_H

#include <stdbool.h>

struct link_lookup; /* opaque */

/* Is it an address as it stands? */
bool peer_address_literal(const char *host);
/* NULL: out of memory or threads. */
struct link_lookup *peer_lookup_begin(const char *host);
/* One thread. Still under way? */
bool peer_lookup_pending(const struct link_lookup *lookup);
/* Not pending: the next address in turn, or NULL when there is none (any more): then look up again.
 * Valid until forgotten. */
const char *peer_lookup_next(struct link_lookup *lookup);
void peer_lookup_forget(struct link_lookup *lookup); /* accepts NULL */

#endif
