/* broker/commands/single_node.c: `chronos single-node`: a cluster of one. */
#include "broker/commands/commands.h"
#include "broker/commands/serve.h"
#include "broker/commands/settings.h"

void single_node_help(FILE *out)
{
    fputs(
        "Usage: chronos single-node [options]\n\n"
        "A node by itself: MQTT broker and SQL database. On a terminal it opens an SQL prompt;\n"
        "\\q or Ctrl-D stops the node then. It prints `ready mqtt=... admin=...` when it serves.\n"
        "Signals: SIGTERM, SIGINT stop it; SIGHUP reads the settings again; SIGUSR1 makes a\n"
        "checkpoint.\n",
        out);
    settings_help(out, false);
}

int command_single_node(int argc, char **argv)
{
    struct settings settings;
    struct chr_errmsg msg = {{0}};
    int status = EXIT_USAGE;
    if (settings_load(&settings, false, argc, argv, &msg)) {
        complain("single-node", "%s", msg.text);
    } else if (settings.help) {
        single_node_help(stdout);
        status = EXIT_DONE;
    } else if (settings.test_config) {
        printf("The settings are valid.\n");
        status = EXIT_DONE;
    } else {
        status = serve(&settings, false, argc, argv);
    }
    settings_free(&settings);
    return status;
}
