/* broker/roster.h: the nodes of a cluster by name: who they are, how they are reached, who of them
 * belongs to it.
 *
 * The core knows members by number; operators and sockets need names and addresses. Those of nodes
 * that came later are in node.meta and in every hello, so that they outlive leaders and restarts.
 *
 *   O1  A node stands in the roster while it is listed in --peers, is a member, or joins or leaves
 *       just now. Whoever stands there is connected to.
 *   O2  Members are those of the latest change that anybody of the cluster has applied, as far as
 *       heard of. It decides who is connected to and what is shown; the core has its own word.
 *   O3  An address is learned from whoever knows a member, of a node that only joins from the
 *       leader alone: a removed one is not brought back by those that have not heard of it yet.
 *   O4  A node's format in use only rises, and is durable before it is used: no member that was
 *       away can be written to in a format it does not know without having been heard before.
 *
 * Plain values; whoever owns it locks. */
#ifndef CHR_BROKER_ROSTER_H
#define CHR_BROKER_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "bridge/peer_codec.h"
#include "bridge/peers.h"
#include "broker/data_dir.h"

/* What was removed is told so meanwhile. */
#define ROSTER_LEAVE_US INT64_C(5000000)

struct roster_node {
    uint64_t node;
    struct peer_contact contact;
    bool listed;      /* in --peers; its address is the one given there */
    bool votes;       /* it is a voter, or was one until its disk was wiped */
    bool joins;       /* an operator adds it */
    int64_t until_us; /* joins or leaves: stands here until then; 0: neither */
    uint32_t format;  /* the newest it knows; 0: not heard of since the start */
};

enum roster_place {
    ROSTER_OUTSIDE, /* no cluster is known, or it was never a member of it */
    ROSTER_LEARNER,
    ROSTER_VOTER,
    ROSTER_REMOVED, /* it was a member */
};

struct roster {
    uint64_t self, incarnation;
    struct roster_node nodes[PEERS_MAX]; /* without ourselves */
    uint32_t count;
    struct raft_members members; /* count 0: not known */
    uint64_t members_index;
    bool was_member;
};

/* A name that may be given to a node: 1 to 63 of letters, digits, `.`, `_` and `-`. */
bool roster_name_valid(const char *name);

struct roster_node *roster_find(struct roster *roster, uint64_t node); /* NULL: not there */
/* Adds a node, or changes its address unless it is listed. CHR_EFULL; CHR_EINVAL: its name or
 * address is none; CHR_EEXIST: it stands there so already. */
CHR_MUST_USE chr_err roster_put(struct roster *roster, uint64_t node,
                                const struct peer_contact *contact);
/* Somebody has applied this. False: it is not news. */
bool roster_members(struct roster *roster, uint64_t index, const struct raft_members *members,
                    int64_t now_us);
bool roster_is_member(const struct roster *roster, uint64_t node);
enum roster_place roster_place(const struct roster *roster);
/* A node of the cluster says how another is reached (O3). until_us: how long one that only joins
 * may stand here. True: it is news. */
bool roster_learn(struct roster *roster, uint64_t node, const struct peer_contact *contact,
                  bool leader, int64_t until_us);
/* It is not a member yet, but to become one until then; 0: not after all. */
void roster_join(struct roster_node *node, int64_t until_us);
/* Takes out whoever has no place any more (O1); returns how many, their numbers in gone. */
uint32_t roster_forget(struct roster *roster, int64_t now_us, uint64_t gone[PEERS_MAX]);
/* What a hello says of others. */
void roster_tell(const struct roster *roster, struct peer_hello *hello);
/* To and from node.meta: members, ourselves aside. number: a name's node number. */
void roster_save(const struct roster *roster, struct data_dir *dir);
void roster_load(struct roster *roster, const struct data_dir *dir,
                 uint64_t (*number)(const char *name));

/* The format that every member is known to know, ours the newest we know; not below in_use (O4). */
uint32_t roster_format(const struct roster *roster, uint32_t in_use, uint32_t ours);

#endif
