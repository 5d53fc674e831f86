/* broker/auth/exchange.h: a login in several messages, SCRAM-SHA-256 (scram.h), for MQTT's enhanced
 * authentication (MQTT 5.0, 4.12).
 *
 *     exchange_begin(client-first) ─▶ server-first ─▶ exchange_finish(client-final) ─▶
 * server-final, principal
 *
 * Quick enough for a loop: the slow half of the hash is the client's. Back-off counts as for
 * passwords, and is looked at at both ends, so that many exchanges begun at once win nothing.
 *
 * A2 holds here, too: whoever is not in the password file, or not with a SCRAM entry, is sent a
 * salt that is derived from the name and from the file's first entry (so it is the same whenever
 * asked, on every node with that file, and until that entry changes), and no proof fits. */
#ifndef CHR_BROKER_AUTH_EXCHANGE_H
#define CHR_BROKER_AUTH_EXCHANGE_H

#include "broker/auth/auth.h"

#define EXCHANGE_METHOD "SCRAM-SHA-256"

struct exchange; /* opaque; belongs to one connection */

/* Whose connection it is. Borrowed. */
struct exchange_client {
    chr_slice client_id;
    const char *address;
};

/* Is there anybody who could log in by it? Any thread. */
bool exchange_offered(struct authority *authority);
/* AUTH_OK: *answer is server-first, alive as long as the exchange. AUTH_REFUSED: malformed (it was
 * logged); AUTH_BACKOFF, AUTH_NO_MEMORY. Any thread. */
enum auth_outcome exchange_begin(struct authority *authority, const struct exchange_client *client,
                                 chr_slice client_first, struct exchange **out, chr_slice *answer);
/* AUTH_OK: *answer is server-final, alive as long as the exchange; *principal: a reference, the
 * caller's. The user has to be there still, with the same entry as at the beginning. Once. */
enum auth_outcome exchange_finish(struct exchange *exchange, const struct exchange_client *client,
                                  chr_slice client_final, chr_slice *answer,
                                  struct principal **principal);
void exchange_free(struct exchange *exchange); /* accepts NULL */

#endif
