/* tests/sim/raft_cluster/world.h: one history: nodes with their disks and clocks, the network
 * between them, and what the whole cluster has agreed on. For the files of this folder alone.
 *
 *     run.c          from start to end: faults, then everything is healed
 *     clock.c        what is next
 *     step.c         a step of a node's core, and its effects
 *     disk_writer.c  saves become durable, slowly
 *     network.c      messages are lost, doubled, late; links are cut
 *     state.c        the state machine; what must hold of it, of leaders, of logs
 *     reads.c        clients that read
 *     clients.c      what they did and saw: is it linearizable?
 *     happenings.c   packets arrive, clients propose, logs are compacted, members change
 *     lives.c        nodes start, crash, are wiped, get snapshots
 *     faults.c       what goes wrong, and when
 *     profiles.c     what a seed is nasty with
 *     world.c        helpers */
#ifndef CHR_TESTS_SIM_RAFT_CLUSTER_WORLD_H
#define CHR_TESTS_SIM_RAFT_CLUSTER_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/random.h"
#include "raft/raft.h"
#include "tests/sim/fake_disk.h"
#include "tests/sim/linearizable.h"
#include "tests/sim/raft_cluster.h"

#define NODES_MAX     7u /* five voters, and two that come and go */
#define SEGMENT_BYTES 16384u
#define READS_MAX     64u
#define BYTES_MAX     400u
#define KEYS          32u

struct item { /* an entry with bytes of its own */
    uint64_t index, term;
    chr_hlc hlc;
    enum raft_entry_type type;
    uint32_t len;
    uint8_t bytes[BYTES_MAX];
};

struct items {
    struct item *at;
    size_t count, capacity;
};

struct save { /* for the log writer */
    bool truncate;
    uint64_t to; /* truncate */
    uint64_t sequence;
    struct items entries;
};

struct snapshot {
    uint64_t index, term;
    chr_hlc hlc;
    uint64_t chain;
    struct raft_members members;
};

enum read_kind { READ_LEASE, READ_ROUND, READ_ASKED, READ_WAITS };
struct pending_read {
    enum read_kind kind;
    uint64_t number, round, index;
    uint64_t key;
    int64_t asked_at;
    uint64_t floor;    /* acknowledged before it was asked */
    uint64_t pinned;   /* LEASE: applied when it was asked … */
    int64_t answer_at; /* … and when the answer leaves */
};

struct node {
    uint64_t id, incarnation;
    bool exists, up;
    struct fake_disk disk;
    raft_log *log;
    struct raft raft;
    struct snapshot snapshot; /* durable */
    struct items entries;     /* of the log, above entries_base */
    uint64_t entries_base;
    struct save *saves; /* a queue */
    size_t saves_count, saves_capacity;
    int64_t save_due;
    int64_t doomed_at; /* its office, or its life, ends then; INT64_MAX: not yet known */
    uint32_t reach;    /* bit i: its appends reach node i */
    int64_t disk_us;   /* how slow it is */
    uint64_t applied, chain;
    struct raft_members applied_members;
    int64_t paused_until;
    int64_t isolated_until, mute_until; /* mute: hears, and is not heard */
    int64_t up_at;                      /* down: restarts then */
    double rate;                        /* of its clock */
    int64_t offset, wall_offset;
    struct pending_read reads[READS_MAX];
    uint32_t reads_count;
    uint64_t read_number;
    int64_t snapshot_due[NODES_MAX + 1]; /* being sent to; gives up then */
    uint64_t boots;
};

struct packet {
    int64_t at;
    uint64_t to;
    bool is_snapshot, is_snapshot_reply, ok;
    struct raft_message m;
    struct items entries;
    struct snapshot snapshot;
    uint64_t from;
};

struct applied { /* what the whole cluster has agreed on */
    uint64_t term, hash, chain;
    uint64_t
        known_in;    /* the term in which it was first applied: it was committed in it or before */
    uint64_t number; /* of the proposal; 0: not a client\'s */
    bool acknowledged;
};

struct proposal {
    uint64_t index, term, node, boot, number;
    size_t op; /* of its register */
};

struct client_ops { /* on one register */
    struct linearizable_op *at;
    size_t count, capacity;
};

/* What a history is nasty with (profiles.c). */
struct profile {
    const char *name;
    uint32_t voters;    /* 0: any number */
    int64_t pace;       /* clients and faults come so many times more slowly */
    bool short_offices; /* leaders reach few with their appends, and don't last */
    bool slow_disks;    /* some; and the power fails when something has just been applied */
    bool changes;       /* of any member, at the worst moment */
    bool ties;          /* election timeouts are alike … */
    bool forgetful;     /* … and voters crash when they have voted */
    bool half_cuts;     /* leader and one other don't hear each other; the third hears both, or
                         * starts again and hears the other alone */
    bool mutes;         /* leaders are not heard for a time */
    bool halves;        /* cuts leave a leader on the smaller side, with somebody who asks it */
    bool late_replies;
};

struct world {
    const struct profile *profile;
    const struct raft_cluster_options *options;
    struct raft_cluster_report *report;
    struct chr_random random;
    int64_t now;
    struct node nodes[NODES_MAX + 1]; /* by id */
    uint32_t voters;
    struct packet *packets;
    size_t packets_count, packets_capacity;
    bool cut[NODES_MAX + 1][NODES_MAX + 1]; /* [from][to] */
    struct applied *history;
    size_t history_count, history_capacity; /* history[i] is of entry i + 1 */
    uint64_t *leaders;                      /* by term */
    size_t leaders_count;
    struct proposal *proposals;
    size_t proposals_count, proposals_capacity;
    uint64_t acknowledged; /* the highest index */
    uint64_t next_number;
    struct client_ops ops[KEYS];
    int64_t next_fault, next_client, next_read, next_compact;
    int64_t blackout; /* INT64_MAX: none */
    bool eager;       /* the operator is next */
    bool one_by_one;  /* an append has one entry */
    bool healing;
    uint64_t wiped; /* a node that waits to be taken in again; 0: none */
};

static inline bool sound(const struct world *w)
{
    return w->report->broken[0] == 0;
}

static inline uint64_t below(struct world *w, uint64_t bound)
{
    return chr_random_below(&w->random, bound);
}

static inline bool chance(struct world *w, uint32_t in_1000)
{
    return below(w, 1000) < in_1000;
}

/* So much is wrong, if it may be. */
static inline bool goes_wrong(struct world *w, enum raft_cluster_fault kind, uint32_t in_1000)
{
    return chance(w, in_1000) && !w->healing && !(w->options->without >> kind & 1);
}

/* ---- world.c ---- */
/* Notes the first thing that is broken; returns false. */
bool CHR_PRINTF(2, 3) cluster__broken(struct world *w, const char *format, ...);
void *cluster__grow(void *at, size_t *capacity, size_t count, size_t bytes);
void cluster__items_add(struct items *items, const struct raft_entry *e);
void cluster__items_free(struct items *items);
struct raft_entry cluster__entry_of(const struct item *i);           /* borrows */
struct item *cluster__item_at(struct node *n, uint64_t index);       /* NULL: not in its log */
int64_t cluster__local(const struct world *w, const struct node *n); /* what its clock shows */
int64_t cluster__global(const struct node *n, int64_t local_us);     /* when it shows that */
void cluster__trace(struct world *w, const struct node *n, const char *what, uint64_t a,
                    uint64_t b);
struct node *cluster__some_node(struct world *w, bool leader); /* that is up; NULL: none */

/* ---- network.c ---- */
void cluster__transmit(struct world *w, struct packet p); /* takes p's entries */
void cluster__deafen(struct world *w, uint64_t id);
void cluster__heal_network(struct world *w);
void cluster__cut_network(struct world *w);
void cluster__lose_packets_of(struct world *w, uint64_t from); /* that are on their way */

/* ---- disk_writer.c ---- */
void cluster__save_queue(struct world *w, struct node *n, struct save s); /* takes s's entries */
bool cluster__write_next(struct world *w, struct node *n);

/* All below that return bool: false when something is broken. */

/* ---- state.c ---- */
bool cluster__apply(struct world *w, struct node *n, uint64_t commit_index);
bool cluster__check_leader(struct world *w, struct node *n);
bool cluster__check_members(struct world *w, const struct node *n);
bool cluster__check_logs(struct world *w, struct node *a);

/* ---- clients.c ---- */
size_t cluster__write_begins(struct world *w, uint64_t number); /* its place among the operations */
void cluster__write_ends(struct world *w, uint64_t number, size_t op);
void cluster__read_ends(struct world *w, uint64_t key, int64_t invoked, uint64_t version);
bool cluster__check_clients(struct world *w); /* at the end, when all is applied */

/* ---- reads.c ---- */
bool cluster__ask(struct world *w);
bool cluster__serve_reads(struct world *w, struct node *n);
void cluster__take_read_effects(struct node *n, const struct raft_effects *effects);

/* ---- step.c ---- */
bool cluster__step(struct world *w, struct node *n, struct raft_event event);

/* ---- lives.c ---- */
bool cluster__boot(struct world *w, struct node *n);
void cluster__crash(struct world *w, struct node *n, bool power, int64_t down_us);
void cluster__wipe(struct world *w, struct node *n);
void cluster__install(struct world *w, struct node *n, const struct snapshot *s);
void cluster__close_node(struct node *n);

/* ---- happenings.c ---- */
bool cluster__deliver(struct world *w, struct packet *p);
bool cluster__propose(struct world *w);
bool cluster__compact(struct world *w);
bool cluster__administer(struct world *w);

/* ---- profiles.c ---- */
const struct profile *cluster__profile(struct world *w);
void cluster__elected(struct world *w, struct node *n);
void cluster__asked_to_change(struct world *w, struct node *leader);
void cluster__has_voted(struct world *w, struct node *n);
void cluster__applied_first(struct world *w, struct node *n); /* before all others */
void cluster__late_news(struct world *w);                     /* of a save that was contradicted */
void cluster__meets_its_doom(struct world *w, struct node *n);

/* ---- faults.c ---- */
void cluster__black_out(struct world *w);
bool cluster__fault(struct world *w);

/* ---- clock.c ---- */
bool cluster__turn(struct world *w);

#endif
