/* broker/session/reason.h: the door between what went wrong inside and what MQTT calls it. The only
 * place where a chr_err becomes a reason code. */
#ifndef CHR_BROKER_SESSION_REASON_H
#define CHR_BROKER_SESSION_REASON_H

#include "base/err.h"
#include "broker/net/conn.h"
#include "broker/net/loop.h"
#include "proto/mqtt/decode.h"

/* The reason code of 5.0 that says what err says. */
uint8_t session_reason_of(chr_err err);

/* The client broke a rule: counts it, logs one line with client, address, rule and text, answers
 * (CONNACK before CONNECT was accepted, DISCONNECT after; in 3.1.1 a CONNACK at most) and closes.
 * Returns DISPATCH_CLOSE, so that handlers can return it. */
enum dispatch session_fault(struct conn *conn, const struct mqtt_fault *fault);
/* The same for a rule that a decoder cannot know. */
enum dispatch session_fault_of(struct conn *conn, uint8_t reason_code, const char *rule,
                               const char *text);
/* Ends the connection for a reason that is no fault of the client's: DISCONNECT with the code in
 * 5.0, then closes. text: for the Reason String; NULL: none. */
void session_end_connection(struct conn *conn, uint8_t reason_code, const char *text);
/* CONNACK with a failure, in the words of the client's version, then closes. */
enum dispatch session_refuse_connect(struct conn *conn, uint8_t reason_code, const char *text);
/* DISCONNECT with a Server Reference (4.11), to clients of 5.0; the caller closes. reference NULL:
 * none. */
void session_send_redirect(struct conn *conn, uint8_t reason_code, const char *reference);
/* As session_refuse_connect, with a Server Reference instead of a Reason String. */
enum dispatch session_redirect_connect(struct conn *conn, uint8_t reason_code,
                                       const char *reference);

/* The client id of a connection for log lines; "" before CONNECT. */
chr_slice session_conn_client(const struct conn *conn);

#endif
