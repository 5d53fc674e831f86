#include "broker/session/registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "broker/session/session.h"
#include "db/durable.h"

#define BUCKETS_FIRST 256u

struct registry {
    pthread_mutex_t lock;
    struct session **buckets;
    size_t mask, count;
    _Atomic uint64_t last_number;
    _Atomic uint32_t reserved;
    struct recovered_session *recovered;
};

chr_err registry_new(struct registry **out)
{
    struct registry *r = calloc(1, sizeof *r);
    struct session **buckets = calloc(BUCKETS_FIRST, sizeof(struct session *));
    if (!r || !buckets) {
        free(r);
        free((void *)buckets);
        return CHR_ENOMEM;
    }
    r->buckets = buckets;
    r->mask = BUCKETS_FIRST - 1;
    pthread_mutex_init(&r->lock, NULL);
    *out = r;
    return CHR_OK;
}

void registry_free(struct registry *r)
{
    if (!r)
        return;
    CHR_ASSERT(r->count == 0);
    while (r->recovered) {
        struct recovered_session *next = r->recovered->next;
        free(r->recovered);
        r->recovered = next;
    }
    pthread_mutex_destroy(&r->lock);
    free((void *)r->buckets);
    free(r);
}

static void grow(struct registry *r)
{
    size_t count = (r->mask + 1) * 2;
    struct session **buckets = calloc(count, sizeof(struct session *));
    if (!buckets)
        return; /* longer chains */
    for (size_t i = 0; i <= r->mask; i++) {
        while (r->buckets[i]) {
            struct session *s = r->buckets[i];
            r->buckets[i] = s->registry_next;
            s->registry_next = buckets[s->client_hash & (count - 1)];
            buckets[s->client_hash & (count - 1)] = s;
        }
    }
    free((void *)r->buckets);
    r->buckets = buckets;
    r->mask = count - 1;
}

struct session *registry_claim(struct registry *r, chr_slice client_id, struct session *session,
                               struct broker_loop **owner)
{
    uint64_t hash = chr_hash_slice(client_id, chr_hash_seed());
    pthread_mutex_lock(&r->lock);
    struct session *s = r->buckets[hash & r->mask];
    while (s && (s->client_hash != hash || !chr_slice_eq(s->client_id, client_id)))
        s = s->registry_next;
    if (!s && session) {
        if (r->count > r->mask)
            grow(r);
        session->client_hash = hash;
        session->registry_next = r->buckets[hash & r->mask];
        r->buckets[hash & r->mask] = session;
        r->count++;
        s = session;
    }
    *owner = s ? s->loop : NULL;
    pthread_mutex_unlock(&r->lock);
    return s;
}

void registry_remove(struct registry *r, struct session *session)
{
    pthread_mutex_lock(&r->lock);
    struct session **at = &r->buckets[session->client_hash & r->mask];
    while (*at && *at != session)
        at = &(*at)->registry_next;
    if (*at) {
        *at = session->registry_next;
        r->count--;
    }
    pthread_mutex_unlock(&r->lock);
}

bool registry_reserve(struct registry *r, uint64_t lasting, uint32_t most)
{
    if (atomic_fetch_add(&r->reserved, 1) + lasting < most || most == 0)
        return true;
    atomic_fetch_sub(&r->reserved, 1);
    return false;
}

void registry_unreserve(struct registry *r)
{
    atomic_fetch_sub(&r->reserved, 1);
}

uint32_t registry_reserved(const struct registry *r)
{
    return atomic_load(&r->reserved);
}

size_t registry_count(struct registry *r)
{
    pthread_mutex_lock(&r->lock);
    size_t count = r->count;
    pthread_mutex_unlock(&r->lock);
    return count;
}

uint64_t registry_next_number(struct registry *r)
{
    return atomic_fetch_add_explicit(&r->last_number, 1, memory_order_relaxed) + 1;
}

chr_err registry_recovered(struct registry *r, const struct db_session_info *info)
{
    chr_slice client_id = info->client_id;
    struct recovered_session *s = malloc(sizeof *s + client_id.len);
    if (!s)
        return CHR_ENOMEM;
    *s = (struct recovered_session){.epoch = info->epoch,
                                    .generation = info->generation,
                                    .expiry_s = info->expiry_s,
                                    /* Of one that was connected any may have been sent. */
                                    .sent = info->connected ? info->next_sequence - 1 : info->sent,
                                    .connected = info->connected,
                                    .client_len = (uint32_t)client_id.len};
    if (client_id.len)
        memcpy(s->client_id, client_id.ptr, client_id.len);
    pthread_mutex_lock(&r->lock);
    s->next = r->recovered;
    r->recovered = s;
    pthread_mutex_unlock(&r->lock);
    return CHR_OK;
}

struct recovered_session *registry_take_recovered(struct registry *r, uint32_t number,
                                                  uint32_t loops)
{
    struct recovered_session *mine = NULL;
    pthread_mutex_lock(&r->lock);
    struct recovered_session **at = &r->recovered;
    while (*at) {
        struct recovered_session *s = *at;
        if (s->epoch % loops != number) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        s->next = mine;
        mine = s;
    }
    pthread_mutex_unlock(&r->lock);
    return mine;
}
