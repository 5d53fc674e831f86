/* broker/commands/serve.h: a node in the foreground, for `single-node` and `node`. */
#ifndef CHR_BROKER_COMMANDS_SERVE_H
#define CHR_BROKER_COMMANDS_SERVE_H

#include <stdbool.h>

struct settings;

/* Starts it, prints the ready line, waits for the signal that ends it, stops it. cluster: the
 * settings of `chronos node` are allowed in a reload. Returns the exit status. */
int serve(const struct settings *settings, bool cluster, int argc, char **argv);

#endif
