/* broker/admin/reply.c: responses, and which HTTP status a SQLSTATE is. */
#include <string.h>

#include "broker/admin/internal.h"
#include "sqlfront/result/writer.h"

static void queue(struct admin_request *request, unsigned status, struct MHD_Response *response)
{
    request->status = status;
    (void)MHD_queue_response(request->connection, status, response);
    MHD_destroy_response(response);
}

void admin__reply(struct admin_request *request, unsigned status, const char *content_type,
                  chr_slice body)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        body.len, (void *)(uintptr_t)body.ptr, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return; /* libmicrohttpd closes a connection that got no response */
    (void)MHD_add_response_header(response, "Content-Type", content_type);
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED && request->endpoint)
        (void)MHD_add_response_header(
            response, "Allow", !strcmp(request->endpoint->method, "GET") ? "GET, HEAD" : "POST");
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE && strcmp(content_type, "application/json") == 0)
        (void)MHD_add_response_header(response, "Retry-After", "1");
    if (status == MHD_HTTP_UNAUTHORIZED) {
        (void)MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"chronos\"");
        (void)MHD_add_response_header(response, "WWW-Authenticate",
                                      "Basic realm=\"chronos\", charset=\"UTF-8\"");
    }
    if (status == MHD_HTTP_TOO_MANY_REQUESTS)
        (void)MHD_add_response_header(response, "Retry-After", "5");
    queue(request, status, response);
}

void admin__reply_error(struct admin_request *request, unsigned status,
                        const struct sql_error *error)
{
    struct chr_buf text;
    chr_buf_init(&text, 16384);
    sql_error_json(error, &text);
    chr_buf_add_u8(&text, '\n');
    admin__reply(request, status, "application/json", chr_buf_slice(&text));
    chr_buf_free(&text);
}

unsigned admin__status_of(const char *sqlstate)
{
    static const struct {
        const char *prefix;
        unsigned status;
    } table[] = {
        /* the longest prefix first */
        {"40001", MHD_HTTP_CONFLICT},         {"42501", MHD_HTTP_FORBIDDEN},
        {"42P01", MHD_HTTP_BAD_REQUEST}, /* not 404: that is said of pages */
        {"25006", MHD_HTTP_FORBIDDEN},        {"53100", MHD_HTTP_INSUFFICIENT_STORAGE},
        {"57014", MHD_HTTP_GATEWAY_TIMEOUT}, /* cancelled: by its time limit, here */
        {"08007", MHD_HTTP_GATEWAY_TIMEOUT}, /* outcome unknown */
        {"08", MHD_HTTP_SERVICE_UNAVAILABLE}, {"0A", MHD_HTTP_NOT_IMPLEMENTED},
        {"22", MHD_HTTP_BAD_REQUEST},         {"23", MHD_HTTP_CONFLICT},
        {"42", MHD_HTTP_BAD_REQUEST},         {"53", MHD_HTTP_SERVICE_UNAVAILABLE},
        {"54", MHD_HTTP_CONTENT_TOO_LARGE},   {"57", MHD_HTTP_SERVICE_UNAVAILABLE},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(table); i++)
        if (!strncmp(sqlstate, table[i].prefix, strlen(table[i].prefix)))
            return table[i].status;
    return MHD_HTTP_INTERNAL_SERVER_ERROR;
}
