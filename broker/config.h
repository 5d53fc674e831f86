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
#include "db/catalog.h"
#include "db/grant.h"
#include "raft/log.h"

/* What clients are told while the node is drained: 0x9C, 0x9D. */
enum redirect { REDIRECT_NONE, REDIRECT_USE_ANOTHER_SERVER, REDIRECT_SERVER_MOVED };
/* Of server_reference: it has to fit a packet that every client takes. */
#define SERVER_REFERENCE_BYTES_MAX 255

enum listener_protocol { LISTENER_MQTT, LISTENER_WEBSOCKETS };
enum listener_domain { LISTENER_ANY_DOMAIN, LISTENER_IPV4, LISTENER_IPV6 };
enum listener_anonymous {
    LISTENER_ANONYMOUS_AS_NODE,
    LISTENER_ANONYMOUS_NO,
    LISTENER_ANONYMOUS_YES
};
enum listener_tls_version { LISTENER_TLS_1_2, LISTENER_TLS_1_3 };

enum log_dest {
    LOG_DEST_STDERR = 1,
    LOG_DEST_STDOUT = 2,
    LOG_DEST_SYSLOG = 4,
    LOG_DEST_FILE = 8,
    LOG_DEST_NONE = 16,
};
#define LOG_FACILITY_DAEMON 8
#define LOG_TYPES_ALL       0x1fu
#define LOG_TYPES_NONE      (1u << 31) /* alone: no line at all */
#define AUTO_ID_PREFIX_MAX  64         /* bytes */

#define LISTENERS_MAX 32

/* Where clients come in, and what holds for those that do. It speaks TLS when it has a certificate.
 * 0 in a limit: the node's own holds. */
struct listener_config {
    const char *address;   /* HOST:PORT, "[::1]:1883", ":1883" (all addresses); NULL: unix_path */
    uint16_t port_before;  /* where address says port 0: the one to have again if it is free, after
                              a start within the process; 0: any */
    const char *unix_path; /* NULL: address */
    const char *place;     /* "chronos.conf:3: ", for messages; NULL: not from a file */
    enum listener_protocol protocol;
    enum listener_domain domain;
    const char *bind_interface; /* NULL: any */
    uint32_t unix_mode;         /* permissions of the socket; 0: what the umask leaves */

    /* TLS; paths, NULL: none */
    const char *certfile, *keyfile; /* both or neither; PEM, the chain in certfile */
    const char *cafile, *capath;    /* whose client certificates are taken */
    const char *crlfile;
    enum listener_tls_version tls_version; /* the lowest */
    const char *ciphers, *ciphersuites;    /* of TLS 1.2, of TLS 1.3; NULL: OpenSSL's */
    bool require_certificate;
    bool use_identity_as_username; /* the certificate's CN is the user name */
    bool use_subject_as_username;  /* its whole subject is, as RFC 2253 writes it */

    enum listener_anonymous allow_anonymous;
    uint32_t max_connections;
    uint32_t max_packet_size;
    uint8_t max_qos; /* 0 to 2; 2 */
    bool max_topic_alias_set;
    uint16_t max_topic_alias;      /* when set */
    bool proxy_protocol;           /* each connection begins with a PROXY header, v1 or v2 */
    const char *websockets_origin; /* the only Origin taken; "*": any; NULL: docs/deployment.md */
};

void listener_config_default(struct listener_config *listener);

#define ACK_FLOOR_TABLE 3u /* no enum db_ack_class */
_Static_assert(ACK_FLOOR_TABLE >= DB_ACK_CLASSES, "told apart from a class");

/* A user whose role is not the default one. */
struct auth_role_setting {
    const char *name;
    enum db_role role;
    const struct auth_role_setting *next; /* NULL: the last */
};

/* Which message goes when a session's queue is full. */
enum queue_drop { QUEUE_DROP_NEWEST, QUEUE_DROP_OLDEST };

/* What a publisher beyond its rate meets. */
enum publish_rate_action {
    PUBLISH_RATE_PAUSE,      /* its socket is not read for a while */
    PUBLISH_RATE_DISCONNECT, /* 0x96 */
};

/* The largest packet that a member of a cluster takes from a client: what it publishes goes to the
 * other members as one message (broker/session/across.h). */
#define CLUSTER_PACKET_BYTES_MAX ((8u << 20) + (64u << 10))

/* A member of a cluster of several. */
struct cluster_config {
    const char *id;    /* NULL: a single node */
    const char *peers; /* "node2=127.0.0.1:8001,…"; NULL: none */
    const char *secret;
    const char *cafile, *certfile, *keyfile; /* peers are reached over TLS; NULL: plain */
    bool bootstrap;
    bool force_new;                     /* a survivor goes on alone (commands/force.h) */
    uint32_t election_ms, heartbeat_ms; /* 300 (to twice that), 50 */
    uint64_t snapshot_rate;             /* bytes per second to a node that needs one; 64 MiB */
    uint32_t node_timeout_ms;           /* 10,000; one not heard of for so long is declared down */
};

struct broker_config {
    struct cluster_config cluster;
    /* Where. Strings are zero-terminated and live as long as the node. */
    const char *data_dir;
    const char *address; /* of the first listener with a port; port 0: any free one */
    struct listener_config listeners[LISTENERS_MAX];
    uint32_t listeners_count;  /* > 0 */
    const char *admin_address; /* NULL: MQTT port + 1000 (or any free one when port is 0) */
    bool enable_ingest;        /* POST /ingest */
    uint32_t loops;            /* event loops; default max(1, cores / 2) */

    /* Durability */
    enum raft_fsync fsync;
    uint32_t fsync_periodic_ms;    /* 100 */
    unsigned ack_floor;            /* enum db_ack_class no publish is acknowledged below;
                                 ACK_FLOOR_TABLE: its tables' own */
    uint64_t map_bytes;            /* LMDB address space; 1 TiB */
    uint64_t hot_limit_bytes;      /* 64 MiB */
    uint64_t checkpoint_log_bytes; /* 256 MiB */
    uint32_t checkpoint_age_s;     /* 600 */
    uint64_t log_segment_bytes;    /* 64 MiB */
    uint64_t log_retain_bytes;     /* kept beyond what a restart needs; 0 */

    /* MQTT limits */
    bool allow_anonymous;             /* unset: on loopback, when there are no users */
    uint32_t max_connections;         /* 0: what the descriptor limit allows */
    uint32_t max_packet_size;         /* bytes of a packet we accept; 8 MiB + 64 KiB, in a
                                         cluster at most */
    uint16_t receive_maximum;         /* QoS 1 and 2 publishes in flight from one client; 65535 */
    uint16_t topic_alias_maximum;     /* 1024 */
    uint16_t topic_aliases_sent;      /* towards a client that takes as many; 64; 0: none */
    uint16_t max_inflight_messages;   /* towards a 3.1.1 client; 20 as Mosquitto's, 0: no limit */
    uint32_t max_queued_messages;     /* per session, beyond those in flight; 1000; 0: no limit */
    uint64_t max_queued_bytes;        /* per session; 16 MiB */
    uint64_t max_queues_bytes;        /* of all sessions in the log together; 4 GiB; 0: no limit */
    enum queue_drop queue_drop;       /* at a limit; newest */
    uint64_t max_output_bytes;        /* unsent bytes towards one socket; 32 MiB */
    uint16_t max_keepalive_s;         /* 65535 */
    uint32_t max_session_expiry_s;    /* UINT32_MAX: no bound */
    uint32_t connect_timeout_s;       /* from accept to CONNECT; 10 */
    enum redirect redirect;           /* clients are sent away */
    const char *server_reference;     /* where to: "host:port", several apart by blanks; NULL */
    uint32_t websockets_headers_size; /* bytes of an upgrade request; 4096 */
    uint32_t max_retained_messages;   /* 1,000,000 */
    uint64_t max_retained_bytes;      /* 256 MiB */
    uint32_t max_subscriptions_per_client; /* 10,000 */

    /* Users (broker/auth). NULL: none. */
    const char *password_file, *acl_file;
    const char *auth_token_admin, *auth_token_readonly;
    const char *jwt_secret_file, *jwt_public_key_file, *jwt_issuer, *jwt_audience;
    const struct auth_role_setting *user_roles;
    enum db_role default_role; /* of users that user_roles does not name; device */
    unsigned anonymous_role;   /* DB_ROLES_END: device when there are users, else admin */
    uint32_t login_backoff_s;  /* the longest; 0: none; 60 */
    /* Overload: more than this of one client, or of all of them together. 0: no limit. */
    uint32_t max_publish_rate;  /* messages per second of one client; 0 */
    uint64_t max_publish_bytes; /* bytes of PUBLISH packets per second of one client; 0 */
    enum publish_rate_action publish_rate_action;
    uint32_t message_size_limit;   /* payload of a PUBLISH; 0 */
    uint16_t max_topic_levels;     /* of topics and filters; 200 */
    uint32_t max_durable_sessions; /* that outlive their connection; 1,000,000 */
    uint64_t max_queued_total;     /* bytes waiting in the queues of all sessions; 512 MiB */
    uint64_t max_output_total;     /* unsent bytes towards all sockets; beyond it each gets a fair
                                      share; 512 MiB */
    uint64_t max_partial_bytes;    /* packets that have not arrived whole; 64 MiB */

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

    /* What Mosquitto's options of the same names say */
    bool retain_available;
    bool allow_zero_length_clientid;
    const char *auto_id_prefix;    /* of the client ids we make; "auto-" */
    const char *clientid_prefixes; /* only client ids that begin so are taken; NULL: all */
    uint32_t sys_interval_s;       /* between refreshes of $SYS; 10; 0: none */

    /* Logs */
    enum chr_log_level log_level;
    enum chr_log_format log_format;
    uint32_t log_types;               /* bits 1 << level; 0: log_level decides */
    uint32_t log_dests;               /* bits of enum log_dest; 0: LOG_DEST_STDERR */
    const char *log_file;             /* of LOG_DEST_FILE */
    uint16_t log_facility;            /* 0 to 7: local0 to local7; LOG_FACILITY_DAEMON */
    bool log_timestamp;               /* of text lines */
    const char *log_timestamp_format; /* strftime's, local time; NULL: ISO 8601 in UTC */
    bool connection_messages;         /* lines about clients that come and go */

    /* The process */
    const char *pid_file; /* NULL: none */
    const char *user;     /* root becomes this user; NULL: stays */
};

void broker_config_default(struct broker_config *config);

#endif
