/* Durable subscribers that answer late, and count as the standard says. */
#include <string.h>

#include "broker/session/stored.h"
#include "db/durable.h"
#include "db/internal.h"
#include "tests/sim/session_life/world.h"

/* ---- Subscriptions ----------------------------------------------------------------------------
 */

static void ask(struct client *c, uint32_t i)
{
    struct world *w = c->w;
    struct filter *f = &c->filters[i];
    uint8_t packet[128];
    size_t n;
    chr_slice text =
        w->shared && i == 0 ? CHR_LIT("$share/g/t/#") : chr_slice_cstr(life_filters[i]);
    f->asked = (uint16_t)(20 + i);
    f->state = FILTER_UNSURE;
    model_unsure(w, c->sub, i);
    life_say(w, "%s %s %s", c->id, f->wanted ? "subscribes" : "unsubscribes", life_filters[i]);
    if (f->wanted) {
        struct mqtt_subscribe subscribe = {.packet_id = f->asked};
        struct mqtt_subscription sub = {.filter = text, .qos = c->qos};
        n = mqtt_encode_subscribe(packet, sizeof packet, c->version, &subscribe, &sub, 1);
    } else {
        struct mqtt_unsubscribe unsubscribe = {.packet_id = f->asked};
        n = mqtt_encode_unsubscribe(packet, sizeof packet, c->version, &unsubscribe, &text, 1);
    }
    REQUIRE(n);
    (void)client_send(c, packet, n);
}

struct look {
    const char *filter;
    bool found;
};

static void look_for(void *arg, const struct db_subscription *subscription)
{
    struct look *l = arg;
    l->found |= chr_slice_eq(subscription->filter, chr_slice_cstr(l->filter));
}

void subscriber_suback(struct client *c, uint16_t packet_id, uint8_t code, bool subscribed)
{
    struct world *w = c->w;
    uint32_t i = packet_id - 20u;
    if (i >= FILTERS || c->filters[i].asked != packet_id || c->filters[i].wanted != subscribed) {
        life_broken(w, "%s was answered for a filter it did not ask for", c->id);
        return;
    }
    struct filter *f = &c->filters[i];
    f->asked = 0;
    if (code >= 0x80) {
        life_broken(w, "%s was refused a filter: 0x%02x", c->id, code);
        return;
    }
    struct db *oracle = log_oracle(w);
    const struct db__session *s = db__session_find(&oracle->sessions, chr_slice_cstr(c->id));
    struct look look = {.filter = life_filters[i]};
    if (s)
        db_subscriptions_read(oracle, s->epoch, look_for, &look);
    if (look.found != subscribed && s && s->generation == c->own_generation)
        life_broken(w, "S1: %s for %s of %s, which the log does not know",
                    subscribed ? "SUBACK" : "UNSUBACK", life_filters[i], c->id);
    f->state = subscribed ? FILTER_ON : FILTER_OFF;
    f->known = w->entries_count;
}

/* ---- Messages ---------------------------------------------------------------------------------
 */

static void check_order(struct client *c, uint32_t number)
{
    const struct life_message *m = &c->w->messages[number];
    uint32_t *last = &c->last_seen[m->client][m->topic][m->qos];
    /* A copy that was sent again may be the first one after the subscription; and when a plain
     * topic had no subscriber, only a node that is gone may have known of the first copy. */
    if (m->is_will || (m->sends > 1 && (m->qos == 1 || !m->mapped)))
        return;
    if (m->seq < *last)
        life_broken(c->w, "S3: message %u (QoS %u) came to %s after later ones of its topic",
                    number, m->qos, c->id);
    *last = m->seq;
}

/* The client takes it for one that it has not had. */
static void count(struct client *c, uint32_t number, const struct mqtt_publish *p)
{
    struct world *w = c->w;
    struct life_message *m = &w->messages[number];
    int64_t late_us = c->connected_us - m->again_us - (int64_t)m->expiry_s * 1000000;
    uint32_t got = m->to[c->sub].got++;
    w->report->delivered++;
    if (model_of_group(w, m) && m->qos == 2 && p->qos == 2 && model_got(w, m) > 1)
        life_broken(w, "S3: message %u came to two of a group, %s the second", number, c->id);
    if (m->to[c->sub].need == MUST_NOT)
        life_broken(w, "S3: message %u came to %s, which is not subscribed", number, c->id);
    if (got == 0) {
        check_order(c, number);
        m->to[c->sub].id = p->packet_id;
        if (m->expiry_s && m->committed && late_us > 0 && !p->dup)
            life_broken(w, "S5: message %u came to %s %lld us after it expired", number, c->id,
                        (long long)late_us);
        return;
    }
    w->report->repeated++;
    if (p->qos == 2 && (m->qos == 2 || m->sends == 1))
        life_broken(w, "S3: QoS 2 message %u came to %s twice", number, c->id);
    if (p->qos == 1 && (m->is_will || m->sends == 1 || m->qos == 2) &&
        (!p->dup || m->to[c->sub].id != p->packet_id))
        life_broken(w, "S3: message %u came to %s again, as %u%s in place of %u", number, c->id,
                    p->packet_id, p->dup ? ", dup" : "", m->to[c->sub].id);
}

void subscriber_publish(struct client *c, const struct mqtt_publish *p)
{
    struct world *w = c->w;
    uint32_t number = model_number(p->payload);
    life_say(w, "%s gets message %u, QoS %u, id %u%s", c->id, number, p->qos, p->packet_id,
             p->dup ? ", dup" : "");
    life_digest(w, (uint64_t)number << 32 | p->packet_id);
    if (number == 0 || number >= w->messages_count) {
        life_broken(w, "a message that nobody published came to %s", c->id);
        return;
    }
    const struct life_message *m = &w->messages[number];
    /* A member of a group that has just come can be given one that went directly: from memory, at
     * QoS 1 at most. */
    bool lower = p->retain || (model_of_group(w, m) && p->qos == 1);
    if (p->qos != CHR_MIN(m->qos, c->qos) && !lower) {
        life_broken(w, "message %u of QoS %u came to %s at QoS %u", number, m->qos, c->id, p->qos);
        return;
    }
    model_seen(c, number);
    if (p->qos == 0)
        return;
    if (!c->counted[p->packet_id] && ++c->unanswered > c->receive_max)
        life_broken(w, "S3: %s has %u messages unanswered, its Receive Maximum is %u", c->id,
                    c->unanswered, c->receive_max);
    c->counted[p->packet_id] = true;
    if (p->retain && !m->retain)
        life_broken(w, "message %u came to %s as retained, and is not", number, c->id);
    /* What was retained comes with a subscription, as often as that is asked for. */
    if (!p->retain && (p->qos == 1 || !c->received[p->packet_id]))
        count(c, number, p);
    if (p->qos == 2)
        c->received[p->packet_id] = true;
    client_owe(c, p->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, p->packet_id);
}

/* R8: the log has noted that the client has it. */
void subscriber_pubrel(struct client *c, const struct mqtt_ack *ack)
{
    struct world *w = c->w;
    struct db *oracle = log_oracle(w);
    const struct db__session *s = db__session_find(&oracle->sessions, chr_slice_cstr(c->id));
    life_say(w, "%s gets PUBREL %u (0x%02x)", c->id, ack->packet_id, ack->reason_code);
    struct db_queue_item items[64];
    s = c->kind == LISTENER ? NULL : s; /* what its older connections left there is not its own */
    size_t n = s ? db_queue_read(oracle, s->epoch, 0, items, CHR_COUNT_OF(items), 1 << 20) : 0;
    for (size_t i = 0; i < n; i++) {
        if (stored_packet_id(items[i].sequence) == ack->packet_id && !items[i].received &&
            ack->reason_code < 0x80)
            life_broken(w, "S1: PUBREL %u to %s, whose PUBREC is not in the log", ack->packet_id,
                        c->id);
        db_message_unref(items[i].message);
        free(items[i].ids);
    }
    c->received[ack->packet_id] = false;
    client_owe(c, MQTT_PUBCOMP, ack->packet_id);
}

/* ---- Life -------------------------------------------------------------------------------------
 */

void subscriber_step(struct client *c)
{
    struct world *w = c->w;
    for (uint32_t i = 0; i < FILTERS && c->state == OPEN; i++) {
        struct filter *f = &c->filters[i];
        bool stays = w->healing || (w->shared && i == 0);
        if (!stays && f->asked == 0 && f->state != FILTER_UNSURE && life_chance(w, 40))
            f->wanted = !f->wanted;
        if (w->healing || (!f->wanted && life_chance(w, 100)))
            f->wanted = f->wanted || f->asked == 0;
        enum filter_state as_wanted = f->wanted ? FILTER_ON : FILTER_OFF;
        if (f->asked == 0 && f->state != as_wanted)
            ask(c, i);
    }
    while (c->state == OPEN && c->owed_count && (w->healing || life_chance(w, 4000)))
        client_answer(c);
}

void subscriber_resume(struct client *c, bool present)
{
    memset(c->counted, 0, 65536 * sizeof *c->counted);
    c->unanswered = c->owed_count = 0;
    if (!present) {
        memset(c->received, 0, 65536 * sizeof *c->received);
        model_forgotten(c->w, c->sub);
    }
    for (uint32_t i = 0; i < FILTERS; i++) {
        struct filter *f = &c->filters[i];
        if (!present) {
            f->state = FILTER_OFF;
            f->known = c->w->entries_count;
        }
        f->asked = 0;
    }
}

bool subscriber_idle(const struct client *c)
{
    const struct db__session *s =
        db__session_find(&log_oracle(c->w)->sessions, chr_slice_cstr(c->id));
    bool asked = false;
    for (uint32_t i = 0; i < FILTERS; i++)
        asked |= c->filters[i].asked || c->filters[i].state == FILTER_UNSURE;
    return !asked && c->owed_count == 0 && c->unanswered == 0 && s &&
           s->queue.first == s->queue.end;
}
