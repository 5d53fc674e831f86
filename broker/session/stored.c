#include "broker/session/stored.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/session/authorize.h"
#include "broker/session/internal.h"
#include "db/durable.h"
#include "proto/mqtt/encode.h"

/* Messages read at a time, and bytes of them: enough to fill a segment or two. */
#define READ_ITEMS 64u
#define READ_BYTES (256u << 10)
/* Ranges not reported: clients that answer out of order. */
#define RANGES_MAX 1024u

static uint64_t end_of(const struct stored_out *out)
{
    return out->first + outgoing_count(&out->window);
}

/* The entry of a packet id; *sequence: its number. */
static struct outgoing *find(const struct session *s, uint16_t packet_id, uint64_t *sequence)
{
    const struct stored_out *out = &s->stored;
    uint32_t count = outgoing_count(&out->window);
    if (count == 0 || packet_id == 0)
        return NULL;
    uint32_t i = (packet_id + 65535u - stored_packet_id(out->first)) % 65535u; /* W1, W2 */
    if (i >= count)
        return NULL;
    *sequence = out->first + i;
    return outgoing_at(&out->window, i);
}

bool session_stored_uses(const struct session *s, uint16_t packet_id)
{
    uint64_t sequence;
    return find(s, packet_id, &sequence) != NULL;
}

/* ---- Acknowledged -----------------------------------------------------------------------------
 */

/* False: no memory; the messages will be sent again. */
static bool note_acked(struct session *s, uint64_t first, uint64_t to)
{
    struct stored_out *out = &s->stored;
    struct db_sequence_range *last = out->acked_count ? &out->acked[out->acked_count - 1] : NULL;
    if (last && last->last + 1 == first) {
        last->last = to;
        return true;
    }
    if (out->acked_count == out->acked_max) {
        uint32_t max = out->acked_max ? out->acked_max * 2 : 4;
        struct db_sequence_range *bigger = realloc(out->acked, max * sizeof *bigger);
        if (!bigger)
            return false;
        out->acked = bigger;
        out->acked_max = max;
    }
    if (out->acked_count++ == 0)
        chr_list_push_back(&state_of(s->loop)->acked, &out->acked_link);
    out->acked[out->acked_count - 1] = (struct db_sequence_range){first, to};
    return true;
}

static void pop_done(struct stored_out *out)
{
    while (outgoing_count(&out->window) && outgoing_at(&out->window, 0)->state == OUT_DONE) {
        session__ring_pop(&out->window);
        out->first++;
    }
}

static void done(struct session *s, struct outgoing *o, uint64_t sequence)
{
    struct stored_out *out = &s->stored;
    if (!note_acked(s, sequence, sequence))
        chr_log_warning("mqtt", "out of memory; a message will be sent again",
                        CHR_KV_S("client", s->client_id));
    state_of(s->loop)->acked_waiting++;
    session__outgoing_drop(o);
    o->state = OUT_DONE;
    out->open--;
    pop_done(out);
    if (out->acked_count >= RANGES_MAX)
        session_stored_report(s);
}

void session_stored_acked(struct session *s, uint16_t packet_id, bool *known)
{
    uint64_t sequence = 0;
    struct outgoing *o = find(s, packet_id, &sequence);
    *known = o && o->state == OUT_PUBACK;
    if (!*known)
        return;
    done(s, o, sequence);
    session_pump(s);
}

bool session_stored_received(struct session *s, uint16_t packet_id, uint8_t reason, bool *known)
{
    uint64_t sequence = 0;
    struct outgoing *o = find(s, packet_id, &sequence);
    *known = o && (o->state == OUT_PUBREC || o->state == OUT_NOTING || o->state == OUT_PUBCOMP);
    if (!*known)
        return false;
    if (reason >= 0x80) {
        if (o->state != OUT_PUBREC)
            return false; /* it said otherwise before */
        done(s, o, sequence);
        session_pump(s);
        return false;
    }
    if (o->state == OUT_PUBREC) {
        session__outgoing_drop(o); /* it is the client's now: never again */
        o->state = OUT_NOTING;
        if (session__log_received(s, sequence)) {
            chr_log_warning("mqtt", "out of memory for the answer of a client",
                            CHR_KV_S("client", s->client_id));
            conn_close(s->conn); /* it will be asked again */
        }
    }
    return o->state == OUT_PUBCOMP;
}

void session_stored_completed(struct session *s, uint16_t packet_id, bool *known)
{
    uint64_t sequence = 0;
    struct outgoing *o = find(s, packet_id, &sequence);
    *known = o && o->state == OUT_PUBCOMP;
    if (!*known)
        return;
    done(s, o, sequence);
    session_pump(s);
}

static void send_pubrel(struct session *s, uint16_t packet_id)
{
    uint8_t packet[MQTT_ACK_BYTES_MAX];
    size_t n = mqtt_encode_pubrel(packet, s->version, packet_id, MQTT_REASON_SUCCESS);
    conn_send(s->conn, chr_slice_of(packet, n));
}

void session_stored_release(struct session *s, uint64_t sequence)
{
    struct stored_out *out = &s->stored;
    if (!s->conn || s->conn->state != CONN_OPEN || outgoing_count(&out->window) == 0 ||
        sequence < out->first || sequence >= end_of(out))
        return; /* a later connection reads it in db's queue */
    struct outgoing *o = outgoing_at(&out->window, (uint32_t)(sequence - out->first));
    if (o->state != OUT_NOTING)
        return;
    o->state = OUT_PUBCOMP;
    send_pubrel(s, stored_packet_id(sequence));
}

/* ---- Reports ----------------------------------------------------------------------------------
 */

void session_stored_report(struct session *s)
{
    struct stored_out *out = &s->stored;
    if (out->acked_count == 0)
        return;
    if (session__log_acked(s, out->acked, out->acked_count))
        return; /* no memory: later */
    out->acked = NULL;
    out->acked_count = out->acked_max = 0;
    chr_list_remove(&out->acked_link);
}

void session__stored_report_all(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    CHR_LIST_FOR_SAFE (link, next, &state->acked) {
        struct stored_out *out = CHR_CONTAINER_OF(link, struct stored_out, acked_link);
        session_stored_report(CHR_CONTAINER_OF(out, struct session, stored));
    }
    state->acked_waiting = 0;
}

/* ---- Sending ----------------------------------------------------------------------------------
 */

static bool copy_ids(const struct db_queue_item *item, uint8_t **out)
{
    uint8_t stack[64], *block = stack;
    size_t bytes = (size_t)item->ids_count * 5;
    if (bytes > sizeof stack && !(block = malloc(bytes)))
        return false;
    struct mqtt_property_writer w = mqtt_property_writer(block, CHR_MAX(bytes, sizeof stack));
    for (uint32_t i = 0; i < item->ids_count; i++)
        mqtt_put_number(&w, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, item->ids[i]);
    bool ok = session__ids_copy(mqtt_property_block(&w), out);
    if (block != stack)
        free(block);
    return ok;
}

/* Messages before this one that were never sent and are not there any more: they expired. The log
 * may not have noticed yet, and what is sent now says that everything before it may have been, too:
 * they would come after all, late and behind newer ones [MQTT-3.3.2-5]. */
static void note_left_out(struct session *s, uint64_t sequence)
{
    const struct stored_out *out = &s->stored;
    uint64_t from = outgoing_count(&out->window) ? end_of(out) : out->next;
    from = CHR_MAX(from, out->sent + 1);
    if (out->acked_count) /* an earlier try */
        from = CHR_MAX(from, out->acked[out->acked_count - 1].last + 1);
    if (from < sequence)
        (void)note_acked(s, from, sequence - 1);
}

/* Takes the item into the window and sends it. False: not now. */
static bool send_item(struct session *s, struct db_queue_item *item)
{
    struct stored_out *out = &s->stored;
    if (outgoing_count(&out->window) == 0)
        out->first = item->sequence;
    if (item->sequence - out->first >= STORED_SPAN_MAX ||
        session__memory_uses(s, stored_packet_id(item->sequence)))
        return false; /* an acknowledgement pumps again */
    note_left_out(s, item->sequence);
    struct outgoing gone = {.state = OUT_DONE};
    while (end_of(out) < item->sequence)
        if (!session__ring_push(&out->window, &gone))
            return false;
    struct outgoing o = {.stored = item->message,
                         .packet_id = stored_packet_id(item->sequence),
                         .qos = item->qos,
                         .retain = item->retain,
                         .state = item->received   ? OUT_PUBCOMP
                                  : item->qos == 2 ? OUT_PUBREC
                                                   : OUT_PUBACK};
    if (item->message && !copy_ids(item, &o.ids))
        return false;
    if (!session__ring_push(&out->window, &o)) {
        free(o.ids);
        return false;
    }
    item->message = NULL; /* the window's */
    out->open++;
    out->next = item->sequence + 1;
    struct outgoing *placed = outgoing_at(&out->window, outgoing_count(&out->window) - 1);
    bool dup = item->sequence <= out->sent;
    out->sent = CHR_MAX(out->sent, item->sequence);
    if (item->received) {
        session__outgoing_drop(placed);
        send_pubrel(s, placed->packet_id);
    } else if (!placed->stored) {
        chr_log_error("mqtt", "a queued message is damaged and is left out",
                      CHR_KV_S("client", s->client_id), CHR_KV_U("sequence", item->sequence));
        session__count_dropped(s, DROP_DAMAGED);
        done(s, placed, item->sequence);
    } else if (!session__may_read(s, placed->stored->topic)) {
        done(s, placed, item->sequence); /* it was queued by its filter alone */
    } else if (session__send_publish(s, placed, dup) == SENT_TOO_LARGE) {
        /* As if it had been delivered [MQTT-3.1.2-25]. */
        session__count_dropped(s, DROP_TOO_LARGE);
        done(s, placed, item->sequence);
    } else {
        session__outgoing_drop(placed); /* the database has it, should it be needed again */
    }
    return true;
}

void session_stored_pump(struct session *s)
{
    struct stored_out *out = &s->stored;
    if (out->pumping) /* a flush in here may call back */
        return;
    out->pumping = true;
    while (out->more && s->conn && s->conn->state == CONN_OPEN) {
        if (!session__window_room(s) || session__output_full(s))
            break;
        struct db_queue_item items[READ_ITEMS];
        size_t room = s->receive_maximum - s->inflight_open - out->open;
        size_t most = CHR_MIN(room, READ_ITEMS);
        size_t count =
            db_queue_read(s->loop->node->db, s->epoch, out->next, items, most, READ_BYTES);
        if (count == DB_QUEUE_NO_MEMORY)
            break; /* looked at again once a second */
        out->more = count > 0;
        bool go_on = true;
        for (size_t i = 0; i < count; i++) {
            /* What could not be read is looked at again once a second. */
            bool later = !items[i].message && !items[i].received && items[i].error != CHR_ECORRUPT;
            go_on = go_on && !later && s->conn && s->conn->state == CONN_OPEN &&
                    send_item(s, &items[i]);
            db_message_unref(items[i].message);
            free(items[i].ids);
        }
        if (!go_on)
            break;
    }
    out->pumping = false;
}

void session_stored_more(struct session *s)
{
    s->stored.more = true;
    if (s->conn)
        session_stored_pump(s);
}

void session_stored_rewind(struct session *s)
{
    session__ring_free(&s->stored.window);
    s->stored.open = 0;
    s->stored.first = s->stored.next = 0;
    s->stored.more = true;
}

void session_stored_clear(struct session *s)
{
    struct stored_out *out = &s->stored;
    session__ring_free(&out->window);
    if (out->acked_count)
        chr_list_remove(&out->acked_link);
    free(out->acked);
    *out = (struct stored_out){0};
}
