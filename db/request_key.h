/* db/request_key.h: idempotency keys of SQL writes (R2): a write whose answer was lost may be sent
 * again and is not done twice. Bounded in count and age, by replicated time. Applier only. */
#ifndef CHR_DB_REQUEST_KEY_H
#define CHR_DB_REQUEST_KEY_H

#include <stdint.h>

#include "base/slice.h"
#include "db/op_decode.h"

#define DB__REQUEST_KEYS_MAX   65536u
#define DB__REQUEST_AGE_US_MAX (INT64_C(24) * 3600 * 1000000)

struct db;
struct db_op_result;

struct db__request_key {
    int64_t time_us;
    uint32_t user_len, key_len;
    uint8_t bytes[]; /* user, key */
};

/* A ring by sequence number, and a hash over it. */
struct db__request_keys {
    uint64_t first, next;          /* sequence numbers kept: [first, next) */
    struct db__request_key **ring; /* [capacity], at sequence & (capacity - 1) */
    uint64_t *slots;               /* [capacity * 2], sequence + 1; 0: empty */
    uint32_t capacity;             /* a power of two */
};

void db__request_keys_free(struct db__request_keys *keys);
/* Forgets what is too old. */
void db__request_keys_expire(struct db__request_keys *keys, int64_t now_us);
/* result->err CHR_EEXIST: seen before. */
void db__apply_request_key(struct db *db, const struct db__op *op, struct db_op_result *result);
/* Recovery: in order of sequence. */
void db__request_key_load(struct db__request_keys *keys, chr_slice user, chr_slice key,
                          int64_t time_us);
const struct db__request_key *db__request_key_at(const struct db__request_keys *keys,
                                                 uint64_t sequence);

#endif
