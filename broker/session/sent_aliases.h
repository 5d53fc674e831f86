/* broker/session/sent_aliases.h: topics that a connection's client has been told a number for
 * (3.3.2.3.4): the aliases we send, as session.h's topic_aliases are those the client sends.
 *
 * Of a connection, not of a session: gone when the connection is [MQTT-3.3.2-7]. Only for clients
 * that gave a Topic Alias Maximum [MQTT-3.1.2-26, -27], and made when the first message is sent.
 *
 * Replacement is a clock with a single look: a topic that finds all aliases taken looks at the one
 * under the hand. If that was used since the hand last came by it stays, and the message goes
 * without an alias; else the topic takes it over. So a message costs one look-up and at most one
 * replacement, and a client that sees more topics than it takes aliases keeps those it sees often.
 *
 * Bounded: `max` topics of at most SENT_ALIAS_TOPIC_BYTES_MAX. Out of memory: no alias, no error.
 * Loop thread of the session. */
#ifndef CHR_BROKER_SESSION_SENT_ALIASES_H
#define CHR_BROKER_SESSION_SENT_ALIASES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* The property takes 3 bytes: a topic that is not longer saves nothing. */
#define SENT_ALIAS_BYTES 3u
/* Longer topics go without, so that the memory is bounded. */
#define SENT_ALIAS_TOPIC_BYTES_MAX 1024u

struct sent_aliases;

/* max: > 0. NULL: no memory. */
struct sent_aliases *sent_aliases_new(uint16_t max);
void sent_aliases_free(struct sent_aliases *aliases); /* accepts NULL */

struct sent_alias {
    uint16_t alias; /* 0: none */
    bool known;     /* the client knows it: the topic need not be sent */
    uint64_t hash;  /* of the topic */
};

/* The alias a message to this topic would go with. One that is not known yet becomes so by
 * sent_aliases_bind, with the message that names both. */
struct sent_alias sent_aliases_find(struct sent_aliases *aliases, chr_slice topic);
/* topic is copied. False: no memory, nothing has changed: it must not be sent. */
bool sent_aliases_bind(struct sent_aliases *aliases, struct sent_alias alias, chr_slice topic);

#endif
