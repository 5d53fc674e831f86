/* broker/session/subscriptions_peers.c: what subscribers of other nodes want (interest.h). */
#include "base/assert.h"
#include "base/hash.h"
#include "broker/session/subscriptions_internal.h"

struct gather_peer {
    struct match *match;
    uint32_t peer;
    bool failed;
};

static void take_peer_group(void *arg, uint64_t group, bool durable)
{
    struct gather_peer *p = arg;
    struct match *m = p->match;
    uint32_t i = 0;
    m->durable |= durable;
    while (i < m->choices_count && m->choices[i].group != group)
        i++;
    if (i == m->choices_count) {
        void *array = m->choices;
        if (!subscriptions__reserve(&array, &m->choices_max, m->choices_count,
                                    sizeof *m->choices)) {
            p->failed = true;
            return;
        }
        m->choices = array;
        /* Its first turn is anybody's, or a route that is matched again and again would always give
         * it to the same node. */
        struct share_choice choice = {.group = group,
                                      .local = UINT32_MAX,
                                      .turn = (uint32_t)chr_hash_u64(m->version ^ group)};
        for (uint32_t k = 0; k < m->groups_count; k++)
            if (m->groups[k]->told == group) {
                choice.local = k;
                choice.durable = m->groups[k]->durable_count > 0;
            }
        m->choices[m->choices_count++] = choice;
    }
    m->choices[i].peers |= 1u << p->peer;
    m->choices[i].durable |= durable;
}

bool subscriptions__match_peers(const struct subscriptions *subs, chr_slice topic,
                                struct match *match)
{
    for (uint32_t i = 0; i < subs->peers_count; i++) {
        if (!subs->peers[i])
            continue;
        struct gather_peer p = {.match = match, .peer = i};
        struct peer_wants wants = {.group = take_peer_group, .arg = &p};
        peer_interest_match(subs->peers[i], topic, &wants);
        match->peers |= (wants.plain ? 1u : 0u) << i;
        match->durable |= wants.durable;
        if (p.failed)
            return false;
    }
    return true;
}

void subscriptions_tell(struct subscriptions *subs, struct own_interest *own)
{
    CHR_ASSERT(subscriptions_count(subs) == 0);
    subs->told = own;
}

void subscriptions_peer_replace(struct subscriptions *subs, uint32_t peer,
                                struct peer_interest *interest)
{
    CHR_ASSERT(peer < SUBSCRIPTIONS_PEERS_MAX);
    pthread_rwlock_wrlock(&subs->lock);
    struct peer_interest *before = subs->peers[peer];
    subs->peers[peer] = interest;
    subs->peers_count = CHR_MAX(subs->peers_count, peer + 1);
    if ((before && before->count) || (interest && interest->count)) {
        subscriptions__count_change(subs, FILTER_CHANGES_ALL); /* every topic's */
        subscriptions__publish_changes(subs);
    }
    pthread_rwlock_unlock(&subs->lock);
    peer_interest_free(before);
}

chr_err subscriptions_peer_changed(struct subscriptions *subs, uint32_t peer, chr_slice items)
{
    struct deliver_filter filter;
    chr_err err = CHR_OK;
    bool news = false;
    pthread_rwlock_wrlock(&subs->lock);
    struct peer_interest *p = peer < subs->peers_count ? subs->peers[peer] : NULL;
    if (!p)
        err = CHR_ENOTFOUND;
    while (!err && items.len) {
        bool changed = false;
        err = deliver_filter_take(&items, &filter);
        if (!err)
            err = peer_interest_set(p, &filter, &changed);
        if (changed)
            subscriptions__count_change(subs, filter_changes_key(filter.filter));
        news |= changed;
    }
    if (news)
        subscriptions__publish_changes(subs);
    pthread_rwlock_unlock(&subs->lock);
    return err;
}

uint64_t subscriptions_peer_count(struct subscriptions *subs, uint32_t peer)
{
    pthread_rwlock_rdlock(&subs->lock);
    const struct peer_interest *p = peer < subs->peers_count ? subs->peers[peer] : NULL;
    uint64_t count = p ? p->count : 0;
    pthread_rwlock_unlock(&subs->lock);
    return count;
}
