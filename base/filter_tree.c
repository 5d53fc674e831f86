#include "base/filter_tree.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

#define ROOT       1u
#define LEVEL_ONE  1u /* `+` */
#define LEVEL_ALL  2u /* `#` */
#define HAS_ONE    (1u << 30)
#define HAS_ALL    (1u << 31)
#define INLINE_MAX 16u

/* A text that stands between slashes somewhere. */
struct level {
    uint32_t hash_next;
    uint32_t hash;
    uint32_t uses; /* nodes; of `+` and `#` one more, so that they stay */
    uint32_t len;
    union {
        uint8_t text[INLINE_MAX]; /* len <= INLINE_MAX */
        uint8_t *longer;          /* owned */
    };
};
_Static_assert(sizeof(struct level) == 32, "two in a cache line");

static struct chr_filter_node *node_at(const struct chr_filter_tree *tree, uint32_t number)
{
    return chr_slots_at(&tree->nodes, number);
}

static struct level *level_at(const struct chr_filter_tree *tree, uint32_t number)
{
    return chr_slots_at(&tree->levels, number);
}

static const uint8_t *level_text(const struct level *level)
{
    return level->len <= INLINE_MAX ? level->text : level->longer;
}

/* ---- Hashes -----------------------------------------------------------------------------------
 */

static uint32_t hash_child(const struct chr_filter_tree *tree, uint32_t parent, uint32_t level)
{
    return (uint32_t)chr_hash_u64(((uint64_t)parent << 32 | level) ^ tree->seed);
}

static uint32_t node_hash(const void *owner, uint32_t number)
{
    const struct chr_filter_node *node = node_at(owner, number);
    return hash_child(owner, node->parent, node->level);
}

static uint32_t *node_next(const void *owner, uint32_t number)
{
    return &node_at(owner, number)->hash_next;
}

static uint32_t level_hash(const void *owner, uint32_t number)
{
    return level_at(owner, number)->hash;
}

static uint32_t *level_next(const void *owner, uint32_t number)
{
    return &level_at(owner, number)->hash_next;
}

static const struct chr_chains_owner node_chains = {node_hash, node_next};
static const struct chr_chains_owner level_chains = {level_hash, level_next};

/* ---- Levels -----------------------------------------------------------------------------------
 */

/* The level before the next slash, taken off the topic; empty levels count. False: that was all. */
static bool take_level(chr_slice *topic, bool *done, chr_slice *level)
{
    if (*done)
        return false;
    const uint8_t *slash = topic->len ? memchr(topic->ptr, '/', topic->len) : NULL;
    *level = slash ? chr_slice_of(topic->ptr, (size_t)(slash - topic->ptr)) : *topic;
    *done = !slash;
    if (slash)
        *topic = chr_slice_of(slash + 1, topic->len - level->len - 1);
    return true;
}

static uint32_t hash_text(const struct chr_filter_tree *tree, chr_slice text)
{
    return (uint32_t)chr_hash_slice(text, tree->seed);
}

static uint32_t level_find(const struct chr_filter_tree *tree, chr_slice text, uint32_t hash)
{
    uint32_t number = *chr_chains_bucket(&tree->by_text, hash);
    while (number) {
        const struct level *level = level_at(tree, number);
        if (level->hash == hash && level->len == text.len &&
            (text.len == 0 || memcmp(level_text(level), text.ptr, text.len) == 0))
            break;
        number = level->hash_next;
    }
    return number;
}

static void level_release(struct chr_filter_tree *tree, uint32_t number)
{
    struct level *level = level_at(tree, number);
    if (--level->uses)
        return;
    chr_chains_remove(&tree->by_text, &level_chains, tree, number);
    if (level->len > INLINE_MAX)
        free(level->longer);
    chr_slots_give(&tree->levels, number);
}

/* One more use of a text. 0: no memory. */
static uint32_t level_use(struct chr_filter_tree *tree, chr_slice text)
{
    uint32_t hash = hash_text(tree, text);
    uint32_t number = level_find(tree, text, hash);
    if (number) {
        level_at(tree, number)->uses++;
        return number;
    }
    uint8_t *longer = text.len > INLINE_MAX ? malloc(text.len) : NULL;
    number = text.len > INLINE_MAX && !longer ? 0 : chr_slots_new(&tree->levels);
    if (!number) {
        free(longer);
        return 0;
    }
    struct level *level = level_at(tree, number);
    level->hash = hash;
    level->uses = 1;
    level->len = (uint32_t)text.len;
    if (longer)
        level->longer = longer;
    if (text.len)
        memcpy(longer ? longer : level->text, text.ptr, text.len);
    chr_chains_put(&tree->by_text, &level_chains, tree, number);
    return number;
}

/* ---- The tree ---------------------------------------------------------------------------------
 */

/* Of an empty tree: the root, `+` and `#`, which get the numbers they are known by. */
static bool begin(struct chr_filter_tree *tree)
{
    tree->depth_max = 0;
    return chr_slots_new(&tree->nodes) == ROOT && level_use(tree, CHR_LIT("+")) == LEVEL_ONE &&
           level_use(tree, CHR_LIT("#")) == LEVEL_ALL;
}

chr_err chr_filter_tree_init(struct chr_filter_tree *tree)
{
    *tree = (struct chr_filter_tree){.seed = chr_hash_seed()};
    chr_slots_init(&tree->nodes, sizeof(struct chr_filter_node));
    chr_slots_init(&tree->levels, sizeof(struct level));
    if (!chr_chains_init(&tree->by_parent) && !chr_chains_init(&tree->by_text) && begin(tree))
        return CHR_OK;
    chr_filter_tree_free(tree);
    return CHR_ENOMEM;
}

void chr_filter_tree_free(struct chr_filter_tree *tree)
{
    for (uint32_t i = 0; tree->by_text.first && i < tree->by_text.used; i++) {
        for (uint32_t number = tree->by_text.first[i]; number;) {
            struct level *level = level_at(tree, number);
            number = level->hash_next;
            if (level->len > INLINE_MAX)
                free(level->longer);
        }
    }
    chr_chains_free(&tree->by_parent);
    chr_chains_free(&tree->by_text);
    chr_slots_free(&tree->nodes);
    chr_slots_free(&tree->levels);
}

static uint32_t find_child(const struct chr_filter_tree *tree, uint32_t parent, uint32_t level)
{
    uint32_t number = *chr_chains_bucket(&tree->by_parent, hash_child(tree, parent, level));
    while (number) {
        const struct chr_filter_node *node = node_at(tree, number);
        if (node->parent == parent && node->level == level)
            break;
        number = node->hash_next;
    }
    return number;
}

static uint32_t flag_of(uint32_t level)
{
    return level == LEVEL_ONE ? HAS_ONE : level == LEVEL_ALL ? HAS_ALL : 0;
}

static uint32_t add_child(struct chr_filter_tree *tree, uint32_t parent, chr_slice text)
{
    uint32_t level = level_use(tree, text);
    if (!level)
        return 0;
    uint32_t number = find_child(tree, parent, level);
    if (number) {
        level_release(tree, level); /* it has its use of it already */
        return number;
    }
    number = chr_slots_new(&tree->nodes);
    if (!number) {
        level_release(tree, level);
        return 0;
    }
    struct chr_filter_node *node = node_at(tree, number);
    node->parent = parent;
    node->level = level;
    chr_chains_put(&tree->by_parent, &node_chains, tree, number);
    struct chr_filter_node *up = node_at(tree, parent);
    up->below = (up->below + 1) | flag_of(level);
    return number;
}

uint32_t chr_filter_tree_add(struct chr_filter_tree *tree, chr_slice filter)
{
    uint32_t number = ROOT, depth = 0;
    bool done = false;
    chr_slice text;
    while (take_level(&filter, &done, &text)) {
        uint32_t child = depth++ < CHR_FILTER_LEVELS_MAX ? add_child(tree, number, text) : 0;
        if (!child) {
            chr_filter_tree_prune(tree, number);
            return 0;
        }
        number = child;
    }
    if (depth > tree->depth_max)
        tree->depth_max = depth;
    return number;
}

uint32_t chr_filter_tree_find(const struct chr_filter_tree *tree, chr_slice filter)
{
    uint32_t number = ROOT;
    bool done = false;
    chr_slice text;
    while (number && take_level(&filter, &done, &text)) {
        uint32_t level = level_find(tree, text, hash_text(tree, text));
        number = level ? find_child(tree, number, level) : 0;
    }
    return number;
}

void chr_filter_tree_prune(struct chr_filter_tree *tree, uint32_t number)
{
    for (;;) {
        struct chr_filter_node *node = node_at(tree, number);
        if (node->value.any || node->below || number == ROOT)
            break;
        uint32_t parent = node->parent, level = node->level;
        chr_chains_remove(&tree->by_parent, &node_chains, tree, number);
        chr_slots_give(&tree->nodes, number);
        level_release(tree, level);
        struct chr_filter_node *up = node_at(tree, parent);
        up->below = (up->below - 1) & ~flag_of(level);
        number = parent;
    }
    if (tree->nodes.count > 1)
        return;
    /* Nothing is left: a million filters that came and went leave no memory behind. What is made
     * again fits into what stays, so it cannot fail. */
    chr_slots_reset(&tree->nodes);
    chr_slots_reset(&tree->levels);
    chr_chains_reset(&tree->by_parent);
    chr_chains_reset(&tree->by_text);
    bool begun = begin(tree);
    CHR_ASSERT(begun);
}

size_t chr_filter_tree_text(const struct chr_filter_tree *tree, uint32_t number, uint8_t *out)
{
    size_t len = 0;
    for (uint32_t at = number; at != ROOT; at = node_at(tree, at)->parent)
        len += level_at(tree, node_at(tree, at)->level)->len + (at != number);
    size_t end = len;
    for (uint32_t at = number; out && at != ROOT; at = node_at(tree, at)->parent) {
        const struct level *level = level_at(tree, node_at(tree, at)->level);
        if (at != number)
            out[--end] = '/';
        end -= level->len;
        if (level->len)
            memcpy(out + end, level_text(level), level->len);
    }
    return len;
}

/* ---- Matching ---------------------------------------------------------------------------------
 */

struct names {
    uint32_t count; /* levels of the topic, or CHR_FILTER_LEVELS_MAX + 1 */
    uint32_t
        levels[CHR_FILTER_LEVELS_MAX]; /* 0: in no filter; those below depth_max are looked up */
};

static void look_up(const struct chr_filter_tree *tree, chr_slice topic, struct names *names)
{
    bool done = false;
    chr_slice text;
    names->count = 0;
    while (names->count <= tree->depth_max && take_level(&topic, &done, &text)) {
        if (names->count < tree->depth_max) {
            uint32_t level = level_find(tree, text, hash_text(tree, text));
            /* A topic has no wildcards; if one came here, it would be found twice. */
            names->levels[names->count] = level <= LEVEL_ALL ? 0 : level;
        }
        names->count++;
    }
}

uint32_t chr_filter_tree_match(const struct chr_filter_tree *tree, chr_slice topic,
                               void (*each)(void *arg, union chr_filter_value value), void *arg)
{
    /* What is still to be looked at: below each node at most two, of which one is taken at once, so
     * one for each level and one more. */
    struct {
        uint32_t node, depth;
    } todo[CHR_FILTER_LEVELS_MAX + 2];
    struct names names;
    uint32_t count = 0, looked = 0;
    look_up(tree, topic, &names);
    todo[count].node = ROOT;
    todo[count++].depth = 0;
    while (count) {
        uint32_t number = todo[--count].node, depth = todo[count].depth;
        const struct chr_filter_node *node = node_at(tree, number);
        bool end = depth == names.count;
        bool hidden = depth == 0 && topic.len && topic.ptr[0] == '$'; /* from wildcards */
        looked++;
        if (end && node->value.any)
            each(arg, node->value);
        if (node->below & HAS_ALL && !hidden) {
            looked++;
            each(arg, node_at(tree, find_child(tree, number, LEVEL_ALL))->value);
        }
        if (end || !node->below)
            continue;
        uint32_t exact = names.levels[depth];
        if (exact)
            exact = find_child(tree, number, exact);
        if (node->below & HAS_ONE && !hidden) {
            todo[count].node = find_child(tree, number, LEVEL_ONE);
            todo[count++].depth = depth + 1;
        }
        if (exact) {
            todo[count].node = exact;
            todo[count++].depth = depth + 1;
        }
    }
    return looked;
}
