#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/array.h"

static void test_grows(void **state)
{
    (void)state;
    CHR_ARRAY(uint32_t) a = {0};
    assert_true(CHR_ARRAY_RESERVE(&a, 0));
    assert_null(a.items);
    size_t moves = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        size_t capacity = a.capacity;
        assert_true(CHR_ARRAY_RESERVE(&a, 1));
        moves += a.capacity != capacity;
        a.items[a.count++] = i;
    }
    assert_true(moves <= 8); /* 8, 16, … 1,024 */
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(a.items[i], i);
    assert_true(CHR_ARRAY_RESERVE(&a, 5000)); /* more than double at once */
    assert_true(a.capacity >= 6000);
    free(a.items);
}

static void test_too_much(void **state)
{
    (void)state;
    CHR_ARRAY(uint64_t) a = {0};
    assert_true(CHR_ARRAY_RESERVE(&a, 3));
    uint64_t *items = a.items;
    size_t capacity = a.capacity;
    a.items[0] = 7;
    assert_false(CHR_ARRAY_RESERVE(&a, SIZE_MAX / 2)); /* its bytes are no number */
    assert_ptr_equal(a.items, items);
    assert_int_equal(a.capacity, capacity);
    assert_int_equal(a.items[0], 7);
    free(a.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
