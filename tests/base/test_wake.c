/* wake.c: no wake-up is lost, time limits hold, nobody sleeps on a stale ticket. */
#include "tests/base/check.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "base/clock.h"
#include "base/ring.h"
#include "base/wake.h"

enum { TURNS = 50000 };
struct side {
    struct chr_ring *in, *out;
    struct chr_wake *mine, *other;
};

static void *wait_for_item(struct side *side)
{
    for (;;) {
        void *item = chr_ring_pop(side->in);
        if (item)
            return item;
        uint32_t ticket = chr_wake_prepare(side->mine);
        if (chr_ring_empty(side->in))
            chr_wake_wait(side->mine, ticket, -1);
        else
            chr_wake_cancel(side->mine);
    }
}

static void *answer(void *arg)
{
    struct side *side = arg;
    uint64_t sum = 0;
    for (int i = 0; i < TURNS; i++) {
        uintptr_t item = (uintptr_t)wait_for_item(side);
        sum += item;
        if (!chr_ring_push(side->out, (void *)(item + 1)))
            abort();
        chr_wake_signal(side->other);
    }
    return (void *)(uintptr_t)sum;
}

/* One lost wake-up stops this for ever: both sides sleep without a limit. */
static void ping_pong_never_stops(void **state)
{
    static struct chr_ring there, back;
    struct chr_wake wake_a, wake_b;
    assert_int_equal(chr_ring_init(&there, 4), CHR_OK);
    assert_int_equal(chr_ring_init(&back, 4), CHR_OK);
    chr_wake_init(&wake_a);
    chr_wake_init(&wake_b);
    struct side a = {&back, &there, &wake_a, &wake_b}, b = {&there, &back, &wake_b, &wake_a};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer, &b), 0);
    uint64_t sum = 0;
    for (uintptr_t i = 1; i <= TURNS; i++) {
        assert_true(chr_ring_push(&there, (void *)i));
        chr_wake_signal(&wake_b);
        assert_int_equal((uintptr_t)wait_for_item(&a), i + 1);
        sum += i;
    }
    void *theirs;
    pthread_join(thread, &theirs);
    assert_int_equal((uintptr_t)theirs, sum);
    assert_int_equal(atomic_load(&wake_a.sleepers), 0);
    assert_int_equal(atomic_load(&wake_b.sleepers), 0);
    chr_ring_free(&there);
    chr_ring_free(&back);
}

enum { PRODUCERS = 3, ITEMS = 20000 };
struct producer {
    struct chr_ring ring;
    struct chr_wake *wake;
    pthread_t thread;
};

static void *produce(void *arg)
{
    struct producer *p = arg;
    for (uintptr_t i = 1; i <= ITEMS;) {
        if (chr_ring_push(&p->ring, (void *)i))
            i++;
        chr_wake_signal(p->wake);
    }
    return NULL;
}

/* As loops and committer do it: many rings, one sleeper. */
static void one_sleeper_hears_all_producers(void **state)
{
    static struct producer producers[PRODUCERS];
    struct chr_wake wake;
    chr_wake_init(&wake);
    for (int i = 0; i < PRODUCERS; i++) {
        assert_int_equal(chr_ring_init(&producers[i].ring, 16), CHR_OK);
        producers[i].wake = &wake;
        assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    }
    uintptr_t seen[PRODUCERS] = {0};
    for (int left = PRODUCERS * ITEMS; left > 0;) {
        int before = left;
        for (int i = 0; i < PRODUCERS; i++) {
            void *item;
            while ((item = chr_ring_pop(&producers[i].ring))) {
                assert_int_equal((uintptr_t)item, ++seen[i]);
                left--;
            }
        }
        if (left == before) {
            uint32_t ticket = chr_wake_prepare(&wake);
            bool empty = true;
            for (int i = 0; i < PRODUCERS; i++)
                empty &= chr_ring_empty(&producers[i].ring);
            if (empty)
                chr_wake_wait(&wake, ticket, -1);
            else
                chr_wake_cancel(&wake);
        }
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producers[i].thread, NULL);
        chr_ring_free(&producers[i].ring);
    }
}

/* Both sides do their first half at the same moment, again and again: either the sleeper sees the
 * item, or the signal sees the sleeper. A signal that only loads `sleepers` fails here, since a
 * load may pass the store that published the item. */
enum { ROUNDS = 30000 };
struct meeting {
    struct chr_ring ring;
    struct chr_wake wake;
    cpu_set_t allowed;
    _Atomic int round_a, round_b; /* the barrier: how far each side is */
};

static void meet(_Atomic int *mine, _Atomic int *other, int round)
{
    atomic_store(mine, round);
    for (int spins = 0; atomic_load(other) < round; spins++)
        if (spins > 1000)
            sched_yield();
}

/* The scheduler likes to put two threads that talk much on one core, where they never meet. */
static void stay_on_cpu(const cpu_set_t *allowed, int nth)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, allowed) && nth-- == 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(pthread_self(), sizeof one, &one);
            return;
        }
    }
}

static void *push_and_signal(void *arg)
{
    struct meeting *m = arg;
    stay_on_cpu(&m->allowed, 1);
    for (int round = 1; round <= ROUNDS; round++) {
        meet(&m->round_b, &m->round_a, 3 * round - 2);
        /* With its line at hand the load would be quick, and the push is slow: its line is not. */
        (void)atomic_load(&m->wake.sleepers);
        meet(&m->round_b, &m->round_a, 3 * round - 1);
        if (!chr_ring_push(&m->ring, m))
            abort();
        chr_wake_signal(&m->wake);
        meet(&m->round_b, &m->round_a, 3 * round);
    }
    return NULL;
}

static void one_of_both_sees_the_other(void **state)
{
    static struct meeting m;
    assert_int_equal(chr_ring_init(&m.ring, 1), CHR_OK);
    chr_wake_init(&m.wake);
    pthread_t thread;
    assert_int_equal(pthread_getaffinity_np(pthread_self(), sizeof m.allowed, &m.allowed), 0);
    stay_on_cpu(&m.allowed, 0);
    assert_int_equal(pthread_create(&thread, NULL, push_and_signal, &m), 0);
    int lost = 0;
    for (int round = 1; round <= ROUNDS; round++) {
        meet(&m.round_a, &m.round_b, 3 * round - 2);
        (void)chr_ring_empty(&m.ring);
        meet(&m.round_a, &m.round_b, 3 * round - 1);
        for (volatile int delay = round % 16; delay > 0; delay--)
            ;
        uint32_t ticket = chr_wake_prepare(&m.wake);
        bool empty = chr_ring_empty(&m.ring);
        meet(&m.round_a, &m.round_b, 3 * round);
        lost += empty && atomic_load(&m.wake.sequence) == ticket;
        chr_wake_cancel(&m.wake);
        assert_ptr_equal(chr_ring_pop(&m.ring), &m);
    }
    pthread_join(thread, NULL);
    pthread_setaffinity_np(pthread_self(), sizeof m.allowed, &m.allowed);
    assert_int_equal(lost, 0);
    chr_ring_free(&m.ring);
}

static void time_limits_hold(void **state)
{
    struct chr_wake wake;
    chr_wake_init(&wake);
    const struct chr_clock *clock = chr_clock_system();
    int64_t before = chr_clock_mono_us(clock);
    chr_wake_wait(&wake, chr_wake_prepare(&wake), 0);
    /* A signal handler may wake us early, so only the sum of many waits is certain to end. */
    errno = EXDEV;
    while (chr_clock_mono_us(clock) - before < 20000)
        chr_wake_wait(&wake, chr_wake_prepare(&wake), 20000);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(atomic_load(&wake.sleepers), 0);
}

static void a_signal_after_prepare_is_not_slept_over(void **state)
{
    struct chr_wake wake;
    chr_wake_init(&wake);
    chr_wake_signal(&wake); /* nobody sleeps: costs and changes nothing */
    assert_int_equal(atomic_load(&wake.sequence), 0);
    uint32_t ticket = chr_wake_prepare(&wake);
    chr_wake_signal(&wake);
    chr_wake_wait(&wake, ticket, -1); /* would hang */
    assert_int_equal(atomic_load(&wake.sleepers), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ping_pong_never_stops),
        cmocka_unit_test(one_sleeper_hears_all_producers),
        cmocka_unit_test(one_of_both_sees_the_other),
        cmocka_unit_test(time_limits_hold),
        cmocka_unit_test(a_signal_after_prepare_is_not_slept_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
