#include "bridge/peer_wire.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

#define WIRE_VERSION 1u

/* ---- Names ------------------------------------------------------------------------------------
 */

const char *peer_lane_name(enum peers_lane lane)
{
    return lane == PEERS_CONTROL ? "control" : "bulk";
}

void peer_client_id(enum peers_lane lane, uint64_t node, char out[PEER_CLIENT_ID_BYTES_MAX])
{
    snprintf(out, PEER_CLIENT_ID_BYTES_MAX, PEERS_CLIENT_ID_PREFIX "%s-%016llx",
             peer_lane_name(lane), (unsigned long long)node);
}

static bool hex_digits(chr_slice s, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                                                : 16u;
        if (digit == 16)
            return false;
        value = value << 4 | digit;
    }
    *out = value;
    return s.len == 16;
}

bool peer_client_id_parse(chr_slice id, enum peers_lane *lane, uint64_t *node)
{
    for (unsigned i = 0; i < PEERS_LANES; i++) {
        char prefix[PEER_CLIENT_ID_BYTES_MAX];
        snprintf(prefix, sizeof prefix, PEERS_CLIENT_ID_PREFIX "%s-",
                 peer_lane_name((enum peers_lane)i));
        chr_slice p = chr_slice_cstr(prefix);
        if (!chr_slice_starts(id, p))
            continue;
        *lane = (enum peers_lane)i;
        return hex_digits(chr_slice_of(id.ptr + p.len, id.len - p.len), node) && *node != 0;
    }
    return false;
}

void peer_topic(uint64_t node, enum peers_lane lane, const char *last,
                char out[PEER_TOPIC_BYTES_MAX])
{
    snprintf(out, PEER_TOPIC_BYTES_MAX, "$chronos/peer/%016llx/%s/%.16s", (unsigned long long)node,
             peer_lane_name(lane), last);
}

/* ---- Proof ------------------------------------------------------------------------------------
 */

static bool zero(const uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (at[i])
            return false;
    return true;
}

/* The first eight bytes of each: version, something small, zeros. */
static chr_err check_head(chr_slice bytes, size_t size, uint8_t small_max)
{
    if (bytes.len < 1)
        return CHR_EMALFORMED;
    if (bytes.ptr[0] != WIRE_VERSION)
        return CHR_EVERSION;
    if (bytes.len != size || bytes.ptr[1] > small_max || !zero(bytes.ptr + 2, 6))
        return CHR_EMALFORMED;
    return CHR_OK;
}

void peer_challenge_encode(const uint8_t nonce[PEER_NONCE_BYTES], uint8_t out[PEER_CHALLENGE_BYTES])
{
    memset(out, 0, 8);
    out[0] = WIRE_VERSION;
    memcpy(out + 8, nonce, PEER_NONCE_BYTES);
}

chr_err peer_challenge_decode(chr_slice bytes, uint8_t nonce[PEER_NONCE_BYTES])
{
    chr_err err = check_head(bytes, PEER_CHALLENGE_BYTES, 0);
    if (!err)
        memcpy(nonce, bytes.ptr + 8, PEER_NONCE_BYTES);
    return err;
}

void peer_proof_encode(const struct peer_proof *proof, uint8_t out[PEER_PROOF_BYTES])
{
    memset(out, 0, 8);
    out[0] = WIRE_VERSION;
    out[1] = (uint8_t)proof->lane;
    chr_put_u64le(out + 8, proof->from);
    chr_put_u64le(out + 16, proof->to);
    memcpy(out + 24, proof->nonce, PEER_NONCE_BYTES);
    memcpy(out + 56, proof->mac, PEER_MAC_BYTES);
}

chr_err peer_proof_decode(chr_slice bytes, struct peer_proof *out)
{
    chr_err err = check_head(bytes, PEER_PROOF_BYTES, PEERS_LANES - 1);
    if (err)
        return err;
    out->lane = (enum peers_lane)bytes.ptr[1];
    out->from = chr_get_u64le(bytes.ptr + 8);
    out->to = chr_get_u64le(bytes.ptr + 16);
    memcpy(out->nonce, bytes.ptr + 24, PEER_NONCE_BYTES);
    memcpy(out->mac, bytes.ptr + 56, PEER_MAC_BYTES);
    return CHR_OK;
}

void peer_accepted_encode(const struct peer_terms *terms, const uint8_t mac[PEER_MAC_BYTES],
                          uint8_t out[PEER_ACCEPTED_BYTES])
{
    memset(out, 0, 8);
    out[0] = WIRE_VERSION;
    chr_put_u64le(out + 8, terms->window);
    chr_put_u64le(out + 16, terms->received);
    chr_put_u64le(out + 24, terms->released);
    memcpy(out + 32, mac, PEER_MAC_BYTES);
}

chr_err peer_accepted_decode(chr_slice bytes, struct peer_terms *terms, uint8_t mac[PEER_MAC_BYTES])
{
    chr_err err = check_head(bytes, PEER_ACCEPTED_BYTES, 0);
    if (err)
        return err;
    terms->window = chr_get_u64le(bytes.ptr + 8);
    terms->received = chr_get_u64le(bytes.ptr + 16);
    terms->released = chr_get_u64le(bytes.ptr + 24);
    memcpy(mac, bytes.ptr + 32, PEER_MAC_BYTES);
    /* Counters of what went over a network: half the range is out of reach, and sums are safe. */
    return terms->released <= terms->received && terms->received < UINT64_MAX / 2 ? CHR_OK
                                                                                  : CHR_EMALFORMED;
}

chr_err peer_credit_decode(chr_slice bytes, uint64_t *released)
{
    if (bytes.len != PEER_CREDIT_BYTES)
        return CHR_EMALFORMED;
    *released = chr_get_u64le(bytes.ptr);
    return CHR_OK;
}

/* ---- Frames -----------------------------------------------------------------------------------
 */

void peer_frame_head(const struct peer_frame *frame, uint32_t body_bytes,
                     uint8_t out[PEER_FRAME_HEAD_BYTES])
{
    chr_put_u32le(out, body_bytes);
    chr_put_u32le(out + 4, frame->raw);
    chr_put_u32le(out + 8, frame->stored);
    out[12] = frame->kind;
    out[13] = frame->more;
    out[14] = out[15] = 0;
}

chr_err peer_frame_next(chr_slice *rest, struct peer_frame *out)
{
    if (rest->len < PEER_FRAME_HEAD_BYTES)
        return CHR_EMALFORMED;
    const uint8_t *head = rest->ptr;
    size_t body = chr_get_u32le(head);
    *out = (struct peer_frame){
        .raw = chr_get_u32le(head + 4),
        .stored = chr_get_u32le(head + 8),
        .kind = head[12],
        .more = head[13] == 1,
        .body = chr_slice_of(head + PEER_FRAME_HEAD_BYTES, body),
    };
    if (body > rest->len - PEER_FRAME_HEAD_BYTES || body > out->stored || out->stored > out->raw ||
        out->raw > PEERS_MESSAGE_BYTES_MAX || out->kind == 0 || head[13] > 1 ||
        !zero(head + 14, 2) || (body == 0 && (out->stored || out->raw || out->more)))
        return CHR_EMALFORMED;
    rest->ptr += PEER_FRAME_HEAD_BYTES + body;
    rest->len -= PEER_FRAME_HEAD_BYTES + body;
    return CHR_OK;
}
