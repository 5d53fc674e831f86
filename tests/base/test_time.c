/* clock.c, hlc.h, random.c and list.h: the small ones. */
#include "tests/base/check.h"

#include <time.h>

#include "base/clock.h"
#include "base/hlc.h"
#include "base/list.h"

static void clocks_run(void **state)
{
    const struct chr_clock *clock = chr_clock_system();
    int64_t last = chr_clock_mono_us(clock);
    for (int i = 0; i < 10000; i++) {
        int64_t now = chr_clock_mono_us(clock);
        assert_true(now >= last);
        last = now;
    }
    int64_t seconds = (int64_t)time(NULL);
    int64_t wall = chr_clock_wall_us(clock) / 1000000;
    assert_true(wall >= seconds - 1 && wall <= seconds + 1);
}

static void stamps_grow_whatever_the_clock_does(void **state)
{
    struct chr_random random = test_random(8);
    chr_hlc last = 0;
    uint64_t ms = 1733857900000;
    for (int i = 0; i < 200000; i++) {
        if (chr_random_below(&random, 3) == 0)
            ms = ms + chr_random_below(&random, 50) - 25;
        chr_hlc next = chr_hlc_next(last, ms);
        assert_true(next > last);
        assert_true(chr_hlc_unix_ms(next) >= ms);
        last = next;
    }
    /* A full counter borrows from the milliseconds. */
    chr_hlc full = chr_hlc_make(5, 0xffff);
    assert_int_equal(chr_hlc_next(full, 5), chr_hlc_make(6, 0));
    assert_int_equal(chr_hlc_unix_us(chr_hlc_make(7, 9)), 7000);
}

static void splitmix_is_splitmix(void **state)
{
    /* The first outputs for seed 1234567, as published with the algorithm. */
    struct chr_random random = {1234567};
    assert_true(chr_random_u64(&random) == UINT64_C(6457827717110365317));
    assert_true(chr_random_u64(&random) == UINT64_C(3203168211198807973));
    assert_true(chr_random_u64(&random) == UINT64_C(9817491932198370423));
}

static void random_numbers_are_spread(void **state)
{
    struct chr_random random = test_random(9);
    for (uint64_t bound = 1; bound < 12; bound++) {
        uint32_t counts[12] = {0};
        for (int i = 0; i < 10000; i++) {
            uint64_t v = chr_random_below(&random, bound);
            assert_true(v < bound);
            counts[v]++;
        }
        for (uint64_t v = 0; v < bound; v++)
            assert_in_range(counts[v], 10000 / bound * 8 / 10, 10000 / bound * 12 / 10);
    }
    /* At 3/4 of 2^64 a method without rejection gives each third value twice as often. */
    uint64_t bound = UINT64_C(3) << 62;
    int thirds = 0;
    for (int i = 0; i < 10000; i++)
        thirds += chr_random_below(&random, bound) % 3 == 0;
    assert_in_range(thirds, 3100, 3570);
    double sum = 0;
    for (int i = 0; i < 10000; i++) {
        double v = chr_random_f64(&random);
        assert_true(v >= 0 && v < 1);
        sum += v;
    }
    assert_true(sum > 4800 && sum < 5200);
}

static void kernel_bytes_fill_the_whole(void **state)
{
    uint8_t seen[300] = {0}, bytes[300];
    for (int i = 0; i < 20; i++) {
        memset(bytes, 0, sizeof bytes);
        chr_random_bytes(bytes, sizeof bytes);
        for (size_t k = 0; k < sizeof bytes; k++)
            seen[k] |= bytes[k];
    }
    for (size_t k = 0; k < sizeof bytes; k++)
        assert_int_not_equal(seen[k], 0);
    chr_random_bytes(bytes, 0);
}

struct element {
    int value;
    struct chr_list link;
};

static void lists_keep_order(void **state)
{
    struct chr_list head;
    chr_list_init(&head);
    assert_true(chr_list_empty(&head));
    struct element e[5];
    for (int i = 0; i < 5; i++) {
        e[i].value = i;
        if (i % 2)
            chr_list_push_front(&head, &e[i].link);
        else
            chr_list_push_back(&head, &e[i].link);
    }
    static const int order[] = {3, 1, 0, 2, 4};
    int at = 0;
    CHR_LIST_FOR (pos, &head) {
        assert_int_equal(CHR_CONTAINER_OF(pos, struct element, link)->value, order[at]);
        at++;
    }
    assert_int_equal(at, 5);
    CHR_LIST_FOR_SAFE (pos, next, &head) {
        if (CHR_CONTAINER_OF(pos, struct element, link)->value != 0)
            chr_list_remove(pos);
    }
    assert_ptr_equal(head.next, &e[0].link);
    assert_ptr_equal(head.prev, &e[0].link);
    chr_list_remove(&e[0].link);
    chr_list_remove(&e[0].link);
    assert_true(chr_list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_run),
        cmocka_unit_test(stamps_grow_whatever_the_clock_does),
        cmocka_unit_test(splitmix_is_splitmix),
        cmocka_unit_test(random_numbers_are_spread),
        cmocka_unit_test(kernel_bytes_fill_the_whole),
        cmocka_unit_test(lists_keep_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
