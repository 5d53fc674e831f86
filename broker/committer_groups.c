/* broker/committer_groups.c: groups of entries: gathered, handed to the log writer, passed on when
 * committed, contradicted by another leader, let go. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/committer_internal.h"

#define GROUPS_KEPT 2u

struct committer_owned {
    struct committer_owned *next;
    uint8_t bytes[];
};

/* ---- Pool -------------------------------------------------------------------------------------
 */

chr_err committer__groups_init(struct broker_committer *c)
{
    c->groups = calloc(COMMITTER_GROUPS, sizeof *c->groups);
    if (!c->groups)
        return CHR_ENOMEM;
    for (int i = 1; i < COMMITTER_GROUPS; i++) {
        c->groups[i].next_free = c->free_groups;
        c->free_groups = &c->groups[i];
    }
    atomic_store(&c->free_count, COMMITTER_GROUPS - 1);
    c->gathering = &c->groups[0];
    return CHR_OK;
}

/* What it borrowed and owned. */
static void group_empty(struct broker_committer *c, struct committer_group *g)
{
    while (g->messages) {
        struct peers_message *next = g->messages->next;
        peers_release(c->cluster.peers, g->messages);
        g->messages = next;
    }
    while (g->owned) {
        struct committer_owned *next = g->owned->next;
        free(g->owned);
        g->owned = next;
    }
    g->count = g->keep = 0;
    g->bytes = 0;
    g->truncate = g->own = false;
    g->proposed_us = 0;
}

void committer__groups_free(struct broker_committer *c)
{
    for (int i = 0; c->groups && i < COMMITTER_GROUPS; i++)
        group_empty(c, &c->groups[i]);
    free(c->groups);
}

void committer__group_release(struct broker_committer *c, struct committer_group *g)
{
    group_empty(c, g);
    pthread_mutex_lock(&c->groups_lock);
    g->next_free = c->free_groups;
    c->free_groups = g;
    pthread_mutex_unlock(&c->groups_lock);
    atomic_fetch_add(&c->free_count, 1);
}

static struct committer_group *group_take(struct broker_committer *c)
{
    pthread_mutex_lock(&c->groups_lock);
    struct committer_group *g = c->free_groups;
    if (g)
        c->free_groups = g->next_free;
    pthread_mutex_unlock(&c->groups_lock);
    if (g)
        atomic_fetch_sub(&c->free_count, 1);
    return g;
}

/* ---- Gathering --------------------------------------------------------------------------------
 */

bool committer__group_gathers(const struct broker_committer *c, const struct committer_group *g,
                              size_t bytes)
{
    return g->count < COMMITTER_GROUP_ENTRIES - COMMITTER_OWN_ENTRIES &&
           (g->count == 0 || bytes < c->options.group_bytes_max);
}

void committer__group_add(struct committer_group *g, struct broker_proposal *p,
                          enum raft_entry_type type, chr_slice entry, size_t *bytes)
{
    g->proposals[g->count] = p;
    g->entries[g->count++] = (struct raft_entry){.type = type, .bytes = entry};
    *bytes += entry.len;
}

static void group_add(struct committer_group *g, struct broker_proposal *p, size_t *bytes)
{
    committer__group_add(g, p, p->type, p->bytes, bytes);
}

/* Round robin, so that one loop's backlog does not keep the others waiting; over groups, too: each
 * goes on where the last one stopped, or loops whose batches fill a group would starve the rest. */
static void gather_loops(struct broker_committer *c, struct committer_group *g, size_t *bytes)
{
    uint32_t empty = 0; /* rings found empty one after the other */
    while (empty < c->options.loops && committer__group_gathers(c, g, *bytes)) {
        struct broker_proposal *p = chr_ring_pop(&c->rings[c->next_loop]);
        c->next_loop = (c->next_loop + 1) % c->options.loops;
        if (p)
            group_add(g, p, bytes);
        empty = p ? 0 : empty + 1;
    }
}

/* entries_max, bytes_max: of the group afterwards, beyond the group's own limits. */
static void gather_submitted(struct broker_committer *c, struct committer_group *g, size_t *bytes,
                             uint32_t entries_max, size_t bytes_max)
{
    pthread_mutex_lock(&c->submit_lock);
    while (!chr_list_empty(&c->submitted) && committer__group_gathers(c, g, *bytes) &&
           g->count < entries_max && *bytes < bytes_max) {
        struct chr_list *first = c->submitted.next;
        chr_list_remove(first);
        c->submitted_count--;
        group_add(g, CHR_CONTAINER_OF(first, struct broker_proposal, link), bytes);
    }
    pthread_mutex_unlock(&c->submit_lock);
}

/* Proposals that an earlier term of office of ours is known to have lost come first: theirs is the
 * earlier place in their loop's order. */
static void gather_again(struct broker_committer *c, struct committer_group *g, size_t *bytes)
{
    struct forward *f = &c->forward;
    pthread_mutex_lock(&f->lock);
    while (!chr_list_empty(&f->again) && committer__group_gathers(c, g, *bytes)) {
        struct chr_list *first = f->again.next;
        chr_list_remove(first);
        group_add(g, CHR_CONTAINER_OF(first, struct broker_proposal, link), bytes);
    }
    pthread_mutex_unlock(&f->lock);
}

static void refuse(struct committer_group *g, uint32_t from, chr_err err)
{
    for (uint32_t i = from; i < g->count; i++)
        if (g->proposals[i])
            g->proposals[i]->done(g->proposals[i], err, NULL);
    g->count = from;
}

/* What is on its way when the node stops is little and bounded: no reason to wait for a checkpoint
 * that may have no room. */
bool committer__held_by_hot_limit(struct broker_committer *c)
{
    return db_hot_full(c->options.db) && !atomic_load(&c->stopping) &&
           atomic_load(&c->give_up_us) == 0;
}

/* Everything that a leader may propose now. */
static void gather_proposals(struct broker_committer *c, struct committer_group *g, size_t *bytes)
{
    if (!c->alone) {
        /* While it is not known what became of what we forwarded or proposed before, nothing new
         * goes past it. */
        if (committer__forward_gather_own(c, g, bytes))
            return;
        gather_again(c, g, bytes);
        committer__forward_gather_taken(c, g, bytes);
    }
    /* Half of the group for each of the two, the rest for whoever comes: a backlog of the loops
     * must not starve SQL, nor the other way round. */
    gather_submitted(c, g, bytes, COMMITTER_GROUP_ENTRIES / 2, c->options.group_bytes_max / 2);
    gather_loops(c, g, bytes);
    gather_submitted(c, g, bytes, UINT32_MAX, SIZE_MAX);
}

bool committer__gather(struct broker_committer *c)
{
    if (atomic_load_explicit(&c->to_write, memory_order_acquire) != NULL)
        return false; /* the next group gathers in the rings meanwhile */
    if (c->raft.role != RAFT_LEADER || c->raft.transfer_to)
        return false;
    bool full = committer__held_by_hot_limit(c);
    atomic_store_explicit(&c->hot_full, full, memory_order_relaxed);
    if (full || !committer__may_gather(c))
        return false; /* or the applier, or a majority, is behind by all groups */
    struct committer_group *g = c->gathering;
    uint32_t from = g->count;
    size_t bytes = g->bytes;
    gather_proposals(c, g, &bytes);
    if (g->count == 0 && committer__tick_due(c))
        committer__group_add(g, NULL, RAFT_ENTRY_TICK, (chr_slice){0}, &bytes);
    if (g->count == from)
        return false;

    chr_err err = committer__step(c, (struct raft_event){.type = RAFT_EVENT_PROPOSE,
                                                         .entries = g->entries + from,
                                                         .entries_count = g->count - from});
    if (err) {
        refuse(g, from, err);
        if (!c->alone)
            committer__forward_refused(c);
        return true;
    }
    for (uint32_t i = from; i < g->count; i++) {
        if (!g->proposals[i])
            continue;
        g->own = true;
        g->proposals[i]->index = g->entries[i].index;
        g->proposals[i]->hlc = g->entries[i].hlc;
    }
    if (!g->proposed_us)
        g->proposed_us = c->raft.now_us;
    g->bytes = bytes;
    atomic_fetch_add_explicit(&c->entries_count, g->count - from, memory_order_relaxed);
    return true;
}

/* ---- Saving -----------------------------------------------------------------------------------
 */

bool committer__group_room(const struct broker_committer *c, size_t count)
{
    const struct committer_group *g = c->gathering;
    return g->count + count <= COMMITTER_GROUP_ENTRIES - COMMITTER_OWN_ENTRIES &&
           g->bytes < c->options.group_bytes_max;
}

chr_slice committer__group_own(struct committer_group *g, size_t bytes)
{
    struct committer_owned *o = malloc(sizeof *o + bytes);
    if (!o)
        return (chr_slice){0};
    o->next = g->owned;
    g->owned = o;
    return chr_slice_of(o->bytes, bytes);
}

/* A copy that lives as long as the group does. */
static chr_slice own_bytes(struct committer_group *g, chr_slice bytes)
{
    if (bytes.len == 0)
        return (chr_slice){0};
    chr_slice copy = committer__group_own(g, bytes.len);
    CHR_ASSERT(copy.ptr); /* a no-op or a change of members: a few bytes */
    memcpy((uint8_t *)copy.ptr, bytes.ptr, bytes.len);
    return copy;
}

void committer__group_save(struct broker_committer *c, const struct raft_entry *entries,
                           size_t count, uint64_t sequence, struct peers_message *message)
{
    struct committer_group *g = c->gathering;
    g->save_sequence = sequence;
    if (entries == g->entries || (entries > g->entries && entries < g->entries + g->count)) {
        /* gathered in place */
        g->first_index = g->entries[0].index;
        g->keep = g->count;
        return;
    }
    CHR_ASSERT(g->count + count <= COMMITTER_GROUP_ENTRIES);
    CHR_ASSERT(g->count == 0 || entries[0].index == g->first_index + g->count);
    for (size_t i = 0; i < count; i++) {
        struct raft_entry *e = &g->entries[g->count];
        *e = entries[i];
        if (!message)
            e->bytes = own_bytes(g, e->bytes);
        g->bytes += e->bytes.len;
        g->proposals[g->count++] = NULL;
    }
    g->first_index = g->entries[0].index;
    g->keep = g->count;
    if (message) {
        message->next = g->messages;
        g->messages = message;
    }
}

/* What is in the log need not stay in memory while a majority is missing: it is applied from there,
 * should it be committed. Without this a leader whose groups are all of an older term could not
 * write the entry of its own that commits them (thesis 3.6.2). False: there is none. */
static bool evict_oldest(struct broker_committer *c)
{
    if (c->alone || c->waiting_count == 0 || c->waiting[0] == c->writing)
        return false;
    struct committer_group *g = c->waiting[0];
    for (uint32_t i = 0; i < g->keep; i++)
        if (g->proposals[i]) /* answered when this very entry is applied (F2) */
            committer__forward_unsure(c, g->proposals[i], g->entries[i].index, g->entries[i].term);
    c->waiting_count--;
    memmove(c->waiting, c->waiting + 1, c->waiting_count * sizeof c->waiting[0]);
    committer__group_release(c, g);
    return true;
}

/* Bytes of messages that groups keep count in the window of the peer they came from. */
#define HELD_BYTES_MAX (4u << 20)

void committer__groups_relieve(struct broker_committer *c)
{
    for (;;) {
        uint64_t held = 0;
        for (uint32_t i = 0; i < c->waiting_count; i++)
            held += c->waiting[i]->messages ? c->waiting[i]->bytes : 0;
        if (held <= HELD_BYTES_MAX || !evict_oldest(c))
            return;
    }
}

bool committer__can_hand_over(const struct broker_committer *c)
{
    return atomic_load(&c->free_count) > 0 ||
           (!c->alone && c->waiting_count && c->waiting[0] != c->writing);
}

bool committer__may_gather(const struct broker_committer *c)
{
    /* A member keeps some for entries of the core's own, and for what another leader says. */
    return atomic_load(&c->free_count) > (c->alone ? 0u : GROUPS_KEPT);
}

bool committer__hand_over(struct broker_committer *c)
{
    struct committer_group *g = c->gathering;
    if ((g->count == 0 && !g->truncate) || atomic_load(&c->to_write) != NULL || c->writing)
        return false;
    struct committer_group *next = group_take(c);
    if (!next && evict_oldest(c))
        next = group_take(c);
    if (!next)
        return false;
    c->gathering = next;
    if (g->count)
        c->waiting[c->waiting_count++] = g;
    c->writing = g;
    atomic_fetch_add_explicit(&c->groups_count, 1, memory_order_relaxed);
    atomic_store(&c->to_write, g);
    return true;
}

void committer__group_written(struct broker_committer *c, struct committer_group *g)
{
    bool waits = false;
    for (uint32_t i = 0; i < c->waiting_count; i++)
        waits |= c->waiting[i] == g;
    if (!waits)
        committer__group_release(c, g); /* nothing but a truncation, or contradicted meanwhile */
}

/* ---- Committed, contradicted ------------------------------------------------------------------
 */

const uint64_t broker_commit_bounds_us[BROKER_COMMIT_BUCKETS] = {
    250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000, 1000000};

/* The core's clock was read for the event that committed it: a group costs no call. */
static void note_commit_time(struct broker_committer *c, const struct committer_group *g)
{
    uint64_t us = (uint64_t)CHR_MAX(c->raft.now_us - g->proposed_us, 0);
    size_t bucket = 0;
    while (bucket < BROKER_COMMIT_BUCKETS && us > broker_commit_bounds_us[bucket])
        bucket++;
    atomic_fetch_add_explicit(&c->commit_counts[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->commit_us_total, us, memory_order_relaxed);
}

void committer__pass_committed(struct broker_committer *c, uint64_t commit_index)
{
    uint32_t passed = 0;
    while (passed < c->waiting_count && c->waiting[passed] != c->writing &&
           committer__last_kept(c->waiting[passed]) <= commit_index) {
        if (c->waiting[passed]->proposed_us)
            note_commit_time(c, c->waiting[passed]);
        atomic_fetch_add(&c->to_apply_bytes, c->waiting[passed]->bytes);
        bool pushed = chr_ring_push(&c->to_apply, c->waiting[passed]);
        CHR_ASSERT(pushed); /* the ring holds as many groups as there are */
        passed++;
    }
    if (passed) {
        c->waiting_count -= passed;
        memmove(c->waiting, c->waiting + passed, c->waiting_count * sizeof c->waiting[0]);
    }
    /* After the groups: whoever sees the new limit and no group knows that the log has them. A
     * group of which only a part is committed is passed when the rest is. */
    uint64_t limit = commit_index;
    if (c->waiting_count)
        limit = CHR_MIN(limit, c->waiting[0]->first_index - 1);
    if (limit > atomic_load_explicit(&c->apply_limit, memory_order_relaxed))
        atomic_store(&c->apply_limit, limit);
}

/* Entries above index, of this group, are none of our log any more. */
static void group_cut(struct broker_committer *c, struct committer_group *g, uint64_t index)
{
    uint32_t keep = index < g->first_index ? 0 : (uint32_t)(index - g->first_index + 1);
    for (uint32_t i = keep; i < g->keep; i++) {
        if (g->proposals[i])
            committer__forward_unsure(c, g->proposals[i], g->entries[i].index, g->entries[i].term);
        g->proposals[i] = NULL;
    }
    g->keep = CHR_MIN(g->keep, keep);
}

void committer__groups_truncate(struct broker_committer *c, uint64_t index)
{
    struct committer_group *g = c->gathering;
    /* Not handed over yet: the log has never seen them. */
    uint64_t handed = g->count ? g->first_index - 1 : UINT64_MAX;
    if (g->count && index < committer__last_kept(g)) {
        group_cut(c, g, index);
        g->count = g->keep;
        g->bytes = 0;
        for (uint32_t i = 0; i < g->count; i++)
            g->bytes += g->entries[i].bytes.len;
    }
    if (index < handed) {
        g->truncate_to = g->truncate ? CHR_MIN(g->truncate_to, index) : index;
        g->truncate = true;
    }
    while (c->waiting_count) {
        struct committer_group *last = c->waiting[c->waiting_count - 1];
        if (committer__last_kept(last) <= index)
            break;
        group_cut(c, last, index);
        if (last->keep)
            break;
        c->waiting_count--;
        if (last != c->writing)
            committer__group_release(c, last);
    }
}

const struct raft_entry *committer__entry_at(const struct broker_committer *c, uint64_t index)
{
    const struct committer_group *g = c->gathering;
    if (g->count && index >= g->first_index)
        return index < g->first_index + g->keep ? &g->entries[index - g->first_index] : NULL;
    for (uint32_t i = c->waiting_count; i-- > 0;) {
        g = c->waiting[i];
        if (index >= g->first_index)
            return index <= committer__last_kept(g) ? &g->entries[index - g->first_index] : NULL;
    }
    return NULL;
}

/* ---- What waits -------------------------------------------------------------------------------
 */

static bool submitted_waits(struct broker_committer *c)
{
    pthread_mutex_lock(&c->submit_lock);
    bool waits = !chr_list_empty(&c->submitted);
    pthread_mutex_unlock(&c->submit_lock);
    return waits;
}

bool committer__proposals_wait(struct broker_committer *c)
{
    for (uint32_t i = 0; i < c->options.loops; i++)
        if (!chr_ring_empty(&c->rings[i]))
            return true;
    return submitted_waits(c);
}
