/* broker/session/message.h: a message on its way to subscribers.
 *
 * Immutable once made, reference-counted, shared by all recipients on all loops: one buffer holds
 * topic, forwarded properties and payload. */
#ifndef CHR_BROKER_SESSION_MESSAGE_H
#define CHR_BROKER_SESSION_MESSAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "proto/mqtt/packet.h"

struct message {
    _Atomic uint32_t refs;
    uint8_t qos; /* as published */
    bool retain; /* as published */
    bool has_expiry;
    bool flow_controlled; /* its maker waits until it is released: never dropped for a limit */
    bool to_user;         /* an answer: only for sessions of the user `user` (R1) */
    _Atomic bool counted; /* in messages_queued_bytes */
    bool own;             /* the node's ($SYS): no limit of retained messages holds it back */
    bool logged;          /* the log has it verbatim, for its durable recipients and other nodes */
    bool local;           /* for subscribers of this node alone */
    uint32_t user;        /* number of the user that asked; 0: anonymous */
    int64_t expires_mono_us; /* when has_expiry: Message Expiry Interval counted from arrival */
    uint64_t publisher;      /* session number of the publisher, for No Local; 0: the node itself */
    chr_slice topic;         /* these three point into bytes[] */
    chr_slice properties;    /* block of the forwarded ones (MQTT_PROPERTIES_FORWARDED) */
    chr_slice payload;
    /* Called once by whoever drops the last reference, on its thread, before the memory goes; for
     * flow control of query answers. NULL: nothing. */
    void (*released)(void *arg);
    void *released_arg;
    uint8_t bytes[];
};

/* Copies everything; one reference. properties: a block as mqtt_put_copy makes it. NULL: no memory.
 */
struct message *message_new(chr_slice topic, chr_slice properties, chr_slice payload, uint8_t qos,
                            bool retain, uint64_t publisher);
void message_ref(struct message *message);
void message_unref(struct message *message); /* accepts NULL */
/* It waits in one queue more, by a record of so many bytes (or one less). A message counts once,
 * however many wait for it, from its first queue until it is freed; NULL: the record alone, the
 * message is the database's. Any thread: relaxed counters,
 * and `counted` is decided by an atomic exchange of the holder that is first. */
void message_queued(struct message *message, size_t record_bytes);
void message_unqueued(size_t record_bytes);
uint64_t messages_queued_bytes(void);
/* Bytes it holds, for limits. */
size_t message_bytes(const struct message *message);

#endif
