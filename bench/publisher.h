/* bench/publisher.h: one publishing connection, pumped by an epoll loop.
 *
 * The fleet's packets lie finished in memory, so that sending is: stamp, send() the run of bytes
 * that fits the window. Acknowledgements come back in the order of publishing [MQTT-4.6.0-2]; each
 * packet identifier must come exactly once, and the loop compares it with the one that is due,
 * which is the whole check in the common case.
 *
 *   acked <= queued; queued - acked <= window <= slice rows (P1)
 *   message n of a connection is the packet at n % rows, its identifier 1 + n % rows (P2) */
#ifndef CHR_BENCH_PUBLISHER_H
#define CHR_BENCH_PUBLISHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/fleet.h"
#include "bench/histogram.h"

struct publisher_sample {
    uint64_t sent_ns, acked_ns;
};

/* What all connections of a run share. */
struct publisher_run {
    int mqtt_version;
    int qos;
    uint32_t window;
    uint32_t refill;       /* slots that must be free before more is sent; 1 .. window */
    uint32_t first_lap;    /* of the fleet */
    bool time_each;        /* paced: time every message; else one at a time per connection */
    struct histogram sent; /* from send() to acknowledgement */
    struct histogram due;  /* paced: from when the schedule wanted it sent */
    /* Paced, room for samples_max: when each was sent and acknowledged, in order of
     * acknowledgement. */
    struct publisher_sample *samples;
    uint64_t samples_count, samples_max;
    /* The schedule: message n of connection c is due at start_ns + (n * connections + c) *
     * interval_ns. 0: as fast as windows allow. */
    uint64_t start_ns;
    double interval_ns;
    uint32_t connections;
    uint8_t *inbox; /* one receive buffer for all, PUBLISHER_INBOX bytes */
};

#define PUBLISHER_INBOX 262144
/* The most of a split packet that is kept for the next recv. */
#define PUBLISHER_REST 1024

struct publisher {
    struct publisher_run *run; /* borrowed */
    struct fleet_slice slice;
    uint32_t index;
    int fd;

    uint64_t quota;  /* messages to publish, UINT64_MAX: no end */
    uint64_t queued; /* given to the socket, or about to be */
    uint64_t acked;
    uint64_t received;                        /* QoS 2: PUBRECs seen; acked <= received <= queued */
    uint32_t queue_pos, ack_pos, receive_pos; /* the same, modulo rows */
    uint32_t bytes_pos;                       /* next byte of the slice to send */
    bool unsent;  /* bytes up to queue_pos are waiting for room in the socket */
    bool blocked; /* the socket was full: wait for EPOLLOUT */

    uint64_t probe; /* number of the message being timed, UINT64_MAX: none */
    uint64_t probe_ns;
    uint64_t *sent_ns; /* run->time_each: by position */

    uint8_t rest[PUBLISHER_REST];
    uint32_t rest_len;
    uint8_t *control; /* QoS 2: PUBRELs waiting, 4 bytes each; 4 * window bytes */
    uint32_t control_len, control_pos;

    uint64_t refused;       /* negative reason codes */
    uint8_t refused_reason; /* the last of them */
};

/* Connects. Returns 0, or -1 with a message on stderr. */
int publisher_open(struct publisher *p, struct publisher_run *run, uint32_t index,
                   struct fleet_slice slice, const char *address, const char *client_id);
void publisher_close(struct publisher *p);

/* Sends what window, schedule and quota allow. Returns 0, or -1 when the connection broke. */
int publisher_pump(struct publisher *p, uint64_t now_ns);
/* Takes in acknowledgements; returns how many, or -1 with a message on stderr when the connection
 * broke or the server acknowledged something that it should not have. */
int64_t publisher_drain(struct publisher *p);

static inline bool publisher_done(const struct publisher *p)
{
    return p->acked == p->quota;
}

#endif
