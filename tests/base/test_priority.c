/* tests/base/test_priority.c: a thread that waits for the others does not make them wait. */
#include <pthread.h>
#include <sys/resource.h>

#include "base/priority.h"
#include "tests/base/check.h"

static void *low(void *arg)
{
    chr_priority_set(CHR_PRIORITY_LOW);
    *(int *)arg = getpriority(PRIO_PROCESS, 0);
    return NULL;
}

static void test_of_one_thread(void **state)
{
    (void)state;
    int before = getpriority(PRIO_PROCESS, 0), seen = 0;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, low, &seen), 0);
    pthread_join(thread, NULL);
    assert_true(seen == CHR_PRIORITY_LOW || before > CHR_PRIORITY_LOW);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), before);
}

static void test_without_the_right(void **state)
{
    (void)state;
    int before = getpriority(PRIO_PROCESS, 0);
    chr_priority_set(CHR_PRIORITY_URGENT); /* root may, others stay as they are */
    int after = getpriority(PRIO_PROCESS, 0);
    assert_true(after == CHR_PRIORITY_URGENT || after == before);
    chr_priority_set(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_one_thread),
        cmocka_unit_test(test_without_the_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
