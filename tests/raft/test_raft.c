/* tests/raft/test_raft.c: the consensus core, rule by rule; whole histories are in tests/sim. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "raft/raft.h"

#define INCARNATION(id) ((id)*1000)

/* One core under test; the others are played by hand. */
struct bench {
    struct raft raft;
    struct raft_effects effects;
    int64_t now_us;
};

static struct raft_members members_of(uint32_t voters)
{
    struct raft_members m = {0};
    for (uint64_t id = 1; id <= voters; id++)
        assert_int_equal(raft_members_add(&m, (struct raft_member){id, INCARNATION(id), true}), 0);
    return m;
}

static void start(struct bench *b, uint32_t voters, struct raft_stored stored)
{
    struct raft_config config = {.self = 1, .incarnation = INCARNATION(1)};
    stored.members = members_of(voters);
    *b = (struct bench){.now_us = 1000000};
    assert_int_equal(raft_init(&b->raft, &config, &stored), CHR_OK);
}

static chr_err step(struct bench *b, struct raft_event event)
{
    event.now_us = b->now_us;
    if (!event.wall_ms)
        event.wall_ms = 5000;
    return raft_step(&b->raft, &event, &b->effects);
}

static void tick(struct bench *b, int64_t later_us)
{
    b->now_us += later_us;
    assert_int_equal(step(b, (struct raft_event){.type = RAFT_EVENT_TICK}), CHR_OK);
}

static chr_err receive(struct bench *b, struct raft_message m)
{
    m.to = 1;
    if (!m.from)
        m.from = 2;
    if (!m.from_incarnation)
        m.from_incarnation = INCARNATION(m.from);
    return step(b, (struct raft_event){.type = RAFT_EVENT_MESSAGE, .message = &m});
}

static void saved(struct bench *b)
{
    assert_int_equal(step(b, (struct raft_event){.type = RAFT_EVENT_SAVED,
                                                 .sequence = b->raft.save_sequence,
                                                 .saved_index = b->raft.last_index}),
                     CHR_OK);
}

static chr_err propose(struct bench *b, struct raft_entry *entries, size_t count)
{
    return step(b, (struct raft_event){
                       .type = RAFT_EVENT_PROPOSE, .entries = entries, .entries_count = count});
}

/* The only message of the last step. */
static const struct raft_message *said(const struct bench *b, enum raft_message_type type)
{
    assert_int_equal(b->effects.messages_count, 1);
    assert_int_equal(b->effects.messages[0].type, type);
    return &b->effects.messages[0];
}

/* Node 1 becomes the leader of three, in the term after the one it had. */
static void elect(struct bench *b)
{
    tick(b, 0);
    tick(b, 700000);
    uint64_t term = b->raft.term + 1;
    assert_int_equal(b->raft.role, RAFT_PRE_CANDIDATE);
    assert_int_equal(receive(b, (struct raft_message){.type = RAFT_MESSAGE_PRE_VOTE_REPLY,
                                                      .term = term,
                                                      .granted = true}),
                     CHR_OK);
    assert_int_equal(b->raft.role, RAFT_CANDIDATE);
    assert_int_equal(b->raft.term, term);
    assert_int_equal(receive(b, (struct raft_message){.type = RAFT_MESSAGE_VOTE_REPLY,
                                                      .term = term,
                                                      .granted = true}),
                     CHR_OK);
    assert_int_equal(b->raft.role, RAFT_LEADER);
}

/* Node `from` has everything up to match, as of now. */
static void acknowledged(struct bench *b, uint64_t from, uint64_t match)
{
    assert_int_equal(receive(b, (struct raft_message){.type = RAFT_MESSAGE_APPEND_REPLY,
                                                      .from = from,
                                                      .term = b->raft.term,
                                                      .granted = true,
                                                      .match = match,
                                                      .accepted = match,
                                                      .last = match,
                                                      .sent_us = b->now_us}),
                     CHR_OK);
}

static const struct raft_term_run one_run[] = {{1, 1}};
static const struct raft_term_run two_runs[] = {{1, 1}, {4, 3}};

/* ---- Alone ------------------------------------------------------------------------------------
 */

static void test_refusals(void **state)
{
    (void)state;
    struct bench b;
    struct raft_config config = {.self = 1}, nobody = {.self = 0};
    struct raft_stored stored = {.members = members_of(1)};
    assert_int_equal(raft_init(&b.raft, &nobody, &stored), CHR_EINVAL);
    stored = (struct raft_stored){.members = members_of(1), .last_index = 5, .commit_index = 6};
    assert_int_equal(raft_init(&b.raft, &config, &stored), CHR_EINVAL);
    stored = (struct raft_stored){.members = members_of(1), .last_index = 5}; /* terms of nothing */
    assert_int_equal(raft_init(&b.raft, &config, &stored), CHR_EINVAL);
    stored.runs = one_run;
    stored.runs_count = 1; /* a term that was never persisted */
    assert_int_equal(raft_init(&b.raft, &config, &stored), CHR_EINVAL);
    raft_free(&b.raft);
}

static void test_alone(void **state)
{
    (void)state;
    struct bench b;
    struct raft_entry entries[3] = {{.type = RAFT_ENTRY_DATA, .bytes = CHR_LIT("a")},
                                    {.type = RAFT_ENTRY_DATA, .bytes = CHR_LIT("b")},
                                    {.type = RAFT_ENTRY_TICK}};
    chr_hlc before = chr_hlc_make(5000, 3);
    start(&b, 1,
          (struct raft_stored){.hard_state = {.term = 4, .vote = 1},
                               .last_index = 10,
                               .commit_index = 6,
                               .last_hlc = before,
                               .runs = two_runs,
                               .runs_count = 2});
    assert_int_equal(propose(&b, entries, 3), CHR_EBUSY); /* not the leader yet: untouched */
    assert_int_equal(entries[0].index, 0);
    assert_int_equal(b.effects.commit_index, 6);

    tick(&b, 0); /* nobody to wait for; the wall clock ran backwards */
    assert_int_equal(b.raft.role, RAFT_LEADER);
    assert_true(b.effects.hard_state_changed);
    assert_int_equal(b.effects.hard_state.term, 5);
    assert_int_equal(b.effects.hard_state.vote, 1);
    assert_int_equal(b.effects.save_count, 1);
    assert_int_equal(b.effects.save[0].type, RAFT_ENTRY_NOOP);
    assert_int_equal(b.effects.save[0].index, 11);
    assert_int_equal(b.effects.save[0].term, 5);
    assert_true(b.effects.save[0].hlc > before); /* R14 */
    assert_int_equal(b.effects.commit_index, 6); /* entries of old terms wait for one of ours */
    assert_int_equal(raft_next_due_us(&b.raft), INT64_MAX);

    assert_int_equal(propose(&b, entries, 3), CHR_OK);
    assert_ptr_equal(b.effects.save, entries);
    chr_hlc hlc = chr_hlc_make(5000, 4);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(entries[i].index, 12 + i);
        assert_int_equal(entries[i].term, 5);
        assert_true(entries[i].hlc > hlc);
        hlc = entries[i].hlc;
    }
    struct raft_event event = {.type = RAFT_EVENT_SAVED, .sequence = 1, .saved_index = 10};
    assert_int_equal(step(&b, event), CHR_OK);
    assert_int_equal(b.effects.commit_index, 6); /* thesis 3.6.2 */
    event.saved_index = 11;
    assert_int_equal(step(&b, event), CHR_OK);
    assert_int_equal(b.effects.commit_index, 11);
    saved(&b);
    assert_int_equal(b.effects.commit_index, 14);

    /* Reads need nobody either. */
    assert_int_equal(step(&b, (struct raft_event){.type = RAFT_EVENT_READ, .read_number = 1}),
                     CHR_OK);
    assert_int_equal(b.effects.read, RAFT_READ_NOW);
    assert_int_equal(b.effects.read_index, 14);
    assert_int_equal(propose(&b, entries, 0), CHR_OK);
    assert_int_equal(b.effects.save_count, 0);
    raft_free(&b.raft);
}

/* ---- Elections --------------------------------------------------------------------------------
 */

static void test_election(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    tick(&b, 0);
    assert_int_equal(b.raft.role, RAFT_FOLLOWER);
    tick(&b, 700000);
    assert_int_equal(b.effects.messages_count, 2);
    assert_int_equal(b.effects.messages[0].type, RAFT_MESSAGE_PRE_VOTE);
    assert_int_equal(b.effects.messages[0].term, 1);
    assert_int_equal(b.raft.term, 0); /* asking changes nothing */
    assert_false(b.effects.hard_state_changed);
    struct raft_message would = {.type = RAFT_MESSAGE_PRE_VOTE_REPLY, .term = 1, .granted = true};
    assert_int_equal(receive(&b, would), CHR_OK);
    assert_true(b.effects.hard_state_changed);
    assert_int_equal(b.effects.messages[0].type, RAFT_MESSAGE_VOTE);
    assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_VOTE_REPLY, .term = 1}),
                     CHR_OK);
    assert_int_equal(b.raft.role, RAFT_CANDIDATE); /* refused */
    struct raft_message yes = {
        .type = RAFT_MESSAGE_VOTE_REPLY, .from = 3, .term = 1, .granted = true};
    yes.from_incarnation = 17; /* R20: somebody who lost its disk */
    assert_int_equal(receive(&b, yes), CHR_EACCES);
    assert_int_equal(b.raft.role, RAFT_CANDIDATE);
    yes.from_incarnation = 0;
    assert_int_equal(receive(&b, yes), CHR_OK);
    assert_int_equal(b.raft.role, RAFT_LEADER);
    assert_int_equal(b.effects.save[0].type, RAFT_ENTRY_NOOP);
    assert_int_equal(b.effects.append_to, 6); /* both others */
    raft_free(&b.raft);
}

static void test_votes(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3,
          (struct raft_stored){
              .hard_state = {.term = 3}, .last_index = 5, .runs = two_runs, .runs_count = 2});
    struct raft_message vote = {.type = RAFT_MESSAGE_VOTE, .term = 4, .index = 5, .log_term = 3};
    assert_int_equal(receive(&b, vote), CHR_OK);
    assert_int_equal(b.effects.messages_count, 0); /* R19: just started */
    assert_int_equal(b.raft.term, 3);
    b.now_us += 400000;
    vote.index = 4; /* shorter */
    assert_int_equal(receive(&b, vote), CHR_OK);
    assert_false(said(&b, RAFT_MESSAGE_VOTE_REPLY)->granted);
    assert_int_equal(b.raft.term, 4);
    vote.index = 9;
    vote.log_term = 1; /* longer, but older */
    assert_int_equal(receive(&b, vote), CHR_OK);
    assert_false(said(&b, RAFT_MESSAGE_VOTE_REPLY)->granted);
    vote.index = 5;
    vote.log_term = 3;
    assert_int_equal(receive(&b, vote), CHR_OK);
    assert_true(said(&b, RAFT_MESSAGE_VOTE_REPLY)->granted);
    assert_true(b.effects.hard_state_changed);
    assert_int_equal(b.effects.hard_state.vote, 2);
    assert_int_equal(receive(&b, vote), CHR_OK); /* once more, the same */
    assert_true(said(&b, RAFT_MESSAGE_VOTE_REPLY)->granted);
    vote.from = 3;
    assert_int_equal(receive(&b, vote), CHR_OK); /* one vote a term */
    assert_false(said(&b, RAFT_MESSAGE_VOTE_REPLY)->granted);
    /* A leader shows up: nobody is helped against it, except by its own wish. */
    assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_HEARTBEAT, .term = 4}),
                     CHR_OK);
    b.now_us += 100000;
    vote.term = 5;
    assert_int_equal(receive(&b, vote), CHR_OK);
    assert_int_equal(b.effects.messages_count, 0);
    vote.forced = true;
    assert_int_equal(receive(&b, vote), CHR_OK);
    assert_true(said(&b, RAFT_MESSAGE_VOTE_REPLY)->granted);
    raft_free(&b.raft);
}

/* R19: what comes late from another campaign does not part a follower from the leader it answers.
 */
static void test_late_replies(void **state)
{
    (void)state;
    static const enum raft_message_type types[] = {
        RAFT_MESSAGE_PRE_VOTE_REPLY, RAFT_MESSAGE_VOTE_REPLY, RAFT_MESSAGE_APPEND_REPLY,
        RAFT_MESSAGE_HEARTBEAT_REPLY};
    for (size_t i = 0; i < CHR_COUNT_OF(types); i++) {
        struct bench b;
        start(&b, 3, (struct raft_stored){0});
        tick(&b, 0);
        b.now_us += 400000;
        struct raft_message heartbeat = {.type = RAFT_MESSAGE_HEARTBEAT, .term = 4};
        assert_int_equal(receive(&b, heartbeat), CHR_OK);
        assert_int_equal(receive(&b, (struct raft_message){.type = types[i], .from = 3, .term = 5}),
                         CHR_OK);
        assert_int_equal(b.raft.term, 4);
        struct raft_message vote = {.type = RAFT_MESSAGE_VOTE, .from = 3, .term = 5};
        assert_int_equal(receive(&b, vote), CHR_OK);
        assert_int_equal(b.effects.messages_count, 0);
        assert_int_equal(b.raft.leader, 2);
        raft_free(&b.raft);
    }
}

/* What an authenticated peer may send in malice or by a bug: refused, and the log is untouched. */
static void test_hostile(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3,
          (struct raft_stored){
              .hard_state = {.term = 3}, .last_index = 5, .runs = two_runs, .runs_count = 2});
    struct raft_message m = {.type = RAFT_MESSAGE_HEARTBEAT, .term = UINT64_MAX};
    assert_int_equal(receive(&b, m), CHR_EPROTO);
    m = (struct raft_message){.type = RAFT_MESSAGE_APPEND, .term = 4, .index = UINT64_MAX};
    assert_int_equal(receive(&b, m), CHR_EPROTO);
    assert_int_equal(b.raft.term, 3);
    struct raft_entry good = {.index = 6, .term = 4, .hlc = 9, .type = RAFT_ENTRY_DATA};
    struct raft_entry bad[6];
    for (size_t i = 0; i < CHR_COUNT_OF(bad); i++)
        bad[i] = good;
    bad[0].type = 9;
    bad[1].bytes.len = RAFT_ENTRY_BYTES_MAX + 1;
    bad[2].hlc = UINT64_MAX;
    bad[3].index = 7;
    bad[4].term = 5;
    bad[5] = (struct raft_entry){
        .index = 6, .term = 4, .hlc = 9, .type = RAFT_ENTRY_CONFIG, .bytes = CHR_LIT("?")};
    for (size_t i = 0; i < CHR_COUNT_OF(bad); i++) {
        m = (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                                  .term = 4,
                                  .index = 5,
                                  .log_term = 3,
                                  .entries = &bad[i],
                                  .entries_count = 1};
        assert_int_equal(receive(&b, m), CHR_OK);
        assert_int_equal(b.effects.save_count, 0);
        assert_int_equal(b.raft.last_index, 5);
    }
    m.entries = &good;
    assert_int_equal(receive(&b, m), CHR_OK);
    assert_int_equal(b.effects.save_count, 1);
    struct raft_entry other = good; /* the leader of a term contradicts itself */
    other.index = 5;
    m = (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                              .term = 4,
                              .index = 4,
                              .log_term = 3,
                              .entries = &other,
                              .entries_count = 1};
    assert_int_equal(receive(&b, m), CHR_EPROTO);
    assert_false(b.effects.truncate);
    /* HLCs rise along the log (R14): what the log would not take is not taken. */
    struct raft_entry back = {.index = 7, .term = 4, .hlc = 9, .type = RAFT_ENTRY_DATA};
    m = (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                              .term = 4,
                              .index = 6,
                              .log_term = 4,
                              .entries = &back,
                              .entries_count = 1};
    assert_int_equal(receive(&b, m), CHR_EPROTO);
    assert_int_equal(b.raft.last_index, 6);
    assert_int_equal(b.effects.save_count, 0);
    back.hlc = 10;
    assert_int_equal(receive(&b, m), CHR_OK);
    assert_int_equal(b.raft.last_index, 7);
    m = (struct raft_message){.type = RAFT_MESSAGE_VOTE, .term = 6, .to = 1, .from_incarnation = 7};
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE, .message = &m};
    assert_int_equal(step(&b, event), CHR_EACCES); /* from nobody */
    raft_free(&b.raft);
}

static void test_lost_tail(void **state)
{
    (void)state;
    struct bench b;
    struct raft_config config = {.self = 1, .incarnation = INCARNATION(1), .lost_tail = true};
    struct raft_stored stored = {.members = members_of(3)};
    b = (struct bench){.now_us = 1000000};
    assert_int_equal(raft_init(&b.raft, &config, &stored), CHR_OK);
    tick(&b, 0);
    tick(&b, 700000);
    assert_int_equal(b.raft.role, RAFT_FOLLOWER);
    struct raft_message vote = {.type = RAFT_MESSAGE_VOTE, .term = 1};
    assert_int_equal(receive(&b, vote), CHR_OK);
    assert_false(said(&b, RAFT_MESSAGE_VOTE_REPLY)->granted);
    struct raft_entry e = {.index = 1, .term = 1, .hlc = 1, .type = RAFT_ENTRY_NOOP};
    struct raft_message append = {
        .type = RAFT_MESSAGE_APPEND, .term = 1, .commit = 1, .entries = &e, .entries_count = 1};
    assert_int_equal(receive(&b, append), CHR_OK);
    assert_true(b.raft.catching_up); /* it has it, and its disk has not */
    assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_HEARTBEAT, .term = 1}),
                     CHR_OK);
    assert_true(b.raft.catching_up); /* a leader that does not know yet what is committed */
    saved(&b);
    append.entries_count = 0;
    append.index = append.log_term = 1;
    assert_int_equal(receive(&b, append), CHR_OK);
    assert_false(b.raft.catching_up);
    raft_free(&b.raft);
}

static void test_quorum(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    elect(&b);
    for (int i = 0; i < 20; i++) {
        tick(&b, 50000);
        acknowledged(&b, 2, 0);
    }
    assert_int_equal(b.raft.role, RAFT_LEADER);
    for (int i = 0; i < 20 && b.raft.role == RAFT_LEADER; i++)
        tick(&b, 50000);
    assert_int_equal(b.raft.role, RAFT_FOLLOWER); /* of nobody */
    assert_int_equal(b.raft.leader, 0);
    raft_free(&b.raft);
}

/* ---- Replication ------------------------------------------------------------------------------
 */

static void test_follower(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3,
          (struct raft_stored){
              .hard_state = {.term = 3}, .last_index = 5, .runs = two_runs, .runs_count = 2});
    struct raft_entry e[3] = {{.index = 5, .term = 4, .hlc = 10, .type = RAFT_ENTRY_NOOP},
                              {.index = 6, .term = 4, .hlc = 11, .type = RAFT_ENTRY_DATA},
                              {.index = 7, .term = 4, .hlc = 12, .type = RAFT_ENTRY_DATA}};
    struct raft_message append = {
        .type = RAFT_MESSAGE_APPEND, .term = 4, .index = 7, .log_term = 4, .sent_us = 77};
    assert_int_equal(receive(&b, append), CHR_OK); /* a gap */
    const struct raft_message *reply = said(&b, RAFT_MESSAGE_APPEND_REPLY);
    assert_false(reply->granted);
    assert_int_equal(reply->index, 7);
    assert_int_equal(reply->hint_index, 5);
    assert_int_equal(reply->hint_term, 3);
    append.index = 5;
    append.log_term = 2; /* another entry there: everything of term 3 can be skipped at once */
    assert_int_equal(receive(&b, append), CHR_OK);
    reply = said(&b, RAFT_MESSAGE_APPEND_REPLY);
    assert_false(reply->granted);
    assert_int_equal(reply->hint_index, 3);
    assert_int_equal(reply->hint_term, 1);

    append = (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                                   .term = 4,
                                   .index = 4,
                                   .log_term = 3,
                                   .commit = 6,
                                   .sent_us = 78,
                                   .entries = e,
                                   .entries_count = 2};
    assert_int_equal(receive(&b, append), CHR_OK);
    assert_true(b.effects.truncate);
    assert_int_equal(b.effects.truncate_to, 4);
    assert_ptr_equal(b.effects.save, e);
    assert_int_equal(b.effects.save_count, 2);
    assert_int_equal(b.effects.messages_count, 0); /* not before it is durable */
    assert_int_equal(b.effects.commit_index, 4);   /* committed up to 6, durable up to 4 */
    uint64_t first_save = b.effects.save_sequence;
    append.index = 6;
    append.log_term = 4;
    append.entries = e + 2;
    append.entries_count = 1;
    assert_int_equal(receive(&b, append), CHR_OK);
    assert_false(b.effects.truncate);
    assert_int_equal(step(&b, (struct raft_event){.type = RAFT_EVENT_SAVED,
                                                  .sequence = first_save,
                                                  .saved_index = 6}),
                     CHR_OK);
    reply = said(&b, RAFT_MESSAGE_APPEND_REPLY);
    assert_true(reply->granted);
    assert_int_equal(reply->match, 6);
    assert_int_equal(reply->accepted, 7);
    assert_int_equal(reply->sent_us, 78);
    assert_int_equal(b.effects.commit_index, 6);

    append.index = 4;
    append.log_term = 3;
    append.entries = e;
    append.entries_count = 2; /* again, overtaken: nothing is taken back */
    assert_int_equal(receive(&b, append), CHR_OK);
    assert_false(b.effects.truncate);
    assert_int_equal(b.effects.save_count, 0);
    assert_int_equal(b.raft.last_index, 7);

    append.term = 3; /* somebody who is not leader any more */
    assert_int_equal(receive(&b, append), CHR_OK);
    assert_int_equal(said(&b, RAFT_MESSAGE_APPEND_REPLY)->term, 4);

    struct raft_entry liar = {.index = 6, .term = 5, .hlc = 20, .type = RAFT_ENTRY_DATA};
    append = (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                                   .term = 5,
                                   .index = 5,
                                   .log_term = 4,
                                   .entries = &liar,
                                   .entries_count = 1};
    assert_int_equal(receive(&b, append), CHR_EPROTO); /* 6 is committed */
    assert_false(b.effects.truncate);
    assert_int_equal(b.raft.last_index, 7);
    raft_free(&b.raft);
}

/* News of a save that was contradicted meanwhile say nothing of what stands there now. */
static void test_late_news(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    struct raft_entry old[2] = {{.index = 1, .term = 1, .hlc = 1, .type = RAFT_ENTRY_NOOP},
                                {.index = 2, .term = 1, .hlc = 2, .type = RAFT_ENTRY_DATA}};
    struct raft_entry new = {.index = 2, .term = 2, .hlc = 3, .type = RAFT_ENTRY_NOOP};
    struct raft_message append = {
        .type = RAFT_MESSAGE_APPEND, .term = 1, .entries = old, .entries_count = 2};
    assert_int_equal(receive(&b, append), CHR_OK);
    uint64_t old_save = b.effects.save_sequence;
    append = (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                                   .from = 3,
                                   .term = 2,
                                   .index = 1,
                                   .log_term = 1,
                                   .entries = &new,
                                   .entries_count = 1};
    assert_int_equal(receive(&b, append), CHR_OK);
    assert_true(b.effects.truncate);
    assert_int_equal(
        step(&b,
             (struct raft_event){.type = RAFT_EVENT_SAVED, .sequence = old_save, .saved_index = 2}),
        CHR_OK);
    assert_int_equal(b.raft.saved_index, 0);
    assert_int_equal(b.effects.messages_count, 0);
    saved(&b);
    assert_int_equal(said(&b, RAFT_MESSAGE_APPEND_REPLY)->match, 2);
    raft_free(&b.raft);
}

static void test_commit_rule(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3,
          (struct raft_stored){
              .hard_state = {.term = 3}, .last_index = 5, .runs = two_runs, .runs_count = 2});
    elect(&b);
    acknowledged(&b, 2, 5); /* a majority has entry 5, but of an old term (thesis figure 3.7) */
    assert_int_equal(b.effects.commit_index, 0);
    acknowledged(&b, 2, 6);
    assert_int_equal(b.effects.commit_index, 0); /* our own disk is slow … */
    acknowledged(&b, 3, 6);
    assert_int_equal(b.raft.commit_index, 6); /* … and not needed */
    assert_int_equal(b.effects.commit_index, 5);
    saved(&b);
    assert_int_equal(b.effects.commit_index, 6);
    raft_free(&b.raft);
}

/* What followers had when we led before says nothing of what they have now. */
static void test_elected_again(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    elect(&b);
    acknowledged(&b, 2, 1);
    assert_int_equal(b.raft.peers[1].match, 1);
    struct raft_message heartbeat = {.type = RAFT_MESSAGE_HEARTBEAT, .from = 3, .term = 2};
    assert_int_equal(receive(&b, heartbeat), CHR_OK);
    assert_int_equal(b.raft.role, RAFT_FOLLOWER);
    elect(&b);
    assert_int_equal(b.raft.peers[1].match, 0);
    assert_int_equal(b.raft.peers[1].accepted, 0);
    raft_free(&b.raft);
}

static void test_windows(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    elect(&b);
    struct raft_entry e[4] = {{.type = RAFT_ENTRY_DATA},
                              {.type = RAFT_ENTRY_DATA},
                              {.type = RAFT_ENTRY_DATA},
                              {.type = RAFT_ENTRY_DATA}};
    assert_int_equal(propose(&b, e, 4), CHR_OK);
    struct raft_message m;
    uint64_t last;
    assert_true(raft_next_append(&b.raft, 1, &m, &last));
    assert_int_equal(m.index, 0);
    assert_int_equal(last, 5);
    raft_append_sent(&b.raft, 1, 2, 100);
    assert_false(raft_next_append(&b.raft, 1, &m, &last)); /* one probe at a time */
    acknowledged(&b, 2, 2);
    assert_int_equal(b.raft.peers[1].state, RAFT_PEER_REPLICATE);
    assert_true(raft_next_append(&b.raft, 1, &m, &last));
    assert_int_equal(m.index, 2);
    raft_append_sent(&b.raft, 1, 3, b.raft.config.inflight_bytes_max);
    assert_false(raft_next_append(&b.raft, 1, &m, &last)); /* the window is full */
    acknowledged(&b, 2, 3);
    assert_true(raft_next_append(&b.raft, 1, &m, &last));
    assert_int_equal(m.index, 3);
    raft_append_sent(&b.raft, 1, 5, 100);
    assert_false(raft_next_append(&b.raft, 1, &m, &last));
    /* Lost on the way: it stands still while it answers heartbeats. */
    for (int i = 0; i < 6; i++) {
        tick(&b, 50000);
        assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_HEARTBEAT_REPLY,
                                                           .term = 1,
                                                           .match = 3,
                                                           .accepted = 3,
                                                           .last = 3,
                                                           .sent_us = b.now_us}),
                         CHR_OK);
    }
    assert_true(raft_next_append(&b.raft, 1, &m, &last));
    assert_int_equal(m.index, 3);
    raft_free(&b.raft);
}

static void test_snapshot(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3,
          (struct raft_stored){.hard_state = {.term = 3},
                               .base_index = 3,
                               .base_term = 1,
                               .last_index = 5,
                               .commit_index = 5,
                               .runs = two_runs + 1,
                               .runs_count = 1});
    elect(&b);
    struct raft_message m;
    uint64_t last;
    assert_true(raft_next_append(&b.raft, 2, &m, &last));
    raft_append_sent(&b.raft, 2, 6, 1);
    assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_APPEND_REPLY,
                                                       .from = 3,
                                                       .term = 4,
                                                       .index = m.index,
                                                       .hint_index = 0}),
                     CHR_OK);
    assert_int_equal(b.effects.snapshot_to, 4);
    raft_snapshot_started(&b.raft, 2, 5);
    tick(&b, 1000);
    assert_int_equal(b.effects.snapshot_to, 0);
    assert_false(raft_next_append(&b.raft, 2, &m, &last));
    assert_int_equal(step(&b, (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = 3}),
                     CHR_OK);
    assert_int_equal(b.effects.snapshot_to, 4); /* failed: again */
    raft_snapshot_started(&b.raft, 2, 5);
    assert_int_equal(
        step(&b, (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = 3, .ok = true}),
        CHR_OK);
    assert_true(raft_next_append(&b.raft, 2, &m, &last));
    assert_int_equal(m.index, 5);
    raft_free(&b.raft);
}

/* ---- Reads, transfer, members -----------------------------------------------------------------
 */

static void test_reads(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    elect(&b);
    assert_int_equal(raft_lease_until_us(&b.raft), INT64_MIN); /* nothing of ours is committed */
    saved(&b);
    acknowledged(&b, 2, 1);
    assert_int_equal(raft_lease_until_us(&b.raft), b.now_us + 240000);
    struct raft_event read = {.type = RAFT_EVENT_READ, .read_number = 1};
    assert_int_equal(step(&b, read), CHR_OK);
    assert_int_equal(b.effects.read, RAFT_READ_NOW);
    assert_int_equal(b.effects.read_index, 1);
    b.now_us += 240000; /* counted from when it was asked, not from the answer */
    assert_int_equal(step(&b, read), CHR_OK);
    assert_int_equal(b.effects.read, RAFT_READ_ROUND);
    uint64_t round = b.effects.read_round;
    assert_true(b.effects.read_confirmed < round);
    assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_HEARTBEAT_REPLY,
                                                       .term = 1,
                                                       .read = round - 1}),
                     CHR_OK);
    assert_true(b.effects.read_confirmed < round);
    assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_HEARTBEAT_REPLY,
                                                       .term = 1,
                                                       .read = round}),
                     CHR_OK);
    assert_int_equal(b.effects.read_confirmed, round);
    /* A transfer is tried: no lease in this term any more (R19). */
    acknowledged(&b, 2, 1);
    assert_int_equal(step(&b, (struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = 2}), CHR_OK);
    assert_int_equal(b.effects.messages[0].type, RAFT_MESSAGE_TIMEOUT_NOW);
    assert_int_equal(raft_lease_until_us(&b.raft), INT64_MIN);
    struct raft_entry e = {.type = RAFT_ENTRY_DATA};
    assert_int_equal(propose(&b, &e, 1), CHR_EBUSY);
    for (int i = 0; i < 13; i++) {
        tick(&b, 50000);
        acknowledged(&b, 2, 1);
    }
    assert_int_equal(propose(&b, &e, 1), CHR_OK); /* given up */
    assert_int_equal(raft_lease_until_us(&b.raft), INT64_MIN);
    raft_free(&b.raft);
}

static const struct raft_message *asked_by(struct bench *b, uint64_t from, uint64_t term,
                                           uint64_t number)
{
    assert_int_equal(receive(b, (struct raft_message){.type = RAFT_MESSAGE_READ,
                                                      .from = from,
                                                      .term = term,
                                                      .read = number}),
                     CHR_OK);
    for (uint32_t i = 0; i < b->effects.messages_count; i++)
        if (b->effects.messages[i].type == RAFT_MESSAGE_READ_REPLY)
            return &b->effects.messages[i];
    return NULL;
}

/* A follower asks, and its leader answers (thesis 6.4). */
static void test_reads_of_followers(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    struct raft_event read = {.type = RAFT_EVENT_READ, .read_number = 7};
    tick(&b, 0);
    assert_int_equal(step(&b, read), CHR_OK);
    assert_int_equal(b.effects.read, RAFT_READ_NO_LEADER);
    assert_int_equal(b.effects.messages_count, 0);
    assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_HEARTBEAT, .term = 4}),
                     CHR_OK);
    assert_int_equal(step(&b, read), CHR_OK);
    assert_int_equal(b.effects.read, RAFT_READ_ASKED);
    assert_int_equal(said(&b, RAFT_MESSAGE_READ)->read, 7);
    assert_int_equal(said(&b, RAFT_MESSAGE_READ)->to, 2);
    struct raft_message answer = {
        .type = RAFT_MESSAGE_READ_REPLY, .term = 3, .read = 7, .index = 30};
    assert_int_equal(receive(&b, answer), CHR_OK);
    assert_int_equal(b.effects.read_answered, 0); /* of somebody who is not leader any more */
    answer.term = 4;
    assert_int_equal(receive(&b, answer), CHR_OK);
    assert_int_equal(b.effects.read_answered, 7);
    assert_int_equal(b.effects.read_answer, 30);
    tick(&b, 0);
    assert_int_equal(b.effects.read_answered, 0); /* said once */
    assert_null(asked_by(&b, 3, 4, 1));           /* a follower answers nobody */
    raft_free(&b.raft);

    start(&b, 3, (struct raft_stored){0});
    elect(&b);
    saved(&b);
    acknowledged(&b, 2, 1);
    assert_null(asked_by(&b, 3, 0, 1)); /* does not know whom it asks */
    assert_null(asked_by(&b, 9, 1, 1)); /* no member */
    assert_null(asked_by(&b, 3, 1, 0));
    const struct raft_message *reply = asked_by(&b, 3, 1, 5); /* by our lease */
    assert_non_null(reply);
    assert_int_equal(reply->to, 3);
    assert_int_equal(reply->read, 5);
    assert_int_equal(reply->index, 1);
    b.now_us += 240000;
    assert_null(asked_by(&b, 3, 1, 6)); /* it has run out: a round begins … */
    uint64_t round = b.raft.read_round;
    assert_null(asked_by(&b, 3, 1, 7)); /* … and what comes meanwhile waits for the next one */
    assert_null(asked_by(&b, 3, 1, 8));
    assert_int_equal(b.raft.read_round, round);
    struct raft_message heartbeat_reply = {
        .type = RAFT_MESSAGE_HEARTBEAT_REPLY, .term = 1, .read = round, .sent_us = INT64_MIN};
    assert_int_equal(receive(&b, heartbeat_reply), CHR_OK);
    assert_int_equal(b.effects.messages[0].type, RAFT_MESSAGE_READ_REPLY);
    assert_int_equal(b.effects.messages[0].read, 6);
    assert_int_equal(b.raft.read_round, round + 1);
    heartbeat_reply.read = round + 1;
    assert_int_equal(receive(&b, heartbeat_reply), CHR_OK);
    assert_int_equal(said(&b, RAFT_MESSAGE_READ_REPLY)->read, 8); /* the newest covers them all */
    raft_free(&b.raft);
}

static void test_members_change(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 3, (struct raft_stored){0});
    elect(&b);
    struct raft_event add = {.type = RAFT_EVENT_CHANGE,
                             .change = RAFT_CHANGE_ADD_LEARNER,
                             .member = {.id = 4, .incarnation = INCARNATION(4)}};
    assert_int_equal(step(&b, add), CHR_EBUSY); /* nothing of this term is committed (2015) */
    saved(&b);
    acknowledged(&b, 2, 1);
    assert_int_equal(step(&b, add), CHR_OK);
    assert_int_equal(b.effects.save[0].type, RAFT_ENTRY_CONFIG);
    assert_int_equal(raft_members_now(&b.raft)->count, 4); /* from now on */
    assert_int_equal(step(&b, add), CHR_EBUSY);            /* one at a time */
    saved(&b);
    acknowledged(&b, 4, 2); /* a learner is no majority */
    assert_int_equal(b.raft.commit_index, 1);
    acknowledged(&b, 3, 2);
    assert_int_equal(b.raft.commit_index, 2);
    assert_int_equal(step(&b, add), CHR_EEXIST);
    struct raft_event promote = {
        .type = RAFT_EVENT_CHANGE, .change = RAFT_CHANGE_PROMOTE, .member = {.id = 4}};
    assert_int_equal(step(&b, promote), CHR_OK);
    saved(&b);
    acknowledged(&b, 3, 3);
    assert_int_equal(b.raft.commit_index, 2); /* two of four */
    acknowledged(&b, 2, 3);
    assert_int_equal(b.raft.commit_index, 3);
    /* The leader goes, and leaves office when that is committed (4.2.2). */
    struct raft_event leave = {
        .type = RAFT_EVENT_CHANGE, .change = RAFT_CHANGE_REMOVE, .member = {.id = 1}};
    assert_int_equal(step(&b, leave), CHR_OK);
    saved(&b);
    assert_int_equal(b.raft.role, RAFT_LEADER);
    acknowledged(&b, 2, 4);
    acknowledged(&b, 3, 4);
    assert_int_equal(b.raft.commit_index, 4);
    assert_int_equal(b.raft.role, RAFT_FOLLOWER);
    tick(&b, 900000);
    tick(&b, 900000);
    assert_int_equal(b.raft.role, RAFT_FOLLOWER);
    raft_free(&b.raft);
}

/* The change that makes us the only voter can still be taken back: another may lead until it is
 * committed, so we wait as everybody does. */
static void test_alone_perhaps(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 2, (struct raft_stored){0});
    tick(&b, 0);
    uint8_t bytes[RAFT_MEMBERS_BYTES_MAX];
    struct raft_members alone = members_of(1);
    struct raft_entry change = {.index = 1,
                                .term = 1,
                                .hlc = 1,
                                .type = RAFT_ENTRY_CONFIG,
                                .bytes = chr_slice_of(bytes, raft_members_encode(&alone, bytes))};
    struct raft_message append = {
        .type = RAFT_MESSAGE_APPEND, .term = 1, .entries = &change, .entries_count = 1};
    assert_int_equal(receive(&b, append), CHR_OK);
    saved(&b);
    assert_int_equal(raft_members_now(&b.raft)->count, 1);
    tick(&b, 250000);
    assert_int_equal(b.raft.role, RAFT_FOLLOWER);
    assert_int_equal(b.raft.leader, 2);
    tick(&b, 400000); /* silence: it is for us to commit it */
    assert_int_equal(b.raft.role, RAFT_LEADER);
    assert_int_equal(b.effects.commit_index, 0);
    saved(&b);
    assert_int_equal(b.effects.commit_index, 2);
    raft_free(&b.raft);
}

/* A log that was begun behind a checkpoint does not know the term before its first entry: a learner
 * gets a snapshot, whatever it has. */
static void test_learner_of_a_checkpoint(void **state)
{
    (void)state;
    struct bench b;
    start(&b, 1,
          (struct raft_stored){
              .hard_state = {.term = 3}, .base_index = 5, .last_index = 5, .commit_index = 5});
    tick(&b, 0);
    assert_int_equal(b.raft.role, RAFT_LEADER);
    saved(&b);
    assert_int_equal(b.effects.commit_index, 6);
    struct raft_event add = {.type = RAFT_EVENT_CHANGE,
                             .change = RAFT_CHANGE_ADD_LEARNER,
                             .member = {.id = 2, .incarnation = INCARNATION(2)}};
    assert_int_equal(step(&b, add), CHR_OK);
    saved(&b);
    assert_int_equal(b.effects.commit_index, 7);
    for (uint64_t hint = 0; hint <= 5; hint += 5) { /* an empty log, and one up to the base */
        struct raft_message m;
        uint64_t last;
        assert_int_equal(b.raft.peers[1].state, RAFT_PEER_PROBE);
        assert_true(raft_next_append(&b.raft, 1, &m, &last));
        raft_append_sent(&b.raft, 1, m.index, 0);
        assert_int_equal(receive(&b, (struct raft_message){.type = RAFT_MESSAGE_APPEND_REPLY,
                                                           .term = 4,
                                                           .index = m.index,
                                                           .last = hint,
                                                           .hint_index = hint,
                                                           .hint_term = hint ? 1 : 0}),
                         CHR_OK);
        assert_int_equal(b.raft.peers[1].state, RAFT_PEER_SNAPSHOT);
        assert_int_equal(b.effects.snapshot_to, 2);
        assert_false(raft_next_append(&b.raft, 1, &m, &last));
        raft_snapshot_started(&b.raft, 1, 7);
        assert_int_equal(
            step(&b, (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = 2, .ok = true}),
            CHR_OK);
        assert_true(raft_next_append(&b.raft, 1, &m, &last));
        assert_int_equal(m.index, 7);
        assert_int_equal(m.log_term, 4);
    }
    acknowledged(&b, 2, 7);
    struct raft_event promote = {
        .type = RAFT_EVENT_CHANGE, .change = RAFT_CHANGE_PROMOTE, .member = {.id = 2}};
    assert_int_equal(step(&b, promote), CHR_OK);
    raft_free(&b.raft);
}

static void test_members_bytes(void **state)
{
    (void)state;
    struct raft_members m = members_of(5), back;
    assert_int_equal(raft_members_add(&m, (struct raft_member){9, 1, false}), CHR_OK);
    assert_int_equal(raft_members_add(&m, (struct raft_member){9, 2, false}), CHR_EEXIST);
    uint8_t bytes[RAFT_MEMBERS_BYTES_MAX];
    size_t len = raft_members_encode(&m, bytes);
    assert_int_equal(raft_members_decode(chr_slice_of(bytes, len), &back), CHR_OK);
    assert_int_equal(back.count, m.count);
    for (uint32_t i = 0; i < m.count; i++) {
        assert_int_equal(back.items[i].id, m.items[i].id);
        assert_int_equal(back.items[i].incarnation, m.items[i].incarnation);
        assert_int_equal(back.items[i].voter, m.items[i].voter);
    }
    for (size_t cut = 0; cut < len; cut++)
        assert_int_not_equal(raft_members_decode(chr_slice_of(bytes, cut), &back), CHR_OK);
    for (size_t i = 0; i < 8; i++) { /* version, count */
        bytes[i] ^= 1;
        assert_int_not_equal(raft_members_decode(chr_slice_of(bytes, len), &back), CHR_OK);
        bytes[i] ^= 1;
    }
    bytes[8 + 24] = 1; /* ids that do not rise */
    assert_int_equal(raft_members_decode(chr_slice_of(bytes, len), &back), CHR_EMALFORMED);
    assert_int_equal(raft_members_remove(&m, 3), CHR_OK);
    assert_int_equal(raft_members_remove(&m, 3), CHR_ENOTFOUND);
    assert_int_equal(raft_members_voters(&m), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_alone),
        cmocka_unit_test(test_election),      cmocka_unit_test(test_votes),
        cmocka_unit_test(test_late_replies),  cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_lost_tail),     cmocka_unit_test(test_quorum),
        cmocka_unit_test(test_follower),      cmocka_unit_test(test_late_news),
        cmocka_unit_test(test_commit_rule),   cmocka_unit_test(test_elected_again),
        cmocka_unit_test(test_windows),       cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_reads),         cmocka_unit_test(test_members_change),
        cmocka_unit_test(test_members_bytes), cmocka_unit_test(test_reads_of_followers),
        cmocka_unit_test(test_alone_perhaps), cmocka_unit_test(test_learner_of_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
