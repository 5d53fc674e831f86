/* proto/mqtt/properties.c: property blocks (5.0, 2.2.2), read, walked and written.
 *
 * A block is read once: each property is checked (known, allowed here, not twice, in its range) and
 * the single-valued ones land in their field. User properties and further subscription identifiers
 * are checked too, but stay in the block and are walked by those who want them. */
#include "proto/mqtt/encode.h"
#include "proto/mqtt/read.h"
#include "proto/mqtt/topic.h"

static const struct {
    const char *text;
    uint8_t type;     /* enum mqtt_property_type */
    uint16_t packets; /* set of packet types */
} table[64] = {
#define X(name, identifier, type, text, packets) [identifier] = {text, type, (uint16_t)(packets)},
    MQTT_PROPERTIES(X)
#undef X
};

enum mqtt_property_type mqtt_property_type(unsigned id)
{
    return id < CHR_COUNT_OF(table) ? (enum mqtt_property_type)table[id].type : MQTT_TYPE_NONE;
}

const char *mqtt_property_text(unsigned id)
{
    return mqtt_property_type(id) != MQTT_TYPE_NONE ? table[id].text : "unknown property";
}

const struct mqtt_properties mqtt_properties_none = {
    .message_expiry_s = UINT32_MAX,
    .maximum_packet_size = MQTT_PACKET_BYTES_MAX,
    .receive_maximum = UINT16_MAX,
    .maximum_qos = 2,
    .request_problem_information = true,
    .retain_available = true,
    .wildcard_subscription_available = true,
    .subscription_identifier_available = true,
    .shared_subscription_available = true,
};

/* ---- Reading -------------------------------------------------------------------------------- */

/* Reads the value that follows an identifier. MQTT__OK or a fault. */
static int read_value(struct mqtt__reader *r, enum mqtt_property_type type,
                      struct mqtt_property *property)
{
    uint8_t u8;
    uint16_t u16;
    int used;
    switch (type) {
    case MQTT_TYPE_U8:
        if (!mqtt__read_u8(r, &u8))
            return MQTT_FAULT_PROPERTY_TRUNCATED;
        property->number = u8;
        return MQTT__OK;
    case MQTT_TYPE_U16:
        if (!mqtt__read_u16(r, &u16))
            return MQTT_FAULT_PROPERTY_TRUNCATED;
        property->number = u16;
        return MQTT__OK;
    case MQTT_TYPE_U32:
        return mqtt__read_u32(r, &property->number) ? MQTT__OK : MQTT_FAULT_PROPERTY_TRUNCATED;
    case MQTT_TYPE_VARINT:
        used = mqtt__get_varint(r->at, mqtt__left(r), &property->number);
        if (used <= 0)
            return used == MQTT__VARINT_SHORT     ? MQTT_FAULT_PROPERTY_TRUNCATED
                   : used == MQTT__VARINT_ENDLESS ? MQTT_FAULT_VARINT_ENDLESS
                                                  : MQTT_FAULT_VARINT_OVERLONG;
        r->at += used;
        return MQTT__OK;
    case MQTT_TYPE_BINARY:
        return mqtt__read_bytes(r, &property->value) ? MQTT__OK : MQTT_FAULT_PROPERTY_TRUNCATED;
    case MQTT_TYPE_STRING_PAIR:
        used = mqtt__read_string(r, &property->name); /* [MQTT-1.5.7-1] */
        if (used == MQTT__OK)
            used = mqtt__read_string(r, &property->value);
        break;
    case MQTT_TYPE_STRING:
        used = mqtt__read_string(r, &property->value);
        break;
    default:
        return MQTT_FAULT_PROPERTY_UNKNOWN;
    }
    return used == MQTT_FAULT_STRING_TRUNCATED ? MQTT_FAULT_PROPERTY_TRUNCATED : used;
}

/* Checks the value's range and puts it into its field. MQTT__OK or a fault; MQTT_FAULT_PROPERTY_
 * VALUE stands for "look up the property's own section". */
static int store(struct mqtt_properties *out, const struct mqtt_property *p)
{
    uint32_t n = p->number;
    switch (p->id) {
    case MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR:
        out->payload_format_indicator = (uint8_t)n;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_MESSAGE_EXPIRY_INTERVAL:
        out->message_expiry_s = n;
        return MQTT__OK;
    case MQTT_PROPERTY_CONTENT_TYPE:
        out->content_type = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_RESPONSE_TOPIC:
        out->response_topic = p->value;
        if (p->value.len == 0)
            return MQTT_FAULT_RESPONSE_TOPIC_EMPTY;
        return mqtt_topic_has_wildcard(p->value) ? MQTT_FAULT_RESPONSE_TOPIC_WILDCARD : MQTT__OK;
    case MQTT_PROPERTY_CORRELATION_DATA:
        out->correlation_data = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER:
        if (!out->subscription_identifier)
            out->subscription_identifier = n;
        return n > 0 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL:
        out->session_expiry_s = n;
        return MQTT__OK;
    case MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER:
        out->assigned_client_id = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_SERVER_KEEP_ALIVE:
        out->server_keep_alive_s = (uint16_t)n;
        return MQTT__OK;
    case MQTT_PROPERTY_AUTHENTICATION_METHOD:
        out->authentication_method = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_AUTHENTICATION_DATA:
        out->authentication_data = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_REQUEST_PROBLEM_INFORMATION:
        out->request_problem_information = n == 1;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_WILL_DELAY_INTERVAL:
        out->will_delay_s = n;
        return MQTT__OK;
    case MQTT_PROPERTY_REQUEST_RESPONSE_INFORMATION:
        out->request_response_information = n == 1;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_RESPONSE_INFORMATION:
        out->response_information = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_SERVER_REFERENCE:
        out->server_reference = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_REASON_STRING:
        out->reason_string = p->value;
        return MQTT__OK;
    case MQTT_PROPERTY_RECEIVE_MAXIMUM:
        out->receive_maximum = (uint16_t)n;
        return n > 0 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM:
        out->topic_alias_maximum = (uint16_t)n;
        return MQTT__OK;
    case MQTT_PROPERTY_TOPIC_ALIAS:
        out->topic_alias = (uint16_t)n;
        return n > 0 ? MQTT__OK : MQTT_FAULT_TOPIC_ALIAS_ZERO;
    case MQTT_PROPERTY_MAXIMUM_QOS:
        out->maximum_qos = (uint8_t)n;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_RETAIN_AVAILABLE:
        out->retain_available = n == 1;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_USER_PROPERTY:
        return MQTT__OK;
    case MQTT_PROPERTY_MAXIMUM_PACKET_SIZE:
        out->maximum_packet_size = n;
        return n > 0 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_WILDCARD_SUBSCRIPTION_AVAILABLE:
        out->wildcard_subscription_available = n == 1;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER_AVAILABLE:
        out->subscription_identifier_available = n == 1;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    case MQTT_PROPERTY_SHARED_SUBSCRIPTION_AVAILABLE:
        out->shared_subscription_available = n == 1;
        return n <= 1 ? MQTT__OK : MQTT_FAULT_PROPERTY_VALUE;
    }
    return MQTT_FAULT_PROPERTY_UNKNOWN;
}

/* May this property stand here, after those in `present`? MQTT__OK or a fault. */
static int check_place(unsigned id, unsigned packet, enum mqtt_sender sender, uint64_t present)
{
    if (mqtt_property_type(id) == MQTT_TYPE_NONE)
        return MQTT_FAULT_PROPERTY_UNKNOWN;
    if (!(table[id].packets & MQTT_SET(packet)))
        return MQTT_FAULT_PROPERTY_MISPLACED;
    if (packet == MQTT_PUBLISH && id == MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER)
        return sender == MQTT_FROM_SERVER ? MQTT__OK : MQTT_FAULT_SUBSCRIPTION_ID_FROM_CLIENT;
    if (packet == MQTT_DISCONNECT && id == MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL &&
        sender == MQTT_FROM_SERVER)
        return MQTT_FAULT_SESSION_EXPIRY_FROM_SERVER;
    if (packet == MQTT_DISCONNECT && id == MQTT_PROPERTY_SERVER_REFERENCE &&
        sender == MQTT_FROM_CLIENT)
        return MQTT_FAULT_SERVER_REFERENCE_FROM_CLIENT;
    if ((present >> id & 1) && id != MQTT_PROPERTY_USER_PROPERTY)
        return MQTT_FAULT_PROPERTY_TWICE;
    return MQTT__OK;
}

static chr_err fail(struct mqtt_fault *fault, int id, unsigned packet, unsigned property)
{
    if (id == MQTT_FAULT_PROPERTY_TWICE || id == MQTT_FAULT_PROPERTY_VALUE ||
        id == MQTT_FAULT_PROPERTY_MISPLACED)
        return mqtt__fail_property(fault, (enum mqtt__fault_id)id, packet, property);
    return mqtt__fail(fault, MQTT_V5, (enum mqtt__fault_id)id);
}

chr_err mqtt__read_properties(struct mqtt__reader *r, unsigned packet, enum mqtt_sender sender,
                              struct mqtt_properties *out, struct mqtt_fault *fault)
{
    *out = mqtt_properties_none;
    uint32_t len = 0;
    int used = mqtt__get_varint(r->at, mqtt__left(r), &len);
    if (CHR_UNLIKELY(used <= 0))
        return fail(fault,
                    used == MQTT__VARINT_SHORT     ? MQTT_FAULT_PROPERTY_LENGTH
                    : used == MQTT__VARINT_ENDLESS ? MQTT_FAULT_VARINT_ENDLESS
                                                   : MQTT_FAULT_VARINT_OVERLONG,
                    packet, 0);
    r->at += used;
    if (CHR_UNLIKELY(len > mqtt__left(r)))
        return fail(fault, MQTT_FAULT_PROPERTY_LENGTH, packet, 0);
    if (len == 0)
        return CHR_OK;

    out->raw = chr_slice_of(r->at, len);
    struct mqtt__reader block = mqtt__reader(out->raw);
    r->at += len;
    while (block.at < block.end) {
        /* An identifier is a Variable Byte Integer; all that exist have one byte. */
        unsigned id = *block.at++;
        int err = check_place(id, packet, sender, out->present);
        struct mqtt_property property = {.id = (enum mqtt_property_id)id};
        if (err == MQTT__OK)
            err = read_value(&block, mqtt_property_type(id), &property);
        if (err == MQTT__OK)
            err = store(out, &property);
        if (CHR_UNLIKELY(err != MQTT__OK))
            return fail(fault, err, packet, id);
        out->present |= UINT64_C(1) << id;
    }
    return CHR_OK;
}

/* ---- Walking -------------------------------------------------------------------------------- */

bool mqtt_property_next(struct mqtt_property_iter *it, struct mqtt_property *property)
{
    if (it->rest.len == 0)
        return false;
    struct mqtt__reader r = mqtt__reader(it->rest);
    *property = (struct mqtt_property){.id = (enum mqtt_property_id) * r.at++};
    uint8_t u8;
    uint16_t u16;
    /* The block was checked when its packet was decoded, so no read can fall short; should a caller
     * pass one that was not, the walk ends. */
    bool ok = false;
    switch (mqtt_property_type(property->id)) {
    case MQTT_TYPE_U8:
        ok = mqtt__read_u8(&r, &u8);
        property->number = ok ? u8 : 0;
        break;
    case MQTT_TYPE_U16:
        ok = mqtt__read_u16(&r, &u16);
        property->number = ok ? u16 : 0;
        break;
    case MQTT_TYPE_U32:
        ok = mqtt__read_u32(&r, &property->number);
        break;
    case MQTT_TYPE_VARINT: {
        int used = mqtt__get_varint(r.at, mqtt__left(&r), &property->number);
        ok = used > 0;
        r.at += ok ? used : 0;
        break;
    }
    case MQTT_TYPE_STRING:
    case MQTT_TYPE_BINARY:
        ok = mqtt__read_bytes(&r, &property->value);
        break;
    case MQTT_TYPE_STRING_PAIR:
        ok = mqtt__read_bytes(&r, &property->name) && mqtt__read_bytes(&r, &property->value);
        break;
    case MQTT_TYPE_NONE:
        break;
    }
    if (!ok)
        return false;
    property->whole = chr_slice_of(it->rest.ptr, (size_t)(r.at - it->rest.ptr));
    it->rest = mqtt__rest(&r);
    return true;
}

bool mqtt_user_property_next(struct mqtt_property_iter *it, chr_slice *name, chr_slice *value)
{
    struct mqtt_property property;
    while (mqtt_property_next(it, &property)) {
        if (property.id == MQTT_PROPERTY_USER_PROPERTY) {
            *name = property.name;
            *value = property.value;
            return true;
        }
    }
    return false;
}

bool mqtt_subscription_id_next(struct mqtt_property_iter *it, uint32_t *id)
{
    struct mqtt_property property;
    while (mqtt_property_next(it, &property)) {
        if (property.id == MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER) {
            *id = property.number;
            return true;
        }
    }
    return false;
}

bool mqtt_user_property_find(const struct mqtt_properties *properties, chr_slice name,
                             chr_slice *value)
{
    if (properties->present && !mqtt_has(properties, MQTT_PROPERTY_USER_PROPERTY))
        return false;
    struct mqtt_property_iter it = mqtt_property_iter(properties);
    chr_slice key, found;
    while (mqtt_user_property_next(&it, &key, &found)) {
        if (!chr_slice_eq(key, name))
            continue;
        *value = found; /* untouched when there is none */
        return true;
    }
    return false;
}

/* ---- Writing -------------------------------------------------------------------------------- */

/* Room for the identifier and `bytes` more, or NULL and failed. */
static uint8_t *reserve(struct mqtt_property_writer *w, enum mqtt_property_id id, size_t bytes)
{
    if (w->failed || (size_t)(w->end - w->at) < 1 + bytes) {
        w->failed = true;
        return NULL;
    }
    uint8_t *at = w->at;
    *at = (uint8_t)id;
    w->at += 1 + bytes;
    return at + 1;
}

static uint8_t *put_string(uint8_t *at, chr_slice s)
{
    chr_put_u16be(at, (uint16_t)s.len);
    if (s.len)
        memcpy(at + 2, s.ptr, s.len);
    return at + 2 + s.len;
}

void mqtt_put_number(struct mqtt_property_writer *w, enum mqtt_property_id id, uint32_t value)
{
    uint8_t *at;
    switch (mqtt_property_type(id)) {
    case MQTT_TYPE_U8:
        if ((at = reserve(w, id, 1)))
            *at = (uint8_t)value;
        break;
    case MQTT_TYPE_U16:
        if ((at = reserve(w, id, 2)))
            chr_put_u16be(at, (uint16_t)value);
        break;
    case MQTT_TYPE_U32:
        if ((at = reserve(w, id, 4)))
            chr_put_u32be(at, value);
        break;
    case MQTT_TYPE_VARINT:
        if (value > MQTT_VARINT_MAX) {
            w->failed = true;
        } else if ((at = reserve(w, id, mqtt_varint_bytes(value)))) {
            mqtt_varint_put(at, value);
        }
        break;
    default:
        w->failed = true;
    }
}

void mqtt_put_bytes(struct mqtt_property_writer *w, enum mqtt_property_id id, chr_slice value)
{
    enum mqtt_property_type type = mqtt_property_type(id);
    if ((type != MQTT_TYPE_STRING && type != MQTT_TYPE_BINARY) ||
        value.len > MQTT_STRING_BYTES_MAX) {
        w->failed = true;
        return;
    }
    uint8_t *at = reserve(w, id, 2 + value.len);
    if (at)
        put_string(at, value);
}

void mqtt_put_user(struct mqtt_property_writer *w, chr_slice name, chr_slice value)
{
    if (name.len > MQTT_STRING_BYTES_MAX || value.len > MQTT_STRING_BYTES_MAX) {
        w->failed = true;
        return;
    }
    uint8_t *at = reserve(w, MQTT_PROPERTY_USER_PROPERTY, 4 + name.len + value.len);
    if (at)
        put_string(put_string(at, name), value);
}

void mqtt_put_raw(struct mqtt_property_writer *w, chr_slice block)
{
    if (w->failed || (size_t)(w->end - w->at) < block.len) {
        w->failed = true;
        return;
    }
    if (block.len)
        memcpy(w->at, block.ptr, block.len);
    w->at += block.len;
}

void mqtt_put_copy(struct mqtt_property_writer *w, const struct mqtt_properties *from,
                   uint64_t which)
{
    /* A block made by a writer has no `present`: then look. */
    if (from->present && !(from->present & ~which)) {
        mqtt_put_raw(w, from->raw);
        return;
    }
    struct mqtt_property_iter it = mqtt_property_iter(from);
    struct mqtt_property property;
    while (mqtt_property_next(&it, &property))
        if (which >> property.id & 1)
            mqtt_put_raw(w, property.whole);
}
