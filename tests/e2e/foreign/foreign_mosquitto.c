/* tests/e2e/foreign/foreign_mosquitto.c: libmosquitto, driven by lines (line.h).
 *
 * The library numbers what it sends itself; `sent n mid` tells which command has which number, and
 * answers bear the number. */
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <unistd.h>

#include "line.h"

static struct mosquitto *mosq;
static int version = 5;

static void check(const char *what, int rc)
{
    if (rc != MOSQ_ERR_SUCCESS)
        event_error(what, mosquitto_strerror(rc));
}

/* ---- Properties -------------------------------------------------------------------------------
 */

static void put_pairs(mosquitto_property **list, const struct line *line, const char *key)
{
    for (int i = 0; i < line->count; i++) {
        char *parts[2];
        if (strcmp(line->fields[i].key, key) == 0 &&
            line_split(line->fields[i].value, parts, 2) == 2)
            check("user property", mosquitto_property_add_string_pair(list, MQTT_PROP_USER_PROPERTY,
                                                                      parts[0], parts[1]));
    }
}

static void put_u32(mosquitto_property **list, const struct line *line, const char *key, int id)
{
    if (line_field(line, key))
        check(key, mosquitto_property_add_int32(list, id, (uint32_t)line_number(line, key, 0)));
}

static void put_u16(mosquitto_property **list, const struct line *line, const char *key, int id)
{
    if (line_field(line, key))
        check(key, mosquitto_property_add_int16(list, id, (uint16_t)line_number(line, key, 0)));
}

static void put_u8(mosquitto_property **list, const struct line *line, const char *key, int id)
{
    if (line_field(line, key))
        check(key, mosquitto_property_add_byte(list, id, (uint8_t)line_number(line, key, 0)));
}

static void put_string(mosquitto_property **list, const struct line *line, const char *key, int id)
{
    if (line_field(line, key))
        check(key, mosquitto_property_add_string(list, id, line_text(line, key)));
}

static void event_string(struct event *e, const mosquitto_property *list, const char *key, int id)
{
    char *text = NULL;
    if (mosquitto_property_read_string(list, id, &text, false))
        event_bytes(e, key, text, strlen(text));
    free(text);
}

/* What a test may want to see of any packet. */
static void event_properties(struct event *e, const mosquitto_property *list)
{
    uint32_t u32;
    uint16_t u16;
    uint8_t u8;
    static const struct {
        const char *key;
        int id;
    } words[] = {{"expiry", MQTT_PROP_MESSAGE_EXPIRY_INTERVAL},
                 {"session", MQTT_PROP_SESSION_EXPIRY_INTERVAL},
                 {"mps", MQTT_PROP_MAXIMUM_PACKET_SIZE}},
      halves[] = {{"alias", MQTT_PROP_TOPIC_ALIAS},
                  {"amax", MQTT_PROP_TOPIC_ALIAS_MAXIMUM},
                  {"rmax", MQTT_PROP_RECEIVE_MAXIMUM},
                  {"ska", MQTT_PROP_SERVER_KEEP_ALIVE}},
      bytes[] = {{"format", MQTT_PROP_PAYLOAD_FORMAT_INDICATOR}, {"maxqos", MQTT_PROP_MAXIMUM_QOS}},
      strings[] = {{"ctype", MQTT_PROP_CONTENT_TYPE},
                   {"rtopic", MQTT_PROP_RESPONSE_TOPIC},
                   {"assigned", MQTT_PROP_ASSIGNED_CLIENT_IDENTIFIER},
                   {"ri", MQTT_PROP_RESPONSE_INFORMATION},
                   {"ref", MQTT_PROP_SERVER_REFERENCE},
                   {"rs", MQTT_PROP_REASON_STRING}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (mosquitto_property_read_int32(list, words[i].id, &u32, false))
            event_number(e, words[i].key, u32);
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++)
        if (mosquitto_property_read_int16(list, halves[i].id, &u16, false))
            event_number(e, halves[i].key, u16);
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        if (mosquitto_property_read_byte(list, bytes[i].id, &u8, false))
            event_number(e, bytes[i].key, u8);
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        event_string(e, list, strings[i].key, strings[i].id);
    void *data = NULL;
    uint16_t len = 0;
    if (mosquitto_property_read_binary(list, MQTT_PROP_CORRELATION_DATA, &data, &len, false))
        event_bytes(e, "cdata", data, len);
    free(data);
    for (const mosquitto_property *at =
             mosquitto_property_read_varint(list, MQTT_PROP_SUBSCRIPTION_IDENTIFIER, &u32, false);
         at; at = mosquitto_property_read_varint(at, MQTT_PROP_SUBSCRIPTION_IDENTIFIER, &u32, true))
        event_number(e, "sub", u32);
    char *name = NULL, *value = NULL;
    for (const mosquitto_property *at = mosquitto_property_read_string_pair(
             list, MQTT_PROP_USER_PROPERTY, &name, &value, false);
         at; at = mosquitto_property_read_string_pair(at, MQTT_PROP_USER_PROPERTY, &name, &value,
                                                      true)) {
        event_pair(e, "up", name, strlen(name), value, strlen(value));
        free(name);
        free(value);
        name = value = NULL;
    }
}

/* ---- Events -----------------------------------------------------------------------------------
 */

static void on_connect(struct mosquitto *m, void *arg, int reason, int flags,
                       const mosquitto_property *properties)
{
    (void)m, (void)arg;
    struct event e;
    event_begin(&e, "connack");
    event_number(&e, "reason", reason);
    event_number(&e, "present", flags & 1);
    event_properties(&e, properties);
    event_end(&e);
}

static void on_disconnect(struct mosquitto *m, void *arg, int reason,
                          const mosquitto_property *properties)
{
    (void)m, (void)arg;
    if (reason >= 0x80) { /* a DISCONNECT of the server */
        struct event e;
        event_begin(&e, "disconnected");
        event_number(&e, "reason", reason);
        event_properties(&e, properties);
        event_end(&e);
    }
}

static void on_message(struct mosquitto *m, void *arg, const struct mosquitto_message *message,
                       const mosquitto_property *properties)
{
    (void)m, (void)arg;
    struct event e;
    event_begin(&e, "message");
    event_bytes(&e, "topic", message->topic, strlen(message->topic));
    event_bytes(&e, "payload", message->payload, (size_t)message->payloadlen);
    event_number(&e, "qos", message->qos);
    event_number(&e, "retain", message->retain);
    event_properties(&e, properties);
    event_end(&e);
}

static void on_publish(struct mosquitto *m, void *arg, int mid, int reason,
                       const mosquitto_property *properties)
{
    (void)m, (void)arg;
    struct event e;
    event_begin(&e, "puback");
    event_number(&e, "mid", mid);
    event_number(&e, "reason", reason);
    event_properties(&e, properties);
    event_end(&e);
}

static void on_subscribe(struct mosquitto *m, void *arg, int mid, int count, const int *granted,
                         const mosquitto_property *properties)
{
    (void)m, (void)arg;
    struct event e;
    event_begin(&e, "suback");
    event_number(&e, "mid", mid);
    for (int i = 0; i < count; i++)
        event_number(&e, "code", granted[i]);
    event_properties(&e, properties);
    event_end(&e);
}

static void on_unsubscribe(struct mosquitto *m, void *arg, int mid,
                           const mosquitto_property *properties)
{
    (void)m, (void)arg; /* the reason codes are not told */
    struct event e;
    event_begin(&e, "unsuback");
    event_number(&e, "mid", mid);
    event_properties(&e, properties);
    event_end(&e);
}

static void *network(void *arg)
{
    (void)arg;
    while (mosquitto_loop(mosq, 1000, 1) == MOSQ_ERR_SUCCESS)
        ;
    struct event e;
    event_begin(&e, "closed");
    event_end(&e);
    return NULL;
}

/* ---- Commands ---------------------------------------------------------------------------------
 */

static void sent(const struct line *line, const char *what, int rc, int mid)
{
    check(what, rc);
    struct event e;
    event_begin(&e, "sent");
    event_number(&e, "n", line_number(line, "n", 0));
    event_number(&e, "mid", mid);
    event_end(&e);
}

static void command_connect(const struct line *line)
{
    version = (int)line_number(line, "version", 5);
    mosq = mosquitto_new(line_text(line, "id"), line_number(line, "clean", 1) != 0, NULL);
    if (!mosq) {
        event_error("mosquitto_new", "refused");
        return;
    }
    mosquitto_int_option(mosq, MOSQ_OPT_PROTOCOL_VERSION,
                         version == 5 ? MQTT_PROTOCOL_V5 : MQTT_PROTOCOL_V311);
    mosquitto_connect_v5_callback_set(mosq, on_connect);
    mosquitto_disconnect_v5_callback_set(mosq, on_disconnect);
    mosquitto_message_v5_callback_set(mosq, on_message);
    mosquitto_publish_v5_callback_set(mosq, on_publish);
    mosquitto_subscribe_v5_callback_set(mosq, on_subscribe);
    mosquitto_unsubscribe_v5_callback_set(mosq, on_unsubscribe);
    if (line_field(line, "user"))
        check("user",
              mosquitto_username_pw_set(mosq, line_text(line, "user"), line_text(line, "pw")));
    mosquitto_property *properties = NULL, *will = NULL;
    put_u32(&properties, line, "session", MQTT_PROP_SESSION_EXPIRY_INTERVAL);
    put_u32(&properties, line, "mps", MQTT_PROP_MAXIMUM_PACKET_SIZE);
    put_u16(&properties, line, "rmax", MQTT_PROP_RECEIVE_MAXIMUM);
    put_u16(&properties, line, "amax", MQTT_PROP_TOPIC_ALIAS_MAXIMUM);
    put_u8(&properties, line, "rri", MQTT_PROP_REQUEST_RESPONSE_INFORMATION);
    put_u8(&properties, line, "rpi", MQTT_PROP_REQUEST_PROBLEM_INFORMATION);
    put_pairs(&properties, line, "up");
    put_u32(&will, line, "will.delay", MQTT_PROP_WILL_DELAY_INTERVAL);
    put_u32(&will, line, "will.expiry", MQTT_PROP_MESSAGE_EXPIRY_INTERVAL);
    put_pairs(&will, line, "will.up");
    const struct field *topic = line_field(line, "will"),
                       *payload = line_field(line, "will.payload");
    if (topic)
        check("will", mosquitto_will_set_v5(mosq, topic->value, payload ? (int)payload->len : 0,
                                            payload ? payload->value : NULL,
                                            (int)line_number(line, "will.qos", 0),
                                            line_number(line, "will.retain", 0) != 0, will));
    mosquitto_threaded_set(mosq, true);
    check("connect",
          mosquitto_connect_bind_v5(mosq, "127.0.0.1", (int)line_number(line, "port", 1883),
                                    (int)line_number(line, "keepalive", 60), NULL,
                                    version == 5 ? properties : NULL));
    mosquitto_property_free_all(&properties);
    pthread_t thread;
    if (pthread_create(&thread, NULL, network, NULL))
        abort();
    pthread_detach(thread);
}

/* Each filter may have its own options here, each SUBSCRIBE of the library has one for all: as many
 * as there are filters, unless the options are the same. */
static void command_subscribe(const struct line *line)
{
    char *filters[FIELDS_MAX];
    int count = 0, qos = 0, options = 0;
    for (int i = 0; i < line->count; i++) {
        char *parts[5];
        if (strcmp(line->fields[i].key, "f") != 0 ||
            line_split(line->fields[i].value, parts, 5) != 5)
            continue;
        filters[count++] = parts[0];
        qos = atoi(parts[1]);
        options = (atoi(parts[2]) ? MQTT_SUB_OPT_NO_LOCAL : 0) |
                  (atoi(parts[3]) ? MQTT_SUB_OPT_RETAIN_AS_PUBLISHED : 0) | atoi(parts[4]) << 4;
    }
    mosquitto_property *properties = NULL;
    if (line_field(line, "id"))
        check("id", mosquitto_property_add_varint(&properties, MQTT_PROP_SUBSCRIPTION_IDENTIFIER,
                                                  (uint32_t)line_number(line, "id", 0)));
    put_pairs(&properties, line, "up");
    int mid = 0;
    int rc = mosquitto_subscribe_multiple(mosq, &mid, count, filters, qos, options,
                                          version == 5 ? properties : NULL);
    sent(line, "subscribe", rc, mid);
    mosquitto_property_free_all(&properties);
}

static void command_unsubscribe(const struct line *line)
{
    char *filters[FIELDS_MAX];
    int count = 0, mid = 0;
    for (int i = 0; i < line->count; i++)
        if (strcmp(line->fields[i].key, "f") == 0)
            line_split(line->fields[i].value, &filters[count++], 1);
    int rc = mosquitto_unsubscribe_multiple(mosq, &mid, count, filters, NULL);
    sent(line, "unsubscribe", rc, mid);
}

static void command_publish(const struct line *line)
{
    mosquitto_property *properties = NULL;
    put_u32(&properties, line, "expiry", MQTT_PROP_MESSAGE_EXPIRY_INTERVAL);
    put_u8(&properties, line, "format", MQTT_PROP_PAYLOAD_FORMAT_INDICATOR);
    put_u16(&properties, line, "alias", MQTT_PROP_TOPIC_ALIAS);
    put_string(&properties, line, "ctype", MQTT_PROP_CONTENT_TYPE);
    put_string(&properties, line, "rtopic", MQTT_PROP_RESPONSE_TOPIC);
    const struct field *data = line_field(line, "cdata"), *payload = line_field(line, "payload");
    if (data)
        check("cdata", mosquitto_property_add_binary(&properties, MQTT_PROP_CORRELATION_DATA,
                                                     data->value, (uint16_t)data->len));
    put_pairs(&properties, line, "up");
    int mid = 0;
    const char *topic = line_text(line, "topic");
    int rc = mosquitto_publish_v5(
        mosq, &mid, topic && *topic ? topic : NULL, payload ? (int)payload->len : 0,
        payload ? payload->value : NULL, (int)line_number(line, "qos", 0),
        line_number(line, "retain", 0) != 0, version == 5 ? properties : NULL);
    sent(line, "publish", rc, mid);
    mosquitto_property_free_all(&properties);
}

static void command_disconnect(const struct line *line)
{
    mosquitto_property *properties = NULL;
    put_u32(&properties, line, "session", MQTT_PROP_SESSION_EXPIRY_INTERVAL);
    check("disconnect", mosquitto_disconnect_v5(mosq, (int)line_number(line, "reason", 0),
                                                version == 5 ? properties : NULL));
    mosquitto_property_free_all(&properties);
}

int main(void)
{
    mosquitto_lib_init();
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
