/* sqlfront/cli/meta.c: the prompt's own commands, which begin with a backslash. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/num.h"
#include "sqlfront/cli/interrupt.h"
#include "sqlfront/cli/shell.h"

#define WATCH_S_DEFAULT 2.0
#define WATCH_S_MIN     0.05

static const char help_text[] =
    "  SELECT ...;      a statement ends with a semicolon and may take several lines\n"
    "  \\d               tables\n"
    "  \\d TABLE         columns and options of a table\n"
    "  \\x               rows as blocks of name | value (again: as tables)\n"
    "  \\timing          how long statements take (again: off)\n"
    "  \\watch [SECONDS] the last statement again and again, until Ctrl-C\n"
    "  \\kick CLIENT     ends the connection of a client (KILL CLIENT)\n"
    "  \\?               this text\n"
    "  \\q               %s\n"
    "Ctrl-C cancels a running statement or drops what was typed, Ctrl-D is \\q, Ctrl-R searches\n"
    "the history.\n";

static chr_slice trim(chr_slice s)
{
    while (s.len && (s.ptr[0] == ' ' || s.ptr[0] == '\t' || s.ptr[0] == '\n'))
        s.ptr++, s.len--;
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t' ||
                     s.ptr[s.len - 1] == '\n' || s.ptr[s.len - 1] == ';'))
        s.len--;
    return s;
}

static bool is(chr_slice s, const char *word)
{
    return chr_slice_eq(s, chr_slice_cstr(word));
}

static enum shell_result describe(struct cli_shell *shell, chr_slice table)
{
    if (!table.len)
        return shell_execute(shell, CHR_LIT("SHOW TABLES"));
    /* The name as typed: quoted or not, it means the same as in SQL. */
    struct chr_buf text;
    chr_buf_init(&text, 4096);
    chr_buf_add_cstr(&text, "DESCRIBE ");
    chr_buf_add_slice(&text, table);
    enum shell_result result = SHELL_FAILED;
    if (text.failed)
        fprintf(stderr, "chronos: the name is too long\n");
    else
        result = shell_execute(shell, chr_buf_slice(&text));
    chr_buf_free(&text);
    return result;
}

/* The client id as typed, without quotes. One with a blank or ; at an end needs KILL CLIENT. */
static enum shell_result kick(struct cli_shell *shell, chr_slice client_id)
{
    if (!client_id.len) {
        fprintf(stderr, "chronos: \\kick takes a client id; SHOW CLIENTS lists them\n");
        return SHELL_FAILED;
    }
    struct chr_buf text;
    chr_buf_init(&text, 256u << 10); /* twice the longest client id */
    chr_buf_add_cstr(&text, "KILL CLIENT '");
    for (size_t i = 0; i < client_id.len; i++) {
        if (client_id.ptr[i] == '\'')
            chr_buf_add_u8(&text, '\'');
        chr_buf_add_u8(&text, client_id.ptr[i]);
    }
    chr_buf_add_u8(&text, '\'');
    enum shell_result result = SHELL_FAILED;
    if (text.failed)
        fprintf(stderr, "chronos: the client id is too long\n");
    else
        result = shell_execute(shell, chr_buf_slice(&text));
    chr_buf_free(&text);
    return result;
}

static void set_switch(bool *state, chr_slice word, const char *name)
{
    if (is(word, "on"))
        *state = true;
    else if (is(word, "off"))
        *state = false;
    else
        *state = !*state;
    printf("%s is %s.\n", name, *state ? "on" : "off");
}

static void print_time(double every_s)
{
    time_t now = time(NULL);
    struct tm local;
    char text[64];
    localtime_r(&now, &local);
    if (strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local))
        printf("%s (every %gs)\n", text, every_s);
}

static enum shell_result watch(struct cli_shell *shell, chr_slice argument, chr_slice buffer)
{
    double every_s = WATCH_S_DEFAULT;
    if (argument.len &&
        (chr_parse_f64(argument, &every_s) != (int)argument.len || !(every_s <= 86400))) {
        fprintf(stderr, "chronos: \\watch takes a number of seconds\n");
        return SHELL_FAILED;
    }
    every_s = CHR_MAX(every_s, WATCH_S_MIN);
    if (!shell_is_blank(buffer)) {
        chr_buf_reset(&shell->last);
        chr_buf_add_slice(&shell->last, buffer);
    }
    if (!shell->last.len) {
        fprintf(stderr, "chronos: there is no statement to watch yet\n");
        return SHELL_FAILED;
    }
    for (;;) {
        print_time(every_s);
        enum shell_result result = shell_execute(shell, chr_buf_slice(&shell->last));
        if (result == SHELL_INTERRUPTED)
            return SHELL_OK;
        if (result != SHELL_OK)
            return result;
        if (cli_interrupt_sleep((int)(every_s * 1000), shell->options->stop_fd)) {
            putchar('\n');
            return SHELL_OK;
        }
    }
}

enum shell_result shell_meta(struct cli_shell *shell, chr_slice line, chr_slice buffer)
{
    line = trim(line);
    size_t len = 0;
    while (len < line.len && line.ptr[len] != ' ' && line.ptr[len] != '\t')
        len++;
    chr_slice word = chr_slice_of(line.ptr, len);
    chr_slice argument = trim(chr_slice_of(line.ptr + len, line.len - len));
    if (is(word, "\\q") || is(word, "quit") || is(word, "exit"))
        return SHELL_QUIT;
    if (is(word, "\\?") || is(word, "\\h") || is(word, "help"))
        printf(help_text, shell->options->own_node ? "stop the node" : "quit");
    else if (is(word, "\\d") || is(word, "\\dt"))
        return describe(shell, argument);
    else if (is(word, "\\kick"))
        return kick(shell, argument);
    else if (is(word, "\\x"))
        set_switch(&shell->print.expanded, argument, "Expanded display");
    else if (is(word, "\\timing"))
        set_switch(&shell->timing, argument, "Timing");
    else if (is(word, "\\watch"))
        return watch(shell, argument, buffer);
    else
        fprintf(stderr, "chronos: unknown command %.*s; \\? lists them\n",
                (int)CHR_MIN(word.len, (size_t)32), (const char *)word.ptr);
    return SHELL_OK;
}
