/* tests/raft/test_raft.c: the consensus core of a cluster of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/raft.h"

static const uint64_t self = 7;
static const struct raft_config one = {.self = 7, .voters = &self, .voters_count = 1};

static struct raft_effects tick(struct raft *raft, uint64_t wall_ms)
{
    struct raft_effects effects;
    struct raft_event event = {.type = RAFT_EVENT_TICK, .wall_ms = wall_ms};
    assert_int_equal(raft_step(raft, &event, &effects), CHR_OK);
    return effects;
}

static struct raft_effects saved(struct raft *raft, uint64_t index)
{
    struct raft_effects effects;
    struct raft_event event = {.type = RAFT_EVENT_SAVED, .saved_index = index};
    assert_int_equal(raft_step(raft, &event, &effects), CHR_OK);
    return effects;
}

static chr_err propose(struct raft *raft, uint64_t wall_ms, struct raft_entry *entries,
                       size_t count, struct raft_effects *effects)
{
    struct raft_event event = {
        .type = RAFT_EVENT_PROPOSE, .wall_ms = wall_ms, .entries = entries, .entries_count = count};
    return raft_step(raft, &event, effects);
}

static void test_refusals(void **state)
{
    (void)state;
    struct raft raft;
    const uint64_t three[] = {7, 8, 9}, other = 8;
    struct raft_config config = {.self = 7, .voters = three, .voters_count = 3};
    struct raft_hard_state none = {0};
    assert_int_equal(raft_init(&raft, &config, none, 0, 0, 0), CHR_EUNSUPPORTED);
    config = (struct raft_config){.self = 7, .voters = &other, .voters_count = 1};
    assert_int_equal(raft_init(&raft, &config, none, 0, 0, 0), CHR_EINVAL);
    assert_int_equal(raft_init(&raft, &one, none, 5, 6, 0), CHR_EINVAL);
}

static void test_office(void **state)
{
    (void)state;
    struct raft raft;
    struct raft_entry entries[3] = {{.type = RAFT_ENTRY_DATA, .bytes = CHR_LIT("a")},
                                    {.type = RAFT_ENTRY_DATA, .bytes = CHR_LIT("b")},
                                    {.type = RAFT_ENTRY_TICK}};
    struct raft_effects effects;
    chr_hlc before = chr_hlc_make(5000, 3);
    assert_int_equal(
        raft_init(&raft, &one, (struct raft_hard_state){.term = 4, .vote = 7}, 10, 6, before),
        CHR_OK);
    /* Not the leader yet: untouched. */
    assert_int_equal(propose(&raft, 6000, entries, 3, &effects), CHR_EBUSY);
    assert_int_equal(entries[0].index, 0);
    assert_int_equal(effects.commit_index, 6);

    effects = tick(&raft, 4000); /* the clock ran backwards */
    assert_int_equal(raft.role, RAFT_LEADER);
    assert_true(effects.hard_state_changed);
    assert_int_equal(effects.hard_state.term, 5);
    assert_int_equal(effects.hard_state.vote, 7);
    assert_true(effects.append_noop);
    assert_int_equal(effects.noop.index, 11);
    assert_int_equal(effects.noop.term, 5);
    assert_int_equal(effects.noop.type, RAFT_ENTRY_NOOP);
    assert_true(effects.noop.hlc > before);    /* R14 */
    assert_int_equal(effects.commit_index, 6); /* entries of old terms wait for one of ours */

    assert_int_equal(propose(&raft, 7000, entries, 3, &effects), CHR_OK);
    assert_true(effects.save);
    assert_false(effects.append_noop);
    chr_hlc hlc = chr_hlc_make(5000, 4);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(entries[i].index, 12 + i);
        assert_int_equal(entries[i].term, 5);
        assert_true(entries[i].hlc > hlc);
        hlc = entries[i].hlc;
    }
    assert_int_equal(chr_hlc_unix_ms(entries[0].hlc), 7000);

    assert_int_equal(saved(&raft, 10).commit_index, 6); /* Raft 5.4.2 */
    assert_int_equal(saved(&raft, 11).commit_index, 11);
    assert_int_equal(saved(&raft, 13).commit_index, 13);
    assert_int_equal(saved(&raft, 12).commit_index, 13); /* late news */
    assert_int_equal(saved(&raft, 14).commit_index, 14);

    effects = tick(&raft, 8000); /* in office: nothing to do */
    assert_false(effects.hard_state_changed);
    assert_false(effects.append_noop);
    assert_int_equal(effects.commit_index, 14);
    assert_int_equal(propose(&raft, 8000, entries, 0, &effects), CHR_OK);
    assert_false(effects.save);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_office),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
