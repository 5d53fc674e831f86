/* bridge/peer_codec.c: Hello, RaftMessage and appends, strictly. */
#include "bridge/peer_codec.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"
#include "proto/peer.pb-c.h"

/* ---- Protobuf without malloc ------------------------------------------------------------------
 */

/* What protobuf-c allocates while it unpacks one message. Enough for every field at its longest and
 * some dozens a newer version may have added; a message that wants more is refused. */
struct workspace {
    _Alignas(16) uint8_t bytes[8192];
    size_t used;
};

static void *take(void *arg, size_t size)
{
    struct workspace *w = arg;
    if (size > sizeof w->bytes)
        return NULL;
    size_t room = (size_t)chr_round_up(size, 16);
    if (room > sizeof w->bytes - w->used)
        return NULL;
    void *at = w->bytes + w->used;
    w->used += room;
    return at;
}

static void give_back(void *arg, void *pointer)
{
    (void)arg, (void)pointer; /* all at once, with the workspace */
}

#define ALLOCATOR(workspace)                                                                       \
    {                                                                                              \
        .alloc = take, .free = give_back, .allocator_data = (workspace)                            \
    }

/* Where a packed message of that size goes; NULL: *err says why. */
static uint8_t *place(struct chr_buf *out, size_t size, chr_err *err)
{
    *err = chr_buf_reserve(out, size);
    return *err ? NULL : out->ptr + out->len;
}

/* ---- Hello ------------------------------------------------------------------------------------
 */

chr_err peer_hello_encode(const struct peer_hello *hello, struct chr_buf *out)
{
    uint8_t founders[RAFT_MEMBERS_BYTES_MAX], members[RAFT_MEMBERS_BYTES_MAX];
    Chronos__Peer__Peer peers[RAFT_MEMBERS_MAX], *peers_at[RAFT_MEMBERS_MAX];
    Chronos__Peer__Hello pb;
    chronos__peer__hello__init(&pb);
    pb.node = hello->node;
    pb.incarnation = hello->incarnation;
    pb.boot = hello->boot;
    pb.cluster = hello->cluster;
    if (hello->founders.count)
        pb.founders = (ProtobufCBinaryData){.len = raft_members_encode(&hello->founders, founders),
                                            .data = founders};
    pb.format = hello->format;
    pb.version = (char *)(uintptr_t)hello->version;
    pb.name = (char *)(uintptr_t)hello->name;
    pb.address = (char *)(uintptr_t)hello->address;
    pb.peers_hash = hello->peers_hash;
    pb.wall_ms = hello->wall_ms;
    if (hello->members.count) {
        pb.members = (ProtobufCBinaryData){.len = raft_members_encode(&hello->members, members),
                                           .data = members};
        pb.members_index = hello->members_index;
    }
    for (uint32_t i = 0; i < hello->peers_count; i++) {
        chronos__peer__peer__init(&peers[i]);
        peers[i].name = (char *)(uintptr_t)hello->peers[i].name;
        peers[i].address = (char *)(uintptr_t)hello->peers[i].address;
        peers_at[i] = &peers[i];
    }
    pb.n_peers = hello->peers_count;
    pb.peers = peers_at;
    chr_err err;
    uint8_t *at = place(out, chronos__peer__hello__get_packed_size(&pb), &err);
    if (at)
        out->len += chronos__peer__hello__pack(&pb, at);
    return err;
}

/* It is shown to operators: text, and whole. */
static bool copy_text(const char *text, char *to, size_t size)
{
    chr_slice s = chr_slice_cstr(text);
    if (s.len >= size || !chr_utf8_valid(s))
        return false;
    memset(to, 0, size);
    memcpy(to, s.ptr, s.len);
    return true;
}

static chr_err hello_from(const Chronos__Peer__Hello *pb, struct peer_hello *out)
{
    out->node = pb->node;
    out->incarnation = pb->incarnation;
    out->boot = pb->boot;
    out->cluster = pb->cluster;
    out->format = pb->format;
    out->peers_hash = pb->peers_hash;
    out->wall_ms = pb->wall_ms;
    if (pb->node == 0 || pb->format == 0 || (pb->cluster == 0 && pb->founders.len))
        return CHR_EMALFORMED;
    if (!copy_text(pb->version, out->version, sizeof out->version) ||
        !copy_text(pb->name, out->name, sizeof out->name) ||
        !copy_text(pb->address, out->address, sizeof out->address))
        return CHR_EMALFORMED;
    if (pb->founders.len &&
        raft_members_decode(chr_slice_of(pb->founders.data, pb->founders.len), &out->founders))
        return CHR_EMALFORMED;
    if (pb->members.len) {
        if (raft_members_decode(chr_slice_of(pb->members.data, pb->members.len), &out->members))
            return CHR_EMALFORMED;
        out->members_index = pb->members_index;
    }
    if (pb->n_peers > RAFT_MEMBERS_MAX)
        return CHR_EMALFORMED;
    for (size_t i = 0; i < pb->n_peers; i++) {
        struct peer_contact *p = &out->peers[out->peers_count++];
        if (!copy_text(pb->peers[i]->name, p->name, sizeof p->name) ||
            !copy_text(pb->peers[i]->address, p->address, sizeof p->address))
            return CHR_EMALFORMED;
    }
    return CHR_OK;
}

chr_err peer_hello_decode(chr_slice bytes, struct peer_hello *out)
{
    struct workspace w = {.used = 0};
    ProtobufCAllocator allocator = ALLOCATOR(&w);
    *out = (struct peer_hello){0};
    Chronos__Peer__Hello *pb = chronos__peer__hello__unpack(&allocator, bytes.len, bytes.ptr);
    return pb ? hello_from(pb, out) : CHR_EMALFORMED;
}

/* ---- Raft's messages --------------------------------------------------------------------------
 */

static void raft_to(const struct raft_message *m, Chronos__Peer__RaftMessage *pb)
{
    chronos__peer__raft_message__init(pb);
    pb->format = PEER_RAFT_FORMAT;
    pb->type = m->type;
    pb->group = m->group;
    pb->from = m->from;
    pb->to = m->to;
    pb->from_incarnation = m->from_incarnation;
    pb->term = m->term;
    pb->index = m->index;
    pb->log_term = m->log_term;
    pb->commit = m->commit;
    pb->match = m->match;
    pb->last = m->last;
    pb->accepted = m->accepted;
    pb->hint_index = m->hint_index;
    pb->hint_term = m->hint_term;
    pb->sent_us = m->sent_us;
    pb->read = m->read;
    pb->granted = m->granted;
    pb->forced = m->forced;
}

chr_err peer_raft_encode(const struct raft_message *message, struct chr_buf *out)
{
    Chronos__Peer__RaftMessage pb;
    raft_to(message, &pb);
    chr_err err;
    uint8_t *at = place(out, chronos__peer__raft_message__get_packed_size(&pb), &err);
    if (at)
        out->len += chronos__peer__raft_message__pack(&pb, at);
    return err;
}

static chr_err raft_from(const Chronos__Peer__RaftMessage *pb, struct raft_message *m)
{
    if (pb->format > PEER_FORMAT)
        return CHR_EVERSION;
    if (pb->format == 0 || pb->type > RAFT_MESSAGE_READ_REPLY || pb->from == 0 || pb->to == 0)
        return CHR_EMALFORMED;
    *m = (struct raft_message){
        .type = (enum raft_message_type)pb->type,
        .group = pb->group,
        .from = pb->from,
        .to = pb->to,
        .from_incarnation = pb->from_incarnation,
        .term = pb->term,
        .index = pb->index,
        .log_term = pb->log_term,
        .commit = pb->commit,
        .match = pb->match,
        .last = pb->last,
        .accepted = pb->accepted,
        .hint_index = pb->hint_index,
        .hint_term = pb->hint_term,
        .sent_us = pb->sent_us,
        .read = pb->read,
        .granted = pb->granted,
        .forced = pb->forced,
    };
    return CHR_OK;
}

chr_err peer_raft_decode(chr_slice bytes, struct raft_message *out)
{
    struct workspace w = {.used = 0};
    ProtobufCAllocator allocator = ALLOCATOR(&w);
    *out = (struct raft_message){0};
    Chronos__Peer__RaftMessage *pb =
        chronos__peer__raft_message__unpack(&allocator, bytes.len, bytes.ptr);
    return pb ? raft_from(pb, out) : CHR_EMALFORMED;
}

/* ---- Appends ----------------------------------------------------------------------------------
 */

chr_err peer_append_head(const struct raft_message *message, struct chr_buf *out)
{
    size_t start = out->len;
    chr_err err = chr_buf_reserve(out, 4);
    if (err)
        return err;
    out->len += 4;
    err = peer_raft_encode(message, out);
    if (err)
        out->len = start;
    else
        chr_put_u32le(out->ptr + start, (uint32_t)(out->len - start - 4));
    return err;
}

void peer_entry_head(const struct raft_entry *entry, uint8_t out[PEER_ENTRY_HEAD_BYTES])
{
    memset(out, 0, PEER_ENTRY_HEAD_BYTES);
    chr_put_u64le(out, entry->term);
    chr_put_u64le(out + 8, entry->hlc);
    chr_put_u32le(out + 16, (uint32_t)entry->bytes.len);
    out[20] = (uint8_t)entry->type;
}

static const uint8_t zeros[8];

chr_slice peer_entry_pad(size_t body_bytes)
{
    return chr_slice_of(zeros, (size_t)chr_round_up(body_bytes, 8) - body_bytes);
}

/* Takes one record off the front of rest. */
static chr_err entry_from(chr_slice *rest, struct raft_entry *entry)
{
    if (rest->len < PEER_ENTRY_HEAD_BYTES)
        return CHR_EMALFORMED;
    const uint8_t *head = rest->ptr;
    uint32_t length = chr_get_u32le(head + 16);
    if (length > RAFT_ENTRY_BYTES_MAX || memcmp(head + 21, zeros, 8) != 0 ||
        memcmp(head + 29, zeros, 3) != 0)
        return CHR_EMALFORMED;
    size_t whole = PEER_ENTRY_HEAD_BYTES + (size_t)chr_round_up(length, 8);
    if (rest->len < whole)
        return CHR_EMALFORMED;
    chr_slice body = chr_slice_of(head + PEER_ENTRY_HEAD_BYTES, length);
    if (memcmp(body.ptr + length, zeros, whole - PEER_ENTRY_HEAD_BYTES - length) != 0)
        return CHR_EMALFORMED;
    if (head[20] == 0)
        return CHR_EMALFORMED;
    if (head[20] > RAFT_ENTRY_TYPE_MAX) /* a node writes none that a member does not know */
        return CHR_EVERSION;
    *entry = (struct raft_entry){.term = chr_get_u64le(head),
                                 .hlc = chr_get_u64le(head + 8),
                                 .type = (enum raft_entry_type)head[20],
                                 .bytes = body};
    rest->ptr += whole;
    rest->len -= whole;
    return CHR_OK;
}

chr_err peer_append_decode(chr_slice bytes, struct raft_message *out, struct raft_entry *entries,
                           size_t entries_max, size_t *count)
{
    *count = 0;
    *out = (struct raft_message){0};
    if (bytes.len < 4)
        return CHR_EMALFORMED;
    uint32_t head = chr_get_u32le(bytes.ptr);
    if (head > bytes.len - 4)
        return CHR_EMALFORMED;
    chr_err err = peer_raft_decode(chr_slice_of(bytes.ptr + 4, head), out);
    if (err)
        return err;
    if (out->type != RAFT_MESSAGE_APPEND)
        return CHR_EMALFORMED;
    chr_slice rest = chr_slice_of(bytes.ptr + 4 + head, bytes.len - 4 - head);
    uint64_t term = CHR_MAX(out->log_term, 1);
    chr_hlc hlc = 0;
    size_t n = 0;
    for (; rest.len; n++) {
        if (n == entries_max)
            return CHR_EFULL;
        err = entry_from(&rest, &entries[n]);
        if (err)
            return err;
        if (entries[n].term < term || entries[n].term > out->term || entries[n].hlc <= hlc ||
            out->index > UINT64_MAX - 1 - n)
            return CHR_EMALFORMED;
        entries[n].index = out->index + 1 + n;
        term = entries[n].term;
        hlc = entries[n].hlc;
    }
    *count = n;
    out->entries = n ? entries : NULL;
    out->entries_count = n;
    return CHR_OK;
}
