/* tests/sim/test_linearizable.c: histories of which everybody can say whether they are
 * linearizable, and thousands of small ones of which a twin says it that tries every order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "base/random.h"
#include "tests/sim/linearizable.h"

#define CHECK(model, ops) linearizable_check(&(model), (ops), CHR_COUNT_OF(ops), 100000)

/* invoked, returned */
#define WRITE(from, to, value)                                                                     \
    {                                                                                              \
        .invoked = (from), .returned = (to), .kind = LINEARIZABLE_WRITE, .argument = (value)       \
    }
#define WROTE_PERHAPS(from, value)                                                                 \
    {                                                                                              \
        .invoked = (from), .unknown = true, .kind = LINEARIZABLE_WRITE, .argument = (value)        \
    }
#define READ(from, to, value)                                                                      \
    {                                                                                              \
        .invoked = (from), .returned = (to), .kind = LINEARIZABLE_READ, .result = (value)          \
    }

static void test_register(void **state)
{
    (void)state;
    assert_int_equal(linearizable_check(&linearizable_register, NULL, 0, 1), LINEARIZABLE_YES);
    /* One after the other. */
    struct linearizable_op plain[] = {READ(0, 1, 0), WRITE(2, 3, 7), READ(4, 5, 7)};
    assert_int_equal(CHECK(linearizable_register, plain), LINEARIZABLE_YES);
    struct linearizable_op stale[] = {WRITE(2, 3, 7), READ(4, 5, 0)};
    assert_int_equal(CHECK(linearizable_register, stale), LINEARIZABLE_NO);
    struct linearizable_op early[] = {READ(0, 1, 7), WRITE(2, 3, 7)};
    assert_int_equal(CHECK(linearizable_register, early), LINEARIZABLE_NO);
    struct linearizable_op never[] = {WRITE(2, 3, 7), READ(4, 5, 8)};
    assert_int_equal(CHECK(linearizable_register, never), LINEARIZABLE_NO);
    /* While it is written, both are right … */
    struct linearizable_op old[] = {WRITE(0, 9, 7), READ(1, 2, 0), READ(3, 4, 7)};
    assert_int_equal(CHECK(linearizable_register, old), LINEARIZABLE_YES);
    /* … but not back and forth, whoever asks: the anomaly that a floor for reads does not show. */
    struct linearizable_op back[] = {WRITE(0, 9, 7), READ(1, 2, 7), READ(3, 4, 0)};
    assert_int_equal(CHECK(linearizable_register, back), LINEARIZABLE_NO);
    /* Two writers at once: one of two orders, for everybody. */
    struct linearizable_op two[] = {WRITE(0, 5, 1), WRITE(0, 5, 2), READ(6, 7, 1), READ(6, 7, 1)};
    assert_int_equal(CHECK(linearizable_register, two), LINEARIZABLE_YES);
    two[3].result = 2;
    assert_int_equal(CHECK(linearizable_register, two), LINEARIZABLE_NO);
    /* The end of one and the beginning of another at the same time overlap. */
    struct linearizable_op touch[] = {WRITE(0, 5, 1), READ(5, 6, 0)};
    assert_int_equal(CHECK(linearizable_register, touch), LINEARIZABLE_YES);
    touch[1].invoked = 6;
    assert_int_equal(CHECK(linearizable_register, touch), LINEARIZABLE_NO);
}

static void test_unknown(void **state)
{
    (void)state;
    struct linearizable_op never[] = {WROTE_PERHAPS(0, 7), READ(1, 2, 0), READ(3, 4, 0)};
    assert_int_equal(CHECK(linearizable_register, never), LINEARIZABLE_YES);
    struct linearizable_op late[] = {WROTE_PERHAPS(0, 7), READ(1, 2, 0), WRITE(3, 4, 8),
                                     READ(5, 6, 8), READ(7, 8, 7)};
    assert_int_equal(CHECK(linearizable_register, late), LINEARIZABLE_YES);
    struct linearizable_op once[] = {WROTE_PERHAPS(0, 7), READ(1, 2, 7), WRITE(3, 4, 8),
                                     READ(5, 6, 7)};
    assert_int_equal(CHECK(linearizable_register, once), LINEARIZABLE_NO);
    struct linearizable_op before[] = {READ(0, 1, 7), WROTE_PERHAPS(2, 7)};
    assert_int_equal(CHECK(linearizable_register, before), LINEARIZABLE_NO);
    /* A read that never came back says nothing. */
    struct linearizable_op read[] = {WRITE(0, 1, 7), READ(2, 3, 9)};
    read[1].unknown = true;
    assert_int_equal(CHECK(linearizable_register, read), LINEARIZABLE_YES);
}

#define ADD(from, to, n)                                                                           \
    {                                                                                              \
        .invoked = (from), .returned = (to), .kind = LINEARIZABLE_ADD, .argument = (n)             \
    }
#define HAS(from, to, n, yes)                                                                      \
    {                                                                                              \
        .invoked = (from), .returned = (to), .kind = LINEARIZABLE_HAS, .argument = (n),            \
        .result = (yes)                                                                            \
    }
#define COUNT(from, to, n)                                                                         \
    {                                                                                              \
        .invoked = (from), .returned = (to), .kind = LINEARIZABLE_COUNT, .result = (n)             \
    }

static void test_set(void **state)
{
    (void)state;
    struct linearizable_op good[] = {ADD(0, 9, 1),    ADD(0, 9, 200), HAS(1, 2, 200, 1),
                                     HAS(3, 4, 1, 0), COUNT(5, 6, 1), COUNT(10, 11, 2)};
    assert_int_equal(CHECK(linearizable_set, good), LINEARIZABLE_YES);
    good[4].result = 0; /* 200 is gone again */
    assert_int_equal(CHECK(linearizable_set, good), LINEARIZABLE_NO);
    /* Two see one of two, and not the same one: no order explains that. */
    struct linearizable_op split[] = {ADD(0, 9, 1),    ADD(0, 9, 2),    HAS(1, 2, 1, 1),
                                      HAS(3, 4, 2, 0), HAS(1, 2, 2, 1), HAS(3, 4, 1, 0)};
    assert_int_equal(CHECK(linearizable_set, split), LINEARIZABLE_NO);
    struct linearizable_op lost[] = {ADD(0, 1, 5), COUNT(2, 3, 0)};
    assert_int_equal(CHECK(linearizable_set, lost), LINEARIZABLE_NO);
}

static void test_list(void **state)
{
    (void)state;
    uint64_t ab = linearizable_list_hash(linearizable_list_hash(0, 1), 2);
    uint64_t ba = linearizable_list_hash(linearizable_list_hash(0, 2), 1);
    struct linearizable_op ops[] = {
        {.invoked = 0, .returned = 5, .kind = LINEARIZABLE_APPEND, .argument = 1, .result = 0},
        {.invoked = 0, .returned = 5, .kind = LINEARIZABLE_APPEND, .argument = 2, .result = 1},
        {.invoked = 6, .returned = 7, .kind = LINEARIZABLE_SEEN, .argument = 2, .result = ab},
    };
    assert_int_equal(CHECK(linearizable_list, ops), LINEARIZABLE_YES);
    ops[2].result = ba;
    assert_int_equal(CHECK(linearizable_list, ops), LINEARIZABLE_NO);
    ops[0].unknown = ops[1].unknown = true;
    assert_int_equal(CHECK(linearizable_list, ops), LINEARIZABLE_YES);
    ops[0].unknown = false;
    ops[0].result = 1;
    assert_int_equal(CHECK(linearizable_list, ops), LINEARIZABLE_YES);
    ops[0].returned = ops[0].invoked;
    ops[1].invoked = 1; /* there was nothing before it then */
    assert_int_equal(CHECK(linearizable_list, ops), LINEARIZABLE_NO);
}

/* ---- The twin: every order --------------------------------------------------------------------
 */

static bool some_order(const struct linearizable_model *model, const struct linearizable_op *ops,
                       size_t count, uint32_t done, struct linearizable_state state)
{
    bool all = true;
    for (size_t i = 0; i < count; i++)
        all &= (done >> i & 1) || ops[i].unknown;
    if (all)
        return true;
    for (size_t i = 0; i < count; i++) {
        bool may = !(done >> i & 1);
        for (size_t j = 0; j < count; j++)
            may &= (done >> j & 1) || ops[j].unknown || ops[j].returned >= ops[i].invoked;
        struct linearizable_state after = state;
        if (may && model->does(&after, &ops[i]) &&
            some_order(model, ops, count, done | 1u << i, after))
            return true;
    }
    return false;
}

static void test_twin(void **state)
{
    (void)state;
    struct chr_random random = {.state = 3};
    uint32_t yes = 0, no = 0;
    for (int round = 0; round < 40000; round++) {
        const struct linearizable_model *model =
            round % 2 ? &linearizable_register : &linearizable_set;
        struct linearizable_op ops[7];
        size_t count = 2 + chr_random_below(&random, 6);
        for (size_t i = 0; i < count; i++) {
            int64_t from = (int64_t)chr_random_below(&random, 20);
            ops[i] = (struct linearizable_op){
                .invoked = from,
                .returned = from + (int64_t)chr_random_below(&random, 8),
                .unknown = chr_random_below(&random, 6) == 0,
                .kind = (uint32_t)chr_random_below(&random, round % 2 ? 2 : 3),
                .argument = 1 + chr_random_below(&random, 3),
                .result = chr_random_below(&random, round % 2 ? 4 : 2)};
        }
        bool right = some_order(model, ops, count, 0, (struct linearizable_state){{0}});
        assert_int_equal(linearizable_check(model, ops, count, 1000000),
                         right ? LINEARIZABLE_YES : LINEARIZABLE_NO);
        yes += right;
        no += !right;
    }
    assert_true(yes > 5000 && no > 5000);
}

/* Work is bounded; and a long history with a few clients needs little of it. */
static void test_work(void **state)
{
    (void)state;
    struct linearizable_op crowd[41];
    for (uint64_t i = 0; i < 40; i++)
        crowd[i] = (struct linearizable_op)WRITE(0, 100, i + 1);
    crowd[40] = (struct linearizable_op)READ(200, 201, 99);
    assert_int_equal(CHECK(linearizable_register, crowd), LINEARIZABLE_GAVE_UP);
    struct linearizable_op line[3000];
    for (int64_t i = 0; i < 3000; i++) {
        uint64_t value = (uint64_t)i / 3 + 1;
        line[i] = i % 3 == 0   ? (struct linearizable_op)WRITE(10 * i, 10 * i + 35, value)
                  : i % 3 == 1 ? (struct linearizable_op)READ(10 * i, 10 * i + 20, value - 1)
                               : (struct linearizable_op)READ(10 * i, 10 * i + 35, value);
    }
    assert_int_equal(CHECK(linearizable_register, line), LINEARIZABLE_YES);
    line[2999].result = 7;
    assert_int_equal(CHECK(linearizable_register, line), LINEARIZABLE_NO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register), cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_set),      cmocka_unit_test(test_list),
        cmocka_unit_test(test_twin),     cmocka_unit_test(test_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
