/* tests/sim/raft_cluster/state.c: the state machine, a chain of hashes, and what must hold of it,
 * of leaders and of logs. */
#include "tests/sim/raft_cluster/world.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/hash.h"

static uint64_t hash_of(const struct item *i)
{
    return chr_hash_u64(chr_hash_bytes(i->bytes, i->len, 0) ^ chr_hash_u64(i->index) ^
                        chr_hash_u64(i->term * 31 + (uint64_t)i->type));
}

static void acknowledge(struct world *w, const struct node *n, uint64_t index, uint64_t term)
{
    for (size_t i = 0; i < w->proposals_count; i++) {
        struct proposal *p = &w->proposals[i];
        if (p->node != n->id || p->boot != n->boots || p->index > index)
            continue;
        if (p->index == index && p->term == term) {
            w->history[index - 1].acknowledged = true;
            w->acknowledged = CHR_MAX(w->acknowledged, index);
            w->report->acknowledged++;
            cluster__write_ends(w, p->number, p->op);
        }
        w->proposals[i--] = w->proposals[--w->proposals_count];
    }
}

static bool apply_one(struct world *w, struct node *n, const struct item *i)
{
    uint64_t hash = hash_of(i);
    uint64_t chain = chr_hash_u64(n->chain * 1000003 + hash);
    if (i->index > w->history_count) {
        CHR_ASSERT(i->index == w->history_count + 1);
        w->history = cluster__grow(w->history, &w->history_capacity, w->history_count + 1,
                                   sizeof *w->history);
        w->history[w->history_count++] =
            (struct applied){.term = i->term,
                             .hash = hash,
                             .chain = chain,
                             .known_in = n->raft.term,
                             .number = i->type == RAFT_ENTRY_DATA ? chr_get_u64le(i->bytes) : 0};
        w->report->committed++;
        cluster__applied_first(w, n);
    }
    const struct applied *a = &w->history[i->index - 1];
    if (a->hash != hash || a->chain != chain)
        return cluster__broken(w, "node %llu applied another entry %llu (term %llu, not %llu)",
                               (unsigned long long)n->id, (unsigned long long)i->index,
                               (unsigned long long)i->term, (unsigned long long)a->term);
    n->applied = i->index;
    n->chain = chain;
    if (i->type == RAFT_ENTRY_CONFIG &&
        raft_members_decode(chr_slice_of(i->bytes, i->len), &n->applied_members))
        return cluster__broken(w, "members of entry %llu can't be read",
                               (unsigned long long)i->index);
    acknowledge(w, n, i->index, i->term);
    return true;
}

bool cluster__apply(struct world *w, struct node *n, uint64_t commit_index)
{
    while (n->applied < commit_index) {
        const struct item *i = cluster__item_at(n, n->applied + 1);
        if (!i)
            return cluster__broken(w, "node %llu has no entry %llu, which is committed",
                                   (unsigned long long)n->id, (unsigned long long)n->applied + 1);
        if (!apply_one(w, n, i))
            return false;
    }
    return true;
}

/* The worst moment for a leader not to hear that there is another one: leases must have run out. */
static void deafen_old_leader(struct world *w, const struct node *n)
{
    for (uint64_t id = 1;
         id <= NODES_MAX && goes_wrong(w, RAFT_CLUSTER_CUTS, w->profile->halves ? 0 : 900); id++) {
        const struct node *old = &w->nodes[id];
        if (old != n && old->up && old->raft.role == RAFT_LEADER)
            cluster__deafen(w, id);
    }
    w->next_client = CHR_MIN(w->next_client, w->now + 5000);
    if (goes_wrong(w, RAFT_CLUSTER_BLACKOUTS, 150)) /* … or is gone when it has hardly begun … */
        w->blackout = w->now + (int64_t)below(w, 30000);
    w->eager = chance(w, w->profile->changes ? 800 : 300); /* … or is to change members at once */
}

bool cluster__check_leader(struct world *w, struct node *n)
{
    const struct raft *r = &n->raft;
    if (r->role != RAFT_LEADER)
        return true;
    if (r->term >= w->leaders_count) {
        size_t count = r->term + 64;
        w->leaders = realloc(w->leaders, count * sizeof *w->leaders);
        CHR_ASSERT(w->leaders);
        memset(w->leaders + w->leaders_count, 0, (count - w->leaders_count) * sizeof *w->leaders);
        w->leaders_count = count;
    }
    uint64_t *leader = &w->leaders[r->term];
    if (*leader == n->id)
        return true;
    if (*leader)
        return cluster__broken(w, "two leaders of term %llu: %llu and %llu",
                               (unsigned long long)r->term, (unsigned long long)*leader,
                               (unsigned long long)n->id);
    *leader = n->id;
    w->report->elections++;
    deafen_old_leader(w, n);
    cluster__elected(w, n);
    /* Leader completeness (thesis 3.6.3): everything that was committed in a term before. (A leader
     * can also be elected late, by votes that were long on their way.) */
    uint64_t last = w->history_count;
    while (last > 0 && w->history[last - 1].known_in >= r->term)
        last--;
    if (last > r->base_index && raft_term_of(r, last) != w->history[last - 1].term)
        return cluster__broken(w, "the leader of term %llu (node %llu) lacks entry %llu",
                               (unsigned long long)r->term, (unsigned long long)n->id,
                               (unsigned long long)last);
    if (r->base_index > w->history_count)
        return cluster__broken(w, "node %llu has compacted what nobody applied",
                               (unsigned long long)n->id);
    return true;
}

/* Whom a node counts is what the last change in its log says, or else its snapshot. */
bool cluster__check_members(struct world *w, const struct node *n)
{
    struct raft_members members = n->snapshot.members;
    for (size_t i = n->entries.count; i-- > 0;) {
        const struct item *e = &n->entries.at[i];
        if (e->index <= n->snapshot.index)
            break;
        if (e->type == RAFT_ENTRY_CONFIG) {
            chr_err err = raft_members_decode(chr_slice_of(e->bytes, e->len), &members);
            CHR_ASSERT(!err);
            break;
        }
    }
    const struct raft_members *now = raft_members_now(&n->raft);
    bool same = now->count == members.count;
    for (uint32_t i = 0; same && i < now->count; i++)
        same = now->items[i].id == members.items[i].id &&
               now->items[i].incarnation == members.items[i].incarnation &&
               now->items[i].voter == members.items[i].voter;
    if (!same)
        return cluster__broken(w, "node %llu counts other members than its log says",
                               (unsigned long long)n->id);
    return true;
}

/* Entries that are equal have equal entries before them. */
bool cluster__check_logs(struct world *w, struct node *a)
{
    for (uint64_t id = 1; id <= NODES_MAX; id++) {
        struct node *b = &w->nodes[id];
        if (!b->up || b == a)
            continue;
        uint64_t low = CHR_MAX(a->entries_base, b->entries_base);
        uint64_t i = CHR_MIN(a->raft.last_index, b->raft.last_index);
        bool equal = false;
        for (; i > low; i--) {
            struct item *x = cluster__item_at(a, i), *y = cluster__item_at(b, i);
            if (x->term == y->term && (x->len != y->len || memcmp(x->bytes, y->bytes, x->len)))
                return cluster__broken(
                    w, "nodes %llu and %llu have different entries %llu of term %llu",
                    (unsigned long long)a->id, (unsigned long long)b->id, (unsigned long long)i,
                    (unsigned long long)x->term);
            if (equal && x->term != y->term)
                return cluster__broken(
                    w, "nodes %llu and %llu agree above entry %llu and not at it",
                    (unsigned long long)a->id, (unsigned long long)b->id, (unsigned long long)i);
            equal |= x->term == y->term;
        }
    }
    return true;
}
