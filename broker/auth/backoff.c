#include "broker/auth/backoff.h"

#include <string.h>

#include "base/hash.h"

/* "10.0.0.7:51234" → "10.0.0.7"; a Unix socket is one address for all. */
static uint64_t address_hash(const char *address)
{
    chr_slice text = chr_slice_cstr(address ? address : "");
    const char *colon = address ? strrchr(address, ':') : NULL;
    bool bare_ipv6 = address && address[0] != '[' && colon && strchr(address, ':') != colon;
    if (colon && !bare_ipv6)
        text.len = (size_t)(colon - address);
    return chr_hash_slice(text, chr_hash_seed()) | 1;
}

static uint64_t user_hash(chr_slice user)
{
    return chr_hash_slice(user, chr_hash_seed() ^ 1) | 1;
}

static const struct backoff_entry *find(const struct backoff_entry (*table)[BACKOFF_WAYS],
                                        uint64_t hash)
{
    const struct backoff_entry *bucket = table[(hash >> 1) % BACKOFF_BUCKETS];
    for (unsigned i = 0; i < BACKOFF_WAYS; i++)
        if (bucket[i].hash == hash)
            return &bucket[i];
    return NULL;
}

static int64_t left(const struct backoff_entry (*table)[BACKOFF_WAYS], uint64_t hash,
                    int64_t now_us)
{
    const struct backoff_entry *e = find(table, hash);
    return e && e->until_us > now_us ? e->until_us - now_us : 0;
}

int64_t backoff_left(const struct backoff *b, const char *address, chr_slice user, int64_t now_us)
{
    if (b->max_us == 0)
        return 0;
    int64_t of_address = left(b->addresses, address_hash(address), now_us);
    int64_t of_user = user.len ? left(b->users, user_hash(user), now_us) : 0;
    return CHR_MAX(of_address, of_user);
}

static void count(struct backoff_entry (*table)[BACKOFF_WAYS], uint64_t hash, int64_t most_us,
                  int64_t now_us)
{
    struct backoff_entry *bucket = table[(hash >> 1) % BACKOFF_BUCKETS], *e = &bucket[0];
    for (unsigned i = 0; i < BACKOFF_WAYS; i++) {
        if (bucket[i].hash == hash) {
            e = &bucket[i];
            break;
        }
        if (bucket[i].last_us < e->last_us || bucket[i].hash == 0)
            e = &bucket[i];
    }
    if (e->hash != hash || now_us - e->last_us > BACKOFF_FORGET_US)
        *e = (struct backoff_entry){.hash = hash};
    e->last_us = now_us;
    e->failures += e->failures < UINT32_MAX;
    if (e->failures <= BACKOFF_FREE)
        return;
    uint32_t doubled = CHR_MIN(e->failures - BACKOFF_FREE - 1, 30u);
    int64_t wait_us = BACKOFF_FIRST_US << doubled;
    e->until_us = now_us + CHR_MIN(wait_us, most_us);
}

void backoff_failed(struct backoff *b, const char *address, chr_slice user, int64_t now_us)
{
    if (b->max_us == 0)
        return;
    count(b->addresses, address_hash(address), b->max_us, now_us);
    if (user.len)
        count(b->users, user_hash(user), CHR_MIN(BACKOFF_USER_MAX_US, b->max_us), now_us);
}

void backoff_succeeded(struct backoff *b, const char *address, chr_slice user)
{
    struct backoff_entry *e =
        (struct backoff_entry *)(uintptr_t)find(b->addresses, address_hash(address));
    if (e)
        *e = (struct backoff_entry){0};
    e = user.len ? (struct backoff_entry *)(uintptr_t)find(b->users, user_hash(user)) : NULL;
    if (e)
        *e = (struct backoff_entry){0};
}
