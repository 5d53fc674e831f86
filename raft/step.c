/* raft/step.c: events in, effects out; start and end. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "raft/internal.h"

/* ---- Start -------------------------------------------------------------------------------------
 */

static chr_err take_stored(struct raft *raft, const struct raft_stored *stored)
{
    if (stored->base_index > stored->last_index || stored->commit_index < stored->base_index ||
        stored->commit_index > stored->last_index || stored->members_index > stored->last_index)
        return CHR_EINVAL;
    chr_err err = raft__terms_reserve(raft, stored->runs_count);
    if (err)
        return err;
    for (size_t i = 0; i < stored->runs_count; i++) {
        const struct raft_term_run *run = &stored->runs[i];
        if (run->first_index <= stored->base_index || run->first_index > stored->last_index ||
            (i > 0 && (run->first_index <= run[-1].first_index || run->term <= run[-1].term)) ||
            run->term > stored->hard_state.term)
            return CHR_EINVAL;
        raft->runs[raft->runs_count++] = *run;
    }
    if ((stored->last_index > stored->base_index) != (stored->runs_count > 0) ||
        (stored->runs_count && stored->runs[0].first_index != stored->base_index + 1))
        return CHR_EINVAL;
    raft->term = stored->hard_state.term;
    raft->vote = stored->hard_state.vote;
    raft->base_index = stored->base_index;
    raft->base_term = stored->base_term;
    raft->last_index = raft->saved_index = stored->last_index;
    raft->commit_index = raft->verified = stored->commit_index;
    raft->last_hlc = raft->tail_hlc = stored->last_hlc;
    raft__members_reset(raft, stored->members_index, &stored->members);
    for (size_t i = 0; i < stored->changes_count; i++) {
        struct raft_members members;
        if (raft_members_decode(stored->changes[i].bytes, &members) ||
            stored->changes[i].index <= raft->changes[raft->changes_count - 1].index)
            return CHR_EINVAL;
        raft__members_changed(raft, stored->changes[i].index, stored->changes[i].bytes);
    }
    raft__members_committed(raft);
    return CHR_OK;
}

chr_err raft_init(struct raft *raft, const struct raft_config *config,
                  const struct raft_stored *stored)
{
    memset(raft, 0, sizeof *raft);
    raft->config = *config;
    struct raft_config *c = &raft->config;
    c->election_min_us = c->election_min_us ? c->election_min_us : 300000;
    c->election_max_us = c->election_max_us ? c->election_max_us : 2 * c->election_min_us;
    c->heartbeat_us = c->heartbeat_us ? c->heartbeat_us : 50000;
    c->inflight_bytes_max = c->inflight_bytes_max ? c->inflight_bytes_max : 16u << 20;
    if (c->self == 0 || c->election_max_us < c->election_min_us ||
        c->heartbeat_us * 2 > c->election_min_us)
        return CHR_EINVAL;
    raft->started_us = raft->heard_us = raft->leader_sent_us = INT64_MIN;
    raft->catching_up = c->lost_tail;
    return take_stored(raft, stored);
}

void raft_free(struct raft *raft)
{
    free(raft->runs);
    raft->runs = NULL;
    raft->runs_count = raft->runs_capacity = 0;
}

/* ---- Effects -----------------------------------------------------------------------------------
 */

struct raft_message *raft__send(struct raft__step *step, enum raft_message_type type, uint64_t to)
{
    struct raft *raft = step->raft;
    struct raft_effects *effects = step->effects;
    CHR_ASSERT(effects->messages_count < RAFT_MESSAGES_MAX);
    struct raft_message *m = &effects->messages[effects->messages_count++];
    *m = (struct raft_message){.type = type,
                               .group = raft->config.group,
                               .from = raft->config.self,
                               .to = to,
                               .from_incarnation = raft->config.incarnation,
                               .term = raft->term,
                               .sent_us = INT64_MIN};
    return m;
}

void raft__hard_state(struct raft__step *step)
{
    step->effects->hard_state_changed = true;
    step->effects->hard_state =
        (struct raft_hard_state){.term = step->raft->term, .vote = step->raft->vote};
}

void raft__stamp(struct raft *raft, struct raft_entry *entry, uint64_t wall_ms)
{
    entry->index = ++raft->last_index;
    entry->term = raft->term;
    entry->hlc = raft->tail_hlc = raft->last_hlc =
        chr_hlc_next(raft->last_hlc, wall_ms); /* keeps R14 */
    raft__terms_add(raft, entry->index, entry->term);
}

void raft__save_own(struct raft__step *step, enum raft_entry_type type, chr_slice bytes)
{
    struct raft *raft = step->raft;
    CHR_ASSERT(!step->effects->save);
    raft->own_entry = (struct raft_entry){.type = type, .bytes = bytes};
    raft__stamp(raft, &raft->own_entry, step->event->wall_ms);
    step->effects->save = &raft->own_entry;
    step->effects->save_count = 1;
    step->effects->save_sequence = ++raft->save_sequence;
}

/* ---- Events ------------------------------------------------------------------------------------
 */

static chr_err propose(struct raft__step *step)
{
    struct raft *raft = step->raft;
    const struct raft_event *event = step->event;
    if (raft->role != RAFT_LEADER || raft->transfer_to)
        return CHR_EBUSY;
    for (size_t i = 0; i < event->entries_count; i++)
        raft__stamp(raft, &event->entries[i], event->wall_ms);
    if (event->entries_count) {
        step->effects->save = event->entries;
        step->effects->save_count = event->entries_count;
        step->effects->save_sequence = ++raft->save_sequence;
    }
    return CHR_OK;
}

static void saved(struct raft__step *step)
{
    struct raft *raft = step->raft;
    const struct raft_event *event = step->event;
    CHR_ASSERT(event->sequence <= raft->save_sequence);
    if (event->sequence <= raft->valid_from && raft->valid_from > 0)
        return; /* of entries that were contradicted meanwhile; the next save speaks for what is */
    CHR_ASSERT(event->saved_index <= raft->last_index);
    raft->saved_index = CHR_MAX(raft->saved_index, event->saved_index);
    raft__follower_saved(step);
}

/* R20: votes and acknowledgements of a known id with another incarnation are those of a disk that
 * has forgotten what it promised. What a leader says, or a candidate asks, is another matter:
 * others have elected it, and it may have been taken in again while we were away. */
static bool promises(enum raft_message_type type)
{
    return type == RAFT_MESSAGE_PRE_VOTE_REPLY || type == RAFT_MESSAGE_VOTE_REPLY ||
           type == RAFT_MESSAGE_APPEND_REPLY || type == RAFT_MESSAGE_HEARTBEAT_REPLY;
}

static chr_err message(struct raft__step *step)
{
    struct raft *raft = step->raft;
    const struct raft_message *m = step->event->message;
    const struct raft_member *member = raft_members_find(raft_members_now(raft), m->from);
    bool wiped = member && member->incarnation != m->from_incarnation && promises(m->type);
    if (wiped || m->to != raft->config.self || m->from == raft->config.self || m->from == 0 ||
        m->group != raft->config.group) {
        raft->counters.strangers++;
        return CHR_EACCES;
    }
    if (m->term > RAFT__NUMBER_MAX || m->index > RAFT__NUMBER_MAX)
        return CHR_EPROTO;
    switch (m->type) {
    case RAFT_MESSAGE_PRE_VOTE:
    case RAFT_MESSAGE_VOTE:
        raft__on_vote(step, m);
        return CHR_OK;
    case RAFT_MESSAGE_PRE_VOTE_REPLY:
    case RAFT_MESSAGE_VOTE_REPLY:
        raft__on_vote_reply(step, m);
        return CHR_OK;
    case RAFT_MESSAGE_APPEND:
        return raft__on_append(step, m);
    case RAFT_MESSAGE_APPEND_REPLY:
        raft__on_append_reply(step, m);
        return CHR_OK;
    case RAFT_MESSAGE_HEARTBEAT:
        raft__on_heartbeat(step, m);
        return CHR_OK;
    case RAFT_MESSAGE_HEARTBEAT_REPLY:
        raft__on_heartbeat_reply(step, m);
        return CHR_OK;
    case RAFT_MESSAGE_TIMEOUT_NOW:
        raft__on_timeout_now(step, m);
        return CHR_OK;
    case RAFT_MESSAGE_READ:
        raft__on_read(step, m);
        return CHR_OK;
    case RAFT_MESSAGE_READ_REPLY:
        raft__on_read_reply(step, m);
        return CHR_OK;
    }
    return CHR_EPROTO;
}

static void compacted(struct raft *raft, uint64_t index)
{
    index = CHR_MIN(index, CHR_MIN(raft->commit_index, raft->saved_index));
    if (index <= raft->base_index)
        return;
    raft->base_term = raft_term_of(raft, index);
    raft__terms_compact(raft, index);
    raft->base_index = index;
}

static chr_err dispatch(struct raft__step *step)
{
    struct raft *raft = step->raft;
    const struct raft_event *event = step->event;
    switch (event->type) {
    case RAFT_EVENT_TICK:
        if (raft->role == RAFT_LEADER)
            raft__leader_tick(step);
        else
            raft__election_tick(step);
        return CHR_OK;
    case RAFT_EVENT_PROPOSE:
        return propose(step);
    case RAFT_EVENT_SAVED:
        saved(step);
        return CHR_OK;
    case RAFT_EVENT_MESSAGE:
        return message(step);
    case RAFT_EVENT_READ:
        raft__read(step);
        return CHR_OK;
    case RAFT_EVENT_CHANGE:
        return raft__change(step);
    case RAFT_EVENT_TRANSFER:
        return raft__transfer(step);
    case RAFT_EVENT_SNAPSHOT_SENT:
        raft__snapshot_sent(step);
        return CHR_OK;
    case RAFT_EVENT_INSTALLED:
        raft__installed(step);
        return CHR_OK;
    case RAFT_EVENT_COMPACTED:
        compacted(raft, event->index);
        return CHR_OK;
    }
    return CHR_EINVAL;
}

chr_err raft_step(struct raft *raft, const struct raft_event *event, struct raft_effects *effects)
{
    struct raft__step step = {raft, event, effects};
    memset(effects, 0, offsetof(struct raft_effects, messages));
    chr_err err = raft__terms_reserve(raft, 1); /* whatever comes, one entry of our own has room */
    if (!err) {
        raft->now_us = CHR_MAX(raft->now_us, event->now_us);
        if (raft->started_us == INT64_MIN) {
            raft->started_us = raft->now_us;
            raft__reset_election(&step);
        }
        err = dispatch(&step);
        raft__advance_commit(&step);
    }
    effects->append_to = raft__append_to(raft, &effects->snapshot_to);
    effects->commit_index = CHR_MIN(raft->commit_index, raft->saved_index);
    effects->read_confirmed = raft->read_confirmed;
    return err;
}

int64_t raft_next_due_us(const struct raft *raft)
{
    if (raft->started_us == INT64_MIN)
        return INT64_MIN;
    if (raft->role != RAFT_LEADER)
        return raft->election_due_us;
    bool alone = raft->peers_count == 1 && raft->peers[0].member.id == raft->config.self;
    return alone ? INT64_MAX : CHR_MIN(raft->heartbeat_due_us, raft->quorum_due_us);
}
