/* bridge/peer_wire.h: what goes over a lane's connection, as bytes: names, the proof, frames
 * (docs/formats.md, "Between nodes"). Pure; decoders take anything.
 *
 *     A, an MQTT 3.1.1 client (libmosquitto)          B, which accepted
 *     CONNECT $chronos-peer-<lane>-<A>          ─▶
 *                                               ◀─    CONNACK
 *     SUBSCRIBE $chronos/peer/<A>/<lane>/#      ─▶
 *                                               ◀─    SUBACK, …/challenge: B's nonce
 *     $chronos/peer/<B>/<lane>/proof: A's nonce, MAC  ─▶
 *                                               ◀─    …/accepted: window, account, MAC
 *     $chronos/peer/<B>/<lane>/m: frames        ─▶
 *                                               ◀─    …/credit: what was released
 *
 * A shows first that it knows the secret: whoever only connects is given nothing that a guess at
 * the secret could be tried on. The MACs are over both nonces, both nodes, the lane and the
 * direction, so that none is good for anything else. */
#ifndef CHR_BRIDGE_PEER_WIRE_H
#define CHR_BRIDGE_PEER_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "bridge/peers.h"

/* ---- Names ------------------------------------------------------------------------------------
 */

#define PEER_TOPIC_BYTES_MAX     64u
#define PEER_CLIENT_ID_BYTES_MAX 48u

const char *peer_lane_name(enum peers_lane lane);
/* Zero-terminated. */
void peer_client_id(enum peers_lane lane, uint64_t node, char out[PEER_CLIENT_ID_BYTES_MAX]);
/* False: not one of peer_client_id's. */
bool peer_client_id_parse(chr_slice id, enum peers_lane *lane, uint64_t *node);
/* $chronos/peer/<node>/<lane>/<last>; zero-terminated, last at most 16 bytes. */
void peer_topic(uint64_t node, enum peers_lane lane, const char *last,
                char out[PEER_TOPIC_BYTES_MAX]);

/* ---- Proof ------------------------------------------------------------------------------------
 */

#define PEER_NONCE_BYTES     32u
#define PEER_MAC_BYTES       32u
#define PEER_CHALLENGE_BYTES 40u
#define PEER_PROOF_BYTES     88u
#define PEER_ACCEPTED_BYTES  64u
#define PEER_CREDIT_BYTES    8u

/* What both sides know when one of them proves itself. */
struct peer_transcript {
    uint64_t connecting, accepting; /* nodes */
    enum peers_lane lane;
    uint8_t connecting_nonce[PEER_NONCE_BYTES];
    uint8_t accepting_nonce[PEER_NONCE_BYTES];
};

/* B's terms: what may be outstanding, and what it already is. Both counters are of costs, and
 * belong to (peer, lane) for as long as B's process runs: what an earlier connection brought and B
 * has not released yet counts against this one, too. */
struct peer_terms {
    uint64_t window;
    uint64_t received, released; /* released <= received */
};

/* HMAC-SHA-256. terms: NULL for the connecting side's. False: the library failed. */
CHR_MUST_USE bool peer_mac(chr_slice secret, const struct peer_transcript *transcript,
                           const struct peer_terms *terms, uint8_t out[PEER_MAC_BYTES]);
/* In constant time. */
CHR_MUST_USE bool peer_mac_right(chr_slice secret, const struct peer_transcript *transcript,
                                 const struct peer_terms *terms, const uint8_t mac[PEER_MAC_BYTES]);

struct peer_proof {
    uint64_t from, to;
    enum peers_lane lane;
    uint8_t nonce[PEER_NONCE_BYTES];
    uint8_t mac[PEER_MAC_BYTES];
};

void peer_challenge_encode(const uint8_t nonce[PEER_NONCE_BYTES],
                           uint8_t out[PEER_CHALLENGE_BYTES]);
CHR_MUST_USE chr_err peer_challenge_decode(chr_slice bytes, uint8_t nonce[PEER_NONCE_BYTES]);
void peer_proof_encode(const struct peer_proof *proof, uint8_t out[PEER_PROOF_BYTES]);
CHR_MUST_USE chr_err peer_proof_decode(chr_slice bytes, struct peer_proof *out);
void peer_accepted_encode(const struct peer_terms *terms, const uint8_t mac[PEER_MAC_BYTES],
                          uint8_t out[PEER_ACCEPTED_BYTES]);
CHR_MUST_USE chr_err peer_accepted_decode(chr_slice bytes, struct peer_terms *terms,
                                          uint8_t mac[PEER_MAC_BYTES]);
CHR_MUST_USE chr_err peer_credit_decode(chr_slice bytes, uint64_t *released);

/* ---- Frames -----------------------------------------------------------------------------------
 *
 * The payload of …/m is frames one after the other: a whole message each, or the first part of one
 * (then the frame is the packet's last) or a later part (then it is the packet's first).
 *
 *     offset  bytes
 *     0       4      length of the body in this packet
 *     4       4      raw: length of the message
 *     8       4      stored: of all its bodies; less than raw: they are one LZ4 block
 *     12      1      kind, not 0
 *     13      1      1: a later part of the message begun before; else 0
 *     14      2      0
 *     16      …      body */
#define PEER_FRAME_HEAD_BYTES 16u
/* T3: a packet with its topic and header stays below 256 KiB. */
#define PEER_PACKET_BYTES_MAX  ((size_t)256 << 10)
#define PEER_PAYLOAD_BYTES_MAX (PEER_PACKET_BYTES_MAX - 128)

/* A message counts for its bytes and for what keeping it costs, or empty ones were free. */
#define PEER_COST_EXTRA 128u
CHR_INLINE uint64_t peer_cost(size_t raw)
{
    return (uint64_t)raw + PEER_COST_EXTRA;
}

struct peer_frame {
    uint32_t raw, stored;
    uint8_t kind;
    bool more;      /* a later part */
    chr_slice body; /* when decoded */
};

void peer_frame_head(const struct peer_frame *frame, uint32_t body_bytes,
                     uint8_t out[PEER_FRAME_HEAD_BYTES]);
/* Takes the first frame off *rest, which is not empty. CHR_EMALFORMED. */
CHR_MUST_USE chr_err peer_frame_next(chr_slice *rest, struct peer_frame *out);

#endif
