/* raft/raft.h: the consensus core: a function from (state, event) to (state, effects).
 *
 * It does no I/O, reads no clock and draws no random number: each event brings the time and some
 * randomness. The committer feeds it events and carries out the effects; the simulator does the
 * same for a whole cluster in one thread. Terms and rules: Ongaro, "Consensus: Bridging Theory and
 * Practice", 2014 (the thesis); sections are cited where a rule is kept.
 *
 *     proposals ─▶ raft_step ─▶ effects.save ─▶ log ─▶ RAFT_EVENT_SAVED ─▶ raft_step
 *     messages ──▶     │                                                       │
 *                      ├─▶ effects.messages, raft_next_append ─▶ transport     └─▶ commit_index ─▶
 * apply
 *
 * Saving is asynchronous: the core goes on while the log writes, and counts an entry as held here
 * (for its own majority, for its answers to a leader) when RAFT_EVENT_SAVED says so. Entries travel
 * beside the core: it says which peer may be sent what (raft_next_append), the caller reads the
 * bytes and reports what it sent (raft_append_sent), and the windows of thesis 10.2.1 are kept
 * here.
 *
 * A cluster of one is the smallest cluster, not another path: its majority is itself. */
#ifndef CHR_RAFT_RAFT_H
#define CHR_RAFT_RAFT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "raft/log.h"
#include "raft/members.h"

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

/* ---- Messages between members ------------------------------------------------------------------
 *
 * All may be lost, doubled, delayed and reordered. */

enum raft_message_type {
    RAFT_MESSAGE_PRE_VOTE, /* would you vote for me? (thesis 9.6); term: the one it would be */
    RAFT_MESSAGE_PRE_VOTE_REPLY,  /* granted: term as asked; else the voter's */
    RAFT_MESSAGE_VOTE,            /* RequestVote, thesis 3.4 */
    RAFT_MESSAGE_VOTE_REPLY,      /* */
    RAFT_MESSAGE_APPEND,          /* AppendEntries, thesis 3.5 */
    RAFT_MESSAGE_APPEND_REPLY,    /* sent when the entries are durable */
    RAFT_MESSAGE_HEARTBEAT,       /* small, on a lane of its own: a leader is alive */
    RAFT_MESSAGE_HEARTBEAT_REPLY, /* */
    RAFT_MESSAGE_TIMEOUT_NOW,     /* leadership transfer, thesis 3.10 */
    RAFT_MESSAGE_READ,            /* a follower asks for a read index, thesis 6.4 */
    RAFT_MESSAGE_READ_REPLY,      /* */
};

struct raft_message {
    enum raft_message_type type;
    uint32_t group;
    uint64_t from, to, from_incarnation;
    uint64_t term;
    /* VOTE, PRE_VOTE: the candidate's last entry. APPEND: the entry before the first one.
     * APPEND_REPLY rejected: the entry that was not there. */
    uint64_t index, log_term;
    uint64_t commit; /* APPEND, HEARTBEAT */
    uint64_t match;  /* replies: durable at the follower and equal to the leader's log up to here */
    uint64_t last;   /* replies: the follower's last entry, durable or not */
    uint64_t accepted; /* replies: equal to the leader's log up to here, durable or not */
    /* APPEND_REPLY rejected: the follower's last entry that may agree, and its term. */
    uint64_t hint_index, hint_term;
    int64_t
        sent_us;   /* APPEND, HEARTBEAT: the leader's clock; replies: as received, for its lease */
    uint64_t read; /* HEARTBEAT: the leader's read round, and its reply; READ: the asker's number */
    bool granted;  /* VOTE_REPLY, PRE_VOTE_REPLY; APPEND_REPLY: not rejected */
    bool forced;   /* VOTE: of a transfer, may disturb a living leader */
    const struct raft_entry *entries; /* APPEND; borrowed */
    size_t entries_count;
};

/* ---- Start -------------------------------------------------------------------------------------
 */

struct raft_config {
    uint32_t group;       /* in each message; a node can host several groups later; 0 */
    uint64_t self;        /* node number, not 0 */
    uint64_t incarnation; /* of our data directory (R20) */
    /* 0: 300 ms, 600 ms, 50 ms. An election comes after a time drawn from [min, max). */
    int64_t election_min_us, election_max_us, heartbeat_us;
    uint64_t inflight_bytes_max; /* to one peer, not acknowledged; 0: 16 MiB */
    /* This node may have lost entries it has acknowledged (no fsync): it votes for nobody until it
     * has caught up with a leader (design 2.4). Where that is so for a majority nobody is elected;
     * an operator who accepts the loss starts them without it. Alone it has nobody to ask, and the
     * flag means nothing. */
    bool lost_tail;
};

/* What the node's disk holds, as log and checkpoint were found. All of it is durable. */
struct raft_stored {
    struct raft_hard_state hard_state;
    /* The entry before the log's first one; 0: none. Its term may be unknown (0) where a log was
     * begun behind a checkpoint: then nobody is sent entries from there on, but a snapshot. */
    uint64_t base_index, base_term;
    uint64_t last_index;         /* >= base_index */
    chr_hlc last_hlc;            /* of the entry last_index */
    uint64_t commit_index;       /* what the checkpoint holds; base_index <= it <= last_index */
    struct raft_members members; /* as of entry members_index */
    uint64_t members_index;
    const struct raft_term_run *runs; /* of the entries above base_index; borrowed until return */
    size_t runs_count;
    const struct raft_entry *changes; /* the CONFIG entries above members_index; borrowed */
    size_t changes_count;
};

/* ---- State -------------------------------------------------------------------------------------
 *
 * Visible so that the simulator can look and a node can embed it; changed by the functions below
 * alone. */

enum raft_peer_state {
    RAFT_PEER_PROBE,     /* where do our logs part? one append at a time */
    RAFT_PEER_REPLICATE, /* appends follow each other, up to the window */
    RAFT_PEER_SNAPSHOT   /* it needs what the log does not hold any more */
};

#define RAFT_INFLIGHT_MAX 256u

struct raft_inflight {
    uint64_t last_index;
    uint64_t bytes;
};

struct raft_peer {
    struct raft_member member;
    bool granted; /* (pre-)candidate: its vote in the campaign that is on */
    /* Leader's view: */
    enum raft_peer_state state;
    uint64_t match;        /* durable there and equal to our log; of self: see saved_index */
    uint64_t accepted;     /* equal, not necessarily durable; >= match */
    uint64_t next;         /* the next entry to send; > match */
    uint64_t sent_commit;  /* the highest commit index it was told */
    uint64_t snapshot;     /* SNAPSHOT: entries up to here come with it; 0: not started */
    int64_t accepted_us;   /* when accepted last rose */
    int64_t moved_us;      /* when accepted or match last moved, or something was sent to it idle */
    int64_t heard_us;      /* when it last answered in this term */
    int64_t acked_sent_us; /* send time of the latest message it answered (R19) */
    uint64_t acked_read;   /* the latest read round it answered */
    bool probing;          /* PROBE: an append is on its way */
    uint64_t read_number;  /* its READ that waits; 0: none */
    uint64_t read_round, read_index;                  /* of that */
    uint64_t read_queued;                             /* the newest that came meanwhile; 0: none */
    struct raft_inflight inflight[RAFT_INFLIGHT_MAX]; /* a ring */
    uint32_t inflight_head, inflight_count;
    uint64_t inflight_bytes;
};

/* Members since entry index; the last one counts, from the moment it is in the log (thesis 4.1). */
struct raft_change {
    uint64_t index;
    struct raft_members members;
};

struct raft {
    struct raft_config config;
    enum raft_role role;
    uint64_t term;   /* persisted before use */
    uint64_t vote;   /* voted for in term; 0 none */
    uint64_t leader; /* known leader of term; 0 none */

    uint64_t base_index, base_term;
    uint64_t last_index;   /* last entry of our log, saved or being saved */
    uint64_t saved_index;  /* <= last_index; durable in our log */
    uint64_t commit_index; /* <= last_index; may be above saved_index when others have it */
    uint64_t verified;     /* follower: equal to the log of this term's leader up to here */
    chr_hlc last_hlc;      /* of the last entry ever seen here (R14) */
    chr_hlc tail_hlc;      /* of entry last_index; 0: not known, since a truncation */
    struct raft_term_run *runs;
    size_t runs_count, runs_capacity;
    uint64_t save_sequence; /* of the last save or truncation */
    uint64_t valid_from;    /* saves before this one were contradicted */

    struct raft_change changes[2];            /* the last two; the first is committed */
    uint32_t changes_count;                   /* 1 or 2 */
    struct raft_peer peers[RAFT_MEMBERS_MAX]; /* of the latest members, self among them */
    uint32_t peers_count;
    uint8_t change_bytes[RAFT_MEMBERS_BYTES_MAX]; /* of the entry that is proposed */
    struct raft_entry own_entry;                  /* no-op or change */

    int64_t now_us;
    int64_t started_us; /* of the first event; INT64_MIN: none yet */
    int64_t heard_us;   /* follower: from the leader of this term; INT64_MIN: never */
    int64_t election_due_us;
    int64_t heartbeat_due_us, quorum_due_us;
    int64_t leader_sent_us; /* follower: send time of the latest message of the leader */
    uint64_t term_start;    /* leader: its first entry; commits nothing older (thesis 3.6.2) */
    uint64_t transfer_to;   /* leader: 0 none */
    int64_t transfer_due_us;
    bool lease_void; /* leader: a transfer was tried in this term (R19) */
    uint64_t read_round, read_confirmed;
    bool catching_up; /* lost_tail, and not caught up yet */

    struct raft_counters {
        uint64_t elections, elections_won, stepped_down, rejected_appends, strangers;
    } counters;
};

/* ---- Events ------------------------------------------------------------------------------------
 */

enum raft_event_type {
    RAFT_EVENT_TICK,     /* time has passed */
    RAFT_EVENT_PROPOSE,  /* entries: type and bytes set by the caller; index, term, hlc set here */
    RAFT_EVENT_SAVED,    /* the save `sequence` is durable: up to saved_index */
    RAFT_EVENT_MESSAGE,  /* from a peer that the transport has authenticated */
    RAFT_EVENT_READ,     /* a linearizable read asks for its index */
    RAFT_EVENT_CHANGE,   /* of the members, by one */
    RAFT_EVENT_TRANSFER, /* of leadership, to peer */
    RAFT_EVENT_SNAPSHOT_SENT, /* to peer: it has it, or ok is false */
    RAFT_EVENT_INSTALLED,     /* a snapshot replaced our state and log, durably */
    RAFT_EVENT_COMPACTED,     /* the log dropped entries up to index */
};

enum raft_change_type {
    RAFT_CHANGE_ADD_LEARNER,
    RAFT_CHANGE_PROMOTE,
    RAFT_CHANGE_REMOVE,
    RAFT_CHANGE_REPLACE, /* its disk was wiped: a learner with another incarnation (R20) */
};

struct raft_event {
    enum raft_event_type type;
    int64_t now_us;             /* CLOCK_BOOTTIME; never runs backwards */
    uint64_t wall_ms;           /* the wall clock, for HLC stamps */
    uint64_t random;            /* any 64 random bits */
    struct raft_entry *entries; /* PROPOSE: filled in place; bytes stay the proposer's */
    size_t entries_count;
    uint64_t sequence, saved_index; /* SAVED */
    const struct raft_message *message;
    enum raft_change_type change;
    struct raft_member member;          /* CHANGE; ADD_LEARNER and REPLACE look at incarnation */
    uint64_t peer;                      /* TRANSFER, SNAPSHOT_SENT */
    bool ok;                            /* SNAPSHOT_SENT */
    uint64_t read_number;               /* READ: not 0; rising, over restarts too */
    uint64_t index, log_term;           /* INSTALLED, COMPACTED */
    chr_hlc hlc;                        /* INSTALLED */
    const struct raft_members *members; /* INSTALLED */
};

enum raft_read_state {
    RAFT_READ_NONE,     /* the event was no READ */
    RAFT_READ_NOW,      /* read_index is right now (lease, R19) */
    RAFT_READ_ROUND,    /* … once effects.read_confirmed reaches read_round */
    RAFT_READ_ASKED,    /* the leader was asked; effects.read_answered says its answer */
    RAFT_READ_NO_LEADER /* ask again later */
};

#define RAFT_MESSAGES_MAX (3u * RAFT_MEMBERS_MAX + 2u)

/* What the caller has to do, in this order. Pointers are borrowed from the raft or the event and
 * valid until the next call. */
struct raft_effects {
    bool truncate; /* drop entries above truncate_to from the log */
    uint64_t truncate_to;
    bool hard_state_changed; /* fsync `hard_state` before anything below (thesis 3.8) */
    struct raft_hard_state hard_state;
    /* Append these to the log and sync; then RAFT_EVENT_SAVED with save_sequence and the last one's
     * index. Saves become durable in the order in which they were asked for. */
    const struct raft_entry *save;
    size_t save_count;
    uint64_t save_sequence;
    uint32_t messages_count; /* of messages, below */
    uint32_t append_to;      /* bit i: raft_next_append has something for peers[i] */
    uint32_t snapshot_to;    /* bit i: peers[i] needs a snapshot: raft_snapshot_started */
    uint64_t
        commit_index; /* entries up to here are committed and durable here; apply what is new */

    enum raft_read_state read;
    uint64_t read_round, read_index;
    uint64_t read_confirmed; /* leader: reads of rounds up to here may be served */
    bool reads_lost; /* not leader any more: ask again for all rounds; what was ASKED just times out
                      */
    uint64_t read_answered; /* a follower's reads of numbers up to this (0: none) … */
    uint64_t read_answer;   /* … may be served once this index is applied */

    struct raft_message messages[RAFT_MESSAGES_MAX]; /* last: most steps touch none of it */
};

/* CHR_EINVAL: what is stored contradicts itself. CHR_ENOMEM. raft_free() after either is allowed.
 */
CHR_MUST_USE chr_err raft_init(struct raft *raft, const struct raft_config *config,
                               const struct raft_stored *stored);
void raft_free(struct raft *raft);

/* Effects are to be carried out whatever it returns. Refusals:
 *
 *   PROPOSE   CHR_EBUSY: not leader, or leadership is being handed over
 *
 *   CHANGE    CHR_EBUSY: not leader, or the change before is not committed yet; CHR_ESTALE: the
 *             learner is too far behind; CHR_EEXIST, CHR_ENOTFOUND, CHR_EFULL; CHR_EINVAL: the last
 *             voter would go
 *
 *   TRANSFER  CHR_EBUSY: not leader; CHR_ENOTFOUND: no voter
 *
 *   MESSAGE   CHR_EACCES: a promise of a known id with another incarnation (R20), or not for us;
 *             CHR_EPROTO: it contradicts what is committed here (a bug, or an attack); the log is
 *             untouched
 *
 *   any       CHR_ENOMEM */
CHR_MUST_USE chr_err raft_step(struct raft *raft, const struct raft_event *event,
                               struct raft_effects *effects);

/* When the next TICK is due; INT64_MIN: at once; INT64_MAX: a leader without peers needs none. */
int64_t raft_next_due_us(const struct raft *raft);

/* Leader: what peers[slot] is to be sent now. Fills *message but for the entries: those from
 * message->index + 1 up to *last are its to choose from, from the first one on; none is allowed
 * (it then says what is committed). False: nothing now. */
bool raft_next_append(const struct raft *raft, uint32_t slot, struct raft_message *message,
                      uint64_t *last);
/* It was handed to the transport, with entries up to last (message->index: none). */
void raft_append_sent(struct raft *raft, uint32_t slot, uint64_t last, uint64_t bytes);

/* A snapshot of everything up to index is on its way to peers[slot]; SNAPSHOT_SENT tells its end.
 */
void raft_snapshot_started(struct raft *raft, uint32_t slot, uint64_t index);

/* 0 for what is not held; base_index is still known. */
uint64_t raft_term_of(const struct raft *raft, uint64_t index);
const struct raft_members *raft_members_now(const struct raft *raft);
/* Leader: reads at what is applied now are linearizable while the clock has not passed this (R19).
 * INT64_MIN: no lease. Pin the version first, then read the clock, then answer. */
int64_t raft_lease_until_us(const struct raft *raft);

#endif
