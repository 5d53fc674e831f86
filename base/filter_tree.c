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

/* A look-up waits for memory several times: bucket, node, perhaps another one of the chain. Those
 * of one batch wait together. */
#define BATCH 8u
/* What is still to be looked at, deeper nodes above. Nodes of depth d are put there while fewer
 * than BATCH of that depth or deeper are left, all of which go into the same batch: so at most 2
 * BATCH of each depth. */
#define FRONTIER_MAX (2 * BATCH * (CHR_FILTER_LEVELS_MAX + 1))

struct walk {
    const struct chr_filter_tree *tree;
    bool hidden;          /* the topic begins with `$` */
    uint32_t names_count; /* its levels, no more than depth_max + 1 of them */
    uint32_t
        names[CHR_FILTER_LEVELS_MAX]; /* 0: in no filter; those below depth_max are looked up */
    uint32_t frontier_count;
    struct {
        uint32_t node, depth;
    } frontier[FRONTIER_MAX];
};

/* One child to be found. */
struct step {
    uint32_t parent, level, depth; /* of the child */
    const uint32_t *bucket;
    uint32_t number;
};

static void look_up_names(struct walk *w, chr_slice topic)
{
    const struct chr_filter_tree *tree = w->tree;
    chr_slice texts[CHR_FILTER_LEVELS_MAX];
    bool done = false;
    w->names_count = 0;
    while (w->names_count < tree->depth_max && take_level(&topic, &done, &texts[w->names_count])) {
        uint32_t hash = w->names[w->names_count] = hash_text(tree, texts[w->names_count]);
        __builtin_prefetch(chr_chains_bucket(&tree->by_text, hash));
        w->names_count++;
    }
    for (uint32_t i = 0; i < w->names_count; i++)
        __builtin_prefetch(level_at(tree, *chr_chains_bucket(&tree->by_text, w->names[i])));
    for (uint32_t i = 0; i < w->names_count; i++) {
        uint32_t level = level_find(tree, texts[i], w->names[i]);
        /* A topic has no wildcards; if one came here, it would be found twice. */
        w->names[i] = level <= LEVEL_ALL ? 0 : level;
    }
    w->names_count += !done; /* it has more than any filter: only `#` gets so far */
}

static void add_step(const struct walk *w, struct step *steps, uint32_t *count, uint32_t parent,
                     uint32_t level, uint32_t depth)
{
    const uint32_t *bucket =
        chr_chains_bucket(&w->tree->by_parent, hash_child(w->tree, parent, level));
    __builtin_prefetch(bucket);
    steps[(*count)++] = (struct step){parent, level, depth, bucket, 0};
}

/* What is to be found below a node. True: the topic ends at it. */
static bool add_steps(const struct walk *w, struct step *steps, uint32_t *count, uint32_t number,
                      uint32_t depth)
{
    uint32_t below = node_at(w->tree, number)->below;
    bool hidden = w->hidden && depth == 0; /* from wildcards [MQTT-4.7.2-1] */
    bool end = depth == w->names_count;
    if (below & HAS_ALL && !hidden)
        add_step(w, steps, count, number, LEVEL_ALL, depth + 1);
    if (end || !below)
        return end;
    if (below & HAS_ONE && !hidden)
        add_step(w, steps, count, number, LEVEL_ONE, depth + 1);
    if (w->names[depth])
        add_step(w, steps, count, number, w->names[depth], depth + 1);
    return false;
}

/* The chain is followed to its end only if the first is another's. */
static void find_steps(const struct walk *w, struct step *steps, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        steps[i].number = *steps[i].bucket;
        __builtin_prefetch(node_at(w->tree, steps[i].number));
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = steps[i].number;
        while (number) {
            const struct chr_filter_node *node = node_at(w->tree, number);
            if (node->parent == steps[i].parent && node->level == steps[i].level)
                break;
            number = node->hash_next;
        }
        steps[i].number = number;
    }
}

uint32_t chr_filter_tree_match(const struct chr_filter_tree *tree, chr_slice topic,
                               void (*each)(void *arg, const union chr_filter_value *values,
                                            uint32_t count),
                               void *arg)
{
    struct walk w;
    uint32_t looked = 1;
    w.tree = tree;
    w.hidden = topic.len && topic.ptr[0] == '$';
    look_up_names(&w, topic);
    w.frontier[0].node = ROOT;
    w.frontier[0].depth = 0;
    w.frontier_count = 1;
    while (w.frontier_count) {
        struct step steps[3 * BATCH];
        union chr_filter_value values[2 * BATCH]; /* of a node, and of the `#` below it */
        uint32_t steps_count = 0, values_count = 0;
        uint32_t batch = CHR_MIN(w.frontier_count, BATCH), first = w.frontier_count - batch;
        for (uint32_t i = first; i < w.frontier_count; i++) {
            uint32_t number = w.frontier[i].node;
            if (add_steps(&w, steps, &steps_count, number, w.frontier[i].depth) &&
                node_at(tree, number)->value.any)
                values[values_count++] = node_at(tree, number)->value;
        }
        w.frontier_count = first;
        find_steps(&w, steps, steps_count);
        for (uint32_t i = 0; i < steps_count; i++) {
            const struct step *step = &steps[i];
            if (!step->number)
                continue;
            looked++;
            if (step->level == LEVEL_ALL) {
                values[values_count++] = node_at(tree, step->number)->value;
                continue;
            }
            w.frontier[w.frontier_count].node = step->number;
            w.frontier[w.frontier_count++].depth = step->depth;
        }
        if (values_count)
            each(arg, values, values_count);
    }
    return looked;
}
