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
    return acl_allows_filter(acl, &subject, chr_slice_cstr(filter), false, NULL);
}

static bool may_share(const struct acl *acl, const char *user, const char *filter)
{
    struct acl_subject subject = {chr_slice_cstr(user), chr_slice_cstr("c")};
    return acl_allows_filter(acl, &subject, chr_slice_cstr(filter), true, NULL);
}

/* Who may read a part of a filter alone would take the rest from the other members of a group. */
static void shared_filters(void **state)
{
    struct acl *acl = parse("user part\n"
                            "topic read jobs/d1/#\n"
                            "user worker\n"
                            "topic read jobs/#\n"
                            "user pieces\n"
                            "topic read jobs/a\n"
                            "topic read jobs/+/x\n"
                            "user but\n"
                            "topic read jobs/#\n"
                            "topic deny jobs/secret/#\n"
                            "user writer\n"
                            "topic write jobs/#\n"
                            "pattern read own/%c/#\n");
    assert_true(may_subscribe(acl, "part", "jobs/#"));
    assert_false(may_share(acl, "part", "jobs/#"));
    assert_true(may_share(acl, "part", "jobs/d1/+"));
    assert_true(may_share(acl, "worker", "jobs/#"));
    assert_true(may_share(acl, "worker", "jobs/+/x"));
    assert_false(may_share(acl, "worker", "#"));
    assert_false(may_share(acl, "pieces", "jobs/+"));
    assert_true(may_share(acl, "pieces", "jobs/+/x"));
    assert_false(may_share(acl, "but", "jobs/#"));
    assert_false(may_share(acl, "but", "jobs/+/a"));
    assert_true(may_share(acl, "but", "jobs/open/a"));
    assert_false(may_share(acl, "writer", "jobs/#"));
    assert_true(may_share(acl, "part", "own/c/x"));
    assert_false(may_share(acl, "part", "own/#"));
    acl_free(acl);
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

/* A token's filters, and a client that calls itself + or #. */
static void names_do_not_become_wildcards(void **state)
{
    static const struct {
        const char *filter, *user, *client, *topic;
        bool allowed;
    } cases[] = {
        {"dev/%c/data", "u", "c", "dev/c/data", true},
        {"dev/%c/data", "u", "+", "dev/x/data", false},
        {"dev/%c/data", "u", "+", "dev/+/data", false},
        {"dev/%c", "u", "#", "dev/x", false},
        {"dev/%c", "u", "a/#", "dev/a/x", false},
        {"%c", "u", "#", "x", false},
        {"dev/%u/data", "+", "c", "dev/x/data", false},
        {"dev/%u/%c", "+", "c", "dev/x/c", false},
        {"dev/%c/data", "+", "c", "dev/c/data", true}, /* the name is not in it */
        {"dev/all", "+", "#", "dev/all", true},
        {"dev/%c", "u", "", "dev/", false},
        {"dev/%c%", "u", "c", "dev/c%", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct acl_list *list = NULL;
        struct acl_subject subject = {chr_slice_cstr(cases[i].user),
                                      chr_slice_cstr(cases[i].client)};
        assert_int_equal(acl_list_new(&list), CHR_OK);
        assert_int_equal(
            acl_list_add(list, ACL_READ | ACL_WRITE, chr_slice_cstr(cases[i].filter), true, 0),
            CHR_OK);
        chr_slice topic = chr_slice_cstr(cases[i].topic);
        if (acl_list_allows(list, &subject, ACL_WRITE, topic, NULL) != cases[i].allowed ||
            (!memchr(topic.ptr, '+', topic.len) &&
             acl_list_allows_filter(list, &subject, topic, false, NULL) != cases[i].allowed))
            fail_msg("case %zu", i);
        assert_true(cases[i].allowed ||
                    !acl_list_allows_filter(list, &subject, CHR_LIT("#"), false, NULL));
        acl_list_unref(list);
    }
    /* What denies goes on to deny. */
    struct acl_list *list = NULL;
    struct acl_subject plus = {CHR_LIT("u"), CHR_LIT("+")};
    assert_int_equal(acl_list_new(&list), CHR_OK);
    assert_int_equal(acl_list_add(list, ACL_WRITE, CHR_LIT("dev/#"), true, 0), CHR_OK);
    assert_int_equal(acl_list_add(list, 0, CHR_LIT("dev/%c/secret"), true, 0), CHR_OK);
    assert_true(acl_list_allows(list, &plus, ACL_WRITE, CHR_LIT("dev/x/data"), NULL));
    assert_false(acl_list_allows(list, &plus, ACL_WRITE, CHR_LIT("dev/x/secret"), NULL));
    acl_list_unref(list);
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
        cmocka_unit_test(shared_filters),
        cmocka_unit_test(names_do_not_become_wildcards),
        cmocka_unit_test(dollar_topics_need_rules_of_their_own),
        cmocka_unit_test(filters),
        cmocka_unit_test(faults_name_their_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
