#include "sqlfront/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "sqlfront/cli/interrupt.h"
#include "sqlfront/cli/shell.h"

#define STATUS_UNABLE      2
#define STATUS_INTERRUPTED 130 /* as a shell says it of a program that SIGINT ended */

void cli_options_default(struct cli_options *options)
{
    *options = (struct cli_options){
        .host = "127.0.0.1",
        .port = 1883,
        .stop_fd = -1,
        .connect_timeout_us = 10000000,
    };
}

static enum shell_result run_file(struct cli_shell *shell, const char *path)
{
    if (!strcmp(path, "-"))
        return shell_stream(shell, STDIN_FILENO, "standard input");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "chronos: can't open %s: %s\n", path, strerror(errno));
        shell->status = STATUS_UNABLE;
        return SHELL_FAILED;
    }
    enum shell_result result = shell_stream(shell, fd, path);
    close(fd);
    return result;
}

static enum shell_result run(struct cli_shell *shell)
{
    const struct cli_options *options = shell->options;
    enum shell_result result = SHELL_OK;
    for (uint32_t i = 0; i < options->statements_count; i++) {
        result = shell_script(shell, chr_slice_cstr(options->statements[i]));
        if (result > SHELL_FAILED || (result == SHELL_FAILED && options->stop_on_error))
            return result;
    }
    if (options->file)
        return run_file(shell, options->file);
    if (options->statements_count)
        return result;
    if (shell->interactive) {
        shell_prompt(shell);
        return SHELL_OK;
    }
    return shell_stream(shell, STDIN_FILENO, "standard input");
}

int cli_run(const struct cli_options *options)
{
    struct cli_shell shell = {.options = options};
    shell.print = (struct cli_print){
        .out = stdout,
        .format = options->format == SQL_FORMAT_DEFAULT ? SQL_FORMAT_TABLE : options->format,
        .no_header = options->no_header,
    };
    shell.interactive = options->own_node || (!options->statements_count && !options->file &&
                                              isatty(STDIN_FILENO) && isatty(STDOUT_FILENO));
    shell.point = isatty(STDERR_FILENO);
    chr_buf_init(&shell.last, SHELL_STATEMENT_BYTES_MAX);

    /* Threads that are started from here on must not be the ones that take Ctrl-C. */
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    pthread_sigmask(SIG_BLOCK, &interrupt, &before);
    if (!cli_interrupt_begin()) {
        fprintf(stderr, "chronos: no descriptors left\n");
        return STATUS_UNABLE;
    }
    struct chr_errmsg msg = {{0}};
    if (cli_connect(options, &shell.connection, &msg)) {
        fprintf(stderr, "chronos: %s\n", msg.text);
        shell.status = STATUS_UNABLE;
    } else if (run(&shell) == SHELL_INTERRUPTED) {
        shell.status = STATUS_INTERRUPTED;
    }
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "chronos: can't write the answer: %s\n", strerror(errno));
        shell.status = STATUS_UNABLE;
    }
    cli_disconnect(shell.connection);
    cli_interrupt_end();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    chr_buf_free(&shell.last);
    return shell.status;
}
