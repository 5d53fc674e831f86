/* The trie against mqtt_topic_matches(), filter by filter. */
#include "proto/mqtt/topic.h"
#include "tests/broker/session/kit.h"

#define SESSIONS 12
#define STEPS    3000
#define LIVE_MAX 400

/* The naive twin: a list. */
struct naive {
    struct session *session;
    char filter[64];
    struct subscription_options options;
};
static struct naive live[LIVE_MAX];
static size_t live_count;

static size_t naive_find(const struct session *s, const char *filter)
{
    size_t i = 0;
    while (i < live_count && (live[i].session != s || strcmp(live[i].filter, filter) != 0))
        i++;
    return i;
}

static void check_ids(chr_slice block, const char *topic, const struct session *s, bool local)
{
    uint64_t sum = 0, expected = 0;
    struct mqtt_properties properties = {.raw = block};
    struct mqtt_property_iter it = mqtt_property_iter(&properties);
    uint32_t id;
    while (mqtt_subscription_id_next(&it, &id))
        sum += id;
    for (size_t i = 0; i < live_count; i++)
        if (live[i].session == s && !(local && live[i].options.no_local) &&
            mqtt_topic_matches(chr_slice_cstr(live[i].filter), chr_slice_cstr(topic)))
            expected += live[i].options.id;
    assert_true(sum == expected);
}

static void check_match(struct kit *kit, const char *topic, uint32_t loop, struct match *match)
{
    uint64_t others = 0;
    struct subscriptions *subs = kit->node.subscriptions;
    assert_int_equal(subscriptions_match(subs, chr_slice_cstr(topic), kit->loops[loop], match),
                     CHR_OK);
    assert_true(match->version == subscriptions_version(subs));
    uint32_t own = 0;
    for (uint32_t i = 0; i < match->own_count; i++) {
        const struct recipient *r = &match->own[i];
        for (uint32_t k = 0; k < i; k++) /* one copy per session */
            assert_ptr_not_equal(match->own[k].session, r->session);
        int qos = -1, qos_local = 0xff;
        bool rap = false;
        for (size_t n = 0; n < live_count; n++) {
            if (live[n].session != r->session ||
                !mqtt_topic_matches(chr_slice_cstr(live[n].filter), chr_slice_cstr(topic)))
                continue;
            qos = CHR_MAX(qos, live[n].options.qos);
            rap |= live[n].options.retain_as_published;
            if (!live[n].options.no_local)
                qos_local = qos_local == 0xff ? live[n].options.qos
                                              : CHR_MAX(qos_local, live[n].options.qos);
        }
        assert_int_equal(r->qos, qos); /* -1: it should not be here at all */
        assert_int_equal(r->qos_local, qos_local);
        assert_int_equal(r->retain_as_published, rap);
        check_ids(chr_slice_of(match->ids + r->ids_at, r->ids_len), topic, r->session, false);
        check_ids(chr_slice_of(match->ids + r->local_ids_at, r->local_ids_len), topic, r->session,
                  true);
        own++;
    }
    /* and nobody is missing */
    struct session *seen[SESSIONS];
    uint32_t seen_count = 0;
    for (size_t n = 0; n < live_count; n++) {
        struct session *s = live[n].session;
        if (!mqtt_topic_matches(chr_slice_cstr(live[n].filter), chr_slice_cstr(topic)))
            continue;
        if (s->loop != kit->loops[loop]) {
            others |= UINT64_C(1) << s->loop->number;
            continue;
        }
        uint32_t k = 0;
        while (k < seen_count && seen[k] != s)
            k++;
        if (k == seen_count)
            seen[seen_count++] = s;
    }
    assert_int_equal(own, seen_count);
    assert_true(match->others == others);
}

static void test_against_naive_twin(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct chr_random random = kit_random();
    struct session *sessions[SESSIONS];
    struct match match = {0};
    live_count = 0;
    for (int i = 0; i < SESSIONS; i++) {
        char id[16];
        sprintf(id, "s%d", i);
        sessions[i] = kit_session(&kit, (uint32_t)i % KIT_LOOPS, id);
    }
    struct subscriptions *subs = kit.node.subscriptions;
    for (int step = 0; step < STEPS; step++) {
        char text[64];
        struct session *s = sessions[chr_random_below(&random, SESSIONS)];
        uint64_t what = chr_random_below(&random, 100);
        if (what < 45) {
            kit_topic(&random, text, true);
            size_t at = naive_find(s, text);
            if (at == LIVE_MAX)
                continue;
            struct subscription_options options = {
                .qos = (uint8_t)chr_random_below(&random, 3),
                .no_local = chr_random_below(&random, 4) == 0,
                .retain_as_published = chr_random_below(&random, 4) == 0,
                .id = (uint32_t)chr_random_below(&random, 2) * (uint32_t)(1 + step * 1000),
            };
            bool existed;
            assert_int_equal(
                subscriptions_add(subs, s, CHR_LIT(""), chr_slice_cstr(text), &options, &existed),
                CHR_OK);
            assert_int_equal(existed, at < live_count);
            live_count += !existed;
            live[at].session = s;
            strcpy(live[at].filter, text);
            live[at].options = options;
        } else if (what < 75) {
            size_t at = live_count;
            if (live_count && what < 65) {
                at = chr_random_below(&random, live_count);
                strcpy(text, live[at].filter);
                s = live[at].session;
            } else {
                kit_topic(&random, text, true);
                at = naive_find(s, text);
            }
            assert_int_equal(subscriptions_remove(subs, s, CHR_LIT(""), chr_slice_cstr(text)),
                             at < live_count);
            if (at < live_count)
                live[at] = live[--live_count];
        } else if (what < 77) {
            subscriptions_remove_all(subs, s);
            for (size_t i = live_count; i-- > 0;)
                if (live[i].session == s)
                    live[i] = live[--live_count];
        } else {
            kit_topic(&random, text, false);
            check_match(&kit, text, (uint32_t)chr_random_below(&random, KIT_LOOPS), &match);
        }
        assert_int_equal(subscriptions_count(subs), live_count);
    }
    match_free(&match);
    kit_free(&kit);
}

static void count_shares(struct kit *kit, const char *topic, unsigned *counts, int rounds,
                         struct session **members, int members_count)
{
    struct match match = {0};
    struct share_pick pick;
    memset(counts, 0, sizeof *counts * (size_t)members_count);
    assert_int_equal(
        subscriptions_match(kit->node.subscriptions, chr_slice_cstr(topic), kit->loops[0], &match),
        CHR_OK);
    assert_int_equal(match.own_count, 0);
    assert_int_equal(match.groups_count, 1);
    for (int i = 0; i < rounds; i++) {
        assert_true(
            subscriptions_pick(kit->node.subscriptions, chr_slice_cstr(topic), &match, &pick));
        for (int k = 0; k < members_count; k++)
            counts[k] += pick.session_number == members[k]->number;
    }
    match_free(&match);
}

static void test_shares_take_turns(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *members[3];
    unsigned counts[3];
    struct subscription_options options = {.qos = 1};
    bool existed;
    for (int i = 0; i < 3; i++) {
        char id[16];
        sprintf(id, "m%d", i);
        members[i] = kit_session(&kit, (uint32_t)i % KIT_LOOPS, id);
        atomic_store(&members[i]->connected, true);
        assert_int_equal(subscriptions_add(kit.node.subscriptions, members[i], CHR_LIT("g"),
                                           CHR_LIT("jobs/+"), &options, &existed),
                         CHR_OK);
        assert_false(existed);
    }
    assert_int_equal(subscriptions_shared_count(kit.node.subscriptions), 3);
    count_shares(&kit, "jobs/1", counts, 30, members, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(counts[i], 10);
    /* who is away is left out, unless all are */
    atomic_store(&members[1]->connected, false);
    count_shares(&kit, "jobs/1", counts, 30, members, 3);
    assert_int_equal(counts[1], 0);
    assert_int_equal(counts[0] + counts[2], 30);
    for (int i = 0; i < 3; i++)
        atomic_store(&members[i]->connected, false);
    count_shares(&kit, "jobs/1", counts, 30, members, 3);
    assert_int_equal(counts[0] + counts[1] + counts[2], 30);

    /* a pick of an old match is refused */
    struct match match = {0};
    struct share_pick pick;
    assert_int_equal(
        subscriptions_match(kit.node.subscriptions, CHR_LIT("jobs/1"), kit.loops[0], &match),
        CHR_OK);
    assert_true(
        subscriptions_remove(kit.node.subscriptions, members[2], CHR_LIT("g"), CHR_LIT("jobs/+")));
    assert_false(subscriptions_pick(kit.node.subscriptions, CHR_LIT("jobs/1"), &match, &pick));
    match_free(&match);
    assert_false(
        subscriptions_remove(kit.node.subscriptions, members[0], CHR_LIT("h"), CHR_LIT("jobs/+")));
    assert_false(
        subscriptions_remove(kit.node.subscriptions, members[0], CHR_LIT(""), CHR_LIT("jobs/+")));
    kit_free(&kit);
}

static void add_text(void *arg, const struct subscription_options *options, chr_slice filter)
{
    (void)options;
    chr_buf_add_slice(arg, filter);
    chr_buf_add_u8(arg, ' ');
}

static void test_listing(void **state)
{
    (void)state;
    struct kit kit;
    kit_init(&kit);
    struct session *s = kit_session(&kit, 0, "s");
    struct subscription_options options = {0};
    bool existed;
    const char *filters[] = {"/", "a//b", "#", "+/x"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(subscriptions_add(kit.node.subscriptions, s, CHR_LIT(""),
                                           chr_slice_cstr(filters[i]), &options, &existed),
                         CHR_OK);
    assert_int_equal(subscriptions_add(kit.node.subscriptions, s, CHR_LIT("g"), CHR_LIT("a/b"),
                                       &options, &existed),
                     CHR_OK);
    struct chr_buf text;
    chr_buf_init(&text, 4096);
    subscriptions_each(kit.node.subscriptions, s, add_text, &text);
    chr_buf_add_u8(&text, 0);
    assert_string_equal((char *)text.ptr, "$share/g/a/b +/x # a//b / ");
    chr_buf_free(&text);
    kit_free(&kit);
}

/* ---- Retained messages, against the same twin -------------------------------------------------
 */

#define KEPT_MAX 300
static char kept[KEPT_MAX][64];
static size_t kept_count;

struct count {
    size_t count;
    const char *filter;
};

static bool count_one(void *arg, struct message *message)
{
    struct count *c = arg;
    c->count++;
    assert_true(mqtt_topic_matches(chr_slice_cstr(c->filter), message->topic));
    return true;
}

static void test_retained_against_naive_twin(void **state)
{
    (void)state;
    struct chr_random random = kit_random();
    struct retained *retained;
    assert_int_equal(retained_new(KEPT_MAX, 1 << 20, &retained), CHR_OK);
    kept_count = 0;
    for (int step = 0; step < STEPS; step++) {
        char text[64];
        if (chr_random_below(&random, 2)) {
            kit_topic(&random, text, false);
            bool remove = chr_random_below(&random, 3) == 0;
            size_t at = 0;
            while (at < kept_count && strcmp(kept[at], text) != 0)
                at++;
            struct message *m = kit_message(text, remove ? "" : "x", 0);
            chr_err err = retained_set(retained, m);
            message_unref(m);
            assert_int_equal(err, at == KEPT_MAX && !remove ? CHR_EFULL : CHR_OK);
            if (remove && at < kept_count)
                memmove(kept[at], kept[--kept_count], sizeof kept[0]);
            else if (!remove && at == kept_count && at < KEPT_MAX)
                strcpy(kept[kept_count++], text);
        } else {
            kit_topic(&random, text, true);
            struct count c = {.filter = text};
            size_t expected = 0;
            for (size_t i = 0; i < kept_count; i++)
                expected += mqtt_topic_matches(chr_slice_cstr(text), chr_slice_cstr(kept[i]));
            retained_match(retained, chr_slice_cstr(text), 0, count_one, &c);
            assert_int_equal(c.count, expected);
        }
        struct retained_stats stats;
        retained_stats(retained, &stats);
        assert_int_equal(stats.count, kept_count);
    }
    retained_free(retained);
}

static void test_retained_limits(void **state)
{
    (void)state;
    struct retained *retained;
    struct retained_stats stats;
    struct message *small = kit_message("a", "x", 0), *large = kit_message("b", "xxxxxxxxxx", 0);
    assert_int_equal(retained_new(1, message_bytes(large), &retained), CHR_OK);
    assert_int_equal(retained_set(retained, small), CHR_OK);
    assert_int_equal(retained_set(retained, large), CHR_EFULL); /* count */
    struct message *replaced = kit_message("a", "yyyyyyyyyy", 0);
    assert_int_equal(retained_set(retained, replaced), CHR_OK);
    struct message *too_large = kit_message("a", "zzzzzzzzzzz", 0);
    assert_int_equal(retained_set(retained, too_large), CHR_EFULL); /* bytes */
    retained_stats(retained, &stats);
    assert_int_equal(stats.count, 1);
    assert_int_equal(stats.refused, 2);
    assert_int_equal(stats.bytes, message_bytes(replaced));
    /* an expired one is gone for readers, then swept */
    struct message *expiring = kit_message("a", "y", 0);
    expiring->has_expiry = true;
    expiring->expires_mono_us = 100;
    assert_int_equal(retained_set(retained, expiring), CHR_OK);
    struct count c = {.filter = "#"};
    retained_match(retained, CHR_LIT("#"), 99, count_one, &c);
    assert_int_equal(c.count, 1);
    retained_match(retained, CHR_LIT("#"), 100, count_one, &c);
    assert_int_equal(c.count, 1);
    retained_sweep(retained, 100);
    retained_stats(retained, &stats);
    assert_int_equal(stats.count, 0);
    assert_int_equal(stats.bytes, 0);
    message_unref(small);
    message_unref(large);
    message_unref(replaced);
    message_unref(too_large);
    message_unref(expiring);
    retained_free(retained);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_naive_twin),
        cmocka_unit_test(test_shares_take_turns),
        cmocka_unit_test(test_listing),
        cmocka_unit_test(test_retained_against_naive_twin),
        cmocka_unit_test(test_retained_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
