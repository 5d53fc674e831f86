/* Subscribers of the moment: a clean start, and a session that ends with the connection. What they
 * get comes from memory and from other nodes directly; a crash may take some of it. */
#include <string.h>

#include "tests/sim/session_life/world.h"

void listener_resume(struct client *c)
{
    struct world *w = c->w;
    uint8_t packet[128];
    struct mqtt_subscribe subscribe = {.packet_id = 1};
    struct mqtt_subscription subs[FILTERS];
    memset(c->received, 0, 65536 * sizeof *c->received);
    memset(c->heard, 0, MESSAGES_MAX * sizeof *c->heard);
    memset(c->last_seen, 0, sizeof c->last_seen);
    c->owed_count = 0;
    c->since_message = 0;
    for (uint32_t i = 0; i < FILTERS; i++)
        subs[i] = (struct mqtt_subscription){
            .filter = chr_slice_cstr(life_filters[i]), .qos = c->qos, .retain_handling = 2};
    size_t n = mqtt_encode_subscribe(packet, sizeof packet, c->version, &subscribe, subs, FILTERS);
    REQUIRE(n);
    life_say(w, "%s subscribes to everything", c->id);
    (void)client_send(c, packet, n);
}

void listener_suback(struct client *c, const struct mqtt_suback *suback)
{
    for (size_t i = 0; i < suback->reason_codes.len; i++)
        if (suback->reason_codes.ptr[i] >= 0x80)
            life_broken(c->w, "%s was refused a filter: 0x%02x", c->id,
                        suback->reason_codes.ptr[i]);
    c->since_message = c->w->messages_count;
}

static void check(struct client *c, uint32_t number, const struct life_message *m)
{
    uint32_t *last = &c->last_seen[m->client][m->topic][m->qos];
    bool once = m->sends == 1 || (m->mapped && m->qos == 2);
    if (c->heard[number]++ && once && !m->is_will)
        life_broken(c->w, "S3: message %u (QoS %u) came to %s twice", number, m->qos, c->id);
    /* On a plain topic, when the first durable subscriber comes: the log may be quicker than what
     * went directly before. */
    if (m->is_will || m->sends > 1 || !m->mapped || m->qos == 0)
        return;
    if (m->seq < *last)
        life_broken(c->w, "S3: message %u (QoS %u) came to %s after later ones of its topic",
                    number, m->qos, c->id);
    *last = m->seq;
}

void listener_publish(struct client *c, const struct mqtt_publish *p)
{
    struct world *w = c->w;
    uint32_t number = model_number(p->payload);
    life_say(w, "%s hears message %u, QoS %u, id %u", c->id, number, p->qos, p->packet_id);
    life_digest(w, (uint64_t)number << 32 | p->packet_id);
    if (number == 0 || number >= w->messages_count) {
        life_broken(w, "a message that nobody published came to %s", c->id);
        return;
    }
    model_seen(c, number);
    if (!p->retain && (p->qos < 2 || !c->received[p->packet_id]))
        check(c, number, &w->messages[number]);
    if (p->qos == 2)
        c->received[p->packet_id] = true;
    if (p->qos)
        client_owe(c, p->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, p->packet_id);
}

/* Where nothing goes wrong but connections, whoever stays hears everything. */
void listener_check(struct client *c)
{
    struct world *w = c->w;
    for (uint32_t i = c->since_message; c->since_message && i < w->messages_count; i++) {
        const struct life_message *m = &w->messages[i];
        if (m->qos && m->answered && !m->is_will && !m->expiry_s && !c->heard[i])
            life_broken(w,
                        "S3: %s, which was there, did not hear message %u (QoS %u, sent %u times)",
                        c->id, i, m->qos, m->sends);
    }
}
