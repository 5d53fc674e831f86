/* broker/session/inspect.h: which sessions and clients there are, for SQL.
 *
 * Sessions and connections belong to their loops, which share nothing of them; so each loop is sent
 * a letter (net/ask.h) and copies what it has into a list of its own, at most INSPECT_PER_TURN
 * sessions in a turn: with a hundred thousand of them no packet waits for more than that. Between
 * two turns sessions come and go. The cursor walks the buckets of the table by session number in
 * the order of their reversed bits, so that a bucket that was split meanwhile is neither skipped
 * nor seen again (the table only grows): a session that is there throughout is met exactly once,
 * one that comes or goes meanwhile at most once. A client that left and came back in between may
 * have been met under two sessions; the newer one counts. */
#ifndef CHR_BROKER_SESSION_INSPECT_H
#define CHR_BROKER_SESSION_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"
#include "proto/mqtt/packet.h"
#include "sqlfront/sql.h"

struct broker_node;
struct listener;

#define INSPECT_PER_TURN 256

struct session_info {
    struct session_info *next;
    uint64_t number; /* of the session, in this process */
    uint64_t epoch;  /* in the log; 0: it is in memory alone */
    bool connected;
    uint32_t expiry_s;  /* after the connection; UINT32_MAX: never */
    int64_t expires_us; /* wall clock; INT64_MAX: not now (connected), or never */
    uint32_t subscriptions;
    uint64_t inflight;
    uint64_t stored_inflight;      /* of those, from the log's queue */
    uint64_t queued, queued_bytes; /* waiting, those of the log's queue apart */
    uint64_t dropped;
    chr_slice client_id; /* into bytes */

    /* Connected */
    const struct listener *listener;
    enum mqtt_version version;
    bool clean_start;
    uint16_t keep_alive_s;
    int64_t connected_us; /* wall clock */
    uint64_t messages_received, messages_sent, bytes_received, bytes_sent;
    char address[64];
    chr_slice user; /* into bytes; ptr NULL: anonymous */

    uint8_t bytes[];
};

/* Query worker; waits for the loops. Calls each() for the sessions there are (connected_only: those
 * with a connection) in no order, each client once, on the calling thread; non-zero ends it.
 *   bytes_max  for what is copied: CHR_ENOMEM beyond
 * CHR_ECANCELLED, CHR_ETIMEDOUT: by wait. */
CHR_MUST_USE chr_err inspect_sessions(struct broker_node *node, bool connected_only,
                                      uint64_t bytes_max, const struct sql_host_wait *wait,
                                      chr_err (*each)(void *arg, const struct session_info *info),
                                      void *arg);

/* Reversed-bits cursor over the buckets of a table of mask + 1 (a power of two); 0 comes first and
 * after the last one. */
uint64_t inspect_next_bucket(uint64_t cursor, uint64_t mask);

#endif
