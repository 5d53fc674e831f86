/* tests/sim/cluster_life/world.h: one history of whole nodes. For the files of this folder alone.
 *
 *     run.c        from start to end: faults, then everything is healed
 *     clock.c      who goes on next; what time it is, and where
 *     fibers.c     coroutines: a node's threads, and who uses it
 *     threads.c    what the broker's threads call: locks, wake-ups, time, the end of a process
 *     memory.c     what a process has allocated goes with it
 *     disk.c       the disk and the store of a node, slowly
 *     network.c    bridge/peers.h: lanes that break, lose, double, overtake
 *     process.c    a node's process starts, stops, is killed
 *     snapshots.c  nodes that are too far behind
 *     operator.c   members come, go, lose their disks
 *     workload.c   what is proposed, and what is answered
 *     sessions.c   QoS 2 clients
 *     readers.c    linearizable reads
 *     history.c    what the cluster has agreed on; checked at each entry applied
 *     rows.c       what is in the tables
 *     faults.c     what goes wrong, and when
 *     profiles.c   what a seed is nasty with
 *     world.c      helpers
 *
 * Two contexts. Inside: a fiber runs code of the broker for its node; what it allocates, locks and
 * waits for is the process's. Outside: the simulator itself, on the main stack, or on a fiber
 * between life__leave and life__enter. */
#ifndef CHR_TESTS_SIM_CLUSTER_LIFE_WORLD_H
#define CHR_TESTS_SIM_CLUSTER_LIFE_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "base/random.h"
#include "bridge/peers.h"
#include "broker/checkpointer.h"
#include "broker/committer.h"
#include "broker/node.h"
#include "db/db.h"
#include "db/op.h"
#include "db/snapshot.h"
#include "raft/log.h"
#include "raft/raft.h"
#include "tests/sim/cluster_life.h"
#include "tests/sim/fake_disk.h"
#include "tests/sim/fake_kv.h"
#include "tests/sim/linearizable.h"

#define NODES_MAX     7u /* five voters, and two that come and go */
#define LOOPS         2u
#define LOOP_BATCHES  32u
#define SESSIONS      3u
#define WINDOW        4u  /* QoS 2 messages of a session in flight */
#define KEYS          32u /* registers */
#define SEGMENT_BYTES 32768u
#define NO_GUARD      UINT32_MAX
#define BRIEF_TTL_US  INT64_C(3000000)
#define FIRST_WALL_US INT64_C(1700000000000000)
#define NEVER         INT64_MAX

struct world;
struct node;
struct op;

/* ---- Fibers -----------------------------------------------------------------------------------
 */

struct fiber;
/* Whose turn it is; NULL: the main stack. */
extern struct fiber *life__self;
extern struct world *life__world; /* the one there is */

/* Starts at once, or soon. node NULL: the simulator's own. */
struct fiber *life__spawn(struct node *node, const char *name, void *(*run)(void *), void *arg);
struct node *life__node(void);      /* of the fiber inside of which we are; NULL: outside */
struct node *life__self_node(void); /* of the fiber, wherever it is */
void life__leave(void);             /* nests */
void life__enter(void);
void life__sleep(int64_t us); /* of the world's time */
void life__breathe(void);     /* a place where another thread may go on first */
/* Until life__wake of that address, or so long. May return early. */
void life__block(const void *on, int64_t until);
void life__wake(const void *on, bool all);
CHR_NORETURN void life__die(void); /* the fiber is no more */
void life__name(const char *name);
bool life__ended(const struct fiber *f);
void life__kill_fibers(struct node *node);
void life__forget_fibers(void); /* the history is over */
/* The nth time from now that this thread reads the clock, it does not get its turn for so long. */
void life__lag(uint32_t nth, int64_t us);
void life__lags(void);         /* it reads the clock */
void life__trace_fibers(void); /* who they are, and what they do */
/* The next that may go on, and when; NULL: nobody. */
struct fiber *life__next_fiber(int64_t *at);
void life__run(struct fiber *f);

/* ---- memory.c ---------------------------------------------------------------------------------
 */

struct memory { /* addresses allocated by a process */
    void **at;
    size_t count, capacity; /* a power of two */
    size_t removed;
};
void life__memory_add(struct memory *m, void *at);
void life__memory_forget(struct memory *m); /* frees all */

/* ---- Lanes ------------------------------------------------------------------------------------
 */

struct peers {
    struct node *node;
};

struct lane { /* of a node: its thread, and what came in */
    struct peers_message *first, *last;
    bool news; /* a connection came up, or has room again */
    bool stop;
    struct fiber *thread;
};

struct packet {
    int64_t at;
    uint64_t from, to;
    enum peers_lane lane;
    uint8_t kind;
    uint8_t *bytes;
    size_t len;
};

struct connection { /* one way */
    bool up;
    int64_t last_at;      /* BULK: nothing overtakes */
    int64_t retry_at;     /* down: comes up then, if it can */
    uint64_t outstanding; /* T1 */
    bool full;            /* the sender waits for room … */
    int64_t room_at;      /* … which there is then; NEVER: when something is released */
};

/* ---- What was proposed -------------------------------------------------------------------------
 */

enum op_kind {
    OP_TABLES,   /* the first entry: creates them */
    OP_PLAIN,    /* a reading */
    OP_BRIEF,    /* a reading that expires */
    OP_DELETE,   /* of a reading, by row id */
    OP_UPDATE,   /* of a reading, by row id */
    OP_WRITE,    /* of a register */
    OP_CLAIM,    /* of a name: the first one has it (R4) */
    OP_OPEN,     /* a QoS 2 session connects */
    OP_MESSAGES, /* of a QoS 2 session */
    OP_RELEASE,
};
enum op_state { OP_PROPOSED, OP_ANSWERED, OP_CLOSED, OP_REFUSED };

struct flight { /* a QoS 2 message that is not over */
    bool used, stored;
    uint16_t id;
    uint64_t number;
};

struct op {
    struct broker_proposal proposal;
    struct db_entry entry;
    uint64_t number; /* from 1 on; its row's */
    uint64_t hash;   /* of its bytes */
    enum op_kind kind;
    enum op_state state;
    struct node *node;
    uint64_t life;  /* of that node's process */
    uint32_t loop;  /* LOOPS: a worker's */
    uint64_t place; /* in its loop's order */
    uint64_t key;   /* WRITE, CLAIM; DELETE, UPDATE: the number of the row */
    uint64_t index; /* applied there; 0: not */
    /* Its row of the table of all. */
    uint64_t deleted;     /* by the entry of that index; 0: not */
    uint64_t updated;     /* by the entry of that index … */
    uint64_t value;       /* … since when it holds that */
    struct db_row_id row; /* where it is now */
    int64_t ts_us;
    int64_t invoked;
    size_t register_op; /* WRITE */
    uint32_t session;   /* OPEN, MESSAGES, RELEASE */
    uint32_t generation;
    uint64_t messages[WINDOW];
    uint32_t messages_count;
    void (*answered)(struct op *op, chr_err err, const struct db_apply_result *result);
    bool waited;        /* somebody waits for it */
    uint64_t unsure_at; /* an entry of it that its proposer lost; 0: none */
};

struct message { /* of QoS 2 */
    bool answered;
    uint64_t index; /* stored there; 0: not */
};

struct session {
    uint64_t epoch;
    uint32_t generation;
    struct node *node; /* connected there, in that life of it; NULL: not */
    uint64_t life;
    struct flight flights[WINDOW];
    uint16_t last_id;
    bool ever; /* it has an epoch */
};

struct entry { /* what the cluster has agreed on */
    uint64_t hash;
    chr_hlc hlc;
    struct op *op; /* NULL: none of ours */
    enum db_origin_verdict verdict;
    uint64_t result; /* a hash */
    uint64_t digest; /* 0: not taken yet */
    bool members;
};

struct client_ops { /* on one register */
    struct linearizable_op *at;
    size_t count, capacity;
};

/* ---- Nodes ------------------------------------------------------------------------------------
 */

struct incoming; /* snapshots.c */

struct node {
    uint64_t id, incarnation;
    bool exists;
    /* Durable. */
    struct fake_disk disk;
    fake_kv *store;
    uint64_t boot;
    struct raft_members members;
    uint64_t members_index, members_term;
    bool votes; /* is to: a voter whose disk was wiped is promoted again */
    /* Its process. */
    bool up, serving, stopping;
    uint64_t life; /* counts starts */
    struct memory memory;
    struct fiber *main;
    struct raft_io io;
    struct db_kv kv;
    struct chr_clock clock;
    struct peers peers;
    raft_log *log;
    struct raft_hard_state hard_state; /* that its disk holds */
    db *db;
    broker_committer *committer;
    struct broker_node *broker;
    struct checkpointer *checkpointer;
    struct lane lanes[PEERS_LANES];
    void *transactions, *cursors; /* disk.c: open in the store */
    bool store_written;
    struct fiber *users[8]; /* who uses it */
    uint32_t users_count, next_loop;
    struct loop {
        uint32_t in_flight;
        uint64_t places;          /* proposed so far */
        uint64_t last, last_life; /* applied last, and of which life */
    } loops[LOOPS + 1];
    uint32_t wants_snapshot; /* bit i: node i does */
    struct incoming *incoming;
    bool install;                        /* at the next start */
    bool restarts;                       /* its doom is no fault */
    int spool_fd;                        /* of what it sends; -1: none */
    uint64_t wanted_part[NODES_MAX + 1]; /* by node: it has all before */
    /* What befalls it. */
    int64_t up_at;     /* down: starts then */
    int64_t doomed_at; /* NEVER: not known yet */
    int64_t paused_until;
    int64_t disk_us, store_us;
    int64_t sick_until; /* its disk fails */
    int64_t offset, wall_offset;
    double rate;       /* of its clock */
    bool in_doubt;     /* its store is: it has to start again */
    bool applies_late; /* once, what it applies next */
};

struct profile {
    const char *name;
    uint32_t voters;    /* 0: any number */
    uint32_t pace;      /* 1: as usual; clients come so many times more slowly */
    bool short_offices; /* leaders don't last */
    bool far_writers;   /* most is proposed where nobody leads */
    bool slow_disks;
    bool breaks;    /* of connections, often */
    bool pauses;    /* often, and in the middle of anything */
    bool restarts;  /* crashes and checkpoints, often */
    bool half_cuts; /* leaders are heard by some only */
    bool tables;    /* much TTL, and clocks apart */
    bool changes;   /* of members and disks, often */
    bool narrow;    /* windows of lanes */
    bool forgetful; /* voters crash when they have voted */
    bool eights;    /* leaders are heard by one, and not for long */
    bool crowds;    /* small groups, many of them, and majorities that are away for a moment */
    bool periodic;  /* answered before the sync; processes die, power does not fail */
    bool comebacks; /* who lost entries of its own leads next, and who took them is not heard of */
    bool stale;     /* who leads next has yet to apply what is acknowledged, and readers lag */
    bool roams;     /* sessions move, and what they left behind comes through later */
    bool quiet;     /* most is proposed right when something was answered, or long after */
};

struct world {
    const struct profile *profile;
    const struct cluster_life_options *options;
    struct cluster_life_report *report;
    struct chr_random random;
    int64_t now, end;
    uint32_t voters;
    bool alone;
    enum raft_fsync fsync;
    uint64_t group_bytes;
    struct node nodes[NODES_MAX + 1]; /* by id */
    bool healing, closing;            /* closing: nothing new is proposed */
    int64_t healed_at;                /* healing: since then */
    /* network.c */
    struct packet *packets;
    size_t packets_count, packets_capacity;
    struct connection links[NODES_MAX + 1][NODES_MAX + 1][PEERS_LANES]; /* [from][to] */
    bool cut[NODES_MAX + 1][NODES_MAX + 1];
    uint64_t preempt_in_1000;
    /* workload.c, sessions.c */
    struct op **ops; /* by number, from 1 on */
    size_t ops_count, ops_capacity;
    size_t *by_hash; /* into ops; 0: none */
    size_t by_hash_capacity;
    uint64_t open; /* proposed, and their process lives */
    struct session sessions[SESSIONS];
    struct message *messages; /* from 1 on */
    size_t messages_count, messages_capacity;
    uint64_t claims[64]; /* op number that has the name; 0: nobody */
    /* history.c */
    struct entry *history; /* history[i] is of index i + 1 */
    size_t history_count, history_capacity;
    uint64_t *leaders; /* by term */
    size_t leaders_count;
    uint64_t acknowledged; /* the highest index */
    struct client_ops registers[KEYS];
    /* faults.c */
    int64_t next_fault;
    int64_t heal_at; /* the network; NEVER: by chance */
    uint64_t wiped;  /* a node that waits to be taken in again; 0: none */
    struct eight {   /* profiles.c */
        uint32_t step;
        uint64_t first, second;
    } eight;
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
static inline bool goes_wrong(struct world *w, enum cluster_life_fault kind, uint32_t in_1000)
{
    return chance(w, in_1000) && !w->healing && !(w->options->without >> kind & 1);
}

/* ---- world.c ---- */
/* Notes the first thing that is broken; returns false. */
bool CHR_PRINTF(2, 3) life__broken(struct world *w, const char *format, ...);
void *life__grow(void *at, size_t *capacity, size_t count, size_t bytes);
void CHR_PRINTF(3, 4) life__trace(struct world *w, const struct node *n, const char *format, ...);
struct node *life__leader(struct world *w); /* who serves and says it leads, the latest; or NULL */
struct node *life__some_node(struct world *w); /* that serves; NULL: none */
uint64_t life__applied_index(const struct node *n);

/* ---- clock.c ---- */
int64_t life__mono(const struct node *n);
int64_t life__wall(const struct node *n);
int64_t
life__wall_here(void); /* of the node whose fiber runs; for planted bugs (life_mutants.txt) */
int64_t life__later(const struct node *n, int64_t local_us); /* now and so long by its clock */
void life__clock_init(struct node *n);
bool life__turn(struct world *w);

/* ---- disk.c ---- */
void life__disk_init(struct node *n);
void life__store_reopen(struct node *n); /* its process is gone */

/* ---- network.c ---- */
void life__arrive(struct world *w, size_t packet);
void life__connect(struct world *w);         /* what is down, and due */
int64_t life__next_connect(struct world *w); /* when that is */
void life__break(struct world *w, uint64_t from, uint64_t to, enum peers_lane lane);
void life__disconnect(struct world *w, struct node *n); /* its process is gone */
void life__heal_network(struct world *w);
void life__cut_network(struct world *w);
void life__mute(struct world *w, const struct node *n); /* the one that is not heard */
void life__mute_leader(struct world *w);                /* for a moment */
void life__hold_up_a_follower(struct world *w);         /* what it forwards */
void life__lanes_start(struct node *n);
void life__lanes_stop(struct node *n);

/* ---- process.c ---- */
void life__start(struct world *w, struct node *n);
void life__kill(struct world *w, struct node *n, bool power, int64_t down_us);
CHR_NORETURN void life__process_ends(int64_t down_us); /* by itself; its fiber, too */
void life__stop(struct world *w, struct node *n);
void life__founders(struct world *w);

/* ---- snapshots.c ---- */
void *life__snapshot_main(void *arg);
void life__snapshot_received(struct node *n, struct peers_message *m);
void life__snapshot_forget(struct node *n);
/* True: the node starts on what it was sent. */
bool life__snapshot_install(struct world *w, struct node *n);

/* ---- operator.c ---- */
void *life__operator_main(void *arg);
void life__wipe(struct world *w, struct node *n);

/* ---- workload.c ---- */
bool life__has_tables(struct node *n); /* nothing else can be proposed before */
/* Begins it, with its row; the rest of its entry is the caller's. Inside. */
struct op *life__op_new(struct node *n, enum op_kind kind, uint32_t loop);
void life__op_row(struct op *op, const char *table, uint64_t n, uint64_t v, uint32_t guard);
/* Completes its entry and proposes it. False: it was refused, and is no more. Inside. */
bool life__propose(struct op *op);
/* And waits for its answer. Inside. */
bool life__propose_wait(struct op *op);
void life__op_delete(struct op *op); /* of the row of op->key */
void life__ops_lost(struct world *w, struct node *n);
struct op *life__op_of(struct world *w, chr_slice bytes);
void life__clients_start(struct node *n);
void life__add_user(struct node *n, const char *name, void *(*run)(void *));

/* ---- sessions.c ---- */
void *life__sessions_main(void *arg);

/* ---- readers.c ---- */
void *life__readers_main(void *arg);
void life__write_begins(struct world *w, struct op *op);
void life__write_ends(struct world *w, struct op *op);
bool life__check_clients(struct world *w);

/* ---- history.c ---- */
void life__leader_changed(void *ctx, uint64_t term, uint64_t leader);
void life__check_answer(struct op *op, const struct db_apply_result *result);
uint64_t life__result_hash(const struct db_apply_result *result);

/* ---- rows.c ---- inside, all of these */
bool life__look(struct node *n); /* at all rows: are they those of the entries applied? */
uint64_t life__digest(struct node *n);
bool life__register(struct node *n, uint64_t key, uint64_t *value, uint64_t *index);

/* ---- faults.c ---- */
void life__fault(struct world *w);

/* ---- profiles.c ---- */
const struct profile *life__profile(struct world *w);
void life__elected(struct world *w, struct node *n);
void life__has_voted(struct world *w, struct node *n);
void life__applied_first(struct world *w, struct node *n);
void life__lost_its_own(struct world *w, struct node *n); /* an entry, from its log */
void life__acknowledged(struct world *w, struct node *n);
void life__meets_its_doom(struct world *w, struct node *n);

#endif
