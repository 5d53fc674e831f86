/* tests/broker/test_roster.c: who belongs to a cluster, how its nodes are reached, which format
 * they all know; and that node.meta remembers it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/roster.h"

#define INCARNATION 77u

static uint64_t number(const char *name)
{
    return strtoull(name + 1, NULL, 10); /* "n4" */
}

static struct peer_contact contact(unsigned node, unsigned port)
{
    struct peer_contact c = {.name = ""};
    snprintf(c.name, sizeof c.name, "n%u", node);
    snprintf(c.address, sizeof c.address, "127.0.0.1:%u", port);
    return c;
}

static struct raft_members members(const char *text) /* "1v2v3l": node 1 votes, 3 learns */
{
    struct raft_members m = {.count = 0};
    for (; *text; text += 2)
        assert_int_equal(raft_members_add(&m, (struct raft_member){(uint64_t)(text[0] - '0'),
                                                                   INCARNATION, text[1] == 'v'}),
                         CHR_OK);
    return m;
}

static void change(struct roster *r, uint64_t index, const char *text, int64_t now_us)
{
    struct raft_members m = members(text);
    assert_true(roster_members(r, index, &m, now_us));
}

static struct roster of_three(void)
{
    struct roster r = {.self = 1, .incarnation = INCARNATION};
    for (unsigned i = 2; i <= 3; i++) {
        struct peer_contact c = contact(i, 8000 + i);
        assert_int_equal(roster_put(&r, i, &c), CHR_OK);
        roster_find(&r, i)->listed = true;
    }
    change(&r, 0, "1v2v3v", 0);
    return r;
}

static uint32_t forget(struct roster *r, int64_t now_us)
{
    uint64_t gone[PEERS_MAX];
    return roster_forget(r, now_us, gone);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "node-1.farm_2", "Z9"};
    static const char *const bad[] = {"", "a b", "a=b", "a,b", "a\"", "a'", "\xc3\xa4", "a\n"};
    for (size_t i = 0; i < CHR_COUNT_OF(good); i++)
        assert_true(roster_name_valid(good[i]));
    for (size_t i = 0; i < CHR_COUNT_OF(bad); i++)
        assert_false(roster_name_valid(bad[i]));
    char longest[PEER_NAME_BYTES + 1];
    memset(longest, 'x', sizeof longest);
    longest[PEER_NAME_BYTES - 1] = 0;
    assert_true(roster_name_valid(longest));
    longest[PEER_NAME_BYTES - 1] = 'x';
    longest[PEER_NAME_BYTES] = 0;
    assert_false(roster_name_valid(longest));
}

/* O1, O3: by the leader's word it joins; all hear of it; removed it goes, and stays away. */
static void test_comes_and_goes(void **state)
{
    (void)state;
    struct roster leader = of_three(), follower = of_three();
    struct peer_hello hello = {.node = 1};
    struct peer_contact four = contact(4, 8004);
    assert_false(roster_learn(&follower, 4, &four, false, 100)); /* not a member, not the leader */
    assert_null(roster_find(&follower, 4));

    assert_int_equal(roster_put(&leader, 4, &four), CHR_OK);
    roster_join(roster_find(&leader, 4), 100);
    roster_tell(&leader, &hello);
    assert_int_equal(hello.peers_count, 3);
    assert_true(roster_learn(&follower, 4, &hello.peers[2], true, 100));
    assert_int_equal(forget(&leader, 99) + forget(&follower, 99), 0);

    struct roster never = leader; /* nothing comes of it */
    assert_int_equal(forget(&never, 101), 1);
    assert_null(roster_find(&never, 4));

    change(&leader, 7, "1v2v3v4l", 99);
    assert_false(roster_find(&leader, 4)->votes);
    assert_int_equal(forget(&leader, 1000), 0);
    roster_tell(&leader, &hello);
    struct roster late = of_three(); /* hears of the member and how it is reached at once */
    assert_true(roster_members(&late, hello.members_index, &hello.members, 0));
    assert_false(roster_members(&late, hello.members_index, &hello.members, 0)); /* no news */
    assert_true(roster_learn(&late, 4, &hello.peers[2], false, 0));

    /* Where the leader says another address that one counts; others are not believed, nor anybody
     * against what is listed. */
    struct peer_contact moved = contact(4, 9999), listed = contact(2, 9999);
    assert_false(roster_learn(&late, 4, &moved, false, 0));
    assert_string_equal(roster_find(&late, 4)->contact.address, "127.0.0.1:8004");
    assert_true(roster_learn(&late, 4, &moved, true, 0));
    assert_string_equal(roster_find(&late, 4)->contact.address, "127.0.0.1:9999");
    assert_false(roster_learn(&late, 2, &listed, true, 0));

    change(&leader, 9, "1v2v3v4v", 0);
    assert_true(roster_find(&leader, 4)->votes);
    change(&leader, 12, "1v2v3v", 1000);
    roster_tell(&leader, &hello); /* it is told that it is gone, others are not told of it */
    assert_int_equal(hello.peers_count, 2);
    assert_int_equal(forget(&leader, 1000 + ROSTER_LEAVE_US - 1), 0);
    assert_int_equal(forget(&leader, 1000 + ROSTER_LEAVE_US), 1);
    assert_false(roster_learn(&leader, 4, &four, false, 0)); /* by somebody who is behind */
    assert_null(roster_find(&leader, 4));

    change(&leader, 14, "1v2v", 0); /* listed: stays connected, and is told whenever it comes */
    assert_int_equal(forget(&leader, INT64_MAX), 0);
}

static void test_place(void **state)
{
    (void)state;
    struct roster r = {.self = 4, .incarnation = INCARNATION};
    assert_int_equal(roster_place(&r), ROSTER_OUTSIDE);
    change(&r, 3, "1v2v3v", 0);
    assert_int_equal(roster_place(&r), ROSTER_OUTSIDE);
    change(&r, 4, "1v2v3v4l", 0);
    assert_int_equal(roster_place(&r), ROSTER_LEARNER);
    change(&r, 5, "1v2v3v4v", 0);
    assert_int_equal(roster_place(&r), ROSTER_VOTER);
    change(&r, 6, "1v2v3v", 0);
    assert_int_equal(roster_place(&r), ROSTER_REMOVED);
    struct raft_members before = members("1v2v3v4v");
    assert_false(roster_members(&r, 5, &before, 0)); /* from somebody who is behind */
    change(&r, 8, "1v2v3v4l", 0);
    assert_int_equal(roster_place(&r), ROSTER_LEARNER);
    struct roster wiped = {.self = 4, .incarnation = INCARNATION + 1};
    change(&wiped, 8, "1v2v3v4v", 0);
    assert_int_equal(roster_place(&wiped), ROSTER_OUTSIDE);
}

/* A voter whose disk was wiped votes again; a node that learns stays a learner. */
static void test_votes(void **state)
{
    (void)state;
    struct roster r = of_three();
    assert_true(roster_find(&r, 3)->votes);
    change(&r, 5, "1v2v3l", 0);
    assert_true(roster_find(&r, 3)->votes);
    change(&r, 6, "1v2v", 0);
    change(&r, 7, "1v2v3l", 0);
    assert_false(roster_find(&r, 3)->votes);
}

static void test_meta(void **state)
{
    (void)state;
    char path[] = "/tmp/chronos-roster-XXXXXX";
    struct chr_errmsg msg = {{0}};
    assert_non_null(mkdtemp(path));
    struct roster r = of_three();
    for (unsigned i = 4; i <= 9; i++) { /* as long as can be */
        struct peer_contact c = contact(i, 8000 + i);
        memset(c.address, 'h', sizeof c.address - 6);
        memcpy(c.address + sizeof c.address - 6, ":8000", 6);
        assert_int_equal(roster_put(&r, i, &c), CHR_OK);
    }
    change(&r, 812, "1v2v3v4l5v6v7v8v9l", 0);
    struct data_dir dir = {.cluster = 5, .node = 1, .incarnation = INCARNATION, .boot = 3}, back;
    dir.cluster_format = 4;
    dir.clean = true;
    dir.members = r.members;
    dir.members_index = 812;
    dir.founders = members("1v2v3v");
    roster_save(&r, &dir);
    assert_int_equal(data_dir_write_meta(path, &dir, &msg), CHR_OK);
    memset(&back, 0xff, sizeof back);
    assert_int_equal(data_dir_read_meta(path, &back, &msg), CHR_OK);
    assert_int_equal(back.cluster_format, 4);
    assert_true(back.clean);

    struct roster again = {.self = 1, .incarnation = INCARNATION};
    struct peer_contact two = contact(2, 9000); /* --peers says something newer */
    assert_int_equal(roster_put(&again, 2, &two), CHR_OK);
    roster_find(&again, 2)->listed = true;
    roster_load(&again, &back, number);
    assert_int_equal(again.count, 8);
    assert_int_equal(again.members_index, 812);
    assert_string_equal(roster_find(&again, 2)->contact.address, "127.0.0.1:9000");
    for (uint64_t i = 3; i <= 9; i++) {
        assert_string_equal(roster_find(&again, i)->contact.address,
                            roster_find(&r, i)->contact.address);
        assert_int_equal(roster_find(&again, i)->votes, roster_find(&r, i)->votes);
    }
    assert_int_equal(roster_place(&again), ROSTER_VOTER);
    dir.peers_count = 0;
    dir.clean = false;
    dir.cluster_format = 1;
    assert_int_equal(data_dir_write_meta(path, &dir, &msg), CHR_OK);
    assert_int_equal(data_dir_read_meta(path, &back, &msg), CHR_OK);
    assert_false(back.clean);
    assert_int_equal(back.peers_count, 0);
    assert_int_equal(back.cluster_format, 1);
    char file[64];
    snprintf(file, sizeof file, "%s/node.meta", path);
    (void)remove(file);
    (void)remove(path);
}

/* O4, with formats that this program does not have yet. A writer asks for the format in use, and
 * writes what came with format 2 only when that has been reached. */
static void test_format(void **state)
{
    (void)state;
    struct roster r = of_three();
    assert_int_equal(roster_format(&r, 1, 2), 1); /* nobody was heard of */
    roster_find(&r, 2)->format = 3;
    assert_int_equal(roster_format(&r, 1, 2), 1); /* the other one may know less */
    roster_find(&r, 3)->format = 1;
    assert_int_equal(roster_format(&r, 1, 2), 1);
    roster_find(&r, 3)->format = 2; /* upgraded */
    assert_int_equal(roster_format(&r, 1, 2), 2);
    roster_find(&r, 3)->format = 3;
    assert_int_equal(roster_format(&r, 1, 2), 2); /* we do not know more ourselves */
    assert_int_equal(roster_format(&r, 1, 3), 3);

    /* It never falls: what was written is in the log. A restart has heard of nobody. */
    roster_find(&r, 3)->format = 1;
    assert_int_equal(roster_format(&r, 2, 3), 2);
    struct roster again = of_three();
    assert_int_equal(roster_format(&again, 2, 3), 2);

    /* Who does not belong to it does not hold it up; a member that is not even reachable does. */
    struct peer_contact four = contact(4, 8004);
    assert_int_equal(roster_put(&r, 4, &four), CHR_OK);
    roster_find(&r, 3)->format = 3;
    assert_int_equal(roster_format(&r, 1, 3), 3);
    change(&r, 5, "1v2v3v4l", 0);
    assert_int_equal(roster_format(&r, 1, 3), 1);
    struct roster stranger = of_three();
    roster_find(&stranger, 2)->format = roster_find(&stranger, 3)->format = 3;
    change(&stranger, 5, "1v2v3v5v", 0); /* 5: nobody knows how it is reached */
    assert_int_equal(roster_format(&stranger, 1, 3), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_comes_and_goes),
        cmocka_unit_test(test_place), cmocka_unit_test(test_votes),
        cmocka_unit_test(test_meta),  cmocka_unit_test(test_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
