/* tests/broker/net/test_slab.c: receive buffers are recycled, and never keep a large packet out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/net/slab.h"

#define MAX (4u * SLAB_BYTES)

static void test_recycled_last_used_first(void **state)
{
    (void)state;
    struct slab_pool pool;
    slab_pool_init(&pool, MAX);
    struct slab *a = slab_get(&pool, 0), *b = slab_get(&pool, 0);
    assert_int_equal(a->capacity, SLAB_BYTES);
    assert_int_equal(pool.bytes_held, 2 * SLAB_BYTES);
    slab_ref(a);
    slab_unref(a);
    a->used = 7;
    slab_unref(b);
    slab_unref(a);
    struct slab *again = slab_get(&pool, 1);
    assert_ptr_equal(again, a);
    assert_int_equal(again->used, 0);
    assert_int_equal(again->refs, 1);
    slab_unref(again);
    slab_pool_free(&pool);
    assert_int_equal(pool.bytes_held, 0);
}

static void test_limit(void **state)
{
    (void)state;
    struct slab_pool pool;
    struct slab *slabs[4];
    slab_pool_init(&pool, MAX);
    for (int i = 0; i < 4; i++)
        assert_non_null(slabs[i] = slab_get(&pool, 0));
    assert_null(slab_get(&pool, 0));
    slab_unref(slabs[3]);
    assert_non_null(slabs[3] = slab_get(&pool, 0));
    for (int i = 0; i < 4; i++)
        slab_unref(slabs[i]);
    slab_pool_free(&pool);
}

/* After a burst all memory lies in unused slabs of the standard size. */
static void test_unused_make_room_for_a_large_packet(void **state)
{
    (void)state;
    struct slab_pool pool;
    struct slab *slabs[4];
    slab_pool_init(&pool, MAX);
    for (int i = 0; i < 4; i++)
        assert_non_null(slabs[i] = slab_get(&pool, 0));
    for (int i = 1; i < 4; i++)
        slab_unref(slabs[i]);
    struct slab *large = slab_get(&pool, 2 * SLAB_BYTES + 1);
    assert_non_null(large);
    assert_true(pool.bytes_held <= MAX);
    assert_null(slab_get(&pool, 2 * SLAB_BYTES)); /* one is in use, one large */
    slab_unref(large);
    slab_unref(slabs[0]);
    assert_non_null(large = slab_get(&pool, MAX));
    slab_unref(large);
    assert_int_equal(pool.bytes_held, 0);
    assert_null(slab_get(&pool, MAX + 1));
    slab_pool_free(&pool);
}

/* What a burst took goes back; what is in use all the time stays. */
static void test_trimmed_after_a_burst(void **state)
{
    (void)state;
    struct slab_pool pool;
    struct slab *slabs[16];
    slab_pool_init(&pool, sizeof slabs / sizeof *slabs * SLAB_BYTES);
    for (int i = 0; i < 16; i++)
        assert_non_null(slabs[i] = slab_get(&pool, 0));
    for (int i = 1; i < 16; i++)
        slab_unref(slabs[i]);
    slab_pool_trim(&pool); /* they were in use since the last one */
    assert_int_equal(pool.bytes_held, 16 * SLAB_BYTES);
    slab_pool_trim(&pool);
    assert_int_equal(pool.bytes_held, 8 * SLAB_BYTES);
    for (int round = 0; round < 8; round++) { /* four of them are used again and again */
        struct slab *busy[4];
        for (int i = 0; i < 4; i++)
            busy[i] = slab_get(&pool, 0);
        for (int i = 0; i < 4; i++)
            slab_unref(busy[i]);
        slab_pool_trim(&pool);
    }
    assert_int_equal(pool.bytes_held, 5 * SLAB_BYTES);
    for (int round = 0; round < 8; round++)
        slab_pool_trim(&pool);
    assert_int_equal(pool.bytes_held, 2 * SLAB_BYTES);
    slab_unref(slabs[0]);
    slab_pool_free(&pool);
    assert_int_equal(pool.bytes_held, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recycled_last_used_first),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_unused_make_room_for_a_large_packet),
        cmocka_unit_test(test_trimmed_after_a_burst),
    };
    return cmocka_run_group_tests_name("broker/net/slab", tests, NULL, NULL);
}
