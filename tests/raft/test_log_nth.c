/* tests/raft/test_log_nth.c: the same short life again and again, its 1st, 2nd, 3rd … call to the
 * disk failing, until none does. In four manners: an error and life goes on (EIO, ENOSPC), the
 * process dies of it, power fails in the middle of it. */
#include "tests/raft/log_kit.h"

enum manner { GO_ON_EIO, GO_ON_ENOSPC, DIE, POWER, MANNERS };
static const char *const manner_names[] = {"EIO", "ENOSPC", "death", "power failure"};

struct story {
    struct kit kit;
    enum manner manner;
    uint64_t n;
    uint64_t promised;  /* every entry up to here was synced */
    uint64_t vote_term; /* hard state that was promised */
    uint64_t vote_tried;
    bool fired;
};

static void story_open(struct story *s)
{
    struct kit *kit = &s->kit;
    while (!kit->log) {
        chr_err err = kit_try_open(kit);
        if (err) {
            /* Damage there is none, so a refusal would be a lie. */
            if ((err != CHR_EIO && err != CHR_ENOSPC) || kit->disk.faults.nth)
                fail_msg("%s at call %llu: open: %s %s", manner_names[s->manner],
                         (unsigned long long)s->n, chr_errname(err), kit->msg.text);
            s->fired = true;
            if (kit->disk.off)
                fake_disk_crash(&kit->disk);
            else if (s->manner == DIE)
                fake_disk_kill(&kit->disk);
        }
    }
    if (raft_log_last(kit->log) < s->promised)
        fail_msg("%s at call %llu: %llu entries, %llu were promised", manner_names[s->manner],
                 (unsigned long long)s->n, (unsigned long long)raft_log_last(kit->log),
                 (unsigned long long)s->promised);
    uint64_t term = kit->recovery.hard_state.term;
    if (term < s->vote_term || term > s->vote_tried)
        fail_msg("%s at call %llu: hard state %llu", manner_names[s->manner],
                 (unsigned long long)s->n, (unsigned long long)term);
    s->promised = raft_log_last(kit->log);
    s->vote_term = term;
    kit->hlc = kit->recovery.last_hlc;
    uint64_t nth = kit->disk.faults.nth; /* looking is not part of the story */
    kit->disk.faults.nth = 0;
    kit_verify(kit);
    kit->disk.faults.nth = nth;
}

static void story_restart(struct story *s)
{
    struct kit *kit = &s->kit;
    s->fired = true;
    bool off = kit->disk.off;
    if (s->manner == GO_ON_EIO || s->manner == GO_ON_ENOSPC) {
        kit_close(kit);
    } else {
        kit_die(kit, off || s->manner == POWER);
    }
    story_open(s);
}

/* Retries what may be retried; else closes, opens and takes it from there. */
static bool story_answer(struct story *s, chr_err err)
{
    if (err == CHR_OK)
        return true;
    s->fired = true;
    if (err == CHR_ENOSPC && s->manner == GO_ON_ENOSPC)
        return false;
    if (err == s->kit.disk.faults.nth_error && s->manner != POWER) /* a read: nothing happened */
        return false;
    assert_true(err == CHR_EDOUBT || err == CHR_EIO);
    story_restart(s);
    return false;
}

static void story_group(struct story *s, size_t count)
{
    struct kit *kit = &s->kit;
    uint64_t target = raft_log_last(kit->log) + count;
    while (raft_log_synced(kit->log) < target) {
        if (raft_log_last(kit->log) < target)
            kit_append(kit, (size_t)(target - raft_log_last(kit->log)));
        if (story_answer(s, raft_log_sync(kit->log, &kit->msg)))
            s->promised = raft_log_synced(kit->log);
    }
}

static void story_vote(struct story *s, uint64_t term)
{
    s->vote_tried = term;
    while (!story_answer(
        s, raft_log_set_hard_state(s->kit.log, (struct raft_hard_state){.term = term, .vote = 1})))
        ;
    s->vote_term = term;
}

static void tell(struct story *s)
{
    struct kit *kit = &s->kit;
    kit_init(kit);
    /* Groups of several entries here mostly cross a border. */
    kit->options.segment_bytes = 8192;
    kit->options.first_segment_bytes = 4096;
    kit->disk.random.state = s->n * 7 + s->manner;
    kit->disk.faults.nth = s->n;
    kit->disk.faults.nth_error = s->manner == GO_ON_ENOSPC ? CHR_ENOSPC : CHR_EIO;
    kit->disk.faults.nth_off = s->manner == POWER;
    story_open(s);
    story_vote(s, 1);
    for (size_t i = 0; i < 6; i++)
        story_group(s, 1 + i);
    story_vote(s, 2);
    for (size_t i = 0; i < 6; i++)
        story_group(s, 6);
    uint64_t checkpoint = s->promised - 10;
    assert_int_equal(raft_log_cut_prefix(kit->log, checkpoint), CHR_OK);
    kit->start = checkpoint + 1;
    story_group(s, 8);
    s->promised -= 3; /* from now on either is right */
    while (!story_answer(s, raft_log_truncate_suffix(kit->log, s->promised)))
        ;
    kit->hlc += 100;
    for (size_t i = 0; i < 6; i++)
        story_group(s, 4);
    kit_close(kit);
    story_open(s);
    story_group(s, 2);
    assert_int_equal(raft_log_cut_prefix(kit->log, s->promised - 1), CHR_OK);
    kit->start = s->promised;
    story_group(s, 20);
    s->fired |= kit->disk.faults.nth == 0;
    kit->disk.faults.nth = 0;
    kit_die(kit, true);
    story_open(s);
    story_group(s, 1);
    kit_verify(kit);
    kit_free(kit);
}

static void test_every_call(void **state)
{
    (void)state;
    for (enum manner manner = 0; manner < MANNERS; manner++) {
        uint64_t n = 1;
        for (;; n++) {
            struct story s = {.manner = manner, .n = n};
            tell(&s);
            if (!s.fired)
                break;
        }
        print_message("%s: %llu calls failed in turn\n", manner_names[manner],
                      (unsigned long long)n - 1);
        assert_true(n > 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_call)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
