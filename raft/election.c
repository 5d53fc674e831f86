/* raft/election.c: pre-vote (thesis 9.6), votes (3.4), taking and leaving office.
 *
 *     FOLLOWER ─silence─▶ PRE_CANDIDATE ─a majority would─▶ CANDIDATE ─a majority did─▶ LEADER
 *         ▲                    │                               │                          │
 *         └── a leader, or a higher term ──────────────────────┴── or no answers from a ──┘
 *                                                                  majority (check-quorum)
 *
 * R19: whoever has heard a leader, or has just started, helps nobody against one for the shortest
 * election timeout; leases stand on that. Only a transfer may, which voids the lease. */
#include "base/assert.h"
#include "raft/internal.h"

void raft__reset_election(struct raft__step *step)
{
    struct raft *raft = step->raft;
    uint64_t span = (uint64_t)(raft->config.election_max_us - raft->config.election_min_us);
    raft->election_due_us = raft->now_us + raft->config.election_min_us +
                            (int64_t)(span ? step->event->random % span : 0);
}

static void new_term(struct raft *raft, uint64_t term)
{
    raft->term = term;
    /* Its leader is another one, or the same after a restart, which may have lost what was not
     * committed. What is committed is in every leader's log (thesis 3.6.3). */
    raft->verified = CHR_MIN(raft->commit_index, raft->last_index);
    raft->leader_sent_us = INT64_MIN;
}

static bool elected(const struct raft *raft)
{
    uint32_t votes = 0, voters = 0;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        const struct raft_peer *p = &raft->peers[i];
        voters += p->member.voter;
        votes += p->member.voter && p->granted;
    }
    return votes > voters / 2;
}

static void become_leader(struct raft__step *step)
{
    struct raft *raft = step->raft;
    raft->role = RAFT_LEADER;
    raft->leader = raft->config.self;
    raft->transfer_to = 0;
    raft->lease_void = false;
    raft->counters.elections_won++;
    raft->term_start = raft->last_index + 1;
    raft__leader_started(step);
    raft__save_own(step, RAFT_ENTRY_NOOP, (chr_slice){0});
    raft__heartbeats(step);
}

static void ask_for_votes(struct raft__step *step, enum raft_message_type type, uint64_t term,
                          bool forced)
{
    struct raft *raft = step->raft;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        struct raft_peer *p = &raft->peers[i];
        if (p->member.id == raft->config.self || !p->member.voter)
            continue;
        struct raft_message *m = raft__send(step, type, p->member.id);
        m->term = term;
        m->index = raft->last_index;
        m->log_term = raft_term_of(raft, raft->last_index);
        m->forced = forced;
    }
}

/* A campaign begins with our own vote; what somebody granted in another one (the pre-vote, which
 * binds nobody) does not count in it. */
static void begin_campaign(struct raft__step *step, enum raft_role role)
{
    struct raft *raft = step->raft;
    raft->role = role;
    raft->leader = 0;
    for (uint32_t i = 0; i < raft->peers_count; i++)
        raft->peers[i].granted = raft->peers[i].member.id == raft->config.self;
    raft__reset_election(step);
}

void raft__campaign(struct raft__step *step, bool forced)
{
    struct raft *raft = step->raft;
    begin_campaign(step, RAFT_CANDIDATE);
    new_term(raft, raft->term + 1);
    raft->vote = raft->config.self;
    raft->counters.elections++;
    raft__hard_state(step);
    if (elected(raft))
        become_leader(step);
    else
        ask_for_votes(step, RAFT_MESSAGE_VOTE, raft->term, forced);
}

static void pre_campaign(struct raft__step *step)
{
    struct raft *raft = step->raft;
    begin_campaign(step, RAFT_PRE_CANDIDATE);
    if (elected(raft))
        raft__campaign(step, false);
    else
        ask_for_votes(step, RAFT_MESSAGE_PRE_VOTE, raft->term + 1, false);
}

void raft__election_tick(struct raft__step *step)
{
    struct raft *raft = step->raft;
    /* Alone for good: while the change that made us so can be taken back, another may still lead.
     */
    bool alone = raft__self_votes(raft) && raft_members_voters(raft_members_now(raft)) == 1 &&
                 !raft__change_pending(raft);
    bool due = raft->now_us >= raft->election_due_us;
    if (alone || (due && raft__may_campaign(raft) && !raft->catching_up))
        pre_campaign(step);
    else if (due)
        raft__reset_election(step); /* nothing to wait for but a leader */
}

void raft__become_follower(struct raft__step *step, uint64_t term, uint64_t leader)
{
    struct raft *raft = step->raft;
    CHR_ASSERT(term >= raft->term);
    if (raft->role == RAFT_LEADER) {
        raft->counters.stepped_down++;
        step->effects->reads_lost = true;
    }
    if (term > raft->term) {
        new_term(raft, term);
        raft->vote = 0;
        raft__hard_state(step);
    }
    if (raft->role != RAFT_FOLLOWER)
        raft__reset_election(step);
    raft->role = RAFT_FOLLOWER;
    raft->leader = leader;
    raft->transfer_to = 0;
}

/* ---- Voters ------------------------------------------------------------------------------------
 */

/* Thesis 3.6.1. */
static bool up_to_date(const struct raft *raft, const struct raft_message *m)
{
    uint64_t our_term = raft_term_of(raft, raft->last_index);
    if (our_term == 0) /* nothing, or nothing but a checkpoint of an unknown term */
        return m->index >= raft->last_index;
    return m->log_term > our_term || (m->log_term == our_term && m->index >= raft->last_index);
}

/* R19. */
static bool leader_is_near(const struct raft *raft)
{
    if (raft->role == RAFT_LEADER)
        return true; /* it steps down by itself when a majority does not answer */
    int64_t since = raft->now_us - raft->config.election_min_us;
    return raft->started_us > since ||
           (raft->leader != 0 && raft->heard_us != INT64_MIN && raft->heard_us > since);
}

void raft__on_vote(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    bool pre = m->type == RAFT_MESSAGE_PRE_VOTE;
    bool grant = false;
    if (m->term > raft->term && !(m->forced && !pre) && leader_is_near(raft))
        return; /* not even its term is taken over: it would depose the leader */
    if (pre) {
        grant = m->term > raft->term && up_to_date(raft, m) && !raft->catching_up;
    } else {
        if (m->term > raft->term)
            raft__become_follower(step, m->term, 0);
        grant = m->term == raft->term && (raft->vote == 0 || raft->vote == m->from) &&
                up_to_date(raft, m) && !raft->catching_up;
    }
    if (grant && !pre) {
        raft->role =
            RAFT_FOLLOWER; /* it was, or a pre-candidate: others have voted for themselves */
        raft->vote = m->from;
        raft__hard_state(step);
        raft__reset_election(step);
    }
    struct raft_message *reply =
        raft__send(step, pre ? RAFT_MESSAGE_PRE_VOTE_REPLY : RAFT_MESSAGE_VOTE_REPLY, m->from);
    reply->granted = grant;
    reply->term = pre && grant ? m->term : raft->term;
}

void raft__on_vote_reply(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    bool pre = m->type == RAFT_MESSAGE_PRE_VOTE_REPLY;
    uint64_t asked = pre ? raft->term + 1 : raft->term;
    if (raft->role != RAFT_PRE_CANDIDATE && raft->role != RAFT_CANDIDATE)
        return; /* a late one; its term must not part us from a leader we have just answered (R19)
                 */
    if (m->term > raft->term && !(pre && m->granted)) {
        raft__become_follower(step, m->term, 0);
        return;
    }
    struct raft_peer *p = raft__peer(raft, m->from);
    if (!p || raft->role != (pre ? RAFT_PRE_CANDIDATE : RAFT_CANDIDATE) || m->term != asked)
        return;
    p->granted |= m->granted;
    if (!elected(raft))
        return;
    if (pre)
        raft__campaign(step, false);
    else
        become_leader(step);
}

/* ---- Transfer (thesis 3.10) --------------------------------------------------------------------
 */

chr_err raft__transfer(struct raft__step *step)
{
    struct raft *raft = step->raft;
    if (raft->role != RAFT_LEADER)
        return CHR_EBUSY;
    struct raft_peer *p = raft__peer(raft, step->event->peer);
    if (!p || !p->member.voter)
        return CHR_ENOTFOUND;
    if (p->member.id == raft->config.self)
        return CHR_OK;
    /* R19: from now on somebody may campaign against us whenever the message arrives, also long
     * after we gave the transfer up: no lease any more in this term. */
    raft->lease_void = true;
    raft->transfer_to = p->member.id;
    raft->transfer_due_us = raft->now_us + raft->config.election_max_us;
    if (p->match == raft->last_index)
        raft__send(step, RAFT_MESSAGE_TIMEOUT_NOW, p->member.id);
    return CHR_OK;
}

void raft__on_timeout_now(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    if (m->term == raft->term && raft->role == RAFT_FOLLOWER && raft->leader == m->from &&
        raft__may_campaign(raft) && !raft->catching_up)
        raft__campaign(step, true);
}
