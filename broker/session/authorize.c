#include "broker/session/authorize.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/net/listener.h"
#include "broker/session/will.h"

/* ---- Logins -------------------------------------------------------------------------------------
 */

/* A login that a worker looks at. The connection may be gone before it is done. */
struct login {
    struct auth_request request;
    struct loop_mail mail;
    struct broker_loop *loop;
    struct conn_ref conn;
    char address[64];
    uint8_t bytes[]; /* user, password, client id */
};

static enum dispatch refuse(struct conn *conn, const struct auth_request *r)
{
    static const struct {
        uint8_t reason;
        const char *text;
    } answers[] = {
        [AUTH_REFUSED] = {MQTT_REASON_BAD_USER_NAME_OR_PASSWORD, "wrong user name or password"},
        [AUTH_ANONYMOUS] = {MQTT_REASON_NOT_AUTHORIZED, "anonymous clients are not allowed"},
        [AUTH_BACKOFF] = {MQTT_REASON_CONNECTION_RATE_EXCEEDED,
                          "too many failed logins, try again later"},
        [AUTH_BUSY] = {MQTT_REASON_SERVER_BUSY, "too many logins are waiting"},
        [AUTH_NO_MEMORY] = {MQTT_REASON_QUOTA_EXCEEDED, "out of memory"},
        [AUTH_STOPPING] = {MQTT_REASON_SERVER_UNAVAILABLE, "the node shuts down"},
    };
    uint8_t reason = answers[r->outcome].reason;
    if (r->outcome != AUTH_REFUSED) /* that one was logged with its reason, which nobody is told */
        chr_log_notice("mqtt", "connection refused", CHR_KV_S("client", r->client_id),
                       CHR_KV_C("address", conn->address),
                       CHR_KV_C("reason", answers[r->outcome].text));
    /* 3.1.1 has no word for "too often": the server is not available to it. */
    if (conn->version != MQTT_V5 &&
        (r->outcome == AUTH_BACKOFF || r->outcome == AUTH_BUSY || r->outcome == AUTH_NO_MEMORY))
        reason = MQTT_REASON_SERVER_UNAVAILABLE;
    return session_refuse_connect(conn, reason, answers[r->outcome].text);
}

static void login_free(struct login *login)
{
    explicit_bzero((void *)(uintptr_t)login->request.password.ptr, login->request.password.len);
    free(login);
}

/* Loop thread. */
static void answered(struct broker_loop *loop, struct loop_mail *mail)
{
    struct login *login = CHR_CONTAINER_OF(mail, struct login, mail);
    struct conn *conn = loop_conn(loop, login->conn);
    if (conn && conn->state == CONN_NEW && conn->login == login) {
        conn->login = NULL;
        if (login->request.outcome == AUTH_OK) {
            conn->principal = login->request.principal;
            login->request.principal = NULL;
            conn_resume(conn, CONN_PAUSE_CONNECT);
        } else {
            (void)refuse(conn, &login->request);
        }
    }
    principal_unref(login->request.principal);
    login_free(login);
}

/* Worker. */
static void done(struct auth_request *request)
{
    struct login *login = CHR_CONTAINER_OF(request, struct login, request);
    login->mail.run = answered;
    loop_post(login->loop, &login->mail);
}

static struct login *login_new(struct conn *conn, const struct mqtt_connect *connect)
{
    chr_slice user = connect->has_username ? connect->username : CHR_LIT("");
    chr_slice password = connect->has_password ? connect->password : CHR_LIT("");
    struct login *login =
        calloc(1, sizeof *login + user.len + password.len + connect->client_id.len + 1);
    if (!login)
        return NULL;
    uint8_t *at = login->bytes;
    const chr_slice parts[] = {user, password, connect->client_id};
    chr_slice copies[CHR_COUNT_OF(parts)];
    for (size_t i = 0; i < CHR_COUNT_OF(parts); i++) {
        if (parts[i].len)
            memcpy(at, parts[i].ptr, parts[i].len);
        copies[i] = chr_slice_of(at, parts[i].len);
        at += parts[i].len;
    }
    memcpy(login->address, conn->address, sizeof login->address);
    login->loop = conn->loop;
    login->conn = conn->ref;
    login->request = (struct auth_request){
        .has_user = connect->has_username,
        .has_password = connect->has_password,
        .user = copies[0],
        .password = copies[1],
        .client_id = copies[2],
        .address = login->address,
        .allow_anonymous = listener_allows_anonymous(conn->listener, conn->loop->node->config),
        .surface = "mqtt",
        .done = done,
    };
    return login;
}

/* The certificate says who it is; its name and password are not looked at, as Mosquitto has it. */
static enum dispatch certified(struct conn *conn, const struct mqtt_connect *connect)
{
    if (!conn->certificate_user)
        return session_refuse_connect(conn, MQTT_REASON_BAD_USER_NAME_OR_PASSWORD,
                                      "the certificate names no user");
    const char *fault = auth_trusted_name_fault(chr_slice_cstr(conn->certificate_user));
    if (fault) {
        chr_log_notice("auth", "login refused", CHR_KV_C("surface", "mqtt"),
                       CHR_KV_C("user", conn->certificate_user),
                       CHR_KV_S("client", connect->client_id), CHR_KV_C("address", conn->address),
                       CHR_KV_C("reason", fault));
        return session_refuse_connect(conn, MQTT_REASON_BAD_USER_NAME_OR_PASSWORD,
                                      "the certificate's name is none for a user");
    }
    conn->principal =
        auth_trusted(conn->loop->node->authority, chr_slice_cstr(conn->certificate_user),
                     connect->client_id, auth_how_certificate);
    return conn->principal
               ? DISPATCH_DONE
               : session_refuse_connect(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
}

enum dispatch session__login(struct conn *conn, const struct mqtt_connect *connect)
{
    struct authority *authority = conn->loop->node->authority;
    const struct listener_config *listener = conn->listener->config;
    if (conn->principal)
        return DISPATCH_DONE;
    if (listener->use_identity_as_username || listener->use_subject_as_username)
        return certified(conn, connect);
    struct login *login = login_new(conn, connect);
    if (!login)
        return session_refuse_connect(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
    /* Before it is asked: the answer may be there at once. */
    conn_pause(conn, CONN_PAUSE_CONNECT);
    conn->login = login;
    enum auth_outcome outcome = auth_check(authority, &login->request);
    if (outcome == AUTH_PENDING)
        return DISPATCH_AGAIN;
    conn->login = NULL;
    enum dispatch result = DISPATCH_DONE;
    if (outcome == AUTH_OK) {
        conn->principal = login->request.principal;
        conn_resume(conn, CONN_PAUSE_CONNECT);
    } else {
        result = refuse(conn, &login->request);
    }
    login_free(login);
    return result;
}

void session__login_abandon(struct conn *conn)
{
    /* It is ours until answered() has run, which is in this loop. */
    struct login *login = conn->login;
    if (login)
        atomic_store_explicit(&login->request.abandoned, true, memory_order_relaxed);
    conn->login = NULL;
}

chr_err session__rename(struct conn *conn, chr_slice client_id)
{
    if (principal_is_free(conn->principal))
        return CHR_OK; /* no rule looks at it */
    struct principal *p = principal_as(conn->principal, client_id);
    if (!p)
        return CHR_ENOMEM;
    principal_unref(conn->principal);
    conn->principal = p;
    return CHR_OK;
}

bool session__is_foreign(const struct session *s, const struct principal *principal)
{
    return s->principal && principal && s->principal->number != principal->number;
}

/* Verdicts that were remembered for it are void. */
static void set_principal(struct session *s, struct principal *principal)
{
    bool before = s->acl_key != 0;
    principal_ref(principal);
    principal_unref(s->principal);
    s->principal = principal;
    s->user = principal->number;
    s->acl_key = principal->acl_key;
    if ((before || s->acl_key) && s->subscriptions)
        subscriptions_touch(s->loop->node->subscriptions, s);
}

void session__own(struct session *s, struct principal *principal)
{
    if (!principal)
        return;
    /* A fleet that reconnects as what it was keeps what is remembered of it. */
    struct principal *old = s->principal;
    if (old && old->auth == principal->auth && old->number == principal->number &&
        old->role == principal->role && !old->claims && !principal->claims &&
        old->how == principal->how && old->expires_us == principal->expires_us)
        return;
    set_principal(s, principal);
}

/* ---- Verdicts -----------------------------------------------------------------------------------
 */

bool session__may_publish(struct conn *conn, struct route *route)
{
    const struct session *s = conn->session;
    if (CHR_LIKELY(s->acl_key == 0 || s->acl_key == route->publish_key))
        return true;
    struct acl_reason why = {0};
    if (principal_may_publish(s->principal, route_topic(route), &why)) {
        route->publish_key = s->acl_key;
        return true;
    }
    audit_denied(conn->loop->node->authority, s->principal, conn->address, "publish",
                 route_topic(route), &why);
    return false;
}

bool session__may_publish_will(const struct session *s, const struct message *will)
{
    struct acl_reason why = {0};
    chr_slice topic = will->topic;
    if (s->acl_key == 0 || principal_may_publish(s->principal, topic, &why))
        return true;
    audit_denied(s->loop->node->authority, s->principal, NULL, "will", topic, &why);
    return false;
}

bool session__may_subscribe(struct conn *conn, chr_slice filter, bool shared)
{
    const struct session *s = conn->session;
    struct acl_reason why = {0};
    if (s->acl_key == 0 || principal_may_subscribe(s->principal, filter, shared, &why))
        return true;
    audit_denied(conn->loop->node->authority, s->principal, conn->address, "subscribe", filter,
                 &why);
    return false;
}

/* ---- New files ----------------------------------------------------------------------------------
 */

/* conn: NULL: not connected */
static struct principal *renewed(struct principal *old, const struct conn *conn, bool *gone)
{
    struct principal *p = principal_renew(old, gone);
    if (old->number == 0 && conn)
        *gone = !listener_allows_anonymous(conn->listener, conn->loop->node->config);
    return p;
}

bool session__still_welcome(struct conn *conn)
{
    struct principal *old = conn->principal;
    if (!old || auth_is_now(conn->loop->node->authority, old->auth))
        return true;
    bool gone = false;
    struct principal *p = renewed(old, conn, &gone);
    if (!p || gone) {
        principal_unref(p);
        return false;
    }
    principal_unref(old);
    conn->principal = p;
    return true;
}

static void renew(struct session *s)
{
    bool gone = false;
    struct principal *p = renewed(s->principal, s->conn, &gone);
    if (!p && !gone) {
        chr_log_error("auth", "out of memory: a client is disconnected",
                      CHR_KV_S("client", s->client_id));
        gone = true;
    }
    if (p && !gone) {
        set_principal(s, p);
        if (s->conn) {
            principal_ref(p);
            principal_unref(s->conn->principal);
            s->conn->principal = p;
        }
        if (s->will && !s->conn && !session__may_publish_will(s, s->will->message))
            will_drop(s);
    } else {
        /* Whoever may no longer be here has no last word either. */
        will_drop(s);
        s->will_revoked = true;
    }
    if (gone && s->conn) {
        chr_log_notice("auth", "disconnected: its credentials are no longer valid",
                       CHR_KV_S("client", s->client_id), CHR_KV_S("user", s->principal->user),
                       CHR_KV_C("address", s->conn->address));
        session_end_connection(s->conn, MQTT_REASON_NOT_AUTHORIZED,
                               "the credentials are no longer valid");
    }
    principal_unref(p);
}

void session__auth_changed(struct broker_loop *loop)
{
    CHR_LIST_FOR_SAFE (link, next, &state_of(loop)->sessions) {
        struct session *s = CHR_CONTAINER_OF(link, struct session, loop_link);
        if (s->principal)
            renew(s);
    }
}

struct changed_letter {
    struct loop_mail mail;
};

static void open_letter(struct broker_loop *loop, struct loop_mail *mail)
{
    session__auth_changed(loop);
    free(CHR_CONTAINER_OF(mail, struct changed_letter, mail));
}

void session_auth_changed(struct broker_node *node)
{
    for (uint32_t i = 0; i < node->loops_count; i++) {
        struct changed_letter *letter = calloc(1, sizeof *letter);
        if (!letter) {
            chr_log_error("auth", "out of memory: open connections keep their old rights");
            return;
        }
        letter->mail.run = open_letter;
        loop_post(node->loops[i], &letter->mail);
    }
}

void session__check_expiry(struct conn *conn)
{
    const struct principal *p = conn->principal;
    if (!p || p->expires_us == INT64_MAX || conn->loop->now_wall_us < p->expires_us)
        return;
    chr_log_notice("auth", "disconnected: its token has expired",
                   CHR_KV_S("client", session_conn_client(conn)), CHR_KV_S("user", p->user),
                   CHR_KV_C("address", conn->address));
    session_end_connection(conn, MQTT_REASON_NOT_AUTHORIZED, "the token has expired");
}
