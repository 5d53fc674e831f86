/* tests/fuzz/fuzz_peer.c: what a peer, or whoever says it is one, may send: every decoder of
 * bridge/peer_codec.h, peer_wire.h, deliver_codec.h and call_codec.h.
 *
 * The first byte says which. What decodes can be encoded again, and then says the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bridge/call_codec.h"
#include "bridge/deliver_codec.h"
#include "bridge/peer_codec.h"
#include "bridge/peer_wire.h"

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void hello(chr_slice bytes)
{
    struct peer_hello h, back;
    struct chr_buf b, again;
    if (peer_hello_decode(bytes, &h))
        return;
    chr_buf_init(&b, 4096);
    chr_buf_init(&again, 4096);
    REQUIRE(peer_hello_encode(&h, &b) == CHR_OK);
    REQUIRE(peer_hello_decode(chr_buf_slice(&b), &back) == CHR_OK);
    REQUIRE(peer_hello_encode(&back, &again) == CHR_OK);
    REQUIRE(chr_slice_eq(chr_buf_slice(&b), chr_buf_slice(&again)));
    chr_buf_free(&b);
    chr_buf_free(&again);
}

static bool same(const struct raft_message *a, const struct raft_message *b)
{
    return a->type == b->type && a->group == b->group && a->from == b->from && a->to == b->to &&
           a->from_incarnation == b->from_incarnation && a->term == b->term &&
           a->index == b->index && a->log_term == b->log_term && a->commit == b->commit &&
           a->match == b->match && a->last == b->last && a->accepted == b->accepted &&
           a->hint_index == b->hint_index && a->hint_term == b->hint_term &&
           a->sent_us == b->sent_us && a->read == b->read && a->granted == b->granted &&
           a->forced == b->forced;
}

static void raft(chr_slice bytes)
{
    struct raft_message m, again;
    struct chr_buf b;
    if (peer_raft_decode(bytes, &m))
        return;
    chr_buf_init(&b, 4096);
    REQUIRE(m.entries == NULL && m.entries_count == 0);
    REQUIRE(peer_raft_encode(&m, &b) == CHR_OK);
    REQUIRE(peer_raft_decode(chr_buf_slice(&b), &again) == CHR_OK);
    REQUIRE(same(&m, &again));
    chr_buf_free(&b);
}

static void append(chr_slice bytes)
{
    enum { MOST = 64 };
    struct raft_message m, again;
    struct raft_entry entries[MOST], others[MOST];
    struct chr_buf b;
    size_t count, n;
    if (peer_append_decode(bytes, &m, entries, MOST, &count))
        return;
    chr_buf_init(&b, bytes.len + 4096);
    REQUIRE(count <= MOST && m.entries_count == count);
    REQUIRE(peer_append_head(&m, &b) == CHR_OK);
    for (size_t i = 0; i < count; i++) {
        uint8_t head[PEER_ENTRY_HEAD_BYTES];
        REQUIRE(entries[i].index == m.index + 1 + i);
        peer_entry_head(&entries[i], head);
        chr_buf_add(&b, head, sizeof head);
        chr_buf_add_slice(&b, entries[i].bytes);
        chr_buf_add_slice(&b, peer_entry_pad(entries[i].bytes.len));
    }
    REQUIRE(!b.failed);
    REQUIRE(peer_append_decode(chr_buf_slice(&b), &again, others, MOST, &n) == CHR_OK);
    REQUIRE(n == count && same(&m, &again));
    for (size_t i = 0; i < n; i++)
        REQUIRE(entries[i].term == others[i].term && entries[i].hlc == others[i].hlc &&
                entries[i].type == others[i].type &&
                chr_slice_eq(entries[i].bytes, others[i].bytes));
    chr_buf_free(&b);
}

static void proof(chr_slice bytes)
{
    struct peer_proof p;
    struct peer_terms terms;
    uint8_t nonce[PEER_NONCE_BYTES], mac[PEER_MAC_BYTES], out[PEER_PROOF_BYTES];
    uint64_t released;
    if (peer_challenge_decode(bytes, nonce) == CHR_OK) {
        peer_challenge_encode(nonce, out);
        REQUIRE(bytes.len == PEER_CHALLENGE_BYTES && memcmp(out, bytes.ptr, bytes.len) == 0);
    }
    if (peer_proof_decode(bytes, &p) == CHR_OK) {
        peer_proof_encode(&p, out);
        REQUIRE(bytes.len == PEER_PROOF_BYTES && memcmp(out, bytes.ptr, bytes.len) == 0);
    }
    if (peer_accepted_decode(bytes, &terms, mac) == CHR_OK) {
        peer_accepted_encode(&terms, mac, out);
        REQUIRE(bytes.len == PEER_ACCEPTED_BYTES && memcmp(out, bytes.ptr, bytes.len) == 0);
    }
    REQUIRE((peer_credit_decode(bytes, &released) == CHR_OK) == (bytes.len == PEER_CREDIT_BYTES));
}

static void frames(chr_slice bytes)
{
    struct peer_frame f;
    chr_slice rest = bytes;
    while (rest.len && peer_frame_next(&rest, &f) == CHR_OK) {
        uint8_t head[PEER_FRAME_HEAD_BYTES];
        REQUIRE(f.body.len <= f.stored && f.stored <= f.raw && f.raw <= PEERS_MESSAGE_BYTES_MAX);
        REQUIRE(rest.ptr == f.body.ptr + f.body.len &&
                rest.ptr + rest.len == bytes.ptr + bytes.len);
        peer_frame_head(&f, (uint32_t)f.body.len, head);
        REQUIRE(memcmp(head, f.body.ptr - sizeof head, sizeof head) == 0);
    }
}

static void name(chr_slice bytes)
{
    enum peers_lane lane;
    uint64_t node;
    char id[PEER_CLIENT_ID_BYTES_MAX];
    if (!peer_client_id_parse(bytes, &lane, &node))
        return;
    peer_client_id(lane, node, id);
    REQUIRE(chr_slice_eq(bytes, chr_slice_cstr(id)));
}

static void deliver_messages(chr_slice bytes)
{
    struct deliver_head head;
    struct deliver_message m;
    struct chr_buf b;
    chr_slice rest = bytes;
    if (deliver_head_take(&rest, &head))
        return;
    chr_buf_init(&b, bytes.len + 64);
    deliver_head_put(&b, &head);
    while (rest.len) {
        chr_slice before = rest;
        uint64_t groups[DELIVER_GROUPS_MAX];
        if (deliver_message_take(&rest, &m))
            break;
        for (uint32_t i = 0; i < m.groups_count; i++)
            groups[i] = deliver_group(&m, i);
        size_t at = b.len;
        deliver_message_put(&b, &m, groups);
        REQUIRE(!b.failed && b.len - at == before.len - rest.len);
        REQUIRE(memcmp(b.ptr + at, before.ptr, b.len - at) == 0);
    }
    chr_buf_free(&b);
}

static void deliver_filters(chr_slice bytes)
{
    struct deliver_filters head;
    struct deliver_filter f;
    struct chr_buf b;
    chr_slice rest = bytes;
    if (deliver_filters_take(&rest, &head))
        return;
    chr_buf_init(&b, bytes.len + 64);
    deliver_filters_put(&b, &head);
    while (rest.len && deliver_filter_take(&rest, &f) == CHR_OK)
        deliver_filter_put(&b, &f);
    REQUIRE(!b.failed && b.len <= bytes.len && memcmp(b.ptr, bytes.ptr, b.len) == 0);
    chr_buf_free(&b);
}

static void deliver_acknowledged(chr_slice bytes)
{
    struct delivered d;
    uint8_t out[DELIVERED_BYTES];
    if (delivered_take(bytes, &d))
        return;
    delivered_put(&d, out);
    REQUIRE(memcmp(out, bytes.ptr, sizeof out) == 0);
}

static void call(chr_slice bytes)
{
    struct call c, back;
    struct chr_buf b;
    if (call_decode(bytes, &c))
        return;
    chr_buf_init(&b, 4096);
    REQUIRE(call_encode(&c, &b) == CHR_OK);
    REQUIRE(call_decode(chr_buf_slice(&b), &back) == CHR_OK);
    REQUIRE(memcmp(&c, &back, sizeof c) == 0);
    chr_buf_free(&b);
}

static void call_reply(chr_slice bytes)
{
    static struct call_reply r, back;
    struct chr_buf b, again;
    if (call_reply_decode(bytes, &r))
        return;
    chr_buf_init(&b, 65536);
    chr_buf_init(&again, 65536);
    REQUIRE(call_reply_encode(&r, &b) == CHR_OK);
    REQUIRE(call_reply_decode(chr_buf_slice(&b), &back) == CHR_OK);
    REQUIRE(call_reply_encode(&back, &again) == CHR_OK);
    REQUIRE(chr_slice_eq(chr_buf_slice(&b), chr_buf_slice(&again)));
    chr_buf_free(&b);
    chr_buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const decoders[])(chr_slice) = {hello,
                                                  raft,
                                                  append,
                                                  proof,
                                                  frames,
                                                  name,
                                                  deliver_messages,
                                                  deliver_filters,
                                                  deliver_acknowledged,
                                                  call,
                                                  call_reply};
    if (size == 0)
        return 0;
    decoders[data[0] % CHR_COUNT_OF(decoders)](chr_slice_of(data + 1, size - 1));
    return 0;
}
