/* db/request_key.c: idempotency keys. */
#include "db/request_key.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "db/internal.h"

static chr_slice whole(const struct db__request_key *k)
{
    return chr_slice_of(k->bytes, k->user_len + k->key_len);
}

static uint32_t home(const struct db__request_keys *ks, chr_slice user, chr_slice key)
{
    uint64_t seed = chr_hash_seed();
    return (uint32_t)(chr_hash_slice(user, seed) ^ chr_hash_slice(key, seed + 1)) &
           (ks->capacity * 2 - 1);
}

static uint32_t home_of(const struct db__request_keys *ks, const struct db__request_key *k)
{
    return home(ks, chr_slice_of(k->bytes, k->user_len),
                chr_slice_of(k->bytes + k->user_len, k->key_len));
}

const struct db__request_key *db__request_key_at(const struct db__request_keys *ks,
                                                 uint64_t sequence)
{
    CHR_ASSERT(sequence >= ks->first && sequence < ks->next);
    return ks->ring[sequence & (ks->capacity - 1)];
}

void db__request_keys_free(struct db__request_keys *ks)
{
    for (uint64_t s = ks->first; s < ks->next; s++)
        free(ks->ring[s & (ks->capacity - 1)]);
    free(ks->ring);
    free(ks->slots);
    memset(ks, 0, sizeof *ks);
}

static void slot_put(struct db__request_keys *ks, uint64_t sequence)
{
    uint32_t mask = ks->capacity * 2 - 1;
    uint32_t i = home_of(ks, db__request_key_at(ks, sequence));
    while (ks->slots[i])
        i = (i + 1) & mask;
    ks->slots[i] = sequence + 1;
}

static void slot_remove(struct db__request_keys *ks, uint64_t sequence)
{
    uint32_t mask = ks->capacity * 2 - 1;
    uint32_t i = home_of(ks, db__request_key_at(ks, sequence));
    while (ks->slots[i] != sequence + 1)
        i = (i + 1) & mask;
    for (uint32_t j = (i + 1) & mask; ks->slots[j]; j = (j + 1) & mask) {
        uint32_t h = home_of(ks, db__request_key_at(ks, ks->slots[j] - 1));
        if (((j - h) & mask) >= ((j - i) & mask)) {
            ks->slots[i] = ks->slots[j];
            i = j;
        }
    }
    ks->slots[i] = 0;
}

static void grow(struct db__request_keys *ks)
{
    struct db__request_keys old = *ks;
    ks->capacity = old.capacity ? old.capacity * 2 : 16;
    ks->ring = db__must_calloc(ks->capacity, sizeof *ks->ring);
    ks->slots = db__must_calloc((size_t)ks->capacity * 2, sizeof *ks->slots);
    for (uint64_t s = old.first; s < old.next; s++)
        ks->ring[s & (ks->capacity - 1)] = old.ring[s & (old.capacity - 1)];
    for (uint64_t s = old.first; s < old.next; s++)
        slot_put(ks, s);
    free(old.ring);
    free(old.slots);
}

static void forget_first(struct db__request_keys *ks)
{
    slot_remove(ks, ks->first);
    free(ks->ring[ks->first & (ks->capacity - 1)]);
    ks->first++;
}

void db__request_keys_expire(struct db__request_keys *ks, int64_t now_us)
{
    while (ks->first < ks->next &&
           db__request_key_at(ks, ks->first)->time_us <= now_us - DB__REQUEST_AGE_US_MAX)
        forget_first(ks);
}

void db__request_key_load(struct db__request_keys *ks, chr_slice user, chr_slice key,
                          int64_t time_us)
{
    struct db__request_key *k = db__must_malloc(sizeof *k + user.len + key.len);
    *k = (struct db__request_key){
        .time_us = time_us, .user_len = (uint32_t)user.len, .key_len = (uint32_t)key.len};
    if (user.len)
        memcpy(k->bytes, user.ptr, user.len);
    if (key.len)
        memcpy(k->bytes + user.len, key.ptr, key.len);
    if (ks->next - ks->first == ks->capacity)
        grow(ks);
    ks->ring[ks->next & (ks->capacity - 1)] = k;
    ks->next++;
    slot_put(ks, ks->next - 1);
}

static bool seen(const struct db__request_keys *ks, chr_slice user, chr_slice key)
{
    if (!ks->capacity)
        return false;
    uint32_t mask = ks->capacity * 2 - 1;
    for (uint32_t i = home(ks, user, key); ks->slots[i]; i = (i + 1) & mask) {
        const struct db__request_key *k = db__request_key_at(ks, ks->slots[i] - 1);
        chr_slice all = whole(k);
        if (k->user_len == user.len && all.len == user.len + key.len &&
            (user.len == 0 || memcmp(all.ptr, user.ptr, user.len) == 0) &&
            (key.len == 0 || memcmp(all.ptr + user.len, key.ptr, key.len) == 0))
            return true;
    }
    return false;
}

static void request_key_undo(struct db *d, const struct db__undo *item)
{
    struct db__request_keys *ks = &d->requests;
    (void)item;
    slot_remove(ks, ks->next - 1);
    free(ks->ring[(ks->next - 1) & (ks->capacity - 1)]);
    ks->next--;
}

void db__apply_request_key(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__request_keys *ks = &d->requests;
    chr_slice user, key;
    if (!d->apply.atomic || op->flags || op->table_id || op->count != 1 ||
        db__request_key_decode(op->body, &user, &key)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    if (seen(ks, user, key)) {
        result->err = CHR_EEXIST;
        return;
    }
    /* The oldest goes for good even if this entry fails: all nodes forget it alike. */
    if (ks->next - ks->first >= DB__REQUEST_KEYS_MAX)
        forget_first(ks);
    db__request_key_load(ks, user, key, d->apply.now_us);
    db__undo_push(d, request_key_undo);
}
