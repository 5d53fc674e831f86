/* broker/session/authorize.h: where the session layer asks broker/auth: logins, and what a client
 * may do with a topic.
 *
 * A verdict is remembered where it is asked for again: for publishing beside the topic's route
 * (route->publish_key, the acl_key of who was allowed last), for delivery in the route's match,
 * which leaves out sessions that may not read the topic. So a message of a client without rules
 * costs one comparison with 0, of one with rules one comparison more. */
#ifndef CHR_BROKER_SESSION_AUTHORIZE_H
#define CHR_BROKER_SESSION_AUTHORIZE_H

#include "broker/auth/auth.h"
#include "broker/session/internal.h"

/* Who is it? DISPATCH_DONE: conn->principal is set. DISPATCH_AGAIN: the connection is paused until
 * a worker has looked; its CONNECT comes again then. DISPATCH_CLOSE: refused. */
enum dispatch session__login(struct conn *conn, const struct mqtt_connect *connect);
/* The connection ends; nobody waits for the outcome of its login any more. */
void session__login_abandon(struct conn *conn);
/* The files may be newer than the login: the connection's principal becomes one of now. False: it
 * may no longer be connected (or no memory). */
bool session__still_welcome(struct conn *conn);
/* The client got its id from us. CHR_ENOMEM */
CHR_MUST_USE chr_err session__rename(struct conn *conn, chr_slice client_id);
/* The session is its connection's user's from now on. */
void session__own(struct session *session, struct principal *principal);
/* Its connection comes from another user than the one it belongs to. */
bool session__is_foreign(const struct session *session, const struct principal *principal);

/* May the client publish to the topic of this route? False: it was told to the audit log. */
bool session__may_publish(struct conn *conn, struct route *route);
/* May its will be published still? Asked when its connection ends and when it is due. */
bool session__may_publish_will(const struct session *session, const struct message *will);
bool session__may_subscribe(struct conn *conn, chr_slice filter, bool shared);
CHR_INLINE bool session__may_read(const struct session *session, chr_slice topic)
{
    return CHR_LIKELY(session->acl_key == 0) || principal_may_read(session->principal, topic, NULL);
}

/* A loop's sessions get principals of the files of now; who may no longer be here is disconnected.
 */
void session__auth_changed(struct broker_loop *loop);
/* Credentials that have an end (tokens): once a second. */
void session__check_expiry(struct conn *conn);

#endif
