/* broker/admin/login.c: who asks, by the Authorization header.
 *
 *     Bearer <token>                       one of the node's tokens, or a JSON Web Token
 *     Basic <base64 of name:password>      a user of the password file (or `token` and a token)
 *
 * Passwords are verified by the authority's workers; the request waits suspended. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "broker/admin/internal.h"
#include "broker/auth/password.h"

struct admin_login {
    struct auth_request auth;
    struct admin_request *request; /* a reference, the worker's */
    bool done;                     /* under request->lock */
    size_t len;
    uint8_t bytes[];
};

void admin__login_free(struct admin_login *login)
{
    if (!login)
        return;
    principal_unref(login->auth.principal);
    explicit_bzero(login->bytes, login->len);
    free(login);
}

static void done(struct auth_request *auth)
{
    struct admin_login *login = CHR_CONTAINER_OF(auth, struct admin_login, auth);
    struct admin_request *request = login->request;
    pthread_mutex_lock(&request->lock);
    login->done = true;
    pthread_mutex_unlock(&request->lock);
    admin__wake(request);
    admin__unref(request);
}

static void peer_address(struct admin_request *request)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    char host[INET6_ADDRSTRLEN] = "";
    if (a && a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        (void)inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
        snprintf(request->address, sizeof request->address, "%s:%u", host, ntohs(in.sin_port));
    } else if (a && a->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, a, sizeof in6);
        (void)inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
        snprintf(request->address, sizeof request->address, "[%s]:%u", host, ntohs(in6.sin6_port));
    }
}

/* False: a header that is neither. */
static bool read_header(struct admin_login *login, const char *header)
{
    struct auth_request *auth = &login->auth;
    if (!strncasecmp(header, "Bearer ", 7)) {
        header += 7 + strspn(header + 7, " ");
        size_t len = strlen(header);
        memcpy(login->bytes, header, len);
        auth->has_password = true;
        auth->password = chr_slice_of(login->bytes, len);
        return len > 0;
    }
    if (strncasecmp(header, "Basic ", 6))
        return false;
    header += 6 + strspn(header + 6, " ");
    int n = auth_base64_decode(chr_slice_cstr(header), login->bytes, login->len);
    const uint8_t *colon = n > 0 ? memchr(login->bytes, ':', (size_t)n) : NULL;
    if (!colon)
        return false;
    size_t name = (size_t)(colon - login->bytes);
    auth->has_user = auth->has_password = true;
    auth->user = chr_slice_of(login->bytes, name);
    auth->password = chr_slice_of(colon + 1, (size_t)n - name - 1);
    return true;
}

static enum admin_login_state answer(struct admin_request *request, enum auth_outcome outcome)
{
    static const struct {
        unsigned status;
        const char *sqlstate, *text;
    } answers[] = {
        [AUTH_REFUSED] = {MHD_HTTP_UNAUTHORIZED, "28P01", "wrong user name, password or token"},
        [AUTH_ANONYMOUS] = {MHD_HTTP_UNAUTHORIZED, "28000",
                            "who are you? send Authorization: Bearer or Basic"},
        [AUTH_BACKOFF] = {MHD_HTTP_TOO_MANY_REQUESTS, "28000",
                          "too many failed logins, try again later"},
        [AUTH_BUSY] = {MHD_HTTP_SERVICE_UNAVAILABLE, "53300", "too many logins are waiting"},
        [AUTH_NO_MEMORY] = {MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "out of memory"},
        [AUTH_STOPPING] = {MHD_HTTP_SERVICE_UNAVAILABLE, "57P01", "the node is stopping"},
    };
    struct admin_login *login = request->login;
    if (outcome == AUTH_PENDING)
        return ADMIN_LOGIN_WAITS;
    if (outcome == AUTH_OK) {
        request->principal = login->auth.principal;
        login->auth.principal = NULL;
        return ADMIN_LOGIN_DONE;
    }
    struct sql_error error;
    sql_error_set(&error, answers[outcome].sqlstate, 0, "%s", answers[outcome].text);
    admin__reply_error(request, answers[outcome].status, &error);
    return ADMIN_LOGIN_REFUSED;
}

enum admin_login_state admin__login(struct admin_request *request)
{
    struct admin_login *login = request->login;
    if (login) {
        pthread_mutex_lock(&request->lock);
        bool over = login->done;
        pthread_mutex_unlock(&request->lock);
        return over ? answer(request, login->auth.outcome) : ADMIN_LOGIN_WAITS;
    }
    const struct broker_node *node = request->admin->node;
    const char *header =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Authorization");
    size_t len = header ? strlen(header) : 0;
    login = calloc(1, sizeof *login + len + 1);
    request->login = login;
    if (!login)
        return answer(request, AUTH_NO_MEMORY);
    login->len = len;
    login->request = request;
    peer_address(request);
    login->auth.address = request->address;
    login->auth.allow_anonymous = node->config->allow_anonymous;
    login->auth.surface = "http";
    login->auth.done = done;
    if (header && !read_header(login, header))
        return answer(request, AUTH_REFUSED);
    admin__ref(request); /* done() drops it */
    enum auth_outcome outcome = auth_check(node->authority, &login->auth);
    if (outcome != AUTH_PENDING)
        admin__unref(request);
    return answer(request, outcome);
}
