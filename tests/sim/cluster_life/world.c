/* tests/sim/cluster_life/world.c: helpers. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

bool life__broken(struct world *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (sound(w))
        vsnprintf(w->report->broken, sizeof w->report->broken, format, args);
    va_end(args);
    return false;
}

void *life__grow(void *at, size_t *capacity, size_t count, size_t bytes)
{
    if (count <= *capacity)
        return at;
    while (*capacity < count)
        *capacity = *capacity ? 2 * *capacity : 64;
    at = realloc(at, *capacity * bytes);
    CHR_ASSERT(at);
    return at;
}

void life__trace(struct world *w, const struct node *n, const char *format, ...)
{
    if (!w->options->verbose)
        return;
    printf("%10lld us", (long long)w->now);
    if (n)
        printf(" node %llu", (unsigned long long)n->id);
    if (n && n->committer)
        printf(" (term %llu%s, committed %llu, applied %llu)",
               (unsigned long long)atomic_load(&n->committer->term),
               atomic_load(&n->committer->role) == RAFT_LEADER ? ", leads" : "",
               (unsigned long long)atomic_load(&n->committer->commit_index),
               (unsigned long long)life__applied_index(n));
    printf(": ");
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

struct node *life__leader(struct world *w)
{
    struct node *leader = NULL;
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        if (n->serving && atomic_load(&n->committer->role) == RAFT_LEADER &&
            (!leader || atomic_load(&n->committer->term) > atomic_load(&leader->committer->term)))
            leader = n;
    }
    return leader;
}

struct node *life__some_node(struct world *w)
{
    uint32_t from = (uint32_t)below(w, NODES_MAX);
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        struct node *n = &w->nodes[1 + (from + i) % NODES_MAX];
        if (n->serving)
            return n;
    }
    return NULL;
}

uint64_t life__applied_index(const struct node *n)
{
    return n->db ? db_apply_index(n->db) : 0;
}
