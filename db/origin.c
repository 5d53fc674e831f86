#include "db/origin.h"

static uint32_t place_of(struct db__origins *o, uint64_t node)
{
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < o->count; i++) {
        if (o->items[i].node == node)
            return i;
        if (o->applied[i] < o->applied[oldest])
            oldest = i;
    }
    uint32_t at = o->count < DB__ORIGINS_MAX ? o->count++ : oldest;
    o->items[at] = (struct db_origin){.node = node};
    return at;
}

enum db_origin_verdict db__origin_check(struct db__origins *o, const struct db_origin *origin,
                                        uint64_t index)
{
    uint32_t at = place_of(o, origin->node);
    struct db_origin *last = &o->items[at];
    o->applied[at] = index;
    /* Of a process that has ended: whoever waited for it was never answered. */
    if (origin->boot < last->boot)
        return DB_ORIGIN_REPEATED;
    uint64_t sequence = origin->boot == last->boot ? last->sequence : 0;
    if (origin->sequence <= sequence)
        return DB_ORIGIN_REPEATED;
    if (origin->sequence > sequence + 1)
        return DB_ORIGIN_GAP;
    *last = *origin;
    return DB_ORIGIN_NEW;
}
