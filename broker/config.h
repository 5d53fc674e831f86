/* broker/config.h: every setting of a node in one place, its limits among them.
 *
 * Filled at start and for each reload (defaults, then file, environment, flags: broker/options.c),
 * then read-only and shared by all threads (reload.h). The sum of the memory limits is logged at
 * start. */
#ifndef CHR_BROKER_CONFIG_H
#define CHR_BROKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "raft/log.h"

struct broker_config {
    /* Where. Strings are zero-terminated and live as long as the node. */
    const char *data_dir;
    const char *address;       /* HOST:PORT of the MQTT listener; port 0: any free one */
    const char *admin_address; /* NULL: MQTT port + 1000 (or any free one when port is 0) */
    bool enable_ingest;        /* POST /ingest */
    uint32_t loops;            /* event loops; default max(1, cores / 2) */

    /* Durability */
    enum raft_fsync fsync;
    uint32_t fsync_periodic_ms;    /* 100 */
    uint64_t map_bytes;            /* LMDB address space; 1 TiB */
    uint64_t hot_limit_bytes;      /* 64 MiB */
    uint64_t checkpoint_log_bytes; /* 256 MiB */
    uint32_t checkpoint_age_s;     /* 600 */
    uint64_t log_segment_bytes;    /* 64 MiB */
    uint64_t log_retain_bytes;     /* kept beyond what a restart needs; 0 */

    /* MQTT limits */
    bool allow_anonymous;           /* true on loopback until listeners know users */
    uint32_t max_connections;       /* 0: what the descriptor limit allows */
    uint32_t max_packet_size;       /* bytes of a packet we accept; 8 MiB + 64 KiB */
    uint16_t receive_maximum;       /* QoS 1 and 2 publishes in flight from one client; 65535 */
    uint16_t topic_alias_maximum;   /* 1024 */
    uint16_t max_inflight_messages; /* towards a 3.1.1 client; 20 as Mosquitto's, 0: no limit */
    uint32_t max_queued_messages;   /* per session, beyond those in flight; 1000; 0: no limit */
    uint64_t max_queued_bytes;      /* per session; 16 MiB */
    uint64_t max_output_bytes;      /* unsent bytes towards one socket; 32 MiB */
    uint16_t max_keepalive_s;       /* 65535 */
    uint32_t max_session_expiry_s;  /* UINT32_MAX: no bound */
    uint32_t connect_timeout_s;     /* from accept to CONNECT; 10 */
    uint32_t max_retained_messages; /* 1,000,000 */
    uint64_t max_retained_bytes;    /* 256 MiB */
    uint32_t max_subscriptions_per_client; /* 10,000 */

    /* Batches: what is on its way between a loop and its answer is bounded by their number. */
    uint32_t batches_per_loop;       /* 64 */
    uint32_t batch_rows_max;         /* 8,192 */
    uint32_t batch_bytes_max;        /* 1 MiB */
    uint64_t receive_bytes_per_loop; /* receive slabs held by batches; 64 MiB */

    /* SQL */
    uint32_t query_threads;           /* default 2 */
    uint32_t query_queue_max;         /* waiting requests; 1,000 */
    uint64_t query_memory_bytes;      /* per query; 256 MiB */
    uint32_t query_timeout_ms;        /* 0: none */
    uint64_t query_result_part_bytes; /* 8 MiB (design 2.2) */

    /* Logs */
    enum chr_log_level log_level;
    enum chr_log_format log_format;
};

void broker_config_default(struct broker_config *config);

#endif
