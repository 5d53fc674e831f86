/* err.c and slice.c: tables are complete, messages are cut and never missing. */
#include "tests/base/check.h"

#include <errno.h>

#include "base/err.h"
#include "base/slice.h"

static const struct {
    chr_err err;
    const char *name;
} all[] = {
#define X(name, number, text) {name, #name},
    CHR_ERRORS(X)
#undef X
};

static void every_code_has_its_own_name_and_text(void **state)
{
    for (size_t i = 0; i < CHR_COUNT_OF(all); i++) {
        assert_string_equal(chr_errname(all[i].err), all[i].name);
        assert_string_not_equal(chr_strerror(all[i].err), "unknown error");
        assert_true(all[i].err <= 0);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(chr_strerror(all[i].err), chr_strerror(all[k].err));
    }
    assert_string_equal(chr_strerror(-9999), "unknown error");
    assert_string_equal(chr_strerror(1), "unknown error");
    assert_string_equal(chr_errname(7), "CHR_UNKNOWN");
}

static void errno_finds_the_closest_code(void **state)
{
    assert_int_equal(chr_err_from_errno(0), CHR_OK);
    assert_int_equal(chr_err_from_errno(ENOSPC), CHR_ENOSPC);
    assert_int_equal(chr_err_from_errno(EDQUOT), CHR_ENOSPC);
    assert_int_equal(chr_err_from_errno(ENOENT), CHR_ENOTFOUND);
    assert_int_equal(chr_err_from_errno(ENOMEM), CHR_ENOMEM);
    assert_int_equal(chr_err_from_errno(EACCES), CHR_EACCES);
    assert_int_equal(chr_err_from_errno(EIO), CHR_EIO);
    for (int e = 1; e < 200; e++)
        assert_true(chr_err_from_errno(e) < 0);
}

static void a_message_is_cut_at_its_size(void **state)
{
    struct chr_errmsg msg;
    assert_int_equal(chr_fail(&msg, CHR_EINVAL, "column %d of %s", 3, "env"), CHR_EINVAL);
    assert_string_equal(msg.text, "column 3 of env");
    assert_int_equal(chr_fail(NULL, CHR_EFULL, "nobody reads %d", 1), CHR_EFULL);
    assert_int_equal(chr_fail(&msg, CHR_EIO, "%0400d", 1), CHR_EIO);
    assert_int_equal(strlen(msg.text), sizeof msg.text - 1);
}

static void slices_compare_by_bytes(void **state)
{
    chr_slice none = {0};
    assert_true(chr_slice_eq(none, CHR_LIT("")));
    assert_true(chr_slice_cmp(none, CHR_LIT("a")) < 0);
    assert_true(chr_slice_cmp(CHR_LIT("ab"), CHR_LIT("a")) > 0);
    assert_true(chr_slice_cmp(CHR_LIT("a\xff"), CHR_LIT("ab")) > 0);
    assert_int_equal(chr_slice_cmp(CHR_LIT("a\0b"), CHR_LIT("a\0b")), 0);
    assert_true(chr_slice_starts(CHR_LIT("abc"), none));
    assert_true(chr_slice_starts(CHR_LIT("abc"), CHR_LIT("ab")));
    assert_false(chr_slice_starts(CHR_LIT("a"), CHR_LIT("ab")));
    char *copy = chr_slice_dup_cstr(CHR_LIT("topic/a"));
    assert_string_equal(copy, "topic/a");
    free(copy);
    copy = chr_slice_dup_cstr(none);
    assert_string_equal(copy, "");
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_own_name_and_text),
        cmocka_unit_test(errno_finds_the_closest_code),
        cmocka_unit_test(a_message_is_cut_at_its_size),
        cmocka_unit_test(slices_compare_by_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
