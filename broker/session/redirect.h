/* broker/session/redirect.h: clients are sent to another server (4.11).
 *
 * While `redirect` says so, CONNECT is answered with 0x9C or 0x9D (3.1.1: 3, server unavailable),
 * and who is connected is told by DISCONNECT and let go, some per second, so that the other server
 * is not stormed. A node that stops tells its clients 0x8B, or 0x9C where it knows another server.
 * Loop thread. */
#ifndef CHR_BROKER_SESSION_REDIRECT_H
#define CHR_BROKER_SESSION_REDIRECT_H

#include <stdbool.h>

struct broker_config;
struct broker_loop;
struct conn;

/* Connections that a loop sends away in a second. */
#define REDIRECTS_PER_SECOND 2000u

/* Are clients to go elsewhere? */
bool redirect_wanted(const struct broker_config *config);
/* Answers conn's CONNECT. */
void redirect_connect(struct conn *conn, const struct broker_config *config);
/* Once a second. */
void redirect_second(struct broker_loop *loop);
/* The loop stops: tells all who understand it; the loop closes them. */
void redirect_stopping(struct broker_loop *loop);

#endif
