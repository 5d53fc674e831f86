/* broker/commands/listener_settings.h: the listener part of the settings: `listener` lines, the
 * keys that follow them, what they have to be together.
 *
 *     allow_anonymous true          the node's
 *     certfile /etc/tls/own.pem     of the default listener (--address)
 *     listener 8883                 opens a block
 *     certfile /etc/tls/node.pem    of this listener
 *
 * The default listener exists when there are no blocks, or when its address or one of its keys is
 * set (as Mosquitto has it). */
#ifndef CHR_BROKER_COMMANDS_LISTENER_SETTINGS_H
#define CHR_BROKER_COMMANDS_LISTENER_SETTINGS_H

#include <stdio.h>

#include "broker/commands/settings.h"

/* Before options are read: config.listeners[0] is the default one. */
void listeners_begin(struct settings *settings);
/* option_set_fn of `listener` and `per-listener-settings`; target: struct settings. */
chr_err listener_open(struct options *options, void *target, const char *value,
                      struct chr_errmsg *msg);
chr_err listener_set_per_listener(struct options *options, void *target, const char *value,
                                  struct chr_errmsg *msg);
/* A number of connections; -1, as Mosquitto writes "no limit", is 0. */
CHR_MUST_USE chr_err listener_max_connections(const char *value, uint32_t *out,
                                              struct chr_errmsg *msg);
/* When all is read: drops a default listener that nobody asked for, checks each, sets
 * config.address. The message names the listener and the line of its block. */
CHR_MUST_USE chr_err listeners_finish(struct settings *settings, struct chr_errmsg *msg);
/* settings_take, of the listeners: now's and fresh's blocks have to be the same in number, order
 * and address; then keys of theirs that may change are taken. */
void listeners_take(struct settings *now, const struct settings *fresh, options_changed_fn *changed,
                    void *ctx);
const struct option *listener_table(size_t *count);
void listener_help(FILE *out);

#endif
