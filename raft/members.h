/* raft/members.h: who belongs to the group: the content of a RAFT_ENTRY_CONFIG entry.
 *
 * Voters count for majorities, learners only receive (thesis 4.2.1). A member is a node with one
 * disk: its incarnation is drawn with its data directory, and a node that comes back with another
 * one is a stranger until it was removed and added again (R20). Members change by one voter at a
 * time (thesis 4.1). Plain values. */
#ifndef CHR_RAFT_MEMBERS_H
#define CHR_RAFT_MEMBERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

#define RAFT_MEMBERS_MAX 16u
#define RAFT_VOTERS_MAX  7u

struct raft_member {
    uint64_t id; /* node number; not 0 */
    uint64_t incarnation;
    bool voter;
};

struct raft_members {
    struct raft_member items[RAFT_MEMBERS_MAX]; /* by id, rising */
    uint32_t count;
};

/* NULL: not a member. */
const struct raft_member *raft_members_find(const struct raft_members *members, uint64_t id);
uint32_t raft_members_voters(const struct raft_members *members);
/* CHR_EEXIST; CHR_EFULL: RAFT_MEMBERS_MAX, or RAFT_VOTERS_MAX for a voter. */
CHR_MUST_USE chr_err raft_members_add(struct raft_members *members, struct raft_member member);
CHR_MUST_USE chr_err raft_members_remove(struct raft_members *members, uint64_t id);

/* The layout is in docs/formats.md, "Members". Returns the bytes written. */
#define RAFT_MEMBERS_BYTES_MAX (8u + RAFT_MEMBERS_MAX * 24u)
size_t raft_members_encode(const struct raft_members *members, uint8_t out[RAFT_MEMBERS_BYTES_MAX]);
/* CHR_EVERSION, CHR_EMALFORMED: ids that do not rise, no voter, too many, bytes left over. */
CHR_MUST_USE chr_err raft_members_decode(chr_slice bytes, struct raft_members *out);

#endif
