/* The tree of filters beside a list of them; what a match may cost at most; and that nothing stays
 * behind. */
#include "base/filter_tree.h"

#include "tests/base/check.h"

#define LIVE_MAX 300

/* The naive twin: level by level, as 4.7 says it. */
static bool matches(const char *filter, const char *name)
{
    if ((*filter == '+' || *filter == '#') && *name == '$')
        return false;
    for (;;) {
        if (*filter == '#')
            return true;
        size_t f = strcspn(filter, "/"), n = strcspn(name, "/");
        if (!(f == 1 && *filter == '+') && (f != n || memcmp(filter, name, n) != 0))
            return false;
        filter += f;
        name += n;
        if (!*name)
            return !*filter || strcmp(filter, "/#") == 0;
        if (!*filter)
            return false;
        filter++;
        name++;
    }
}

static void make_text(struct chr_random *random, char *out, bool filter)
{
    static const char *const names[] = {"a", "b", "", "$c", "a-level-that-is-not-kept-in-line"};
    size_t levels = 1 + chr_random_below(random, 6);
    char *start = out;
    for (size_t i = 0; i < levels; i++) {
        uint64_t kind = filter ? chr_random_below(random, 8) : 7;
        const char *level = kind < 2 ? "+" : names[chr_random_below(random, 5)];
        if (kind == 2 && i + 1 == levels)
            level = "#";
        out += sprintf(out, "%s%s", i ? "/" : "", level);
    }
    if (out == start)
        strcpy(out, "x");
}

static char live[LIVE_MAX][256];
static uint64_t live_value[LIVE_MAX];
static size_t live_count;
static uint64_t next_value;

struct sum {
    uint64_t sum, count;
};

static void add_up(void *arg, const union chr_filter_value *values, uint32_t count)
{
    struct sum *s = arg;
    for (uint32_t i = 0; i < count; i++)
        s->sum += values[i].any * values[i].any;
    s->count += count;
}

static void check_topic(const struct chr_filter_tree *tree, const char *topic)
{
    struct sum got = {0}, want = {0};
    uint32_t looked = chr_filter_tree_match(tree, chr_slice_cstr(topic), add_up, &got);
    for (size_t i = 0; i < live_count; i++)
        if (matches(live[i], topic))
            add_up(&want, &(union chr_filter_value){.any = live_value[i]}, 1);
    assert_true(got.count == want.count);
    assert_true(got.sum == want.sum);
    assert_true(looked <= chr_filter_tree_nodes(tree) + 1);
}

static void against_a_list(struct chr_filter_tree *tree, struct chr_random *random, int steps)
{
    for (int step = 0; step < steps; step++) {
        char text[256];
        uint64_t what = chr_random_below(random, 10);
        if (what < 4) {
            make_text(random, text, true);
            uint32_t known = chr_filter_tree_find(tree, chr_slice_cstr(text));
            size_t at = 0;
            while (at < live_count && strcmp(live[at], text) != 0)
                at++;
            assert_true((at < live_count) == (known && chr_filter_tree_value(tree, known)->any));
            if (at < live_count || live_count == LIVE_MAX)
                continue;
            uint32_t node = chr_filter_tree_add(tree, chr_slice_cstr(text));
            assert_true(node);
            assert_true(!known || known == node);
            chr_filter_tree_value(tree, node)->any = live_value[live_count] = ++next_value;
            strcpy(live[live_count++], text);
            uint8_t out[256];
            size_t len = chr_filter_tree_text(tree, node, NULL);
            assert_true(len == strlen(text));
            assert_true(chr_filter_tree_text(tree, node, out) == len &&
                        memcmp(out, text, len) == 0);
        } else if (what < 7) {
            if (live_count == 0)
                continue;
            size_t at = chr_random_below(random, live_count);
            uint32_t node = chr_filter_tree_find(tree, chr_slice_cstr(live[at]));
            assert_true(node);
            assert_true(chr_filter_tree_value(tree, node)->any == live_value[at]);
            chr_filter_tree_value(tree, node)->any = 0;
            chr_filter_tree_prune(tree, node);
            live_value[at] = live_value[--live_count];
            memmove(live[at], live[live_count], sizeof live[0]);
        } else {
            make_text(random, text, false);
            check_topic(tree, text);
        }
    }
}

static void remove_all(struct chr_filter_tree *tree)
{
    while (live_count) {
        uint32_t node = chr_filter_tree_find(tree, chr_slice_cstr(live[--live_count]));
        assert_true(node);
        chr_filter_tree_value(tree, node)->any = 0;
        chr_filter_tree_prune(tree, node);
    }
    assert_true(chr_filter_tree_nodes(tree) == 0);
    assert_true(tree->levels.count == 2);
}

static void test_against_a_list(void **state)
{
    (void)state;
    struct chr_random random = test_random(1);
    for (int i = 0; i < 50; i++) {
        struct chr_filter_tree tree;
        assert_true(chr_filter_tree_init(&tree) == CHR_OK);
        for (int life = 0; life < 3; life++) {
            against_a_list(&tree, &random, 1000);
            remove_all(&tree);
        }
        chr_filter_tree_free(&tree);
    }
}

/* So many that tables and chunks grow; each is found by its own topic alone. */
static void test_many(void **state)
{
    (void)state;
    enum { COUNT = 50000 };
    struct chr_filter_tree tree;
    assert_true(chr_filter_tree_init(&tree) == CHR_OK);
    char text[64];
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 1; i <= COUNT; i++) {
            sprintf(text, i % 2 ? "site/%u/dev-%u/+" : "site/+/dev-%2$u/%1$u", i % 100, i);
            uint32_t node = chr_filter_tree_add(&tree, chr_slice_cstr(text));
            assert_true(node);
            chr_filter_tree_value(&tree, node)->any = i;
        }
        assert_true(tree.by_parent.count ==
                    tree.by_parent.used); /* a bucket each: chains stay short */
        for (unsigned i = 1; i <= COUNT; i++) {
            struct sum sum = {0};
            sprintf(text, "site/%u/dev-%u/%u", i % 100, i, i % 100);
            uint32_t looked = chr_filter_tree_match(&tree, chr_slice_cstr(text), add_up, &sum);
            assert_true(sum.count == 1 && sum.sum == (uint64_t)i * i);
            assert_true(looked <= 7); /* root, site, `+` and number, two below, one more */
        }
        for (unsigned i = 1; i <= COUNT; i++) {
            sprintf(text, i % 2 ? "site/%u/dev-%u/+" : "site/+/dev-%2$u/%1$u", i % 100, i);
            uint32_t node = chr_filter_tree_find(&tree, chr_slice_cstr(text));
            assert_true(node);
            chr_filter_tree_value(&tree, node)->any = 0;
            chr_filter_tree_prune(&tree, node);
        }
        assert_true(chr_filter_tree_nodes(&tree) == 0);
        assert_true(tree.nodes.chunks_count == 1 && tree.levels.chunks_count == 1);
        assert_true(tree.by_parent.capacity == 64);
    }
    chr_filter_tree_free(&tree);
}

/* All of {a,+}^12 and then what the topic does not have: every node is looked at once, no more,
 * though there are 2^12 ways through them. Then the same 200 levels deep: what was stored bounds
 * it, not 2^200. */
static void test_hostile(void **state)
{
    (void)state;
    enum { WIDE = 12, DEEP = 200 };
    struct chr_filter_tree tree;
    assert_true(chr_filter_tree_init(&tree) == CHR_OK);
    char text[2 * DEEP + 2];
    for (unsigned i = 0; i < 1u << WIDE; i++) {
        char *p = text;
        for (unsigned l = 0; l < WIDE; l++)
            p += sprintf(p, "%c/", i >> l & 1 ? '+' : 'a');
        strcpy(p, "b");
        uint32_t node = chr_filter_tree_add(&tree, chr_slice_cstr(text));
        assert_true(node);
        chr_filter_tree_value(&tree, node)->any = 1;
    }
    struct sum sum = {0};
    uint32_t looked =
        chr_filter_tree_match(&tree, CHR_LIT("a/a/a/a/a/a/a/a/a/a/a/a/a"), add_up, &sum);
    assert_true(sum.count == 0);
    assert_true(looked == (1u << (WIDE + 1)) - 1); /* all but the 2^12 last levels */
    looked = chr_filter_tree_match(&tree, CHR_LIT("x/a/a/a/a/a/a/a/a/a/a/a/b"), add_up, &sum);
    assert_true(sum.count == 1u << (WIDE - 1));
    assert_true(looked <= chr_filter_tree_nodes(&tree) / 2 + 1);

    /* One `+` each at another place of 200 levels, and all of them `+`. */
    for (unsigned i = 0; i <= DEEP; i++) {
        char *p = text;
        for (unsigned l = 0; l < DEEP; l++)
            p += sprintf(p, "%s%c", l ? "/" : "", l == i || i == DEEP ? '+' : 'c');
        uint32_t node = chr_filter_tree_add(&tree, chr_slice_cstr(text));
        assert_true(node);
        chr_filter_tree_value(&tree, node)->any = 1;
    }
    char *p = text;
    for (unsigned l = 0; l < DEEP; l++)
        p += sprintf(p, "%sc", l ? "/" : "");
    sum = (struct sum){0};
    looked = chr_filter_tree_match(&tree, chr_slice_cstr(text), add_up, &sum);
    assert_true(sum.count == DEEP + 1);
    assert_true(looked <= chr_filter_tree_nodes(&tree) + 1);

    /* Topics may be deeper than any filter, filters only so deep. */
    char *deep = malloc(2 * CHR_FILTER_LEVELS_MAX + 8);
    memset(deep, '/', 2 * CHR_FILTER_LEVELS_MAX);
    sum = (struct sum){0};
    uint32_t nodes = chr_filter_tree_nodes(&tree);
    assert_true(!chr_filter_tree_add(&tree, chr_slice_of(deep, CHR_FILTER_LEVELS_MAX)));
    assert_true(chr_filter_tree_nodes(&tree) == nodes);
    uint32_t longest = chr_filter_tree_add(&tree, chr_slice_of(deep, CHR_FILTER_LEVELS_MAX - 1));
    assert_true(longest);
    chr_filter_tree_value(&tree, longest)->any = 1;
    (void)chr_filter_tree_match(&tree, chr_slice_of(deep, CHR_FILTER_LEVELS_MAX), add_up, &sum);
    assert_true(sum.count == 0);
    (void)chr_filter_tree_match(&tree, chr_slice_of(deep, CHR_FILTER_LEVELS_MAX - 1), add_up, &sum);
    assert_true(sum.count == 1);
    uint32_t all = chr_filter_tree_add(&tree, CHR_LIT("#"));
    chr_filter_tree_value(&tree, all)->any = 1;
    (void)chr_filter_tree_match(&tree, chr_slice_of(deep, 2 * CHR_FILTER_LEVELS_MAX), add_up, &sum);
    assert_true(sum.count == 2);
    free(deep);
    chr_filter_tree_free(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_list),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
