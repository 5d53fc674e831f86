/* tests/e2e/foreign/foreign_paho.c: paho MQTT C (the asynchronous API), driven by lines (line.h).
 */
#include <MQTTAsync.h>
#include <stdint.h>
#include <unistd.h>

#include "line.h"

static MQTTAsync client;
static int version = 5;

static void check(const char *what, int rc)
{
    if (rc != MQTTASYNC_SUCCESS)
        event_error(what, MQTTAsync_strerror(rc) ? MQTTAsync_strerror(rc) : "failed");
}

static long number_of(void *context)
{
    return (long)(intptr_t)context;
}

/* ---- Properties -------------------------------------------------------------------------------
 */

static const struct {
    const char *key;
    enum MQTTPropertyCodes id;
} names[] = {
    {"expiry", MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL},
    {"session", MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL},
    {"mps", MQTTPROPERTY_CODE_MAXIMUM_PACKET_SIZE},
    {"alias", MQTTPROPERTY_CODE_TOPIC_ALIAS},
    {"amax", MQTTPROPERTY_CODE_TOPIC_ALIAS_MAXIMUM},
    {"rmax", MQTTPROPERTY_CODE_RECEIVE_MAXIMUM},
    {"ska", MQTTPROPERTY_CODE_SERVER_KEEP_ALIVE},
    {"rri", MQTTPROPERTY_CODE_REQUEST_RESPONSE_INFORMATION},
    {"rpi", MQTTPROPERTY_CODE_REQUEST_PROBLEM_INFORMATION},
    {"format", MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR},
    {"maxqos", MQTTPROPERTY_CODE_MAXIMUM_QOS},
    {"ctype", MQTTPROPERTY_CODE_CONTENT_TYPE},
    {"rtopic", MQTTPROPERTY_CODE_RESPONSE_TOPIC},
    {"assigned", MQTTPROPERTY_CODE_ASSIGNED_CLIENT_IDENTIFER},
    {"ri", MQTTPROPERTY_CODE_RESPONSE_INFORMATION},
    {"ref", MQTTPROPERTY_CODE_SERVER_REFERENCE},
    {"rs", MQTTPROPERTY_CODE_REASON_STRING},
    {"cdata", MQTTPROPERTY_CODE_CORRELATION_DATA},
    {"sub", MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER},
    {"delay", MQTTPROPERTY_CODE_WILL_DELAY_INTERVAL},
};

static void put(MQTTProperties *list, enum MQTTPropertyCodes id, const struct field *f)
{
    MQTTProperty p = {.identifier = id};
    switch (MQTTProperty_getType(id)) {
    case MQTTPROPERTY_TYPE_BYTE:
        p.value.byte = (unsigned char)strtol(f->value, NULL, 10);
        break;
    case MQTTPROPERTY_TYPE_TWO_BYTE_INTEGER:
        p.value.integer2 = (unsigned short)strtol(f->value, NULL, 10);
        break;
    case MQTTPROPERTY_TYPE_FOUR_BYTE_INTEGER:
    case MQTTPROPERTY_TYPE_VARIABLE_BYTE_INTEGER:
        p.value.integer4 = (unsigned)strtoul(f->value, NULL, 10);
        break;
    default:
        p.value.data = (MQTTLenString){(int)f->len, f->value};
        break;
    }
    if (MQTTProperties_add(list, &p))
        event_error("property", f->key);
}

static void put_pairs(MQTTProperties *list, const struct line *line, const char *key)
{
    for (int i = 0; i < line->count; i++) {
        char *parts[2];
        if (strcmp(line->fields[i].key, key) != 0 ||
            line_split(line->fields[i].value, parts, 2) != 2)
            continue;
        MQTTProperty p = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY};
        p.value.data = (MQTTLenString){(int)strlen(parts[0]), parts[0]};
        p.value.value = (MQTTLenString){(int)strlen(parts[1]), parts[1]};
        if (MQTTProperties_add(list, &p))
            event_error("property", key);
    }
}

/* Those of the keys that the line has. */
static void put_keys(MQTTProperties *list, const struct line *line, const char *const *keys)
{
    for (; *keys; keys++)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (strcmp(names[i].key, *keys) == 0 && line_field(line, *keys))
                put(list, names[i].id, line_field(line, *keys));
}

static void event_properties(struct event *e, const MQTTProperties *list)
{
    for (int k = 0; list && k < list->count; k++) {
        const MQTTProperty *p = &list->array[k];
        const MQTTLenString *data = &p->value.data, *value = &p->value.value;
        if (p->identifier == MQTTPROPERTY_CODE_USER_PROPERTY)
            event_pair(e, "up", data->data, (size_t)data->len, value->data, (size_t)value->len);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (names[i].id != p->identifier)
                continue;
            switch (MQTTProperty_getType(p->identifier)) {
            case MQTTPROPERTY_TYPE_BYTE:
                event_number(e, names[i].key, p->value.byte);
                break;
            case MQTTPROPERTY_TYPE_TWO_BYTE_INTEGER:
                event_number(e, names[i].key, p->value.integer2);
                break;
            case MQTTPROPERTY_TYPE_FOUR_BYTE_INTEGER:
            case MQTTPROPERTY_TYPE_VARIABLE_BYTE_INTEGER:
                event_number(e, names[i].key, p->value.integer4);
                break;
            default:
                event_bytes(e, names[i].key, data->data, (size_t)data->len);
                break;
            }
        }
    }
}

/* ---- Events -----------------------------------------------------------------------------------
 */

static void emit(const char *word, long n, int reason, const MQTTProperties *properties)
{
    struct event e;
    event_begin(&e, word);
    event_number(&e, "n", n);
    event_number(&e, "reason", reason);
    event_properties(&e, properties);
    event_end(&e);
}

static void connected(int reason, int present, const MQTTProperties *properties)
{
    struct event e;
    event_begin(&e, "connack");
    event_number(&e, "reason", reason);
    event_number(&e, "present", present);
    event_properties(&e, properties);
    event_end(&e);
}

static void connected5(void *context, MQTTAsync_successData5 *r)
{
    (void)context;
    connected((int)r->reasonCode, r->alt.connect.sessionPresent, &r->properties);
}

static void connected3(void *context, MQTTAsync_successData *r)
{
    (void)context;
    connected(0, r->alt.connect.sessionPresent, NULL);
}

static void refused5(void *context, MQTTAsync_failureData5 *r)
{
    (void)context;
    connected((int)r->reasonCode > 0 ? (int)r->reasonCode : r->code, 0, &r->properties);
}

static void refused3(void *context, MQTTAsync_failureData *r)
{
    (void)context;
    connected(r->code, 0, NULL);
}

static void codes(const char *word, void *context, int count, const int *list,
                  const MQTTProperties *properties)
{
    struct event e;
    event_begin(&e, word);
    event_number(&e, "n", number_of(context));
    for (int i = 0; i < count; i++)
        event_number(&e, "code", list[i]);
    event_properties(&e, properties);
    event_end(&e);
}

/* How many filters there were stands in the context, above the number: the library tells a list
 * only of several. */
#define COUNT_SHIFT 24

static void *context_of(const struct line *line, int count)
{
    return (void *)(intptr_t)(line_number(line, "n", 0) | (long)count << COUNT_SHIFT);
}

static int count_of(void *context)
{
    return (int)(number_of(context) >> COUNT_SHIFT);
}

static void *without_count(void *context)
{
    return (void *)(intptr_t)(number_of(context) & ((1L << COUNT_SHIFT) - 1));
}

static void codes5(const char *word, void *context, const enum MQTTReasonCodes *list,
                   enum MQTTReasonCodes single, const MQTTProperties *properties)
{
    int all[FIELDS_MAX] = {(int)single}, count = count_of(context);
    for (int i = 0; i < count && count > 1 && i < FIELDS_MAX; i++)
        all[i] = (int)list[i];
    codes(word, without_count(context), count, all, properties);
}

static void subscribed5(void *context, MQTTAsync_successData5 *r)
{
    codes5("suback", context, r->alt.sub.reasonCodes, r->reasonCode, &r->properties);
}

static void unsubscribed5(void *context, MQTTAsync_successData5 *r)
{
    codes5("unsuback", context, r->alt.unsub.reasonCodes, r->reasonCode, &r->properties);
}

/* All filters failed with the same code, or it was one. */
static void subscribe_failed5(void *context, MQTTAsync_failureData5 *r)
{
    int code = (int)r->reasonCode;
    codes("suback", without_count(context), 1, &code, &r->properties);
}

static void unsubscribe_failed5(void *context, MQTTAsync_failureData5 *r)
{
    int code = (int)r->reasonCode;
    codes("unsuback", without_count(context), 1, &code, &r->properties);
}

static void published5(void *context, MQTTAsync_successData5 *r)
{
    emit("puback", number_of(context), (int)r->reasonCode, &r->properties);
}

static void publish_failed5(void *context, MQTTAsync_failureData5 *r)
{
    emit("puback", number_of(context), (int)r->reasonCode, &r->properties);
}

static void subscribed3(void *context, MQTTAsync_successData *r)
{
    int count = count_of(context);
    codes("suback", without_count(context), count, count > 1 ? r->alt.qosList : &r->alt.qos, NULL);
}

static void subscribe_failed3(void *context, MQTTAsync_failureData *r)
{
    codes("suback", without_count(context), 1, &r->code, NULL);
}

static void done3(void *context, MQTTAsync_successData *r)
{
    (void)r;
    emit("puback", number_of(context), 0, NULL);
}

static void unsubscribed3(void *context, MQTTAsync_successData *r)
{
    (void)r;
    codes("unsuback", without_count(context), 0, NULL, NULL);
}

static void failed3(void *context, MQTTAsync_failureData *r)
{
    emit("puback", number_of(context), r->code, NULL);
}

static void unsubscribe_failed3(void *context, MQTTAsync_failureData *r)
{
    codes("unsuback", without_count(context), 1, &r->code, NULL);
}

static int on_message(void *context, char *topic, int topic_len, MQTTAsync_message *m)
{
    (void)context;
    struct event e;
    event_begin(&e, "message");
    event_bytes(&e, "topic", topic, topic_len ? (size_t)topic_len : strlen(topic));
    event_bytes(&e, "payload", m->payload, (size_t)m->payloadlen);
    event_number(&e, "qos", m->qos);
    event_number(&e, "retain", m->retained);
    event_number(&e, "dup", m->dup);
    event_properties(&e, version == 5 ? &m->properties : NULL);
    event_end(&e);
    MQTTAsync_freeMessage(&m);
    MQTTAsync_free(topic);
    return 1;
}

static void on_lost(void *context, char *cause)
{
    (void)context, (void)cause;
    struct event e;
    event_begin(&e, "closed");
    event_end(&e);
}

static void on_disconnected(void *context, MQTTProperties *properties, enum MQTTReasonCodes reason)
{
    (void)context;
    struct event e;
    event_begin(&e, "disconnected");
    event_number(&e, "reason", (long)reason);
    event_properties(&e, properties);
    event_end(&e);
}

static void gone5(void *context, MQTTAsync_successData5 *r)
{
    (void)r;
    on_lost(context, NULL);
}

static void gone3(void *context, MQTTAsync_successData *r)
{
    (void)r;
    on_lost(context, NULL);
}

/* ---- Commands ---------------------------------------------------------------------------------
 */

static void command_connect(const struct line *line)
{
    static const char *const of_connect[] = {"session", "mps", "rmax", "amax", "rri", "rpi", NULL};
    char uri[64];
    snprintf(uri, sizeof uri, "tcp://127.0.0.1:%ld", line_number(line, "port", 1883));
    version = (int)line_number(line, "version", 5);
    MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer5;
    create.maxBufferedMessages = 1000;
    create.MQTTVersion = version == 5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
    const char *id = line_text(line, "id");
    check("create", MQTTAsync_createWithOptions(&client, uri, id ? id : "",
                                                MQTTCLIENT_PERSISTENCE_NONE, NULL, &create));
    check("callbacks", MQTTAsync_setCallbacks(client, NULL, on_lost, on_message, NULL));
    check("disconnected", MQTTAsync_setDisconnected(client, NULL, on_disconnected));
    MQTTAsync_connectOptions options5 = MQTTAsync_connectOptions_initializer5,
                             options3 = MQTTAsync_connectOptions_initializer,
                             options = version == 5 ? options5 : options3;
    MQTTAsync_willOptions will = MQTTAsync_willOptions_initializer;
    MQTTProperties properties = MQTTProperties_initializer,
                   will_properties = MQTTProperties_initializer;
    options.keepAliveInterval = (int)line_number(line, "keepalive", 60);
    options.username = line_text(line, "user");
    options.password = line_text(line, "pw");
    options.maxInflight = 1000;
    int clean = line_number(line, "clean", 1) != 0;
    if (version == 5) {
        options.cleanstart = clean;
        put_keys(&properties, line, of_connect);
        put_pairs(&properties, line, "up");
        options.connectProperties = &properties;
        options.onSuccess5 = connected5;
        options.onFailure5 = refused5;
    } else {
        options.cleansession = clean;
        options.MQTTVersion = MQTTVERSION_3_1_1;
        options.onSuccess = connected3;
        options.onFailure = refused3;
    }
    if (line_field(line, "will")) {
        const struct field *payload = line_field(line, "will.payload");
        will.topicName = line_text(line, "will");
        will.payload.len = payload ? (int)payload->len : 0;
        will.payload.data = payload ? payload->value : "";
        will.qos = (int)line_number(line, "will.qos", 0);
        will.retained = (int)line_number(line, "will.retain", 0);
        options.will = &will;
        if (version == 5) {
            if (line_field(line, "will.delay"))
                put(&will_properties, MQTTPROPERTY_CODE_WILL_DELAY_INTERVAL,
                    line_field(line, "will.delay"));
            if (line_field(line, "will.expiry"))
                put(&will_properties, MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL,
                    line_field(line, "will.expiry"));
            put_pairs(&will_properties, line, "will.up");
            options.willProperties = &will_properties;
        }
    }
    check("connect", MQTTAsync_connect(client, &options));
    MQTTProperties_free(&properties);
    MQTTProperties_free(&will_properties);
}

static void command_subscribe(const struct line *line)
{
    char *filters[FIELDS_MAX];
    int qos[FIELDS_MAX], count = 0;
    MQTTSubscribe_options options[FIELDS_MAX];
    for (int i = 0; i < line->count; i++) {
        char *parts[5];
        if (strcmp(line->fields[i].key, "f") != 0 ||
            line_split(line->fields[i].value, parts, 5) != 5)
            continue;
        MQTTSubscribe_options o = MQTTSubscribe_options_initializer;
        o.noLocal = (unsigned char)atoi(parts[2]);
        o.retainAsPublished = (unsigned char)atoi(parts[3]);
        o.retainHandling = (unsigned char)atoi(parts[4]);
        filters[count] = parts[0];
        qos[count] = atoi(parts[1]);
        options[count++] = o;
    }
    MQTTAsync_responseOptions r = MQTTAsync_responseOptions_initializer;
    r.context = context_of(line, count);
    if (version == 5) {
        r.onSuccess5 = subscribed5;
        r.onFailure5 = subscribe_failed5;
        r.subscribeOptions = options[0];
        r.subscribeOptionsList = options;
        r.subscribeOptionsCount = count;
        if (line_field(line, "id"))
            put(&r.properties, MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER, line_field(line, "id"));
        put_pairs(&r.properties, line, "up");
    } else {
        r.onSuccess = subscribed3;
        r.onFailure = subscribe_failed3;
    }
    check("subscribe", MQTTAsync_subscribeMany(client, count, filters, qos, &r));
    MQTTProperties_free(&r.properties);
}

static void command_unsubscribe(const struct line *line)
{
    char *filters[FIELDS_MAX];
    int count = 0;
    for (int i = 0; i < line->count; i++)
        if (strcmp(line->fields[i].key, "f") == 0)
            line_split(line->fields[i].value, &filters[count++], 1);
    MQTTAsync_responseOptions r = MQTTAsync_responseOptions_initializer;
    r.context = context_of(line, count);
    if (version == 5) {
        r.onSuccess5 = unsubscribed5;
        r.onFailure5 = unsubscribe_failed5;
    } else {
        r.onSuccess = unsubscribed3;
        r.onFailure = unsubscribe_failed3;
    }
    check("unsubscribe", MQTTAsync_unsubscribeMany(client, count, filters, &r));
}

static void command_publish(const struct line *line)
{
    static const char *const of_publish[] = {"expiry", "format", "alias", "ctype",
                                             "rtopic", "cdata",  NULL};
    MQTTAsync_message m = MQTTAsync_message_initializer;
    const struct field *payload = line_field(line, "payload");
    m.payload = payload ? payload->value : NULL;
    m.payloadlen = payload ? (int)payload->len : 0;
    m.qos = (int)line_number(line, "qos", 0);
    m.retained = (int)line_number(line, "retain", 0);
    MQTTAsync_responseOptions r = MQTTAsync_responseOptions_initializer;
    r.context = (void *)(intptr_t)line_number(line, "n", 0);
    if (version == 5) {
        put_keys(&m.properties, line, of_publish);
        put_pairs(&m.properties, line, "up");
        r.onSuccess5 = published5;
        r.onFailure5 = publish_failed5;
    } else {
        r.onSuccess = done3;
        r.onFailure = failed3;
    }
    const char *topic = line_text(line, "topic");
    check("publish", MQTTAsync_sendMessage(client, topic ? topic : "", &m, &r));
    MQTTProperties_free(&m.properties);
}

static void command_disconnect(const struct line *line)
{
    MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer,
                                options5 = MQTTAsync_disconnectOptions_initializer5;
    if (version == 5) {
        options = options5;
        options.reasonCode = (enum MQTTReasonCodes)line_number(line, "reason", 0);
        if (line_field(line, "session"))
            put(&options.properties, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL,
                line_field(line, "session"));
        options.onSuccess5 = gone5;
    } else {
        options.onSuccess = gone3;
    }
    check("disconnect", MQTTAsync_disconnect(client, &options));
    MQTTProperties_free(&options.properties);
}

int main(void)
{
    struct line line = {0};
    while (line_read(&line)) {
        if (strcmp(line.word, "connect") == 0)
            command_connect(&line);
        else if (strcmp(line.word, "subscribe") == 0)
            command_subscribe(&line);
        else if (strcmp(line.word, "unsubscribe") == 0)
            command_unsubscribe(&line);
        else if (strcmp(line.word, "publish") == 0)
            command_publish(&line);
        else if (strcmp(line.word, "disconnect") == 0)
            command_disconnect(&line);
    }
    _exit(0); /* whoever drove us is gone: as if killed */
}
