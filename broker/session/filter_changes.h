/* broker/session/filter_changes.h: whether any filter that matches a topic has changed, without
 * looking at the filters.
 *
 * Every filter has one key, every topic a few, and (F1) the key of a filter that matches a topic is
 * among the topic's. There is a counter for each key, and each change of a filter adds one to its
 * key's. So the sum of a topic's counters stands still as long as no filter that matches it
 * changes: counters only grow, so the sum is what it was only if each of them is. That it moved may
 * also be another filter with the same key; then a match is made again that need not have been.
 *
 * The keys of a filter:
 *   without wildcards          its text
 *   with                       one part of it without: the levels before its first wildcard, or one
 *                              level behind that with its position, whichever looks rarer
 *   nothing but wildcards      the key of all topics
 * The keys of a topic: its text; each of its beginnings; each of its levels with its position; the
 * key of all. F1: a filter without wildcards matches only the topic that is its text. The levels
 * before the first wildcard of one that matches are the topic's first levels (all of them, for
 * `a/#` and `a`), and a level of it without wildcard is the topic's in that position. Which of them
 * is chosen makes no difference to that, only to how often a change concerns others.
 *
 * Threads. A change is counted before the version it belongs to is published (subscriptions.c), and
 * under the lock that a match is made under for reading. So who sees the version sees the counts,
 * and the sum that was taken with a match is exactly that of its version. */
#ifndef CHR_BROKER_SESSION_FILTER_CHANGES_H
#define CHR_BROKER_SESSION_FILTER_CHANGES_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/slice.h"

/* Counters: 256 KiB, of which only those in use are memory. A topic of four levels has ten keys, so
 * a thousand changes of other filters void one match in four. */
#define FILTER_CHANGES_KEYS 32768u
#define FILTER_CHANGES_ALL  0u /* the key of all topics */

/* Of a valid filter; below FILTER_CHANGES_KEYS. */
uint32_t filter_changes_key(chr_slice filter);
/* The sum of a topic's counters. counts: [FILTER_CHANGES_KEYS] */
uint64_t filter_changes_sum(const _Atomic uint64_t *counts, chr_slice topic);

#endif
