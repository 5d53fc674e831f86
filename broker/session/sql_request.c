/* broker/session/sql_request.c: from a PUBLISH to a query and back to messages. */
#include "broker/session/sql_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "broker/query_pool.h"
#include "broker/session/authorize.h"
#include "broker/session/internal.h"
#include "proto/mqtt/encode.h"
#include "proto/mqtt/topic.h"
#include "sqlfront/result/writer.h"

#define SQL_TOPIC    "$chronos/sql/"
#define RESULT_TOPIC "$chronos/result/"
#define CANCEL_TOPIC "$chronos/cancel"
/* Of an answer's packet beside topic, correlation data and payload: header, part, last, form. */
#define ANSWER_OVERHEAD 256u
#define PART_BYTES_MIN  1024u

struct sql_client {
    struct session *session;
    struct query_client *queries;
    struct query_credit *credit;
    struct chr_list requests; /* struct sql_request.link */
    uint32_t count;
};

struct sql_request {
    struct query_request query;
    struct loop_mail done_mail;
    struct chr_list link;
    struct sql_client *owner; /* NULL: the connection is gone */
    struct broker_loop *loop;
    struct conn_ref conn;
    struct query_credit *credit; /* a reference */
    bool has_ack;
    uint32_t ack_sequence;
    uint32_t user;
    uint8_t qos;
    enum mqtt_version version;
    bool stalled; /* worker: the reader took nothing for too long */
    chr_err err;
    char sqlstate[6];
    char problem[256]; /* of the failure, for PUBACK */
    chr_slice topic;   /* of answers; empty: nobody wants them */
    chr_slice token;   /* empty: asked on $chronos/sql */
    chr_slice correlation;
    uint8_t bytes[]; /* text, topic, correlation, idempotency key */
};

/* ---- Answers ----------------------------------------------------------------------------------
 */

struct answer_mail {
    struct loop_mail mail;
    struct message *message;
};

/* What a sent or dropped answer gives back. */
struct answer_credit {
    struct query_credit *credit;
    uint64_t bytes;
};

static void give_back(void *arg)
{
    struct answer_credit *c = arg;
    query_credit_give(c->credit, c->bytes);
    query_credit_unref(c->credit);
    free(c);
}

static void deliver_answer(struct broker_loop *loop, struct loop_mail *mail)
{
    struct answer_mail *letter = CHR_CONTAINER_OF(mail, struct answer_mail, mail);
    /* Straight to subscribers: an answer is neither mapped nor retained (R1). */
    session__deliver_topic(loop, letter->message);
    message_unref(letter->message);
    free(letter);
}

static const char *content_type(enum sql_format format)
{
    switch (format) {
    case SQL_FORMAT_CSV:
        return "text/csv";
    case SQL_FORMAT_NDJSON:
        return "application/x-ndjson";
    case SQL_FORMAT_TABLE:
        return "text/plain";
    default:
        return "application/json";
    }
}

static struct message *make_answer(const struct sql_request *r, const struct sql_part *part,
                                   const char *sqlstate)
{
    size_t capacity = r->correlation.len + ANSWER_OVERHEAD;
    uint8_t *block = malloc(capacity);
    if (!block)
        return NULL;
    struct mqtt_property_writer w = mqtt_property_writer(block, capacity);
    bool json_error = part->error && part->format != SQL_FORMAT_TABLE;
    mqtt_put_number(&w, MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR, 1);
    mqtt_put_bytes(&w, MQTT_PROPERTY_CONTENT_TYPE,
                   chr_slice_cstr(content_type(json_error ? SQL_FORMAT_JSON : part->format)));
    if (r->correlation.ptr)
        mqtt_put_bytes(&w, MQTT_PROPERTY_CORRELATION_DATA, r->correlation);
    if (part->split) {
        char number[24];
        int len = snprintf(number, sizeof number, "%u", (unsigned)part->part);
        mqtt_put_user(&w, CHR_LIT("part"), chr_slice_of(number, (size_t)len));
        mqtt_put_user(&w, CHR_LIT("last"), part->last ? CHR_LIT("true") : CHR_LIT("false"));
    }
    if (part->error)
        mqtt_put_user(&w, CHR_LIT("error"), chr_slice_cstr(sqlstate));
    struct message *m =
        w.failed ? NULL
                 : message_new(r->topic, mqtt_property_block(&w), part->bytes, r->qos, false, 0);
    free(block);
    if (!m)
        return NULL;
    m->flow_controlled = true;
    m->to_user = chr_slice_starts(r->topic, CHR_LIT(RESULT_TOPIC));
    m->user = r->user;
    return m;
}

/* Worker. */
static chr_err emit(struct query_request *query, const struct sql_part *part)
{
    struct sql_request *r = CHR_CONTAINER_OF(query, struct sql_request, query);
    if (r->topic.len == 0)
        return CHR_OK;
    if (r->stalled) /* who does not read hears no more of it, its error included */
        return CHR_ETIMEDOUT;
    uint64_t bytes = part->bytes.len + sizeof(struct message);
    chr_err err = query_credit_take(r->credit, query, bytes, SQL_STALL_MS);
    if (err) {
        r->stalled = err == CHR_ETIMEDOUT;
        return err;
    }
    struct message *m = make_answer(r, part, query->error ? query->error->sqlstate : "");
    struct answer_mail *letter = malloc(sizeof *letter);
    struct answer_credit *c = malloc(sizeof *c);
    if (!m || !letter || !c) {
        message_unref(m);
        free(letter);
        free(c);
        query_credit_give(r->credit, bytes);
        return CHR_ENOMEM;
    }
    *c = (struct answer_credit){r->credit, bytes};
    query_credit_ref(r->credit);
    m->released = give_back;
    m->released_arg = c;
    *letter = (struct answer_mail){.mail = {.run = deliver_answer}, .message = m};
    loop_post(r->loop, &letter->mail);
    return CHR_OK;
}

/* ---- The end ----------------------------------------------------------------------------------
 */

static void request_free(struct sql_request *r)
{
    query_credit_unref(r->credit);
    principal_unref(r->query.principal);
    free(r);
}

/* The answers were posted before, so they are in the output before the acknowledgement is. */
static void finished(struct broker_loop *loop, struct loop_mail *mail)
{
    struct sql_request *r = CHR_CONTAINER_OF(mail, struct sql_request, done_mail);
    if (r->owner) {
        chr_list_remove(&r->link);
        r->owner->count--;
    }
    struct conn *conn = loop_conn(loop, r->conn);
    if (r->err && !strcmp(r->sqlstate, "42501"))
        audit_denied(loop->node->authority, r->query.principal, conn ? conn->address : NULL, "sql",
                     r->query.text, &(struct acl_reason){0, r->problem});
    /* At shutdown nothing is acknowledged: whether it was done is for the client to ask. */
    if (conn && r->has_ack && r->err != CHR_ECLOSED) {
        if (r->err && r->topic.len == 0) {
            char text[300];
            int len = snprintf(text, sizeof text, "%s: %s", r->sqlstate, r->problem);
            conn_ack_set_reason(conn, r->ack_sequence, MQTT_REASON_UNSPECIFIED_ERROR,
                                conn->session && conn->session->problem_information
                                    ? chr_slice_of(text, (size_t)CHR_MIN(len, (int)sizeof text - 1))
                                    : CHR_LIT(""));
            if (r->qos == 2 && conn->session && conn->version == MQTT_V5)
                (void)incoming_release(&conn->session->incoming,
                                       conn->acks[r->ack_sequence & conn->acks_mask].packet_id);
        }
        conn_ack_done(conn, r->ack_sequence, 1, MQTT_REASON_SUCCESS);
    }
    request_free(r);
}

/* Worker. */
static void done(struct query_request *query, const struct query_outcome *outcome)
{
    struct sql_request *r = CHR_CONTAINER_OF(query, struct sql_request, query);
    r->err = outcome->err;
    if (outcome->err) {
        memcpy(r->sqlstate, outcome->error.sqlstate, sizeof r->sqlstate);
        snprintf(r->problem, sizeof r->problem, "%.*s", (int)sizeof r->problem - 1,
                 outcome->error.message);
    }
    r->done_mail.run = finished;
    loop_post(r->loop, &r->done_mail);
}

/* ---- Asking -----------------------------------------------------------------------------------
 */

static struct sql_client *client_of(struct session *s)
{
    if (s->sql)
        return s->sql;
    struct sql_client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->session = s;
    chr_list_init(&c->requests);
    /* An answer under way may not fill the socket's buffer: beyond max_output_bytes the client is
     * taken for stalled and closed. */
    uint64_t output = s->loop->node->config->max_output_bytes;
    c->credit = query_credit_new(CHR_MIN(output / 2, (uint64_t)SQL_ANSWER_BYTES_MAX));
    struct query_client_options options = {0};
    if (!c->credit || query_client_new(s->loop->node->queries, &options, &c->queries)) {
        query_credit_unref(c->credit);
        free(c);
        return NULL;
    }
    s->sql = c;
    return c;
}

void sql_client_close(struct session *session, bool cancel)
{
    struct sql_client *c = session->sql;
    if (!c)
        return;
    session->sql = NULL;
    CHR_LIST_FOR (link, &c->requests)
        CHR_CONTAINER_OF(link, struct sql_request, link)->owner = NULL;
    /* Their links point at the list's head, which goes. */
    while (!chr_list_empty(&c->requests))
        chr_list_remove(c->requests.next);
    /* done() comes for each request, either way. */
    if (cancel)
        query_client_close(c->queries);
    else
        query_client_finish(c->queries);
    query_credit_unref(c->credit);
    free(c);
}

/* What is wrong with a request before it is asked. */
struct refusal {
    uint8_t reason; /* of PUBACK; 0: the answer says it */
    const char *sqlstate;
    const char *text;
};

/* Where answers go (R1): not under `$` but for $chronos/result/…, to no mapped topic, and only
 * where the asker may publish itself. */
static bool answer_topic_allowed(struct conn *conn, chr_slice topic)
{
    struct broker_loop *loop = conn->loop;
    chr_slice result = CHR_LIT(RESULT_TOPIC);
    if (topic.ptr[0] == '$')
        return chr_slice_starts(topic, result) && topic.len > result.len;
    if (mqtt_topic_levels(topic) > MQTT_TOPIC_LEVELS_MAX)
        return false;
    struct route *route = routes_get(&state_of(loop)->routes, topic);
    return route && !route->ingest && session__may_publish(conn, route);
}

static bool several_statements(chr_slice text)
{
    size_t end = sql_statement_end(text);
    if (end == 0)
        return false;
    for (size_t i = end; i < text.len; i++)
        if (!strchr(" \t\r\n;", text.ptr[i]))
            return true;
    return false;
}

static struct sql_request *request_new(struct conn *conn, chr_slice asked_on,
                                       const struct mqtt_publish *publish)
{
    const struct mqtt_properties *properties = &publish->properties;
    chr_slice key = {0}, token = {0}, prefix = CHR_LIT(SQL_TOPIC), result = CHR_LIT(RESULT_TOPIC);
    bool by_token = asked_on.len > prefix.len;
    chr_slice answer_topic = properties->response_topic;
    if (by_token) {
        token = chr_slice_of(asked_on.ptr + prefix.len, asked_on.len - prefix.len);
        answer_topic = (chr_slice){.len = result.len + token.len};
    }
    (void)mqtt_user_property_find(properties, CHR_LIT("idempotency-key"), &key);
    chr_slice correlation = properties->correlation_data;
    struct sql_request *r =
        calloc(1, sizeof *r + publish->payload.len + answer_topic.len + correlation.len + key.len);
    if (!r)
        return NULL;
    uint8_t *at = r->bytes;
    const chr_slice parts[] = {publish->payload, by_token ? result : answer_topic, token,
                               correlation, key};
    const uint8_t *starts[CHR_COUNT_OF(parts)];
    for (size_t i = 0; i < CHR_COUNT_OF(parts); i++) {
        starts[i] = at;
        if (parts[i].len)
            memcpy(at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    r->query.text = chr_slice_of(starts[0], publish->payload.len);
    r->topic = chr_slice_of(starts[1], answer_topic.len);
    r->token = chr_slice_of(starts[2], token.len);
    if (mqtt_has(properties, MQTT_PROPERTY_CORRELATION_DATA))
        r->correlation = chr_slice_of(starts[3], correlation.len);
    r->query.idempotency_key = chr_slice_of(starts[4], key.len);
    r->loop = conn->loop;
    r->conn = conn->ref;
    r->user = conn->session->user;
    r->query.principal = conn->session->principal;
    if (r->query.principal)
        principal_ref(r->query.principal);
    r->qos = publish->qos;
    r->version = conn->version;
    r->query.emit = emit;
    r->query.done = done;
    chr_list_init(&r->link);
    return r;
}

/* Reads the properties that say how; false: refused. */
static bool set_options(struct sql_request *r, struct conn *conn,
                        const struct mqtt_publish *publish, struct refusal *why)
{
    const struct session *s = conn->session;
    chr_slice value;
    r->query.format = SQL_FORMAT_DEFAULT;
    if (mqtt_user_property_find(&publish->properties, CHR_LIT("format"), &value) &&
        !sql_format_parse(value, &r->query.format)) {
        *why = (struct refusal){0, "22023", "format is json, csv, ndjson or table"};
        return false;
    }
    if (mqtt_user_property_find(&publish->properties, CHR_LIT("header"), &value))
        r->query.no_header =
            chr_slice_eq(value, CHR_LIT("off")) || chr_slice_eq(value, CHR_LIT("false"));
    const struct broker_config *config = conn->loop->node->config;
    uint64_t part = CHR_MIN(config->query_result_part_bytes, config->max_output_bytes / 2);
    uint64_t packet = s->max_packet_bytes;
    uint64_t overhead = ANSWER_OVERHEAD + r->topic.len + r->correlation.len;
    uint64_t room = packet > overhead + PART_BYTES_MIN ? packet - overhead : PART_BYTES_MIN;
    r->query.part_bytes = (size_t)CHR_MIN(part, room);
    r->query.last_only = true; /* one request, one answer */
    if (publish->qos == 2 && s->durable) {
        if (several_statements(r->query.text)) {
            *why = (struct refusal){0, "0A000", "send one statement per message at QoS 2"};
            return false;
        }
        r->query.guarded = true;
        r->query.guard = (struct db_guard){s->epoch, s->generation, publish->packet_id};
    }
    if (publish->payload.len == 0) {
        *why = (struct refusal){0, "42601", "the message holds no statement"};
        return false;
    }
    return true;
}

/* Answers right here: with an error document, or by the reason code alone. */
static void answer_refused(struct conn *conn, struct sql_request *r, const struct refusal *why)
{
    if (why->reason == 0 && r->topic.len) {
        struct sql_error error;
        sql_error_set(&error, why->sqlstate, 0, "%s", why->text);
        struct chr_buf json;
        chr_buf_init(&json, 8192);
        sql_error_json(&error, &json);
        struct sql_part part = {.bytes = chr_buf_slice(&json),
                                .part = 1,
                                .last = true,
                                .error = true,
                                .format = SQL_FORMAT_JSON};
        struct message *m = make_answer(r, &part, why->sqlstate);
        chr_buf_free(&json);
        if (m)
            session__deliver_topic(conn->loop, m);
        message_unref(m);
    }
    if (r->has_ack) {
        uint8_t reason = why->reason         ? why->reason
                         : r->topic.len == 0 ? MQTT_REASON_UNSPECIFIED_ERROR
                                             : MQTT_REASON_SUCCESS;
        if (reason && conn->version == MQTT_V5) {
            conn_ack_set_reason(conn, r->ack_sequence, reason,
                                conn->session->problem_information ? chr_slice_cstr(why->text)
                                                                   : CHR_LIT(""));
            if (r->qos == 2)
                (void)incoming_release(&conn->session->incoming,
                                       conn->acks[r->ack_sequence & conn->acks_mask].packet_id);
        }
        conn_ack_done(conn, r->ack_sequence, 1, MQTT_REASON_SUCCESS);
    }
    request_free(r);
}

enum dispatch sql_request_publish(struct conn *conn, chr_slice topic,
                                  const struct mqtt_publish *publish)
{
    struct session *s = conn->session;
    struct sql_client *client = client_of(s);
    struct sql_request *r = client ? request_new(conn, topic, publish) : NULL;
    if (!r || (publish->qos == 2 && incoming_hold(&s->incoming, publish->packet_id, !s->durable))) {
        if (r)
            request_free(r);
        session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        return DISPATCH_CLOSE;
    }
    session__count_publish(conn, publish->qos, publish->payload.len);
    r->credit = client->credit;
    query_credit_ref(r->credit);
    if (publish->qos) {
        r->has_ack = true;
        r->ack_sequence =
            conn_ack_begin(conn, publish->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, publish->packet_id);
    }
    struct refusal why = {0};
    if (r->topic.len && !answer_topic_allowed(conn, r->topic)) {
        chr_log_notice("sql", "answers may not go to this topic", CHR_KV_S("client", s->client_id),
                       CHR_KV_S("topic", r->topic));
        why = (struct refusal){MQTT_REASON_NOT_AUTHORIZED, "42501",
                               "answers may not go to this Response Topic"};
        answer_refused(conn, r, &why);
        return DISPATCH_DONE;
    }
    if (!set_options(r, conn, publish, &why)) {
        answer_refused(conn, r, &why);
        return DISPATCH_DONE;
    }
    chr_err err =
        client->count < SQL_REQUESTS_MAX ? query_submit(client->queries, &r->query) : CHR_EFULL;
    if (err) {
        why = err == CHR_ECLOSED ? (struct refusal){0, "57P01", "the node shuts down"}
                                 : (struct refusal){0, "53300", "too many requests are waiting"};
        answer_refused(conn, r, &why);
        return DISPATCH_DONE;
    }
    r->owner = client;
    client->count++;
    chr_list_push_back(&client->requests, &r->link);
    return DISPATCH_DONE;
}

void sql_request_cancel(struct conn *conn, chr_slice topic, const struct mqtt_publish *publish)
{
    struct sql_client *client = conn->session->sql;
    if (!client)
        return;
    size_t prefix = sizeof CANCEL_TOPIC - 1;
    chr_slice token = {0};
    if (topic.len > prefix + 1)
        token = chr_slice_of(topic.ptr + prefix + 1, topic.len - prefix - 1);
    bool all = token.len == 0 && !mqtt_has(&publish->properties, MQTT_PROPERTY_CORRELATION_DATA);
    CHR_LIST_FOR (link, &client->requests) {
        struct sql_request *r = CHR_CONTAINER_OF(link, struct sql_request, link);
        bool same = token.len
                        ? chr_slice_eq(token, r->token)
                        : r->correlation.ptr &&
                              chr_slice_eq(r->correlation, publish->properties.correlation_data);
        if (all || same)
            query_cancel(&r->query);
    }
}
