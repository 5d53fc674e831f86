#include "broker/net/ask.h"

#include <time.h>

/* A worker looks this often whether nobody waits for it any more. */
#define POLL_NS 20000000

void ask_init(struct ask *ask, void (*release)(struct ask *ask))
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&ask->lock, NULL);
    pthread_cond_init(&ask->answered, &attr);
    pthread_condattr_destroy(&attr);
    ask->refs = 1;
    ask->waiting = 0;
    atomic_init(&ask->abandoned, false);
    ask->free = release;
}

void ask_expect(struct ask *ask)
{
    pthread_mutex_lock(&ask->lock);
    ask->refs++;
    ask->waiting++;
    pthread_mutex_unlock(&ask->lock);
}

static void let_go(struct ask *ask, bool answered)
{
    pthread_mutex_lock(&ask->lock);
    if (answered && --ask->waiting == 0)
        pthread_cond_signal(&ask->answered);
    bool last = --ask->refs == 0;
    pthread_mutex_unlock(&ask->lock);
    if (!last)
        return;
    pthread_cond_destroy(&ask->answered);
    pthread_mutex_destroy(&ask->lock);
    ask->free(ask);
}

void ask_answered(struct ask *ask)
{
    let_go(ask, true);
}

void ask_unref(struct ask *ask)
{
    let_go(ask, false);
}

chr_err ask_wait(struct ask *ask, const struct sql_host_wait *wait, const struct chr_clock *clock)
{
    chr_err err = CHR_OK;
    pthread_mutex_lock(&ask->lock);
    while (ask->waiting) {
        if (atomic_load_explicit(wait->cancel, memory_order_relaxed))
            err = CHR_ECANCELLED;
        else if (wait->deadline_us && chr_clock_mono_us(clock) > wait->deadline_us)
            err = CHR_ETIMEDOUT;
        if (err)
            break;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += POLL_NS;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&ask->answered, &ask->lock, &until);
    }
    pthread_mutex_unlock(&ask->lock);
    if (err)
        atomic_store_explicit(&ask->abandoned, true, memory_order_relaxed);
    return err;
}
