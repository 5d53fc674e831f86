/* A client's connection: bytes in and out, who it is connected to, how that ends. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "db/internal.h"
#include "tests/sim/session_life/world.h"

#define PATIENCE_US INT64_C(3000000) /* for CONNACK, or the end after DISCONNECT */

void client_init(struct world *w, uint32_t i, enum client_kind kind)
{
    struct client *c = &w->clients[i];
    *c =
        (struct client){.w = w, .kind = kind, .i = i, .sub = SUBS_MAX, .fd = -1, .node = NODES_MAX};
    snprintf(c->id, sizeof c->id, "c%u", i);
    c->version = life_chance(w, 6000) ? MQTT_V5 : MQTT_V311;
    c->expiry_s = UINT32_MAX;
    c->window = 1 + life_below(w, FLIGHTS_MAX);
    c->qos = (uint8_t)(life_chance(w, 7500) ? 2 : 1);
    c->receive_max =
        (uint16_t)(c->version == MQTT_V5 ? 1 + life_below(w, RECEIVE_MAX)
                                         : w->nodes[0].base.config.max_inflight_messages);
    if (kind == PUBLISHER)
        return;
    c->received = calloc(65536, sizeof *c->received);
    c->counted = calloc(65536, sizeof *c->counted);
    c->heard = calloc(MESSAGES_MAX, sizeof *c->heard);
    REQUIRE(c->received && c->counted && c->heard);
    if (kind == LISTENER) {
        c->expiry_s = 0;
        return;
    }
    if (c->version == MQTT_V5 && life_chance(w, 5000))
        c->expiry_s = 15;
    c->sub = w->subs_count;
    w->subs[w->subs_count++] = c;
    for (uint32_t f = 0; f < FILTERS; f++)
        c->filters[f].wanted = true;
}

void client_free(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->received);
    free(c->counted);
    free(c->heard);
}

void client_owe(struct client *c, uint8_t type, uint16_t id)
{
    if (c->owed_count == CHR_COUNT_OF(c->owed)) {
        life_broken(c->w, "S3: %s is sent more than it takes", c->id);
        return;
    }
    c->owed[c->owed_count++] = (struct owed){type, id};
}

void client_answer(struct client *c)
{
    struct owed o = c->owed[0];
    uint8_t packet[MQTT_ACK_BYTES_MAX];
    size_t n = mqtt_encode_ack_short(packet, c->version, (enum mqtt_packet_type)o.type, o.id,
                                     MQTT_REASON_SUCCESS);
    memmove(c->owed, c->owed + 1, --c->owed_count * sizeof c->owed[0]);
    if (o.type != MQTT_PUBREC && c->counted[o.id]) {
        c->counted[o.id] = false;
        c->unanswered--;
    }
    life_say(c->w, "%s says %s %u", c->id, mqtt_packet_name(o.type), o.id);
    (void)client_send(c, packet, n);
}

static void remember_session(struct client *c)
{
    const struct db__session *s =
        db__session_find(&log_oracle(c->w)->sessions, chr_slice_cstr(c->id));
    c->epoch = s ? s->epoch : 0;
    c->generation = s ? s->generation : 0;
}

/* ---- The end of a connection ------------------------------------------------------------------
 */

/* By the log: its node was declared down, another connection came, or it expired. */
bool client_session_ended(const struct client *c)
{
    const struct db__session *s =
        db__session_find(&log_oracle(c->w)->sessions, chr_slice_cstr(c->id));
    return !s || s->epoch != c->own_epoch || s->generation != c->own_generation;
}

static void forget_connection(struct client *c)
{
    enum client_state was = c->state;
    c->state = DOWN;
    c->fd = -1;
    c->in_len = 0;
    if (was == OPEN || was == LEAVING)
        c->lost_us = client_session_ended(c) ? 0 : log_time_us(c->w);
    if (was != LEAVING)
        will_lost(c);
    else if (c->will)
        c->w->messages[c->will].will = WILL_OPEN; /* unless will_left says better */
    c->will = 0;
}

static void process(struct client *c);

void client_lose(struct client *c, bool all_comes)
{
    if (c->fd < 0)
        return;
    life_say(c->w, "%s loses its connection", c->id);
    int fd = c->fd;
    if (c->state != LEAVING) {
        size_t room = sizeof c->in - c->in_len;
        ssize_t got =
            recv(fd, c->in + c->in_len, all_comes ? room : life_below(c->w, 64), MSG_DONTWAIT);
        if (got > 0) {
            c->in_len += (size_t)got;
            process(c);
        }
    }
    if (c->fd < 0)
        return; /* what came ended it */
    close(fd);
    forget_connection(c);
}

void client_desert(struct client *c)
{
    struct world *w = c->w;
    if (c->fd < 0 || w->half_open_count == CHR_COUNT_OF(w->half_open))
        return;
    life_say(w, "%s deserts its connection", c->id);
    w->half_open[w->half_open_count].fd = c->fd;
    w->half_open[w->half_open_count++].until_us = w->now_us + life_below(w, 4000000);
    forget_connection(c);
    w->report->takeovers++;
}

void clients_close_half_open(struct world *w, bool all)
{
    for (uint32_t i = 0; i < w->half_open_count;) {
        if (!all && w->half_open[i].until_us > w->now_us) {
            i++;
            continue;
        }
        close(w->half_open[i].fd);
        w->half_open[i] = w->half_open[--w->half_open_count];
    }
}

void client_leave(struct client *c)
{
    uint8_t packet[8];
    struct mqtt_disconnect disconnect = {.reason_code = MQTT_REASON_SUCCESS};
    size_t n = mqtt_encode_disconnect(packet, sizeof packet, c->version, &disconnect);
    life_say(c->w, "%s says DISCONNECT", c->id);
    if (!client_send(c, packet, n))
        return;
    c->state = LEAVING;
    c->since_us = c->w->now_us;
}

bool client_send(struct client *c, const uint8_t *bytes, size_t len)
{
    struct world *w = c->w;
    if (c->fd < 0)
        return false;
    bool part = !w->healing && life_chance(w, w->lose);
    if (part)
        len = life_below(w, (uint32_t)len);
    ssize_t sent = send(c->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (!part && sent == (ssize_t)len)
        return true;
    client_lose(c, life_chance(w, 5000));
    return false;
}

/* ---- The beginning ----------------------------------------------------------------------------
 */

static size_t put_connect(struct client *c, uint8_t *packet, size_t room)
{
    struct world *w = c->w;
    uint8_t block[32], will_block[16];
    char topic[32], payload[64];
    struct mqtt_property_writer p = mqtt_property_writer(block, sizeof block);
    struct mqtt_property_writer q = mqtt_property_writer(will_block, sizeof will_block);
    struct mqtt_connect connect = {.version = c->version,
                                   .protocol_level = (uint8_t)c->version,
                                   .clean_start = c->kind == LISTENER,
                                   .client_id = chr_slice_cstr(c->id),
                                   .has_will = c->will != 0};
    if (c->version == MQTT_V5) {
        mqtt_put_number(&p, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL, c->expiry_s);
        mqtt_put_number(&p, MQTT_PROPERTY_RECEIVE_MAXIMUM, c->receive_max);
    }
    connect.properties.raw = mqtt_property_block(&p);
    if (c->will) {
        const struct life_message *m = &w->messages[c->will];
        connect.will.qos = m->qos;
        connect.will.topic = chr_slice_of(topic, model_topic(w, c->will, topic, sizeof topic));
        connect.will.payload =
            chr_slice_of(payload, model_payload(w, c->will, payload, sizeof payload));
        if (m->will_delay_s)
            mqtt_put_number(&q, MQTT_PROPERTY_WILL_DELAY_INTERVAL, m->will_delay_s);
        connect.will.properties.raw = mqtt_property_block(&q);
    }
    return mqtt_encode_connect(packet, room, &connect);
}

void client_connect(struct client *c)
{
    struct world *w = c->w;
    uint32_t up = 0, chosen = NODES_MAX;
    for (uint32_t i = 0; i < w->nodes_count; i++)
        if (w->nodes[i].up && life_below(w, ++up) == 0)
            chosen = i;
    if (chosen == NODES_MAX || c->left_will)
        return;
    int pair[2];
    REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
    w->report->connections++;
    w->report->hops += c->node < NODES_MAX && c->node != chosen;
    c->fd = pair[0];
    c->node = chosen;
    c->boot = w->nodes[chosen].boot;
    c->state = CONNECTING;
    c->since_us = w->now_us;
    c->connected_us = chr_hlc_unix_us(db_replicated_time(w->nodes[chosen].base.node.db));
    c->in_len = 0;
    c->will = will_make(c);
    session_node_adopt(&w->nodes[chosen].base, life_below(w, SESSION_NODE_LOOPS), pair[1]);
    uint8_t packet[512];
    size_t n = put_connect(c, packet, sizeof packet);
    REQUIRE(n);
    remember_session(c);
    c->over = c->closed_us && c->generation == c->closed_generation && c->expiry_s != UINT32_MAX &&
              log_time_us(w) - c->closed_us > (int64_t)c->expiry_s * 1000000;
    c->closed_us = 0;
    life_say(w, "%s connects to node %u, will %u", c->id, chosen, c->will);
    (void)client_send(c, packet, n);
}

static void connected(struct client *c, const struct mqtt_connack *connack)
{
    struct world *w = c->w;
    bool present = connack->session_present;
    life_say(w, "%s gets CONNACK 0x%02x%s", c->id, connack->reason_code,
             present ? ", session present" : "");
    if (connack->reason_code != MQTT_REASON_SUCCESS) { /* busy, or taken over: again, elsewhere */
        client_lose(c, false);
        return;
    }
    if (c->kind == LISTENER) {
        c->state = OPEN;
        will_connected(c);
        listener_resume(c);
        return;
    }
    const struct db__session *s = db__session_find(&log_oracle(w)->sessions, chr_slice_cstr(c->id));
    if (!s || (s->epoch == c->epoch && s->generation == c->generation)) {
        life_broken(w, "S1: CONNACK for %s, whose connection the log does not know", c->id);
        return;
    }
    /* A CONNECT that was not answered may have begun another one, after the end of the first. */
    present = present && (!c->known || s->epoch == c->own_epoch);
    int64_t away_us = log_time_us(w) - c->lost_us;
    if (c->known && !present &&
        (c->expiry_s == UINT32_MAX || away_us < (int64_t)c->expiry_s * 1000000)) {
        life_broken(w, "S5: the session of %s is gone after %lld us", c->id, (long long)away_us);
        return;
    }
    if (c->known && present && c->over) {
        life_broken(w, "S5: the session of %s is there after it expired", c->id);
        return;
    }
    w->report->expired += c->known && !present;
    c->own_epoch = s->epoch;
    c->own_generation = s->generation;
    c->known = true;
    c->state = OPEN;
    will_connected(c);
    will_back(c);
    if (c->kind == SUBSCRIBER)
        subscriber_resume(c, present);
    else
        publisher_resume(c, present);
}

/* ---- Packets ----------------------------------------------------------------------------------
 */

static void came(struct client *c, const struct mqtt_frame *frame)
{
    struct mqtt_fault fault;
    struct mqtt_connack connack;
    struct mqtt_publish publish;
    struct mqtt_ack ack;
    struct mqtt_suback suback;
    struct mqtt_unsuback unsuback;
    chr_err err = CHR_OK;
    life_digest(c->w, (uint64_t)frame->type << 8 | c->i);
    bool subscribes = c->kind != PUBLISHER, listens = c->kind == LISTENER;
    if ((frame->type == MQTT_CONNACK) != (c->state == CONNECTING)) {
        life_broken(c->w, "%s got a %s out of place", c->id, mqtt_packet_name(frame->type));
        return;
    }
    if (frame->type == MQTT_CONNACK) {
        err = mqtt_decode_connack(frame, c->version, &connack, &fault);
        if (!err)
            connected(c, &connack);
    } else if (frame->type == MQTT_PUBLISH && subscribes) {
        err = mqtt_decode_publish(frame, c->version, &publish, &fault);
        if (!err)
            (listens ? listener_publish : subscriber_publish)(c, &publish);
    } else if (frame->type == MQTT_PUBREL && subscribes) {
        err = mqtt_decode_ack(frame, c->version, &ack, &fault);
        if (!err)
            subscriber_pubrel(c, &ack);
    } else if (frame->type == MQTT_SUBACK && subscribes) {
        err = mqtt_decode_suback(frame, c->version, &suback, &fault);
        if (!err && listens)
            listener_suback(c, &suback);
        else if (!err)
            subscriber_suback(c, suback.packet_id, suback.reason_codes.ptr[0], true);
    } else if (frame->type == MQTT_UNSUBACK && subscribes) {
        err = mqtt_decode_unsuback(frame, c->version, &unsuback, &fault);
        if (!err)
            subscriber_suback(c, unsuback.packet_id, 0, false);
    } else if (frame->type >= MQTT_PUBACK && frame->type <= MQTT_PUBCOMP && !subscribes) {
        err = mqtt_decode_ack(frame, c->version, &ack, &fault);
        if (!err)
            publisher_ack(c, (uint8_t)frame->type, &ack);
    } else if (frame->type != MQTT_DISCONNECT) {
        life_broken(c->w, "%s got a %s", c->id, mqtt_packet_name(frame->type));
    }
    if (err)
        life_broken(c->w, "%s got a %s that is malformed", c->id, mqtt_packet_name(frame->type));
}

/* What is whole of what came. */
static void process(struct client *c)
{
    size_t used = 0;
    while (c->fd >= 0 && c->state != LEAVING && !c->w->report->broken[0]) {
        struct mqtt_frame frame;
        int n = mqtt_frame_from_server(chr_slice_of(c->in + used, c->in_len - used), 0, &frame);
        if (n < 0)
            life_broken(c->w, "%s got what is no packet", c->id);
        if (n <= 0)
            break;
        used += (size_t)n;
        came(c, &frame);
    }
    if (c->fd < 0)
        return;
    memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
}

void client_read(struct client *c)
{
    while (c->fd >= 0 && !c->w->report->broken[0]) {
        ssize_t got = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, MSG_DONTWAIT);
        if (got < 0)
            return;
        if (got > 0) {
            c->in_len = c->state == LEAVING ? 0 : c->in_len + (size_t)got;
            process(c);
            continue;
        }
        life_say(c->w, "%s: its connection is closed", c->id);
        uint32_t will = c->will;
        bool left = c->state == LEAVING;
        close(c->fd);
        forget_connection(c);
        if (left) {
            c->will = will;
            will_left(c);
            c->will = 0;
        }
    }
}

static void look_whether_closed(struct client *c)
{
    if (c->state != DOWN || c->closed_us)
        return;
    const struct db__session *s =
        db__session_find(&log_oracle(c->w)->sessions, chr_slice_cstr(c->id));
    if (!s || s->connected)
        return;
    c->closed_us = log_time_us(c->w);
    c->closed_generation = s->generation;
}

void client_step(struct client *c)
{
    struct world *w = c->w;
    will_settle(c);
    look_whether_closed(c);
    client_read(c);
    if (c->state == DOWN && (w->healing || life_chance(w, 1500))) {
        client_connect(c);
    } else if (c->state == CONNECTING || c->state == LEAVING) {
        if (w->now_us - c->since_us > PATIENCE_US)
            client_lose(c, false);
    } else if (c->state == OPEN && !w->healing && life_chance(w, w->lose)) {
        uint32_t how = life_below(w, 4);
        if (how == 0)
            client_leave(c);
        else if (how == 1)
            client_desert(c);
        else
            client_lose(c, how == 2);
    } else if (c->state == OPEN && c->kind == SUBSCRIBER) {
        subscriber_step(c);
    } else if (c->state == OPEN && c->kind == PUBLISHER) {
        publisher_step(c);
    }
    while (c->kind == LISTENER && c->state == OPEN && c->owed_count)
        client_answer(c);
}
