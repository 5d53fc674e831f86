/* sqlfront/cli/shell.h: one run of the client: what prompt and scripts share. */
#ifndef CHR_SQLFRONT_CLI_SHELL_H
#define CHR_SQLFRONT_CLI_SHELL_H

#include <stdbool.h>

#include "base/buf.h"
#include "sqlfront/cli/answer.h"
#include "sqlfront/cli/cli.h"
#include "sqlfront/cli/connection.h"

/* A statement longer than this is no statement (the node takes 4 MiB). */
#define SHELL_STATEMENT_BYTES_MAX (64u << 20)

enum shell_result {
    SHELL_OK,
    SHELL_FAILED,      /* the statement; told on stderr */
    SHELL_INTERRUPTED, /* Ctrl-C; the statement was cancelled */
    SHELL_LOST,        /* no connection; told on stderr */
    SHELL_QUIT,        /* \q, or stop_fd */
};

struct cli_shell {
    const struct cli_options *options;
    struct cli_connection *connection; /* NULL: lost; shell_execute tries again */
    struct cli_print print;
    bool interactive; /* a prompt: reconnect, tell more */
    bool point;       /* errors with their place in the statement: stderr is a terminal */
    bool timing;
    struct chr_buf last; /* the last statement, for \watch */
    int status;          /* exit status so far */
};

/* Runs one statement and prints its answer. */
enum shell_result shell_execute(struct cli_shell *shell, chr_slice statement);
/* Runs all statements of a text, a last one without `;` too. Stops early for SHELL_INTERRUPTED,
 * SHELL_LOST, SHELL_QUIT, and for SHELL_FAILED with stop_on_error. */
enum shell_result shell_script(struct cli_shell *shell, chr_slice text);
/* The same for what can be read from fd, statement by statement as it comes. */
enum shell_result shell_stream(struct cli_shell *shell, int fd, const char *name);
/* The prompt, until \q or end of input. */
void shell_prompt(struct cli_shell *shell);
/* A line that begins with a backslash (or help, quit, exit). buffer: what was typed of a statement
 * before it. */
enum shell_result shell_meta(struct cli_shell *shell, chr_slice line, chr_slice buffer);

/* Nothing but blanks, semicolons and comments? */
bool shell_is_blank(chr_slice text);

#endif
