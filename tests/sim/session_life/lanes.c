/* What nodes tell each other beside the log: filters, messages for plain subscribers, connections
 * (across.h, elsewhere.h). In order on each lane while its connection lasts; what is on its way is
 * lost with it. */
#include <string.h>

#include "broker/cluster.h"
#include "broker/session/across_internal.h"
#include "broker/session/elsewhere.h"
#include "tests/sim/session_life/world.h"

#define TICK_US INT64_C(250000)

static void lane_free(struct lane *lane)
{
    while (lane->first) {
        struct letter *next = lane->first->next;
        free(lane->first);
        lane->first = next;
    }
    lane->last = NULL;
}

static void tell_lanes(struct life_node *n, uint32_t other, bool up)
{
    struct across *a = across_of(&n->base.node);
    for (int lane = 0; a && lane < PEERS_LANES; lane++)
        across_lane(a, life_number(other), (enum peers_lane)lane, up);
}

void lanes_cut(struct world *w, uint32_t a, uint32_t b)
{
    if (a == b || !w->linked[a][b])
        return;
    w->linked[a][b] = w->linked[b][a] = false;
    for (int lane = 0; lane < PEERS_LANES; lane++) {
        lane_free(&w->lanes[a][b][lane]);
        lane_free(&w->lanes[b][a][lane]);
    }
    tell_lanes(&w->nodes[a], b, false);
    tell_lanes(&w->nodes[b], a, false);
}

void lanes_link(struct world *w)
{
    for (uint32_t a = 0; a < w->nodes_count; a++)
        for (uint32_t b = a + 1; b < w->nodes_count; b++) {
            if (w->linked[a][b] || !life_runs(&w->nodes[a]) || !life_runs(&w->nodes[b]))
                continue;
            w->linked[a][b] = w->linked[b][a] = true;
            tell_lanes(&w->nodes[a], b, true);
            tell_lanes(&w->nodes[b], a, true);
        }
}

/* across_start without its thread. */
void lanes_started(struct life_node *n)
{
    struct across *a = across_of(&n->base.node);
    a->open = true;
    n->across_tick_us = 0;
}

/* As across_main does it. */
void lanes_turn(struct life_node *n)
{
    struct across *a = across_of(&n->base.node);
    int64_t now_us = n->base.clock.mono_us;
    if (!a)
        return;
    bool tick = now_us >= n->across_tick_us;
    for (uint32_t i = 0; i < a->count; i++) {
        struct across_peer *p = &a->list[i];
        if (tick) {
            across__filters_tick(a, p, now_us);
            across__messages_tick(a, p, now_us);
        }
        across__messages_ack(a, p);
        across__filters_send(a, p);
        across__messages_send(a, p);
    }
    if (tick) {
        across__held_tick(a, now_us);
        n->across_tick_us = now_us + TICK_US;
    }
    (void)across__subscribes_turn(a);
}

static chr_err post(struct life_node *from, uint32_t to, enum peers_lane number, uint8_t kind,
                    const chr_slice *parts, uint32_t parts_count)
{
    struct world *w = from->w;
    struct lane *lane = &w->lanes[from->i][to][number];
    size_t len = 0;
    if (!w->linked[from->i][to])
        return CHR_ECLOSED;
    for (uint32_t i = 0; i < parts_count; i++)
        len += parts[i].len;
    struct letter *l = malloc(sizeof *l + len);
    REQUIRE(l);
    *l = (struct letter){.kind = kind, .len = len};
    len = 0;
    for (uint32_t i = 0; i < parts_count; len += parts[i++].len)
        if (parts[i].len)
            memcpy(l->bytes + len, parts[i].ptr, parts[i].len);
    if (lane->last)
        lane->last->next = l;
    else
        lane->first = l;
    lane->last = l;
    return CHR_OK;
}

static bool deliver_one(struct world *w, uint32_t from, uint32_t to, enum peers_lane number)
{
    struct lane *lane = &w->lanes[from][to][number];
    struct letter *l = lane->first;
    struct life_node *n = &w->nodes[to];
    if (!l)
        return false;
    lane->first = l->next;
    if (!lane->first)
        lane->last = NULL;
    struct peers_message message = {.from = life_number(from),
                                    .lane = number,
                                    .kind = l->kind,
                                    .bytes = chr_slice_of(l->bytes, l->len)};
    if (l->kind == PEERS_CONNECTED)
        elsewhere_received(&n->base.node, &message);
    else
        across_received(across_of(&n->base.node), &message);
    free(l);
    return true;
}

bool lanes_deliver(struct world *w, uint32_t from, uint32_t to, uint32_t most)
{
    bool any = false;
    for (uint32_t i = 0; i < most && life_runs(&w->nodes[to]); i++)
        for (int lane = 0; lane < PEERS_LANES; lane++)
            any |= deliver_one(w, from, to, (enum peers_lane)lane);
    return any;
}

/* ---- In place of the shipped ones -------------------------------------------------------------
 */

chr_err peers_send(struct peers *peers, uint64_t node, enum peers_lane lane, uint8_t kind,
                   const chr_slice *parts, uint32_t parts_count)
{
    struct life_node *n = (struct life_node *)(void *)peers;
    return post(n, (uint32_t)(node - life_number(0)), lane, kind, parts, parts_count);
}

void cluster_tell(struct cluster *cluster, enum peers_kind kind, const chr_slice *parts,
                  uint32_t parts_count)
{
    struct life_node *n = (struct life_node *)(void *)cluster;
    for (uint32_t i = 0; i < n->w->nodes_count; i++)
        if (i != n->i)
            (void)!post(n, i, PEERS_CONTROL, (uint8_t)kind, parts, parts_count);
}

void peers_count_stranger(struct peers *peers)
{
    (void)peers;
}
