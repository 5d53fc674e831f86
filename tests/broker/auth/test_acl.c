/* tests/broker/auth/test_acl.c: rules on topics, on filters, and the file they come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "broker/auth/acl.h"

static struct acl *parse(const char *text)
{
    struct acl *acl = NULL;
    struct chr_errmsg msg = {{0}};
    if (acl_parse(chr_slice_cstr(text), "f", &acl, &msg))
        fail_msg("%s", msg.text);
    return acl;
}

static bool may(const struct acl *acl, const char *user, const char *client, unsigned access,
                const char *topic)
{
    struct acl_subject subject = {chr_slice_cstr(user), chr_slice_cstr(client)};
    return acl_allows(acl, &subject, access, chr_slice_cstr(topic), NULL);
}

static bool may_subscribe(const struct acl *acl, const char *user, const char *filter)
{
    struct acl_subject subject = {chr_slice_cstr(user), chr_slice_cstr("c")};
    return acl_allows_filter(acl, &subject, chr_slice_cstr(filter), NULL);
}

static void as_mosquitto_does(void **state)
{
    struct acl *acl = parse("# comment\n\n"
                            "topic read open/#\r\n"
                            "user a\n"
                            "topic readwrite data/#\n"
                            "topic deny data/secret\n"
                            "topic both\n"
                            "user name with spaces\n"
                            "topic write w/+\n"
                            "pattern readwrite own/%c/%u\n"
                            "pattern deny own/%c/never\n");
    assert_int_equal(acl_rules_count(acl), 7);
    assert_true(may(acl, "", "c", ACL_READ, "open/x"));
    assert_false(may(acl, "", "c", ACL_WRITE, "open/x"));
    assert_false(may(acl, "a", "c", ACL_READ, "open/x")); /* of anonymous clients alone */
    assert_true(may(acl, "a", "c", ACL_WRITE, "data/x"));
    assert_true(may(acl, "a", "c", ACL_WRITE, "data"));
    assert_false(may(acl, "a", "c", ACL_READ, "data/secret")); /* a denial behind what it denies */
    assert_true(may(acl, "a", "c", ACL_WRITE, "both"));
    assert_true(may(acl, "name with spaces", "c", ACL_WRITE, "w/1"));
    assert_false(may(acl, "name with spaces", "c", ACL_WRITE, "w/1/2"));
    assert_true(may(acl, "a", "c", ACL_WRITE, "own/c/a"));
    assert_false(may(acl, "a", "c", ACL_WRITE, "own/d/a"));
    assert_false(may(acl, "never", "c", ACL_WRITE, "own/c/never"));
    assert_false(may(acl, "", "c", ACL_WRITE, "own/c/")); /* %u, and nobody has a name */
    assert_false(may(acl, "b", "c", ACL_READ, "data/x"));
    /* Names that would make a filter of a pattern. */
    assert_false(may(acl, "+", "c", ACL_WRITE, "own/c/a"));
    assert_false(may(acl, "a", "#", ACL_WRITE, "own/x/a"));
    acl_free(acl);
}

static void dollar_topics_need_rules_of_their_own(void **state)
{
    struct acl *acl = parse("user a\ntopic #\nuser b\ntopic read $SYS/#\n");
    assert_false(may(acl, "a", "c", ACL_READ, "$SYS/x"));
    assert_true(may(acl, "b", "c", ACL_READ, "$SYS/x"));
    assert_false(may_subscribe(acl, "a", "$SYS/#"));
    assert_true(may_subscribe(acl, "b", "$SYS/+"));
    assert_false(may_subscribe(acl, "b", "#"));
    acl_free(acl);
}

static void filters(void **state)
{
    struct acl *acl = parse("user a\ntopic read data/+/temp\ntopic deny x/#\ntopic read x/1\n"
                            "topic write w\n");
    assert_true(may_subscribe(acl, "a", "#"));
    assert_true(may_subscribe(acl, "a", "data/#"));
    assert_true(may_subscribe(acl, "a", "+/1/temp"));
    assert_false(may_subscribe(acl, "a", "data/1/hum"));
    assert_false(may_subscribe(acl, "a", "x/1"));
    assert_false(may_subscribe(acl, "a", "w")); /* only written */
    acl_free(acl);
    assert_true(acl_filters_overlap(CHR_LIT("a/#"), CHR_LIT("a")));
    assert_true(acl_filters_overlap(CHR_LIT("+/b"), CHR_LIT("a/+")));
    assert_false(acl_filters_overlap(CHR_LIT("+"), CHR_LIT("a/b")));
    assert_false(acl_filters_overlap(CHR_LIT("#"), CHR_LIT("$SYS/#")));
    assert_true(acl_filter_covers(CHR_LIT("a/#"), CHR_LIT("a/+/c")));
    assert_false(acl_filter_covers(CHR_LIT("a/+"), CHR_LIT("a/#")));
    assert_true(acl_filter_covers(CHR_LIT("+/b"), CHR_LIT("a/b")));
}

static void faults_name_their_line(void **state)
{
    static const struct {
        const char *text, *message;
    } faults[] = {
        {"hello\n", "f:1: a line begins with user, topic or pattern, not with \"hello\""},
        {"\nuser\n", "f:2: a name is missing after \"user\""},
        {"topic\n", "f:1: a topic is missing after \"topic\""},
        {"topic maybe a/b\n",
         "f:1: expected read, write, readwrite or deny before a topic, not \"maybe\""},
        {"topic read a/#/b\n", "f:1: not a valid topic filter: \"a/#/b\""},
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct acl *acl = NULL;
        struct chr_errmsg msg = {{0}};
        assert_int_equal(acl_parse(chr_slice_cstr(faults[i].text), "f", &acl, &msg), CHR_EINVAL);
        assert_null(acl);
        assert_string_equal(msg.text, faults[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_mosquitto_does),
        cmocka_unit_test(dollar_topics_need_rules_of_their_own),
        cmocka_unit_test(filters),
        cmocka_unit_test(faults_name_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
