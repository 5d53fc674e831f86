/* raft/reads.c: linearizable reads without log entries (thesis 6.4).
 *
 *     lease valid ─▶ now
 *     else        ─▶ a round of heartbeats; answered by a majority ─▶ then
 *     follower    ─▶ asks the leader for an index, waits until it has applied that far
 *
 * A leader does not know what its predecessors have committed before its own first entry is
 * (thesis 6.4 step 1), so a read waits for that one at least. */
#include "raft/internal.h"

static uint64_t read_index(const struct raft *raft)
{
    return CHR_MAX(raft->commit_index, raft->term_start);
}

static int64_t acked_of(const struct raft *raft, const struct raft_peer *p)
{
    return p->member.id == raft->config.self ? raft->now_us : p->acked_sent_us;
}

int64_t raft_lease_until_us(const struct raft *raft)
{
    if (raft->role != RAFT_LEADER || raft->lease_void || raft->commit_index < raft->term_start)
        return INT64_MIN;
    /* R19: from when a majority was asked, not from when it answered; a fifth of the shortest
     * timeout is left for clocks that run at different speeds. */
    int64_t asked_us = raft__majority(raft, acked_of);
    return asked_us == INT64_MIN ? INT64_MIN : asked_us + raft->config.election_min_us / 5 * 4;
}

static int64_t acked_read_of(const struct raft *raft, const struct raft_peer *p)
{
    return (int64_t)(p->member.id == raft->config.self ? raft->read_round : p->acked_read);
}

/* A peer's read waits for a round; the newest one covers those before it. */
static void ask_for(struct raft *raft, struct raft_peer *p, uint64_t number, uint64_t round)
{
    p->read_number = number;
    p->read_index = read_index(raft);
    p->read_round = round;
    p->read_queued = 0;
}

void raft__reads_confirmed(struct raft__step *step)
{
    struct raft *raft = step->raft;
    if (raft->role != RAFT_LEADER)
        return;
    uint64_t confirmed = (uint64_t)raft__majority(raft, acked_read_of);
    raft->read_confirmed = CHR_MAX(raft->read_confirmed, confirmed);
    bool again = false;
    for (uint32_t i = 0; i < raft->peers_count; i++) {
        struct raft_peer *p = &raft->peers[i];
        if (p->read_number == 0 || p->read_round > raft->read_confirmed)
            continue;
        struct raft_message *m = raft__send(step, RAFT_MESSAGE_READ_REPLY, p->member.id);
        m->read = p->read_number;
        m->index = p->read_index;
        p->read_number = 0;
        if (p->read_queued) {
            ask_for(raft, p, p->read_queued, raft->read_round + 1);
            again = true;
        }
    }
    if (again) {
        raft->read_round++;
        raft__heartbeats(step);
    }
}

static void begin_round(struct raft__step *step)
{
    struct raft *raft = step->raft;
    raft->read_round++;
    raft__heartbeats(step);
    raft__reads_confirmed(step); /* alone, that is all */
}

void raft__read(struct raft__step *step)
{
    struct raft *raft = step->raft;
    struct raft_effects *effects = step->effects;
    if (raft->role == RAFT_LEADER) {
        effects->read_index = read_index(raft);
        if (raft->now_us < raft_lease_until_us(raft)) {
            effects->read = RAFT_READ_NOW;
            return;
        }
        effects->read = RAFT_READ_ROUND;
        begin_round(step);
        effects->read_round = raft->read_round;
    } else if (raft->leader) {
        effects->read = RAFT_READ_ASKED;
        raft__send(step, RAFT_MESSAGE_READ, raft->leader)->read = step->event->read_number;
    } else {
        effects->read = RAFT_READ_NO_LEADER;
    }
}

void raft__on_read(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    struct raft_peer *p = raft__peer(raft, m->from);
    if (raft->role != RAFT_LEADER || m->term != raft->term || !p || m->read == 0)
        return; /* it asks again */
    if (p->read_number && p->read_round > raft->read_confirmed) {
        p->read_queued = CHR_MAX(p->read_queued, m->read); /* or a round would never be enough */
        return;
    }
    bool lease = raft->now_us < raft_lease_until_us(raft);
    ask_for(raft, p, m->read, lease ? 0 : raft->read_round + 1);
    if (lease)
        raft__reads_confirmed(step);
    else
        begin_round(step);
}

void raft__on_read_reply(struct raft__step *step, const struct raft_message *m)
{
    if (m->term != step->raft->term)
        return;
    step->effects->read_answered = m->read;
    step->effects->read_answer = m->index;
}
