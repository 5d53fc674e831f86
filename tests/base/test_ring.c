/* ring.c: order, fullness, and two threads. */
#include "tests/base/check.h"

#include <pthread.h>
#include <sched.h>

#include "base/ring.h"

static void capacity_is_a_power_of_two(void **state)
{
    struct chr_ring ring;
    assert_int_equal(chr_ring_init(&ring, 0), CHR_EINVAL);
    assert_int_equal(chr_ring_init(&ring, 3), CHR_EINVAL);
    assert_int_equal(chr_ring_init(&ring, 12), CHR_EINVAL);
    assert_int_equal(chr_ring_init(&ring, 1), CHR_OK);
    chr_ring_free(&ring);
    chr_ring_free(&ring); /* harmless */
}

static void first_in_first_out_up_to_the_capacity(void **state)
{
    struct chr_random random = test_random(3);
    for (size_t capacity = 1; capacity <= 64; capacity *= 4) {
        struct chr_ring ring;
        assert_int_equal(chr_ring_init(&ring, capacity), CHR_OK);
        uintptr_t pushed = 0, popped = 0;
        for (int step = 0; step < 20000; step++) {
            assert_int_equal(chr_ring_empty(&ring), pushed == popped);
            if (chr_random_u64(&random) & 1) {
                bool room = pushed - popped < capacity;
                assert_int_equal(chr_ring_push(&ring, (void *)(pushed + 1)), room);
                pushed += room;
            } else {
                void *item = chr_ring_pop(&ring);
                if (pushed == popped)
                    assert_null(item);
                else
                    assert_int_equal((uintptr_t)item, ++popped);
            }
        }
        chr_ring_free(&ring);
    }
}

enum { MESSAGES = 300000 };
struct message {
    uint64_t number, check;
};
struct pair {
    struct chr_ring there, back;
    struct message pool[128];
};

/* Takes each message, checks what the other thread wrote into it, and returns it. */
static void *consume(void *arg)
{
    struct pair *pair = arg;
    uint64_t errors = 0;
    for (uint64_t expected = 0; expected < MESSAGES;) {
        struct message *m = chr_ring_pop(&pair->there);
        if (!m) {
            sched_yield();
            continue;
        }
        errors += m->number != expected || m->check != ~expected;
        expected++;
        while (!chr_ring_push(&pair->back, m))
            sched_yield();
    }
    return (void *)(uintptr_t)errors;
}

static void what_was_written_before_a_push_is_seen_after_the_pop(void **state)
{
    static struct pair pair;
    assert_int_equal(chr_ring_init(&pair.there, 64), CHR_OK);
    assert_int_equal(chr_ring_init(&pair.back, 128), CHR_OK);
    for (size_t i = 0; i < CHR_COUNT_OF(pair.pool); i++)
        assert_true(chr_ring_push(&pair.back, &pair.pool[i]));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, consume, &pair), 0);
    for (uint64_t number = 0; number < MESSAGES;) {
        struct message *m = chr_ring_pop(&pair.back);
        if (!m) {
            sched_yield();
            continue;
        }
        m->number = number;
        m->check = ~number;
        number++;
        while (!chr_ring_push(&pair.there, m))
            sched_yield();
    }
    void *errors;
    pthread_join(thread, &errors);
    assert_null(errors);
    assert_true(chr_ring_empty(&pair.there));
    chr_ring_free(&pair.there);
    chr_ring_free(&pair.back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capacity_is_a_power_of_two),
        cmocka_unit_test(first_in_first_out_up_to_the_capacity),
        cmocka_unit_test(what_was_written_before_a_push_is_seen_after_the_pop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
