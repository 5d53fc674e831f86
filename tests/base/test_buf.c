/* buf.c against a plain array, and its maximum. */
#include "tests/base/check.h"

#include "base/buf.h"
#include "base/bytes.h"

/* One test asks for more than there is; sanitizers take that for a mistake unless told. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void random_appends_equal_a_plain_array(void **state)
{
    struct chr_random random = test_random(2);
    static uint8_t twin[1 << 20];
    for (int life = 0; life < 200; life++) {
        size_t max = chr_random_below(&random, 20000);
        struct chr_buf buf;
        chr_buf_init(&buf, max);
        size_t len = 0;
        bool failed = false;
        for (int step = 0; step < 100; step++) {
            uint8_t piece[600];
            size_t n = 0;
            for (size_t i = 0; i < sizeof piece; i++)
                piece[i] = (uint8_t)chr_random_u64(&random);
            switch (chr_random_below(&random, 9)) {
            case 0:
                n = chr_random_below(&random, sizeof piece);
                chr_buf_add(&buf, piece, n);
                break;
            case 1:
                n = 1;
                chr_buf_add_u8(&buf, piece[0]);
                break;
            case 2:
                n = 2;
                chr_buf_add_u16le(&buf, chr_get_u16le(piece));
                break;
            case 3:
                n = 4;
                chr_buf_add_u32le(&buf, chr_get_u32le(piece));
                break;
            case 4:
                n = 8;
                chr_buf_add_u64le(&buf, chr_get_u64le(piece));
                break;
            case 5:
                n = (size_t)snprintf((char *)piece, sizeof piece, "%0*d",
                                     (int)chr_random_below(&random, 500), 7);
                chr_buf_addf(&buf, "%s", (char *)piece);
                break;
            case 6: {
                size_t align = (size_t)1 << chr_random_below(&random, 7);
                memset(piece, 0, sizeof piece);
                n = (align - len % align) % align;
                chr_buf_pad(&buf, align);
                break;
            }
            case 7: {
                size_t drop = chr_random_below(&random, len + 1);
                chr_buf_consume(&buf, drop);
                memmove(twin, twin + drop, len - drop);
                len -= drop;
                break;
            }
            default:
                if (chr_random_below(&random, 10) == 0) {
                    chr_buf_reset(&buf);
                    len = 0;
                    failed = false;
                }
            }
            if (n > 0 && (failed || len + n > max)) {
                failed = true;
            } else {
                memcpy(twin + len, piece, n);
                len += n;
            }
            assert_int_equal(buf.failed, failed);
            assert_int_equal(buf.len, len);
            assert_true(buf.capacity <= max);
            if (len)
                assert_memory_equal(buf.ptr, twin, len);
        }
        chr_buf_free(&buf);
        assert_null(buf.ptr);
    }
}

static void the_maximum_is_reachable_to_the_byte(void **state)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 10);
    chr_buf_addf(&buf, "%s", "0123456789"); /* no byte left for a zero */
    assert_false(buf.failed);
    assert_true(chr_slice_eq(chr_buf_slice(&buf), CHR_LIT("0123456789")));
    chr_buf_addf(&buf, "%s", "");
    assert_false(buf.failed);
    chr_buf_add_u8(&buf, 'x');
    assert_true(buf.failed);
    chr_buf_consume(&buf, 10);
    chr_buf_add_cstr(&buf, "y"); /* it would fit, but what was meant before it did not */
    assert_int_equal(buf.len, 0);
    chr_buf_reset(&buf);
    chr_buf_add_cstr(&buf, "y");
    assert_int_equal(buf.len, 1);
    chr_buf_free(&buf);
}

static void reserve_gives_room_or_says_why(void **state)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 1000);
    assert_int_equal(chr_buf_reserve(&buf, 1000), CHR_OK);
    memset(buf.ptr, 'a', 1000);
    buf.len = 999;
    assert_int_equal(chr_buf_reserve(&buf, 1), CHR_OK);
    assert_int_equal(chr_buf_reserve(&buf, 2), CHR_EFULL);
    assert_int_equal(chr_buf_reserve(&buf, SIZE_MAX), CHR_EFULL);
    assert_false(buf.failed);
    chr_buf_free(&buf);
    chr_buf_init(&buf, SIZE_MAX);
    assert_int_equal(chr_buf_reserve(&buf, SIZE_MAX / 2 + 2), CHR_ENOMEM);
    chr_buf_add_slice(&buf, (chr_slice){0});
    assert_int_equal(buf.len, 0);
    chr_buf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_appends_equal_a_plain_array),
        cmocka_unit_test(the_maximum_is_reachable_to_the_byte),
        cmocka_unit_test(reserve_gives_room_or_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
