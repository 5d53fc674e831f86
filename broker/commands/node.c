/* broker/commands/node.c: `chronos node`: a member of a cluster. */
#include "broker/commands/commands.h"
#include "broker/commands/settings.h"

void node_help(FILE *out)
{
    fputs("Usage: chronos node --id NAME --address HOST:PORT --peers ID=HOST:PORT,... [options]\n\n"
          "A member of a cluster. A cluster of several nodes is not supported yet; see\n"
          "chronos help single-node.\n",
          out);
    settings_help(out, true);
}

int command_node(int argc, char **argv)
{
    struct settings settings;
    struct chr_errmsg msg = {{0}};
    int status = EXIT_USAGE;
    chr_err err = settings_load(&settings, true, argc, argv, &msg);
    if (err) {
        complain("node", "%s", msg.text);
    } else if (settings.help) {
        node_help(stdout);
        status = EXIT_DONE;
    } else {
        complain(NULL, "a cluster of several nodes is not supported yet; run chronos single-node");
    }
    settings_free(&settings);
    return status;
}
