/* broker/session/publish.h: a publish on the road to the log: what handle_publish.c, wills and the
 * decoding of stale batches (R9) have in common. */
#ifndef CHR_BROKER_SESSION_PUBLISH_H
#define CHR_BROKER_SESSION_PUBLISH_H

#include "broker/session/internal.h"

struct inbound {
    struct conn *conn;   /* NULL: gone, or the node's own */
    struct conn_ref ref; /* CONN_REF_NONE: the node's own */
    struct slab *slab;   /* raw lies in it */
    chr_slice raw;       /* the PUBLISH packet */
    chr_slice topic;
    chr_slice alias_topic; /* topic, when the packet does not hold it */
    chr_slice payload;
    enum mqtt_version version;
    uint8_t qos;
    bool retain;
    bool guarded; /* R5 */
    struct db_guard guard;
    uint8_t ack_asked; /* 1 + the enum db_ack_class its user property names; 0: none */
    uint8_t ack_kind;  /* MQTT_PUBACK, MQTT_PUBREC; 0: nothing to acknowledge */
    uint16_t packet_id;
    bool ack_taken; /* it has its place in the ack ring already */
    uint32_t ack_sequence;
    bool moved;    /* R9: counted in conn->batch_inflight already */
    bool rejected; /* out: refused by a mapping (R3) */
};

enum into_batch {
    INTO_BATCH_DONE,     /* its answer comes after commit, or it has it (a reject over the limit) */
    INTO_BATCH_AGAIN,    /* no batch free: nothing happened */
    INTO_BATCH_PLAIN,    /* its topic is mapped to nothing (any more): nothing happened */
    INTO_BATCH_NO_MEMORY /* nothing happened */
};

/* Decodes a message into the open batch and adds it. route: of in->topic, current; with a batch
 * that must be opened it is looked up again. plain_too: a message of no table goes into the batch
 * as well, without rows, to keep its place behind others. */
enum into_batch session__into_batch(struct inbound *in, struct route *route, bool plain_too);
/* Does the log get the message itself, not only its rows (R6, R7)? When it is retained, or may be
 * queued for a durable session. On a node alone that is all: subscribers of other kinds are served
 * from the receive buffer after commit, so for them nothing is written. In a cluster a message of a
 * table is written for the subscribers of other nodes as well, at any QoS: each node that applies
 * it delivers it, whatever becomes of this one. */
bool session__verbatim(struct broker_loop *loop, struct route *route, uint8_t qos, bool retain);

#endif
