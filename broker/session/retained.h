/* broker/session/retained.h: the last message of each topic that was published to be kept
 * (3.3.1.3).
 *
 * Shared by all loops, in memory, behind a read-write lock, bounded by count and bytes: at the
 * limit a new topic is not kept (the message is delivered as usual) and counted; replacing the
 * message of a known topic always works. Expired messages are gone for readers at once and given
 * back by a sweep. */
#ifndef CHR_BROKER_SESSION_RETAINED_H
#define CHR_BROKER_SESSION_RETAINED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "broker/session/message.h"

struct retained;

CHR_MUST_USE chr_err retained_new(uint64_t count_max, uint64_t bytes_max, struct retained **out);
void retained_free(struct retained *retained); /* accepts NULL */
/* Keeps the message (takes a reference) for its topic, or forgets the topic when the payload is
 * empty. Of the limits, message->own is free. CHR_EFULL, CHR_ENOMEM: not kept. */
CHR_MUST_USE chr_err retained_set(struct retained *retained, struct message *message);
/* Calls each(arg, message) for the messages a filter matches, until it returns false; under the
 * lock for reading, so it only takes references. filter: not shared. */
void retained_match(struct retained *retained, chr_slice filter, int64_t now_mono_us,
                    bool (*each)(void *arg, struct message *message), void *arg);
/* Gives back expired messages; a full walk, so not often. */
void retained_sweep(struct retained *retained, int64_t now_mono_us);

struct retained_stats {
    uint64_t count, bytes, refused; /* count and bytes without the node's own */
};
void retained_stats(struct retained *retained, struct retained_stats *out);

#endif
