/* bridge/call_codec.c: Call and CallReply, strictly. */
#include "bridge/call_codec.h"

#include <string.h>

#include "base/utf8.h"
#include "proto/peer.pb-c.h"

/* Beyond it no call or reply makes sense; it bounds what decoding allocates. */
#define CALL_BYTES_MAX 65536u

static bool copy_text(const char *text, char *to, size_t size)
{
    chr_slice s = chr_slice_cstr(text);
    if (s.len >= size || !chr_utf8_valid(s))
        return false;
    memcpy(to, s.ptr, s.len);
    to[s.len] = 0;
    return true;
}

static char *text_of(const char *text)
{
    return (char *)(uintptr_t)text;
}

/* ---- Calls ------------------------------------------------------------------------------------
 */

chr_err call_encode(const struct call *call, struct chr_buf *out)
{
    Chronos__Peer__Call pb;
    chronos__peer__call__init(&pb);
    pb.number = call->number;
    pb.kind = call->kind;
    pb.name = text_of(call->name);
    pb.address = text_of(call->address);
    chr_err err = chr_buf_reserve(out, chronos__peer__call__get_packed_size(&pb));
    if (!err)
        out->len += chronos__peer__call__pack(&pb, out->ptr + out->len);
    return err;
}

chr_err call_decode(chr_slice bytes, struct call *out)
{
    memset(out, 0, sizeof *out);
    if (bytes.len > CALL_BYTES_MAX)
        return CHR_EMALFORMED;
    Chronos__Peer__Call *pb = chronos__peer__call__unpack(NULL, bytes.len, bytes.ptr);
    if (!pb)
        return CHR_EMALFORMED;
    out->number = pb->number;
    out->kind = pb->kind;
    bool ok = pb->number && copy_text(pb->name, out->name, sizeof out->name) &&
              copy_text(pb->address, out->address, sizeof out->address);
    chronos__peer__call__free_unpacked(pb, NULL);
    return ok ? CHR_OK : CHR_EMALFORMED;
}

/* ---- Replies ----------------------------------------------------------------------------------
 */

static void node_to(const struct call_node *n, Chronos__Peer__NodeState *pb)
{
    chronos__peer__node_state__init(pb);
    pb->node = n->node;
    pb->name = text_of(n->name);
    pb->address = text_of(n->address);
    pb->version = text_of(n->version);
    pb->role = (uint32_t)n->role;
    pb->voter = n->voter;
    pb->member = n->member;
    pb->up = n->up;
    pb->term = n->term;
    pb->progress = n->progress;
    pb->commit_index = n->commit_index;
    pb->match = n->match;
    pb->lag = n->lag;
    pb->heard = n->heard;
    pb->heard_ms = n->heard_ms;
    pb->clock = n->clock;
    pb->skew_ms = n->skew_ms;
}

static bool node_from(const Chronos__Peer__NodeState *pb, struct call_node *n)
{
    *n = (struct call_node){.node = pb->node,
                            .role = pb->role <= CALL_ROLE_LEARNER ? (enum call_role)pb->role
                                                                  : CALL_ROLE_NONE,
                            .voter = pb->voter,
                            .member = pb->member,
                            .up = pb->up,
                            .term = pb->term,
                            .progress = pb->progress,
                            .commit_index = pb->commit_index,
                            .match = pb->match,
                            .lag = pb->lag,
                            .heard = pb->heard,
                            .heard_ms = pb->heard_ms,
                            .clock = pb->clock,
                            .skew_ms = pb->skew_ms};
    return copy_text(pb->name, n->name, sizeof n->name) &&
           copy_text(pb->address, n->address, sizeof n->address) &&
           copy_text(pb->version, n->version, sizeof n->version);
}

chr_err call_reply_encode(const struct call_reply *reply, struct chr_buf *out)
{
    Chronos__Peer__NodeState nodes[CALL_NODES_MAX], *nodes_at[CALL_NODES_MAX];
    Chronos__Peer__CallReply pb;
    chronos__peer__call_reply__init(&pb);
    pb.number = reply->number;
    pb.status = (uint32_t)reply->status;
    pb.error = reply->err;
    pb.text = text_of(reply->text);
    for (uint32_t i = 0; i < reply->nodes_count; i++) {
        node_to(&reply->nodes[i], &nodes[i]);
        nodes_at[i] = &nodes[i];
    }
    pb.n_nodes = reply->nodes_count;
    pb.nodes = nodes_at;
    chr_err err = chr_buf_reserve(out, chronos__peer__call_reply__get_packed_size(&pb));
    if (!err)
        out->len += chronos__peer__call_reply__pack(&pb, out->ptr + out->len);
    return err;
}

static bool reply_from(const Chronos__Peer__CallReply *pb, struct call_reply *out)
{
    if (!pb->number || pb->status > CALL_ELSEWHERE || pb->n_nodes > CALL_NODES_MAX ||
        !copy_text(pb->text, out->text, sizeof out->text))
        return false;
    out->number = pb->number;
    out->status = (enum call_status)pb->status;
    out->err = out->status == CALL_FAILED && pb->error >= 0 ? CHR_EPROTO : pb->error;
    for (size_t i = 0; i < pb->n_nodes; i++)
        if (!node_from(pb->nodes[i], &out->nodes[out->nodes_count++]))
            return false;
    return true;
}

chr_err call_reply_decode(chr_slice bytes, struct call_reply *out)
{
    memset(out, 0, sizeof *out);
    if (bytes.len > CALL_BYTES_MAX)
        return CHR_EMALFORMED;
    Chronos__Peer__CallReply *pb = chronos__peer__call_reply__unpack(NULL, bytes.len, bytes.ptr);
    if (!pb)
        return CHR_EMALFORMED;
    bool ok = reply_from(pb, out);
    chronos__peer__call_reply__free_unpacked(pb, NULL);
    return ok ? CHR_OK : CHR_EMALFORMED;
}
