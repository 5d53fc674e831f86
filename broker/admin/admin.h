/* broker/admin/admin.h: the admin HTTP port (libmicrohttpd).
 *
 *     GET  /health    200 or 503, JSON: role, term, indexes, what is full
 *     GET  /metrics   Prometheus text
 *     POST /query     SQL in the body; the answer streams, as fast as the client reads it
 *     GET  /snapshot  a backup, made and sent part by part; for admins
 *     POST /ingest    readings as JSON; answered after commit. Only with enable_ingest
 *
 * One thread drives all connections (external polling: libmicrohttpd starts none). A request that
 * waits for a query or a commit is suspended and costs no thread; whoever finishes it puts it on
 * the list of the woken (admin__wake). Limits: connections, header and body sizes, idle time, and
 * the time a request may take to arrive, whatever trickles in. */
#ifndef CHR_BROKER_ADMIN_ADMIN_H
#define CHR_BROKER_ADMIN_ADMIN_H

#include "base/err.h"

struct broker_node;
struct admin; /* opaque; from admin_start, to admin_stop */

/* Binds node->config->admin_address (default: loopback, MQTT port + 1000, any free one when the
 * MQTT port was asked for as 0) and fills node->admin_address; early, so that a taken port is told
 * before the long part of a start. The node outlives it. */
CHR_MUST_USE chr_err admin_open(struct broker_node *node, struct admin **out,
                                struct chr_errmsg *msg);
/* Serves. The node must be whole. */
CHR_MUST_USE chr_err admin_start(struct admin *admin, struct chr_errmsg *msg);
/* Cancels what runs, ends the thread, closes all connections. Accepts NULL. */
void admin_stop(struct admin *admin);

#endif
