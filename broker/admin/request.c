/* broker/admin/request.c: from the first header to the endpoint, and the life of a request. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/num.h"
#include "broker/admin/internal.h"
#include "broker/config.h"

static bool index_page(struct admin_request *request);

static const struct admin_endpoint endpoints[] = {
    {.path = "/health",
     .method = "GET",
     .open = true,
     .handle = admin__health,
     .summary = "is this node well (200) or not (503)"},
    {.path = "/metrics",
     .method = "GET",
     .handle = admin__metrics,
     .summary = "counters, as Prometheus reads them"},
    {.path = "/query",
     .method = "POST",
     .body_bytes_max = ADMIN_SQL_BYTES_MAX,
     .handle = admin__query,
     .ended = admin__query_ended,
     .free_work = admin__query_free,
     .summary = "SQL in the body; ?format=json|csv|ndjson|table or the Accept header"},
    {.path = "/ingest",
     .method = "POST",
     .body_bytes_max = INGEST_PAYLOAD_BYTES_MAX,
     .ingest = true,
     .handle = admin__ingest,
     .free_work = admin__ingest_free,
     .summary = "readings as JSON, answered after commit"},
    {.path = "/snapshot",
     .method = "GET",
     .admins = true,
     .handle = admin__snapshot,
     .ended = admin__snapshot_ended,
     .free_work = admin__snapshot_free,
     .summary = "a backup of everything, for chronos snapshot restore"},
    {.path = "/", .method = "GET", .open = true, .handle = index_page, .summary = "this list"},
};

static bool index_page(struct admin_request *request)
{
    struct chr_buf text;
    chr_buf_init(&text, 4096);
    chr_buf_addf(&text, "Chronos %s\n\n", CHRONOS_VERSION);
    for (size_t i = 0; i < CHR_COUNT_OF(endpoints); i++)
        if (!endpoints[i].ingest || request->admin->node->config->enable_ingest)
            chr_buf_addf(&text, "%-5s %-9s %s\n", endpoints[i].method, endpoints[i].path,
                         endpoints[i].summary);
    admin__reply(request, MHD_HTTP_OK, "text/plain; charset=utf-8", chr_buf_slice(&text));
    chr_buf_free(&text);
    return true;
}

/* ---- Lives ------------------------------------------------------------------------------------
 */

static struct admin_request *request_new(struct admin *admin, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct admin_request *request = calloc(1, sizeof *request);
    if (!request || !info || !info->socket_context) {
        free(request);
        return NULL;
    }
    atomic_init(&request->refs, 1);
    request->admin = admin;
    request->connection = connection;
    request->conn = info->socket_context;
    request->conn->request = request;
    pthread_mutex_init(&request->lock, NULL);
    return request;
}

void admin__ref(struct admin_request *request)
{
    atomic_fetch_add(&request->refs, 1);
}

void admin__unref(struct admin_request *request)
{
    if (atomic_fetch_sub(&request->refs, 1) != 1)
        return;
    if (request->work)
        request->endpoint->free_work(request->work);
    chr_buf_free(&request->body);
    admin__login_free(request->login);
    principal_unref(request->principal);
    pthread_mutex_destroy(&request->lock);
    free(request);
}

void admin__wake(struct admin_request *request)
{
    /* request->lock before admin->lock. Whoever is not gone has its admin alive: admin_stop makes
     * all requests gone before it frees anything. */
    pthread_mutex_lock(&request->lock);
    if (!request->gone) {
        struct admin *admin = request->admin;
        pthread_mutex_lock(&admin->lock);
        if (!request->woken) {
            request->woken = true;
            admin__ref(request);
            request->next_woken = admin->woken;
            admin->woken = request;
        }
        pthread_mutex_unlock(&admin->lock);
        uint64_t one = 1;
        ssize_t n = write(admin->wake_fd, &one, sizeof one);
        (void)n;
    }
    pthread_mutex_unlock(&request->lock);
}

void admin__resume_woken(struct admin *admin)
{
    pthread_mutex_lock(&admin->lock);
    struct admin_request *request = admin->woken;
    admin->woken = NULL;
    pthread_mutex_unlock(&admin->lock);
    while (request) {
        struct admin_request *next;
        pthread_mutex_lock(&admin->lock);
        next = request->next_woken;
        request->woken = false;
        pthread_mutex_unlock(&admin->lock);
        if (request->suspended && !request->gone) {
            request->suspended = false;
            MHD_resume_connection(request->connection);
        }
        admin__unref(request);
        request = next;
    }
}

void admin__on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code)
{
    (void)cls, (void)connection, (void)code;
    struct admin_request *request = *context;
    if (!request)
        return;
    pthread_mutex_lock(&request->lock);
    request->gone = true;
    pthread_mutex_unlock(&request->lock);
    request->suspended = false;
    request->conn->request = NULL;
    request->conn->receiving_since_us = chr_clock_mono_us(request->admin->node->clock);
    if (request->endpoint && request->endpoint->ended)
        request->endpoint->ended(request);
    *context = NULL;
    admin__unref(request);
}

/* ---- Who may ask ------------------------------------------------------------------------------
 */

/* "127.0.0.1:2883", "[::1]", "localhost": what no name server can point elsewhere. */
static bool is_address(const char *host)
{
    char name[64];
    struct in6_addr any;
    const char *from = host[0] == '[' ? host + 1 : host;
    size_t len = strcspn(from, host[0] == '[' ? "]" : ":");
    if (len >= sizeof name)
        return false;
    memcpy(name, from, len);
    name[len] = 0;
    if (host[0] == '[')
        return from[len] == ']' && inet_pton(AF_INET6, name, &any) == 1;
    return !strcasecmp(name, "localhost") || inet_pton(AF_INET, name, &any) == 1;
}

/* A browser on this machine would carry a foreign page's POST to us. A
 * request that names an origin must come from a page of our own, reached by its address. */
static bool is_foreign_page(struct MHD_Connection *connection)
{
    const char *origin = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Origin");
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
    if (!origin)
        return false;
    const char *name = strstr(origin, "://");
    return !name || !host || strcasecmp(name + 3, host) || !is_address(host);
}

/* ---- Arrival ----------------------------------------------------------------------------------
 */

static void refuse(struct admin_request *request, unsigned status, const char *sqlstate,
                   const char *text)
{
    struct sql_error error;
    sql_error_set(&error, sqlstate, 0, "%s", text);
    admin__reply_error(request, status, &error);
}

static bool announces_too_much(struct MHD_Connection *connection, size_t max)
{
    const char *text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
    int64_t length = 0;
    chr_slice digits = chr_slice_cstr(text);
    return text && chr_parse_i64(digits, &length) == (int)digits.len && length > 0 &&
           (uint64_t)length > max;
}

/* Finds the endpoint, or answers at once with what is wrong. */
static void route(struct admin_request *request, const char *url, const char *method)
{
    const struct admin_endpoint *found = NULL;
    for (size_t i = 0; i < CHR_COUNT_OF(endpoints) && !found; i++)
        if (!strcmp(endpoints[i].path, url) &&
            (!endpoints[i].ingest || request->admin->node->config->enable_ingest))
            found = &endpoints[i];
    if (is_foreign_page(request->connection)) {
        refuse(request, MHD_HTTP_FORBIDDEN, "42501", "a page of another origin may not ask");
    } else if (!found) {
        refuse(request, MHD_HTTP_NOT_FOUND, "42704",
               !strcmp(url, "/ingest") ? "/ingest is off; start the node with --enable-ingest"
                                       : "there is no such page; / lists them");
    } else if (strcmp(method, found->method) &&
               !(!strcmp(found->method, "GET") && !strcmp(method, "HEAD"))) {
        request->endpoint = found; /* for the Allow header */
        refuse(request, MHD_HTTP_METHOD_NOT_ALLOWED, "0A000", "the method is not for this page");
        request->endpoint = NULL;
    } else if (announces_too_much(request->connection, found->body_bytes_max)) {
        refuse(request, MHD_HTTP_CONTENT_TOO_LARGE, "54000", "the body is too large");
    } else {
        request->endpoint = found;
        chr_buf_init(&request->body, found->body_bytes_max ? found->body_bytes_max : 1);
    }
}

static void collect(struct admin_request *request, const char *upload, size_t bytes)
{
    if (request->too_large)
        return;
    if (request->body.len + bytes > request->endpoint->body_bytes_max) {
        request->too_large = true;
        chr_buf_free(&request->body);
    } else {
        chr_buf_add(&request->body, upload, bytes);
    }
}

/* What SQL does not decide by itself. */
static void check_right(struct admin_request *request)
{
    const struct principal *p = request->principal;
    struct broker_node *node = request->admin->node;
    bool may = true;
    if (!p || request->endpoint->handle == admin__query)
        return;
    if (request->endpoint->handle == admin__ingest) {
        const db_catalog *catalog = db_catalog_acquire(node->db);
        const struct db_table_def *table = db_catalog_find(catalog, CHR_LIT("readings"));
        may = !table || (db_table_privileges(table, p->user, p->role) & DB_PRIVILEGE_INSERT);
        db_catalog_release(catalog);
    } else if (request->endpoint->admins) {
        may = p->role == DB_ROLE_ADMIN;
    } else {
        may = p->role != DB_ROLE_DEVICE;
    }
    if (may)
        return;
    audit_denied(node->authority, p, request->address, "http",
                 chr_slice_cstr(request->endpoint->path), NULL);
    refuse(request, MHD_HTTP_FORBIDDEN, "42501", "permission denied");
}

static void suspend(struct admin_request *request)
{
    request->conn->receiving_since_us = 0;
    request->suspended = true;
    MHD_suspend_connection(request->connection);
}

/* Who asks is known, and may, before a body is taken: what a stranger sends is never kept. May be
 * called again after a wake. */
static void admit(struct admin_request *request)
{
    enum admin_login_state state = ADMIN_LOGIN_DONE;
    if (!request->endpoint->open)
        state = admin__login(request);
    request->logging_in = state == ADMIN_LOGIN_WAITS;
    if (request->logging_in) {
        suspend(request);
        return;
    }
    request->conn->receiving_since_us = chr_clock_mono_us(request->admin->node->clock);
    if (state == ADMIN_LOGIN_DONE)
        check_right(request);
}

static void handle(struct admin_request *request)
{
    request->conn->receiving_since_us = 0;
    if (request->too_large)
        refuse(request, MHD_HTTP_CONTENT_TOO_LARGE, "54000", "the body is too large");
    else if (request->body.failed)
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "out of memory");
    else if (!request->endpoint->handle(request))
        suspend(request);
}

enum MHD_Result admin__on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **context)
{
    (void)version;
    struct admin *admin = cls;
    struct admin_request *request = *context;
    if (!request) {
        request = request_new(admin, connection);
        if (!request)
            return MHD_NO;
        *context = request;
        admin->requests++;
        route(request, url, method);
        if (!request->endpoint)
            admin->refused++;
        else
            admit(request);
        return MHD_YES;
    }
    if (request->logging_in) { /* resumed where it was suspended, before its body */
        admit(request);
        return MHD_YES;
    }
    if (*upload_bytes) {
        if (request->endpoint && !request->status)
            collect(request, upload, *upload_bytes);
        *upload_bytes = 0;
        return MHD_YES;
    }
    if (!request->status && request->endpoint)
        handle(request);
    return MHD_YES;
}
