/* broker/commands/force.h: `chronos node --force-new-cluster`: one survivor of a cluster that has
 * lost its majority for good goes on alone, as a new cluster of one.
 *
 *     start as ever ─a leader is heard─▶ refused: there is nothing to force
 *           │ none, for seconds
 *           ▼
 *     stop ─▶ all of the log is applied, whether it was committed or not ─▶ checkpoint
 *           ─▶ new cluster number, new incarnations, a new log behind it (install_fork) ─▶ start
 *
 * What can be lost: entries that only the others had, acknowledged ones among them; the survivor
 * can't know. What it never acknowledged may be there. The others, should they come back, belong to
 * another cluster: they are refused until their directories are emptied. node.meta says which log
 * the state came from, and up to which entry (R22). */
#ifndef CHR_BROKER_COMMANDS_FORCE_H
#define CHR_BROKER_COMMANDS_FORCE_H

#include "broker/config.h"

/* Before the node is started. Blocks for the time in which a leader would be heard. 0: it was
 * done, or the node is a cluster of one already: start it. CHR_EINVAL: it is no member of a
 * cluster; CHR_EBUSY: it hears a leader, who is named; else what went wrong. */
CHR_MUST_USE chr_err force_new_cluster(const struct broker_config *config, struct chr_errmsg *msg);

#endif
