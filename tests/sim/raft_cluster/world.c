/* tests/sim/raft_cluster/world.c: what all files here need. */
#include "tests/sim/raft_cluster/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

bool CHR_PRINTF(2, 3) cluster__broken(struct world *w, const char *format, ...)
{
    if (w->report->broken[0])
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(w->report->broken, sizeof w->report->broken, format, args);
    va_end(args);
    return false;
}

void *cluster__grow(void *at, size_t *capacity, size_t count, size_t bytes)
{
    if (count <= *capacity)
        return at;
    *capacity = CHR_MAX(count, *capacity * 2 + 8);
    at = realloc(at, *capacity * bytes);
    CHR_ASSERT(at);
    return at;
}

void cluster__items_add(struct items *items, const struct raft_entry *e)
{
    items->at = cluster__grow(items->at, &items->capacity, items->count + 1, sizeof *items->at);
    struct item *i = &items->at[items->count++];
    CHR_ASSERT(e->bytes.len <= BYTES_MAX);
    *i = (struct item){e->index, e->term, e->hlc, e->type, (uint32_t)e->bytes.len, {0}};
    if (e->bytes.len)
        memcpy(i->bytes, e->bytes.ptr, e->bytes.len);
}

struct raft_entry cluster__entry_of(const struct item *i)
{
    return (struct raft_entry){i->index, i->term, i->hlc, i->type, chr_slice_of(i->bytes, i->len)};
}

void cluster__items_free(struct items *items)
{
    free(items->at);
    *items = (struct items){0};
}

struct item *cluster__item_at(struct node *n, uint64_t index)
{
    if (index <= n->entries_base || index > n->entries_base + n->entries.count)
        return NULL;
    return &n->entries.at[index - n->entries_base - 1];
}

int64_t cluster__local(const struct world *w, const struct node *n)
{
    return n->offset + (int64_t)((double)w->now * n->rate);
}

/* When the node's clock shows local_us. */
int64_t cluster__global(const struct node *n, int64_t local_us)
{
    return (int64_t)((double)(local_us - n->offset) / n->rate) + 1;
}

void cluster__trace(struct world *w, const struct node *n, const char *what, uint64_t a, uint64_t b)
{
    if (w->options->verbose)
        printf(
            "%10lld node %llu %s %llu %llu (term %llu role %d last %llu saved %llu commit %llu)\n",
            (long long)w->now, (unsigned long long)n->id, what, (unsigned long long)a,
            (unsigned long long)b, (unsigned long long)n->raft.term, (int)n->raft.role,
            (unsigned long long)n->raft.last_index, (unsigned long long)n->raft.saved_index,
            (unsigned long long)n->raft.commit_index);
}

struct node *cluster__some_node(struct world *w, bool leader)
{
    uint32_t from = 1 + (uint32_t)below(w, NODES_MAX);
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        struct node *n = &w->nodes[1 + (from + i) % NODES_MAX];
        if (n->up && n->paused_until <= w->now && (!leader || n->raft.role == RAFT_LEADER))
            return n;
    }
    return NULL;
}
