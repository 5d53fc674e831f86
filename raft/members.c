#include "raft/members.h"

#include <string.h>

#include "base/bytes.h"

#define VERSION 1u

const struct raft_member *raft_members_find(const struct raft_members *members, uint64_t id)
{
    for (uint32_t i = 0; i < members->count; i++)
        if (members->items[i].id == id)
            return &members->items[i];
    return NULL;
}

uint32_t raft_members_voters(const struct raft_members *members)
{
    uint32_t voters = 0;
    for (uint32_t i = 0; i < members->count; i++)
        voters += members->items[i].voter;
    return voters;
}

chr_err raft_members_add(struct raft_members *members, struct raft_member member)
{
    if (member.id == 0)
        return CHR_EINVAL;
    if (raft_members_find(members, member.id))
        return CHR_EEXIST;
    if (members->count == RAFT_MEMBERS_MAX ||
        (member.voter && raft_members_voters(members) == RAFT_VOTERS_MAX))
        return CHR_EFULL;
    uint32_t at = members->count;
    for (; at > 0 && members->items[at - 1].id > member.id; at--)
        members->items[at] = members->items[at - 1];
    members->items[at] = member;
    members->count++;
    return CHR_OK;
}

chr_err raft_members_remove(struct raft_members *members, uint64_t id)
{
    const struct raft_member *found = raft_members_find(members, id);
    if (!found)
        return CHR_ENOTFOUND;
    uint32_t at = (uint32_t)(found - members->items);
    members->count--;
    for (; at < members->count; at++)
        members->items[at] = members->items[at + 1];
    return CHR_OK;
}

size_t raft_members_encode(const struct raft_members *members, uint8_t out[RAFT_MEMBERS_BYTES_MAX])
{
    memset(out, 0, RAFT_MEMBERS_BYTES_MAX);
    chr_put_u32le(out, VERSION);
    chr_put_u32le(out + 4, members->count);
    uint8_t *p = out + 8;
    for (uint32_t i = 0; i < members->count; i++, p += 24) {
        chr_put_u64le(p, members->items[i].id);
        chr_put_u64le(p + 8, members->items[i].incarnation);
        p[16] = members->items[i].voter;
    }
    return (size_t)(p - out);
}

chr_err raft_members_decode(chr_slice bytes, struct raft_members *out)
{
    *out = (struct raft_members){0};
    if (bytes.len < 8)
        return CHR_EMALFORMED;
    if (chr_get_u32le(bytes.ptr) != VERSION)
        return CHR_EVERSION;
    uint32_t count = chr_get_u32le(bytes.ptr + 4);
    if (count > RAFT_MEMBERS_MAX || bytes.len != 8 + (size_t)count * 24)
        return CHR_EMALFORMED;
    const uint8_t *p = bytes.ptr + 8;
    for (uint32_t i = 0; i < count; i++, p += 24) {
        static const uint8_t zeros[7];
        struct raft_member m = {chr_get_u64le(p), chr_get_u64le(p + 8), p[16] == 1};
        if (p[16] > 1 || memcmp(p + 17, zeros, sizeof zeros) != 0 || m.id == 0 ||
            (i > 0 && m.id <= out->items[i - 1].id))
            return CHR_EMALFORMED;
        out->items[i] = m;
        out->count++;
    }
    uint32_t voters = raft_members_voters(out);
    return voters == 0 || voters > RAFT_VOTERS_MAX ? CHR_EMALFORMED : CHR_OK;
}
