/* broker/commands/commands.h: what `chronos COMMAND` runs. One file per command.
 *
 * argv[0] is the first argument after the command. Each returns the exit status: 0 done, 1 it
 * failed (a port in use, a directory that can't be opened, findings), 2 it was asked wrongly. What
 * goes wrong is one line on stderr, `chronos: ...`. */
#ifndef CHR_BROKER_COMMANDS_COMMANDS_H
#define CHR_BROKER_COMMANDS_COMMANDS_H

#include <stdio.h>

#include "base/compiler.h"
#include "broker/options.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int command_single_node(int argc, char **argv);
int command_node(int argc, char **argv);
int command_client(int argc, char **argv);
int command_cluster(int argc, char **argv);
int command_snapshot(int argc, char **argv);
int command_check(int argc, char **argv);
int command_passwd(int argc, char **argv);

void single_node_help(FILE *out);
void node_help(FILE *out);
void client_help(FILE *out);
void cluster_help(FILE *out);
void snapshot_help(FILE *out);
void check_help(FILE *out);
void passwd_help(FILE *out);

/* The forms of a --format, enum sql_format; ended by a NULL name. client.c */
extern const struct option_choice command_formats[];

/* `chronos: …` on stderr, with `try chronos COMMAND --help` below when command is given. */
void complain(const char *command, const char *format, ...) CHR_PRINTF(2, 3);

#endif
