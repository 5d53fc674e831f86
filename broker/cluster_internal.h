/* broker/cluster_internal.h: what the files of cluster.h share.
 *
 *     cluster.c          the lanes' callbacks, the thread, start and stop
 *     cluster_hello.c    what nodes say of themselves: founding, joining, strangers (C1, C3)
 *     cluster_duties.c   what is looked after twice a second: members (C2), the roster
 *     cluster_down.c     nodes that are no more: their sessions (C4)
 *     cluster_view.c     all of it as operators see it */
#ifndef CHR_BROKER_CLUSTER_INTERNAL_H
#define CHR_BROKER_CLUSTER_INTERNAL_H

#include <pthread.h>

#include "base/wake.h"
#include "broker/cluster.h"
#include "broker/node.h"

/* The leader looks after members so often. */
#define DUTY_US INT64_C(200000)

struct known {
    uint64_t node;
    char name[64], address[80];
    bool listed; /* in --peers */
    bool heard;
    struct peer_hello hello;
    int64_t heard_us; /* when last */
    int64_t skew_us, skew_logged_us;
    bool foreign; /* C3 */
    bool spoke;   /* since it was last looked after (C4) */
};

/* A start of a node by which somebody is connected (C4). The cluster's thread only. */
struct watched {
    uint64_t node, boot;
    int64_t silent_us; /* of the time that we led and looked */
    bool there;        /* in the database still */
};
#define WATCHED_MAX 64u

struct cluster {
    struct broker_node *node;
    struct data_dir *dir;
    struct peers *peers; /* set under lock, once; a lane may call before peers_start returns */
    _Atomic(broker_committer *) committer;
    pthread_mutex_t lock; /* all below */
    struct peer_hello self;
    struct snapshots *snapshots;
    struct cluster_calls *calls;
    struct roster roster;
    enum roster_place place_logged;
    bool silence_logged;
    int64_t silent_since_us; /* nobody was heard of since */
    _Atomic uint32_t format; /* in use (O4) */
    struct known known[PEERS_MAX];
    uint32_t known_count;
    bool bootstrap;
    struct watched watched[WATCHED_MAX];
    uint32_t watched_count;
    int64_t watched_us, wills_us; /* when it was last done; 0: not since we lead */
    _Atomic bool down_proposed;
    pthread_t thread;
    bool thread_running;
    struct chr_wake wake;
    _Atomic bool stopping, say_hello;
};

/* lock. NULL: nobody we know of. */
struct known *cluster__find(struct cluster *c, uint64_t node);

/* cluster_hello.c */
void cluster__say_hello_to(struct cluster *c, uint64_t node); /* lock */
void cluster__say_hello(struct cluster *c);                   /* to all */
void cluster__found_if_possible(struct cluster *c);           /* lock. C1 */
void cluster__hello_received(struct cluster *c, const struct peers_message *message);

/* cluster_duties.c. lock: another node, by name and address. */
void cluster__remember(struct cluster *c, uint64_t node, const struct peer_contact *contact);
/* The cluster's thread: */
void cluster__look_after_members(struct cluster *c);
void cluster__look_after_roster(struct cluster *c);

/* cluster_down.c; the cluster's thread */
void cluster__look_after_sessions(struct cluster *c);

#endif
