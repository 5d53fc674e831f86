/* broker/commands/settings_reload.h: SIGHUP: settings are read afresh and given to a running node.
 *
 * Everything is read as at the start: the file and its include_dir, the environment, the flags. A
 * mistake anywhere, or a part that refuses (reload.h), leaves all as it was, with one error line.
 * What needs a restart keeps its value and is named in a warning. Used by one thread. */
#ifndef CHR_BROKER_COMMANDS_SETTINGS_RELOAD_H
#define CHR_BROKER_COMMANDS_SETTINGS_RELOAD_H

#include "broker/commands/settings.h"
#include "broker/node.h"

/* Reloads that changed a setting: each keeps its snapshot to the end (reload.h, L1), some 20 KiB.
 * Beyond, a reload is refused; those that change files alone are not counted. */
#define SETTINGS_RELOADS_MAX 1000

struct settings_reload {
    const struct settings *now; /* what the node runs with, also when it starts again */
    bool cluster;
    int argc;
    char **argv; /* borrowed */
    struct settings *kept[SETTINGS_RELOADS_MAX];
    unsigned kept_count;
};

/* first: what the node was started with; borrowed. */
void settings_reload_init(struct settings_reload *reload, const struct settings *first,
                          bool cluster, int argc, char **argv);
/* Says in the log what came of it. */
void settings_reload_run(struct settings_reload *reload, struct broker_node *node);
/* After node_free. */
void settings_reload_free(struct settings_reload *reload);

#endif
