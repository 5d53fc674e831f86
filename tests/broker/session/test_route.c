/* The route cache: bounded, and never older than the subscriptions. */
#include "tests/broker/session/kit.h"

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *topic;
        enum route_kind kind;
    } cases[] = {
        {"a/b", ROUTE_PLAIN},
        {"chronos/sql", ROUTE_PLAIN},
        {"$chronos/sql", ROUTE_SQL},
        {"$chronos/sql/x", ROUTE_SQL_TOKEN},
        {"$chronos/sql/", ROUTE_REFUSED},
        {"$chronos/sql/x/y", ROUTE_REFUSED},
        {"$chronos/sqlx", ROUTE_REFUSED},
        {"$chronos/cancel", ROUTE_CANCEL},
        {"$chronos/cancel/x", ROUTE_CANCEL},
        {"$chronos/cancelx", ROUTE_REFUSED},
        {"$chronos/peer", ROUTE_PEERS},
        {"$chronos/peer/raft/1", ROUTE_PEERS},
        {"$chronos/peers", ROUTE_REFUSED},
        {"$chronos/sync/e/1", ROUTE_PEERS},
        {"$chronos/result/x", ROUTE_REFUSED},
        {"$chronos/reject/t", ROUTE_REFUSED},
        {"$SYS/broker/uptime", ROUTE_REFUSED},
        {"$share/g/a", ROUTE_REFUSED},
        {"$", ROUTE_REFUSED},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(cases); i++)
        assert_int_equal(route_kind_of(chr_slice_cstr(cases[i].topic)), cases[i].kind);
}

static void test_follows_subscriptions(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct routes *routes = &state_of(kit.loops[0])->routes;
    struct session *s = kit_session(&kit, 0, "s"), *far = kit_session(&kit, 1, "far");
    struct subscription_options options = {.qos = 1};
    bool existed;
    struct route *route = routes_get(routes, CHR_LIT("a/b"));
    assert_false(match_any(route_match(routes, route)));
    assert_int_equal(subscriptions_add(kit.node.subscriptions, s, CHR_LIT(""), CHR_LIT("a/+"),
                                       &options, &existed),
                     CHR_OK);
    assert_ptr_equal(routes_peek(routes, CHR_LIT("a/b")), route);
    assert_int_equal(route_match(routes, route)->own_count, 1);
    assert_int_equal(subscriptions_add(kit.node.subscriptions, far, CHR_LIT(""), CHR_LIT("#"),
                                       &options, &existed),
                     CHR_OK);
    assert_int_equal(route_match(routes, route)->others, 2);
    session_clear(s);
    assert_int_equal(route_match(routes, route)->own_count, 0);
    assert_true(match_any(route_match(routes, route)));
    subscriptions_remove_all(kit.node.subscriptions, far);
    assert_false(match_any(route_match(routes, route)));
    kit_free(&kit);
}

static void test_bounded(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct routes *routes = &state_of(kit.loops[0])->routes;
    char topic[32];
    uint32_t total = ROUTES_MAX * 2;
    routes_clear(routes); /* $SYS */
    for (uint32_t i = 0; i < total; i++) {
        int len = sprintf(topic, "t/%u", i);
        struct route *route = routes_get(routes, chr_slice_of(topic, (size_t)len));
        assert_non_null(route);
        assert_true(chr_slice_eq(route_topic(route), chr_slice_of(topic, (size_t)len)));
        /* one topic that is always in use stays */
        assert_non_null(i == 0 ? route : routes_peek(routes, CHR_LIT("t/0")));
        assert_true(routes->count <= ROUTES_MAX);
    }
    /* and each one that is there is found */
    uint32_t found = 0;
    for (uint32_t i = 0; i < total; i++) {
        int len = sprintf(topic, "t/%u", i);
        found += routes_peek(routes, chr_slice_of(topic, (size_t)len)) != NULL;
    }
    assert_int_equal(found, routes->count);
    routes_clear(routes);
    assert_int_equal(routes->count, 0);
    assert_null(routes_peek(routes, CHR_LIT("t/0")));
    kit_free(&kit);
}

/* Adding and dropping in random order, against a plain array. */
static void test_random(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct chr_random random = kit_random();
    struct routes *routes = &state_of(kit.loops[0])->routes;
    bool there[1000] = {0};
    uint32_t count = routes->count; /* $SYS */
    for (int step = 0; step < 20000; step++) {
        char topic[32];
        uint32_t i = (uint32_t)chr_random_below(&random, 1000);
        int len = sprintf(topic, "t/%u", i);
        chr_slice name = chr_slice_of(topic, (size_t)len);
        if (chr_random_below(&random, 3000) == 0) {
            routes_clear(routes);
            memset(there, 0, sizeof there);
            count = 0;
        } else if (chr_random_below(&random, 2)) {
            assert_non_null(routes_get(routes, name));
            count += !there[i];
            there[i] = true;
        }
        assert_int_equal(routes_peek(routes, name) != NULL, there[i]);
        assert_int_equal(routes->count, count);
    }
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_follows_subscriptions),
        cmocka_unit_test(test_bounded),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
