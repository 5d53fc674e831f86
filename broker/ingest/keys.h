/* broker/ingest/keys.h: looking a JSON key up, inline because it is done for every key. */
#ifndef CHR_BROKER_INGEST_KEYS_H
#define CHR_BROKER_INGEST_KEYS_H

#include "base/bytes.h"
#include "broker/ingest/internal.h"

CHR_INLINE void ingest_key_words(const uint8_t *key, size_t len, uint64_t *first, uint64_t *last)
{
    uint64_t word = chr_get_u64le(key);
    if (len <= 8) {
        *first = *last = word & (~UINT64_C(0) >> (64 - 8 * len));
    } else {
        *first = word;
        *last = chr_get_u64le(key + len - 8);
    }
}

CHR_INLINE uint32_t ingest_key_slot(const struct ingest_keys *keys, uint64_t first, uint64_t last,
                                    size_t len)
{
    uint64_t mixed = first + (last << 29 | last >> 35) + len;
    return (uint32_t)((mixed * keys->multiplier) >> keys->shift);
}

/* key: len bytes, followed by at least 8 readable ones. NULL: names no column. */
CHR_INLINE const struct ingest_key *ingest_key_find(const struct ingest_keys *keys,
                                                    const uint8_t *key, size_t len)
{
    if (CHR_UNLIKELY(len == 0 || len > DB_NAME_BYTES_MAX))
        return NULL;
    uint64_t first, last;
    ingest_key_words(key, len, &first, &last);
    uint32_t at = ingest_key_slot(keys, first, last, len);
    for (;; at = (at + 1) & keys->mask) {
        const struct ingest_key *k = &keys->slots[at];
        if (CHR_LIKELY(k->first == first && k->last == last && k->len == len) &&
            (len <= 16 || memcmp(k->name, key, len) == 0))
            return k;
        if (k->len == 0)
            return NULL;
    }
}

/* As written, else with its ASCII letters in lower case: an unquoted column name was folded, and a
 * payload's `batteryVoltage` means the column that was created as batteryVoltage. */
const struct ingest_key *ingest__key_find_folded(const struct ingest_keys *keys, const uint8_t *key,
                                                 size_t len);

#endif
