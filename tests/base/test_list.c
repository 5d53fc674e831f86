/* tests/base/test_list.c: base/list.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"

static void taking_all(void **state)
{
    (void)state;
    struct chr_list from, to, nodes[3];
    chr_list_init(&from);
    chr_list_take(&to, &from);
    assert_true(chr_list_empty(&to) && chr_list_empty(&from));
    for (size_t count = 1; count <= 3; count++) {
        for (size_t i = 0; i < count; i++)
            chr_list_push_back(&from, &nodes[i]);
        chr_list_take(&to, &from);
        assert_true(chr_list_empty(&from));
        for (size_t i = 0; i < count; i++) {
            assert_ptr_equal(to.next, &nodes[i]);
            assert_ptr_equal(to.prev, &nodes[count - 1]);
            chr_list_remove(to.next);
            chr_list_push_back(&from, &nodes[i]); /* for the next round */
        }
        assert_true(chr_list_empty(&to));
        for (size_t i = 0; i < count; i++)
            chr_list_remove(&nodes[i]);
        assert_true(chr_list_empty(&from));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(taking_all)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
