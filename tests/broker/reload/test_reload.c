/* node_reload: all parts or none, and the snapshot with them. */
#include "../../base/check.h"

#include "broker/node.h"

enum { PARTS = 3 };

static struct fake {
    int number;
    bool refuse, wordless;
    int prepared, committed, aborted; /* how often */
    const struct broker_config *seen; /* node->config at commit */
} fakes[PARTS];
static struct broker_node node;
static char order[32];

static chr_err prepare(void *ctx, const struct broker_config *next, void **prepared,
                       struct chr_errmsg *msg)
{
    struct fake *fake = ctx;
    assert_non_null(next);
    /* Nothing may have changed before all have said yes. */
    assert_true(node.config != next);
    strcat(order, (const char *[]){"p0", "p1", "p2"}[fake->number]);
    if (fake->refuse)
        return fake->wordless ? CHR_ENOMEM
                              : chr_fail(msg, CHR_EINVAL, "users.txt:3: this is no user");
    fake->prepared++;
    *prepared = &fakes[fake->number];
    return CHR_OK;
}

static void commit(void *ctx, void *prepared)
{
    struct fake *fake = ctx;
    assert_ptr_equal(fake, prepared);
    fake->committed++;
    fake->seen = node.config;
    strcat(order, "c");
}

static void give_up(void *ctx, void *prepared)
{
    struct fake *fake = ctx;
    assert_ptr_equal(fake, prepared);
    fake->aborted++;
    strcat(order, (const char *[]){"a0", "a1", "a2"}[fake->number]);
}

static int setup(void **state)
{
    (void)state;
    static struct broker_config first;
    memset(fakes, 0, sizeof fakes);
    memset(&node, 0, sizeof node);
    order[0] = 0;
    node.config = &first;
    for (int i = 0; i < PARTS; i++) {
        fakes[i].number = i;
        node_reload_register(&node, &(struct reload_part){(const char *[]){"zero", "one", "two"}[i],
                                                          &fakes[i], prepare, commit, give_up});
    }
    return 0;
}

static void all_commit(void **state)
{
    (void)state;
    struct broker_config next = {0};
    struct chr_errmsg msg = {{0}};
    assert_int_equal(node_reload(&node, &next, &msg), CHR_OK);
    assert_ptr_equal(node.config, &next);
    assert_string_equal(order, "p0p1p2ccc");
    for (int i = 0; i < PARTS; i++) {
        assert_int_equal(fakes[i].committed, 1);
        assert_int_equal(fakes[i].aborted, 0);
        assert_ptr_equal(fakes[i].seen, &next);
    }
}

/* Whichever refuses: those before it give up what they prepared, those after are not asked. */
static void one_refuses(void **state)
{
    (void)state;
    for (int bad = 0; bad < PARTS; bad++) {
        setup(NULL);
        const struct broker_config *before = node.config;
        struct broker_config next = {0};
        struct chr_errmsg msg = {{0}};
        fakes[bad].refuse = true;
        assert_int_equal(node_reload(&node, &next, &msg), CHR_EINVAL);
        static const char *const texts[] = {"zero: users.txt:3: this is no user",
                                            "one: users.txt:3: this is no user",
                                            "two: users.txt:3: this is no user"};
        static const char *const orders[] = {"p0", "p0p1a0", "p0p1p2a1a0"};
        assert_string_equal(msg.text, texts[bad]);
        assert_ptr_equal(node.config, before);
        assert_string_equal(order, orders[bad]);
        for (int i = 0; i < PARTS; i++)
            assert_int_equal(fakes[i].committed, 0);
    }
}

static void refused_without_words(void **state)
{
    (void)state;
    struct broker_config next = {0};
    struct chr_errmsg msg = {{0}};
    fakes[0].refuse = fakes[0].wordless = true;
    assert_int_equal(node_reload(&node, &next, &msg), CHR_ENOMEM);
    assert_true(!strncmp(msg.text, "zero: ", 6) && msg.text[6]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(all_commit, setup),
        cmocka_unit_test_setup(one_refuses, setup),
        cmocka_unit_test_setup(refused_without_words, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
