/* broker/session/sys.h: $SYS/broker/…, the statistics that users of Mosquitto expect, at its names.
 *
 * Loop 0 takes them from the counters of all loops every sys_interval seconds. They are retained,
 * so who subscribes hears at once, and sent only to those who have subscribed. */
#ifndef CHR_BROKER_SESSION_SYS_H
#define CHR_BROKER_SESSION_SYS_H

#include "base/err.h"

struct broker_loop;
struct sys;

CHR_MUST_USE chr_err sys_new(struct sys **out);
void sys_free(struct sys *sys); /* accepts NULL */
void sys_refresh(struct sys *sys, struct broker_loop *loop);

#endif
