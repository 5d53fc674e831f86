#include "broker/commands/listener_settings.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/num.h"
#include "broker/net/acceptor.h"
#include "broker/net/tls.h"

/* Remaining length of an MQTT packet [MQTT-2.1.4]. */
#define PACKET_BYTES_MAX 268435455u

static const struct option_choice protocols[] = {
    {"mqtt", LISTENER_MQTT},
    {"websockets", LISTENER_WEBSOCKETS},
    {NULL, 0},
};
static const struct option_choice domains[] = {
    {"ipv4", LISTENER_IPV4},
    {"ipv6", LISTENER_IPV6},
    {NULL, 0},
};
static const struct option_choice tls_versions[] = {
    {"tlsv1.2", LISTENER_TLS_1_2},
    {"tlsv1.3", LISTENER_TLS_1_3},
    {NULL, 0},
};

chr_err listener_max_connections(const char *value, uint32_t *out, struct chr_errmsg *msg)
{
    int64_t number = 0;
    chr_slice text = chr_slice_cstr(value);
    if (!text.len || chr_parse_i64(text, &number) != (int)text.len || number < -1 ||
        number > UINT32_MAX)
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a number of connections (-1: no limit)",
                        value);
    *out = number < 0 ? 0 : (uint32_t)number;
    return CHR_OK;
}

static chr_err set_max_connections(struct options *options, void *target, const char *value,
                                   struct chr_errmsg *msg)
{
    (void)options;
    return listener_max_connections(value, &((struct listener_config *)target)->max_connections,
                                    msg);
}

static chr_err parse_bool(const char *value, bool *out, struct chr_errmsg *msg)
{
    bool yes = !strcasecmp(value, "true") || !strcasecmp(value, "yes") || !strcmp(value, "1") ||
               !strcasecmp(value, "on");
    bool no = !strcasecmp(value, "false") || !strcasecmp(value, "no") || !strcmp(value, "0") ||
              !strcasecmp(value, "off");
    *out = yes;
    return yes || no ? CHR_OK
                     : chr_fail(msg, CHR_EINVAL, "\"%s\" is neither true nor false", value);
}

static chr_err set_anonymous(struct options *options, void *target, const char *value,
                             struct chr_errmsg *msg)
{
    (void)options;
    bool yes = false;
    chr_err err = parse_bool(value, &yes, msg);
    if (!err)
        ((struct listener_config *)target)->allow_anonymous =
            yes ? LISTENER_ANONYMOUS_YES : LISTENER_ANONYMOUS_NO;
    return err;
}

static chr_err set_small(const char *value, int64_t max, int64_t *out, struct chr_errmsg *msg)
{
    chr_slice text = chr_slice_cstr(value);
    if (!text.len || !isdigit((unsigned char)value[0]) ||
        chr_parse_i64(text, out) != (int)text.len || *out > max)
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a number from 0 to %d", value, (int)max);
    return CHR_OK;
}

static chr_err set_max_qos(struct options *options, void *target, const char *value,
                           struct chr_errmsg *msg)
{
    (void)options;
    int64_t number = 0;
    chr_err err = set_small(value, 2, &number, msg);
    if (!err)
        ((struct listener_config *)target)->max_qos = (uint8_t)number;
    return err;
}

static chr_err set_max_topic_alias(struct options *options, void *target, const char *value,
                                   struct chr_errmsg *msg)
{
    (void)options;
    struct listener_config *listener = target;
    int64_t number = 0;
    chr_err err = set_small(value, UINT16_MAX, &number, msg);
    if (!err) {
        listener->max_topic_alias = (uint16_t)number;
        listener->max_topic_alias_set = true;
    }
    return err;
}

static chr_err set_unix_mode(struct options *options, void *target, const char *value,
                             struct chr_errmsg *msg)
{
    (void)options;
    uint32_t mode = 0;
    size_t len = strlen(value);
    bool octal = len >= 3 && len <= 4;
    for (const char *p = value; *p; p++) {
        octal &= *p >= '0' && *p <= '7';
        mode = mode * 8 + (uint32_t)(*p - '0');
    }
    if (!octal || mode == 0 || mode > 0777)
        return chr_fail(msg, CHR_EINVAL, "\"%s\" is not a mode; write for example 0660", value);
    ((struct listener_config *)target)->unix_mode = mode;
    return CHR_OK;
}

#define OF(field) .offset = offsetof(struct listener_config, field)
#define PATH(key, alias, field, text)                                                              \
    {                                                                                              \
        OPTION_TEXT, (key), (alias), 0, false, OF(field), 0, 0, NULL, NULL, "FILE", (text),        \
            .reload = true                                                                         \
    }
#define NOT_PER_LISTENER                                                                           \
    "there is one for the whole node, not one for each listener; set it before the first "         \
    "listener line, with per_listener_settings false"

/* clang-format off: a table, one setting a line or two */
static const struct option table[] = {
    {OPTION_HEADING, "", .help = "Listeners: after a `listener`, or of --address"},
    {OPTION_CHOICE, "protocol", NULL, 0, false, OF(protocol), 0, 0, protocols, NULL, "PROTOCOL",
     "mqtt or websockets"},
    PATH("certfile", "tls-cert", certfile,
         "its certificate and chain, PEM; with it the listener "
         "speaks TLS"),
    PATH("keyfile", "tls-key", keyfile, "its private key, PEM"),
    PATH("cafile", "tls-ca-cert", cafile, "authorities whose client certificates are taken"),
    {OPTION_TEXT, "capath", NULL, 0, false, OF(capath), 0, 0, NULL, NULL, "DIR",
     "the same as a directory of hashed files", .reload = true},
    PATH("crlfile", NULL, crlfile, "certificates that were revoked, PEM"),
    {OPTION_CHOICE, "tls-version", NULL, 0, false, OF(tls_version), 0, 0, tls_versions, NULL,
     "VERSION", "the lowest: tlsv1.2 or tlsv1.3"},
    {OPTION_TEXT, "ciphers", NULL, 0, false, OF(ciphers), 0, 0, NULL, NULL, "LIST",
     "of TLS 1.2, as `openssl ciphers` has them"},
    {OPTION_TEXT, "ciphers-tls1.3", "ciphers-tls13", 0, false, OF(ciphersuites), 0, 0, NULL, NULL,
     "LIST", "of TLS 1.3"},
    {OPTION_BOOL, "require-certificate", NULL, 0, false, OF(require_certificate), 0, 0, NULL, NULL,
     NULL, "of every client"},
    {OPTION_BOOL, "use-identity-as-username", NULL, 0, false, OF(use_identity_as_username), 0, 0,
     NULL, NULL, NULL, "the certificate's common name is the user name"},
    {OPTION_BOOL, "use-subject-as-username", NULL, 0, false, OF(use_subject_as_username), 0, 0,
     NULL, NULL, NULL, "its whole subject is"},
    {OPTION_CUSTOM, "listener-allow-anonymous", NULL, 0, false, OF(allow_anonymous), 0, 0, NULL,
     set_anonymous, "BOOL", "instead of the node's allow-anonymous", .reload = true,
     .field = OPTION_U32, .standard = "as `allow_anonymous`"},
    {OPTION_CUSTOM, "allow-anonymous", NULL, 0, OPTION_IN_SECTIONS, OF(allow_anonymous), 0, 0, NULL,
     set_anonymous, "BOOL", "the same, with per-listener-settings", .reload = true,
     .field = OPTION_U32, .standard = "as the node's"},
    {OPTION_LATER, "password-file", .scope = OPTION_IN_SECTIONS, .help = NOT_PER_LISTENER},
    {OPTION_LATER, "acl-file", .scope = OPTION_IN_SECTIONS, .help = NOT_PER_LISTENER},
    {OPTION_CUSTOM, "max-connections", NULL, 0, false, OF(max_connections), 0, 0, NULL,
     set_max_connections, "N", "of this listener, below the node's", .reload = true,
     .field = OPTION_U32, .standard = "as the node's"},
    {OPTION_CUSTOM, "max-qos", "maximum-qos", 0, false, OF(max_qos), 0, 0, NULL, set_max_qos, "N",
     "of a publish from its clients (2)"},
    {OPTION_CUSTOM, "max-topic-alias", NULL, 0, false, OF(max_topic_alias), 0, 0, NULL,
     set_max_topic_alias, "N", "instead of the node's", .reload = true,
     .standard = "as the node's"},
    {OPTION_BYTES32, "listener-max-packet-size", NULL, 0, false, OF(max_packet_size), 64,
     PACKET_BYTES_MAX, NULL, NULL, "BYTES", "instead of the node's max-packet-size, if smaller",
     .reload = true, .standard = "as `max_packet_size`"},
    {OPTION_BOOL, "proxy-protocol", "enable-proxy-protocol", 0, false, OF(proxy_protocol), 0, 0,
     NULL, NULL, NULL, "connections begin with a PROXY header (v1 or v2); only behind a proxy"},
    {OPTION_TEXT, "websockets-origin", NULL, 0, false, OF(websockets_origin), 0, 0, NULL, NULL,
     "ORIGIN", "the only web page that may connect; *: any"},
    {OPTION_CHOICE, "socket-domain", NULL, 0, false, OF(domain), 0, 0, domains, NULL, "DOMAIN",
     "ipv4 or ipv6 alone"},
    {OPTION_TEXT, "bind-interface", NULL, 0, false, OF(bind_interface), 0, 0, NULL, NULL, "NAME",
     "network interface"},
    {OPTION_CUSTOM, "socket-mode", NULL, 0, false, OF(unix_mode), 0, 0, NULL, set_unix_mode, "MODE",
     "permissions of a Unix socket, 0660 for example", .field = OPTION_U32,
     .standard = "what the umask leaves"},
};
/* clang-format on */
_Static_assert(CHR_COUNT_OF(table) <= OPTIONS_MAX, "options.h: OPTIONS_MAX");

void listener_help(FILE *out)
{
    struct listener_config defaults;
    listener_config_default(&defaults);
    options_help(out, table, CHR_COUNT_OF(table), &defaults);
}

void listeners_begin(struct settings *settings)
{
    options_sections(&settings->options, table, CHR_COUNT_OF(table), &settings->config.listeners[0],
                     &settings->per_listener_settings);
}

chr_err listener_set_per_listener(struct options *options, void *target, const char *value,
                                  struct chr_errmsg *msg)
{
    if (options->section.open)
        return chr_fail(msg, CHR_EINVAL, "it has to stand before the first listener");
    return parse_bool(value, &((struct settings *)target)->per_listener_settings, msg);
}

/* As mosquitto.conf has it: `listener 1883` (all addresses), `listener 1883 127.0.0.1`, `listener 0
 * /run/chronos.sock`. */
chr_err listener_open(struct options *options, void *target, const char *value,
                      struct chr_errmsg *msg)
{
    struct broker_config *config = &((struct settings *)target)->config;
    size_t port_len = strcspn(value, " \t");
    const char *host = value + port_len + strspn(value + port_len, " \t");
    if (config->listeners_count == LISTENERS_MAX)
        return chr_fail(msg, CHR_EINVAL, "more than %d listeners", LISTENERS_MAX - 1);
    struct listener_config *listener = &config->listeners[config->listeners_count];
    listener_config_default(listener);
    listener->place = "";
    if (options->path_now)
        listener->place =
            chr_arena_printf(&options->arena, "%s:%u: ", options->path_now, options->line_now);
    if (host[0] == '/') {
        struct sockaddr_un un;
        if (port_len != 1 || value[0] != '0')
            return chr_fail(msg, CHR_EINVAL, "\"%s\": the port of a Unix socket is 0", value);
        if (strlen(host) >= sizeof un.sun_path)
            return chr_fail(msg, CHR_EINVAL,
                            "\"%s\": longer than the %zu bytes that a path of a "
                            "Unix socket may have",
                            host, sizeof un.sun_path - 1);
        listener->unix_path = host;
    } else {
        bool bare_ipv6 = strchr(host, ':') && host[0] != '[';
        if (host[strcspn(host, " \t")])
            return chr_fail(msg, CHR_EINVAL, "\"%s\": write PORT or PORT ADDRESS", value);
        char *address = chr_arena_printf(&options->arena, bare_ipv6 ? "[%s]:%.*s" : "%s:%.*s", host,
                                         (int)port_len, value);
        if (!address || !listener->place)
            return chr_fail(msg, CHR_ENOMEM, "out of memory");
        char name[256];
        uint16_t port;
        chr_err err = net_parse_address(address, name, sizeof name, &port, msg);
        if (err)
            return err;
        listener->address = address;
    }
    config->listeners_count++;
    options_open_section(options, listener);
    return CHR_OK;
}

/* ---- Together ---------------------------------------------------------------------------------
 */

static const char *fault_of(const struct listener_config *l)
{
    if (l->certfile && !l->keyfile)
        return "certfile needs a keyfile";
    if (l->keyfile && !l->certfile)
        return "keyfile needs a certfile";
    if (!l->certfile && (l->cafile || l->capath))
        return "cafile and capath need a certfile and a keyfile";
    if (!l->certfile &&
        (l->crlfile || l->ciphers || l->ciphersuites || l->tls_version != LISTENER_TLS_1_2))
        return "crlfile, ciphers and tls_version need a certfile and a keyfile";
    if (l->require_certificate && !l->cafile && !l->capath)
        return "require_certificate needs a cafile or a capath";
    if (l->crlfile && !l->cafile && !l->capath)
        return "crlfile needs a cafile or a capath";
    if (l->use_identity_as_username && l->use_subject_as_username)
        return "use_identity_as_username and use_subject_as_username exclude each other";
    if ((l->use_identity_as_username || l->use_subject_as_username) && !l->require_certificate)
        return "a user name from the certificate needs require_certificate true";
    if (l->websockets_origin && l->protocol != LISTENER_WEBSOCKETS)
        return "websockets_origin needs protocol websockets";
    if (l->unix_path && (l->domain != LISTENER_ANY_DOMAIN || l->bind_interface))
        return "a Unix socket has neither socket_domain nor bind_interface";
    if (!l->unix_path && l->unix_mode)
        return "socket_mode is for a Unix socket";
    return NULL;
}

chr_err listeners_finish(struct settings *settings, struct chr_errmsg *msg)
{
    struct broker_config *config = &settings->config;
    struct options *options = &settings->options;
    bool wanted = options_source(options, "address") != OPTION_UNSET ||
                  options->section.default_set || config->listeners_count == 1;
    if (!wanted) {
        config->listeners_count--;
        memmove(&config->listeners[0], &config->listeners[1],
                config->listeners_count * sizeof config->listeners[0]);
    }
    const char *first = NULL;
    for (uint32_t i = 0; i < config->listeners_count; i++) {
        const struct listener_config *l = &config->listeners[i];
        const char *fault = fault_of(l);
        if (fault)
            return chr_fail(msg, CHR_EINVAL, "%slistener %s: %s", l->place ? l->place : "",
                            l->unix_path ? l->unix_path : l->address, fault);
        /* A start reads the files anyway, and says the same. */
        if (settings->test_config && l->certfile) {
            struct chr_errmsg why = {{0}};
            chr_err err = tls_context_check(l, &why);
            if (err)
                return chr_fail(msg, err, "%slistener %s: %s", l->place ? l->place : "",
                                l->unix_path ? l->unix_path : l->address, why.text);
        }
        for (uint32_t j = 0; l->unix_path && j < i; j++)
            if (config->listeners[j].unix_path &&
                !strcmp(config->listeners[j].unix_path, l->unix_path))
                return chr_fail(msg, CHR_EINVAL, "%slistener %s: there is one already", l->place,
                                l->unix_path);
        if (!first)
            first = l->address;
    }
    /* The admin port is this one's + 1000. */
    if (first)
        config->address = first;
    return CHR_OK;
}

/* ---- Reload -----------------------------------------------------------------------------------
 */

const struct option *listener_table(size_t *count)
{
    *count = CHR_COUNT_OF(table);
    return table;
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static bool same_places(const struct broker_config *a, const struct broker_config *b)
{
    if (a->listeners_count != b->listeners_count)
        return false;
    for (uint32_t i = 0; i < a->listeners_count; i++)
        if (!same_text(a->listeners[i].address, b->listeners[i].address) ||
            !same_text(a->listeners[i].unix_path, b->listeners[i].unix_path))
            return false;
    return true;
}

/* Those that the table can't compare: max_topic_alias fills two fields, max_qos is a byte. */
static void take_others(struct listener_config *now, const struct listener_config *fresh,
                        options_changed_fn *changed, void *ctx)
{
    static const struct option topic_alias = {.kind = OPTION_CUSTOM, .name = "max-topic-alias"};
    static const struct option max_qos = {.kind = OPTION_CUSTOM, .name = "max-qos"};
    if (now->max_topic_alias_set != fresh->max_topic_alias_set ||
        now->max_topic_alias != fresh->max_topic_alias) {
        now->max_topic_alias_set = fresh->max_topic_alias_set;
        now->max_topic_alias = fresh->max_topic_alias;
        changed(ctx, &topic_alias, true);
    }
    if (now->max_qos != fresh->max_qos)
        changed(ctx, &max_qos, false);
}

void listeners_take(struct settings *now, const struct settings *fresh, options_changed_fn *changed,
                    void *ctx)
{
    static const struct option number_of_listeners = {.kind = OPTION_SECTION, .name = "listener"};
    if (!same_places(&now->config, &fresh->config)) {
        changed(ctx, &number_of_listeners, false);
        return;
    }
    for (uint32_t i = 0; i < now->config.listeners_count; i++) {
        struct listener_config *old = &now->config.listeners[i];
        const struct listener_config *new = &fresh->config.listeners[i];
        options_take(table, CHR_COUNT_OF(table), old, new, changed, ctx);
        take_others(old, new, changed, ctx);
    }
}
