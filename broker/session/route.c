#include "broker/session/route.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "broker/net/loop.h"
#include "broker/node.h"
#include "proto/mqtt/topic.h"

#define SLOTS_FIRST 256u

chr_err routes_init(struct routes *routes, struct broker_loop *loop)
{
    *routes = (struct routes){.loop = loop, .mask = SLOTS_FIRST - 1};
    routes->slots = calloc(SLOTS_FIRST, sizeof *routes->slots);
    return routes->slots ? CHR_OK : CHR_ENOMEM;
}

static void route_free(struct routes *routes, struct route *route)
{
    routes->bytes -= route->bytes;
    ingest_route_free(route->ingest);
    match_free(&route->match);
    free(route);
}

/* After its match has changed. */
static void count_bytes(struct routes *routes, struct route *route)
{
    const struct match *m = &route->match;
    size_t bytes = sizeof *route + route->topic_len + m->own_max * sizeof *m->own +
                   m->groups_max * sizeof(struct share_group *) + m->ids_max +
                   m->choices_max * sizeof *m->choices;
    routes->bytes += bytes - route->bytes;
    route->bytes = bytes;
}

void routes_clear(struct routes *routes)
{
    for (uint32_t i = 0; routes->slots && i <= routes->mask; i++) {
        if (!routes->slots[i].route)
            continue;
        route_free(routes, routes->slots[i].route);
        routes->slots[i].route = NULL;
    }
    routes->count = 0;
    routes->hand = 0;
}

void routes_free(struct routes *routes)
{
    routes_clear(routes);
    free(routes->slots);
    routes->slots = NULL;
}

/* ---- What a topic is --------------------------------------------------------------------------
 */

static bool under(chr_slice topic, chr_slice prefix)
{
    return chr_slice_starts(topic, prefix) &&
           (topic.len == prefix.len || topic.ptr[prefix.len] == '/');
}

bool route_is_peers(chr_slice topic)
{
    return under(topic, CHR_LIT("$chronos/peer"));
}

enum route_kind route_kind_of(chr_slice topic)
{
    if (topic.len == 0 || topic.ptr[0] != '$')
        return ROUTE_PLAIN;
    if (route_is_peers(topic) || under(topic, CHR_LIT("$chronos/sync")))
        return ROUTE_PEERS;
    if (chr_slice_eq(topic, CHR_LIT("$chronos/sql")))
        return ROUTE_SQL;
    chr_slice prefix = CHR_LIT("$chronos/sql/");
    if (chr_slice_starts(topic, prefix))
        /* A token is one level and not empty: results go to $chronos/result/<token>. */
        return topic.len > prefix.len &&
                       !memchr(topic.ptr + prefix.len, '/', topic.len - prefix.len)
                   ? ROUTE_SQL_TOKEN
                   : ROUTE_REFUSED;
    if (under(topic, CHR_LIT("$chronos/cancel")))
        return ROUTE_CANCEL;
    return ROUTE_REFUSED;
}

/* ---- The table --------------------------------------------------------------------------------
 */

static void put(struct route_slot *slots, uint32_t mask, struct route *route)
{
    uint32_t i = (uint32_t)route->hash & mask;
    while (slots[i].route)
        i = (i + 1) & mask;
    slots[i] = (struct route_slot){route->hash, route};
}

static void grow(struct routes *routes)
{
    uint32_t mask = routes->mask * 2 + 1;
    struct route_slot *slots = calloc((size_t)mask + 1, sizeof *slots);
    if (!slots)
        return;
    for (uint32_t i = 0; i <= routes->mask; i++)
        if (routes->slots[i].route)
            put(slots, mask, routes->slots[i].route);
    free(routes->slots);
    routes->slots = slots;
    routes->mask = mask;
}

/* Empties slot i and moves back what would no longer be found behind it. */
static void remove_slot(struct routes *routes, uint32_t i)
{
    struct route_slot *slots = routes->slots;
    uint32_t mask = routes->mask;
    route_free(routes, slots[i].route);
    routes->count--;
    for (uint32_t j = (i + 1) & mask; slots[j].route; j = (j + 1) & mask) {
        uint32_t home = (uint32_t)slots[j].hash & mask;
        if (((j - home) & mask) >= ((j - i) & mask)) {
            slots[i] = slots[j];
            i = j;
        }
    }
    slots[i].route = NULL;
}

/* Frees one route that was not used lately; keep stays. */
static void evict(struct routes *routes, const struct route *keep)
{
    for (uint64_t steps = 0; steps < 2 * ((uint64_t)routes->mask + 1); steps++) {
        routes->hand = (routes->hand + 1) & routes->mask;
        struct route *route = routes->slots[routes->hand].route;
        if (!route || route == keep)
            continue;
        if (!route->used) {
            remove_slot(routes, routes->hand);
            return;
        }
        route->used = false;
    }
}

struct route *routes_peek(struct routes *routes, chr_slice topic)
{
    uint64_t hash = chr_hash_slice(topic, chr_hash_seed());
    for (uint32_t i = (uint32_t)hash & routes->mask; routes->slots[i].route;
         i = (i + 1) & routes->mask) {
        struct route *route = routes->slots[i].route;
        if (routes->slots[i].hash == hash && chr_slice_eq(route_topic(route), topic)) {
            route->used = true;
            return route;
        }
    }
    return NULL;
}

struct route *routes_get(struct routes *routes, chr_slice topic)
{
    struct route *route = routes_peek(routes, topic);
    if (route)
        return route;
    while (routes->count >= ROUTES_MAX ||
           (routes->bytes + topic.len > ROUTES_BYTES_MAX && routes->count > 0))
        evict(routes, NULL);
    if (routes->count * 2 > routes->mask)
        grow(routes);
    if (routes->count >= routes->mask) /* no memory to grow: keep room for the search to end */
        evict(routes, NULL);
    route = calloc(1, sizeof *route + topic.len);
    if (!route)
        return NULL;
    route->hash = chr_hash_slice(topic, chr_hash_seed());
    route->kind = route_kind_of(topic);
    route->topic_len = (uint32_t)topic.len;
    memcpy(route->topic, topic.ptr, topic.len);
    if (route->kind == ROUTE_PLAIN && routes->loop->mappings &&
        ingest_route_make(routes->loop->mappings, topic, &route->ingest)) {
        free(route);
        return NULL;
    }
    route->ack = DB_ACK_MEMORY;
    for (uint32_t i = 0; route->ingest && i < ingest_route_tables_count(route->ingest); i++)
        route->ack = CHR_MIN(route->ack, ingest_route_table(route->ingest, i)->ack);
    put(routes->slots, routes->mask, route);
    routes->count++;
    count_bytes(routes, route);
    return route;
}

const struct match *route_match(struct routes *routes, struct route *route)
{
    struct subscriptions *subs = routes->loop->node->subscriptions;
    if (CHR_LIKELY(subscriptions_current(subs, route_topic(route), &route->match)))
        return &route->match;
    chr_err err = subscriptions_match(subs, route_topic(route), routes->loop, &route->match);
    if (err)
        match_free(&route->match);
    routes->matches++;
    count_bytes(routes, route);
    return err ? NULL : &route->match;
}
