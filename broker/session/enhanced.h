/* broker/session/enhanced.h: enhanced authentication (MQTT 5.0, 4.12): logins in several packets.
 *
 *     CONNECT method, client-first ─▶ ┐
 *              AUTH 0x18 server-first ◀┤ CONN_NEW: nothing but AUTH and DISCONNECT is taken
 *     AUTH 0x18 client-final ────────▶ ┘
 *              CONNACK 0x00 server-final     (then CONNECT goes its way, handle_connect.c)
 *
 *     AUTH 0x19 client-first, 0x18 … ─▶ AUTH 0x18, AUTH 0x00: the same on an open connection,
 * beside its other packets, which keep their rights until it is over
 *
 * CONNECT or AUTH 0x19 without Authentication Data are answered with an empty AUTH 0x18, as SASL
 * has it for methods in which the client speaks first. The exchange lives on the connection and
 * moves with it; the connect timeout bounds it, and the memory of all of them together is bounded.
 * A connection keeps its user: authenticating again as somebody else is refused. The user is the
 * one of the exchange; User Name and Password of such a CONNECT are not looked at. */
#ifndef CHR_BROKER_SESSION_ENHANCED_H
#define CHR_BROKER_SESSION_ENHANCED_H

#include "broker/session/internal.h"
#include "proto/mqtt/encode.h"

/* Of its properties in CONNACK: names, lengths, method and data. */
#define ENHANCED_CONNACK_BYTES 80

/* A CONNECT that names a method. raw: all of it; copied. DISPATCH_DONE: the exchange has begun and
 * AUTH was sent; CONNECT is handled again when it has succeeded. DISPATCH_CLOSE: refused. */
enum dispatch session__enhanced_begin(struct conn *conn, const struct mqtt_connect *connect,
                                      chr_slice raw);
/* Any packet of a connection in CONN_NEW whose CONNECT named a method. */
enum dispatch session__enhanced_packet(struct conn *conn, const struct mqtt_frame *frame);
/* AUTH on an open connection whose CONNECT named a method. */
enum dispatch session__handle_auth(struct conn *conn, const struct mqtt_frame *frame);
/* What CONNACK says of the exchange, if there was one; then it is over. */
void session__enhanced_put_connack(struct mqtt_property_writer *w, const struct conn *conn);
void session__enhanced_connected(struct conn *conn);

#endif
