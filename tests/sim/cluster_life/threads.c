/* tests/sim/cluster_life/threads.c: what the broker's threads call: to start others, to lock, to
 * sleep and to wake, to ask what time it is, to end the process.
 *
 * The linker puts these in the place of the real ones (--wrap, see wraps.txt). Inside a node they
 * are coroutines' business, outside the real ones are called. Locks are the real ones, tried: who
 * does not get one lets others go on. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/wake.h"
#include "tests/sim/cluster_life/world.h"

/* Of a function `name`: the one that stands in its place, and the one that it was. */
#define WRAPPED(type, name, ...)                                                                   \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);

WRAPPED(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)
WRAPPED(int, pthread_join, pthread_t, void **)
WRAPPED(pthread_t, pthread_self, void)
WRAPPED(int, pthread_setname_np, pthread_t, const char *)
WRAPPED(int, pthread_mutex_lock, pthread_mutex_t *)
WRAPPED(int, pthread_mutex_unlock, pthread_mutex_t *)
WRAPPED(int, pthread_cond_wait, pthread_cond_t *, pthread_mutex_t *)
WRAPPED(int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *, const struct timespec *)
WRAPPED(int, pthread_cond_signal, pthread_cond_t *)
WRAPPED(int, pthread_cond_broadcast, pthread_cond_t *)
WRAPPED(int, pthread_rwlock_rdlock, pthread_rwlock_t *)
WRAPPED(int, pthread_rwlock_wrlock, pthread_rwlock_t *)
WRAPPED(int, pthread_rwlock_unlock, pthread_rwlock_t *)
WRAPPED(void, chr_wake_wait, struct chr_wake *, uint32_t, int64_t)
WRAPPED(void, chr_wake_signal, struct chr_wake *)
WRAPPED(int, clock_gettime, clockid_t, struct timespec *)
WRAPPED(void, chr_random_bytes, void *, size_t)
WRAPPED(CHR_NORETURN void, _exit, int)
WRAPPED(CHR_NORETURN void, chr_assert_failed, const char *, const char *, int)

/* ---- Threads ----------------------------------------------------------------------------------
 */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    struct node *n = life__node();
    if (!n)
        return __real_pthread_create(thread, attr, run, arg);
    life__leave();
    *thread = (pthread_t)life__spawn(n, "thread", run, arg);
    life__enter();
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    if (!life__node())
        return __real_pthread_join(thread, result);
    struct fiber *f = (struct fiber *)thread;
    while (!life__ended(f))
        life__block(f, NEVER);
    return 0;
}

pthread_t __wrap_pthread_self(void)
{
    return life__self ? (pthread_t)life__self : __real_pthread_self();
}

int __wrap_pthread_setname_np(pthread_t thread, const char *name)
{
    if (!life__self)
        return __real_pthread_setname_np(thread, name);
    life__name(name);
    return 0;
}

/* All of them are one thread. */
void __wrap_chr_priority_set(int nice);
void __wrap_chr_priority_set(int nice)
{
    (void)nice;
}

/* ---- Locks ------------------------------------------------------------------------------------
 */

static int take(pthread_mutex_t *mutex)
{
    while (pthread_mutex_trylock(mutex))
        life__block(mutex, NEVER);
    return 0;
}

static void give(pthread_mutex_t *mutex)
{
    (void)__real_pthread_mutex_unlock(mutex);
    life__wake(mutex, true);
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (!life__node())
        return __real_pthread_mutex_lock(mutex);
    life__breathe();
    return take(mutex);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    if (!life__node())
        return __real_pthread_mutex_unlock(mutex);
    give(mutex);
    life__breathe();
    return 0;
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    if (!life__node())
        return __real_pthread_rwlock_rdlock(lock);
    life__breathe();
    while (pthread_rwlock_tryrdlock(lock))
        life__block(lock, NEVER);
    return 0;
}

int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    if (!life__node())
        return __real_pthread_rwlock_wrlock(lock);
    life__breathe();
    while (pthread_rwlock_trywrlock(lock))
        life__block(lock, NEVER);
    return 0;
}

int __wrap_pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
    if (!life__node())
        return __real_pthread_rwlock_unlock(lock);
    (void)__real_pthread_rwlock_unlock(lock);
    life__wake(lock, true);
    return 0;
}

/* ---- Waiting ----------------------------------------------------------------------------------
 */

static int cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until)
{
    give(mutex);
    life__block(cond, until);
    (void)take(mutex);
    return until != NEVER && life__world->now >= until ? ETIMEDOUT : 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    if (!life__node())
        return __real_pthread_cond_wait(cond, mutex);
    return cond_wait(cond, mutex, NEVER);
}

/* All of the broker's wait by the monotonic clock. */
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    struct node *n = life__node();
    if (!n)
        return __real_pthread_cond_timedwait(cond, mutex, until);
    int64_t local_us = until->tv_sec * INT64_C(1000000) + until->tv_nsec / 1000;
    return cond_wait(cond, mutex, life__later(n, local_us - life__mono(n)));
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    if (!life__node())
        return __real_pthread_cond_signal(cond);
    life__wake(cond, false);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    if (!life__node())
        return __real_pthread_cond_broadcast(cond);
    life__wake(cond, true);
    return 0;
}

void __wrap_chr_wake_wait(struct chr_wake *wake, uint32_t ticket, int64_t timeout_us)
{
    struct node *n = life__node();
    if (!n) {
        __real_chr_wake_wait(wake, ticket, timeout_us);
        return;
    }
    if (timeout_us != 0 && atomic_load(&wake->sequence) == ticket)
        life__block(wake, timeout_us < 0 ? NEVER : life__later(n, timeout_us));
    chr_wake_cancel(wake);
}

void __wrap_chr_wake_signal(struct chr_wake *wake)
{
    if (!life__world) {
        __real_chr_wake_signal(wake);
        return;
    }
    if (atomic_load(&wake->sleepers) == 0)
        return;
    atomic_fetch_add(&wake->sequence, 1);
    life__wake(wake, true);
}

/* ---- Time, chance, death ----------------------------------------------------------------------
 */

int __wrap_clock_gettime(clockid_t id, struct timespec *out)
{
    struct node *n = life__node();
    if (!n)
        return __real_clock_gettime(id, out);
    int64_t us = id == CLOCK_REALTIME ? life__wall(n) : life__mono(n);
    out->tv_sec = us / 1000000;
    out->tv_nsec = us % 1000000 * 1000;
    return 0;
}

void __wrap_chr_random_bytes(void *out, size_t len)
{
    for (size_t i = 0; i < len; i++) /* outside of a history: the seed of hashes, for all of them */
        ((uint8_t *)out)[i] = life__world ? (uint8_t)below(life__world, 256) : (uint8_t)i;
}

void __wrap__exit(int status)
{
    if (!life__node())
        __real__exit(status);
    life__leave();
    life__world->report->in_doubt++;
    life__process_ends(50000 + (int64_t)below(life__world, 300000));
}

/* The log is silent: nodes that end say much of it. */
void __wrap_chr_assert_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: condition=\"%s\"\n", file, line, condition);
    abort();
}
