#include "broker/config.h"

#include <string.h>
#include <unistd.h>

void listener_config_default(struct listener_config *listener)
{
    *listener = (struct listener_config){.max_qos = 2};
}

void broker_config_default(struct broker_config *config)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    *config = (struct broker_config){
        .data_dir = "data",
        .address = "127.0.0.1:1883",
        .loops = cores > 3 ? (uint32_t)(cores / 2) : 1,
        .fsync = RAFT_FSYNC_BATCH,
        .fsync_periodic_ms = 100,
        .ack_floor = ACK_FLOOR_TABLE,
        .map_bytes = UINT64_C(1) << 40,
        .hot_limit_bytes = 64u << 20,
        .checkpoint_log_bytes = 256u << 20,
        .checkpoint_age_s = 600,
        .log_segment_bytes = 64u << 20,
        .allow_anonymous = true,
        .max_packet_size = CLUSTER_PACKET_BYTES_MAX,
        .receive_maximum = 65535,
        .topic_alias_maximum = 1024,
        .topic_aliases_sent = 64,
        .max_inflight_messages = 20,
        .max_queued_messages = 1000,
        .max_queued_bytes = 16u << 20,
        .max_queues_bytes = UINT64_C(4) << 30,
        .max_output_bytes = 32u << 20,
        .max_keepalive_s = 65535,
        .max_session_expiry_s = UINT32_MAX,
        .connect_timeout_s = 10,
        .websockets_headers_size = 4096,
        .max_retained_messages = 1000000,
        .max_retained_bytes = 256u << 20,
        .max_subscriptions_per_client = 10000,
        .default_role = DB_ROLE_DEVICE,
        .anonymous_role = DB_ROLES_END,
        .login_backoff_s = 60,
        .publish_rate_action = PUBLISH_RATE_PAUSE,
        .max_topic_levels = 200,
        .max_durable_sessions = 1000000,
        .max_queued_total = 512u << 20,
        .max_output_total = 512u << 20,
        .max_partial_bytes = 64u << 20,
        .batches_per_loop = 64,
        .batch_rows_max = 8192,
        .batch_bytes_max = 1u << 20,
        .receive_bytes_per_loop = 64u << 20,
        .query_threads = 2,
        .query_queue_max = 1000,
        .query_memory_bytes = 256u << 20,
        .query_result_part_bytes = 8u << 20,
        .log_level = CHR_LOG_INFO,
        .log_format = CHR_LOG_TEXT,
        .retain_available = true,
        .allow_zero_length_clientid = true,
        .auto_id_prefix = "auto-",
        .sys_interval_s = 10,
        .log_facility = LOG_FACILITY_DAEMON,
        .log_timestamp = true,
        .connection_messages = true,
        .listeners_count = 1,
    };
    listener_config_default(&config->listeners[0]);
    config->cluster.election_ms = 300;
    config->cluster.heartbeat_ms = 50;
    config->cluster.snapshot_rate = 64u << 20;
    config->cluster.node_timeout_ms = 10000;
    config->listeners[0].address = config->address;
}
