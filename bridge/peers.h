/* bridge/peers.h: the lanes between the nodes of a cluster (R17).
 *
 *     node A                                                node B
 *     peers_send ─▶ window ─▶ libmosquitto ══ MQTT port ══▶ loop ─CONNECT, proof─▶ peers_adopt
 *       (any thread)           (lane thread)                                        │
 *     received() ◀──────────────────────────────────────────────────────── lane thread of B
 *
 * Each node keeps two connections to each peer's own MQTT port: CONTROL for what is small and must
 * not wait (votes, heartbeats, acknowledgements), BULK for entries, snapshots and deliveries. Each
 * lane has a thread of its own, which serves what goes out on it (libmosquitto, QoS 0) and what
 * comes in (connections that proved to be a peer's and were taken from a loop by peers_adopt).
 *
 * Nothing is promised: a message may be lost when a connection ends; it comes at most once and, on
 * one lane of one connection, in order. Who needs more repeats (Raft does) or numbers (R18).
 *
 *   T1  What has been sent to a peer and not yet released by it is at most window_bytes for each
 *       lane, libmosquitto's queue and kernel buffers included; then peers_send says CHR_EAGAIN.
 *       What was released is told on the way back of the connection it came on, which carries
 *       nothing else: no lane waits for the other's.
 *   T2  What has been received from a peer and not yet released is bounded by the receiver's own
 *       window, over all connections of that peer and lane: a peer that sends more is cut off.
 *       (The receiver names its window when it accepts; the smaller of both counts for T1.)
 *   T3  A message is at most PEERS_MESSAGE_BYTES_MAX; on the wire it goes in MQTT packets of at
 *       most 256 KiB, so that none holds up another lane, and a lane's own pings, for long.
 *   T4  Whoever is not a peer, or does not know the cluster secret, gets nothing in and nothing
 *       out; the attempt is counted, logged and its connection ended.
 *
 * Proof: both sides show that they know the secret, by HMAC-SHA-256 over both sides' nonces, node
 * numbers, lane and direction; the secret itself is never sent. Without a secret only nodes whose
 * addresses are all loopback may form a cluster.
 *
 * What follows the proof is neither encrypted nor authenticated packet by packet but by TLS, when
 * peers are reached over it: across a network that others can write to it is needed.
 *
 * Topics: $chronos/peer/<node number in hex>/<lane>/… ; docs/formats.md has the layouts. */
#ifndef CHR_BRIDGE_PEERS_H
#define CHR_BRIDGE_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/slice.h"

#define PEERS_MAX               16u
#define PEERS_MESSAGE_BYTES_MAX ((size_t)9 << 20) /* the largest publish and what is around it */

enum peers_lane { PEERS_CONTROL, PEERS_BULK, PEERS_LANES };

/* What a message is; the first byte of each. Stored numbers: they go over the wire. */
enum peers_kind {
    PEERS_HELLO = 1,          /* CONTROL: who we are, what we hold (R20); bridge/peer_codec.h */
    PEERS_RAFT = 2,           /* CONTROL: a raft_message without entries */
    PEERS_APPEND = 3,         /* BULK: a raft_message with entries */
    PEERS_FORWARD = 4,        /* BULK: an entry for the leader to propose (R18) */
    PEERS_FORWARDED = 5,      /* CONTROL: up to which one it was taken */
    PEERS_DELIVER = 6,        /* BULK: a message for the subscribers there (R18) */
    PEERS_DELIVERED = 7,      /* CONTROL: up to which one it was taken */
    PEERS_SNAPSHOT = 8,       /* BULK: a part of one */
    PEERS_SNAPSHOT_REPLY = 9, /* CONTROL */
    PEERS_CALL = 10,          /* CONTROL: an operator's request to the leader */
    PEERS_CALL_REPLY = 11,
    PEERS_CONNECTED = 12, /* CONTROL: a client has connected there (broker/session/elsewhere.h) */
    PEERS_KINDS = 13
};

/* Whose BULK messages are compressed by LZ4, if that makes them smaller by a tenth at least: on one
 * machine bytes are cheaper than the CPU it takes (bench/bench_peer_lane.c). */
enum peers_compress { PEERS_COMPRESS_REMOTE, PEERS_COMPRESS_ALWAYS, PEERS_COMPRESS_NEVER };

struct peers; /* opaque */

struct peers_peer {
    uint64_t node;    /* number; not 0, not ours */
    const char *host; /* borrowed until the call returns */
    uint16_t port;
};

/* One message that came in. Owned by the receiver until peers_release. */
struct peers_message {
    uint64_t from;
    enum peers_lane lane;
    uint8_t kind;               /* not 0; perhaps one this version does not know */
    chr_slice bytes;            /* after the kind */
    struct peers_message *next; /* the receiver's, for a queue */
    size_t cost; /* what it counts for in the window; peers' own: peers_release gives it back */
};

struct peers_options {
    uint64_t self;    /* our node number */
    chr_slice secret; /* copied; empty: none (loopback only, checked by the caller) */
    /* TLS to peers, whose certificates must be of one of the authorities in cafile and bear the
     * host names they are reached by; certfile and keyfile are shown to those that ask (mTLS).
     * Copied; NULL: plain. */
    const char *cafile, *certfile, *keyfile;
    const struct peers_peer *peers; /* copied */
    uint32_t peers_count;
    /* Of one peer on one lane, in each direction; 64 KiB to 4 GiB; 0: 16 MiB. A message counts for
     * its bytes and 128 more; one that is larger than the window can't be sent (CHR_ETOOBIG). */
    uint64_t window_bytes;
    enum peers_compress compress;  /* 0: to peers that are not at a loopback address */
    const struct chr_clock *clock; /* borrowed until peers_free; NULL: the system's */
    void *ctx;
    /* All three are needed. */
    /* Lane thread. Must not block; may call peers_send and peers_release. */
    void (*received)(void *ctx, struct peers_message *message);
    /* Lane thread. Our connection to that peer is up, proved in both directions (or no more): what
     * was sent on it before may be lost. */
    void (*changed)(void *ctx, uint64_t node, enum peers_lane lane, bool up);
    /* Lane thread. After CHR_EAGAIN for a full window: there is room again. */
    void (*writable)(void *ctx, uint64_t node, enum peers_lane lane);
};

/* Starts the two threads (and another for as long as a host name is being looked up); connections
 * are tried at once and again with back-off (50 ms doubling to 2 s, with jitter). CHR_ENOMEM;
 * CHR_EINVAL: msg says what of the options. *out is set before the first callback. */
CHR_MUST_USE chr_err peers_start(const struct peers_options *options, struct peers **out,
                                 struct chr_errmsg *msg);
/* No callback after it returns; peers_send then says CHR_ECLOSED. Messages still owned by the
 * receiver stay valid until peers_release, which may come later, before peers_free. */
void peers_stop(struct peers *peers);
void peers_free(struct peers *peers); /* accepts NULL */

/* Any thread. Adds a peer, or changes its address (then reconnects). CHR_EFULL; CHR_EINVAL: not a
 * number, host or port a peer can have; CHR_ENOMEM. */
CHR_MUST_USE chr_err peers_set(struct peers *peers, const struct peers_peer *peer);
/* Any thread. Its connections end, in both directions, soon after. */
void peers_remove(struct peers *peers, uint64_t node);

/* Any thread. Copies all parts, one after the other, as one message.
 *   CHR_ENOTFOUND  no such peer
 *   CHR_ECLOSED    not connected (changed() tells when it is)
 *   CHR_EAGAIN     the window is full; nothing was sent; writable() follows
 *   CHR_ETOOBIG    above PEERS_MESSAGE_BYTES_MAX or the window
 *   CHR_ENOMEM
 * On BULK perhaps compressed: enum peers_compress. */
CHR_MUST_USE chr_err peers_send(struct peers *peers, uint64_t node, enum peers_lane lane,
                                uint8_t kind, const chr_slice *parts, uint32_t parts_count);
/* Any thread. Gives the message back; its room in the sender's window follows (T1). */
void peers_release(struct peers *peers, struct peers_message *message);
bool peers_up(const struct peers *peers, uint64_t node, enum peers_lane lane);

/* -- The accepting side -------------------------------------------------------------------------*/

/* What lies between an adopted connection and its socket: TLS. Lane thread only, once adopted. */
struct peers_stream {
    void *ctx; /* NULL: nothing does */
    /* As recv and send that do not wait: 0: the other end is gone; -1: errno, EAGAIN: later. */
    ssize_t (*receive)(void *ctx, uint8_t *bytes, size_t n);
    ssize_t (*send)(void *ctx, const uint8_t *bytes, size_t n);
    void (*free)(void *ctx); /* the socket is closed afterwards */
};

/* A client that connected to an MQTT listener and wants to be a peer's lane: its client id begins
 * with PEERS_CLIENT_ID_PREFIX. Any loop thread. Takes over the socket (the loop forgets it without
 * closing) and everything it has received so far, from its CONNECT packet on, which is not answered
 * yet; proof and everything else happen on the lane's thread. bytes are copied; stream (NULL: none)
 * is, too, and its ctx is taken. A connection that
 * does not prove itself within 5 s is closed (T4). Without a secret only loopback addresses are
 * let in. */
#define PEERS_CLIENT_ID_PREFIX "$chronos-peer-"
void peers_adopt(struct peers *peers, int fd, chr_slice bytes, const struct peers_stream *stream);
/* Counts a client that published or subscribed under $chronos/peer, or was refused as a peer. */
void peers_count_stranger(struct peers *peers);

struct peers_lane_stats {
    uint64_t messages_sent, bytes_sent, messages_received, bytes_received; /* bytes: uncompressed */
    uint64_t wire_bytes_sent, connects, full;                              /* full: CHR_EAGAIN */
    uint64_t outstanding_bytes;
    /* On this connection, as its window counts them: given to it, and taken by the peer. */
    uint64_t cost_sent, cost_taken;
    bool up;
};
/* CHR_ENOTFOUND. Any thread. */
chr_err peers_lane_stats(const struct peers *peers, uint64_t node, enum peers_lane lane,
                         struct peers_lane_stats *out);
uint64_t peers_strangers(const struct peers *peers);

#endif
