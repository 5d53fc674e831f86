/* broker/ingest/route.c: which plans a topic matches, and what its captured levels say.
 *
 * The sorted plans are a trie without nodes: those that agree in the first n levels lie side by
 * side, and at level n `#` comes first, then `+`, then texts in order. Matching narrows a range
 * level by level with binary search, so a fleet of ten thousand tables costs a topic a few
 * comparisons. A topic is matched once per loop; what comes of it is cached there. */
#include <stdlib.h>
#include <string.h>

#include "broker/ingest/convert.h"
#include "broker/ingest/internal.h"
#include "broker/ingest/reason.h"
#include "proto/mqtt/topic.h"

/* Names of more levels match nothing here; the broker refuses them at the door. */
#define LEVELS_MAX MQTT_TOPIC_LEVELS_MAX
/* A plan of DB_COLUMNS_MAX columns with the longest names takes some 300 KiB. */
#define PLAN_BYTES_MAX ((size_t)4 << 20)

struct match {
    const ingest_mappings *mappings;
    const chr_slice *levels; /* of the topic */
    uint32_t levels_count;
    bool dollar; /* a wildcard in the first level does not match $… [MQTT-4.7.2-1] */
    const struct ingest_plan **found;
    uint32_t found_count, found_max;
    bool out_of_memory;
};

static void add_found(struct match *m, const struct ingest_plan *plan)
{
    if (m->found_count == m->found_max) {
        uint32_t max = m->found_max ? m->found_max * 2 : 8;
        const struct ingest_plan **grown = realloc(m->found, max * sizeof *grown);
        if (!grown) {
            m->out_of_memory = true;
            return;
        }
        m->found = grown;
        m->found_max = max;
    }
    m->found[m->found_count++] = plan;
}

/* First plan of [lo, hi), which agree before `depth` and reach it, whose level there is not below
 * (kind, text). */
static uint32_t lower_bound(const struct ingest_plan *plans, uint32_t lo, uint32_t hi,
                            uint32_t depth, enum ingest_level_kind kind, chr_slice text)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct ingest_level *level = &plans[mid].levels[depth];
        bool below = level->kind != kind
                         ? level->kind < kind
                         : kind == INGEST_LEVEL_TEXT && chr_slice_cmp(level->text, text) < 0;
        if (below)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Plans [lo, hi) match the topic in all levels before `depth`. */
static void match_range(struct match *m, uint32_t lo, uint32_t hi, uint32_t depth)
{
    const struct ingest_plan *plans = m->mappings->plans;
    for (; lo < hi && plans[lo].levels_count == depth; lo++)
        if (depth == m->levels_count)
            add_found(m, &plans[lo]);
    if (lo == hi)
        return;
    bool wildcards = depth > 0 || !m->dollar;
    /* `#` stands for any number of levels, none included [MQTT-4.7.1-2]. */
    uint32_t one = lower_bound(plans, lo, hi, depth, INGEST_LEVEL_ONE, chr_slice_of(NULL, 0));
    for (uint32_t i = lo; i < one && wildcards; i++)
        add_found(m, &plans[i]);
    if (depth == m->levels_count)
        return;
    chr_slice level = m->levels[depth];
    uint32_t text = lower_bound(plans, one, hi, depth, INGEST_LEVEL_TEXT, chr_slice_of(NULL, 0));
    if (one < text && wildcards)
        match_range(m, one, text, depth + 1);
    uint32_t first = lower_bound(plans, text, hi, depth, INGEST_LEVEL_TEXT, level);
    uint32_t last = first, bound = hi;
    while (last < bound) { /* end of those that equal */
        uint32_t mid = last + (bound - last) / 2;
        if (chr_slice_eq(plans[mid].levels[depth].text, level))
            last = mid + 1;
        else
            bound = mid;
    }
    if (first < last)
        match_range(m, first, last, depth + 1);
}

static int by_table(const void *va, const void *vb)
{
    const struct ingest_plan *const *a = va, *const *b = vb;
    if ((*a)->slot != (*b)->slot)
        return (*a)->slot < (*b)->slot ? -1 : 1;
    return (*a)->template_index < (*b)->template_index ? -1 : 1;
}

/* Sorted by table, the first template of each. */
static void one_per_table(struct match *m)
{
    uint32_t kept = 0;
    if (m->found_count)
        qsort(m->found, m->found_count, sizeof *m->found, by_table);
    for (uint32_t i = 0; i < m->found_count; i++)
        if (kept == 0 || m->found[kept - 1]->slot != m->found[i]->slot)
            m->found[kept++] = m->found[i];
    m->found_count = kept;
}

/* Converts the captured levels of one target. text: where bytes are kept. */
static chr_err capture(struct ingest_target *target, const chr_slice *levels,
                       struct ingest_capture *captures, uint8_t **text)
{
    const struct ingest_plan *plan = target->plan;
    target->captures = captures;
    for (uint32_t i = 0; i < plan->captures_count; i++) {
        chr_slice level = levels[plan->captures[i].level];
        uint16_t column = plan->captures[i].column;
        enum db_type type = plan->table->columns[column].type;
        if (level.len)
            memcpy(*text, level.ptr, level.len);
        chr_slice own = chr_slice_of(*text, level.len);
        *text += level.len;
        captures[i].column = column;
        const char *complaint;
        chr_err err =
            ingest__convert_text(type, own, *text - level.len, &captures[i].value, &complaint);
        if (err) {
            target->refused = err;
            target->reason = calloc(1, sizeof *target->reason);
            if (!target->reason)
                return CHR_ENOMEM;
            ingest__reason_topic(target->reason, plan->table->columns[column].name, level,
                                 complaint);
            return CHR_OK;
        }
        target->captures_count++;
    }
    return CHR_OK;
}

static chr_err build(ingest_mappings *mappings, const struct match *m, ingest_route **out)
{
    size_t captures = 0, text = INGEST_CAPTURE_PAD;
    for (uint32_t i = 0; i < m->found_count; i++) {
        captures += m->found[i]->captures_count;
        for (uint32_t k = 0; k < m->found[i]->captures_count; k++)
            text += m->levels[m->found[i]->captures[k].level].len;
    }
    size_t targets_bytes = m->found_count * sizeof(struct ingest_target);
    ingest_route *route =
        calloc(1, sizeof *route + targets_bytes + captures * sizeof(struct ingest_capture) + text);
    if (!route)
        return CHR_ENOMEM;
    route->mappings = mappings;
    ingest_mappings_retain(mappings);
    struct ingest_capture *capture_at =
        (struct ingest_capture *)(void *)(route->targets + m->found_count);
    uint8_t *text_at = (uint8_t *)(capture_at + captures);
    for (uint32_t i = 0; i < m->found_count; i++) {
        struct ingest_target *target = &route->targets[route->targets_count++];
        target->plan = m->found[i];
        chr_err err = capture(target, m->levels, capture_at, &text_at);
        if (err) {
            ingest_route_free(route);
            return err;
        }
        capture_at += target->plan->captures_count;
    }
    *out = route;
    return CHR_OK;
}

chr_err ingest_route_make(ingest_mappings *mappings, chr_slice topic, ingest_route **out)
{
    *out = NULL;
    chr_slice levels[LEVELS_MAX];
    struct match m = {
        .mappings = mappings,
        .levels = levels,
        .dollar = topic.len && topic.ptr[0] == '$',
    };
    struct mqtt_level_iter it = mqtt_level_iter(topic);
    chr_slice level;
    while (mqtt_level_next(&it, &level)) {
        if (m.levels_count == LEVELS_MAX)
            return CHR_OK;
        levels[m.levels_count++] = level;
    }
    match_range(&m, 0, mappings->plans_count, 0);
    chr_err err = m.out_of_memory ? CHR_ENOMEM : CHR_OK;
    if (!err && m.found_count) {
        one_per_table(&m);
        err = build(mappings, &m, out);
    }
    free(m.found);
    return err;
}

chr_err ingest_route_make_table(ingest_mappings *mappings, chr_slice table,
                                enum db_payload_format format, ingest_route **out)
{
    *out = NULL;
    uint32_t lo = 0, hi = mappings->tables_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (chr_slice_cmp(chr_slice_cstr(mappings->tables[mid]->name), table) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == mappings->tables_count ||
        !chr_slice_eq(chr_slice_cstr(mappings->tables[lo]->name), table))
        return CHR_ENOTFOUND;
    ingest_route *route = calloc(1, sizeof *route + sizeof(struct ingest_target));
    if (!route)
        return CHR_ENOMEM;
    route->mappings = mappings;
    ingest_mappings_retain(mappings);
    chr_arena_init(&route->own, 4096, PLAN_BYTES_MAX);
    struct ingest_plan *plan = CHR_ARENA_NEW(&route->own, struct ingest_plan);
    chr_err err =
        plan ? ingest__plan_compile(&route->own, mappings->tables[lo], lo, UINT32_MAX, plan)
             : CHR_ENOMEM;
    if (err) {
        ingest_route_free(route);
        return err;
    }
    plan->format = format;
    route->targets_count = 1;
    route->targets[0].plan = plan;
    *out = route;
    return CHR_OK;
}

void ingest_route_free(ingest_route *route)
{
    if (!route)
        return;
    for (uint32_t i = 0; i < route->targets_count; i++)
        free(route->targets[i].reason);
    chr_arena_free(&route->own);
    ingest_mappings_release(route->mappings);
    free(route);
}

uint32_t ingest_route_tables_count(const ingest_route *route)
{
    return route->targets_count;
}

const struct db_table_def *ingest_route_table(const ingest_route *route, uint32_t i)
{
    return route->targets[i].plan->table;
}
