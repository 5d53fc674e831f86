/* One history: steps, then everything is healed and has to come to its end. */
#include <stdarg.h>
#include <string.h>

#include "base/hash.h"
#include "tests/sim/session_life/world.h"

#define HEAL_ROUNDS 4000u

/* ---- Small things -----------------------------------------------------------------------------
 */

void life_broken(struct world *w, const char *format, ...)
{
    va_list args;
    if (w->report->broken[0])
        return;
    va_start(args, format);
    vsnprintf(w->report->broken, sizeof w->report->broken, format, args);
    va_end(args);
    life_say(w, "BROKEN: %s", w->report->broken);
}

void life_say(const struct world *w, const char *format, ...)
{
    va_list args;
    if (!w->options->verbose)
        return;
    printf("%9.3f [%llu] ", (double)w->now_us / 1e6, (unsigned long long)w->entries_count);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

bool life_chance(struct world *w, uint32_t in_10000)
{
    return in_10000 && chr_random_below(&w->random, 10000) < in_10000;
}

uint32_t life_below(struct world *w, uint32_t bound)
{
    return bound ? (uint32_t)chr_random_below(&w->random, bound) : 0;
}

void life_digest(struct world *w, uint64_t value)
{
    w->report->digest = chr_hash_u64(w->report->digest ^ value);
}

/* ---- The world --------------------------------------------------------------------------------
 */

/* As shipped, but for what would let a history lose messages by its limits. */
static void configure(struct broker_config *config)
{
    config->max_queued_messages = 0;
    config->max_queued_bytes = 0;
    config->sys_interval_s = 0;
    config->max_inflight_messages = RECEIVE_MAX;
}

static void choose_profile(struct world *w)
{
    static const uint32_t kills[] = {0, 10, 40, 100}, loses[] = {20, 100, 300, 600};
    static const uint32_t lags[] = {2000, 5000, 9000}, holds[] = {500, 3000, 8000};
    w->nodes_count = w->options->nodes ? w->options->nodes : life_chance(w, 2500) ? 1 : 3;
    if (!w->options->nodes && life_chance(w, 1000))
        w->nodes_count = 2;
    w->kill = kills[life_below(w, 4)];
    w->blackout = w->kill / 10;
    w->pause = life_chance(w, 4000) ? 20 : 0;
    w->lose = loses[life_below(w, 4)];
    w->jump = life_chance(w, 5000) ? 30 : 0;
    w->lag = lags[life_below(w, 3)];
    w->hold = holds[life_below(w, 3)];
    w->shared = life_chance(w, 2000);
    w->hours_apart = life_chance(w, 4000);
}

static void begin(struct world *w)
{
    struct broker_node *oracle = &w->oracle.node;
    w->random.state = w->options->seed * 0x9e3779b97f4a7c15 + 1;
    choose_profile(w);
    w->leader = NODES_MAX;
    w->messages = calloc(MESSAGES_MAX, sizeof *w->messages);
    REQUIRE(w->messages);
    w->messages_count = 1;
    session_node_config(&w->oracle);
    oracle->kv = fake_kv_seam(w->oracle.fake);
    session_node_open(&w->oracle);
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        struct life_node *n = &w->nodes[i];
        session_node_config(&n->base);
        configure(&n->base.config);
        n->w = w;
        n->i = i;
        if (w->hours_apart && i > 0)
            n->skew_us = (int64_t)(i == 1 ? 3600 : -3600) * 1000000;
        else
            n->skew_us = (int64_t)life_below(w, 2000000) - 1000000;
    }
    for (uint32_t i = 0; i < w->nodes_count; i++)
        life_start(&w->nodes[i]);
    log_elect(w);
    w->clients_count = 3 + life_below(w, 4);
    uint32_t subs = 1 + life_below(w, 2) + (w->clients_count > 5);
    for (uint32_t i = 0; i < w->clients_count; i++)
        client_init(w, i, i < subs ? SUBSCRIBER : PUBLISHER);
    if (life_chance(w, 5000))
        client_init(w, w->clients_count++, LISTENER);
    life_say(w, "%u nodes, %u clients, %u of them subscribe; kill %u, lose %u, lag %u, hold %u%s%s",
             w->nodes_count, w->clients_count, subs, w->kill, w->lose, w->lag, w->hold,
             w->hours_apart ? ", clocks hours apart" : "", w->shared ? ", a share group" : "");
}

static void end(struct world *w)
{
    uint64_t kills = w->report->kills;
    for (uint32_t i = 0; i < w->clients_count; i++)
        client_free(&w->clients[i]), w->clients[i].fd = -1, w->clients[i].state = DOWN;
    clients_close_half_open(w, true);
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        life_kill(&w->nodes[i]);
        fake_kv_free(w->nodes[i].base.fake);
    }
    w->report->kills = kills;
    session_node_close(&w->oracle);
    fake_kv_free(w->oracle.fake);
    log_free(w);
    free(w->messages);
}

/* ---- Steps ------------------------------------------------------------------------------------
 */

static void pass_time(struct world *w, int64_t us)
{
    w->now_us += us;
    life_set_clocks(w);
}

static void start_somebody(struct world *w)
{
    for (uint32_t i = 0; i < w->nodes_count; i++)
        if (!w->nodes[i].up && (w->healing || life_chance(w, 50)))
            life_start(&w->nodes[i]);
}

static void misfortune(struct world *w)
{
    struct life_node *n = &w->nodes[life_below(w, w->nodes_count)];
    if (life_chance(w, w->kill))
        life_kill(n);
    if (life_chance(w, w->blackout)) {
        life_say(w, "all nodes are killed");
        w->report->blackouts++;
        for (uint32_t i = 0; i < w->nodes_count; i++)
            life_kill(&w->nodes[i]);
    }
    if (life_chance(w, w->pause) && life_runs(n)) {
        n->paused_until_us = w->now_us + life_below(w, 8000000);
        life_say(w, "node %u stands still until %.3f", n->i, (double)n->paused_until_us / 1e6);
    }
    if (life_chance(w, w->pause) && w->nodes_count > 1)
        lanes_cut(w, n->i, life_below(w, w->nodes_count));
    if (life_chance(w, 30) && n->up)
        life_checkpoint(n);
    if (life_chance(w, w->pause) && !w->hours_apart)
        n->skew_us = (int64_t)life_below(w, 8000000) - 4000000;
    if (life_chance(w, w->jump)) /* everybody sleeps */
        pass_time(w, 1000000 + life_below(w, 40000000));
}

static void look_after_leader(struct world *w)
{
    bool wanted = w->leader == NODES_MAX || !life_runs(&w->nodes[w->leader]);
    if ((wanted && life_chance(w, 200)) || (!w->healing && life_chance(w, 5)))
        log_elect(w);
}

static void step(struct world *w)
{
    pass_time(w, life_chance(w, 100) ? life_below(w, 900000) : life_below(w, 3000));
    misfortune(w);
    start_somebody(w);
    look_after_leader(w);
    lanes_link(w);
    clients_close_half_open(w, false);
    if (log_majority(w)) {
        while (life_chance(w, 10000 - w->hold) &&
               log_commit(&w->nodes[life_below(w, w->nodes_count)])) {
        }
        if (life_chance(w, 300))
            (void)log_commit_orphan(w);
    }
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        struct life_node *n = &w->nodes[i];
        if (!life_runs(n))
            continue;
        if (life_chance(w, 10000 - w->lag / 2))
            log_apply(n, life_chance(w, w->lag) ? 1 : 64);
        if (life_chance(w, 7000))
            session_node_turn(&n->base);
        if (life_chance(w, 5000))
            lanes_turn(n);
        for (uint32_t j = 0; j < w->nodes_count; j++)
            if (life_chance(w, 5000))
                (void)lanes_deliver(w, j, i, 1 + life_below(w, 4));
    }
    log_duties(w);
    for (uint32_t i = 0; i < w->clients_count && !w->report->broken[0]; i++)
        if (life_chance(w, 6000))
            client_step(&w->clients[i]);
    w->report->steps++;
}

/* ---- The end ----------------------------------------------------------------------------------
 */

static bool client_idle(const struct client *c)
{
    return c->kind == LISTENER     ? c->since_message && !c->owed_count
           : c->kind == SUBSCRIBER ? subscriber_idle(c)
                                   : publisher_idle(c);
}

static bool idle(struct world *w)
{
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        const struct life_node *n = &w->nodes[i];
        if (!life_runs(n) || n->applied < w->entries_count)
            return false;
        for (uint32_t l = 0; l < SESSION_NODE_LOOPS; l++)
            if (!chr_list_empty(&n->proposals[l]))
                return false;
    }
    for (uint32_t i = 0; i < w->clients_count; i++) {
        const struct client *c = &w->clients[i];
        if (c->state != OPEN || !client_idle(c))
            return false;
    }
    return !w->orphans;
}

static void heal_round(struct world *w)
{
    pass_time(w, 20000);
    start_somebody(w);
    if (w->leader == NODES_MAX || !life_runs(&w->nodes[w->leader]))
        log_elect(w);
    lanes_link(w);
    clients_close_half_open(w, true);
    while (log_commit_orphan(w)) {
    }
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        struct life_node *n = &w->nodes[i];
        while (log_commit(n)) {
        }
        log_apply(n, UINT64_MAX);
        session_node_turn(&n->base);
        lanes_turn(n);
        for (uint32_t j = 0; j < w->nodes_count; j++)
            (void)lanes_deliver(w, j, i, 64);
    }
    log_duties(w);
    for (uint32_t i = 0; i < w->clients_count && !w->report->broken[0]; i++)
        client_step(&w->clients[i]);
}

static void heal(struct world *w)
{
    life_say(w, "everything is healed");
    w->healing = true;
    for (uint32_t i = 0; i < w->nodes_count; i++)
        w->nodes[i].paused_until_us = 0;
    uint32_t quiet = 0;
    /* Quiet for so long that every will has fallen due and every acknowledgement was reported. */
    for (uint32_t i = 0; i < HEAL_ROUNDS && quiet < 500 && !w->report->broken[0]; i++) {
        heal_round(w);
        quiet = idle(w) ? quiet + 1 : 0;
    }
    if (quiet == 500 || w->report->broken[0])
        return;
    for (uint32_t i = 0; i < w->clients_count; i++) {
        const struct client *c = &w->clients[i];
        if (c->state != OPEN || !client_idle(c))
            life_broken(w, "S6: %s does not come to an end (%s, %u owed, %u in flight)", c->id,
                        c->state == OPEN ? "connected" : "not connected", c->owed_count,
                        c->flights_count + c->unanswered);
    }
    life_broken(w, "S6: it does not come to an end");
}

/* Who is connected is so by the log, too: else its session ends under it. */
static void check_connected(struct world *w)
{
    for (uint32_t i = 0; i < w->clients_count; i++)
        if (w->clients[i].kind != LISTENER && client_session_ended(&w->clients[i]))
            life_broken(w, "S6: %s is connected, and the log has its session otherwise",
                        w->clients[i].id);
}

static void compare(struct world *w)
{
    uint32_t *rows = calloc(MESSAGES_MAX, sizeof *rows);
    REQUIRE(rows);
    uint64_t right = compare_digest(w, log_oracle(w));
    for (uint32_t i = 0; i < w->nodes_count; i++)
        if (compare_digest(w, w->nodes[i].base.node.db) != right)
            life_broken(w, "S6: node %u differs from what the log says", i);
    if (!compare_count_rows(w, w->nodes[0].base.node.db, rows))
        life_broken(w, "S6: the readings can't be read");
    for (uint32_t i = 1; i < w->messages_count; i++)
        w->messages[i].rows = rows[i];
    free(rows);
}

bool session_life_run(const struct session_life_options *options,
                      struct session_life_report *report)
{
    struct world *w = calloc(1, sizeof *w);
    REQUIRE(w);
    *report = (struct session_life_report){0};
    w->options = options;
    w->report = report;
    begin(w);
    for (uint32_t i = 0; i < options->steps && !report->broken[0]; i++)
        step(w);
    if (!report->broken[0])
        heal(w);
    if (!report->broken[0])
        check_connected(w);
    if (!report->broken[0])
        compare(w);
    if (!report->broken[0])
        model_check(w);
    bool sound = w->kill == 0 && w->pause == 0; /* and nobody was cut off */
    for (uint32_t i = 0; sound && i < w->clients_count && !report->broken[0]; i++)
        if (w->clients[i].kind == LISTENER)
            listener_check(&w->clients[i]);
    end(w);
    free(w);
    return !report->broken[0];
}

/* ---- In place of the kernel's -----------------------------------------------------------------
 */

/* The same in every process: seeds replay. */
void chr_random_bytes(void *out, size_t len)
{
    static struct chr_random random = {.state = 1};
    for (uint8_t *at = out; len; len--)
        *at++ = (uint8_t)chr_random_u64(&random);
}
