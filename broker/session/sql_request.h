/* broker/session/sql_request.h: SQL asked by PUBLISH (design 2.2).
 *
 *   $chronos/sql           MQTT 5: answers go to the Response Topic with the Correlation Data.
 *                          Without a Response Topic the text is executed and a failure is told by
 *                          the reason code of PUBACK or PUBREC.
 *   $chronos/sql/<token>   any version: answers go to $chronos/result/<token>
 *   $chronos/cancel        ends the requests of this connection that have the same Correlation
 *                          Data; without any, all of them
 *   $chronos/cancel/<token> ends this connection's requests with that token
 *
 * User properties of a request: `format` (json, csv, ndjson, table), `header` (off: CSV without its
 * header row), `idempotency-key` (R2). User properties of an answer: `part` and `last` when it has
 * several parts, `error` = its SQLSTATE when it is one. Its Content Type names its form.
 *
 * Requests of a connection are executed one after the other and share an SQL session (SET lasts as
 * long as the connection). The PUBACK or PUBREC of a request leaves after it was executed, in the
 * order of arrival. Answers have the request's QoS and are delivered as messages: to whoever has
 * subscribed to the topic and is the same user (R1). At most SQL_ANSWER_BYTES_MAX of a connection's
 * answers are unsent at a time: the query waits. A lost connection cancels its
 * requests; after a normal DISCONNECT they are executed, since answers may have other readers. */
#ifndef CHR_BROKER_SESSION_SQL_REQUEST_H
#define CHR_BROKER_SESSION_SQL_REQUEST_H

#include "broker/net/conn.h"
#include "broker/net/loop.h"
#include "proto/mqtt/packet.h"

/* Requests of one connection, waiting and running; more are answered 53300. */
#define SQL_REQUESTS_MAX 64u
/* Unsent bytes of answers of one connection. A larger part waits until nothing else is out. */
#define SQL_ANSWER_BYTES_MAX (4u << 20)
/* A reader that takes nothing for this long loses its query. */
#define SQL_STALL_MS 30000u

struct session;
struct sql_client;

/* A PUBLISH to $chronos/sql or $chronos/sql/<token> on an open connection. */
enum dispatch sql_request_publish(struct conn *conn, chr_slice topic,
                                  const struct mqtt_publish *publish);
/* A PUBLISH to $chronos/cancel…; acknowledged at once. */
void sql_request_cancel(struct conn *conn, chr_slice topic, const struct mqtt_publish *publish);
/* The connection is gone, and with it its SQL session. cancel: its requests as well. */
void sql_client_close(struct session *session, bool cancel);

#endif
