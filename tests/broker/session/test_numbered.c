/* Numbered messages over a lane that loses, doubles and begins anew. */
#include "broker/session/numbered.h"
#include "tests/broker/session/kit.h"

static struct message *text(uint64_t n, uint8_t qos)
{
    char payload[24];
    snprintf(payload, sizeof payload, "%llu", (unsigned long long)n);
    return kit_message("t", payload, qos);
}

static void push(struct numbered_out *out, uint64_t n)
{
    struct message *m = text(n, 1);
    assert_int_equal(numbered_push(out, m, 7, 0, true, NULL, 0), CHR_OK);
    message_unref(m);
}

static void in_order(void **state)
{
    struct numbered_out out;
    numbered_out_init(&out, 1 << 20);
    for (uint64_t i = 1; i <= 5; i++)
        push(&out, i);
    assert_int_equal(out.unsent_number, 1);
    numbered_sent(&out);
    numbered_sent(&out);
    numbered_sent(&out);
    assert_int_equal(out.unsent_number, 4);
    assert_true(numbered_acknowledged(&out, 2));
    assert_false(numbered_acknowledged(&out, 2));
    assert_int_equal(out.first_number, 3);
    /* The connection was lost: 3 goes again. */
    assert_int_equal(numbered_rewind(&out), 1);
    assert_int_equal(out.unsent_number, 3);
    assert_int_equal(out.sent_bytes, 0);
    /* Its acknowledgement was late: it need not. */
    assert_true(numbered_acknowledged(&out, 3));
    assert_int_equal(out.unsent_number, 4);
    assert_int_equal(out.unsent->message->payload.ptr[0], '4');
    while (out.unsent)
        numbered_sent(&out);
    assert_true(numbered_acknowledged(&out, 5));
    assert_null(out.first);
    assert_int_equal(out.bytes, 0);
    push(&out, 6);
    assert_int_equal(out.unsent_number, 6);
    assert_int_equal(numbered_out_clear(&out), 1);
    push(&out, 1);
    assert_int_equal(out.unsent_number, 1); /* N1 */
    numbered_out_clear(&out);
}

static void bounded(void **state)
{
    struct numbered_out out;
    numbered_out_init(&out, 4096);
    struct message *zero = text(1, 0), *one = text(1, 1);
    uint64_t groups[] = {1, 2, 3};
    size_t zeros = 0, ones = 0;
    while (numbered_push(&out, zero, 1, 0, false, groups, 3) == CHR_OK)
        zeros++;
    assert_true(out.bytes <= 2048 && zeros > 3);
    while (numbered_push(&out, one, 1, 0, false, groups, 3) == CHR_OK)
        ones++;
    assert_true(out.bytes <= 4096 && out.bytes > 4096 - 512 && ones > 3);
    assert_int_equal(out.first->groups[2], 3);
    assert_int_equal(numbered_out_clear(&out), zeros + ones);
    message_unref(zero);
    message_unref(one);
}

static void verdicts(void **state)
{
    struct numbered_in in = {0};
    assert_int_equal(numbered_take(&in, 5, 2), NUMBERED_GAP);
    assert_int_equal(numbered_take(&in, 5, 1), NUMBERED_TAKE);
    assert_int_equal(numbered_take(&in, 5, 1), NUMBERED_HAD);
    assert_int_equal(numbered_take(&in, 5, 3), NUMBERED_GAP);
    assert_int_equal(numbered_take(&in, 5, 2), NUMBERED_TAKE);
    assert_int_equal(numbered_take(&in, 4, 3), NUMBERED_OLD);
    assert_int_equal(numbered_take(&in, 6, 1), NUMBERED_TAKE);
    assert_int_equal(in.last, 1);
    assert_int_equal(numbered_take(&in, 5, 3), NUMBERED_OLD);
}

/* What a connection carries: numbers and texts, in order; all of it may be lost. */
#define WIRE 64
struct wire {
    uint64_t number[WIRE], value[WIRE];
    uint32_t head, tail;
};

/* Everything arrives once and in order, whatever the connection does in between. */
static void lossy(void **state)
{
    struct chr_random random = kit_random();
    for (int round = 0; round < 200; round++) {
        struct numbered_out out;
        struct numbered_in in = {0};
        struct wire wire = {0};
        uint64_t pushed = 0, taken = 0, acknowledged = 0;
        numbered_out_init(&out, 1 << 20);
        while (taken < 300) {
            switch (chr_random_below(&random, 8)) {
            case 0:
            case 1:
                if (pushed < 300)
                    push(&out, ++pushed);
                break;
            case 2:
            case 3:
                if (out.unsent && wire.tail - wire.head < WIRE) {
                    char digits[24] = {0};
                    memcpy(digits, out.unsent->message->payload.ptr,
                           out.unsent->message->payload.len);
                    wire.number[wire.tail % WIRE] = out.unsent_number;
                    wire.value[wire.tail++ % WIRE] = strtoull(digits, NULL, 10);
                    numbered_sent(&out);
                }
                break;
            case 4:
            case 5:
                if (wire.head != wire.tail) {
                    uint32_t at = wire.head++ % WIRE;
                    if (numbered_take(&in, 1, wire.number[at]) == NUMBERED_TAKE)
                        assert_int_equal(wire.value[at], ++taken);
                }
                break;
            case 6: /* an acknowledgement comes, perhaps late, perhaps again */
                acknowledged = acknowledged + chr_random_below(&random, taken - acknowledged + 1);
                (void)numbered_acknowledged(&out, acknowledged);
                break;
            case 7: /* the connection ends; what was on it may still be read behind the new one's */
                if (chr_random_below(&random, 4) == 0) {
                    if (chr_random_below(&random, 2))
                        wire.head = wire.tail;
                    numbered_rewind(&out);
                }
                break;
            }
        }
        (void)numbered_acknowledged(&out, taken);
        assert_int_equal(numbered_out_clear(&out), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(bounded),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(lossy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
