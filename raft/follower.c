/* raft/follower.c: what a leader tells (thesis 3.5), and what a follower answers.
 *
 *     append ─▶ agrees at message->index? ─no─▶ rejected, with a hint where it may
 *                     │ yes
 *                     └─▶ what contradicts is truncated, what is new is saved
 *                              └─ durable ─▶ APPEND_REPLY: match
 *
 * Nothing is acknowledged before it is durable here: match says durable, accepted says equal. */
#include "base/assert.h"
#include "raft/internal.h"

static void fill_reply(struct raft *raft, struct raft_message *reply)
{
    reply->match = CHR_MIN(raft->saved_index, raft->verified);
    reply->accepted = raft->verified;
    reply->last = raft->last_index;
    reply->sent_us = raft->leader_sent_us;
}

/* A message of the leader of its term. False: it is of an older one, and was told so; or it says
 * that there is another leader in our own term of office. */
static bool from_leader(struct raft__step *step, const struct raft_message *m,
                        enum raft_message_type reply_type)
{
    struct raft *raft = step->raft;
    if (m->term == raft->term && raft->role == RAFT_LEADER)
        return false;
    if (m->term < raft->term) {
        raft__send(step, reply_type, m->from)->last = raft->last_index;
        return false;
    }
    raft__become_follower(step, m->term, m->from);
    raft->heard_us = raft->now_us;
    raft->leader_sent_us = CHR_MAX(raft->leader_sent_us, m->sent_us);
    raft__reset_election(step);
    return true;
}

static void note_commit(struct raft *raft, uint64_t leader_commit)
{
    uint64_t index = CHR_MIN(leader_commit, raft->verified);
    if (index > raft->commit_index) {
        raft->commit_index = index;
        raft__members_committed(raft);
    }
    /* A leader knows all that is committed once an entry of its own term is (thesis 3.6.2). */
    if (raft->catching_up && raft->verified >= leader_commit &&
        raft->saved_index >= leader_commit && raft_term_of(raft, leader_commit) == raft->term)
        raft->catching_up = false;
}

void raft__on_heartbeat(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    if (!from_leader(step, m, RAFT_MESSAGE_HEARTBEAT_REPLY))
        return;
    note_commit(raft, m->commit);
    struct raft_message *reply = raft__send(step, RAFT_MESSAGE_HEARTBEAT_REPLY, m->from);
    fill_reply(raft, reply);
    reply->sent_us = m->sent_us;
    reply->read = m->read;
}

static void reject(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    struct raft_message *reply = raft__send(step, RAFT_MESSAGE_APPEND_REPLY, m->from);
    fill_reply(raft, reply);
    reply->read = m->read;
    reply->index = m->index;
    reply->hint_index = raft__terms_last_at_most(raft, m->index, m->log_term);
    reply->hint_term = raft_term_of(raft, reply->hint_index);
}

static void truncate(struct raft__step *step, uint64_t last_index)
{
    struct raft *raft = step->raft;
    step->effects->truncate = true;
    step->effects->truncate_to = last_index;
    raft->last_index = last_index;
    raft->saved_index = CHR_MIN(raft->saved_index, last_index);
    raft->tail_hlc = 0;
    raft->valid_from = ++raft->save_sequence; /* saves on their way speak of what is gone */
    raft__terms_truncate(raft, last_index);
    raft__members_truncated(raft, last_index);
}

/* How many of the message's entries are usable: consecutive, of terms that don't fall, changes of
 * members readable. */
static size_t usable(const struct raft_message *m)
{
    uint64_t term = m->log_term;
    chr_hlc hlc = 0;
    for (size_t i = 0; i < m->entries_count; i++) {
        const struct raft_entry *e = &m->entries[i];
        if (e->index != m->index + 1 + i || e->term < term || e->term > m->term || e->hlc <= hlc ||
            e->hlc > RAFT__NUMBER_MAX || e->bytes.len > RAFT_ENTRY_BYTES_MAX ||
            e->type < RAFT_ENTRY_NOOP || e->type > RAFT_ENTRY_TYPE_MAX)
            return i;
        term = e->term;
        hlc = e->hlc;
        struct raft_members members;
        if (e->type == RAFT_ENTRY_CONFIG && raft_members_decode(e->bytes, &members))
            return i;
    }
    return m->entries_count;
}

/* May the log take entries[first] behind the entry before it? */
static bool joins(const struct raft *raft, const struct raft_message *m, size_t first)
{
    const struct raft_entry *e = &m->entries[first];
    bool contradicts = e->index <= raft->last_index;
    /* Leader completeness (thesis 3.6.3) is broken, or a leader contradicts itself, or takes back a
     * change of members that must have been committed: not by us. */
    if (contradicts && (e->index <= CHR_MAX(raft->commit_index, raft->verified) ||
                        e->index <= raft->changes[0].index))
        return false;
    if (e->term < raft_term_of(raft, e->index - 1))
        return false;
    /* R14. Of our last entry the HLC is known, but not of those before it. */
    return contradicts || e->hlc > raft->tail_hlc;
}

static chr_err take(struct raft__step *step, const struct raft_message *m, size_t count)
{
    struct raft *raft = step->raft;
    size_t first = 0; /* new to us */
    while (first < count && m->entries[first].index <= raft->last_index &&
           (m->entries[first].index <= raft->base_index ||
            raft_term_of(raft, m->entries[first].index) == m->entries[first].term))
        first++;
    if (first < count && !joins(raft, m, first))
        return CHR_EPROTO;
    if (first < count && m->entries[first].index <= raft->last_index)
        truncate(step, m->entries[first].index - 1);
    for (size_t i = first; i < count; i++) {
        const struct raft_entry *e = &m->entries[i];
        raft__terms_add(raft, e->index, e->term);
        raft->last_index = e->index;
        raft->last_hlc = CHR_MAX(raft->last_hlc, e->hlc);
        raft->tail_hlc = e->hlc;
        if (e->type == RAFT_ENTRY_CONFIG)
            raft__members_changed(raft, e->index, e->bytes);
    }
    if (first < count) {
        step->effects->save = m->entries + first;
        step->effects->save_count = count - first;
        step->effects->save_sequence = ++raft->save_sequence;
    }
    raft->verified = CHR_MAX(raft->verified, m->index + count);
    return CHR_OK;
}

chr_err raft__on_append(struct raft__step *step, const struct raft_message *m)
{
    struct raft *raft = step->raft;
    if (!from_leader(step, m, RAFT_MESSAGE_APPEND_REPLY))
        return CHR_OK;
    /* Up to base_index everything is committed, so it is equal. */
    if (m->index > raft->last_index ||
        (m->index > raft->base_index && raft_term_of(raft, m->index) != m->log_term)) {
        if (m->index <= raft->commit_index)
            return CHR_EPROTO;
        reject(step, m);
        return CHR_OK;
    }
    size_t count = usable(m);
    chr_err err = raft__terms_reserve(raft, count);
    if (!err)
        err = take(step, m, count);
    if (err)
        return err;
    note_commit(raft, m->commit);
    if (!step->effects->save) {
        struct raft_message *reply = raft__send(step, RAFT_MESSAGE_APPEND_REPLY, m->from);
        fill_reply(raft, reply);
        reply->granted = true;
        reply->read = m->read;
    }
    return CHR_OK;
}

void raft__follower_saved(struct raft__step *step)
{
    struct raft *raft = step->raft;
    if (raft->role != RAFT_FOLLOWER || raft->leader == 0)
        return;
    struct raft_message *reply = raft__send(step, RAFT_MESSAGE_APPEND_REPLY, raft->leader);
    fill_reply(raft, reply);
    reply->granted = true;
}

void raft__installed(struct raft__step *step)
{
    struct raft *raft = step->raft;
    const struct raft_event *e = step->event;
    if (e->index <= raft->commit_index)
        return;
    bool suffix_holds = e->index <= raft->last_index && raft_term_of(raft, e->index) == e->log_term;
    CHR_ASSERT(!suffix_holds); /* the caller does not install what its log has */
    raft->runs_count = 0;
    raft->base_index = raft->last_index = raft->saved_index = raft->commit_index = e->index;
    raft->base_term = e->log_term;
    raft->last_hlc = CHR_MAX(raft->last_hlc, e->hlc);
    raft->tail_hlc = e->hlc;
    raft->valid_from = ++raft->save_sequence;
    raft->verified = e->index;
    raft__members_reset(raft, e->index, e->members);
    raft__follower_saved(step);
}
