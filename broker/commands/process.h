/* broker/commands/process.h: what a service manager expects of a process: a pid file, another user
 * than root, word of what it is doing. Main thread, before others start or while it alone acts. */
#ifndef CHR_BROKER_COMMANDS_PROCESS_H
#define CHR_BROKER_COMMANDS_PROCESS_H

#include "base/err.h"

/* Root becomes `user` with its groups, for good; only the right to bind ports below 1024 stays.
 * Others stay who they are. As Mosquitto does, "mosquitto" means "nobody" where there is no such
 * user. One thread only may exist. */
CHR_MUST_USE chr_err process_become(const char *user, struct chr_errmsg *msg);

CHR_MUST_USE chr_err process_write_pid(const char *path, struct chr_errmsg *msg);
void process_remove_pid(const char *path); /* when it still holds our pid; accepts NULL */

/* sd_notify(3) without its library: "READY=1", sent to $NOTIFY_SOCKET; nothing where there is none.
 * Keep it short. */
void process_notify(const char *state);
/* RELOADING=1 with the time that systemd asks for beside it. */
void process_notify_reloading(void);

#endif
