#include "broker/commands/settings.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "base/num.h"
#include "base/utf8.h"
#include "broker/commands/listener_settings.h"
#include "broker/net/acceptor.h"

/* A batch is one entry, at most RAFT_ENTRY_BYTES_MAX; the rest is for what goes in beside rows. */
#define BATCH_BYTES_MAX (3u << 20)
/* Remaining length of an MQTT packet [MQTT-2.1.4]. */
#define PACKET_BYTES_MAX 268435455u
/* A bucket of it, in millionths, still is a 64-bit number. */
#define PUBLISH_BYTES_MAX (UINT64_C(1) << 40)
/* Address space that four-level page tables give a process, less what else lives in it. */
#define MAP_BYTES_MAX (UINT64_C(64) << 40)

static const struct option_choice fsync_modes[] = {
    {"batch", RAFT_FSYNC_BATCH},
    {"every", RAFT_FSYNC_EVERY},
    {"periodic", RAFT_FSYNC_PERIODIC},
    {NULL, 0},
};
static const struct option_choice redirects[] = {
    {"off", REDIRECT_NONE},
    {"use-another-server", REDIRECT_USE_ANOTHER_SERVER},
    {"server-moved", REDIRECT_SERVER_MOVED},
    {NULL, 0},
};
static const struct option_choice ack_floors[] = {
    {"table", ACK_FLOOR_TABLE},
    {"quorum", DB_ACK_QUORUM},
    {"local", DB_ACK_LOCAL},
    {"memory", DB_ACK_MEMORY},
    {NULL, 0},
};
static const struct option_choice queue_drops[] = {
    {"newest", QUEUE_DROP_NEWEST},
    {"oldest", QUEUE_DROP_OLDEST},
    {NULL, 0},
};
static const struct option_choice publish_rate_actions[] = {
    {"pause", PUBLISH_RATE_PAUSE},
    {"disconnect", PUBLISH_RATE_DISCONNECT},
    {NULL, 0},
};
static const struct option_choice log_levels[] = {
    {"error", CHR_LOG_ERROR}, {"warning", CHR_LOG_WARNING}, {"notice", CHR_LOG_NOTICE},
    {"info", CHR_LOG_INFO},   {"debug", CHR_LOG_DEBUG},     {NULL, 0},
};
static const struct option_choice log_formats[] = {
    {"text", CHR_LOG_TEXT},
    {"json", CHR_LOG_JSON},
    {NULL, 0},
};

static const struct option_choice only_false[] = {{"false", 0}, {NULL, 0}};
static const struct option_choice only_zero[] = {{"0", 0}, {NULL, 0}};
static const struct option_choice only_pem[] = {{"pem", 0}, {NULL, 0}};

static chr_err check_address(const char *value, struct chr_errmsg *msg)
{
    char host[256];
    uint16_t port;
    return net_parse_address(value, host, sizeof host, &port, msg);
}

static chr_err set_address(struct options *options, void *target, const char *value,
                           struct chr_errmsg *msg)
{
    (void)options;
    chr_err err = check_address(value, msg);
    struct broker_config *config = &((struct settings *)target)->config;
    if (!err)
        config->address = config->listeners[0].address = value;
    return err;
}

static chr_err set_admin_address(struct options *options, void *target, const char *value,
                                 struct chr_errmsg *msg)
{
    (void)options;
    chr_err err = check_address(value, msg);
    if (!err)
        ((struct settings *)target)->config.admin_address = value;
    return err;
}

static chr_err set_server_reference(struct options *options, void *target, const char *value,
                                    struct chr_errmsg *msg)
{
    (void)options;
    size_t len = strlen(value);
    if (len == 0 || len > SERVER_REFERENCE_BYTES_MAX)
        return chr_fail(msg, CHR_EINVAL, "has to have 1 to %d bytes", SERVER_REFERENCE_BYTES_MAX);
    if (!chr_utf8_valid_mqtt(chr_slice_of(value, len)))
        return chr_fail(msg, CHR_EINVAL, "is not UTF-8");
    ((struct settings *)target)->config.server_reference = value;
    return CHR_OK;
}

static chr_err set_max_connections(struct options *options, void *target, const char *value,
                                   struct chr_errmsg *msg)
{
    (void)options;
    return listener_max_connections(value, &((struct settings *)target)->config.max_connections,
                                    msg);
}

static const struct option_choice roles[] = {
    {"admin", DB_ROLE_ADMIN},
    {"readwrite", DB_ROLE_READWRITE},
    {"readonly", DB_ROLE_READONLY},
    {"device", DB_ROLE_DEVICE},
    {NULL, 0},
};

/* NAME ROLE; a name may have spaces, the role is the last word. */
static chr_err set_user_role(struct options *options, void *target, const char *value,
                             struct chr_errmsg *msg)
{
    struct broker_config *config = &((struct settings *)target)->config;
    const char *role_word = strrchr(value, ' ');
    const char *tab = strrchr(value, '\t');
    role_word = tab && (!role_word || tab > role_word) ? tab : role_word;
    struct auth_role_setting *setting = CHR_ARENA_NEW(&options->arena, struct auth_role_setting);
    size_t len = role_word ? (size_t)(role_word - value) : 0;
    while (len && strchr(" \t", value[len - 1]))
        len--;
    char *name = chr_arena_cstr(&options->arena, chr_slice_of(value, len));
    if (!setting || !name)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    if (!len)
        return chr_fail(msg, CHR_EINVAL, "\"%s\": write NAME ROLE", value);
    if (!db_role_parse(chr_slice_cstr(role_word + 1), &setting->role))
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is not admin, readwrite, readonly or device",
                        role_word + 1);
    /* The last of several wins: flags over files. */
    *setting =
        (struct auth_role_setting){.name = name, .role = setting->role, .next = config->user_roles};
    config->user_roles = setting;
    return CHR_OK;
}

static chr_err set_auto_id_prefix(struct options *options, void *target, const char *value,
                                  struct chr_errmsg *msg)
{
    (void)options;
    if (strlen(value) > AUTO_ID_PREFIX_MAX || !chr_utf8_valid(chr_slice_cstr(value)))
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is longer than %d bytes or not UTF-8", value,
                        AUTO_ID_PREFIX_MAX);
    ((struct settings *)target)->config.auto_id_prefix = value;
    return CHR_OK;
}

/* mosquitto.conf(5): "an integer followed by one of h d w m y". */
static chr_err set_client_expiration(struct options *options, void *target, const char *value,
                                     struct chr_errmsg *msg)
{
    (void)options;
    static const struct {
        char unit;
        uint32_t seconds;
    } units[] = {
        {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}, {'m', 30 * 86400}, {'y', 365 * 86400}};
    int64_t number = 0;
    size_t len = strlen(value);
    for (size_t i = 0; len > 1 && i < CHR_COUNT_OF(units); i++) {
        if (value[len - 1] != units[i].unit ||
            chr_parse_i64(chr_slice_of(value, len - 1), &number) != (int)(len - 1) || number < 1 ||
            number >= UINT32_MAX / units[i].seconds)
            continue;
        ((struct settings *)target)->config.max_session_expiry_s =
            (uint32_t)number * units[i].seconds;
        return CHR_OK;
    }
    return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a number with h, d, w, m or y", value);
}

static chr_err set_log_dest(struct options *options, void *target, const char *value,
                            struct chr_errmsg *msg)
{
    (void)options;
    struct broker_config *config = &((struct settings *)target)->config;
    static const struct option_choice dests[] = {
        {"stderr", LOG_DEST_STDERR},
        {"stdout", LOG_DEST_STDOUT},
        {"syslog", LOG_DEST_SYSLOG},
        {"none", LOG_DEST_NONE},
        {NULL, 0},
    };
    if (!strncmp(value, "file ", 5)) {
        const char *path = value + 5 + strspn(value + 5, " \t");
        if (!*path)
            return chr_fail(msg, CHR_EINVAL, "\"%s\": write `file PATH`", value);
        if (config->log_file)
            return chr_fail(msg, CHR_EINVAL, "there is one file already: %s", config->log_file);
        config->log_file = path;
        config->log_dests |= LOG_DEST_FILE;
        return CHR_OK;
    }
    for (const struct option_choice *d = dests; d->word; d++) {
        if (!strcmp(d->word, value)) {
            config->log_dests |= d->value;
            return CHR_OK;
        }
    }
    if (!strcmp(value, "topic") || !strcmp(value, "dlt"))
        return chr_fail(msg, CHR_EINVAL,
                        "lines don't go to %s here; use stderr, stdout, syslog or a file", value);
    return chr_fail(msg, CHR_EINVAL, "\"%s\" is not stderr, stdout, syslog, `file PATH` or none",
                    value);
}

static chr_err set_log_type(struct options *options, void *target, const char *value,
                            struct chr_errmsg *msg)
{
    (void)options;
    struct broker_config *config = &((struct settings *)target)->config;
    /* Subscriptions are lines of level debug here, WebSocket's are among the others. */
    static const struct option_choice types[] = {
        {"error", 1u << CHR_LOG_ERROR},   {"warning", 1u << CHR_LOG_WARNING},
        {"notice", 1u << CHR_LOG_NOTICE}, {"information", 1u << CHR_LOG_INFO},
        {"info", 1u << CHR_LOG_INFO},     {"debug", 1u << CHR_LOG_DEBUG},
        {"all", LOG_TYPES_ALL},           {"none", LOG_TYPES_NONE},
        {"subscribe", LOG_TYPES_NONE},    {"unsubscribe", LOG_TYPES_NONE},
        {"websockets", LOG_TYPES_NONE},   {NULL, 0},
    };
    for (const struct option_choice *t = types; t->word; t++) {
        if (!strcmp(t->word, value)) {
            config->log_types |= t->value;
            return CHR_OK;
        }
    }
    return chr_fail(msg, CHR_EINVAL,
                    "\"%s\" is not error, warning, notice, information, debug, subscribe, "
                    "unsubscribe, websockets, all or none",
                    value);
}

/* port and bind_address are another way to say address. */
static chr_err finish_address(struct settings *settings, struct chr_errmsg *msg)
{
    struct options *options = &settings->options;
    if (!settings->port && !settings->bind_address)
        return CHR_OK;
    if (options_source(options, "address") != OPTION_UNSET)
        return chr_fail(msg, CHR_EINVAL,
                        "port and bind_address go without address, which says both");
    const char *host = settings->bind_address ? settings->bind_address : "";
    bool bare_ipv6 = strchr(host, ':') && host[0] != '[';
    const char *address = chr_arena_printf(&options->arena, bare_ipv6 ? "[%s]:%u" : "%s:%u", host,
                                           settings->port ? settings->port : 1883);
    if (!address)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    chr_err err = check_address(address, msg);
    settings->config.address = settings->config.listeners[0].address = address;
    options->section.default_set = true;
    return err;
}

static chr_err set_help(struct options *options, void *target, const char *value,
                        struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct settings *)target)->help = true;
    return CHR_OK;
}

static chr_err set_test_config(struct options *options, void *target, const char *value,
                               struct chr_errmsg *msg)
{
    (void)options, (void)value, (void)msg;
    ((struct settings *)target)->test_config = true;
    return CHR_OK;
}

#define AT(field)  .offset = offsetof(struct settings, field)
#define CFG(field) .offset = offsetof(struct settings, config.field)
/* May change while the node runs (reload.h). */
#define RELOAD .reload = true
#define HEADING(title)                                                                             \
    {                                                                                              \
        .kind = OPTION_HEADING, .name = "", .help = (title)                                        \
    }
#define LATER(key, why)                                                                            \
    {                                                                                              \
        .kind = OPTION_LATER, .name = (key), .help = (why)                                         \
    }
#define NO_MEANING(key, why)                                                                       \
    {                                                                                              \
        .kind = OPTION_NO_MEANING, .name = (key), .value = "VALUE", .help = (why)                  \
    }
#define ONLY(key, words, why)                                                                      \
    {                                                                                              \
        .kind = OPTION_ONLY, .name = (key), .value = "VALUE", .choices = (words), .help = (why)    \
    }

/* clang-format off: a table, one setting a line or two */
static const struct option table[] = {
    HEADING("Where"),
    {OPTION_TEXT, "data-dir", "persistence-location", 0, false, CFG(data_dir), 0, 0, NULL, NULL,
     "DIR", "data directory, made when absent"},
    {OPTION_CUSTOM, "address", NULL, 0, false, CFG(address), 0, 0, NULL, set_address, "HOST:PORT",
     "MQTT listener; port 0: any free one (127.0.0.1:1883)", .field = OPTION_TEXT},
    {OPTION_SECTION, "listener", NULL, 0, false, CFG(listeners), 0, 0, NULL, listener_open,
     "PORT [ADDR]",
     "one more, without ADDR on all addresses, `0 /path` on a Unix socket; the keys after it, see "
     "Listeners, are its own; with it --address has no default"},
    {OPTION_CUSTOM, "admin-address", NULL, 0, false, CFG(admin_address), 0, 0, NULL,
     set_admin_address, "HOST:PORT",
     "HTTP: /health, /metrics, /query (127.0.0.1, MQTT port + 1000)", .field = OPTION_TEXT},
    {OPTION_BOOL, "enable-ingest", NULL, 0, false, CFG(enable_ingest), 0, 0, NULL, NULL, NULL,
     "POST /ingest on the admin port", RELOAD},
    {OPTION_U32, "loops", NULL, 0, false, CFG(loops), 1, 256, NULL, NULL, "N", "event loops",
     .standard = "half of the cores, at least 1"},
    {OPTION_TEXT, "config", NULL, 'c', true, AT(config_file), 0, 0, NULL, NULL, "FILE",
     "settings, one `key value` a line; flags win over CHRONOS_<KEY> in the environment, that over "
     "the file"},
    {OPTION_INCLUDE, "include-dir", NULL, 0, OPTION_ANYWHERE, .value = "DIR",
     .help = "in a file: read every *.conf of a directory here, in their order of bytes"},
    {OPTION_TEXT, "pid-file", NULL, 0, false, CFG(pid_file), 0, 0, NULL, NULL, "FILE",
     "written at start, removed at stop"},
    {OPTION_TEXT, "user", NULL, 0, false, CFG(user), 0, 0, NULL, NULL, "NAME",
     "what root becomes before it opens anything; others stay who they are"},
    {OPTION_CUSTOM_FLAG, "test-config", NULL, 0, true, AT(test_config), 0, 0, NULL, set_test_config,
     NULL, "check the settings and exit"},
    {OPTION_CUSTOM_FLAG, "help", NULL, 0, true, AT(help), 0, 0, NULL, set_help, NULL, "this text"},

    HEADING("Durability and storage"),
    {OPTION_CHOICE, "fsync", NULL, 0, false, CFG(fsync), 0, 0, fsync_modes, NULL, "MODE",
     "batch: answered after the fsync of its group; every: one fsync per entry; periodic: answered "
     "before"},
    {OPTION_MS32, "fsync-interval", NULL, 0, false, CFG(fsync_periodic_ms), 1, 60000, NULL, NULL,
     "DURATION", "of --fsync periodic"},
    {OPTION_CHOICE, "ack-floor", NULL, 0, false, CFG(ack_floor), 0, 0, ack_floors, NULL, "CLASS",
     "quorum, local or memory: weakest durability class a publish may ask for by its user property "
     "ack, whatever its table says; table: the table's own"},
    {OPTION_BYTES64, "hot-limit", NULL, 0, false, CFG(hot_limit_bytes), 1u << 20, UINT64_C(1) << 40,
     NULL, NULL, "BYTES", "rows in memory that are not yet in chunks; writers wait beyond"},
    {OPTION_BYTES64, "checkpoint-log-bytes", NULL, 0, false, CFG(checkpoint_log_bytes), 1u << 20, 0,
     NULL, NULL, "BYTES", "checkpoint when the log has grown by this"},
    {OPTION_SECONDS32, "checkpoint-age", NULL, 0, false, CFG(checkpoint_age_s), 1, 0, NULL, NULL,
     "DURATION", "checkpoint at least this often"},
    {OPTION_BYTES64, "log-segment-bytes", NULL, 0, false, CFG(log_segment_bytes), 1u << 16,
     1u << 30, NULL, NULL, "BYTES", "size of a log file"},
    {OPTION_BYTES64, "log-retain-bytes", NULL, 0, false, CFG(log_retain_bytes), 0, 0, NULL, NULL,
     "BYTES", "log kept beyond what a restart needs"},
    {OPTION_BYTES64, "map-size", NULL, 0, false, CFG(map_bytes), 16u << 20, MAP_BYTES_MAX, NULL,
     NULL, "BYTES", "address space of the database file, its largest size"},

    HEADING("MQTT"),
    {OPTION_BOOL, "allow-anonymous", NULL, 0, false, CFG(allow_anonymous), 0, 0, NULL, NULL, NULL,
     "clients without credentials (true on loopback addresses as long as there are no users)",
     RELOAD},
    {OPTION_CUSTOM, "per-listener-settings", NULL, 0, false, AT(per_listener_settings), 0, 0, NULL,
     listener_set_per_listener, "BOOL",
     "allow-anonymous in a listener's block is that listener's (false)", .field = OPTION_BOOL},
    {OPTION_CUSTOM, "max-connections", NULL, 0, false, CFG(max_connections), 0, 0, NULL,
     set_max_connections, "N", "-1: what the descriptor limit allows (-1)", RELOAD,
     .field = OPTION_U32},
    {OPTION_BYTES32, "max-packet-size", NULL, 0, false, CFG(max_packet_size), 1024,
     PACKET_BYTES_MAX, NULL, NULL, "BYTES", "of a packet from a client", RELOAD},
    {OPTION_U16, "receive-maximum", NULL, 0, false, CFG(receive_maximum), 1, 0, NULL, NULL, "N",
     "unacknowledged QoS 1 and 2 publishes of one client", RELOAD},
    {OPTION_U16, "max-topic-alias", "topic-alias-maximum", 0, false, CFG(topic_alias_maximum), 0, 0,
     NULL, NULL, "N", "topic aliases of one client", RELOAD},
    {OPTION_U16, "max-topic-alias-broker", NULL, 0, false, CFG(topic_aliases_sent), 0, 0, NULL,
     NULL, "N", "topic aliases sent to one client that takes them", RELOAD},
    {OPTION_U16, "max-inflight-messages", NULL, 0, false, CFG(max_inflight_messages), 0, 0, NULL,
     NULL, "N", "unacknowledged towards a 3.1.1 client; 0: no limit", RELOAD},
    {OPTION_U32, "max-queued-messages", NULL, 0, false, CFG(max_queued_messages), 0, 0, NULL, NULL,
     "N", "waiting for one client; 0: no limit", RELOAD},
    {OPTION_BYTES64, "max-queued-bytes", NULL, 0, false, CFG(max_queued_bytes), 0, 0, NULL, NULL,
     "BYTES", "waiting for one client", RELOAD},
    {OPTION_BYTES64, "max-output-bytes", NULL, 0, false, CFG(max_output_bytes), 65536, 0, NULL,
     NULL, "BYTES", "unsent towards one socket", RELOAD},
    {OPTION_SECONDS16, "max-keepalive", NULL, 0, false, CFG(max_keepalive_s), 1, 0, NULL, NULL,
     "DURATION", "longest keep-alive a client may ask for", RELOAD},
    {OPTION_SECONDS32, "max-session-expiry", NULL, 0, false, CFG(max_session_expiry_s), 0, 0, NULL,
     NULL, "DURATION", "longest life of a session without its connection (no bound)", RELOAD},
    {OPTION_SECONDS32, "connect-timeout", NULL, 0, false, CFG(connect_timeout_s), 1, 3600, NULL,
     NULL, "DURATION", "from accept to CONNECT", RELOAD},
    {OPTION_CUSTOM, "server-reference", NULL, 0, false, CFG(server_reference), 0, 0, NULL,
     set_server_reference, "HOST:PORT",
     "another server for clients that are sent away or told of a stop; several apart by blanks",
     RELOAD, .field = OPTION_TEXT},
    {OPTION_CHOICE, "redirect", NULL, 0, false, CFG(redirect), 0, 0, redirects, NULL, "HOW",
     "send clients to the server reference: off, use-another-server (for now) or server-moved (for "
     "good)",
     RELOAD},
    {OPTION_BYTES32, "websockets-headers-size", NULL, 0, false, CFG(websockets_headers_size), 512,
     65536, NULL, NULL, "BYTES", "of an upgrade to a WebSocket"},
    {OPTION_U32, "max-retained-messages", NULL, 0, false, CFG(max_retained_messages), 0, 0, NULL,
     NULL, "N", "retained messages kept", RELOAD},
    {OPTION_BYTES64, "max-retained-bytes", NULL, 0, false, CFG(max_retained_bytes), 0, 0, NULL,
     NULL, "BYTES", "their memory", RELOAD},
    {OPTION_U32, "max-subscriptions", NULL, 0, false, CFG(max_subscriptions_per_client), 1, 0, NULL,
     NULL, "N", "of one client", RELOAD},

    {OPTION_BOOL, "retain-available", NULL, 0, false, CFG(retain_available), 0, 0, NULL, NULL, NULL,
     "retained messages are taken", RELOAD},
    {OPTION_BOOL, "allow-zero-length-clientid", NULL, 0, false, CFG(allow_zero_length_clientid), 0,
     0, NULL, NULL, NULL, "a client without an id is given one", RELOAD},
    {OPTION_CUSTOM, "auto-id-prefix", NULL, 0, false, CFG(auto_id_prefix), 0, 0, NULL,
     set_auto_id_prefix, "TEXT", "how it begins (auto-)", RELOAD, .field = OPTION_TEXT},
    {OPTION_TEXT, "clientid-prefixes", NULL, 0, false, CFG(clientid_prefixes), 0, 0, NULL, NULL,
     "TEXT", "only client ids that begin so are taken", RELOAD},
    {OPTION_CUSTOM, "persistent-client-expiration", NULL, 0, false, CFG(max_session_expiry_s), 0, 0,
     NULL, set_client_expiration, "TIME",
     "max-session-expiry as Mosquitto writes it: 14d; h, d, w, m (months), y", RELOAD,
     .field = OPTION_SECONDS32, .standard = "as `max_session_expiry`"},
    {OPTION_SECONDS32, "sys-interval", NULL, 0, false, CFG(sys_interval_s), 0, 86400, NULL, NULL,
     "DURATION", "between refreshes of $SYS; 0: it is not published", RELOAD},

    HEADING("Users and what they may do (docs/security.md)"),
    {OPTION_TEXT, "password-file", NULL, 0, false, CFG(password_file), 0, 0, NULL, NULL, "FILE",
     "users, as chronos passwd and mosquitto_passwd write them", RELOAD},
    {OPTION_TEXT, "acl-file", NULL, 0, false, CFG(acl_file), 0, 0, NULL, NULL, "FILE",
     "access by topic, as Mosquitto has it", RELOAD},
    {OPTION_SECTION, "user-role", NULL, 0, false, CFG(user_roles), 0, 0, NULL, set_user_role,
     "NAME ROLE", "admin, readwrite, readonly or device; may be said for several users", RELOAD},
    {OPTION_CHOICE, "default-role", NULL, 0, false, CFG(default_role), 0, 0, roles, NULL, "ROLE",
     "of users without a user-role", RELOAD},
    {OPTION_CHOICE, "anonymous-role", NULL, 0, false, CFG(anonymous_role), 0, 0, roles, NULL,
     "ROLE", "of clients without credentials (device; admin as long as there are no users)",
     RELOAD},
    {OPTION_TEXT, "auth-token-admin", NULL, 0, false, CFG(auth_token_admin), 0, 0, NULL, NULL,
     "TOKEN", "makes an admin of whoever has it as a password or bearer token", RELOAD},
    {OPTION_TEXT, "auth-token-readonly", NULL, 0, false, CFG(auth_token_readonly), 0, 0, NULL, NULL,
     "TOKEN", "the same for the role readonly", RELOAD},
    {OPTION_TEXT, "jwt-secret-file", NULL, 0, false, CFG(jwt_secret_file), 0, 0, NULL, NULL, "FILE",
     "JSON Web Tokens as passwords: secret of HS256", RELOAD},
    {OPTION_TEXT, "jwt-public-key-file", NULL, 0, false, CFG(jwt_public_key_file), 0, 0, NULL, NULL,
     "FILE", "public key (PEM) of RS256 or ES256", RELOAD},
    {OPTION_TEXT, "jwt-issuer", NULL, 0, false, CFG(jwt_issuer), 0, 0, NULL, NULL, "TEXT",
     "what `iss` has to be", RELOAD},
    {OPTION_TEXT, "jwt-audience", NULL, 0, false, CFG(jwt_audience), 0, 0, NULL, NULL, "TEXT",
     "what `aud` has to be or hold", RELOAD},
    {OPTION_SECONDS32, "login-backoff", NULL, 0, false, CFG(login_backoff_s), 0, 3600, NULL, NULL,
     "DURATION", "longest wait after failed logins of an address; 0: none"},

    HEADING("Overload (0: no limit)"),
    {OPTION_U32, "max-publish-rate", NULL, 0, false, CFG(max_publish_rate), 0, 0, NULL, NULL, "N",
     "messages per second of one client", RELOAD},
    {OPTION_BYTES64, "max-publish-bytes", NULL, 0, false, CFG(max_publish_bytes), 0,
     PUBLISH_BYTES_MAX, NULL, NULL, "BYTES", "of publishes per second of one client", RELOAD},
    {OPTION_CHOICE, "publish-rate-action", NULL, 0, false, CFG(publish_rate_action), 0, 0,
     publish_rate_actions, NULL, "ACTION",
     "pause: who publishes more is not read for a while; disconnect: it gets 0x96", RELOAD},
    {OPTION_BYTES32, "message-size-limit", NULL, 0, false, CFG(message_size_limit), 0,
     PACKET_BYTES_MAX, NULL, NULL, "BYTES", "payload of a message", RELOAD},
    {OPTION_U16, "max-topic-levels", NULL, 0, false, CFG(max_topic_levels), 1, 200, NULL, NULL, "N",
     "levels of a topic or filter", RELOAD},
    {OPTION_U32, "max-durable-sessions", NULL, 0, false, CFG(max_durable_sessions), 0, 0, NULL,
     NULL, "N", "sessions that outlive their connection", RELOAD},
    {OPTION_BYTES64, "max-queued-total", NULL, 0, false, CFG(max_queued_total), 0, 0, NULL, NULL,
     "BYTES", "messages waiting for all clients together", RELOAD},
    {OPTION_BYTES64, "max-output-total", NULL, 0, false, CFG(max_output_total), 0, 0, NULL, NULL,
     "BYTES", "unsent towards all sockets; beyond it each gets a fair share", RELOAD},
    {OPTION_BYTES64, "max-partial-bytes", NULL, 0, false, CFG(max_partial_bytes), 0, 0, NULL, NULL,
     "BYTES", "packets that have not arrived whole; more of them wait", RELOAD},

    {OPTION_BYTES64, "max-queued-durable", NULL, 0, false, CFG(max_queues_bytes), 0, 0, NULL, NULL,
     "BYTES", "messages in the database waiting for sessions that outlive their connection",
     RELOAD},
    {OPTION_CHOICE, "queue-drop", NULL, 0, false, CFG(queue_drop), 0, 0, queue_drops, NULL, "WHICH",
     "newest or oldest: what goes when a client's queue is full", RELOAD},

    HEADING("Batches between a loop and the log"),
    {OPTION_U32, "batches-per-loop", NULL, 0, false, CFG(batches_per_loop), 2, 4096, NULL, NULL,
     "N", "on their way at a time"},
    {OPTION_U32, "batch-rows", NULL, 0, false, CFG(batch_rows_max), 1, 65536, NULL, NULL, "N",
     "rows of one"},
    {OPTION_BYTES32, "batch-bytes", NULL, 0, false, CFG(batch_bytes_max), 4096, BATCH_BYTES_MAX,
     NULL, NULL, "BYTES", "of one"},
    {OPTION_BYTES64, "receive-bytes-per-loop", NULL, 0, false, CFG(receive_bytes_per_loop),
     1u << 20, UINT64_C(1) << 36, NULL, NULL, "BYTES", "received and not yet answered"},

    HEADING("SQL"),
    {OPTION_U32, "query-threads", NULL, 0, false, CFG(query_threads), 1, 256, NULL, NULL, "N",
     "queries that run at a time"},
    {OPTION_U32, "query-queue", NULL, 0, false, CFG(query_queue_max), 1, 1000000, NULL, NULL, "N",
     "queries that wait; more are refused", RELOAD},
    {OPTION_BYTES64, "query-memory", NULL, 0, false, CFG(query_memory_bytes), 1u << 20, 0, NULL,
     NULL, "BYTES", "of one query", RELOAD},
    {OPTION_MS32, "query-timeout", NULL, 0, false, CFG(query_timeout_ms), 0, 0, NULL, NULL,
     "DURATION", "of one statement; 0: none", RELOAD},
    {OPTION_BYTES64, "query-part-bytes", NULL, 0, false, CFG(query_result_part_bytes), 4096,
     PACKET_BYTES_MAX, NULL, NULL, "BYTES", "an answer above this comes in parts", RELOAD},

    HEADING("Logs"),
    {OPTION_CHOICE, "log-level", NULL, 0, false, CFG(log_level), 0, 0, log_levels, NULL, "LEVEL",
     "error, warning, notice, info or debug", RELOAD},
    {OPTION_CHOICE, "log-format", NULL, 0, false, CFG(log_format), 0, 0, log_formats, NULL,
     "FORMAT", "text or json", RELOAD},

    {OPTION_CUSTOM, "log-dest", NULL, 0, false, CFG(log_dests), 0, 0, NULL, set_log_dest, "DEST",
     "stderr, stdout, syslog, `file PATH` (opened again at SIGHUP), none; may be said several "
     "times "
     "(stderr)",
     RELOAD, .repeats = true, .field = OPTION_U32, .standard = "stderr"},
    {OPTION_CUSTOM, "log-type", NULL, 0, false, CFG(log_types), 0, 0, NULL, set_log_type, "TYPE",
     "instead of log-level: error, warning, notice, information, debug, all, none; may be said "
     "several times",
     RELOAD, .repeats = true, .field = OPTION_U32, .standard = "as log_level says"},
    {OPTION_BOOL, "log-timestamp", NULL, 0, false, CFG(log_timestamp), 0, 0, NULL, NULL, NULL,
     "lines begin with the time", RELOAD},
    {OPTION_TEXT, "log-timestamp-format", NULL, 0, false, CFG(log_timestamp_format), 0, 0, NULL,
     NULL, "FORMAT", "as strftime has it, local time (ISO 8601 in UTC)", RELOAD},
    {OPTION_U16, "log-facility", NULL, 0, false, CFG(log_facility), 0, 7, NULL, NULL, "N",
     "0 to 7: local0 to local7 of syslog, instead of daemon", .standard = "syslog's daemon"},
    {OPTION_BOOL, "connection-messages", NULL, 0, false, CFG(connection_messages), 0, 0, NULL, NULL,
     NULL, "lines about clients that come and go", RELOAD},

    HEADING("Of Mosquitto"),
    {OPTION_U16, "port", NULL, 0, OPTION_NOT_ENVIRONMENT, AT(port), 1, 0, NULL, NULL, "PORT",
     "as address: port of the default listener", .standard = "as `address`"},
    {OPTION_TEXT, "bind-address", NULL, 0, false, AT(bind_address), 0, 0, NULL, NULL, "HOST",
     "as address: host of the default listener", .standard = "as `address`"},
#include "broker/commands/mosquitto_options.inc"

    /* `chronos node` alone; the last ones of the table. */
    HEADING("Cluster and edge"),
    {OPTION_TEXT, "id", NULL, 0, false, CFG(cluster.id), 0, 0, NULL, NULL, "NAME",
     "name of this node"},
    {OPTION_TEXT, "peers", NULL, 0, false, CFG(cluster.peers), 0, 0, NULL, NULL, "ID=HOST:PORT,...",
     "the other nodes"},
    {OPTION_TEXT, "cluster-secret", NULL, 0, false, CFG(cluster.secret), 0, 0, NULL, NULL, "SECRET",
     "what nodes prove to each other that they know; needed unless all are on this machine"},
    {OPTION_TEXT, "peer-cafile", NULL, 0, false, CFG(cluster.cafile), 0, 0, NULL, NULL, "FILE",
     "the other nodes are reached over TLS, at listeners that have it; who signed their "
     "certificates"},
    {OPTION_TEXT, "peer-certfile", NULL, 0, false, CFG(cluster.certfile), 0, 0, NULL, NULL, "FILE",
     "certificate shown to the other nodes, where their listener asks for one"},
    {OPTION_TEXT, "peer-keyfile", NULL, 0, false, CFG(cluster.keyfile), 0, 0, NULL, NULL, "FILE",
     "its key"},
    {OPTION_BOOL, "bootstrap", NULL, 0, false, CFG(cluster.bootstrap), 0, 0, NULL, NULL, NULL,
     "found the cluster of those that can be reached now, without waiting for all of peers"},
    {OPTION_BOOL, "force-new-cluster", NULL, 0, false, CFG(cluster.force_new), 0, 0, NULL, NULL,
     NULL, "go on alone, as a new cluster of one, when the majority is lost for good"},
    {OPTION_MS32, "election-timeout", NULL, 0, false, CFG(cluster.election_ms), 100, 60000, NULL,
     NULL, "DURATION", "a follower that hears no leader for one to two times this becomes one"},
    {OPTION_MS32, "heartbeat-interval", NULL, 0, false, CFG(cluster.heartbeat_ms), 10, 10000, NULL,
     NULL, "DURATION", "of a leader; at most half of election-timeout"},
    {OPTION_BYTES64, "snapshot-rate", NULL, 0, false, CFG(cluster.snapshot_rate), 65536, 0, NULL,
     NULL, "SIZE", "at most so much per second of a snapshot to a node that has fallen behind"},
    {OPTION_MS32, "node-timeout", NULL, 0, false, CFG(cluster.node_timeout_ms), 1000, 3600000, NULL,
     NULL, "DURATION",
     "a node not heard of for so long is declared down: its clients' wills are published"},
    {OPTION_TEXT, "sync-target", NULL, 0, false, AT(sync_target), 0, 0, NULL, NULL, "URL",
     "cloud of an edge"},
    {OPTION_SECONDS32, "sync-interval-secs", NULL, 0, false, AT(sync_interval_s), 1, 0, NULL, NULL,
     "SECONDS", "of an edge"},
};
/* clang-format on */
#define CLUSTER_OPTIONS 15 /* with their heading */
_Static_assert(CHR_COUNT_OF(table) <= OPTIONS_MAX, "options.h: OPTIONS_MAX");

static void set_defaults(struct settings *settings)
{
    memset(settings, 0, sizeof *settings);
    broker_config_default(&settings->config);
    settings->sync_interval_s = 5;
}

void settings_note(const struct settings *settings)
{
    char place[600];
    for (size_t i = 0; i < CHR_COUNT_OF(table); i++)
        if (table[i].kind == OPTION_NO_MEANING && settings->options.source[i] != OPTION_UNSET)
            chr_log_notice("node", "a setting without effect",
                           CHR_KV_C("place", options_place(&settings->options, table[i].name, place,
                                                           sizeof place)),
                           CHR_KV_C("reason", table[i].help));
}

const struct option *settings_table(size_t *count)
{
    *count = CHR_COUNT_OF(table);
    return table;
}

static bool same_roles(const struct auth_role_setting *a, const struct auth_role_setting *b)
{
    for (; a && b; a = a->next, b = b->next)
        if (a->role != b->role || strcmp(a->name, b->name))
            return false;
    return !a && !b;
}

void settings_take(const struct settings *now, struct settings *fresh, options_changed_fn *changed,
                   void *ctx)
{
    struct settings merged = *now;
    options_take(table, CHR_COUNT_OF(table), &merged, fresh, changed, ctx);
    listeners_take(&merged, fresh, changed, ctx);
    /* log_dest fills two fields, of which the table knows one. */
    const char *before = now->config.log_file, *after = fresh->config.log_file;
    if (before && after && strcmp(before, after)) {
        static const struct option log_file = {.kind = OPTION_CUSTOM, .name = "log-dest"};
        changed(ctx, &log_file, true);
    }
    if (after && !(before && !strcmp(before, after)))
        merged.config.log_file = after;
    if (!same_roles(now->config.user_roles, fresh->config.user_roles)) {
        static const struct option user_role = {.kind = OPTION_SECTION, .name = "user-role"};
        changed(ctx, &user_role, true);
        merged.config.user_roles = fresh->config.user_roles;
    }
    fresh->config = merged.config;
}

void settings_help(FILE *out, bool cluster)
{
    struct settings defaults;
    set_defaults(&defaults);
    options_help(out, table, CHR_COUNT_OF(table) - (cluster ? 0 : CLUSTER_OPTIONS), &defaults);
    listener_help(out);
}

bool settings_is_loopback(const char *address)
{
    char host[256];
    uint16_t port;
    if (net_parse_address(address, host, sizeof host, &port, NULL) || !host[0])
        return false;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    if (getaddrinfo(host, NULL, &hints, &list))
        return false;
    bool loopback = list != NULL;
    for (const struct addrinfo *info = list; info; info = info->ai_next) {
        if (info->ai_family == AF_INET) {
            struct sockaddr_in in;
            memcpy(&in, info->ai_addr, sizeof in);
            loopback &= (ntohl(in.sin_addr.s_addr) >> 24) == 127;
        } else if (info->ai_family == AF_INET6) {
            struct sockaddr_in6 in6;
            memcpy(&in6, info->ai_addr, sizeof in6);
            loopback &= IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
        } else {
            loopback = false;
        }
    }
    freeaddrinfo(list);
    return loopback;
}

static bool has_users(const struct broker_config *c)
{
    return c->password_file || c->acl_file || c->auth_token_admin || c->auth_token_readonly ||
           c->jwt_secret_file || c->jwt_public_key_file;
}

/* Nobody is let in by oversight: without users an address that others can reach is open to all of
 * them. */
static chr_err check_anonymous(const struct settings *settings, const char *address,
                               struct chr_errmsg *msg)
{
    if (!address || has_users(&settings->config) || settings_is_loopback(address) ||
        options_source(&settings->options, "allow-anonymous") != OPTION_UNSET)
        return CHR_OK;
    return chr_fail(msg, CHR_EINVAL,
                    "%s can be reached by others and there are no users: set password_file, or "
                    "allow_anonymous true to let everybody in, or listen on 127.0.0.1",
                    address);
}

chr_err settings_check_exposed(const struct settings *settings, struct chr_errmsg *msg)
{
    const struct broker_config *config = &settings->config;
    chr_err err = CHR_OK;
    for (uint32_t i = 0; !err && i < config->listeners_count; i++)
        if (config->listeners[i].allow_anonymous == LISTENER_ANONYMOUS_AS_NODE)
            err = check_anonymous(settings, config->listeners[i].address, msg);
    return err ? err : check_anonymous(settings, config->admin_address, msg);
}

static chr_err check(struct settings *settings, bool cluster, struct chr_errmsg *msg)
{
    const struct broker_config *config = &settings->config;
    if (!cluster) {
        for (size_t i = CHR_COUNT_OF(table) - CLUSTER_OPTIONS; i < CHR_COUNT_OF(table); i++)
            if (settings->options.source[i] != OPTION_UNSET)
                return chr_fail(msg, CHR_EINVAL, "%s is a setting of `chronos node`",
                                table[i].name);
    }
    if (has_users(config) && options_source(&settings->options, "allow-anonymous") == OPTION_UNSET)
        settings->config.allow_anonymous = false;
    chr_err err = finish_address(settings, msg);
    if (!err)
        err = listeners_finish(settings, msg);
    char host[256];
    uint16_t port = 0;
    const uint32_t both = LOG_DEST_STDERR | LOG_DEST_STDOUT;
    if (!err && (config->log_dests & both) == both)
        err = chr_fail(msg, CHR_EINVAL, "log_dest: stderr and stdout exclude each other");
    if (!err && config->log_dests & LOG_DEST_NONE && config->log_dests != LOG_DEST_NONE)
        err = chr_fail(msg, CHR_EINVAL, "log_dest: none goes alone");
    if (!err)
        err = net_parse_address(config->address, host, sizeof host, &port, msg);
    if (!err && port > UINT16_MAX - 1000 && !config->admin_address)
        err = chr_fail(msg, CHR_EINVAL,
                       "the admin port would be %u + 1000, which is no port; set --admin-address",
                       port);
    if (!err && config->log_segment_bytes % 4096)
        err = chr_fail(msg, CHR_EINVAL, "log_segment_bytes has to be a multiple of 4096");
    if (!err && cluster && config->max_packet_size > CLUSTER_PACKET_BYTES_MAX)
        err = chr_fail(msg, CHR_EINVAL,
                       "max_packet_size: at most %uKiB in a cluster: nodes pass on nothing larger",
                       CLUSTER_PACKET_BYTES_MAX >> 10);
    const struct cluster_config *peer = &config->cluster;
    if (!err && !peer->certfile != !peer->keyfile)
        err = chr_fail(msg, CHR_EINVAL, "peer-certfile and peer-keyfile need each other");
    if (!err && peer->certfile && !peer->cafile)
        err = chr_fail(msg, CHR_EINVAL,
                       "peer-certfile needs a peer-cafile: without it peers are reached without "
                       "TLS");
    return err ? err : settings_check_exposed(settings, msg);
}

chr_err settings_load(struct settings *settings, bool cluster, int argc, char **argv,
                      struct chr_errmsg *msg)
{
    set_defaults(settings);
    struct options *options = &settings->options;
    options_init(options, table, CHR_COUNT_OF(table), settings);
    listeners_begin(settings);
    if (options_peek(options, argc, argv, "help")) {
        settings->help = true;
        return CHR_OK;
    }
    const char *file = options_peek(options, argc, argv, "config");
    chr_err err = CHR_OK;
    if (file && *file)
        err = options_file(options, file, msg);
    if (!err)
        err = options_environment(options, environ, msg);
    if (!err)
        err = options_flags(options, argc, argv, msg);
    if (!err)
        err = check(settings, cluster, msg);
    return err;
}

void settings_free(struct settings *settings)
{
    options_free(&settings->options);
}
