/* broker/batch.h: messages on their way from a loop through the log and back.
 *
 *     open (loop fills) ─▶ proposed (committer, log writer, applier) ─▶ answered (loop) ─▶ free
 *
 * A batch is one log entry: the rows of all its messages as columns, sessions opened, packet ids
 * remembered, messages that are to be retained or queued verbatim. Beside the entry it keeps runs:
 * which connection waits for how many acknowledgements and where the raw packets lie, so that a
 * stale batch can be decoded again (R9) and subscribers can be served after commit. A run is a
 * stretch of packets of one connection that lie next to each other in a receive slab: nothing is
 * kept per message.
 *
 * A loop has a fixed number of batches; when none is free the connections that need one are paused.
 * Loop thread only, but while proposed: then nobody but the committer's threads touches it. */
#ifndef CHR_BROKER_BATCH_H
#define CHR_BROKER_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "broker/committer.h"
#include "broker/net/conn.h"
#include "broker/net/slab.h"
#include "db/op.h"

struct batch_run {
    struct conn_ref conn;
    uint32_t ack_first; /* sequence number of its first place in the conn's ack ring */
    uint32_t acks;      /* places in a row; QoS 0 messages have none */
    uint32_t messages;
    chr_slice raw;   /* whole PUBLISH packets, in a slab of the batch */
    chr_slice topic; /* when the packet named its topic by alias: the topic (batch's arena); such a
                        run has one packet */
    enum mqtt_version version;
    bool early;   /* acknowledged when the batch is proposed (ACK = memory) */
    bool logged;  /* its messages stand in the entry verbatim: durable members of a shared
                     subscription have them from there */
    bool deliver; /* some message had subscribers or is to be retained: look after commit */
    bool across; /* subscribers on other nodes were known of when they came: what is not logged goes
                    to them directly (else they subscribed later, and might have newer ones) */
    bool
        undelivered_reject; /* the (single) message was rejected: acknowledge, never deliver (R3) */
    /* Its messages' items of the guards, in order: all of the run are QoS 2 then. 0: none has one.
     */
    uint32_t guard_first, guards;
};

/* An operation of the entry whose result somebody waits for (a session opened, a release). */
struct batch_wait {
    struct conn_ref conn; /* CONN_REF_NONE: nobody */
    uint32_t op;          /* index of the operation in the entry */
    void (*answered)(struct conn *conn, void *arg, const struct db_op_result *result);
    void *arg; /* answered() is called with conn NULL when the connection is gone: free arg */
};

struct batch {
    struct broker_proposal proposal;
    struct broker_loop *loop;
    struct batch *next_free;
    struct db_entry entry;
    uint64_t mapping_version;
    struct chr_arena arena; /* topics, what waits need; reset when free */
    struct batch_run *runs;
    uint32_t runs_count, runs_max;
    struct batch_wait *waits;
    uint32_t waits_count, waits_max;
    struct slab **slabs;
    uint32_t slabs_count, slabs_max;
    struct db_guard *guards; /* QoS 2 messages of this batch; become DB_OP_GUARDS */
    uint32_t guards_count, guards_max;
    struct db_reject *rejects; /* become DB_OP_REJECTs; slices live in slabs and arena */
    uint32_t rejects_count, rejects_max;
    uint32_t rejects_bytes;       /* of payloads, topics and reasons */
    struct db_publish *publishes; /* become DB_OP_MESSAGEs; slices live in slabs and arena */
    uint32_t publishes_count, publishes_max;
    size_t publishes_bytes;
    uint32_t retained; /* of publishes */
    uint32_t messages;
    bool early; /* some run is */
    /* set by the applier */
    chr_err err;
    uint64_t serial;              /* of its loop: a later one has a higher number */
    struct db_op_result *results; /* [results_count]; copied, detail empty */
    uint32_t results_count, results_max;
    /* [words of guards_count] twice: bit i of the first: guard i was a duplicate, of the second:
     * its session or generation is gone. */
    uint64_t *guard_bits;
    uint32_t guard_words_max;
};

/* The loop's open batch, begun when there is none. NULL: none free; pause the connection
 * (CONN_PAUSE_BATCH) and handle the packet again when resumed. */
struct batch *batch_open(struct broker_loop *loop);
/* A message's packet, decoded into the batch's rows already. */
struct batch_message {
    struct conn_ref conn; /* CONN_REF_NONE: of no connection (a will) */
    enum mqtt_version version;
    chr_slice raw;
    chr_slice alias_topic; /* the topic when the packet names it by alias; copied */
    bool has_ack;          /* false for QoS 0 */
    uint32_t ack_sequence; /* its place in the ack ring */
    uint32_t guard;        /* UINT32_MAX: none */
    bool deliver, rejected;
    bool across; /* as in batch_run */
    bool logged; /* added by batch_add_publish as well */
    bool early;  /* its class is memory: acknowledged when the batch is proposed */
};
/* Extends the last run where it can. slab: where raw lies; referenced. The caller counts it in
 * conn->batch_inflight. */
CHR_MUST_USE chr_err batch_add_message(struct batch *batch, struct slab *slab,
                                       const struct batch_message *message);
/* Index of a new guard; UINT32_MAX out of memory. */
uint32_t batch_add_guard(struct batch *batch, const struct db_guard *guard);
/* A message that fits no row (R3). topic and payload lie in a slab of the batch or are static; the
 * reason is copied. */
CHR_MUST_USE chr_err batch_add_reject(struct batch *batch, const struct db_reject *reject);
/* A message that goes into the log verbatim (R6, R7). Its payload lies in a slab of the batch;
 * topic and properties are copied. CHR_ENOMEM; bytes: at most BATCH_PUBLISH_BYTES_MAX. */
#define BATCH_PUBLISH_BYTES_MAX      ((size_t)3584 << 10) /* an entry is 4 MiB */
#define BATCH_PUBLISH_PROPERTIES_MAX ((size_t)256 << 10)
CHR_MUST_USE chr_err batch_add_publish(struct batch *batch, const struct db_publish *publish);
CHR_INLINE size_t batch_publish_bytes(chr_slice topic, chr_slice properties, chr_slice payload)
{
    return 64 + topic.len + properties.len + payload.len;
}
/* Would `bytes` more still fit the entry? */
bool batch_room(const struct batch *batch, size_t bytes);
/* What the entry has for rows, those pending included, when `bytes` more of other things come. */
size_t batch_rows_room(const struct batch *batch, size_t bytes);
/* Nothing is in it yet. */
bool batch_empty(const struct batch *batch);
/* Registers interest in the operation that will be added to batch->entry next. conn: may be NULL */
CHR_MUST_USE chr_err batch_wait_next_op(struct batch *batch, struct conn *conn,
                                        void (*answered)(struct conn *, void *,
                                                         const struct db_op_result *),
                                        void *arg);
/* Is it time to pass it on before the loop runs dry? */
bool batch_full(const struct batch *batch);
/* Closes the entry and proposes it; the loop has then no open batch. */
void batch_propose(struct batch *batch);

/* After the answer: was guard i a duplicate of what had been committed before? Is it gone? */
CHR_INLINE bool batch_guard_duplicate(const struct batch *batch, uint32_t i)
{
    return batch->guard_bits && (batch->guard_bits[i / 64] >> (i % 64) & 1);
}
CHR_INLINE bool batch_guard_gone(const struct batch *batch, uint32_t i)
{
    uint32_t words = (batch->guards_count + 63) / 64;
    return batch->guard_bits && (batch->guard_bits[words + i / 64] >> (i % 64) & 1);
}

/* -- For the loop -------------------------------------------------------------------------------*/

CHR_MUST_USE chr_err batches_init(struct broker_loop *loop, uint32_t count);
void batches_free(struct broker_loop *loop);
/* A batch came back: deliver, acknowledge, or decode again when stale; then it is free. */
void batch_answer(struct batch *batch);
/* Drops a reference-counted batch's contents without answering (stale: everything was moved). */
void batch_release(struct batch *batch);

#endif
