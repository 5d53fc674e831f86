/* What a node tells of its filters, what its peers make of it, and what a match says then. */
#include "broker/session/filter_changes.h"
#include "broker/session/interest.h"
#include "proto/mqtt/topic.h"
#include "tests/broker/session/kit.h"

#define S(text) chr_slice_cstr(text)

static uint32_t told;
static void count_told(void *arg)
{
    (void)arg;
    told++;
}

static void what_is_told(void **state)
{
    assert_true(interest_is_told(S("a/#")));
    assert_true(interest_is_told(S("#")));
    assert_true(interest_is_told(S("$chronos/reject/t")));
    assert_true(interest_is_told(S("$chronos/reject/#")));
    assert_false(interest_is_told(S("$chronos/result/x")));
    assert_false(interest_is_told(S("$SYS/#")));
    assert_false(interest_is_told(S("$chronos/rejected")));
    assert_true(interest_group(S("g"), S("a/b")) != interest_group(S("ga"), S("/b")));
    assert_true(interest_group(S("g"), S("a")) != interest_group(S("h"), S("a")));
    /* Nodes say it to each other. */
    assert_true(interest_group(S("g"), S("a/b")) == UINT64_C(374468871064631519));
}

/* Counted: only the first and the last, and the first and the last durable one, are news. */
static void counted(void **state)
{
    struct own_interest *own;
    told = 0;
    assert_int_equal(own_interest_new(count_told, NULL, &own), CHR_OK);
    uint64_t v = own_interest_version(own);
    assert_int_equal(own_interest_add(own, S(""), S("a"), false), CHR_OK);
    assert_int_equal(own_interest_version(own), v + 1);
    assert_int_equal(own_interest_add(own, S(""), S("a"), false), CHR_OK);
    assert_int_equal(own_interest_version(own), v + 1);
    assert_int_equal(own_interest_add(own, S(""), S("a"), true), CHR_OK);
    assert_int_equal(own_interest_version(own), v + 2);
    own_interest_remove(own, S(""), S("a"), false);
    assert_int_equal(own_interest_version(own), v + 2);
    own_interest_remove(own, S(""), S("a"), true);
    assert_int_equal(own_interest_version(own), v + 3);
    assert_int_equal(own_interest_add(own, S("g"), S("a"), false), CHR_OK);
    assert_int_equal(own_interest_count(own), 2);
    own_interest_remove(own, S(""), S("a"), false);
    own_interest_remove(own, S("g"), S("a"), false);
    assert_int_equal(own_interest_version(own), v + 6);
    assert_int_equal(own_interest_count(own), 0);
    assert_int_equal(own_interest_add(own, S(""), S("$SYS/#"), false), CHR_OK);
    own_interest_remove(own, S(""), S("$SYS/#"), false);
    assert_int_equal(own_interest_version(own), v + 6);
    assert_int_equal(told, 6);
    own_interest_free(own);
}

/* Changes are kept for a while; who is behind that is told everything. */
static void not_kept_for_ever(void **state)
{
    struct own_interest *own;
    struct chr_buf buf;
    uint64_t to;
    chr_buf_init(&buf, 1 << 20);
    assert_int_equal(own_interest_new(NULL, NULL, &own), CHR_OK);
    uint64_t first = own_interest_version(own);
    for (int i = 0; i < 20000; i++) {
        char filter[32];
        snprintf(filter, sizeof filter, "f/%d", i);
        assert_int_equal(own_interest_add(own, S(""), S(filter), false), CHR_OK);
    }
    uint64_t now = own_interest_version(own);
    assert_int_equal(now, first + 20000);
    assert_int_equal(own_interest_changes(own, first, 4096, &buf, &to), CHR_ENOTFOUND);
    assert_int_equal(own_interest_changes(own, now + 1, 4096, &buf, &to), CHR_ENOTFOUND);
    assert_int_equal(own_interest_changes(own, now, 4096, &buf, &to), CHR_OK);
    assert_int_equal(to, now);
    assert_int_equal(buf.len, 0);
    assert_int_equal(own_interest_changes(own, now - 3, 4096, &buf, &to), CHR_OK);
    assert_int_equal(to, now);
    chr_slice items = chr_buf_slice(&buf);
    struct deliver_filter f;
    for (int i = 19997; i < 20000; i++) {
        char filter[32];
        snprintf(filter, sizeof filter, "f/%d", i);
        assert_int_equal(deliver_filter_take(&items, &f), CHR_OK);
        assert_true(chr_slice_eq(f.filter, S(filter)) && f.present && !f.durable);
    }
    assert_int_equal(items.len, 0);
    chr_buf_free(&buf);
    own_interest_free(own);
}

/* ---- A walk with changes behind it ------------------------------------------------------------
 */

#define FILTERS 40
struct naive {
    uint32_t plain, durable; /* counts */
};

static void take_all(struct peer_interest *p, chr_slice items)
{
    struct deliver_filter f;
    bool changed;
    while (items.len) {
        assert_int_equal(deliver_filter_take(&items, &f), CHR_OK);
        assert_int_equal(peer_interest_set(p, &f, &changed), CHR_OK);
    }
}

static uint32_t groups_seen, groups_durable;
static uint64_t group_seen;
static void see_group(void *arg, uint64_t group, bool durable)
{
    (void)arg;
    groups_seen++;
    groups_durable += durable;
    group_seen = group;
}

static void random_change(struct chr_random *random, struct own_interest *own, char filters[][64],
                          struct naive *naive)
{
    uint64_t i = chr_random_below(random, FILTERS);
    bool durable = chr_random_below(random, 3) == 0, shared = i % 4 == 0;
    chr_slice group = shared ? S("g") : S("");
    if (chr_random_below(random, 2)) {
        assert_int_equal(own_interest_add(own, group, S(filters[i]), durable), CHR_OK);
        naive[i].plain++;
        naive[i].durable += durable;
    } else if (durable ? naive[i].durable : naive[i].plain > naive[i].durable) {
        own_interest_remove(own, group, S(filters[i]), durable);
        naive[i].plain--;
        naive[i].durable -= durable;
    }
}

static void same(const struct peer_interest *p, char filters[][64], const struct naive *naive,
                 const char *topic)
{
    struct peer_wants wants = {.group = see_group};
    bool plain = false, durable = false;
    uint32_t groups = 0, groups_d = 0;
    groups_seen = groups_durable = 0;
    peer_interest_match(p, S(topic), &wants);
    for (uint32_t i = 0; i < FILTERS; i++) {
        if (!naive[i].plain || !mqtt_topic_matches(S(filters[i]), S(topic)))
            continue;
        if (i % 4 == 0) {
            groups++;
            groups_d += naive[i].durable > 0;
        } else {
            plain = true;
            durable |= naive[i].durable > 0;
        }
    }
    assert_int_equal(wants.plain, plain);
    assert_int_equal(wants.durable, durable);
    assert_int_equal(groups_seen, groups);
    assert_int_equal(groups_durable, groups_d);
}

/* I1, I2: parts of a walk, changes meanwhile, changes again that were told already. */
static void walk_and_changes(void **state)
{
    struct chr_random random = kit_random();
    for (int round = 0; round < 300; round++) {
        char filters[FILTERS][64];
        struct naive naive[FILTERS] = {0};
        struct own_interest *own;
        struct peer_interest *p;
        struct chr_buf buf;
        chr_buf_init(&buf, 1 << 20);
        assert_int_equal(own_interest_new(NULL, NULL, &own), CHR_OK);
        assert_int_equal(peer_interest_new(&p), CHR_OK);
        for (uint32_t i = 0; i < FILTERS; i++) {
            /* Each once, and none that is not told. */
            size_t len = kit_topic(&random, filters[i], true);
            for (uint32_t k = 0; k <= i; k++)
                if ((k < i && strcmp(filters[k], filters[i]) == 0) ||
                    !interest_is_told(S(filters[i])))
                    len = (size_t)snprintf(filters[i], sizeof filters[i], "only/%u", i);
            assert_true(len > 0 && len < 64);
        }
        for (int i = 0; i < 100; i++)
            random_change(&random, own, filters, naive);
        uint64_t version = own_interest_version(own);
        uint32_t cursor = 0;
        do {
            chr_buf_reset(&buf);
            assert_int_equal(own_interest_walk(own, &cursor, 60, &buf), CHR_OK);
            take_all(p, chr_buf_slice(&buf));
            for (uint64_t i = chr_random_below(&random, 6); i > 0; i--)
                random_change(&random, own, filters, naive);
        } while (cursor);
        while (version < own_interest_version(own)) {
            uint64_t to;
            chr_buf_reset(&buf);
            assert_int_equal(own_interest_changes(own, version, 60, &buf, &to), CHR_OK);
            take_all(p, chr_buf_slice(&buf));
            assert_true(to > version);
            /* Sometimes they are told again, from where we were. */
            if (chr_random_below(&random, 3))
                version = to;
            else
                random_change(&random, own, filters, naive);
        }
        for (int i = 0; i < 50; i++) {
            char topic[64];
            kit_topic(&random, topic, false);
            same(p, filters, naive, topic);
        }
        assert_int_equal(p->count, own_interest_count(own));
        /* Nothing is left when all are gone. */
        for (uint32_t i = 0; i < FILTERS; i++) {
            bool changed;
            struct deliver_filter gone = {.group = i % 4 == 0 ? S("g") : S(""),
                                          .filter = S(filters[i])};
            assert_int_equal(peer_interest_set(p, &gone, &changed), CHR_OK);
        }
        assert_int_equal(p->count, 0);
        assert_int_equal(chr_filter_tree_nodes(&p->tree), 0);
        peer_interest_free(p);
        own_interest_free(own);
        chr_buf_free(&buf);
    }
}

/* ---- In a match -------------------------------------------------------------------------------
 */

static void tell(struct subscriptions *subs, uint32_t peer, const char *group, const char *filter,
                 bool present, bool durable)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 4096);
    deliver_filter_put(
        &buf, &(struct deliver_filter){
                  .group = S(group), .filter = S(filter), .present = present, .durable = durable});
    assert_int_equal(subscriptions_peer_changed(subs, peer, chr_buf_slice(&buf)), CHR_OK);
    chr_buf_free(&buf);
}

static void in_a_match(void **state)
{
    struct kit kit;
    struct own_interest *own;
    struct peer_interest *p;
    struct match match = {0};
    bool existed;
    kit_init(&kit);
    struct subscriptions *subs = kit.node.subscriptions;
    assert_int_equal(own_interest_new(NULL, NULL, &own), CHR_OK);
    subscriptions_tell(subs, own);
    struct session *s = kit_session(&kit, 0, "a");
    struct subscription_options options = {.qos = 1};
    assert_int_equal(subscriptions_add(subs, s, S("g"), S("x/+"), &options, &existed), CHR_OK);
    assert_int_equal(subscriptions_add(subs, s, S(""), S("x/y"), &options, &existed), CHR_OK);
    assert_int_equal(own_interest_count(own), 2);
    assert_int_equal(subscriptions_peer_changed(subs, 2, S("")), CHR_ENOTFOUND);
    assert_int_equal(peer_interest_new(&p), CHR_OK);
    subscriptions_peer_replace(subs, 2, p);
    assert_int_equal(peer_interest_new(&p), CHR_OK);
    subscriptions_peer_replace(subs, 0, p);

    assert_int_equal(subscriptions_match(subs, S("x/y"), kit.loops[0], &match), CHR_OK);
    assert_int_equal(match.peers, 0);
    assert_int_equal(match.choices_count, 0);
    tell(subs, 2, "", "other", true, false);
    assert_true(subscriptions_current(subs, S("x/y"), &match));
    tell(subs, 2, "", "x/#", true, false);
    assert_false(subscriptions_current(subs, S("x/y"), &match));
    assert_int_equal(subscriptions_match(subs, S("x/y"), kit.loops[0], &match), CHR_OK);
    assert_int_equal(match.peers, 4);
    assert_false(match.durable);
    tell(subs, 2, "", "x/#", true, false); /* no news */
    assert_true(subscriptions_current(subs, S("x/y"), &match));
    tell(subs, 0, "", "+/y", true, true);
    tell(subs, 0, "g", "x/+", true, false);
    tell(subs, 2, "g", "x/+", true, false);
    tell(subs, 2, "h", "x/+", true, false);
    assert_int_equal(subscriptions_match(subs, S("x/y"), kit.loops[0], &match), CHR_OK);
    assert_int_equal(match.peers, 5);
    assert_true(match.durable);
    assert_int_equal(match.choices_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct share_choice *c = &match.choices[i];
        bool g = c->group == interest_group(S("g"), S("x/+"));
        assert_int_equal(c->peers, g ? 5 : 4);
        assert_int_equal(c->local, g ? 0 : UINT32_MAX);
        assert_false(c->durable);
    }
    struct share_pick pick;
    assert_true(
        subscriptions_pick_told(subs, S("x/y"), &match, interest_group(S("g"), S("x/+")), &pick));
    assert_ptr_equal(pick.loop, kit.loops[0]);
    assert_true(subscriptions_pick_told(subs, S("x/y"), &match, 12345, &pick));
    assert_null(pick.loop);

    subscriptions_peer_replace(subs, 0, NULL);
    assert_false(subscriptions_current(subs, S("x/y"), &match));
    assert_int_equal(subscriptions_match(subs, S("x/y"), kit.loops[0], &match), CHR_OK);
    assert_int_equal(match.peers, 4);
    assert_false(match.durable);

    /* One that becomes durable is told so; all are untold when they go. */
    uint64_t version = own_interest_version(own);
    options.durable = true;
    assert_int_equal(subscriptions_add(subs, s, S(""), S("x/y"), &options, &existed), CHR_OK);
    assert_true(existed && own_interest_version(own) > version);
    assert_true(subscriptions_wanted(subs, S("x/y")));
    assert_true(subscriptions_remove(subs, s, S(""), S("x/y")));
    assert_true(subscriptions_wanted(subs, S("x/y")));
    subscriptions_remove_all(subs, s);
    assert_false(subscriptions_wanted(subs, S("x/y")));
    assert_int_equal(own_interest_count(own), 0);
    match_free(&match);
    kit_free(&kit);
    own_interest_free(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_told),      cmocka_unit_test(counted),
        cmocka_unit_test(not_kept_for_ever), cmocka_unit_test(walk_and_changes),
        cmocka_unit_test(in_a_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
