/* broker/commands/cluster.c: `chronos cluster`: who the nodes of a cluster are, one more, one less.
 *
 * A client like any other: each is one SQL statement (chronos_nodes, ALTER CLUSTER), sent to any
 * node over MQTT with the flags and the credentials of `chronos client`; which node leads is the
 * nodes' business. With --data-dir the running node of that directory is asked, as an admin: who
 * may read the directory may (broker/run_file.h). */
#include <stdio.h>
#include <string.h>

#include "broker/commands/client_options.h"
#include "broker/commands/commands.h"
#include "broker/roster.h"
#include "broker/run_file.h"

struct cluster_options {
    struct cli_options cli; /* first: CLIENT_OPTIONS */
    const char *data_dir;
    bool help;
};

static chr_err set_help(struct options *options, void *target, const char *value,
                        struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct cluster_options *)target)->help = true;
    return CHR_OK;
}

/* clang-format off: a table, one option a line or two */
static const struct option table[] = {
    CLIENT_OPTIONS,
    {OPTION_TEXT, "data-dir", NULL, 0, true, .offset = offsetof(struct cluster_options, data_dir),
     0, 0, NULL, NULL, "DIR",
     "instead: the running node that this data directory belongs to, as an admin"},
    {OPTION_CHOICE, "format", NULL, 0, true, .offset = offsetof(struct cluster_options, cli.format),
     0, 0, command_formats, NULL, "FORM", "of status: table, csv, json or ndjson (table)"},
    {OPTION_CUSTOM_FLAG, "help", NULL, 0, true, .offset = offsetof(struct cluster_options, help), 0,
     0, NULL, set_help, NULL, "this text"},
};
/* clang-format on */

struct action {
    const char *name, *takes, *what;
};
static const struct action actions[] = {
    {"status", NULL, "a row for each node"},
    {"add", "NAME=HOST:PORT", "a node joins as a learner"},
    {"promote", "NAME", "a learner that has caught up becomes a voter"},
    {"remove", "NAME", "a node belongs to the cluster no more"},
    {"transfer", "NAME", "a voter becomes the leader"},
};

#define STATUS                                                                                     \
    "SELECT node, address, role, CASE WHEN voter THEN 'voter' WHEN member THEN 'learner' "         \
    "ELSE 'no member' END AS member, term, match, lag, up, skew_ms AS skew, version "              \
    "FROM chronos_nodes ORDER BY node"

void cluster_help(FILE *out)
{
    struct cluster_options defaults = {.data_dir = NULL};
    cli_options_default(&defaults.cli);
    fputs("Usage: chronos cluster status|add|promote|remove|transfer [NAME] [options]\n\n", out);
    for (size_t i = 0; i < CHR_COUNT_OF(actions); i++)
        fprintf(out, "  %-9s%-16s%s\n", actions[i].name, actions[i].takes ? actions[i].takes : "",
                actions[i].what);
    fputs(
        "\nAny node may be asked: the leader does it. A change is answered when it is committed.\n"
        "It takes an admin. docs/operations.md shows how a cluster grows and how a node is\n"
        "replaced. Exit status: 0 done; 1 it failed; 2 it was asked wrongly, or no node "
        "answers.\n\n",
        out);
    options_help(out, table, CHR_COUNT_OF(table), &defaults);
}

/* The node of a directory, at the address and with the token that it wrote down. */
static chr_err find_node(struct cluster_options *o, struct options *options, struct run_file *run,
                         struct chr_errmsg *msg)
{
    chr_err err = run_file_read(o->data_dir, run, msg);
    if (err == CHR_ENOTFOUND)
        return chr_fail(msg, err, "no node runs on %s, or it is starting or stopping", o->data_dir);
    if (!err && !strcmp(run->mqtt, "none"))
        return chr_fail(msg, CHR_ENOTFOUND,
                        "the node of %s has no listener for plain MQTT over TCP; give --leader",
                        o->data_dir);
    if (!err)
        err = client_set_leader(options, o, run->mqtt, msg);
    o->cli.user = "token";
    o->cli.password = run->token;
    return err;
}

/* The name is sent in quotes: nothing but a name may go there. */
static bool statement(const struct action *action, const char *argument, char *out, size_t size)
{
    char name[PEER_NAME_BYTES + PEER_ADDRESS_BYTES];
    snprintf(name, sizeof name, "%s", argument);
    name[strcspn(name, "=")] = 0;
    bool address = strchr(argument, '=') != NULL;
    int n = snprintf(out, size, "ALTER CLUSTER %s '%s'", action->name, argument);
    return n > 0 && (size_t)n < size && roster_name_valid(name) && !strchr(argument, '\'') &&
           address == (strchr(action->takes, '=') != NULL);
}

static int run(const struct action *action, const char *argument, struct cluster_options *o,
               struct options *options)
{
    char text[512];
    struct run_file run_file = {.admin = ""};
    struct chr_errmsg msg = {{0}};
    if (action->takes && (!argument || !statement(action, argument, text, sizeof text))) {
        complain("cluster", "%s takes %s", action->name, action->takes);
        return EXIT_USAGE;
    }
    if (o->data_dir && find_node(o, options, &run_file, &msg)) {
        complain(NULL, "%s", msg.text);
        return EXIT_FAILED;
    }
    o->cli.statements_count = 1;
    o->cli.statements[0] = action->takes ? text : STATUS;
    if (action->takes) { /* a sentence, as it is */
        o->cli.format = SQL_FORMAT_CSV;
        o->cli.no_header = true;
    }
    int status = cli_run(&o->cli);
    explicit_bzero(&run_file, sizeof run_file);
    return status;
}

static const struct action *find_action(const char *name)
{
    for (size_t i = 0; i < CHR_COUNT_OF(actions); i++)
        if (!strcmp(actions[i].name, name))
            return &actions[i];
    return NULL;
}

int command_cluster(int argc, char **argv)
{
    struct cluster_options o = {.data_dir = NULL};
    struct options options;
    struct chr_errmsg msg = {{0}};
    const struct action *action = argc > 0 ? find_action(argv[0]) : NULL;
    int used = action ? 1 : 0;
    const char *argument = NULL;
    if (action && argc > 1 && argv[1][0] != '-') {
        argument = argv[1];
        used = 2;
    }
    int status = EXIT_USAGE;
    cli_options_default(&o.cli);
    options_init(&options, table, CHR_COUNT_OF(table), &o);
    if (options_peek(&options, argc - used, argv + used, "help")) {
        cluster_help(stdout);
        status = EXIT_DONE;
    } else if (!action) {
        complain("cluster", "status, add, promote, remove or transfer?");
    } else if (argument && !action->takes) {
        complain("cluster", "%s takes no name", action->name);
    } else if (options_flags(&options, argc - used, argv + used, &msg)) {
        complain("cluster", "%s", msg.text);
    } else if (client_options_wrong(&o.cli)) {
        complain("cluster", "%s", client_options_wrong(&o.cli));
    } else {
        status = run(action, argument, &o, &options);
    }
    options_free(&options);
    return status;
}
