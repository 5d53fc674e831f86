/* broker/admin/health.c: GET /health: one JSON object, 200 while the node can do its work. */
#include <inttypes.h>

#include "broker/admin/internal.h"
#include "raft/log.h"

unsigned admin_health_text(const struct broker_node *node, bool stopping, struct chr_buf *out)
{
    struct broker_committer_stats stats;
    broker_committer_stats(node->committer, &stats);
    int64_t uptime_us = chr_clock_mono_us(node->clock) - node->started_mono_us;
    /* Waiting for memory (hot_full) is backpressure and passes; a full disk takes no write. */
    const char *status = stopping          ? "stopping"
                         : stats.disk_full ? "disk_full"
                         : !stats.leader   ? "no_leader"
                                           : "ok";
    bool well = !stopping && !stats.disk_full && stats.leader;
    chr_buf_addf(out,
                 "{\"status\":\"%s\",\"role\":\"%s\",\"term\":%" PRIu64 ",\"apply_index\":%" PRIu64
                 ",\"log_index\":%" PRIu64 ",\"durable_index\":%" PRIu64
                 ",\"checkpoint_index\":%" PRIu64,
                 status, stats.leader ? "leader" : "follower", stats.term, db_apply_index(node->db),
                 raft_log_last(node->log), raft_log_durable(node->log), db_durable_index(node->db));
    chr_buf_addf(out,
                 ",\"disk_full\":%s,\"hot_full\":%s,\"uptime_s\":%.3f,\"version\":\"%s\","
                 "\"mqtt\":\"%s\"}\n",
                 stats.disk_full ? "true" : "false", stats.hot_full ? "true" : "false",
                 (double)uptime_us / 1e6, CHRONOS_VERSION, node->mqtt_address);
    return well ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
}

bool admin__health(struct admin_request *request)
{
    struct chr_buf text;
    chr_buf_init(&text, 4096);
    unsigned status = admin_health_text(request->admin->node,
                                        atomic_load(&request->admin->node->stopping), &text);
    admin__reply(request, status, "application/json", chr_buf_slice(&text));
    chr_buf_free(&text);
    return true;
}
