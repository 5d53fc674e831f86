/* broker/main.c: `chronos COMMAND …`. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "broker/commands/commands.h"
#include "broker/options.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    void (*help)(FILE *out);
    const char *summary;
};

static const struct command commands[] = {
    {"single-node", command_single_node, single_node_help,
     "a node by itself; on a terminal with an SQL prompt"},
    {"node", command_node, node_help, "a member of a cluster"},
    {"client", command_client, client_help, "SQL prompt, one statement, or a script"},
    {"cluster", command_cluster, cluster_help, "who its nodes are; one more, one less"},
    {"snapshot", command_snapshot, snapshot_help, "create or restore a backup"},
    {"passwd", command_passwd, passwd_help, "users of a password file"},
    {"check", command_check, check_help,
     "verify every checksum, index and statistic of a data directory"},
};

void complain(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    /* One write, so that the line stays whole among log lines. */
    char line[1024];
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (command)
        fprintf(stderr, "chronos: %s\nTry: chronos %s --help\n", line, command);
    else
        fprintf(stderr, "chronos: %s\n", line);
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < CHR_COUNT_OF(commands); i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static void usage(FILE *out)
{
    fprintf(out,
            "chronos %s: MQTT broker and SQL database of a sensor fleet\n\n"
            "Usage: chronos COMMAND [options]\n\n",
            CHRONOS_VERSION);
    for (size_t i = 0; i < CHR_COUNT_OF(commands); i++)
        fprintf(out, "  %-13s%s\n", commands[i].name, commands[i].summary);
    fprintf(out, "  %-13s%s\n  %-13s%s\n", "help", "what a command does: chronos help COMMAND",
            "--version", "the version");
    fprintf(out, "\nTry:\n"
                 "  chronos single-node\n"
                 "  mosquitto_pub -q 1 -t sensors/esp-001/temp -m 21.5\n"
                 "  chronos client -e \"SELECT * FROM readings\"\n");
}

static int unknown_command(const char *name)
{
    const char *names[CHR_COUNT_OF(commands) + 2] = {"help"};
    for (size_t i = 0; i < CHR_COUNT_OF(commands); i++)
        names[i + 1] = commands[i].name;
    const char *near = options_nearest(name, names);
    if (near)
        complain(NULL, "unknown command %s; did you mean %s?", name, near);
    else
        complain(NULL, "unknown command %s (see chronos help)", name);
    return EXIT_USAGE;
}

/* What was printed has to have arrived: `chronos help > /dev/full` is a failure. */
static int flushed(int status)
{
    if (fflush(stdout) || ferror(stdout)) {
        complain(NULL, "can't write: %s", strerror(errno));
        return EXIT_FAILED;
    }
    return status;
}

static int help(int argc, char **argv)
{
    if (argc == 0) {
        usage(stdout);
        return EXIT_DONE;
    }
    const struct command *command = find(argv[0]);
    if (!command)
        return unknown_command(argv[0]);
    command->help(stdout);
    return EXIT_DONE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--version") || !strcmp(name, "-V") || !strcmp(name, "version")) {
        printf("chronos %s\n", CHRONOS_VERSION);
        return flushed(EXIT_DONE);
    }
    if (!strcmp(name, "--help") || !strcmp(name, "help"))
        return flushed(help(argc - 2, argv + 2));
    const struct command *command = find(name);
    if (!command)
        return unknown_command(name);
    return flushed(command->run(argc - 2, argv + 2));
}
