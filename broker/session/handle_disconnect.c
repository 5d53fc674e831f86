/* broker/session/handle_disconnect.c: DISCONNECT of a client (3.14). */
#include "broker/session/internal.h"
#include "broker/session/will.h"

enum dispatch session__handle_disconnect(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_disconnect disconnect;
    struct mqtt_fault fault;
    struct session *s = conn->session;
    if (mqtt_decode_disconnect(frame, conn->version, &disconnect, &fault))
        return session_fault(conn, &fault);
    if (session__publishes_wait(conn))
        return DISPATCH_AGAIN;
    if (mqtt_has(&disconnect.properties, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL)) {
        uint32_t wanted = disconnect.properties.session_expiry_s;
        if (s->expiry_s == 0 && wanted != 0)
            return session_fault_of(conn, MQTT_REASON_PROTOCOL_ERROR, "MQTT-3.14.2-2",
                                    "a session that was to end with its connection can't be "
                                    "prolonged by DISCONNECT");
        s->expiry_s = CHR_MIN(wanted, conn->loop->node->config->max_session_expiry_s);
    }
    conn->end = CONN_END_CLIENT;
    conn->end_code = disconnect.reason_code;
    LOOP_ADD(&conn->loop->ends.by_client[disconnect.reason_code], 1);
    if (disconnect.reason_code == MQTT_REASON_SUCCESS) {
        will_drop(s); /* [MQTT-3.14.4-3] */
        s->left = true;
    }
    return DISPATCH_CLOSE;
}
