/* broker/commands/compare.h: have two nodes the same state? (`chronos check --against`) */
#ifndef CHR_BROKER_COMMANDS_COMPARE_H
#define CHR_BROKER_COMMANDS_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

/* Compares the data directories of two nodes that do not run, table by table (db/digest.h), and
 * prints each checksum. States can be compared at the same entry alone: whoever is behind is
 * brought up to the other in memory, if its own log has the entries and they are the other's.
 * at_any_entry: compare even if that is not so. An exit status: 0 equal, 1 not, 2 it could not be
 * done. */
int compare(const char *here, const char *there, uint64_t map_bytes, bool at_any_entry);

#endif
