/* bench/subscriber.h: one subscribing connection: counts messages, acknowledges those that ask. */
#ifndef CHR_BENCH_SUBSCRIBER_H
#define CHR_BENCH_SUBSCRIBER_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct subscriber {
    int fd;
    int mqtt_version;
    uint64_t messages;
    uint64_t bytes; /* of whole packets */
    /* Called for each message; may be NULL. payload: borrowed until return. */
    void (*on_message)(void *ctx, chr_slice payload);
    void *ctx;

    size_t in_len;
    uint8_t *in;
    size_t out_len;
    uint8_t *out; /* PUBACKs of one turn */
};

/* Connects and subscribes, and waits until both are granted; non-blocking after that. qos 0 or 1.
 * Returns 0, or -1 with a message on stderr. */
int subscriber_open(struct subscriber *s, const char *address, int mqtt_version,
                    const char *client_id, const char *filter, int qos);
/* Takes what has arrived. Returns 1: more may be waiting, 0: all read, -1: the connection ended
 * (message on stderr). */
int subscriber_drain(struct subscriber *s);
void subscriber_close(struct subscriber *s);

#endif
