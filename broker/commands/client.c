/* broker/commands/client.c: `chronos client`: the flags of the SQL client. */
#include <locale.h>
#include <stddef.h>
#include <string.h>

#include "broker/commands/client_options.h"
#include "broker/commands/commands.h"
#include "broker/net/acceptor.h"

struct client {
    struct cli_options cli; /* first: CLIENT_OPTIONS */
    bool help;
};

chr_err client_set_leader(struct options *options, void *target, const char *value,
                          struct chr_errmsg *msg)
{
    struct cli_options *cli = target;
    char host[256];
    chr_err err = net_parse_address(value, host, sizeof host, &cli->port, msg);
    if (!err && !host[0])
        err = chr_fail(msg, CHR_EINVAL, "\"%s\" has no host", value);
    if (err)
        return err;
    cli->host = chr_arena_cstr(&options->arena, chr_slice_cstr(host));
    return cli->host ? CHR_OK : chr_fail(msg, CHR_ENOMEM, "out of memory");
}

const char *client_options_wrong(const struct cli_options *cli)
{
    return (cli->cert || cli->key || cli->insecure) && !cli->cafile
               ? "--cert, --key and --insecure are for TLS: give --cafile as well"
               : NULL;
}

static chr_err add_statement(struct options *options, void *target, const char *value,
                             struct chr_errmsg *msg)
{
    (void)options;
    struct cli_options *cli = &((struct client *)target)->cli;
    if (cli->statements_count == CLI_STATEMENTS_MAX)
        return chr_fail(msg, CHR_EINVAL, "more than %d of them; use -f", CLI_STATEMENTS_MAX);
    cli->statements[cli->statements_count++] = value;
    return CHR_OK;
}

static chr_err set_help(struct options *options, void *target, const char *value,
                        struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct client *)target)->help = true;
    return CHR_OK;
}

const struct option_choice command_formats[] = {
    {"table", SQL_FORMAT_TABLE},
    {"csv", SQL_FORMAT_CSV},
    {"json", SQL_FORMAT_JSON},
    {"ndjson", SQL_FORMAT_NDJSON},
    {NULL, 0},
};

#define CLI(field) .offset = offsetof(struct client, cli.field)

/* clang-format off: a table, one option a line or two */
static const struct option table[] = {
    CLIENT_OPTIONS,
    {OPTION_CUSTOM, "execute", NULL, 'e', true, CLI(statements), 0, 0, NULL, add_statement, "SQL",
     "run this and exit; may be given several times"},
    {OPTION_TEXT, "file", NULL, 'f', true, CLI(file), 0, 0, NULL, NULL, "FILE",
     "run the statements of a file (-: standard input) and exit"},
    {OPTION_CHOICE, "format", NULL, 0, true, CLI(format), 0, 0, command_formats, NULL, "FORM",
     "of answers: table, csv, json or ndjson (table)"},
    {OPTION_BOOL, "no-header", NULL, 0, true, CLI(no_header), 0, 0, NULL, NULL, NULL,
     "CSV without its header row"},
    {OPTION_BOOL, "stop-on-error", NULL, 0, true, CLI(stop_on_error), 0, 0, NULL, NULL, NULL,
     "don't go on after a statement that failed"},
    {OPTION_CUSTOM_FLAG, "help", NULL, 0, true, .offset = offsetof(struct client, help), 0, 0, NULL,
     set_help, NULL, "this text"},
};
/* clang-format on */

void client_help(FILE *out)
{
    struct client defaults = {0};
    cli_options_default(&defaults.cli);
    fputs("Usage: chronos client [options]\n\n"
          "SQL over MQTT: a prompt on a terminal, else the statements of standard input. Exit\n"
          "status: 0; 1 when a statement failed; 2 when it could not run.\n\n",
          out);
    options_help(out, table, CHR_COUNT_OF(table), &defaults);
}

int command_client(int argc, char **argv)
{
    struct client client = {0};
    cli_options_default(&client.cli);
    struct options options;
    struct chr_errmsg msg = {{0}};
    int status = EXIT_USAGE;
    options_init(&options, table, CHR_COUNT_OF(table), &client);
    if (options_flags(&options, argc, argv, &msg)) {
        complain("client", "%s", msg.text);
    } else if (client.help) {
        client_help(stdout);
        status = EXIT_DONE;
    } else if (client_options_wrong(&client.cli)) {
        complain("client", "%s", client_options_wrong(&client.cli));
    } else {
        (void)setlocale(LC_CTYPE, ""); /* the line editor's characters */
        status = cli_run(&client.cli);
    }
    options_free(&options);
    return status;
}
