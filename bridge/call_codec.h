/* bridge/call_codec.h: what an operator asks of a cluster's leader, between nodes (kinds CALL and
 * CALL_REPLY; proto/peer.proto). Any thread. Rare: decoding allocates, and frees before it returns.
 */
#ifndef CHR_BRIDGE_CALL_CODEC_H
#define CHR_BRIDGE_CALL_CODEC_H

#include "base/buf.h"
#include "base/err.h"
#include "bridge/peer_codec.h"

/* Stored numbers: they go over the wire. */
enum call_kind {
    CALL_NODES = 1, /* who there is; answered at once */
    CALL_ADD = 2,   /* name, address: a learner */
    CALL_PROMOTE = 3,
    CALL_REMOVE = 4,
    CALL_TRANSFER = 5, /* leadership */
};
enum call_status {
    CALL_DONE = 0,
    CALL_FAILED = 1,
    CALL_ELSEWHERE = 2, /* nothing was done: the node asked does not lead (any more) */
};
enum call_role {
    CALL_ROLE_NONE = 0, /* no member */
    CALL_ROLE_FOLLOWER = 1,
    CALL_ROLE_CANDIDATE = 2,
    CALL_ROLE_LEADER = 3,
    CALL_ROLE_LEARNER = 4,
};

struct call {
    uint64_t number; /* not 0 */
    uint32_t kind;   /* enum call_kind, or one that a newer version knows */
    char name[PEER_NAME_BYTES], address[PEER_ADDRESS_BYTES];
};

/* A node, as who is asked sees it. */
struct call_node {
    uint64_t node;
    char name[PEER_NAME_BYTES + 16], address[PEER_ADDRESS_BYTES], version[24];
    enum call_role role;
    bool voter, member, up;
    uint64_t term;
    bool progress;                     /* the next three are known: the leader was asked */
    uint64_t commit_index, match, lag; /* it has of what is committed; of the log; lacks */
    bool heard;
    uint64_t heard_ms; /* ago */
    bool clock;        /* the next is known */
    int64_t skew_ms;   /* its clock less that of who was asked */
};
#define CALL_NODES_MAX (2u * RAFT_MEMBERS_MAX)

struct call_reply {
    uint64_t number;
    enum call_status status;
    chr_err err; /* FAILED */
    char text[256];
    struct call_node nodes[CALL_NODES_MAX];
    uint32_t nodes_count;
};

/* Appended to out. CHR_ENOMEM, CHR_EFULL: out is as it was. */
CHR_MUST_USE chr_err call_encode(const struct call *call, struct chr_buf *out);
CHR_MUST_USE chr_err call_reply_encode(const struct call_reply *reply, struct chr_buf *out);
/* CHR_EMALFORMED, CHR_ENOMEM. */
CHR_MUST_USE chr_err call_decode(chr_slice bytes, struct call *out);
CHR_MUST_USE chr_err call_reply_decode(chr_slice bytes, struct call_reply *out);

#endif
