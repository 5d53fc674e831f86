/* bridge/peer_proof.c: the MACs by which two nodes show each other that they know the secret. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "base/bytes.h"
#include "bridge/peer_wire.h"

/* Begins what is authenticated: no other use of the secret begins so. */
#define LABEL       "chronos peer 1 "
#define LABEL_BYTES 16u

/* label, side, lane, zeros (6), nodes, nonces, terms */
#define TRANSCRIPT_BYTES (LABEL_BYTES + 8u + 16u + 2u * PEER_NONCE_BYTES + 24u)

_Static_assert(sizeof LABEL == LABEL_BYTES, "the label fills its place, zero included");

bool peer_mac(chr_slice secret, const struct peer_transcript *t, const struct peer_terms *terms,
              uint8_t out[PEER_MAC_BYTES])
{
    uint8_t bytes[TRANSCRIPT_BYTES] = {0};
    uint8_t *at = bytes;
    memcpy(at, LABEL, LABEL_BYTES);
    at += LABEL_BYTES;
    at[0] = terms ? 2 : 1;
    at[1] = (uint8_t)t->lane;
    chr_put_u64le(at + 8, t->connecting);
    chr_put_u64le(at + 16, t->accepting);
    at += 24;
    memcpy(at, t->connecting_nonce, PEER_NONCE_BYTES);
    memcpy(at + PEER_NONCE_BYTES, t->accepting_nonce, PEER_NONCE_BYTES);
    at += 2 * PEER_NONCE_BYTES;
    if (terms) {
        chr_put_u64le(at, terms->window);
        chr_put_u64le(at + 8, terms->received);
        chr_put_u64le(at + 16, terms->released);
    }
    unsigned len = 0;
    const void *key = secret.len ? (const void *)secret.ptr : "";
    return HMAC(EVP_sha256(), key, (int)secret.len, bytes, sizeof bytes, out, &len) &&
           len == PEER_MAC_BYTES;
}

bool peer_mac_right(chr_slice secret, const struct peer_transcript *t,
                    const struct peer_terms *terms, const uint8_t mac[PEER_MAC_BYTES])
{
    uint8_t right[PEER_MAC_BYTES];
    return peer_mac(secret, t, terms, right) && CRYPTO_memcmp(right, mac, PEER_MAC_BYTES) == 0;
}
