/* broker/admin/health.c: GET /health: one JSON object, 200 while the node can do its work. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "broker/admin/internal.h"
#include "broker/checkpointer.h"
#include "broker/cluster.h"
#include "raft/log.h"
#include "raft/raft.h"

static const char *role_name(const struct broker_cluster_status *s)
{
    if (s->role == RAFT_LEADER)
        return "leader";
    return s->role == RAFT_FOLLOWER ? "follower" : "candidate";
}

/* Waiting for memory (hot_full) is backpressure and passes; a full disk takes no write. */
static const char *status_word(const struct broker_node *node,
                               const struct broker_committer_stats *stats,
                               const struct broker_cluster_status *cluster, bool stopping)
{
    if (stopping)
        return "stopping";
    if (stats->disk_full)
        return "disk_full";
    if (stats->disk_hangs)
        return "disk_hangs";
    if (atomic_load(&node->restart_wanted))
        return "restarting"; /* on a snapshot that has come */
    enum roster_place place = node->cluster ? cluster_place(node->cluster) : ROSTER_VOTER;
    if (place == ROSTER_REMOVED)
        return "removed";
    if (place == ROSTER_OUTSIDE)
        return "no_member";
    return cluster->quorum ? "ok" : "no_leader";
}

static const char *const memberships[] = {[ROSTER_OUTSIDE] = "none",
                                          [ROSTER_LEARNER] = "learner",
                                          [ROSTER_VOTER] = "voter",
                                          [ROSTER_REMOVED] = "removed"};

/* Only while there is one. */
static void add_snapshot(struct cluster *cluster, struct chr_buf *out)
{
    struct snapshots_stats s;
    char to[80];
    cluster_snapshots_stats(cluster, &s);
    if (s.sending_to) {
        cluster_name(cluster, s.sending_to, to);
        chr_buf_addf(
            out, ",\"snapshot_sending\":{\"to\":\"%s\",\"part\":%" PRIu64 ",\"parts\":%" PRIu64 "}",
            to, s.sending_part, s.sending_parts);
    }
    if (s.receiving_parts && s.receiving_part < s.receiving_parts)
        chr_buf_addf(out, ",\"snapshot_receiving\":{\"part\":%" PRIu64 ",\"parts\":%" PRIu64 "}",
                     s.receiving_part, s.receiving_parts);
}

static void add_cluster(struct cluster *cluster, struct chr_buf *out)
{
    struct cluster_member *members = calloc(CLUSTER_MEMBERS_MAX, sizeof *members);
    struct broker_cluster_status status;
    if (!members)
        return;
    uint32_t count = cluster_members(cluster, members, &status);
    char leader[80] = "";
    if (status.leader)
        cluster_name(cluster, status.leader, leader);
    chr_buf_addf(
        out,
        ",\"node\":\"%s\",\"cluster\":\"%016" PRIx64
        "\",\"membership\":\"%s\",\"leader\":\"%s\",\"quorum\":%s,"
        "\"change_pending\":%s,\"catching_up\":%s,\"format\":%" PRIu32 ",\"commit_index\":%" PRIu64
        ",\"lag\":%" PRIu64,
        members[0].name, members[0].cluster, memberships[cluster_place(cluster)], leader,
        status.quorum ? "true" : "false", status.change_pending ? "true" : "false",
        status.catching_up ? "true" : "false", cluster_format(cluster), status.commit_index,
        status.commit_index > status.apply_index ? status.commit_index - status.apply_index : 0);
    add_snapshot(cluster, out);
    chr_buf_add_slice(out, CHR_LIT(",\"peers\":["));
    for (uint32_t i = 1; i < count; i++) {
        const struct cluster_member *m = &members[i];
        chr_buf_addf(out, "%s{\"node\":\"%s\",\"up\":%s,\"member\":%s,\"voter\":%s",
                     i > 1 ? "," : "", m->name, m->up ? "true" : "false",
                     m->member ? "true" : "false", m->voter ? "true" : "false");
        if (m->lag != UINT64_MAX)
            chr_buf_addf(out, ",\"lag\":%" PRIu64, m->lag);
        if (m->skew_us != INT64_MIN)
            chr_buf_addf(out, ",\"skew_ms\":%" PRId64, m->skew_us / 1000);
        chr_buf_add_slice(out, CHR_LIT("}"));
    }
    chr_buf_add_slice(out, CHR_LIT("]"));
    free(members);
}

unsigned admin_health_text(const struct broker_node *node, bool stopping, struct chr_buf *out)
{
    struct broker_committer_stats stats;
    struct broker_cluster_status cluster;
    broker_committer_stats(node->committer, &stats);
    broker_committer_status(node->committer, &cluster);
    int64_t uptime_us = chr_clock_mono_us(node->clock) - node->started_mono_us;
    const char *status = status_word(node, &stats, &cluster, stopping);
    chr_buf_addf(out,
                 "{\"status\":\"%s\",\"role\":\"%s\",\"term\":%" PRIu64 ",\"apply_index\":%" PRIu64
                 ",\"log_first\":%" PRIu64 ",\"log_index\":%" PRIu64 ",\"durable_index\":%" PRIu64
                 ",\"checkpoint_index\":%" PRIu64,
                 status, role_name(&cluster), stats.term, db_apply_index(node->db),
                 raft_log_first(node->log), raft_log_last(node->log), raft_log_durable(node->log),
                 db_durable_index(node->db));
    if (node->cluster)
        add_cluster(node->cluster, out);
    struct checkpointer_stats checkpoints;
    checkpointer_stats(atomic_load(&node->checkpointer), &checkpoints);
    chr_buf_addf(out,
                 ",\"disk_full\":%s,\"checkpoint_no_room\":%s,\"hot_full\":%s,\"uptime_s\":%.3f,"
                 "\"version\":\"%s\",\"mqtt\":\"%s\"}\n",
                 stats.disk_full ? "true" : "false", checkpoints.no_room ? "true" : "false",
                 stats.hot_full ? "true" : "false", (double)uptime_us / 1e6, CHRONOS_VERSION,
                 node->mqtt_address);
    return strcmp(status, "ok") == 0 ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
}

bool admin__health(struct admin_request *request)
{
    struct chr_buf text;
    chr_buf_init(&text, 65536);
    unsigned status = admin_health_text(request->admin->node,
                                        atomic_load(&request->admin->node->stopping), &text);
    admin__reply(request, status, "application/json", chr_buf_slice(&text));
    chr_buf_free(&text);
    return true;
}
