/* broker/commands/client_options.h: how a command reaches a node as a client, the same flags in
 * each: as mosquitto_pub has them. */
#ifndef CHR_BROKER_COMMANDS_CLIENT_OPTIONS_H
#define CHR_BROKER_COMMANDS_CLIENT_OPTIONS_H

#include "broker/options.h"
#include "sqlfront/cli/cli.h"

chr_err client_set_leader(struct options *options, void *target, const char *value,
                          struct chr_errmsg *msg);
/* What the flags can't say each for itself. NULL: all is well; else a sentence. */
const char *client_options_wrong(const struct cli_options *cli);

/* Lines of a table whose target begins with a struct cli_options. */
/* clang-format off */
#define CLIENT_FIELD(field)                                                                        \
    .scope = OPTION_FLAG_ONLY, .offset = offsetof(struct cli_options, field)
#define CLIENT_OPTIONS                                                                             \
    {.kind = OPTION_CUSTOM, .name = "leader", .set = client_set_leader, CLIENT_FIELD(host),        \
     .value = "HOST:PORT", .help = "a node; the same as -h HOST -p PORT"},                         \
    {.kind = OPTION_TEXT, .name = "host", .letter = 'h', CLIENT_FIELD(host), .value = "HOST",      \
     .help = "a node"},                                                                            \
    {.kind = OPTION_U16, .name = "port", .letter = 'p', CLIENT_FIELD(port), .min = 1,              \
     .value = "PORT", .help = "its MQTT port"},                                                    \
    {.kind = OPTION_TEXT, .name = "username", .letter = 'u', CLIENT_FIELD(user), .value = "NAME",  \
     .help = "user"},                                                                              \
    {.kind = OPTION_TEXT, .name = "pw", .alias = "password", .letter = 'P', CLIENT_FIELD(password),\
     .value = "PASSWORD", .help = "password"},                                                     \
    {.kind = OPTION_TEXT, .name = "cafile", CLIENT_FIELD(cafile), .value = "FILE",                 \
     .help = "TLS: certificates to trust (PEM)"},                                                  \
    {.kind = OPTION_TEXT, .name = "cert", CLIENT_FIELD(cert), .value = "FILE",                     \
     .help = "TLS: certificate of this client"},                                                   \
    {.kind = OPTION_TEXT, .name = "key", CLIENT_FIELD(key), .value = "FILE",                       \
     .help = "TLS: its key"},                                                                      \
    {.kind = OPTION_BOOL, .name = "insecure", CLIENT_FIELD(insecure),                              \
     .help = "TLS: don't compare the certificate's name with the host"}
/* clang-format on */

#endif
