/* base/filter_tree.h: topic filters by level ('/' between them); what subscriptions hang on, made
 * to be matched against topics with a million of them in it.
 *
 *     levels: "site" ─ 3   "+" ─ 1   "#" ─ 2   "temp" ─ 4 …     one number per text, wherever it
 * stands nodes:  (root, 3) ─▶ a   (a, 1) ─▶ b   (b, 4) ─▶ c         one table: parent and level to
 * child
 *
 * A node is 24 bytes and four of a bucket; it has no table of its own. A topic's levels are looked
 * up once, as texts; after that a step is one look-up of two numbers, however many children there
 * are, and a level that is in no filter needs no step at all. Each node knows whether it has a `+`
 * and a
 * `#` below, so nothing is asked for in vain.
 *
 * The bound. A match looks at a node only from its parent, so at each at most once, and on each
 * level of the topic at most at two below each: with n nodes and a topic of l levels at no more
 * than min(n, 2^(l+1)). Filters that are all {a,+}/{a,+}/… can make that n: who stores n filters
 * can make a topic cost n steps, not more; no set of filters makes it exponential in what was
 * stored. (A set of wildcards that is matched in less for each topic is not known; the number of
 * filters of a client is what bounds it.)
 *
 * Not locked: its owner does that; matching and finding change nothing. */
#ifndef CHR_BASE_FILTER_TREE_H
#define CHR_BASE_FILTER_TREE_H

#include <stdint.h>

#include "base/slice.h"
#include "base/slots.h"

/* Of a filter; topics may have more. MQTT's own limit here (200) is below it. */
#define CHR_FILTER_LEVELS_MAX 256

/* The owner's. A node that has none and nothing below it is given back. */
union chr_filter_value {
    void *ptr;
    uint32_t numbers[2];
    uint64_t any; /* 0: none */
};

struct chr_filter_node {
    union chr_filter_value value;
    uint32_t parent; /* 0: the root */
    uint32_t level;
    uint32_t hash_next;
    uint32_t
        below; /* number of children and, in the upper two bits, whether `+` and `#` are there */
};
_Static_assert(sizeof(struct chr_filter_node) == 24, "a million of them are 24 MB");

struct chr_filter_tree {
    struct chr_slots nodes, levels;
    struct chr_chains by_parent, by_text;
    uint64_t seed;
    uint32_t depth_max; /* of the filters that were added since it was empty */
};

CHR_MUST_USE chr_err chr_filter_tree_init(struct chr_filter_tree *tree);
/* Values must be gone. Accepts one that is all zero. */
void chr_filter_tree_free(struct chr_filter_tree *tree);
/* The node of a valid filter, made if need be. 0: no memory, or too many levels; nothing changed
 * then. */
CHR_MUST_USE uint32_t chr_filter_tree_add(struct chr_filter_tree *tree, chr_slice filter);
/* 0: there is none. */
uint32_t chr_filter_tree_find(const struct chr_filter_tree *tree, chr_slice filter);
/* Its value was taken away: gives back what serves nobody, up to the root. */
void chr_filter_tree_prune(struct chr_filter_tree *tree, uint32_t node);
/* The filter of a node; returns its length. out: NULL to ask for that alone. */
size_t chr_filter_tree_text(const struct chr_filter_tree *tree, uint32_t node, uint8_t *out);

/* Calls each(), perhaps several times, with the values of the filters that match a topic name: `+`
 * is one level, `#` all that follow and the level before it; neither matches a first level that
 * begins with `$` [MQTT-4.7.2-1]. Returns how many nodes it looked at. each must not change the
 * tree. */
uint32_t chr_filter_tree_match(const struct chr_filter_tree *tree, chr_slice topic,
                               void (*each)(void *arg, const union chr_filter_value *values,
                                            uint32_t count),
                               void *arg);

CHR_INLINE union chr_filter_value *chr_filter_tree_value(const struct chr_filter_tree *tree,
                                                         uint32_t node)
{
    return &((struct chr_filter_node *)chr_slots_at(&tree->nodes, node))->value;
}
/* The root not counted. */
CHR_INLINE uint32_t chr_filter_tree_nodes(const struct chr_filter_tree *tree)
{
    return tree->nodes.count - 1;
}

#endif
