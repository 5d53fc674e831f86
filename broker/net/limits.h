/* broker/net/limits.h: what a client may take of the node, and what is said when it wants more.
 *
 * One table of limits: its name in metrics, the setting that moves it, the sentence of its log
 * line. Whoever finds a limit reached calls limit_hit(), which counts it and writes one line, at
 * most one per limit, loop and LIMIT_LOG_INTERVAL_US, with the number of times since the last: a
 * greedy fleet must not fill the operator's disk. The answer to the client (reason code, pause,
 * drop) is the caller's; docs/mqtt.md has the whole table. Loop thread, where not said. */
#ifndef CHR_BROKER_NET_LIMITS_H
#define CHR_BROKER_NET_LIMITS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/slice.h"

struct broker_loop;

enum limit {
    LIMIT_PUBLISH_RATE,  /* max_publish_rate: messages per second of a client */
    LIMIT_PUBLISH_BYTES, /* max_publish_bytes: bytes per second of a client */
    LIMIT_PACKET_SIZE,   /* max_packet_size */
    LIMIT_MESSAGE_SIZE,  /* message_size_limit: payload */
    LIMIT_SUBSCRIPTIONS, /* max_subscriptions of a client */
    LIMIT_TOPIC_LEVELS,  /* max_topic_levels of topics and filters */
    LIMIT_RETAINED,      /* max_retained_messages, max_retained_bytes */
    LIMIT_QUEUE,         /* max_queued_messages, max_queued_bytes of a session */
    LIMIT_QUEUES,        /* max_queued_total of all sessions */
    LIMIT_OUTPUT,        /* max_output_bytes of a connection, max_output_total of all */
    LIMIT_SESSIONS,      /* max_durable_sessions */
    LIMIT_PARTIAL,       /* max_partial_bytes: packets that have not arrived whole */
    LIMITS
};

/* Why a message was not delivered. */
enum drop {
    DROP_QUEUE_FULL, /* its session's queue, or all queues together */
    DROP_SLOW,       /* QoS 0 towards a client that reads too slowly */
    DROP_TOO_LARGE,  /* above the client's Maximum Packet Size */
    DROP_INBOX,      /* too much on its way from loop to loop */
    DROP_PEER,    /* too much waits for another node, or more at once than nodes send each other */
    DROP_EXPIRED, /* its Message Expiry Interval has passed */
    DROP_SIZE,    /* above message_size_limit when it came */
    DROP_MEMBER,  /* the share group that was chosen has no member here any more */
    DROP_DAMAGED, /* its body in the database is */
    DROP_MEMORY,
    DROPS
};

struct limit_info {
    const char *name;    /* label of metrics: "publish_rate" */
    const char *setting; /* as in a config file */
    const char *text;    /* of log lines */
};
extern const struct limit_info limit_infos[LIMITS];

#define LIMIT_LOG_INTERVAL_US INT64_C(10000000)

struct limit_state {
    _Atomic uint64_t hits[LIMITS]; /* loop thread writes, metrics read */
    uint64_t unlogged[LIMITS];     /* since the last line */
    int64_t logged_us[LIMITS];     /* 0: never */
};

/* client: "" before CONNECT. address: NULL: none. */
void limit_hit(struct broker_loop *loop, enum limit limit, chr_slice client, const char *address);

/* The loop's shares of what all may hold, and what is asked of the settings per packet: at the
 * start and once a second, for settings that were reloaded. */
void limits_refresh(struct broker_loop *loop);

/* The soft limit of descriptors up to the hard one: a service manager often gives a thousand of
 * half a million. Start; main thread. */
void limits_raise_descriptors(void);

#endif
