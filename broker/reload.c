#include "broker/reload.h"

#include "base/assert.h"
#include "broker/node.h"

void node_reload_register(struct broker_node *node, const struct reload_part *part)
{
    CHR_ASSERT(node->reload_parts_count < RELOAD_PARTS_MAX);
    CHR_ASSERT(part->prepare && part->commit && part->abort);
    node->reload_parts[node->reload_parts_count++] = *part;
}

chr_err node_reload(struct broker_node *node, const struct broker_config *next,
                    struct chr_errmsg *msg)
{
    void *prepared[RELOAD_PARTS_MAX] = {NULL};
    struct chr_errmsg why = {{0}};
    chr_err err = CHR_OK;
    uint32_t done = 0;
    while (!err && done < node->reload_parts_count) {
        const struct reload_part *part = &node->reload_parts[done];
        err = part->prepare(part->ctx, next, &prepared[done], &why);
        if (!err)
            done++;
    }
    if (err) {
        if (!why.text[0])
            (void)chr_fail(&why, err, "%s", chr_strerror(err));
        (void)chr_fail(msg, err, "%s: %s", node->reload_parts[done].name, why.text);
        while (done-- > 0)
            node->reload_parts[done].abort(node->reload_parts[done].ctx, prepared[done]);
        return err;
    }
    /* L2: pairs with every load of node->config. */
    atomic_store_explicit(&node->config, next, memory_order_release);
    for (uint32_t i = 0; i < node->reload_parts_count; i++)
        node->reload_parts[i].commit(node->reload_parts[i].ctx, prepared[i]);
    return CHR_OK;
}
