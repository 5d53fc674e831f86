/* broker/session/encoded.h: a message's PUBLISH packets at QoS 0, made once for all who get the
 * same bytes.
 *
 * At QoS 0 a packet differs between subscribers only by protocol version and RETAIN flag, unless a
 * subscriber has identifiers or topic aliases, or the message an expiry that runs. So a message to
 * a thousand subscribers is encoded once or twice, and each of them costs one copy. On the stack of
 * one delivery; loop thread. */
#ifndef CHR_BROKER_SESSION_ENCODED_H
#define CHR_BROKER_SESSION_ENCODED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "proto/mqtt/packet.h"

struct message;

/* Of larger packets the copy is most of the work, and from 4 KiB of payload on they are not copied.
 */
#define ENCODED_BYTES_MAX 1024u

struct encoded {
    const struct message *message; /* borrowed; NULL: none of its packets is made here */
    uint16_t len[2][2];            /* by version 5.0, by RETAIN; 0: not made yet */
    uint8_t bytes[2][2][ENCODED_BYTES_MAX];
};

/* Nothing is made yet. message: NULL: nothing will be. */
void encoded_init(struct encoded *encoded, const struct message *message);
/* The whole packet; empty: not of this message. Good as long as encoded. */
chr_slice encoded_packet(struct encoded *encoded, enum mqtt_version version, bool retain);

#endif
