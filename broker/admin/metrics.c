/* broker/admin/metrics.c: GET /metrics: Prometheus text format 0.0.4.
 *
 * Counters end in _total, sizes in _bytes, times in _seconds; one HELP and one TYPE line for each
 * name, in front of all its samples. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/num.h"
#include "broker/admin/internal.h"
#include "broker/auth/auth.h"
#include "broker/checkpointer.h"
#include "broker/net/listener.h"
#include "broker/net/loop.h"
#include "broker/query_pool.h"
#include "broker/session/message.h"
#include "broker/session/registry.h"
#include "broker/session/subscriptions.h"
#include "db/durable.h"
#include "proto/mqtt/packet.h"

void admin__metric_head(struct chr_buf *out, const char *name, const char *type, const char *help)
{
    chr_buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void admin__metric(struct chr_buf *out, const char *type, const char *name, uint64_t value,
                   const char *help)
{
    admin__metric_head(out, name, type, help);
    chr_buf_addf(out, "%s %" PRIu64 "\n", name, value);
}

#define head    admin__metric_head
#define integer admin__metric

static void number(struct chr_buf *out, const char *type, const char *name, double value,
                   const char *help)
{
    char text[CHR_NUM_TEXT_MAX];
    head(out, name, type, help);
    chr_format_f64(value, text);
    chr_buf_addf(out, "%s %s\n", name, text);
}

#define COUNTER(name, value, help)    integer(out, "counter", "chronos_" name, (value), help)
#define GAUGE(name, value, help)      integer(out, "gauge", "chronos_" name, (value), help)
#define SECONDS(type, name, us, help) number(out, type, "chronos_" name, (double)(us) / 1e6, help)

/* ---- Loops ------------------------------------------------------------------------------------
 */

struct loop_metric {
    const char *name, *type, *labels, *help; /* help NULL: more samples of the name before */
    size_t offset;
};

#define LOOP(field) offsetof(struct loop_counters, field)

static const struct loop_metric loop_metrics[] = {
    {"chronos_connections", "gauge", "", "Open MQTT connections.", LOOP(connections)},
    {"chronos_connections_total", "counter", "", "MQTT connections accepted.",
     LOOP(connections_total)},
    {"chronos_packets_received_total", "counter", "", "MQTT packets received.",
     LOOP(packets_received)},
    {"chronos_received_bytes_total", "counter", "", "Bytes received over MQTT.",
     LOOP(bytes_received)},
    {"chronos_sent_bytes_total", "counter", "", "Bytes sent over MQTT.", LOOP(bytes_sent)},
    {"chronos_publishes_received_total", "counter", ",qos=\"0\"", "PUBLISH packets received.",
     LOOP(publishes[0])},
    {"chronos_publishes_received_total", "counter", ",qos=\"1\"", NULL, LOOP(publishes[1])},
    {"chronos_publishes_received_total", "counter", ",qos=\"2\"", NULL, LOOP(publishes[2])},
    {"chronos_publishes_sent_total", "counter", ",qos=\"0\"", "PUBLISH packets sent.",
     LOOP(publishes_sent[0])},
    {"chronos_publishes_sent_total", "counter", ",qos=\"1\"", NULL, LOOP(publishes_sent[1])},
    {"chronos_publishes_sent_total", "counter", ",qos=\"2\"", NULL, LOOP(publishes_sent[2])},
    {"chronos_publishes_mapped_total", "counter", "", "Publishes that became rows.",
     LOOP(publishes_mapped)},
    {"chronos_publishes_rejected_total", "counter", "", "Publishes that fit no row.",
     LOOP(publishes_rejected)},
    {"chronos_publishes_stale_total", "counter", "",
     "Publishes decoded again because their mapping changed.", LOOP(publishes_stale)},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"queue_full\"",
     "Messages not delivered, by cause.", LOOP(dropped[DROP_QUEUE_FULL])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"slow\"", NULL,
     LOOP(dropped[DROP_SLOW])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"too_large\"", NULL,
     LOOP(dropped[DROP_TOO_LARGE])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"inbox\"", NULL,
     LOOP(dropped[DROP_INBOX])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"peer\"", NULL,
     LOOP(dropped[DROP_PEER])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"expired\"", NULL,
     LOOP(dropped[DROP_EXPIRED])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"message_size\"", NULL,
     LOOP(dropped[DROP_SIZE])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"memory\"", NULL,
     LOOP(dropped[DROP_MEMORY])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"member\"", NULL,
     LOOP(dropped[DROP_MEMBER])},
    {"chronos_publishes_dropped_total", "counter", ",cause=\"damaged\"", NULL,
     LOOP(dropped[DROP_DAMAGED])},
    {"chronos_publish_received_bytes_total", "counter", "", "Payload bytes of PUBLISH received.",
     LOOP(publish_bytes_received)},
    {"chronos_publish_sent_bytes_total", "counter", "", "Payload bytes of PUBLISH sent.",
     LOOP(publish_bytes_sent)},
    {"chronos_connects_accepted_total", "counter", "", "CONNECT packets accepted.",
     LOOP(connects_accepted)},
    {"chronos_connections_lost_total", "counter", "",
     "Connections of clients that ended without a DISCONNECT of either side.", LOOP(lost)},
    {"chronos_acks_sent_total", "counter", "", "Acknowledgements of publishes sent.",
     LOOP(acks_sent)},
    {"chronos_batches_total", "counter", "", "Batches handed to the log.", LOOP(batches)},
    {"chronos_batch_pauses_total", "counter", "", "Connections paused for want of a batch.",
     LOOP(pauses_batch)},
    {"chronos_protocol_errors_total", "counter", "", "Connections closed for a protocol error.",
     LOOP(protocol_errors)},
};

static void add_loops(const struct broker_node *node, struct chr_buf *out)
{
    for (size_t m = 0; m < CHR_COUNT_OF(loop_metrics); m++) {
        const struct loop_metric *metric = &loop_metrics[m];
        if (metric->help)
            head(out, metric->name, metric->type, metric->help);
        for (uint32_t i = 0; i < node->loops_count; i++) {
            const char *counters = (const char *)&node->loops[i]->counters;
            const _Atomic uint64_t *value = (const void *)(counters + metric->offset);
            uint64_t shown = metric->offset == LOOP(connections)
                                 ? atomic_load(&node->loops[i]->conns_count)
                                 : atomic_load_explicit(value, memory_order_relaxed);
            chr_buf_addf(out, "%s{loop=\"%u\"%s} %" PRIu64 "\n", metric->name, i, metric->labels,
                         shown);
        }
    }
}

/* One sample for each reason code that there was. labels: in front of the code's, or "". */
static void add_reasons(const struct broker_node *node, struct chr_buf *out, const char *name,
                        const char *labels, size_t offset, const char *zero)
{
    for (unsigned code = 0; code < 256; code++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < node->loops_count; i++) {
            const char *ends = (const char *)&node->loops[i]->ends;
            const _Atomic uint64_t *counts = (const void *)(ends + offset);
            sum += atomic_load_explicit(&counts[code], memory_order_relaxed);
        }
        if (sum)
            chr_buf_addf(out, "%s{%scode=\"0x%02x\",reason=\"%s\"} %" PRIu64 "\n", name, labels,
                         code, code ? mqtt_reason_text((uint8_t)code) : zero, sum);
    }
}

static void add_ends(const struct broker_node *node, struct chr_buf *out)
{
    static const char refused[] = "chronos_connects_refused_total";
    static const char ended[] = "chronos_disconnects_total";
    static const char normal[] = "Normal disconnection";
    head(out, refused, "counter", "CONNECT packets refused, by reason code.");
    add_reasons(node, out, refused, "", offsetof(struct loop_ends, refused), normal);
    head(out, ended, "counter", "Connections ended by either side, by reason code.");
    add_reasons(node, out, ended, "by=\"server\",", offsetof(struct loop_ends, by_server), normal);
    add_reasons(node, out, ended, "by=\"client\",", offsetof(struct loop_ends, by_client), normal);
}

/* ---- Listeners --------------------------------------------------------------------------------
 */

static uint64_t listener_bytes(const struct broker_node *node, uint32_t listener, bool sent)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < node->loops_count; i++) {
        const struct listener_counters *c = &node->loops[i]->listener_counters[listener];
        sum +=
            atomic_load_explicit(sent ? &c->bytes_sent : &c->bytes_received, memory_order_relaxed);
    }
    return sum;
}

static uint64_t listener_value(const struct broker_node *node, uint32_t listener, int metric)
{
    const struct listener *l = &node->listeners[listener];
    switch (metric) {
    case 0:
        return atomic_load_explicit(&l->connections, memory_order_relaxed);
    case 1:
        return atomic_load_explicit(&l->accepted, memory_order_relaxed);
    case 2:
        return atomic_load_explicit(&l->refused, memory_order_relaxed);
    default:
        return listener_bytes(node, listener, metric == 4);
    }
}

static void add_listeners(const struct broker_node *node, struct chr_buf *out)
{
    static const char *const metrics[][3] = {
        {"chronos_listener_connections", "gauge", "Open connections of a listener."},
        {"chronos_listener_accepted_total", "counter", "Connections accepted by a listener."},
        {"chronos_listener_refused_total", "counter", "Connections beyond max_connections."},
        {"chronos_listener_received_bytes_total", "counter", "Bytes received by a listener."},
        {"chronos_listener_sent_bytes_total", "counter", "Bytes sent by a listener."},
    };
    for (int m = 0; m < (int)CHR_COUNT_OF(metrics); m++) {
        head(out, metrics[m][0], metrics[m][1], metrics[m][2]);
        for (uint32_t i = 0; i < node->listeners_count; i++) {
            const struct listener *l = &node->listeners[i];
            chr_buf_addf(out, "%s{listener=\"%s\",kind=\"%s\"} %" PRIu64 "\n", metrics[m][0],
                         l->bound, listener_kind(l), listener_value(node, i, m));
        }
    }
}

static void add_limits(const struct broker_node *node, struct chr_buf *out)
{
    head(out, "chronos_limit_reached_total", "counter",
         "Times a client wanted more than a limit allows.");
    for (uint32_t i = 0; i < node->loops_count; i++)
        for (int l = 0; l < LIMITS; l++)
            chr_buf_addf(
                out, "chronos_limit_reached_total{loop=\"%u\",limit=\"%s\"} %" PRIu64 "\n", i,
                limit_infos[l].name,
                atomic_load_explicit(&node->loops[i]->limits.hits[l], memory_order_relaxed));
    static const char *const names[] = {"chronos_partial_bytes", "chronos_held_bytes",
                                        "chronos_unsent_bytes"};
    static const char *const helps[] = {"Reserved for packets that have not arrived whole.",
                                        "Received and not yet handled.",
                                        "Waiting for clients to read them."};
    for (size_t m = 0; m < CHR_COUNT_OF(names); m++) {
        head(out, names[m], "gauge", helps[m]);
        for (uint32_t i = 0; i < node->loops_count; i++)
            chr_buf_addf(
                out, "%s{loop=\"%u\"} %" PRIu64 "\n", names[m], i,
                atomic_load_explicit(&node->loops[i]->shown_bytes[m], memory_order_relaxed));
    }
    GAUGE("queued_bytes", messages_queued_bytes(), "Memory of messages waiting for clients.");
    struct db_durable_stats durable;
    db_durable_stats(node->db, &durable);
    GAUGE("durable_sessions", durable.lasting + registry_reserved(node->registry),
          "Sessions that outlive their connection, known to the log or on their way there.");
    GAUGE("subscriptions", subscriptions_count(node->subscriptions), "Subscriptions.");
}

/* ---- The road behind them ---------------------------------------------------------------------
 */

/* Cumulative, as a histogram has to be. */
static void add_commits(const struct broker_committer_stats *c, struct chr_buf *out)
{
    static const char name[] = "chronos_commit_seconds";
    uint64_t sum = 0;
    char text[CHR_NUM_TEXT_MAX];
    head(out, name, "histogram",
         "From the proposal of a group's first entry to its commit, on the node that leads.");
    for (size_t i = 0; i <= BROKER_COMMIT_BUCKETS; i++) {
        sum += c->commit_counts[i];
        if (i < BROKER_COMMIT_BUCKETS)
            chr_format_f64((double)broker_commit_bounds_us[i] / 1e6, text);
        chr_buf_addf(out, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", name,
                     i < BROKER_COMMIT_BUCKETS ? text : "+Inf", sum);
    }
    chr_format_f64((double)c->commit_us_total / 1e6, text);
    chr_buf_addf(out, "%s_sum %s\n%s_count %" PRIu64 "\n", name, text, name, sum);
}

static void add_log(const struct broker_node *node, struct chr_buf *out)
{
    struct broker_committer_stats c;
    broker_committer_stats(node->committer, &c);
    GAUGE("leader", c.leader, "1 when this node leads.");
    GAUGE("term", c.term, "Raft term.");
    GAUGE("disk_full", c.disk_full, "1 while the log waits for room on the disk.");
    GAUGE("disk_hangs", c.disk_hangs, "1 while the disk has not answered the log for a second.");
    GAUGE("hot_full", c.hot_full, "1 while writers wait for rows to be sealed.");
    COUNTER("groups_total", c.groups, "Groups of entries committed together.");
    COUNTER("entries_total", c.entries, "Entries appended to the log.");
    COUNTER("entries_applied_total", c.entries_applied, "Entries applied.");
    GAUGE("apply_index", db_apply_index(node->db), "Index of the last applied entry.");
    GAUGE("log_index", raft_log_last(node->log), "Index of the last entry of the log.");
    GAUGE("log_durable_index", raft_log_durable(node->log), "Index of the last entry on disk.");
    GAUGE("log_bytes", raft_log_bytes(node->log), "Bytes of the entries in the log.");
    GAUGE("log_segments", c.log.segments, "Files of the log.");
    COUNTER("log_segments_recycled_total", c.log.segments_recycled, "Log files used again.");
    COUNTER("log_written_bytes_total", c.log.bytes_written, "Bytes written to the log.");
    COUNTER("log_syncs_total", c.log.syncs, "fdatasyncs of the log.");
    SECONDS("counter", "log_sync_seconds_total", c.log.sync_us_total, "Time spent in them.");
    SECONDS("gauge", "log_sync_seconds_max", c.log.sync_us_max, "The longest of them.");
    COUNTER("log_disk_full_total", c.log.enospc_waits, "Times the log met a full disk.");
    add_commits(&c, out);
    if (node->cluster)
        admin__metrics_cluster(node, &c, out);
}

/* What outlives connections, db/durable.h. */
static void add_durable(const struct broker_node *node, struct chr_buf *out)
{
    struct db_durable_stats s;
    db_durable_stats(node->db, &s);
    GAUGE("durable_sessions_connected", s.connected, "Of the durable sessions in the database.");
    GAUGE("durable_subscriptions", s.subscriptions, "Their subscriptions.");
    GAUGE("durable_queued_messages", s.queued_count, "Places in their queues.");
    GAUGE("durable_queued_bytes", s.queued_bytes, "Bytes of what waits there.");
    GAUGE("durable_messages", s.messages, "Messages that wait or are retained, each once.");
    GAUGE("durable_message_bytes", s.message_bytes, "Bytes of these.");
    GAUGE("durable_memory_bytes", s.memory_bytes, "Bytes of these that are in memory.");
    COUNTER("durable_dropped_total", s.dropped, "Messages that found a durable queue full.");
    COUNTER("durable_expired_total", s.expired, "Messages that expired in a durable queue.");
    GAUGE("retained_messages", s.retained_count, "Retained messages of clients.");
    GAUGE("retained_bytes", s.retained_bytes, "Their bytes.");
    GAUGE("wills_pending", s.wills, "Wills of lost connections that are not published yet.");
}

static void add_db(const struct broker_node *node, struct chr_buf *out)
{
    struct db_stats s;
    db_stats(node->db, &s);
    COUNTER("rows_applied_total", s.rows_applied, "Rows applied.");
    COUNTER("rows_deleted_total", s.rows_deleted, "Rows deleted or replaced.");
    COUNTER("rows_duplicate_total", s.rows_duplicate, "Rows of messages that had come before.");
    COUNTER("entries_stale_total", s.entries_stale, "Entries decoded under older mappings.");
    GAUGE("hot_rows", s.hot_rows, "Rows in memory, not yet in chunks.");
    GAUGE("hot_bytes", s.hot_bytes, "Their memory.");
    GAUGE("chunks", s.chunks, "Chunks.");
    GAUGE("chunk_rows", s.chunk_rows, "Rows in chunks.");
    GAUGE("chunk_bytes", s.chunk_bytes, "Bytes of chunks.");
    GAUGE("tail_rows", s.tail_rows, "Rows in tail blocks.");
    COUNTER("checkpoints_total", s.checkpoints, "Checkpoints made.");
    struct checkpointer_stats c;
    checkpointer_stats(atomic_load(&node->checkpointer), &c);
    COUNTER("checkpoints_failed_total", c.failed, "Checkpoints that failed; they are tried again.");
    GAUGE("checkpoint_no_room", c.no_room, "1 while a checkpoint waits for room on the disk.");
    SECONDS("gauge", "checkpoint_last_seconds", s.checkpoint_us_last, "Duration of the last.");
    GAUGE("checkpoint_index", db_durable_index(node->db), "Last entry that a checkpoint holds.");
    COUNTER("sealed_rows_total", s.seal_rows_total, "Rows sealed into chunks.");
    SECONDS("counter", "seal_seconds_total", s.seal_us_total, "Time spent sealing.");
    COUNTER("chunks_decoded_total", s.chunks_decoded, "Chunks that queries read.");
    COUNTER("chunks_pruned_total", s.chunks_pruned, "Chunks that queries passed over.");
    COUNTER("chunks_from_statistics_total", s.chunks_from_statistics,
            "Chunks that queries answered from statistics.");
    GAUGE("sessions", s.sessions, "Sessions that outlive their connection.");
    GAUGE("guards", s.guards, "QoS 2 packet identifiers remembered.");
    GAUGE("rejects", s.rejects, "Readings kept in chronos_rejects.");
    GAUGE("database_file_bytes", s.kv_file_bytes, "Size of the database file.");
    GAUGE("database_used_bytes", s.kv_used_bytes, "Bytes of it in use.");
}

static void add_queries(const struct broker_node *node, struct chr_buf *out)
{
    struct query_pool_stats q;
    query_pool_stats(node->queries, &q);
    COUNTER("queries_total", q.requests, "SQL requests.");
    COUNTER("queries_failed_total", q.failed, "SQL requests that ended with an error.");
    COUNTER("queries_cancelled_total", q.cancelled, "SQL requests that were cancelled.");
    COUNTER("queries_refused_total", q.refused, "SQL requests beyond the limit of those waiting.");
    GAUGE("queries_waiting", q.waiting, "SQL requests that wait for a worker.");
    GAUGE("queries_running", q.running, "SQL requests that compute.");
    GAUGE("queries_blocked", q.blocked, "SQL requests that wait for a commit or a reader.");
    GAUGE("query_threads", q.threads, "SQL worker threads.");
}

static void add_auth(const struct broker_node *node, struct chr_buf *out)
{
    struct auth_stats a;
    authority_stats(node->authority, &a);
    COUNTER("logins_total", a.logins, "Logins by password, token or SCRAM that succeeded.");
    COUNTER("logins_failed_total", a.failures, "Logins that failed.");
    COUNTER("logins_backoff_total", a.backoffs, "Logins not looked at, after too many failures.");
    COUNTER("logins_busy_total", a.refused_busy, "Logins refused because too many waited.");
    GAUGE("logins_waiting", a.waiting, "Logins that wait for their password to be verified.");
    COUNTER("denials_total", a.denials, "Operations that roles, ACLs or grants denied.");
    COUNTER("denials_unlogged_total", a.denials_unlogged,
            "Of them, those without a line in the log.");
}

/* ---- The process ------------------------------------------------------------------------------
 */

/* "RssAnon:      3724 kB" of /proc/self/status, in bytes. */
static uint64_t status_bytes(const char *status, const char *key)
{
    const char *line = strstr(status, key);
    uint64_t kib = 0;
    return line && sscanf(line + strlen(key), ": %" SCNu64 " kB", &kib) == 1 ? kib * 1024 : 0;
}

static uint64_t count_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint64_t count = 0;
    for (const struct dirent *e; dir && (e = readdir(dir));)
        count += e->d_name[0] != '.';
    if (dir)
        closedir(dir);
    return count ? count - 1 : 0; /* less the one that looked */
}

static void add_process(const struct broker_node *node, struct chr_buf *out)
{
    char status[8192] = {0};
    FILE *file = fopen("/proc/self/status", "re");
    if (file) {
        (void)!fread(status, 1, sizeof status - 1, file);
        fclose(file);
    }
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    struct rlimit limit = {0};
    getrlimit(RLIMIT_NOFILE, &limit);
    number(out, "counter", "process_cpu_seconds_total", cpu_s, "User and system time.");
    integer(out, "gauge", "process_resident_memory_bytes", status_bytes(status, "VmRSS"),
            "Resident memory, mapped files included.");
    integer(out, "gauge", "process_virtual_memory_bytes", status_bytes(status, "VmSize"),
            "Address space.");
    GAUGE("process_anonymous_memory_bytes", status_bytes(status, "RssAnon"),
          "Resident memory of its own (RssAnon).");
    integer(out, "gauge", "process_open_fds", count_descriptors(), "Open descriptors.");
    integer(out, "gauge", "process_max_fds", (uint64_t)limit.rlim_cur, "Their limit.");
    number(out, "gauge", "process_start_time_seconds", (double)node->started_wall_us / 1e6,
           "Start, in seconds since 1970.");
    SECONDS("gauge", "uptime_seconds", chr_clock_mono_us(node->clock) - node->started_mono_us,
            "Time since the start.");
}

void admin_metrics_text(const struct broker_node *node, uint64_t requests, uint64_t refused,
                        uint32_t connections, struct chr_buf *out)
{
    head(out, "chronos_build_info", "gauge", "The version.");
    chr_buf_addf(out, "chronos_build_info{version=\"%s\"} 1\n", CHRONOS_VERSION);
    add_listeners(node, out);
    add_loops(node, out);
    add_limits(node, out);
    add_ends(node, out);
    add_log(node, out);
    add_db(node, out);
    add_durable(node, out);
    add_queries(node, out);
    add_auth(node, out);
    COUNTER("http_requests_total", requests, "Requests to the admin port.");
    COUNTER("http_refused_total", refused, "Requests refused before their body was read.");
    GAUGE("http_connections", connections, "Connections to the admin port.");
    add_process(node, out);
}

bool admin__metrics(struct admin_request *request)
{
    struct admin *admin = request->admin;
    struct chr_buf text;
    chr_buf_init(&text, 1u << 20);
    admin_metrics_text(admin->node, admin->requests, admin->refused, admin->conns_count, &text);
    admin__reply(request, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                 chr_buf_slice(&text));
    chr_buf_free(&text);
    return true;
}
