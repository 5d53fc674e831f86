/* broker/net/ask.h: a question to loops, for whose answers another thread waits.
 *
 *     worker: ask_init ─▶ ask_expect, loop_post (per loop) ─▶ ask_wait ─▶ looks at the answers ─▶
 *             ask_unref
 *     loop:   run(letter) … ask_answered
 *
 * A loop never waits: it answers in the turn in which it takes the letter, or posts the letter to
 * itself again to go on in the next one. Safety:
 *   K1  What a letter gathers belongs to its loop until ask_answered, and to the worker after an
 *       ask_wait that returned CHR_OK: the lock orders the two.
 *   K2  A worker that gives up (ask_wait failed) touches no answer; ask_abandoned tells the loops,
 *       which then stop early. The last one to let go frees everything.
 *   K3  Workers end before loops are stopped, so a letter that is taken after the loop's last turn
 *       (loop_take_last_mail) is an abandoned one and looks at nothing of the loop. */
#ifndef CHR_BROKER_NET_ASK_H
#define CHR_BROKER_NET_ASK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sqlfront/sql.h"

/* The first member of a larger thing, which `free` gives back. */
struct ask {
    pthread_mutex_t lock;
    pthread_cond_t answered;
    uint32_t refs;    /* under lock: the worker, and each letter on its way */
    uint32_t waiting; /* under lock: letters not answered */
    _Atomic bool abandoned;
    void (*free)(struct ask *ask);
};

/* One reference, the caller's. */
void ask_init(struct ask *ask, void (*free)(struct ask *ask));
/* Before each letter is posted. */
void ask_expect(struct ask *ask);
/* Loop: this letter is done with; the last touch of it. */
void ask_answered(struct ask *ask);
CHR_INLINE bool ask_abandoned(struct ask *ask)
{
    return atomic_load_explicit(&ask->abandoned, memory_order_relaxed);
}
/* Worker: until all letters are answered. CHR_ECANCELLED, CHR_ETIMEDOUT: by `wait`; the answers are
 * not to be looked at then. clock: what wait->deadline_us is of. */
CHR_MUST_USE chr_err ask_wait(struct ask *ask, const struct sql_host_wait *wait,
                              const struct chr_clock *clock);
void ask_unref(struct ask *ask);

#endif
