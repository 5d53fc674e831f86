/* broker/net/loop.h: an event loop: one thread, its connections, its open batch.
 *
 * A turn: wait (epoll) ▶ answered batches (acknowledge, deliver) ▶ mail from other threads ▶ read
 * ready sockets, dispatch packets ▶ timers ▶ pass on the open batch ▶ flush outputs, one write per
 * socket. The clock is read once per turn. No lock is taken between recv and batch_propose. */
#ifndef CHR_BROKER_NET_LOOP_H
#define CHR_BROKER_NET_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/ring.h"
#include "broker/batch.h"
#include "broker/net/conn.h"
#include "broker/net/limits.h"
#include "broker/net/slab.h"

struct broker_node;
struct listener;           /* net/listener.h */
struct listener_counters;  /* net/listener.h */
struct loop_session_state; /* session/: what the session layer keeps per loop */

/* A letter to a loop: run(loop, mail) is called on the loop's thread in a later turn; it owns the
 * mail then. Posting takes a short lock; the loop takes all letters of a turn at once. */
struct loop_mail {
    void (*run)(struct broker_loop *loop, struct loop_mail *mail);
    struct loop_mail *next;
};

struct loop_counters { /* loop thread writes (relaxed), metrics read */
    _Atomic uint64_t connections, connections_total, packets_received, bytes_received, bytes_sent;
    _Atomic uint64_t publishes[3];                               /* received, by QoS */
    _Atomic uint64_t publish_bytes_received, publish_bytes_sent; /* payloads */
    _Atomic uint64_t connects_accepted, connects_refused;
    _Atomic uint64_t lost;        /* connections of clients that ended without a DISCONNECT */
    _Atomic uint64_t others_sent; /* packets other than PUBLISH and what acks_sent counts */
    _Atomic uint64_t publishes_mapped, publishes_rejected, publishes_stale, publishes_sent[3];
    _Atomic uint64_t publishes_dropped; /* the sum of dropped[] */
    _Atomic uint64_t dropped[DROPS];
    _Atomic uint64_t retained_refused; /* limits of retained messages */
    _Atomic uint64_t protocol_errors, pauses_batch, acks_sent, batches;
};
/* How connections end and CONNECTs are refused, by the reason code of 5.0 (also where the client is
 * of 3.1.1 and can't be told). Loop thread writes (relaxed), metrics read. */
struct loop_ends {
    _Atomic uint64_t refused[256], by_server[256], by_client[256];
};
/* Its thread is the only one that adds: no locked instruction is needed. */
#define LOOP_COUNT(loop, name, n) LOOP_ADD(&(loop)->counters.name, n)
#define LOOP_ADD(counter, n)                                                                       \
    atomic_store_explicit(counter,                                                                 \
                          atomic_load_explicit(counter, memory_order_relaxed) + (uint64_t)(n),     \
                          memory_order_relaxed)

#define LOOP_COUNT_DROP(loop, cause)                                                               \
    do {                                                                                           \
        LOOP_COUNT(loop, dropped[cause], 1);                                                       \
        LOOP_COUNT(loop, publishes_dropped, 1);                                                    \
    } while (0)

struct broker_loop {
    struct broker_node *node; /* borrowed */
    uint32_t number;
    pthread_t thread;
    int epoll_fd;
    int wake_fd; /* eventfd */
    _Atomic bool sleeping;
    _Atomic bool stopping;
    bool winding_down;   /* has seen `stopping` */
    bool go_on;          /* the end of a turn made work for the next: don't sleep before it */
    int64_t now_mono_us; /* of this turn */
    int64_t now_wall_us;

    struct conn **conns; /* by slot; NULL: free */
    uint32_t *generations;
    uint32_t conns_max;
    uint32_t *free_slots;
    uint32_t free_slots_count;
    uint32_t slots_used; /* slots at or above were never used */
    _Atomic uint32_t conns_count;

    struct chr_list flush;   /* conns with output of this turn */
    struct chr_list waiting; /* conns paused for a batch */
    struct chr_list held;    /* conns resumed with packets still held */
    struct chr_list closing; /* conns to be torn down at the end of the turn */

    struct slab_pool slabs;
    struct slab *slab; /* received into now */

    struct batch *batches; /* [batches_count] */
    uint32_t batches_count;
    struct batch *batch_free;
    struct batch *batch; /* open; NULL: none */
    uint32_t batches_inflight;
    uint32_t retained_inflight;            /* messages to be retained, in batches */
    uint64_t batch_serial, batch_answered; /* of the last opened, of the last answered */
    struct chr_ring returned;              /* applier → loop */

    pthread_mutex_t mail_lock;
    struct loop_mail *mail_head, *mail_tail;
    _Atomic bool mail_waiting;

    struct loop_session_state *session_state; /* session layer's */
    struct ingest_mappings *mappings;         /* what the open batch is decoded under (R9) */
    struct ingest_decoder *decoder;           /* rows of the open batch */
    int64_t next_second_us;                   /* of the timers that run once a second */
    bool publish_limited;                     /* max_publish_rate or _bytes is set */
    int64_t wake_us; /* mono; the next turn is no later; INT64_MAX: whenever */
    struct loop_counters counters;
    struct loop_ends ends;
    struct listener_counters *listener_counters; /* [node->listeners_count] */

    /* What all its connections hold together (broker/net/limits.h) */
    struct limit_state limits;
    struct chr_list partial_waiting; /* conns paused for room (conn->wait_link) */
    uint64_t partial_bytes, partial_bytes_max;
    uint64_t held_bytes;             /* received, not dispatched */
    uint64_t unsent_bytes;           /* conn_out_pending of all */
    uint64_t unsent_bytes_max;       /* 0: no limit */
    _Atomic uint64_t shown_bytes[3]; /* partial, held, unsent; once a second, for metrics */
};

CHR_MUST_USE chr_err loop_start(struct broker_node *node, uint32_t number, struct broker_loop **out,
                                struct chr_errmsg *msg);
/* Asks it to stop: stops reading, waits for its batches, flushes, closes its connections (0x8B to
 * 5.0 clients). */
void loop_stop(struct broker_loop *loop);
/* Waits for its thread. Loops post to each other until their threads have ended: so join all of
 * them, then let each take the letters that came too late, then free them. */
void loop_join(struct broker_loop *loop);
void loop_take_last_mail(struct broker_loop *loop);
void loop_free(struct broker_loop *loop);

/* Any thread. */
void loop_post(struct broker_loop *loop, struct loop_mail *mail);
void loop_wake(struct broker_loop *loop);
/* Any thread (the acceptor): the loop takes over fd, which came in through listener. On failure fd
 * is still the caller's. */
CHR_MUST_USE chr_err loop_adopt(struct broker_loop *loop, struct listener *listener, int fd,
                                const char *address);

/* Loop thread, outside of packet handlers: the connection, which has not been answered yet, goes on
 * in another loop with all bytes it still holds, its CONNECT first (its session lives there). conn
 * is gone on return. */
void loop_move_conn(struct broker_loop *loop, struct conn *conn, struct broker_loop *target);

/* The same, but to the lanes between nodes (node->peers): its socket and all bytes it still holds,
 * its CONNECT first. conn is gone on return. */
void loop_hand_to_peers(struct broker_loop *loop, struct conn *conn);

/* Loop thread: the connection a ref names, or NULL when it is gone. */
struct conn *loop_conn(struct broker_loop *loop, struct conn_ref ref);

/* -- What the loop calls in the session layer (session/dispatch.h)
 * --------------------------------*/

enum dispatch {
    DISPATCH_DONE,
    DISPATCH_AGAIN /* paused: show this packet again */,
    DISPATCH_CLOSE
};

#endif
