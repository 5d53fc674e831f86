/* tests/sim/fake_kv.h: a db_kv in memory that crashes, fills up and fails on request (R15).
 *
 * Keeps the promises of db/kv.h and no more: a commit is atomic and durable, readers see the last
 * one and keep what they began with. Faults are fields to set at any time; commits are counted from
 * 1 over the whole life. Slices die with their transaction: their memory is then overwritten, so
 * that using one shows.
 *
 * Any thread; a thread that begins a second write transaction is told so by an assertion instead of
 * a deadlock. */
#ifndef CHR_TESTS_SIM_FAKE_KV_H
#define CHR_TESTS_SIM_FAKE_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "db/kv.h"

typedef struct fake_kv fake_kv;

struct fake_kv_faults {
    uint64_t crash_at;  /* power fails during this commit, which has then happened or not, by the
                           seed; 0: never */
    uint64_t enospc_at; /* this commit finds the disk full; nothing changed */
    uint64_t eio_at;    /* this commit fails; writing is refused (CHR_EDOUBT) until reopened */
    uint64_t capacity_bytes; /* of keys and values; commits beyond it: CHR_ENOSPC; 0: no limit */
    /* What was handed out is overwritten when it dies; off where a test measures time. */
    bool no_poison;
};

fake_kv *fake_kv_new(uint64_t seed);
void fake_kv_free(fake_kv *kv); /* all transactions ended; accepts NULL */
struct fake_kv_faults *fake_kv_faults(fake_kv *kv);
/* The seam; lives as long as kv. After a crash everything answers CHR_EIO until fake_kv_reopen. */
struct db_kv fake_kv_seam(fake_kv *kv);

uint64_t fake_kv_commits(const fake_kv *kv); /* tried, failed ones included */
bool fake_kv_crashed(const fake_kv *kv);
/* Power is back, or the process starts anew: what was committed is there, open write transactions
 * are gone (their handles must still be aborted). */
void fake_kv_reopen(fake_kv *kv);
/* Flips one bit of one stored value, by the seed. False when there is none. No transaction open. */
bool fake_kv_flip_bit(fake_kv *kv);
/* A copy of what is committed, as another store with its own seed. */
fake_kv *fake_kv_copy(const fake_kv *kv, uint64_t seed);

#endif
