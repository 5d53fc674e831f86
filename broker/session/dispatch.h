/* broker/session/dispatch.h: the door of the session layer: what the loop calls.
 *
 * One switch over packet types (dispatch.c) and one file per packet (handle_*.c). All functions run
 * on the loop's thread, but session_node_*. */
#ifndef CHR_BROKER_SESSION_DISPATCH_H
#define CHR_BROKER_SESSION_DISPATCH_H

#include "base/err.h"
#include "broker/batch.h"
#include "broker/net/conn.h"
#include "broker/net/loop.h"
#include "broker/net/slab.h"
#include "proto/mqtt/decode.h"

/* Handles one whole packet. raw: all of it, in slab, which lives as long as somebody keeps a
 * reference. DISPATCH_AGAIN: the connection was paused and the packet not consumed. */
enum dispatch session_dispatch(struct conn *conn, struct slab *slab, chr_slice raw,
                               const struct mqtt_frame *frame);
/* mqtt_frame() failed with err: answers with the reason the standard gives (CONNACK before CONNECT
 * was accepted, DISCONNECT after, in 5.0) and closes. */
void session_frame_error(struct conn *conn, chr_err err, const struct mqtt_frame *frame);
/* What a connection remembers of enhanced authentication (conn->enhanced). Accepts NULL. */
void session_enhanced_free(struct enhanced *enhanced);
/* The connection is gone (last call for it): publishes its will or delays it, parks or ends its
 * session, cancels its queries. */
void session_connection_lost(struct conn *conn);

/* The log says that the session of the connection is another connection's by now, or over, and that
 * nothing may be acknowledged to this one (R5): the connection ends, and its client is told why.
 * The session may be gone afterwards. */
void session_is_history(struct conn *conn);

/* A batch was committed and applied; called for each run that asked for delivery, before its
 * acknowledgements leave: delivers to subscribers and retains (nobody sees a reading that could
 * still vanish). */
void session_run_answered(struct broker_loop *loop, const struct batch *batch,
                          const struct batch_run *run);
/* R9: nothing of the batch was applied. Its waits' operations and its messages go, in order, into
 * new batches under the current mappings, with the same places in the ack rings. The caller
 * releases the batch afterwards. */
void session_batch_stale(struct broker_loop *loop, struct batch *batch);

/* After the runs of a batch were answered: its rejects are in chronos_rejects now; tells those who
 * listen on $chronos/reject/... (R3). */
void session_rejects_answered(struct broker_loop *loop, const struct batch *batch);
/* At the end of a turn, before the open batch is proposed: what was put off, and mail to other
 * loops. */
void session_turn_end(struct broker_loop *loop);
/* Asked for by conn->drain_wanted: little of its output is unsent now. */
void session_output_drained(struct conn *conn);

CHR_MUST_USE chr_err session_loop_init(struct broker_loop *loop);
void session_loop_free(struct broker_loop *loop);
/* Once a second: keep-alive, connect timeout, session and message expiry, will delay, $SYS. */
void session_loop_second(struct broker_loop *loop);
/* The node stops: DISCONNECT 0x8B to 5.0 clients; the loop flushes afterwards. */
void session_loop_stopping(struct broker_loop *loop);

/* What all loops share: subscriptions, retained messages, the registry. Main thread. */
/* Any thread: users, passwords or ACLs are others now (auth_swap); open connections are looked at
 * again, each loop's in its next turn. */
void session_auth_changed(struct broker_node *node);
CHR_MUST_USE chr_err session_node_init(struct broker_node *node);
void session_node_free(struct broker_node *node); /* loops have ended; accepts a node not inited */

#endif
