/* broker/auth/backoff.h: who failed lately has to wait before being looked at again.
 *
 * Two bounded tables, by address and by user name. The first BACKOFF_FREE failures cost nothing
 * (a typo is no attack); from then on the wait doubles from 250 ms to the maximum for an address,
 * and to BACKOFF_USER_MAX_US for a name, so that nobody can lock somebody else out for long. A
 * success forgives the name, and the address when nobody else failed there: else who has one
 * password could try for others' as often as he likes. BACKOFF_FORGET_US without a failure forgives
 * all. A full bucket gives up its oldest. */
#ifndef CHR_BROKER_AUTH_BACKOFF_H
#define CHR_BROKER_AUTH_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define BACKOFF_FREE        10u
#define BACKOFF_FIRST_US    INT64_C(250000)
#define BACKOFF_USER_MAX_US INT64_C(5000000)
#define BACKOFF_FORGET_US   INT64_C(600000000)
#define BACKOFF_BUCKETS     1024u
#define BACKOFF_WAYS        4u

struct backoff_entry {
    uint64_t hash; /* 0: free */
    uint64_t of;   /* backoff_user() of all who failed; 0: of several */
    int64_t last_us;
    int64_t until_us;
    uint32_t failures;
};

struct backoff {
    int64_t max_us; /* 0: off */
    struct backoff_entry addresses[BACKOFF_BUCKETS][BACKOFF_WAYS];
    struct backoff_entry users[BACKOFF_BUCKETS][BACKOFF_WAYS];
};

/* How long address (port and all) and user still have to wait, in microseconds; 0: not at all.
 * Callers lock. */
int64_t backoff_left(const struct backoff *b, const char *address, chr_slice user, int64_t now_us);
void backoff_failed(struct backoff *b, const char *address, chr_slice user, int64_t now_us);
/* user: the name that was proven; "" none. */
void backoff_succeeded(struct backoff *b, const char *address, chr_slice user);
/* What they are counted under; never 0. */
uint64_t backoff_address(const char *address);
uint64_t backoff_user(chr_slice user);

#endif
