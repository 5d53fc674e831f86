/* broker/session/tree.h: a tree of topic levels; what subscriptions and retained messages hang on.
 *
 * One node per level string under its parent, found by one hash table for the whole tree (keyed by
 * parent and level), so a step costs one look-up however many children there are, and a million
 * filters cost a million small nodes and no per-node tables. `+` and `#` are levels like others.
 * Nodes without a value and without children are given back. Not locked: its owner does that. */
#ifndef CHR_BROKER_SESSION_TREE_H
#define CHR_BROKER_SESSION_TREE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

struct topic_node {
    struct topic_node *parent;
    struct topic_node *hash_next;
    struct topic_node *first_child, *next_sibling, *prev_sibling;
    void *value; /* the owner's; NULL: none */
    uint64_t hash;
    uint32_t level_len; /* at most 65,535 */
    uint8_t level[];
};

struct topic_tree {
    struct topic_node *root; /* above the first level */
    struct topic_node **buckets;
    size_t buckets_mask;
    size_t nodes; /* root not counted */
};

CHR_MUST_USE chr_err topic_tree_init(struct topic_tree *tree);
/* Values must be gone. */
void topic_tree_free(struct topic_tree *tree);
/* The node of a whole topic or filter, made if need be. NULL: no memory; nothing changed then. */
struct topic_node *topic_tree_add(struct topic_tree *tree, chr_slice topic);
/* NULL: there is none. */
struct topic_node *topic_tree_find(const struct topic_tree *tree, chr_slice topic);
struct topic_node *topic_tree_child(const struct topic_tree *tree, const struct topic_node *parent,
                                    chr_slice level);
/* Its value was taken away: gives back what serves nobody, up to the root. */
void topic_tree_prune(struct topic_tree *tree, struct topic_node *node);

#endif
