/* The route cache beside a naive matcher, while subscriptions, options and sessions come and go:
 * after each change every cached route must say what a linear search says. And what it must not do:
 * match again what the change does not concern; see by one counter what (F1) of filter_changes.h
 * promises; cost more than was stored.
 *
 * CHR_SEED: one seed; CHR_SEEDS: so many of them (30). */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "broker/session/filter_changes.h"
#include "proto/mqtt/topic.h"
#include "tests/broker/session/kit.h"

#define SESSIONS 10
#define LIVE_MAX 300
#define TOPICS   60
#define STEPS    600

/* The naive twin: a list. */
struct live {
    struct session *session;
    char filter[64];
    bool shared;
    struct subscription_options options;
};

struct life {
    struct kit kit;
    struct chr_random random;
    struct session *sessions[SESSIONS];
    uint32_t made;
    struct live live[LIVE_MAX];
    size_t live_count;
    char topics[TOPICS][64];
};

static bool matches(const struct live *l, const char *topic)
{
    return mqtt_topic_matches(chr_slice_cstr(l->filter), chr_slice_cstr(topic));
}

static size_t find_live(const struct life *l, const struct session *s, const char *filter,
                        bool shared)
{
    size_t i = 0;
    while (i < l->live_count && (l->live[i].session != s || l->live[i].shared != shared ||
                                 strcmp(l->live[i].filter, filter) != 0))
        i++;
    return i;
}

/* ---- What a route must say --------------------------------------------------------------------
 */

static void check_recipient(const struct life *l, const struct recipient *r, const char *topic)
{
    int qos = -1, qos_local = 0xff;
    for (size_t i = 0; i < l->live_count; i++) {
        const struct live *v = &l->live[i];
        if (v->session != r->session || v->shared || !matches(v, topic))
            continue;
        qos = CHR_MAX(qos, v->options.qos);
        if (!v->options.no_local)
            qos_local =
                qos_local == 0xff ? v->options.qos : CHR_MAX(qos_local, (int)v->options.qos);
    }
    assert_int_equal(r->qos, qos); /* -1: it should not be here */
    assert_int_equal(r->qos_local, qos_local);
}

/* Members of the one group of a filter, in all loops. */
static void check_groups(struct life *l, struct routes *routes, struct route *route,
                         const struct match *match, const char *topic)
{
    uint32_t filters = 0;
    for (size_t i = 0; i < l->live_count; i++) {
        if (!l->live[i].shared || !matches(&l->live[i], topic))
            continue;
        size_t first = 0;
        while (!l->live[first].shared || strcmp(l->live[first].filter, l->live[i].filter) != 0)
            first++;
        filters += first == i;
    }
    assert_int_equal(match->groups_count, filters);
    struct share_pick picks[64];
    assert_true(filters <= 64);
    if (filters == 0)
        return;
    assert_true(subscriptions_pick(l->kit.node.subscriptions, route_topic(route), match, picks));
    for (uint32_t g = 0; g < filters; g++) {
        bool member = false;
        for (size_t i = 0; i < l->live_count; i++)
            member |= l->live[i].shared && matches(&l->live[i], topic) &&
                      l->live[i].session->number == picks[g].session_number;
        assert_true(member);
    }
    (void)routes;
}

static void check_route(struct life *l, uint32_t loop, const char *topic)
{
    struct routes *routes = &state_of(l->kit.loops[loop])->routes;
    struct route *route = routes_get(routes, chr_slice_cstr(topic));
    assert_non_null(route);
    const struct match *match = route_match(routes, route);
    assert_non_null(match);
    uint64_t others = 0;
    uint32_t expected = 0;
    for (size_t i = 0; i < l->live_count; i++) {
        const struct live *v = &l->live[i];
        if (v->shared || !matches(v, topic))
            continue;
        if (v->session->loop != l->kit.loops[loop]) {
            others |= UINT64_C(1) << v->session->loop->number;
            continue;
        }
        size_t first = 0;
        while (l->live[first].session != v->session || l->live[first].shared ||
               !matches(&l->live[first], topic))
            first++;
        expected += first == i;
    }
    assert_true(match->others == others);
    assert_int_equal(match->own_count, expected);
    for (uint32_t i = 0; i < match->own_count; i++) {
        for (uint32_t k = 0; k < i; k++)
            assert_ptr_not_equal(match->own[k].session, match->own[i].session);
        check_recipient(l, &match->own[i], topic);
    }
    check_groups(l, routes, route, match, topic);
}

/* ---- A life -----------------------------------------------------------------------------------
 */

static struct session *new_session(struct life *l, uint32_t loop)
{
    char id[16];
    sprintf(id, "s%u", l->made++);
    return kit_session(&l->kit, loop, id);
}

static void subscribe(struct life *l, struct session *s)
{
    char text[64];
    kit_topic(&l->random, text, true);
    bool shared = chr_random_below(&l->random, 5) == 0, existed;
    size_t at = find_live(l, s, text, shared);
    if (at == LIVE_MAX)
        return;
    struct subscription_options options = {
        .qos = (uint8_t)chr_random_below(&l->random, 3),
        .no_local = !shared && chr_random_below(&l->random, 4) == 0,
    };
    assert_int_equal(subscriptions_add(l->kit.node.subscriptions, s,
                                       shared ? CHR_LIT("g") : CHR_LIT(""), chr_slice_cstr(text),
                                       &options, &existed),
                     CHR_OK);
    assert_int_equal(existed, at < l->live_count);
    l->live_count += !existed;
    l->live[at] = (struct live){.session = s, .shared = shared, .options = options};
    strcpy(l->live[at].filter, text);
}

static void unsubscribe(struct life *l)
{
    if (l->live_count == 0)
        return;
    struct live *v = &l->live[chr_random_below(&l->random, l->live_count)];
    assert_true(subscriptions_remove(l->kit.node.subscriptions, v->session,
                                     v->shared ? CHR_LIT("g") : CHR_LIT(""),
                                     chr_slice_cstr(v->filter)));
    *v = l->live[--l->live_count];
}

/* The session ends and its memory goes; another takes its place, perhaps at the same address. */
static void replace_session(struct life *l, uint32_t which)
{
    struct session *s = l->sessions[which];
    uint32_t loop = s->loop->number;
    for (size_t i = l->live_count; i-- > 0;)
        if (l->live[i].session == s)
            l->live[i] = l->live[--l->live_count];
    session_clear(s);
    session_free(s);
    l->sessions[which] = new_session(l, loop);
}

static void live_once(uint64_t seed)
{
    static struct life l;
    l = (struct life){.random = {seed}};
    kit_init(&l.kit);
    for (uint32_t i = 0; i < SESSIONS; i++)
        l.sessions[i] = new_session(&l, i % KIT_LOOPS);
    for (int i = 0; i < TOPICS; i++)
        kit_topic(&l.random, l.topics[i], false);
    for (int step = 0; step < STEPS; step++) {
        uint32_t which = (uint32_t)chr_random_below(&l.random, SESSIONS);
        uint64_t what = chr_random_below(&l.random, 100);
        if (what < 30)
            subscribe(&l, l.sessions[which]);
        else if (what < 50)
            unsubscribe(&l);
        else if (what < 52)
            replace_session(&l, which);
        else if (what < 53)
            routes_clear(&state_of(l.kit.loops[which % KIT_LOOPS])->routes);
        else
            check_route(&l, which % KIT_LOOPS, l.topics[chr_random_below(&l.random, TOPICS)]);
    }
    for (uint32_t loop = 0; loop < KIT_LOOPS; loop++)
        for (int i = 0; i < TOPICS; i++)
            check_route(&l, loop, l.topics[i]);
    assert_int_equal(subscriptions_count(l.kit.node.subscriptions), l.live_count);
    kit_free(&l.kit);
}

static void test_against_naive_twin(void **state)
{
    (void)state;
    const char *given = getenv("CHR_SEED"), *seeds = getenv("CHR_SEEDS");
    uint64_t first = given ? strtoull(given, NULL, 0) : 1;
    uint64_t count = given ? 1 : seeds ? strtoull(seeds, NULL, 0) : 30;
    for (uint64_t i = 0; i < count; i++) {
        print_message("CHR_SEED=%llu\n", (unsigned long long)(first + i));
        live_once(first + i);
    }
}

/* (F1): one change of a filter moves the sum of every topic it matches. */
static void test_keys(void **state)
{
    (void)state;
    struct chr_random random = kit_random();
    _Atomic uint64_t *counts = calloc(FILTER_CHANGES_KEYS, sizeof *counts);
    uint32_t matching = 0, moved_in_vain = 0, others = 0;
    for (int i = 0; i < 30000; i++) {
        char filter[64], topic[64];
        kit_topic(&random, filter, true);
        kit_topic(&random, topic, false);
        uint32_t key = filter_changes_key(chr_slice_cstr(filter));
        assert_true(key < FILTER_CHANGES_KEYS);
        uint64_t before = filter_changes_sum(counts, chr_slice_cstr(topic));
        counts[key]++;
        bool moved = filter_changes_sum(counts, chr_slice_cstr(topic)) != before;
        if (mqtt_topic_matches(chr_slice_cstr(filter), chr_slice_cstr(topic))) {
            matching++;
            assert_true(moved);
        } else {
            others++;
            moved_in_vain += moved;
        }
    }
    assert_true(matching > 1000);
    assert_true(moved_in_vain < others); /* else they would say nothing */
    free((void *)counts);
}

/* A change that does not concern a topic leaves its route alone, one that does not. */
static void test_not_matched_again(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct routes *routes = &state_of(kit.loops[0])->routes;
    struct subscriptions *subs = kit.node.subscriptions;
    struct session *s = kit_session(&kit, 0, "s"), *other = kit_session(&kit, 1, "other");
    struct subscription_options options = {.qos = 1};
    bool existed;
    enum { COUNT = 200 };
    char text[64];
    assert_int_equal(
        subscriptions_add(subs, s, CHR_LIT(""), CHR_LIT("site/+/dev-7/temp"), &options, &existed),
        CHR_OK);
    struct route *route = routes_get(routes, CHR_LIT("site/1/dev-7/temp"));
    assert_int_equal(route_match(routes, route)->own_count, 1);
    uint64_t matches = routes->matches;
    /* Of others; keys may be the same by chance, so not all need to leave it alone. */
    static const char *const forms[] = {"site/%d/dev-9%d/temp", "site/+/dev-9%d/%d", "+/%d/x-%d/#",
                                        "other-%d/%d/+"};
    for (int i = 0; i < COUNT; i++) {
        sprintf(text, forms[i % 4], 100 + i, i);
        assert_int_equal(
            subscriptions_add(subs, other, CHR_LIT(""), chr_slice_cstr(text), &options, &existed),
            CHR_OK);
        assert_int_equal(route_match(routes, route)->own_count, 1);
    }
    assert_true(routes->matches - matches <= 5);
    /* What it has already, asked for again. */
    uint64_t version = subscriptions_version(subs);
    assert_int_equal(
        subscriptions_add(subs, s, CHR_LIT(""), CHR_LIT("site/+/dev-7/temp"), &options, &existed),
        CHR_OK);
    assert_true(existed);
    assert_true(subscriptions_version(subs) == version);
    /* Its own: other options, another recipient, and its end. */
    matches = routes->matches;
    options.qos = 2;
    assert_int_equal(
        subscriptions_add(subs, s, CHR_LIT(""), CHR_LIT("site/+/dev-7/temp"), &options, &existed),
        CHR_OK);
    assert_int_equal(route_match(routes, route)->own[0].qos, 2);
    assert_int_equal(
        subscriptions_add(subs, other, CHR_LIT(""), CHR_LIT("site/#"), &options, &existed), CHR_OK);
    assert_true(route_match(routes, route)->others == 2);
    assert_true(subscriptions_remove(subs, s, CHR_LIT(""), CHR_LIT("site/+/dev-7/temp")));
    assert_int_equal(route_match(routes, route)->own_count, 0);
    assert_int_equal(routes->matches - matches, 3);
    kit_free(&kit);
}

/* Long topics are counted, too: 64 KiB each are not 65,536 of them. */
static void test_bounded_in_bytes(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct routes *routes = &state_of(kit.loops[0])->routes;
    enum { LEN = 60000, COUNT = ROUTES_BYTES_MAX / LEN + 500 };
    char *topic = malloc(LEN);
    memset(topic, 'x', LEN);
    routes_clear(routes); /* $SYS */
    uint32_t most = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        memcpy(topic, &(uint32_t){0x20202020u + i}, 4);
        assert_non_null(routes_get(routes, chr_slice_of(topic, LEN)));
        most = CHR_MAX(most, routes->count);
        assert_true(routes->bytes <= ROUTES_BYTES_MAX + sizeof(struct route));
    }
    assert_true(most <= ROUTES_BYTES_MAX / LEN);
    assert_true(most > ROUTES_BYTES_MAX / LEN - 20);
    free(topic);
    routes_clear(routes);
    assert_true(routes->bytes == 0);
    kit_free(&kit);
}

/* Topics seen once do not push out those that come again. */
static void test_one_off_topics(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct routes *routes = &state_of(kit.loops[0])->routes;
    char topic[32];
    enum { WARM = 1000 };
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < WARM; i++)
            assert_non_null(routes_get(routes, chr_slice_of(topic, sprintf(topic, "w/%d", i))));
    for (uint32_t i = 0; i < ROUTES_MAX + ROUTES_MAX / 2; i++)
        assert_non_null(routes_get(routes, chr_slice_of(topic, sprintf(topic, "c/%u", i))));
    int left = 0;
    for (int i = 0; i < WARM; i++)
        left += routes_peek(routes, chr_slice_of(topic, sprintf(topic, "w/%d", i))) != NULL;
    assert_int_equal(left, WARM);
    kit_free(&kit);
}

/* As many groups of one filter as there are clients: each join and leave is one look-up. */
static void test_many_groups(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct subscriptions *subs = kit.node.subscriptions;
    struct session *s = kit_session(&kit, 0, "s");
    struct subscription_options options = {0};
    struct match match = {0};
    bool existed;
    char name[32];
    enum { COUNT = 20000 };
    for (int i = 0; i < COUNT; i++) {
        int len = sprintf(name, "g%d", i);
        assert_int_equal(subscriptions_add(subs, s, chr_slice_of(name, len), CHR_LIT("jobs/+"),
                                           &options, &existed),
                         CHR_OK);
        assert_false(existed);
    }
    assert_int_equal(subscriptions_match(subs, CHR_LIT("jobs/1"), kit.loops[0], &match), CHR_OK);
    assert_int_equal(match.groups_count, COUNT);
    for (int i = 0; i < COUNT; i += 2) {
        int len = sprintf(name, "g%d", i);
        assert_true(subscriptions_remove(subs, s, chr_slice_of(name, len), CHR_LIT("jobs/+")));
    }
    assert_int_equal(subscriptions_match(subs, CHR_LIT("jobs/1"), kit.loops[0], &match), CHR_OK);
    assert_int_equal(match.groups_count, COUNT / 2);
    match_free(&match);
    kit_free(&kit);
}

/* ---- Two threads ------------------------------------------------------------------------------
 */

struct toggler {
    struct subscriptions *subs;
    struct session *session;
    _Atomic uint64_t epoch; /* odd: a change is under way; half of it odd: the filter is there */
    _Atomic bool stop;
};

/* A filter comes and goes, others between. */
static void *toggle(void *arg)
{
    struct toggler *t = arg;
    struct subscription_options options = {0};
    bool existed;
    chr_err err = CHR_OK;
    for (uint32_t i = 0; !atomic_load(&t->stop) && !err; i++) {
        char other[32];
        chr_slice name = chr_slice_of(other, sprintf(other, "x/%u/+", i / 2 % 50));
        if (i % 2) {
            (void)subscriptions_remove(t->subs, t->session, CHR_LIT(""), name);
            continue;
        }
        err = subscriptions_add(t->subs, t->session, CHR_LIT(""), name, &options, &existed);
        uint64_t epoch = atomic_fetch_add(&t->epoch, 1);
        if (epoch / 2 % 2)
            (void)subscriptions_remove(t->subs, t->session, CHR_LIT(""), CHR_LIT("a/+/c"));
        else if (!err)
            err = subscriptions_add(t->subs, t->session, CHR_LIT(""), CHR_LIT("a/+/c"), &options,
                                    &existed);
        atomic_fetch_add(&t->epoch, 1);
        sched_yield();
    }
    return (void *)(intptr_t)err;
}

/* What another thread has subscribed to before a route is asked for its match is in it, what it has
 * unsubscribed from is not, though the route looks at counters without a lock. */
static void test_another_thread(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct routes *routes = &state_of(kit.loops[0])->routes;
    struct toggler t = {.subs = kit.node.subscriptions, .session = kit_session(&kit, 1, "far")};
    struct route *concerned = routes_get(routes, CHR_LIT("a/b/c"));
    struct route *not_concerned = routes_get(routes, CHR_LIT("d/e/f"));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, toggle, &t), 0);
    uint32_t with = 0, without = 0;
    uint64_t last = UINT64_MAX; /* each state counts once: what matters is the change before it */
    while (with < 30 || without < 30) {
        sched_yield();
        uint64_t before = atomic_load(&t.epoch);
        bool there = match_any(route_match(routes, concerned));
        bool never = match_any(route_match(routes, not_concerned));
        assert_false(never);
        if (before % 2 || atomic_load(&t.epoch) != before)
            continue; /* it changed meanwhile: either is right */
        assert_int_equal(there, before / 2 % 2);
        with += before != last && there;
        without += before != last && !there;
        last = before;
    }
    atomic_store(&t.stop, true);
    void *err;
    pthread_join(thread, &err);
    assert_null(err);
    kit_free(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_naive_twin), cmocka_unit_test(test_keys),
        cmocka_unit_test(test_not_matched_again),  cmocka_unit_test(test_bounded_in_bytes),
        cmocka_unit_test(test_one_off_topics),     cmocka_unit_test(test_many_groups),
        cmocka_unit_test(test_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
