/* broker/session/stored.h: messages of QoS 1 and 2 for a session that the log knows (R8).
 *
 *     db's queue ─ db_queue_read from `next` on ─▶ window ─▶ PUBLISH
 *     PUBACK, PUBCOMP ─▶ acked ─ QUEUE_ACK, gathered ─▶ out of db's queue
 *     PUBREC ─ QUEUE_ACK(received) committed ─▶ PUBREL
 *
 * Only what is in flight is in memory. A packet id is 1 + (sequence - 1) mod 65,535: so what is
 * sent again, after a reconnect or a crash, bears the id it had, and nothing is logged to send.
 *
 * W1  Entry i of the window has sequence first + i; numbers that are not in the queue any more are
 * OUT_DONE. W2  next - first < STORED_SPAN_MAX, so that ids in flight are all different and leave
 * room for those of messages that are in memory alone ($SYS, answers of SQL). W3  What `acked`
 * holds was not reported yet; it is reported before the session's next SESSION_CLOSE or _OPEN. */
#ifndef CHR_BROKER_SESSION_STORED_H
#define CHR_BROKER_SESSION_STORED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "db/op.h"

struct broker_loop;
struct session;

#define STORED_SPAN_MAX 32768u
/* With so many acknowledgements not reported (or a quarter of max_queued_messages) a batch is
 * opened for them; with fewer they wait for one that is open anyway, at most a second. */
#define STORED_ACKED_MAX 128u

CHR_INLINE uint16_t stored_packet_id(uint64_t sequence)
{
    return (uint16_t)(1 + (sequence - 1) % 65535);
}

/* The session was opened: session_stored_more will send from the oldest one on, marked DUP where it
 * may have been sent before. */
void session_stored_rewind(struct session *session);
/* There is more in its queue. */
void session_stored_more(struct session *session);
/* Sends what may be sent now. */
void session_stored_pump(struct session *session);
/* Nothing of the window stays in memory. */
void session_stored_clear(struct session *session);
/* Does the window use this id? */
bool session_stored_uses(const struct session *session, uint16_t packet_id);
/* As session_acked and so on; *known false: not of the window. */
void session_stored_acked(struct session *session, uint16_t packet_id, bool *known);
/* True: PUBREL is to be sent now; else it will be when that is committed, or the client does not
 * want the message. */
bool session_stored_received(struct session *session, uint16_t packet_id, uint8_t reason,
                             bool *known);
void session_stored_completed(struct session *session, uint16_t packet_id, bool *known);
/* The log has noted that the client has it: now PUBREL may go out (R8). */
void session_stored_release(struct session *session, uint64_t sequence);
/* Puts what was acknowledged into the log (W3). */
void session_stored_report(struct session *session);
/* Reports of all sessions of the loop. */
void session__stored_report_all(struct broker_loop *loop);

#endif
