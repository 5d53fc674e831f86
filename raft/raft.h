/* raft/raft.h: the consensus core: a function from (state, event) to (state, effects).
 *
 * It does no I/O, reads no clock and draws no random number. The committer thread feeds it events
 * and carries out the effects; the simulator does the same for a whole cluster in one thread. Terms
 * and rules: Ongaro, "Consensus: Bridging Theory and Practice", 2014 (the thesis), chapter 3.
 *
 *     proposals ─▶ raft_step ─▶ effects.save ─▶ log writer ─▶ RAFT_EVENT_SAVED ─▶ raft_step
 *                                              ─▶ effects.commit_index ─▶ applier
 *
 * A cluster of one is the smallest cluster, not another path: its majority is itself, so it becomes
 * leader on the first tick and an index is committed when its own log has saved it. Elections and
 * replication between several nodes add events and effects here; they change none of these. */
#ifndef CHR_RAFT_RAFT_H
#define CHR_RAFT_RAFT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "raft/log.h"

enum raft_role { RAFT_FOLLOWER, RAFT_CANDIDATE, RAFT_LEADER };

struct raft_config {
    uint32_t group;         /* group id: a node can host several groups later; 0 */
    uint64_t self;          /* node number, not 0 */
    const uint64_t *voters; /* node numbers, self among them; borrowed until raft_init returns */
    uint32_t voters_count;  /* 1, 3 or 5; only 1 is implemented: else CHR_EUNSUPPORTED */
};

#define RAFT_VOTERS_MAX 7

/* Visible so that the simulator can look and a node can embed it; changed by raft_step alone. */
struct raft {
    uint32_t group;
    uint64_t self;
    enum raft_role role;
    uint64_t term;                    /* current term; persisted before use */
    uint64_t vote;                    /* voted for in term; 0 none */
    uint64_t leader;                  /* known leader of term; 0 none */
    uint64_t voters[RAFT_VOTERS_MAX]; /* node numbers, self among them */
    uint64_t match[RAFT_VOTERS_MAX];  /* leader: durable in voters[i]'s log; own: saved_index */
    uint32_t voters_count;
    uint64_t last_index;   /* last entry of our log, saved or being saved */
    uint64_t saved_index;  /* <= last_index; durable in our log */
    uint64_t commit_index; /* <= saved_index on a cluster of one */
    chr_hlc last_hlc;      /* of the last entry (R14) */
    uint64_t term_start;   /* index of this leader's first entry; commits nothing older (5.4.2) */
};

enum raft_event_type {
    RAFT_EVENT_TICK,    /* time has passed; wall_ms is set */
    RAFT_EVENT_PROPOSE, /* entries: type and bytes set by the caller; index, term, hlc set here */
    RAFT_EVENT_SAVED,   /* the log is durable up to saved_index */
};

struct raft_event {
    enum raft_event_type type;
    uint64_t wall_ms;           /* TICK, PROPOSE: the wall clock, for HLC stamps */
    struct raft_entry *entries; /* PROPOSE: filled in place; bytes stay the proposer's */
    size_t entries_count;
    uint64_t saved_index; /* SAVED */
};

/* What the caller has to do, in this order. Pointers are borrowed from the raft or the event and
 * valid until the next raft_step. */
struct raft_effects {
    bool hard_state_changed; /* fsync `hard_state` before anything below */
    struct raft_hard_state hard_state;
    bool append_noop; /* append `noop` as a group of its own (new leader) */
    struct raft_entry noop;
    bool save;             /* append the event's entries to the log and sync */
    uint64_t commit_index; /* entries up to here are committed; apply what is new */
};

/* hard_state, last_index, last_hlc: what raft_log_open found (all of it is durable); commit_index:
 * what the last checkpoint holds. CHR_EUNSUPPORTED: not a cluster of one. CHR_EINVAL: self is no
 * voter, or commit_index is beyond the log. */
CHR_MUST_USE chr_err raft_init(struct raft *raft, const struct raft_config *config,
                               struct raft_hard_state hard_state, uint64_t last_index,
                               uint64_t commit_index, chr_hlc last_hlc);
/* CHR_EBUSY for a proposal while not leader (entries untouched). */
CHR_MUST_USE chr_err raft_step(struct raft *raft, const struct raft_event *event,
                               struct raft_effects *effects);

#endif
