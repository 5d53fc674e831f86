/* broker/session/kick.h: an operator ends a client's connection.
 *
 * The client hears DISCONNECT 0x98 (Administrative action) in 5.0; its will is published and its
 * session goes on or ends, as with any connection that the server closes. */
#ifndef CHR_BROKER_SESSION_KICK_H
#define CHR_BROKER_SESSION_KICK_H

#include "base/err.h"
#include "base/slice.h"
#include "sqlfront/sql.h"

struct broker_node;

/* Query worker; waits for the loop that has the client. client_id: borrowed. CHR_ENOTFOUND: no such
 * client is connected. CHR_ECANCELLED, CHR_ETIMEDOUT: by wait; it may be kicked yet. CHR_ENOMEM */
CHR_MUST_USE chr_err kick_client(struct broker_node *node, chr_slice client_id,
                                 const struct sql_host_wait *wait);

#endif
