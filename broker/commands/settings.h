/* broker/commands/settings.h: the settings of a node: file, environment and flags into a
 * broker_config, checked as a whole. */
#ifndef CHR_BROKER_COMMANDS_SETTINGS_H
#define CHR_BROKER_COMMANDS_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/config.h"
#include "broker/options.h"

struct settings {
    struct broker_config config;
    const char *config_file; /* NULL: none */
    bool test_config;
    bool help;
    const char *sync_target;
    uint32_t sync_interval_s;
    uint16_t port; /* 0: not said; with bind_address another way to say address */
    const char *bind_address;
    bool per_listener_settings; /* security keys in a listener's block are that listener's */
    struct options options;     /* owns the strings of all */
};

/* Defaults, then file, environment and flags. argv[0] is the first argument after the command.
 * cluster: the flags of `chronos node` are allowed. CHR_EINVAL with a sentence. Free it in any
 * case. With help set nothing else was looked at. */
CHR_MUST_USE chr_err settings_load(struct settings *settings, bool cluster, int argc, char **argv,
                                   struct chr_errmsg *msg);
/* A log line for each setting that was said and has no meaning here. */
void settings_note(const struct settings *settings);
/* Would somebody be let in by oversight, from outside and without a user? settings_load asks, and a
 * reload again: the listeners stay what they were, while the users may have gone. CHR_EINVAL */
CHR_MUST_USE chr_err settings_check_exposed(const struct settings *settings,
                                            struct chr_errmsg *msg);
/* A running node's settings after a reload: those of now, with what of fresh may change. fresh is
 * what settings_load has just made; its config becomes the result, so that both have to live as
 * long as the node. changed() hears of each setting that differs. */
void settings_take(const struct settings *now, struct settings *fresh, options_changed_fn *changed,
                   void *ctx);
/* The tables, for documents and checks. */
const struct option *settings_table(size_t *count);
void settings_free(struct settings *settings);
void settings_help(FILE *out, bool cluster);

/* Is every address the host part stands for this machine alone? "127.0.0.1:1883" yes, ":1883" no.
 */
bool settings_is_loopback(const char *address);

#endif
