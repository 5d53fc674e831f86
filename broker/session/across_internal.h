/* broker/session/across_internal.h: what the files of across share. See across.h for the promises
 * and the locks. */
#ifndef CHR_BROKER_SESSION_ACROSS_INTERNAL_H
#define CHR_BROKER_SESSION_ACROSS_INTERNAL_H

#include <pthread.h>

#include "base/buf.h"
#include "base/wake.h"
#include "bridge/deliver_codec.h"
#include "broker/net/loop.h"
#include "broker/session/across.h"
#include "broker/session/interest.h"
#include "broker/session/numbered.h"
#include "broker/session/subscriptions.h"

/* Messages of a DELIVER are gathered up to this much, and one of any size behind it. */
#define ACROSS_GATHER_BYTES ((size_t)64 << 10)
_Static_assert(ACROSS_MESSAGE_BYTES_MAX + 2 * ACROSS_GATHER_BYTES <= PEERS_MESSAGE_BYTES_MAX,
               "the largest fits, with the heads of all");
/* Sent to a peer and not acknowledged, unless it is one message: a quarter of the lane's window,
 * the rest is the log's. */
#define ACROSS_SENT_BYTES_MAX ((uint64_t)4 << 20)
/* Filters that are told and not acknowledged, in messages of ACROSS_GATHER_BYTES. */
#define ACROSS_TELLING_MAX 16u
/* Without an acknowledgement for so long, it is sent again. */
#define ACROSS_TELL_AGAIN_US INT64_C(500000)
#define ACROSS_SEND_AGAIN_US INT64_C(2000000)
/* What arrived waits no longer for the log, and no more of it than this. */
#define ACROSS_HELD_US_MAX    INT64_C(1000000)
#define ACROSS_HELD_BYTES_MAX ((uint64_t)12 << 20)

/* A message that came from elsewhere, on its way to a loop. */
struct arrival {
    struct arrival *next;
    struct message *message; /* a reference */
    uint64_t after;          /* not before this was applied */
    int64_t since_us;
    uint32_t loop;
    bool plain;
    uint32_t groups_count;
    uint64_t groups[];
};
struct arrivals {
    struct arrival *first, *last;
    uint64_t bytes;
};

enum telling {
    TELL_ALL,    /* from the beginning */
    TELL_WALK,   /* it is being told everything */
    TELL_CHANGES /* it knows everything up to a version */
};

struct across_peer {
    uint64_t node;
    bool up[PEERS_LANES]; /* our connections to it */
    bool forgotten;       /* it is no member, since forgotten_us; what was said is kept (N1) */
    int64_t forgotten_us;

    /* What it told us */
    uint64_t boot;                         /* of its process; 0: it has not told anything */
    uint64_t telling_heard, version_heard; /* 0: not all of it yet */
    struct peer_interest *building;        /* while it tells everything; NULL: not */
    uint64_t building_from, building_part;
    bool filters_ack_owed, all_wanted;

    /* What we tell it */
    enum telling telling;
    uint64_t telling_number;
    uint64_t version_sent, version_known; /* by its word */
    uint32_t cursor;                      /* of the walk */
    uint64_t part, walk_from;
    uint32_t unacknowledged; /* messages */
    bool probe;              /* ask whether it still knows version_known */
    int64_t told_us;         /* when that moved last */

    /* Messages */
    struct numbered_out out;
    struct numbered_in in;
    bool ack_owed, gap_told;
    int64_t sent_us;    /* when something was acknowledged last, or sent after nothing was out */
    uint64_t sent_mark; /* what the lane had been given when that grew old; 0: it has not */

    struct arrivals held; /* post_lock: for the log */
};

struct across {
    struct broker_node *node;
    struct peers *peers;
    uint64_t self, boot;
    struct own_interest *own;
    _Atomic uint32_t up;      /* bits of peers whose BULK lane is up */
    _Atomic uint32_t pending; /* bits of peers that have something unsent */

    pthread_mutex_t lock; /* of the peers, but for `held` */
    struct across_peer list[SUBSCRIPTIONS_PEERS_MAX];
    uint32_t count;
    uint64_t tellings;
    struct chr_buf buf;

    pthread_mutex_t post_lock;
    bool open;                /* loops take letters */
    _Atomic uint64_t applied; /* entries up to it were handed over */
    _Atomic uint32_t held_count;

    pthread_mutex_t waits_lock;
    struct across_subscribe *fresh, *fresh_last; /* not looked at yet */
    struct across_subscribe *waits;              /* across thread's */
    pthread_t thread;
    bool thread_running;
    struct chr_wake wake;
    _Atomic bool stopping;
};

/* lock, all of these. NULL: too many peers. */
struct across_peer *across__peer(struct across *a, uint64_t node);
uint32_t across__index(const struct across *a, const struct across_peer *p);

/* -- across_filters.c (lock) --------------------------------------------------------------------*/

/* FILTERS or CHANGES came. */
void across__filters_received(struct across *a, struct across_peer *p, chr_slice bytes);
void across__filters_acknowledged(struct across *a, struct across_peer *p,
                                  const struct delivered *d);
/* Sends what is to be told, and acknowledgements that are owed. */
void across__filters_send(struct across *a, struct across_peer *p);
void across__filters_lane_up(struct across *a, struct across_peer *p);
/* Nobody there is interested in anything; should it come back, all is told anew, both ways. */
void across__filters_forget(struct across *a, struct across_peer *p);
void across__filters_tick(struct across *a, struct across_peer *p, int64_t now_us);
/* Does every peer that is connected know our filters as of this version? */
bool across__filters_known(const struct across *a, uint64_t version);

/* -- across_messages.c (lock) -------------------------------------------------------------------*/

void across__messages_received(struct across *a, struct across_peer *p, chr_slice bytes);
void across__messages_acknowledged(struct across *a, struct across_peer *p,
                                   const struct delivered *d);
void across__messages_send(struct across *a, struct across_peer *p);
void across__messages_ack(struct across *a, struct across_peer *p);
void across__messages_lane_up(struct across *a, struct across_peer *p);
void across__messages_tick(struct across *a, struct across_peer *p, int64_t now_us);
/* Its process is another one than before: nothing that was meant for it is of use. */
void across__messages_new_process(struct across *a, struct across_peer *p);

/* -- across_letters.c ---------------------------------------------------------------------------*/

/* NULL: no memory, dropped and counted. message is taken. groups: little-endian, as decoded. */
struct arrival *across__arrival(struct across *a, struct message *message, uint64_t publisher,
                                const struct deliver_message *from);
void across__arrivals_add(struct arrivals *list, struct arrival *arrival);
/* In order, those that wait for the log and what is behind them later. list is taken. */
void across__arrivals_post(struct across *a, struct across_peer *p, struct arrivals *list);
/* Held too long, or (all) at the end. */
void across__held_tick(struct across *a, int64_t now_us);
void across__held_free(struct across *a);

/* -- across_subscribe.c (across thread) ---------------------------------------------------------*/

/* Looks after those that wait. Returns when it wants to look again (mono us); INT64_MAX: when it is
 * woken. */
int64_t across__subscribes_turn(struct across *a);
void across__subscribes_free(struct across *a);

/* across.c. What is in a->buf, as one message to the peer; its memory goes when it was large.
 * CHR_ENOMEM, and as peers_send. */
CHR_MUST_USE chr_err across__send_gathered(struct across *a, struct across_peer *p);

#endif
