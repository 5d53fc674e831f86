/* broker/commands/node.c: `chronos node`: a member of a cluster. */
#include "broker/commands/commands.h"
#include "broker/commands/serve.h"
#include "broker/commands/settings.h"

void node_help(FILE *out)
{
    fputs(
        "Usage: chronos node --id NAME --address HOST:PORT --peers ID=HOST:PORT,... [options]\n\n"
        "A member of a cluster of several nodes. Started for the first time, the nodes that list\n"
        "each other found the cluster once all of them are there, in whatever order they come. A\n"
        "node that comes back with an empty disk learns everything from the others before it\n"
        "votes again. Clients may connect to any node.\n",
        out);
    settings_help(out, true);
}

static int run(struct settings *settings, int argc, char **argv)
{
    const struct cluster_config *cluster = &settings->config.cluster;
    if (settings->help) {
        node_help(stdout);
        return EXIT_DONE;
    }
    if (!cluster->id) {
        complain("node", "a node of a cluster needs a name: --id NAME");
        return EXIT_USAGE;
    }
    if (cluster->heartbeat_ms * 2 > cluster->election_ms) {
        complain("node", "heartbeat-interval: at most half of election-timeout (%u ms)",
                 cluster->election_ms);
        return EXIT_USAGE;
    }
    if (settings->test_config) {
        printf("The settings are valid.\n");
        return EXIT_DONE;
    }
    return serve(settings, true, argc, argv);
}

int command_node(int argc, char **argv)
{
    struct settings settings;
    struct chr_errmsg msg = {{0}};
    int status = EXIT_USAGE;
    if (settings_load(&settings, true, argc, argv, &msg))
        complain("node", "%s", msg.text);
    else
        status = run(&settings, argc, argv);
    settings_free(&settings);
    return status;
}
