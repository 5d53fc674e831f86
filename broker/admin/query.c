/* broker/admin/query.c: POST /query: SQL in, the answer as it is made.
 *
 *     worker: emit ─▶ chunks (bounded by a credit) ─▶ admin thread: read_chunk ─▶ socket
 *
 * What is complete before the first byte leaves goes out with its length and the status its error
 * deserves; a longer answer is sent in chunks with status 200, and an error in its middle is told
 * at its end (JSON, NDJSON) and by breaking the transfer off (CSV, table), never by a short answer
 * that looks whole. JSON parts are joined to one document. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "broker/admin/internal.h"
#include "broker/config.h"
#include "broker/query_pool.h"
#include "sqlfront/result/json_join.h"
#include "sqlfront/result/writer.h"

/* Made and not yet sent: a part while the next one fills. */
#define CREDIT_BYTES (8u << 20)
/* The reader took nothing for so long: its query gives its memory back. */
#define STALL_MS 30000u

struct chunk {
    struct chunk *next;
    size_t len, taken;
    uint64_t credit; /* to give back when it was taken */
    uint8_t bytes[];
};

struct query_work {
    struct query_request query; /* the pool's until done() */
    struct admin_request *request;
    struct query_client *client;
    struct query_credit *credit;
    struct json_join join;  /* worker only */
    struct chr_buf joined;  /* worker only */
    enum sql_format format; /* as the first part says; under request->lock like all below */
    struct chunk *first, *last;
    size_t bytes;     /* in chunks */
    bool any;         /* a part has come */
    bool error_first; /* and it was an error */
    bool broken;      /* an error came after rows */
    bool whole;       /* the last part has come */
    bool done;        /* so has the outcome */
    struct query_outcome outcome;
};

/* ---- Worker -----------------------------------------------------------------------------------
 */

static struct chunk *chunk_new(chr_slice bytes, uint64_t credit)
{
    struct chunk *chunk = malloc(sizeof *chunk + bytes.len);
    if (!chunk)
        return NULL;
    *chunk = (struct chunk){.len = bytes.len, .credit = credit};
    if (bytes.len)
        memcpy(chunk->bytes, bytes.ptr, bytes.len);
    return chunk;
}

/* Parts of a JSON answer become one document; others go on as they are. */
static chr_slice joined(struct query_work *work, const struct sql_part *part)
{
    if (part->format != SQL_FORMAT_JSON || (part->part == 1 && part->last))
        return part->bytes;
    chr_buf_reset(&work->joined);
    json_join_part(&work->join, part->bytes, part->part == 1, part->last, &work->joined);
    return chr_buf_slice(&work->joined);
}

static chr_err emit(struct query_request *query, const struct sql_part *part)
{
    struct query_work *work = CHR_CONTAINER_OF(query, struct query_work, query);
    struct admin_request *request = work->request;
    uint64_t credit = part->bytes.len;
    chr_err err = query_credit_take(work->credit, query, credit, STALL_MS);
    if (err)
        return err;
    chr_slice bytes = joined(work, part);
    struct chunk *chunk = work->joined.failed ? NULL : chunk_new(bytes, credit);
    if (!chunk) {
        query_credit_give(work->credit, credit);
        return CHR_ENOMEM;
    }
    pthread_mutex_lock(&request->lock);
    bool gone = request->gone;
    if (!gone) {
        if (!work->any) {
            work->format = part->format;
            work->error_first = part->error;
        } else if (part->error) {
            work->broken = true;
        }
        work->any = true;
        work->whole |= part->last;
        work->bytes += bytes.len;
        *(work->last ? &work->last->next : &work->first) = chunk;
        work->last = chunk;
    }
    pthread_mutex_unlock(&request->lock);
    if (gone) {
        query_credit_give(work->credit, credit);
        free(chunk);
        return CHR_ECANCELLED;
    }
    admin__wake(request);
    return CHR_OK;
}

static void done(struct query_request *query, const struct query_outcome *outcome)
{
    struct query_work *work = CHR_CONTAINER_OF(query, struct query_work, query);
    struct admin_request *request = work->request;
    pthread_mutex_lock(&request->lock);
    work->outcome = *outcome;
    work->done = true;
    pthread_mutex_unlock(&request->lock);
    admin__wake(request);
    admin__unref(request);
}

/* ---- Admin thread: the request ----------------------------------------------------------------
 */

/* ?format=, else the first type of Accept that we make, else JSON. False: ?format= is no form. */
static bool wanted_format(struct MHD_Connection *connection, enum sql_format *format)
{
    static const struct {
        const char *type;
        enum sql_format format;
    } types[] = {
        {"application/json", SQL_FORMAT_JSON},
        {"text/csv", SQL_FORMAT_CSV},
        {"application/x-ndjson", SQL_FORMAT_NDJSON},
        {"application/ndjson", SQL_FORMAT_NDJSON},
        {"text/plain", SQL_FORMAT_TABLE},
    };
    const char *name = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "format");
    *format = SQL_FORMAT_JSON;
    if (name)
        return sql_format_parse(chr_slice_cstr(name), format);
    const char *accept = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Accept");
    while (accept && *accept) {
        accept += strspn(accept, " ,");
        size_t len = strcspn(accept, " ,;");
        for (size_t i = 0; i < CHR_COUNT_OF(types); i++) {
            if (strlen(types[i].type) == len && !strncasecmp(accept, types[i].type, len)) {
                *format = types[i].format;
                return true;
            }
        }
        accept += strcspn(accept, ",");
    }
    return true;
}

static void refuse(struct admin_request *request, unsigned status, const char *sqlstate,
                   const char *text)
{
    struct sql_error error;
    sql_error_set(&error, sqlstate, 0, "%s", text);
    admin__reply_error(request, status, &error);
}

static const char *argument(struct admin_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

/* False: it was refused, and answered. */
static bool start(struct admin_request *request)
{
    enum sql_format format;
    if (!wanted_format(request->connection, &format)) {
        refuse(request, MHD_HTTP_BAD_REQUEST, "22023",
               "format has to be json, csv, ndjson or table");
        return false;
    }
    struct query_work *work = calloc(1, sizeof *work);
    if (!work) {
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "out of memory");
        return false;
    }
    request->work = work;
    work->request = request;
    work->format = format;
    chr_buf_init(&work->joined, 64u << 20);
    work->credit = query_credit_new(CREDIT_BYTES);
    const char *header = argument(request, "header");
    const char *key =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Idempotency-Key");
    work->query = (struct query_request){
        .text = chr_buf_slice(&request->body),
        .format = format,
        .part_bytes = request->admin->node->config->query_result_part_bytes,
        .no_header = header && (!strcmp(header, "false") || !strcmp(header, "0")),
        .last_only = true,
        .principal = request->principal,
        .idempotency_key = chr_slice_cstr(key ? key : ""),
        .emit = emit,
        .done = done,
    };
    struct query_client_options options = {.requests_max = 1};
    chr_err err = work->credit
                      ? query_client_new(request->admin->node->queries, &options, &work->client)
                      : CHR_ENOMEM;
    if (!err) {
        admin__ref(request); /* done() drops it */
        err = query_submit(work->client, &work->query);
        if (err)
            admin__unref(request);
    }
    if (!err)
        return true;
    if (err == CHR_ECLOSED)
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "57P01", "the node is stopping");
    else if (err == CHR_EFULL)
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53300", "too many queries are waiting");
    else
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, sql_sqlstate_of(err), chr_strerror(err));
    return false;
}

/* ---- Admin thread: the response ---------------------------------------------------------------
 */

static const char *content_type(enum sql_format format)
{
    switch (format) {
    case SQL_FORMAT_CSV:
        return "text/csv; charset=utf-8";
    case SQL_FORMAT_NDJSON:
        return "application/x-ndjson";
    case SQL_FORMAT_TABLE:
        return "text/plain; charset=utf-8";
    default:
        return "application/json";
    }
}

/* Copies from the chunks; request->lock held. *credit: to give back after it was released. */
static size_t take(struct query_work *work, char *out, size_t max, uint64_t *credit)
{
    size_t copied = 0;
    while (work->first && copied < max) {
        struct chunk *chunk = work->first;
        size_t n = CHR_MIN(max - copied, chunk->len - chunk->taken);
        if (n)
            memcpy(out + copied, chunk->bytes + chunk->taken, n);
        copied += n;
        chunk->taken += n;
        if (chunk->taken == chunk->len) {
            work->first = chunk->next;
            if (!work->first)
                work->last = NULL;
            *credit += chunk->credit;
            free(chunk);
        }
    }
    work->bytes -= copied;
    return copied;
}

static ssize_t read_chunk(void *cls, uint64_t position, char *out, size_t max)
{
    (void)position;
    struct admin_request *request = cls;
    struct query_work *work = request->work;
    uint64_t credit = 0;
    pthread_mutex_lock(&request->lock);
    size_t copied = take(work, out, max, &credit);
    bool over = !work->first && work->done;
    bool told =
        work->broken && (work->format == SQL_FORMAT_JSON || work->format == SQL_FORMAT_NDJSON);
    bool failed = work->outcome.err != CHR_OK || work->broken;
    pthread_mutex_unlock(&request->lock);
    if (credit)
        query_credit_give(work->credit, credit);
    if (copied)
        return (ssize_t)copied;
    if (over)
        return failed && !told ? MHD_CONTENT_READER_END_WITH_ERROR
                               : MHD_CONTENT_READER_END_OF_STREAM;
    request->suspended = true;
    MHD_suspend_connection(request->connection);
    return 0;
}

static void reply_streaming(struct admin_request *request)
{
    struct query_work *work = request->work;
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, ADMIN_MEMORY_BYTES / 2, read_chunk, request, NULL);
    if (!response)
        return;
    request->streaming = true;
    (void)MHD_add_response_header(response, "Content-Type", content_type(work->format));
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    request->status = MHD_HTTP_OK;
    (void)MHD_queue_response(request->connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
}

/* Everything is there. What was made before an error is dropped: a status tells more than a part.
 */
static void reply_whole(struct admin_request *request)
{
    struct query_work *work = request->work;
    bool failed = work->outcome.err != CHR_OK;
    unsigned status = failed ? admin__status_of(work->outcome.error.sqlstate) : MHD_HTTP_OK;
    if (failed && !strcmp(work->outcome.error.sqlstate, "42501"))
        audit_denied(request->admin->node->authority, request->principal, request->address, "sql",
                     chr_buf_slice(&request->body),
                     &(struct acl_reason){0, work->outcome.error.message});
    if (failed && !(work->error_first && work->format == SQL_FORMAT_TABLE)) {
        admin__reply_error(request, status, &work->outcome.error);
        return;
    }
    if (!work->any) {
        refuse(request, MHD_HTTP_BAD_REQUEST, "42601", "there is no statement in the body");
        return;
    }
    struct chr_buf text;
    chr_buf_init(&text, SIZE_MAX);
    if (chr_buf_reserve(&text, work->bytes + 1)) {
        refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, "53200", "out of memory");
        return;
    }
    uint64_t credit = 0;
    pthread_mutex_lock(&request->lock);
    text.len = take(work, (char *)text.ptr, work->bytes, &credit);
    pthread_mutex_unlock(&request->lock);
    query_credit_give(work->credit, credit);
    /* For a terminal. */
    if (text.len && text.ptr[text.len - 1] != '\n')
        chr_buf_add_u8(&text, '\n');
    admin__reply(request, status, content_type(work->format), chr_buf_slice(&text));
    chr_buf_free(&text);
}

bool admin__query(struct admin_request *request)
{
    if (!request->work && !start(request))
        return true;
    struct query_work *work = request->work;
    pthread_mutex_lock(&request->lock);
    /* An answer that is whole has its outcome at once: worth waiting for, it brings the status. An
     * error after rows were made but not sent is one too. */
    bool finished = work->done;
    bool stream = !finished && work->first && !work->error_first && !work->whole;
    pthread_mutex_unlock(&request->lock);
    if (finished)
        reply_whole(request);
    else if (stream)
        reply_streaming(request);
    return finished || stream;
}

void admin__query_ended(struct admin_request *request)
{
    struct query_work *work = request->work;
    if (!work || !work->client)
        return;
    struct query_client *client = work->client;
    work->client = NULL;
    query_client_close(client);
}

void admin__query_free(void *arg)
{
    struct query_work *work = arg;
    while (work->first) {
        struct chunk *next = work->first->next;
        free(work->first);
        work->first = next;
    }
    chr_buf_free(&work->joined);
    query_credit_unref(work->credit);
    free(work);
}
