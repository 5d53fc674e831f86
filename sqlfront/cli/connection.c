#include "sqlfront/cli/connection.h"

#include <MQTTAsync.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/num.h"
#include "base/random.h"
#include "sqlfront/cli/interrupt.h"

#define QUEUE_PARTS     4 /* of at most 8 MiB each, as the node makes them */
#define REQUEST_TOPIC   "$chronos/sql"
#define CANCEL_TOPIC    "$chronos/cancel"
#define RESULT_PREFIX   "$chronos/result/"
#define DISCONNECT_MS   1000
#define CORRELATION_LEN 16 /* hexadecimal digits of a counter */

struct queued_part {
    MQTTAsync_message *message;
    char *topic;
    bool first, last, error;
};

struct cli_connection {
    const struct cli_options *options;
    MQTTAsync client;
    char uri[300];
    char result_topic[sizeof RESULT_PREFIX + 32];
    uint64_t requests; /* sent; the last one's number is its correlation */
    int wake_fd;       /* eventfd: something below changed */

    pthread_mutex_t lock; /* for all below: paho's threads and ours */
    pthread_cond_t room;
    struct queued_part queue[QUEUE_PARTS];
    unsigned queue_first, queue_count;
    bool any_part; /* of the running request */
    bool connected, lost, closing;
    bool step_done, step_failed; /* connect, subscribe, disconnect */
    bool refused;
    uint32_t packet_bytes_max; /* 0: no limit */
    char why[200];
};

/* ---- paho's threads ---------------------------------------------------------------------------
 */

static void wake(struct cli_connection *c)
{
    uint64_t one = 1;
    ssize_t n = write(c->wake_fd, &one, sizeof one);
    (void)n;
}

static void finish_step(struct cli_connection *c, bool failed)
{
    c->step_done = true;
    c->step_failed = failed;
    wake(c);
}

/* The Reason String when there is one, else the name of the code, else paho's words. */
static void explain(struct cli_connection *c, MQTTProperties *properties,
                    enum MQTTReasonCodes reason, const char *message, int code)
{
    MQTTProperty *text =
        properties ? MQTTProperties_getProperty(properties, MQTTPROPERTY_CODE_REASON_STRING) : NULL;
    const char *name =
        reason >= MQTTREASONCODE_UNSPECIFIED_ERROR ? MQTTReasonCode_toString(reason) : NULL;
    if (!name && code >= MQTTREASONCODE_UNSPECIFIED_ERROR) /* where paho puts CONNACK's */
        name = MQTTReasonCode_toString((enum MQTTReasonCodes)code);
    if (text)
        snprintf(c->why, sizeof c->why, "%.*s", text->value.data.len, text->value.data.data);
    else if (name)
        snprintf(c->why, sizeof c->why, "%s", name);
    else if (message)
        snprintf(c->why, sizeof c->why, "%s", message);
    else
        snprintf(c->why, sizeof c->why, "error %d", code);
}

static void on_step_failed(void *context, MQTTAsync_failureData5 *data)
{
    struct cli_connection *c = context;
    pthread_mutex_lock(&c->lock);
    explain(c, data ? &data->properties : NULL,
            data ? data->reasonCode : MQTTREASONCODE_UNSPECIFIED_ERROR, data ? data->message : NULL,
            data ? data->code : 0);
    finish_step(c, true);
    pthread_mutex_unlock(&c->lock);
}

static void on_connected(void *context, MQTTAsync_successData5 *data)
{
    struct cli_connection *c = context;
    pthread_mutex_lock(&c->lock);
    c->connected = true;
    c->packet_bytes_max = 0;
    if (MQTTProperties_hasProperty(&data->properties, MQTTPROPERTY_CODE_MAXIMUM_PACKET_SIZE))
        c->packet_bytes_max = (uint32_t)MQTTProperties_getNumericValue(
            &data->properties, MQTTPROPERTY_CODE_MAXIMUM_PACKET_SIZE);
    finish_step(c, false);
    pthread_mutex_unlock(&c->lock);
}

static void on_step_done(void *context, MQTTAsync_successData5 *data)
{
    struct cli_connection *c = context;
    (void)data;
    pthread_mutex_lock(&c->lock);
    finish_step(c, false);
    pthread_mutex_unlock(&c->lock);
}

static void on_refused(void *context, MQTTAsync_failureData5 *data)
{
    struct cli_connection *c = context;
    pthread_mutex_lock(&c->lock);
    if (!c->lost) {
        explain(c, data ? &data->properties : NULL,
                data ? data->reasonCode : MQTTREASONCODE_UNSPECIFIED_ERROR,
                data ? data->message : NULL, data ? data->code : 0);
        c->refused = true;
        wake(c);
    }
    pthread_mutex_unlock(&c->lock);
}

static void lose(struct cli_connection *c, const char *why)
{
    pthread_mutex_lock(&c->lock);
    c->connected = false;
    c->lost = true;
    if (!c->refused)
        snprintf(c->why, sizeof c->why, "%s", why ? why : "the connection was closed");
    wake(c);
    pthread_mutex_unlock(&c->lock);
}

static void on_lost(void *context, char *cause)
{
    lose(context, cause);
}

static void on_disconnected(void *context, MQTTProperties *properties, enum MQTTReasonCodes reason)
{
    struct cli_connection *c = context;
    pthread_mutex_lock(&c->lock);
    explain(c, properties, reason, "the node closed the connection", 0);
    char why[sizeof c->why];
    memcpy(why, c->why, sizeof why);
    pthread_mutex_unlock(&c->lock);
    lose(c, why);
}

/* The value of a user property, NULL without it. */
static const MQTTLenString *user_property(MQTTProperties *properties, const char *name)
{
    for (int i = 0; i < properties->count; i++) {
        const MQTTProperty *p = &properties->array[i];
        if (p->identifier == MQTTPROPERTY_CODE_USER_PROPERTY &&
            (size_t)p->value.data.len == strlen(name) &&
            !memcmp(p->value.data.data, name, strlen(name)))
            return &p->value.value;
    }
    return NULL;
}

static void correlation_of(uint64_t request, char out[CORRELATION_LEN + 1])
{
    snprintf(out, CORRELATION_LEN + 1, "%016" PRIx64, request);
}

/* Is it an answer to the request that runs? One that was cancelled may send its end late. */
static bool is_ours(struct cli_connection *c, MQTTProperties *properties)
{
    char expected[CORRELATION_LEN + 1];
    correlation_of(c->requests, expected);
    MQTTProperty *p = MQTTProperties_getProperty(properties, MQTTPROPERTY_CODE_CORRELATION_DATA);
    return p && p->value.data.len == CORRELATION_LEN &&
           !memcmp(p->value.data.data, expected, CORRELATION_LEN);
}

static int on_message(void *context, char *topic, int topic_len, MQTTAsync_message *message)
{
    struct cli_connection *c = context;
    (void)topic_len;
    pthread_mutex_lock(&c->lock);
    while (c->queue_count == QUEUE_PARTS && !c->closing)
        pthread_cond_wait(&c->room, &c->lock);
    bool wanted = !c->closing && is_ours(c, &message->properties);
    if (wanted) {
        const MQTTLenString *part = user_property(&message->properties, "part");
        const MQTTLenString *last = user_property(&message->properties, "last");
        struct queued_part *q = &c->queue[(c->queue_first + c->queue_count++) % QUEUE_PARTS];
        *q = (struct queued_part){
            .message = message,
            .topic = topic,
            .first = !c->any_part,
            /* A whole answer carries neither. */
            .last =
                !part || (last && last->len > 0 && (last->data[0] == 't' || last->data[0] == '1')),
            .error = user_property(&message->properties, "error") != NULL,
        };
        c->any_part = true;
        wake(c);
    }
    pthread_mutex_unlock(&c->lock);
    if (!wanted) {
        MQTTAsync_freeMessage(&message);
        MQTTAsync_free(topic);
    }
    return 1;
}

/* ---- Ours -------------------------------------------------------------------------------------
 */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void clear_wake(struct cli_connection *c)
{
    uint64_t count;
    struct pollfd fd = {.fd = c->wake_fd, .events = POLLIN};
    if (poll(&fd, 1, 0) > 0) {
        ssize_t n = read(c->wake_fd, &count, sizeof count);
        (void)n;
    }
}

/* Waits for what connect, subscribe or disconnect began. False: it failed, took too long or was
 * interrupted; c->why. */
static bool wait_step(struct cli_connection *c, int64_t timeout_ms)
{
    int64_t until_ms = now_ms() + timeout_ms;
    for (;;) {
        pthread_mutex_lock(&c->lock);
        bool done = c->step_done, failed = c->step_failed;
        pthread_mutex_unlock(&c->lock);
        if (done)
            return !failed;
        int64_t left_ms = until_ms - now_ms();
        struct pollfd fds[3] = {{.fd = c->wake_fd, .events = POLLIN},
                                {.fd = cli_interrupt_fd(), .events = POLLIN},
                                {.fd = c->options->stop_fd, .events = POLLIN}};
        if (left_ms <= 0 || poll(fds, 3, (int)left_ms) == 0) {
            snprintf(c->why, sizeof c->why, "no answer within %.1f s", (double)timeout_ms / 1000);
            return false;
        }
        if (cli_interrupt_taken() || (fds[2].revents & POLLIN)) {
            snprintf(c->why, sizeof c->why, "interrupted");
            return false;
        }
        clear_wake(c);
    }
}

static void begin_step(struct cli_connection *c)
{
    pthread_mutex_lock(&c->lock);
    c->step_done = c->step_failed = false;
    pthread_mutex_unlock(&c->lock);
}

static bool connect_step(struct cli_connection *c)
{
    const struct cli_options *o = c->options;
    MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer5;
    MQTTAsync_SSLOptions tls = MQTTAsync_SSLOptions_initializer;
    /* While a pager holds our queue full paho can't answer pings; TCP tells of a dead peer. */
    connect.keepAliveInterval = 0;
    connect.cleanstart = 1;
    connect.username = o->user;
    connect.password = o->password;
    connect.connectTimeout = (int)(o->connect_timeout_us / 1000000 + 1);
    connect.onSuccess5 = on_connected;
    connect.onFailure5 = on_step_failed;
    connect.context = c;
    if (o->cafile) {
        tls.trustStore = o->cafile;
        tls.keyStore = o->cert;
        tls.privateKey = o->key;
        tls.verify = !o->insecure;
        tls.disableDefaultTrustStore = 1;
        connect.ssl = &tls;
    }
    begin_step(c);
    int rc = MQTTAsync_connect(c->client, &connect);
    if (rc != MQTTASYNC_SUCCESS) {
        snprintf(c->why, sizeof c->why, "%s", MQTTAsync_strerror(rc));
        return false;
    }
    return wait_step(c, o->connect_timeout_us / 1000);
}

/* paho acknowledges an answer with one small packet and sends our next request with another, which
 * Nagle's algorithm holds until the node's delayed TCP acknowledgement of the first: 40 ms for each
 * statement. paho has no option for that and does not tell its socket, which is the one whose other
 * end is the node's port (of the node's own sockets in this process it is the near one). */
static void send_at_once(uint16_t port)
{
    DIR *dir = opendir("/proc/self/fd");
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        int fd = atoi(e->d_name), one = 1;
        struct sockaddr_storage peer;
        socklen_t len = sizeof peer;
        if (!isdigit((unsigned char)e->d_name[0]) ||
            getpeername(fd, (struct sockaddr *)&peer, &len))
            continue;
        const struct sockaddr_in *in = (const void *)&peer;
        const struct sockaddr_in6 *in6 = (const void *)&peer;
        bool ours = (peer.ss_family == AF_INET && in->sin_port == htons(port)) ||
                    (peer.ss_family == AF_INET6 && in6->sin6_port == htons(port));
        if (ours)
            (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    if (dir)
        closedir(dir);
}

static bool subscribe_step(struct cli_connection *c)
{
    MQTTAsync_callOptions call = MQTTAsync_callOptions_initializer;
    call.onSuccess5 = on_step_done;
    call.onFailure5 = on_step_failed;
    call.context = c;
    begin_step(c);
    int rc = MQTTAsync_subscribe(c->client, c->result_topic, 1, &call);
    if (rc != MQTTASYNC_SUCCESS) {
        snprintf(c->why, sizeof c->why, "%s", MQTTAsync_strerror(rc));
        return false;
    }
    return wait_step(c, c->options->connect_timeout_us / 1000);
}

static chr_err create_client(struct cli_connection *c)
{
    const struct cli_options *o = c->options;
    uint64_t token[2];
    chr_random_bytes(token, sizeof token);
    snprintf(c->result_topic, sizeof c->result_topic, RESULT_PREFIX "%016" PRIx64 "%016" PRIx64,
             token[0], token[1]);
    char id[40];
    snprintf(id, sizeof id, "chronos-client-%016" PRIx64, token[0] ^ token[1]);
    snprintf(c->uri, sizeof c->uri, strchr(o->host, ':') ? "%s://[%s]:%u" : "%s://%s:%u",
             o->cafile ? "ssl" : "tcp", o->host, o->port);
    MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer5;
    int rc = MQTTAsync_createWithOptions(&c->client, c->uri, id, MQTTCLIENT_PERSISTENCE_NONE, NULL,
                                         &create);
    if (rc != MQTTASYNC_SUCCESS) {
        snprintf(c->why, sizeof c->why, "%s", MQTTAsync_strerror(rc));
        return CHR_ECLOSED;
    }
    MQTTAsync_setCallbacks(c->client, c, on_lost, on_message, NULL);
    MQTTAsync_setDisconnected(c->client, c, on_disconnected);
    return CHR_OK;
}

/* paho's own threads must not be the ones that take our signals. */
static void block_all(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
}

chr_err cli_connect(const struct cli_options *options, struct cli_connection **out,
                    struct chr_errmsg *msg)
{
    struct cli_connection *c = calloc(1, sizeof *c);
    if (!c)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    c->options = options;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->room, NULL);
    c->wake_fd = eventfd(0, EFD_CLOEXEC);
    MQTTAsync_init_options init = MQTTAsync_init_options_initializer;
    init.do_openssl_init = 1;
    MQTTAsync_global_init(&init);
    sigset_t before;
    block_all(&before);
    bool ok = c->wake_fd >= 0 && create_client(c) == CHR_OK;
    if (ok) {
        /* connect starts paho's threads; the mask is theirs from then on. */
        ok = connect_step(c);
        if (ok) {
            send_at_once(options->port);
            ok = subscribe_step(c);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!ok) {
        (void)chr_fail(msg, CHR_ECLOSED, "can't connect to %s:%u: %s", options->host, options->port,
                       c->why);
        cli_disconnect(c);
        return CHR_ECLOSED;
    }
    *out = c;
    return CHR_OK;
}

static void drop_queue(struct cli_connection *c)
{
    while (c->queue_count) {
        struct queued_part *q = &c->queue[c->queue_first];
        MQTTAsync_freeMessage(&q->message);
        MQTTAsync_free(q->topic);
        c->queue_first = (c->queue_first + 1) % QUEUE_PARTS;
        c->queue_count--;
    }
}

void cli_disconnect(struct cli_connection *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->closing = true;
    bool connected = c->connected;
    pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->lock);
    if (c->client && connected) {
        MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer5;
        options.onSuccess5 = on_step_done;
        options.onFailure5 = on_step_failed;
        options.context = c;
        begin_step(c);
        if (MQTTAsync_disconnect(c->client, &options) == MQTTASYNC_SUCCESS)
            (void)wait_step(c, DISCONNECT_MS);
    }
    if (c->client)
        MQTTAsync_destroy(&c->client);
    drop_queue(c);
    if (c->wake_fd >= 0)
        close(c->wake_fd);
    pthread_cond_destroy(&c->room);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

bool cli_connected(const struct cli_connection *c)
{
    struct cli_connection *mutable = (struct cli_connection *)(uintptr_t)c;
    pthread_mutex_lock(&mutable->lock);
    bool connected = c->connected;
    pthread_mutex_unlock(&mutable->lock);
    return connected;
}

static void add_data(MQTTProperties *properties, enum MQTTPropertyCodes code, const char *bytes,
                     size_t len)
{
    MQTTProperty p = {.identifier = code};
    p.value.data.data = (char *)(uintptr_t)bytes;
    p.value.data.len = (int)len;
    (void)MQTTProperties_add(properties, &p);
}

static void add_user(MQTTProperties *properties, const char *name, const char *value)
{
    MQTTProperty p = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY};
    p.value.data.data = (char *)(uintptr_t)name;
    p.value.data.len = (int)strlen(name);
    p.value.value.data = (char *)(uintptr_t)value;
    p.value.value.len = (int)strlen(value);
    (void)MQTTProperties_add(properties, &p);
}

/* print NULL: no answer of its own is asked for. */
static int send_request(struct cli_connection *c, const char *topic, chr_slice payload,
                        const struct cli_print *print)
{
    char correlation[CORRELATION_LEN + 1];
    correlation_of(c->requests, correlation);
    MQTTAsync_message message = MQTTAsync_message_initializer;
    message.payload = (void *)(uintptr_t)payload.ptr;
    message.payloadlen = (int)payload.len;
    message.qos = print ? 1 : 0;
    add_data(&message.properties, MQTTPROPERTY_CODE_RESPONSE_TOPIC, c->result_topic,
             strlen(c->result_topic));
    add_data(&message.properties, MQTTPROPERTY_CODE_CORRELATION_DATA, correlation, CORRELATION_LEN);
    if (print)
        add_user(&message.properties, "format", cli_format_name(cli_print_wants(print)));
    if (print && print->no_header)
        add_user(&message.properties, "header", "off");
    MQTTAsync_callOptions call = MQTTAsync_callOptions_initializer;
    if (print) {
        call.onFailure5 = on_refused;
        call.context = c;
    }
    int rc = MQTTAsync_sendMessage(c->client, topic, &message, &call);
    MQTTProperties_free(&message.properties);
    return rc;
}

chr_err cli_ask(struct cli_connection *c, chr_slice statement, const struct cli_print *print)
{
    pthread_mutex_lock(&c->lock);
    bool connected = c->connected;
    uint32_t max = c->packet_bytes_max;
    c->requests++;
    c->any_part = c->refused = false;
    drop_queue(c);
    pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->lock);
    if (!connected)
        return CHR_ECLOSED;
    /* What the packet needs beside the statement: topic, properties, header. */
    if (statement.len > INT32_MAX / 2 || (max && statement.len + 256 > max))
        return CHR_ETOOBIG;
    int rc = send_request(c, REQUEST_TOPIC, statement, print);
    return rc == MQTTASYNC_SUCCESS ? CHR_OK : CHR_ECLOSED;
}

void cli_cancel(struct cli_connection *c)
{
    if (cli_connected(c))
        (void)send_request(c, CANCEL_TOPIC, (chr_slice){0}, NULL);
}

enum cli_event cli_wait(struct cli_connection *c, int timeout_ms, struct cli_part *part,
                        struct chr_errmsg *refusal)
{
    int64_t until_ms = now_ms() + timeout_ms;
    for (;;) {
        clear_wake(c);
        pthread_mutex_lock(&c->lock);
        bool lost = c->lost, refused = c->refused, have = c->queue_count > 0;
        if (have) {
            struct queued_part q = c->queue[c->queue_first];
            c->queue_first = (c->queue_first + 1) % QUEUE_PARTS;
            c->queue_count--;
            pthread_cond_broadcast(&c->room);
            MQTTAsync_free(q.topic);
            *part = (struct cli_part){
                .bytes = chr_slice_of(q.message->payload, (size_t)q.message->payloadlen),
                .first = q.first,
                .last = q.last,
                .error = q.error,
                .owned = q.message,
            };
        } else if (lost || refused) {
            (void)chr_fail(refusal, CHR_ECLOSED, "%s", c->why);
        }
        pthread_mutex_unlock(&c->lock);
        if (have)
            return CLI_PART;
        if (lost)
            return CLI_LOST;
        if (refused)
            return CLI_REFUSED;
        int64_t left_ms = timeout_ms < 0 ? -1 : CHR_MAX(until_ms - now_ms(), 0);
        struct pollfd fds[3] = {{.fd = c->wake_fd, .events = POLLIN},
                                {.fd = cli_interrupt_fd(), .events = POLLIN},
                                {.fd = c->options->stop_fd, .events = POLLIN}};
        int n = poll(fds, 3, (int)left_ms);
        if (cli_interrupt_taken())
            return CLI_INTERRUPT;
        if (n > 0 && (fds[2].revents & POLLIN))
            return CLI_STOP;
        if (n == 0)
            return CLI_TIMEOUT;
    }
}

void cli_part_free(struct cli_part *part)
{
    MQTTAsync_message *message = part->owned;
    if (message)
        MQTTAsync_freeMessage(&message);
    part->owned = NULL;
}
