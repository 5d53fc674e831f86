/* raft/replication.c: the leader's side (thesis 3.5, 3.6.2, 10.2.1).
 *
 *     PROBE ─an append is answered─▶ REPLICATE ─rejected, or silence─▶ PROBE
 *       └──── the log does not go back far enough ────▶ SNAPSHOT ─sent─▶ PROBE
 *
 * A window of bytes and of messages bounds what is on its way to a peer, so a stopped one costs
 * nothing but its window. Lost appends show by the peer standing still while heartbeats tell that
 * it is there. */
#include "base/assert.h"
#include "raft/internal.h"

/* A peer whose log has not moved for this many heartbeats, with appends on their way, lost them. */
#define RESEND_HEARTBEATS 4

/* ---- Peers ------------------------------------------------------------------------------------
 */

static void inflight_clear(struct raft_peer *p)
{
    p->inflight_head = p->inflight_count = 0;
    p->inflight_bytes = 0;
}

static void inflight_free(struct raft_peer *p, uint64_t index)
{
    while (p->inflight_count && p->inflight[p->inflight_head].last_index <= index) {
        p->inflight_bytes -= p->inflight[p->inflight_head].bytes;
        p->inflight_head = (p->inflight_head + 1) % RAFT_INFLIGHT_MAX;
        p->inflight_count--;
    }
}

static void probe(struct raft *raft, struct raft_peer *p, uint64_t next)
{
    p->state = RAFT_PEER_PROBE;
    p->next = CHR_MAX(next, p->match + 1);
    p->probing = false;
    p->moved_us = raft->now_us;
    inflight_clear(p);
}

static void moved(struct raft *raft, struct raft_peer *p, uint64_t match, uint64_t accepted)
{
    match = CHR_MIN(match, raft->last_index);
    accepted = CHR_MIN(CHR_MAX(accepted, match), raft->last_index);
    if (match > p->match) {
        p->match = match;
        p->moved_us = raft->now_us;
    }
    if (accepted > p->accepted) {
        p->accepted = accepted;
        p->accepted_us = p->moved_us = raft->now_us;
    }
    inflight_free(p, p->match);
    p->next = CHR_MAX(p->next, p->match + 1);
}

/* The append of a probe was accepted: from now on they follow each other. */
static void probed(struct raft *raft, struct raft_peer *p)
{
    if (p->state != RAFT_PEER_PROBE || !p->probing || p->accepted + 1 < p->next)
        return;
    p->state = RAFT_PEER_REPLICATE;
    p->next = p->accepted + 1;
    p->moved_us = raft->now_us;
}

void raft__leader_started(struct raft__step *step)
{
    struct raft *raft = step->raft;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        struct raft_peer *p = &raft->peers[i];
        p->match = p->accepted = 0;
        p->sent_commit = 0;
        p->heard_us = raft->now_us; /* a chance to answer, for check-quorum */
        p->acked_sent_us = INT64_MIN;
        p->acked_read = 0;
        p->read_number = p->read_queued = 0;
        p->accepted_us = raft->now_us;
        probe(raft, p, raft->last_index + 1);
    }
    raft->read_round = raft->read_confirmed = 0;
    raft->quorum_due_us = raft->now_us + raft->config.election_min_us;
}

/* ---- What a majority has ----------------------------------------------------------------------
 */

int64_t raft__majority(const struct raft *raft,
                       int64_t (*value)(const struct raft *raft, const struct raft_peer *peer))
{
    int64_t sorted[RAFT_MEMBERS_MAX]; /* descending */
    uint32_t count = 0;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        if (!raft->peers[i].member.voter)
            continue;
        int64_t v = value(raft, &raft->peers[i]);
        uint32_t j = count++;
        for (; j > 0 && sorted[j - 1] < v; j--)
            sorted[j] = sorted[j - 1];
        sorted[j] = v;
    }
    return count ? sorted[count / 2] : INT64_MIN;
}

static int64_t match_of(const struct raft *raft, const struct raft_peer *p)
{
    return (int64_t)(p->member.id == raft->config.self ? raft->saved_index : p->match);
}

void raft__advance_commit(struct raft__step *step)
{
    struct raft *raft = step->raft;
    if (raft->role != RAFT_LEADER)
        return;
    uint64_t index = (uint64_t)raft__majority(raft, match_of);
    /* Thesis 3.6.2, figure 3.7: an entry of an older term is committed only by one of ours. */
    if (index < raft->term_start || index <= raft->commit_index)
        return;
    raft->commit_index = index;
    raft__members_committed(raft);
    if (!raft__change_pending(raft) && !raft__self_votes(raft))
        raft__become_follower(step, raft->term, 0); /* the change that removed us (4.2.2) */
}

/* ---- Sending -----------------------------------------------------------------------------------
 */

void raft__heartbeats(struct raft__step *step)
{
    struct raft *raft = step->raft;
    raft->heartbeat_due_us = raft->now_us + raft->config.heartbeat_us;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        struct raft_peer *p = &raft->peers[i];
        if (p->member.id == raft->config.self)
            continue;
        struct raft_message *m = raft__send(step, RAFT_MESSAGE_HEARTBEAT, p->member.id);
        m->commit = raft->commit_index;
        m->sent_us = raft->now_us;
        m->read = raft->read_round;
    }
}

static bool has_room(const struct raft *raft, const struct raft_peer *p)
{
    return p->inflight_count < RAFT_INFLIGHT_MAX &&
           p->inflight_bytes < raft->config.inflight_bytes_max;
}

/* Can an append begin behind this entry? */
static bool reaches(const struct raft *raft, uint64_t index)
{
    return index > raft->base_index ||
           (index == raft->base_index && (index == 0 || raft->base_term != 0));
}

static bool may_append(const struct raft *raft, const struct raft_peer *p)
{
    if (raft->role != RAFT_LEADER || p->member.id == raft->config.self ||
        p->state == RAFT_PEER_SNAPSHOT || !reaches(raft, p->next - 1))
        return false;
    if (p->state == RAFT_PEER_PROBE)
        return !p->probing;
    return (p->next <= raft->last_index && has_room(raft, p)) ||
           p->sent_commit < raft->commit_index;
}

uint32_t raft__append_to(const struct raft *raft, uint32_t *snapshot_to)
{
    uint32_t bits = 0;
    *snapshot_to = 0;
    for (uint32_t i = 0; raft->role == RAFT_LEADER && i < raft->peers_count; i++) {
        const struct raft_peer *p = &raft->peers[i];
        if (may_append(raft, p))
            bits |= 1u << i;
        if (p->state == RAFT_PEER_SNAPSHOT && p->snapshot == 0)
            *snapshot_to |= 1u << i;
    }
    return bits;
}

bool raft_next_append(const struct raft *raft, uint32_t slot, struct raft_message *message,
                      uint64_t *last)
{
    if (slot >= raft->peers_count || !may_append(raft, &raft->peers[slot]))
        return false;
    const struct raft_peer *p = &raft->peers[slot];
    *message = (struct raft_message){.type = RAFT_MESSAGE_APPEND,
                                     .group = raft->config.group,
                                     .from = raft->config.self,
                                     .to = p->member.id,
                                     .from_incarnation = raft->config.incarnation,
                                     .term = raft->term,
                                     .index = p->next - 1,
                                     .log_term = raft_term_of(raft, p->next - 1),
                                     .commit = raft->commit_index,
                                     .sent_us = raft->now_us,
                                     .read = raft->read_round};
    *last = p->state == RAFT_PEER_REPLICATE && !has_room(raft, p) ? p->next - 1 : raft->last_index;
    return true;
}

void raft_append_sent(struct raft *raft, uint32_t slot, uint64_t last, uint64_t bytes)
{
    struct raft_peer *p = &raft->peers[slot];
    CHR_ASSERT(raft->role == RAFT_LEADER && last + 1 >= p->next && last <= raft->last_index);
    p->sent_commit = raft->commit_index;
    if (p->state == RAFT_PEER_PROBE) {
        p->probing = true;
        p->moved_us = raft->now_us;
        return;
    }
    if (last < p->next)
        return;
    if (p->inflight_count == 0)
        p->moved_us = raft->now_us;
    CHR_ASSERT(p->inflight_count < RAFT_INFLIGHT_MAX);
    p->inflight[(p->inflight_head + p->inflight_count++) % RAFT_INFLIGHT_MAX] =
        (struct raft_inflight){last, bytes};
    p->inflight_bytes += bytes;
    p->next = last + 1;
}

/* ---- Time --------------------------------------------------------------------------------------
 */

static void resend_what_was_lost(struct raft *raft, struct raft_peer *p)
{
    int64_t patience_us = RESEND_HEARTBEATS * raft->config.heartbeat_us;
    if (raft->now_us - p->moved_us < patience_us)
        return;
    if (p->state == RAFT_PEER_PROBE && p->probing) {
        p->probing = false;
        p->moved_us = raft->now_us;
    } else if (p->state == RAFT_PEER_REPLICATE && p->accepted + 1 < p->next) {
        /* It has not even accepted what was sent. (What it has accepted waits for its disk.) */
        probe(raft, p, p->accepted + 1);
    }
}

static int64_t heard_of(const struct raft *raft, const struct raft_peer *p)
{
    return p->member.id == raft->config.self ? raft->now_us : p->heard_us;
}

void raft__leader_tick(struct raft__step *step)
{
    struct raft *raft = step->raft;
    if (raft->transfer_to && raft->now_us >= raft->transfer_due_us)
        raft->transfer_to = 0; /* it did not come to that; the lease stays void */
    if (raft->now_us >= raft->quorum_due_us) {
        /* Check-quorum (thesis 6.2): clients are better off asking somebody else. */
        if (raft__majority(raft, heard_of) <= raft->now_us - raft->config.election_max_us) {
            raft__become_follower(step, raft->term, 0);
            return;
        }
        raft->quorum_due_us = raft->now_us + raft->config.election_min_us / 2;
    }
    for (uint32_t i = 0; i < raft->peers_count; i++)
        if (raft->peers[i].member.id != raft->config.self)
            resend_what_was_lost(raft, &raft->peers[i]);
    if (raft->now_us >= raft->heartbeat_due_us)
        raft__heartbeats(step);
}

/* ---- Answers -----------------------------------------------------------------------------------
 */

/* What every answer of this term tells. */
static struct raft_peer *heard(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    if (raft->role != RAFT_LEADER || m->term < raft->term)
        return NULL; /* a late one: see raft__on_vote_reply */
    if (m->term > raft->term) {
        raft__become_follower(step, m->term, 0);
        return NULL;
    }
    struct raft_peer *p = raft__peer(raft, m->from);
    if (!p)
        return NULL;
    p->heard_us = raft->now_us;
    if (m->sent_us <= raft->now_us)
        p->acked_sent_us = CHR_MAX(p->acked_sent_us, m->sent_us);
    if (m->read <= raft->read_round)
        p->acked_read = CHR_MAX(p->acked_read, m->read);
    return p;
}

static void need_snapshot(struct raft *raft, struct raft_peer *p)
{
    if (p->state == RAFT_PEER_SNAPSHOT || reaches(raft, p->next - 1))
        return;
    p->state = RAFT_PEER_SNAPSHOT;
    p->snapshot = 0; /* the caller has not begun one */
    inflight_clear(p);
}

static void go_on(struct raft__step *step, struct raft_peer *p)
{
    struct raft *raft = step->raft;
    if (p->state == RAFT_PEER_SNAPSHOT && reaches(raft, p->match))
        probe(raft, p, p->match + 1);
    if (raft->transfer_to == p->member.id && p->match == raft->last_index)
        raft__send(step, RAFT_MESSAGE_TIMEOUT_NOW, p->member.id);
    raft__advance_commit(step);
    raft__reads_confirmed(step);
}

void raft__on_append_reply(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    struct raft_peer *p = heard(step, m);
    if (!p)
        return;
    moved(raft, p, m->match, m->accepted);
    if (m->granted) {
        probed(raft, p);
    } else if (m->index >= p->match + 1 || m->hint_index >= p->match) {
        /* A rejection that is not from before what we know. Entries above our last one with their
         * term can't agree either (fast backtracking, Raft paper 5.3). */
        raft->counters.rejected_appends++;
        bool ours =
            p->state == RAFT_PEER_REPLICATE ? m->index >= p->accepted : m->index + 1 == p->next;
        if (ours && p->state != RAFT_PEER_SNAPSHOT)
            probe(
                raft, p,
                raft__terms_last_at_most(raft, CHR_MIN(m->hint_index, m->index - 1), m->hint_term) +
                    1);
    }
    need_snapshot(raft, p);
    go_on(step, p);
}

void raft__on_heartbeat_reply(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    struct raft_peer *p = heard(step, m);
    if (!p)
        return;
    if (m->accepted < p->accepted && m->sent_us > p->accepted_us) {
        /* It had accepted more when we sent this: it has started again, and lost what was not
         * durable, or the news that it was. If it lacks what it had acknowledged, its disk lied or
         * is not synced; what was committed by its word stays so. */
        if (m->last < p->match)
            p->match = 0;
        p->accepted = p->match;
        p->accepted_us = raft->now_us;
        probe(raft, p, CHR_MIN(m->last, p->match) + 1);
    }
    moved(raft, p, m->match, m->accepted);
    probed(raft, p); /* its disk may be slow; that it agrees is known already */
    need_snapshot(raft, p);
    go_on(step, p);
}

void raft_snapshot_started(struct raft *raft, uint32_t slot, uint64_t index)
{
    CHR_ASSERT(slot < raft->peers_count && index >= raft->base_index && index > 0);
    raft->peers[slot].snapshot = index;
}

void raft__snapshot_sent(struct raft__step *step)
{
    struct raft *raft = step->raft;
    struct raft_peer *p = raft__peer(raft, step->event->peer);
    if (raft->role != RAFT_LEADER || !p || p->state != RAFT_PEER_SNAPSHOT)
        return;
    if (step->event->ok)
        probe(raft, p, p->snapshot + 1);
    else
        p->snapshot = 0; /* asked for again */
}
