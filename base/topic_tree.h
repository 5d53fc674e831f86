/* base/topic_tree.h: a tree of topic levels ('/' between them); what retained messages hang on.
 *
 * One node per level string under its parent, found by one hash table for the whole tree (keyed by
 * parent and level), so a step costs one look-up however many children there are, and a million
 * topics cost a million small nodes and no per-node tables. Children are in a list, too: a filter
 * with wildcards is looked up by walking them (filter_tree.h is for the other direction). Nodes
 * without a value and without children are given back. Not locked: its owner does that. */
#ifndef CHR_BASE_TOPIC_TREE_H
#define CHR_BASE_TOPIC_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

struct chr_topic_node {
    struct chr_topic_node *parent;
    struct chr_topic_node *hash_next;
    struct chr_topic_node *first_child, *next_sibling, *prev_sibling;
    void *value; /* the owner's; NULL: none */
    uint64_t hash;
    uint32_t level_len; /* at most 65,535 */
    uint8_t level[];
};

struct chr_topic_tree {
    struct chr_topic_node *root; /* above the first level */
    struct chr_topic_node **buckets;
    size_t buckets_mask;
    size_t nodes; /* root not counted */
};

CHR_MUST_USE chr_err chr_topic_tree_init(struct chr_topic_tree *tree);
/* Values must be gone. */
void chr_topic_tree_free(struct chr_topic_tree *tree);
/* The node of a whole topic or filter, made if need be. NULL: no memory; nothing changed then. */
struct chr_topic_node *chr_topic_tree_add(struct chr_topic_tree *tree, chr_slice topic);
/* NULL: there is none. */
struct chr_topic_node *chr_topic_tree_find(const struct chr_topic_tree *tree, chr_slice topic);
struct chr_topic_node *chr_topic_tree_child(const struct chr_topic_tree *tree,
                                            const struct chr_topic_node *parent, chr_slice level);
/* Its value was taken away: gives back what serves nobody, up to the root. */
void chr_topic_tree_prune(struct chr_topic_tree *tree, struct chr_topic_node *node);

#endif
