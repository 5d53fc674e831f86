/* Wills, one for some connections, each with a number of its own. */
#include "db/internal.h"
#include "tests/sim/session_life/world.h"

uint32_t will_make(struct client *c)
{
    struct world *w = c->w;
    if (w->healing || life_chance(w, 5000))
        return 0;
    uint32_t number = model_message(c, (uint8_t)life_below(w, TOPICS), (uint8_t)life_below(w, 3));
    struct life_message *m = &w->messages[number];
    if (!number)
        return 0;
    m->is_will = true;
    m->will = WILL_SENT;
    static const uint32_t delays[] = {0, 0, 2, 6};
    m->will_delay_s = c->version == MQTT_V5 && c->kind != LISTENER ? delays[life_below(w, 4)] : 0;
    return number;
}

void will_connected(struct client *c)
{
    if (c->will)
        c->w->messages[c->will].will = WILL_ARMED;
}

void will_lost(struct client *c)
{
    struct life_message *m = &c->w->messages[c->will];
    if (!c->will)
        return;
    /* A node alone has the will of a session that ends with its connection in memory. */
    bool in_memory = c->kind == LISTENER && c->w->nodes_count == 1;
    m->will = m->will == WILL_ARMED && !in_memory ? WILL_LOST : WILL_OPEN;
    /* When its node was declared down the delay began then. */
    m->will_lost_us = client_session_ended(c) ? 0 : log_time_us(c->w);
}

/* By the log's time it came back before the delay had passed, whenever the loss was noticed; later
 * it depends on that. Without a delay the loss itself counts, also of one that was taken over. */
void will_back(struct client *c)
{
    struct world *w = c->w;
    for (uint32_t i = 1; i < w->messages_count; i++) {
        struct life_message *m = &w->messages[i];
        if (!m->is_will || m->client != c->i || i == c->will || m->will != WILL_LOST ||
            m->will_delay_s == 0)
            continue;
        int64_t away_us = log_time_us(w) - m->will_lost_us;
        m->will = away_us < (int64_t)m->will_delay_s * 1000000 ? WILL_BACK : WILL_OPEN;
    }
}

/* It said DISCONNECT, and its node closed the connection. */
void will_left(struct client *c)
{
    struct world *w = c->w;
    if (!c->will)
        return;
    w->messages[c->will].will = WILL_OPEN;
    w->messages[c->will].will_left_us = w->now_us;
    c->left_will = c->will;
    c->left_node = c->node;
    c->left_boot = c->boot;
    c->left_generation = c->own_generation;
}

static bool nothing_proposed(const struct life_node *n)
{
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++)
        if (!chr_list_empty(&n->proposals[i]))
            return false;
    return true;
}

/* Once the node that heard it has told the log, there is nothing left of the will. */
void will_settle(struct client *c)
{
    struct world *w = c->w;
    const struct life_node *n = &w->nodes[c->left_node];
    const struct db__session *s = db__session_find(&log_oracle(w)->sessions, chr_slice_cstr(c->id));
    if (!c->left_will)
        return;
    if (!n->up || n->boot != c->left_boot || !s || s->generation != c->left_generation) {
        c->left_will = 0; /* it may not have come to that */
        return;
    }
    struct life_message *m = &w->messages[c->left_will];
    if (!life_runs(n) || w->now_us - m->will_left_us < 1500000 || !nothing_proposed(n) ||
        s->connected)
        return;
    m->will = WILL_LEFT;
    c->left_will = 0;
}

void wills_check(struct world *w)
{
    for (uint32_t i = 1; i < w->messages_count; i++) {
        const struct life_message *m = &w->messages[i];
        if (!m->is_will)
            continue;
        uint32_t fired = m->mapped ? m->rows : m->published;
        bool never = m->will == WILL_ARMED || m->will == WILL_LEFT || m->will == WILL_BACK;
        if (m->rows > 1)
            life_broken(w, "S4: will %u is in the table %u times", i, m->rows);
        if (never && fired)
            life_broken(w, "S4: will %u was published, though its client %s", i,
                        m->will == WILL_ARMED  ? "is connected"
                        : m->will == WILL_LEFT ? "took leave"
                                               : "was back in time");
        if (m->will == WILL_LOST && m->mapped && !fired)
            life_broken(w, "S4: will %u (delay %u s) was never published", i, m->will_delay_s);
    }
}
