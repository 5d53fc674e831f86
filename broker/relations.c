#include "broker/relations.h"

#include <string.h>

#include "base/buf.h"
#include "broker/cluster.h"
#include "broker/cluster_calls.h"
#include "broker/config.h"
#include "broker/net/listener.h"
#include "broker/node.h"
#include "broker/session/inspect.h"
#include "broker/session/subscriptions.h"
#include "db/durable.h"

/* Subscriptions read under their lock at a time: SUBSCRIBE waits for as long. */
#define SUBSCRIPTIONS_AT_A_TIME 256u

static const struct sql_relation_column client_columns[] = {
    {"client_id", DB_STRING},       {"address", DB_STRING},    {"username", DB_STRING},
    {"listener", DB_STRING},        {"transport", DB_STRING},  {"protocol", DB_STRING},
    {"connected_at", DB_TIMESTAMP}, {"keep_alive", DB_INT},    {"clean_start", DB_BOOLEAN},
    {"session_expiry", DB_INT},     {"subscriptions", DB_INT}, {"inflight", DB_INT},
    {"queued_count", DB_INT},       {"queued_bytes", DB_INT},  {"dropped", DB_INT},
    {"messages_received", DB_INT},  {"messages_sent", DB_INT}, {"bytes_received", DB_INT},
    {"bytes_sent", DB_INT},
};
static const struct sql_relation_column subscription_columns[] = {
    {"client_id", DB_STRING},    {"filter", DB_STRING},
    {"share_group", DB_STRING},  {"qos", DB_INT},
    {"no_local", DB_BOOLEAN},    {"retain_as_published", DB_BOOLEAN},
    {"retain_handling", DB_INT}, {"subscription_id", DB_INT},
};
static const struct sql_relation_column session_columns[] = {
    {"client_id", DB_STRING},     {"connected", DB_BOOLEAN}, {"session_expiry", DB_INT},
    {"expires_at", DB_TIMESTAMP}, {"durable", DB_BOOLEAN},   {"subscriptions", DB_INT},
    {"inflight", DB_INT},         {"queued_count", DB_INT},  {"queued_bytes", DB_INT},
    {"dropped", DB_INT},
};
static const struct sql_relation_column node_columns[] = {
    {"node", DB_STRING},    {"address", DB_STRING}, {"role", DB_STRING},  {"voter", DB_BOOLEAN},
    {"member", DB_BOOLEAN}, {"up", DB_BOOLEAN},     {"term", DB_INT},     {"commit_index", DB_INT},
    {"match", DB_INT},      {"lag", DB_INT},        {"heard_ms", DB_INT}, {"skew_ms", DB_INT},
    {"version", DB_STRING},
};
enum { CLIENTS, SUBSCRIPTIONS, SESSIONS, NODES };
const struct sql_relation broker_relations[BROKER_RELATIONS] = {
    [CLIENTS] = {"chronos_clients", "clients", client_columns, CHR_COUNT_OF(client_columns)},
    [SUBSCRIPTIONS] = {"chronos_subscriptions", "subscriptions", subscription_columns,
                       CHR_COUNT_OF(subscription_columns)},
    [SESSIONS] = {"chronos_sessions", "sessions", session_columns, CHR_COUNT_OF(session_columns)},
    [NODES] = {"chronos_nodes", "nodes", node_columns, CHR_COUNT_OF(node_columns)},
};

/* ---- A row, column by column ------------------------------------------------------------------
 */

struct row {
    struct db_value values[CHR_COUNT_OF(client_columns)];
    uint32_t count;
};

static void null(struct row *row)
{
    row->values[row->count++] = (struct db_value){.null = true};
}
static void integer(struct row *row, uint64_t v)
{
    row->values[row->count++] = (struct db_value){.type = DB_INT, .i64 = (int64_t)v};
}
static void boolean(struct row *row, bool v)
{
    row->values[row->count++] = (struct db_value){.type = DB_BOOLEAN, .boolean = v};
}
static void timestamp(struct row *row, int64_t us)
{
    row->values[row->count++] = (struct db_value){.type = DB_TIMESTAMP, .i64 = us};
}
static void text(struct row *row, chr_slice v)
{
    row->values[row->count++] = (struct db_value){.type = DB_STRING, .bytes = v};
}

/* ---- Clients and sessions ---------------------------------------------------------------------
 */

struct reading {
    struct broker_node *node;
    struct sql_relation_rows *rows;
};

/* What waits for a session, in memory and in the log, and what of it was lost. */
struct waiting {
    uint64_t count, bytes, dropped;
    int64_t expires_us;
};

static struct waiting waiting_for(const struct reading *r, const struct session_info *info)
{
    struct waiting w = {info->queued, info->queued_bytes, info->dropped, info->expires_us};
    struct db_session_info stored;
    if (!info->epoch || !db_session_read(r->node->db, info->epoch, &stored))
        return w;
    /* They are in the queue until they are answered. */
    w.count += stored.queued_count - CHR_MIN(stored.queued_count, info->stored_inflight);
    w.bytes += stored.queued_bytes;
    w.dropped += stored.dropped;
    if (!info->connected && !stored.connected)
        w.expires_us = stored.expires_us; /* the log's word is what counts (R13) */
    return w;
}

static chr_err add_client(void *arg, const struct session_info *info)
{
    const struct reading *r = arg;
    struct waiting w = waiting_for(r, info);
    const char *kind = listener_kind(info->listener);
    struct row row = {.count = 0};
    text(&row, info->client_id);
    text(&row, chr_slice_cstr(info->address));
    if (info->user.ptr)
        text(&row, info->user);
    else
        null(&row);
    text(&row, chr_slice_cstr(info->listener->bound));
    text(&row, chr_slice_cstr(strcmp(kind, "mqtt") == 0 ? "tcp" : kind));
    text(&row, info->version == MQTT_V5 ? CHR_LIT("5") : CHR_LIT("3.1.1"));
    timestamp(&row, info->connected_us);
    integer(&row, info->keep_alive_s);
    boolean(&row, info->clean_start);
    integer(&row, info->expiry_s);
    integer(&row, info->subscriptions);
    integer(&row, info->inflight);
    integer(&row, w.count);
    integer(&row, w.bytes);
    integer(&row, w.dropped);
    integer(&row, info->messages_received);
    integer(&row, info->messages_sent);
    integer(&row, info->bytes_received);
    integer(&row, info->bytes_sent);
    return sql_relation_add(r->rows, row.values);
}

static chr_err add_session(void *arg, const struct session_info *info)
{
    const struct reading *r = arg;
    struct waiting w = waiting_for(r, info);
    struct row row = {.count = 0};
    text(&row, info->client_id);
    boolean(&row, info->connected);
    integer(&row, info->expiry_s);
    if (w.expires_us != INT64_MAX)
        timestamp(&row, w.expires_us);
    else
        null(&row);
    boolean(&row, info->epoch != 0);
    integer(&row, info->subscriptions);
    integer(&row, info->inflight);
    integer(&row, w.count);
    integer(&row, w.bytes);
    integer(&row, w.dropped);
    return sql_relation_add(r->rows, row.values);
}

/* ---- Subscriptions ----------------------------------------------------------------------------
 */

/* Copied under the tree's lock, made rows of after it. */
struct copied {
    struct subscription_options options;
    size_t client_len, group_len, filter_len;
};
struct copies {
    struct chr_buf bytes; /* struct copied, client id, group, filter; again and again */
};

static void copy(void *arg, const struct subscription_options *options, chr_slice client_id,
                 chr_slice group, chr_slice filter)
{
    struct copies *copies = arg;
    struct copied head = {*options, client_id.len, group.len, filter.len};
    chr_buf_add_slice(&copies->bytes, chr_slice_of((const uint8_t *)&head, sizeof head));
    chr_buf_add_slice(&copies->bytes, client_id);
    chr_buf_add_slice(&copies->bytes, group);
    chr_buf_add_slice(&copies->bytes, filter);
}

static chr_err add_subscriptions(const struct reading *r, const struct copies *copies)
{
    const uint8_t *at = copies->bytes.ptr, *end = at + copies->bytes.len;
    while (at < end) {
        struct copied head;
        memcpy(&head, at, sizeof head);
        at += sizeof head;
        struct row row = {.count = 0};
        text(&row, chr_slice_of(at, head.client_len));
        at += head.client_len;
        chr_slice group = chr_slice_of(at, head.group_len);
        at += head.group_len;
        text(&row, chr_slice_of(at, head.filter_len));
        at += head.filter_len;
        if (group.len)
            text(&row, group);
        else
            null(&row);
        integer(&row, head.options.qos);
        boolean(&row, head.options.no_local);
        boolean(&row, head.options.retain_as_published);
        integer(&row, head.options.retain_handling);
        if (head.options.id)
            integer(&row, head.options.id);
        else
            null(&row);
        chr_err err = sql_relation_add(r->rows, row.values);
        if (err)
            return err;
    }
    return CHR_OK;
}

static chr_err read_subscriptions(const struct reading *r, const struct sql_host_wait *wait)
{
    struct copies copies;
    chr_buf_init(&copies.bytes, r->node->config->query_memory_bytes);
    uint64_t cursor = 0;
    chr_err err = CHR_OK;
    do {
        chr_buf_reset(&copies.bytes);
        err = subscriptions_scan(r->node->subscriptions, &cursor, SUBSCRIPTIONS_AT_A_TIME, copy,
                                 &copies);
        if (!err && copies.bytes.failed)
            err = CHR_ENOMEM;
        if (!err)
            err = add_subscriptions(r, &copies);
        if (!err && atomic_load_explicit(wait->cancel, memory_order_relaxed))
            err = CHR_ECANCELLED;
        if (!err && wait->deadline_us && chr_clock_mono_us(r->node->clock) > wait->deadline_us)
            err = CHR_ETIMEDOUT;
    } while (!err && cursor);
    chr_buf_free(&copies.bytes);
    return err;
}

/* ---- Nodes ------------------------------------------------------------------------------------
 */

static void integer_if(struct row *row, bool known, int64_t v)
{
    if (known)
        integer(row, (uint64_t)v);
    else
        null(row);
}

static chr_err add_node(const struct reading *r, const struct call_node *n)
{
    static const char *const roles[] = {[CALL_ROLE_NONE] = "none",
                                        [CALL_ROLE_FOLLOWER] = "follower",
                                        [CALL_ROLE_CANDIDATE] = "candidate",
                                        [CALL_ROLE_LEADER] = "leader",
                                        [CALL_ROLE_LEARNER] = "learner"};
    struct row row = {.count = 0};
    text(&row, chr_slice_cstr(n->name));
    text(&row, chr_slice_cstr(n->address));
    text(&row, chr_slice_cstr(roles[n->role]));
    boolean(&row, n->voter);
    boolean(&row, n->member);
    boolean(&row, n->up);
    integer(&row, n->term);
    integer_if(&row, n->progress, (int64_t)n->commit_index);
    integer_if(&row, n->progress, (int64_t)n->match);
    integer_if(&row, n->progress, (int64_t)n->lag);
    integer_if(&row, n->heard, (int64_t)n->heard_ms);
    integer_if(&row, n->clock, n->skew_ms);
    if (n->version[0])
        text(&row, chr_slice_cstr(n->version));
    else
        null(&row);
    return sql_relation_add(r->rows, row.values);
}

/* A cluster of one without a name. */
static void single_node(struct broker_node *node, struct call_node *out)
{
    struct broker_cluster_status status;
    broker_committer_status(node->committer, &status);
    *out = (struct call_node){.name = "single-node",
                              .version = CHRONOS_VERSION,
                              .role = CALL_ROLE_LEADER,
                              .voter = true,
                              .member = true,
                              .up = true,
                              .term = status.term,
                              .progress = true,
                              .commit_index = status.commit_index,
                              .match = status.last_index,
                              .heard = true,
                              .clock = true};
    memcpy(out->address, node->mqtt_address, sizeof out->address);
}

static chr_err read_nodes(const struct reading *r, const struct sql_host_wait *wait)
{
    struct call_node nodes[CALL_NODES_MAX];
    uint32_t count = 1;
    chr_err err = CHR_OK;
    if (r->node->cluster)
        err = cluster_call_nodes(cluster_calls(r->node->cluster), wait, nodes, &count);
    else
        single_node(r->node, nodes);
    for (uint32_t i = 0; i < count && !err; i++)
        err = add_node(r, &nodes[i]);
    return err;
}

chr_err broker_relation_read(struct broker_node *node, const struct sql_relation *relation,
                             struct sql_relation_rows *rows, const struct sql_host_wait *wait)
{
    struct reading r = {.node = node, .rows = rows};
    uint64_t bytes_max = node->config->query_memory_bytes;
    if (relation == &broker_relations[SUBSCRIPTIONS])
        return read_subscriptions(&r, wait);
    if (relation == &broker_relations[NODES])
        return read_nodes(&r, wait);
    bool clients = relation == &broker_relations[CLIENTS];
    return inspect_sessions(node, clients, bytes_max, wait, clients ? add_client : add_session, &r);
}
