#include "sqlfront/cli/shell.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "sqlfront/cli/interrupt.h"

/* How long a cancelled statement may take to say so before we go on without it. */
#define CANCEL_MS    5000
#define READ_BYTES   65536
#define REFUSED_CODE "58000" /* system_error: the node did not take the request */

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void tell(struct cli_shell *shell, const struct sql_error *error, chr_slice statement)
{
    fflush(shell->print.out);
    cli_error_print(stderr, error, shell->point ? statement : (chr_slice){0});
    shell->status = 1;
}

static bool reconnect(struct cli_shell *shell)
{
    if (shell->connection && cli_connected(shell->connection))
        return true;
    cli_disconnect(shell->connection);
    shell->connection = NULL;
    struct chr_errmsg msg = {{0}};
    if (cli_connect(shell->options, &shell->connection, &msg) == CHR_OK)
        return true;
    fprintf(stderr, "chronos: %s\n", msg.text);
    return false;
}

/* What the connection has to say instead of an answer. */
static enum shell_result no_answer(struct cli_shell *shell, enum cli_event event,
                                   const struct chr_errmsg *why, chr_slice statement)
{
    struct sql_error error;
    if (event == CLI_REFUSED) {
        sql_error_set(&error, REFUSED_CODE, 0, "the node refused the request: %s", why->text);
        tell(shell, &error, statement);
        return SHELL_FAILED;
    }
    sql_error_set(&error, "08006", 0, "connection lost (%s); a write may have been done or not",
                  why->text);
    tell(shell, &error, statement);
    return SHELL_LOST;
}

static enum shell_result take_answer(struct cli_shell *shell, struct cli_answer *answer,
                                     chr_slice statement)
{
    bool cancelled = false, stopped = false;
    for (;;) {
        struct cli_part part = {0};
        struct chr_errmsg why = {{0}};
        enum cli_event event = cli_wait(shell->connection, cancelled ? CANCEL_MS : -1, &part, &why);
        switch (event) {
        case CLI_PART:
            cli_answer_part(answer, part.bytes, part.first, part.last, part.error);
            cli_part_free(&part);
            if (!part.last)
                continue;
            if (stopped)
                return SHELL_QUIT;
            return cancelled ? SHELL_INTERRUPTED : answer->failed ? SHELL_FAILED : SHELL_OK;
        case CLI_REFUSED:
        case CLI_LOST:
            return no_answer(shell, event, &why, statement);
        case CLI_INTERRUPT:
        case CLI_STOP:
            stopped |= event == CLI_STOP;
            if (!cancelled) {
                cancelled = true;
                cli_cancel(shell->connection);
                continue;
            }
            /* Asked twice: don't wait for the node. */
            return stopped ? SHELL_QUIT : SHELL_INTERRUPTED;
        case CLI_TIMEOUT:
            fprintf(stderr, "chronos: the node did not confirm the cancellation\n");
            return stopped ? SHELL_QUIT : SHELL_INTERRUPTED;
        }
    }
}

enum shell_result shell_execute(struct cli_shell *shell, chr_slice statement)
{
    struct sql_error error;
    /* Places in the statement are counted from its first word. */
    while (statement.len && strchr(" \t\r\n", statement.ptr[0]) && statement.ptr[0])
        statement = chr_slice_of(statement.ptr + 1, statement.len - 1);
    bool was_connected = shell->connection && cli_connected(shell->connection);
    if (!was_connected && (!shell->interactive || !reconnect(shell))) {
        if (!shell->interactive)
            fprintf(stderr, "chronos: not connected any more\n");
        shell->status = 1;
        return SHELL_LOST;
    }
    struct cli_answer answer;
    int64_t began_us = now_us();
    chr_err err = cli_ask(shell->connection, statement, &shell->print);
    if (err) {
        if (err == CHR_ETOOBIG)
            sql_error_set(&error, "54000", 0,
                          "the statement of %zu bytes is larger than the node takes",
                          statement.len);
        else
            sql_error_set(&error, "08006", 0, "connection lost");
        tell(shell, &error, statement);
        return err == CHR_ETOOBIG ? SHELL_FAILED : SHELL_LOST;
    }
    cli_answer_begin(&answer, &shell->print);
    enum shell_result result = take_answer(shell, &answer, statement);
    cli_answer_end(&answer);
    if (answer.failed)
        tell(shell, &answer.error, statement);
    if (shell->timing)
        fprintf(shell->print.out, "Time: %.3f ms\n", (double)(now_us() - began_us) / 1000);
    fflush(shell->print.out);
    return result;
}

bool shell_is_blank(chr_slice text)
{
    size_t i = 0;
    while (i < text.len) {
        uint8_t c = text.ptr[i];
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == ';') {
            i++;
        } else if (c == '-' && i + 1 < text.len && text.ptr[i + 1] == '-') {
            while (i < text.len && text.ptr[i] != '\n')
                i++;
        } else if (c == '/' && i + 1 < text.len && text.ptr[i + 1] == '*') {
            /* Comments nest, as in PostgreSQL. */
            size_t depth = 0;
            do {
                bool two = i + 1 < text.len;
                if (two && text.ptr[i] == '/' && text.ptr[i + 1] == '*') {
                    depth++;
                    i += 2;
                } else if (two && text.ptr[i] == '*' && text.ptr[i + 1] == '/') {
                    depth--;
                    i += 2;
                } else {
                    i++;
                }
            } while (depth && i < text.len);
        } else {
            return false;
        }
    }
    return true;
}

static bool ends_script(const struct cli_shell *shell, enum shell_result result)
{
    return result > SHELL_FAILED || (result == SHELL_FAILED && shell->options->stop_on_error);
}

/* Runs the complete statements at the front of text; *used: their bytes. */
static enum shell_result run_complete(struct cli_shell *shell, chr_slice text, size_t *used)
{
    enum shell_result result = SHELL_OK;
    *used = 0;
    for (size_t end; !ends_script(shell, result) && (end = sql_statement_end(text)) > 0;) {
        chr_slice statement = chr_slice_of(text.ptr, end);
        if (!shell_is_blank(statement))
            result = shell_execute(shell, statement);
        text = chr_slice_of(text.ptr + end, text.len - end);
        *used += end;
    }
    return result;
}

enum shell_result shell_script(struct cli_shell *shell, chr_slice text)
{
    size_t used = 0;
    enum shell_result result = run_complete(shell, text, &used);
    chr_slice rest = chr_slice_of(text.ptr + used, text.len - used);
    if (!ends_script(shell, result) && !shell_is_blank(rest))
        result = shell_execute(shell, rest);
    return result;
}

/* Until fd has something to read. */
static enum shell_result wait_input(struct cli_shell *shell, int fd)
{
    struct pollfd fds[3] = {{.fd = fd, .events = POLLIN},
                            {.fd = cli_interrupt_fd(), .events = POLLIN},
                            {.fd = shell->options->stop_fd, .events = POLLIN}};
    int n;
    do
        n = poll(fds, 3, -1);
    while (n < 0 && errno == EINTR && !(fds[1].revents & POLLIN));
    if (cli_interrupt_taken())
        return SHELL_INTERRUPTED;
    return fds[2].revents & POLLIN ? SHELL_QUIT : SHELL_OK;
}

enum shell_result shell_stream(struct cli_shell *shell, int fd, const char *name)
{
    struct chr_buf text;
    chr_buf_init(&text, SHELL_STATEMENT_BYTES_MAX);
    enum shell_result result = SHELL_OK;
    for (;;) {
        enum shell_result waited = wait_input(shell, fd);
        if (waited != SHELL_OK) {
            result = waited;
            break;
        }
        if (chr_buf_reserve(&text, READ_BYTES)) {
            fprintf(stderr, "chronos: %s: a statement larger than %u MiB\n", name,
                    SHELL_STATEMENT_BYTES_MAX >> 20);
            shell->status = 2;
            result = SHELL_FAILED;
            break;
        }
        ssize_t n = read(fd, text.ptr + text.len, READ_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fprintf(stderr, "chronos: can't read %s: %s\n", name, strerror(errno));
            shell->status = 2;
        }
        if (n <= 0) {
            if (!shell_is_blank(chr_buf_slice(&text)))
                result = shell_execute(shell, chr_buf_slice(&text));
            break;
        }
        text.len += (size_t)n;
        size_t used = 0;
        result = run_complete(shell, chr_buf_slice(&text), &used);
        chr_buf_consume(&text, used);
        if (ends_script(shell, result))
            break;
    }
    chr_buf_free(&text);
    return result;
}
