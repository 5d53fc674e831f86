/* bridge/deliver_codec.h: what nodes tell each other about subscribers and messages for them, as
 * bytes (docs/formats.md, "Between nodes"). All integers little-endian. Pure: any thread.
 *
 *   PEERS_DELIVER (BULK), first byte
 *     1 MESSAGES  numbered messages for subscribers there
 *     2 FILTERS   all filters that have subscribers here, in parts
 *     3 CHANGES   what has changed of them since a version
 *   PEERS_DELIVERED (CONTROL), first byte
 *     1 MESSAGES  up to which number they were taken
 *     2 FILTERS   up to which part or version they are known
 *
 * Everything read here comes from a peer that has proved to be one, and is checked all the same. */
#ifndef CHR_BRIDGE_DELIVER_CODEC_H
#define CHR_BRIDGE_DELIVER_CODEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

enum deliver_type { DELIVER_MESSAGES = 1, DELIVER_FILTERS = 2, DELIVER_CHANGES = 3 };

/* -- Messages -----------------------------------------------------------------------------------
 *
 *   head, 32 bytes
 *     0  u8  1, 7 zeros
 *     8  u64 boot of the sender's process
 *    16  u64 boot of the receiver's process, as the sender knows it
 *    24  u64 number of the first message; the others follow by one
 *   message, 40 bytes and more
 *     0  u32 length of all of it
 *     4  u8  QoS, u8 flags (1 retain, 2 expires, 4 for plain subscribers), u16 count of groups
 *     8  u64 publisher: the same for all messages of a client, for their order
 *    16  u64 log index that is to be applied before it is delivered; 0: none
 *    24  u64 milliseconds until it expires
 *    32  u32 length of the properties, u16 length of the topic, 2 zeros
 *    40  u64 for each group: which share groups the receiver serves; topic, properties, payload */
#define DELIVER_HEAD_BYTES    32u
#define DELIVER_MESSAGE_BYTES 40u
#define DELIVER_GROUPS_MAX    1024u

struct deliver_head {
    uint64_t from_boot, to_boot, first;
};
struct deliver_message {
    uint8_t qos;
    bool retain, expires;
    bool plain; /* for those whose subscription is not shared; else for the groups alone */
    uint64_t expires_ms;
    uint64_t publisher, after;
    uint32_t groups_count;
    const uint8_t *groups; /* little-endian u64s at any address: deliver_group */
    chr_slice topic, properties, payload;
};
uint64_t deliver_group(const struct deliver_message *message, uint32_t i);
void deliver_head_put(struct chr_buf *out, const struct deliver_head *head);
size_t deliver_message_bytes(const struct deliver_message *message);
/* groups: [groups_count] (message->groups is not looked at). Fails as chr_buf does. */
void deliver_message_put(struct chr_buf *out, const struct deliver_message *message,
                         const uint64_t *groups);
/* Takes the head off. CHR_EMALFORMED. */
CHR_MUST_USE chr_err deliver_head_take(chr_slice *bytes, struct deliver_head *out);
/* Takes the next message off what is left; *bytes must not be empty. CHR_EMALFORMED; topics are
 * valid names. */
CHR_MUST_USE chr_err deliver_message_take(chr_slice *bytes, struct deliver_message *out);

/* -- Filters ------------------------------------------------------------------------------------
 *
 *   head, 40 bytes                          FILTERS             CHANGES
 *     0  u8 type, u8 last part, 6 zeros
 *     8  u64 boot of the sender's process
 *    16  u64 which telling: rises each time everything is told anew
 *    24  u64                                version at its      version before
 *                                           beginning
 *    32  u64                                part, from 0        version after
 *   filter, 8 bytes and more
 *     0  u16 length of the group, u16 length of the filter
 *     4  u8 flags (1 there are subscribers, 2 durable ones above QoS 0), 3 zeros
 *     8  group, filter */
#define DELIVER_FILTERS_BYTES 40u
#define DELIVER_FILTERS_LAST  1u /* places of what is known only when the filters are there */
#define DELIVER_FILTERS_TO    32u
#define DELIVER_FILTER_BYTES  8u

struct deliver_filters {
    enum deliver_type type; /* DELIVER_FILTERS or DELIVER_CHANGES */
    bool last;              /* FILTERS */
    uint64_t boot, telling;
    uint64_t from; /* FILTERS: the version that everything told is at least as new as */
    uint64_t to;   /* FILTERS: part */
};
struct deliver_filter {
    chr_slice group, filter; /* group empty: not shared */
    bool present, durable;
};
void deliver_filters_put(struct chr_buf *out, const struct deliver_filters *head);
size_t deliver_filter_bytes(const struct deliver_filter *filter);
void deliver_filter_put(struct chr_buf *out, const struct deliver_filter *filter);
CHR_MUST_USE chr_err deliver_filters_take(chr_slice *bytes, struct deliver_filters *out);
/* CHR_EMALFORMED; filters are valid ones. */
CHR_MUST_USE chr_err deliver_filter_take(chr_slice *bytes, struct deliver_filter *out);

/* -- Acknowledgements ---------------------------------------------------------------------------
 *
 *   40 bytes             MESSAGES                       FILTERS
 *     0  u8 type, u8 flag: again / everything is wanted, 6 zeros
 *     8  u64             boot of the messages' sender   boot of the filters' sender
 *    16  u64             boot of their receiver         which telling
 *    24  u64             number of the last one taken   version known; 0: none yet
 *    32  u64             0                              boot of their receiver */
#define DELIVERED_BYTES 40u
struct delivered {
    enum deliver_type type; /* DELIVER_MESSAGES or DELIVER_FILTERS */
    bool again;             /* the next is missing; FILTERS: everything is wanted */
    uint64_t boot;          /* of the one who is told */
    uint64_t telling;       /* FILTERS */
    uint64_t up_to;
    uint64_t receiver_boot; /* of the one who tells */
};
void delivered_put(const struct delivered *d, uint8_t out[DELIVERED_BYTES]);
CHR_MUST_USE chr_err delivered_take(chr_slice bytes, struct delivered *out);

#endif
