/* Packet ids of QoS 2, few and many. */
#include <string.h>

#include "kit.h"

/* The twin is an array of what is held. */
static void test_incoming_ids_twin(void **state)
{
    (void)state;
    struct chr_random random = kit_random();
    static uint8_t twin[65536]; /* 1: held, 2: settled as well */
    static const uint32_t spans[] = {3, 50, 64, 65, 70, 200, 65535};
    struct incoming_ids ids = {0};
    bool listed = false, bitmapped = false;
    for (size_t k = 0; k < CHR_COUNT_OF(spans); k++) {
        uint32_t count = 0;
        memset(twin, 0, sizeof twin);
        for (unsigned n = 0; n < 20000; n++) {
            uint64_t x = chr_random_u64(&random);
            uint16_t id = (uint16_t)(1 + (x >> 16) % spans[k]);
            bool more = (n / 2000) & 1 ? (x & 3) == 0 : (x & 3) != 0; /* fills, then empties */
            if (more) {
                bool settled = x & 4;
                assert_int_equal(incoming_hold(&ids, id, settled), CHR_OK);
                count += twin[id] == 0;
                twin[id] = settled || twin[id] == 2 ? 2 : 1;
            } else {
                assert_int_equal(incoming_release(&ids, id), twin[id] != 0);
                count -= twin[id] != 0;
                twin[id] = 0;
            }
            uint16_t other = (uint16_t)(1 + (x >> 40) % spans[k]);
            assert_int_equal(incoming_held(&ids, other), twin[other] != 0);
            assert_int_equal(incoming_settled(&ids, other), twin[other] == 2);
            assert_int_equal(ids.held_count, count);
            assert_true(count > 0 || (!ids.few && !ids.bits));
            listed |= ids.few != NULL;
            bitmapped |= ids.bits != NULL;
        }
        for (uint32_t id = 1; id <= spans[k]; id++)
            assert_int_equal(incoming_release(&ids, (uint16_t)id), twin[id] != 0);
        assert_null(ids.few);
        assert_null(ids.bits);
    }
    assert_true(listed && bitmapped);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_incoming_ids_twin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
