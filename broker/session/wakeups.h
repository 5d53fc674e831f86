/* broker/session/wakeups.h: what the applier tells the loops: queues of durable sessions that grew,
 * wills that fell due, sessions that another node has taken or that were closed under us.
 *
 *     applier ─ wakeups_applied ─▶ lists of the owning loop ─(mail)─▶ session_pump, will_due,
 *                                                                     session__check_lost
 *
 * One lock, held by the applier for one look-up per session an entry woke (none for entries of rows
 * alone), by a loop when a session becomes durable or ends, and once per letter. A session is
 * listed at most once until its loop has looked, so the lists are bounded by the sessions; a due
 * will has one place, bounded by wills. The loop reads the queue after it took the list, so what
 * was applied before is seen. Lock order: the database's of durable.h, this lock, then a loop's
 * mail lock.
 *
 * In a cluster every node sees every will fall due, and one of them is to publish it: the one its
 * client was connected by, the leader when that is known to be down. So that none is forgotten
 * (nodes die between the two), whoever leads looks from time to time for wills that have been due
 * for a while and publishes those too; the guard sees to it that each is published once (M5). */
#ifndef CHR_BROKER_SESSION_WAKEUPS_H
#define CHR_BROKER_SESSION_WAKEUPS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "db/db.h"

struct broker_loop;
struct broker_node;
struct db_due_will;
struct session;
struct wakeups;

/* Which of the nodes of a cluster this is. */
struct wakeups_cluster {
    uint64_t self, boot;
    bool (*leads)(void *ctx); /* any thread, must not block */
    void *ctx;
};
/* cluster: copied; NULL: a node alone. */
CHR_MUST_USE chr_err wakeups_new(uint32_t loops, const struct wakeups_cluster *cluster,
                                 struct wakeups **out);
void wakeups_free(struct wakeups *wakeups); /* accepts NULL */

/* Applier thread, after each entry that woke a session, moved one or made a will due. */
void wakeups_applied(struct wakeups *wakeups, const struct db_apply_result *result);
/* The same for a will found at the start. Any thread. */
void wakeups_will(struct wakeups *wakeups, const struct db_due_will *will);
/* One thread, once a second, while this node leads: wills that were due at the last call as well
 * are published by us. again false: nothing was seen before. */
void wakeups_wills_look(struct wakeups *wakeups, db *db, bool again);

/* Loop's thread: from now on letters come, and those who have waited; until loop_end. */
void wakeups_loop_start(struct wakeups *wakeups, struct broker_loop *loop);
void wakeups_loop_end(struct wakeups *wakeups, struct broker_loop *loop); /* accepts NULL */
/* Loop's thread: the session is known to the log by session->epoch. CHR_ENOMEM: its queue is looked
 * at once a second (session_loop_second) instead. */
CHR_MUST_USE chr_err wakeups_add(struct wakeups *wakeups, const struct session *session);
/* It ends, or begins anew under another epoch. */
void wakeups_remove(struct wakeups *wakeups, const struct session *session);

#endif
