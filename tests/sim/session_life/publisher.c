/* Readings and plain messages at all QoS, with few packet ids that come round soon. */
#include <string.h>

#include "db/internal.h"
#include "tests/sim/session_life/world.h"

static bool send_publish(struct client *c, uint32_t number, uint16_t id, bool dup)
{
    struct world *w = c->w;
    struct life_message *m = &w->messages[number];
    char topic[32], payload[64];
    uint8_t block[16], packet[256];
    struct mqtt_property_writer p = mqtt_property_writer(block, sizeof block);
    if (m->expiry_s)
        mqtt_put_number(&p, MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL, m->expiry_s);
    struct mqtt_publish publish = {
        .topic = chr_slice_of(topic, model_topic(w, number, topic, sizeof topic)),
        .payload = chr_slice_of(payload, model_payload(w, number, payload, sizeof payload)),
        .packet_id = id,
        .qos = m->qos,
        .dup = dup,
        .retain = m->retain,
        .properties.raw = mqtt_property_block(&p)};
    size_t n = mqtt_encode_publish(packet, sizeof packet, c->version, &publish);
    REQUIRE(n);
    model_sent(c, number);
    life_say(w, "%s publishes %u, QoS %u, id %u%s to %.*s", c->id, number, m->qos, id,
             dup ? ", again" : "", CHR_SLICE_ARGS(publish.topic));
    return client_send(c, packet, n);
}

static bool send_pubrel(struct client *c, struct flight *f)
{
    uint8_t packet[MQTT_ACK_BYTES_MAX];
    size_t n = mqtt_encode_pubrel(packet, c->version, f->id, MQTT_REASON_SUCCESS);
    f->state = RELEASED;
    life_say(c->w, "%s says PUBREL %u", c->id, f->id);
    return client_send(c, packet, n);
}

static bool id_taken(const struct client *c, uint16_t id)
{
    for (uint32_t i = 0; i < c->flights_count; i++)
        if (c->flights[i].id == id)
            return true;
    return false;
}

static void publish_next(struct client *c)
{
    struct world *w = c->w;
    uint8_t qos = (uint8_t)(life_chance(w, 500) ? 0 : 1 + life_below(w, 2));
    uint8_t topic = (uint8_t)life_below(w, TOPICS);
    uint32_t number = model_message(c, topic, qos);
    if (!number)
        return;
    struct life_message *m = &w->messages[number];
    m->seq = ++c->seq[topic][qos];
    m->retain = topic == TOPICS - 1 && qos && life_chance(w, 3000);
    if (c->version == MQTT_V5 && !m->retain && life_chance(w, 2000))
        m->expiry_s = life_chance(w, 5000) ? 20 : 900;
    if (qos == 0) {
        (void)send_publish(c, number, 0, false);
        return;
    }
    do
        c->last_id = (uint16_t)(c->last_id % IDS + 1);
    while (id_taken(c, c->last_id));
    c->flights[c->flights_count++] =
        (struct flight){.state = SENT, .number = number, .id = c->last_id};
    (void)send_publish(c, number, c->last_id, false);
}

void publisher_step(struct client *c)
{
    struct world *w = c->w;
    if (!w->healing && c->flights_count < c->window && life_chance(w, 5000))
        publish_next(c);
    for (uint32_t i = 0; c->state == OPEN && i < c->flights_count; i++) {
        if (c->flights[i].state != RECEIVED)
            continue;
        if (w->healing || life_chance(w, 4000))
            (void)send_pubrel(c, &c->flights[i]);
        return; /* in the order of PUBREC */
    }
}

/* [MQTT-4.4.0-1] */
void publisher_resume(struct client *c, bool present)
{
    (void)present; /* client.c has looked: it has to be */
    for (uint32_t i = 0; i < c->flights_count; i++) {
        struct flight *f = &c->flights[i];
        if (!(f->state == SENT ? send_publish(c, f->number, f->id, true) : send_pubrel(c, f)))
            return;
    }
}

static struct flight *find(struct client *c, uint16_t id)
{
    for (uint32_t i = 0; i < c->flights_count; i++)
        if (c->flights[i].id == id)
            return &c->flights[i];
    return NULL;
}

static void finish(struct client *c, struct flight *f)
{
    uint32_t i = (uint32_t)(f - c->flights);
    memmove(f, f + 1, (--c->flights_count - i) * sizeof *f);
}

/* Is it in the log, if it has to be? */
static void check_committed(struct client *c, const struct flight *f, const char *answer)
{
    struct world *w = c->w;
    struct life_message *m = &w->messages[f->number];
    bool logged = m->mapped || m->retain;
    for (uint32_t s = 0; s < w->subs_count; s++) {
        const struct db__session *session =
            db__session_find(&log_oracle(w)->sessions, chr_slice_cstr(w->subs[s]->id));
        /* It may have expired; its client does not know yet. */
        logged |= m->to[s].need == MUST && session && session->subscriptions_count;
    }
    if (logged && !m->committed)
        life_broken(w, "S1: %s for message %u, which is not in the log", answer, f->number);
    m->answered = true;
    w->report->answered++;
}

static void check_released(struct client *c, uint16_t id)
{
    const struct db__session *s =
        db__session_find(&log_oracle(c->w)->sessions, chr_slice_cstr(c->id));
    for (uint32_t i = 0; s && i < s->guards_count; i++)
        if (s->guards[i] == id)
            life_broken(c->w, "S1: PUBCOMP for id %u of %s, which the log remembers", id, c->id);
}

void publisher_ack(struct client *c, uint8_t type, const struct mqtt_ack *ack)
{
    struct flight *f = find(c, ack->packet_id);
    life_say(c->w, "%s gets %s %u (0x%02x)", c->id, mqtt_packet_name(type), ack->packet_id,
             ack->reason_code);
    if (!f) {
        life_broken(c->w, "%s was answered (%s %u) what it did not ask", c->id,
                    mqtt_packet_name(type), ack->packet_id);
        return;
    }
    if (ack->reason_code >= 0x80 && type != MQTT_PUBCOMP) {
        life_broken(c->w, "message %u was refused: 0x%02x", f->number, ack->reason_code);
        return;
    }
    uint8_t qos = c->w->messages[f->number].qos;
    if (type == MQTT_PUBACK && qos == 1) {
        check_committed(c, f, "PUBACK");
        finish(c, f);
    } else if (type == MQTT_PUBREC && qos == 2) {
        if (f->state == SENT) {
            check_committed(c, f, "PUBREC");
            f->state = RECEIVED;
        }
    } else if (type == MQTT_PUBCOMP && f->state == RELEASED) {
        check_released(c, f->id);
        finish(c, f);
    } else {
        life_broken(c->w, "%s got a %s for id %u, which waits for something else", c->id,
                    mqtt_packet_name(type), ack->packet_id);
    }
}

bool publisher_idle(const struct client *c)
{
    return c->flights_count == 0;
}
