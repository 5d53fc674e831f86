#include "bench/stalls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "bench/net.h"

#define NAP_NS     500000
#define STALLS_MAX 65536u /* more than an hour of the worst seen */

struct stall {
    uint64_t from_ns, to_ns;
};

struct stalls {
    pthread_t thread;
    atomic_bool stop;
    uint64_t count, total_ns;
    struct stall at[STALLS_MAX]; /* rising */
};

static void *watch(void *arg)
{
    struct stalls *s = arg;
    prctl(PR_SET_TIMERSLACK, 1);
    uint64_t before_ns = net_now_ns();
    while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
        uint64_t now_ns = net_now_ns();
        if (now_ns - before_ns > STALL_NS && s->count < STALLS_MAX) {
            s->at[s->count++] = (struct stall){before_ns, now_ns};
            s->total_ns += now_ns - before_ns;
        }
        before_ns = now_ns;
    }
    return NULL;
}

struct stalls *stalls_watch(void)
{
    struct stalls *s = calloc(1, sizeof *s);
    if (s && pthread_create(&s->thread, NULL, watch, s)) {
        free(s);
        return NULL;
    }
    return s;
}

void stalls_stop(struct stalls *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
}

void stalls_free(struct stalls *s)
{
    free(s);
}

bool stalls_between(const struct stalls *s, uint64_t from_ns, uint64_t to_ns)
{
    uint64_t low = 0, high = s->count; /* the first one that ends after from_ns */
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (s->at[middle].to_ns <= from_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->count && s->at[low].from_ns < to_ns;
}

uint64_t stalls_count(const struct stalls *s)
{
    return s->count;
}

uint64_t stalls_total_ns(const struct stalls *s)
{
    return s->total_ns;
}
