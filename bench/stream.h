/* bench/stream.h: numbered messages from one publisher to its subscribers, checked at the far end.
 *
 * Message n of a stream says n, and when it was sent. Its packets lie finished in memory, so that
 * publishing many of them is: number, send(). A subscriber compares each packet with the one that
 * is due, byte for byte; so what it counts came once, in order and unchanged.
 *
 *   acked <= queued; queued - acked <= window <= slots (P1)
 *   message n is in slot n % slots, its packet identifier is 1 + n % slots (P2)
 *   a slot is written only when the bytes of its last message have gone, and above QoS 0 when that
 *   was acknowledged (P3) */
#ifndef CHR_BENCH_STREAM_H
#define CHR_BENCH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/histogram.h"
#include "bench/link.h"

#define STREAM_INBOX_BYTES (1u << 20)
#define STREAM_WINDOW_MAX  32000u
/* Number and time of a message, both u64le. */
#define STREAM_PAYLOAD_MIN 16u
#define STREAM_PAYLOAD_MAX 65536u

/* What all streams of a run share. */
struct stream_run {
    int mqtt_version; /* 4: MQTT 3.1.1, 5 */
    int qos;          /* of publishing and of the subscriptions */
    uint32_t window;  /* messages of a publisher that may be unacknowledged, at QoS 0 unsent */
    uint32_t payload_bytes;
    uint64_t seed;
    bool time_each; /* take the latency of every message */
    struct histogram latency;
    uint8_t *inbox;  /* one receive buffer for all, STREAM_INBOX_BYTES */
    uint8_t *outbox; /* and one for acknowledgements of subscribers, as large */
};

/* One finished PUBLISH, of which only packet identifier, number and time change. */
struct stream_packet {
    uint8_t *bytes;
    uint32_t bytes_len;
    uint32_t id_at; /* 0: QoS 0 */
    uint32_t payload_at;
};

struct stream_publisher {
    struct stream_run *run; /* borrowed */
    struct link link;
    struct stream_packet packet; /* the first of all slots */
    uint32_t slots;
    uint64_t queued, acked, received;  /* QoS 2: received counts PUBRECs; acked <= received */
    uint64_t bytes_sent, bytes_queued; /* of PUBLISH packets, since the start */
    uint8_t *control;                  /* QoS 2: PUBRELs waiting, 4 bytes each; 4 * window bytes */
    uint32_t control_len, control_pos;
    bool blocked; /* the socket was full: wait for EPOLLOUT */
    uint8_t rest[8];
    uint32_t rest_len; /* of an acknowledgement that came in pieces */
};

struct stream_subscriber {
    struct stream_run *run; /* borrowed */
    struct link link;
    struct stream_packet packet; /* what is due but for packet identifier, number and time */
    uint64_t delivered;
    uint8_t *rest; /* of a packet that came in pieces; rest_max bytes */
    uint32_t rest_len, rest_max;
};

struct stream_place {
    const char *address;    /* HOST:PORT */
    struct ssl_ctx_st *tls; /* borrowed until close; NULL: plain */
    const char *client_id;
    const char *topic;
};

/* Connect, and subscribe; wait until both are granted; non-blocking after that. Return 0, or -1
 * with a message on stderr. */
int stream_publisher_open(struct stream_publisher *p, struct stream_run *run,
                          const struct stream_place *place);
int stream_subscriber_open(struct stream_subscriber *s, struct stream_run *run,
                           const struct stream_place *place);
void stream_publisher_close(struct stream_publisher *p);
void stream_subscriber_close(struct stream_subscriber *s);

/* Publishes up to `count` more messages, no more than P1 allows, and sends what the socket takes.
 * Returns how many were queued, or -1 with a message on stderr when the connection broke. */
int64_t stream_publish(struct stream_publisher *p, uint64_t count);
/* Takes in acknowledgements. Returns 0, or -1 with a message on stderr when the connection broke or
 * the server acknowledged something that it should not have. */
int stream_publisher_drain(struct stream_publisher *p);
/* Takes in messages and acknowledges them. Returns how many, or -1 with a message on stderr when
 * the connection broke or a message is not the one that is due. */
int64_t stream_subscriber_drain(struct stream_subscriber *s);

/* Messages that may be queued now (P1, P3). */
static inline uint64_t stream_room(const struct stream_publisher *p)
{
    uint64_t unsent =
        (p->bytes_queued - p->bytes_sent + p->packet.bytes_len - 1) / p->packet.bytes_len;
    return p->run->window - (p->run->qos ? p->queued - p->acked : unsent);
}

#endif
