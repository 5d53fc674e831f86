/* sqlfront/cli/connection.h: one MQTT 5 connection that asks SQL and takes answers (paho).
 *
 *     publish  $chronos/sql   Response Topic $chronos/result/<token>, Correlation Data, format
 *     receive  $chronos/result/<token>                 1..n parts, the last one marked
 *     publish  $chronos/cancel                         with the request's Correlation Data
 *
 * One request at a time. paho's threads fill a short queue of parts; when it is full they wait, so
 * the socket is not read and the node holds the answer back: a slow pager costs nobody memory. The
 * main thread waits on descriptors only, so an interrupt or a stop is seen at once. */
#ifndef CHR_SQLFRONT_CLI_CONNECTION_H
#define CHR_SQLFRONT_CLI_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "sqlfront/cli/answer.h"
#include "sqlfront/cli/cli.h"
#include "sqlfront/sql.h"

struct cli_connection; /* opaque */

/* Connects and subscribes to its answers. options: borrowed until cli_disconnect. CHR_ECLOSED with
 * a sentence. */
CHR_MUST_USE chr_err cli_connect(const struct cli_options *options, struct cli_connection **out,
                                 struct chr_errmsg *msg);
void cli_disconnect(struct cli_connection *connection); /* accepts NULL */
bool cli_connected(const struct cli_connection *connection);

/* Sends a request. CHR_ETOOBIG: larger than a packet the node takes; CHR_ECLOSED: not connected. */
CHR_MUST_USE chr_err cli_ask(struct cli_connection *connection, chr_slice statement,
                             const struct cli_print *print);
/* Asks the node to end the request that runs; its answer (57014) still comes. */
void cli_cancel(struct cli_connection *connection);

struct cli_part {
    chr_slice bytes; /* of `owned` */
    bool first, last;
    bool error;  /* the node says that it holds an error */
    void *owned; /* to cli_part_free */
};
enum cli_event {
    CLI_PART,
    CLI_REFUSED, /* the node did not take the request: *refusal says why */
    CLI_LOST,    /* the connection is gone */
    CLI_INTERRUPT,
    CLI_STOP, /* options->stop_fd */
    CLI_TIMEOUT,
};
/* Waits for the next thing to happen to the request. timeout_ms -1: for ever. */
enum cli_event cli_wait(struct cli_connection *connection, int timeout_ms, struct cli_part *part,
                        struct chr_errmsg *refusal);
void cli_part_free(struct cli_part *part);

#endif
