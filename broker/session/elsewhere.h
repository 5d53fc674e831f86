/* broker/session/elsewhere.h: one client id, two nodes: the older connection ends [MQTT-3.1.4-3].
 *
 * Between two connections whose sessions the log knows, the log decides (session__check_lost). Of
 * others it knows nothing, so each node tells the others directly whom it has taken in, and a node
 * that has an older connection of that client ends it with 0x8E. Best effort: nothing is repeated,
 * so while nodes do not hear each other a client id may be connected at several of them.
 *
 * What is older is told by a hybrid logical clock that the messages carry along: who hears of a
 * connection and is connected to afterwards has the newer one, whatever the clocks say. Two that
 * came at the same time are told apart by their stamps, then by the number of the node, so that one
 * of them stays. */
#ifndef CHR_BROKER_SESSION_ELSEWHERE_H
#define CHR_BROKER_SESSION_ELSEWHERE_H

struct broker_node;
struct peers_message;
struct session;

/* Loop's thread: the session has a new connection. Stamps it. */
void elsewhere_tell(struct session *session);
/* A lane's thread: what another node said. The message stays the caller's. */
void elsewhere_received(struct broker_node *node, const struct peers_message *message);

#endif
