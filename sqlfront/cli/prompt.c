/* sqlfront/cli/prompt.c: lines from a terminal (libedit) become statements.
 *
 * libedit reads characters through next_character(), which waits for the terminal, for Ctrl-C and
 * for the order to stop at once. Ctrl-C drops what was typed; Ctrl-D on an empty line ends. */
#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "sqlfront/cli/interrupt.h"
#include "sqlfront/cli/shell.h"

#define HISTORY_LINES 1000

struct prompt {
    struct cli_shell *shell;
    EditLine *edit;
    History *history;
    char history_path[4096]; /* "": none */
    struct chr_buf text;     /* of the statement being typed */
    bool interrupted, stopped;
};

static char *prompt_text(EditLine *edit)
{
    struct prompt *p = NULL;
    el_get(edit, EL_CLIENTDATA, &p);
    static char first[] = "chronos> ", further[] = "      -> ";
    return p->text.len ? further : first;
}

/* One character, 1; 0 at the end; -1 when something else wants us. */
static int next_character(EditLine *edit, wchar_t *out)
{
    struct prompt *p = NULL;
    el_get(edit, EL_CLIENTDATA, &p);
    mbstate_t state;
    memset(&state, 0, sizeof state);
    for (;;) {
        struct pollfd fds[3] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                {.fd = cli_interrupt_fd(), .events = POLLIN},
                                {.fd = p->shell->options->stop_fd, .events = POLLIN}};
        int n = poll(fds, 3, -1);
        p->interrupted = cli_interrupt_taken();
        p->stopped = n > 0 && (fds[2].revents & POLLIN);
        if (p->interrupted || p->stopped) {
            errno = EINTR;
            return -1;
        }
        if (n < 0)
            continue;
        char byte;
        ssize_t got = read(STDIN_FILENO, &byte, 1);
        if (got < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (got <= 0)
            return 0;
        size_t used = mbrtowc(out, &byte, 1, &state);
        if (used == (size_t)-2)
            continue; /* the rest of the character follows */
        if (used == (size_t)-1) {
            memset(&state, 0, sizeof state); /* no character in this locale: leave it out */
            continue;
        }
        return 1;
    }
}

static bool open_editor(struct prompt *p)
{
    p->edit = el_init("chronos", stdin, stdout, stderr);
    p->history = history_init();
    if (!p->edit || !p->history)
        return false;
    HistEvent event;
    history(p->history, &event, H_SETSIZE, HISTORY_LINES);
    history(p->history, &event, H_SETUNIQUE, 1);
    el_set(p->edit, EL_CLIENTDATA, p);
    el_set(p->edit, EL_PROMPT, prompt_text);
    el_set(p->edit, EL_EDITOR, "emacs");
    el_set(p->edit, EL_SIGNAL, 0);
    el_set(p->edit, EL_HIST, history, p->history);
    el_set(p->edit, EL_GETCFN, next_character);
    el_set(p->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    const char *path = getenv("CHRONOS_HISTORY"), *home = getenv("HOME");
    if (path)
        snprintf(p->history_path, sizeof p->history_path, "%s", path);
    else if (home && *home)
        snprintf(p->history_path, sizeof p->history_path, "%s/.chronos_history", home);
    if (p->history_path[0])
        history(p->history, &event, H_LOAD, p->history_path);
    return true;
}

static void close_editor(struct prompt *p)
{
    HistEvent event;
    if (p->history && p->history_path[0])
        history(p->history, &event, H_SAVE, p->history_path);
    if (p->history)
        history_end(p->history);
    if (p->edit)
        el_end(p->edit);
    chr_buf_free(&p->text);
}

/* One entry a statement; its lines joined, unless a comment would swallow what follows it. */
static void remember(struct prompt *p)
{
    HistEvent event;
    char *line = chr_slice_dup_cstr(chr_buf_slice(&p->text));
    if (!line)
        return;
    if (!strstr(line, "--"))
        for (char *c = line; *c; c++)
            if (*c == '\n')
                *c = ' ';
    size_t len = strlen(line);
    while (len && (line[len - 1] == ' ' || line[len - 1] == '\n'))
        line[--len] = 0;
    if (len) {
        history(p->history, &event, H_ENTER, line);
        /* At once: the terminal may be closed before the prompt is left. */
        if (p->history_path[0])
            history(p->history, &event, H_SAVE, p->history_path);
    }
    free(line);
}

/* A statement may be written before the answer to an older one is whole: \watch knows the last. */
static void keep_last(struct cli_shell *shell, chr_slice statement)
{
    if (shell_is_blank(statement))
        return;
    chr_buf_reset(&shell->last);
    chr_buf_add_slice(&shell->last, statement);
}

/* Runs the statements that are whole; what follows the last `;` stays. */
static enum shell_result run_typed(struct prompt *p)
{
    size_t end = sql_statement_end(chr_buf_slice(&p->text));
    if (!end)
        return SHELL_OK;
    remember(p);
    enum shell_result result = SHELL_OK;
    while (result <= SHELL_FAILED && (end = sql_statement_end(chr_buf_slice(&p->text))) > 0) {
        chr_slice statement = chr_slice_of(p->text.ptr, end);
        keep_last(p->shell, statement);
        if (!shell_is_blank(statement))
            result = shell_execute(p->shell, statement);
        chr_buf_consume(&p->text, end);
    }
    if (result > SHELL_FAILED || shell_is_blank(chr_buf_slice(&p->text)))
        chr_buf_reset(&p->text);
    return result;
}

static bool is_meta(const struct prompt *p, chr_slice line)
{
    while (line.len && (line.ptr[0] == ' ' || line.ptr[0] == '\t'))
        line = chr_slice_of(line.ptr + 1, line.len - 1);
    if (!line.len)
        return false;
    if (line.ptr[0] == '\\')
        return !p->text.len || chr_slice_starts(line, CHR_LIT("\\watch")) ||
               chr_slice_starts(line, CHR_LIT("\\q")) || chr_slice_starts(line, CHR_LIT("\\?"));
    if (p->text.len)
        return false;
    static const char *const words[] = {"help", "quit", "exit"};
    while (line.len && (line.ptr[line.len - 1] == '\n' || line.ptr[line.len - 1] == ' ' ||
                        line.ptr[line.len - 1] == ';'))
        line.len--;
    for (size_t i = 0; i < CHR_COUNT_OF(words); i++)
        if (chr_slice_eq(line, chr_slice_cstr(words[i])))
            return true;
    return false;
}

static enum shell_result take_line(struct prompt *p, chr_slice line)
{
    HistEvent event;
    if (is_meta(p, line)) {
        char *copy = chr_slice_dup_cstr(line);
        if (copy) {
            copy[strcspn(copy, "\n")] = 0;
            history(p->history, &event, H_ENTER, copy);
        }
        free(copy);
        enum shell_result result = shell_meta(p->shell, line, chr_buf_slice(&p->text));
        if (chr_slice_starts(line, CHR_LIT("\\watch")))
            chr_buf_reset(&p->text);
        return result;
    }
    if (!p->text.len && shell_is_blank(line))
        return SHELL_OK;
    chr_buf_add_slice(&p->text, line);
    if (p->text.failed) {
        fprintf(stderr, "chronos: the statement is too long\n");
        chr_buf_reset(&p->text);
        return SHELL_FAILED;
    }
    return run_typed(p);
}

void shell_prompt(struct cli_shell *shell)
{
    struct prompt p = {.shell = shell};
    chr_buf_init(&p.text, SHELL_STATEMENT_BYTES_MAX);
    shell->point = true;
    if (!open_editor(&p)) {
        fprintf(stderr, "chronos: no prompt on this terminal\n");
        close_editor(&p);
        return;
    }
    for (;;) {
        int count = 0;
        const char *line = el_gets(p.edit, &count);
        if (p.interrupted) {
            p.interrupted = false;
            fputs("^C\n", stdout);
            chr_buf_reset(&p.text);
            el_reset(p.edit);
            continue;
        }
        if (p.stopped || !line || count <= 0)
            break;
        enum shell_result result = take_line(&p, chr_slice_of(line, (size_t)count));
        if (result == SHELL_QUIT)
            break;
        fflush(stdout);
    }
    fputc('\n', stdout);
    fflush(stdout);
    close_editor(&p);
    shell->status = 0;
}
