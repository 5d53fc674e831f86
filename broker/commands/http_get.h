/* broker/commands/http_get.h: a GET to a node's admin port, for commands. Blocks. */
#ifndef CHR_BROKER_COMMANDS_HTTP_GET_H
#define CHR_BROKER_COMMANDS_HTTP_GET_H

#include "base/err.h"
#include "base/slice.h"

/* Calls sink(arg, bytes, msg) for the body as it comes, until it fails (its error is returned). The
 * body ends when the node closes the connection: whoever takes it has to see whether it is whole.
 *   address  "HOST:PORT"       token  sent as a bearer token; NULL or "": none
 * CHR_EACCES: 401 or 403; CHR_ENOTFOUND: 404; CHR_EPROTO: another status, or not HTTP: msg says
 * what the node said. CHR_ECLOSED: no connection. CHR_ETIMEDOUT: nothing came for ten minutes (a
 * checkpoint may come before the first byte). */
CHR_MUST_USE chr_err http_get(const char *address, const char *path, const char *token,
                              chr_err (*sink)(void *arg, chr_slice bytes, struct chr_errmsg *msg),
                              void *arg, struct chr_errmsg *msg);

#endif
