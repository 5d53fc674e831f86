#include "broker/roster.h"

#include <string.h>

bool roster_name_valid(const char *name)
{
    static const char may[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t len = strspn(name, may);
    return len > 0 && name[len] == 0 && len < PEER_NAME_BYTES;
}

struct roster_node *roster_find(struct roster *r, uint64_t node)
{
    for (uint32_t i = 0; i < r->count; i++)
        if (r->nodes[i].node == node)
            return &r->nodes[i];
    return NULL;
}

bool roster_is_member(const struct roster *r, uint64_t node)
{
    return raft_members_find(&r->members, node) != NULL;
}

chr_err roster_put(struct roster *r, uint64_t node, const struct peer_contact *contact)
{
    struct roster_node *n = roster_find(r, node);
    if (!roster_name_valid(contact->name) || !contact->address[0] ||
        strpbrk(contact->address, " \t\r\n,="))
        return CHR_EINVAL;
    if (n && (n->listed || strcmp(n->contact.address, contact->address) == 0))
        return CHR_EEXIST;
    if (!n && r->count == PEERS_MAX)
        return CHR_EFULL;
    if (!n) {
        n = &r->nodes[r->count++];
        const struct raft_member *m = raft_members_find(&r->members, node);
        *n = (struct roster_node){.node = node, .votes = m && m->voter};
    }
    n->contact = *contact;
    return CHR_OK;
}

bool roster_members(struct roster *r, uint64_t index, const struct raft_members *members,
                    int64_t now_us)
{
    if (members->count == 0 || (r->members.count && index <= r->members_index))
        return false;
    struct raft_members before = r->members;
    r->members = *members;
    r->members_index = index;
    for (uint32_t i = 0; i < r->count; i++) {
        struct roster_node *n = &r->nodes[i];
        const struct raft_member *was = raft_members_find(&before, n->node);
        const struct raft_member *is = raft_members_find(members, n->node);
        if (is || was) {
            n->until_us = is ? 0 : now_us + ROSTER_LEAVE_US;
            n->joins = false;
        }
        /* A learner that was a member before is one whose disk was wiped. */
        n->votes = is && (is->voter || (was && n->votes));
    }
    const struct raft_member *us = raft_members_find(members, r->self);
    r->was_member |= us && us->incarnation == r->incarnation;
    return true;
}

enum roster_place roster_place(const struct roster *r)
{
    const struct raft_member *us = raft_members_find(&r->members, r->self);
    if (us && us->incarnation == r->incarnation)
        return us->voter ? ROSTER_VOTER : ROSTER_LEARNER;
    return r->was_member ? ROSTER_REMOVED : ROSTER_OUTSIDE;
}

void roster_join(struct roster_node *n, int64_t until_us)
{
    n->joins = until_us != 0;
    n->until_us = until_us;
}

bool roster_learn(struct roster *r, uint64_t node, const struct peer_contact *contact, bool leader,
                  int64_t until_us)
{
    struct roster_node *n = roster_find(r, node);
    bool member = roster_is_member(r, node);
    if (node == r->self || (!member && !leader))
        return false;
    /* Where two say different addresses the leader's counts. */
    bool news = (!n || leader) && roster_put(r, node, contact) == CHR_OK;
    n = roster_find(r, node);
    if (n && !member)
        roster_join(n, until_us);
    return news;
}

uint32_t roster_forget(struct roster *r, int64_t now_us, uint64_t gone[PEERS_MAX])
{
    uint32_t kept = 0, count = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        const struct roster_node *n = &r->nodes[i];
        /* Before anything was heard of the members nobody is known not to be one. */
        if (n->listed || n->until_us > now_us || r->members.count == 0 ||
            roster_is_member(r, n->node)) {
            r->nodes[kept] = *n;
            r->nodes[kept].joins &= n->until_us > now_us;
            kept++;
        } else {
            gone[count++] = n->node;
        }
    }
    r->count = kept;
    return count;
}

void roster_tell(const struct roster *r, struct peer_hello *hello)
{
    hello->members = r->members;
    hello->members_index = r->members_index;
    hello->peers_count = 0;
    for (uint32_t i = 0; i < r->count && hello->peers_count < RAFT_MEMBERS_MAX; i++)
        if (roster_is_member(r, r->nodes[i].node) || r->nodes[i].joins)
            hello->peers[hello->peers_count++] = r->nodes[i].contact;
}

void roster_save(const struct roster *r, struct data_dir *dir)
{
    dir->peers_count = 0;
    for (uint32_t i = 0; i < r->count && dir->peers_count < RAFT_MEMBERS_MAX; i++)
        if (roster_is_member(r, r->nodes[i].node))
            dir->peers[dir->peers_count++] =
                (struct data_dir_peer){r->nodes[i].contact, r->nodes[i].votes};
}

void roster_load(struct roster *r, const struct data_dir *dir, uint64_t (*number)(const char *name))
{
    const struct raft_members *members = dir->members.count ? &dir->members : &dir->founders;
    (void)roster_members(r, dir->members.count ? dir->members_index : 0, members, 0);
    for (uint32_t i = 0; i < dir->peers_count; i++) {
        const struct data_dir_peer *p = &dir->peers[i];
        uint64_t node = number(p->contact.name);
        if (node == r->self)
            continue;
        (void)!roster_put(r, node, &p->contact); /* the address in --peers is the one that counts */
        struct roster_node *n = roster_find(r, node);
        if (n)
            n->votes = p->votes;
    }
}

uint32_t roster_format(const struct roster *r, uint32_t in_use, uint32_t ours)
{
    uint32_t lowest = ours;
    for (uint32_t i = 0; i < r->members.count; i++) {
        uint64_t id = r->members.items[i].id;
        if (id == r->self)
            continue;
        uint32_t format = 0; /* not heard of */
        for (uint32_t j = 0; j < r->count; j++)
            if (r->nodes[j].node == id)
                format = r->nodes[j].format;
        lowest = format < lowest ? format : lowest;
    }
    return lowest > in_use ? lowest : in_use;
}
