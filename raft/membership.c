/* raft/membership.c: members change by one entry at a time (thesis 4.1), which counts from the
 * moment it is in a log, committed or not, and is taken back with it.
 *
 * A leader proposes a change only when the one before is committed, and an entry of its own term
 * (Ongaro's correction of 2015: else two majorities without a common member were possible). So of
 * all changes in a log only the last one may not be committed, and only that one is ever taken
 * back. */
#include <string.h>

#include "base/assert.h"
#include "raft/internal.h"

/* A learner that is not further behind than this may become a voter: it is a matter of
 * milliseconds then (thesis 4.2.1). */
#define PROMOTE_LAG_ENTRIES 256u

const struct raft_members *raft_members_now(const struct raft *raft)
{
    return &raft->changes[raft->changes_count - 1].members;
}

struct raft_peer *raft__peer(struct raft *raft, uint64_t id)
{
    for (uint32_t i = 0; i < raft->peers_count; i++)
        if (raft->peers[i].member.id == id)
            return &raft->peers[i];
    return NULL;
}

static bool votes_among(const struct raft *raft, const struct raft_members *members)
{
    const struct raft_member *m = raft_members_find(members, raft->config.self);
    return m && m->voter && m->incarnation == raft->config.incarnation;
}

bool raft__self_votes(const struct raft *raft)
{
    return votes_among(raft, raft_members_now(raft));
}

bool raft__may_campaign(const struct raft *raft)
{
    /* Thesis 4.2.2: whoever holds the entry that removes it may be the only one that can be elected
     * and commit it. */
    return raft__self_votes(raft) ||
           (raft__change_pending(raft) && votes_among(raft, &raft->changes[0].members));
}

bool raft__change_pending(const struct raft *raft)
{
    return raft->changes[raft->changes_count - 1].index > raft->commit_index;
}

static void new_peer(struct raft *raft, struct raft_peer *p, struct raft_member member)
{
    memset(p, 0, sizeof *p);
    p->member = member;
    p->state = RAFT_PEER_PROBE;
    p->next = raft->last_index + 1;
    p->accepted_us = p->moved_us = p->heard_us = raft->now_us;
    p->acked_sent_us = INT64_MIN;
}

/* Peers are sorted by id, as members are, so each moves at most once: backwards when members went,
 * forwards when some came. */
static void sync_peers(struct raft *raft)
{
    const struct raft_members *now = raft_members_now(raft);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        const struct raft_member *m = raft_members_find(now, raft->peers[i].member.id);
        if (!m || m->incarnation != raft->peers[i].member.incarnation)
            continue;
        if (kept != i)
            raft->peers[kept] = raft->peers[i];
        raft->peers[kept++].member = *m;
    }
    uint32_t from = kept;
    for (uint32_t i = now->count; i-- > 0;) {
        if (from > 0 && raft->peers[from - 1].member.id == now->items[i].id) {
            if (--from != i)
                raft->peers[i] = raft->peers[from];
        } else {
            new_peer(raft, &raft->peers[i], now->items[i]);
        }
    }
    raft->peers_count = now->count;
}

void raft__members_reset(struct raft *raft, uint64_t index, const struct raft_members *members)
{
    raft->changes[0] = (struct raft_change){index, *members};
    raft->changes_count = 1;
    sync_peers(raft);
}

void raft__members_changed(struct raft *raft, uint64_t index, chr_slice bytes)
{
    if (raft->changes_count == 2) {
        raft->changes[0] = raft->changes[1];
        raft->changes_count = 1;
    }
    struct raft_change *change = &raft->changes[raft->changes_count];
    chr_err err = raft_members_decode(bytes, &change->members);
    CHR_ASSERT(!err);
    change->index = index;
    raft->changes_count++;
    sync_peers(raft);
}

void raft__members_truncated(struct raft *raft, uint64_t last_index)
{
    if (raft->changes[raft->changes_count - 1].index <= last_index)
        return;
    CHR_ASSERT(raft->changes_count == 2 && raft->changes[0].index <= last_index);
    raft->changes_count = 1;
    sync_peers(raft);
}

void raft__members_committed(struct raft *raft)
{
    if (raft->changes_count == 2 && raft->changes[1].index <= raft->commit_index) {
        raft->changes[0] = raft->changes[1];
        raft->changes_count = 1;
    }
}

static chr_err changed(const struct raft *raft, const struct raft_event *event,
                       struct raft_members *members)
{
    const struct raft_member *m = raft_members_find(members, event->member.id);
    switch (event->change) {
    case RAFT_CHANGE_ADD_LEARNER:
        return raft_members_add(
            members, (struct raft_member){event->member.id, event->member.incarnation, false});
    case RAFT_CHANGE_PROMOTE: {
        if (!m)
            return CHR_ENOTFOUND;
        if (m->voter)
            return CHR_EEXIST;
        if (raft_members_voters(members) == RAFT_VOTERS_MAX)
            return CHR_EFULL;
        uint32_t slot = (uint32_t)(m - members->items);
        if (raft->peers[slot].match + PROMOTE_LAG_ENTRIES < raft->last_index ||
            raft->peers[slot].match < raft->base_index)
            return CHR_ESTALE;
        members->items[slot].voter = true;
        return CHR_OK;
    }
    case RAFT_CHANGE_REPLACE: {
        /* At most one voter less, so still a change by one (thesis 4.1). */
        if (!m)
            return CHR_ENOTFOUND;
        if (m->incarnation == event->member.incarnation)
            return CHR_EEXIST;
        if (m->voter && raft_members_voters(members) == 1)
            return CHR_EINVAL;
        uint32_t slot = (uint32_t)(m - members->items);
        members->items[slot].incarnation = event->member.incarnation;
        members->items[slot].voter = false;
        return CHR_OK;
    }
    case RAFT_CHANGE_REMOVE:
        if (!m)
            return CHR_ENOTFOUND;
        if (m->voter && raft_members_voters(members) == 1)
            return CHR_EINVAL;
        return raft_members_remove(members, event->member.id);
    }
    return CHR_EINVAL;
}

chr_err raft__change(struct raft__step *step)
{
    struct raft *raft = step->raft;
    if (raft->role != RAFT_LEADER || raft->transfer_to || raft__change_pending(raft) ||
        raft->commit_index < raft->term_start)
        return CHR_EBUSY;
    struct raft_members members = *raft_members_now(raft);
    chr_err err = changed(raft, step->event, &members);
    if (err)
        return err;
    chr_slice bytes =
        chr_slice_of(raft->change_bytes, raft_members_encode(&members, raft->change_bytes));
    raft__save_own(step, RAFT_ENTRY_CONFIG, bytes);
    raft__members_changed(raft, raft->last_index, bytes);
    return CHR_OK;
}
