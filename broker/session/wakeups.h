/* broker/session/wakeups.h: what the applier tells the loops: queues of durable sessions that grew,
 * wills that fell due.
 *
 *     applier ─ wakeups_applied ─▶ lists of the owning loop ─(mail)─▶ session_pump, will_due
 *
 * One lock, held by the applier for one look-up per session an entry woke (none for entries of rows
 * alone), by a loop when a session becomes durable or ends, and once per letter. A session is
 * listed at most once until its loop has looked, so the lists are bounded by the sessions; a due
 * will has one place, bounded by wills. The loop reads the queue after it took the list, so what
 * was applied before is seen. Lock order: this lock, then a loop's mail lock. */
#ifndef CHR_BROKER_SESSION_WAKEUPS_H
#define CHR_BROKER_SESSION_WAKEUPS_H

#include <stdint.h>

#include "base/err.h"

struct broker_loop;
struct broker_node;
struct db_apply_result;
struct db_due_will;
struct session;
struct wakeups;

CHR_MUST_USE chr_err wakeups_new(uint32_t loops, struct wakeups **out);
void wakeups_free(struct wakeups *wakeups); /* accepts NULL */

/* Applier thread, after each entry that woke a session or made a will due. */
void wakeups_applied(struct wakeups *wakeups, const struct db_apply_result *result);
/* The same for a will found at the start. Any thread. */
void wakeups_will(struct wakeups *wakeups, const struct db_due_will *will);

/* Loop's thread: from now on letters come, and those who have waited; until loop_end. */
void wakeups_loop_start(struct wakeups *wakeups, struct broker_loop *loop);
void wakeups_loop_end(struct wakeups *wakeups, struct broker_loop *loop); /* accepts NULL */
/* Loop's thread: the session is known to the log by session->epoch. CHR_ENOMEM: its queue is looked
 * at once a second (session_loop_second) instead. */
CHR_MUST_USE chr_err wakeups_add(struct wakeups *wakeups, const struct session *session);
/* It ends, or begins anew under another epoch. */
void wakeups_remove(struct wakeups *wakeups, const struct session *session);

#endif
