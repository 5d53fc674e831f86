/* broker/node.h: one node: what there is of everything, wired together.
 *
 * Start order: data directory and its lock, kv, db, log (recovery), committer (replay), query
 * workers, loops, acceptor, admin; stop is the reverse. */
#ifndef CHR_BROKER_NODE_H
#define CHR_BROKER_NODE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"
#include "broker/committer.h"
#include "broker/config.h"
#include "broker/data_dir.h"
#include "broker/reload.h"
#include "db/db.h"
#include "db/kv.h"

struct broker_loop;
struct subscriptions; /* session/subscriptions.h: the shared trie */
struct retained;      /* session/retained.h */
struct wakeups;       /* session/wakeups.h */
struct registry;      /* session/registry.h: which session is where */
struct query_pool;    /* query_pool.h */
struct listener;      /* net/listener.h */
struct acceptor;      /* net/acceptor.h */
struct checkpointer;  /* checkpointer.h */
struct admin;         /* admin/admin.h */
struct authority;     /* auth/auth.h */
struct cluster;       /* cluster.h */
struct peers;         /* bridge/peers.h */
struct across;        /* session/across.h */

struct broker_node {
    /* The settings in force: an immutable snapshot that a reload replaces (reload.h, L1 to L3). */
    const struct broker_config *_Atomic config;
    struct reload_part reload_parts[RELOAD_PARTS_MAX];
    uint32_t reload_parts_count;
    const struct chr_clock *clock;
    struct data_dir dir;
    struct db_kv kv;
    bool kv_open, log_io_open;
    bool failed; /* start did not finish: no last checkpoint */
    db *db;
    struct raft_io log_io;
    raft_log *log;
    struct cluster *cluster; /* cluster.h; NULL: a single node */
    broker_committer *committer;
    _Atomic(struct checkpointer *) checkpointer; /* the applier reads it */
    struct query_pool *queries;
    struct authority *authority; /* users and what they may do */
    struct subscriptions *subscriptions;
    struct retained *retained;
    struct registry *registry;
    _Atomic(struct wakeups *) wakeups; /* the applier reads it */
    _Atomic(struct across *) across;   /* NULL: a node alone; lanes and applier read it */
    struct broker_loop **loops;
    uint32_t loops_count;
    struct listener *listeners; /* [listeners_count]; net/listener.h */
    uint32_t listeners_count;
    struct acceptor *acceptor;
    struct admin *admin;
    struct peers *peers;   /* the cluster's, for loops; NULL: a single node */
    char mqtt_address[80]; /* of the first plain listener, as bound, "127.0.0.1:1883"; or "none" */
    char admin_address[80];
    _Atomic uint64_t clients_max;  /* the most connected at a time */
    _Atomic uint64_t connects_hlc; /* session/elsewhere.h: the last stamp given or heard of */
    int64_t started_wall_us;
    int64_t started_mono_us;
    _Atomic bool serving; /* all of the above is there: loops may look at each other */
    _Atomic bool stopping;
    _Atomic bool restart_wanted; /* a snapshot waits to be put in place by a new start */
};

/* config and clock are borrowed until node_free; config is the first snapshot (reload.h). */
CHR_MUST_USE chr_err node_start(const struct broker_config *config, const struct chr_clock *clock,
                                struct broker_node **out, struct chr_errmsg *msg);
/* Stops accepting, finish what was accepted, checkpoint. */
void node_stop(struct broker_node *node);
void node_free(struct broker_node *node);

#endif
