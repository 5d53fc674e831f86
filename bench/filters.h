/* bench/filters.h: a fleet's subscriptions: from one seed the same filters and topics in every
 * program, and how many of the filters match a topic.
 *
 * Each device has four filters, two without wildcards and two with:
 *
 *   0  site/<site>/<device>/temp
 *   1  site/<site>/<device>/state
 *   2  site/<site>/<device>/+, site/+/<device>/temp, +/<site>/<device>/+ or +/+/<device>/#, in turn
 *   3  site/<site>/<device>/# or site/<site>/<device>/temp/#, in turn */
#ifndef CHR_BENCH_FILTERS_H
#define CHR_BENCH_FILTERS_H

#include <stddef.h>
#include <stdint.h>

#define FILTERS_PER_DEVICE 4u
#define FILTERS_SITES      1000u
#define FILTERS_TEXT_MAX   64u

/* Filter number i; every one is another text. Returns its length; out: [FILTERS_TEXT_MAX]. */
size_t filters_text(uint64_t seed, uint32_t i, char *out);

enum filters_topic { FILTERS_TEMP, FILTERS_STATE };
/* A topic of a device; its filters are 4 device to 4 device + 3. */
size_t filters_topic(uint64_t seed, uint32_t device, enum filters_topic which, char *out);
/* How many of the device's four filters match it; no others do. */
unsigned filters_matching(uint32_t device, enum filters_topic which);

#endif
