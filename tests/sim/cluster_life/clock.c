/* tests/sim/cluster_life/clock.c: what time it is, and where; who goes on next. */
#include "tests/sim/cluster_life/world.h"

int64_t life__mono(const struct node *n)
{
    return n->offset + (int64_t)((double)life__world->now * n->rate);
}

int64_t life__wall(const struct node *n)
{
    return FIRST_WALL_US + n->wall_offset + (int64_t)((double)life__world->now * n->rate);
}

int64_t life__wall_here(void)
{
    const struct node *n = life__self_node();
    return n ? life__wall(n) : FIRST_WALL_US;
}

int64_t life__later(const struct node *n, int64_t local_us)
{
    return life__world->now + 1 + (int64_t)((double)CHR_MAX(local_us, 0) / n->rate);
}

/* Others may go on, or the process be stopped, right before the clock is read and right after. */
static int64_t read_clock(void *ctx, int64_t (*clock)(const struct node *))
{
    bool inside = life__node() != NULL;
    if (inside) {
        life__lags();
        life__breathe();
    }
    int64_t us = clock(ctx);
    if (inside)
        life__breathe();
    return us;
}

static int64_t wall_us(void *ctx)
{
    return read_clock(ctx, life__wall);
}

static int64_t mono_us(void *ctx)
{
    return read_clock(ctx, life__mono);
}

void life__clock_init(struct node *n)
{
    n->clock = (struct chr_clock){.wall_us = wall_us, .mono_us = mono_us, .ctx = n};
}

enum next_type {
    NEXT_FIBER,
    NEXT_PACKET,
    NEXT_CONNECT,
    NEXT_START,
    NEXT_DOOM,
    NEXT_FAULT,
    NEXT_HEAL
};
struct next {
    int64_t at;
    enum next_type type;
    size_t packet;
    struct fiber *fiber;
    struct node *node;
};

static void consider(struct next *next, struct next other)
{
    if (other.at < next->at)
        *next = other;
}

static struct next find_next(struct world *w)
{
    struct next next = {.at = NEVER, .type = NEXT_FIBER};
    next.fiber = life__next_fiber(&next.at);
    for (size_t i = 0; i < w->packets_count; i++)
        if (w->packets[i].at < next.at)
            next = (struct next){.at = w->packets[i].at, .type = NEXT_PACKET, .packet = i};
    consider(&next, (struct next){.at = life__next_connect(w), .type = NEXT_CONNECT});
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        if (n->exists && !n->up)
            consider(&next, (struct next){.at = n->up_at, .type = NEXT_START, .node = n});
        if (n->up)
            consider(&next, (struct next){.at = n->doomed_at, .type = NEXT_DOOM, .node = n});
    }
    consider(&next, (struct next){.at = w->heal_at, .type = NEXT_HEAL});
    if (!w->healing)
        consider(&next, (struct next){.at = w->next_fault, .type = NEXT_FAULT});
    return next;
}

bool life__turn(struct world *w)
{
    struct next next = find_next(w);
    w->now = CHR_MAX(w->now, next.at);
    w->report->turns++;
    switch (next.type) {
    case NEXT_FIBER:
        if (!next.fiber)
            return life__broken(w, "nobody has anything to do");
        life__run(next.fiber);
        break;
    case NEXT_PACKET:
        life__arrive(w, next.packet);
        break;
    case NEXT_CONNECT:
        life__connect(w);
        break;
    case NEXT_START:
        life__start(w, next.node);
        break;
    case NEXT_DOOM:
        life__meets_its_doom(w, next.node);
        break;
    case NEXT_HEAL:
        life__heal_network(w);
        break;
    case NEXT_FAULT:
        life__fault(w);
        break;
    }
    return sound(w);
}
