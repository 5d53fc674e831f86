/* broker/commands/snapshot.c: `chronos snapshot create|restore`. */
#include <string.h>

#include "broker/commands/commands.h"

void snapshot_help(FILE *out)
{
    fputs("Usage: chronos snapshot create  --data-dir DIR --output FILE\n"
          "       chronos snapshot restore --data-dir DIR --input FILE [--force]\n\n"
          "Snapshots are not supported yet. A backup can be made of a stopped node by copying its\n"
          "data directory.\n",
          out);
}

int command_snapshot(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            snapshot_help(stdout);
            return EXIT_DONE;
        }
    }
    complain(NULL, "snapshots are not supported yet; copy the data directory of a stopped node");
    return EXIT_USAGE;
}
