#include "broker/auth/backoff.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/hash.h"

/* "[2001:db8::1%eth0]:51234" or "2001:db8::1" → its bytes */
static bool read_ipv6(const char *address, struct in6_addr *out)
{
    char text[INET6_ADDRSTRLEN];
    const char *from = address[0] == '[' ? address + 1 : address;
    size_t len = strcspn(from, "%]");
    if (len >= sizeof text)
        return false;
    memcpy(text, from, len);
    text[len] = 0;
    return inet_pton(AF_INET6, text, out) == 1;
}

/* "10.0.0.7:51234" → "10.0.0.7"; a Unix socket is one address for all. Who has an IPv6 address has
 * 2^64 of them: what they share counts. An IPv4 address in IPv6's clothes is that IPv4 address. */
uint64_t backoff_address(const char *address)
{
    struct in6_addr ipv6;
    char text[INET6_ADDRSTRLEN] = "";
    chr_slice key = chr_slice_cstr(address ? address : "");
    const char *colon = address ? strrchr(address, ':') : NULL;
    if (address && read_ipv6(address, &ipv6)) {
        key = chr_slice_of(ipv6.s6_addr, 8);
        if (IN6_IS_ADDR_V4MAPPED(&ipv6) && inet_ntop(AF_INET, ipv6.s6_addr + 12, text, sizeof text))
            key = chr_slice_cstr(text);
    } else if (colon) {
        key.len = (size_t)(colon - address);
    }
    return chr_hash_slice(key, chr_hash_seed()) | 1;
}

uint64_t backoff_user(chr_slice user)
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
    int64_t of_address = left(b->addresses, backoff_address(address), now_us);
    int64_t of_user = user.len ? left(b->users, backoff_user(user), now_us) : 0;
    return CHR_MAX(of_address, of_user);
}

/* of: whose failure it is, as far as the table does not say it itself. */
static void count(struct backoff_entry (*table)[BACKOFF_WAYS], uint64_t hash, uint64_t of,
                  int64_t most_us, int64_t now_us)
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
        *e = (struct backoff_entry){.hash = hash, .of = of};
    if (e->of != of)
        e->of = 0;
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
    uint64_t of = backoff_user(user);
    count(b->addresses, backoff_address(address), of, b->max_us, now_us);
    if (user.len)
        count(b->users, of, of, CHR_MIN(BACKOFF_USER_MAX_US, b->max_us), now_us);
}

static void forgive(struct backoff_entry (*table)[BACKOFF_WAYS], uint64_t hash, uint64_t of)
{
    struct backoff_entry *e = (struct backoff_entry *)(uintptr_t)find(table, hash);
    if (e && e->of == of)
        *e = (struct backoff_entry){0};
}

void backoff_succeeded(struct backoff *b, const char *address, chr_slice user)
{
    if (user.len == 0)
        return;
    uint64_t of = backoff_user(user);
    forgive(b->addresses, backoff_address(address), of);
    forgive(b->users, of, of);
}
