/* broker/session/numbered.h: messages for the subscribers of one peer, each once and in order
 * (R18).
 *
 *     push ─▶ [ sent, not acknowledged | not sent ] ─▶ next … sent()
 *               ▲ acknowledged          ▲ rewind: everything again
 *
 *   N1  Messages bear 1, 2, 3 … for a pair of processes: the sender's and the receiver's. What was
 *       meant for a process that has ended is dropped with it, and the next begins at 1.
 *   N2  One goes when it is acknowledged, never before; what is lost with a connection is sent
 *       again from the first that is not acknowledged.
 *   N3  The receiver takes the one that follows the last it took and no other: those it had are
 *       dropped, those behind a gap as well (they come again by N2).
 *   N4  What waits is at most bytes_max, half of it at QoS 0.
 *
 * Pure, not locked. */
#ifndef CHR_BROKER_SESSION_NUMBERED_H
#define CHR_BROKER_SESSION_NUMBERED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "broker/session/message.h"

struct numbered_item {
    struct numbered_item *next;
    struct message *message; /* a reference */
    uint64_t publisher;      /* whose it is, for the order of its messages */
    uint64_t after;          /* log index that comes before it; 0: none */
    bool plain;              /* for those whose subscription is not shared */
    uint32_t groups_count;
    uint64_t groups[]; /* share groups the receiver serves */
};

struct numbered_out {
    struct numbered_item *first, *last; /* in order */
    struct numbered_item *unsent;       /* NULL: all are sent */
    uint64_t first_number;              /* of first; of the next one when there is none */
    uint64_t unsent_number;             /* of unsent; of the next one when there is none */
    uint64_t bytes, bytes_max;
    uint64_t sent_bytes; /* of these, sent and not acknowledged */
};

void numbered_out_init(struct numbered_out *out, uint64_t bytes_max);
/* Drops everything; the next number is 1 (N1). Returns how many there were. */
uint64_t numbered_out_clear(struct numbered_out *out);
/* Adds a message, which is referenced. CHR_EFULL (N4), CHR_ENOMEM: it is not added. */
CHR_MUST_USE chr_err numbered_push(struct numbered_out *out, struct message *message,
                                   uint64_t publisher, uint64_t after, bool plain,
                                   const uint64_t *groups, uint32_t groups_count);
/* The unsent one went out. */
void numbered_sent(struct numbered_out *out);
/* Everything up to that number was taken; true: that was news. */
bool numbered_acknowledged(struct numbered_out *out, uint64_t number);
/* What is not acknowledged goes again (N2). Returns how many of them had been sent. */
uint64_t numbered_rewind(struct numbered_out *out);

struct numbered_in {
    uint64_t boot; /* of the sender's process; 0: none was heard */
    uint64_t last; /* the number taken last; 0: none */
};
enum numbered_verdict {
    NUMBERED_TAKE, /* it is the next, and counts as taken */
    NUMBERED_HAD,
    NUMBERED_GAP,
    NUMBERED_OLD /* of a process that has ended */
};
enum numbered_verdict numbered_take(struct numbered_in *in, uint64_t boot, uint64_t number);

#endif
