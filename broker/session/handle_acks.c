/* broker/session/handle_acks.c: PUBACK, PUBREC, PUBREL, PUBCOMP of a client (3.4 to 3.7). */
#include <stdlib.h>
#include <string.h>

#include "broker/session/internal.h"
#include "proto/mqtt/encode.h"

static bool decode(struct conn *conn, const struct mqtt_frame *frame, struct mqtt_ack *ack)
{
    struct mqtt_fault fault;
    if (mqtt_decode_ack(frame, conn->version, ack, &fault) == CHR_OK)
        return true;
    (void)session_fault(conn, &fault);
    return false;
}

/* What answers nothing that we sent is ignored: it may belong to a connection before. */
enum dispatch session__handle_puback(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_ack ack;
    if (!decode(conn, frame, &ack))
        return DISPATCH_CLOSE;
    (void)session_acked(conn->session, ack.packet_id);
    return DISPATCH_DONE;
}

enum dispatch session__handle_pubrec(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_ack ack;
    bool known = false;
    if (!decode(conn, frame, &ack))
        return DISPATCH_CLOSE;
    bool release = session_received(conn->session, ack.packet_id, ack.reason_code, &known);
    if (!release && (known || ack.reason_code >= 0x80))
        return DISPATCH_DONE;
    uint8_t packet[MQTT_ACK_BYTES_MAX];
    uint8_t reason = known ? MQTT_REASON_SUCCESS : MQTT_REASON_PACKET_ID_NOT_FOUND;
    size_t n = mqtt_encode_pubrel(packet, conn->version, ack.packet_id, reason);
    conn_send(conn, chr_slice_of(packet, n));
    return DISPATCH_DONE;
}

enum dispatch session__handle_pubcomp(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_ack ack;
    if (!decode(conn, frame, &ack))
        return DISPATCH_CLOSE;
    (void)session_completed(conn->session, ack.packet_id);
    return DISPATCH_DONE;
}

/* ---- PUBREL: the end of a QoS 2 publish -------------------------------------------------------
 */

static bool add_release(struct conn *conn, uint32_t sequence, uint16_t packet_id);

static bool again_later(struct conn *conn, uint32_t sequence)
{
    struct loop_session_state *state = state_of(conn->loop);
    if (state->releases_count == state->releases_max) {
        uint32_t max = state->releases_max ? state->releases_max * 2 : 64;
        struct release_again *bigger = realloc(state->releases, max * sizeof *bigger);
        if (!bigger)
            return false;
        state->releases = bigger;
        state->releases_max = max;
    }
    state->releases[state->releases_count++] = (struct release_again){conn->ref, sequence};
    return true;
}

void session__releases_continue(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    uint32_t done = 0;
    for (; done < state->releases_count; done++) {
        const struct release_again *r = &state->releases[done];
        struct conn *conn = loop_conn(loop, r->conn);
        if (!conn || !conn->session || conn->state != CONN_OPEN)
            continue;
        uint16_t packet_id = conn->acks[r->sequence & conn->acks_mask].packet_id;
        if (!add_release(conn, r->sequence, packet_id))
            break;
    }
    state->releases_count -= done;
    memmove(state->releases, state->releases + done,
            state->releases_count * sizeof *state->releases);
}

/* The log has forgotten the packet id: now the client may use it again (R5). */
static void released(struct conn *conn, void *arg, const struct db_op_result *result)
{
    uint32_t sequence = (uint32_t)(uintptr_t)arg;
    if (!conn || !conn->session || conn->state != CONN_OPEN)
        return; /* it will say PUBREL again */
    uint16_t packet_id = conn->acks[sequence & conn->acks_mask].packet_id;
    if (result->err == CHR_ESTALE) { /* R9: its batch was not applied */
        if (!add_release(conn, sequence, packet_id) && !again_later(conn, sequence))
            conn_close(conn);
        return;
    }
    if (result->err == CHR_ECLOSED)
        return;
    if (result->err) {
        /* A newer connection of the session, or its end, came first: the log remembers the id, and
         * whoever used it again would not be heard. The client says PUBREL again, there. */
        session_is_history(conn);
        return;
    }
    (void)incoming_release(&conn->session->incoming, packet_id);
    conn_ack_done(conn, sequence, 1, MQTT_REASON_SUCCESS);
}

/* False: no batch free. */
static bool add_release(struct conn *conn, uint32_t sequence, uint16_t packet_id)
{
    const struct session *s = conn->session;
    struct batch *batch = session__batch(conn->loop);
    if (!batch || batch_wait_next_op(batch, conn, released, (void *)(uintptr_t)sequence))
        return false;
    struct db_guard guard = {s->epoch, s->generation, packet_id};
    db_entry_add_release(&batch->entry, &guard, 1);
    if (batch_full(batch))
        batch_propose(batch);
    return true;
}

enum dispatch session__handle_pubrel(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_ack ack;
    struct session *s = conn->session;
    if (!decode(conn, frame, &ack))
        return DISPATCH_CLOSE;
    if (conn_acks_room(conn) == 0) {
        conn_pause(conn, CONN_PAUSE_INFLIGHT);
        return DISPATCH_AGAIN;
    }
    if (s->durable) {
        /* Whether or not its message went into a table: the mapping may have changed between the
         * two, and an id that the log goes on remembering would swallow a later message. */
        if (!session__batch(conn->loop)) {
            conn_pause(conn, CONN_PAUSE_BATCH);
            return DISPATCH_AGAIN;
        }
        uint32_t sequence = conn_ack_begin(conn, MQTT_PUBCOMP, ack.packet_id);
        if (!add_release(conn, sequence, ack.packet_id)) {
            session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
            return DISPATCH_CLOSE;
        }
        return DISPATCH_DONE;
    }
    bool known = incoming_release(&s->incoming, ack.packet_id);
    uint32_t sequence = conn_ack_begin(conn, MQTT_PUBCOMP, ack.packet_id);
    conn_ack_done(conn, sequence, 1, known ? MQTT_REASON_SUCCESS : MQTT_REASON_PACKET_ID_NOT_FOUND);
    return DISPATCH_DONE;
}
