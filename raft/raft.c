/* raft/raft.c: the consensus core, for a cluster of one so far.
 *
 *              TICK: lone voter (start_election, become_leader)
 *   FOLLOWER ───────────────────────────────────────────────────▶ LEADER
 *
 * Every rule is written for the general cluster where that costs nothing: a term is persisted
 * before it is used, the commit index is what a majority has, and it moves only past an entry of
 * the leader's own term (thesis 3.6.2). With one voter the majority is its own log.
 *
 * Order inside one raft_effects: hard state, noop, save. The caller keeps it, so the no-op of a
 * term is in the log before the first proposal of that term. */
#include "raft/raft.h"

#include <string.h>

#include "base/assert.h"

chr_err raft_init(struct raft *raft, const struct raft_config *config,
                  struct raft_hard_state hard_state, uint64_t last_index, uint64_t commit_index,
                  chr_hlc last_hlc)
{
    if (config->voters_count != 1)
        return CHR_EUNSUPPORTED;
    if (config->self == 0 || config->voters[0] != config->self || commit_index > last_index)
        return CHR_EINVAL;
    *raft = (struct raft){
        .group = config->group,
        .self = config->self,
        .role = RAFT_FOLLOWER,
        .term = hard_state.term,
        .vote = hard_state.vote,
        .voters_count = config->voters_count,
        .last_index = last_index,
        .saved_index = last_index,
        .commit_index = commit_index,
        .last_hlc = last_hlc,
    };
    memcpy(raft->voters, config->voters, sizeof raft->voters[0] * config->voters_count);
    return CHR_OK;
}

/* The largest index that a majority has: the middle one of the sorted match indexes. */
static uint64_t majority_index(const struct raft *raft)
{
    uint64_t sorted[RAFT_VOTERS_MAX];
    for (uint32_t i = 0; i < raft->voters_count; i++) {
        uint32_t j = i;
        for (; j > 0 && sorted[j - 1] < raft->match[i]; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = raft->match[i];
    }
    return sorted[raft->voters_count / 2]; /* descending: voters_count/2 + 1 have it */
}

static void advance_commit(struct raft *raft)
{
    if (raft->role != RAFT_LEADER)
        return;
    uint64_t index = majority_index(raft);
    /* Thesis 3.6.2, figure 3.7: an entry of an older term is committed only by one of ours. */
    if (index >= raft->term_start && index > raft->commit_index)
        raft->commit_index = index;
}

static void note_saved(struct raft *raft, uint64_t saved_index)
{
    CHR_ASSERT(saved_index <= raft->last_index);
    if (saved_index > raft->saved_index)
        raft->saved_index = saved_index;
    for (uint32_t i = 0; i < raft->voters_count; i++)
        if (raft->voters[i] == raft->self)
            raft->match[i] = raft->saved_index;
}

static void stamp(struct raft *raft, struct raft_entry *entry, uint64_t wall_ms)
{
    entry->index = ++raft->last_index;
    entry->term = raft->term;
    entry->hlc = raft->last_hlc = chr_hlc_next(raft->last_hlc, wall_ms); /* keeps R14 */
}

static void become_leader(struct raft *raft, uint64_t wall_ms, struct raft_effects *effects)
{
    raft->role = RAFT_LEADER;
    raft->leader = raft->self;
    memset(raft->match, 0, sizeof raft->match);
    note_saved(raft, raft->saved_index);
    raft->term_start = raft->last_index + 1;
    effects->append_noop = true;
    effects->noop = (struct raft_entry){.type = RAFT_ENTRY_NOOP};
    stamp(raft, &effects->noop, wall_ms);
}

/* A new term with our own vote; alone, that vote is the majority. */
static void start_election(struct raft *raft, uint64_t wall_ms, struct raft_effects *effects)
{
    raft->role = RAFT_CANDIDATE;
    raft->term++;
    raft->vote = raft->self;
    raft->leader = 0;
    effects->hard_state_changed = true;
    effects->hard_state = (struct raft_hard_state){.term = raft->term, .vote = raft->vote};
    uint32_t votes = 1;
    if (votes > raft->voters_count / 2)
        become_leader(raft, wall_ms, effects);
}

chr_err raft_step(struct raft *raft, const struct raft_event *event, struct raft_effects *effects)
{
    *effects = (struct raft_effects){0};
    switch (event->type) {
    case RAFT_EVENT_TICK:
        if (raft->role != RAFT_LEADER)
            start_election(raft, event->wall_ms, effects);
        break;
    case RAFT_EVENT_PROPOSE:
        if (raft->role != RAFT_LEADER) {
            effects->commit_index = raft->commit_index;
            return CHR_EBUSY;
        }
        for (size_t i = 0; i < event->entries_count; i++)
            stamp(raft, &event->entries[i], event->wall_ms);
        effects->save = event->entries_count > 0;
        break;
    case RAFT_EVENT_SAVED:
        note_saved(raft, event->saved_index);
        break;
    }
    advance_commit(raft);
    effects->commit_index = raft->commit_index;
    return CHR_OK;
}
