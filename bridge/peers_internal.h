/* bridge/peers_internal.h: how the parts of bridge/peers.h hang together. For bridge/ alone.
 *
 *     struct peers ─┬─ slots[PEERS_MAX]: a peer ── links[lane]: our connection to it, its queue
 *                   │                          └─ accounts[lane]: what came in from it
 *                   └─ lanes[2]: a thread ── inbounds: connections taken over by peers_adopt
 *
 *   L1  peers->lock guards the slots' addresses and states, queues and windows of links, and the
 *       letters of lanes. It is held for a few loads and stores, never over malloc, a copy of a
 *       message, a system call, libmosquitto or a callback. It is the only lock.
 *   L2  Everything else of a link or an inbound belongs to its lane's thread.
 *   L3  A link's queue is empty unless it is up; `sent` - `released` is what is outstanding, and at
 *       most `window` (T1).
 *   L4  An account lives as long as its slot, an inbound or a message refers to it. `received` -
 *       `credited` is at most `window`, checked on each message that begins (T2); `credited` <=
 *       `released` <= `received`. */
#ifndef CHR_BRIDGE_PEERS_INTERNAL_H
#define CHR_BRIDGE_PEERS_INTERNAL_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "base/log.h"
#include "base/random.h"
#include "bridge/peer_wire.h"
#include "bridge/peers.h"

struct mosquitto;
struct inbound;

#define PEERS_WINDOW_DEFAULT   ((uint64_t)16 << 20)
#define PEERS_WINDOW_BYTES_MIN ((uint64_t)64 << 10)
/* From connect() to proof, on both sides. */
#define PEERS_PROOF_US INT64_C(5000000)
/* libmosquitto's smallest. A peer that does not answer a ping for as long is gone. */
#define PEERS_KEEPALIVE_S 5
/* The accepting side hears a ping in that time at the latest. */
#define PEERS_SILENCE_US INT64_C(15000000)
/* Connections that have not proved anything yet, on one lane; beyond that the oldest goes. */
#define PEERS_UNPROVED_MAX 32u
/* Bytes that a loop has received of a connection before it is taken over. */
#define PEERS_ADOPT_BYTES_MAX ((size_t)64 << 10)

/* ---- What came in ------------------------------------------------------------------------------
 */

struct account {
    struct lane *lane;
    _Atomic uint32_t refs;
    uint64_t window;                  /* constant */
    uint64_t received;                /* lane thread */
    _Atomic uint64_t released;        /* any thread adds */
    _Atomic uint64_t credited;        /* lane thread: what the peer was told */
    _Atomic uint64_t messages, bytes; /* lane thread; for statistics */
};

struct account *peers__account_new(struct lane *lane, uint64_t window);
void peers__account_unref(struct account *account); /* accepts NULL */
void peers__account_release(struct account *account, uint64_t cost);

/* A message with its bytes behind it. */
struct received {
    struct peers_message message;
    struct account *account; /* a reference */
    uint8_t bytes[];
};

/* ---- What goes out ------------------------------------------------------------------------------
 */

/* A message as it waits: room for a frame's head, so that it can be sent from where it is. */
struct outgoing {
    struct outgoing *next;
    uint32_t raw, stored; /* stored < raw: compressed */
    uint8_t kind;
    uint8_t room[7]; /* unused; keeps what follows aligned */
    uint8_t bytes[]; /* PEER_FRAME_HEAD_BYTES, then `stored` bytes */
};

enum link_state {
    LINK_IDLE,       /* tries again at due_us */
    LINK_RESOLVING,  /* its host name */
    LINK_CONNECTING, /* TCP, CONNECT */
    LINK_PROVING,    /* SUBSCRIBE, challenge, proof */
    LINK_UP
};

struct link_lookup; /* peer_lookup.h */

struct link {
    struct lane *lane;
    struct slot *slot;
    /* peers->lock: */
    bool used;    /* the lane's thread has to do with it */
    bool changed; /* another address */
    bool up;
    bool starved; /* peers_send said CHR_EAGAIN */
    uint64_t starved_cost;
    uint64_t window, sent, released;
    struct outgoing *first, *last;
    struct account *account; /* a reference */
    /* written under the lock, or by the lane's thread: for statistics */
    _Atomic uint64_t messages_sent, bytes_sent, wire_bytes_sent, connects, full;
    /* Lane thread: */
    enum link_state state;
    struct mosquitto *mosq;
    const char *failure;   /* set in callbacks: to be torn down */
    const char *tls_fault; /* what was wrong with the peer's certificate; NULL: nothing */
    int64_t due_us;        /* IDLE: next try; else until proved */
    int64_t backoff_us;    /* the next pause */
    int64_t misc_us;       /* when libmosquitto's timers were last looked at */
    struct link_lookup *lookup;
    const char *told; /* the failure that was logged last */
    struct peer_transcript transcript;
    char topic[PEER_TOPIC_BYTES_MAX]; /* of frames */
    struct outgoing *taken;           /* from the queue, in order; the first may be under way */
    size_t taken_sent;                /* bytes of the first one that were handed over */
    bool lz4;                         /* compress, on this connection */
    uint32_t lz4_pause, lz4_skip;     /* messages that are not tried, of how many next time */
    struct pollfd *poll;              /* of this turn; NULL: none */
};

struct slot {
    uint64_t node; /* peers->lock; 0: free */
    bool wanted;   /* else on its way out: free once no link is used */
    char host[256];
    uint16_t port;
    struct link links[PEERS_LANES];
};

/* ---- Lanes --------------------------------------------------------------------------------------
 */

struct letter { /* a connection to be taken over */
    struct letter *next;
    int fd;
    struct peers_stream stream;
    size_t len;
    uint8_t bytes[];
};

struct lane {
    struct peers *peers;
    enum peers_lane number;
    pthread_t thread;
    bool started;
    int wake_fd; /* eventfd */
    _Atomic bool sleeping, stopping;
    struct letter *letters; /* peers->lock; newest first */
    uint32_t letters_count;
    /* Lane thread: */
    int64_t now_us; /* of this turn */
    struct chr_list inbounds;
    uint32_t unproved;
    /* What is received lands here, and what is left of a packet stays as long as its connection is
     * the last one that was read: between two nodes nothing is moved but by accident. */
    uint8_t *scratch;              /* LANE_SCRATCH_BYTES */
    struct inbound *scratch_owner; /* whose bytes [scratch_from, scratch_to) are; NULL: nobody's */
    size_t scratch_from, scratch_to;
    uint8_t *pack; /* PEERS_PACK_BYTES_MAX: small messages in one packet */
    struct chr_random random;
};
/* What is left over of a packet, and a good piece behind it. */
#define LANE_SCRATCH_BYTES   (2 * PEER_PACKET_BYTES_MAX)
#define PEERS_PACK_BYTES_MAX ((size_t)64 << 10)

struct peers {
    uint64_t self;
    uint8_t *secret;
    size_t secret_bytes;
    char *cafile, *certfile, *keyfile;
    uint64_t window;
    enum peers_compress compress;
    const struct chr_clock *clock;
    void *ctx;
    void (*received)(void *ctx, struct peers_message *message);
    void (*changed)(void *ctx, uint64_t node, enum peers_lane lane, bool up);
    void (*writable)(void *ctx, uint64_t node, enum peers_lane lane);

    pthread_mutex_t lock;
    struct slot slots[PEERS_MAX];
    struct lane lanes[PEERS_LANES];
    _Atomic uint64_t strangers;
    _Atomic int64_t stranger_told_us; /* when the log last named one */
};

CHR_INLINE chr_slice peers__secret(const struct peers *peers)
{
    return chr_slice_of(peers->secret, peers->secret_bytes);
}

/* Any thread. */
void peers__lane_wake(struct lane *lane);
void *peers__lane_main(void *lane);
/* Any thread, any number of times a second. address, reason: may be NULL. */
void peers__stranger(struct peers *peers, const char *address, const char *reason);
void peers__address_of(int fd, char *out, size_t size, bool *loopback);
/* peers->lock held; NULL: no such peer. */
struct slot *peers__slot(const struct peers *peers, uint64_t node);

/* -- peer_link.c: lane thread
 * -----------------------------------------------------------------------*/

/* Connects, gives up, sends. True: there is more to send, and the socket may take it. */
bool peers__link_turn(struct link *link);
/* Lowers *until_us to when it wants a turn. */
void peers__link_due(const struct link *link, int64_t *until_us);
/* False: it has no socket to wait for. */
bool peers__link_poll(struct link *link, struct pollfd *poll);
void peers__link_event(struct link *link, short events);
/* Its peer has connected to us, so it is there: a pause between two tries ends. */
void peers__link_hurry(struct link *link);
void peers__link_stop(struct link *link);

/* -- peer_accept.c: lane thread
 * ---------------------------------------------------------------------*/

void peers__inbound_open(struct lane *lane, struct letter *letter); /* frees it */
void peers__inbounds_turn(struct lane *lane);                       /* timeouts, credits */
void peers__inbounds_due(const struct lane *lane, int64_t *until_us);
size_t peers__inbounds_poll(struct lane *lane, struct pollfd *polls);
void peers__inbounds_events(struct lane *lane); /* of the polls it asked for */
void peers__inbounds_stop(struct lane *lane);

#endif
