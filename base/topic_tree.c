#include "base/topic_tree.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define BUCKETS_FIRST 64u

/* The level before the next slash, taken off the topic; empty levels count. False: that was all. */
static bool next_level(chr_slice *topic, bool *done, chr_slice *level)
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

static uint64_t hash_of(const struct chr_topic_node *parent, chr_slice level)
{
    return chr_hash_slice(level, chr_hash_seed() ^ chr_hash_u64((uint64_t)(uintptr_t)parent));
}

chr_err chr_topic_tree_init(struct chr_topic_tree *tree)
{
    *tree = (struct chr_topic_tree){.buckets_mask = BUCKETS_FIRST - 1};
    tree->root = calloc(1, sizeof *tree->root);
    tree->buckets = calloc(BUCKETS_FIRST, sizeof(struct chr_topic_node *));
    if (tree->root && tree->buckets)
        return CHR_OK;
    chr_topic_tree_free(tree);
    return CHR_ENOMEM;
}

void chr_topic_tree_free(struct chr_topic_tree *tree)
{
    for (size_t i = 0; tree->buckets && i <= tree->buckets_mask; i++) {
        while (tree->buckets[i]) {
            struct chr_topic_node *node = tree->buckets[i];
            tree->buckets[i] = node->hash_next;
            free(node);
        }
    }
    free((void *)tree->buckets);
    free(tree->root);
    *tree = (struct chr_topic_tree){0};
}

static struct chr_topic_node *find_child(const struct chr_topic_tree *tree,
                                         const struct chr_topic_node *parent, chr_slice level,
                                         uint64_t hash)
{
    struct chr_topic_node *node = tree->buckets[hash & tree->buckets_mask];
    while (node && (node->hash != hash || node->parent != parent ||
                    !chr_slice_eq(chr_slice_of(node->level, node->level_len), level)))
        node = node->hash_next;
    return node;
}

struct chr_topic_node *chr_topic_tree_child(const struct chr_topic_tree *tree,
                                            const struct chr_topic_node *parent, chr_slice level)
{
    if (!parent->first_child)
        return NULL;
    return find_child(tree, parent, level, hash_of(parent, level));
}

static void grow(struct chr_topic_tree *tree)
{
    size_t count = (tree->buckets_mask + 1) * 2;
    struct chr_topic_node **buckets = calloc(count, sizeof(struct chr_topic_node *));
    if (!buckets)
        return; /* longer chains, nothing worse */
    for (size_t i = 0; i <= tree->buckets_mask; i++) {
        while (tree->buckets[i]) {
            struct chr_topic_node *node = tree->buckets[i];
            tree->buckets[i] = node->hash_next;
            node->hash_next = buckets[node->hash & (count - 1)];
            buckets[node->hash & (count - 1)] = node;
        }
    }
    free((void *)tree->buckets);
    tree->buckets = buckets;
    tree->buckets_mask = count - 1;
}

static struct chr_topic_node *add_child(struct chr_topic_tree *tree, struct chr_topic_node *parent,
                                        chr_slice level)
{
    uint64_t hash = hash_of(parent, level);
    struct chr_topic_node *node = find_child(tree, parent, level, hash);
    if (node)
        return node;
    node = malloc(sizeof *node + level.len);
    if (!node)
        return NULL;
    *node = (struct chr_topic_node){.parent = parent,
                                    .hash = hash,
                                    .level_len = (uint32_t)level.len,
                                    .next_sibling = parent->first_child};
    if (level.len)
        memcpy(node->level, level.ptr, level.len);
    if (parent->first_child)
        parent->first_child->prev_sibling = node;
    parent->first_child = node;
    if (tree->nodes > tree->buckets_mask)
        grow(tree);
    struct chr_topic_node **bucket = &tree->buckets[hash & tree->buckets_mask];
    node->hash_next = *bucket;
    *bucket = node;
    tree->nodes++;
    return node;
}

void chr_topic_tree_prune(struct chr_topic_tree *tree, struct chr_topic_node *node)
{
    while (node != tree->root && !node->value && !node->first_child) {
        struct chr_topic_node *parent = node->parent;
        struct chr_topic_node **at = &tree->buckets[node->hash & tree->buckets_mask];
        while (*at != node)
            at = &(*at)->hash_next;
        *at = node->hash_next;
        if (node->prev_sibling)
            node->prev_sibling->next_sibling = node->next_sibling;
        else
            parent->first_child = node->next_sibling;
        if (node->next_sibling)
            node->next_sibling->prev_sibling = node->prev_sibling;
        free(node);
        tree->nodes--;
        node = parent;
    }
}

struct chr_topic_node *chr_topic_tree_add(struct chr_topic_tree *tree, chr_slice topic)
{
    struct chr_topic_node *node = tree->root;
    bool done = false;
    chr_slice level;
    while (next_level(&topic, &done, &level)) {
        struct chr_topic_node *child = add_child(tree, node, level);
        if (!child) {
            chr_topic_tree_prune(tree, node);
            return NULL;
        }
        node = child;
    }
    return node;
}

struct chr_topic_node *chr_topic_tree_find(const struct chr_topic_tree *tree, chr_slice topic)
{
    struct chr_topic_node *node = tree->root;
    bool done = false;
    chr_slice level;
    while (node && next_level(&topic, &done, &level))
        node = chr_topic_tree_child(tree, node, level);
    return node;
}
