/* arena.c: allocations do not overlap, keep their alignment, stop at the limit. */
#include "tests/base/check.h"

#include "base/arena.h"

static void allocations_keep_apart(void **state)
{
    struct chr_random random = test_random(1);
    struct chr_arena arena;
    chr_arena_init(&arena, 1024, 0);
    enum { COUNT = 2000 };
    static struct {
        uint8_t *ptr;
        size_t len;
    } got[COUNT];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            size_t len = chr_random_below(&random, i % 100 == 0 ? 5000 : 100);
            size_t alignment = (size_t)1 << chr_random_below(&random, 9);
            got[i].ptr = chr_arena_alloc_aligned(&arena, len, alignment);
            got[i].len = len;
            assert_non_null(got[i].ptr);
            assert_int_equal((uintptr_t)got[i].ptr % alignment, 0);
            memset(got[i].ptr, i & 0xff, len);
        }
        for (int i = 0; i < COUNT; i++)
            for (size_t k = 0; k < got[i].len; k++)
                assert_int_equal(got[i].ptr[k], i & 0xff);
        chr_arena_reset(&arena);
        /* What is given out anew is not what was there. */
        uint8_t *zeroed = chr_arena_zalloc(&arena, 900);
        for (int k = 0; k < 900; k++)
            assert_int_equal(zeroed[k], 0);
        chr_arena_reset(&arena);
    }
    chr_arena_free(&arena);
    assert_int_equal(arena.used_bytes, 0);
}

static void plain_allocations_are_aligned_to_16(void **state)
{
    struct chr_arena arena;
    chr_arena_init(&arena, 256, 0);
    for (size_t len = 0; len < 100; len++) {
        void *p = chr_arena_alloc(&arena, len);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
    }
    chr_arena_free(&arena);
}

static void the_limit_is_an_answer(void **state)
{
    struct chr_arena arena;
    chr_arena_init(&arena, 1000, 10000);
    assert_null(chr_arena_alloc(&arena, 10000)); /* the block's header counts, too */
    assert_null(chr_arena_alloc(&arena, SIZE_MAX));
    assert_null(chr_arena_alloc(&arena, SIZE_MAX - 40));
    assert_null(chr_arena_alloc_aligned(&arena, SIZE_MAX - 4096, 4096));
    assert_null(CHR_ARENA_ARRAY(&arena, uint64_t, SIZE_MAX / 4));
    assert_null(chr_arena_dup(&arena, chr_slice_of("x", 20000)).ptr);
    size_t total = 0;
    while (chr_arena_alloc(&arena, 48))
        total += 48;
    assert_true(total > 10000 / 2);
    assert_true(arena.used_bytes <= 10000);
    /* Small pieces still fit where 48 bytes did not, or not; never past the limit. */
    while (chr_arena_alloc_aligned(&arena, 1, 1))
        total++;
    assert_true(total <= 10000);
    assert_null(chr_arena_printf(&arena, "%0999d", 7));
    assert_null(chr_arena_cstr(&arena, CHR_LIT("abc")));
    chr_arena_reset(&arena);
    assert_non_null(chr_arena_alloc(&arena, 48));
    chr_arena_free(&arena);
}

static void reset_keeps_the_first_block_only(void **state)
{
    struct chr_arena arena;
    chr_arena_init(&arena, 4096, 0);
    chr_arena_reset(&arena); /* before the first allocation: nothing happens */
    void *first = chr_arena_alloc(&arena, 100);
    assert_int_equal(arena.used_bytes, 4096);
    for (int i = 0; i < 100; i++)
        assert_non_null(chr_arena_alloc(&arena, 1000));
    assert_true(arena.used_bytes > 100000);
    chr_arena_reset(&arena);
    assert_int_equal(arena.used_bytes, 4096);
    assert_ptr_equal(chr_arena_alloc(&arena, 100), first);
    chr_arena_free(&arena);
    assert_non_null(chr_arena_alloc(&arena, 100)); /* usable after free */
    chr_arena_free(&arena);
}

static void a_large_piece_does_not_waste_the_block(void **state)
{
    struct chr_arena arena;
    chr_arena_init(&arena, 4096, 0);
    uint8_t *a = chr_arena_alloc(&arena, 64);
    assert_non_null(chr_arena_alloc(&arena, 50000));
    uint8_t *b = chr_arena_alloc(&arena, 64);
    assert_true(b > a && b < a + 4096);
    chr_arena_free(&arena);
}

static void copies_and_text(void **state)
{
    struct chr_arena arena;
    chr_arena_init(&arena, 64, 0);
    char source[] = "esp-001";
    chr_slice copy = chr_arena_dup(&arena, chr_slice_cstr(source));
    char *cstr = chr_arena_cstr(&arena, chr_slice_cstr(source));
    char *text = chr_arena_printf(&arena, "%s has %d rows and %0100d", source, 12, 5);
    source[0] = 'X';
    assert_true(chr_slice_eq(copy, CHR_LIT("esp-001")));
    assert_string_equal(cstr, "esp-001");
    assert_int_equal(strlen(text), strlen("esp-001 has 12 rows and ") + 100);
    assert_memory_equal(text, "esp-001 has 12 rows and 000", 27);
    chr_slice empty = chr_arena_dup(&arena, (chr_slice){0});
    assert_non_null(empty.ptr); /* NULL would mean out of memory */
    assert_int_equal(empty.len, 0);
    assert_string_equal(chr_arena_cstr(&arena, (chr_slice){0}), "");
    assert_string_equal(chr_arena_printf(&arena, "%s", ""), "");
    chr_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_keep_apart),
        cmocka_unit_test(plain_allocations_are_aligned_to_16),
        cmocka_unit_test(the_limit_is_an_answer),
        cmocka_unit_test(reset_keeps_the_first_block_only),
        cmocka_unit_test(a_large_piece_does_not_waste_the_block),
        cmocka_unit_test(copies_and_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
