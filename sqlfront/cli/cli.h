/* sqlfront/cli/cli.h: the SQL client: prompt, one-shot, script.
 *
 *     text ─▶ statements ─▶ $chronos/sql (MQTT 5 request) ─▶ parts of an answer ─▶ put together ─▶
 *     stdout; errors ─▶ stderr
 *
 * A client like any other: it talks MQTT 5 over paho and knows the server's topics, nothing of its
 * insides. Where what it is asked to run comes from: -e statements, then -f or standard input; on a
 * terminal with neither a prompt. */
#ifndef CHR_SQLFRONT_CLI_CLI_H
#define CHR_SQLFRONT_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sqlfront/sql.h"

#define CLI_STATEMENTS_MAX 256 /* -e on one command line */

struct cli_options {
    const char *host;
    uint16_t port;
    const char *user, *password;                /* NULL: none */
    const char *cafile, *cert, *key;            /* TLS with cafile; cert and key for mutual */
    bool insecure;                              /* the certificate's name is not checked */
    const char *statements[CLI_STATEMENTS_MAX]; /* -e, in order */
    uint32_t statements_count;
    const char *file;       /* -f; "-" standard input; NULL: none */
    enum sql_format format; /* DEFAULT: framed table */
    bool no_header;         /* CSV, table */
    bool stop_on_error;
    bool own_node; /* the prompt of single-node: \q stops the node */
    int stop_fd;   /* readable: the prompt ends; -1: none */
    int64_t connect_timeout_us;
};

void cli_options_default(struct cli_options *options);

/* Returns the exit status: 0; 1: a statement failed; 2: no connection, a file can't be read. SIGINT
 * cancels what runs while the prompt is open; in scripts it ends the program, after cancelling. */
int cli_run(const struct cli_options *options);

#endif
