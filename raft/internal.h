/* raft/internal.h: what the files of the consensus core share.
 *
 *     step.c         events in, effects out; the clock; start
 *     election.c     pre-vote, votes, taking and leaving office
 *     replication.c  the leader's side: windows, what is sent, what counts as committed
 *     follower.c     the other side: appends, heartbeats
 *     membership.c   changes of the members, who is a peer
 *     reads.c        lease and read index
 *     terms.c        which entry has which term */
#ifndef CHR_RAFT_INTERNAL_H
#define CHR_RAFT_INTERNAL_H

#include "raft/raft.h"

/* Terms, indexes and HLCs beyond it can't come about; a message that has one is refused. */
#define RAFT__NUMBER_MAX (UINT64_MAX / 2)

struct raft__step {
    struct raft *raft;
    const struct raft_event *event;
    struct raft_effects *effects;
};

/* step.c. A message to peer `to`, already addressed; the caller fills in the rest. */
struct raft_message *raft__send(struct raft__step *step, enum raft_message_type type, uint64_t to);
void raft__hard_state(struct raft__step *step);
/* Appends an entry of our own (no-op, change). */
void raft__save_own(struct raft__step *step, enum raft_entry_type type, chr_slice bytes);
void raft__stamp(struct raft *raft, struct raft_entry *entry, uint64_t wall_ms);

/* election.c */
void raft__reset_election(struct raft__step *step);
void raft__election_tick(struct raft__step *step);
/* A term that somebody else has, or we leave office in our own; leader 0: not known. */
void raft__become_follower(struct raft__step *step, uint64_t term, uint64_t leader);
void raft__campaign(struct raft__step *step, bool forced);
void raft__on_vote(struct raft__step *step, const struct raft_message *m);
void raft__on_vote_reply(struct raft__step *step, const struct raft_message *m);
void raft__on_timeout_now(struct raft__step *step, const struct raft_message *m);
chr_err raft__transfer(struct raft__step *step);

/* replication.c */
void raft__leader_started(struct raft__step *step);
void raft__leader_tick(struct raft__step *step);
void raft__heartbeats(struct raft__step *step);
void raft__advance_commit(struct raft__step *step);
void raft__on_append_reply(struct raft__step *step, const struct raft_message *m);
void raft__on_heartbeat_reply(struct raft__step *step, const struct raft_message *m);
void raft__snapshot_sent(struct raft__step *step);
uint32_t raft__append_to(const struct raft *raft, uint32_t *snapshot_to);
/* At the middle of the voters' values, sorted: what a majority has reached. */
int64_t raft__majority(const struct raft *raft,
                       int64_t (*value)(const struct raft *raft, const struct raft_peer *peer));

/* follower.c */
chr_err raft__on_append(struct raft__step *step, const struct raft_message *m);
void raft__on_heartbeat(struct raft__step *step, const struct raft_message *m);
void raft__follower_saved(struct raft__step *step);
void raft__installed(struct raft__step *step);

/* membership.c */
struct raft_peer *raft__peer(struct raft *raft, uint64_t id); /* NULL: no member */
bool raft__self_votes(const struct raft *raft);               /* a voter, with this disk (R20) */
bool raft__may_campaign(const struct raft *raft);
/* The members of the entry at index count from now on. bytes decode; there is room for it. */
void raft__members_changed(struct raft *raft, uint64_t index, chr_slice bytes);
void raft__members_truncated(struct raft *raft, uint64_t last_index);
void raft__members_committed(struct raft *raft);
void raft__members_reset(struct raft *raft, uint64_t index, const struct raft_members *members);
chr_err raft__change(struct raft__step *step);
bool raft__change_pending(const struct raft *raft);

/* reads.c */
void raft__read(struct raft__step *step);
void raft__on_read(struct raft__step *step, const struct raft_message *m);
void raft__on_read_reply(struct raft__step *step, const struct raft_message *m);
void raft__reads_confirmed(struct raft__step *step);

/* terms.c */
CHR_MUST_USE chr_err raft__terms_reserve(struct raft *raft, size_t more);
void raft__terms_add(struct raft *raft, uint64_t index, uint64_t term); /* reserved */
void raft__terms_truncate(struct raft *raft, uint64_t last_index);
void raft__terms_compact(struct raft *raft, uint64_t base_index);
/* The last entry at or below index whose term is at most term; base_index if none above it is. */
uint64_t raft__terms_last_at_most(const struct raft *raft, uint64_t index, uint64_t term);

#endif
