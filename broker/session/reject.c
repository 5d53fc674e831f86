/* broker/session/reject.c: how many rejects are kept, and who hears of them (R3). */
#include "base/buf.h"
#include "base/timestamp.h"
#include "base/utf8.h"
#include "broker/session/internal.h"

#define REJECT_TOPIC "$chronos/reject/"

bool session__reject_allowed(struct broker_loop *loop, size_t bytes)
{
    struct loop_session_state *state = state_of(loop);
    if (state->reject_tokens <= 0 || state->reject_bytes < (int64_t)bytes)
        return false;
    state->reject_tokens--;
    state->reject_bytes -= (int64_t)bytes;
    return true;
}

static void add_json_string(struct chr_buf *out, chr_slice text)
{
    static const char digits[] = "0123456789abcdef";
    chr_buf_add_u8(out, '"');
    bool utf8 = chr_utf8_valid(text);
    if (!utf8) /* as a BLOB is written (design 2.2) */
        chr_buf_add_cstr(out, "\\\\x");
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        if (!utf8) {
            chr_buf_add_u8(out, (uint8_t)digits[c >> 4]);
            chr_buf_add_u8(out, (uint8_t)digits[c & 15]);
        } else if (c == '"' || c == '\\') {
            chr_buf_add_u8(out, '\\');
            chr_buf_add_u8(out, c);
        } else if (c < 0x20) {
            chr_buf_addf(out, "\\u%04x", c);
        } else {
            chr_buf_add_u8(out, c);
        }
    }
    chr_buf_add_u8(out, '"');
}

static void publish_reject(struct broker_loop *loop, const struct db_reject *reject,
                           const struct db_table_def *table)
{
    char topic[sizeof REJECT_TOPIC + DB_NAME_BYTES_MAX];
    size_t prefix = sizeof REJECT_TOPIC - 1, name_len = strlen(table->name);
    memcpy(topic, REJECT_TOPIC, prefix);
    memcpy(topic + prefix, table->name, name_len);
    chr_slice name = chr_slice_of(topic, prefix + name_len);
    struct routes *routes = &state_of(loop)->routes;
    struct route *route = routes_get(routes, name);
    const struct match *match = route ? route_match(routes, route) : NULL;
    if (!match || !match_any(match))
        return;
    struct chr_buf json;
    chr_buf_init(&json, 7 * (reject->payload.len + reject->topic.len) + 8192);
    chr_buf_add_cstr(&json, "{\"table\":");
    add_json_string(&json, chr_slice_cstr(table->name));
    chr_buf_add_cstr(&json, ",\"topic\":");
    add_json_string(&json, reject->topic);
    chr_buf_add_cstr(&json, ",\"reason\":");
    add_json_string(&json, reject->reason);
    char time[CHR_TIMESTAMP_TEXT_MAX];
    chr_buf_addf(&json, ",\"received_at\":\"%.*s\",\"payload\":",
                 (int)chr_timestamp_format(reject->received_at_us, time), time);
    add_json_string(&json, reject->payload);
    chr_buf_add_u8(&json, '}');
    struct message *m =
        json.failed ? NULL : message_new(name, CHR_LIT(""), chr_buf_slice(&json), 1, false, 0);
    chr_buf_free(&json);
    if (!m) {
        LOOP_COUNT_DROP(loop, DROP_MEMORY);
        return;
    }
    session__deliver(loop, m, route);
    message_unref(m);
}

void session_rejects_answered(struct broker_loop *loop, const struct batch *batch)
{
    if (subscriptions_count(loop->node->subscriptions) == 0)
        return;
    const db_catalog *catalog = db_catalog_acquire(loop->node->db);
    for (uint32_t i = 0; i < batch->rejects_count; i++) {
        const struct db_reject *reject = &batch->rejects[i];
        if (reject->guard != UINT32_MAX && batch_guard_duplicate(batch, reject->guard))
            continue;
        const struct db_table_def *table = db_catalog_find_id(catalog, reject->table_id);
        if (table)
            publish_reject(loop, reject, table);
    }
    db_catalog_release(catalog);
}
